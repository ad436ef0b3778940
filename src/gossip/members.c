/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members: storage, finding by id and address, states and their moves, the lists of the live
 * and the gone, hashes of the view, and the events for the host. Knows nothing of messages.
 *
 * A node is named by the number of its place in the directory, which also finds it by address and
 * id and keeps what it says of itself; here is what we think of it, in slabs by that number, and
 * the order of all we know by id: 28 bytes a member.
 */
#include "core.h"

#include <string.h>

#define LIST_FIRST 64
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
    ASSERT(index < NODE_NONE && g->slabs[index / SLAB_NODES] != NULL);
    return &g->slabs[index / SLAB_NODES][index % SLAB_NODES];
}

bool gossip__live(const struct gossip *g, uint32_t index)
{
    return gossip__is_live((enum member_state)gossip__node(g, index)->state);
}

/* Of those who hold a place in the directory, do we know this one? */
static bool is_known(const struct gossip *g, uint32_t index)
{
    return index != NODE_NONE && g->slabs[index / SLAB_NODES] != NULL &&
           gossip__node(g, index)->record != RECORD_NONE;
}

const struct peer_addr *gossip__addr(const struct gossip *g, uint32_t index)
{
    return directory_addr(g->directory, (uint16_t)index);
}

const struct node_id *gossip__id(const struct gossip *g, uint32_t index)
{
    return directory_id(g->directory, (uint16_t)index);
}

const struct directory_record *gossip__record(const struct gossip *g, uint32_t index)
{
    return directory_record(g->directory, gossip__node(g, index)->record);
}

void gossip__member(const struct gossip *g, uint32_t index, struct member *out)
{
    const struct node *node = gossip__node(g, index);
    directory_member(g->directory, node->record, (enum member_state)node->state, out);
}

const struct member *gossip__self(const struct gossip *g)
{
    return &g->self_view;
}

uint64_t gossip__prefix(const struct node_id *id)
{
    return load_be64(id->bytes);
}

uint64_t gossip__order_prefix(const struct gossip *g, uint32_t at)
{
    return directory_prefix(g->directory, g->order[at]);
}

uint32_t gossip__order_from(const struct gossip *g, uint64_t prefix)
{
    uint32_t low = 0, high = g->node_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (gossip__order_prefix(g, middle) < prefix)
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
    while (at < g->node_count && gossip__order_prefix(g, at) == prefix &&
           node_id_compare(gossip__id(g, g->order[at]), id) < 0)
        at++;
    return at;
}

uint32_t gossip__by_id(const struct gossip *g, const struct node_id *id)
{
    uint32_t index = directory_find_id(g->directory, id);
    return is_known(g, index) ? index : NODE_NONE;
}

uint32_t gossip__by_addr(const struct gossip *g, const struct peer_addr *addr)
{
    uint32_t index = directory_find(g->directory, addr);
    return is_known(g, index) ? index : NODE_NONE;
}

uint32_t gossip__by_prefix(const struct gossip *g, uint64_t prefix)
{
    uint32_t at = gossip__order_from(g, prefix);
    if (at == g->node_count || gossip__order_prefix(g, at) != prefix)
        return NODE_NONE;
    if (at + 1 < g->node_count && gossip__order_prefix(g, at + 1) == prefix)
        return NODE_NONE;
    return g->order[at];
}

/* ---- room ---- */

/* Both lists that can name every node grow together, so that adding to one never fails. */
static int grow_lists(struct gossip *g, uint32_t capacity)
{
    uint16_t *order = gossip__alloc(g, g->order, capacity, sizeof *order);
    if (order == NULL)
        return E_NO_MEMORY;
    g->order = order;
    uint16_t *live = gossip__alloc(g, g->live, capacity, sizeof *live);
    if (live == NULL)
        return E_NO_MEMORY;
    g->live = live;
    memmove(live + capacity - g->gone_count, live + g->list_capacity - g->gone_count,
            g->gone_count * sizeof *live);
    g->list_capacity = capacity;
    return 0;
}

static int make_slab(struct gossip *g, uint32_t index)
{
    struct node **slab = &g->slabs[index / SLAB_NODES];
    if (*slab != NULL)
        return 0;
    *slab = gossip__alloc(g, NULL, SLAB_NODES, sizeof **slab);
    if (*slab == NULL)
        return E_NO_MEMORY;
    memset(*slab, 0, SLAB_NODES * sizeof **slab);
    return 0;
}

