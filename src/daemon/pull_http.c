/* SPDX-License-Identifier: Apache-2.0 */
/* Routes of orders; see pull_http.h. */
#include "pull_http.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "pull_order.h"

void pull_http_answer(struct exchange *exchange, int status, json_t *body)
{
    static const char none[] = "{\"error\":\"out of memory\"}";
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    struct response response = {.status = text == NULL ? 503 : status};
    response_add(&response, "Content-Type", "application/json");
    response_add(&response, "Cache-Control", "no-store");
    response_add(&response, "Retry-After", status == 429 ? "10" : NULL);
    exchange_respond(exchange, &response, text == NULL ? none : text,
                     strlen(text == NULL ? none : text));
    free(text);
    json_decref(body);
}

static void refuse(struct exchange *exchange, int status, const char *text)
{
    pull_http_answer(exchange, status, json_pack("{s:s}", "error", text));
}

int pull_http_status(int err)
{
    switch (err) {
    case E_DENIED:
        return 403;
    case E_NOT_FOUND:
        return 404;
    case E_UNSUPPORTED:
        return 409;
    case E_TOO_LARGE:
        return 413;
    case E_FULL:
        return 429;
    case E_MALFORMED:
    case E_INVALID:
        return 400;
    default:
        return 503;
    }
}

static void begin(struct pulls *pulls, struct exchange *exchange)
{
    char id[PULL_ID_BYTES], error[PULL_ERROR_BYTES];
    struct pull_order order;
    size_t bytes;
    const char *body = exchange_body(exchange, &bytes);
    int err = pull_order_parse(body, bytes, &order, error);
    if (err == 0)
        err = pulls_order(pulls, &order, id, error);
    if (err == 0)
        pull_http_answer(exchange, 202, json_pack("{s:s}", "id", id));
    else
        refuse(exchange, pull_http_status(err), error);
}

/* "<id>" or "<id>/cancel" behind the path. */
static void one(struct pulls *pulls, struct exchange *exchange, const char *rest, bool post)
{
    char id[PULL_ID_BYTES];
    size_t bytes = strcspn(rest, "/");
    bool cancel = strcmp(rest + bytes, "/cancel") == 0;
    bool known = bytes == sizeof id - 1 && (cancel || rest[bytes] == '\0');
    memcpy(id, rest, known ? bytes : 0);
    id[known ? bytes : 0] = '\0';
    json_t *body = known ? pulls_json(pulls, id) : NULL;
    if (body == NULL) {
        refuse(exchange, 404, "no such order: it is unknown, or over for long");
        return;
    }
    if (cancel != post) {
        json_decref(body);
        refuse(exchange, 405, cancel ? "to cancel is a POST" : "to ask is a GET");
        return;
    }
    if (cancel) {
        (void)pulls_cancel(pulls, id);
        json_decref(body);
        body = pulls_json(pulls, id);
    }
    pull_http_answer(exchange, 200, body);
}

bool pull_http_mine(const struct http_request *request)
{
    size_t bytes = strlen(PULL_HTTP_PATH);
    char next = strncmp(request->target, PULL_HTTP_PATH, bytes) == 0 ? request->target[bytes] : 'x';
    return next == '\0' || next == '/';
}

void pull_http_handle(struct pulls *pulls, struct exchange *exchange)
{
    const struct http_request *request = exchange_request(exchange);
    const char *rest = request->target + strlen(PULL_HTTP_PATH);
    bool post = request->method == HTTP_POST;
    ASSERT(pull_http_mine(request));
    if (!post && request->method != HTTP_GET)
        refuse(exchange, 405, "GET and POST only");
    else if (*rest == '/')
        one(pulls, exchange, rest + 1, post);
    else if (post)
        begin(pulls, exchange);
    else
        pull_http_answer(exchange, 200, pulls_list(pulls));
}
