/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of one run: what a planner asks first as sentences, then the figures, the scenario and
 * the command that repeats it. The plots are in report_plots.c.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "report_page.h"

/* A sentence of this page: the part after its figure. */
#define SENTENCE_BYTES 320

static double over(double value, double by)
{
    return by > 0 ? value / by : 0;
}

/* "300 nodes", "1 node". */
static const char *nodes_text(char out[HTML_NUMBER_BYTES], uint32_t nodes)
{
    char count[HTML_NUMBER_BYTES];
    snprintf(out, HTML_NUMBER_BYTES, "%.30s node%s", html_count(count, nodes),
             nodes == 1 ? "" : "s");
    return out;
}

static void lead(const struct report *report, FILE *to)
{
    uint32_t complete = report->nodes_complete;
    char nodes[HTML_NUMBER_BYTES], size[HTML_NUMBER_BYTES], last[HTML_NUMBER_BYTES];
    char copies[HTML_NUMBER_BYTES], without[HTML_NUMBER_BYTES];
    if (report->by_client) {
        fprintf(
            to,
            "<p class=\"lead\">%s pulls of images of up to %s took <b>%s</b> at most; %.1f %% of "
            "their bytes were on their node; the registry sends each byte <b>%s times</b>.</p>\n",
            html_count(nodes, report->clients.count), html_bytes(size, (double)report->bytes),
            html_time(last, report->last_s), report->hit_ratio * 100,
            html_number(copies, report->origin_copies));
        return;
    }
    fprintf(to,
            "<p class=\"lead\">%s %s the %s image after <b>%s</b>; the registry sends it "
            "<b>%s times</b>; without the mesh <b>%s</b>.</p>\n",
            nodes_text(nodes, complete), complete == 1 ? "has" : "have",
            html_bytes(size, (double)report->bytes), html_time(last, report->last_s),
            html_number(copies, report->origin_copies), html_time(without, report->no_mesh_last_s));
}

static void say_failures(const struct report *report, FILE *to)
{
    char lead_text[HTML_NUMBER_BYTES], rest[SENTENCE_BYTES];
    if (report->pulls_failed > 0) {
        snprintf(lead_text, sizeof lead_text, "%u pull%s", report->pulls_failed,
                 report->pulls_failed == 1 ? "" : "s");
        snprintf(rest, sizeof rest,
                 "failed or did not end; %u nodes never had the whole image. The times are those "
                 "of the nodes that have it.",
                 report->nodes_incomplete);
        html_sentence(to, "pulls_failed", true, lead_text, rest);
    }
    if (report->wrong_bytes > 0) {
        html_bytes(lead_text, (double)report->wrong_bytes);
        snprintf(rest, sizeof rest, "of wrong content were accepted. This must never happen.");
        html_sentence(to, "wrong_bytes", true, lead_text, rest);
    }
}

static void say_times(const struct report *report, FILE *to)
{
    char number[HTML_NUMBER_BYTES], ratio[HTML_NUMBER_BYTES], median[HTML_NUMBER_BYTES];
    char rest[SENTENCE_BYTES];
    snprintf(rest, sizeof rest,
             "is the least that these links allow. The median node needs %s times that, the last "
             "one %s times.",
             html_number(median, over(report->p50_s, report->bound_s)),
             html_number(ratio, over(report->last_s, report->bound_s)));
    html_sentence(to, "bound", false, html_time(number, report->bound_s), rest);
    double gain = over(report->no_mesh_last_s, report->last_s);
    html_time(median, report->no_mesh_last_s);
    if (gain >= 1.005) {
        snprintf(number, sizeof number, "%.30s times", html_number(ratio, gain));
        snprintf(rest, sizeof rest,
                 "as long would the last node wait without the mesh, when all nodes pull from the "
                 "registry: %s.",
                 median);
    } else if (report->last_s > 0) {
        snprintf(number, sizeof number, "No gain");
        snprintf(rest, sizeof rest,
                 "in time: the registry alone would serve the last node in %s, %s times this run's "
                 "time.",
                 median, html_number(ratio, gain));
    } else {
        return;
    }
    html_sentence(to, "gain", false, number, rest);
}

static void say_bytes(const struct report *report, FILE *to)
{
    char number[HTML_NUMBER_BYTES], copies[HTML_NUMBER_BYTES], all[HTML_NUMBER_BYTES];
    char count[HTML_NUMBER_BYTES], rest[SENTENCE_BYTES];
    snprintf(rest, sizeof rest,
             "leave the registry: %s copies of the image. Without the mesh it would be %s copies, "
             "%s.",
             html_number(copies, report->origin_copies), html_count(count, report->nodes),
             html_bytes(all, (double)report->bytes * report->nodes));
    html_sentence(to, "origin", false, html_bytes(number, (double)report->origin_bytes), rest);
    if (report->zones <= 1)
        return;
    snprintf(rest, sizeof rest,
             "cross the borders of %u zones: %s copies; one for each zone but the first is %u.",
             report->zones, html_number(copies, report->cross_zone_copies), report->zones - 1);
    html_sentence(to, "cross_zone", false, html_bytes(number, (double)report->cross_zone_bytes),
                  rest);
}

