/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What news do to the view: which version wins, what is refused, refutation, and how much the word
 * of others can do (PEER-4, DHT-6, DHT-7).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/gossip/core.h"
#include "gossip_host.h"

#define JUMP (1ULL << 32)

static enum gossip_event_kind next_kind(void)
{
    struct gossip_event event;
    return gossip_next_result(core, &event) ? event.kind : (enum gossip_event_kind)0;
}

static void test_higher_incarnation_wins(void **state)
{
    (void)state;
    tell(1, 1, 5, MEMBER_ALIVE);
    assert_int_equal(next_kind(), GOSSIP_MEMBER_UP);
    tell(2, 1, 4, MEMBER_LEAVING); /* older */
    assert_int_equal(state_of(1), MEMBER_ALIVE);
    tell(2, 1, 6, MEMBER_LEAVING);
    assert_int_equal(state_of(1), MEMBER_LEAVING);
    assert_int_equal(next_kind(), GOSSIP_MEMBER_CHANGED);
    tell(2, 1, 7, MEMBER_LEFT);
    assert_int_equal(next_kind(), GOSSIP_MEMBER_DOWN);
    assert_int_equal(gossip_count(core), 1);
    tell(2, 1, 7, MEMBER_ALIVE); /* old news do not revive it */
    tell(2, 1, 6, MEMBER_ALIVE);
    assert_int_equal(state_of(1), MEMBER_LEFT);
    assert_int_equal(next_kind(), 0);
    tell(1, 1, 8, MEMBER_ALIVE);
    assert_int_equal(next_kind(), GOSSIP_MEMBER_UP);
}

static void test_the_id_follows_from_the_address_peer4(void **state)
{
    (void)state;
    tell(3, 17, 1, MEMBER_ALIVE);
    assert_non_null(member(17));
    assert_int_equal(gossip_count(core), 2);
}

static void test_unknown_that_left_is_not_taken_in(void **state)
{
    (void)state;
    tell(2, 1, 5, MEMBER_LEFT);
    assert_null(member(1));
}

static void test_events_between_drains_are_joined(void **state)
{
    (void)state;
    tell(1, 1, 1, MEMBER_ALIVE);
    tell(1, 1, 2, MEMBER_LEFT);
    assert_int_equal(next_kind(), 0); /* came and went */
    tell(1, 1, 3, MEMBER_ALIVE);
    tell(1, 1, 4, MEMBER_LEAVING);
    assert_int_equal(next_kind(), GOSSIP_MEMBER_UP);
    assert_int_equal(next_kind(), 0);
}

static void test_unusable_addresses_are_refused(void **state)
{
    (void)state;
    static const uint8_t v4[][4] = {{0, 0, 0, 0}, {224, 0, 0, 1}, {255, 255, 255, 255}};
    struct wire_gossip message = message_of(WIRE_GOSSIP_NEWS);
    for (unsigned i = 0; i < 3; i++) {
        add_record(&message, 1, 1, MEMBER_ALIVE);
        memcpy(message.news.records[i].addr.ip + 12, v4[i], 4);
    }
    add_record(&message, 1, 1, MEMBER_ALIVE);
    message.news.records[3].addr.port = 0;
    add_record(&message, 1, 1, MEMBER_ALIVE);
    memset(message.news.records[4].addr.ip, 0, 16); /* :: */
    add_record(&message, 1, 1, MEMBER_ALIVE);
    message.news.records[5].addr.ip[0] = 0xff; /* ff..: multicast */
    assert_int_equal(deliver(1, &message), 0);
    assert_int_equal(gossip_count(core), 1);
    assert_int_equal(stats().rejected, 6);
}

/* ---- DHT-7 ---- */

