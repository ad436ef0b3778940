/* SPDX-License-Identifier: Apache-2.0 */
/* The core's public calls: blobs, readers, what is asked of the host, what a peer is given and what
 * it is refused (ACL-9, INT-7, P-6, P-8), pieces that fail or get lost, drain. */
#include "transfer_host.h"

static void test_blob_calls(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 0, 3 * T_MIB);
    blob_handle again;
    assert_int_equal(transfer_blob_open(t.core, t.now_us, &t.info, NULL, &again), E_EXISTS);
    assert_true(again == t.blob);
    assert_true(transfer_blob_find(t.core, &t.info.key) == t.blob);
    struct blob_key other = {.bytes = {1}};
    assert_true(transfer_blob_find(t.core, &other) == 0);
    assert_int_equal(t_pieces(&t), 3 * T_MIB / T_PIECE);
    assert_null(transfer_blob_layout(t.core, t.blob + 7));
    assert_null(transfer_blob_have(t.core, t.blob + 7));
    struct blob_info huge = {.key = other, .size_bytes = BLOB_BYTES_MAX + 1};
    assert_int_equal(transfer_blob_open(t.core, t.now_us, &huge, NULL, &again), E_TOO_LARGE);
    struct bitfield have;
    assert_int_equal(bitfield_init(&have, &t.env, t_pieces(&t) / 2), 0);
    huge.size_bytes = 3 * T_MIB;
    assert_int_equal(transfer_blob_open(t.core, t.now_us, &huge, &have, &again), E_INVALID);
    bitfield_close(&have, &t.env);
    t_close(&t);
}

static void test_read_errors(void **state)
{
    (void)state;
    struct t_host t;
    uint64_t reader;
    t_open(&t, 0, 3 * T_MIB);
    assert_int_equal(
        transfer_read_start(t.core, t.now_us, 99, 0, 1, TRANSFER_READ_STREAM, true, &reader),
        E_NOT_FOUND);
    assert_int_equal(transfer_read_start(t.core, t.now_us, t.blob, t_pieces(&t) - 2, 3,
                                         TRANSFER_READ_STREAM, true, &reader),
                     E_INVALID);
    assert_int_equal(transfer_read_start(t.core, t.now_us, t.blob, 0, 1, (enum transfer_read_mode)9,
                                         true, &reader),
                     E_INVALID);
    transfer_read_move(t.core, t.now_us, 1234, 3);
    transfer_read_stop(t.core, t.now_us, 1234);
    t_drain(&t);
    assert_int_equal(t.result_count, 0);
    t_close(&t);
}

/* Alone: everything from the origin, in order, at once, in long reads (requirement of a lone node).
 */
static void test_alone(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 0, 64 * (uint64_t)T_MIB);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    assert_int_equal(fetch->reason, FETCH_ALONE);
    assert_int_equal(fetch->piece, 0);
    uint32_t begun = 4 * T_MIB / transfer_blob_layout(t.core, t.blob)->piece_bytes;
    assert_int_equal(fetch->piece_count, begun); /* 4 MiB to begin with */
    assert_non_null(t_result(&t, TRANSFER_FETCH, 1));
    assert_null(t_result(&t, TRANSFER_LOCATE, 0));
    assert_int_equal(t.sent_count, 0);
    uint64_t id = fetch->id;
    for (uint32_t piece = 0; piece < begun; piece++)
        t_piece(&t, piece, PIECE_FROM_ORIGIN, 0, 0);
    assert_non_null(t_result(&t, TRANSFER_PIECE_READY, begun - 1));
    t_clear(&t);
    transfer_fetch_end(t.core, t.now_us, id, 0, 0);
    t_drain(&t);
    fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    assert_true(fetch->piece_count > begun); /* and growing */
    t_close(&t);
}

/* End of what is being read from the origin: pieces. */
static uint32_t fetched_end(const struct t_host *t)
{
    uint32_t end = 0;
    const struct transfer_result *fetch;
    for (unsigned i = 0; (fetch = t_result(t, TRANSFER_FETCH, i)) != NULL; i++) {
        if (fetch->piece + fetch->piece_count > end)
            end = fetch->piece + fetch->piece_count;
    }
    return end;
}

