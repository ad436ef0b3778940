/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Push-pull, the side that answers: without state, within three times the request (DHT-2), and
 * within a budget of pages a second, so that a mesh that starts all at once with us as its seed
 * slows down instead of drowning us. Who gets no answer asks somebody else.
 */
#include "core.h"

#include <string.h>

/* Time that one more page takes to be allowed. */
#define SERVE_US (1000000 / SERVE_PAGES)
/* Records wanted in one answer: what a padded request gets back in three datagrams. */
#define WANTS_MAX 48
/* Bytes a wanted record asks of the padding: a third of one with its labels. */
#define WANT_PAD 26
/* An answer of less is not worth a datagram. */
#define PART_BYTES_MIN 200
static_assert(WANTS_MAX <= WIRE_GOSSIP_WANTS_MAX, "wants fit the message");

void gossip__on_check(struct gossip *g, const struct peer_addr *from)
{
    uint32_t seq = g->in.seq;
    (void)gossip__take_news(g, from, false);
    (void)gossip__check_known(g, &g->in); /* our record goes along anyway */
    gossip__begin(g, WIRE_GOSSIP_SYNC_STATE, seq, from);
    gossip__limit_to_reply(g);
    g->out.view_hash = g->view_hash;
    g->out.view_count = (uint32_t)gossip_count(g);
    (void)gossip__add_record(g, g->self);
    gossip__send(g, from, 0);
}

void gossip__on_digest(struct gossip *g, const struct peer_addr *from)
{
    gossip__begin(g, WIRE_GOSSIP_SYNC_DIFF, g->in.seq, from);
    memset(g->out.leaves, 0, sizeof g->out.leaves);
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++) {
        if (gossip__range_hash(g, i) == g->in.ranges[i])
            continue;
        wire_gossip_leaf_set(g->out.leaves, i);
        g->out.counts[i] = (uint8_t)(g->leaf_count[i] > UINT8_MAX ? UINT8_MAX : g->leaf_count[i]);
    }
    gossip__send(g, from, 0);
}

/* ---- giving ---- */

void gossip__give_add(struct give *give, uint32_t index)
{
    if (give->count < GIVE_MAX)
        give->nodes[give->count++] = index;
}

static bool give_one(struct gossip *g, uint32_t index)
{
    bool dead = gossip__node(g, index)->state == MEMBER_DEAD;
    return dead ? gossip__add_claim(g, index) : gossip__add_record(g, index);
}

static size_t begin_part(struct gossip *g, const struct peer_addr *to, uint32_t seq)
{
    gossip__begin(g, WIRE_GOSSIP_SYNC_RECORDS, seq, to);
    gossip__limit_to_reply(g);
    g->out.more = false;
    return g->out_left;
}

/* May another datagram follow the one at hand, which began with `room` bytes left? */
static bool another_allowed(const struct gossip *g, size_t room)
{
    uint64_t cost = room - g->out_left + WIRE_GOSSIP_HEAD_BYTES_MAX + DATAGRAM_OVERHEAD_MAX;
    return g->reply_left >= cost + DATAGRAM_OVERHEAD_MAX + PART_BYTES_MIN;
}

void gossip__give_send(struct gossip *g, const struct peer_addr *to, uint32_t seq,
                       const struct give *give)
{
    size_t room = begin_part(g, to, seq);
    for (unsigned i = 0; i < g->want_count && g->out_left >= 9; i++) {
        g->out.wants[g->out.want_count++] = g->wants[i];
        g->out_left -= 9; /* an id prefix, at its largest */
    }
    size_t pad_to = (size_t)g->out.want_count * WANT_PAD;
    for (unsigned i = 0; i < give->count; i++) {
        if (give_one(g, give->nodes[i]))
            continue;
        if (!another_allowed(g, room))
            break;
        g->out.more = true;
        gossip__send(g, to, 0);
        pad_to = 0;
        room = begin_part(g, to, seq);
        if (!give_one(g, give->nodes[i]))
            break;
    }
    uint64_t most =
        g->reply_left > DATAGRAM_OVERHEAD_MAX ? g->reply_left - DATAGRAM_OVERHEAD_MAX : 0;
    if (pad_to > most)
        pad_to = (size_t)most;
    gossip__send(g, to, pad_to > MESSAGE_BYTES_MAX ? MESSAGE_BYTES_MAX : pad_to);
}

