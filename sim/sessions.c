/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections between nodes: handshakes that take their time, two ends that may disagree for a
 * while (one died, or the network between them), and ends that are noticed late. What the daemon's
 * TCP side does, seen from transfer.
 */
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "log.h"

/* Position of the first session with a peer not below this one. */
static uint32_t position(const struct sim_node *node, uint32_t peer)
{
    uint32_t low = 0, high = node->session_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (node->sessions[middle].peer < peer)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct session *session_find(struct sim_node *node, uint32_t peer)
{
    uint32_t at = position(node, peer);
    return at < node->session_count && node->sessions[at].peer == peer ? &node->sessions[at] : NULL;
}

/* The session with this peer, made if there is none. */
static struct session *session_get(struct sim_node *node, uint32_t peer)
{
    uint32_t at = position(node, peer);
    if (at < node->session_count && node->sessions[at].peer == peer)
        return &node->sessions[at];
    if (node->session_count == node->session_capacity) {
        node->session_capacity = node->session_capacity == 0 ? 16 : 2 * node->session_capacity;
        node->sessions = realloc(node->sessions, node->session_capacity * sizeof *node->sessions);
        ASSERT(node->sessions != NULL);
    }
    memmove(node->sessions + at + 1, node->sessions + at,
            (node->session_count - at) * sizeof *node->sessions);
    node->session_count++;
    node->sessions[at] = (struct session){.peer = peer};
    return &node->sessions[at];
}

static void forget(struct sim_node *node, uint32_t peer)
{
    uint32_t at = position(node, peer);
    ASSERT(at < node->session_count && node->sessions[at].peer == peer);
    memmove(node->sessions + at, node->sessions + at + 1,
            (node->session_count - at - 1) * sizeof *node->sessions);
    node->session_count--;
}

static void push(struct world *world, enum event_kind kind, uint32_t node,
                 const struct session *session, uint64_t after_us)
{
    events_push(&world->events, (struct event){.at_us = world->now_us + after_us,
                                               .kind = kind,
                                               .node = node,
                                               .other = session->peer,
                                               .version = session->version});
}

/* Both ends hold the same session. */
static bool agreed(struct sim_node *node, const struct session *session)
{
    struct sim_node *other = &node->world->nodes[session->peer];
    const struct session *theirs = session_find(other, node->index);
    return other->mesh != NULL && theirs != NULL && theirs->version == session->version;
}

/* ---- opening ---- */

/* The other end of a handshake. One it believed in from an earlier life of ours is over. */
static void answer(struct sim_node *node, uint32_t peer, uint64_t version)
{
    struct session *session = session_find(node, peer);
    if (session != NULL && session->state == SESSION_UP)
        bulk_end_session(node, peer);
    session = session_get(node, peer);
    session->state = SESSION_OPENING;
    session->version = version;
    session->out = (struct tcp_window){0};
}

void session_dial(struct sim_node *node, uint32_t peer)
{
    struct world *world = node->world;
    struct sim_node *other = &world->nodes[peer];
    if (session_find(node, peer) != NULL)
        return;
    struct session *session = session_get(node, peer);
    session->state = SESSION_OPENING;
    session->version = ++world->session_version;
    uint64_t latency_us = world__latency_us(world, node->index, peer);
    bool severed = world__severed(world, node->index, peer);
    if (other->mesh == NULL || severed) {
        bool quiet = severed || world->config.silent_death;
        push(world, EVENT_SESSION_DOWN, node->index, session,
             quiet ? WORLD_SILENT_US : 2 * latency_us);
        return;
    }
    /* TCP's round trip, then Noise XX: the responder knows after 1.5 more, the initiator half
     * before. */
    answer(other, node->index, session->version);
    uint64_t busy_us = work_handshake_us(node, world->config.cpu.handshake_us) +
                       work_handshake_us(other, world->config.cpu.handshake_us);
    push(world, EVENT_SESSION_UP, node->index, session, 4 * latency_us + busy_us);
    push(world, EVENT_SESSION_UP, peer, session_find(other, node->index), 5 * latency_us + busy_us);
}

void session_connect(struct sim_node *node, const struct transfer_result *result)
{
    struct world *world = node->world;
    uint32_t peer = world__node_at(world, &result->peer_addr);
    if (peer == INDEX_NONE || world->config.plant == WORLD_PLANT_ALONE) {
        transfer_session_down(host_transfer(node), host_now_us(node), &result->peer, E_UNREACHABLE);
        return;
    }
    session_dial(node, peer);
    struct session *session = session_find(node, peer);
    session->wanted = true;
    if (session->state == SESSION_UP)
        transfer_session_up(host_transfer(node), host_now_us(node), &result->peer);
}

void session_is_up(struct sim_node *node, uint32_t peer, uint64_t version)
{
    struct world *world = node->world;
    struct session *session = session_find(node, peer);
    if (node->mesh == NULL || session == NULL || session->version != version)
        return;
    if (!agreed(node, session)) { /* it died during the handshake */
        session_is_down(node, peer, version);
        return;
    }
    session->state = SESSION_UP;
    session->wanted = true;
    transfer_session_up(host_transfer(node), host_now_us(node), &world->nodes[peer].id);
    bulk_resume(node, peer);
    host_drain(node);
}

/* ---- ending ---- */

void session_is_down(struct sim_node *node, uint32_t peer, uint64_t version)
{
    struct world *world = node->world;
    struct session *session = session_find(node, peer);
    if (node->mesh == NULL || session == NULL || session->version != version)
        return;
    bool told = session->state == SESSION_UP || session->wanted;
    forget(node, peer);
    bulk_end_session(node, peer);
    if (told)
        transfer_session_down(host_transfer(node), host_now_us(node), &world->nodes[peer].id,
                              E_CLOSED);
    host_drain(node);
}

void session_release(struct sim_node *node, uint32_t peer)
{
    struct session *session = session_find(node, peer);
    if (session == NULL)
        return;
    session->wanted = false;
    struct session *theirs = session_find(&node->world->nodes[peer], node->index);
    if (session->state != SESSION_UP || !agreed(node, session) || theirs->wanted)
        return;
    push(node->world, EVENT_SESSION_DOWN, node->index, session, 0);
    push(node->world, EVENT_SESSION_DOWN, peer, theirs, 0);
}

void session_reset(struct sim_node *node, uint32_t peer)
{
    struct world *world = node->world;
    struct session *session = session_find(node, peer);
    ASSERT(session != NULL);
    if (world->nodes[peer].mesh != NULL && !world__severed(world, node->index, peer))
        push(world, EVENT_SESSION_DOWN, node->index, session,
             2 * world__latency_us(world, node->index, peer));
}

void sessions_drop(struct sim_node *node, uint64_t after_us)
{
    struct world *world = node->world;
    for (uint32_t i = 0; i < node->session_count; i++) {
        uint32_t peer = node->sessions[i].peer;
        struct session *theirs = session_find(&world->nodes[peer], node->index);
        if (theirs != NULL && theirs->version == node->sessions[i].version)
            push(world, EVENT_SESSION_DOWN, peer, theirs, after_us);
    }
    node->session_count = 0;
}

void sessions_sever_pair(struct world *world, uint32_t a, uint32_t b)
{
    for (unsigned side = 0; side < 2; side++) {
        uint32_t from = side == 0 ? a : b, to = side == 0 ? b : a;
        const struct session *session = session_find(&world->nodes[from], to);
        if (session == NULL)
            continue;
        bulk_stall(world, from, to);
        push(world, EVENT_SESSION_DOWN, from, session, WORLD_SILENT_US);
    }
}

void sessions_sever(struct world *world, uint32_t zone_a, uint32_t zone_b)
{
    for (uint32_t i = 0; i < world->config.node_count; i++) {
        struct sim_node *node = &world->nodes[i];
        uint32_t zone = world__zone(world, i);
        uint32_t far = zone == zone_a ? zone_b : zone_a;
        for (uint32_t j = 0; (zone == zone_a || zone == zone_b) && j < node->session_count; j++) {
            if (world__zone(world, node->sessions[j].peer) != far)
                continue;
            bulk_stall(world, i, node->sessions[j].peer);
            push(world, EVENT_SESSION_DOWN, i, &node->sessions[j], WORLD_SILENT_US);
        }
    }
}
