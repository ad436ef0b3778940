/* SPDX-License-Identifier: Apache-2.0 */
/* What measured round trips do: how much may be in flight, and how soon a question is repeated.
 * Where they are short nothing changes. */
#include "transfer_host.h"

#define OTHERS 6u
#define PIECES 200u

static void know(struct t_host *t, uint64_t rtt_us, bool sure)
{
    for (uint32_t i = 1; i <= OTHERS; i++) {
        const struct member member = t_member(i);
        transfer_rtt(t->core, &member.id, rtt_us, sure);
    }
}

/* How many pieces are asked for while no rate is known. */
static uint32_t asked_at_first(uint64_t rtt_us, bool sure)
{
    struct t_host t;
    t_open(&t, OTHERS, (uint64_t)PIECES * T_PIECE);
    if (rtt_us > 0)
        know(&t, rtt_us, sure);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    for (uint32_t i = 1; i <= OTHERS; i++) {
        t_hello(&t, i, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
        t_session(&t, i);
    }
    uint32_t count = 0;
    while (t_sent(&t, WIRE_TRANSFER_REQUEST, count) != NULL)
        count++;
    t_close(&t);
    return count;
}

static void test_far_nodes_are_asked_for_more(void **state)
{
    (void)state;
    uint32_t usual = asked_at_first(0, true);
    assert_true(usual > 0);
    assert_int_equal(asked_at_first(500, true), usual);
    assert_int_equal(asked_at_first(20 * T_MS, true), usual);
    assert_true(asked_at_first(100 * T_MS, true) >= 2 * usual);
}

/* One lost datagram makes nobody far: six answers, of which each came late, do. */
static void test_answers_to_repeated_questions_count_less(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, OTHERS, (uint64_t)PIECES * T_PIECE);
    const struct member lost = t_member(1), prompt = t_member(2);
    transfer_rtt(t.core, &lost.id, 250 * T_MS, false);
    transfer_rtt(t.core, &prompt.id, 1 * T_MS, true);
    transfer_rtt(t.core, &lost.id, 250 * T_MS, false);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    for (uint32_t i = 1; i <= OTHERS; i++) {
        t_hello(&t, i, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
        t_session(&t, i);
    }
    uint32_t count = 0;
    while (t_sent(&t, WIRE_TRANSFER_REQUEST, count) != NULL)
        count++;
    assert_int_equal(count, asked_at_first(0, true));
    t_close(&t);
    assert_true(asked_at_first(250 * T_MS, false) > count);
}

/* HELLO is repeated after 150 ms, but not before its answer can be here. */
static unsigned hellos_in(uint64_t rtt_us, uint64_t span_us)
{
    struct t_host t;
    t_open(&t, 1, (uint64_t)PIECES * T_PIECE);
    if (rtt_us > 0)
        know(&t, rtt_us, true);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    t_wait(&t, span_us);
    unsigned count = 0;
    while (t_sent(&t, WIRE_TRANSFER_HELLO, count) != NULL)
        count++;
    t_close(&t);
    return count;
}

static void test_questions_are_repeated_after_a_round_trip(void **state)
{
    (void)state;
    assert_int_equal(hellos_in(0, 250 * T_MS), 2);
    assert_int_equal(hellos_in(1 * T_MS, 250 * T_MS), 2);
    assert_int_equal(hellos_in(300 * T_MS, 350 * T_MS), 1);
    assert_true(hellos_in(300 * T_MS, 2 * T_S) >= 2);
}

static void test_unknown_nodes_are_passed_over(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 1, (uint64_t)PIECES * T_PIECE);
    const struct member stranger = t_member(77);
    transfer_rtt(t.core, &stranger.id, 300 * T_MS, true);
    transfer_rtt(t.core, &t.self.id, 300 * T_MS, true);
    transfer__check_invariants(t.core);
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_far_nodes_are_asked_for_more),
        cmocka_unit_test(test_answers_to_repeated_questions_count_less),
        cmocka_unit_test(test_questions_are_repeated_after_a_round_trip),
        cmocka_unit_test(test_unknown_nodes_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
