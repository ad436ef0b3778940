/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of live blobs, their life, and the handlers through which the node asks for pieces and
 * brings them. Readers are in blob_reader.c.
 */
#include "blob_internal.h"

#include <string.h>

#include "bytes.h"
#include "content.h"
#include "log.h"

/* ---- callers ---- */

/* A copy of a secret that the caller keeps; NULL for NULL. 0 or E_NO_MEMORY. */
static int secret_copy(const char *secret, char **out)
{
    size_t bytes = secret == NULL ? 0 : strlen(secret) + 1;
    if (bytes == 0)
        return 0;
    *out = loop_alloc(NULL, NULL, bytes);
    if (*out == NULL)
        return E_NO_MEMORY;
    memcpy(*out, secret, bytes);
    return 0;
}

static void secret_free(char *secret)
{
    if (secret == NULL)
        return;
    explicit_bzero(secret, strlen(secret));
    (void)loop_alloc(NULL, secret, 0);
}

struct blob_caller *blob_caller_new(const struct registry_entry *registry, const char *repository,
                                    const char *authorization, const uint8_t credential_hash[32],
                                    const char *url)
{
    struct blob_caller *caller = loop_alloc(NULL, NULL, sizeof *caller);
    if (caller == NULL)
        return NULL;
    *caller = (struct blob_caller){.refs = 1, .registry = registry_entry_ref(registry)};
    memcpy(caller->credential_hash, credential_hash, sizeof caller->credential_hash);
    int err = text_copy(caller->repository, sizeof caller->repository, repository);
    if (err == 0)
        err = secret_copy(authorization, &caller->authorization);
    if (err == 0)
        err = secret_copy(url, &caller->url);
    if (err != 0) {
        blob_caller_put(caller);
        return NULL;
    }
    return caller;
}

struct blob_caller *blob_caller_ref(struct blob_caller *caller)
{
    caller->refs++;
    return caller;
}

bool blob_caller_same(const struct blob_caller *a, const struct blob_caller *b)
{
    return a != NULL && b != NULL && a->registry == b->registry &&
           strcmp(a->repository, b->repository) == 0 &&
           memcmp(a->credential_hash, b->credential_hash, sizeof a->credential_hash) == 0;
}

void blob_caller_put(struct blob_caller *caller)
{
    if (caller == NULL || --caller->refs > 0)
        return;
    secret_free(caller->authorization);
    secret_free(caller->url);
    registry_entry_put(caller->registry);
    (void)loop_alloc(NULL, caller, 0);
}

const char *blob_tier_name(enum blob_tier tier)
{
    static const char *const names[BLOB_TIER_COUNT] = {"none",          "memory", "disk",
                                                       "content-store", "peer",   "origin"};
    return tier > 0 && tier < BLOB_TIER_COUNT ? names[tier] : names[0];
}

/* ---- life ---- */

struct blob **blobs__table(struct blobs *blobs, enum piece_cut cut)
{
    return cut == PIECE_CUT_FINE ? &blobs->fine : &blobs->by_digest;
}

struct blob *blobs__find(struct blobs *blobs, const struct digest *digest, enum piece_cut cut)
{
    struct blob *blob;
    HASH_FIND(by_digest, *blobs__table(blobs, cut), digest, sizeof *digest, blob);
    return blob;
}

int blobs_new(const struct blobs_config *config, struct blobs **out)
{
    struct blobs *blobs = loop_alloc(NULL, NULL, sizeof *blobs);
    if (blobs == NULL)
        return E_NO_MEMORY;
    *blobs = (struct blobs){.config = *config, .cuts = {.closed = true}};
    int err = history_new(config->loop, &blobs->history);
    if (err == 0 && config->content_path[0] != '\0')
        err = content_new(blobs, config->loop, config->content_path, config->data_dir,
                          &blobs->content);
    if (err != 0) {
        history_free(blobs->history);
        (void)loop_alloc(NULL, blobs, 0);
        return err;
    }
    *out = blobs;
    return 0;
}

