/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker thread does to one piece: hash it, and the whole blob on with it (prefix_hash.h),
 * check or sign its voucher, write it to the cache or read it back. One job per piece, so that its
 * bytes pass through the processor's cache once. What the whole hash says is blob_digest.c's.
 */
#include "blob_internal.h"

#include <string.h>

#include "bytes.h"
#include "content.h"
#include "log.h"
#include "topology.h"

/* What all blobs have lined up for their hashes is a third of the memory tier, 16 MiB by default,
 * and one piece of each: lines hold buffers that arriving pieces need, and wait for those. A whole
 * line takes 9 ms when the last piece is here. */
#define LINES_PART 3
/* Pieces read back at a time for the hash, when memory has lost them. */
#define LOADS_AHEAD 4

enum job_kind {
    JOB_STORE = 1, /* arrived: verify, vouch, hash on, write */
    JOB_LOAD,      /* read back, verified by the cache */
    JOB_HASH,      /* hash on with what is in line */
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
    struct voucher voucher;     /* its hash is the bytes', whatever the kind */
    struct prefix_hash *prefix; /* STORE, HASH: the blob's; NULL: its digest is not wanted */
    uint32_t leave;             /* HASH: so many in line */
    bool store;
    bool keep;
    bool doubtful; /* LOAD: the stored voucher may be for another lookup key */
    bool vouches;  /* LOAD: the blob is verified: we can vouch for it ourselves */
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

/* Hash of the piece, and with it the blob's where that is wanted. False: the bytes are not what
 * `expected` (NULL: anything) says, and they are not part of the blob's hash. */
static bool hash_piece(struct piece_job *job, const struct piece_hash *expected,
                       struct piece_hash *out)
{
    const struct prefix_hash_piece piece = {
        .index = job->piece,
        .span = {job->buffer->bytes, job->buffer->used},
        .expected = expected,
    };
    if (job->prefix != NULL)
        return prefix_hash_take(job->prefix, &piece, out);
    piece_hash_of(piece.span.bytes, piece.span.byte_count, out);
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

/* A voucher names the blob by the lookup key of its day: after a rotation of the cluster's secret a
 * stored one is for nobody, and who passed it on would be taken for a liar. */
static int vouch_anew(struct piece_job *job)
{
    const struct blob *blob = job->blob;
    const struct identity *self = node_identity(blob->blobs->config.node);
    const struct piece_hash hash = job->voucher.hash;
    const uint8_t *signer = job->voucher.signer_key.bytes;
    bool own = memcmp(signer, self->public_key.bytes, IDENTITY_KEY_BYTES) == 0;
    if (!job->vouches && voucher_verify(&blob->info.key, &job->voucher) == 0)
        return 0;
    if (!job->vouches && !own)
        return E_VOUCHER; /* another's word on what nobody has seen whole: it must be had anew */
    sign(job, &hash);
    return 0;
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
    } else if (job->doubtful) {
        job->status = vouch_anew(job);
    }
}

static void job_run(struct loop_work *work)
{
    struct piece_job *job = (struct piece_job *)work;
    if (job->kind == JOB_STORE)
        run_store(job);
    else if (job->kind == JOB_LOAD)
        run_load(job);
    else
        prefix_hash_drain(job->prefix, job->leave);
}

/* ---- on the loop ---- */

static void job_free(struct piece_job *job)
{
    struct blob *blob = job->blob;
    buffer_put(job->buffer);
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

/* What carries the blob's hash on; NULL: it is known, not wanted, or memory is short. */
static struct prefix_hash *wanted_prefix(struct blob *blob)
{
    if (blob->verified || !blob__wants_digest(blob))
        return NULL;
    if (blob->prefix == NULL && prefix_hash_new(blob->info.digest.algorithm, &blob->prefix) != 0)
        return NULL;
    return blob->prefix;
}

/* Takes note of how far the workers have come. */
static void collect_hashed(struct blob *blob)
{
    struct piece_hash hashes[PREFIX_HASH_LINE_MAX];
    uint32_t count = blob->prefix == NULL ? 0 : prefix_hash_collect(blob->prefix, hashes);
    for (uint32_t i = 0; i < count; i++)
        blob__prove(blob, blob->hashed++, &hashes[i]);
    if (count > 0 && blob->hashed == blob->layout.piece_count)
        blob__digest_known(blob);
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

static void note_arrival(struct blob *blob, const struct piece_source *source, uint32_t bytes)
{
    struct history *history = blob->blobs->history;
    if (source->origin != PIECE_FROM_PEER) {
        history_origin(history, &blob->info.digest, bytes);
        return;
    }
    struct member member;
    struct history_peer *peer = history_peer(history, &blob->info.digest, &source->peer, bytes);
    if (peer != NULL && gossip_find(node_gossip(blob->blobs->config.node), &source->peer, &member))
        peer->addr = member.addr;
}

/* How far its sender is; whoever is no member any more is far. */
static uint8_t distance_of(const struct blob *blob, const struct node_id *peer)
{
    const struct gossip *gossip = node_gossip(blob->blobs->config.node);
    struct member member;
    if (!gossip_find(gossip, peer, &member))
        return DISTANCE_ELSEWHERE;
    return (uint8_t)topology_distance(&gossip_self(gossip)->topology, &member.topology);
}

static void count_arrival(struct blob *blob, const struct piece_job *job)
{
    bool peer = job->arrival.source.origin == PIECE_FROM_PEER;
    struct blobs_counters *counters = &blob->blobs->counters;
    counters->piece_bytes[peer ? BLOB_FROM_PEER : BLOB_FROM_ORIGIN] += job->buffer->used;
    *(peer ? &blob->sources.peer : &blob->sources.origin) += job->buffer->used;
    blob->pieces[job->piece].tier = peer ? BLOB_FROM_PEER : BLOB_FROM_ORIGIN;
    if (peer)
        blob->pieces[job->piece].distance = distance_of(blob, &job->arrival.source.peer);
    note_arrival(blob, &job->arrival.source, job->buffer->used);
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
    collect_hashed(blob);
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
    transfer_piece_done(transfer_of(blob), now_us(blob), blob->handle, job->piece, &arrival.source,
                        E_AGAIN);
    if (arrival.done != NULL)
        arrival.done(arrival.arg, err);
    job_free(job);
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
    job->prefix = wanted_prefix(blob);
    int err = loop_submit(blob->blobs->config.loop, &job->work);
    if (err != 0)
        not_stored(job, err);
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
                   status == E_VOUCHER || (status == E_DENIED && job->content != NULL);
    if (job->keep)
        slot->loading = false;
    if (damaged)
        not_loaded(job, status);
    else if (status == 0)
        loaded(job);
    load_release(job);
    collect_hashed(blob);
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
    job->doubtful = blob->renamed || blob->pieces[piece].tier == 0;
    job->vouches = blob->verified;
    job->work.done = load_done;
    return job;
}

int blob_piece__load(struct blob *blob, uint32_t piece, bool keep, piece_loaded_fn then, void *arg)
{
    struct piece_job *job = load_job(blob, piece);
    if (job == NULL)
        return E_NO_MEMORY;
    job->keep = keep;
    job->then = then;
    job->then_arg = arg;
    blob->pieces[piece].loading = keep || blob->pieces[piece].loading;
    int err = loop_submit(blob->blobs->config.loop, &job->work);
    if (err != 0) {
        blob->pieces[piece].loading = false;
        load_release(job);
        job_free(job);
    }
    return err;
}

/* ---- the blob's hash ---- */

static void hash_done(struct loop_work *work, int status)
{
    (void)status; /* whatever it did is in the prefix */
    struct piece_job *job = (struct piece_job *)work;
    struct blob *blob = job->blob;
    blob->draining = false;
    collect_hashed(blob);
    blob_piece__hash_on(blob);
    blob__wake(blob);
    job_free(job);
}

/* Pieces; the most that others leave, and one. */
static uint32_t line_max(const struct blob *blob)
{
    uint64_t most = blob->blobs->config.memory_bytes / LINES_PART;
    uint64_t others = blob->blobs->lined_bytes - blob->lined_bytes;
    uint64_t pieces = others < most ? (most - others) / blob->layout.piece_bytes : 0;
    if (pieces == 0)
        return 1;
    return pieces < PREFIX_HASH_LINE_MAX ? (uint32_t)pieces : PREFIX_HASH_LINE_MAX;
}

static void note_line(struct blob *blob)
{
    uint64_t waiting = prefix_hash_waiting(blob->prefix);
    blob->blobs->lined_bytes -= blob->lined_bytes;
    blob->lined_bytes = waiting * blob->layout.piece_bytes;
    blob->blobs->lined_bytes += blob->lined_bytes;
}

/* Lines up the pieces in memory that are next, and reads back those that memory has lost. */
static void line_up(struct blob *blob)
{
    uint32_t count = blob->layout.piece_count;
    uint32_t piece = prefix_hash_next(blob->prefix);
    uint32_t most = line_max(blob), waiting = prefix_hash_waiting(blob->prefix);
    uint32_t room = waiting < most ? most - waiting : 0;
    for (; room > 0 && piece < count && blob->pieces[piece].memory != NULL; piece++, room--) {
        const struct memory_entry *entry = blob->pieces[piece].memory;
        if (!prefix_hash_push(blob->prefix, piece, entry->buffer, &entry->hash))
            return;
    }
    uint32_t end = piece + (room < LOADS_AHEAD ? room : LOADS_AHEAD);
    for (; piece < end && piece < count && blob->pieces[piece].have; piece++) {
        const struct blob_piece *slot = &blob->pieces[piece];
        if (slot->memory == NULL && !slot->loading &&
            blob_piece__load(blob, piece, true, NULL, NULL) != 0)
            return;
    }
}

/* Hashes what no arrival will take along: all, when everything is here; half of a full line, whose
 * pieces come faster than one worker at a time can hash them. */
static void drain(struct blob *blob)
{
    bool all_here = blob->have_count == blob->layout.piece_count;
    uint32_t leave = all_here ? 0 : line_max(blob) / 2;
    uint32_t enough = all_here ? 1 : line_max(blob);
    if (blob->draining || prefix_hash_waiting(blob->prefix) < enough)
        return;
    struct piece_job *job = job_new(blob, JOB_HASH, 0);
    if (job == NULL)
        return;
    job->work.done = hash_done;
    job->prefix = blob->prefix;
    job->leave = leave;
    blob->draining = loop_submit(blob->blobs->config.loop, &job->work) == 0;
    if (!blob->draining)
        job_free(job);
}

void blob_piece__hash_on(struct blob *blob)
{
    if (blob->blobs->closing)
        return;
    bool wanted = wanted_prefix(blob) != NULL;
    if (blob->prefix == NULL)
        return;
    if (wanted) {
        line_up(blob);
        drain(blob);
    } else {
        prefix_hash_trim(blob->prefix);
    }
    note_line(blob);
}
