/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two SHA-256 states carried on in one pass (FIPS 180-4 §6.2.2), over the same bytes or each over
 * its own. The two chains of rounds do not depend on each other, so that a core with SHA
 * instructions does both while one alone waits for itself. Over the same bytes they share one
 * message schedule, too: 0.69 s/GB for both, where OpenSSL one after the other takes 1.10 (LIMITS
 * §2). Internal to src/base.
 */
#ifndef SHOAL_BASE_SHA_PAIR_H
#define SHOAL_BASE_SHA_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True if this processor can run sha_pair__blocks. Asks the processor: costs up to 0.1 ms in a
 * virtual machine, so keep the answer. */
bool sha_pair__supported(void);

/* Carries both states, eight words each in the order of the standard, on over block_count blocks
 * of 64 bytes. Only where sha_pair__supported. */
void sha_pair__blocks(uint32_t a[8], uint32_t b[8], const uint8_t *bytes, size_t block_count);

/* The same, each state over bytes of its own. */
void sha_pair__apart(uint32_t a[8], const uint8_t *a_bytes, uint32_t b[8], const uint8_t *b_bytes,
                     size_t block_count);

#endif
