/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles, copies and skew of a finished simulation, its JSON and CSV; see report.h. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "host.h"
#include "log.h"
#include "report_data.h"

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double report__percentile(const double *sorted, size_t count, double share)
{
    if (count == 0)
        return 0;
    size_t index = (size_t)(share * (double)count);
    return sorted[index < count ? index : count - 1];
}

/* Pulls taken together: a node's, or a client's. */
struct grouping {
    struct report_node *groups;
    uint32_t count;
    bool by_client;
    struct blob_set *wanted, *had; /* owned, by group */
    uint64_t first_us;             /* the first arrival */
};

/* NULL: the pull belongs to no client. */
static struct report_node *group_of(const struct grouping *all, const struct world_pull *pull)
{
    uint32_t index = all->by_client ? pull->client - 1 : pull->node;
    return index < all->count ? &all->groups[index] : NULL;
}

/* Arrivals, and which blobs each group wants; `of_node`: and each node. */
static void take_arrivals(const struct world *world, struct grouping *all, struct blob_set *of_node,
                          struct report_pulls *out)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(world, &count);
    struct blob_set everything = {0};
    all->first_us = UINT64_MAX;
    for (size_t i = 0; i < count; i++)
        all->first_us = pulls[i].started_us < all->first_us ? pulls[i].started_us : all->first_us;
    for (size_t i = 0; i < count; i++) {
        struct report_node *group = group_of(all, &pulls[i]);
        uint32_t blob = pulls[i].blob;
        uint64_t size = world_blob(world, blob)->size_bytes;
        out->all_bytes += blob_set_add(&everything, blob) ? size : 0;
        if (group == NULL)
            continue;
        double arrival_s = (double)(pulls[i].started_us - all->first_us) / 1e6;
        if (!group->pulled || arrival_s < group->arrival_s)
            group->arrival_s = arrival_s;
        group->pulled = true;
        group->node = pulls[i].node;
        bool fresh = blob_set_add(&of_node[pulls[i].node], blob);
        if (blob_set_add(&all->wanted[group - all->groups], blob)) {
            group->wanted_bytes += size;
            group->fresh_bytes += fresh ? size : 0;
            group->blobs++;
        }
    }
}

static void take_ends(const struct world *world, struct grouping *all, struct report_pulls *out)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++) {
        struct report_node *group = group_of(all, &pulls[i]);
        if (pulls[i].failed || pulls[i].done_us == 0) {
            out->failed++;
            continue;
        }
        if (group == NULL)
            continue;
        (void)blob_set_add(&all->had[group - all->groups], pulls[i].blob);
        double took_s = (double)(pulls[i].done_us - all->first_us) / 1e6 - group->arrival_s;
        group->completion_s = took_s > group->completion_s ? took_s : group->completion_s;
    }
    for (uint32_t i = 0; i < all->count; i++) {
        if (memcmp(&all->had[i], &all->wanted[i], sizeof all->had[i]) != 0)
            all->groups[i].completion_s = -1;
    }
}

static void group_pulls(const struct world *world, struct grouping *all, struct report_pulls *out)
{
    struct blob_set *of_node = calloc(world->config.node_count, sizeof *of_node);
    all->wanted = calloc(2ULL * all->count + 1, sizeof *all->wanted);
    ASSERT(of_node != NULL && all->wanted != NULL);
    all->had = all->wanted + all->count;
    *out = (struct report_pulls){0};
    for (uint32_t i = 0; i < all->count; i++)
        all->groups[i] = (struct report_node){0};
    take_arrivals(world, all, of_node, out);
    take_ends(world, all, out);
    free(all->wanted);
    free(of_node);
}

void report__nodes(const struct world *world, struct report_node *nodes, uint32_t node_count,
                   struct report_pulls *out)
{
    struct grouping all = {.groups = nodes, .count = node_count};
    group_pulls(world, &all, out);
}

void report__clients(const struct world *world, struct report_node *clients, uint32_t count)
{
    struct report_pulls unused;
    struct grouping all = {.groups = clients, .count = count, .by_client = true};
    group_pulls(world, &all, &unused);
}

