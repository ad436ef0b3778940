/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Push-pull, the side that asks. Two views are compared from the coarse to the fine: one hash; a
 * hash of each leaf (ids with the same first byte); then, for leaves that differ, page by page what
 * each side knows, both ways. Views that agree cost two small messages. All state is on this side;
 * each answer is at most three times its request, which is padded where it hopes for more (DHT-2).
 *
 * How often: every push_pull_us while views agree, every half period while they differ by a lot.
 * That, and not rounds of news, is what carries a mesh through a cold start or a healed partition:
 * each exchange leaves both sides with the union of what they know.
 */
#include "core.h"

#include <string.h>

/* Views this small go without SYNC_DIGEST: one page holds them. */
#define SMALL_VIEW 48
/* Room for summaries in a page: what the message has beside head, leaves and array. */
#define PAGE_BYTES (MESSAGE_BYTES_MAX - WIRE_GOSSIP_HEAD_BYTES_MAX - WIRE_GOSSIP_LEAF_BYTES - 8)
/* A record in an answer with its share of labels and head, for padding: 53 bytes and a third of a
 * datagram of labels, measured with 16 labels of a cloud. */
#define RECORD_ESTIMATE 88
/* Others in a row whose view differs from ours: it is ours that is behind. */
#define APART_MIN 3
/* Others in a row with the same view: after a cold start, it has reached about everybody. */
#define AGREED_MIN 8
/* Records that three datagrams hold then. */
#define PAGE_EXPECTED_MAX 40

static uint64_t shortest_us(const struct gossip *g)
{
    return g->config.period_us / 2;
}

uint32_t gossip__view_check(const struct gossip *g)
{
    return (uint32_t)(g->view_hash ^ g->view_hash >> 32);
}

void gossip__compare_view(struct gossip *g, const struct peer_addr *from, uint32_t view_check)
{
    struct sync *sync = &g->sync;
    if (view_check == gossip__view_check(g)) {
        sync->apart = 0;
        sync->apart_pause = 0;
        if (++sync->agreed >= AGREED_MIN)
            gossip__settled(g);
        return;
    }
    sync->agreed = 0;
    if (++sync->apart < APART_MIN || sync->stage != SYNC_IDLE || g->now_us < sync->apart_us ||
        g->now_us - sync->changed_us < g->config.period_us)
        return;
    /* News are missed one node in ten thousand: this makes up for it in a second or two instead of
     * the next push-pull. Where views differ for a reason that lasts, it is tried ever less. */
    sync->apart = 0;
    sync->apart_pause = sync->apart_pause == 0 ? g->config.period_us : 2 * sync->apart_pause;
    if (sync->apart_pause > g->config.push_pull_us)
        sync->apart_pause = g->config.push_pull_us;
    sync->apart_us = g->now_us + sync->apart_pause;
    gossip__sync_with(g, from);
}

uint32_t gossip__range_hash(const struct gossip *g, unsigned leaf)
{
    return (uint32_t)(g->leaf_hash[leaf] ^ g->leaf_hash[leaf] >> 32);
}

bool gossip__sync_many(const struct gossip *g, uint32_t diffs)
{
    size_t few = gossip_count(g) / 64;
    return diffs > (few < 4 ? 4 : few);
}

void gossip__sync_soon(struct gossip *g)
{
    uint64_t soon = g->now_us + gossip__between(g, 0, shortest_us(g));
    g->sync.interval_us = shortest_us(g);
    if (soon < g->sync.next_us)
        g->sync.next_us = soon;
}

/* Back to idle. `done`: the views were compared to the end. */
static void finish(struct gossip *g, bool done)
{
    struct sync *sync = &g->sync;
    uint64_t shortest = shortest_us(g), interval = shortest;
    sync->stage = SYNC_IDLE;
    bool short_of = done && sync->diffs > 0 && sync->peer_count > gossip_count(g);
    if (gossip__sync_many(g, sync->diffs) || short_of)
        sync->interval_us = shortest;
    else if (done)
        sync->interval_us *= 2;
    if (sync->interval_us > g->config.push_pull_us)
        sync->interval_us = g->config.push_pull_us;
    if (done) /* else another try soon, with somebody else */
        interval = sync->interval_us;
    sync->next_us = g->now_us + gossip__between(g, interval / 2, interval + interval / 2);
}

