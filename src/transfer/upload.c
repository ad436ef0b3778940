/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The giving side: a few uploads at a time, a short queue, then BUSY. Few slots let copies double
 * faster, a long queue costs 20-30 % (ALGORITHMS §3.4). Transfers for a whole zone go first, the
 * rest in order of arrival, with a share per peer so that a flood of requests starves nobody (P-8).
 */
#include "blob.h"

/* A queued upload whose session is gone waits so long for a new one. */
#define LINKLESS_US (3 * S)
#define BUSY_MIN_US (20 * MS)
/* Uploads of one blob at a time: one per so many of its pieces, but so many. */
#define BLOB_UPLOAD_PIECES 4
#define BLOB_UPLOADS_LEAST 2
/* Who has so many here makes way for who has none, when the queue is full. */
#define UPLOADS_GREEDY 4
/* All that run at a time, in memory: 16 of the largest pieces. */
#define UPLOADS_BYTES (64u * 1024 * 1024)
/* A third more where all of them pass the own link in so long: at 10 Gbit/s, not at 1. */
#define QUICK_SLOTS_US (50 * MS)
/* A node is refused for so long when it asks without proof, or for what is not here. */
#define REFUSED_US (1 * S)

uint32_t transfer__uploads_max(const struct transfer *transfer)
{
    const struct transfer_config *config = &transfer->config;
    return config->upload_queue + UPLOADS_RUNNING_MAX(config->upload_slots) + UPLOADS_EXTRA;
}

static uint32_t queued_count(const struct transfer *transfer)
{
    return transfer->upload_count - transfer->uploads_running;
}

uint32_t transfer__upload_wait_us(const struct transfer *transfer)
{
    uint64_t wait_us = (uint64_t)transfer->upload_count * transfer->upload_us;
    wait_us /= transfer->slots > 0 ? transfer->slots : transfer->config.upload_slots;
    return (uint32_t)(wait_us > 10 * S ? 10 * S : wait_us);
}

static void answer(struct transfer *transfer, uint16_t node, const struct wire_piece *request,
                   unsigned type, uint8_t flags, uint64_t wait_us)
{
    struct wire_transfer message = {.type = type};
    message.of.piece = (struct wire_piece){
        .blob = request->blob,
        .piece = request->piece,
        .serial = request->serial,
        .flags = flags,
        .wait_us = (uint32_t)wait_us,
    };
    transfer__send(transfer, node, &message);
}

static void busy(struct transfer *transfer, uint16_t node, const struct wire_piece *request,
                 uint64_t wait_us)
{
    answer(transfer, node, request, WIRE_TRANSFER_BUSY, 0, wait_us);
}

static bool was_served(const struct transfer *transfer, uint16_t node, uint32_t serial)
{
    for (size_t i = 0; i < sizeof transfer->served / sizeof transfer->served[0]; i++) {
        if (transfer->served[i].serial == serial && transfer->served[i].node == node)
            return serial != 0;
    }
    return false;
}

static void note_served(struct transfer *transfer, uint16_t node, uint32_t serial)
{
    uint32_t places = sizeof transfer->served / sizeof transfer->served[0];
    transfer->served[transfer->served_next].node = node;
    transfer->served[transfer->served_next].serial = serial;
    transfer->served_next = (transfer->served_next + 1) % places;
}

void transfer__served_forget(struct transfer *transfer, uint16_t node)
{
    for (size_t i = 0; i < sizeof transfer->served / sizeof transfer->served[0]; i++) {
        if (transfer->served[i].node == node)
            transfer->served[i].serial = 0;
    }
}

static struct upload *find_upload(const struct transfer *transfer, uint16_t node, uint32_t serial)
{
    for (uint32_t i = 0; i < transfer->upload_count; i++) {
        if (transfer->uploads[i].node == node && transfer->uploads[i].serial == serial)
            return &transfer->uploads[i];
    }
    return NULL;
}

static void count_upload(const struct upload *upload, bool add)
{
    struct peer *peer = upload->peer;
    if (peer == NULL)
        return;
    if (add) {
        peer->uploads++;
    } else {
        ASSERT(peer->uploads > 0 && peer->running >= upload->running);
        peer->uploads--;
        peer->running -= upload->running;
    }
}

