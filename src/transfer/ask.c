/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which segments to ask for, and how many at a time.
 *
 * In a crowd one at random among the first few that the zone lacks, and a measured budget keeps
 * slow nodes from taking leases (ALGORITHMS §3.3 rule 3). With nobody else interested they are
 * asked for in order, so that a lone pull is as fast as one without a mesh.
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
/* A registry's first byte may take long, and a read that waits for it takes none of the link: as
 * many leases more, but at most so many, as come at twice the own rate in that time. 8 of 1 MiB are
 * 53 MB/s at 150 ms: 2, 3, 5 nodes at 1 Gbit/s, 4 x 64 MiB within 1 s took 5.0, 5.0, 4.7 s,
 * now 3.1, 2.9, 2.9 (a node alone 2.6); at 50 ms 2.8, now 2.4. */
#define WAITING_LEASES_MAX 24
#define LONG_WAIT_US       (30 * MS)
/* Imports of this node at a time, but one for so many segments of a brief blob: of 4 MiB one node
 * imported half, and gave each piece of it to everybody (1,000 nodes, most / mean uploaded 3.4-3.7,
 * p99 3.83, means of eight seeds; then 3.0, 3.60). */
#define IMPORTS_MAX     2
#define IMPORT_SEGMENTS 8
/* But so many, shared with neighbours that pull: each costs three round trips over the border, and
 * with two the first of a zone to pull was held up by those (20 nodes in 2 zones, one after the
 * other; 1 Gbit/s, 2 x 256 MiB: 5.8 s, then 4.5; 10 Gbit/s, 2 GiB 3.3 s, then 2.3). */
#define IMPORTS_SHARED 16
/* Of a brief blob only who has been the only one for so long: in a crowd others are known by then
 * (1,000 nodes, 16 MiB, p99: 1.55, with the share of a young crowd 1.76). */
#define ONLY_ONE_US (30 * MS)
/* The first of a crowd hears of nobody: it takes no more than its share for so long. */
#define SOLO_US (15 * MS)
/* What is under lease without company comes in so long. */
#define SOLO_SPAN_US (500 * MS)
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
/* A read that has brought nothing for so long takes no room on the way from the origin: it keeps
 * no other blob waiting (20 MiB behind 8 blobs of another registry, which is silent: 5.3 s, then
 * 0.4-1.4; alone 0.3). */
#define SILENT_READ_US (500 * MS)
/* Of two nodes, one that can get so much from the other takes no lease. */
#define SUPPLIED_US (100 * MS)
/* Of a fine cut, in multiples of what a pull may have: a read of 1 MiB takes three, and several are
 * answered at a time. */
#define FINE_LEASES 4

bool transfer__is_solo(struct transfer *transfer, const struct blob *blob)
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
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next)
        used += uses_budget(lease) && lease->blob == blob;
    return used;
}

static bool is_silent(const struct transfer *transfer, const struct lease *lease)
{
    return lease->fetch != NULL && transfer->now_us - lease->fetch->progress_us > SILENT_READ_US;
}

/* What `blob` waits behind: its own leases, and those of others that bring something, except of
 * blobs that wait behind this one. */
static uint32_t budget_before(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t used = 0;
    bool behind = transfer__is_behind(transfer, blob);
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (!uses_budget(lease))
            continue;
        bool before = behind || !transfer__is_behind(transfer, lease->blob);
        used += lease->blob == blob || (before && !is_silent(transfer, lease));
    }
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

/* What comes at twice the own rate, so that it can grow, until a read's first byte; 0 if that is
 * soon. */
static uint64_t waiting_bytes(const struct transfer *transfer, const struct blob *blob)
{
    uint64_t wait_us = blob->swarm->first_byte_us;
    return wait_us < LONG_WAIT_US ? 0 : 2 * transfer__rate_best(transfer) * wait_us / S;
}

/* Leases on top of the others, whose reads wait for their first byte. */
static uint32_t waiting_leases(const struct transfer *transfer, const struct blob *blob)
{
    uint64_t count = waiting_bytes(transfer, blob) / segment_bytes(blob);
    return (uint32_t)(count < WAITING_LEASES_MAX ? count : WAITING_LEASES_MAX);
}

/* How far ahead of what the zone has leases are taken: this bounds how many are out at a time. Too
 * many share the origin's rate and all come late; too few leave it idle. */
static uint32_t lease_window(const struct transfer *transfer, const struct blob *blob)
{
    if (transfer__is_behind(transfer, blob))
        return WINDOW_BEHIND;
    if (blob->swarm->far_us > 0) /* reads are long for round trips, not for want of rate */
        return WINDOW_MAX;
    uint32_t window = blob->layout.segment_count / 6;
    uint32_t least = leases_are_quick(transfer, blob->swarm) ? WINDOW_QUICK : WINDOW_MIN;
    window = window < least ? least : window > WINDOW_MAX ? WINDOW_MAX : window;
    return window + waiting_leases(transfer, blob);
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

uint32_t transfer__wanting(const struct swarm *swarm)
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
    uint32_t share = lease_window(transfer, blob) / (1 + transfer__wanting(blob->swarm)) + 1;
    uint32_t most = transfer->lease_budget + waiting_leases(transfer, blob);
    return share < most ? share : most;
}

