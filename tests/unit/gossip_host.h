/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One gossip core under test with a host that records what it sends, and messages made by hand.
 * Test programs include this once.
 */
#ifndef SHOAL_TESTS_GOSSIP_HOST_H
#define SHOAL_TESTS_GOSSIP_HOST_H

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "gossip.h"
#include "wire_gossip.h"

#define SENT_MAX 1024
#define SECOND   1000000ULL
#define TENTH    (SECOND / 10)

struct sent {
    struct peer_addr to;
    size_t bytes;
    struct wire_gossip message;
};

static struct {
    struct sent sent[SENT_MAX];
    unsigned sent_count; /* since the last forget_sent */
    struct prng prng;
    int send_result;
    uint64_t allocations;
    uint64_t fail_at;   /* this allocation fails; 0 none */
    uint64_t fail_from; /* this one and all later fail; 0 none */
    uint64_t blocks;    /* not freed yet */
    uint64_t bytes;
} host;

static struct gossip *core;
static uint64_t now_us = 1000 * SECOND;

static int host_send(void *self, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    (void)self;
    if (host.sent_count < SENT_MAX) {
        struct sent *sent = &host.sent[host.sent_count++];
        sent->to = *to;
        sent->bytes = msg_bytes;
        if (msg_bytes > MESSAGE_BYTES_MAX ||
            wire_gossip_decode(msg, msg_bytes, &sent->message) != 0)
            abort();
    }
    return host.send_result;
}

static void host_random(void *self, uint8_t *out, size_t out_bytes)
{
    (void)self;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&host.prng);
}

static void *host_alloc(void *self, void *old, size_t new_bytes)
{
    (void)self;
    size_t *head = old == NULL ? NULL : (size_t *)old - 2;
    if (new_bytes == 0) {
        host.blocks--;
        host.bytes -= *head;
        free(head);
        return NULL;
    }
    host.allocations++;
    if (host.allocations == host.fail_at ||
        (host.fail_from > 0 && host.allocations >= host.fail_from))
        return NULL;
    host.blocks += head == NULL ? 1 : 0;
    host.bytes += new_bytes - (head == NULL ? 0 : *head);
    head = realloc(head, new_bytes + 2 * sizeof *head);
    if (head == NULL)
        abort();
    *head = new_bytes;
    return head + 2;
}

static void host_trace(void *self, enum log_level level, const char *line)
{
    (void)self;
    (void)level;
    (void)line;
}

static const struct env host_env = {NULL, host_send, host_random, host_alloc, host_trace};

static inline void forget_sent(void)
{
    host.sent_count = 0;
}

/* 10.0.x.y:65002; 0 is the core itself. */
static inline struct peer_addr addr_of(unsigned index)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff, 10}, .port = 65002};
    addr.ip[14] = (uint8_t)(index >> 8);
    addr.ip[15] = (uint8_t)index;
    return addr;
}

static inline struct node_id id_of(unsigned index)
{
    const struct peer_addr addr = addr_of(index);
    struct node_id id;
    node_id_of("test", &addr, &id);
    return id;
}

static inline struct gossip_config host_config(void)
{
    struct gossip_config config = {.cluster_id = "test"};
    config.self.addr = addr_of(0);
    config.self.capacity_class = 10;
    memset(config.self.key.bytes, 7, sizeof config.self.key.bytes);
    return config;
}

static inline int open_core(void **state)
{
    (void)state;
    const uint64_t seed = 1;
    memset(&host, 0, sizeof host);
    prng_seed(&host.prng, (const uint8_t *)&seed, sizeof seed);
    const struct gossip_config config = host_config();
    return gossip_new(&host_env, &config, now_us, &core);
}

static inline int close_core(void **state)
{
    (void)state;
    gossip__check_invariants(core);
    gossip_free(core);
    return host.blocks == 0 && host.bytes == 0 ? 0 : -1;
}

static inline const struct member *self(void)
{
    return gossip_self(core);
}

/* NULL if unknown; borrowed until the fourth next call. */
static inline const struct member *member(unsigned index)
{
    static struct member found[4];
    static unsigned turn;
    const struct node_id id = id_of(index);
    struct member *out = &found[turn++ % 4];
    return gossip_find(core, &id, out) ? out : NULL;
}

/* Is there anybody at this place of the view? */
static inline bool any_at(size_t index)
{
    struct member found;
    return gossip_at(core, index, &found);
}

static inline enum member_state state_of(unsigned index)
{
    const struct member *found = member(index);
    return found == NULL ? MEMBER_UNKNOWN : found->state;
}

static inline struct gossip_stats stats(void)
{
    struct gossip_stats out;
    gossip_stats(core, &out);
    return out;
}

/* Runs the core as its host would, up to `until_us`. */
static inline void run_until(uint64_t until_us)
{
    while (gossip_deadline_us(core) <= until_us) {
        if (gossip_deadline_us(core) > now_us)
            now_us = gossip_deadline_us(core);
        gossip_advance(core, now_us);
    }
    now_us = until_us;
}

static inline void run_for(uint64_t us)
{
    run_until(now_us + us);
}

/* ---- messages from others ---- */

/* A message of `type` that holds us rightly. */
static inline struct wire_gossip message_of(enum wire_gossip_type type)
{
    struct wire_gossip message;
    memset(&message, 0, sizeof message);
    message.type = type;
    message.seq = 77;
    message.known_incarnation = self()->incarnation;
    message.known_state = MEMBER_ALIVE;
    return message;
}

