/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests under way: how many, repeated until answered, asked elsewhere when late, given up when
 * dead. The in-flight budget is the node's, shared over its blobs: interactive readers before
 * prefetch, and among equals the blob with the fewest requests first (ALGORITHMS §6).
 */
#include "blob.h"
#include "have.h"
#include "lease.h"

#define RESEND_US     (150 * MS) /* doubling */
#define TRIES_MAX     4
#define POLL_US       (1 * S)    /* a queued request is asked about */
#define STALL_US      (500 * MS) /* later than this and four piece times: asked elsewhere, too */
#define SILENT_US     (3 * S)    /* without a byte: given up */
#define SLOW_AFTER_US (1 * S)    /* a tenth of the usual rate for so long: given up */
/* Hedges at a time, beyond what may be in flight: a full budget must not keep a piece at a dead
 * peer, and a slow link of our own must not double its load. */
#define HEDGES_MAX 4
#define FRONT_US   (250 * MS) /* a piece a client waits for is hedged sooner */
#define STUCK_US   (100 * MS) /* a peer that seems dead is not asked for more; renewed by ticks */
#define PENALTY_US (2 * S)    /* not asked again for so long after such an end */
#define VERIFY_US  (30 * S)   /* the host verifies and stores; its disk may be slow */
/* Requests while nothing is known of the own rate, and at least. */
#define UNKNOWN_REQUESTS       8
#define UNKNOWN_REQUESTS_BRIEF 16
#define UNKNOWN_REQUESTS_MANY  16
#define LEAST_REQUESTS         2
/* In flight is at most this part of all pieces that are read, between config.inflight and twice
 * that. Four layers of 256 pieces keep 32 in flight (300 nodes, 2 GiB: p50 1.031 with 16, 1.016
 * with 32); one layer with 32 ends late (1.20 with 16, 1.43 with 32). Where the cache bounds how
 * far ahead is read, those pieces count alone: the others are not to be had yet (30 nodes, 1 GB
 * through 512 MiB: last 1.60, then 1.53). */
#define INFLIGHT_SHARE 24
/* In a mesh of few, near nodes so much less is in flight to each side of a zone border: so many
 * requests and one more for so many members, but as much as comes in so long. What a node reads
 * from the origin shares its link with all it asked for: with 16 or 32 pieces under way a segment
 * took 150 to 300 ms, and whoever was ahead of the others waited for those at the end of its pull;
 * a piece that one node alone had was sent to all at once, and passed on late. In more than so many
 * members links are then less full in the middle of a long pull (31 nodes, 2 GiB: p50 1.007, then
 * 1.060). */
#define FEW_MEMBERS_MAX  12
#define FEW_REQUESTS     5
#define FEW_MEMBERS_EACH 4
#define FEW_US           (8 * MS)
/* And as much as comes in so many round trips as they are now: full links queue, and what was asked
 * for is on its way for so long (8 nodes, 200 Mbit/s, queues of 17 ms at each full card, 64 MiB:
 * 1.37 x size / rate without, 1.24 with them; `make calibrate`). */
#define FEW_ROUNDS 3
/* Near: whose shortest time to an answer is no longer. */
#define NEAR_US (20 * MS)
/* Whatever the rate was: a node that starves for lack of sources must be able to ask several. */
#define STARVED_REQUESTS 6
#define STARVED_BYTES    (4u * 1024 * 1024)
/* Blobs behind others ask no more when this part of what may be in flight is, or as much as comes
 * in so long: pieces that clients wait for must not queue behind what nobody waits for. */
#define BEHIND_PART 2
#define BEHIND_US   (250 * MS)

/* Where neighbours are far: as many requests at least, and at most on top of the others. */
#define FAR_REQUESTS     16
#define FAR_REQUESTS_MAX 80
#define FAR_BYTES_MAX    (32u * 1024 * 1024)

static struct peer *peer_of(const struct transfer *transfer, uint16_t node)
{
    return transfer->nodes.slots[node].peer;
}

