/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/http/range.c: RFC 9110 §14.1.2 and the conformance suite (HTTP-5, CLIENTS §11.6). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "http.h"

#define WHOLE       HTTP_RANGE_WHOLE
#define UNSATISFIED HTTP_RANGE_UNSATISFIABLE
#define PART        HTTP_RANGE_PART
#define OVER_64     "18446744073709551616" /* 2^64 */
#define HUGE_NUMBER "99999999999999999999999999999999999999999999999999"

struct row {
    const char *range;
    uint64_t size_bytes;
    enum http_range_kind kind;
    uint64_t first, last;
};

static const struct row rows[] = {
    /* what the conformance suite asks for */
    {"bytes=500-1499", 2048, PART, 500, 1499},
    {"bytes=500-", 2048, PART, 500, 2047},
    {"bytes=-500", 2048, PART, 1548, 2047},
    {"bytes=2000-5000", 2048, PART, 2000, 2047},
    {"bytes=500-0", 2048, UNSATISFIED, 0, 0},
    {"bytes=5000-10000", 2048, UNSATISFIED, 0, 0},
    /* edges */
    {"bytes=0-0", 2048, PART, 0, 0},
    {"bytes=0-2047", 2048, PART, 0, 2047},
    {"bytes=0-2048", 2048, PART, 0, 2047},
    {"bytes=0-", 2048, PART, 0, 2047},
    {"bytes=2047-", 2048, PART, 2047, 2047},
    {"bytes=2047-2047", 2048, PART, 2047, 2047},
    {"bytes=2048-", 2048, UNSATISFIED, 0, 0},
    {"bytes=2048-2048", 2048, UNSATISFIED, 0, 0},
    {"bytes=1-0", 2048, UNSATISFIED, 0, 0},
    {"bytes=0-0", 1, PART, 0, 0},
    {"bytes=000500-00001499", 2048, PART, 500, 1499},
    /* suffixes */
    {"bytes=-1", 2048, PART, 2047, 2047},
    {"bytes=-2048", 2048, PART, 0, 2047},
    {"bytes=-2049", 2048, PART, 0, 2047},
    {"bytes=-0", 2048, UNSATISFIED, 0, 0},
    {"bytes=-000", 2048, UNSATISFIED, 0, 0},
    /* an empty body has no byte to name */
    {"bytes=0-", 0, UNSATISFIED, 0, 0},
    {"bytes=0-0", 0, UNSATISFIED, 0, 0},
    {"bytes=-1", 0, WHOLE, 0, 0},
    {"bytes=-0", 0, UNSATISFIED, 0, 0},
    /* overflow */
    {"bytes=0-18446744073709551615", 2048, PART, 0, 2047},
    {"bytes=0-" OVER_64, 2048, PART, 0, 2047},
    {"bytes=0-" HUGE_NUMBER, 2048, PART, 0, 2047},
    {"bytes=" OVER_64 "-", 2048, UNSATISFIED, 0, 0},
    {"bytes=18446744073709551617-1", 2048, UNSATISFIED, 0, 0},
    {"bytes=" HUGE_NUMBER "-" HUGE_NUMBER, UINT64_MAX, UNSATISFIED, 0, 0},
    {"bytes=-" OVER_64, 2048, PART, 0, 2047},
    {"bytes=-" HUGE_NUMBER, 2048, PART, 0, 2047},
    {"bytes=18446744073709551614-", UINT64_MAX, PART, UINT64_MAX - 1, UINT64_MAX - 1},
    {"bytes=0-", UINT64_MAX, PART, 0, UINT64_MAX - 1},
    {"bytes=-1", UINT64_MAX, PART, UINT64_MAX - 1, UINT64_MAX - 1},
    {"bytes=1099511627775-1099511627776", 1099511627776u, PART, 1099511627775u, 1099511627775u},
    /* units are case-insensitive, others unknown */
    {"Bytes=0-1", 2048, PART, 0, 1},
    {"BYTES=0-1", 2048, PART, 0, 1},
    {"byte=0-1", 2048, WHOLE, 0, 0},
    {"bits=0-1", 2048, WHOLE, 0, 0},
    {"items=0-1", 2048, WHOLE, 0, 0},
    /* several ranges: the whole, overlapping or not */
    {"bytes=0-1,3-4", 2048, WHOLE, 0, 0},
    {"bytes=0-1, 3-4", 2048, WHOLE, 0, 0},
    {"bytes=0-1,0-1", 2048, WHOLE, 0, 0},
    {"bytes=0-,-1", 2048, WHOLE, 0, 0},
    {"bytes=-1,-2", 2048, WHOLE, 0, 0},
    {"bytes=0-1,", 2048, WHOLE, 0, 0},
    {"bytes=,0-1", 2048, WHOLE, 0, 0},
    {"bytes=9999-,0-1", 2048, WHOLE, 0, 0},
    {"bytes=9-5,0-1", 2048, WHOLE, 0, 0},
    /* malformed: as if it were not there */
    {"", 2048, WHOLE, 0, 0},
    {"bytes", 2048, WHOLE, 0, 0},
    {"bytes=", 2048, WHOLE, 0, 0},
    {"bytes=-", 2048, WHOLE, 0, 0},
    {"bytes=--1", 2048, WHOLE, 0, 0},
    {"bytes=abc", 2048, WHOLE, 0, 0},
    {"bytes=1", 2048, WHOLE, 0, 0},
    {"bytes=1-2-3", 2048, WHOLE, 0, 0},
    {"bytes=1-a", 2048, WHOLE, 0, 0},
    {"bytes=a-1", 2048, WHOLE, 0, 0},
    {"bytes=1-2a", 2048, WHOLE, 0, 0},
    {"bytes=1a-2", 2048, WHOLE, 0, 0},
    {"bytes=-1a", 2048, WHOLE, 0, 0},
    {"bytes=-1-2", 2048, WHOLE, 0, 0},
    {"bytes= 0-1", 2048, WHOLE, 0, 0},
    {"bytes=0 -1", 2048, WHOLE, 0, 0},
    {"bytes=0- 1", 2048, WHOLE, 0, 0},
    {"bytes=0-1 ", 2048, WHOLE, 0, 0},
    {"bytes =0-1", 2048, WHOLE, 0, 0},
    {" bytes=0-1", 2048, WHOLE, 0, 0},
    {"bytes=+0-1", 2048, WHOLE, 0, 0},
    {"bytes=0x0-0x1", 2048, WHOLE, 0, 0},
    {"bytes=0.0-1", 2048, WHOLE, 0, 0},
    {"bytes:0-1", 2048, WHOLE, 0, 0},
    {"0-1", 2048, WHOLE, 0, 0},
    {NULL, 2048, WHOLE, 0, 0},
};

