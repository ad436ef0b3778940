/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the stores: their constructors with an env of one's own (tests fail its allocations),
 * the heap behind the public ones, and a table of ids. The env's alloc is called by loop and
 * workers, always under the store's lock or while no other call runs; trace, send and random are
 * not used.
 */
#ifndef SHOAL_CACHE_STORE_INTERNAL_H
#define SHOAL_CACHE_STORE_INTERNAL_H

#include "cache.h"

/* store_memory_new with memory from `env`, which is copied. 0, E_NO_MEMORY. */
MUST_USE int store_memory__new(const struct env *env, uint64_t capacity_bytes, struct store *out);
/* store_disk_new with memory from `env`, which is copied. Errors as there. */
MUST_USE int store_disk__new(const struct env *env, const char *directory, struct store *out,
                             const char **why);
/* store_content_new with memory from `env`, which is copied. Errors as there. */
MUST_USE int store_content__new(const struct env *env, const char *path, struct store *out);
/* Waits until the disk store has given back all that was dropped or removed. For tests. */
void store_disk__settle(struct store *store);

/* An env whose alloc is the C heap; nothing else of it may be called. */
void store__heap(struct env *out);

/* ---- ids: a number for each blob of a store, never used twice, found in one step ---- */

struct store_slot {
    void *item; /* NULL: free */
    uint32_t turn;
    uint32_t next_free;
};

struct store_table {
    struct store_slot *slots;
    uint32_t capacity;
    uint32_t used;       /* slots ever used */
    uint32_t first_free; /* index + 1; 0: none */
    uint32_t count;
};

/* Most blobs of one store; the cache's own limit is lower. */
#define STORE_BLOBS_MAX (1u << 20)

/* Adds an item (borrowed) and names it. 0, E_NO_MEMORY, E_FULL. */
MUST_USE int store_table__add(struct store_table *table, const struct env *env, void *item,
                              uint64_t *id);
/* The item of an id; NULL if it was taken out or never was. */
void *store_table__get(const struct store_table *table, uint64_t id);
/* Takes an item out; its id is never given again. */
void store_table__remove(struct store_table *table, uint64_t id);
/* Walks the items in no particular order: *index starts at 0; NULL at the end. */
void *store_table__next(const struct store_table *table, uint32_t *index);
/* Frees the table, not the items. */
void store_table__close(struct store_table *table, const struct env *env);

#endif
