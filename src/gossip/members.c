/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members: storage, finding by id and address, states and their moves, the lists of the live
 * and the gone, hashes of the view, and the events for the host. Knows nothing of messages.
 *
 * Nodes live in slabs and are named by index. Found by id through an array sorted by it, and by
 * address through an open table with a keyed hash: both take sixteen bytes or so a member where a
 * uthash handle takes 56, and neither makes order depend on memory addresses.
 */
#include "core.h"

#include <string.h>

#include "digest.h"

#define ADDR_SLOTS_FIRST 128
#define LIST_FIRST       64
/* Victims looked at when all MEMBERS_MAX places are taken. */
#define EVICT_SAMPLE 8

/* ---- states ---- */

static const bool moves[MEMBER_LEFT + 1][MEMBER_LEFT + 1] = {
    [MEMBER_UNKNOWN] = {[MEMBER_ALIVE] = true, [MEMBER_LEAVING] = true},
    [MEMBER_ALIVE] = {[MEMBER_SUSPECT] = true, [MEMBER_LEAVING] = true, [MEMBER_LEFT] = true},
    /* Only those that had the time to refute become DEAD. */
    [MEMBER_SUSPECT] = {[MEMBER_ALIVE] = true,
                        [MEMBER_LEAVING] = true,
                        [MEMBER_DEAD] = true,
                        [MEMBER_LEFT] = true},
    /* To ALIVE: restarted. */
    [MEMBER_LEAVING] = {[MEMBER_ALIVE] = true, [MEMBER_SUSPECT] = true, [MEMBER_LEFT] = true},
    [MEMBER_DEAD] = {[MEMBER_UNKNOWN] = true,
                     [MEMBER_ALIVE] = true,
                     [MEMBER_LEAVING] = true,
                     [MEMBER_LEFT] = true},
    [MEMBER_LEFT] = {[MEMBER_UNKNOWN] = true, [MEMBER_ALIVE] = true, [MEMBER_LEAVING] = true},
};

bool gossip__move_allowed(enum member_state from, enum member_state to)
{
    return from <= MEMBER_LEFT && to <= MEMBER_LEFT && moves[from][to];
}

bool gossip__is_live(enum member_state state)
{
    return state == MEMBER_ALIVE || state == MEMBER_SUSPECT || state == MEMBER_LEAVING;
}

/* ---- nodes by index, id and address ---- */

struct node *gossip__node(const struct gossip *g, uint32_t index)
{
    ASSERT(index / SLAB_NODES < g->slab_count);
    return &g->slabs[index / SLAB_NODES][index % SLAB_NODES];
}

struct node *gossip__self(const struct gossip *g)
{
    return gossip__node(g, g->self);
}

uint64_t gossip__prefix(const struct node_id *id)
{
    return load_be64(id->bytes);
}