struct request *transfer__request_find(const struct transfer *transfer, const struct blob *blob,
                                       uint32_t piece, uint16_t node)
{
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        struct request *request = &transfer->requests[i];
        if (request->piece == piece && request->node == node && request->blob == blob)
            return request;
    }
    return NULL;
}

static void send_piece(struct transfer *transfer, const struct request *request, unsigned type)
{
    struct wire_transfer message = {.type = type};
    message.of.piece = (struct wire_piece){
        .blob = request->blob->info.key,
        .piece = request->piece,
        .serial = request->serial,
        .flags = request->flags,
    };
    if (type == WIRE_TRANSFER_REQUEST && (request->flags & WIRE_PIECE_IMPORT) != 0)
        digest_proof(&request->blob->info.digest, &transfer->config.self_id,
                     &transfer->nodes.slots[request->node].id, message.of.piece.proof);
    transfer__send(transfer, request->node, &message);
}

static void count_inflight(struct transfer *transfer, const struct request *request, bool add)
{
    uint32_t bytes = piece_length(&request->blob->layout, request->piece);
    struct neighbour *neighbour = transfer__neighbour(request->blob->swarm, request->node);
    if (add) {
        transfer__rate_asked(transfer);
        transfer->inflight++;
        transfer->inflight_bytes += bytes;
    } else {
        ASSERT(transfer->inflight > 0 && transfer->inflight_bytes >= bytes);
        transfer->inflight--;
        transfer->inflight_bytes -= bytes;
    }
    if (neighbour != NULL && add)
        neighbour->requests++;
    else if (neighbour != NULL && neighbour->requests > 0)
        neighbour->requests--;
}

bool transfer__request(struct transfer *transfer, struct blob *blob, const struct choice *choice,
                       uint8_t flags)
{
    struct peer *peer = transfer__peer(transfer, choice->node);
    if (transfer->request_count == REQUESTS_MAX || peer == NULL)
        return false;
    struct request *request = &transfer->requests[transfer->request_count++];
    uint32_t serial = ++transfer->request_serial;
    *request = (struct request){
        .blob = blob,
        .piece = choice->piece,
        .node = choice->node,
        .flags = flags,
        .tries = 1,
        .serial = serial == 0 ? ++transfer->request_serial : serial,
        .sent_us = transfer->now_us,
        .asked_us = transfer->now_us,
        .heard_us = transfer->now_us,
        .resend_us = transfer->now_us + transfer__rto_us(transfer, choice->node, RESEND_US),
    };
    peer->requests++;
    peer->used_us = transfer->now_us;
    blob->swarm->requests++;
    blob->swarm->asked[choice->piece]++;
    transfer__piece_settle(blob, choice->piece);
    count_inflight(transfer, request, true);
    if (peer->link == LINK_UP)
        send_piece(transfer, request, WIRE_TRANSFER_REQUEST);
    else
        transfer__link_want(transfer, choice->node, 0);
    return true;
}

void transfer__request_end(struct transfer *transfer, struct request *request, bool cancel)
{
    struct blob *blob = request->blob;
    struct peer *peer = peer_of(transfer, request->node);
    ASSERT(transfer->request_count > 0 && peer != NULL && peer->requests > 0);
    ASSERT(blob->swarm->requests > 0 && blob->swarm->asked[request->piece] > 0);
    if (cancel)
        send_piece(transfer, request, WIRE_TRANSFER_CANCEL);
    if (!request->received)
        count_inflight(transfer, request, false);
    peer->requests--;
    blob->swarm->requests--;
    blob->swarm->asked[request->piece]--;
    uint32_t piece = request->piece;
    *request = transfer->requests[--transfer->request_count];
    transfer__piece_settle(blob, piece);
    transfer__touch(transfer);
}

void transfer__requests_end(struct transfer *transfer, const struct blob *blob, uint32_t piece,
                            uint16_t node)
{
    for (uint32_t i = 0; i < transfer->request_count;) {
        struct request *request = &transfer->requests[i];
        bool meant =
            (blob == NULL || request->blob == blob) &&
            (blob == NULL || piece == blob->layout.piece_count || request->piece == piece) &&
            (node == NODE_NONE || request->node == node);
        if (meant)
            transfer__request_end(transfer, request, true);
        else
            i++;
    }
}

