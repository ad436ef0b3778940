/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers of live blobs: what may be given out, when, and from where. INT-1 (the tail of a whole
 * read waits for the digest), INT-2 (small blobs wait whole), INT-3 (vouched pieces stream).
 */
#include <string.h>
#include <unistd.h>

#include "blob_internal.h"
#include "content.h"
#include "log.h"
#include "prefetch.h"

bool blob__wants_digest(const struct blob *blob)
{
    if (blob->repairing)
        return true;
    for (const struct blob_reader *reader = blob->readers; reader != NULL; reader = reader->next) {
        if (reader->whole || reader->ahead || blob->blobs->config.verified_only)
            return true;
    }
    return false;
}

void blob__wake(struct blob *blob)
{
    (void)blob__ref(blob);
    for (struct blob_reader *reader = blob->readers, *next; reader != NULL; reader = next) {
        next = reader->next;
        if (!reader->waiting || reader->ended)
            continue;
        reader->waiting = false;
        reader->ready(reader->arg);
    }
    blob__unref(blob);
}

void blob__fail(struct blob *blob, int status)
{
    (void)blob__ref(blob);
    for (struct blob_reader *reader = blob->readers, *next; reader != NULL; reader = next) {
        next = reader->next;
        if (reader->ended)
            continue;
        reader->ended = true;
        reader->failed(reader->arg, status);
    }
    blob__unref(blob);
}

static void drop_caller(struct blob *blob, uint32_t index)
{
    blob_caller_put(blob->callers[index]);
    blob->caller_count--;
    memmove(&blob->callers[index], &blob->callers[index + 1],
            (blob->caller_count - index) * sizeof blob->callers[0]);
}

/* Remembers on whose behalf the origin may be read; one entry per credentials, the newest last. A
 * full table gives up one that the registry refused, else the oldest. */
static void add_caller(struct blob *blob, struct blob_caller *caller)
{
    uint32_t victim = 0;
    for (uint32_t i = 0; i < blob->caller_count; i++) {
        struct blob_caller *known = blob->callers[i];
        bool same = known->registry == caller->registry &&
                    strcmp(known->repository, caller->repository) == 0 &&
                    memcmp(known->credential_hash, caller->credential_hash, 32) == 0;
        if (same) {
            drop_caller(blob, i);
            break;
        }
        if (known->refused)
            victim = i;
    }
    if (blob->caller_count == BLOB_CALLERS_MAX)
        drop_caller(blob, victim);
    blob->callers[blob->caller_count++] = blob_caller_ref(caller);
}

/* ACL-7: what the node's own login was used for is over. */
static void forget_node(struct blob *blob, const struct blob_caller *caller)
{
    for (uint32_t i = 0; caller != NULL && caller->as_node && i < blob->caller_count; i++) {
        if (blob->callers[i] == caller) {
            drop_caller(blob, i);
            return;
        }
    }
}

static uint32_t end_piece(const struct blob *blob, const struct blob_reader *reader)
{
    return piece_at(&blob->layout, reader->end - 1) + 1;
}

static bool all_here(const struct blob *blob, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        if (!blob->pieces[i].have)
            return false;
    }
    return true;
}

/* Ranges are read from the origin by whole blocks. */
static uint32_t block_pieces(const struct blob *blob, const struct blob_reader *reader)
{
    uint64_t pieces = blob->blobs->config.block_bytes / blob->layout.piece_bytes;
    return reader->range && pieces > 1 ? (uint32_t)pieces : 1;
}

/* What the registry says that the reader's client asked; 0: nothing. */
static enum transfer_copies copies_of(const struct blob_reader *reader)
{
    static_assert((int)REGISTRY_COPIES_MESH == (int)TRANSFER_COPIES_MESH &&
                      (int)REGISTRY_COPIES_ZONE == (int)TRANSFER_COPIES_ZONE,
                  "one is the other");
    return reader->caller == NULL ? (enum transfer_copies)0
                                  : (enum transfer_copies)reader->caller->registry->copies;
}

