/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets for commands that may wait: every call has a deadline. Never used by the agent's loop. */
#ifndef SHOAL_DAEMON_BLOCKING_H
#define SHOAL_DAEMON_BLOCKING_H

#include <stdint.h>

#include "err.h"
#include "types.h"

/* Monotonic milliseconds. */
uint64_t blocking_now_ms(void);
/* Waits for `events` of poll(2). 0, E_TIMEOUT at the deadline, E_IO. */
MUST_USE int blocking_await(int fd, short events, uint64_t deadline_ms);
/* A non-blocking TCP connection. 0 with *out; E_REFUSED (nobody listens), E_TIMEOUT, E_UNREACHABLE.
 */
MUST_USE int blocking_connect(const struct peer_addr *addr, uint64_t deadline_ms, int *out);
/* Sends all. 0, E_TIMEOUT, E_CLOSED. */
MUST_USE int blocking_send(int fd, const void *bytes, size_t byte_count, uint64_t deadline_ms);
/* Reads what comes first, at least a byte. 0 with *got, E_CLOSED, E_TIMEOUT. */
MUST_USE int blocking_recv(int fd, void *out, size_t out_bytes, uint64_t deadline_ms, size_t *got);

#endif
