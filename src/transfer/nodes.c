/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who there is: members as gossip tells them, two bytes each by their place in the directory, and a
 * table of slots for those we deal with: members that were met, and strangers that talked to us
 * first (a node that just started is heard before gossip has spread it). Owns slots and finding
 * them by id; placement.c makes zones of the members.
 */
#include "core.h"

#include "topology.h"

#define TABLE_FIRST 64

/* ---- topologies ---- */

static bool is_held(const struct nodes *nodes, uint16_t topology)
{
    return topology < nodes->topology_bound && nodes->topology_zone[topology] != TOPOLOGY_UNHELD;
}

/* Number of a topology, held once for our life. This node's own serves when there is no room: data
 * then flows as inside the zone, which costs placement and nothing else. */
static uint16_t topology_number(struct transfer *transfer, const struct topology *topology)
{
    struct nodes *nodes = &transfer->nodes;
    uint16_t number;
    if (directory_topology_hold(nodes->directory, topology, &number) != 0)
        return nodes->own_topology;
    if (is_held(nodes, number)) {
        directory_topology_drop(nodes->directory, number);
        return number;
    }
    uint32_t capacity = nodes->topology_bound;
    if (number >= TOPOLOGIES_MAX ||
        transfer__grow(transfer, (void **)&nodes->topology_zone, &capacity, number + 1u,
                       sizeof *nodes->topology_zone) != 0) {
        directory_topology_drop(nodes->directory, number);
        return nodes->own_topology;
    }
    for (; nodes->topology_bound < capacity; nodes->topology_bound++)
        nodes->topology_zone[nodes->topology_bound] = TOPOLOGY_UNHELD;
    nodes->topology_zone[number] = 0;
    nodes->stale = true;
    return number;
}

/* ---- slots by id ---- */

static uint64_t hash_of(const struct nodes *nodes, const struct node_id *id)
{
    return (load_be64(id->bytes) ^ nodes->by_id_seed) * 0x9e3779b97f4a7c15ULL;
}

static uint32_t home_of(const struct nodes *nodes, uint64_t hash)
{
    return (uint32_t)(hash >> 32) & (nodes->by_id_size - 1);
}

/* Bits of the hash that the place in the table does not tell. */
static uint16_t tag_of(uint64_t hash)
{
    return (uint16_t)(hash >> 16);
}

uint16_t transfer__node_find(const struct transfer *transfer, const struct node_id *id)
{
    const struct nodes *nodes = &transfer->nodes;
    if (nodes->by_id_size == 0)
        return NODE_NONE;
    uint32_t mask = nodes->by_id_size - 1;
    uint64_t hash = hash_of(nodes, id);
    uint16_t tag = tag_of(hash);
    for (uint32_t at = home_of(nodes, hash);; at = (at + 1) & mask) {
        const struct node_entry entry = nodes->by_id[at];
        if (entry.slot == NODE_NONE ||
            (entry.tag == tag && node_id_equal(&nodes->slots[entry.slot].id, id)))
            return entry.slot;
    }
}

void transfer__node_look_ahead(const struct transfer *transfer, const struct node_id *id, bool slot)
{
    const struct nodes *nodes = &transfer->nodes;
    if (nodes->by_id_size == 0)
        return;
    uint64_t hash = hash_of(nodes, id);
    uint32_t at = home_of(nodes, hash), mask = nodes->by_id_size - 1;
    if (!slot) {
        __builtin_prefetch(&nodes->by_id[at]);
        return;
    }
    while (nodes->by_id[at].slot != NODE_NONE && nodes->by_id[at].tag != tag_of(hash))
        at = (at + 1) & mask;
    if (nodes->by_id[at].slot != NODE_NONE)
        __builtin_prefetch(&nodes->slots[nodes->by_id[at].slot]);
}

static void table_add(struct nodes *nodes, uint16_t slot)
{
    uint32_t mask = nodes->by_id_size - 1;
    uint64_t hash = hash_of(nodes, &nodes->slots[slot].id);
    uint32_t at = home_of(nodes, hash);
    while (nodes->by_id[at].slot != NODE_NONE)
        at = (at + 1) & mask;
    nodes->by_id[at] = (struct node_entry){.slot = slot, .tag = tag_of(hash)};
}

