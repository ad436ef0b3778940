/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provider lookups among 1,000 simulated nodes: 10,000 tries by one-hop and by iterative search,
 * with and without loss; both ways agree.
 */
#include <math.h>

#include "bytes.h"
#include "digest.h"
#include "sim_support.h"

#define NODES    1000
#define KEYS     200
#define TRIES    10000
#define COMPARED 1000

static void key_of(uint32_t index, struct blob_key *out)
{
    uint8_t name[8] = "lookup";
    name[6] = (uint8_t)(index >> 8);
    name[7] = (uint8_t)index;
    sha256_of(name, sizeof name, out->bytes);
}

static uint32_t provider_of(uint32_t key)
{
    return key * 37 % NODES;
}

static struct world *settled_world(uint64_t seed, bool one_hop)
{
    struct world_config config;
    world_config_defaults(&config);
    config.seed = seed;
    config.node_count = NODES;
    config.zone_count = 3;
    config.mesh.dht.one_hop = one_hop;
    struct world *world = world_new(&config);
    assert_non_null(world);
    sim_start_all(world, &config, 2 * SECOND_US);
    (void)world_run(world, 40 * SECOND_US, false);
    return world;
}

/* Provider records of KEYS keys from `first` on, each of one node. */
static void publish(struct world *world, uint32_t first)
{
    for (uint32_t key = first; key < first + KEYS; key++) {
        struct blob_key blob;
        uint32_t node = provider_of(key);
        key_of(key, &blob);
        struct dht *dht = mesh_dht(world_mesh(world, node));
        assert_int_equal(dht_publish(dht, world_now_us(world), &blob, 255), 0);
        world_drain_node(world, node);
    }
    (void)world_run(world, world_now_us(world) + 10 * SECOND_US, false);
}

/* ---- many lookups ---- */

struct outcome {
    uint32_t answered, found;
    double hops, messages;
};

static bool has_provider(const struct dht_result *result, uint32_t provider)
{
    struct peer_addr addr;
    world_node_addr(provider, &addr);
    for (size_t i = 0; i < result->provider_count; i++) {
        if (peer_addr_equal(&result->providers[i].contact.addr, &addr))
            return true;
    }
    return false;
}

static void take_answers(struct world *world, uint32_t first, struct outcome *outcome)
{
    struct dht_result result;
    uint32_t node;
    while (world_next_lookup(world, &node, &result)) {
        for (uint32_t key = first; key < first + KEYS; key++) {
            struct blob_key blob;
            key_of(key, &blob);
            if (blob_key_equal(&blob, &result.key))
                outcome->found += has_provider(&result, provider_of(key));
        }
        outcome->answered++;
        outcome->hops += result.hops;
        outcome->messages += result.messages;
    }
}

/* A random node and a random key that it does not provide itself: its own record is no answer. */
static uint32_t draw(struct prng *prng, uint32_t first, struct blob_key *blob)
{
    uint32_t key = first + (uint32_t)prng_below(prng, KEYS);
    uint32_t node = (uint32_t)prng_below(prng, NODES - 1);
    key_of(key, blob);
    return node >= provider_of(key) ? node + 1 : node;
}

/* Lookups by random nodes for random keys, a hundred at a time. */
static struct outcome look_up(struct world *world, uint64_t seed, uint32_t first)
{
    struct outcome outcome = {0};
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    for (uint32_t i = 0; i < TRIES; i++) {
        struct blob_key blob;
        uint64_t id;
        uint32_t node = draw(&prng, first, &blob);
        assert_int_equal(mesh_lookup(world_mesh(world, node), world_now_us(world), &blob, &id), 0);
        world_drain_node(world, node);
        if (i % 100 != 99)
            continue;
        (void)world_run(world, world_now_us(world) + SECOND_US / 10, false);
        take_answers(world, first, &outcome);
    }
    (void)world_run(world, world_now_us(world) + 12 * SECOND_US, false);
    take_answers(world, first, &outcome);
    outcome.hops /= outcome.answered;
    outcome.messages /= outcome.answered;
    return outcome;
}

