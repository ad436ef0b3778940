/* SPDX-License-Identifier: Apache-2.0 */
/* One DHT core against a scripted host: answers, matching, lookups, members, time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "dht_host.h"

struct fixture {
    struct host *host;
    struct dht *dht;
    uint64_t now_us;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct dht_config config = host_config();
    assert_non_null(fixture);
    fixture->host = host_new();
    fixture->dht = host_dht(fixture->host, &config);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    host_close(fixture->host, fixture->dht);
    free(fixture);
    return 0;
}

/* ---- sending to the core ---- */

static int receive(struct fixture *fixture, unsigned from, const uint8_t *msg, size_t msg_bytes)
{
    struct dht_contact contact = contact_of(from);
    return dht_receive(fixture->dht, fixture->now_us, &contact.addr, msg, msg_bytes);
}

static int send_ping(struct fixture *fixture, unsigned from, size_t pad_to, size_t *msg_bytes)
{
    uint8_t msg[MESSAGE_BYTES_MAX];
    struct wire_dht_ping ping = {.request_id = 0x1122334455667788u, .pad_to = pad_to};
    assert_int_equal(wire_dht_encode_ping(&ping, false, msg, sizeof msg, msg_bytes), 0);
    return receive(fixture, from, msg, *msg_bytes);
}

static int send_find(struct fixture *fixture, unsigned from, const struct blob_key *key,
                     size_t pad_to, size_t *msg_bytes)
{
    uint8_t msg[MESSAGE_BYTES_MAX];
    struct wire_dht_find find = {
        .request_id = UINT64_MAX, .nodes_max = WIRE_DHT_NODES_MAX, .pad_to = pad_to};
    memcpy(find.key, key->bytes, sizeof find.key);
    assert_int_equal(wire_dht_encode_find(&find, true, msg, sizeof msg, msg_bytes), 0);
    return receive(fixture, from, msg, *msg_bytes);
}

static int send_add(struct fixture *fixture, unsigned from, const struct blob_key *key,
                    const struct wire_dht_add *fields)
{
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used;
    struct wire_dht_add add = *fields;
    add.request_id = 77;
    memcpy(add.key, key->bytes, sizeof add.key);
    assert_int_equal(wire_dht_encode_add(&add, msg, sizeof msg, &used), 0);
    return receive(fixture, from, msg, used);
}

/* Makes a node known: it asks, is pinged back, and answers. */
static void introduce(struct fixture *fixture, unsigned number)
{
    size_t msg_bytes;
    uint8_t msg[MESSAGE_BYTES_MAX];
    struct wire_dht_ping ping;
    fixture->host->sent_count = 0;
    assert_int_equal(send_ping(fixture, number, 40, &msg_bytes), 0);
    if (fixture->host->sent_count == 1)
        return; /* its bucket is full */
    assert_int_equal(fixture->host->sent_count, 2);
    const struct host_sent *back = &fixture->host->sent[1];
    assert_int_equal(wire_dht_decode_ping(back->msg, back->msg_bytes, &ping), 0);
    assert_int_equal(wire_dht_encode_ping(&ping, true, msg, sizeof msg, &msg_bytes), 0);
    assert_int_equal(receive(fixture, number, msg, msg_bytes), 0);
    fixture->host->sent_count = 0;
}

static uint32_t contacts(const struct fixture *fixture)
{
    struct dht_stats stats;
    dht_stats(fixture->dht, &stats);
    return stats.contacts;
}

static size_t bytes_to(const struct host *host, unsigned number)
{
    size_t bytes = 0;
    struct dht_contact contact = contact_of(number);
    for (size_t i = 0; i < host->sent_count; i++) {
        if (peer_addr_equal(&host->sent[i].to, &contact.addr))
            bytes += host->sent[i].msg_bytes;
    }
    return bytes;
}

/* ---- life ---- */

static int try_config(struct dht_config config)
{
    struct host *host = host_new();
    struct env env = host_env(host);
    struct dht *dht = NULL;
    int err = dht_new(&env, &config, 0, &dht);
    if (err == 0)
        dht_free(dht);
    assert_int_equal(host->blocks, 0);
    free(host->sent);
    free(host);
    return err;
}

static void configuration_is_checked(void **state)
{
    (void)state;
    struct dht_config good = host_config(), bad;
    char long_id[300];
    memset(long_id, 'x', sizeof long_id);
    long_id[sizeof long_id - 1] = '\0';
    assert_int_equal(try_config(good), 0);
    bad = good, bad.cluster_id = NULL;
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.cluster_id = long_id;
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.cluster_id = "another"; /* then the id is not that of the address (PEER-4) */
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.k = 33;
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.alpha = 9;
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.paths = 5;
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.request_timeout_us = 61 * S;
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.record_ttl_us = 1801 * S; /* DHT-4 */
    assert_int_equal(try_config(bad), E_INVALID);
    bad = good, bad.record_ttl_us = S - 1;
    assert_int_equal(try_config(bad), E_INVALID);
    dht_free(NULL);
}

