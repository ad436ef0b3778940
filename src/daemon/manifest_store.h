/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests in memory, least recently used out, each with the Content-Type that its registry gave
 * it in its repository: the same bytes may go under another type elsewhere. Content only: whether
 * somebody may read one is the mirror's question (ACL-1).
 */
#ifndef SHOAL_DAEMON_MANIFEST_STORE_H
#define SHOAL_DAEMON_MANIFEST_STORE_H

#include "err.h"
#include "types.h"

#define MANIFEST_STORE_BYTES_MAX (32ull * 1024 * 1024)
#define MANIFEST_TYPE_BYTES      128

struct manifest {
    const char *bytes; /* borrowed from the store until its next change */
    size_t byte_count;
    const char *media_type; /* exactly as the registry sent it (CLIENTS §1.8) */
};
/* Which one; borrowed for the call. */
struct manifest_key {
    const char *registry, *repository;
    const struct digest *digest;
};
struct manifest_store;
/* 0 or E_NO_MEMORY. */
MUST_USE int manifest_store_new(struct manifest_store **out);
void manifest_store_free(struct manifest_store *store);
/* Keeps a copy; the bytes' digest was checked by the caller. Does nothing without memory or with an
 * overlong type. */
void manifest_store_put(struct manifest_store *store, const struct manifest_key *key,
                        const struct manifest *manifest);
/* True with *out if it is there; counts as use. */
bool manifest_store_get(struct manifest_store *store, const struct manifest_key *key,
                        struct manifest *out);
/* True if it is there. */
bool manifest_store_has(const struct manifest_store *store, const struct manifest_key *key);

#endif
