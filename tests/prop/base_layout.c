/* SPDX-License-Identifier: Apache-2.0 */
/* Laws of the blob layout and of the XOR metric on random inputs. SEED=n replays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "piece_map.h"

static struct prng prng;

/* Sizes of every magnitude, often right at a power of two. */
static uint64_t random_size(void)
{
    uint64_t size = prng_next(&prng) >> (24 + prng_below(&prng, 40));
    if (prng_below(&prng, 3) == 0)
        size = ((uint64_t)1 << prng_below(&prng, 40)) + prng_below(&prng, 3) - 1;
    return size < BLOB_BYTES_MAX ? size : BLOB_BYTES_MAX;
}

static void check_pieces(const struct piece_layout *layout)
{
    uint64_t covered = 0;
    for (uint32_t piece = 0; piece < layout->piece_count; piece++) {
        uint32_t length = piece_length(layout, piece);
        assert_true(piece_offset(layout, piece) == covered);
        assert_true(length > 0 && length <= layout->piece_bytes);
        assert_int_equal(piece_at(layout, covered), piece);
        covered += length;
        assert_int_equal(piece_at(layout, covered - 1), piece);
    }
    assert_true(covered == layout->blob_bytes);
}

static void check_segments(const struct piece_layout *layout)
{
    uint32_t next = 0;
    for (uint32_t segment = 0; segment < layout->segment_count; segment++) {
        uint32_t length = segment_length(layout, segment);
        assert_int_equal(segment_first(layout, segment), next);
        assert_true(length > 0 && length <= layout->segment_pieces);
        assert_int_equal(segment_of(layout, next), segment);
        next += length;
        assert_int_equal(segment_of(layout, next - 1), segment);
    }
    assert_int_equal(next, layout->piece_count);
}

static void test_pieces_and_segments_tile_the_blob(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        struct piece_layout layout;
        assert_int_equal(piece_layout_of(random_size(), &layout), 0);
        assert_in_range(layout.piece_bytes, PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        assert_int_equal(layout.piece_bytes & (layout.piece_bytes - 1), 0);
        /* 256..511 pieces unless a bound of the piece size binds; from 512 MiB on as many as one
         * message tells of. */
        uint32_t most = layout.blob_bytes < 512ull << 20 ? 512 : PIECES_TOLD_AT_ONCE;
        if (layout.piece_bytes > PIECE_BYTES_MIN)
            assert_true(layout.piece_count >= 256);
        if (layout.piece_bytes < PIECE_BYTES_MAX)
            assert_true(layout.piece_count <= most);
        assert_true((uint64_t)layout.segment_pieces * layout.piece_bytes >= 1024 * 1024);
        check_pieces(&layout);
        check_segments(&layout);
    }
}

static void test_fine_pieces_tile_the_blob_too(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 100; round++) {
        struct piece_layout fine, plain;
        uint64_t size = random_size();
        assert_int_equal(piece_layout_cut(size, PIECE_CUT_FINE, &fine), 0);
        assert_int_equal(piece_layout_of(size, &plain), 0);
        assert_in_range(fine.piece_bytes, PIECE_BYTES_FINE, PIECE_BYTES_MAX);
        assert_int_equal(fine.piece_bytes & (fine.piece_bytes - 1), 0);
        assert_true(fine.piece_bytes <= plain.piece_bytes);
        assert_true(fine.piece_count <= PIECE_COUNT_MAX);
        assert_in_range(fine.segment_pieces, 1, 32); /* the cache's notices are one word */
        assert_true(!piece_layout_is_coarse(size) || fine.piece_bytes < plain.piece_bytes);
        check_pieces(&fine);
        check_segments(&fine);
    }
}

static void random_id(uint8_t out[32])
{
    for (unsigned i = 0; i < 32; i++)
        out[i] = (uint8_t)prng_next(&prng);
}

static void test_xor_order_matches_byte_by_byte(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t target[32], a[32], b[32];
        random_id(target);
        random_id(a);
        memcpy(b, a, sizeof b);
        unsigned at = (unsigned)prng_below(&prng, 33);
        for (unsigned i = at; i < 32; i++)
            b[i] = (uint8_t)prng_next(&prng);
        int expected = 0;
        for (unsigned i = 0; i < 32 && expected == 0; i++)
            expected = (a[i] ^ target[i]) - (b[i] ^ target[i]);
        int got = xor_compare(target, a, b);
        assert_int_equal(got < 0, expected < 0);
        assert_int_equal(got > 0, expected > 0);
        /* More shared bits is closer. */
        if (xor_common_bits(target, a) > xor_common_bits(target, b))
            assert_true(got < 0);
    }
}

int main(void)
{
    const char *text = getenv("SEED");
    uint64_t seed = (uint64_t)getpid();
    if (text != NULL)
        seed = (uint64_t)strtoull(text, NULL, 10);
    printf("seed: %llu\n", (unsigned long long)seed);
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_and_segments_tile_the_blob),
        cmocka_unit_test(test_fine_pieces_tile_the_blob_too),
        cmocka_unit_test(test_xor_order_matches_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
