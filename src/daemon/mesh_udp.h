/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The UDP side of the mesh port: one socket and struct dgram, which seals and opens. Control
 * messages of the cores only; a datagram that the kernel does not take is lost, as on the wire.
 */
#ifndef SHOAL_DAEMON_MESH_UDP_H
#define SHOAL_DAEMON_MESH_UDP_H

#include "bundle.h"
#include "node.h"

/* Nodes that messages wait for until the turn ends; for one more, all of them leave. A node has
 * some 40 neighbours. */
#define UDP_BUNDLES_MAX 48
/* Datagrams that wait for the socket; beyond it they are dropped. */
#define UDP_QUEUE_MAX 256

struct mesh_udp {
    struct node *node;
    uv_udp_t sockets[2]; /* the second when the first had to be given up for IPv4 */
    uv_udp_t *socket;
    bool v6;
    bool open;
    struct dgram *dgram;
    uint32_t queued;
    uint32_t bundle_count;
    struct bundle bundles[UDP_BUNDLES_MAX]; /* filled in this turn */
    uint64_t outsiders;                     /* of dgram_stats, as it was last looked at */
    uint8_t receive[2048]; /* longer than any datagram of ours: longer ones are seen as such */
};

/*
 * Binds UDP to node->self_port: to the address of node->self_addr alone when it is local and
 * addresses are strict (so that our datagrams come from the address we announce), else to `any`. 0,
 * or E_* with one line in `error`. Call mesh_udp_close in any case.
 */
MUST_USE int mesh_udp_open(struct mesh_udp *udp, struct node *node, const struct peer_addr *any,
                           struct config_error *error);
/* Makes the dgram object and begins to receive. 0, or E_*. */
MUST_USE int mesh_udp_start(struct mesh_udp *udp);
void mesh_udp_close(struct mesh_udp *udp);
/* After the loop has run out. */
void mesh_udp_free(struct mesh_udp *udp);
/* Sends one message of a core (struct env's send): at once, or with others to the same node by
 * mesh_udp_flush, if that node takes bundles. 0, E_AGAIN, E_TOO_LARGE, E_INVALID, E_UNREACHABLE. */
MUST_USE int mesh_udp_send(struct mesh_udp *udp, const struct peer_addr *to, const uint8_t *msg,
                           size_t msg_bytes);
/* Sends what waits; once per turn of the loop, before it waits for events. */
void mesh_udp_flush(struct mesh_udp *udp);
/* Retries of hellos that are due. */
void mesh_udp_advance(struct mesh_udp *udp);
uint64_t mesh_udp_deadline_us(const struct mesh_udp *udp);

#endif