/* All reads end well with all their pieces. */
static void deliver_fetches(struct t_host *t)
{
    struct transfer_result fetches[T_RESULTS_MAX];
    unsigned count = 0;
    const struct transfer_result *fetch;
    while ((fetch = t_result(t, TRANSFER_FETCH, count)) != NULL)
        fetches[count++] = *fetch;
    t_clear(t);
    for (unsigned i = 0; i < count; i++) {
        for (uint32_t piece = 0; piece < fetches[i].piece_count; piece++)
            t_piece(t, fetches[i].piece + piece, PIECE_FROM_ORIGIN, 0, 0);
        transfer_fetch_end(t->core, t->now_us, fetches[i].id, 0, 0);
        t_drain(t);
    }
}

/* DESIGN §5: what would be evicted before its client is there is not brought in. */
static void test_reads_stay_near_their_clients(void **state)
{
    (void)state;
    struct t_host t;
    t_open_ahead(&t, 0, 64 * (uint64_t)T_MIB, 8 * (uint64_t)T_MIB);
    const uint32_t ahead = t_pieces(&t) / 8, half = t_pieces(&t) / 2;
    uint32_t slack = t_segment_pieces(&t);
    uint64_t reader = t_read(&t, TRANSFER_READ_STREAM, true);
    for (unsigned i = 0; i < 8 && fetched_end(&t) > 0; i++) {
        assert_true(fetched_end(&t) < ahead + slack);
        deliver_fetches(&t);
    }
    assert_int_equal(fetched_end(&t), 0); /* the client stands still */
    assert_true(bitfield_next_clear(transfer_blob_have(t.core, t.blob), 0) >= ahead);
    transfer_read_move(t.core, t.now_us, reader, ahead);
    t_drain(&t);
    assert_true(fetched_end(&t) > ahead && fetched_end(&t) < 2 * ahead + slack);
    deliver_fetches(&t);
    uint64_t second; /* halves the share */
    assert_int_equal(transfer_read_start(t.core, t.now_us, t.blob, half, half, TRANSFER_READ_STREAM,
                                         true, &second),
                     0);
    t_drain(&t);
    while (fetched_end(&t) > 0) {
        assert_true(fetched_end(&t) < half + ahead / 2 + slack);
        deliver_fetches(&t);
    }
    const struct bitfield *have = transfer_blob_have(t.core, t.blob);
    assert_true(bitfield_next_clear(have, half) >= half + ahead / 2);
    transfer_piece_lost(t.core, t.now_us, t.blob, 3); /* behind its client: nobody misses it */
    t_wait(&t, 2 * T_S);
    assert_int_equal(fetched_end(&t), 0);
    transfer_piece_lost(t.core, t.now_us, t.blob, half + 2);
    t_wait(&t, 2 * T_S);
    assert_int_equal(fetched_end(&t), half + 3);
    t_close(&t);
}

static void test_prefetch_has_no_client_to_stay_near(void **state)
{
    (void)state;
    struct t_host t;
    t_open_ahead(&t, 0, 64 * (uint64_t)T_MIB, 8 * (uint64_t)T_MIB);
    (void)t_read(&t, TRANSFER_READ_PREFETCH, true);
    for (unsigned i = 0; i < 64 && fetched_end(&t) > 0; i++)
        deliver_fetches(&t);
    assert_true(bitfield_full(transfer_blob_have(t.core, t.blob)));
    t_close(&t);
}

