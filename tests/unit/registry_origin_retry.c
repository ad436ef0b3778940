/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin client when things fail: resuming (O-6, O-9), pausing and cancelling, retries (RES-5,
 * O-4, O-5), redirect targets remembered, Retry-After.
 */
#include "registry_world.h"

/* ---- O-6, O-9: resuming ---- */

static void cut_body_is_resumed_through_the_registry(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    fake_head(call(world, 1), 200, "", 10);
    fake_body(call(world, 1), "0123", 4);
    fake_done(call(world, 1), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 2)->url, HERE); /* the redirect is resolved anew */
    assert_string_equal(fake_sent(call(world, 2), "Authorization", 0), "Bearer TOPSECRET");
    assert_string_equal(fake_sent(call(world, 2), "Range", 0), "bytes=4-9");
    fake_answer(call(world, 2), 307, "location: https://oss.test/data/2\n", "");
    assert_string_equal(fake_sent(call(world, 3), "Range", 0), "bytes=4-9");
    fake_answer(call(world, 3), 206, "content-range: bytes 4-9/10\n", "456789");
    expect_body(world, "0123456789");
    assert_int_equal(world->caller.status, 200);
    expect_done(world, 0);
    assert_true(origin_counters(world->origin)->resumes == 1);
    assert_true(origin_counters(world->origin)->retries == 0);
}

static void short_body_without_error_is_a_cut(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", UINT64_MAX);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), 0);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(fake_sent(call(world, 1), "Range", 0), "bytes=4-9");
    fake_head(call(world, 1), 200, "", 10); /* a server without ranges: skipped forward */
    fake_body(call(world, 1), "012", 3);
    fake_body(call(world, 1), "3456789", 7);
    fake_done(call(world, 1), 0);
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

static void error_after_the_last_byte_is_no_error(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", UINT64_MAX);
    fake_body(call(world, 0), "0123456789", 10);
    fake_done(call(world, 0), E_CLOSED);
    expect_done(world, 0);
}

static void resumed_part_is_checked(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_TIMEOUT);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_head(call(world, 1), 206, "content-range: bytes 5-9/10\n", 5); /* off by one */
    assert_true(call(world, 1)->cancelled);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(fake_sent(call(world, 2), "Range", 0), "bytes=4-9");
    fake_answer(call(world, 2), 206, "content-range: bytes 4-9/10\n", "456789");
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

/* A resumed body whose registry says 401 ends; no second head, and nothing of the error's text. */
static void refused_resume_ends_without_second_head(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 401, "", "denied");
    (void)fake_turn(&world->fake, world->origin);
    expect_body(world, "0123");
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->caller.last_status, 401);
}

static void resume_answered_without_bytes_ends(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 304, "", "odd text");
    (void)fake_turn(&world->fake, world->origin);
    expect_body(world, "0123");
    expect_done(world, E_ORIGIN);
}

static void resumes_are_counted_and_end(void **state)
{
    struct world *world = *state;
    static const uint8_t zeros[100];
    char headers[64];
    unsigned i = 0;

    world->request.size_bytes = 1000;
    start(world);
    fake_head(call(world, 0), 200, "", 1000);
    do {
        (void)fake_body(call(world, i), zeros, 1);
        fake_done(call(world, i), E_CLOSED);
        if (!fake_next_call(&world->fake, world->origin))
            break;
        i++;
        (void)snprintf(headers, sizeof headers, "content-range: bytes %u-999/1000\n", i);
        fake_head(call(world, i), 206, headers, 1000 - i);
    } while (i < 100);
    assert_int_equal(i, ORIGIN_RESUMES_MAX);
    assert_int_equal(world->caller.heads, 1);
    expect_done(world, E_CLOSED);
}

/* ---- pausing and cancelling ---- */

static void pause_reaches_the_engine(void **state)
{
    struct world *world = *state;

    world->caller.pause = true;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    assert_false(fake_body(call(world, 0), "01234", 5));
    assert_true(call(world, 0)->paused);
    caller_resume(&world->caller);
    assert_false(call(world, 0)->paused);
    fake_body(call(world, 0), "56789", 5);
    fake_done(call(world, 0), 0);
    expect_done(world, 0);
}

