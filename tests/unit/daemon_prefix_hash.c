/* SPDX-License-Identifier: Apache-2.0 */
/* The hash over a whole blob: whatever the order and whichever worker, it is the digest of the
 * pieces in order, and every buffer comes back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "../../src/daemon/prefix_hash.h"

#define PIECE_BYTES 4096U
#define PIECES      (3 * PREFIX_HASH_LINE_MAX)

static struct buffer_pool *pool;
static struct prefix_hash *prefix;
static uint8_t blob[PIECES * PIECE_BYTES];

static int make(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof blob; i++)
        blob[i] = (uint8_t)(i * 31 + i / 4096);
    return buffer_pool_new(16 * 1024 * 1024, &pool) != 0 ||
           prefix_hash_new(DIGEST_SHA256, &prefix) != 0;
}

static int drop(void **state)
{
    (void)state;
    prefix_hash_free(prefix);
    buffer_pool_free(pool); /* asserts that every buffer came back */
    return 0;
}

static const uint8_t *bytes_of(uint32_t piece)
{
    return blob + (size_t)piece * PIECE_BYTES;
}

static struct piece_hash hash_of(uint32_t piece)
{
    struct piece_hash hash;
    piece_hash_of(bytes_of(piece), PIECE_BYTES, &hash);
    return hash;
}

static bool push(uint32_t piece)
{
    struct buffer *buffer = buffer_get(pool, PIECE_BYTES, BUFFER_FOR_LOCAL);
    assert_non_null(buffer);
    memcpy(buffer->bytes, bytes_of(piece), PIECE_BYTES);
    buffer->used = PIECE_BYTES;
    struct piece_hash hash = hash_of(piece);
    bool pushed = prefix_hash_push(prefix, piece, buffer, &hash);
    buffer_put(buffer); /* the line has its own reference */
    return pushed;
}

static bool take(uint32_t piece, const struct piece_hash *expected)
{
    struct piece_hash hash, right = hash_of(piece);
    const struct prefix_hash_piece arrived = {
        .index = piece, .span = {bytes_of(piece), PIECE_BYTES}, .expected = expected};
    bool good = prefix_hash_take(prefix, &arrived, &hash);
    assert_memory_equal(hash.bytes, right.bytes, sizeof hash.bytes);
    return good;
}

/* Collects and checks: pieces `first` to `end`, all of them. */
static void expect_collected(uint32_t first, uint32_t end)
{
    struct piece_hash hashes[PREFIX_HASH_LINE_MAX];
    assert_int_equal(prefix_hash_collect(prefix, hashes), end - first);
    for (uint32_t piece = first; piece < end; piece++) {
        struct piece_hash right = hash_of(piece);
        assert_memory_equal(hashes[piece - first].bytes, right.bytes, sizeof right.bytes);
    }
}

static void expect_digest(uint32_t pieces)
{
    struct digest digest, right;
    prefix_hash_final(prefix, &digest);
    digest_of(DIGEST_SHA256, blob, (size_t)pieces * PIECE_BYTES, &right);
    assert_true(digest_equal(&digest, &right));
}

static void pieces_in_order_are_hashed_as_they_arrive(void **state)
{
    (void)state;
    for (uint32_t piece = 0; piece < 5; piece++) {
        assert_int_equal(prefix_hash_next(prefix), piece);
        assert_true(take(piece, NULL));
        assert_int_equal(prefix_hash_waiting(prefix), 0);
    }
    expect_collected(0, 5);
    expect_digest(5);
}

static void an_arrival_takes_the_first_of_the_line_along(void **state)
{
    (void)state;
    assert_true(push(0));
    assert_true(push(1));
    assert_int_equal(prefix_hash_waiting(prefix), 2);
    assert_true(take(7, NULL));
    assert_int_equal(prefix_hash_waiting(prefix), 1);
    expect_collected(0, 1);
    assert_true(take(2, NULL)); /* next, but for the one in line: that one first */
    expect_collected(1, 2);
    assert_int_equal(prefix_hash_next(prefix), 2);
    assert_true(push(2));
    prefix_hash_drain(prefix, 0);
    expect_collected(2, 3);
    expect_digest(3);
}

static void a_piece_with_a_gap_before_it_is_hashed_alone(void **state)
{
    (void)state;
    assert_true(take(1, NULL));
    expect_collected(0, 0);
    assert_int_equal(prefix_hash_next(prefix), 0);
}

static void false_bytes_stay_out(void **state)
{
    (void)state;
    const struct piece_hash other = hash_of(9);
    assert_false(take(0, &other));
    expect_collected(0, 0);
    assert_int_equal(prefix_hash_next(prefix), 0);
    const struct piece_hash right = hash_of(0);
    assert_true(take(0, &right));
    assert_true(push(1));
    assert_false(take(5, &other)); /* what it took along is right all the same */
    expect_collected(0, 2);
    expect_digest(2);
}

static void a_full_line_takes_no_more(void **state)
{
    (void)state;
    for (uint32_t piece = 0; piece < PREFIX_HASH_LINE_MAX; piece++)
        assert_true(push(piece));
    assert_false(push(PREFIX_HASH_LINE_MAX));
    prefix_hash_drain(prefix, 0);
    assert_false(push(PREFIX_HASH_LINE_MAX)); /* all hashed, but not collected */
    assert_true(take(PREFIX_HASH_LINE_MAX, NULL));
    expect_collected(0, PREFIX_HASH_LINE_MAX);
    assert_true(take(PREFIX_HASH_LINE_MAX, NULL));
    expect_collected(PREFIX_HASH_LINE_MAX, PREFIX_HASH_LINE_MAX + 1);
    expect_digest(PREFIX_HASH_LINE_MAX + 1);
}

