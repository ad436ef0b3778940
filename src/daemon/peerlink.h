/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TCP connection to another node: handshake through struct session, then frames
 * (piece_frame.h) both ways. Reading opens records of a piece from the node's one read buffer into
 * a pooled one, all others in place; writing seals into one batch at a time, so at most
 * LINK_BATCH_BYTES wait in us. Any error of the session or the framing closes the connection
 * without a word.
 */
#ifndef SHOAL_DAEMON_PEERLINK_H
#define SHOAL_DAEMON_PEERLINK_H

#include "mesh_tcp.h"
#include "piece_frame.h"

#define LINK_MAGIC 0x5ea11140U
/* One batch of sealed records: three full ones and a header fit a 256 KiB buffer. */
#define LINK_BATCH_BYTES (256 * 1024)

enum link_state {
    LINK_UNUSED = 0,
    LINK_CONNECTING, /* for the kernel; ends by connect, failure or the deadline */
    LINK_HANDSHAKE,  /* for the session; ends by it, an error, or its deadline (3 s) */
    LINK_OPEN,       /* frames flow; ends by peerlink_close */
    LINK_CLOSING,    /* for uv's close callback, which frees the link */
};

enum link_receive {
    LINK_AT_FRAME = 0, /* the next record is a frame's header */
    LINK_IN_PIECE,     /* body of an expected piece, into rx.buffer */
    LINK_IN_SKIPPED,   /* body that nobody wants */
};

struct peerlink {
    uint32_t magic;
    enum link_state state;
    uv_tcp_t tcp;
    uv_connect_t connecting;
    uv_write_t writing;
    struct mesh_tcp *owner;
    struct session *session;
    struct tcp_peer *peer; /* outgoing: from the start; incoming: from LINK_OPEN on */
    struct identity_key peer_key;
    struct peer_addr remote; /* of the transport */
    bool outgoing;
    uint64_t deadline_us; /* of connecting and handshake */
    uint64_t used_us;     /* last frame, either way */
    uint64_t bytes_in, bytes_out;

    /* Received bytes that do not make a whole record yet, or wait for a buffer. */
    uint8_t *stash;
    uint32_t stash_bytes, stash_capacity;
    uint32_t readable_at; /* the kernel wakes us for so many bytes; 0: for one, as at the start */

    enum link_receive receive;
    struct piece_frame frame; /* being received */
    blob_handle blob;
    struct buffer *buffer;
    uint32_t left; /* bytes of the body still to come */
    uint32_t told; /* bytes of which transfer knows */
    bool paused;
    struct buffer_waiter read_waiter;

    struct upload *sending;  /* partly sealed */
    uint32_t flushing_count; /* uploads of peer->uploads wholly in this link's batch */
    struct buffer *batch;
    bool batch_written; /* uv has it */
    bool throttled;
    uint64_t throttle_turn; /* order of waiting */
    struct buffer_waiter write_waiter;

    bool retired; /* starts no further upload; says BYE when done */
    bool bye_sent, bye_received;
    uint64_t retired_us;

    struct peerlink *next_of_peer;
    struct peerlink *previous, *next; /* of all */
};

/* A connection from `fd`, which is TAKEN. Closed at once, without a word, if a budget or memory
 * says no. */
void peerlink_accept(struct mesh_tcp *tcp, int fd);
/* Connects to peer->addr and sets peer->dial. 0, or E_*: nothing happened. */
MUST_USE int peerlink_dial(struct mesh_tcp *tcp, struct tcp_peer *peer);
/* Closes at once; `status` goes to transfer. Fine if already closing. */
void peerlink_close(struct peerlink *link, int status);
/* No further uploads over this link; BYE follows. */
void peerlink_retire(struct peerlink *link);
/* Sends what there is to send. Call when an upload became ready. */
void peerlink_pump(struct peerlink *link);

/* ---- shared inside peerlink*.c ---- */
/* Starts reading. 0 or E_*. */
MUST_USE int link_read_start(struct peerlink *link);
/* Gives back memory that an idle connection does not need. */
void link_trim(struct peerlink *link, uint64_t now_us);
/* Drops what the receiving side holds. */
void link_read_close(struct peerlink *link);
/* Drops what the sending side holds; its uploads fail with `status`. */
void link_write_close(struct peerlink *link, int status);
/* Changes state after checking the move. */
void link_set_state(struct peerlink *link, enum link_state to);
/* Sends what the session wants sent during the handshake. 0, E_IO when the socket takes less. */
MUST_USE int link_flush_handshake(struct peerlink *link);
/* The session is established. */
void link_opened(struct peerlink *link);

#endif
