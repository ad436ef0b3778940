/* SPDX-License-Identifier: Apache-2.0 */
/* The answers to `shoal explain`; see control.h. */
#include "control.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "admin.h"
#include "bytes.h"
#include "history.h"
#include "image_name.h"
#include "log.h"
#include "page.h"
#include "pull_http.h"

#define EXPLAIN_PATH "/explain"

static json_int_t number(uint64_t value)
{
    return value > INT64_MAX ? INT64_MAX : (json_int_t)value;
}

/* RFC 3339; "" for 0. */
static json_t *wall(uint64_t wall_s)
{
    struct tm parts;
    char text[32] = "";
    time_t seconds = (time_t)wall_s;
    if (wall_s > 0 && gmtime_r(&seconds, &parts) != NULL)
        (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return json_string(text);
}

static void append(json_t *list, const char *key, const char *name, const char *meaning,
                   const struct history_event *event)
{
    (void)json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:o}", key, name, "meaning", meaning,
                                                "count", number(event->count), "last",
                                                wall(event->last_wall_s)));
}

static json_t *fetches(const struct history_pull *pull)
{
    json_t *list = json_array();
    for (int i = 1; i < FETCH_REASON_COUNT; i++)
        if (pull->fetches[i].count > 0)
            append(list, "reason", fetch_reason_name((enum fetch_reason)i),
                   history_fetch_text((enum fetch_reason)i), &pull->fetches[i]);
    return list;
}

static json_t *arounds(const struct history_pull *pull)
{
    json_t *list = json_array();
    for (int i = 1; i < AROUND_COUNT; i++)
        if (pull->around[i].count > 0)
            append(list, "reason", history_around_name((enum history_around)i),
                   history_around_text((enum history_around)i), &pull->around[i]);
    return list;
}

static json_t *given(const struct history_pull *pull)
{
    json_t *object = json_object();
    for (int i = 1; i < BLOB_TIER_COUNT; i++)
        (void)json_object_set_new(object, blob_tier_name((enum blob_tier)i),
                                  json_integer(number(pull->given_bytes[i])));
    return object;
}

static int more_bytes(const void *a, const void *b)
{
    const struct history_peer *left = a, *right = b;
    return left->bytes < right->bytes ? 1 : left->bytes > right->bytes ? -1 : 0;
}

static json_t *peers(const struct history_pull *pull)
{
    struct history_peer sorted[HISTORY_PEERS_MAX];
    json_t *list = json_array();
    memcpy(sorted, pull->peers, pull->peer_count * sizeof sorted[0]);
    qsort(sorted, pull->peer_count, sizeof sorted[0], more_bytes);
    for (uint32_t i = 0; i < pull->peer_count; i++) {
        char id[SHORT_HEX_BYTES], addr[PEER_ADDR_TEXT_BYTES];
        (void)json_array_append_new(
            list, json_pack("{s:s,s:s,s:I,s:I}", "addr", peer_addr_text(&sorted[i].addr, addr),
                            "id", short_hex(sorted[i].id.bytes, id), "bytes",
                            number(sorted[i].bytes), "pieces", number(sorted[i].pieces)));
    }
    return list;
}

static json_t *pull_json(struct agent *agent, const struct history_pull *pull)
{
    uint64_t end_us = pull->readers > 0 ? loop_now_us(&agent->loop) : pull->ended_us;
    json_t *object = json_pack(
        "{s:s,s:s,s:b,s:b,s:o,s:o,s:I,s:o,s:I,s:I,s:o,s:I,s:o,s:o}", "registry", pull->registry,
        "repository", pull->repository, "ahead", (int)pull->ahead, "running", pull->readers > 0,
        "began", wall(pull->began_wall_s), "ended", wall(pull->ended_wall_s), "took_ms",
        number((end_us - pull->began_us) / 1000), "given_bytes", given(pull), "registry_bytes",
        number(pull->origin_bytes), "around_bytes", number(pull->around_bytes), "peers",
        peers(pull), "other_peer_bytes", number(pull->other_peer_bytes), "registry_reads",
        fetches(pull), "around", arounds(pull));
    if (object != NULL && pull->failures.count > 0)
        (void)json_object_set_new(object, "failed_reads",
                                  json_pack("{s:I,s:o,s:s}", "count", number(pull->failures.count),
                                            "last", wall(pull->failures.last_wall_s), "error",
                                            err_text(pull->last_error)));
    if (object != NULL && pull->around_error != 0)
        (void)json_object_set_new(object, "around_error",
                                  json_string(err_text(pull->around_error)));
    return object;
}

