/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The value of one key that just meets a target: from the scenario's own value by factors of four
 * to the first value on the other side, then between the two, as many points at a time as there
 * are jobs. It supposes that the key leads one way throughout; which way is a guess by its name,
 * given up where the figures go the other way (more bandwidth at the origin lessens the gain).
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "plan_jobs.h"

#define STRIDE 4
#define MIB    (1ULL << 20)

/* ---- the search of one combination ---- */

/* A value that was run. */
struct step {
    uint64_t value;
    size_t point;
};

struct search {
    struct plan *plan;
    size_t like; /* point with the combination's values */
    bool more_is_worse;
    bool have_good, have_bad;
    bool flat;                /* no value helps more than the last one tried */
    struct step good, bad;    /* nearest on either side so far */
    struct step start;        /* the first one */
    uint64_t lowest, highest; /* values tried */
    size_t runs;
};

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

static bool take(struct search *search, struct step step)
{
    bool good = meets(&search->plan->find, &search->plan->points[step.point]);
    *(good ? &search->good : &search->bad) = step;
    *(good ? &search->have_good : &search->have_bad) = true;
    return good;
}

/* Adds points, each of which must load: a value may not fit the others of the scenario. */
static int add_points(struct search *search, const uint64_t *values, size_t count)
{
    struct plan *plan = search->plan;
    struct scenario_error error;
    char text[PLAN_TEXT_BYTES];
    struct scenario *scenario = malloc(sizeof *scenario);
    int err = scenario == NULL ? E_NO_MEMORY : 0;
    for (size_t i = 0; i < count && err == 0; i++) {
        err = plan__add(plan, search->like, values[i],
                        scenario_number_text(plan->find.key, values[i], text, sizeof text));
        if (err == 0)
            err = plan__load(plan, plan->point_count - 1, scenario, &error);
        if (err == 0)
            scenario_close(scenario);
        if (err == E_CONFIG)
            fprintf(stderr, "shoal-sim: %s\n", error.text);
    }
    free(scenario);
    return err;
}

/* Points tried at once. */
static size_t width(const struct plan *plan)
{
    return plan->jobs < 4 ? plan->jobs : 4;
}

/* Runs that finding the value takes from here, about: for who waits. */
static size_t guess(const struct search *search, bool both)
{
    double parts = (double)width(search->plan) + 1, precision = log(search->plan->find.precision);
    double gap = log(STRIDE), runs = both ? 0 : 2;
    if (both)
        gap = fabs(log(((double)search->good.value + 0.5) / ((double)search->bad.value + 0.5)));
    if (gap > precision)
        runs += ceil(log(gap / precision) / log(parts)) * (parts - 1);
    return (size_t)runs;
}

static int try_values(struct search *search, const uint64_t *values, size_t count)
{
    struct plan *plan = search->plan;
    size_t first = plan->point_count;
    int err = add_points(search, values, count);
    plan->points_planned = plan->points_done + guess(search, search->have_good && search->have_bad);
    plan->points_planned += plan->combinations_left * guess(search, false);
    if (err == 0)
        err = plan__run(plan, first, count);
    search->runs += count;
    for (size_t i = 0; i < count; i++) {
        search->lowest = values[i] < search->lowest ? values[i] : search->lowest;
        search->highest = values[i] > search->highest ? values[i] : search->highest;
    }
    /* From the good side on; behind the first bad value nothing counts, even if figures that jump
     * make a later one good. Values ascend. */
    for (size_t i = 0; i < count && err == 0; i++) {
        size_t next = search->more_is_worse ? i : count - 1 - i;
        if (!take(search, (struct step){values[next], first + next}))
            break;
    }
    return err;
}

static double figure(const struct search *search, size_t point)
{
    const struct plan_point *p = &search->plan->points[point];
    return p->done ? search->plan->find.metric->of(&p->result) : NAN;
}

/* ---- both sides ---- */

enum walk {
    WALK_FOUND = 1, /* both sides are known */
    WALK_END,       /* the range ended, or the runs */
    WALK_FLAT,      /* the last step changed nothing: the key binds no more */
    WALK_AWAY,      /* the figure goes the other way */
};

/* Does the figure go away from the side not seen yet? By more than what is looked for. */
static bool leads_away(const struct search *search, size_t point)
{
    const struct plan_find *find = &search->plan->find;
    bool start_good = search->have_good;
    if (!search->plan->points[search->start.point].good)
        return false;
    if (!search->plan->points[point].good)
        return !start_good;
    double before = figure(search, search->start.point), now = figure(search, point);
    bool grows = now > before * find->precision, falls = now * find->precision < before;
    /* A figure that must be low is to fall if it is bad, to grow if it is good. */
    return find->at_least == start_good ? grows : falls;
}

