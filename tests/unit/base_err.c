/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/err.c: every error has a text and a name of its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "err.h"

struct error_row {
    int err;
    const char *name;
    const char *text;
};

static const struct error_row rows[] = {
#define ERR_ROW(name, value, text) {name, #name, text},
    ERR_LIST(ERR_ROW)
#undef ERR_ROW
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])

static void test_every_error_has_name_and_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        assert_true(rows[i].err < 0);
        assert_string_equal(err_name(rows[i].err), rows[i].name);
        assert_string_equal(err_text(rows[i].err), rows[i].text);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(rows[i].err, rows[j].err);
            assert_string_not_equal(rows[i].text, rows[j].text);
        }
    }
}

static void test_success_and_unknown_codes(void **state)
{
    (void)state;
    assert_string_equal(err_text(0), "ok");
    assert_string_equal(err_name(0), "OK");
    static const int unknown[] = {1, -1000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        assert_string_equal(err_text(unknown[i]), "unknown error");
        assert_string_equal(err_name(unknown[i]), "E_UNKNOWN");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_error_has_name_and_text),
        cmocka_unit_test(test_success_and_unknown_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
