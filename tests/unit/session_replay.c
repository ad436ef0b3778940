/* SPDX-License-Identifier: Apache-2.0 */
/* Replay window by table (DHT-3). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>

#include "../../src/session/replay.h"

struct step {
    uint64_t counter;
    bool fresh;
};

static void run(const struct step *steps, size_t step_count)
{
    struct replay_window window = {0};
    for (size_t i = 0; i < step_count; i++) {
        assert_int_equal(replay__fresh(&window, steps[i].counter), steps[i].fresh);
        if (steps[i].fresh)
            replay__mark(&window, steps[i].counter);
    }
}
#define RUN(steps) run(steps, sizeof(steps) / sizeof(steps)[0])

static void test_dht3_table(void **state)
{
    (void)state;
    static const struct step in_order[] = {{0, true},  {0, false}, {1, true},
                                           {1, false}, {0, false}, {2, true}};
    static const struct step backwards[] = {{3, true},  {2, true},  {1, true},
                                            {0, true},  {0, false}, {1, false},
                                            {2, false}, {3, false}, {4, true}};
    /* The oldest counter in the window is the highest less 1,023. */
    static const struct step edge[] = {{1023, true}, {0, true},  {1024, true}, {0, false},
                                       {1, true},    {1, false}, {1025, true}, {1, false},
                                       {2, true},    {2, false}};
    static const struct step late[] = {{5000, true},  {3976, false}, {3977, true},
                                       {3977, false}, {4999, true},  {5000, false}};
    /* A jump by exactly one ring, by more, and by nearly one, forgets only what it may. */
    static const struct step jumps[] = {{10, true},
                                        {10 + 1088, true},
                                        {10, false},
                                        {75, true},
                                        {74, false},
                                        {1097, true},
                                        {1u << 20, true},
                                        {1098, false},
                                        {1048576 - 1023, true},
                                        {1048576 - 1024, false}};
    static const struct step words[] = {{63, true},   {64, true},   {127, true}, {128, true},
                                        {65, true},   {64, false},  {63, false}, {1151, true},
                                        {128, false}, {127, false}, {129, true}};
    static const struct step top[] = {{UINT64_MAX, false},       {UINT64_MAX - 1, true},
                                      {UINT64_MAX - 1, false},   {UINT64_MAX, false},
                                      {UINT64_MAX - 2, true},    {0, false},
                                      {UINT64_MAX - 1024, true}, {UINT64_MAX - 1025, false}};
    RUN(in_order);
    RUN(backwards);
    RUN(edge);
    RUN(late);
    RUN(jumps);
    RUN(words);
    RUN(top);
}

/* Asking moves nothing. */
static void test_dht3_fresh_has_no_effect(void **state)
{
    (void)state;
    struct replay_window window = {0};
    replay__mark(&window, 5);
    assert_true(replay__fresh(&window, UINT64_MAX - 1));
    assert_true(replay__fresh(&window, 4));
    assert_true(replay__fresh(&window, 4));
    assert_false(replay__fresh(&window, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dht3_table),
        cmocka_unit_test(test_dht3_fresh_has_no_effect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
