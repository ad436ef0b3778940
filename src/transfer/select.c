/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which piece to ask for next, and whom (ALGORITHMS §3.4). First the very next pieces of an
 * interactive reader, from the holder with the least expected wait. Then, of the neighbour with the
 * least expected wait, the rarest piece of the reader's window, or the rarest of all. Ties are
 * broken at random; a holder on this side of a zone border comes before one beyond it.
 */
#include "blob.h"

/* Pieces right at a reader are taken in order: it cannot go on without them. A tighter window costs
 * mixing. */
#define URGENT_PIECES  4
#define URGENT_WAIT_US (1 * S)
/* The same for the last part of a blob of many pieces, which is at most neighbours by then. What a
 * client lacks at its place when all the rest is here is read back and hashed in one go: 16 ms of a
 * pull of 1.8 s at 10 Gbit/s (300 nodes, 2 GiB: p50 1.070, then 1.059 with the last quarter; half
 * 1.049, then 1.043). */
#define LAST_PART          2u
#define URGENT_PIECES_LAST 64
/* A piece that this part of the neighbours has is common. */
#define COMMON_PART 3u
/* Requests to one neighbour: as many pieces as make up this, and as come in so long at the own
 * rate; but one that flows and one that waits. More would pile up at whoever has the rarest pieces.
 */
#define NEIGHBOUR_BYTES (4u * 1024 * 1024)
#define NEIGHBOUR_US    (60 * MS)
#define NEIGHBOUR_LEAST 2
/* As many of a far one: its connection is idle for a round trip else. */
#define NEIGHBOUR_FAR_LEAST 4
/* In a mesh of so few, as long as the rate is unknown, so many to all neighbours together: with two
 * a link to a single one was full to 84 %. */
#define FEW_MEMBERS     5
#define FIRST_REQUESTS  8
#define UNHEARD_US      (2500 * MS)
#define NEIGHBOURS_MANY 6
/* With fewer requests under way than this a node asks beyond a zone border for what others on its
 * side are to bring over, too. */
#define BORDER_IDLE 2
/* A holder that says to wait so long, longer by SPARE_MORE_US than another that can be asked, is
 * spared: not asked for what any such other has, for SPARE_US of a pull in all. With one request to
 * each neighbour all of those greeted were asked, however much they had given (1,000 nodes, 4 MiB,
 * most / mean uploaded 4.5-4.7, then 2.9-3.5). By swarm.c so long a wait means 1.8 copies given. */
#define SPARE_WAIT_US (1500 * MS)
#define SPARE_MORE_US (1 * S)
#define SPARE_US      (150 * MS)
/* But for the piece that a client has waited for for so long. */
#define SPARE_FRONT_US (20 * MS)
/* Whoever is on this side of the border is asked before those beyond it, however busy. */
#define BORDER_WAIT_US (3600 * (uint64_t)S)
/* With many neighbours one piece of this size each is enough to keep the link busy. */
#define NEIGHBOUR_ONE_BYTES (1u * 1024 * 1024)

/* Neighbours of whom one piece each is enough. Where more is in flight than usual that is all of
 * it: a fast node that joins has few neighbours for a good part of its pull, and each would be done
 * before it is asked again. */
static uint32_t many_neighbours(const struct transfer *transfer)
{
    uint32_t most = transfer__inflight_max(transfer);
    return transfer__has_many_pieces(transfer) ? most : NEIGHBOURS_MANY;
}

