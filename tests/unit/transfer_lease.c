/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases from both sides: what a node does with each answer of a keeper, lost or doubled; what a
 * keeper answers in each state; every move between lease states, allowed and forbidden.
 */
#include "transfer_host.h"

#include "../../src/transfer/lease.h"

/* ---- states ---- */

static void test_moves_between_states(void **state)
{
    (void)state;
    static const char allowed[LEASE_STATE_COUNT][LEASE_STATE_COUNT + 1] = {
        /* to:            -AHWGFIH */
        [LEASE_ASKING] = "..xxx.xx",  [LEASE_HOME] = "...xx.xx",     [LEASE_WAITING] = "..x.x.xx",
        [LEASE_GRANTED] = ".....xxx", [LEASE_FETCHING] = ".......x", [LEASE_IMPORTING] = "..x.x..x",
        [LEASE_HELD] = "........",
    };
    for (unsigned from = 0; from <= LEASE_STATE_COUNT; from++) {
        for (unsigned to = 1; to < LEASE_STATE_COUNT; to++) {
            bool expected = from > 0 && from < LEASE_STATE_COUNT && allowed[from][to] == 'x';
            assert_int_equal(
                transfer__lease_move_allowed((enum lease_state)from, (enum lease_state)to),
                expected);
        }
    }
}

/* ---- the asking side: a blob of one piece whose keepers are all other nodes ---- */

/* A reader on a core that is no keeper of the blob's only segment; providers answered. */
static void asking_as(struct t_host *t, enum transfer_read_mode mode)
{
    uint8_t key[32];
    t_open(t, 40, T_PIECE);
    segment_key_of(&t->info.key, 0, key);
    uint16_t keepers[KEEPERS];
    assert_int_equal(transfer__keepers(t->core, 0, key, keepers), KEEPERS);
    for (unsigned i = 0; i < KEEPERS; i++)
        assert_int_not_equal(keepers[i], NODE_SELF);
    (void)t_read(t, mode, true);
    transfer_providers(t->core, t->now_us, &t->info.key, NULL, 0);
    t_drain(t);
}

static void asking(struct t_host *t)
{
    asking_as(t, TRANSFER_READ_STREAM);
}

static uint32_t keeper(const struct t_host *t)
{
    const struct t_sent *want = t_sent(t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    return want->to;
}

static unsigned wants(const struct t_host *t, uint32_t to)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->sent_count; i++)
        count += t->sent[i].message.type == WIRE_TRANSFER_WANT && t->sent[i].to == to;
    return count;
}

static void test_grant_leads_to_a_read(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t asked = keeper(&t);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    assert_int_equal(fetch->reason, FETCH_LEASE);
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000); /* twice is once */
    assert_null(t_result(&t, TRANSFER_FETCH, 1));
    t_wait(&t, 300 * T_MS);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_RENEW, 0));
    t_clear(&t);
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_HOLD, 0));
    t_wait(&t, 250 * T_MS); /* repeated until HELD */
    assert_non_null(t_sent(&t, WIRE_TRANSFER_HOLD, 2));
    t_lease(&t, asked, WIRE_TRANSFER_HELD, WIRE_LEVEL_ZONE, 0);
    t_lease(&t, asked, WIRE_TRANSFER_HELD, WIRE_LEVEL_HOME, 0);
    t_clear(&t);
    t_wait(&t, 2 * T_S);
    assert_null(t_sent(&t, WIRE_TRANSFER_HOLD, 0));
    t_close(&t);
}

static void test_want_is_repeated_then_goes_to_the_next_keeper(void **state)
{
    (void)state;
    struct t_host t;
    asking_as(&t, TRANSFER_READ_PREFETCH); /* a client would not wait so long: see below */
    uint32_t first = keeper(&t);
    t_wait(&t, 400 * T_MS);
    assert_true(wants(&t, first) >= 3);
    unsigned all = 0;
    for (uint32_t i = 1; i <= 40; i++)
        all += wants(&t, i);
    assert_int_equal(all, wants(&t, first)); /* nobody else yet */
    t_clear(&t);
    t_wait(&t, 200 * T_MS);
    assert_true(keeper(&t) != first);
    assert_non_null(t_result(&t, TRANSFER_PEER_SILENT, 0));
    t_close(&t);
}

