/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP handshake: who gets in, who does not, and what outsiders see (PEER-2, 4, 5, 7, 8, 9). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/session/intro.h"
#include "../../src/session/noise.h"
#include "digest.h"
#include "session_world.h"
#include "wire.h"

#define NOW       1000000ULL
#define TIMEOUT   3000000ULL
#define PAYLOAD_0 INTRO_OFFER_BYTES

static size_t output_bytes(const struct session *session)
{
    size_t out_bytes = 0;
    (void)session_output(session, &out_bytes);
    return out_bytes;
}

/* A session that failed says nothing and can only be freed. */
static void assert_silent(struct session *session)
{
    uint8_t byte = 0;
    size_t out_bytes = 0;
    assert_int_equal(session_state(session), SESSION_FAILED);
    assert_null(session_peer(session));
    assert_int_equal(output_bytes(session), 0);
    assert_int_equal(session_deadline_us(session), UINT64_MAX);
    assert_int_equal(world_hand(session, NOW, &byte, 1), E_INVALID);
    uint8_t record[RECORD_WIRE_BYTES_MAX];
    assert_int_equal(session_seal(session, NOW, &byte, 1, NULL, 0, record, &out_bytes), E_INVALID);
}

static void assert_peer(const struct side *side, const struct side *other)
{
    const struct session_peer *peer = session_peer(side->session);
    struct node_id id;
    assert_int_equal(session_state(side->session), SESSION_ESTABLISHED);
    assert_non_null(peer);
    node_id_of("test", &other->config.self_addr, &id);
    assert_true(node_id_equal(&peer->id, &id));
    assert_true(peer_addr_equal(&peer->addr, &other->config.self_addr));
    assert_memory_equal(peer->key.bytes, other->identity.public_key.bytes, IDENTITY_KEY_BYTES);
    assert_int_equal(peer->version_minor, WIRE_VERSION_MINOR);
    assert_int_equal(session_deadline_us(side->session), UINT64_MAX);
}

static void test_peer5_both_learn_who_the_other_is(void **state)
{
    (void)state;
    struct world world;
    struct side sides[2];
    world_init(&world, 1);
    world_sides(&world, sides);
    assert_int_equal(world_open(&world, sides, NOW), 0);
    assert_int_equal(session_state(sides[0].session), SESSION_HANDSHAKE);
    assert_int_equal(session_deadline_us(sides[0].session), NOW + TIMEOUT);
    assert_null(session_peer(sides[0].session));
    assert_true(output_bytes(sides[0].session) > 0);
    assert_int_equal(output_bytes(sides[1].session), 0);
    assert_int_equal(world_shake(sides, NOW), 0);
    assert_peer(&sides[0], &sides[1]);
    assert_peer(&sides[1], &sides[0]);
    world_close(sides);
    assert_int_equal(world.live, 0);
}

/* Bytes may come one at a time; nothing is taken before a message is whole. */
static void test_handshake_in_single_bytes(void **state)
{
    (void)state;
    struct world world;
    struct side sides[2];
    world_init(&world, 2);
    world_sides(&world, sides);
    assert_int_equal(world_open(&world, sides, NOW), 0);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t message[WORLD_MESSAGE_MAX];
        size_t consumed = 0;
        size_t plain_bytes = 0;
        const uint8_t *plain = NULL;
        size_t message_bytes = world_take(sides[i % 2].session, message);
        struct session *to = sides[1 - i % 2].session;
        for (size_t have = 0; have <= message_bytes; have++) {
            assert_int_equal(
                session_receive(to, NOW, message, have, &consumed, &plain, &plain_bytes), 0);
            assert_int_equal(consumed, have == message_bytes ? message_bytes : 0);
            assert_null(plain);
        }
    }
    assert_peer(&sides[0], &sides[1]);
    assert_peer(&sides[1], &sides[0]);
    world_close(sides);
}

