/* SPDX-License-Identifier: Apache-2.0 */
/* Invariants of the gossip core, for tests and simulator: O(N) and more, never run by itself. */
#include "core.h"

static void check_order(const struct gossip *g)
{
    uint64_t count[MEMBER_LEFT + 1] = {0};
    for (uint32_t i = 0; i < g->node_count; i++) {
        uint32_t index = g->order[i];
        const struct node *node = gossip__node(g, index);
        if (i > 0)
            ASSERT(node_id_compare(gossip__id(g, g->order[i - 1]), gossip__id(g, index)) < 0);
        ASSERT(node->state > MEMBER_UNKNOWN && node->state <= MEMBER_LEFT);
        count[node->state]++;
        ASSERT(gossip__by_addr(g, gossip__addr(g, index)) == index);
        ASSERT(gossip__by_id(g, gossip__id(g, index)) == index);
        ASSERT(gossip__record(g, index)->place == index);
        ASSERT((node->state == MEMBER_SUSPECT) == (node->suspicion != NODE_NONE));
        ASSERT(node->state != MEMBER_SUSPECT || gossip__suspicion(g, node)->node == index);
    }
    for (unsigned i = MEMBER_ALIVE; i <= MEMBER_LEFT; i++)
        ASSERT(count[i] == g->state_count[i]);
}

static void check_hashes(const struct gossip *g)
{
    uint64_t view = 0, hash[WIRE_GOSSIP_LEAVES] = {0};
    uint16_t count[WIRE_GOSSIP_LEAVES] = {0};
    for (uint32_t i = 0; i < g->node_count; i++) {
        uint32_t index = g->order[i];
        if (!gossip__live(g, index))
            continue;
        unsigned leaf = gossip__id(g, index)->bytes[0];
        view ^= gossip__member_hash(g, index);
        hash[leaf] ^= gossip__member_hash(g, index);
        count[leaf]++;
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
        ASSERT(gossip__live(g, g->live[i]));
    }
    for (uint32_t i = 0; i < g->gone_count; i++) {
        const struct node *node = gossip__node(g, gossip__gone(g, i));
        ASSERT(node->list_pos == i && !gossip__live(g, gossip__gone(g, i)));
    }
    ASSERT(g->live_count + g->gone_count + 1 == g->node_count);
    ASSERT(g->probe_next <= g->live_count);
    ASSERT(g->revive_count <= g->node_count);
    for (uint32_t i = 0; i < g->revive_count; i++)
        ASSERT(gossip__node(g, g->revive[i])->to_revive);
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
        ASSERT(gossip__live(g, g->ops[i].node));
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
