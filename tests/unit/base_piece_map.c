/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/piece_map.c: bitfields and the layout of blobs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "piece_map.h"

#define MIB (1024u * 1024u)

/* Counts live blocks; refuses to allocate while `refuse` is set. */
struct heap {
    int blocks;
    bool refuse;
};

static void *heap_alloc(void *host, void *old, size_t new_bytes)
{
    struct heap *heap = host;
    if (new_bytes == 0) {
        heap->blocks--;
        free(old);
        return NULL;
    }
    assert_null(old);
    if (heap->refuse)
        return NULL;
    heap->blocks++;
    void *block = malloc(new_bytes);
    assert_non_null(block);
    memset(block, 0xa5, new_bytes); /* what init leaves unset shows */
    return block;
}

static void test_bits_start_clear_and_close_frees(void **state)
{
    (void)state;
    struct heap heap = {0};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    struct bitfield field;
    assert_int_equal(bitfield_init(&field, &env, 13), 0);
    assert_int_equal(field.bit_count, 13);
    assert_int_equal(field.set_count, 0);
    for (uint32_t i = 0; i < 13; i++)
        assert_false(bitfield_get(&field, i));
    assert_int_equal(bitfield_next_set(&field, 0), 13);
    bitfield_close(&field, &env);
    assert_int_equal(heap.blocks, 0);
    bitfield_close(&field, &env); /* again is harmless */
    assert_int_equal(heap.blocks, 0);
}

static void test_no_memory_is_reported(void **state)
{
    (void)state;
    struct heap heap = {.refuse = true};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    struct bitfield field;
    assert_int_equal(bitfield_init(&field, &env, 1), E_NO_MEMORY);
    /* No bits need no memory. */
    assert_int_equal(bitfield_init(&field, &env, 0), 0);
    assert_true(bitfield_full(&field));
    assert_int_equal(bitfield_next_clear(&field, 0), 0);
    assert_int_equal(bitfield_merge(&field, 0, NULL, 0), 0);
    bitfield_close(&field, &env);
    assert_int_equal(heap.blocks, 0);
}

static void test_bits_are_in_bep3_order(void **state)
{
    (void)state;
    struct heap heap = {0};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    struct bitfield field;
    assert_int_equal(bitfield_init(&field, &env, 12), 0);
    assert_true(bitfield_set(&field, 0));
    assert_true(bitfield_set(&field, 11));
    assert_false(bitfield_set(&field, 11));
    assert_int_equal(field.bits[0], 0x80);
    assert_int_equal(field.bits[1], 0x10);
    assert_int_equal(field.set_count, 2);
    assert_true(bitfield_clear(&field, 0));
    assert_false(bitfield_clear(&field, 0));
    assert_int_equal(field.bits[0], 0);
    assert_int_equal(field.set_count, 1);
    bitfield_close(&field, &env);
}

static void test_searches_skip_whole_bytes(void **state)
{
    (void)state;
    struct heap heap = {0};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    struct bitfield field;
    assert_int_equal(bitfield_init(&field, &env, 100), 0);
    (void)bitfield_set(&field, 3);
    (void)bitfield_set(&field, 77);
    assert_int_equal(bitfield_next_set(&field, 0), 3);
    assert_int_equal(bitfield_next_set(&field, 3), 3);
    assert_int_equal(bitfield_next_set(&field, 4), 77);
    assert_int_equal(bitfield_next_set(&field, 78), 100);
    assert_int_equal(bitfield_next_set(&field, 100), 100);
    assert_int_equal(bitfield_next_set(&field, UINT32_MAX), 100);
    for (uint32_t i = 0; i < 100; i++)
        (void)bitfield_set(&field, i);
    assert_true(bitfield_full(&field));
    assert_int_equal(bitfield_next_clear(&field, 0), 100); /* spare bits are not found */
    (void)bitfield_clear(&field, 99);
    assert_false(bitfield_full(&field));
    assert_int_equal(bitfield_next_clear(&field, 5), 99);
    bitfield_close(&field, &env);
}

