/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed datagrams: exchange, data, and what goes wrong on the way (DHT-1, DHT-2, DHT-3, DHT-8). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include <sodium.h>

#include "../../src/session/dgram_internal.h"
#include "digest.h"
#include "session_net.h"

#define NOW 1000000ULL
#define MS  1000ULL
#define SEC 1000000ULL

static struct node a;
static struct node b;

static struct dgram_stats stats_of(const struct node *node)
{
    struct dgram_stats stats;
    dgram_stats(node->dgram, &stats);
    return stats;
}

static int set_up(void **state)
{
    (void)state;
    return node_start(&a, 1, 1, NOW) != 0 || node_start(&b, 2, 2, NOW) != 0;
}

static int tear_down(void **state)
{
    (void)state;
    dgram__check_invariants(a.dgram);
    dgram__check_invariants(b.dgram);
    node_stop(&a);
    node_stop(&b);
    return a.world.live != 0 || b.world.live != 0;
}

static void assert_received(const struct node *node, const struct node *from, const char *text)
{
    struct node_id id;
    assert_int_equal(node->plain_bytes, strlen(text));
    assert_memory_equal(node->plain, text, strlen(text));
    node_id_of("test", &from->config.self_addr, &id);
    assert_true(node_id_equal(&node->from.id, &id));
    assert_true(peer_addr_equal(&node->from.addr, &from->config.self_addr));
    assert_memory_equal(node->from.key.bytes, from->identity.public_key.bytes, 32);
}

/* Sends text and expects it to arrive, whatever exchange it takes. */
static void pass(struct node *from, struct node *to, uint64_t now_us, const char *text)
{
    unsigned before = to->received;
    assert_int_equal(node_send(from, to, now_us, text, strlen(text)), 0);
    (void)nodes_settle(from, to, now_us);
    assert_int_equal(to->received, before + 1);
    assert_received(to, from, text);
}

/* ---- the exchange -------------------------------------------------------------------------- */

static void test_first_message_arrives_after_a_hello(void **state)
{
    (void)state;
    struct packet hello;
    struct packet ack;
    struct packet data;
    assert_int_equal(dgram_deadline_us(a.dgram), UINT64_MAX);
    assert_int_equal(node_send(&a, &b, NOW, "one", 3), 0);
    assert_true(node_take(&a, &hello));
    assert_false(node_take(&a, &data));
    assert_int_equal(dgram_deadline_us(a.dgram), NOW + 250 * MS);
    assert_int_equal(node_give(&b, NOW, &hello), 0);
    assert_true(node_take(&b, &ack));
    assert_true(ack.byte_count <= hello.byte_count); /* DHT-2 */
    assert_int_equal(node_give(&a, NOW, &ack), 0);
    assert_true(node_take(&a, &data));
    assert_int_equal(data.byte_count, 3 + DGRAM_DATA_OVERHEAD);
    assert_int_equal(node_give(&b, NOW, &data), 0);
    assert_received(&b, &a, "one");
    /* From here on, nothing but data in both directions. */
    pass(&b, &a, NOW, "two");
    pass(&a, &b, NOW, "three");
    assert_int_equal(stats_of(&a).hellos_sent, 1);
    assert_int_equal(stats_of(&b).hellos_sent, 0);
    assert_int_equal(stats_of(&a).exchanges, 1);
    assert_int_equal(stats_of(&b).exchanges, 1);
}

static void test_dht8_largest_message(void **state)
{
    (void)state;
    uint8_t msg[MESSAGE_BYTES_MAX + 1];
    struct packet packet;
    world_random(&a.world, msg, sizeof msg);
    assert_int_equal(node_send(&a, &b, NOW, msg, MESSAGE_BYTES_MAX + 1), E_TOO_LARGE);
    assert_int_equal(node_send(&a, &b, NOW, msg, 0), E_INVALID);
    assert_int_equal(node_send(&a, &a, NOW, msg, 1), E_INVALID);
    assert_int_equal(stats_of(&a).peers, 0);
    pass(&a, &b, NOW, "x");
    assert_int_equal(node_send(&a, &b, NOW, msg, MESSAGE_BYTES_MAX), 0);
    assert_true(node_take(&a, &packet));
    assert_true(packet.byte_count <= DATAGRAM_BYTES_MAX);
    assert_int_equal(node_give(&b, NOW, &packet), 0);
    assert_int_equal(b.plain_bytes, MESSAGE_BYTES_MAX);
    assert_memory_equal(b.plain, msg, MESSAGE_BYTES_MAX);
}

static void test_queue_keeps_the_newest_16(void **state)
{
    (void)state;
    for (uint8_t i = 0; i < 20; i++)
        assert_int_equal(node_send(&a, &b, NOW, &i, 1), 0);
    assert_int_equal(stats_of(&a).queue_dropped, 4);
    (void)nodes_settle(&a, &b, NOW);
    assert_int_equal(b.received, 16);
    assert_int_equal(b.plain[0], 19);
}

