/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run is held against: the fluid bound of ALGORITHMS §1, below which no policy can come on
 * these links, and the same arrivals without a mesh, all nodes sharing the registry evenly. Both
 * are arithmetic on rates: no latency, no slow start, no faults, so both flatter what they stand
 * for.
 */
#include <math.h>
#include <stdlib.h>

#include "report_data.h"

/* A limit in bytes per second, of which 0 means none. */
static double limit(double value_bps, double other)
{
    return value_bps > 0 ? fmin(value_bps, other) : other;
}

static double per(uint64_t total_bps, double count)
{
    return count > 0 ? (double)total_bps / count : 0;
}

static double down_bps(const struct world_config *config)
{
    return (double)(config->nic_down_bps > 0 ? config->nic_down_bps : config->nic_bps);
}

double report__bound_s(const struct world_config *config, uint64_t bytes, double payload_bytes)
{
    double size = (double)bytes, origin = (double)config->origin_bps;
    double nodes = config->node_count;
    /* Every vSwitch, and where the registry stands outside every zone, needs one copy. */
    double link = limit((double)config->vswitch_bps, down_bps(config));
    if (config->origin_over_border)
        link = limit((double)config->zone_bps, link);
    double alone = fmax(size / link, size / origin);
    return fmax(alone, payload_bytes / (origin + nodes * (double)config->nic_bps));
}

/* What one node can get from the registry whatever the others do. */
static double own_bps(const struct world_config *config, uint32_t layers)
{
    double nodes = config->node_count, zones = config->zone_count > 0 ? config->zone_count : 1;
    double vswitches = zones * (config->vswitch_count > 0 ? config->vswitch_count : 1);
    double rate =
        limit((double)config->origin_conn_bps * (layers > 0 ? layers : 1), down_bps(config));
    rate = limit(per(config->vswitch_bps, nodes / vswitches), rate);
    if (config->origin_over_border) {
        rate = limit(per(config->zone_bps, nodes / zones), rate);
        rate = limit(per(config->cross_bps, nodes), rate);
    }
    return rate;
}

/* One node in the shared registry. */
struct share {
    double arrival_s, bytes;
    double until; /* served bytes per node at which it is done */
    uint32_t node;
};

static int by_arrival(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    if (x->arrival_s != y->arrival_s)
        return x->arrival_s < y->arrival_s ? -1 : 1;
    return (x->node > y->node) - (x->node < y->node);
}

/* A heap of active nodes, the one done first on top. */
static void push(struct share *heap, size_t count, struct share item)
{
    size_t at = count;
    for (; at > 0 && heap[(at - 1) / 2].until > item.until; at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = item;
}

static void pop(struct share *heap, size_t count)
{
    struct share last = heap[count - 1];
    size_t at = 0;
    for (size_t child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && heap[child + 1].until < heap[child].until)
            child++;
        if (heap[child].until >= last.until)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
}

/* Processor sharing: `served` grows by each active node's rate; a node is done when it has grown by
 * the node's bytes. */
static void serve(struct share *waiting, size_t count, struct share *heap,
                  const struct world_config *config, double own, double *out_s)
{
    double now_s = 0, served = 0;
    size_t next = 0, active = 0;
    while (next < count || active > 0) {
        double rate = active > 0 ? fmin(own, (double)config->origin_bps / (double)active) : 0;
        double done_s = active > 0 ? now_s + (heap[0].until - served) / rate : INFINITY;
        if (next < count && waiting[next].arrival_s <= done_s) {
            served += rate * (waiting[next].arrival_s - now_s);
            now_s = waiting[next].arrival_s;
            waiting[next].until = served + waiting[next].bytes;
            push(heap, active++, waiting[next++]);
            continue;
        }
        served = heap[0].until;
        now_s = done_s;
        out_s[heap[0].node] = now_s - heap[0].arrival_s;
        pop(heap, active--);
    }
}

int report__no_mesh(const struct world_config *config, const struct report_node *nodes,
                    uint32_t node_count, uint32_t layers, double *out_s)
{
    struct share *shares = calloc(2ULL * node_count + 1, sizeof *shares);
    if (shares == NULL)
        return E_NO_MEMORY;
    size_t count = 0;
    for (uint32_t node = 0; node < node_count; node++) {
        out_s[node] = 0;
        if (nodes[node].fresh_bytes > 0)
            shares[count++] = (struct share){.arrival_s = nodes[node].arrival_s,
                                             .bytes = (double)nodes[node].fresh_bytes,
                                             .node = node};
    }
    qsort(shares, count, sizeof *shares, by_arrival);
    serve(shares, count, shares + node_count, config, own_bps(config, layers), out_s);
    free(shares);
    return 0;
}
