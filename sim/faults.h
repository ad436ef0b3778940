/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls under faults drawn from a seed (SECURITY-RELIABILITY §4, §6.1): loss, duplicates, delay,
 * reordering, nodes that are slow in their card, processor or disk, stop for a while, or whose disk
 * fails; hostile ones; deaths, restarts, leaves, some aimed at those who keep or have leases;
 * partitions of zones and of single links, one way and both, healed link by link; clocks that
 * differ; an origin that refuses, is silent, busy or breaks off. First the faults, then quiet, in
 * which all must come right; then a quarter of an hour of life with now and then a fault, and quiet
 * again. The command `faults` and the test share it; the same seed gives the
 * same run.
 */
#ifndef SHOAL_SIM_FAULTS_H
#define SHOAL_SIM_FAULTS_H

#include "checkers.h"
#include "world.h"

#define FAULTS_NODES_MAX 33
/* Aimed deaths of one seed. */
#define FAULTS_AIMS_MAX 4

/* What a seed drew. */
struct faults {
    uint64_t seed;
    struct world_config config;
    bool died[FAULTS_NODES_MAX];        /* at least once */
    bool forgets[FAULTS_NODES_MAX];     /* its disk may lose what it had */
    uint32_t hostile[FAULTS_NODES_MAX]; /* bits of enum world_hostile */
    uint32_t deaths, restarts, leaves, freezes, cuts, liars, slow, blobs;
    uint32_t links, slow_cpus, slow_disks, disk_errors, hostiles; /* hostile but no liars */
    struct {
        uint64_t at_us;
        enum world_aim aim;
    } aims[FAULTS_AIMS_MAX];   /* by time */
    uint32_t aim_count, aimed; /* deaths drawn, and those that found somebody */
    uint32_t later;            /* faults of the time after the storm */
    uint64_t bytes;            /* of all blobs */
    bool zone_blobs;           /* some, or all, come once for each zone */
    uint64_t over_us;          /* no fault goes on after this, but for hostile nodes */
    bool origin;               /* it failed in some way */
    uint32_t how;              /* enum world_origin */
};

/* What came of one seed. Plain data: it goes through a pipe. */
struct faults_outcome {
    uint64_t seed;
    struct checkers_facts facts;
    uint32_t bad; /* bits of enum checker */
    uint32_t fault_count;
    size_t pulls;
    uint64_t lies, trace_hash;
    double node_seconds;
};

/* Draws world, pulls and faults and puts them into a world (the caller's to free), in which the
 * planted bug is. NULL when memory is out. */
struct world *faults_prepare(uint64_t seed, enum world_plant plant, struct faults *out);
/* One line with seed and options. */
void faults_print(const struct faults *faults, FILE *to);
/* Plays it to the end and judges. Details of pulls that went wrong go to `to`. */
void faults_play(struct world *world, struct faults *faults, struct faults_outcome *out, FILE *to);
/* Bytes the origin may give, in copies of all blobs. */
double faults_copies_allowed(const struct faults *faults);

/* `shoal-sim faults`. argv[1] is "faults". Exit code: 0 all seeds are well, 1 not, 2 usage. */
int faults_command(int argc, char **argv);

#endif
