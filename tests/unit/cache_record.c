/* SPDX-License-Identifier: Apache-2.0 */
/* The on-disk record: what encoders write decoders read, and any change of a byte is noticed. */
#include "cache_support.h"

#include "../../src/cache/crc32c.h"
#include "../../src/cache/record.h"

static struct record_header some_header(void)
{
    return (struct record_header){
        .digest = test_digest(1), .size_bytes = 5 * PIECE_BYTES_MIN + 17, .serial = 99};
}

static struct record_slot some_slot(enum record_state state)
{
    struct record_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.state = state;
    slot.voucher.piece_index = 5;
    slot.voucher.piece_bytes = 17;
    memset(slot.voucher.signer.bytes, 1, sizeof slot.voucher.signer.bytes);
    memset(slot.voucher.signer_key.bytes, 2, sizeof slot.voucher.signer_key.bytes);
    memset(slot.voucher.hash.bytes, 3, sizeof slot.voucher.hash.bytes);
    memset(slot.voucher.signature, 4, sizeof slot.voucher.signature);
    return slot;
}

static void crc_matches_the_published_vectors(void **state)
{
    (void)state;
    uint8_t bytes[32];
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
    memset(bytes, 0, sizeof bytes); /* RFC 3720 B.4 */
    assert_int_equal(crc32c(bytes, sizeof bytes), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc32c(bytes, sizeof bytes), 0x62a8ab43u);
    assert_int_equal(crc32c(bytes, 0), 0);
}

static void header_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[RECORD_HEADER_BYTES];
    struct record_header header = some_header(), back;
    struct piece_layout layout;
    record_encode_header(&header, bytes);
    assert_int_equal(record_decode_header(bytes, sizeof bytes, &back, &layout), 0);
    assert_true(digest_equal(&back.digest, &header.digest));
    assert_int_equal(back.size_bytes, header.size_bytes);
    assert_int_equal(back.serial, 99);
    assert_int_equal(back.cut, PIECE_CUT_PLAIN);
    assert_int_equal(load_be32(bytes + 108), 0); /* what versions without cuts wrote and want */
    assert_int_equal(layout.piece_count, 6);
    assert_int_equal(record_file_bytes(&layout), RECORD_HEADER_BYTES + 6 * RECORD_SLOT_BYTES);

    header.cut = PIECE_CUT_FINE;
    record_encode_header(&header, bytes);
    assert_int_equal(record_decode_header(bytes, sizeof bytes, &back, &layout), 0);
    assert_int_equal(back.cut, PIECE_CUT_FINE);
    assert_int_equal(layout.cut, PIECE_CUT_FINE);
    assert_int_equal(layout.piece_count, 5 * PIECE_BYTES_MIN / PIECE_BYTES_FINE + 1);
    header.cut = PIECE_CUT_PLAIN;

    header.digest.algorithm = DIGEST_SHA512;
    memset(header.digest.bytes, 0xab, sizeof header.digest.bytes);
    record_encode_header(&header, bytes);
    assert_int_equal(record_decode_header(bytes, sizeof bytes, &back, &layout), 0);
    assert_true(digest_equal(&back.digest, &header.digest));
}

static void header_with_any_byte_changed_is_refused(void **state) /* D-5 */
{
    (void)state;
    uint8_t bytes[RECORD_HEADER_BYTES];
    struct record_header header = some_header(), back = {.serial = 7};
    struct piece_layout layout;
    for (size_t i = 0; i < sizeof bytes; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            record_encode_header(&header, bytes);
            bytes[i] ^= (uint8_t)(1u << bit);
            int err = record_decode_header(bytes, sizeof bytes, &back, &layout);
            assert_int_equal(err, i < 12 ? E_VERSION : E_CORRUPT);
        }
    }
    assert_int_equal(back.serial, 7); /* written on success only */
}

static void put_crc(uint8_t bytes[RECORD_HEADER_BYTES])
{
    store_be32(bytes + 252, crc32c(bytes, 252));
}

static void header_with_fields_of_no_writer_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[RECORD_HEADER_BYTES];
    struct record_header header = some_header(), back;
    struct piece_layout layout;
    const struct {
        size_t at;
        uint8_t value;
    } cases[] = {
        {15, 0},  {15, 3},  {48, 1},  {79, 1},  {80, 0xff}, {97, 7}, {103, 7},
        {107, 0}, {108, 1}, {111, 2}, {111, 1}, {112, 1},   {251, 1}}; /* 111, 1: another cut, the
                                                                          pieces of this */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        record_encode_header(&header, bytes);
        bytes[cases[i].at] = cases[i].value;
        put_crc(bytes);
        assert_int_equal(record_decode_header(bytes, sizeof bytes, &back, &layout), E_MALFORMED);
    }
    record_encode_header(&header, bytes);
    assert_int_equal(record_decode_header(bytes, sizeof bytes - 1, &back, &layout), E_TRUNCATED);
    bytes[11] = RECORD_VERSION + 1; /* DSK-2: unknown version */
    put_crc(bytes);
    assert_int_equal(record_decode_header(bytes, sizeof bytes, &back, &layout), E_VERSION);
}

static void slot_comes_back(void **state)
{
    (void)state;
    struct piece_layout layout;
    assert_int_equal(piece_layout_of(5 * PIECE_BYTES_MIN + 17, &layout), 0);
    for (enum record_state s = RECORD_HAVE; s <= RECORD_GONE; s++) {
        struct record_slot slot = some_slot(s), back;
        uint8_t bytes[RECORD_SLOT_BYTES];
        record_encode_slot(&slot, 99, bytes);
        record_decode_slot(bytes, 99, &layout, 5, &back);
        assert_int_equal(back.state, s);
        assert_memory_equal(&back.voucher, &slot.voucher, sizeof back.voucher);
    }
}

static void torn_or_misplaced_slot_is_not_there(void **state) /* DSK-2, D-5, D-6 */
{
    (void)state;
    struct piece_layout layout;
    assert_int_equal(piece_layout_of(5 * PIECE_BYTES_MIN + 17, &layout), 0);
    struct record_slot slot = some_slot(RECORD_HAVE), back;
    uint8_t whole[RECORD_SLOT_BYTES], bytes[RECORD_SLOT_BYTES];
    record_encode_slot(&slot, 99, whole);
    for (size_t i = 0; i < sizeof whole; i++) {
        memcpy(bytes, whole, sizeof bytes);
        bytes[i] ^= 0x10;
        record_decode_slot(bytes, 99, &layout, 5, &back);
        assert_int_equal(back.state, RECORD_NONE);
        memset(bytes, 0, sizeof bytes); /* the first i bytes reached the disk */
        memcpy(bytes, whole, i);
        record_decode_slot(bytes, 99, &layout, 5, &back);
        assert_int_equal(back.state, RECORD_NONE);
    }
    record_decode_slot(whole, 98, &layout, 5, &back);
    assert_int_equal(back.state, RECORD_NONE);
    record_decode_slot(whole, 99, &layout, 4, &back);
    assert_int_equal(back.state, RECORD_NONE);
    slot.voucher.piece_bytes = 18; /* valid checksum, wrong length (INT-8) */
    record_encode_slot(&slot, 99, whole);
    record_decode_slot(whole, 99, &layout, 5, &back);
    assert_int_equal(back.state, RECORD_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_matches_the_published_vectors),
        cmocka_unit_test(header_comes_back),
        cmocka_unit_test(header_with_any_byte_changed_is_refused),
        cmocka_unit_test(header_with_fields_of_no_writer_is_refused),
        cmocka_unit_test(slot_comes_back),
        cmocka_unit_test(torn_or_misplaced_slot_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
