/* SPDX-License-Identifier: Apache-2.0 */
/* Gossip messages: decode(encode(x)) = x for every type, sizes, and what is refused (PEER-10). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "wire_gossip.h"

static struct wire_gossip in, out;
static uint8_t message[MESSAGE_BYTES_MAX];
static size_t used;

static struct peer_addr v4(uint8_t last)
{
    return (struct peer_addr){.ip = {[10] = 0xff, [11] = 0xff, 10, 1, 2, last}, .port = 65002};
}

static struct peer_addr v6(uint8_t last)
{
    return (struct peer_addr){.ip = {0xfd, [15] = last}, .port = 443};
}

static struct label label(const char *text)
{
    struct label made = {""};
    memcpy(made.text, text, strlen(text));
    return made;
}

static void start(enum wire_gossip_type type)
{
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    in.type = type;
    in.seq = 0x12345678;
    in.known_incarnation = 1ULL << 40;
    in.known_state = MEMBER_SUSPECT;
}

static void fill_news(void)
{
    in.news.label_count = 2;
    in.news.labels[0] = label("cn-hangzhou");
    in.news.labels[1] = label("cn-hangzhou-b");
    in.news.record_count = 2;
    in.news.records[0] = (struct wire_gossip_record){.addr = v4(1),
                                                     .region_index = 1,
                                                     .zone_index = 2,
                                                     .incarnation = 7,
                                                     .state = MEMBER_ALIVE,
                                                     .capacity_class = 10,
                                                     .load = 200,
                                                     .version_minor = 300};
    memset(in.news.records[0].key.bytes, 0xab, IDENTITY_KEY_BYTES);
    in.news.records[1] = (struct wire_gossip_record){
        .addr = v6(2), .vswitch_index = 1, .incarnation = UINT64_MAX, .state = MEMBER_LEFT};
    in.news.claim_count = 2;
    in.news.claims[0] = (struct wire_gossip_claim){.addr = v4(3),
                                                   .incarnation = 70000,
                                                   .state = MEMBER_SUSPECT,
                                                   .accuser_count = 2,
                                                   .accusers = {v4(4), v6(5)}};
    in.news.claims[1] =
        (struct wire_gossip_claim){.addr = v6(6), .incarnation = 1, .state = MEMBER_DEAD};
}

/* Encodes `in`, decodes into `out`, and wants them equal; every prefix of it must be refused. */
static void round_trip(void)
{
    assert_int_equal(wire_gossip_encode(&in, 0, message, sizeof message, &used), 0);
    memset(&out, 0, sizeof out);
    assert_int_equal(wire_gossip_decode(message, used, &out), 0);
    assert_memory_equal(&in, &out, sizeof in);
    for (size_t bytes = 0; bytes < used; bytes++) {
        static struct wire_gossip scratch;
        assert_int_not_equal(wire_gossip_decode(message, bytes, &scratch), 0);
        static uint8_t small[MESSAGE_BYTES_MAX];
        size_t small_used;
        assert_int_equal(wire_gossip_encode(&in, 0, small, bytes, &small_used), E_TOO_LARGE);
    }
}

