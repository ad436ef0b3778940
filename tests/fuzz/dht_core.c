/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole DHT core fed a script: messages of any bytes, well-formed requests, answers to what it
 * asked with any content, members, publications, lookups, time. After each step the invariants
 * must hold; no address may get more than DHT-2 allows; memory stays bounded; in the end every
 * lookup has ended exactly once and every block came back.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "dht.h"
#include "digest.h"
#include "log.h"
#include "wire_dht.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SENT_KEPT  64
#define NODES      64
#define STEPS_MAX  400
#define BYTES_MAX  (8u << 20)
#define ASKED_BACK 64 /* requests of ours that one received message may set off */

struct sent {
    struct peer_addr to;
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t msg_bytes;
};

struct host {
    struct dht *dht;
    struct sent sent[SENT_KEPT]; /* a ring */
    size_t sent_count;
    size_t answer_bytes; /* PONG, FOUND, ADDED since the last step */
    size_t bytes;
    struct prng prng;
    uint64_t now_us;
    unsigned started, ended;
};

/* ---- the host ---- */

static int host_send(void *context, const struct peer_addr *to, const uint8_t *msg,
                     size_t msg_bytes)
{
    struct host *host = context;
    struct sent *sent = &host->sent[host->sent_count++ % SENT_KEPT];
    unsigned type;
    int err = wire_type(msg, msg_bytes, &type);
    ASSERT(err == 0 && msg_bytes <= MESSAGE_BYTES_MAX && to->port != 0);
    if (type == WIRE_DHT_PONG || type == WIRE_DHT_FOUND || type == WIRE_DHT_ADDED)
        host->answer_bytes += msg_bytes;
    sent->to = *to;
    sent->msg_bytes = msg_bytes;
    memcpy(sent->msg, msg, msg_bytes);
    return 0;
}

static void host_random(void *context, uint8_t *out, size_t out_bytes)
{
    struct host *host = context;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&host->prng);
}

/* Blocks carry their size in front, so that the sum is known. */
static void *host_alloc(void *context, void *old, size_t new_bytes)
{
    struct host *host = context;
    size_t *block = old == NULL ? NULL : (size_t *)old - 2;
    host->bytes -= block == NULL ? 0 : block[0];
    if (new_bytes == 0) {
        free(block);
        return NULL;
    }
    block = realloc(block, new_bytes + 2 * sizeof *block);
    ASSERT(block != NULL);
    block[0] = new_bytes;
    host->bytes += new_bytes;
    ASSERT(host->bytes <= BYTES_MAX);
    return block + 2;
}

static void host_trace(void *context, enum log_level level, const char *line)
{
    (void)context, (void)level, (void)line;
}

/* ---- the script ---- */

struct script {
    const uint8_t *bytes;
    size_t left;
};

static uint8_t next(struct script *script)
{
    if (script->left == 0)
        return 0;
    script->left--;
    return *script->bytes++;
}

static struct dht_contact contact_of(unsigned number)
{
    struct dht_contact contact = {.addr = {.port = 65002}};
    number %= NODES;
    contact.addr.ip[0] = number % 5 == 0 ? 0xfd : 0;
    contact.addr.ip[10] = contact.addr.ip[11] = number % 5 == 0 ? 0 : 0xff;
    contact.addr.ip[15] = (uint8_t)number;
    node_id_of("fuzz", &contact.addr, &contact.id);
    return contact;
}

static struct blob_key key_of(unsigned number)
{
    struct blob_key key = {{(uint8_t)(number * 37)}};
    key.bytes[31] = (uint8_t)(number % 16);
    return key;
}

static struct topology topology_of(uint8_t choice)
{
    struct topology topology = {0};
    for (unsigned i = 0; i < choice % LABEL_BYTES_MAX; i++)
        topology.zone.text[i] = (char)('a' + choice % 26);
    topology.region.text[0] = (char)('a' + choice % 3);
    return topology;
}

