/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of a finished simulation, with the keys DESIGN §6 fixes. */
#ifndef SHOAL_SIM_REPORT_H
#define SHOAL_SIM_REPORT_H

#include "world.h"

struct report {
    double bound_s;                             /* ALGORITHMS §1, for all bytes a node pulls */
    double p50_s, p90_s, p99_s, p999_s, last_s; /* completion, each from the node's own arrival */
    double origin_copies, cross_zone_copies;
    double control_fraction; /* control bytes / payload bytes */
    double upload_skew;      /* most / mean bytes uploaded by a node */
    uint64_t bytes;          /* per node */
    uint32_t pulls_failed;
    double no_mesh_p50_s, no_mesh_last_s; /* the origin's rate shared by all nodes */
};

/* Reads the world after world_run. A node's completion is its last pull's end, counted from its
 * first pull's start. */
void report_make(struct world *world, const struct world_config *config, struct report *out);
/* One JSON object on `to`, with wall time and trace hash. */
void report_json(const struct report *report, struct world *world,
                 const struct world_config *config, double wall_s, FILE *to);

#endif