uint32_t report__clients_apart(const struct world *world)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(world, &count);
    uint32_t clients = 0;
    bool apart = false;
    for (size_t i = 0; i < count; i++)
        clients = pulls[i].client > clients ? pulls[i].client : clients;
    struct report_node *all = calloc(clients + 1ULL, sizeof *all);
    double *first_s = calloc(world->config.node_count, sizeof *first_s);
    ASSERT(all != NULL && first_s != NULL);
    report__clients(world, all, clients);
    for (uint32_t node = 0; node < world->config.node_count; node++)
        first_s[node] = -1;
    for (uint32_t i = 0; i < clients; i++) {
        double *first = &first_s[all[i].node];
        apart = apart || (all[i].pulled && *first >= 0 && fabs(*first - all[i].arrival_s) > 1e-7);
        *first = all[i].pulled ? all[i].arrival_s : *first;
    }
    free(all);
    free(first_s);
    return apart ? clients : 0;
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

/* What the run took of this machine so far. */
static void cost(struct report *out)
{
    struct rusage usage = {0};
    (void)getrusage(RUSAGE_SELF, &usage);
    out->cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    out->rss_mib = (double)usage.ru_maxrss / 1024;
}

/* Percentiles with and without the mesh, and the bound. */
static void take_times(const struct world_config *config, const struct report_node *entries,
                       uint32_t count, struct report *out)
{
    double *seconds = calloc(count + 1ULL, sizeof *seconds);
    double *without = calloc(count + 1ULL, sizeof *without);
    double payload = 0;
    size_t pulled = 0, complete = 0;
    uint32_t layers = 0;
    ASSERT(seconds != NULL && without != NULL);
    for (uint32_t i = 0; i < count; i++) {
        payload += (double)entries[i].wanted_bytes;
        out->bytes = entries[i].wanted_bytes > out->bytes ? entries[i].wanted_bytes : out->bytes;
        layers = entries[i].blobs > layers ? entries[i].blobs : layers;
        if (entries[i].pulled && entries[i].completion_s >= 0)
            seconds[complete++] = entries[i].completion_s;
    }
    qsort(seconds, complete, sizeof *seconds, by_value);
    out->p50_s = report__percentile(seconds, complete, 0.5);
    out->p90_s = report__percentile(seconds, complete, 0.9);
    out->p99_s = report__percentile(seconds, complete, 0.99);
    out->p999_s = report__percentile(seconds, complete, 0.999);
    out->last_s = report__percentile(seconds, complete, 1);
    int err = report__no_mesh(config, entries, count, layers, without);
    ASSERT(err == 0);
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].pulled)
            without[pulled++] = without[i];
    }
    qsort(without, pulled, sizeof *without, by_value);
    out->no_mesh_p50_s = report__percentile(without, pulled, 0.5);
    out->no_mesh_last_s = report__percentile(without, pulled, 1);
    /* Clients that come one after the other do not share the links. */
    payload = out->by_client ? (double)out->bytes : payload;
    out->bound_s = out->bytes > 0 ? report__bound_s(config, out->bytes, payload) : 0;
    free(seconds);
    free(without);
}

static void take_clients(const struct world *world, const struct world_config *config,
                         uint32_t count, struct report *out)
{
    struct report_node *clients = calloc(count + 1ULL, sizeof *clients);
    ASSERT(clients != NULL);
    report__clients(world, clients, count);
    out->by_client = true;
    take_times(config, clients, count, out);
    free(clients);
}

/* Counts nodes; returns the bytes that all pull, each blob once a node. */
static double count_nodes(const struct report_node *nodes, struct report *out)
{
    double payload = 0;
    for (uint32_t node = 0; node < out->nodes; node++) {
        bool complete = nodes[node].completion_s >= 0;
        payload += (double)nodes[node].wanted_bytes;
        out->nodes_complete += nodes[node].pulled && complete;
        out->nodes_incomplete += nodes[node].pulled && !complete;
    }
    return payload;
}

static double control_bytes(struct world *world)
{
    const struct series *series = world_series(world);
    double sum = 0;
    for (uint32_t i = 0; i < series->sample_count; i++)
        sum += (double)series->samples[i].control_bytes;
    return sum;
}

