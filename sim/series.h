/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened when: a bounded time series that a world keeps while it runs, for reports.
 *
 * How to use it, after world_run:
 *
 *     const struct series *series = world_series(world);
 *     for (uint32_t i = 0; i < series->sample_count; i++) {
 *         double second = (double)series_end_us(series, i) / 1e6;   (since the first pull began)
 *         double origin_bps = series->samples[i].bytes[SERIES_ORIGIN] * 1e6 / series->period_us;
 *         for (uint32_t node = 0; node < series->node_count; node++)
 *             shade(i, node, series_progress(series, i, node));     (0..255)
 *     }
 *     struct node_bytes bytes;
 *     world_node_bytes(world, node, &bytes);                        (totals of one node)
 *
 * It begins with the first pull and ends where the world stopped; the last sample may cover less
 * than a period. A period is SERIES_PERIOD_US (world_config.series_period_us says otherwise); when
 * SERIES_SAMPLES_MAX samples are full, each two become one and the period doubles. So the memory is
 * at most SERIES_SAMPLES_MAX * (sizeof(struct series_sample) + nodes) bytes: 5 MB for 10,000 nodes.
 * A piece's bytes are spread evenly over the time in which it came, and count once it is whole; so
 * the sums over all samples are those of world_totals, less what came before the first pull.
 */
#ifndef SHOAL_SIM_SERIES_H
#define SHOAL_SIM_SERIES_H

#include <stdbool.h>
#include <stdint.h>

#include "world.h"

/* Fine enough for a pull of two seconds. */
#define SERIES_PERIOD_US 100000
/* Even. As many columns as a plot has use for. */
#define SERIES_SAMPLES_MAX 512

/* Where payload bytes came from, as seen by the node that received them. */
enum series_source {
    SERIES_ORIGIN = 0,
    SERIES_VSWITCH, /* a node of the same vSwitch */
    SERIES_ZONE,    /* of the same zone, another vSwitch */
    SERIES_CROSS,   /* of another zone */
    SERIES_SOURCES,
};

struct series_sample {
    uint64_t bytes[SERIES_SOURCES]; /* payload that arrived in this period */
    uint64_t control_bytes;         /* datagrams sent in this period, lost ones too */
    uint32_t nodes_up;              /* at its end */
    uint32_t pulls_running;         /* begun and not ended, at its end */
    uint32_t pulls_done;            /* ended well, at its end */
    uint32_t pulls_failed;
};

struct series {
    bool began;
    uint64_t start_us;  /* world time of the first sample's beginning */
    uint64_t period_us; /* of each sample */
    uint64_t next_us;   /* when the present sample ends; UINT64_MAX before it begins */
    uint32_t node_count;
    uint32_t sample_count;         /* the last one is the present one */
    struct series_sample *samples; /* owned, SERIES_SAMPLES_MAX */
    uint8_t *progress;             /* owned, SERIES_SAMPLES_MAX rows of node_count */
};

/* The world's; borrowed until its next run or end. Brings the last sample up to now. */
const struct series *world_series(struct world *world);

/* Time since the first pull at which sample `sample` ends, in us. */
static inline uint64_t series_end_us(const struct series *series, uint32_t sample)
{
    return (sample + 1ULL) * series->period_us;
}

/* What a node has of all bytes it pulls in the whole run, at the end of a sample: 0 nothing, 255
 * everything. A node that pulls nothing stays at 0. */
static inline uint8_t series_progress(const struct series *series, uint32_t sample, uint32_t node)
{
    return series->progress[(uint64_t)sample * series->node_count + node];
}

/* Totals of one node, over all its lives. */
struct node_bytes {
    uint64_t sent;                     /* payload to other nodes */
    uint64_t received[SERIES_SOURCES]; /* payload by source */
    uint64_t control_sent;             /* datagrams */
    uint64_t wanted;                   /* sizes of the blobs it pulls in the whole run */
    uint64_t stored;                   /* payload verified and kept, once or again */
    uint64_t evicted;                  /* and given up for room */
};
void world_node_bytes(const struct world *world, uint32_t node, struct node_bytes *out);

#endif