static void end_waits_for_a_paused_caller(void **state)
{
    struct world *world = *state;

    world->caller.pause = true;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123456789", 10);
    fake_done(call(world, 0), 0);
    assert_int_equal(world->caller.dones, 0);
    caller_resume(&world->caller);
    assert_int_equal(world->caller.dones, 0);
    assert_true(fake_turn(&world->fake, world->origin));
    expect_done(world, 0);
}

static void cut_while_paused_waits_too(void **state)
{
    struct world *world = *state;

    world->caller.pause = true;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_CLOSED);
    assert_false(fake_next_call(&world->fake, world->origin));
    caller_resume(&world->caller);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 206, "content-range: bytes 4-9/10\n", "456789");
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

/* The origin with its tokens and challenges: what is left when no fetch is. */
#define ORIGIN_ALLOCATIONS 3

static void cancel_at_every_point(void **state)
{
    struct world *world = *state;

    for (unsigned point = 0; point < 6; point++) {
        unsigned at = world->fake.call_count;

        caller_init(&world->caller, &world->fake, world->origin);
        world->caller.cancel_in_head = point == 1;
        world->caller.cancel_in_body = point == 2;
        start(world);
        if (point == 0) {
            origin_cancel(world->origin, world->caller.fetch);
            assert_true(call(world, at)->cancelled);
            continue;
        }
        if (point == 3) { /* between failure and retry */
            fake_done(call(world, at), E_CLOSED);
            origin_cancel(world->origin, world->caller.fetch);
            assert_false(fake_next_call(&world->fake, world->origin));
            continue;
        }
        if (point == 4) /* while a held-back answer arrives */
            fake_head(call(world, at), 404, "", 10);
        else
            fake_head(call(world, at), 200, "", 10);
        fake_body(call(world, at), "01", 2);
        if (point >= 4)
            origin_cancel(world->origin, world->caller.fetch);
        assert_true(call(world, at)->cancelled);
    }
    (void)fake_turn(&world->fake, world->origin);
    assert_int_equal(world->fake.allocations, ORIGIN_ALLOCATIONS);
}

static void cancel_in_a_held_back_delivery(void **state)
{
    struct world *world = *state;

    world->caller.cancel_in_body = true;
    start(world);
    fake_answer(call(world, 0), 404, "", "text");
    assert_int_equal(world->caller.bodies, 1);
    assert_int_equal(world->fake.allocations, ORIGIN_ALLOCATIONS);
}

/* ---- RES-5, O-4, O-5 ---- */

static void passing_status_is_retried_then_passed_on(void **state)
{
    struct world *world = *state;
    uint64_t started = world->fake.now_us;

    world->request.kind = ORIGIN_MANIFEST;
    start(world);
    for (unsigned i = 0; i < ORIGIN_TRIES_MAX; i++) {
        assert_int_equal(world->caller.heads, 0);
        fake_answer(call(world, i), 503, "x-try: y\n", "busy");
        (void)fake_next_call(&world->fake, world->origin);
    }
    assert_int_equal(world->fake.call_count, ORIGIN_TRIES_MAX);
    assert_true(world->fake.now_us - started <= ORIGIN_WINDOW_US);
    assert_int_equal(world->caller.status, 503);
    assert_string_equal(world->caller.headers, "x-try: y\n");
    expect_body(world, "busy");
    expect_done(world, E_ORIGIN);
}

static void passing_status_then_success(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 502, "", "bad gateway");
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 200, "", "0123456789");
    assert_int_equal(world->caller.status, 200);
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

