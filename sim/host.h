/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's host of the nodes: what the daemon does with sockets, caches and an origin, done
 * with events and flows. The protocol is not repeated here. Shared by sim/ alone:
 *
 *   - world.c: clock, dispatch, datagrams, scenario calls
 *   - places.c: where nodes stand, latency, links
 *   - host.c: a node's life and results
 *   - bulk.c: uploads, origin reads, pieces that arrive
 *   - sessions.c: connections between nodes
 *   - tcp.c: slow start, connections to the origin and its limit of requests
 *   - work.c: processor, disk and memory of a node
 *   - keep.c: its piece cache
 *   - hostile.c: messages that a hostile node changes
 *   - watch.c: what messages tell of leases
 *   - pulls.c: blobs a node has, and who waits for them
 *   - ahead.c: layers that are brought in before they are asked for
 *   - series.c: what happened when
 *   - look_ahead.c: what events to come will read
 *   - pages.c: huge pages for all of it
 */
#ifndef SHOAL_SIM_HOST_H
#define SHOAL_SIM_HOST_H

#include "directory.h"
#include "events.h"
#include "flows.h"
#include "prefetch.h"
#include "series.h"
#include "world.h"

#define INDEX_NONE UINT32_MAX
/* A peer that vanished without a reset is noticed by TCP_USER_TIMEOUT (N-3). */
#define WORLD_SILENT_US 3000000
/* Idle connections to the origin that a node keeps (more than transfer ever has reads under way).
 */
#define ORIGIN_IDLE_MAX 16
/* Bytes that arrived and are not verified yet, at which reads from the origin pause: the agent's
 * limits.buffers. Requests to peers are bounded by transfer. */
#define UNVERIFIED_BYTES_MAX (96ULL << 20)

struct blob_set {
    uint64_t words[WORLD_BLOBS_MAX / 64];
};

/* True if it was not in the set yet. */
static inline bool blob_set_add(struct blob_set *set, uint32_t blob)
{
    uint64_t *word = &set->words[blob / 64], bit = 1ULL << blob % 64;
    bool added = (*word & bit) == 0;
    *word |= bit;
    return added;
}

struct sim_blob {
    blob_handle handle;   /* in this life of the node; 0: not open */
    struct bitfield have; /* the node's cache, kept over restarts when asked */
    uint32_t first_pull;  /* running ones, chained by next; INDEX_NONE ends */
    bool counted;         /* its pieces count for the node's progress */
    uint32_t *touched;    /* owned; per piece the memory's clock at its last use; NULL: none */
};

/* How much one direction of a connection may have on its way. */
struct tcp_window {
    uint64_t bytes; /* 0: new */
    uint64_t used_us;
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
    struct tcp_window out; /* of what this node sends */
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
    BULK_HELD,        /* FETCH: until fewer bytes wait to be verified */
    BULK_DONE,        /* FETCH: the last piece is being verified */
};

/* Something under way that carries bytes. In its owner's list, uploads in the receiver's too. */
struct bulk {
    uint8_t kind;      /* enum bulk_kind */
    uint8_t state;     /* enum bulk_state */
    bool unwanted;     /* UPLOAD: the receiver did not expect it and drops it */
    bool wrong;        /* VERIFY: a liar sent it */
    bool last;         /* VERIFY: of its fetch */
    bool pinned;       /* UPLOAD: its piece, in the cache */
    uint32_t from, to; /* nodes; from may be WORLD_ORIGIN */
    uint32_t blob, piece, pieces_left;
    uint32_t flow;                 /* while FLOWING, else FLOW_NONE */
    uint32_t look;                 /* slot of its EVENT_PROGRESS while FLOWING; EVENT_NONE: none */
    uint32_t parent;               /* VERIFY: bulk of its fetch */
    uint64_t parent_version;       /* of that */
    uint64_t version;              /* never reused */
    uint64_t id;                   /* upload or fetch id of the owner's transfer */
    uint64_t before_bytes;         /* FETCH: of earlier pieces */
    uint64_t told_bytes;           /* progress last reported */
    uint64_t began_us;             /* when the first byte of this piece came */
    struct tcp_window window;      /* FETCH: of its connection */
    enum fetch_reason reason;      /* FETCH */
    uint32_t next, previous;       /* in the owner's list */
    uint32_t next_in, previous_in; /* in the receiver's list */
};

struct bulk_list {
    uint32_t first, last; /* INDEX_NONE: empty */
};

/* Where a node stands; vSwitches are numbered through all zones. */
struct place {
    uint32_t region, zone, vswitch;
};

struct keep; /* a piece cache, keep.c */

