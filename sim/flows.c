/* SPDX-License-Identifier: Apache-2.0 */
/* Flow-level links; see flows.h. */
#include "flows.h"

#include <stdlib.h>

#include "log.h"
#include "world.h"

static void list_add(struct flow_list *list, uint32_t item)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 8 : list->capacity * 2;
        list->items = realloc(list->items, list->capacity * sizeof *list->items);
        ASSERT(list->items != NULL);
    }
    list->items[list->count++] = item;
}

/* Keeps the order of the rest, so that a replay sees the same order. */
static void list_remove(struct flow_list *list, uint32_t item)
{
    uint32_t i = 0;
    while (i < list->count && list->items[i] != item)
        i++;
    ASSERT(i < list->count);
    for (; i + 1 < list->count; i++)
        list->items[i] = list->items[i + 1];
    list->count--;
}

void flows_init(struct flows *flows, struct event_queue *events, uint32_t node_count)
{
    *flows = (struct flows){.events = events};
    flows->up = calloc(node_count, sizeof *flows->up);
    flows->down = calloc(node_count, sizeof *flows->down);
    ASSERT(flows->up != NULL && flows->down != NULL);
    flows->capacity = node_count;
}

void flows_close(struct flows *flows)
{
    for (uint32_t i = 0; i < flows->capacity; i++) {
        free(flows->up[i].flows.items);
        free(flows->down[i].flows.items);
    }
    free(flows->origin.flows.items);
    free(flows->up);
    free(flows->down);
    free(flows->items);
    free(flows->free_items);
    *flows = (struct flows){0};
}

static struct flow_end *source_of(struct flows *flows, const struct flow *flow)
{
    return flow->from == WORLD_ORIGIN ? &flows->origin : &flows->up[flow->from];
}

static uint64_t share_of(const struct flow_end *end)
{
    uint64_t share = end->flows.count == 0 ? end->rate_bps : end->rate_bps / end->flows.count;
    if (end->per_flow_bps > 0 && share > end->per_flow_bps)
        share = end->per_flow_bps;
    return share == 0 ? 1 : share;
}

static void settle(struct flow *flow, uint64_t now_us)
{
    uint64_t moved = (now_us - flow->updated_us) * flow->rate_bps / 1000000;
    flow->left_bytes -= moved < flow->left_bytes ? moved : flow->left_bytes;
    flow->updated_us = now_us;
}

static void reschedule(struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    uint64_t up = share_of(source_of(flows, flow));
    uint64_t down = share_of(&flows->down[flow->to]);
    uint64_t rate = up < down ? up : down;
    if (rate == flow->rate_bps)
        return;
    settle(flow, now_us);
    flow->rate_bps = rate;
    flow->version++;
    uint64_t wait_us = (flow->left_bytes * 1000000 + rate - 1) / rate;
    events_push(flows->events, (struct event){.at_us = now_us + wait_us,
                                              .kind = EVENT_FLOW,
                                              .node = flow->to,
                                              .other = index,
                                              .version = flow->version});
}

static void reschedule_end(struct flows *flows, struct flow_end *end, uint64_t now_us)
{
    for (uint32_t i = 0; i < end->flows.count; i++)
        reschedule(flows, end->flows.items[i], now_us);
}

uint32_t flows_add(struct flows *flows, const struct flow *flow)
{
    if (flows->free_count == 0) {
        uint32_t more = flows->count == 0 ? 1024 : flows->count;
        flows->items = realloc(flows->items, (flows->count + more) * sizeof *flows->items);
        flows->free_items =
            realloc(flows->free_items, (flows->count + more) * sizeof *flows->free_items);
        ASSERT(flows->items != NULL && flows->free_items != NULL);
        for (uint32_t i = 0; i < more; i++) {
            flows->items[flows->count + i] = (struct flow){0};
            flows->free_items[flows->free_count++] = flows->count + more - 1 - i;
        }
        flows->count += more;
    }
    uint32_t index = flows->free_items[--flows->free_count];
    uint64_t version = flows->items[index].version + 1;
    flows->items[index] = *flow;
    flows->items[index].version = version;
    flows->items[index].flowing = false;
    return index;
}

void flows_begin(struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    ASSERT(flow->kind != FLOW_FREE && !flow->flowing);
    flow->flowing = true;
    flow->updated_us = now_us;
    flow->rate_bps = 0;
    list_add(&source_of(flows, flow)->flows, index);
    list_add(&flows->down[flow->to].flows, index);
    reschedule_end(flows, source_of(flows, flow), now_us);
    reschedule_end(flows, &flows->down[flow->to], now_us);
}

void flows_remove(struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    ASSERT(flow->kind != FLOW_FREE);
    if (flow->flowing) {
        list_remove(&source_of(flows, flow)->flows, index);
        list_remove(&flows->down[flow->to].flows, index);
        reschedule_end(flows, source_of(flows, flow), now_us);
        reschedule_end(flows, &flows->down[flow->to], now_us);
    }
    flow->kind = FLOW_FREE;
    flow->version++;
    flows->free_items[flows->free_count++] = index;
}

void flows_continue(struct flows *flows, uint32_t index, uint64_t bytes, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    flow->left_bytes = bytes;
    flow->updated_us = now_us;
    flow->rate_bps = 0; /* forces a new completion event */
    reschedule(flows, index, now_us);
}

void flows_set_rate(struct flows *flows, uint32_t node, uint64_t rate_bps, uint64_t now_us)
{
    flows->up[node].rate_bps = rate_bps;
    flows->down[node].rate_bps = rate_bps;
    reschedule_end(flows, &flows->up[node], now_us);
    reschedule_end(flows, &flows->down[node], now_us);
}
