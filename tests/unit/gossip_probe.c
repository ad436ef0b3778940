/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failure detection: probes, helpers and nacks, local health, suspicion and its time, confirmation,
 * the dead that come back (SWIM §3.1, §4; Lifeguard §IV; DHT-3, DHT-6).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gossip_host.h"

static unsigned pings_to(unsigned index)
{
    const struct peer_addr addr = addr_of(index);
    unsigned count = 0;
    for (unsigned i = 0; i < host.sent_count; i++)
        count += host.sent[i].message.type == WIRE_GOSSIP_PING &&
                         peer_addr_equal(&host.sent[i].to, &addr)
                     ? 1
                     : 0;
    return count;
}

static void test_every_member_is_probed_in_a_round(void **state)
{
    (void)state;
    add_members(1, 20);
    run_keeping(20, 0, 25 * SECOND);
    for (unsigned i = 1; i <= 20; i++)
        assert_true(pings_to(i) > 0);
    struct gossip_stats end = stats();
    assert_true(end.probes >= 45 && end.probes <= 55); /* two a second */
    assert_int_equal(end.probe_failures, 0);
    assert_int_equal(end.suspect, 0);
}

static void test_ping_is_answered_with_its_seq(void **state)
{
    (void)state;
    add_members(1, 1);
    forget_sent();
    struct wire_gossip ping = message_of(WIRE_GOSSIP_PING);
    ping.seq = 4711;
    assert_int_equal(deliver(1, &ping), 0);
    const struct sent *ack = last_sent(1, WIRE_GOSSIP_ACK);
    assert_non_null(ack);
    assert_int_equal(ack->message.seq, 4711);
    assert_int_equal(ack->message.known_state, MEMBER_ALIVE);
    assert_int_equal(ack->message.known_incarnation, 1);
    assert_int_equal(ack->message.news.record_count, 1); /* still queued: our news of 1 itself */
    /* A stranger, or somebody behind, gets our record with it. */
    ping.known_state = MEMBER_UNKNOWN;
    forget_sent();
    assert_int_equal(deliver(9, &ping), 0);
    ack = last_sent(9, WIRE_GOSSIP_ACK);
    assert_int_equal(ack->message.known_state, MEMBER_UNKNOWN);
    const struct peer_addr own = addr_of(0);
    assert_true(peer_addr_equal(&ack->message.news.records[0].addr, &own));
    assert_null(member(9)); /* a ping alone makes nobody a member */
}

/* A probe that is answered tells how long a round trip is; after a repeat it is that long at most.
 */
static void test_probes_measure_round_trips(void **state)
{
    (void)state;
    add_members(1, 3);
    run_keeping(3, 0, 2 * SECOND);
    struct gossip_rtt rtt;
    while (gossip_next_rtt(core, &rtt))
        assert_true(rtt.sure && rtt.took_us <= TENTH);
    for (unsigned repeated = 0; repeated < 2; repeated++) {
        const struct node_id id = id_of(2);
        gossip_unreachable(core, now_us, &id);
        assert_non_null(last_sent(2, WIRE_GOSSIP_PING));
        uint64_t span_us = repeated == 0 ? TENTH : 3 * TENTH;
        run_keeping(3, 2, span_us);
        while (gossip_next_rtt(core, &rtt))
            assert_false(node_id_equal(&rtt.id, &id));
        struct wire_gossip ack = message_of(WIRE_GOSSIP_ACK);
        ack.seq = last_sent(2, WIRE_GOSSIP_PING)->message.seq;
        assert_int_equal(deliver(2, &ack), 0);
        assert_true(gossip_next_rtt(core, &rtt));
        assert_true(node_id_equal(&rtt.id, &id));
        assert_int_equal(rtt.sure, repeated == 0);
        assert_true(rtt.took_us >= span_us && rtt.took_us <= span_us + TENTH);
        assert_false(gossip_next_rtt(core, &rtt)); /* once */
    }
}

