/* SPDX-License-Identifier: Apache-2.0 */
/* Who may give orders by HTTP, and the routes for Harbor; see prefetch_port.h. */
#include "prefetch_port.h"

#include <sodium.h>
#include <string.h>
#include <strings.h>

#include "digest.h"
#include "log.h"
#include "preheat.h"
#include "pull_http.h"
#include "secret_file.h"

#define HEALTH_PATH        "/health"
#define NOTIFICATIONS_PATH "/registry/notifications"
#define WARN_US            (60ull * 1000 * 1000)

/* ---- the token ---- */

static bool visible(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (text[i] <= ' ' || text[i] >= 0x7f)
            return false;
    return true;
}

int prefetch_token_read(const char *path, char out[PREFETCH_TOKEN_BYTES_MAX + 1],
                        struct config_error *error)
{
    static const char blanks[] = " \t\r\n";
    char *text = NULL;
    size_t room = 0;
    int err = secret_file_text(path, PREFETCH_TOKEN_BYTES_MAX + 16, &text, &room, error);
    if (err != 0)
        return err;
    const char *from = text + strspn(text, blanks);
    size_t bytes = strcspn(from, blanks);
    bool alone = from[bytes + strspn(from + bytes, blanks)] == '\0';
    if (!alone || !visible(from, bytes))
        err = config_fail(error, "%.300s: the token must be one line of visible ASCII", path);
    else if (bytes < PREFETCH_TOKEN_BYTES_MIN || bytes > PREFETCH_TOKEN_BYTES_MAX)
        err = config_fail(error,
                          "%.300s: the token must have %d to %d bytes: `openssl rand -hex 32` "
                          "makes one",
                          path, PREFETCH_TOKEN_BYTES_MIN, PREFETCH_TOKEN_BYTES_MAX);
    if (err == 0) {
        memcpy(out, from, bytes);
        out[bytes] = '\0';
    }
    sodium_memzero(text, room);
    (void)loop_alloc(NULL, text, 0);
    return err;
}

/* Hashes are compared, so that neither length nor bytes of the token show in time. */
static bool same(const char *given, const char *token)
{
    uint8_t left[32], right[32];
    sha256_of(given, strlen(given), left);
    sha256_of(token, strlen(token), right);
    return sodium_memcmp(left, right, sizeof left) == 0;
}

/* user:password in base64; the user is of no matter. */
static bool basic_fits(const char *value, const char *token)
{
    char plain[2 * PREFETCH_TOKEN_BYTES_MAX];
    size_t bytes = 0;
    bool fits = false;
    if (sodium_base642bin((unsigned char *)plain, sizeof plain - 1, value, strlen(value), NULL,
                          &bytes, NULL, sodium_base64_VARIANT_ORIGINAL) == 0) {
        plain[bytes] = '\0';
        const char *colon = strchr(plain, ':');
        fits = colon != NULL && strlen(plain) == bytes && same(colon + 1, token);
    }
    sodium_memzero(plain, sizeof plain);
    return fits;
}

bool prefetch_token_fits(const char *authorization, const char *token)
{
    if (authorization == NULL)
        return false;
    const char *value = authorization + strcspn(authorization, " ");
    size_t scheme = (size_t)(value - authorization);
    value += strspn(value, " ");
    if (scheme == 6 && strncasecmp(authorization, "bearer", 6) == 0)
        return same(value, token);
    return scheme == 5 && strncasecmp(authorization, "basic", 5) == 0 && basic_fits(value, token);
}

/* ---- answers ---- */

static bool may_order(struct prefetch_port *port, const struct http_request *request)
{
    char token[PREFETCH_TOKEN_BYTES_MAX + 1];
    struct config_error error;
    uint64_t now_us = loop_now_us(port->loop);
    bool fits = false;
    int err = prefetch_token_read(port->config->prefetch_token_file.text, token, &error);
    if (err == 0)
        fits = prefetch_token_fits(http_request_header(request, "authorization"), token);
    else if (port->warned_us == 0 || now_us - port->warned_us >= WARN_US) {
        port->warned_us = now_us;
        log_to(&port->loop->env, LOG_WARN, "prefetch.tokenFile: %s", error.text);
    }
    sodium_memzero(token, sizeof token);
    return fits;
}

static void unauthorized(struct prefetch_port *port, struct exchange *exchange)
{
    static const char body[] = "{\"error\":\"the token of prefetch.tokenFile is needed: as Bearer "
                               "token, or as password of Basic\"}";
    struct response response = {.status = 401};
    port->unauthorized++;
    response_add(&response, "Content-Type", "application/json");
    response_add(&response, "WWW-Authenticate", "Basic realm=\"shoal prefetch\"");
    exchange_respond(exchange, &response, body, sizeof body - 1);
}

/* Orders all of it. */
static void take_orders(const struct prefetch_port *port, struct preheat *preheat,
                        struct exchange *exchange)
{
    char id[PULL_ID_BYTES], error[PULL_ERROR_BYTES];
    json_t *list = json_array();
    int status = 202;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < preheat->count; i++) {
        preheat->orders[i].on = (enum pull_on)(port->config->prefetch_pushed_on - 1);
        int err = pulls_order(port->pulls, &preheat->orders[i], id, error);
        (void)json_array_append_new(list, err == 0 ? json_pack("{s:s}", "id", id)
                                                   : json_pack("{s:s}", "error", error));
        if (err != 0 && status == 202)
            status = pull_http_status(err);
        taken += err == 0;
    }
    json_t *body = json_pack("{s:o,s:I}", "orders", list, "ignored", (json_int_t)preheat->ignored);
    pull_http_answer(exchange, taken > 0 ? 202 : status, body);
}

static void notify(struct prefetch_port *port, struct exchange *exchange)
{
    struct preheat *preheat = loop_alloc(NULL, NULL, sizeof *preheat);
    char error[PULL_ERROR_BYTES];
    size_t bytes;
    const char *body = exchange_body(exchange, &bytes);
    if (preheat == NULL) {
        pull_http_answer(exchange, 503, NULL);
        return;
    }
    int err = preheat_parse(body, bytes, preheat, error);
    if (err == 0)
        take_orders(port, preheat, exchange);
    else
        pull_http_answer(exchange, pull_http_status(err), json_pack("{s:s}", "error", error));
    (void)loop_alloc(NULL, preheat, 0);
}

void prefetch_port_handle(void *arg, struct exchange *exchange)
{
    struct prefetch_port *port = arg;
    const struct http_request *request = exchange_request(exchange);
    bool reads = request->method == HTTP_GET || request->method == HTTP_HEAD;
    if (!may_order(port, request))
        unauthorized(port, exchange);
    else if (pull_http_mine(request))
        pull_http_handle(port->pulls, exchange);
    else if (strcmp(request->target, HEALTH_PATH) == 0 && reads)
        pull_http_answer(exchange, 200, json_pack("{s:s}", "status", "ok"));
    else if (strcmp(request->target, NOTIFICATIONS_PATH) == 0 && request->method == HTTP_POST)
        notify(port, exchange);
    else
        pull_http_answer(exchange, 404,
                         json_pack("{s:s}", "error",
                                   "paths: GET " HEALTH_PATH ", POST " NOTIFICATIONS_PATH
                                   ", " PULL_HTTP_PATH));
}
