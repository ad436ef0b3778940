/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds a port of this host, from /proc: for `shoal doctor`. */
#ifndef SHOAL_DAEMON_PORT_OWNER_H
#define SHOAL_DAEMON_PORT_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The inode in a line of /proc/net/tcp or udp, if its local port is this one and, for TCP (`tcp`),
 * it listens; 0: it is not, or no such line. */
uint64_t port_owner_line(const char *line, uint16_t port, bool tcp);
/* Writes "name (pid 123)" of the first process found that holds the port, IPv4 or IPv6. False: none
 * is visible: other users' processes are seen by root only. Looks at every process once. */
bool port_owner(uint16_t port, bool tcp, char *out, size_t out_bytes);

#endif