/* Delivers; the result of gossip_receive. *bytes is its size. */
static inline int deliver_padded(unsigned from, const struct wire_gossip *message, size_t pad_to,
                                 size_t *bytes)
{
    uint8_t buffer[MESSAGE_BYTES_MAX];
    const struct peer_addr addr = addr_of(from);
    if (wire_gossip_encode(message, pad_to, buffer, sizeof buffer, bytes) != 0)
        abort();
    return gossip_receive(core, now_us, &addr, buffer, *bytes);
}

static inline int deliver(unsigned from, const struct wire_gossip *message)
{
    size_t bytes;
    return deliver_padded(from, message, 0, &bytes);
}

static inline struct wire_gossip_record record_of(unsigned index, uint64_t incarnation,
                                                  enum member_state state)
{
    struct wire_gossip_record record = {
        .addr = addr_of(index), .incarnation = incarnation, .state = state};
    memset(record.key.bytes, (int)(index & 0xff), sizeof record.key.bytes);
    return record;
}

static inline void add_record(struct wire_gossip *message, unsigned index, uint64_t incarnation,
                              enum member_state state)
{
    message->news.records[message->news.record_count++] = record_of(index, incarnation, state);
}

/* One record as news from `from`. */
static inline void tell(unsigned from, unsigned about, uint64_t incarnation,
                        enum member_state state)
{
    struct wire_gossip message = message_of(WIRE_GOSSIP_NEWS);
    add_record(&message, about, incarnation, state);
    if (deliver(from, &message) != 0)
        abort();
}

/* A claim as news from `from`; `accuser` 0: none. */
static inline void claim(unsigned from, unsigned about, uint64_t incarnation,
                         enum member_state state, unsigned accuser)
{
    struct wire_gossip message = message_of(WIRE_GOSSIP_NEWS);
    message.news.claim_count = 1;
    message.news.claims[0] = (struct wire_gossip_claim){
        .addr = addr_of(about), .incarnation = incarnation, .state = state};
    if (accuser > 0)
        message.news.claims[0].accusers[message.news.claims[0].accuser_count++] = addr_of(accuser);
    if (deliver(from, &message) != 0)
        abort();
}

/* Members first..last, alive at incarnation 1, each by its own word; events drained. */
static inline void add_members(unsigned first, unsigned last)
{
    struct gossip_event event;
    for (unsigned i = first; i <= last; i++)
        tell(i, i, 1, MEMBER_ALIVE);
    while (gossip_next_result(core, &event))
        continue;
}

/* The last message sent to `to` of `type`; NULL if none. */
static inline const struct sent *last_sent(unsigned to, enum wire_gossip_type type)
{
    const struct peer_addr addr = addr_of(to);
    for (unsigned i = host.sent_count; i-- > 0;) {
        if (host.sent[i].message.type == type && peer_addr_equal(&host.sent[i].to, &addr))
            return &host.sent[i];
    }
    return NULL;
}

static inline unsigned count_sent(enum wire_gossip_type type)
{
    unsigned count = 0;
    for (unsigned i = 0; i < host.sent_count; i++)
        count += host.sent[i].message.type == type ? 1 : 0;
    return count;
}

/* Answers every PING sent so far to those from first on up to last, as healthy members would. */
static inline void answer_pings(unsigned first, unsigned last)
{
    unsigned count = host.sent_count;
    for (unsigned i = 0; i < count; i++) {
        unsigned index = (unsigned)host.sent[i].to.ip[14] << 8 | host.sent[i].to.ip[15];
        if (host.sent[i].message.type != WIRE_GOSSIP_PING || index < first || index > last)
            continue;
        struct wire_gossip ack = message_of(WIRE_GOSSIP_ACK);
        ack.seq = host.sent[i].message.seq;
        if (deliver(index, &ack) != 0)
            abort();
    }
    forget_sent();
}

/* Answers what was sent from message `from` on as healthy members 1..members with the same view do;
 * `silent` does not. */
static inline void answer_since(unsigned from, unsigned members, unsigned silent)
{
    unsigned count = host.sent_count;
    for (unsigned i = from; i < count; i++) {
        const struct wire_gossip *sent = &host.sent[i].message;
        unsigned index = (unsigned)host.sent[i].to.ip[14] << 8 | host.sent[i].to.ip[15];
        bool check = sent->type == WIRE_GOSSIP_SYNC_CHECK;
        if ((sent->type != WIRE_GOSSIP_PING && !check) || index == silent || index > members)
            continue;
        struct wire_gossip answer = message_of(check ? WIRE_GOSSIP_SYNC_STATE : WIRE_GOSSIP_ACK);
        answer.seq = sent->seq;
        answer.view_hash = sent->view_hash;
        answer.view_count = sent->view_count;
        answer.view_check = sent->view_check;
        if (deliver(index, &answer) != 0)
            abort();
    }
}

/* Runs in steps in which all members but `silent` answer; what was sent is kept. */
static inline void run_keeping(unsigned members, unsigned silent, uint64_t us)
{
    for (uint64_t end = now_us + us; now_us < end;) {
        unsigned from = host.sent_count;
        run_for(TENTH / 2);
        answer_since(from, members, silent);
    }
}

/* The same, forgetting what was sent. */
static inline void run_answering(unsigned members, unsigned silent, uint64_t us)
{
    for (uint64_t end = now_us + us; now_us < end;) {
        forget_sent();
        run_keeping(members, silent, TENTH / 2);
    }
    forget_sent();
}

#endif
