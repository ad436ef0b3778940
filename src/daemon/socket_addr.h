/* SPDX-License-Identifier: Apache-2.0 */
/* Between struct peer_addr and the kernel's socket addresses; listening sockets for both families.
 */
#ifndef SHOAL_DAEMON_SOCKET_ADDR_H
#define SHOAL_DAEMON_SOCKET_ADDR_H

#include <sys/socket.h>

#include "err.h"
#include "types.h"

/* IPv4 becomes v4-mapped; other families give all zero. */
void socket_addr_from(const struct sockaddr_storage *from, struct peer_addr *out);
/* Writes an AF_INET address for v4-mapped ones unless `as_v6`, else AF_INET6. Returns its length.
 */
socklen_t socket_addr_to(const struct peer_addr *addr, bool as_v6, struct sockaddr_storage *out);
/*
 * A bound, non-blocking socket of `type` (SOCK_STREAM, SOCK_DGRAM). "::" is dual stack and falls
 * back to 0.0.0.0 on hosts without IPv6. 0 with *fd and the address really bound; E_IN_USE,
 * E_DENIED (privileged port), E_NOT_FOUND (no such address here), E_IO: *fd is -1.
 */
MUST_USE int socket_listen(const struct peer_addr *addr, int type, int *fd,
                           struct peer_addr *bound);

#endif
