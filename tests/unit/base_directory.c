/* SPDX-License-Identifier: Apache-2.0 */
/* The directory: every kind of thing kept once and counted, numbers used again, against a plain
 * list; every allocation failing in turn. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "directory.h"

static struct {
    long blocks;
    uint64_t allocations, fail_at;
} host;

static struct directory *directory;

static void *host_alloc(void *self, void *old, size_t new_bytes)
{
    (void)self;
    if (new_bytes == 0) {
        host.blocks -= old != NULL;
        free(old);
        return NULL;
    }
    if (++host.allocations == host.fail_at)
        return NULL;
    host.blocks += old == NULL;
    return realloc(old, new_bytes);
}

static const struct env env = {.alloc = host_alloc};

static int open_directory(void **state)
{
    (void)state;
    memset(&host, 0, sizeof host);
    return directory_new(&env, "test", 7, &directory);
}

static int close_directory(void **state)
{
    (void)state;
    directory__check_invariants(directory);
    directory_put(directory);
    return host.blocks == 0 ? 0 : -1;
}

static struct peer_addr addr_of(uint32_t index)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff, 10}, .port = 65002};
    store_be32(addr.ip + 12, 0x0a000000u + index);
    return addr;
}

static struct member member_of(uint32_t index, uint64_t incarnation)
{
    struct member member = {.addr = addr_of(index), .incarnation = incarnation, .load = 3};
    store_be32(member.key.bytes, index);
    snprintf(member.topology.zone.text, LABEL_BYTES_MAX, "z%u", index % 5);
    node_id_of("test", &member.addr, &member.id);
    return member;
}

static uint16_t hold(uint32_t index)
{
    const struct peer_addr addr = addr_of(index);
    uint16_t place;
    assert_int_equal(directory_hold(directory, &addr, &place), 0);
    return place;
}

static void test_a_place_is_one_address_and_its_id(void **state)
{
    (void)state;
    const struct peer_addr addr = addr_of(1), other = addr_of(2);
    const struct member member = member_of(1, 1);
    assert_int_equal(directory_find(directory, &addr), PLACE_NONE);
    assert_int_equal(directory_find_id(directory, &member.id), PLACE_NONE);
    uint16_t place = hold(1), again = hold(1);
    assert_int_equal(place, again);
    assert_int_equal(directory_count(directory), 1);
    assert_int_equal(directory_find(directory, &addr), place);
    assert_int_equal(directory_find_id(directory, &member.id), place);
    assert_true(node_id_equal(directory_id(directory, place), &member.id)); /* PEER-4 */
    assert_true(peer_addr_equal(directory_addr(directory, place), &addr));
    assert_true(directory_prefix(directory, place) == load_be64(member.id.bytes));
    assert_int_equal(directory_hold_as(directory, &member.id, &addr, &again), 0);
    assert_int_equal(again, place);
    assert_int_equal(directory_hold_as(directory, &member.id, &other, &again), E_INVALID);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(directory_find(directory, &addr), place);
        directory_drop(directory, place);
    }
    assert_int_equal(directory_find(directory, &addr), PLACE_NONE);
    assert_int_equal(directory_find_id(directory, &member.id), PLACE_NONE);
    assert_int_equal(hold(3), place); /* the number is used again */
    directory_drop(directory, place);
}

static void test_places_against_a_plain_list(void **state)
{
    (void)state;
    enum { addresses = 700 };
    uint32_t holds[addresses] = {0};
    uint16_t numbers[addresses];
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)"places", 6);
    for (unsigned step = 0; step < 20000; step++) {
        uint32_t index = (uint32_t)prng_below(&prng, addresses);
        bool more = prng_below(&prng, 100) < (step % 8000 < 4000 ? 65 : 35);
        if (more) {
            numbers[index] = hold(index);
            holds[index]++;
        } else if (holds[index] > 0) {
            directory_drop(directory, numbers[index]);
            holds[index]--;
        }
        const struct peer_addr addr = addr_of(index);
        uint16_t found = directory_find(directory, &addr);
        assert_int_equal(found, holds[index] > 0 ? numbers[index] : PLACE_NONE);
        if (step % 500 == 0)
            directory__check_invariants(directory);
    }
    uint32_t held = 0;
    for (uint32_t i = 0; i < addresses; i++) {
        held += holds[i] > 0;
        for (; holds[i] > 0; holds[i]--)
            directory_drop(directory, numbers[i]);
    }
    assert_true(held > 100);
    assert_true(directory_bound(directory) <= addresses);
    assert_int_equal(directory_count(directory), 0);
}