/* Where a slot's probing begins. */
static uint32_t slot_home(const struct nodes *nodes, uint16_t slot)
{
    return home_of(nodes, hash_of(nodes, &nodes->slots[slot].id));
}

/* Linear probing without tombstones: what follows moves up, unless it stands where it belongs. */
static void table_remove(struct nodes *nodes, uint16_t slot)
{
    uint32_t mask = nodes->by_id_size - 1;
    uint32_t hole = slot_home(nodes, slot);
    while (nodes->by_id[hole].slot != slot) {
        ASSERT(nodes->by_id[hole].slot != NODE_NONE);
        hole = (hole + 1) & mask;
    }
    for (uint32_t at = (hole + 1) & mask; nodes->by_id[at].slot != NODE_NONE;
         at = (at + 1) & mask) {
        uint32_t home = slot_home(nodes, nodes->by_id[at].slot);
        if (((at - home) & mask) < ((at - hole) & mask))
            continue; /* between its home and here there is no hole */
        nodes->by_id[hole] = nodes->by_id[at];
        hole = at;
    }
    nodes->by_id[hole].slot = NODE_NONE;
}

static int table_grow(struct transfer *transfer)
{
    struct nodes *nodes = &transfer->nodes;
    if (nodes->count < nodes->by_id_size / 4 * 3)
        return 0;
    uint32_t size = nodes->by_id_size == 0 ? TABLE_FIRST : 2 * nodes->by_id_size;
    struct node_entry *table = transfer__alloc(transfer, nodes->by_id, size * sizeof *table);
    if (table == NULL)
        return E_NO_MEMORY;
    nodes->by_id = table;
    nodes->by_id_size = size;
    for (uint32_t i = 0; i < size; i++)
        table[i].slot = NODE_NONE;
    for (uint32_t i = 0; i < nodes->slot_count; i++) {
        if (nodes->slots[i].used)
            table_add(nodes, (uint16_t)i);
    }
    return 0;
}

/* ---- slots ---- */

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

/* A stranger's; its caller may make it a member's. */
static uint16_t add_slot(struct transfer *transfer, const struct node_id *id,
                         const struct peer_addr *addr)
{
    struct nodes *nodes = &transfer->nodes;
    uint32_t slot = free_slot(nodes);
    if (slot == MEMBERS_MAX + STRANGERS_MAX || table_grow(transfer) != 0 ||
        transfer__grow(transfer, (void **)&nodes->slots, &nodes->slot_capacity, slot + 1,
                       sizeof *nodes->slots) != 0)
        return NODE_NONE;
    if (slot == nodes->slot_count)
        nodes->slot_count++;
    nodes->slots[slot] = (struct node){
        .id = *id, .place = PLACE_NONE, .topology = nodes->own_topology, .used = true};
    if (addr != NULL)
        nodes->slots[slot].addr = *addr;
    table_add(nodes, (uint16_t)slot);
    nodes->count++;
    nodes->stranger_count++;
    return (uint16_t)slot;
}

/* A node stands there: so far is it from us, or so far are all others if it is us. */
static void node_moves(struct transfer *transfer, uint16_t slot, uint16_t topology)
{
    struct node *node = &transfer->nodes.slots[slot];
    if (node->topology == topology)
        return;
    node->topology = topology;
    transfer->reach_stale = true;
    if (node->peer != NULL)
        node->peer->distance = (uint8_t)transfer__node_distance(transfer, slot);
    if (slot != NODE_SELF)
        return;
    for (struct peer *peer = transfer->peers; peer != NULL; peer = peer->next)
        peer->distance = (uint8_t)transfer__node_distance(transfer, peer->node);
}

/* A slot's node is the member at this place: takes over what is known of it. */
static void slot_follows(struct transfer *transfer, uint16_t slot, uint16_t place)
{
    struct nodes *nodes = &transfer->nodes;
    struct node *node = &nodes->slots[slot];
    if (node->state == MEMBER_UNKNOWN)
        nodes->stranger_count--;
    node->place = place;
    node->addr = *directory_addr(nodes->directory, place);
    node_moves(transfer, slot, transfer__member_topology(transfer, place));
    node->state = (uint8_t)transfer__member_state(transfer, place);
}

