/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wiring of one node, by what shows through its public face: members reach DHT and transfer,
 * transfer's wishes reach the DHT and gossip and never the host, answers reach who asked. A few
 * meshes in one process; messages take a millisecond; the host is scripted by each test.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "mesh.h"
#include "topology.h"
#include "wire_dht.h"

#define MS_US     1000ULL
#define S_US      1000000ULL
#define NODES_MAX 6
#define QUEUE_MAX 4096
#define NOTES_MAX 2048

static const char cluster[] = "unit";

struct note {
    enum mesh_event_kind kind;
    struct transfer_result transfer;
    enum gossip_event_kind change;
    struct node_id member;
    uint64_t lookup_id;
    int status;
    size_t provider_count;
    unsigned hops;
};

struct packet {
    uint64_t at_us;
    unsigned from, to;
    size_t msg_bytes;
    uint8_t msg[MESSAGE_BYTES_MAX];
};

struct net;
struct node {
    struct net *net;
    unsigned number;
    struct env env;
    struct prng prng;
    struct peer_addr addr;
    struct mesh *mesh; /* NULL: not there */
    struct note *notes;
    size_t note_count;
    size_t blocks, calls, fail_at; /* allocations: now, so far, the one that fails */
    size_t sent_gossip_to[NODES_MAX], sent_transfer_to[NODES_MAX];
};

struct net {
    uint64_t now_us;
    struct packet *queue; /* in order of at_us: all take the same time */
    size_t first, count;
    struct node nodes[NODES_MAX];
    bool serve; /* sessions come up and pieces arrive by themselves */
};

/* ---- the host side ---- */

static int env_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct node *node = host;
    struct net *net = node->net;
    unsigned target = to->ip[15], type = 0;
    assert_true(msg_bytes > 0 && msg_bytes <= MESSAGE_BYTES_MAX);
    if (target >= NODES_MAX)
        return E_UNREACHABLE;
    assert_int_equal(wire_type(msg, msg_bytes, &type), 0);
    node->sent_gossip_to[target] += type <= WIRE_GOSSIP_LAST;
    node->sent_transfer_to[target] += type >= WIRE_TRANSFER_FIRST;
    assert_true(net->count < QUEUE_MAX);
    struct packet *packet = &net->queue[(net->first + net->count++) % QUEUE_MAX];
    *packet = (struct packet){
        .at_us = net->now_us + MS_US, .from = node->number, .to = target, .msg_bytes = msg_bytes};
    memcpy(packet->msg, msg, msg_bytes);
    return 0;
}

static void env_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct node *node = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&node->prng);
}

static void *env_alloc(void *host, void *old, size_t new_bytes)
{
    struct node *node = host;
    if (new_bytes == 0) {
        node->blocks -= old != NULL;
        free(old);
        return NULL;
    }
    if (++node->calls == node->fail_at)
        return NULL;
    node->blocks += old == NULL;
    return realloc(old, new_bytes);
}

static void env_trace(void *host, enum log_level level, const char *line)
{
    (void)host, (void)level, (void)line;
}

static void config_of(const struct node *node, struct mesh_config *out)
{
    *out = (struct mesh_config){.cluster_id = cluster, .self_addr = node->addr};
    out->self_key.bytes[0] = (uint8_t)(node->number + 1);
    assert_int_equal(label_set(&out->topology.zone, "z", 1), 0);
    out->dht.one_hop = true;
}

static void note_event(struct node *node, const struct mesh_event *event)
{
    assert_true(node->note_count < NOTES_MAX);
    struct note *note = &node->notes[node->note_count++];
    *note = (struct note){.kind = event->kind};
    if (event->kind == MESH_TRANSFER) {
        note->transfer = event->of.transfer;
    } else if (event->kind == MESH_MEMBER) {
        note->change = event->of.member.kind;
        note->member = event->of.member.member.id;
    } else {
        note->lookup_id = event->of.lookup->lookup_id;
        note->status = event->of.lookup->status;
        note->provider_count = event->of.lookup->provider_count;
        note->hops = event->of.lookup->hops;
    }
}

static void serve(struct node *node, const struct transfer_result *result);

/* Takes all results; those that are not the host's must not be among them. */
static void drain(struct node *node)
{
    struct mesh_event event;
    while (node->mesh != NULL && mesh_next_result(node->mesh, node->net->now_us, &event)) {
        note_event(node, &event);
        if (event.kind != MESH_TRANSFER)
            continue;
        assert_int_not_equal(event.of.transfer.kind, TRANSFER_LOCATE);
        assert_int_not_equal(event.of.transfer.kind, TRANSFER_PUBLISH);
        assert_int_not_equal(event.of.transfer.kind, TRANSFER_PEER_SILENT);
        if (node->net->serve)
            serve(node, &event.of.transfer);
    }
}

