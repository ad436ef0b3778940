/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory tier of live blobs: pieces that arrived or were read stay here, least recently used
 * first to go, so that uploads to peers and local readers need no disk. Bounded by
 * config.memory_bytes and by the buffer pool's cap.
 */
#include "blob_internal.h"

#include "log.h"

static void unlink_entry(struct blobs *blobs, struct memory_entry *entry)
{
    if (entry->older != NULL)
        entry->older->newer = entry->newer;
    else
        blobs->oldest = entry->newer;
    if (entry->newer != NULL)
        entry->newer->older = entry->older;
    else
        blobs->newest = entry->older;
    entry->older = entry->newer = NULL;
}

static void link_newest(struct blobs *blobs, struct memory_entry *entry)
{
    entry->older = blobs->newest;
    entry->newer = NULL;
    if (blobs->newest != NULL)
        blobs->newest->newer = entry;
    else
        blobs->oldest = entry;
    blobs->newest = entry;
}

void blob_memory__drop(struct blob *blob, uint32_t piece)
{
    struct blob_piece *slot = &blob->pieces[piece];
    struct memory_entry *entry = slot->memory;
    if (entry == NULL)
        return;
    struct blobs *blobs = blob->blobs;
    unlink_entry(blobs, entry);
    blobs->memory_bytes -= entry->buffer->capacity;
    slot->memory = NULL;
    buffer_put(entry->buffer);
    (void)loop_alloc(NULL, entry, 0);
    blob__piece_settle(blob, piece);
    /* Whoever blames a signer needs those of a blob that may yet prove wrong as a whole. A fine one
     * is judged by nobody, and has so many that they would be seen (1.2 % of its bytes). */
    bool judged = blob->verified || blob->info.cut == PIECE_CUT_FINE;
    if (judged && slot->memory == NULL && slot->voucher != NULL)
        slot->voucher = loop_alloc(NULL, slot->voucher, 0);
}

/* Gives up the oldest piece; false if there is none. Its blob may close with it. */
static bool drop_oldest(struct blobs *blobs)
{
    struct memory_entry *entry = blobs->oldest;
    if (entry == NULL)
        return false;
    struct blob *blob = blob__ref(entry->blob);
    blob_memory__drop(blob, entry->piece);
    blob__unref(blob);
    return true;
}

void blob_memory__keep(struct blob *blob, uint32_t piece, struct buffer *buffer,
                       const struct piece_hash *hash)
{
    struct blobs *blobs = blob->blobs;
    struct blob_piece *slot = &blob->pieces[piece];
    if (slot->memory != NULL) {
        blob_memory__touch(blob, piece);
        return;
    }
    struct memory_entry *entry = loop_alloc(NULL, NULL, sizeof *entry);
    if (entry == NULL)
        return; /* the cache has it, or it is fetched again */
    *entry = (struct memory_entry){.blob = blob,
                                   .piece = piece,
                                   .buffer = buffer_ref(buffer),
                                   .hash = *hash,
                                   .used_us = loop_now_us(blobs->config.loop)};
    slot->memory = entry;
    link_newest(blobs, entry);
    blobs->memory_bytes += buffer->capacity;
    while (blobs->memory_bytes > blobs->config.memory_bytes && blobs->oldest != entry)
        (void)drop_oldest(blobs);
}

void blob_memory__touch(struct blob *blob, uint32_t piece)
{
    struct memory_entry *entry = blob->pieces[piece].memory;
    if (entry == NULL)
        return;
    entry->used_us = loop_now_us(blob->blobs->config.loop);
    if (entry == blob->blobs->newest)
        return;
    unlink_entry(blob->blobs, entry);
    link_newest(blob->blobs, entry);
}

/* What is nowhere else stays: without it peers would lose a holder, and we our copy. */
void blob_memory__release(struct blobs *blobs)
{
    uint64_t now_us = loop_now_us(blobs->config.loop);
    struct memory_entry *entry = blobs->oldest;
    while (entry != NULL && now_us - entry->used_us >= BLOB_MEMORY_IDLE_US) {
        struct memory_entry *newer = entry->newer;
        if (entry->blob->pieces[entry->piece].stored || entry->blob->content != NULL)
            blob_memory__drop(entry->blob, entry->piece);
        entry = newer;
    }
}

struct buffer *blob_memory__buffer(struct blobs *blobs, uint32_t bytes)
{
    struct buffer *buffer = buffer_get(blobs->config.pool, bytes, BUFFER_FOR_LOCAL);
    while (buffer == NULL && drop_oldest(blobs))
        buffer = buffer_get(blobs->config.pool, bytes, BUFFER_FOR_LOCAL);
    return buffer;
}
