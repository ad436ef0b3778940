/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Public calls of the origin client, the life of a fetch, and the turn in which retries are decided
 * and held-back answers go out. See origin.h for the map of its files.
 */
#include "origin.h"

#include <string.h>

#include "log.h"

#define FETCH_MAGIC 0x4f524731u /* "ORG1" */

static const char *const state_names[] = {
    [ORIGIN_REQUESTING] = "requesting",   [ORIGIN_QUEUED] = "queued",
    [ORIGIN_AUTHORISING] = "authorising", [ORIGIN_REDIRECTING] = "redirecting",
    [ORIGIN_COLLECTING] = "collecting",   [ORIGIN_STREAMING] = "streaming",
    [ORIGIN_DECIDING] = "deciding",       [ORIGIN_WAITING] = "waiting",
    [ORIGIN_DELIVERING] = "delivering",   [ORIGIN_ENDED] = "ended",
};

#define TO(state) (1u << (state))
/* A move to ENDED is always allowed (cancel), except twice. */
static const unsigned moves[] = {
    [ORIGIN_REQUESTING] = TO(ORIGIN_QUEUED) | TO(ORIGIN_AUTHORISING) | TO(ORIGIN_REDIRECTING) |
                          TO(ORIGIN_COLLECTING) | TO(ORIGIN_STREAMING) | TO(ORIGIN_DECIDING),
    [ORIGIN_QUEUED] = TO(ORIGIN_REQUESTING) | TO(ORIGIN_DECIDING),
    [ORIGIN_AUTHORISING] = TO(ORIGIN_REQUESTING) | TO(ORIGIN_DECIDING),
    [ORIGIN_REDIRECTING] = TO(ORIGIN_REQUESTING) | TO(ORIGIN_DECIDING),
    [ORIGIN_COLLECTING] = TO(ORIGIN_REQUESTING) | TO(ORIGIN_DECIDING) | TO(ORIGIN_DELIVERING),
    [ORIGIN_STREAMING] = TO(ORIGIN_DECIDING),
    [ORIGIN_DECIDING] = TO(ORIGIN_WAITING) | TO(ORIGIN_DELIVERING),
    [ORIGIN_WAITING] = TO(ORIGIN_REQUESTING),
    [ORIGIN_DELIVERING] = 0,
    [ORIGIN_ENDED] = 0,
};

bool origin__move_allowed(enum origin_state from, enum origin_state to)
{
    if (to == ORIGIN_ENDED)
        return from != ORIGIN_ENDED;
    return (moves[from] & TO(to)) != 0;
}

void origin__state(struct origin_fetch *fetch, enum origin_state to)
{
    ASSERT(origin__move_allowed(fetch->state, to));
    log_to(&fetch->origin->env, LOG_TRACE, "origin: %s to %s registry=%s",
           state_names[fetch->state], state_names[to], fetch->registry_name);
    fetch->state = to;
}

void origin__log(struct origin_fetch *fetch, const char *what)
{
    static const char *const kinds[] = {"", "pass", "manifest", "blob"};

    log_to(&fetch->origin->env, LOG_DEBUG,
           "origin: %s registry=%s kind=%s status=%d err=%s tries=%u hops=%u", what,
           fetch->registry_name, kinds[fetch->request.kind], fetch->last_status,
           fetch->err == 0 ? "0" : err_name(fetch->err), fetch->tries, fetch->hops);
}

static void fetch_free(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;

    ASSERT(fetch->running == NULL);
    origin__answer_drop(fetch);
    origin__flow_leave(fetch);
    origin__auth_close(fetch);
    headers__close(&fetch->head);
    origin__request_close(fetch);
    fetch->magic = 0;
    (void)origin->env.alloc(origin->env.host, fetch, 0);
}

static void list_add(struct origin *origin, struct origin_fetch *fetch)
{
    fetch->prev = origin->tail;
    fetch->next = NULL;
    if (origin->tail != NULL)
        origin->tail->next = fetch;
    else
        origin->head = fetch;
    origin->tail = fetch;
    origin->fetch_count++;
}

