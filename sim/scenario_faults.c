/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The faults of a scenario: which nodes they are for, when, and what is told to the world ahead or
 * planned as an action for its moment.
 */
#include <math.h>
#include <stdlib.h>

#include "log.h"
#include "scenario_drive.h"

/* A node that joins or comes back pulls so much later: its agent has to meet the others. A guess.
 */
#define JOIN_US  (2 * SECOND_US)
#define RETRY_US (1 * SECOND_US)
/* Deaths that churn may plan. */
#define CHURN_MAX 1000000

/* The nodes a fault is for, `count` of them; the caller frees the array. */
static uint32_t *pick_nodes(struct drive *drive, const struct scenario_fault *fault,
                            uint32_t *count)
{
    uint32_t all = drive->scenario->world.node_count;
    uint64_t wanted = fault->nodes & ~SCENARIO_SHARE_BIT;
    uint32_t *nodes = calloc(all, sizeof *nodes);
    ASSERT(nodes != NULL);
    if (fault->node != SCENARIO_NO_NODE) {
        nodes[0] = (uint32_t)fault->node;
        *count = 1;
        return nodes;
    }
    if ((fault->nodes & SCENARIO_SHARE_BIT) != 0)
        wanted = (wanted * all + 999999) / 1000000;
    for (uint32_t i = 0; i < all; i++)
        nodes[i] = i;
    drive_shuffle(&drive->prng, nodes, all);
    *count = (uint32_t)(wanted < all ? wanted : all);
    return nodes;
}

static void plan_restart(struct drive *drive, const struct scenario_fault *fault, uint32_t node,
                         uint64_t at_us)
{
    uint64_t back_us = at_us + fault->down_us;
    if (drive->fates[node] == FATE_GONE)
        return;
    if (drive->fates[node] == FATE_LIVES)
        drive->fates[node] = FATE_RETURNS;
    world_kill_node(drive->world, node, at_us);
    world_start_node(drive->world, node, back_us, fault->keep_cache);
    drive_add_action(
        drive, (struct action){.at_us = back_us + RETRY_US, .kind = ACTION_RETRY, .node = node});
}

static void plan_slow(struct drive *drive, const struct scenario_fault *fault, uint32_t node,
                      uint64_t at_us)
{
    const struct world_config *config = &drive->scenario->world;
    uint64_t down_bps = config->nic_down_bps > 0 ? config->nic_down_bps : config->nic_bps;
    world_set_nic(drive->world, node, config->nic_bps * 1000 / fault->divisor_milli + 1,
                  down_bps * 1000 / fault->divisor_milli + 1, at_us);
    if (fault->for_us > 0)
        world_set_nic(drive->world, node, 0, 0, at_us + fault->for_us);
}

/* A trait for a while. */
static void plan_trait(struct drive *drive, const struct scenario_fault *fault, uint32_t node,
                       uint64_t at_us, enum world_trait trait, const uint64_t values[2])
{
    world_set_trait(drive->world, node, trait, values[0], at_us);
    if (fault->for_us > 0)
        world_set_trait(drive->world, node, trait, values[1], at_us + fault->for_us);
}

static void plan_disk(struct drive *drive, const struct scenario_fault *fault, uint32_t node,
                      uint64_t at_us)
{
    if (fault->error != WORLD_DISK_WELL)
        plan_trait(drive, fault, node, at_us, WORLD_TRAIT_DISK,
                   (const uint64_t[2]){fault->error, WORLD_DISK_WELL});
    if (fault->wait_us > 0)
        plan_trait(drive, fault, node, at_us, WORLD_TRAIT_DISK_WAIT_US,
                   (const uint64_t[2]){fault->wait_us, 0});
}

