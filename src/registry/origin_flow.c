/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much is asked of a registry at once, and how fast it is read: places for attempts, and token
 * buckets for the bytes of blobs, one of the node and one of each registry that has a limit.
 *
 * An attempt without a place waits in its own time for the head, as it would in a full registry;
 * documents go before blobs, for a client waits for them. Over the rate the engine is paused after
 * the bytes that broke it, so a bucket may owe what one read brings (512 KiB); whoever was paused
 * first goes on first. Manifests are counted, but never paused: they are small, and a pull hangs on
 * them.
 */
#include <string.h>

#include "digest.h"
#include "log.h"
#include "origin.h"

/* What is granted at a time. */
#define QUANTUM_BYTES (64 * 1024)
#define RESUMES_MAX   32 /* in a turn; the next one follows at once */

static int64_t burst_of(const struct origin_flow *flow)
{
    int64_t tenth = (int64_t)(flow->rate_bytes_s / 10);

    return tenth > QUANTUM_BYTES ? tenth : QUANTUM_BYTES;
}

static void limits_set(struct origin_flow *flow, unsigned places_max, uint64_t rate_bytes_s)
{
    if (flow->rate_bytes_s == rate_bytes_s && flow->places_max == places_max)
        return;
    flow->places_max = places_max;
    flow->rate_bytes_s = rate_bytes_s;
    flow->tokens = burst_of(flow);
}

void origin_set_rate(struct origin *origin, uint64_t bytes_per_s)
{
    limits_set(&origin->all, 0, bytes_per_s);
}

/* ---- belonging to a flow ---- */

int origin__flow_join(struct origin_fetch *fetch, const struct registry_entry *registry)
{
    struct origin *origin = fetch->origin;
    struct origin_flow *place = NULL;
    uint8_t hash[32];

    if (registry->connections_max == 0 && registry->rate_bytes_s == 0)
        return 0;
    sha256_of(registry->name, strlen(registry->name), hash);
    for (size_t i = 0; i < ORIGIN_FLOWS_MAX; i++) {
        struct origin_flow *flow = &origin->flows[i];

        if (flow->used_seq != 0 && memcmp(flow->name_hash, hash, sizeof hash) == 0) {
            place = flow;
            break;
        }
        if (flow->fetch_count == 0 && (place == NULL || flow->used_seq < place->used_seq))
            place = flow;
    }
    if (place == NULL)
        return E_FULL;
    if (place->used_seq == 0 || memcmp(place->name_hash, hash, sizeof hash) != 0) {
        *place = (struct origin_flow){.filled_us = origin->now_us};
        memcpy(place->name_hash, hash, sizeof hash);
    }
    limits_set(place, registry->connections_max, registry->rate_bytes_s);
    place->used_seq = ++origin->flow_seq;
    place->fetch_count++;
    fetch->flow = place;
    return 0;
}

void origin__flow_leave(struct origin_fetch *fetch)
{
    origin__place_give(fetch);
    if (fetch->flow != NULL)
        fetch->flow->fetch_count--;
    fetch->flow = NULL;
}

/* ---- places ---- */

static bool place_free(const struct origin_flow *flow)
{
    return flow == NULL || flow->places_max == 0 || flow->running < flow->places_max;
}

static bool is_bulk(const struct origin_fetch *fetch)
{
    return fetch->request.kind == ORIGIN_BLOB && !fetch->head_only;
}

/* Somebody waits whose turn is before this one's: a document, or of the same kind and there before.
 * Without it who ends one request and starts the next in the same moment would keep its place for
 * ever. Who is not on the list yet came last. */
static bool is_preceded(const struct origin_fetch *fetch)
{
    bool before = true;

    if (fetch->flow == NULL || fetch->flow->places_max == 0)
        return false;
    for (const struct origin_fetch *other = fetch->origin->head; other != NULL;
         other = other->next) {
        if (other == fetch)
            before = false;
        else if (other->state == ORIGIN_QUEUED && other->flow == fetch->flow &&
                 !other->caller_paused &&
                 (is_bulk(other) == is_bulk(fetch) ? before : is_bulk(fetch)))
            return true;
    }
    return false;
}

bool origin__place_take(struct origin_fetch *fetch)
{
    if (!place_free(fetch->flow) || is_preceded(fetch)) {
        fetch->origin->counters.queued++;
        return false;
    }
    if (fetch->flow != NULL)
        fetch->flow->running++;
    fetch->has_place = true;
    return true;
}

void origin__place_give(struct origin_fetch *fetch)
{
    fetch->throttled = false;
    if (!fetch->has_place)
        return;
    fetch->has_place = false;
    if (fetch->flow == NULL)
        return;
    ASSERT(fetch->flow->running > 0);
    fetch->flow->running--;
    if (fetch->flow->places_max != 0)
        origin__ask_turn(fetch->origin);
}

