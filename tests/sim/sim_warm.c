/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worlds that begin with settled views: they are what joining leads to, they stay quiet, failures
 * are found as fast as ever, pulls work, a seed replays; and what a member costs in memory, which
 * is what lets 10,000 nodes fit in one process.
 */
#include <malloc.h>

#include "sim_support.h"

#define NODES 1000
/* Of our own, per (node, member): gossip 28, DHT 2, transfer 4, with room to grow. */
#define BYTES_PER_MEMBER 40
/* Of a node at rest apart from its members. */
#define OWN_BYTES 150000

static struct world *settled_world(struct world_config *config, uint64_t seed, uint32_t node_count)
{
    world_config_defaults(config);
    config->seed = seed;
    config->node_count = node_count;
    config->zone_count = 3;
    struct world *world = world_new(config);
    assert_non_null(world);
    uint32_t *nodes = calloc(node_count, sizeof *nodes);
    assert_non_null(nodes);
    for (uint32_t i = 0; i < node_count; i++)
        nodes[i] = i;
    world_start_settled(world, nodes, node_count);
    free(nodes);
    return world;
}

static void settled_views_stay_settled(void **state)
{
    (void)state;
    struct world_config config;
    struct world *world = settled_world(&config, sim_seed(31), NODES);
    assert_int_equal(sim_complete_views(world, &config, NODES), NODES);
    (void)world_run(world, 10 * SECOND_US, false);
    assert_int_equal(sim_complete_views(world, &config, NODES), NODES);
    uint64_t messages = 0;
    for (uint32_t node = 0; node < NODES; node++) {
        struct gossip_stats stats;
        gossip_stats(mesh_gossip(world_mesh(world, node)), &stats);
        assert_int_equal(stats.deaths + stats.suspicions + stats.refutations, 0);
        messages += stats.messages_sent;
    }
    printf("figure: settled views of %d: %.2f messages a second and node\n", NODES,
           (double)messages / NODES / 10);
    assert_true(messages < 10 * 10 * NODES);
    world_check(world);

    uint64_t death_us = world_now_us(world);
    world_kill_node(world, 500, death_us);
    double most_s = sim_until_views(world, &config, NODES - 1, (NODES - 1) * 99 / 100, death_us,
                                    15 * SECOND_US);
    printf("figure: after it, a dead node is dropped by 99 %% after %.2f s\n", most_s);
    assert_true(most_s <= 15);
    /* A newcomer joins in the ordinary way. */
    world_start_node(world, 500, world_now_us(world), false);
    (void)sim_until_views(world, &config, NODES, NODES, world_now_us(world), 15 * SECOND_US);
    assert_int_equal(sim_complete_views(world, &config, NODES), NODES);
    world_free(world);
}

static uint64_t hash_of_run(uint64_t seed)
{
    struct world_config config;
    struct world *world = settled_world(&config, seed, 120);
    uint32_t blob = world_add_blob(world, 16ULL << 20);
    for (uint32_t node = 0; node < 120; node++)
        (void)world_pull(world, node, blob, SECOND_US, TRANSFER_READ_STREAM);
    assert_true(world_run(world, 60 * SECOND_US, true));
    size_t count;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++)
        assert_false(pulls[i].failed);
    world_check(world);
    uint64_t hash = world_trace_hash(world);
    world_free(world);
    return hash;
}

static void same_seed_same_trace(void **state)
{
    (void)state;
    uint64_t seed = sim_seed(32);
    uint64_t first = hash_of_run(seed);
    assert_int_equal(first, hash_of_run(seed));
    assert_int_not_equal(first, hash_of_run(seed + 1));
}

/* Bytes a world of so many nodes takes for each of them, in virtual rest. */
static double bytes_of_node(uint32_t node_count)
{
    struct world_config config;
    struct mallinfo2 before = mallinfo2();
    struct world *world = settled_world(&config, 33, node_count);
    (void)world_run(world, 2 * SECOND_US, false);
    struct mallinfo2 after = mallinfo2();
    world_free(world);
    double bytes =
        (double)(after.uordblks + after.hblkhd) - (double)(before.uordblks + before.hblkhd);
    return bytes / node_count;
}

/* What a node takes is a part of its own and one for each member; 10,000 nodes are made of them. */
static void a_member_costs_little_memory(void **state)
{
    (void)state;
    double few = bytes_of_node(500), many = bytes_of_node(2000);
    double member = (many - few) / 1500, own = few - 500 * member;
    printf("figure: a simulated node takes %.0f KB and %.1f bytes a member: 10,000 %.2f GiB\n",
           own / 1e3, member, (own + 10000 * member) * 10000 / (1 << 30));
    assert_true(member < BYTES_PER_MEMBER);
    assert_true(own < OWN_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_costs_little_memory),
        cmocka_unit_test(settled_views_stay_settled),
        cmocka_unit_test(same_seed_same_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
