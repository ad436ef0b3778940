/* SPDX-License-Identifier: Apache-2.0 */
/* In which order pieces are asked for: one after the other while nobody else pulls the blob, for
 * the reader and the blob's hash to keep up with them; mixed as soon as others are to have what we
 * have not. */
#include "transfer_host.h"

#define PIECES 200u
#define ASKED  40u
/* Not a small mesh, and some that have everything. */
#define MEMBERS 40u
#define HOLDERS 20u
/* Pieces of 1 MiB; the last part of them. */
#define MANY 2048u
#define LAST (MANY / 4 * 3)

/* Lets each request be answered at once; how many of the first `ASKED` pieces were asked for before
 * one that comes earlier in the blob. */
static unsigned out_of_order(struct t_host *t)
{
    unsigned before = 0;
    uint32_t highest = 0;
    for (unsigned i = 0; i < ASKED; i++) {
        const struct t_sent *request = t_sent(t, WIRE_TRANSFER_REQUEST, i);
        assert_non_null(request);
        uint32_t piece = request->message.of.piece.piece;
        before += piece < highest ? 1 : 0;
        highest = piece > highest ? piece : highest;
        t->now_us += 5 * T_MS;
        t_piece(t, piece, PIECE_FROM_PEER, 1, 0);
    }
    return before;
}

static void open_with_holder(struct t_host *t)
{
    t_open(t, 6, (uint64_t)PIECES * T_PIECE);
    (void)t_read(t, TRANSFER_READ_STREAM, false);
    t_hello(t, 1, true, WIRE_HAVE_COMPLETE, t_pieces(t));
    t_session(t, 1);
}

static void test_nobody_else_pulls(void **state)
{
    (void)state;
    struct t_host t;
    open_with_holder(&t);
    assert_int_equal(out_of_order(&t), 0);
    t_close(&t);
}

static void test_others_pull_too(void **state)
{
    (void)state;
    struct t_host t;
    open_with_holder(&t);
    for (uint32_t other = 2; other <= 5; other++)
        t_hello(&t, other, true, WIRE_HAVE_WANTS, 0);
    assert_true(out_of_order(&t) > ASKED / 4);
    t_close(&t);
}

/* What is asked for and has not come, by piece. */
static bool asked[MANY];

/* Notes what was asked for since the last call; how many of it `ASKED` or more behind the first
 * piece that is missing. */
static unsigned note_asked(struct t_host *t)
{
    uint32_t front = bitfield_next_clear(transfer_blob_have(t->core, t->blob), 0);
    unsigned count = 0, far = 0;
    const struct t_sent *request = t_sent(t, WIRE_TRANSFER_REQUEST, count);
    while (request != NULL) {
        uint32_t piece = request->message.of.piece.piece;
        asked[piece] = true;
        far += piece >= front + ASKED ? 1 : 0;
        request = t_sent(t, WIRE_TRANSFER_REQUEST, ++count);
    }
    t_clear(t);
    return far;
}

static unsigned piece_comes(struct t_host *t, uint32_t piece)
{
    asked[piece] = false;
    t->now_us += T_MS / 8;
    t_piece(t, piece, PIECE_FROM_PEER, 1, 0);
    return note_asked(t);
}

/* Lets `ASKED` pieces come, always the first that is asked for; how many were asked for meanwhile
 * far behind the first that is missing. */
static unsigned let_come(struct t_host *t)
{
    unsigned far = 0;
    for (unsigned i = 0; i < ASKED; i++) {
        uint32_t piece = 0;
        while (piece < MANY && !asked[piece])
            piece++;
        assert_true(piece < MANY);
        far += piece_comes(t, piece);
    }
    return far;
}

/* A blob of many pieces in a crowd is asked for in any order, but for its last part. */
static void test_last_part(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, MEMBERS, (uint64_t)MANY * T_MIB);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    for (uint32_t holder = 1; holder <= HOLDERS; holder++) {
        t_hello(&t, holder, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
        t_session(&t, holder);
    }
    t_hello(&t, HOLDERS + 1, true, WIRE_HAVE_WANTS, 0);
    (void)note_asked(&t);
    assert_true(let_come(&t) > ASKED / 4);
    for (uint32_t piece = 0; piece < LAST; piece++)
        (void)piece_comes(&t, piece);
    (void)let_come(&t); /* what was asked for before */
    assert_int_equal(let_come(&t), 0);
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_else_pulls),
        cmocka_unit_test(test_others_pull_too),
        cmocka_unit_test(test_last_part),
    };
    return cmocka_run_group_tests_name("transfer_select", tests, NULL, NULL);
}
