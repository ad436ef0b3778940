/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of ranges: what they touch is brought in and nothing else, though leases are of segments;
 * who reads the rest of a segment next hears first of what is there. */
#include "transfer_host.h"

#define SEGMENT 8u /* pieces of a small blob's segment */

static uint64_t read_range(struct t_host *t, uint32_t first, uint32_t count,
                           enum transfer_read_mode mode)
{
    uint64_t reader;
    assert_int_equal(
        transfer_read_start(t->core, t->now_us, t->blob, first, count, mode, true, &reader), 0);
    t_drain(t);
    transfer_providers(t->core, t->now_us, &t->info.key, NULL, 0);
    t_drain(t);
    return reader;
}

static void expect_fetch(const struct t_host *t, unsigned n, uint32_t piece, uint32_t count)
{
    const struct transfer_result *fetch = t_result(t, TRANSFER_FETCH, n);
    assert_non_null(fetch);
    assert_int_equal(fetch->piece, piece);
    assert_int_equal(fetch->piece_count, count);
}

/* All pieces of the n-th read came. */
static void fetched(struct t_host *t, unsigned n)
{
    struct transfer_result fetch = *t_result(t, TRANSFER_FETCH, n);
    for (uint32_t i = 0; i < fetch.piece_count; i++)
        t_piece(t, fetch.piece + i, PIECE_FROM_ORIGIN, 0, 0);
    transfer_fetch_end(t->core, t->now_us, fetch.id, 0, 0);
    t_drain(t);
}

static void open_alone(struct t_host *t)
{
    t_open(t, 0, 4 * SEGMENT * T_PIECE);
    assert_int_equal(t_segment_pieces(t), SEGMENT);
}

static void test_a_range_brings_in_what_it_touches(void **state)
{
    (void)state;
    struct t_host t;
    open_alone(&t);
    uint64_t reader = read_range(&t, 11, 1, TRANSFER_READ_RANGE);
    expect_fetch(&t, 0, 11, 1);
    fetched(&t, 0);
    transfer_read_stop(t.core, t.now_us, reader);
    t_wait(&t, 3 * T_S);
    assert_null(t_result(&t, TRANSFER_FETCH, 1));
    t_close(&t);
}

static void test_a_range_over_a_border_is_one_read(void **state)
{
    (void)state;
    struct t_host t;
    open_alone(&t);
    (void)read_range(&t, SEGMENT - 2, 5, TRANSFER_READ_RANGE);
    expect_fetch(&t, 0, SEGMENT - 2, 5);
    assert_null(t_result(&t, TRANSFER_FETCH, 1));
    t_close(&t);
}

/* What lies between two ranges of a segment stays out. */
static void test_ranges_of_a_segment_come_one_after_the_other(void **state)
{
    (void)state;
    struct t_host t;
    open_alone(&t);
    (void)read_range(&t, 1, 2, TRANSFER_READ_RANGE);
    (void)read_range(&t, 6, 1, TRANSFER_READ_RANGE);
    expect_fetch(&t, 0, 1, 2);
    assert_null(t_result(&t, TRANSFER_FETCH, 1));
    fetched(&t, 0);
    t_wait(&t, 20 * T_MS);
    expect_fetch(&t, 1, 6, 1);
    fetched(&t, 1);
    t_wait(&t, 3 * T_S);
    assert_null(t_result(&t, TRANSFER_FETCH, 2));
    t_close(&t);
}

static void test_who_reads_on_gets_whole_segments(void **state)
{
    (void)state;
    struct t_host t;
    open_alone(&t);
    (void)read_range(&t, SEGMENT + 3, 1, TRANSFER_READ_RANGE);
    fetched(&t, 0);
    (void)read_range(&t, SEGMENT, 2, TRANSFER_READ_STREAM);
    expect_fetch(&t, 1, SEGMENT, SEGMENT);
    t_close(&t);
}

/* A reader that goes away does not leave a lease behind that waits for what nobody reads. */
static void test_a_read_that_nobody_wants_is_finished(void **state)
{
    (void)state;
    struct t_host t;
    open_alone(&t);
    uint64_t reader = read_range(&t, 2, 2, TRANSFER_READ_RANGE);
    expect_fetch(&t, 0, 2, 2);
    transfer_read_stop(t.core, t.now_us, reader);
    t_drain(&t);
    fetched(&t, 0);
    (void)read_range(&t, 5, 1, TRANSFER_READ_RANGE); /* the segment is free again */
    expect_fetch(&t, 1, 5, 1);
    t_close(&t);
}

/* ---- with keepers ---- */