uint32_t transfer__neighbour_requests_max(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t most = (NEIGHBOUR_BYTES + blob->layout.piece_bytes - 1) / blob->layout.piece_bytes;
    uint64_t span_us = NEIGHBOUR_US + transfer__far_rounds_us(blob->swarm);
    uint64_t timed = transfer__rate_best(transfer) * span_us / S / blob->layout.piece_bytes;
    /* One each, if that is enough of them (the main rule for speed in ALGORITHMS §3.4). */
    uint64_t least =
        blob->swarm->neighbour_count >= many_neighbours(transfer) ? 1 : NEIGHBOUR_LEAST;
    uint32_t count = blob->swarm->neighbour_count;
    if (blob->swarm->far_us > 0 && least < NEIGHBOUR_FAR_LEAST)
        least = NEIGHBOUR_FAR_LEAST;
    if (transfer->nodes.live <= FEW_MEMBERS && transfer__rate_best(transfer) == 0 && count > 0 &&
        least * count < FIRST_REQUESTS)
        least = FIRST_REQUESTS / count;
    if (timed < least)
        timed = least;
    if (blob->layout.piece_bytes >= NEIGHBOUR_ONE_BYTES &&
        blob->swarm->neighbour_count >= NEIGHBOURS_MANY)
        return (uint32_t)least;
    return timed < most ? (uint32_t)timed : most;
}

/* Every neighbour is heard once a second: silent for longer, it may be dead. */
static bool is_heard(const struct transfer *transfer, const struct neighbour *neighbour)
{
    uint64_t heard_us = neighbour->heard_us;
    if (neighbour->peer->heard_us > heard_us)
        heard_us = neighbour->peer->heard_us;
    return transfer->now_us - heard_us <= UNHEARD_US;
}

/* May be asked for a piece, with at most so many at once. */
static bool is_free(const struct transfer *transfer, const struct neighbour *neighbour,
                    uint32_t requests_max)
{
    return neighbour->requests < requests_max && neighbour->known.set_count > 0 &&
           neighbour->state == NEIGHBOUR_UP && !neighbour->barred &&
           neighbour->free_at_us <= transfer->now_us &&
           neighbour->peer->requests < UPLOADS_PER_PEER && neighbour->peer->link == LINK_UP &&
           is_heard(transfer, neighbour) && transfer__node_usable(transfer, neighbour->node);
}

/* Neighbours that are free and have anything, by index. Whether one is free is asked once per
 * choice: it reads the neighbour, its peer and its node, each somewhere else in memory. */
struct free_set {
    uint64_t bits;
};
static_assert(NEIGHBOURS_MAX <= 64, "a bit per neighbour");

/* `extra` more requests to each than usual. */
static struct free_set free_neighbours(const struct transfer *transfer, const struct blob *blob,
                                       uint32_t extra)
{
    const struct swarm *swarm = blob->swarm;
    uint32_t most = transfer__neighbour_requests_max(transfer, blob) + extra;
    struct free_set free = {0};
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        __builtin_prefetch(swarm->neighbours[i].peer);
        __builtin_prefetch(&transfer->nodes.slots[swarm->neighbour_nodes[i]]);
    }
    for (uint32_t i = 0; i < swarm->neighbour_count; i++)
        free.bits |= (uint64_t)is_free(transfer, &swarm->neighbours[i], most) << i;
    return free;
}

static bool has(struct free_set free, uint32_t index)
{
    return (free.bits >> index & 1) != 0;
}

static size_t mask_bytes(const struct blob *blob)
{
    return ((size_t)blob->layout.piece_count + 7) / 8;
}

/* to |= more, word by word: each choice of a piece goes over all that all neighbours have. */
static void bits_add(uint8_t *to, const uint8_t *more, size_t bytes)
{
    uint64_t a, b;
    size_t at = 0;
    for (; at + sizeof a <= bytes; at += sizeof a) {
        memcpy(&a, to + at, sizeof a);
        memcpy(&b, more + at, sizeof b);
        a |= b;
        memcpy(to + at, &a, sizeof a);
    }
    for (; at < bytes; at++)
        to[at] |= more[at];
}

/* to = one & other. */
static void bits_both(uint8_t *to, const uint8_t *one, const uint8_t *other, size_t bytes)
{
    uint64_t a, b;
    size_t at = 0;
    for (; at + sizeof a <= bytes; at += sizeof a) {
        memcpy(&a, one + at, sizeof a);
        memcpy(&b, other + at, sizeof b);
        a &= b;
        memcpy(to + at, &a, sizeof a);
    }
    for (; at < bytes; at++)
        to[at] = one[at] & other[at];
}

