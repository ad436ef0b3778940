/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan tells: a bar while it runs, a table, sentences that answer, JSON, CSV, HTML. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plan.h"
#include "progress.h"

#define GIB (1024.0 * 1024 * 1024)

double plan__now_s(void)
{
    return progress_now_s();
}

int plan__answer(struct plan *plan, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    if (plan->answer_count == plan->answer_capacity) {
        size_t capacity = plan->answer_capacity == 0 ? 16 : 2 * plan->answer_capacity;
        char **grown = realloc(plan->answers, capacity * sizeof *grown);
        if (grown == NULL)
            return E_NO_MEMORY;
        plan->answers = grown;
        plan->answer_capacity = capacity;
    }
    va_start(args, format);
    int bytes = vasprintf(&text, format, args);
    va_end(args);
    if (bytes < 0)
        return E_NO_MEMORY;
    plan->answers[plan->answer_count++] = text;
    return 0;
}

/* ---- progress ---- */

void plan__progress(const struct plan *plan, bool last)
{
    char bar[PROGRESS_BAR_CELLS + 1], gone[PROGRESS_CLOCK_BYTES], left[PROGRESS_CLOCK_BYTES];
    if (plan->quiet || !isatty(STDERR_FILENO))
        return;
    if (last) {
        fprintf(stderr, "\r\033[K");
        return;
    }
    double elapsed_s = plan__now_s() - plan->start_s;
    progress_clock(elapsed_s, gone);
    size_t total = plan->points_planned > 0 ? plan->points_planned : plan->point_count;
    total = total > plan->points_done ? total : plan->points_done;
    total = total > 0 ? total : 1;
    progress_bar((double)plan->points_done / (double)total, bar);
    double each_s = plan->points_done > 0 ? elapsed_s / (double)plan->points_done : 0;
    progress_clock(each_s * (double)(total - plan->points_done), left);
    fprintf(stderr, "\r\033[K[%s] %zu/%s%zu runs, %s gone, %s%s", bar, plan->points_done,
            plan->find.key != NULL ? "about " : "", total, gone, plan->points_done > 0 ? left : "?",
            plan->points_done > 0 ? " left" : "");
    (void)fflush(stderr);
}

/* ---- answers ---- */

static double gain_of(const struct plan_point *point)
{
    const struct report *report = &point->result.report;
    return report->last_s > 0 ? report->no_mesh_last_s / report->last_s : 0;
}

static void point_text(const struct plan *plan, const struct plan_point *point, char *out,
                       size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < plan__columns(plan) && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s=%s", i > 0 ? ", " : "",
                                 plan__column(plan, i), point->values[i]);
}

/* Smallest and largest of a figure over the good points. */
struct span {
    const struct plan_point *low, *high;
    double low_value, high_value;
};

static double last_of(const struct plan_point *point)
{
    return point->result.report.last_s;
}

static double border_of(const struct plan_point *point)
{
    return (double)point->result.report.cross_zone_bytes / GIB;
}

static double saved_of(const struct plan_point *point)
{
    const struct report *report = &point->result.report;
    double pulled = (double)point->result.pulled_bytes;
    return pulled > 0 ? 1 - (double)report->origin_bytes / pulled : 0;
}

static struct span span_of(const struct plan *plan, double (*of)(const struct plan_point *))
{
    struct span span = {.low = NULL};
    for (size_t i = 0; i < plan->point_count; i++) {
        const struct plan_point *point = &plan->points[i];
        if (!point->good)
            continue;
        double value = of(point);
        if (span.low == NULL || value < span.low_value) {
            span.low = point;
            span.low_value = value;
        }
        if (span.high == NULL || value > span.high_value) {
            span.high = point;
            span.high_value = value;
        }
    }
    return span;
}

static int say_span(struct plan *plan, const char *what, const char *unit,
                    double (*of)(const struct plan_point *))
{
    char low[512], high[512];
    struct span span = span_of(plan, of);
    if (span.low == NULL)
        return 0;
    point_text(plan, span.low, low, sizeof low);
    point_text(plan, span.high, high, sizeof high);
    if (span.low == span.high || span.low_value >= span.high_value)
        return plan__answer(plan, "%s: %.4g%s", what, span.low_value, unit);
    return plan__answer(plan, "%s: from %.4g%s (%s) to %.4g%s (%s)", what, span.low_value, unit,
                        low, span.high_value, unit, high);
}

int plan__conclude(struct plan *plan)
{
    size_t bad = 0;
    if (plan->find.key != NULL)
        return 0; /* the search has said what it found */
    for (size_t i = 0; i < plan->point_count; i++)
        bad += !plan->points[i].good;
    int err = say_span(plan, "last node after", " s", last_of);
    if (err == 0)
        err = say_span(plan, "bytes over zone borders per roll-out", " GiB", border_of);
    if (err == 0)
        err = say_span(plan, "times as fast as without the mesh (last node)", "", gain_of);
    if (err == 0)
        err =
            say_span(plan, "share of the pulled bytes that the origin need not give", "", saved_of);
    if (err == 0 && bad > 0)
        err = plan__answer(plan, "%zu of %zu runs did not end well; see the table", bad,
                           plan->point_count);
    return err;
}

/* ---- the table ---- */

static int width_of(const struct plan *plan, size_t column)
{
    size_t width = strlen(plan__column(plan, column));
    for (size_t i = 0; i < plan->point_count; i++) {
        size_t bytes = strlen(plan->points[i].values[column]);
        width = bytes > width ? bytes : width;
    }
    return (int)(width < 40 ? width : 40);
}

