/* SPDX-License-Identifier: Apache-2.0 */
/* Records of an established session: form, bounds, tampering, order, rekeys (PEER-6, PEER-10). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include <sodium.h>

#include "../../src/session/noise.h"
#include "../../src/session/record.h"
#include "session_world.h"

#define NOW      1000000ULL
#define OVERHEAD (RECORD_HEADER_BYTES + RECORD_TAG_BYTES)

static uint8_t wire[RECORD_WIRE_BYTES_MAX];
static uint8_t text[RECORD_BYTES_MAX + 1];

struct pair {
    struct world world;
    struct side sides[2];
};

/* Bit 0: the initiator offers AES, by OpenSSL; bit 1: the responder does, by libgcrypt. */
static void pair_open_offering(struct pair *pair, unsigned aes)
{
    world_init(&pair->world, 1);
    world_sides(&pair->world, pair->sides);
    pair->sides[0].config.aes = (aes & 1) != 0 ? SESSION_AES_OPENSSL : SESSION_AES_NONE;
    pair->sides[1].config.aes = (aes & 2) != 0 ? SESSION_AES_LIBGCRYPT : SESSION_AES_NONE;
    assert_int_equal(world_open(&pair->world, pair->sides, NOW), 0);
    assert_int_equal(world_shake(pair->sides, NOW), 0);
}

static void pair_open(struct pair *pair)
{
    pair_open_offering(pair, 0);
}

static void pair_close(struct pair *pair)
{
    world_close(pair->sides);
    assert_int_equal(pair->world.live, 0);
}

static size_t seal(struct session *session, uint64_t now_us, size_t plain_bytes)
{
    size_t wire_bytes = 0;
    assert_int_equal(session_seal(session, now_us, text, plain_bytes, NULL, 0, wire, &wire_bytes),
                     0);
    assert_int_equal(wire_bytes, plain_bytes + OVERHEAD);
    return wire_bytes;
}

/* Hands wire[0..wire_bytes) over; it must be one whole record with these bytes. */
static void open_expect(struct session *session, uint64_t now_us, size_t wire_bytes)
{
    size_t consumed = 0;
    size_t plain_bytes = 0;
    const uint8_t *plain = NULL;
    assert_int_equal(
        session_receive(session, now_us, wire, wire_bytes, &consumed, &plain, &plain_bytes), 0);
    assert_int_equal(consumed, wire_bytes);
    assert_int_equal(plain_bytes, wire_bytes - OVERHEAD);
    assert_ptr_equal(plain, wire + RECORD_HEADER_BYTES); /* in place */
    assert_memory_equal(plain, text, plain_bytes);
}

static void open_refused(struct session *session, size_t wire_bytes, int expected)
{
    size_t consumed = 77;
    size_t plain_bytes = 77;
    const uint8_t *plain = wire;
    assert_int_equal(
        session_receive(session, NOW, wire, wire_bytes, &consumed, &plain, &plain_bytes), expected);
    assert_int_equal(consumed, 0);
    assert_int_equal(plain_bytes, 0);
    assert_null(plain);
    assert_int_equal(session_state(session), SESSION_FAILED);
}

static void test_round_trip_of_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,  1,    15,   16,    17,    63,    64,
                                   65, 1000, 4096, 65519, 65520, 65535, RECORD_BYTES_MAX};
    for (unsigned aes = 0; aes < 4; aes++) {
        struct pair pair;
        pair_open_offering(&pair, aes);
        world_random(&pair.world, text, sizeof text);
        for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
            struct session *from = pair.sides[i % 2].session;
            struct session *to = pair.sides[1 - i % 2].session;
            open_expect(to, NOW, seal(from, NOW, sizes[i / 2]));
        }
        pair_close(&pair);
    }
}

