/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others say about members, and about us: which version of a record wins (SWIM §4.2), which
 * claims count, and refutation of wrong ones. All numbers here come from peers and are clamped
 * before use (DHT-7). Without signatures on records the rules hold what they can: an address speaks
 * with the highest incarnation, but nobody dies by words alone (suspect.c), and everybody is told
 * how others see them by the head of every message, so that a lie about a node reaches it.
 */
#include "core.h"

#include <string.h>

/* Between two refutations: a peer may make us speak, but not without pause. */
#define REFUTE_PAUSE_US 100000

int gossip__compare_versions(uint64_t incarnation_a, enum member_state a, uint64_t incarnation_b,
                             enum member_state b)
{
    if (incarnation_a != incarnation_b)
        return incarnation_a < incarnation_b ? -1 : 1;
    /* SWIM §4.2: Confirm overrides what is alive; ALIVE, SUSPECT and LEAVING differ by more. */
    int rank_a = a == MEMBER_LEFT ? 2 : a == MEMBER_DEAD ? 1 : 0;
    int rank_b = b == MEMBER_LEFT ? 2 : b == MEMBER_DEAD ? 1 : 0;
    return rank_a - rank_b;
}

/* ---- about us ---- */

bool gossip__refute(struct gossip *g, uint64_t above)
{
    const struct member *self = gossip__self(g);
    if (g->left)
        return false;
    if (above < self->incarnation)
        return true; /* answered already: the record at hand says so */
    if (above - self->incarnation > INCARNATION_JUMP_MAX || above >= INCARNATION_FIRST_MAX) {
        g->stats.rejected++;
        return false;
    }
    if (g->now_us < g->refute_us)
        return false;
    g->refute_us = g->now_us + REFUTE_PAUSE_US;
    /* Above our own number: of an earlier life at this address, whose last number nobody may know
     * who speaks to us. A jump at random does not meet it, or two records would share one number.
     */
    uint64_t jump = above > self->incarnation ? prng_below(&g->prng, INCARNATION_START) : 0;
    struct member member = *self;
    member.incarnation = above + 1 + jump;
    gossip__update(g, g->self, &member);
    gossip__enqueue(g, g->self);
    return true;
}

bool gossip__check_known(struct gossip *g, const struct wire_gossip *message)
{
    const struct member *self = gossip__self(g);
    if (message->known_state == MEMBER_UNKNOWN || message->known_incarnation < self->incarnation)
        return true;
    bool wrong = message->known_state != MEMBER_ALIVE && message->known_state != MEMBER_LEAVING;
    if (message->known_incarnation == self->incarnation && !wrong)
        return false;
    if (g->left)
        return message->known_state != MEMBER_LEFT;
    bool accused = message->known_state == MEMBER_SUSPECT || message->known_state == MEMBER_DEAD;
    if (!gossip__refute(g, message->known_incarnation))
        return false;
    if (accused) { /* Lifeguard §IV.A; not after a restart, when the dead one was our predecessor */
        g->stats.refutations++;
        gossip__health_change(g, 1);
    }
    return true;
}

/* ---- records ---- */

bool gossip__addr_usable(const struct peer_addr *addr)
{
    static const uint8_t zero[16];
    if (addr->port == 0 || memcmp(addr->ip, zero, sizeof zero) == 0 || addr->ip[0] == 0xff)
        return false;
    if (!peer_addr_is_v4(addr))
        return true;
    return addr->ip[12] != 0 && (addr->ip[12] < 224 || addr->ip[12] == 255) && addr->ip[12] != 255;
}

static void set_label(struct label *out, const struct wire_gossip_news *news, uint8_t index)
{
    if (index > 0)
        *out = news->labels[index - 1];
}

static struct member member_of(const struct wire_gossip_news *news,
                               const struct wire_gossip_record *record)
{
    struct member member = {
        .key = record->key,
        .addr = record->addr,
        .incarnation = record->incarnation,
        .state = record->state,
        .capacity_class = record->capacity_class,
        .load = record->load,
        .version_minor = record->version_minor,
    };
    set_label(&member.topology.region, news, record->region_index);
    set_label(&member.topology.zone, news, record->zone_index);
    set_label(&member.topology.vswitch, news, record->vswitch_index);
    return member;
}

/* A record of our own address: an echo, or of somebody who was here before us. */
static void take_own_record(struct gossip *g, const struct wire_gossip_record *record)
{
    const struct member *self = gossip__self(g);
    bool same_key = memcmp(record->key.bytes, self->key.bytes, sizeof self->key.bytes) == 0;
    if (record->incarnation < self->incarnation)
        return;
    if (record->incarnation == self->incarnation && same_key && record->state == self->state)
        gossip__heard(g, g->self);
    else
        (void)gossip__refute(g, record->incarnation);
}