void transfer__requests_fail(struct transfer *transfer, struct blob *blob, uint16_t node)
{
    for (uint32_t i = 0; i < transfer->request_count;) {
        struct request *request = &transfer->requests[i];
        if (request->blob != blob || request->node != node) {
            i++;
            continue;
        }
        uint32_t piece = request->piece;
        transfer__request_end(transfer, request, true);
        transfer__import_failed(transfer, blob, piece, node);
    }
}

void transfer__requests_unwanted(struct transfer *transfer, struct blob *blob)
{
    for (uint32_t i = 0; i < transfer->request_count;) {
        struct request *request = &transfer->requests[i];
        if (request->blob == blob && (request->flags & WIRE_PIECE_LEASE) == 0)
            transfer__request_end(transfer, request, true);
        else
            i++;
    }
}

/* ---- filling ---- */

uint32_t transfer__inflight_max(const struct transfer *transfer)
{
    uint64_t pieces = 0, least = transfer->config.inflight;
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next)
        pieces += transfer__reader_pieces(transfer, reader);
    uint64_t most = pieces / INFLIGHT_SHARE;
    most = most < least ? least : most;
    return (uint32_t)(most < 2 * least ? most : 2 * least);
}

bool transfer__has_many_pieces(const struct transfer *transfer)
{
    return transfer__inflight_max(transfer) == 2 * transfer->config.inflight &&
           transfer->nodes.live >= MESH_SMALL_MEMBERS;
}

/* The rate is known too late for a brief blob. */
static uint32_t unknown_requests(const struct transfer *transfer, const struct blob *blob)
{
    if (transfer__is_brief(transfer, blob))
        return UNKNOWN_REQUESTS_BRIEF;
    return transfer__has_many_pieces(transfer) ? UNKNOWN_REQUESTS_MANY : UNKNOWN_REQUESTS;
}

/* Requests on top to bridge round trips, by the own rate; while it is unknown, and at least, enough
 * for it to show. What is being verified, hedges and imports must have room beside them. */
static uint32_t far_requests(const struct transfer *transfer, const struct blob *blob)
{
    uint64_t rounds_us = transfer__far_rounds_us(blob->swarm);
    if (rounds_us == 0)
        return 0;
    uint64_t count = transfer__rate_best(transfer) * rounds_us / S / blob->layout.piece_bytes;
    uint64_t most = FAR_BYTES_MAX / blob->layout.piece_bytes;
    most = most < FAR_REQUESTS_MAX ? most : FAR_REQUESTS_MAX;
    count = count < FAR_REQUESTS ? FAR_REQUESTS : count;
    return (uint32_t)(count < most ? count : most);
}

/* May one more piece of this blob be asked for? At most a second of the own rate, so that slow
 * nodes do not hoard what others wait for. Half a second held down nodes whose sources were busy at
 * first: what they asked for was too little to get more than they had got. */
static bool has_room(struct transfer *transfer, const struct blob *blob)
{
    uint32_t far = far_requests(transfer, blob);
    uint32_t most = transfer__inflight_max(transfer) + far;
    if (transfer->inflight >= most)
        return false;
    uint64_t rate = transfer__rate_best(transfer);
    if (transfer__is_behind(transfer, blob) &&
        (transfer->inflight >= most / BEHIND_PART ||
         transfer->inflight_bytes + blob->layout.piece_bytes > rate * BEHIND_US / S))
        return transfer->inflight == 0;
    if (rate == 0) /* one more for each that came: a slow node is to know itself before it hoards */
        return transfer->inflight < far + unknown_requests(transfer, blob) +
                                        transfer__rate_bytes(transfer) / blob->layout.piece_bytes;
    if (transfer->inflight < LEAST_REQUESTS || (far > 0 && transfer->inflight < FAR_REQUESTS) ||
        (transfer->inflight < STARVED_REQUESTS && transfer->inflight_bytes < STARVED_BYTES))
        return true;
    uint64_t room = rate + rate * transfer__far_rounds_us(blob->swarm) / S;
    return transfer->inflight_bytes + blob->layout.piece_bytes <= room;
}