/* A reader of piece 2 of the only segment, whose keepers are others. */
static uint32_t ask_keeper(struct t_host *t)
{
    t_open(t, 40, SEGMENT * T_PIECE);
    (void)read_range(t, 2, 1, TRANSFER_READ_RANGE);
    const struct t_sent *want = t_sent(t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    return want->to;
}

static int place(const struct t_host *t, unsigned type)
{
    for (unsigned i = 0; i < t->sent_count; i++) {
        if (t->sent[i].message.type == type)
            return (int)i;
    }
    return -1;
}

static void test_a_part_is_returned_and_neighbours_hear_of_it_first(void **state)
{
    (void)state;
    struct t_host t;
    uint32_t keeper = ask_keeper(&t);
    uint32_t other = keeper == 1 ? 2 : 1;
    t_hello(&t, other, true, WIRE_HAVE_WANTS, 0);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_ZONE, 1000);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    expect_fetch(&t, 0, 2, 1);
    t_piece(&t, 0, PIECE_FROM_PEER, other, 0); /* news went out just now */
    t_clear(&t);
    t_piece(&t, 2, PIECE_FROM_ORIGIN, 0, 0);
    assert_true(place(&t, WIRE_TRANSFER_RETURN) >= 0);
    assert_true(place(&t, WIRE_TRANSFER_HAVE) >= 0);
    assert_true(place(&t, WIRE_TRANSFER_HAVE) < place(&t, WIRE_TRANSFER_RETURN));
    assert_int_equal(place(&t, WIRE_TRANSFER_HOLD), -1);
    t_close(&t);
}

static void test_a_whole_segment_is_held(void **state)
{
    (void)state;
    struct t_host t;
    uint32_t keeper = ask_keeper(&t);
    for (uint32_t piece = 0; piece < SEGMENT; piece++) {
        if (piece != 2)
            t_piece(&t, piece, PIECE_FROM_PEER, keeper, 0);
    }
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_ZONE, 1000);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    t_clear(&t);
    t_piece(&t, 2, PIECE_FROM_ORIGIN, 0, 0);
    assert_true(place(&t, WIRE_TRANSFER_HOLD) >= 0);
    t_close(&t);
}

/* A neighbour has piece 0 of what is read: the origin gives the rest alone. */
static void test_what_neighbours_have_is_not_read(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 40, SEGMENT * T_PIECE);
    (void)read_range(&t, 0, 3, TRANSFER_READ_RANGE);
    const struct t_sent *want = t_sent(&t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    uint32_t keeper = want->to, other = keeper == 1 ? 2 : 1;
    t_hello(&t, other, true, 0, 1);
    t_session(&t, other);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_ZONE, 1000);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    expect_fetch(&t, 0, 1, 2);
    fetched(&t, 0);
    t_wait(&t, 20 * T_MS);
    const struct t_sent *request = t_sent(&t, WIRE_TRANSFER_REQUEST, 0);
    assert_non_null(request);
    assert_int_equal(request->message.of.piece.piece, 0);
    assert_null(t_result(&t, TRANSFER_FETCH, 1));
    t_close(&t);
}

static void test_an_import_asks_for_what_is_read(void **state)
{
    (void)state;
    struct t_host t;
    uint32_t keeper = ask_keeper(&t);
    uint32_t holder = keeper == 1 ? 2 : 1;
    t_session(&t, holder);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_ZONE, 1000);
    t_clear(&t);
    t_refer(&t, keeper, WIRE_LEVEL_HOME, holder);
    const struct t_sent *request = t_sent(&t, WIRE_TRANSFER_REQUEST, 0);
    assert_non_null(request);
    assert_int_equal(request->message.of.piece.piece, 2);
    assert_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 1));
    t_clear(&t);
    t_piece(&t, 2, PIECE_FROM_PEER, holder, 0);
    assert_true(place(&t, WIRE_TRANSFER_RETURN) >= 0);
    t_wait(&t, 5 * T_S);
    assert_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 0));
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_close(&t);
}

/* ---- the fine cut ---- */

#define FINE_SEGMENT 16u

/* Among others, of a layer whose plain pieces are 1 MiB. */
static void open_fine(struct t_host *t, uint32_t others)
{
    uint8_t lookup[32] = {3};
    t_open(t, others, SEGMENT * T_PIECE);
    transfer_blob_close(t->core, t->now_us, t->blob);
    t->info.size_bytes = 256ull * 1024 * 1024;
    t->info.cut = PIECE_CUT_FINE;
    blob_key_cut(lookup, &t->info.digest, t->info.cut, &t->info.key);
    assert_int_equal(transfer_blob_open(t->core, t->now_us, &t->info, NULL, &t->blob), 0);
    t_clear(t);
    assert_int_equal(t_pieces(t), 16384);
    assert_int_equal(t_segment_pieces(t), FINE_SEGMENT);
}

/* Both levels' keepers grant a segment that is asked for; how many questions there were so far. */
static unsigned grant_all(struct t_host *t, unsigned from)
{
    const struct t_sent *want;
    while ((want = t_sent(t, WIRE_TRANSFER_WANT, from)) != NULL) {
        struct wire_transfer message = {.type = WIRE_TRANSFER_GRANT};
        struct wire_lease *lease = &message.of.lease;
        *lease = (struct wire_lease){.blob = t->info.key,
                                     .segment = want->message.of.lease.segment,
                                     .epoch = 1,
                                     .zone_epoch = 1,
                                     .arg = 1000};
        uint32_t keeper = want->to;
        t_receive(t, keeper, &message);
        lease->level = WIRE_LEVEL_HOME;
        t_receive(t, keeper, &message);
        from++;
    }
    return from;
}

