/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scenario played in a world: nodes start, clients arrive and pull their layers in their order,
 * faults happen (scenario_faults.c), until every pull has ended. The world does what its events
 * say; here is only what depends on how things went: the next layer, the next batch, the pull after
 * a restart.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "piece_size.h"
#include "scenario_drive.h"

/* Agents of a cluster start one after the other; the views settle while they do. */
#define START_SPREAD_US (2 * SECOND_US)
/* A client that waits for a layer to end looks so often. */
#define POLL_US 1000ULL
/* How often somebody who watches a run is told. */
#define WATCH_US (20 * POLL_US)
#define NO_PULL  UINT32_MAX
/* A cache that has a disk to fail and gives nothing up. */
#define ENDLESS_CACHE_BYTES (1ULL << 50)

/* One client: an image on a node, some layers at a time. */
struct client {
    uint32_t node, image;
    uint32_t number; /* from 1 on */
    uint32_t next;   /* layer to start next */
    uint32_t first;  /* index of its layers' pulls in drive.layer_pulls */
    uint32_t retries;
    uint64_t started_us; /* or the last time it began again */
    bool waits;          /* has layers to start */
};

/* Room for one more element. The simulator stops when memory is out, as its world does. */
static void *grown(void *array, size_t count, size_t *capacity, size_t element_bytes)
{
    if (count < *capacity)
        return array;
    *capacity = *capacity == 0 ? 256 : 2 * *capacity;
    array = realloc(array, *capacity * element_bytes);
    ASSERT(array != NULL);
    return array;
}

void drive_add_action(struct drive *drive, struct action action)
{
    drive->actions =
        grown(drive->actions, drive->action_count, &drive->action_capacity, sizeof *drive->actions);
    action.order = drive->action_count;
    size_t at = drive->action_count++;
    for (; drive->plays && at > drive->action_next && drive->actions[at - 1].at_us > action.at_us;
         at--)
        drive->actions[at] = drive->actions[at - 1];
    drive->actions[at] = action;
}

/* ---- clients ---- */

static uint32_t start_layer(struct drive *drive, const struct client *client, uint32_t layer,
                            uint64_t at_us)
{
    uint32_t pull = world_pull(drive->world, client->node, drive->first_blob[client->image] + layer,
                               at_us, TRANSFER_READ_STREAM);
    world_set_client(drive->world, pull, client->number);
    return pull;
}

static void begin_client(struct drive *drive, uint32_t node, uint32_t image, uint64_t at_us)
{
    uint32_t layers = drive->scenario->images[image].layer_count;
    uint64_t order = drive->scenario->order;
    struct client client = {.node = node,
                            .image = image,
                            .number = (uint32_t)drive->client_count + 1,
                            .first = (uint32_t)drive->layer_count,
                            .started_us = at_us};
    for (uint32_t i = 0; i < layers; i++) {
        bool now = order == 0 || i < order;
        drive->layer_pulls = grown(drive->layer_pulls, drive->layer_count, &drive->layer_capacity,
                                   sizeof *drive->layer_pulls);
        drive->layer_pulls[drive->layer_count++] =
            now ? start_layer(drive, &client, i, at_us) : NO_PULL;
        client.next += now;
    }
    client.waits = client.next < layers;
    drive->waiting += client.waits;
    drive->clients =
        grown(drive->clients, drive->client_count, &drive->client_capacity, sizeof *drive->clients);
    drive->clients[drive->client_count++] = client;
}

void drive_arrive(struct drive *drive, uint32_t node, uint64_t at_us)
{
    for (uint32_t image = 0; image < drive->scenario->image_count; image++)
        if ((drive->images_of[node] & 1U << image) != 0)
            begin_client(drive, node, image, at_us + drive->scenario->images[image].at_us);
}

