/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The challenge each registry last answered an unauthenticated request with, per repository. While
 * the registry is down it is repeated, so that a runtime presents the credentials that a grant of
 * before may still fit (ACL-4, ACL-6). A challenge gives nobody a right: it only asks.
 *
 * Keyed by a hash under a random key of this process, as grants are: no names stand in memory. The
 * oldest entry makes room for the newest.
 */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "registry.h"

/* uthash as in grants.c: the host's allocator, and a failed insertion leaves the entry out. */
#define HASH_NONFATAL_OOM              1
#define HASH_FUNCTION(key, bytes, out) ((out) = load_be32((const uint8_t *)(key)))
#define uthash_malloc(bytes)           table_alloc(challenges, (bytes))
#define uthash_free(pointer, bytes)    table_release(challenges, (pointer))
#define uthash_nonfatal_oom(element)   ((element)->left_out = true)

struct challenges;
static void *table_alloc(const struct challenges *challenges, size_t bytes);
static void table_release(const struct challenges *challenges, void *pointer);

#include <uthash.h>

struct entry {
    uint8_t key[32];
    uint64_t expires_us;
    bool left_out;
    UT_hash_handle hh;
    char value[];
};

struct challenges {
    struct env env;
    uint8_t secret[32];
    struct entry *entries; /* oldest first */
};

static void *table_alloc(const struct challenges *challenges, size_t bytes)
{
    return challenges->env.alloc(challenges->env.host, NULL, bytes);
}

static void table_release(const struct challenges *challenges, void *pointer)
{
    if (pointer != NULL)
        (void)challenges->env.alloc(challenges->env.host, pointer, 0);
}

int challenges_new(const struct env *env, struct challenges **out)
{
    struct challenges *challenges = env->alloc(env->host, NULL, sizeof *challenges);

    if (challenges == NULL)
        return E_NO_MEMORY;
    *challenges = (struct challenges){.env = *env};
    env->random(env->host, challenges->secret, sizeof challenges->secret);
    *out = challenges;
    return 0;
}

static void entry_delete(struct challenges *challenges, struct entry *entry)
{
    HASH_DEL(challenges->entries, entry);
    table_release(challenges, entry);
}

void challenges_free(struct challenges *challenges)
{
    struct env env;

    if (challenges == NULL)
        return;
    while (challenges->entries != NULL)
        entry_delete(challenges, challenges->entries);
    env = challenges->env;
    explicit_bzero(challenges, sizeof *challenges);
    (void)env.alloc(env.host, challenges, 0);
}

static struct entry *entry_find(const struct challenges *challenges, const char *registry,
                                const char *repository, uint8_t key[32])
{
    struct entry *found;

    hmac_sha256(challenges->secret, registry, strlen(registry) + 1, repository, strlen(repository),
                key);
    HASH_FIND(hh, challenges->entries, key, 32, found);
    return found;
}

void challenges_put(struct challenges *challenges, uint64_t now_us, const char *registry,
                    const char *repository, const char *value)
{
    size_t bytes = strlen(value) + 1;
    struct entry *entry;
    uint8_t key[32];

    challenges_forget(challenges, registry, repository);
    if (bytes == 1 || bytes > CHALLENGE_VALUE_MAX + 1)
        return;
    (void)entry_find(challenges, registry, repository, key);
    if (HASH_COUNT(challenges->entries) >= CHALLENGES_MAX)
        entry_delete(challenges, challenges->entries);
    entry = table_alloc(challenges, sizeof *entry + bytes);
    if (entry == NULL)
        return;
    memset(entry, 0, sizeof *entry);
    entry->expires_us = now_us + CHALLENGE_LIFE_US;
    memcpy(entry->key, key, sizeof key);
    memcpy(entry->value, value, bytes);
    HASH_ADD(hh, challenges->entries, key, sizeof entry->key, entry);
    if (entry->left_out)
        table_release(challenges, entry);
}

void challenges_forget(struct challenges *challenges, const char *registry, const char *repository)
{
    uint8_t key[32];
    struct entry *entry = entry_find(challenges, registry, repository, key);

    if (entry != NULL)
        entry_delete(challenges, entry);
}

static const char *live_value(const struct challenges *challenges, uint64_t now_us,
                              const char *registry, const char *repository)
{
    uint8_t key[32];
    const struct entry *entry = entry_find(challenges, registry, repository, key);

    return entry != NULL && now_us < entry->expires_us ? entry->value : NULL;
}

const char *challenges_find(const struct challenges *challenges, uint64_t now_us,
                            const char *registry, const char *repository)
{
    const char *value = live_value(challenges, now_us, registry, repository);
    struct auth_challenge parsed;

    if (value != NULL || repository[0] == '\0')
        return value;
    value = live_value(challenges, now_us, registry, "");
    if (value == NULL || auth_challenge_parse(value, strlen(value), &parsed) != 0)
        return NULL;
    return parsed.scheme == AUTH_BASIC ? value : NULL;
}