/* An image at a node while clients pull it. */
struct sim_image {
    struct prefetch plan;
    struct prefetch_layer *layers; /* owned; NULL: nobody pulled it yet */
    uint64_t *readers;             /* owned; by layer: reader of transfer; 0: none */
};
struct world_image {
    uint32_t first_blob, blob_count;
};

/* What nearly each event reads stands first, in few lines of the processor's cache. */
struct sim_node {
    struct world *world;
    struct mesh *mesh; /* NULL while down */
    uint32_t index;
    uint64_t frozen_until_us; /* stopped without dying: events wait until then */
    uint64_t timer_us;        /* time of the scheduled timer event, UINT64_MAX if none */
    uint64_t timer_version;
    uint64_t clock_us;                                  /* of its own clock when the world's is 0 */
    int64_t clock_ppm;                                  /* by so much it runs fast */
    uint64_t cpu_milli;                                 /* 1000: as configured */
    uint64_t cores_free_ns, loop_free_ns, disk_free_ns; /* when their queues are empty */
    struct env env;
    struct node_id id;
    uint32_t hostile; /* bits of enum world_hostile */
    bool draining;    /* inside host_drain */
    bool died;        /* and was not started again */
    uint64_t up_bps, down_bps;
    struct session *sessions; /* owned, by peer */
    uint32_t session_count, session_capacity;
    struct bulk_list own;              /* its uploads, fetches and verifications, oldest first */
    struct bulk_list incoming;         /* uploads of others to it */
    uint32_t upload_count, read_count; /* BULK_UPLOAD and BULK_FETCH in `own` */
    uint32_t held_count;               /* BULK_HELD in `own` */
    uint32_t touch_clock;              /* of its memory */
    uint64_t unverified_bytes;         /* arrived, being opened, hashed, stored */
    uint64_t uploaded_bytes;
    struct node_bytes bytes; /* but for `sent` */
    uint64_t got_bytes;      /* towards bytes.wanted */
    uint64_t read_us;        /* when its clients have what they read */
    struct keep *keep;       /* owned; NULL: keeps everything */
    struct sim_blob blobs[WORLD_BLOBS_MAX];

    struct prng prng;
    uint32_t lives; /* times it was started */
    uint32_t disk;  /* enum world_disk */
    uint64_t disk_wait_us;
    uint64_t granted_us, leased_us; /* watched: last gave a lease, last was given one; 0: never */
    struct blob_set wanted_blobs;   /* that it pulls in the run */
    struct tcp_window origin_idle[ORIGIN_IDLE_MAX]; /* connections, used last at the end */
    uint32_t origin_idle_count;
    struct sim_image images[WORLD_BLOBS_MAX];
};

struct world_lookup {
    uint32_t node;
    struct dht_result result;
};

struct datagram_buffer {
    struct datagram_buffer *next;
    uint8_t bytes[MESSAGE_BYTES_MAX];
};

/* Rates of an event, see EVENT_NIC; 0: that one stays. */
struct world_rates {
    uint64_t first, second; /* up and down; or bytes per second and us to the first byte */
};

/* Moments ahead whose events are known to come: one for each step of look_ahead.c. */
#define LOOK_AHEAD_STEPS (TRANSFER_LOOK_AHEAD_STEPS + 2)
struct look_ahead {
    uint64_t now_us; /* when it was last moved on */
    /* In order, and behind them the one whose list is walked first; UINT64_MAX: not known. */
    uint64_t at_us[LOOK_AHEAD_STEPS + 1];
    uint32_t scout; /* slot on that walk; EVENT_NONE: over */
};

