/* SPDX-License-Identifier: Apache-2.0 */
/* The gossip core as its host sees it: life cycle, join, own announcements, leaving, time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gossip_host.h"

static void test_new_refuses_bad_configuration(void **state)
{
    (void)state;
    struct gossip *other = NULL;
    struct gossip_config config = host_config();
    config.cluster_id = NULL;
    assert_int_equal(gossip_new(&host_env, &config, 0, &other), E_INVALID);
    config = host_config();
    config.self.addr.port = 0;
    assert_int_equal(gossip_new(&host_env, &config, 0, &other), E_INVALID);
    config = host_config();
    config.period_us = UINT64_MAX;
    assert_int_equal(gossip_new(&host_env, &config, 0, &other), E_INVALID);
    config = host_config();
    config.period_us = 999;
    assert_int_equal(gossip_new(&host_env, &config, 0, &other), E_INVALID);
    config = host_config();
    config.probe_timeout_us = UINT64_MAX;
    assert_int_equal(gossip_new(&host_env, &config, 0, &other), E_INVALID);
    config = host_config();
    config.push_pull_us = UINT64_MAX;
    assert_int_equal(gossip_new(&host_env, &config, 0, &other), E_INVALID);
    config = host_config();
    config.suspicion_multiplier = 1000000;
    assert_int_equal(gossip_new(&host_env, &config, 0, &other), E_INVALID);
    assert_null(other);
    gossip_free(NULL);
}

static void test_alone(void **state)
{
    (void)state;
    const struct node_id id = id_of(0);
    assert_int_equal(gossip_count(core), 1);
    assert_int_equal(self()->state, MEMBER_ALIVE);
    assert_true(node_id_equal(&self()->id, &id)); /* PEER-4 */
    assert_true(self()->incarnation >= 1 && self()->incarnation < 1u << 17);
    struct member first;
    assert_true(gossip_at(core, 0, &first));
    assert_memory_equal(&first, self(), sizeof first);
    assert_false(any_at(1));
    assert_null(member(1));
    struct gossip_event event;
    assert_false(gossip_next_result(core, &event));
    assert_true(gossip_deadline_us(core) == UINT64_MAX);
    run_for(100 * SECOND);
    assert_int_equal(host.sent_count, 0);
}

static void test_view_is_in_order_of_ids(void **state)
{
    (void)state;
    add_members(1, 200);
    assert_int_equal(gossip_count(core), 201);
    struct member before, after;
    assert_true(gossip_at(core, 0, &before));
    for (size_t i = 1; i < 201; i++, before = after) {
        assert_true(gossip_at(core, i, &after));
        assert_true(node_id_compare(&before.id, &after.id) < 0);
    }
    assert_false(any_at(201));
    for (unsigned i = 0; i <= 200; i++) {
        const struct peer_addr addr = addr_of(i);
        assert_non_null(member(i));
        assert_true(peer_addr_equal(&member(i)->addr, &addr));
    }
    assert_int_equal(stats().alive, 201);
}

/* ---- joining ---- */

static void test_join_asks_each_address_once(void **state)
{
    (void)state;
    const struct peer_addr seeds[] = {addr_of(1), addr_of(2), addr_of(1), addr_of(0)};
    gossip_join(core, now_us, seeds, 4);
    assert_int_equal(host.sent_count, 2);
    assert_non_null(last_sent(1, WIRE_GOSSIP_SYNC_CHECK));
    const struct sent *second = last_sent(2, WIRE_GOSSIP_SYNC_CHECK);
    assert_non_null(second);
    assert_int_equal(second->message.news.record_count, 1); /* introduces us */
    assert_int_equal(second->message.view_count, 1);
    assert_int_equal(second->message.known_state, MEMBER_UNKNOWN);
}

static void test_unanswered_seed_is_retried_with_backoff(void **state)
{
    (void)state;
    const struct peer_addr seed = addr_of(1);
    gossip_join(core, now_us, &seed, 1);
    uint64_t last = now_us, longest = 0;
    for (unsigned i = 0; i < 12; i++) {
        forget_sent();
        now_us = gossip_deadline_us(core);
        gossip_advance(core, now_us);
        assert_int_equal(host.sent_count, 1);
        uint64_t pause = now_us - last;
        assert_true(pause >= 375000 && pause <= 37500000); /* half a period .. 30 s, jittered */
        longest = pause > longest ? pause : longest;
        last = now_us;
    }
    assert_true(longest > 20 * SECOND);
}

