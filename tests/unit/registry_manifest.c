/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of manifests and indexes, and the documents that are refused (ORG-7, ORG-8, INT-10).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>

#include "limits.h"
#include "registry.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define A     "{\"mediaType\":\"x\",\"digest\":\"sha256:" HEX_A "\",\"size\":10}"
#define B     "{\"digest\":\"sha256:" HEX_B "\",\"size\":0,\"urls\":[\"http://evil/\"]}"
#define S512  "{\"digest\":\"sha512:" HEX_A HEX_B "\",\"size\":1099511627776}"

static struct manifest_descriptor out[MANIFEST_DESCRIPTORS_MAX];
static size_t count;

static int parse(const char *json)
{
    count = 999;
    return manifest_parse(json, strlen(json), out, MANIFEST_DESCRIPTORS_MAX, &count);
}

static void manifests(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"schemaVersion\":2,\"config\":" A ",\"layers\":[" B "," S512 "]}"),
                     0);
    assert_int_equal(count, 3);
    assert_int_equal(out[0].digest.algorithm, DIGEST_SHA256);
    assert_int_equal(out[0].digest.bytes[31], 0xaa);
    assert_int_equal(out[0].size_bytes, 10);
    assert_int_equal(out[1].size_bytes, 0);
    assert_int_equal(out[2].digest.algorithm, DIGEST_SHA512);
    assert_true(out[2].size_bytes == BLOB_BYTES_MAX);
    for (size_t i = 0; i < count; i++)
        assert_false(out[i].is_manifest);
    /* Not the config, nor what the registry need not have. */
    assert_false(out[0].is_layer || out[1].is_layer);
    assert_true(out[2].is_layer);
    /* An artifact without layers; unknown fields and a subject are none of our business. */
    assert_int_equal(parse("{\"schemaVersion\":2,\"subject\":" B ",\"x\":{\"y\":[1,null,true]},"
                           "\"config\":" A "}"),
                     0);
    assert_int_equal(count, 1);
    assert_int_equal(parse("{\"schemaVersion\":2,\"config\":" A ",\"layers\":[]}"), 0);
    assert_int_equal(parse("{\"schemaVersion\":2,\"blobs\":[" A "]}"), 0);
    assert_int_equal(count, 1);
    assert_false(out[0].is_layer);
}

static void indexes(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"schemaVersion\":2,\"manifests\":[" A "," B "]}"), 0);
    assert_int_equal(count, 2);
    assert_true(out[0].is_manifest && out[1].is_manifest);
    assert_false(out[0].is_layer || out[1].is_layer);
    assert_int_equal(parse("{\"schemaVersion\":2,\"manifests\":[]}"), 0);
    assert_int_equal(count, 0);
}

static void malformed(void **state)
{
    static const char *const bad[] = {
        "",
        "x",
        "[]",
        "null",
        "{}",
        "{\"schemaVersion\":2}",
        "{\"schemaVersion\":1,\"config\":" A "}",
        "{\"config\":" A "}",
        "{\"schemaVersion\":\"2\",\"config\":" A "}",
        "{\"schemaVersion\":2,\"layers\":[" A "]}",
        "{\"schemaVersion\":2,\"config\":[]}",
        "{\"schemaVersion\":2,\"config\":null}",
        "{\"schemaVersion\":2,\"config\":" A ",\"layers\":{}}",
        "{\"schemaVersion\":2,\"config\":" A ",\"layers\":[1]}",
        "{\"schemaVersion\":2,\"config\":" A ",\"layers\":[{}]}",
        "{\"schemaVersion\":2,\"manifests\":" A "}",
        /* manifest and index in one (CVE-2021-41190) */
        "{\"schemaVersion\":2,\"config\":" A ",\"layers\":[],\"manifests\":[]}",
        "{\"schemaVersion\":2,\"layers\":[" B "],\"manifests\":[" A "]}",
        /* the same key twice */
        "{\"schemaVersion\":2,\"config\":" A ",\"config\":" B "}",
        "{\"schemaVersion\":2,\"config\":" A "} trailing",
        "{\"schemaVersion\":2,\"config\":" A,
        /* digests */
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A "a\",\"size\":1}}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"md5:aa\",\"size\":1}}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":7,\"size\":1}}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A "\\u0000\",\"size\":1}}",
        /* sizes */
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A "\"}}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A "\",\"size\":-1}}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A "\",\"size\":1.0}}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A "\",\"size\":\"1\"}}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A
        "\",\"size\":99999999999999999999}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i]) != E_MALFORMED)
            fail_msg("%s", bad[i]);
        assert_int_equal(count, 999);
    }
}

static void sizes_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX_A
                           "\",\"size\":1099511627777}}"),
                     E_TOO_LARGE);
}

