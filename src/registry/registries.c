/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configured upstreams by exact name. A name that is not configured does not exist: no DNS lookup,
 * no connection (ORG-1).
 */
#include "registry.h"

#include <string.h>

#include "bytes.h"

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
    return registries->more == NULL || wants_default ? NULL
                                                     : registries->more(registries->more_arg, ns);
}

/* Cuts the port off "host:port"; an IPv6 address in brackets is no registry's name. */
static void cut_port(char *host)
{
    char *colon = strrchr(host, ':');
    if (colon != NULL && host[0] != '[')
        *colon = '\0';
}

/* Takes "distributed" out of "first.distributed.rest"; false if it is not there. */
static bool cut_distributed(char *host)
{
    static const char label[] = "distributed.";
    char *second = strchr(host, '.');
    if (second == NULL)
        return false;
    second++;
    for (size_t i = 0; i < sizeof label - 1; i++)
        if (lower(second[i]) != label[i])
            return false;
    memmove(second, second + sizeof label - 1, strlen(second + sizeof label - 1) + 1);
    return true;
}

const char *registries_asked(const struct registries *registries, const char *ns, const char *host,
                             char out[HOST_BYTES_MAX + 1])
{
    bool by_ns = ns != NULL && ns[0] != '\0';
    const char *asked = by_ns ? ns : host;

    out[0] = '\0';
    if (asked == NULL || text_copy(out, HOST_BYTES_MAX + 1, asked) != 0)
        return by_ns ? ns : out; /* too long for a host: the default, or no registry's name */
    if (out[0] == '\0' || registries_find(registries, out) != NULL)
        return out;
    cut_port(out);
    if (cut_distributed(out))
        return out;
    if (by_ns)
        return ns;
    if (registries_find(registries, out) == NULL)
        out[0] = '\0';
    return out;
}