static void receive(struct host *host, unsigned from, const uint8_t *msg, size_t msg_bytes)
{
    struct dht_contact contact = contact_of(from);
    struct dht_stats before, after;
    dht_stats(host->dht, &before);
    host->answer_bytes = 0;
    int err = dht_receive(host->dht, host->now_us, &contact.addr, msg, msg_bytes);
    dht_stats(host->dht, &after);
    ASSERT(host->answer_bytes <= 3 * msg_bytes);
    ASSERT(before.contacts > 0 || host->answer_bytes <= msg_bytes); /* nobody is proven */
    ASSERT(after.messages_sent - before.messages_sent <= ASKED_BACK);
    ASSERT((err == 0) == (after.rejected == before.rejected));
}

static void send_raw(struct host *host, struct script *script)
{
    uint8_t msg[MESSAGE_BYTES_MAX + 1];
    unsigned from = next(script);
    size_t msg_bytes = (size_t)next(script) * 5;
    if (msg_bytes > sizeof msg)
        msg_bytes = sizeof msg;
    for (size_t i = 0; i < msg_bytes; i++)
        msg[i] = next(script);
    receive(host, from, msg, msg_bytes);
}

static void send_request(struct host *host, struct script *script)
{
    uint8_t msg[MESSAGE_BYTES_MAX], kind = next(script);
    unsigned from = next(script);
    struct blob_key key = key_of(next(script));
    struct wire_dht_ping ping = {.request_id = from, .pad_to = next(script)};
    struct wire_dht_find find = {.request_id = from};
    struct wire_dht_add add = {.request_id = from};
    size_t used = 0;
    int err;
    find.nodes_max = next(script) % (WIRE_DHT_NODES_MAX + 1);
    find.topology = add.topology = topology_of(next(script));
    find.pad_to = ping.pad_to * 4;
    memcpy(find.key, key.bytes, sizeof find.key);
    memcpy(add.key, key.bytes, sizeof add.key);
    add.addr = contact_of(kind % 16 == 0 ? from + 1 : from).addr;
    add.completeness = next(script);
    add.sequence = next(script);
    add.ttl_ms = (uint32_t)next(script) << (next(script) % 25);
    if (kind % 4 == 0)
        err = wire_dht_encode_ping(&ping, false, msg, sizeof msg, &used);
    else if (kind % 4 == 1)
        err = wire_dht_encode_add(&add, msg, sizeof msg, &used);
    else
        err = wire_dht_encode_find(&find, kind % 4 == 2, msg, sizeof msg, &used);
    ASSERT(err == 0);
    receive(host, from, msg, used);
}

static size_t answer_find(const struct sent *sent, struct script *script, uint8_t *msg)
{
    static struct wire_dht_found found;
    struct wire_dht_find find;
    size_t used = 0;
    int err = wire_dht_decode_find(sent->msg, sent->msg_bytes, &find);
    ASSERT(err == 0);
    found.request_id = find.request_id;
    memcpy(found.key, find.key, sizeof found.key);
    found.topology_count = 1 + next(script) % 2;
    found.topologies[0] = topology_of(next(script));
    found.topologies[1] = topology_of(next(script));
    found.provider_count = next(script) % (WIRE_DHT_PROVIDERS_MAX + 1);
    for (size_t i = 0; i < found.provider_count; i++) {
        found.providers[i].addr = contact_of(next(script)).addr;
        found.providers[i].addr.ip[14] = next(script);
        found.providers[i].topology_index = (uint8_t)(i % found.topology_count);
    }
    found.node_count = next(script) % (WIRE_DHT_NODES_MAX + 1);
    for (size_t i = 0; i < found.node_count; i++) {
        found.nodes[i] = contact_of(next(script)).addr;
        found.nodes[i].port = next(script) == 0 ? 0 : 65002;
    }
    err = wire_dht_encode_found(&found, msg, MESSAGE_BYTES_MAX, &used);
    ASSERT(err == 0 || err == E_TOO_LARGE);
    return err == 0 ? used : 0;
}