/* A piece this node is about to have: asked for ahead, sent when it is here. */
static bool is_coming(const struct blob *blob, uint32_t piece)
{
    return blob->swarm != NULL && (blob->swarm->flags[piece] & PIECE_LEASED) != 0;
}

/* Keeps the order of the queue. */
static void remove_upload(struct transfer *transfer, struct upload *upload)
{
    count_upload(upload, false);
    if (upload->running) {
        ASSERT(transfer->uploads_running > 0);
        transfer->uploads_running--;
    }
    uint32_t at = (uint32_t)(upload - transfer->uploads);
    transfer->upload_count--;
    memmove(upload, upload + 1, (transfer->upload_count - at) * sizeof *upload);
    transfer__touch(transfer);
}

static bool push_upload(struct transfer *transfer, const struct upload *upload,
                        enum transfer_result_kind kind)
{
    struct transfer_result result = {
        .kind = kind,
        .piece = upload->piece,
        .id = upload->id,
        .across_zones = upload->lease,
    };
    if (upload->blob != NULL) {
        result.blob = upload->blob->handle;
        result.key = upload->blob->info.key;
    }
    if (upload->node != NODE_NONE) {
        result.peer = transfer->nodes.slots[upload->node].id;
        result.peer_addr = transfer->nodes.slots[upload->node].addr;
    }
    return transfer__push(transfer, &result);
}

/* Ends an upload from our side: a queued one is gone, a running one when the host says so. */
static void cancel_upload(struct transfer *transfer, struct upload *upload)
{
    if (!upload->running) {
        remove_upload(transfer, upload);
        return;
    }
    if (!upload->cancelled)
        (void)push_upload(transfer, upload, TRANSFER_UPLOAD_CANCEL);
    upload->cancelled = true;
}

/* Uploads of a blob at a time: of few pieces few are sent at once, so that each is somewhere soon
 * and can be passed on from there. */
static bool is_full(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t running = 0, most = blob->layout.piece_count / BLOB_UPLOAD_PIECES;
    for (uint32_t i = 0; i < transfer->upload_count; i++)
        running += transfer->uploads[i].running && transfer->uploads[i].blob == blob ? 1 : 0;
    return running >= (most < BLOB_UPLOADS_LEAST ? BLOB_UPLOADS_LEAST : most);
}

/* Slots grow with what receivers ask for: pieces of different length flow to different numbers of
 * receivers, and a link is full only with as many flows as there are at the other ends. With a
 * third instead (all that is good for fewer pieces or a few nodes): 10 Gbit/s, 100 nodes p50 1.091,
 * then 1.062; Kraken's image last 1.105, then 1.028. */
uint32_t transfer__slots_max(const struct transfer *transfer)
{
    const struct transfer_config *config = &transfer->config;
    uint32_t more = transfer__inflight_max(transfer) - config->inflight;
    uint32_t part = transfer__has_many_pieces(transfer) ? 1 : 3;
    return config->upload_slots + config->upload_slots * more / config->inflight / part;
}

/* Slots at this rate, of `most` at any. What receivers ask for then comes from more neighbours at a
 * time, and none of it is late for that (10 Gbit/s, 300 nodes, 2 GiB: p50 1.043, then 1.036). */
static uint32_t quick_slots(const struct blob *blob, uint64_t rate, uint32_t most)
{
    uint32_t more = most + most / 3;
    uint64_t bytes = (uint64_t)more * blob->layout.piece_bytes;
    return bytes <= UPLOADS_BYTES && bytes <= rate * QUICK_SLOTS_US / S ? more : most;
}

/* More slots keep the uplink busy, as long as receivers ask for clearly more pieces than there are
 * slots; where half a second of a link is few pieces, more slots only make each piece late. Our own
 * link stands for theirs: a slow node that alone has a piece in its zone must pass it on soon. */
