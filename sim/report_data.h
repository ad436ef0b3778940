/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the plots of one run show, taken from the world once and reduced to what a plot can hold:
 * sorted times, sorted uploads, series of rates, a raster of progress. Shared by sim/report*.c.
 */
#ifndef SHOAL_SIM_REPORT_DATA_H
#define SHOAL_SIM_REPORT_DATA_H

#include "html.h"
#include "report.h"
#include "series.h"

/* Points of a series, and rows of the heat map: more would be thinner than a pixel. */
#define REPORT_COLUMNS     160
#define REPORT_RASTER_ROWS 96
/* Steps of the heat map's scale: 0 nothing .. 10 everything. */
#define REPORT_LEVELS 11

/* One node's pulls as one, or one client's. A pull that failed and was repeated counts by its
 * repetition. */
struct report_node {
    uint32_t node;
    double arrival_s;      /* since the first node's */
    double completion_s;   /* from its arrival; < 0: it never had everything */
    uint64_t wanted_bytes; /* of all blobs it pulled, each once */
    uint64_t fresh_bytes;  /* of those that nobody on its node pulled before */
    uint32_t blobs;        /* of those */
    bool pulled;           /* it had a pull at all */
};

struct report_data {
    uint32_t node_count;
    struct report_node *nodes;        /* owned */
    double *completion_s;             /* owned, of nodes that have everything, ascending */
    size_t completion_count;          /* of those */
    double *no_mesh_s;                /* owned, of nodes that pulled, ascending */
    size_t pulled_count;              /* of those */
    double *upload_bytes;             /* owned, per node, descending */
    uint32_t sample_count;            /* of each series below; 0: nothing was pulled */
    uint32_t group;                   /* samples of the world's series in one of these */
    double period_s;                  /* of one sample */
    double end_s;                     /* of the last sample, which may be shorter than a period */
    double *arrived[SERIES_SOURCES];  /* owned, payload bytes per second by source */
    double *origin_sum, *cross_sum;   /* owned, bytes from the beginning to each sample's end */
    double *control_bps;              /* owned, bytes per second of all nodes */
    double *nodes_up, *pulls_running; /* owned, counts at each sample's end */
    uint32_t raster_rows;
    uint8_t *raster; /* owned, raster_rows of sample_count levels, first arrival on top */
};

/* Takes everything from a world. 0 or E_NO_MEMORY (nothing left to close). */
MUST_USE int report_data_init(struct report_data *data, struct world *world,
                              const struct world_config *config);
/* Frees what init took. */
void report_data_close(struct report_data *data);
/* What the pulls of a world came to. */
struct report_pulls {
    uint32_t failed;    /* pulls that failed or never ended, repeated ones too */
    uint64_t all_bytes; /* sizes of all blobs that somebody pulled, each once */
};
/* The same of clients, of which there are `count`; a client's number is its index + 1. */
void report__clients(const struct world *world, struct report_node *clients, uint32_t count);
/* Clients in the world if some node has two that began at different times; else 0: a node's
 * pulls are one. */
uint32_t report__clients_apart(const struct world *world);
/* Fills `nodes` of node_count entries from the world's pulls. */
void report__nodes(const struct world *world, struct report_node *nodes, uint32_t node_count,
                   struct report_pulls *out);

/* ---- report_fluid.c ---- */

/* The bound in seconds for nodes that pull `bytes` each, payload_bytes together. */
double report__bound_s(const struct world_config *config, uint64_t bytes, double payload_bytes);
/* Seconds from arrival to completion of each of `count` nodes, or clients, without a mesh (0: it
 * pulls nothing, or nothing new to its node, which is taken to keep everything), each with `layers`
 * connections. 0 or E_NO_MEMORY. */
MUST_USE int report__no_mesh(const struct world_config *config, const struct report_node *nodes,
                             uint32_t count, uint32_t layers, double *out_s);

/* ---- report.c ---- */

/* Value below which so large a share of sorted values lies; 0 of none. */
double report__percentile(const double *sorted, size_t count, double share);
/* The members of the JSON object DESIGN §6 fixes, but for "scenario", without braces. */
void report__json_figures(const struct report *report, FILE *to);
/* Events per second of CPU time; 0 when none was measured. */
double report__events_per_s(const struct report *report);

#endif
