/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One origin request whose whole answer is collected: manifests, tags, referrers, HEAD of blobs,
 * and the challenge that the runtime must see. Accept lines stay separate lines (CLIENTS §1.7).
 */
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "mirror_internal.h"

/* What of the origin's head a client may need; everything else stays between us and the origin. */
static const char *const kept[] = {
    "content-type", /* first: relay_set_type relies on it */
    "docker-content-digest",
    "www-authenticate",
    "etag",
    "link",
    "retry-after",
    "oci-filters-applied",
    "oci-subject",
    "warning",
    "docker-distribution-api-version",
};
#define KEPT_COUNT     (sizeof kept / sizeof kept[0])
#define ACCEPT_MAX     16
#define LINK_BYTES_MAX 4096 /* a target of ours has 2 KiB at most (HTTP-1) */

struct relay {
    struct mirror_request *request;
    struct origin_fetch *fetch; /* NULL when it has ended */
    relay_done_fn done;
    void *arg;
    int status;
    uint64_t content_length;
    char *headers[KEPT_COUNT]; /* owned copies */
    char *body;                /* owned */
    size_t body_bytes, body_capacity;
    int err;
};

/* Keeps a copy of the first value of a header; without memory it is left out. */
static void keep(struct relay *relay, size_t i, const char *value)
{
    if (value == NULL || relay->headers[i] != NULL)
        return;
    size_t bytes = strlen(value) + 1;
    relay->headers[i] = loop_alloc(NULL, NULL, bytes);
    if (relay->headers[i] != NULL)
        memcpy(relay->headers[i], value, bytes);
}

void relay_set_type(struct relay *relay, const char *type)
{
    keep(relay, 0, type);
}

static void on_head(void *arg, const struct fetch_response *response)
{
    struct relay *relay = arg;
    relay->status = response->status;
    relay->content_length = response->content_length;
    for (size_t i = 0; i < KEPT_COUNT; i++)
        keep(relay, i, fetch_response_header(response, kept[i]));
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct relay *relay = arg;
    size_t need = relay->body_bytes + byte_count;
    if (relay->err != 0 || need > MANIFEST_BYTES_MAX) {
        relay->err = E_TOO_LARGE;
        return true;
    }
    if (need > relay->body_capacity) {
        size_t capacity = need < 16384 ? 16384 : need * 2;
        char *body = loop_alloc(NULL, relay->body, capacity);
        if (body == NULL) {
            relay->err = E_NO_MEMORY;
            return true;
        }
        relay->body = body;
        relay->body_capacity = capacity;
    }
    memcpy(relay->body + relay->body_bytes, bytes, byte_count);
    relay->body_bytes = need;
    return true;
}

static void on_done(void *arg, int err)
{
    struct relay *relay = arg;
    relay->fetch = NULL;
    if (err == E_ORIGIN)
        err = 0; /* an answer, if not the one hoped for */
    if (err == 0 && relay->status == 0)
        err = E_PROTOCOL;
    relay->done(relay->arg, relay->err != 0 ? relay->err : err);
}

/* Ours or the client's own. */
static const char *condition_of(const struct mirror_request *request, enum origin_kind kind)
{
    if (request->etag[0] != '\0')
        return request->etag;
    return kind == ORIGIN_BLOB
               ? NULL
               : http_request_header(exchange_request(request->exchange), "if-none-match");
}

/* What the client can have elsewhere: from our memory, or, at the start of a pull, from the
 * registry itself. Who has a grant has got the manifest from us, and may be bound to us for the
 * rest of it (CLIENTS §8); readers of ranges or URLs may know nobody else. */
static bool is_spare(const struct mirror_request *request)
{
    bool reads_on = request->url != NULL || mirror__granted(request) ||
                    http_request_header(exchange_request(request->exchange), "range") != NULL;
    return request->hurry || !reads_on;
}

int relay_start(struct mirror_request *request, enum origin_kind kind, const char *method,
                const char *path_and_query, relay_done_fn done, void *arg)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    struct mirror *mirror = request->mirror;
    const struct http_request *http = exchange_request(request->exchange);
    const char *accept[ACCEPT_MAX];
    unsigned accept_count = 0;
    for (unsigned i = 0; i < http->header_count && accept_count < ACCEPT_MAX; i++) {
        if (strcmp(http->headers[i].name, "accept") == 0)
            accept[accept_count++] = http->headers[i].value;
    }
    struct relay *relay = loop_alloc(NULL, NULL, sizeof *relay);
    if (relay == NULL)
        return E_NO_MEMORY;
    *relay = (struct relay){.request = request, .done = done, .arg = arg};
    struct origin_request ask = {
        .registry = request->registry,
        .kind = kind,
        .method = method,
        .path_and_query = path_and_query,
        .accept = accept,
        .accept_count = accept_count,
        .url = request->url,
        .authorization = request->authorization,
        .head_ms = mirror__head_ms(request),
        .spare = is_spare(request),
        .if_none_match = condition_of(request, kind),
        .size_bytes = UINT64_MAX,
        .whole = true,
    };
    memcpy(ask.credential_hash, request->credential_hash, sizeof ask.credential_hash);
    int err = origin_start(mirror->config.origin, mirror__now_us(mirror), &ask, &callbacks, relay,
                           &relay->fetch);
    if (err != 0) {
        relay_free(relay);
        return err;
    }
    request->relay = relay;
    return 0;
}

