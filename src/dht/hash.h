/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uthash as a core may use it: memory from the env, a failed allocation is an error and not the
 * end, and the hash is seeded, so that nobody can choose keys which fall into one chain. Iteration
 * goes in order of insertion and so never depends on addresses. Functions that change a table or
 * look into it have a local `struct dht_hash_context *hash_context`.
 */
#ifndef SHOAL_DHT_HASH_H
#define SHOAL_DHT_HASH_H

#include <stddef.h>
#include <stdint.h>

struct dht_hash_context {
    void *owner;
    void *(*resize)(void *owner, void *old, size_t old_bytes, size_t new_bytes);
    uint64_t seed;
};

/* Hash of a key of any length under a seed (a multiply-xor over words; not for secrets). */
unsigned dht__hash(uint64_t seed, const void *key, size_t key_bytes);

#define HASH_NONFATAL_OOM              1
#define uthash_malloc(bytes)           hash_context->resize(hash_context->owner, NULL, 0, (bytes))
#define uthash_free(ptr, bytes)        ((void)hash_context->resize(hash_context->owner, (ptr), (bytes), 0))
#define HASH_FUNCTION(key, bytes, out) ((out) = dht__hash(hash_context->seed, (key), (bytes)))

#include <uthash.h>

#endif