/* Rule 8: nobody answers. A client waits, so its first piece comes after FIRST_BYTE, not 1.5 s. */
static void test_nobody_answers(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    t_wait(&t, 100 * T_MS);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_wait(&t, 150 * T_MS);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    assert_int_equal(fetch->reason, FETCH_NO_KEEPER);
    t_close(&t);
}

static unsigned fetches(const struct t_host *t)
{
    unsigned count = 0;
    while (t_result(t, TRANSFER_FETCH, count) != NULL)
        count++;
    return count;
}

/* The whole mesh is silent: the first byte's time is lost once, not by each segment, nor by the
 * next pull; whoever says a word gets the usual patience again (SECURITY §5, mesh dead). */
static void test_a_silent_mesh_is_waited_for_once(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 40, 4 * T_MIB);
    transfer_advance(t.core, t.now_us);
    t_wait(&t, 300 * T_MS); /* nothing goes on: the next tick is not near */
    uint64_t reader = t_read(&t, TRANSFER_READ_STREAM, true);
    t_wait(&t, 119 * T_MS);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_wait(&t, 12 * T_MS); /* the next segments are waited for a moment, to be read in one go */
    assert_non_null(t_result(&t, TRANSFER_FETCH, 0));
    assert_int_equal(t_result(&t, TRANSFER_FETCH, 0)->reason, FETCH_NO_KEEPER);
    t_wait(&t, 20 * T_MS);
    assert_int_equal(fetches(&t), 2); /* as many at a time as there may be */
    transfer_read_stop(t.core, t.now_us, reader);
    transfer_blob_close(t.core, t.now_us, t.blob);
    for (unsigned i = 0; i < 2; i++)
        transfer_fetch_end(t.core, t.now_us, t_result(&t, TRANSFER_FETCH, i)->id, E_CANCELLED, 0);
    t_clear(&t);
    for (unsigned spoken = 0; spoken < 2; spoken++) {
        digest_of(DIGEST_SHA256, &spoken, sizeof spoken, &t.info.digest);
        uint8_t lookup[32] = {3};
        blob_key_of(lookup, &t.info.digest, &t.info.key);
        t.info.size_bytes = T_PIECE;
        assert_int_equal(transfer_blob_open(t.core, t.now_us, &t.info, NULL, &t.blob), 0);
        t_clear(&t);
        (void)t_read(&t, TRANSFER_READ_STREAM, true);
        transfer_providers(t.core, t.now_us, &t.info.key, NULL, 0);
        if (spoken == 1)
            t_hello(&t, 9, true, 0, 0);
        t_wait(&t, 10 * T_MS);
        assert_int_equal(fetches(&t), 1 - spoken);
    }
    t_close(&t);
}

static void test_pending_is_asked_again(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    t_lease(&t, keeper(&t), WIRE_TRANSFER_PENDING, WIRE_LEVEL_ZONE, 300);
    t_clear(&t);
    t_wait(&t, 250 * T_MS);
    assert_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    t_wait(&t, 150 * T_MS);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    t_close(&t);
}

/* The zone's lease is ours, another zone reads: we wait, are told whom to ask, ask it, tell both.
 */
static void test_import_from_another_zone(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t zone_keeper = keeper(&t);
    t_lease(&t, zone_keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_ZONE, 1000);
    t_lease(&t, 7, WIRE_TRANSFER_PENDING, WIRE_LEVEL_HOME, 300);
    t_wait(&t, 1 * T_MS);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_refer(&t, 7, WIRE_LEVEL_HOME, 9);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_clear(&t);
    t_session(&t, 9);
    const struct t_sent *request = t_sent(&t, WIRE_TRANSFER_REQUEST, 0);
    assert_non_null(request);
    assert_int_equal(request->to, 9);
    assert_int_equal(request->message.of.piece.flags, WIRE_PIECE_IMPORT | WIRE_PIECE_LEASE);
    t_piece(&t, 0, PIECE_FROM_PEER, 9, 0);
    bool zone = false, home = false;
    for (unsigned i = 0; t_sent(&t, WIRE_TRANSFER_HOLD, i) != NULL; i++) {
        const struct t_sent *hold = t_sent(&t, WIRE_TRANSFER_HOLD, i);
        zone = zone || (hold->to == zone_keeper && hold->message.of.lease.level == 0);
        home = home || (hold->to == 7 && hold->message.of.lease.level == 1);
    }
    assert_true(zone && home);
    t_close(&t);
}