int relay_status(const struct relay *relay)
{
    return relay->status;
}

const char *relay_header(const struct relay *relay, const char *name)
{
    for (size_t i = 0; i < KEPT_COUNT; i++) {
        if (strcmp(kept[i], name) == 0)
            return relay->headers[i];
    }
    return NULL;
}

const char *relay_body(const struct relay *relay, size_t *bytes)
{
    *bytes = relay->body_bytes;
    return relay->body;
}

uint64_t relay_content_length(const struct relay *relay)
{
    return relay->content_length;
}

void relay_free(struct relay *relay)
{
    if (relay == NULL)
        return;
    if (relay->fetch != NULL)
        origin_cancel(relay->request->mirror->config.origin, relay->fetch);
    for (size_t i = 0; i < KEPT_COUNT; i++)
        (void)loop_alloc(NULL, relay->headers[i], 0);
    (void)loop_alloc(NULL, relay->body, 0);
    (void)loop_alloc(NULL, relay, 0);
}

/* What the spec calls that which is not there. Lists are of a repository. */
static const char *unknown_code(enum http_route_kind kind)
{
    if (kind == HTTP_ROUTE_BLOB)
        return "BLOB_UNKNOWN";
    return kind == HTTP_ROUTE_MANIFEST ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN";
}

const char *mirror__oci_code(const struct mirror_request *request, int status)
{
    switch (status) {
    case 401:
        return "UNAUTHORIZED";
    case 403:
        return "DENIED";
    case 404:
        return unknown_code(request->route.kind);
    case 429:
        return "TOOMANYREQUESTS";
    default:
        return "UNKNOWN";
    }
}

/* A GET of a blob is asked about with HEAD, whose refusal has no text: the client gets ours. */
static bool textless(const struct mirror_request *request)
{
    const struct relay *relay = request->relay;
    return relay->status >= 400 && relay->body_bytes == 0 &&
           exchange_request(request->exchange)->method == HTTP_GET;
}

/* The next page of a list is asked for here, too; NULL: the registry named none, or none that can
 * be followed. */
static const char *link_here(const struct mirror_request *request, char *text, size_t text_bytes)
{
    const char *link = relay_header(request->relay, "link");
    const char *endpoint = request->registry->endpoint, *host = strstr(endpoint, "://");
    if (link == NULL || host == NULL ||
        http_link_here(link, host + 3, request->route.ns, text, text_bytes) != 0)
        return NULL;
    return text;
}

void relay_answer(struct mirror_request *request)
{
    const struct relay *relay = request->relay;
    if (mirror__asks_credentials(request, relay->status)) {
        mirror__unavailable(request, E_UNREACHABLE);
        return;
    }
    struct response response = {.status = relay->status};
    char link[LINK_BYTES_MAX];
    for (size_t i = 0; i < KEPT_COUNT; i++) {
        bool is_link = strcmp(kept[i], "link") == 0;
        response_add(&response, kept[i],
                     is_link ? link_here(request, link, sizeof link) : relay->headers[i]);
    }
    response_add(&response, "Shoal-Source", "origin");
    const char *body = relay->body;
    size_t bytes = relay->body_bytes;
    char text[256];
    if (textless(request) &&
        http_oci_error(text, sizeof text, mirror__oci_code(request, relay->status),
                       http_status_text(relay->status), &bytes) == 0) {
        body = text;
        if (relay_header(relay, "content-type") == NULL)
            response_add(&response, "Content-Type", "application/json");
    }
    /* HEAD: the length the origin told, without the body it did not send. */
    if (exchange_request(request->exchange)->method == HTTP_HEAD)
        bytes = relay->content_length <= SIZE_MAX ? (size_t)relay->content_length
                                                  : RESPONSE_LENGTH_UNKNOWN;
    exchange_respond(request->exchange, &response, body, bytes);
    mirror_request__free(request);
}
