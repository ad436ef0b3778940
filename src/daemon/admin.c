/* SPDX-License-Identifier: Apache-2.0 */
/* Routes of the admin port; see admin.h. */
#include "admin.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "page.h"

static void text(struct exchange *exchange, int status, const char *type, const char *body,
                 size_t bytes)
{
    struct response response = {.status = status};
    response_add(&response, "Content-Type", type);
    response_add(&response, "Cache-Control", "no-store");
    exchange_respond(exchange, &response, body, bytes);
}

static void plain(struct exchange *exchange, int status, const char *body)
{
    text(exchange, status, "text/plain; charset=utf-8", body, strlen(body));
}

static void metrics(struct agent *agent, struct exchange *exchange)
{
    size_t bytes = 0;
    char *page = metrics_text(agent, &bytes);
    if (page == NULL) {
        plain(exchange, 503, "out of memory\n");
        return;
    }
    text(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", page, bytes);
    (void)loop_alloc(NULL, page, 0);
}

static void status(struct agent *agent, struct exchange *exchange)
{
    char *page = status_json(agent);
    if (page == NULL) {
        plain(exchange, 503, "out of memory\n");
        return;
    }
    text(exchange, 200, "application/json", page, strlen(page));
    free(page);
}

void admin_handle(void *arg, struct exchange *exchange)
{
    struct agent *agent = arg;
    const struct http_request *request = exchange_request(exchange);
    if (request->method != HTTP_GET && request->method != HTTP_HEAD)
        plain(exchange, 405, "GET and HEAD only\n");
    else if (strcmp(request->target, "/healthz") == 0)
        plain(exchange, 200, "ok\n");
    else if (strcmp(request->target, "/readyz") == 0)
        plain(exchange, agent->ready && !agent->loop.stopping ? 200 : 503,
              agent->ready && !agent->loop.stopping ? "ready\n" : "not ready\n");
    else if (strcmp(request->target, "/metrics") == 0)
        metrics(agent, exchange);
    else if (strcmp(request->target, "/status") == 0)
        status(agent, exchange);
    else if (strcmp(request->target, "/") == 0)
        page_answer(exchange);
    else if (strcmp(request->target, "/page.json") == 0)
        page_json_answer(agent, exchange, false);
    else
        plain(exchange, 404, "paths: / (the status page) /healthz /readyz /metrics /status\n");
}
