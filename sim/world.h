/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual world: a clock that jumps from event to event, a datagram network with delay, loss,
 * reordering and duplication, bulk flows over shared links, one origin, and N nodes that each run
 * the very mesh object the agent runs. Everything follows from the seed: the same configuration
 * gives the same trace hash.
 */
#ifndef SHOAL_SIM_WORLD_H
#define SHOAL_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bytes.h"
#include "mesh.h"

#define WORLD_NODES_MAX 16384
#define WORLD_BLOBS_MAX 256
#define WORLD_ZONES_MAX 64
/* Index of the origin as an end of a flow. */
#define WORLD_ORIGIN UINT32_MAX

/* Let the world choose by its size. */
#define WORLD_AUTO UINT64_MAX

/*
 * What work costs a node's processor. 1 ps per byte is 1 ms per GB. The defaults are medians
 * measured on one core (Zen 5, 64 KiB records, AES-256-GCM): pulling, verifying, storing and giving
 * a GB to a client costs 1.5 s, giving it to a peer 0.5 s.
 */
struct world_cpu {
    uint32_t cores; /* of each node; 0: work takes no time, but for world_config.verify_bps */
    /* Sockets and ciphers run in so many threads (the agent: 1), whatever the cores; 0: any core
     * may do them. */
    uint32_t loop_threads;
    uint32_t receive_ps;   /* per byte from a peer: read and open */
    uint32_t serve_ps;     /* per byte to a peer: seal and write */
    uint32_t origin_ps;    /* per byte from the origin: read, TLS */
    uint32_t verify_ps;    /* per byte: SHA-256, when it came and when it is read back */
    uint32_t store_ps;     /* per byte into the cache's file, or out of it */
    uint32_t client_ps;    /* per byte to the client */
    uint32_t message_ns;   /* per datagram, at each end */
    uint32_t handshake_us; /* each side of a session between nodes */
    uint32_t tls_us;       /* of a new connection to the origin */
};

/* Bugs planted on purpose, one per invariant that is judged (SECURITY-RELIABILITY §6.1). */
enum world_plant {
    WORLD_PLANT_NONE = 0,
    WORLD_PLANT_NAME,     /* a private name goes out with some messages (ACL-9) */
    WORLD_PLANT_DIGEST,   /* so does a digest */
    WORLD_PLANT_BELIEVE,  /* no piece is hashed before it counts (INT-1) */
    WORLD_PLANT_NO_END,   /* clients are not told that their blob is complete */
    WORLD_PLANT_NO_RETRY, /* nor is any on a node that was started before */
    WORLD_PLANT_HOLE,     /* a client is told so when a piece is missing yet */
    WORLD_PLANT_DEAF,     /* node 0 hears no gossip from some time on */
    WORLD_PLANT_ALONE,    /* no session ever comes up: all is read from the origin */
    WORLD_PLANT_TALK,     /* each datagram is sent a hundred times */
    WORLD_PLANT_GREEDY,   /* nodes give more uploads at once than they should */
    WORLD_PLANT_TWICE,    /* a running read from the origin is taken for dead */
    WORLD_PLANT_ABROAD,   /* nodes take no heed of a registry's `copies` */
    WORLD_PLANT_COUNT,
};

struct world_config {
    uint64_t seed;
    uint32_t node_count;
    uint32_t zone_count; /* node i stands in zone i % zone_count */
    /* Nodes of each zone, node_count in all, the first ones in zone 0; [0] 0: as above. */
    uint32_t zone_nodes[WORLD_ZONES_MAX];
    uint32_t vswitch_count; /* per zone */
    uint32_t region_count;  /* zone z stands in region z % region_count; 0: 1 */

    /* Links, bytes per second each way. */
    uint64_t nic_bps;
    uint64_t nic_down_bps;   /* 0: as nic_bps, which is up then */
    uint64_t vswitch_bps;    /* of a vSwitch's uplink, the origin's bytes too; 0: no limit */
    uint64_t zone_bps;       /* of a zone's border; 0: no limit */
    uint64_t cross_bps;      /* over all zone borders together, in total; 0: no limit */
    bool origin_over_border; /* the origin's bytes take the zone's border, too */

    /* The origin. */
    uint64_t origin_bps;                  /* in total */
    uint64_t origin_conn_bps;             /* per connection, 0: no limit */
    uint64_t origin_first_byte_us;        /* from request to first byte */
    uint64_t origin_first_byte_spread_us; /* uniform on top */
    uint64_t origin_latency_us; /* one way: a new connection costs two round trips (TCP, TLS 1.3) */
    uint32_t origin_requests_per_s; /* more are answered by 429; 0: no limit */
    uint32_t origin_requests_burst; /* so many at once, too; 0: as many as per second */
    uint32_t origin_retry_after_s;  /* what a 429 asks for; 0: 1 */

