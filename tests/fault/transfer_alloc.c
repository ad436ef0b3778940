/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A little life of one transfer core as reader, keeper and holder, again and again, failing the
 * first, second, ... allocation, once and from then on, until it needs no more: no leak, no assert,
 * invariants hold, and with memory again a reader gets its pieces (D-9).
 */
#include "../unit/transfer_host.h"

#include <stdio.h>

#include "../../src/transfer/core.h"

#define PEERS      5
#define BLOB_BYTES (3 * (uint64_t)T_MIB) /* three segments */
#define PIECES     ((uint32_t)(BLOB_BYTES / T_PIECE))

struct life {
    struct t_host t; /* first: t_host's functions get the same pointer */
    size_t calls, fail_at;
    bool fail_on;
};

static void *failing_alloc(void *host, void *old, size_t new_bytes)
{
    struct life *life = host;
    if (new_bytes > 0) {
        life->calls++;
        if (life->calls == life->fail_at || (life->fail_on && life->calls > life->fail_at))
            return NULL;
    }
    return t_alloc(&life->t, old, new_bytes);
}

static void expect_one_of(int err)
{
    assert_true(err == 0 || err == E_NO_MEMORY || err == E_FULL || err == E_EXISTS ||
                err == E_NOT_FOUND);
}

/* Like t_receive, but the core may be out of memory. */
static void receive(struct t_host *t, uint32_t from, const struct wire_transfer *message)
{
    uint8_t bytes[MESSAGE_BYTES_MAX];
    size_t used;
    struct member member = t_member(from);
    assert_int_equal(wire_transfer_encode(message, bytes, sizeof bytes, &used), 0);
    expect_one_of(transfer_receive(t->core, t->now_us, &member.id, &member.addr, bytes, used));
    transfer__check_invariants(t->core);
}

static void hello(struct t_host *t, uint32_t from, uint32_t pieces)
{
    struct member member = t_member(from);
    struct wire_transfer message = {.type = WIRE_TRANSFER_HELLO};
    struct wire_have *have = &message.of.have;
    have->blob = t->info.key;
    have->flags = WIRE_HAVE_WANTS;
    have->sequence = from;
    have->page_bytes = (PIECES + 7) / 8;
    digest_proof(&t->info.digest, &member.id, &t->self.id, have->proof);
    for (uint32_t i = 0; i < pieces; i++)
        have->have[i / 8] |= (uint8_t)(0x80u >> (i % 8));
    receive(t, from, &message);
}

static void lease(struct t_host *t, uint32_t from, unsigned type, uint8_t level, uint32_t segment,
                  uint32_t holder)
{
    struct wire_transfer message = {.type = type};
    message.of.lease = (struct wire_lease){
        .blob = t->info.key, .segment = segment, .level = level, .epoch = 1, .zone_epoch = 1};
    if (holder != 0) {
        struct member member = t_member(holder);
        message.of.lease.flags = WIRE_LEASE_CONTACT;
        message.of.lease.contact = (struct wire_contact){.id = member.id, .addr = member.addr};
    }
    receive(t, from, &message);
}

static void request(struct t_host *t, uint32_t from, uint32_t piece)
{
    struct member member = t_member(from);
    struct wire_transfer message = {.type = WIRE_TRANSFER_REQUEST};
    message.of.piece = (struct wire_piece){
        .blob = t->info.key, .piece = piece, .serial = piece + 1, .flags = WIRE_PIECE_IMPORT};
    digest_proof(&t->info.digest, &member.id, &t->self.id, message.of.piece.proof);
    receive(t, from, &message);
}

static void done(struct t_host *t, uint32_t piece, struct piece_source source)
{
    transfer_piece_done(t->core, t->now_us, t->blob, piece, &source, 0);
}

static void fetch(struct t_host *t, const struct transfer_result *result)
{
    for (uint32_t i = 0; i < result->piece_count; i++)
        done(t, result->piece + i,
             (struct piece_source){.origin = PIECE_FROM_ORIGIN, .fetch_id = result->id});
    transfer_fetch_end(t->core, t->now_us, result->id, 0, 0);
}

/* The host does what it is asked. */
static void serve(struct t_host *t)
{
    struct transfer_result result;
    while (transfer_next_result(t->core, &result)) {
        if (result.kind == TRANSFER_CONNECT)
            transfer_session_up(t->core, t->now_us, &result.peer);
        else if (result.kind == TRANSFER_UPLOAD || result.kind == TRANSFER_UPLOAD_CANCEL)
            transfer_upload_end(t->core, t->now_us, result.id, T_PIECE, 0);
        else if (result.kind == TRANSFER_FETCH)
            fetch(t, &result);
        else if (result.kind == TRANSFER_LOCATE)
            transfer_providers(t->core, t->now_us, &result.key, NULL, 0);
        transfer__check_invariants(t->core);
    }
}

/* Requests are answered with the piece, all other messages by nobody. */
static void answer(struct t_host *t)
{
    for (unsigned i = 0; i < t->sent_count; i++) {
        const struct t_sent *sent = &t->sent[i];
        if (sent->message.type == WIRE_TRANSFER_REQUEST)
            done(t, sent->message.of.piece.piece,
                 (struct piece_source){.origin = PIECE_FROM_PEER, .peer = t_member(sent->to).id});
    }
    t->sent_count = 0;
}