static void say_load(const struct report *report, const struct report_data *data, FILE *to)
{
    char number[HTML_NUMBER_BYTES], skew[HTML_NUMBER_BYTES], most[HTML_NUMBER_BYTES];
    char rest[SENTENCE_BYTES];
    if (report->upload_skew > 0) {
        html_bytes(most, data->node_count > 0 ? data->upload_bytes[0] : 0);
        snprintf(rest, sizeof rest, "is what the busiest node uploads, %s times the mean.",
                 html_number(skew, report->upload_skew));
        html_sentence(to, "upload_skew", false, most, rest);
    }
    snprintf(number, sizeof number, "%.30s %%", html_number(skew, report->control_fraction * 100));
    html_sentence(to, "control", false, number, "of the image bytes is what control messages add.");
}

/* A row of the figures' table. */
static void figure_row(FILE *to, const char *name, const char *value, const char *key)
{
    fprintf(to, "<tr><th scope=\"row\">%s</th><td>%s</td><td class=\"key\">%s</td></tr>\n", name,
            value, key);
}

static void completion_rows(const struct report *report, FILE *to)
{
    const struct {
        const char *name, *key;
        double seconds;
    } rows[] = {
        {"half of the nodes", "completion.p50_s", report->p50_s},
        {"90 %", "completion.p90_s", report->p90_s},
        {"99 %", "completion.p99_s", report->p99_s},
        {"99.9 %", "completion.p999_s", report->p999_s},
        {"the last node", "completion.last_s", report->last_s},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char time[HTML_NUMBER_BYTES], ratio[HTML_NUMBER_BYTES], both[2 * HTML_NUMBER_BYTES];
        snprintf(both, sizeof both, "%s (%s &times; bound)", html_time(time, rows[i].seconds),
                 html_number(ratio, over(rows[i].seconds, report->bound_s)));
        figure_row(to, rows[i].name, both, rows[i].key);
    }
}

static void cost_rows(const struct report *report, FILE *to)
{
    char text[HTML_NUMBER_BYTES], hash[HTML_NUMBER_BYTES];
    figure_row(to, "events simulated", html_count(text, report->events), "events");
    figure_row(to, "events per second of CPU",
               html_count(text, (uint64_t)report__events_per_s(report)), "events_per_cpu_s");
    figure_row(to, "time this simulation took", html_time(text, report->wall_s), "wall_s");
    figure_row(to, "CPU time", html_time(text, report->cpu_s), "cpu_s");
    figure_row(to, "memory of the simulation", html_bytes(text, report->rss_mib * 1048576),
               "rss_mib");
    snprintf(text, sizeof text, "%" PRIu64, report->seed);
    figure_row(to, "seed", text, "seed");
    snprintf(hash, sizeof hash, "%016" PRIx64, report->trace_hash);
    figure_row(to, "trace hash", hash, "trace_hash");
}

static void figures(const struct report *report, FILE *to)
{
    char text[HTML_NUMBER_BYTES];
    fputs(
        "<section id=\"figures\">\n<h2>Figures</h2>\n<div class=\"scroll\" tabindex=\"0\"><table>\n"
        "<caption>With their names in the JSON object</caption>\n<tbody>\n",
        to);
    completion_rows(report, to);
    figure_row(to, "fluid bound", html_time(text, report->bound_s), "bound_s");
    figure_row(to, "last node without the mesh", html_time(text, report->no_mesh_last_s),
               "no_mesh.last_s");
    figure_row(to, "copies from the registry", html_number(text, report->origin_copies),
               "origin_copies");
    figure_row(to, "copies over zone borders", html_number(text, report->cross_zone_copies),
               "cross_zone_copies");
    figure_row(to, "control bytes per image byte", html_number(text, report->control_fraction),
               "control_fraction");
    figure_row(to, "busiest uploader over the mean", html_number(text, report->upload_skew),
               "upload_skew");
    figure_row(to, "failed pulls", html_count(text, report->pulls_failed), "pulls_failed");
    figure_row(to, "wrong bytes", html_count(text, report->wrong_bytes), "wrong_bytes");
    figure_row(to, "nodes that never had everything", html_count(text, report->nodes_incomplete),
               "nodes_incomplete");
    figure_row(to, "requests the registry throttled", html_count(text, report->throttled),
               "throttled");
    figure_row(to, "bytes given up for room in caches",
               html_bytes(text, (double)report->evicted_bytes), "evicted_bytes");
    cost_rows(report, to);
    fputs("</tbody></table></div>\n</section>\n", to);
}

static void page(const struct report *report, const struct report_data *data,
                 const struct report_context *context, FILE *to)
{
    const char *name = context->scenario != NULL ? context->scenario : "run";
    html_begin(to, name, context->description);
    lead(report, to);
    fputs("<ul class=\"facts\">\n", to);
    say_failures(report, to);
    say_times(report, to);
    say_bytes(report, to);
    say_load(report, data, to);
    fputs("</ul>\n<div class=\"plots\">\n", to);
    report__plots(report, data, to);
    fputs("</div>\n<div class=\"tables\">\n", to);
    figures(report, to);
    html_settings(to, context->settings, context->setting_count, context->command);
    fputs("</div>\n", to);
    html_end(to);
}

int report_write_html(const struct report *report, struct world *world,
                      const struct report_context *context, FILE *to)
{
    struct report_data data;
    int err = report_data_init(&data, world, context->config);
    if (err != 0)
        return err;
    page(report, &data, context, to);
    report_data_close(&data);
    return html_done(to);
}