static void list_remove(struct origin *origin, struct origin_fetch *fetch)
{
    if (fetch->prev != NULL)
        fetch->prev->next = fetch->next;
    else
        origin->head = fetch->next;
    if (fetch->next != NULL)
        fetch->next->prev = fetch->prev;
    else
        origin->tail = fetch->prev;
    origin->fetch_count--;
}

void origin__enter(struct origin *origin)
{
    origin->depth++;
}

void origin__leave(struct origin *origin)
{
    struct origin_fetch *next;

    ASSERT(origin->depth > 0);
    if (--origin->depth > 0 || origin->ended_count == 0)
        return;
    for (struct origin_fetch *fetch = origin->head; fetch != NULL; fetch = next) {
        next = fetch->next;
        if (fetch->state != ORIGIN_ENDED)
            continue;
        list_remove(origin, fetch);
        fetch_free(fetch);
    }
    origin->ended_count = 0;
}

/* Has the host call at `at_us`, unless it does so earlier anyway. */
static void arm(struct origin *origin, uint64_t at_us)
{
    if (at_us >= origin->armed_us)
        return;
    origin->armed_us = at_us;
    origin->timer.start(origin->timer.host, at_us > origin->now_us ? at_us - origin->now_us : 0);
}

void origin__ask_turn(struct origin *origin)
{
    arm(origin, 0);
}

void origin__stop_attempt(struct origin_fetch *fetch)
{
    struct fetch *running = fetch->running;

    fetch->running = NULL;
    fetch->token = NULL;
    origin__place_give(fetch);
    if (running != NULL)
        fetch->origin->engine.cancel(fetch->origin->engine.self, running);
}

void origin__attempt_ended(struct origin_fetch *fetch, int err)
{
    origin__stop_attempt(fetch);
    fetch->err = err;
    origin__log(fetch, "attempt ended");
    origin__state(fetch, ORIGIN_DECIDING);
    origin__ask_turn(fetch->origin);
}

void origin__finish(struct origin_fetch *fetch, int err)
{
    if (fetch->caller_paused) {
        fetch->end_held = true;
        fetch->end_err = err;
        return;
    }
    origin__stop_attempt(fetch);
    fetch->err = err;
    origin__log(fetch, "done");
    origin__state(fetch, ORIGIN_ENDED);
    fetch->origin->ended_count++;
    fetch->callbacks.done(fetch->arg, err);
}

int origin_new(const struct env *env, const struct fetch_engine *engine,
               const struct origin_timer *timer, struct origin **out)
{
    struct origin *origin = env->alloc(env->host, NULL, sizeof *origin);
    uint8_t seed[32];
    int err;

    if (origin == NULL)
        return E_NO_MEMORY;
    *origin =
        (struct origin){.env = *env, .engine = *engine, .timer = *timer, .armed_us = UINT64_MAX};
    origin_set_timeouts(origin, 0, 0, 0);
    origin->sharers = 1;
    env->random(env->host, origin->key, sizeof origin->key);
    env->random(env->host, seed, sizeof seed);
    prng_seed(&origin->prng, seed, sizeof seed);
    err = tokens_new(env, &origin->tokens);
    if (err == 0)
        err = challenges_new(env, &origin->challenges);
    if (err != 0) {
        origin_free(origin);
        return err;
    }
    *out = origin;
    return 0;
}

void origin_free(struct origin *origin)
{
    struct env env;

    if (origin == NULL)
        return;
    ASSERT(origin->depth == 0);
    env = origin->env;
    while (origin->head != NULL) {
        struct origin_fetch *fetch = origin->head;

        origin__stop_attempt(fetch);
        list_remove(origin, fetch);
        fetch_free(fetch);
    }
    origin__targets_close(origin);
    origin__tokens_close(origin);
    challenges_free(origin->challenges);
    explicit_bzero(origin, sizeof *origin);
    (void)env.alloc(env.host, origin, 0);
}

