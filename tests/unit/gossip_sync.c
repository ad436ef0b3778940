/* SPDX-License-Identifier: Apache-2.0 */
/* Push-pull: what is asked and answered, how much (DHT-2), and what is ignored (DHT-3). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gossip_host.h"

/* Bytes of datagrams sent since forget_sent, with what sealing adds. */
static size_t wire_bytes(void)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < host.sent_count; i++)
        bytes += host.sent[i].bytes + DATAGRAM_OVERHEAD_MAX;
    return bytes;
}

static uint64_t prefix_of(unsigned index)
{
    const struct node_id id = id_of(index);
    return load_be64(id.bytes);
}

/* A SYNC_PAGE about the leaves of these nodes, as held by the sender. `states` 0: not known. */
struct held {
    unsigned index;
    uint64_t incarnation;
    enum member_state state;
};

static int compare_summaries(const void *a, const void *b)
{
    const struct wire_gossip_summary *x = a, *y = b;
    return x->id_prefix < y->id_prefix ? -1 : x->id_prefix > y->id_prefix ? 1 : 0;
}

static struct wire_gossip page_of(const struct held *held, unsigned count)
{
    struct wire_gossip page = message_of(WIRE_GOSSIP_SYNC_PAGE);
    for (unsigned i = 0; i < count; i++) {
        uint64_t prefix = prefix_of(held[i].index);
        wire_gossip_leaf_set(page.leaves, (unsigned)(prefix >> 56));
        if (held[i].state != MEMBER_UNKNOWN)
            page.summaries[page.summary_count++] =
                (struct wire_gossip_summary){prefix, held[i].incarnation, held[i].state};
    }
    qsort(page.summaries, page.summary_count, sizeof *page.summaries, compare_summaries);
    return page;
}

static const struct wire_gossip *records_sent(unsigned to)
{
    const struct sent *sent = last_sent(to, WIRE_GOSSIP_SYNC_RECORDS);
    return sent == NULL ? NULL : &sent->message;
}

static bool gives(const struct wire_gossip *records, unsigned index)
{
    const struct peer_addr addr = addr_of(index);
    for (unsigned i = 0; i < records->news.record_count; i++) {
        if (peer_addr_equal(&records->news.records[i].addr, &addr))
            return true;
    }
    return false;
}

static bool wants(const struct wire_gossip *records, unsigned index)
{
    for (unsigned i = 0; i < records->want_count; i++) {
        if (records->wants[i] == prefix_of(index))
            return true;
    }
    return false;
}

static void test_check_is_answered_and_introduces(void **state)
{
    (void)state;
    struct wire_gossip check = message_of(WIRE_GOSSIP_SYNC_CHECK);
    check.known_state = MEMBER_UNKNOWN;
    check.seq = 5;
    add_record(&check, 1, 9, MEMBER_ALIVE);
    assert_int_equal(deliver(1, &check), 0);
    assert_int_equal(state_of(1), MEMBER_ALIVE);
    const struct sent *answer = last_sent(1, WIRE_GOSSIP_SYNC_STATE);
    assert_non_null(answer);
    assert_int_equal(answer->message.seq, 5);
    assert_int_equal(answer->message.view_count, 2);
    assert_int_equal(answer->message.known_incarnation, 9);
    assert_int_equal(answer->message.news.record_count, 1);
}

static void test_equal_views_cost_two_messages(void **state)
{
    (void)state;
    add_members(1, 100);
    const struct sent *check = NULL;
    for (unsigned i = 0; i < 40 && check == NULL; i++) {
        forget_sent();
        run_for(SECOND / 10);
        for (unsigned k = 1; k <= 100 && check == NULL; k++)
            check = last_sent(k, WIRE_GOSSIP_SYNC_CHECK);
    }
    assert_non_null(check);
    assert_true(check->bytes < 200);
    struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_STATE);
    answer.seq = check->message.seq;
    answer.view_hash = check->message.view_hash;
    answer.view_count = check->message.view_count;
    unsigned peer = (unsigned)check->to.ip[14] << 8 | check->to.ip[15];
    forget_sent();
    assert_int_equal(deliver(peer, &answer), 0);
    assert_int_equal(host.sent_count, 0);
}