/* The holder named by the home keeper does not deliver: the keeper hears of it and decides anew. */
static void test_an_import_that_fails(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    t_lease(&t, keeper(&t), WIRE_TRANSFER_GRANT, WIRE_LEVEL_ZONE, 1000);
    t_refer(&t, 7, WIRE_LEVEL_HOME, 9);
    t_session(&t, 9);
    struct member holder = t_member(9);
    t_clear(&t);
    transfer_session_down(t.core, t.now_us, &holder.id, E_CLOSED);
    t_drain(&t);
    const struct t_sent *want = t_sent(&t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    assert_int_equal(want->message.of.lease.level, WIRE_LEVEL_HOME);
    assert_true((want->message.of.lease.flags & WIRE_LEASE_AVOID) != 0);
    assert_true(node_id_equal(&want->message.of.lease.contact.id, &holder.id));
    t_lease(&t, 7, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    assert_non_null(t_result(&t, TRANSFER_FETCH, 0));
    t_close(&t);
}

/* A second referral to a node that was found to have nothing costs no round trip to that node. */
static void test_a_useless_referral_is_refused(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t asked = keeper(&t);
    t_refer(&t, asked, WIRE_LEVEL_ZONE, 9);
    t_session(&t, 9);
    const struct t_sent *request = t_sent(&t, WIRE_TRANSFER_REQUEST, 0);
    assert_non_null(request);
    struct wire_transfer busy = {.type = WIRE_TRANSFER_BUSY, .of.piece = request->message.of.piece};
    busy.of.piece.flags = WIRE_PIECE_MISSING | WIRE_PIECE_UNKNOWN;
    t_clear(&t);
    t_receive(&t, 9, &busy);
    struct member lost = t_member(9);
    const struct t_sent *want = t_sent(&t, WIRE_TRANSFER_WANT, 0); /* at once, and says why */
    assert_non_null(want);
    assert_int_equal(want->message.of.lease.flags, WIRE_LEASE_AVOID | WIRE_LEASE_CONTACT);
    assert_true(node_id_equal(&want->message.of.lease.contact.id, &lost.id));
    t_clear(&t);
    t_refer(&t, asked, WIRE_LEVEL_ZONE, 9);
    assert_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 0));
    assert_non_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    t_clear(&t);
    t_refer(&t, asked, WIRE_LEVEL_HOME, 9); /* the home keeper, too: the zone's lease is ours now */
    want = t_sent(&t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    assert_int_equal(want->message.of.lease.level, WIRE_LEVEL_HOME);
    t_close(&t);
}

/* How long a holder says it is busy is its word alone: the keeper is asked again soon. */
static void test_a_busy_holder_holds_nobody_up(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    t_refer(&t, keeper(&t), WIRE_LEVEL_ZONE, 9);
    t_session(&t, 9);
    const struct t_sent *request = t_sent(&t, WIRE_TRANSFER_REQUEST, 0);
    assert_non_null(request);
    struct wire_transfer busy = {.type = WIRE_TRANSFER_BUSY, .of.piece = request->message.of.piece};
    busy.of.piece.flags = 0;
    busy.of.piece.wait_us = WIRE_WAIT_US_MAX;
    t_clear(&t);
    t_receive(&t, 9, &busy);
    assert_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    t_wait(&t, 1500 * T_MS);
    const struct t_sent *want = t_sent(&t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    assert_int_equal(want->message.of.lease.flags & WIRE_LEASE_AVOID, 0); /* busy is no fault */
    t_close(&t);
}

/* Another zone's importer may ask ahead for what is being read here; it waits, and is told when it
 * will not come. */
static void test_a_lessee_is_asked_ahead(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    t_lease(&t, keeper(&t), WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    struct member importer = t_member(30);
    struct wire_transfer ask = {.type = WIRE_TRANSFER_REQUEST};
    ask.of.piece = (struct wire_piece){
        .blob = t.info.key, .serial = 5, .flags = WIRE_PIECE_IMPORT | WIRE_PIECE_LEASE};
    digest_proof(&t.info.digest, &importer.id, &t.self.id, ask.of.piece.proof);
    t_session(&t, 30);
    t_receive(&t, 30, &ask);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_QUEUED, 0));
    assert_null(t_result(&t, TRANSFER_UPLOAD, 0));
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0);
    assert_non_null(t_result(&t, TRANSFER_UPLOAD, 0));
    t_close(&t);

    asking(&t);
    t_lease(&t, keeper(&t), WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    uint64_t fetch_id = t_result(&t, TRANSFER_FETCH, 0)->id;
    ask.of.piece.blob = t.info.key;
    t_session(&t, 30);
    t_receive(&t, 30, &ask);
    ask.of.piece.flags = WIRE_PIECE_IMPORT; /* who is not importing for a zone does not wait */
    ask.of.piece.serial = 6;
    t_clear(&t);
    t_receive(&t, 30, &ask);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_BUSY, 0));
    t_clear(&t);
    transfer_fetch_end(t.core, t.now_us, fetch_id, E_DENIED, 0);
    t_wait(&t, 200 * T_MS);
    const struct t_sent *busy = t_sent(&t, WIRE_TRANSFER_BUSY, 0);
    assert_non_null(busy);
    assert_int_equal(busy->message.of.piece.serial, 5);
    assert_true((busy->message.of.piece.flags & WIRE_PIECE_MISSING) != 0);
    t_close(&t);
}

