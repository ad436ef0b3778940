/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of nodes: members as gossip tells them, and strangers that talked to us first (a node
 * that just started is heard before gossip has spread it). Owns slots and their order by id;
 * placement.c makes zones of them.
 */
#include "core.h"

#include "topology.h"

static bool topology_same(const struct topology *a, const struct topology *b)
{
    return label_equal(&a->region, &b->region) && label_equal(&a->zone, &b->zone) &&
           label_equal(&a->vswitch, &b->vswitch);
}

/* Index of a topology, added if new. Index 0 (this node's own) serves when there is no room: data
 * then flows as inside the zone, which costs placement and nothing else. */
static uint16_t topology_index(struct transfer *transfer, const struct topology *topology)
{
    struct nodes *nodes = &transfer->nodes;
    for (uint32_t i = 0; i < nodes->topology_count; i++) {
        if (topology_same(&nodes->topologies[i], topology))
            return (uint16_t)i;
    }
    if (nodes->topology_count == TOPOLOGIES_MAX)
        return 0;
    uint32_t capacity = nodes->topology_capacity;
    if (transfer__grow(transfer, (void **)&nodes->topology_zone, &capacity,
                       nodes->topology_count + 1, sizeof *nodes->topology_zone) != 0)
        return 0;
    if (transfer__grow(transfer, (void **)&nodes->topologies, &nodes->topology_capacity,
                       nodes->topology_count + 1, sizeof *nodes->topologies) != 0)
        return 0;
    nodes->topologies[nodes->topology_count] = *topology;
    nodes->stale = true;
    return (uint16_t)nodes->topology_count++;
}

