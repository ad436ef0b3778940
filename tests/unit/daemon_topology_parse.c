/* SPDX-License-Identifier: Apache-2.0 */
/* What sources of topology labels answer, right, malformed and hostile: labels, or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../../src/daemon/topology_parse.h"
#include "bytes.h"

static void expect(const struct topology *got, const char *region, const char *zone,
                   const char *vswitch)
{
    assert_string_equal(got->region.text, region);
    assert_string_equal(got->zone.text, zone);
    assert_string_equal(got->vswitch.text, vswitch);
    struct topology whole = {0}; /* tails are zeroed: topologies are compared as memory */
    assert_int_equal(label_set(&whole.region, region, strlen(region)), 0);
    assert_int_equal(label_set(&whole.zone, zone, strlen(zone)), 0);
    assert_int_equal(label_set(&whole.vswitch, vswitch, strlen(vswitch)), 0);
    assert_memory_equal(got, &whole, sizeof whole);
}

static void labels_are_trimmed_and_checked(void **state)
{
    (void)state;
    struct label label = {"kept"};
    char text[LABEL_BYTES_MAX + 2];
    static const char *const bad[] = {"",       " ",           "\r\n", "a b",
                                      "<html>", "caf\xc3\xa9", "a\nb", "\1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(topology_label(&label, bad[i]), E_MALFORMED);
    memset(text, 'a', sizeof text);
    text[LABEL_BYTES_MAX + 1] = '\0';
    assert_int_equal(topology_label(&label, text), E_MALFORMED);
    assert_string_equal(label.text, "kept");
    assert_int_equal(topology_label(&label, text + 1), 0);
    assert_int_equal(topology_label(&label, " \t cn-hangzhou-i\r\n"), 0);
    assert_string_equal(label.text, "cn-hangzhou-i");
}

/* ---- Kubernetes ---- */

static void label_file(const char *text, const char *key, bool any, const char *region,
                       const char *zone, const char *vswitch)
{
    struct topology got;
    assert_int_equal(topology_parse_label_file(text, strlen(text), key, &got), any);
    expect(&got, region, zone, vswitch);
}

static void label_files(void **state)
{
    (void)state;
    label_file("app=\"shoal\"\ntopology.kubernetes.io/region=\"eu-1\"\n"
               "topology.kubernetes.io/zone=\"eu-1a\"\nexample.com/vsw=\"vsw-7\"\n",
               "example.com/vsw", true, "eu-1", "eu-1a", "vsw-7");
    label_file("topology.kubernetes.io/zone=\"eu-1a\"", "", true, "", "eu-1a", "");
    label_file("failure-domain.beta.kubernetes.io/zone=\"old\"\n"
               "topology.kubernetes.io/zone=\"new\"\n"
               "failure-domain.beta.kubernetes.io/region=\"r\"\n",
               "", true, "r", "new", "");
    label_file("topology.kubernetes.io/zone=\"new\"\r\n"
               "failure-domain.beta.kubernetes.io/zone=\"old\"\r\n",
               "", true, "", "new", "");
    label_file("v=\"a\\\\b\"\nv=\"a\\\"b\"\nv=\"good\"\n", "v", true, "", "", "good");
    static const char *const nothing[] = {
        "",
        "\n\n\n",
        "=",
        "=\"x\"",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/zone=",
        "topology.kubernetes.io/zone=\"",
        "topology.kubernetes.io/zone=\"\"",
        "topology.kubernetes.io/zone=eu-1a",
        "topology.kubernetes.io/zone=\"eu 1a\"",
        "topology.kubernetes.io/zone=\"eu-1a",
        "topology.kubernetes.io/zone=\"eu\\x41\"",
        "topology.kubernetes.io/zone=\"eu\\\"",
        "xtopology.kubernetes.io/zone=\"a\"",
        "topology.kubernetes.io/zone =\"a\"",
    };
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++)
        label_file(nothing[i], "", false, "", "", "");
    /* Zero bytes and endless lines. */
    struct topology got;
    static const char zero[] = "topology.kubernetes.io/zone=\"a\"\0\n";
    assert_false(topology_parse_label_file(zero, sizeof zero - 1, "", &got));
    char line[5000];
    memset(line, 'k', sizeof line);
    line[400] = '=';
    line[401] = line[sizeof line - 1] = '"';
    assert_false(topology_parse_label_file(line, sizeof line, "", &got));
    memcpy(line, "topology.kubernetes.io/zone=\"", 29);
    assert_false(topology_parse_label_file(line, sizeof line, "", &got));
}

