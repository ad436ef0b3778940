/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes of the client port and what all of them need: registry, credentials, grants. A request is
 * authorised with its own credentials for its own repository, never by what is in the cache
 * (ACL-1).
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "health_probe.h"
#include "mirror_internal.h"

const uint32_t mirror_first_byte_bounds_ms[MIRROR_TIME_BUCKETS] = {1,   5,   10,   25,   50,
                                                                   100, 250, 1000, 5000, 10000};
/* From a range out of the cache to a model of 40 GB. */
const uint32_t mirror_pull_bounds_ms[MIRROR_TIME_BUCKETS] = {10,   50,    100,   500,    1000,
                                                             5000, 15000, 60000, 300000, 900000};

/* ACL-2: a refusal ends the grant at once; the next request asks the registry and hears why. */
static void caller_refused(void *arg, const struct blob_caller *caller)
{
    struct mirror *mirror = arg;
    grants_revoke(mirror->config.grants, caller->registry->name, caller->repository,
                  caller->credential_hash);
    mirror_prefetch__refused(mirror->prefetch, caller);
    mirror_rest__refused(mirror->rests, caller);
}

int mirror_new(const struct mirror_config *config, struct mirror **out)
{
    struct mirror *mirror = loop_alloc(NULL, NULL, sizeof *mirror);
    if (mirror == NULL)
        return E_NO_MEMORY;
    *mirror = (struct mirror){.config = *config};
    int err = manifest_store_new(&mirror->manifests);
    if (err == 0)
        err = challenges_new(&config->loop->env, &mirror->challenges);
    if (err == 0)
        err = tag_memory_new(&config->loop->env, &mirror->tags);
    if (err == 0)
        err = mirror_prefetch__new(mirror);
    if (err == 0)
        err = mirror_rest__new(mirror);
    if (err != 0) {
        mirror_free(mirror);
        return err;
    }
    blobs_on_refusal(config->blobs, caller_refused, mirror);
    *out = mirror;
    return 0;
}

void mirror_free(struct mirror *mirror)
{
    if (mirror == NULL)
        return;
    manifest_store_free(mirror->manifests);
    challenges_free(mirror->challenges);
    tag_memory_free(mirror->tags);
    mirror_prefetch__free(mirror->prefetch);
    mirror_rest__free(mirror->rests);
    (void)loop_alloc(NULL, mirror, 0);
}

const struct mirror_counters *mirror_counters(const struct mirror *mirror)
{
    return &mirror->counters;
}

uint64_t mirror__now_us(const struct mirror *mirror)
{
    return loop_now_us(mirror->config.loop);
}

/* ---- grants ---- */

bool mirror__granted(const struct mirror_request *request)
{
    return grants_check(request->mirror->config.grants, mirror__now_us(request->mirror),
                        request->registry->name, request->route.repository,
                        request->credential_hash);
}

bool mirror__granted_stale(const struct mirror_request *request)
{
    const struct mirror_config *config = &request->mirror->config;
    if (config->config->offline == CONFIG_OFFLINE_DENY)
        return false;
    return grants_check_stale(config->grants, mirror__now_us(request->mirror),
                              request->registry->name, request->route.repository,
                              request->credential_hash, config->config->grant_stale_us);
}

void mirror__grant(const struct mirror_request *request, bool accepted)
{
    struct grants *grants = request->mirror->config.grants;
    if (!accepted) {
        grants_revoke(grants, request->registry->name, request->route.repository,
                      request->credential_hash);
        return;
    }
    int err = grants_put(grants, mirror__now_us(request->mirror), request->registry->name,
                         request->route.repository, request->credential_hash);
    (void)err; /* without memory the next request asks the registry again */
}

void mirror__running(const struct mirror_request *request)
{
    if (request->url == NULL)
        grants_extend(request->mirror->config.grants, mirror__now_us(request->mirror),
                      request->registry->name, request->route.repository, request->credential_hash);
    if (!mirror__granted(request))
        (void)mirror_silence__known(request); /* on a stale one: the registry is looked after */
}

static bool is_anonymous(const struct mirror_request *request)
{
    static const uint8_t none[sizeof request->credential_hash];
    return memcmp(request->credential_hash, none, sizeof none) == 0;
}

void mirror__challenge(const struct mirror_request *request, const char *challenge)
{
    struct mirror *mirror = request->mirror;
    const char *registry = request->registry->name, *repository = request->route.repository;
    if (!is_anonymous(request))
        return; /* it may speak of the credentials that were sent */
    if (challenge == NULL)
        challenges_forget(mirror->challenges, registry, repository);
    else
        challenges_put(mirror->challenges, mirror__now_us(mirror), registry, repository, challenge);
}

