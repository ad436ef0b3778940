/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upkeep of live blobs, once a second: the scrub, which reads the whole cache back within a week
 * (D-5), one piece at a time and whether anybody asks or not; and idle memory, which is given up.
 * The cache decides which piece is due; damage is told to transfer, so that no peer asks for it.
 */
#include "blob_internal.h"

#include "log.h"

#define TICK_MS 1000

static void scrub_run(struct loop_work *work)
{
    struct blob_scrub *scrub = (struct blob_scrub *)work;
    struct blobs *blobs = scrub->timer.data;
    struct piece_record record;
    scrub->status = cache_read(blobs->config.cache, scrub->cached, scrub->piece,
                               scrub->buffer->bytes, scrub->buffer->used, &record);
}

/* The blob whose pieces lie there; NULL if it is not open. */
static struct blob *owner(struct blobs *blobs, const struct cache_blob *cached)
{
    struct blob *blob =
        blobs__find(blobs, cache_blob_digest(cached), cache_blob_layout(cached)->cut);
    return blob != NULL && blob->cached == cached ? blob : NULL;
}

static void damaged(struct blobs *blobs, struct blob *blob)
{
    struct blob_scrub *scrub = &blobs->scrub;
    blobs->counters.corrupt += scrub->status == E_CORRUPT;
    cache_drop_piece(blobs->config.cache, scrub->cached, scrub->piece);
    if (blob == NULL)
        return;
    struct blob_piece *slot = &blob->pieces[scrub->piece];
    slot->stored = false;
    slot->checked_us = 0;
    blob__piece_settle(blob, scrub->piece);
}

static void scrub_next(struct blobs *blobs);

static void scrub_done(struct loop_work *work, int status)
{
    struct blob_scrub *scrub = (struct blob_scrub *)work;
    struct blobs *blobs = scrub->timer.data;
    struct blob *blob = owner(blobs, scrub->cached);
    if (status != 0)
        scrub->status = status;
    if (blob != NULL)
        (void)blob__ref(blob);
    if (scrub->status == 0 && blob != NULL)
        blob->pieces[scrub->piece].checked_us = loop_now_us(blobs->config.loop);
    else if (scrub->status == E_CORRUPT || scrub->status == E_NOT_FOUND || scrub->status == E_IO)
        damaged(blobs, blob); /* before the pin goes, as its reference may be the last */
    blobs->counters.scrubbed++;
    buffer_put(scrub->buffer);
    scrub->buffer = NULL;
    cache_scrub_done(blobs->config.cache, scrub->cached, scrub->piece);
    scrub->cached = NULL;
    scrub->running = false;
    blobs__evictions(blobs);
    if (blob != NULL)
        blob__unref(blob);
    scrub_next(blobs);
}

/* Reads the next piece back if one is due. Without a buffer to spare its turn passes: scrubbing
 * never takes memory from those who wait. */
static void scrub_next(struct blobs *blobs)
{
    struct blob_scrub *scrub = &blobs->scrub;
    struct cache *cache = blobs->config.cache;
    uint64_t now_us = loop_now_us(blobs->config.loop);
    if (scrub->running || uv_is_closing((uv_handle_t *)&scrub->timer) ||
        !cache_next_scrub(cache, now_us, &scrub->cached, &scrub->piece))
        return;
    uint32_t bytes = piece_length(cache_blob_layout(scrub->cached), scrub->piece);
    scrub->buffer = buffer_get(blobs->config.pool, bytes, BUFFER_FOR_PEER);
    int err = scrub->buffer == NULL ? E_FULL : 0;
    if (err == 0) {
        scrub->buffer->used = bytes;
        scrub->work.run = scrub_run;
        scrub->work.done = scrub_done;
        err = loop_submit(blobs->config.loop, &scrub->work);
    }
    scrub->running = err == 0;
    if (err == 0)
        return;
    buffer_put(scrub->buffer);
    scrub->buffer = NULL;
    cache_scrub_done(cache, scrub->cached, scrub->piece);
    scrub->cached = NULL;
}

static void on_timer(uv_timer_t *timer)
{
    struct blobs *blobs = timer->data;
    blob_memory__release(blobs);
    blob_refusal__tick(blobs);
    scrub_next(blobs);
}

static void part_close(void *arg)
{
    struct blobs *blobs = arg;
    uv_close((uv_handle_t *)&blobs->scrub.timer, NULL);
}

int blob_scrub__start(struct blobs *blobs)
{
    struct blob_scrub *scrub = &blobs->scrub;
    struct loop *loop = blobs->config.loop;
    if (uv_timer_init(&loop->uv, &scrub->timer) != 0)
        return E_INTERNAL;
    scrub->timer.data = blobs;
    scrub->part = (struct loop_part){.name = "blobs", .arg = blobs, .close = part_close};
    loop_add_part(loop, &scrub->part);
    return uv_timer_start(&scrub->timer, on_timer, TICK_MS, TICK_MS) == 0 ? 0 : E_INTERNAL;
}
