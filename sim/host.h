/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's host of the nodes: what the daemon does with sockets, caches and an origin, done
 * with events and flows. The protocol is not repeated here. Shared by sim/ alone:
 *
 *   world.c     clock, dispatch, datagrams, scenario calls     host.c      a node's life and
 * results bulk.c      uploads, origin reads, pieces that arrive      sessions.c  connections
 * between nodes pulls.c     blobs a node has, and who waits for them
 */
#ifndef SHOAL_SIM_HOST_H
#define SHOAL_SIM_HOST_H

#include "events.h"
#include "flows.h"
#include "world.h"

#define WORLD_ZONES_MAX 64
#define INDEX_NONE      UINT32_MAX
/* A peer that vanished without a reset is noticed by TCP_USER_TIMEOUT (N-3). */
#define WORLD_SILENT_US 3000000

struct sim_blob {
    blob_handle handle;   /* in this life of the node; 0: not open */
    struct bitfield have; /* the node's cache, kept over restarts when asked */
    uint32_t prefix;      /* pieces had without a gap from the first */
    uint32_t first_pull;  /* running ones, chained by next; INDEX_NONE ends */
};

enum session_state {
    SESSION_OPENING = 1, /* a handshake is under way; ends by EVENT_SESSION_UP or _DOWN */
    SESSION_UP,          /* ends by EVENT_SESSION_DOWN */
};

/* What one node believes of its session with another. Both ends hold the same version while they
 * agree; a node that was killed leaves the other end believing for a while. */
struct session {
    uint32_t peer;
    uint8_t state; /* enum session_state */
    bool wanted;   /* transfer did not release it */
    uint64_t version;
};

enum bulk_kind {
    BULK_FREE = 0,
    BULK_UPLOAD, /* a piece from node to node */
    BULK_FETCH,  /* pieces from the origin, one after the other */
    BULK_VERIFY, /* an arrived piece on its way through opening, hashing, storing */
};

enum bulk_state {
    BULK_WAITING = 1, /* UPLOAD: for the session */
    BULK_COMING,      /* for the first byte: latency, or the origin's time to it */
    BULK_FLOWING,     /* bytes move */
    BULK_STALLED,     /* UPLOAD: the other end is gone; ends with the session. FETCH: no answer */
    BULK_DONE,        /* FETCH: the last piece is being verified */
};

/* Something under way that carries bytes. In its owner's list, uploads in the receiver's too. */
struct bulk {
    uint8_t kind;      /* enum bulk_kind */
    uint8_t state;     /* enum bulk_state */
    bool unwanted;     /* UPLOAD: the receiver did not expect it and drops it */
    bool wrong;        /* VERIFY: a liar sent it */
    bool last;         /* VERIFY: of its fetch */
    uint32_t from, to; /* nodes; from may be WORLD_ORIGIN */
    uint32_t blob, piece, pieces_left;
    uint32_t flow;                 /* while FLOWING, else FLOW_NONE */
    uint32_t parent;               /* VERIFY: bulk of its fetch */
    uint64_t parent_version;       /* of that */
    uint64_t version;              /* never reused */
    uint64_t id;                   /* upload or fetch id of the owner's transfer */
    uint64_t before_bytes;         /* FETCH: of earlier pieces */
    uint64_t told_bytes;           /* progress last reported */
    enum fetch_reason reason;      /* FETCH */
    uint32_t next, previous;       /* in the owner's list */
    uint32_t next_in, previous_in; /* in the receiver's list */
};

struct bulk_list {
    uint32_t first, last; /* INDEX_NONE: empty */
};

struct sim_node {
    struct world *world;
    uint32_t index;
    struct env env;
    struct prng prng;
    struct node_id id;
    struct mesh *mesh; /* NULL while down */
    uint64_t timer_us; /* time of the scheduled timer event, UINT64_MAX if none */
    uint64_t timer_version;
    bool liar;
    uint64_t frozen_until_us; /* stopped without dying: events wait until then */
    bool draining;            /* inside host_drain */
    uint64_t uploaded_bytes;
    struct session *sessions; /* owned, by peer */
    uint32_t session_count, session_capacity;
    struct bulk_list own;      /* its uploads, fetches and verifications, oldest first */
    struct bulk_list incoming; /* uploads of others to it */
    struct sim_blob blobs[WORLD_BLOBS_MAX];
};

struct world_lookup {
    uint32_t node;
    struct dht_result result;
};

struct datagram_buffer {
    struct datagram_buffer *next;
    uint8_t bytes[MESSAGE_BYTES_MAX];
};

struct world {
    struct world_config config;
    uint64_t now_us;
    uint64_t trace_hash;
    struct prng prng;
    struct event_queue events;
    struct flows flows;
    enum world_origin origin;
    struct sim_node *nodes; /* owned */
    struct bulk *bulks;     /* owned */
    uint32_t bulk_count, bulk_free;
    uint64_t session_version;
    struct datagram_buffer *free_datagrams;     /* owned */
    bool cut[WORLD_ZONES_MAX][WORLD_ZONES_MAX]; /* from, to */
    struct blob_info blobs[WORLD_BLOBS_MAX];
    struct piece_layout layouts[WORLD_BLOBS_MAX];
    uint32_t blob_count;
    struct world_pull *pulls; /* owned */
    size_t pull_count, pull_capacity, pulls_running;
    struct world_lookup *lookups; /* owned */
    size_t lookup_head, lookup_count, lookup_capacity;
    struct world_totals totals;
};

