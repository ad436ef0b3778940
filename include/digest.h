/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content digests and keyed hashes. src/base/digest.c is the only file that sees OpenSSL's hashes.
 */
#ifndef SHOAL_DIGEST_H
#define SHOAL_DIGEST_H

#include "err.h"
#include "piece_map.h"
#include "types.h"

/* "sha512:" + 128 hex + NUL */
#define DIGEST_TEXT_BYTES 136

/* Parses exactly "sha256:<64 hex>" or "sha512:<128 hex>", lower case (ORG-8). 0 or E_MALFORMED. */
MUST_USE int digest_parse(const char *text, size_t text_bytes, struct digest *out);
/* Text form; `out` is returned. */
const char *digest_text(const struct digest *digest, char out[DIGEST_TEXT_BYTES]);
bool digest_equal(const struct digest *a, const struct digest *b);
/* 32, 64, or 0 for DIGEST_NONE. */
size_t digest_bytes(enum digest_algorithm algorithm);

/*
 * Incremental hash. One pass over the data: about 0.65 s per GB and core with SHA-NI. Not for use
 * by two threads at once; may move between threads.
 */
struct hasher;
/* Starts a hash; free with hasher_free. 0, or E_NO_MEMORY, E_INVALID (DIGEST_NONE). */
MUST_USE int hasher_new(enum digest_algorithm algorithm, struct hasher **out);
/* Starts anew with the same algorithm, without allocating. */
void hasher_reset(struct hasher *hasher);
void hasher_update(struct hasher *hasher, const void *bytes, size_t byte_count);
/*
 * piece_hash_of and, if that is `expected` or `expected` is NULL, hasher_update of the same bytes;
 * else the hasher stays as it was. In one pass where the processor can and the hasher is SHA-256
 * on a block's boundary (0.69 s/GB instead of 1.10), else one after the other. True if the hasher
 * was carried on.
 */
bool hasher_update_piece(struct hasher *hasher, const void *bytes, size_t byte_count,
                         const struct piece_hash *expected, struct piece_hash *out);
/* Bytes to hash; borrowed. */
struct hash_span {
    const uint8_t *bytes;
    size_t byte_count;
};
/*
 * hasher_update of `span` and piece_hash_of of `piece`, which are other bytes: in one pass where
 * the processor can and the hasher is SHA-256 on a block's boundary (0.73 s for a GB of each
 * instead of 1.11), else one after the other.
 */
void hasher_update_beside(struct hasher *hasher, const struct hash_span *span,
                          const struct hash_span *piece, struct piece_hash *out);
/* Writes the digest of everything so far; the hasher must be reset before further use. */
void hasher_final(struct hasher *hasher, struct digest *out);
void hasher_free(struct hasher *hasher); /* NULL is fine */

/* One-shot SHA-256 and digest. */
void sha256_of(const void *bytes, size_t byte_count, uint8_t out[32]);
/* SHA-256 of a piece (INT-4). */
void piece_hash_of(const void *bytes, size_t byte_count, struct piece_hash *out);
void digest_of(enum digest_algorithm algorithm, const void *bytes, size_t byte_count,
               struct digest *out);

/* HMAC-SHA-256 (RFC 2104) over the concatenation of two spans; either may be empty. */
void hmac_sha256(const uint8_t key[32], const void *a, size_t a_bytes, const void *b,
                 size_t b_bytes, uint8_t out[32]);

/* Blob key = HMAC(lookup key, "shoal blob" || algorithm || digest): what DHT, gossip and messages
 * carry (ACL-9). */
void blob_key_of(const uint8_t lookup_key[32], const struct digest *digest, struct blob_key *out);
/* The key of the same blob in another cut: "shoal blob fine" in place of "shoal blob" for
 * PIECE_CUT_FINE, blob_key_of for PIECE_CUT_PLAIN. */
void blob_key_cut(const uint8_t lookup_key[32], const struct digest *digest, enum piece_cut cut,
                  struct blob_key *out);
/* Key of a segment, for keeper placement: SHA-256("shoal segment" || blob key || index). */
void segment_key_of(const struct blob_key *blob, uint32_t segment_index, uint8_t out[32]);
/* Proof of knowing the full digest, bound to both ends (ACL-9): first 16 bytes of SHA-256("shoal
 * proof" || digest || from || to). */
#define DIGEST_PROOF_BYTES 16
void digest_proof(const struct digest *digest, const struct node_id *from, const struct node_id *to,
                  uint8_t out[DIGEST_PROOF_BYTES]);
/* Node id = SHA-256("shoal node" || cluster id || 0 || ip || port) (PEER-4). */
void node_id_of(const char *cluster_id, const struct peer_addr *addr, struct node_id *out);

#endif