/* Requirement (g): refused credentials hand leases back and ask for none; peers still give. */
static void test_refused_credentials(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t asked = keeper(&t);
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    uint64_t id = t_result(&t, TRANSFER_FETCH, 0)->id;
    t_clear(&t);
    transfer_fetch_end(t.core, t.now_us, id, E_DENIED, 0);
    t_drain(&t);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_RETURN, 0));
    t_clear(&t);
    t_wait(&t, 3 * T_S);
    assert_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    assert_null(t_result(&t, TRANSFER_PIECE_FAILED, 0));
    t_hello(&t, 3, true, WIRE_HAVE_COMPLETE, 1);
    t_session(&t, 3);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 0));
    t_close(&t);
}

static void test_a_grant_nobody_waits_for_is_returned(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t asked = keeper(&t);
    t_piece(&t, 0, PIECE_FROM_CACHE, 0, 0); /* it turned up here */
    t_clear(&t);
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    assert_non_null(t_sent(&t, WIRE_TRANSFER_RETURN, 0));
    t_close(&t);
}

/* Requirement (h): holders named by the DHT are asked, not the origin. */
static void test_providers_come_before_the_origin(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 40, T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    uint32_t asked = keeper(&t);
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    assert_null(t_result(&t, TRANSFER_FETCH, 0)); /* the DHT has not spoken */
    struct member member = t_member(5);
    struct transfer_provider provider = {.id = member.id, .addr = member.addr, .completeness = 255};
    transfer_providers(t.core, t.now_us, &t.info.key, &provider, 1);
    t_drain(&t);
    assert_null(t_result(&t, TRANSFER_FETCH, 0)); /* its HELLO is out */
    t_hello(&t, 5, true, WIRE_HAVE_REPLY | WIRE_HAVE_COMPLETE, 1);
    t_session(&t, 5);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_REQUEST, 0));
    assert_non_null(t_sent(&t, WIRE_TRANSFER_RETURN, 0));
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_close(&t);
}

/* ---- the keeper's side: a mesh of three, so that this node is a keeper of everything ---- */

static void want(struct t_host *t, uint32_t from, uint32_t avoid)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_WANT};
    message.of.lease = (struct wire_lease){.blob = t->info.key};
    if (avoid != 0) {
        struct member bad = t_member(avoid);
        message.of.lease.flags = WIRE_LEASE_AVOID | WIRE_LEASE_CONTACT;
        message.of.lease.contact = (struct wire_contact){.id = bad.id, .addr = bad.addr};
    }
    t_clear(t);
    t_receive(t, from, &message);
}

