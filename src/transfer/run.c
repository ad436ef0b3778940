/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which segments to bring in, how many at a time, and how: reads from the origin in runs, imports
 * from other zones.
 *
 * With others interested a run is one segment, chosen at random among the first few that the zone
 * lacks, and a measured budget keeps slow nodes from taking leases (ALGORITHMS §3.3 rule 3). With
 * nobody else interested runs are long and in order, so that a lone pull is as fast as one without
 * a mesh.
 */
#include "lease.h"

/* Segments from which a crowd chooses; see lease_window. */
#define WINDOW_MAX 32
#define WINDOW_MIN 8
/* Where leases come this soon the origin has room, and a small blob is not to wait for windows of
 * eight one after the other (200 nodes, 64 MiB, p99: 1.55 with eight, 1.38 with 24). For a slow
 * origin 24 are too many (16 nodes, 100 Mbit/s: 1.21, then 1.30). */
#define WINDOW_QUICK   24
#define QUICK_LEASE_US (100 * MS)
/* Of a blob that waits behind what clients wait for: with more those are slowed (16 nodes, 12
 * layers of 8 MiB one at a time: the third after 4.8 s instead of 3.3), with fewer the whole is. */
#define WINDOW_BEHIND 4
/* Imports of this node at a time. */
#define IMPORTS_MAX   2
#define RUN_BYTES_MIN (4u * 1024 * 1024)
#define RUN_BYTES_MAX (16u * 1024 * 1024)
/* The first of a crowd hears of nobody: it takes no more than its share for so long. */
#define SOLO_US (15 * MS)
/* Leases of a run are asked for together; their answers are awaited so long to make one read. */
#define GATHER_US (10 * MS)
/* A neighbour that has it all may still be greeting. */
#define NEAR_WHOLE_US (200 * MS)
/* Pieces that exist in the zone, but not at our neighbours, are asked for after this. */
#define STARVED_US (200 * MS)
/* A lease 2.5 times slower than the mesh's mean, and above this, makes a node pause (rule 3). */
#define SLOW_LEASE_US     (100 * MS)
#define SLOW_PAUSE_US     (5u * S)
#define SLOW_PAUSE_MAX_US (60u * S)
#define BACKOFF_US        (10 * MS)
/* No second lease while this much time's worth of bytes is on its way (0.2-0.6 s: little
 * difference; without: 1.12 against 1.08 for 8 nodes at a slow origin). */
#define BUSY_LINK_US      (200 * MS)
#define BACKOFF_SHIFT_MAX 4
/* Of two nodes, one that can get so much from the other takes no lease. */
#define SUPPLIED_US (100 * MS)
/* A read for a crowd older than this and twice what others need, that will have taken so many times
 * what they need, is handed back (rule 7: relative to others only, a slow origin is slow for all).
 */
#define LATE_LEASE_US (500 * MS)
#define LATE_FACTOR   4
#define HAND_BACK_US  (300 * MS) /* others are to have the segment that was handed back */
/* A long run is split when others come and it would hold them up for longer than this. */
#define SPLIT_US (1 * S)
/* Verification of the last pieces may lag behind the end of a read. */
#define VERIFY_US           (10 * S)
#define ORIGIN_PAUSE_MAX_MS 60000u

bool transfer__segment_missing(const struct blob *blob, uint32_t segment, uint32_t *first,
                               uint32_t *last)
{
    uint32_t begin = segment_first(&blob->layout, segment);
    uint32_t end = begin + segment_length(&blob->layout, segment);
    bool any = false;
    for (uint32_t piece = begin; piece < end; piece++) {
        if (bitfield_get(&blob->have, piece) ||
            (blob->swarm != NULL && (blob->swarm->flags[piece] & PIECE_PASSED) != 0))
            continue;
        if (!any)
            *first = piece;
        *last = piece;
        any = true;
    }
    return any;
}

/* Somebody reads on through this segment, so all of it is brought in. A read of a range alone asks
 * for what it touches: else a few KiB here and there would cost the origin a segment each. */