static void test_new_refuses_bad_configuration(void **state)
{
    (void)state;
    struct world world;
    struct side sides[2];
    struct session *session = NULL;
    world_init(&world, 3);
    world_sides(&world, sides);
    struct session_config good = sides[0].config;
    struct session_config bad = good;
    bad.identity = NULL;
    assert_int_equal(session_new(&world.env, &bad, NOW, &session), E_INVALID);
    bad = good;
    bad.admission = NULL;
    assert_int_equal(session_new(&world.env, &bad, NOW, &session), E_INVALID);
    bad = good;
    bad.self_addr.port = 0;
    assert_int_equal(session_new(&world.env, &bad, NOW, &session), E_INVALID);
    for (unsigned i = 0; i < 4; i++) {
        struct admission admission = sides[0].admission;
        admission.secret_count = i == 0 ? 0 : i == 1 ? CLUSTER_SECRETS_MAX + 1 : 1;
        admission.denied_count = i == 2 ? DENIED_MAX + 1 : 0;
        if (i == 3)
            memset(admission.cluster_id, 'x', sizeof admission.cluster_id);
        bad = good;
        bad.admission = &admission;
        assert_int_equal(session_new(&world.env, &bad, NOW, &session), E_INVALID);
    }
    assert_null(session);
    assert_int_equal(world.live, 0);
}

/* PEER-7, PEER-2: without the secret, or from another cluster, nothing comes back. */
static void test_peer7_outsider_gets_no_byte(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 2; variant++) {
        struct world world;
        struct side sides[2];
        world_init(&world, 4);
        world_sides(&world, sides);
        if (variant == 0)
            sides[0].admission.secrets[0][31] ^= 1;
        else
            memcpy(sides[0].admission.cluster_id, "tesT", 5);
        assert_int_equal(world_open(&world, sides, NOW), 0);
        assert_int_equal(world_carry(&sides[0], &sides[1], NOW), E_AUTH);
        assert_silent(sides[1].session);
        world_close(sides);
    }
}

/* PEER-7: a length that no message has ends it before that much is buffered. */
static void test_peer7_lengths_are_bounded(void **state)
{
    (void)state;
    static const uint16_t bad[] = {0, 1, 47, 48 + 1024 + 1, 8192, 65535};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct world world;
        struct side sides[2];
        uint8_t message[2];
        world_init(&world, 5);
        world_sides(&world, sides);
        assert_int_equal(world_open(&world, sides, NOW), 0);
        store_be16(message, bad[i]);
        assert_int_equal(world_hand(sides[1].session, NOW, message, sizeof message), E_PROTOCOL);
        assert_silent(sides[1].session);
        world_close(sides);
    }
}

static void test_peer7_deadline(void **state)
{
    (void)state;
    struct world world;
    struct side sides[2];
    uint8_t none = 0;
    world_init(&world, 6);
    world_sides(&world, sides);
    assert_int_equal(world_open(&world, sides, NOW), 0);
    assert_int_equal(world_hand(sides[1].session, NOW + TIMEOUT - 1, &none, 0), 0);
    assert_int_equal(world_hand(sides[1].session, NOW + TIMEOUT, &none, 0), E_TIMEOUT);
    assert_silent(sides[1].session);
    /* A right message that comes too late is too late. */
    assert_int_equal(world_hand(sides[0].session, NOW + TIMEOUT, &none, 0), E_TIMEOUT);
    world_close(sides);
}