static void test_hello_is_tried_four_times(void **state)
{
    (void)state;
    static const uint64_t at_ms[] = {0, 250, 750, 1750, 3750};
    struct packet first;
    struct packet again;
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    assert_true(node_take(&a, &first));
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(dgram_deadline_us(a.dgram), NOW + at_ms[i] * MS);
        dgram_advance(a.dgram, NOW + at_ms[i] * MS - 1);
        assert_false(node_take(&a, &again));
        dgram_advance(a.dgram, NOW + at_ms[i] * MS);
        assert_true(node_take(&a, &again));
        assert_memory_equal(first.bytes, again.bytes, first.byte_count);
    }
    assert_int_equal(dgram_deadline_us(a.dgram), NOW + at_ms[4] * MS);
    dgram_advance(a.dgram, NOW + at_ms[4] * MS);
    assert_false(node_take(&a, &again));
    assert_int_equal(stats_of(&a).hellos_failed, 1);
    assert_int_equal(stats_of(&a).queue_dropped, 1);
    assert_int_equal(stats_of(&a).peers, 0);
    assert_int_equal(dgram_deadline_us(a.dgram), UINT64_MAX);
    /* An answer that comes now is too late, and the next message starts again. */
    assert_int_equal(node_give(&b, NOW, &first), 0);
    (void)nodes_settle(&a, &b, NOW + 4 * SEC);
    assert_int_equal(b.received, 0);
    pass(&a, &b, NOW + 5 * SEC, "y");
}

/* The ack is lost: the same hello gets the same ack, so both sides end with the same keys. */
static void test_repeated_hello_gets_the_same_ack(void **state)
{
    (void)state;
    struct packet hello;
    struct packet acks[2];
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    assert_true(node_take(&a, &hello));
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(node_give(&b, NOW + i, &hello), 0);
        assert_true(node_take(&b, &acks[i]));
    }
    assert_memory_equal(acks[0].bytes, acks[1].bytes, acks[0].byte_count);
    assert_int_equal(node_give(&a, NOW, &acks[0]), 0);
    assert_int_equal(node_give(&a, NOW, &acks[1]), E_REPLAY);
    (void)nodes_settle(&a, &b, NOW);
    assert_int_equal(b.received, 1);
    /* And once confirmed, none at all. */
    assert_int_equal(node_give(&b, NOW, &hello), 0);
    assert_false(node_take(&b, &acks[0]));
    pass(&b, &a, NOW, "y");
}

static void test_simultaneous_hellos(void **state)
{
    (void)state;
    assert_int_equal(node_send(&a, &b, NOW, "from a", 6), 0);
    assert_int_equal(node_send(&b, &a, NOW, "from b", 6), 0);
    (void)nodes_settle(&a, &b, NOW);
    assert_received(&a, &b, "from b");
    assert_received(&b, &a, "from a");
    assert_int_equal(stats_of(&a).exchanges, 1);
    assert_int_equal(stats_of(&b).exchanges, 1);
    assert_int_equal(stats_of(&a).resets_sent + stats_of(&b).resets_sent, 0);
    assert_int_equal(stats_of(&a).queue_dropped + stats_of(&b).queue_dropped, 0);
}

/* The same with two nodes on one machine, told apart by port. */
static void test_simultaneous_hellos_on_one_address(void **state)
{
    (void)state;
    b.config.self_addr = a.config.self_addr;
    for (unsigned i = 0; i < 2; i++) {
        b.config.self_addr.port = (uint16_t)(a.config.self_addr.port + 1 - 2 * i);
        assert_int_equal(node_restart(&a, NOW), 0);
        assert_int_equal(node_restart(&b, NOW), 0);
        test_simultaneous_hellos(state);
    }
}

/* As before, but the hello that counts (the lower address's) is lost. */
static void test_simultaneous_hellos_with_loss(void **state)
{
    (void)state;
    struct packet lost;
    struct packet hello;
    assert_int_equal(node_send(&a, &b, NOW, "from a", 6), 0);
    assert_int_equal(node_send(&b, &a, NOW, "from b", 6), 0);
    assert_true(node_take(&a, &lost));
    assert_true(node_take(&b, &hello));
    assert_int_equal(node_give(&a, NOW + 50 * MS, &hello), 0);
    assert_false(node_take(&a, &lost)); /* its own may still be on the way */
    assert_int_equal(node_give(&a, NOW + 150 * MS, &hello), 0);
    (void)nodes_settle(&a, &b, NOW + 150 * MS); /* said again at once, not at the next retry */
    assert_received(&a, &b, "from b");
    assert_received(&b, &a, "from a");
}

/* The answering side wants to send before it is confirmed, and the confirmation is lost. */
static void test_lost_confirmation(void **state)
{
    (void)state;
    struct packet packet;
    assert_int_equal(node_send(&a, &b, NOW, "lost", 4), 0);
    assert_true(node_take(&a, &packet));
    assert_int_equal(node_give(&b, NOW, &packet), 0);
    assert_int_equal(node_send(&b, &a, NOW, "from b", 6), 0);
    assert_true(node_take(&b, &packet)); /* the ack; no hello beside it */
    assert_int_equal(node_give(&a, NOW, &packet), 0);
    assert_false(node_take(&b, &packet));
    assert_true(node_take(&a, &packet)); /* "lost", which would have confirmed */
    dgram_advance(b.dgram, NOW + 250 * MS);
    (void)nodes_settle(&a, &b, NOW + 250 * MS);
    assert_received(&a, &b, "from b");
    pass(&a, &b, NOW + 250 * MS, "again");
    assert_int_equal(b.received, 1);
}

/* ---- outsiders, tampering, replay ---------------------------------------------------------- */

