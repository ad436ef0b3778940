/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thousand DHT cores in one virtual network: delay, loss, dead nodes, churn, all drawn from one
 * seed. Judges what lookups find against the true list of providers. Prints its seed and figures;
 * SEED= replays. Proves: ids and paths (DHT-5) carry lookups through loss, death and churn (C-4),
 * both kinds of lookup agree, every lookup ends exactly once, same seed same trace hash.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "dht.h"
#include "digest.h"
#include "wire_dht.h"

#define MS 1000ULL
#define S  (1000 * MS)

static const char cluster[] = "virtual";

/* ---- world ---- */

struct node {
    struct world *world;
    struct dht *dht;
    struct dht_contact self;
    uint64_t wake_us; /* earliest wake event in the heap */
    unsigned index;
    bool alive;
    bool hostile; /* speaks the protocol and lies */
};

struct event {
    uint64_t at_us, order;
    unsigned to, from; /* from == to: a wake-up */
    uint8_t *msg;
    size_t msg_bytes;
};

struct search {
    unsigned node;
    uint64_t id;
    unsigned key;
    unsigned results;
};

struct world {
    uint64_t now_us, order, hash, messages, events;
    struct prng prng;
    unsigned loss; /* per thousand */
    struct node *nodes;
    unsigned node_count, node_max, alive_count;
    struct event *heap;
    size_t heap_count, heap_capacity;
    size_t bytes; /* all cores together */
    bool one_hop;
};

static uint64_t seed_of_run(void)
{
    const char *text = getenv("SEED");
    uint64_t seed = text == NULL ? 1 : strtoull(text, NULL, 10);
    printf("seed: %llu\n", (unsigned long long)seed);
    return seed;
}

static void mix(struct world *world, uint64_t value)
{
    world->hash = (world->hash ^ value) * 0x9e3779b97f4a7c15u;
    world->hash ^= world->hash >> 29;
}

static bool event_before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void event_push(struct world *world, struct event event)
{
    if (world->heap_count == world->heap_capacity) {
        world->heap_capacity = world->heap_capacity == 0 ? 1024 : 2 * world->heap_capacity;
        world->heap = realloc(world->heap, world->heap_capacity * sizeof *world->heap);
        assert_non_null(world->heap);
    }
    event.order = world->order++;
    size_t at = world->heap_count++;
    for (; at > 0 && event_before(&event, &world->heap[(at - 1) / 2]); at = (at - 1) / 2)
        world->heap[at] = world->heap[(at - 1) / 2];
    world->heap[at] = event;
}

static struct event event_pop(struct world *world)
{
    struct event top = world->heap[0], last = world->heap[--world->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= world->heap_count)
            break;
        if (child + 1 < world->heap_count &&
            event_before(&world->heap[child + 1], &world->heap[child]))
            child++;
        if (!event_before(&world->heap[child], &last))
            break;
        world->heap[at] = world->heap[child];
        at = child;
    }
    world->heap[at] = last;
    return top;
}

static struct peer_addr addr_of(unsigned index)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10}, .port = 65002};
    addr.ip[13] = (uint8_t)(index >> 16);
    addr.ip[14] = (uint8_t)(index >> 8);
    addr.ip[15] = (uint8_t)index;
    return addr;
}

static unsigned index_of(const struct peer_addr *addr)
{
    return (unsigned)addr->ip[13] << 16 | (unsigned)addr->ip[14] << 8 | addr->ip[15];
}

static int host_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    const struct node *from = host;
    struct world *world = from->world;
    uint64_t delay_us = 200 + prng_below(&world->prng, 1800);
    world->messages++;
    if (prng_below(&world->prng, 1000) < world->loss || index_of(to) >= world->node_count)
        return 0;
    uint8_t *copy = malloc(msg_bytes);
    assert_non_null(copy);
    memcpy(copy, msg, msg_bytes);
    event_push(world, (struct event){.at_us = world->now_us + delay_us,
                                     .to = index_of(to),
                                     .from = from->index,
                                     .msg = copy,
                                     .msg_bytes = msg_bytes});
    return 0;
}

