/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests by digest in memory, least recently used out. Content only: whether somebody may read
 * one is the mirror's question (ACL-1).
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
struct manifest_store;
/* 0 or E_NO_MEMORY. */
MUST_USE int manifest_store_new(struct manifest_store **out);
void manifest_store_free(struct manifest_store *store);
/* Keeps a copy; the bytes' digest was checked by the caller. Does nothing without memory or with an
 * overlong type. */
void manifest_store_put(struct manifest_store *store, const struct digest *digest,
                        const struct manifest *manifest);
/* True with *out if it is there; counts as use. */
bool manifest_store_get(struct manifest_store *store, const struct digest *digest,
                        struct manifest *out);

#endif