static void test_seed_is_dropped_once_members_are_known(void **state)
{
    (void)state;
    const struct peer_addr seed = addr_of(9);
    gossip_join(core, now_us, &seed, 1);
    add_members(1, 1);
    forget_sent();
    unsigned asked = 0;
    for (unsigned i = 0; i < 900; i++) { /* member 1 answers */
        forget_sent();
        run_keeping(1, 0, SECOND);
        asked += last_sent(9, WIRE_GOSSIP_SYNC_CHECK) != NULL ? 1 : 0;
    }
    assert_int_equal(asked, 24 - 1); /* ten minutes; the first went out with gossip_join */
    asked = 0;
    for (unsigned i = 0; i < 60; i++) {
        forget_sent();
        run_keeping(1, 0, SECOND);
        asked += last_sent(9, WIRE_GOSSIP_SYNC_CHECK) != NULL ? 1 : 0;
    }
    assert_int_equal(asked, 0);
}

static void test_too_many_seeds_are_dropped(void **state)
{
    (void)state;
    struct peer_addr seeds[400];
    for (unsigned i = 0; i < 400; i++)
        seeds[i] = addr_of(1000 + i);
    gossip_join(core, now_us, seeds, 400);
    assert_int_equal(stats().dropped, 400 - 256);
    assert_true(host.sent_count <= 8); /* not all at once */
    run_for(15 * SECOND);
    assert_true(host.sent_count >= 256);
}

static void test_answer_of_a_seed_makes_it_a_member(void **state)
{
    (void)state;
    const struct peer_addr seed = addr_of(1);
    gossip_join(core, now_us, &seed, 1);
    struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_STATE);
    answer.seq = last_sent(1, WIRE_GOSSIP_SYNC_CHECK)->message.seq + 1; /* not what we asked */
    add_record(&answer, 1, 5, MEMBER_ALIVE);
    assert_int_equal(deliver(1, &answer), 0);
    assert_null(member(1)); /* DHT-3 */
    answer.seq--;
    assert_int_equal(deliver(2, &answer), 0); /* right number, wrong address */
    assert_null(member(1));
    assert_int_equal(deliver(1, &answer), 0);
    assert_int_equal(state_of(1), MEMBER_ALIVE);
    struct gossip_event event;
    assert_true(gossip_next_result(core, &event));
    assert_int_equal(event.kind, GOSSIP_MEMBER_UP);
    assert_int_equal(event.member.incarnation, 5);
    assert_false(gossip_next_result(core, &event));
}

static void test_restart_goes_above_the_old_incarnation(void **state)
{
    (void)state;
    const struct peer_addr seed = addr_of(1);
    gossip_join(core, now_us, &seed, 1);
    struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_STATE);
    answer.seq = last_sent(1, WIRE_GOSSIP_SYNC_CHECK)->message.seq;
    answer.known_incarnation = self()->incarnation + 100000;
    answer.known_state = MEMBER_DEAD;
    add_record(&answer, 1, 5, MEMBER_ALIVE);
    forget_sent();
    assert_int_equal(deliver(1, &answer), 0);
    uint64_t expected = self()->incarnation; /* by a jump: others may know a higher one still */
    assert_true(expected > answer.known_incarnation);
    assert_true(expected <= answer.known_incarnation + 65536);
    const struct sent *news = last_sent(1, WIRE_GOSSIP_NEWS); /* told at once */
    assert_non_null(news);
    assert_true(news->message.news.records[0].incarnation == expected);
}

/* ---- messages ---- */

static void test_bad_messages_are_counted(void **state)
{
    (void)state;
    const uint8_t garbage[] = {0x93, 0x10, 0xc1};
    const uint8_t unknown[] = {0x94, WIRE_GOSSIP_LAST, 1, 0, 0};
    const struct peer_addr from = addr_of(1), own = addr_of(0);
    assert_int_equal(gossip_receive(core, now_us, &from, garbage, sizeof garbage), E_MALFORMED);
    assert_int_equal(gossip_receive(core, now_us, &from, garbage, 0), E_MALFORMED);
    assert_int_equal(gossip_receive(core, now_us, &from, unknown, sizeof unknown), E_NOT_FOUND);
    const struct wire_gossip ping = message_of(WIRE_GOSSIP_PING);
    uint8_t buffer[MESSAGE_BYTES_MAX + 1] = {0};
    size_t bytes;
    assert_int_equal(wire_gossip_encode(&ping, 0, buffer, MESSAGE_BYTES_MAX, &bytes), 0);
    assert_int_equal(gossip_receive(core, now_us, &own, buffer, bytes), E_MALFORMED);
    assert_int_equal(gossip_receive(core, now_us, &from, buffer, sizeof buffer), E_MALFORMED);
    assert_int_equal(stats().rejected, 5);
    assert_int_equal(stats().messages_received, 5);
    assert_int_equal(host.sent_count, 0);
}