/* DHT-1, DHT-2: whoever lacks the secret gets no byte, whatever it sends. */
static void test_dht1_outsiders_get_nothing(void **state)
{
    (void)state;
    struct node outsider;
    struct packet packet;
    assert_int_equal(node_start(&outsider, 3, 3, NOW), 0);
    memset(outsider.admission.secrets[0], 8, CLUSTER_SECRET_BYTES);
    assert_int_equal(node_send(&outsider, &a, NOW, "x", 1), 0);
    assert_true(node_take(&outsider, &packet));
    assert_int_equal(node_give(&a, NOW, &packet), E_AUTH);
    for (size_t length = 0; length <= DATAGRAM_BYTES_MAX; length += 7) {
        packet.byte_count = length;
        world_random(&outsider.world, packet.bytes, length);
        assert_int_equal(node_give(&a, NOW, &packet), E_AUTH);
    }
    assert_false(node_take(&a, &packet));
    assert_int_equal(stats_of(&a).peers, 0);
    assert_int_equal(stats_of(&a).outsiders, 2 + DATAGRAM_BYTES_MAX / 7);
    assert_int_equal(a.world.allocs, 1); /* the object itself */
    node_stop(&outsider);
}

/* DHT-1: each changed byte of each kind of datagram is noticed by the first check. */
static void test_dht1_every_tampered_byte(void **state)
{
    (void)state;
    struct packet packets[4];
    struct node *to[4] = {&b, &a, &b, &a};
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    for (unsigned kind = 0; kind < 4; kind++) {
        struct packet *packet = &packets[kind];
        struct packet none;
        if (kind == 3)
            assert_int_equal(node_restart(&b, NOW), 0); /* the data then brings a reset */
        if (kind == 3)
            assert_int_equal(node_give(&b, NOW, &packets[2]), E_NOT_FOUND);
        assert_true(node_take(kind % 2 == 0 ? &a : &b, packet));
        for (size_t at = 0; at < packet->byte_count; at++) {
            packet->bytes[at] ^= 0x20;
            assert_int_equal(node_give(to[kind], NOW, packet), E_AUTH);
            packet->bytes[at] ^= 0x20;
        }
        assert_false(node_take(to[kind], &none));
        assert_int_equal(node_give(to[kind], NOW, packet), 0);
    }
    assert_int_equal(packets[3].byte_count, DGRAM_RESET_BYTES);
}

/* The secret of the given node, to put a right MAC on changed bytes as another member could. */
static void remac(const struct node *node, struct packet *packet)
{
    dgram__mac(&node->dgram->secrets.slots[0], packet->bytes, packet->byte_count);
}

/* A member that knows the cluster secret still cannot change what two others agree on or say. */
static void test_dht1_tampering_by_a_member(void **state)
{
    (void)state;
    static const unsigned kinds = 3;
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    for (unsigned kind = 0; kind < kinds; kind++) {
        struct node *from = kind % 2 == 0 ? &a : &b;
        struct node *to = kind % 2 == 0 ? &b : &a;
        struct packet packet;
        assert_true(node_take(from, &packet));
        for (size_t at = DGRAM_MAC_BYTES; at < packet.byte_count; at++) {
            struct packet changed = packet;
            struct packet answer;
            changed.bytes[at] ^= 0x20;
            remac(to, &changed);
            /* The confirmation of a hello is empty: nothing to find there. */
            if (kind == 0 && at >= packet.byte_count - DGRAM_CONFIRM_BYTES)
                continue;
            assert_int_not_equal(node_give(to, NOW, &changed), 0);
            while (node_take(to, &answer))
                assert_true(answer.byte_count < changed.byte_count); /* a reset */
        }
        assert_int_equal(to->received, 0);
        assert_int_equal(node_give(to, NOW, &packet), 0);
    }
    assert_received(&b, &a, "x");
}

static void test_truncated_and_unknown_kinds(void **state)
{
    (void)state;
    struct packet packet;
    struct packet answer;
    pass(&a, &b, NOW, "x");
    for (uint8_t kind = 0; kind < 8; kind++) {
        for (size_t length = DGRAM_MAC_BYTES; length < 60; length++) {
            memset(&packet, 0, sizeof packet);
            packet.from = a.config.self_addr;
            packet.byte_count = length;
            packet.bytes[DGRAM_MAC_BYTES] = kind;
            remac(&b, &packet);
            int err = node_give(&b, NOW, &packet);
            assert_int_not_equal(err, 0);
            if (kind == 0 || kind > DGRAM_RESET || length < DGRAM_HEADER_BYTES)
                assert_int_equal(err, E_MALFORMED);
            while (node_take(&b, &answer))
                assert_true(answer.byte_count < length);
        }
    }
    assert_int_equal(b.received, 1);
    pass(&a, &b, NOW, "y");
}

/* DHT-3: a datagram counts once; late ones count within the window. */
static void test_dht3_replays_and_reordering(void **state)
{
    (void)state;
    struct packet packets[40];
    struct packet *order[40];
    pass(&a, &b, NOW, "x");
    for (uint8_t i = 0; i < 40; i++) {
        assert_int_equal(node_send(&a, &b, NOW, &i, 1), 0);
        assert_true(node_take(&a, &packets[i]));
        order[i] = &packets[39 - i];
    }
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(node_give(&b, NOW, order[i]), 0);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(node_give(&b, NOW, order[i]), E_REPLAY);
    assert_int_equal(b.received, 41);
    assert_int_equal(stats_of(&b).replayed, 40);
    /* Echoed to its sender it is nothing either. */
    assert_int_not_equal(node_give(&a, NOW, &packets[0]), 0);
    assert_int_equal(a.received, 0);
}

