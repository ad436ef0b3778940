/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A live blob that containerd holds, too: all of its pieces are here, and what our own cache has of
 * it is given up once nobody pulls it. The file is right as a whole when it is offered, and each
 * piece is compared again with its hash when it is read (content_read).
 */
#include <string.h>

#include "blob_internal.h"
#include "content.h"
#include "log.h"

/* A blob's swarm is over when nobody here reads it and nobody has asked for it for so long. A
 * guess: neighbours that start a rollout late still find it in memory or in the cache. */
#define QUIET_US (15ull * 1000000)

/* containerd has whole blobs: the plain ones. */
static struct blob *find(struct blobs *blobs, const struct digest *digest)
{
    return blobs__find(blobs, digest, PIECE_CUT_PLAIN);
}

void blobs_content_seen(struct blobs *blobs, const struct digest *digest)
{
    if (blobs->content != NULL)
        content_seen(blobs->content, digest);
}

bool blobs_content_expected(struct blobs *blobs, const struct digest *digest)
{
    return blobs->content != NULL && content_expected(blobs->content, digest, false);
}

bool blob_content__waits(struct blob *blob)
{
    struct blobs *blobs = blob->blobs;
    uint64_t now_us = loop_now_us(blobs->config.loop);
    if (blob->info.cut != PIECE_CUT_PLAIN)
        return false; /* whoever chose that cut has waited (blob_cut.c) */
    if (blobs->content == NULL || !content_expected(blobs->content, &blob->info.digest, true)) {
        blob->content_until_us = 0;
        return false;
    }
    if (blob->content_until_us == 0)
        blob->content_until_us = now_us + CONTENT_WAIT_US;
    return now_us < blob->content_until_us;
}

void blob_content__wake(struct blobs *blobs, const struct digest *digest)
{
    struct blob *blob = find(blobs, digest);
    if (blob != NULL)
        blob__wake(blob);
}

/* Nothing unverified is in anybody's hands: no reader has had a byte, no worker has a piece. */
static bool untouched(const struct blob *blob)
{
    for (const struct blob_reader *reader = blob->readers; reader != NULL; reader = reader->next) {
        if (blob->have_count > 0 || reader->ahead || (reader->whole && reader->offset > 0))
            return false;
    }
    return blob->jobs == 0 && blob->fetches == NULL && !blob->repairing;
}

/* What we have of it was vouched for at best, and is not needed. */
static void forget_own(struct blob *blob)
{
    if (blob->have_count == 0)
        return;
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++) {
        if (blob->pieces[piece].have)
            blob__piece_gone(blob, piece);
    }
    blob__renew_cached(blob);
    if (blob->prefix != NULL)
        prefix_hash_reset(blob->prefix);
    blob->hashed = 0;
}

static void take_pieces(struct blob *blob)
{
    struct transfer *transfer = node_transfer(blob->blobs->config.node);
    const struct store *store = &blob->blobs->content->store;
    const struct piece_source source = {.origin = PIECE_FROM_CACHE};
    uint64_t now_us = loop_now_us(blob->blobs->config.loop);
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++) {
        struct blob_piece *slot = &blob->pieces[piece];
        struct piece_hash hash;
        if (store_content_hash(store, blob->content->id, piece, &hash) == 0)
            blob__prove(blob, piece, &hash);
        if (slot->have)
            continue;
        slot->have = true;
        slot->tier = BLOB_FROM_CONTENT;
        blob->have_count++;
        transfer_piece_done(transfer, now_us, blob->handle, piece, &source, 0);
    }
}

int blob_content__offer(struct blobs *blobs, const struct digest *digest, struct content_copy *copy)
{
    struct blob *blob;
    int err = blobs_get(blobs, digest, copy->size_bytes, &blob);
    if (err != 0)
        return err;
    if (blob->content == NULL && !blob->verified && !untouched(blob))
        err = E_AGAIN;
    if (err == 0 && blob->content == NULL) {
        if (!blob->verified)
            forget_own(blob);
        blob->content = content_copy_ref(copy);
        blob->verified = true;
        blob->content_until_us = 0;
        take_pieces(blob);
    }
    blob_put(blob);
    return err;
}

void blob_content__end(struct blobs *blobs, const struct digest *digest,
                       const struct content_copy *copy)
{
    struct blob *blob = find(blobs, digest);
    if (blob == NULL || blob->content != copy || blobs->closing)
        return;
    (void)blob__ref(blob);
    content_copy_put(blob->content);
    blob->content = NULL;
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++) {
        if (blob->pieces[piece].tier == BLOB_FROM_CONTENT)
            blob->pieces[piece].tier = 0; /* what memory has of it is memory's now */
        blob__piece_settle(blob, piece);
    }
    blob__unref(blob);
}

uint64_t blob_content__give_up(struct blobs *blobs, const struct digest *digest)
{
    struct blob *blob = find(blobs, digest);
    uint64_t now_us = loop_now_us(blobs->config.loop), bytes = 0;
    if (blob == NULL || blob->content == NULL || blob->refs > 0 ||
        cache_blob_have(blob->cached)->set_count == 0 || now_us - blob->moved_us < QUIET_US ||
        now_us - blob->served_us < QUIET_US)
        return 0;
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++) {
        if (blob->pieces[piece].stored)
            bytes += piece_length(&blob->layout, piece);
        blob->pieces[piece].stored = false;
        blob->pieces[piece].checked_us = 0;
    }
    blob__renew_cached(blob);
    return bytes;
}