static void hold(struct t_host *t, uint32_t from)
{
    t_lease(t, from, WIRE_TRANSFER_HOLD, WIRE_LEVEL_ZONE, 0);
}

/* Message of a type sent to a node since the last want; NULL if none. */
static const struct wire_lease *to(const struct t_host *t, unsigned type, uint32_t node)
{
    for (unsigned i = 0; i < t->sent_count; i++) {
        if (t->sent[i].message.type == type && t->sent[i].to == node)
            return &t->sent[i].message.of.lease;
    }
    return NULL;
}

/* Whoever decides at home may be another node: a lease at all is what counts here. */
static bool granted(const struct t_host *t, uint32_t node)
{
    return to(t, WIRE_TRANSFER_GRANT, node) != NULL;
}

static void test_keeper_grants_one(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    assert_true(granted(&t, 1));
    uint32_t epoch = to(&t, WIRE_TRANSFER_GRANT, 1)->zone_epoch;
    want(&t, 1, 0); /* the same question, the same answer */
    assert_true(granted(&t, 1));
    assert_int_equal(to(&t, WIRE_TRANSFER_GRANT, 1)->zone_epoch, epoch);
    want(&t, 2, 0);
    assert_false(granted(&t, 2));
    const struct wire_lease *pending = to(&t, WIRE_TRANSFER_PENDING, 2);
    struct member lessee = t_member(1);
    assert_non_null(pending);
    assert_true(node_id_equal(&pending->contact.id, &lessee.id));
    t_close(&t);
}

static void test_keeper_refers_and_notifies(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    want(&t, 2, 0);
    t_clear(&t);
    hold(&t, 1);
    assert_non_null(to(&t, WIRE_TRANSFER_HELD, 1));
    const struct wire_lease *refer = to(&t, WIRE_TRANSFER_REFER, 2); /* who waited is told */
    struct member holder = t_member(1);
    assert_non_null(refer);
    assert_true(node_id_equal(&refer->contact.id, &holder.id));
    hold(&t, 1); /* a lost HELD: again */
    want(&t, 2, 0);
    assert_non_null(to(&t, WIRE_TRANSFER_REFER, 2));
    want(&t, 2, 0);
    want(&t, 2, 0); /* a holder is referred to twice a second at most */
    assert_null(to(&t, WIRE_TRANSFER_REFER, 2));
    assert_non_null(to(&t, WIRE_TRANSFER_PENDING, 2));
    want(&t, 2, 1); /* it did not deliver: another copy is due */
    assert_true(granted(&t, 2));
    t_close(&t);
}

/* Rule 6: a lessee that renews keeps its lease, a silent one loses it after a second. */
static void test_keeper_gives_a_silent_lessee_up(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    uint32_t epoch = to(&t, WIRE_TRANSFER_GRANT, 1)->zone_epoch;
    struct wire_transfer renew = {.type = WIRE_TRANSFER_RENEW};
    renew.of.renew = (struct wire_renew){.blob = t.info.key, .count = 1};
    renew.of.renew.renewals[0] = (struct wire_renewal){.epoch = epoch};
    for (uint32_t i = 0; i < 4; i++) {
        t_wait(&t, 500 * T_MS);
        renew.of.renew.renewals[0].bytes = i;
        t_receive(&t, 1, &renew);
    }
    want(&t, 2, 0);
    assert_false(granted(&t, 2));
    t_wait(&t, 1100 * T_MS);
    want(&t, 2, 0);
    assert_true(granted(&t, 2));
    assert_true(to(&t, WIRE_TRANSFER_GRANT, 2)->zone_epoch > epoch);
    t_clear(&t);
    hold(&t, 1); /* it had it after all: a holder like any other */
    want(&t, 2, 0);
    assert_non_null(to(&t, WIRE_TRANSFER_REFER, 2));
    t_close(&t);
}

