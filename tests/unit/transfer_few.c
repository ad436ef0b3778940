/* SPDX-License-Identifier: Apache-2.0 */
/* What a node of a small mesh does so that nobody is slower than without one: src/transfer/room.c,
 * spare.c, and how much is asked of a single neighbour. */
#include "transfer_host.h"

#include "../../src/transfer/lease.h"

#define BYTES (8 * (uint64_t)T_MIB)
/* 1 Gbit/s. */
#define RATE 125000000u

static unsigned requests_to(const struct t_host *t, uint32_t peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->sent_count; i++)
        count += t->sent[i].message.type == WIRE_TRANSFER_REQUEST && t->sent[i].to == peer;
    return count;
}

static unsigned spares(const struct t_host *t)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->result_count; i++)
        count += t->results[i].kind == TRANSFER_FETCH && t->results[i].reason == FETCH_SPARE;
    return count;
}

/* As much as fills the link until it is known, where few wait for it; else one at first. */
static void test_leases_as_the_link_has_room(void **state)
{
    (void)state;
    static const struct {
        uint32_t others, leases;
    } cases[] = {{1, 2}, {MESH_FEW_MEMBERS - 1, 2}, {MESH_FEW_MEMBERS, 1}, {40, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct t_host t;
        t_open(&t, cases[i].others, BYTES);
        (void)t_read(&t, TRANSFER_READ_STREAM, true);
        assert_int_equal(transfer__is_few(t.core), cases[i].others < MESH_FEW_MEMBERS);
        assert_int_equal(t.core->lease_count, cases[i].leases);
        t_close(&t);
    }
}

/* What comes soon by how each source goes on, against what the link carried. */
static void test_room(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, BYTES);
    assert_true(transfer__has_room(t.core));
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    assert_false(transfer__has_room(t.core)); /* two segments are asked for */
    t.core->rate.best = 4 * (uint64_t)RATE;   /* 12 MiB in 25 ms */
    assert_true(transfer__has_room(t.core));
    t_close(&t);
    /* A read alone: little of it comes soon if it is slow. */
    t_open(&t, 0, 4 * (uint64_t)T_MIB);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    t.core->rate.best = RATE;
    assert_int_equal(fetch->piece_count * T_PIECE, 4 * T_MIB);
    assert_false(transfer__has_room(t.core));
    t.now_us += 100 * T_MS;
    transfer_fetch_progress(t.core, t.now_us, fetch->id, T_MIB);
    assert_true(transfer__has_room(t.core));
    t_close(&t);
}

/* A keeper refers to the same holder segment after segment: it is asked for no more than it takes,
 * or it would refuse, and be left alone for a while. */
static void test_no_more_is_asked_of_a_holder_than_it_takes(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 40, BYTES);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    t_session(&t, 9);
    struct member holder = t_member(9);
    struct wire_transfer refer = {.type = WIRE_TRANSFER_REFER};
    refer.of.lease = (struct wire_lease){.blob = t.info.key,
                                         .flags = WIRE_LEASE_CONTACT,
                                         .contact = {.id = holder.id, .addr = holder.addr}};
    for (uint32_t segment = 0; segment < 8; segment++) {
        refer.of.lease.segment = segment;
        t_receive(&t, 1, &refer);
    }
    assert_true(requests_to(&t, 9) > 0);
    assert_true(requests_to(&t, 9) <= UPLOADS_PER_PEER);
    t_close(&t);
}

/* One neighbour alone is asked for what keeps a link busy before any rate is known; of many each
 * for little. */
