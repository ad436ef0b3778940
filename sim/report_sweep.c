/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of a sweep: the planner's answers, plots of each figure over the first swept key with a
 * line for each combination of the others, and all runs as a table.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "html_plot.h"
#include "report_data.h"

/* Lines in one plot that can still be told apart; the table has the rest. */
#define LINES_MAX 6
/* Values this far apart are shown on a logarithmic axis. */
#define LOG_FROM   20.0
#define NAME_BYTES 160

/* Units in which a swept value may be given, each in its dimension's own. */
struct sweep_unit {
    const char *name;
    char dimension;
    double factor;
};

static const struct sweep_unit units[] = {
    {"", 'n', 1},           {"%", '%', 0.01},      {"us", 't', 1e-6},      {"ms", 't', 1e-3},
    {"s", 't', 1},          {"min", 't', 60},      {"h", 't', 3600},       {"B", 'b', 1},
    {"KiB", 'b', 1024},     {"MiB", 'b', 1048576}, {"GiB", 'b', 0x1p30},   {"TiB", 'b', 0x1p40},
    {"kB", 'b', 1e3},       {"MB", 'b', 1e6},      {"GB", 'b', 1e9},       {"TB", 'b', 1e12},
    {"bit/s", 'r', 0.125},  {"kbit/s", 'r', 125},  {"Mbit/s", 'r', 125e3}, {"Gbit/s", 'r', 125e6},
    {"Tbit/s", 'r', 125e9}, {"MB/s", 'r', 1e6},    {"GB/s", 'r', 1e9},     {"MiB/s", 'r', 1048576},
    {"GiB/s", 'r', 0x1p30},
};

/* What all plots of a page share. */
struct sweep {
    const struct report_plan *plan;
    double *x;      /* owned, per row */
    uint32_t *line; /* owned, per row: index of its line, in order of appearance */
    uint32_t line_count;
    struct plot_axis axis;
    const char **names; /* owned; per row's place when the key's values are words */
    double *px, *py;    /* owned, points of one line */
};

/* ---- the swept key's values as places ---- */

static const struct sweep_unit *parse(const char *text, double *value)
{
    char *end = NULL;
    *value = strtod(text, &end);
    if (end == text || !isfinite(*value))
        return NULL;
    end += *end == ' ' ? 1 : 0;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].name) == 0) {
            *value *= units[i].factor;
            return &units[i];
        }
    }
    return NULL;
}

/* Are all values numbers of one dimension? Then x holds them. */
static bool as_numbers(struct sweep *sweep)
{
    const struct sweep_unit *first = NULL;
    for (size_t i = 0; i < sweep->plan->row_count; i++) {
        const struct sweep_unit *unit = parse(sweep->plan->rows[i].values[0], &sweep->x[i]);
        first = i == 0 ? unit : first;
        if (unit == NULL || first == NULL || unit->dimension != first->dimension)
            return false;
    }
    double low = sweep->x[0], high = sweep->x[0];
    for (size_t i = 0; i < sweep->plan->row_count; i++) {
        low = fmin(low, sweep->x[i]);
        high = fmax(high, sweep->x[i]);
    }
    if (!(high > low))
        return false;
    const char *key = sweep->plan->keys[0];
    if (first->dimension == 'b')
        plot_axis_bytes(&sweep->axis, key, high);
    else if (first->dimension == 'r')
        plot_axis_rate(&sweep->axis, key, high);
    else if (first->dimension == 't')
        plot_axis_time(&sweep->axis, key, high);
    else
        plot_axis_number(&sweep->axis, key, first->name, high);
    sweep->axis.unit = first->dimension == '%' ? 0.01 : sweep->axis.unit;
    sweep->axis.log = low > 0 && high / low >= LOG_FROM;
    /* A linear axis begins at 0: half the key's value then looks like half. */
    sweep->axis.low = sweep->axis.log ? low / 1.15 : fmin(low, 0);
    sweep->axis.high = sweep->axis.log ? high * 1.15 : high + 0.04 * (high - low);
    return true;
}

/* Words, or one value only: each distinct one a place of its own. */
static void as_words(struct sweep *sweep)
{
    size_t count = 0;
    for (size_t i = 0; i < sweep->plan->row_count; i++) {
        const char *value = sweep->plan->rows[i].values[0];
        size_t place = 0;
        while (place < count && strcmp(sweep->names[place], value) != 0)
            place++;
        if (place == count)
            sweep->names[count++] = value;
        sweep->x[i] = (double)place;
    }
    plot_axis_number(&sweep->axis, sweep->plan->keys[0], "", (double)count);
    sweep->axis.names = sweep->names;
}