static void test_complete_is_told_once(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 0, 2 * T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0);
    assert_null(t_result(&t, TRANSFER_BLOB_COMPLETE, 0));
    t_piece(&t, 1, PIECE_FROM_ORIGIN, 0, 0);
    assert_non_null(t_result(&t, TRANSFER_BLOB_COMPLETE, 0));
    const struct transfer_result *published = t_result(&t, TRANSFER_PUBLISH, 0);
    assert_non_null(published);
    assert_int_equal(published->completeness, 255);
    t_piece(&t, 1, PIECE_FROM_ORIGIN, 0, 0); /* twice is once, and counted */
    assert_null(t_result(&t, TRANSFER_BLOB_COMPLETE, 1));
    struct transfer_stats stats;
    transfer_stats(t.core, &stats);
    assert_int_equal(stats.duplicates, 1);
    t_clear(&t);
    transfer_piece_lost(t.core, t.now_us, t.blob, 0);
    transfer_blob_close(t.core, t.now_us, t.blob);
    t_drain(&t);
    unsigned last = 0;
    while (t_result(&t, TRANSFER_PUBLISH, last + 1) != NULL)
        last++;
    assert_int_equal(t_result(&t, TRANSFER_PUBLISH, last)->completeness, 0);
    assert_non_null(t_result(&t, TRANSFER_FETCH_CANCEL, 0));
    t_close(&t);
}

static void test_three_failures_of_the_origin_are_told(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 0, T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    for (unsigned i = 0; i < 3; i++) {
        const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
        assert_non_null(fetch);
        assert_null(t_result(&t, TRANSFER_PIECE_FAILED, 0));
        uint64_t id = fetch->id;
        t_clear(&t);
        transfer_fetch_end(t.core, t.now_us, id, E_ORIGIN, 0);
        t_drain(&t);
        t_wait(&t, 2 * T_S);
    }
    const struct transfer_result *failed = t_result(&t, TRANSFER_PIECE_FAILED, 0);
    assert_non_null(failed);
    assert_int_equal(failed->status, E_ORIGIN);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    (void)t_read(&t, TRANSFER_READ_STREAM, true); /* a new reader tries anew */
    assert_non_null(t_result(&t, TRANSFER_FETCH, 0));
    t_close(&t);
}

/* 429 with Retry-After (O-4): nothing is read before. */
static void test_the_origin_asks_for_a_pause(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 0, T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    uint64_t id = t_result(&t, TRANSFER_FETCH, 0)->id;
    t_clear(&t);
    transfer_fetch_end(t.core, t.now_us, id, E_AGAIN, 3000);
    t_drain(&t);
    t_wait(&t, 2900 * T_MS);
    assert_null(t_result(&t, TRANSFER_FETCH, 0));
    t_wait(&t, 1500 * T_MS);
    assert_non_null(t_result(&t, TRANSFER_FETCH, 0));
    t_close(&t);
}

static void test_what_is_wrong_here_is_read_from_the_origin(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 2, 2 * T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    t_hello(&t, 1, true, WIRE_HAVE_COMPLETE, 2);
    t_piece(&t, 0, PIECE_FROM_PEER, 1, 0);
    t_piece(&t, 1, PIECE_FROM_PEER, 1, 0);
    t_clear(&t);
    t_piece(&t, 1, PIECE_FROM_CACHE, 0, E_DIGEST);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    assert_int_equal(fetch->reason, FETCH_REPAIR);
    assert_int_equal(fetch->piece, 1);
    t_close(&t);
}

/* ---- what peers get ---- */

static void request(struct t_host *t, uint32_t from, uint32_t piece, uint32_t serial, bool proof)
{
    struct member member = t_member(from);
    struct wire_transfer message = {.type = WIRE_TRANSFER_REQUEST};
    message.of.piece = (struct wire_piece){.blob = t->info.key, .piece = piece, .serial = serial};
    if (proof) {
        message.of.piece.flags = WIRE_PIECE_IMPORT;
        digest_proof(&t->info.digest, &member.id, &t->self.id, message.of.piece.proof);
    }
    t_receive(t, from, &message);
}

static void holder(struct t_host *t)
{
    t_open(t, 4, 3 * T_MIB);
    for (uint32_t piece = 0; piece < t_pieces(t); piece++)
        t_piece(t, piece, PIECE_FROM_CACHE, 0, 0);
    t_clear(t);
}

