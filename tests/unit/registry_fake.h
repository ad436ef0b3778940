/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fetch engine without a network for tests of the origin: it records what was asked, and the test
 * plays the server. Around it an env with counted, failing allocations, a one-shot timer in virtual
 * time, and a caller that records what it is told and checks the order of callbacks.
 */
#ifndef TEST_REGISTRY_FAKE_H
#define TEST_REGISTRY_FAKE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "registry.h"

#define FAKE_CALLS_MAX 128
#define FAKE_NONE      UINT64_MAX

/* One request the origin made of the engine. */
struct fake_call {
    bool live, cancelled, paused, headed;
    bool late_callback; /* the engine would have called back after cancel or done */
    char url[8300];
    char method[8];
    char headers[FETCH_HEADERS_MAX][512]; /* "Name: value" */
    unsigned header_count;
    char body[4096]; /* cut */
    char ca_file[64], client_cert[64], client_key[64], proxy[64];
    bool allow_private, allow_metadata;
    uint8_t pool_key[32];
    uint32_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms;
    struct fetch_callbacks callbacks;
    void *arg;
};

struct fake {
    struct env env;
    struct fetch_engine engine;
    struct origin_timer timer;
    struct prng prng;
    uint64_t now_us;
    uint64_t timer_at_us;
    unsigned timer_starts;
    size_t allocations;                  /* live */
    unsigned alloc_count, alloc_fail_at; /* 1-based; 0: never */
    unsigned start_fail_at;              /* 1-based over engine starts; 0: never */
    int start_err;
    unsigned starts;
    struct fake_call calls[FAKE_CALLS_MAX];
    unsigned call_count;
    char log[16384];
    size_t log_used;
};

/* What a caller of the origin was told. */
struct fake_caller {
    struct fake *fake;
    struct origin *origin;
    struct origin_fetch *fetch;
    unsigned heads, dones, bodies;
    int status, err, last_status;
    uint32_t retry_after_ms;
    uint64_t content_length;
    char headers[4096]; /* "name: value\n" ... */
    uint8_t body[1 << 20];
    size_t body_bytes;
    bool disorder; /* a callback after done, a body before head, a call while paused */
    bool pause;    /* answer the next body with false */
    bool paused;   /* and none may come until resumed */
    bool cancel_in_head, cancel_in_body;
    bool inside_start;
};

static inline void *fake_alloc(void *host, void *old, size_t new_bytes)
{
    struct fake *fake = host;
    void *made;

    if (new_bytes == 0) {
        if (old != NULL)
            fake->allocations--;
        free(old);
        return NULL;
    }
    fake->alloc_count++;
    if (fake->alloc_fail_at != 0 && fake->alloc_count == fake->alloc_fail_at)
        return NULL;
    made = realloc(old, new_bytes);
    if (made != NULL && old == NULL)
        fake->allocations++;
    return made;
}

static inline void fake_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct fake *fake = host;

    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&fake->prng);
}

static inline void fake_trace(void *host, enum log_level level, const char *line)
{
    struct fake *fake = host;
    size_t bytes = strlen(line);

    (void)level;
    if (fake->log_used + bytes + 2 > sizeof fake->log)
        fake->log_used = 0;
    memcpy(fake->log + fake->log_used, line, bytes);
    fake->log_used += bytes;
    fake->log[fake->log_used++] = '\n';
    fake->log[fake->log_used] = '\0';
}