/* PEER-6: AES when both offer it, ChaCha20 else; both sides know which. */
static void test_peer6_cipher_is_agreed(void **state)
{
    (void)state;
    for (unsigned aes = 0; aes < 4; aes++) {
        struct pair pair;
        world_init(&pair.world, 1);
        world_sides(&pair.world, pair.sides);
        pair.sides[0].config.aes = (aes & 1) != 0 ? SESSION_AES_OPENSSL : SESSION_AES_NONE;
        assert_int_equal(world_open(&pair.world, pair.sides, NOW), 0);
        assert_false(session_aes(pair.sides[0].session)); /* not before it is agreed */
        world_close(pair.sides);
        pair_open_offering(&pair, aes);
        assert_int_equal(session_aes(pair.sides[0].session), aes == 3);
        assert_int_equal(session_aes(pair.sides[1].session), aes == 3);
        pair_close(&pair);
    }
}

/* A record goes where its bytes are collected, if there is room for all of it. */
static void test_opened_where_it_belongs(void **state)
{
    (void)state;
    static uint8_t out[RECORD_BYTES_MAX];
    static const struct {
        size_t plain_bytes, room;
    } cases[] = {{1, 1},
                 {300, 300},
                 {300, 301},
                 {300, 299},
                 {0, 100},
                 {300, 0},
                 {RECORD_BYTES_MAX, RECORD_BYTES_MAX},
                 {65535, 64}};
    for (unsigned aes = 0; aes < 4; aes += 3) {
        struct pair pair;
        pair_open_offering(&pair, aes);
        world_random(&pair.world, text, sizeof text);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct session_received got;
            const struct session_room room = {out, cases[i].room};
            size_t plain_bytes = cases[i].plain_bytes;
            size_t wire_bytes = seal(pair.sides[0].session, NOW, plain_bytes);
            memset(out, 0xee, sizeof out);
            assert_int_equal(
                session_receive_into(pair.sides[1].session, NOW, wire, wire_bytes, room, &got), 0);
            assert_int_equal(got.consumed, wire_bytes);
            assert_int_equal(got.plain_bytes, plain_bytes);
            bool fits = plain_bytes > 0 && plain_bytes <= cases[i].room;
            assert_ptr_equal(got.plain, fits ? out : wire + RECORD_HEADER_BYTES);
            assert_memory_equal(got.plain, text, plain_bytes);
            if (!fits || plain_bytes < sizeof out)
                assert_int_equal(out[fits ? plain_bytes : 0], 0xee); /* nothing beyond it */
        }
        pair_close(&pair);
    }
}

/* What did not open is wiped there, too. */
static void test_peer9_tampered_is_wiped_where_it_belongs(void **state)
{
    (void)state;
    for (unsigned aes = 0; aes < 4; aes += 3) {
        struct pair pair;
        uint8_t out[128];
        struct session_received got;
        const struct session_room room = {out, sizeof out};
        pair_open_offering(&pair, aes);
        world_random(&pair.world, text, sizeof text);
        size_t wire_bytes = seal(pair.sides[0].session, NOW, sizeof out);
        wire[wire_bytes - 1] ^= 1;
        memset(out, 0xee, sizeof out);
        assert_int_equal(
            session_receive_into(pair.sides[1].session, NOW, wire, wire_bytes, room, &got), E_AUTH);
        assert_int_equal(got.consumed, 0);
        assert_null(got.plain);
        assert_true(sodium_is_zero(out, sizeof out));
        assert_true(sodium_is_zero(wire, wire_bytes));
        pair_close(&pair);
    }
}

static uint64_t ticks;
static uint64_t tick_ns[3]; /* what sealing takes by this clock: AES by either library, ChaCha20 */
static uint64_t clock_told(void)
{
    static const uint64_t rounds = 24; /* of two calls each, one kind after the other */
    uint64_t call = ticks++;
    static uint64_t now_ns;
    now_ns += call % 2 == 1 ? tick_ns[call / (2 * rounds)] : 5;
    return now_ns;
}

