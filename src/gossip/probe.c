/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failure detection (SWIM §3.1, §4.3): pings, helpers, and what follows from silence; local health
 * (Lifeguard §IV.A). A probe under way is an `op`. All that wait for the same node share one PING
 * seq, so one ACK ends them all.
 *
 * Where we differ: a ping is repeated once before helpers are asked, because on a network that
 * loses one packet in twenty most silences are a lost packet; a second probe a period goes to the
 * successor by id, so that each node has one other that looks at it every period; helpers that
 * report silence themselves (nacks) count as accusers.
 */
#include "core.h"

#include <string.h>

/* Steps of an op, by what has been done. */
enum {
    STEP_PINGED = 0,
    STEP_REPEATED,
    STEP_HELPED, /* PROBE only: helpers have been asked */
};
/* Repeat and nack, in tenths of the timeout: both leave an answer the time of several round trips,
 * and the nack reaches the requester before its verdict. */
#define REPEAT_TENTHS 4
#define NACK_TENTHS   8

/* A PING that expects the other's record is padded, so that three times it holds one with the
 * longest labels: 272 bytes beside head and sealing (DHT-2). */
#define PING_PAD 64

void gossip__health_change(struct gossip *g, int change)
{
    int health = (int)g->health + change;
    g->health = health < 0 ? 0 : health > HEALTH_MAX ? HEALTH_MAX : (unsigned)health;
}

/* ---- ops ---- */

static bool has_op(const struct gossip *g, uint32_t index)
{
    for (unsigned i = 0; i < g->op_count; i++) {
        if (g->ops[i].node == index)
            return true;
    }
    return false;
}

static struct op *find_probe(struct gossip *g, uint32_t index)
{
    for (unsigned i = 0; i < g->op_count; i++) {
        if (g->ops[i].kind == OP_PROBE && g->ops[i].node == index)
            return &g->ops[i];
    }
    return NULL;
}

/* NULL if there is no room for this kind. */
static struct op *op_new(struct gossip *g, enum op_kind kind, uint32_t index)
{
    unsigned probes = g->op_count - g->help_count;
    bool room = kind == OP_HELP ? g->help_count < HELPS_MAX : probes < OPS_MAX - HELPS_MAX;
    if (!room) {
        g->stats.dropped++;
        return NULL;
    }
    struct op *op = &g->ops[g->op_count++];
    ASSERT(g->op_count <= OPS_MAX);
    g->help_count += kind == OP_HELP ? 1 : 0;
    *op = (struct op){.kind = kind, .node = index, .seq = gossip__seq(g), .started_us = g->now_us};
    return op;
}

static void op_remove(struct gossip *g, unsigned at)
{
    ASSERT(at < g->op_count);
    g->help_count -= g->ops[at].kind == OP_HELP ? 1 : 0;
    g->ops[at] = g->ops[--g->op_count];
}

void gossip__probe_cancel(struct gossip *g, uint32_t index)
{
    for (unsigned i = g->op_count; i-- > 0;) {
        if (g->ops[i].node == index)
            op_remove(g, i);
    }
    for (unsigned i = g->doubt_count; i-- > 0;) {
        if (g->doubts[i] == index)
            g->doubts[i] = g->doubts[--g->doubt_count];
    }
}

/* ---- pings ---- */

bool gossip__ping_awaited(const struct gossip *g, uint32_t index)
{
    const struct node *node = gossip__node(g, index);
    if (node->ping_seq == 0)
        return false;
    if (has_op(g, index))
        return true;
    return node->state == MEMBER_SUSPECT && gossip__suspicion(g, node)->stage != SUSPICION_WAIT;
}

void gossip__ping(struct gossip *g, uint32_t index, bool again, bool with_news)
{
    struct node *node = gossip__node(g, index);
    if (!again || node->ping_seq == 0)
        node->ping_seq = gossip__seq(g);
    bool wants_record = node->state != MEMBER_ALIVE && node->state != MEMBER_LEAVING;
    const struct peer_addr *to = gossip__addr(g, index);
    gossip__begin(g, WIRE_GOSSIP_PING, node->ping_seq, to);
    g->out.view_check = gossip__view_check(g);
    if (with_news && !wants_record) /* news are not wasted on those who are probably gone */
        gossip__add_queued(g);
    gossip__send(g, to, wants_record ? PING_PAD : 0);
}

