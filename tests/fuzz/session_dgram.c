/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two datagram nodes and a middle that drops, repeats, changes and makes up datagrams: as an
 * outsider (no MAC), as a member (right MAC, right seal of an introduction, any content), with
 * time, restarts and rotations in between. What is delivered was sent by the other, once; outsiders
 * cause no output, a member none that is longer than what it sent.
 */
#include <stddef.h>
#include <stdint.h>

#include <sodium.h>

#include "../../src/session/dgram_internal.h"
#include "../unit/session_net.h"
#include "log.h"
#include "session_script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HELD_MAX 32
#define SENT_MAX 256

static struct node nodes[2];
static struct packet held[HELD_MAX]; /* what the middle has */
static unsigned held_count;
static bool arrived[2][SENT_MAX];
static unsigned sent_count[2]; /* by node */
static uint64_t now_us;

/* Takes a node's output into the middle's hands; returns the longest answer. */
static size_t collect(unsigned index)
{
    struct packet packet;
    size_t longest = 0;
    while (node_take(&nodes[index], &packet)) {
        uint8_t kind = packet.bytes[DGRAM_MAC_BYTES];
        ASSERT(packet.byte_count <= DATAGRAM_BYTES_MAX);
        if (kind != DGRAM_DATA && packet.byte_count > longest)
            longest = packet.byte_count;
        held[held_count++ % HELD_MAX] = packet;
    }
    return longest;
}

static void give(unsigned index, const struct packet *packet, bool outsider)
{
    struct node *node = &nodes[index];
    unsigned before = node->received;
    int err = node_give(node, now_us, packet);
    dgram__check_invariants(node->dgram);
    size_t answer_bytes = collect(index);
    ASSERT(answer_bytes <= packet->byte_count || answer_bytes == DGRAM_HELLO_BYTES);
    ASSERT(!outsider || (err == E_AUTH && answer_bytes == 0));
    if (node->received == before)
        return;
    ASSERT(err == 0);
    ASSERT(node->plain_bytes == 2);
    unsigned number = load_be16(node->plain);
    unsigned from = 1 - index;
    ASSERT(number < sent_count[from]);
    ASSERT(!arrived[from][number]);
    arrived[from][number] = true;
    ASSERT(memcmp(&node->from.key, &nodes[from].identity.public_key, IDENTITY_KEY_BYTES) == 0);
    ASSERT(peer_addr_equal(&node->from.addr, &nodes[from].config.self_addr));
}

static void send_one(unsigned index)
{
    uint8_t msg[2];
    if (sent_count[index] == SENT_MAX)
        return;
    store_be16(msg, (uint16_t)sent_count[index]);
    if (node_send(&nodes[index], &nodes[1 - index], now_us, msg, sizeof msg) == 0)
        sent_count[index]++;
    (void)collect(index);
}

/* A datagram of the middle's own, from the other node's address. */
static void from_script(unsigned index, struct script *script, struct packet *packet)
{
    memset(packet, 0, sizeof *packet);
    packet->from = nodes[1 - index].config.self_addr;
    packet->byte_count = script_bytes(script, packet->bytes, sizeof packet->bytes);
}

static void put_mac(unsigned index, struct packet *packet)
{
    if (packet->byte_count >= DGRAM_MAC_BYTES)
        dgram__mac(&nodes[index].dgram->secrets.slots[0], packet->bytes, packet->byte_count);
}

/* A hello or ack, well sealed, whose introduction is partly the script's. */
static void make_hello(unsigned index, struct script *script, struct packet *packet)
{
    struct dgram_hello hello = {.header = {.kind = DGRAM_HELLO}};
    struct node *other = &nodes[1 - index];
    uint8_t laid_over[INTRO_BYTES];
    if (script_byte(script) % 2 == 1) {
        struct dgram_peer *peer =
            dgram__peer_find(&nodes[index].dgram->table, &other->config.self_addr);
        hello.header.kind = DGRAM_ACK;
        if (peer != NULL && peer->pending != NULL)
            hello.header.receiver_index = peer->pending->local_index;
    }
    hello.header.sender_index = script_number(script);
    memcpy(hello.static_public, other->identity.static_public, 32);
    intro__own(&other->identity, &other->config.self_addr, &hello.intro);
    (void)script_bytes(script, hello.ephemeral, 32);
    intro__encode(&hello.intro, laid_over);
    size_t at = script_byte(script) % INTRO_BYTES;
    (void)script_bytes(script, laid_over + at, INTRO_BYTES - at);
    if (intro__decode(laid_over, sizeof laid_over, &hello.intro) != 0)
        return;
    packet->from = other->config.self_addr;
    packet->byte_count = DGRAM_HELLO_BYTES;
    dgram__hello_seal(&nodes[index].dgram->secrets.slots[0], &hello, packet->bytes);
    put_mac(index, packet);
}