/* With every place taken, somebody gone makes room: of a few, the one gone longest. */
static int evict(struct gossip *g)
{
    uint32_t victim = NODE_NONE;
    for (unsigned i = 0; i < EVICT_SAMPLE && g->gone_count > 0; i++) {
        uint32_t index = gossip__gone(g, (uint32_t)prng_below(&g->prng, g->gone_count));
        const struct node *node = gossip__node(g, index);
        bool older = victim == NODE_NONE || node->of.gone_at < gossip__node(g, victim)->of.gone_at;
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
    if (err == 0 && g->node_count == g->list_capacity)
        err = grow_lists(g, g->list_capacity == 0 ? LIST_FIRST
                                                  : g->list_capacity + g->list_capacity / 4);
    return err;
}

/* ---- lists ---- */

static void live_set(struct gossip *g, uint32_t at, uint32_t index)
{
    g->live[at] = (uint16_t)index;
    gossip__node(g, index)->list_pos = (uint16_t)at;
}

/* SWIM §4.3: a new member comes in at a random place of what is left of the round. */
static void live_add(struct gossip *g, uint32_t index)
{
    ASSERT(g->live_count + g->gone_count < g->list_capacity);
    uint32_t at = (uint32_t)gossip__between(g, g->probe_next, g->live_count);
    uint32_t last = g->live_count++;
    if (at != last)
        live_set(g, last, g->live[at]);
    live_set(g, at, index);
}

/* Fills a hole, keeping what the round has visited before probe_next and the rest behind it. */
static void live_remove(struct gossip *g, uint32_t index)
{
    uint32_t at = gossip__node(g, index)->list_pos;
    ASSERT(at < g->live_count && g->live[at] == index);
    if (at < g->probe_next) {
        uint32_t last_visited = --g->probe_next;
        live_set(g, at, g->live[last_visited]);
        at = last_visited;
    }
    if (at == --g->live_count)
        return; /* the hole is the end: whoever was there has moved above */
    live_set(g, at, g->live[g->live_count]);
}

/* The i-th of the gone, counted from the back of the list. */
static uint16_t *gone_slot(const struct gossip *g, uint32_t i)
{
    ASSERT(i < g->list_capacity);
    return &g->live[g->list_capacity - 1 - i];
}

uint32_t gossip__gone(const struct gossip *g, uint32_t i)
{
    return *gone_slot(g, i);
}

static void gone_add(struct gossip *g, uint32_t index)
{
    ASSERT(g->live_count + g->gone_count < g->list_capacity);
    gossip__node(g, index)->list_pos = (uint16_t)g->gone_count;
    if (g->gone_count == 0) /* the timer has been at rest */
        g->dead_probe_us = g->now_us + gossip__between(g, 0, gossip__dead_probe_interval(g));
    *gone_slot(g, g->gone_count++) = (uint16_t)index;
}

static void gone_remove(struct gossip *g, uint32_t index)
{
    uint32_t at = gossip__node(g, index)->list_pos;
    ASSERT(at < g->gone_count && gossip__gone(g, at) == index);
    uint32_t last = gossip__gone(g, --g->gone_count);
    *gone_slot(g, at) = (uint16_t)last;
    gossip__node(g, last)->list_pos = (uint16_t)at;
}

/* splitmix64's finaliser: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

uint64_t gossip__member_hash(const struct gossip *g, uint32_t index)
{
    uint64_t incarnation = gossip__record(g, index)->incarnation;
    return mix(gossip__prefix(gossip__id(g, index)) ^ mix(incarnation + 0x9e3779b97f4a7c15ULL));
}

/* Adds a live node to the hashes of the view, or takes it out: XOR does both. */
static void toggle_hash(struct gossip *g, uint32_t index, uint64_t hash, int count)
{
    unsigned leaf = gossip__id(g, index)->bytes[0];
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
    node->dirty = 1;
    node->event_next = (uint16_t)NODE_NONE;
    if (g->event_tail == NODE_NONE)
        g->event_head = index;
    else
        gossip__node(g, g->event_tail)->event_next = (uint16_t)index;
    g->event_tail = index;
}

bool gossip_next_result(struct gossip *g, struct gossip_event *out)
{
    while (g->event_head != NODE_NONE) {
        uint32_t index = g->event_head;
        struct node *node = gossip__node(g, index);
        g->event_head = node->event_next;
        if (g->event_head == NODE_NONE)
            g->event_tail = NODE_NONE;
        node->dirty = 0;
        bool live = gossip__is_live((enum member_state)node->state), told_up = node->told_up;
        node->told_up = live;
        if (!live && !told_up)
            continue; /* came and went between two drains */
        out->kind = !live ? GOSSIP_MEMBER_DOWN : told_up ? GOSSIP_MEMBER_CHANGED : GOSSIP_MEMBER_UP;
        gossip__member(g, index, &out->member);
        return true;
    }
    return false;
}

/* ---- coming, changing, going ---- */

static void set_state(struct gossip *g, struct node *node, enum member_state state)
{
    g->state_count[node->state] -= node->state == MEMBER_UNKNOWN ? 0 : 1;
    node->state = (unsigned)state & 7u;
    g->state_count[state] += state == MEMBER_UNKNOWN ? 0 : 1;
}

/* Takes a node into the directory and our memory of it; in none of the lists yet. */
static int node_new(struct gossip *g, const struct member *member, uint32_t *out)
{
    uint16_t place;
    int err = directory_hold(g->directory, &member->addr, &place);
    if (err != 0)
        return err;
    uint32_t record = RECORD_NONE;
    err = make_slab(g, place);
    if (err == 0)
        err = directory_record_set(g->directory, &record, place, member);
    if (err != 0) {
        directory_drop(g->directory, place);
        return err;
    }
    *gossip__node(g, place) = (struct node){.record = record, .suspicion = (uint16_t)NODE_NONE};
    set_state(g, gossip__node(g, place), member->state);
    *out = place;
    return 0;
}

int gossip__insert(struct gossip *g, const struct member *member, uint32_t *out)
{
    ASSERT(gossip__move_allowed(MEMBER_UNKNOWN, member->state));
    uint32_t index;
    int err = make_room(g);
    if (err == 0)
        err = node_new(g, member, &index);
    if (err != 0)
        return err;
    uint32_t at = order_position(g, gossip__id(g, index));
    memmove(g->order + at + 1, g->order + at, (g->node_count - at) * sizeof *g->order);
    g->order[at] = (uint16_t)index;
    g->node_count++;
    toggle_hash(g, index, gossip__member_hash(g, index), 1);
    if (g->self == NODE_NONE) { /* the first is ourselves */
        g->self = index;
        gossip__member(g, index, &g->self_view);
    } else {
        live_add(g, index);
        mark_dirty(g, index);
    }
    *out = index;
    return 0;
}

/* A node in the middle of being taken in has no place in order[] yet. */
static int insert_settled(struct gossip *g, const struct member *member)
{
    struct member settled = *member;
    uint32_t index;
    if (settled.state == MEMBER_SUSPECT)
        settled.state = MEMBER_ALIVE;
    if (g->node_count == MEMBERS_MAX)
        return E_FULL;
    int err = node_new(g, &settled, &index);
    if (err != 0)
        return err;
    g->node_count++;
    toggle_hash(g, index, gossip__member_hash(g, index), 1);
    live_add(g, index);
    gossip__node(g, index)->told_up = 1;
    return 0;
}

int gossip__insert_all(struct gossip *g, const struct member *members, size_t count)
{
    size_t wanted = g->node_count + (count < MEMBERS_MAX ? count : MEMBERS_MAX);
    wanted = wanted < MEMBERS_MAX ? wanted : MEMBERS_MAX;
    int err = wanted > g->list_capacity ? grow_lists(g, (uint32_t)wanted) : 0;
    for (size_t i = 0; i < count && err == 0; i++) {
        bool fit = gossip__is_live(members[i].state) && gossip__addr_usable(&members[i].addr) &&
                   members[i].incarnation <= INCARNATION_FIRST_MAX;
        if (fit && gossip__by_addr(g, &members[i].addr) == NODE_NONE)
            err = insert_settled(g, &members[i]);
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < directory_count(g->directory); i++) {
        uint16_t place = directory_at(g->directory, i);
        if (is_known(g, place))
            g->order[at++] = place;
    }
    ASSERT(at == g->node_count);
    return err;
}

/* What the host is told about: not the incarnation, which moves with every refutation. */
static bool same_to_host(const struct directory_record *a, const struct directory_record *b)
{
    return a->load == b->load && a->capacity_class == b->capacity_class &&
           a->version_minor == b->version_minor && a->topology == b->topology &&
           memcmp(a->key.bytes, b->key.bytes, sizeof a->key.bytes) == 0;
}

/* Moves a node between the lists of the live and the gone. */
static void move_lists(struct gossip *g, uint32_t index, bool to_live)
{
    struct node *node = gossip__node(g, index);
    if (to_live) {
        gone_remove(g, index);
        live_add(g, index);
        node->of.accusations.minute = node->of.accusations.count = 0;
        return;
    }
    live_remove(g, index);
    gone_add(g, index);
    node->of.gone_at = (uint32_t)(g->now_us / GONE_UNIT_US);
    gossip__probe_cancel(g, index);
}

/* Moves a node to another state and tells all who must know. */
static void change_state(struct gossip *g, uint32_t index, enum member_state state, bool same)
{
    struct node *node = gossip__node(g, index);
    enum member_state old = (enum member_state)node->state;
    bool was_live = gossip__is_live(old), live = gossip__is_live(state);
    set_state(g, node, state);
    if (old == MEMBER_SUSPECT && state != MEMBER_SUSPECT)
        gossip__suspicion_end(g, index);
    if (index == g->self) {
        gossip__member(g, index, &g->self_view);
        return;
    }
    if (was_live != live)
        move_lists(g, index, live);
    if ((!same || old != state) && (was_live || live))
        mark_dirty(g, index);
    if (old != state)
        gossip__log(g, "state", index);
}

void gossip__update(struct gossip *g, uint32_t index, const struct member *member)
{
    struct node *node = gossip__node(g, index);
    enum member_state old = (enum member_state)node->state;
    bool live = gossip__is_live(member->state);
    ASSERT(old == member->state || gossip__move_allowed(old, member->state));
    ASSERT(peer_addr_equal(gossip__addr(g, index), &member->addr));
    /* The old record may be rewritten in place: a look at it before. */
    const struct directory_record before = *gossip__record(g, index);
    uint64_t hash = gossip__member_hash(g, index);
    if (directory_record_set(g->directory, &node->record, (uint16_t)index, member) != 0) {
        g->stats.dropped++;
        return;
    }
    bool same = same_to_host(&before, gossip__record(g, index));
    if (gossip__is_live(old))
        toggle_hash(g, index, hash, -1);
    if (live)
        toggle_hash(g, index, gossip__member_hash(g, index), 1);
    change_state(g, index, member->state, same);
}

void gossip__set_state(struct gossip *g, uint32_t index, enum member_state state)
{
    enum member_state old = (enum member_state)gossip__node(g, index)->state;
    ASSERT(old == state || gossip__move_allowed(old, state));
    bool was_live = gossip__is_live(old), live = gossip__is_live(state);
    if (was_live != live)
        toggle_hash(g, index, gossip__member_hash(g, index), live ? 1 : -1);
    g->sync.changed_us = g->now_us;
    change_state(g, index, state, true);
}

void gossip__forget(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    ASSERT(index != g->self && !node->dirty);
    ASSERT(gossip__move_allowed((enum member_state)node->state, MEMBER_UNKNOWN));
    gossip__unqueue(g, index);
    gossip__probe_cancel(g, index);
    gossip__revive_cancel(g, index);
    gone_remove(g, index);
    uint32_t at = order_position(g, gossip__id(g, index));
    ASSERT(at < g->node_count && g->order[at] == index);
    g->node_count--;
    memmove(g->order + at, g->order + at + 1, (g->node_count - at) * sizeof *g->order);
    set_state(g, node, MEMBER_UNKNOWN);
    directory_record_drop(g->directory, node->record);
    *node = (struct node){.record = RECORD_NONE};
    directory_drop(g->directory, (uint16_t)index);
}

uint32_t gossip__random_live(struct gossip *g)
{
    if (g->live_count == 0)
        return NODE_NONE;
    return g->live[prng_below(&g->prng, g->live_count)];
}

int gossip__members_init(struct gossip *g)
{
    g->event_head = g->event_tail = NODE_NONE;
    g->self = NODE_NONE;
    uint64_t seed = prng_next(&g->prng);
    int err = 0;
    if (g->config.directory != NULL)
        g->directory = directory_get(g->config.directory);
    else
        err = directory_new(&g->env, g->cluster_id, seed, &g->directory);
    uint32_t index;
    return err == 0 ? gossip__insert(g, &g->config.self, &index) : err;
}

void gossip__members_close(struct gossip *g)
{
    for (uint32_t i = 0; i < g->node_count; i++) {
        directory_record_drop(g->directory, gossip__node(g, g->order[i])->record);
        directory_drop(g->directory, g->order[i]);
    }
    directory_put(g->directory);
    for (uint32_t i = 0; i < SLABS_MAX; i++) {
        if (g->slabs[i] != NULL)
            (void)g->env.alloc(g->env.host, g->slabs[i], 0);
    }
    void *lists[] = {g->order, g->live, g->revive};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (lists[i] != NULL)
            (void)g->env.alloc(g->env.host, lists[i], 0);
    }
}
