/* SPDX-License-Identifier: Apache-2.0 */
/* Max-min fair flows by local pouring; see flows.h. Whole numbers only, so that all machines agree.
 */
#include "flows.h"

#include <stdlib.h>

#include "log.h"

/* Flows of a link whose rates are set at a time. */
#define RATE_BATCH 32
/* Ends of a link in a line of the processor's cache. */
#define LINE_ENDS (64 / sizeof(struct flow_end))

static void *grown(void *old, uint32_t *capacity, uint32_t wanted, size_t each)
{
    if (wanted <= *capacity)
        return old;
    uint32_t more = *capacity == 0 ? 8 : *capacity * 2;
    more = more < wanted ? wanted : more;
    void *items = realloc(old, more * each);
    ASSERT(items != NULL);
    *capacity = more;
    return items;
}

static void list_add(struct flow_list *list, uint32_t item)
{
    list->items = grown(list->items, &list->capacity, list->count + 1, sizeof *list->items);
    list->items[list->count++] = item;
}

void flows_init(struct flows *flows, struct event_queue *events, uint32_t link_count)
{
    *flows = (struct flows){.events = events, .link_count = link_count};
    flows->links = calloc(link_count, sizeof *flows->links);
    flows->levels = calloc(link_count, sizeof *flows->levels);
    ASSERT(flows->links != NULL && flows->levels != NULL);
    for (uint32_t i = 0; i < link_count; i++)
        flows->levels[i] = flows->links[i].told_bps = FLOW_NO_LIMIT;
}

void flows_close(struct flows *flows)
{
    for (uint32_t i = 0; i < flows->link_count; i++)
        free(flows->links[i].ends);
    free(flows->links);
    free(flows->levels);
    free(flows->items);
    free(flows->paces);
    free(flows->offers);
    free(flows->unused.items);
    free(flows->dirty.items);
    free(flows->moved.items);
    free(flows->fresh.items);
    *flows = (struct flows){0};
}

/* ---- bytes and their last moment ---- */

static void settle(struct flow *flow, uint64_t rate_bps, uint64_t now_us)
{
    uint64_t passed_us = now_us - flow->updated_us;
    uint64_t moved = passed_us * rate_bps;
    flow->left = moved < flow->left ? flow->left - moved : 0;
    flow->updated_us = now_us;
}

static void wake_at(struct flows *flows, uint32_t index, uint64_t at_us)
{
    struct flow *flow = &flows->items[index];
    flow->event_us = at_us;
    if (flow->event != EVENT_NONE)
        events_move(flows->events, flow->event, at_us);
    else
        flow->event = events_push(
            flows->events, (struct event){.at_us = at_us, .kind = EVENT_FLOW, .other = index});
}

/* An event for the last byte, unless one comes before it anyway: that one then asks for another. */
static void schedule(struct flows *flows, uint32_t index)
{
    const struct flow *flow = &flows->items[index];
    uint64_t rate_bps = flows->paces[index].rate_bps;
    if (rate_bps == 0)
        return;
    uint64_t at_us = flow->updated_us + (flow->left + rate_bps - 1) / rate_bps;
    if (flow->event_us > at_us)
        wake_at(flows, index, at_us);
}

static void set_rate(struct flows *flows, uint32_t index, uint64_t rate_bps, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    uint64_t before_bps = flows->paces[index].rate_bps;
    settle(flow, before_bps, now_us);
    for (uint32_t i = 0; i < flow->link_count; i++) {
        struct flow_link *link = &flows->links[flow->links[i]];
        link->used_bps += rate_bps - before_bps; /* may pass below zero and back */
    }
    flows->paces[index].rate_bps = rate_bps;
    schedule(flows, index);
}

/* ---- what has to be poured ---- */

static void touch_link(struct flows *flows, uint32_t index)
{
    if (flows->links[index].queued)
        return;
    flows->links[index].queued = true;
    list_add(&flows->dirty, index);
}

static void ask_for_pour(struct flows *flows, uint64_t now_us)
{
    if (flows->pour_due)
        return;
    flows->pour_due = true;
    uint64_t at_us = now_us;
    if (flows->quantum_us > 0)
        at_us = (now_us + flows->quantum_us - 1) / flows->quantum_us * flows->quantum_us;
    events_push(flows->events, (struct event){.at_us = at_us, .kind = EVENT_POUR});
}

void flows_set_link(struct flows *flows, uint32_t link, uint64_t rate_bps, uint64_t now_us)
{
    ASSERT(link < flows->link_count && rate_bps > 0);
    flows->links[link].rate_bps = rate_bps;
    if (flows->links[link].count == 0)
        return;
    touch_link(flows, link);
    ask_for_pour(flows, now_us);
}

