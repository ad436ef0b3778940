/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bulk bytes on shared links. Each end shares its rate equally among its flows; a flow runs at the
 * smaller of its two shares (an approximation of max-min fairness that never overstates a rate).
 */
#ifndef SHOAL_SIM_FLOWS_H
#define SHOAL_SIM_FLOWS_H

#include "events.h"
#include "transfer.h"

enum flow_kind {
    FLOW_FREE = 0,
    FLOW_UPLOAD, /* piece from node to node */
    FLOW_FETCH,  /* pieces from the origin, one after the other */
};

struct flow {
    enum flow_kind kind;
    uint32_t from, to; /* node indexes; from may be the origin */
    uint64_t version;  /* of the completion event that counts; never reused */
    uint64_t left_bytes;
    uint64_t rate_bps; /* 0 until the first byte is under way */
    uint64_t updated_us;
    bool flowing;
    uint32_t blob, piece, pieces_left;
    uint64_t id;              /* upload or fetch id */
    uint64_t done_bytes;      /* FETCH: of earlier pieces */
    enum fetch_reason reason; /* FETCH */
};

struct flow_list {
    uint32_t *items; /* owned */
    uint32_t count, capacity;
};

/* One end: a node's up or down link, or the origin. */
struct flow_end {
    uint64_t rate_bps;
    uint64_t per_flow_bps; /* 0: no limit */
    struct flow_list flows;
};

struct flows {
    struct flow *items; /* owned */
    uint32_t count, capacity;
    uint32_t *free_items; /* owned stack of unused indexes */
    uint32_t free_count;
    struct flow_end *up, *down; /* owned, per node */
    struct flow_end origin;
    struct event_queue *events; /* borrowed */
};

/* Room for the links of node_count nodes. */
void flows_init(struct flows *flows, struct event_queue *events, uint32_t node_count);
void flows_close(struct flows *flows);
/* Takes a flow that is not flowing yet; returns its index, stable until flows_remove. */
uint32_t flows_add(struct flows *flows, const struct flow *flow);
/* Bytes start to move: both ends' shares change. */
void flows_begin(struct flows *flows, uint32_t index, uint64_t now_us);
/* Takes a flow off its links and forgets it. */
void flows_remove(struct flows *flows, uint32_t index, uint64_t now_us);
/* The next piece of a fetch uses the same connection: `bytes` more. */
void flows_continue(struct flows *flows, uint32_t index, uint64_t bytes, uint64_t now_us);
/* A link's rate changed. */
void flows_set_rate(struct flows *flows, uint32_t node, uint64_t rate_bps, uint64_t now_us);

#endif
