/* SPDX-License-Identifier: Apache-2.0 */
/* Faults drawn from a seed and played; see faults.h. */
#include "faults.h"

#include <inttypes.h>

#include "bytes.h"

#define SECOND_US 1000000ULL
#define MIB       (1ULL << 20)
#define PULL_AT   (15 * SECOND_US)
#define FAULTS_US (8 * SECOND_US)

static bool one_in(struct prng *prng, uint64_t count)
{
    return prng_below(prng, count) == 0;
}

static uint64_t moment(struct prng *prng)
{
    return PULL_AT + prng_below(prng, FAULTS_US);
}

/* ---- what goes wrong ---- */

static void draw_deaths(struct world *world, struct prng *prng, struct faults *out)
{
    uint32_t nodes = out->config.node_count;
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
        if (one_in(prng, 2)) {
            world_start_node(world, node, at_us + 1100000 + prng_below(prng, 5 * SECOND_US),
                             one_in(prng, 2));
            out->restarts++;
        }
    }
}

static void draw_slow(struct world *world, struct prng *prng, struct faults *out)
{
    for (uint32_t node = 0; node < out->config.node_count; node++) {
        if (one_in(prng, 20)) {
            world_freeze_node(world, node, moment(prng), prng_below(prng, 10 * SECOND_US));
            out->freezes++;
        }
        if (one_in(prng, 20)) {
            world_slow_node(world, node, 10);
            out->slow++;
        }
        if (one_in(prng, 20) && out->liars < out->config.node_count / 5) {
            world_make_liar(world, node);
            out->liars++;
        }
    }
}

static void draw_cuts(struct world *world, struct prng *prng, struct faults *out)
{
    uint32_t zones = out->config.zone_count;
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
    out->how = (uint32_t)(1 + prng_below(prng, WORLD_ORIGIN_CUT));
    uint64_t at_us = moment(prng);
    world_set_origin(world, (enum world_origin)out->how, at_us);
    world_set_origin(world, WORLD_ORIGIN_UP, at_us + prng_below(prng, 6 * SECOND_US));
}

/* ---- the world ---- */

static void draw_config(struct world_config *config, uint64_t seed, struct prng *prng)
{
    world_config_defaults(config);
    config->seed = seed;
    config->node_count = 3 + (uint32_t)prng_below(prng, FAULTS_NODES_MAX - 3);
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

static void draw_pulls(struct world *world, struct prng *prng, struct faults *out)
{
    out->blobs = 1 + (uint32_t)prng_below(prng, 3);
    for (uint32_t i = 0; i < out->blobs; i++) {
        uint64_t size = 1 + prng_below(prng, 48 * MIB);
        out->bytes += size;
        (void)world_add_blob(world, size);
    }
    for (uint32_t node = 0; node < out->config.node_count; node++) {
        uint64_t at_us = PULL_AT + prng_below(prng, SECOND_US);
        for (uint32_t blob = 0; blob < out->blobs; blob++)
            (void)world_pull(world, node, blob, at_us, TRANSFER_READ_STREAM);
    }
}

static void start_nodes(struct world *world, const struct world_config *config)
{
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&config->seed, sizeof config->seed);
    for (uint32_t node = 0; node < config->node_count; node++)
        world_start_node(world, node, prng_below(&prng, SECOND_US + 1), false);
}

struct world *faults_prepare(uint64_t seed, struct faults *out)
{
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    *out = (struct faults){.seed = seed};
    draw_config(&out->config, seed, &prng);
    struct world *world = world_new(&out->config);
    if (world == NULL)
        return NULL;
    start_nodes(world, &out->config);
    draw_pulls(world, &prng, out);
    draw_deaths(world, &prng, out);
    draw_slow(world, &prng, out);
    draw_cuts(world, &prng, out);
    draw_origin(world, &prng, out);
    return world;
}

