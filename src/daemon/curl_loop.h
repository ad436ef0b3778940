/* SPDX-License-Identifier: Apache-2.0 */
/* The origin client on the agent's loop: libcurl's sockets and timer, the origin's retry timer. */
#ifndef SHOAL_DAEMON_CURL_LOOP_H
#define SHOAL_DAEMON_CURL_LOOP_H

#include "loop.h"
#include "registry.h"

struct curl_loop;
/* Makes engine and origin; registers with the loop for an orderly stop. `mesh_port` is never
 * connected to (ORG-2). 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int curl_loop_new(struct loop *loop, const struct env *env, uint16_t mesh_port,
                           struct curl_loop **out);
struct origin *curl_loop_origin(struct curl_loop *curl);
/* For requests to other services than registries; requests must be over before the loop closes. */
const struct fetch_engine *curl_loop_engine(const struct curl_loop *curl);
/* After the loop has run out. NULL is fine. */
void curl_loop_free(struct curl_loop *curl);

#endif
