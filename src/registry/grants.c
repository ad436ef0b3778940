/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grants (ACL-2): which credentials the registry has accepted for which repository, and which blobs
 * the manifests of a repository reference (ACL-3). Both tables are keyed by a hash under a random
 * key of this process, so neither credentials nor names stand in memory, and nobody outside can
 * choose what collides. The oldest entry makes room for the newest; uthash keeps that order.
 */
#include "grants.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "registry.h"

/* uthash through the host's allocator; a failed insertion leaves the entry out instead of exiting.
 * Each function that inserts has `grants` in scope. */
#define HASH_NONFATAL_OOM 1
/* Keys are outputs of a keyed hash: any four bytes of one are as good as a hash of it. */
#define HASH_FUNCTION(key, bytes, out) ((out) = load_be32((const uint8_t *)(key)))
#define uthash_malloc(bytes)           table_alloc(grants, (bytes))
#define uthash_free(pointer, bytes)    table_release(grants, (pointer))
#define uthash_nonfatal_oom(element)   ((element)->left_out = true)

struct grants;
static void *table_alloc(const struct grants *grants, size_t bytes);
static void table_release(const struct grants *grants, void *pointer);

#include <uthash.h>

#define GRANTS_MAX 4096
#define LINKS_MAX  65536
/* Everybody shares the fact that a repository is open, so somebody's pull is always under way: it
 * is learnt anew from the registry after ten minutes at the latest (ACL-5). */
#define ANONYMOUS_LIVES 2
static_assert(ANONYMOUS_LIVES * GRANT_LIFE_US <= 10ull * 60 * 1000 * 1000, "ACL-5");

struct grant {
    uint8_t key[32];
    uint64_t agreed_us;  /* the registry last said yes */
    uint64_t expires_us; /* agreed, or extended by a running pull, plus life_us */
    bool left_out;
    UT_hash_handle hh;
};

struct blob_link {
    uint8_t key[32];
    uint64_t size_bytes;
    bool left_out;
    UT_hash_handle hh;
};

struct grants {
    struct env env;
    uint8_t secret[32];
    uint64_t life_us;
    struct grant *grants;
    struct blob_link *links;
};

static void *table_alloc(const struct grants *grants, size_t bytes)
{
    return grants->env.alloc(grants->env.host, NULL, bytes);
}

static void table_release(const struct grants *grants, void *pointer)
{
    if (pointer != NULL)
        (void)grants->env.alloc(grants->env.host, pointer, 0);
}

int grants_new(const struct env *env, uint64_t life_us, struct grants **out)
{
    struct grants *grants = env->alloc(env->host, NULL, sizeof *grants);

    if (grants == NULL)
        return E_NO_MEMORY;
    *grants =
        (struct grants){.env = *env, .life_us = life_us < GRANT_LIFE_US ? life_us : GRANT_LIFE_US};
    env->random(env->host, grants->secret, sizeof grants->secret);
    *out = grants;
    return 0;
}

static void grant_delete(struct grants *grants, struct grant *grant)
{
    HASH_DEL(grants->grants, grant);
    table_release(grants, grant);
}

static void link_delete(struct grants *grants, struct blob_link *link)
{
    HASH_DEL(grants->links, link);
    table_release(grants, link);
}

void grants_free(struct grants *grants)
{
    struct env env;

    if (grants == NULL)
        return;
    while (grants->grants != NULL)
        grant_delete(grants, grants->grants);
    while (grants->links != NULL)
        link_delete(grants, grants->links);
    env = grants->env;
    explicit_bzero(grants, sizeof *grants);
    (void)env.alloc(env.host, grants, 0);
}

/* The scheme compares without case (RFC 9110 §11.1). */
bool grants__no_credentials(const char *authorization)
{
    static const char basic[] = "basic";
    size_t i = 0;

    if (authorization == NULL)
        return true;
    authorization += strspn(authorization, " \t");
    if (authorization[0] == '\0')
        return true;
    for (; basic[i] != '\0'; i++)
        if ((authorization[i] | 0x20) != basic[i])
            return false;
    if (authorization[i] != ' ')
        return false;
    authorization += i + strspn(authorization + i, " ");
    return strncmp(authorization, "Og==", 4) == 0 &&
           authorization[4 + strspn(authorization + 4, " \t")] == '\0';
}

void grants_credential_hash(const struct grants *grants, const char *authorization, uint8_t out[32])
{
    static const char context[] = "shoal credential";

    memset(out, 0, 32);
    if (!grants__no_credentials(authorization))
        hmac_sha256(grants->secret, context, sizeof context, authorization, strlen(authorization),
                    out);
}

/* HMAC(HMAC(registry 0 repository), tail): no two splits of the names give the same bytes. */
static void key_of(const struct grants *grants, const char *registry, const char *repository,
                   const uint8_t tail[32], uint8_t out[32])
{
    uint8_t scope[32];

    hmac_sha256(grants->secret, registry, strlen(registry) + 1, repository, strlen(repository),
                scope);
    hmac_sha256(grants->secret, scope, sizeof scope, tail, 32, out);
}

