/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replay window of one direction of one pair of keys (DHT-3): the 1,024 newest counters, each
 * accepted once (after RFC 6479). Counters older than the window are refused.
 */
#ifndef SHOAL_SESSION_REPLAY_H
#define SHOAL_SESSION_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#define REPLAY_WINDOW 1024
/* One word more than the window, because the window rarely starts at a word. */
#define REPLAY_WORDS (REPLAY_WINDOW / 64 + 1)

/* All zero is a fresh window. */
struct replay_window {
    uint64_t next; /* one above the highest counter seen; 0: none yet */
    uint64_t words[REPLAY_WORDS];
};

/* True when `counter` is new. UINT64_MAX never is. No side effect: call before authentication. */
bool replay__fresh(const struct replay_window *window, uint64_t counter);
/* Remembers a counter for which replay__fresh holds; call after authentication only, so that a
 * forged counter moves nothing. */
void replay__mark(struct replay_window *window, uint64_t counter);

#endif