static void test_incarnation_jumps_are_refused_dht7(void **state)
{
    (void)state;
    tell(1, 1, 5, MEMBER_ALIVE);
    tell(2, 1, 5 + JUMP + 1, MEMBER_ALIVE);
    assert_true(member(1)->incarnation == 5);
    claim(1, 1, 5 + JUMP + 1, MEMBER_DEAD, 0);
    assert_int_equal(state_of(1), MEMBER_ALIVE);
    tell(2, 1, 5 + JUMP, MEMBER_ALIVE);
    assert_true(member(1)->incarnation == 5 + JUMP);
    tell(2, 2, UINT64_MAX, MEMBER_ALIVE);
    assert_null(member(2));
    assert_true(stats().rejected >= 2);
}

static void test_own_word_mends_a_number_too_large(void **state)
{
    (void)state;
    tell(2, 1, 1ULL << 40, MEMBER_ALIVE); /* somebody's lie about a newcomer */
    assert_true(member(1)->incarnation == 1ULL << 40);
    tell(3, 1, 9, MEMBER_ALIVE); /* second hand: older */
    assert_true(member(1)->incarnation == 1ULL << 40);
    tell(1, 1, 9, MEMBER_ALIVE); /* its own */
    assert_true(member(1)->incarnation == 9);
}

static void test_refutation_is_not_drawn_beyond_reason_dht7(void **state)
{
    (void)state;
    add_members(1, 2);
    uint64_t before = self()->incarnation;
    claim(1, 0, before + JUMP + 1, MEMBER_DEAD, 0);
    struct wire_gossip ping = message_of(WIRE_GOSSIP_PING);
    ping.known_incarnation = UINT64_MAX;
    ping.known_state = MEMBER_DEAD;
    assert_int_equal(deliver(1, &ping), 0);
    assert_true(self()->incarnation == before);
    /* Not more often than ten times a second, however often accused. */
    for (unsigned i = 0; i < 100; i++)
        claim(1, 0, self()->incarnation, MEMBER_SUSPECT, 2);
    assert_true(self()->incarnation == before + 1);
    assert_int_equal(stats().refutations, 1);
}

/* ---- refutation ---- */

static void test_claims_about_us_are_refuted_at_once(void **state)
{
    (void)state;
    add_members(1, 3);
    uint64_t before = self()->incarnation;
    claim(2, 0, before - 1, MEMBER_SUSPECT, 3); /* answered long ago: only a correction */
    assert_true(self()->incarnation == before);
    assert_true(last_sent(2, WIRE_GOSSIP_NEWS)->message.news.records[0].incarnation == before);
    forget_sent();
    claim(2, 0, before, MEMBER_SUSPECT, 3);
    assert_true(self()->incarnation == before + 1);
    const struct sent *answer = last_sent(2, WIRE_GOSSIP_NEWS);
    assert_non_null(answer);
    assert_true(answer->message.news.records[0].incarnation == before + 1);
    assert_int_equal(self()->state, MEMBER_ALIVE);
    assert_int_equal(stats().refutations, 1);
    assert_int_equal(stats().health, 1); /* Lifeguard: perhaps it is us */
}

static void test_leaving_stays_leaving_when_refuting(void **state)
{
    (void)state;
    add_members(1, 1);
    gossip_leave(core, now_us, false);
    run_for(SECOND / 2);
    claim(1, 0, self()->incarnation, MEMBER_DEAD, 0);
    assert_int_equal(self()->state, MEMBER_LEAVING);
    assert_int_equal(stats().refutations, 1);
}

static void test_a_record_of_us_by_another_is_overruled(void **state)
{
    (void)state;
    add_members(1, 1);
    uint64_t before = self()->incarnation;
    tell(1, 0, before + 3, MEMBER_LEFT);
    uint64_t after = self()->incarnation;
    assert_true(after > before + 3);
    assert_int_equal(self()->state, MEMBER_ALIVE);
    run_for(SECOND / 2);
    tell(1, 0, after, MEMBER_ALIVE); /* same number, but not our key */
    assert_true(self()->incarnation == after + 1);
}