static void test_no_upload_without_proof(void **state)
{
    (void)state; /* ACL-9 */
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    request(&t, 1, 0, 1, false);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 0));
    assert_non_null(t_sent(&t, WIRE_TRANSFER_BUSY, 0));
    t_hello(&t, 1, false, 0, 0); /* knows the key, not the digest */
    assert_non_null(t_sent(&t, WIRE_TRANSFER_BYE, 0));
    assert_int_equal(t_sent(&t, WIRE_TRANSFER_BYE, 0)->message.of.note.arg, WIRE_BYE_REFUSED);
    request(&t, 1, 0, 2, false);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 0));
    struct transfer_stats stats;
    transfer_stats(t.core, &stats);
    assert_int_equal(stats.rejected, 3);
    t_hello(&t, 1, true, 0, 0);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_HELLO, 0));
    request(&t, 1, 0, 3, false);
    const struct transfer_result *upload = t_result(&t, TRANSFER_UPLOAD, 0);
    assert_non_null(upload);
    assert_int_equal(upload->piece, 0);
    t_session(&t, 2);
    request(&t, 2, 5, 1, true); /* in the request itself */
    assert_non_null(t_result(&t, TRANSFER_UPLOAD, 1));
    t_close(&t);
}

static void test_a_request_may_come_twice(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    request(&t, 1, 3, 7, false);
    request(&t, 1, 3, 7, false);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 1));
    assert_non_null(t_sent(&t, WIRE_TRANSFER_QUEUED, 0));
    transfer_upload_end(t.core, t.now_us, t_result(&t, TRANSFER_UPLOAD, 0)->id, 1, 0);
    t_drain(&t);
    request(&t, 1, 3, 7, false); /* a late one of what is served: not again */
    assert_null(t_result(&t, TRANSFER_UPLOAD, 1));
    request(&t, 1, 3, 8, false); /* asked anew: again */
    assert_non_null(t_result(&t, TRANSFER_UPLOAD, 1));
    t_close(&t);
}

static void test_a_node_started_anew_counts_from_one(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    request(&t, 1, 3, 1, false);
    transfer_upload_end(t.core, t.now_us, t_result(&t, TRANSFER_UPLOAD, 0)->id, 1, 0);
    struct member node = t_member(1);
    transfer_session_down(t.core, t.now_us, &node.id, E_CLOSED);
    t_drain(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    request(&t, 1, 5, 1, false); /* not the request of its former life */
    assert_non_null(t_result(&t, TRANSFER_UPLOAD, 1));
    assert_int_equal(t_result(&t, TRANSFER_UPLOAD, 1)->piece, 5);
    t_close(&t);
}

static void cancel(struct t_host *t, uint32_t from, uint32_t serial)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_CANCEL};
    message.of.piece = (struct wire_piece){.blob = t->info.key, .serial = serial};
    t_receive(t, from, &message);
}

static void test_cancel(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    request(&t, 1, 3, 7, false);
    cancel(&t, 1, 7);
    cancel(&t, 1, 7);
    assert_non_null(t_result(&t, TRANSFER_UPLOAD_CANCEL, 0));
    assert_null(t_result(&t, TRANSFER_UPLOAD_CANCEL, 1));
    cancel(&t, 1, 9); /* overtook its request */
    request(&t, 1, 4, 9, false);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 1));
    t_close(&t);
}

/* P-8: one peer's flood leaves the slots to others, and has an end. */
static void test_a_flood_of_requests(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_session(&t, 2);
    t_hello(&t, 1, true, 0, 0);
    t_hello(&t, 2, true, 0, 0);
    for (uint32_t i = 0; i < 40; i++)
        request(&t, 1, i % t_pieces(&t), 100 + i, false);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_BUSY, 0));
    request(&t, 2, 0, 1, false);
    uint64_t first = t_result(&t, TRANSFER_UPLOAD, 0)->id;
    t_clear(&t);
    transfer_upload_end(t.core, t.now_us, first, 1, 0);
    t_drain(&t);
    const struct transfer_result *next = t_result(&t, TRANSFER_UPLOAD, 0);
    struct member other = t_member(2);
    assert_non_null(next);
    assert_true(node_id_equal(&next->peer, &other.id));
    t_close(&t);
}