static bool is_read_whole(const struct transfer *transfer, const struct blob *blob,
                          uint32_t segment)
{
    uint32_t begin = segment_first(&blob->layout, segment);
    uint32_t end = begin + segment_length(&blob->layout, segment);
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next) {
        if (reader->blob == blob && reader->mode != TRANSFER_READ_RANGE && reader->at < end &&
            reader->end > begin)
            return true;
    }
    return false;
}

/* A range reader wants it, and it is not here. */
static bool is_wanting(const struct blob *blob, uint32_t piece)
{
    uint8_t flags = blob->swarm->flags[piece];
    return (flags & PIECE_WANTED) != 0 && (flags & PIECE_PASSED) == 0 &&
           !bitfield_get(&blob->have, piece);
}

static bool segment_wanted(const struct transfer *transfer, const struct blob *blob,
                           uint32_t segment, uint32_t *first, uint32_t *last)
{
    if (is_read_whole(transfer, blob, segment))
        return transfer__segment_missing(blob, segment, first, last);
    uint32_t piece = segment_first(&blob->layout, segment);
    uint32_t end = piece + segment_length(&blob->layout, segment);
    while (piece < end && !is_wanting(blob, piece))
        piece++;
    if (piece == end)
        return false;
    *first = *last = piece;
    while (*last + 1 < end && is_wanting(blob, *last + 1))
        ++*last;
    return true;
}

/* What is to be read of a segment: of what ranges want neighbours may have a part by now. */
static bool segment_due(const struct transfer *transfer, const struct lease *lease, uint32_t *first,
                        uint32_t *last)
{
    const struct blob *blob = lease->blob;
    if (!segment_wanted(transfer, blob, lease->segment, first, last))
        return false;
    if (is_read_whole(transfer, blob, lease->segment) ||
        (lease->reason != FETCH_LEASE && lease->reason != FETCH_ALONE))
        return true;
    uint32_t end = segment_first(&blob->layout, lease->segment) +
                   segment_length(&blob->layout, lease->segment);
    while (*first < end && (!is_wanting(blob, *first) || blob->swarm->avail[*first] > 0))
        ++*first;
    if (*first == end)
        return false;
    *last = *first;
    while (*last + 1 < end && is_wanting(blob, *last + 1) && blob->swarm->avail[*last + 1] == 0)
        ++*last;
    return true;
}

bool transfer__lease_missing(const struct transfer *transfer, const struct lease *lease,
                             uint32_t *first, uint32_t *last)
{
    const struct blob *blob = lease->blob;
    if (lease->state == LEASE_IMPORTING && lease->whole)
        return transfer__segment_missing(blob, lease->segment, first, last);
    if (lease->state != LEASE_FETCHING)
        return segment_wanted(transfer, blob, lease->segment, first, last);
    uint32_t piece = segment_first(&blob->layout, lease->segment);
    uint32_t end = piece + segment_length(&blob->layout, lease->segment);
    if (piece < lease->fetch->first)
        piece = lease->fetch->first;
    if (end > lease->fetch->first + lease->fetch->count)
        end = lease->fetch->first + lease->fetch->count;
    while (piece < end &&
           (bitfield_get(&blob->have, piece) || (blob->swarm->flags[piece] & PIECE_PASSED) != 0))
        piece++;
    *first = piece;
    *last = end - 1;
    return piece < end;
}

static uint32_t segment_bytes(const struct blob *blob)
{
    return blob->layout.segment_pieces * blob->layout.piece_bytes;
}

/* Nobody else pulls it, as far as is known: leases may be taken in long runs. */
static bool is_solo(struct transfer *transfer, const struct blob *blob)
{
    if (transfer->draining || transfer__live(transfer) <= 1 || transfer->mesh_quiet_us != 0)
        return true;
    return blob->swarm->peers_known && !transfer__crowd(transfer, blob) &&
           transfer->now_us - blob->swarm->started_us >= SOLO_US;
}

/* ---- choosing ---- */

/* Imports are requests to other nodes, bounded as such: counted as reads they would leave the
 * origin to the zone that happens to be ahead, and that zone alone. */
static bool uses_budget(const struct lease *lease)
{
    return lease->state != LEASE_WAITING && lease->state != LEASE_HELD &&
           lease->state != LEASE_IMPORTING;
}