void origin_set_timeouts(struct origin *origin, uint32_t connect_ms, uint32_t first_byte_ms,
                         uint32_t idle_ms)
{
    origin->connect_ms = connect_ms != 0 ? connect_ms : ORIGIN_CONNECT_MS;
    origin->first_byte_ms = first_byte_ms != 0 ? first_byte_ms : ORIGIN_FIRST_BYTE_MS;
    origin->idle_ms = idle_ms != 0 ? idle_ms : ORIGIN_IDLE_MS;
}

static uint64_t window_of(const struct origin_request *request)
{
    uint64_t asked_us = (uint64_t)request->head_ms * 1000;

    if (asked_us == 0)
        return ORIGIN_WINDOW_US;
    return asked_us < ORIGIN_WINDOW_MAX_US ? asked_us : ORIGIN_WINDOW_MAX_US;
}

/* Until when the current attempt must have its head; a body that was shown has its own timeout. */
static uint64_t deadline_us(const struct origin_fetch *fetch)
{
    bool waits = fetch->state == ORIGIN_REQUESTING || fetch->state == ORIGIN_QUEUED ||
                 fetch->state == ORIGIN_AUTHORISING || fetch->state == ORIGIN_REDIRECTING ||
                 fetch->state == ORIGIN_COLLECTING;

    return waits ? fetch->window_start_us + fetch->window_us : UINT64_MAX;
}

int origin_start(struct origin *origin, uint64_t now_us, const struct origin_request *request,
                 const struct fetch_callbacks *callbacks, void *arg, struct origin_fetch **out)
{
    struct origin_fetch *fetch;
    int err;

    origin->now_us = now_us;
    if (origin->fetch_count >= ORIGIN_FETCHES_MAX) {
        origin->counters.starts_refused++;
        return E_FULL;
    }
    fetch = origin->env.alloc(origin->env.host, NULL, sizeof *fetch);
    if (fetch == NULL)
        return E_NO_MEMORY;
    *fetch = (struct origin_fetch){.magic = FETCH_MAGIC,
                                   .origin = origin,
                                   .state = ORIGIN_REQUESTING,
                                   .callbacks = *callbacks,
                                   .arg = arg,
                                   .tries = 1,
                                   .window_us = window_of(request),
                                   .window_start_us = now_us};
    fetch->budget_ms = (uint32_t)(fetch->window_us / 1000);
    headers__init(&fetch->head, origin->env.alloc, origin->env.host);
    err = origin__request_copy(fetch, request);
    if (err == 0)
        err = origin__flow_join(fetch, request->registry);
    if (err == 0)
        err = origin__auth_open(fetch, request->registry);
    if (err == 0 && !origin__target_use(fetch))
        err = origin__at_registry(fetch);
    if (err == 0)
        err = origin__send(fetch);
    if (err != 0 && fetch->rest_until_us == 0 && !fetch->troubled) {
        fetch_free(fetch);
        return err;
    }
    origin->counters.requests++;
    list_add(origin, fetch);
    if (err != 0) /* its end comes as any other's: later, and in done */
        origin__attempt_ended(fetch, err);
    else
        arm(origin, deadline_us(fetch));
    *out = fetch;
    return 0;
}

void origin_resume(struct origin *origin, struct origin_fetch *fetch)
{
    ASSERT(fetch->magic == FETCH_MAGIC);
    if (!fetch->caller_paused || fetch->state == ORIGIN_ENDED)
        return;
    fetch->caller_paused = false;
    if (fetch->running != NULL && !fetch->throttled)
        origin->engine.resume(origin->engine.self, fetch->running);
    if (fetch->end_held || fetch->throttled || fetch->state == ORIGIN_QUEUED ||
        fetch->state == ORIGIN_DELIVERING || fetch->state == ORIGIN_DECIDING)
        origin__ask_turn(origin);
}

void origin_cancel(struct origin *origin, struct origin_fetch *fetch)
{
    ASSERT(fetch->magic == FETCH_MAGIC);
    if (fetch->state == ORIGIN_ENDED)
        return;
    origin__enter(origin);
    origin__stop_attempt(fetch);
    origin__state(fetch, ORIGIN_ENDED);
    origin->ended_count++;
    origin__leave(origin);
}

/* The next attempt, from the registry: a redirect target may have expired (O-9), unless another
 * range of the blob has a new one already. */
