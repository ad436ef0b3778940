/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/topology.c: labels and distance. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "topology.h"

static struct topology place(const char *region, const char *zone, const char *vswitch)
{
    struct topology topology;
    assert_int_equal(label_set(&topology.region, region, strlen(region)), 0);
    assert_int_equal(label_set(&topology.zone, zone, strlen(zone)), 0);
    assert_int_equal(label_set(&topology.vswitch, vswitch, strlen(vswitch)), 0);
    return topology;
}

static void test_labels_keep_the_allowed_bytes(void **state)
{
    (void)state;
    struct label label;
    for (int c = 0; c < 256; c++) {
        char text[3] = {'a', (char)c, 'z'};
        bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       (c != 0 && strchr("._:/-", c) != NULL);
        memset(&label, 'k', sizeof label);
        int err = label_set(&label, text, 3);
        assert_int_equal(err, allowed ? 0 : E_MALFORMED);
        assert_int_equal(label.text[0], allowed ? 'a' : 'k'); /* unchanged on error */
    }
}

static void test_label_length_is_bounded(void **state)
{
    (void)state;
    char text[LABEL_BYTES_MAX + 1];
    struct label label;
    memset(text, 'x', sizeof text);
    assert_int_equal(label_set(&label, text, LABEL_BYTES_MAX), 0);
    assert_int_equal(strlen(label.text), LABEL_BYTES_MAX);
    assert_int_equal(label_set(&label, "", 0), 0);
    assert_string_equal(label.text, "");
    assert_int_equal(label_set(&label, "keep", 4), 0);
    assert_int_equal(label_set(&label, text, sizeof text), E_TOO_LARGE);
    assert_string_equal(label.text, "keep");
    assert_int_equal(label_set(&label, NULL, 0), 0);
    /* A shorter label leaves nothing of the longer one behind. */
    const struct label empty = {.text = ""};
    assert_memory_equal(&label, &empty, sizeof label);
    assert_true(label_equal(&label, &empty));
}

static void test_distance(void **state)
{
    (void)state;
    static const struct {
        const char *other[3];
        enum distance expected;
    } rows[] = {
        {{"r1", "z1", "v1"}, DISTANCE_VSWITCH},   {{"r1", "z1", "v2"}, DISTANCE_ZONE},
        {{"r1", "z1", ""}, DISTANCE_ZONE},        {{"r1", "z2", "v2"}, DISTANCE_REGION},
        {{"r2", "z2", "v2"}, DISTANCE_ELSEWHERE}, {{"", "", ""}, DISTANCE_ELSEWHERE},
        {{"r1", "", ""}, DISTANCE_REGION},
    };
    struct topology here = place("r1", "z1", "v1");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct topology there = place(rows[i].other[0], rows[i].other[1], rows[i].other[2]);
        assert_int_equal(topology_distance(&here, &there), rows[i].expected);
        assert_int_equal(topology_distance(&there, &here), rows[i].expected);
        assert_int_equal(topology_same_zone(&here, &there), rows[i].expected <= DISTANCE_ZONE);
    }
}

static void test_unlabelled_nodes_share_a_zone(void **state)
{
    (void)state;
    struct topology a = place("", "", ""), b = place("", "", "");
    assert_true(topology_same_zone(&a, &b));
    assert_int_equal(topology_distance(&a, &b), DISTANCE_ZONE);
    a = place("", "z1", "");
    b = place("", "z2", "");
    assert_int_equal(topology_distance(&a, &b), DISTANCE_REGION);
}

static void test_distance_names(void **state)
{
    (void)state;
    assert_string_equal(distance_name(DISTANCE_VSWITCH), "vswitch");
    assert_string_equal(distance_name(DISTANCE_ZONE), "zone");
    assert_string_equal(distance_name(DISTANCE_REGION), "region");
    assert_string_equal(distance_name(DISTANCE_ELSEWHERE), "elsewhere");
    assert_string_equal(distance_name(DISTANCE_COUNT), "elsewhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels_keep_the_allowed_bytes),
        cmocka_unit_test(test_label_length_is_bounded),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_unlabelled_nodes_share_a_zone),
        cmocka_unit_test(test_distance_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