/* A node we did not know. True if it is known now. */
static bool take_new(struct gossip *g, const struct wire_gossip_record *record, bool sync)
{
    if (record->state == MEMBER_LEFT)
        return false;
    if (record->incarnation > INCARNATION_FIRST_MAX) {
        g->stats.rejected++;
        return false;
    }
    struct member member = member_of(&g->in.news, record);
    uint32_t index;
    if (gossip__insert(g, &member, &index) != 0)
        return false;
    if (!sync)
        gossip__enqueue(g, index);
    return true;
}

/* Is `record` to replace what we hold? Its own word, first hand, also mends a number that others
 * made too large to be believed. */
static bool supersedes(struct gossip *g, uint64_t held, const struct wire_gossip_record *record,
                       bool first_hand)
{
    if (record->incarnation > held) {
        bool believable = record->incarnation - held <= INCARNATION_JUMP_MAX;
        if (!believable)
            g->stats.rejected++;
        return believable;
    }
    return first_hand && held - record->incarnation > INCARNATION_JUMP_MAX;
}

/* Takes one record in; true if it was news. */
static bool take_record(struct gossip *g, const struct wire_gossip_record *record,
                        const struct peer_addr *from, bool sync)
{
    if (!gossip__addr_usable(&record->addr)) {
        g->stats.rejected++;
        return false;
    }
    uint32_t index = gossip__by_addr(g, &record->addr);
    if (index == g->self) {
        take_own_record(g, record);
        return false;
    }
    if (index == NODE_NONE)
        return take_new(g, record, sync);
    uint64_t held = gossip__record(g, index)->incarnation;
    if (!supersedes(g, held, record, peer_addr_equal(from, &record->addr))) {
        bool same = record->incarnation == held;
        bool dead = gossip__node(g, index)->state == MEMBER_DEAD;
        if (sync && same && dead && record->state != MEMBER_LEFT)
            gossip__revive_later(g, index); /* they can hear it: perhaps we can again */
        else if (same)
            gossip__heard(g, index);
        return false;
    }
    struct member member = member_of(&g->in.news, record);
    gossip__update(g, index, &member);
    /* What a push-pull brings reaches the others by theirs; rounds are for what is new to all. */
    if (!sync)
        gossip__enqueue(g, index);
    return true;
}

/* ---- claims ---- */

static void take_own_claim(struct gossip *g, const struct wire_gossip_claim *claim,
                           const struct peer_addr *from)
{
    if (claim->incarnation < gossip__self(g)->incarnation) {
        gossip__give_add(&g->corrections, g->self);
        return;
    }
    if (!gossip__refute(g, claim->incarnation))
        return;
    g->stats.refutations++;
    gossip__health_change(g, 1);
    gossip__send_self(g, from);
}

static void take_claim(struct gossip *g, const struct wire_gossip_claim *claim,
                       const struct peer_addr *from, bool sync)
{
    uint32_t index = gossip__by_addr(g, &claim->addr);
    if (index == g->self) {
        take_own_claim(g, claim, from);
        return;
    }
    if (index == NODE_NONE)
        return;
    if (!gossip__live(g, index)) {
        gossip__heard(g, index);
        return;
    }
    uint64_t held = gossip__record(g, index)->incarnation;
    if (claim->incarnation < held) {
        gossip__give_add(&g->corrections, index); /* refuted since */
        return;
    }
    if (claim->incarnation - held > INCARNATION_JUMP_MAX) {
        g->stats.rejected++;
        return;
    }
    if (sync) { /* perhaps the other side of a partition that has healed: look for ourselves */
        gossip__doubt(g, index);
        return;
    }
    bool news = false;
    if (claim->state == MEMBER_DEAD)
        news = gossip__accuse(g, index, from, true);
    for (unsigned i = 0; i < claim->accuser_count; i++)
        news = gossip__accuse(g, index, &claim->accusers[i], false) || news;
    if (!news)
        gossip__heard(g, index);
}

unsigned gossip__take_news(struct gossip *g, const struct peer_addr *from, bool sync)
{
    const struct wire_gossip_news *news = &g->in.news;
    unsigned changes = 0;
    for (unsigned i = 0; i < news->record_count; i++)
        changes += take_record(g, &news->records[i], from, sync) ? 1 : 0;
    uint32_t sender = gossip__by_addr(g, from);
    if (news->claim_count == 0)
        return changes;
    if (sender == NODE_NONE || !gossip__live(g, sender)) {
        g->stats.rejected += news->claim_count; /* DHT-6: accusers are members */
        return changes;
    }
    for (unsigned i = 0; i < news->claim_count; i++)
        take_claim(g, &news->claims[i], from, sync);
    return changes;
}

void gossip__send_corrections(struct gossip *g, const struct peer_addr *from)
{
    if (g->corrections.count == 0)
        return;
    gossip__begin(g, WIRE_GOSSIP_NEWS, 0, from);
    gossip__limit_to_reply(g);
    for (unsigned i = 0; i < g->corrections.count; i++) {
        if (!gossip__add_record(g, g->corrections.nodes[i]))
            break;
    }
    if (g->out.news.record_count > 0)
        gossip__send(g, from, 0);
}