bool transfer__is_far(const struct peer *peer)
{
    return peer->distance > DISTANCE_ZONE;
}

/* Beyond a zone border: small zones merge, and their borders are to be crossed once per piece all
 * the same. */
static bool is_far(const struct neighbour *neighbour)
{
    return transfer__is_far(neighbour->peer);
}

/* Takes those out who are not in `reach`. */
static struct free_set within(const struct swarm *swarm, struct free_set free,
                              enum choice_reach reach)
{
    for (uint32_t i = 0; reach != CHOOSE_ANY && i < swarm->neighbour_count; i++) {
        if (is_far(&swarm->neighbours[i]) != (reach == CHOOSE_FAR))
            free.bits &= ~(1ULL << i);
    }
    return free;
}

/* Who of those that pull on this side of a border brings a piece over it: number `rank` of `count`
 * by id. */
struct border {
    uint32_t count, rank;
};

/* Also fills `near` with what neighbours on this side have, whether they are free or not. */
static struct border border_of(const struct transfer *transfer, const struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    struct border border = {.count = 1};
    size_t bytes = mask_bytes(blob);
    memset(swarm->near, 0, bytes);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        if (!neighbour->useful || is_far(neighbour) || !is_heard(transfer, neighbour))
            continue;
        bits_add(swarm->near, neighbour->known.bits, bytes);
        if (!neighbour->wants)
            continue;
        border.count++;
        if (node_id_compare(&transfer->nodes.slots[neighbour->node].id, &transfer->config.self_id) <
            0)
            border.rank++;
    }
    return border;
}

/* The bits of one byte, its first piece being `first`, that are ours to bring over. */
static uint8_t own_share(const struct border *border, uint32_t first, uint8_t byte)
{
    uint8_t own = 0;
    for (uint32_t bit = 0; bit < 8 && byte != 0; bit++) {
        if ((first + bit) % border->count == border->rank)
            own |= (uint8_t)(0x80u >> bit);
    }
    return byte & own;
}

/* Marks what free neighbours beyond the border have and nobody on this side: each of those who pull
 * here asks for its share, unless it has nothing else to do. */
static void mark_far(const struct transfer *transfer, const struct blob *blob, struct free_set free)
{
    struct swarm *swarm = blob->swarm;
    bool idle = transfer->inflight < BORDER_IDLE;
    struct border border = border_of(transfer, blob);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        if (!has(free, i) || !is_far(neighbour))
            continue;
        for (uint32_t at = 0; at < mask_bytes(blob); at++) {
            uint8_t byte = neighbour->known.bits[at] & swarm->open.bits[at];
            if (!idle)
                byte = own_share(&border, 8 * at, byte & (uint8_t)~swarm->near[at]);
            swarm->mask[at] |= byte;
        }
    }
}

/* A piece that proved wrong here is asked of nobody: only the origin can repair it. */
static void unmark_repairs(const struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    for (uint32_t piece = 0; swarm->repair_count > 0 && piece < blob->layout.piece_count; piece++) {
        if ((swarm->flags[piece] & PIECE_REPAIR) != 0)
            swarm->mask[piece / 8] &= (uint8_t) ~(0x80u >> piece % 8);
    }
}

/* Which of the neighbours on this side that can be asked, be it that they have enough to do for us
 * now, say to wait for `limit_us` or longer (`above`), or shorter. */
static struct free_set usable_by_wait(const struct transfer *transfer, const struct swarm *swarm,
                                      uint64_t limit_us, bool above)
{
    struct free_set found = {0};
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        bool meant = (neighbour->wait_us >= limit_us) == above && !is_far(neighbour) &&
                     is_free(transfer, neighbour, UINT32_MAX);
        found.bits |= (uint64_t)meant << i;
    }
    return found;
}

/* The shortest wait that one of them says; UINT64_MAX if there is none. */
static uint64_t least_wait_us(const struct swarm *swarm, struct free_set of)
{
    uint64_t least_us = UINT64_MAX;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (has(of, i) && swarm->neighbours[i].wait_us < least_us)
            least_us = swarm->neighbours[i].wait_us;
    }
    return least_us;
}