/* O-5: three tries of a blob in ten seconds, whoever asks; then its status, unasked. */
static void tries_of_a_broken_blob_are_counted_together(void **state)
{
    struct world *world = *state;
    uint64_t started = world->fake.now_us;

    start(world);
    for (unsigned i = 0; i < ORIGIN_TRIES_MAX; i++) {
        fake_answer(call(world, i), 502, "", "broken");
        (void)fake_next_call(&world->fake, world->origin);
    }
    expect_done(world, E_ORIGIN);
    for (unsigned first = 0; first < 3; first++) {
        caller_init(&world->caller, &world->fake, world->origin);
        ranged(world, first, first);
        start(world);
        (void)fake_turn(&world->fake, world->origin);
        expect_done(world, E_ORIGIN);
        assert_int_equal(world->caller.last_status, 502);
    }
    assert_int_equal(world->fake.call_count, ORIGIN_TRIES_MAX);
    assert_int_equal(origin_counters(world->origin)->troubled, 3);

    caller_init(&world->caller, &world->fake, world->origin); /* another blob is none of that */
    world->request.path_and_query = "/v2/lib/bb/blobs/sha256:bb";
    start(world);
    fake_answer(call(world, ORIGIN_TRIES_MAX), 206, "content-range: bytes 2-2/10\n", "x");
    expect_done(world, 0);

    world->fake.now_us = started + ORIGIN_TROUBLE_US;
    world->request.path_and_query = BLOB_PATH;
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    fake_answer(call(world, ORIGIN_TRIES_MAX + 1), 206, "content-range: bytes 2-2/10\n", "x");
    expect_done(world, 0);
}

static struct fake_call *next_start(struct world *world, unsigned number)
{
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    if (world->fake.call_count == number)
        (void)fake_turn(&world->fake, world->origin);
    assert_in_range(world->fake.call_count, number, number + 1);
    return world->fake.call_count > number ? call(world, number) : NULL;
}

/* RES-5: a fetch of a blob that its registry refuses is a retry, whoever starts it, and one of a
 * client's own asking is none. */
static void a_further_fetch_of_a_troubled_blob_is_paid(void **state)
{
    for (unsigned status = 429; status <= 503; status += 74) {
        struct world *world = *state;
        const struct origin_counters *counters = origin_counters(world->origin);
        world->request.path_and_query = status == 429 ? "/v2/a/blobs/sha256:aa" : BLOB_PATH;
        unsigned calls = world->fake.call_count;
        uint64_t retries = counters->retries, troubled = counters->troubled;
        origin_set_sharers(world->origin, 1000); /* nothing is there at the start */
        fake_answer(next_start(world, calls), (int)status, "retry-after: 20\n", "");
        (void)fake_turn(&world->fake, world->origin);
        expect_done(world, E_ORIGIN);
        world->fake.now_us += 5 * 1000 * 1000;
        assert_null(next_start(world, calls + 1));
        expect_done(world, E_ORIGIN);
        assert_int_equal(world->caller.last_status, status);
        assert_in_range(world->caller.retry_after_ms, 14000, 15000);
        assert_int_equal(counters->troubled, troubled + 1);
        assert_int_equal(counters->retries, retries);

        origin_asked_anew(world->origin, &world->entry, "/v2/other"); /* of another blob */
        assert_null(next_start(world, calls + 1));
        origin_asked_anew(world->origin, &world->entry, world->request.path_and_query);
        struct fake_call *anew = next_start(world, calls + 1);
        assert_non_null(anew);
        fake_answer(anew, (int)status, "", "");
        (void)fake_turn(&world->fake, world->origin);
        expect_done(world, E_ORIGIN);
        assert_null(next_start(world, calls + 2)); /* once */
        origin_set_sharers(world->origin, 0);      /* alone: three retries are there */
        assert_non_null(next_start(world, calls + 2));
        assert_int_equal(counters->retries, retries + 1);
        fake_answer(call(world, calls + 2), 200, "", "0123456789");
        expect_done(world, 0);
    }
}

/* A range that was answered ends the count. */
static void a_blob_that_works_again_has_all_tries(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 503, "", "");
    (void)fake_next_call(&world->fake, world->origin);
    fake_answer(call(world, 1), 200, "", "0123456789");
    expect_done(world, 0);
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    for (unsigned i = 0; i < ORIGIN_TRIES_MAX; i++) {
        fake_answer(call(world, 2 + i), 503, "", "");
        (void)fake_next_call(&world->fake, world->origin);
    }
    assert_int_equal(world->fake.call_count, 2 + ORIGIN_TRIES_MAX);
    expect_done(world, E_ORIGIN);
}

