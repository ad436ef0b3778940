/* SPDX-License-Identifier: Apache-2.0 */
/* Notifications of pushed images: Harbor's for Kraken, a registry's own, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/preheat.h"

#define HEX  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define TYPE "application/vnd.docker.distribution.manifest.v2+json"
#define URL  "https://hub.test/v2/lib/app/manifests/1"
#define PUSH                                                                                       \
    "{\"action\":\"push\",\"target\":{\"mediaType\":\"" TYPE "\",\"repository\":\"lib/app\","
#define ALL(x) "{\"events\":[" x "]}"

static struct preheat preheat;
static char error[PULL_ERROR_BYTES];

static int parse(const char *json)
{
    error[0] = '\0';
    return preheat_parse(json, strlen(json), &preheat, error);
}

static void harbor_as_kraken(void **state)
{
    const struct image_name *image = &preheat.orders[0].image;
    (void)state;
    assert_int_equal(
        parse("{\"events\":[{\"id\":\"xyz\",\"timestamp\":\"2026-11-23T00:00:00Z\",\"action\":"
              "\"push\",\"target\":{\"mediaType\":\"" TYPE "\",\"size\":0,\"digest\":\"sha256:" HEX
              "\",\"repository\":\"lib/app\",\"url\":\"https://Hub.Test:443/v2/lib/app/manifests/"
              "1\",\"tag\":\"1\"},\"request\":null,\"actor\":{}}]}"),
        0);
    assert_int_equal(preheat.count, 1);
    assert_int_equal(preheat.ignored, 0);
    assert_string_equal(image->registry, "hub.test");
    assert_string_equal(image->repository, "lib/app");
    assert_string_equal(image->tag, "1");
    assert_true(image->has_digest);
    assert_false(preheat.orders[0].attached || preheat.orders[0].all_platforms);
}

static void hosts_of_urls(void **state)
{
    static const struct {
        const char *url, *host;
    } known[] = {
        {"http://hub.test:80/v2/x", "hub.test"},
        {"http://hub.test:443", "hub.test:443"},
        {"https://hub.test:5000/?q", "hub.test:5000"},
        {"https://10.0.0.1/", "10.0.0.1"},
        {"ftp://hub.test/", NULL},
        {"hub.test/v2/", NULL},
        {"https:///v2/", NULL},
        {"https://user@hub.test/", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char json[512];
        (void)snprintf(json, sizeof json, ALL(PUSH "\"tag\":\"1\",\"url\":\"%s\"}}"), known[i].url);
        int err = parse(json);
        if (err != (known[i].host == NULL ? E_INVALID : 0))
            fail_msg("%s: %d", known[i].url, err);
        if (err == 0)
            assert_string_equal(preheat.orders[0].image.registry, known[i].host);
    }
}

static void others_are_ignored_or_refused(void **state)
{
    static const struct {
        const char *json;
        int err;
    } bad[] = {
        {"", E_MALFORMED},
        {"{}", E_MALFORMED},
        {"{\"events\":{}}", E_MALFORMED},
        {ALL(PUSH "\"url\":\"" URL "\"}}"), E_INVALID},
        {ALL(PUSH "\"tag\":\"-\",\"url\":\"" URL "\"}}"), E_INVALID},
        {ALL(PUSH "\"tag\":\"1\",\"digest\":\"sha256:1\",\"url\":\"" URL "\"}}"), E_INVALID},
        {ALL(PUSH "\"tag\":\"1\"}}"), E_INVALID},
        {ALL("{\"action\":\"push\",\"target\":{\"mediaType\":\"" TYPE
             "\",\"repository\":\"../x\",\"tag\":\"1\",\"url\":\"" URL "\"}}"),
         E_INVALID},
        {"{\"events\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}", E_TOO_LARGE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parse(bad[i].json) != bad[i].err || error[0] == '\0')
            fail_msg("%s: %s", bad[i].json, error);
    /* A registry tells of layers, pulls and deletions as well. */
    assert_int_equal(parse(ALL("1,{},{\"action\":\"pull\",\"target\":{\"mediaType\":\"" TYPE "\"}},"
                               "{\"action\":\"push\",\"target\":{\"mediaType\":\"application/"
                               "octet-stream\",\"repository\":\"lib/app\"}}")),
                     0);
    assert_int_equal(preheat.count, 0);
    assert_int_equal(preheat.ignored, 4);
}

static void events_and_bytes_are_bounded(void **state)
{
    static char json[PREHEAT_BYTES_MAX + 2];
    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        size_t used = (size_t)snprintf(json, sizeof json, "{\"events\":[");
        for (unsigned i = 0; i < PREHEAT_EVENTS_MAX + more; i++)
            used += (size_t)snprintf(json + used, sizeof json - used,
                                     "%s" PUSH "\"tag\":\"%u\",\"url\":\"" URL "\"}}",
                                     i == 0 ? "" : ",", i);
        (void)snprintf(json + used, sizeof json - used, "]}");
        assert_int_equal(parse(json), more == 0 ? 0 : E_TOO_LARGE);
    }
    memset(json, ' ', sizeof json);
    memcpy(json, "{\"events\":[]}", 13);
    assert_int_equal(preheat_parse(json, PREHEAT_BYTES_MAX, &preheat, error), 0);
    assert_int_equal(preheat_parse(json, PREHEAT_BYTES_MAX + 1, &preheat, error), E_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(harbor_as_kraken),
        cmocka_unit_test(hosts_of_urls),
        cmocka_unit_test(others_are_ignored_or_refused),
        cmocka_unit_test(events_and_bytes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
