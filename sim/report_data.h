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

/* Rows and columns of the heat map: more would be thinner than a pixel. */
#define REPORT_RASTER_ROWS    96
#define REPORT_RASTER_COLUMNS 160
/* Steps of its scale: 0 nothing .. 10 everything. */
#define REPORT_RASTER_LEVELS 11

/* One node's pulls as one. */
struct report_node {
    double arrival_s;    /* since the first node's */
    double completion_s; /* from its arrival; < 0: failed or never ended */
    bool pulled;         /* it had a pull at all */
};

struct report_data {
    uint32_t node_count;
    struct report_node *nodes;       /* owned */
    double *completion_s;            /* owned, of nodes that have everything, ascending */
    size_t completion_count;         /* of those */
    double *upload_bytes;            /* owned, per node, descending */
    uint32_t sample_count;           /* of each series below */
    double period_s;                 /* of one sample */
    double end_s;                    /* the last sample ends here at the latest */
    double *arrived[SERIES_SOURCES]; /* owned, payload bytes per second by source */
    double *origin_sum, *cross_sum;  /* owned, bytes from the beginning to each sample's end */
    double *control_bps;             /* owned, bytes per second of all nodes */
    uint32_t raster_rows, raster_columns;
    uint8_t *raster; /* owned, rows of levels, first arrival on top */
};

/* Takes everything from the world. 0 or E_NO_MEMORY (nothing left to close). */
MUST_USE int report_data_init(struct report_data *data, struct world *world);
void report_data_close(struct report_data *data);
/* Fills `nodes` of node_count entries from the world's pulls; returns how many pulls failed. */
uint32_t report__nodes(const struct world *world, struct report_node *nodes, uint32_t node_count);

/* The members of the JSON object DESIGN §6 fixes, but for "scenario", without braces. */
void report__json_figures(const struct report *report, FILE *to);
/* Events per second of CPU time; 0 when none was measured. */
double report__events_per_s(const struct report *report);

#endif
