/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints of an instance (acr_answer.h): which names it has, and through which of them it can be
 * reached from here. A VPC host is usable when it is enabled and linked to our VPC with status
 * RUNNING, a public one when it is enabled and RUNNING (ACR.md §2).
 */
#include <stdio.h>
#include <string.h>

#include "acr_answer.h"
#include "acr_call.h"
#include "bytes.h"
#include "json_bounded.h"

static bool text_is(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* The host name in lower case; false if it is none. */
static bool host_take(char out[HOST_BYTES_MAX + 1], const char *text)
{
    if (text == NULL || text_copy(out, HOST_BYTES_MAX + 1, text) != 0)
        return false;
    for (char *c = out; *c != '\0'; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    return ref_host_valid(out, strlen(out));
}

static void domain_add(struct acr_endpoints *to, const char host[HOST_BYTES_MAX + 1])
{
    for (unsigned i = 0; i < to->domain_count; i++)
        if (strcmp(to->domains[i], host) == 0)
            return;
    if (to->domain_count == ACR_DOMAINS_MAX) {
        to->domains_dropped++;
        return;
    }
    memcpy(to->domains[to->domain_count++], host, HOST_BYTES_MAX + 1);
}

/* Adds the domains of one endpoint; `first` becomes the cloud's own one, else the first of all. */
static void domains_take(struct acr_endpoints *to, const json_t *domains, char *first)
{
    bool own = false;

    for (size_t i = 0; i < json_array_size(domains); i++) {
        const json_t *item = json_array_get(domains, i);
        bool system = text_is(json_object_get(item, "Type"), "SYSTEM");
        char host[HOST_BYTES_MAX + 1];

        if (!host_take(host, json_string_value(json_object_get(item, "Domain")))) {
            to->domains_dropped++;
            continue;
        }
        domain_add(to, host);
        if (first[0] == '\0' || (system && !own))
            memcpy(first, host, sizeof host);
        own = own || system;
    }
}

/* The entry of LinkedVpcs that is ours; NULL if none is. Names the others in `seen`. */
static const json_t *link_find(const json_t *linked, const char *vpc, struct acr_text *seen)
{
    const json_t *found = NULL;

    for (size_t i = 0; i < json_array_size(linked); i++) {
        const json_t *item = json_array_get(linked, i);
        const char *id = json_string_value(json_object_get(item, "VpcId"));
        char shown[ACR_VPC_ID_BYTES];

        if (id == NULL)
            continue;
        if (vpc[0] != '\0' && strcmp(id, vpc) == 0)
            found = item;
        (void)snprintf(shown, sizeof shown, "%.40s", id);
        acr__text_put(seen, i == 0 ? "" : ", ");
        acr__text_put(seen, shown);
    }
    return found;
}

/* Decides vpc_open; `need_status`: the link's own status is told here. */
static void link_judge(struct acr_endpoints *to, const json_t *from, const char *vpc,
                       bool need_status)
{
    char buffer[128];
    struct acr_text seen;
    const json_t *link, *status;

    acr__text_open(&seen, buffer, sizeof buffer);
    link = link_find(json_object_get(from, "LinkedVpcs"), vpc, &seen);
    status = need_status ? json_object_get(link, "Status") : json_object_get(from, "Status");
    to->vpc_open = false;
    if (!json_is_true(json_object_get(from, "Enable")))
        (void)snprintf(to->vpc_why, sizeof to->vpc_why, "its VPC endpoint is off");
    else if (vpc[0] == '\0')
        (void)snprintf(to->vpc_why, sizeof to->vpc_why,
                       "the VPC of this node is not known: set vpcId");
    else if (link == NULL)
        (void)snprintf(to->vpc_why, sizeof to->vpc_why, "%.40s is not linked to it (linked: %s)",
                       vpc, buffer[0] == '\0' ? "none" : buffer);
    else if (!text_is(status, "RUNNING"))
        (void)snprintf(to->vpc_why, sizeof to->vpc_why,
                       "the link of %.40s has status %.30s, issue \"%.80s\"", vpc,
                       json_is_string(status) ? json_string_value(status) : "unknown",
                       json_is_string(json_object_get(link, "Issue"))
                           ? json_string_value(json_object_get(link, "Issue"))
                           : "");
    else
        to->vpc_open = true;
    if (to->vpc_open)
        to->vpc_why[0] = '\0';
    for (char *c = to->vpc_why; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
            *c = ' ';
}

static void endpoint_take(struct acr_endpoints *to, const json_t *endpoint, const char *vpc)
{
    const json_t *type = json_object_get(endpoint, "EndpointType");
    const json_t *domains = json_object_get(endpoint, "Domains");
    char other[HOST_BYTES_MAX + 1] = "";

    if (text_is(type, "vpc")) {
        domains_take(to, domains, to->vpc_host);
        link_judge(to, endpoint, vpc, false);
    } else if (text_is(type, "internet")) {
        domains_take(to, domains, to->public_host);
        to->public_open = json_is_true(json_object_get(endpoint, "Enable")) &&
                          text_is(json_object_get(endpoint, "Status"), "RUNNING");
    } else {
        domains_take(to, domains, other);
    }
}

int acr__endpoints_parse(const char *body, size_t body_bytes, const char *vpc,
                         struct acr_endpoints *out)
{
    json_t *root;
    const json_t *list;
    int err = json__load(body, body_bytes, ACR_ANSWER_BYTES_MAX, &root);

    if (err != 0)
        return err;
    *out = (struct acr_endpoints){.vpc_why = "it has no VPC endpoint"};
    list = json_object_get(root, "Endpoints");
    err = json_is_array(list) ? 0 : E_MALFORMED;
    for (size_t i = 0; i < json_array_size(list); i++)
        endpoint_take(out, json_array_get(list, i), vpc);
    json_decref(root);
    return err;
}

int acr__vpc_link_parse(const char *body, size_t body_bytes, const char *vpc,
                        struct acr_endpoints *inout)
{
    json_t *root;
    const json_t *domains;
    bool kept = false;
    char first[HOST_BYTES_MAX + 1] = "";
    int err = json__load(body, body_bytes, ACR_ANSWER_BYTES_MAX, &root);

    if (err != 0)
        return err;
    if (!json_is_object(root)) {
        json_decref(root);
        return E_MALFORMED;
    }
    domains = json_object_get(root, "Domains"); /* plain texts here */
    for (size_t i = 0; i < json_array_size(domains); i++) {
        char host[HOST_BYTES_MAX + 1];

        if (!host_take(host, json_string_value(json_array_get(domains, i)))) {
            inout->domains_dropped++;
            continue;
        }
        domain_add(inout, host);
        kept = kept || strcmp(host, inout->vpc_host) == 0;
        if (first[0] == '\0')
            memcpy(first, host, sizeof first);
    }
    if (!kept && first[0] != '\0')
        memcpy(inout->vpc_host, first, sizeof first);
    link_judge(inout, root, vpc, true);
    json_decref(root);
    return 0;
}