static void dequeue(struct origin_fetch *fetch)
{
    int err;

    origin__state(fetch, ORIGIN_REQUESTING);
    origin__budget_set(fetch, fetch->origin->now_us, 0);
    err = origin__send(fetch);
    if (err != 0)
        origin__attempt_ended(fetch, err == E_NO_MEMORY ? err : E_UNREACHABLE);
}

static void queue_turn(struct origin *origin, bool bulk)
{
    for (struct origin_fetch *fetch = origin->head; fetch != NULL; fetch = fetch->next)
        if (fetch->state == ORIGIN_QUEUED && !fetch->caller_paused && is_bulk(fetch) == bulk &&
            place_free(fetch->flow))
            dequeue(fetch);
}

/* ---- rates ---- */

static void fill(struct origin_flow *flow, uint64_t now_us)
{
    uint64_t passed_us = now_us > flow->filled_us ? now_us - flow->filled_us : 0;
    int64_t burst = burst_of(flow);

    flow->filled_us = now_us;
    flow->promised = 0;
    if (flow->rate_bytes_s == 0)
        return;
    if (passed_us > 60ull * 1000 * 1000)
        passed_us = 60ull * 1000 * 1000; /* keeps the product small; the burst is less anyway */
    flow->tokens += (int64_t)(flow->rate_bytes_s * passed_us / 1000000);
    if (flow->tokens > burst)
        flow->tokens = burst;
}

/* How long until another quantum may be granted; 0: now. */
static uint64_t wait_us(const struct origin_flow *flow)
{
    int64_t missing;

    if (flow == NULL || flow->rate_bytes_s == 0)
        return 0;
    missing = QUANTUM_BYTES + flow->promised - flow->tokens;
    return missing <= 0 ? 0 : (uint64_t)missing * 1000000 / flow->rate_bytes_s + 1000;
}

static void spend(struct origin_flow *flow, size_t byte_count)
{
    if (flow != NULL && flow->rate_bytes_s != 0)
        flow->tokens -= (int64_t)byte_count;
}

static bool is_short(const struct origin_flow *flow)
{
    return flow != NULL && flow->rate_bytes_s != 0 && flow->tokens <= 0;
}

void origin__flow_spend(struct origin_fetch *fetch, size_t byte_count)
{
    struct origin *origin = fetch->origin;

    spend(&origin->all, byte_count);
    spend(fetch->flow, byte_count);
    if (fetch->state != ORIGIN_STREAMING || (!is_short(&origin->all) && !is_short(fetch->flow)))
        return;
    fetch->throttled = true;
    fetch->throttled_seq = ++origin->flow_seq;
    origin->counters.throttled++;
    origin__ask_turn(origin); /* the buckets are filled where the time is known */
}

static uint64_t throttle_us(const struct origin_fetch *fetch)
{
    uint64_t all_us = wait_us(&fetch->origin->all), own_us = wait_us(fetch->flow);

    return all_us > own_us ? all_us : own_us;
}

/* Of those that may go on, the one that was paused first. */
static struct origin_fetch *next_throttled(const struct origin *origin)
{
    struct origin_fetch *first = NULL;

    for (struct origin_fetch *fetch = origin->head; fetch != NULL; fetch = fetch->next)
        if (fetch->throttled && throttle_us(fetch) == 0 &&
            (first == NULL || fetch->throttled_seq < first->throttled_seq))
            first = fetch;
    return first;
}

static void rate_turn(struct origin *origin)
{
    struct origin_fetch *fetch;

    fill(&origin->all, origin->now_us);
    for (size_t i = 0; i < ORIGIN_FLOWS_MAX; i++)
        fill(&origin->flows[i], origin->now_us);
    for (unsigned i = 0; i < RESUMES_MAX && (fetch = next_throttled(origin)) != NULL; i++) {
        fetch->throttled = false;
        if (fetch->caller_paused)
            continue;
        origin->all.promised += QUANTUM_BYTES;
        if (fetch->flow != NULL)
            fetch->flow->promised += QUANTUM_BYTES;
        origin->engine.resume(origin->engine.self, fetch->running);
    }
}

void origin__flow_turn(struct origin *origin)
{
    rate_turn(origin);
    queue_turn(origin, false);
    queue_turn(origin, true);
}

uint64_t origin__flow_due_us(const struct origin_fetch *fetch)
{
    if (fetch->state == ORIGIN_QUEUED && place_free(fetch->flow))
        return 0;
    return fetch->throttled ? fetch->origin->now_us + throttle_us(fetch) : UINT64_MAX;
}
