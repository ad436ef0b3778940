/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of hasher_update_piece and hasher_update_beside: one pass must give what two passes give,
 * on a block's boundary and off it, for both algorithms, whatever the length and alignment. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"

#define ABC_256 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define BYTES   (64 * 1024 + 200)

static uint8_t data[BYTES];

static void fill(void)
{
    uint32_t word = 12345;
    for (size_t i = 0; i < sizeof data; i++) {
        word = word * 1664525 + 1013904223;
        data[i] = (uint8_t)(word >> 24);
    }
}

/* Feeds `lengths` one after the other from `start` on, and compares with plain hashing. */
static void check_run(enum digest_algorithm algorithm, size_t start, const size_t *lengths,
                      size_t count)
{
    struct hasher *hasher;
    struct digest got, wanted;
    size_t at = start;
    assert_int_equal(hasher_new(algorithm, &hasher), 0);
    for (size_t i = 0; i < count; i++) {
        struct piece_hash piece, alone;
        assert_true(at + lengths[i] <= sizeof data);
        piece_hash_of(data + at, lengths[i], &alone);
        assert_true(
            hasher_update_piece(hasher, data + at, lengths[i], i % 2 == 0 ? NULL : &alone, &piece));
        assert_memory_equal(piece.bytes, alone.bytes, sizeof alone.bytes);
        at += lengths[i];
    }
    hasher_final(hasher, &got);
    digest_of(algorithm, data + start, at - start, &wanted);
    assert_true(digest_equal(&got, &wanted));
    hasher_free(hasher);
}

static void test_piece_of_fips180_vector(void **state)
{
    (void)state;
    struct hasher *hasher;
    struct digest digest;
    struct piece_hash piece;
    char hex[2 * 32 + 1];
    assert_int_equal(hasher_new(DIGEST_SHA256, &hasher), 0);
    assert_true(hasher_update_piece(hasher, "abc", 3, NULL, &piece));
    hasher_final(hasher, &digest);
    hex_encode(piece.bytes, 32, hex);
    assert_string_equal(hex, ABC_256);
    hex_encode(digest.bytes, 32, hex);
    assert_string_equal(hex, ABC_256);
    hasher_free(hasher);
}

static void test_every_short_length(void **state)
{
    (void)state;
    for (size_t length = 0; length < 300; length++) {
        const size_t run[] = {length, 64, 300 - length};
        check_run(DIGEST_SHA256, length % 17, run, 3);
        check_run(DIGEST_SHA512, length % 17, run, 3);
    }
}

static void test_pieces_then_a_tail(void **state)
{
    (void)state;
    static const size_t runs[][4] = {
        {16384, 16384, 16384, 1},    {65536, 64, 63, 1},     {64, 65472, 7, 100},
        {1, 65536, 100, 3},          {0, 4096, 0, 61375},    {63, 1, 64, 4096},
        {128, 192, 65536 - 320, 20}, {4096, 100, 4096, 100},
    };
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        check_run(DIGEST_SHA256, i, runs[i], 4);
        check_run(DIGEST_SHA512, i, runs[i], 4);
    }
}

/* Wrong bytes must not reach the blob's hash (INT-4). */
static void test_unexpected_piece_leaves_the_hasher(void **state)
{
    (void)state;
    static const enum digest_algorithm algorithms[] = {DIGEST_SHA256, DIGEST_SHA512};
    static const size_t befores[] = {0, 1, 64, 4096};
    for (size_t i = 0; i < 8; i++) {
        struct hasher *hasher;
        struct digest got, wanted;
        struct piece_hash expected, piece, alone;
        size_t before = befores[i / 2];
        assert_int_equal(hasher_new(algorithms[i % 2], &hasher), 0);
        hasher_update(hasher, data, before);
        piece_hash_of(data + before, 1000, &expected);
        piece_hash_of(data + before + 1, 1000, &alone);
        assert_false(hasher_update_piece(hasher, data + before + 1, 1000, &expected, &piece));
        assert_memory_equal(piece.bytes, alone.bytes, sizeof alone.bytes);
        assert_true(hasher_update_piece(hasher, data + before, 1000, &expected, &piece));
        hasher_final(hasher, &got);
        digest_of(algorithms[i % 2], data, before + 1000, &wanted);
        assert_true(digest_equal(&got, &wanted));
        hasher_free(hasher);
    }
}

