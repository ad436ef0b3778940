/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bulk bytes on shared links, max-min fair: no flow can have more unless another that has no more
 * than it gets less (Bertsekas, Gallager, "Data Networks" §6.5.2). A flow crosses up to seven links
 * (NICs, vSwitch uplinks and zone borders at both ends, all borders' total; or the origin's); what
 * it leaves of its share at one of them goes to the others there.
 *
 * Each link keeps its level, the most a flow may take there, and pours it anew when a flow comes or
 * goes or when a level changes at the far end of one of its flows; so a change travels as far as it
 * matters. The fixed point of that is the max-min allocation, whatever the order: the links with
 * the lowest level are right after one pour, then those next to them.
 */
#ifndef SHOAL_SIM_FLOWS_H
#define SHOAL_SIM_FLOWS_H

#include "events.h"

#define FLOW_LINKS_MAX 7
#define FLOW_NONE      UINT32_MAX
#define FLOW_NO_LIMIT  UINT64_MAX
/* A byte per second for a microsecond: what is left is kept so finely that nothing is rounded. */
#define FLOW_BYTE 1000000ULL

struct flow {
    uint64_t left; /* at updated_us, in parts of FLOW_BYTE to a byte */
    uint64_t updated_us;
    uint64_t event_us;   /* of its EVENT_FLOW; UINT64_MAX: none */
    uint32_t event;      /* slot of that; EVENT_NONE: none */
    uint32_t user;       /* whose it is: the owner's business */
    uint64_t limit_bps;  /* of its own; FLOW_NO_LIMIT: none */
    uint32_t link_count; /* 0: unused */
    uint32_t links[FLOW_LINKS_MAX];
    uint32_t places[FLOW_LINKS_MAX]; /* its index in each link's list */
};

/* What a pour reads of each flow, apart from the rest so that the processor's cache holds it. */
struct flow_pace {
    uint64_t rate_bps; /* bytes per second; 0 until the first pour */
    bool fresh;        /* came since the last pour */
};

/* A flow on a link's list. */
struct flow_end {
    uint32_t flow;
    uint32_t far; /* its only other link; FLOW_NONE: it has none or many, or a limit of its own */
};

struct flow_link {
    uint64_t rate_bps;
    uint64_t told_bps;     /* level at which the flows' rates and the far ends stand */
    uint64_t used_bps;     /* sum of its flows' rates */
    struct flow_end *ends; /* owned */
    uint32_t count, capacity;
    bool queued, moved; /* in the lists of a pour */
};

struct flow_list {
    uint32_t *items; /* owned */
    uint32_t count, capacity;
};

struct flows {
    struct flow *items;      /* owned */
    struct flow_pace *paces; /* owned; of each */
    uint32_t count;
    struct flow_list unused;
    struct flow_link *links; /* owned */
    uint64_t
        *levels; /* owned; of each link: the most a flow may take; FLOW_NO_LIMIT: room to spare */
    uint32_t link_count;
    uint64_t quantum_us; /* pours happen at multiples of this; 0: at once */
    uint64_t slack; /* a level's change by less than one part in this is not told; 0: all are */
    bool pour_due;  /* an EVENT_POUR is on its way */
    uint64_t pours, poured_links; /* counters */
    uint64_t *offers;             /* owned; scratch of one link */
    uint32_t offer_capacity;
    struct flow_list dirty, moved, fresh;
    struct event_queue *events; /* borrowed */
};

/* What a new flow is. */
struct flow_plan {
    uint32_t links[FLOW_LINKS_MAX]; /* the first link_count, all different */
    uint32_t link_count;
    uint32_t user;
    uint64_t limit_bps; /* 0: none */
    uint64_t bytes;
};

/* Room for so many links, all without rate. `events` is borrowed. */
void flows_init(struct flows *flows, struct event_queue *events, uint32_t link_count);
/* Frees everything. */
void flows_close(struct flows *flows);
/* A link's rate is now this, in bytes per second, > 0. */
void flows_set_link(struct flows *flows, uint32_t link, uint64_t rate_bps, uint64_t now_us);
/* Bytes start to move; returns the flow's index, stable until flows_remove. Ends by an EVENT_FLOW
 * with that index in `other`. */
uint32_t flows_add(struct flows *flows, const struct flow_plan *plan, uint64_t now_us);
/* True if the last of the flow's present bytes is here; the flow waits for flows_more, flows_later
 * or flows_remove then. */
bool flows_fired(struct flows *flows, uint32_t index, uint64_t now_us);
/* Nobody can take note of that now: another EVENT_FLOW comes then. */
void flows_later(struct flows *flows, uint32_t index, uint64_t at_us);
/* So many bytes more on the same connection. */
void flows_more(struct flows *flows, uint32_t index, uint64_t bytes, uint64_t now_us);
/* Bytes of it that have not arrived. */
uint64_t flows_left(const struct flows *flows, uint32_t index, uint64_t now_us);
/* What a flow takes now, in bytes per second. */
static inline uint64_t flows_rate(const struct flows *flows, uint32_t index)
{
    return flows->paces[index].rate_bps;
}
/* Takes a flow off its links and forgets it. */
void flows_remove(struct flows *flows, uint32_t index, uint64_t now_us);
/* EVENT_POUR: levels and rates become right. */
void flows_pour(struct flows *flows, uint64_t now_us);
/* Aborts if lists and sums disagree or a link carries more than it can. */
void flows_check(const struct flows *flows);

#endif
