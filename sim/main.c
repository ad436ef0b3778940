/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shoal-sim: one flash crowd in virtual time, from the command line. All nodes start cold, the
 * views settle, then every node pulls the image; the figures come out as one JSON object.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "report.h"
#include "world.h"

/* Virtual time for the views to settle before the pulls begin. */
#define SETTLE_US 30000000ULL
/* A pull that takes longer than this in virtual time counts as failed. */
#define PULL_LIMIT_US 3600000000ULL
#define MIB           (1024ULL * 1024)

struct options {
    uint64_t nodes, zones, mib, layers, mbit, origin_mbit, arrival_ms, loss_ppm, seed, trace;
    uint64_t one_hop, zone_mbit, conn_mbit, copies_per_zone, quantum_us;
};

struct option {
    const char *name;
    uint64_t *value;
    uint64_t min, max;
    const char *help;
};

static void usage(FILE *to, const struct option *table, size_t count)
{
    fprintf(
        to,
        "usage: shoal-sim run [--key N]...\n\n"
        "Simulates one flash crowd with the agent's own protocol code and prints its figures as "
        "JSON.\n\n");
    for (size_t i = 0; i < count; i++)
        fprintf(to, "  --%-12s %s (default %" PRIu64 ", %" PRIu64 "..%" PRIu64 ")\n", table[i].name,
                table[i].help, *table[i].value, table[i].min, table[i].max);
}

static int parse_one(const struct option *table, size_t count, const char *name, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].name, name) != 0)
            continue;
        char *end = NULL;
        errno = 0;
        unsigned long long value = text == NULL ? 0 : strtoull(text, &end, 10);
        if (text == NULL || end == text || *end != '\0' || errno != 0 || value < table[i].min ||
            value > table[i].max) {
            fprintf(stderr,
                    "shoal-sim: --%s takes a whole number from %" PRIu64 " to %" PRIu64 "\n", name,
                    table[i].min, table[i].max);
            return 2;
        }
        *table[i].value = value;
        return 0;
    }
    fprintf(stderr, "shoal-sim: unknown option --%s; see shoal-sim run --help\n", name);
    return 2;
}

static double wall_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run(const struct options *options)
{
    struct world_config config;
    world_config_defaults(&config);
    config.seed = options->seed;
    config.node_count = (uint32_t)options->nodes;
    config.zone_count = (uint32_t)options->zones;
    config.nic_bps = options->mbit * 125000;
    config.origin_bps = options->origin_mbit * 125000;
    config.loss_ppm = (uint32_t)options->loss_ppm;
    config.zone_bps = options->zone_mbit * 125000;
    config.origin_conn_bps = options->conn_mbit * 125000;
    config.flow_quantum_us = options->quantum_us;
    if (options->copies_per_zone != 0)
        config.mesh.transfer.copies = TRANSFER_COPIES_ZONE;
    config.trace_level = (enum log_level)options->trace;
    config.mesh.dht.one_hop = options->one_hop != 0;
    double start_s = wall_s();
    struct world *world = world_new(&config);
    if (world == NULL) {
        fprintf(stderr, "shoal-sim: out of memory for %u nodes\n", config.node_count);
        return 1;
    }
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&config.seed, sizeof config.seed);
    for (uint32_t node = 0; node < config.node_count; node++)
        world_start_node(world, node, prng_below(&prng, 2000000), false);
    for (uint64_t layer = 0; layer < options->layers; layer++)
        world_add_blob(world, options->mib * MIB / options->layers);
    for (uint32_t node = 0; node < config.node_count; node++) {
        uint64_t at_us = SETTLE_US + prng_below(&prng, options->arrival_ms * 1000 + 1);
        for (uint32_t layer = 0; layer < options->layers; layer++)
            world_pull(world, node, layer, at_us, TRANSFER_READ_STREAM);
    }
    (void)world_run(world, SETTLE_US + PULL_LIMIT_US, true);
    struct report report;
    report_make(world, &config, &report);
    report_json(&report, world, &config, wall_s() - start_s, stdout);
    world_free(world);
    return report.pulls_failed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct options options = {.nodes = 16,
                              .zones = 2,
                              .mib = 128,
                              .layers = 1,
                              .mbit = 1000,
                              .origin_mbit = 10000,
                              .arrival_ms = 1000,
                              .seed = 1,
                              .trace = LOG_ERROR,
                              .one_hop = 1};
    const struct option table[] = {
        {"seed", &options.seed, 0, UINT64_MAX, "seed of everything random"},
        {"nodes", &options.nodes, 1, 10000, "nodes"},
        {"zones", &options.zones, 1, 64, "zones, nodes dealt in turn"},
        {"mib", &options.mib, 1, 1 << 20, "image size in MiB"},
        {"layers", &options.layers, 1, WORLD_BLOBS_MAX, "layers of equal size"},
        {"mbit", &options.mbit, 1, 400000, "NIC rate, each direction, Mbit/s"},
        {"origin-mbit", &options.origin_mbit, 1, 4000000, "origin rate, Mbit/s"},
        {"conn-mbit", &options.conn_mbit, 0, 400000, "one origin connection, Mbit/s; 0: no limit"},
        {"zone-mbit", &options.zone_mbit, 0, 4000000, "a zone's border each way; 0: no limit"},
        {"zone-copies", &options.copies_per_zone, 0, 1, "one copy per zone, nothing across"},
        {"quantum-us", &options.quantum_us, 0, 100000, "flow rates are set at multiples of this"},
        {"arrival-ms", &options.arrival_ms, 0, 3600000, "pulls begin within this time"},
        {"loss-ppm", &options.loss_ppm, 0, 500000, "datagrams lost per million"},
        {"one-hop", &options.one_hop, 0, 1, "DHT lookups use the gossip view"},
        {"trace", &options.trace, LOG_NONE, LOG_TRACE,
         "log level of the nodes, 1 error .. 5 trace"},
    };
    const size_t count = sizeof table / sizeof table[0];
    if (argc < 2 || strcmp(argv[1], "run") != 0) {
        bool asked = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0);
        usage(asked ? stdout : stderr, table, count);
        return asked ? 0 : 2;
    }
    for (int i = 2; i < argc; i += 2) {
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout, table, count);
            return 0;
        }
        if (strncmp(argv[i], "--", 2) != 0) {
            fprintf(stderr, "shoal-sim: unexpected '%s'; see shoal-sim run --help\n", argv[i]);
            return 2;
        }
        int err = parse_one(table, count, argv[i] + 2, i + 1 < argc ? argv[i + 1] : NULL);
        if (err != 0)
            return err;
    }
    return run(&options);
}
