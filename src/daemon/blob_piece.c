/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker thread does to one piece: hash it, check or sign its voucher, carry the whole-blob
 * hash on when the piece is next in order, write it to the cache or read it back. One job per
 * piece, so that its bytes pass through the processor's cache once. What the whole hash says is
 * blob_digest.c's.
 */
#include "blob_internal.h"

#include <string.h>

#include "bytes.h"
#include "content.h"
#include "log.h"

/* Pieces of one blob that wait for those before them to be hashed: as many as a fast peer has under
 * way, few enough that a slow disk does not hold up the news of them. */
#define IN_ORDER_MAX 8

/* So much of what could be hashed on waits for pieces to arrive: the blob's hash goes over it while
 * the processor hashes them, which costs two thirds of doing both one by one, and no worker's turn
 * of its own. When the last piece is here, what is left takes 5 ms. */
#define BESIDE_BYTES_MAX (8ULL * 1024 * 1024)

enum job_kind {
    JOB_STORE = 1, /* arrived: verify, vouch, hash on, write */
    JOB_LOAD,      /* read back, verified by the cache */
    JOB_HASH,      /* hash on with bytes in memory */
};

struct piece_job {
    struct loop_work work;
    enum job_kind kind;
    struct blob *blob;         /* one reference */
    struct cache_blob *cached; /* of the blob when the job began; kept by its pin or reservation */
    struct content_copy *content; /* LOAD: one reference, read from there; NULL: from the cache */
    uint32_t piece;
    struct buffer *buffer; /* one reference */
    struct piece_arrival arrival;
    struct voucher voucher; /* its hash is the bytes', whatever the kind */
    bool hash_on;           /* this job owns the prefix hasher ... */
    struct buffer *beside;  /* ... and carries it over these bytes, not its own; one reference */
    uint32_t hash_piece;    /* the piece it carries it over */
    struct piece_hash hash; /* of that piece, when `hashed` */
    bool hashed;
    struct piece_job *next; /* in blob->in_order */
    bool store;
    bool keep;
    int status;
    int store_status;
    piece_loaded_fn then;
    void *then_arg;
};

static struct env const *env_of(const struct blob *blob)
{
    return node_env(blob->blobs->config.node);
}

static uint64_t now_us(const struct blob *blob)
{
    return loop_now_us(blob->blobs->config.loop);
}

static struct transfer *transfer_of(const struct blob *blob)
{
    return node_transfer(blob->blobs->config.node);
}

static bool voucher_empty(const struct voucher *voucher)
{
    static const uint8_t zero[VOUCHER_SIGNATURE_BYTES];
    return memcmp(voucher->signature, zero, sizeof zero) == 0;
}

/* ---- on the worker thread: only what the job owns ---- */

static void sign(struct piece_job *job, const struct piece_hash *hash)
{
    const struct node *node = job->blob->blobs->config.node;
    job->voucher = (struct voucher){.signer = *node_self_id(node),
                                    .piece_index = job->piece,
                                    .piece_bytes = job->buffer->used,
                                    .hash = *hash};
    voucher_sign(node_identity(node), &job->blob->info.key, &job->voucher);
}

/* Hash of the piece, and with it the whole blob's when this job carries that on. False: the bytes
 * are not what `expected` (NULL: anything) says, and they are not part of the blob's hash. */
static bool hash_piece(struct piece_job *job, const struct piece_hash *expected,
                       struct piece_hash *out)
{
    const struct hash_span own = {job->buffer->bytes, job->buffer->used};
    if (job->hash_on && job->beside == NULL) {
        job->hashed =
            hasher_update_piece(job->blob->hasher, own.bytes, own.byte_count, expected, &job->hash);
        *out = job->hash;
        return job->hashed;
    }
    if (job->hash_on) {
        const struct hash_span beside = {job->beside->bytes, job->beside->used};
        hasher_update_beside(job->blob->hasher, &beside, &own, out);
        job->hashed = true;
    } else {
        piece_hash_of(own.bytes, own.byte_count, out);
    }
    return expected == NULL || memcmp(out->bytes, expected->bytes, sizeof out->bytes) == 0;
}

static int verify(struct piece_job *job)
{
    struct piece_hash hash;
    if (job->arrival.source.origin != PIECE_FROM_PEER) {
        (void)hash_piece(job, NULL, &hash);
        sign(job, &hash);
        return 0;
    }
    job->voucher = job->arrival.voucher;
    int err = voucher_verify(&job->blob->info.key, &job->voucher);
    if (err != 0)
        return err; /* first: what nobody signed must not reach the blob's hash */
    return hash_piece(job, &job->voucher.hash, &hash) ? 0 : E_DIGEST;
}

