/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin against a server that lies, cuts, redirects and refuses at random, and a caller that
 * pauses and cancels at random. Whatever happens: the bytes shown are a prefix of the right ones
 * (O-8), done comes exactly once and last, a success is complete, credentials reach only the
 * registry (ORG-3), attempts are bounded (RES-5), and nothing leaks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/registry/origin.h"
#include "../unit/registry_fake.h"

#define ROUNDS    30000
#define BLOB_MAX  4000
#define STORE_URL "https://oss.test/data?Signature=SECRET"

struct play {
    struct fake fake;
    struct origin *origin;
    struct registry_entry entry;
    struct fake_caller caller;
    struct prng prng;
    uint64_t size;
    unsigned honesty; /* percent of right answers */
    bool cancelled;
};

static uint8_t blob[BLOB_MAX + 100];
static uint64_t seed;

static bool chance(struct play *play, unsigned percent)
{
    return prng_below(&play->prng, 100) < percent;
}

/* What this call asks for, as an honest server understands it. */
static bool asked(const struct play *play, const struct fake_call *call, uint64_t *first,
                  uint64_t *last)
{
    const char *range = fake_sent(call, "Range", 0);
    char *end;

    *first = 0;
    *last = play->size == 0 ? 0 : play->size - 1;
    if (range == NULL)
        return false;
    *first = strtoull(range + 6, &end, 10);
    if (end[1] != '\0')
        *last = strtoull(end + 1, NULL, 10);
    if (*last >= play->size)
        *last = play->size - 1;
    return true;
}

static void serve_body(struct play *play, struct fake_call *call, uint64_t first, uint64_t bytes)
{
    while (bytes > 0 && call->live) {
        uint64_t n = 1 + prng_below(&play->prng, bytes);

        if (call->paused) {
            if (!play->caller.paused)
                return;
            caller_resume(&play->caller);
            continue;
        }
        play->caller.pause = chance(play, 10);
        if (play->caller.fetch != NULL && chance(play, 1))
            play->caller.cancel_in_body = true;
        (void)fake_body(call, blob + first, n);
        first += n;
        bytes -= n;
    }
    if (call->live && call->paused && chance(play, 50))
        caller_resume(&play->caller);
}

static void serve_right(struct play *play, struct fake_call *call)
{
    uint64_t first, last, bytes;
    char headers[100] = "";
    bool part = asked(play, call, &first, &last);

    bytes = play->size == 0 ? 0 : last - first + 1;
    if (part)
        (void)snprintf(headers, sizeof headers, "content-range: bytes %llu-%llu/%llu\n",
                       (unsigned long long)first, (unsigned long long)last,
                       (unsigned long long)play->size);
    fake_head(call, part ? 206 : 200, headers, chance(play, 20) ? UINT64_MAX : bytes);
    if (!call->live)
        return;
    if (chance(play, 30)) { /* cut */
        serve_body(play, call, first, bytes == 0 ? 0 : prng_below(&play->prng, bytes));
        fake_done(call, chance(play, 50) ? E_CLOSED : E_TIMEOUT);
        return;
    }
    serve_body(play, call, first, bytes);
    fake_done(call, 0);
}

/* A 206 or 200 with numbers out of a hat, and bytes that would be wrong if they were believed. */
static void serve_wrong(struct play *play, struct fake_call *call)
{
    static const uint8_t junk[300];
    uint64_t a = prng_below(&play->prng, play->size + 2), n = 1 + prng_below(&play->prng, 300);
    uint64_t first, last, total = play->size + prng_below(&play->prng, 3);
    char headers[100] = "";
    bool part = chance(play, 70);
    bool right_place = asked(play, call, &first, &last) && part && a == first;

    (void)snprintf(headers, sizeof headers, "content-range: bytes %llu-%llu/%llu\n",
                   (unsigned long long)a, (unsigned long long)(a + n - 1),
                   (unsigned long long)total);
    if (right_place || (!part && total == play->size && n == total)) {
        serve_right(play, call);
        return;
    }
    if (!part && n == play->size)
        n++;
    fake_head(call, part ? 206 : 200, part ? headers : "", n);
    if (call->live && call->headed && play->caller.heads == 0)
        (void)fake_body(call, junk, (size_t)n);
    fake_done(call, 0);
}

static void serve_status(struct play *play, struct fake_call *call)
{
    static const int statuses[] = {400, 401, 403, 404, 416, 429, 500, 502, 503, 504, 204, 304, 300};
    int status = statuses[prng_below(&play->prng, sizeof statuses / sizeof statuses[0])];

    fake_head(call, status, chance(play, 30) ? "retry-after: 2\n" : "", UINT64_MAX);
    if (call->live && chance(play, 70))
        (void)fake_body(call, "error text", 10);
    if (call->live && call->paused && play->caller.paused)
        caller_resume(&play->caller);
    fake_done(call, chance(play, 80) ? 0 : E_CLOSED);
}

