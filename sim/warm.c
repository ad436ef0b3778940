/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The warm start: nodes that begin with the views they would have after a long time together, by
 * the call with which an agent may take over a saved view. What 10,000 joins would cost in time to
 * simulate, scenarios that begin with settled views need not pay.
 */
#include <stdlib.h>

#include "bytes.h"
#include "host.h"
#include "log.h"

static int by_id(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    return node_id_compare(&x->id, &y->id);
}

void world_start_settled(struct world *world, const uint32_t *nodes, uint32_t count)
{
    struct member *members = calloc(count, sizeof *members);
    ASSERT(members != NULL || count == 0);
    for (uint32_t i = 0; i < count; i++) {
        struct sim_node *node = &world->nodes[nodes[i]];
        host_boot(node, false);
        members[i] = *gossip_self(mesh_gossip(node->mesh));
    }
    if (count > 0)
        qsort(members, count, sizeof *members, by_id);
    for (uint32_t i = 0; i < count; i++) {
        struct sim_node *node = &world->nodes[nodes[i]];
        int err = mesh_seed_members(node->mesh, host_now_us(node), members, count);
        ASSERT(err == 0);
        host_join(node);
    }
    free(members);
}
