/* SPDX-License-Identifier: Apache-2.0 */
/* xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018),
 * written from its description; seeded through splitmix64 as the authors advise. */
#include "bytes.h"

#include <string.h>

#include "log.h"

static uint64_t rotl(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void prng_seed(struct prng *prng, const uint8_t *seed, size_t seed_bytes)
{
    /* The length is mixed in, so that seeds which differ in trailing zeros give other streams. */
    uint64_t state = seed_bytes;
    for (size_t at = 0; at < seed_bytes; at += 8) {
        uint8_t word[8] = {0};
        memcpy(word, seed + at, seed_bytes - at < 8 ? seed_bytes - at : 8);
        state = splitmix64(&state) ^ load_be64(word);
    }
    for (unsigned i = 0; i < 4; i++)
        prng->state[i] = splitmix64(&state);
    /* splitmix64 is a permutation of distinct inputs: at most one of four outputs can be zero. */
    ASSERT((prng->state[0] | prng->state[1]) != 0);
}

uint64_t prng_next(struct prng *prng)
{
    uint64_t *s = prng->state;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t prng_below(struct prng *prng, uint64_t bound)
{
    ASSERT(bound > 0);
    /* The first 2^64 mod bound values would be drawn once too often: skip them. */
    uint64_t unfair = -bound % bound;
    uint64_t value;
    do {
        value = prng_next(prng);
    } while (value < unfair);
    return value % bound;
}