static void an_idle_core_waits_for_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct dht_result result;
    assert_true(dht_deadline_us(fixture->dht) == UINT64_MAX);
    dht_advance(fixture->dht, 100 * S);
    assert_false(dht_next_result(fixture->dht, &result));
    assert_int_equal(fixture->host->sent_count, 0);
}

/* ---- answers ---- */

static void asking_puts_nobody_into_the_table_DHT_5(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    static struct wire_dht_found found;
    size_t msg_bytes;
    for (unsigned i = 1; i <= 10; i++)
        assert_int_equal(send_find(fixture, i, &key, 512, &msg_bytes), 0);
    assert_int_equal(contacts(fixture), 0);
    for (size_t i = 0; i < fixture->host->sent_count; i++) {
        const struct host_sent *sent = &fixture->host->sent[i];
        if (type_of(sent) != WIRE_DHT_FOUND)
            continue;
        assert_int_equal(wire_dht_decode_found(sent->msg, sent->msg_bytes, &found), 0);
        assert_int_equal(found.node_count, 0); /* none of the ten is passed on */
    }
    introduce(fixture, 20);
    assert_int_equal(contacts(fixture), 1);
    assert_int_equal(send_find(fixture, 1, &key, 512, &msg_bytes), 0);
    assert_int_equal(
        wire_dht_decode_found(fixture->host->sent[0].msg, fixture->host->sent[0].msg_bytes, &found),
        0);
    assert_int_equal(found.node_count, 1);
    fixture->host->sent_count = 0;
    assert_int_equal(send_find(fixture, 20, &key, 512, &msg_bytes), 0);
    assert_int_equal(
        wire_dht_decode_found(fixture->host->sent[0].msg, fixture->host->sent[0].msg_bytes, &found),
        0);
    assert_int_equal(found.node_count, 0); /* it knows itself */
}

static void a_ping_back_that_stays_unanswered_changes_nothing_DHT_5(void **state)
{
    struct fixture *fixture = *state;
    size_t msg_bytes;
    assert_int_equal(send_ping(fixture, 1, 40, &msg_bytes), 0);
    assert_int_equal(fixture->host->sent_count, 2);
    assert_int_equal(send_ping(fixture, 1, 40, &msg_bytes), 0);
    assert_int_equal(fixture->host->sent_count, 3); /* one ping back at a time */
    run_until(fixture->dht, &fixture->now_us, 10 * S);
    assert_int_equal(fixture->host->sent_count, 3); /* and no repetition */
    assert_int_equal(contacts(fixture), 0);
}

static void answers_to_unproven_addresses_are_never_larger_DHT_2(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    for (unsigned i = 200; i < 220; i++)
        introduce(fixture, i);
    for (unsigned i = 100; i < 164; i++) { /* a full key with many labels */
        struct wire_dht_add add = {
            .addr = contact_of(i).addr, .completeness = 255, .ttl_ms = 900000};
        snprintf(add.topology.zone.text, sizeof add.topology.zone.text, "zone-%u", i % 9);
        assert_int_equal(send_add(fixture, i, &key, &add), 0);
    }
    for (size_t pad_to = 50; pad_to <= MESSAGE_BYTES_MAX; pad_to += 9) {
        size_t msg_bytes;
        unsigned from = 1000 + (unsigned)pad_to;
        fixture->now_us += 600 * MS; /* so that pings back end and more are possible */
        dht_advance(fixture->dht, fixture->now_us);
        fixture->host->sent_count = 0;
        int err = send_find(fixture, from, &key, pad_to, &msg_bytes);
        assert_true(err == 0 || (err == E_REFUSED && msg_bytes < 80));
        assert_true(bytes_to(fixture->host, from) <= msg_bytes);
        if (err != 0)
            assert_int_equal(fixture->host->sent_count, 0);
        fixture->host->sent_count = 0;
        assert_int_equal(send_ping(fixture, from, pad_to, &msg_bytes), 0);
        assert_true(bytes_to(fixture->host, from) <= msg_bytes);
        fixture->host->sent_count = 0;
        assert_int_equal(send_ping(fixture, 5000 + from, 0, &msg_bytes), 0); /* bare */
        assert_int_equal(bytes_to(fixture->host, 5000 + from), msg_bytes);
        fixture->host->sent_count = 0;
        struct wire_dht_add add = {.addr = contact_of(from).addr, .ttl_ms = 1000};
        uint8_t msg[MESSAGE_BYTES_MAX];
        assert_int_equal(wire_dht_encode_add(&add, msg, sizeof msg, &msg_bytes), 0);
        assert_int_equal(receive(fixture, from, msg, msg_bytes), 0);
        assert_true(bytes_to(fixture->host, from) <= msg_bytes);
    }
    static struct wire_dht_found found; /* what a lookup sends gets a useful answer */
    size_t msg_bytes;
    fixture->host->sent_count = 0;
    assert_int_equal(send_find(fixture, 999, &key, 512, &msg_bytes), 0);
    assert_int_equal(
        wire_dht_decode_found(fixture->host->sent[0].msg, fixture->host->sent[0].msg_bytes, &found),
        0);
    assert_true(found.provider_count >= 12 && found.node_count >= 4);
}

