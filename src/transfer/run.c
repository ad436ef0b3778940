/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How what was granted is brought in: reads from the origin in runs, imports from other zones.
 *
 * With others interested a run is one segment; with nobody else runs are long and in order.
 */
#include "lease.h"

#define RUN_BYTES_MIN (4u * 1024 * 1024)
#define RUN_BYTES_MAX (16u * 1024 * 1024)
/* Among others a run is one segment, of a fine cut so many bytes of segments that follow each
 * other: a lazy reader asks for 1 MiB at most, and each request costs the origin a round trip. */
#define RUN_BYTES_CROWD (1u * 1024 * 1024)
/* Leases of a run are asked for together; their answers are awaited so long to make one read. */
#define GATHER_US (10 * MS)
/* A neighbour that has it all may still be greeting. */
#define NEAR_WHOLE_US (200 * MS)
/* A read for a crowd older than this and twice what others need, that will have taken so many times
 * what they need, is handed back (rule 7: relative to others only, a slow origin is slow for all).
 */
#define LATE_LEASE_US (500 * MS)
#define LATE_FACTOR   4
#define HAND_BACK_US  (300 * MS) /* others are to have the segment that was handed back */
/* A long run is split when others come and it would hold them up for longer than this. */
#define SPLIT_US (1 * S)
/* Each longer first byte moves the least of late by this part. */
#define FIRST_BYTE_RISE 64
/* Verification of the last pieces may lag behind the end of a read. */
#define VERIFY_US           (10 * S)
#define ORIGIN_PAUSE_MAX_MS 60000u

/* ---- imports ---- */

bool transfer__import(struct transfer *transfer, struct blob *blob, uint32_t segment,
                      uint16_t holder, uint8_t flags)
{
    const struct lease *lease = transfer__lease_find(transfer, blob, segment);
    bool whole = lease != NULL && lease->state == LEASE_IMPORTING
                     ? lease->whole
                     : transfer__is_read_whole(transfer, blob, segment);
    bool any = false;
    uint32_t first = segment_first(&blob->layout, segment);
    uint32_t end = first + segment_length(&blob->layout, segment);
    for (uint32_t piece = first; piece < end; piece++) {
        if (!whole && !transfer__is_wanted(blob, piece))
            continue;
        bool leased = (blob->swarm->flags[piece] & PIECE_LEASED) != 0;
        bool missing = leased ? !bitfield_get(&blob->have, piece) && blob->swarm->asked[piece] == 0
                              : bitfield_get(&blob->swarm->open, piece);
        struct choice choice = {.piece = piece, .node = holder};
        if (missing && transfer__request(transfer, blob, &choice, flags | WIRE_PIECE_IMPORT))
            any = true;
    }
    return any;
}

static void start_import(struct transfer *transfer, struct lease *lease)
{
    transfer__lease_move(lease, LEASE_IMPORTING);
    lease->whole = transfer__is_read_whole(transfer, lease->blob, lease->segment);
    lease->moved_us = transfer->now_us;
    lease->due_us = transfer->now_us + GATHER_US;
    (void)transfer__import(transfer, lease->blob, lease->segment, lease->holder, WIRE_PIECE_LEASE);
}

void transfer__remote_remove(struct swarm *swarm, uint16_t node)
{
    for (uint32_t i = 0; i < swarm->remote_count; i++) {
        if (swarm->remotes[i] == node) {
            swarm->remotes[i] = swarm->remotes[--swarm->remote_count];
            return;
        }
    }
}

/* A whole copy outside the zone that a provider record named; NODE_NONE if there is none. */
static uint16_t pick_remote(struct transfer *transfer, const struct lease *lease)
{
    const struct swarm *swarm = lease->blob->swarm;
    if (swarm->remote_count == 0 || lease->copies != TRANSFER_COPIES_MESH ||
        lease->reason != FETCH_LEASE)
        return NODE_NONE;
    uint32_t at = (uint32_t)prng_below(&transfer->prng, swarm->remote_count);
    return swarm->remotes[at];
}

/* ---- reads ---- */

static bool is_fallback(enum fetch_reason reason)
{
    return reason == FETCH_NO_KEEPER || reason == FETCH_NO_PROGRESS;
}