/* Do all answer soon? Who was not asked yet is taken to be like the others on its side of a zone
 * border; beyond it nobody is, until somebody there has answered. */
static bool is_near(const struct swarm *swarm)
{
    bool known = false, unknown = false;
    if (transfer__far_rounds_us(swarm) > 0)
        return false;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        if (!neighbour->useful)
            continue;
        if (neighbour->peer->rtt.least_us > NEAR_US)
            return false;
        if (!transfer__is_far(neighbour->peer))
            continue;
        known = known || neighbour->peer->rtt.least_us != 0;
        unknown = unknown || neighbour->peer->rtt.least_us == 0;
    }
    return known || !unknown;
}

/* Mean round trip to those who have something, as of late; 0: unknown. */
static uint64_t mean_rtt_us(const struct swarm *swarm)
{
    uint64_t sum_us = 0, count = 0;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        if (!neighbour->useful || neighbour->peer->rtt.mean_us == 0)
            continue;
        sum_us += neighbour->peer->rtt.mean_us;
        count++;
    }
    return count == 0 ? 0 : sum_us / count;
}

/* Most requests on each side of a zone border; UINT32_MAX: no less than has_room says. */
static uint32_t few_requests(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t members = transfer->nodes.live;
    if (members > FEW_MEMBERS_MAX || !is_near(blob->swarm))
        return UINT32_MAX;
    uint64_t rate = transfer__rate_best(transfer);
    if (rate == 0)
        return UNKNOWN_REQUESTS;
    uint64_t timed = rate * FEW_US / S / blob->layout.piece_bytes;
    uint64_t rounds_us = FEW_ROUNDS * mean_rtt_us(blob->swarm);
    uint64_t count =
        FEW_REQUESTS + members / FEW_MEMBERS_EACH + rate * rounds_us / S / blob->layout.piece_bytes;
    return (uint32_t)(timed > count ? timed : count);
}

static uint32_t far_inflight(const struct transfer *transfer)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        const struct request *request = &transfer->requests[i];
        count += !request->received && transfer__is_far(peer_of(transfer, request->node));
    }
    return count;
}

/* Who may be asked for one more piece of this blob; false: nobody. */
static bool find_reach(struct transfer *transfer, const struct blob *blob, enum choice_reach *out)
{
    if (!has_room(transfer, blob))
        return false;
    uint32_t most = few_requests(transfer, blob);
    *out = CHOOSE_ANY;
    if (transfer->inflight < most)
        return true;
    uint32_t far = far_inflight(transfer);
    if (far < most)
        *out = transfer->inflight - far < most ? CHOOSE_ANY : CHOOSE_FAR;
    else
        *out = CHOOSE_NEAR;
    return far < most || transfer->inflight - far < most;
}

/* The blob to serve next; NULL if none is left. `passed` marks those that had nothing. */
static struct blob *next_blob(const struct transfer *transfer, uint64_t turn, bool interactive)
{
    struct blob *best = NULL;
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        const struct swarm *swarm = blob->swarm;
        if (swarm->readers == 0 || swarm->passed_turn == turn ||
            transfer__interactive(transfer, blob) != interactive)
            continue;
        if (best == NULL || swarm->requests < best->swarm->requests ||
            (swarm->requests == best->swarm->requests &&
             swarm->request_turn < best->swarm->request_turn))
            best = blob;
    }
    return best;
}

static bool fill_one(struct transfer *transfer, struct blob *blob)
{
    struct choice choice;
    enum choice_reach reach;
    if (!find_reach(transfer, blob, &reach))
        return false;
    if (transfer__select(transfer, blob, reach, &choice))
        return transfer__request(transfer, blob, &choice, 0);
    if (reach != CHOOSE_ANY || !transfer__select_duplicate(transfer, blob, &choice))
        return false;
    transfer->stats.hedges++;
    return transfer__request(transfer, blob, &choice, 0);
}

