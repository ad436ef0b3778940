/* SPDX-License-Identifier: Apache-2.0 */
/* Members by zone and state, for /metrics: a bounded number of zones, whatever members call theirs.
 */
#ifndef SHOAL_DAEMON_ZONE_COUNT_H
#define SHOAL_DAEMON_ZONE_COUNT_H

#include "gossip.h"

/* Zones with a row of their own. A region has a handful; beyond them a mistake, or a member with
 * bad intentions, makes up names. */
#define ZONE_COUNT_MAX 64
/* Name of the row for all others. */
#define ZONE_COUNT_REST "other"

struct zone_row {
    struct label zone;
    uint32_t alive, suspect, leaving;
};
struct zone_counts {
    struct zone_row rows[ZONE_COUNT_MAX + 1]; /* the first `count`; one may be the rest's */
    uint32_t count;
};

/* Takes a member in: into its zone's row, a new one while there is room, else the rest's. A zone
 * that is called like the rest is the rest. Members that are dead or have left do not count. */
void zone_counts_add(struct zone_counts *counts, const struct member *member);
/* All that `gossip` knows, the own zone first, then in order of node ids. */
void zone_counts_of(const struct gossip *gossip, struct zone_counts *out);

#endif