    /* Connections: slow start from so many bytes, doubled each round trip; 0: full rate at once.
     * After so long without a byte the window is halved, and again for each such time (RFC 2861);
     * 0: never. */
    uint64_t tcp_initial_bytes;
    uint64_t tcp_idle_us;

    /* Nodes. */
    struct world_cpu cpu;
    uint64_t verify_bps;     /* cpu.cores 0: opening, hashing, storing of one piece; 0: no time */
    uint64_t disk_read_bps;  /* 0: no limit */
    uint64_t disk_write_bps; /* 0: no limit */
    uint64_t memory_bytes;   /* last used pieces that need no read from disk */
    uint64_t cache_bytes;    /* capacity of the piece cache; 0: everything is kept */

    /* Rates of flows are made right at multiples of this; 0: at once; WORLD_AUTO. And to one part
     * in this; 0: exactly; WORLD_AUTO. See world_flow_defaults. */
    uint64_t flow_quantum_us;
    uint64_t flow_slack;

    /* Latency, one way. */
    uint64_t latency_vswitch_us; /* inside a vSwitch; 0: as inside a zone */
    uint64_t latency_zone_us;    /* inside a zone */
    uint64_t latency_cross_us;   /* between zones of a region */
    uint64_t latency_region_us;  /* between regions; 0: as between zones */
    uint32_t jitter_percent;     /* of the latency, uniform on top */
    /* What waits in front of a full link, on average: each full NIC and the full origin on the way
     * adds it to the latency. 0: links have no queues. */
    uint64_t queue_us;

    /* Datagrams, per million. */
    uint32_t loss_ppm;
    uint32_t duplicate_ppm;
    uint32_t reorder_ppm; /* held back by up to reorder_us, so that others overtake them */
    uint64_t reorder_us;  /* 0: ten times the latency */

    uint32_t seed_count;        /* bootstrap addresses each node knows; 0: 3 */
    struct mesh_config mesh;    /* tunables of all nodes */
    bool prefetch;              /* nodes bring in an image's next layers (prefetch.h) */
    enum log_level trace_level; /* lines up to this level are printed to stderr */
    bool silent_death;          /* kill: peers notice by time-out (3 s) instead of a reset */
    uint64_t series_period_us;  /* of the first samples; 0: SERIES_PERIOD_US */
    /* Each node's own clock starts at a random hour up to this (below an hour: all at 0), and runs
     * wrong by up to so many millionths. Nothing in the mesh may depend on either (D-11). */
    uint64_t clock_spread_us;
    uint32_t clock_drift_ppm;
    bool watch;     /* every message is read: world_aim and world_totals.leaks need it */
    uint32_t plant; /* enum world_plant: a bug that a checker must catch */
};

/* Defaults: 16 nodes, 2 zones, 1 Gbit/s NICs, 10 Gbit/s origin, latencies of ALGORITHMS. */
void world_config_defaults(struct world_config *config);
/*
 * What WORLD_AUTO means for this many nodes: exact up to 64; 200 us and 1/128 up to 2,000; 500 us
 * and 1/128 above. The error they make, at 10 Gbit/s where pieces are shortest (200 nodes, 512 MiB,
 * mean of 6 seeds, completion / bound; the mean itself is good to 1 %):
 *
 *     quantum, slack   p50    p99    last   events
 *     exact            1.302  1.843  1.893  865,000
 *     0, 1/128         1.297  1.848  1.867  842,000
 *     200 us, 1/128    1.302  1.855  1.884  719,000
 *     500 us, 1/128    1.313  1.854  1.919  676,000
 *     2 ms, 1/64       1.361  1.893  1.918  606,000
 *     5 ms, 1/32       1.437  1.939  1.970  558,000
 */
void world_flow_defaults(uint32_t node_count, uint64_t *quantum_us, uint64_t *slack);

/* One pull of one blob by one node, as the scenario asked for it. */
struct world_pull {
    uint32_t node;
    uint32_t blob;
    uint64_t started_us;
    uint64_t done_us; /* 0 while running */
    bool failed;
    bool held; /* the node's cache keeps all of it meanwhile */
    uint64_t reader_id;
    uint32_t position; /* piece the client is at */
    uint32_t next;     /* of the same node and blob, while it runs */
    uint32_t client;   /* as world_set_client says; 0: of none */
};