void transfer__requests_fill(struct transfer *transfer)
{
    uint64_t turn = ++transfer->fill_turn;
    for (unsigned round = 0; round < 2; round++) {
        struct blob *blob = next_blob(transfer, turn, round == 0);
        while (blob != NULL) {
            if (fill_one(transfer, blob))
                blob->swarm->request_turn = turn;
            else
                blob->swarm->passed_turn = turn;
            blob = next_blob(transfer, turn, round == 0);
        }
    }
}

/* ---- time ---- */

/* Gives a request up; the neighbour is left alone for a while. */
static void give_up(struct transfer *transfer, struct request *request, bool silent)
{
    struct blob *blob = request->blob;
    uint32_t piece = request->piece;
    uint16_t node = request->node;
    struct neighbour *neighbour = transfer__neighbour(blob->swarm, node);
    if (neighbour != NULL)
        neighbour->free_at_us = transfer->now_us + PENALTY_US;
    transfer->stats.request_timeouts++;
    if (silent)
        transfer__silent(transfer, node);
    transfer__request_end(transfer, request, true);
    transfer__import_failed(transfer, blob, piece, node);
}

/* Young connections to far nodes take round trips before they are at their rate. */
static uint64_t stall_limit_us(const struct swarm *swarm)
{
    return STALL_US + transfer__far_rounds_us(swarm);
}

static uint64_t late_us(const struct swarm *swarm)
{
    uint64_t typical_us = 4 * (uint64_t)swarm->piece_us, stall_us = stall_limit_us(swarm);
    return typical_us > stall_us ? typical_us : stall_us;
}

/* Stuck in the middle, or repeated without an answer: the other side may be dead. */
static bool is_stuck(const struct transfer *transfer, const struct request *request)
{
    const struct swarm *swarm = request->blob->swarm;
    uint64_t quiet_us = transfer->now_us - request->heard_us;
    uint64_t stall_us = stall_limit_us(swarm);
    stall_us = swarm->piece_us > stall_us ? swarm->piece_us : stall_us;
    return (request->started && quiet_us >= stall_us) || (!request->answered && request->tries > 2);
}

/* A client waits for this very piece. */
static bool is_front(const struct transfer *transfer, const struct request *request)
{
    const struct swarm *swarm = request->blob->swarm;
    return request->piece == swarm->front &&
           transfer->now_us - request->sent_us >= FRONT_US + transfer__far_rounds_us(swarm) &&
           transfer->now_us - request->sent_us >= 2 * (uint64_t)swarm->piece_us;
}

/* Later than usual, stuck, or holding up a client. */
static bool is_late(const struct transfer *transfer, const struct request *request)
{
    return transfer->now_us - request->sent_us >= late_us(request->blob->swarm) ||
           is_stuck(transfer, request) || is_front(transfer, request);
}

static uint32_t hedge_count(const struct transfer *transfer)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < transfer->request_count; i++)
        count += transfer->requests[i].hedge && !transfer->requests[i].received;
    return count;
}

/* Asks another holder, too, if the request is late; the first to deliver ends the other. */
static void hedge(struct transfer *transfer, struct request *request)
{
    struct blob *blob = request->blob;
    uint32_t piece = request->piece;
    struct neighbour *neighbour = transfer__neighbour(blob->swarm, request->node);
    bool stuck = is_stuck(transfer, request);
    /* Nothing more is asked of it until it is heard. */
    if (stuck && neighbour != NULL && neighbour->free_at_us < transfer->now_us + STUCK_US)
        neighbour->free_at_us = transfer->now_us + STUCK_US;
    bool late = stuck || is_late(transfer, request);
    if (request->hedged || !late || hedge_count(transfer) >= HEDGES_MAX)
        return;
    struct choice choice = {.piece = piece, .node = transfer__other_holder(transfer, blob, piece)};
    if (choice.node == NODE_NONE)
        return;
    request->hedged = true;
    transfer->stats.hedges++;
    if (transfer__request(transfer, blob, &choice, 0))
        transfer->requests[transfer->request_count - 1].hedge = true;
}

static uint64_t request_rate(const struct transfer *transfer, const struct request *request)
{
    uint64_t flowing_us = transfer->now_us - request->started_us;
    return flowing_us == 0 ? 0 : (uint64_t)request->bytes * S / flowing_us;
}