static void host_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct world *world = ((const struct node *)host)->world;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&world->prng);
}

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    struct world *world = ((const struct node *)host)->world;
    world->bytes -= malloc_usable_size(old);
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    void *moved = realloc(old, new_bytes);
    assert_non_null(moved);
    world->bytes += malloc_usable_size(moved);
    return moved;
}

static void host_trace(void *host, enum log_level level, const char *line)
{
    (void)host, (void)level, (void)line;
}

/* Asks the node when it wants to be woken and puts that into the heap if it is news. */
static void arm(struct world *world, struct node *node)
{
    uint64_t deadline_us = dht_deadline_us(node->dht);
    if (deadline_us < world->now_us)
        deadline_us = world->now_us;
    if (deadline_us == UINT64_MAX || deadline_us >= node->wake_us)
        return;
    node->wake_us = deadline_us;
    event_push(world, (struct event){.at_us = deadline_us, .to = node->index, .from = node->index});
}

static struct node *node_add(struct world *world)
{
    static const char *const zones[] = {"zone-a", "zone-b", "zone-c"};
    assert_true(world->node_count < world->node_max);
    unsigned index = world->node_count++;
    struct node *node = &world->nodes[index];
    *node = (struct node){.world = world, .index = index, .alive = true, .wake_us = UINT64_MAX};
    node->self.addr = addr_of(index);
    node_id_of(cluster, &node->self.addr, &node->self.id);
    struct env env = {node, host_send, host_random, host_alloc, host_trace};
    struct dht_config config = {
        .cluster_id = cluster, .self = node->self, .one_hop = world->one_hop};
    snprintf(config.topology.zone.text, sizeof config.topology.zone.text, "%s", zones[index % 3]);
    assert_int_equal(dht_new(&env, &config, world->now_us, &node->dht), 0);
    world->alive_count++;
    return node;
}

static void node_kill(struct world *world, unsigned index)
{
    struct node *node = &world->nodes[index];
    if (!node->alive)
        return;
    node->alive = false;
    dht_free(node->dht);
    node->dht = NULL;
    world->alive_count--;
}

static unsigned random_alive(struct world *world)
{
    unsigned index;
    do {
        index = (unsigned)prng_below(&world->prng, world->node_count);
    } while (!world->nodes[index].alive || world->nodes[index].hostile);
    return index;
}

static void node_bootstrap(struct world *world, struct node *node)
{
    struct peer_addr seeds[3];
    for (unsigned i = 0; i < 3; i++)
        seeds[i] = addr_of(node->index < 3 ? i : random_alive(world));
    dht_bootstrap(node->dht, world->now_us, seeds, 3);
    arm(world, node);
}

/* A liar knows nothing of the key, praises other liars as providers and as nodes, keeps nothing. */
static void hostile_answer(struct world *world, struct node *node, const struct event *event)
{
    static struct wire_dht_found found;
    struct wire_dht_find find;
    struct wire_dht_add add;
    uint8_t out[MESSAGE_BYTES_MAX];
    size_t used;
    struct peer_addr to = addr_of(event->from);
    if (wire_dht_decode_find(event->msg, event->msg_bytes, &find) == 0) {
        memset(&found, 0, sizeof found);
        found.request_id = find.request_id;
        memcpy(found.key, find.key, sizeof found.key);
        found.topology_count = 1;
        while (found.provider_count < 8 || found.node_count < 20) {
            unsigned index = (unsigned)prng_below(&world->prng, world->node_count);
            if (!world->nodes[index].hostile)
                continue;
            if (found.provider_count < 8)
                found.providers[found.provider_count++].addr = addr_of(index);
            else
                found.nodes[found.node_count++] = addr_of(index);
        }
        assert_int_equal(wire_dht_encode_found(&found, out, sizeof out, &used), 0);
        host_send(node, &to, out, used);
    } else if (wire_dht_decode_add(event->msg, event->msg_bytes, &add) == 0) {
        struct wire_dht_added added = {.request_id = add.request_id, .status = WIRE_DHT_STORED};
        memcpy(added.key, add.key, sizeof added.key);
        assert_int_equal(wire_dht_encode_added(&added, out, sizeof out, &used), 0);
        host_send(node, &to, out, used);
    }
}