/* DHT-3: a recorded hello does not disturb two nodes that talk. */
static void test_dht3_replayed_hello(void **state)
{
    (void)state;
    struct packet hello;
    struct packet packet;
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    assert_true(node_take(&a, &hello));
    assert_int_equal(node_restart(&a, NOW), 0); /* so that this exchange is never finished */
    pass(&a, &b, NOW, "one");
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(node_give(&b, NOW + i * SEC, &hello), 0);
        assert_true(node_take(&b, &packet)); /* no longer than the hello, to its true sender */
        assert_true(packet.byte_count <= hello.byte_count);
        assert_true(peer_addr_equal(&packet.to, &a.config.self_addr));
        assert_int_not_equal(node_give(&a, NOW + i * SEC, &packet), 0);
        pass(&a, &b, NOW + i * SEC, "two");
        pass(&b, &a, NOW + i * SEC, "three");
    }
    assert_int_equal(stats_of(&a).resets_received + stats_of(&b).resets_received, 0);
}

/* ---- who may talk -------------------------------------------------------------------------- */

/* PEER-4: the announced IP is where the hello comes from; and who answers is who was called. */
static void test_peer4_addresses(void **state)
{
    (void)state;
    struct packet hello;
    struct packet ack;
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    assert_true(node_take(&a, &hello));
    hello.from = world_addr(77);
    assert_int_equal(node_give(&b, NOW, &hello), E_AUTH);
    assert_false(node_take(&b, &ack));
    hello.from = a.config.self_addr;
    b.config.self_addr.port++; /* answers for another place than the one that was called */
    assert_int_equal(node_restart(&b, NOW), 0);
    assert_int_equal(node_give(&b, NOW, &hello), 0);
    assert_true(node_take(&b, &ack));
    assert_int_equal(node_give(&a, NOW, &ack), E_AUTH);
}

static void test_allow_any_ip(void **state)
{
    (void)state;
    struct packet packet;
    a.config.allow_any_ip = true;
    b.config.allow_any_ip = true;
    assert_int_equal(node_restart(&a, NOW), 0);
    assert_int_equal(node_restart(&b, NOW), 0);
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(node_take(i % 2 == 0 ? &a : &b, &packet));
        packet.from = world_addr((uint8_t)(100 + i % 2));
        assert_int_equal(node_give(i % 2 == 0 ? &b : &a, NOW, &packet), 0);
        if (i == 0) /* the answer goes where the hello came from */
            assert_int_equal(dgram__output_room(b.dgram), DGRAM_OUTPUT_MAX - 1);
    }
    assert_received(&b, &a, "x");
}

/* PEER-2: the secret does not let a member speak as another, from either end. */
static void test_peer2_identity_cannot_be_borrowed(void **state)
{
    (void)state;
    struct node victim;
    assert_int_equal(node_start(&victim, 3, 3, NOW), 0);
    a.identity.public_key = victim.identity.public_key;
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    (void)nodes_settle(&a, &b, NOW);
    assert_int_equal(stats_of(&b).refused, 1);
    assert_int_equal(node_restart(&a, NOW), 0);
    assert_int_equal(node_send(&b, &a, NOW, "x", 1), 0);
    (void)nodes_settle(&a, &b, NOW);
    assert_int_equal(stats_of(&a).acks_sent, 1);
    assert_int_equal(stats_of(&b).refused, 2);
    assert_int_equal(a.received + b.received, 0);
    node_stop(&victim);
}

/* A hello by a member, well sealed and signed, with these keys. */
static void craft_hello(struct packet *packet, const uint8_t ephemeral[32],
                        const uint8_t static_public[32])
{
    struct dgram_hello hello = {.header = {.kind = DGRAM_HELLO, .sender_index = 5}};
    uint8_t statement[12 + 32];
    memcpy(hello.ephemeral, ephemeral, 32);
    memcpy(hello.static_public, static_public, 32);
    intro__own(&a.identity, &a.config.self_addr, &hello.intro);
    memcpy(statement, "shoal static", 12);
    memcpy(statement + 12, static_public, 32);
    (void)crypto_sign_ed25519_detached(hello.intro.signature, NULL, statement, sizeof statement,
                                       a.identity.secret_key);
    packet->from = a.config.self_addr;
    packet->byte_count = DGRAM_HELLO_BYTES;
    dgram__hello_seal(&b.dgram->secrets.slots[0], &hello, packet->bytes);
    remac(&b, packet);
}

/* PEER-9: a member that offers low-order points gets no answer and leaves no state. */
static void test_peer9_zero_dh_is_refused(void **state)
{
    (void)state;
    static const uint8_t zero[32];
    struct packet packet;
    const uint8_t *good = a.identity.static_public;
    craft_hello(&packet, good, zero);
    assert_int_equal(node_give(&b, NOW, &packet), E_AUTH);
    craft_hello(&packet, zero, good);
    assert_int_equal(node_give(&b, NOW, &packet), E_AUTH);
    assert_int_equal(stats_of(&b).peers, 0);
    craft_hello(&packet, good, good);
    assert_int_equal(node_give(&b, NOW, &packet), 0);
    assert_int_equal(stats_of(&b).acks_sent, 1);
}