static void test_silence_is_repeated_then_helpers_then_suspicion(void **state)
{
    (void)state;
    add_members(1, 12);
    run_keeping(12, 0, 5 * SECOND);
    forget_sent();
    const struct node_id id = id_of(5);
    gossip_unreachable(core, now_us, &id);
    assert_int_equal(pings_to(5), 1);
    run_keeping(12, 5, 3 * TENTH);
    assert_int_equal(count_sent(WIRE_GOSSIP_PING_REQ), 0);
    run_keeping(12, 5, 2 * TENTH + TENTH / 2);
    assert_int_equal(pings_to(5), 2);                      /* repeated at 0.2 s */
    assert_int_equal(count_sent(WIRE_GOSSIP_PING_REQ), 3); /* at 0.5 s */
    unsigned helpers[3], count = 0;
    for (unsigned i = 1; i <= 12; i++) {
        const struct sent *asked = last_sent(i, WIRE_GOSSIP_PING_REQ);
        const struct peer_addr target = addr_of(5);
        if (asked == NULL)
            continue;
        assert_true(peer_addr_equal(&asked->message.target, &target));
        assert_true(i != 5 && count < 3);
        helpers[count++] = i;
        struct wire_gossip nack = message_of(WIRE_GOSSIP_RELAYED);
        nack.seq = asked->message.seq;
        assert_int_equal(deliver(i, &nack), 0);
        assert_int_equal(deliver(i, &nack), 0); /* twice counts once */
    }
    assert_int_equal(count, 3);
    assert_int_equal(state_of(5), MEMBER_ALIVE);
    run_keeping(12, 5, 5 * TENTH);
    assert_int_equal(state_of(5), MEMBER_SUSPECT);
    assert_int_equal(stats().probe_failures, 1);
    assert_int_equal(stats().health, 0); /* all helpers spoke: it is not us */
    /* The accused is told first; the claim names us and the helpers. */
    const struct sent *told = last_sent(5, WIRE_GOSSIP_PING);
    assert_int_equal(told->message.known_state, MEMBER_SUSPECT);
    run_keeping(12, 5, TENTH);
    const struct wire_gossip_claim *claimed = NULL;
    for (unsigned i = 0; i < host.sent_count; i++) {
        if (host.sent[i].message.news.claim_count > 0)
            claimed = &host.sent[i].message.news.claims[0];
    }
    assert_non_null(claimed);
    assert_int_equal(claimed->state, MEMBER_SUSPECT);
    assert_int_equal(claimed->accuser_count, 4);
    for (unsigned i = 0; i < 3; i++) {
        const struct peer_addr helper = addr_of(helpers[i]);
        bool named = false;
        for (unsigned k = 0; k < 4; k++)
            named = named || peer_addr_equal(&claimed->accusers[k], &helper);
        assert_true(named);
    }
}

static void test_relayed_ack_ends_a_probe(void **state)
{
    (void)state;
    add_members(1, 12);
    run_keeping(12, 0, 5 * SECOND);
    forget_sent();
    const struct node_id id = id_of(5);
    gossip_unreachable(core, now_us, &id);
    run_keeping(12, 5, 5 * TENTH + TENTH / 2);
    for (unsigned i = 1; i <= 12; i++) {
        const struct sent *asked = last_sent(i, WIRE_GOSSIP_PING_REQ);
        if (asked == NULL)
            continue;
        struct wire_gossip relayed = message_of(WIRE_GOSSIP_RELAYED);
        relayed.seq = asked->message.seq;
        relayed.answered = true;
        uint64_t rejected = stats().rejected;
        assert_int_equal(deliver(i == 12 ? 11 : i + 1, &relayed), 0); /* not whom we asked */
        assert_true(stats().rejected >= rejected);
        assert_int_equal(deliver(i, &relayed), 0);
        break;
    }
    run_answering(12, 0, SECOND);
    assert_int_equal(state_of(5), MEMBER_ALIVE);
    assert_int_equal(stats().probe_failures, 0);
}

static void test_missing_nacks_speak_against_us(void **state)
{
    (void)state;
    add_members(1, 12);
    run_keeping(12, 0, 5 * SECOND);
    const struct node_id id = id_of(5);
    gossip_unreachable(core, now_us, &id);
    run_keeping(12, 5, SECOND + TENTH);
    assert_int_equal(stats().probe_failures, 1);
    assert_true(stats().health >= 2); /* three helpers were silent too */
    /* Timeouts are now longer: nothing fails within a second. */
    struct gossip_stats before = stats();
    const struct node_id other = id_of(6);
    gossip_unreachable(core, now_us, &other);
    run_for(SECOND + 2 * TENTH);
    assert_int_equal(stats().probe_failures, before.probe_failures);
}