static json_t *holders(struct agent *agent, blob_handle handle, uint64_t size_bytes)
{
    struct transfer_holder found[EXPLAIN_HOLDERS_MAX];
    const struct transfer *transfer = node_transfer(agent->node);
    const struct piece_layout *layout = transfer_blob_layout(transfer, handle);
    size_t count = transfer_holders(transfer, handle, found, EXPLAIN_HOLDERS_MAX);
    json_t *list = json_array();
    for (size_t i = 0; layout != NULL && i < count; i++) {
        char id[SHORT_HEX_BYTES], addr[PEER_ADDR_TEXT_BYTES];
        bool whole = found[i].pieces >= layout->piece_count;
        uint64_t bytes = whole ? size_bytes : (uint64_t)found[i].pieces * layout->piece_bytes;
        (void)json_array_append_new(
            list, json_pack("{s:s,s:s,s:b,s:I}", "addr", peer_addr_text(&found[i].addr, addr), "id",
                            short_hex(found[i].id.bytes, id), "whole", (int)whole, "bytes",
                            number(bytes < size_bytes ? bytes : size_bytes)));
    }
    return list;
}

/* NULL: nothing is known of it. */
static json_t *blob_json(struct agent *agent, const struct digest *digest)
{
    char text[DIGEST_TEXT_BYTES];
    struct blob_view view = {.size_bytes = 0};
    const struct history *history = blobs_history(agent->blobs);
    const struct history_pull *pull = history_find(history, digest, 0);
    bool open = blobs_view(agent->blobs, digest, &view);
    if (!open && pull == NULL)
        return NULL;
    uint64_t size_bytes = open ? view.size_bytes : pull->size_bytes;
    json_t *pulls = json_array();
    for (unsigned i = 0; i < EXPLAIN_PULLS_MAX && pull != NULL; i++) {
        (void)json_array_append_new(pulls, pull_json(agent, pull));
        pull = history_find(history, digest, i + 1);
    }
    return json_pack("{s:s,s:I,s:{s:I,s:b},s:o,s:o}", "digest", digest_text(digest, text),
                     "size_bytes", number(size_bytes), "here", "bytes", number(view.have_bytes),
                     "verified", (int)view.verified, "holders",
                     holders(agent, view.handle, size_bytes), "pulls", pulls);
}

struct question {
    const char *asked;
    struct digest digest; /* of what was asked for, if it has one */
    bool has_digest;
    struct digest blobs[EXPLAIN_BLOBS_MAX];
    size_t count;
};

/* The blobs of the last pulls, each once. */
static void all_blobs(const struct history *history, struct question *question)
{
    const struct history_pull *pull;
    for (unsigned skip = 0; (pull = history_find(history, NULL, skip)) != NULL; skip++) {
        size_t i = 0;
        while (i < question->count && !digest_equal(&question->blobs[i], &pull->digest))
            i++;
        if (i == question->count && i < EXPLAIN_BLOBS_MAX)
            question->blobs[question->count++] = pull->digest;
    }
}

/* 0, E_MALFORMED: no name, E_NOT_FOUND: nobody asked for it here. */
static int understand(const struct history *history, struct question *question)
{
    struct image_name image;
    if (question->asked[0] == '\0') {
        all_blobs(history, question);
        return 0;
    }
    int err = digest_parse(question->asked, strlen(question->asked), &question->digest);
    if (err != 0) {
        err = image_name_parse(question->asked, &image);
        if (err != 0)
            return E_MALFORMED;
        if (image.has_digest)
            question->digest = image.digest;
        else if (!history_tag_find(history, image.registry, image.repository, image.tag,
                                   &question->digest))
            return E_NOT_FOUND;
    }
    question->has_digest = true;
    question->count = history_blobs(history, &question->digest, question->blobs, EXPLAIN_BLOBS_MAX);
    return 0;
}

