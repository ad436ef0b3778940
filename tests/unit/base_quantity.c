/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers with units: what is read, what is refused, and that text and value are each other's. */
#include "quantity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct quantity_unit rates[] = {
    {"bit/s", 1}, {"kbit/s", 1000}, {"Gbit/s", 1000000000}, {NULL, 0}};

static void whole_numbers_with_units(void **state)
{
    (void)state;
    uint64_t value = 0;
    assert_int_equal(quantity_parse("64MiB", quantity_sizes, 1, &value), 0);
    assert_int_equal(value, 64 << 20);
    assert_int_equal(quantity_parse("7", quantity_sizes, 1024, &value), 0);
    assert_int_equal(value, 7 * 1024);
    assert_int_equal(quantity_parse("18446744073709551615", quantity_sizes, 1, &value), 0);
    assert_true(value == UINT64_MAX);
}

static void bad_numbers_change_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "x",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 MiB",
                                      "1.5GiB",
                                      "1M",
                                      "1mib",
                                      "1e3",
                                      "0x10",
                                      "1_0",
                                      "MiB",
                                      "1MiBs",
                                      "18446744073709551616",
                                      "18446744073709551615KiB"};
    uint64_t value = 5;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(quantity_parse(bad[i], quantity_sizes, 1, &value), E_MALFORMED);
    assert_int_equal(quantity_parse("5", quantity_sizes, 0, &value), E_MALFORMED);
    assert_int_equal(value, 5);
}

static void decimals_are_exact(void **state)
{
    (void)state;
    uint64_t value = 0;
    assert_int_equal(quantity_parse_decimal("2.4Gbit/s", rates, 0, &value), 0);
    assert_true(value == 2400000000);
    assert_int_equal(quantity_parse_decimal("0.000000001 Gbit/s", rates, 0, &value), 0);
    assert_true(value == 1);
    assert_int_equal(quantity_parse_decimal("1.0000000019Gbit/s", rates, 0, &value), E_MALFORMED);
    assert_int_equal(quantity_parse_decimal("1.999999999TiB", quantity_sizes, 0, &value), 0);
    assert_true(value == 2199023254452); /* (2 - 10^-9) * 2^40 without its fraction */
    assert_int_equal(quantity_parse_decimal("1.5", rates, 1000, &value), 0);
    assert_true(value == 1500);
}

static void bad_decimals_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        ".5Gbit/s", "1.Gbit/s", "1..5",       "1.5  Gbit/s",      "1 ", "1,5Gbit/s", "1.5.5",
        "1.-5",     "nan",      "1.5 gbit/s", "99999999999Gbit/s"};
    uint64_t value = 5;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(quantity_parse_decimal(bad[i], rates, 1, &value), E_MALFORMED);
    assert_int_equal(value, 5);
}

static void text_uses_the_largest_unit(void **state)
{
    (void)state;
    static const struct {
        uint64_t value;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "1"},
                 {1023, "1023"},
                 {4ULL << 30, "4GiB"},
                 {1000000000, "1GB"},
                 {UINT64_MAX, "18446744073709551615"}};
    char text[32];
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(quantity_text(cases[i].value, quantity_sizes, text, sizeof text),
                            cases[i].text);
        assert_int_equal(quantity_parse(text, quantity_sizes, 1, &value), 0);
        assert_true(value == cases[i].value);
    }
}

static void truths_and_what_is_none(void **state)
{
    (void)state;
    bool truth = false;
    assert_int_equal(truth_parse("yes", &truth), 0);
    assert_true(truth);
    assert_int_equal(truth_parse("off", &truth), 0);
    assert_false(truth);
    truth = true;
    assert_int_equal(truth_parse("maybe", &truth), E_MALFORMED);
    assert_int_equal(truth_parse("", &truth), E_MALFORMED);
    assert_true(truth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_with_units),   cmocka_unit_test(bad_numbers_change_nothing),
        cmocka_unit_test(decimals_are_exact),         cmocka_unit_test(bad_decimals_are_refused),
        cmocka_unit_test(text_uses_the_largest_unit), cmocka_unit_test(truths_and_what_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