static void show(const char *name, const struct outcome *outcome)
{
    printf(
        "figure: %s: %u of %d lookups found the provider; %.2f hops, %.1f messages in the mean\n",
        name, outcome->found, TRIES, outcome->hops, outcome->messages);
    assert_int_equal(outcome->answered, TRIES);
}

/* ---- both ways ---- */

static struct dht_result answer_of(struct world *world, uint32_t node, uint64_t id)
{
    struct dht_result result;
    uint32_t from;
    world_drain_node(world, node);
    for (unsigned i = 0; i < 200; i++) {
        if (world_next_lookup(world, &from, &result)) {
            assert_int_equal(from, node);
            assert_true(result.lookup_id == id);
            return result;
        }
        (void)world_run(world, world_now_us(world) + SECOND_US / 20, false);
    }
    fail_msg("no answer within ten seconds");
    return result;
}

static bool same_providers(const struct dht_result *a, const struct dht_result *b)
{
    bool same = a->provider_count == b->provider_count && a->status == b->status;
    for (size_t i = 0; same && i < a->provider_count; i++) {
        bool found = false;
        for (size_t j = 0; j < b->provider_count; j++)
            found =
                found || node_id_equal(&a->providers[i].contact.id, &b->providers[j].contact.id);
        same = found;
    }
    return same;
}

/* The nearest node must be the same: it is where records of the key belong first. */
static bool same_nearest(const struct dht_result *a, const struct dht_result *b)
{
    return a->closest_count > 0 && b->closest_count > 0 &&
           node_id_equal(&a->closest[0].id, &b->closest[0].id);
}

static void compare_ways(struct world *world, uint64_t seed)
{
    struct prng prng;
    uint32_t agreed = 0, nearest = 0;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    for (uint32_t i = 0; i < COMPARED; i++) {
        struct blob_key blob;
        uint64_t id;
        uint32_t node = draw(&prng, 0, &blob);
        struct mesh *mesh = world_mesh(world, node);
        assert_int_equal(mesh_lookup(mesh, world_now_us(world), &blob, &id), 0);
        struct dht_result one_hop = answer_of(world, node, id);
        assert_int_equal(mesh_lookup_iterative(mesh, world_now_us(world), &blob, &id), 0);
        struct dht_result iterative = answer_of(world, node, id);
        agreed += same_providers(&one_hop, &iterative);
        nearest += same_nearest(&one_hop, &iterative);
    }
    printf("figure: one-hop and iterative lookup: %u of %d name the same providers, %u the same "
           "nearest node\n",
           agreed, COMPARED, nearest);
    assert_int_equal(agreed, COMPARED);
}

/* ---- tests ---- */

static void one_hop(void **state)
{
    (void)state;
    uint64_t seed = sim_seed(21);
    struct world *world = settled_world(seed, true);
    publish(world, 0);
    compare_ways(world, seed);
    struct outcome outcome = look_up(world, seed, 0);
    show("one-hop, no loss", &outcome);
    assert_int_equal(outcome.found, TRIES);
    assert_true(outcome.hops <= 1.01);
    world_set_loss(world, 50000);
    publish(world, KEYS);
    outcome = look_up(world, seed, KEYS);
    show("one-hop, 5 % loss", &outcome);
    assert_true(outcome.found >= TRIES * 999 / 1000);
    world_check(world);
    world_free(world);
}

static void iterative(void **state)
{
    (void)state;
    uint64_t seed = sim_seed(22);
    struct world *world = settled_world(seed, false);
    publish(world, 0);
    struct outcome outcome = look_up(world, seed, 0);
    show("iterative, no loss", &outcome);
    assert_int_equal(outcome.found, TRIES);
    assert_true(outcome.hops <= log2(NODES) / 2);
    world_set_loss(world, 50000);
    publish(world, KEYS);
    outcome = look_up(world, seed, KEYS);
    show("iterative, 5 % loss", &outcome);
    assert_true(outcome.found >= TRIES * 999 / 1000);
    world_check(world);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_hop),
        cmocka_unit_test(iterative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