/* Starts what the client may start now. A client whose layer failed gives up until a retry. */
static void advance_client(struct drive *drive, struct client *client)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(drive->world, &count);
    uint32_t layers = drive->scenario->images[client->image].layer_count;
    uint64_t running = 0;
    if (pulls[drive->layer_pulls[client->first]].started_us > world_now_us(drive->world))
        return; /* it has not arrived */
    bool failed = !world_node_up(drive->world, client->node);
    for (uint32_t i = 0; i < client->next; i++) {
        const struct world_pull *pull = &pulls[drive->layer_pulls[client->first + i]];
        /* The last bytes reach the client a little after the world knows that they will. */
        running += pull->done_us == 0 || pull->done_us > world_now_us(drive->world);
        failed = failed || pull->failed;
    }
    for (; !failed && running < drive->scenario->order && client->next < layers; running++) {
        drive->layer_pulls[client->first + client->next] =
            start_layer(drive, client, client->next, world_now_us(drive->world));
        client->next++;
    }
    if (client->next == layers || (failed && drive->fates[client->node] != FATE_RETURNS)) {
        client->waits = false;
        drive->waiting--;
    }
}

static void advance_clients(struct drive *drive)
{
    if (drive->waiting == 0)
        return;
    for (size_t i = 0; i < drive->client_count; i++)
        if (drive->clients[i].waits)
            advance_client(drive, &drive->clients[i]);
}

/* Does a client of the node have a pull that failed? */
static bool has_failed(const struct drive *drive, uint32_t node)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(drive->world, &count);
    for (size_t c = 0; c < drive->client_count; c++) {
        const struct client *client = &drive->clients[c];
        for (uint32_t i = 0; client->node == node && i < client->next; i++)
            if (pulls[drive->layer_pulls[client->first + i]].failed)
                return true;
    }
    return false;
}

static void retry(struct drive *drive, uint32_t node)
{
    for (size_t c = 0; c < drive->client_count; c++) {
        struct client *client = &drive->clients[c];
        bool again = false;
        for (uint32_t i = 0; client->node == node && i < client->next; i++) {
            size_t count;
            uint32_t *pull = &drive->layer_pulls[client->first + i];
            if (!world_pulls(drive->world, &count)[*pull].failed)
                continue;
            *pull = start_layer(drive, client, i, world_now_us(drive->world));
            again = true;
        }
        client->retries += again;
        if (again)
            client->started_us = world_now_us(drive->world);
    }
}

/* ---- arrivals ---- */

void drive_shuffle(struct prng *prng, uint32_t *items, uint32_t count)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t other = (uint32_t)prng_below(prng, i), kept = items[i - 1];
        items[i - 1] = items[other];
        items[other] = kept;
    }
}

static void arrive_within(struct drive *drive, uint32_t count, uint64_t from_us)
{
    for (uint32_t i = 0; i < count && drive->nodes_arrived < drive->node_count; i++)
        drive_arrive(drive, drive->nodes[drive->nodes_arrived++],
                     from_us + prng_below(&drive->prng, drive->scenario->within_us + 1));
}

static uint32_t batch_size(const struct drive *drive)
{
    uint64_t nodes = (uint64_t)drive->node_count * drive->scenario->batch_ppm;
    return (uint32_t)((nodes + 999999) / 1000000);
}

/* Microseconds to the next of arrivals that know nothing of each other. */
static double next_gap_us(struct drive *drive)
{
    double uniform = ((double)(prng_next(&drive->prng) >> 11) + 1) / 9007199254740993.0;
    return -log(uniform) / (double)drive->scenario->per_second_milli * 1e9;
}

static void plan_poisson(struct drive *drive)
{
    double at_us = 0;
    for (; drive->nodes_arrived < drive->node_count; drive->nodes_arrived++) {
        at_us += next_gap_us(drive);
        drive_arrive(drive, drive->nodes[drive->nodes_arrived], drive->zero_us + (uint64_t)at_us);
    }
}