/* Those who have given so much that others are asked instead of them, and in `near` what these
 * have. The time for which this holds begins when there are any, and is over for good when it is:
 * what nobody else gives is late by no more than that. */
static struct free_set spared(const struct transfer *transfer, const struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    const struct free_set nobody = {0};
    bool over = swarm->spare_until_us != 0 && swarm->spare_until_us <= transfer->now_us;
    if (over || transfer->nodes.live < MESH_SMALL_MEMBERS)
        return nobody;
    struct free_set spent = usable_by_wait(transfer, swarm, SPARE_WAIT_US, true);
    if (spent.bits == 0)
        return nobody;
    uint64_t least_us = least_wait_us(swarm, usable_by_wait(transfer, swarm, 0, true));
    uint64_t limit_us = least_us + SPARE_MORE_US;
    limit_us = limit_us < SPARE_WAIT_US ? SPARE_WAIT_US : limit_us;
    spent = usable_by_wait(transfer, swarm, limit_us, true);
    struct free_set others = usable_by_wait(transfer, swarm, limit_us, false);
    if (spent.bits == 0)
        return nobody;
    memset(swarm->near, 0, mask_bytes(blob));
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (has(others, i))
            bits_add(swarm->near, swarm->neighbours[i].known.bits, mask_bytes(blob));
    }
    if (swarm->spare_until_us == 0)
        swarm->spare_until_us = transfer->now_us + SPARE_US;
    return spent;
}

/* Marks what the spared have and nobody else, and what a client has waited for for a while. */
static void mark_spared(const struct transfer *transfer, const struct blob *blob,
                        struct free_set of)
{
    struct swarm *swarm = blob->swarm;
    uint32_t front = swarm->front;
    bool waits = transfer->now_us - swarm->front_us >= SPARE_FRONT_US;
    if (waits && front < blob->layout.piece_count)
        swarm->near[front / 8] &= (uint8_t) ~(0x80u >> front % 8);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        for (uint32_t at = 0; has(of, i) && at < mask_bytes(blob); at++)
            swarm->mask[at] |= swarm->neighbours[i].known.bits[at] & (uint8_t)~swarm->near[at];
    }
}

/* Marks what free neighbours have and may be asked for. */
static void fill_mask(const struct transfer *transfer, const struct blob *blob,
                      struct free_set free)
{
    struct swarm *swarm = blob->swarm;
    size_t bytes = mask_bytes(blob);
    struct free_set spent = spared(transfer, blob);
    bool far = false;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (has(free, i))
            __builtin_prefetch(swarm->neighbours[i].known.bits);
    }
    memset(swarm->mask, 0, bytes);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (!has(free, i))
            continue;
        if (is_far(&swarm->neighbours[i]))
            far = true;
        else if (!has(spent, i))
            bits_add(swarm->mask, swarm->neighbours[i].known.bits, bytes);
    }
    if (spent.bits != 0)
        mark_spared(transfer, blob, (struct free_set){free.bits & spent.bits});
    if (far)
        mark_far(transfer, blob, free);
    bits_both(swarm->mask, swarm->mask, swarm->open.bits, bytes);
    unmark_repairs(blob);
}

/* Passes words without a mark from a byte's first piece on. */
static uint32_t past_empty(const struct swarm *swarm, uint32_t from, uint32_t end)
{
    uint64_t word;
    for (; from + 8 * sizeof word <= end; from += 8 * (uint32_t)sizeof word) {
        memcpy(&word, swarm->mask + from / 8, sizeof word);
        if (word != 0)
            break;
    }
    return from;
}

/* Next marked piece in [from, end); `end` if there is none. */
static uint32_t next_marked(const struct swarm *swarm, uint32_t from, uint32_t end)
{
    while (from < end) {
        uint8_t rest = (uint8_t)(swarm->mask[from / 8] & (0xffu >> (from % 8)));
        if (rest == 0) {
            from = past_empty(swarm, from / 8 * 8 + 8, end);
            continue;
        }
        from = from / 8 * 8 + (uint32_t)__builtin_clz((unsigned)rest) - 24;
        return from < end ? from : end;
    }
    return end;
}

