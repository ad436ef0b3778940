/* SPDX-License-Identifier: Apache-2.0 */
/* Replay window as a ring of 64-bit words; see replay.h. */
#include "replay.h"

#include "log.h"

#define WORD_BITS 64

static uint64_t bit_of(uint64_t counter)
{
    return 1ULL << (counter % WORD_BITS);
}

bool replay__fresh(const struct replay_window *window, uint64_t counter)
{
    if (counter == UINT64_MAX)
        return false;
    if (counter >= window->next)
        return true;
    if (window->next - counter > REPLAY_WINDOW)
        return false;
    return (window->words[counter / WORD_BITS % REPLAY_WORDS] & bit_of(counter)) == 0;
}

void replay__mark(struct replay_window *window, uint64_t counter)
{
    ASSERT(replay__fresh(window, counter));
    uint64_t word = counter / WORD_BITS;
    if (counter >= window->next) {
        uint64_t top = window->next == 0 ? 0 : (window->next - 1) / WORD_BITS;
        uint64_t steps = word - top < REPLAY_WORDS ? word - top : REPLAY_WORDS;
        for (uint64_t i = 1; i <= steps; i++)
            window->words[(top + i) % REPLAY_WORDS] = 0;
        window->next = counter + 1;
    }
    window->words[word % REPLAY_WORDS] |= bit_of(counter);
    ASSERT(!replay__fresh(window, counter));
}
