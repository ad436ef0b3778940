/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Turns of client requests: so many are worked on at once (limits.parallelRequests, the ACR
 * component's proxyFsParallels), the others wait in order of arrival. It stands between the servers
 * of the client ports and their handler, and is bounded by their connections: a client waits with
 * one request per connection. Loop thread only.
 */
#ifndef SHOAL_DAEMON_TURNS_H
#define SHOAL_DAEMON_TURNS_H

#include "http_server.h"

/* Nobody waits longer, whatever is configured: a request has its head or a 5xx within 10 s
 * (HTTP-6). */
#define TURNS_WAIT_MAX_US (9ull * 1000000)

struct turns_config {
    struct loop *loop;
    uint32_t parallel_max;
    uint64_t wait_us; /* longest wait; then 503 with Retry-After */
    void *arg;
    void (*handle)(void *arg, struct exchange *exchange); /* as of struct server_config */
};

struct turns_counters {
    uint32_t running, waiting;
    uint64_t waited; /* had to wait */
    uint64_t late;   /* waited in vain */
};

struct turns;
/* 0, E_NO_MEMORY, E_INTERNAL. A part of the loop. */
MUST_USE int turns_new(const struct turns_config *config, struct turns **out);
/* After the loop has run out; NULL is fine. */
void turns_free(struct turns *turns);
/* Handler for server_new, of any number of servers; `arg` is the object. */
void turns_handle(void *arg, struct exchange *exchange);
const struct turns_counters *turns_counters(const struct turns *turns); /* borrowed */

#endif