enum operation {
    SEND,
    PASS,   /* one of the held datagrams, to whom it was for */
    CHANGE, /* the same with a byte changed, as an outsider */
    FORGE,  /* the same with a byte changed and the MAC put right */
    RAW,    /* bytes of the script */
    MEMBER, /* the same with a right MAC */
    HELLO,  /* well-sealed hello or ack of any content */
    WAIT,
    RESTART,
    ROTATE,
    OPERATIONS,
};

static void pass(struct script *script, enum operation operation)
{
    if (held_count == 0)
        return;
    unsigned most = held_count < HELD_MAX ? held_count : HELD_MAX;
    struct packet packet = held[(held_count - 1 - script_byte(script) % most) % HELD_MAX];
    unsigned to = packet.to.ip[15] == 1 ? 0 : 1;
    uint8_t change = operation == PASS ? 0 : script_byte(script);
    if (change != 0)
        packet.bytes[script_number(script) % packet.byte_count] ^= change;
    if (operation == FORGE)
        put_mac(to, &packet);
    give(to, &packet, operation == CHANGE && change != 0);
}

static void rotate(unsigned index, struct script *script)
{
    static const uint8_t secrets[4][2] = {{7, 9}, {9, 7}, {9, 0}, {7, 0}};
    struct admission *admission = &nodes[index].admission;
    const uint8_t *chosen = secrets[script_byte(script) % 4];
    memset(admission->secrets[0], chosen[0], CLUSTER_SECRET_BYTES);
    memset(admission->secrets[1], chosen[1], CLUSTER_SECRET_BYTES);
    admission->secret_count = chosen[1] != 0 ? 2 : 1;
    dgram_advance(nodes[index].dgram, now_us);
}

static void restart(unsigned index)
{
    int err = node_restart(&nodes[index], now_us);
    ASSERT(err == 0);
}

static void step(struct script *script)
{
    uint8_t code = script_byte(script);
    unsigned index = code >> 7;
    enum operation operation = (enum operation)((code & 0x7f) % OPERATIONS);
    struct packet packet = {.byte_count = 0};
    switch (operation) {
    case SEND:
        send_one(index);
        break;
    case PASS:
    case CHANGE:
    case FORGE:
        pass(script, operation);
        break;
    case RAW:
        from_script(index, script, &packet);
        give(index, &packet, true);
        break;
    case MEMBER:
        from_script(index, script, &packet);
        put_mac(index, &packet);
        give(index, &packet, false);
        break;
    case HELLO:
        make_hello(index, script, &packet);
        give(index, &packet, false);
        break;
    case WAIT:
        now_us += (uint64_t)script_number(script) * script_byte(script) * 1000;
        dgram_advance(nodes[index].dgram, now_us);
        (void)collect(index);
        break;
    case RESTART:
        restart(index);
        break;
    case ROTATE:
        rotate(index, script);
        (void)collect(index);
        break;
    case OPERATIONS:
        break;
    }
    dgram__check_invariants(nodes[index].dgram);
}

/* Identities cost more than all the rest: made once. */
static void start(unsigned index)
{
    static struct identity identities[2];
    struct node *node = &nodes[index];
    memset(node, 0, sizeof *node);
    world_init(&node->world, index + 1);
    if (sodium_is_zero(identities[index].secret_key, 64) == 1)
        identity_generate(&node->world.env, &identities[index]);
    world_init(&node->world, index + 1);
    node->identity = identities[index];
    world_admission(&node->admission, 7);
    node->config = (struct dgram_config){.identity = &node->identity,
                                         .admission = &node->admission,
                                         .self_addr = world_addr((uint8_t)(index + 1))};
    int err = dgram_new(&node->world.env, &node->config, now_us, &node->dgram);
    ASSERT(err == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {data, size};
    now_us = 1000000;
    held_count = 0;
    memset(arrived, 0, sizeof arrived);
    for (unsigned i = 0; i < 2; i++) {
        sent_count[i] = 0;
        start(i);
    }
    for (unsigned i = 0; i < 200 && script_more(&script); i++)
        step(&script);
    for (unsigned i = 0; i < 2; i++) {
        node_stop(&nodes[i]);
        ASSERT(nodes[i].world.live == 0);
    }
    return 0;
}
