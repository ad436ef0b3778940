/* SPDX-License-Identifier: Apache-2.0 */
/* The log sink (HRD-5): shape of lines, escaping, length, budget per kind of message. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "../../src/daemon/log_sink.h"

static struct log_sink sink;
static char out[LOG_SINK_LINE_BYTES + 1];

static const char *formatted(bool json, const char *line)
{
    log_sink_init(&sink, -1, json, LOG_TRACE);
    size_t bytes = log_sink_format(&sink, 1700000000123ULL, LOG_WARN, line, out);
    out[bytes] = '\0';
    log_sink_close(&sink);
    return out;
}

static void lines_have_time_level_and_text(void **state)
{
    (void)state;
    assert_string_equal(formatted(false, "dht: lookup done key=ab"),
                        "2023-11-14T22:13:20.123Z warn  dht: lookup done key=ab\n");
    assert_string_equal(formatted(true, "dht: lookup done key=ab"),
                        "{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"warn\",\"message\":"
                        "\"dht: lookup done key=ab\"}\n");
}

static void no_input_can_forge_a_line(void **state) /* HRD-5 */
{
    (void)state;
    assert_string_equal(formatted(false, "a\nb\r\x1b[0m\x7f"),
                        "2023-11-14T22:13:20.123Z warn  a\\x0ab\\x0d\\x1b[0m\\x7f\n");
    assert_string_equal(formatted(true, "a\n\"b\\\xff"),
                        "{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"warn\",\"message\":"
                        "\"a\\u000a\\\"b\\\\\\u00ff\"}\n");
}

static void long_lines_are_cut_but_whole(void **state)
{
    (void)state;
    static char line[10000];
    memset(line, '"', sizeof line - 1);
    for (int json = 0; json < 2; json++) {
        const char *text = formatted(json == 1, line);
        size_t bytes = strlen(text);
        assert_true(bytes <= LOG_SINK_LINE_BYTES && bytes > LOG_SINK_LINE_BYTES - 16);
        assert_int_equal(text[bytes - 1], '\n');
        if (json == 1)
            assert_memory_equal(text + bytes - 3, "\"}\n", 3);
    }
}

static void each_kind_has_ten_lines_a_second(void **state) /* HRD-5 */
{
    (void)state;
    uint32_t dropped = 0;
    uint64_t now_us = 5000000;
    log_sink_init(&sink, -1, false, LOG_TRACE);
    for (int i = 0; i < LOG_SINK_PER_SECOND; i++) {
        assert_true(log_sink_admit(&sink, now_us, "gossip: refused from=a", &dropped));
        assert_int_equal(dropped, 0);
    }
    /* Values and numbers do not make a kind. */
    assert_false(log_sink_admit(&sink, now_us, "gossip: refused from=b", &dropped));
    assert_false(log_sink_admit(&sink, now_us + 999999, "gossip: refused from=c", &dropped));
    /* Other words do. */
    assert_true(log_sink_admit(&sink, now_us, "gossip: accepted from=a", &dropped));
    assert_true(log_sink_admit(&sink, now_us + 1000000, "gossip: refused from=d", &dropped));
    assert_int_equal(dropped, 2);
    assert_true(log_sink_admit(&sink, now_us + 1000000, "gossip: refused from=d", &dropped));
    assert_int_equal(dropped, 0);
    log_sink_close(&sink);
}

static void the_audit_log_has_room_of_its_own(void **state) /* HRD-5 */
{
    (void)state;
    uint32_t dropped = 0;
    log_sink_init(&sink, -1, false, LOG_TRACE);
    for (int i = 0; i < LOG_SINK_AUDIT_PER_SECOND; i++)
        assert_true(log_sink_admit(&sink, 5000000, "audit: client=a", &dropped));
    assert_false(log_sink_admit(&sink, 5000000, "audit: client=b", &dropped));
    assert_true(log_sink_admit(&sink, 6000000, "audit: client=b", &dropped));
    assert_int_equal(dropped, 1);
    assert_true(log_sink_admit(&sink, 5000000, "gossip: refused from=a", &dropped));
    log_sink_close(&sink);
}

static void levels_above_the_limit_are_silent(void **state)
{
    (void)state;
    int ends[2];
    char got[256] = "";
    assert_int_equal(pipe(ends), 0);
    log_sink_init(&sink, ends[1], false, LOG_INFO);
    log_sink_write(&sink, LOG_DEBUG, "x: quiet");
    log_sink_write(&sink, LOG_INFO, "x: loud");
    (void)close(ends[1]);
    ssize_t bytes = read(ends[0], got, sizeof got - 1);
    assert_true(bytes > 0);
    assert_null(strstr(got, "quiet"));
    assert_non_null(strstr(got, " info  x: loud\n"));
    assert_int_equal(sink.lines, 1);
    (void)close(ends[0]);
    log_sink_close(&sink);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_have_time_level_and_text),
        cmocka_unit_test(no_input_can_forge_a_line),
        cmocka_unit_test(long_lines_are_cut_but_whole),
        cmocka_unit_test(each_kind_has_ten_lines_a_second),
        cmocka_unit_test(the_audit_log_has_room_of_its_own),
        cmocka_unit_test(levels_above_the_limit_are_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