static void test_refused_sends_are_like_loss(void **state)
{
    (void)state;
    add_members(1, 5);
    host.send_result = E_AGAIN;
    struct gossip_stats before = stats();
    run_for(3 * SECOND);
    assert_true(host.sent_count > 0);
    assert_int_equal(stats().messages_sent, before.messages_sent);
}

/* ---- own announcements ---- */

static void test_update_self_spreads_labels_at_once(void **state)
{
    (void)state;
    add_members(1, 3);
    run_for(5 * SECOND);
    answer_pings(1, 3);
    struct topology topology = self()->topology;
    memcpy(topology.zone.text, "b", 2);
    uint64_t before = self()->incarnation;
    gossip_update_self(core, now_us, &topology, 10, 0);
    assert_true(self()->incarnation == before + 1);
    assert_string_equal(self()->topology.zone.text, "b");
    run_for(SECOND / 10);
    bool told = false;
    for (unsigned i = 0; i < host.sent_count; i++) {
        const struct wire_gossip_news *news = &host.sent[i].message.news;
        if (host.sent[i].message.type == WIRE_GOSSIP_NEWS && news->record_count > 0)
            told = told || (news->records[0].incarnation == before + 1 &&
                            strcmp(news->labels[news->records[0].zone_index - 1].text, "b") == 0);
    }
    assert_true(told);
    gossip_update_self(core, now_us, &topology, 10, 0); /* nothing new */
    assert_true(self()->incarnation == before + 1);
}

static void test_small_and_frequent_load_changes_stay_here(void **state)
{
    (void)state;
    const struct topology topology = self()->topology;
    uint64_t before = self()->incarnation;
    gossip_update_self(core, now_us, &topology, 10, 31);
    assert_true(self()->incarnation == before);
    gossip_update_self(core, now_us, &topology, 10, 32);
    assert_true(self()->incarnation == before + 1);
    assert_int_equal(self()->load, 32);
    gossip_update_self(core, now_us, &topology, 10, 200); /* too soon */
    assert_true(self()->incarnation == before + 1);
    assert_true(gossip_deadline_us(core) <= now_us + 5 * SECOND);
    run_for(6 * SECOND); /* but not forgotten */
    assert_true(self()->incarnation == before + 2);
    assert_int_equal(self()->load, 200);
}

/* ---- leaving ---- */

static void test_leave_tells_at_once_and_ends(void **state)
{
    (void)state;
    add_members(1, 30);
    run_for(5 * SECOND);
    forget_sent();
    uint64_t before = self()->incarnation;
    gossip_leave(core, now_us, false);
    assert_int_equal(self()->state, MEMBER_LEAVING);
    assert_true(self()->incarnation == before + 1);
    assert_true(count_sent(WIRE_GOSSIP_NEWS) >= 3);
    assert_int_equal(gossip_count(core), 31);
    gossip_leave(core, now_us, false); /* again: nothing */
    assert_true(self()->incarnation == before + 1);
    assert_int_equal(stats().leaving, 1);

    forget_sent();
    gossip_leave(core, now_us, true);
    assert_int_equal(self()->state, MEMBER_LEFT);
    assert_true(count_sent(WIRE_GOSSIP_NEWS) >= 6);
    assert_int_equal(host.sent[0].message.news.records[0].state, MEMBER_LEFT);
    assert_int_equal(gossip_count(core), 30);
    gossip_leave(core, now_us, true);
    /* Whoever still asks is told; nothing else is done, and nothing refuted. */
    forget_sent();
    struct wire_gossip ping = message_of(WIRE_GOSSIP_PING);
    ping.known_incarnation = before;
    assert_int_equal(deliver(3, &ping), 0);
    const struct sent *ack = last_sent(3, WIRE_GOSSIP_ACK);
    assert_non_null(ack);
    assert_int_equal(ack->message.news.records[0].state, MEMBER_LEFT);
    ping.known_incarnation = self()->incarnation;
    ping.known_state = MEMBER_DEAD;
    assert_int_equal(deliver(3, &ping), 0);
    assert_true(self()->incarnation == before + 2);
    const struct topology topology = self()->topology;
    gossip_update_self(core, now_us, &topology, 3, 255);
    const struct peer_addr seed = addr_of(40);
    gossip_join(core, now_us, &seed, 1);
    const struct node_id id = id_of(3);
    forget_sent();
    gossip_unreachable(core, now_us, &id);
    run_for(60 * SECOND);
    assert_int_equal(count_sent(WIRE_GOSSIP_PING), 0);
    assert_int_equal(count_sent(WIRE_GOSSIP_SYNC_CHECK), 0);
    assert_true(gossip_deadline_us(core) == UINT64_MAX);
}

