/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs are held against: the fluid bound by hand-made cases, and the shared registry against a
 * slow model that recomputes everybody's rate at each arrival and each end.
 */
#include <math.h>

#include "../../sim/report_data.h"
#include "sim_support.h"

#define MIB         (1ULL << 20)
#define MODEL_NODES 60

static struct world_config links(uint32_t nodes, uint64_t nic_bps, uint64_t origin_bps)
{
    struct world_config config;
    world_config_defaults(&config);
    config.node_count = nodes;
    config.zone_count = 1;
    config.nic_bps = nic_bps;
    config.origin_bps = origin_bps;
    return config;
}

static void near(double value, double wanted)
{
    if (fabs(value - wanted) > 1e-6 * fmax(1, fabs(wanted)))
        fail_msg("%.9f, wanted %.9f", value, wanted);
}

static void the_bound_is_the_tightest_limit(void **state)
{
    (void)state;
    struct world_config config = links(10, 100, 1000);
    near(report__bound_s(&config, 5000, 50000), 50); /* a node's own link */
    config.nic_down_bps = 50;
    near(report__bound_s(&config, 5000, 50000), 100);
    config = links(10, 100, 20);
    near(report__bound_s(&config, 5000, 50000), 250); /* the registry */
    config = links(10, 10, 100);
    config.nic_down_bps = 10000;
    near(report__bound_s(&config, 5000, 50000), 250); /* all that nodes can send */
    config = links(10, 100, 1000);
    config.vswitch_bps = 25;
    near(report__bound_s(&config, 5000, 50000), 200);
    config = links(10, 100, 1000);
    config.zone_bps = 20; /* the registry stands inside every zone, unless told otherwise */
    near(report__bound_s(&config, 5000, 50000), 50);
    config.origin_over_border = true;
    near(report__bound_s(&config, 5000, 50000), 250);
}

static void everybody_at_once_shares_evenly(void **state)
{
    (void)state;
    struct world_config config = links(4, 1000, 100);
    struct report_node nodes[4] = {0};
    double seconds[4];
    for (size_t i = 0; i < 3; i++)
        nodes[i] = (struct report_node){.pulled = true, .fresh_bytes = 1000};
    assert_int_equal(report__no_mesh(&config, nodes, config.node_count, 1, seconds), 0);
    for (size_t i = 0; i < 3; i++)
        near(seconds[i], 30);
    near(seconds[3], 0);
    config.origin_bps = 1000000; /* then the node's own link binds */
    assert_int_equal(report__no_mesh(&config, nodes, config.node_count, 1, seconds), 0);
    near(seconds[0], 1);
    config.origin_conn_bps = 100; /* or its connections */
    assert_int_equal(report__no_mesh(&config, nodes, config.node_count, 4, seconds), 0);
    near(seconds[0], 2.5);
}

static void a_late_node_slows_the_others_down(void **state)
{
    (void)state;
    struct world_config config = links(2, 1000, 100);
    struct report_node nodes[2] = {{.pulled = true, .fresh_bytes = 1000},
                                   {.pulled = true, .fresh_bytes = 1000, .arrival_s = 5}};
    double seconds[2];
    assert_int_equal(report__no_mesh(&config, nodes, config.node_count, 1, seconds), 0);
    near(seconds[0], 15); /* 5 s alone, 10 s at half the rate */
    near(seconds[1], 15); /* 10 s at half the rate, 5 s alone */
}

/* Step by step: the next thing that happens is an arrival or the end of whoever has least left. */
static void model(const struct world_config *config, const struct report_node *nodes, double *out_s)
{
    double left[MODEL_NODES], now_s = 0;
    uint32_t count = config->node_count, done = 0;
    bool ended[MODEL_NODES] = {false};
    for (uint32_t i = 0; i < count; i++)
        left[i] = (double)nodes[i].fresh_bytes;
    while (done < count) {
        uint32_t active = 0;
        double step_s = INFINITY;
        for (uint32_t i = 0; i < count; i++)
            active += !ended[i] && nodes[i].arrival_s <= now_s;
        double rate = fmin((double)config->nic_bps, (double)config->origin_bps / fmax(active, 1));
        for (uint32_t i = 0; i < count; i++) {
            bool here = nodes[i].arrival_s <= now_s;
            if (!ended[i])
                step_s = fmin(step_s, here ? left[i] / rate : nodes[i].arrival_s - now_s);
        }
        for (uint32_t i = 0; i < count; i++) {
            if (ended[i] || nodes[i].arrival_s > now_s)
                continue;
            left[i] -= rate * step_s;
            if (left[i] > 1e-6)
                continue;
            ended[i] = true;
            done++;
            out_s[i] = now_s + step_s - nodes[i].arrival_s;
        }
        now_s += step_s;
    }
}

static void sharing_agrees_with_the_model(void **state)
{
    (void)state;
    struct prng prng;
    uint64_t seed = sim_seed(11);
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    for (int round = 0; round < 200; round++) {
        uint32_t count = 1 + (uint32_t)prng_below(&prng, MODEL_NODES);
        struct world_config config =
            links(count, 1000 + prng_below(&prng, 5000), 2000 + prng_below(&prng, 20000));
        struct report_node nodes[MODEL_NODES] = {0};
        double seconds[MODEL_NODES], wanted[MODEL_NODES];
        for (uint32_t i = 0; i < count; i++)
            nodes[i] = (struct report_node){.pulled = true,
                                            .fresh_bytes = 1 + prng_below(&prng, 50000),
                                            .arrival_s = (double)prng_below(&prng, 20000) / 1000};
        assert_int_equal(report__no_mesh(&config, nodes, config.node_count, 1, seconds), 0);
        model(&config, nodes, wanted);
        for (uint32_t i = 0; i < count; i++)
            near(seconds[i], wanted[i]);
    }
}

/* A pull that a death broke and that is repeated: one completion, counted from the first attempt.
 */
static void a_repeated_pull_counts_once(void **state)
{
    (void)state;
    struct world_config config;
    world_config_defaults(&config);
    config.node_count = 4;
    config.zone_count = 1;
    struct world *world = world_new(&config);
    assert_non_null(world);
    sim_start_all(world, &config, SECOND_US);
    uint32_t blob = world_add_blob(world, 64 * MIB);
    for (uint32_t node = 0; node < 4; node++)
        (void)world_pull(world, node, blob, 20 * SECOND_US, TRANSFER_READ_STREAM);
    world_kill_node(world, 2, 20 * SECOND_US + 200000);
    world_start_node(world, 2, 25 * SECOND_US, false);
    (void)world_pull(world, 2, blob, 28 * SECOND_US, TRANSFER_READ_STREAM);
    (void)world_run(world, 600 * SECOND_US, true);
    struct report report;
    report_make(world, &config, &report);
    assert_int_equal(report.pulls_failed, 1);
    assert_int_equal(report.nodes_complete, 4);
    assert_int_equal(report.nodes_incomplete, 0);
    assert_int_equal(report.bytes, 64 * MIB);
    assert_true(report.last_s > 8 && report.last_s < 30);
    assert_true(report.p50_s < 4);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_is_the_tightest_limit),
        cmocka_unit_test(everybody_at_once_shares_evenly),
        cmocka_unit_test(a_late_node_slows_the_others_down),
        cmocka_unit_test(sharing_agrees_with_the_model),
        cmocka_unit_test(a_repeated_pull_counts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