/* Each link comes back at a moment of the second half. */
static void plan_isolate(struct drive *drive, const struct scenario_fault *fault, uint32_t node,
                         uint64_t at_us)
{
    for (uint32_t other = 0; other < drive->scenario->world.node_count; other++) {
        for (int way = 0; other != node && way < (fault->one_way ? 1 : 2); way++) {
            uint32_t from = way == 0 ? node : other, to = way == 0 ? other : node;
            world_cut_link(drive->world, from, to, true, at_us);
            if (fault->for_us > 0)
                world_cut_link(drive->world, from, to, false,
                               at_us + fault->for_us - prng_below(&drive->prng, fault->for_us / 2));
        }
    }
}

/* Faults of the machine; false: it is of another kind. */
static bool plan_machine_fault(struct drive *drive, const struct scenario_fault *fault,
                               uint32_t node, uint64_t at_us)
{
    switch ((enum scenario_fault_kind)fault->kind) {
    case FAULT_HOSTILE:
        plan_trait(drive, fault, node, at_us, WORLD_TRAIT_HOSTILE,
                   (const uint64_t[2]){1ULL << (fault->acts - 1), 0});
        return true;
    case FAULT_CPU:
        plan_trait(drive, fault, node, at_us, WORLD_TRAIT_CPU_MILLI,
                   (const uint64_t[2]){fault->divisor_milli, 1000});
        return true;
    case FAULT_DISK:
        plan_disk(drive, fault, node, at_us);
        return true;
    case FAULT_ISOLATE:
        plan_isolate(drive, fault, node, at_us);
        return true;
    default:
        return false;
    }
}

static void plan_node_fault(struct drive *drive, const struct scenario_fault *fault, uint32_t node,
                            uint64_t at_us)
{
    if (plan_machine_fault(drive, fault, node, at_us))
        return;
    switch ((enum scenario_fault_kind)fault->kind) {
    case FAULT_KILL:
        drive->fates[node] = FATE_GONE;
        world_kill_node(drive->world, node, at_us);
        break;
    case FAULT_RESTART:
        plan_restart(drive, fault, node, at_us);
        break;
    case FAULT_LEAVE:
        drive->fates[node] = FATE_GONE;
        world_leave_node(drive->world, node, at_us);
        break;
    case FAULT_JOIN:
        if (!drive->late[node]) {
            world_start_node(drive->world, node, at_us, false);
            drive_arrive(drive, node, at_us + JOIN_US);
        }
        drive->late[node] = true;
        break;
    case FAULT_FREEZE:
        world_freeze_node(drive->world, node, at_us,
                          fault->for_us > 0 ? fault->for_us : drive->scenario->limit_us);
        break;
    case FAULT_SLOW:
        plan_slow(drive, fault, node, at_us);
        break;
    case FAULT_LIAR:
        drive_add_action(drive, (struct action){.at_us = at_us, .kind = ACTION_LIAR, .node = node});
        break;
    default:
        break;
    }
}

static void plan_partition(struct drive *drive, const struct scenario_fault *fault, uint64_t at_us)
{
    uint32_t from = (uint32_t)fault->zone, to = (uint32_t)fault->to_zone;
    for (int way = 0; way < (fault->one_way ? 1 : 2); way++) {
        world_cut_zones(drive->world, way == 0 ? from : to, way == 0 ? to : from, true, at_us);
        if (fault->for_us > 0)
            world_cut_zones(drive->world, way == 0 ? from : to, way == 0 ? to : from, false,
                            at_us + fault->for_us);
    }
}

static void plan_outage(struct drive *drive, const struct scenario_fault *fault, uint64_t at_us)
{
    static const enum world_origin how[] = {[OUTAGE_REFUSE] = WORLD_ORIGIN_REFUSES,
                                            [OUTAGE_SILENT] = WORLD_ORIGIN_SILENT,
                                            [OUTAGE_BUSY] = WORLD_ORIGIN_BUSY,
                                            [OUTAGE_CUT] = WORLD_ORIGIN_CUT};
    if (fault->how == OUTAGE_SLOW) {
        world_set_origin_rate(drive->world, fault->rate_bps, fault->first_byte_us, at_us);
        if (fault->for_us > 0)
            world_set_origin_rate(drive->world, 0, 0, at_us + fault->for_us);
        return;
    }
    world_set_origin(drive->world, how[fault->how], at_us);
    if (fault->for_us > 0)
        world_set_origin(drive->world, WORLD_ORIGIN_UP, at_us + fault->for_us);
}

