/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One attempt of an origin fetch: the copied request, and the engine's request made from it. Here
 * is decided what travels to whom: credentials only to the registry's own scheme, host and port
 * (ORG-3), to an object store nothing but the range (ACR §7).
 */
#include "origin.h"

#include <stdio.h>
#include <string.h>

#include "digest.h"
#include "grants.h"
#include "log.h"

/* Authorization, If-None-Match and Range need a line each. */
#define ACCEPT_LINES_MAX (FETCH_HEADERS_MAX - 3)

/* Copies strings one behind the other into an arena of known size. */
struct packer {
    char *at;
    char *end;
};

static const char *pack(struct packer *packer, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = packer->at;

    ASSERT((size_t)(packer->end - packer->at) >= bytes);
    memcpy(copy, text, bytes);
    packer->at += bytes;
    return copy;
}

/* A header value that cannot start another line. */
static bool field_valid(const char *text)
{
    size_t bytes = strlen(text);

    if (bytes > ORIGIN_FIELD_BYTES_MAX)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool path_valid(const char *path)
{
    size_t bytes = strlen(path);

    if (path[0] != '/' || bytes > ORIGIN_PATH_BYTES_MAX)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)path[i];

        if (c <= 0x20 || c >= 0x7f || c == '\\' || c == '#')
            return false;
    }
    return true;
}

static bool url_valid(const struct origin_request *request)
{
    struct url_parts parts;

    return request->kind == ORIGIN_BLOB && request->authorization == NULL &&
           url__parse(request->url, strlen(request->url), &parts) == 0;
}

static bool range_valid(const struct origin_request *request)
{
    bool known = request->size_bytes != UINT64_MAX;

    if (request->kind != ORIGIN_BLOB)
        return true;
    if (known && request->size_bytes > BLOB_BYTES_MAX)
        return false;
    if (request->whole || strcmp(request->method, "HEAD") == 0)
        return true;
    if (request->first > request->last || request->last >= BLOB_BYTES_MAX)
        return false;
    return !known || request->last < request->size_bytes;
}

static bool request_valid(const struct origin_request *request)
{
    size_t accept_bytes = 0;

    if (request->kind < ORIGIN_PASS || request->kind > ORIGIN_BLOB)
        return false;
    if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "HEAD") != 0)
        return false;
    if (!path_valid(request->path_and_query) || !range_valid(request))
        return false;
    if (request->url != NULL && !url_valid(request))
        return false;
    if (request->authorization != NULL && !field_valid(request->authorization))
        return false;
    if (request->if_none_match != NULL && !field_valid(request->if_none_match))
        return false;
    if (request->accept_count > ORIGIN_ACCEPT_MAX)
        return false;
    for (unsigned i = 0; i < request->accept_count; i++) {
        if (!field_valid(request->accept[i]))
            return false;
        accept_bytes += strlen(request->accept[i]) + 2;
    }
    return accept_bytes <= ORIGIN_FIELD_BYTES_MAX;
}

/*
 * Accept lines stay lines of their own: distribution 2.8 reads all of them, some proxies keep only
 * the last (CLIENTS §1.7). Beyond the engine's room the rest share the last line, which means the
 * same (RFC 9110 §5.3).
 */
static void accept_pack(struct origin_fetch *fetch, const struct origin_request *request,
                        struct packer *packer)
{
    unsigned lines = 0;

    for (unsigned i = 0; i < request->accept_count; i++) {
        if (request->accept[i][0] == '\0')
            continue;
        if (lines == ACCEPT_LINES_MAX) {
            packer->at[-1] = ',';
            *packer->at++ = ' ';
            (void)pack(packer, request->accept[i]);
            continue;
        }
        fetch->accept[lines++] = pack(packer, request->accept[i]);
    }
    fetch->request.accept = NULL;
    fetch->request.accept_count = lines;
}

static size_t text_size(const struct origin_request *request)
{
    const struct registry_entry *registry = request->registry;
    size_t bytes = strlen(registry->name) + strlen(registry->endpoint) + strlen(registry->ca_file) +
                   strlen(registry->client_cert) + strlen(registry->client_key) +
                   strlen(registry->proxy) + strlen(request->path_and_query) + 7;

    if (request->authorization != NULL)
        bytes += strlen(request->authorization) + 1;
    if (request->url != NULL)
        bytes += strlen(request->url) + 1;
    if (request->if_none_match != NULL)
        bytes += strlen(request->if_none_match) + 1;
    for (unsigned i = 0; i < request->accept_count; i++)
        bytes += strlen(request->accept[i]) + 2;
    return bytes;
}

