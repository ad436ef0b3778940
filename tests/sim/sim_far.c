/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes that are far from one another, as in clusters over several sites: a pull through the mesh
 * is held against that of a node alone with the same registry. Windows of connections grow from ten
 * segments (docs/simulator-model.md), so round trips are most of what all of it costs.
 */
#include "../../sim/report.h"
#include "sim_support.h"

#define MIB      (1ULL << 20)
#define PULL_AT  (30 * SECOND_US)
#define LIMIT_US (600 * SECOND_US)
#define MS       1000ULL

struct far_case {
    const char *name;
    uint32_t nodes, zones;
    uint64_t mib;
    uint64_t zone_ms, cross_ms, origin_ms; /* one way; 0: as always */
};

static struct report pull(const struct far_case *far, uint32_t nodes, uint64_t seed)
{
    struct world_config config;
    world_config_defaults(&config);
    config.seed = seed;
    config.node_count = nodes;
    config.zone_count = nodes == 1 ? 1 : far->zones;
    config.latency_zone_us = far->zone_ms > 0 ? far->zone_ms * MS : config.latency_zone_us;
    config.latency_cross_us = far->cross_ms > 0 ? far->cross_ms * MS : config.latency_cross_us;
    config.origin_latency_us = far->origin_ms > 0 ? far->origin_ms * MS : config.origin_latency_us;
    struct world *world = world_new(&config);
    assert_non_null(world);
    sim_start_all(world, &config, 2 * SECOND_US);
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    (void)world_add_blob(world, far->mib * MIB);
    for (uint32_t node = 0; node < nodes; node++) {
        uint64_t at_us = PULL_AT + prng_below(&prng, SECOND_US + 1);
        (void)world_pull(world, node, 0, at_us, TRANSFER_READ_STREAM);
    }
    (void)world_run(world, PULL_AT + LIMIT_US, true);
    struct report report;
    report_make(world, &config, &report);
    assert_int_equal(world_totals(world)->wrong_bytes, 0);
    assert_int_equal(report.pulls_failed, 0);
    world_free(world);
    return report;
}

/* Most time of the last node, of one alone, and bytes from the registry. */
static void show(const struct far_case *far, double times_max, double copies_max)
{
    uint64_t seed = sim_seed(3);
    struct report alone = pull(far, 1, seed);
    struct report mesh = pull(far, far->nodes, seed);
    printf("figure: %s: p50 %.2f, last %.2f s, a node alone %.2f s; origin %.2f copies\n",
           far->name, mesh.p50_s, mesh.last_s, alone.last_s, mesh.origin_copies);
    assert_true(mesh.last_s <= times_max * alone.last_s);
    assert_true(mesh.origin_copies <= copies_max);
}

/* 5.7, 44.7, 70.5 s when requests were counted in pieces and bytes of a second alone: none was
 * measured that would have asked for more. */
static void everybody_is_as_far_as_the_registry(void **state)
{
    (void)state;
    show(&(struct far_case){"16 nodes, 50 ms each way", 16, 1, 64, 50, 0, 50}, 1.5, 1.05);
    show(&(struct far_case){"16 nodes, 100 ms each way", 16, 1, 64, 100, 0, 100}, 1.5, 1.05);
    show(&(struct far_case){"16 nodes, 150 ms each way", 16, 1, 64, 150, 0, 150}, 1.5, 1.05);
    show(&(struct far_case){"4 nodes, 50 ms each way", 4, 1, 64, 50, 0, 50}, 1.5, 1.05);
    show(&(struct far_case){"40 nodes, 50 ms each way", 40, 1, 64, 50, 0, 50}, 1.6, 1.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_is_as_far_as_the_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
