/* SPDX-License-Identifier: Apache-2.0 */
/* The time series of a world; see series.h. Costs one comparison per event, and at the end of each
 * sample one step per node. */
#include "series.h"

#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "log.h"

static_assert(SERIES_SAMPLES_MAX % 2 == 0, "samples are folded in pairs");

void series_init(struct series *series, uint32_t node_count, uint64_t period_us)
{
    *series = (struct series){.period_us = period_us == 0 ? SERIES_PERIOD_US : period_us,
                              .next_us = UINT64_MAX,
                              .node_count = node_count};
}

void series_close(struct series *series)
{
    free(series->samples);
    free(series->progress);
}

void series_begin(struct world *world)
{
    struct series *series = &world->series;
    if (series->began)
        return;
    series->samples = calloc(SERIES_SAMPLES_MAX, sizeof *series->samples);
    series->progress = calloc(SERIES_SAMPLES_MAX, series->node_count);
    ASSERT(series->samples != NULL && series->progress != NULL);
    series->began = true;
    series->start_us = world->now_us;
    series->next_us = world->now_us + series->period_us;
    series->sample_count = 1;
}

/* ---- samples ---- */

static uint8_t progress_of(const struct sim_node *node)
{
    uint64_t got = node->got_bytes;
    if (node->bytes.wanted == 0)
        return 0;
    uint64_t level = got >= node->bytes.wanted ? UINT8_MAX : got * UINT8_MAX / node->bytes.wanted;
    return (uint8_t)level;
}

/* What the present sample says of its end. */
static void close_sample(struct world *world)
{
    struct series *series = &world->series;
    struct series_sample *sample = &series->samples[series->sample_count - 1];
    uint8_t *row = &series->progress[(uint64_t)(series->sample_count - 1) * series->node_count];
    sample->nodes_up = world->nodes_up;
    sample->pulls_running = world->pulls_begun - world->pulls_done - world->pulls_failed;
    sample->pulls_done = world->pulls_done;
    sample->pulls_failed = world->pulls_failed;
    for (uint32_t i = 0; i < series->node_count; i++)
        row[i] = progress_of(&world->nodes[i]);
}

static void fold(struct series *series)
{
    for (uint32_t i = 0; i < SERIES_SAMPLES_MAX / 2; i++) {
        const struct series_sample *first = &series->samples[2ULL * i];
        struct series_sample sum = series->samples[2ULL * i + 1];
        for (unsigned source = 0; source < SERIES_SOURCES; source++)
            sum.bytes[source] += first->bytes[source];
        sum.control_bytes += first->control_bytes;
        series->samples[i] = sum;
        memmove(&series->progress[(uint64_t)i * series->node_count],
                &series->progress[(2ULL * i + 1) * series->node_count], series->node_count);
    }
    series->sample_count = SERIES_SAMPLES_MAX / 2;
    series->period_us *= 2;
    memset(&series->samples[series->sample_count], 0,
           (SERIES_SAMPLES_MAX - series->sample_count) * sizeof *series->samples);
}

void series_tick(struct world *world, uint64_t now_us)
{
    struct series *series = &world->series;
    while (series->next_us <= now_us) {
        close_sample(world);
        if (series->sample_count == SERIES_SAMPLES_MAX)
            fold(series);
        series->sample_count++;
        series->next_us += series->period_us;
    }
}

/* Bytes that came evenly from `from_us` to now. */
void series_bytes(struct world *world, enum series_source source, uint64_t from_us, uint64_t bytes)
{
    struct series *series = &world->series;
    if (!series->began)
        return;
    uint64_t start_us = from_us > series->start_us ? from_us - series->start_us : 0;
    uint64_t end_us = world->now_us - series->start_us;
    uint64_t first = start_us / series->period_us, last = series->sample_count - 1;
    uint64_t given = 0;
    for (uint64_t i = first; i < last; i++) {
        uint64_t until_us = (i + 1) * series->period_us - start_us;
        uint64_t so_far =
            (uint64_t)((double)bytes * (double)until_us / (double)(end_us - start_us));
        series->samples[i].bytes[source] += so_far - given;
        given = so_far;
    }
    series->samples[last].bytes[source] += bytes - given;
}

const struct series *world_series(struct world *world)
{
    if (world->series.began) {
        series_tick(world, world->now_us);
        close_sample(world);
    }
    return &world->series;
}

void world_node_bytes(const struct world *world, uint32_t node, struct node_bytes *out)
{
    *out = world->nodes[node].bytes;
    out->sent = world->nodes[node].uploaded_bytes;
}