static void answers_to_proven_addresses_are_at_most_threefold_DHT_2(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    bool larger = false;
    introduce(fixture, 1);
    for (unsigned i = 100; i < 164; i++) {
        struct wire_dht_add add = {
            .addr = contact_of(i).addr, .completeness = 255, .ttl_ms = 900000};
        assert_int_equal(send_add(fixture, i, &key, &add), 0);
    }
    for (size_t pad_to = 50; pad_to <= 512; pad_to += 9) {
        size_t msg_bytes;
        fixture->host->sent_count = 0;
        assert_int_equal(send_find(fixture, 1, &key, pad_to, &msg_bytes), 0);
        assert_int_equal(fixture->host->sent_count, 1);
        assert_true(bytes_to(fixture->host, 1) <= 3 * msg_bytes);
        larger = larger || bytes_to(fixture->host, 1) > msg_bytes;
    }
    assert_true(larger);
}

/* Who has a sparse table but knows all members leads others to the right place. */
static void an_answer_names_the_nearest_members(void **state)
{
    struct fixture *fixture = *state;
    static struct wire_dht_found found;
    struct blob_key key = key_of(1);
    unsigned nearest[100];
    size_t msg_bytes;
    by_distance(&key, nearest, 100);
    introduce(fixture, nearest[99]); /* all that is in the table */
    members_up(fixture->dht, 0, 1, 100);
    assert_int_equal(send_find(fixture, 999, &key, 512, &msg_bytes), 0);
    const struct host_sent *sent = &fixture->host->sent[0];
    assert_int_equal(wire_dht_decode_found(sent->msg, sent->msg_bytes, &found), 0);
    assert_true(found.node_count >= 20);
    for (unsigned i = 0; i < 20; i++) {
        struct dht_contact expected = contact_of(nearest[i]);
        assert_true(peer_addr_equal(&found.nodes[i], &expected.addr));
    }
}

static void a_node_announces_only_itself_DHT_4(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    struct wire_dht_add add = {.addr = contact_of(2).addr, .completeness = 255, .ttl_ms = 60000};
    struct dht_stats stats;
    assert_int_equal(send_add(fixture, 1, &key, &add), E_REFUSED);
    assert_int_equal(fixture->host->sent_count, 0);
    assert_int_equal(send_add(fixture, 2, &key, &add), 0);
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.records, 1);
    assert_int_equal(stats.rejected, 1);
    struct wire_dht_added added;
    const struct host_sent *sent = &fixture->host->sent[0];
    assert_int_equal(wire_dht_decode_added(sent->msg, sent->msg_bytes, &added), 0);
    assert_int_equal(added.status, WIRE_DHT_STORED);
    add.sequence = 9;
    assert_int_equal(send_add(fixture, 2, &key, &add), 0);
    add.sequence = 8;
    fixture->host->sent_count = 0;
    assert_int_equal(send_add(fixture, 2, &key, &add), 0);
    assert_int_equal(wire_dht_decode_added(sent->msg, sent->msg_bytes, &added), 0);
    assert_int_equal(added.status, WIRE_DHT_STALE);
    assert_true(added.sequence == 9);
    /* Expired records leave memory by themselves. */
    run_until(fixture->dht, &fixture->now_us, 120 * S);
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.records, 0);
}

static void bad_messages_are_counted_and_refused(void **state)
{
    struct fixture *fixture = *state;
    uint8_t msg[MESSAGE_BYTES_MAX + 1] = {0};
    struct wire_writer writer;
    struct dht_stats stats;
    size_t used;
    assert_int_equal(receive(fixture, 1, msg, 0), E_TRUNCATED);
    assert_int_equal(receive(fixture, 1, msg, sizeof msg), E_TOO_LARGE);
    assert_int_equal(receive(fixture, 1, msg, 1), E_MALFORMED);
    wire_writer_begin(&writer, msg, sizeof msg, WIRE_DHT_LAST, 0);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(receive(fixture, 1, msg, used), E_NOT_FOUND);
    assert_int_equal(receive(fixture, 0, msg, used), E_REFUSED); /* our own address */
    for (unsigned type = WIRE_DHT_PING; type <= WIRE_DHT_ADDED; type++) {
        wire_writer_begin(&writer, msg, sizeof msg, type, 1);
        wire_put_text(&writer, "?");
        assert_int_equal(wire_writer_end(&writer, &used), 0);
        assert_int_equal(receive(fixture, 1, msg, used), E_MALFORMED);
    }
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.rejected, 12);
    assert_int_equal(fixture->host->sent_count, 0);
}