/* PEER-8: a denied node is refused, and one denied while it talks is dropped within 60 s. */
static void test_peer8_deny_list(void **state)
{
    (void)state;
    struct packet packet;
    pass(&a, &b, NOW, "x");
    b.admission.denied[0] = a.identity.public_key;
    b.admission.denied_count = 1;
    assert_int_equal(node_send(&a, &b, NOW + 50 * SEC, "y", 1), 0);
    assert_true(node_take(&a, &packet));
    assert_int_equal(node_give(&b, NOW + 50 * SEC, &packet), E_DENIED);
    assert_int_equal(b.received, 1);
    assert_int_equal(stats_of(&b).peers, 0);
    assert_int_equal(node_restart(&a, NOW + 51 * SEC), 0);
    assert_int_equal(node_send(&a, &b, NOW + 51 * SEC, "z", 1), 0);
    assert_true(node_take(&a, &packet));
    assert_int_equal(node_give(&b, NOW + 51 * SEC, &packet), E_DENIED);
    assert_false(node_take(&b, &packet));
    /* b's own messages to it stop too: its ack is refused. */
    assert_int_equal(node_send(&b, &a, NOW + 52 * SEC, "w", 1), 0);
    (void)nodes_settle(&a, &b, NOW + 52 * SEC);
    assert_int_equal(a.received, 0);
}

static void test_peer8_denied_while_only_we_send(void **state)
{
    (void)state;
    pass(&b, &a, NOW, "x");
    b.admission.denied[0] = a.identity.public_key;
    b.admission.denied_count = 1;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(node_send(&b, &a, NOW + (20 + i) * SEC, "y", 1), 0);
        (void)nodes_settle(&a, &b, NOW + (20 + i) * SEC);
    }
    assert_int_equal(a.received, 1);
}

static void set_secrets(struct node *node, uint8_t first, uint8_t second)
{
    memset(node->admission.secrets[0], first, CLUSTER_SECRET_BYTES);
    memset(node->admission.secrets[1], second, CLUSTER_SECRET_BYTES);
    node->admission.secret_count = second != 0 ? 2 : 1;
}

/* PEER-8: add, switch, remove, node after node, while both talk: every message arrives. */
static void test_peer8_rotation_loses_nothing(void **state)
{
    (void)state;
    static const uint8_t steps[][4] = {{7, 0, 7, 0}, {7, 9, 7, 0}, {7, 9, 7, 9}, {9, 7, 7, 9},
                                       {9, 7, 9, 7}, {9, 0, 9, 7}, {9, 0, 9, 0}};
    uint64_t now_us = NOW;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        set_secrets(&a, steps[i][0], steps[i][1]);
        set_secrets(&b, steps[i][2], steps[i][3]);
        for (unsigned turn = 0; turn < 3; turn++) {
            now_us += SEC;
            pass(&a, &b, now_us, "from a");
            pass(&b, &a, now_us, "from b");
        }
        assert_int_equal(stats_of(&a).exchanges, i < 3 ? 1 : 2); /* renewed at the switch */
    }
    /* The first switch renewed the keys; nothing else did, the second found them renewed. */
    assert_int_equal(stats_of(&a).exchanges, 1 + 1);
    assert_int_equal(stats_of(&a).queue_dropped + stats_of(&b).queue_dropped, 0);
    assert_int_equal(stats_of(&a).outsiders + stats_of(&b).outsiders, 0);
}

/* A removed secret ends what was agreed under it. */
static void test_peer8_removed_secret(void **state)
{
    (void)state;
    struct packet packet;
    pass(&a, &b, NOW, "x");
    set_secrets(&b, 9, 0);
    assert_int_equal(node_send(&a, &b, NOW, "y", 1), 0);
    assert_true(node_take(&a, &packet));
    assert_int_equal(node_give(&b, NOW, &packet), E_AUTH);
    assert_int_equal(stats_of(&b).peers, 0);
    assert_false(node_take(&b, &packet));
}

/* ---- restarts and time --------------------------------------------------------------------- */

/* A peer that lost its keys says so at the first datagram; the next but one arrives. */
static void test_restarted_peer_is_reached_at_once(void **state)
{
    (void)state;
    pass(&a, &b, NOW, "x");
    pass(&b, &a, NOW, "y");
    assert_int_equal(node_restart(&b, NOW + SEC), 0);
    b.received = 0;
    assert_int_equal(node_send(&a, &b, NOW + SEC, "lost", 4), 0);
    (void)nodes_settle(&a, &b, NOW + SEC);
    assert_int_equal(b.received, 0);
    assert_int_equal(stats_of(&a).resets_received, 1);
    pass(&a, &b, NOW + SEC, "arrives");
    pass(&b, &a, NOW + SEC, "and back");
    assert_int_equal(stats_of(&a).hellos_sent, 2);
    /* The restarted node may also be the one that speaks first. */
    assert_int_equal(node_restart(&a, NOW + 2 * SEC), 0);
    pass(&a, &b, NOW + 2 * SEC, "first");
    pass(&b, &a, NOW + 2 * SEC, "second");
}

/*
 * Crossing in time: a answered b's hello, then said hello itself, and its own came about first. A
 * late datagram under the answered one is taken but does not bring those keys back, because b has
 * left them.
 */
static void test_superseded_keys_do_not_return(void **state)
{
    (void)state;
    struct packet packet;
    struct packet late;
    assert_int_equal(node_send(&b, &a, NOW, "late", 4), 0);
    assert_true(node_take(&b, &packet));
    assert_int_equal(node_give(&a, NOW, &packet), 0);
    assert_true(node_take(&a, &packet));
    assert_int_equal(node_give(&b, NOW, &packet), 0);
    assert_true(node_take(&b, &late));
    assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
    dgram_advance(a.dgram, NOW + 250 * MS);
    (void)nodes_settle(&a, &b, NOW + 250 * MS);
    assert_received(&b, &a, "x");
    assert_int_equal(node_give(&a, NOW + 300 * MS, &late), 0);
    assert_received(&a, &b, "late");
    for (unsigned i = 0; i < 10; i++) {
        uint64_t now_us = NOW + SEC + i * SEC;
        dgram_advance(a.dgram, now_us);
        dgram_advance(b.dgram, now_us);
        pass(&a, &b, now_us, "y");
        pass(&b, &a, now_us, "z");
    }
    assert_int_equal(stats_of(&a).exchanges + stats_of(&a).resets_received, 1);
}

