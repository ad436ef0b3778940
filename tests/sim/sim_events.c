/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim/events.c against a plain list: whatever is pushed, moved, taken back and taken, near or far
 * in time or before what was taken last, comes in the order of time and then of pushing.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "bytes.h"
#include "../../sim/events.h"

#define WAITING_MAX 300
#define STEPS       20000

struct waiting {
    uint64_t at_us, order;
    uint32_t slot, name;
};

struct pair {
    struct prng prng;
    struct event_queue events;
    struct waiting model[WAITING_MAX];
    uint32_t count;
    uint64_t order, now_us;
    uint32_t name;
};

/* Mostly soon and often at the same time, else beyond the wheel or in the past. */
static uint64_t random_us(struct pair *pair)
{
    uint64_t what = prng_below(&pair->prng, 20);
    if (what == 0)
        return prng_below(&pair->prng, pair->now_us + 1);
    if (what == 1)
        return pair->now_us + prng_below(&pair->prng, 4 * (uint64_t)EVENT_WHEEL_US);
    if (what == 2)
        return pair->now_us + EVENT_WHEEL_US - prng_below(&pair->prng, 3);
    if (what == 3)
        return pair->now_us + prng_below(&pair->prng, EVENT_WHEEL_US);
    return pair->now_us + prng_below(&pair->prng, 200);
}

static void push(struct pair *pair)
{
    if (pair->count == WAITING_MAX)
        return;
    struct waiting *fresh = &pair->model[pair->count++];
    *fresh = (struct waiting){random_us(pair), pair->order++, 0, ++pair->name};
    fresh->slot = events_push(
        &pair->events,
        (struct event){.at_us = fresh->at_us, .kind = EVENT_FLOW, .other = fresh->name});
}

static void move_or_cancel(struct pair *pair, bool move)
{
    if (pair->count == 0)
        return;
    struct waiting *one = &pair->model[prng_below(&pair->prng, pair->count)];
    if (move) {
        one->at_us = random_us(pair);
        one->order = pair->order++;
        events_move(&pair->events, one->slot, one->at_us);
        return;
    }
    events_cancel(&pair->events, one->slot);
    *one = pair->model[--pair->count];
}

static uint32_t first_of(const struct pair *pair)
{
    uint32_t first = 0;
    for (uint32_t i = 1; i < pair->count; i++) {
        const struct waiting *a = &pair->model[i], *b = &pair->model[first];
        if (a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order))
            first = i;
    }
    return first;
}

static void pop(struct pair *pair)
{
    struct event event;
    if (pair->count == 0) {
        assert_int_equal(events_next_us(&pair->events), UINT64_MAX);
        assert_false(events_pop(&pair->events, &event));
        return;
    }
    uint32_t first = first_of(pair);
    assert_int_equal(events_next_us(&pair->events), pair->model[first].at_us);
    assert_true(events_pop(&pair->events, &event));
    assert_int_equal(event.other, pair->model[first].name);
    assert_int_equal(event.at_us, pair->model[first].at_us);
    pair->now_us = event.at_us > pair->now_us ? event.at_us : pair->now_us;
    pair->model[first] = pair->model[--pair->count];
}

static void order_is_that_of_a_plain_list(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct pair pair = {.now_us = seed % 2 == 0 ? 0 : 1000000};
        prng_seed(&pair.prng, (const uint8_t *)&seed, sizeof seed);
        for (uint32_t step = 0; step < STEPS; step++) {
            uint64_t what = prng_below(&pair.prng, 10);
            bool fills = step / 1000 % 2 == 0;
            if (what < 2)
                move_or_cancel(&pair, what == 0);
            else if (what < (fills ? 7u : 4u))
                push(&pair);
            else
                pop(&pair);
            if (step % 200 == 0)
                events_check(&pair.events);
        }
        while (pair.count > 0)
            pop(&pair);
        events_check(&pair.events);
        events_close(&pair.events);
    }
}

static void ahead_are_the_moments_of_the_wheel(void **state)
{
    (void)state;
    static const uint64_t times_us[] = {70, 5, 900, 70, EVENT_WHEEL_US + 5};
    struct event_queue events = {0};
    assert_true(events_after_us(&events, 0) == UINT64_MAX);
    assert_int_equal(events_at(&events, 5), EVENT_NONE);
    uint32_t slots[5];
    for (uint32_t i = 0; i < 5; i++)
        slots[i] = events_push(&events, (struct event){.at_us = times_us[i], .kind = EVENT_TIMER});
    assert_true(events_after_us(&events, 4) == 5);
    assert_true(events_after_us(&events, 5) == 70);
    assert_true(events_after_us(&events, 70) == 900);
    assert_true(events_after_us(&events, 900) == UINT64_MAX); /* one is in the heap */
    assert_int_equal(events_at(&events, 5), slots[1]);
    assert_int_equal(events_at(&events, 70), slots[0]);
    assert_int_equal(events.slots[slots[0]].next, slots[3]);
    assert_int_equal(events_at(&events, 6), EVENT_NONE);
    assert_int_equal(events_at(&events, EVENT_WHEEL_US + 5), EVENT_NONE);
    assert_int_equal(events_at(&events, UINT64_MAX), EVENT_NONE);
    struct event event;
    assert_true(events_pop(&events, &event) && events_pop(&events, &event));
    assert_int_equal(events_at(&events, 70), slots[3]);
    assert_true(events_after_us(&events, 0) == 70);
    events_close(&events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_that_of_a_plain_list),
        cmocka_unit_test(ahead_are_the_moments_of_the_wheel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
