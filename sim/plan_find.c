/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The value of one key that just meets a target: from the scenario's own value by factors of four
 * to the first value on the other side, then between the two, as many points at a time as there
 * are jobs. It supposes that more of the key is always better, or always worse.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

#define STRIDE 4
#define MIB    (1ULL << 20)

/* ---- metrics ---- */

static double ratio(const struct scenario_result *result, double seconds)
{
    return result->report.bound_s > 0 ? seconds / result->report.bound_s : 0;
}
static double of_p50(const struct scenario_result *result)
{
    return result->report.p50_s;
}
static double of_p90(const struct scenario_result *result)
{
    return result->report.p90_s;
}
static double of_p99(const struct scenario_result *result)
{
    return result->report.p99_s;
}
static double of_p999(const struct scenario_result *result)
{
    return result->report.p999_s;
}
static double of_last(const struct scenario_result *result)
{
    return result->report.last_s;
}
static double of_ratio_p50(const struct scenario_result *result)
{
    return ratio(result, result->report.p50_s);
}
static double of_ratio_p99(const struct scenario_result *result)
{
    return ratio(result, result->report.p99_s);
}
static double of_ratio_last(const struct scenario_result *result)
{
    return ratio(result, result->report.last_s);
}
static double of_origin(const struct scenario_result *result)
{
    return result->report.origin_copies;
}
static double of_cross(const struct scenario_result *result)
{
    return result->report.cross_zone_copies;
}
static double of_hits(const struct scenario_result *result)
{
    return scenario_hit_ratio(result);
}
static double of_gain(const struct scenario_result *result)
{
    return result->report.last_s > 0 ? result->report.no_mesh_last_s / result->report.last_s : 0;
}

static const struct plan_metric metrics[] = {
    {"completion.p50_s", of_p50},    {"completion.p90_s", of_p90},   {"completion.p99_s", of_p99},
    {"completion.p999_s", of_p999},  {"completion.last_s", of_last}, {"ratio.p50", of_ratio_p50},
    {"ratio.p99", of_ratio_p99},     {"ratio.last", of_ratio_last},  {"origin_copies", of_origin},
    {"cross_zone_copies", of_cross}, {"hit_ratio", of_hits},         {"gain", of_gain},
};

const struct plan_metric *plan__metric(const char *name)
{
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        if (strcmp(metrics[i].name, name) == 0)
            return &metrics[i];
    return NULL;
}

void plan__metric_names(FILE *to)
{
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        fprintf(to, "%s%s", i > 0 ? ", " : "", metrics[i].name);
}

/* ---- the search of one combination ---- */

struct search {
    struct plan *plan;
    size_t like; /* point with the combination's values */
    bool more_is_worse;
    bool have_good, have_bad;
    uint64_t good, bad; /* nearest values on either side so far */
    size_t good_point, bad_point;
    size_t runs;
};

/* Keys of which more makes a pull slower; of all others more makes it faster, or changes nothing.
 */
static bool more_is_worse(const struct scenario_key *key)
{
    static const char *const worse[] = {
        "nodes",       "regions",       "vswitches",        "latency.",       "loss",
        "reorder",     "duplicate",     "origin.firstByte", "origin.latency", "cpu.receive",
        "cpu.serve",   "cpu.origin",    "cpu.verify",       "cpu.store",      "cpu.client",
        "cpu.message", "cpu.handshake", "cpu.tls"};
    if (strcmp(key->name, "cpu.verifyRate") == 0)
        return false;
    for (size_t i = 0; i < sizeof worse / sizeof worse[0]; i++)
        if (strncmp(key->name, worse[i], strlen(worse[i])) == 0)
            return true;
    return false;
}

static bool meets(const struct plan_find *find, const struct plan_point *point)
{
    if (!point->good)
        return false;
    double value = find->metric->of(&point->result);
    return find->at_least ? value >= find->limit : value <= find->limit;
}