static void test_a_page_is_compared_both_ways(void **state)
{
    (void)state;
    add_members(1, 6);
    tell(2, 2, 5, MEMBER_ALIVE);
    tell(6, 6, 3, MEMBER_LEFT);
    const struct held held[] = {
        {1, 1, MEMBER_ALIVE},                        /* the same */
        {2, 4, MEMBER_ALIVE},                        /* older */
        {3, 2, MEMBER_ALIVE},                        /* newer */
        {4, 0, MEMBER_UNKNOWN}, {5, 2, MEMBER_LEFT}, /* newer */
        {6, 2, MEMBER_ALIVE},                        /* has left since */
        {7, 1, MEMBER_ALIVE},                        /* new to us */
        {8, 1, MEMBER_DEAD},                         /* new to us, but gone */
    };
    struct wire_gossip page = page_of(held, sizeof held / sizeof *held);
    forget_sent();
    size_t bytes;
    assert_int_equal(deliver_padded(1, &page, 600, &bytes), 0);
    const struct wire_gossip *records = records_sent(1);
    assert_non_null(records);
    assert_int_equal(records->seq, page.seq);
    assert_false(records->more);
    assert_false(gives(records, 1) || wants(records, 1));
    assert_true(gives(records, 2) && !wants(records, 2));
    assert_true(!gives(records, 3) && wants(records, 3));
    assert_true(gives(records, 4));
    assert_true(wants(records, 5));
    assert_true(gives(records, 6));
    assert_true(wants(records, 7));
    assert_false(wants(records, 8));
}

/* One side holds dead what the other holds alive: neither believes, both look (N-1). */
static void test_dead_against_alive_is_looked_at(void **state)
{
    (void)state;
    add_members(1, 6);
    claim(1, 5, 1, MEMBER_DEAD, 0);
    claim(2, 5, 1, MEMBER_DEAD, 0);
    for (unsigned i = 0; i < 20; i++) {
        run_for(SECOND / 10);
        answer_pings(1, 4);
    }
    assert_int_equal(state_of(5), MEMBER_DEAD);
    forget_sent();
    const struct held held[] = {{5, 1, MEMBER_ALIVE}, {4, 1, MEMBER_DEAD}};
    struct wire_gossip page = page_of(held, 2);
    size_t bytes;
    assert_int_equal(deliver_padded(1, &page, 400, &bytes), 0);
    const struct wire_gossip *records = records_sent(1);
    assert_int_equal(records->news.claim_count, 1);
    assert_int_equal(records->news.claims[0].state, MEMBER_DEAD);
    assert_true(gives(records, 4));
    assert_int_equal(records->want_count, 0);
    assert_int_equal(state_of(4), MEMBER_ALIVE);
    run_for(SECOND / 5);
    assert_non_null(last_sent(4, WIRE_GOSSIP_PING));
    assert_non_null(last_sent(5, WIRE_GOSSIP_PING));
    /* The same as an answer to us: a claim in a push-pull accuses nobody, it makes us look. */
    struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_RECORDS);
    answer.news.claim_count = 1;
    answer.news.claims[0] =
        (struct wire_gossip_claim){.addr = addr_of(3), .incarnation = 1, .state = MEMBER_DEAD};
    forget_sent();
    assert_int_equal(deliver(1, &answer), 0);
    assert_int_equal(state_of(3), MEMBER_ALIVE);
    assert_non_null(last_sent(3, WIRE_GOSSIP_PING));
}

/* DHT-2: whatever is asked in whatever size, the answers are at most three times as large. */
static void test_answers_are_at_most_three_times_the_request_dht2(void **state)
{
    (void)state;
    static const enum wire_gossip_type types[] = {
        WIRE_GOSSIP_PING,       WIRE_GOSSIP_PING_REQ,    WIRE_GOSSIP_NEWS,
        WIRE_GOSSIP_SYNC_CHECK, WIRE_GOSSIP_SYNC_DIGEST, WIRE_GOSSIP_SYNC_PAGE,
    };
    add_members(1, 1000);
    unsigned largest = 0;
    for (unsigned t = 0; t < sizeof types / sizeof *types; t++) {
        for (size_t pad_to = 0; pad_to <= MESSAGE_BYTES_MAX; pad_to += 73) {
            struct wire_gossip message = message_of(types[t]);
            message.target = addr_of(500);
            memset(message.leaves, 0xff, sizeof message.leaves);
            message.known_state = MEMBER_UNKNOWN; /* asks for our record */
            if (types[t] == WIRE_GOSSIP_NEWS) {   /* stale: corrections are due */
                message.news.claim_count = 60;
                for (unsigned i = 0; i < 60; i++)
                    message.news.claims[i] =
                        (struct wire_gossip_claim){.addr = addr_of(2 + i), .state = MEMBER_DEAD};
            }
            forget_sent();
            size_t bytes = 0;
            assert_int_equal(deliver_padded(1, &message, pad_to, &bytes), 0);
            assert_true(wire_bytes() <= 3 * (bytes + DATAGRAM_OVERHEAD_MAX));
            largest = host.sent_count > largest ? host.sent_count : largest;
            now_us += SECOND / 100;
        }
    }
    assert_int_equal(largest, 3);
}