static void world_step(struct world *world)
{
    struct event event = event_pop(world);
    struct node *node = &world->nodes[event.to];
    assert_true(event.at_us >= world->now_us);
    world->now_us = event.at_us;
    world->events++;
    if (node->alive && event.from == event.to) {
        if (node->wake_us == event.at_us) {
            node->wake_us = UINT64_MAX;
            dht_advance(node->dht, world->now_us);
        }
    } else if (node->hostile) {
        hostile_answer(world, node, &event);
    } else if (node->alive) {
        struct peer_addr from = addr_of(event.from);
        uint64_t word = 0;
        memcpy(&word, event.msg + (event.msg_bytes > 9 ? 3 : 0), 8);
        mix(world, event.at_us ^ (uint64_t)event.to << 40 ^ (uint64_t)event.from << 20);
        mix(world, word ^ event.msg_bytes);
        int err = dht_receive(node->dht, world->now_us, &from, event.msg, event.msg_bytes);
        assert_true(err == 0 || err == E_REFUSED); /* late answers are refused */
    }
    free(event.msg);
    if (!node->alive)
        return;
    if (world->events % 61 == 0)
        dht__check_invariants(node->dht);
    arm(world, node);
}

static void world_run(struct world *world, uint64_t until_us)
{
    while (world->heap_count > 0 && world->heap[0].at_us <= until_us)
        world_step(world);
    world->now_us = until_us;
}

static struct world *world_new(uint64_t seed, unsigned count, bool one_hop)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    uint8_t bytes[8];
    store_be64(bytes, seed);
    prng_seed(&world->prng, bytes, sizeof bytes);
    world->one_hop = one_hop;
    world->now_us = 1 * S;
    world->node_max = 2 * count;
    world->nodes = calloc(world->node_max, sizeof *world->nodes);
    assert_non_null(world->nodes);
    for (unsigned i = 0; i < count; i++) {
        node_bootstrap(world, node_add(world));
        world_run(world, world->now_us + 5 * MS);
    }
    world_run(world, world->now_us + 10 * S);
    return world;
}

static void world_free(struct world *world)
{
    for (unsigned i = 0; i < world->node_count; i++)
        node_kill(world, i);
    for (size_t i = 0; i < world->heap_count; i++)
        free(world->heap[i].msg);
    free(world->heap);
    free(world->nodes);
    free(world);
}

/* ---- keys and searches ---- */

#define KEYS_MAX 400
#define HOLDERS  4

struct content {
    struct blob_key keys[KEYS_MAX];
    unsigned holders[KEYS_MAX][HOLDERS];
    unsigned holder_count[KEYS_MAX];
    unsigned count;
};

struct outcome {
    unsigned searches, found, possible;
    uint64_t hops, messages, answered_at_home, duration_us;
};

static void publish(struct world *world, struct content *content, unsigned count)
{
    content->count = count;
    for (unsigned i = 0; i < count; i++) {
        host_random(&world->nodes[0], content->keys[i].bytes, BLOB_KEY_BYTES);
        content->holder_count[i] = 1 + (unsigned)prng_below(&world->prng, HOLDERS);
        for (unsigned j = 0; j < content->holder_count[i]; j++) {
            unsigned holder = random_alive(world);
            content->holders[i][j] = holder;
            assert_int_equal(
                dht_publish(world->nodes[holder].dht, world->now_us, &content->keys[i], 255), 0);
            arm(world, &world->nodes[holder]);
        }
        world_run(world, world->now_us + 2 * MS);
    }
    world_run(world, world->now_us + 3 * S);
}