/* ---- lookups ---- */

static struct dht_result result;

/* The one result of a lookup; none may follow. */
static void expect_result(struct fixture *fixture, uint64_t id, int status)
{
    static struct dht_result another;
    assert_true(dht_next_result(fixture->dht, &result));
    assert_true(result.lookup_id == id);
    assert_int_equal(result.status, status);
    assert_false(dht_next_result(fixture->dht, &another));
}

static void a_lookup_among_nobody_finds_nothing_at_once(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    uint64_t id;
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    expect_result(fixture, id, E_NOT_FOUND);
    assert_int_equal(result.hops, 0);
    assert_int_equal(result.messages, 0);
}

static void records_at_home_answer_without_a_message(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    struct wire_dht_add add = {.addr = contact_of(2).addr, .completeness = 9, .ttl_ms = 60000};
    uint64_t id;
    assert_int_equal(send_add(fixture, 2, &key, &add), 0);
    fixture->host->sent_count = 0;
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    expect_result(fixture, id, 0);
    assert_int_equal(result.hops, 0);
    assert_int_equal(result.provider_count, 1);
    assert_int_equal(result.providers[0].completeness, 9);
    struct dht_contact provider = contact_of(2);
    assert_true(node_id_equal(&result.providers[0].contact.id, &provider.id));
    assert_int_equal(fixture->host->sent_count, 0);
}

static void one_hop_asks_the_nearest_members(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    unsigned nearest[50];
    const unsigned providers[] = {7, 0, 8}; /* 0 is ourselves: not a find */
    uint64_t id;
    members_up(fixture->dht, 0, 1, 50);
    by_distance(&key, nearest, 50);
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    assert_int_equal(fixture->host->sent_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        struct dht_contact expected = contact_of(nearest[i]);
        assert_true(peer_addr_equal(&fixture->host->sent[i].to, &expected.addr));
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(answer_find(fixture->dht, 1 * MS, &fixture->host->sent[i], providers, 3),
                         0);
    expect_result(fixture, id, 0);
    assert_int_equal(result.hops, 1);
    assert_int_equal(result.messages, 3);
    assert_int_equal(result.provider_count, 2);
    assert_int_equal(result.closest_count, 3);
    struct dht_contact expected = contact_of(nearest[0]);
    assert_true(node_id_equal(&result.closest[0].id, &expected.id));
    assert_int_equal(contacts(fixture), 3);
    dht_advance(fixture->dht, 100 * S);
}

static void answers_match_by_id_address_and_key_DHT_3(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1), other = key_of(2);
    uint8_t msg[MESSAGE_BYTES_MAX];
    struct wire_dht_find find;
    static struct wire_dht_found found;
    size_t used;
    uint64_t id;
    members_up(fixture->dht, 0, 1, 1);
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    host_find(&fixture->host->sent[0], &find);
    found.request_id = find.request_id ^ 1ULL << 60; /* other id */
    memcpy(found.key, find.key, sizeof found.key);
    assert_int_equal(wire_dht_encode_found(&found, msg, sizeof msg, &used), 0);
    assert_int_equal(receive(fixture, 1, msg, used), E_REFUSED);
    found.request_id = find.request_id ^ 0xfff; /* a slot that is not there */
    assert_int_equal(wire_dht_encode_found(&found, msg, sizeof msg, &used), 0);
    assert_int_equal(receive(fixture, 1, msg, used), E_REFUSED);
    found.request_id = find.request_id;
    memcpy(found.key, other.bytes, sizeof found.key); /* other key */
    assert_int_equal(wire_dht_encode_found(&found, msg, sizeof msg, &used), 0);
    assert_int_equal(receive(fixture, 1, msg, used), E_REFUSED);
    memcpy(found.key, find.key, sizeof found.key);
    assert_int_equal(wire_dht_encode_found(&found, msg, sizeof msg, &used), 0);
    assert_int_equal(receive(fixture, 2, msg, used), E_REFUSED); /* other address */
    struct wire_dht_ping pong = {.request_id = find.request_id}; /* other type */
    struct wire_dht_added added = {.request_id = find.request_id};
    uint8_t wrong[MESSAGE_BYTES_MAX];
    size_t wrong_bytes;
    assert_int_equal(wire_dht_encode_ping(&pong, true, wrong, sizeof wrong, &wrong_bytes), 0);
    assert_int_equal(receive(fixture, 1, wrong, wrong_bytes), E_REFUSED);
    memcpy(added.key, find.key, sizeof added.key);
    assert_int_equal(wire_dht_encode_added(&added, wrong, sizeof wrong, &wrong_bytes), 0);
    assert_int_equal(receive(fixture, 1, wrong, wrong_bytes), E_REFUSED);
    assert_false(dht_next_result(fixture->dht, &result));
    assert_int_equal(contacts(fixture), 0);
    assert_int_equal(receive(fixture, 1, msg, used), 0);
    assert_int_equal(receive(fixture, 1, msg, used), E_REFUSED); /* twice */
    expect_result(fixture, id, E_NOT_FOUND);
    assert_int_equal(contacts(fixture), 1);
}

