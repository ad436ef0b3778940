/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two small budgets of the mesh port, without clocks or sockets of their own: how many handshakes
 * one address may begin (PEER-7), and how many bytes may be uploaded (limits.uploadMbit).
 */
#ifndef SHOAL_DAEMON_BUDGET_H
#define SHOAL_DAEMON_BUDGET_H

#include "types.h"

#define BUDGET_PER_SECOND 20 /* PEER-7 */
/* Addresses remembered; the one seen longest ago makes room. An attacker with more addresses than
 * this meets the limit on all pending handshakes instead. */
#define BUDGET_ADDRESSES 256

struct budget_address {
    uint8_t ip[16];
    uint64_t second;  /* of the count; 0 unused */
    uint64_t seen_us; /* for replacement */
    uint32_t count;
};
struct handshake_budget {
    struct budget_address addresses[BUDGET_ADDRESSES];
};
/* Counts one attempt. False: over the limit in this second. Zeroed memory is a fresh budget. */
bool handshake_budget_take(struct handshake_budget *budget, uint64_t now_us,
                           const struct peer_addr *from);

/* Token bucket. `rate` bytes per second, 0 unlimited; at most `burst` bytes at once. */
struct rate_budget {
    uint64_t rate_bytes;
    uint64_t burst_bytes;
    int64_t left_bytes; /* may go below zero by one batch */
    uint64_t filled_us;
};
void rate_budget_init(struct rate_budget *budget, uint64_t mbit, uint64_t now_us);
/* Time until something may be sent: 0 now, else microseconds. */
uint64_t rate_budget_wait_us(struct rate_budget *budget, uint64_t now_us);
/* Takes what was sent. */
void rate_budget_spend(struct rate_budget *budget, uint64_t bytes);

#endif