static uint32_t slots_for(const struct transfer *transfer, const struct blob *blob)
{
    uint64_t rate = transfer__rate_best(transfer);
    uint32_t most = transfer__slots_max(transfer), whole = UPLOADS_BYTES / blob->layout.piece_bytes;
    if (most > whole)
        most = whole;
    if (transfer__far_rounds_us(blob->swarm) > 0) { /* most of them wait for round trips */
        most = UPLOADS_RUNNING_MAX(transfer->config.upload_slots);
        return most < whole ? most : whole;
    }
    if (rate == 0) /* receivers of many pieces ask for more than there are slots from the start */
        return transfer__has_many_pieces(transfer) ? most : most - most / 3;
    if (transfer__has_many_pieces(transfer))
        most = quick_slots(blob, rate, most);
    uint64_t asked = rate / 2 / blob->layout.piece_bytes;
    uint64_t slots = asked * 3 / 4;
    if (slots < most / 3)
        slots = most / 3;
    return slots < 1 ? 1 : slots < most ? (uint32_t)slots : most;
}

/* Are all slots taken, whichever waiting upload is the next? Known if they are all of one blob. */
static bool nothing_begins(const struct transfer *transfer, const struct blob *blob)
{
    return transfer->blob_count == 1 && transfer->uploads_running >= slots_for(transfer, blob);
}

/* Imports of other zones first. Then the peer with the fewest running uploads, of these the one
 * served longest ago: two slots filled for the same busy receiver would leave the uplink idle, and
 * a peer with many requests would hold up the others. */
static struct upload *next_upload(struct transfer *transfer)
{
    struct upload *best = NULL;
    const struct blob *asked = NULL; /* whether this one is full is known */
    bool full = false;
    uint32_t best_running = 0;
    uint64_t best_us = 0;
    for (uint32_t i = 0; i < transfer->upload_count; i++) {
        if (!transfer->uploads[i].running)
            __builtin_prefetch(transfer->uploads[i].peer);
    }
    for (uint32_t i = 0; i < transfer->upload_count; i++) {
        struct upload *upload = &transfer->uploads[i];
        if (upload->running || upload->peer->link != LINK_UP ||
            !bitfield_get(&upload->blob->have, upload->piece))
            continue;
        if (upload->lease)
            return upload;
        if (upload->blob != asked) {
            asked = upload->blob;
            full = is_full(transfer, asked);
        }
        if (full)
            continue;
        if (best == NULL && nothing_begins(transfer, upload->blob))
            return upload;
        uint32_t running = upload->peer->running;
        uint64_t served_us = upload->peer->served_us;
        if (best != NULL &&
            (running > best_running || (running == best_running && served_us >= best_us)))
            continue;
        best = upload;
        best_running = running;
        best_us = served_us;
    }
    return best;
}

void transfer__uploads_start(struct transfer *transfer)
{
    while (transfer->uploads_running < UPLOADS_RUNNING_MAX(transfer->config.upload_slots) &&
           transfer->uploads_running < transfer->upload_count) {
        struct upload *upload = next_upload(transfer);
        if (upload != NULL)
            transfer->slots = slots_for(transfer, upload->blob);
        if (upload == NULL || transfer->uploads_running >= transfer->slots ||
            !push_upload(transfer, upload, TRANSFER_UPLOAD))
            return;
        upload->running = true;
        upload->started_us = transfer->now_us;
        upload->peer->served_us = transfer->now_us;
        upload->peer->running++;
        transfer->uploads_running++;
    }
}

/* Only who proved to know the digest is served (ACL-9): as a neighbour, or in the request. */
static bool authorised(const struct transfer *transfer, uint16_t from, const struct blob *blob,
                       const struct wire_piece *piece)
{
    const struct node_id *id = &transfer->nodes.slots[from].id;
    if (transfer__node_lied(transfer, id))
        return false;
    if ((piece->flags & WIRE_PIECE_IMPORT) != 0) {
        uint8_t proof[DIGEST_PROOF_BYTES];
        digest_proof(&blob->info.digest, id, &transfer->config.self_id, proof);
        return memcmp(proof, piece->proof, sizeof proof) == 0;
    }
    const struct neighbour *neighbour =
        blob->swarm == NULL ? NULL : transfer__neighbour(blob->swarm, from);
    return neighbour != NULL && neighbour->state == NEIGHBOUR_UP;
}

