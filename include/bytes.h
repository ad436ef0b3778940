/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes: hex, big-endian integers, overflow-checked sizes, bounded strings, a small deterministic
 * generator for jitter and tie-breaks, and comparison of ids and addresses. No allocation anywhere.
 */
#ifndef SHOAL_BYTES_H
#define SHOAL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "err.h"
#include "types.h"

/* Writes 2*bytes lower-case hex characters and a zero to `out` (2*bytes+1 long). */
void hex_encode(const uint8_t *bytes, size_t byte_count, char *out);

/* Decodes exactly 2*out_bytes lower-case hex characters. 0, or E_MALFORMED (upper case too: ORG-8);
 * `out` is then undefined. */
MUST_USE int hex_decode(const char *text, size_t text_bytes, uint8_t *out, size_t out_bytes);

/* First 8 hex digits of an id for logs; `out` is returned. */
#define SHORT_HEX_BYTES 9
const char *short_hex(const uint8_t *bytes, char out[SHORT_HEX_BYTES]);

/* Big-endian load and store. */
uint16_t load_be16(const uint8_t *in);
void store_be16(uint8_t *out, uint16_t value);
void store_be32(uint8_t *out, uint32_t value);
void store_be64(uint8_t *out, uint64_t value);
/* The same, inline: every message is read by them. */
static inline uint32_t load_be32(const uint8_t *in)
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}
static inline uint64_t load_be64(const uint8_t *in)
{
    return (uint64_t)load_be32(in) << 32 | load_be32(in + 4);
}

/* *out = a + b or a * b. 0, or E_TOO_LARGE on overflow with `out` untouched. */
MUST_USE int size_add(size_t a, size_t b, size_t *out);
MUST_USE int size_mul(size_t a, size_t b, size_t *out);

/* Copies a zero-terminated string into out[out_bytes]. 0, or E_TOO_LARGE with out = "". */
MUST_USE int text_copy(char *out, size_t out_bytes, const char *text);
/* The same for text that is not terminated; a NUL inside is E_MALFORMED. */
MUST_USE int text_copy_n(char *out, size_t out_bytes, const char *text, size_t text_bytes);

/* Order of two node ids as unsigned big-endian numbers: <0, 0, >0. */
int node_id_compare(const struct node_id *a, const struct node_id *b);
/* Plain comparison, here and below: neither is a secret. Inline, since every message looks one up.
 */
static inline bool node_id_equal(const struct node_id *a, const struct node_id *b)
{
    return memcmp(a->bytes, b->bytes, NODE_ID_BYTES) == 0;
}
/* The same of two blob keys. */
bool blob_key_equal(const struct blob_key *a, const struct blob_key *b);

/* XOR metric (Kademlia §2.1): <0 if a is closer to target than b, 0 if equal, >0 if farther. */
int xor_compare(const uint8_t target[32], const uint8_t a[32], const uint8_t b[32]);
/* Number of leading bits two ids share, 0..256. */
unsigned xor_common_bits(const uint8_t a[32], const uint8_t b[32]);

/* "10.0.0.1:65002" or "[fd00::1]:65002". Written zero-terminated; `out` is returned. */
#define PEER_ADDR_TEXT_BYTES 64
const char *peer_addr_text(const struct peer_addr *addr, char out[PEER_ADDR_TEXT_BYTES]);
/* Parses "a.b.c.d", "a.b.c.d:port", "v6", "[v6]" or "[v6]:port"; a missing port becomes
 * `default_port`. 0 or E_MALFORMED. */
MUST_USE int peer_addr_parse(const char *text, uint16_t default_port, struct peer_addr *out);
/*
 * Reads "address/bits" (RFC 4632 §3.1, RFC 4291 §2.3) of text_bytes bytes. 0, or E_MALFORMED, also
 * for bits behind the prefix; `out` is then unchanged.
 */
MUST_USE int addr_block_parse(const char *text, size_t text_bytes, struct addr_block *out);
/* The text of a block, IPv4 as such. Returns `out`. */
const char *addr_block_text(const struct addr_block *block, char out[PEER_ADDR_TEXT_BYTES]);
bool addr_block_holds(const struct addr_block *block, const uint8_t ip[16]);
bool peer_addr_equal(const struct peer_addr *a, const struct peer_addr *b);
bool peer_addr_is_v4(const struct peer_addr *addr);

/* xoshiro256** (Blackman, Vigna 2018): jitter, sampling, tie-breaks. Never for secrets. */
struct prng {
    uint64_t state[4];
};
/* Seeds from any bytes (splitmix64 over 8-byte words of the seed). */
void prng_seed(struct prng *prng, const uint8_t *seed, size_t seed_bytes);
uint64_t prng_next(struct prng *prng);
/* Uniform in [0, bound), bound > 0, without modulo bias. */
uint64_t prng_below(struct prng *prng, uint64_t bound);

/* Fast non-cryptographic 64-bit hash for hash tables keyed by already-random ids. */
uint64_t id_hash(const uint8_t bytes[32]);

#endif
