/* SPDX-License-Identifier: Apache-2.0 */
/* Turns of client requests; see turns.h. */
#include "turns.h"

#include "log.h"

/* One request that waits. */
struct waiter {
    struct turns *turns;
    struct exchange *exchange;
    uint64_t since_us;
    struct waiter *previous, *next;
};

struct turns {
    struct turns_config config;
    struct turns_counters counters;
    struct loop_part part;
    uv_timer_t timer; /* the first waiter's time is up */
    struct waiter *first, *last;
    bool admitting;
};

static void remove_waiter(struct waiter *waiter)
{
    struct turns *turns = waiter->turns;
    if (waiter->previous != NULL)
        waiter->previous->next = waiter->next;
    else
        turns->first = waiter->next;
    if (waiter->next != NULL)
        waiter->next->previous = waiter->previous;
    else
        turns->last = waiter->previous;
    turns->counters.waiting--;
    (void)loop_alloc(NULL, waiter, 0);
}

static void admit(struct turns *turns);

static void request_over(void *arg)
{
    struct turns *turns = arg;
    ASSERT(turns->counters.running > 0);
    turns->counters.running--;
    admit(turns);
}

static void begin(struct turns *turns, struct exchange *exchange)
{
    turns->counters.running++;
    exchange_on_end(exchange, request_over, turns);
    turns->config.handle(turns->config.arg, exchange);
}

/* A request that is answered at once ends in here again: the loop goes on then, so that a long
 * queue costs no stack. */
static void admit(struct turns *turns)
{
    if (turns->admitting)
        return;
    turns->admitting = true;
    while (turns->first != NULL && turns->counters.running < turns->config.parallel_max) {
        struct exchange *exchange = turns->first->exchange;
        remove_waiter(turns->first);
        exchange_on_gone(exchange, NULL, NULL);
        begin(turns, exchange);
    }
    turns->admitting = false;
}

static void waiter_gone(void *arg)
{
    remove_waiter(arg);
}

static void refuse(struct exchange *exchange, const char *message)
{
    char body[256];
    size_t bytes = 0;
    struct response response = {.status = 503};
    response_add(&response, "Content-Type", "application/json");
    response_add(&response, "Retry-After", "1");
    if (http_oci_error(body, sizeof body, "UNAVAILABLE", message, &bytes) != 0)
        bytes = 0;
    exchange_respond(exchange, &response, body, bytes);
}

static void on_timer(uv_timer_t *timer);

/* Until the first one's time is up. */
static void watch(struct turns *turns)
{
    if (turns->first == NULL || uv_is_closing((uv_handle_t *)&turns->timer))
        return;
    uint64_t waited_us = loop_now_us(turns->config.loop) - turns->first->since_us;
    uint64_t left_us = waited_us < turns->config.wait_us ? turns->config.wait_us - waited_us : 0;
    (void)uv_timer_start(&turns->timer, on_timer, left_us / 1000 + 1, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct turns *turns = timer->data;
    uint64_t now_us = loop_now_us(turns->config.loop);
    while (turns->first != NULL && now_us - turns->first->since_us >= turns->config.wait_us) {
        struct exchange *exchange = turns->first->exchange;
        remove_waiter(turns->first);
        exchange_on_gone(exchange, NULL, NULL);
        turns->counters.late++;
        refuse(exchange, "too many requests at once: see limits.parallelRequests");
    }
    watch(turns);
}

void turns_handle(void *arg, struct exchange *exchange)
{
    struct turns *turns = arg;
    if (turns->first == NULL && turns->counters.running < turns->config.parallel_max) {
        begin(turns, exchange);
        return;
    }
    struct waiter *waiter = loop_alloc(NULL, NULL, sizeof *waiter);
    if (waiter == NULL) {
        refuse(exchange, "out of memory");
        return;
    }
    *waiter = (struct waiter){.turns = turns,
                              .exchange = exchange,
                              .since_us = loop_now_us(turns->config.loop),
                              .previous = turns->last};
    if (turns->last != NULL)
        turns->last->next = waiter;
    else
        turns->first = waiter;
    turns->last = waiter;
    turns->counters.waiting++;
    turns->counters.waited++;
    exchange_on_gone(exchange, waiter_gone, waiter);
    if (!uv_is_active((uv_handle_t *)&turns->timer))
        watch(turns);
}

/* The servers end what waits. */
static void part_close(void *arg)
{
    struct turns *turns = arg;
    turns->config.parallel_max = 0; /* nobody is admitted any more */
    uv_close((uv_handle_t *)&turns->timer, NULL);
}

int turns_new(const struct turns_config *config, struct turns **out)
{
    struct turns *turns = loop_alloc(NULL, NULL, sizeof *turns);
    if (turns == NULL)
        return E_NO_MEMORY;
    *turns = (struct turns){.config = *config};
    if (turns->config.wait_us > TURNS_WAIT_MAX_US)
        turns->config.wait_us = TURNS_WAIT_MAX_US;
    if (uv_timer_init(&config->loop->uv, &turns->timer) != 0) {
        (void)loop_alloc(NULL, turns, 0);
        return E_INTERNAL;
    }
    turns->timer.data = turns;
    turns->part = (struct loop_part){.name = "turns", .arg = turns, .close = part_close};
    loop_add_part(config->loop, &turns->part);
    *out = turns;
    return 0;
}

void turns_free(struct turns *turns)
{
    (void)loop_alloc(NULL, turns, 0);
}

const struct turns_counters *turns_counters(const struct turns *turns)
{
    return &turns->counters;
}