/* ---- world.c ---- */

/* Zone of a node. */
uint32_t world__zone(const struct world *world, uint32_t node);
/* Do datagrams from a to b vanish? */
bool world__cut(const struct world *world, uint32_t a, uint32_t b);
/* Can a connection between them not carry bytes? */
bool world__severed(const struct world *world, uint32_t a, uint32_t b);
/* One-way latency drawn anew. */
uint64_t world__latency_us(struct world *world, uint32_t a, uint32_t b);
/* Node of an address; INDEX_NONE for addresses outside the world. */
uint32_t world__node_at(const struct world *world, const struct peer_addr *addr);
/* env->send of every node. */
int world__send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes);
/* Links of the flow network. */
uint32_t world__link_up(uint32_t node);
uint32_t world__link_down(uint32_t node);
/* A flow's way between two ends; `from` may be WORLD_ORIGIN. */
void world__plan_flow(const struct world *world, uint32_t from, uint32_t to, struct flow_plan *out);

/* ---- host.c ---- */

/* Prepares node `index` (down). */
void host_init(struct world *world, uint32_t index);
/* Frees what a node holds, without a word to anybody. */
void host_close(struct sim_node *node);
/* Its transfer core. The node is up. */
struct transfer *host_transfer(struct sim_node *node);
/* Events, each followed by a drain of the mesh's results. */
void host_start(struct sim_node *node, bool keep_cache);
/* `silent`: the others notice by time-out, not by a reset. */
void host_kill(struct sim_node *node, bool silent);
/* First drain; the second time, gone. */
void host_leave(struct sim_node *node, bool final);
void host_datagram(struct sim_node *node, uint32_t from, const uint8_t *bytes, size_t byte_count);
void host_timer(struct sim_node *node, uint64_t version);
/* Takes results until there are none, then schedules the next deadline. */
void host_drain(struct sim_node *node);

/* ---- sessions.c ---- */

/* NULL if the node knows of none with this peer. Borrowed until the next call here. */
struct session *session_find(struct sim_node *node, uint32_t peer);
/* TRANSFER_CONNECT: answers at once if there is one, else by an event. */
void session_connect(struct sim_node *node, const struct transfer_result *result);
/* TRANSFER_RELEASE: a session nobody wants is closed. */
void session_release(struct sim_node *node, uint32_t peer);
/* A handshake begins unless one is under way or over. */
void session_dial(struct sim_node *node, uint32_t peer);
void session_is_up(struct sim_node *node, uint32_t peer, uint64_t version);
void session_is_down(struct sim_node *node, uint32_t peer, uint64_t version);
/* This end finds that the other knows nothing of the session: a reset is on its way. */
void session_reset(struct sim_node *node, uint32_t peer);
/* The node died: all others' ends go down after `after_us`. */
void sessions_drop(struct sim_node *node, uint64_t after_us);
/* Nothing goes through between two zones any more: sessions stall, then end. */
void sessions_sever(struct world *world, uint32_t zone_a, uint32_t zone_b);

/* ---- bulk.c ---- */

/* TRANSFER_UPLOAD, _FETCH and their CANCELs: each ends by exactly one transfer_*_end. */
void bulk_upload(struct sim_node *node, const struct transfer_result *result);
void bulk_fetch(struct sim_node *node, const struct transfer_result *result);
void bulk_cancel(struct sim_node *node, enum bulk_kind kind, uint64_t id);
/* The session came up: uploads that waited for it begin. */
void bulk_resume(struct sim_node *node, uint32_t peer);
/* The session ended: uploads on it do, too. */
void bulk_end_session(struct sim_node *node, uint32_t peer);
/* Bytes between the two stop for good, in both directions; who sent them does not know yet. */
void bulk_stall(struct world *world, uint32_t a, uint32_t b);
/* The node died: what it did is gone, what was on its way to it stalls. */
void bulk_drop(struct sim_node *node);
/* All bodies on their way from the origin break off (O-6). */
void bulk_cut_origin(struct world *world);
void bulk_start(struct world *world, uint32_t index, uint64_t version);
void bulk_progress(struct world *world, uint32_t index, uint64_t version);
void bulk_flow(struct world *world, uint32_t flow, uint64_t version);
void bulk_verified(struct world *world, uint32_t index, uint64_t version);
/* Aborts if lists and flows disagree. */
void bulk_check(const struct world *world);

/* ---- pulls.c ---- */

/* Index of an open blob; INDEX_NONE if the handle names none. */
uint32_t pulls_blob_of(const struct sim_node *node, blob_handle handle);
/* Opens a blob with what the node has of it. 0 or transfer's error. */
MUST_USE int pulls_open(struct sim_node *node, uint32_t blob);
/* EVENT_PULL: a client begins to read. */
void pulls_begin(struct sim_node *node, uint32_t pull, enum transfer_read_mode mode);
/* A piece is here: readers move on. */
void pulls_piece(struct sim_node *node, uint32_t blob);
/* The blob is complete, or a piece of it cannot be had. */
void pulls_end(struct sim_node *node, uint32_t blob, bool failed);
/* The node died: its running pulls failed; its blobs are closed, and forgotten unless kept. */
void pulls_drop(struct sim_node *node);
void pulls_forget(struct sim_node *node);

#endif
