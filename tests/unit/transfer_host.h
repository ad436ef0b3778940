/* SPDX-License-Identifier: Apache-2.0 */
/* One transfer core, what it sends and what it asks its host, for unit tests that play the peers.
 */
#ifndef SHOAL_TESTS_TRANSFER_HOST_H
#define SHOAL_TESTS_TRANSFER_HOST_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "member.h"
#include "transfer.h"
#include "wire_transfer.h"

#define T_SENT_MAX    256
#define T_RESULTS_MAX 256
#define T_MS          1000u
#define T_S           1000000u
#define T_MIB         (1024u * 1024u)
#define T_PIECE       ((uint64_t)PIECE_BYTES_MIN) /* all pieces of blobs of some MiB */

struct t_sent {
    uint32_t to; /* index of the peer, see t_member */
    struct wire_transfer message;
};

struct t_host {
    struct env env;
    struct prng prng;
    struct transfer *core;
    struct member self;
    uint64_t now_us;
    long allocated;
    unsigned sent_count, result_count;
    struct t_sent sent[T_SENT_MAX];
    struct transfer_result results[T_RESULTS_MAX];
    struct blob_info info;
    blob_handle blob;
};

static inline struct member t_member(uint32_t index)
{
    struct member member = {.state = MEMBER_ALIVE};
    member.addr = (struct peer_addr){.ip = {[10] = 0xff, [11] = 0xff}, .port = 65002};
    store_be32(member.addr.ip + 12, 0x0a000000u + index);
    node_id_of("unit", &member.addr, &member.id);
    return member;
}

static inline int t_send(void *host, const struct peer_addr *to, const uint8_t *msg,
                         size_t msg_bytes)
{
    struct t_host *t = host;
    if (t->sent_count == T_SENT_MAX)
        return E_AGAIN;
    struct t_sent *sent = &t->sent[t->sent_count++];
    sent->to = load_be32(to->ip + 12) - 0x0a000000u;
    assert_int_equal(wire_transfer_decode(msg, msg_bytes, &sent->message), 0);
    return 0;
}

static inline void t_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct t_host *t = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&t->prng);
}

static inline void *t_alloc(void *host, void *old, size_t new_bytes)
{
    struct t_host *t = host;
    if (new_bytes == 0) {
        t->allocated -= old != NULL;
        free(old);
        return NULL;
    }
    t->allocated += old == NULL;
    return realloc(old, new_bytes);
}

static inline void t_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

/* Takes the results out; checks the invariants. */
static inline void t_drain(struct t_host *t)
{
    struct transfer_result result;
    while (transfer_next_result(t->core, &result)) {
        assert_true(t->result_count < T_RESULTS_MAX);
        t->results[t->result_count++] = result;
    }
    transfer__check_invariants(t->core);
}

/* Forgets what was sent and asked so far. */
static inline void t_clear(struct t_host *t)
{
    t_drain(t);
    t->sent_count = t->result_count = 0;
}

/* A core with `others` other members (1..others), alive in one zone, and a blob of `bytes`, of
 * which `ahead_bytes` may be ahead of clients; 0: all. */
static inline void t_open_ahead(struct t_host *t, uint32_t others, uint64_t bytes,
                                uint64_t ahead_bytes)
{
    memset(t, 0, sizeof *t);
    t->now_us = 1000 * (uint64_t)T_S;
    t->self = t_member(0);
    t->env = (struct env){
        .host = t, .send = t_send, .random = t_random, .alloc = t_alloc, .trace = t_trace};
    prng_seed(&t->prng, (const uint8_t *)"unit", 4);
    struct transfer_config config = {
        .self_id = t->self.id,
        .self_addr = t->self.addr,
        .topology = t->self.topology,
        .ahead_bytes = ahead_bytes,
    };
    assert_int_equal(transfer_new(&t->env, &config, t->now_us, &t->core), 0);
    for (uint32_t i = 1; i <= others; i++) {
        struct member member = t_member(i);
        assert_int_equal(transfer_member_up(t->core, t->now_us, &member), 0);
    }
    uint8_t lookup[32] = {3};
    t->info.size_bytes = bytes;
    digest_of(DIGEST_SHA256, "blob", 4, &t->info.digest);
    blob_key_of(lookup, &t->info.digest, &t->info.key);
    assert_int_equal(transfer_blob_open(t->core, t->now_us, &t->info, NULL, &t->blob), 0);
    t_drain(t);
}

/* The same without a limit. */
static inline void t_open(struct t_host *t, uint32_t others, uint64_t bytes)
{
    t_open_ahead(t, others, bytes, 0);
}

static inline void t_close(struct t_host *t)
{
    transfer_free(t->core);
    assert_int_equal(t->allocated, 0);
}

/* Lets time pass from deadline to deadline. A deadline that stays in the past would make a host
 * spin.
 */
