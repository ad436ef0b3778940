/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One node of the mesh as a process: the mesh object, its identity and admission, its sockets, and
 * the results of the mesh handed to whoever moves bytes locally (mirror, cache, origin). The upper
 * half of the daemon sees only this header of it.
 *
 * How to use it: call the cores directly (transfer_read_start(node_transfer(node),
 * loop_now_us(loop), ...)). There is nothing to flush: once per loop turn, after all callbacks of
 * that turn, the node drains mesh_next_result, calls the handlers below and arms its deadline. So
 * handlers never run inside a call of yours, and may call the cores and this header freely.
 * Everything belongs to the loop thread.
 */
#ifndef SHOAL_DAEMON_NODE_H
#define SHOAL_DAEMON_NODE_H

#include "buffer.h"
#include "config.h"
#include "loop.h"
#include "mesh.h"
#include "session.h"

/* A piece that a peer sent because transfer asked for it. Not verified in any way yet. */
struct node_piece {
    blob_handle blob;
    struct blob_key key;
    uint32_t piece;
    struct node_id peer; /* who sent it; transfer_piece_done wants it in its source */
    struct identity_key peer_key;
    bool vouched;           /* the sender gave a voucher; its signature is unchecked */
    struct voucher voucher; /* piece_index and piece_bytes are right for this piece */
};

/* What the upper half does. Any of them may be NULL: the node then answers for it with a failure
 * (E_UNSUPPORTED) where an answer is due. `host` is handed back. Structs are borrowed for the call.
 */
struct node_handlers {
    void *host;
    /* Read result->piece_count pieces from result->piece on from the origin (TRANSFER_FETCH).
       Answer: transfer_fetch_progress, transfer_piece_done per piece, at last transfer_fetch_end.
     */
    void (*fetch)(void *host, const struct transfer_result *result);
    /* Stop the fetch result->id; transfer_fetch_end is still due. */
    void (*fetch_cancel)(void *host, const struct transfer_result *result);
    /* Provide the bytes of result->piece for the upload result->id. Answer exactly once with
       node_upload_ready, now or later. */
    void (*upload)(void *host, const struct transfer_result *result);
    /* The upload result->id is not needed any more. node_upload_ready may still be called, it then
       only drops its buffer; it need not be. */
    void (*upload_cancel)(void *host, const struct transfer_result *result);
    /* A piece arrived from a peer. `bytes` is TAKEN: buffer_put when done. Check voucher and hash,
       store, then transfer_piece_done with 0 or E_*. */
    void (*piece)(void *host, const struct node_piece *piece, struct buffer *bytes);
    void (*piece_ready)(void *host, const struct transfer_result *result);
    void (*blob_complete)(void *host, const struct transfer_result *result);
    void (*piece_failed)(void *host, const struct transfer_result *result); /* result->status */
    void (*member)(void *host, const struct gossip_event *event);
    void (*lookup)(void *host, const struct dht_result *result);
    /* node_lookup_key gives another key now: blobs are to be known by what it makes of them. Asked
       again every 5 s until it says true: all are. */
    bool (*names)(void *host);
};

/* Counters of the sockets, for metrics; the cores have their own stats. Only ever grow. */
struct node_counters {
    /* UDP */
    uint64_t datagrams_in, datagram_bytes_in, datagrams_out, datagram_bytes_out;
    uint64_t datagrams_auth;         /* E_AUTH: outsiders and forgeries */
    uint64_t datagrams_replay;       /* E_REPLAY */
    uint64_t datagrams_keys;         /* E_NOT_FOUND: under keys of before a restart of this node */
    uint64_t datagrams_malformed;    /* E_MALFORMED, or too long */
    uint64_t datagrams_denied;       /* on the deny list */
    uint64_t datagrams_send_dropped; /* socket or hello queue full */
    uint64_t messages_rejected;      /* mesh_receive refused: malformed, denied */
    uint64_t messages_skipped; /* of a type that only newer versions know, or answers too late */
    /* TCP */
    uint64_t connects, connects_failed, accepts;
    uint64_t accepts_refused; /* handshake budget or table full (PEER-7), or no memory */
    uint64_t accepts_failed;  /* no descriptor or kernel memory: a pause (RES-3) */
    uint64_t handshakes, handshakes_auth, handshakes_timeout, handshakes_other;
    uint64_t links_closed_protocol, links_closed_auth, links_closed_io, links_closed_idle;
    uint64_t links_duplicate; /* two nodes opened at the same time */
    uint64_t links_shed;      /* closed to make room for others (RES-3) */
    uint32_t sessions;        /* established now */
    uint64_t tcp_bytes_in, tcp_bytes_out;
    uint64_t pieces_in, piece_bytes_in, pieces_unexpected, pieces_wrong_length;
    uint64_t pieces_out, piece_bytes_out, uploads_failed;
    uint64_t read_pauses;    /* links that waited for a buffer */
    uint64_t frames_skipped; /* of unknown kind */
    /* other */
    uint64_t bootstrap_lookups, bootstrap_failures, bootstrap_addresses;
    uint64_t secret_reloads, secret_reload_failures;
};

