/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of a scenario that is played share (scenario_run.c, scenario_faults.c).
 */
#ifndef SHOAL_SIM_SCENARIO_DRIVE_H
#define SHOAL_SIM_SCENARIO_DRIVE_H

#include "bytes.h"
#include "scenario.h"

#define SECOND_US 1000000ULL

struct client;

enum action_kind {
    ACTION_RETRY = 1, /* a node is back: its clients pull again what failed */
    ACTION_LOSS,
    ACTION_LIAR,
    ACTION_AIM, /* a fault that looks for its nodes */
};

/* What a fault does to a node for good. */
enum fate {
    FATE_LIVES = 0,
    FATE_RETURNS, /* it dies, and its clients pull again when it is back */
    FATE_GONE,
};

/* What cannot be told to the world before its time. */
struct action {
    uint64_t at_us;
    uint64_t value;
    uint32_t kind, node;
    size_t order;
};

/* A scenario being played in its world. */
struct drive {
    const struct scenario *scenario;
    struct world *world;
    struct prng prng;
    uint64_t zero_us; /* the first arrival can be */
    uint64_t end_us;
    uint32_t first_blob[SCENARIO_IMAGES_MAX];
    uint16_t *images_of; /* owned, by node: bit per image it pulls */
    bool *late;          /* owned, by node: joins during the run */
    uint8_t *fates;      /* owned, by node: enum fate */
    uint32_t *nodes;     /* owned: nodes that arrive, in their order */
    uint32_t node_count, nodes_arrived;
    struct client *clients; /* owned */
    size_t client_count, client_capacity, waiting;
    uint32_t *layer_pulls; /* owned */
    size_t layer_count, layer_capacity;
    struct action *actions; /* owned, by time once the run begins */
    size_t action_count, action_capacity, action_next;
    bool plays; /* the run has begun */
};

/* ---- scenario_run.c ---- */

/* Also while it runs: those that are still to come stay in their order. */
void drive_add_action(struct drive *drive, struct action action);
/* A client comes to a node, by the images that it pulls, at this time of the world. */
void drive_arrive(struct drive *drive, uint32_t node, uint64_t at_us);
void drive_shuffle(struct prng *prng, uint32_t *items, uint32_t count);

/* ---- scenario_faults.c ---- */

/* All faults of the scenario, before it begins. */
void drive_plan_faults(struct drive *drive);
/* The fault is for as many of those that its aim is true of now. */
void drive_take_aim(struct drive *drive, const struct scenario_fault *fault);

#endif
