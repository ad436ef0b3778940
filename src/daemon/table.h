/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uthash as the daemon uses it: include this instead of <uthash.h>. Out of memory an element is
 * left out instead of ending the process (D-9): after an add, look at table_left_out. Order of
 * iteration is order of insertion.
 */
#ifndef SHOAL_DAEMON_TABLE_H
#define SHOAL_DAEMON_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "loop.h"

/* FNV-1a: keys are digests and handles, of which nobody gains by making two collide. */
static inline unsigned table_hash(const void *key, size_t byte_count)
{
    const uint8_t *bytes = key;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < byte_count; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

#define HASH_FUNCTION(key, bytes, out) ((out) = table_hash((key), (bytes)))
#define HASH_NONFATAL_OOM              1
#define uthash_malloc(bytes)           loop_alloc(NULL, NULL, (bytes))
#define uthash_free(p, bytes)          ((void)loop_alloc(NULL, (p), 0))
#define uthash_nonfatal_oom(element)   ((void)(element))
#include <uthash.h>

/* True if the last add of this element found no memory; `handle` is its UT_hash_handle. */
#define table_left_out(handle) ((handle).tbl == NULL)

#endif