/* P-8: nor do several that flood together keep out who asks for one piece. */
static void test_floods_make_way(void **state)
{
    (void)state;
    enum { FLOODS = 4 };
    struct t_host t;
    holder(&t);
    for (uint32_t node = 1; node <= FLOODS + 1; node++) {
        t_session(&t, node);
        t_hello(&t, node, true, 0, 0);
    }
    for (uint32_t i = 0; i < 40; i++) {
        for (uint32_t node = 1; node <= FLOODS; node++)
            request(&t, node, i % t_pieces(&t), 100 + i, false);
    }
    t_clear(&t);
    request(&t, FLOODS + 1, 0, 1, false);
    const struct t_sent *queued = t_sent(&t, WIRE_TRANSFER_QUEUED, 0);
    const struct t_sent *busy = t_sent(&t, WIRE_TRANSFER_BUSY, 0);
    assert_true(queued != NULL && queued->to == FLOODS + 1);
    assert_true(busy != NULL && busy->to != FLOODS + 1);
    request(&t, FLOODS + 1, 1, 2, false); /* its second one has to wait like theirs */
    busy = t_sent(&t, WIRE_TRANSFER_BUSY, 1);
    assert_true(busy != NULL && busy->to == FLOODS + 1);
    t_close(&t);
}

/* P-6: what is not here is refused as such. */
static void test_a_piece_that_is_not_here(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    transfer_piece_lost(t.core, t.now_us, t.blob, 4);
    t_clear(&t);
    request(&t, 1, 4, 1, false);
    const struct t_sent *busy = t_sent(&t, WIRE_TRANSFER_BUSY, 0);
    assert_non_null(busy);
    assert_true((busy->message.of.piece.flags & WIRE_PIECE_MISSING) != 0);
    request(&t, 1, 4000, 2, false);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_BUSY, 1));
    t_close(&t);
}

/* Damaged on disk, found out when it is to be sent (D-2): who asked hears it at once. */
static void test_a_piece_lost_while_it_is_sent(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    request(&t, 1, 4, 1, false);
    const struct transfer_result *upload = t_result(&t, TRANSFER_UPLOAD, 0);
    assert_non_null(upload);
    uint64_t id = upload->id;
    t_clear(&t);
    transfer_piece_lost(t.core, t.now_us, t.blob, 4);
    transfer_upload_end(t.core, t.now_us, id, 0, E_CORRUPT);
    t_drain(&t);
    const struct t_sent *busy = t_sent(&t, WIRE_TRANSFER_BUSY, 0);
    assert_non_null(busy);
    assert_int_equal(busy->message.of.piece.serial, 1);
    assert_true((busy->message.of.piece.flags & WIRE_PIECE_MISSING) != 0);
    request(&t, 1, 5, 2, false); /* a connection that broke says nothing of the piece */
    id = t_result(&t, TRANSFER_UPLOAD, 0)->id;
    t_clear(&t);
    transfer_upload_end(t.core, t.now_us, id, 0, E_CLOSED);
    t_drain(&t);
    assert_null(t_sent(&t, WIRE_TRANSFER_BUSY, 0));
    t_close(&t);
}

/* ---- what is asked of peers ---- */

/* Requests sent to a peer so far. */
static unsigned asked_of(const struct t_host *t, uint32_t peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->sent_count; i++)
        count += t->sent[i].message.type == WIRE_TRANSFER_REQUEST && t->sent[i].to == peer;
    return count;
}

static void test_asking_waits_for_the_session(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 3, 3 * T_MIB);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    t_hello(&t, 1, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
    assert_int_equal(asked_of(&t, 1), 0);
    t_wait(&t, 400 * T_MS);
    assert_non_null(t_result(&t, TRANSFER_CONNECT, 0));
    t_clear(&t);
    t_session(&t, 1);
    assert_true(asked_of(&t, 1) > 0);
    const struct t_sent *first = t_sent(&t, WIRE_TRANSFER_REQUEST, 0);
    assert_int_equal(first->message.of.piece.piece, 0); /* what the client needs first */
    struct member peer = t_member(1), other = t_member(2);
    assert_true(transfer_expects(t.core, &t.info.key, 0, &peer.id));
    assert_false(transfer_expects(t.core, &t.info.key, 0, &other.id));
    assert_false(transfer_expects(t.core, &t.info.key, t_pieces(&t) - 1, &peer.id));
    t_close(&t);
}

