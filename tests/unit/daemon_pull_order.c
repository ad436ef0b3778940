/* SPDX-License-Identifier: Apache-2.0 */
/* Orders in bodies of requests: what is taken, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/pull_order.h"

static struct pull_order order;
static char error[PULL_ERROR_BYTES];

static int parse(const char *json)
{
    error[0] = '\0';
    return pull_order_parse(json, strlen(json), &order, error);
}

static void orders_are_taken(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"image\":\"r.test:5000/lib/app:1\"}"), 0);
    assert_string_equal(order.image.registry, "r.test:5000");
    assert_string_equal(order.image.tag, "1");
    assert_string_equal(order.platform.os, "");
    assert_false(order.attached || order.all_platforms);
    assert_int_equal(parse("{\"image\":\"a\",\"platform\":\"linux/arm/v7\",\"attached\":true}"), 0);
    assert_string_equal(order.image.repository, "library/a");
    assert_string_equal(order.platform.variant, "v7");
    assert_true(order.attached);
    assert_int_equal(parse("{\"image\":\"a\",\"platform\":\"all\"}"), 0);
    assert_true(order.all_platforms);
    assert_int_equal(parse("{\"image\":\"a\",\"platform\":\"\"}"), 0);
    assert_false(order.all_platforms);
    assert_int_equal(order.on, PULL_ON_LOCAL);
    assert_int_equal(parse("{\"image\":\"a\",\"on\":\"zone\"}"), 0);
    assert_int_equal(order.on, PULL_ON_ZONE);
    assert_int_equal(parse("{\"image\":\"a\",\"on\":\"16384\"}"), 0);
    assert_true(order.on == PULL_ON_COUNT && order.on_count == 16384);
    assert_int_equal(parse("{\"image\":\"a\",\"on\":3}"), 0);
    assert_true(order.on == PULL_ON_COUNT && order.on_count == 3);
}

static void others_are_refused(void **state)
{
    static const struct {
        const char *json;
        int err;
        const char *text;
    } bad[] = {
        {"", E_MALFORMED, "no JSON object"},
        {"[1]", E_MALFORMED, "no JSON object"},
        {"{\"image\":\"a\"} x", E_MALFORMED, "no JSON object"},
        {"{\"image\":\"a\",\"image\":\"b\"}", E_MALFORMED, "no JSON object"},
        {"{}", E_INVALID, "image: "},
        {"{\"image\":7}", E_INVALID, "image: "},
        {"{\"image\":\"A b\"}", E_INVALID, "image: "},
        {"{\"image\":\"a\\u0000b\"}", E_MALFORMED, "no JSON object"},
        {"{\"image\":\"a\",\"platform\":7}", E_INVALID, "platform: "},
        {"{\"image\":\"a\",\"platform\":null}", E_INVALID, "platform: "},
        {"{\"image\":\"a\",\"platform\":\"linux\"}", E_INVALID, "platform: "},
        {"{\"image\":\"a\",\"attached\":1}", E_INVALID, "attached: "},
        {"{\"image\":\"a\",\"on\":0}", E_INVALID, "on: "},
        {"{\"image\":\"a\",\"on\":-1}", E_INVALID, "on: "},
        {"{\"image\":\"a\",\"on\":\"\"}", E_INVALID, "on: "},
        {"{\"image\":\"a\",\"on\":\"All\"}", E_INVALID, "on: "},
        {"{\"image\":\"a\",\"on\":16385}", E_INVALID, "on: "},
        {"{\"image\":\"a\",\"on\":[]}", E_INVALID, "on: "},
        {"{\"image\":\"a\",\"on\":99999999999999999999999999999999999}", E_MALFORMED, "no JSON"},
        {"{\"image\":\"a\",\"plattform\":\"linux/arm\"}", E_INVALID, "known keys"},
        {"{\"image\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}", E_TOO_LARGE, "nests too deep"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i].json) != bad[i].err || strstr(error, bad[i].text) == NULL)
            fail_msg("%s: %s", bad[i].json, error);
    }
    /* Brackets inside a string nest nothing. */
    assert_int_equal(parse("{\"image\":\"a\\\"[[[[[[[[[[[[[[[[[[[[[[[[\"}"), E_INVALID);
}

static void length_is_bounded(void **state)
{
    size_t bytes = PULL_ORDER_BYTES_MAX + 1;
    char *json = malloc(bytes);
    (void)state;
    assert_non_null(json);
    memset(json, ' ', bytes);
    memcpy(json, "{\"image\":\"a\"}", 13);
    assert_int_equal(pull_order_parse(json, bytes - 1, &order, error), 0);
    assert_int_equal(pull_order_parse(json, bytes, &order, error), E_TOO_LARGE);
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_are_taken),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(length_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