void faults_print(const struct faults *faults, FILE *to)
{
    static const char *const origins[] = {"well", "refuses", "is silent", "is busy", "cuts off"};
    const struct world_config *config = &faults->config;
    fprintf(
        to,
        "seed: %" PRIu64 ": %u nodes, %u zones, %u blobs of %.1f MiB, NIC %" PRIu64
        " Mbit/s, origin %" PRIu64 " Mbit/s, loss %u ppm, duplicates %u ppm, latency %" PRIu64
        " us, jitter %u %%, copies %s, %s lookups, %s deaths; %u die, %u leave, %u of them "
        "come back, %u freeze, %u cuts, %u liars, %u slow, origin %s\n",
        faults->seed, config->node_count, config->zone_count, faults->blobs,
        (double)faults->bytes / (double)MIB, config->nic_bps / 125000, config->origin_bps / 125000,
        config->loss_ppm, config->duplicate_ppm, config->latency_zone_us, config->jitter_percent,
        config->mesh.transfer.copies == TRANSFER_COPIES_ZONE ? "zone" : "mesh",
        config->mesh.dht.one_hop ? "one-hop" : "iterative",
        config->silent_death ? "silent" : "plain", faults->deaths, faults->leaves, faults->restarts,
        faults->freezes, faults->cuts, faults->liars, faults->slow, origins[faults->how]);
}

/* ---- playing ---- */

static void print_pull(struct world *world, const struct world_pull *pull, FILE *to)
{
    struct mesh *mesh = world_mesh(world, pull->node);
    const struct transfer *transfer = mesh == NULL ? NULL : mesh_transfer(mesh);
    blob_handle handle =
        transfer == NULL ? 0 : transfer_blob_find(transfer, &world_blob(world, pull->blob)->key);
    const struct bitfield *have = handle == 0 ? NULL : transfer_blob_have(transfer, handle);
    fprintf(to, "  node %u, blob %u: %s at %.3f s, has %u of %u pieces\n", pull->node, pull->blob,
            pull->failed ? "failed" : "runs still", (double)pull->done_us / 1e6,
            have == NULL ? 0 : have->set_count, have == NULL ? 0 : have->bit_count);
}

/* A client whose pull failed tries once more, when the faults are over; so does one whose node came
 * back. Returns how many pulls did not end, or failed without a cause. */
static uint64_t retry(struct world *world, const struct faults *faults, FILE *to)
{
    size_t count, now_count;
    uint64_t bad = 0;
    (void)world_pulls(world, &count);
    for (size_t i = 0; i < count; i++) {
        struct world_pull pull = world_pulls(world, &now_count)[i];
        /* Nobody has a reason to fail but the origin's, and who died. */
        if (pull.done_us == 0 || (pull.failed && !faults->origin && !faults->died[pull.node])) {
            print_pull(world, &pull, to);
            bad++;
        }
        if (pull.failed && world_node_up(world, pull.node))
            (void)world_pull(world, pull.node, pull.blob, world_now_us(world),
                             TRANSFER_READ_STREAM);
    }
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

/* Bytes the origin may give: a stampede would be one copy per node. A zone that is cut off costs a
 * copy at most, and so does a liar: shunned by all that met it, it reads what it pulls by itself. A
 * node that died or stopped takes along what it alone had. */
double faults_copies_allowed(const struct faults *faults)
{
    const struct world_config *config = &faults->config;
    double copies = config->mesh.transfer.copies == TRANSFER_COPIES_ZONE ? config->zone_count : 1;
    copies += faults->cuts > 0 ? config->zone_count : 0;
    copies += 0.15 * (faults->deaths + faults->leaves + faults->freezes);
    return copies + faults->liars + 1;
}

void faults_play(struct world *world, const struct faults *faults, struct faults_outcome *out,
                 FILE *to)
{
    size_t first_pulls;
    *out = (struct faults_outcome){.seed = faults->seed};
    (void)run_checked(world, PULL_AT + FAULTS_US + 30 * SECOND_US);
    (void)run_checked(world, PULL_AT + 300 * SECOND_US);
    (void)world_pulls(world, &first_pulls);
    out->facts.stuck = retry(world, faults, to);
    out->facts.origin_copies = (double)world_totals(world)->origin_bytes / (double)faults->bytes;
    out->facts.origin_allowed = faults_copies_allowed(faults);
    (void)world_run(world, world_now_us(world) + 40 * SECOND_US, false);
    (void)run_checked(world, world_now_us(world) + 300 * SECOND_US);
    out->facts.failed_again = checkers_bad_pulls(world, first_pulls);
    checkers_gather(world, faults->config.node_count, faults->died, &out->facts);
    out->bad = checkers_judge(&out->facts);
    out->fault_count = faults->deaths + faults->leaves + faults->freezes + faults->cuts +
                       faults->liars + faults->slow + faults->origin;
    out->node_seconds = (double)world_now_us(world) / 1e6 * faults->config.node_count;
    out->pulls = first_pulls;
    out->lies = world_totals(world)->lies;
    out->trace_hash = world_trace_hash(world);
}