/* ---- time ---- */

/* D-13: called 30 s late, with a probe under way: nobody is accused for our absence. */
static void test_a_pause_accuses_nobody_d13(void **state)
{
    (void)state;
    add_members(1, 8);
    run_for(SECOND); /* probes are out, unanswered */
    assert_true(stats().probes > 0);
    struct gossip_stats before = stats();
    now_us += 30 * SECOND;
    gossip_advance(core, now_us);
    assert_int_equal(stats().suspicions, before.suspicions);
    assert_true(stats().health >= 1);
    /* What waited is answered in time. */
    answer_pings(1, 8);
    for (unsigned i = 0; i < 40; i++) {
        run_for(SECOND / 4);
        answer_pings(1, 8);
    }
    assert_int_equal(stats().suspicions, before.suspicions);
    assert_int_equal(stats().health, 0);
}

/* Timers at rest have no deadline of long ago when they are needed: this once looked like a pause,
 * and time went backwards. */
static void test_time_at_rest_is_no_pause(void **state)
{
    (void)state;
    run_for(1000 * SECOND); /* alone: nothing to do */
    add_members(1, 2);
    assert_true(gossip_deadline_us(core) >= now_us);
    for (unsigned i = 0; i < 40; i++) {
        run_for(SECOND / 4);
        answer_pings(1, 2);
    }
    tell(1, 1, 2, MEMBER_LEFT); /* the first that is gone */
    for (unsigned i = 0; i < 40; i++) {
        run_for(SECOND / 4);
        answer_pings(1, 2);
    }
    assert_int_equal(state_of(1), MEMBER_LEFT);
    assert_int_equal(stats().health, 0);
}

static void test_clock_that_steps_back_stands_still(void **state)
{
    (void)state;
    add_members(1, 3);
    run_for(SECOND);
    uint64_t deadline = gossip_deadline_us(core);
    gossip_advance(core, now_us - 10 * SECOND);
    assert_true(gossip_deadline_us(core) == deadline);
}

static void test_late_calls_are_caught_up_in_bounded_work(void **state)
{
    (void)state;
    add_members(1, 50);
    forget_sent();
    now_us += 3600 * SECOND;
    gossip_advance(core, now_us);
    assert_true(host.sent_count < 20);
    assert_true(gossip_deadline_us(core) > now_us - SECOND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_core, close_core)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_new_refuses_bad_configuration),
        TEST(test_alone),
        TEST(test_view_is_in_order_of_ids),
        TEST(test_join_asks_each_address_once),
        TEST(test_unanswered_seed_is_retried_with_backoff),
        TEST(test_seed_is_dropped_once_members_are_known),
        TEST(test_too_many_seeds_are_dropped),
        TEST(test_answer_of_a_seed_makes_it_a_member),
        TEST(test_restart_goes_above_the_old_incarnation),
        TEST(test_bad_messages_are_counted),
        TEST(test_refused_sends_are_like_loss),
        TEST(test_update_self_spreads_labels_at_once),
        TEST(test_small_and_frequent_load_changes_stay_here),
        TEST(test_leave_tells_at_once_and_ends),
        TEST(test_a_pause_accuses_nobody_d13),
        TEST(test_time_at_rest_is_no_pause),
        TEST(test_clock_that_steps_back_stands_still),
        TEST(test_late_calls_are_caught_up_in_bounded_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