static int endpoint_parse(struct origin_fetch *fetch, const char *endpoint)
{
    struct url_parts parts;

    if (url__parse(endpoint, strlen(endpoint), &parts) != 0)
        return E_INVALID;
    if (parts.target_bytes > 1 || (parts.target_bytes == 1 && parts.target[0] != '/'))
        return E_INVALID; /* an endpoint has no path */
    parts.target = NULL;
    parts.target_bytes = 0;
    fetch->registry_url = parts;
    return 0;
}

int origin__request_copy(struct origin_fetch *fetch, const struct origin_request *request)
{
    const struct env *env = &fetch->origin->env;
    struct packer packer;
    int err;

    if (!request_valid(request))
        return E_INVALID;
    err = endpoint_parse(fetch, request->registry->endpoint);
    if (err != 0)
        return err;
    fetch->text_bytes = text_size(request);
    fetch->text = env->alloc(env->host, NULL, fetch->text_bytes);
    fetch->url = env->alloc(env->host, NULL, URL_BYTES_MAX + 1);
    if (fetch->text == NULL || fetch->url == NULL)
        return E_NO_MEMORY;
    packer = (struct packer){fetch->text, fetch->text + fetch->text_bytes};
    fetch->request = *request;
    fetch->request.registry = NULL; /* the entry is the caller's and may go */
    fetch->registry_name = pack(&packer, request->registry->name);
    fetch->ca_file = pack(&packer, request->registry->ca_file);
    fetch->client_cert = pack(&packer, request->registry->client_cert);
    fetch->client_key = pack(&packer, request->registry->client_key);
    fetch->proxy = pack(&packer, request->registry->proxy);
    fetch->allow_private = request->registry->allow_private;
    fetch->request.path_and_query = pack(&packer, request->path_and_query);
    fetch->request.url = NULL;
    if (request->url != NULL)
        fetch->handed_url = pack(&packer, request->url);
    fetch->request.authorization = NULL;
    fetch->request.if_none_match = NULL;
    if (!grants__no_credentials(request->authorization))
        fetch->request.authorization = pack(&packer, request->authorization);
    if (request->if_none_match != NULL && request->if_none_match[0] != '\0')
        fetch->request.if_none_match = pack(&packer, request->if_none_match);
    accept_pack(fetch, request, &packer);
    fetch->head_only = strcmp(request->method, "HEAD") == 0;
    fetch->probing = fetch->head_only && request->url != NULL; /* it may be signed for GET */
    fetch->request.method = NULL;
    fetch->size_bytes = request->kind == ORIGIN_BLOB ? request->size_bytes : UINT64_MAX;
    fetch->first = request->whole ? 0 : request->first;
    fetch->last = request->last;
    return 0;
}

void origin__request_close(struct origin_fetch *fetch)
{
    const struct env *env = &fetch->origin->env;

    if (fetch->text != NULL) {
        explicit_bzero(fetch->text, fetch->text_bytes);
        (void)env->alloc(env->host, fetch->text, 0);
    }
    if (fetch->url != NULL) {
        explicit_bzero(fetch->url, URL_BYTES_MAX + 1);
        (void)env->alloc(env->host, fetch->url, 0);
    }
    if (fetch->location != NULL) {
        explicit_bzero(fetch->location, URL_BYTES_MAX + 1);
        (void)env->alloc(env->host, fetch->location, 0);
    }
    fetch->text = fetch->url = fetch->location = NULL;
}

int origin__at_registry(struct origin_fetch *fetch)
{
    struct url_parts parts = fetch->registry_url;

    parts.target = fetch->request.path_and_query;
    parts.target_bytes = strlen(fetch->request.path_and_query);
    if (fetch->handed_url != NULL &&
        url__parse(fetch->handed_url, strlen(fetch->handed_url), &parts) != 0)
        return E_INVALID;
    if (url__build(&parts, fetch->url, URL_BYTES_MAX + 1) != 0 ||
        url__parse(fetch->url, strlen(fetch->url), &fetch->hop_url) != 0)
        return E_INVALID;
    fetch->hops = 0;
    fetch->away = fetch->handed_url != NULL;
    fetch->remembered = false;
    return 0;
}

/* ORG-5: one pool per (registry, credentials), and one without credentials for where the registry
 * sends us. The credential itself goes in too: the caller's hash of it is not ours to trust. */