static void refuse(struct transfer *transfer, struct upload *upload, uint8_t flags,
                   uint64_t wait_us)
{
    ASSERT(!upload->running);
    struct wire_piece request = {
        .blob = upload->blob->info.key,
        .piece = upload->piece,
        .serial = upload->serial,
    };
    answer(transfer, upload->node, &request, WIRE_TRANSFER_BUSY, flags, wait_us);
    remove_upload(transfer, upload);
}

/* So long somebody whose request has no room is to leave this node alone. */
static uint32_t busy_wait_us(const struct transfer *transfer)
{
    uint32_t wait_us = transfer__upload_wait_us(transfer) / 2;
    return wait_us > BUSY_MIN_US ? wait_us : BUSY_MIN_US;
}

/* The upload that came last of those that wait for the peer with the most here, if that are so
 * many; NULL: nobody has. */
static struct upload *greediest(struct transfer *transfer)
{
    struct upload *last = NULL;
    uint32_t most = UPLOADS_GREEDY;
    for (uint32_t i = 0; i < transfer->upload_count; i++) {
        struct upload *upload = &transfer->uploads[i];
        if (upload->running || upload->lease || upload->peer->uploads < most)
            continue;
        most = upload->peer->uploads;
        last = upload;
    }
    return last;
}

/* Is there room for one more of this peer? One that has nothing here takes the place of who has
 * much: the queue is short, and two that flood it would keep all others out (P-8). */
static bool make_room(struct transfer *transfer, uint16_t from, bool lease)
{
    const struct peer *peer = transfer->nodes.slots[from].peer;
    uint32_t room = transfer->config.upload_queue + (lease ? UPLOADS_EXTRA : 0);
    if (peer != NULL && peer->uploads >= UPLOADS_PER_PEER)
        return false;
    if (queued_count(transfer) < room)
        return true;
    bool has_none = peer == NULL || peer->uploads == 0;
    struct upload *other = has_none ? greediest(transfer) : NULL;
    if (other == NULL)
        return false;
    refuse(transfer, other, 0, busy_wait_us(transfer));
    return true;
}

static void enqueue(struct transfer *transfer, uint16_t from, struct blob *blob,
                    const struct wire_piece *piece)
{
    struct peer *peer = transfer__peer(transfer, from);
    if (peer == NULL)
        return;
    struct upload *upload = &transfer->uploads[transfer->upload_count++];
    *upload = (struct upload){
        .id = ++transfer->next_id,
        .blob = blob,
        .peer = peer,
        .piece = piece->piece,
        .serial = piece->serial,
        .node = from,
        .lease = (piece->flags & WIRE_PIECE_LEASE) != 0,
        .queued_us = transfer->now_us,
    };
    count_upload(upload, true);
    transfer__uploads_start(transfer);
    if (!upload->running)
        answer(transfer, from, piece, WIRE_TRANSFER_QUEUED, 0, transfer__upload_wait_us(transfer));
}

void transfer__on_request(struct transfer *transfer, uint16_t from, const struct wire_piece *piece)
{
    struct blob *blob = transfer__blob_by_key(transfer, &piece->blob);
    bool lease = (piece->flags & WIRE_PIECE_LEASE) != 0;
    if (blob == NULL || !authorised(transfer, from, blob, piece)) {
        /* The same answer to both: whether the blob is here is told to nobody who cannot name its
         * digest (ACL-9). */
        transfer->stats.rejected++;
        answer(transfer, from, piece, WIRE_TRANSFER_BUSY, WIRE_PIECE_MISSING | WIRE_PIECE_UNKNOWN,
               REFUSED_US);
        return;
    }
    if (find_upload(transfer, from, piece->serial) != NULL ||
        was_served(transfer, from, piece->serial)) {
        answer(transfer, from, piece, WIRE_TRANSFER_QUEUED, 0, transfer__upload_wait_us(transfer));
        return;
    }
    if (piece->piece >= blob->layout.piece_count ||
        (!bitfield_get(&blob->have, piece->piece) && !(lease && is_coming(blob, piece->piece)))) {
        answer(transfer, from, piece, WIRE_TRANSFER_BUSY, WIRE_PIECE_MISSING, 0);
        return;
    }
    if (transfer->draining) {
        busy(transfer, from, piece, REFUSED_US);
        return;
    }
    if (!make_room(transfer, from, lease)) {
        busy(transfer, from, piece, busy_wait_us(transfer));
        return;
    }
    enqueue(transfer, from, blob, piece);
}