uint16_t transfer__node_at(struct transfer *transfer, uint16_t place)
{
    struct nodes *nodes = &transfer->nodes;
    if (transfer__member_state(transfer, place) == MEMBER_UNKNOWN)
        return NODE_NONE;
    const struct node_id *id = directory_id(nodes->directory, place);
    uint16_t slot = transfer__node_find(transfer, id);
    if (slot != NODE_NONE)
        return slot;
    slot = add_slot(transfer, id, NULL);
    if (slot != NODE_NONE)
        slot_follows(transfer, slot, place);
    return slot;
}

/* ---- members ---- */

/* A member in two bytes: state in the lower three bits, number of its topology above. */
static uint16_t packed(uint16_t topology, enum member_state state)
{
    ASSERT(topology < TOPOLOGIES_MAX && state <= MEMBER_LEFT);
    return (uint16_t)((unsigned)topology << 3 | (unsigned)state);
}

enum member_state transfer__member_state(const struct transfer *transfer, uint16_t place)
{
    const struct nodes *nodes = &transfer->nodes;
    unsigned state = place < nodes->member_bound ? nodes->members[place] & 7u : MEMBER_UNKNOWN;
    return (enum member_state)state;
}

uint16_t transfer__member_topology(const struct transfer *transfer, uint16_t place)
{
    ASSERT(place < transfer->nodes.member_bound);
    return transfer->nodes.members[place] >> 3;
}

/* Room for the member at this place. */
static int grow_members(struct transfer *transfer, uint32_t bound)
{
    struct nodes *nodes = &transfer->nodes;
    if (bound <= nodes->member_bound)
        return 0;
    uint32_t wanted = nodes->member_bound + nodes->member_bound / 4;
    wanted = wanted < bound ? bound : wanted;
    uint16_t *members = transfer__alloc(transfer, nodes->members, wanted * sizeof *members);
    if (members == NULL)
        return E_NO_MEMORY;
    memset(members + nodes->member_bound, 0, (wanted - nodes->member_bound) * sizeof *members);
    nodes->members = members;
    nodes->member_bound = wanted;
    return 0;
}

void transfer__nodes_reserve(struct transfer *transfer, uint32_t members)
{
    struct nodes *nodes = &transfer->nodes;
    (void)grow_members(transfer, directory_bound(nodes->directory));
    if (nodes->capacity_placed >= members)
        return;
    uint16_t *placed = transfer__alloc(transfer, nodes->placed, members * sizeof *placed);
    if (placed == NULL)
        return;
    nodes->placed = placed;
    nodes->capacity_placed = members;
}

/* The only way what is known of a member changes. */
static void member_set(struct transfer *transfer, uint16_t place, uint16_t now)
{
    struct nodes *nodes = &transfer->nodes;
    uint16_t before = nodes->members[place];
    bool counted = transfer__counts(transfer, place);
    nodes->members[place] = now;
    bool counts = transfer__counts(transfer, place);
    bool moved = before >> 3 != now >> 3;
    if (counted && (!counts || moved))
        transfer__placement_remove(transfer, place, before >> 3);
    if (counts && (!counted || moved))
        transfer__placement_add(transfer, place, now >> 3);
}

/* The place of a member, held once for our life with it. */
static int member_place(struct transfer *transfer, const struct member *member, uint16_t *place)
{
    struct nodes *nodes = &transfer->nodes;
    int err = directory_hold_as(nodes->directory, &member->id, &member->addr, place);
    if (err != 0)
        return err;
    if (transfer__member_state(transfer, *place) != MEMBER_UNKNOWN) {
        directory_drop(nodes->directory, *place); /* it is held already */
        return 0;
    }
    err = nodes->member_count == MEMBERS_MAX ? E_FULL : grow_members(transfer, *place + 1u);
    if (err != 0)
        directory_drop(nodes->directory, *place);
    else
        nodes->member_count++;
    return err;
}

int transfer__node_member(struct transfer *transfer, const struct member *member)
{
    uint16_t place;
    if (member->state != MEMBER_ALIVE && member->state != MEMBER_SUSPECT &&
        member->state != MEMBER_LEAVING)
        return 0; /* nobody to deal with */
    int err = member_place(transfer, member, &place);
    if (err != 0)
        return err;
    uint16_t slot = transfer__node_find(transfer, &member->id);
    enum member_state state = slot == NODE_SELF ? MEMBER_ALIVE : member->state;
    member_set(transfer, place, packed(topology_number(transfer, &member->topology), state));
    if (slot != NODE_NONE)
        slot_follows(transfer, slot, place);
    return 0;
}