static bool same_run(const struct search *search, size_t a, size_t b)
{
    const struct plan_point *x = &search->plan->points[a], *y = &search->plan->points[b];
    return x->done && y->done && x->result.report.trace_hash == y->result.report.trace_hash &&
           figure(search, a) <= figure(search, b) && figure(search, a) >= figure(search, b);
}

static uint64_t stride(const struct plan_find *find, uint64_t value, bool up)
{
    uint64_t next = up ? (value > find->to / STRIDE ? find->to : value * STRIDE) : value / STRIDE;
    next = next < find->from ? find->from : next;
    return next == find->to || next == find->from ? next : rounded(next, find);
}

/* Steps from *at, which moves along, until one of `enum walk`; `wary`: looks where it leads. */
static int walk(struct search *search, struct step *at, bool up, bool wary, enum walk *how)
{
    const struct plan_find *find = &search->plan->find;
    /* Where more of what is scarce changes nothing, still more does not either. */
    bool relieves = search->have_bad && up == !search->more_is_worse;
    *how = WALK_END;
    while (at->value != (up ? find->to : find->from) && search->runs < PLAN_FIND_MAX &&
           !jobs_interrupted()) {
        struct step next = {stride(find, at->value, up), search->plan->point_count};
        int err = try_values(search, &next.value, 1);
        if (err != 0)
            return err;
        struct step before = *at;
        *at = next;
        if (search->have_good && search->have_bad)
            *how = WALK_FOUND;
        else if (relieves && same_run(search, before.point, next.point))
            *how = WALK_FLAT;
        else if (wary && leads_away(search, next.point))
            *how = WALK_AWAY;
        else
            continue;
        break;
    }
    return 0;
}

/* Runs the start, then steps towards the side that it is not on. */
static int bracket(struct search *search, uint64_t value)
{
    const struct plan *plan = search->plan;
    enum walk how = WALK_END, other = WALK_END;
    search->start = (struct step){value, search->plan->point_count};
    search->lowest = search->highest = value;
    int err = try_values(search, &value, 1);
    struct step at = search->start, back = search->start;
    bool up = search->have_good == search->more_is_worse;
    if (err == 0)
        err = walk(search, &at, up, true, &how);
    /* What is held against the bound or no mesh may be had at the other end. */
    if (err == 0 && (how == WALK_AWAY || (how != WALK_FOUND && plan->find.metric->relative))) {
        (void)take(search, search->start);
        err = walk(search, &back, !up, true, &other);
        if (err == 0 && other == WALK_FOUND)
            search->more_is_worse = !search->more_is_worse;
        else if (err == 0 && how == WALK_AWAY)
            err = walk(search, &at, up, false, &how);
    }
    search->flat = how == WALK_FLAT;
    return err;
}

/* ---- between them ---- */

/* Points that part the way between good and bad into equal factors. Returns how many there are. */
static size_t between(const struct search *search, uint64_t values[], size_t wanted)
{
    uint64_t low = search->good.value < search->bad.value ? search->good.value : search->bad.value;
    uint64_t high = search->good.value < search->bad.value ? search->bad.value : search->good.value;
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
    while (err == 0 && search->runs < PLAN_FIND_MAX && !jobs_interrupted()) {
        size_t count = between(search, values, width(search->plan));
        if (count == 0)
            break;
        err = try_values(search, values, count);
    }
    return err;
}

/* ---- what it means ---- */

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
    if (report->last_s > 0)
        (void)snprintf(out + used, out_bytes - used, ", %.3g times as fast as without the mesh",
                       report->no_mesh_last_s / report->last_s);
}

/* The figure, or why there is none. */
static void figure_text(const struct search *search, size_t point, char out[PLAN_WHY_BYTES])
{
    const struct plan_point *p = &search->plan->points[point];
    if (p->good)
        (void)snprintf(out, PLAN_WHY_BYTES, "%.4g", figure(search, point));
    else
        (void)snprintf(out, PLAN_WHY_BYTES, "%s", p->why[0] != '\0' ? p->why : "not run");
}