void blobs_bind(struct blobs *blobs, struct node *node)
{
    blobs->config.node = node;
}

void blobs_bind_origin(struct blobs *blobs, struct origin *origin)
{
    blobs->config.origin = origin;
}

static void blob_free(struct blob *blob)
{
    struct blobs *blobs = blob->blobs;
    blob_refusal__clear(blob);
    if (!table_left_out(blob->by_digest))
        HASH_DELETE(by_digest, *blobs__table(blobs, blob->info.cut), blob);
    if (!table_left_out(blob->by_handle))
        HASH_DELETE(by_handle, blobs->by_handle, blob);
    for (uint32_t i = 0; i < blob->layout.piece_count; i++) {
        blob->pieces[i].have = false;
        blob_memory__drop(blob, i);
        (void)loop_alloc(NULL, blob->pieces[i].voucher, 0);
    }
    for (uint32_t i = 0; i < blob->caller_count; i++)
        blob_caller_put(blob->callers[i]);
    content_copy_put(blob->content);
    if (blob->cached != NULL)
        cache_put(blobs->config.cache, blob->cached);
    blobs->lined_bytes -= blob->lined_bytes;
    prefix_hash_free(blob->prefix);
    (void)loop_alloc(NULL, blob->proven, 0);
    (void)loop_alloc(NULL, blob->pieces, 0);
    (void)loop_alloc(NULL, blob, 0);
    blobs->counters.blobs--;
}

void blobs_free(struct blobs *blobs)
{
    if (blobs == NULL)
        return;
    blobs->closing = true;
    struct blob *blob, *next;
    for (int cut = 0; cut < PIECE_CUT_COUNT; cut++) {
        HASH_ITER(by_digest, *blobs__table(blobs, (enum piece_cut)cut), blob, next)
        {
            blob_free(blob);
        }
    }
    content_free(blobs->content);
    history_free(blobs->history);
    (void)loop_alloc(NULL, blobs, 0);
}

struct blob *blob__ref(struct blob *blob)
{
    blob->refs++;
    return blob;
}

/* Nothing of it is wanted, held or here: peers need not know of it. */
void blob__unref(struct blob *blob)
{
    ASSERT(blob->refs > 0);
    if (--blob->refs > 0)
        return;
    while (blob->caller_count > 0)
        blob_caller_put(blob->callers[--blob->caller_count]);
    if (blob->have_count > 0 || blob->blobs->closing)
        return;
    struct blobs *blobs = blob->blobs;
    if (blob->handle != 0)
        transfer_blob_close(node_transfer(blobs->config.node), loop_now_us(blobs->config.loop),
                            blob->handle);
    blob_free(blob);
}

void blob_put(struct blob *blob)
{
    if (blob != NULL)
        blob__unref(blob);
}

const struct piece_hash *blob__proven(const struct blob *blob, uint32_t piece)
{
    static const struct piece_hash unknown;
    if (blob->proven == NULL || memcmp(&blob->proven[piece], &unknown, sizeof unknown) == 0)
        return NULL;
    return &blob->proven[piece];
}

void blob__prove(struct blob *blob, uint32_t piece, const struct piece_hash *hash)
{
    size_t bytes = blob->layout.piece_count * sizeof *hash;
    if (blob->proven == NULL) {
        blob->proven = loop_alloc(NULL, NULL, bytes);
        if (blob->proven == NULL)
            return;
        memset(blob->proven, 0, bytes);
    }
    blob->proven[piece] = *hash;
}

/* Without its hash nobody can tell whether what comes for a lost piece is right, but by hashing all
 * of the blob again. Readers under way wait for that with their last bytes (INT-1). */
static void doubt(struct blob *blob, uint32_t piece)
{
    if (!blob->verified || blob__proven(blob, piece) != NULL)
        return;
    blob->verified = false;
    blob->hashed = 0;
    if (blob->prefix != NULL)
        prefix_hash_reset(blob->prefix);
}

