/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the next call of a transfer object will read, asked for beforehand. A message reads some
 * forty lines of memory one after the other, each found by the one before: in a process of
 * thousands of nodes that is most of its time. Nothing here is needed for anything to be right; a
 * step that was left out, or came for another message, costs time alone.
 */
#include "blob.h"

#define LINE_BYTES 64
/* More of a bitfield follows by itself: the processor sees that it is read in order. */
#define BITS_BYTES 256

static void ask(const void *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE_BYTES)
        __builtin_prefetch((const char *)from + at);
}

static void ask_bits(const struct bitfield *field)
{
    size_t bytes = (field->bit_count + 7) / 8;
    ask(field->bits, bytes < BITS_BYTES ? bytes : BITS_BYTES);
}

/* The neighbour that sends; NULL if it is none. */
static const struct neighbour *sender(const struct transfer *transfer, const struct node_id *from)
{
    const struct blob *blob = transfer->active;
    if (from == NULL || blob == NULL)
        return NULL;
    uint16_t node = transfer__node_find(transfer, from);
    return node == NODE_NONE ? NULL : transfer__neighbour(blob->swarm, node);
}

static void ask_blob(const struct transfer *transfer)
{
    const struct results *results = &transfer->results;
    if (transfer->active != NULL)
        ask(transfer->active, offsetof(struct blob, by_key));
    __builtin_prefetch(&results->ring[results->first]);
    __builtin_prefetch(transfer->readers);
    __builtin_prefetch(transfer->leases);
}

static void ask_swarm(const struct transfer *transfer, const struct node_id *from)
{
    const struct blob *blob = transfer->active;
    if (from != NULL)
        transfer__node_look_ahead(transfer, from, true);
    if (blob == NULL)
        return;
    ask(blob->swarm, offsetof(struct swarm, neighbours));
    ask_bits(&blob->have);
}

static void ask_neighbour(const struct transfer *transfer, const struct node_id *from)
{
    const struct blob *blob = transfer->active;
    if (blob != NULL && blob->swarm->front < blob->layout.piece_count)
        __builtin_prefetch(&blob->swarm->asked[blob->swarm->front]);
    const struct neighbour *neighbour = sender(transfer, from);
    if (neighbour == NULL)
        return;
    ask(neighbour, sizeof *neighbour);
    ask(neighbour->known.bits, BITS_BYTES);
    ask_bits(&blob->swarm->injected);
    __builtin_prefetch(neighbour->peer);
}

void transfer_look_ahead(const struct transfer *transfer, unsigned step, const struct node_id *from)
{
    switch (step) {
    case 1:
        ask(transfer,
            offsetof(struct transfer, config) + offsetof(struct transfer_config, topology));
        __builtin_prefetch(&transfer->stats.messages_sent);
        break;
    case 2:
        ask_blob(transfer);
        if (from != NULL)
            transfer__node_look_ahead(transfer, from, false);
        break;
    case 3:
        ask_swarm(transfer, from);
        break;
    case TRANSFER_LOOK_AHEAD_STEPS:
        ask_neighbour(transfer, from);
        break;
    default:
        break;
    }
}