static uint32_t take_index(struct flows *flows)
{
    if (flows->unused.count == 0) {
        uint32_t old = flows->count, capacity = flows->count, paces = flows->count;
        flows->items = grown(flows->items, &capacity, old + 64, sizeof *flows->items);
        flows->paces = grown(flows->paces, &paces, old + 64, sizeof *flows->paces);
        for (uint32_t i = capacity; i-- > old;) {
            flows->items[i] = (struct flow){0};
            list_add(&flows->unused, i);
        }
        flows->count = capacity;
    }
    return flows->unused.items[--flows->unused.count];
}

/* Until the next pour a new flow takes what nobody uses on its way. */
static uint64_t room_for(const struct flows *flows, const struct flow *flow)
{
    uint64_t room = flow->limit_bps;
    for (uint32_t i = 0; i < flow->link_count; i++) {
        const struct flow_link *link = &flows->links[flow->links[i]];
        uint64_t left = link->used_bps < link->rate_bps ? link->rate_bps - link->used_bps : 0;
        room = left < room ? left : room;
    }
    return room;
}

uint32_t flows_add(struct flows *flows, const struct flow_plan *plan, uint64_t now_us)
{
    ASSERT(plan->link_count > 0 && plan->link_count <= FLOW_LINKS_MAX);
    uint32_t index = take_index(flows);
    struct flow *flow = &flows->items[index];
    *flow = (struct flow){.link_count = plan->link_count,
                          .user = plan->user,
                          .limit_bps = plan->limit_bps == 0 ? FLOW_NO_LIMIT : plan->limit_bps,
                          .left = plan->bytes * FLOW_BYTE,
                          .updated_us = now_us,
                          .event_us = UINT64_MAX,
                          .event = EVENT_NONE};
    flows->paces[index] = (struct flow_pace){.fresh = true};
    bool plain = plan->link_count == 2 && plan->limit_bps == 0;
    for (uint32_t i = 0; i < plan->link_count; i++) {
        uint32_t at = plan->links[i];
        ASSERT(at < flows->link_count);
        struct flow_link *link = &flows->links[at];
        link->ends = grown(link->ends, &link->capacity, link->count + 1, sizeof *link->ends);
        flow->links[i] = at;
        flow->places[i] = link->count;
        link->ends[link->count++] =
            (struct flow_end){.flow = index, .far = plain ? plan->links[1 - i] : FLOW_NONE};
        touch_link(flows, at);
    }
    list_add(&flows->fresh, index);
    if (flows->quantum_us > 0)
        set_rate(flows, index, room_for(flows, flow), now_us);
    ask_for_pour(flows, now_us);
    return index;
}

static void leave_link(struct flows *flows, const struct flow *flow, uint32_t which)
{
    struct flow_link *link = &flows->links[flow->links[which]];
    uint32_t place = flow->places[which], last = --link->count;
    touch_link(flows, flow->links[which]);
    if (place == last)
        return;
    link->ends[place] = link->ends[last];
    struct flow *other = &flows->items[link->ends[place].flow];
    for (uint32_t i = 0; i < other->link_count; i++) {
        if (other->links[i] == flow->links[which])
            other->places[i] = place;
    }
}

void flows_remove(struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    ASSERT(flow->link_count > 0);
    set_rate(flows, index, 0, now_us);
    for (uint32_t i = 0; i < flow->link_count; i++)
        leave_link(flows, flow, i);
    if (flow->event != EVENT_NONE)
        events_cancel(flows->events, flow->event);
    *flow = (struct flow){0};
    flows->paces[index].fresh = false;
    list_add(&flows->unused, index);
    ask_for_pour(flows, now_us);
}

bool flows_fired(struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    ASSERT(flow->link_count > 0 && flow->event_us <= now_us);
    flow->event_us = UINT64_MAX;
    flow->event = EVENT_NONE;
    settle(flow, flows->paces[index].rate_bps, now_us);
    if (flow->left == 0)
        return true;
    schedule(flows, index); /* the rate has fallen since */
    return false;
}

void flows_later(struct flows *flows, uint32_t index, uint64_t at_us)
{
    ASSERT(flows->items[index].left == 0 && flows->items[index].event == EVENT_NONE);
    wake_at(flows, index, at_us);
}

void flows_more(struct flows *flows, uint32_t index, uint64_t bytes, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    ASSERT(flow->link_count > 0 && flow->left == 0);
    settle(flow, flows->paces[index].rate_bps, now_us);
    flow->left = bytes * FLOW_BYTE;
    schedule(flows, index);
}

uint64_t flows_left(const struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow flow = flows->items[index];
    settle(&flow, flows->paces[index].rate_bps, now_us);
    return (flow.left + FLOW_BYTE - 1) / FLOW_BYTE;
}

/* ---- pouring ---- */

