/* SPDX-License-Identifier: Apache-2.0 */
/* The plots of one run; see report_page.h. */
#include <math.h>

#include "report_page.h"

/* Points of a curve of completions: more would be closer than a pixel. */
#define CURVE_POINTS 200
/* Bars of the upload plot. */
#define BARS_MAX 80
/* Without the mesh the times are shown beside the mesh's if they are at most this many times as
 * long; else the curve itself would be a line at the left edge. */
#define SHOWN_TOGETHER 3.0
#define CAPTION_BYTES  400
/* A step curve has two points per sample. */
#define STEP_POINTS (2 * REPORT_COLUMNS)

/* ---- time to the last node, as bars ---- */

static void plot_times(const struct report *report, FILE *to)
{
    static const char *const names[] = {"fluid bound", "median node", "last node", "without mesh"};
    static const char *const styles[] = {"c-bound", "c-mesh", "c-mesh", "c-none"};
    const double values[] = {report->bound_s, report->p50_s, report->last_s,
                             report->no_mesh_last_s};
    struct plot plot = {0};
    double high = fmax(fmax(report->last_s, report->no_mesh_last_s), report->bound_s);
    plot_axis_time(&plot.x, "time to the whole image", high);
    plot_axis_number(&plot.y, "", "", 4);
    plot.y.names = names;
    html_figure_begin(to, "times", "How long it takes, with and without the mesh");
    plot_begin(&plot, to, "times", "Time to the whole image",
               "Bars: the fluid bound, the median node, the last node, and the last node when all "
               "pull from the registry.");
    for (size_t i = 0; i < 4; i++) {
        char label[HTML_NUMBER_BYTES];
        plot_bar_across(&plot, styles[i], i, values[i], html_time(label, values[i]));
    }
    plot_end(&plot);
    html_figure_end(to, "Each node counts from the moment it asked. The bound is the larger of "
                        "image / slowest link, image / registry rate, and all bytes / all rates.");
}

/* ---- completion ---- */

/* Steps of the share of `all` nodes that are done, from their times: at most CURVE_POINTS. */
static size_t completion_steps(const double *seconds, size_t done_count, size_t all,
                               double x[2 * CURVE_POINTS], double y[2 * CURVE_POINTS])
{
    size_t points = done_count < CURVE_POINTS ? done_count : CURVE_POINTS;
    size_t count = 0;
    double share = 0;
    for (size_t i = 1; i <= points; i++) {
        size_t done = i * done_count / points;
        x[count] = seconds[done - 1];
        y[count++] = share;
        share = (double)done / (double)all;
        x[count] = seconds[done - 1];
        y[count++] = share;
    }
    return count;
}

/* The nodes without a mesh: a curve if it fits beside the mesh's, else a note. */
static void draw_no_mesh(struct plot *plot, const struct report *report,
                         const struct report_data *data, bool beside)
{
    double x[2 * CURVE_POINTS], y[2 * CURVE_POINTS];
    char time[HTML_NUMBER_BYTES], label[2 * HTML_NUMBER_BYTES];
    html_time(time, report->no_mesh_last_s);
    if (!beside) {
        snprintf(label, sizeof label, "without mesh: %s \xE2\x86\x92", time);
        plot_note(plot, label);
        return;
    }
    size_t count = completion_steps(data->no_mesh_s, data->pulled_count, data->pulled_count, x, y);
    plot_line(plot, "c-none dots", x, y, count);
    plot_read(plot, &(struct plot_values){"c-none", "without the mesh", x, y, count});
}