/* Has transfer pull what is missing. During a repair the registry alone is read (INT-7). */
static int pull(struct blob *blob, struct blob_reader *reader)
{
    uint32_t first = piece_at(&blob->layout, reader->offset), end = end_piece(blob, reader);
    if (reader->reader_id != 0 || blob->repairing || all_here(blob, first, end) ||
        (!reader->ahead && blob_content__waits(blob)))
        return 0;
    reader->piece_told = first;
    uint32_t block = block_pieces(blob, reader);
    first -= first % block;
    end += block - 1;
    end -= end % block;
    if (end > blob->layout.piece_count)
        end = blob->layout.piece_count;
    enum transfer_read_mode mode = reader->ahead   ? TRANSFER_READ_PREFETCH
                                   : reader->range ? TRANSFER_READ_RANGE
                                                   : TRANSFER_READ_STREAM;
    struct transfer *transfer = node_transfer(blob->blobs->config.node);
    uint64_t now_us = loop_now_us(blob->blobs->config.loop);
    transfer_blob_copies(transfer, now_us, blob->handle, copies_of(reader));
    return transfer_read_start(transfer, now_us, blob->handle, first, end - first, mode,
                               blob->caller_count > 0, &reader->reader_id);
}

static void buffers_ready(void *arg)
{
    struct blob_reader *reader = arg;
    if (reader->ended || !reader->waiting)
        return;
    reader->waiting = false;
    reader->ready(reader->arg);
}

/* What is being read stays if it fits. */
static struct cache_blob *held_place(struct blob *blob)
{
    bool held = cache_hold_if_fits(blob->blobs->config.cache, blob->cached);
    return held ? blob->cached : NULL;
}

uint64_t blobs_ahead_max(const struct blobs *blobs)
{
    struct cache_stats stats;
    cache_stats(blobs->config.cache, &stats);
    return stats.degraded ? 0 : prefetch_room(stats.capacity_bytes);
}

static uint32_t *counter_of(const struct blob_reader *reader)
{
    struct blobs_counters *counters = &reader->blob->blobs->counters;
    return reader->ahead ? &counters->ahead : &counters->readers;
}

static void note_began(const struct blob *blob, const struct blob_reader *reader)
{
    const struct blob_caller *caller = reader->caller;
    const struct history_subject subject = {
        .digest = &blob->info.digest,
        .size_bytes = blob->info.size_bytes,
        .registry = caller == NULL ? "" : caller->registry->name,
        .repository = caller == NULL ? "" : caller->repository,
    };
    history_began(blob->blobs->history, &subject, reader->ahead);
}

int blob_read_start(struct blob *blob, struct blob_reader *reader, uint64_t first, uint64_t end,
                    enum transfer_read_mode mode, struct blob_caller *caller)
{
    if (first >= end || end > blob->info.size_bytes)
        return E_RANGE;
    reader->blob = blob__ref(blob);
    reader->caller = caller == NULL ? NULL : blob_caller_ref(caller);
    reader->reader_id = 0;
    reader->offset = first;
    reader->end = end;
    reader->whole = first == 0 && end == blob->info.size_bytes;
    reader->waiting = reader->ended = false;
    reader->buffers = (struct buffer_waiter){.ready = buffers_ready, .arg = reader};
    reader->ahead = mode == TRANSFER_READ_PREFETCH;
    reader->range = mode == TRANSFER_READ_RANGE;
    reader->next = blob->readers;
    blob->readers = reader;
    (*counter_of(reader))++;
    reader->held = held_place(blob);
    note_began(blob, reader);
    if (caller != NULL)
        add_caller(blob, caller);
    int err = reader->ahead && reader->held == NULL ? E_NO_SPACE : 0;
    if (err == 0)
        err = pull(blob, reader);
    if (err != 0) {
        blob_read_stop(reader);
        return err;
    }
    blob_piece__hash_on(blob);
    return 0;
}

