/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the mesh: every configured name is resolved to all its addresses and given to gossip;
 * again with backoff to 30 s while no other member is known, every 60 s afterwards, so that a node
 * started before its DNS record exists joins when it appears (N-6).
 */
#ifndef SHOAL_DAEMON_BOOTSTRAP_H
#define SHOAL_DAEMON_BOOTSTRAP_H

#include "node.h"

/* Addresses of one round given to gossip, a random choice of all: every node of a big cluster
 * asking the same first ones would be a herd (C-1). */
#define BOOTSTRAP_ADDRESSES_MAX 64

struct bootstrap_lookup {
    uv_getaddrinfo_t request;
    struct bootstrap *owner;
    uint16_t port;
    bool busy;
};

struct bootstrap {
    struct node *node;
    uv_timer_t timer;
    struct bootstrap_lookup lookups[CONFIG_BOOTSTRAP_MAX];
    unsigned lookup_count; /* names, as configured */
    unsigned pending;      /* of this round */
    uint64_t wait_ms;      /* next pause while alone */
    struct peer_addr found[BOOTSTRAP_ADDRESSES_MAX];
    unsigned found_count; /* kept */
    unsigned seen;        /* found in all, for a fair choice */
    bool started;
    bool closing;
};

/* Starts the first round. 0 or E_*. */
MUST_USE int bootstrap_start(struct bootstrap *bootstrap, struct node *node);
void bootstrap_close(struct bootstrap *bootstrap);

/* Splits "host", "host:port", "[v6]" or "[v6]:port" into a zero-terminated host and a port. 0,
 * E_MALFORMED. */
MUST_USE int bootstrap_split(const char *text, uint16_t default_port, char *host, size_t host_bytes,
                             uint16_t *port);

#endif