void mirror__heed(const struct mirror_request *request)
{
    int status = relay_status(request->relay);
    bool content =
        request->route.kind == HTTP_ROUTE_MANIFEST || request->route.kind == HTTP_ROUTE_BLOB;
    if (status != 200 && status != 401 && status != 403)
        return;
    if (content) /* a list of tags may be open to more callers than what it lists */
        mirror__grant(request, status == 200);
    if (status != 403)
        mirror__challenge(request, relay_header(request->relay, "www-authenticate"));
}

bool mirror__registry_down(int err, int status)
{
    if (err != 0)
        return err == E_UNREACHABLE || err == E_TIMEOUT || err == E_CLOSED || err == E_TLS;
    return status >= 500; /* O-5: what the mesh has is served */
}

uint32_t mirror__head_ms(const struct mirror_request *request)
{
    uint64_t took_us = mirror__now_us(request->mirror) - request->started_us;
    uint64_t left_ms = took_us < MIRROR_HEAD_US ? (MIRROR_HEAD_US - took_us) / 1000 : 0;
    uint32_t most_ms = request->hurry ? MIRROR_HURRY_MS : MIRROR_ASK_MS;
    if (left_ms < 300)
        return 300;
    return left_ms < most_ms ? (uint32_t)left_ms : most_ms;
}

void mirror__link(const struct mirror_request *request, const struct digest *digest,
                  uint64_t size_bytes)
{
    int err = grants_link(request->mirror->config.grants, request->registry->name,
                          request->route.repository, digest, size_bytes);
    (void)err; /* without memory the next request asks the registry again */
}

/* ---- requests ---- */

static void client_gone(void *arg)
{
    struct mirror_request *request = arg;
    request->exchange = NULL;
    mirror_request__free(request);
}

void mirror_request__free(struct mirror_request *request)
{
    mirror_tags__leave(request);
    relay_free(request->relay);
    registry_entry_put(request->registry);
    (void)loop_alloc(NULL, request, 0);
}

/* What the registry said before to who came without credentials; NULL: nothing, or not the case. */
static const char *known_challenge(const struct mirror_request *request, int err)
{
    const struct mirror *mirror = request->mirror;
    if (!mirror__registry_down(err, 0) || !is_anonymous(request))
        return NULL;
    return challenges_find(mirror->challenges, mirror__now_us(mirror), request->registry->name,
                           request->route.repository);
}

bool mirror__asks_credentials(const struct mirror_request *request, int status)
{
    return mirror__registry_down(0, status) && known_challenge(request, E_UNREACHABLE) != NULL;
}

void mirror__why(const struct mirror_request *request, int err, char *out, size_t out_bytes)
{
    const struct mirror *mirror = request->mirror;
    bool resting = mirror__registry_down(err, 0) &&
                   origin_resting(mirror->config.origin, request->registry, mirror__now_us(mirror));
    (void)snprintf(out, out_bytes, "registry %s: %s", request->registry->name,
                   resting ? "does not answer; it is asked again in a few seconds" : err_text(err));
}

/* The same for what is cached, absent and non-existent (ACL-8): nothing was looked up for it. */
void mirror__unavailable(struct mirror_request *request, int err)
{
    struct mirror *mirror = request->mirror;
    char message[HOST_BYTES_MAX + 128], body[HOST_BYTES_MAX + 256];
    size_t body_bytes = 0;
    const char *challenge = known_challenge(request, err);
    struct response response = {.status = challenge == NULL ? 503 : 401};
    mirror__why(request, err, message, sizeof message);
    mirror->counters.unavailable++;
    response_add(&response, "Content-Type", "application/json");
    response_add(&response, "WWW-Authenticate", challenge);
    if (http_oci_error(body, sizeof body, challenge == NULL ? "UNAVAILABLE" : "UNAUTHORIZED",
                       message, &body_bytes) != 0)
        body_bytes = 0;
    exchange_respond(request->exchange, &response, body, body_bytes);
    mirror_request__free(request);
}

static void time_took(const struct mirror_request *request, const uint32_t *bounds_ms,
                      struct mirror_times *times)
{
    uint64_t took_us = mirror__now_us(request->mirror) - request->started_us;
    unsigned bucket = 0;
    while (bucket < MIRROR_TIME_BUCKETS && took_us > bounds_ms[bucket] * 1000ull)
        bucket++;
    times->count[bucket]++;
    times->sum_us += took_us;
}

void mirror__first_byte(const struct mirror_request *request)
{
    time_took(request, mirror_first_byte_bounds_ms, &request->mirror->counters.first_byte);
}

void mirror__pulled(const struct mirror_request *request)
{
    request->mirror->counters.blobs_done++;
    time_took(request, mirror_pull_bounds_ms, &request->mirror->counters.pull);
}

static void passed(void *arg, int err)
{
    struct mirror_request *request = arg;
    mirror_silence__heard(request, err, err == 0 ? relay_status(request->relay) : 0);
    if (err != 0) {
        mirror__unavailable(request, err);
        return;
    }
    request->mirror->counters.passed++;
    mirror__heed(request);
    relay_answer(request);
}

