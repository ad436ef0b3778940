/* SPDX-License-Identifier: Apache-2.0 */
/* Identities, their file form, vouchers and admission (PEER-1, PEER-2, INT-6). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sodium.h>

#include "../../src/session/identity_key.h"
#include "session_world.h"

static void test_peer1_session_key_is_signed(void **state)
{
    (void)state;
    struct world world;
    struct identity a;
    struct identity b;
    world_init(&world, 1);
    identity_generate(&world.env, &a);
    identity_generate(&world.env, &b);
    assert_memory_not_equal(&a, &b, sizeof a);
    assert_memory_not_equal(a.public_key.bytes, a.static_public, 32);
    assert_int_equal(identity__verify_static(&a.public_key, a.static_public, a.static_signature),
                     0);
    assert_int_equal(identity__verify_static(&a.public_key, b.static_public, a.static_signature),
                     E_AUTH);
    assert_int_equal(identity__verify_static(&b.public_key, a.static_public, a.static_signature),
                     E_AUTH);
    /* The statement is exactly what the header says. */
    uint8_t statement[12 + 32];
    memcpy(statement, "shoal static", 12);
    memcpy(statement + 12, a.static_public, 32);
    assert_int_equal(crypto_sign_ed25519_verify_detached(a.static_signature, statement,
                                                         sizeof statement, a.public_key.bytes),
                     0);
}

/* A simulation can be replayed: the same randomness gives the same identity. */
static void test_generation_draws_from_env_only(void **state)
{
    (void)state;
    struct world worlds[2];
    struct identity identities[2];
    for (unsigned i = 0; i < 2; i++) {
        world_init(&worlds[i], 42);
        identity_generate(&worlds[i].env, &identities[i]);
    }
    assert_memory_equal(&identities[0], &identities[1], sizeof identities[0]);
}

static void test_file_round_trip(void **state)
{
    (void)state;
    struct world world;
    struct identity identity;
    struct identity again;
    uint8_t file[IDENTITY_FILE_BYTES];
    world_init(&world, 2);
    identity_generate(&world.env, &identity);
    identity_encode(&identity, file);
    assert_int_equal(identity_decode(file, sizeof file, &again), 0);
    assert_memory_equal(&identity, &again, sizeof identity);
    identity_close(&again);
    assert_true(sodium_is_zero((const uint8_t *)&again, sizeof again));
}

static void test_file_damage_is_noticed(void **state)
{
    (void)state;
    struct world world;
    struct identity identity;
    struct identity out;
    uint8_t file[IDENTITY_FILE_BYTES + 1] = {0};
    world_init(&world, 3);
    identity_generate(&world.env, &identity);
    identity_encode(&identity, file);
    memset(&out, 0x5a, sizeof out);
    struct identity untouched = out;
    for (size_t i = 0; i < IDENTITY_FILE_BYTES; i++) {
        file[i] ^= 0x10;
        int expected = i == 7 ? E_VERSION : E_MALFORMED;
        assert_int_equal(identity_decode(file, IDENTITY_FILE_BYTES, &out), expected);
        file[i] ^= 0x10;
    }
    for (size_t length = 0; length <= IDENTITY_FILE_BYTES + 1; length++) {
        if (length != IDENTITY_FILE_BYTES)
            assert_int_equal(identity_decode(file, length, &out), E_MALFORMED);
    }
    assert_memory_equal(&out, &untouched, sizeof out);
}

static void put_checksum(uint8_t file[IDENTITY_FILE_BYTES])
{
    (void)crypto_generichash_blake2b(file + 144, 16, file, 144, NULL, 0);
}

/* Right checksum, wrong content: halves of two identities, or bytes that mean nothing yet. */
static void test_file_of_two_halves_is_refused(void **state)
{
    (void)state;
    struct world world;
    struct identity identities[2];
    struct identity out;
    uint8_t files[2][IDENTITY_FILE_BYTES];
    static const size_t parts[] = {8, 40, 72, 104, 136};
    world_init(&world, 4);
    for (unsigned i = 0; i < 2; i++) {
        identity_generate(&world.env, &identities[i]);
        identity_encode(&identities[i], files[i]);
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        uint8_t mixed[IDENTITY_FILE_BYTES];
        memcpy(mixed, files[0], sizeof mixed);
        memcpy(mixed + parts[i], files[1] + 8, 8);
        put_checksum(mixed);
        assert_int_equal(identity_decode(mixed, sizeof mixed, &out), E_MALFORMED);
    }
    put_checksum(files[0]);
    assert_int_equal(identity_decode(files[0], sizeof files[0], &out), 0);
}

