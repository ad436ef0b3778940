/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the hash over a whole blob says: it is right, and sealed in the cache; or somebody lied, and
 * the registry is read again to find out who (INT-5, INT-7). The hash itself is carried on by the
 * jobs of blob_piece.c.
 */
#include "blob_internal.h"

#include "bytes.h"
#include "log.h"

struct seal_job {
    struct loop_work work;
    struct blob *blob;         /* one reference */
    struct cache_blob *cached; /* held: it stays ours if the blob's place is renewed */
    int status;
};

/* ---- right ---- */

static void seal_run(struct loop_work *work)
{
    struct seal_job *job = (struct seal_job *)work;
    job->status = cache_seal(job->blob->blobs->config.cache, job->cached);
}

static void seal_free(struct seal_job *job)
{
    struct blob *blob = job->blob;
    cache_unhold(blob->blobs->config.cache, job->cached);
    (void)loop_alloc(NULL, job, 0);
    blob->jobs--;
    blobs__evictions(blob->blobs);
    blob__unref(blob);
}

static void seal_done(struct loop_work *work, int status)
{
    struct seal_job *job = (struct seal_job *)work;
    cache_seal_done(job->blob->blobs->config.cache, job->cached,
                    status != 0 ? status : job->status);
    seal_free(job);
}

/* Tells the cache that the whole digest matched, once every piece is stored. */
static void seal(struct blob *blob)
{
    if (blob->sealed || !bitfield_full(cache_blob_have(blob->cached)))
        return;
    struct seal_job *job = loop_alloc(NULL, NULL, sizeof *job);
    if (job == NULL)
        return;
    *job = (struct seal_job){.work = {.run = seal_run, .done = seal_done},
                             .blob = blob__ref(blob),
                             .cached = blob->cached};
    blob->jobs++;
    cache_hold(blob->blobs->config.cache, job->cached);
    blob->sealed = loop_submit(blob->blobs->config.loop, &job->work) == 0;
    if (!blob->sealed)
        seal_free(job);
}

/* ---- wrong ---- */

/* Everything was read again from the registry: only now is it known who was right (INT-7). */
static void settle_blame(struct blob *blob, bool digest_matched)
{
    struct node_id liars[BLOB_SUSPECTS_MAX];
    uint32_t count = blob_blame_settle(&blob->blame, digest_matched, liars);
    for (uint32_t i = 0; i < count; i++) {
        char name[SHORT_HEX_BYTES];
        log_to(node_env(blob->blobs->config.node), LOG_WARN,
               "blob: node %s vouched for false bytes; not used for an hour",
               short_hex(liars[i].bytes, name));
        transfer_peer_lied(node_transfer(blob->blobs->config.node),
                           loop_now_us(blob->blobs->config.loop), &liars[i]);
    }
}

/* The blob's own name says that a voucher was false, or that we must look closer (INT-7). */
static void mismatch(struct blob *blob)
{
    struct blobs *blobs = blob->blobs;
    blobs->counters.mismatches++;
    char name[SHORT_HEX_BYTES];
    log_to(node_env(blob->blobs->config.node), LOG_WARN,
           "blob: bytes do not match the digest blob=%s%s",
           short_hex(blob->info.digest.bytes, name),
           blob->repairing ? ", read from the registry" : "; reading them from the registry again");
    bool again = !blob->repairing;
    if (blob->repairing)
        settle_blame(blob, false);
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++) {
        if (blob->pieces[piece].have)
            blob__piece_gone(blob, piece);
    }
    blob__renew_cached(blob);
    prefix_hash_reset(blob->prefix);
    blob->hashed = 0;
    blob->proven = loop_alloc(NULL, blob->proven, 0);
    blob->repairing = again && blob_fetch__repair(blob);
    blob__fail(blob, E_DIGEST);
}

/* ---- either ---- */

void blob__digest_known(struct blob *blob)
{
    struct digest digest;
    prefix_hash_final(blob->prefix, &digest);
    if (!digest_equal(&digest, &blob->info.digest)) {
        mismatch(blob);
        return;
    }
    if (blob->repairing) {
        blob->blobs->counters.repairs++;
        settle_blame(blob, true);
    }
    blob->verified = true;
    blob->repairing = false;
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++) {
        struct blob_piece *slot = &blob->pieces[piece];
        if (slot->memory == NULL && slot->voucher != NULL)
            slot->voucher = loop_alloc(NULL, slot->voucher, 0);
    }
    seal(blob);
}
