/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal-sim plan`: the planner's questions answered by many runs: sweeps over any keys, and
 * searches for the value of one key that just meets a target. Shared by sim/plan*.c:
 *
 *   plan.c       command line and course     plan_points.c  runs of a sweep, in child processes
 *   plan_find.c  the search                  plan_show.c    table, answers, progress, reports
 *   plan_metric.c  figures to search for, and where keys lead
 */
#ifndef SHOAL_SIM_PLAN_H
#define SHOAL_SIM_PLAN_H

#include "scenario_args.h"

#define PLAN_KEYS_MAX   8    /* swept keys */
#define PLAN_VALUES_MAX 256  /* of one key */
#define PLAN_POINTS_MAX 4096 /* runs in all */
#define PLAN_TEXT_BYTES 256  /* of one value */
#define PLAN_WHY_BYTES  128
#define PLAN_FIND_MAX   40 /* runs of one search */

/* argv[1] is "plan". Exit code: 0 all runs are well and all searches found a value, 1 not, 2 usage,
 * 130 interrupted (what was run by then is shown). */
int plan_command(int argc, char **argv);

/* ---- shared inside plan*.c ---- */

struct plan_key {
    char name[64];
    char *values[PLAN_VALUES_MAX]; /* owned */
    size_t value_count;
};

/* One run. */
struct plan_point {
    char *values[PLAN_KEYS_MAX + 1]; /* owned, by key; the searched key's last */
    size_t combination;              /* of the swept keys' values */
    uint64_t number;                 /* the searched key's value */
    bool done, good;                 /* it ran; every pull ended well */
    char why[PLAN_WHY_BYTES];        /* not good: the reason */
    struct scenario_result result;   /* done */
};

/* A figure that a search can be held to. */
struct plan_metric {
    const char *name; /* as in JSON: "completion.last_s" */
    double (*of)(const struct scenario_result *result);
    bool relative; /* to what the same links could do otherwise */
};

struct plan_find {
    const struct scenario_key *key; /* NULL: no search */
    const struct plan_metric *metric;
    bool at_least; /* else at most */
    double limit;
    uint64_t from, to;    /* the key's values to search in */
    uint64_t wanted_from; /* --from; `from` may be higher */
    double precision;     /* stop when the neighbours differ by less than this factor */
};

struct plan {
    struct scenario_args args;
    struct plan_key keys[PLAN_KEYS_MAX];
    size_t key_count;
    struct plan_find find;
    struct plan_point *points; /* owned */
    size_t point_count, point_capacity, points_done;
    size_t points_planned;    /* a search's guess; 0: all points there are */
    size_t combinations_left; /* that a search has still to begin */
    unsigned jobs;
    bool json, text, quiet;
    const char *html, *csv;
    char command[2048];
    char **answers; /* owned */
    size_t answer_count, answer_capacity;
    double start_s;
    bool unanswered; /* a search found nothing */
};

/* Columns of a point: swept keys and the searched one. */
size_t plan__columns(const struct plan *plan);
/* Name of a column's key. */
const char *plan__column(const struct plan *plan, size_t column);
/* Adds points for all combinations of the swept keys (one if there are none). 0, E_NO_MEMORY,
 * E_TOO_LARGE over PLAN_POINTS_MAX. */
MUST_USE int plan__expand(struct plan *plan);
/* Adds one point like `like` with `number` in the last column, as text `value` (copied). 0,
 * E_NO_MEMORY, E_TOO_LARGE. */
MUST_USE int plan__add(struct plan *plan, size_t like, uint64_t number, const char *value);
/* Frees a point's texts. */
void plan__close_point(struct plan_point *point);
/* The scenario of a point. Errors as scenario_load. */
MUST_USE int plan__load(const struct plan *plan, size_t point, struct scenario *out,
                        struct scenario_error *error);
/* Runs points `first` to `first + count - 1`. 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int plan__run(struct plan *plan, size_t first, size_t count);
/* Forgets the points that did not run to their end. */
void plan__drop_unfinished(struct plan *plan);
/* Searches, one combination after the other; the points tried replace the combinations. 0 or an
 * error. */
MUST_USE int plan__find(struct plan *plan);
/* May a search be for this key's value: a number, and one that does something to a run. */
bool plan__searchable(const struct scenario_key *key);
/* Does more of it make pulls slower, as far as its name tells? */
bool plan__more_is_worse(const struct scenario_key *key);
/* Metric by name; NULL if there is none. */
const struct plan_metric *plan__metric(const char *name);
/* Prints the names of all metrics, comma-separated. */
void plan__metric_names(FILE *to);
/* Adds a sentence. 0 or E_NO_MEMORY. */
MUST_USE int plan__answer(struct plan *plan, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Draws the bar on stderr if that is a terminal; `last` ends it. */
void plan__progress(const struct plan *plan, bool last);
/* The answers that a sweep gives by itself. 0 or E_NO_MEMORY. */
MUST_USE int plan__conclude(struct plan *plan);
/* Table or JSON on stdout, and the files asked for. 0 or an error, said on stderr. */
MUST_USE int plan__show(struct plan *plan);
/* Seconds of a clock that only moves on. */
double plan__now_s(void);

#endif
