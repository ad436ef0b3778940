/* SPDX-License-Identifier: Apache-2.0 */
/* Small zones that merge: each piece is to cross the border between them once. And what makes small
 * blobs spread: news of pieces go out at once, few pieces are sent at a time. */
#include "transfer_host.h"

#define NEAR     1u
#define FAR      2u /* to FAR_LAST: holders in the other zone */
#define FAR_LAST 6u

static void label(struct topology *topology, const char *zone)
{
    topology->region = (struct label){"r"};
    topology->zone.text[0] = zone[0];
}

/* This node and NEAR in zone a, FAR to FAR_LAST in zone b with the whole blob of 32 pieces. */
static void open_zones(struct t_host *t)
{
    memset(t, 0, sizeof *t);
    t->now_us = 1000 * (uint64_t)T_S;
    t->self = t_member(0);
    label(&t->self.topology, "a");
    t->env = (struct env){
        .host = t, .send = t_send, .random = t_random, .alloc = t_alloc, .trace = t_trace};
    prng_seed(&t->prng, (const uint8_t *)"zone", 4);
    struct transfer_config config = {
        .self_id = t->self.id, .self_addr = t->self.addr, .topology = t->self.topology};
    assert_int_equal(transfer_new(&t->env, &config, t->now_us, &t->core), 0);
    for (uint32_t i = NEAR; i <= FAR_LAST; i++) {
        struct member member = t_member(i);
        label(&member.topology, i == NEAR ? "a" : "b");
        assert_int_equal(transfer_member_up(t->core, t->now_us, &member), 0);
    }
    uint8_t lookup[32] = {3};
    t->info.size_bytes = 32 * T_PIECE;
    digest_of(DIGEST_SHA256, "blob", 4, &t->info.digest);
    blob_key_of(lookup, &t->info.digest, &t->info.key);
    assert_int_equal(transfer_blob_open(t->core, t->now_us, &t->info, NULL, &t->blob), 0);
    (void)t_read(t, TRANSFER_READ_STREAM, false);
}

static void link_far(struct t_host *t)
{
    for (uint32_t i = FAR; i <= FAR_LAST; i++) {
        t_hello(t, i, true, WIRE_HAVE_COMPLETE, t_pieces(t));
        t_session(t, i);
    }
}

/* Requests beyond the border so far, and those of them for pieces of one parity. */
static unsigned asked_far(const struct t_host *t, uint32_t parity, unsigned *of_parity)
{
    unsigned count = 0;
    *of_parity = 0;
    const struct t_sent *sent;
    for (unsigned i = 0; (sent = t_sent(t, WIRE_TRANSFER_REQUEST, i)) != NULL; i++) {
        count += sent->to != NEAR;
        *of_parity += sent->to != NEAR && sent->message.of.piece.piece % 2 == parity;
    }
    return count;
}

static void test_two_of_a_zone_share_what_crosses_its_border(void **state)
{
    (void)state;
    struct t_host t;
    open_zones(&t);
    t_hello(&t, NEAR, true, WIRE_HAVE_WANTS, 0);
    t_session(&t, NEAR);
    link_far(&t);
    struct member near = t_member(NEAR);
    uint32_t ours = node_id_compare(&near.id, &t.self.id) < 0 ? 1 : 0;
    unsigned share, count = asked_far(&t, ours, &share);
    assert_true(count >= 5);
    assert_true(count - share <= 2); /* but two when nothing else is under way */
    t_close(&t);
}

static void test_alone_in_a_zone_all_is_asked_beyond(void **state)
{
    (void)state;
    struct t_host t;
    open_zones(&t);
    link_far(&t);
    unsigned even, count = asked_far(&t, 0, &even);
    assert_true(count >= 5);
    assert_true(even > 2 || count - even > 2);
    t_close(&t);
}

static void test_what_is_in_the_zone_is_not_asked_beyond(void **state)
{
    (void)state;
    struct t_host t;
    open_zones(&t);
    t_hello(&t, NEAR, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
    t_session(&t, NEAR);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 0));
    link_far(&t);
    unsigned even;
    assert_true(asked_far(&t, 0, &even) <= 1); /* with next to nothing under way */
    t_close(&t);
}

/* A holder whose pieces come slowly tells of each: its neighbours have nothing else to ask for. */
static void test_rare_pieces_are_news_at_once(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 3, 32 * T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    t_hello(&t, 1, true, WIRE_HAVE_WANTS, 0);
    for (uint32_t piece = 0; piece < 4; piece++) {
        t_wait(&t, 40 * T_MS);
        t_clear(&t);
        t_piece(&t, piece, PIECE_FROM_ORIGIN, 0, 0);
        const struct t_sent *have = t_sent(&t, WIRE_TRANSFER_HAVE, 0);
        assert_non_null(have);
        assert_int_equal(have->to, 1);
    }
    /* Pieces that come together are told of together. */
    t_clear(&t);
    t_piece(&t, 4, PIECE_FROM_ORIGIN, 0, 0);
    t_piece(&t, 5, PIECE_FROM_ORIGIN, 0, 0);
    assert_null(t_sent(&t, WIRE_TRANSFER_HAVE, 0));
    t_wait(&t, 6 * T_MS);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_HAVE, 0));
    assert_null(t_sent(&t, WIRE_TRANSFER_HAVE, 1));
    t_close(&t);
}

static void ask(struct t_host *t, uint32_t from, uint32_t piece)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_REQUEST};
    message.of.piece =
        (struct wire_piece){.blob = t->info.key, .piece = piece, .serial = 10 * from + piece};
    t_receive(t, from, &message);
}

static void test_few_pieces_are_sent_few_at_a_time(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 8, 16 * T_PIECE);
    for (uint32_t piece = 0; piece < t_pieces(&t); piece++)
        t_piece(&t, piece, PIECE_FROM_CACHE, 0, 0);
    for (uint32_t peer = 1; peer <= 6; peer++) {
        t_hello(&t, peer, true, WIRE_HAVE_WANTS, 0);
        t_session(&t, peer);
    }
    t_clear(&t);
    for (uint32_t peer = 1; peer <= 6; peer++)
        ask(&t, peer, peer);
    assert_non_null(t_result(&t, TRANSFER_UPLOAD, 3));
    assert_null(t_result(&t, TRANSFER_UPLOAD, 4));
    transfer_upload_end(t.core, t.now_us, t_result(&t, TRANSFER_UPLOAD, 0)->id, T_PIECE, 0);
    t_drain(&t);
    assert_non_null(t_result(&t, TRANSFER_UPLOAD, 4));
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_of_a_zone_share_what_crosses_its_border),
        cmocka_unit_test(test_alone_in_a_zone_all_is_asked_beyond),
        cmocka_unit_test(test_what_is_in_the_zone_is_not_asked_beyond),
        cmocka_unit_test(test_rare_pieces_are_news_at_once),
        cmocka_unit_test(test_few_pieces_are_sent_few_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
