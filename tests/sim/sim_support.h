/* SPDX-License-Identifier: Apache-2.0 */
/* What the simulated scenarios share: a world of N nodes started cold, its seed, its views. */
#ifndef SHOAL_TESTS_SIM_SUPPORT_H
#define SHOAL_TESTS_SIM_SUPPORT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../sim/world.h"

#define SECOND_US 1000000ULL

/* SEED from the environment, else `fallback`; printed so that a failure can be replayed. */
static inline uint64_t sim_seed(uint64_t fallback)
{
    const char *text = getenv("SEED");
    uint64_t seed = text == NULL ? fallback : strtoull(text, NULL, 10);
    printf("seed: %llu\n", (unsigned long long)seed);
    return seed;
}

/* Starts every node within `spread_us`, each at a time that follows from the seed. */
static inline void sim_start_all(struct world *world, const struct world_config *config,
                                 uint64_t spread_us)
{
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&config->seed, sizeof config->seed);
    for (uint32_t node = 0; node < config->node_count; node++)
        world_start_node(world, node, prng_below(&prng, spread_us + 1), false);
}

/* Nodes that are up and see exactly `members` members. */
static inline uint32_t sim_complete_views(struct world *world, const struct world_config *config,
                                          size_t members)
{
    uint32_t complete = 0;
    for (uint32_t node = 0; node < config->node_count; node++) {
        if (world_node_up(world, node))
            complete += gossip_count(mesh_gossip(world_mesh(world, node))) == members;
    }
    return complete;
}

/* Runs to `since_us`, then until `nodes` views have `members` members or the limit; returns virtual
 * seconds since `since_us`. */
static inline double sim_until_views(struct world *world, const struct world_config *config,
                                     size_t members, uint32_t nodes, uint64_t since_us,
                                     uint64_t limit_us)
{
    if (world_now_us(world) < since_us)
        (void)world_run(world, since_us, false);
    while (world_now_us(world) < since_us + limit_us) {
        (void)world_run(world, world_now_us(world) + SECOND_US / 4, false);
        if (sim_complete_views(world, config, members) >= nodes)
            break;
    }
    return (double)(world_now_us(world) - since_us) / 1e6;
}

#endif