struct world_totals {
    uint64_t events;
    uint64_t datagrams, datagram_bytes, datagrams_lost;
    uint64_t origin_bytes;
    uint64_t peer_bytes[DISTANCE_COUNT];
    uint64_t wrong_bytes;   /* of pieces some transfer holds that its host never verified: 0 */
    uint64_t wasted_bytes;  /* arrived but no longer wanted */
    uint64_t lies;          /* pieces whose hash told that the sender lied */
    uint64_t refused;       /* messages a mesh refused */
    uint64_t throttled;     /* requests that the origin answered by 429 for their rate */
    uint64_t leaks;         /* messages with a private name or a digest in them (ACL-9); watched */
    uint64_t double_reads;  /* pieces that one node read twice from the origin at the same time */
    uint64_t crossed_bytes; /* of blobs with `copies: zone`, from nodes of other zones: 0 */
    uint32_t most_uploads, most_reads; /* of one node at one time */
    uint64_t spoiled;                  /* pieces that could not be read from a disk (D-2) */
    uint64_t unwritten;                /* pieces that could not be written to one (D-1, D-3) */
};

struct world;
/* Builds the nodes (not started). NULL on exhaustion. */
struct world *world_new(const struct world_config *config);
void world_free(struct world *world);
uint64_t world_now_us(const struct world *world);
/* Order-sensitive hash of every event so far. */
uint64_t world_trace_hash(const struct world *world);
const struct world_totals *world_totals(const struct world *world);

/* Starts a node at the given time; restarting a killed one forgets all but its identity and, if
 * keep_cache, its pieces. */
void world_start_node(struct world *world, uint32_t node, uint64_t at_us, bool keep_cache);
/* Starts nodes now with settled views: each knows all of them, as after a long time together.
 * Instead of simulating N joins, whose messages grow with N squared. */
void world_start_settled(struct world *world, const uint32_t *nodes, uint32_t count);
/* Stops a node without notice (kill -9) or in order (drain, then gone 1 s later). */
void world_kill_node(struct world *world, uint32_t node, uint64_t at_us);
void world_leave_node(struct world *world, uint32_t node, uint64_t at_us);
/* A node stops and goes on later as if nothing had been (D-13). */
void world_freeze_node(struct world *world, uint32_t node, uint64_t at_us, uint64_t for_us);
/* A node's NIC becomes `divisor` times slower. */
void world_slow_node(struct world *world, uint32_t node, uint32_t divisor);
/* From this time on a node's NIC has these rates; 0: as it was. */
void world_set_nic(struct world *world, uint32_t node, uint64_t up_bps, uint64_t down_bps,
                   uint64_t at_us);
/* From now on so many datagrams per million are lost. */
void world_set_loss(struct world *world, uint32_t loss_ppm);
/* Everything this node sends as a peer is wrong; receivers notice by its hash. */
void world_make_liar(struct world *world, uint32_t node);

/* How a node may act though it has the cluster's secret (A3); bits. Its own pulls stay honest. */
enum world_hostile {
    WORLD_LIES = 1,       /* every piece it sends is wrong (P-5) */
    WORLD_DRIPS = 2,      /* pieces leave it at 1 KB/s (P-3) */
    WORLD_STALLS = 4,     /* it promises pieces and sends none, its sessions open (P-2) */
    WORLD_CLAIMS_ALL = 8, /* says that it has every piece (P-6) */
    WORLD_CLAIMS_NONE = 16,
    WORLD_CLAIMS_FLIP = 32, /* says something else each time */
    WORLD_GARBLES = 64,     /* every fourth message leaves it damaged (P-4) */
    WORLD_HOSTILE_END = 128,
};
enum world_disk {
    WORLD_DISK_WELL = 0,
    WORLD_DISK_FULL,         /* nothing can be written (D-1); what is there can be read */
    WORLD_DISK_WRITE_ERRORS, /* EIO on every write (D-3) */
    WORLD_DISK_READ_ERRORS,  /* EIO on every read (D-2) */
};
/* What may be true of one node from some time on. */
enum world_trait {
    WORLD_TRAIT_HOSTILE = 1,  /* bits of enum world_hostile; 0: honest */
    WORLD_TRAIT_CPU_MILLI,    /* its processor's work takes so many thousandths of the time */
    WORLD_TRAIT_DISK,         /* enum world_disk; errors need world_config.cache_bytes > 0 */
    WORLD_TRAIT_DISK_WAIT_US, /* each read and write takes so much longer (D-14) */
};
void world_set_trait(struct world *world, uint32_t node, enum world_trait trait, uint64_t value,
                     uint64_t at_us);

