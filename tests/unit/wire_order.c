/* SPDX-License-Identifier: Apache-2.0 */
/* Orders between nodes: decode(encode(x)) = x, their size, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "wire_order.h"

static struct wire_order order, back;
static uint8_t out[MESSAGE_BYTES_MAX + 64];
static size_t used;

static void make(unsigned type, uint32_t count)
{
    memset(&order, 0, sizeof order);
    order.type = type;
    order.serial = UINT64_MAX;
    order.count = count;
    for (uint32_t i = 0; i < WIRE_ORDER_BLOBS_MAX; i++) {
        struct wire_order_blob *blob = &order.blobs[i];
        if (type == WIRE_ORDER_TELL || type == WIRE_ORDER_DIALLED) {
            blob->state = (uint8_t)(1 + i % (WIRE_ORDER_STATES - 1));
            continue;
        }
        blob->digest.algorithm = i % 2 == 0 ? DIGEST_SHA512 : DIGEST_SHA256;
        memset(blob->digest.bytes, (int)(i + 1), digest_bytes(blob->digest.algorithm));
        blob->size_bytes = i == 0 ? 1 : BLOB_BYTES_MAX - i;
    }
}

static uint32_t count_least(unsigned type)
{
    return type == WIRE_ORDER_DIAL ? 0 : 1;
}

static uint32_t count_most(unsigned type)
{
    return type == WIRE_ORDER_DIAL ? 0 : type == WIRE_ORDER_DIALLED ? 1 : WIRE_ORDER_BLOBS_MAX;
}

static void round_trip(void **state)
{
    (void)state;
    for (unsigned type = WIRE_ORDER_ASK; type < WIRE_ORDER_END; type++) {
        for (uint32_t count = count_least(type); count <= count_most(type); count++) {
            make(type, count);
            assert_int_equal(wire_order_encode(&order, out, MESSAGE_BYTES_MAX, &used), 0);
            memset(&back, 0xee, sizeof back);
            assert_int_equal(wire_order_decode(out, used, &back), 0);
            assert_int_equal(back.type, type);
            assert_true(back.serial == UINT64_MAX);
            assert_int_equal(back.count, count);
            assert_memory_equal(back.blobs, order.blobs, count * sizeof order.blobs[0]);
            for (size_t cut = 0; cut < used; cut++)
                assert_int_not_equal(wire_order_decode(out, cut, &back), 0);
            assert_int_equal(wire_order_encode(&order, out, used - 1, &used), E_TOO_LARGE);
        }
    }
}

static void what_no_message_has(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        make(i < 6 ? WIRE_ORDER_ASK : WIRE_ORDER_TELL, 2);
        if (i == 0)
            order.count = 0;
        if (i == 1)
            order.count = WIRE_ORDER_BLOBS_MAX + 1;
        if (i == 2)
            order.type = WIRE_ORDER_END;
        if (i == 3)
            order.blobs[1].size_bytes = 0;
        if (i == 4)
            order.blobs[1].size_bytes = BLOB_BYTES_MAX + 1;
        if (i == 5)
            order.blobs[1].digest.algorithm = (enum digest_algorithm)7;
        if (i == 6)
            order.blobs[1].state = 0;
        if (i == 7)
            order.blobs[1].state = WIRE_ORDER_STATES;
        assert_int_equal(wire_order_encode(&order, out, sizeof out, &used), E_INVALID);
    }
}

/* [type, serial, blobs] by hand. */
static int decode(unsigned type, const uint8_t *tail, size_t tail_bytes)
{
    const uint8_t head[] = {0x93, (uint8_t)type, 1};
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head, tail, tail_bytes);
    return wire_order_decode(out, sizeof head + tail_bytes, &back);
}

static void dials_have_one_shape(void **state)
{
    static const uint8_t none[] = {0x90}, one[] = {0x91, 1}, two[] = {0x92, 1, 1},
                         zero[] = {0x91, 0};
    (void)state;
    make(WIRE_ORDER_DIAL, 1);
    assert_int_equal(wire_order_encode(&order, out, sizeof out, &used), E_INVALID);
    make(WIRE_ORDER_DIALLED, 2);
    assert_int_equal(wire_order_encode(&order, out, sizeof out, &used), E_INVALID);
    assert_int_equal(decode(WIRE_ORDER_DIAL, none, sizeof none), 0);
    assert_int_not_equal(decode(WIRE_ORDER_DIAL, one, sizeof one), 0);
    assert_int_equal(decode(WIRE_ORDER_DIALLED, one, sizeof one), 0);
    assert_int_equal(decode(WIRE_ORDER_DIALLED, none, sizeof none), E_MALFORMED);
    assert_int_equal(decode(WIRE_ORDER_DIALLED, two, sizeof two), E_MALFORMED);
    assert_int_equal(decode(WIRE_ORDER_DIALLED, zero, sizeof zero), E_MALFORMED);
}

static void what_is_refused(void **state)
{
    static const uint8_t none[] = {0x90}, zero[] = {0x91, 0}, large[] = {0x91, WIRE_ORDER_STATES};
    static const uint8_t nine[] = {0x99, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const uint8_t two[] = {0x91, 0x92, 1, 1}, odd[] = {0x91, 0x93, 9, 0xc4, 1, 1, 1};
    static const uint8_t brief[] = {0x91, 0x93, DIGEST_SHA256, 0xc4, 1, 1, 1};
    (void)state;
    assert_int_equal(decode(WIRE_ORDER_TELL, none, sizeof none), E_MALFORMED);
    assert_int_equal(decode(WIRE_ORDER_TELL, zero, sizeof zero), E_MALFORMED);
    assert_int_equal(decode(WIRE_ORDER_TELL, large, sizeof large), E_TOO_LARGE);
    assert_int_equal(decode(WIRE_ORDER_TELL, nine, sizeof nine), E_TOO_LARGE);
    assert_int_not_equal(decode(WIRE_ORDER_ASK, two, sizeof two), 0);
    assert_int_equal(decode(WIRE_ORDER_ASK, odd, sizeof odd), E_MALFORMED);
    assert_int_not_equal(decode(WIRE_ORDER_ASK, brief, sizeof brief), 0);
    assert_int_equal(decode(WIRE_ORDER_END, zero, sizeof zero), E_NOT_FOUND);
    assert_int_equal(decode(WIRE_TRANSFER_FIRST, zero, sizeof zero), E_NOT_FOUND);
    assert_int_equal(wire_order_decode(out, MESSAGE_BYTES_MAX + 1, &back), E_TOO_LARGE);
    /* A newer sender's further field is skipped (PEER-10). */
    const uint8_t more[] = {0x94, WIRE_ORDER_TELL, 1, 0x91, 2, 7};
    assert_int_equal(wire_order_decode(more, sizeof more, &back), 0);
    assert_int_equal(back.blobs[0].state, WIRE_ORDER_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(what_no_message_has),
        cmocka_unit_test(dials_have_one_shape),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