/* Spans of any two lengths side by side are what they are one by one, whatever was hashed before.
 */
static void check_beside(enum digest_algorithm algorithm, size_t before, size_t span_bytes,
                         size_t piece_bytes)
{
    struct hasher *hasher;
    struct digest got, wanted;
    struct piece_hash piece, alone;
    const uint8_t *other = data + 5000;
    assert_int_equal(hasher_new(algorithm, &hasher), 0);
    hasher_update(hasher, data, before);
    const struct hash_span span = {data + before, span_bytes};
    hasher_update_beside(hasher, &span, &(struct hash_span){other, piece_bytes}, &piece);
    piece_hash_of(other, piece_bytes, &alone);
    assert_memory_equal(piece.bytes, alone.bytes, sizeof alone.bytes);
    hasher_update(hasher, data + before + span_bytes, 77);
    hasher_final(hasher, &got);
    digest_of(algorithm, data, before + span_bytes + 77, &wanted);
    assert_true(digest_equal(&got, &wanted));
    hasher_free(hasher);
}

static void test_other_bytes_beside(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 63, 64, 65, 127, 128, 1000, 4096, 32768, 40001};
    static const size_t befores[] = {0, 64, 100, 4096};
    size_t count = sizeof lengths / sizeof lengths[0];
    for (size_t i = 0; i < count * count; i++) {
        size_t before = befores[i % 4];
        check_beside(DIGEST_SHA256, before, lengths[i / count], lengths[i % count]);
        check_beside(DIGEST_SHA512, before, lengths[i / count], lengths[i % count]);
    }
}

static void test_reset_between(void **state)
{
    (void)state;
    struct hasher *hasher;
    struct digest got, wanted;
    struct piece_hash piece;
    assert_int_equal(hasher_new(DIGEST_SHA256, &hasher), 0);
    assert_true(hasher_update_piece(hasher, data, 1024, NULL, &piece));
    hasher_reset(hasher);
    assert_true(hasher_update_piece(hasher, data, 640, NULL, &piece));
    hasher_update(hasher, data + 640, 13);
    hasher_final(hasher, &got);
    digest_of(DIGEST_SHA256, data, 653, &wanted);
    assert_true(digest_equal(&got, &wanted));
    hasher_free(hasher);
}

/* The count of bits passes 2^32 at 512 MiB: both words of it are kept right. */
static void test_more_than_512_mib(void **state)
{
    (void)state;
    struct hasher *pair, *plain;
    struct digest got, wanted;
    struct piece_hash piece;
    assert_int_equal(hasher_new(DIGEST_SHA256, &pair), 0);
    assert_int_equal(hasher_new(DIGEST_SHA256, &plain), 0);
    for (unsigned i = 0; i < 513 * 16; i++) {
        assert_true(hasher_update_piece(pair, data, 65536, NULL, &piece));
        hasher_update(plain, data, 65536);
    }
    hasher_final(pair, &got);
    hasher_final(plain, &wanted);
    assert_true(digest_equal(&got, &wanted));
    hasher_free(pair);
    hasher_free(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_piece_of_fips180_vector),
        cmocka_unit_test(test_every_short_length),
        cmocka_unit_test(test_pieces_then_a_tail),
        cmocka_unit_test(test_other_bytes_beside),
        cmocka_unit_test(test_reset_between),
        cmocka_unit_test(test_unexpected_piece_leaves_the_hasher),
        cmocka_unit_test(test_more_than_512_mib),
    };
    fill();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
