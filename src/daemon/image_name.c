/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting an image's name at its marks; see image_name.h. */
#include "image_name.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "registry.h"

#define HUB "docker.io"

static bool names_host(const char *text, size_t bytes)
{
    return memchr(text, '.', bytes) != NULL || memchr(text, ':', bytes) != NULL ||
           (bytes == 9 && memcmp(text, "localhost", 9) == 0);
}

/* Takes the registry from the front. */
static int take_registry(const char **text, size_t *bytes, struct image_name *out)
{
    const char *slash = memchr(*text, '/', *bytes);
    size_t host = slash == NULL ? 0 : (size_t)(slash - *text);
    if (host == 0 || !names_host(*text, host))
        return text_copy(out->registry, sizeof out->registry, HUB);
    if (text_copy_n(out->registry, sizeof out->registry, *text, host) != 0)
        return E_MALFORMED;
    for (char *at = out->registry; *at != '\0'; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at - 'A' + 'a');
    if (!ref_host_valid(out->registry, host))
        return E_MALFORMED;
    *text = slash + 1;
    *bytes -= host + 1;
    return 0;
}

int image_name_parse(const char *text, struct image_name *out)
{
    *out = (struct image_name){.has_digest = false};
    const char *at = strchr(text, '@');
    size_t bytes = at == NULL ? strlen(text) : (size_t)(at - text);
    if (at != NULL && digest_parse(at + 1, strlen(at + 1), &out->digest) != 0)
        return E_MALFORMED;
    out->has_digest = at != NULL;
    if (take_registry(&text, &bytes, out) != 0)
        return E_MALFORMED;
    const char *colon = memchr(text, ':', bytes);
    size_t name = colon == NULL ? bytes : (size_t)(colon - text);
    if (colon != NULL) {
        if (!ref_tag_valid(colon + 1, bytes - name - 1) ||
            text_copy_n(out->tag, sizeof out->tag, colon + 1, bytes - name - 1) != 0)
            return E_MALFORMED;
    } else if (!out->has_digest && text_copy(out->tag, sizeof out->tag, "latest") != 0) {
        return E_MALFORMED;
    }
    if (!ref_repository_valid(text, name))
        return E_MALFORMED;
    bool official = strcmp(out->registry, HUB) == 0 && memchr(text, '/', name) == NULL;
    int written = snprintf(out->repository, sizeof out->repository, "%s%.*s",
                           official ? "library/" : "", (int)name, text);
    return written > 0 && (size_t)written < sizeof out->repository ? 0 : E_MALFORMED;
}
