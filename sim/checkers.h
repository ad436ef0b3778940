/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Judges of a simulation that stand outside the code they judge: they look at what came out, count
 * for themselves, and say what must not be. Facts are gathered from a world in one place and judged
 * in another, so that a test can plant each violation.
 */
#ifndef SHOAL_SIM_CHECKERS_H
#define SHOAL_SIM_CHECKERS_H

#include "world.h"

enum checker {
    CHECKER_PULLS_END = 0, /* every pull ends; only a death or the origin's failure fails one */
    CHECKER_RETRIES_END,   /* with the faults over, every retry succeeds */
    CHECKER_WRONG_BYTES,   /* no byte counts that its host never verified (INT-1) */
    CHECKER_WHOLE_BLOBS,   /* what was pulled is there, to the last piece */
    CHECKER_VIEWS,         /* every live node sees exactly the live nodes (N-1) */
    CHECKER_ORIGIN,        /* bytes from the origin stay within the budget */
    CHECKER_CONTROL,       /* datagram bytes of the mean node stay within the budget */
    CHECKER_LEAKS,         /* no message holds a private name or a digest (ACL-9) */
    CHECKER_BUDGETS,       /* uploads, reads, requests of a node (RES-1) */
    CHECKER_OWNERS,        /* no node reads a piece twice from the origin at the same time */
    CHECKER_BORDERS,       /* what is for each zone by itself crosses no border */
    CHECKER_COUNT,
};

/* Mean bytes of datagrams that a node may send per second: a guess, ten times what is seen. */
#define CHECKERS_CONTROL_BPS 65536
/* What one node may have under way: uploads as struct transfer_config says, more where others are
 * far: round trips of CHECKERS_FAR_US; reads as far as leases are asked for ahead of slow answers,
 * and two without a lease; requests as many as it has room for. */
#define CHECKERS_UPLOADS     24
#define CHECKERS_UPLOADS_FAR 72
#define CHECKERS_FAR_US      30000
#define CHECKERS_READS       34
#define CHECKERS_INFLIGHT    128

struct checkers_facts {
    uint64_t stuck;          /* pulls that did not end, or failed without a cause */
    uint64_t failed_again;   /* retries that did not end well */
    uint64_t wrong_bytes;    /* as the world counts them */
    uint64_t holed;          /* pulls that ended well while their node lacks a piece */
    uint32_t live, agreeing; /* nodes that are up; of those, with the right view */
    double origin_copies, origin_allowed;
    double control_bps; /* per node */
    uint64_t leaks, double_reads, crossed_bytes;
    uint32_t uploads_allowed;
    uint32_t most_uploads, most_reads, most_inflight; /* of one node at one time */
};

/* Nodes that are up and whose view has exactly the nodes that are up. *live: nodes that are up. */
uint32_t checkers_views(struct world *world, uint32_t node_count, uint32_t *live);
/* Pulls from index `from` on that did not end well. */
uint64_t checkers_bad_pulls(const struct world *world, size_t from);
/* Pulls that ended well on a node that is up, did not die (`died` by node, may be NULL), and lacks
 * a piece of the blob. For worlds whose caches keep everything. */
uint64_t checkers_holed_pulls(struct world *world, const bool *died);
/* Looks at all nodes that are up: what only a moment tells. To be called now and then. */
void checkers_look(struct world *world, uint32_t node_count, struct checkers_facts *facts);
/* Fills what the world itself tells: wrong bytes, holes, views, control, leaks, budgets. `died` as
 * above. */
void checkers_gather(struct world *world, uint32_t node_count, const bool *died,
                     struct checkers_facts *facts);
/* Bit per enum checker that is not content; 0: all is well. */
uint32_t checkers_judge(const struct checkers_facts *facts);
/* One line per bit of `bad` on `to`, each behind `prefix`. */
void checkers_explain(const struct checkers_facts *facts, uint32_t bad, const char *prefix,
                      FILE *to);

#endif