static void test_stale_claims_are_corrected(void **state)
{
    (void)state;
    add_members(1, 3);
    tell(1, 1, 9, MEMBER_ALIVE);
    forget_sent();
    claim(2, 1, 8, MEMBER_SUSPECT, 3);
    assert_int_equal(state_of(1), MEMBER_ALIVE);
    const struct sent *answer = last_sent(2, WIRE_GOSSIP_NEWS);
    assert_non_null(answer);
    assert_true(answer->message.news.records[0].incarnation == 9);
}

/* ---- what accusers can do (DHT-6) ---- */

static void test_words_alone_kill_nobody_dht6(void **state)
{
    (void)state;
    add_members(1, 60);
    /* Everybody says that 1 is dead, again and again; it answers our pings. */
    for (unsigned second = 0; second < 60; second++) {
        for (unsigned i = 2; i <= 60; i++) {
            claim(i, 1, member(1)->incarnation, MEMBER_DEAD, 0);
            claim(i, 1, member(1)->incarnation, MEMBER_SUSPECT, 2 + (i + second) % 59);
        }
        for (unsigned i = 0; i < 10; i++) {
            run_for(SECOND / 10);
            answer_pings(1, 60);
        }
        assert_true(state_of(1) == MEMBER_ALIVE || state_of(1) == MEMBER_SUSPECT);
    }
    assert_int_equal(stats().deaths, 0);
}

static void test_accusers_must_be_members(void **state)
{
    (void)state;
    add_members(1, 3);
    claim(9, 1, 1, MEMBER_DEAD, 0);    /* sender unknown */
    claim(2, 1, 1, MEMBER_SUSPECT, 9); /* accuser unknown */
    claim(1, 1, 1, MEMBER_DEAD, 0);    /* of itself */
    claim(2, 1, 1, MEMBER_SUSPECT, 1);
    claim(2, 20, 1, MEMBER_SUSPECT, 3); /* accused unknown */
    claim(2, 1, 1, MEMBER_SUSPECT, 0);  /* by nobody */
    assert_int_equal(state_of(1), MEMBER_ALIVE);
    assert_int_equal(stats().suspicions, 0);
    claim(2, 1, 1, MEMBER_SUSPECT, 3);
    assert_int_equal(state_of(1), MEMBER_SUSPECT);
}

static void test_accuser_of_many_is_ignored_dht6(void **state)
{
    (void)state;
    add_members(1, 400); /* 5 %: 20 in a minute */
    for (unsigned i = 2; i <= 100; i++)
        claim(1, i, 1, MEMBER_DEAD, 0);
    assert_int_equal(stats().suspicions, 20);
    assert_int_equal(stats().suspect, 20);
    assert_true(stats().rejected >= 79);
    claim(101, 99, 1, MEMBER_DEAD, 0); /* others are heard */
    assert_int_equal(state_of(99), MEMBER_SUSPECT);
}

/* ---- states (STYLE §7) ---- */

static void test_every_move_of_states(void **state)
{
    (void)state;
    static const char *const allowed[] = {
        /* to:  UASLDX, from U, A, S, L(eaving), D, X(left) */
        ".A.L..", "..SL.X", ".A.LDX", ".AS..X", "UA.L.X", "UA.L..",
    };
    for (unsigned from = 0; from <= MEMBER_LEFT; from++) {
        for (unsigned to = 0; to <= MEMBER_LEFT; to++)
            assert_int_equal(gossip__move_allowed((enum member_state)from, (enum member_state)to),
                             allowed[from][to] != '.');
    }
    assert_false(gossip__move_allowed((enum member_state)6, MEMBER_ALIVE));
    assert_false(gossip__move_allowed(MEMBER_ALIVE, (enum member_state)6));
}

