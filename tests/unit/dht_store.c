/* SPDX-License-Identifier: Apache-2.0 */
/* Provider records: limits, lifetimes, sequence numbers, sampling (DHT-4, DHT-7). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/dht/store.h"

#define S 1000000ULL

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
static const struct topology nowhere;

struct fixture {
    struct dht_store store;
    struct prng prng;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    const uint8_t seed[1] = {1};
    assert_non_null(fixture);
    prng_seed(&fixture->prng, seed, sizeof seed);
    dht__store_init(&fixture->store, &env, &fixture->prng);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    dht__store_check(&fixture->store);
    dht__store_close(&fixture->store); /* asserts that every byte came back */
    free(fixture);
    return 0;
}

static struct peer_addr addr_of(unsigned number)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff}, .port = 65002};
    store_be32(addr.ip + 12, number);
    return addr;
}

static struct blob_key key_of(unsigned number)
{
    struct blob_key key = {{0}};
    store_be32(key.bytes, number);
    return key;
}

static int put_with(struct fixture *fixture, unsigned key, unsigned by, uint64_t sequence,
                    uint64_t ttl_us)
{
    struct dht_announcement announcement = {.key = key_of(key),
                                            .addr = addr_of(by),
                                            .topology = &nowhere,
                                            .completeness = 255,
                                            .sequence = sequence,
                                            .ttl_us = ttl_us};
    uint64_t kept;
    return dht__store_put(&fixture->store, 0, &announcement, &kept);
}

static int put(struct fixture *fixture, unsigned key, unsigned by)
{
    return put_with(fixture, key, by, 1, 900 * S);
}

static size_t sample_at(struct fixture *fixture, uint64_t now_us, unsigned key,
                        struct dht_record_view *out, size_t max)
{
    struct blob_key wanted = key_of(key);
    struct peer_addr nobody = addr_of(UINT32_MAX);
    struct dht_sample sample = {&wanted, &nowhere, &nobody};
    return dht__store_sample(&fixture->store, now_us, &sample, out, max);
}

static size_t count_at(struct fixture *fixture, uint64_t now_us, unsigned key)
{
    struct dht_record_view out[DHT_PROVIDERS_MAX];
    return sample_at(fixture, now_us, key, out, DHT_PROVIDERS_MAX);
}

static void records_end_with_their_lifetime(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(put_with(fixture, 1, 1, 1, 10 * S), 0);
    assert_int_equal(put_with(fixture, 1, 2, 1, 20 * S), 0);
    assert_int_equal(count_at(fixture, 10 * S - 1, 1), 2);
    assert_int_equal(count_at(fixture, 10 * S, 1), 1);
    assert_int_equal(fixture->store.record_count, 2); /* still in memory */
    dht__store_sweep(&fixture->store, 10 * S, 100);
    assert_int_equal(fixture->store.record_count, 1);
    dht__store_sweep(&fixture->store, 20 * S, 100);
    assert_int_equal(dht__store_keys(&fixture->store), 0);
    assert_int_equal(fixture->store.bytes, 0);
}

static void lifetimes_are_cut_to_half_an_hour_DHT_4_DHT_7(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(put_with(fixture, 1, 1, 1, UINT64_MAX), 0);
    assert_int_equal(count_at(fixture, 1800 * S - 1, 1), 1);
    assert_int_equal(count_at(fixture, 1800 * S, 1), 0);
}

static void sequence_numbers_only_grow(void **state)
{
    struct fixture *fixture = *state;
    struct dht_announcement announcement = {.key = key_of(1),
                                            .addr = addr_of(1),
                                            .topology = &nowhere,
                                            .completeness = 10,
                                            .sequence = 5,
                                            .ttl_us = 100 * S};
    struct dht_record_view view;
    uint64_t kept = 0;
    assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), 0);
    announcement.sequence = 4;
    announcement.completeness = 99;
    assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), E_REPLAY);
    assert_true(kept == 5);
    assert_int_equal(sample_at(fixture, 0, 1, &view, 1), 1);
    assert_int_equal(view.completeness, 10);
    announcement.sequence = 5; /* a repetition of the same message is fine */
    assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), 0);
    announcement.sequence = 4;
    announcement.ttl_us = 0; /* an old withdrawal is not */
    assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), E_REPLAY);
    announcement.sequence = 6;
    assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), 0);
    assert_int_equal(fixture->store.record_count, 0);
    assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), 0); /* idle */
}

