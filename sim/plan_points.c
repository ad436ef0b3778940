/* SPDX-License-Identifier: Apache-2.0 */
/* Points of a sweep: combinations of values, each run in a child process; see plan.h. */
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "plan_jobs.h"

size_t plan__columns(const struct plan *plan)
{
    return plan->key_count + (plan->find.key != NULL ? 1 : 0);
}

const char *plan__column(const struct plan *plan, size_t column)
{
    return column < plan->key_count ? plan->keys[column].name : plan->find.key->name;
}

static int room(struct plan *plan)
{
    if (plan->point_count == PLAN_POINTS_MAX)
        return E_TOO_LARGE;
    if (plan->point_count < plan->point_capacity)
        return 0;
    size_t capacity = plan->point_capacity == 0 ? 64 : 2 * plan->point_capacity;
    struct plan_point *grown = realloc(plan->points, capacity * sizeof *grown);
    if (grown == NULL)
        return E_NO_MEMORY;
    plan->points = grown;
    plan->point_capacity = capacity;
    return 0;
}

void plan__close_point(struct plan_point *point)
{
    for (size_t i = 0; i < sizeof point->values / sizeof point->values[0]; i++)
        free(point->values[i]);
}

/* One combination: digits of `index` in the mixed base of the keys' counts, last key fastest. */
static int add_combination(struct plan *plan, size_t index)
{
    struct plan_point point = {.combination = index};
    int err = room(plan);
    for (size_t i = plan->key_count; i-- > 0 && err == 0;) {
        const struct plan_key *key = &plan->keys[i];
        point.values[i] = strdup(key->values[index % key->value_count]);
        index /= key->value_count;
        err = point.values[i] == NULL ? E_NO_MEMORY : 0;
    }
    if (err != 0)
        plan__close_point(&point);
    else
        plan->points[plan->point_count++] = point;
    return err;
}

int plan__expand(struct plan *plan)
{
    size_t count = 1;
    int err = 0;
    for (size_t i = 0; i < plan->key_count; i++) {
        count *= plan->keys[i].value_count;
        if (count > PLAN_POINTS_MAX)
            return E_TOO_LARGE;
    }
    for (size_t i = 0; i < count && err == 0; i++)
        err = add_combination(plan, i);
    return err;
}

int plan__add(struct plan *plan, size_t like, uint64_t number, const char *value)
{
    struct plan_point point = {.combination = plan->points[like].combination, .number = number};
    int err = room(plan);
    for (size_t i = 0; i <= plan->key_count && err == 0; i++) {
        point.values[i] = strdup(i < plan->key_count ? plan->points[like].values[i] : value);
        err = point.values[i] == NULL ? E_NO_MEMORY : 0;
    }
    if (err != 0)
        plan__close_point(&point);
    else
        plan->points[plan->point_count++] = point;
    return err;
}

int plan__load(const struct plan *plan, size_t point, struct scenario *out,
               struct scenario_error *error)
{
    const char *sets[SCENARIO_SETS_MAX + SCENARIO_SHORTS_MAX + PLAN_KEYS_MAX + 1];
    char *texts[PLAN_KEYS_MAX + 1] = {NULL};
    struct scenario_options options = plan->args.options;
    int err = 0;
    memcpy(sets, options.sets, options.set_count * sizeof sets[0]);
    for (size_t i = 0; i < plan__columns(plan) && err == 0; i++) {
        if (plan->points[point].values[i] == NULL)
            continue;
        if (asprintf(&texts[i], "%s=%s", plan__column(plan, i), plan->points[point].values[i]) < 0)
            err = E_NO_MEMORY;
        sets[options.set_count++] = texts[i];
    }
    options.sets = sets;
    if (err == 0)
        err = scenario_load(&options, out, error);
    for (size_t i = 0; i <= PLAN_KEYS_MAX; i++)
        free(texts[i]);
    return err;
}

void plan__drop_unfinished(struct plan *plan)
{
    size_t kept = 0;
    for (size_t i = 0; i < plan->point_count; i++) {
        if (plan->points[i].done)
            plan->points[kept++] = plan->points[i];
        else
            plan__close_point(&plan->points[i]);
    }
    plan->point_count = kept;
}

/* ---- runs ---- */

struct batch {
    struct plan *plan;
    size_t first;
};

/* In the child. */
static int work(void *arg, size_t index, FILE *out)
{
    const struct batch *batch = arg;
    struct scenario_error error;
    struct scenario_result result;
    struct world *world = NULL;
    struct scenario *scenario = malloc(sizeof *scenario);
    double start_s = plan__now_s();
    if (scenario == NULL || plan__load(batch->plan, batch->first + index, scenario, &error) != 0 ||
        scenario_run(scenario, &world, &result) != 0)
        return 1;
    result.report.wall_s = plan__now_s() - start_s;
    /* The process ends now: what it holds goes with it. */
    return fwrite(&result, sizeof result, 1, out) == 1 ? 0 : 1;
}

static void judge(struct plan_point *point, const struct job_result *job)
{
    const struct scenario_result *result = &point->result;
    point->done = job->code == 0 && job->output_bytes == sizeof point->result;
    if (!point->done) {
        if (jobs_interrupted())
            (void)snprintf(point->why, sizeof point->why, "interrupted");
        else if (job->signal != 0)
            (void)snprintf(point->why, sizeof point->why, "killed by signal %d (%s)", job->signal,
                           strsignal(job->signal));
        else
            (void)snprintf(point->why, sizeof point->why, "ended without a result");
        return;
    }
    memcpy(&point->result, job->output, sizeof point->result);
    if (result->unexplained + result->unfinished > 0)
        (void)snprintf(point->why, sizeof point->why, "%llu pulls failed, %llu did not end",
                       (unsigned long long)result->unexplained,
                       (unsigned long long)result->unfinished);
    else if (result->report.wrong_bytes > 0)
        (void)snprintf(point->why, sizeof point->why, "wrong bytes");
    point->good = point->why[0] == '\0';
}

static bool done(void *arg, size_t index, const struct job_result *job)
{
    struct batch *batch = arg;
    judge(&batch->plan->points[batch->first + index], job);
    batch->plan->points_done++;
    plan__progress(batch->plan, false);
    return true;
}

static void tick(void *arg)
{
    plan__progress(((struct batch *)arg)->plan, false);
}

int plan__run(struct plan *plan, size_t first, size_t count)
{
    struct batch batch = {.plan = plan, .first = first};
    struct jobs jobs = {.arg = &batch,
                        .work = work,
                        .done = done,
                        .tick = tick,
                        .count = count,
                        .parallel = plan->jobs};
    plan__progress(plan, false);
    return jobs_run(&jobs);
}
