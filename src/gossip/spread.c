/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dissemination (SWIM §4.1): the queue of news by times sent, and the making of messages around it.
 * News ride on probes and acks; while there are any, rounds of their own go out too, so that news
 * do not have to wait for the next probe. An item is a node: what is sent is its state at that
 * moment, so newer news replace older ones by themselves.
 */
#include "core.h"

#include <string.h>

/* A queue longer than about two messages: then what others tell us need not be told as often. */
#define LONG_QUEUE 40
/* First round after a quiet time: soon, but not in step with others who heard the same. */
#define FIRST_ROUND_US_MAX 20000
#define PICKS_MAX          (WIRE_GOSSIP_RECORDS_MAX + WIRE_GOSSIP_CLAIMS_MAX)

unsigned gossip__sends_limit(const struct gossip *g)
{
    uint32_t milli = gossip__milli_log10((uint32_t)gossip_count(g) + 1);
    unsigned limit = SENDS_FACTOR * ((milli + 999) / 1000);
    return limit > SENDS_MAX ? SENDS_MAX : limit < SENDS_FACTOR ? SENDS_FACTOR : limit;
}

/* News about a node are a claim of others, or its own record. */
static bool is_claim(const struct node *node)
{
    return node->state == MEMBER_SUSPECT || node->state == MEMBER_DEAD;
}

/* ---- queue ---- */

static void link_at(struct gossip *g, uint32_t index, unsigned sends)
{
    ASSERT(sends <= SENDS_MAX);
    struct node *node = gossip__node(g, index);
    node->sends = sends & 15u;
    node->queue_next = (uint16_t)NODE_NONE;
    node->queue_prev = (uint16_t)g->queue_tail[sends];
    if (g->queue_tail[sends] == NODE_NONE)
        g->queue_head[sends] = index;
    else
        gossip__node(g, g->queue_tail[sends])->queue_next = (uint16_t)index;
    g->queue_tail[sends] = index;
}

static void unlink_from(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    if (node->queue_prev == NODE_NONE)
        g->queue_head[node->sends] = node->queue_next;
    else
        gossip__node(g, node->queue_prev)->queue_next = node->queue_next;
    if (node->queue_next == NODE_NONE)
        g->queue_tail[node->sends] = node->queue_prev;
    else
        gossip__node(g, node->queue_next)->queue_prev = node->queue_prev;
}

void gossip__enqueue(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    if (node->queued) {
        unlink_from(g, index);
    } else {
        node->queued = 1;
        g->queue_count++;
    }
    link_at(g, index, 0);
    if (g->round_us == UINT64_MAX)
        g->round_us = g->now_us + gossip__between(g, 0, FIRST_ROUND_US_MAX);
}

void gossip__unqueue(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    if (!node->queued)
        return;
    unlink_from(g, index);
    node->queued = 0;
    g->queue_count--;
}

/* One more send; the last takes the item out. */
static void count_send(struct gossip *g, uint32_t index, unsigned limit)
{
    unsigned sends = gossip__node(g, index)->sends + 1u;
    if (sends >= limit) {
        gossip__unqueue(g, index);
        return;
    }
    unlink_from(g, index);
    link_at(g, index, sends);
}

void gossip__heard(struct gossip *g, uint32_t index)
{
    /* Rumour mongering with feedback (Demers et al. 1987 §1.4), for bulk only: what a few miss
     * then, the push-pull that runs in such times brings. */
    if (g->queue_count > LONG_QUEUE && gossip__node(g, index)->queued)
        count_send(g, index, gossip__sends_limit(g));
}

void gossip__settled(struct gossip *g)
{
    if (g->queue_count <= LONG_QUEUE)
        return; /* a few items are sent to the end: it is cheap, and reaches the last */
    for (unsigned sends = 0; sends <= SENDS_MAX; sends++) {
        uint32_t next = g->queue_head[sends];
        while (next != NODE_NONE) {
            uint32_t index = next;
            next = gossip__node(g, index)->queue_next;
            if (!is_claim(gossip__node(g, index))) /* the view says nothing of suspects and dead */
                gossip__unqueue(g, index);
        }
    }
}

/* ---- messages ---- */

void gossip__begin(struct gossip *g, enum wire_gossip_type type, uint32_t seq,
                   const struct peer_addr *to)
{
    struct wire_gossip *out = &g->out;
    out->type = type;
    out->seq = seq;
    out->known_incarnation = 0;
    out->known_state = MEMBER_UNKNOWN;
    out->news.label_count = out->news.record_count = out->news.claim_count = 0;
    out->want_count = out->summary_count = 0;
    uint32_t index = gossip__by_addr(g, to);
    if (index != NODE_NONE) {
        out->known_incarnation = gossip__record(g, index)->incarnation;
        out->known_state = (enum member_state)gossip__node(g, index)->state;
    }
    g->out_left = MESSAGE_BYTES_MAX - WIRE_GOSSIP_HEAD_BYTES_MAX;
}

void gossip__limit_to_reply(struct gossip *g)
{
    size_t fixed = DATAGRAM_OVERHEAD_MAX + WIRE_GOSSIP_HEAD_BYTES_MAX;
    size_t left = g->reply_left > fixed ? (size_t)g->reply_left - fixed : 0;
    if (g->out_left > left)
        g->out_left = left;
}

/* Index of a label in g->out.news, 1-based; 0 for the empty one. *bytes grows by what a new one
 * costs. -1 if the table is full. New ones are put behind label_count without counting them. */
