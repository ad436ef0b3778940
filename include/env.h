/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host (daemon or simulator) gives a protocol core. Cores take messages and the time in and
 * give messages and one deadline out; they never ask for time, randomness, memory or sockets in
 * any other way (STYLE "The sans-IO rule").
 */
#ifndef SHOAL_ENV_H
#define SHOAL_ENV_H

#include <stddef.h>
#include <stdint.h>

#include "types.h"

enum log_level {
    LOG_NONE = 0,
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG,
    LOG_TRACE,
};

struct env {
    void *host; /* handed back untouched */

    /*
     * Queues a control message of at most MESSAGE_BYTES_MAX bytes to a node's mesh address and
     * returns at once. `msg` is borrowed for the call. 0, or E_AGAIN/E_UNREACHABLE: the core treats
     * a refused message like a lost packet. Never calls back into the core.
     */
    int (*send)(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes);

    /* Fills `out` with random bytes: the system's in the daemon, a seeded stream in the simulator.
     */
    void (*random)(void *host, uint8_t *out, size_t out_bytes);

    /* realloc-shaped: old NULL allocates, new_bytes 0 frees and returns NULL. NULL on exhaustion.
     */
    void *(*alloc)(void *host, void *old, size_t new_bytes);

    /* One log line without newline or secrets, borrowed for the call. */
    void (*trace)(void *host, enum log_level level, const char *line);
};

#endif