static void test_late_or_false_acks_are_ignored_dht3(void **state)
{
    (void)state;
    add_members(1, 4);
    forget_sent();
    const struct node_id id = id_of(3);
    gossip_unreachable(core, now_us, &id);
    struct wire_gossip ack = message_of(WIRE_GOSSIP_ACK);
    ack.seq = last_sent(3, WIRE_GOSSIP_PING)->message.seq;
    uint64_t before = stats().rejected;
    assert_int_equal(deliver(2, &ack), 0); /* wrong address */
    ack.seq++;
    assert_int_equal(deliver(3, &ack), 0); /* wrong number */
    ack.seq = 0;
    assert_int_equal(deliver(3, &ack), 0);
    assert_int_equal(stats().rejected, before + 3);
    ack.seq = last_sent(3, WIRE_GOSSIP_PING)->message.seq;
    assert_int_equal(deliver(3, &ack), 0);
    assert_int_equal(deliver(3, &ack), 0); /* again */
    assert_int_equal(stats().rejected, before + 4);
}

static void test_unreachable_reports_of_many_are_queued(void **state)
{
    (void)state;
    add_members(1, 100);
    forget_sent();
    for (unsigned i = 1; i <= 100; i++) {
        const struct node_id id = id_of(i);
        gossip_unreachable(core, now_us, &id);
        gossip_unreachable(core, now_us, &id);
    }
    const struct node_id stranger = id_of(300), own = id_of(0);
    gossip_unreachable(core, now_us, &stranger);
    gossip_unreachable(core, now_us, &own);
    assert_int_equal(count_sent(WIRE_GOSSIP_PING), 32); /* room for probes; then the queue */
    answer_pings(1, 100);
    run_for(TENTH);
    assert_int_equal(count_sent(WIRE_GOSSIP_PING), 32);
    assert_true(stats().dropped > 0);
}

/* ---- helping others ---- */

static struct wire_gossip ping_req(unsigned target)
{
    struct wire_gossip request = message_of(WIRE_GOSSIP_PING_REQ);
    request.seq = 99;
    request.target = addr_of(target);
    return request;
}

static void test_helping(void **state)
{
    (void)state;
    add_members(1, 5);
    forget_sent();
    struct wire_gossip request = ping_req(4);
    assert_int_equal(deliver(2, &request), 0);
    assert_int_equal(pings_to(4), 1);
    assert_int_equal(deliver(2, &request), 0); /* already at it */
    assert_int_equal(pings_to(4), 1);
    struct wire_gossip ack = message_of(WIRE_GOSSIP_ACK);
    ack.seq = last_sent(4, WIRE_GOSSIP_PING)->message.seq;
    assert_int_equal(deliver(4, &ack), 0);
    const struct sent *relayed = last_sent(2, WIRE_GOSSIP_RELAYED);
    assert_non_null(relayed);
    assert_true(relayed->message.answered);
    assert_int_equal(relayed->message.seq, 99);

    forget_sent();
    assert_int_equal(deliver(2, &request), 0);
    run_for(3 * TENTH);
    assert_null(last_sent(2, WIRE_GOSSIP_RELAYED));
    run_for(TENTH + TENTH / 2);
    relayed = last_sent(2, WIRE_GOSSIP_RELAYED); /* nack, before the requester's verdict */
    assert_non_null(relayed);
    assert_false(relayed->message.answered);
}

static void test_help_is_for_members_about_members(void **state)
{
    (void)state;
    add_members(1, 3);
    tell(3, 3, 2, MEMBER_LEFT);
    forget_sent();
    uint64_t before = stats().rejected;
    struct wire_gossip stranger = ping_req(50), us = ping_req(0), gone = ping_req(3),
                       fine = ping_req(2);
    assert_int_equal(deliver(1, &stranger), 0); /* nobody makes us send to third parties */
    assert_int_equal(deliver(1, &us), 0);
    assert_int_equal(deliver(1, &gone), 0);
    assert_int_equal(deliver(60, &fine), 0);
    assert_int_equal(stats().rejected, before + 4);
    assert_int_equal(host.sent_count, 0);
}

static void test_help_is_bounded(void **state)
{
    (void)state;
    add_members(1, 100);
    forget_sent();
    for (unsigned i = 2; i <= 100; i++) {
        const struct wire_gossip request = ping_req(i);
        assert_int_equal(deliver(1, &request), 0);
    }
    assert_int_equal(count_sent(WIRE_GOSSIP_PING), 32);
    assert_true(stats().dropped >= 60);
    const struct node_id id = id_of(90); /* own probes have room of their own */
    gossip_unreachable(core, now_us, &id);
    assert_true(pings_to(90) >= 1);
}

/* ---- suspicion ---- */