static inline int fake_start(void *self, const struct fetch_request *request,
                             const struct fetch_callbacks *callbacks, void *arg, struct fetch **out)
{
    struct fake *fake = self;
    struct fake_call *call;

    fake->starts++;
    if (fake->start_fail_at != 0 && fake->starts == fake->start_fail_at)
        return fake->start_err;
    if (fake->call_count == FAKE_CALLS_MAX)
        return E_FULL;
    call = &fake->calls[fake->call_count++];
    *call = (struct fake_call){.live = true, .callbacks = *callbacks, .arg = arg};
    (void)snprintf(call->url, sizeof call->url, "%s", request->url);
    (void)snprintf(call->method, sizeof call->method, "%s", request->method);
    (void)snprintf(call->ca_file, sizeof call->ca_file, "%s",
                   request->ca_file == NULL ? "" : request->ca_file);
    (void)snprintf(call->body, sizeof call->body, "%s", request->body == NULL ? "" : request->body);
    (void)snprintf(call->client_cert, sizeof call->client_cert, "%s",
                   request->client_cert == NULL ? "" : request->client_cert);
    (void)snprintf(call->client_key, sizeof call->client_key, "%s",
                   request->client_key == NULL ? "" : request->client_key);
    (void)snprintf(call->proxy, sizeof call->proxy, "%s",
                   request->proxy == NULL ? "" : request->proxy);
    call->header_count = request->header_count;
    for (unsigned i = 0; i < request->header_count; i++)
        (void)snprintf(call->headers[i], sizeof call->headers[i], "%s: %s",
                       request->headers[i].name, request->headers[i].value);
    call->allow_private = request->allow_private != NULL && request->allow_private->count > 0;
    call->allow_metadata = request->allow_metadata;
    memcpy(call->pool_key, request->pool_key, 32);
    call->connect_timeout_ms = request->connect_timeout_ms;
    call->first_byte_timeout_ms = request->first_byte_timeout_ms;
    call->idle_timeout_ms = request->idle_timeout_ms;
    *out = (struct fetch *)call;
    return 0;
}

static inline void fake_resume(void *self, struct fetch *fetch)
{
    (void)self;
    ((struct fake_call *)fetch)->paused = false;
}

static inline void fake_cancel(void *self, struct fetch *fetch)
{
    struct fake_call *call = (struct fake_call *)fetch;

    (void)self;
    call->late_callback = !call->live; /* cancelled twice, or after done */
    call->live = false;
    call->cancelled = true;
}

static inline void fake_timer(void *host, uint64_t delay_us)
{
    struct fake *fake = host;

    fake->timer_starts++;
    fake->timer_at_us = fake->now_us + delay_us; /* replaces, as one uv_timer does */
}

static inline void fake_init(struct fake *fake, uint64_t seed)
{
    memset(fake, 0, sizeof *fake);
    fake->env =
        (struct env){.host = fake, .random = fake_random, .alloc = fake_alloc, .trace = fake_trace};
    fake->engine = (struct fetch_engine){
        .self = fake, .start = fake_start, .resume = fake_resume, .cancel = fake_cancel};
    fake->timer = (struct origin_timer){.host = fake, .start = fake_timer};
    fake->now_us = 1000000;
    fake->timer_at_us = FAKE_NONE;
    prng_seed(&fake->prng, (const uint8_t *)&seed, sizeof seed);
}

/* Header value of a call ("Range"), or NULL. `nth` counts from 0. */
static inline const char *fake_sent(const struct fake_call *call, const char *name, unsigned nth)
{
    size_t bytes = strlen(name);

    for (unsigned i = 0; i < call->header_count; i++)
        if (strncmp(call->headers[i], name, bytes) == 0 && call->headers[i][bytes] == ':' &&
            nth-- == 0)
            return call->headers[i] + bytes + 2;
    return NULL;
}

/* ---- playing the server: `headers` is "name: value\n" lines, names in lower case ---- */

static inline void fake_head(struct fake_call *call, int status, const char *headers,
                             uint64_t content_length)
{
    static char text[16384];
    struct fetch_header list[64];
    struct fetch_response response = {
        .status = status, .headers = list, .content_length = content_length};
    char *at = text;

    if (!call->live)
        return;
    (void)snprintf(text, sizeof text, "%s", headers);
    while (*at != '\0') {
        char *end = strchr(at, '\n');
        char *colon = strchr(at, ':');

        *end = *colon = '\0';
        list[response.header_count].name = at;
        list[response.header_count++].value = colon + 2;
        at = end + 1;
    }
    call->headed = true;
    call->callbacks.head(call->arg, &response);
}

/* False once the call is over or paused. */
static inline bool fake_body(struct fake_call *call, const void *bytes, size_t byte_count)
{
    if (!call->live || call->paused)
        return false;
    if (!call->callbacks.body(call->arg, bytes, byte_count) && call->live)
        call->paused = true;
    return call->live && !call->paused;
}

