/* SPDX-License-Identifier: Apache-2.0 */
/* Handshake and upload budgets (budget.h). */
#include "budget.h"

#include <string.h>

#include "log.h"

#define SECOND_US 1000000ULL
/* A burst of 50 ms keeps a fast link busy between two turns of the loop; at least two batches. */
#define BURST_US        50000ULL
#define BURST_MIN_BYTES (512ULL * 1024)

bool handshake_budget_take(struct handshake_budget *budget, uint64_t now_us,
                           const struct peer_addr *from)
{
    uint64_t second = now_us / SECOND_US + 1;
    struct budget_address *slot = &budget->addresses[0];
    for (size_t i = 0; i < BUDGET_ADDRESSES; i++) {
        struct budget_address *at = &budget->addresses[i];
        if (at->second != 0 && memcmp(at->ip, from->ip, sizeof at->ip) == 0) {
            slot = at;
            break;
        }
        if (at->seen_us < slot->seen_us)
            slot = at;
    }
    if (slot->second != second || memcmp(slot->ip, from->ip, sizeof slot->ip) != 0)
        slot->count = 0;
    memcpy(slot->ip, from->ip, sizeof slot->ip);
    slot->second = second;
    slot->seen_us = now_us;
    if (slot->count >= BUDGET_PER_SECOND)
        return false;
    slot->count++;
    return true;
}

void rate_budget_init(struct rate_budget *budget, uint64_t mbit, uint64_t now_us)
{
    memset(budget, 0, sizeof *budget);
    budget->rate_bytes = mbit * 125000ULL;
    budget->burst_bytes = budget->rate_bytes * BURST_US / SECOND_US;
    if (budget->burst_bytes < BURST_MIN_BYTES)
        budget->burst_bytes = BURST_MIN_BYTES;
    budget->left_bytes = (int64_t)budget->burst_bytes;
    budget->filled_us = now_us;
}

static void refill(struct rate_budget *budget, uint64_t now_us)
{
    if (now_us <= budget->filled_us)
        return;
    uint64_t elapsed_us = now_us - budget->filled_us;
    if (elapsed_us > SECOND_US)
        elapsed_us = SECOND_US; /* the bucket is full by then; no overflow below */
    uint64_t bytes = budget->rate_bytes * elapsed_us / SECOND_US;
    if (bytes == 0)
        return; /* too early to count: keep the time */
    budget->filled_us = now_us;
    budget->left_bytes += (int64_t)bytes;
    if (budget->left_bytes > (int64_t)budget->burst_bytes)
        budget->left_bytes = (int64_t)budget->burst_bytes;
}

uint64_t rate_budget_wait_us(struct rate_budget *budget, uint64_t now_us)
{
    if (budget->rate_bytes == 0)
        return 0;
    refill(budget, now_us);
    if (budget->left_bytes > 0)
        return 0;
    uint64_t missing = (uint64_t)(-budget->left_bytes) + 1;
    return missing * SECOND_US / budget->rate_bytes + 1;
}

void rate_budget_spend(struct rate_budget *budget, uint64_t bytes)
{
    ASSERT(bytes < (1ULL << 40));
    if (budget->rate_bytes != 0)
        budget->left_bytes -= (int64_t)bytes;
}