static void serve(struct play *play, struct fake_call *call)
{
    bool at_registry = strncmp(call->url, "https://registry.test/", 22) == 0;

    /* ORG-3, on every single request. */
    if (!at_registry)
        assert_null(fake_sent(call, "Authorization", 0));
    if (chance(play, play->honesty)) {
        if (at_registry && chance(play, 50))
            fake_answer(call, 307, "location: " STORE_URL "\n", "moved");
        else
            serve_right(play, call);
        return;
    }
    switch (prng_below(&play->prng, 5)) {
    case 0:
        fake_answer(call, 302, chance(play, 50) ? "location: /v2/again\n" : "location: http://x/\n",
                    "");
        break;
    case 1:
        serve_status(play, call);
        break;
    case 2:
        fake_done(call, chance(play, 50) ? E_UNREACHABLE : E_TIMEOUT);
        break;
    default:
        serve_wrong(play, call);
        break;
    }
}

static struct origin_request request_draw(struct play *play)
{
    struct origin_request request = {.registry = &play->entry,
                                     .kind = ORIGIN_BLOB,
                                     .method = "GET",
                                     .path_and_query = "/v2/a/blobs/sha256:aa",
                                     .authorization = "Bearer TOPSECRET",
                                     .whole = chance(play, 50),
                                     .size_bytes = play->size};

    if (play->size == 0)
        request.whole = true;
    if (!request.whole) {
        request.first = prng_below(&play->prng, play->size);
        request.last = request.first + prng_below(&play->prng, play->size - request.first);
    }
    if (chance(play, 30))
        request.size_bytes = UINT64_MAX;
    return request;
}

static void check_outcome(struct play *play, const struct origin_request *request)
{
    const struct fake_caller *caller = &play->caller;
    uint64_t due = request->whole ? play->size : request->last - request->first + 1;
    bool ok_status = caller->status == 200 || caller->status == 206;

    assert_false(caller->disorder);
    assert_int_equal(caller->dones, play->cancelled ? 1000 : 1);
    assert_true(play->fake.call_count <=
                (ORIGIN_HOPS_MAX + 1) * (ORIGIN_RESUMES_MAX + 1) * ORIGIN_TRIES_MAX);
    if (caller->heads == 0) {
        assert_true(play->cancelled || caller->err != 0);
        return;
    }
    if (!ok_status)
        return;
    assert_true(caller->body_bytes <= due);
    assert_memory_equal(caller->body, blob + request->first, caller->body_bytes);
    if (!play->cancelled && caller->err == 0)
        assert_int_equal(caller->body_bytes, due);
}

static void round_play(struct play *play)
{
    struct origin_request request;
    unsigned served = 0;

    play->size = chance(play, 3) ? 0 : 1 + prng_below(&play->prng, BLOB_MAX);
    play->honesty = (unsigned)prng_below(&play->prng, 101);
    play->fake.call_count = 0;
    caller_init(&play->caller, &play->fake, play->origin);
    play->caller.cancel_in_head = chance(play, 2);
    request = request_draw(play);
    assert_int_equal(caller_start(&play->caller, &request), 0);
    while (play->caller.dones == 0) {
        if (served < play->fake.call_count) {
            serve(play, &play->fake.calls[served++]);
            continue;
        }
        if (play->caller.paused)
            caller_resume(&play->caller);
        if (!fake_turn(&play->fake, play->origin))
            break;
    }
    play->cancelled = play->caller.dones == 1000;
    while (fake_turn(&play->fake, play->origin))
        ;
    check_outcome(play, &request);
    for (unsigned i = 0; i < play->fake.call_count; i++) {
        assert_false(play->fake.calls[i].live);
        assert_false(play->fake.calls[i].late_callback);
    }
    if (chance(play, 20))
        play->fake.now_us += ORIGIN_TARGET_LIFE_US;
}

static void random_servers_and_callers(void **state)
{
    static struct play play;
    const struct origin_counters *counters;

    (void)state;
    fake_init(&play.fake, seed);
    prng_seed(&play.prng, (const uint8_t *)&seed, sizeof seed);
    (void)snprintf(play.entry.name, sizeof play.entry.name, "registry.test");
    (void)snprintf(play.entry.endpoint, sizeof play.entry.endpoint, "https://registry.test");
    assert_int_equal(origin_new(&play.fake.env, &play.fake.engine, &play.fake.timer, &play.origin),
                     0);
    for (unsigned i = 0; i < ROUNDS; i++)
        round_play(&play);
    counters = origin_counters(play.origin);
    assert_true(counters->retries <= counters->requests / 10 + 3);
    /* The play was worth watching. */
    assert_true(counters->resumes > 100 && counters->ranges_wrong > 100 &&
                counters->redirects > 100 && counters->redirects_refused > 10);
    origin_free(play.origin);
    assert_int_equal(play.fake.allocations, 0);
    assert_null(strstr(play.fake.log, "SECRET"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_servers_and_callers)};
    const char *text = getenv("SEED");

    seed = text != NULL ? strtoull(text, NULL, 10) : 20240229;
    printf("seed: %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < sizeof blob; i++)
        blob[i] = (uint8_t)(1 + i % 251);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
