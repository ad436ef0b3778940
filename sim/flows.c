/* SPDX-License-Identifier: Apache-2.0 */
/* Max-min fair flows by local pouring; see flows.h. Whole numbers only, so that all machines agree.
 */
#include "flows.h"

#include <stdlib.h>

#include "log.h"

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
    ASSERT(flows->links != NULL);
    for (uint32_t i = 0; i < link_count; i++)
        flows->links[i].level_bps = flows->links[i].told_bps = FLOW_NO_LIMIT;
}

void flows_close(struct flows *flows)
{
    for (uint32_t i = 0; i < flows->link_count; i++)
        free(flows->links[i].flows);
    free(flows->links);
    free(flows->items);
    free(flows->offers);
    free(flows->unused.items);
    free(flows->dirty.items);
    free(flows->moved.items);
    free(flows->fresh.items);
    *flows = (struct flows){0};
}

/* ---- bytes and their last moment ---- */

/* Time in which the rest arrives at the present rate. */
static uint64_t rest_us(const struct flow *flow)
{
    if (flow->rate_bps == 0)
        return UINT64_MAX;
    return (flow->left + flow->rate_bps - 1) / flow->rate_bps;
}

static void settle(struct flow *flow, uint64_t now_us)
{
    uint64_t passed_us = now_us - flow->updated_us;
    uint64_t moved = passed_us * flow->rate_bps;
    flow->left = moved < flow->left ? flow->left - moved : 0;
    flow->updated_us = now_us;
}

/* An event for the last byte, unless one comes before it anyway: that one then asks for another. */
static void schedule(struct flows *flows, uint32_t index)
{
    struct flow *flow = &flows->items[index];
    if (flow->rate_bps == 0)
        return;
    uint64_t at_us = flow->updated_us + rest_us(flow);
    if (flow->event_us <= at_us)
        return;
    flow->event_us = at_us;
    flow->version++;
    events_push(flows->events,
                (struct event){
                    .at_us = at_us, .kind = EVENT_FLOW, .other = index, .version = flow->version});
}

static void set_rate(struct flows *flows, uint32_t index, uint64_t rate_bps, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    settle(flow, now_us);
    for (uint32_t i = 0; i < flow->link_count; i++) {
        struct flow_link *link = &flows->links[flow->links[i]];
        link->used_bps += rate_bps - flow->rate_bps; /* may pass below zero and back */
    }
    flow->rate_bps = rate_bps;
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
        uint32_t old = flows->count, capacity = flows->count;
        flows->items = grown(flows->items, &capacity, old + 64, sizeof *flows->items);
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
                          .version = flow->version + 1,
                          .fresh = true};
    for (uint32_t i = 0; i < plan->link_count; i++) {
        uint32_t at = plan->links[i];
        ASSERT(at < flows->link_count);
        struct flow_link *link = &flows->links[at];
        link->flows = grown(link->flows, &link->capacity, link->count + 1, sizeof *link->flows);
        flow->links[i] = at;
        flow->places[i] = link->count;
        link->flows[link->count++] = index;
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
    uint32_t moved = link->flows[last];
    link->flows[place] = moved;
    struct flow *other = &flows->items[moved];
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
    *flow = (struct flow){.version = flow->version + 1};
    list_add(&flows->unused, index);
    ask_for_pour(flows, now_us);
}

bool flows_fired(struct flows *flows, uint32_t index, uint64_t version, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    if (flow->link_count == 0 || flow->version != version)
        return false;
    flow->event_us = UINT64_MAX;
    settle(flow, now_us);
    if (flow->left == 0)
        return true;
    schedule(flows, index); /* the rate has fallen since */
    return false;
}

void flows_more(struct flows *flows, uint32_t index, uint64_t bytes, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    ASSERT(flow->link_count > 0 && flow->left == 0);
    settle(flow, now_us);
    flow->left = bytes * FLOW_BYTE;
    schedule(flows, index);
}

uint64_t flows_left(const struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow flow = flows->items[index];
    settle(&flow, now_us);
    return (flow.left + FLOW_BYTE - 1) / FLOW_BYTE;
}

/* ---- pouring ---- */

/* The most that the rest of a flow's way lets it take at `link`. */
static uint64_t offer_of(const struct flows *flows, const struct flow *flow, uint32_t link)
{
    uint64_t offer = flow->limit_bps;
    for (uint32_t i = 0; i < flow->link_count; i++) {
        uint64_t level = flows->links[flow->links[i]].level_bps;
        if (flow->links[i] != link && level < offer)
            offer = level;
    }
    return offer;
}

/* Water-filling of one link: flows that cannot take the equal share leave the rest to the others,
 * until nobody is left who cannot take it. */