static void silence_is_repeated_once_then_a_timeout(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    struct dht_stats stats;
    uint64_t id;
    members_up(fixture->dht, 0, 1, 2);
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    assert_int_equal(fixture->host->sent_count, 2);
    run_until(fixture->dht, &fixture->now_us, 499 * MS);
    assert_int_equal(fixture->host->sent_count, 2);
    run_until(fixture->dht, &fixture->now_us, 999 * MS);
    assert_int_equal(fixture->host->sent_count, 4);
    assert_false(dht_next_result(fixture->dht, &result));
    run_until(fixture->dht, &fixture->now_us, 1000 * MS);
    expect_result(fixture, id, E_TIMEOUT);
    assert_int_equal(result.closest_count, 0);
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.timeouts, 4);
    assert_int_equal(stats.lookups, 1);
    assert_int_equal(stats.lookups_found, 0);
}

static void a_late_node_does_not_hold_up_the_lookup(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    const unsigned providers[] = {7};
    uint64_t id;
    members_up(fixture->dht, 0, 1, 30);
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    assert_int_equal(answer_find(fixture->dht, 1 * MS, &fixture->host->sent[1], providers, 1), 0);
    assert_int_equal(answer_find(fixture->dht, 1 * MS, &fixture->host->sent[2], providers, 1), 0);
    assert_int_equal(fixture->host->sent_count, 3);
    run_until(fixture->dht, &fixture->now_us, 70 * MS);
    assert_int_equal(fixture->host->sent_count, 4);
    assert_int_equal(answer_find(fixture->dht, 71 * MS, &fixture->host->sent[3], providers, 1), 0);
    expect_result(fixture, id, 0);
    /* The late answer still proves its node. */
    assert_int_equal(answer_find(fixture->dht, 400 * MS, &fixture->host->sent[0], providers, 1), 0);
    assert_int_equal(contacts(fixture), 4);
}

/* If the other nearest nodes have not heard of the providers that one names, more are asked. */
static void one_witness_does_not_end_a_lookup_P_7(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    const unsigned providers[] = {40, 41, 42, 43, 44, 45, 46, 47, 48};
    uint64_t id;
    members_up(fixture->dht, 0, 1, 30);
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    for (size_t i = 0; i < fixture->host->sent_count; i++)
        assert_int_equal(
            answer_find(fixture->dht, 1 * MS, &fixture->host->sent[i], providers, i == 0 ? 9 : 0),
            0);
    expect_result(fixture, id, 0);
    assert_int_equal(result.messages, 8);
    assert_int_equal(result.provider_count, 9);
}

static void a_dead_member_is_given_up_at_once(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    unsigned nearest[30];
    uint64_t id;
    members_up(fixture->dht, 0, 1, 30);
    by_distance(&key, nearest, 30);
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    struct dht_contact waiting = contact_of(nearest[3]), asked = contact_of(nearest[0]);
    dht_member_down(fixture->dht, 1 * MS, &waiting.id);
    dht_member_down(fixture->dht, 1 * MS, &asked.id);
    dht_member_down(fixture->dht, 1 * MS, &asked.id); /* twice: nothing happens */
    assert_int_equal(fixture->host->sent_count, 4);
    struct dht_contact expected = contact_of(nearest[4]);
    assert_true(peer_addr_equal(&fixture->host->sent[3].to, &expected.addr));
    dht__check_invariants(fixture->dht);
}

