/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blobs of an order: readers that nobody waits for (TRANSFER_READ_PREFETCH), a few at a time.
 * What one of them cannot have now it tries again; the registry's no ends the order at once.
 */
#include "pull_internal.h"

#include <string.h>

#include "bytes.h"
#include "log.h"
#include "status_text.h"

/* As many as containerd takes at once. */
#define READERS_MAX 3
/* Readers of one blob, and the rest between them. */
#define TRIES_MAX 4
#define RETRY_US  (2ull * 1000000)
/* Nothing comes for so long: a registry that went away is known to be within a minute. A guess. */
#define STALL_US (120ull * 1000000)
/* Word from containerd's content store is waited for so long: it hashes what it has. */
#define CONTENT_US (60ull * 1000000)

int pull__blob_add(struct pull *pull, const struct manifest_descriptor *found)
{
    size_t room = PULL_BLOBS_MAX * sizeof *pull->blobs;
    for (uint32_t i = 0; i < pull->blob_count; i++) {
        if (digest_equal(&pull->blobs[i].digest, &found->digest))
            return pull->blobs[i].size_bytes == found->size_bytes ? 0 : E_MALFORMED;
    }
    if (pull->blobs == NULL) {
        pull->blobs = loop_alloc(NULL, NULL, room);
        if (pull->blobs == NULL)
            return E_NO_MEMORY;
        memset(pull->blobs, 0, room);
    }
    if (pull->blob_count == PULL_BLOBS_MAX)
        return E_TOO_LARGE;
    pull->blobs[pull->blob_count++] =
        (struct pull_blob){.digest = found->digest, .size_bytes = found->size_bytes};
    return 0;
}

void pull__blobs_begin(struct pull *pull)
{
    char size[BYTES_TEXT_BYTES], room[BYTES_TEXT_BYTES];
    struct cache_stats cache;
    uint64_t sum = 0;
    cache_stats(pull->owner->config.cache, &cache);
    for (uint32_t i = 0; i < pull->blob_count; i++)
        sum = UINT64_MAX - sum < pull->blobs[i].size_bytes ? UINT64_MAX
                                                           : sum + pull->blobs[i].size_bytes;
    pull->state = PULL_RUNNING;
    pull->moved_us = pull__now_us(pull);
    if (sum > cache.capacity_bytes)
        pull__end(pull, PULL_FAILED,
                  "the image has %s and the cache holds %s: raise cache.capacity (in memory mode "
                  "cache.memory)",
                  bytes_text(sum, size), bytes_text(cache.capacity_bytes, room));
    else
        pull__blobs_tick(pull);
}

/* ---- one reader ---- */

static void on_ready(void *arg)
{
    (void)arg; /* never asked for */
}

static void on_failed(void *arg, int status)
{
    struct pull_blob *one = arg;
    one->err = status; /* at the next tick: the blob goes through its readers now */
}

static void look(struct pull_blob *one, const struct blobs *blobs)
{
    struct blob_sources sources;
    struct blob_view view;
    blob_sources(one->blob, &sources);
    one->origin_bytes += sources.origin - one->before.origin;
    one->peer_bytes += sources.peer - one->before.peer;
    one->before = sources;
    if (blobs_view(blobs, &one->digest, &view))
        one->have_bytes = view.have_bytes;
}

static void stop(struct pull *pull, struct pull_blob *one, enum pull_blob_state state)
{
    look(one, pull->owner->config.blobs);
    blob_read_stop(&one->reader);
    blob_put(one->blob);
    one->blob = NULL;
    one->state = state;
}

void pull__blobs_stop(struct pull *pull)
{
    for (uint32_t i = 0; i < pull->blob_count; i++) {
        if (pull->blobs[i].state == PULL_BLOB_RUNNING)
            stop(pull, &pull->blobs[i], PULL_BLOB_WAITING);
    }
}

static int read_on(struct pull *pull, struct pull_blob *one)
{
    struct blob_caller *caller = blob_caller_new(pull->registry, pull->order.image.repository, NULL,
                                                 pull->credential_hash, NULL);
    if (caller == NULL)
        return E_NO_MEMORY;
    caller->as_node = pull->as_node;
    one->reader = (struct blob_reader){.ready = on_ready, .failed = on_failed, .arg = one};
    one->err = 0;
    blob_sources(one->blob, &one->before);
    int err = blob_read_start(one->blob, &one->reader, 0, one->size_bytes, TRANSFER_READ_PREFETCH,
                              caller);
    blob_caller_put(caller);
    return err;
}

/* 0; E_AGAIN: not yet; else why there is no reader. */
static int open_one(struct pull *pull, struct pull_blob *one)
{
    struct blobs *blobs = pull->owner->config.blobs;
    uint64_t now_us = pull__now_us(pull);
    if (now_us < one->retry_us ||
        (blobs_content_expected(blobs, &one->digest) && now_us - pull->moved_us < CONTENT_US))
        return E_AGAIN;
    int err = blobs_get(blobs, &one->digest, one->size_bytes, &one->blob);
    if (err != 0)
        return err;
    if (blob_verified(one->blob)) {
        one->have_bytes = one->size_bytes;
        one->state = PULL_BLOB_DONE;
    } else {
        err = read_on(pull, one);
        if (err == 0)
            one->state = PULL_BLOB_RUNNING;
    }
    if (one->state != PULL_BLOB_RUNNING) {
        blob_put(one->blob);
        one->blob = NULL;
    }
    return err;
}