/* Nobody listens at its address any more. */
static void refuse(struct t_host *t, uint32_t node)
{
    struct member member = t_member(node);
    transfer_session_down(t->core, t->now_us, &member.id, E_REFUSED);
    t_drain(t);
}

static void test_keeper_gives_a_refused_lessee_up_at_once(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    want(&t, 2, 0);
    assert_false(granted(&t, 2));
    refuse(&t, 1);
    want(&t, 2, 0);
    assert_true(granted(&t, 2));
    t_close(&t);
}

static void test_a_refused_keeper_is_passed_over_at_once(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t first = keeper(&t);
    t_clear(&t);
    t_wait(&t, 10 * T_MS);
    assert_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    refuse(&t, first);
    t_wait(&t, T_MS);
    assert_int_equal(wants(&t, first), 0);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_WANT, 0)); /* asked of the next one */
    t_close(&t);
}

/* Rule 7: alive, but without a byte for long. */
static void test_keeper_gives_a_stuck_lessee_up(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    struct wire_transfer renew = {.type = WIRE_TRANSFER_RENEW};
    renew.of.renew = (struct wire_renew){.blob = t.info.key, .count = 1};
    renew.of.renew.renewals[0].epoch = to(&t, WIRE_TRANSFER_GRANT, 1)->zone_epoch;
    for (uint32_t i = 0; i < 15; i++) {
        t_wait(&t, 500 * T_MS);
        t_receive(&t, 1, &renew);
    }
    want(&t, 2, 0);
    assert_true(granted(&t, 2));
    t_close(&t);
}

static void test_keeper_passes_a_returned_lease_on(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    t_lease(&t, 2, WIRE_TRANSFER_RETURN, WIRE_LEVEL_ZONE, 0); /* not its to give back */
    want(&t, 2, 0);
    assert_false(granted(&t, 2));
    t_lease(&t, 1, WIRE_TRANSFER_RETURN, WIRE_LEVEL_ZONE, 0);
    want(&t, 2, 0);
    assert_true(granted(&t, 2));
    t_lease(&t, 2, WIRE_TRANSFER_RETURN, WIRE_LEVEL_ZONE, 2000); /* the origin wants a rest */
    want(&t, 1, 0);
    assert_false(granted(&t, 1));
    assert_true(to(&t, WIRE_TRANSFER_PENDING, 1)->arg >= 2000);
    t_wait(&t, 2100 * T_MS);
    want(&t, 1, 0);
    assert_true(granted(&t, 1));
    t_close(&t);
}

/* Datagrams overtake one another: a RENEW that comes after the RETURN brings nothing back. Nobody
 * would read the segment until the keeper thinks its lessee dead. */
static void test_a_returned_lease_stays_returned(void **state)
{
    (void)state;
    for (unsigned level = WIRE_LEVEL_ZONE; level <= WIRE_LEVEL_HOME; level++) {
        struct t_host t;
        t_open(&t, 2, T_PIECE);
        struct wire_transfer ask = {.type = WIRE_TRANSFER_WANT};
        ask.of.lease = (struct wire_lease){.blob = t.info.key, .level = (uint8_t)level};
        t_receive(&t, 1, &ask);
        assert_true(granted(&t, 1));
        const struct wire_lease *grant = to(&t, WIRE_TRANSFER_GRANT, 1);
        struct wire_transfer renew = {.type = WIRE_TRANSFER_RENEW};
        renew.of.renew = (struct wire_renew){
            .blob = t.info.key, .level = (uint8_t)level, .zone = ask.of.lease.zone, .count = 1};
        renew.of.renew.renewals[0].epoch =
            level == WIRE_LEVEL_ZONE ? grant->zone_epoch : grant->epoch;
        t_lease(&t, 1, WIRE_TRANSFER_RETURN, (uint8_t)level, 0);
        t_receive(&t, 1, &renew);
        t_clear(&t);
        t_receive(&t, 2, &ask);
        assert_true(granted(&t, 2));
        t_close(&t);
    }
}