/* Deaths at random moments, each node equally often. */
static void plan_churn(struct drive *drive, const struct scenario_fault *fault, uint64_t at_us)
{
    uint32_t nodes = drive->scenario->world.node_count;
    uint64_t for_us = fault->for_us > 0 ? fault->for_us : drive->scenario->limit_us;
    double deaths = (double)nodes * (double)fault->per_minute_ppm / 1e6 * (double)for_us / 60e6;
    uint64_t count = deaths < CHURN_MAX ? (uint64_t)(deaths + 0.5) : CHURN_MAX;
    for (uint64_t i = 0; i < count; i++)
        plan_restart(drive, fault, (uint32_t)prng_below(&drive->prng, nodes),
                     at_us + prng_below(&drive->prng, for_us));
}

static void plan_fault(struct drive *drive, const struct scenario_fault *fault)
{
    uint64_t at_us = drive->zero_us + fault->at_us;
    uint32_t count = 0, *nodes;
    switch ((enum scenario_fault_kind)fault->kind) {
    case FAULT_PARTITION:
        plan_partition(drive, fault, at_us);
        return;
    case FAULT_OUTAGE:
        plan_outage(drive, fault, at_us);
        return;
    case FAULT_CHURN:
        plan_churn(drive, fault, at_us);
        return;
    case FAULT_LOSS:
        drive_add_action(
            drive, (struct action){.at_us = at_us, .kind = ACTION_LOSS, .value = fault->loss_ppm});
        if (fault->for_us > 0)
            drive_add_action(drive, (struct action){.at_us = at_us + fault->for_us,
                                                    .kind = ACTION_LOSS,
                                                    .value = drive->scenario->world.loss_ppm});
        return;
    default:
        if (fault->aim != 0) {
            drive_add_action(drive,
                             (struct action){.at_us = at_us,
                                             .kind = ACTION_AIM,
                                             .value = (uint64_t)(fault - drive->scenario->faults)});
            return;
        }
        nodes = pick_nodes(drive, fault, &count);
        for (uint32_t i = 0; i < count; i++)
            plan_node_fault(drive, fault, nodes[i], at_us);
        free(nodes);
        return;
    }
}

static bool is_for_good(const struct scenario_fault *fault)
{
    return fault->kind == FAULT_KILL || fault->kind == FAULT_LEAVE;
}

void drive_plan_faults(struct drive *drive)
{
    const struct scenario *scenario = drive->scenario;
    const struct scenario_fault slow = {.kind = FAULT_SLOW,
                                        .nodes = scenario->slow_ppm | SCENARIO_SHARE_BIT,
                                        .node = SCENARIO_NO_NODE,
                                        .divisor_milli = scenario->slow_divisor_milli};
    uint32_t count = 0;
    uint32_t *nodes = scenario->slow_ppm > 0 ? pick_nodes(drive, &slow, &count) : NULL;
    for (uint32_t i = 0; i < count; i++)
        plan_slow(drive, &slow, nodes[i], 0);
    free(nodes);
    /* Who goes for good first: nobody comes back after that. */
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < scenario->fault_count; i++)
            if (is_for_good(&scenario->faults[i]) == (round == 0))
                plan_fault(drive, &scenario->faults[i]);
    }
    for (uint32_t i = 0; i < scenario->outage_count; i++)
        plan_fault(drive, &scenario->outages[i]);
}

void drive_take_aim(struct drive *drive, const struct scenario_fault *fault)
{
    uint32_t count, *nodes = pick_nodes(drive, fault, &count);
    count = world_aim(drive->world, (enum world_aim)fault->aim, nodes, count);
    for (uint32_t i = 0; i < count; i++)
        plan_node_fault(drive, fault, nodes[i], world_now_us(drive->world));
    free(nodes);
}