struct world {
    struct world_config config;
    uint64_t now_us;
    uint64_t trace_hash;
    uintptr_t pages_end; /* of pages_follow */
    struct prng prng;
    struct event_queue events;
    struct look_ahead ahead;
    struct flows flows;
    enum world_origin origin;
    uint64_t origin_full_us; /* when the origin has room for its whole burst of requests */
    uint64_t latency_us[DISTANCE_COUNT];
    struct series series;
    uint32_t nodes_up, pulls_begun, pulls_done, pulls_failed;
    struct sim_node *nodes; /* owned */
    struct place *places;   /* owned; of each node: each message asks where its receiver stands */
    struct bulk *bulks;     /* owned */
    uint32_t bulk_count, bulk_free;
    uint64_t session_version;
    struct directory *directory;                /* one for all nodes */
    struct datagram_buffer *free_datagrams;     /* owned */
    bool cut[WORLD_ZONES_MAX][WORLD_ZONES_MAX]; /* from, to */
    uint64_t *cut_links; /* owned; bit from * node_count + to; NULL: no link was ever cut */
    struct blob_info blobs[WORLD_BLOBS_MAX];
    struct piece_layout layouts[WORLD_BLOBS_MAX];
    uint64_t origin_bytes[WORLD_BLOBS_MAX];       /* of each blob */
    enum transfer_copies copies[WORLD_BLOBS_MAX]; /* 0: as the mesh's */
    uint32_t blob_count;
    struct world_image images[WORLD_BLOBS_MAX];
    uint32_t image_count;
    struct world_pull *pulls; /* owned */
    size_t pull_count, pull_capacity, pulls_running;
    struct world_rates *rates; /* owned */
    size_t rate_count, rate_capacity;
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
/* Node of an address; INDEX_NONE for addresses outside the world. */
uint32_t world__node_at(const struct world *world, const struct peer_addr *addr);
/* A node's own clock: the time that its cores are told. */
static inline uint64_t host_now_us(const struct sim_node *node)
{
    uint64_t now_us = node->world->now_us;
    int64_t wrong_us = node->clock_ppm == 0 ? 0 : (int64_t)(now_us / 1000) * node->clock_ppm / 1000;
    return now_us + node->clock_us + (uint64_t)wrong_us;
}
/* When the world's clock is when the node's own is at `local_us` or just past it; UINT64_MAX stays.
 */
uint64_t host__world_us(const struct sim_node *node, uint64_t local_us);
/* env->send of every node. */
int world__send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes);

/* ---- look_ahead.c ---- */

/* Time has moved, perhaps: asks memory for what the events to come will read. */
void look_ahead(struct world *world);

/* ---- places.c ---- */

/* Gives the flow network its links and their rates, and latencies their values. */
void places_init(struct world *world);
/* Where a node stands. */
void places_of(const struct world *world, uint32_t node, struct place *out);
/* New rates of a node's NIC, bytes per second, > 0. */
void places_set_nic(struct world *world, uint32_t node, uint64_t up_bps, uint64_t down_bps);
/* New rate of the origin, bytes per second, > 0. */
void places_set_origin(struct world *world, uint64_t origin_bps);
/* How far apart two nodes stand. */
enum distance world__distance(const struct world *world, uint32_t a, uint32_t b);
/* One-way latency drawn anew, and without jitter. */
uint64_t world__latency_us(struct world *world, uint32_t a, uint32_t b);
uint64_t world__base_latency_us(const struct world *world, uint32_t a, uint32_t b);
/* What a packet waits in the queues of full links on its way now; either end may be WORLD_ORIGIN.
 */
uint64_t world__queue_us(const struct world *world, uint32_t from, uint32_t to);
/* Links of the flow network. */
uint32_t world__link_up(uint32_t node);
uint32_t world__link_down(uint32_t node);
/* A flow's way between two ends; `from` may be WORLD_ORIGIN. */
void world__plan_flow(const struct world *world, uint32_t from, uint32_t to, struct flow_plan *out);

/* ---- tcp.c ---- */

/* Bytes that a connection is about to carry at up to rate_bps. */
struct tcp_burst {
    uint64_t rate_bps, round_us, bytes, now_us;
};
/* Time that slow start loses on them, in us; the window grows. */
uint64_t tcp_delay_us(const struct world_config *config, struct tcp_window *window,
                      const struct tcp_burst *burst);
/* A request to the origin for so many bytes: us until the first byte, on an idle connection or a
 * new one, whose window goes to *window. */
uint64_t origin_request_us(struct sim_node *node, uint64_t bytes, struct tcp_window *window);
/* The request was answered in full: its connection is idle. */
void origin_keep(struct sim_node *node, struct tcp_window window);
/* False: too many requests in a short time; it is answered by 429. */
bool origin_admits(struct world *world);

/* ---- work.c ---- */

/* A piece is to be sent to a peer: us until its first byte can be. */
uint64_t work_serve_us(struct sim_node *node, uint32_t blob, uint32_t piece);
/* A whole piece is here: us until it is opened, hashed and stored. */
uint64_t work_arrived_us(struct sim_node *node, const struct bulk *bulk, uint32_t bytes);
/* Would reading this piece need no disk? Always so when neither processor nor disk is modelled. */
bool work_in_memory(const struct sim_node *node, uint32_t blob, uint32_t piece);
/* A whole piece is here that nobody wants: it was opened all the same. */
void work_dropped(struct sim_node *node, uint32_t bytes);
/* A client is given a piece, `late` if others came between its arrival and now: us until it has
 * it. */