/* No neighbour pulls the blob: whatever order it comes in, nobody is to get it from here. */
static bool nobody_mixes(const struct swarm *swarm)
{
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (swarm->neighbours[i].wants)
            return false;
    }
    return true;
}

/* Marks of the word of pieces that begins at `word`, a multiple of 64, as far as they are in
 * [first, end): the first piece is the highest bit. */
static uint64_t marks_of(const struct swarm *swarm, uint32_t word, uint32_t first, uint32_t end)
{
    uint8_t bytes[8] = {0};
    const uint8_t *from = swarm->mask + word / 8;
    if (end - word < 64)
        memcpy(bytes, from, (end - word + 7) / 8);
    uint64_t marks = load_be64(end - word < 64 ? bytes : from);
    if (word < first)
        marks &= UINT64_MAX >> (first - word);
    if (end - word < 64)
        marks &= ~(UINT64_MAX >> (end - word));
    return marks;
}

/* Takes the first piece out of the marks of a word. */
static uint32_t take_mark(uint32_t word, uint64_t *marks)
{
    uint32_t lead = (uint32_t)__builtin_clzll(*marks);
    *marks &= ~(1ULL << 63 >> lead);
    return word + lead;
}

/* How many neighbours have the rarest of the marked pieces in [first, end); *ties: how many are as
 * rare, 0 if none is marked. */
static uint32_t least_avail(const struct swarm *swarm, uint32_t first, uint32_t end, uint32_t *ties)
{
    uint32_t least = UINT32_MAX, count = 0;
    for (uint32_t word = first / 64 * 64; word < end; word += 64) {
        uint64_t marks = marks_of(swarm, word, first, end);
        while (marks != 0) {
            uint32_t avail = swarm->avail[take_mark(word, &marks)];
            count = avail < least ? 1 : count + (avail == least);
            least = avail < least ? avail : least;
        }
    }
    *ties = count;
    return least;
}

/* The rarest marked piece in [first, end); `end` if there is none. Of several a random one, for
 * others to have what we have not, or the first one, which readers and the blob's hash are nearest
 * to. */
static uint32_t rarest(struct transfer *transfer, const struct swarm *swarm, uint32_t first,
                       uint32_t end)
{
    uint32_t ties;
    uint32_t least = least_avail(swarm, first, end, &ties);
    if (ties == 0)
        return end;
    uint64_t skip = nobody_mixes(swarm) ? 0 : prng_below(&transfer->prng, ties);
    for (uint32_t word = first / 64 * 64; word < end; word += 64) {
        uint64_t marks = marks_of(swarm, word, first, end);
        while (marks != 0) {
            uint32_t piece = take_mark(word, &marks);
            if (swarm->avail[piece] == least && skip-- == 0)
                return piece;
        }
    }
    return end;
}

static uint32_t capped_end(uint32_t at, uint32_t count, uint32_t end)
{
    return count < end - at ? at + count : end;
}

/* Few have it: it is better asked for at random. All clients wait for much the same pieces, and who
 * has one would send it to everybody instead of different ones that can be passed on. Of a brief
 * blob, and in a small mesh, all that not every neighbour has is rare. */
static bool is_rare(const struct transfer *transfer, const struct blob *blob, uint32_t piece)
{
    const struct swarm *swarm = blob->swarm;
    bool small = transfer__is_brief(transfer, blob) || transfer->nodes.live < MESH_SMALL_MEMBERS;
    return swarm->avail[piece] * (small ? 1u : COMMON_PART) < swarm->neighbour_count;
}

/* Asked for before others, unless it is rare; it is all the same when the client has waited for
 * long. */
static bool is_urgent(const struct transfer *transfer, const struct blob *blob, uint32_t piece)
{
    const struct swarm *swarm = blob->swarm;
    return !is_rare(transfer, blob, piece) || swarm->neighbour_count < 2 ||
           transfer->now_us - swarm->front_us > URGENT_WAIT_US;
}