/* A keeper that lost its state knows from its own swarm who has the segment. */
static void test_keeper_knows_its_neighbours(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    (void)t_read(&t, TRANSFER_READ_PREFETCH, false);
    t_hello(&t, 1, true, WIRE_HAVE_COMPLETE, 1);
    want(&t, 2, 0);
    assert_false(granted(&t, 2));
    const struct wire_lease *refer = to(&t, WIRE_TRANSFER_REFER, 2);
    struct member holder = t_member(1);
    assert_non_null(refer);
    assert_true(node_id_equal(&refer->contact.id, &holder.id));
    t_close(&t);
}

static void test_keeper_forgets_the_dead(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    struct member dead = t_member(1);
    transfer_member_down(t.core, t.now_us, &dead.id);
    t_drain(&t);
    want(&t, 2, 0);
    assert_true(granted(&t, 2));
    t_close(&t);
}

static void member_leaves(struct t_host *t, uint32_t node)
{
    struct member member = t_member(node);
    member.state = MEMBER_LEAVING;
    assert_int_equal(transfer_member_up(t->core, t->now_us, &member), 0);
    t_drain(t);
}

/* Its RETURN may be lost: that it leaves says the same. */
static void test_keeper_frees_what_a_leaving_node_had(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    want(&t, 2, 0);
    assert_false(granted(&t, 2));
    member_leaves(&t, 1);
    t_clear(&t);
    want(&t, 2, 0);
    assert_true(granted(&t, 2));
    t_close(&t);
}

static void test_drain_hands_leases_back(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t asked = keeper(&t);
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    assert_non_null(t_result(&t, TRANSFER_FETCH, 0));
    t_clear(&t);
    transfer_drain(t.core, t.now_us);
    t_drain(&t);
    assert_non_null(to(&t, WIRE_TRANSFER_RETURN, asked));
    assert_null(t_result(&t, TRANSFER_FETCH_CANCEL, 0)); /* a client of ours waits for it */
    t_clear(&t);
    t_wait(&t, 600 * T_MS);
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0);
    t_wait(&t, 300 * T_MS);
    assert_null(t_sent(&t, WIRE_TRANSFER_RENEW, 0));
    assert_null(t_sent(&t, WIRE_TRANSFER_HOLD, 0));
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000); /* late, and of no use */
    assert_non_null(to(&t, WIRE_TRANSFER_RETURN, asked));
    t_close(&t);
}

/* What is held and not yet acknowledged, too: nobody is to be referred to us. */
static void test_drain_takes_back_what_was_not_heard(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t asked = keeper(&t);
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0);
    t_lease(&t, asked, WIRE_TRANSFER_HELD, WIRE_LEVEL_ZONE, 0);
    t_clear(&t);
    transfer_drain(t.core, t.now_us);
    t_drain(&t);
    const struct wire_lease *back = to(&t, WIRE_TRANSFER_RETURN, asked);
    assert_non_null(back);
    assert_int_equal(back->level, WIRE_LEVEL_HOME);
    assert_null(t_sent(&t, WIRE_TRANSFER_RETURN, 1));
    t_clear(&t);
    t_wait(&t, 600 * T_MS);
    assert_null(t_sent(&t, WIRE_TRANSFER_HOLD, 0));
    t_close(&t);
}

static void test_drain_ends_what_no_client_waits_for(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 40, T_PIECE);
    uint64_t reader = t_read(&t, TRANSFER_READ_STREAM, true);
    transfer_providers(t.core, t.now_us, &t.info.key, NULL, 0);
    t_lease(&t, keeper(&t), WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    assert_non_null(t_result(&t, TRANSFER_FETCH, 0));
    transfer_read_stop(t.core, t.now_us, reader);
    t_clear(&t);
    transfer_drain(t.core, t.now_us);
    t_drain(&t);
    assert_non_null(t_result(&t, TRANSFER_FETCH_CANCEL, 0));
    t_close(&t);
}

/* A client of a node that leaves gets its rest though nobody grants leases any more. */
static void test_a_leaving_node_reads_for_its_clients(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 40, 64 * T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    transfer_providers(t.core, t.now_us, &t.info.key, NULL, 0);
    t_clear(&t);
    transfer_drain(t.core, t.now_us);
    t_wait(&t, 300 * T_MS);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    assert_int_equal(fetch->reason, FETCH_ALONE);
    assert_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    t_close(&t);
}