static void test_a_broken_session_moves_requests_at_once(void **state)
{
    (void)state; /* P-1 */
    struct t_host t;
    t_open(&t, 3, T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    t_hello(&t, 1, true, WIRE_HAVE_COMPLETE, 1);
    t_hello(&t, 2, true, WIRE_HAVE_COMPLETE, 1);
    t_session(&t, 1);
    t_session(&t, 2);
    assert_int_equal(asked_of(&t, 1) + asked_of(&t, 2), 1);
    uint32_t first = asked_of(&t, 1) == 1 ? 1 : 2;
    struct member gone = t_member(first);
    t_clear(&t);
    transfer_session_down(t.core, t.now_us, &gone.id, E_CLOSED);
    t_drain(&t);
    assert_int_equal(asked_of(&t, 3 - first), 1);
    t_close(&t);
}

static void test_a_liar_is_asked_no_more(void **state)
{
    (void)state; /* P-5 */
    struct t_host t;
    t_open(&t, 3, 3 * T_MIB);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    t_hello(&t, 1, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
    t_session(&t, 1);
    t_clear(&t);
    t_piece(&t, 0, PIECE_FROM_PEER, 1, E_DIGEST);
    t_wait(&t, 3 * T_S);
    assert_int_equal(asked_of(&t, 1), 0);
    assert_null(t_result(&t, TRANSFER_PIECE_READY, 0));
    t_close(&t);
}

/* INT-7: who signed a false hash is out for all blobs, here. */
static void test_who_lied_is_neither_asked_nor_served(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    struct member liar = t_member(1);
    transfer_peer_lied(t.core, t.now_us, &liar.id);
    t_clear(&t);
    request(&t, 1, 0, 1, true);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 0));
    t_hello(&t, 1, true, 0, t_pieces(&t));
    assert_non_null(t_sent(&t, WIRE_TRANSFER_BYE, 0));
    t_wait(&t, 3601 * (uint64_t)T_S);
    t_clear(&t);
    t_hello(&t, 1, true, 0, t_pieces(&t));
    assert_non_null(t_sent(&t, WIRE_TRANSFER_HELLO, 0)); /* an hour later */
    t_close(&t);
}

static void test_an_unstored_piece_is_had_but_not_given(void **state)
{
    (void)state; /* D-1 */
    struct t_host t;
    t_open(&t, 2, 2 * T_PIECE);
    (void)t_read(&t, TRANSFER_READ_STREAM, true);
    t_session(&t, 1);
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, E_NO_SPACE);
    assert_non_null(t_result(&t, TRANSFER_PIECE_READY, 0));
    assert_false(bitfield_get(transfer_blob_have(t.core, t.blob), 0));
    t_clear(&t);
    request(&t, 1, 0, 1, true);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 0));
    t_close(&t);
}

/* Whoever gave one copy and a half says to wait, and is asked after those who gave less. */
static void test_who_gave_much_is_asked_last(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    uint32_t before_us = t_sent(&t, WIRE_TRANSFER_HELLO, 0)->message.of.have.wait_us;
    assert_true(before_us < T_S);
    request(&t, 1, 0, 1, false);
    const struct transfer_result *upload = t_result(&t, TRANSFER_UPLOAD, 0);
    assert_non_null(upload);
    transfer_upload_end(t.core, t.now_us, upload->id, 3 * t.info.size_bytes, 0);
    t_clear(&t);
    t_hello(&t, 2, true, 0, 0);
    uint32_t after_us = t_sent(&t, WIRE_TRANSFER_HELLO, 0)->message.of.have.wait_us;
    assert_true(after_us > 7 * T_S && after_us < 8 * T_S);
    t_close(&t);
}

