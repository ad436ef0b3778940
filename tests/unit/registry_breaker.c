/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin client before a registry that says nothing (O-2, HTTP-6): every request ends in time,
 * further spare ones fail at once, one probe at a time finds out when to go on, and nothing is held
 * against a registry that lives, or against a pull under way.
 */
#include "registry_world.h"

#define S 1000000ull

/* Runs turns until the caller hears its end. Returns the time that took. */
static uint64_t wait_end(struct world *world)
{
    uint64_t started = world->fake.now_us;

    while (world->caller.dones == 0)
        assert_true(fake_turn(&world->fake, world->origin));
    return world->fake.now_us - started;
}

/* A new request; true if the engine was asked. */
static bool ask_as(struct world *world, bool spare)
{
    unsigned before = world->fake.call_count;

    caller_init(&world->caller, &world->fake, world->origin);
    world->request.spare = spare;
    start(world);
    return world->fake.call_count > before;
}

static bool ask(struct world *world)
{
    return ask_as(world, true);
}

static struct fake_call *last_call(struct world *world)
{
    return call(world, world->fake.call_count - 1);
}

/* One request into a black hole, as libcurl reports it. Returns how long the caller waited. */
static uint64_t black_hole(struct world *world)
{
    uint64_t started = world->fake.now_us;

    assert_true(ask(world));
    while (world->caller.dones == 0) {
        struct fake_call *last = last_call(world);
        uint64_t limit_us = world->fake.now_us + last->connect_timeout_ms * 1000ull;

        if (last->live && limit_us <= world->fake.timer_at_us) {
            world->fake.now_us = limit_us;
            fake_done(last, E_TIMEOUT);
        }
        assert_true(fake_turn(&world->fake, world->origin));
    }
    return world->fake.now_us - started;
}

static void rest(struct world *world)
{
    (void)black_hole(world);
    assert_true(origin_resting(world->origin, &world->entry, world->fake.now_us));
}

/* HTTP-6: whatever the engine's own timeouts are, the caller hears of it. */
static void silence_ends_in_time(void **state)
{
    struct world *world = *state;

    assert_true(ask(world));
    assert_in_range(wait_end(world), 7 * S, 9 * S);
    expect_done(world, E_TIMEOUT);
    assert_int_equal(world->caller.heads, 0);
    assert_true(call(world, 0)->cancelled);
}

static void redirects_and_documents_share_the_time(void **state)
{
    struct world *world = *state;

    start(world);
    world->fake.now_us += 5 * S;
    fake_answer(call(world, 0), 307, TO_STORE, "");
    assert_in_range(wait_end(world), 2 * S, 4 * S);
    expect_done(world, E_TIMEOUT);

    world->request.kind = ORIGIN_MANIFEST;
    assert_true(ask(world));
    fake_head(last_call(world), 200, "", 100);
    (void)fake_body(last_call(world), "{", 1); /* and no more */
    assert_in_range(wait_end(world), 7 * S, 9 * S);
    expect_done(world, E_TIMEOUT);
    assert_int_equal(world->caller.heads, 0);
}

static void a_caller_may_ask_for_less_time(void **state)
{
    struct world *world = *state;

    world->request.head_ms = 900;
    for (unsigned i = 0; i < 5; i++) {
        assert_true(ask(world)); /* one in a hurry proves nothing: no rest */
        assert_in_range(wait_end(world), 900000, 1000000);
        expect_done(world, E_TIMEOUT);
    }
    assert_false(origin_resting(world->origin, &world->entry, world->fake.now_us));
}

/* O-2: the first request waits, the next one does not. */
static void second_request_fails_at_once(void **state)
{
    struct world *world = *state;

    assert_in_range(black_hole(world), 3 * S, 9 * S);
    expect_done(world, E_TIMEOUT);
    assert_true(origin_resting(world->origin, &world->entry, world->fake.now_us));
    for (unsigned i = 0; i < 20; i++) {
        assert_false(ask(world));
        assert_int_equal(world->caller.dones, 0); /* never inside the start */
        assert_true(wait_end(world) == 0);
        expect_done(world, E_UNREACHABLE);
        assert_int_equal(world->caller.last_status, 0);
    }
    assert_true(origin_counters(world->origin)->rests == 1);
    assert_true(origin_counters(world->origin)->rested == 20);
}

/* A connection kept from before hides the hole until the time is up: one such request is enough. */
static void one_long_silence_is_enough(void **state)
{
    struct world *world = *state;

    assert_true(ask(world));
    (void)wait_end(world);
    expect_done(world, E_TIMEOUT);
    assert_int_equal(world->fake.call_count, 1);
    assert_false(ask(world));
    assert_true(wait_end(world) == 0);
    expect_done(world, E_UNREACHABLE);
}