static void down_removes_records_and_contacts(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    struct wire_dht_add add = {.addr = contact_of(5).addr, .ttl_ms = 60000};
    struct dht_contact contact = contact_of(5), stranger = contact_of(6);
    struct dht_stats stats;
    introduce(fixture, 5);
    assert_int_equal(send_add(fixture, 5, &key, &add), 0);
    dht_member_down(fixture->dht, 0, &stranger.id);
    assert_int_equal(contacts(fixture), 1);
    contact.id.bytes[31] ^= 1; /* same 64 bits, other node */
    dht_member_down(fixture->dht, 0, &contact.id);
    assert_int_equal(contacts(fixture), 1);
    contact = contact_of(5);
    dht_member_down(fixture->dht, 0, &contact.id);
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.contacts, 0);
    assert_int_equal(stats.records, 0);
}

static void members_must_be_who_they_are_PEER_4(void **state)
{
    struct fixture *fixture = *state;
    struct dht_contact contact = contact_of(1);
    contact.id.bytes[31] ^= 1;
    assert_int_equal(dht_member_up(fixture->dht, 0, &contact), E_INVALID);
    contact = contact_of(1);
    contact.addr.port = 0;
    node_id_of(host_cluster, &contact.addr, &contact.id);
    assert_int_equal(dht_member_up(fixture->dht, 0, &contact), E_INVALID);
    contact = contact_of(0); /* ourselves */
    assert_int_equal(dht_member_up(fixture->dht, 0, &contact), 0);
    struct blob_key key = key_of(1);
    uint64_t id;
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    expect_result(fixture, id, E_NOT_FOUND); /* nobody to ask */
}

static void lookups_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    uint64_t id;
    members_up(fixture->dht, 0, 1, 100);
    for (unsigned i = 0; i < 256; i++) {
        struct blob_key key = key_of(i);
        assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), 0);
    }
    struct blob_key key = key_of(256);
    assert_int_equal(dht_lookup(fixture->dht, 0, &key, &id), E_FULL);
    assert_int_equal(fixture->host->sent_count, 256 * 3);
    dht__check_invariants(fixture->dht);
    for (uint64_t now_us = 0; now_us <= 30 * S; now_us += 250 * MS) {
        dht_advance(fixture->dht, now_us); /* late calls catch up */
        fixture->host->sent_count = 0;
        dht__check_invariants(fixture->dht);
    }
    for (unsigned i = 0; i < 256; i++) {
        assert_true(dht_next_result(fixture->dht, &result));
        assert_int_equal(result.status, E_TIMEOUT);
    }
    assert_false(dht_next_result(fixture->dht, &result));
    assert_int_equal(dht_lookup(fixture->dht, 30 * S, &key, &id), 0);
}

/* A liar names ever nearer nodes, which all answer and name more: the lookup ends all the same. */
static void endless_referrals_end_DHT_9(void **state)
{
    enum { COUNT = 400 };
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    static struct wire_dht_found found;
    unsigned nearest[COUNT], next = COUNT;
    size_t answered = 0;
    uint64_t id;
    by_distance(&key, nearest, COUNT);
    for (unsigned i = 0; i < 3; i++)
        introduce(fixture, nearest[--next]);
    assert_int_equal(dht_lookup_iterative(fixture->dht, 0, &key, &id), 0);
    while (answered < fixture->host->sent_count) {
        const struct host_sent sent = fixture->host->sent[answered++];
        struct dht_contact self = contact_of(0);
        struct wire_dht_find find;
        uint8_t msg[MESSAGE_BYTES_MAX];
        size_t used;
        assert_false(peer_addr_equal(&sent.to, &self.addr));
        assert_true(sent.to.port != 0);
        host_find(&sent, &find);
        found.request_id = find.request_id;
        memcpy(found.key, find.key, sizeof found.key);
        found.nodes[0] = self.addr; /* ourselves, and nonsense: ignored */
        found.nodes[1] = contact_of(1).addr;
        found.nodes[1].port = 0;
        for (found.node_count = 2; found.node_count < 5 && next > 0; found.node_count++)
            found.nodes[found.node_count] = contact_of(nearest[--next]).addr;
        assert_int_equal(wire_dht_encode_found(&found, msg, sizeof msg, &used), 0);
        assert_int_equal(dht_receive(fixture->dht, 1 * MS, &sent.to, msg, used), 0);
    }
    expect_result(fixture, id, E_NOT_FOUND);
    assert_int_equal(result.messages, 64);
}