static uint64_t level_of(struct flows *flows, uint32_t at)
{
    const struct flow_link *link = &flows->links[at];
    uint32_t left = link->count;
    flows->offers =
        grown(flows->offers, &flows->offer_capacity, link->count, sizeof *flows->offers);
    uint64_t *offers = flows->offers;
    for (uint32_t i = 0; i < link->count; i++)
        offers[i] = offer_of(flows, &flows->items[link->flows[i]], at);
    uint64_t rest = link->rate_bps;
    while (left > 0) {
        uint64_t level = rest / left;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < left; i++) {
            if (offers[i] <= level)
                rest -= offers[i]; /* their sum is at most `rest` */
            else
                offers[kept++] = offers[i];
        }
        if (kept == left)
            return level > 0 ? level : 1;
        left = kept;
    }
    return FLOW_NO_LIMIT;
}

/* Is the change worth telling? Rates then differ from the fair ones by such parts. */
static bool differs(const struct flows *flows, uint64_t a, uint64_t b)
{
    if (a == b || flows->slack == 0 || a == FLOW_NO_LIMIT || b == FLOW_NO_LIMIT)
        return a != b;
    uint64_t gap = a > b ? a - b : b - a;
    return gap > a / flows->slack;
}

/* Far ends pour anew if what they may take from this one changed below their own level; one with
 * room to spare only gets more of it when it is offered less. */
static void tell_far_ends(struct flows *flows, uint32_t at, uint64_t lower_bps, bool risen)
{
    const struct flow_link *link = &flows->links[at];
    for (uint32_t i = 0; i < link->count; i++) {
        const struct flow *flow = &flows->items[link->flows[i]];
        for (uint32_t j = 0; j < flow->link_count; j++) {
            uint32_t far = flow->links[j];
            uint64_t level = flows->links[far].level_bps;
            if (far != at && lower_bps < level && (risen || level != FLOW_NO_LIMIT))
                touch_link(flows, far);
        }
    }
}

static void pour_link(struct flows *flows, uint32_t at)
{
    struct flow_link *link = &flows->links[at];
    flows->poured_links++;
    link->level_bps = level_of(flows, at);
    if (!differs(flows, link->level_bps, link->told_bps))
        return;
    bool risen = link->level_bps > link->told_bps;
    uint64_t lower = risen ? link->told_bps : link->level_bps;
    link->told_bps = link->level_bps;
    tell_far_ends(flows, at, lower, risen);
    if (!link->moved) {
        link->moved = true;
        list_add(&flows->moved, at);
    }
}

static void refresh_rate(struct flows *flows, uint32_t index, uint64_t now_us)
{
    struct flow *flow = &flows->items[index];
    uint64_t rate = offer_of(flows, flow, FLOW_NONE);
    ASSERT(rate != FLOW_NO_LIMIT); /* every flow has a full link or a limit */
    if (flow->fresh ? rate != flow->rate_bps : differs(flows, rate, flow->rate_bps))
        set_rate(flows, index, rate, now_us);
    flow->fresh = false;
}

void flows_pour(struct flows *flows, uint64_t now_us)
{
    flows->pour_due = false;
    flows->pours++;
    for (uint32_t i = 0; i < flows->dirty.count; i++) { /* grows while it runs */
        uint32_t at = flows->dirty.items[i];
        flows->links[at].queued = false;
        pour_link(flows, at);
    }
    flows->dirty.count = 0;
    for (uint32_t i = 0; i < flows->moved.count; i++) {
        struct flow_link *link = &flows->links[flows->moved.items[i]];
        link->moved = false;
        for (uint32_t j = 0; j < link->count; j++)
            refresh_rate(flows, link->flows[j], now_us);
    }
    flows->moved.count = 0;
    for (uint32_t i = 0; i < flows->fresh.count; i++) {
        uint32_t index = flows->fresh.items[i];
        if (flows->items[index].link_count > 0 && flows->items[index].fresh)
            refresh_rate(flows, index, now_us);
    }
    flows->fresh.count = 0;
}

void flows_check(const struct flows *flows)
{
    for (uint32_t at = 0; at < flows->link_count; at++) {
        const struct flow_link *link = &flows->links[at];
        uint64_t used = 0;
        for (uint32_t i = 0; i < link->count; i++) {
            const struct flow *flow = &flows->items[link->flows[i]];
            bool listed = false;
            for (uint32_t j = 0; j < flow->link_count; j++)
                listed = listed || (flow->links[j] == at && flow->places[j] == i);
            ASSERT(listed);
            used += flow->rate_bps;
        }
        ASSERT(used == link->used_bps);
        ASSERT(flows->slack > 0 || flows->pour_due || used <= link->rate_bps + link->count);
    }
}
