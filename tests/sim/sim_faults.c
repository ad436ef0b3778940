/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls under faults drawn from seeds: loss, duplicates, slow nodes, liars, deaths, restarts. The
 * checks stand outside the code they judge: every pull of a surviving node ends, no lie is taken,
 * the origin is not stampeded. SEED replays one seed.
 */
#include "sim_support.h"

#define MIB     (1ULL << 20)
#define PULL_AT (15 * SECOND_US)
#define SEEDS   40

static void draw_faults(struct world *world, const struct world_config *config, struct prng *prng,
                        bool *killed)
{
    uint32_t deaths = (uint32_t)prng_below(prng, config->node_count / 3 + 1);
    for (uint32_t i = 0; i < deaths; i++) {
        uint32_t node = (uint32_t)prng_below(prng, config->node_count);
        uint64_t at_us = PULL_AT + prng_below(prng, 3 * SECOND_US);
        world_kill_node(world, node, at_us);
        killed[node] = true;
        if (prng_below(prng, 2) == 0)
            world_start_node(world, node, at_us + SECOND_US, prng_below(prng, 2) == 0);
    }
    if (prng_below(prng, 3) == 0)
        world_make_liar(world, (uint32_t)prng_below(prng, config->node_count));
    if (prng_below(prng, 2) == 0)
        world_slow_node(world, (uint32_t)prng_below(prng, config->node_count), 10);
}

static void run_seed(uint64_t seed)
{
    struct world_config config;
    struct prng prng;
    bool killed[64] = {false};
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    world_config_defaults(&config);
    config.seed = seed;
    config.node_count = 3 + (uint32_t)prng_below(&prng, 30);
    config.zone_count = 1 + (uint32_t)prng_below(&prng, 3);
    config.loss_ppm = (uint32_t)prng_below(&prng, 50000);
    config.duplicate_ppm = (uint32_t)prng_below(&prng, 20000);
    config.nic_bps = 12500000 * (1 + prng_below(&prng, 20));
    config.origin_bps = config.nic_bps * (1 + prng_below(&prng, 10));
    config.silent_death = prng_below(&prng, 2) == 0;
    struct world *world = world_new(&config);
    assert_non_null(world);
    sim_start_all(world, &config, SECOND_US);
    uint32_t blobs = 1 + (uint32_t)prng_below(&prng, 3);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < blobs; i++) {
        uint64_t size = 1 + prng_below(&prng, 48 * MIB);
        bytes += size;
        (void)world_add_blob(world, size);
    }
    for (uint32_t node = 0; node < config.node_count; node++) {
        uint64_t at_us = PULL_AT + prng_below(&prng, SECOND_US);
        for (uint32_t blob = 0; blob < blobs; blob++)
            (void)world_pull(world, node, blob, at_us, TRANSFER_READ_STREAM);
    }
    draw_faults(world, &config, &prng, killed);
    bool ended = world_run(world, PULL_AT + 300 * SECOND_US, true);
    size_t count, stuck = 0;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++)
        stuck += !killed[pulls[i].node] && (pulls[i].done_us == 0 || pulls[i].failed);
    if (!ended || stuck > 0)
        printf("seed: %llu: %zu pulls stuck or failed\n", (unsigned long long)seed, stuck);
    assert_true(ended);
    assert_int_equal(stuck, 0);
    assert_int_equal(world_totals(world)->wrong_bytes, 0);
    /* A stampede would be one copy per node; deaths cost what the dead had read for themselves. */
    double copies = (double)world_totals(world)->origin_bytes / (double)bytes;
    if (copies > 2.5)
        printf("seed: %llu: %.2f origin copies with %u nodes\n", (unsigned long long)seed, copies,
               config.node_count);
    assert_true(copies <= 2.5);
    for (uint32_t node = 0; node < config.node_count; node++) {
        if (world_node_up(world, node))
            mesh__check_invariants(world_mesh(world, node));
    }
    world_free(world);
}

static void pulls_end_under_faults(void **state)
{
    (void)state;
    uint64_t first = sim_seed(1000);
    uint32_t seeds = getenv("SEED") != NULL ? 1 : SEEDS;
    for (uint32_t i = 0; i < seeds; i++)
        run_seed(first + i);
    printf("figure: %u seeds with deaths, loss, liars and slow nodes: every pull ended right\n",
           seeds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pulls_end_under_faults)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