static void plot_completion(const struct report *report, const struct report_data *data, FILE *to)
{
    double x[2 * CURVE_POINTS], y[2 * CURVE_POINTS];
    char label[2 * HTML_NUMBER_BYTES], time[HTML_NUMBER_BYTES];
    struct plot plot = {0};
    bool beside = report->no_mesh_last_s <= SHOWN_TOGETHER * report->last_s;
    bool clients = report->by_client;
    double most = fmax(report->last_s, report->bound_s);
    most = beside ? fmax(most, report->no_mesh_last_s) : most;
    plot_axis_time(&plot.x, clients ? "time since it was asked for" : "time since the node asked",
                   most + 0.3 * (most - report->bound_s));
    /* From a little before the bound: all that can differ lies behind it. */
    plot.x.low = clients ? 0 : fmax(report->bound_s - 0.3 * (most - report->bound_s), 0);
    plot_axis_number(
        &plot.y, clients ? "pulls that have the whole image" : "nodes that have the whole image",
        "%", 1);
    plot.y.unit = 0.01;
    html_figure_begin(to, "completion", "Who has the image when");
    plot_begin(&plot, to, "completion", "Completion of the nodes",
               "The share of nodes that have everything, over the time since each asked, beside "
               "the fluid bound and the time without the mesh.");
    snprintf(label, sizeof label, "bound %s", html_time(time, report->bound_s));
    plot_mark_x(&plot, "c-bound dash", report->bound_s, label, false);
    draw_no_mesh(&plot, report, data, beside);
    size_t count =
        completion_steps(data->completion_s, data->completion_count, data->pulled_count, x, y);
    plot_line(&plot, "c-mesh thick", x, y, count);
    plot_read(&plot,
              &(struct plot_values){"c-mesh", clients ? "pulls done" : "nodes done", x, y, count});
    plot_end(&plot);
    const struct plot_key keys[] = {
        {"c-mesh thick", clients ? "pulls of this run" : "nodes of this run", true},
        {"c-bound dash", "fluid bound", true},
        {"c-none dots", "without the mesh", true}};
    plot_legend(to, keys, beside ? 3 : 2);
    html_figure_end(to, "Steep and close to the bound: everybody is served alike and nobody is "
                        "left behind. The time axis begins shortly before the bound.");
}

/* ---- over time ---- */

/* Both ends of each sample. */
static size_t step_times(const struct report_data *data, double x[STEP_POINTS])
{
    for (uint32_t i = 0; i < data->sample_count; i++) {
        x[2 * i] = i * data->period_s;
        x[2 * i + 1] = fmin((i + 1) * data->period_s, data->end_s);
    }
    return 2 * (size_t)data->sample_count;
}

static double step_values(const double *values, uint32_t count, double y[STEP_POINTS])
{
    double most = 0;
    for (uint32_t i = 0; i < count; i++) {
        y[2 * i] = y[2 * i + 1] = values[i];
        most = fmax(most, values[i]);
    }
    return most;
}

static void plot_throughput(const struct report *report, const struct report_data *data, FILE *to)
{
    double x[STEP_POINTS], origin[STEP_POINTS], zone[STEP_POINTS], all[STEP_POINTS];
    double same[REPORT_COLUMNS] = {0}, cross[REPORT_COLUMNS] = {0};
    double sums[2][REPORT_COLUMNS] = {{0}};
    size_t count = step_times(data, x);
    for (uint32_t i = 0; i < data->sample_count; i++) {
        same[i] = data->arrived[SERIES_VSWITCH][i] + data->arrived[SERIES_ZONE][i];
        cross[i] = data->arrived[SERIES_CROSS][i];
        sums[0][i] = data->arrived[SERIES_ORIGIN][i] + same[i];
        sums[1][i] = sums[0][i] + cross[i];
    }
    (void)step_values(data->arrived[SERIES_ORIGIN], data->sample_count, origin);
    (void)step_values(sums[0], data->sample_count, zone);
    double most = step_values(sums[1], data->sample_count, all);
    struct plot plot = {0};
    plot_axis_time(&plot.x, "time since the first pull", data->end_s);
    plot_axis_rate(&plot.y, "payload that arrives, all nodes", most);
    plot_axis_round(&plot.y);
    html_figure_begin(to, "throughput", "Where the bytes come from");
    plot_begin(&plot, to, "throughput", "Throughput by source",
               "Stacked areas over time: from the registry, from nodes of the same zone, from "
               "nodes of other zones.");
    plot_area(&plot, "c-origin", x, NULL, origin, count);
    plot_area(&plot, "c-zone", x, origin, zone, count);
    plot_area(&plot, "c-cross", x, zone, all, count);
    (void)step_values(cross, data->sample_count, all);
    plot_read(&plot, &(struct plot_values){"c-cross", "other zones", x, all, count});
    (void)step_values(same, data->sample_count, zone);
    plot_read(&plot, &(struct plot_values){"c-zone", "same zone", x, zone, count});
    plot_read(&plot, &(struct plot_values){"c-origin", "registry", x, origin, count});
    plot_end(&plot);
    const struct plot_key keys[] = {{"c-cross", "nodes of other zones", false},
                                    {"c-zone", "nodes of the same zone", false},
                                    {"c-origin", "registry", false}};
    plot_legend(to, keys, 3);
    char caption[CAPTION_BYTES], rate[HTML_NUMBER_BYTES];
    snprintf(caption, sizeof caption,
             "Stacked. To meet the bound, all nodes together must receive %s.",
             html_rate(rate, report->bound_s > 0
                                 ? (double)report->bytes * report->nodes / report->bound_s
                                 : 0));
    html_figure_end(to, caption);
}