/* One of the images, by their shares. */
static uint32_t draw_image(struct drive *drive)
{
    const struct scenario *scenario = drive->scenario;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < scenario->image_count; i++)
        sum += scenario->images[i].share_ppm;
    uint64_t drawn = prng_below(&drive->prng, sum);
    uint32_t image = 0;
    for (; drawn >= scenario->images[image].share_ppm; image++)
        drawn -= scenario->images[image].share_ppm;
    return image;
}

/* Jobs: one image on one node each, for a while. What a node had before may still be there. */
static void plan_jobs(struct drive *drive)
{
    double for_us = (double)drive->scenario->for_us;
    for (double at_us = next_gap_us(drive); at_us < for_us; at_us += next_gap_us(drive)) {
        uint32_t node = drive->nodes[prng_below(&drive->prng, drive->node_count)];
        begin_client(drive, node, draw_image(drive), drive->zero_us + (uint64_t)at_us);
    }
    drive->nodes_arrived = drive->node_count;
}

static void arrive_traced(struct drive *drive, const struct scenario_arrival *arrival)
{
    uint64_t at_us = drive->zero_us + arrival->at_us;
    if (arrival->image == SCENARIO_ALL_IMAGES)
        drive_arrive(drive, arrival->node, at_us);
    else
        begin_client(drive, arrival->node, arrival->image, at_us);
}

static void plan_arrivals(struct drive *drive)
{
    const struct scenario *scenario = drive->scenario;
    switch (scenario->arrivals) {
    case ARRIVALS_ROLLING:
        drive_shuffle(&drive->prng, drive->nodes, drive->node_count);
        arrive_within(drive, batch_size(drive), drive->zero_us);
        for (uint64_t i = 1; scenario->every_us > 0 && drive->nodes_arrived < drive->node_count;
             i++)
            arrive_within(drive, batch_size(drive), drive->zero_us + i * scenario->every_us);
        break;
    case ARRIVALS_POISSON:
        if (scenario->for_us > 0) {
            plan_jobs(drive);
            break;
        }
        drive_shuffle(&drive->prng, drive->nodes, drive->node_count);
        plan_poisson(drive);
        break;
    case ARRIVALS_TRACE:
        for (uint32_t i = 0; i < scenario->trace_count; i++)
            arrive_traced(drive, &scenario->trace[i]);
        drive->nodes_arrived = drive->node_count;
        break;
    default:
        arrive_within(drive, drive->node_count, drive->zero_us);
        break;
    }
}

/* ---- the run ---- */

