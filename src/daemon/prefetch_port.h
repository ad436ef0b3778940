/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The port for orders by HTTP (listen.prefetch): for CI systems the routes of pull_http.h, for
 * Harbor and registries
 *   GET  /health                  200, as a P2P provider of kind Kraken
 *   POST /registry/notifications  orders for what was pushed (preheat.h): 202 {"orders": [{"id"} or
 *                                 {"error"}], "ignored": n}; the first error's status if all failed
 * Every request needs the token of prefetch.tokenFile: as a Bearer token, or as the password of
 * Basic with any user. The file is read at each request, so a rotated one counts at once.
 */
#ifndef SHOAL_DAEMON_PREFETCH_PORT_H
#define SHOAL_DAEMON_PREFETCH_PORT_H

#include "config.h"
#include "http_server.h"
#include "pull.h"

#define PREFETCH_TOKEN_BYTES_MIN 32
#define PREFETCH_TOKEN_BYTES_MAX 1024

struct prefetch_port {
    struct loop *loop; /* borrowed, as the next two */
    const struct config *config;
    struct pulls *pulls;
    uint64_t unauthorized; /* requests without the token; only ever grows */
    uint64_t warned_us;    /* a token file that cannot be used is told of once a minute; 0: never */
};

/* Reads the token of a file: visible ASCII, white space around it is not part of it. 0 with it in
 * `out`, to be wiped; E_CONFIG with one line in `error` that repeats nothing of the file. */
MUST_USE int prefetch_token_read(const char *path, char out[PREFETCH_TOKEN_BYTES_MAX + 1],
                                 struct config_error *error);
/* Does an Authorization value (NULL: none) carry this token? In constant time of its bytes. */
bool prefetch_token_fits(const char *authorization, const char *token);
/* Handler for server_new; `arg` is the struct prefetch_port. */
void prefetch_port_handle(void *arg, struct exchange *exchange);

#endif