uint64_t work_read_us(struct sim_node *node, uint32_t blob, uint32_t piece, bool late);
/* Can this piece not be read from disk, though it must be? */
bool work_read_fails(const struct sim_node *node, uint32_t blob, uint32_t piece);
/* A datagram is sealed or opened. */
void work_message(struct sim_node *node);
/* A handshake takes so much of the processor: us until it is done. */
uint64_t work_handshake_us(struct sim_node *node, uint32_t took_us);
/* The node died: nobody waits for what it was doing. */
void work_stop(struct sim_node *node);

/* ---- keep.c; all do nothing for a node that keeps everything ---- */

/* Makes the empty cache, and forgets it with all that is in it. */
void keep_init(struct sim_node *node);
void keep_close(struct sim_node *node);
/* The blob becomes known to the cache. */
void keep_open(struct sim_node *node, uint32_t blob);
/* A reader of it begins: is all of it kept while it reads? */
bool keep_hold(struct sim_node *node, uint32_t blob);
/* A reader for which it was kept ends. */
void keep_unhold(struct sim_node *node, uint32_t blob);
/* A piece is verified: room is made for it; what went is told to transfer. */
void keep_piece(struct sim_node *node, uint32_t blob, uint32_t piece);
/* Is the piece in memory alone? */
bool keep_is_loose(const struct sim_node *node, uint32_t blob, uint32_t piece);
/* It could not be read from disk: it is lost, and transfer told. */
void keep_spoil(struct sim_node *node, uint32_t blob, uint32_t piece);
/* It is being sent and may not go. True if it must be unpinned. */
bool keep_pin(struct sim_node *node, uint32_t blob, uint32_t piece);
void keep_unpin(struct sim_node *node, uint32_t blob, uint32_t piece);
/* The node died: what was in memory alone is lost. */
void keep_crash(struct sim_node *node);
/* Aborts if the cache's invariants are broken, or its capacity is. */
void keep_check(const struct sim_node *node);

/* ---- series.c ---- */

/* Without memory until the first pull; period_us as in world_config. */
void series_init(struct series *series, uint32_t node_count, uint64_t period_us);
void series_close(struct series *series);
/* The first pull begins now. */
void series_begin(struct world *world);
/* Closes all samples that end by now_us. */
void series_tick(struct world *world, uint64_t now_us);
/* Bytes that came evenly from `from_us` to now. */
void series_bytes(struct world *world, enum series_source source, uint64_t from_us, uint64_t bytes);

/* ---- host.c ---- */

/* Prepares node `index` (down). */
void host_init(struct world *world, uint32_t index);
/* Frees what a node holds, without a word to anybody. */
void host_close(struct sim_node *node);
/* Its transfer core. The node is up. */
struct transfer *host_transfer(struct sim_node *node);
/* Events, each followed by a drain of the mesh's results. */
void host_start(struct sim_node *node, bool keep_cache);
/* The same in two steps: it is up, knowing nobody; it asks its seeds. */
void host_boot(struct sim_node *node, bool keep_cache);
void host_join(struct sim_node *node);
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

/* The same between two nodes. */
void sessions_sever_pair(struct world *world, uint32_t a, uint32_t b);

/* ---- hostile.c ---- */

/* A message of a hostile node as it leaves it: in `bytes` of MESSAGE_BYTES_MAX, `byte_count` of
 * them. Returns how many it has then; 0: it is not sent. */
size_t hostile_message(struct sim_node *node, uint8_t *bytes, size_t byte_count);

/* WORLD_PLANT_NAME and _DIGEST: the message with something behind it that must not be there, in
 * `bytes` of MESSAGE_BYTES_MAX. Returns its bytes. */
size_t hostile_leak(struct sim_node *node, uint8_t *bytes, size_t byte_count);

/* ---- watch.c ---- */

/* A name that no message may hold. */
extern const char *const watch_private_name;

/* A message leaves a node: who gave a lease to whom; does it tell what it must not? */
void watch_message(struct world *world, uint32_t from, uint32_t to, const uint8_t *msg,
                   size_t msg_bytes);

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
/* That event was put off: it waits in this slot now. */
void bulk_progress_later(struct world *world, uint32_t index, uint32_t look);
void bulk_flow(struct world *world, uint32_t flow);
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
/* The node's progress counts this blob from now on. */
void pulls_count(struct sim_node *node, uint32_t blob);

/* ---- ahead.c; all do nothing unless the world prefetches, and for blobs of no image ---- */

/* A client begins to read a whole blob, or ends. */
void ahead_began(struct sim_node *node, uint32_t blob);
void ahead_ended(struct sim_node *node, uint32_t blob);
/* EVENT_REST */
void ahead_rest(struct sim_node *node, uint32_t image);
/* The node died: nothing is read ahead any more. */
void ahead_drop(struct sim_node *node);

#endif