/* The quicker library, and AES must win by a tenth. */
static void test_choice_of_cipher(void **state)
{
    (void)state;
    static const struct {
        uint64_t ns[3];
        enum session_aes aes;
    } cases[] = {
        {{1000, 1000, 1000}, SESSION_AES_NONE},     {{900, 1000, 1000}, SESSION_AES_OPENSSL},
        {{901, 1000, 1000}, SESSION_AES_NONE},      {{500, 501, 1000}, SESSION_AES_OPENSSL},
        {{500, 500, 1000}, SESSION_AES_OPENSSL},    {{500, 499, 1000}, SESSION_AES_LIBGCRYPT},
        {{1000, 900, 1000}, SESSION_AES_LIBGCRYPT}, {{2000, 2000, 1000}, SESSION_AES_NONE},
        {{0, 10, 10}, SESSION_AES_OPENSSL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ticks = 0;
        memcpy(tick_ns, cases[i].ns, sizeof tick_ns);
        assert_int_equal(session_choose_aes(clock_told), cases[i].aes);
    }
    assert_string_equal(session_aes_text(SESSION_AES_NONE), "chacha20-poly1305");
    assert_string_equal(session_aes_text(SESSION_AES_OPENSSL), "aes-256-gcm");
    assert_string_equal(session_aes_text(SESSION_AES_LIBGCRYPT), "aes-256-gcm/libgcrypt");
}

static void test_two_spans_make_one_record(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    world_random(&pair.world, text, sizeof text);
    static const size_t splits[] = {0, 1, 16, 20, 63, 64, 65, 300};
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        size_t wire_bytes = 0;
        assert_int_equal(session_seal(pair.sides[0].session, NOW, text, splits[i], text + splits[i],
                                      300 - splits[i], wire, &wire_bytes),
                         0);
        assert_int_equal(wire_bytes, 300 + OVERHEAD);
        open_expect(pair.sides[1].session, NOW, wire_bytes);
    }
    pair_close(&pair);
}

static void test_peer10_too_large_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    size_t wire_bytes = 0;
    pair_open(&pair);
    struct session *session = pair.sides[0].session;
    assert_int_equal(
        session_seal(session, NOW, text, RECORD_BYTES_MAX + 1, NULL, 0, wire, &wire_bytes),
        E_INVALID);
    assert_int_equal(session_seal(session, NOW, text, 1, text, RECORD_BYTES_MAX, wire, &wire_bytes),
                     E_INVALID);
    assert_int_equal(session_seal(session, NOW, text, 1, text, SIZE_MAX, wire, &wire_bytes),
                     E_INVALID);
    assert_int_equal(session_state(session), SESSION_ESTABLISHED);
    open_expect(pair.sides[1].session, NOW, seal(session, NOW, 5));
    pair_close(&pair);
}

/* PEER-10: bad lengths and reserved bits are refused on the header alone. */
static void test_peer10_header(void **state)
{
    (void)state;
    static const uint32_t bad[] = {RECORD_BYTES_MAX + 1, 0x0001ffff, 0x00020000,
                                   0x40000000,           0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pair pair;
        pair_open(&pair);
        store_be32(wire, bad[i]);
        open_refused(pair.sides[1].session, RECORD_HEADER_BYTES, E_PROTOCOL);
        pair_close(&pair);
    }
}

static void test_unfinished_record_waits(void **state)
{
    (void)state;
    struct pair pair;
    size_t consumed = 0;
    size_t plain_bytes = 0;
    const uint8_t *plain = NULL;
    pair_open(&pair);
    size_t wire_bytes = seal(pair.sides[0].session, NOW, 100);
    for (size_t have = 0; have < wire_bytes; have++) {
        assert_int_equal(session_receive(pair.sides[1].session, NOW, wire, have, &consumed, &plain,
                                         &plain_bytes),
                         0);
        assert_int_equal(consumed, 0);
        assert_null(plain);
        size_t missing = have < RECORD_HEADER_BYTES ? 0 : wire_bytes - have;
        assert_int_equal(session_missing(pair.sides[1].session, wire, have), missing);
    }
    assert_int_equal(session_missing(pair.sides[1].session, wire, wire_bytes), 0);
    assert_int_equal(session_missing(pair.sides[1].session, wire, wire_bytes + 1), 0);
    open_expect(pair.sides[1].session, NOW, wire_bytes);
    pair_close(&pair);
}

