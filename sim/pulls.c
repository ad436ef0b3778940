/* SPDX-License-Identifier: Apache-2.0 */
/* The blobs a node has or gets, and the pulls that wait for them: a client that reads a blob in
 * order, as fast as it comes. */
#include "host.h"
#include "log.h"

uint32_t pulls_blob_of(const struct sim_node *node, blob_handle handle)
{
    for (uint32_t i = 0; handle != 0 && i < node->world->blob_count; i++) {
        if (node->blobs[i].handle == handle)
            return i;
    }
    return INDEX_NONE;
}

int pulls_open(struct sim_node *node, uint32_t blob)
{
    struct sim_blob *mine = &node->blobs[blob];
    const struct world *world = node->world;
    if (mine->handle != 0)
        return 0;
    int err = 0;
    if (mine->have.bits == NULL)
        err = bitfield_init(&mine->have, &node->env, world->layouts[blob].piece_count);
    if (err == 0)
        err = transfer_blob_open(host_transfer(node), world->now_us, &world->blobs[blob],
                                 &mine->have, &mine->handle);
    return err;
}

static void end_pull(struct world *world, struct world_pull *pull, bool failed)
{
    ASSERT(pull->done_us == 0 && world->pulls_running > 0);
    pull->done_us = world->now_us;
    pull->failed = failed;
    world->pulls_running--;
}

void pulls_begin(struct sim_node *node, uint32_t pull_index, enum transfer_read_mode mode)
{
    struct world *world = node->world;
    struct world_pull *pull = &world->pulls[pull_index];
    struct sim_blob *mine = &node->blobs[pull->blob];
    if (node->mesh == NULL || pulls_open(node, pull->blob) != 0) {
        end_pull(world, pull, true);
        return;
    }
    if (bitfield_full(&mine->have)) {
        end_pull(world, pull, false);
        return;
    }
    int err = transfer_read_start(host_transfer(node), world->now_us, mine->handle, 0,
                                  mine->have.bit_count, mode, true, &pull->reader_id);
    if (err != 0) {
        end_pull(world, pull, true);
    } else {
        pull->next = mine->first_pull;
        mine->first_pull = pull_index;
        pulls_piece(node, pull->blob);
    }
    host_drain(node);
}

void pulls_piece(struct sim_node *node, uint32_t blob)
{
    struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[blob];
    uint32_t prefix = bitfield_next_clear(&mine->have, mine->prefix);
    bool moved = prefix != mine->prefix;
    mine->prefix = prefix;
    if (!moved || prefix == mine->have.bit_count)
        return;
    for (uint32_t i = mine->first_pull; i != INDEX_NONE; i = world->pulls[i].next)
        transfer_read_move(host_transfer(node), world->now_us, world->pulls[i].reader_id, prefix);
}

void pulls_end(struct sim_node *node, uint32_t blob, bool failed)
{
    struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[blob];
    ASSERT(failed || bitfield_full(&mine->have));
    uint32_t i = mine->first_pull;
    mine->first_pull = INDEX_NONE;
    for (; i != INDEX_NONE; i = world->pulls[i].next) {
        transfer_read_stop(host_transfer(node), world->now_us, world->pulls[i].reader_id);
        end_pull(world, &world->pulls[i], failed);
    }
}

void pulls_drop(struct sim_node *node)
{
    struct world *world = node->world;
    for (uint32_t blob = 0; blob < world->blob_count; blob++) {
        struct sim_blob *mine = &node->blobs[blob];
        for (uint32_t i = mine->first_pull; i != INDEX_NONE; i = world->pulls[i].next)
            end_pull(world, &world->pulls[i], true);
        mine->first_pull = INDEX_NONE;
        mine->handle = 0;
    }
}

void pulls_forget(struct sim_node *node)
{
    for (uint32_t i = 0; i < WORLD_BLOBS_MAX; i++) {
        if (node->blobs[i].have.bits != NULL)
            bitfield_close(&node->blobs[i].have, &node->env);
        node->blobs[i] = (struct sim_blob){.first_pull = INDEX_NONE};
    }
}