/* The id is right, the content is the script's. */
static void answer(struct host *host, struct script *script)
{
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used = 0, kept = host->sent_count < SENT_KEPT ? host->sent_count : SENT_KEPT;
    struct wire_dht_ping ping;
    struct wire_dht_add add;
    unsigned type;
    if (kept == 0)
        return;
    const struct sent sent = host->sent[(host->sent_count - 1 - next(script) % kept) % SENT_KEPT];
    int err = wire_type(sent.msg, sent.msg_bytes, &type);
    ASSERT(err == 0);
    if (type == WIRE_DHT_FIND_NODE || type == WIRE_DHT_FIND_PROVIDERS) {
        used = answer_find(&sent, script, msg);
    } else if (type == WIRE_DHT_PING) {
        err = wire_dht_decode_ping(sent.msg, sent.msg_bytes, &ping);
        ASSERT(err == 0);
        err = wire_dht_encode_ping(&ping, true, msg, sizeof msg, &used);
    } else if (type == WIRE_DHT_ADD_PROVIDER) {
        err = wire_dht_decode_add(sent.msg, sent.msg_bytes, &add);
        ASSERT(err == 0);
        struct wire_dht_added added = {.request_id = add.request_id,
                                       .status = next(script) % 5,
                                       .sequence = add.sequence + next(script)};
        memcpy(added.key, add.key, sizeof added.key);
        err = wire_dht_encode_added(&added, msg, sizeof msg, &used);
    }
    ASSERT(err == 0);
    if (used > 0)
        (void)!dht_receive(host->dht, host->now_us, &sent.to, msg, used);
}

static void drain(struct host *host)
{
    static struct dht_result result;
    while (dht_next_result(host->dht, &result)) {
        host->ended++;
        ASSERT((result.status == 0) == (result.provider_count > 0));
        ASSERT(result.provider_count <= DHT_RESULT_PROVIDERS_MAX && result.closest_count <= 8);
    }
}

static void step(struct host *host, struct script *script)
{
    uint8_t op = next(script);
    unsigned number = op >> 4;
    struct blob_key key = key_of(number);
    struct dht_contact contact = contact_of(op & 8 ? next(script) : number);
    struct peer_addr addrs[2] = {contact.addr, contact_of(number + 1).addr};
    uint64_t lookup_id;
    switch (op & 7) {
    case 0:
        send_raw(host, script);
        break;
    case 1:
        send_request(host, script);
        break;
    case 2:
    case 3:
        answer(host, script);
        break;
    case 4:
        host->now_us += (uint64_t)next(script) << (op >> 3);
        dht_advance(host->dht, host->now_us);
        break;
    case 5:
        host->started +=
            (op & 8 ? dht_lookup(host->dht, host->now_us, &key, &lookup_id)
                    : dht_lookup_iterative(host->dht, host->now_us, &key, &lookup_id)) == 0;
        break;
    case 6:
        if (op & 8)
            (void)!dht_publish(host->dht, host->now_us, &key, next(script));
        else
            dht_unpublish(host->dht, host->now_us, &key);
        break;
    default:
        if (number == 0)
            dht_bootstrap(host->dht, host->now_us, addrs, 2);
        else if (number % 3 == 0)
            dht_member_down(host->dht, host->now_us, &contact.id);
        else
            (void)!dht_member_up(host->dht, host->now_us, &contact);
        break;
    }
    drain(host);
    dht__check_invariants(host->dht);
}

/* Runs on by deadlines alone until the lookups are over; deadlines must move. */
static void finish(struct host *host)
{
    uint64_t end_us = host->now_us + 30 * 1000000ULL;
    for (unsigned turns = 0; dht_deadline_us(host->dht) <= end_us; turns++) {
        ASSERT(turns < 20000);
        if (dht_deadline_us(host->dht) > host->now_us)
            host->now_us = dht_deadline_us(host->dht);
        dht_advance(host->dht, host->now_us);
    }
    drain(host);
    dht__check_invariants(host->dht);
    ASSERT(host->started == host->ended);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct host host;
    const uint8_t seed[] = {1};
    struct script script = {data, size};
    struct env env = {&host, host_send, host_random, host_alloc, host_trace};
    struct dht_config config = {.cluster_id = "fuzz", .self = contact_of(0)};
    uint8_t options = next(&script);
    memset(&host, 0, sizeof host);
    prng_seed(&host.prng, seed, sizeof seed);
    config.one_hop = options & 1;
    config.k = options & 2 ? 3 : 0;
    config.paths = options >> 2 & 3;
    config.alpha = options >> 4 & 7;
    int err = dht_new(&env, &config, 0, &host.dht);
    ASSERT(err == 0);
    for (unsigned i = 0; i < STEPS_MAX && script.left > 0; i++)
        step(&host, &script);
    finish(&host);
    dht_free(host.dht);
    ASSERT(host.bytes == 0);
    return 0;
}