static int label_index(struct wire_gossip_news *news, const struct label *label, uint8_t *count,
                       size_t *bytes)
{
    if (label->text[0] == '\0')
        return 0;
    for (unsigned i = *count; i-- > 0;) {
        if (strcmp(news->labels[i].text, label->text) == 0)
            return (int)i + 1;
    }
    if (*count == WIRE_GOSSIP_LABELS_MAX)
        return -1;
    news->labels[*count] = *label;
    *bytes += wire_gossip_label_bytes(label);
    return ++*count;
}

bool gossip__add_record(struct gossip *g, uint32_t index)
{
    struct wire_gossip_news *news = &g->out.news;
    if (news->record_count == WIRE_GOSSIP_RECORDS_MAX)
        return false;
    const struct directory_record *member = gossip__record(g, index);
    const struct topology *labels = directory_topology(g->directory, member->topology);
    enum member_state state = (enum member_state)gossip__node(g, index)->state;
    size_t bytes = 0;
    uint8_t count = news->label_count;
    int region = label_index(news, &labels->region, &count, &bytes);
    int zone = label_index(news, &labels->zone, &count, &bytes);
    int vswitch = label_index(news, &labels->vswitch, &count, &bytes);
    if (region < 0 || zone < 0 || vswitch < 0)
        return false;
    struct wire_gossip_record *record = &news->records[news->record_count];
    *record = (struct wire_gossip_record){
        .addr = *gossip__addr(g, index),
        .key = member->key,
        .region_index = (uint8_t)region,
        .zone_index = (uint8_t)zone,
        .vswitch_index = (uint8_t)vswitch,
        .incarnation = member->incarnation,
        /* Suspicion is told by claims; a record is what the member says of itself. */
        .state = state == MEMBER_SUSPECT ? MEMBER_ALIVE : state,
        .capacity_class = member->capacity_class,
        .load = member->load,
        .version_minor = member->version_minor,
    };
    bytes += wire_gossip_record_bytes(record);
    if (bytes > g->out_left)
        return false;
    news->label_count = count;
    news->record_count++;
    g->out_left -= bytes;
    return true;
}

bool gossip__add_claim(struct gossip *g, uint32_t index)
{
    const struct node *node = gossip__node(g, index);
    struct wire_gossip_news *news = &g->out.news;
    ASSERT(is_claim(node));
    if (news->claim_count == WIRE_GOSSIP_CLAIMS_MAX)
        return false;
    struct wire_gossip_claim *claim = &news->claims[news->claim_count];
    claim->addr = *gossip__addr(g, index);
    claim->incarnation = gossip__record(g, index)->incarnation;
    claim->state = (enum member_state)node->state;
    claim->accuser_count = 0;
    if (node->state == MEMBER_SUSPECT) {
        const struct suspicion *suspicion = gossip__suspicion(g, node);
        claim->accuser_count = suspicion->accuser_count;
        memcpy(claim->accusers, suspicion->accusers, sizeof claim->accusers);
    }
    size_t bytes = wire_gossip_claim_bytes(claim);
    if (bytes > g->out_left)
        return false;
    news->claim_count++;
    g->out_left -= bytes;
    return true;
}

static bool add_news(struct gossip *g, uint32_t index)
{
    bool claim = is_claim(gossip__node(g, index));
    return claim ? gossip__add_claim(g, index) : gossip__add_record(g, index);
}

static void add_from_queue(struct gossip *g)
{
    uint32_t picks[PICKS_MAX];
    unsigned pick_count = 0, misses = 0;
    unsigned limit = gossip__sends_limit(g);
    for (unsigned sends = 0; sends <= SENDS_MAX && misses < 2; sends++) {
        uint32_t next = g->queue_head[sends];
        /* Two misses: a smaller item may fit where a record did not, but not many will. */
        for (; next != NODE_NONE && misses < 2 && pick_count < PICKS_MAX;
             next = gossip__node(g, next)->queue_next) {
            if (add_news(g, next))
                picks[pick_count++] = next;
            else
                misses++;
        }
    }
    for (unsigned i = 0; i < pick_count; i++)
        count_send(g, picks[i], limit);
}

void gossip__add_queued(struct gossip *g)
{
    if (g->queue_count > 0)
        add_from_queue(g);
}

void gossip__send(struct gossip *g, const struct peer_addr *to, size_t pad_to)
{
    uint8_t message[MESSAGE_BYTES_MAX];
    size_t used;
    int err = wire_gossip_encode(&g->out, pad_to, message, sizeof message, &used);
    ASSERT(err == 0); /* the budget has seen to that */
    uint64_t cost = used + DATAGRAM_OVERHEAD_MAX;
    g->reply_left -= g->reply_left < cost ? g->reply_left : cost;
    if (g->env.send(g->env.host, to, message, used) != 0)
        return; /* like a lost packet */
    g->stats.messages_sent++;
    g->stats.bytes_sent += used;
}

void gossip__send_self(struct gossip *g, const struct peer_addr *to)
{
    gossip__begin(g, WIRE_GOSSIP_NEWS, 0, to);
    (void)gossip__add_record(g, g->self);
    gossip__add_queued(g);
    gossip__send(g, to, 0);
}

/* ---- rounds ---- */

void gossip__spread_now(struct gossip *g, unsigned count)
{
    for (unsigned i = 0; i < count && g->queue_count > 0; i++) {
        uint32_t index = gossip__random_live(g);
        if (index == NODE_NONE)
            return;
        const struct peer_addr *to = gossip__addr(g, index);
        gossip__begin(g, WIRE_GOSSIP_NEWS, 0, to);
        gossip__add_queued(g);
        gossip__send(g, to, 0);
    }
}

void gossip__spread_advance(struct gossip *g)
{
    if (g->round_us > g->now_us)
        return;
    gossip__spread_now(g, FANOUT);
    g->round_us =
        g->queue_count == 0 ? UINT64_MAX : g->now_us + g->config.period_us / ROUNDS_A_PERIOD;
}
