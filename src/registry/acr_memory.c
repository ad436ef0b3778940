/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the instances, over a restart of the agent (acr.h). The text is ours, but it was
 * on a disk: what it says is looked at like an answer of the cloud's, and only such names and
 * endpoints are taken as acr_discover.c could have found.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "acr_discover.h"
#include "bytes.h"
#include "json_bounded.h"
#include "log.h"

#define MEMORY_VERSION 1

/* ---- out ---- */

static const char *endpoint_host(const struct acr_instance *instance)
{
    return strstr(instance->endpoint, "://") + 3;
}

/* New reference; NULL: memory is short. */
static json_t *hosts_json(const struct acr *acr, unsigned i)
{
    json_t *hosts = json_array();

    for (unsigned k = 0; hosts != NULL && k < acr->name_count; k++) {
        const struct acr_name *name = acr->names[k];

        if (!name->live || name->instance != i ||
            json_array_append_new(hosts, json_string(name->entry.name)) == 0)
            continue;
        json_decref(hosts);
        hosts = NULL;
    }
    return hosts;
}

/* With an endpoint among its own names; another instance may have taken that one. */
static bool is_whole(const struct acr *acr, unsigned i)
{
    const struct acr_instance *instance = &acr->instances[i];

    for (unsigned k = 0; instance->endpoint[0] != '\0' && k < acr->name_count; k++)
        if (acr->names[k]->live && acr->names[k]->instance == i &&
            strcmp(acr->names[k]->entry.name, endpoint_host(instance)) == 0)
            return true;
    return false;
}

static json_t *instance_json(const struct acr *acr, unsigned i)
{
    const struct acr_instance *instance = &acr->instances[i];
    json_t *hosts = hosts_json(acr, i);

    if (hosts == NULL)
        return NULL;
    return json_pack("{ss ss ss sI ss sb so}", "instance", instance->id, "region", instance->region,
                     "vpc", instance->vpc, "answered", (json_int_t)instance->answered_s, "endpoint",
                     endpoint_host(instance), "throughVpc", (int)instance->through_vpc, "hosts",
                     hosts);
}

static int text_out(const struct acr *acr, const json_t *root, char **out, size_t *out_bytes)
{
    size_t bytes = json_dumpb(root, NULL, 0, JSON_COMPACT);
    char *text;

    if (bytes == 0)
        return E_NO_MEMORY;
    if (bytes > ACR_MEMORY_BYTES_MAX)
        return E_TOO_LARGE;
    text = acr->env.alloc(acr->env.host, NULL, bytes);
    if (text == NULL)
        return E_NO_MEMORY;
    if (json_dumpb(root, text, bytes, JSON_COMPACT) != bytes) {
        (void)acr->env.alloc(acr->env.host, text, 0);
        return E_NO_MEMORY;
    }
    *out = text;
    *out_bytes = bytes;
    return 0;
}

int acr_remember(const struct acr *acr, char **out, size_t *out_bytes)
{
    json_t *list = json_array(), *root;
    int err = list == NULL ? E_NO_MEMORY : 0;

    for (unsigned i = 0; err == 0 && i < acr->config.instance_count; i++)
        if (is_whole(acr, i) && json_array_append_new(list, instance_json(acr, i)) != 0)
            err = E_NO_MEMORY;
    if (err != 0) {
        json_decref(list);
        return err;
    }
    root = json_pack("{si so}", "version", MEMORY_VERSION, "instances", list);
    err = root == NULL ? E_NO_MEMORY : text_out(acr, root, out, out_bytes);
    json_decref(root);
    return err;
}

/* ---- in ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

/* Index of a configured instance of which nothing is known; ACR_INSTANCES_MAX if there is none. */
static unsigned instance_find(const struct acr *acr, const char *id)
{
    unsigned i = 0;

    while (i < acr->config.instance_count && strcmp(acr->instances[i].id, id) != 0)
        i++;
    return i < acr->config.instance_count && acr->instances[i].endpoint[0] == '\0'
               ? i
               : ACR_INSTANCES_MAX;
}