static void test_first_requests_to_few(void **state)
{
    (void)state;
    static const struct {
        uint32_t neighbours, most;
    } cases[] = {{1, 8}, {2, 4}, {3, 2}, {4, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct t_host t;
        t_open(&t, 4, BYTES);
        (void)t_read(&t, TRANSFER_READ_STREAM, true);
        for (uint32_t peer = 1; peer <= cases[i].neighbours; peer++)
            t_hello(&t, peer, true, WIRE_HAVE_WANTS, 0);
        struct blob *blob = transfer__blob(t.core, t.blob);
        while (blob->swarm->neighbour_count > cases[i].neighbours)
            transfer__neighbour_remove(t.core, blob, blob->swarm->neighbours[0].node);
        assert_int_equal(transfer__neighbour_requests_max(t.core, blob), cases[i].most);
        t_close(&t);
    }
}

/* A pull that gets nothing for 200 ms, though its link is known and a neighbour has all of it. */
static void starve_as(struct t_host *t, uint32_t others, enum transfer_read_mode mode)
{
    t_open(t, others, BYTES);
    t->core->rate.best = RATE;
    (void)t_read(t, mode, true);
    transfer_providers(t->core, t->now_us, &t->info.key, NULL, 0);
    t_drain(t);
    t_hello(t, 1, true, WIRE_HAVE_WANTS, 0);
    t_hello(t, 2, true, WIRE_HAVE_COMPLETE, t_pieces(t));
    t_session(t, 2);
    t_clear(t);
}

static void starve(struct t_host *t, uint32_t others)
{
    starve_as(t, others, TRANSFER_READ_STREAM);
}

static void test_who_falls_behind_reads_itself(void **state)
{
    (void)state;
    struct t_host t;
    starve(&t, 3);
    t_wait(&t, 20 * T_MS);
    assert_int_equal(spares(&t), 0); /* no origin would have been sooner */
    t_wait(&t, 180 * T_MS);
    assert_in_range(spares(&t), 1, 2); /* at most a quarter of the blob, one of four nodes */
    const struct transfer_result *fetch = NULL;
    for (unsigned i = 0; i < t.result_count && fetch == NULL; i++)
        fetch = t.results[i].reason == FETCH_SPARE ? &t.results[i] : NULL;
    assert_non_null(fetch);
    assert_int_equal(fetch->piece_count, t_segment_pieces(&t));
    for (uint32_t i = 0; i < t.core->request_count; i++) /* it is not asked for any more */
        assert_true(t.core->requests[i].piece < fetch->piece ||
                    t.core->requests[i].piece >= fetch->piece + fetch->piece_count);
    /* The origin lets it wait: others are asked again. */
    uint64_t id = fetch->id;
    t_wait(&t, 1 * T_S);
    bool cancelled = false;
    for (unsigned i = 0; i < t.result_count; i++)
        cancelled =
            cancelled || (t.results[i].kind == TRANSFER_FETCH_CANCEL && t.results[i].id == id);
    assert_true(cancelled);
    t_close(&t);
}

static void test_who_does_not_read_itself(void **state)
{
    (void)state;
    struct t_host t;
    starve(&t, MESH_FEW_MEMBERS); /* of many */
    t_wait(&t, 200 * T_MS);
    assert_int_equal(spares(&t), 0);
    t_close(&t);
    starve(&t, 3); /* peers are far */
    t.core->answer_us = 100 * T_MS;
    t_wait(&t, 200 * T_MS);
    assert_int_equal(spares(&t), 0);
    t_close(&t);
    starve(&t, 3); /* the origin is slower than peers */
    struct swarm *swarm = transfer__blob(t.core, t.blob)->swarm;
    swarm->piece_us = 1 * T_MS;
    swarm->read_us = 100 * T_MS;
    t_wait(&t, 200 * T_MS);
    assert_int_equal(spares(&t), 0);
    t_close(&t);
    starve(&t, 3); /* nothing is known of the own link */
    t.core->rate.best = 0;
    t_wait(&t, 200 * T_MS);
    assert_int_equal(spares(&t), 0);
    t_close(&t);
    starve_as(&t, 3, TRANSFER_READ_RANGE); /* a client that reads here and there */
    t_wait(&t, 200 * T_MS);
    assert_int_equal(spares(&t), 0);
    t_close(&t);
    starve(&t, 3); /* the link is full */
    for (unsigned i = 0; i < 200; i++) {
        t_wait(&t, 1 * T_MS);
        transfer__rate_add(t.core, RATE / 1000);
    }
    assert_int_equal(spares(&t), 0);
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leases_as_the_link_has_room),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_no_more_is_asked_of_a_holder_than_it_takes),
        cmocka_unit_test(test_first_requests_to_few),
        cmocka_unit_test(test_who_falls_behind_reads_itself),
        cmocka_unit_test(test_who_does_not_read_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
