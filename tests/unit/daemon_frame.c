/* SPDX-License-Identifier: Apache-2.0 */
/* Frame headers: the layout byte by byte, both ways, every refusal (P-4, PEER-10). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "bytes.h"
#include "../../src/daemon/piece_frame.h"

static struct piece_frame sample(void)
{
    struct piece_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.kind = FRAME_PIECE;
    frame.vouched = true;
    frame.body_bytes = 256 * 1024;
    frame.upload_id = 0x0102030405060708ULL;
    frame.piece = 77;
    frame.voucher.piece_index = 77;
    frame.voucher.piece_bytes = 256 * 1024;
    memset(frame.key.bytes, 0x11, sizeof frame.key.bytes);
    memset(frame.voucher.signer.bytes, 0x22, sizeof frame.voucher.signer.bytes);
    memset(frame.voucher.signer_key.bytes, 0x33, sizeof frame.voucher.signer_key.bytes);
    memset(frame.voucher.hash.bytes, 0x44, sizeof frame.voucher.hash.bytes);
    memset(frame.voucher.signature, 0x55, sizeof frame.voucher.signature);
    return frame;
}

static void the_layout_is_as_documented(void **state)
{
    (void)state;
    uint8_t bytes[PIECE_FRAME_BYTES];
    const struct piece_frame frame = sample();
    assert_int_equal(frame_encode(&frame, bytes), 212);
    assert_int_equal(bytes[0], 1);
    assert_int_equal(bytes[1], FRAME_FLAG_VOUCHED);
    assert_int_equal(load_be16(bytes + 2), 212);
    assert_int_equal(load_be32(bytes + 4), 256 * 1024);
    assert_int_equal(load_be64(bytes + 8), 0x0102030405060708ULL);
    assert_int_equal(bytes[16], 0x11);
    assert_int_equal(bytes[47], 0x11);
    assert_int_equal(load_be32(bytes + 48), 77);
    assert_int_equal(bytes[52], 0x22);
    assert_int_equal(bytes[84], 0x33);
    assert_int_equal(bytes[116], 0x44);
    assert_int_equal(bytes[148], 0x55);
    assert_int_equal(bytes[211], 0x55);
}

static void what_is_encoded_is_decoded(void **state)
{
    (void)state;
    uint8_t bytes[PIECE_FRAME_BYTES];
    struct piece_frame frame = sample();
    struct piece_frame back;
    size_t length = frame_encode(&frame, bytes);
    assert_int_equal(frame_decode(bytes, length, &back), 0);
    assert_memory_equal(&back, &frame, sizeof frame);

    struct piece_frame plain = sample();
    plain.vouched = false;
    length = frame_encode(&plain, bytes);
    assert_int_equal(frame_decode(bytes, length, &back), 0);
    assert_false(back.vouched);
    assert_int_equal(back.voucher.piece_index, 77);
    assert_int_equal(back.voucher.piece_bytes, 256 * 1024);
    assert_int_equal(back.voucher.signature[0], 0); /* not sent without the flag */

    struct piece_frame bye;
    memset(&bye, 0, sizeof bye);
    bye.kind = FRAME_BYE;
    length = frame_encode(&bye, bytes);
    assert_int_equal(length, FRAME_COMMON_BYTES);
    assert_int_equal(frame_decode(bytes, length, &back), 0);
    assert_memory_equal(&back, &bye, sizeof bye);
}

static void every_short_header_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[PIECE_FRAME_BYTES];
    struct piece_frame frame = sample();
    struct piece_frame back;
    (void)frame_encode(&frame, bytes);
    for (size_t length = 0; length < PIECE_FRAME_BYTES; length++) {
        if (length >= FRAME_COMMON_BYTES)
            store_be16(bytes + 2, (uint16_t)length);
        assert_int_equal(frame_decode(bytes, length, &back), E_TRUNCATED);
    }
}

static void a_header_is_exactly_its_record(void **state)
{
    (void)state;
    uint8_t bytes[FRAME_HEADER_BYTES_MAX + 1] = {0};
    struct piece_frame frame = sample();
    struct piece_frame back;
    size_t length = frame_encode(&frame, bytes);
    assert_int_equal(frame_decode(bytes, length + 1, &back), E_MALFORMED);
    /* A newer sender adds fields at the end and says so. */
    store_be16(bytes + 2, (uint16_t)(length + 30));
    assert_int_equal(frame_decode(bytes, length + 30, &back), 0);
    assert_int_equal(back.piece, 77);
    store_be16(bytes + 2, FRAME_HEADER_BYTES_MAX);
    assert_int_equal(frame_decode(bytes, FRAME_HEADER_BYTES_MAX, &back), 0);
    assert_int_equal(frame_decode(bytes, FRAME_HEADER_BYTES_MAX + 1, &back), E_TOO_LARGE);
}

static void impossible_bodies_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[PIECE_FRAME_BYTES];
    struct piece_frame frame = sample();
    struct piece_frame back = {.upload_id = 99};
    size_t length = frame_encode(&frame, bytes);
    store_be32(bytes + 4, 0);
    assert_int_equal(frame_decode(bytes, length, &back), E_MALFORMED);
    store_be32(bytes + 4, PIECE_BYTES_MAX + 1);
    assert_int_equal(frame_decode(bytes, length, &back), E_TOO_LARGE);
    store_be32(bytes + 4, UINT32_MAX);
    assert_int_equal(frame_decode(bytes, length, &back), E_TOO_LARGE);
    store_be32(bytes + 4, PIECE_BYTES_MAX);
    assert_int_equal(frame_decode(bytes, length, &back), 0);
    assert_int_equal(back.body_bytes, PIECE_BYTES_MAX);

    uint8_t bye[FRAME_COMMON_BYTES] = {FRAME_BYE, 0, 0, FRAME_COMMON_BYTES, 0, 0, 0, 1};
    back.upload_id = 99;
    assert_int_equal(frame_decode(bye, sizeof bye, &back), E_MALFORMED);
    assert_int_equal(back.upload_id, 99); /* untouched on error */
}

static void a_voucher_without_its_flag_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[PIECE_FRAME_BYTES];
    struct piece_frame frame = sample();
    struct piece_frame back;
    frame.vouched = false;
    size_t length = frame_encode(&frame, bytes);
    for (size_t at = 52; at < PIECE_FRAME_BYTES; at += 8) {
        bytes[at] = 1;
        assert_int_equal(frame_decode(bytes, length, &back), E_MALFORMED);
        bytes[at] = 0;
    }
}

static void unknown_kinds_can_be_skipped(void **state)
{
    (void)state;
    uint8_t bytes[32] = {200, 0xff, 0, 32, 0, 1, 0, 0};
    struct piece_frame back;
    assert_int_equal(frame_decode(bytes, sizeof bytes, &back), 0);
    assert_int_equal(back.kind, 200);
    assert_int_equal(back.body_bytes, 65536);
    bytes[0] = 0; /* zero means unused */
    assert_int_equal(frame_decode(bytes, sizeof bytes, &back), E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_layout_is_as_documented),
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(every_short_header_is_refused),
        cmocka_unit_test(a_header_is_exactly_its_record),
        cmocka_unit_test(impossible_bodies_are_refused),
        cmocka_unit_test(a_voucher_without_its_flag_is_refused),
        cmocka_unit_test(unknown_kinds_can_be_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