/* A datagram for an index that is in use again, but under other keys, is answered like one for an
 * index that is not. */
static void test_reset_for_keys_that_do_not_fit(void **state)
{
    (void)state;
    struct packet packet;
    pass(&a, &b, NOW, "x");
    assert_int_equal(node_send(&a, &b, NOW, "y", 1), 0);
    assert_true(node_take(&a, &packet));
    packet.bytes[packet.byte_count - 1] ^= 1;
    remac(&b, &packet);
    assert_int_equal(node_give(&b, NOW, &packet), E_AUTH);
    assert_int_equal(stats_of(&b).resets_sent, 1);
    (void)nodes_settle(&a, &b, NOW);
    assert_int_equal(stats_of(&a).resets_received, 1);
    pass(&a, &b, NOW, "z");
}

/* A reset must quote a datagram that was sent, from where it was sent to, and works once. */
static void test_reset_cannot_be_made_up(void **state)
{
    (void)state;
    struct packet data;
    struct packet reset;
    pass(&a, &b, NOW, "x");
    assert_int_equal(node_send(&a, &b, NOW, "y", 1), 0);
    assert_true(node_take(&a, &data));
    assert_int_equal(node_restart(&b, NOW), 0);
    assert_int_equal(node_give(&b, NOW, &data), E_NOT_FOUND);
    assert_true(node_take(&b, &reset));
    assert_true(reset.byte_count < data.byte_count); /* DHT-2 */
    struct packet forged = reset;
    store_be64(forged.bytes + DGRAM_HEADER_BYTES, 2); /* a counter not used yet */
    remac(&a, &forged);
    assert_int_equal(node_give(&a, NOW, &forged), E_AUTH);
    forged = reset;
    forged.bytes[DGRAM_HEADER_BYTES - 1] ^= 1; /* another index of b's */
    remac(&a, &forged);
    assert_int_equal(node_give(&a, NOW, &forged), E_AUTH);
    forged = reset;
    forged.bytes[DGRAM_MAC_BYTES + 1] ^= 1; /* another index of a's */
    remac(&a, &forged);
    assert_int_equal(node_give(&a, NOW, &forged), E_NOT_FOUND);
    forged = reset;
    forged.from = world_addr(66);
    assert_int_equal(node_give(&a, NOW, &forged), E_AUTH);
    assert_int_equal(node_give(&a, NOW, &reset), 0);
    assert_int_equal(node_give(&a, NOW, &reset), E_NOT_FOUND);
    assert_int_equal(stats_of(&a).resets_received, 1);
}

static void test_keys_are_renewed_hourly(void **state)
{
    (void)state;
    const uint64_t hour = 3600 * SEC;
    pass(&a, &b, NOW, "x");
    pass(&a, &b, NOW + hour - 1, "y");
    assert_int_equal(stats_of(&a).exchanges, 1);
    pass(&a, &b, NOW + hour, "z");
    assert_int_equal(stats_of(&a).exchanges, 2);
    pass(&b, &a, NOW + hour, "w");
    /* Renewal fails: the old keys go on working, and it is tried again after 30 s at most. */
    struct packet packet;
    uint64_t later = NOW + 2 * hour;
    unsigned hellos = 0;
    for (unsigned ms = 0; ms < 40000; ms += 250) {
        uint64_t now_us = later + ms * MS;
        dgram_advance(a.dgram, now_us);
        assert_int_equal(node_send(&a, &b, now_us, "v", 1), 0);
        while (node_take(&a, &packet)) {
            if (packet.bytes[DGRAM_MAC_BYTES] == DGRAM_HELLO)
                hellos++;
            else
                assert_int_equal(node_give(&b, now_us, &packet), 0);
        }
    }
    assert_int_equal(hellos, 8);
    assert_int_equal(b.received, 3 + 160);
}

static void test_idle_peers_are_forgotten(void **state)
{
    (void)state;
    const uint64_t idle = 7200 * SEC;
    pass(&a, &b, NOW, "x");
    pass(&a, &b, NOW + SEC, "y");
    dgram_advance(a.dgram, NOW + idle);
    assert_int_equal(stats_of(&a).peers, 1);
    dgram_advance(a.dgram, dgram_deadline_us(a.dgram));
    assert_int_equal(stats_of(&a).peers, 0);
    assert_int_equal(dgram_deadline_us(a.dgram), UINT64_MAX);
}

/* Keys that were replaced still open what was under way, for some seconds. */
static void test_datagrams_under_way_survive_a_renewal(void **state)
{
    (void)state;
    struct packet under_way[2];
    pass(&a, &b, NOW, "x");
    uint64_t now_us = NOW + 3600 * SEC;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(node_send(&b, &a, NOW + SEC, "late", 4), 0);
        assert_true(node_take(&b, &under_way[i]));
    }
    pass(&a, &b, now_us, "y");
    assert_int_equal(stats_of(&b).exchanges, 2);
    assert_int_equal(node_give(&a, now_us, &under_way[0]), 0);
    assert_received(&a, &b, "late");
    dgram_advance(a.dgram, now_us + 6 * SEC);
    assert_int_equal(node_give(&a, now_us + 6 * SEC, &under_way[1]), E_NOT_FOUND);
}

