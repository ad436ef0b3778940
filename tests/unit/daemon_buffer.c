/* SPDX-License-Identifier: Apache-2.0 */
/* The buffer pool: classes, references, the cap for peers and for local use, waiters, trimming. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "../../src/daemon/buffer.h"

#define MIB (1024U * 1024U)

static struct buffer_pool *pool;

static int make(void **state)
{
    (void)state;
    return buffer_pool_new(16 * MIB, &pool);
}

static int drop(void **state)
{
    (void)state;
    buffer_pool_free(pool); /* asserts that every buffer came back */
    return 0;
}

static struct buffer_stats stats(void)
{
    struct buffer_stats out;
    buffer_pool_stats(pool, &out);
    return out;
}

static void a_buffer_has_at_least_what_was_asked(void **state)
{
    (void)state;
    static const struct {
        uint32_t asked, given;
    } cases[] = {
        {1, 16 * 1024},         {16 * 1024, 16 * 1024},      {16 * 1024 + 1, 32 * 1024},
        {64 * 1024, 64 * 1024}, {64 * 1024 + 1, 128 * 1024}, {256 * 1024, 256 * 1024},
        {3 * MIB, 4 * MIB},     {4 * MIB, 4 * MIB},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer *buffer = buffer_get(pool, cases[i].asked, BUFFER_FOR_LOCAL);
        assert_non_null(buffer);
        assert_int_equal(buffer->capacity, cases[i].given);
        assert_int_equal(buffer->used, 0);
        memset(buffer->bytes, 0xaa, buffer->capacity);
        buffer_put(buffer);
    }
    assert_null(buffer_get(pool, 0, BUFFER_FOR_LOCAL));
    assert_null(buffer_get(pool, 4 * MIB + 1, BUFFER_FOR_LOCAL));
    assert_null(buffer_get(pool, UINT32_MAX, BUFFER_FOR_LOCAL));
}

static void the_last_reference_returns_it(void **state)
{
    (void)state;
    struct buffer *buffer = buffer_get(pool, MIB, BUFFER_FOR_LOCAL);
    assert_ptr_equal(buffer_ref(buffer), buffer);
    buffer->used = 7;
    buffer_put(buffer);
    assert_int_equal(stats().used_bytes, MIB);
    buffer_put(buffer);
    assert_int_equal(stats().used_bytes, 0);
    assert_int_equal(stats().bytes, MIB); /* kept, touched */
    struct buffer *again = buffer_get(pool, MIB, BUFFER_FOR_LOCAL);
    assert_ptr_equal(again, buffer);
    assert_int_equal(again->used, 0);
    assert_int_equal(stats().fresh, 1);
    assert_int_equal(stats().gets, 2);
    buffer_put(again);
    buffer_put(NULL);
}

static void peers_leave_a_quarter_to_local_use(void **state)
{
    (void)state;
    struct buffer *held[4];
    for (size_t i = 0; i < 3; i++) {
        held[i] = buffer_get(pool, 4 * MIB, BUFFER_FOR_PEER);
        assert_non_null(held[i]);
    }
    assert_null(buffer_get(pool, 1, BUFFER_FOR_PEER));
    held[3] = buffer_get(pool, 4 * MIB, BUFFER_FOR_LOCAL);
    assert_non_null(held[3]);
    assert_null(buffer_get(pool, 1, BUFFER_FOR_LOCAL));
    assert_int_equal(stats().refused, 2);
    assert_int_equal(stats().used_peak_bytes, 16 * MIB);
    for (size_t i = 0; i < 4; i++)
        buffer_put(held[i]);
}

static void the_cap_holds_over_all_classes(void **state)
{
    (void)state;
    struct buffer *small[1024];
    for (size_t i = 0; i < 1024; i++) { /* 16 MiB of the smallest class, then all free */
        small[i] = buffer_get(pool, 1, BUFFER_FOR_LOCAL);
        assert_non_null(small[i]);
    }
    assert_null(buffer_get(pool, 1, BUFFER_FOR_LOCAL));
    for (size_t i = 0; i < 1024; i++)
        buffer_put(small[i]);
    assert_int_equal(stats().bytes, 16 * MIB);
    struct buffer *large = buffer_get(pool, 4 * MIB, BUFFER_FOR_LOCAL);
    assert_non_null(large); /* free small ones made room */
    assert_true(stats().bytes <= 16 * MIB);
    buffer_put(large);
}

static void trimming_gives_unused_memory_back(void **state)
{
    (void)state;
    struct buffer *held = buffer_get(pool, MIB, BUFFER_FOR_LOCAL);
    struct buffer *other = buffer_get(pool, 4 * MIB, BUFFER_FOR_LOCAL);
    buffer_put(other);
    buffer_pool_trim(pool, 4 * MIB);
    assert_int_equal(stats().bytes, 5 * MIB);
    buffer_pool_trim(pool, 4 * MIB - 1);
    assert_int_equal(stats().bytes, MIB);
    buffer_pool_trim(pool, 0);
    assert_int_equal(stats().bytes, MIB); /* in use */
    buffer_put(held);
}

