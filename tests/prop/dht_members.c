/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one-hop table and the k-buckets against slow, obvious models: random adds and removes, then
 * the k closest by sorting everything. Prints its seed; SEED= replays.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dht.h"

#include "../../src/dht/members.h"
#include "../../src/dht/table.h"

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static const struct env env = {.alloc = host_alloc};

static struct prng prng_of_run(void)
{
    const char *text = getenv("SEED");
    uint64_t seed = text == NULL ? 1 : strtoull(text, NULL, 10);
    printf("seed: %llu\n", (unsigned long long)seed);
    uint8_t bytes[8];
    struct prng prng;
    store_be64(bytes, seed);
    prng_seed(&prng, bytes, sizeof bytes);
    return prng;
}

/* Positions collide now and then: only `spread` different ones, scattered over 64 bits. */
static struct dht_place random_place(struct prng *prng, uint64_t spread)
{
    struct dht_place place = {.addr = {.port = 65002}};
    uint64_t number = prng_below(prng, spread);
    place.pos = number * 0x9e3779b97f4a7c15u;
    bool wide = number % 4 == 0;
    if (!wide)
        place.addr.ip[10] = place.addr.ip[11] = 0xff;
    else
        place.addr.ip[0] = 0xfd;
    store_be32(place.addr.ip + 12, (uint32_t)number);
    if (prng_below(prng, 50) == 0)
        place.addr.port = 65003; /* same position, other address */
    return place;
}

/* Ids begin with the position; the rest tells addresses apart. */
static struct dht_contact contact_of(const struct dht_place *place)
{
    struct dht_contact contact = {.addr = place->addr};
    store_be64(contact.id.bytes, place->pos);
    memcpy(contact.id.bytes + 8, place->addr.ip, sizeof place->addr.ip);
    store_be16(contact.id.bytes + 24, place->addr.port);
    return contact;
}

static void open_members(struct dht_members *members)
{
    struct directory *directory;
    assert_int_equal(directory_new(&env, "test", 1, &directory), 0);
    dht__members_init(members, &env, directory);
    directory_put(directory);
}

static int add(struct dht_members *members, const struct dht_place *place)
{
    struct dht_contact contact = contact_of(place);
    return dht__members_add(members, &contact);
}

#define MODEL_MAX 4096

struct model {
    struct dht_place places[MODEL_MAX];
    size_t count;
};

static size_t model_find(const struct model *model, const struct dht_place *place)
{
    size_t at = 0;
    while (at < model->count && !peer_addr_equal(&model->places[at].addr, &place->addr))
        at++;
    return at;
}

static void model_closest(const struct model *model, uint64_t target, struct dht_place *out,
                          size_t max, size_t *count)
{
    bool used[MODEL_MAX] = {false};
    for (*count = 0; *count < max && *count < model->count; ++*count) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < model->count; i++) {
            if (used[i])
                continue;
            if (best == SIZE_MAX) {
                best = i;
                continue;
            }
            uint64_t mine = model->places[i].pos ^ target;
            uint64_t theirs = model->places[best].pos ^ target;
            if (mine < theirs ||
                (mine == theirs &&
                 dht__addr_compare(&model->places[i].addr, &model->places[best].addr) < 0))
                best = i;
        }
        used[best] = true;
        out[*count] = model->places[best];
    }
}

static void expect_same_closest(struct dht_members *members, const struct model *model,
                                uint64_t target, size_t max)
{
    struct dht_place found[64], expected[64];
    size_t expected_count;
    size_t count = dht__members_closest(members, target, found, max);
    model_closest(model, target, expected, max, &expected_count);
    assert_int_equal(count, expected_count);
    for (size_t i = 0; i < count; i++) {
        assert_true(found[i].pos == expected[i].pos);
        assert_true(peer_addr_equal(&found[i].addr, &expected[i].addr));
    }
}

