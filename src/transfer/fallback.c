/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads without a lease when the mesh gives nothing: nobody answers and a client waits for its
 * first byte, or nothing of a blob moves (ALGORITHMS §3.3 rule 8). Few at a time, here and at the
 * neighbours: a stampede to the origin is the worst failure of such a mesh.
 */
#include "lease.h"

#define NO_PROGRESS_US   (3 * S)
#define PENDING_FRESH_US (1 * S)
#define PENDING_PATIENCE 3
/* Another read of the same would be as slow: at 50 KB/s (O-3) a piece of 1 MiB takes 21 s after the
 * first byte. */
#define MOVES_PATIENCE 10
/* A read of this node that got no byte yet says of the registry what PENDING says of the mesh: for
 * so long, as a keeper waits for a lessee. */
#define OWN_SILENT_US (6 * S)
/* Bytes of a read of this node's; they are told by 16 KiB or so. */
#define OWN_MOVES_US (3 * S)
/* Reads without lease for lack of progress that all neighbours together may have running; while
 * others' move, that is how many more copies there are of what a slow registry gives. */
#define MESH_FALLBACKS_MAX       8
#define MESH_FALLBACKS_MOVES_MAX 1
/* A client waits and not one node answered: its first pieces come from the origin (HTTP-6, and the
 * figures for a dead mesh in SECURITY-RELIABILITY §5). */
#define FIRST_BYTE_US (120 * MS)

/* What to read when nothing moves: what the reader waits for, else the first that is open, else
 * what has been asked of others in vain. */
static uint32_t stuck_piece(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t none = blob->layout.piece_count;
    uint32_t front = transfer__front(transfer, blob);
    if (front != none && (blob->swarm->flags[front] & (PIECE_FAILED | PIECE_PASSED)) == 0)
        return front;
    uint32_t piece = bitfield_next_set(&blob->swarm->open, 0);
    if (piece < none)
        return piece;
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        if (transfer->requests[i].blob == blob && !transfer->requests[i].received)
            return transfer->requests[i].piece;
    }
    return none;
}

/* Other blobs have the node's budget of requests, or of leases: this one waits for its turn, not
 * for the mesh. Twelve layers at once were read 1.5 times for want of the latter. */
static bool waits_its_turn(const struct transfer *transfer, const struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    if (transfer__is_behind(transfer, blob))
        return true;
    if (swarm->requests > 0 || transfer->inflight == 0)
        return false;
    bool asked = swarm->leases > 0 || transfer->now_us - swarm->pending_us < PENDING_FRESH_US;
    bool on_offer = swarm->open.set_count > swarm->absent.set_count;
    return !asked || on_offer;
}

static enum transfer_outlook outlook(const struct transfer *transfer, const struct blob *blob,
                                     uint64_t now_us)
{
    const struct swarm *swarm = blob->swarm;
    enum transfer_outlook found = TRANSFER_OUTLOOK_NONE;
    if (now_us - swarm->pending_us < PENDING_FRESH_US)
        found = TRANSFER_OUTLOOK_ASKED;
    if (swarm->moves_us != 0 && now_us - swarm->moves_us < PENDING_FRESH_US)
        return TRANSFER_OUTLOOK_MOVES;
    for (const struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next) {
        if (fetch->blob != blob || fetch->cancelled || fetch->ended)
            continue;
        if (fetch->bytes > 0 && now_us - fetch->progress_us < OWN_MOVES_US)
            return TRANSFER_OUTLOOK_MOVES;
        if (fetch->bytes == 0 && now_us - fetch->started_us < OWN_SILENT_US)
            found = TRANSFER_OUTLOOK_ASKED;
    }
    return found;
}

