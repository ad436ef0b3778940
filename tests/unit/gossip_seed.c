/* SPDX-License-Identifier: Apache-2.0 */
/* Bootstrap from a snapshot: what gossip_seed takes in and what it does not, that nobody is told
 * news of it, and that it ends where a push-pull would. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gossip_host.h"

static struct member member_of(unsigned index, uint64_t incarnation, enum member_state state)
{
    struct member member = {.addr = addr_of(index), .incarnation = incarnation, .state = state};
    memset(member.key.bytes, (int)(index & 0xff), sizeof member.key.bytes);
    node_id_of("test", &member.addr, &member.id);
    return member;
}

static void test_seeded_members_are_the_view(void **state)
{
    (void)state;
    enum { count = 300 };
    static struct member members[count];
    for (unsigned i = 0; i < count; i++)
        members[i] = member_of(i + 1, 7, MEMBER_ALIVE);
    assert_int_equal(gossip_seed(core, now_us, members, count), 0);
    gossip__check_invariants(core);
    assert_int_equal(gossip_count(core), count + 1);
    assert_int_equal(stats().alive, count + 1);
    for (unsigned i = 1; i <= count; i++) {
        assert_non_null(member(i));
        assert_true(member(i)->incarnation == 7);
        assert_int_equal(gossip_state(core, &members[i - 1].id), MEMBER_ALIVE);
    }
    struct gossip_event event;
    assert_false(gossip_next_result(core, &event));
    /* Nothing is news: what goes out are probes and one comparison of views. */
    run_keeping(count, 0, 5 * SECOND);
    assert_int_equal(count_sent(WIRE_GOSSIP_NEWS), 0);
    assert_true(count_sent(WIRE_GOSSIP_PING) >= 8);
    for (unsigned i = 0; i < host.sent_count; i++)
        assert_true(host.sent[i].message.type == WIRE_GOSSIP_SYNC_CHECK ||
                    host.sent[i].message.news.record_count == 0);
}

/* The same members, heard one by one: the views agree, so nobody exchanges anything. */
static void test_the_view_is_what_hearing_them_makes(void **state)
{
    (void)state;
    struct member members[60];
    for (unsigned i = 0; i < 60; i++)
        members[i] = member_of(i + 1, 1, MEMBER_ALIVE);
    add_members(1, 60);
    struct gossip *heard = core, *seeded;
    const struct gossip_config config = host_config();
    prng_seed(&host.prng, (const uint8_t *)"\1\0\0\0\0\0\0", 8);
    assert_int_equal(gossip_new(&host_env, &config, now_us, &seeded), 0);
    assert_int_equal(gossip_seed(seeded, now_us, members, 60), 0);
    struct member a, b;
    for (size_t i = 0; i < 61; i++) {
        assert_true(gossip_at(heard, i, &a) && gossip_at(seeded, i, &b));
        assert_true(node_id_equal(&a.id, &b.id));
        assert_true(peer_addr_equal(&a.addr, &b.addr));
        assert_int_equal(a.state, b.state);
        assert_memory_equal(&a.key, &b.key, sizeof a.key);
    }
    assert_false(gossip_at(seeded, 61, &b));
    gossip__check_invariants(seeded);
    gossip_free(seeded);
}

