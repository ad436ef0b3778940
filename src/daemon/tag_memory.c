/* SPDX-License-Identifier: Apache-2.0 */
/* Tags and their digests; see tag_memory.h. Linear search: a tag is asked for once a pull. */
#include "tag_memory.h"

#include <string.h>

#include "digest.h"

struct entry {
    uint8_t key[32];
    uint64_t used_seq; /* 0: free */
    struct tag_fact fact;
};

struct tag_memory {
    struct env env;
    uint8_t secret[32];
    uint64_t seq;
    struct entry entries[TAG_MEMORY_MAX];
};

int tag_memory_new(const struct env *env, struct tag_memory **out)
{
    struct tag_memory *memory = env->alloc(env->host, NULL, sizeof *memory);
    if (memory == NULL)
        return E_NO_MEMORY;
    memset(memory, 0, sizeof *memory);
    memory->env = *env;
    env->random(env->host, memory->secret, sizeof memory->secret);
    *out = memory;
    return 0;
}

void tag_memory_free(struct tag_memory *memory)
{
    if (memory == NULL)
        return;
    struct env env = memory->env;
    (void)env.alloc(env.host, memory, 0);
}

static void key_of(const struct tag_memory *memory, const struct tag_name *name, uint8_t out[32])
{
    uint8_t where[32];
    hmac_sha256(memory->secret, name->registry, strlen(name->registry) + 1, name->repository,
                strlen(name->repository), where);
    hmac_sha256(memory->secret, where, sizeof where, name->tag, strlen(name->tag), out);
}

/* The entry of this key; NULL: none. */
static struct entry *entry_find(struct tag_memory *memory, const uint8_t key[32])
{
    for (size_t i = 0; i < TAG_MEMORY_MAX; i++) {
        struct entry *entry = &memory->entries[i];
        if (entry->used_seq != 0 && memcmp(entry->key, key, sizeof entry->key) == 0)
            return entry;
    }
    return NULL;
}

bool tag_memory_find(struct tag_memory *memory, const struct tag_name *name, struct tag_fact *out)
{
    uint8_t key[32];
    key_of(memory, name, key);
    struct entry *entry = entry_find(memory, key);
    if (entry == NULL)
        return false;
    entry->used_seq = ++memory->seq;
    *out = entry->fact;
    return true;
}

void tag_memory_put(struct tag_memory *memory, const struct tag_name *name,
                    const struct tag_fact *fact)
{
    uint8_t key[32];
    key_of(memory, name, key);
    struct entry *entry = entry_find(memory, key);
    if (entry == NULL) {
        entry = &memory->entries[0];
        for (size_t i = 1; i < TAG_MEMORY_MAX; i++)
            if (memory->entries[i].used_seq < entry->used_seq)
                entry = &memory->entries[i];
    }
    memcpy(entry->key, key, sizeof key);
    entry->used_seq = ++memory->seq;
    entry->fact = *fact;
}

void tag_memory_forget(struct tag_memory *memory, const struct tag_name *name)
{
    uint8_t key[32];
    key_of(memory, name, key);
    struct entry *entry = entry_find(memory, key);
    if (entry != NULL)
        *entry = (struct entry){0};
}