struct waiting {
    struct buffer_waiter waiter;
    struct buffer *got;
    unsigned calls;
};

static void on_ready(void *arg)
{
    struct waiting *waiting = arg;
    waiting->calls++;
    waiting->got = buffer_get(pool, waiting->waiter.bytes, waiting->waiter.use);
}

static void wait_for(struct waiting *waiting, uint32_t bytes, enum buffer_use use)
{
    *waiting = (struct waiting){.waiter = {.ready = on_ready, .bytes = bytes, .use = use}};
    waiting->waiter.arg = waiting;
    buffer_wait(pool, &waiting->waiter);
}

static void waiters_are_called_in_order_when_there_is_room(void **state)
{
    (void)state;
    struct waiting first, second;
    struct buffer *held[3];
    for (size_t i = 0; i < 3; i++)
        held[i] = buffer_get(pool, 4 * MIB, BUFFER_FOR_PEER);
    wait_for(&first, 4 * MIB, BUFFER_FOR_PEER);
    wait_for(&second, 4 * MIB, BUFFER_FOR_PEER);
    buffer_pool_wake(pool);
    assert_int_equal(first.calls, 0);
    buffer_put(held[0]);
    assert_int_equal(first.calls, 0); /* a put calls nobody */
    buffer_pool_wake(pool);
    assert_int_equal(first.calls, 1);
    assert_non_null(first.got);
    assert_int_equal(second.calls, 0);
    assert_int_equal(stats().waiting, 1);
    buffer_unwait(pool, &second.waiter);
    buffer_unwait(pool, &second.waiter); /* again is fine */
    buffer_put(held[1]);
    buffer_pool_wake(pool);
    assert_int_equal(second.calls, 0);
    buffer_put(held[2]);
    buffer_put(first.got);
}

static void a_waiting_peer_does_not_hold_up_local_use(void **state)
{
    (void)state;
    struct waiting peer, local;
    struct buffer *held[3];
    for (size_t i = 0; i < 3; i++)
        held[i] = buffer_get(pool, 4 * MIB, BUFFER_FOR_PEER);
    wait_for(&peer, MIB, BUFFER_FOR_PEER);
    wait_for(&local, MIB, BUFFER_FOR_LOCAL);
    buffer_pool_wake(pool);
    assert_int_equal(peer.calls, 0);
    assert_int_equal(local.calls, 1);
    assert_non_null(local.got);
    buffer_unwait(pool, &peer.waiter);
    buffer_put(local.got);
    for (size_t i = 0; i < 3; i++)
        buffer_put(held[i]);
}

static void on_ready_wait_again(void *arg)
{
    struct waiting *waiting = arg;
    waiting->calls++;
    buffer_wait(pool, &waiting->waiter);
}

static void one_who_waits_again_is_called_once_per_turn(void **state)
{
    (void)state;
    struct waiting waiting;
    wait_for(&waiting, MIB, BUFFER_FOR_PEER);
    waiting.waiter.ready = on_ready_wait_again;
    buffer_pool_wake(pool);
    assert_int_equal(waiting.calls, 1);
    buffer_pool_wake(pool);
    assert_int_equal(waiting.calls, 2);
    buffer_unwait(pool, &waiting.waiter);
}

static void a_small_cap_still_holds_some_pieces(void **state)
{
    (void)state;
    struct buffer_pool *small = NULL;
    struct buffer_stats out;
    assert_int_equal(buffer_pool_new(1, &small), 0);
    buffer_pool_stats(small, &out);
    assert_int_equal(out.cap_bytes, 4 * PIECE_BYTES_MAX);
    buffer_pool_free(small);
    buffer_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_buffer_has_at_least_what_was_asked, make, drop),
        cmocka_unit_test_setup_teardown(the_last_reference_returns_it, make, drop),
        cmocka_unit_test_setup_teardown(peers_leave_a_quarter_to_local_use, make, drop),
        cmocka_unit_test_setup_teardown(the_cap_holds_over_all_classes, make, drop),
        cmocka_unit_test_setup_teardown(trimming_gives_unused_memory_back, make, drop),
        cmocka_unit_test_setup_teardown(waiters_are_called_in_order_when_there_is_room, make, drop),
        cmocka_unit_test_setup_teardown(a_waiting_peer_does_not_hold_up_local_use, make, drop),
        cmocka_unit_test_setup_teardown(one_who_waits_again_is_called_once_per_turn, make, drop),
        cmocka_unit_test(a_small_cap_still_holds_some_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
