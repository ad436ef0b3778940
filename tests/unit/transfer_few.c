/* SPDX-License-Identifier: Apache-2.0 */
/* How much is in flight in a mesh of few nodes: little where all answer soon, as much as ever where
 * they do not, or are many; on each side of a zone border by itself. */
#include "transfer_host.h"

#define PIECES 400u
#define FEW    9u  /* members, this one included */
#define MANY   13u /* no few any more */
#define FAR    2u  /* beyond a border */
#define FIRST  8u  /* asked for while no rate is known */
#define SOME   20u
#define LONG   320u /* pieces after which a rate is known */
/* 5 requests, and one more for four members, and what comes in three round trips. */
#define MOST (5 + FEW / 4 + 3 * NEAR_US / EACH_US)
/* Of 16 that may be in flight elsewhere. */
#define USUAL 14u
/* Time from one piece to the next. */
#define EACH_US (6 * T_MS / 5)
/* Round trips: near ones, the same with full queues, and such that bytes in flight have to bridge.
 */
#define NEAR_US   (1 * T_MS)
#define QUEUED_US (12 * T_MS)
#define LATE_US   (25 * T_MS)
/* Samples after which a mean is nearly the last of them. */
#define SAMPLES 30u

struct asked {
    uint32_t piece, to;
};

/* The core, and what it asked for and did not get, oldest first. */
struct few {
    struct t_host t;
    struct asked asked[PIECES];
    unsigned count;
};

/* `near` other members in this node's zone, `far` in another one; numbers go on. */
static void open_few(struct few *few, uint32_t near, uint32_t far)
{
    struct t_host *t = &few->t;
    memset(few, 0, sizeof *few);
    t->now_us = 1000 * (uint64_t)T_S;
    t->self = t_member(0);
    t->self.topology.zone = (struct label){"a"};
    t->env = (struct env){
        .host = t, .send = t_send, .random = t_random, .alloc = t_alloc, .trace = t_trace};
    prng_seed(&t->prng, (const uint8_t *)"few", 3);
    struct transfer_config config = {
        .self_id = t->self.id, .self_addr = t->self.addr, .topology = t->self.topology};
    assert_int_equal(transfer_new(&t->env, &config, t->now_us, &t->core), 0);
    for (uint32_t i = 1; i <= near + far; i++) {
        struct member member = t_member(i);
        member.topology.zone.text[0] = i <= near ? 'a' : 'b';
        assert_int_equal(transfer_member_up(t->core, t->now_us, &member), 0);
    }
    uint8_t lookup[32] = {3};
    t->info.size_bytes = PIECES * T_PIECE;
    digest_of(DIGEST_SHA256, "blob", 4, &t->info.digest);
    blob_key_of(lookup, &t->info.digest, &t->info.key);
    assert_int_equal(transfer_blob_open(t->core, t->now_us, &t->info, NULL, &t->blob), 0);
    (void)t_read(t, TRANSFER_READ_STREAM, false);
}

/* Notes the requests since the last call. */
static void note_asked(struct few *few)
{
    struct t_host *t = &few->t;
    const struct t_sent *sent;
    for (unsigned i = 0; (sent = t_sent(t, WIRE_TRANSFER_REQUEST, i)) != NULL; i++) {
        bool known = false;
        for (unsigned j = 0; j < few->count; j++)
            known = known || few->asked[j].piece == sent->message.of.piece.piece;
        assert_true(few->count < PIECES);
        if (!known)
            few->asked[few->count++] = (struct asked){sent->message.of.piece.piece, sent->to};
    }
    t_clear(t);
}

/* `holders` nodes from `first` on, so far away, have the first `pieces` pieces, and a session. */
static void hold(struct few *few, uint32_t first, uint32_t holders, uint32_t pieces,
                 uint64_t round_us)
{
    for (uint32_t i = first; i < first + holders; i++) {
        struct member member = t_member(i);
        t_hello(&few->t, i, true, pieces == PIECES ? WIRE_HAVE_COMPLETE : 0, pieces);
        transfer_rtt(few->t.core, &member.id, round_us, true);
        t_session(&few->t, i);
    }
    note_asked(few);
}

/* Lets `pieces` pieces come, one each `each_us`, always the one asked for first. */
static void let_come(struct few *few, unsigned pieces, uint64_t each_us)
{
    struct t_host *t = &few->t;
    for (unsigned i = 0; i < pieces; i++) {
        assert_true(few->count > 0);
        struct asked first = few->asked[0];
        struct member from = t_member(first.to);
        memmove(few->asked, few->asked + 1, --few->count * sizeof first);
        t_wait(t, each_us);
        transfer_piece_progress(t->core, t->now_us, t->blob, first.piece, &from.id,
                                (uint32_t)T_PIECE);
        t_piece(t, first.piece, PIECE_FROM_PEER, first.to, 0);
        note_asked(few);
    }
}

static void test_few_near_nodes(void **state)
{
    (void)state;
    struct few few;
    open_few(&few, FEW - 1, 0);
    hold(&few, 1, FEW - 1, PIECES, NEAR_US);
    let_come(&few, SOME, EACH_US);
    assert_int_equal(few.count, FIRST);
    let_come(&few, LONG, EACH_US);
    assert_int_equal(few.count, MOST);
    t_close(&few.t);
}

/* Near nodes behind full queues: what is asked for is on its way for longer. */
static void test_answers_are_queued(void **state)
{
    (void)state;
    struct few few;
    open_few(&few, FEW - 1, 0);
    hold(&few, 1, FEW - 1, PIECES, NEAR_US);
    for (uint32_t i = 1; i < FEW; i++) {
        struct member member = t_member(i);
        for (uint32_t sample = 0; sample < SAMPLES; sample++)
            transfer_rtt(few.t.core, &member.id, QUEUED_US, true);
    }
    let_come(&few, LONG, EACH_US);
    assert_true(few.count >= USUAL);
    t_close(&few.t);
}

static void test_answers_come_late(void **state)
{
    (void)state;
    struct few few;
    open_few(&few, FEW - 1, 0);
    hold(&few, 1, FEW - 1, PIECES, LATE_US);
    let_come(&few, LONG, EACH_US);
    assert_true(few.count >= USUAL);
    t_close(&few.t);
}

static void test_many_nodes(void **state)
{
    (void)state;
    struct few few;
    open_few(&few, MANY - 1, 0);
    hold(&few, 1, FEW - 1, PIECES, NEAR_US);
    let_come(&few, LONG, EACH_US);
    assert_true(few.count >= USUAL);
    t_close(&few.t);
}

/* What this side of a border gives does not keep the other from giving. */
static void test_both_sides_of_a_border(void **state)
{
    (void)state;
    struct few few;
    uint32_t near = FIRST + 1; /* of whom each would be asked for a piece */
    open_few(&few, near, FAR);
    hold(&few, 1, near, PIECES - SOME, NEAR_US);
    hold(&few, 1 + near, FAR, PIECES, NEAR_US);
    let_come(&few, SOME, EACH_US);
    unsigned beyond = 0;
    for (unsigned i = 0; i < few.count; i++)
        beyond += few.asked[i].to > near ? 1 : 0;
    assert_in_range(beyond, 1, FIRST);
    assert_int_equal(few.count - beyond, FIRST);
    t_close(&few.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_near_nodes),         cmocka_unit_test(test_answers_are_queued),
        cmocka_unit_test(test_answers_come_late),      cmocka_unit_test(test_many_nodes),
        cmocka_unit_test(test_both_sides_of_a_border),
    };
    return cmocka_run_group_tests_name("transfer_few", tests, NULL, NULL);
}