void blob_read_stop(struct blob_reader *reader)
{
    struct blob *blob = reader->blob;
    struct blobs *blobs = blob->blobs;
    struct blob_reader **link = &blob->readers;
    while (*link != NULL && *link != reader)
        link = &(*link)->next;
    ASSERT(*link == reader);
    *link = reader->next;
    buffer_unwait(blobs->config.pool, &reader->buffers);
    if (reader->reader_id != 0)
        transfer_read_stop(node_transfer(blobs->config.node), loop_now_us(blobs->config.loop),
                           reader->reader_id);
    forget_node(blob, reader->caller);
    blob_caller_put(reader->caller);
    if (reader->held != NULL)
        cache_unhold(blobs->config.cache, reader->held);
    blobs__evictions(blobs);
    (*counter_of(reader))--;
    history_ended(blobs->history, &blob->info.digest);
    reader->blob = NULL;
    blob_piece__hash_on(blob);
    blob__unref(blob);
}

void blob__ahead_lost(struct blob *blob)
{
    for (struct blob_reader *reader = blob->readers; reader != NULL; reader = reader->next) {
        if (!reader->ahead || reader->ended)
            continue;
        reader->ended = true;
        if (reader->reader_id != 0)
            transfer_read_stop(node_transfer(blob->blobs->config.node),
                               loop_now_us(blob->blobs->config.loop), reader->reader_id);
        reader->reader_id = 0;
    }
}

bool blob_read_lost(const struct blob_reader *reader)
{
    return reader->ended;
}

uint64_t blob_read_position(const struct blob_reader *reader)
{
    return reader->offset;
}

/* See blob_fetch__bytes, of the first piece that the reader misses; 0: it misses none. */
static uint64_t fetch_bytes(const struct blob_reader *reader)
{
    const struct blob *blob = reader->blob;
    uint32_t end = end_piece(blob, reader);
    for (uint32_t piece = piece_at(&blob->layout, reader->offset); piece < end; piece++) {
        if (!blob->pieces[piece].have)
            return blob_fetch__bytes(blob, piece);
    }
    return 0;
}

uint64_t blob_read_progress(const struct blob_reader *reader)
{
    const struct blob *blob = reader->blob;
    return blob->sources.origin + blob->sources.peer + fetch_bytes(reader);
}

bool blob_read_fetching(const struct blob_reader *reader)
{
    return fetch_bytes(reader) > 0;
}

enum transfer_outlook blob_read_outlook(const struct blob_reader *reader)
{
    const struct blobs *blobs = reader->blob->blobs;
    return transfer_outlook(node_transfer(blobs->config.node), loop_now_us(blobs->config.loop),
                            reader->blob->handle);
}

/* First byte that may not be given out yet. */
static uint64_t release_limit(const struct blob *blob, const struct blob_reader *reader)
{
    if (blob->verified)
        return reader->end;
    if (blob->blobs->config.verified_only || blob->repairing)
        return 0;
    if (!reader->whole)
        return reader->end;
    if (blob->info.size_bytes <= VERIFY_WHOLE_BYTES_MAX)
        return 0;
    return reader->end - HELD_BACK_BYTES;
}

static int wait_for(struct blob_reader *reader)
{
    reader->waiting = true;
    return E_AGAIN;
}

static void tell_position(struct blob *blob, struct blob_reader *reader, uint32_t piece)
{
    if (reader->reader_id == 0 || piece == reader->piece_told)
        return;
    reader->piece_told = piece;
    transfer_read_move(node_transfer(blob->blobs->config.node),
                       loop_now_us(blob->blobs->config.loop), reader->reader_id, piece);
}

/* From the file, without a copy, when the stored bytes were verified lately. */
static bool chunk_from_file(struct blob *blob, uint32_t piece, struct blob_chunk *out)
{
    struct blobs *blobs = blob->blobs;
    const struct blob_piece *slot = &blob->pieces[piece];
    uint64_t now_us = loop_now_us(blobs->config.loop);
    if (!slot->stored || slot->checked_us == 0 || now_us - slot->checked_us > BLOB_VERIFY_AGAIN_US)
        return false;
    if (cache_pin(blobs->config.cache, blob->cached, piece, now_us) != 0)
        return false;
    if (cache_open_fd(blobs->config.cache, blob->cached, piece, &out->fd, &out->fd_offset) != 0) {
        cache_unpin(blobs->config.cache, blob->cached, piece);
        return false;
    }
    out->cached = blob->cached;
    return true;
}