/* Nothing that was tried lies on the other side. */
static int conclude_one_side(const struct search *search, const char *where)
{
    struct plan *plan = search->plan;
    const struct plan_find *find = &plan->find;
    const struct step *last = search->have_good ? &search->good : &search->bad;
    char low[64], high[64], there[PLAN_WHY_BYTES], more[256] = "";
    (void)scenario_number_text(find->key, search->lowest, low, sizeof low);
    (void)scenario_number_text(find->key, search->highest, high, sizeof high);
    figure_text(search, last->point, there);
    if (search->have_good)
        aside(&plan->points[last->point], more, sizeof more);
    else if (find->metric == plan__metric("hit_ratio") && !(figure(search, last->point) > 0))
        (void)snprintf(more, sizeof more,
                       "; no node pulls again what it had, so set arrivals.for or a trace");
    else if (search->flat)
        (void)snprintf(more, sizeof more, ", and no other value changes it");
    plan->unanswered = plan->unanswered || !search->have_good;
    bool down = last->value == search->lowest && search->lowest < search->highest;
    bool one = search->lowest == search->highest; /* the range ends where the search began */
    bool up = search->have_good == search->more_is_worse;
    return plan__answer(plan, "%s%s value of %s %s%s to %s meets %s %s %.4g: it is %s at %s%s",
                        where, search->have_good ? "every" : "no", find->key->name,
                        one ? "" : "from ", one ? (up ? "up" : "down") : low, high,
                        find->metric->name, find->at_least ? ">=" : "<=", find->limit, there,
                        down ? low : high, more);
}

static int conclude(struct search *search)
{
    struct plan *plan = search->plan;
    const struct plan_find *find = &plan->find;
    char where[512], good[64], bad[64], there[PLAN_WHY_BYTES], more[256];
    combination_text(plan, search->like, where, sizeof where);
    if (!search->have_good || !search->have_bad)
        return conclude_one_side(search, where);
    (void)scenario_number_text(find->key, search->good.value, good, sizeof good);
    (void)scenario_number_text(find->key, search->bad.value, bad, sizeof bad);
    aside(&plan->points[search->good.point], more, sizeof more);
    figure_text(search, search->bad.point, there);
    return plan__answer(plan, "%s%s %s for %s %s %.4g: %s (%.4g there, %s at %s)%s", where,
                        search->more_is_worse ? "most" : "least", find->key->name,
                        find->metric->name, find->at_least ? ">=" : "<=", find->limit, good,
                        figure(search, search->good.point), there, bad, more);
}

static int find_one(struct plan *plan, size_t like, uint64_t start)
{
    struct search search = {
        .plan = plan, .like = like, .more_is_worse = plan__more_is_worse(plan->find.key)};
    int err = bracket(&search, rounded(start, &plan->find));
    if (err == 0 && search.have_good && search.have_bad)
        err = refine(&search);
    if (err == 0 && jobs_interrupted()) {
        plan->unanswered = true;
        return plan__answer(plan, "interrupted after %zu runs", search.runs);
    }
    return err == 0 ? conclude(&search) : err;
}

/* Where the scenario sets no limit, one that can be felt: nothing is learned far beyond it. */
static uint64_t unset_value(const struct plan_find *find, const struct scenario *scenario)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < scenario->image_count; i++)
        bytes += scenario_image_bytes(&scenario->images[i]);
    if (find->key->type == SCENARIO_RATE)
        return scenario->world.origin_bps > scenario->world.nic_bps ? scenario->world.origin_bps
                                                                    : scenario->world.nic_bps;
    return strcmp(find->key->name, "cache.capacity") == 0 ? bytes : find->from;
}

/* The scenario's own value of the key, within the range. The least number of nodes is a matter of
 * its zones. */
static int start_value(struct plan *plan, size_t like, uint64_t *out)
{
    struct plan_find *find = &plan->find;
    struct scenario_error error;
    struct scenario *scenario = malloc(sizeof *scenario);
    int err = scenario == NULL ? E_NO_MEMORY : plan__load(plan, like, scenario, &error);
    if (err == 0) {
        uint32_t zones = scenario->world.zone_count;
        bool counts = strcmp(find->key->name, "nodes") == 0;
        find->from = counts && find->wanted_from < zones ? zones : find->wanted_from;
        find->to = find->to < find->from ? find->from : find->to;
        *out = scenario_value_number(find->key, scenario);
        if ((find->key->word != NULL && *out == find->key->word_value) ||
            (*out == 0 && find->key->zero_ok))
            *out = unset_value(find, scenario);
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
    for (size_t i = 0; i < combinations && err == 0 && !jobs_interrupted(); i++) {
        uint64_t start = 0;
        err = start_value(plan, i, &start);
        plan->combinations_left = combinations - i - 1;
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
