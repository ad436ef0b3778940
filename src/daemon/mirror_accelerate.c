/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs that overlaybd hands over (its p2pConfig, ACR §6). One of a registry's own blobs is answered
 * like any blob of that registry, with the credentials in the request. One of its object storage is
 * signed: who has it may read what it names, so the storage is asked whether it takes this very URL
 * before anything is given out (ACL-1), again every five minutes. Where the path names the digest,
 * the content is that blob's and is shared with the mesh; other files are passed on as they are.
 * Anything else is refused: this is no open proxy (ORG-1).
 */
#include <string.h>

#include "mirror_internal.h"

static bool is_registry_blob(struct mirror *mirror, const struct http_route *route,
                             const struct registry_entry **out)
{
    char name[HOST_BYTES_MAX + 1];
    const char *asked = registries_asked(&mirror->config.configured, route->ns, NULL, name);
    return route->by_digest && registry_table_get(mirror->config.registries, asked, out) == 0;
}

/* What stands for the content in grants and tables: its digest, or where the path names none that
 * of the URL without its query, which is another for each caller. */
static void name_content(struct mirror_request *request)
{
    struct http_route *route = &request->route;
    request->opaque = !registry_storage_digest(request->registry, route->url, &route->digest);
    if (request->opaque)
        digest_of(DIGEST_SHA256, route->url, strcspn(route->url, "?"), &route->digest);
    (void)digest_text(&route->digest, route->reference);
    /* Not a name that a repository may have, so no grant of one stands for it. */
    static_assert(DIGEST_TEXT_BYTES <= sizeof route->repository, "a digest fits");
    memcpy(route->repository, route->reference, sizeof route->reference);
    if (request->opaque)
        route->repository[0] = '?';
}

static void storage(struct mirror_request *request)
{
    request->url = request->route.url;
    request->authorization = NULL; /* the registry's, if any: not for its storage (ACR §7) */
    grants_credential_hash(request->mirror->config.grants, request->url, request->credential_hash);
    name_content(request);
    mirror_blob(request);
}

void mirror_accelerate(struct mirror *mirror, struct exchange *exchange,
                       const struct http_route *route)
{
    const struct registry_entry *registry = NULL;
    bool blob = is_registry_blob(mirror, route, &registry);
    if (!blob && registry_table_storage(mirror->config.registries, route->url, &registry) != 0) {
        mirror__refuse(mirror, exchange, 404, "NAME_UNKNOWN",
                       "neither a blob of a configured registry nor in its storage: add the "
                       "registry to registries, or the place to its key storage");
        return;
    }
    struct mirror_request *request = mirror_request__new(mirror, exchange, route, registry);
    if (request == NULL)
        return;
    mirror->counters.accelerated++;
    request->route.kind = HTTP_ROUTE_BLOB;
    if (blob)
        mirror_blob(request);
    else
        storage(request);
}