/* Three digits of the unit that people read are enough: powers of two for sizes, bits for rates. */
static uint64_t rounded(uint64_t value, const struct plan_find *find)
{
    bool size = find->key->type == SCENARIO_SIZE;
    uint64_t scale = find->key->type == SCENARIO_RATE ? 8 : 1, step = 1;
    if (size && value >= 16 * MIB)
        step = MIB;
    while (value * scale / step >= (size ? 1024 : 1000))
        step *= size ? 2 : 10;
    value = (value * scale + step / 2) / step * step / scale;
    return value < find->from ? find->from : value > find->to ? find->to : value;
}

static bool take(struct search *search, uint64_t value, size_t point)
{
    bool good = meets(&search->plan->find, &search->plan->points[point]);
    *(good ? &search->good : &search->bad) = value;
    *(good ? &search->good_point : &search->bad_point) = point;
    *(good ? &search->have_good : &search->have_bad) = true;
    return good;
}

static int try_values(struct search *search, const uint64_t *values, size_t count)
{
    struct plan *plan = search->plan;
    size_t first = plan->point_count;
    char text[PLAN_TEXT_BYTES];
    int err = 0;
    for (size_t i = 0; i < count && err == 0; i++)
        err = plan__add(plan, search->like, values[i],
                        scenario_number_text(plan->find.key, values[i], text, sizeof text));
    if (err == 0)
        err = plan__run(plan, first, count);
    search->runs += count;
    /* From the good side on; behind the first bad value nothing counts, even if figures that jump
     * make a later one good. Values ascend. */
    for (size_t i = 0; i < count && err == 0; i++) {
        size_t next = search->more_is_worse ? i : count - 1 - i;
        if (!take(search, values[next], first + next))
            break;
    }
    return err;
}

/* Steps from `value` until both sides are known, or the range ends. */
static int bracket(struct search *search, uint64_t value)
{
    const struct plan_find *find = &search->plan->find;
    int err = 0;
    while (err == 0 && search->runs < PLAN_FIND_MAX) {
        err = try_values(search, &value, 1);
        if (search->have_good && search->have_bad)
            break;
        /* Towards the side not seen yet. */
        bool up = search->have_good == search->more_is_worse;
        if (value == (up ? find->to : find->from))
            break;
        uint64_t next =
            up ? (value > find->to / STRIDE ? find->to : value * STRIDE) : value / STRIDE;
        next = next < find->from ? find->from : next;
        value = next == find->to || next == find->from ? next : rounded(next, find);
    }
    return err;
}

/* Points that part the way between good and bad into equal factors. Returns how many there are. */
static size_t between(const struct search *search, uint64_t values[], size_t wanted)
{
    uint64_t low = search->good < search->bad ? search->good : search->bad;
    uint64_t high = search->good < search->bad ? search->bad : search->good;
    size_t count = 0;
    double from = low > 0 ? (double)low : 0.5;
    if ((double)high / from < search->plan->find.precision)
        return 0;
    for (size_t i = 1; i <= wanted; i++) {
        double part = pow((double)high / from, (double)i / (double)(wanted + 1));
        uint64_t value = rounded((uint64_t)(from * part + 0.5), &search->plan->find);
        if (value > low && value < high && (count == 0 || value > values[count - 1]))
            values[count++] = value;
    }
    return count;
}

static int refine(struct search *search)
{
    int err = 0;
    uint64_t values[4];
    while (err == 0 && search->runs < PLAN_FIND_MAX) {
        size_t wanted = search->plan->jobs < 4 ? search->plan->jobs : 4;
        size_t count = between(search, values, wanted);
        if (count == 0)
            break;
        err = try_values(search, values, count);
    }
    return err;
}

static double figure(const struct search *search, size_t point)
{
    const struct plan_point *p = &search->plan->points[point];
    return p->done ? search->plan->find.metric->of(&p->result) : NAN;
}

/* "nodes=100, zones=3: " or "". */
static void combination_text(const struct plan *plan, size_t point, char *out, size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < plan->key_count && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s=%s%s", i > 0 ? ", " : "",
                                 plan->keys[i].name, plan->points[point].values[i],
                                 i + 1 == plan->key_count ? ": " : "");
}

