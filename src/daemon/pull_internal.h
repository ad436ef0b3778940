/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of orders: pull.c (table, life), pull_manifest.c (what an image is of),
 * pull_blobs.c (bringing it in), pull_nodes.c (on other nodes), pull_json.c (how it fares). */
#ifndef SHOAL_DAEMON_PULL_INTERNAL_H
#define SHOAL_DAEMON_PULL_INTERNAL_H

#include "pull.h"

enum pull_state {
    PULL_UNUSED = 0,
    PULL_WAITING,   /* for others to end; ends by its turn, or cancelled */
    PULL_RESOLVING, /* asks for manifests; ends by the last of them, or an error */
    PULL_RUNNING,   /* blobs come in; ends by the last of them, or an error */
    PULL_SPREADING, /* other nodes bring it in; ends by the last of them */
    PULL_DONE,
    PULL_FAILED,
    PULL_CANCELLED,
};

enum pull_blob_state {
    PULL_BLOB_WAITING = 0, /* for its turn, or to be tried again */
    PULL_BLOB_RUNNING,     /* has a reader; ends by the whole digest, or an error */
    PULL_BLOB_DONE,
    PULL_BLOB_FAILED,
};

struct pull_blob {
    struct digest digest;
    uint64_t size_bytes;
    enum pull_blob_state state;
    struct blob *blob; /* RUNNING: one reference */
    struct blob_reader reader;
    struct blob_sources before; /* what had come when it was looked at last */
    uint64_t have_bytes, origin_bytes, peer_bytes;
    uint64_t retry_us; /* WAITING: not before */
    unsigned tries;
    int err; /* the last reader's */
};

enum pull_node_state {
    PULL_NODE_WAITING = 0, /* for others to be done */
    PULL_NODE_ACTIVE,      /* is asked; ends by its answer, or silence */
    PULL_NODE_DONE,
    PULL_NODE_REFUSED, /* reason: enum wire_order_state */
    PULL_NODE_FAILED,  /* the same, or one of those below */
};
#define PULL_NODE_SILENT (WIRE_ORDER_STATES)
#define PULL_NODE_BUSY   (WIRE_ORDER_STATES + 1)

/* Another node that is to have the image. */
struct pull_node {
    struct node_id id;
    struct peer_addr addr;
    enum distance distance;
    enum pull_node_state state;
    uint8_t reason;
    uint32_t done;               /* blobs from the first on that it has */
    uint64_t serial;             /* of the last ASK */
    uint32_t serial_done;        /* `done` at it */
    uint64_t asked_us, heard_us; /* last */
    uint64_t moved_us;           /* when it last said that something moves */
};

/* One manifest being asked for, its answer collected. */
struct pull_ask {
    struct origin_fetch *fetch; /* NULL: none runs */
    int status, err;
    char *body; /* owned */
    size_t bytes, capacity;
    char type[MANIFEST_TYPE_BYTES];
    char named[DIGEST_TEXT_BYTES]; /* Docker-Content-Digest; "": none */
};

struct pull {
    struct pulls *owner;
    struct pull *next; /* older */
    char id[PULL_ID_BYTES];
    struct pull_order order;
    const struct registry_entry *registry; /* held until it is over */
    bool as_node;
    uint8_t credential_hash[32];
    enum pull_state state;
    char error[PULL_ERROR_BYTES];
    struct digest digest; /* of what the name stands for */
    bool has_digest;
    struct pull_ask ask;
    struct digest manifests[PULL_MANIFESTS_MAX]; /* to be asked for by digest */
    uint32_t manifest_count, manifest_next;
    struct pull_blob *blobs; /* owned, PULL_BLOBS_MAX of them; NULL before any is known */
    uint32_t blob_count;
    struct pull_node *nodes; /* owned; NULL before it spreads */
    uint32_t node_count;
    uint64_t began_us, ended_us, asked_us;
    uint64_t moved_us, moved_bytes; /* when something last came, and how much had come then */
};

struct pulls {
    struct pulls_config config;
    struct pulls_counters counters;
    struct loop_part part;
    uv_timer_t timer; /* runs while an order is not over */
    struct pull *newest;
    uint32_t count;
    bool stopping;
};

/* ---- pull.c ---- */
uint64_t pull__now_us(const struct pull *pull);
bool pull__over(const struct pull *pull);
/* Ends an order; `format` makes its error (DONE: ""). Not inside head or body of its request. */
void pull__end(struct pull *pull, enum pull_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- pull_manifest.c ---- */
/* Asks for what the name stands for; all else follows by itself. */
void pull__resolve(struct pull *pull);
/* Stops asking; fine if nothing is asked. */
void pull__ask_stop(struct pull *pull);

/* ---- pull_blobs.c ---- */
/* One more of the image's blobs, unless it is known. 0, E_TOO_LARGE, E_MALFORMED, E_NO_MEMORY. */
MUST_USE int pull__blob_add(struct pull *pull, const struct manifest_descriptor *found);
/* All manifests are known: begins. */
void pull__blobs_begin(struct pull *pull);
/* Takes note of what has come, and goes on. */
void pull__blobs_tick(struct pull *pull);
/* Ends all readers. */
void pull__blobs_stop(struct pull *pull);

/* ---- pull_nodes.c ---- */
/* All is here: ends the order, or goes on to other nodes. */
void pull__nodes_begin(struct pull *pull);
/* Asks those whose turn it is. */
void pull__nodes_tick(struct pull *pull);
/* Why a node does not have it, for people; "": it has. */
const char *pull__node_reason(const struct pull_node *node);

/* ---- pull_json.c ---- */
/* "linux/amd64", or "all"; uses `out` if need be. */
const char *pull__platform_text(const struct pull_order *order, char *out, size_t out_bytes);

#endif
