/* SPDX-License-Identifier: Apache-2.0 */
/* Faults drawn from a seed and played; see faults.h. */
#include "faults.h"

#include <inttypes.h>

#include "bytes.h"

#define SECOND_US 1000000ULL
#define MIB       (1ULL << 20)
#define PULL_AT   (15 * SECOND_US)
#define FAULTS_US (8 * SECOND_US)
/* The time after the storm: something happens in each step. */
#define LATER_STEP_US (20 * SECOND_US)
#define LATER_STEPS   47

static bool one_in(struct prng *prng, uint64_t count)
{
    return prng_below(prng, count) == 0;
}

static uint64_t moment(struct prng *prng)
{
    return PULL_AT + prng_below(prng, FAULTS_US);
}

/* A fault is over at that time. */
static void over(struct faults *faults, uint64_t at_us)
{
    faults->over_us = at_us > faults->over_us ? at_us : faults->over_us;
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
        over(out, at_us);
        if (one_in(prng, 2)) {
            uint64_t back_us = at_us + 1100000 + prng_below(prng, 5 * SECOND_US);
            world_start_node(world, node, back_us, one_in(prng, 2));
            over(out, back_us);
            out->restarts++;
        }
    }
}

static void freeze(struct world *world, struct faults *out, uint32_t node, uint64_t at_us,
                   uint64_t for_us)
{
    world_freeze_node(world, node, at_us, for_us);
    over(out, at_us + for_us);
    out->freezes++;
}