static void at_most_64_per_key_DHT_4(void **state)
{
    struct fixture *fixture = *state;
    unsigned full = 0, late = 0;
    for (unsigned by = 0; by < 2000; by++) {
        int err = put(fixture, 1, by);
        assert_true(err == 0 || err == E_FULL);
        full += err == E_FULL;
    }
    struct dht_record_view out[DHT_PROVIDERS_MAX];
    assert_int_equal(sample_at(fixture, 0, 1, out, DHT_PROVIDERS_MAX), 64);
    for (unsigned i = 0; i < 64; i++)
        late += load_be32(out[i].addr.ip + 12) >= 1000;
    /* A reservoir: those who came late are kept as often as those who came early. */
    assert_true(full > 1000 && late > 16 && late < 48);
    assert_int_equal(fixture->store.record_count, 64);
}

static void complete_providers_displace_others(void **state)
{
    struct fixture *fixture = *state;
    struct dht_record_view out[DHT_PROVIDERS_MAX];
    uint64_t kept;
    for (unsigned by = 0; by < 64; by++) {
        struct dht_announcement announcement = {.key = key_of(1),
                                                .addr = addr_of(by),
                                                .topology = &nowhere,
                                                .completeness = 3,
                                                .ttl_us = 100 * S};
        assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), 0);
    }
    for (unsigned by = 100; by < 164; by++)
        assert_int_equal(put(fixture, 1, by), 0);
    assert_int_equal(sample_at(fixture, 0, 1, out, DHT_PROVIDERS_MAX), 64);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(out[i].completeness, 255);
    struct dht_announcement beginner = {.key = key_of(1),
                                        .addr = addr_of(999),
                                        .topology = &nowhere,
                                        .completeness = 254,
                                        .ttl_us = 100 * S};
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(dht__store_put(&fixture->store, 0, &beginner, &kept), E_FULL);
}

static void expired_records_make_room(void **state)
{
    struct fixture *fixture = *state;
    struct dht_announcement announcement = {
        .key = key_of(1), .addr = addr_of(999), .topology = &nowhere, .ttl_us = 100 * S};
    uint64_t kept;
    for (unsigned by = 0; by < 64; by++)
        assert_int_equal(put_with(fixture, 1, by, 1, 10 * S), 0);
    assert_int_equal(dht__store_put(&fixture->store, 10 * S, &announcement, &kept), 0);
    assert_int_equal(fixture->store.record_count, 1);
}

static void at_most_2048_per_announcer_DHT_4(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned key = 0; key < 2048; key++)
        assert_int_equal(put(fixture, key, 1), 0);
    assert_int_equal(put(fixture, 5000, 1), E_FULL);
    assert_int_equal(dht__store_keys(&fixture->store), 2048); /* no empty key is left behind */
    assert_int_equal(put(fixture, 5, 1), 0);                  /* renewing still works */
    assert_int_equal(put(fixture, 5000, 2), 0);               /* others are not affected */
    struct peer_addr announcer = addr_of(1);
    dht__store_drop(&fixture->store, &announcer);
    assert_int_equal(fixture->store.record_count, 1);
    dht__store_drop(&fixture->store, &announcer); /* nothing left: fine */
}