static void lasting_errors_are_not_retried(void **state)
{
    struct world *world = *state;
    static const int errors[] = {E_TLS, E_REFUSED, E_TOO_LARGE, E_NO_MEMORY};
    static const int statuses[] = {400, 401, 403, 404, 405, 416, 501};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        unsigned at = world->fake.call_count;

        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_done(call(world, at), errors[i]);
        assert_false(fake_next_call(&world->fake, world->origin));
        expect_done(world, errors[i]);
    }
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        unsigned at = world->fake.call_count;

        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_answer(call(world, at), statuses[i], "", "");
        assert_false(fake_next_call(&world->fake, world->origin));
        assert_int_equal(world->caller.status, statuses[i]);
        expect_done(world, E_ORIGIN);
    }
}

static void unreachable_is_retried_within_the_window(void **state)
{
    struct world *world = *state;

    start(world);
    /* A first try that cannot connect leaves time for another. */
    assert_in_range(call(world, 0)->connect_timeout_ms, 3000, 4001);
    world->fake.now_us += 4000000;
    fake_done(call(world, 0), E_TIMEOUT);
    assert_true(fake_next_call(&world->fake, world->origin));
    /* What is left of the eight seconds bounds the second try. */
    assert_true(call(world, 1)->first_byte_timeout_ms <= 4000);
    world->fake.now_us += 3999000;
    fake_done(call(world, 1), E_TIMEOUT);
    assert_false(fake_next_call(&world->fake, world->origin));
    assert_int_equal(world->caller.heads, 0);
    expect_done(world, E_TIMEOUT);
}

static void timeouts_can_be_set(void **state)
{
    struct world *world = *state;

    origin_set_timeouts(world->origin, 100, 200, 300);
    start(world);
    assert_int_equal(call(world, 0)->connect_timeout_ms, 100);
    assert_int_equal(call(world, 0)->first_byte_timeout_ms, 200);
    assert_int_equal(call(world, 0)->idle_timeout_ms, 300);
    origin_set_timeouts(world->origin, 0, 0, 0);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_int_equal(call(world, 1)->connect_timeout_ms, ORIGIN_CONNECT_MS);
    assert_int_equal(call(world, 1)->idle_timeout_ms, ORIGIN_IDLE_MS);
}

/* O-4: a blob waits as told if that fits; else, and for what a runtime asks, 429 goes up. */
static void retry_after_is_honoured(void **state)
{
    struct world *world = *state;
    uint64_t asked;

    start(world);
    asked = world->fake.now_us;
    fake_answer(call(world, 0), 429, "retry-after: 3\n", "");
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_in_range(world->fake.now_us - asked, 3000000, 3500000);
    fake_answer(call(world, 1), 429, "retry-after: 30\n", "slow");
    assert_false(fake_next_call(&world->fake, world->origin));
    assert_int_equal(world->caller.status, 429);
    assert_non_null(strstr(world->caller.headers, "retry-after: 30"));
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->caller.retry_after_ms, 30000);

    caller_init(&world->caller, &world->fake, world->origin);
    world->request.kind = ORIGIN_MANIFEST;
    start(world);
    fake_answer(call(world, 2), 429, "retry-after: 1\n", "");
    assert_false(fake_next_call(&world->fake, world->origin));
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->caller.retry_after_ms, 1000);
}

/* A blob of its own for each request: tries of one are counted together (O-5). */
static void start_of(struct world *world, unsigned number)
{
    static char path[64];

    (void)snprintf(path, sizeof path, "/v2/lib/bb/blobs/sha256:%u", number);
    world->request.path_and_query = path;
    start(world);
}

static void retries_stay_under_a_tenth(void **state)
{
    struct world *world = *state;
    const struct origin_counters *counters = origin_counters(world->origin);
    unsigned requests = 2000;

    for (unsigned i = 0; i < requests; i++) {
        world->fake.call_count = 0;
        caller_init(&world->caller, &world->fake, world->origin);
        start_of(world, i);
        fake_answer(call(world, 0), 500, "", "");
        while (fake_next_call(&world->fake, world->origin))
            fake_answer(call(world, world->fake.call_count - 1), 500, "", "");
        expect_done(world, E_ORIGIN);
    }
    assert_int_equal(counters->requests, requests);
    assert_in_range(counters->retries, requests / 20, requests / 10 + 3);
    assert_true(counters->retries_refused > 0);
}