static uint32_t plain_search(const struct bitfield *field, const struct bitfield *other,
                             uint32_t from, bool wanted)
{
    while (from < field->bit_count &&
           (bitfield_get(field, from) != wanted || (other != NULL && bitfield_get(other, from))))
        from++;
    return from < field->bit_count ? from : field->bit_count;
}

/* Runs of equal bits of every length around word borders, against a search bit by bit. */
static void test_searches_find_what_a_plain_one_finds(void **state)
{
    (void)state;
    struct heap heap = {0};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    for (uint32_t bits = 1; bits < 300; bits += 37) {
        struct bitfield field, other;
        assert_int_equal(bitfield_init(&field, &env, bits), 0);
        assert_int_equal(bitfield_init(&other, &env, bits), 0);
        for (uint32_t i = 0; i < bits; i++) {
            if (i / (bits / 3 + 1) == 1)
                (void)bitfield_set(&field, i);
            if (i % 5 == 0 || i > bits / 2)
                (void)bitfield_set(&other, i);
        }
        for (uint32_t from = 0; from <= bits; from++) {
            assert_int_equal(bitfield_next_set(&field, from),
                             plain_search(&field, NULL, from, true));
            assert_int_equal(bitfield_next_clear(&field, from),
                             plain_search(&field, NULL, from, false));
            assert_int_equal(bitfield_next_only(&field, &other, from),
                             plain_search(&field, &other, from, true));
        }
        bitfield_close(&field, &env);
        bitfield_close(&other, &env);
    }
}

static void test_merge_counts_news_and_ignores_spare_bits(void **state)
{
    (void)state;
    struct heap heap = {0};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    struct bitfield field;
    static const uint8_t news[] = {0xf0, 0xff};
    assert_int_equal(bitfield_init(&field, &env, 20), 0);
    (void)bitfield_set(&field, 8);
    assert_int_equal(bitfield_merge(&field, 8, news, 2), 0);
    assert_int_equal(field.set_count, 8); /* 8..11 and 16..19 */
    assert_int_equal(field.bits[2], 0xf0);
    assert_int_equal(bitfield_next_clear(&field, 8), 12);
    bitfield_close(&field, &env);
}

/* Eight bytes at a time or one: what is set is the same as bit by bit. */
static void test_merge_sets_what_a_plain_one_sets(void **state)
{
    (void)state;
    struct heap heap = {0};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    for (uint32_t bits = 60; bits < 75; bits++) {
        for (uint32_t at = 0; at < 96; at++) { /* the one bit that is new; spare ones behind */
            struct bitfield field, plain;
            uint8_t news[12] = {0x80, 0, 0, 0x11};
            uint32_t bytes = (bits + 7) / 8;
            news[at / 8] |= (uint8_t)(0x80u >> at % 8);
            assert_int_equal(bitfield_init(&field, &env, bits), 0);
            assert_int_equal(bitfield_init(&plain, &env, bits), 0);
            (void)bitfield_set(&field, 0);
            for (uint32_t bit = 0; bit < bits; bit++) {
                if ((news[bit / 8] & 0x80u >> bit % 8) != 0)
                    (void)bitfield_set(&plain, bit);
            }
            assert_int_equal(bitfield_merge(&field, 0, news, bytes), 0);
            assert_memory_equal(field.bits, plain.bits, bytes);
            assert_int_equal(field.set_count, plain.set_count);
            bitfield_close(&field, &env);
            bitfield_close(&plain, &env);
        }
    }
}

static void test_merge_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct heap heap = {0};
    struct env env = {.host = &heap, .alloc = heap_alloc};
    struct bitfield field;
    static const uint8_t news[4] = {0xff, 0xff, 0xff, 0xff};
    assert_int_equal(bitfield_init(&field, &env, 20), 0);
    assert_int_equal(bitfield_merge(&field, 1, news, 1), E_INVALID);
    assert_int_equal(bitfield_merge(&field, 0, news, 4), E_TOO_LARGE);
    assert_int_equal(bitfield_merge(&field, 16, news, 2), E_TOO_LARGE);
    assert_int_equal(bitfield_merge(&field, 32, news, 0), E_TOO_LARGE);
    assert_int_equal(bitfield_merge(&field, UINT32_MAX - 7, news, 1), E_TOO_LARGE);
    assert_int_equal(bitfield_merge(&field, 0, news, SIZE_MAX), E_TOO_LARGE);
    assert_int_equal(field.set_count, 0);
    assert_int_equal(bitfield_next_set(&field, 0), 20);
    assert_int_equal(bitfield_merge(&field, 24, news, 0), 0);
    bitfield_close(&field, &env);
}