static void test_round_trip_of_every_type(void **state)
{
    (void)state;
    start(WIRE_GOSSIP_PING);
    in.view_check = 0xfeedbeef;
    fill_news();
    round_trip();
    start(WIRE_GOSSIP_ACK);
    round_trip();
    start(WIRE_GOSSIP_NEWS);
    fill_news();
    round_trip();
    start(WIRE_GOSSIP_PING_REQ);
    in.target = v6(9);
    round_trip();
    start(WIRE_GOSSIP_RELAYED);
    in.answered = true;
    round_trip();
    start(WIRE_GOSSIP_SYNC_CHECK);
    in.view_hash = UINT64_MAX - 5;
    in.view_count = 10000;
    fill_news();
    round_trip();
    start(WIRE_GOSSIP_SYNC_STATE);
    in.view_count = 1;
    round_trip();
    start(WIRE_GOSSIP_SYNC_DIGEST);
    for (uint32_t i = 0; i < WIRE_GOSSIP_LEAVES; i++)
        in.ranges[i] = i * 2654435761u;
    round_trip();
    assert_true(used <= MESSAGE_BYTES_MAX);
    start(WIRE_GOSSIP_SYNC_DIFF);
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i += 5) {
        wire_gossip_leaf_set(in.leaves, i);
        in.counts[i] = (uint8_t)(255 - i);
    }
    round_trip();
    start(WIRE_GOSSIP_SYNC_PAGE);
    wire_gossip_leaf_set(in.leaves, 0);
    wire_gossip_leaf_set(in.leaves, 255);
    in.summary_count = 3;
    in.summaries[0] = (struct wire_gossip_summary){1, 5, MEMBER_ALIVE};
    in.summaries[1] = (struct wire_gossip_summary){2, 1ULL << 33, MEMBER_DEAD};
    in.summaries[2] = (struct wire_gossip_summary){UINT64_MAX, 0, MEMBER_LEFT};
    round_trip();
    start(WIRE_GOSSIP_SYNC_RECORDS);
    in.more = true;
    in.want_count = 2;
    in.wants[0] = UINT64_MAX;
    in.wants[1] = 3;
    fill_news();
    round_trip();
}

static void test_sizes_are_exact(void **state)
{
    (void)state;
    start(WIRE_GOSSIP_NEWS);
    size_t empty, with;
    assert_int_equal(wire_gossip_encode(&in, 0, message, sizeof message, &empty), 0);
    assert_true(empty <= WIRE_GOSSIP_HEAD_BYTES_MAX);
    fill_news();
    assert_int_equal(wire_gossip_encode(&in, 0, message, sizeof message, &with), 0);
    size_t items = 0;
    for (unsigned i = 0; i < 2; i++) {
        items += wire_gossip_label_bytes(&in.news.labels[i]);
        items += wire_gossip_record_bytes(&in.news.records[i]);
        items += wire_gossip_claim_bytes(&in.news.claims[i]);
    }
    assert_int_equal(with - empty, items);
    struct label longest = {""};
    memset(longest.text, 'x', LABEL_BYTES_MAX);
    assert_int_equal(wire_gossip_label_bytes(&longest), LABEL_BYTES_MAX + 2);

    start(WIRE_GOSSIP_SYNC_PAGE);
    assert_int_equal(wire_gossip_encode(&in, 0, message, sizeof message, &empty), 0);
    in.summary_count = 2;
    in.summaries[0] = (struct wire_gossip_summary){200, 127, MEMBER_ALIVE};
    in.summaries[1] = (struct wire_gossip_summary){1ULL << 32, 128, MEMBER_ALIVE};
    assert_int_equal(wire_gossip_encode(&in, 0, message, sizeof message, &with), 0);
    assert_int_equal(with - empty, wire_gossip_summary_bytes(&in.summaries[0]) +
                                       wire_gossip_summary_bytes(&in.summaries[1]));
}

static void test_padding_is_skipped(void **state)
{
    (void)state;
    for (size_t pad_to = 1; pad_to <= MESSAGE_BYTES_MAX; pad_to += 61) {
        start(WIRE_GOSSIP_PING);
        fill_news();
        assert_int_equal(wire_gossip_encode(&in, pad_to, message, sizeof message, &used), 0);
        assert_true(used + 3 >= pad_to);
        assert_int_equal(wire_gossip_decode(message, used, &out), 0);
        assert_memory_equal(&in, &out, sizeof in);
    }
    assert_int_equal(wire_gossip_encode(&in, MESSAGE_BYTES_MAX, message, sizeof message, &used), 0);
    assert_true(used <= MESSAGE_BYTES_MAX);
}