void blob__piece_gone(struct blob *blob, uint32_t piece)
{
    struct blob_piece *slot = &blob->pieces[piece];
    if (!slot->have)
        return;
    slot->have = false;
    slot->stored = false;
    slot->checked_us = 0;
    blob->have_count--;
    blob_memory__drop(blob, piece);
    doubt(blob, piece);
    if (blob->handle == 0 || blob->blobs->closing)
        return;
    blob__ahead_lost(blob);
    transfer_piece_lost(node_transfer(blob->blobs->config.node),
                        loop_now_us(blob->blobs->config.loop), blob->handle, piece);
}

void blob__piece_settle(struct blob *blob, uint32_t piece)
{
    const struct blob_piece *slot = &blob->pieces[piece];
    if (slot->have && !slot->stored && slot->memory == NULL && blob->content == NULL)
        blob__piece_gone(blob, piece);
}

void blobs__evictions(struct blobs *blobs)
{
    struct cache_eviction eviction;
    while (cache_next_eviction(blobs->config.cache, &eviction)) {
        struct blob *victim = blobs__find(blobs, &eviction.digest, eviction.cut);
        if (victim == NULL)
            continue;
        (void)blob__ref(victim);
        for (uint32_t i = 0; i < eviction.piece_count; i++) {
            victim->pieces[eviction.first_piece + i].stored = false;
            blob__piece_settle(victim, eviction.first_piece + i);
        }
        blob__unref(victim);
    }
}

void blob__renew_cached(struct blob *blob)
{
    struct cache *cache = blob->blobs->config.cache;
    struct cache_blob *fresh;
    cache_drop_blob(cache, blob->cached);
    blobs__evictions(blob->blobs);
    if (cache_get_cut(cache, &blob->info.digest, blob->info.cut, blob->info.size_bytes, &fresh) !=
        0)
        return; /* the old place takes no pieces: they stay in memory only */
    cache_put(cache, blob->cached);
    blob->cached = fresh;
    blob->sealed = false;
}

static int open_pieces(struct blob *blob)
{
    size_t bytes;
    int err = size_mul(blob->layout.piece_count, sizeof *blob->pieces, &bytes);
    if (err != 0)
        return err;
    if (bytes == 0)
        return 0;
    blob->pieces = loop_alloc(NULL, NULL, bytes);
    if (blob->pieces == NULL)
        return E_NO_MEMORY;
    memset(blob->pieces, 0, bytes);
    const struct bitfield *have = cache_blob_have(blob->cached);
    for (uint32_t i = bitfield_next_set(have, 0); i < have->bit_count;
         i = bitfield_next_set(have, i + 1)) {
        blob->pieces[i].have = blob->pieces[i].stored = true;
        blob->have_count++;
    }
    return 0;
}

/* Makes the blob known to the tables and to transfer. 0, or E_*: it is in neither. */
static int blob_enter(struct blob *blob)
{
    struct blobs *blobs = blob->blobs;
    struct transfer *transfer = node_transfer(blobs->config.node);
    uint64_t now_us = loop_now_us(blobs->config.loop);
    struct blob **table = blobs__table(blobs, blob->info.cut);
    HASH_ADD(by_digest, *table, info.digest, sizeof blob->info.digest, blob);
    if (table_left_out(blob->by_digest))
        return E_NO_MEMORY;
    int err = transfer_blob_open(transfer, now_us, &blob->info, cache_blob_have(blob->cached),
                                 &blob->handle);
    if (err != 0) {
        blob->handle = 0;
        return err;
    }
    HASH_ADD(by_handle, blobs->by_handle, handle, sizeof blob->handle, blob);
    if (!table_left_out(blob->by_handle))
        return 0;
    transfer_blob_close(transfer, now_us, blob->handle);
    blob->handle = 0;
    return E_NO_MEMORY;
}