static void test_a_padded_page_gets_three_datagrams(void **state)
{
    (void)state;
    add_members(1, 1000);
    struct wire_gossip page = message_of(WIRE_GOSSIP_SYNC_PAGE);
    memset(page.leaves, 0xff, sizeof page.leaves);
    forget_sent();
    size_t bytes;
    assert_int_equal(deliver_padded(1, &page, MESSAGE_BYTES_MAX, &bytes), 0);
    assert_int_equal(host.sent_count, 3);
    unsigned records = 0;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(host.sent[i].message.more, i < 2);
        records += host.sent[i].message.news.record_count;
    }
    assert_true(records >= 45);
}

static void test_pages_a_second_are_bounded(void **state)
{
    (void)state;
    add_members(1, 50);
    struct wire_gossip page = message_of(WIRE_GOSSIP_SYNC_PAGE);
    page.leaves[0] = 1;
    run_for(2 * SECOND);
    forget_sent();
    for (unsigned i = 0; i < 400; i++)
        assert_int_equal(deliver(1, &page), 0);
    assert_int_equal(count_sent(WIRE_GOSSIP_SYNC_RECORDS), 256);
    assert_true(stats().dropped >= 144);
    now_us += SECOND / 2;
    forget_sent();
    for (unsigned i = 0; i < 400; i++)
        assert_int_equal(deliver(1, &page), 0);
    assert_true(count_sent(WIRE_GOSSIP_SYNC_RECORDS) >= 100);
    assert_true(count_sent(WIRE_GOSSIP_SYNC_RECORDS) <= 130);
}

static void test_strangers_get_no_pages(void **state)
{
    (void)state;
    add_members(1, 5);
    forget_sent();
    struct wire_gossip page = message_of(WIRE_GOSSIP_SYNC_PAGE);
    page.leaves[3] = 0xff;
    assert_int_equal(deliver(9, &page), 0);
    assert_int_equal(host.sent_count, 0);
    assert_int_equal(stats().rejected, 1);
}

static void test_answers_never_asked_for_are_ignored_dht3(void **state)
{
    (void)state;
    add_members(1, 5);
    uint64_t before = stats().rejected;
    struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_STATE);
    assert_int_equal(deliver(1, &answer), 0);
    answer = message_of(WIRE_GOSSIP_SYNC_DIFF);
    wire_gossip_leaf_set(answer.leaves, 1);
    assert_int_equal(deliver(1, &answer), 0);
    assert_int_equal(stats().rejected, before + 2);
    assert_int_equal(count_sent(WIRE_GOSSIP_SYNC_PAGE), 0);
    /* Wants that no page of ours offered are not served. */
    forget_sent();
    answer = message_of(WIRE_GOSSIP_SYNC_RECORDS);
    answer.want_count = 1;
    answer.wants[0] = prefix_of(3);
    assert_int_equal(deliver(1, &answer), 0);
    assert_int_equal(host.sent_count, 0);
}

/* Starts a push-pull of ours with member 1 of a view of `count`, up to the page. */
static const struct sent *reach_page(unsigned count)
{
    add_members(1, count);
    const struct sent *check = NULL;
    for (unsigned i = 0; i < 100 && check == NULL; i++) {
        forget_sent();
        run_for(SECOND / 20);
        for (unsigned k = 1; k <= count && check == NULL; k++)
            check = last_sent(k, WIRE_GOSSIP_SYNC_CHECK);
        for (unsigned k = 0; k < host.sent_count && check == NULL; k++)
            answer_pings(1, count);
    }
    assert_non_null(check);
    struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_STATE);
    answer.seq = check->message.seq;
    answer.view_hash = check->message.view_hash + 1;
    answer.view_count = count + 1;
    unsigned peer = (unsigned)check->to.ip[14] << 8 | check->to.ip[15];
    forget_sent();
    assert_int_equal(deliver(peer, &answer), 0);
    if (count < 48)
        return last_sent(peer, WIRE_GOSSIP_SYNC_PAGE);
    const struct sent *digest = last_sent(peer, WIRE_GOSSIP_SYNC_DIGEST);
    assert_non_null(digest);
    struct wire_gossip diff = message_of(WIRE_GOSSIP_SYNC_DIFF);
    diff.seq = digest->message.seq;
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++) {
        wire_gossip_leaf_set(diff.leaves, i);
        diff.counts[i] = 2;
    }
    assert_int_equal(deliver(peer, &diff), 0);
    return last_sent(peer, WIRE_GOSSIP_SYNC_PAGE);
}