/* A version N+1 sender adds a field to records and to the message: we read what we know (C-3). */
static void test_fields_of_newer_senders_are_skipped(void **state)
{
    (void)state;
    struct wire_writer writer;
    const struct peer_addr addr = v4(1);
    const uint8_t key[IDENTITY_KEY_BYTES] = {1};
    wire_writer_begin(&writer, message, sizeof message, WIRE_GOSSIP_NEWS, 7);
    for (unsigned i = 0; i < 3; i++)
        wire_put_uint(&writer, i);
    wire_put_array(&writer, 0);
    wire_put_array(&writer, 1);
    wire_put_array(&writer, 11);
    wire_put_addr(&writer, &addr);
    wire_put_bytes(&writer, key, sizeof key);
    for (unsigned i = 0; i < 3; i++)
        wire_put_uint(&writer, 0);
    wire_put_uint(&writer, 42);
    wire_put_uint(&writer, MEMBER_ALIVE);
    for (unsigned i = 0; i < 3; i++)
        wire_put_uint(&writer, 0);
    wire_put_text(&writer, "newer");
    wire_put_array(&writer, 0);
    wire_put_text(&writer, "newer");
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_gossip_decode(message, used, &out), 0);
    assert_int_equal(out.news.record_count, 1);
    assert_int_equal(out.news.records[0].incarnation, 42);
    assert_int_equal(out.news.claim_count, 0);
}

static int decode_after_encode(void)
{
    assert_int_equal(wire_gossip_encode(&in, 0, message, sizeof message, &used), 0);
    return wire_gossip_decode(message, used, &out);
}

static void test_wrong_values_are_refused(void **state)
{
    (void)state;
    start(WIRE_GOSSIP_NEWS);
    fill_news();
    in.news.records[0].zone_index = 3; /* two labels */
    assert_int_equal(decode_after_encode(), E_TOO_LARGE);
    fill_news();
    in.news.records[0].state = MEMBER_SUSPECT;
    assert_int_equal(decode_after_encode(), E_MALFORMED);
    fill_news();
    in.news.claims[0].state = MEMBER_ALIVE;
    assert_int_equal(decode_after_encode(), E_MALFORMED);
    fill_news();
    in.news.labels[0] = label("white space");
    assert_int_equal(decode_after_encode(), E_MALFORMED);
    fill_news();
    in.known_state = (enum member_state)6;
    assert_int_equal(decode_after_encode(), E_TOO_LARGE);

    start(WIRE_GOSSIP_SYNC_PAGE);
    in.summary_count = 2;
    in.summaries[0] = (struct wire_gossip_summary){9, 5, MEMBER_ALIVE};
    in.summaries[1] = (struct wire_gossip_summary){9, 5, MEMBER_ALIVE}; /* does not ascend */
    assert_int_equal(decode_after_encode(), E_MALFORMED);
    in.summaries[1] = (struct wire_gossip_summary){10, 5, MEMBER_LEAVING};
    assert_int_equal(decode_after_encode(), E_MALFORMED);
}

static void test_counts_must_fit_the_leaves(void **state)
{
    (void)state;
    for (unsigned counts = 0; counts < 4; counts++) {
        struct wire_writer writer;
        const uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES] = {3}, bytes[4] = {1, 2, 3, 4};
        wire_writer_begin(&writer, message, sizeof message, WIRE_GOSSIP_SYNC_DIFF, 5);
        for (unsigned i = 0; i < 3; i++)
            wire_put_uint(&writer, 0);
        wire_put_bytes(&writer, leaves, sizeof leaves);
        wire_put_bytes(&writer, bytes, counts);
        assert_int_equal(wire_writer_end(&writer, &used), 0);
        int err = wire_gossip_decode(message, used, &out);
        assert_int_equal(err, counts == 2 ? 0 : E_MALFORMED);
    }
}