static bool same_line(const struct report_plan *plan, size_t a, size_t b)
{
    for (size_t i = 1; i < plan->key_count; i++) {
        if (strcmp(plan->rows[a].values[i], plan->rows[b].values[i]) != 0)
            return false;
    }
    return true;
}

static void find_lines(struct sweep *sweep)
{
    for (size_t i = 0; i < sweep->plan->row_count; i++) {
        size_t earlier = 0;
        while (earlier < i && !same_line(sweep->plan, earlier, i))
            earlier++;
        sweep->line[i] = earlier < i ? sweep->line[earlier] : sweep->line_count++;
    }
}

static void sweep_close(struct sweep *sweep)
{
    free(sweep->x);
    free(sweep->line);
    free(sweep->names);
    free(sweep->px);
    free(sweep->py);
}

static int sweep_init(struct sweep *sweep, const struct report_plan *plan)
{
    size_t rows = plan->row_count;
    *sweep = (struct sweep){.plan = plan,
                            .x = calloc(rows + 1, sizeof(double)),
                            .line = calloc(rows + 1, sizeof(uint32_t)),
                            .names = calloc(rows + 1, sizeof(char *)),
                            .px = calloc(rows + 1, sizeof(double)),
                            .py = calloc(rows + 1, sizeof(double))};
    if (sweep->x == NULL || sweep->line == NULL || sweep->names == NULL || sweep->px == NULL ||
        sweep->py == NULL) {
        sweep_close(sweep);
        return E_NO_MEMORY;
    }
    if (rows > 0 && !as_numbers(sweep))
        as_words(sweep);
    find_lines(sweep);
    return 0;
}

/* ---- plots ---- */

typedef double (*figure_fn)(const struct report *report);

static double last_s(const struct report *report)
{
    return report->last_s;
}

static double bound_s(const struct report *report)
{
    return report->bound_s;
}

static double no_mesh_s(const struct report *report)
{
    return report->no_mesh_last_s;
}

static double gain(const struct report *report)
{
    return report->last_s > 0 ? report->no_mesh_last_s / report->last_s : 0;
}

static double origin_copies(const struct report *report)
{
    return report->origin_copies;
}

static double cross_zone(const struct report *report)
{
    return (double)report->cross_zone_bytes;
}

static double largest(const struct sweep *sweep, figure_fn figure)
{
    double most = 0;
    for (size_t i = 0; i < sweep->plan->row_count; i++)
        most = fmax(most, figure(&sweep->plan->rows[i].report));
    return most;
}

static double smallest(const struct sweep *sweep, figure_fn figure)
{
    double least = largest(sweep, figure);
    for (size_t i = 0; i < sweep->plan->row_count; i++) {
        double value = figure(&sweep->plan->rows[i].report);
        least = value > 0 ? fmin(least, value) : least;
    }
    return least;
}

/* Points of one line by rising x, in px and py. Insertion: lines are short. */
static size_t points_of(struct sweep *sweep, uint32_t line, figure_fn figure)
{
    size_t count = 0;
    for (size_t i = 0; i < sweep->plan->row_count; i++) {
        if (sweep->line[i] != line)
            continue;
        size_t at = count++;
        double x = sweep->x[i] + (sweep->axis.names != NULL ? 0.5 : 0);
        for (; at > 0 && sweep->px[at - 1] > x; at--) {
            sweep->px[at] = sweep->px[at - 1];
            sweep->py[at] = sweep->py[at - 1];
        }
        sweep->px[at] = x;
        sweep->py[at] = figure(&sweep->plan->rows[i].report);
    }
    return count;
}

/* "nic=1Gbit/s, zones=3" */
static void line_name(const struct sweep *sweep, uint32_t line, char out[NAME_BYTES])
{
    size_t row = 0, used = 0;
    while (sweep->line[row] != line)
        row++;
    out[0] = '\0';
    for (size_t i = 1; i < sweep->plan->key_count && used < NAME_BYTES; i++) {
        int wrote = snprintf(out + used, NAME_BYTES - used, "%s%s=%s", i > 1 ? ", " : "",
                             sweep->plan->keys[i], sweep->plan->rows[row].values[i]);
        used += wrote > 0 ? (size_t)wrote : NAME_BYTES;
    }
}

static const char *const line_styles[LINES_MAX] = {
    "q0 thick", "q1 thick long", "q2 thick mixed", "q3 thick dash", "q4 thick dots", "q5 thick",
};