/* Who takes the place of a keeper that leaves hears at once that the lease lives, or would grant it
 * once more. */
static void test_a_keepers_successor_hears_of_its_leases(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t asked = keeper(&t);
    t_lease(&t, asked, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    t_clear(&t);
    member_leaves(&t, asked);
    t_wait(&t, 20 * T_MS);
    const struct t_sent *renew = t_sent(&t, WIRE_TRANSFER_RENEW, 0);
    assert_non_null(renew);
    assert_int_not_equal(renew->to, asked);
    assert_int_equal(renew->message.of.renew.renewals[0].epoch, 1);
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0);
    assert_non_null(to(&t, WIRE_TRANSFER_HOLD, renew->to));
    t_close(&t);
}

/* A question to a keeper that leaves goes to the next one without waiting for the first's silence.
 */
static void test_a_leaving_keeper_is_passed_over_at_once(void **state)
{
    (void)state;
    struct t_host t;
    asking(&t);
    uint32_t first = keeper(&t);
    t_clear(&t);
    member_leaves(&t, first);
    t_wait(&t, 20 * T_MS);
    assert_int_equal(wants(&t, first), 0);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_WANT, 0));
    t_close(&t);
}

static void test_ranks_two_and_three_know(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, T_PIECE);
    want(&t, 1, 0);
    const struct wire_lease *replica = to(&t, WIRE_TRANSFER_REPLICA, 2);
    assert_non_null(replica);
    struct wire_transfer message = {.type = WIRE_TRANSFER_REPLICA, .of.lease = *replica};
    t_close(&t);
    t_open(&t, 2, T_PIECE); /* the same mesh, another of its keepers */
    t_receive(&t, 1, &message);
    want(&t, 2, 0);
    assert_false(granted(&t, 2));
    assert_non_null(to(&t, WIRE_TRANSFER_PENDING, 2));
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves_between_states),
        cmocka_unit_test(test_grant_leads_to_a_read),
        cmocka_unit_test(test_want_is_repeated_then_goes_to_the_next_keeper),
        cmocka_unit_test(test_nobody_answers),
        cmocka_unit_test(test_a_silent_mesh_is_waited_for_once),
        cmocka_unit_test(test_pending_is_asked_again),
        cmocka_unit_test(test_import_from_another_zone),
        cmocka_unit_test(test_an_import_that_fails),
        cmocka_unit_test(test_a_useless_referral_is_refused),
        cmocka_unit_test(test_a_lessee_is_asked_ahead),
        cmocka_unit_test(test_a_busy_holder_holds_nobody_up),
        cmocka_unit_test(test_refused_credentials),
        cmocka_unit_test(test_a_grant_nobody_waits_for_is_returned),
        cmocka_unit_test(test_providers_come_before_the_origin),
        cmocka_unit_test(test_keeper_grants_one),
        cmocka_unit_test(test_keeper_refers_and_notifies),
        cmocka_unit_test(test_keeper_gives_a_silent_lessee_up),
        cmocka_unit_test(test_keeper_gives_a_refused_lessee_up_at_once),
        cmocka_unit_test(test_a_refused_keeper_is_passed_over_at_once),
        cmocka_unit_test(test_keeper_gives_a_stuck_lessee_up),
        cmocka_unit_test(test_keeper_passes_a_returned_lease_on),
        cmocka_unit_test(test_a_returned_lease_stays_returned),
        cmocka_unit_test(test_keeper_knows_its_neighbours),
        cmocka_unit_test(test_keeper_forgets_the_dead),
        cmocka_unit_test(test_keeper_frees_what_a_leaving_node_had),
        cmocka_unit_test(test_drain_hands_leases_back),
        cmocka_unit_test(test_drain_takes_back_what_was_not_heard),
        cmocka_unit_test(test_drain_ends_what_no_client_waits_for),
        cmocka_unit_test(test_a_leaving_node_reads_for_its_clients),
        cmocka_unit_test(test_a_keepers_successor_hears_of_its_leases),
        cmocka_unit_test(test_a_leaving_keeper_is_passed_over_at_once),
        cmocka_unit_test(test_ranks_two_and_three_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