/* Whom a fault is aimed at (world_config.watch). */
enum world_aim {
    WORLD_AIM_KEEPERS = 1, /* who granted leases of late, the last one first */
    WORLD_AIM_LESSEES,     /* who reads from the origin now, then who was granted a lease of late */
};
/* Nodes that are up and that this is true of now: at most `max` of them into `nodes`. Returns how
 * many. */
uint32_t world_aim(const struct world *world, enum world_aim aim, uint32_t *nodes, uint32_t max);

/* Nothing goes through between two zones any more, or does again (N-1). At once. */
void world_partition_zones(struct world *world, uint32_t zone_a, uint32_t zone_b, bool cut);
/* From this time on, in one direction only: datagrams from the one zone to the other vanish, or do
 * no more; connections between the two break (N-5). */
void world_cut_zones(struct world *world, uint32_t from_zone, uint32_t to_zone, bool cut,
                     uint64_t at_us);

/* The same between two nodes, one way. */
void world_cut_link(struct world *world, uint32_t from, uint32_t to, bool cut, uint64_t at_us);

/* From this time on the origin is so. Bodies on their way go on, but for CUT. */
enum world_origin {
    WORLD_ORIGIN_UP = 0,
    WORLD_ORIGIN_REFUSES, /* no connection (O-1) */
    WORLD_ORIGIN_SILENT,  /* takes requests and says nothing (O-1) */
    WORLD_ORIGIN_BUSY,    /* 429 with Retry-After: 1 (O-4) */
    WORLD_ORIGIN_CUT,     /* all bodies break off now; then up (O-6) */
};
void world_set_origin(struct world *world, enum world_origin origin, uint64_t at_us);
/* From this time on the origin gives so many bytes per second, and its first byte after so long; 0:
 * as it was. */
void world_set_origin_rate(struct world *world, uint64_t origin_bps, uint64_t first_byte_us,
                           uint64_t at_us);

/* Makes a blob of this size known to the world; its digest follows from the index. Returns its
 * index. */
uint32_t world_add_blob(struct world *world, uint64_t size_bytes);
/* Its registry says itself how often it may leave the origin; 0: what holds for the mesh. Before
 * any node opens it. */
void world_set_copies(struct world *world, uint32_t blob, enum transfer_copies copies);
/* Blobs [first, first + count) are the layers of an image, in manifest order: clients that read one
 * whole have the next ones brought in, if the configuration says so. At most WORLD_BLOBS_MAX. */
void world_add_image(struct world *world, uint32_t first_blob, uint32_t blob_count);
const struct blob_info *world_blob(const struct world *world, uint32_t blob);
/* A pull begins at this time. Returns its index. */
uint32_t world_pull(struct world *world, uint32_t node, uint32_t blob, uint64_t at_us,
                    enum transfer_read_mode mode);
/* The pull is part of what client `client` (from 1 on) brings in: for reports alone. */
void world_set_client(struct world *world, uint32_t pull, uint32_t client);
/* Bytes of a blob that the origin gave. */
uint64_t world_origin_bytes(const struct world *world, uint32_t blob);
const struct world_pull *world_pulls(const struct world *world, size_t *count);

/* Runs until the time, or until all pulls ended when `until_pulls_done`. Returns false if it
 * stopped at the time. */
bool world_run(struct world *world, uint64_t until_us, bool until_pulls_done);

/* The mesh of a node; NULL while it is down. */
struct mesh *world_mesh(struct world *world, uint32_t node);
bool world_node_up(const struct world *world, uint32_t node);
void world_node_addr(uint32_t node, struct peer_addr *out);
/* After direct calls on a node's mesh: takes its results and its new deadline. */
void world_drain_node(struct world *world, uint32_t node);
/* The next MESH_LOOKUP answer any node got; false if none waits. */
bool world_next_lookup(struct world *world, uint32_t *node, struct dht_result *out);
/* Aborts if an invariant of a mesh or of the world itself is broken. Slow. */
void world_check(struct world *world);
/* How far the pulls are that were asked for up to now. */
struct world_progress {
    uint32_t nodes, nodes_done; /* that pull anything; that have all of it */
    uint64_t wanted_bytes, got_bytes;
};
void world_progress(const struct world *world, struct world_progress *out);
/* Bytes a node has uploaded. */
uint64_t world_uploaded(const struct world *world, uint32_t node);

#endif
