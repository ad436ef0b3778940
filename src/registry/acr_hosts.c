/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of instances as registry entries (acr_discover.h). Requests hold on to an entry while they
 * run, so entries are made once per name, changed in place, and never freed before the end.
 */
#include <stdio.h>
#include <string.h>

#include "acr_discover.h"
#include "bytes.h"
#include "log.h"
#include "storage.h"

static struct acr_name *name_find(const struct acr *acr, const char *host)
{
    for (unsigned i = 0; i < acr->name_count; i++)
        if (strcmp(acr->names[i]->entry.name, host) == 0)
            return acr->names[i];
    return NULL;
}

static struct acr_name *name_add(struct acr *acr, const char *host)
{
    struct acr_name *name;

    if (acr->name_count == ACR_HOSTS_MAX)
        return NULL;
    name = acr->env.alloc(acr->env.host, NULL, sizeof *name);
    if (name == NULL)
        return NULL;
    *name = (struct acr_name){.entry = {.p2p = true}};
    int err = text_copy(name->entry.name, sizeof name->entry.name, host);
    ASSERT(err == 0);
    acr->names[acr->name_count++] = name;
    return name;
}

void acr__hosts_drop(struct acr *acr, unsigned i)
{
    struct acr_instance *instance = &acr->instances[i];

    for (unsigned k = 0; k < acr->name_count; k++)
        if (acr->names[k]->instance == i)
            acr->names[k]->live = false;
    instance->host_count = 0;
    instance->endpoint[0] = '\0';
}

/* Where the instance's blobs lie, as its registry redirects to them: the bucket is its own, so
 * nothing but them is below the place. */
static void storage_put(const struct acr *acr, const struct acr_instance *instance,
                        struct registry_entry *entry)
{
    static const char *const networks[] = {"-internal", ""};

    memset(entry->storage, 0, sizeof entry->storage);
    for (size_t i = 0; instance->region[0] != '\0' && i < 2; i++)
        (void)snprintf(entry->storage[i], sizeof entry->storage[i],
                       "%s%s-registry.oss-%s%s.aliyuncs.com/docker/registry/v2/blobs/",
                       acr->config.registry_plain_http ? "http://" : "https://", instance->id,
                       instance->region, networks[i]);
}

void acr__hosts_put(struct acr *acr, unsigned i, const struct acr_endpoints *found,
                    const char *host)
{
    struct acr_instance *instance = &acr->instances[i];
    const char *scheme = acr->config.registry_plain_http ? "http://" : "https://";

    acr__hosts_drop(acr, i);
    (void)snprintf(instance->endpoint, sizeof instance->endpoint, "%s%s", scheme, host);
    instance->through_vpc = strcmp(host, found->vpc_host) == 0;
    acr->counters.hosts_dropped += found->domains_dropped;
    for (unsigned k = 0; k < found->domain_count; k++) {
        struct acr_name *name = name_find(acr, found->domains[k]);

        if (name == NULL)
            name = name_add(acr, found->domains[k]);
        if (name == NULL || (name->live && name->instance != i)) {
            acr->counters.hosts_dropped++; /* no room, or another instance has it */
            continue;
        }
        name->instance = i;
        name->live = true;
        /* Inside a VPC registry and store have private addresses; public ones never (ORG-2). */
        name->entry.allow_private = (struct address_ranges){.count = 0};
        if (instance->through_vpc)
            address_ranges_private(&name->entry.allow_private, acr->config.registry_plain_http);
        memcpy(name->entry.endpoint, instance->endpoint, sizeof instance->endpoint);
        storage_put(acr, instance, &name->entry);
        instance->host_count++;
    }
}

void acr__hosts_close(struct acr *acr)
{
    for (unsigned i = 0; i < acr->name_count; i++)
        (void)acr->env.alloc(acr->env.host, acr->names[i], 0);
    acr->name_count = 0;
}

/* ---- looking up ---- */

const struct registry_entry *acr_find(const void *acr, const char *name)
{
    char host[HOST_BYTES_MAX + 1];
    const struct acr_name *found;

    if (name == NULL || text_copy(host, sizeof host, name) != 0)
        return NULL;
    for (char *c = host; *c != '\0'; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    found = name_find(acr, host);
    return found != NULL && found->live ? &found->entry : NULL;
}

const struct registry_entry *acr_find_storage(const void *arg, const char *url,
                                              const struct registry_entry *after)
{
    const struct acr *acr = arg;
    bool passed = after == NULL;

    for (unsigned i = 0; i < acr->name_count; i++) {
        const struct acr_name *name = acr->names[i];

        if (passed && name->live && storage__place_bytes(&name->entry, url) > 0)
            return &name->entry;
        passed = passed || &name->entry == after;
    }
    return NULL;
}

bool acr_at(const struct acr *acr, unsigned i, struct acr_view *out)
{
    const struct acr_instance *instance = &acr->instances[i < ACR_INSTANCES_MAX ? i : 0];

    if (i >= acr->config.instance_count)
        return false;
    *out = (struct acr_view){.instance = instance->id,
                             .endpoint = instance->endpoint,
                             .host_count = instance->host_count,
                             .through_vpc = instance->through_vpc,
                             .why = instance->why,
                             .answered_us = instance->answered_us};
    return true;
}
