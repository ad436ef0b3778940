/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/digest.c: text form (ORG-8), published vectors, and the mesh's derived keys,
 * whose values are fixed here because nodes of different versions must agree on them (C-3). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"

#define ABC_256 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_512                                                                                    \
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                             \
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
#define EMPTY_256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void assert_hex(const uint8_t *bytes, size_t byte_count, const char *hex)
{
    char text[2 * DIGEST_BYTES_MAX + 1];
    hex_encode(bytes, byte_count, text);
    assert_string_equal(text, hex);
}

static void test_digest_text_round_trips(void **state)
{
    (void)state;
    static const char *const texts[] = {"sha256:" ABC_256, "sha512:" ABC_512};
    for (size_t i = 0; i < 2; i++) {
        struct digest digest;
        char text[DIGEST_TEXT_BYTES];
        assert_int_equal(digest_parse(texts[i], strlen(texts[i]), &digest), 0);
        assert_string_equal(digest_text(&digest, text), texts[i]);
    }
    struct digest none = {.algorithm = DIGEST_NONE};
    char text[DIGEST_TEXT_BYTES];
    assert_string_equal(digest_text(&none, text), "none");
}

static void test_digest_refuses_other_forms_org8(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "sha256",
        "sha256:",
        "sha256:" ABC_512,
        "sha512:" ABC_256,
        "SHA256:" ABC_256,
        "sha256-" ABC_256,
        "sha384:" ABC_256,
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:" ABC_256 "0",
        "sha256:" ABC_256 " ",
        " sha256:" ABC_256,
        "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
        "sha256:../../../../../../../../../../../../../../../../../../etc/passwd",
        "sha256+b64:" ABC_256,
        ABC_256,
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct digest digest = {.algorithm = DIGEST_NONE};
        if (digest_parse(bad[i], strlen(bad[i]), &digest) != E_MALFORMED)
            fail_msg("accepted \"%s\"", bad[i]);
        assert_int_equal(digest.algorithm, DIGEST_NONE);
    }
    /* A NUL inside, and every shorter text. */
    char text[] = "sha256:" ABC_256;
    struct digest digest;
    for (size_t length = 0; length < strlen(text); length++)
        assert_int_equal(digest_parse(text, length, &digest), E_MALFORMED);
    text[20] = '\0';
    assert_int_equal(digest_parse(text, sizeof text - 1, &digest), E_MALFORMED);
}

static void test_digest_sizes(void **state)
{
    (void)state;
    assert_int_equal(digest_bytes(DIGEST_SHA256), 32);
    assert_int_equal(digest_bytes(DIGEST_SHA512), 64);
    assert_int_equal(digest_bytes(DIGEST_NONE), 0);
    assert_int_equal(digest_bytes((enum digest_algorithm)9), 0);
}

static void test_digest_equality(void **state)
{
    (void)state;
    struct digest a, b;
    digest_of(DIGEST_SHA256, "abc", 3, &a);
    digest_of(DIGEST_SHA256, "abc", 3, &b);
    assert_true(digest_equal(&a, &b));
    b.bytes[31] ^= 1;
    assert_false(digest_equal(&a, &b));
    b = a;
    b.algorithm = DIGEST_SHA512;
    assert_false(digest_equal(&a, &b));
}

static void test_one_shot_vectors_of_fips180(void **state)
{
    (void)state;
    struct digest digest;
    struct piece_hash piece;
    uint8_t out[32];
    digest_of(DIGEST_SHA256, "abc", 3, &digest);
    assert_hex(digest.bytes, 32, ABC_256);
    digest_of(DIGEST_SHA512, "abc", 3, &digest);
    assert_hex(digest.bytes, 64, ABC_512);
    sha256_of("", 0, out);
    assert_hex(out, 32, EMPTY_256);
    sha256_of(NULL, 0, out);
    assert_hex(out, 32, EMPTY_256);
    piece_hash_of("abc", 3, &piece);
    assert_hex(piece.bytes, 32, ABC_256);
}