/* So many pieces at a reader are taken in order. */
static uint32_t urgent_pieces(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t count = blob->layout.piece_count;
    bool last = count - blob->have.set_count <= count / LAST_PART;
    return last && transfer__has_many_pieces(transfer) ? URGENT_PIECES_LAST : URGENT_PIECES;
}

/* What readers wait for right now; `none` if it is nothing that is marked. */
static uint32_t pick_urgent(const struct transfer *transfer, const struct blob *blob, uint32_t none)
{
    uint32_t count = urgent_pieces(transfer, blob);
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next) {
        uint32_t front = transfer__reader_front(blob, reader);
        if (front == none)
            continue;
        uint32_t end = capped_end(front, count, reader->limit);
        uint32_t piece = next_marked(blob->swarm, front, end);
        while (piece < end && !is_urgent(transfer, blob, piece))
            piece = next_marked(blob->swarm, piece + 1, end);
        if (piece < end)
            return piece;
    }
    return none;
}

/* The rarest marked piece of a reader's window, else of all; `none` if none is marked. */
static uint32_t pick_rarest(struct transfer *transfer, const struct blob *blob, uint32_t none)
{
    /* A brief one mixes better without order. */
    bool brief = transfer__is_brief(transfer, blob);
    uint32_t window = brief ? none : transfer->config.window_pieces;
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next) {
        uint32_t front = transfer__reader_front(blob, reader);
        if (front == none)
            continue;
        uint32_t end = capped_end(front, window, reader->limit);
        uint32_t piece = rarest(transfer, blob->swarm, front, end);
        if (piece < end)
            return piece;
    }
    return rarest(transfer, blob->swarm, 0, none);
}

/* Until a neighbour would have sent one more piece: its own hint, less what has passed, and what it
 * took for one of late, for each that we ask of it, of any blob. Distance breaks ties, a
 * microsecond per step; over a zone border (small zones merge) it counts as two pieces: that link
 * is shared by many. */
static uint64_t expected_wait_us(const struct transfer *transfer, const struct swarm *swarm,
                                 const struct neighbour *neighbour)
{
    uint64_t passed_us = transfer->now_us - neighbour->heard_us;
    uint64_t wait_us = neighbour->wait_us > passed_us ? neighbour->wait_us - passed_us : 0;
    uint64_t each_us = neighbour->piece_us != 0 ? neighbour->piece_us : swarm->piece_us;
    uint64_t border_us = is_far(neighbour) ? 2 * (uint64_t)swarm->piece_us : 0;
    const struct peer *peer = neighbour->peer;
    return wait_us + ((uint64_t)peer->requests + 1) * each_us + border_us + peer->distance;
}

static uint64_t wait_at_us(const struct transfer *transfer, const struct blob *blob,
                           const struct neighbour *neighbour)
{
    uint64_t wait_us = expected_wait_us(transfer, blob->swarm, neighbour);
    return is_far(neighbour) ? wait_us + BORDER_WAIT_US : wait_us;
}

/* A neighbour to begin with, so that of equals each is chosen as often. */
static uint32_t random_start(struct transfer *transfer, const struct swarm *swarm)
{
    uint32_t count = swarm->neighbour_count;
    return count == 0 ? 0 : (uint32_t)prng_below(&transfer->prng, count);
}

/* The one after `index`, in a circle. */
static uint32_t next_round(const struct swarm *swarm, uint32_t index)
{
    return index + 1 < swarm->neighbour_count ? index + 1 : 0;
}

static uint16_t pick_holder(struct transfer *transfer, const struct blob *blob,
                            struct free_set free, uint32_t piece)
{
    const struct swarm *swarm = blob->swarm;
    uint16_t best = NODE_NONE;
    uint64_t best_us = UINT64_MAX;
    uint32_t index = random_start(transfer, swarm);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++, index = next_round(swarm, index)) {
        const struct neighbour *neighbour = &swarm->neighbours[index];
        if (!has(free, index) || !bitfield_get(&neighbour->known, piece) ||
            transfer__request_find(transfer, blob, piece, neighbour->node) != NULL)
            continue;
        uint64_t wait_us = wait_at_us(transfer, blob, neighbour);
        if (wait_us < best_us) {
            best = neighbour->node;
            best_us = wait_us;
        }
    }
    return best;
}