void transfer__on_cancel(struct transfer *transfer, uint16_t from, const struct wire_piece *piece)
{
    struct upload *upload = find_upload(transfer, from, piece->serial);
    /* The request itself may still be on its way. */
    if (!was_served(transfer, from, piece->serial))
        note_served(transfer, from, piece->serial);
    if (upload != NULL)
        cancel_upload(transfer, upload);
}

/* Its piece turned out to be lost or damaged: who waits for it asks elsewhere at once, not when
 * nothing has come for seconds (D-2; 12 MiB of which nearly all was gone: 6.3 s, now 0.7). */
static void tell_lost(struct transfer *transfer, const struct upload *upload)
{
    const struct blob *blob = upload->blob;
    if (blob == NULL || upload->node == NODE_NONE || bitfield_get(&blob->have, upload->piece))
        return;
    const struct wire_piece request = {
        .blob = blob->info.key,
        .piece = upload->piece,
        .serial = upload->serial,
    };
    answer(transfer, upload->node, &request, WIRE_TRANSFER_BUSY, WIRE_PIECE_MISSING, 0);
}

void transfer__uploads_end(struct transfer *transfer, const struct blob *blob, uint32_t piece,
                           uint16_t node)
{
    for (uint32_t i = transfer->upload_count; i > 0; i--) {
        struct upload *upload = &transfer->uploads[i - 1];
        bool whole = blob != NULL && piece == blob->layout.piece_count;
        bool meant =
            (blob == NULL || (upload->blob == blob && (whole || upload->piece == piece))) &&
            (node == NODE_NONE || upload->node == node);
        if (!meant)
            continue;
        bool running = upload->running;
        if (!running && !whole)
            tell_lost(transfer, upload);
        cancel_upload(transfer, upload);
        if (running && whole)
            upload->blob = NULL;
        if (running && node != NODE_NONE) {
            count_upload(upload, false);
            upload->node = NODE_NONE;
            upload->peer = NULL;
        }
    }
}

void transfer__upload_refuse(struct transfer *transfer, struct upload *upload)
{
    refuse(transfer, upload, 0, REFUSED_US);
}

void transfer__uploads_tick(struct transfer *transfer)
{
    for (uint32_t i = transfer->upload_count; i > 0; i--) {
        struct upload *upload = &transfer->uploads[i - 1];
        if (upload->running)
            continue;
        if (!bitfield_get(&upload->blob->have, upload->piece) &&
            !is_coming(upload->blob, upload->piece)) {
            refuse(transfer, upload, WIRE_PIECE_MISSING, 0);
            continue;
        }
        if (upload->peer->link == LINK_UP || transfer->now_us - upload->queued_us < LINKLESS_US)
            continue;
        remove_upload(transfer, upload);
    }
}

void transfer_upload_end(struct transfer *transfer, uint64_t now_us, uint64_t upload_id,
                         uint64_t bytes, int status)
{
    transfer__enter(transfer, now_us);
    for (uint32_t i = 0; i < transfer->upload_count; i++) {
        struct upload *upload = &transfer->uploads[i];
        if (upload->id != upload_id || !upload->running)
            continue;
        transfer->stats.uploads += status == 0 ? 1 : 0;
        transfer->stats.upload_bytes += bytes;
        if (upload->blob != NULL)
            upload->blob->given_bytes += bytes;
        if (status == 0)
            transfer->upload_us =
                transfer__mean(transfer->upload_us, transfer->now_us - upload->started_us);
        if (status != 0)
            tell_lost(transfer, upload);
        if (upload->node != NODE_NONE && status == 0)
            note_served(transfer, upload->node, upload->serial);
        remove_upload(transfer, upload);
        break;
    }
    transfer__leave(transfer);
}