static void test_piece_size_follows_blob_size(void **state)
{
    (void)state;
    static const struct {
        uint64_t blob_bytes;
        uint32_t piece_bytes, pieces, segment_pieces, segments;
    } rows[] = {
        {0, 128 * 1024, 0, 8, 0},
        {1, 128 * 1024, 1, 8, 1},
        {MIB, 128 * 1024, 8, 8, 1},
        {MIB + 1, 128 * 1024, 9, 8, 2},
        {32ull * MIB, 128 * 1024, 256, 8, 32},
        {64ull * MIB - 1, 128 * 1024, 512, 8, 64},
        {64ull * MIB, 256 * 1024, 256, 4, 64},
        {128ull * MIB - 1, 256 * 1024, 512, 4, 128},
        {128ull * MIB, 512 * 1024, 256, 2, 128},
        {256ull * MIB, MIB, 256, 1, 256},
        {512ull * MIB, MIB, 512, 2, 256},
        {1024ull * MIB, MIB, 1024, 4, 256},
        {2048ull * MIB + 1, MIB, 2049, 4, 513},
        {3584ull * MIB, MIB, 3584, 4, 896},
        {3584ull * MIB + 1, 2 * MIB, 1793, 2, 897},
        {7168ull * MIB, 2 * MIB, 3584, 2, 1792},
        {7168ull * MIB + 1, 4 * MIB, 1793, 1, 1793},
        {BLOB_BYTES_MAX, 4 * MIB, 262144, 1, 262144},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct piece_layout layout;
        assert_int_equal(piece_layout_of(rows[i].blob_bytes, &layout), 0);
        assert_true(layout.blob_bytes == rows[i].blob_bytes);
        assert_int_equal(layout.piece_bytes, rows[i].piece_bytes);
        assert_int_equal(layout.piece_count, rows[i].pieces);
        assert_int_equal(layout.segment_pieces, rows[i].segment_pieces);
        assert_int_equal(layout.segment_count, rows[i].segments);
    }
}