static void test_versions_are_ordered(void **state)
{
    (void)state;
    assert_true(gossip__compare_versions(1, MEMBER_DEAD, 2, MEMBER_ALIVE) < 0);
    assert_true(gossip__compare_versions(2, MEMBER_ALIVE, 1, MEMBER_LEFT) > 0);
    assert_int_equal(gossip__compare_versions(2, MEMBER_ALIVE, 2, MEMBER_SUSPECT), 0);
    assert_true(gossip__compare_versions(2, MEMBER_DEAD, 2, MEMBER_SUSPECT) > 0);
    assert_true(gossip__compare_versions(2, MEMBER_LEFT, 2, MEMBER_DEAD) > 0);
}

static void test_log10_is_close(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, milli;
    } known[] = {{1, 0},       {2, 301},      {10, 1000},        {100, 2000},
                 {1001, 3000}, {10001, 4000}, {UINT32_MAX, 9633}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t found = gossip__milli_log10(known[i].n);
        assert_true(found <= known[i].milli + 1);
        assert_true(found + 30 >= known[i].milli);
    }
}

/* ---- bounds ---- */

static void test_the_view_is_bounded(void **state)
{
    (void)state;
    /* Fills up with members that left: newcomers replace those. Then with live ones: refused. */
    for (unsigned i = 1; i < MEMBERS_MAX; i++) {
        tell(i, i, 1, MEMBER_ALIVE);
        if (i % 4 == 0)
            tell(i, i, 2, MEMBER_LEFT);
    }
    struct gossip_event event;
    while (gossip_next_result(core, &event))
        continue;
    size_t live = gossip_count(core);
    for (unsigned i = 0; i < 2 * MEMBERS_MAX / 4; i++) {
        struct wire_gossip message = message_of(WIRE_GOSSIP_NEWS);
        add_record(&message, 1, 1, MEMBER_ALIVE);
        message.news.records[0].addr.ip[13] = (uint8_t)(1 + (i >> 16));
        message.news.records[0].addr.ip[14] = (uint8_t)(i >> 8);
        message.news.records[0].addr.ip[15] = (uint8_t)i;
        assert_int_equal(deliver(1, &message), 0);
        while (gossip_next_result(core, &event))
            continue;
    }
    assert_int_equal(gossip_count(core), MEMBERS_MAX);
    assert_true(live < MEMBERS_MAX);
    assert_false(any_at(MEMBERS_MAX));
    assert_true(stats().dropped > 0);
}

/* STYLE: the full view of 10,000 stays in a few MiB. */
static void test_memory_of_ten_thousand(void **state)
{
    (void)state;
    uint64_t before = host.bytes;
    add_members(1, 9999);
    assert_int_equal(gossip_count(core), 10000);
    uint64_t grown = host.bytes - before;
    print_message("figure: memory of a view of 10,000 members: %.2f MiB, %.2f MiB with the core\n",
                  (double)grown / 1048576, (double)host.bytes / 1048576);
    assert_true(grown < 4 << 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_core, close_core)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_higher_incarnation_wins),
        TEST(test_the_id_follows_from_the_address_peer4),
        TEST(test_unknown_that_left_is_not_taken_in),
        TEST(test_events_between_drains_are_joined),
        TEST(test_unusable_addresses_are_refused),
        TEST(test_incarnation_jumps_are_refused_dht7),
        TEST(test_own_word_mends_a_number_too_large),
        TEST(test_refutation_is_not_drawn_beyond_reason_dht7),
        TEST(test_claims_about_us_are_refuted_at_once),
        TEST(test_leaving_stays_leaving_when_refuting),
        TEST(test_a_record_of_us_by_another_is_overruled),
        TEST(test_stale_claims_are_corrected),
        TEST(test_words_alone_kill_nobody_dht6),
        TEST(test_accusers_must_be_members),
        TEST(test_accuser_of_many_is_ignored_dht6),
        TEST(test_every_move_of_states),
        TEST(test_versions_are_ordered),
        TEST(test_log10_is_close),
        TEST(test_the_view_is_bounded),
        TEST(test_memory_of_ten_thousand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
