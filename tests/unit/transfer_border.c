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

/* This node and NEAR in zone a, FAR to FAR_LAST in zone b with the whole blob of 32 pieces; nobody
 * reads it. */
static void open_unread(struct t_host *t)
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
    t_drain(t);
}

static void open_zones(struct t_host *t)
{
    open_unread(t);
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

/* ---- a registry that has a copy for each zone, on a mesh that has one for all ---- */

static void open_apart(struct t_host *t, bool can_fetch)
{
    open_unread(t);
    transfer_blob_copies(t->core, t->now_us, t->blob, TRANSFER_COPIES_ZONE);
    (void)t_read(t, TRANSFER_READ_STREAM, can_fetch);
}

static void test_what_is_its_zones_is_not_asked_beyond(void **state)
{
    (void)state;
    struct t_host t;
    open_apart(&t, false);
    link_far(&t);
    unsigned even;
    t_wait(&t, 2 * (uint64_t)T_S);
    assert_int_equal(asked_far(&t, 0, &even), 0);
    for (unsigned i = 0; i < t.sent_count; i++) /* but whoever greets is answered, and served */
        assert_true(t.sent[i].message.type != WIRE_TRANSFER_HELLO || t.sent[i].to == NEAR ||
                    (t.sent[i].message.of.have.flags & WIRE_HAVE_REPLY) != 0);
    t_hello(&t, NEAR, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
    t_session(&t, NEAR);
    t_wait(&t, T_S);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 0));
    assert_int_equal(asked_far(&t, 0, &even), 0);
    t_close(&t);
}

static void test_labels_that_change_move_the_border(void **state)
{
    (void)state;
    struct t_host t;
    unsigned even;
    open_apart(&t, false);
    link_far(&t);
    assert_int_equal(asked_far(&t, 0, &even), 0);
    struct topology moved = t.self.topology;
    label(&moved, "b");
    assert_int_equal(transfer_update_self(t.core, t.now_us, &moved), 0);
    t_drain(&t);
    assert_true(asked_far(&t, 0, &even) > 0);
    t_close(&t);
}

/* Whoever began decides; when nobody reads the next one does, and 0 means the mesh's rule. */
static void test_copies_change_between_pulls(void **state)
{
    (void)state;
    struct t_host t;
    unsigned even;
    open_unread(&t);
    uint64_t reader = t_read(&t, TRANSFER_READ_STREAM, false);
    transfer_blob_copies(t.core, t.now_us, t.blob, TRANSFER_COPIES_ZONE);
    t_drain(&t);
    link_far(&t);
    assert_true(asked_far(&t, 0, &even) > 0);
    transfer_read_stop(t.core, t.now_us, reader);
    transfer_blob_copies(t.core, t.now_us, t.blob, TRANSFER_COPIES_ZONE);
    t_clear(&t);
    reader = t_read(&t, TRANSFER_READ_STREAM, false);
    assert_int_equal(asked_far(&t, 0, &even), 0);
    transfer_read_stop(t.core, t.now_us, reader);
    transfer_blob_copies(t.core, t.now_us, t.blob, (enum transfer_copies)9);
    transfer_blob_copies(t.core, t.now_us, 4711, TRANSFER_COPIES_ZONE); /* no such blob */
    t_clear(&t);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    assert_true(asked_far(&t, 0, &even) > 0);
    t_close(&t);
}

/* A WANT for the whole zone that was sent; NULL: none. */
static const struct wire_lease *first_want(const struct t_host *t)
{
    const struct t_sent *sent = t_sent(t, WIRE_TRANSFER_WANT, 0);
    return sent == NULL ? NULL : &sent->message.of.lease;
}

/* Reads a piece whose segment another node keeps, of a registry with copies per zone. */
static void open_asking(struct t_host *t)
{
    for (uint32_t piece = 0;; piece++) {
        uint64_t reader;
        open_unread(t);
        assert_true(piece < t_pieces(t));
        transfer_blob_copies(t->core, t->now_us, t->blob, TRANSFER_COPIES_ZONE);
        assert_int_equal(transfer_read_start(t->core, t->now_us, t->blob, piece, 1,
                                             TRANSFER_READ_RANGE, true, &reader),
                         0);
        t_wait(t, 100 * T_MS);
        if (first_want(t) != NULL)
            return;
        t_close(t);
    }
}