static uint32_t imports(const struct transfer *transfer)
{
    uint32_t count = 0;
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next)
        count += lease->state == LEASE_IMPORTING;
    return count;
}

static uint32_t budget_used(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t used = 0;
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (uses_budget(lease) && (blob == NULL || lease->blob == blob))
            used++;
    }
    return used;
}

/* Of all blobs but those that wait behind this one. */
static uint32_t budget_before(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t used = 0;
    bool behind = transfer__is_behind(transfer, blob);
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next)
        used += uses_budget(lease) && (behind || !transfer__is_behind(transfer, lease->blob));
    return used;
}

/* Leases are known to come soon: more of them at a time share nothing that is scarce. With few
 * nodes they would wait behind what else these get. */
static bool leases_are_quick(const struct transfer *transfer, const struct swarm *swarm)
{
    uint32_t took_us = transfer__mesh_took_us(swarm);
    if (took_us == 0)
        took_us = swarm->took_us;
    return took_us != 0 && took_us <= QUICK_LEASE_US && transfer->nodes.live >= MESH_SMALL_MEMBERS;
}

/* How far ahead of what the zone has leases are taken: this bounds how many are out at a time. Too
 * many share the origin's rate and all come late; too few leave it idle. */
static uint32_t lease_window(const struct transfer *transfer, const struct blob *blob)
{
    if (transfer__is_behind(transfer, blob))
        return WINDOW_BEHIND;
    uint32_t window = blob->layout.segment_count / 6;
    uint32_t least = leases_are_quick(transfer, blob->swarm) ? WINDOW_QUICK : WINDOW_MIN;
    if (window < least)
        return least;
    return window > WINDOW_MAX ? WINDOW_MAX : window;
}

static bool may_ask_segment(const struct transfer *transfer, const struct blob *blob,
                            uint32_t segment)
{
    uint64_t age_ms = (transfer->now_us - blob->swarm->started_us) / MS;
    return blob->swarm->retry_ms[segment] <= age_ms &&
           transfer__lease_find(transfer, blob, segment) == NULL;
}

/* The next open piece from `from` on that no neighbour has; bit_count if there is none. `injected`:
 * also those said to be in the zone. */
static uint32_t next_absent(const struct swarm *swarm, uint32_t from, bool injected)
{
    if (injected || swarm->repairs)
        return bitfield_next_set(&swarm->absent, from);
    return bitfield_next_only(&swarm->absent, &swarm->injected, from);
}

/* Fills `out` with those that may be asked for, of the first `window` absent ones. */
static uint32_t absent_segments(const struct transfer *transfer, const struct blob *blob,
                                bool injected, uint32_t window, uint32_t out[WINDOW_MAX])
{
    const struct swarm *swarm = blob->swarm;
    uint32_t seen = budget_used(transfer, blob), count = 0;
    uint32_t next = 0;
    while (next < swarm->absent.bit_count && seen < window) {
        uint32_t piece = next_absent(swarm, next, injected);
        if (piece == swarm->absent.bit_count)
            break;
        uint32_t segment = segment_of(&blob->layout, piece);
        seen++;
        if (count < WINDOW_MAX && may_ask_segment(transfer, blob, segment))
            out[count++] = segment;
        next = segment_first(&blob->layout, segment) + segment_length(&blob->layout, segment);
    }
    return count;
}

static bool is_starved(const struct transfer *transfer, const struct swarm *swarm)
{
    bool idle = transfer->now_us - swarm->working_us > STARVED_US;
    bool stuck = swarm->front < swarm->open.bit_count && swarm->avail[swarm->front] == 0 &&
                 transfer->now_us - swarm->front_us > STARVED_US;
    return idle || stuck;
}

/* Puts those first that this node keeps itself; their number, or of all if there are none. */
static uint32_t prefer_own(struct transfer *transfer, const struct blob *blob,
                           uint32_t segments[WINDOW_MAX], uint32_t count)
{
    uint8_t key[32];
    uint32_t own = 0;
    for (uint32_t i = 0; i < count; i++) {
        segment_key_of(&blob->info.key, segments[i], key);
        if (transfer__keeps(transfer, key))
            segments[own++] = segments[i];
    }
    return own > 0 ? own : count;
}

