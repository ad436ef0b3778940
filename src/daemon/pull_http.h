/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders by HTTP, for ports that take them (the control socket, prefetch_port.h):
 *   POST /prefetch              an order (pull_order.h): 202 {"id": "..."}
 *   GET  /prefetch              all orders: {"pulls": [...]}
 *   GET  /prefetch/<id>         how one fares (pulls_json)
 *   POST /prefetch/<id>/cancel  ends it
 * Errors are {"error": "..."}: 400 (the order), 403 (kept off the mesh), 404 (no such order, or
 * registry), 409 (mode passthrough, no cache), 413, 429 (too many), 503 (stops, memory).
 */
#ifndef SHOAL_DAEMON_PULL_HTTP_H
#define SHOAL_DAEMON_PULL_HTTP_H

#include "http_server.h"
#include "pull.h"

#define PULL_HTTP_PATH "/prefetch"

/* True if the request's target is one of these, whatever its method. */
bool pull_http_mine(const struct http_request *request);
/* Answers such a request; who asks was found worthy before. */
void pull_http_handle(struct pulls *pulls, struct exchange *exchange);
/* For other routes beside these: the status of an error, and an answer with a body that is TAKEN;
 * NULL: 503, no memory. */
int pull_http_status(int err);
void pull_http_answer(struct exchange *exchange, int status, json_t *body);

#endif
