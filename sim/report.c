/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles, copies and skew of a finished simulation, its JSON and CSV; see report.h. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "log.h"
#include "report_data.h"

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t count, double share)
{
    if (count == 0)
        return 0;
    size_t index = (size_t)(share * (double)count);
    return sorted[index < count ? index : count - 1];
}

uint32_t report__nodes(const struct world *world, struct report_node *nodes, uint32_t node_count)
{
    size_t pull_count;
    const struct world_pull *pulls = world_pulls(world, &pull_count);
    uint64_t first_us = UINT64_MAX;
    uint32_t failed_count = 0;
    for (uint32_t node = 0; node < node_count; node++)
        nodes[node] = (struct report_node){0};
    for (size_t i = 0; i < pull_count; i++)
        first_us = pulls[i].started_us < first_us ? pulls[i].started_us : first_us;
    for (size_t i = 0; i < pull_count; i++) {
        struct report_node *node = &nodes[pulls[i].node];
        double arrival_s = (double)(pulls[i].started_us - first_us) / 1e6;
        if (!node->pulled || arrival_s < node->arrival_s)
            node->arrival_s = arrival_s;
        node->pulled = true;
    }
    for (size_t i = 0; i < pull_count; i++) {
        struct report_node *node = &nodes[pulls[i].node];
        bool failed = pulls[i].failed || pulls[i].done_us == 0;
        double took_s = failed ? -1 : (double)(pulls[i].done_us - first_us) / 1e6 - node->arrival_s;
        failed_count += failed ? 1 : 0;
        if (failed || (node->completion_s >= 0 && took_s > node->completion_s))
            node->completion_s = took_s;
    }
    return failed_count;
}

