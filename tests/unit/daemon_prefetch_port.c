/* SPDX-License-Identifier: Apache-2.0 */
/* The token of the port for orders: which files are one, which requests carry it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon_scratch.h"
#include "../../src/daemon/prefetch_port.h"

#define TOKEN "0123456789abcdef0123456789abcdef"

static const char *path;
static char token[PREFETCH_TOKEN_BYTES_MAX + 1];
static struct config_error error;

static int read_token(const char *text, unsigned mode)
{
    path = scratch_file("token", text, mode);
    error.text[0] = token[0] = '\0';
    return prefetch_token_read(path, token, &error);
}

static void files_with_a_token(void **state)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "the token must have 32 to 1024 bytes"},
        {"0123456789abcdef0123456789abcde\n", "the token must have 32 to 1024 bytes"},
        {"0123456789abcdef 0123456789abcdef\n", "one line of visible ASCII"},
        {TOKEN "\nsecond\n", "one line of visible ASCII"},
        {"0123456789abcdef0123456789abcd\xc3\xa9\n", "one line of visible ASCII"},
        {"0123456789abcdef0123456789abcd\x7f\n", "one line of visible ASCII"},
    };
    (void)state;
    assert_int_equal(read_token(" " TOKEN "\r\n\n", 0400), 0);
    assert_string_equal(token, TOKEN);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(read_token(bad[i].text, 0400), E_CONFIG);
        if (strstr(error.text, bad[i].message) == NULL || strstr(error.text, "89abcd") != NULL)
            fail_msg("%s", error.text);
    }
    assert_int_equal(read_token(TOKEN, 0444), E_CONFIG); /* HRD-4 */
    (void)unlink(path);
    assert_int_equal(prefetch_token_read(path, token, &error), E_CONFIG);
    static char large[PREFETCH_TOKEN_BYTES_MAX + 64];
    memset(large, 'x', PREFETCH_TOKEN_BYTES_MAX);
    assert_int_equal(read_token(large, 0400), 0);
    large[PREFETCH_TOKEN_BYTES_MAX] = 'x';
    assert_int_equal(read_token(large, 0400), E_CONFIG);
    memset(large, 'x', sizeof large - 1);
    assert_int_equal(read_token(large, 0400), E_CONFIG);
}

static void requests_with_it(void **state)
{
    static const char *const good[] = {
        "Bearer " TOKEN, "bearer  " TOKEN,
        "Basic aGFyYm9yOjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm", /* harbor:TOKEN */
        "BASIC OjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm",         /* :TOKEN */
    };
    static const char *const bad[] = {
        "",
        "Bearer",
        "Bearer ",
        "Bearer " TOKEN "x",
        "Bearer 0123456789abcdef0123456789abcde",
        "Bearer " TOKEN " ",
        TOKEN,
        "Basic " TOKEN,
        "Basic aGFyYm9yOg==",                                             /* harbor: */
        "Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",             /* TOKEN alone */
        "Basic aGFyYm9yOjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmAA==", /* a zero behind it */
        "Digest " TOKEN,
        "Bearer2 " TOKEN,
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!prefetch_token_fits(good[i], TOKEN))
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (prefetch_token_fits(bad[i], TOKEN))
            fail_msg("%s", bad[i]);
    assert_false(prefetch_token_fits(NULL, TOKEN));
    static char longest[9000] = "Basic ";
    memset(longest + 6, 'A', 8192);
    assert_false(prefetch_token_fits(longest, TOKEN));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_with_a_token),
        cmocka_unit_test(requests_with_it),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