static void test_order_is_by_id(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 300; i++)
        (void)hold(i);
    assert_int_equal(directory_count(directory), 300);
    for (uint32_t i = 1; i < 300; i++) {
        const struct node_id before = *directory_id(directory, directory_at(directory, i - 1));
        assert_true(node_id_compare(&before, directory_id(directory, directory_at(directory, i))) <
                    0);
    }
    for (uint32_t i = 0; i < 300; i++)
        directory_drop(directory, directory_at(directory, 0));
}

static void test_equal_records_are_one(void **state)
{
    (void)state;
    uint16_t place = hold(4);
    struct member member = member_of(4, 9), out;
    uint32_t a = RECORD_NONE, b = RECORD_NONE;
    assert_int_equal(directory_record_set(directory, &a, place, &member), 0);
    assert_int_equal(directory_record_set(directory, &b, place, &member), 0);
    assert_true(a != RECORD_NONE && a == b);
    directory_member(directory, a, MEMBER_SUSPECT, &out);
    member.state = MEMBER_SUSPECT;
    assert_memory_equal(&out, &member, sizeof out);

    /* One of two holders moves on: the other's record stays as it was. */
    member.load = 200;
    assert_int_equal(directory_record_set(directory, &b, place, &member), 0);
    assert_true(a != b);
    assert_int_equal(directory_record(directory, a)->load, 3);
    assert_int_equal(directory_record(directory, b)->load, 200);

    /* The only holder has it changed in place, and contents meet again. */
    uint32_t before = a;
    member.incarnation = 10;
    assert_int_equal(directory_record_set(directory, &a, place, &member), 0);
    assert_int_equal(a, before);
    assert_int_equal(directory_record_set(directory, &b, place, &member), 0);
    assert_int_equal(a, b);
    directory__check_invariants(directory);
    directory_record_drop(directory, a);
    directory_record_drop(directory, b);
    directory_record_drop(directory, RECORD_NONE);
    directory_drop(directory, place);
}

/* DHT-7, PEER-1: what a liar says of an address is another record. */
static void test_every_field_makes_a_record(void **state)
{
    (void)state;
    uint16_t place = hold(4);
    struct member versions[7];
    for (unsigned i = 0; i < 7; i++)
        versions[i] = member_of(4, 9);
    versions[1].key.bytes[31]++;
    versions[2].incarnation++;
    versions[3].load++;
    versions[4].capacity_class++;
    versions[5].version_minor++;
    versions[6].topology.vswitch.text[0] = 'v';
    uint32_t records[7] = {RECORD_NONE};
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(directory_record_set(directory, &records[i], place, &versions[i]), 0);
        for (unsigned j = 0; j < i; j++)
            assert_true(records[i] != records[j]);
    }
    for (unsigned i = 0; i < 7; i++) {
        struct member out;
        directory_member(directory, records[i], MEMBER_UNKNOWN, &out);
        assert_memory_equal(&out, &versions[i], sizeof out);
        directory_record_drop(directory, records[i]);
    }
    directory_drop(directory, place);
}

