/* SPDX-License-Identifier: Apache-2.0 */
/* Holders that have given much are spared while others can be asked, and nothing starves of it:
 * what those do not give is asked of the spared in SPARED_MS at most. */
#include "transfer_host.h"

#define MEMBERS 40u /* not a small mesh */
#define RESTED  3u  /* holders 1 to 3, two requests to each */
#define SPENT   4u
#define ASKED   (2 * RESTED)
#define PIECES  32u
#define LONG_US (6 * T_S) /* given 2.7 copies */
/* 150 ms of sparing and a tick. */
#define SPARED_MS 200u

/* A neighbour that has the first `pieces`; who has none pulls. */
static void greet(struct t_host *t, uint32_t from, uint32_t pieces, uint32_t wait_us)
{
    struct member member = t_member(from);
    struct wire_transfer message = {.type = WIRE_TRANSFER_HELLO};
    struct wire_have *have = &message.of.have;
    *have = (struct wire_have){.blob = t->info.key,
                               .flags = pieces == 0 ? WIRE_HAVE_WANTS : 0,
                               .sequence = 100,
                               .wait_us = wait_us,
                               .page_bytes = (t_pieces(t) + 7) / 8};
    digest_proof(&t->info.digest, &member.id, &t->self.id, have->proof);
    for (uint32_t i = 0; i < pieces; i++)
        have->have[i / 8] |= (uint8_t)(0x80u >> (i % 8));
    memcpy(have->injected, have->have, have->page_bytes);
    t_receive(t, from, &message);
    t_session(t, from);
}

/* The rested have the first `pieces`, the spent one has all. */
static void open_holders(struct t_host *t, uint32_t members, uint32_t pieces)
{
    t_open(t, members, PIECES * T_PIECE);
    assert_int_equal(t_pieces(t), PIECES);
    (void)t_read(t, TRANSFER_READ_STREAM, false);
    for (uint32_t holder = 1; holder <= RESTED; holder++)
        greet(t, holder, pieces, 0);
    greet(t, SPENT, PIECES, LONG_US);
}

/* Requests to one holder that were sent since t_clear, repeats among them. */
static uint32_t asked_of(const struct t_host *t, uint32_t holder)
{
    uint32_t count = 0;
    const struct t_sent *sent;
    for (unsigned i = 0; (sent = t_sent(t, WIRE_TRANSFER_REQUEST, i)) != NULL; i++)
        count += sent->to == holder;
    return count;
}

static void refuse(struct t_host *t, const struct t_sent *request, uint32_t wait_us)
{
    struct wire_transfer busy = {.type = WIRE_TRANSFER_BUSY};
    busy.of.piece = (struct wire_piece){.blob = t->info.key,
                                        .piece = request->message.of.piece.piece,
                                        .serial = request->message.of.piece.serial,
                                        .wait_us = wait_us};
    t_receive(t, request->to, &busy);
}

static void test_who_gave_much_is_spared(void **state)
{
    (void)state;
    struct t_host t;
    open_holders(&t, MEMBERS, PIECES);
    assert_int_equal(asked_of(&t, SPENT), 0);
    for (unsigned i = 0; i < PIECES; i++) { /* 96 ms */
        const struct t_sent *request = t_sent(&t, WIRE_TRANSFER_REQUEST, i);
        assert_non_null(request);
        assert_in_range(request->to, 1, RESTED);
        t_wait(&t, 3 * T_MS);
        t_piece(&t, request->message.of.piece.piece, PIECE_FROM_PEER, request->to, 0);
    }
    assert_int_equal(asked_of(&t, SPENT), 0);
    t_close(&t);
}

static void test_who_says_to_wait_as_long_is_not(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, MEMBERS, PIECES * T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    for (uint32_t holder = 1; holder <= SPENT; holder++)
        greet(&t, holder, PIECES, LONG_US - holder);
    for (uint32_t holder = 1; holder <= SPENT; holder++)
        assert_true(asked_of(&t, holder) > 0);
    t_close(&t);
}

static void test_few_nodes_spare_nobody(void **state)
{
    (void)state;
    struct t_host t;
    open_holders(&t, 6, PIECES);
    assert_true(asked_of(&t, SPENT) > 0);
    t_close(&t);
}

static void test_what_nobody_else_has_is_asked_at_once(void **state)
{
    (void)state;
    struct t_host t;
    open_holders(&t, MEMBERS, 16);
    assert_true(asked_of(&t, SPENT) > 0);
    const struct t_sent *sent;
    for (unsigned i = 0; (sent = t_sent(&t, WIRE_TRANSFER_REQUEST, i)) != NULL; i++)
        assert_int_equal(sent->to == SPENT, sent->message.of.piece.piece >= 16);
    t_close(&t);
}

static void test_when_all_others_refuse_it_is_asked_at_once(void **state)
{
    (void)state;
    struct t_host t;
    open_holders(&t, MEMBERS, PIECES);
    for (uint32_t holder = 1; holder <= RESTED; holder++) {
        assert_int_equal(asked_of(&t, SPENT), 0);
        unsigned i = 0;
        while (t_sent(&t, WIRE_TRANSFER_REQUEST, i)->to != holder)
            i++;
        struct t_sent request = *t_sent(&t, WIRE_TRANSFER_REQUEST, i);
        refuse(&t, &request, 100 * T_MS);
    }
    assert_true(asked_of(&t, SPENT) > 0);
    t_close(&t);
}