static double skew_of(const struct world *world, uint32_t node_count)
{
    uint64_t most = 0, total = 0;
    for (uint32_t node = 0; node < node_count; node++) {
        uint64_t bytes = world_uploaded(world, node);
        total += bytes;
        most = bytes > most ? bytes : most;
    }
    return total == 0 ? 0 : (double)most * node_count / (double)total;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void bounds(const struct world_config *config, uint64_t bytes, struct report *out)
{
    double size = (double)bytes, nodes = config->node_count;
    double nic = (double)config->nic_bps, origin = (double)config->origin_bps;
    out->bound_s = larger(larger(size / nic, size / origin), nodes * size / (origin + nodes * nic));
    double share = origin / nodes < nic ? origin / nodes : nic;
    out->no_mesh_p50_s = out->no_mesh_last_s = size / share;
}

/* What the run took of this machine so far. */
static void cost(struct report *out)
{
    struct rusage usage = {0};
    (void)getrusage(RUSAGE_SELF, &usage);
    out->cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    out->rss_mib = (double)usage.ru_maxrss / 1024;
}

void report_make(struct world *world, const struct world_config *config, struct report *out)
{
    *out = (struct report){
        .seed = config->seed,
        .nodes = config->node_count,
        .zones = config->zone_count,
    };
    cost(out);
    size_t pull_count;
    const struct world_pull *pulls = world_pulls(world, &pull_count);
    uint64_t payload = 0;
    for (size_t i = 0; i < pull_count; i++) {
        uint64_t size = world_blob(world, pulls[i].blob)->size_bytes;
        payload += size;
        if (pulls[i].node == pulls[0].node)
            out->bytes += size;
    }
    double *seconds = calloc(config->node_count, sizeof *seconds);
    struct report_node *nodes = calloc(config->node_count, sizeof *nodes);
    ASSERT(seconds != NULL && nodes != NULL);
    out->pulls_failed = report__nodes(world, nodes, config->node_count);
    size_t count = 0;
    for (uint32_t node = 0; node < config->node_count; node++) {
        if (nodes[node].pulled && nodes[node].completion_s >= 0)
            seconds[count++] = nodes[node].completion_s;
    }
    free(nodes);
    qsort(seconds, count, sizeof *seconds, by_value);
    out->p50_s = percentile(seconds, count, 0.5);
    out->p90_s = percentile(seconds, count, 0.9);
    out->p99_s = percentile(seconds, count, 0.99);
    out->p999_s = percentile(seconds, count, 0.999);
    out->last_s = percentile(seconds, count, 1);
    free(seconds);
    const struct world_totals *totals = world_totals(world);
    bounds(config, out->bytes, out);
    out->origin_bytes = totals->origin_bytes;
    out->cross_zone_bytes =
        totals->peer_bytes[DISTANCE_REGION] + totals->peer_bytes[DISTANCE_ELSEWHERE];
    out->wrong_bytes = totals->wrong_bytes;
    out->events = totals->events;
    out->trace_hash = world_trace_hash(world);
    if (out->bytes > 0) {
        out->origin_copies = (double)out->origin_bytes / (double)out->bytes;
        out->cross_zone_copies = (double)out->cross_zone_bytes / (double)out->bytes;
        out->control_fraction = (double)totals->datagram_bytes / (double)payload;
    }
    out->upload_skew = skew_of(world, config->node_count);
}

/* JSON knows neither infinity nor nan. */
static double plain(double value)
{
    return isfinite(value) ? value : 0;
}

double report__events_per_s(const struct report *report)
{
    return report->cpu_s > 0 ? (double)report->events / report->cpu_s : 0;
}

void report__json_figures(const struct report *report, FILE *to)
{
    double bound = report->bound_s > 0 ? report->bound_s : 1;
    fprintf(
        to,
        "\"seed\": %" PRIu64 ", \"nodes\": %u, \"zones\": %u, \"bytes\": %" PRIu64
        ", \"bound_s\": %.3f,\n"
        " \"completion\": {\"p50_s\": %.3f, \"p90_s\": %.3f, \"p99_s\": %.3f, \"p999_s\": %.3f, "
        "\"last_s\": %.3f},\n"
        " \"ratio\": {\"p50\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"last\": %.3f},\n",
        report->seed, report->nodes, report->zones, report->bytes, plain(report->bound_s),
        plain(report->p50_s), plain(report->p90_s), plain(report->p99_s), plain(report->p999_s),
        plain(report->last_s), plain(report->p50_s / bound), plain(report->p99_s / bound),
        plain(report->p999_s / bound), plain(report->last_s / bound));
    fprintf(to,
            " \"origin_copies\": %.4f, \"cross_zone_copies\": %.4f, \"control_fraction\": %.5f, "
            "\"upload_skew\": %.2f,\n"
            " \"origin_bytes\": %" PRIu64 ", \"cross_zone_bytes\": %" PRIu64
            ", \"pulls_failed\": %u, \"wrong_bytes\": %" PRIu64
            ", \"no_mesh\": {\"p50_s\": %.3f, \"last_s\": %.3f},\n",
            plain(report->origin_copies), plain(report->cross_zone_copies),
            plain(report->control_fraction), plain(report->upload_skew), report->origin_bytes,
            report->cross_zone_bytes, report->pulls_failed, report->wrong_bytes,
            plain(report->no_mesh_p50_s), plain(report->no_mesh_last_s));
    fprintf(to,
            " \"events\": %" PRIu64 ", \"events_per_cpu_s\": %.0f, \"wall_s\": %.2f, "
            "\"cpu_s\": %.2f, \"rss_mib\": %.1f, \"trace_hash\": \"%016" PRIx64 "\"",
            report->events, plain(report__events_per_s(report)), plain(report->wall_s),
            plain(report->cpu_s), plain(report->rss_mib), report->trace_hash);
}

int report_write_json(const struct report *report, const struct report_context *context, FILE *to)
{
    fputs("{\"scenario\": ", to);
    int err = html_json(to, context->scenario);
    fputs(", ", to);
    report__json_figures(report, to);
    fputs("}\n", to);
    return err != 0 ? err : html_done(to);
}

void report_json(const struct report *report, struct world *world,
                 const struct world_config *config, double wall_s, FILE *to)
{
    (void)world;
    struct report timed = *report;
    timed.wall_s = wall_s;
    cost(&timed);
    struct report_context context = {.scenario = "run", .config = config};
    if (report_write_json(&timed, &context, to) != 0)
        fprintf(stderr, "shoal-sim: cannot write the figures\n");
}

int report_write_csv(const struct report *report, struct world *world,
                     const struct report_context *context, FILE *to)
{
    struct report_node *nodes = calloc(report->nodes, sizeof *nodes);
    if (nodes == NULL)
        return E_NO_MEMORY;
    (void)report__nodes(world, nodes, report->nodes);
    fputs("scenario,seed,node,zone,arrival_s,completion_s,failed,uploaded_bytes\n", to);
    for (uint32_t node = 0; node < report->nodes; node++) {
        html_csv(to, context->scenario);
        fprintf(to, ",%" PRIu64 ",%u,%u", report->seed, node,
                report->zones > 0 ? node % report->zones : 0);
        if (nodes[node].pulled)
            fprintf(to, ",%.3f,", nodes[node].arrival_s);
        else
            fputs(",,", to);
        bool done = nodes[node].pulled && nodes[node].completion_s >= 0;
        if (done)
            fprintf(to, "%.3f", nodes[node].completion_s);
        fprintf(to, ",%d,%" PRIu64 "\n", nodes[node].pulled && !done, world_uploaded(world, node));
    }
    free(nodes);
    return html_done(to);
}