bool gossip__probe(struct gossip *g, uint32_t index)
{
    ASSERT(index != g->self);
    if (find_probe(g, index) != NULL)
        return true;
    bool again = gossip__ping_awaited(g, index);
    struct op *op = op_new(g, OP_PROBE, index);
    if (op == NULL)
        return false;
    op->timeout_us = g->config.probe_timeout_us * (g->health + 1);
    op->due_us = g->now_us + op->timeout_us * REPEAT_TENTHS / 10;
    g->stats.probes++;
    gossip__ping(g, index, again, true);
    return true;
}

void gossip__doubt(struct gossip *g, uint32_t index)
{
    if (index == g->self || !gossip__live(g, index))
        return;
    for (unsigned i = 0; i < g->doubt_count; i++) {
        if (g->doubts[i] == index)
            return;
    }
    if (g->doubt_count == 0 && gossip__probe(g, index))
        return;
    if (g->doubt_count == DOUBTS_MAX)
        return; /* its turn comes in the rounds; op_new has counted */
    g->doubts[g->doubt_count++] = index;
}

/* ---- helpers ---- */

/* Asks up to indirect_probes others, no two the same, to ping for us. */
static void ask_helpers(struct gossip *g, struct op *op)
{
    unsigned tries = 4 * g->config.indirect_probes;
    const struct peer_addr *target = gossip__addr(g, op->node);
    while (op->helper_count < g->config.indirect_probes && tries-- > 0) {
        uint32_t index = gossip__random_live(g);
        if (index == NODE_NONE || index == op->node)
            continue;
        const struct peer_addr *helper = gossip__addr(g, index);
        bool used = gossip__node(g, index)->state == MEMBER_SUSPECT;
        for (unsigned i = 0; i < op->helper_count; i++)
            used = used || peer_addr_equal(&op->helpers[i], helper);
        if (used)
            continue;
        op->helpers[op->helper_count++] = *helper;
        gossip__begin(g, WIRE_GOSSIP_PING_REQ, op->seq, helper);
        g->out.target = *target;
        gossip__send(g, helper, 0);
    }
}

static void send_relayed(struct gossip *g, const struct op *op, bool answered)
{
    gossip__begin(g, WIRE_GOSSIP_RELAYED, op->requester_seq, &op->helpers[0]);
    g->out.answered = answered;
    gossip__send(g, &op->helpers[0], 0);
}

void gossip__on_ping_req(struct gossip *g, const struct peer_addr *from)
{
    uint32_t sender = gossip__by_addr(g, from);
    uint32_t target = gossip__by_addr(g, &g->in.target);
    /* Members ask for members: nobody makes us send anywhere else. */
    bool ours = sender != NODE_NONE && target != NODE_NONE && target != g->self &&
                gossip__live(g, sender) && gossip__live(g, target);
    if (!ours) {
        g->stats.rejected++;
        return;
    }
    for (unsigned i = 0; i < g->op_count; i++) {
        const struct op *op = &g->ops[i];
        if (op->kind == OP_HELP && op->node == target && peer_addr_equal(&op->helpers[0], from))
            return; /* is being done */
    }
    bool again = gossip__ping_awaited(g, target);
    struct op *op = op_new(g, OP_HELP, target);
    if (op == NULL)
        return;
    op->requester_seq = g->in.seq;
    op->helpers[0] = *from;
    op->timeout_us = g->config.probe_timeout_us; /* the requester's own; not widened by ours */
    op->due_us = g->now_us + op->timeout_us * REPEAT_TENTHS / 10;
    gossip__ping(g, target, again, false); /* no more than was asked for (DHT-2) */
}

