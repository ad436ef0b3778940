/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look ahead at the events of the next microseconds: what they will read is asked of memory while
 * others are dealt with. Thousands of nodes do not fit the processor's cache, so that each event
 * finds its node outside. Nothing is changed, and nothing depends on it but time.
 *
 * Each of the next few moments that have events is one step further on its way than the one behind
 * it: what a step asks for tells the next one where to go on.
 */
#include "host.h"

/* Worlds of fewer nodes fit the cache: there it would be a tenth more instructions for nothing. */
#define NODES_MIN 200

static void ask(const void *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)from + at);
}

static void ask_node(const struct world *world, uint32_t node)
{
    ask(&world->nodes[node], offsetof(struct sim_node, up_bps));
    __builtin_prefetch(&world->nodes[node].bytes.control_sent);
}

/* What carries the event's bytes; NULL if none does, or it is not known yet. */
static const struct bulk *bulk_of(const struct world *world, const struct event *event,
                                  unsigned step)
{
    if (event->kind == EVENT_START || event->kind == EVENT_PROGRESS ||
        event->kind == EVENT_VERIFIED)
        return &world->bulks[event->other];
    if (event->kind != EVENT_FLOW || step == 0)
        return NULL;
    return &world->bulks[world->flows.items[event->other].user];
}

/* Memory of the world itself. */
static void first_step(const struct world *world, const struct event *event)
{
    const struct bulk *bulk = bulk_of(world, event, 0);
    if (bulk != NULL)
        ask(bulk, sizeof *bulk);
    if (event->kind == EVENT_FLOW)
        ask(&world->flows.items[event->other], sizeof(struct flow));
    else
        ask_node(world, event->node);
    if (event->kind == EVENT_DATAGRAM) {
        ask(event->bytes, event->byte_count);
        __builtin_prefetch(&world->nodes[event->other].id);
    }
}

/* The second and third of a flow, which leads to its bytes, and these to both ends. */
static void flow_step(const struct world *world, const struct bulk *bulk, unsigned step)
{
    if (step == 1) {
        ask(bulk, sizeof *bulk);
        return;
    }
    ask_node(world, bulk->to);
    if (bulk->from != WORLD_ORIGIN)
        ask_node(world, bulk->from);
}

static void mesh_step(const struct world *world, uint32_t node, unsigned step, uint32_t from)
{
    const struct mesh *mesh = world->nodes[node].mesh;
    if (mesh != NULL)
        mesh_look_ahead(mesh, step, from < INDEX_NONE ? &world->nodes[from].id : NULL);
}

static void take_step(const struct world *world, const struct event *event, unsigned step)
{
    const struct bulk *bulk = bulk_of(world, event, step);
    if (step == 0) {
        first_step(world, event);
    } else if (bulk == NULL) {
        mesh_step(world, event->node, step - 1,
                  event->kind == EVENT_DATAGRAM ? event->other : INDEX_NONE);
    } else if (event->kind != EVENT_FLOW) {
        uint32_t from = bulk->from == WORLD_ORIGIN ? INDEX_NONE : bulk->from;
        mesh_step(world, event->node, step - 1, from);
    } else if (step < 3) {
        flow_step(world, bulk, step);
    } else {
        uint32_t from = bulk->from == WORLD_ORIGIN ? INDEX_NONE : bulk->from;
        mesh_step(world, bulk->to, step - 3, from);
        if (from != INDEX_NONE)
            mesh_step(world, from, step - 3, INDEX_NONE);
    }
}

/* Not those that are rare, nor the world's own, which name no node. */
static bool is_common(const struct event *event)
{
    return event->kind == EVENT_DATAGRAM || event->kind == EVENT_TIMER ||
           event->kind == EVENT_FLOW || event->kind == EVENT_START ||
           event->kind == EVENT_PROGRESS || event->kind == EVENT_VERIFIED;
}

/* Moments that have come go, others take their places. */
static void move_on(struct world *world)
{
    struct look_ahead *ahead = &world->ahead;
    unsigned gone = 0, kept = 0;
    while (gone <= LOOK_AHEAD_STEPS && ahead->at_us[gone] <= world->now_us)
        gone++;
    for (; gone <= LOOK_AHEAD_STEPS && ahead->at_us[gone] != UINT64_MAX; gone++)
        ahead->at_us[kept++] = ahead->at_us[gone];
    uint64_t last_us = kept == 0 ? world->now_us : ahead->at_us[kept - 1];
    for (; kept <= LOOK_AHEAD_STEPS; kept++) {
        if (last_us != UINT64_MAX)
            last_us = events_after_us(&world->events, last_us);
        ahead->at_us[kept] = last_us;
    }
    ahead->scout = events_at(&world->events, last_us);
    if (ahead->scout != EVENT_NONE)
        __builtin_prefetch(&world->events.slots[ahead->scout]);
}

/* The events of a list lie anywhere in memory, and each tells where the next one is: one step with
 * each event that is dealt with, so that nobody waits. Where it gets to by events that are gone
 * meanwhile does not matter. */
static void scout(struct world *world)
{
    struct look_ahead *ahead = &world->ahead;
    if (ahead->scout == EVENT_NONE)
        return;
    ahead->scout = world->events.slots[ahead->scout].next;
    if (ahead->scout != EVENT_NONE)
        __builtin_prefetch(&world->events.slots[ahead->scout]);
}

void look_ahead(struct world *world)
{
    struct look_ahead *ahead = &world->ahead;
    if (world->config.node_count < NODES_MIN)
        return;
    scout(world);
    if (world->now_us == ahead->now_us)
        return;
    ahead->now_us = world->now_us;
    if (ahead->at_us[0] > world->now_us && ahead->at_us[0] != UINT64_MAX)
        return; /* came meanwhile, before those that are known */
    move_on(world);
    for (unsigned i = 0; i < LOOK_AHEAD_STEPS; i++) {
        uint32_t slot = events_at(&world->events, ahead->at_us[i]);
        for (; slot != EVENT_NONE; slot = world->events.slots[slot].next) {
            if (is_common(&world->events.slots[slot].event))
                take_step(world, &world->events.slots[slot].event, LOOK_AHEAD_STEPS - 1 - i);
        }
    }
}