static void attempt_again(struct origin_fetch *fetch)
{
    int err = 0;
    bool borrowed = origin__target_borrow(fetch);

    if (!borrowed && origin__target_coming(fetch)) {
        fetch->wake_us = fetch->origin->now_us + ORIGIN_RESUME_GAP_US;
        return;
    }
    origin__answer_drop(fetch);
    fetch->last_status = 0;
    origin__state(fetch, ORIGIN_REQUESTING);
    if (!borrowed)
        err = origin__at_registry(fetch);
    if (err == 0)
        err = origin__send(fetch);
    if (err != 0)
        origin__attempt_ended(fetch, err == E_NO_MEMORY ? err : E_UNREACHABLE);
}

static void decide(struct origin_fetch *fetch, uint64_t now_us)
{
    uint64_t delay_us;

    if (fetch->silent)
        origin__breaker_bad(fetch, fetch->err);
    if (origin__retry_decide(fetch, now_us, &delay_us)) {
        fetch->wake_us = now_us + delay_us;
        origin__state(fetch, ORIGIN_WAITING);
        return;
    }
    if (fetch->answer_held && !fetch->head_shown) {
        origin__state(fetch, ORIGIN_DELIVERING);
        return;
    }
    origin__finish(fetch, fetch->answer_held ? E_ORIGIN : fetch->err);
}

static void fetch_turn(struct origin_fetch *fetch, uint64_t now_us)
{
    if (fetch->state == ORIGIN_ENDED || fetch->caller_paused)
        return; /* a paused caller wants no bytes, so a cut body is not asked for either */
    if (fetch->end_held) {
        origin__finish(fetch, fetch->end_err);
        return;
    }
    if (deadline_us(fetch) <= now_us) {
        fetch->silent = fetch->state == ORIGIN_REQUESTING;
        origin__attempt_ended(fetch, E_TIMEOUT);
    }
    if (fetch->state == ORIGIN_DECIDING)
        decide(fetch, now_us);
    if (fetch->state == ORIGIN_WAITING && fetch->wake_us <= now_us)
        attempt_again(fetch);
    if (fetch->state == ORIGIN_DELIVERING)
        origin__deliver(fetch);
}

/* When this fetch needs a turn; UINT64_MAX: it waits for the engine or the caller. */
static uint64_t fetch_due_us(const struct origin_fetch *fetch)
{
    uint64_t flow_us;

    if (fetch->state == ORIGIN_ENDED || fetch->caller_paused)
        return UINT64_MAX;
    if (fetch->state == ORIGIN_WAITING)
        return fetch->wake_us;
    if (fetch->end_held || fetch->state == ORIGIN_DECIDING || fetch->state == ORIGIN_DELIVERING)
        return 0;
    flow_us = origin__flow_due_us(fetch);
    return flow_us < deadline_us(fetch) ? flow_us : deadline_us(fetch);
}

void origin_advance(struct origin *origin, uint64_t now_us)
{
    uint64_t due_us = UINT64_MAX;

    origin->now_us = now_us;
    origin->armed_us = 0; /* what is asked for during the turn is armed once, at its end */
    origin__enter(origin);
    for (struct origin_fetch *fetch = origin->head; fetch != NULL; fetch = fetch->next)
        fetch_turn(fetch, now_us);
    origin__tokens_turn(origin);
    origin__flow_turn(origin);
    due_us = origin__tokens_due_us(origin);
    for (struct origin_fetch *fetch = origin->head; fetch != NULL; fetch = fetch->next) {
        uint64_t at = fetch_due_us(fetch);

        if (at < due_us)
            due_us = at;
    }
    origin->armed_us = UINT64_MAX;
    arm(origin, due_us);
    origin__leave(origin);
}

uint32_t origin_retry_after_ms(const struct origin_fetch *fetch)
{
    return fetch->retry_after_ms;
}

int origin_last_status(const struct origin_fetch *fetch)
{
    return fetch->last_status;
}

const struct origin_counters *origin_counters(const struct origin *origin)
{
    return &origin->counters;
}