/* Sessions come up at once on both sides; every piece arrives at once and is right. */
static void serve(struct node *node, const struct transfer_result *result)
{
    struct net *net = node->net;
    struct transfer *transfer = mesh_transfer(node->mesh);
    struct node *peer = &net->nodes[result->peer_addr.ip[15] % NODES_MAX];
    if (result->kind == TRANSFER_CONNECT) {
        if (peer->mesh == NULL) {
            transfer_session_down(transfer, net->now_us, &result->peer, E_UNREACHABLE);
            return;
        }
        transfer_session_up(transfer, net->now_us, &result->peer);
        transfer_session_up(mesh_transfer(peer->mesh), net->now_us, mesh_self(node->mesh));
    } else if (result->kind == TRANSFER_UPLOAD) {
        struct transfer *theirs = mesh_transfer(peer->mesh);
        struct piece_source source = {.origin = PIECE_FROM_PEER, .peer = *mesh_self(node->mesh)};
        transfer_piece_done(theirs, net->now_us, transfer_blob_find(theirs, &result->key),
                            result->piece, &source, 0);
        transfer_upload_end(transfer, net->now_us, result->id, 1, 0);
        drain(peer);
    } else if (result->kind == TRANSFER_FETCH) {
        struct piece_source source = {.origin = PIECE_FROM_ORIGIN, .fetch_id = result->id};
        for (uint32_t i = 0; i < result->piece_count; i++)
            transfer_piece_done(transfer, net->now_us, result->blob, result->piece + i, &source, 0);
        transfer_fetch_end(transfer, net->now_us, result->id, 0, 0);
    }
}

/* ---- the net ---- */

static void deliver(struct net *net)
{
    struct packet packet = net->queue[net->first];
    net->first = (net->first + 1) % QUEUE_MAX;
    net->count--;
    net->now_us = packet.at_us;
    struct node *to = &net->nodes[packet.to];
    const struct node *from = &net->nodes[packet.from];
    if (to->mesh == NULL)
        return;
    struct node_id from_id;
    node_id_of(cluster, &from->addr, &from_id);
    int err =
        mesh_receive(to->mesh, net->now_us, &from_id, &from->addr, packet.msg, packet.msg_bytes);
    assert_int_not_equal(err, E_MALFORMED);
    assert_int_not_equal(err, E_NOT_FOUND);
    drain(to);
}

static struct node *next_due(struct net *net, uint64_t *due_us)
{
    struct node *next = NULL;
    *due_us = UINT64_MAX;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        if (net->nodes[i].mesh == NULL || mesh_deadline_us(net->nodes[i].mesh) >= *due_us)
            continue;
        next = &net->nodes[i];
        *due_us = mesh_deadline_us(next->mesh);
    }
    return next;
}

static void run(struct net *net, uint64_t for_us)
{
    uint64_t until_us = net->now_us + for_us;
    for (;;) {
        uint64_t due_us;
        struct node *node = next_due(net, &due_us);
        uint64_t packet_us = net->count == 0 ? UINT64_MAX : net->queue[net->first].at_us;
        if ((due_us < packet_us ? due_us : packet_us) > until_us)
            break;
        if (packet_us <= due_us) {
            deliver(net);
            continue;
        }
        net->now_us = due_us > net->now_us ? due_us : net->now_us;
        mesh_advance(node->mesh, net->now_us);
        drain(node);
        mesh__check_invariants(node->mesh);
    }
    net->now_us = until_us;
}

static void start(struct net *net, unsigned number, const struct mesh_config *given)
{
    struct node *node = &net->nodes[number];
    struct mesh_config config;
    config_of(node, &config);
    assert_int_equal(
        mesh_new(&node->env, given == NULL ? &config : given, net->now_us, &node->mesh), 0);
    gossip_join(mesh_gossip(node->mesh), net->now_us, &net->nodes[0].addr, 1);
    drain(node);
}

/* Gone without a word. */
static void kill_node(struct net *net, unsigned number)
{
    mesh_free(net->nodes[number].mesh);
    net->nodes[number].mesh = NULL;
    assert_int_equal(net->nodes[number].blocks, 0);
}

static int set_up(void **state)
{
    struct net *net = calloc(1, sizeof *net);
    assert_non_null(net);
    net->now_us = 1000 * S_US;
    net->queue = calloc(QUEUE_MAX, sizeof *net->queue);
    assert_non_null(net->queue);
    for (unsigned i = 0; i < NODES_MAX; i++) {
        struct node *node = &net->nodes[i];
        uint8_t seed = (uint8_t)i;
        *node = (struct node){.net = net, .number = i};
        node->addr = (struct peer_addr){.port = 65002};
        node->addr.ip[10] = node->addr.ip[11] = 0xff;
        node->addr.ip[12] = 10;
        node->addr.ip[15] = (uint8_t)i;
        prng_seed(&node->prng, &seed, 1);
        node->notes = calloc(NOTES_MAX, sizeof *node->notes);
        assert_non_null(node->notes);
        node->env = (struct env){node, env_send, env_random, env_alloc, env_trace};
    }
    *state = net;
    return 0;
}