static void test_incremental_equals_one_shot(void **state)
{
    (void)state;
    static const enum digest_algorithm algorithms[] = {DIGEST_SHA256, DIGEST_SHA512};
    uint8_t data[1000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t a = 0; a < 2; a++) {
        struct hasher *hasher = NULL;
        struct digest whole, parts;
        digest_of(algorithms[a], data, sizeof data, &whole);
        assert_int_equal(hasher_new(algorithms[a], &hasher), 0);
        for (size_t step = 1; step < 300; step += 13) {
            hasher_reset(hasher);
            for (size_t at = 0; at < sizeof data; at += step)
                hasher_update(hasher, data + at, sizeof data - at < step ? sizeof data - at : step);
            memset(&parts, 0xee, sizeof parts);
            hasher_final(hasher, &parts);
            assert_true(digest_equal(&whole, &parts));
            assert_memory_equal(&whole, &parts, sizeof whole); /* unused bytes are zero */
        }
        hasher_free(hasher);
    }
}

static void test_million_a(void **state)
{
    (void)state;
    char block[1000];
    struct digest digest;
    struct hasher *hasher = NULL;
    memset(block, 'a', sizeof block);
    assert_int_equal(hasher_new(DIGEST_SHA256, &hasher), 0);
    for (unsigned i = 0; i < 1000; i++)
        hasher_update(hasher, block, sizeof block);
    hasher_final(hasher, &digest);
    assert_hex(digest.bytes, 32,
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    hasher_free(hasher);
    hasher_free(NULL);
}

static void test_hasher_needs_an_algorithm(void **state)
{
    (void)state;
    struct hasher *hasher = NULL;
    assert_int_equal(hasher_new(DIGEST_NONE, &hasher), E_INVALID);
    assert_int_equal(hasher_new((enum digest_algorithm)5, &hasher), E_INVALID);
    assert_null(hasher);
}

static void test_hmac_vectors_of_rfc4231(void **state)
{
    (void)state;
    /* Keys shorter than 32 bytes are padded with zeros, which RFC 2104 does anyway. */
    uint8_t key[32] = {0}, out[32];
    memset(key, 0x0b, 20);
    hmac_sha256(key, "Hi There", 8, NULL, 0, out);
    assert_hex(out, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hmac_sha256(key, NULL, 0, "Hi There", 8, out);
    assert_hex(out, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    memset(key, 0, sizeof key);
    memcpy(key, "Jefe", 4);
    hmac_sha256(key, "what do ya want ", 16, "for nothing?", 12, out);
    assert_hex(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0, sizeof key);
    memset(key, 0xaa, 20);
    uint8_t data[50];
    memset(data, 0xdd, sizeof data);
    hmac_sha256(key, data, 50, "", 0, out);
    assert_hex(out, 32, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
}

static void test_blob_key_is_keyed_acl9(void **state)
{
    (void)state;
    uint8_t lookup_key[32];
    struct digest digest;
    struct blob_key key, other;
    for (unsigned i = 0; i < 32; i++)
        lookup_key[i] = (uint8_t)i;
    digest_of(DIGEST_SHA256, "shoal", 5, &digest);
    blob_key_of(lookup_key, &digest, &key);
    assert_hex(key.bytes, 32, "c0e9e9fa00346a7e222be4bdd835d9aecd73a75a3e73664efc24d5f469fc7512");
    lookup_key[0] ^= 1;
    blob_key_of(lookup_key, &digest, &other);
    assert_false(blob_key_equal(&key, &other));
    lookup_key[0] ^= 1;
    digest_of(DIGEST_SHA512, "shoal", 5, &digest);
    blob_key_of(lookup_key, &digest, &other);
    assert_hex(other.bytes, 32, "fe93589afe3fa7d3ff715f9b782c7621f9adac08a52285b7d2842a3db3ef15d8");
}

static void test_each_cut_has_a_key_of_its_own(void **state)
{
    (void)state;
    const uint8_t lookup_key[32] = {7};
    struct digest digest;
    struct blob_key plain, key, fine;
    uint8_t form[33] = {DIGEST_SHA256}, expected[32];
    digest_of(DIGEST_SHA256, "shoal", 5, &digest);
    blob_key_of(lookup_key, &digest, &plain);
    blob_key_cut(lookup_key, &digest, PIECE_CUT_PLAIN, &key);
    assert_true(blob_key_equal(&plain, &key));
    blob_key_cut(lookup_key, &digest, PIECE_CUT_FINE, &fine);
    assert_false(blob_key_equal(&plain, &fine));
    memcpy(form + 1, digest.bytes, 32);
    hmac_sha256(lookup_key, "shoal blob fine", 15, form, sizeof form, expected);
    assert_memory_equal(fine.bytes, expected, sizeof expected);
}

static void test_segment_keys_differ_by_index(void **state)
{
    (void)state;
    struct blob_key blob;
    uint8_t key[32], other[32];
    assert_int_equal(hex_decode("c0e9e9fa00346a7e222be4bdd835d9ae"
                                "cd73a75a3e73664efc24d5f469fc7512",
                                64, blob.bytes, sizeof blob.bytes),
                     0);
    segment_key_of(&blob, 0x01020304, key);
    assert_hex(key, 32, "c0bf1a643825cd096704ad3f6709d235da7ebc633c074edf5df2499da87df0c4");
    segment_key_of(&blob, 0x01020305, other);
    assert_memory_not_equal(key, other, 32);
}

static void test_proof_is_bound_to_both_ends_acl9(void **state)
{
    (void)state;
    struct digest digest;
    struct node_id from, to;
    uint8_t proof[DIGEST_PROOF_BYTES], other[DIGEST_PROOF_BYTES];
    memset(&from, 0xaa, sizeof from);
    memset(&to, 0xbb, sizeof to);
    digest_of(DIGEST_SHA256, "shoal", 5, &digest);
    digest_proof(&digest, &from, &to, proof);
    assert_hex(proof, sizeof proof, "6a0940618fc0dd145d35cbbf6958b952");
    digest_proof(&digest, &to, &from, other);
    assert_memory_not_equal(proof, other, sizeof proof);
    digest.bytes[0] ^= 1;
    digest_proof(&digest, &from, &to, other);
    assert_memory_not_equal(proof, other, sizeof proof);
}

static void test_node_id_follows_cluster_and_address_peer4(void **state)
{
    (void)state;
    struct peer_addr addr;
    struct node_id id, other;
    assert_int_equal(peer_addr_parse("10.0.0.1:65002", 1, &addr), 0);
    node_id_of("demo", &addr, &id);
    assert_hex(id.bytes, 32, "16f068f127e6a073fa7f8a40a4925690ce4bd1e5eae95733489f4b29e10a8225");
    node_id_of("dem", &addr, &other);
    assert_false(node_id_equal(&id, &other));
    addr.port++;
    node_id_of("demo", &addr, &other);
    assert_false(node_id_equal(&id, &other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest_text_round_trips),
        cmocka_unit_test(test_digest_refuses_other_forms_org8),
        cmocka_unit_test(test_digest_sizes),
        cmocka_unit_test(test_digest_equality),
        cmocka_unit_test(test_one_shot_vectors_of_fips180),
        cmocka_unit_test(test_incremental_equals_one_shot),
        cmocka_unit_test(test_million_a),
        cmocka_unit_test(test_hasher_needs_an_algorithm),
        cmocka_unit_test(test_hmac_vectors_of_rfc4231),
        cmocka_unit_test(test_blob_key_is_keyed_acl9),
        cmocka_unit_test(test_each_cut_has_a_key_of_its_own),
        cmocka_unit_test(test_segment_keys_differ_by_index),
        cmocka_unit_test(test_proof_is_bound_to_both_ends_acl9),
        cmocka_unit_test(test_node_id_follows_cluster_and_address_peer4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
