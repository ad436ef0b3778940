/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configured upstreams by exact name. A name that is not configured does not exist: no DNS lookup,
 * no connection (ORG-1).
 */
#include "registry.h"

#include <string.h>

/* ASCII only, whatever the locale: host names are compared byte for byte after this (ORG-1). */
static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool name_equal(const char *configured, const char *asked)
{
    size_t i = 0;

    for (; configured[i] != '\0' && asked[i] != '\0'; i++)
        if (configured[i] != lower(asked[i]))
            return false;
    return configured[i] == asked[i];
}

const struct registry_entry *registries_find(const struct registries *registries, const char *ns)
{
    bool wants_default = ns == NULL || ns[0] == '\0';

    for (unsigned i = 0; i < registries->entry_count; i++) {
        const struct registry_entry *entry = &registries->entries[i];

        if (entry->name[0] == '*')
            continue;
        if (wants_default ? entry->is_default : name_equal(entry->name, ns))
            return entry;
    }
    return NULL;
}