uint32_t gossip__order_from(const struct gossip *g, uint64_t prefix)
{
    uint32_t low = 0, high = g->node_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (g->order[middle].prefix < prefix)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Position of an id in order[], or where it belongs. */
static uint32_t order_position(const struct gossip *g, const struct node_id *id)
{
    uint64_t prefix = gossip__prefix(id);
    uint32_t at = gossip__order_from(g, prefix);
    while (at < g->node_count && g->order[at].prefix == prefix &&
           node_id_compare(&gossip__node(g, g->order[at].node)->pub.id, id) < 0)
        at++;
    return at;
}

uint32_t gossip__by_id(const struct gossip *g, const struct node_id *id)
{
    uint32_t at = order_position(g, id);
    if (at == g->node_count || !node_id_equal(&gossip__node(g, g->order[at].node)->pub.id, id))
        return NODE_NONE;
    return g->order[at].node;
}

uint32_t gossip__by_prefix(const struct gossip *g, uint64_t prefix)
{
    uint32_t at = gossip__order_from(g, prefix);
    if (at == g->node_count || g->order[at].prefix != prefix)
        return NODE_NONE;
    if (at + 1 < g->node_count && g->order[at + 1].prefix == prefix)
        return NODE_NONE;
    return g->order[at].node;
}

/* splitmix64's finaliser: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/* The table holds a tag of the hash beside each index: what does not match is passed over without
 * touching the node, which in a view of thousands is not in the processor's cache. */
static uint32_t addr_tag(const struct gossip *g, const struct peer_addr *addr)
{
    uint64_t hash = mix(load_be64(addr->ip) ^ g->addr_key);
    return (uint32_t)mix(hash ^ load_be64(addr->ip + 8) ^ (uint64_t)addr->port << 48);
}

uint32_t gossip__by_addr(const struct gossip *g, const struct peer_addr *addr)
{
    uint32_t tag = addr_tag(g, addr), mask = g->addr_slot_count - 1;
    for (uint32_t at = tag & mask; g->addr_slots[at].node != NODE_NONE; at = (at + 1) & mask) {
        const struct addr_slot *slot = &g->addr_slots[at];
        if (slot->tag == tag && peer_addr_equal(&gossip__node(g, slot->node)->pub.addr, addr))
            return slot->node;
    }
    return NODE_NONE;
}

static void addr_add(struct gossip *g, uint32_t index)
{
    uint32_t tag = addr_tag(g, &gossip__node(g, index)->pub.addr), mask = g->addr_slot_count - 1;
    uint32_t at = tag & mask;
    while (g->addr_slots[at].node != NODE_NONE)
        at = (at + 1) & mask;
    g->addr_slots[at] = (struct addr_slot){tag, index};
}

/* Linear probing without tombstones: what follows moves up, unless it stands where it belongs. */
static void addr_remove(struct gossip *g, uint32_t index)
{
    uint32_t mask = g->addr_slot_count - 1;
    uint32_t hole = addr_tag(g, &gossip__node(g, index)->pub.addr) & mask;
    while (g->addr_slots[hole].node != index) {
        ASSERT(g->addr_slots[hole].node != NODE_NONE);
        hole = (hole + 1) & mask;
    }
    for (uint32_t at = (hole + 1) & mask; g->addr_slots[at].node != NODE_NONE;
         at = (at + 1) & mask) {
        uint32_t home = g->addr_slots[at].tag & mask;
        if (((at - home) & mask) < ((at - hole) & mask))
            continue; /* between its home and here there is no hole */
        g->addr_slots[hole] = g->addr_slots[at];
        hole = at;
    }
    g->addr_slots[hole].node = NODE_NONE;
}

/* ---- room ---- */

/* At most three quarters full. */
static int grow_addr_slots(struct gossip *g)
{
    uint32_t count = g->addr_slot_count == 0 ? ADDR_SLOTS_FIRST : 2 * g->addr_slot_count;
    struct addr_slot *slots = gossip__alloc(g, g->addr_slots, count, sizeof *slots);
    if (slots == NULL)
        return E_NO_MEMORY;
    g->addr_slots = slots;
    g->addr_slot_count = count;
    for (uint32_t i = 0; i < count; i++)
        slots[i].node = NODE_NONE;
    for (uint32_t i = 0; i < g->node_count; i++)
        addr_add(g, g->order[i].node);
    return 0;
}

static int grow_list(struct gossip *g, uint32_t **list, uint32_t capacity)
{
    uint32_t *grown = gossip__alloc(g, *list, capacity, sizeof *grown);
    if (grown == NULL)
        return E_NO_MEMORY;
    *list = grown;
    return 0;
}

/* All lists that can name every node grow together, so that adding to one never fails. */
static int grow_lists(struct gossip *g)
{
    uint32_t capacity =
        g->list_capacity == 0 ? LIST_FIRST : g->list_capacity + g->list_capacity / 2;
    struct order_entry *order = gossip__alloc(g, g->order, capacity, sizeof *order);
    if (order == NULL)
        return E_NO_MEMORY;
    g->order = order;
    if (grow_list(g, &g->live, capacity) != 0 || grow_list(g, &g->gone, capacity) != 0 ||
        grow_list(g, &g->revive, capacity) != 0)
        return E_NO_MEMORY;
    g->list_capacity = capacity;
    return 0;
}

static int grow_nodes(struct gossip *g)
{
    ASSERT(g->free_node == NODE_NONE && g->slab_count < SLABS_MAX);
    struct node *slab = gossip__alloc(g, NULL, SLAB_NODES, sizeof *slab);
    if (slab == NULL)
        return E_NO_MEMORY;
    memset(slab, 0, SLAB_NODES * sizeof *slab);
    g->slabs[g->slab_count++] = slab;
    for (uint32_t i = SLAB_NODES; i-- > 0;) { /* lowest index first out */
        slab[i].free_next = g->free_node;
        g->free_node = (g->slab_count - 1) * SLAB_NODES + i;
    }
    return 0;
}

/* With every place taken, somebody gone makes room: of a few, the one gone longest. */
static int evict(struct gossip *g)
{
    uint32_t victim = NODE_NONE;
    for (unsigned i = 0; i < EVICT_SAMPLE && g->gone_count > 0; i++) {
        uint32_t index = g->gone[prng_below(&g->prng, g->gone_count)];
        const struct node *node = gossip__node(g, index);
        bool older = victim == NODE_NONE || node->gone_us < gossip__node(g, victim)->gone_us;
        if (!node->dirty && older)
            victim = index;
    }
    g->stats.dropped++;
    if (victim == NODE_NONE)
        return E_FULL;
    gossip__forget(g, victim);
    return 0;
}

static int make_room(struct gossip *g)
{
    int err = 0;
    if (g->node_count == MEMBERS_MAX)
        err = evict(g);
    if (err == 0 && g->free_node == NODE_NONE)
        err = grow_nodes(g);
    if (err == 0 && g->node_count == g->list_capacity)
        err = grow_lists(g);
    if (err == 0 && g->node_count >= g->addr_slot_count / 4 * 3)
        err = grow_addr_slots(g);
    return err;
}

/* ---- lists ---- */

/* SWIM §4.3: a new member comes in at a random place of what is left of the round. */
static void live_add(struct gossip *g, uint32_t index)
{
    ASSERT(g->live_count < g->list_capacity);
    uint32_t at = (uint32_t)gossip__between(g, g->probe_next, g->live_count);
    uint32_t last = g->live_count++;
    if (at != last) {
        g->live[last] = g->live[at];
        gossip__node(g, g->live[last])->list_pos = last;
    }
    g->live[at] = index;
    gossip__node(g, index)->list_pos = at;
}

/* Fills a hole, keeping what the round has visited before probe_next and the rest behind it. */
static void live_remove(struct gossip *g, uint32_t index)
{
    uint32_t at = gossip__node(g, index)->list_pos;
    ASSERT(at < g->live_count && g->live[at] == index);
    if (at < g->probe_next) {
        uint32_t last_visited = --g->probe_next;
        g->live[at] = g->live[last_visited];
        gossip__node(g, g->live[at])->list_pos = at;
        at = last_visited;
    }
    if (at == --g->live_count)
        return; /* the hole is the end: whoever was there has moved above */
    g->live[at] = g->live[g->live_count];
    gossip__node(g, g->live[at])->list_pos = at;
}

static void gone_add(struct gossip *g, uint32_t index)
{
    ASSERT(g->gone_count < g->list_capacity);
    gossip__node(g, index)->list_pos = g->gone_count;
    if (g->gone_count == 0) /* the timer has been at rest */
        g->dead_probe_us = g->now_us + gossip__between(g, 0, gossip__dead_probe_interval(g));
    g->gone[g->gone_count++] = index;
}

static void gone_remove(struct gossip *g, uint32_t index)
{
    uint32_t at = gossip__node(g, index)->list_pos;
    ASSERT(at < g->gone_count && g->gone[at] == index);
    g->gone[at] = g->gone[--g->gone_count];
    gossip__node(g, g->gone[at])->list_pos = at;
}

uint64_t gossip__member_hash(const struct member *member)
{
    return mix(gossip__prefix(&member->id) ^ mix(member->incarnation + 0x9e3779b97f4a7c15ULL));
}

/* Adds a live node to the hashes of the view, or takes it out: XOR does both. */
static void toggle_hash(struct gossip *g, const struct node *node, int count)
{
    uint64_t hash = gossip__member_hash(&node->pub);
    unsigned leaf = node->pub.id.bytes[0];
    g->view_hash ^= hash;
    g->sync.changed_us = g->now_us;
    g->leaf_hash[leaf] ^= hash;
    g->leaf_count[leaf] = (uint16_t)(g->leaf_count[leaf] + count);
}

static void mark_dirty(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    if (node->dirty)
        return;
    node->dirty = true;
    node->event_next = NODE_NONE;
    if (g->event_tail == NODE_NONE)
        g->event_head = index;
    else
        gossip__node(g, g->event_tail)->event_next = index;
    g->event_tail = index;
}

bool gossip_next_result(struct gossip *g, struct gossip_event *out)
{
    while (g->event_head != NODE_NONE) {
        struct node *node = gossip__node(g, g->event_head);
        g->event_head = node->event_next;
        if (g->event_head == NODE_NONE)
            g->event_tail = NODE_NONE;
        node->dirty = false;
        bool live = gossip__is_live(node->pub.state), told_up = node->told_up;
        node->told_up = live;
        if (!live && !told_up)
            continue; /* came and went between two drains */
        out->kind = !live ? GOSSIP_MEMBER_DOWN : told_up ? GOSSIP_MEMBER_CHANGED : GOSSIP_MEMBER_UP;
        out->member = node->pub;
        return true;
    }
    return false;
}

/* ---- coming, changing, going ---- */

int gossip__insert(struct gossip *g, const struct member *member, uint32_t *out)
{
    ASSERT(gossip__move_allowed(MEMBER_UNKNOWN, member->state));
    int err = make_room(g);
    if (err != 0)
        return err;
    uint32_t index = g->free_node;
    struct node *node = gossip__node(g, index);
    g->free_node = node->free_next;
    *node = (struct node){.pub = *member, .suspicion = NODE_NONE};
    node_id_of(g->cluster_id, &member->addr, &node->pub.id);

    uint32_t at = order_position(g, &node->pub.id);
    memmove(g->order + at + 1, g->order + at, (g->node_count - at) * sizeof *g->order);
    g->order[at] = (struct order_entry){gossip__prefix(&node->pub.id), index};
    g->node_count++;
    addr_add(g, index);
    toggle_hash(g, node, 1);
    g->state_count[member->state]++;
    if (index != g->self) {
        live_add(g, index);
        mark_dirty(g, index);
    }
    *out = index;
    return 0;
}

/* What the host is told about: not the incarnation, which moves with every refutation. */
static bool same_to_host(const struct member *a, const struct member *b)
{
    return a->state == b->state && a->load == b->load && a->capacity_class == b->capacity_class &&
           a->version_minor == b->version_minor &&
           memcmp(a->key.bytes, b->key.bytes, sizeof a->key.bytes) == 0 &&
           memcmp(&a->topology, &b->topology, sizeof a->topology) == 0;
}

/* Moves a node between the lists of the live and the gone. */
static void move_lists(struct gossip *g, uint32_t index, bool to_live)
{
    if (to_live) {
        gone_remove(g, index);
        live_add(g, index);
        return;
    }
    live_remove(g, index);
    gone_add(g, index);
    gossip__node(g, index)->gone_us = g->now_us;
    gossip__probe_cancel(g, index);
}

void gossip__update(struct gossip *g, uint32_t index, const struct member *member)
{
    struct node *node = gossip__node(g, index);
    enum member_state old = node->pub.state;
    bool was_live = gossip__is_live(old), live = gossip__is_live(member->state);
    ASSERT(old == member->state || gossip__move_allowed(old, member->state));
    ASSERT(peer_addr_equal(&node->pub.addr, &member->addr));
    bool same = same_to_host(&node->pub, member);
    struct node_id id = node->pub.id;

    if (was_live)
        toggle_hash(g, node, -1);
    node->pub = *member;
    node->pub.id = id;
    if (live)
        toggle_hash(g, node, 1);
    g->state_count[old]--;
    g->state_count[member->state]++;
    if (old == MEMBER_SUSPECT && member->state != MEMBER_SUSPECT)
        gossip__suspicion_end(g, index);
    if (index == g->self)
        return;
    if (was_live != live)
        move_lists(g, index, live);
    if (!same && (was_live || live))
        mark_dirty(g, index);
    if (old != member->state)
        gossip__log(g, "state", node);
}

void gossip__set_state(struct gossip *g, uint32_t index, enum member_state state)
{
    struct member member = gossip__node(g, index)->pub;
    member.state = state;
    gossip__update(g, index, &member);
}

void gossip__forget(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    ASSERT(index != g->self && !node->dirty);
    ASSERT(gossip__move_allowed(node->pub.state, MEMBER_UNKNOWN));
    gossip__unqueue(g, index);
    gossip__probe_cancel(g, index);
    gossip__revive_cancel(g, index);
    gone_remove(g, index);
    addr_remove(g, index);
    uint32_t at = order_position(g, &node->pub.id);
    ASSERT(at < g->node_count && g->order[at].node == index);
    g->node_count--;
    memmove(g->order + at, g->order + at + 1, (g->node_count - at) * sizeof *g->order);
    g->state_count[node->pub.state]--;
    *node = (struct node){.free_next = g->free_node};
    g->free_node = index;
}

uint32_t gossip__random_live(struct gossip *g)
{
    if (g->live_count == 0)
        return NODE_NONE;
    return g->live[prng_below(&g->prng, g->live_count)];
}

int gossip__members_init(struct gossip *g)
{
    g->free_node = NODE_NONE;
    g->event_head = g->event_tail = NODE_NONE;
    g->addr_key = prng_next(&g->prng);
    g->self = 0; /* the first index given out */
    uint32_t index;
    int err = gossip__insert(g, &g->config.self, &index);
    ASSERT(err != 0 || index == g->self);
    return err;
}

void gossip__members_close(struct gossip *g)
{
    for (uint32_t i = 0; i < g->slab_count; i++)
        (void)g->env.alloc(g->env.host, g->slabs[i], 0);
    void *lists[] = {g->addr_slots, g->order, g->live, g->gone, g->revive};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (lists[i] != NULL)
            (void)g->env.alloc(g->env.host, lists[i], 0);
    }
}