/* ---- bounds -------------------------------------------------------------------------------- */

/* A peer that only said hello never pushes out one that is known, however many there are. */
static void test_unproven_peers_are_few(void **state)
{
    (void)state;
    struct packet hello;
    pass(&a, &b, NOW, "x");
    for (unsigned i = 0; i < DGRAM_UNKNOWN_MAX + 100; i++) {
        uint64_t now_us = NOW + SEC + i * MS;
        a.config.self_addr = world_addr(3);
        a.config.self_addr.port = (uint16_t)(1000 + i);
        struct node forger = a;
        assert_int_equal(dgram_new(&a.world.env, &a.config, NOW, &forger.dgram), 0);
        assert_int_equal(node_send(&forger, &b, now_us, "x", 1), 0);
        assert_true(node_take(&forger, &hello));
        assert_int_equal(node_give(&b, now_us, &hello), 0);
        while (node_take(&b, &hello))
            continue;
        dgram_free(forger.dgram);
        if (i % 100 == 0)
            dgram__check_invariants(b.dgram);
    }
    assert_int_equal(stats_of(&b).peers, 1 + DGRAM_UNKNOWN_MAX);
    assert_int_equal(stats_of(&b).peers_evicted, 100);
    a.config.self_addr = world_addr(1);
    pass(&b, &a, NOW + 3 * SEC, "still here");
    dgram_advance(b.dgram, NOW + 10 * SEC);
    while (dgram_deadline_us(b.dgram) <= NOW + 10 * SEC)
        dgram_advance(b.dgram, NOW + 10 * SEC);
    assert_int_equal(stats_of(&b).peers, 1);
}

/* The table holds so many and no more; the least recently used goes. */
static void test_known_peers_are_bounded(void **state)
{
    (void)state;
    struct packet packet;
    pass(&a, &b, NOW, "x");
    struct peer_addr to = world_addr(9);
    unsigned full = 0;
    for (unsigned i = 0; i < DGRAM_KNOWN_MAX + 10; i++) {
        to.port = (uint16_t)(1 + i);
        int err = dgram_send(a.dgram, NOW + 1 + i, &to, (const uint8_t *)"m", 1);
        full += err == E_FULL ? 1 : 0;
        assert_true(err == 0 || err == E_FULL);
        while (node_take(&a, &packet))
            continue;
        if (i % 100 == 0)
            assert_int_equal(node_send(&a, &b, NOW + 1 + i, "m", 1), 0);
    }
    dgram__check_invariants(a.dgram);
    assert_int_equal(stats_of(&a).peers, DGRAM_KNOWN_MAX);
    assert_int_equal(stats_of(&a).peers_evicted, 11);
    /* Each that was dropped freed the place of its message. */
    assert_int_equal(full, DGRAM_KNOWN_MAX + 10 - DGRAM_QUEUED_MAX - 11);
    unsigned before = b.received;
    assert_int_equal(node_send(&a, &b, NOW + SEC / 10, "kept", 4), 0);
    while (node_take(&a, &packet)) {
        if (peer_addr_equal(&packet.to, &b.config.self_addr))
            assert_int_equal(node_give(&b, NOW + SEC / 10, &packet), 0);
    }
    assert_int_equal(b.received, before + 1);
    /* All of them expire, in bounded work for each call. */
    uint64_t now_us = NOW + 20 * SEC;
    for (unsigned i = 0; dgram_deadline_us(a.dgram) <= now_us; i++) {
        assert_true(i < 10000);
        dgram_advance(a.dgram, now_us);
        while (node_take(&a, &packet))
            continue;
        if (dgram_deadline_us(a.dgram) > now_us && stats_of(&a).peers > 1)
            now_us += 5 * SEC;
    }
    assert_int_equal(stats_of(&a).peers, 1);
}

/* Work for hellos is limited; what is over the limit is dropped and comes again. */
static void test_hello_budget(void **state)
{
    (void)state;
    struct packet hello;
    unsigned limited = 0;
    for (unsigned i = 0; i < 1100; i++) {
        assert_int_equal(node_restart(&a, NOW), 0);
        assert_int_equal(node_send(&a, &b, NOW, "x", 1), 0);
        assert_true(node_take(&a, &hello));
        int err = node_give(&b, NOW, &hello);
        limited += err == E_FULL ? 1 : 0;
        assert_true(err == 0 || err == E_FULL);
        while (node_take(&b, &hello))
            continue;
    }
    assert_int_equal(limited, 100);
    assert_int_equal(stats_of(&b).hellos_limited, 100);
    assert_int_equal(node_restart(&a, NOW), 0);
    pass(&a, &b, NOW + 2 * MS, "y");
}