static void pool_key(const struct origin_fetch *fetch, uint8_t out[32])
{
    const struct origin *origin = fetch->origin;
    char scope[HOST_BYTES_MAX + 40];
    const char *secret = origin__auth_value(fetch);
    size_t name_bytes = strlen(fetch->registry_name);

    if (secret == NULL)
        secret = "";
    ASSERT(name_bytes <= HOST_BYTES_MAX);
    scope[0] = fetch->away ? 'a' : 'r';
    memcpy(scope + 1, fetch->registry_name, name_bytes + 1);
    if (fetch->away)
        memset(scope + name_bytes + 2, 0, 32);
    else
        memcpy(scope + name_bytes + 2, fetch->request.credential_hash, 32);
    hmac_sha256(origin->key, scope, name_bytes + 2 + 32, secret, strlen(secret), out);
}

static void header_add(struct fetch_request *out, const char *name, const char *value)
{
    ASSERT(out->header_count < FETCH_HEADERS_MAX);
    out->headers[out->header_count].name = name;
    out->headers[out->header_count].value = value;
    out->header_count++;
}

static void headers_choose(const struct origin_fetch *fetch, const char *range,
                           struct fetch_request *out)
{
    bool bare = fetch->away && fetch->request.kind == ORIGIN_BLOB;

    const char *authorization = origin__auth_value(fetch);

    if (authorization != NULL)
        header_add(out, "Authorization", authorization);
    if (!bare && fetch->request.if_none_match != NULL && !fetch->head_shown)
        header_add(out, "If-None-Match", fetch->request.if_none_match);
    for (unsigned i = 0; i < fetch->request.accept_count && !bare; i++)
        header_add(out, "Accept", fetch->accept[i]);
    if (range[0] != '\0')
        header_add(out, "Range", range);
}

static uint32_t clip(uint32_t timeout_ms, uint32_t budget_ms)
{
    return budget_ms < timeout_ms ? budget_ms : timeout_ms;
}

/* A first try that cannot connect leaves time for a second one. */
static uint32_t connect_budget(const struct origin_fetch *fetch)
{
    return fetch->tries == 1 && !fetch->head_shown ? fetch->budget_ms / 2 + 1 : fetch->budget_ms;
}

int origin__send(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    struct fetch_request out = {
        .url = fetch->url,
        .ca_file = fetch->ca_file,
        .client_cert = fetch->away ? NULL : fetch->client_cert,
        .client_key = fetch->away ? NULL : fetch->client_key,
        .proxy = fetch->proxy,
        .allow_private = &fetch->allow_private,
        .connect_timeout_ms = clip(origin->connect_ms, connect_budget(fetch)),
        .first_byte_timeout_ms = clip(origin->first_byte_ms, fetch->budget_ms),
        .idle_timeout_ms = origin->idle_ms,
    };
    char range[64] = "";
    int err;

    ASSERT(fetch->running == NULL);
    fetch->attempt_start = fetch->received_bytes;
    fetch->attempt_us = origin->now_us;
    fetch->silent = false;
    if (!origin__auth_ready(fetch)) {
        origin__state(fetch, ORIGIN_AUTHORISING);
        return 0;
    }
    if (!origin__place_take(fetch)) {
        origin__state(fetch, ORIGIN_QUEUED);
        return 0;
    }
    if (fetch->hops == (fetch->remembered ? 1u : 0u) && !origin__trouble_admit(fetch)) {
        origin__place_give(fetch);
        return E_ORIGIN;
    }
    if (!origin__breaker_admit(fetch)) {
        origin__place_give(fetch);
        return E_UNREACHABLE;
    }
    fetch->ignored_bytes = 0;
    origin__range_choose(fetch);
    if (fetch->ranged && fetch->to_byte == UINT64_MAX)
        (void)snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)fetch->from_byte);
    else if (fetch->ranged)
        (void)snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)fetch->from_byte,
                       (unsigned long long)fetch->to_byte);
    out.method = fetch->head_only && !fetch->probing ? "HEAD" : "GET";
    headers_choose(fetch, range, &out);
    pool_key(fetch, out.pool_key);
    err = origin->engine.start(origin->engine.self, &out, &origin__engine_callbacks, fetch,
                               &fetch->running);
    if (err != 0)
        origin__place_give(fetch);
    /* What was itself paid for earns nothing, nor does what the registry never sees. */
    if (err == 0 && !fetch->earned)
        origin__bucket_earn(origin, fetch->registry_name);
    fetch->earned = fetch->earned || err == 0;
    return err;
}