/* Whatever a header says, no more is waited for than the longest record. */
static void test_missing_of_a_bad_header_is_unknown(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    store_be32(wire, RECORD_BYTES_MAX);
    assert_int_equal(session_missing(pair.sides[1].session, wire, RECORD_HEADER_BYTES),
                     RECORD_BYTES_MAX + RECORD_TAG_BYTES);
    store_be32(wire, RECORD_BYTES_MAX + 1);
    assert_int_equal(session_missing(pair.sides[1].session, wire, RECORD_HEADER_BYTES), 0);
    open_refused(pair.sides[1].session, RECORD_HEADER_BYTES, E_PROTOCOL);
    store_be32(wire, 100);
    assert_int_equal(session_missing(pair.sides[1].session, wire, RECORD_HEADER_BYTES), 0);
    pair_close(&pair);
}

/* Each changed bit ends the session; what was in the buffer is wiped. */
static void test_peer9_every_tampered_bit(void **state)
{
    (void)state;
    size_t bits = 8;
    for (size_t turn = 0; turn < 2 * bits; turn++) {
        struct pair pair;
        size_t bit = turn / 2;
        size_t consumed = 0;
        size_t plain_bytes = 0;
        const uint8_t *plain = NULL;
        pair_open_offering(&pair, turn % 2 == 0 ? 0 : 3);
        size_t wire_bytes = seal(pair.sides[0].session, NOW, 9);
        bits = wire_bytes * 8;
        wire[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        int err = session_receive(pair.sides[1].session, NOW, wire, wire_bytes, &consumed, &plain,
                                  &plain_bytes);
        if (err == 0) { /* a longer length: the rest never comes */
            assert_true(bit < RECORD_HEADER_BYTES * 8);
            assert_int_equal(consumed, 0);
        } else {
            assert_true(err == E_AUTH || err == E_PROTOCOL);
            assert_true(bit < RECORD_HEADER_BYTES * 8 || err == E_AUTH);
        }
        if (err == E_AUTH)
            assert_true(sodium_is_zero(wire, OVERHEAD));
        assert_null(plain);
        pair_close(&pair);
    }
}

/* The counter is not sent: a repeated, dropped, swapped or echoed record does not open. */
static void test_records_open_once_and_in_order(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 6; turn++) {
        struct pair pair;
        uint8_t first[64];
        unsigned variant = turn / 2;
        pair_open_offering(&pair, turn % 2 == 0 ? 0 : 3);
        size_t wire_bytes = seal(pair.sides[0].session, NOW, 9);
        memcpy(first, wire, wire_bytes);
        if (variant == 0) { /* repeated */
            open_expect(pair.sides[1].session, NOW, wire_bytes);
            memcpy(wire, first, wire_bytes);
            open_refused(pair.sides[1].session, wire_bytes, E_AUTH);
        } else if (variant == 1) { /* the first one dropped */
            wire_bytes = seal(pair.sides[0].session, NOW, 9);
            open_refused(pair.sides[1].session, wire_bytes, E_AUTH);
        } else { /* back to its sender */
            open_refused(pair.sides[0].session, wire_bytes, E_AUTH);
        }
        pair_close(&pair);
    }
}

static bool rekeyed(void)
{
    return (wire[0] & 0x80) != 0;
}

