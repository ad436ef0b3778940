/* SPDX-License-Identifier: Apache-2.0 */
/* Orders as they come in a request's body (pull_http.h): text of others, bounded before it is
 * parsed. */
#ifndef SHOAL_DAEMON_PULL_ORDER_H
#define SHOAL_DAEMON_PULL_ORDER_H

#include "pull.h"

#define PULL_ORDER_BYTES_MAX (64 * 1024)

/* An object of at most so many bytes and 16 levels, no key twice. 0 with a reference in *root;
 * E_TOO_LARGE, E_MALFORMED with one line for people in `error`. */
MUST_USE int pull_json_load(const char *json, size_t json_bytes, size_t bytes_max, json_t **root,
                            char error[PULL_ERROR_BYTES]);

/* "local", "zone", "all" or a number from 1 to MEMBERS_MAX. False: none of these. */
bool pull_on_parse(const char *text, struct pull_order *out);
/*
 * {"image": "registry/name:tag", "platform": "os/arch[/variant]" or "all", "on": "local",
 * "zone", "all" or a number of nodes, "attached": true}; all but the image may be missing. 0;
 * E_TOO_LARGE (bytes, depth); E_MALFORMED, E_INVALID with one line for people in `error`.
 */
MUST_USE int pull_order_parse(const char *json, size_t json_bytes, struct pull_order *out,
                              char error[PULL_ERROR_BYTES]);

#endif