/* One TCP connection for status pages. */
struct node_link_view {
    struct node_id peer;
    struct peer_addr addr; /* announced mesh address; transport address during the handshake */
    bool established;
    bool outgoing;
    uint64_t bytes_in, bytes_out;
    uint64_t idle_us;
    uint32_t uploads; /* waiting or running */
};

struct node;
/* What is called for orders of other nodes (mesh.h); borrowed for the call. Without one they are
 * dropped. */
typedef void (*node_order_fn)(void *arg, const struct mesh_order *order);
void node_on_order(struct node *node, node_order_fn order, void *arg);

/*
 * Reads or makes the identity (dataDir/identity, 0400), reads the cluster secrets, binds TCP and
 * UDP of listen.mesh, creates the mesh and starts joining. `config`, `loop` and `pool` are borrowed
 * for the node's life; `handlers` is copied. Registers itself with the loop for an orderly stop.
 * dataDir must exist (node_data_dir). 0; E_CONFIG, E_IN_USE, E_DENIED, E_IO, E_NO_MEMORY with one
 * line for the operator in `error`.
 *
 * Advertised address: config.advertise if given; else the address that listen.mesh names; else the
 * first non-loopback address of the host, IPv4 before IPv6, link-local never; else loopback. Its
 * port, if not given, is the one really bound.
 */
MUST_USE int node_new(struct loop *loop, const struct config *config, struct buffer_pool *pool,
                      const struct node_handlers *handlers, struct node **out,
                      struct config_error *error);
/* After loop_run only (the loop's close phase has closed the handles). */
void node_free(struct node *node);

/*
 * Makes dataDir (0700) if absent, checks that it is ours, 0700, no symbolic link (DSK-5), writable,
 * and locks it against a second agent until the process ends. 0; E_DENIED, E_IO, E_IN_USE with one
 * line in `error`.
 */
MUST_USE int node_data_dir(const struct config *config, struct config_error *error);

/* The mesh and its parts, for calls on them; never free them. */
struct mesh *node_mesh(struct node *node);
struct transfer *node_transfer(struct node *node);
struct gossip *node_gossip(struct node *node);
struct dht *node_dht(struct node *node);
/* Environment of the mesh: memory, randomness, log. */
const struct env *node_env(const struct node *node);
struct buffer_pool *node_buffers(struct node *node);
const struct identity *node_identity(const struct node *node);
const struct node_id *node_self_id(const struct node *node);
const struct peer_addr *node_self_addr(const struct node *node); /* advertised */
const char *node_cluster_id(const struct node *node);
/* Key for blob_key_of. A change of the first secret changes it for blobs opened later. */
const uint8_t *node_lookup_key(const struct node *node);

/*
 * Answer to handlers.upload: 0 with the piece's bytes (bytes->used long; TAKEN) and its voucher
 * (NULL: none), or E_* with bytes NULL: the upload ends with that status. An unknown or cancelled
 * id only drops the buffer.
 */
void node_upload_ready(struct node *node, uint64_t upload_id, int status, struct buffer *bytes,
                       const struct voucher *voucher);

/* Copies the counters as they are now. */
void node_counters(const struct node *node, struct node_counters *out);
/* New labels of this node, told to all members (mesh_update_self). 0, E_NO_MEMORY, E_FULL. */
MUST_USE int node_update_topology(struct node *node, const struct topology *topology);
/* Copies up to `max` links; returns how many. Established first. */
size_t node_links(const struct node *node, struct node_link_view *out, size_t max);
/* True while bootstrap is configured but no other member is known (status only: readiness stays
 * true, N-6). */
bool node_alone(const struct node *node);
/* True while something without the cluster's secret keeps coming to the mesh port (outsiders.h),
 * with where the last one came from. */
bool node_outsiders(const struct node *node, struct peer_addr *from);

#endif
