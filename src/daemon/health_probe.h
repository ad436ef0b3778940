/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is it our agent that answers on the client port (HRD-2)? Asked before the runtime is pointed at
 * it: a foreign process there would see the runtime's requests, tokens included.
 */
#ifndef SHOAL_DAEMON_HEALTH_PROBE_H
#define SHOAL_DAEMON_HEALTH_PROBE_H

#include <stdint.h>

#include "err.h"
#include "types.h"

/* Header of our answer to GET /healthz on the client port. */
#define HEALTH_HEADER "Shoal-Health"

/*
 * Asks once, blocking, for at most `timeout_ms` in all. 0; E_UNREACHABLE (nobody there), E_TIMEOUT,
 * E_PROTOCOL (somebody else answers).
 */
MUST_USE int health_probe(const struct peer_addr *addr, uint32_t timeout_ms);
/* The same again and again, until it succeeds, somebody else answers, or `wait_ms` are over. */
MUST_USE int health_await(const struct peer_addr *addr, uint64_t wait_ms);

#endif