static void only_the_next_piece_joins_the_line(void **state)
{
    (void)state;
    assert_false(push(1));
    assert_true(take(0, NULL));
    assert_false(push(0)); /* a worker was faster */
    assert_true(push(1));
    expect_collected(0, 1);
}

static void drain_leaves_what_it_was_told(void **state)
{
    (void)state;
    for (uint32_t piece = 0; piece < 6; piece++)
        assert_true(push(piece));
    prefix_hash_drain(prefix, 4);
    assert_int_equal(prefix_hash_waiting(prefix), 4);
    prefix_hash_drain(prefix, 5);
    assert_int_equal(prefix_hash_waiting(prefix), 4);
    expect_collected(0, 2);
}

static void trim_gives_back_what_is_not_hashed(void **state)
{
    (void)state;
    for (uint32_t piece = 0; piece < 6; piece++)
        assert_true(push(piece));
    prefix_hash_drain(prefix, 4);
    prefix_hash_trim(prefix);
    assert_int_equal(prefix_hash_waiting(prefix), 0);
    struct buffer_stats stats;
    buffer_pool_stats(pool, &stats);
    assert_int_equal(stats.used_bytes, 2 * BUFFER_CLASS_MIN_BYTES); /* hashed, not collected */
    assert_int_equal(prefix_hash_next(prefix), 2);
    expect_collected(0, 2);
    assert_true(push(2));
    prefix_hash_drain(prefix, 0);
    expect_collected(2, 3);
    expect_digest(3);
}

static void reset_begins_anew(void **state)
{
    (void)state;
    assert_true(take(0, NULL));
    assert_true(push(1));
    prefix_hash_reset(prefix);
    assert_int_equal(prefix_hash_next(prefix), 0);
    assert_int_equal(prefix_hash_waiting(prefix), 0);
    assert_true(take(0, NULL));
    expect_collected(0, 1);
    expect_digest(1);
}

static void an_unknown_algorithm_is_refused(void **state)
{
    (void)state;
    struct prefix_hash *none = NULL;
    assert_int_equal(prefix_hash_new(DIGEST_NONE, &none), E_INVALID);
    assert_null(none);
}

/* Pieces that workers take, in an order with gaps: of four neighbours the last comes first. */
static uint32_t arriving;
static bool arrived[PIECES];
static pthread_mutex_t arrivals = PTHREAD_MUTEX_INITIALIZER;

static void *work(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&arrivals);
        uint32_t turn = arriving++;
        pthread_mutex_unlock(&arrivals);
        if (turn >= PIECES)
            return NULL;
        uint32_t piece = turn ^ 3U;
        assert_true(take(piece, NULL));
        pthread_mutex_lock(&arrivals);
        arrived[piece] = true;
        pthread_mutex_unlock(&arrivals);
    }
}

static bool is_here(uint32_t piece)
{
    pthread_mutex_lock(&arrivals);
    bool here = arrived[piece];
    pthread_mutex_unlock(&arrivals);
    return here;
}

static void workers_and_loop_at_once(void **state)
{
    (void)state;
    pthread_t workers[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&workers[i], NULL, work, NULL), 0);
    uint32_t collected = 0;
    while (collected < PIECES) {
        struct piece_hash hashes[PREFIX_HASH_LINE_MAX];
        uint32_t next = prefix_hash_next(prefix);
        if (next == PIECES || !is_here(next) || !push(next))
            prefix_hash_drain(prefix, 0);
        uint32_t count = prefix_hash_collect(prefix, hashes);
        for (uint32_t i = 0; i < count; i++, collected++) {
            struct piece_hash right = hash_of(collected);
            assert_memory_equal(hashes[i].bytes, right.bytes, sizeof right.bytes);
        }
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(workers[i], NULL), 0);
    expect_digest(PIECES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pieces_in_order_are_hashed_as_they_arrive, make, drop),
        cmocka_unit_test_setup_teardown(an_arrival_takes_the_first_of_the_line_along, make, drop),
        cmocka_unit_test_setup_teardown(a_piece_with_a_gap_before_it_is_hashed_alone, make, drop),
        cmocka_unit_test_setup_teardown(false_bytes_stay_out, make, drop),
        cmocka_unit_test_setup_teardown(a_full_line_takes_no_more, make, drop),
        cmocka_unit_test_setup_teardown(only_the_next_piece_joins_the_line, make, drop),
        cmocka_unit_test_setup_teardown(drain_leaves_what_it_was_told, make, drop),
        cmocka_unit_test_setup_teardown(trim_gives_back_what_is_not_hashed, make, drop),
        cmocka_unit_test_setup_teardown(reset_begins_anew, make, drop),
        cmocka_unit_test_setup_teardown(an_unknown_algorithm_is_refused, make, drop),
        cmocka_unit_test_setup_teardown(workers_and_loop_at_once, make, drop),
    };
    return cmocka_run_group_tests_name("daemon_prefix_hash", tests, NULL, NULL);
}
