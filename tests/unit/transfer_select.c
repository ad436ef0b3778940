/* SPDX-License-Identifier: Apache-2.0 */
/* In which order pieces are asked for: one after the other while nobody else pulls the blob, for
 * the reader and the blob's hash to keep up with them; mixed as soon as others are to have what we
 * have not. */
#include "transfer_host.h"

#define PIECES 200u
#define ASKED  40u

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_else_pulls),
        cmocka_unit_test(test_others_pull_too),
    };
    return cmocka_run_group_tests_name("transfer_select", tests, NULL, NULL);
}