/* ---- comparing ---- */

static void want(struct gossip *g, const struct wire_gossip_summary *summary)
{
    if (summary->state != MEMBER_DEAD && g->want_count < WANTS_MAX)
        g->wants[g->want_count++] = summary->id_prefix;
}

/* A node both sides know. */
static void compare_both(struct gossip *g, uint32_t index, const struct wire_gossip_summary *theirs,
                         struct give *give)
{
    enum member_state ours = (enum member_state)gossip__node(g, index)->state;
    uint64_t incarnation = gossip__record(g, index)->incarnation;
    bool live = gossip__is_live(ours), theirs_live = theirs->state == MEMBER_ALIVE;
    if (!live && !theirs_live)
        return; /* gone is gone */
    int order = gossip__compare_versions(incarnation, ours, theirs->incarnation, theirs->state);
    bool same_life = incarnation == theirs->incarnation && live != theirs_live;
    if (order > 0)
        gossip__give_add(give, index);
    if (order < 0 && !(same_life && theirs->state == MEMBER_DEAD))
        want(g, theirs);
    if (!same_life)
        return;
    /* One side holds dead what the other holds alive: both look for themselves. */
    if (ours == MEMBER_DEAD)
        gossip__revive_later(g, index);
    if (theirs->state == MEMBER_DEAD) {
        gossip__give_add(give, index);
        gossip__doubt(g, index);
    }
}

/* Compares one leaf, going on in the summaries at *at. */
static void compare_leaf(struct gossip *g, unsigned leaf, unsigned *at, struct give *give)
{
    const struct wire_gossip *in = &g->in;
    uint32_t own = gossip__order_from(g, (uint64_t)leaf << 56);
    for (; own < g->node_count && gossip__order_prefix(g, own) >> 56 == leaf; own++) {
        uint64_t prefix = gossip__order_prefix(g, own);
        uint32_t index = g->order[own];
        for (; *at < in->summary_count && in->summaries[*at].id_prefix < prefix; ++*at) {
            if (in->summaries[*at].id_prefix >> 56 == leaf &&
                in->summaries[*at].state == MEMBER_ALIVE)
                want(g, &in->summaries[*at]);
        }
        if (*at < in->summary_count && in->summaries[*at].id_prefix == prefix) {
            if (index != g->self)
                compare_both(g, index, &in->summaries[*at], give);
            else if (in->summaries[*at].incarnation < gossip__self(g)->incarnation)
                gossip__give_add(give, index);
            ++*at;
        } else if (gossip__live(g, index)) {
            gossip__give_add(give, index);
        }
    }
    for (; *at < in->summary_count && in->summaries[*at].id_prefix >> 56 == leaf; ++*at) {
        if (in->summaries[*at].state == MEMBER_ALIVE)
            want(g, &in->summaries[*at]);
    }
}

static bool serve_allowed(struct gossip *g)
{
    struct sync *sync = &g->sync;
    uint64_t tokens = (g->now_us - sync->serve_refill_us) / SERVE_US;
    if (tokens > 0) {
        uint64_t sum = sync->serve_tokens + tokens;
        sync->serve_tokens = sum > SERVE_PAGES ? SERVE_PAGES : (uint32_t)sum;
        sync->serve_refill_us += tokens * SERVE_US;
    }
    if (sync->serve_tokens == 0) {
        g->stats.dropped++;
        return false;
    }
    sync->serve_tokens--;
    return true;
}

void gossip__on_page(struct gossip *g, const struct peer_addr *from)
{
    if (gossip__by_addr(g, from) == NODE_NONE) {
        g->stats.rejected++; /* it has not introduced itself by SYNC_CHECK */
        return;
    }
    if (!serve_allowed(g))
        return;
    struct give give = {.count = 0};
    unsigned at = 0;
    g->want_count = 0;
    for (unsigned leaf = 0; leaf < WIRE_GOSSIP_LEAVES; leaf++) {
        if (wire_gossip_leaf_get(g->in.leaves, leaf))
            compare_leaf(g, leaf, &at, &give);
    }
    uint32_t wanted = g->want_count;
    gossip__give_send(g, from, g->in.seq, &give);
    g->want_count = 0;
    if (gossip__sync_many(g, wanted))
        gossip__sync_soon(g);
}