/* Far slower than the others that flow now (P-3). If all are slow, our own link is. */
static bool too_slow(const struct transfer *transfer, const struct request *request)
{
    if (!request->started || transfer->now_us - request->started_us < SLOW_AFTER_US ||
        request->blob->swarm->avail[request->piece] < 2)
        return false;
    uint64_t sum = 0, others = 0;
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        const struct request *other = &transfer->requests[i];
        if (other == request || !other->started || other->received)
            continue;
        sum += request_rate(transfer, other);
        others++;
    }
    return others >= 2 && request_rate(transfer, request) < sum / others / 10;
}

/* Without a byte for longer than is usual here: bytes of all come late when our own link is full,
 * and giving up then would only waste what is on its way. */
static uint64_t patience_us(const struct transfer *transfer)
{
    uint64_t usual_us = 6 * (uint64_t)transfer->gap_us;
    return usual_us > SILENT_US ? usual_us : SILENT_US;
}

static bool is_silent(const struct transfer *transfer, const struct request *request)
{
    return request->started && transfer->now_us - request->heard_us >= patience_us(transfer);
}

/* The other side keeps saying that the piece will come, far longer than it said at first (P-2), or
 * lets it out by the byte (P-3): its word is worth nothing, and it is used no more for this blob.
 */
static bool is_broken(const struct transfer *transfer, const struct request *request)
{
    return !request->started && request->due_us != 0 && transfer->now_us >= request->due_us;
}

static void give_up_broken(struct transfer *transfer, struct request *request)
{
    struct blob *blob = request->blob;
    uint16_t node = request->node;
    give_up(transfer, request, false);
    transfer__avoid(transfer, blob->swarm, AVOID_WHOLE, node);
    transfer__neighbour_distrust(transfer, blob, node);
}

/* True if the request is gone. */
static bool request_tick(struct transfer *transfer, struct request *request)
{
    uint64_t now_us = transfer->now_us;
    uint64_t quiet_us = now_us - request->heard_us;
    if (request->received && quiet_us < VERIFY_US)
        return false;
    if (peer_of(transfer, request->node)->link != LINK_UP) {
        if (now_us - request->sent_us < SILENT_US)
            return false;
        give_up(transfer, request, false);
        return true;
    }
    bool unanswered = request->tries >= TRIES_MAX && now_us >= request->resend_us;
    if (unanswered || is_silent(transfer, request) || quiet_us >= VERIFY_US) {
        give_up(transfer, request, true);
        return true;
    }
    if (is_broken(transfer, request)) {
        give_up_broken(transfer, request);
        return true;
    }
    if (too_slow(transfer, request)) {
        give_up(transfer, request, false);
        return true;
    }
    if (!request->started && now_us >= request->resend_us) {
        uint64_t rto_us = transfer__rto_us(transfer, request->node, RESEND_US);
        request->resend_us = now_us + (rto_us << request->tries);
        request->tries++;
        send_piece(transfer, request, WIRE_TRANSFER_REQUEST);
    }
    hedge(transfer, request);
    return false;
}

void transfer__requests_tick(struct transfer *transfer)
{
    for (uint32_t i = 0; i < transfer->request_count;) {
        if (!request_tick(transfer, &transfer->requests[i]))
            i++;
    }
}

void transfer__requests_linked(struct transfer *transfer, uint16_t node)
{
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        struct request *request = &transfer->requests[i];
        if (request->node != node || request->answered)
            continue;
        request->resend_us = transfer->now_us + transfer__rto_us(transfer, node, RESEND_US);
        request->asked_us = transfer->now_us;
        request->heard_us = transfer->now_us;
        send_piece(transfer, request, WIRE_TRANSFER_REQUEST);
    }
}

void transfer__requests_lost(struct transfer *transfer, uint16_t node)
{
    for (uint32_t i = 0; i < transfer->request_count;) {
        struct request *request = &transfer->requests[i];
        if (request->node != node || request->received) {
            i++;
            continue;
        }
        struct blob *blob = request->blob;
        uint32_t piece = request->piece;
        transfer__request_end(transfer, request, false);
        transfer__import_failed(transfer, blob, piece, node);
    }
}