/* The next segment to ask for; false if there is none. In a small mesh nodes begin with those they
 * keep: no two ask for the same, and the answer takes no time (4 and 10 nodes, 128 MiB at once:
 * last 1.17 and 1.27 s, then 1.13 and 1.17; a node alone takes 1.10). */
static bool pick_segment(struct transfer *transfer, struct blob *blob, bool solo, uint32_t *out)
{
    uint32_t found[WINDOW_MAX];
    uint32_t window = solo ? LEASES_MAX : lease_window(transfer, blob);
    uint32_t count = absent_segments(transfer, blob, false, window, found);
    if (count == 0 && is_starved(transfer, blob->swarm))
        count = absent_segments(transfer, blob, true, LEASES_MAX, found);
    if (count == 0)
        return false;
    if (!solo && transfer->nodes.live < MESH_SMALL_MEMBERS)
        count = prefer_own(transfer, blob, found, count);
    *out = solo ? found[0] : found[prng_below(&transfer->prng, count)];
    return true;
}

/* Neighbours that pull. */
static uint32_t wanting(const struct swarm *swarm)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++)
        count += swarm->neighbours[i].state == NEIGHBOUR_UP && swarm->neighbours[i].wants;
    return count;
}

/* A node's share of the window: leases spread over those who pull, so that the first copies leave
 * from as many uplinks as possible. */
static uint32_t fair_leases(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t share = lease_window(transfer, blob) / (1 + wanting(blob->swarm)) + 1;
    return share < transfer->lease_budget ? share : transfer->lease_budget;
}

/* What is on its way already keeps our link busy: another node would bring a segment in sooner. */
static bool link_is_busy(struct transfer *transfer, const struct blob *blob)
{
    uint64_t used = budget_before(transfer, blob);
    uint64_t rate = transfer__rate_best(transfer);
    uint64_t coming = transfer->inflight_bytes + used * segment_bytes(blob);
    return used > 0 && rate > 0 && coming > rate * BUSY_LINK_US / S;
}

/* Of two nodes one is ahead, and the other's uplink is of little use to it: that one shall read the
 * origin at its full rate and the other take from it (one 0.3 s behind the other, 128 MiB: last
 * 1.20 s, then 1.12; more nodes need all uplinks: 5 in 3 zones 1.35, then 1.63). */
static bool is_supplied(const struct transfer *transfer)
{
    uint64_t bytes = transfer->inflight_bytes;
    uint64_t rate = transfer__rate_best(transfer);
    if (transfer->nodes.live != 2 || rate == 0)
        return false;
    for (const struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        bytes += (uint64_t)(blob->swarm->open.set_count - blob->swarm->absent.set_count) *
                 blob->layout.piece_bytes;
    return bytes > rate * SUPPLIED_US / S;
}

static bool has_budget(struct transfer *transfer, const struct blob *blob, bool solo)
{
    uint32_t used = budget_before(transfer, blob);
    if (!solo) /* what is cheap to find out first */
        return used < transfer->lease_budget && transfer->lease_pause_us <= transfer->now_us &&
               transfer->lease_backoff_us <= transfer->now_us && imports(transfer) < IMPORTS_MAX &&
               !link_is_busy(transfer, blob) && used < fair_leases(transfer, blob) &&
               !is_supplied(transfer);
    uint64_t leased = (uint64_t)used * segment_bytes(blob);
    return leased + segment_bytes(blob) <= 2 * (uint64_t)blob->swarm->run_bytes;
}

static bool ask_one(struct transfer *transfer, struct blob *blob)
{
    uint32_t segment;
    if (blob->swarm->absent.set_count == 0 || !transfer__can_fetch(transfer, blob))
        return false;
    bool solo = is_solo(transfer, blob);
    if (!has_budget(transfer, blob, solo) || !pick_segment(transfer, blob, solo, &segment))
        return false;
    return transfer__lease_ask(transfer, blob, segment);
}

/* Of the blobs that wait behind others, the one that was begun first and can use it gets a lease,
 * if this node has none: what clients wait for shall not share the origin with much else. */
static void ask_behind(struct transfer *transfer)
{
    if (budget_used(transfer, NULL) > 0)
        return;
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        if (blob->swarm->readers > 0 && transfer__is_behind(transfer, blob) &&
            ask_one(transfer, blob))
            return;
    }
}