static bool is_holder(const struct world *world, const struct content *content, unsigned key,
                      const struct peer_addr *addr)
{
    for (unsigned j = 0; j < content->holder_count[key]; j++) {
        unsigned holder = content->holders[key][j];
        const struct node *node = &world->nodes[holder];
        if (index_of(addr) == holder && node->alive && !node->hostile)
            return true;
    }
    return false;
}

static bool has_other_holder(const struct world *world, const struct content *content, unsigned key,
                             unsigned asker)
{
    for (unsigned j = 0; j < content->holder_count[key]; j++) {
        unsigned holder = content->holders[key][j];
        const struct node *node = &world->nodes[holder];
        if (holder != asker && node->alive && !node->hostile)
            return true;
    }
    return false;
}

/* Judges one result: it must belong to an open search and come once. */
static void judge(struct world *world, const struct content *content, struct search *searches,
                  unsigned search_count, const struct dht_result *result, unsigned node,
                  struct outcome *outcome)
{
    struct search *search = NULL;
    for (unsigned i = 0; i < search_count; i++) {
        if (searches[i].node == node && searches[i].id == result->lookup_id)
            search = &searches[i];
    }
    assert_non_null(search);
    assert_int_equal(search->results++, 0);
    assert_memory_equal(result->key.bytes, content->keys[search->key].bytes, BLOB_KEY_BYTES);
    assert_int_equal(result->status == 0, result->provider_count > 0);
    bool found = false;
    for (size_t i = 0; i < result->provider_count; i++) {
        struct node_id id;
        node_id_of(cluster, &result->providers[i].contact.addr, &id);
        assert_memory_equal(id.bytes, result->providers[i].contact.id.bytes, NODE_ID_BYTES);
        assert_int_not_equal(index_of(&result->providers[i].contact.addr), node);
        found = found || is_holder(world, content, search->key, &result->providers[i].contact.addr);
    }
    if (!has_other_holder(world, content, search->key, node))
        return;
    outcome->possible++;
    outcome->found += found;
    outcome->hops += result->hops;
    outcome->messages += result->messages;
    outcome->answered_at_home += result->hops == 0;
}

static struct outcome search_all(struct world *world, const struct content *content, unsigned total,
                                 bool iterative)
{
    enum { BATCH = 50 };
    static struct dht_result result;
    struct outcome outcome = {0};
    while (outcome.searches < total) {
        struct search searches[BATCH];
        unsigned open = BATCH;
        uint64_t start_us = world->now_us;
        for (unsigned i = 0; i < BATCH; i++) {
            struct search *search = &searches[i];
            *search = (struct search){.node = random_alive(world),
                                      .key = (unsigned)prng_below(&world->prng, content->count)};
            struct dht *dht = world->nodes[search->node].dht;
            const struct blob_key *key = &content->keys[search->key];
            assert_int_equal(iterative ? dht_lookup_iterative(dht, world->now_us, key, &search->id)
                                       : dht_lookup(dht, world->now_us, key, &search->id),
                             0);
            arm(world, &world->nodes[search->node]);
        }
        while (open > 0) {
            for (unsigned i = 0; i < BATCH; i++) {
                struct node *node = &world->nodes[searches[i].node];
                while (searches[i].results == 0 && node->alive &&
                       dht_next_result(node->dht, &result)) {
                    judge(world, content, searches, BATCH, &result, node->index, &outcome);
                    outcome.duration_us += world->now_us - start_us;
                    open--;
                }
            }
            if (open > 0)
                world_run(world, world->now_us + 1 * MS);
            assert_true(world->now_us < start_us + 20 * S); /* every lookup ends */
        }
        outcome.searches += BATCH;
    }
    return outcome;
}

static void report(const char *what, const struct outcome *outcome)
{
    double n = outcome->possible;
    printf("figure: dht %s lookups=%u found=%.4f%% hops_mean=%.3f messages_mean=%.2f "
           "ms_mean=%.2f\n",
           what, outcome->possible, 100 * outcome->found / n, (double)outcome->hops / n,
           (double)outcome->messages / n, (double)outcome->duration_us / 1000 / n);
}

