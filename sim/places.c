/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things stand: zones, vSwitches and regions of nodes, how far two of them are apart, and the
 * links that bytes between them cross.
 *
 * Links of the flow network, in order: each node's up and down; the origin's; the borders' total;
 * each zone's out and in; each vSwitch's up and down. Those without a limit carry no flows, so they
 * cost nothing.
 */
#include "host.h"
#include "log.h"

enum { SIDE_OUT, SIDE_IN };

/* A link counts as full with less than one part in so many to spare. */
#define FULL_PART 16
/* Bytes per second that a hostile node lets out of a piece (P-3). */
#define DRIP_BPS 1000

uint32_t world__link_up(uint32_t node)
{
    return 2 * node;
}

uint32_t world__link_down(uint32_t node)
{
    return 2 * node + 1;
}

static uint32_t link_origin(const struct world *world)
{
    return 2 * world->config.node_count;
}

static uint32_t link_cross(const struct world *world)
{
    return link_origin(world) + 1;
}

static uint32_t link_zone(const struct world *world, uint32_t zone, unsigned side)
{
    return link_cross(world) + 1 + 2 * zone + side;
}

static uint32_t link_vswitch(const struct world *world, uint32_t vswitch, unsigned side)
{
    return link_zone(world, world->config.zone_count, 0) + 2 * vswitch + side;
}

static uint32_t vswitches_per_zone(const struct world_config *config)
{
    return config->vswitch_count == 0 ? 1 : config->vswitch_count;
}

void places_of(const struct world *world, uint32_t node, struct place *out)
{
    const struct world_config *config = &world->config;
    uint32_t each = vswitches_per_zone(config);
    uint32_t regions = config->region_count == 0 ? 1 : config->region_count;
    uint32_t in_zone = node / config->zone_count;
    out->zone = node % config->zone_count;
    if (config->zone_nodes[0] > 0) {
        in_zone = node;
        for (out->zone = 0; in_zone >= config->zone_nodes[out->zone]; out->zone++)
            in_zone -= config->zone_nodes[out->zone];
    }
    ASSERT(out->zone < config->zone_count);
    out->region = out->zone % regions;
    out->vswitch = out->zone * each + in_zone % each;
}

enum distance world__distance(const struct world *world, uint32_t a, uint32_t b)
{
    const struct place *one = &world->places[a], *two = &world->places[b];
    if (one->vswitch == two->vswitch)
        return DISTANCE_VSWITCH;
    if (one->zone == two->zone)
        return DISTANCE_ZONE;
    return one->region == two->region ? DISTANCE_REGION : DISTANCE_ELSEWHERE;
}

/* ---- latency ---- */

static void set_latency(struct world *world)
{
    const struct world_config *config = &world->config;
    uint64_t near_us = config->latency_vswitch_us, far_us = config->latency_region_us;
    world->latency_us[DISTANCE_VSWITCH] = near_us != 0 ? near_us : config->latency_zone_us;
    world->latency_us[DISTANCE_ZONE] = config->latency_zone_us;
    world->latency_us[DISTANCE_REGION] = config->latency_cross_us;
    world->latency_us[DISTANCE_ELSEWHERE] = far_us != 0 ? far_us : config->latency_cross_us;
}

uint64_t world__base_latency_us(const struct world *world, uint32_t a, uint32_t b)
{
    return world->latency_us[world__distance(world, a, b)];
}

/* TCP fills the queue of a link that binds, and leaves that of one with room to spare empty. */
static uint64_t wait_us(const struct world *world, uint32_t link)
{
    const struct flow_link *at = &world->flows.links[link];
    return at->used_bps >= at->rate_bps - at->rate_bps / FULL_PART ? world->config.queue_us : 0;
}

uint64_t world__queue_us(const struct world *world, uint32_t from, uint32_t to)
{
    if (world->config.queue_us == 0)
        return 0;
    uint64_t out_us = to == WORLD_ORIGIN ? 0 : wait_us(world, world__link_down(to));
    uint32_t link = from == WORLD_ORIGIN ? link_origin(world) : world__link_up(from);
    return out_us + wait_us(world, link);
}