void report_make(struct world *world, const struct world_config *config, struct report *out)
{
    struct report_node *nodes = calloc(config->node_count, sizeof *nodes);
    struct report_pulls pulls;
    ASSERT(nodes != NULL);
    *out = (struct report){
        .seed = config->seed,
        .nodes = config->node_count,
        .zones = config->zone_count,
        .events = world_totals(world)->events,
        .trace_hash = world_trace_hash(world),
        .origin_bytes = world_totals(world)->origin_bytes,
        .wrong_bytes = world_totals(world)->wrong_bytes,
        .throttled = world_totals(world)->throttled,
        .upload_skew = skew_of(world, config->node_count),
    };
    cost(out);
    report__nodes(world, nodes, config->node_count, &pulls);
    out->pulls_failed = pulls.failed;
    double payload = count_nodes(nodes, out);
    uint32_t clients = report__clients_apart(world);
    if (clients > 0)
        take_clients(world, config, clients, out);
    else
        take_times(config, nodes, config->node_count, out);
    free(nodes);
    for (uint32_t node = 0; node < config->node_count; node++) {
        struct node_bytes bytes;
        world_node_bytes(world, node, &bytes);
        out->evicted_bytes += bytes.evicted;
    }
    const uint64_t *by_distance = world_totals(world)->peer_bytes;
    out->cross_zone_bytes = by_distance[DISTANCE_REGION] + by_distance[DISTANCE_ELSEWHERE];
    if (pulls.all_bytes > 0) {
        out->origin_copies = (double)out->origin_bytes / (double)pulls.all_bytes;
        out->cross_zone_copies = (double)out->cross_zone_bytes / (double)pulls.all_bytes;
        out->control_fraction = control_bytes(world) / payload;
    }
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
    fprintf(
        to,
        " \"origin_copies\": %.4f, \"cross_zone_copies\": %.4f, \"control_fraction\": %.5f, "
        "\"upload_skew\": %.2f, \"hit_ratio\": %.4f,\n"
        " \"completion_of\": \"%s\", \"origin_bytes\": %" PRIu64 ", \"cross_zone_bytes\": %" PRIu64
        ", \"throttled\": %" PRIu64 ", \"evicted_bytes\": %" PRIu64
        ",\n \"pulls_failed\": %u, \"nodes_incomplete\": %u, \"wrong_bytes\": %" PRIu64
        ", \"no_mesh\": {\"p50_s\": %.3f, \"last_s\": %.3f},\n",
        plain(report->origin_copies), plain(report->cross_zone_copies),
        plain(report->control_fraction), plain(report->upload_skew), plain(report->hit_ratio),
        report->by_client ? "clients" : "nodes", report->origin_bytes, report->cross_zone_bytes,
        report->throttled, report->evicted_bytes, report->pulls_failed, report->nodes_incomplete,
        report->wrong_bytes, plain(report->no_mesh_p50_s), plain(report->no_mesh_last_s));
    const struct report_faultless *faultless = &report->faultless;
    if (faultless->compared)
        fprintf(to,
                " \"faultless\": {\"p99_s\": %.3f, \"levelled_p99_s\": %.3f, \"origin_bytes\": "
                "%" PRIu64 ", \"p99_against\": %.3f, \"origin_against\": %.4f},\n",
                plain(faultless->p99_s), plain(faultless->levelled_p99_s), faultless->origin_bytes,
                plain(faultless->p99), plain(faultless->origin));
    fprintf(to,
            " \"events\": %" PRIu64 ", \"events_per_cpu_s\": %.0f, \"wall_s\": %.2f, "
            "\"cpu_s\": %.2f, \"rss_mib\": %.1f, \"trace_hash\": \"%016" PRIx64 "\"",
            report->events, plain(report__events_per_s(report)), plain(report->wall_s),
            plain(report->cpu_s), plain(report->rss_mib), report->trace_hash);
}

void report_clients_times(double *seconds, size_t count, struct report_clients *out)
{
    if (count > 0)
        qsort(seconds, count, sizeof *seconds, by_value);
    out->p50_s = report__percentile(seconds, count, 0.5);
    out->p90_s = report__percentile(seconds, count, 0.9);
    out->p99_s = report__percentile(seconds, count, 0.99);
    out->p999_s = report__percentile(seconds, count, 0.999);
    out->last_s = report__percentile(seconds, count, 1);
}