/* A read that the host could not be told of comes to nothing. */
static struct fetch *fetch_add(struct transfer *transfer, struct blob *blob, uint32_t first,
                               uint32_t count, enum fetch_reason reason)
{
    struct fetch *fetch = transfer__zalloc(transfer, sizeof *fetch);
    if (fetch == NULL)
        return NULL;
    struct transfer_result result = {
        .kind = TRANSFER_FETCH,
        .blob = blob->handle,
        .key = blob->info.key,
        .piece = first,
        .piece_count = count,
        .id = ++transfer->next_id,
        .reason = reason,
    };
    if (!transfer__push(transfer, &result)) {
        transfer__release(transfer, fetch);
        return NULL;
    }
    *fetch = (struct fetch){
        .prev = transfer->fetches_last,
        .id = result.id,
        .blob = blob,
        .first = first,
        .count = count,
        .reason = reason,
        .started_us = transfer->now_us,
        .progress_us = transfer->now_us,
    };
    if (transfer->fetches_last != NULL)
        transfer->fetches_last->next = fetch;
    else
        transfer->fetches = fetch;
    transfer->fetches_last = fetch;
    transfer__rate_asked(transfer);
    transfer->fetch_count++;
    transfer->fallbacks += is_fallback(reason) ? 1 : 0;
    transfer->stats.fetches_by_reason[reason]++;
    return fetch;
}

static bool has_open_lease(const struct transfer *transfer, const struct fetch *fetch)
{
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->fetch == fetch && lease->state == LEASE_FETCHING)
            return true;
    }
    return false;
}

static void fetch_remove(struct transfer *transfer, struct fetch *fetch)
{
    if (fetch->prev != NULL)
        fetch->prev->next = fetch->next;
    else
        transfer->fetches = fetch->next;
    if (fetch->next != NULL)
        fetch->next->prev = fetch->prev;
    else
        transfer->fetches_last = fetch->prev;
    ASSERT(transfer->fetch_count > 0);
    transfer->fetch_count--;
    transfer__release(transfer, fetch);
}

void transfer__fetch_cancel(struct transfer *transfer, struct fetch *fetch)
{
    struct transfer_result result = {.kind = TRANSFER_FETCH_CANCEL, .id = fetch->id};
    if (fetch->cancelled || fetch->ended)
        return;
    if (fetch->blob != NULL) {
        result.blob = fetch->blob->handle;
        result.key = fetch->blob->info.key;
    }
    fetch->cancelled = transfer__push(transfer, &result);
}

void transfer__fetch_superfluous(struct transfer *transfer, struct fetch *fetch)
{
    if (!has_open_lease(transfer, fetch))
        transfer__fetch_cancel(transfer, fetch);
}

void transfer__fetches_close(struct transfer *transfer)
{
    while (transfer->fetches != NULL)
        fetch_remove(transfer, transfer->fetches);
}

/* The granted lease of the blob with the lowest segment above `after` that waits to be read. */
static struct lease *next_granted(const struct transfer *transfer, const struct blob *blob,
                                  uint32_t from)
{
    struct lease *best = NULL;
    for (struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->blob != blob || lease->state != LEASE_GRANTED || lease->segment < from)
            continue;
        if (best == NULL || lease->segment < best->segment)
            best = lease;
    }
    return best;
}

static uint32_t crowd_bytes(const struct blob *blob)
{
    uint32_t bytes = segment_bytes(blob);
    return bytes > RUN_BYTES_CROWD ? bytes : RUN_BYTES_CROWD;
}

/* Our lease of a segment; NULL: there is none, or it does not exist. */
static const struct lease *lease_at(const struct transfer *transfer, const struct blob *blob,
                                    uint32_t segment)
{
    return segment < blob->layout.segment_count ? transfer__lease_find(transfer, blob, segment)
                                                : NULL;
}

/* The question for a segment that would be read along with what was granted beside it is out. */
static bool is_awaited(const struct transfer *transfer, const struct lease *lease)
{
    return lease != NULL && lease->state < LEASE_GRANTED &&
           transfer->now_us - lease->asked_us < GATHER_US;
}

/* Of small segments those that follow one another are awaited, to be read in one go. */
static bool awaits_next(const struct transfer *transfer, const struct lease *lease)
{
    const struct blob *blob = lease->blob;
    if (segment_bytes(blob) >= RUN_BYTES_CROWD)
        return false;
    const struct lease *before = lease, *behind = lease;
    while (before != NULL && before->state == LEASE_GRANTED)
        before = lease_at(transfer, blob, before->segment - 1); /* below 0 there is none */
    while (behind != NULL && behind->state == LEASE_GRANTED)
        behind = lease_at(transfer, blob, behind->segment + 1);
    return is_awaited(transfer, before) || is_awaited(transfer, behind);
}

