/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests in memory; see manifest_store.h. uthash keeps insertion order: the first is the oldest.
 */
#include "manifest_store.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "limits.h"
#include "log.h"
#include "loop.h"
#include "table.h"

struct entry {
    uint8_t key[32]; /* SHA-256 of registry, repository and digest */
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
    HASH_ADD(hh, store->entries, key, sizeof entry->key, entry);
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

/* Names end with a zero byte, so that no two splits of them give the same bytes. */
static void key_of(const struct manifest_key *key, uint8_t out[32])
{
    char text[HOST_BYTES_MAX + REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 3];
    char digest[DIGEST_TEXT_BYTES];
    int bytes = snprintf(text, sizeof text, "%s%c%s%c%s", key->registry, 0, key->repository, 0,
                         digest_text(key->digest, digest));
    ASSERT(bytes > 0 && (size_t)bytes < sizeof text);
    sha256_of(text, (size_t)bytes, out);
}

static struct entry *find(const struct manifest_store *store, const struct manifest_key *key,
                          uint8_t hash[32])
{
    struct entry *entry;
    key_of(key, hash);
    HASH_FIND(hh, store->entries, hash, 32, entry);
    return entry;
}

bool manifest_store_has(const struct manifest_store *store, const struct manifest_key *key)
{
    uint8_t hash[32];
    return find(store, key, hash) != NULL;
}

void manifest_store_put(struct manifest_store *store, const struct manifest_key *key,
                        const struct manifest *manifest)
{
    uint8_t hash[32];
    struct entry *entry = find(store, key, hash);
    if (entry != NULL)
        drop(store, entry);
    entry = loop_alloc(NULL, NULL, sizeof *entry + manifest->byte_count);
    if (entry == NULL)
        return;
    memset(entry, 0, sizeof *entry);
    memcpy(entry->key, hash, sizeof entry->key);
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

bool manifest_store_get(struct manifest_store *store, const struct manifest_key *key,
                        struct manifest *out)
{
    uint8_t hash[32];
    struct entry *entry = find(store, key, hash);
    if (entry == NULL)
        return false;
    HASH_DEL(store->entries, entry);
    store->byte_count -= cost_of(entry);
    if (!append(store, entry))
        return false;
    *out = (struct manifest){entry->bytes, entry->byte_count, entry->media_type};
    return true;
}