/* Seconds from a first accusation until `index` is dead, with `accusers` accusers in all. */
static double time_to_death(unsigned index, unsigned accusers)
{
    uint64_t from = now_us;
    for (unsigned i = 0; i < accusers; i++)
        claim(i + 1, index, member(index)->incarnation, MEMBER_SUSPECT, i + 1);
    while (state_of(index) == MEMBER_SUSPECT && now_us - from < 100 * SECOND)
        run_answering(99, index, TENTH);
    return (double)(now_us - from) / 1e6;
}

static void test_accusers_shorten_the_time(void **state)
{
    (void)state;
    add_members(1, 99); /* 5 * log10(101) = 10 s */
    run_answering(99, 0, 5 * SECOND);
    double one = time_to_death(50, 1), two = time_to_death(51, 2), four = time_to_death(52, 4),
           seven = time_to_death(53, 7);
    /* Own probes may have made an accuser of us too on the way: then it was even shorter. */
    assert_true(one <= 10.5 && one >= 5);
    assert_true(two <= 6.0 && two >= 2);
    assert_true(four <= 2 && four >= 1.4);
    assert_true(seven <= 2 && seven >= 1.4);
    assert_int_equal(state_of(50), MEMBER_DEAD);
    assert_int_equal(state_of(53), MEMBER_DEAD);
    assert_int_equal(stats().deaths, 4);
}

static void test_death_needs_own_pings_dht6(void **state)
{
    (void)state;
    add_members(1, 10);
    run_keeping(10, 0, 5 * SECOND);
    forget_sent();
    claim(1, 5, 1, MEMBER_DEAD, 0);
    assert_int_equal(state_of(5), MEMBER_SUSPECT);
    assert_int_equal(pings_to(5), 0);
    claim(1, 5, 1, MEMBER_DEAD, 0); /* the same accuser */
    assert_int_equal(stats().suspicions, 1);
    claim(2, 5, 1, MEMBER_DEAD, 0); /* a second: we look at once */
    run_keeping(10, 5, TENTH);
    assert_true(pings_to(5) >= 1);
    assert_int_equal(state_of(5), MEMBER_SUSPECT);
    assert_true(count_sent(WIRE_GOSSIP_NEWS) >= 2); /* and ask others whether they know better */
    run_keeping(10, 5, 5 * TENTH);
    assert_true(pings_to(5) >= 2);
    assert_int_equal(state_of(5), MEMBER_DEAD);
    struct gossip_event event;
    unsigned down = 0;
    while (gossip_next_result(core, &event))
        down += event.kind == GOSSIP_MEMBER_DOWN ? 1 : 0;
    assert_int_equal(down, 1);
    assert_int_equal(stats().deaths, 1);
}

static void test_an_ack_clears_suspicion(void **state)
{
    (void)state;
    add_members(1, 10);
    claim(1, 5, 1, MEMBER_DEAD, 0);
    claim(2, 5, 1, MEMBER_DEAD, 0);
    run_answering(10, 0, SECOND);
    assert_int_equal(state_of(5), MEMBER_ALIVE);
    assert_int_equal(stats().deaths, 0);
}

static void test_a_higher_incarnation_refutes(void **state)
{
    (void)state;
    add_members(1, 10);
    claim(1, 5, 1, MEMBER_SUSPECT, 2);
    assert_int_equal(state_of(5), MEMBER_SUSPECT);
    tell(3, 5, 2, MEMBER_ALIVE);
    assert_int_equal(state_of(5), MEMBER_ALIVE);
    claim(1, 5, 1, MEMBER_SUSPECT, 3); /* of before */
    assert_int_equal(state_of(5), MEMBER_ALIVE);
}

static void test_suspects_are_told_by_pings(void **state)
{
    (void)state;
    add_members(1, 3);
    claim(1, 3, 1, MEMBER_SUSPECT, 2);
    forget_sent();
    const struct node_id id = id_of(3);
    gossip_unreachable(core, now_us, &id);
    const struct sent *ping = last_sent(3, WIRE_GOSSIP_PING);
    assert_int_equal(ping->message.known_state, MEMBER_SUSPECT);
    assert_int_equal(ping->message.known_incarnation, 1);
    /* Large enough for an answer with the longest record, three times it at most (DHT-2). */
    assert_true(3 * (ping->bytes + DATAGRAM_OVERHEAD_MAX) >=
                272 + WIRE_GOSSIP_HEAD_BYTES_MAX + DATAGRAM_OVERHEAD_MAX);
}

/* ---- the dead ---- */

