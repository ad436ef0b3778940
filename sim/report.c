/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles, copies and skew of a finished simulation; see report.h. */
#include "report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "log.h"

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

/* Completion seconds of each node that pulled; returns how many. */
static size_t completions(const struct world *world, uint32_t node_count, double *out,
                          struct report *report)
{
    size_t pull_count;
    const struct world_pull *pulls = world_pulls(world, &pull_count);
    uint64_t *first = calloc(node_count, sizeof *first), *last = calloc(node_count, sizeof *last);
    bool *failed = calloc(node_count, sizeof *failed);
    ASSERT(first != NULL && last != NULL && failed != NULL);
    for (size_t i = 0; i < pull_count; i++) {
        uint32_t node = pulls[i].node;
        if (first[node] == 0 || pulls[i].started_us < first[node])
            first[node] = pulls[i].started_us;
        if (pulls[i].done_us > last[node])
            last[node] = pulls[i].done_us;
        if (pulls[i].failed || pulls[i].done_us == 0) {
            failed[node] = true;
            report->pulls_failed++;
        }
    }
    size_t count = 0;
    for (uint32_t node = 0; node < node_count; node++) {
        if (last[node] > 0 && !failed[node])
            out[count++] = (double)(last[node] - first[node]) / 1e6;
    }
    free(first);
    free(last);
    free(failed);
    return count;
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

void report_make(struct world *world, const struct world_config *config, struct report *out)
{
    *out = (struct report){0};
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
    ASSERT(seconds != NULL);
    size_t count = completions(world, config->node_count, seconds, out);
    qsort(seconds, count, sizeof *seconds, by_value);
    out->p50_s = percentile(seconds, count, 0.5);
    out->p90_s = percentile(seconds, count, 0.9);
    out->p99_s = percentile(seconds, count, 0.99);
    out->p999_s = percentile(seconds, count, 0.999);
    out->last_s = percentile(seconds, count, 1);
    free(seconds);
    const struct world_totals *totals = world_totals(world);
    bounds(config, out->bytes, out);
    if (out->bytes > 0) {
        out->origin_copies = (double)totals->origin_bytes / (double)out->bytes;
        out->cross_zone_copies =
            (double)(totals->peer_bytes[DISTANCE_REGION] + totals->peer_bytes[DISTANCE_ELSEWHERE]) /
            (double)out->bytes;
        out->control_fraction = (double)totals->datagram_bytes / (double)payload;
    }
    out->upload_skew = skew_of(world, config->node_count);
}

void report_json(const struct report *report, struct world *world,
                 const struct world_config *config, double wall_s, FILE *to)
{
    struct rusage usage = {0};
    (void)getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    const struct world_totals *totals = world_totals(world);
    double bound = report->bound_s > 0 ? report->bound_s : 1;
    fprintf(
        to,
        "{\"scenario\": \"run\", \"seed\": %" PRIu64
        ", \"nodes\": %u, \"zones\": %u, \"bytes\": %" PRIu64 ", \"bound_s\": %.3f,\n"
        " \"completion\": {\"p50_s\": %.3f, \"p90_s\": %.3f, \"p99_s\": %.3f, \"p999_s\": %.3f, "
        "\"last_s\": %.3f},\n"
        " \"ratio\": {\"p50\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"last\": %.3f},\n"
        " \"origin_copies\": %.4f, \"cross_zone_copies\": %.4f, \"control_fraction\": %.5f, "
        "\"upload_skew\": %.2f,\n",
        config->seed, config->node_count, config->zone_count, report->bytes, report->bound_s,
        report->p50_s, report->p90_s, report->p99_s, report->p999_s, report->last_s,
        report->p50_s / bound, report->p99_s / bound, report->p999_s / bound,
        report->last_s / bound, report->origin_copies, report->cross_zone_copies,
        report->control_fraction, report->upload_skew);
    fprintf(to,
            " \"pulls_failed\": %u, \"wrong_bytes\": %" PRIu64
            ", \"no_mesh\": {\"p50_s\": %.3f, \"last_s\": "
            "%.3f},\n"
            " \"events\": %" PRIu64
            ", \"events_per_cpu_s\": %.0f, \"wall_s\": %.2f, \"cpu_s\": %.2f, \"rss_mib\": %.1f, "
            "\"trace_hash\": \"%016" PRIx64 "\"}\n",
            report->pulls_failed, totals->wrong_bytes, report->no_mesh_p50_s,
            report->no_mesh_last_s, totals->events, (double)totals->events / (cpu_s + 1e-9), wall_s,
            cpu_s, (double)usage.ru_maxrss / 1024, world_trace_hash(world));
}