/* PEER-6: a new key when the bytes, the time or the records are used up; nothing is lost. */
static void test_peer6_rekey_by_bytes_and_time(void **state)
{
    (void)state;
    struct pair pair;
    world_init(&pair.world, 2);
    world_sides(&pair.world, pair.sides);
    pair.sides[0].config.rekey_bytes = 1000;
    pair.sides[1].config.rekey_us = 500;
    assert_int_equal(world_open(&pair.world, pair.sides, NOW), 0);
    assert_int_equal(world_shake(pair.sides, NOW), 0);
    struct session *a = pair.sides[0].session;
    struct session *b = pair.sides[1].session;
    for (unsigned i = 0; i < 40; i++) {
        size_t wire_bytes = seal(a, NOW, 250);
        assert_int_equal(rekeyed(), i > 0 && i % 4 == 0);
        open_expect(b, NOW, wire_bytes);
    }
    for (unsigned i = 0; i < 40; i++) {
        size_t wire_bytes = seal(b, NOW + 100ULL * i, 250);
        assert_int_equal(rekeyed(), i > 0 && i % 5 == 0);
        open_expect(a, NOW + 100ULL * i, wire_bytes);
    }
    pair_close(&pair);
}

static void test_peer6_rekey_defaults(void **state)
{
    (void)state;
    struct record_key record = {.since_us = NOW};
    const uint64_t hour_us = 3600000000ULL;
    const uint64_t bytes = 64ULL << 30;
    assert_false(record__rekey_due(&record, NOW + hour_us - 1, bytes, hour_us));
    assert_true(record__rekey_due(&record, NOW + hour_us, bytes, hour_us));
    record.records = (1ULL << 32) - 1;
    assert_false(record__rekey_due(&record, NOW, bytes, hour_us));
    record.records++;
    assert_true(record__rekey_due(&record, NOW, bytes, hour_us));
    record.records = 0;
    record.bytes = bytes - 1;
    assert_false(record__rekey_due(&record, NOW, bytes, hour_us));
    record.bytes++;
    assert_true(record__rekey_due(&record, NOW, bytes, hour_us));
    /* The session's own defaults: an hour later the next record is under a new key. */
    struct pair pair;
    pair_open(&pair);
    open_expect(pair.sides[1].session, NOW, seal(pair.sides[0].session, NOW + hour_us - 1, 10));
    assert_false(rekeyed());
    size_t wire_bytes = seal(pair.sides[0].session, NOW + hour_us, 10);
    assert_true(rekeyed());
    open_expect(pair.sides[1].session, NOW + hour_us, wire_bytes);
    pair_close(&pair);
}

/* What is on the wire, computed apart with libsodium: key, nonce, header as AD, rekey. Four zero
 * bytes, then the counter, little-endian or, for AES, big-endian; it runs on over rekeys. */
static void check_form(enum aead_kind cipher)
{
    struct record_key record;
    uint8_t key[32];
    uint8_t expected[64];
    uint8_t nonce[12] = {0};
    size_t wire_bytes = 0;
    const struct record_input input = {.head = text, .head_bytes = 20};
    bool aes = cipher != AEAD_CHACHA20_POLY1305;
    memset(key, 5, sizeof key);
    assert_int_equal(record__init(&record, cipher, key, true, NOW), 0);
    for (uint8_t i = 0; i < 3; i++) {
        bool next_key = i == 2;
        store_be32(expected, 20u | (next_key ? 0x80000000u : 0));
        nonce[aes ? 11 : 4] = i;
        if (next_key) {
            noise__rekey(key);
            assert_int_equal(record__rekey(&record, NOW), 0);
        }
        (void)(aes ? crypto_aead_aes256gcm_encrypt : crypto_aead_chacha20poly1305_ietf_encrypt)(
            expected + 4, NULL, text, 20, expected, 4, NULL, nonce, key);
        assert_int_equal(record__seal(&record, &input, next_key, wire, &wire_bytes), 0);
        assert_int_equal(wire_bytes, 20 + OVERHEAD);
        assert_memory_equal(wire, expected, wire_bytes);
    }
    record__close(&record);
    record__close(&record); /* harmless */
}

static void test_record_form(void **state)
{
    (void)state;
    check_form(AEAD_CHACHA20_POLY1305);
}

