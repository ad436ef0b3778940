/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls under faults drawn from a seed (SECURITY-RELIABILITY §4, §6.1): loss, duplicates, delay,
 * slow and frozen nodes, liars, deaths, restarts, leaves, partitions, an origin that refuses, is
 * silent, busy or breaks off. First the faults, then quiet, in which all must come right. The
 * command `faults` and the test share it; the same seed gives the same run.
 */
#ifndef SHOAL_SIM_FAULTS_H
#define SHOAL_SIM_FAULTS_H

#include "checkers.h"
#include "world.h"

#define FAULTS_NODES_MAX 33

/* What a seed drew. */
struct faults {
    uint64_t seed;
    struct world_config config;
    bool died[FAULTS_NODES_MAX]; /* at least once */
    uint32_t deaths, restarts, leaves, freezes, cuts, liars, slow, blobs;
    uint64_t bytes; /* of all blobs */
    bool origin;    /* it failed in some way */
    uint32_t how;   /* enum world_origin */
};

/* What came of one seed. Plain data: it goes through a pipe. */
struct faults_outcome {
    uint64_t seed;
    struct checkers_facts facts;
    uint32_t bad; /* bits of enum checker */
    uint32_t fault_count;
    uint64_t pulls, lies, trace_hash;
    double node_seconds;
};

/* Draws world, pulls and faults and puts them into a world (the caller's to free). NULL when memory
 * is out. */
struct world *faults_prepare(uint64_t seed, struct faults *out);
/* One line with seed and options. */
void faults_print(const struct faults *faults, FILE *to);
/* Plays it to the end and judges. Details of pulls that went wrong go to `to`. */
void faults_play(struct world *world, const struct faults *faults, struct faults_outcome *out,
                 FILE *to);
/* Bytes the origin may give, in copies of all blobs. */
double faults_copies_allowed(const struct faults *faults);

/* `shoal-sim faults`. argv[1] is "faults". Exit code: 0 all seeds are well, 1 not, 2 usage. */
int faults_command(int argc, char **argv);

#endif