static void json_clients(const struct report_clients *clients, FILE *to)
{
    fprintf(to,
            "\"clients\": %u, \"retries\": %u, \"failed\": %u, \"bytes\": %" PRIu64
            ", \"origin_bytes\": %" PRIu64 ", \"origin_copies\": %.4f, \"completion\": "
            "{\"p50_s\": %.3f, \"p90_s\": %.3f, \"p99_s\": %.3f, \"p999_s\": %.3f, "
            "\"last_s\": %.3f}}",
            clients->count, clients->retries, clients->failed, clients->bytes,
            clients->origin_bytes,
            clients->bytes > 0 ? (double)clients->origin_bytes / (double)clients->bytes : 0,
            plain(clients->p50_s), plain(clients->p90_s), plain(clients->p99_s),
            plain(clients->p999_s), plain(clients->last_s));
}

/* All clients together, and one object per image where there are several. */
static int json_images(const struct report *report, FILE *to)
{
    int err = 0;
    if (report->clients.count == 0)
        return 0;
    fputs(",\n \"per_client\": {", to);
    json_clients(&report->clients, to);
    for (uint32_t i = 0; report->image_count > 1 && i < report->image_count && err == 0; i++) {
        fputs(i == 0 ? ",\n \"images\": [{\"name\": " : ",\n  {\"name\": ", to);
        err = html_json(to, report->images[i].name);
        fputs(", ", to);
        json_clients(&report->images[i].clients, to);
        fputs(i + 1 == report->image_count ? "]" : "", to);
    }
    return err;
}

int report_write_json(const struct report *report, const struct report_context *context, FILE *to)
{
    fputs("{\"scenario\": ", to);
    int err = html_json(to, context->scenario);
    fputs(", ", to);
    report__json_figures(report, to);
    int images_err = json_images(report, to);
    err = err != 0 ? err : images_err;
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

static void csv_node(struct world *world, uint32_t node, const struct report_node *pulls, FILE *to)
{
    struct node_bytes bytes;
    bool done = pulls->pulled && pulls->completion_s >= 0;
    world_node_bytes(world, node, &bytes);
    fprintf(to, ",%u,%u,", node, world__zone(world, node));
    if (pulls->pulled)
        fprintf(to, "%.3f", pulls->arrival_s);
    fputs(",", to);
    if (done)
        fprintf(to, "%.3f", pulls->completion_s);
    fprintf(to, ",%d,%" PRIu64 ",%" PRIu64, pulls->pulled && !done, pulls->wanted_bytes,
            bytes.sent);
    for (size_t source = 0; source < SERIES_SOURCES; source++)
        fprintf(to, ",%" PRIu64, bytes.received[source]);
    fprintf(to, ",%" PRIu64 ",%" PRIu64 "\n", bytes.control_sent, bytes.evicted);
}

int report_write_csv(const struct report *report, struct world *world,
                     const struct report_context *context, FILE *to)
{
    struct report_pulls pulls;
    struct report_node *nodes = calloc(report->nodes, sizeof *nodes);
    if (nodes == NULL)
        return E_NO_MEMORY;
    report__nodes(world, nodes, report->nodes, &pulls);
    fputs("scenario,seed,node,zone,arrival_s,completion_s,incomplete,wanted_bytes,uploaded_bytes,"
          "from_origin_bytes,from_vswitch_bytes,from_zone_bytes,from_other_zones_bytes,"
          "control_bytes,evicted_bytes\n",
          to);
    for (uint32_t node = 0; node < report->nodes; node++) {
        html_csv(to, context->scenario);
        fprintf(to, ",%" PRIu64, report->seed);
        csv_node(world, node, &nodes[node], to);
    }
    free(nodes);
    return html_done(to);
}

int report_write_series_csv(struct world *world, FILE *to)
{
    const struct series *series = world_series(world);
    fputs("end_s,from_origin_bytes,from_vswitch_bytes,from_zone_bytes,from_other_zones_bytes,"
          "control_bytes,nodes_up,pulls_running,pulls_done,pulls_failed\n",
          to);
    for (uint32_t i = 0; i < series->sample_count; i++) {
        const struct series_sample *sample = &series->samples[i];
        fprintf(to, "%.3f", (double)series_end_us(series, i) / 1e6);
        for (size_t source = 0; source < SERIES_SOURCES; source++)
            fprintf(to, ",%" PRIu64, sample->bytes[source]);
        fprintf(to, ",%" PRIu64 ",%u,%u,%u,%u\n", sample->control_bytes, sample->nodes_up,
                sample->pulls_running, sample->pulls_done, sample->pulls_failed);
    }
    return html_done(to);
}
