/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flash crowds in the small world: how long, how many bytes from the origin and across zones. The
 * bound is size / rate; figures are multiples of it. N, Z, MB, R (Mbit/s), O (origin in node
 * rates), SLOTS, D and SHOW in the environment run one crowd by hand.
 */
#include "transfer_world.h"

static void report(const struct w_world *world, const char *name, double bound_s)
{
    struct w_times times = w_times_of(world);
    double blob_bytes = 0;
    for (uint32_t i = 0; i < world->blob_count; i++)
        blob_bytes += (double)world->blobs[i].size_bytes;
    print_message("figure: %s p50 %.3f p99 %.3f last %.3f of bound %.3f s, origin %.3f copies, "
                  "cross-zone %.3f, wasted %.4f, datagrams/node %.0f\n",
                  name, times.p50 / bound_s, times.p99 / bound_s, times.last / bound_s, bound_s,
                  (double)world->origin_bytes / blob_bytes, (double)world->cross_bytes / blob_bytes,
                  (double)world->wasted_bytes / blob_bytes / world->config.nodes,
                  (double)world->datagrams / world->config.nodes);
}

/* Reads of the origin by reason, over all nodes alive. */
static void report_reasons(const struct w_world *world)
{
    uint64_t sums[FETCH_REASON_COUNT] = {0};
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        struct transfer_stats stats;
        if (!world->nodes[i].alive)
            continue;
        transfer_stats(world->nodes[i].core, &stats);
        for (unsigned reason = FETCH_LEASE; reason < FETCH_REASON_COUNT; reason++)
            sums[reason] += stats.fetches_by_reason[reason];
    }
    for (unsigned reason = FETCH_LEASE; reason < FETCH_REASON_COUNT; reason++) {
        if (sums[reason] > 0)
            print_message("  reads by %s: %" PRIu64 "\n",
                          fetch_reason_name((enum fetch_reason)reason), sums[reason]);
    }
}

static double bound_of(const struct w_config *config, uint64_t bytes)
{
    double least =
        config->down_rate < config->origin_rate ? config->down_rate : config->origin_rate;
    return (double)bytes / least;
}

struct crowd {
    const char *name;
    uint32_t nodes, zones;
    double mbit, origin; /* origin in multiples of a node's rate */
    uint64_t mib;
    uint32_t blobs;
    uint64_t spread_us;                   /* arrivals within */
    double last_max, p99_max, origin_max; /* multiples of the bound; copies */
};

static void run_crowd(const struct crowd *crowd, uint64_t seed)
{
    struct w_config config = w_defaults(seed, crowd->nodes, crowd->zones, crowd->mbit);
    config.origin_rate = crowd->origin * crowd->mbit * W_MBIT;
    config.check_every = 4096;
    if (getenv("SLOTS") != NULL)
        config.transfer.upload_slots = (unsigned)(int)strtol(getenv("SLOTS"), NULL, 10);
    if (getenv("D") != NULL)
        config.transfer.inflight = (unsigned)(int)strtol(getenv("D"), NULL, 10);
    if (getenv("NB") != NULL)
        config.transfer.neighbours = (unsigned)(int)strtol(getenv("NB"), NULL, 10);
    if (getenv("ZMIN") != NULL)
        config.transfer.zone_members_min = (unsigned)(int)strtol(getenv("ZMIN"), NULL, 10);
    struct w_world *world = w_new(&config);
    uint64_t bytes = 0;
    for (uint32_t b = 0; b < crowd->blobs; b++) {
        uint32_t blob = w_add_blob(world, crowd->mib * (uint64_t)W_MIB);
        bytes += world->blobs[blob].size_bytes;
    }
    for (uint32_t i = 0; i < config.nodes; i++) {
        uint64_t at_us = crowd->spread_us == 0 ? 0 : prng_below(&world->prng, crowd->spread_us);
        for (uint32_t blob = 0; blob < crowd->blobs; blob++)
            w_pull_at(world, i, blob, at_us, TRANSFER_READ_STREAM);
    }
    w_run(world, 600 * (uint64_t)W_S);
    double bound_s = bound_of(&config, bytes);
    report(world, crowd->name, bound_s);
    report_reasons(world);
    if (getenv("DUMP") != NULL) {
        for (uint32_t i = 0; i < config.nodes; i++) {
            const struct w_node *node = &world->nodes[i];
            print_message("node %u zone %u start %.3f took %.3f origin %.1f peers %.1f MiB\n", i,
                          i % config.zones,
                          (double)(node->pulls[0].started_us - 1000 * (uint64_t)W_S) / 1e6,
                          (double)(node->pulls[0].ended_us - node->pulls[0].started_us) / 1e6,
                          (double)node->origin_bytes / W_MIB, (double)node->peer_bytes / W_MIB);
        }
    }
    struct w_times times = w_times_of(world);
    assert_true(times.last <= crowd->last_max * bound_s);
    assert_true(times.p99 <= crowd->p99_max * bound_s);
    assert_true((double)world->origin_bytes <= crowd->origin_max * (double)bytes);
    w_free(world);
}