/* Position in by_id of the first id not less than `id`. */
static uint32_t lower_bound(const struct nodes *nodes, const struct node_id *id)
{
    uint32_t low = 0, high = nodes->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (node_id_compare(&nodes->slots[nodes->by_id[middle]].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint16_t transfer__node_find(const struct transfer *transfer, const struct node_id *id)
{
    const struct nodes *nodes = &transfer->nodes;
    uint32_t at = lower_bound(nodes, id);
    if (at == nodes->count || !node_id_equal(&nodes->slots[nodes->by_id[at]].id, id))
        return NODE_NONE;
    return nodes->by_id[at];
}

/* Room for one more slot in both arrays. */
static int make_room(struct transfer *transfer)
{
    struct nodes *nodes = &transfer->nodes;
    uint32_t capacity = nodes->slot_capacity;
    int err = transfer__grow(transfer, (void **)&nodes->by_id, &capacity, nodes->slot_count + 1,
                             sizeof *nodes->by_id);
    if (err != 0)
        return err;
    return transfer__grow(transfer, (void **)&nodes->slots, &nodes->slot_capacity,
                          nodes->slot_count + 1, sizeof *nodes->slots);
}

/* A slot no node uses; slot_count if the table must grow. Freed slots are rare: members come and go
 * by the minute, so a search is good enough. */
static uint32_t free_slot(const struct nodes *nodes)
{
    if (nodes->count == nodes->slot_count)
        return nodes->slot_count;
    for (uint32_t i = 0; i < nodes->slot_count; i++) {
        if (!nodes->slots[i].used)
            return i;
    }
    return nodes->slot_count;
}

static uint16_t add_node(struct transfer *transfer, const struct node_id *id)
{
    struct nodes *nodes = &transfer->nodes;
    uint32_t slot = free_slot(nodes);
    if (slot == nodes->slot_count) {
        if (slot == MEMBERS_MAX + STRANGERS_MAX || make_room(transfer) != 0)
            return NODE_NONE;
        nodes->slot_count++;
    }
    nodes->slots[slot] = (struct node){.id = *id, .used = true};
    uint32_t at = lower_bound(nodes, id);
    memmove(&nodes->by_id[at + 1], &nodes->by_id[at], (nodes->count - at) * sizeof nodes->by_id[0]);
    nodes->by_id[at] = (uint16_t)slot;
    nodes->count++;
    return (uint16_t)slot;
}

int transfer__nodes_init(struct transfer *transfer)
{
    (void)topology_index(transfer, &transfer->config.topology);
    uint16_t slot = add_node(transfer, &transfer->config.self_id);
    if (slot == NODE_NONE || transfer->nodes.topology_count == 0)
        return E_NO_MEMORY;
    ASSERT(slot == NODE_SELF);
    transfer->nodes.slots[slot].addr = transfer->config.self_addr;
    transfer->nodes.slots[slot].state = MEMBER_ALIVE;
    transfer->nodes.stale = true;
    return 0;
}

void transfer__nodes_close(struct transfer *transfer)
{
    struct nodes *nodes = &transfer->nodes;
    for (uint32_t i = 0; i < nodes->slot_count; i++)
        transfer__peer_drop(transfer, (uint16_t)i);
    transfer__release(transfer, nodes->slots);
    transfer__release(transfer, nodes->by_id);
    transfer__release(transfer, nodes->topologies);
    transfer__release(transfer, nodes->topology_zone);
    transfer__release(transfer, nodes->placed);
    transfer__release(transfer, nodes->zones);
    *nodes = (struct nodes){0};
}

static bool counts(uint8_t state)
{
    return state == MEMBER_ALIVE || state == MEMBER_SUSPECT;
}

int transfer__node_member(struct transfer *transfer, const struct member *member)
{
    struct nodes *nodes = &transfer->nodes;
    uint16_t topology = topology_index(transfer, &member->topology);
    uint16_t slot = transfer__node_find(transfer, &member->id);
    if (slot == NODE_NONE) {
        if (nodes->count - nodes->stranger_count >= MEMBERS_MAX)
            return E_FULL;
        slot = add_node(transfer, &member->id);
        if (slot == NODE_NONE)
            return E_NO_MEMORY;
        nodes->stranger_count++;
    }
    struct node *node = &nodes->slots[slot];
    if (node->state == MEMBER_UNKNOWN)
        nodes->stranger_count--;
    uint8_t state = slot == NODE_SELF ? MEMBER_ALIVE : (uint8_t)member->state;
    if (counts(node->state) != counts(state) || node->topology != topology)
        nodes->stale = true;
    node->addr = member->addr;
    node->topology = topology;
    node->state = state;
    return 0;
}

uint16_t transfer__node_meet(struct transfer *transfer, const struct node_id *id,
                             const struct peer_addr *addr)
{
    struct nodes *nodes = &transfer->nodes;
    uint16_t slot = transfer__node_find(transfer, id);
    if (slot == NODE_NONE) {
        if (nodes->stranger_count == STRANGERS_MAX)
            return NODE_NONE;
        slot = add_node(transfer, id);
        if (slot == NODE_NONE)
            return NODE_NONE;
        nodes->stranger_count++;
    }
    struct node *node = &nodes->slots[slot];
    if (node->state == MEMBER_UNKNOWN && addr != NULL)
        node->addr = *addr;
    return slot;
}

void transfer__node_place(struct transfer *transfer, uint16_t slot, const struct topology *topology)
{
    if (transfer->nodes.slots[slot].state != MEMBER_UNKNOWN)
        return; /* gossip knows better */
    uint16_t index = topology_index(transfer, topology);
    transfer->nodes.slots[slot].topology = index;
}

void transfer__node_remove(struct transfer *transfer, uint16_t slot)
{
    struct nodes *nodes = &transfer->nodes;
    struct node *node = &nodes->slots[slot];
    ASSERT(slot != NODE_SELF && node->used);
    transfer__peer_drop(transfer, slot);
    uint32_t at = lower_bound(nodes, &node->id);
    ASSERT(at < nodes->count && nodes->by_id[at] == slot);
    memmove(&nodes->by_id[at], &nodes->by_id[at + 1],
            (nodes->count - at - 1) * sizeof nodes->by_id[0]);
    nodes->count--;
    if (node->state == MEMBER_UNKNOWN)
        nodes->stranger_count--;
    if (counts(node->state))
        nodes->stale = true;
    *node = (struct node){.used = false};
}

bool transfer__node_lied(const struct transfer *transfer, const struct node_id *id)
{
    for (size_t i = 0; i < sizeof transfer->liars / sizeof transfer->liars[0]; i++) {
        if (transfer->liars[i].until_us > transfer->now_us &&
            node_id_equal(&transfer->liars[i].id, id))
            return true;
    }
    return false;
}

bool transfer__node_usable(const struct transfer *transfer, uint16_t slot)
{
    ASSERT(slot < transfer->nodes.slot_count);
    const struct node *node = &transfer->nodes.slots[slot];
    bool state = counts(node->state) || node->state == MEMBER_UNKNOWN;
    return slot != NODE_SELF && node->used && state && !transfer__node_lied(transfer, &node->id);
}

enum distance transfer__node_distance(const struct transfer *transfer, uint16_t slot)
{
    const struct nodes *nodes = &transfer->nodes;
    return topology_distance(&nodes->topologies[nodes->slots[NODE_SELF].topology],
                             &nodes->topologies[nodes->slots[slot].topology]);
}

struct wire_contact transfer__node_contact(const struct transfer *transfer, uint16_t slot)
{
    const struct node *node = &transfer->nodes.slots[slot];
    return (struct wire_contact){.id = node->id, .addr = node->addr};
}
