/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registries by pattern: which names a pattern stands for, and the entries made for names that one
 * let in (ORG-1). An entry made so carries the name that was asked for, never the pattern: grants,
 * pools, challenges and tokens are kept by it, and those of two registries must not meet.
 *
 * Requests, leases and images of the prefetch hold entries for longer than a request lasts, so they
 * are counted; only an unused one makes room for another name.
 */
#include <string.h>

#include "storage.h"

#include "bytes.h"
#include "log.h"
#include "registry.h"
#include "url.h"

struct made {
    struct registry_entry entry;
    unsigned users;
    uint64_t used_seq; /* for replacement */
};

struct registry_table {
    struct env env;
    struct registries configured;
    struct made *made[REGISTRY_MADE_MAX]; /* owned; NULL: free place */
    uint64_t seq;
};

/* ---- patterns ---- */

/* Bytes before the port; an IPv6 literal has no name, 0. */
static size_t host_bytes(const char *name)
{
    return name[0] == '[' ? 0 : strcspn(name, ":");
}

static bool is_number(const char *name)
{
    return url__is_number(name, host_bytes(name));
}

bool registry_pattern_valid(const char *text)
{
    if (strcmp(text, "*") == 0)
        return true;
    return strncmp(text, "*.", 2) == 0 && text[2] != '[' &&
           ref_host_valid(text + 2, strlen(text + 2)) && !is_number(text + 2);
}

bool registry_pattern_fits(const char *pattern, const char *name)
{
    size_t name_bytes = strlen(name), suffix_bytes = strlen(pattern) - 1;

    if (!ref_host_valid(name, name_bytes) || host_bytes(name) == 0 || is_number(name))
        return false;
    if (suffix_bytes == 0)
        return memchr(name, '.', host_bytes(name)) != NULL;
    return name_bytes > suffix_bytes &&
           memcmp(name + name_bytes - suffix_bytes, pattern + 1, suffix_bytes) == 0;
}

/* The longest pattern that stands for the name; NULL: none. */
static const struct registry_entry *pattern_for(const struct registries *configured,
                                                const char *name)
{
    const struct registry_entry *best = NULL;

    for (unsigned i = 0; i < configured->entry_count; i++) {
        const struct registry_entry *entry = &configured->entries[i];

        if (entry->name[0] == '*' && registry_pattern_fits(entry->name, name) &&
            (best == NULL || strlen(entry->name) > strlen(best->name)))
            best = entry;
    }
    return best;
}

/* ---- the table ---- */

int registry_table_new(const struct env *env, const struct registries *configured,
                       struct registry_table **out)
{
    struct registry_table *table = env->alloc(env->host, NULL, sizeof *table);

    if (table == NULL)
        return E_NO_MEMORY;
    *table = (struct registry_table){.env = *env, .configured = *configured};
    *out = table;
    return 0;
}

void registry_table_free(struct registry_table *table)
{
    struct env env;

    if (table == NULL)
        return;
    env = table->env;
    for (size_t i = 0; i < REGISTRY_MADE_MAX; i++) {
        if (table->made[i] == NULL)
            continue;
        ASSERT(table->made[i]->users == 0);
        (void)env.alloc(env.host, table->made[i], 0);
    }
    (void)env.alloc(env.host, table, 0);
}

static struct made *made_find(const struct registry_table *table, const char *name)
{
    for (size_t i = 0; i < REGISTRY_MADE_MAX; i++)
        if (table->made[i] != NULL && strcmp(table->made[i]->entry.name, name) == 0)
            return table->made[i];
    return NULL;
}

/* A free place, else that of the longest unused entry; REGISTRY_MADE_MAX: all are in use. */
static size_t place_find(const struct registry_table *table)
{
    size_t place = REGISTRY_MADE_MAX;

    for (size_t i = 0; i < REGISTRY_MADE_MAX; i++) {
        const struct made *made = table->made[i];

        if (made == NULL)
            return i;
        if (made->users == 0 &&
            (place == REGISTRY_MADE_MAX || made->used_seq < table->made[place]->used_seq))
            place = i;
    }
    return place;
}