static int load_piece(struct blob *blob, struct blob_reader *reader, uint32_t piece)
{
    struct buffer_pool *pool = blob->blobs->config.pool;
    if (blob->pieces[piece].loading)
        return wait_for(reader);
    if (blob_piece__load(blob, piece, true, NULL, NULL) != 0 && !reader->buffers.waiting) {
        reader->buffers.bytes = piece_length(&blob->layout, piece);
        reader->buffers.use = BUFFER_FOR_LOCAL;
        buffer_wait(pool, &reader->buffers);
    }
    return wait_for(reader);
}

static enum blob_tier tier_of(const struct blob_piece *slot, bool from_file)
{
    if (slot->tier == BLOB_FROM_PEER || slot->tier == BLOB_FROM_ORIGIN ||
        slot->tier == BLOB_FROM_CONTENT)
        return (enum blob_tier)slot->tier;
    return from_file ? BLOB_FROM_DISK : BLOB_FROM_MEMORY;
}

static void count_given(struct blobs_counters *counters, enum blob_tier tier, uint32_t bytes)
{
    uint64_t given = 0, read = counters->piece_bytes[BLOB_FROM_ORIGIN];
    counters->client_bytes[tier] += bytes;
    for (int i = BLOB_FROM_MEMORY; i < BLOB_TIER_COUNT; i++)
        given += counters->client_bytes[i];
    if (given > read && given - read > counters->saved_bytes)
        counters->saved_bytes = given - read;
}

int blob_read_next(struct blob_reader *reader, uint32_t max_bytes, struct blob_chunk *out)
{
    struct blob *blob = reader->blob;
    if (reader->offset == reader->end)
        return E_CLOSED;
    if (reader->ended)
        return E_CANCELLED;
    uint64_t limit = release_limit(blob, reader);
    if (reader->offset >= limit) {
        int err = pull(blob, reader); /* it may have waited at its start */
        blob_piece__hash_on(blob);
        return err != 0 ? err : wait_for(reader);
    }
    uint32_t piece = piece_at(&blob->layout, reader->offset);
    struct blob_piece *slot = &blob->pieces[piece];
    tell_position(blob, reader, piece);
    if (!slot->have) {
        int err = pull(blob, reader);
        return err != 0 ? err : wait_for(reader);
    }
    *out = (struct blob_chunk){.fd = -1, .blob = blob, .piece = piece};
    uint64_t inside = reader->offset - piece_offset(&blob->layout, piece);
    uint64_t left = piece_length(&blob->layout, piece) - inside;
    if (left > limit - reader->offset)
        left = limit - reader->offset;
    out->byte_count = left < max_bytes ? (uint32_t)left : max_bytes;
    if (slot->memory != NULL) {
        blob_memory__touch(blob, piece);
        out->buffer = buffer_ref(slot->memory->buffer);
        out->bytes = out->buffer->bytes + inside;
    } else if (chunk_from_file(blob, piece, out)) {
        out->fd_offset += inside;
    } else {
        return load_piece(blob, reader, piece);
    }
    (void)blob__ref(blob);
    out->tier = tier_of(slot, out->fd >= 0);
    reader->offset += out->byte_count;
    count_given(&blob->blobs->counters, out->tier, out->byte_count);
    history_given(blob->blobs->history, &blob->info.digest, out->tier, out->byte_count);
    return 0;
}

void blob_chunk_done(struct blob_chunk *chunk)
{
    struct blob *blob = chunk->blob;
    if (chunk->fd >= 0) {
        (void)close(chunk->fd);
        cache_unpin(blob->blobs->config.cache, chunk->cached, chunk->piece);
        blobs__evictions(blob->blobs);
    }
    buffer_put(chunk->buffer);
    *chunk = (struct blob_chunk){.fd = -1};
    if (blob != NULL)
        blob__unref(blob);
}
