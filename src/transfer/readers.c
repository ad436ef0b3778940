/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers of blobs: which pieces they want, how far they may be ahead of their clients where the
 * cache bounds that, what clients wait for right now, and what begins and ends with them.
 */
#include "lease.h"

/* Grants wait so long for the DHT to name holders before the origin is read. */
#define GATE_US (30 * MS)
/* Pieces that a reader may be ahead of its client in any case: asked for, arriving, being verified.
 */
#define AHEAD_LEAST 8
/* When pieces go before their client is there, half as far is left, so often and down to so many.
 */
#define AHEAD_CUT_US    (100 * MS)
#define AHEAD_CUT_LEAST 32u

static struct reader *find_reader(const struct transfer *transfer, uint64_t id)
{
    struct reader *reader = transfer->readers;
    while (reader != NULL && reader->id != id)
        reader = reader->next;
    return reader;
}

/* Pieces that a reader may be ahead of its client: its share of what all may be. */
static uint32_t ahead_pieces(const struct transfer *transfer, const struct reader *reader)
{
    uint64_t readers = 0;
    if (transfer->ahead_bytes == 0 || reader->mode == TRANSFER_READ_PREFETCH)
        return UINT32_MAX;
    for (const struct reader *other = transfer->readers; other != NULL; other = other->next)
        readers += other->mode != TRANSFER_READ_PREFETCH;
    uint64_t share = transfer->ahead_bytes / readers / reader->blob->layout.piece_bytes;
    if (share < AHEAD_LEAST)
        return AHEAD_LEAST;
    return share < UINT32_MAX ? (uint32_t)share : UINT32_MAX;
}

uint32_t transfer__reader_pieces(const struct transfer *transfer, const struct reader *reader)
{
    uint32_t ahead = ahead_pieces(transfer, reader), all = reader->end - reader->first;
    return ahead < all ? ahead : all;
}

/* The reader's client is at `at`; what it wants follows. */
static void move_reader(const struct transfer *transfer, struct reader *reader, uint32_t at)
{
    uint32_t old_at = reader->at, old_limit = reader->limit;
    uint32_t ahead = ahead_pieces(transfer, reader);
    reader->at = at;
    reader->limit = ahead < reader->end - at ? at + ahead : reader->end;
    transfer__want_again(transfer, reader->blob, at < old_at ? at : old_at,
                         at < old_at ? old_at : at, false);
    bool fewer = reader->limit < old_limit;
    transfer__want_again(transfer, reader->blob, fewer ? reader->limit : old_limit,
                         fewer ? old_limit : reader->limit, false);
}

/* One reader more or less: the others' shares change. */
static void share_ahead(const struct transfer *transfer)
{
    if (transfer->ahead_bytes == 0)
        return;
    for (struct reader *reader = transfer->readers; reader != NULL; reader = reader->next)
        move_reader(transfer, reader, reader->at);
}

/* A piece went that a client is still to get: the cache keeps less than was thought, as when its
 * disk is full and memory is all there is. Readers go less far ahead until there are none; else
 * what came out of order would go and come again. */
static void shrink_ahead(struct transfer *transfer, const struct blob *blob, uint32_t piece)
{
    const struct reader *reader = transfer->readers;
    while (reader != NULL && (reader->blob != blob || reader->mode == TRANSFER_READ_PREFETCH ||
                              piece < reader->at || piece >= reader->end))
        reader = reader->next;
    if (reader == NULL || transfer->now_us < transfer->ahead_cut_us + AHEAD_CUT_US)
        return;
    uint64_t now = (uint64_t)(reader->limit - reader->at) * blob->layout.piece_bytes;
    if (transfer->ahead_bytes == 0 || now < transfer->ahead_bytes)
        transfer->ahead_bytes = now;
    uint64_t least = AHEAD_CUT_LEAST * (uint64_t)blob->layout.piece_bytes;
    transfer->ahead_bytes /= 2;
    if (transfer->ahead_bytes < least)
        transfer->ahead_bytes = least;
    transfer->ahead_cut_us = transfer->now_us;
    share_ahead(transfer);
}

void transfer_piece_lost(struct transfer *transfer, uint64_t now_us, blob_handle handle,
                         uint32_t piece)
{
    transfer__enter(transfer, now_us);
    struct blob *blob = transfer__blob(transfer, handle);
    if (blob != NULL && piece < blob->layout.piece_count) {
        transfer__piece_forget(transfer, blob, piece);
        shrink_ahead(transfer, blob, piece);
        transfer__touch(transfer);
    }
    transfer__leave(transfer);
}

bool transfer__interactive(const struct transfer *transfer, const struct blob *blob)
{
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next) {
        if (reader->blob == blob && reader->mode != TRANSFER_READ_PREFETCH)
            return true;
    }
    return false;
}

bool transfer__is_behind(const struct transfer *transfer, const struct blob *blob)
{
    bool others = false;
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next) {
        if (reader->mode == TRANSFER_READ_PREFETCH)
            continue;
        if (reader->blob == blob)
            return false;
        others = others || bitfield_next_clear(&reader->blob->have, reader->at) < reader->limit;
    }
    return others;
}