static void test_16_nodes_2_zones(void **state)
{
    (void)state;
    uint64_t seed = w_seed(1);
    const struct crowd fast = {
        "16 nodes 2 zones 128 MiB, origin 10", 16, 2, 100, 10, 128, 1, 0, 1.3, 1.3, 1.05};
    const struct crowd even = {
        "16 nodes 2 zones 128 MiB, origin 1", 16, 2, 100, 1, 128, 1, 0, 1.3, 1.3, 1.05};
    for (uint64_t i = 0; i < 3; i++) {
        run_crowd(&fast, seed + i);
        run_crowd(&even, seed + i);
    }
}

static void test_5_nodes(void **state)
{
    (void)state;
    uint64_t seed = w_seed(1);
    const struct crowd one = {
        "5 nodes 1 zone 128 MiB, origin 10", 5, 1, 100, 10, 128, 1, 0, 1.2, 1.2, 1.05};
    const struct crowd two = {
        "5 nodes 2 zones 64 MiB, origin 1", 5, 2, 100, 1, 64, 1, 0, 1.3, 1.3, 1.05};
    run_crowd(&one, seed);
    run_crowd(&two, seed);
}

/* Without a mesh each of n nodes reads it all; they share the origin. */
static void test_few_nodes_never_slower_than_no_mesh(void **state)
{
    (void)state;
    uint64_t seed = w_seed(1);
    static const uint64_t mib[] = {4, 64, 256};
    for (uint32_t nodes = 1; nodes <= 3; nodes++) {
        for (unsigned i = 0; i < sizeof mib / sizeof mib[0]; i++) {
            char name[64];
            snprintf(name, sizeof name, "%u nodes %u MiB, origin 10", nodes, (unsigned)mib[i]);
            /* A small blob pays for its few segments: there may be one more than nodes. */
            double slack = 1.05 + 0.150 / ((double)mib[i] * W_MIB / (100 * W_MBIT));
            const struct crowd crowd = {name, nodes, 1, 100, 10, mib[i], 1, 0, slack, slack, 1.05};
            run_crowd(&crowd, seed);
        }
    }
}

static void test_100_nodes_3_zones(void **state)
{
    (void)state;
    uint64_t seed = w_seed(1);
    const struct crowd once = {"100 nodes 3 zones 512 MiB 1 Gbit/s, origin 20, at once",
                               100,
                               3,
                               1000,
                               20,
                               512,
                               1,
                               0,
                               1.25,
                               1.25,
                               1.05};
    const struct crowd spread = {"100 nodes 3 zones 512 MiB 1 Gbit/s, origin 20, within 1 s",
                                 100,
                                 3,
                                 1000,
                                 20,
                                 512,
                                 1,
                                 1 * W_S,
                                 1.3,
                                 1.25,
                                 1.05};
    const struct crowd slow = {"100 nodes 3 zones 128 MiB 100 Mbit/s, origin 10",
                               100,
                               3,
                               100,
                               10,
                               128,
                               1,
                               0,
                               1.35,
                               1.25,
                               1.05};
    run_crowd(&once, seed);
    run_crowd(&spread, seed);
    run_crowd(&slow, seed);
}