static void run_store(struct piece_job *job)
{
    struct blob *blob = job->blob;
    job->status = verify(job);
    if (job->status == 0 && job->store) {
        struct piece_record record = {.voucher = job->voucher};
        job->store_status = cache_write(blob->blobs->config.cache, job->cached, job->piece,
                                        job->buffer->bytes, job->buffer->used, &record);
    }
}

static void run_load(struct piece_job *job)
{
    struct blob *blob = job->blob;
    struct piece_record record;
    if (job->content != NULL)
        job->status =
            content_read(job->content, job->piece, job->buffer->bytes, job->buffer->used, &record);
    else
        job->status = cache_read(blob->blobs->config.cache, job->cached, job->piece,
                                 job->buffer->bytes, job->buffer->used, &record);
    if (job->status != 0)
        return;
    job->voucher = record.voucher;
    if (voucher_empty(&job->voucher)) { /* verified as a whole once: we vouch for it ourselves */
        const struct piece_hash hash = job->voucher.hash;
        sign(job, &hash);
    }
    if (job->hash_on) {
        hasher_update(blob->hasher, job->buffer->bytes, job->buffer->used);
        job->hash = job->voucher.hash;
        job->hashed = true;
    }
}

/* Its hash was found when it arrived or was read. */
static void run_hash(struct piece_job *job)
{
    hasher_update(job->blob->hasher, job->buffer->bytes, job->buffer->used);
    job->hashed = true;
}

static void job_run(struct loop_work *work)
{
    struct piece_job *job = (struct piece_job *)work;
    if (job->kind == JOB_STORE)
        run_store(job);
    else if (job->kind == JOB_LOAD)
        run_load(job);
    else
        run_hash(job);
}

/* ---- on the loop ---- */

static void job_free(struct piece_job *job)
{
    struct blob *blob = job->blob;
    buffer_put(job->buffer);
    buffer_put(job->beside);
    (void)loop_alloc(NULL, job, 0);
    blob->jobs--;
    blob__unref(blob);
}

static struct piece_job *job_new(struct blob *blob, enum job_kind kind, uint32_t piece)
{
    struct piece_job *job = loop_alloc(NULL, NULL, sizeof *job);
    if (job == NULL)
        return NULL;
    *job = (struct piece_job){
        .kind = kind, .blob = blob__ref(blob), .cached = blob->cached, .piece = piece};
    job->work.run = job_run;
    blob->jobs++;
    return job;
}

/* Gives the job the prefix hasher for `piece` if it is next and the digest is wanted. */
static bool take_hasher(struct piece_job *job, uint32_t piece)
{
    struct blob *blob = job->blob;
    if (blob->hashing || blob->verified || piece != blob->hashed || !blob__wants_digest(blob))
        return false;
    if (blob->hasher == NULL && hasher_new(blob->info.digest.algorithm, &blob->hasher) != 0)
        return false;
    blob->hashing = true;
    job->hash_on = true;
    job->hash_piece = piece;
    return true;
}

/* The job did not run. */
static void return_hasher(struct piece_job *job)
{
    if (job->hash_on)
        job->blob->hashing = false;
    job->hash_on = false;
}

/* The next piece to hash, if it is in memory; else NULL. */
static const struct memory_entry *next_to_hash(const struct blob *blob)
{
    if (blob->hashed >= blob->layout.piece_count)
        return NULL;
    const struct blob_piece *slot = &blob->pieces[blob->hashed];
    return slot->have && !slot->loading ? slot->memory : NULL;
}

/* Lets a job that hashes an arrived piece carry the blob's hash over an earlier one meanwhile. */
static void take_beside(struct piece_job *job)
{
    const struct memory_entry *entry = next_to_hash(job->blob);
    if (entry == NULL || !take_hasher(job, job->blob->hashed))
        return;
    job->beside = buffer_ref(entry->buffer);
    job->hash = entry->hash;
}

static void in_order_next(struct blob *blob);

/* A job gave the hasher back after its piece. */
static void hashed_one(struct piece_job *job, bool good)
{
    struct blob *blob = job->blob;
    if (!job->hash_on)
        return;
    blob->hashing = false;
    if (good && job->hashed && job->hash_piece == blob->hashed) {
        blob__prove(blob, job->hash_piece, &job->hash);
        blob->hashed++;
        if (blob->hashed == blob->layout.piece_count)
            blob__digest_known(blob);
    }
    in_order_next(blob);
}

static void keep_voucher(struct blob_piece *slot, const struct voucher *voucher)
{
    if (slot->voucher == NULL)
        slot->voucher = loop_alloc(NULL, NULL, sizeof *slot->voucher);
    if (slot->voucher != NULL)
        *slot->voucher = *voucher;
}