static void test_counts_over_the_limit_are_refused(void **state)
{
    (void)state;
    /* wants, labels, records and claims, each declared one too many; the values do not matter. */
    const struct {
        unsigned type;
        unsigned before; /* empty arrays that come first */
        uint32_t count;
    } cases[] = {
        {WIRE_GOSSIP_NEWS, 0, WIRE_GOSSIP_LABELS_MAX + 1},
        {WIRE_GOSSIP_NEWS, 1, WIRE_GOSSIP_RECORDS_MAX + 1},
        {WIRE_GOSSIP_NEWS, 2, WIRE_GOSSIP_CLAIMS_MAX + 1},
        {WIRE_GOSSIP_SYNC_RECORDS, 0, WIRE_GOSSIP_WANTS_MAX + 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire_writer writer;
        wire_writer_begin(&writer, message, sizeof message, cases[i].type, 8);
        for (unsigned k = 0; k < 3; k++)
            wire_put_uint(&writer, 0);
        if (cases[i].type == WIRE_GOSSIP_SYNC_RECORDS)
            wire_put_bool(&writer, false);
        for (unsigned k = 0; k < cases[i].before; k++)
            wire_put_array(&writer, 0);
        wire_put_array(&writer, cases[i].count);
        unsigned rest = 8 - 3 - 1 - cases[i].before; /* fields behind the array */
        rest -= cases[i].type == WIRE_GOSSIP_SYNC_RECORDS ? 1 : 0;
        for (uint32_t k = 0; k < cases[i].count + rest; k++)
            wire_put_uint(&writer, 0);
        assert_int_equal(wire_writer_end(&writer, &used), 0);
        assert_int_equal(wire_check(message, used), 0);
        assert_int_equal(wire_gossip_decode(message, used, &out), E_TOO_LARGE);
    }
}

static void test_foreign_types(void **state)
{
    (void)state;
    start(WIRE_GOSSIP_RELAYED);
    assert_int_equal(wire_gossip_encode(&in, 0, message, sizeof message, &used), 0);
    message[1] = WIRE_GOSSIP_LAST; /* ours, but of a newer version */
    assert_int_equal(wire_gossip_decode(message, used, &out), E_NOT_FOUND);
    message[1] = WIRE_DHT_FIRST;
    assert_int_equal(wire_gossip_decode(message, used, &out), E_NOT_FOUND);
    assert_int_equal(wire_gossip_decode(message, 0, &out), E_TRUNCATED);
    const uint8_t text[] = {0xa2, 'h', 'i'};
    assert_int_equal(wire_gossip_decode(text, sizeof text, &out), E_MALFORMED);
}

static void test_full_messages_fit(void **state)
{
    (void)state;
    /* As many of the smallest items as the struct holds are more than a datagram: the limits of the
     * arrays never bind before the limit of the message does. */
    assert_true(WIRE_GOSSIP_RECORDS_MAX * 50 >= MESSAGE_BYTES_MAX);
    assert_true((WIRE_GOSSIP_CLAIMS_MAX + 4) * 14 >= MESSAGE_BYTES_MAX);
    assert_true(WIRE_GOSSIP_SUMMARIES_MAX * 11 >= MESSAGE_BYTES_MAX);
    assert_true(WIRE_GOSSIP_WANTS_MAX * 9 + 100 >= MESSAGE_BYTES_MAX);
    unsigned set = 0;
    uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES] = {0};
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++) {
        assert_false(wire_gossip_leaf_get(leaves, i));
        wire_gossip_leaf_set(leaves, i);
        set += wire_gossip_leaf_get(leaves, i) ? 1 : 0;
    }
    assert_int_equal(set, WIRE_GOSSIP_LEAVES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_of_every_type),
        cmocka_unit_test(test_sizes_are_exact),
        cmocka_unit_test(test_padding_is_skipped),
        cmocka_unit_test(test_fields_of_newer_senders_are_skipped),
        cmocka_unit_test(test_wrong_values_are_refused),
        cmocka_unit_test(test_counts_must_fit_the_leaves),
        cmocka_unit_test(test_counts_over_the_limit_are_refused),
        cmocka_unit_test(test_foreign_types),
        cmocka_unit_test(test_full_messages_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