/* What is on its way already keeps our link busy: another node would bring a segment in sooner. */
static bool link_is_busy(struct transfer *transfer, const struct blob *blob)
{
    uint64_t used = budget_before(transfer, blob);
    uint64_t rate = transfer__rate_best(transfer);
    uint64_t coming = transfer->inflight_bytes + used * segment_bytes(blob);
    uint64_t span_us = BUSY_LINK_US + transfer__far_rounds_us(blob->swarm);
    if (blob->swarm->first_byte_us >= LONG_WAIT_US)
        span_us += blob->swarm->first_byte_us;
    return used > 0 && rate > 0 && coming > rate * span_us / S;
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

static uint32_t imports_max(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t wanting = transfer__wanting(blob->swarm), share = IMPORTS_SHARED / (1 + wanting);
    bool only_one = wanting == 0 && transfer->now_us - blob->swarm->started_us >= ONLY_ONE_US;
    if (transfer__is_brief(transfer, blob) && !only_one)
        return blob->layout.segment_count < IMPORTS_MAX * IMPORT_SEGMENTS ? 1 : IMPORTS_MAX;
    return share > IMPORTS_MAX ? share : IMPORTS_MAX;
}

/* What is read in fine pieces is all that clients wait for, and little of each segment: nothing is
 * gained by leaving it to others, and how fast it came before says how much was asked for, not what
 * the way from the origin has room for (8 nodes, 4 readers each: mean of a read 216 ms with a
 * pull's budget, 122-196 without). */
static bool has_fine_budget(const struct transfer *transfer, const struct blob *blob)
{
    return budget_before(transfer, blob) < FINE_LEASES * transfer->config.leases_max &&
           transfer->lease_backoff_us <= transfer->now_us;
}

/* Bytes under lease at a time without company: as runs have grown, but no more than comes in
 * SOLO_SPAN_US. A layer that grew its runs early had 20 reads out over a link of 40 Mbit/s, and one
 * of 5 MiB beside it none: its client got no byte for 4 s. */
static uint64_t solo_room(struct transfer *transfer, const struct blob *blob)
{
    uint64_t room = 2 * (uint64_t)blob->swarm->run_bytes;
    uint64_t waiting = 2 * waiting_bytes(transfer, blob);
    uint64_t rate = transfer__rate_best(transfer);
    if (rate > 0 && room > rate * SOLO_SPAN_US / S)
        room = rate * SOLO_SPAN_US / S;
    return waiting > 2 * room ? waiting : room; /* reads may wait for longer than they flow */
}

static bool has_budget(struct transfer *transfer, const struct blob *blob, bool solo)
{
    if (blob->layout.cut == PIECE_CUT_FINE && !solo)
        return has_fine_budget(transfer, blob);
    uint32_t used = budget_before(transfer, blob);
    if (!solo) /* what is cheap to find out first */
        return transfer->lease_pause_us <= transfer->now_us &&
               transfer->lease_backoff_us <= transfer->now_us &&
               imports(transfer) < imports_max(transfer, blob) && !link_is_busy(transfer, blob) &&
               used < fair_leases(transfer, blob) && !is_supplied(transfer);
    /* One in any case: a segment may be longer than what the first run is to be, and another blob
     * may have all the room. */
    uint64_t leased = (uint64_t)used * segment_bytes(blob);
    return budget_used(transfer, blob) == 0 ||
           leased + segment_bytes(blob) <= solo_room(transfer, blob);
}

static bool ask_one(struct transfer *transfer, struct blob *blob)
{
    uint32_t segment;
    if (blob->swarm->absent.set_count == 0 || !transfer__can_fetch(transfer, blob))
        return false;
    /* A node that leaves has no leases: what others bring in comes from them. */
    if (transfer->draining && transfer__crowd(transfer, blob))
        return false;
    bool solo = transfer__is_solo(transfer, blob);
    if (!has_budget(transfer, blob, solo) || !pick_segment(transfer, blob, solo, &segment))
        return false;
    return transfer__lease_ask(transfer, blob, segment);
}

/* Of the blobs that wait behind others, the one that was begun first and can use it gets a lease,
 * if this node has none: what clients wait for shall not share the origin with much else. */
static void ask_behind(struct transfer *transfer)
{
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        if (blob->swarm->readers > 0 && transfer__is_behind(transfer, blob) &&
            budget_before(transfer, blob) == 0 && ask_one(transfer, blob))
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

void transfer__leases_pause(struct transfer *transfer)
{
    if (transfer->lease_pause_us > transfer->now_us)
        return; /* reads that were under way when it began say nothing new */
    uint32_t pause_us = transfer->lease_slow_us == 0 ? SLOW_PAUSE_US : 2 * transfer->lease_slow_us;
    transfer->lease_slow_us = pause_us > SLOW_PAUSE_MAX_US ? SLOW_PAUSE_MAX_US : pause_us;
    transfer->lease_pause_us = transfer->now_us + transfer->lease_slow_us;
    transfer->lease_budget = 1;
}

bool transfer__is_slow_node(const struct swarm *swarm)
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
                2 * took_us > 5 * (uint64_t)transfer__mesh_lease_us(swarm) &&
                transfer__is_slow_node(swarm);
    if (slow)
        transfer__leases_pause(transfer);
    else
        transfer->lease_slow_us = 0;
    return slow;
}

void transfer__lease_done(struct transfer *transfer, struct lease *lease)
{
    struct swarm *swarm = lease->blob->swarm;
    if (transfer__is_solo(transfer, lease->blob) || lease->blob->layout.cut == PIECE_CUT_FINE)
        return; /* what took how long says nothing of the next one (has_fine_budget) */
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
        transfer__runs_begin(transfer, blob);
}

void transfer__lease_neighbour(struct transfer *transfer, struct blob *blob)
{
    (void)blob;
    transfer__touch(transfer);
}