uint32_t transfer__reader_front(const struct blob *blob, const struct reader *reader)
{
    if (reader->blob != blob || reader->mode == TRANSFER_READ_PREFETCH)
        return blob->layout.piece_count;
    uint32_t front = bitfield_next_clear(&blob->have, reader->at);
    return front < reader->limit ? front : blob->layout.piece_count;
}

uint32_t transfer__front(const struct transfer *transfer, const struct blob *blob)
{
    uint32_t front = blob->layout.piece_count;
    const struct reader *reader = transfer->readers;
    for (; reader != NULL && front == blob->layout.piece_count; reader = reader->next)
        front = transfer__reader_front(blob, reader);
    return front;
}

void transfer__locate(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    struct transfer_result result = {
        .kind = TRANSFER_LOCATE,
        .blob = blob->handle,
        .key = blob->info.key,
    };
    swarm->locate_due_us = transfer->now_us + 10 * S;
    if (transfer__live(transfer) <= 1)
        return;
    swarm->locating = transfer__push(transfer, &result);
    if (swarm->locating)
        swarm->gate_us = transfer->now_us + GATE_US;
}

/* Whoever joins with credentials tries the origin anew. */
static void reader_begins(struct transfer *transfer, struct reader *reader)
{
    struct blob *blob = reader->blob;
    struct swarm *swarm = blob->swarm;
    bool first = swarm->readers == 0;
    swarm->readers++;
    if (reader->can_fetch) {
        swarm->fetchers++;
        swarm->origin_denied = false;
        memset(swarm->fails, 0, blob->layout.segment_count);
    }
    transfer__want_again(transfer, blob, reader->at, reader->end, true);
    if (!first || swarm->open.set_count == 0)
        return;
    swarm->progress_us = swarm->working_us = transfer->now_us;
    swarm->started_us = transfer->now_us;
    memset(swarm->retry_ms, 0, blob->layout.segment_count * sizeof *swarm->retry_ms);
    swarm->announce_due_us = swarm->grow_due_us = transfer->now_us;
    swarm->sourceless_us = 0;
    /* The tick may be far off: nothing was going on. */
    uint64_t due_us = transfer__fallback_deadline(transfer);
    if (due_us < transfer->tick_due_us)
        transfer->tick_due_us = due_us;
    transfer__locate(transfer, blob);
}

int transfer_read_start(struct transfer *transfer, uint64_t now_us, blob_handle handle,
                        uint32_t first_piece, uint32_t piece_count, enum transfer_read_mode mode,
                        bool can_fetch, uint64_t *reader_id)
{
    transfer__enter(transfer, now_us);
    struct blob *blob = transfer__blob(transfer, handle);
    if (blob == NULL)
        return E_NOT_FOUND;
    uint32_t pieces = blob->layout.piece_count;
    if (first_piece > pieces || piece_count > pieces - first_piece || mode < TRANSFER_READ_STREAM ||
        mode > TRANSFER_READ_PREFETCH)
        return E_INVALID;
    struct reader *reader = transfer__zalloc(transfer, sizeof *reader);
    if (reader == NULL || transfer__swarm(transfer, blob) == NULL) {
        transfer__release(transfer, reader);
        return E_NO_MEMORY;
    }
    *reader = (struct reader){
        .id = ++transfer->next_id,
        .blob = blob,
        .mode = mode,
        .first = first_piece,
        .end = first_piece + piece_count,
        .at = first_piece,
        .limit = first_piece,
        .can_fetch = can_fetch,
    };
    struct reader **at = &transfer->readers;
    while (*at != NULL)
        at = &(*at)->next;
    *at = reader;
    move_reader(transfer, reader, first_piece);
    reader_begins(transfer, reader);
    share_ahead(transfer);
    *reader_id = reader->id;
    transfer__touch(transfer);
    transfer__leave(transfer);
    return 0;
}

void transfer_read_move(struct transfer *transfer, uint64_t now_us, uint64_t reader_id,
                        uint32_t piece)
{
    transfer__enter(transfer, now_us);
    struct reader *reader = find_reader(transfer, reader_id);
    if (reader != NULL && piece >= reader->first && piece <= reader->end && piece != reader->at) {
        move_reader(transfer, reader, piece);
        transfer__touch(transfer);
    }
    transfer__leave(transfer);
}

void transfer_read_stop(struct transfer *transfer, uint64_t now_us, uint64_t reader_id)
{
    transfer__enter(transfer, now_us);
    struct reader **at = &transfer->readers;
    while (*at != NULL && (*at)->id != reader_id)
        at = &(*at)->next;
    struct reader *reader = *at;
    if (reader != NULL) {
        struct blob *blob = reader->blob;
        struct swarm *swarm = blob->swarm;
        ASSERT(swarm != NULL && swarm->readers > 0);
        *at = reader->next;
        swarm->readers--;
        if (reader->can_fetch)
            swarm->fetchers--;
        transfer__want_again(transfer, blob, reader->at, reader->end, false);
        transfer__release(transfer, reader);
        if (transfer->readers == NULL)
            transfer->ahead_bytes = transfer->config.ahead_bytes;
        share_ahead(transfer);
        if (swarm->readers == 0) {
            transfer__requests_unwanted(transfer, blob);
            transfer__leases_unwanted(transfer, blob);
            transfer__announce(transfer, blob, !bitfield_full(&blob->have));
        }
        transfer__touch(transfer);
    }
    transfer__leave(transfer);
}