/* Blobs take turns: interactive ones first, then whoever has the fewest leases, of these the one
 * that asked longest ago. */
static struct blob *next_blob(const struct transfer *transfer, uint64_t turn, bool interactive)
{
    struct blob *best = NULL;
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        if (blob->swarm->readers == 0 || blob->swarm->passed_turn == turn ||
            transfer__interactive(transfer, blob) != interactive)
            continue;
        const struct swarm *swarm = blob->swarm;
        if (best == NULL || swarm->leases < best->swarm->leases ||
            (swarm->leases == best->swarm->leases && swarm->lease_turn < best->swarm->lease_turn))
            best = blob;
    }
    return best;
}

static void ask_all(struct transfer *transfer)
{
    uint64_t turn = ++transfer->fill_turn;
    for (unsigned round = 0; round < 2; round++) {
        struct blob *blob = next_blob(transfer, turn, round == 0);
        while (blob != NULL) {
            if (!transfer__is_behind(transfer, blob) && ask_one(transfer, blob))
                blob->swarm->lease_turn = turn;
            else
                blob->swarm->passed_turn = turn;
            blob = next_blob(transfer, turn, round == 0);
        }
    }
    ask_behind(transfer);
}

static void repair_all(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    if (!swarm->repairs || !transfer__can_fetch(transfer, blob))
        return;
    swarm->repairs = false;
    for (uint32_t piece = bitfield_next_set(&swarm->open, 0); piece < swarm->open.bit_count;
         piece = bitfield_next_set(&swarm->open, piece + 1)) {
        if ((swarm->flags[piece] & PIECE_REPAIR) == 0)
            continue;
        swarm->repairs = true;
        (void)transfer__lease_take(transfer, blob, segment_of(&blob->layout, piece), FETCH_REPAIR);
    }
}

void transfer__lease_contended(struct transfer *transfer, struct blob *blob)
{
    (void)blob;
    uint32_t shift = transfer->lease_pending_runs;
    shift = shift < BACKOFF_SHIFT_MAX ? shift : BACKOFF_SHIFT_MAX;
    uint64_t wait_us = (uint64_t)BACKOFF_US << shift;
    transfer->lease_backoff_us =
        transfer->now_us + wait_us / 2 + prng_below(&transfer->prng, wait_us);
    transfer->lease_pending_runs++;
    transfer->lease_budget = transfer->lease_budget > 1 ? transfer->lease_budget / 2 : 1;
}

/* For a while, longer each time. */
static void pause_leases(struct transfer *transfer)
{
    uint32_t pause_us = transfer->lease_slow_us == 0 ? SLOW_PAUSE_US : 2 * transfer->lease_slow_us;
    transfer->lease_slow_us = pause_us > SLOW_PAUSE_MAX_US ? SLOW_PAUSE_MAX_US : pause_us;
    transfer->lease_pause_us = transfer->now_us + transfer->lease_slow_us;
    transfer->lease_budget = 1;
}

/* Our best rate is far from what others reach. */
static bool is_slow_node(const struct swarm *swarm)
{
    return 2 * (uint64_t)swarm->lease_us > 5 * (uint64_t)transfer__mesh_lease_us(swarm) &&
           transfer__mesh_lease_us(swarm) != 0;
}

/* A slow node would hold everybody up: it lets others take the leases for a while, longer each
 * time. Judged by rates, not by the time of one lease: that says more of what else came at the same
 * time. */
static bool pause_if_slow(struct transfer *transfer, const struct swarm *swarm, uint64_t took_us)
{
    bool slow = took_us > SLOW_LEASE_US &&
                2 * took_us > 5 * (uint64_t)transfer__mesh_lease_us(swarm) && is_slow_node(swarm);
    if (slow)
        pause_leases(transfer);
    else
        transfer->lease_slow_us = 0;
    return slow;
}

