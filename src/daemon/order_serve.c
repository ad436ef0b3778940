/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing in what other nodes order; see order_serve.h. */
#include "order_serve.h"

#include "log.h"

#define TICK_MS 500
#define HOUR_US (3600ull * 1000000)
/* Nothing of a blob came from the mesh for so long: nobody gives it. */
#define STALL_US (60ull * 1000000)

struct served {
    struct digest digest;
    uint64_t size_bytes;
    struct blob *blob; /* one reference, with its reader; NULL: it has failed */
    struct blob_reader reader;
    bool used;
    int err;
    uint64_t asked_us;
    uint64_t moved_us, moved_bytes;
};

struct order_serve {
    struct order_serve_config config;
    struct order_serve_counters counters;
    struct loop_part part;
    uv_timer_t timer; /* runs while there are any */
    struct served served[SERVE_BLOBS_MAX];
    uint32_t count;
    uint64_t room_bytes, filled_us; /* what may still be ordered, as of then */
    bool stopping;
};

static uint64_t now_us(const struct order_serve *serve)
{
    return loop_now_us(serve->config.loop);
}

/* ---- readers ---- */

static void on_ready(void *arg)
{
    (void)arg; /* never asked for */
}

static void on_failed(void *arg, int status)
{
    struct served *one = arg;
    one->err = status; /* at the next tick: the blob goes through its readers now */
}

static void stop(struct served *one)
{
    if (one->blob == NULL)
        return;
    blob_read_stop(&one->reader);
    blob_put(one->blob);
    one->blob = NULL;
}

static void forget(struct order_serve *serve, struct served *one)
{
    stop(one);
    *one = (struct served){.used = false};
    serve->count--;
}