/* Base, tags and referrers are the registry's own business: its whole answer is handed on. */
static void pass(struct mirror_request *request)
{
    const struct http_route *route = &request->route;
    char path[HTTP_TARGET_BYTES_MAX + REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 32];
    const char *mark = route->query[0] == '\0' ? "" : "?";
    if (route->kind == HTTP_ROUTE_TAGS)
        (void)snprintf(path, sizeof path, "/v2/%s/tags/list%s%s", route->repository, mark,
                       route->query);
    else if (route->kind == HTTP_ROUTE_REFERRERS)
        (void)snprintf(path, sizeof path, "/v2/%s/referrers/%s%s%s", route->repository,
                       route->reference, mark, route->query);
    else
        (void)snprintf(path, sizeof path, "/v2/");
    bool head = exchange_request(request->exchange)->method == HTTP_HEAD;
    int err = relay_start(request, ORIGIN_PASS, head ? "HEAD" : "GET", path, passed, request);
    if (err != 0)
        mirror__unavailable(request, err);
}

void mirror__refuse(struct mirror *mirror, struct exchange *exchange, int status, const char *code,
                    const char *message)
{
    mirror->counters.refused++;
    exchange_error(exchange, status, code, message);
}

static void dispatch(struct mirror_request *request)
{
    switch (request->route.kind) {
    case HTTP_ROUTE_MANIFEST:
        mirror_manifest(request);
        break;
    case HTTP_ROUTE_BLOB:
        mirror_blob(request);
        break;
    default:
        pass(request);
        break;
    }
}

struct mirror_request *mirror_request__new(struct mirror *mirror, struct exchange *exchange,
                                           const struct http_route *route,
                                           const struct registry_entry *registry)
{
    struct mirror_request *request = loop_alloc(NULL, NULL, sizeof *request);
    if (request == NULL) {
        registry_entry_put(registry);
        mirror__refuse(mirror, exchange, 503, "UNAVAILABLE", "out of memory");
        return NULL;
    }
    origin_set_sharers(mirror->config.origin, gossip_count(node_gossip(mirror->config.node)));
    *request = (struct mirror_request){.mirror = mirror,
                                       .exchange = exchange,
                                       .route = *route,
                                       .registry = registry,
                                       .started_us = exchange_arrived_us(exchange)};
    request->authorization = http_request_header(exchange_request(exchange), "authorization");
    grants_credential_hash(mirror->config.grants, request->authorization, request->credential_hash);
    exchange_on_gone(exchange, client_gone, request);
    return request;
}

/* Finds the registry by ?ns= or the host asked (ORG-1) and takes the caller's credentials from the
 * request. */
static struct mirror_request *request_new(struct mirror *mirror, struct exchange *exchange,
                                          const struct http_route *route)
{
    char name[HOST_BYTES_MAX + 1];
    const char *host = http_request_header(exchange_request(exchange), "host");
    const struct registry_entry *registry = NULL;
    int err = registry_table_get(
        mirror->config.registries,
        registries_asked(&mirror->config.configured, route->ns, host, name), &registry);
    if (err == 0)
        return mirror_request__new(mirror, exchange, route, registry);
    if (err == E_NOT_FOUND)
        mirror__refuse(
            mirror, exchange, 404, "NAME_UNKNOWN",
            route->ns[0] == '\0'
                ? "no ?ns= in the request, its Host is no configured registry, and there is no "
                  "default one: set registries[].default"
                : "this registry is not configured: add it to registries");
    else
        mirror__refuse(mirror, exchange, 503, "UNAVAILABLE", "too many registries at once");
    return NULL;
}

void mirror_handle(void *arg, struct exchange *exchange)
{
    struct mirror *mirror = arg;
    const struct http_request *http = exchange_request(exchange);
    struct http_route route;
    const char *code = "UNSUPPORTED";
    if (http->method == HTTP_OTHER) {
        mirror__refuse(mirror, exchange, 405, code, "this mirror serves GET and HEAD only");
        return;
    }
    if (http_route_parse(http->target, &route, &code) != 0) {
        mirror__refuse(mirror, exchange, 400, code, "malformed name, tag, digest or path");
        return;
    }
    if (route.kind == HTTP_ROUTE_HEALTH) {
        struct response response = {.status = 200};
        response_add(&response, "Content-Type", "text/plain");
        response_add(&response, HEALTH_HEADER, "ok"); /* so that health_probe.c knows us */
        exchange_respond(exchange, &response, "ok\n", 3);
        return;
    }
    if (route.kind == HTTP_ROUTE_ACCELERATE) {
        mirror_accelerate(mirror, exchange, &route);
        return;
    }
    if (route.kind == HTTP_ROUTE_NONE) {
        mirror__refuse(mirror, exchange, 404, "UNSUPPORTED", "no such path on this mirror");
        return;
    }
    struct mirror_request *request = request_new(mirror, exchange, &route);
    if (request != NULL)
        dispatch(request);
}
