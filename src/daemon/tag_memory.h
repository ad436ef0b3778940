/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the registries last said their tags stand for. In memory only, never told to anybody but
 * clients that may read the repository, and never learnt from peers (INT-9). Bounded: the longest
 * unused entry makes room. Keyed by a hash under a random key, so no names stand in memory.
 */
#ifndef SHOAL_DAEMON_TAG_MEMORY_H
#define SHOAL_DAEMON_TAG_MEMORY_H

#include "env.h"
#include "err.h"
#include "types.h"

#define TAG_MEMORY_MAX 512
#define TAG_ETAG_BYTES 160

struct tag_fact {
    struct digest digest;
    uint64_t confirmed_us;     /* when the registry last said so */
    uint64_t accept_hash;      /* of the media types that were asked for */
    char etag[TAG_ETAG_BYTES]; /* as the registry sent it; "" none */
};
/* Which tag; borrowed for the call. */
struct tag_name {
    const char *registry, *repository, *tag;
};
struct tag_memory;
/* 0, E_NO_MEMORY. */
MUST_USE int tag_memory_new(const struct env *env, struct tag_memory **out);
void tag_memory_free(struct tag_memory *memory); /* NULL is fine */
/* True with *out if it is known; counts as use. */
bool tag_memory_find(struct tag_memory *memory, const struct tag_name *name, struct tag_fact *out);
/* Copies; replaces what was there. */
void tag_memory_put(struct tag_memory *memory, const struct tag_name *name,
                    const struct tag_fact *fact);
/* The registry has no such tag any more. */
void tag_memory_forget(struct tag_memory *memory, const struct tag_name *name);

#endif