/* Questions of the same run are still out. */
static bool is_gathering(const struct transfer *transfer, const struct blob *blob)
{
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->blob == blob && lease->state < LEASE_GRANTED &&
            transfer->now_us - lease->asked_us < GATHER_US)
            return true;
    }
    return false;
}

/* Adds leases to the run from `lease` on while they follow one another; the last piece. */
static uint32_t extend_run(const struct transfer *transfer, const struct lease *lease,
                           uint32_t last, uint32_t bytes_max)
{
    const struct blob *blob = lease->blob;
    uint64_t bytes = segment_bytes(blob);
    const struct lease *next = next_granted(transfer, blob, lease->segment + 1);
    while (next != NULL && bytes + segment_bytes(blob) <= bytes_max) {
        uint32_t next_first, next_last;
        if (!transfer__segment_due(transfer, next, &next_first, &next_last) ||
            next_first != last + 1 || next->holder != NODE_NONE || next->reason != lease->reason)
            break;
        last = next_last;
        bytes += segment_bytes(blob);
        next = next_granted(transfer, blob, next->segment + 1);
    }
    return last;
}

static void start_run(struct transfer *transfer, struct lease *lease, uint32_t first, uint32_t last,
                      uint32_t bytes_max)
{
    struct blob *blob = lease->blob;
    last = extend_run(transfer, lease, last, bytes_max);
    uint32_t first_segment = lease->segment, last_segment = segment_of(&blob->layout, last);
    struct fetch *fetch = fetch_add(transfer, blob, first, last - first + 1, lease->reason);
    struct lease *each = transfer->leases;
    while (each != NULL) {
        struct lease *next = each->next;
        if (each->blob == blob && each->state == LEASE_GRANTED && each->segment >= first_segment &&
            each->segment <= last_segment && each->holder == NODE_NONE) {
            if (fetch != NULL) {
                transfer__lease_move(each, LEASE_FETCHING);
                each->fetch = fetch;
            } else {
                transfer__lease_fail(transfer, each, 0);
            }
        }
        each = next;
    }
}

/* All that is missing is at neighbours by now: asking them is better. */
static bool is_superfluous(const struct blob *blob, const struct lease *lease, uint32_t first,
                           uint32_t last)
{
    const struct swarm *swarm = blob->swarm;
    if (lease->reason != FETCH_LEASE && lease->reason != FETCH_ALONE)
        return false;
    for (uint32_t piece = first; piece <= last; piece++) {
        if (!bitfield_get(&blob->have, piece) && swarm->avail[piece] == 0)
            return false;
    }
    return true;
}

/* Providers may still be named, or a neighbour with everything still be greeting. */
static bool is_gated(const struct transfer *transfer, const struct swarm *swarm)
{
    if (swarm->locating && transfer->now_us < swarm->gate_us)
        return true;
    if (!swarm->near_whole || transfer->now_us - swarm->started_us > NEAR_WHOLE_US)
        return false;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (swarm->neighbours[i].state == NEIGHBOUR_ASKED)
            return true;
    }
    return false;
}

/* Begins with one granted lease, or lets it wait. */
static void begin(struct transfer *transfer, struct lease *lease, bool gated)
{
    struct blob *blob = lease->blob;
    uint32_t first, last;
    if (!transfer__segment_due(transfer, lease, &first, &last) ||
        is_superfluous(blob, lease, first, last)) {
        transfer__lease_fail(transfer, lease, 0);
        return;
    }
    if (gated && lease->reason == FETCH_LEASE)
        return;
    if (lease->holder == NODE_NONE) {
        lease->holder = pick_remote(transfer, lease);
        lease->by_record = lease->holder != NODE_NONE;
    }
    if (lease->holder != NODE_NONE) {
        start_import(transfer, lease);
        return;
    }
    bool solo = transfer__is_solo(transfer, blob);
    if (solo ? is_gathering(transfer, blob) : awaits_next(transfer, lease))
        return;
    if (is_fallback(lease->reason) && transfer->fallbacks >= transfer->config.fallbacks_max)
        return;
    start_run(transfer, lease, first, last, solo ? blob->swarm->run_bytes : crowd_bytes(blob));
}

void transfer__runs_begin(struct transfer *transfer, struct blob *blob)
{
    bool gated = is_gated(transfer, blob->swarm);
    uint32_t from = 0;
    struct lease *lease = next_granted(transfer, blob, from);
    while (lease != NULL) {
        from = lease->segment + 1;
        begin(transfer, lease, gated);
        lease = next_granted(transfer, blob, from);
    }
}