static int tear_down(void **state)
{
    struct net *net = *state;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        kill_node(net, i);
        free(net->nodes[i].notes);
    }
    free(net->queue);
    free(net);
    return 0;
}

static struct net *started(void **state, unsigned count)
{
    struct net *net = *state;
    for (unsigned i = 0; i < count; i++)
        start(net, i, NULL);
    run(net, 5 * S_US);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(gossip_count(mesh_gossip(net->nodes[i].mesh)), count);
    return net;
}

static size_t changes(const struct node *node, enum gossip_event_kind change, unsigned of)
{
    struct node_id id;
    size_t count = 0;
    node_id_of(cluster, &node->net->nodes[of].addr, &id);
    for (size_t i = 0; i < node->note_count; i++)
        count += node->notes[i].kind == MESH_MEMBER && node->notes[i].change == change &&
                 node_id_equal(&node->notes[i].member, &id);
    return count;
}

static const struct note *transfer_note(const struct node *node, enum transfer_result_kind kind)
{
    for (size_t i = 0; i < node->note_count; i++) {
        if (node->notes[i].kind == MESH_TRANSFER && node->notes[i].transfer.kind == kind)
            return &node->notes[i];
    }
    return NULL;
}

static struct blob_info blob(unsigned number, uint64_t size_bytes)
{
    static const uint8_t lookup_key[32] = {7};
    struct blob_info info = {.size_bytes = size_bytes};
    digest_of(DIGEST_SHA256, &number, sizeof number, &info.digest);
    blob_key_of(lookup_key, &info.digest, &info.key);
    return info;
}

/* Opens a blob on a node, with all its pieces or none. */
static blob_handle open_blob(struct net *net, unsigned number, const struct blob_info *info,
                             bool whole)
{
    struct node *node = &net->nodes[number];
    struct piece_layout layout;
    struct bitfield have;
    blob_handle handle = 0;
    assert_int_equal(piece_layout_of(info->size_bytes, &layout), 0);
    assert_int_equal(bitfield_init(&have, &node->env, layout.piece_count), 0);
    for (uint32_t i = 0; whole && i < layout.piece_count; i++)
        bitfield_set(&have, i);
    assert_int_equal(
        transfer_blob_open(mesh_transfer(node->mesh), net->now_us, info, &have, &handle), 0);
    bitfield_close(&have, &node->env);
    drain(node);
    return handle;
}

/* A client begins to read the whole blob. */
static void start_read(struct net *net, unsigned number, blob_handle handle, bool can_fetch)
{
    struct transfer *transfer = mesh_transfer(net->nodes[number].mesh);
    uint32_t pieces = transfer_blob_layout(transfer, handle)->piece_count;
    uint64_t reader;
    assert_int_equal(transfer_read_start(transfer, net->now_us, handle, 0, pieces,
                                         TRANSFER_READ_STREAM, can_fetch, &reader),
                     0);
    drain(&net->nodes[number]);
}

/* What one lookup of the host says. */
static struct note look_up(struct net *net, unsigned number, const struct blob_key *key,
                           bool iterative)
{
    struct node *node = &net->nodes[number];
    uint64_t id = 0;
    size_t before = node->note_count;
    struct note answer = {.kind = 0};
    unsigned answers = 0;
    assert_int_equal(iterative ? mesh_lookup_iterative(node->mesh, net->now_us, key, &id)
                               : mesh_lookup(node->mesh, net->now_us, key, &id),
                     0);
    drain(node);
    run(net, 12 * S_US);
    for (size_t i = before; i < node->note_count; i++) {
        if (node->notes[i].kind != MESH_LOOKUP)
            continue;
        answer = node->notes[i];
        answers++;
    }
    assert_int_equal(answers, 1);
    assert_true(answer.lookup_id == id);
    return answer;
}

/* ---- life ---- */

static void bad_tunables_are_refused(void **state)
{
    struct net *net = *state;
    struct node *node = &net->nodes[0];
    struct mesh_config config;
    struct mesh *mesh = NULL;
    config_of(node, &config);
    config.dht.k = 1000;
    assert_int_equal(mesh_new(&node->env, &config, net->now_us, &mesh), E_INVALID);
    assert_null(mesh);
    assert_int_equal(node->blocks, 0);
    mesh_free(NULL);
}

static void no_allocation_may_fail_unnoticed_D_9(void **state)
{
    struct net *net = *state;
    struct node *node = &net->nodes[0];
    struct mesh_config config;
    struct mesh *mesh = NULL;
    size_t failed = 0;
    config_of(node, &config);
    for (;; failed++) {
        node->calls = 0;
        node->fail_at = failed + 1;
        int err = mesh_new(&node->env, &config, net->now_us, &mesh);
        if (err == 0)
            break;
        assert_int_equal(err, E_NO_MEMORY);
        assert_null(mesh);
        assert_int_equal(node->blocks, 0);
    }
    assert_true(failed >= 5); /* the mesh, its answer, and three parts at least */
    node->fail_at = 0;
    mesh_free(mesh);
    assert_int_equal(node->blocks, 0);
}