/* Begins the request of a stage: a new seq, and the time for its answer. */
static void request(struct gossip *g, enum sync_stage stage, enum wire_gossip_type type)
{
    struct sync *sync = &g->sync;
    if (sync->stage != stage)
        sync->tries = 0;
    sync->stage = stage;
    sync->seq = gossip__seq(g);
    sync->due_us = g->now_us + g->config.probe_timeout_us * (g->health + 1);
    gossip__begin(g, type, sync->seq, &sync->peer);
}

void gossip__sync_with(struct gossip *g, const struct peer_addr *peer)
{
    struct sync *sync = &g->sync;
    if (sync->stage != SYNC_IDLE || g->left)
        return;
    sync->peer = *peer;
    sync->diffs = 0;
    request(g, SYNC_CHECKING, WIRE_GOSSIP_SYNC_CHECK);
    g->out.view_hash = g->view_hash;
    g->out.view_count = (uint32_t)gossip_count(g);
    (void)gossip__add_record(g, g->self);
    gossip__send(g, peer, 0);
}

static void send_digest(struct gossip *g)
{
    request(g, SYNC_DIGESTING, WIRE_GOSSIP_SYNC_DIGEST);
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++)
        g->out.ranges[i] = gossip__range_hash(g, i);
    gossip__send(g, &g->sync.peer, 0);
}

/* ---- pages ---- */

/* Members that the peer has in a leaf beyond our own number. */
static uint32_t expected_in(const struct gossip *g, unsigned leaf)
{
    uint32_t theirs = g->sync.counts[leaf], ours = g->leaf_count[leaf];
    return theirs > ours ? theirs - ours : 0;
}

/* Adds what we know in a leaf to g->out; false if it does not fit, with `out` as before. A leaf
 * too large for any page is cut: the peer then sends what it need not. */
static bool add_leaf(struct gossip *g, unsigned leaf, size_t *bytes)
{
    uint8_t before = g->out.summary_count;
    size_t used = *bytes;
    for (uint32_t at = gossip__order_from(g, (uint64_t)leaf << 56);
         at < g->node_count && gossip__order_prefix(g, at) >> 56 == leaf; at++) {
        enum member_state state = (enum member_state)gossip__node(g, g->order[at])->state;
        if (at > 0 && gossip__order_prefix(g, at - 1) == gossip__order_prefix(g, at))
            continue; /* prefixes must ascend; two equal ones are no accident */
        struct wire_gossip_summary summary = {
            .id_prefix = gossip__order_prefix(g, at),
            .incarnation = gossip__record(g, g->order[at])->incarnation,
            .state = gossip__is_live(state) ? MEMBER_ALIVE : state,
        };
        used += wire_gossip_summary_bytes(&summary);
        bool full = used > PAGE_BYTES || g->out.summary_count == WIRE_GOSSIP_SUMMARIES_MAX;
        if (full && before > 0) {
            g->out.summary_count = before;
            return false;
        }
        if (full)
            break;
        g->out.summaries[g->out.summary_count++] = summary;
    }
    *bytes = used;
    return true;
}

/* Sends the page that begins at next_leaf, or finishes if there is nothing left to compare. */
static void send_page(struct gossip *g)
{
    struct sync *sync = &g->sync;
    uint32_t expected = sync->counted ? 0 : sync->peer_count;
    size_t bytes = 0;
    unsigned leaf = sync->next_leaf;
    bool any = false;
    request(g, SYNC_PAGING, WIRE_GOSSIP_SYNC_PAGE);
    sync->page_leaf = leaf;
    memset(g->out.leaves, 0, sizeof g->out.leaves);
    for (; leaf < WIRE_GOSSIP_LEAVES; leaf++) {
        if (!wire_gossip_leaf_get(sync->leaves, leaf))
            continue;
        uint32_t more = sync->counted ? expected_in(g, leaf) : 0;
        if (any && sync->counted && expected + more > PAGE_EXPECTED_MAX)
            break;
        if (!add_leaf(g, leaf, &bytes))
            break;
        expected += more;
        wire_gossip_leaf_set(g->out.leaves, leaf);
        any = true;
    }
    if (!any) {
        finish(g, true);
        return;
    }
    sync->next_leaf = leaf;
    memcpy(sync->page, g->out.leaves, sizeof sync->page);
    size_t pad_to = (size_t)expected * RECORD_ESTIMATE / 3;
    gossip__send(g, &sync->peer, pad_to > MESSAGE_BYTES_MAX ? MESSAGE_BYTES_MAX : pad_to);
}