/* `cached` is TAKEN, also on failure. */
static int blob_open(struct blobs *blobs, struct cache_blob *cached, struct blob **out)
{
    struct blob *blob = loop_alloc(NULL, NULL, sizeof *blob);
    if (blob == NULL) {
        cache_put(blobs->config.cache, cached);
        return E_NO_MEMORY;
    }
    *blob = (struct blob){.blobs = blobs, .cached = cached, .refs = 1};
    blob->info.digest = *cache_blob_digest(cached);
    blob->info.size_bytes = cache_blob_size(cached);
    blob->layout = *cache_blob_layout(cached);
    blob->info.cut = blob->layout.cut;
    blob->sealed = cache_blob_complete(cached);
    blob->verified = blob->sealed && bitfield_full(cache_blob_have(cached));
    blob_key_cut(node_lookup_key(blobs->config.node), &blob->info.digest, blob->info.cut,
                 &blob->info.key);
    blobs->counters.blobs++;
    int err = open_pieces(blob);
    if (err == 0)
        err = blob_enter(blob);
    if (err != 0) {
        if (blob->pieces == NULL)
            blob->layout.piece_count = 0;
        blob_free(blob);
        return err;
    }
    *out = blob;
    return 0;
}

/* Idle, so that nobody knows its handle but transfer, and no job its key. Peers that take pieces of
 * it still do so by the old key: they are let finish. */
static bool may_rename(const struct blob *blob)
{
    uint64_t now_us = loop_now_us(blob->blobs->config.loop);
    return blob->refs == 0 && now_us - blob->served_us >= RENAME_IDLE_US;
}

/* 0, or E_*: it keeps its old name. Vouchers name the blob, so those in memory are of no use. */
static int blob_rename(struct blob *blob, const struct blob_key *key)
{
    struct blobs *blobs = blob->blobs;
    struct transfer *transfer = node_transfer(blobs->config.node);
    uint64_t now_us = loop_now_us(blobs->config.loop);
    for (uint32_t i = 0; i < blob->layout.piece_count; i++) {
        blob_memory__drop(blob, i);
        blob->pieces[i].voucher = loop_alloc(NULL, blob->pieces[i].voucher, 0);
    }
    struct blob_info info = blob->info;
    blob_handle old = blob->handle;
    info.key = *key;
    int err = transfer_blob_open(transfer, now_us, &info, transfer_blob_have(transfer, old),
                                 &blob->handle);
    if (err != 0) {
        blob->handle = old;
        return err;
    }
    transfer_blob_close(transfer, now_us, old);
    HASH_DELETE(by_handle, blobs->by_handle, blob);
    HASH_ADD(by_handle, blobs->by_handle, handle, sizeof blob->handle, blob);
    blob->info.key = *key;
    blob->renamed = true;
    return table_left_out(blob->by_handle) ? E_NO_MEMORY : 0;
}

/* The same for one blob; true if it has its name or needs none. */
static bool give_name(struct blob *blob)
{
    struct blob_key key;
    blob_key_cut(node_lookup_key(blob->blobs->config.node), &blob->info.digest, blob->info.cut,
                 &key);
    if (memcmp(&key, &blob->info.key, sizeof key) == 0)
        return true;
    if (!may_rename(blob))
        return false;
    (void)blob__ref(blob);
    bool named = blob_rename(blob, &key) == 0;
    if (table_left_out(blob->by_handle)) /* it stays in the cache; a reader opens it later */
        blob->have_count = 0;
    blob__unref(blob);
    return named;
}

bool blobs_rename(struct blobs *blobs)
{
    bool all = true;
    struct blob *blob, *next;
    for (int cut = 0; cut < PIECE_CUT_COUNT; cut++) {
        HASH_ITER(by_digest, *blobs__table(blobs, (enum piece_cut)cut), blob, next)
        {
            all = give_name(blob) && all;
        }
    }
    return all;
}

static bool on_names(void *host)
{
    return blobs_rename(host);
}