/* Three paths that learn of the same nodes share them out. */
static void no_node_is_asked_by_two_paths_DHT_5(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    static struct wire_dht_found found;
    uint64_t id;
    for (unsigned i = 1; i <= 9; i++)
        introduce(fixture, i);
    assert_int_equal(dht_lookup_iterative(fixture->dht, 0, &key, &id), 0);
    assert_int_equal(fixture->host->sent_count, 3);
    for (size_t i = 0; i < fixture->host->sent_count; i++) {
        const struct host_sent sent = fixture->host->sent[i];
        struct wire_dht_find find;
        uint8_t msg[MESSAGE_BYTES_MAX];
        size_t used;
        host_find(&sent, &find);
        found.request_id = find.request_id;
        memcpy(found.key, find.key, sizeof found.key);
        for (found.node_count = 0; found.node_count < 20; found.node_count++)
            found.nodes[found.node_count] = contact_of(1 + (unsigned)found.node_count).addr;
        assert_int_equal(wire_dht_encode_found(&found, msg, sizeof msg, &used), 0);
        assert_int_equal(dht_receive(fixture->dht, 1 * MS, &sent.to, msg, used), 0);
    }
    expect_result(fixture, id, E_NOT_FOUND);
    assert_true(fixture->host->sent_count >= 8); /* none was missed for being shared */
    for (size_t i = 0; i < fixture->host->sent_count; i++) {
        for (size_t j = 0; j < i; j++)
            assert_false(peer_addr_equal(&fixture->host->sent[i].to, &fixture->host->sent[j].to));
    }
}

static void a_lookup_that_takes_too_long_ends(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    uint64_t id;
    for (unsigned i = 1; i <= 60; i++)
        introduce(fixture, i);
    assert_int_equal(dht_lookup_iterative(fixture->dht, 0, &key, &id), 0);
    for (unsigned i = 0; i < 40; i++)
        run_until(fixture->dht, &fixture->now_us, fixture->now_us + 250 * MS);
    expect_result(fixture, id, E_TIMEOUT);
}

/* ---- joining and upkeep ---- */

static void bootstrap_is_retried_with_backoff_N_6(void **state)
{
    struct fixture *fixture = *state;
    struct peer_addr seeds[4] = {contact_of(1).addr, contact_of(2).addr, contact_of(1).addr,
                                 contact_of(0).addr};
    dht_bootstrap(fixture->dht, 0, seeds, 4);
    assert_int_equal(fixture->host->sent_count, 2);
    run_until(fixture->dht, &fixture->now_us, 1 * S);
    assert_int_equal(fixture->host->sent_count, 4); /* each repeated once */
    run_until(fixture->dht, &fixture->now_us, 300 * S);
    size_t tries = fixture->host->sent_count / 4;
    assert_true(tries >= 10 && tries <= 18); /* 1, 2, 4, 8, 16, 30, 30... seconds */
    assert_int_equal(sent_of(fixture->host, WIRE_DHT_FIND_NODE), fixture->host->sent_count);
    fixture->host->sent_count = 0;
    dht_bootstrap(fixture->dht, fixture->now_us, seeds, 1); /* asked again: at once */
    assert_true(fixture->host->sent_count > 0);
    assert_int_equal(answer_find(fixture->dht, fixture->now_us, &fixture->host->sent[0], NULL, 0),
                     0);
    assert_int_equal(contacts(fixture), 1);
}

static void silent_contacts_are_pinged_and_leave(void **state)
{
    struct fixture *fixture = *state;
    introduce(fixture, 1);
    run_until(fixture->dht, &fixture->now_us, 60 * S);
    assert_int_equal(fixture->host->sent_count, 0);
    run_until(fixture->dht, &fixture->now_us, 150 * S);
    assert_true(sent_of(fixture->host, WIRE_DHT_PING) >= 4); /* two rounds, each repeated */
    assert_int_equal(contacts(fixture), 0);
    fixture->host->sent_count = 0;
    run_until(fixture->dht, &fixture->now_us, 3600 * S);
    assert_int_equal(fixture->host->sent_count, 0);
}

/* Joining fills the far buckets too (Kademlia §2.3). */
static void after_joining_the_far_buckets_are_refreshed(void **state)
{
    struct fixture *fixture = *state;
    struct dht_contact self = contact_of(0);
    struct peer_addr seed = {.port = 0};
    unsigned buckets = 0;
    for (unsigned i = 1; buckets < 5; i++) { /* a neighbour five buckets deep */
        seed = contact_of(i).addr;
        buckets = xor_common_bits(self.id.bytes, contact_of(i).id.bytes);
    }
    uint64_t missing = (1ULL << buckets) - 1;
    dht_bootstrap(fixture->dht, 0, &seed, 1);
    for (size_t i = 0; i < fixture->host->sent_count; i++) {
        struct wire_dht_find find;
        const struct host_sent sent = fixture->host->sent[i];
        host_find(&sent, &find);
        missing &= ~(1ULL << (xor_common_bits(self.id.bytes, find.key) & 63));
        assert_int_equal(answer_find(fixture->dht, 1 * MS, &sent, NULL, 0), 0);
        dht_advance(fixture->dht, 1 * MS);
    }
    assert_true(missing == 0);
}

