/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP side of the mesh port: listener, dialling, who has which connections (peerlink.h), which
 * upload goes over which, idle closing, and the handshake budget (PEER-7). Tells transfer when the
 * first connection with a node opens and the last one closes.
 *
 * Two nodes may open at the same time. Both then keep the connection that the node with the smaller
 * id opened; of two opened by the same node, the newer. The other one is retired: it finishes what
 * it is sending, says BYE, and is closed when both sides have said so.
 */
#ifndef SHOAL_DAEMON_MESH_TCP_H
#define SHOAL_DAEMON_MESH_TCP_H

#include "budget.h"
#include "buffer.h"
#include "node.h"

/* Handshakes of others under way (PEER-7). */
#define TCP_PENDING_MAX 256
/* Nodes with a connection, a dial or an upload at a time; further dials are refused. Swarm links
 * are at most a few dozen, so a list that is searched from end to end serves. */
#define TCP_PEERS_MAX 1024
/* Dials under way. */
#define TCP_DIALS_MAX 64
/* Bytes of one read (LIMITS §0.4: 64 KiB costs half the speed); one buffer serves all links. */
#define TCP_READ_BYTES (512 * 1024)
#define TCP_IDLE_US    60000000ULL

enum upload_state {
    UPLOAD_UNUSED = 0,
    UPLOAD_WAITING,  /* for the bytes; ends by node_upload_ready or a cancel */
    UPLOAD_READY,    /* for its turn on a connection; ends by being sent, a cancel or a failure */
    UPLOAD_SENDING,  /* being sealed and written; ends by the last byte or the connection's end */
    UPLOAD_FLUSHING, /* all sealed; ends when the kernel has taken the last byte */
};

struct tcp_peer;
struct peerlink;

struct upload {
    uint64_t id;
    enum upload_state state;
    struct tcp_peer *peer;
    struct blob_key key;
    uint32_t piece;
    bool across_zones; /* goes first */
    bool vouched;
    struct voucher voucher;
    struct buffer *bytes;  /* a reference from READY on */
    uint32_t offset;       /* sealed so far */
    struct peerlink *link; /* from SENDING on */
    struct upload *next;   /* in the order of arrival */
};

struct tcp_peer {
    struct node_id id;
    struct peer_addr addr;
    struct peerlink *links; /* open ones, by next_of_peer */
    struct peerlink *dial;  /* at most one */
    bool wanted;            /* between TRANSFER_CONNECT and TRANSFER_RELEASE */
    bool up;                /* transfer was told */
    struct upload *uploads;
    uint32_t upload_count;
    struct tcp_peer *next;
};

struct mesh_tcp {
    struct node *node;
    int listen_fd; /* -1: closed */
    uv_poll_t accept_poll;
    uv_timer_t tick;
    uv_timer_t rate_timer;
    struct rate_budget rate;
    uint64_t throttle_turn; /* last given to a link that waits */
    struct handshake_budget budget;
    struct tcp_peer *peers;
    struct peerlink *links; /* all, newest first */
    uint32_t peer_count, link_count, pending, dials;
    uint32_t links_max;
    uint8_t *read_buffer; /* RECORD_WIRE_BYTES_MAX kept bytes in front of TCP_READ_BYTES new ones */
    bool accept_waits;    /* descriptors or memory were short: until the next tick */
    bool bind_source;     /* dial from the advertised address */
    bool closing;
};

/* Binds and listens on `addr` (port 0: any); [::] takes IPv4 as well and falls back to 0.0.0.0.
 * *port is the one bound. 0, or E_* with one line in `error`. Call mesh_tcp_close in any case. */
MUST_USE int mesh_tcp_open(struct mesh_tcp *tcp, struct node *node, const struct peer_addr *addr,
                           uint16_t *port, struct config_error *error);
/* Begins to accept. After the node's identity and mesh are there. 0, or E_* with one line. */
MUST_USE int mesh_tcp_start(struct mesh_tcp *tcp, struct config_error *error);
/* Closes listener, timers and connections. */
void mesh_tcp_close(struct mesh_tcp *tcp);
/* After the loop has run out: frees what is left. */
void mesh_tcp_free(struct mesh_tcp *tcp);

/* Results of the mesh. */
void mesh_tcp_connect(struct mesh_tcp *tcp, const struct transfer_result *result);
void mesh_tcp_release(struct mesh_tcp *tcp, const struct transfer_result *result);
void mesh_tcp_upload(struct mesh_tcp *tcp, const struct transfer_result *result);
void mesh_tcp_upload_cancel(struct mesh_tcp *tcp, const struct transfer_result *result);
void mesh_tcp_upload_ready(struct mesh_tcp *tcp, uint64_t upload_id, int status,
                           struct buffer *bytes, const struct voucher *voucher);
/* Uploads are under way. */
bool mesh_tcp_busy(const struct mesh_tcp *tcp);
/* Closes connections of nodes that admission denies now. */
void mesh_tcp_drop_denied(struct mesh_tcp *tcp);
/* Connections with a session. */
uint32_t mesh_tcp_sessions(const struct mesh_tcp *tcp);
size_t mesh_tcp_links(const struct mesh_tcp *tcp, struct node_link_view *out, size_t max);

/* ---- for peerlink*.c ---- */
/* The handshake is done and link->state is LINK_OPEN. May close the link. */
void tcp_link_open(struct mesh_tcp *tcp, struct peerlink *link);
/* The link is closing: forget it, fail what it was sending. */
void tcp_link_closed(struct mesh_tcp *tcp, struct peerlink *link, int status);
/* The next upload this link should send, taken to SENDING; NULL if none. */
struct upload *tcp_upload_next(struct mesh_tcp *tcp, struct peerlink *link);
/* True if tcp_upload_next would give one. */
bool tcp_upload_waits(const struct mesh_tcp *tcp, const struct peerlink *link);
/* Ends an upload: tells transfer, drops its buffer, frees it. */
void tcp_upload_end(struct mesh_tcp *tcp, struct upload *upload, int status);
/* The upload budget is spent: peerlink_pump is called again in the order of waiting, after
 * `wait_us` at the earliest. */
void tcp_throttle(struct mesh_tcp *tcp, struct peerlink *link, uint64_t wait_us);

#endif