static void the_id_follows_from_the_address_PEER_4(void **state)
{
    struct net *net = *state;
    struct node_id expected;
    start(net, 2, NULL);
    node_id_of(cluster, &net->nodes[2].addr, &expected);
    assert_true(node_id_equal(mesh_self(net->nodes[2].mesh), &expected));
    assert_true(node_id_equal(&gossip_self(mesh_gossip(net->nodes[2].mesh))->id, &expected));
}

/* ---- messages ---- */

/* From members only, so many at a time, oldest first; the answer goes to who asked. */
static void orders_reach_the_host(void **state)
{
    struct net *net = started(state, 2);
    struct mesh *mesh = net->nodes[0].mesh;
    const struct node_id *from = mesh_self(net->nodes[1].mesh), stranger = {{1}};
    const struct peer_addr *addr = &net->nodes[1].addr;
    struct mesh_event event;
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used;
    struct wire_order order = {
        .type = WIRE_ORDER_TELL, .count = 1, .blobs[0].state = WIRE_ORDER_DONE};
    while (mesh_next_result(mesh, net->now_us, &event))
        ;
    for (unsigned i = 0; i < 17; i++) {
        order.serial = i;
        assert_int_equal(wire_order_encode(&order, msg, sizeof msg, &used), 0);
        assert_int_equal(mesh_receive(mesh, net->now_us, &stranger, addr, msg, used), E_DENIED);
        assert_int_equal(mesh_receive(mesh, net->now_us, from, addr, msg, used),
                         i < 16 ? 0 : E_FULL);
    }
    for (unsigned i = 0; i < 16; i++) {
        assert_true(mesh_next_result(mesh, net->now_us, &event));
        assert_int_equal(event.kind, MESH_ORDER);
        assert_true(event.of.order->order.serial == i);
        assert_true(node_id_equal(&event.of.order->from, from));
        assert_true(peer_addr_equal(&event.of.order->addr, addr));
        assert_int_equal(event.of.order->order.blobs[0].state, WIRE_ORDER_DONE);
    }
    assert_false(mesh_next_result(mesh, net->now_us, &event));
    assert_int_not_equal(mesh_receive(mesh, net->now_us, from, addr, msg, used - 1), 0);
    assert_false(mesh_next_result(mesh, net->now_us, &event));
    assert_int_equal(mesh_order_send(mesh, addr, &order), 0);
    order.count = 0;
    assert_int_equal(mesh_order_send(mesh, addr, &order), E_INVALID);
    mesh__check_invariants(mesh);
}

static void messages_reach_their_part(void **state)
{
    struct net *net = started(state, 2);
    struct mesh *mesh = net->nodes[0].mesh;
    const struct node_id *from = mesh_self(net->nodes[1].mesh);
    const struct peer_addr *addr = &net->nodes[1].addr;
    /* A one-element array [type]: too short for all, and refused by the part it belongs to. */
    const unsigned types[] = {WIRE_GOSSIP_FIRST, WIRE_DHT_FIRST, WIRE_TRANSFER_FIRST};
    uint64_t rejected[3][2];
    for (unsigned round = 0; round < 2; round++) {
        struct gossip_stats gossip;
        struct dht_stats dht;
        struct transfer_stats transfer;
        gossip_stats(mesh_gossip(mesh), &gossip);
        dht_stats(mesh_dht(mesh), &dht);
        transfer_stats(mesh_transfer(mesh), &transfer);
        rejected[0][round] = gossip.rejected;
        rejected[1][round] = dht.rejected;
        rejected[2][round] = transfer.rejected;
        for (unsigned i = 0; i < 3 && round == 0; i++) {
            const uint8_t msg[] = {0x91, (uint8_t)types[i]};
            int err = mesh_receive(mesh, net->now_us, from, addr, msg, sizeof msg);
            assert_true(err == E_MALFORMED || err == E_TRUNCATED);
        }
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rejected[i][1], rejected[i][0] + 1);
    const uint8_t unknown[] = {0x91, 0x7f};
    assert_int_equal(mesh_receive(mesh, net->now_us, from, addr, unknown, sizeof unknown),
                     E_NOT_FOUND);
    const uint8_t garbage[] = {0xc1, 0xff, 0x00};
    assert_int_not_equal(mesh_receive(mesh, net->now_us, from, addr, garbage, sizeof garbage), 0);
    assert_int_not_equal(mesh_receive(mesh, net->now_us, from, addr, garbage, 0), 0);
    mesh__check_invariants(mesh);
}

static void the_deadline_is_the_earliest_of_the_parts(void **state)
{
    struct net *net = started(state, 3);
    struct mesh *mesh = net->nodes[1].mesh;
    struct blob_info info = blob(8, 4 << 20);
    start_read(net, 1, open_blob(net, 1, &info, false), true);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t told_us = mesh_deadline_us(mesh); /* before the parts are asked for */
        uint64_t parts[] = {gossip_deadline_us(mesh_gossip(mesh)), dht_deadline_us(mesh_dht(mesh)),
                            transfer_deadline_us(mesh_transfer(mesh))};
        uint64_t earliest = parts[0] < parts[1] ? parts[0] : parts[1];
        earliest = parts[2] < earliest ? parts[2] : earliest;
        assert_true(told_us == earliest);
        assert_true(mesh_deadline_us(mesh) == earliest);
        run(net, 37 * MS_US);
    }
}