uint64_t transfer__runs_deadline(struct transfer *transfer)
{
    uint64_t deadline_us = UINT64_MAX;
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        const struct swarm *swarm = lease->blob->swarm;
        uint64_t at_us = UINT64_MAX;
        if (lease->state == LEASE_GRANTED && swarm->locating && swarm->gate_us > transfer->now_us)
            at_us = swarm->gate_us;
        else if (lease->state < LEASE_GRANTED && transfer->now_us < lease->asked_us + GATHER_US)
            at_us = lease->asked_us + GATHER_US;
        if (at_us < deadline_us)
            deadline_us = at_us;
    }
    bool waits = transfer->lease_backoff_us > transfer->now_us && transfer->active != NULL;
    if (waits && transfer->lease_backoff_us < deadline_us)
        deadline_us = transfer->lease_backoff_us;
    return deadline_us;
}

/* ---- how reads end ---- */

static void end_leases(struct transfer *transfer, struct fetch *fetch, int status)
{
    struct lease *lease = transfer->leases;
    while (lease != NULL) {
        struct lease *next = lease->next;
        if (lease->fetch == fetch && lease->state == LEASE_FETCHING) {
            int why = lease->failed && status == 0 ? E_ORIGIN : status;
            lease->fetch = NULL;
            transfer__lease_fail(transfer, lease, why);
            next = transfer->leases; /* a refusal drops others, too */
        }
        lease = next;
    }
}

static bool has_failed_lease(const struct transfer *transfer, const struct fetch *fetch)
{
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->fetch == fetch && lease->state == LEASE_FETCHING && lease->failed)
            return true;
    }
    return false;
}

static void grow_run(struct transfer *transfer, struct swarm *swarm)
{
    (void)transfer;
    swarm->run_bytes = swarm->run_bytes < RUN_BYTES_MAX / 2 ? 2 * swarm->run_bytes : RUN_BYTES_MAX;
}

static void pause_origin(struct transfer *transfer, struct swarm *swarm, uint32_t retry_after_ms)
{
    if (retry_after_ms == 0)
        return;
    uint64_t pause_ms = retry_after_ms > ORIGIN_PAUSE_MAX_MS ? ORIGIN_PAUSE_MAX_MS : retry_after_ms;
    uint64_t jitter_ms = prng_below(&transfer->prng, pause_ms / 4 + 1);
    swarm->origin_pause_us = transfer->now_us + (pause_ms + jitter_ms) * MS;
}

/* The registry's own part of it is the least of late: the rest is our link, and would grow with
 * what is read at a time. */
static void note_first_byte(const struct transfer *transfer, struct swarm *swarm,
                            const struct fetch *fetch)
{
    uint64_t took_us = transfer->now_us - fetch->started_us + 1;
    uint64_t least_us = swarm->first_byte_us + swarm->first_byte_us / FIRST_BYTE_RISE;
    swarm->first_byte_us =
        (uint32_t)(swarm->first_byte_us == 0 || took_us < least_us ? took_us : least_us);
}

void transfer_fetch_progress(struct transfer *transfer, uint64_t now_us, uint64_t fetch_id,
                             uint64_t bytes_so_far)
{
    transfer__enter(transfer, now_us);
    for (struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next) {
        if (fetch->id != fetch_id || bytes_so_far <= fetch->bytes)
            continue;
        struct swarm *swarm = fetch->blob != NULL ? fetch->blob->swarm : NULL;
        if (swarm != NULL && fetch->bytes == 0)
            note_first_byte(transfer, swarm, fetch);
        if (swarm != NULL)
            swarm->progress_us = transfer->now_us;
        fetch->bytes = bytes_so_far;
        fetch->progress_us = transfer->now_us;
    }
    transfer__leave(transfer);
}

void transfer_fetch_end(struct transfer *transfer, uint64_t now_us, uint64_t fetch_id, int status,
                        uint32_t retry_after_ms)
{
    transfer__enter(transfer, now_us);
    struct fetch *fetch = transfer->fetches;
    while (fetch != NULL && (fetch->id != fetch_id || fetch->ended))
        fetch = fetch->next;
    if (fetch == NULL) {
        transfer__leave(transfer);
        return;
    }
    if (is_fallback(fetch->reason)) {
        ASSERT(transfer->fallbacks > 0);
        transfer->fallbacks--;
    }
    struct swarm *swarm = fetch->blob == NULL ? NULL : fetch->blob->swarm;
    fetch->ended = true;
    fetch->progress_us = transfer->now_us;
    if (swarm != NULL) {
        pause_origin(transfer, swarm, retry_after_ms);
        if (status == 0)
            grow_run(transfer, swarm);
    }
    if (status != 0 || fetch->cancelled || has_failed_lease(transfer, fetch))
        end_leases(transfer, fetch, fetch->cancelled ? 0 : status);
    if (!has_open_lease(transfer, fetch))
        fetch_remove(transfer, fetch);
    transfer__touch(transfer);
    transfer__leave(transfer);
}