static void pass(struct t_host *t, uint64_t span_us)
{
    uint64_t end_us = t->now_us + span_us;
    for (unsigned turns = 0; turns < 400 && transfer_deadline_us(t->core) <= end_us; turns++) {
        uint64_t due_us = transfer_deadline_us(t->core);
        t->now_us = due_us > t->now_us + 100 ? due_us : t->now_us + 100;
        transfer_advance(t->core, t->now_us);
        answer(t);
        serve(t);
    }
    t->now_us = end_us > t->now_us ? end_us : t->now_us;
}

/* True if the blob could be opened and read at all. */
static bool live(struct life *life)
{
    struct t_host *t = &life->t;
    uint64_t reader = 0;
    for (uint32_t i = 1; i <= PEERS; i++) {
        struct member member = t_member(i);
        expect_one_of(transfer_member_up(t->core, t->now_us, &member));
    }
    int err = transfer_blob_open(t->core, t->now_us, &t->info, NULL, &t->blob);
    expect_one_of(err);
    if (err != 0)
        return false;
    err = transfer_read_start(t->core, t->now_us, t->blob, 0, PIECES, TRANSFER_READ_STREAM, true,
                              &reader);
    expect_one_of(err);
    serve(t);
    for (uint32_t i = 1; i <= 3; i++)
        hello(t, i, PIECES / 6 * i);
    for (uint32_t segment = 0; segment < 3; segment++) {
        lease(t, 4, WIRE_TRANSFER_WANT, WIRE_LEVEL_ZONE, segment, 0);
        lease(t, 5, WIRE_TRANSFER_WANT, WIRE_LEVEL_HOME, segment, 0);
        lease(t, 4, WIRE_TRANSFER_HOLD, WIRE_LEVEL_ZONE, segment, 0);
        lease(t, 4, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, segment, 0);
        lease(t, 5, WIRE_TRANSFER_REFER, WIRE_LEVEL_ZONE, segment, 4);
    }
    pass(t, 3 * T_S);
    request(t, 4, 0);
    request(t, 5, 1);
    pass(t, 1 * T_S);
    struct member gone = t_member(2);
    transfer_member_down(t->core, t->now_us, &gone.id);
    transfer_piece_lost(t->core, t->now_us, t->blob, 3);
    pass(t, 20 * T_S);
    if (err == 0)
        transfer_read_stop(t->core, t->now_us, reader);
    return err == 0;
}

/* Memory is back: a reader gets everything. */
static void recover(struct life *life)
{
    struct t_host *t = &life->t;
    uint64_t reader;
    life->fail_on = false;
    life->fail_at = 0;
    assert_int_equal(transfer_read_start(t->core, t->now_us, t->blob, 0, PIECES,
                                         TRANSFER_READ_STREAM, true, &reader),
                     0);
    serve(t);
    pass(t, 60 * T_S);
    assert_true(bitfield_full(transfer_blob_have(t->core, t->blob)));
    transfer_read_stop(t->core, t->now_us, reader);
}

static void start(struct life *life, size_t fail_at, bool fail_on)
{
    struct t_host *t = &life->t;
    uint8_t lookup[32] = {3};
    *life = (struct life){.fail_at = fail_at, .fail_on = fail_on};
    t->now_us = 1000 * (uint64_t)T_S;
    t->self = t_member(0);
    t->env = (struct env){
        .host = t, .send = t_send, .random = t_random, .alloc = failing_alloc, .trace = t_trace};
    prng_seed(&t->prng, (const uint8_t *)"fault", 5);
    t->info.size_bytes = BLOB_BYTES;
    digest_of(DIGEST_SHA256, "blob", 4, &t->info.digest);
    blob_key_of(lookup, &t->info.digest, &t->info.key);
}

static void sweep(bool fail_on)
{
    static struct life life;
    size_t fail_at = 0, calls, recovered = 0;
    do {
        start(&life, ++fail_at, fail_on);
        struct transfer_config config = {.self_id = life.t.self.id, .self_addr = life.t.self.addr};
        int err = transfer_new(&life.t.env, &config, life.t.now_us, &life.t.core);
        assert_true(err == 0 || err == E_NO_MEMORY);
        if (err == 0 && live(&life)) {
            recover(&life);
            recovered++;
        }
        calls = life.calls;
        if (err == 0)
            transfer_free(life.t.core);
        assert_int_equal(life.t.allocated, 0);
    } while (calls >= fail_at && fail_at < 100000);
    printf("figure: transfer allocation failures swept=%zu, readers served after=%zu\n",
           fail_at - 1, recovered);
    assert_true(fail_at > 50 && recovered > 20);
}

static void any_single_allocation_may_fail_D_9(void **state)
{
    (void)state;
    sweep(false);
}

static void all_allocations_may_fail_from_any_point_D_9(void **state)
{
    (void)state;
    sweep(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_single_allocation_may_fail_D_9),
        cmocka_unit_test(all_allocations_may_fail_from_any_point_D_9),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