/* The most that the rest of a flow's way lets it take at `link`. */
static uint64_t offer_of(const struct flows *flows, const struct flow *flow, uint32_t link)
{
    uint64_t offer = flow->limit_bps;
    for (uint32_t i = 0; i < flow->link_count; i++) {
        uint64_t level = flows->levels[flow->links[i]];
        if (flow->links[i] != link && level < offer)
            offer = level;
    }
    return offer;
}

/* Keeps the offers above the level; the others are taken out of *rest, which their sum is at most.
 * Without a branch: which way it goes is chance. */
static uint32_t keep_offer(uint64_t *offers, uint32_t kept, uint64_t offer, uint64_t level,
                           uint64_t *rest)
{
    bool takes = offer <= level;
    *rest -= takes ? offer : 0;
    offers[kept] = offer;
    return kept + !takes;
}

/* Reads the offers of a link's flows; this is the first round, too. */
static uint32_t first_round(struct flows *flows, uint32_t at, uint64_t level, uint64_t *rest)
{
    const struct flow_link *link = &flows->links[at];
    flows->offers =
        grown(flows->offers, &flows->offer_capacity, link->count, sizeof *flows->offers);
    uint64_t *offers = flows->offers, left = *rest;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < link->count; i++) {
        const struct flow_end end = link->ends[i];
        uint64_t offer = end.far != FLOW_NONE ? flows->levels[end.far]
                                              : offer_of(flows, &flows->items[end.flow], at);
        kept = keep_offer(offers, kept, offer, level, &left);
    }
    *rest = left;
    return kept;
}

/* Water-filling of one link: flows that cannot take the equal share leave the rest to the others,
 * until nobody is left who cannot take it. */
static uint64_t level_of(struct flows *flows, uint32_t at)
{
    uint32_t left = flows->links[at].count;
    if (left == 0)
        return FLOW_NO_LIMIT;
    uint64_t rest = flows->links[at].rate_bps, level = rest / left;
    uint32_t kept = first_round(flows, at, level, &rest);
    uint64_t *offers = flows->offers;
    while (kept > 0 && kept < left) {
        left = kept;
        level = rest / left;
        kept = 0;
        for (uint32_t i = 0; i < left; i++)
            kept = keep_offer(offers, kept, offers[i], level, &rest);
    }
    if (kept == 0)
        return FLOW_NO_LIMIT;
    return level > 0 ? level : 1;
}

/* Is the change worth telling? Rates then differ from the fair ones by such parts. */
static bool differs(const struct flows *flows, uint64_t a, uint64_t b)
{
    if (a == b || flows->slack == 0 || a == FLOW_NO_LIMIT || b == FLOW_NO_LIMIT)
        return a != b;
    uint64_t gap = a > b ? a - b : b - a;
    return gap * flows->slack > a;
}

static void tell(struct flows *flows, uint32_t far, uint64_t lower_bps, bool risen)
{
    uint64_t level = flows->levels[far];
    if (lower_bps < level && (risen || level != FLOW_NO_LIMIT))
        touch_link(flows, far);
}

/* Far ends pour anew if what they may take from this one changed below their own level; one with
 * room to spare only gets more of it when it is offered less. */
static void tell_far_ends(struct flows *flows, uint32_t at, uint64_t lower_bps, bool risen)
{
    const struct flow_link *link = &flows->links[at];
    for (uint32_t i = 0; i < link->count; i++) {
        if (link->ends[i].far != FLOW_NONE) {
            tell(flows, link->ends[i].far, lower_bps, risen);
            continue;
        }
        const struct flow *flow = &flows->items[link->ends[i].flow];
        for (uint32_t j = 0; j < flow->link_count; j++) {
            if (flow->links[j] != at)
                tell(flows, flow->links[j], lower_bps, risen);
        }
    }
}

/* The links that are poured next lie anywhere in memory, as do their lists. */
static void ask_for_links(const struct flows *flows, const struct flow_list *list, uint32_t next)
{
    if (next + 2 < list->count)
        __builtin_prefetch(&flows->links[list->items[next + 2]], 1);
    if (next >= list->count)
        return;
    const struct flow_link *link = &flows->links[list->items[next]];
    for (uint32_t i = 0; i < link->count; i += LINE_ENDS)
        __builtin_prefetch(&link->ends[i]);
}

static void pour_link(struct flows *flows, uint32_t at)
{
    struct flow_link *link = &flows->links[at];
    flows->poured_links++;
    uint64_t level = level_of(flows, at);
    flows->levels[at] = level;
    if (!differs(flows, level, link->told_bps))
        return;
    bool risen = level > link->told_bps;
    uint64_t lower = risen ? link->told_bps : level;
    link->told_bps = level;
    tell_far_ends(flows, at, lower, risen);
    if (!link->moved) {
        link->moved = true;
        list_add(&flows->moved, at);
    }
}