/* Whoever is named as sender, and with or without a blob: it is a hint and nothing else. */
static void a_look_ahead_changes_nothing(void **state)
{
    struct net *net = started(state, 3);
    struct mesh *mesh = net->nodes[1].mesh;
    struct node_id nobody = {.bytes = {1}};
    const struct node_id *senders[] = {NULL, &nobody, mesh_self(net->nodes[0].mesh)};
    struct blob_info info = blob(9, 4 << 20);
    for (unsigned round = 0; round < 3; round++) {
        struct transfer_stats before, after;
        uint64_t told_us = mesh_deadline_us(mesh);
        transfer_stats(mesh_transfer(mesh), &before);
        for (unsigned i = 0; i < 3 * (TRANSFER_LOOK_AHEAD_STEPS + 2); i++)
            mesh_look_ahead(mesh, i / 3, senders[i % 3]);
        transfer_stats(mesh_transfer(mesh), &after);
        assert_memory_equal(&before, &after, sizeof before);
        assert_true(mesh_deadline_us(mesh) == told_us);
        mesh__check_invariants(mesh);
        if (round == 0) {
            (void)open_blob(net, 0, &info, true);
            start_read(net, 1, open_blob(net, 1, &info, false), true);
        }
        run(net, 300 * MS_US);
    }
}

/* ---- members ---- */

static void members_reach_host_dht_and_transfer(void **state)
{
    struct net *net = started(state, 3);
    struct blob_info info = blob(1, 1 << 20);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned j = 0; j < 3; j++)
            assert_int_equal(changes(&net->nodes[i], GOSSIP_MEMBER_UP, j), i != j);
    }
    /* The DHT asks members, so it must know them: with one hop the record is found. */
    assert_int_equal(dht_publish(mesh_dht(net->nodes[1].mesh), net->now_us, &info.key, 255), 0);
    drain(&net->nodes[1]);
    run(net, 1 * S_US);
    struct note answer = look_up(net, 2, &info.key, false);
    assert_int_equal(answer.status, 0);
    assert_int_equal(answer.provider_count, 1);
    /* Transfer must know them, too: a read is not FETCH_ALONE's. */
    blob_handle handle = open_blob(net, 0, &info, false);
    start_read(net, 0, handle, true);
    run(net, 200 * MS_US);
    const struct note *fetch = transfer_note(&net->nodes[0], TRANSFER_FETCH);
    assert_non_null(fetch);
    assert_int_equal(fetch->transfer.reason, FETCH_LEASE);
}

static void a_dead_member_leaves_all_parts(void **state)
{
    struct net *net = started(state, 4);
    struct blob_info info = blob(2, 1 << 20);
    assert_int_equal(dht_publish(mesh_dht(net->nodes[3].mesh), net->now_us, &info.key, 255), 0);
    drain(&net->nodes[3]);
    run(net, 1 * S_US);
    assert_int_equal(look_up(net, 1, &info.key, false).provider_count, 1);
    kill_node(net, 3);
    run(net, 30 * S_US);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(changes(&net->nodes[i], GOSSIP_MEMBER_DOWN, 3), 1);
    struct note answer = look_up(net, 1, &info.key, false);
    assert_int_equal(answer.status, E_NOT_FOUND);
    assert_int_equal(answer.provider_count, 0);
    /* Nor is it a keeper any more: nobody asks it for a lease or a piece. */
    start_read(net, 1, open_blob(net, 1, &info, false), true);
    run(net, 3 * S_US);
    assert_true(net->nodes[1].sent_transfer_to[0] + net->nodes[1].sent_transfer_to[2] > 0);
    assert_int_equal(net->nodes[1].sent_transfer_to[3], 0);
}

static struct topology zone_called(const char *name)
{
    struct topology topology = {0};
    assert_int_equal(label_set(&topology.zone, name, strlen(name)), 0);
    return topology;
}

