/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls under faults drawn from seeds: loss, duplicates, delay, slow and frozen nodes, liars,
 * deaths, restarts, leaves, partitions, an origin that refuses, is silent, busy or breaks off. The
 * checks stand outside the code they judge: every pull of a node that lived ends, and well, if need
 * be in its first retry; no lie is taken; the origin is not stampeded; views agree again. SEED
 * replays one seed.
 */
#include "bytes.h"
#include "sim_support.h"

#define MIB       (1ULL << 20)
#define PULL_AT   (15 * SECOND_US)
#define FAULTS_US (8 * SECOND_US)
#define SEEDS     200
#define NODES_MAX 33

struct faults {
    bool died[NODES_MAX]; /* at least once */
    uint32_t deaths, leaves, freezes, cuts, liars, slow;
    bool origin; /* it failed in some way */
};

static bool one_in(struct prng *prng, uint64_t count)
{
    return prng_below(prng, count) == 0;
}

static uint64_t moment(struct prng *prng)
{
    return PULL_AT + prng_below(prng, FAULTS_US);
}

/* ---- what goes wrong ---- */

static void draw_deaths(struct world *world, uint32_t nodes, struct prng *prng, struct faults *out)
{
    uint32_t deaths = (uint32_t)prng_below(prng, nodes / 3 + 1);
    for (uint32_t i = 0; i < deaths; i++) {
        uint32_t node = (uint32_t)prng_below(prng, nodes);
        uint64_t at_us = moment(prng);
        if (out->died[node])
            continue;
        out->died[node] = true;
        if (one_in(prng, 4)) {
            world_leave_node(world, node, at_us);
            out->leaves++;
        } else {
            world_kill_node(world, node, at_us);
            out->deaths++;
        }
        if (one_in(prng, 2))
            world_start_node(world, node, at_us + 1100000 + prng_below(prng, 5 * SECOND_US),
                             one_in(prng, 2));
    }
}

static void draw_slow(struct world *world, uint32_t nodes, struct prng *prng, struct faults *out)
{
    for (uint32_t node = 0; node < nodes; node++) {
        if (one_in(prng, 20)) {
            world_freeze_node(world, node, moment(prng), prng_below(prng, 10 * SECOND_US));
            out->freezes++;
        }
        if (one_in(prng, 20)) {
            world_slow_node(world, node, 10);
            out->slow++;
        }
        if (one_in(prng, 20) && out->liars < nodes / 5) {
            world_make_liar(world, node);
            out->liars++;
        }
    }
}

static void draw_cuts(struct world *world, uint32_t zones, struct prng *prng, struct faults *out)
{
    for (uint32_t a = 0; a < zones; a++) {
        for (uint32_t b = 0; b < zones; b++) {
            if (a == b || !one_in(prng, 8))
                continue;
            uint64_t at_us = moment(prng), until_us = at_us + prng_below(prng, 20 * SECOND_US);
            world_cut_zones(world, a, b, true, at_us);
            world_cut_zones(world, a, b, false, until_us);
            if (one_in(prng, 2)) {
                world_cut_zones(world, b, a, true, at_us);
                world_cut_zones(world, b, a, false, until_us);
            }
            out->cuts++;
        }
    }
}

static void draw_origin(struct world *world, struct prng *prng, struct faults *out)
{
    if (!one_in(prng, 3))
        return;
    out->origin = true;
    enum world_origin how = (enum world_origin)(1 + prng_below(prng, WORLD_ORIGIN_CUT));
    uint64_t at_us = moment(prng);
    world_set_origin(world, how, at_us);
    world_set_origin(world, WORLD_ORIGIN_UP, at_us + prng_below(prng, 6 * SECOND_US));
}

/* ---- the world ---- */

