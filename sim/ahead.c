/* SPDX-License-Identifier: Apache-2.0 */
/* Layers that are brought in before a client asks for them: what the agent's mirror_prefetch.c does
 * at a node. The rule is prefetch.h's. */
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "log.h"

static uint32_t image_of(const struct world *world, uint32_t blob)
{
    for (uint32_t i = 0; i < world->image_count; i++) {
        const struct world_image *image = &world->images[i];
        if (blob >= image->first_blob && blob - image->first_blob < image->blob_count)
            return i;
    }
    return INDEX_NONE;
}

static void image_open(struct sim_node *node, uint32_t index)
{
    struct world *world = node->world;
    const struct world_image *image = &world->images[index];
    struct sim_image *mine = &node->images[index];
    if (mine->layers != NULL)
        return;
    mine->layers = calloc(image->blob_count, sizeof *mine->layers);
    mine->readers = calloc(image->blob_count, sizeof *mine->readers);
    ASSERT(mine->layers != NULL && mine->readers != NULL);
    for (uint32_t i = 0; i < image->blob_count; i++)
        mine->layers[i].size_bytes = world->blobs[image->first_blob + i].size_bytes;
    prefetch_init(&mine->plan, mine->layers, image->blob_count);
}

static uint64_t room_bytes(const struct sim_node *node)
{
    uint64_t capacity = node->world->config.cache_bytes;
    uint64_t room = prefetch_room(capacity == 0 ? UINT64_MAX : capacity), ahead = 0;
    for (uint32_t i = 0; i < node->world->image_count; i++) {
        if (node->images[i].layers != NULL)
            ahead += prefetch_ahead_bytes(&node->images[i].plan);
    }
    return ahead < room ? room - ahead : 0;
}

static void unhold(struct sim_node *node, uint32_t blob)
{
    if (node->keep != NULL)
        keep_unhold(node, blob);
}

/* True if it runs: then it is held, where there is a cache to hold it in. */
static bool start(struct sim_node *node, uint32_t blob, uint64_t bytes, uint64_t *reader_id)
{
    const struct world *world = node->world;
    const struct piece_layout *layout = &world->layouts[blob];
    uint32_t pieces = piece_at(layout, bytes - 1) + 1;
    if (pulls_open(node, blob) != 0)
        return false;
    pulls_count(node, blob);
    if (bitfield_next_clear(&node->blobs[blob].have, 0) >= pieces)
        return false;
    if (node->keep != NULL && !keep_hold(node, blob))
        return false;
    int err = transfer_read_start(host_transfer(node), host_now_us(node), node->blobs[blob].handle,
                                  0, pieces, TRANSFER_READ_PREFETCH, true, reader_id);
    if (err != 0)
        unhold(node, blob);
    return err == 0;
}

static void stop(struct sim_node *node, uint32_t blob, uint64_t *reader_id)
{
    transfer_read_stop(host_transfer(node), host_now_us(node), *reader_id);
    *reader_id = 0;
    unhold(node, blob);
}

static void take_steps(struct sim_node *node, uint32_t index, uint64_t room)
{
    struct sim_image *mine = &node->images[index];
    uint32_t first = node->world->images[index].first_blob;
    struct prefetch_step step;
    while (prefetch_next(&mine->plan, node->world->now_us, room, &step)) {
        uint64_t *reader_id = &mine->readers[step.layer];
        if (step.kind == PREFETCH_STOP)
            stop(node, first + step.layer, reader_id);
        else if (start(node, first + step.layer, step.bytes, reader_id))
            room -= step.bytes;
        else
            prefetch_settle(&mine->plan, step.layer);
    }
}

/* Something may be to be let go of later. */
static void look_again(struct sim_node *node, uint32_t index)
{
    uint64_t at_us = prefetch_deadline_us(&node->images[index].plan);
    if (at_us != UINT64_MAX)
        events_push(&node->world->events,
                    (struct event){
                        .at_us = at_us, .kind = EVENT_REST, .node = node->index, .other = index});
}

void ahead_began(struct sim_node *node, uint32_t blob)
{
    uint32_t index = image_of(node->world, blob);
    if (!node->world->config.prefetch || index == INDEX_NONE)
        return;
    image_open(node, index);
    prefetch_began(&node->images[index].plan, node->world->now_us,
                   blob - node->world->images[index].first_blob);
    take_steps(node, index, room_bytes(node));
    look_again(node, index);
}

void ahead_ended(struct sim_node *node, uint32_t blob)
{
    uint32_t index = image_of(node->world, blob);
    if (!node->world->config.prefetch || index == INDEX_NONE)
        return;
    prefetch_ended(&node->images[index].plan, node->world->now_us);
    look_again(node, index);
}

void ahead_rest(struct sim_node *node, uint32_t image)
{
    if (node->mesh == NULL || node->images[image].layers == NULL)
        return;
    take_steps(node, image, 0);
    host_drain(node);
}

void ahead_drop(struct sim_node *node)
{
    for (uint32_t i = 0; i < WORLD_BLOBS_MAX; i++) {
        struct sim_image *mine = &node->images[i];
        for (uint32_t layer = 0; mine->layers != NULL && layer < mine->plan.layer_count; layer++) {
            if (mine->readers[layer] != 0)
                unhold(node, node->world->images[i].first_blob + layer);
        }
        free(mine->layers);
        free(mine->readers);
        *mine = (struct sim_image){.layers = NULL};
    }
}
