/* SPDX-License-Identifier: Apache-2.0 */
/* Targets (HTTP-3, ORG-1, ORG-8): whatever is taken has valid names, and its plain spelling is the
 * same route again. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "http.h"
#include "log.h"
#include "registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_route route, again;
static char target[3 * HTTP_TARGET_BYTES_MAX], plain[3 * HTTP_TARGET_BYTES_MAX];

static void check_names(const struct http_route *taken)
{
    bool named = taken->kind == HTTP_ROUTE_MANIFEST || taken->kind == HTTP_ROUTE_BLOB ||
                 taken->kind == HTTP_ROUTE_REFERRERS || taken->kind == HTTP_ROUTE_TAGS ||
                 (taken->kind == HTTP_ROUTE_ACCELERATE && taken->by_digest);
    ASSERT(named == (taken->repository[0] != '\0'));
    if (named)
        ASSERT(ref_repository_valid(taken->repository, strlen(taken->repository)));
    if (taken->ns[0] != '\0')
        ASSERT(ref_host_valid(taken->ns, strlen(taken->ns)));
    if (taken->by_digest) {
        char text[DIGEST_TEXT_BYTES];
        ASSERT(strcmp(digest_text(&taken->digest, text), taken->reference) == 0);
    } else if (taken->kind == HTTP_ROUTE_MANIFEST) {
        ASSERT(ref_tag_valid(taken->reference, strlen(taken->reference)));
    } else {
        ASSERT(taken->reference[0] == '\0');
    }
    if (taken->kind == HTTP_ROUTE_ACCELERATE) {
        ASSERT(strncmp(taken->url, "http", 4) == 0);
        ASSERT(strpbrk(taken->url, " \t\r\n#\\") == NULL);
    }
}

/* The target without escapes; false for routes that have no name. */
static bool spell(const struct http_route *taken)
{
    static const char *const words[] = {[HTTP_ROUTE_MANIFEST] = "manifests",
                                        [HTTP_ROUTE_BLOB] = "blobs",
                                        [HTTP_ROUTE_REFERRERS] = "referrers",
                                        [HTTP_ROUTE_TAGS] = "tags"};
    if (taken->kind == HTTP_ROUTE_ACCELERATE) {
        (void)snprintf(plain, sizeof plain, "/accelerate/%s", taken->url);
        return true;
    }
    if (taken->kind < HTTP_ROUTE_MANIFEST || taken->kind > HTTP_ROUTE_TAGS)
        return false;
    const char *reference = taken->kind == HTTP_ROUTE_TAGS ? "list" : taken->reference;
    (void)snprintf(plain, sizeof plain, "/v2/%s/%s/%s?%s%s%s%s", taken->repository,
                   words[taken->kind], reference, taken->query, taken->query[0] != '\0' ? "&" : "",
                   taken->ns[0] != '\0' ? "ns=" : "", taken->ns);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *oci_code = NULL;
    if (text_copy_n(target, sizeof target, (const char *)data, size) != 0)
        return 0;
    int err = http_route_parse(target, &route, &oci_code);
    if (err != 0) {
        ASSERT(err == E_MALFORMED);
        ASSERT(oci_code != NULL);
        ASSERT(route.kind == HTTP_ROUTE_NONE);
        return 0;
    }
    ASSERT(oci_code == NULL);
    check_names(&route);
    if (!spell(&route))
        return 0;
    if (route.kind == HTTP_ROUTE_ACCELERATE && strlen(plain) > HTTP_TARGET_BYTES_MAX)
        return 0;
    err = http_route_parse(plain, &again, &oci_code);
    ASSERT(err == 0);
    ASSERT(again.kind == route.kind);
    ASSERT(again.by_digest == route.by_digest);
    ASSERT(strcmp(again.repository, route.repository) == 0);
    ASSERT(strcmp(again.reference, route.reference) == 0);
    ASSERT(strcmp(again.ns, route.ns) == 0);
    ASSERT(strcmp(again.query, route.query) == 0);
    ASSERT(strcmp(again.url, route.url) == 0);
    return 0;
}