static void test_topologies_are_shared_and_go(void **state)
{
    (void)state;
    struct topology labels = {{{0}}, {{0}}, {{0}}};
    uint16_t numbers[200], again;
    for (unsigned i = 0; i < 200; i++) {
        snprintf(labels.region.text, LABEL_BYTES_MAX, "region-%u", i % 3);
        snprintf(labels.vswitch.text, LABEL_BYTES_MAX, "vswitch-%u", i);
        assert_int_equal(directory_topology_hold(directory, &labels, &numbers[i]), 0);
    }
    assert_int_equal(directory_topology_hold(directory, &labels, &again), 0);
    assert_int_equal(again, numbers[199]);
    assert_memory_equal(directory_topology(directory, again), &labels, sizeof labels);
    directory__check_invariants(directory);
    directory_topology_drop(directory, again);
    for (unsigned i = 0; i < 200; i++)
        directory_topology_drop(directory, numbers[i]);
    /* Labels that run together are not the same labels. */
    struct topology ab = {.region = {"ab"}}, a_b = {.region = {"a"}, .zone = {"b"}};
    assert_int_equal(directory_topology_hold(directory, &ab, &numbers[0]), 0);
    assert_int_equal(directory_topology_hold(directory, &a_b, &numbers[1]), 0);
    assert_true(numbers[0] != numbers[1]);
    directory_topology_drop(directory, numbers[0]);
    directory_topology_drop(directory, numbers[1]);
}

static void test_numbers_run_out(void **state)
{
    (void)state;
    uint16_t place;
    for (uint32_t i = 0; i < PLACES_MAX; i++)
        (void)hold(i);
    const struct peer_addr addr = addr_of(PLACES_MAX);
    assert_int_equal(directory_hold(directory, &addr, &place), E_FULL);
    assert_int_equal(directory_count(directory), PLACES_MAX);
    directory_drop(directory, 77);
    assert_int_equal(directory_hold(directory, &addr, &place), 0);
    assert_int_equal(place, 77);
    for (uint32_t i = 0; i < PLACES_MAX; i++)
        directory_drop(directory, (uint16_t)i);
}

static void test_references(void **state)
{
    (void)state;
    assert_ptr_equal(directory_get(directory), directory);
    directory_put(directory);
    directory_put(NULL);
    uint16_t place = hold(1); /* still there */
    directory_drop(directory, place);
}

/* Sixty members come, change and go; true if nothing failed. What failed left all as it was. */
static bool lives(void)
{
    struct directory *short_lived;
    if (directory_new(&env, "test", 1, &short_lived) != 0)
        return false;
    uint16_t places[60];
    uint32_t records[60] = {RECORD_NONE}, count = 0;
    bool whole = true;
    for (; count < 60; count++) {
        struct member member = member_of(count, 1);
        snprintf(member.topology.region.text, LABEL_BYTES_MAX, "r%u", count);
        if (directory_hold(short_lived, &member.addr, &places[count]) != 0)
            break;
        whole = directory_record_set(short_lived, &records[count], places[count], &member) == 0 &&
                whole;
        directory__check_invariants(short_lived);
        member.incarnation++;
        bool held = records[count] != RECORD_NONE;
        int err =
            held ? directory_record_set(short_lived, &records[count], places[count], &member) : 0;
        assert_int_equal(err, 0); /* the only holder's, same labels: never fails */
    }
    whole = whole && count == 60;
    while (count-- > 0) {
        directory_record_drop(short_lived, records[count]);
        directory_drop(short_lived, places[count]);
    }
    directory__check_invariants(short_lived);
    directory_put(short_lived);
    return whole;
}

static void test_without_memory_all_stays(void **state)
{
    (void)state;
    bool whole = false;
    unsigned failed = 0;
    for (; !whole; failed++) {
        long blocks = host.blocks;
        host.allocations = 0;
        host.fail_at = failed + 1;
        whole = lives();
        assert_int_equal(host.blocks, blocks);
        assert_true(failed < 500);
    }
    assert_true(failed > 20);
    host.fail_at = 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_directory, close_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_place_is_one_address_and_its_id),
        TEST(test_places_against_a_plain_list),
        TEST(test_order_is_by_id),
        TEST(test_equal_records_are_one),
        TEST(test_every_field_makes_a_record),
        TEST(test_topologies_are_shared_and_go),
        TEST(test_numbers_run_out),
        TEST(test_references),
        TEST(test_without_memory_all_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