int transfer_members_up(struct transfer *transfer, uint64_t now_us, const struct member *members,
                        size_t member_count)
{
    transfer__enter(transfer, now_us);
    size_t wanted = transfer->nodes.member_count + member_count;
    transfer__nodes_reserve(transfer, wanted < MEMBERS_MAX ? (uint32_t)wanted : MEMBERS_MAX);
    int first = 0;
    for (size_t i = 0; i < member_count; i++) {
        bool gone = members[i].state == MEMBER_DEAD || members[i].state == MEMBER_LEFT;
        int err = gone ? 0 : transfer__node_member(transfer, &members[i]);
        first = first == 0 ? err : first;
    }
    transfer__touch(transfer);
    transfer__leave(transfer);
    return first;
}

static int self_moves(struct transfer *transfer, const struct topology *topology)
{
    struct nodes *nodes = &transfer->nodes;
    uint16_t number = topology_number(transfer, topology), held = 0;
    /* The own number may mean that there was no room for another. */
    int err = directory_topology_hold(nodes->directory, topology, &held);
    if (err != 0)
        return err;
    directory_topology_drop(nodes->directory, held);
    if (held != number)
        return E_NO_MEMORY;
    uint16_t place = nodes->slots[NODE_SELF].place;
    nodes->own_topology = number;
    transfer->config.topology = *topology;
    member_set(transfer, place, packed(number, transfer__member_state(transfer, place)));
    slot_follows(transfer, NODE_SELF, place);
    return 0;
}

int transfer_update_self(struct transfer *transfer, uint64_t now_us,
                         const struct topology *topology)
{
    transfer__enter(transfer, now_us);
    int err = self_moves(transfer, topology);
    transfer__touch(transfer);
    transfer__leave(transfer);
    return err;
}

static void member_forget(struct transfer *transfer, uint16_t place)
{
    struct nodes *nodes = &transfer->nodes;
    ASSERT(transfer__member_state(transfer, place) != MEMBER_UNKNOWN);
    member_set(transfer, place, 0);
    nodes->member_count--;
    directory_drop(nodes->directory, place);
}

void transfer__node_down(struct transfer *transfer, const struct node_id *id)
{
    uint16_t slot = transfer__node_find(transfer, id);
    if (slot == NODE_SELF)
        return;
    if (slot != NODE_NONE) {
        transfer__node_gone(transfer, slot);
        return;
    }
    uint16_t place = directory_find_id(transfer->nodes.directory, id);
    if (place != PLACE_NONE && transfer__member_state(transfer, place) != MEMBER_UNKNOWN)
        member_forget(transfer, place);
}