static void table_row(const struct plan *plan, const struct plan_point *point, const int *widths)
{
    const struct report *r = &point->result.report;
    for (size_t i = 0; i < plan__columns(plan); i++)
        printf("%*.40s  ", widths[i], point->values[i]);
    if (!point->done) {
        printf("%s\n", point->why);
        return;
    }
    double bound_s = r->bound_s > 0 ? r->bound_s : 1;
    printf("%9.2f %9.2f %9.2f  %6.3f  %7.3f %10.2f %7.3f %10.2f  %8.1f  %6.3f  %s\n", r->p50_s,
           r->p99_s, r->last_s, r->last_s / bound_s, r->origin_copies,
           (double)r->origin_bytes / GIB, r->cross_zone_copies, (double)r->cross_zone_bytes / GIB,
           gain_of(point), scenario_hit_ratio(&point->result), point->why);
}

static void table(const struct plan *plan)
{
    int widths[PLAN_KEYS_MAX + 1] = {0};
    for (size_t i = 0; i < plan__columns(plan); i++) {
        widths[i] = width_of(plan, i);
        printf("%*s  ", widths[i], plan__column(plan, i));
    }
    printf("%9s %9s %9s  %6s  %7s %10s %7s %10s  %8s  %6s\n", "p50 s", "p99 s", "last s", "/bound",
           "origin", "GiB", "border", "GiB", "gain", "hits");
    for (size_t i = 0; i < plan->point_count; i++)
        table_row(plan, &plan->points[i], widths);
    for (size_t i = 0; i < plan->answer_count; i++)
        printf("%s%s\n", i == 0 ? "\n" : "", plan->answers[i]);
}

/* ---- reports ---- */

struct forms {
    struct report_plan plan;
    struct report_plan_row *rows; /* owned */
    const char *keys[PLAN_KEYS_MAX + 1];
    struct scenario scenario;
    struct scenario_settings settings;
    struct report_setting shared[SCENARIO_KEYS_MAX];
};

static bool is_column(const struct plan *plan, const char *name)
{
    for (size_t i = 0; i < plan__columns(plan); i++)
        if (strcmp(plan__column(plan, i), name) == 0)
            return true;
    return false;
}

/* Settings that all rows share, from the first one's scenario. */
static int share_settings(const struct plan *plan, struct forms *forms)
{
    struct scenario_error error;
    int err = plan__load(plan, 0, &forms->scenario, &error);
    if (err != 0)
        return err;
    scenario_settings_of(&forms->scenario, &forms->settings);
    for (size_t i = 0; i < forms->settings.count; i++)
        if (!is_column(plan, forms->settings.rows[i].key))
            forms->shared[forms->plan.setting_count++] = forms->settings.rows[i];
    scenario_close(&forms->scenario);
    return 0;
}

static int fill(const struct plan *plan, struct forms *forms)
{
    forms->rows = calloc(plan->point_count, sizeof *forms->rows);
    if (forms->rows == NULL)
        return E_NO_MEMORY;
    for (size_t i = 0; i < plan__columns(plan); i++)
        forms->keys[i] = plan__column(plan, i);
    for (size_t i = 0; i < plan->point_count; i++)
        forms->rows[i] =
            (struct report_plan_row){.values = (const char *const *)plan->points[i].values,
                                     .report = plan->points[i].result.report};
    int err = share_settings(plan, forms);
    const char *name = forms->scenario.name.text;
    forms->plan.scenario = name[0] != '\0' ? name : "plan";
    forms->plan.description = forms->scenario.description.text;
    forms->plan.command = plan->command;
    forms->plan.answers = (const char *const *)plan->answers;
    forms->plan.answer_count = plan->answer_count;
    forms->plan.keys = forms->keys;
    forms->plan.key_count = plan__columns(plan);
    forms->plan.rows = forms->rows;
    forms->plan.row_count = plan->point_count;
    forms->plan.settings = forms->shared;
    return err;
}

typedef int (*write_fn)(const struct report_plan *plan, FILE *to);

static int write_file(const char *path, write_fn write, const struct report_plan *plan)
{
    if (path == NULL)
        return 0;
    FILE *file = fopen(path, "wb");
    int err = file == NULL ? E_IO : write(plan, file);
    if (file != NULL && fclose(file) != 0 && err == 0)
        err = E_IO;
    if (err != 0)
        fprintf(stderr, "shoal-sim: %s: cannot be written: %s\n", path, err_text(err));
    return err;
}

int plan__show(struct plan *plan)
{
    struct forms *forms = calloc(1, sizeof *forms);
    int err = forms == NULL ? E_NO_MEMORY : fill(plan, forms);
    if (err != 0) {
        fprintf(stderr, "shoal-sim: %s\n", err_text(err));
    } else {
        if (plan->json || (!plan->text && !isatty(STDOUT_FILENO)))
            err = report_plan_json(&forms->plan, stdout);
        else
            table(plan);
        int html_err = write_file(plan->html, report_plan_html, &forms->plan);
        int csv_err = write_file(plan->csv, report_plan_csv, &forms->plan);
        err = err != 0 ? err : html_err != 0 ? html_err : csv_err;
    }
    if (forms != NULL)
        free(forms->rows);
    free(forms);
    return err;
}
