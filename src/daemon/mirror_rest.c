/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rest of layers that are read by ranges, where the configuration asks for it
 * (transfer.prefetchRanges): while a lazy reader goes about in a layer, all of it is brought in
 * behind what clients wait for. By default a range brings in its own blocks and nothing else.
 *
 * Begun inside a client's own range request, with its credentials, like the layers ahead
 * (mirror_prefetch.c), and ended with them (ACL-2). It also ends when the layer is here, and when
 * nobody has read a range of it for REST_IDLE_US.
 */
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "mirror_internal.h"

/* Layers at a time, and their bytes together, blobs_ahead_max: a larger layer is left alone. A node
 * starts some dozens of lazy containers at once at most. */
#define RESTS_MAX    16
#define REST_IDLE_US (30ull * 1000000)
#define TICK_MS      1000

struct rest {
    struct rest *next;
    struct mirror_rests *owner;
    struct blob *blob; /* one reference */
    struct blob_reader reader;
    uint64_t size_bytes;
    uint64_t asked_us; /* the last range */
    bool over;         /* failed or refused: it ends at the next tick */
};

struct mirror_rests {
    struct mirror *mirror;
    struct loop_part part;
    uv_timer_t timer; /* runs while there are any */
    struct rest *list;
    unsigned count;
    uint64_t bytes;
    bool stopping;
};

static void rest_end(struct rest *rest)
{
    struct mirror_rests *rests = rest->owner;
    struct rest **at = &rests->list;
    while (*at != rest)
        at = &(*at)->next;
    *at = rest->next;
    rests->count--;
    rests->bytes -= rest->size_bytes;
    blob_read_stop(&rest->reader);
    blob_put(rest->blob);
    (void)loop_alloc(NULL, rest, 0);
}

static void on_ready(void *arg)
{
    (void)arg; /* never asked for */
}

static void on_failed(void *arg, int status)
{
    struct rest *rest = arg;
    (void)status; /* the ranges themselves tell their clients */
    rest->over = true;
}

static void on_tick(uv_timer_t *timer)
{
    struct mirror_rests *rests = timer->data;
    uint64_t now_us = mirror__now_us(rests->mirror);
    bool off = rests->stopping || rests->mirror->config.config->mode == CONFIG_MODE_PASSTHROUGH;
    for (struct rest *rest = rests->list, *next; rest != NULL; rest = next) {
        next = rest->next;
        if (off || rest->over || blob_verified(rest->blob) || blob_read_lost(&rest->reader) ||
            now_us > rest->asked_us + REST_IDLE_US)
            rest_end(rest);
    }
    if (rests->count == 0)
        (void)uv_timer_stop(&rests->timer);
}

/* The reader of the whole layer. 0, or E_*: nothing was begun. */
static int rest_begin(const struct mirror_request *request, struct rest *rest)
{
    int err = blobs_get(request->mirror->config.blobs, &request->route.digest, rest->size_bytes,
                        &rest->blob);
    struct blob_caller *caller =
        blob_caller_new(request->registry, request->route.repository, request->authorization,
                        request->credential_hash, request->url);
    if (err == 0 && caller == NULL)
        err = E_NO_MEMORY;
    rest->reader = (struct blob_reader){.ready = on_ready, .failed = on_failed, .arg = rest};
    if (err == 0)
        err = blob_read_start(rest->blob, &rest->reader, 0, rest->size_bytes,
                              TRANSFER_READ_PREFETCH, caller);
    blob_caller_put(caller);
    if (err != 0)
        blob_put(rest->blob);
    return err;
}

void mirror_rest__asked(const struct mirror_request *request, struct blob *blob,
                        uint64_t size_bytes)
{
    struct mirror *mirror = request->mirror;
    struct mirror_rests *rests = mirror->rests;
    if (!mirror->config.config->prefetch_ranges || request->opaque || blob_verified(blob))
        return;
    for (struct rest *rest = rests->list; rest != NULL; rest = rest->next) {
        if (rest->blob == blob) {
            rest->asked_us = mirror__now_us(mirror);
            return;
        }
    }
    uint64_t room = blobs_ahead_max(mirror->config.blobs);
    if (rests->stopping || rests->count == RESTS_MAX || size_bytes > room ||
        rests->bytes > room - size_bytes)
        return;
    struct rest *rest = loop_alloc(NULL, NULL, sizeof *rest);
    if (rest == NULL)
        return;
    *rest =
        (struct rest){.owner = rests, .size_bytes = size_bytes, .asked_us = mirror__now_us(mirror)};
    if (rest_begin(request, rest) != 0) {
        (void)loop_alloc(NULL, rest, 0);
        return;
    }
    rest->next = rests->list;
    rests->list = rest;
    rests->bytes += size_bytes;
    mirror->counters.rests_begun++;
    if (rests->count++ == 0)
        (void)uv_timer_start(&rests->timer, on_tick, TICK_MS, TICK_MS);
}

void mirror_rest__refused(struct mirror_rests *rests, const struct blob_caller *caller)
{
    for (struct rest *rest = rests->list; rest != NULL; rest = rest->next) {
        if (!blob_caller_same(rest->reader.caller, caller))
            continue;
        rest->over = true; /* not here: the registry's answer is being worked on */
        (void)uv_timer_start(&rests->timer, on_tick, 0, TICK_MS);
    }
}

/* ---- life ---- */

static void part_drain(void *arg)
{
    struct mirror_rests *rests = arg;
    rests->stopping = true;
    while (rests->list != NULL)
        rest_end(rests->list);
}

static void part_close(void *arg)
{
    struct mirror_rests *rests = arg;
    part_drain(rests);
    uv_close((uv_handle_t *)&rests->timer, NULL);
}

int mirror_rest__new(struct mirror *mirror)
{
    struct mirror_rests *rests = loop_alloc(NULL, NULL, sizeof *rests);
    if (rests == NULL)
        return E_NO_MEMORY;
    *rests = (struct mirror_rests){.mirror = mirror};
    int uv_error = uv_timer_init(&mirror->config.loop->uv, &rests->timer);
    if (uv_error != 0) {
        (void)loop_alloc(NULL, rests, 0);
        return loop_uv_error(uv_error);
    }
    rests->timer.data = rests;
    rests->part =
        (struct loop_part){.name = "rests", .arg = rests, .drain = part_drain, .close = part_close};
    loop_add_part(mirror->config.loop, &rests->part);
    mirror->rests = rests;
    return 0;
}

void mirror_rest__free(struct mirror_rests *rests)
{
    (void)loop_alloc(NULL, rests, 0);
}