/* As acr_discover.c takes a region. */
static bool is_region(const char *text)
{
    return text[0] != '\0' && strlen(text) < ACR_REGION_BYTES &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(text);
}

/* Is it an answer for this configuration, and young enough? */
static bool fits(const struct acr *acr, const json_t *item)
{
    const char *region = text_of(item, "region"), *vpc = text_of(item, "vpc");
    json_int_t at = json_integer_value(json_object_get(item, "answered"));
    uint64_t now_s = acr->api.host.wall_s(acr->api.host.host);

    if (at <= 0 || (uint64_t)at > now_s || now_s - (uint64_t)at > ACR_MEMORY_S)
        return false;
    if (!is_region(region) || strlen(vpc) >= ACR_VPC_ID_BYTES)
        return false;
    return (acr->config.region[0] == '\0' || strcmp(acr->config.region, region) == 0) &&
           (acr->config.vpc[0] == '\0' || strcmp(acr->config.vpc, vpc) == 0);
}

/* The names of an instance; the endpoint must be one of them. */
static bool hosts_take(const json_t *item, struct acr_endpoints *out)
{
    const json_t *hosts = json_object_get(item, "hosts");
    const char *endpoint = text_of(item, "endpoint");
    bool via_vpc = json_is_true(json_object_get(item, "throughVpc"));
    size_t count = json_array_size(hosts);
    bool found = false;

    memset(out, 0, sizeof *out);
    if (count == 0 || count > ACR_DOMAINS_MAX)
        return false;
    for (size_t i = 0; i < count; i++) {
        const char *host = json_string_value(json_array_get(hosts, i));

        if (host == NULL || strlen(host) > HOST_BYTES_MAX || !ref_host_valid(host, strlen(host)))
            return false;
        memcpy(out->domains[i], host, strlen(host) + 1);
        found = found || strcmp(host, endpoint) == 0;
    }
    out->domain_count = (unsigned)count;
    if (found)
        memcpy(via_vpc ? out->vpc_host : out->public_host, endpoint, strlen(endpoint) + 1);
    return found;
}

static void instance_recall(struct acr *acr, const json_t *item)
{
    unsigned i = instance_find(acr, text_of(item, "instance"));
    struct acr_endpoints found;
    struct acr_instance *instance;
    uint64_t now_s = acr->api.host.wall_s(acr->api.host.host);

    if (i == ACR_INSTANCES_MAX || !fits(acr, item) || !hosts_take(item, &found))
        return;
    instance = &acr->instances[i];
    instance->answered_s = (uint64_t)json_integer_value(json_object_get(item, "answered"));
    int err = text_copy(instance->region, sizeof instance->region, text_of(item, "region"));
    if (err == 0)
        err = text_copy(instance->vpc, sizeof instance->vpc, text_of(item, "vpc"));
    ASSERT(err == 0); /* `fits` has seen to it */
    acr__hosts_put(acr, i, &found, text_of(item, "endpoint"));
    (void)snprintf(instance->why, sizeof instance->why,
                   "not asked about since the start; the answer of %llu minutes ago is in force",
                   (unsigned long long)(now_s - instance->answered_s) / 60);
    log_to(&acr->env, LOG_INFO, "acr: instance=%s endpoint=%s hosts=%u from before the restart",
           instance->id, instance->endpoint, instance->host_count);
}

int acr_recall(struct acr *acr, const char *text, size_t text_bytes)
{
    json_t *root;
    int err = json__load(text, text_bytes, ACR_MEMORY_BYTES_MAX, &root);

    if (err != 0)
        return err;
    const json_t *list = json_object_get(root, "instances");
    bool known = json_integer_value(json_object_get(root, "version")) == MEMORY_VERSION;
    for (size_t i = 0; known && i < json_array_size(list); i++)
        instance_recall(acr, json_array_get(list, i));
    err = json_is_object(root) && (!known || json_is_array(list)) ? 0 : E_MALFORMED;
    json_decref(root);
    return err;
}
