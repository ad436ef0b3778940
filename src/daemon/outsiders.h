/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who comes to the mesh port without the secret of this cluster: one such node is silent on its own
 * side, so this one says it, in a line of the log per minute at most (HRD-5: others can provoke
 * it), and for as long as it goes on in the status page. Counts nothing: that is node_counters.
 */
#ifndef SHOAL_DAEMON_OUTSIDERS_H
#define SHOAL_DAEMON_OUTSIDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "types.h"

#define OUTSIDERS_LINE_US 60000000ULL
/* A node without company asks every 30 s at least (bootstrap.c); three of these are a pause. */
#define OUTSIDERS_PAUSE_US 90000000ULL
/* One that tries once, as a scanner does or `shoal doctor`, is no news. */
#define OUTSIDERS_LAST_US 10000000ULL

struct outsiders {
    bool any;
    uint64_t first_us, last_us; /* of those that came without a pause between them */
    uint64_t said_us;
    uint64_t unsaid;       /* since the last line */
    struct peer_addr addr; /* of the last one */
};

/* Notes one that was refused. True: a line is due, with *unsaid further ones since the last. */
bool outsiders_note(struct outsiders *outsiders, uint64_t now_us, const struct peer_addr *from,
                    uint64_t *unsaid);
/* True while they keep coming: for 10 s at least, the last one not 90 s ago. */
bool outsiders_go_on(const struct outsiders *outsiders, uint64_t now_us);

#endif
