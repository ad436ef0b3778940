/* SPDX-License-Identifier: Apache-2.0 */
/* Takes what the plots show from a finished world; see report_data.h. */
#include "report_data.h"

#include <math.h>
#include <stdlib.h>

/* A last sample shorter than this part of a period would show a rate of a few packets. */
#define SHORT_SAMPLE 0.25

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int descending(const void *a, const void *b)
{
    return ascending(b, a);
}

struct arrival {
    double at_s;
    uint32_t node;
};

/* Equal arrivals in the order of nodes. */
static int by_arrival(const void *a, const void *b)
{
    const struct arrival *x = a, *y = b;
    if (x->at_s != y->at_s)
        return x->at_s < y->at_s ? -1 : 1;
    return (x->node > y->node) - (x->node < y->node);
}

/* Zeroed room for `count` items; one where none is needed, so that NULL means no memory. */
static void *room(size_t count, size_t item_bytes)
{
    return calloc(count > 0 ? count : 1, item_bytes);
}

static int take_nodes(struct report_data *data, struct world *world,
                      const struct world_config *config)
{
    struct report_pulls pulls;
    uint32_t count = data->node_count, clients = report__clients_apart(world);
    uint32_t entry_count = clients > 0 ? clients : count;
    struct report_node *of_clients = room(clients, sizeof *of_clients);
    data->nodes = room(count, sizeof *data->nodes);
    data->completion_s = room(entry_count, sizeof *data->completion_s);
    data->upload_bytes = room(count, sizeof *data->upload_bytes);
    data->no_mesh_s = room(entry_count, sizeof *data->no_mesh_s);
    if (data->nodes == NULL || data->completion_s == NULL || data->upload_bytes == NULL ||
        data->no_mesh_s == NULL || of_clients == NULL) {
        free(of_clients);
        return E_NO_MEMORY;
    }
    report__nodes(world, data->nodes, count, &pulls);
    report__clients(world, of_clients, clients);
    const struct report_node *entries = clients > 0 ? of_clients : data->nodes;
    int err = report__no_mesh(config, entries, entry_count, count > 0 ? entries[0].blobs : 0,
                              data->no_mesh_s);
    for (uint32_t node = 0; node < count; node++)
        data->upload_bytes[node] = (double)world_uploaded(world, node);
    for (uint32_t i = 0; i < entry_count && err == 0; i++) {
        if (entries[i].pulled && entries[i].completion_s >= 0)
            data->completion_s[data->completion_count++] = entries[i].completion_s;
        if (entries[i].pulled)
            data->no_mesh_s[data->pulled_count++] = data->no_mesh_s[i];
    }
    free(of_clients);
    if (err != 0)
        return err;
    qsort(data->no_mesh_s, data->pulled_count, sizeof *data->no_mesh_s, ascending);
    qsort(data->completion_s, data->completion_count, sizeof *data->completion_s, ascending);
    qsort(data->upload_bytes, count, sizeof *data->upload_bytes, descending);
    return 0;
}

/* Seconds that column `column` covers. */
static double column_s(const struct report_data *data, uint32_t column)
{
    double start_s = column * data->period_s;
    double covered_s = fmin(data->end_s - start_s, data->period_s);
    return fmax(covered_s, data->period_s * SHORT_SAMPLE);
}

/* Sums of samples, then rates. */
static void fill_series(struct report_data *data, const struct series *series)
{
    double origin = 0, cross = 0;
    for (uint32_t i = 0; i < series->sample_count; i++) {
        const struct series_sample *sample = &series->samples[i];
        uint32_t column = i / data->group;
        for (size_t source = 0; source < SERIES_SOURCES; source++)
            data->arrived[source][column] += (double)sample->bytes[source];
        data->control_bps[column] += (double)sample->control_bytes;
        origin += (double)sample->bytes[SERIES_ORIGIN];
        cross += (double)sample->bytes[SERIES_CROSS];
        data->origin_sum[column] = origin;
        data->cross_sum[column] = cross;
        data->nodes_up[column] = sample->nodes_up;
        data->pulls_running[column] = sample->pulls_running;
    }
    for (uint32_t column = 0; column < data->sample_count; column++) {
        double seconds = column_s(data, column);
        for (size_t source = 0; source < SERIES_SOURCES; source++)
            data->arrived[source][column] /= seconds;
        data->control_bps[column] /= seconds;
    }
}

