/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A registry that refuses in the middle of a pull (401, 403: mostly a token that expired). The
 * grant ends with it (ACL-2). Readers that nobody can help any more, neither other credentials nor
 * other nodes, end soon, so that their clients come back with a new token instead of waiting.
 */
#include "blob_internal.h"

#include "log.h"

/* Nothing of the blob came from other nodes for so long after the refusal: they do not have it, or
 * not now. A guess: a piece of 4 MiB needs a third of a second at 100 Mbit/s. */
#define HOPE_US (2ull * 1000000)

void blobs_on_refusal(struct blobs *blobs, void (*refused)(void *arg, const struct blob_caller *),
                      void *arg)
{
    blobs->refused = refused;
    blobs->refused_arg = arg;
}

void blob_refusal__note(struct blob *blob, struct blob_caller *caller)
{
    struct blobs *blobs = blob->blobs;
    caller->refused = true;
    if (blob->refused_us == 0)
        blobs->refused_count++;
    blob->refused_us = loop_now_us(blobs->config.loop);
    if (blobs->refused != NULL)
        blobs->refused(blobs->refused_arg, caller);
}

void blob_refusal__clear(struct blob *blob)
{
    if (blob->refused_us != 0)
        blob->blobs->refused_count--;
    blob->refused_us = 0;
}

static bool has_hope(const struct blob *blob)
{
    const struct blobs *blobs = blob->blobs;
    uint64_t since_us = blob->moved_us > blob->refused_us ? blob->moved_us : blob->refused_us;
    if (blob_fetch__caller(blob) != NULL || blob->fetches != NULL)
        return true;
    return gossip_count(node_gossip(blobs->config.node)) > 1 &&
           loop_now_us(blobs->config.loop) - since_us < HOPE_US;
}

static bool waits_for_a_piece(const struct blob *blob, const struct blob_reader *reader)
{
    uint32_t end = piece_at(&blob->layout, reader->end - 1) + 1;
    if (!reader->waiting || reader->ended || reader->caller == NULL)
        return false;
    for (uint32_t i = piece_at(&blob->layout, reader->offset); i < end; i++) {
        if (!blob->pieces[i].have)
            return true;
    }
    return false;
}

void blob_refusal__check(struct blob *blob)
{
    if (blob->refused_us == 0 || has_hope(blob))
        return;
    (void)blob__ref(blob);
    for (struct blob_reader *reader = blob->readers, *next; reader != NULL; reader = next) {
        next = reader->next;
        if (!waits_for_a_piece(blob, reader))
            continue;
        reader->ended = true;
        reader->failed(reader->arg, E_DENIED);
    }
    if (blob->readers == NULL)
        blob_refusal__clear(blob);
    blob__unref(blob);
}

void blob_refusal__tick(struct blobs *blobs)
{
    struct blob *blob, *next;
    if (blobs->refused_count == 0)
        return;
    for (int cut = 0; cut < PIECE_CUT_COUNT; cut++) {
        HASH_ITER(by_digest, *blobs__table(blobs, (enum piece_cut)cut), blob, next)
        {
            blob_refusal__check(blob);
        }
    }
}