static void members_agree_with_a_plain_list(void **state)
{
    (void)state;
    static struct model model;
    struct prng prng = prng_of_run();
    struct dht_members members;
    open_members(&members);
    model.count = 0;
    for (unsigned round = 0; round < 6000; round++) {
        struct dht_place place = random_place(&prng, 700);
        size_t at = model_find(&model, &place);
        if (prng_below(&prng, 3) > 0) {
            assert_int_equal(add(&members, &place), 0);
            if (at == model.count)
                model.places[model.count++] = place;
        } else {
            assert_int_equal(dht__members_has(&members, &place), at < model.count);
            assert_int_equal(dht__members_remove(&members, &place), at < model.count);
            if (at < model.count)
                model.places[at] = model.places[--model.count];
        }
        if (round % 50 == 0) {
            assert_int_equal(dht__members_count(&members), model.count);
            dht__members_check(&members);
            expect_same_closest(&members, &model, prng_next(&prng), 1 + round % 32);
            expect_same_closest(&members, &model, place.pos, 20);
        }
    }
    dht__members_close(&members);
}

static void ten_thousand_members_cost_little(void **state)
{
    (void)state;
    struct prng prng = prng_of_run();
    struct dht_members members;
    struct dht_place out[20];
    open_members(&members);
    for (unsigned i = 0; i < 10000; i++) {
        struct dht_place place = {.pos = prng_next(&prng), .addr = {.port = 1}};
        place.addr.ip[10] = place.addr.ip[11] = 0xff;
        store_be32(place.addr.ip + 12, i);
        assert_int_equal(add(&members, &place), 0);
    }
    assert_int_equal(dht__members_count(&members), 10000);
    for (unsigned i = 0; i < 10000; i++)
        assert_int_equal(dht__members_closest(&members, prng_next(&prng), out, 20), 20);
    printf("figure: dht one-hop table bytes_per_member=%zu\n",
           members.capacity * sizeof *members.entries / 10000);
    assert_true(members.capacity * sizeof *members.entries < 30000);
    dht__members_close(&members);
}

static void limit_of_members(void **state)
{
    (void)state;
    struct dht_members members;
    struct dht_place place = {.addr = {.port = 1}};
    open_members(&members);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        place.pos = i * 0x9e3779b97f4a7c15u;
        store_be32(place.addr.ip + 12, i);
        assert_int_equal(add(&members, &place), 0);
    }
    assert_int_equal(add(&members, &place), 0); /* known already */
    store_be32(place.addr.ip + 12, MEMBERS_MAX);
    assert_int_equal(add(&members, &place), E_FULL);
    assert_int_equal(dht__members_count(&members), MEMBERS_MAX);
    dht__members_close(&members);
}

/* Buckets: whatever happens, a node is there only by its own answer, never twice, never more than k
 * per bucket, and `closest` is what sorting all of them gives. */
static void table_keeps_its_promises(void **state)
{
    (void)state;
    static struct model answered; /* every place that ever answered and was not removed */
    struct prng prng = prng_of_run();
    struct dht_table table;
    uint64_t now_us = 0;
    answered.count = 0;
    dht__table_init(&table, &env, prng_next(&prng), 8);
    for (unsigned round = 0; round < 20000; round++) {
        struct dht_place place = random_place(&prng, 1000), doubtful;
        size_t at = model_find(&answered, &place);
        now_us += prng_below(&prng, 100000);
        switch (prng_below(&prng, 5)) {
        case 0:
            dht__table_failed(&table, &place);
            break;
        case 1:
            dht__table_remove(&table, &place);
            assert_null(dht__table_find(&table, &place));
            if (at < answered.count)
                answered.places[at] = answered.places[--answered.count];
            break;
        default:
            if (dht__table_answered(&table, now_us, &place, &doubtful))
                assert_non_null(dht__table_find(&table, &doubtful));
            if (at == answered.count)
                answered.places[answered.count++] = place;
        }
        dht__table_check(&table);
        if (round % 100 != 0)
            continue;
        struct dht_place out[64];
        size_t count = dht__table_closest(&table, place.pos, out, 20);
        for (size_t i = 0; i < count; i++) {
            assert_true(model_find(&answered, &out[i]) < answered.count); /* DHT-5 */
            assert_true(i == 0 || (out[i - 1].pos ^ place.pos) <= (out[i].pos ^ place.pos));
            const struct dht_node *node = dht__table_find(&table, &out[i]);
            assert_non_null(node);
            assert_int_equal(node->failures, 0);
        }
    }
    dht__table_close(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_agree_with_a_plain_list),
        cmocka_unit_test(ten_thousand_members_cost_little),
        cmocka_unit_test(limit_of_members),
        cmocka_unit_test(table_keeps_its_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