/* ---- all ---- */

/* Other readers' blobs may leave room for it later, unless it is too large for any. */
static bool never_fits(const struct pull *pull, const struct pull_blob *one)
{
    struct cache_stats cache;
    cache_stats(pull->owner->config.cache, &cache);
    return one->size_bytes > cache.capacity_bytes / 2;
}

static void give_up(struct pull *pull, struct pull_blob *one, int err)
{
    char name[SHORT_HEX_BYTES], size[BYTES_TEXT_BYTES];
    (void)short_hex(one->digest.bytes, name);
    one->state = PULL_BLOB_FAILED;
    one->err = err;
    if (err == E_DENIED)
        pull__end(pull, PULL_FAILED, "registry %s refuses to give the blob %s of %s",
                  pull->registry->name, name, pull->order.image.repository);
    else if (err == E_NO_SPACE)
        pull__end(pull, PULL_FAILED,
                  "the blob %s of %s does not stay in the cache: see `shoal doctor`, and raise "
                  "cache.capacity, of which one blob may fill half",
                  name, bytes_text(one->size_bytes, size));
    else
        pull__end(pull, PULL_FAILED, "the blob %s cannot be had: %s", name, err_text(err));
}

/* True: it is tried again later. */
static bool try_again(struct pull *pull, struct pull_blob *one, int err)
{
    bool hopeless =
        err == E_DENIED || err == E_NOT_FOUND || (err == E_NO_SPACE && never_fits(pull, one));
    if (hopeless || (err != E_NO_SPACE && ++one->tries >= TRIES_MAX)) {
        give_up(pull, one, err);
        return false;
    }
    one->retry_us = pull__now_us(pull) + RETRY_US;
    return true;
}

/* What became of a reader. False: the order is over. */
static bool settle(struct pull *pull, struct pull_blob *one)
{
    look(one, pull->owner->config.blobs);
    if (blob_verified(one->blob)) {
        stop(pull, one, PULL_BLOB_DONE);
        one->have_bytes = one->size_bytes;
        return true;
    }
    bool refused = one->reader.caller->refused;
    if (one->err == 0 && !refused && !blob_read_lost(&one->reader))
        return true;
    int err = one->err != 0 ? one->err : refused ? E_DENIED : E_NO_SPACE;
    stop(pull, one, PULL_BLOB_WAITING);
    return try_again(pull, one, err);
}

/* Begins what may be. False: the order is over. */
static bool begin_more(struct pull *pull, uint32_t running)
{
    for (uint32_t i = 0; i < pull->blob_count && running < READERS_MAX; i++) {
        struct pull_blob *one = &pull->blobs[i];
        if (one->state != PULL_BLOB_WAITING)
            continue;
        int err = open_one(pull, one);
        if (err != 0 && err != E_AGAIN && !try_again(pull, one, err))
            return false;
        running += one->state == PULL_BLOB_RUNNING;
    }
    return true;
}

/* Bytes that came, as far as they tell that something moves; *done: blobs that are here. */
static uint64_t moved(const struct pull *pull, uint32_t *done)
{
    uint64_t bytes = 0;
    *done = 0;
    for (uint32_t i = 0; i < pull->blob_count; i++) {
        const struct pull_blob *one = &pull->blobs[i];
        bytes += one->origin_bytes + one->peer_bytes;
        if (one->state == PULL_BLOB_RUNNING)
            bytes += blob_read_progress(&one->reader) - one->before.origin - one->before.peer;
        *done += one->state == PULL_BLOB_DONE;
    }
    return bytes + *done;
}

static void note_progress(struct pull *pull)
{
    uint32_t done;
    uint64_t bytes = moved(pull, &done);
    if (done == pull->blob_count) {
        pull__nodes_begin(pull);
    } else if (bytes != pull->moved_bytes) {
        pull->moved_bytes = bytes;
        pull->moved_us = pull__now_us(pull);
    } else if (pull__now_us(pull) - pull->moved_us > STALL_US) {
        pull__end(pull, PULL_FAILED,
                  "nothing came for two minutes: see `shoal explain` and `shoal doctor`");
    }
}

void pull__blobs_tick(struct pull *pull)
{
    uint32_t running = 0;
    for (uint32_t i = 0; i < pull->blob_count; i++) {
        struct pull_blob *one = &pull->blobs[i];
        if (one->state == PULL_BLOB_RUNNING && !settle(pull, one))
            return;
        running += one->state == PULL_BLOB_RUNNING;
    }
    if (begin_more(pull, running))
        note_progress(pull);
}