/* ---- tests on one big network, in this order ---- */

#define NODES 1000

struct shared {
    struct world *world;
    struct content content;
};

static int set_up(void **state)
{
    struct shared *shared = calloc(1, sizeof *shared);
    assert_non_null(shared);
    shared->world = world_new(seed_of_run(), NODES, true);
    publish(shared->world, &shared->content, 300);
    printf("figure: dht joining and publishing nodes=%u keys=300 messages_per_node=%.0f "
           "bytes_per_node=%.0f\n",
           NODES, (double)shared->world->messages / NODES, (double)shared->world->bytes / NODES);
    *state = shared;
    return 0;
}

static int tear_down(void **state)
{
    struct shared *shared = *state;
    world_free(shared->world);
    free(shared);
    return 0;
}

static void iterative_lookups_find_every_provider(void **state)
{
    struct shared *shared = *state;
    struct outcome outcome = search_all(shared->world, &shared->content, 10000, true);
    report("iterative", &outcome);
    assert_int_equal(outcome.found, outcome.possible);
    assert_true((double)outcome.hops / outcome.possible <= log2(NODES) / 2);
}

static void lookups_survive_loss_N_2(void **state)
{
    struct shared *shared = *state;
    shared->world->loss = 50;
    struct outcome outcome = search_all(shared->world, &shared->content, 10000, true);
    shared->world->loss = 0;
    report("iterative, 5 % loss", &outcome);
    assert_true(outcome.found >= outcome.possible * 0.999);
}

static void one_hop_agrees_with_iterative(void **state)
{
    struct shared *shared = *state;
    struct world *world = shared->world;
    static struct dht_result by_one_hop, by_iteration;
    for (unsigned i = 0; i < NODES; i++) {
        for (unsigned j = 0; j < NODES; j++)
            assert_int_equal(
                dht_member_up(world->nodes[i].dht, world->now_us, &world->nodes[j].self), 0);
        arm(world, &world->nodes[i]);
    }
    world_run(world, world->now_us + 5 * S); /* holders are reviewed */
    for (unsigned i = 0; i < 500; i++) {
        unsigned key = (unsigned)prng_below(&world->prng, shared->content.count);
        struct node *node = &world->nodes[random_alive(world)];
        uint64_t id;
        assert_int_equal(dht_lookup(node->dht, world->now_us, &shared->content.keys[key], &id), 0);
        arm(world, node);
        world_run(world, world->now_us + 20 * MS);
        assert_true(dht_next_result(node->dht, &by_one_hop));
        assert_int_equal(
            dht_lookup_iterative(node->dht, world->now_us, &shared->content.keys[key], &id), 0);
        arm(world, node);
        world_run(world, world->now_us + 100 * MS);
        assert_true(dht_next_result(node->dht, &by_iteration));
        assert_true(by_one_hop.hops <= 1);
        assert_int_equal(by_one_hop.provider_count, by_iteration.provider_count);
        for (size_t a = 0; a < by_one_hop.provider_count; a++) {
            bool both = false;
            for (size_t b = 0; b < by_iteration.provider_count; b++)
                both = both || node_id_equal(&by_one_hop.providers[a].contact.id,
                                             &by_iteration.providers[b].contact.id);
            assert_true(both);
        }
    }
    struct outcome outcome = search_all(world, &shared->content, 2000, false);
    report("one-hop", &outcome);
    printf("figure: dht with all members nodes=%u bytes_per_node=%.0f\n", NODES,
           (double)world->bytes / NODES);
    assert_int_equal(outcome.found, outcome.possible);
    assert_int_equal(outcome.hops + outcome.answered_at_home, outcome.possible);
}