static void test_what_is_passed_over(void **state)
{
    (void)state;
    add_members(1, 3);
    struct member members[] = {
        member_of(0, 9, MEMBER_ALIVE),           /* ourselves */
        member_of(2, 9, MEMBER_ALIVE),           /* known: its own word counts */
        member_of(10, 1, MEMBER_DEAD),           /* gone */
        member_of(11, 1, MEMBER_LEFT),           /* gone */
        member_of(12, 1, MEMBER_UNKNOWN),        /* nothing */
        member_of(13, 1ULL << 60, MEMBER_ALIVE), /* DHT-7 */
        member_of(14, 1, MEMBER_ALIVE),          /* no port, below */
        member_of(15, 1, MEMBER_SUSPECT),        /* taken for alive */
        member_of(16, 1, MEMBER_LEAVING),
        member_of(16, 5, MEMBER_ALIVE), /* twice: the first counts */
    };
    members[6].addr.port = 0;
    uint64_t own = self()->incarnation;
    assert_int_equal(gossip_seed(core, now_us, members, sizeof members / sizeof members[0]), 0);
    gossip__check_invariants(core);
    assert_int_equal(gossip_count(core), 6);
    assert_true(self()->incarnation == own);
    assert_true(member(2)->incarnation == 1);
    assert_int_equal(state_of(15), MEMBER_ALIVE);
    assert_int_equal(state_of(16), MEMBER_LEAVING);
    assert_int_equal(gossip_seed(core, now_us, NULL, 0), 0);
    gossip_leave(core, now_us, true);
    struct member late = member_of(20, 1, MEMBER_ALIVE);
    assert_int_equal(gossip_seed(core, now_us, &late, 1), 0);
    assert_null(member(20)); /* who has left takes nobody in */
}

/* PEER-4: the id follows from the address, whatever the snapshot says. */
static void test_a_false_id_is_not_believed(void **state)
{
    (void)state;
    struct member liar = member_of(5, 1, MEMBER_ALIVE);
    liar.id.bytes[0] ^= 0xff;
    assert_int_equal(gossip_seed(core, now_us, &liar, 1), 0);
    assert_int_equal(gossip_state(core, &liar.id), MEMBER_UNKNOWN);
    assert_int_equal(state_of(5), MEMBER_ALIVE);
}

/* Who died since the snapshot is found out, and then told of: the host knows it as UP. */
static void test_the_dead_of_a_snapshot_are_found(void **state)
{
    (void)state;
    struct member members[5];
    for (unsigned i = 0; i < 5; i++)
        members[i] = member_of(i + 1, 1, MEMBER_ALIVE);
    assert_int_equal(gossip_seed(core, now_us, members, 5), 0);
    run_answering(5, 4, 30 * SECOND);
    assert_int_equal(state_of(4), MEMBER_DEAD);
    struct gossip_event event, last = {.kind = GOSSIP_MEMBER_UP};
    while (gossip_next_result(core, &event))
        last = event;
    assert_int_equal(last.kind, GOSSIP_MEMBER_DOWN);
    assert_true(node_id_equal(&last.member.id, &members[3].id));
}

static void test_more_than_there_is_room_for(void **state)
{
    (void)state;
    enum { count = MEMBERS_MAX + 50 };
    struct member *members = calloc(count, sizeof *members);
    assert_non_null(members);
    for (unsigned i = 0; i < count; i++)
        members[i] = member_of(i + 1, 1, MEMBER_ALIVE);
    assert_int_equal(gossip_seed(core, now_us, members, count), E_FULL);
    assert_int_equal(gossip_count(core), MEMBERS_MAX);
    free(members);
}

static void test_without_memory_some_are_missing(void **state)
{
    (void)state;
    enum { count = 600 };
    static struct member members[count];
    for (unsigned i = 0; i < count; i++)
        members[i] = member_of(i + 1, 1, MEMBER_ALIVE);
    int err = E_NO_MEMORY;
    for (uint64_t allowed = 0; err != 0; allowed++) {
        host.fail_at = host.allocations + allowed + 1;
        err = gossip_seed(core, now_us, members, count);
        assert_true(err == 0 || err == E_NO_MEMORY);
        gossip__check_invariants(core);
        assert_true(allowed < 1000);
    }
    host.fail_at = 0;
    assert_int_equal(gossip_count(core), count + 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_core, close_core)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_seeded_members_are_the_view),
        TEST(test_the_view_is_what_hearing_them_makes),
        TEST(test_what_is_passed_over),
        TEST(test_a_false_id_is_not_believed),
        TEST(test_the_dead_of_a_snapshot_are_found),
        TEST(test_more_than_there_is_room_for),
        TEST(test_without_memory_some_are_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
