/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of a registry: requests at once, and the rate at which blobs are read, in virtual time. */
#include "registry_world.h"

#define MIB (1024 * 1024)

/* Further callers beside the world's own. */
static struct fake_caller more[6];

static void start_more(struct world *world, unsigned i, enum origin_kind kind)
{
    struct origin_request request = world->request;

    request.kind = kind;
    caller_init(&more[i], &world->fake, world->origin);
    assert_int_equal(caller_start(&more[i], &request), 0);
}

static void answer(struct world *world, unsigned i)
{
    fake_answer(call(world, i), 200, "", "0123456789");
}

static void attempts_wait_for_a_place(void **state)
{
    struct world *world = *state;

    world->entry.connections_max = 2;
    start(world);
    for (unsigned i = 0; i < 3; i++)
        start_more(world, i, ORIGIN_BLOB);
    assert_int_equal(world->fake.call_count, 2);
    assert_int_equal(origin_counters(world->origin)->queued, 2);
    answer(world, 0);
    expect_done(world, 0);
    (void)fake_turn(&world->fake, world->origin);
    assert_int_equal(world->fake.call_count, 3);
    answer(world, 1);
    answer(world, 2);
    (void)fake_turn(&world->fake, world->origin);
    answer(world, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_true(more[i].dones == 1 && more[i].err == 0 && !more[i].disorder);
}

static void documents_go_before_blobs(void **state)
{
    struct world *world = *state;

    world->entry.connections_max = 1;
    start(world);
    start_more(world, 0, ORIGIN_BLOB);
    start_more(world, 1, ORIGIN_MANIFEST);
    answer(world, 0);
    (void)fake_turn(&world->fake, world->origin);
    assert_int_equal(world->fake.call_count, 2);
    answer(world, 1);
    assert_int_equal(more[1].dones, 1);
    assert_int_equal(more[0].dones, 0);
    (void)fake_turn(&world->fake, world->origin);
    answer(world, 2);
    assert_int_equal(more[0].dones, 1);
}

/* Who starts its next request when one ends, as a pull does with its leases, goes to the end. */
static void who_waits_goes_before_who_comes(void **state)
{
    struct world *world = *state;

    world->entry.connections_max = 1;
    start(world);
    start_more(world, 0, ORIGIN_BLOB);
    start_more(world, 1, ORIGIN_MANIFEST);
    answer(world, 0);
    start_more(world, 2, ORIGIN_BLOB); /* before anybody had a turn */
    start_more(world, 3, ORIGIN_MANIFEST);
    assert_int_equal(world->fake.call_count, 1);
    static const unsigned order[] = {1, 3, 0, 2};
    for (unsigned i = 0; i < 4; i++) {
        (void)fake_turn(&world->fake, world->origin);
        assert_int_equal(world->fake.call_count, i + 2);
        answer(world, i + 1);
        assert_int_equal(more[order[i]].dones, 1);
    }
}

/* A redirect gives the place back before it asks for one again: one place is enough for both. */
static void one_place_follows_redirects_and_retries(void **state)
{
    struct world *world = *state;

    world->entry.connections_max = 1;
    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    fake_answer(call(world, 1), 503, "", "busy");
    assert_true(fake_next_call(&world->fake, world->origin));
    answer(world, 2);
    expect_done(world, 0);
}

/* Who gets no place in time fails like anybody whom the registry lets wait, and the registry is not
 * thought silent for it. */
static void waiting_ends_with_the_time_for_the_head(void **state)
{
    struct world *world = *state;

    uint64_t began_us = world->fake.now_us;

    world->entry.connections_max = 1;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    start_more(world, 0, ORIGIN_MANIFEST);
    while (more[0].dones == 0)
        assert_true(fake_turn(&world->fake, world->origin));
    assert_int_equal(more[0].err, E_TIMEOUT);
    assert_in_range(world->fake.now_us - began_us, 7900 * 1000, 8100 * 1000);
    assert_false(origin_resting(world->origin, &world->entry, world->fake.now_us));
    assert_int_equal(world->fake.call_count, 1);
    (void)fake_body(call(world, 0), "0123456789", 10);
    fake_done(call(world, 0), 0);
    expect_done(world, 0);
}

static void whoever_is_cancelled_leaves_its_place(void **state)
{
    struct world *world = *state;

    world->entry.connections_max = 1;
    start(world);
    start_more(world, 0, ORIGIN_BLOB);
    start_more(world, 1, ORIGIN_BLOB);
    origin_cancel(world->origin, more[0].fetch); /* in the queue */
    origin_cancel(world->origin, world->caller.fetch);
    (void)fake_turn(&world->fake, world->origin);
    answer(world, 1);
    assert_int_equal(more[1].dones, 1);
    assert_int_equal(more[0].dones + world->caller.dones, 0);
}

static void other_registries_have_places_of_their_own(void **state)
{
    struct world *world = *state;

    world->entry.connections_max = 1;
    start(world);
    (void)snprintf(world->entry.name, sizeof world->entry.name, "other.test");
    start_more(world, 0, ORIGIN_BLOB);
    world->entry.connections_max = 0;
    (void)snprintf(world->entry.name, sizeof world->entry.name, "free.test");
    start_more(world, 1, ORIGIN_BLOB);
    assert_int_equal(world->fake.call_count, 3);
    for (unsigned i = 0; i < 3; i++)
        answer(world, i);
}

/* More registries with limits than there are places for them: refused, not unlimited. */
static void the_table_of_limits_is_bounded(void **state)
{
    struct world *world = *state;
    struct origin_fetch *fetches[FAKE_CALLS_MAX], *one;
    unsigned count = 0;
    int err = 0;

    world->entry.connections_max = 1;
    while (count < FAKE_CALLS_MAX && err == 0) {
        (void)snprintf(world->entry.name, sizeof world->entry.name, "r%u.test", count);
        err = origin_start(world->origin, 1, &world->request, &caller_callbacks, &world->caller,
                           &one);
        if (err == 0)
            fetches[count++] = one;
    }
    assert_int_equal(err, E_FULL);
    assert_int_equal(count, ORIGIN_FLOWS_MAX);
    for (unsigned i = 0; i < count; i++)
        origin_cancel(world->origin, fetches[i]);
}

/* ---- rates ---- */

/* Plays a server that sends as fast as it may; returns how long it took, us. */
static uint64_t read_all(struct world *world, struct fake_caller *callers[], unsigned count,
                         size_t bytes)
{
    static const uint8_t block[64 * 1024];
    uint64_t began_us = world->fake.now_us;
    size_t sent[4] = {0};
    bool going = true;

    for (unsigned i = 0; i < count; i++)
        fake_head(call(world, i), 200, "", bytes);
    while (going) {
        bool moved = false;

        going = false;
        for (unsigned i = 0; i < count; i++) {
            struct fake_call *one = call(world, i);

            if (sent[i] < bytes && !one->paused) {
                (void)fake_body(one, block, sizeof block);
                sent[i] += sizeof block;
                moved = true;
            }
            if (sent[i] == bytes && !one->paused)
                fake_done(one, 0);
            going = going || one->live;
        }
        if (!moved && going)
            assert_true(fake_turn(&world->fake, world->origin));
    }
    for (unsigned i = 0; i < count; i++)
        assert_true(callers[i]->dones == 1 && callers[i]->err == 0 && !callers[i]->disorder);
    return world->fake.now_us - began_us;
}

static uint64_t timed(struct world *world, unsigned count)
{
    struct fake_caller *callers[] = {&world->caller, &more[0], &more[1], &more[2]};

    world->request.size_bytes = 4 * MIB;
    world->request.last = 4 * MIB - 1;
    start(world);
    for (unsigned i = 1; i < count; i++)
        start_more(world, i - 1, ORIGIN_BLOB);
    return read_all(world, callers, count, 4 * MIB);
}

static void without_a_rate_nothing_waits(void **state)
{
    assert_int_equal(timed(*state, 2), 0);
}

static void a_registrys_rate_is_kept(void **state)
{
    struct world *world = *state;

    world->entry.rate_bytes_s = 1 * MIB;
    assert_in_range(timed(world, 1), 3700 * 1000, 4300 * 1000);
    assert_true(origin_counters(world->origin)->throttled > 10);
}

static void bodies_share_a_rate(void **state)
{
    struct world *world = *state;

    world->entry.rate_bytes_s = 4 * MIB;
    assert_in_range(timed(world, 4), 3700 * 1000, 4300 * 1000);
}

static void all_registries_share_the_nodes_rate(void **state)
{
    struct world *world = *state;

    origin_set_rate(world->origin, 2 * MIB);
    world->entry.rate_bytes_s = 100 * MIB;
    assert_in_range(timed(world, 2), 3700 * 1000, 4300 * 1000);
}

/* A client that pauses keeps its pause when the bucket fills, and goes on when both are over. */
static void a_paused_caller_stays_paused(void **state)
{
    static const uint8_t block[64 * 1024];
    struct world *world = *state;

    world->entry.rate_bytes_s = 64 * 1024;
    world->request.size_bytes = sizeof block * 3;
    world->request.last = sizeof block * 3 - 1;
    start(world);
    fake_head(call(world, 0), 200, "", sizeof block * 3);
    (void)fake_body(call(world, 0), block, sizeof block); /* the burst */
    world->caller.pause = true;
    while (call(world, 0)->paused)
        assert_true(fake_turn(&world->fake, world->origin));
    (void)fake_body(call(world, 0), block, sizeof block);
    for (unsigned i = 0; i < 3; i++)
        (void)fake_turn(&world->fake, world->origin);
    assert_true(call(world, 0)->paused);
    caller_resume(&world->caller);
    while (call(world, 0)->paused)
        assert_true(fake_turn(&world->fake, world->origin));
    (void)fake_body(call(world, 0), block, sizeof block);
    fake_done(call(world, 0), 0);
    expect_done(world, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(attempts_wait_for_a_place),
        TEST(documents_go_before_blobs),
        TEST(who_waits_goes_before_who_comes),
        TEST(one_place_follows_redirects_and_retries),
        TEST(waiting_ends_with_the_time_for_the_head),
        TEST(whoever_is_cancelled_leaves_its_place),
        TEST(other_registries_have_places_of_their_own),
        TEST(the_table_of_limits_is_bounded),
        TEST(without_a_rate_nothing_waits),
        TEST(a_registrys_rate_is_kept),
        TEST(bodies_share_a_rate),
        TEST(all_registries_share_the_nodes_rate),
        TEST(a_paused_caller_stays_paused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