static void one_probe_at_a_time(void **state)
{
    struct world *world = *state;
    unsigned probe;

    rest(world);
    world->fake.now_us += ORIGIN_REST_FIRST_US;
    assert_false(origin_resting(world->origin, &world->entry, world->fake.now_us));
    assert_true(ask(world));
    probe = world->fake.call_count - 1;
    origin_cancel(world->origin, world->caller.fetch);
    call(world, probe)->live = false;
    for (unsigned i = 0; i < 3; i++) { /* others do not wait for it */
        assert_false(ask(world));
        assert_true(wait_end(world) == 0);
    }
    /* A probe whose caller left, or that hangs, is followed by another in time. */
    world->fake.now_us += ORIGIN_PROBE_US;
    assert_true(ask(world));
    fake_answer(last_call(world), 200, "", "0123456789");
    expect_done(world, 0);
    for (unsigned i = 0; i < 3; i++) { /* all may go on */
        assert_true(ask(world));
        fake_answer(last_call(world), 404, "", "");
        expect_done(world, E_ORIGIN);
    }
}

/* O-2: not negatively cached for more than 5 s. A probe is asked once only. */
static void rests_grow_but_stay_short(void **state)
{
    struct world *world = *state;
    uint64_t waited = 0;

    rest(world);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t began = world->fake.now_us;
        unsigned calls = world->fake.call_count;

        while (!ask(world)) {
            assert_true(wait_end(world) == 0);
            world->fake.now_us += S / 10;
        }
        assert_true(world->fake.now_us - began <= 5 * S);
        assert_true(world->fake.now_us - began >= waited);
        waited = world->fake.now_us - began;
        fake_done(last_call(world), E_UNREACHABLE);
        assert_true(wait_end(world) == 0);
        assert_int_equal(world->fake.call_count, calls + 1);
        expect_done(world, E_UNREACHABLE);
    }
    assert_true(waited >= 3 * S);
}

/* A registry that is restarted refuses for a moment: nobody's pull may fail for that. */
static void short_refusals_begin_no_rest(void **state)
{
    struct world *world = *state;

    for (unsigned i = 0; i < 3; i++) {
        assert_true(ask(world));
        fake_done(last_call(world), E_UNREACHABLE);
        (void)fake_next_call(&world->fake, world->origin);
        fake_answer(last_call(world), 200, "", "0123456789");
        expect_done(world, 0);
        world->fake.now_us += 2 * S;
    }
    assert_true(origin_counters(world->origin)->rests == 0);
}

static void lasting_refusal_begins_one(void **state)
{
    struct world *world = *state;
    unsigned asked = 0;

    for (unsigned i = 0; i < 10; i++) {
        asked += ask(world);
        while (world->caller.dones == 0) {
            if (last_call(world)->live)
                fake_done(last_call(world), E_UNREACHABLE);
            assert_true(fake_turn(&world->fake, world->origin));
        }
        expect_done(world, E_UNREACHABLE);
        world->fake.now_us += S / 2;
    }
    assert_true(origin_counters(world->origin)->rests == 1);
    assert_true(asked < 10);
}

/* Failures far apart have nothing to do with each other. */
static void old_failures_are_forgotten(void **state)
{
    struct world *world = *state;

    for (unsigned i = 0; i < 5; i++) {
        assert_true(ask(world));
        fake_done(last_call(world), E_UNREACHABLE);
        (void)fake_turn(&world->fake, world->origin);
        if (world->caller.dones == 0)
            origin_cancel(world->origin, world->caller.fetch);
        world->fake.now_us += ORIGIN_FORGET_US + S;
    }
    assert_true(origin_counters(world->origin)->rests == 0);
}

/* Two requests hang while a third one is answered, or a body goes on: the registry lives. */
static void an_answer_or_a_body_is_a_sign_of_life(void **state)
{
    struct world *world = *state;
    struct fake_caller *slow = calloc(3, sizeof *slow);

    for (unsigned body = 0; body < 2; body++) {
        unsigned at = world->fake.call_count;

        caller_init(&slow[2], &world->fake, world->origin);
        assert_int_equal(caller_start(&slow[2], &world->request), 0);
        if (body == 1)
            fake_head(call(world, at), 200, "", 10);
        for (unsigned i = 0; i < 2; i++) {
            caller_init(&slow[i], &world->fake, world->origin);
            assert_int_equal(caller_start(&slow[i], &world->request), 0);
        }
        world->fake.now_us += 5 * S;
        if (body == 1)
            (void)fake_body(call(world, at), "01", 2);
        else
            fake_answer(call(world, at), 503, "", "");
        origin_cancel(world->origin, slow[2].fetch);
        while (slow[0].dones == 0 || slow[1].dones == 0)
            assert_true(fake_turn(&world->fake, world->origin));
        assert_int_equal(slow[0].err, E_TIMEOUT);
        assert_true(origin_counters(world->origin)->rests == 0);
    }
    free(slow);
}

/* A silent store is not the registry's silence, and the other way round. */
static void hosts_rest_apart(void **state)
{
    struct world *world = *state;

    assert_true(ask(world));
    fake_answer(last_call(world), 307, TO_STORE, "");
    (void)wait_end(world);
    expect_done(world, E_TIMEOUT);
    assert_false(origin_resting(world->origin, &world->entry, world->fake.now_us));
    assert_true(ask(world)); /* the registry is asked; where it leads to is not */
    assert_string_equal(last_call(world)->url, HERE);
    fake_answer(last_call(world), 307, TO_STORE, "");
    assert_string_equal(last_call(world)->url, HERE);
    assert_true(wait_end(world) == 0);
    expect_done(world, E_UNREACHABLE);
    assert_true(ask(world)); /* it may lead elsewhere now */
    fake_answer(last_call(world), 307, "location: https://oss2.test/data/1\n", "");
    fake_answer(last_call(world), 200, "", "0123456789");
    expect_done(world, 0);
}