int blobs_get(struct blobs *blobs, const struct digest *digest, uint64_t size_bytes,
              struct blob **out)
{
    return blobs_get_cut(blobs, digest, PIECE_CUT_PLAIN, size_bytes, out);
}

int blobs_get_cut(struct blobs *blobs, const struct digest *digest, enum piece_cut cut,
                  uint64_t size_bytes, struct blob **out)
{
    struct blob *blob = blobs__find(blobs, digest, cut);
    if (blob != NULL) {
        if (blob->info.size_bytes != size_bytes)
            return E_INVALID;
        *out = blob__ref(blob);
        return 0;
    }
    struct cache_blob *cached;
    int err = cache_get_cut(blobs->config.cache, digest, cut, size_bytes, &cached);
    blobs__evictions(blobs);
    if (err != 0)
        return err;
    return blob_open(blobs, cached, out);
}

static void recovered(void *arg, struct cache_blob *cached)
{
    struct blobs *blobs = arg;
    struct blob *blob;
    struct cache_blob *own = cache_find_cut(blobs->config.cache, cache_blob_digest(cached),
                                            cache_blob_layout(cached)->cut);
    if (own == NULL || blob_open(blobs, own, &blob) != 0)
        return; /* it stays in the cache; a reader opens it later */
    blob__unref(blob);
}

int blobs_recover(struct blobs *blobs)
{
    int err = blob_scrub__start(blobs);
    if (err == 0)
        err = blob_cut__start(blobs);
    int found = err != 0 ? err : cache_recover(blobs->config.cache, recovered, blobs);
    if (found >= 0 && blobs->content != NULL)
        err = content_start(blobs->content);
    return err != 0 ? err : found;
}

void blobs_counters(const struct blobs *blobs, struct blobs_counters *out)
{
    *out = blobs->counters;
    out->memory_bytes = blobs->memory_bytes;
    if (blobs->content == NULL)
        return;
    const struct content_counters *content = &blobs->content->counters;
    out->content_blobs = content->offered;
    out->content_wrong = content->wrong;
    out->content_gone = content->gone;
    out->content_given_up_bytes = content->given_up_bytes;
}

struct history *blobs_history(struct blobs *blobs)
{
    return blobs->history;
}

bool blobs_busy(const struct blobs *blobs)
{
    return blobs->counters.readers > 0;
}

uint64_t blob_size(const struct blob *blob)
{
    return blob->info.size_bytes;
}

bool blob_verified(const struct blob *blob)
{
    return blob->verified;
}

void blob_sources(const struct blob *blob, struct blob_sources *out)
{
    *out = blob->sources;
}

struct blob *blobs__by_handle(struct blobs *blobs, blob_handle handle)
{
    struct blob *blob;
    HASH_FIND(by_handle, blobs->by_handle, &handle, sizeof handle, blob);
    return blob;
}

/* ---- what the node asks and brings ---- */

static void on_fetch(void *host, const struct transfer_result *result)
{
    struct blobs *blobs = host;
    struct blob *blob = blobs__by_handle(blobs, result->blob);
    if (blob != NULL)
        blob_fetch__start(blob, result);
    else
        transfer_fetch_end(node_transfer(blobs->config.node), loop_now_us(blobs->config.loop),
                           result->id, E_NOT_FOUND, 0);
}

static void on_fetch_cancel(void *host, const struct transfer_result *result)
{
    struct blob *blob = blobs__by_handle(host, result->blob);
    if (blob != NULL)
        blob_fetch__cancel(blob, result->id);
}

struct upload {
    struct blobs *blobs;
    uint64_t id;
};

static void upload_loaded(void *arg, int status, struct buffer *bytes,
                          const struct voucher *voucher)
{
    struct upload *upload = arg;
    struct node *node = upload->blobs->config.node;
    if (status == 0)
        node_upload_ready(node, upload->id, 0, buffer_ref(bytes), voucher);
    else
        node_upload_ready(node, upload->id, status, NULL, NULL);
    (void)loop_alloc(NULL, upload, 0);
}