static int by_moment(const void *a, const void *b)
{
    const struct action *x = a, *y = b;
    if (x->at_us != y->at_us)
        return x->at_us < y->at_us ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static void act(struct drive *drive, const struct action *action)
{
    if (action->kind == ACTION_AIM)
        drive_take_aim(drive, &drive->scenario->faults[action->value]);
    else if (action->kind == ACTION_RETRY)
        retry(drive, action->node);
    else if (action->kind == ACTION_LOSS)
        world_set_loss(drive->world, (uint32_t)action->value);
    else
        world_make_liar(drive->world, action->node);
}

/* Is there a retry to come for a pull that failed already? */
static bool retry_waits(const struct drive *drive)
{
    for (size_t i = drive->action_next; i < drive->action_count; i++)
        if (drive->actions[i].kind == ACTION_RETRY && has_failed(drive, drive->actions[i].node))
            return true;
    return false;
}

/* All pulls ended: the next batch begins if there is one. */
static bool next_batch(struct drive *drive)
{
    if (drive->nodes_arrived == drive->node_count)
        return false;
    size_t count;
    const struct world_pull *pulls = world_pulls(drive->world, &count);
    uint64_t from_us = world_now_us(drive->world);
    for (size_t i = 0; i < count; i++)
        from_us = pulls[i].done_us > from_us ? pulls[i].done_us : from_us;
    arrive_within(drive, batch_size(drive), from_us);
    return true;
}

static void play(struct drive *drive)
{
    bool check = drive->scenario->checks.invariants, idle = false;
    drive->plays = true;
    while (world_now_us(drive->world) < drive->end_us) {
        uint64_t now_us = world_now_us(drive->world), next_us = drive->end_us;
        if (check && next_us > now_us + SECOND_US)
            next_us = now_us + SECOND_US;
        if (drive->waiting > 0 && next_us > now_us + POLL_US)
            next_us = now_us + POLL_US;
        if (drive->scenario->watcher != NULL) {
            drive->scenario->watcher(drive->scenario->watcher_arg, drive->world);
            next_us = next_us > now_us + WATCH_US ? now_us + WATCH_US : next_us;
        }
        if (drive->action_next < drive->action_count &&
            next_us > drive->actions[drive->action_next].at_us)
            next_us = drive->actions[drive->action_next].at_us;
        bool done = world_run(drive->world, next_us > now_us ? next_us : now_us, !idle);
        if (check)
            world_check(drive->world);
        while (drive->action_next < drive->action_count &&
               drive->actions[drive->action_next].at_us <= world_now_us(drive->world)) {
            struct action action = drive->actions[drive->action_next++];
            act(drive, &action);
        }
        advance_clients(drive);
        /* Nothing runs: time goes on only if somebody is still to come. */
        idle =
            done && world_run(drive->world, world_now_us(drive->world), true) && !next_batch(drive);
        if (idle && drive->waiting == 0 && !retry_waits(drive))
            return;
    }
}

static void draw_images(struct drive *drive)
{
    const struct scenario *scenario = drive->scenario;
    for (uint32_t node = 0; node < scenario->world.node_count; node++)
        for (uint32_t image = 0; image < scenario->image_count; image++) {
            uint64_t share_ppm = scenario->images[image].share_ppm;
            if (share_ppm >= 1000000 || prng_below(&drive->prng, 1000000) < share_ppm)
                drive->images_of[node] |= (uint16_t)(1U << image);
        }
}

static void prepare(struct drive *drive)
{
    const struct scenario *scenario = drive->scenario;
    uint32_t nodes = scenario->world.node_count;
    for (uint32_t i = 0; i < scenario->image_count; i++)
        for (uint32_t layer = 0; layer < scenario->images[i].layer_count; layer++) {
            uint32_t blob = world_add_blob(drive->world, scenario->images[i].layers[layer]);
            drive->first_blob[i] = layer == 0 ? blob : drive->first_blob[i];
            world_set_copies(drive->world, blob, scenario->images[i].copies);
        }
    for (uint32_t i = 0; i < scenario->image_count; i++)
        world_add_image(drive->world, drive->first_blob[i], scenario->images[i].layer_count);
    draw_images(drive);
    drive_plan_faults(drive);
    bool warm = scenario->warm_from > 0 && nodes >= scenario->warm_from;
    uint64_t spread_us =
        scenario->settle_us < START_SPREAD_US ? scenario->settle_us : START_SPREAD_US;
    for (uint32_t node = 0; node < nodes; node++) {
        if (drive->late[node])
            continue;
        if (!warm)
            world_start_node(drive->world, node, prng_below(&drive->prng, spread_us + 1), false);
        drive->nodes[drive->node_count++] = node;
    }
    if (warm)
        world_start_settled(drive->world, drive->nodes, drive->node_count);
    plan_arrivals(drive);
    if (drive->action_count > 0)
        qsort(drive->actions, drive->action_count, sizeof *drive->actions, by_moment);
}

static void count_pulls(const struct drive *drive, struct scenario_result *out)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(drive->world, &count);
    for (size_t c = 0; c < drive->client_count; c++) {
        const struct client *client = &drive->clients[c];
        uint32_t layers = drive->scenario->images[client->image].layer_count;
        for (uint32_t i = 0; i < layers; i++) {
            uint32_t index = drive->layer_pulls[client->first + i];
            const struct world_pull *pull = index == NO_PULL ? NULL : &pulls[index];
            uint8_t fate = drive->fates[client->node];
            out->pulls++;
            out->unfinished += (pull == NULL || pull->done_us == 0) && fate != FATE_GONE;
            out->unexplained += pull != NULL && pull->failed && fate == FATE_LIVES;
        }
    }
}