/* ---- answers ---- */

static struct request *answered(struct transfer *transfer, uint16_t from,
                                const struct wire_piece *piece)
{
    struct blob *blob = transfer__blob_by_key(transfer, &piece->blob);
    if (blob == NULL)
        return NULL;
    struct request *request = transfer__request_find(transfer, blob, piece->piece, from);
    return request != NULL && request->serial == piece->serial ? request : NULL;
}

void transfer__on_queued(struct transfer *transfer, uint16_t from, const struct wire_piece *piece)
{
    struct request *request = answered(transfer, from, piece);
    if (request == NULL)
        return;
    if (request->due_us == 0)
        request->due_us = transfer->now_us + 2 * (uint64_t)piece->wait_us + patience_us(transfer);
    if (!request->answered)
        transfer__rtt_note(transfer, from, request->asked_us, request->tries == 1);
    request->answered = true;
    request->tries = 1;
    request->heard_us = transfer->now_us;
    request->resend_us = transfer->now_us + POLL_US;
}

void transfer__on_busy(struct transfer *transfer, uint16_t from, const struct wire_piece *piece)
{
    struct request *request = answered(transfer, from, piece);
    if (request == NULL || request->started)
        return;
    struct blob *blob = request->blob;
    struct neighbour *neighbour = transfer__neighbour(blob->swarm, from);
    if (neighbour != NULL)
        neighbour->free_at_us =
            transfer->now_us + (piece->wait_us > PENALTY_US ? PENALTY_US : piece->wait_us);
    if (neighbour != NULL && (piece->flags & WIRE_PIECE_MISSING) != 0)
        transfer__neighbour_lacks(blob->swarm, from, piece->piece);
    if (neighbour == NULL && (piece->flags & WIRE_PIECE_UNKNOWN) != 0)
        transfer__avoid(transfer, blob->swarm, AVOID_WHOLE, from);
    transfer->stats.busy++;
    transfer__request_end(transfer, request, false);
    if ((piece->flags & WIRE_PIECE_MISSING) != 0)
        transfer__import_failed(transfer, blob, piece->piece, from);
    else
        transfer__import_later(transfer, blob, piece->piece, piece->wait_us);
}

bool transfer_expects(const struct transfer *transfer, const struct blob_key *key, uint32_t piece,
                      const struct node_id *peer)
{
    uint16_t node = transfer__node_find(transfer, peer);
    const struct blob *blob = transfer__blob_by_key(transfer, key);
    return node != NODE_NONE && blob != NULL &&
           transfer__request_find(transfer, blob, piece, node) != NULL;
}

/* How long 64 KiB take to come, request by request. */
static void note_gap(struct transfer *transfer, const struct request *request, uint32_t bytes)
{
    uint64_t units = (bytes - request->bytes) / RECORD_BYTES_MAX;
    if (units > 0)
        transfer->gap_us =
            transfer__mean(transfer->gap_us, (transfer->now_us - request->heard_us) / units);
}

void transfer_piece_progress(struct transfer *transfer, uint64_t now_us, blob_handle handle,
                             uint32_t piece, const struct node_id *peer, uint32_t bytes_so_far)
{
    transfer__enter(transfer, now_us);
    struct blob *blob = transfer__blob(transfer, handle);
    uint16_t node = transfer__node_find(transfer, peer);
    struct request *request = NULL;
    if (blob != NULL && node != NODE_NONE)
        request = transfer__request_find(transfer, blob, piece, node);
    if (request != NULL && bytes_so_far > request->bytes) {
        if (!request->started)
            request->started_us = transfer->now_us;
        else
            note_gap(transfer, request, bytes_so_far);
        blob->swarm->progress_us = transfer->now_us;
        request->answered = request->started = true;
        request->heard_us = transfer->now_us;
        request->bytes = bytes_so_far;
        transfer__heard(transfer, node);
        if (!request->received && bytes_so_far >= piece_length(&blob->layout, piece)) {
            count_inflight(transfer, request, false);
            request->received = true;
            transfer__touch(transfer);
        }
    }
    transfer__leave(transfer);
}