static int load_for_upload(struct blob *blob, const struct transfer_result *result)
{
    struct upload *upload = loop_alloc(NULL, NULL, sizeof *upload);
    if (upload == NULL)
        return E_NO_MEMORY;
    *upload = (struct upload){.blobs = blob->blobs, .id = result->id};
    int err = blob_piece__load(blob, result->piece, true, upload_loaded, upload);
    if (err != 0)
        (void)loop_alloc(NULL, upload, 0);
    return err;
}

static void on_upload(void *host, const struct transfer_result *result)
{
    struct blobs *blobs = host;
    struct blob *blob = blobs__by_handle(blobs, result->blob);
    int err = E_NOT_FOUND;
    if (blob != NULL && result->piece < blob->layout.piece_count) {
        const struct blob_piece *slot = &blob->pieces[result->piece];
        blob->served_us = loop_now_us(blobs->config.loop);
        if (slot->memory != NULL && slot->voucher != NULL) {
            blob_memory__touch(blob, result->piece);
            node_upload_ready(blobs->config.node, result->id, 0, buffer_ref(slot->memory->buffer),
                              slot->voucher);
            return;
        }
        if (slot->stored || blob->content != NULL)
            err = load_for_upload(blob, result);
    }
    if (err != 0)
        node_upload_ready(blobs->config.node, result->id, err, NULL, NULL);
}

/* A voucher counts if its signer is a member we know, or the very node that sent the piece. */
static bool signer_known(const struct blobs *blobs, const struct node_piece *piece)
{
    const struct voucher *voucher = &piece->voucher;
    const struct identity_key *key = NULL;
    struct member member;
    if (gossip_find(node_gossip(blobs->config.node), &voucher->signer, &member))
        key = &member.key;
    else if (node_id_equal(&voucher->signer, &piece->peer))
        key = &piece->peer_key;
    else if (node_id_equal(&voucher->signer, node_self_id(blobs->config.node)))
        key = &node_identity(blobs->config.node)->public_key;
    return key != NULL && memcmp(key->bytes, voucher->signer_key.bytes, sizeof key->bytes) == 0;
}

static void on_piece(void *host, const struct node_piece *piece, struct buffer *bytes)
{
    struct blobs *blobs = host;
    struct blob *blob = blobs__by_handle(blobs, piece->blob);
    struct piece_arrival arrival = {
        .blob = blob,
        .piece = piece->piece,
        .source = {.origin = PIECE_FROM_PEER, .peer = piece->peer},
        .voucher = piece->voucher,
    };
    int status = 0;
    if (blob == NULL || blob->repairing || blob->content != NULL)
        status = E_CANCELLED;
    else if (!piece->vouched)
        status = E_VOUCHER;
    else if (!signer_known(blobs, piece)) {
        blobs->counters.unknown_signer++;
        status = E_NOT_FOUND; /* no proof of a lie: ask elsewhere */
    }
    if (status == 0) {
        blob_piece__arrived(&arrival, bytes);
        return;
    }
    buffer_put(bytes);
    transfer_piece_done(node_transfer(blobs->config.node), loop_now_us(blobs->config.loop),
                        piece->blob, piece->piece, &arrival.source, status);
}

static void on_piece_failed(void *host, const struct transfer_result *result)
{
    struct blob *blob = blobs__by_handle(host, result->blob);
    if (blob != NULL)
        blob__fail(blob, result->status);
}

static void on_lookup(void *host, const struct dht_result *result)
{
    blob_cut__found(host, result);
}

void blobs_handlers(struct blobs *blobs, struct node_handlers *out)
{
    *out = (struct node_handlers){
        .host = blobs,
        .fetch = on_fetch,
        .fetch_cancel = on_fetch_cancel,
        .upload = on_upload,
        .piece = on_piece,
        .piece_failed = on_piece_failed,
        .lookup = on_lookup,
        .names = on_names,
    };
}