static int make(struct registry_table *table, const struct registry_entry *pattern,
                const char *name, struct made **out)
{
    static const char scheme[] = "https://";
    size_t place = place_find(table);
    struct made *made;

    if (place == REGISTRY_MADE_MAX)
        return E_FULL;
    made = table->made[place];
    if (made == NULL)
        made = table->env.alloc(table->env.host, NULL, sizeof *made);
    if (made == NULL)
        return E_NO_MEMORY;
    table->made[place] = made;
    *made = (struct made){.entry = *pattern};
    made->entry.users = &made->users;
    made->entry.by_pattern = true;
    memcpy(made->entry.name, name, strlen(name) + 1); /* a valid host fits */
    memcpy(made->entry.endpoint, scheme, sizeof scheme - 1);
    memcpy(made->entry.endpoint + sizeof scheme - 1, name, strlen(name) + 1);
    *out = made;
    return 0;
}

int registry_table_get(struct registry_table *table, const char *ns,
                       const struct registry_entry **out)
{
    const struct registry_entry *entry = registries_find(&table->configured, ns);
    char name[HOST_BYTES_MAX + 1];
    struct made *made;
    int err;

    if (entry != NULL) {
        *out = entry;
        return 0;
    }
    if (ns == NULL || text_copy(name, sizeof name, ns) != 0)
        return E_NOT_FOUND;
    for (char *c = name; *c != '\0'; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    entry = pattern_for(&table->configured, name);
    if (entry == NULL)
        return E_NOT_FOUND;
    made = made_find(table, name);
    err = made != NULL ? 0 : make(table, entry, name, &made);
    if (err != 0)
        return err;
    made->used_seq = ++table->seq;
    made->users++;
    *out = &made->entry;
    return 0;
}

/* One of the entries with this storage that keeps it off the mesh, else the first of them. */
static const struct registry_entry *stricter(const struct registry_entry *first,
                                             const struct registry_entry *other)
{
    return first == NULL || (registry_p2p_storage(first) && !registry_p2p_storage(other)) ? other
                                                                                          : first;
}

static const struct registry_entry *configured_storage(const struct registries *configured,
                                                       const char *url)
{
    const struct registry_entry *found = NULL;

    for (unsigned i = 0; i < configured->entry_count; i++)
        if (storage__place_bytes(&configured->entries[i], url) > 0)
            found = stricter(found, &configured->entries[i]);
    return found;
}

/* A name of a running instance may have an entry of its own, which wins by name; what that says of
 * the mesh holds for the storage too. */
static const struct registry_entry *more_storage(const struct registries *configured,
                                                 const char *url)
{
    const struct registry_entry *found = NULL, *more = NULL;

    if (configured->more_storage == NULL)
        return NULL;
    while ((more = configured->more_storage(configured->more_arg, url, more)) != NULL) {
        const struct registry_entry *own = registries_find(configured, more->name);

        found = stricter(found, more);
        if (own != NULL && !registry_p2p_storage(own))
            found = own;
    }
    return found;
}

int registry_table_storage(struct registry_table *table, const char *url,
                           const struct registry_entry **out)
{
    const struct registry_entry *found = configured_storage(&table->configured, url);

    if (found == NULL)
        found = more_storage(&table->configured, url);
    if (found == NULL)
        return E_NOT_FOUND;
    *out = registry_entry_ref(found);
    return 0;
}

const struct registry_entry *registry_entry_ref(const struct registry_entry *entry)
{
    if (entry->users != NULL)
        ++*entry->users;
    return entry;
}

void registry_entry_put(const struct registry_entry *entry)
{
    if (entry == NULL || entry->users == NULL)
        return;
    ASSERT(*entry->users > 0);
    --*entry->users;
}
