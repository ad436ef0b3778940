/* SPDX-License-Identifier: Apache-2.0 */
/* Invariants of the gossip core, for tests and simulator: O(N) and more, never run by itself. */
#include "core.h"

static void check_order(const struct gossip *g)
{
    uint64_t count[MEMBER_LEFT + 1] = {0};
    for (uint32_t i = 0; i < g->node_count; i++) {
        const struct node *node = gossip__node(g, g->order[i].node);
        ASSERT(g->order[i].prefix == gossip__prefix(&node->pub.id));
        if (i > 0)
            ASSERT(node_id_compare(&gossip__node(g, g->order[i - 1].node)->pub.id, &node->pub.id) <
                   0);
        ASSERT(node->pub.state > MEMBER_UNKNOWN && node->pub.state <= MEMBER_LEFT);
        count[node->pub.state]++;
        ASSERT(gossip__by_addr(g, &node->pub.addr) == g->order[i].node);
        ASSERT((node->pub.state == MEMBER_SUSPECT) == (node->suspicion != NODE_NONE));
        ASSERT(node->pub.state != MEMBER_SUSPECT ||
               gossip__suspicion(g, node)->node == g->order[i].node);
    }
    for (unsigned i = MEMBER_ALIVE; i <= MEMBER_LEFT; i++)
        ASSERT(count[i] == g->state_count[i]);
}

static void check_hashes(const struct gossip *g)
{
    uint64_t view = 0, hash[WIRE_GOSSIP_LEAVES] = {0};
    uint16_t count[WIRE_GOSSIP_LEAVES] = {0};
    for (uint32_t i = 0; i < g->node_count; i++) {
        const struct member *member = &gossip__node(g, g->order[i].node)->pub;
        if (!gossip__is_live(member->state))
            continue;
        view ^= gossip__member_hash(member);
        hash[member->id.bytes[0]] ^= gossip__member_hash(member);
        count[member->id.bytes[0]]++;
    }
    ASSERT(view == g->view_hash);
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++) {
        ASSERT(hash[i] == g->leaf_hash[i]);
        ASSERT(count[i] == g->leaf_count[i]);
    }
}

static void check_lists(const struct gossip *g)
{
    for (uint32_t i = 0; i < g->live_count; i++) {
        const struct node *node = gossip__node(g, g->live[i]);
        ASSERT(node->list_pos == i && g->live[i] != g->self);
        ASSERT(gossip__is_live(node->pub.state));
    }
    for (uint32_t i = 0; i < g->gone_count; i++) {
        const struct node *node = gossip__node(g, g->gone[i]);
        ASSERT(node->list_pos == i && !gossip__is_live(node->pub.state));
    }
    ASSERT(g->live_count + g->gone_count + 1 == g->node_count);
    ASSERT(g->probe_next <= g->live_count);
    ASSERT(g->revive_count <= g->node_count);
    for (uint32_t i = 0; i < g->revive_count; i++)
        ASSERT(gossip__node(g, g->revive[i])->revive);
}

static void check_queue(const struct gossip *g)
{
    uint32_t count = 0;
    for (unsigned sends = 0; sends <= SENDS_MAX; sends++) {
        uint32_t previous = NODE_NONE;
        for (uint32_t i = g->queue_head[sends]; i != NODE_NONE;) {
            const struct node *node = gossip__node(g, i);
            ASSERT(node->queued && node->sends == sends && node->queue_prev == previous);
            previous = i;
            i = node->queue_next;
            count++;
        }
        ASSERT(g->queue_tail[sends] == previous);
    }
    ASSERT(count == g->queue_count);
    ASSERT(count == 0 || g->round_us != UINT64_MAX);
}

static void check_suspicions(const struct gossip *g)
{
    ASSERT(g->suspicion_count == g->state_count[MEMBER_SUSPECT]);
    for (uint32_t i = 0; i < g->suspicion_count; i++) {
        const struct suspicion *suspicion = &g->suspicions[g->heap[i]];
        const struct suspicion *parent = &g->suspicions[g->heap[i == 0 ? 0 : (i - 1) / 2]];
        ASSERT(suspicion->heap_pos == i && suspicion->node != NODE_NONE);
        ASSERT(suspicion->accuser_count >= 1);
        ASSERT(parent->due_us <= suspicion->due_us);
    }
}

static void check_ops(const struct gossip *g)
{
    unsigned helps = 0;
    for (unsigned i = 0; i < g->op_count; i++) {
        helps += g->ops[i].kind == OP_HELP ? 1 : 0;
        ASSERT(g->ops[i].node != g->self);
        ASSERT(gossip__is_live(gossip__node(g, g->ops[i].node)->pub.state));
    }
    ASSERT(helps == g->help_count && g->op_count <= OPS_MAX);
    ASSERT(g->health <= HEALTH_MAX);
}

void gossip__check_invariants(const struct gossip *g)
{
    check_order(g);
    check_hashes(g);
    check_lists(g);
    check_queue(g);
    check_suspicions(g);
    check_ops(g);
}