/* During a repair the registry's bytes show whose voucher may have been false. */
static void find_suspect(struct blob *blob, const struct piece_job *job)
{
    const struct voucher *before = blob->pieces[job->piece].voucher;
    const struct node *node = blob->blobs->config.node;
    if (blob->repairing && before != NULL &&
        memcmp(before->hash.bytes, job->voucher.hash.bytes, sizeof before->hash.bytes) != 0)
        blob_blame_note(&blob->blame, &before->signer,
                        node_id_equal(&before->signer, node_self_id(node)));
}

static void count_arrival(struct blob *blob, const struct piece_job *job)
{
    bool peer = job->arrival.source.origin == PIECE_FROM_PEER;
    struct blobs_counters *counters = &blob->blobs->counters;
    counters->piece_bytes[peer ? BLOB_FROM_PEER : BLOB_FROM_ORIGIN] += job->buffer->used;
    *(peer ? &blob->sources.peer : &blob->sources.origin) += job->buffer->used;
    blob->pieces[job->piece].tier = peer ? BLOB_FROM_PEER : BLOB_FROM_ORIGIN;
}

static void take_stored(struct piece_job *job)
{
    struct blob *blob = job->blob;
    struct blob_piece *slot = &blob->pieces[job->piece];
    find_suspect(blob, job);
    blob->moved_us = now_us(blob);
    count_arrival(blob, job);
    if (!slot->have)
        blob->have_count++;
    slot->have = true;
    slot->stored = slot->stored || (job->store && job->store_status == 0);
    slot->checked_us = now_us(blob);
    keep_voucher(slot, &job->voucher);
    blob_memory__keep(blob, job->piece, job->buffer, &job->voucher.hash);
}

/* The session proves who sent the piece: bytes that differ from their own voucher, or a voucher
 * nobody signed, are that node's doing (P-5). */
static void refuse_piece(struct blob *blob, const struct piece_source *source, int status)
{
    if (status == E_DIGEST)
        blob->blobs->counters.bad_digest++;
    else if (status == E_VOUCHER)
        blob->blobs->counters.bad_voucher++;
    else
        return;
    if (source->origin == PIECE_FROM_PEER)
        transfer_peer_lied(transfer_of(blob), now_us(blob), &source->peer);
}

/* The whole digest has shown which bytes are right; these are others, vouched for or not. Whoever
 * signed for them lied, unless it is the registry that gives now these, now those (INT-7). */
static int compare_proven(struct piece_job *job)
{
    struct blob *blob = job->blob;
    const struct piece_hash *proven = blob__proven(blob, job->piece);
    if (proven == NULL || memcmp(proven->bytes, job->voucher.hash.bytes, sizeof proven->bytes) == 0)
        return 0;
    char name[SHORT_HEX_BYTES];
    log_to(env_of(blob), LOG_DEBUG, "blob: other bytes than before for piece=%u blob=%s",
           job->piece, short_hex(blob->info.digest.bytes, name));
    blob->blobs->counters.bad_digest++;
    if (blob->verified && job->arrival.source.origin == PIECE_FROM_PEER &&
        !blob->blame.registry_lied)
        transfer_peer_lied(transfer_of(blob), now_us(blob), &job->voucher.signer);
    return E_CANCELLED; /* asked for elsewhere; who sent it may have been lied to */
}

static void store_done(struct loop_work *work, int status)
{
    struct piece_job *job = (struct piece_job *)work;
    struct blob *blob = job->blob;
    struct blobs *blobs = blob->blobs;
    if (status == 0)
        status = job->status;
    if (status == 0)
        status = compare_proven(job);
    if (status == 0 && blob->content != NULL)
        status = E_CANCELLED; /* it came too late: containerd has it */
    if (job->store)
        cache_write_done(blobs->config.cache, job->cached, job->piece, now_us(blob),
                         status != 0 ? status : job->store_status);
    if (job->store_status != 0)
        blobs->counters.store_errors++;
    if (status == 0)
        take_stored(job);
    else
        refuse_piece(blob, &job->arrival.source, status);
    struct piece_arrival arrival = job->arrival;
    transfer_piece_done(transfer_of(blob), now_us(blob), blob->handle, job->piece, &arrival.source,
                        status);
    hashed_one(job, status == 0 || job->beside != NULL);
    if (arrival.done != NULL)
        arrival.done(arrival.arg, status);
    blobs__evictions(blobs);
    blob_piece__hash_on(blob);
    blob__wake(blob);
    job_free(job);
}