static char *explain_json(struct agent *agent, const struct question *question)
{
    char text[DIGEST_TEXT_BYTES];
    json_t *blobs = json_array();
    size_t unknown = 0;
    for (size_t i = 0; i < question->count; i++) {
        json_t *one = blob_json(agent, &question->blobs[i]);
        unknown += one == NULL;
        if (one != NULL)
            (void)json_array_append_new(blobs, one);
    }
    bool nothing = question->has_digest && json_array_size(blobs) == 0;
    json_t *root = json_pack("{s:s,s:s,s:o,s:I}", "asked", question->asked, "digest",
                             question->has_digest ? digest_text(&question->digest, text) : "",
                             "blobs", blobs, "not_pulled", number(unknown));
    char *page = root == NULL || nothing ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return page;
}

static void answer(struct exchange *exchange, int status, const char *type, const char *body)
{
    struct response response = {.status = status};
    response_add(&response, "Content-Type", type);
    response_add(&response, "Cache-Control", "no-store");
    exchange_respond(exchange, &response, body, strlen(body));
}

static void explain(struct agent *agent, struct exchange *exchange, const char *asked)
{
    struct question question = {.asked = asked};
    int err = understand(blobs_history(agent->blobs), &question);
    char *page = err == 0 ? explain_json(agent, &question) : NULL;
    if (err == E_MALFORMED)
        answer(exchange, 400, "text/plain; charset=utf-8",
               "neither a digest (sha256:...) nor an image's name\n");
    else if (page == NULL)
        answer(exchange, 404, "text/plain; charset=utf-8",
               "nothing is known of it: no client of this node asked for it since the agent "
               "started, or that is long ago\n");
    else
        answer(exchange, 200, "application/json", page);
    free(page);
}

/* Begins or looks at the round (dial_back.h). */
static void dial_back_answer(struct agent *agent, struct exchange *exchange)
{
    struct dial_back_result now;
    char text[96];
    dial_back_ask(agent->dial, &now);
    (void)snprintf(text, sizeof text, "{\"asked\":%u,\"reached\":%u,\"failed\":%u}\n", now.asked,
                   now.reached, now.failed);
    answer(exchange, 200, "application/json", text);
}

/* The header's value without a port. */
static bool host_is_ours(const char *host)
{
    static const char *const ours[] = {"shoal", "localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; host != NULL && i < sizeof ours / sizeof ours[0]; i++) {
        size_t bytes = strlen(ours[i]);
        if (strncasecmp(host, ours[i], bytes) == 0 && (host[bytes] == '\0' || host[bytes] == ':'))
            return true;
    }
    return false;
}

bool control_trusts(const struct http_request *request)
{
    const char *site = http_request_header(request, "sec-fetch-site");
    const char *origin = http_request_header(request, "origin");
    if (!host_is_ours(http_request_header(request, "host")))
        return false;
    if (request->method == HTTP_POST && (site != NULL || origin != NULL))
        return false;
    bool own = site == NULL || strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0;
    return own || strcmp(request->target, "/") == 0;
}

void control_handle(void *arg, struct exchange *exchange)
{
    const struct http_request *request = exchange_request(exchange);
    const char *rest = request->target + strlen(EXPLAIN_PATH);
    bool reads = request->method == HTTP_GET || request->method == HTTP_HEAD;
    bool explains = reads && strncmp(request->target, EXPLAIN_PATH, strlen(EXPLAIN_PATH)) == 0 &&
                    (*rest == '\0' || *rest == '/');
    if (!control_trusts(request))
        answer(exchange, 403, "text/plain; charset=utf-8",
               "not for other sites' pages: ask http://localhost or http://shoal\n");
    else if (pull_http_mine(request))
        pull_http_handle(((struct agent *)arg)->pulls, exchange);
    else if (explains)
        explain(arg, exchange, *rest == '/' ? rest + 1 : rest);
    else if (reads && strcmp(request->target, "/dialback") == 0)
        dial_back_answer(arg, exchange);
    else if (reads && strcmp(request->target, "/page.json") == 0)
        page_json_answer(arg, exchange, true);
    else
        admin_handle(arg, exchange);
}