/* Small segments would be so many requests to the origin. */
static void test_fine_segments_in_a_row_are_one_read(void **state)
{
    (void)state;
    struct t_host t;
    open_fine(&t, 40);
    t_hello(&t, 1, true, WIRE_HAVE_WANTS, 0); /* a crowd */
    (void)read_range(&t, 5 * FINE_SEGMENT - 3, 2 * FINE_SEGMENT + 7, TRANSFER_READ_RANGE);
    assert_int_equal(grant_all(&t, 0), 4); /* all of them were asked for */
    t_wait(&t, 20 * T_MS);
    expect_fetch(&t, 0, 5 * FINE_SEGMENT - 3, 2 * FINE_SEGMENT + 7);
    assert_null(t_result(&t, TRANSFER_FETCH, 1));
    fetched(&t, 0);
    t_wait(&t, 3 * T_S);
    assert_null(t_result(&t, TRANSFER_FETCH, 1));
    t_close(&t);
}

/* One that another has keeps nobody waiting for the others. */
static void test_a_pending_fine_segment_is_read_around(void **state)
{
    (void)state;
    struct t_host t;
    open_fine(&t, 40);
    t_hello(&t, 1, true, WIRE_HAVE_WANTS, 0);
    (void)read_range(&t, 0, 3 * FINE_SEGMENT, TRANSFER_READ_RANGE);
    const struct t_sent *want;
    unsigned granted = 0;
    for (unsigned i = 0; (want = t_sent(&t, WIRE_TRANSFER_WANT, i)) != NULL && i < 3; i++) {
        struct wire_transfer message = {.type = WIRE_TRANSFER_GRANT};
        uint32_t segment = want->message.of.lease.segment, keeper = want->to;
        message.of.lease = (struct wire_lease){.blob = t.info.key,
                                               .segment = segment,
                                               .epoch = 1,
                                               .zone_epoch = 1,
                                               .arg = segment == 1 ? 300 : 1000};
        if (segment == 1)
            message.type = WIRE_TRANSFER_PENDING;
        t_receive(&t, keeper, &message);
        message.of.lease.level = WIRE_LEVEL_HOME;
        if (segment != 1)
            t_receive(&t, keeper, &message);
        granted += segment != 1;
    }
    assert_int_equal(granted, 2);
    t_wait(&t, 20 * T_MS);
    const struct transfer_result *a = t_result(&t, TRANSFER_FETCH, 0),
                                 *b = t_result(&t, TRANSFER_FETCH, 1);
    assert_true(a != NULL && b != NULL);
    assert_int_equal(a->piece_count, FINE_SEGMENT);
    assert_int_equal(b->piece_count, FINE_SEGMENT);
    assert_int_equal(a->piece + b->piece, 2 * FINE_SEGMENT); /* the first and the third */
    t_close(&t);
}

/* Several clients wait, each for a little: none of them for the leases of the others. */
static void test_fine_ranges_are_asked_for_together(void **state)
{
    (void)state;
    struct t_host t;
    open_fine(&t, 40);
    t_hello(&t, 1, true, WIRE_HAVE_WANTS, 0);
    for (unsigned i = 0; i < 40; i++)
        (void)read_range(&t, i * 10 * FINE_SEGMENT, 1, TRANSFER_READ_RANGE);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_WANT, 31));
    assert_null(t_sent(&t, WIRE_TRANSFER_WANT, 32)); /* four times what a pull may have */
    (void)grant_all(&t, 0);
    assert_non_null(t_result(&t, TRANSFER_FETCH, 31));
    assert_null(t_result(&t, TRANSFER_FETCH, 32));
    fetched(&t, 0);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_WANT, 32));
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_range_brings_in_what_it_touches),
        cmocka_unit_test(test_a_range_over_a_border_is_one_read),
        cmocka_unit_test(test_ranges_of_a_segment_come_one_after_the_other),
        cmocka_unit_test(test_who_reads_on_gets_whole_segments),
        cmocka_unit_test(test_a_read_that_nobody_wants_is_finished),
        cmocka_unit_test(test_a_part_is_returned_and_neighbours_hear_of_it_first),
        cmocka_unit_test(test_a_whole_segment_is_held),
        cmocka_unit_test(test_what_neighbours_have_is_not_read),
        cmocka_unit_test(test_an_import_asks_for_what_is_read),
        cmocka_unit_test(test_fine_segments_in_a_row_are_one_read),
        cmocka_unit_test(test_a_pending_fine_segment_is_read_around),
        cmocka_unit_test(test_fine_ranges_are_asked_for_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
