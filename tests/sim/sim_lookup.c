/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provider lookups among 1,000 simulated nodes: 10,000 tries by one-hop and by iterative search,
 * with and without loss; both ways agree.
 */
#include <math.h>

#include "digest.h"
#include "sim_support.h"

#define NODES 1000
#define KEYS  200
#define TRIES 10000

static void key_of(uint32_t index, struct blob_key *out)
{
    uint8_t name[8] = "lookup";
    name[6] = (uint8_t)(index >> 8);
    name[7] = (uint8_t)index;
    sha256_of(name, sizeof name, out->bytes);
}

static struct world *settled_world(struct world_config *config, uint64_t seed, bool one_hop,
                                   uint32_t loss_ppm)
{
    world_config_defaults(config);
    config->seed = seed;
    config->node_count = NODES;
    config->zone_count = 3;
    config->loss_ppm = loss_ppm;
    config->mesh.dht.one_hop = one_hop;
    struct world *world = world_new(config);
    assert_non_null(world);
    sim_start_all(world, config, 2 * SECOND_US);
    (void)world_run(world, 40 * SECOND_US, false);
    for (uint32_t key = 0; key < KEYS; key++) {
        struct blob_key blob;
        uint32_t provider = key * 37 % NODES;
        key_of(key, &blob);
        assert_int_equal(
            dht_publish(mesh_dht(world_mesh(world, provider)), world_now_us(world), &blob, 255), 0);
        world_drain_node(world, provider);
    }
    (void)world_run(world, world_now_us(world) + 10 * SECOND_US, false);
    return world;
}

struct outcome {
    uint32_t answered, found;
    double hops;
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

static void take_answers(struct world *world, struct outcome *outcome)
{
    struct dht_result result;
    uint32_t node;
    while (world_next_lookup(world, &node, &result)) {
        for (uint32_t key = 0; key < KEYS; key++) {
            struct blob_key blob;
            key_of(key, &blob);
            if (!blob_key_equal(&blob, &result.key))
                continue;
            outcome->found += has_provider(&result, key * 37 % NODES);
        }
        outcome->answered++;
        outcome->hops += result.hops;
    }
}

/* Lookups by random nodes for random keys, a hundred at a time. */
static struct outcome look_up(struct world *world, uint64_t seed)
{
    struct outcome outcome = {0};
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    for (uint32_t i = 0; i < TRIES; i++) {
        struct blob_key blob;
        uint64_t id;
        uint32_t node = (uint32_t)prng_below(&prng, NODES);
        key_of((uint32_t)prng_below(&prng, KEYS), &blob);
        assert_int_equal(mesh_lookup(world_mesh(world, node), world_now_us(world), &blob, &id), 0);
        world_drain_node(world, node);
        if (i % 100 != 99)
            continue;
        (void)world_run(world, world_now_us(world) + SECOND_US / 2, false);
        take_answers(world, &outcome);
    }
    (void)world_run(world, world_now_us(world) + 10 * SECOND_US, false);
    take_answers(world, &outcome);
    outcome.hops /= outcome.answered;
    return outcome;
}

static struct outcome run(const char *name, bool one_hop, uint32_t loss_ppm)
{
    struct world_config config;
    uint64_t seed = sim_seed(21);
    struct world *world = settled_world(&config, seed, one_hop, loss_ppm);
    struct outcome outcome = look_up(world, seed);
    printf("figure: %s: %u of %d lookups found the provider, %.2f hops in the mean\n", name,
           outcome.found, TRIES, outcome.hops);
    assert_int_equal(outcome.answered, TRIES);
    world_free(world);
    return outcome;
}

static void iterative_without_loss(void **state)
{
    (void)state;
    struct outcome outcome = run("iterative, no loss", false, 0);
    assert_int_equal(outcome.found, TRIES);
    assert_true(outcome.hops <= log2(NODES) / 2);
}

static void iterative_with_loss(void **state)
{
    (void)state;
    struct outcome outcome = run("iterative, 5 % loss", false, 50000);
    assert_true(outcome.found >= TRIES * 999 / 1000);
}

static void one_hop_without_loss(void **state)
{
    (void)state;
    struct outcome outcome = run("one-hop, no loss", true, 0);
    assert_int_equal(outcome.found, TRIES);
    assert_true(outcome.hops <= 1.01);
}

static void one_hop_with_loss(void **state)
{
    (void)state;
    struct outcome outcome = run("one-hop, 5 % loss", true, 50000);
    assert_true(outcome.found >= TRIES * 999 / 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_hop_without_loss),
        cmocka_unit_test(one_hop_with_loss),
        cmocka_unit_test(iterative_without_loss),
        cmocka_unit_test(iterative_with_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