/* O-4: 429 that does not say how long: not at once, and not all at the same time. */
static void too_busy_without_a_word_waits(void **state)
{
    struct world *world = *state;
    uint64_t waits_us[3];

    for (unsigned i = 0; i < 3; i++) {
        caller_init(&world->caller, &world->fake, world->origin);
        start_of(world, i);
        uint64_t asked_us = world->fake.now_us;
        fake_answer(call(world, 2 * i), 429, "", "");
        assert_true(fake_next_call(&world->fake, world->origin));
        waits_us[i] = world->fake.now_us - asked_us;
        assert_in_range(waits_us[i], ORIGIN_BACKOFF_US / 2, ORIGIN_BACKOFF_US);
        fake_answer(call(world, 2 * i + 1), 200, "", "");
        (void)fake_next_call(&world->fake, world->origin);
    }
    assert_true(waits_us[0] != waits_us[1] || waits_us[1] != waits_us[2]);
}

static void buckets_are_per_registry(void **state)
{
    struct world *world = *state;

    for (unsigned i = 0; i < 50; i++) {
        world->fake.call_count = 0;
        caller_init(&world->caller, &world->fake, world->origin);
        start_of(world, i);
        fake_answer(call(world, 0), 500, "", "");
        while (fake_next_call(&world->fake, world->origin))
            fake_answer(call(world, world->fake.call_count - 1), 500, "", "");
    }
    (void)snprintf(world->entry.name, sizeof world->entry.name, "other.test");
    world->fake.call_count = 0;
    caller_init(&world->caller, &world->fake, world->origin);
    start_of(world, 50);
    fake_answer(call(world, 0), 500, "", "");
    assert_true(fake_next_call(&world->fake, world->origin));
}

/* ---- redirect targets: O-9, ACR §7 ---- */

static void expired_target_is_resolved_once_more(void **state)
{
    struct world *world = *state;

    start(world);
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(call(world, 2 * i)->url, HERE);
        fake_answer(call(world, 2 * i), 307, TO_STORE, "");
        fake_answer(call(world, 2 * i + 1), 403, "", "<Error>Request has expired.</Error>");
        (void)fake_next_call(&world->fake, world->origin);
    }
    assert_int_equal(world->fake.call_count, 4);
    assert_int_equal(world->caller.status, 403);
    expect_done(world, E_ORIGIN);
}

static void fetch_range(struct world *world, uint64_t first, const char *headers)
{
    caller_init(&world->caller, &world->fake, world->origin);
    ranged(world, first, first + 1);
    start(world);
    if (strcmp(call(world, world->fake.call_count - 1)->url, HERE) == 0)
        fake_answer(call(world, world->fake.call_count - 1), 307, TO_STORE, "");
    assert_string_equal(call(world, world->fake.call_count - 1)->url, STORE);
    fake_answer(call(world, world->fake.call_count - 1), 206, headers, "ab");
}

static void target_is_remembered_for_a_minute(void **state)
{
    struct world *world = *state;

    fetch_range(world, 0, "content-range: bytes 0-1/10\n");
    expect_done(world, 0);
    assert_int_equal(world->fake.call_count, 2);
    fetch_range(world, 2, "content-range: bytes 2-3/10\n");
    expect_done(world, 0);
    assert_int_equal(world->fake.call_count, 3); /* straight to the store */
    assert_null(fake_sent(call(world, 2), "Authorization", 0));
    assert_true(origin_counters(world->origin)->redirects_reused == 1);
    world->fake.now_us += ORIGIN_TARGET_LIFE_US;
    fetch_range(world, 4, "content-range: bytes 4-5/10\n");
    assert_int_equal(world->fake.call_count, 5); /* the registry is asked again */
    /* Other credentials never profit (ACL-1). */
    world->request.authorization = "Bearer other";
    fetch_range(world, 4, "content-range: bytes 4-5/10\n");
    assert_int_equal(world->fake.call_count, 7);
}

