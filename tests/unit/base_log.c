/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/log.c: lines, their cleaning (HRD-5), levels, and the end of ASSERT. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"
#include "log.h"

struct sink {
    enum log_level level;
    char line[2 * LOG_LINE_BYTES];
    unsigned count;
};

static void keep_line(void *host, enum log_level level, const char *line)
{
    struct sink *sink = host;
    sink->level = level;
    sink->count++;
    assert_true(strlen(line) < sizeof sink->line);
    memcpy(sink->line, line, strlen(line) + 1);
}

static void test_formats_one_line(void **state)
{
    (void)state;
    struct sink sink = {0};
    struct env env = {.host = &sink, .trace = keep_line};
    log_to(&env, LOG_DEBUG, "dht: lookup done key=%s rounds=%d", "ab12cd34", 3);
    assert_int_equal(sink.count, 1);
    assert_int_equal(sink.level, LOG_DEBUG);
    assert_string_equal(sink.line, "dht: lookup done key=ab12cd34 rounds=3");
}

static void test_control_bytes_cannot_forge_a_line_hrd5(void **state)
{
    (void)state;
    struct sink sink = {0};
    struct env env = {.host = &sink, .trace = keep_line};
    log_to(&env, LOG_INFO, "name=%s", "a\nerror: forged\r\t\x1b[2J\x7f.");
    assert_string_equal(sink.line, "name=a?error: forged???[2J?.");
    /* U+0085 (next line) and U+009B (CSI) are controls in UTF-8; U+00E9 is a letter. */
    log_to(&env, LOG_INFO, "%s", "\xc2\x85|\xc2\x9b|\xc3\xa9|\xc2\xa9");
    assert_string_equal(sink.line, "\xc2?|\xc2?|\xc3\xa9|\xc2\xa9");
}

static void test_long_lines_are_cut_hrd5(void **state)
{
    (void)state;
    struct sink sink = {0};
    struct env env = {.host = &sink, .trace = keep_line};
    char text[2 * LOG_LINE_BYTES];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    log_to(&env, LOG_WARN, "%s", text);
    assert_int_equal(strlen(sink.line), LOG_LINE_BYTES - 1);
}

static void test_unformattable_line_is_replaced(void **state)
{
    (void)state;
    struct sink sink = {0};
    struct env env = {.host = &sink, .trace = keep_line};
    log_to(&env, LOG_INFO, "%ls", L"\x20ac"); /* not in the C locale */
    assert_string_equal(sink.line, "log: line could not be formatted");
    assert_int_equal(sink.count, 1);
}

static void test_level_names_round_trip(void **state)
{
    (void)state;
    static const char *const names[] = {"error", "warn", "info", "debug", "trace"};
    for (int i = LOG_ERROR; i <= LOG_TRACE; i++) {
        enum log_level level = LOG_NONE;
        assert_string_equal(log_level_name((enum log_level)i), names[i - LOG_ERROR]);
        assert_int_equal(log_level_parse(names[i - LOG_ERROR], &level), 0);
        assert_int_equal(level, i);
    }
    assert_string_equal(log_level_name(LOG_NONE), "none");
    assert_string_equal(log_level_name((enum log_level)77), "none");
}

static void test_unknown_level_is_invalid(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "none", "Error", "errors", "err", " info"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        enum log_level level = LOG_WARN;
        assert_int_equal(log_level_parse(bad[i], &level), E_INVALID);
        assert_int_equal(level, LOG_WARN);
    }
}

static void test_assert_names_the_place_and_aborts(void **state)
{
    (void)state;
    int ends[2];
    char words[256] = {0};
    int status = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        ASSERT(1 + 1 == 2);
        ASSERT(status == 42);
        _exit(0);
    }
    (void)close(ends[1]);
    assert_true(read(ends[0], words, sizeof words - 1) > 0);
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(words, "status == 42"));
    assert_non_null(strstr(words, "base_log.c:"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats_one_line),
        cmocka_unit_test(test_control_bytes_cannot_forge_a_line_hrd5),
        cmocka_unit_test(test_long_lines_are_cut_hrd5),
        cmocka_unit_test(test_unformattable_line_is_replaced),
        cmocka_unit_test(test_level_names_round_trip),
        cmocka_unit_test(test_unknown_level_is_invalid),
        cmocka_unit_test(test_assert_names_the_place_and_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