static void test_fine_pieces_follow_blob_size(void **state)
{
    (void)state;
    const struct {
        uint64_t blob_bytes;
        uint32_t piece_bytes, pieces, segment_pieces, segments;
        bool coarse; /* its plain pieces */
    } rows[] = {
        {0, 16 * 1024, 0, 16, 0, false},
        {1, 16 * 1024, 1, 16, 1, false},
        {MIB + 1, 16 * 1024, 65, 16, 5, false},
        {64ull * MIB - 1, 16 * 1024, 4096, 16, 256, false},
        {64ull * MIB, 16 * 1024, 4096, 16, 256, true},
        {512ull * MIB, 16 * 1024, 32768, 16, 2048, true},
        {2048ull * MIB, 16 * 1024, 131072, 16, 8192, true},
        {2048ull * MIB + 1, 32 * 1024, 65537, 8, 8193, true},
        {65536ull * MIB, 512 * 1024, 131072, 1, 131072, true},
        {131072ull * MIB, MIB, 131072, 1, 131072, true},
        {262144ull * MIB, 2 * MIB, 131072, 1, 131072, true},
        {262144ull * MIB + 1, 4 * MIB, 65537, 1, 65537, false},
        {BLOB_BYTES_MAX, 4 * MIB, 262144, 1, 262144, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct piece_layout layout;
        assert_int_equal(piece_layout_cut(rows[i].blob_bytes, PIECE_CUT_FINE, &layout), 0);
        assert_int_equal(layout.cut, PIECE_CUT_FINE);
        assert_true(layout.blob_bytes == rows[i].blob_bytes);
        assert_int_equal(layout.piece_bytes, rows[i].piece_bytes);
        assert_int_equal(layout.piece_count, rows[i].pieces);
        assert_int_equal(layout.segment_pieces, rows[i].segment_pieces);
        assert_int_equal(layout.segment_count, rows[i].segments);
        assert_int_equal(piece_layout_is_coarse(rows[i].blob_bytes), rows[i].coarse);
    }
    assert_false(piece_layout_is_coarse(BLOB_BYTES_MAX + 1));
}

static void test_each_cut_is_asked_for_by_name(void **state)
{
    (void)state;
    struct piece_layout plain, layout = {.piece_bytes = 7};
    assert_int_equal(piece_layout_cut(MIB, PIECE_CUT_COUNT, &layout), E_INVALID);
    assert_int_equal(piece_layout_cut(BLOB_BYTES_MAX + 1, PIECE_CUT_FINE, &layout), E_TOO_LARGE);
    assert_int_equal(piece_layout_cut(BLOB_BYTES_MAX + 1, PIECE_CUT_PLAIN, &layout), E_TOO_LARGE);
    assert_int_equal(layout.piece_bytes, 7);
    assert_int_equal(piece_layout_of(MIB, &plain), 0);
    assert_int_equal(plain.cut, PIECE_CUT_PLAIN);
    assert_int_equal(piece_layout_cut(MIB, PIECE_CUT_PLAIN, &layout), 0);
    assert_memory_equal(&layout, &plain, sizeof layout);
}

static void test_too_large_a_blob_is_refused(void **state)
{
    (void)state;
    struct piece_layout layout = {.piece_bytes = 7};
    assert_int_equal(piece_layout_of(BLOB_BYTES_MAX + 1, &layout), E_TOO_LARGE);
    assert_int_equal(piece_layout_of(UINT64_MAX, &layout), E_TOO_LARGE);
    assert_int_equal(layout.piece_bytes, 7);
}

static void test_last_piece_and_segment_are_short(void **state)
{
    (void)state;
    struct piece_layout layout;
    assert_int_equal(piece_layout_of(MIB + 128 * 1024 + 10, &layout), 0);
    assert_int_equal(layout.piece_count, 10);
    assert_int_equal(piece_length(&layout, 0), 128 * 1024);
    assert_int_equal(piece_length(&layout, 9), 10);
    assert_int_equal(piece_offset(&layout, 9), 9 * 128 * 1024);
    assert_int_equal(piece_at(&layout, 0), 0);
    assert_int_equal(piece_at(&layout, 128 * 1024 - 1), 0);
    assert_int_equal(piece_at(&layout, 128 * 1024), 1);
    assert_int_equal(piece_at(&layout, layout.blob_bytes - 1), 9);
    assert_int_equal(segment_of(&layout, 7), 0);
    assert_int_equal(segment_of(&layout, 8), 1);
    assert_int_equal(segment_first(&layout, 1), 8);
    assert_int_equal(segment_length(&layout, 0), 8);
    assert_int_equal(segment_length(&layout, 1), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_start_clear_and_close_frees),
        cmocka_unit_test(test_no_memory_is_reported),
        cmocka_unit_test(test_bits_are_in_bep3_order),
        cmocka_unit_test(test_searches_skip_whole_bytes),
        cmocka_unit_test(test_searches_find_what_a_plain_one_finds),
        cmocka_unit_test(test_merge_counts_news_and_ignores_spare_bits),
        cmocka_unit_test(test_merge_sets_what_a_plain_one_sets),
        cmocka_unit_test(test_merge_refuses_what_does_not_fit),
        cmocka_unit_test(test_piece_size_follows_blob_size),
        cmocka_unit_test(test_fine_pieces_follow_blob_size),
        cmocka_unit_test(test_each_cut_is_asked_for_by_name),
        cmocka_unit_test(test_too_large_a_blob_is_refused),
        cmocka_unit_test(test_last_piece_and_segment_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