/* A host that does not drain loses datagrams, counted, and nothing else. */
static void test_full_output(void **state)
{
    (void)state;
    unsigned full = 0;
    pass(&a, &b, NOW, "x");
    for (unsigned i = 0; i < DGRAM_OUTPUT_MAX + 5; i++)
        full += node_send(&a, &b, NOW, "m", 1) == E_FULL ? 1 : 0;
    assert_int_equal(full, 5);
    assert_int_equal(stats_of(&a).output_full, 5);
    (void)nodes_settle(&a, &b, NOW);
    assert_int_equal(b.received, 1 + DGRAM_OUTPUT_MAX);
    pass(&a, &b, NOW, "y");
    /* With no room, hellos, acks and resets are like lost ones. */
    struct packet packet;
    assert_int_equal(node_send(&a, &b, NOW, "m", 1), 0);
    assert_true(node_take(&a, &packet));
    assert_int_equal(node_restart(&b, NOW), 0);
    for (unsigned i = 0; i < DGRAM_OUTPUT_MAX; i++)
        assert_int_equal(node_give(&b, NOW, &packet), E_NOT_FOUND);
    assert_int_equal(node_give(&b, NOW, &packet), E_NOT_FOUND);
    assert_int_equal(node_send(&b, &a, NOW, "waits", 5), 0);
    assert_int_equal(stats_of(&b).output_full, 2);
    assert_int_equal(stats_of(&b).hellos_sent, 0);
    struct packet hello;
    assert_int_equal(node_restart(&a, NOW), 0);
    assert_int_equal(node_send(&a, &b, NOW, "m", 1), 0);
    assert_true(node_take(&a, &hello));
    assert_int_equal(node_give(&b, NOW, &hello), 0);
    assert_int_equal(stats_of(&b).output_full, 3);
    while (node_take(&b, &packet))
        continue;
    dgram_advance(a.dgram, NOW + 250 * MS);
    (void)nodes_settle(&a, &b, NOW + 250 * MS);
    assert_received(&a, &b, "waits");
    assert_received(&b, &a, "m");
}

static void test_new_refuses_bad_configuration(void **state)
{
    (void)state;
    struct dgram *dgram = NULL;
    struct dgram_config bad = a.config;
    bad.identity = NULL;
    assert_int_equal(dgram_new(&a.world.env, &bad, NOW, &dgram), E_INVALID);
    bad = a.config;
    bad.admission = NULL;
    assert_int_equal(dgram_new(&a.world.env, &bad, NOW, &dgram), E_INVALID);
    bad = a.config;
    bad.self_addr.port = 0;
    assert_int_equal(dgram_new(&a.world.env, &bad, NOW, &dgram), E_INVALID);
    struct admission admission = a.admission;
    admission.secret_count = 0;
    bad = a.config;
    bad.admission = &admission;
    assert_int_equal(dgram_new(&a.world.env, &bad, NOW, &dgram), E_INVALID);
    assert_null(dgram);
}

/* CPU time of this process. */
static double cpu_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* Printed, not judged: other load on the machine would make a bound flaky. */
static void test_figure_cost(void **state)
{
    (void)state;
    enum { COUNT = 5000, EXCHANGES = 200 };
    struct packet packet;
    uint8_t msg[500] = {0};
    pass(&a, &b, NOW, "x");
    double start = cpu_us();
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(node_send(&a, &b, NOW, msg, sizeof msg), 0);
        assert_true(node_take(&a, &packet));
        assert_int_equal(node_give(&b, NOW, &packet), 0);
    }
    double data_us = (cpu_us() - start) / COUNT;
    packet.byte_count = DATAGRAM_BYTES_MAX;
    start = cpu_us();
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(node_give(&b, NOW, &packet), E_AUTH);
    double forged_us = (cpu_us() - start) / COUNT;
    start = cpu_us();
    for (unsigned i = 0; i < EXCHANGES; i++) {
        assert_int_equal(node_restart(&a, NOW), 0);
        pass(&a, &b, NOW, "x");
    }
    double exchange_us = (cpu_us() - start) / EXCHANGES;
    printf("figure: datagrams: 500 B sealed and opened %.1f us, forged 1232 B refused %.2f us, "
           "exchange, both sides %.0f us\n",
           data_us, forged_us, exchange_us);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_first_message_arrives_after_a_hello),
        TEST(test_dht8_largest_message),
        TEST(test_queue_keeps_the_newest_16),
        TEST(test_hello_is_tried_four_times),
        TEST(test_repeated_hello_gets_the_same_ack),
        TEST(test_simultaneous_hellos),
        TEST(test_simultaneous_hellos_on_one_address),
        TEST(test_simultaneous_hellos_with_loss),
        TEST(test_lost_confirmation),
        TEST(test_dht1_outsiders_get_nothing),
        TEST(test_dht1_every_tampered_byte),
        TEST(test_dht1_tampering_by_a_member),
        TEST(test_truncated_and_unknown_kinds),
        TEST(test_dht3_replays_and_reordering),
        TEST(test_dht3_replayed_hello),
        TEST(test_peer4_addresses),
        TEST(test_allow_any_ip),
        TEST(test_peer2_identity_cannot_be_borrowed),
        TEST(test_peer9_zero_dh_is_refused),
        TEST(test_peer8_deny_list),
        TEST(test_peer8_denied_while_only_we_send),
        TEST(test_peer8_rotation_loses_nothing),
        TEST(test_peer8_removed_secret),
        TEST(test_restarted_peer_is_reached_at_once),
        TEST(test_superseded_keys_do_not_return),
        TEST(test_reset_for_keys_that_do_not_fit),
        TEST(test_reset_cannot_be_made_up),
        TEST(test_keys_are_renewed_hourly),
        TEST(test_idle_peers_are_forgotten),
        TEST(test_datagrams_under_way_survive_a_renewal),
        TEST(test_unproven_peers_are_few),
        TEST(test_known_peers_are_bounded),
        TEST(test_hello_budget),
        TEST(test_full_output),
        TEST(test_new_refuses_bad_configuration),
        TEST(test_figure_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
