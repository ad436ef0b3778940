/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can others begin a connection to this node? Only they can tell: its own connections, and answers
 * to them, pass a filter that drops what is new. So up to three members are asked (WIRE_ORDER_DIAL)
 * to connect to our mesh port by TCP and to tell how that went (WIRE_ORDER_DIALLED).
 *
 * Who is asked connects to the proven address of the asking member and nowhere else, sends nothing,
 * and does so at most once in 4 s for a member, 16 times in 4 s for all, 4 at a time.
 */
#ifndef SHOAL_DAEMON_DIAL_BACK_H
#define SHOAL_DAEMON_DIAL_BACK_H

#include "loop.h"
#include "node.h"

#define DIAL_BACK_ASKED_MAX 3
#define DIAL_BACK_ROUND_US  5000000ULL

struct dial_back_result {
    uint32_t asked, reached, failed; /* the others have not answered */
};

struct dial_back_counters { /* of dials for others; only ever grow */
    uint64_t reached, failed;
    uint64_t refused; /* too soon, or too many */
};

struct dial_back;
/* Both are borrowed for the object's life. 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int dial_back_new(struct loop *loop, struct node *node, struct dial_back **out);
void dial_back_free(struct dial_back *dial); /* after the loop has run out; NULL is fine */
/* Takes a DIAL or a DIALLED of a member. May send. */
void dial_back_told(struct dial_back *dial, const struct mesh_order *order);
/* How far the round is that runs; one that is 5 s old or none begins a new one. Asked of again
 * and again while it is meant: what was lost is repeated. Sends. */
void dial_back_ask(struct dial_back *dial, struct dial_back_result *out);
void dial_back_counters(const struct dial_back *dial, struct dial_back_counters *out);

#endif
