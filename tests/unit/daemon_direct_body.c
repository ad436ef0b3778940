/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes between origin and client: what is held back (INT-1, INT-2), and an empty pool. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/direct_body.h"

#define SPAN DIRECT_SPAN_BYTES

static struct buffer_pool *pool;
static unsigned rooms;
static uint8_t data[8 * SPAN + 1000];

static void room(void *arg)
{
    (void)arg;
    rooms++;
}

static int setup(void **state)
{
    (void)state;
    rooms = 0;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31 + i / 256);
    return buffer_pool_new(4 * PIECE_BYTES_MAX, &pool);
}

static int teardown(void **state)
{
    (void)state;
    struct buffer_stats stats;
    buffer_pool_stats(pool, &stats);
    assert_int_equal(stats.used_bytes, 0);
    buffer_pool_free(pool);
    return 0;
}

/* Takes everything that may be given; returns how much, and checks that it is data's. */
static size_t drain(struct direct_body *body, bool over, uint32_t max_bytes)
{
    struct blob_chunk chunk;
    size_t start = (size_t)body->given, got = 0;
    while (direct_body_next(body, over, max_bytes, &chunk) == 0) {
        assert_true(chunk.byte_count > 0 && chunk.byte_count <= max_bytes);
        assert_int_equal(chunk.fd, -1);
        assert_memory_equal(chunk.bytes, data + start + got, chunk.byte_count);
        got += chunk.byte_count;
        buffer_put(chunk.buffer);
    }
    return got;
}

static void a_small_body_waits_whole(void **state) /* INT-2 */
{
    (void)state;
    struct direct_body body;
    struct blob_chunk chunk;
    assert_int_equal(direct_body_init(&body, pool, 3 * SPAN, true, room, NULL), 0);
    assert_int_equal(direct_body_put(&body, data, 3 * SPAN), 0);
    assert_false(direct_body_ready(&body, false));
    assert_int_equal(direct_body_next(&body, false, SPAN, &chunk), E_AGAIN);
    assert_true(direct_body_ready(&body, true));
    assert_int_equal(drain(&body, true, 100000), 3 * SPAN);
    assert_int_equal(direct_body_next(&body, true, SPAN, &chunk), E_CLOSED);
    direct_body_close(&body);
}

static void the_last_span_of_a_large_one_is_held_back(void **state) /* INT-1 */
{
    (void)state;
    struct direct_body body;
    assert_int_equal(direct_body_init(&body, pool, 2 * SPAN + 1, false, room, NULL), 0);
    assert_int_equal(direct_body_put(&body, data, SPAN), 0);
    assert_false(direct_body_ready(&body, false));
    assert_int_equal(direct_body_put(&body, data + SPAN, SPAN + 1), 0);
    assert_int_equal(drain(&body, false, SPAN), 2 * SPAN);
    assert_false(direct_body_ready(&body, false));
    assert_int_equal(drain(&body, true, SPAN), 1);
    direct_body_close(&body);
}

static void a_slow_client_stops_the_origin(void **state)
{
    (void)state;
    struct direct_body body;
    struct blob_chunk chunk;
    size_t size = 6 * SPAN;
    assert_int_equal(direct_body_init(&body, pool, size, false, room, NULL), 0);
    assert_int_equal(direct_body_put(&body, data, 4 * SPAN), 0);
    assert_int_equal(direct_body_put(&body, data + 4 * SPAN, 2 * SPAN), E_AGAIN);
    assert_int_equal(direct_body_settle(&body), E_AGAIN);
    assert_int_equal(direct_body_next(&body, false, SPAN, &chunk), 0);
    buffer_put(chunk.buffer);
    assert_int_equal(direct_body_settle(&body), E_AGAIN); /* room for half of the rest */
    assert_int_equal(direct_body_next(&body, false, SPAN, &chunk), 0);
    buffer_put(chunk.buffer);
    assert_int_equal(direct_body_settle(&body), 0);
    assert_int_equal(drain(&body, true, SPAN), 4 * SPAN);
    assert_int_equal(body.given, size);
    direct_body_close(&body);
}

static void more_than_was_declared_is_refused(void **state) /* INT-8 */
{
    (void)state;
    struct direct_body body;
    for (int whole = 0; whole < 2; whole++) {
        assert_int_equal(direct_body_init(&body, pool, 1000, whole, room, NULL), 0);
        assert_int_equal(direct_body_put(&body, data, 600), 0);
        assert_int_equal(direct_body_put(&body, data, 401), E_TOO_LARGE);
        direct_body_close(&body);
    }
}

static void a_span_longer_than_asked_for_is_our_error(void **state)
{
    (void)state;
    struct direct_body body;
    struct blob_chunk chunk;
    assert_int_equal(direct_body_init(&body, pool, SPAN, false, room, NULL), 0);
    assert_int_equal(direct_body_put(&body, data, SPAN), 0);
    assert_int_equal(direct_body_next(&body, true, SPAN - 1, &chunk), E_INTERNAL);
    direct_body_close(&body);
}

/* With the pool empty, a full span may go as soon as more bytes are known: else bodies that hold
 * one span each would wait for each other for ever. */
static void an_empty_pool_is_waited_for(void **state)
{
    (void)state;
    struct buffer *hogs[8];
    unsigned hog_count = 0;
    struct direct_body body;
    assert_int_equal(direct_body_init(&body, pool, 3 * SPAN, false, room, NULL), 0);
    assert_int_equal(direct_body_put(&body, data, SPAN), 0);
    while (hog_count < 8 && (hogs[hog_count] = buffer_get(pool, PIECE_BYTES_MAX, BUFFER_FOR_LOCAL)))
        hog_count++;
    while (hog_count < 8 && (hogs[hog_count] = buffer_get(pool, SPAN, BUFFER_FOR_LOCAL)))
        hog_count++;
    struct buffer *small[64];
    unsigned small_count = 0;
    while (small_count < 64 && (small[small_count] = buffer_get(pool, SPAN, BUFFER_FOR_LOCAL)))
        small_count++;
    assert_int_equal(direct_body_put(&body, data + SPAN, SPAN), E_AGAIN);
    assert_true(direct_body_ready(&body, false));
    buffer_pool_wake(pool);
    assert_int_equal(rooms, 0);
    assert_int_equal(drain(&body, false, SPAN), SPAN);
    buffer_pool_wake(pool); /* the span that was given came back */
    assert_int_equal(rooms, 1);
    assert_int_equal(direct_body_settle(&body), 0);
    assert_false(direct_body_ready(&body, false));
    while (small_count > 0)
        buffer_put(small[--small_count]);
    while (hog_count > 0)
        buffer_put(hogs[--hog_count]);
    assert_int_equal(direct_body_put(&body, data + 2 * SPAN, SPAN), 0);
    assert_int_equal(drain(&body, true, SPAN), 2 * SPAN);
    direct_body_close(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_small_body_waits_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_span_of_a_large_one_is_held_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_slow_client_stops_the_origin, setup, teardown),
        cmocka_unit_test_setup_teardown(more_than_was_declared_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_span_longer_than_asked_for_is_our_error, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_pool_is_waited_for, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