/* Room in the cache for a piece. */
static bool reserve(struct blob *blob, uint32_t piece)
{
    struct blobs *blobs = blob->blobs;
    int err = cache_reserve(blobs->config.cache, blob->cached, piece, now_us(blob));
    blobs__evictions(blobs);
    return err == 0;
}

/* The arrival of a job that could not be given to a worker ends here. */
static void not_stored(struct piece_job *job, int err)
{
    struct blob *blob = job->blob;
    struct piece_arrival arrival = job->arrival;
    if (job->store)
        cache_write_done(blob->blobs->config.cache, job->cached, job->piece, now_us(blob), err);
    return_hasher(job);
    transfer_piece_done(transfer_of(blob), now_us(blob), blob->handle, job->piece, &arrival.source,
                        E_AGAIN);
    if (arrival.done != NULL)
        arrival.done(arrival.arg, err);
    job_free(job);
}

static void submit_store(struct piece_job *job)
{
    if (!take_hasher(job, job->piece))
        take_beside(job);
    int err = loop_submit(job->blob->blobs->config.loop, &job->work);
    if (err != 0)
        not_stored(job, err);
}

/* The piece would be the next one to hash but for those before it, which are being hashed: it
 * waits for them, so that it passes through the processor once. False: it need not wait. */
static bool waits_in_order(struct blob *blob, struct piece_job *job)
{
    if (!blob->hashing || blob->verified || blob->in_order_count >= IN_ORDER_MAX ||
        job->piece != blob->hashed + 1 + blob->in_order_count)
        return false;
    struct piece_job **link = &blob->in_order;
    while (*link != NULL)
        link = &(*link)->next;
    *link = job;
    blob->in_order_count++;
    return true;
}

/* The hasher is free: the next one in order goes on with it. If there is a gap before it now, or
 * no work can be given out, none of those that wait is held up any longer. */
static void in_order_next(struct blob *blob)
{
    while (blob->in_order != NULL && !blob->hashing) {
        struct piece_job *job = blob->in_order;
        blob->in_order = job->next;
        blob->in_order_count--;
        job->next = NULL;
        submit_store(job);
    }
}

void blob_piece__arrived(const struct piece_arrival *arrival, struct buffer *bytes)
{
    struct blob *blob = arrival->blob;
    struct piece_job *job = job_new(blob, JOB_STORE, arrival->piece);
    if (job == NULL) {
        buffer_put(bytes);
        transfer_piece_done(transfer_of(blob), now_us(blob), blob->handle, arrival->piece,
                            &arrival->source, E_AGAIN);
        if (arrival->done != NULL)
            arrival->done(arrival->arg, E_NO_MEMORY);
        return;
    }
    job->arrival = *arrival;
    job->buffer = bytes;
    job->work.done = store_done;
    job->store = !blob->pieces[arrival->piece].stored && blob->content == NULL &&
                 reserve(blob, arrival->piece);
    if (!waits_in_order(blob, job))
        submit_store(job);
}

/* Ends the hold on where the piece was to be read. */
static void load_release(struct piece_job *job)
{
    if (job->content != NULL)
        content_copy_put(job->content);
    else
        cache_unpin(job->blob->blobs->config.cache, job->cached, job->piece);
    job->content = NULL;
}

static void loaded(struct piece_job *job)
{
    struct blob *blob = job->blob;
    struct blob_piece *slot = &blob->pieces[job->piece];
    bool content = job->content != NULL;
    enum blob_tier tier = content ? BLOB_FROM_CONTENT : BLOB_FROM_DISK;
    blob->blobs->counters.piece_bytes[tier] += job->buffer->used;
    if (content)
        slot->tier = BLOB_FROM_CONTENT;
    else
        slot->checked_us = now_us(blob);
    if (job->keep && slot->have) {
        keep_voucher(slot, &job->voucher);
        blob_memory__keep(blob, job->piece, job->buffer, &job->voucher.hash);
    }
}

/* Before the pin, which may be the last reference, goes. */
static void not_loaded(struct piece_job *job, int status)
{
    struct blob *blob = job->blob;
    struct blobs *blobs = blob->blobs;
    if (job->content != NULL) {
        content_failed(blobs->content, &blob->info.digest, job->content, status);
        return;
    }
    cache_drop_piece(blobs->config.cache, job->cached, job->piece);
    blobs->counters.corrupt += status == E_CORRUPT;
    if (job->cached != blob->cached)
        return; /* the blob has another place by now */
    blob->pieces[job->piece].stored = false;
    blob__piece_settle(blob, job->piece);
}