static void draw_world(struct world_config *config, uint64_t seed, struct prng *prng)
{
    world_config_defaults(config);
    config->seed = seed;
    config->node_count = 3 + (uint32_t)prng_below(prng, NODES_MAX - 3);
    config->zone_count = 1 + (uint32_t)prng_below(prng, 3);
    config->loss_ppm = one_in(prng, 3) ? 0 : (uint32_t)prng_below(prng, 50000);
    config->duplicate_ppm = (uint32_t)prng_below(prng, 20000);
    config->jitter_percent = one_in(prng, 4) ? 500 : 20; /* datagrams overtake each other */
    if (one_in(prng, 8))
        config->latency_zone_us = config->latency_cross_us = 100000; /* N-8: 300 ms with jitter */
    config->nic_bps = 12500000 * (1 + prng_below(prng, 20));
    config->origin_bps = config->nic_bps * (1 + prng_below(prng, 10));
    if (one_in(prng, 4))
        config->origin_conn_bps = config->nic_bps / 2;
    if (one_in(prng, 4))
        config->zone_bps = config->nic_bps;
    config->silent_death = one_in(prng, 2);
    config->mesh.dht.one_hop = !one_in(prng, 4);
    config->mesh.transfer.copies = one_in(prng, 4) ? TRANSFER_COPIES_ZONE : TRANSFER_COPIES_MESH;
}

static uint64_t draw_pulls(struct world *world, uint32_t nodes, struct prng *prng)
{
    uint64_t bytes = 0;
    uint32_t blobs = 1 + (uint32_t)prng_below(prng, 3);
    for (uint32_t i = 0; i < blobs; i++) {
        uint64_t size = 1 + prng_below(prng, 48 * MIB);
        bytes += size;
        (void)world_add_blob(world, size);
    }
    for (uint32_t node = 0; node < nodes; node++) {
        uint64_t at_us = PULL_AT + prng_below(prng, SECOND_US);
        for (uint32_t blob = 0; blob < blobs; blob++)
            (void)world_pull(world, node, blob, at_us, TRANSFER_READ_STREAM);
    }
    return bytes;
}

static void print_pull(struct world *world, const struct world_pull *pull)
{
    struct mesh *mesh = world_mesh(world, pull->node);
    const struct transfer *transfer = mesh == NULL ? NULL : mesh_transfer(mesh);
    blob_handle handle =
        transfer == NULL ? 0 : transfer_blob_find(transfer, &world_blob(world, pull->blob)->key);
    const struct bitfield *have = handle == 0 ? NULL : transfer_blob_have(transfer, handle);
    printf("  node %u, blob %u: %s at %.3f s, has %u of %u pieces\n", pull->node, pull->blob,
           pull->failed ? "failed" : "runs still", (double)pull->done_us / 1e6,
           have == NULL ? 0 : have->set_count, have == NULL ? 0 : have->bit_count);
}

/* A client whose pull failed tries once more, when the faults are over; so does one whose node came
 * back. Returns how many pulls did not end at all. */
static size_t retry(struct world *world, const struct faults *faults)
{
    size_t count, now_count, bad = 0;
    (void)world_pulls(world, &count);
    for (size_t i = 0; i < count; i++) {
        struct world_pull pull = world_pulls(world, &now_count)[i];
        /* Nobody has a reason to fail but the origin's, and who died. */
        if (pull.done_us == 0 || (pull.failed && !faults->origin && !faults->died[pull.node])) {
            print_pull(world, &pull);
            bad++;
        }
        if (pull.failed && world_node_up(world, pull.node))
            (void)world_pull(world, pull.node, pull.blob, world_now_us(world),
                             TRANSFER_READ_STREAM);
    }
    return bad;
}

static size_t bad_pulls(struct world *world, size_t from)
{
    size_t count, bad = 0;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = from; i < count; i++)
        bad += pulls[i].done_us == 0 || pulls[i].failed;
    return bad;
}

static bool run_checked(struct world *world, uint64_t until_us)
{
    while (world_now_us(world) < until_us) {
        bool done = world_run(world, world_now_us(world) + SECOND_US, true);
        world_check(world);
        if (done)
            return true;
    }
    return false;
}

static uint32_t live_nodes(const struct world *world, uint32_t nodes)
{
    uint32_t live = 0;
    for (uint32_t node = 0; node < nodes; node++)
        live += world_node_up(world, node);
    return live;
}

/* Bytes the origin may give: a stampede would be one copy per node. A zone that is cut off costs a
 * copy at most, and so does a liar, who may have leased anything; a node that died or stopped takes
 * along what it alone had. */
static double copies_allowed(const struct world_config *config, const struct faults *faults)
{
    double copies = config->mesh.transfer.copies == TRANSFER_COPIES_ZONE ? config->zone_count : 1;
    copies += faults->cuts > 0 ? config->zone_count : 0;
    copies += 0.15 * (faults->deaths + faults->leaves + faults->freezes);
    return copies + faults->liars + 1;
}