static char *document(unsigned descriptors, size_t *bytes)
{
    char *json = malloc((size_t)descriptors * 120 + 200);
    size_t used = (size_t)snprintf(json, 200, "{\"schemaVersion\":2,\"manifests\":[");

    for (unsigned i = 0; i < descriptors; i++)
        used += (size_t)snprintf(json + used, 200, "%s%s", i == 0 ? "" : ",", A);
    used += (size_t)snprintf(json + used, 200, "]}");
    *bytes = used;
    return json;
}

static void descriptors_are_bounded(void **state)
{
    size_t bytes;
    char *json = document(MANIFEST_DESCRIPTORS_MAX, &bytes);

    (void)state;
    assert_int_equal(manifest_parse(json, bytes, out, MANIFEST_DESCRIPTORS_MAX, &count), 0);
    assert_int_equal(count, MANIFEST_DESCRIPTORS_MAX);
    assert_int_equal(manifest_parse(json, bytes, out, MANIFEST_DESCRIPTORS_MAX - 1, &count),
                     E_TOO_LARGE);
    free(json);
    json = document(MANIFEST_DESCRIPTORS_MAX + 1, &bytes);
    assert_int_equal(manifest_parse(json, bytes, out, MANIFEST_DESCRIPTORS_MAX, &count),
                     E_TOO_LARGE);
    free(json);
}

/* ORG-7: depth 32; the document itself is depth 1. */
static void depth_is_bounded(void **state)
{
    char json[400] = "{\"schemaVersion\":2,\"config\":" A ",\"x\":";
    size_t base = strlen(json);

    (void)state;
    for (unsigned depth = 31; depth <= 32; depth++) {
        memset(json + base, '[', depth);
        memset(json + base + depth, ']', depth);
        memcpy(json + base + 2 * depth, "}", 2);
        assert_int_equal(parse(json), depth == 31 ? 0 : E_TOO_LARGE);
    }
    /* Brackets in strings are text. */
    memset(json + base, '[', 50);
    json[base] = '"';
    memcpy(json + base + 50, "\\\"[\"}", 6);
    assert_int_equal(parse(json), 0);
}

static void values_and_bytes_are_bounded(void **state)
{
    char *json = malloc(MANIFEST_BYTES_MAX + 2);
    size_t used = (size_t)snprintf(json, 200, "{\"schemaVersion\":2,\"config\":" A ",\"x\":[0");

    (void)state;
    while (used + 10 < MANIFEST_BYTES_MAX)
        used += (size_t)snprintf(json + used, 200, ",0");
    used += (size_t)snprintf(json + used, 200, "]}");
    assert_int_equal(manifest_parse(json, used, out, MANIFEST_DESCRIPTORS_MAX, &count),
                     E_TOO_LARGE);
    memset(json, ' ', MANIFEST_BYTES_MAX + 1);
    assert_int_equal(
        manifest_parse(json, MANIFEST_BYTES_MAX + 1, out, MANIFEST_DESCRIPTORS_MAX, &count),
        E_TOO_LARGE);
    assert_int_equal(
        manifest_parse(json, MANIFEST_BYTES_MAX, out, MANIFEST_DESCRIPTORS_MAX, &count),
        E_MALFORMED);
    free(json);
}

static void expect_type(const char *json, int err, const char *wanted)
{
    char type[64] = "none";

    assert_int_equal(manifest_media_type(json, strlen(json), type, sizeof type), err);
    assert_string_equal(type, err == 0 ? wanted : "none");
}

static void own_media_types(void **state)
{
    (void)state;
    expect_type("{\"schemaVersion\":2,\"mediaType\":\"application/vnd.x+json\",\"config\":{}}", 0,
                "application/vnd.x+json");
    expect_type("{\"schemaVersion\":2,\"manifests\":[]}", 0,
                "application/vnd.oci.image.index.v1+json");
    expect_type("{\"schemaVersion\":2,\"config\":" A "}", 0,
                "application/vnd.oci.image.manifest.v1+json");
    expect_type("{\"schemaVersion\":2}", E_MALFORMED, NULL);
    expect_type("{", E_MALFORMED, NULL);
    expect_type("[]", E_MALFORMED, NULL);
    expect_type("{\"mediaType\":7,\"config\":{}}", E_MALFORMED, NULL);
    expect_type("{\"mediaType\":\"\",\"config\":{}}", E_MALFORMED, NULL);
    expect_type("{\"mediaType\":\"text\",\"config\":{}}", E_MALFORMED, NULL);
    expect_type("{\"mediaType\":\"a/\",\"config\":{}}", E_MALFORMED, NULL);
    /* No value may begin another header line. */
    expect_type("{\"mediaType\":\"a/b\\r\\nX: y\",\"config\":{}}", E_MALFORMED, NULL);
    expect_type("{\"mediaType\":\"application/"
                "x123456789012345678901234567890123456789012345678901234567890\"}",
                E_TOO_LARGE, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(manifests),
        cmocka_unit_test(indexes),
        cmocka_unit_test(malformed),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(descriptors_are_bounded),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(values_and_bytes_are_bounded),
        cmocka_unit_test(own_media_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