static void test_record_form_aes(void **state)
{
    (void)state;
    if (!crypto_aead_aes256gcm_is_available())
        skip(); /* libsodium has it for processors with AES instructions alone */
    check_form(AEAD_AES_256_GCM);
    check_form(AEAD_AES_256_GCM_LIBGCRYPT);
}

/* PEER-8: a node that is denied while connected is let go within 60 s of use. */
static void test_peer8_denied_while_connected(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    pair.sides[1].admission.denied[0] = pair.sides[0].identity.public_key;
    pair.sides[1].admission.denied_count = 1;
    const uint64_t later = NOW + 59000000;
    size_t wire_bytes = seal(pair.sides[0].session, later, 9);
    size_t consumed = 0;
    size_t plain_bytes = 0;
    const uint8_t *plain = NULL;
    assert_int_equal(session_receive(pair.sides[1].session, later, wire, wire_bytes, &consumed,
                                     &plain, &plain_bytes),
                     E_AUTH);
    assert_null(plain);
    pair_close(&pair);
}

/* Printed, not judged: other load on the machine would make a bound flaky. */
static void test_figure_speed(void **state)
{
    (void)state;
    struct pair pair;
    struct timespec times[3];
    enum { RECORDS = 512 };
    const size_t record_bytes = RECORD_BYTES_MAX + OVERHEAD;
    uint8_t *records = calloc(RECORDS, record_bytes);
    assert_non_null(records);
    pair_open(&pair);
    for (unsigned pass = 0; pass < 3; pass++) { /* the last one counts: warm pages */
        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &times[0]);
        for (size_t i = 0; i < RECORDS; i++) {
            size_t wire_bytes = 0;
            assert_int_equal(session_seal(pair.sides[0].session, NOW, text, 20, text + 20,
                                          RECORD_BYTES_MAX - 20, records + i * record_bytes,
                                          &wire_bytes),
                             0);
        }
        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &times[1]);
        for (size_t i = 0; i < RECORDS; i++) {
            size_t consumed = 0;
            size_t plain_bytes = 0;
            const uint8_t *plain = NULL;
            assert_int_equal(session_receive(pair.sides[1].session, NOW, records + i * record_bytes,
                                             record_bytes, &consumed, &plain, &plain_bytes),
                             0);
        }
        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &times[2]);
    }
    double bytes = (double)RECORDS * RECORD_BYTES_MAX;
    double rates[2];
    for (unsigned i = 0; i < 2; i++)
        rates[i] = bytes / ((double)(times[i + 1].tv_sec - times[i].tv_sec) * 1e9 +
                            (double)(times[i + 1].tv_nsec - times[i].tv_nsec));
    printf("figure: 64 KiB records, one core: seal %.2f GB/s, open %.2f GB/s\n", rates[0],
           rates[1]);
    pair_close(&pair);
    free(records);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_of_sizes),
        cmocka_unit_test(test_peer6_cipher_is_agreed),
        cmocka_unit_test(test_opened_where_it_belongs),
        cmocka_unit_test(test_peer9_tampered_is_wiped_where_it_belongs),
        cmocka_unit_test(test_choice_of_cipher),
        cmocka_unit_test(test_two_spans_make_one_record),
        cmocka_unit_test(test_peer10_too_large_is_refused),
        cmocka_unit_test(test_peer10_header),
        cmocka_unit_test(test_unfinished_record_waits),
        cmocka_unit_test(test_missing_of_a_bad_header_is_unknown),
        cmocka_unit_test(test_peer9_every_tampered_bit),
        cmocka_unit_test(test_records_open_once_and_in_order),
        cmocka_unit_test(test_peer6_rekey_by_bytes_and_time),
        cmocka_unit_test(test_peer6_rekey_defaults),
        cmocka_unit_test(test_record_form),
        cmocka_unit_test(test_record_form_aes),
        cmocka_unit_test(test_peer8_denied_while_connected),
        cmocka_unit_test(test_figure_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