/* A keeper that knows nothing of it may refer over the border, or let us wait for another zone:
 * with the zone's lease in hand the registry is read all the same. */
static void test_older_keepers_do_not_lead_over_the_border(void **state)
{
    (void)state;
    for (unsigned answer = 0; answer < 4; answer++) {
        struct t_host t;
        open_asking(&t);
        const struct wire_lease *want = first_want(&t);
        assert_non_null(want);
        assert_int_equal(want->flags & WIRE_LEASE_COPIES, WIRE_LEASE_COPIES_ZONE);
        assert_int_equal(want->level, WIRE_LEVEL_ZONE);
        uint32_t keeper = t_sent(&t, WIRE_TRANSFER_WANT, 0)->to, segment = want->segment;
        struct wire_transfer message = {.type = WIRE_TRANSFER_GRANT};
        struct member far = t_member(FAR);
        message.of.lease = (struct wire_lease){
            .blob = t.info.key, .segment = segment, .epoch = 1, .zone_epoch = 1};
        if (answer > 0)
            message.of.lease.level = WIRE_LEVEL_HOME;
        if (answer == 1)
            message.type = WIRE_TRANSFER_PENDING;
        if (answer >= 2) {
            message.type = WIRE_TRANSFER_REFER;
            message.of.lease.flags = WIRE_LEASE_CONTACT;
            message.of.lease.contact = (struct wire_contact){far.id, far.addr};
        }
        if (answer == 3)
            message.of.lease.level = WIRE_LEVEL_ZONE;
        t_clear(&t);
        t_receive(&t, keeper, &message);
        t_wait(&t, 60 * T_MS);
        if (answer < 3) {
            assert_non_null(t_result(&t, TRANSFER_FETCH, 0));
        } else { /* it is told, and asked again */
            assert_non_null(first_want(&t));
            assert_true((first_want(&t)->flags & WIRE_LEASE_AVOID) != 0);
        }
        assert_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 0));
        t_close(&t);
    }
}

/* WANT of a peer, in its zone's name; the kind of answer, to it or to the home keeper. */
static unsigned answer_to(struct t_host *t, uint32_t from, uint8_t copies, uint64_t zone)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_WANT};
    message.of.lease = (struct wire_lease){
        .blob = t->info.key, .flags = copies | WIRE_LEASE_FORWARDED, .zone = zone};
    t_clear(t);
    t_receive(t, from, &message);
    for (unsigned i = 0; i < t->sent_count; i++) {
        const struct wire_transfer *sent = &t->sent[i].message;
        if (sent->type == WIRE_TRANSFER_GRANT && sent->of.lease.level == WIRE_LEVEL_ZONE)
            continue; /* the other half is asked of the home keeper */
        if (sent->type == WIRE_TRANSFER_GRANT || sent->type == WIRE_TRANSFER_PENDING ||
            sent->type == WIRE_TRANSFER_REFER || sent->type == WIRE_TRANSFER_WANT)
            return sent->type;
    }
    return 0;
}

static void tell(struct t_host *t, uint32_t from, unsigned type, uint8_t copies, uint64_t zone)
{
    struct wire_transfer message = {.type = type};
    message.of.lease = (struct wire_lease){
        .blob = t->info.key, .flags = copies, .zone = zone, .epoch = 1, .zone_epoch = 1};
    t_receive(t, from, &message);
}