enum transfer_outlook transfer_outlook(const struct transfer *transfer, uint64_t now_us,
                                       blob_handle handle)
{
    const struct blob *blob = transfer__blob(transfer, handle);
    if (blob == NULL || blob->swarm == NULL)
        return TRANSFER_OUTLOOK_NONE;
    enum transfer_outlook found =
        outlook(transfer, blob, now_us > transfer->now_us ? now_us : transfer->now_us);
    const struct lease *lease = found == TRANSFER_OUTLOOK_NONE ? transfer->leases : NULL;
    for (; lease != NULL; lease = lease->next) { /* of what another zone reads */
        bool elsewhere = lease->state == LEASE_WAITING || lease->state == LEASE_IMPORTING;
        found = lease->blob == blob && elsewhere ? TRANSFER_OUTLOOK_ASKED : found;
    }
    return found;
}

static void no_progress(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    uint64_t patience_us = 6 * (uint64_t)swarm->piece_us;
    uint32_t fallbacks_max = MESH_FALLBACKS_MAX;
    patience_us = patience_us > NO_PROGRESS_US ? patience_us : NO_PROGRESS_US;
    enum transfer_outlook look = outlook(transfer, blob, transfer->now_us);
    if (look == TRANSFER_OUTLOOK_ASKED)
        patience_us *= PENDING_PATIENCE;
    if (look == TRANSFER_OUTLOOK_MOVES) {
        patience_us *= MOVES_PATIENCE;
        fallbacks_max = MESH_FALLBACKS_MOVES_MAX;
    }
    uint32_t piece = stuck_piece(transfer, blob);
    if (waits_its_turn(transfer, blob))
        swarm->progress_us = transfer->now_us;
    if (piece == blob->layout.piece_count || transfer->now_us - swarm->progress_us < patience_us) {
        swarm->fallback_us = 0;
        return;
    }
    uint64_t jitter_us = prng_below(&transfer->prng, transfer->config.fallback_us / 2 + 1);
    if (swarm->fallback_us == 0)
        swarm->fallback_us = transfer->now_us + jitter_us;
    if (transfer->now_us < swarm->fallback_us ||
        transfer->fallbacks >= transfer->config.fallbacks_max ||
        transfer__mesh_fallbacks(swarm) >= fallbacks_max)
        return;
    (void)transfer__lease_take(transfer, blob, segment_of(&blob->layout, piece), FETCH_NO_PROGRESS);
    swarm->fallback_us = transfer->now_us + 1 * S + jitter_us;
}

/* A client waits for its first byte and not one node said a word, neither keepers nor those greeted
 * as neighbours. That something came, by leases that this node could grant itself, helps it little.
 * Until somebody speaks nothing else waits so long for an answer: what comes next would begin as
 * late, and the rest of this blob later (1.6 s for 24 MiB). */
static void first_byte(struct transfer *transfer, struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    uint32_t front = transfer__front(transfer, blob);
    if (front == blob->layout.piece_count || !bitfield_get(&swarm->open, front) ||
        transfer->heard_us >= swarm->started_us ||
        transfer->now_us - swarm->started_us < transfer__mesh_rto_us(transfer, FIRST_BYTE_US) ||
        transfer->fallbacks > 0)
        return;
    if (transfer->mesh_quiet_us == 0)
        transfer->mesh_quiet_us = transfer->now_us;
    (void)transfer__lease_take(transfer, blob, segment_of(&blob->layout, front), FETCH_NO_KEEPER);
}

void transfer__fallback_tick(struct transfer *transfer, struct blob *blob)
{
    if (blob->swarm->readers == 0 || !transfer__can_fetch(transfer, blob))
        return;
    first_byte(transfer, blob);
    no_progress(transfer, blob);
}

uint64_t transfer__fallback_deadline(const struct transfer *transfer)
{
    uint64_t deadline_us = UINT64_MAX;
    for (const struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        uint64_t at_us = blob->swarm->started_us + transfer__mesh_rto_us(transfer, FIRST_BYTE_US);
        bool waits = blob->swarm->readers > 0 && transfer->heard_us < blob->swarm->started_us;
        if (waits && at_us > transfer->now_us && at_us < deadline_us)
            deadline_us = at_us;
    }
    return deadline_us;
}
