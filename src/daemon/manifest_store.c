/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests in memory; see manifest_store.h. uthash keeps insertion order: the first is the oldest.
 */
#include "manifest_store.h"

#include <string.h>

#include "bytes.h"
#include "loop.h"
#include "table.h"

struct entry {
    struct digest digest;
    char media_type[MANIFEST_TYPE_BYTES];
    size_t byte_count;
    UT_hash_handle hh;
    char bytes[];
};

struct manifest_store {
    struct entry *entries; /* oldest first */
    size_t byte_count;
};

int manifest_store_new(struct manifest_store **out)
{
    struct manifest_store *store = loop_alloc(NULL, NULL, sizeof *store);
    if (store == NULL)
        return E_NO_MEMORY;
    *store = (struct manifest_store){0};
    *out = store;
    return 0;
}

/* What an entry costs: tiny manifests must not hide behind their own size. */
static size_t cost_of(const struct entry *entry)
{
    return sizeof *entry + entry->byte_count;
}

static void drop(struct manifest_store *store, struct entry *entry)
{
    HASH_DEL(store->entries, entry);
    store->byte_count -= cost_of(entry);
    (void)loop_alloc(NULL, entry, 0);
}

/* Puts an entry at the young end; `entry` is TAKEN. False: no memory, it is gone. */
static bool append(struct manifest_store *store, struct entry *entry)
{
    HASH_ADD(hh, store->entries, digest, sizeof entry->digest, entry);
    if (table_left_out(entry->hh)) {
        (void)loop_alloc(NULL, entry, 0);
        return false;
    }
    store->byte_count += cost_of(entry);
    return true;
}

void manifest_store_free(struct manifest_store *store)
{
    if (store == NULL)
        return;
    while (store->entries != NULL)
        drop(store, store->entries);
    (void)loop_alloc(NULL, store, 0);
}

void manifest_store_put(struct manifest_store *store, const struct digest *digest,
                        const struct manifest *manifest)
{
    struct entry *entry;
    HASH_FIND(hh, store->entries, digest, sizeof *digest, entry);
    if (entry != NULL)
        drop(store, entry);
    entry = loop_alloc(NULL, NULL, sizeof *entry + manifest->byte_count);
    if (entry == NULL)
        return;
    memset(entry, 0, sizeof *entry);
    entry->digest = *digest;
    entry->byte_count = manifest->byte_count;
    if (text_copy(entry->media_type, sizeof entry->media_type, manifest->media_type) != 0) {
        (void)loop_alloc(NULL, entry, 0);
        return;
    }
    memcpy(entry->bytes, manifest->bytes, manifest->byte_count);
    if (!append(store, entry))
        return;
    while (store->byte_count > MANIFEST_STORE_BYTES_MAX)
        drop(store, store->entries);
}

bool manifest_store_get(struct manifest_store *store, const struct digest *digest,
                        struct manifest *out)
{
    struct entry *entry;
    HASH_FIND(hh, store->entries, digest, sizeof *digest, entry);
    if (entry == NULL)
        return false;
    HASH_DEL(store->entries, entry);
    store->byte_count -= cost_of(entry);
    if (!append(store, entry))
        return false;
    *out = (struct manifest){entry->bytes, entry->byte_count, entry->media_type};
    return true;
}