/* One line for each combination of the other keys, with what hover shows. */
static void draw_lines(struct plot *plot, struct sweep *sweep, figure_fn figure, const char *what)
{
    uint32_t shown = sweep->line_count < LINES_MAX ? sweep->line_count : LINES_MAX;
    for (uint32_t line = 0; line < shown; line++) {
        size_t count = points_of(sweep, line, figure);
        char name[NAME_BYTES];
        line_name(sweep, line, name);
        plot_dots(plot, line_styles[line], sweep->px, sweep->py, count);
        plot_read(plot, &(struct plot_values){line_styles[line], name[0] != '\0' ? name : what,
                                              sweep->px, sweep->py, count});
    }
}

static void draw_legend(struct sweep *sweep, bool references, FILE *to)
{
    char names[LINES_MAX][NAME_BYTES];
    struct plot_key keys[LINES_MAX + 2];
    size_t count = 0;
    uint32_t shown = sweep->line_count < LINES_MAX ? sweep->line_count : LINES_MAX;
    for (uint32_t line = 0; line < shown; line++) {
        line_name(sweep, line, names[line]);
        keys[count++] = (struct plot_key){
            line_styles[line], names[line][0] != '\0' ? names[line] : "with the mesh", true};
    }
    if (references) {
        keys[count++] = (struct plot_key){"c-bound dash", "fluid bound", true};
        keys[count++] = (struct plot_key){"c-none dots", "without the mesh", true};
    }
    plot_legend(to, keys, count);
}

static void plot_last(struct sweep *sweep, FILE *to)
{
    struct plot plot = {.x = sweep->axis};
    bool references = sweep->line_count == 1;
    double most = largest(sweep, last_s);
    double all = references ? fmax(most, largest(sweep, no_mesh_s)) : most;
    double least = references ? fmin(smallest(sweep, bound_s), smallest(sweep, last_s))
                              : smallest(sweep, last_s);
    bool log = least > 0 && all / least >= LOG_FROM;
    /* Units of the small values, which on this scale have as much room as the large ones. */
    plot_axis_time(&plot.y, "time to the last node's image", log ? least : all);
    plot.y.log = log;
    if (plot.y.log) {
        plot.y.low = least / 1.3;
        plot.y.high = all * 1.3;
    } else {
        plot_axis_round(&plot.y);
    }
    html_figure_begin(to, "last", "When the last node has the image");
    plot_begin(&plot, to, "last", "Time to the last node",
               "Lines over the swept key, beside the fluid bound and the time without the mesh.");
    if (references) {
        size_t count = points_of(sweep, 0, no_mesh_s);
        plot_line(&plot, "c-none dots", sweep->px, sweep->py, count);
        plot_read(&plot,
                  &(struct plot_values){"c-none", "without the mesh", sweep->px, sweep->py, count});
        count = points_of(sweep, 0, bound_s);
        plot_line(&plot, "c-bound dash", sweep->px, sweep->py, count);
        plot_read(&plot,
                  &(struct plot_values){"c-bound", "fluid bound", sweep->px, sweep->py, count});
    }
    draw_lines(&plot, sweep, last_s, "with the mesh");
    plot_end(&plot);
    draw_legend(sweep, references, to);
    html_figure_end(
        to, log ? "The bound is made of the nodes' links and the registry's: nothing can be "
                  "faster. The scale is logarithmic."
                : "The bound is made of the nodes' links and the registry's: nothing can be "
                  "faster.");
}

struct sweep_plot {
    const char *id, *title, *summary, *axis, *caption;
    figure_fn figure;
    bool bytes;
};

static void plot_figure(struct sweep *sweep, const struct sweep_plot *what, FILE *to)
{
    struct plot plot = {.x = sweep->axis};
    double most = largest(sweep, what->figure) * 1.05;
    if (what->bytes)
        plot_axis_bytes(&plot.y, what->axis, most);
    else
        plot_axis_number(&plot.y, what->axis, "", most);
    plot_axis_round(&plot.y);
    html_figure_begin(to, what->id, what->title);
    plot_begin(&plot, to, what->id, what->title, what->summary);
    draw_lines(&plot, sweep, what->figure, what->axis);
    plot_end(&plot);
    if (sweep->line_count > 1)
        draw_legend(sweep, false, to);
    html_figure_end(to, what->caption);
}

static void plots(struct sweep *sweep, FILE *to)
{
    static const struct sweep_plot list[] = {
        {"origin", "How often the registry sends the image", "Lines over the swept key.",
         "copies from the registry",
         "1 is the least; the sum of all bytes it sends, over the image's size.", origin_copies,
         false},
        {"cross", "What crosses zone borders", "Lines over the swept key.", "bytes across zones",
         "All bytes that nodes of one zone get from nodes of another in one roll-out.", cross_zone,
         true},
        {"gain", "What the mesh saves in time", "Lines over the swept key.",
         "time without / with the mesh",
         "How many times as long the last node would wait without the mesh.", gain, false},
    };
    fputs("<div class=\"plots\">\n", to);
    plot_last(sweep, to);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        plot_figure(sweep, &list[i], to);
    fputs("</div>\n", to);
    if (sweep->line_count > LINES_MAX)
        fprintf(
            to,
            "<p class=\"about\">The plots show the first %d of %u lines; the table has all.</p>\n",
            LINES_MAX, sweep->line_count);
}

