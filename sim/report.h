/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of a finished simulation and the forms they are handed out in: one JSON object with the
 * keys DESIGN §6 fixes, CSV with one line per node, and one HTML file that needs nothing beside it.
 * A sweep (`plan`) has the same three forms. Reads the world, never changes it.
 *
 *   report.c       figures, JSON and CSV of one run     report_data.c  what the plots of a run show
 *   report_html.c  the page of one run                  report_plan.c  JSON, CSV and page of a
 * sweep html.c         escaped text, pages, settings        html_plot.c    axes, lines, areas as
 * SVG
 */
#ifndef SHOAL_SIM_REPORT_H
#define SHOAL_SIM_REPORT_H

#include "world.h"

/* Clients: an image on a node, from its own start to its last layer's end. One that pulls again
 * after its node came back counts from then. */
struct report_clients {
    uint32_t count, retries;
    uint32_t failed; /* or never ended */
    double p50_s, p90_s, p99_s, p999_s, last_s;
    uint64_t bytes;        /* of one */
    uint64_t origin_bytes; /* of all layers together */
};

#define REPORT_IMAGES_MAX     16
#define REPORT_IMAGE_NAME_MAX 63
struct report_image {
    char name[REPORT_IMAGE_NAME_MAX + 1];
    struct report_clients clients;
};

/* Beside the same run without faults (report_faultless.c). */
struct report_faultless {
    bool compared;
    double p99_s;          /* of the run without faults, levelled as this one */
    double levelled_p99_s; /* of this run: see report_levelled_p99_s */
    double p99, origin;    /* this run / the other: p99_s, bytes from the origin */
    uint64_t origin_bytes; /* of the run without faults */
};

struct report {
    uint64_t seed;
    uint32_t nodes, zones;
    double bound_s; /* ALGORITHMS §1, for all bytes a node pulls */
    /* Completion, each from the node's own arrival; where nodes pull images at several times, of
       each client from its own start. */
    double p50_s, p90_s, p99_s, p999_s, last_s;
    bool by_client;
    double hit_ratio; /* share of the pulled bytes that the nodes' own caches gave */
    double origin_copies, cross_zone_copies;
    double control_fraction; /* control bytes from the first pull on / payload bytes */
    double upload_skew;      /* most / mean bytes uploaded by a node */
    uint64_t bytes;          /* of a node that pulls everything; by_client: of the largest image */
    uint64_t origin_bytes, cross_zone_bytes, wrong_bytes;
    uint64_t throttled, evicted_bytes;    /* of world_totals and world_node_bytes */
    uint32_t pulls_failed;                /* or never ended; those repeated later, too */
    uint32_t nodes_complete;              /* nodes that had all they pulled in the end */
    uint32_t nodes_incomplete;            /* those that did not */
    double no_mesh_p50_s, no_mesh_last_s; /* the same arrivals sharing the origin */
    struct report_faultless faultless;    /* of no run: not compared */
    struct report_clients clients;        /* of all images; count 0: not known */
    uint32_t image_count;                 /* of the scenario; 0: not known */
    struct report_image images[REPORT_IMAGES_MAX];
    uint64_t events, trace_hash;
    double wall_s;  /* of the run; report_make leaves 0, who measured it sets it */
    double cpu_s;   /* of this process so far; set anew where several runs share one */
    double rss_mib; /* the most this process has held so far */
};

/* One key of a scenario and its value as text. Borrowed. */
struct report_setting {
    const char *key, *value;
};

/* Where a run came from. Everything borrowed; strings may be NULL and hold any bytes. */
struct report_context {
    const char *scenario;    /* its name */
    const char *description; /* a sentence for people */
    const char *command;     /* the command line that repeats the run */
    const struct report_setting *settings;
    size_t setting_count;
    const struct world_config *config;
};

/* Reads the world after world_run. A node's completion is its last pull's end, counted from its
 * first pull's start; a pull that failed and was repeated ends with its repetition. Copies are
 * counted against all blobs that somebody pulled. Out of memory is fatal, as in the world. */
void report_make(struct world *world, const struct world_config *config, struct report *out);
/* 99 % of the nodes have completed after this, without the time they were down themselves, and as
 * if their card were as fast as the others'. */
double report_levelled_p99_s(const struct world *world);
/* Fills report->faultless. */
void report_compare(struct report *report, double levelled_p99_s, const struct report *faultless,
                    double faultless_p99_s);
/* Percentiles of `count` seconds, which are sorted, into *out. */
void report_clients_times(double *seconds, size_t count, struct report_clients *out);
/* One JSON object on `to`, with wall time and trace hash: a run without a scenario's name. */
void report_json(const struct report *report, struct world *world,
                 const struct world_config *config, double wall_s, FILE *to);

/* The three forms of one run. 0; E_NO_MEMORY; E_IO when `to` refused bytes (part of the text may be
 * written). */
MUST_USE int report_write_json(const struct report *report, const struct report_context *context,
                               FILE *to);
/* A line per node: arrival, completion (empty if it never had everything), bytes by source. */
MUST_USE int report_write_csv(const struct report *report, struct world *world,
                              const struct report_context *context, FILE *to);
/* A line per sample of the world's time series. */
MUST_USE int report_write_series_csv(struct world *world, FILE *to);
MUST_USE int report_write_html(const struct report *report, struct world *world,
                               const struct report_context *context, FILE *to);

/* One run of a sweep. Borrowed. */
struct report_plan_row {
    const char *const *values; /* key_count of them, as text: "300", "10Gbit" */
    struct report report;
};

/* A finished sweep. Everything borrowed. */
struct report_plan {
    const char *scenario, *description, *command; /* as in report_context */
    const char *const *answers;                   /* sentences that answer the planner */
    size_t answer_count;
    const char *const *keys; /* swept keys; the first is the x axis, the others make lines */
    size_t key_count;        /* >= 1 */
    const struct report_plan_row *rows; /* in the order they shall be shown */
    size_t row_count;
    const struct report_setting *settings; /* keys that all rows share */
    size_t setting_count;
};

/* The three forms of a sweep; errors as above. */
MUST_USE int report_plan_json(const struct report_plan *plan, FILE *to);
/* A line per row: the swept keys, then the figures of the JSON object. */
MUST_USE int report_plan_csv(const struct report_plan *plan, FILE *to);
MUST_USE int report_plan_html(const struct report_plan *plan, FILE *to);

#endif