/* ---- answers ---- */

static bool awaited(const struct gossip *g, enum sync_stage stage, const struct peer_addr *from)
{
    return g->sync.stage == stage && g->sync.seq == g->in.seq &&
           peer_addr_equal(&g->sync.peer, from);
}

void gossip__on_state(struct gossip *g, const struct peer_addr *from)
{
    struct sync *sync = &g->sync;
    bool ours = awaited(g, SYNC_CHECKING, from);
    if (!gossip__seed_answered(g, from, g->in.seq) && !ours) {
        g->stats.rejected++; /* DHT-3 */
        return;
    }
    uint64_t hash = g->in.view_hash;
    uint32_t count = g->in.view_count;
    if (gossip__check_known(g, &g->in))
        gossip__send_self(g, from);
    (void)gossip__take_news(g, from, true);
    if (!ours && sync->stage != SYNC_IDLE)
        return; /* a seed; somebody else is being asked already */
    if (!ours) {
        sync->peer = *from;
        sync->diffs = 0;
    }
    if (hash == g->view_hash) {
        finish(g, true);
        return;
    }
    sync->peer_count = count > MEMBERS_MAX ? MEMBERS_MAX : count;
    sync->next_leaf = 0;
    sync->counted = false;
    if (count > SMALL_VIEW || gossip_count(g) > SMALL_VIEW) {
        send_digest(g);
        return;
    }
    memset(sync->leaves, 0xff, sizeof sync->leaves);
    send_page(g);
}

void gossip__on_diff(struct gossip *g, const struct peer_addr *from)
{
    struct sync *sync = &g->sync;
    if (!awaited(g, SYNC_DIGESTING, from)) {
        g->stats.rejected++;
        return;
    }
    sync->counted = true;
    memcpy(sync->leaves, g->in.leaves, sizeof sync->leaves);
    memcpy(sync->counts, g->in.counts, sizeof sync->counts);
    send_page(g);
}

void gossip__on_records(struct gossip *g, const struct peer_addr *from)
{
    struct sync *sync = &g->sync;
    unsigned news = gossip__take_news(g, from, true);
    if (!awaited(g, SYNC_PAGING, from))
        return; /* what we wanted of somebody who asked us */
    struct give give = {.count = 0};
    for (unsigned i = 0; i < g->in.want_count; i++) {
        uint32_t index = gossip__by_prefix(g, g->in.wants[i]);
        /* Only of the page asked about: a peer may not draw more than it was offered. */
        if (index != NODE_NONE && wire_gossip_leaf_get(sync->page, gossip__id(g, index)->bytes[0]))
            gossip__give_add(&give, index);
    }
    sync->diffs += news + give.count;
    sync->tries = 0;
    g->want_count = 0;
    if (give.count > 0)
        gossip__give_send(g, from, 0, &give);
    if (!g->in.more)
        send_page(g);
}

/* ---- time ---- */

/* No answer: once more, then on, or somebody else. */
static void timed_out(struct gossip *g)
{
    struct sync *sync = &g->sync;
    if (sync->stage == SYNC_CHECKING || sync->tries++ > 0) {
        finish(g, false);
        return;
    }
    if (sync->stage == SYNC_DIGESTING) {
        send_digest(g);
        return;
    }
    sync->next_leaf = sync->page_leaf;
    send_page(g);
}

void gossip__sync_advance(struct gossip *g)
{
    struct sync *sync = &g->sync;
    if (gossip__sync_deadline(g) > g->now_us)
        return;
    if (sync->stage != SYNC_IDLE) {
        timed_out(g);
        return;
    }
    uint32_t index = gossip__random_live(g);
    ASSERT(index != NODE_NONE);
    gossip__sync_with(g, gossip__addr(g, index));
}

uint64_t gossip__sync_deadline(const struct gossip *g)
{
    if (g->sync.stage != SYNC_IDLE)
        return g->sync.due_us;
    return g->live_count > 0 && !g->left ? g->sync.next_us : UINT64_MAX;
}