/* Two ranges, two signed URLs; the first one's ends in mid-body: the other's serves both (O-9). */
static void a_target_found_meanwhile_is_borrowed(void **state)
{
    static struct fake_caller other;
    struct world *world = *state;

    ranged(world, 0, 1);
    start(world);
    caller_init(&other, &world->fake, world->origin);
    ranged(world, 2, 3);
    assert_int_equal(caller_start(&other, &world->request), 0);
    fake_answer(call(world, 0), 307, "location: https://oss.test/data/1\n", "");
    fake_answer(call(world, 1), 307, "location: https://oss.test/data/2\n", "");
    fake_head(call(world, 2), 206, "content-range: bytes 0-1/10\n", 2);
    fake_body(call(world, 2), "a", 1);
    fake_done(call(world, 2), E_CLOSED);
    fake_answer(call(world, 3), 206, "content-range: bytes 2-3/10\n", "cd");
    assert_int_equal(other.err, 0);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 4)->url, "https://oss.test/data/2");
    assert_null(fake_sent(call(world, 4), "Authorization", 0));
    fake_answer(call(world, 4), 206, "content-range: bytes 1-1/10\n", "b");
    expect_body(world, "ab");
    expect_done(world, 0);
}

/* While another range asks for a new URL, this one waits for it instead of asking, too. */
static void a_target_that_comes_is_waited_for(void **state)
{
    static struct fake_caller other;
    struct world *world = *state;

    fetch_range(world, 0, "content-range: bytes 0-1/10\n");
    caller_init(&world->caller, &world->fake, world->origin);
    start(world); /* calls 2 and 3: at the remembered target */
    caller_init(&other, &world->fake, world->origin);
    ranged(world, 2, 3);
    assert_int_equal(caller_start(&other, &world->request), 0);
    fake_answer(call(world, 2), 403, "", "expired");
    fake_answer(call(world, 3), 403, "", "expired");
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_int_equal(world->fake.call_count, 5);
    assert_string_equal(call(world, 4)->url, HERE);
    fake_answer(call(world, 4), 307, "location: https://oss.test/data/2\n", "");
    fake_answer(call(world, 5), 206, "content-range: bytes 0-1/10\n", "ab");
    expect_done(world, 0);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 6)->url, "https://oss.test/data/2");
    fake_answer(call(world, 6), 206, "content-range: bytes 2-3/10\n", "cd");
    assert_int_equal(other.dones, 1);
    assert_int_equal(other.err, 0);
}

static void dead_target_is_dropped_and_resolved_anew(void **state)
{
    struct world *world = *state;

    fetch_range(world, 0, "content-range: bytes 0-1/10\n");
    caller_init(&world->caller, &world->fake, world->origin);
    ranged(world, 2, 3);
    start(world);
    assert_string_equal(call(world, 2)->url, STORE);
    fake_answer(call(world, 2), 403, "", "expired");
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 3)->url, HERE);
    fake_answer(call(world, 3), 401, "www-authenticate: Bearer realm=\"x\"\n", "");
    assert_int_equal(world->caller.status, 401);
    expect_done(world, E_ORIGIN);
    assert_true(origin_counters(world->origin)->retries == 0);
    /* It is forgotten: the next one asks the registry first. */
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    assert_string_equal(call(world, 4)->url, HERE);
}

/* ---- time and dates ---- */