void gossip__on_relayed(struct gossip *g, const struct peer_addr *from)
{
    for (unsigned i = 0; i < g->op_count; i++) {
        struct op *op = &g->ops[i];
        if (op->kind != OP_PROBE || op->seq != g->in.seq)
            continue;
        for (unsigned h = 0; h < op->helper_count; h++) {
            if (!peer_addr_equal(&op->helpers[h], from))
                continue;
            if (g->in.answered) {
                gossip__health_change(g, -1);
                op_remove(g, i);
            } else if (!op->nacked[h]) {
                op->nacked[h] = true;
                op->nack_count++;
            }
            return;
        }
    }
    g->stats.rejected++; /* late, or never asked for (DHT-3) */
}

/* ---- answers ---- */

void gossip__on_ping(struct gossip *g, const struct peer_addr *from)
{
    bool attach = gossip__check_known(g, &g->in);
    uint32_t seq = g->in.seq;
    (void)gossip__take_news(g, from, false);
    gossip__begin(g, WIRE_GOSSIP_ACK, seq, from);
    gossip__limit_to_reply(g);
    g->out.view_check = gossip__view_check(g);
    if (attach)
        (void)gossip__add_record(g, g->self);
    gossip__add_queued(g);
    gossip__send(g, from, 0);
    uint32_t sender = gossip__by_addr(g, from);
    if (sender == NODE_NONE)
        return;
    if (gossip__live(g, sender))
        gossip__compare_view(g, from, g->in.view_check);
    else
        gossip__revive_later(g, sender); /* it can reach us: perhaps we can reach it again */
}

/* An ACK ends all that wait for this node. What was found on the way of helpers is no round trip.
 */
static void settle(struct gossip *g, uint32_t index)
{
    const struct op *probe = find_probe(g, index);
    if (probe != NULL && probe->step <= STEP_REPEATED)
        g->rtt = (struct gossip_rtt){.id = *gossip__id(g, index),
                                     .took_us = g->now_us - probe->started_us + 1,
                                     .sure = probe->step == STEP_PINGED};
    for (unsigned i = g->op_count; i-- > 0;) {
        if (g->ops[i].node != index)
            continue;
        if (g->ops[i].kind == OP_HELP)
            send_relayed(g, &g->ops[i], true);
        else
            gossip__health_change(g, -1);
        op_remove(g, i);
    }
}

bool gossip_next_rtt(struct gossip *g, struct gossip_rtt *out)
{
    if (g->rtt.took_us == 0)
        return false;
    *out = g->rtt;
    g->rtt.took_us = 0;
    return true;
}

void gossip__on_ack(struct gossip *g, const struct peer_addr *from)
{
    uint32_t index = gossip__by_addr(g, from);
    if (index == NODE_NONE || g->in.seq == 0 || gossip__node(g, index)->ping_seq != g->in.seq) {
        g->stats.rejected++; /* late, repeated, or never asked for (DHT-3) */
        return;
    }
    gossip__node(g, index)->ping_seq = 0;
    bool was_gone = !gossip__live(g, index);
    settle(g, index);
    bool attach = gossip__check_known(g, &g->in);
    (void)gossip__take_news(g, from, false);
    index = gossip__by_addr(g, from); /* taking news may have moved the gone out */
    if (attach)
        gossip__send_self(g, from);
    if (index == NODE_NONE)
        return;
    enum member_state state = (enum member_state)gossip__node(g, index)->state;
    if (state == MEMBER_SUSPECT) /* we hear it; the others will by its refutation */
        gossip__set_state(g, index, MEMBER_ALIVE);
    if (was_gone && gossip__is_live(state))
        gossip__sync_with(g, from); /* a partition may have healed (N-1) */
    else if (gossip__is_live(state))
        gossip__compare_view(g, from, g->in.view_check);
}

/* ---- silence ---- */