static void draw_slow(struct world *world, struct prng *prng, struct faults *out)
{
    for (uint32_t node = 0; node < out->config.node_count; node++) {
        if (one_in(prng, 20)) {
            uint64_t at_us = moment(prng);
            freeze(world, out, node, at_us, prng_below(prng, 10 * SECOND_US));
        }
        if (one_in(prng, 20)) {
            world_slow_node(world, node, 10);
            out->slow++;
        }
        if (one_in(prng, 20) && out->liars < out->config.node_count / 5) {
            world_make_liar(world, node);
            out->hostile[node] = WORLD_LIES;
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
            over(out, until_us);
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
    uint64_t until_us = at_us + prng_below(prng, 6 * SECOND_US);
    world_set_origin(world, WORLD_ORIGIN_UP, until_us);
    over(out, until_us);
}

/* Some nodes lose touch with the others, in one direction or both; link by link it comes back. */
static void draw_links(struct world *world, struct prng *prng, struct faults *out)
{
    uint32_t nodes = out->config.node_count;
    if (!one_in(prng, 3))
        return;
    uint64_t apart = prng_next(prng) & prng_next(prng); /* a quarter of them */
    uint64_t at_us = moment(prng), heals_us = prng_below(prng, 20 * SECOND_US) + 1;
    bool both = one_in(prng, 2);
    over(out, at_us + heals_us);
    for (uint32_t from = 0; from < nodes; from++) {
        for (uint32_t to = 0; to < nodes; to++) {
            bool leaves = (apart >> from & 1) != 0 && (apart >> to & 1) == 0;
            bool enters = (apart >> from & 1) == 0 && (apart >> to & 1) != 0;
            if (!leaves && !(enters && both))
                continue;
            world_cut_link(world, from, to, true, at_us);
            world_cut_link(world, from, to, false, at_us + prng_below(prng, heals_us) + 1);
            out->links++;
        }
    }
}

/* From a moment on, for a while. */
struct spell {
    uint64_t from_us, until_us;
};

static struct spell draw_spell(struct prng *prng, struct faults *out)
{
    struct spell spell = {.from_us = moment(prng)};
    spell.until_us = spell.from_us + prng_below(prng, 15 * SECOND_US);
    over(out, spell.until_us);
    return spell;
}

static void set_trait(struct world *world, uint32_t node, const struct spell *spell,
                      enum world_trait trait, const uint64_t values[2])
{
    world_set_trait(world, node, trait, values[0], spell->from_us);
    world_set_trait(world, node, trait, values[1], spell->until_us);
}

static void draw_machines(struct world *world, struct prng *prng, struct faults *out)
{
    bool disks = out->config.cache_bytes > 0;
    for (uint32_t node = 0; node < out->config.node_count; node++) {
        if (one_in(prng, 20)) {
            struct spell spell = draw_spell(prng, out);
            set_trait(world, node, &spell, WORLD_TRAIT_CPU_MILLI,
                      (const uint64_t[2]){2000 + prng_below(prng, 50000), 1000});
            out->slow_cpus++;
        }
        if (one_in(prng, 20)) { /* D-14 */
            struct spell spell = draw_spell(prng, out);
            set_trait(world, node, &spell, WORLD_TRAIT_DISK_WAIT_US,
                      (const uint64_t[2]){10000 + prng_below(prng, 2 * SECOND_US), 0});
            out->slow_disks++;
        }
        if (disks && one_in(prng, 5)) { /* D-1, D-2, D-3 */
            struct spell spell = draw_spell(prng, out);
            set_trait(world, node, &spell, WORLD_TRAIT_DISK,
                      (const uint64_t[2]){1 + prng_below(prng, 3), WORLD_DISK_WELL});
            out->forgets[node] = true;
            out->disk_errors++;
        }
        if (one_in(prng, 40)) { /* D-13 */
            freeze(world, out, node, moment(prng), 30 * SECOND_US);
        }
    }
}

/* Who lies, does nothing else: its liar's trait would be gone. Who damages its messages can make
 * others believe anything of the members, so it stops with the other faults. */
static void draw_hostile(struct world *world, struct prng *prng, struct faults *out)
{
    for (uint32_t node = 0; node < out->config.node_count; node++) {
        uint32_t acts = 1U << (1 + prng_below(prng, 6));
        if (!one_in(prng, 12) || out->liars + out->hostiles >= out->config.node_count / 5 ||
            (out->hostile[node] & WORLD_LIES) != 0)
            continue;
        out->hostile[node] = acts;
        out->hostiles++;
        world_set_trait(world, node, WORLD_TRAIT_HOSTILE, acts, PULL_AT);
        if ((acts & WORLD_GARBLES) == 0)
            continue;
        world_set_trait(world, node, WORLD_TRAIT_HOSTILE, 0, PULL_AT + 2 * FAULTS_US);
        over(out, PULL_AT + 2 * FAULTS_US);
    }
}

static void draw_aims(struct prng *prng, struct faults *out)
{
    uint64_t at_us = PULL_AT;
    if (!one_in(prng, 3))
        return;
    out->aim_count = 1 + (uint32_t)prng_below(prng, FAULTS_AIMS_MAX);
    for (uint32_t i = 0; i < out->aim_count; i++) {
        at_us += prng_below(prng, 3 * SECOND_US);
        out->aims[i].at_us = at_us;
        out->aims[i].aim = one_in(prng, 2) ? WORLD_AIM_KEEPERS : WORLD_AIM_LESSEES;
    }
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

/* What came later, from numbers of its own: older seeds keep what they drew before. */
static void draw_more_config(struct world_config *config, struct prng *prng)
{
    config->watch = true;
    if (one_in(prng, 4)) { /* N-8 */
        config->reorder_ppm = (uint32_t)prng_below(prng, 200000);
        config->reorder_us = 1 + prng_below(prng, SECOND_US / 2);
    }
    if (one_in(prng, 2)) /* D-11: machines that were started at other times */
        config->clock_spread_us = prng_below(prng, 86400 * 365 * SECOND_US);
    if (one_in(prng, 4))
        config->clock_drift_ppm = 1 + (uint32_t)prng_below(prng, 300);
    if (one_in(prng, 3)) {
        config->cache_bytes = 1ULL << 40; /* disks that can fail; of their own they keep all */
        config->memory_bytes = 16 * MIB;
    }
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

/* Blobs of registries with a rule of their own. From numbers of its own, as above. */
static void draw_copies(struct world *world, struct faults *out)
{
    struct prng prng;
    uint64_t seed[2] = {out->seed, 0x636f70696573};
    prng_seed(&prng, (const uint8_t *)seed, sizeof seed);
    out->zone_blobs = out->config.mesh.transfer.copies == TRANSFER_COPIES_ZONE;
    for (uint32_t blob = 0; blob < out->blobs; blob++) {
        enum transfer_copies copies = (enum transfer_copies)prng_below(&prng, 3);
        world_set_copies(world, blob, copies);
        out->zone_blobs = out->zone_blobs || copies == TRANSFER_COPIES_ZONE;
    }
}

static void start_nodes(struct world *world, const struct world_config *config)
{
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&config->seed, sizeof config->seed);
    for (uint32_t node = 0; node < config->node_count; node++)
        world_start_node(world, node, prng_below(&prng, SECOND_US + 1), false);
}

struct world *faults_prepare(uint64_t seed, enum world_plant plant, struct faults *out)
{
    struct prng prng, more;
    uint64_t more_seed[2] = {seed, 0x6d6f7265};
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    prng_seed(&more, (const uint8_t *)more_seed, sizeof more_seed);
    *out = (struct faults){.seed = seed};
    draw_config(&out->config, seed, &prng);
    draw_more_config(&out->config, &more);
    out->config.plant = plant;
    struct world *world = world_new(&out->config);
    if (world == NULL)
        return NULL;
    start_nodes(world, &out->config);
    draw_pulls(world, &prng, out);
    draw_copies(world, out);
    draw_deaths(world, &prng, out);
    draw_slow(world, &prng, out);
    draw_cuts(world, &prng, out);
    draw_origin(world, &prng, out);
    draw_links(world, &more, out);
    draw_machines(world, &more, out);
    draw_hostile(world, &more, out);
    draw_aims(&more, out);
    return world;
}

/* "some zone": by a registry's own rule. */
static const char *copies_text(const struct faults *faults)
{
    if (faults->config.mesh.transfer.copies == TRANSFER_COPIES_ZONE)
        return "zone";
    return faults->zone_blobs ? "some zone" : "mesh";
}

static void print_config(const struct faults *faults, FILE *to)
{
    const struct world_config *config = &faults->config;
    fprintf(to,
            "seed: %" PRIu64 ": %u nodes, %u zones, %u blobs of %.1f MiB, NIC %" PRIu64
            " Mbit/s, origin %" PRIu64 " Mbit/s, loss %u ppm, duplicates %u ppm, reordered %u ppm"
            ", latency %" PRIu64 " us, jitter %u %%, copies %s, %s lookups, %s deaths, clocks %.0f "
            "s apart and %u ppm wrong, %s",
            faults->seed, config->node_count, config->zone_count, faults->blobs,
            (double)faults->bytes / (double)MIB, config->nic_bps / 125000,
            config->origin_bps / 125000, config->loss_ppm, config->duplicate_ppm,
            config->reorder_ppm, config->latency_zone_us, config->jitter_percent,
            copies_text(faults), config->mesh.dht.one_hop ? "one-hop" : "iterative",
            config->silent_death ? "silent" : "plain", (double)config->clock_spread_us / 1e6,
            config->clock_drift_ppm, config->cache_bytes > 0 ? "disks" : "no disks");
}

static void print_hostile(const struct faults *faults, FILE *to)
{
    static const char *const acts[] = {"lies",        "drips",       "stalls", "claims all",
                                       "claims none", "claims flip", "garbles"};
    for (uint32_t node = 0; node < faults->config.node_count; node++)
        for (unsigned i = 0; i < sizeof acts / sizeof acts[0]; i++)
            if ((faults->hostile[node] & 1U << i) != 0)
                fprintf(to, "; node %u %s", node, acts[i]);
}

void faults_print(const struct faults *faults, FILE *to)
{
    static const char *const origins[] = {"well", "refuses", "is silent", "is busy", "cuts off"};
    print_config(faults, to);
    fprintf(to,
            "; %u die, %u leave, %u of them come back, %u more deaths are aimed, %u freeze, "
            "%u cuts of zones, %u of links, %u slow cards, %u processors, %u disks, %u disks fail, "
            "origin %s",
            faults->deaths, faults->leaves, faults->restarts, faults->aim_count, faults->freezes,
            faults->cuts, faults->links, faults->slow, faults->slow_cpus, faults->slow_disks,
            faults->disk_errors, origins[faults->how]);
    print_hostile(faults, to);
    fputs("\n", to);
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

static bool run_checked(struct world *world, uint64_t until_us, uint32_t nodes,
                        struct checkers_facts *facts)
{
    while (world_now_us(world) < until_us) {
        uint64_t next_us = world_now_us(world) + SECOND_US;
        bool done = world_run(world, next_us < until_us ? next_us : until_us, true);
        world_check(world);
        checkers_look(world, nodes, facts);
        if (done)
            return true;
    }
    return false;
}

/* Deaths of those whom it hurts most at that moment; half of them come back. */
static void take_aim(struct world *world, struct faults *faults, struct checkers_facts *facts)
{
    uint32_t nodes[FAULTS_NODES_MAX];
    for (uint32_t i = 0; i < faults->aim_count; i++) {
        uint32_t found = 0, at = 0;
        if (!run_checked(world, faults->aims[i].at_us, faults->config.node_count, facts))
            found = world_aim(world, faults->aims[i].aim, nodes, FAULTS_NODES_MAX);
        while (at < found && faults->died[nodes[at]]) /* or will, in its own way */
            at++;
        if (at == found)
            continue;
        uint32_t node = nodes[at];
        uint64_t now_us = world_now_us(world);
        world_kill_node(world, node, now_us);
        if (i % 2 == 0)
            world_start_node(world, node, now_us + 3 * SECOND_US, true);
        over(faults, now_us + 3 * SECOND_US);
        faults->died[node] = true;
        faults->aimed++;
    }
}

/* Bytes the origin may give: a stampede would be one copy per node. A zone that is cut off costs a
 * copy at most, and so do nodes that lose their links, and each hostile node: shunned by all that
 * met it, a liar reads what it pulls by itself; what another keeps to itself, others read. A node
 * that died or stopped takes along what it alone had; one whose disk is slow holds it back. */
double faults_copies_allowed(const struct faults *faults)
{
    const struct world_config *config = &faults->config;
    double copies = faults->zone_blobs ? config->zone_count : 1;
    copies += faults->cuts > 0 ? config->zone_count : 0;
    copies += faults->links > 0 ? config->zone_count : 0;
    copies += 0.15 * (faults->deaths + faults->leaves + faults->freezes + faults->aimed);
    copies += 0.3 * faults->slow_disks;
    return copies + faults->liars + faults->hostiles + 1;
}

/* One fault of a quiet time, at a node with an odd number; or a pull, at one with an even number,
 * which nothing may fail. */
static void draw_later(struct world *world, struct prng *prng, struct faults *faults)
{
    uint32_t half = faults->config.node_count / 2;
    uint32_t node = 2 * (uint32_t)prng_below(prng, half) + 1;
    uint32_t other = 2 * (uint32_t)prng_below(prng, half);
    uint64_t now_us = world_now_us(world), for_us = 1 + prng_below(prng, LATER_STEP_US / 2);
    uint64_t what = prng_below(prng, 4);
    faults->later += what > 0;
    if (what == 0 && world_node_up(world, other)) {
        (void)world_pull(world, other, (uint32_t)prng_below(prng, faults->blobs), now_us,
                         TRANSFER_READ_STREAM);
    } else if (what == 1) {
        world_kill_node(world, node, now_us);
        world_start_node(world, node, now_us + for_us, true);
    } else if (what == 2) {
        world_freeze_node(world, node, now_us, for_us);
    } else if (what == 3) {
        world_cut_link(world, node, other, true, now_us);
        world_cut_link(world, node, other, false, now_us + for_us);
    }
}

static void live_on(struct world *world, struct faults *faults, struct checkers_facts *facts)
{
    struct prng prng;
    uint64_t seed[2] = {faults->seed, 0x6c61746572};
    size_t first;
    (void)world_pulls(world, &first);
    prng_seed(&prng, (const uint8_t *)seed, sizeof seed);
    for (uint32_t i = 0; i < LATER_STEPS; i++) {
        draw_later(world, &prng, faults);
        (void)world_run(world, world_now_us(world) + LATER_STEP_US, false);
        world_check(world);
        checkers_look(world, faults->config.node_count, facts);
    }
    (void)world_run(world, world_now_us(world) + 40 * SECOND_US, false);
    facts->failed_again += checkers_bad_pulls(world, first);
}

void faults_play(struct world *world, struct faults *faults, struct faults_outcome *out, FILE *to)
{
    size_t first_pulls;
    uint32_t nodes = faults->config.node_count;
    *out = (struct faults_outcome){.seed = faults->seed};
    take_aim(world, faults, &out->facts);
    (void)run_checked(world, PULL_AT + FAULTS_US + 30 * SECOND_US, nodes, &out->facts);
    (void)run_checked(world, PULL_AT + 300 * SECOND_US, nodes, &out->facts);
    if (world_now_us(world) < faults->over_us + SECOND_US)
        (void)world_run(world, faults->over_us + SECOND_US, false);
    (void)world_pulls(world, &first_pulls);
    out->facts.stuck = retry(world, faults, to);
    out->facts.origin_copies = (double)world_totals(world)->origin_bytes / (double)faults->bytes;
    out->facts.origin_allowed = faults_copies_allowed(faults);
    bool far = 2 * faults->config.latency_zone_us >= CHECKERS_FAR_US;
    out->facts.uploads_allowed = far ? CHECKERS_UPLOADS_FAR : CHECKERS_UPLOADS;
    (void)world_run(world, world_now_us(world) + 40 * SECOND_US, false);
    (void)run_checked(world, world_now_us(world) + 300 * SECOND_US, nodes, &out->facts);
    out->facts.failed_again = checkers_bad_pulls(world, first_pulls);
    bool excused[FAULTS_NODES_MAX];
    for (uint32_t node = 0; node < FAULTS_NODES_MAX; node++)
        excused[node] = faults->died[node] || faults->forgets[node];
    checkers_gather(world, nodes, excused, &out->facts);
    struct checkers_facts storm = out->facts;
    live_on(world, faults, &out->facts);
    checkers_gather(world, nodes, excused, &out->facts);
    out->facts.control_bps = storm.control_bps; /* quiet would hide it */
    if (storm.agreeing != storm.live) {
        out->facts.agreeing = storm.agreeing;
        out->facts.live = storm.live;
    }
    out->bad = checkers_judge(&out->facts);
    out->fault_count = faults->deaths + faults->leaves + faults->freezes + faults->cuts +
                       faults->liars + faults->slow + faults->origin + faults->links +
                       faults->slow_cpus + faults->slow_disks + faults->disk_errors +
                       faults->hostiles + faults->aimed + faults->later;
    out->node_seconds = (double)world_now_us(world) / 1e6 * faults->config.node_count;
    (void)world_pulls(world, &out->pulls);
    out->lies = world_totals(world)->lies;
    out->trace_hash = world_trace_hash(world);
}