static void test_small_views_go_without_digest(void **state)
{
    (void)state;
    const struct sent *page = reach_page(20);
    assert_non_null(page);
    assert_int_equal(page->message.summary_count, 21);
}

static void test_wanted_records_are_pushed(void **state)
{
    (void)state;
    const struct sent *page = reach_page(20);
    assert_non_null(page);
    unsigned peer = (unsigned)page->to.ip[14] << 8 | page->to.ip[15];
    struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_RECORDS);
    answer.seq = page->message.seq;
    answer.want_count = 2;
    answer.wants[0] = prefix_of(3);
    answer.wants[1] = prefix_of(300); /* nobody */
    forget_sent();
    assert_int_equal(deliver(peer, &answer), 0);
    const struct wire_gossip *pushed = records_sent(peer);
    assert_non_null(pushed);
    assert_int_equal(pushed->news.record_count, 1);
    assert_true(gives(pushed, 3));
}

static void test_pages_go_on_until_all_leaves_are_compared(void **state)
{
    (void)state;
    const struct sent *page = reach_page(300);
    unsigned pages = 0, summaries = 0, leaves = 0;
    while (page != NULL) {
        struct wire_gossip answer = message_of(WIRE_GOSSIP_SYNC_RECORDS);
        answer.seq = page->message.seq;
        pages++;
        summaries += page->message.summary_count;
        for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++)
            leaves += wire_gossip_leaf_get(page->message.leaves, i) ? 1 : 0;
        assert_true(page->bytes <= MESSAGE_BYTES_MAX);
        unsigned peer = (unsigned)page->to.ip[14] << 8 | page->to.ip[15];
        forget_sent();
        assert_int_equal(deliver(peer, &answer), 0);
        page = last_sent(peer, WIRE_GOSSIP_SYNC_PAGE);
    }
    assert_int_equal(leaves, WIRE_GOSSIP_LEAVES);
    assert_int_equal(summaries, 301);
    assert_true(pages >= 4 && pages <= 12);
}

static void test_an_unanswered_page_is_repeated_once(void **state)
{
    (void)state;
    const struct sent *page = reach_page(20);
    assert_non_null(page);
    unsigned pages = 0;
    for (unsigned i = 0; i < 30; i++) {
        forget_sent();
        run_for(SECOND / 10);
        for (unsigned k = 0; k < host.sent_count; k++)
            pages += host.sent[k].message.type == WIRE_GOSSIP_SYNC_PAGE ? 1 : 0;
        answer_pings(1, 20);
    }
    assert_int_equal(pages, 1);
}

/* Others' PINGs and ACKs say which view they have: when all differ from ours, we ask. */
static void test_views_that_come_apart_are_seen(void **state)
{
    (void)state;
    add_members(1, 30);
    run_answering(30, 0, 60 * SECOND); /* until the push-pull has become rare */
    struct wire_gossip ping = message_of(WIRE_GOSSIP_PING);
    ping.view_check = 12345;
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(count_sent(WIRE_GOSSIP_SYNC_CHECK), 0);
        assert_int_equal(deliver(i, &ping), 0);
    }
    assert_int_equal(count_sent(WIRE_GOSSIP_SYNC_CHECK), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_core, close_core)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_check_is_answered_and_introduces),
        TEST(test_equal_views_cost_two_messages),
        TEST(test_a_page_is_compared_both_ways),
        TEST(test_dead_against_alive_is_looked_at),
        TEST(test_answers_are_at_most_three_times_the_request_dht2),
        TEST(test_a_padded_page_gets_three_datagrams),
        TEST(test_pages_a_second_are_bounded),
        TEST(test_strangers_get_no_pages),
        TEST(test_answers_never_asked_for_are_ignored_dht3),
        TEST(test_small_views_go_without_digest),
        TEST(test_wanted_records_are_pushed),
        TEST(test_pages_go_on_until_all_leaves_are_compared),
        TEST(test_an_unanswered_page_is_repeated_once),
        TEST(test_views_that_come_apart_are_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