static void plot_sums(const struct report *report, const struct report_data *data, FILE *to)
{
    double x[REPORT_COLUMNS + 1] = {0}, origin[REPORT_COLUMNS + 1] = {0};
    double cross[REPORT_COLUMNS + 1] = {0};
    size_t count = data->sample_count + 1;
    for (uint32_t i = 0; i < data->sample_count; i++) {
        x[i + 1] = fmin((i + 1) * data->period_s, data->end_s);
        origin[i + 1] = data->origin_sum[i];
        cross[i + 1] = data->cross_sum[i];
    }
    double ideal = report->zones > 1 ? (double)report->bytes * (report->zones - 1) : 0;
    struct plot plot = {0};
    plot_axis_time(&plot.x, "time since the first pull", data->end_s);
    plot_axis_bytes(
        &plot.y, "bytes so far",
        1.08 * fmax(fmax(origin[count - 1], cross[count - 1]), fmax(ideal, (double)report->bytes)));
    plot_axis_round(&plot.y);
    html_figure_begin(to, "sums", "What the registry sends and what crosses zones");
    plot_begin(&plot, to, "sums", "Bytes from the registry and across zones",
               "Two rising lines over time, beside one copy of the image and one for each zone "
               "but the first.");
    plot_mark_y(&plot, "c-bound dash", (double)report->bytes, "one copy of the image", true);
    if (report->zones > 2)
        plot_mark_y(&plot, "c-bound dash", ideal, "one for each zone but the first", true);
    if (report->zones > 1)
        plot_line(&plot, "c-cross thick long", x, cross, count);
    plot_line(&plot, "c-origin thick", x, origin, count);
    plot_read(&plot, &(struct plot_values){"c-origin", "registry", x, origin, count});
    if (report->zones > 1)
        plot_read(&plot, &(struct plot_values){"c-cross", "across zones", x, cross, count});
    plot_end(&plot);
    const struct plot_key keys[] = {{"c-origin thick", "sent by the registry", true},
                                    {"c-bound dash", "whole copies", true},
                                    {"c-cross thick long", "crossed a zone border", true}};
    plot_legend(to, keys, report->zones > 1 ? 3 : 2);
    html_figure_end(to, "The sums end where all nodes are served; above the dashed lines bytes "
                        "were sent twice.");
}

static void plot_control(const struct report *report, const struct report_data *data, FILE *to)
{
    double x[STEP_POINTS], y[STEP_POINTS], each[REPORT_COLUMNS];
    size_t count = step_times(data, x);
    for (uint32_t i = 0; i < data->sample_count; i++)
        each[i] = data->control_bps[i] / (report->nodes > 0 ? report->nodes : 1);
    double most = step_values(each, data->sample_count, y);
    struct plot plot = {0};
    plot_axis_time(&plot.x, "time since the first pull", data->end_s);
    plot_axis_rate(&plot.y, "control messages per node", most);
    plot_axis_round(&plot.y);
    html_figure_begin(to, "control", "What the mesh says to itself");
    plot_begin(&plot, to, "control", "Control traffic",
               "The rate of control messages a node sends, over time.");
    plot_area(&plot, "c-control", x, NULL, y, count);
    plot_read(&plot, &(struct plot_values){"c-control", "control", x, y, count});
    plot_end(&plot);
    char caption[CAPTION_BYTES], share[HTML_NUMBER_BYTES];
    snprintf(caption, sizeof caption,
             "Membership, lookups, leases and announcements, mean of all nodes. In the whole run "
             "%s %% of the image bytes.",
             html_number(share, report->control_fraction * 100));
    html_figure_end(to, caption);
}

/* Who is there: for churn, roll-outs and late joiners the other plots are read beside it. */
static void plot_crowd(const struct report_data *data, FILE *to)
{
    double x[STEP_POINTS], up[STEP_POINTS], running[STEP_POINTS];
    size_t count = step_times(data, x);
    double most = fmax(step_values(data->nodes_up, data->sample_count, up),
                       step_values(data->pulls_running, data->sample_count, running));
    struct plot plot = {0};
    plot_axis_time(&plot.x, "time since the first pull", data->end_s);
    plot_axis_number(&plot.y, "nodes and pulls", "", most * 1.05);
    plot_axis_round(&plot.y);
    html_figure_begin(to, "crowd", "Who is there and who waits");
    plot_begin(&plot, to, "crowd", "Nodes up and pulls running",
               "Two lines over time: nodes that are up, and pulls that run.");
    plot_line(&plot, "c-control thick long", x, up, count);
    plot_line(&plot, "c-mesh thick", x, running, count);
    plot_read(&plot, &(struct plot_values){"c-control", "nodes up", x, up, count});
    plot_read(&plot, &(struct plot_values){"c-mesh", "pulls running", x, running, count});
    plot_end(&plot);
    const struct plot_key keys[] = {{"c-control thick long", "nodes up", true},
                                    {"c-mesh thick", "pulls running, one per layer", true}};
    plot_legend(to, keys, 2);
    html_figure_end(to, "Nodes that die or join, and arrivals in waves, show here.");
}

