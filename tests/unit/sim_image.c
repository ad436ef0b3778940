/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests as registries serve them, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../sim/image.h"

static uint64_t layers[IMAGE_LAYERS_MAX];
static uint32_t count;
static char why[256];

static int read_image(const char *json)
{
    why[0] = '\0';
    count = 77;
    return image_of_manifest(json, strlen(json), layers, &count, why, sizeof why);
}

static void config_and_layers_each_once(void **state)
{
    (void)state;
    assert_int_equal(
        read_image("{\"schemaVersion\": 2, \"mediaType\": "
                   "\"application/vnd.oci.image.manifest.v1+json\", \"config\": {\"digest\": "
                   "\"sha256:c\", \"size\": 1469}, \"layers\": [{\"digest\": \"sha256:a\", "
                   "\"size\": 29124181}, {\"digest\": \"sha256:b\", \"size\": 0}, {\"digest\": "
                   "\"sha256:a\", \"size\": 29124181}, {\"digest\": \"sha256:d\", \"size\": 41}]}"),
        0);
    assert_int_equal(count, 3);
    assert_int_equal(layers[0], 1469);
    assert_int_equal(layers[1], 29124181);
    assert_int_equal(layers[2], 41);
}

static void what_is_no_image_is_explained(void **state)
{
    (void)state;
    static const struct {
        const char *json, *why;
    } cases[] = {
        {"", "not valid JSON"},
        {"{", "not valid JSON: line 1"},
        {"[]", "no layers"},
        {"{}", "no layers"},
        {"{\"layers\": {}}", "no layers"},
        {"{\"layers\": []}", "without a single byte"},
        {"{\"manifests\": [], \"layers\": []}", "index of several platforms"},
        {"{\"fsLayers\": []}", "schema 1"},
        {"{\"layers\": [{\"size\": 5}]}", "without digest or size"},
        {"{\"layers\": [{\"digest\": \"x\"}]}", "without digest or size"},
        {"{\"layers\": [{\"digest\": \"x\", \"size\": \"5\"}]}", "without digest or size"},
        {"{\"layers\": [{\"digest\": \"x\", \"size\": -5}]}", "negative"},
        {"{\"layers\": [{\"digest\": \"x\", \"size\": 9000000000000000000}]}", "over the limit"},
        {"{\"layers\": [7]}", "without digest or size"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(read_image(cases[i].json), E_CONFIG);
        if (strstr(why, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].json, why);
        assert_int_equal(count, 77);
    }
}

static void layers_are_counted(void **state)
{
    (void)state;
    char json[8192];
    for (unsigned wanted = IMAGE_LAYERS_MAX; wanted <= IMAGE_LAYERS_MAX + 1; wanted++) {
        size_t used = (size_t)snprintf(json, sizeof json, "{\"layers\": [");
        for (unsigned i = 0; i < wanted; i++)
            used += (size_t)snprintf(json + used, sizeof json - used,
                                     "%s{\"digest\": \"%u\", \"size\": 9}", i > 0 ? "," : "", i);
        (void)snprintf(json + used, sizeof json - used, "]}");
        assert_int_equal(read_image(json), wanted == IMAGE_LAYERS_MAX ? 0 : E_CONFIG);
    }
    assert_non_null(strstr(why, "more than 128 blobs"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_and_layers_each_once),
        cmocka_unit_test(what_is_no_image_is_explained),
        cmocka_unit_test(layers_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