/* Lifeguard §IV.A: a failed probe speaks against us by as many helpers as we did not hear from. */
static void probe_failed(struct gossip *g, unsigned at)
{
    struct op op = g->ops[at];
    op_remove(g, at);
    g->stats.probe_failures++;
    gossip__health_change(g, op.helper_count == 0 ? 1 : op.helper_count - op.nack_count);
    if (!gossip__live(g, op.node))
        return;
    bool news = gossip__accuse(g, op.node, &gossip__self(g)->addr, false);
    for (unsigned i = 0; i < op.helper_count; i++) {
        if (op.nacked[i])
            news = gossip__accuse(g, op.node, &op.helpers[i], false) || news;
    }
    /* Buddy system: the accused is told first of all. */
    if (news)
        gossip__ping(g, op.node, gossip__ping_awaited(g, op.node), false);
}

/* Does what an op's deadline asks for; false if that ended it. */
static bool op_step(struct gossip *g, unsigned at)
{
    struct op *op = &g->ops[at];
    if (op->step == STEP_PINGED) {
        gossip__ping(g, op->node, true, false);
        unsigned tenths = op->kind == OP_HELP ? NACK_TENTHS : 10;
        op->due_us = op->started_us + op->timeout_us * tenths / 10;
        op->step = STEP_REPEATED;
        return true;
    }
    if (op->kind == OP_HELP) {
        send_relayed(g, op, false);
        op_remove(g, at);
        return false;
    }
    if (op->step == STEP_REPEATED) {
        ask_helpers(g, op);
        op->due_us = op->started_us + 2 * op->timeout_us;
        op->step = STEP_HELPED;
        return true;
    }
    probe_failed(g, at);
    return false;
}

/* ---- whom to probe ---- */

/* Fisher-Yates: each round in a new order (SWIM §4.3). */
static void new_round(struct gossip *g)
{
    for (uint32_t i = g->live_count; i > 1; i--) {
        uint32_t at = (uint32_t)prng_below(&g->prng, i);
        uint16_t swap = g->live[at];
        g->live[at] = g->live[i - 1];
        g->live[i - 1] = swap;
        gossip__node(g, g->live[at])->list_pos = (uint16_t)at;
        gossip__node(g, g->live[i - 1])->list_pos = (uint16_t)(i - 1);
    }
    g->probe_next = 0;
}

/* The next member by id, going round; suspects are passed over, so that two dead neighbours are
 * found at once. NODE_NONE if there is none. */
static uint32_t successor(const struct gossip *g)
{
    uint32_t at = gossip__order_from(g, gossip__prefix(&gossip__self(g)->id));
    for (uint32_t i = 1; i < g->node_count; i++) {
        uint32_t index = g->order[(at + i) % g->node_count];
        enum member_state state = (enum member_state)gossip__node(g, index)->state;
        if (index != g->self && (state == MEMBER_ALIVE || state == MEMBER_LEAVING))
            return index;
    }
    return NODE_NONE;
}

static void probe_tick(struct gossip *g)
{
    g->probe_us = g->now_us + g->config.period_us / PROBES_A_PERIOD * (g->health + 1);
    if (g->live_count == 0)
        return;
    g->probe_successor = !g->probe_successor;
    uint32_t index = g->probe_successor ? successor(g) : NODE_NONE;
    if (index == NODE_NONE) {
        if (g->probe_next >= g->live_count)
            new_round(g);
        index = g->live[g->probe_next++];
    }
    (void)gossip__probe(g, index);
}

void gossip__probe_advance(struct gossip *g)
{
    for (unsigned i = g->op_count; i-- > 0;) {
        /* A step may remove others, but never adds one. */
        if (i < g->op_count && g->ops[i].due_us <= g->now_us)
            (void)op_step(g, i);
    }
    while (g->doubt_count > 0 && g->op_count - g->help_count < OPS_MAX - HELPS_MAX) {
        uint32_t index = g->doubts[--g->doubt_count];
        (void)gossip__probe(g, index);
    }
    if (g->probe_us <= g->now_us)
        probe_tick(g);
}

uint64_t gossip__probe_deadline(const struct gossip *g)
{
    uint64_t deadline = g->live_count > 0 ? g->probe_us : UINT64_MAX;
    for (unsigned i = 0; i < g->op_count; i++) {
        if (g->ops[i].due_us < deadline)
            deadline = g->ops[i].due_us;
    }
    return deadline;
}
