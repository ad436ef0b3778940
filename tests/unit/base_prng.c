/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/prng.c: the published stream, seeding, and fair bounds. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "bytes.h"

static void test_stream_of_xoshiro256starstar(void **state)
{
    (void)state;
    /* First outputs from the state {1, 2, 3, 4}, as other implementations publish them. */
    static const uint64_t expected[] = {
        11520u,
        0u,
        1509978240u,
        1215971899390074240u,
        1216172134540287360u,
        607988272756665600u,
        16172922978634559625u,
        8476171486693032832u,
        10595114339597558777u,
        2904607092377533576u,
    };
    struct prng prng = {.state = {1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_true(prng_next(&prng) == expected[i]);
}

static void test_seeds_give_their_own_streams(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
    } seeds[] = {{"", 0},  {"\0", 1},       {"\0\0", 2},      {"\0\0\0\0\0\0\0\0", 8}, {"a", 1},
                 {"b", 1}, {"12345678", 8}, {"123456789", 9}, {"12345678x", 9}};
    uint64_t first[sizeof seeds / sizeof seeds[0]];
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        struct prng prng, again;
        prng_seed(&prng, (const uint8_t *)seeds[i].bytes, seeds[i].count);
        prng_seed(&again, (const uint8_t *)seeds[i].bytes, seeds[i].count);
        first[i] = prng_next(&prng);
        assert_true(first[i] == prng_next(&again));
        for (size_t j = 0; j < i; j++)
            assert_true(first[i] != first[j]);
    }
}

static void test_below_stays_below_and_reaches_all(void **state)
{
    (void)state;
    struct prng prng;
    unsigned seen[7] = {0};
    prng_seed(&prng, (const uint8_t *)"fair", 4);
    for (unsigned i = 0; i < 70000; i++) {
        uint64_t value = prng_below(&prng, 7);
        assert_true(value < 7);
        seen[value]++;
    }
    for (unsigned i = 0; i < 7; i++)
        assert_in_range(seen[i], 9500, 10500); /* 5 standard deviations are 463 */
    assert_true(prng_below(&prng, 1) == 0);
}

static void test_below_skips_the_unfair_values(void **state)
{
    (void)state;
    /* With bound 2^63 + 1, 2^63 - 1 of the 2^64 values must be drawn again; with plain modulo the
       low half would come twice as often. */
    uint64_t bound = ((uint64_t)1 << 63) + 1;
    struct prng prng;
    unsigned low = 0;
    prng_seed(&prng, (const uint8_t *)"bias", 4);
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t value = prng_below(&prng, bound);
        assert_true(value < bound);
        low += value < bound / 2;
    }
    assert_in_range(low, 4750, 5250);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_of_xoshiro256starstar),
        cmocka_unit_test(test_seeds_give_their_own_streams),
        cmocka_unit_test(test_below_stays_below_and_reaches_all),
        cmocka_unit_test(test_below_skips_the_unfair_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