/* Has it any of the marked pieces? */
static bool has_marked(const struct blob *blob, const struct neighbour *neighbour)
{
    const uint8_t *mask = blob->swarm->mask, *known = neighbour->known.bits;
    size_t bytes = mask_bytes(blob), at = 0;
    uint64_t a, b;
    for (; at + sizeof a <= bytes; at += sizeof a) {
        memcpy(&a, mask + at, sizeof a);
        memcpy(&b, known + at, sizeof b);
        if ((a & b) != 0)
            return true;
    }
    for (; at < bytes; at++) {
        if ((mask[at] & known[at]) != 0)
            return true;
    }
    return false;
}

/* The free neighbour with the least wait that has any of the marked pieces; NULL if there is none.
 */
static const struct neighbour *least_busy(struct transfer *transfer, const struct blob *blob,
                                          struct free_set free)
{
    const struct swarm *swarm = blob->swarm;
    const struct neighbour *best = NULL;
    uint64_t best_us = UINT64_MAX;
    uint32_t index = random_start(transfer, swarm);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++, index = next_round(swarm, index)) {
        const struct neighbour *neighbour = &swarm->neighbours[index];
        if (!has(free, index))
            continue;
        uint64_t wait_us = wait_at_us(transfer, blob, neighbour);
        if (wait_us >= best_us || !has_marked(blob, neighbour))
            continue;
        best = neighbour;
        best_us = wait_us;
    }
    return best;
}

/* But for what a reader waits for right now, the holder comes first, then the rarest of what it
 * has: those who joined late have little, and their uplinks would stay idle if pieces were chosen
 * without regard to them. */
bool transfer__select(struct transfer *transfer, struct blob *blob, enum choice_reach reach,
                      struct choice *out)
{
    struct swarm *swarm = blob->swarm;
    uint32_t none = blob->layout.piece_count;
    if (swarm->open.set_count == 0)
        return false;
    struct free_set free = within(swarm, free_neighbours(transfer, blob, 0), reach);
    if (free.bits == 0)
        return false;
    fill_mask(transfer, blob, free);
    uint32_t piece = pick_urgent(transfer, blob, none);
    if (piece != none) {
        *out = (struct choice){.piece = piece, .node = pick_holder(transfer, blob, free, piece)};
        ASSERT(out->node != NODE_NONE); /* the mask holds only what a free neighbour has */
        return true;
    }
    const struct neighbour *holder = least_busy(transfer, blob, free);
    if (holder == NULL)
        return false;
    bits_both(swarm->mask, swarm->mask, holder->known.bits, mask_bytes(blob));
    *out = (struct choice){.piece = pick_rarest(transfer, blob, none), .node = holder->node};
    return true;
}

uint16_t transfer__other_holder(struct transfer *transfer, struct blob *blob, uint32_t piece)
{
    if (blob->swarm->avail[piece] == 0)
        return NODE_NONE;
    return pick_holder(transfer, blob, free_neighbours(transfer, blob, 1), piece);
}

bool transfer__select_duplicate(struct transfer *transfer, struct blob *blob, struct choice *out)
{
    struct swarm *swarm = blob->swarm;
    if (swarm->open.set_count > 0)
        return false;
    uint64_t late_us = 2 * (uint64_t)swarm->piece_us;
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        const struct request *request = &transfer->requests[i];
        if (request->blob != blob || request->received || swarm->asked[request->piece] != 1 ||
            transfer->now_us - request->sent_us <= late_us)
            continue;
        uint16_t node = transfer__other_holder(transfer, blob, request->piece);
        if (node == NODE_NONE)
            continue;
        *out = (struct choice){.piece = request->piece, .node = node};
        return true;
    }
    return false;
}