static void settle(struct order_serve *serve, struct served *one)
{
    uint64_t at_us = now_us(serve);
    if (one->blob == NULL) {
        if (at_us - one->asked_us > SERVE_KEEP_US)
            forget(serve, one);
        return;
    }
    uint64_t bytes = blob_read_progress(&one->reader);
    if (bytes != one->moved_bytes) {
        one->moved_bytes = bytes;
        one->moved_us = at_us;
    }
    if (blob_verified(one->blob)) {
        serve->counters.done++;
        forget(serve, one);
    } else if (one->err != 0 || blob_read_lost(&one->reader) || at_us - one->moved_us > STALL_US) {
        serve->counters.failed++;
        stop(one); /* it is told as long as it is asked for */
    } else if (at_us - one->asked_us > SERVE_KEEP_US) {
        serve->counters.forgotten++;
        forget(serve, one);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct order_serve *serve = timer->data;
    for (uint32_t i = 0; i < SERVE_BLOBS_MAX; i++)
        if (serve->served[i].used)
            settle(serve, &serve->served[i]);
    if (serve->count == 0)
        (void)uv_timer_stop(&serve->timer);
}

/* ---- asks ---- */

static struct served *find(struct order_serve *serve, const struct digest *digest)
{
    for (uint32_t i = 0; i < SERVE_BLOBS_MAX; i++)
        if (serve->served[i].used && digest_equal(&serve->served[i].digest, digest))
            return &serve->served[i];
    return NULL;
}

static struct served *find_free(struct order_serve *serve)
{
    uint32_t i = 0;
    while (i < SERVE_BLOBS_MAX && serve->served[i].used)
        i++;
    return i == SERVE_BLOBS_MAX ? NULL : &serve->served[i];
}

/* Half of the cache in an hour; what was not ordered adds up to no more than that. */
static void refill(struct order_serve *serve, uint64_t capacity_bytes)
{
    uint64_t most = capacity_bytes / 2, at_us = now_us(serve);
    uint64_t since_us = at_us - serve->filled_us;
    uint64_t more =
        since_us >= HOUR_US ? most : (uint64_t)((double)most * (double)since_us / (double)HOUR_US);
    serve->room_bytes = more > most - serve->room_bytes ? most : serve->room_bytes + more;
    serve->filled_us = at_us;
}

/* 0 with a reader; E_AGAIN, E_NO_SPACE, or why not. */
static int begin(struct order_serve *serve, const struct wire_order_blob *asked, struct blob *blob)
{
    struct served *one = find_free(serve);
    if (one == NULL)
        return E_AGAIN;
    *one = (struct served){.digest = asked->digest, .size_bytes = asked->size_bytes, .used = true};
    one->reader = (struct blob_reader){.ready = on_ready, .failed = on_failed, .arg = one};
    one->asked_us = one->moved_us = now_us(serve);
    int err =
        blob_read_start(blob, &one->reader, 0, asked->size_bytes, TRANSFER_READ_PREFETCH, NULL);
    if (err != 0) {
        *one = (struct served){.used = false};
        return err == E_NO_SPACE ? E_AGAIN : err; /* others' blobs fill the half that may be held */
    }
    one->blob = blob;
    serve->count++;
    serve->counters.begun++;
    serve->room_bytes -= asked->size_bytes;
    if (!uv_is_active((uv_handle_t *)&serve->timer))
        (void)uv_timer_start(&serve->timer, on_tick, TICK_MS, TICK_MS);
    return 0;
}

static enum wire_order_state take_new(struct order_serve *serve,
                                      const struct wire_order_blob *asked)
{
    struct cache_stats cache;
    struct blob *blob;
    cache_stats(serve->config.cache, &cache);
    refill(serve, cache.capacity_bytes);
    int err = blobs_get(serve->config.blobs, &asked->digest, asked->size_bytes, &blob);
    if (err != 0)
        return err == E_INVALID ? WIRE_ORDER_FAILED : WIRE_ORDER_BUSY;
    if (blob_verified(blob)) {
        blob_put(blob);
        return WIRE_ORDER_DONE;
    }
    if (cache.degraded || asked->size_bytes > serve->room_bytes)
        err = E_NO_SPACE;
    else if (blobs_content_expected(serve->config.blobs, &asked->digest))
        err = E_AGAIN;
    else
        err = begin(serve, asked, blob);
    if (err != 0)
        blob_put(blob);
    if (err == E_NO_SPACE)
        return WIRE_ORDER_OVER_LIMIT;
    return err == 0 ? WIRE_ORDER_RUNNING : err == E_AGAIN ? WIRE_ORDER_BUSY : WIRE_ORDER_FAILED;
}

static enum wire_order_state take(struct order_serve *serve, const struct wire_order_blob *asked)
{
    const struct config *config = serve->config.config;
    struct served *one = find(serve, &asked->digest);
    if (!config->prefetch_from_peers || serve->stopping || config->mode == CONFIG_MODE_PASSTHROUGH)
        return WIRE_ORDER_REFUSED;
    if (one == NULL)
        return take_new(serve, asked);
    one->asked_us = now_us(serve);
    if (one->blob == NULL)
        return WIRE_ORDER_FAILED;
    return blob_verified(one->blob) ? WIRE_ORDER_DONE : WIRE_ORDER_RUNNING;
}

void order_serve_ask(struct order_serve *serve, const struct mesh_order *order)
{
    struct wire_order told = {
        .type = WIRE_ORDER_TELL, .serial = order->order.serial, .count = order->order.count};
    for (uint32_t i = 0; i < told.count; i++) {
        enum wire_order_state state = take(serve, &order->order.blobs[i]);
        serve->counters.refused += state == WIRE_ORDER_REFUSED || state == WIRE_ORDER_OVER_LIMIT;
        told.blobs[i].state = (uint8_t)state;
    }
    int err = mesh_order_send(node_mesh(serve->config.node), &order->addr, &told);
    (void)err; /* it is asked for again */
}

void order_serve_counters(const struct order_serve *serve, struct order_serve_counters *out)
{
    *out = serve->counters;
}

/* ---- life ---- */

static void part_drain(void *arg)
{
    struct order_serve *serve = arg;
    serve->stopping = true;
    for (uint32_t i = 0; i < SERVE_BLOBS_MAX; i++) {
        struct served *one = &serve->served[i];
        serve->counters.forgotten += one->used && one->blob != NULL;
        if (one->used)
            forget(serve, one);
    }
}

static void part_close(void *arg)
{
    struct order_serve *serve = arg;
    part_drain(serve);
    uv_close((uv_handle_t *)&serve->timer, NULL);
}

int order_serve_new(const struct order_serve_config *config, struct order_serve **out)
{
    struct order_serve *serve = loop_alloc(NULL, NULL, sizeof *serve);
    struct cache_stats cache;
    if (serve == NULL)
        return E_NO_MEMORY;
    cache_stats(config->cache, &cache);
    *serve = (struct order_serve){.config = *config, .room_bytes = cache.capacity_bytes / 2};
    serve->filled_us = now_us(serve);
    int uv_error = uv_timer_init(&config->loop->uv, &serve->timer);
    if (uv_error != 0) {
        (void)loop_alloc(NULL, serve, 0);
        return loop_uv_error(uv_error);
    }
    serve->timer.data = serve;
    serve->part = (struct loop_part){
        .name = "orders", .arg = serve, .drain = part_drain, .close = part_close};
    loop_add_part(config->loop, &serve->part);
    *out = serve;
    return 0;
}

void order_serve_free(struct order_serve *serve)
{
    (void)loop_alloc(NULL, serve, 0);
}