static void test_ranges_http5(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        uint64_t first = 123456789, last = 987654321;
        enum http_range_kind kind = http_range_resolve(row->range, row->size_bytes, &first, &last);
        if (kind != row->kind)
            fail_msg("\"%s\": kind %d, not %d", row->range ? row->range : "(none)", (int)kind,
                     (int)row->kind);
        if (kind == HTTP_RANGE_PART) {
            assert_true(first == row->first);
            assert_true(last == row->last);
        } else { /* written only for a part */
            assert_true(first == 123456789 && last == 987654321);
        }
    }
}

/* Every pair of small numbers against the definition. */
static void test_small_ranges_follow_the_definition_http5(void **state)
{
    (void)state;
    for (unsigned size = 0; size < 6; size++) {
        for (unsigned pair = 0; pair < 100; pair++) {
            char range[] = "bytes=0-0";
            unsigned from = pair / 10, to = pair % 10;
            uint64_t first = 0, last = 0;
            range[6] = (char)('0' + from);
            range[8] = (char)('0' + to);
            enum http_range_kind kind = http_range_resolve(range, size, &first, &last);
            bool fits = from <= to && from < size;
            assert_int_equal(kind, fits ? HTTP_RANGE_PART : HTTP_RANGE_UNSATISFIABLE);
            if (fits) {
                assert_int_equal(first, from);
                assert_int_equal(last, to < size ? to : size - 1);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_http5),
        cmocka_unit_test(test_small_ranges_follow_the_definition_http5),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