static inline void fake_done(struct fake_call *call, int err)
{
    if (!call->live)
        return;
    call->live = false;
    call->callbacks.done(call->arg, err);
}

/* A whole answer in one go. */
static inline void fake_answer(struct fake_call *call, int status, const char *headers,
                               const char *body)
{
    fake_head(call, status, headers, strlen(body));
    if (body[0] != '\0')
        (void)fake_body(call, body, strlen(body));
    fake_done(call, 0);
}

/* Lets the pending timer fire: time moves on to it. False if none is pending. */
static inline bool fake_turn(struct fake *fake, struct origin *origin)
{
    if (fake->timer_at_us == FAKE_NONE)
        return false;
    if (fake->now_us < fake->timer_at_us)
        fake->now_us = fake->timer_at_us;
    fake->timer_at_us = FAKE_NONE;
    origin_advance(origin, fake->now_us);
    return true;
}

/* Turns until a new call is made or nothing is pending. True if there is a new call. */
static inline bool fake_next_call(struct fake *fake, struct origin *origin)
{
    unsigned before = fake->call_count;

    for (unsigned i = 0; i < 100 && fake->call_count == before; i++)
        if (!fake_turn(fake, origin))
            break;
    return fake->call_count > before;
}

/* ---- the caller ---- */

static inline void caller_head(void *arg, const struct fetch_response *response)
{
    struct fake_caller *caller = arg;
    size_t used = 0;

    if (caller->heads > 0 || caller->dones > 0 || caller->paused || caller->inside_start)
        caller->disorder = true;
    caller->heads++;
    caller->status = response->status;
    caller->content_length = response->content_length;
    caller->headers[0] = '\0';
    for (unsigned i = 0; i < response->header_count; i++)
        used += (size_t)snprintf(caller->headers + used, sizeof caller->headers - used, "%s: %s\n",
                                 response->headers[i].name, response->headers[i].value);
    if (caller->cancel_in_head) {
        origin_cancel(caller->origin, caller->fetch);
        caller->dones = 1000; /* anything after this is disorder */
    }
}

static inline bool caller_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct fake_caller *caller = arg;

    if (caller->heads != 1 || caller->dones > 0 || caller->paused || byte_count == 0)
        caller->disorder = true;
    caller->bodies++;
    if (caller->body_bytes + byte_count <= sizeof caller->body)
        memcpy(caller->body + caller->body_bytes, bytes, byte_count);
    caller->body_bytes += byte_count;
    if (caller->cancel_in_body) {
        origin_cancel(caller->origin, caller->fetch);
        caller->dones = 1000;
        return true;
    }
    if (!caller->pause)
        return true;
    caller->pause = false;
    caller->paused = true;
    return false;
}

static inline void caller_done(void *arg, int err)
{
    struct fake_caller *caller = arg;

    if (caller->dones > 0 || caller->paused || caller->inside_start)
        caller->disorder = true;
    caller->dones++;
    caller->err = err;
    caller->retry_after_ms = origin_retry_after_ms(caller->fetch);
    caller->last_status = origin_last_status(caller->fetch);
}

static const struct fetch_callbacks caller_callbacks = {caller_head, caller_body, caller_done};

static inline void caller_init(struct fake_caller *caller, struct fake *fake, struct origin *origin)
{
    memset(caller, 0, offsetof(struct fake_caller, body));
    caller->body_bytes = 0;
    caller->disorder = caller->pause = caller->paused = false;
    caller->cancel_in_head = caller->cancel_in_body = caller->inside_start = false;
    caller->fake = fake;
    caller->origin = origin;
}

static inline int caller_start(struct fake_caller *caller, const struct origin_request *request)
{
    int err;

    caller->inside_start = true;
    err = origin_start(caller->origin, caller->fake->now_us, request, &caller_callbacks, caller,
                       &caller->fetch);
    caller->inside_start = false;
    return err;
}

static inline void caller_resume(struct fake_caller *caller)
{
    caller->paused = false;
    origin_resume(caller->origin, caller->fetch);
}

#endif