/* Seconds that a client took; < 0: it never had all its layers. */
static double client_s(const struct drive *drive, const struct client *client)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(drive->world, &count);
    uint32_t layers = drive->scenario->images[client->image].layer_count;
    uint64_t done_us = client->started_us;
    for (uint32_t i = 0; i < layers; i++) {
        uint32_t index = drive->layer_pulls[client->first + i];
        if (index == NO_PULL || pulls[index].done_us == 0 || pulls[index].failed)
            return -1;
        done_us = pulls[index].done_us > done_us ? pulls[index].done_us : done_us;
    }
    return (double)(done_us - client->started_us) / 1e6;
}

/* The clients of one image, or of all (SCENARIO_ALL_IMAGES); `seconds` has room for them. */
static void count_clients(const struct drive *drive, uint32_t image, double *seconds,
                          struct report_clients *out)
{
    size_t ended = 0;
    for (size_t c = 0; c < drive->client_count; c++) {
        const struct client *client = &drive->clients[c];
        if (image != SCENARIO_ALL_IMAGES && client->image != image)
            continue;
        double took_s = client_s(drive, client);
        out->count++;
        out->retries += client->retries;
        out->failed += took_s < 0;
        if (took_s >= 0)
            seconds[ended++] = took_s;
    }
    report_clients_times(seconds, ended, out);
}

static void count_images(const struct drive *drive, struct report *out)
{
    const struct scenario *scenario = drive->scenario;
    static_assert(SCENARIO_IMAGES_MAX <= REPORT_IMAGES_MAX, "each image has its figures");
    double *seconds = calloc(drive->client_count + 1, sizeof *seconds);
    ASSERT(seconds != NULL);
    out->image_count = scenario->image_count;
    count_clients(drive, SCENARIO_ALL_IMAGES, seconds, &out->clients);
    for (uint32_t i = 0; i < scenario->image_count; i++) {
        struct report_image *image = &out->images[i];
        (void)snprintf(image->name, sizeof image->name, "%.*s", REPORT_IMAGE_NAME_MAX,
                       scenario->images[i].name.text);
        if (image->name[0] == '\0')
            (void)snprintf(image->name, sizeof image->name, "%u", i);
        count_clients(drive, i, seconds, &image->clients);
        image->clients.bytes = scenario_image_bytes(&scenario->images[i]);
        for (uint32_t layer = 0; layer < scenario->images[i].layer_count; layer++)
            image->clients.origin_bytes +=
                world_origin_bytes(drive->world, drive->first_blob[i] + layer);
        out->clients.bytes += image->clients.bytes;
        out->clients.origin_bytes += image->clients.origin_bytes;
    }
    free(seconds);
}

static void count_bytes(const struct world *world, struct scenario_result *out)
{
    size_t count;
    const struct world_pull *pulls = world_pulls(world, &count);
    const struct world_totals *totals = world_totals(world);
    for (size_t i = 0; i < count; i++)
        if (pulls[i].done_us != 0 && !pulls[i].failed)
            out->pulled_bytes += world_blob(world, pulls[i].blob)->size_bytes;
    out->arrived_bytes = totals->origin_bytes;
    for (unsigned i = 0; i < DISTANCE_COUNT; i++)
        out->arrived_bytes += totals->peer_bytes[i];
}

double scenario_hit_ratio(const struct scenario_result *result)
{
    if (result->pulled_bytes == 0 || result->arrived_bytes >= result->pulled_bytes)
        return 0;
    return 1 - (double)result->arrived_bytes / (double)result->pulled_bytes;
}

static void drive_close(struct drive *drive)
{
    free(drive->images_of);
    free(drive->late);
    free(drive->fates);
    free(drive->nodes);
    free(drive->clients);
    free(drive->layer_pulls);
    free(drive->actions);
}