static void link_key_of(const struct grants *grants, const char *registry, const char *repository,
                        const struct digest *blob, uint8_t out[32])
{
    uint8_t tail[32];
    uint8_t algorithm = (uint8_t)blob->algorithm;

    hmac_sha256(grants->secret, &algorithm, 1, blob->bytes, digest_bytes(blob->algorithm), tail);
    key_of(grants, registry, repository, tail, out);
}

static struct grant *grant_find(const struct grants *grants, const char *registry,
                                const char *repository, const uint8_t credential_hash[32])
{
    struct grant *found;
    uint8_t key[32];

    key_of(grants, registry, repository, credential_hash, key);
    HASH_FIND(hh, grants->grants, key, sizeof key, found);
    return found;
}

int grants_put(struct grants *grants, uint64_t now_us, const char *registry, const char *repository,
               const uint8_t credential_hash[32])
{
    struct grant *grant = grant_find(grants, registry, repository, credential_hash);
    struct grant *fresh;

    fresh = table_alloc(grants, sizeof *fresh);
    if (fresh == NULL)
        return E_NO_MEMORY;
    if (grant != NULL)
        grant_delete(grants, grant); /* so that the new one is the youngest */
    else if (HASH_COUNT(grants->grants) >= GRANTS_MAX)
        grant_delete(grants, grants->grants);
    *fresh = (struct grant){.agreed_us = now_us, .expires_us = now_us + grants->life_us};
    key_of(grants, registry, repository, credential_hash, fresh->key);
    HASH_ADD(hh, grants->grants, key, sizeof fresh->key, fresh);
    if (!fresh->left_out)
        return 0;
    table_release(grants, fresh);
    return E_NO_MEMORY;
}

bool grants_check(struct grants *grants, uint64_t now_us, const char *registry,
                  const char *repository, const uint8_t credential_hash[32])
{
    const struct grant *grant = grant_find(grants, registry, repository, credential_hash);

    return grant != NULL && now_us < grant->expires_us;
}

bool grants_check_stale(struct grants *grants, uint64_t now_us, const char *registry,
                        const char *repository, const uint8_t credential_hash[32],
                        uint64_t age_max_us)
{
    const struct grant *grant = grant_find(grants, registry, repository, credential_hash);

    if (grant == NULL)
        return false;
    if (age_max_us > GRANT_STALE_US)
        age_max_us = GRANT_STALE_US;
    return now_us < grant->expires_us ||
           (now_us >= grant->agreed_us && now_us - grant->agreed_us < age_max_us);
}

void grants_extend(struct grants *grants, uint64_t now_us, const char *registry,
                   const char *repository, const uint8_t credential_hash[32])
{
    static const uint8_t anonymous[32];
    struct grant *grant = grant_find(grants, registry, repository, credential_hash);
    uint64_t last_us;

    /* An expired grant is not revived: that is the registry's to do. */
    if (grant == NULL || now_us >= grant->expires_us)
        return;
    grant->expires_us = now_us + grants->life_us;
    last_us = grant->agreed_us + ANONYMOUS_LIVES * grants->life_us;
    if (memcmp(credential_hash, anonymous, sizeof anonymous) == 0 && grant->expires_us > last_us)
        grant->expires_us = last_us;
}

void grants_revoke(struct grants *grants, const char *registry, const char *repository,
                   const uint8_t credential_hash[32])
{
    struct grant *grant = grant_find(grants, registry, repository, credential_hash);

    if (grant != NULL)
        grant_delete(grants, grant);
}

int grants_link(struct grants *grants, const char *registry, const char *repository,
                const struct digest *blob, uint64_t size_bytes)
{
    struct blob_link *link, *fresh;
    uint8_t key[32];

    link_key_of(grants, registry, repository, blob, key);
    fresh = table_alloc(grants, sizeof *fresh);
    if (fresh == NULL)
        return E_NO_MEMORY;
    HASH_FIND(hh, grants->links, key, sizeof key, link);
    if (link != NULL)
        link_delete(grants, link);
    else if (HASH_COUNT(grants->links) >= LINKS_MAX)
        link_delete(grants, grants->links);
    *fresh = (struct blob_link){.size_bytes = size_bytes};
    memcpy(fresh->key, key, sizeof key);
    HASH_ADD(hh, grants->links, key, sizeof fresh->key, fresh);
    if (!fresh->left_out)
        return 0;
    table_release(grants, fresh);
    return E_NO_MEMORY;
}

bool grants_linked(const struct grants *grants, const char *registry, const char *repository,
                   const struct digest *blob, uint64_t *size_bytes)
{
    const struct blob_link *link;
    uint8_t key[32];

    link_key_of(grants, registry, repository, blob, key);
    HASH_FIND(hh, grants->links, key, sizeof key, link);
    if (link == NULL)
        return false;
    *size_bytes = link->size_bytes;
    return true;
}