static void test_drain_refuses_uploads(void **state)
{
    (void)state;
    struct t_host t;
    holder(&t);
    t_session(&t, 1);
    t_hello(&t, 1, true, 0, 0);
    const uint32_t asked = 12; /* more than run at once, less than may wait */
    for (uint32_t i = 0; i < asked; i++)
        request(&t, 1, i, 1 + i, false);
    assert_null(t_sent(&t, WIRE_TRANSFER_BUSY, 0));
    unsigned running = 0;
    while (t_result(&t, TRANSFER_UPLOAD, running) != NULL)
        running++;
    t_clear(&t);
    transfer_drain(t.core, t.now_us);
    t_drain(&t);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 0));
    assert_null(t_result(&t, TRANSFER_UPLOAD_CANCEL, 0)); /* those that run finish */
    assert_true(running < asked);
    assert_non_null(t_sent(&t, WIRE_TRANSFER_BUSY, asked - running - 1));
    request(&t, 1, 0, 99, false);
    assert_null(t_result(&t, TRANSFER_UPLOAD, 0));
    t_close(&t);
}

/* D-13: stopped for half a minute, then continued: nobody is thought dead. */
static void test_a_stopped_process_blames_nobody(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 3, 3 * T_MIB);
    (void)t_read(&t, TRANSFER_READ_STREAM, false);
    t_hello(&t, 1, true, WIRE_HAVE_COMPLETE, t_pieces(&t));
    t_session(&t, 1);
    t_wait(&t, 20 * T_MS);
    t_clear(&t);
    t.now_us += 30 * (uint64_t)T_S;
    transfer_advance(t.core, t.now_us);
    t_drain(&t);
    assert_null(t_result(&t, TRANSFER_PEER_SILENT, 0));
    struct transfer_stats stats;
    transfer_stats(t.core, &stats);
    assert_int_equal(stats.request_timeouts, 0);
    assert_int_equal(stats.hedges, 0);
    t_close(&t);
}

static void test_names_of_reasons(void **state)
{
    (void)state;
    assert_string_equal(fetch_reason_name(FETCH_LEASE), "lease");
    assert_string_equal(fetch_reason_name(FETCH_ALONE), "alone");
    assert_string_equal(fetch_reason_name(FETCH_NO_KEEPER), "no-keeper");
    assert_string_equal(fetch_reason_name(FETCH_NO_PROGRESS), "no-progress");
    assert_string_equal(fetch_reason_name(FETCH_REPAIR), "repair");
    assert_string_equal(fetch_reason_name(FETCH_REASON_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blob_calls),
        cmocka_unit_test(test_read_errors),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_reads_stay_near_their_clients),
        cmocka_unit_test(test_prefetch_has_no_client_to_stay_near),
        cmocka_unit_test(test_complete_is_told_once),
        cmocka_unit_test(test_three_failures_of_the_origin_are_told),
        cmocka_unit_test(test_the_origin_asks_for_a_pause),
        cmocka_unit_test(test_what_is_wrong_here_is_read_from_the_origin),
        cmocka_unit_test(test_no_upload_without_proof),
        cmocka_unit_test(test_a_request_may_come_twice),
        cmocka_unit_test(test_a_node_started_anew_counts_from_one),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_a_flood_of_requests),
        cmocka_unit_test(test_floods_make_way),
        cmocka_unit_test(test_a_piece_that_is_not_here),
        cmocka_unit_test(test_a_piece_lost_while_it_is_sent),
        cmocka_unit_test(test_asking_waits_for_the_session),
        cmocka_unit_test(test_a_broken_session_moves_requests_at_once),
        cmocka_unit_test(test_a_liar_is_asked_no_more),
        cmocka_unit_test(test_who_lied_is_neither_asked_nor_served),
        cmocka_unit_test(test_an_unstored_piece_is_had_but_not_given),
        cmocka_unit_test(test_who_gave_much_is_asked_last),
        cmocka_unit_test(test_drain_refuses_uploads),
        cmocka_unit_test(test_a_stopped_process_blames_nobody),
        cmocka_unit_test(test_names_of_reasons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