/* What the faults need of the world. */
static void prepare_config(const struct scenario *scenario, struct world_config *config)
{
    for (uint32_t i = 0; i < scenario->fault_count; i++) {
        const struct scenario_fault *fault = &scenario->faults[i];
        config->watch = config->watch || fault->aim != 0;
        if (fault->kind == FAULT_DISK && fault->error != WORLD_DISK_WELL &&
            config->cache_bytes == 0)
            config->cache_bytes = ENDLESS_CACHE_BYTES;
    }
}

int scenario_run(const struct scenario *scenario, struct world **world, struct scenario_result *out)
{
    uint32_t nodes = scenario->world.node_count;
    struct drive drive = {.scenario = scenario,
                          .zero_us = scenario->settle_us,
                          .end_us = scenario->settle_us + scenario->limit_us,
                          .images_of = calloc(nodes, sizeof *drive.images_of),
                          .late = calloc(nodes, sizeof *drive.late),
                          .fates = calloc(nodes, sizeof *drive.fates),
                          .nodes = calloc(nodes, sizeof *drive.nodes)};
    *out = (struct scenario_result){.pulls = 0};
    struct world_config config = scenario->world;
    prepare_config(scenario, &config);
    piece_size_set((uint32_t)scenario->piece_bytes);
    drive.world = world_new(&config);
    if (drive.world == NULL || drive.images_of == NULL || drive.late == NULL ||
        drive.fates == NULL || drive.nodes == NULL) {
        if (drive.world != NULL)
            world_free(drive.world);
        drive_close(&drive);
        return E_NO_MEMORY;
    }
    prng_seed(&drive.prng, (const uint8_t *)&scenario->world.seed, sizeof scenario->world.seed);
    prepare(&drive);
    play(&drive);
    count_pulls(&drive, out);
    count_bytes(drive.world, out);
    report_make(drive.world, &scenario->world, &out->report);
    count_images(&drive, &out->report);
    out->report.hit_ratio = scenario_hit_ratio(out);
    drive_close(&drive);
    *world = drive.world;
    return 0;
}

/* ---- checks ---- */

static unsigned over(FILE *to, const char *name, double value, double limit)
{
    if (limit <= 0 || value <= limit)
        return 0;
    if (to != NULL)
        fprintf(to, "check: %s is %.4g, limit %.4g\n", name, value, limit);
    return 1;
}

unsigned scenario_check_result(const struct scenario *scenario,
                               const struct scenario_result *result, FILE *to)
{
    const struct scenario_checks *checks = &scenario->checks;
    const struct report *report = &result->report;
    double bound_s = report->bound_s > 0 ? report->bound_s : 1;
    unsigned bad = 0;
    bad += over(to, "ratio.p50", report->p50_s / bound_s, (double)checks->p50 / 1000);
    bad += over(to, "ratio.p99", report->p99_s / bound_s, (double)checks->p99 / 1000);
    bad += over(to, "ratio.p999", report->p999_s / bound_s, (double)checks->p999 / 1000);
    bad += over(to, "ratio.last", report->last_s / bound_s, (double)checks->last / 1000);
    bad += over(to, "completion.last_s", report->last_s, (double)checks->last_us / 1e6);
    bad += over(to, "origin_copies", report->origin_copies, (double)checks->origin_copies / 1000);
    bad += over(to, "cross_zone_copies", report->cross_zone_copies,
                (double)checks->cross_zone_copies / 1000);
    bad += over(to, "upload_skew", report->upload_skew, (double)checks->upload_skew / 1000);
    bad += over(to, "faultless.p99_against", report->faultless.p99,
                (double)checks->p99_faultless / 1000);
    bad += over(to, "faultless.origin_against", report->faultless.origin,
                (double)checks->origin_faultless / 1000);
    bad +=
        over(to, "control_fraction", report->control_fraction, (double)checks->control_ppm / 1e6);
    return bad;
}