uint16_t transfer__node_meet(struct transfer *transfer, const struct node_id *id,
                             const struct peer_addr *addr)
{
    struct nodes *nodes = &transfer->nodes;
    uint16_t slot = transfer__node_find(transfer, id);
    if (slot == NODE_NONE) {
        uint16_t place = directory_find_id(nodes->directory, id);
        if (place != PLACE_NONE && transfer__member_state(transfer, place) != MEMBER_UNKNOWN)
            return transfer__node_at(transfer, place);
        return nodes->stranger_count < STRANGERS_MAX ? add_slot(transfer, id, addr) : NODE_NONE;
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
    node_moves(transfer, slot, topology_number(transfer, topology));
}

void transfer__node_remove(struct transfer *transfer, uint16_t slot)
{
    struct nodes *nodes = &transfer->nodes;
    struct node *node = &nodes->slots[slot];
    ASSERT(slot != NODE_SELF && node->used);
    transfer__peer_drop(transfer, slot);
    table_remove(nodes, slot);
    nodes->count--;
    if (node->state == MEMBER_UNKNOWN)
        nodes->stranger_count--;
    else
        member_forget(transfer, node->place);
    *node = (struct node){.used = false};
}

/* ---- life ---- */

int transfer__nodes_init(struct transfer *transfer)
{
    struct nodes *nodes = &transfer->nodes;
    const struct member self = {.id = transfer->config.self_id,
                                .addr = transfer->config.self_addr,
                                .topology = transfer->config.topology,
                                .state = MEMBER_ALIVE};
    struct prng copy = transfer->prng;
    nodes->by_id_seed = prng_next(&copy);
    nodes->stale = true;
    int err = 0;
    if (transfer->config.directory != NULL)
        nodes->directory = directory_get(transfer->config.directory);
    else
        err = directory_new(transfer->env, "", nodes->by_id_seed, &nodes->directory);
    if (err != 0)
        return err;
    nodes->own_topology = TOPOLOGY_UNHELD;
    nodes->own_topology = topology_number(transfer, &self.topology);
    if (nodes->own_topology == TOPOLOGY_UNHELD)
        return E_NO_MEMORY;
    uint16_t slot = add_slot(transfer, &self.id, &self.addr);
    ASSERT(slot == NODE_SELF || slot == NODE_NONE);
    return slot == NODE_NONE ? E_NO_MEMORY : transfer__node_member(transfer, &self);
}

void transfer__nodes_close(struct transfer *transfer)
{
    struct nodes *nodes = &transfer->nodes;
    for (uint32_t i = 0; i < nodes->slot_count; i++)
        transfer__peer_drop(transfer, (uint16_t)i);
    for (uint32_t i = 0; i < nodes->member_bound; i++) {
        if (nodes->members[i] != 0)
            directory_drop(nodes->directory, (uint16_t)i);
    }
    for (uint32_t i = 0; i < nodes->topology_bound; i++) {
        if (is_held(nodes, (uint16_t)i))
            directory_topology_drop(nodes->directory, (uint16_t)i);
    }
    directory_put(nodes->directory);
    transfer__release(transfer, nodes->slots);
    transfer__release(transfer, nodes->by_id);
    transfer__release(transfer, nodes->members);
    transfer__release(transfer, nodes->topology_zone);
    transfer__release(transfer, nodes->placed);
    transfer__release(transfer, nodes->zones);
    *nodes = (struct nodes){0};
}

void transfer__nodes_check(const struct transfer *transfer)
{
    const struct nodes *nodes = &transfer->nodes;
    uint32_t used = 0, strangers = 0, members = 0;
    for (uint32_t i = 0; i < nodes->slot_count; i++) {
        const struct node *node = &nodes->slots[i];
        if (!node->used)
            continue;
        used++;
        strangers += node->state == MEMBER_UNKNOWN;
        ASSERT(transfer__node_find(transfer, &node->id) == i);
        ASSERT((node->state == MEMBER_UNKNOWN) == (node->place == PLACE_NONE));
        if (node->place == PLACE_NONE)
            continue;
        ASSERT(node->state == transfer__member_state(transfer, node->place));
        ASSERT(node->topology == transfer__member_topology(transfer, node->place));
        ASSERT(node_id_equal(directory_id(nodes->directory, node->place), &node->id));
    }
    for (uint32_t i = 0; i < nodes->member_bound; i++)
        members += nodes->members[i] != 0;
    ASSERT(used == nodes->count && strangers == nodes->stranger_count);
    ASSERT(members == nodes->member_count);
}

/* ---- what they are to us ---- */

bool transfer__node_lied(const struct transfer *transfer, const struct node_id *id)
{
    if (transfer->liar_next == 0)
        return false;
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
    bool state = node->state == MEMBER_ALIVE || node->state == MEMBER_SUSPECT ||
                 node->state == MEMBER_UNKNOWN;
    return slot != NODE_SELF && node->used && state && !transfer__node_lied(transfer, &node->id);
}

bool transfer__nodes_same_zone(const struct transfer *transfer, uint16_t a, uint16_t b)
{
    const struct nodes *nodes = &transfer->nodes;
    return topology_same_zone(directory_topology(nodes->directory, nodes->slots[a].topology),
                              directory_topology(nodes->directory, nodes->slots[b].topology));
}

enum distance transfer__node_distance(const struct transfer *transfer, uint16_t slot)
{
    const struct nodes *nodes = &transfer->nodes;
    return topology_distance(directory_topology(nodes->directory, nodes->slots[NODE_SELF].topology),
                             directory_topology(nodes->directory, nodes->slots[slot].topology));
}

struct wire_contact transfer__node_contact(const struct transfer *transfer, uint16_t slot)
{
    const struct node *node = &transfer->nodes.slots[slot];
    return (struct wire_contact){.id = node->id, .addr = node->addr};
}
