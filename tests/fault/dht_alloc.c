/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A little life of one DHT core, again and again, failing the first, second, ... allocation, once
 * and from then on, until it needs no more: no leak, no assert, invariants hold, each lookup that
 * started ends exactly once (D-9).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "../unit/dht_host.h"

#define LOOKUPS 3

static void ask(struct dht *dht, unsigned from, const struct blob_key *key)
{
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used;
    struct peer_addr addr = contact_of(from).addr;
    struct wire_dht_find find = {.request_id = from, .nodes_max = 20, .pad_to = 512};
    struct wire_dht_add add = {.request_id = from, .addr = addr, .ttl_ms = 60000};
    memcpy(find.key, key->bytes, sizeof find.key);
    memcpy(add.key, key->bytes, sizeof add.key);
    assert_int_equal(wire_dht_encode_add(&add, msg, sizeof msg, &used), 0);
    assert_int_equal(dht_receive(dht, 0, &addr, msg, used), 0);
    assert_int_equal(wire_dht_encode_find(&find, true, msg, sizeof msg, &used), 0);
    assert_int_equal(dht_receive(dht, 0, &addr, msg, used), 0);
}

/* Answers all that was sent: PING, FIND and ADD alike; answers may come for what is gone. */
static void answer_everything(struct host *host, struct dht *dht, uint64_t now_us)
{
    const unsigned providers[] = {90, 91};
    for (size_t i = 0; i < host->sent_count; i++) {
        const struct host_sent sent = host->sent[i];
        struct wire_dht_ping ping;
        uint8_t msg[MESSAGE_BYTES_MAX];
        size_t used;
        switch (type_of(&sent)) {
        case WIRE_DHT_FIND_NODE:
        case WIRE_DHT_FIND_PROVIDERS:
            (void)!answer_find(dht, now_us, &sent, providers, 2);
            break;
        case WIRE_DHT_ADD_PROVIDER:
            (void)!answer_add(dht, now_us, &sent, WIRE_DHT_STORED, 1);
            break;
        case WIRE_DHT_PING:
            assert_int_equal(wire_dht_decode_ping(sent.msg, sent.msg_bytes, &ping), 0);
            assert_int_equal(wire_dht_encode_ping(&ping, true, msg, sizeof msg, &used), 0);
            (void)!dht_receive(dht, now_us, &sent.to, msg, used);
            break;
        default:
            break;
        }
        dht__check_invariants(dht);
    }
    host->sent_count = 0;
}

static int expect_one_of(int err)
{
    assert_true(err == 0 || err == E_NO_MEMORY || err == E_FULL);
    return err;
}

/* One life; counts lookups that started and results that came. */
static void live(struct host *host, struct dht *dht, unsigned *started, unsigned *ended)
{
    static struct dht_result result;
    struct peer_addr seeds[2] = {contact_of(1).addr, contact_of(2).addr};
    uint64_t now_us = 0, id;
    for (unsigned i = 10; i < 30; i++) {
        struct blob_key key = key_of(i % 5);
        ask(dht, i, &key);
    }
    dht_bootstrap(dht, now_us, seeds, 2);
    for (unsigned i = 0; i < 10; i++) {
        struct blob_key key = key_of(i);
        (void)expect_one_of(dht_publish(dht, now_us, &key, 255));
    }
    answer_everything(host, dht, now_us);
    for (unsigned i = 1; i < 40; i++) {
        struct dht_contact contact = contact_of(i);
        (void)expect_one_of(dht_member_up(dht, now_us, &contact));
    }
    for (unsigned i = 0; i < LOOKUPS; i++) {
        struct blob_key key = key_of(100 + i);
        int err = i % 2 ? dht_lookup(dht, now_us, &key, &id)
                        : dht_lookup_iterative(dht, now_us, &key, &id);
        *started += expect_one_of(err) == 0;
    }
    for (unsigned i = 0; i < 30; i++) {
        run_until(dht, &now_us, now_us + 500 * MS);
        if (i % 3 > 0)
            answer_everything(host, dht, now_us);
        host->sent_count = 0;
    }
    struct blob_key key = key_of(3);
    dht_unpublish(dht, now_us, &key);
    struct dht_contact contact = contact_of(12);
    dht_member_down(dht, now_us, &contact.id);
    run_until(dht, &now_us, now_us + 20 * S);
    while (dht_next_result(dht, &result))
        ++*ended;
}

static void sweep(bool fail_on)
{
    size_t fail_at = 1, calls;
    do {
        struct host *host = host_new();
        struct env env = host_env(host);
        struct dht_config config = host_config();
        struct dht *dht = NULL;
        unsigned started = 0, ended = 0;
        host->fail_at = fail_at;
        host->fail_on = fail_on;
        int err = dht_new(&env, &config, 0, &dht);
        /* The core, and its own directory in two pieces. */
        assert_int_equal(err, fail_at <= 3 ? E_NO_MEMORY : 0);
        if (err == 0)
            live(host, dht, &started, &ended);
        assert_int_equal(started, ended);
        calls = host->calls;
        if (dht != NULL)
            dht__check_invariants(dht);
        dht_free(dht);
        assert_int_equal(host->blocks, 0);
        free(host->sent);
        free(host);
        fail_at++;
    } while (calls >= fail_at - 1);
    printf("figure: dht allocation failures swept=%zu\n", fail_at - 2);
    assert_true(fail_at > 50);
}

static void any_single_allocation_may_fail_D_9(void **state)
{
    (void)state;
    sweep(false);
}

static void all_allocations_may_fail_from_any_point_D_9(void **state)
{
    (void)state;
    sweep(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_single_allocation_may_fail_D_9),
        cmocka_unit_test(all_allocations_may_fail_from_any_point_D_9),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
