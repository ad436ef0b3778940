/* SPDX-License-Identifier: Apache-2.0 */
/* Topology detection on the agent's loop: its timer, and the node that is told. */
#ifndef SHOAL_DAEMON_TOPOLOGY_LOOP_H
#define SHOAL_DAEMON_TOPOLOGY_LOOP_H

#include "curl_loop.h"
#include "node.h"
#include "topology_detect.h"

struct topology_loop {
    struct loop *loop;
    struct node *node;
    struct topology_detect *detect; /* owned; NULL before a start that succeeded */
    uv_timer_t timer;
    struct loop_part part;
    bool closed;
};

/* Begins to find out where the node stands, in the background; readiness does not wait. All are
 * borrowed; `topology` must not move. Registers itself with the loop for the stop, after `curl`.
 * 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int topology_loop_start(struct topology_loop *topology, struct loop *loop,
                                 const struct config *config, const struct curl_loop *curl,
                                 struct node *node);

#endif