/* ---- text ---- */

static void table_row(const struct report_plan *plan, const struct report_plan_row *row, FILE *to)
{
    const struct report *report = &row->report;
    char text[HTML_NUMBER_BYTES];
    fprintf(to, "<tr%s>",
            report->pulls_failed > 0 || report->wrong_bytes > 0 ? " class=\"bad\"" : "");
    for (size_t i = 0; i < plan->key_count; i++) {
        fputs("<th scope=\"row\">", to);
        html_text(to, row->values[i]);
        fputs("</th>", to);
    }
    const double times[] = {report->bound_s, report->p50_s, report->p99_s, report->last_s,
                            report->no_mesh_last_s};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        fprintf(to, "<td>%s</td>", html_time(text, times[i]));
    fprintf(to, "<td>%.2f</td>", report->bound_s > 0 ? report->last_s / report->bound_s : 0);
    fprintf(to, "<td>%s</td>", html_number(text, report->origin_copies));
    fprintf(to, "<td>%s</td>", html_bytes(text, (double)report->origin_bytes));
    fprintf(to, "<td>%s</td>", html_bytes(text, (double)report->cross_zone_bytes));
    fprintf(to, "<td>%s</td>", html_number(text, report->upload_skew));
    fprintf(to, "<td>%u</td><td>%" PRIu64 "</td></tr>\n", report->pulls_failed, report->seed);
}

static void table(const struct report_plan *plan, FILE *to)
{
    static const char *const heads[] = {
        "fluid bound",        "median node",  "99 % of nodes", "last node",
        "without mesh",       "last / bound", "origin copies", "bytes from registry",
        "bytes across zones", "upload skew",  "failed pulls",  "seed"};
    fputs("<section id=\"runs\">\n<h2>All runs</h2>\n<div class=\"scroll\" tabindex=\"0\">"
          "<table class=\"sweep\">\n<thead><tr>",
          to);
    for (size_t i = 0; i < plan->key_count; i++) {
        fputs("<th scope=\"col\">", to);
        html_text(to, plan->keys[i]);
        fputs("</th>", to);
    }
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        fprintf(to, "<th scope=\"col\">%s</th>", heads[i]);
    fputs("</tr></thead>\n<tbody>\n", to);
    for (size_t i = 0; i < plan->row_count; i++)
        table_row(plan, &plan->rows[i], to);
    fputs("</tbody></table></div>\n</section>\n", to);
}

static void answers(const struct report_plan *plan, FILE *to)
{
    fputs("<ul class=\"answers\">\n", to);
    for (size_t i = 0; i < plan->answer_count; i++) {
        fputs("<li>", to);
        html_text(to, plan->answers[i]);
        fputs("</li>\n", to);
    }
    size_t failed = 0;
    for (size_t i = 0; i < plan->row_count; i++)
        failed += plan->rows[i].report.pulls_failed > 0 ? 1 : 0;
    if (failed > 0)
        fprintf(to,
                "<li class=\"bad\">%zu of %zu runs had failed pulls; their rows are marked.</li>\n",
                failed, plan->row_count);
    if (plan->answer_count == 0)
        fprintf(to, "<li>%zu runs over <code>", plan->row_count);
    for (size_t i = 0; plan->answer_count == 0 && i < plan->key_count; i++) {
        fputs(i > 0 ? ", " : "", to);
        html_text(to, plan->keys[i]);
    }
    fputs(plan->answer_count == 0 ? "</code>.</li>\n</ul>\n" : "</ul>\n", to);
}

int report_plan_html(const struct report_plan *plan, FILE *to)
{
    struct sweep sweep;
    int err = sweep_init(&sweep, plan);
    if (err != 0)
        return err;
    html_begin(to, plan->scenario != NULL ? plan->scenario : "plan", plan->description);
    answers(plan, to);
    if (plan->row_count > 0)
        plots(&sweep, to);
    table(plan, to);
    fputs("<div class=\"tables one\">\n", to);
    html_settings(to, plan->settings, plan->setting_count, plan->command);
    fputs("</div>\n", to);
    html_end(to);
    sweep_close(&sweep);
    return html_done(to);
}
