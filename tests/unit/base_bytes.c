/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/bytes.c: hex, integers, checked sizes, strings, order of ids. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "bytes.h"

static void test_hex_encodes_lower_case(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0x00, 0x01, 0x9a, 0xbc, 0xff};
    char out[11];
    hex_encode(bytes, sizeof bytes, out);
    assert_string_equal(out, "00019abcff");
    hex_encode(bytes, 0, out);
    assert_string_equal(out, "");
}

static void test_hex_decodes_what_it_encodes(void **state)
{
    (void)state;
    uint8_t bytes[256], back[256];
    char text[513];
    for (unsigned i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    hex_encode(bytes, sizeof bytes, text);
    assert_int_equal(hex_decode(text, 512, back, sizeof back), 0);
    assert_memory_equal(bytes, back, sizeof bytes);
    assert_int_equal(hex_decode("", 0, back, 0), 0);
}

static void test_hex_refuses_other_text_org8(void **state)
{
    (void)state;
    uint8_t out[2];
    assert_int_equal(hex_decode("0A0b", 4, out, 2), E_MALFORMED); /* upper case */
    assert_int_equal(hex_decode("0b0A", 4, out, 2), E_MALFORMED);
    assert_int_equal(hex_decode("0a0", 3, out, 2), E_MALFORMED);
    assert_int_equal(hex_decode("0a0b0c", 6, out, 2), E_MALFORMED);
    assert_int_equal(hex_decode("0a", 2, out, 2), E_MALFORMED);
    assert_int_equal(hex_decode("0a0bc", 5, out, 2), E_MALFORMED);
    /* Every other byte value, in either half of a pair. */
    for (int c = 0; c < 256; c++) {
        char text[4] = {'0', (char)c, '0', '0'};
        char other[4] = {'0', '0', (char)c, '0'};
        int hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        assert_int_equal(hex_decode(text, 4, out, 2), hex ? 0 : E_MALFORMED);
        assert_int_equal(hex_decode(other, 4, out, 2), hex ? 0 : E_MALFORMED);
    }
}

static void test_short_hex_is_eight_digits(void **state)
{
    (void)state;
    const uint8_t id[32] = {0xab, 0x12, 0xcd, 0x34, 0x56};
    char out[SHORT_HEX_BYTES];
    assert_ptr_equal(short_hex(id, out), out);
    assert_string_equal(out, "ab12cd34");
}

static void test_big_endian_round_trip(void **state)
{
    (void)state;
    uint8_t out[8];
    store_be16(out, 0x0102);
    assert_memory_equal(out, "\x01\x02", 2);
    assert_int_equal(load_be16(out), 0x0102);
    store_be32(out, 0xf1020304u);
    assert_memory_equal(out, "\xf1\x02\x03\x04", 4);
    assert_int_equal(load_be32(out), 0xf1020304u);
    store_be64(out, 0xf102030405060708u);
    assert_memory_equal(out, "\xf1\x02\x03\x04\x05\x06\x07\x08", 8);
    assert_true(load_be64(out) == 0xf102030405060708u);
}

static void test_sizes_overflow_into_an_error(void **state)
{
    (void)state;
    size_t out = 7;
    assert_int_equal(size_add(SIZE_MAX - 1, 1, &out), 0);
    assert_true(out == SIZE_MAX);
    assert_int_equal(size_add(SIZE_MAX, 1, &out), E_TOO_LARGE);
    assert_true(out == SIZE_MAX);
    assert_int_equal(size_mul(SIZE_MAX / 2, 2, &out), 0);
    assert_true(out == SIZE_MAX - 1);
    assert_int_equal(size_mul(SIZE_MAX / 2 + 1, 2, &out), E_TOO_LARGE);
    assert_true(out == SIZE_MAX - 1);
    assert_int_equal(size_mul(0, SIZE_MAX, &out), 0);
    assert_true(out == 0);
}

static void test_text_copy_fits_or_fails(void **state)
{
    (void)state;
    char out[4] = "zzz";
    assert_int_equal(text_copy(out, sizeof out, "abc"), 0);
    assert_string_equal(out, "abc");
    assert_int_equal(text_copy(out, sizeof out, "abcd"), E_TOO_LARGE);
    assert_string_equal(out, "");
    assert_int_equal(text_copy(out, sizeof out, ""), 0);
    assert_string_equal(out, "");
    assert_int_equal(text_copy(out, 0, ""), E_TOO_LARGE);
}

static void test_text_copy_n_refuses_zero_bytes(void **state)
{
    (void)state;
    char out[4] = "zzz";
    assert_int_equal(text_copy_n(out, sizeof out, "abcdef", 3), 0);
    assert_string_equal(out, "abc");
    assert_int_equal(text_copy_n(out, sizeof out, "a\0b", 3), E_MALFORMED);
    assert_string_equal(out, "");
    assert_int_equal(text_copy_n(out, sizeof out, "abcd", 4), E_TOO_LARGE);
    assert_string_equal(out, "");
    assert_int_equal(text_copy_n(out, sizeof out, NULL, 0), 0);
    assert_string_equal(out, "");
}

static void test_ids_are_ordered_as_big_endian_numbers(void **state)
{
    (void)state;
    struct node_id a = {.bytes = {1, 255}};
    struct node_id b = {.bytes = {2, 0}};
    assert_true(node_id_compare(&a, &b) < 0);
    assert_true(node_id_compare(&b, &a) > 0);
    assert_int_equal(node_id_compare(&a, &a), 0);
    assert_true(node_id_equal(&a, &a));
    assert_false(node_id_equal(&a, &b));
    b = a;
    b.bytes[31] = 1;
    assert_false(node_id_equal(&a, &b));
    struct blob_key x = {.bytes = {9}}, y = x;
    assert_true(blob_key_equal(&x, &y));
    y.bytes[31] = 1;
    assert_false(blob_key_equal(&x, &y));
}

static void test_xor_metric(void **state)
{
    (void)state;
    uint8_t target[32] = {0}, a[32] = {0}, b[32] = {0};
    assert_int_equal(xor_compare(target, a, b), 0);
    assert_int_equal(xor_common_bits(a, b), 256);
    for (unsigned bit = 0; bit < 256; bit++) {
        memset(b, 0, sizeof b);
        b[bit / 8] = (uint8_t)(0x80u >> (bit % 8));
        assert_int_equal(xor_common_bits(a, b), bit);
        assert_true(xor_compare(target, a, b) < 0);
        assert_true(xor_compare(target, b, a) > 0);
        assert_true(xor_compare(b, b, a) < 0);
    }
    /* Distance is judged by the first differing bit, whatever follows. */
    memset(a, 0xff, sizeof a);
    a[0] = 0x3f;
    memset(b, 0, sizeof b);
    b[0] = 0x40;
    assert_true(xor_compare(target, a, b) < 0);
}

static void test_id_hash_depends_on_every_byte(void **state)
{
    (void)state;
    uint8_t id[32] = {0};
    uint64_t zero = id_hash(id);
    for (unsigned i = 0; i < 32; i++) {
        id[i] = 1;
        assert_true(id_hash(id) != zero);
        id[i] = 0;
    }
    assert_true(id_hash(id) == zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hex_encodes_lower_case),
        cmocka_unit_test(test_hex_decodes_what_it_encodes),
        cmocka_unit_test(test_hex_refuses_other_text_org8),
        cmocka_unit_test(test_short_hex_is_eight_digits),
        cmocka_unit_test(test_big_endian_round_trip),
        cmocka_unit_test(test_sizes_overflow_into_an_error),
        cmocka_unit_test(test_text_copy_fits_or_fails),
        cmocka_unit_test(test_text_copy_n_refuses_zero_bytes),
        cmocka_unit_test(test_ids_are_ordered_as_big_endian_numbers),
        cmocka_unit_test(test_xor_metric),
        cmocka_unit_test(test_id_hash_depends_on_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