static void new_labels_reach_everybody(void **state)
{
    struct net *net = started(state, 4);
    struct node *node = &net->nodes[0];
    struct blob_info info = blob(5, 8 << 20);
    struct topology topology = zone_called("y");
    struct member member;
    net->serve = true;
    (void)open_blob(net, 1, &info, true);
    run(net, 30 * S_US);
    blob_handle handle = open_blob(net, 0, &info, false);
    start_read(net, 0, handle, false);
    run(net, 2 * MS_US); /* in the middle of a pull */
    assert_null(transfer_note(node, TRANSFER_BLOB_COMPLETE));
    assert_int_equal(mesh_update_self(node->mesh, net->now_us, &topology), 0);
    drain(node);
    mesh__check_invariants(node->mesh);
    run(net, 3 * S_US);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(gossip_find(mesh_gossip(net->nodes[i].mesh), mesh_self(node->mesh), &member));
        assert_string_equal(member.topology.zone.text, "y");
        assert_int_equal(member.state, MEMBER_ALIVE);
        assert_int_equal(changes(&net->nodes[i], GOSSIP_MEMBER_DOWN, 0), 0);
    }
    assert_true(changes(&net->nodes[3], GOSSIP_MEMBER_CHANGED, 0) >= 1);
    run(net, 10 * S_US);
    assert_non_null(transfer_note(node, TRANSFER_BLOB_COMPLETE));
    struct transfer_stats stats;
    transfer_stats(mesh_transfer(node->mesh), &stats);
    assert_true(stats.bytes_by_distance[DISTANCE_REGION] > 0); /* the others stand in "z" */
}

static void labels_without_memory_stay_as_they_were(void **state)
{
    struct net *net = started(state, 2);
    struct node *node = &net->nodes[0];
    const struct gossip *gossip = mesh_gossip(node->mesh);
    size_t refused = 0;
    for (unsigned i = 0; i < 200; i++) { /* tables have some room and grow now and then */
        char name[16];
        (void)snprintf(name, sizeof name, "zone-%u", i);
        struct topology topology = zone_called(name);
        uint64_t before = gossip_self(gossip)->incarnation;
        node->calls = 0;
        node->fail_at = 1;
        int err = mesh_update_self(node->mesh, net->now_us, &topology);
        node->fail_at = 0;
        mesh__check_invariants(node->mesh);
        if (err != 0) {
            assert_int_equal(err, E_NO_MEMORY);
            assert_true(gossip_self(gossip)->incarnation == before);
            refused++;
        }
        assert_int_equal(mesh_update_self(node->mesh, net->now_us, &topology), 0);
        assert_string_equal(gossip_self(gossip)->topology.zone.text, name);
        drain(node);
        run(net, S_US / 10);
    }
    assert_true(refused >= 1);
}

static void leaving_is_told_in_two_steps(void **state)
{
    struct net *net = started(state, 3);
    mesh_leave(net->nodes[2].mesh, net->now_us, false);
    drain(&net->nodes[2]);
    run(net, 1 * S_US);
    struct member seen;
    assert_true(gossip_find(mesh_gossip(net->nodes[0].mesh), mesh_self(net->nodes[2].mesh), &seen));
    assert_int_equal(seen.state, MEMBER_LEAVING);
    assert_true(changes(&net->nodes[0], GOSSIP_MEMBER_CHANGED, 2) >= 1);
    assert_int_equal(changes(&net->nodes[0], GOSSIP_MEMBER_DOWN, 2), 0);
    mesh_leave(net->nodes[2].mesh, net->now_us, true);
    drain(&net->nodes[2]);
    kill_node(net, 2);
    run(net, 1 * S_US);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(changes(&net->nodes[i], GOSSIP_MEMBER_DOWN, 2), 1);
        assert_int_equal(gossip_count(mesh_gossip(net->nodes[i].mesh)), 2);
    }
}

/* Bootstrap from a snapshot: all parts know the members, the host is told of none; who is gone by
 * then is found out and leaves all parts. */
static void a_snapshot_seeds_all_parts(void **state)
{
    struct net *net = *state;
    struct member members[4];
    struct blob_info info = blob(9, 1 << 20);
    for (unsigned i = 0; i < 4; i++) {
        struct mesh_config config;
        config_of(&net->nodes[i], &config);
        assert_int_equal(mesh_new(&net->nodes[i].env, &config, net->now_us, &net->nodes[i].mesh),
                         0);
        members[i] = *gossip_self(mesh_gossip(net->nodes[i].mesh));
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(mesh_seed_members(net->nodes[i].mesh, net->now_us, members, 4), 0);
        drain(&net->nodes[i]);
        assert_int_equal(gossip_count(mesh_gossip(net->nodes[i].mesh)), 4);
        assert_int_equal(net->nodes[i].note_count, 0);
        mesh__check_invariants(net->nodes[i].mesh);
    }
    /* The DHT answers in one hop, transfer asks the members for leases. */
    assert_int_equal(dht_publish(mesh_dht(net->nodes[0].mesh), net->now_us, &info.key, 255), 0);
    drain(&net->nodes[0]);
    run(net, 1 * S_US);
    struct note answer = look_up(net, 1, &info.key, false);
    assert_int_equal(answer.status, 0);
    start_read(net, 1, open_blob(net, 1, &info, false), true);
    run(net, 1 * S_US);
    assert_true(net->nodes[1].sent_transfer_to[0] + net->nodes[1].sent_transfer_to[2] +
                    net->nodes[1].sent_transfer_to[3] >
                0);
    kill_node(net, 3);
    run(net, 30 * S_US);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(gossip_count(mesh_gossip(net->nodes[i].mesh)), 3);
        assert_int_equal(changes(&net->nodes[i], GOSSIP_MEMBER_DOWN, 3), 1);
    }
}