void transfer__lease_done(struct transfer *transfer, struct lease *lease)
{
    struct swarm *swarm = lease->blob->swarm;
    if (is_solo(transfer, lease->blob))
        return;
    uint64_t rate = transfer__rate_best(transfer);
    if (rate > 0)
        swarm->lease_us = transfer__mean(0, (uint64_t)segment_bytes(lease->blob) * S / rate);
    uint64_t took_us = transfer->now_us - lease->granted_us;
    swarm->took_us = transfer__mean(swarm->took_us, took_us);
    uint64_t best_us = swarm->lease_best_us + swarm->lease_best_us / 128;
    best_us = best_us == 0 || took_us < best_us ? took_us : best_us;
    swarm->lease_best_us = best_us;
    if (pause_if_slow(transfer, swarm, took_us))
        return;
    /* Close to the best: there is room on the way from the origin. Far from it: own pieces from
     * peers, or other leases, take the room, and another node would be faster. */
    if (took_us <= 2 * best_us) {
        if (transfer->lease_budget < transfer->config.leases_max)
            transfer->lease_budget++;
    } else if (took_us > 4 * best_us && transfer->lease_budget > 1) {
        transfer->lease_budget--;
    }
}

/* ---- imports ---- */

bool transfer__import(struct transfer *transfer, struct blob *blob, uint32_t segment,
                      uint16_t holder, uint8_t flags)
{
    const struct lease *lease = transfer__lease_find(transfer, blob, segment);
    bool whole = lease != NULL && lease->state == LEASE_IMPORTING
                     ? lease->whole
                     : is_read_whole(transfer, blob, segment);
    bool any = false;
    uint32_t first = segment_first(&blob->layout, segment);
    uint32_t end = first + segment_length(&blob->layout, segment);
    for (uint32_t piece = first; piece < end; piece++) {
        if (!whole && !is_wanting(blob, piece))
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
    lease->whole = is_read_whole(transfer, lease->blob, lease->segment);
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
    if (swarm->remote_count == 0 || transfer->config.copies != TRANSFER_COPIES_MESH ||
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
        if (!segment_due(transfer, next, &next_first, &next_last) || next_first != last + 1 ||
            next->holder != NODE_NONE || next->reason != lease->reason)
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
    if (!segment_due(transfer, lease, &first, &last) || is_superfluous(blob, lease, first, last)) {
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
    bool solo = is_solo(transfer, blob);
    if (solo && is_gathering(transfer, blob))
        return;
    if (is_fallback(lease->reason) && transfer->fallbacks >= transfer->config.fallbacks_max)
        return;
    start_run(transfer, lease, first, last, solo ? blob->swarm->run_bytes : segment_bytes(blob));
}

static void begin_all(struct transfer *transfer, struct blob *blob)
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

static void note_front(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    uint32_t front = transfer__front(transfer, blob);
    if (front != swarm->front || swarm->asked[front < swarm->open.bit_count ? front : 0] > 0) {
        swarm->front = front;
        swarm->front_us = transfer->now_us;
    }
}

void transfer__leases_pump(struct transfer *transfer)
{
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        struct swarm *swarm = blob->swarm;
        if (swarm->requests > 0 || swarm->leases > 0)
            swarm->working_us = transfer->now_us;
        if (swarm->readers > 0 && blob->layout.piece_count > 0)
            note_front(transfer, blob);
        repair_all(transfer, blob);
    }
    ask_all(transfer);
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        begin_all(transfer, blob);
}

void transfer__lease_neighbour(struct transfer *transfer, struct blob *blob)
{
    (void)blob;
    transfer__touch(transfer);
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

void transfer_fetch_progress(struct transfer *transfer, uint64_t now_us, uint64_t fetch_id,
                             uint64_t bytes_so_far)
{
    transfer__enter(transfer, now_us);
    for (struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next) {
        if (fetch->id != fetch_id || bytes_so_far <= fetch->bytes)
            continue;
        fetch->bytes = bytes_so_far;
        fetch->progress_us = transfer->now_us;
        if (fetch->blob != NULL && fetch->blob->swarm != NULL)
            fetch->blob->swarm->progress_us = transfer->now_us;
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
    if (wanting(blob->swarm) == 0)
        return 0;
    if (mean_us == 0 || age_us < LATE_LEASE_US || age_us < 2 * mean_us)
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
    if (is_slow_node(swarm))
        pause_leases(transfer);
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
