/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole gossip core fed sequences of messages, events and time drawn from the input. Checks its
 * invariants, that it never sends too much (DHT-2, DHT-8), and that nobody dies without own pings
 * (DHT-6).
 *
 * Input: commands of one byte with arguments after it. Two of the commands take raw bytes for the
 * decoder; the others build well-formed messages with values from the input, so that the fuzzer
 * does not have to find MessagePack's framing for each of them.
 */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "gossip.h"
#include "wire_gossip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define NODES 24

static struct {
    const uint8_t *data;
    size_t left;
    struct prng prng;
    size_t sent_bytes;
    uint32_t ping_seq[NODES]; /* of the last message to each */
    uint32_t pings[NODES];
    uint64_t blocks;
} fuzz;

static uint8_t next(void)
{
    if (fuzz.left == 0)
        return 0;
    fuzz.left--;
    return *fuzz.data++;
}

/* Small, large and extreme numbers alike. */
static uint64_t number(void)
{
    uint8_t shift = next() % 64;
    return (uint64_t)next() << shift;
}

static struct peer_addr addr_of(unsigned index)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff, 10}, .port = 65002};
    addr.ip[15] = (uint8_t)(index % NODES);
    return addr;
}

static int host_send(void *self, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    static struct wire_gossip sent;
    (void)self;
    if (msg_bytes > MESSAGE_BYTES_MAX || wire_gossip_decode(msg, msg_bytes, &sent) != 0)
        abort();
    fuzz.sent_bytes += msg_bytes + DATAGRAM_OVERHEAD_MAX;
    unsigned index = to->ip[15] % NODES;
    fuzz.ping_seq[index] = sent.seq;
    fuzz.pings[index] += sent.type == WIRE_GOSSIP_PING ? 1 : 0;
    return next() == 255 ? E_AGAIN : 0;
}

static void host_random(void *self, uint8_t *out, size_t out_bytes)
{
    (void)self;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&fuzz.prng);
}

static void *host_alloc(void *self, void *old, size_t new_bytes)
{
    (void)self;
    if (new_bytes == 0) {
        fuzz.blocks--;
        free(old);
        return NULL;
    }
    if (next() == 254)
        return NULL;
    fuzz.blocks += old == NULL ? 1 : 0;
    void *block = realloc(old, new_bytes);
    if (block == NULL)
        abort();
    return block;
}

static void host_trace(void *self, enum log_level level, const char *line)
{
    (void)self;
    (void)level;
    (void)line;
}

static void fill_news(struct wire_gossip *message)
{
    struct wire_gossip_news *news = &message->news;
    news->record_count = next() % 4;
    for (unsigned i = 0; i < news->record_count; i++) {
        static const enum member_state states[] = {MEMBER_ALIVE, MEMBER_LEAVING, MEMBER_LEFT};
        news->records[i] = (struct wire_gossip_record){
            .addr = addr_of(next()), .incarnation = number(), .state = states[next() % 3]};
        news->records[i].load = next();
    }
    news->claim_count = next() % 4;
    for (unsigned i = 0; i < news->claim_count; i++) {
        struct wire_gossip_claim *claim = &news->claims[i];
        *claim = (struct wire_gossip_claim){.addr = addr_of(next()), .incarnation = number()};
        claim->state = next() % 2 == 0 ? MEMBER_SUSPECT : MEMBER_DEAD;
        claim->accuser_count = next() % (WIRE_GOSSIP_ACCUSERS_MAX + 1);
        for (unsigned k = 0; k < claim->accuser_count; k++)
            claim->accusers[k] = addr_of(next());
    }
}

static void fill_page(struct gossip *gossip, struct wire_gossip *message)
{
    for (size_t i = 0; i < sizeof message->leaves; i++)
        message->leaves[i] = next() % 2 == 0 ? 0xff : next();
    message->summary_count = 0;
    struct member member;
    for (size_t i = 0; gossip_at(gossip, i, &member) && i < 8; i++) {
        if (next() % 2 == 0)
            continue;
        static const enum member_state states[] = {MEMBER_ALIVE, MEMBER_DEAD, MEMBER_LEFT};
        message->summaries[message->summary_count++] =
            (struct wire_gossip_summary){load_be64(member.id.bytes), number(), states[next() % 3]};
    }
}