static void test_layers_of_an_image(void **state)
{
    (void)state;
    const struct crowd crowd = {
        "8 nodes, 4 layers of 32 MiB at once, origin 4", 8, 1, 100, 4, 32, 4, 0, 1.25, 1.25, 1.05};
    run_crowd(&crowd, w_seed(1));
}

/* A client takes the next layer when one is done, three at a time (containerd's default). */
static void next_layers(struct w_world *world, uint64_t arg)
{
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        uint32_t running = 0;
        for (uint32_t blob = 0; blob < world->blob_count; blob++)
            running += world->nodes[i].pulls[blob].wanted && !world->nodes[i].pulls[blob].done;
        for (uint32_t blob = 0; blob < world->blob_count && running < 3; blob++) {
            if (world->nodes[i].pulls[blob].wanted)
                continue;
            w_pull_at(world, i, blob, 0, TRANSFER_READ_STREAM);
            running++;
        }
    }
    struct w_event again = {.kind = W_CALL, .arg = arg, .at_us = world->now_us + 5 * W_MS};
    w_push(world, again);
}

static void test_layers_three_at_a_time(void **state)
{
    (void)state;
    static const uint32_t kib[] = {4, 40 * 1024, 3 * 1024, 24 * 1024, 700, 12 * 1024, 100};
    struct w_config config = w_defaults(w_seed(1), 8, 1, 100);
    config.origin_rate = 2 * config.down_rate;
    config.check_every = 4096;
    struct w_world *world = w_new(&config);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < sizeof kib / sizeof kib[0]; i++) {
        w_add_blob(world, kib[i] * 1024ULL);
        bytes += kib[i] * 1024ULL;
    }
    world->on_call = next_layers;
    next_layers(world, 0);
    w_run(world, 100 * (uint64_t)W_S);
    double bound_s = bound_of(&config, bytes);
    report(world, "8 nodes, 7 layers, 3 at a time", bound_s);
    assert_true(w_times_of(world).last <= 1.3 * bound_s);
    assert_true((double)world->origin_bytes <= 1.05 * (double)bytes);
    w_free(world);
}

static void test_by_hand(void **state)
{
    (void)state;
    const char *n = getenv("N"), *z = getenv("Z"), *mb = getenv("MB"), *r = getenv("R"),
               *o = getenv("O");
    if (n == NULL) {
        skip();
        return;
    }
    const struct crowd crowd = {
        .name = "by hand",
        .nodes = (uint32_t)(int)strtol(n, NULL, 10),
        .zones = z ? (uint32_t)(int)strtol(z, NULL, 10) : 1,
        .mbit = r ? strtod(r, NULL) : 100,
        .origin = o ? strtod(o, NULL) : 10,
        .mib = mb ? (uint64_t)(int)strtol(mb, NULL, 10) : 128,
        .blobs = 1,
        .spread_us =
            getenv("SPREAD") ? (uint64_t)(int)strtol(getenv("SPREAD"), NULL, 10) * W_MS : 0,
        .last_max = 100,
        .p99_max = 100,
        .origin_max = 100};
    run_crowd(&crowd, w_seed(1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_16_nodes_2_zones),
        cmocka_unit_test(test_5_nodes),
        cmocka_unit_test(test_few_nodes_never_slower_than_no_mesh),
        cmocka_unit_test(test_100_nodes_3_zones),
        cmocka_unit_test(test_layers_of_an_image),
        cmocka_unit_test(test_layers_three_at_a_time),
    };
    const struct CMUnitTest by_hand[] = {cmocka_unit_test(test_by_hand)};
    if (getenv("N") != NULL)
        return cmocka_run_group_tests(by_hand, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