static inline void t_wait(struct t_host *t, uint64_t span_us)
{
    uint64_t end_us = t->now_us + span_us;
    unsigned spins = 0;
    for (;;) {
        uint64_t due_us = transfer_deadline_us(t->core);
        if (due_us > end_us)
            break;
        spins = due_us > t->now_us ? 0 : spins + 1;
        assert_true(spins < 3);
        t->now_us = due_us > t->now_us ? due_us : t->now_us;
        transfer_advance(t->core, t->now_us);
        t_drain(t);
    }
    t->now_us = end_us;
    transfer_advance(t->core, t->now_us);
    t_drain(t);
}

static inline void t_receive(struct t_host *t, uint32_t from, const struct wire_transfer *message)
{
    uint8_t bytes[MESSAGE_BYTES_MAX];
    size_t used;
    struct member member = t_member(from);
    assert_int_equal(wire_transfer_encode(message, bytes, sizeof bytes, &used), 0);
    assert_int_equal(transfer_receive(t->core, t->now_us, &member.id, &member.addr, bytes, used),
                     0);
    t_drain(t);
}

/* The n-th result of a kind, from 0; NULL if there are fewer. */
static inline const struct transfer_result *t_result(const struct t_host *t,
                                                     enum transfer_result_kind kind, unsigned n)
{
    for (unsigned i = 0; i < t->result_count; i++) {
        if (t->results[i].kind == kind && n-- == 0)
            return &t->results[i];
    }
    return NULL;
}

/* The n-th message of a type, from 0; NULL if there are fewer. */
static inline const struct t_sent *t_sent(const struct t_host *t, unsigned type, unsigned n)
{
    for (unsigned i = 0; i < t->sent_count; i++) {
        if (t->sent[i].message.type == type && n-- == 0)
            return &t->sent[i];
    }
    return NULL;
}

/* HELLO (or HAVE) of a peer with the first `pieces` pieces. */
static inline void t_hello(struct t_host *t, uint32_t from, bool proven, uint8_t flags,
                           uint32_t pieces)
{
    static uint32_t sequence = 100;
    struct member member = t_member(from);
    struct wire_transfer message = {.type = WIRE_TRANSFER_HELLO};
    struct wire_have *have = &message.of.have;
    have->blob = t->info.key;
    have->flags = flags;
    have->sequence = ++sequence;
    if (proven)
        digest_proof(&t->info.digest, &member.id, &t->self.id, have->proof);
    const struct piece_layout *layout = transfer_blob_layout(t->core, t->blob);
    have->page_bytes = (layout->piece_count + 7) / 8;
    if (have->page_bytes > WIRE_PAGE_BYTES)
        have->page_bytes = WIRE_PAGE_BYTES; /* the first page */
    for (uint32_t i = 0; i < pieces; i++)
        have->have[i / 8] |= (uint8_t)(0x80u >> (i % 8));
    memcpy(have->injected, have->have, have->page_bytes);
    t_receive(t, from, &message);
}

static inline void t_session(struct t_host *t, uint32_t peer)
{
    struct member member = t_member(peer);
    transfer_session_up(t->core, t->now_us, &member.id);
    t_drain(t);
}

/* How many pieces the blob has, and how many a segment of it. */
static inline uint32_t t_pieces(const struct t_host *t)
{
    return transfer_blob_layout(t->core, t->blob)->piece_count;
}

static inline uint32_t t_segment_pieces(const struct t_host *t)
{
    return transfer_blob_layout(t->core, t->blob)->segment_pieces;
}

static inline uint64_t t_read(struct t_host *t, enum transfer_read_mode mode, bool can_fetch)
{
    uint64_t reader;
    assert_int_equal(
        transfer_read_start(t->core, t->now_us, t->blob, 0, t_pieces(t), mode, can_fetch, &reader),
        0);
    t_drain(t);
    return reader;
}

static inline void t_piece(struct t_host *t, uint32_t piece, enum piece_origin origin,
                           uint32_t peer, int status)
{
    struct piece_source source = {.origin = origin, .peer = t_member(peer).id};
    transfer_piece_done(t->core, t->now_us, t->blob, piece, &source, status);
    t_drain(t);
}

/* A lease message about segment 0 from a peer. */
static inline void t_lease(struct t_host *t, uint32_t from, unsigned type, uint8_t level,
                           uint32_t arg)
{
    struct wire_transfer message = {.type = type};
    message.of.lease = (struct wire_lease){
        .blob = t->info.key, .level = level, .epoch = 1, .zone_epoch = 1, .arg = arg};
    t_receive(t, from, &message);
}

/* REFER of segment 0 to `holder`. */
static inline void t_refer(struct t_host *t, uint32_t from, uint8_t level, uint32_t holder)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_REFER};
    struct member member = t_member(holder);
    message.of.lease = (struct wire_lease){.blob = t->info.key,
                                           .level = level,
                                           .epoch = 1,
                                           .zone_epoch = 1,
                                           .flags = WIRE_LEASE_CONTACT,
                                           .contact = {.id = member.id, .addr = member.addr}};
    t_receive(t, from, &message);
}

#endif