/* A well-formed message with values from the input; often an answer to what was sent last. */
static void deliver(struct gossip *gossip, uint64_t now_us)
{
    static struct wire_gossip message;
    uint8_t buffer[MESSAGE_BYTES_MAX];
    size_t bytes;
    unsigned from = next() % NODES;
    memset(&message, 0, sizeof message);
    message.type = (enum wire_gossip_type)(
        WIRE_GOSSIP_PING + next() % (WIRE_GOSSIP_SYNC_RECORDS - WIRE_GOSSIP_PING + 1));
    message.seq = next() % 4 == 0 ? (uint32_t)number() : fuzz.ping_seq[from];
    message.known_incarnation = next() % 2 == 0 ? gossip_self(gossip)->incarnation : number();
    message.known_state = (enum member_state)(next() % (MEMBER_LEFT + 1));
    message.target = addr_of(next());
    message.answered = next() % 2 == 0;
    message.view_hash = number();
    message.view_count = (uint32_t)number();
    message.more = next() % 2 == 0;
    message.want_count = next() % 4;
    for (unsigned i = 0; i < message.want_count; i++) {
        struct member wanted;
        bool there = gossip_at(gossip, next() % NODES, &wanted);
        message.wants[i] = there ? load_be64(wanted.id.bytes) : number();
    }
    if (message.type == WIRE_GOSSIP_SYNC_PAGE || message.type == WIRE_GOSSIP_SYNC_DIFF)
        fill_page(gossip, &message);
    fill_news(&message);
    size_t pad_to = next() * (size_t)4;
    if (wire_gossip_encode(&message, pad_to, buffer, sizeof buffer, &bytes) != 0)
        return;
    const struct peer_addr addr = addr_of(from);
    fuzz.sent_bytes = 0;
    (void)gossip_receive(gossip, now_us, &addr, buffer, bytes);
    bool asks = message.type == WIRE_GOSSIP_PING || message.type == WIRE_GOSSIP_SYNC_DIGEST ||
                message.type == WIRE_GOSSIP_SYNC_PAGE;
    /* Beside the answer: own record to an accuser or two, a ping of who is in doubt. */
    if (asks && fuzz.sent_bytes > 3 * (bytes + DATAGRAM_OVERHEAD_MAX) + 4096)
        abort();
}

static void deliver_raw(struct gossip *gossip, uint64_t now_us)
{
    uint8_t buffer[MESSAGE_BYTES_MAX];
    const struct peer_addr addr = addr_of(next());
    size_t bytes = next();
    for (size_t i = 0; i < bytes; i++)
        buffer[i] = next();
    (void)gossip_receive(gossip, now_us, &addr, buffer, bytes);
}

static void drain(struct gossip *gossip)
{
    struct gossip_event event;
    while (gossip_next_result(gossip, &event)) {
        unsigned index = event.member.addr.ip[15] % NODES;
        if (event.kind == GOSSIP_MEMBER_DOWN && event.member.state == MEMBER_DEAD &&
            fuzz.pings[index] < 2)
            abort(); /* DHT-6 */
        if (event.kind == GOSSIP_MEMBER_DOWN)
            fuzz.pings[index] = 0;
    }
}

static void run(struct gossip *gossip)
{
    uint64_t now_us = 1000000;
    for (unsigned steps = 0; fuzz.left > 0 && steps < 2000; steps++) {
        const struct peer_addr seed = addr_of(next());
        struct topology topology = {0};
        switch (next() % 10) {
        case 0:
            deliver_raw(gossip, now_us);
            break;
        case 1:
            now_us += (uint64_t)next() * 10000;
            gossip_advance(gossip, now_us);
            break;
        case 2:
            if (gossip_deadline_us(gossip) != UINT64_MAX && gossip_deadline_us(gossip) > now_us)
                now_us = gossip_deadline_us(gossip);
            gossip_advance(gossip, now_us);
            break;
        case 3:
            gossip_join(gossip, now_us, &seed, 1);
            break;
        case 4: {
            struct member member;
            if (gossip_at(gossip, next() % NODES, &member))
                gossip_unreachable(gossip, now_us, &member.id);
            break;
        }
        case 5:
            topology.zone.text[0] = (char)('a' + next() % 2);
            gossip_update_self(gossip, now_us, &topology, 1, next());
            if (next() == 77)
                gossip_leave(gossip, now_us, next() % 2 == 0);
            break;
        default:
            deliver(gossip, now_us);
            break;
        }
        drain(gossip);
        gossip__check_invariants(gossip);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct env env = {NULL, host_send, host_random, host_alloc, host_trace};
    struct gossip_config config = {.cluster_id = "fuzz"};
    const uint64_t seed = 1;
    memset(&fuzz, 0, sizeof fuzz);
    prng_seed(&fuzz.prng, (const uint8_t *)&seed, sizeof seed);
    fuzz.data = data;
    fuzz.left = bytes;
    config.self.addr = addr_of(0);
    struct gossip *gossip;
    if (gossip_new(&env, &config, 1000000, &gossip) == 0) {
        run(gossip);
        gossip_free(gossip);
    }
    if (fuzz.blocks != 0)
        abort();
    return 0;
}