static void http_dates(void **state)
{
    uint64_t seconds;

    (void)state;
    assert_true(origin__http_date("Sun, 06 Nov 1994 08:49:37 GMT", &seconds));
    assert_true(seconds == 784111777);
    assert_true(origin__http_date("Thu, 29 Feb 2024 23:59:59 GMT", &seconds));
    assert_true(seconds == 1709251199);
    assert_true(origin__http_date("Fri, 01 Mar 2024 00:00:00 GMT", &seconds));
    assert_true(seconds == 1709251200);
    assert_true(origin__http_date("Thu, 01 Jan 1970 00:00:00 GMT", &seconds));
    assert_true(seconds == 0);
    assert_true(origin__http_date("Mon, 01 Mar 2100 00:00:00 GMT", &seconds));
    assert_true(seconds == 4107542400);
    assert_false(origin__http_date("Sunday, 06-Nov-94 08:49:37 GMT", &seconds));
    assert_false(origin__http_date("Sun Nov  6 08:49:37 1994", &seconds));
    assert_false(origin__http_date("Sun, 06 Nox 1994 08:49:37 GMT", &seconds));
    assert_false(origin__http_date("Sun, 06 Nov 1994 28:49:37 GMT", &seconds));
    assert_false(origin__http_date("Sun, 00 Nov 1994 08:49:37 GMT", &seconds));
    assert_false(origin__http_date("", &seconds));
}

static uint32_t retry_after(const char *value, const char *date)
{
    struct fetch_header headers[] = {{"retry-after", value}, {"date", date}};
    struct fetch_response response = {429, headers, date == NULL ? 1 : 2, 0};

    return origin__retry_after_ms(&response);
}

static void retry_after_values(void **state)
{
    static const char now[] = "Sun, 06 Nov 1994 08:49:37 GMT";

    (void)state;
    assert_int_equal(retry_after("0", NULL), 0);
    assert_int_equal(retry_after("7", NULL), 7000);
    assert_int_equal(retry_after("61", NULL), 60000);
    assert_int_equal(retry_after("99999999999999999999", NULL), 60000);
    assert_int_equal(retry_after("-3", NULL), 0);
    assert_int_equal(retry_after("soon", NULL), 0);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), 10000);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 09:49:47 GMT", now), 60000);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:30 GMT", now), 0);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", NULL), 0);
}

static void forbidden_moves(void **state)
{
    unsigned allowed = 0;

    (void)state;
    for (int from = ORIGIN_REQUESTING; from <= ORIGIN_ENDED; from++)
        for (int to = ORIGIN_REQUESTING; to <= ORIGIN_ENDED; to++)
            allowed += origin__move_allowed((enum origin_state)from, (enum origin_state)to);
    assert_int_equal(allowed, 19 + 9); /* the table, and ENDED from each other state */
    assert_false(origin__move_allowed(ORIGIN_STREAMING, ORIGIN_COLLECTING));
    assert_false(origin__move_allowed(ORIGIN_DELIVERING, ORIGIN_STREAMING));
    assert_false(origin__move_allowed(ORIGIN_ENDED, ORIGIN_ENDED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cut_body_is_resumed_through_the_registry),
        TEST(short_body_without_error_is_a_cut),
        TEST(error_after_the_last_byte_is_no_error),
        TEST(resumed_part_is_checked),
        TEST(refused_resume_ends_without_second_head),
        TEST(resume_answered_without_bytes_ends),
        TEST(resumes_are_counted_and_end),
        TEST(pause_reaches_the_engine),
        TEST(end_waits_for_a_paused_caller),
        TEST(cut_while_paused_waits_too),
        TEST(cancel_at_every_point),
        TEST(cancel_in_a_held_back_delivery),
        TEST(passing_status_is_retried_then_passed_on),
        TEST(passing_status_then_success),
        TEST(tries_of_a_broken_blob_are_counted_together),
        TEST(a_further_fetch_of_a_troubled_blob_is_paid),
        TEST(a_blob_that_works_again_has_all_tries),
        TEST(lasting_errors_are_not_retried),
        TEST(unreachable_is_retried_within_the_window),
        TEST(timeouts_can_be_set),
        TEST(retry_after_is_honoured),
        TEST(retries_stay_under_a_tenth),
        TEST(too_busy_without_a_word_waits),
        TEST(buckets_are_per_registry),
        TEST(expired_target_is_resolved_once_more),
        TEST(target_is_remembered_for_a_minute),
        TEST(dead_target_is_dropped_and_resolved_anew),
        TEST(a_target_found_meanwhile_is_borrowed),
        TEST(a_target_that_comes_is_waited_for),
        TEST(http_dates),
        TEST(retry_after_values),
        TEST(forbidden_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