/* ---- per node ---- */

static void plot_uploads(const struct report *report, const struct report_data *data, FILE *to)
{
    uint32_t nodes = data->node_count;
    uint32_t bars = nodes < BARS_MAX ? nodes : BARS_MAX;
    double x[BARS_MAX], y[BARS_MAX], total = 0;
    for (uint32_t node = 0; node < nodes; node++)
        total += data->upload_bytes[node];
    struct plot plot = {0};
    plot_axis_number(&plot.x, "nodes, busiest first", "", nodes);
    plot_axis_bytes(&plot.y, "uploaded by a node", nodes > 0 ? data->upload_bytes[0] : 0);
    plot_axis_round(&plot.y);
    html_figure_begin(to, "uploads", "Who carries the load");
    plot_begin(&plot, to, "uploads", "Bytes uploaded per node",
               "Bars, busiest node first, and the mean as a dashed line.");
    for (uint32_t bar = 0; bar < bars; bar++) {
        uint32_t first = (uint32_t)((uint64_t)bar * nodes / bars);
        uint32_t next = (uint32_t)((bar + 1ULL) * nodes / bars);
        double sum = 0;
        for (uint32_t node = first; node < next; node++)
            sum += data->upload_bytes[node];
        x[bar] = (first + next) / 2.0;
        y[bar] = sum / (next - first);
        plot_bar(&plot, "c-zone", first + 0.1 * (next - first), next - 0.1 * (next - first),
                 y[bar]);
    }
    char label[2 * HTML_NUMBER_BYTES], mean[HTML_NUMBER_BYTES];
    snprintf(label, sizeof label, "mean %s", html_bytes(mean, nodes > 0 ? total / nodes : 0));
    plot_mark_y(&plot, "c-bound dash", nodes > 0 ? total / nodes : 0, label, false);
    plot_read(&plot, &(struct plot_values){"c-zone", "uploaded", x, y, bars});
    plot_end(&plot);
    char caption[CAPTION_BYTES], most[HTML_NUMBER_BYTES], skew[HTML_NUMBER_BYTES];
    snprintf(caption, sizeof caption, "The busiest node sent %s, %s times the mean.%s",
             html_bytes(most, nodes > 0 ? data->upload_bytes[0] : 0),
             html_number(skew, report->upload_skew),
             bars < nodes ? " A bar is the mean of several nodes." : "");
    html_figure_end(to, caption);
}

static void plot_swarm(const struct report_data *data, FILE *to)
{
    struct plot plot = {0};
    plot_axis_time(&plot.x, "time since the first pull", data->sample_count * data->period_s);
    plot_axis_number(&plot.y, "nodes, first arrival on top", "", data->node_count);
    html_figure_begin(to, "swarm", "How the image spreads");
    plot.y.down = true;
    plot_begin(&plot, to, "swarm", "Progress of the nodes",
               "A heat map: nodes by arrival over time, darker where a node has more of the "
               "image.");
    if (data->sample_count > 0 && data->raster_rows > 0)
        plot_raster(&plot, data->raster, data->raster_rows, data->sample_count);
    plot_end(&plot);
    fputs("<ul class=\"legend scale\"><li>nothing</li><li class=\"steps\">", to);
    for (unsigned level = 0; level < REPORT_LEVELS; level++)
        fprintf(to, "<i class=\"h%u\"></i>", level);
    fputs("</li><li>whole image</li></ul>\n", to);
    html_figure_end(to, "Read across: a row turns from pale to dark as its nodes fill up. A row "
                        "that lags behind its neighbours belongs to slow or waiting nodes.");
}

void report__plots(const struct report *report, const struct report_data *data, FILE *to)
{
    plot_times(report, to);
    plot_completion(report, data, to);
    plot_throughput(report, data, to);
    plot_sums(report, data, to);
    plot_uploads(report, data, to);
    plot_swarm(data, to);
    plot_control(report, data, to);
    plot_crowd(data, to);
}