static int take_series(struct report_data *data, const struct series *series, uint64_t now_us)
{
    data->group = (series->sample_count + REPORT_COLUMNS - 1) / REPORT_COLUMNS;
    data->group = data->group > 0 ? data->group : 1;
    data->sample_count = (series->sample_count + data->group - 1) / data->group;
    data->period_s = (double)series->period_us * data->group / 1e6;
    data->end_s = data->sample_count * data->period_s;
    if (now_us > series->start_us && (double)(now_us - series->start_us) / 1e6 < data->end_s)
        data->end_s = (double)(now_us - series->start_us) / 1e6;
    double **rows[] = {&data->arrived[SERIES_ORIGIN],
                       &data->arrived[SERIES_VSWITCH],
                       &data->arrived[SERIES_ZONE],
                       &data->arrived[SERIES_CROSS],
                       &data->origin_sum,
                       &data->cross_sum,
                       &data->control_bps,
                       &data->nodes_up,
                       &data->pulls_running};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i] = room(data->sample_count, sizeof **rows[i]);
        if (*rows[i] == NULL)
            return E_NO_MEMORY;
    }
    fill_series(data, series);
    return 0;
}

/* Level of a raster's cell: the mean progress of the nodes of a row. Full only if all are. */
static uint8_t level_of(const struct series *series, uint32_t sample, const struct arrival *order,
                        uint32_t count)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += series_progress(series, sample, order[i].node);
    uint64_t level = count == 0 ? 0 : sum * (REPORT_LEVELS - 1) / (255ULL * count);
    return (uint8_t)level;
}

static int take_raster(struct report_data *data, const struct series *series)
{
    struct arrival *order = room(data->node_count, sizeof *order);
    uint32_t count = 0;
    for (uint32_t node = 0; order != NULL && node < series->node_count; node++) {
        if (data->nodes[node].pulled)
            order[count++] = (struct arrival){data->nodes[node].arrival_s, node};
    }
    data->raster_rows = count < REPORT_RASTER_ROWS ? count : REPORT_RASTER_ROWS;
    data->raster = room((size_t)data->raster_rows * data->sample_count, sizeof *data->raster);
    if (order == NULL || data->raster == NULL) {
        free(order);
        return E_NO_MEMORY;
    }
    qsort(order, count, sizeof *order, by_arrival);
    for (uint32_t row = 0; row < data->raster_rows; row++) {
        uint32_t first = (uint32_t)((uint64_t)row * count / data->raster_rows);
        uint32_t next = (uint32_t)((row + 1ULL) * count / data->raster_rows);
        for (uint32_t column = 0; column < data->sample_count; column++) {
            uint32_t last = (column + 1) * data->group - 1;
            uint32_t sample = last < series->sample_count ? last : series->sample_count - 1;
            data->raster[row * data->sample_count + column] =
                level_of(series, sample, order + first, next - first);
        }
    }
    free(order);
    return 0;
}

int report_data_init(struct report_data *data, struct world *world,
                     const struct world_config *config)
{
    const struct series *series = world_series(world);
    *data = (struct report_data){.node_count = config->node_count};
    int err = take_nodes(data, world, config);
    if (err == 0)
        err = take_series(data, series, world_now_us(world));
    if (err == 0 && data->sample_count > 0)
        err = take_raster(data, series);
    if (err != 0)
        report_data_close(data);
    return err;
}

void report_data_close(struct report_data *data)
{
    free(data->nodes);
    free(data->completion_s);
    free(data->upload_bytes);
    for (size_t source = 0; source < SERIES_SOURCES; source++)
        free(data->arrived[source]);
    free(data->origin_sum);
    free(data->cross_sum);
    free(data->control_bps);
    free(data->nodes_up);
    free(data->pulls_running);
    free(data->no_mesh_s);
    free(data->raster);
    *data = (struct report_data){0};
}
