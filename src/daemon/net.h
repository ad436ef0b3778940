/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and socket options between libuv, the kernel and our struct peer_addr. IPv4 is
 * v4-mapped in ours; sockets may be of either family.
 */
#ifndef SHOAL_DAEMON_NET_H
#define SHOAL_DAEMON_NET_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <uv.h>

#include "err.h"
#include "types.h"

/* Form for an IPv6 socket (`v6`; IPv4 stays mapped) or an IPv4 one. 0, or E_UNREACHABLE: an IPv6
 * address for an IPv4 socket. */
MUST_USE int net_to_sockaddr(const struct peer_addr *addr, bool v6, struct sockaddr_storage *out);
/* 0, or E_INVALID for other families. */
MUST_USE int net_from_sockaddr(const struct sockaddr *addr, struct peer_addr *out);

/* 127.0.0.0/8 or ::1. */
bool net_loopback(const struct peer_addr *addr);
/* 0.0.0.0 or [::]. */
bool net_unspecified(const struct peer_addr *addr);
/* Ports do not matter. */
bool net_same_ip(const struct peer_addr *a, const struct peer_addr *b);
/* True if the address belongs to an interface of this host. */
bool net_is_local(const struct peer_addr *addr);
/*
 * The address to announce when none is configured: the first of the host's that is not loopback,
 * IPv4 before IPv6, link-local never; loopback (IPv4) when there is none. The port is 0.
 */
void net_default_address(struct peer_addr *out);
/* log2 of the rate in Mbit/s of the interface that has this address, as the kernel tells it; 0
 * unknown. */
uint8_t net_rate_class(const struct peer_addr *addr);
/* log2 of a rate in Mbit/s; 0 for 0. */
uint8_t net_rate_class_of(uint64_t mbit);

/*
 * Options of a connection between nodes: no delay; TCP_USER_TIMEOUT 3 s (unacknowledged data) and
 * keepalive after 20 s idle, so that a vanished peer is noticed (N-3); small unsent backlog; on
 * loopback cubic or reno, because BBR is 2.5 times slower there (LIMITS §0.3). What the kernel
 * refuses is left as it is.
 */
void net_tune_link(uv_tcp_t *tcp, const struct peer_addr *remote);
/* The connection counts as readable when so many bytes are there, or none will follow; 1 as usual.
 * The kernel may take less than it is asked for. */
void net_readable_at(uv_tcp_t *tcp, uint32_t bytes);
/* Datagrams: never fragmented (DHT-8), path MTU messages ignored, room for bursts. */
void net_tune_datagrams(uv_udp_t *udp);
/* Lets an IPv6 datagram socket take IPv4 too, whatever the system's default; before binding. */
void net_dual_stack(uv_udp_t *udp);

/* Raises the soft limit of open files to the hard one; returns the limit in force. */
uint64_t net_raise_files(void);

#endif