/* They have sessions, but neither answer nor send: all they were not asked for comes from the
 * spared one, which is asked soon, and as often as it delivers from then on. */
static void test_when_all_others_are_silent_it_is_asked_soon(void **state)
{
    (void)state;
    struct t_host t;
    open_holders(&t, MEMBERS, PIECES);
    t_wait(&t, 100 * T_MS);
    assert_int_equal(asked_of(&t, SPENT), 0);
    t_wait(&t, (SPARED_MS - 100) * T_MS);
    assert_true(asked_of(&t, SPENT) > 0);
    uint32_t had = 0;
    for (unsigned i = 0; i < t.sent_count && had < PIECES - ASKED; i++) {
        struct t_sent sent = t.sent[i];
        if (sent.message.type != WIRE_TRANSFER_REQUEST || sent.to != SPENT)
            continue;
        t_piece(&t, sent.message.of.piece.piece, PIECE_FROM_PEER, SPENT, 0);
        had++;
    }
    assert_int_equal(had, PIECES - ASKED); /* in no time */
    t_close(&t);
}

static void test_what_a_client_waits_for_is_asked_sooner(void **state)
{
    (void)state;
    struct t_host t;
    open_holders(&t, MEMBERS, PIECES);
    struct t_sent first = *t_sent(&t, WIRE_TRANSFER_REQUEST, 0);
    assert_int_equal(first.message.of.piece.piece, 0);
    refuse(&t, &first, T_S);
    assert_int_equal(asked_of(&t, SPENT), 0);
    t_clear(&t);
    t_wait(&t, 70 * T_MS); /* 20 and a tick */
    assert_int_equal(asked_of(&t, SPENT), 1);
    assert_int_equal(t_sent(&t, WIRE_TRANSFER_REQUEST, 0)->message.of.piece.piece, 0);
    t_close(&t);
}

static const struct t_sent *last_want(const struct t_host *t)
{
    const struct t_sent *sent, *last = NULL;
    for (unsigned i = 0; (sent = t_sent(t, WIRE_TRANSFER_WANT, i)) != NULL; i++)
        last = sent;
    return last;
}

/* WANT is answered: another zone has the segment, this node imports it. */
static void let_import(struct t_host *t)
{
    const struct t_sent *want = last_want(t);
    assert_non_null(want);
    struct t_sent asked = *want;
    struct wire_transfer answer = {.type = WIRE_TRANSFER_GRANT};
    answer.of.lease = asked.message.of.lease;
    answer.of.lease.level = WIRE_LEVEL_ZONE;
    answer.of.lease.arg = 1000;
    t_receive(t, asked.to, &answer);
    struct member holder = t_member(MEMBERS - 1);
    answer.type = WIRE_TRANSFER_REFER;
    answer.of.lease.level = WIRE_LEVEL_HOME;
    answer.of.lease.flags = WIRE_LEASE_CONTACT;
    answer.of.lease.contact = (struct wire_contact){.id = holder.id, .addr = holder.addr};
    t_session(t, MEMBERS - 1);
    t_receive(t, asked.to, &answer);
    t_wait(t, 1 * T_MS);
    assert_int_equal(asked_of(t, MEMBERS - 1), 8); /* a segment of 1 MiB */
}

/* Does a node that imports a segment of so large a blob ask for another, beside somebody else who
 * pulls it or by itself? */
static bool imports_more(uint64_t bytes, bool crowd)
{
    struct t_host t;
    t_open(&t, MEMBERS, bytes);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    if (crowd)
        greet(&t, 1, 0, 0);
    transfer_providers(t.core, t.now_us, &t.info.key, NULL, 0);
    t_wait(&t, 1 * T_MS);
    let_import(&t);
    t_clear(&t);
    t_wait(&t, 50 * T_MS);
    bool more = last_want(&t) != NULL;
    t_close(&t);
    return more;
}

/* Else one node would have half of it alone, and give it to all others of its zone. */
static void test_of_few_segments_one_is_imported_at_a_time(void **state)
{
    (void)state;
    assert_false(imports_more(4 * (uint64_t)T_MIB, true));
    assert_true(imports_more(32 * (uint64_t)T_MIB, true));
    assert_true(imports_more(4 * (uint64_t)T_MIB, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_gave_much_is_spared),
        cmocka_unit_test(test_who_says_to_wait_as_long_is_not),
        cmocka_unit_test(test_few_nodes_spare_nobody),
        cmocka_unit_test(test_what_nobody_else_has_is_asked_at_once),
        cmocka_unit_test(test_when_all_others_refuse_it_is_asked_at_once),
        cmocka_unit_test(test_when_all_others_are_silent_it_is_asked_soon),
        cmocka_unit_test(test_what_a_client_waits_for_is_asked_sooner),
        cmocka_unit_test(test_of_few_segments_one_is_imported_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
