/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What faults cost: a run beside the same run without them. A node that was down, or whose card is
 * slower than the others', takes longer whatever the mesh does. So its completion is levelled
 * first: the time it was down is taken out, and what is left is multiplied by its card's share of
 * the others' rate.
 */
#include <stdlib.h>

#include "host.h"
#include "log.h"
#include "report_data.h"

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The pull that repeats a failed one; NULL if there is none. */
static const struct world_pull *repetition(const struct world_pull *pulls, size_t count,
                                           size_t failed)
{
    for (size_t i = failed + 1; i < count; i++)
        if (pulls[i].node == pulls[failed].node && pulls[i].blob == pulls[failed].blob)
            return &pulls[i];
    return NULL;
}

/* Seconds between a node's deaths and the return of its clients. All pulls that ran when it died
 * failed at that moment: it counts once. */
static void take_down(const struct world *world, double *down_s, uint64_t *died_us)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++) {
        const struct world_pull *again = pulls[i].failed ? repetition(pulls, count, i) : NULL;
        if (again == NULL || pulls[i].done_us <= died_us[pulls[i].node])
            continue;
        died_us[pulls[i].node] = pulls[i].done_us;
        if (again->started_us > pulls[i].done_us)
            down_s[pulls[i].node] += (double)(again->started_us - pulls[i].done_us) / 1e6;
    }
}

static double card_share(const struct world *world, uint32_t node)
{
    double share = (double)world->nodes[node].down_bps / (double)world->config.nic_down_bps;
    return share < 1 ? share : 1;
}

double report_levelled_p99_s(const struct world *world)
{
    uint32_t node_count = world->config.node_count;
    struct report_node *nodes = calloc(node_count, sizeof *nodes);
    double *down_s = calloc(2ULL * node_count, sizeof *down_s), *levelled = down_s + node_count;
    uint64_t *died_us = calloc(node_count, sizeof *died_us);
    ASSERT(nodes != NULL && down_s != NULL && died_us != NULL);
    struct report_pulls pulls;
    size_t done = 0;
    report__nodes(world, nodes, node_count, &pulls);
    take_down(world, down_s, died_us);
    for (uint32_t node = 0; node < node_count; node++) {
        if (nodes[node].pulled && nodes[node].completion_s >= 0)
            levelled[done++] = (nodes[node].completion_s - down_s[node]) * card_share(world, node);
    }
    qsort(levelled, done, sizeof *levelled, by_value);
    double p99_s = report__percentile(levelled, done, 0.99);
    free(nodes);
    free(down_s);
    free(died_us);
    return p99_s;
}

void report_compare(struct report *report, double levelled_p99_s, const struct report *faultless,
                    double faultless_p99_s)
{
    report->faultless = (struct report_faultless){
        .compared = true,
        .p99_s = faultless_p99_s,
        .origin_bytes = faultless->origin_bytes,
        .levelled_p99_s = levelled_p99_s,
        .p99 = faultless_p99_s > 0 ? levelled_p99_s / faultless_p99_s : 0,
        .origin = faultless->origin_bytes > 0
                      ? (double)report->origin_bytes / (double)faultless->origin_bytes
                      : 0,
    };
}
