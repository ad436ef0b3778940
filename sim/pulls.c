/* SPDX-License-Identifier: Apache-2.0 */
/* The blobs a node has or gets, and the pulls that wait for them: a client that reads a blob in
 * order, as fast as it comes. */
#include <stdlib.h>

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
    keep_open(node, blob);
    if (err == 0)
        err = transfer_blob_open(host_transfer(node), host_now_us(node), &world->blobs[blob],
                                 &mine->have, &mine->handle);
    if (err == 0)
        transfer_blob_copies(host_transfer(node), host_now_us(node), mine->handle,
                             world->config.plant == WORLD_PLANT_ABROAD ? TRANSFER_COPIES_MESH
                                                                       : world->copies[blob]);
    return err;
}

static void end_pull(struct world *world, struct world_pull *pull, bool failed)
{
    ASSERT(pull->done_us == 0 && world->pulls_running > 0);
    uint64_t read_us = world->nodes[pull->node].read_us;
    pull->done_us = failed || read_us < world->now_us ? world->now_us : read_us;
    pull->failed = failed;
    world->pulls_running--;
    *(failed ? &world->pulls_failed : &world->pulls_done) += 1;
}

void pulls_count(struct sim_node *node, uint32_t blob)
{
    struct sim_blob *mine = &node->blobs[blob];
    const struct piece_layout *layout = &node->world->layouts[blob];
    if (mine->counted)
        return;
    mine->counted = true;
    for (uint32_t i = bitfield_next_set(&mine->have, 0); i < mine->have.bit_count;
         i = bitfield_next_set(&mine->have, i + 1))
        node->got_bytes += piece_length(layout, i);
}

/* The client goes on as far as there are pieces. A piece is late unless it came last. */
static bool move(struct sim_node *node, struct world_pull *pull)
{
    struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[pull->blob];
    uint32_t end = bitfield_next_clear(&mine->have, pull->position);
    bool moved = end != pull->position;
    for (bool late = false; pull->position < end; pull->position++, late = true) {
        if (late && work_read_fails(node, pull->blob, pull->position)) {
            keep_spoil(node, pull->blob, pull->position);
            break; /* the client waits until it comes once more */
        }
        uint64_t done_us = world->now_us + work_read_us(node, pull->blob, pull->position, late);
        node->read_us = done_us > node->read_us ? done_us : node->read_us;
    }
    return moved;
}

void pulls_begin(struct sim_node *node, uint32_t pull_index, enum transfer_read_mode mode)
{
    struct world *world = node->world;
    struct world_pull *pull = &world->pulls[pull_index];
    struct sim_blob *mine = &node->blobs[pull->blob];
    series_begin(world);
    world->pulls_begun++;
    if (node->mesh == NULL || pulls_open(node, pull->blob) != 0) {
        end_pull(world, pull, true);
        return;
    }
    pulls_count(node, pull->blob);
    bool full = bitfield_full(&mine->have);
    if (full)
        (void)move(node, pull);
    if (full && pull->position == mine->have.bit_count) {
        ahead_began(node, pull->blob);
        end_pull(world, pull, false);
        ahead_ended(node, pull->blob);
        host_drain(node);
        return;
    }
    int err = transfer_read_start(host_transfer(node), host_now_us(node), mine->handle, 0,
                                  mine->have.bit_count, mode, true, &pull->reader_id);
    if (err != 0) {
        end_pull(world, pull, true);
    } else {
        pull->next = mine->first_pull;
        mine->first_pull = pull_index;
        pull->held = keep_hold(node, pull->blob);
        ahead_began(node, pull->blob);
        pulls_piece(node, pull->blob);
    }
    host_drain(node);
}

static void unhold(struct sim_node *node, struct world_pull *pull)
{
    if (pull->held)
        keep_unhold(node, pull->blob);
    pull->held = false;
}

static void stop(struct sim_node *node, struct world_pull *pull, bool failed)
{
    struct world *world = node->world;
    transfer_read_stop(host_transfer(node), host_now_us(node), pull->reader_id);
    unhold(node, pull);
    end_pull(world, pull, failed);
    ahead_ended(node, pull->blob);
}

void pulls_piece(struct sim_node *node, uint32_t blob)
{
    struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[blob];
    bool complete = bitfield_full(&mine->have); /* transfer will say so */
    for (uint32_t *link = &mine->first_pull; *link != INDEX_NONE;) {
        struct world_pull *pull = &world->pulls[*link];
        bool moved = move(node, pull);
        if (pull->position == mine->have.bit_count && !complete) {
            *link = pull->next; /* it read all, part of which is evicted again */
            stop(node, pull, false);
            continue;
        }
        if (world->config.plant == WORLD_PLANT_HOLE && !complete &&
            mine->have.set_count + 1 == mine->have.bit_count) {
            *link = pull->next;
            stop(node, pull, false);
            continue;
        }
        if (moved && !bitfield_full(&mine->have)) /* a read may have failed on the way */
            transfer_read_move(host_transfer(node), host_now_us(node), pull->reader_id,
                               pull->position);
        link = &pull->next;
    }
}

void pulls_end(struct sim_node *node, uint32_t blob, bool failed)
{
    struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[blob];
    ASSERT(failed || node->keep != NULL || bitfield_full(&mine->have));
    for (uint32_t *link = &mine->first_pull; *link != INDEX_NONE;) {
        struct world_pull *pull = &world->pulls[*link];
        if (!failed && pull->position < mine->have.bit_count) {
            link = &pull->next; /* a piece is gone again before the client had it */
            continue;
        }
        *link = pull->next;
        stop(node, pull, failed);
    }
}

void pulls_drop(struct sim_node *node)
{
    struct world *world = node->world;
    for (uint32_t blob = 0; blob < world->blob_count; blob++) {
        struct sim_blob *mine = &node->blobs[blob];
        for (uint32_t i = mine->first_pull; i != INDEX_NONE; i = world->pulls[i].next) {
            unhold(node, &world->pulls[i]);
            end_pull(world, &world->pulls[i], true);
        }
        mine->first_pull = INDEX_NONE;
        mine->handle = 0;
    }
    ahead_drop(node);
}

void pulls_forget(struct sim_node *node)
{
    for (uint32_t i = 0; i < WORLD_BLOBS_MAX; i++) {
        if (node->blobs[i].have.bits != NULL)
            bitfield_close(&node->blobs[i].have, &node->env);
        free(node->blobs[i].touched);
        node->blobs[i] = (struct sim_blob){.first_pull = INDEX_NONE};
    }
    ahead_drop(node);
    node->got_bytes = 0;
    keep_close(node);
    keep_init(node);
}