static size_t count_notes(const struct node *node, enum transfer_result_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < node->note_count; i++)
        count += node->notes[i].kind == MESH_TRANSFER && node->notes[i].transfer.kind == kind;
    return count;
}

static void who_leaves_begins_no_upload(void **state)
{
    struct net *net = *state;
    struct blob_info info = blob(9, 8 << 20);
    struct mesh_config config;
    config_of(&net->nodes[1], &config);
    config.transfer.upload_slots = 1;
    start(net, 0, NULL);
    start(net, 1, &config);
    run(net, 5 * S_US);
    (void)open_blob(net, 1, &info, true);
    start_read(net, 0, open_blob(net, 0, &info, false), false);
    for (unsigned i = 0; i < 40 && transfer_note(&net->nodes[1], TRANSFER_UPLOAD) == NULL; i++) {
        const struct note *connect = transfer_note(&net->nodes[0], TRANSFER_CONNECT);
        if (connect != NULL && i % 10 == 9)
            serve(&net->nodes[0], &connect->transfer);
        run(net, 50 * MS_US);
    }
    const struct note *upload = transfer_note(&net->nodes[1], TRANSFER_UPLOAD);
    assert_non_null(upload);
    assert_int_equal(count_notes(&net->nodes[1], TRANSFER_UPLOAD), 1); /* others wait */
    mesh_leave(net->nodes[1].mesh, net->now_us, false);
    transfer_upload_end(mesh_transfer(net->nodes[1].mesh), net->now_us, upload->transfer.id, 1, 0);
    drain(&net->nodes[1]);
    run(net, 1 * S_US);
    assert_int_equal(count_notes(&net->nodes[1], TRANSFER_UPLOAD), 1);
}

/* ---- transfer and the DHT ---- */

static void publish_and_locate_go_through_the_dht(void **state)
{
    struct net *net = started(state, 3);
    struct blob_info info = blob(3, 8 << 20);
    net->serve = true;
    (void)open_blob(net, 1, &info, true); /* TRANSFER_PUBLISH: becomes a record */
    run(net, 30 * S_US);
    assert_int_equal(look_up(net, 2, &info.key, false).provider_count, 1);
    blob_handle handle = open_blob(net, 0, &info, false);
    start_read(net, 0, handle, false);
    run(net, 10 * S_US);
    /* Without a way to the origin only the record (TRANSFER_LOCATE) leads to node 1. */
    const struct note *connect = transfer_note(&net->nodes[0], TRANSFER_CONNECT);
    assert_non_null(connect);
    assert_non_null(transfer_note(&net->nodes[0], TRANSFER_BLOB_COMPLETE));
    assert_null(transfer_note(&net->nodes[0], TRANSFER_FETCH));
    /* Closing drops the record. */
    transfer_blob_close(mesh_transfer(net->nodes[1].mesh), net->now_us,
                        transfer_blob_find(mesh_transfer(net->nodes[1].mesh), &info.key));
    drain(&net->nodes[1]);
    run(net, 5 * S_US);
    struct note answer = look_up(net, 2, &info.key, false);
    assert_true(answer.provider_count <= 1); /* node 0 may have published by now, 1 has not */
}

/* A record of a node that gossip has not told of: only LOCATE's answer leads to it. */
static void answers_to_locate_reach_transfer(void **state)
{
    struct net *net = started(state, 3);
    struct blob_info info = blob(10, 8 << 20);
    struct wire_dht_add add = {
        .addr = net->nodes[5].addr, .completeness = 255, .sequence = 1, .ttl_ms = 600000};
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t msg_bytes;
    struct node_id stranger;
    node_id_of(cluster, &net->nodes[5].addr, &stranger);
    memcpy(add.key, info.key.bytes, sizeof add.key);
    assert_int_equal(label_set(&add.topology.zone, "z", 1), 0); /* neighbours are of the zone */
    assert_int_equal(wire_dht_encode_add(&add, msg, sizeof msg, &msg_bytes), 0);
    for (unsigned i = 1; i < 3; i++)
        assert_int_equal(mesh_receive(net->nodes[i].mesh, net->now_us, &stranger,
                                      &net->nodes[5].addr, msg, msg_bytes),
                         0);
    start_read(net, 0, open_blob(net, 0, &info, false), false);
    run(net, 5 * S_US);
    assert_true(net->nodes[0].sent_transfer_to[5] > 0);
}