/* A newcomer answers, its bucket is full and the oldest in there was silent for long: the oldest
 * is asked first, and stays if it answers (Kademlia §2.2). */
static void ping_before_evict(void **state)
{
    struct fixture *fixture = *state;
    struct dht_contact self = contact_of(0);
    unsigned first = 0, last = 0, number = 0;
    for (unsigned count = 0; count < 21;) {
        if (xor_common_bits(self.id.bytes, contact_of(++number).id.bytes) > 0)
            continue;
        first = first == 0 ? number : first;
        last = number;
        if (++count <= 20)
            introduce(fixture, number);
    }
    struct blob_key key = key_of(1);
    uint64_t id;
    fixture->now_us = 61 * S;
    members_up(fixture->dht, fixture->now_us, last, 1);
    assert_int_equal(dht_lookup(fixture->dht, fixture->now_us, &key, &id), 0);
    const struct host_sent sent = fixture->host->sent[0];
    assert_int_equal(answer_find(fixture->dht, fixture->now_us, &sent, NULL, 0), 0);
    assert_int_equal(fixture->host->sent_count, 2);
    struct dht_contact oldest = contact_of(first);
    assert_int_equal(type_of(&fixture->host->sent[1]), WIRE_DHT_PING);
    assert_true(peer_addr_equal(&fixture->host->sent[1].to, &oldest.addr));
    assert_int_equal(contacts(fixture), 20);
}

static void buckets_are_refreshed(void **state)
{
    struct fixture *fixture = *state;
    introduce(fixture, 1);
    unsigned refreshes = 0;
    while (fixture->now_us < 2000 * S) {
        run_until(fixture->dht, &fixture->now_us, fixture->now_us + 100 * MS);
        for (size_t i = 0; i < fixture->host->sent_count; i++) {
            const struct host_sent sent = fixture->host->sent[i];
            struct wire_dht_ping ping;
            uint8_t msg[MESSAGE_BYTES_MAX];
            size_t used;
            if (type_of(&sent) == WIRE_DHT_FIND_NODE) {
                refreshes++;
                assert_int_equal(answer_find(fixture->dht, fixture->now_us, &sent, NULL, 0), 0);
                continue;
            }
            assert_int_equal(wire_dht_decode_ping(sent.msg, sent.msg_bytes, &ping), 0);
            assert_int_equal(wire_dht_encode_ping(&ping, true, msg, sizeof msg, &used), 0);
            assert_int_equal(receive(fixture, 1, msg, used), 0);
        }
        fixture->host->sent_count = 0;
    }
    assert_true(refreshes >= 2 && refreshes <= 3); /* one bucket, every 15 minutes */
}

static void a_member_is_left_to_gossip(void **state)
{
    struct fixture *fixture = *state;
    members_up(fixture->dht, 0, 1, 1);
    introduce(fixture, 1);
    run_until(fixture->dht, &fixture->now_us, 600 * S);
    assert_int_equal(sent_of(fixture->host, WIRE_DHT_PING), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration_is_checked),
        TEST(an_idle_core_waits_for_nothing),
        TEST(asking_puts_nobody_into_the_table_DHT_5),
        TEST(a_ping_back_that_stays_unanswered_changes_nothing_DHT_5),
        TEST(answers_to_unproven_addresses_are_never_larger_DHT_2),
        TEST(answers_to_proven_addresses_are_at_most_threefold_DHT_2),
        TEST(an_answer_names_the_nearest_members),
        TEST(a_node_announces_only_itself_DHT_4),
        TEST(bad_messages_are_counted_and_refused),
        TEST(a_lookup_among_nobody_finds_nothing_at_once),
        TEST(records_at_home_answer_without_a_message),
        TEST(one_hop_asks_the_nearest_members),
        TEST(answers_match_by_id_address_and_key_DHT_3),
        TEST(silence_is_repeated_once_then_a_timeout),
        TEST(a_late_node_does_not_hold_up_the_lookup),
        TEST(one_witness_does_not_end_a_lookup_P_7),
        TEST(a_dead_member_is_given_up_at_once),
        TEST(down_removes_records_and_contacts),
        TEST(members_must_be_who_they_are_PEER_4),
        TEST(lookups_are_bounded),
        TEST(endless_referrals_end_DHT_9),
        TEST(no_node_is_asked_by_two_paths_DHT_5),
        TEST(a_lookup_that_takes_too_long_ends),
        TEST(bootstrap_is_retried_with_backoff_N_6),
        TEST(silent_contacts_are_pinged_and_leave),
        TEST(after_joining_the_far_buckets_are_refreshed),
        TEST(ping_before_evict),
        TEST(buckets_are_refreshed),
        TEST(a_member_is_left_to_gossip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