uint64_t world__latency_us(struct world *world, uint32_t a, uint32_t b)
{
    uint64_t base_us = world__base_latency_us(world, a, b);
    uint64_t spread_us = base_us * world->config.jitter_percent / 100;
    base_us += world__queue_us(world, a, b);
    return base_us + (spread_us > 0 ? prng_below(&world->prng, spread_us) : 0);
}

/* ---- links ---- */

static void set_if(struct world *world, uint32_t link, uint64_t rate_bps)
{
    if (rate_bps > 0)
        flows_set_link(&world->flows, link, rate_bps, world->now_us);
}

void places_init(struct world *world)
{
    const struct world_config *config = &world->config;
    uint32_t vswitches = config->zone_count * vswitches_per_zone(config);
    flows_init(&world->flows, &world->events, link_vswitch(world, vswitches, SIDE_OUT));
    set_latency(world);
    set_if(world, link_origin(world), config->origin_bps);
    set_if(world, link_cross(world), config->cross_bps);
    for (uint32_t zone = 0; zone < config->zone_count; zone++) {
        set_if(world, link_zone(world, zone, SIDE_OUT), config->zone_bps);
        set_if(world, link_zone(world, zone, SIDE_IN), config->zone_bps);
    }
    for (uint32_t vswitch = 0; vswitch < vswitches; vswitch++) {
        set_if(world, link_vswitch(world, vswitch, SIDE_OUT), config->vswitch_bps);
        set_if(world, link_vswitch(world, vswitch, SIDE_IN), config->vswitch_bps);
    }
}

void places_set_nic(struct world *world, uint32_t index, uint64_t up_bps, uint64_t down_bps)
{
    struct sim_node *node = &world->nodes[index];
    node->up_bps = up_bps;
    node->down_bps = down_bps;
    flows_set_link(&world->flows, world__link_up(index), up_bps, world->now_us);
    flows_set_link(&world->flows, world__link_down(index), down_bps, world->now_us);
}

void places_set_origin(struct world *world, uint64_t origin_bps)
{
    world->config.origin_bps = origin_bps;
    flows_set_link(&world->flows, link_origin(world), origin_bps, world->now_us);
}

static void cross(struct flow_plan *plan, uint32_t link)
{
    ASSERT(plan->link_count < FLOW_LINKS_MAX);
    plan->links[plan->link_count++] = link;
}

static void plan_origin(const struct world *world, uint32_t to, struct flow_plan *out)
{
    const struct world_config *config = &world->config;
    const struct place *place = &world->places[to];
    cross(out, link_origin(world));
    out->limit_bps = config->origin_conn_bps;
    if (config->origin_over_border && config->zone_bps > 0)
        cross(out, link_zone(world, place->zone, SIDE_IN));
    if (config->vswitch_bps > 0)
        cross(out, link_vswitch(world, place->vswitch, SIDE_IN));
}

void world__plan_flow(const struct world *world, uint32_t from, uint32_t to, struct flow_plan *out)
{
    const struct world_config *config = &world->config;
    *out = (struct flow_plan){.links = {world__link_down(to)}, .link_count = 1};
    if (from == WORLD_ORIGIN) {
        plan_origin(world, to, out);
        return;
    }
    cross(out, world__link_up(from));
    if ((world->nodes[from].hostile & WORLD_DRIPS) != 0)
        out->limit_bps = DRIP_BPS;
    const struct place *here = &world->places[from], *there = &world->places[to];
    if (config->vswitch_bps > 0 && here->vswitch != there->vswitch) {
        cross(out, link_vswitch(world, here->vswitch, SIDE_OUT));
        cross(out, link_vswitch(world, there->vswitch, SIDE_IN));
    }
    if (here->zone == there->zone)
        return;
    if (config->zone_bps > 0) {
        cross(out, link_zone(world, here->zone, SIDE_OUT));
        cross(out, link_zone(world, there->zone, SIDE_IN));
    }
    if (config->cross_bps > 0)
        cross(out, link_cross(world));
}