/* Has the rate to be set? A new flow is new no more. */
static bool takes_rate(struct flows *flows, uint32_t index, uint64_t rate_bps)
{
    struct flow_pace *pace = &flows->paces[index];
    ASSERT(rate_bps != FLOW_NO_LIMIT); /* every flow has a full link or a limit */
    bool fresh = pace->fresh;
    if (fresh)
        pace->fresh = false;
    return fresh ? rate_bps != pace->rate_bps : differs(flows, rate_bps, pace->rate_bps);
}

static uint64_t fair_rate(const struct flows *flows, const struct flow_end *end, uint64_t here_bps)
{
    if (end->far == FLOW_NONE)
        return offer_of(flows, &flows->items[end->flow], FLOW_NONE);
    return here_bps < flows->levels[end->far] ? here_bps : flows->levels[end->far];
}

/* Flows that get another rate, and which. */
struct rate_batch {
    uint32_t count;
    uint32_t flows[RATE_BATCH];
    uint64_t rates_bps[RATE_BATCH];
};

/* The flows lie anywhere in memory, and so do their events: both are asked for before any of them
 * is needed. */
static void set_rates(struct flows *flows, const struct rate_batch *batch, uint64_t now_us)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t event = flows->items[batch->flows[i]].event;
        if (event != EVENT_NONE)
            __builtin_prefetch(&flows->events->slots[event], 1);
    }
    for (uint32_t i = 0; i < batch->count; i++)
        set_rate(flows, batch->flows[i], batch->rates_bps[i], now_us);
}

static void refresh_rates(struct flows *flows, uint32_t at, uint64_t now_us)
{
    const struct flow_link *link = &flows->links[at];
    struct rate_batch batch;
    for (uint32_t first = 0; first < link->count; first += RATE_BATCH) {
        uint32_t end = link->count - first < RATE_BATCH ? link->count : first + RATE_BATCH;
        batch.count = 0;
        for (uint32_t i = first; i < end; i++)
            __builtin_prefetch(&flows->paces[link->ends[i].flow], 1);
        for (uint32_t i = first; i < end; i++) {
            uint32_t index = link->ends[i].flow;
            uint64_t rate_bps = fair_rate(flows, &link->ends[i], flows->levels[at]);
            if (!takes_rate(flows, index, rate_bps))
                continue;
            __builtin_prefetch(&flows->items[index], 1);
            __builtin_prefetch((const char *)&flows->items[index] + 64, 1);
            batch.flows[batch.count] = index;
            batch.rates_bps[batch.count++] = rate_bps;
        }
        set_rates(flows, &batch, now_us);
    }
}

void flows_pour(struct flows *flows, uint64_t now_us)
{
    flows->pour_due = false;
    flows->pours++;
    for (uint32_t i = 0; i < flows->dirty.count; i++) { /* grows while it runs */
        uint32_t at = flows->dirty.items[i];
        ask_for_links(flows, &flows->dirty, i + 1);
        flows->links[at].queued = false;
        pour_link(flows, at);
    }
    flows->dirty.count = 0;
    for (uint32_t i = 0; i < flows->moved.count; i++) {
        ask_for_links(flows, &flows->moved, i + 1);
        flows->links[flows->moved.items[i]].moved = false;
        refresh_rates(flows, flows->moved.items[i], now_us);
    }
    flows->moved.count = 0;
    for (uint32_t i = 0; i < flows->fresh.count; i++) {
        uint32_t index = flows->fresh.items[i];
        if (!flows->paces[index].fresh)
            continue;
        uint64_t rate_bps = offer_of(flows, &flows->items[index], FLOW_NONE);
        if (takes_rate(flows, index, rate_bps))
            set_rate(flows, index, rate_bps, now_us);
    }
    flows->fresh.count = 0;
}

void flows_check(const struct flows *flows)
{
    for (uint32_t at = 0; at < flows->link_count; at++) {
        const struct flow_link *link = &flows->links[at];
        uint64_t used = 0;
        for (uint32_t i = 0; i < link->count; i++) {
            const struct flow_end *end = &link->ends[i];
            const struct flow *flow = &flows->items[end->flow];
            bool listed = false;
            for (uint32_t j = 0; j < flow->link_count; j++)
                listed = listed || (flow->links[j] == at && flow->places[j] == i);
            ASSERT(listed);
            ASSERT(end->far == FLOW_NONE || end->far == flow->links[0] ||
                   end->far == flow->links[1]);
            used += flows->paces[end->flow].rate_bps;
        }
        ASSERT(used == link->used_bps);
        ASSERT(flows->slack > 0 || flows->pour_due || used <= link->rate_bps + link->count);
    }
}