static void load_done(struct loop_work *work, int status)
{
    struct piece_job *job = (struct piece_job *)work;
    struct blob *blob = job->blob;
    struct blob_piece *slot = &blob->pieces[job->piece];
    if (status == 0)
        status = job->status;
    bool damaged = status == E_CORRUPT || status == E_NOT_FOUND || status == E_IO ||
                   (status == E_DENIED && job->content != NULL);
    if (job->keep)
        slot->loading = false;
    if (damaged)
        not_loaded(job, status);
    else if (status == 0)
        loaded(job);
    load_release(job);
    hashed_one(job, status == 0);
    if (job->then != NULL)
        job->then(job->then_arg, status, job->buffer, &job->voucher);
    blobs__evictions(blob->blobs);
    blob_piece__hash_on(blob);
    blob__wake(blob);
    job_free(job);
}

/* Prepares a read of a stored piece: pinned, with a buffer. NULL: not now. */
static struct piece_job *load_job(struct blob *blob, uint32_t piece)
{
    struct blobs *blobs = blob->blobs;
    bool content = !blob->pieces[piece].stored && blob->content != NULL;
    if (!content && cache_pin(blobs->config.cache, blob->cached, piece, now_us(blob)) != 0)
        return NULL;
    struct piece_job *job = job_new(blob, JOB_LOAD, piece);
    if (job != NULL && content)
        job->content = content_copy_ref(blob->content);
    uint32_t bytes = piece_length(&blob->layout, piece);
    struct buffer *buffer = job == NULL ? NULL : blob_memory__buffer(blobs, bytes);
    if (buffer == NULL) {
        if (job == NULL && !content)
            cache_unpin(blobs->config.cache, blob->cached, piece);
        if (job != NULL) {
            load_release(job);
            job_free(job);
        }
        return NULL;
    }
    buffer->used = bytes;
    job->buffer = buffer;
    job->work.done = load_done;
    return job;
}

/* A load or hash that no worker takes. */
static void job_drop(struct piece_job *job)
{
    if (job->kind == JOB_LOAD)
        load_release(job);
    return_hasher(job);
    job_free(job);
}

int blob_piece__load(struct blob *blob, uint32_t piece, bool keep, piece_loaded_fn then, void *arg)
{
    struct piece_job *job = load_job(blob, piece);
    if (job == NULL)
        return E_NO_MEMORY;
    job->keep = keep;
    job->then = then;
    job->then_arg = arg;
    (void)take_hasher(job, piece);
    blob->pieces[piece].loading = keep || blob->pieces[piece].loading;
    int err = loop_submit(blob->blobs->config.loop, &job->work);
    if (err != 0) {
        blob->pieces[piece].loading = false;
        job_drop(job);
    }
    return err;
}

static void hash_done(struct loop_work *work, int status)
{
    struct piece_job *job = (struct piece_job *)work;
    struct blob *blob = job->blob;
    hashed_one(job, status == 0);
    blob_piece__hash_on(blob);
    blob__wake(blob);
    job_free(job);
}

/* More pieces will come, and what could be hashed now is little enough to be carried on with them.
 */
static bool waits_for_arrivals(const struct blob *blob)
{
    uint64_t later_max = BESIDE_BYTES_MAX / blob->layout.piece_bytes;
    uint64_t later = 0;
    if (blob->have_count == blob->layout.piece_count || next_to_hash(blob) == NULL)
        return false;
    while (later < later_max && blob->pieces[blob->hashed + later].have)
        later++; /* ends at a gap: not all are here */
    return later < later_max;
}

/* A job that hashes on with `piece`, from memory or from the cache. NULL: not now. */
static struct piece_job *hash_job(struct blob *blob, uint32_t piece)
{
    const struct memory_entry *entry = next_to_hash(blob);
    if (entry == NULL)
        return load_job(blob, piece);
    struct piece_job *job = job_new(blob, JOB_HASH, piece);
    if (job == NULL)
        return NULL;
    job->buffer = buffer_ref(entry->buffer);
    job->hash = entry->hash;
    job->work.done = hash_done;
    return job;
}

void blob_piece__hash_on(struct blob *blob)
{
    uint32_t piece = blob->hashed;
    if (piece >= blob->layout.piece_count || blob->blobs->closing || blob->hashing ||
        blob->verified || !blob__wants_digest(blob))
        return;
    const struct blob_piece *slot = &blob->pieces[piece];
    if (!slot->have || slot->loading || waits_for_arrivals(blob))
        return;
    struct piece_job *job = hash_job(blob, piece);
    if (job == NULL)
        return;
    if (!take_hasher(job, piece) || loop_submit(blob->blobs->config.loop, &job->work) != 0)
        job_drop(job);
}