static void test_keepers_have_a_desk_for_each_zone(void **state)
{
    (void)state;
    const uint8_t apart = WIRE_LEASE_COPIES_ZONE;
    struct t_host t;
    open_unread(&t);
    assert_int_equal(answer_to(&t, FAR, apart, 5), WIRE_TRANSFER_GRANT);
    assert_int_equal(answer_to(&t, FAR + 1, apart, 5), WIRE_TRANSFER_PENDING);
    assert_int_equal(answer_to(&t, NEAR, apart, 6), WIRE_TRANSFER_GRANT); /* another zone's */
    /* Alive by what is said in its zone's name; then held, given back, asked again. */
    for (unsigned i = 0; i < 8; i++) {
        struct wire_transfer renew = {.type = WIRE_TRANSFER_RENEW};
        renew.of.renew =
            (struct wire_renew){.blob = t.info.key, .zone = 5, .count = 1, .renewals = {{0, 1, i}}};
        t_wait(&t, 250 * T_MS);
        t_receive(&t, FAR, &renew);
    }
    assert_int_equal(answer_to(&t, FAR + 1, apart, 5), WIRE_TRANSFER_PENDING);
    assert_int_equal(answer_to(&t, FAR + 1, apart, 6), WIRE_TRANSFER_GRANT); /* that was silent */
    tell(&t, FAR, WIRE_TRANSFER_RETURN, apart, 5);
    assert_int_equal(answer_to(&t, FAR + 1, apart, 5), WIRE_TRANSFER_GRANT);
    tell(&t, FAR + 1, WIRE_TRANSFER_HOLD, apart, 5);
    assert_int_equal(answer_to(&t, FAR + 2, apart, 5), WIRE_TRANSFER_REFER);
    assert_int_equal(t_sent(&t, WIRE_TRANSFER_REFER, 0)->message.of.lease.zone, 5);
    t_close(&t);
}

static void test_what_keepers_are_told_falls_back_to_the_meshs_rule(void **state)
{
    (void)state;
    static const struct {
        uint8_t copies;
        bool apart;
    } cases[] = {
        {0, false},
        {WIRE_LEASE_COPIES_MESH, false},
        {WIRE_LEASE_COPIES, false}, /* both: nothing that this version knows */
        {0xe0, false},              /* flags of later versions */
        {0xe0 | WIRE_LEASE_COPIES_ZONE, true},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct t_host t;
        open_unread(&t);
        unsigned first = answer_to(&t, FAR, cases[i].copies, 5);
        assert_true(first == WIRE_TRANSFER_GRANT || first == WIRE_TRANSFER_WANT);
        unsigned second = answer_to(&t, NEAR, cases[i].copies, 6);
        assert_int_equal(second == WIRE_TRANSFER_PENDING, !cases[i].apart);
        t_close(&t);
    }
}

/* It has the segment itself, or knows who has: that is no copy of the asker's zone. */
static void test_keepers_do_not_refer_over_the_border(void **state)
{
    (void)state;
    struct t_host t;
    open_unread(&t);
    for (uint32_t piece = 0; piece < t_pieces(&t); piece++)
        t_piece(&t, piece, PIECE_FROM_CACHE, 0, 0);
    assert_int_equal(answer_to(&t, FAR, WIRE_LEASE_COPIES_ZONE, 5), WIRE_TRANSFER_GRANT);
    assert_int_equal(answer_to(&t, NEAR, WIRE_LEASE_COPIES_ZONE, 6), WIRE_TRANSFER_REFER);
    assert_int_equal(answer_to(&t, FAR + 1, 0, 7), WIRE_TRANSFER_REFER);
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_of_a_zone_share_what_crosses_its_border),
        cmocka_unit_test(test_alone_in_a_zone_all_is_asked_beyond),
        cmocka_unit_test(test_what_is_in_the_zone_is_not_asked_beyond),
        cmocka_unit_test(test_what_is_its_zones_is_not_asked_beyond),
        cmocka_unit_test(test_labels_that_change_move_the_border),
        cmocka_unit_test(test_copies_change_between_pulls),
        cmocka_unit_test(test_older_keepers_do_not_lead_over_the_border),
        cmocka_unit_test(test_keepers_have_a_desk_for_each_zone),
        cmocka_unit_test(test_what_keepers_are_told_falls_back_to_the_meshs_rule),
        cmocka_unit_test(test_keepers_do_not_refer_over_the_border),
        cmocka_unit_test(test_rare_pieces_are_news_at_once),
        cmocka_unit_test(test_few_pieces_are_sent_few_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