static void a_silent_peer_is_probed_at_once(void **state)
{
    struct net *net = *state;
    struct mesh_config config;
    struct blob_info info = blob(4, 64 << 20);
    for (unsigned i = 0; i < 3; i++) {
        config_of(&net->nodes[i], &config);
        config.gossip.period_us = 600 * S_US; /* nobody probes by itself */
        config.gossip.push_pull_us = 600 * S_US;
        start(net, i, &config);
    }
    run(net, 5 * S_US);
    blob_handle handle = open_blob(net, 0, &info, false);
    kill_node(net, 1);
    kill_node(net, 2);
    size_t before = net->nodes[0].sent_gossip_to[1] + net->nodes[0].sent_gossip_to[2];
    run(net, 5 * S_US);
    assert_int_equal(net->nodes[0].sent_gossip_to[1] + net->nodes[0].sent_gossip_to[2], before);
    net->serve = true;
    start_read(net, 0, handle, true);
    run(net, 10 * S_US);
    assert_true(net->nodes[0].sent_gossip_to[1] + net->nodes[0].sent_gossip_to[2] > before);
    struct gossip_stats stats;
    gossip_stats(mesh_gossip(net->nodes[0].mesh), &stats);
    assert_true(stats.probes >= 1);
}

/* ---- lookups of the host ---- */

static void both_ways_of_lookup_answer_once(void **state)
{
    struct net *net = started(state, 6);
    struct blob_info info = blob(5, 1 << 20), nowhere = blob(6, 1 << 20);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(dht_publish(mesh_dht(net->nodes[i].mesh), net->now_us, &info.key, 100), 0);
        drain(&net->nodes[i]);
    }
    run(net, 2 * S_US);
    for (unsigned way = 0; way < 2; way++) {
        struct note answer = look_up(net, 4, &info.key, way == 1);
        assert_int_equal(answer.status, 0);
        assert_int_equal(answer.provider_count, 2);
        assert_int_equal(look_up(net, 4, &nowhere.key, way == 1).status, E_NOT_FOUND);
    }
}

/* With a table of one node: one-hop asks the nearest member, the other way asks that one first. */
static void iterative_lookups_start_from_the_table(void **state)
{
    struct net *net = *state;
    struct mesh_config config;
    for (unsigned i = 0; i < 6; i++) {
        config_of(&net->nodes[i], &config);
        config.dht.k = config.dht.alpha = config.dht.paths = 1;
        start(net, i, &config);
    }
    run(net, 5 * S_US);
    unsigned deeper = 0;
    for (unsigned i = 0; i < 16; i++) {
        struct blob_info info = blob(200 + i, 1);
        struct note one_hop = look_up(net, 0, &info.key, false);
        assert_true(one_hop.hops <= 1);
        info = blob(300 + i, 1);
        deeper += look_up(net, 0, &info.key, true).hops > 1;
    }
    assert_true(deeper > 0);
}

static void lookups_of_the_host_are_bounded(void **state)
{
    struct net *net = started(state, 3);
    struct node *node = &net->nodes[0];
    uint64_t ids[64], id;
    bool answered[64] = {false};
    for (unsigned i = 0; i < 64; i++) {
        struct blob_info info = blob(100 + i, 1);
        assert_int_equal(mesh_lookup(node->mesh, net->now_us, &info.key, &ids[i]), 0);
    }
    struct blob_info info = blob(99, 1 << 20);
    assert_int_equal(mesh_lookup(node->mesh, net->now_us, &info.key, &id), E_FULL);
    assert_int_equal(mesh_lookup_iterative(node->mesh, net->now_us, &info.key, &id), E_FULL);
    /* Transfer's own lookups go on beside them and are not the host's. */
    blob_handle handle = open_blob(net, 0, &info, false);
    start_read(net, 0, handle, false);
    run(net, 12 * S_US);
    struct dht_stats stats;
    dht_stats(mesh_dht(node->mesh), &stats);
    assert_true(stats.lookups > 64);
    for (size_t i = 0; i < node->note_count; i++) {
        for (unsigned j = 0; j < 64 && node->notes[i].kind == MESH_LOOKUP; j++) {
            if (node->notes[i].lookup_id != ids[j])
                continue;
            assert_false(answered[j]);
            answered[j] = true;
        }
    }
    for (unsigned i = 0; i < 64; i++)
        assert_true(answered[i]);
    assert_int_equal(mesh_lookup(node->mesh, net->now_us, &info.key, &id), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(bad_tunables_are_refused),
        TEST(no_allocation_may_fail_unnoticed_D_9),
        TEST(the_id_follows_from_the_address_PEER_4),
        TEST(orders_reach_the_host),
        TEST(messages_reach_their_part),
        TEST(the_deadline_is_the_earliest_of_the_parts),
        TEST(a_look_ahead_changes_nothing),
        TEST(members_reach_host_dht_and_transfer),
        TEST(a_dead_member_leaves_all_parts),
        TEST(a_snapshot_seeds_all_parts),
        TEST(new_labels_reach_everybody),
        TEST(labels_without_memory_stay_as_they_were),
        TEST(leaving_is_told_in_two_steps),
        TEST(who_leaves_begins_no_upload),
        TEST(publish_and_locate_go_through_the_dht),
        TEST(answers_to_locate_reach_transfer),
        TEST(a_silent_peer_is_probed_at_once),
        TEST(both_ways_of_lookup_answer_once),
        TEST(iterative_lookups_start_from_the_table),
        TEST(lookups_of_the_host_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