/* P-7, DHT-5: a fifth of the nodes lie together. */
static void lookups_find_honest_providers_among_liars_P_7(void **state)
{
    struct shared *shared = *state;
    struct world *world = shared->world;
    for (unsigned i = 0; i < NODES; i++)
        world->nodes[i].hostile = i % 5 == 0;
    struct outcome outcome = search_all(world, &shared->content, 2000, true);
    report("iterative, 20 % hostile", &outcome);
    assert_true(outcome.found >= outcome.possible * 0.95);
    outcome = search_all(world, &shared->content, 2000, false);
    report("one-hop, 20 % hostile", &outcome);
    assert_true(outcome.found >= outcome.possible * 0.95);
    for (unsigned i = 0; i < NODES; i++)
        world->nodes[i].hostile = false;
}

static void lookups_survive_a_fifth_dead_and_unnoticed(void **state)
{
    struct shared *shared = *state;
    struct world *world = shared->world;
    for (unsigned i = 0; i < NODES / 5; i++)
        node_kill(world, random_alive(world));
    struct outcome outcome = search_all(world, &shared->content, 1000, true);
    report("iterative, 20 % dead", &outcome);
    assert_true(outcome.found >= outcome.possible * 0.999);
    outcome = search_all(world, &shared->content, 1000, false);
    report("one-hop, 20 % dead", &outcome);
    assert_true(outcome.found >= outcome.possible * 0.999);
}

/* ---- tests with networks of their own ---- */

/* C-4: 5 % of the nodes leave without a word each minute, as many join. */
static void lookups_survive_churn_C_4(void **state)
{
    (void)state;
    enum { COUNT = NODES, MINUTES = 10 };
    struct world *world = world_new(seed_of_run(), COUNT, false);
    static struct content content;
    struct outcome sum = {0};
    publish(world, &content, 100);
    for (unsigned minute = 0; minute < MINUTES; minute++) {
        for (unsigned i = 0; i < COUNT / 20; i++) {
            node_kill(world, random_alive(world));
            node_bootstrap(world, node_add(world));
            world_run(world, world->now_us + 60 * S / (COUNT / 20));
        }
        struct outcome outcome = search_all(world, &content, 200, true);
        sum.possible += outcome.possible;
        sum.found += outcome.found;
        sum.hops += outcome.hops;
        sum.messages += outcome.messages;
        sum.duration_us += outcome.duration_us;
    }
    report("iterative, 5 % churn per minute", &sum);
    assert_true(sum.possible > 1000);
    assert_true(sum.found >= sum.possible * 0.99);
    world_free(world);
}

static uint64_t hash_of_run(uint64_t seed)
{
    struct world *world = world_new(seed, 60, true);
    static struct content content;
    world->loss = 30;
    publish(world, &content, 20);
    (void)search_all(world, &content, 100, true);
    for (unsigned i = 0; i < 60; i++) {
        for (unsigned j = 0; j < 60; j++)
            assert_int_equal(
                dht_member_up(world->nodes[i].dht, world->now_us, &world->nodes[j].self), 0);
        arm(world, &world->nodes[i]);
    }
    (void)search_all(world, &content, 100, false);
    world_run(world, world->now_us + 600 * S);
    uint64_t hash = world->hash;
    world_free(world);
    return hash;
}

static void same_seed_same_trace_hash(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    uint64_t hash = hash_of_run(seed);
    printf("figure: dht trace_hash=%016llx\n", (unsigned long long)hash);
    assert_true(hash == hash_of_run(seed));
    assert_true(hash != hash_of_run(seed + 1));
}

int main(void)
{
    const struct CMUnitTest big[] = {
        cmocka_unit_test(iterative_lookups_find_every_provider),
        cmocka_unit_test(lookups_survive_loss_N_2),
        cmocka_unit_test(one_hop_agrees_with_iterative),
        cmocka_unit_test(lookups_find_honest_providers_among_liars_P_7),
        cmocka_unit_test(lookups_survive_a_fifth_dead_and_unnoticed),
    };
    const struct CMUnitTest small[] = {
        cmocka_unit_test(lookups_survive_churn_C_4),
        cmocka_unit_test(same_seed_same_trace_hash),
    };
    int failed = cmocka_run_group_tests(big, set_up, tear_down);
    return failed + cmocka_run_group_tests(small, NULL, NULL);
}