static void kill_member(unsigned index, unsigned members)
{
    claim(1, index, member(index)->incarnation, MEMBER_DEAD, 0);
    claim(2, index, member(index)->incarnation, MEMBER_DEAD, 0);
    run_answering(members, index, 2 * SECOND);
    assert_int_equal(state_of(index), MEMBER_DEAD);
}

static void test_the_dead_are_probed_now_and_then(void **state)
{
    (void)state;
    add_members(1, 10);
    kill_member(5, 10);
    run_answering(10, 5, 5 * SECOND);
    forget_sent();
    unsigned pings = 0;
    for (unsigned i = 0; i < 100; i++) {
        run_keeping(10, 5, SECOND);
        pings += pings_to(5);
        if (last_sent(5, WIRE_GOSSIP_PING) != NULL)
            assert_int_equal(last_sent(5, WIRE_GOSSIP_PING)->message.known_state, MEMBER_DEAD);
        forget_sent();
    }
    assert_true(pings >= 7 && pings <= 14); /* every ten seconds or so */
}

static void test_a_dead_one_that_answers_is_back(void **state)
{
    (void)state;
    add_members(1, 10);
    kill_member(5, 10);
    run_answering(10, 5, 40 * SECOND);
    for (unsigned i = 0; i < 300 && last_sent(5, WIRE_GOSSIP_PING) == NULL; i++)
        run_keeping(10, 5, TENTH);
    const struct sent *ping = last_sent(5, WIRE_GOSSIP_PING);
    assert_non_null(ping);
    struct wire_gossip ack = message_of(WIRE_GOSSIP_ACK);
    ack.seq = ping->message.seq;
    add_record(&ack, 5, ping->message.known_incarnation + 1, MEMBER_ALIVE);
    forget_sent();
    assert_int_equal(deliver(5, &ack), 0);
    assert_int_equal(state_of(5), MEMBER_ALIVE);
    assert_non_null(last_sent(5, WIRE_GOSSIP_SYNC_CHECK)); /* perhaps a partition has healed */
}

static void test_a_dead_one_that_asks_is_looked_at(void **state)
{
    (void)state;
    add_members(1, 10);
    kill_member(5, 10);
    forget_sent();
    struct wire_gossip ping = message_of(WIRE_GOSSIP_PING);
    assert_int_equal(deliver(5, &ping), 0);
    const struct sent *ack = last_sent(5, WIRE_GOSSIP_ACK);
    assert_int_equal(ack->message.known_state, MEMBER_DEAD); /* so that it refutes */
    assert_int_equal(state_of(5), MEMBER_DEAD);              /* a one-way link is no life (N-5) */
    run_keeping(10, 5, 2 * TENTH);
    assert_true(pings_to(5) >= 1);
}

static void test_the_gone_are_forgotten(void **state)
{
    (void)state;
    add_members(1, 6);
    kill_member(5, 6);
    tell(6, 6, 2, MEMBER_LEFT);
    struct gossip_event event;
    while (gossip_next_result(core, &event))
        continue;
    run_answering(4, 0, 550 * SECOND);
    assert_int_equal(state_of(5), MEMBER_DEAD);
    assert_int_equal(state_of(6), MEMBER_LEFT);
    run_answering(4, 0, 80 * SECOND);
    assert_null(member(6)); /* 600 periods and a sweep */
    assert_int_equal(state_of(5), MEMBER_DEAD);
    run_answering(4, 0, 3000 * SECOND);
    assert_null(member(5));
    assert_false(any_at(5));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_core, close_core)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_member_is_probed_in_a_round),
        TEST(test_ping_is_answered_with_its_seq),
        TEST(test_probes_measure_round_trips),
        TEST(test_silence_is_repeated_then_helpers_then_suspicion),
        TEST(test_relayed_ack_ends_a_probe),
        TEST(test_missing_nacks_speak_against_us),
        TEST(test_late_or_false_acks_are_ignored_dht3),
        TEST(test_unreachable_reports_of_many_are_queued),
        TEST(test_helping),
        TEST(test_help_is_for_members_about_members),
        TEST(test_help_is_bounded),
        TEST(test_accusers_shorten_the_time),
        TEST(test_death_needs_own_pings_dht6),
        TEST(test_an_ack_clears_suspicion),
        TEST(test_a_higher_incarnation_refutes),
        TEST(test_suspects_are_told_by_pings),
        TEST(test_the_dead_are_probed_now_and_then),
        TEST(test_a_dead_one_that_answers_is_back),
        TEST(test_a_dead_one_that_asks_is_looked_at),
        TEST(test_the_gone_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