static void make_voucher(struct world *world, struct identity *identity, struct blob_key *blob,
                         struct voucher *voucher)
{
    identity_generate(&world->env, identity);
    memset(voucher, 0, sizeof *voucher);
    world_random(world, blob->bytes, sizeof blob->bytes);
    world_random(world, voucher->signer.bytes, sizeof voucher->signer.bytes);
    world_random(world, voucher->hash.bytes, sizeof voucher->hash.bytes);
    voucher->piece_index = 77;
    voucher->piece_bytes = PIECE_BYTES_MIN;
    voucher_sign(identity, blob, voucher);
}

/* INT-6: the signature holds for one blob, piece, length, hash and signer, and nothing else. */
static void test_int6_voucher_covers_everything(void **state)
{
    (void)state;
    struct world world;
    struct identity identity;
    struct identity other;
    struct blob_key blob;
    struct voucher voucher;
    world_init(&world, 5);
    make_voucher(&world, &identity, &blob, &voucher);
    identity_generate(&world.env, &other);
    assert_memory_equal(voucher.signer_key.bytes, identity.public_key.bytes, 32);
    assert_int_equal(voucher_verify(&blob, &voucher), 0);
    for (size_t i = 0; i < sizeof blob.bytes; i++) {
        blob.bytes[i] ^= 1;
        assert_int_equal(voucher_verify(&blob, &voucher), E_VOUCHER);
        blob.bytes[i] ^= 1;
    }
    for (size_t i = 0; i < sizeof voucher; i++) {
        struct voucher changed = voucher;
        ((uint8_t *)&changed)[i] ^= 1;
        assert_int_equal(voucher_verify(&blob, &changed), E_VOUCHER);
    }
    voucher.signer_key = other.public_key;
    assert_int_equal(voucher_verify(&blob, &voucher), E_VOUCHER);
}

static void test_lookup_key_follows_secret_and_cluster(void **state)
{
    (void)state;
    struct admission admission;
    uint8_t keys[4][32];
    world_admission(&admission, 1);
    admission_lookup_key(&admission, keys[0]);
    admission_lookup_key(&admission, keys[1]);
    assert_memory_equal(keys[0], keys[1], 32);
    admission.cluster_id[0] = 'T';
    admission_lookup_key(&admission, keys[2]);
    assert_memory_not_equal(keys[0], keys[2], 32);
    world_admission(&admission, 2);
    admission_lookup_key(&admission, keys[3]);
    assert_memory_not_equal(keys[0], keys[3], 32);
    /* A second, still valid secret does not count. */
    world_admission(&admission, 1);
    admission.secret_count = 2;
    memset(admission.secrets[1], 2, CLUSTER_SECRET_BYTES);
    admission_lookup_key(&admission, keys[1]);
    assert_memory_equal(keys[0], keys[1], 32);
}

static void test_deny_list(void **state)
{
    (void)state;
    struct admission admission;
    world_admission(&admission, 1);
    struct identity_key key = {.bytes = {3}};
    assert_false(admission_denied(&admission, &key));
    admission.denied_count = DENIED_MAX;
    admission.denied[DENIED_MAX - 1] = key;
    assert_true(admission_denied(&admission, &key));
    admission.denied_count = DENIED_MAX - 1;
    assert_false(admission_denied(&admission, &key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer1_session_key_is_signed),
        cmocka_unit_test(test_generation_draws_from_env_only),
        cmocka_unit_test(test_file_round_trip),
        cmocka_unit_test(test_file_damage_is_noticed),
        cmocka_unit_test(test_file_of_two_halves_is_refused),
        cmocka_unit_test(test_int6_voucher_covers_everything),
        cmocka_unit_test(test_lookup_key_follows_secret_and_cluster),
        cmocka_unit_test(test_deny_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