/* What the value found means for borders and against no mesh. */
static void aside(const struct plan_point *point, char *out, size_t out_bytes)
{
    const struct report *report = &point->result.report;
    size_t used = (size_t)snprintf(out, out_bytes,
                                   "; %.4g GiB over zone borders and %.4g GiB from the origin",
                                   (double)report->cross_zone_bytes / (1ULL << 30),
                                   (double)report->origin_bytes / (1ULL << 30));
    /* Clients that come again have no completion to compare. */
    if (report->last_s > 0 && scenario_hit_ratio(&point->result) <= 0)
        (void)snprintf(out + used, out_bytes - used, ", %.3g times faster than without the mesh",
                       report->no_mesh_last_s / report->last_s);
}

static int conclude(struct search *search)
{
    struct plan *plan = search->plan;
    const struct plan_find *find = &plan->find;
    char where[512], good[64], bad[64], more[256];
    const char *most = search->more_is_worse ? "most" : "least";
    const char *sign = find->at_least ? ">=" : "<=";
    combination_text(plan, search->like, where, sizeof where);
    (void)scenario_number_text(find->key, search->good, good, sizeof good);
    (void)scenario_number_text(find->key, search->bad, bad, sizeof bad);
    if (!search->have_good) {
        plan->unanswered = true;
        return plan__answer(plan, "%sno value of %s %s to %s meets %s %s %.4g: it is %.4g there",
                            where, find->key->name, search->more_is_worse ? "down" : "up", bad,
                            find->metric->name, sign, find->limit,
                            figure(search, search->bad_point));
    }
    aside(&plan->points[search->good_point], more, sizeof more);
    if (!search->have_bad)
        return plan__answer(plan,
                            "%severy value of %s %s to %s meets %s %s %.4g: it is %.4g "
                            "there%s",
                            where, find->key->name, search->more_is_worse ? "up" : "down", good,
                            find->metric->name, sign, find->limit,
                            figure(search, search->good_point), more);
    return plan__answer(plan, "%s%s %s for %s %s %.4g: %s (%.4g there, %.4g at %s)%s", where, most,
                        find->key->name, find->metric->name, sign, find->limit, good,
                        figure(search, search->good_point), figure(search, search->bad_point), bad,
                        more);
}

static int find_one(struct plan *plan, size_t like, uint64_t start)
{
    struct search search = {
        .plan = plan, .like = like, .more_is_worse = more_is_worse(plan->find.key)};
    int err = bracket(&search, rounded(start, &plan->find));
    if (err == 0 && search.have_good && search.have_bad)
        err = refine(&search);
    return err == 0 ? conclude(&search) : err;
}

/* The scenario's own value of the key, within the range. */
static int start_value(const struct plan *plan, size_t like, uint64_t *out)
{
    struct scenario_error error;
    struct scenario *scenario = malloc(sizeof *scenario);
    int err = scenario == NULL ? E_NO_MEMORY : plan__load(plan, like, scenario, &error);
    if (err == 0) {
        *out = scenario_value_number(plan->find.key, scenario);
        if (plan->find.key->word != NULL && *out == plan->find.key->word_value)
            *out = plan->find.from;
        scenario_close(scenario);
    }
    free(scenario);
    return err;
}

/* Order of points in tables: by combination, then by the searched value. */
static int by_value(const void *a, const void *b)
{
    const struct plan_point *x = a, *y = b;
    if (x->combination != y->combination)
        return x->combination < y->combination ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

int plan__find(struct plan *plan)
{
    size_t combinations = plan->point_count;
    int err = 0;
    for (size_t i = 0; i < combinations && err == 0; i++) {
        uint64_t start = 0;
        err = start_value(plan, i, &start);
        if (err == 0)
            err = find_one(plan, i, start);
    }
    /* The combinations themselves never ran. */
    for (size_t i = 0; i < combinations; i++)
        plan__close_point(&plan->points[i]);
    plan->point_count -= combinations;
    memmove(plan->points, plan->points + combinations, plan->point_count * sizeof *plan->points);
    qsort(plan->points, plan->point_count, sizeof *plan->points, by_value);
    return err;
}