/* The time a read of one segment for a crowd will have taken, going on as it did, if it is known to
 * take longer than those of others; 0: it is not. */
static uint64_t late_read_us(const struct transfer *transfer, const struct fetch *fetch)
{
    const struct blob *blob = fetch->blob;
    if (fetch->ended || blob == NULL || blob->swarm == NULL || fetch->reason != FETCH_LEASE ||
        fetch->count > blob->layout.segment_pieces)
        return 0;
    uint64_t mean_us = transfer__mesh_took_us(blob->swarm);
    uint64_t age_us = transfer->now_us - fetch->started_us;
    uint64_t total = (uint64_t)fetch->count * blob->layout.piece_bytes;
    uint64_t bytes = fetch->bytes > 0 ? fetch->bytes : 1;
    /* Nobody else would take it. */
    if (transfer__wanting(blob->swarm) == 0 || blob->layout.cut == PIECE_CUT_FINE)
        return 0;
    /* A registry is rarely nearer than they are: young connections begin slowly (4 nodes, 100 ms
     * round trips: three in a row handed the last segment back, 4.6 s instead of 2.8). */
    uint64_t least_us = LATE_LEASE_US + 2 * transfer__far_rounds_us(blob->swarm);
    if (mean_us == 0 || age_us < least_us || age_us < 2 * mean_us)
        return 0;
    return age_us * total / bytes;
}

/* This read lags far behind those of others: another node gets it. One read says little of the
 * node, as connections share a full link unevenly: only a slow node asks for none for a while. */
static void hand_back_if_late(struct transfer *transfer, struct fetch *fetch)
{
    const struct swarm *swarm = fetch->blob->swarm;
    uint64_t mean_us = transfer__mesh_took_us(swarm);
    uint64_t whole_us = late_read_us(transfer, fetch);
    uint64_t age_us = transfer->now_us - fetch->started_us;
    /* Another would need the mean anew. */
    if (whole_us == 0 || whole_us < LATE_FACTOR * mean_us || whole_us - age_us < 2 * mean_us)
        return;
    transfer__fetch_cancel(transfer, fetch);
    if (transfer__is_slow_node(swarm))
        transfer__leases_pause(transfer);
    else
        transfer->lease_backoff_us = transfer->now_us + HAND_BACK_US;
}

/* Others came while a long run is being read: if it would take long yet, its rest is shared. */
static void split_if_long(struct transfer *transfer, struct fetch *fetch)
{
    struct blob *blob = fetch->blob;
    uint64_t total = (uint64_t)fetch->count * blob->layout.piece_bytes;
    uint64_t age_us = transfer->now_us - fetch->started_us;
    if (fetch->reason != FETCH_LEASE || total <= RUN_BYTES_MIN || fetch->bytes == 0 ||
        fetch->bytes >= total || age_us == 0 || !transfer__crowd(transfer, blob))
        return;
    blob->swarm->run_bytes = RUN_BYTES_MIN;
    uint64_t left_us = (total - fetch->bytes) * age_us / fetch->bytes;
    if (left_us > SPLIT_US)
        transfer__fetch_cancel(transfer, fetch);
}

void transfer__fetches_tick(struct transfer *transfer)
{
    struct fetch *fetch = transfer->fetches;
    while (fetch != NULL) {
        struct fetch *next = fetch->next;
        /* Without a swarm nobody here wants it any more, and all its leases are settled. */
        if (!fetch->ended && fetch->blob != NULL && fetch->blob->swarm != NULL) {
            split_if_long(transfer, fetch);
            hand_back_if_late(transfer, fetch);
        }
        bool late = transfer->now_us - fetch->progress_us > VERIFY_US;
        if (fetch->ended && (late || !has_open_lease(transfer, fetch))) {
            end_leases(transfer, fetch, E_TIMEOUT);
            fetch_remove(transfer, fetch);
        }
        fetch = next;
    }
}