/* PEER-8: old and new secret meet in every combination in which they share one at the starter. */
static void test_peer8_two_secrets(void **state)
{
    (void)state;
    static const struct {
        uint8_t first[2];
        uint8_t second[2];
        bool works;
    } cases[] = {
        {{1, 0}, {1, 0}, true},  {{1, 0}, {1, 2}, true},  {{1, 0}, {2, 1}, true},
        {{1, 2}, {1, 0}, true},  {{2, 1}, {1, 2}, true},  {{2, 1}, {2, 0}, true},
        {{2, 0}, {2, 1}, true},  {{2, 0}, {1, 2}, true},  {{2, 0}, {1, 0}, false},
        {{1, 0}, {2, 0}, false}, {{2, 1}, {1, 0}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world world;
        struct side sides[2];
        world_init(&world, 7);
        world_sides(&world, sides);
        for (unsigned s = 0; s < 2; s++) {
            const uint8_t *secrets = s == 0 ? cases[i].first : cases[i].second;
            memset(sides[s].admission.secrets[0], secrets[0], CLUSTER_SECRET_BYTES);
            memset(sides[s].admission.secrets[1], secrets[1], CLUSTER_SECRET_BYTES);
            sides[s].admission.secret_count = secrets[1] != 0 ? 2 : 1;
        }
        assert_int_equal(world_open(&world, sides, NOW), 0);
        assert_int_equal(world_shake(sides, NOW), cases[i].works ? 0 : E_AUTH);
        world_close(sides);
    }
}

/* PEER-8: a denied key is refused by either side. */
static void test_peer8_denied_identity(void **state)
{
    (void)state;
    for (unsigned denier = 0; denier < 2; denier++) {
        struct world world;
        struct side sides[2];
        world_init(&world, 8);
        world_sides(&world, sides);
        sides[denier].admission.denied[0] = sides[1 - denier].identity.public_key;
        sides[denier].admission.denied_count = 1;
        assert_int_equal(world_open(&world, sides, NOW), 0);
        assert_int_equal(world_shake(sides, NOW), E_AUTH);
        assert_silent(sides[denier].session);
        world_close(sides);
    }
}

/* PEER-2: the secret does not let a member use another's identity key. */
static void test_peer2_identity_cannot_be_borrowed(void **state)
{
    (void)state;
    for (unsigned thief = 0; thief < 2; thief++) {
        struct world world;
        struct side sides[2];
        struct identity victim;
        world_init(&world, 9);
        world_sides(&world, sides);
        identity_generate(&world.env, &victim);
        sides[thief].identity.public_key = victim.public_key;
        assert_int_equal(world_open(&world, sides, NOW), 0);
        assert_int_equal(world_shake(sides, NOW), E_AUTH);
        assert_silent(sides[1 - thief].session);
        /* Nor with the victim's signature, which names another session key. */
        world_close(sides);
        memcpy(sides[thief].identity.static_signature, victim.static_signature, 64);
        assert_int_equal(world_open(&world, sides, NOW), 0);
        assert_int_equal(world_shake(sides, NOW), E_AUTH);
        world_close(sides);
    }
}

/* PEER-4: the announced IP is the one the connection comes from, unless that is switched off. */
static void test_peer4_announced_address(void **state)
{
    (void)state;
    for (unsigned liar = 0; liar < 2; liar++) {
        for (unsigned any_ip = 0; any_ip < 2; any_ip++) {
            struct world world;
            struct side sides[2];
            world_init(&world, 10);
            world_sides(&world, sides);
            sides[liar].config.self_addr = world_addr(99);
            sides[1 - liar].config.allow_any_ip = any_ip == 1;
            assert_int_equal(world_open(&world, sides, NOW), 0);
            assert_int_equal(world_shake(sides, NOW), any_ip == 1 ? 0 : E_AUTH);
            if (any_ip == 1)
                assert_peer(&sides[1 - liar], &sides[liar]);
            else
                assert_silent(sides[1 - liar].session);
            world_close(sides);
        }
    }
}

/* PEER-7: a recorded first message gets no answer at an address that is not its sender's. */
static void test_peer7_first_message_replayed_elsewhere(void **state)
{
    (void)state;
    struct world world;
    struct side sides[2];
    uint8_t message[WORLD_MESSAGE_MAX];
    world_init(&world, 11);
    world_sides(&world, sides);
    assert_int_equal(world_open(&world, sides, NOW), 0);
    size_t message_bytes = world_take(sides[0].session, message);
    struct session_config config = sides[1].config;
    struct session *session = NULL;
    config.remote = world_addr(66);
    assert_int_equal(session_new(&world.env, &config, NOW, &session), 0);
    assert_int_equal(world_hand(session, NOW, message, message_bytes), E_AUTH);
    assert_silent(session);
    session_free(session);
    world_close(sides);
}

/* Who dials itself, or meets somebody who claims its own address, does not talk. */
static void test_own_address_is_refused(void **state)
{
    (void)state;
    struct world world;
    struct side sides[2];
    world_init(&world, 12);
    world_sides(&world, sides);
    sides[1].config.self_addr = sides[0].config.self_addr;
    sides[0].config.allow_any_ip = true;
    sides[1].config.allow_any_ip = true;
    assert_int_equal(world_open(&world, sides, NOW), 0);
    assert_int_equal(world_shake(sides, NOW), E_AUTH);
    world_close(sides);
}

/*
 * PEER-5, PEER-9: any changed byte of any message ends the handshake at its receiver, before the
 * receiver answers, and always in the same way; a changed length is a bad or an unfinished message.
 */
static void test_peer9_every_tampered_byte(void **state)
{
    (void)state;
    for (unsigned index = 0; index < 3; index++) {
        size_t message_bytes = 1;
        for (size_t at = 0; at < message_bytes; at++) {
            struct world world;
            struct side sides[2];
            uint8_t message[WORLD_MESSAGE_MAX];
            world_init(&world, 13);
            world_sides(&world, sides);
            assert_int_equal(world_open(&world, sides, NOW), 0);
            for (unsigned i = 0; i < index; i++)
                assert_int_equal(world_carry(&sides[i % 2], &sides[1 - i % 2], NOW), 0);
            struct session *to = sides[1 - index % 2].session;
            message_bytes = world_take(sides[index % 2].session, message);
            message[at] ^= 0x04;
            int err = world_hand(to, NOW, message, message_bytes);
            if (at >= 2) {
                assert_int_equal(err, E_AUTH);
            } else if (err == 0) {
                assert_int_equal(session_state(to), SESSION_HANDSHAKE);
                err = world_hand(to, NOW + TIMEOUT, message, message_bytes);
            }
            assert_int_not_equal(err, 0);
            assert_silent(to);
            world_close(sides);
        }
        assert_true(message_bytes > 48);
    }
}

/* Messages out of their order: a repeated first, a first echoed back. */
static void test_peer9_messages_out_of_order(void **state)
{
    (void)state;
    struct world world;
    struct side sides[2];
    uint8_t first[WORLD_MESSAGE_MAX];
    uint8_t copy[WORLD_MESSAGE_MAX];
    world_init(&world, 14);
    world_sides(&world, sides);
    assert_int_equal(world_open(&world, sides, NOW), 0);
    size_t first_bytes = world_take(sides[0].session, first);
    memcpy(copy, first, first_bytes);
    assert_int_equal(world_hand(sides[1].session, NOW, copy, first_bytes), 0);
    memcpy(copy, first, first_bytes);
    assert_int_not_equal(world_hand(sides[1].session, NOW, copy, first_bytes), 0);
    assert_int_not_equal(world_hand(sides[0].session, NOW, first, first_bytes), 0);
    assert_silent(sides[0].session);
    assert_silent(sides[1].session);
    world_close(sides);
}

/* A peer made by hand, to say what our own session would not. */
struct crafted {
    struct noise noise;
    struct intro intro;
};

static void crafted_init(struct world *world, const struct side *side, struct crafted *crafted)
{
    uint8_t prologue[5 + 2 + 4] = {'s', 'h', 'o', 'a', 'l', WIRE_VERSION_MAJOR,
                                   4,   't', 'e', 's', 't'};
    uint8_t ephemeral[32];
    const struct noise_config config = {.initiator = true,
                                        .prologue = prologue,
                                        .prologue_bytes = sizeof prologue,
                                        .static_secret = side->identity.static_secret,
                                        .static_public = side->identity.static_public,
                                        .psk = side->admission.secrets[0]};
    noise__init(&crafted->noise, &config);
    world_random(world, ephemeral, sizeof ephemeral);
    noise__set_ephemeral(&crafted->noise, ephemeral);
    intro__own(&side->identity, &side->config.self_addr, &crafted->intro);
}

static int crafted_send(struct crafted *crafted, struct session *to, size_t payload_bytes)
{
    uint8_t payload[INTRO_BYTES + 500] = {0};
    uint8_t message[WORLD_MESSAGE_MAX];
    size_t message_bytes = 0;
    intro__encode(&crafted->intro, payload);
    assert_int_equal(noise__write(&crafted->noise, payload, payload_bytes, message + 2,
                                  sizeof message - 2, &message_bytes),
                     0);
    store_be16(message, (uint16_t)message_bytes);
    return world_hand(to, NOW, message, message_bytes + 2);
}

static void crafted_read(struct crafted *crafted, struct session *from)
{
    uint8_t payload[WORLD_MESSAGE_MAX];
    uint8_t message[WORLD_MESSAGE_MAX];
    size_t payload_bytes = 0;
    size_t message_bytes = world_take(from, message);
    assert_int_equal(noise__read(&crafted->noise, message + 2, message_bytes - 2, payload,
                                 sizeof payload, &payload_bytes),
                     0);
    assert_int_equal(payload_bytes, INTRO_BYTES);
}

enum craft {
    CRAFT_PLAIN,         /* as we do it */
    CRAFT_LONGER,        /* a later minor version with fields of its own */
    CRAFT_SHORT_OFFER,   /* first payload too short */
    CRAFT_NO_PORT,       /* announces port 0 */
    CRAFT_NO_CIPHER,     /* no cipher we have */
    CRAFT_SHORT_INTRO,   /* third payload too short */
    CRAFT_OTHER_ADDRESS, /* third message announces another address than the first */
};

static int run_crafted(enum craft craft, uint16_t *version_minor)
{
    struct world world;
    struct side sides[2];
    struct crafted crafted;
    world_init(&world, 15);
    world_sides(&world, sides);
    assert_int_equal(world_open(&world, sides, NOW), 0);
    struct session *to = sides[1].session;
    crafted_init(&world, &sides[0], &crafted);
    size_t more = craft == CRAFT_LONGER ? 500 : 0;
    crafted.intro.version_minor = craft == CRAFT_LONGER ? 9 : 0;
    crafted.intro.features = craft == CRAFT_NO_CIPHER ? 0xfffffffe : 0xffffffff;
    crafted.intro.addr.port = craft == CRAFT_NO_PORT ? 0 : 65002;
    int err = crafted_send(&crafted, to, PAYLOAD_0 + more - (craft == CRAFT_SHORT_OFFER ? 1 : 0));
    if (err == 0) {
        crafted_read(&crafted, to);
        crafted.intro.addr.port = craft == CRAFT_OTHER_ADDRESS ? 65003 : 65002;
        err = crafted_send(&crafted, to, INTRO_BYTES + more - (craft == CRAFT_SHORT_INTRO ? 1 : 0));
    }
    if (err == 0)
        *version_minor = session_peer(to)->version_minor;
    else
        assert_silent(to);
    world_close(sides);
    return err;
}

/* What a member can say inside the encryption; PEER-6: no common cipher is no session. */
static void test_peer6_payloads(void **state)
{
    (void)state;
    uint16_t minor = 77;
    assert_int_equal(run_crafted(CRAFT_PLAIN, &minor), 0);
    assert_int_equal(minor, 0);
    assert_int_equal(run_crafted(CRAFT_LONGER, &minor), 0);
    assert_int_equal(minor, 9);
    assert_int_equal(run_crafted(CRAFT_SHORT_OFFER, &minor), E_MALFORMED);
    assert_int_equal(run_crafted(CRAFT_NO_PORT, &minor), E_MALFORMED);
    assert_int_equal(run_crafted(CRAFT_NO_CIPHER, &minor), E_VERSION);
    assert_int_equal(run_crafted(CRAFT_SHORT_INTRO, &minor), E_MALFORMED);
    assert_int_equal(run_crafted(CRAFT_OTHER_ADDRESS, &minor), E_AUTH);
}

/* A run is a function of its seed: the same randomness gives the same bytes. */
static void test_handshake_can_be_replayed_from_a_seed(void **state)
{
    (void)state;
    uint8_t messages[2][WORLD_MESSAGE_MAX];
    size_t message_bytes[2];
    for (unsigned i = 0; i < 2; i++) {
        struct world world;
        struct side sides[2];
        world_init(&world, 16);
        world_sides(&world, sides);
        assert_int_equal(world_open(&world, sides, NOW), 0);
        assert_int_equal(world_carry(&sides[0], &sides[1], NOW), 0);
        message_bytes[i] = world_take(sides[1].session, messages[i]);
        world_close(sides);
    }
    assert_int_equal(message_bytes[0], message_bytes[1]);
    assert_memory_equal(messages[0], messages[1], message_bytes[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer5_both_learn_who_the_other_is),
        cmocka_unit_test(test_handshake_in_single_bytes),
        cmocka_unit_test(test_new_refuses_bad_configuration),
        cmocka_unit_test(test_peer7_outsider_gets_no_byte),
        cmocka_unit_test(test_peer7_lengths_are_bounded),
        cmocka_unit_test(test_peer7_deadline),
        cmocka_unit_test(test_peer8_two_secrets),
        cmocka_unit_test(test_peer8_denied_identity),
        cmocka_unit_test(test_peer2_identity_cannot_be_borrowed),
        cmocka_unit_test(test_peer4_announced_address),
        cmocka_unit_test(test_peer7_first_message_replayed_elsewhere),
        cmocka_unit_test(test_own_address_is_refused),
        cmocka_unit_test(test_peer9_every_tampered_byte),
        cmocka_unit_test(test_peer9_messages_out_of_order),
        cmocka_unit_test(test_peer6_payloads),
        cmocka_unit_test(test_handshake_can_be_replayed_from_a_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