/* HTTP-6: what was begun is finished, if the registry comes back within the window. */
static void a_begun_body_waits_for_the_host(void **state)
{
    struct world *world = *state;
    struct fake_caller *other = calloc(1, sizeof *other);
    unsigned begun;

    caller_init(other, &world->fake, world->origin);
    assert_int_equal(caller_start(other, &world->request), 0);
    begun = world->fake.call_count - 1;
    fake_head(call(world, begun), 200, "", 10);
    (void)fake_body(call(world, begun), "0123", 4);
    rest(world);
    fake_done(call(world, begun), E_CLOSED);
    for (unsigned i = 0; i < 20 && !last_call(world)->live; i++)
        (void)fake_turn(&world->fake, world->origin);
    assert_string_equal(fake_sent(last_call(world), "Range", 0), "bytes=4-9");
    fake_answer(last_call(world), 206, "content-range: bytes 4-9/10\n", "456789");
    assert_int_equal(other->dones, 1);
    assert_int_equal(other->err, 0);
    free(other);
}

/* One client's silence is not another's: what belongs to a pull under way is asked in a rest, too,
 * and its answer ends it. */
static void a_pull_under_way_is_asked_in_a_rest(void **state)
{
    struct world *world = *state;

    rest(world);
    assert_true(ask_as(world, false));
    assert_true(origin_counters(world->origin)->insisted == 1);
    fake_answer(last_call(world), 200, "", "0123456789");
    expect_done(world, 0);
    assert_false(origin_resting(world->origin, &world->entry, world->fake.now_us));
    assert_true(ask(world));
    fake_answer(last_call(world), 200, "", "0123456789");
    expect_done(world, 0);
}

/* ... with all its tries, and what it meets prolongs the rest of the spare ones. */
static void a_pull_under_way_has_its_tries_in_a_rest(void **state)
{
    struct world *world = *state;
    unsigned before;

    rest(world);
    before = world->fake.call_count;
    assert_true(ask_as(world, false));
    while (world->caller.dones == 0) {
        if (last_call(world)->live)
            fake_done(last_call(world), E_UNREACHABLE);
        assert_true(fake_turn(&world->fake, world->origin));
    }
    expect_done(world, E_UNREACHABLE);
    assert_int_equal(world->fake.call_count - before, ORIGIN_TRIES_MAX);
    assert_true(origin_resting(world->origin, &world->entry, world->fake.now_us));
    world->fake.now_us += ORIGIN_REST_FIRST_US;
    assert_true(origin_resting(world->origin, &world->entry, world->fake.now_us));
    assert_false(ask(world));
    assert_true(wait_end(world) == 0);
}

/* Its redirect leads to a host that rests, for another request's silence. */
static void a_pull_under_way_follows_to_a_host_that_rests(void **state)
{
    struct world *world = *state;

    assert_true(ask(world));
    fake_answer(last_call(world), 307, TO_STORE, "");
    (void)wait_end(world);
    expect_done(world, E_TIMEOUT);
    assert_true(ask_as(world, false));
    fake_answer(last_call(world), 307, TO_STORE, "");
    assert_string_equal(last_call(world)->url, STORE);
    fake_answer(last_call(world), 200, "", "0123456789");
    expect_done(world, 0);
}

static void breakers_are_bounded(void **state)
{
    struct world *world = *state;
    char location[64];

    for (unsigned i = 0; i < 3 * ORIGIN_BREAKERS_MAX; i++) {
        world->fake.call_count = 0;
        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        (void)snprintf(location, sizeof location, "location: https://s%u.test/x\n", i);
        fake_answer(call(world, 0), 307, location, "");
        fake_answer(call(world, 1), 200, "", "0123456789");
        expect_done(world, 0);
        world->fake.now_us += ORIGIN_TARGET_LIFE_US;
    }
    rest(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(silence_ends_in_time),
        TEST(redirects_and_documents_share_the_time),
        TEST(a_caller_may_ask_for_less_time),
        TEST(second_request_fails_at_once),
        TEST(one_long_silence_is_enough),
        TEST(one_probe_at_a_time),
        TEST(rests_grow_but_stay_short),
        TEST(short_refusals_begin_no_rest),
        TEST(lasting_refusal_begins_one),
        TEST(old_failures_are_forgotten),
        TEST(an_answer_or_a_body_is_a_sign_of_life),
        TEST(hosts_rest_apart),
        TEST(a_begun_body_waits_for_the_host),
        TEST(a_pull_under_way_is_asked_in_a_rest),
        TEST(a_pull_under_way_has_its_tries_in_a_rest),
        TEST(a_pull_under_way_follows_to_a_host_that_rests),
        TEST(breakers_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