static void memory_is_bounded_DHT_4(void **state)
{
    struct fixture *fixture = *state;
    int err = 0;
    unsigned by = 0;
    assert_int_equal(fixture->store.bytes_max, 64 << 20);
    fixture->store.bytes_max = 256 << 10;
    for (; err == 0; by++) {
        for (unsigned key = 0; key < 100 && err == 0; key++)
            err = put(fixture, by * 100 + key, by);
        assert_true(fixture->store.bytes <= fixture->store.bytes_max);
    }
    assert_int_equal(err, E_FULL);
    assert_true(fixture->store.record_count > 500);
    dht__store_check(&fixture->store);
    dht__store_sweep(&fixture->store, 3600 * S, 100000);
    assert_int_equal(fixture->store.bytes, 0);
    assert_int_equal(put(fixture, 1, 1), 0);
}

static void a_sweep_is_bounded_and_comes_around(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned key = 0; key < 100; key++)
        assert_int_equal(put_with(fixture, key, key % 7, 1, key < 50 ? 1 * S : 500 * S), 0);
    dht__store_sweep(&fixture->store, 2 * S, 30);
    assert_int_equal(dht__store_keys(&fixture->store), 70);
    struct peer_addr announcer = addr_of(3);
    dht__store_drop(&fixture->store, &announcer); /* may remove where the sweep stands */
    for (unsigned i = 0; i < 10; i++)
        dht__store_sweep(&fixture->store, 2 * S, 30);
    assert_int_equal(dht__store_keys(&fixture->store), 43); /* 50 less the announcer's seven */
}

static void samples_prefer_near_and_complete_and_are_random_DHT_4(void **state)
{
    struct fixture *fixture = *state;
    struct topology near = {0}, far = {0};
    unsigned near_seen = 0, complete_seen = 0, distinct = 0;
    bool seen[64] = {false};
    snprintf(near.zone.text, sizeof near.zone.text, "zone-a");
    snprintf(near.vswitch.text, sizeof near.vswitch.text, "vsw-1");
    snprintf(far.zone.text, sizeof far.zone.text, "zone-b");
    for (unsigned by = 0; by < 64; by++) {
        struct dht_announcement announcement = {.key = key_of(1),
                                                .addr = addr_of(by),
                                                .topology = by < 16 ? &near : &far,
                                                .completeness = by % 2 ? 255 : 10,
                                                .ttl_us = 100 * S};
        uint64_t kept;
        assert_int_equal(dht__store_put(&fixture->store, 0, &announcement, &kept), 0);
    }
    struct blob_key key = key_of(1);
    struct peer_addr skip = addr_of(1);
    struct dht_sample sample = {&key, &near, &skip};
    for (unsigned round = 0; round < 1000; round++) {
        struct dht_record_view out[8];
        assert_int_equal(dht__store_sample(&fixture->store, 0, &sample, out, 8), 8);
        for (unsigned i = 0; i < 8; i++) {
            unsigned by = load_be32(out[i].addr.ip + 12);
            assert_int_not_equal(by, 1); /* the asker knows about itself */
            near_seen += by < 16;
            complete_seen += out[i].completeness == 255;
            distinct += !seen[by];
            seen[by] = true;
            for (unsigned j = 0; j < i; j++)
                assert_false(peer_addr_equal(&out[i].addr, &out[j].addr));
        }
    }
    assert_true(near_seen > 8000 * 6 / 10);     /* a quarter of them is near */
    assert_true(complete_seen > 8000 * 6 / 10); /* half of them is complete */
    assert_int_equal(distinct, 63);             /* but everybody has a chance */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(records_end_with_their_lifetime),
        TEST(lifetimes_are_cut_to_half_an_hour_DHT_4_DHT_7),
        TEST(sequence_numbers_only_grow),
        TEST(at_most_64_per_key_DHT_4),
        TEST(complete_providers_displace_others),
        TEST(expired_records_make_room),
        TEST(at_most_2048_per_announcer_DHT_4),
        TEST(memory_is_bounded_DHT_4),
        TEST(a_sweep_is_bounded_and_comes_around),
        TEST(samples_prefer_near_and_complete_and_are_random_DHT_4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