static void node_objects(void **state)
{
    (void)state;
    struct topology got;
    static const char whole[] =
        "{\"kind\":\"PartialObjectMetadata\",\"metadata\":{\"name\":\"n\",\"labels\":{"
        "\"topology.kubernetes.io/region\":\"eu-1\",\"topology.kubernetes.io/zone\":\"eu-1a\","
        "\"failure-domain.beta.kubernetes.io/zone\":\"x\",\"vsw\":\"vsw-1\",\"n\":7,"
        "\"topology.kubernetes.io/zones\":\"y\"}}}";
    assert_int_equal(topology_parse_node(whole, sizeof whole - 1, "vsw", &got), 0);
    expect(&got, "eu-1", "eu-1a", "vsw-1");
    static const char bare[] = "{\"metadata\":{}}";
    assert_int_equal(topology_parse_node(bare, sizeof bare - 1, "vsw", &got), 0);
    expect(&got, "", "", "");
    static const char odd[] = "{\"metadata\":{\"labels\":{\"topology.kubernetes.io/zone\":[\"a\"],"
                              "\"topology.kubernetes.io/region\":\"<b>\"}}}";
    assert_int_equal(topology_parse_node(odd, sizeof odd - 1, "", &got), 0);
    expect(&got, "", "", "");
    static const char *const bad[] = {"",
                                      "null",
                                      "[]",
                                      "{",
                                      "{}",
                                      "{\"metadata\":[]}",
                                      "{\"metadata\":{\"labels\":[]}}",
                                      "{\"metadata\":{\"labels\":{\"a\":\"\\u0000\"}}}",
                                      "{\"metadata\":{},\"metadata\":{}}",
                                      "<html>not found</html>"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(topology_parse_node(bad[i], strlen(bad[i]), "", &got), E_MALFORMED);
    char deep[8192];
    memset(deep, '[', sizeof deep);
    assert_int_equal(topology_parse_node(deep, sizeof deep, "", &got), E_MALFORMED);
    for (size_t cut = 0; cut < sizeof whole - 1; cut++)
        assert_int_equal(topology_parse_node(whole, cut, "", &got), E_MALFORMED);
}

/* ---- clouds ---- */

static void azure(const char *json, int err, const char *region, const char *zone)
{
    struct topology got = {0};
    assert_int_equal(topology_parse_azure(json, strlen(json), &got), err);
    expect(&got, region, zone, "");
}

static void azure_instances(void **state)
{
    (void)state;
    azure("{\"location\":\"westeurope\",\"zone\":\"2\",\"platformFaultDomain\":\"1\"}", 0,
          "westeurope", "westeurope-2");
    azure("{\"location\":\"westeurope\",\"zone\":\"\",\"platformFaultDomain\":\"1\"}", 0,
          "westeurope", "1");
    azure("{\"location\":\"westeurope\"}", 0, "westeurope", "");
    azure("{\"location\":\"westeurope\",\"zone\":3}", 0, "westeurope", "");
    azure("{\"location\":\"westeurope\",\"zone\":\"a b\"}", 0, "westeurope", "");
    azure("{\"location\":\"\",\"zone\":\"2\"}", E_MALFORMED, "", "");
    azure("{\"location\":7}", E_MALFORMED, "", "");
    azure("{\"zone\":\"2\"}", E_MALFORMED, "", "");
    azure("[]", E_MALFORMED, "", "");
    azure("", E_MALFORMED, "", "");
    char json[900];
    (void)snprintf(json, sizeof json, "{\"location\":\"%0600d\"}", 0);
    azure(json, E_MALFORMED, "", "");
    (void)snprintf(json, sizeof json, "{\"location\":\"w\",\"zone\":\"%0600d\"}", 0);
    azure(json, 0, "w", "");
}

static void gcp(const char *text, int err, const char *region, const char *zone)
{
    struct topology got = {0};
    assert_int_equal(topology_parse_gcp(text, &got), err);
    expect(&got, region, zone, "");
}

static void gcp_zones(void **state)
{
    (void)state;
    gcp("projects/123456789/zones/us-central1-a", 0, "us-central1", "us-central1-a");
    gcp("projects/1/zones/europe-west4-b\n", 0, "europe-west4", "europe-west4-b");
    gcp("us-central1-a", 0, "us-central1", "us-central1-a");
    static const char *const bad[] = {"",        "/",     "projects/1/zones/",
                                      "zones/x", "a/-b",  "b-",
                                      "<html>",  "a b-c", "x/us central1-a"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        gcp(bad[i], E_MALFORMED, "", "");
}

/* ---- prefixes ---- */

static void prefixes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *region, *zone, *vswitch, *inside, *outside;
    } good[] = {
        {"10.1.0.0/16=eu-1/eu-1a/vsw-7", "eu-1", "eu-1a", "vsw-7", "10.1.255.9", "10.2.0.1"},
        {"10.1.0.0/16=/eu-1a", "", "eu-1a", "", "10.1.0.0", "10.0.255.255"},
        {"10.1.2.128/25=//vsw", "", "", "vsw", "10.1.2.200", "10.1.2.127"},
        {"0.0.0.0/0=all", "all", "", "", "255.255.255.255", "fd00::1"},
        {"192.0.2.7/32=r/z/", "r", "z", "", "192.0.2.7", "192.0.2.6"},
        {"fd00:1::/32=r/z/v", "r", "z", "v", "fd00:1:ffff::1", "fd00:2::1"},
        {"::/0=all", "all", "", "", "10.0.0.1", NULL},
        {"[fd00::]/16=r", "r", "", "", "fd00::9", "10.0.0.1"},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct topology_prefix prefix;
        struct peer_addr addr;
        assert_int_equal(topology_prefix_parse(good[i].text, &prefix), 0);
        expect(&prefix.topology, good[i].region, good[i].zone, good[i].vswitch);
        assert_int_equal(peer_addr_parse(good[i].inside, 1, &addr), 0);
        assert_true(topology_prefix_fits(&prefix, &addr));
        if (good[i].outside == NULL)
            continue;
        assert_int_equal(peer_addr_parse(good[i].outside, 1, &addr), 0);
        assert_false(topology_prefix_fits(&prefix, &addr));
    }
    static const char *const bad[] = {
        "",
        "10.0.0.0",
        "10.0.0.0/8",
        "10.0.0.0=r/z/v",
        "10.0.0.0/8=",
        "10.0.0.0/8=//",
        "10.0.0.0/8=r/z/v/w",
        "10.0.0.0/8=r z",
        "10.0.0.0/33=r",
        "10.0.0.0/=r",
        "10.0.0.0/-1=r",
        "10.0.0.0/+8=r",
        "10.0.0.0/0008=r",
        "10.0.0.0/8x=r",
        "10.0.0.1/8=r",
        "10.128.0.0/8=r",
        "fd00::/129=r",
        "fd00::1/64=r",
        "host/8=r",
        "=r/z",
        "/8=r",
        "10.0.0.0:7/8=r",
    };
    struct topology_prefix kept = {.block = {.bits = 77}}, prefix = kept;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(topology_prefix_parse(bad[i], &prefix), E_MALFORMED);
        assert_memory_equal(&prefix, &kept, sizeof kept);
    }
}

static void sources_have_names(void **state)
{
    (void)state;
    for (unsigned i = TOPOLOGY_KUBERNETES; i < TOPOLOGY_SOURCE_COUNT; i++)
        assert_int_equal(topology_source_find(topology_source_name((enum topology_source)i)), i);
    assert_int_equal(topology_source_find("configuration"), TOPOLOGY_UNKNOWN);
    assert_int_equal(topology_source_find("unknown"), TOPOLOGY_UNKNOWN);
    assert_int_equal(topology_source_find(""), TOPOLOGY_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_trimmed_and_checked),
        cmocka_unit_test(label_files),
        cmocka_unit_test(node_objects),
        cmocka_unit_test(azure_instances),
        cmocka_unit_test(gcp_zones),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(sources_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