struct sum {
    uint32_t faults;
    double node_seconds, worst_copies;
    uint64_t pulls, lies;
    uint64_t trace_hash; /* of the last run */
};

/* True if all is well; else the reason is printed. */
static bool run_seed(uint64_t seed, struct sum *sum)
{
    struct world_config config;
    struct prng prng;
    struct faults faults = {.origin = false};
    size_t first_pulls;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    draw_world(&config, seed, &prng);
    struct world *world = world_new(&config);
    assert_non_null(world);
    sim_start_all(world, &config, SECOND_US);
    uint64_t bytes = draw_pulls(world, config.node_count, &prng);
    draw_deaths(world, config.node_count, &prng, &faults);
    draw_slow(world, config.node_count, &prng, &faults);
    draw_cuts(world, config.zone_count, &prng, &faults);
    draw_origin(world, &prng, &faults);

    (void)run_checked(world, PULL_AT + FAULTS_US + 30 * SECOND_US);
    (void)run_checked(world, PULL_AT + 300 * SECOND_US);
    (void)world_pulls(world, &first_pulls);
    size_t stuck = retry(world, &faults);
    double copies = (double)world_totals(world)->origin_bytes / (double)bytes;
    (void)world_run(world, world_now_us(world) + 40 * SECOND_US, false);
    (void)run_checked(world, world_now_us(world) + 300 * SECOND_US);
    size_t failed = bad_pulls(world, first_pulls);
    uint32_t live = live_nodes(world, config.node_count);
    uint32_t agree = sim_complete_views(world, &config, live);
    bool good = stuck + failed == 0 && agree == live && world_totals(world)->wrong_bytes == 0 &&
                copies <= copies_allowed(&config, &faults);
    if (!good)
        printf("seed: %llu: %zu pulls stuck or failed without cause, %zu retries failed, %u of %u "
               "views complete, %.2f origin copies with %u nodes in %u zones; %u deaths, %u "
               "leaves, %u freezes, %u cuts, %u liars, %u slow, origin %d\n",
               (unsigned long long)seed, stuck, failed, agree, live, copies, config.node_count,
               config.zone_count, faults.deaths, faults.leaves, faults.freezes, faults.cuts,
               faults.liars, faults.slow, faults.origin);
    sum->faults += faults.deaths + faults.leaves + faults.freezes + faults.cuts + faults.liars +
                   faults.slow + faults.origin;
    sum->node_seconds += (double)world_now_us(world) / 1e6 * config.node_count;
    sum->pulls += first_pulls;
    sum->lies += world_totals(world)->lies;
    sum->trace_hash = world_trace_hash(world);
    sum->worst_copies = copies > sum->worst_copies ? copies : sum->worst_copies;
    world_free(world);
    return good;
}

static void pulls_end_under_faults(void **state)
{
    (void)state;
    uint64_t first = sim_seed(1000);
    const char *more = getenv("SEEDS");
    uint32_t seeds = getenv("SEED") != NULL ? 1 : SEEDS;
    if (more != NULL)
        seeds = (uint32_t)strtoul(more, NULL, 10);
    struct sum sum = {0};
    uint32_t bad = 0;
    for (uint32_t i = 0; i < seeds; i++)
        bad += !run_seed(first + i, &sum);
    printf("figure: %u seeds, %llu pulls, %u faults beside loss, %.0f node-hours, %llu lies: all "
           "right in %u; at most %.2f origin copies\n",
           seeds, (unsigned long long)sum.pulls, sum.faults, sum.node_seconds / 3600,
           (unsigned long long)sum.lies, seeds - bad, sum.worst_copies);
    assert_int_equal(bad, 0);
}

static void same_seed_same_trace(void **state)
{
    (void)state;
    uint64_t first = sim_seed(5000), before = 0;
    for (uint32_t i = 0; i < 12; i++) {
        struct sum once = {0}, again = {0};
        (void)run_seed(first + i, &once);
        (void)run_seed(first + i, &again);
        assert_true(once.trace_hash == again.trace_hash);
        assert_true(once.trace_hash != before);
        before = once.trace_hash;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pulls_end_under_faults),
        cmocka_unit_test(same_seed_same_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
