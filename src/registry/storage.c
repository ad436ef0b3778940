/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs of a registry's object storage, as clients hand them over (ACR §6): which entry they belong
 * to, and which blob they name. A place is compared byte for byte: a URL that spells it otherwise
 * is not ours to interpret (ORG-1).
 */
#include "storage.h"

#include <string.h>

/* Bytes of "http://" or "https://"; 0: neither. */
static size_t scheme_bytes(const char *url)
{
    if (strncmp(url, "https://", 8) == 0)
        return 8;
    return strncmp(url, "http://", 7) == 0 ? 7 : 0;
}

bool registry_storage_valid(const char *text)
{
    size_t bytes = strlen(text), scheme = scheme_bytes(text);
    size_t host = strcspn(text + scheme, "/");

    if (scheme == 0 || bytes > REGISTRY_STORAGE_BYTES_MAX || text[bytes - 1] != '/' ||
        !ref_host_valid(text + scheme, host) || ref_has_dot_segment(text + scheme + host))
        return false;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c <= 0x20 || c >= 0x7f || strchr("?#\\", c) != NULL)
            return false;
    }
    return true;
}

size_t storage__place_bytes(const struct registry_entry *entry, const char *url)
{
    for (size_t i = 0; i < REGISTRY_STORAGE_MAX; i++) {
        size_t bytes = strlen(entry->storage[i]);

        if (bytes > 0 && strncmp(url, entry->storage[i], bytes) == 0 &&
            !ref_has_dot_segment(url + bytes - 1))
            return bytes;
    }
    return 0;
}

/* `rest` is "<algorithm>/<2 hex>/<hex>/data", a query may follow. */
static bool digest_of_path(const char *rest, const char *algorithm, struct digest *out)
{
    char text[DIGEST_TEXT_BYTES];
    size_t name = strlen(algorithm);

    if (strncmp(rest, algorithm, name) != 0 || rest[name] != '/')
        return false;
    const char *prefix = rest + name + 1;
    if (strcspn(prefix, "/") != 2 || prefix[2] != '/')
        return false;
    const char *hex = prefix + 3;
    size_t hex_bytes = strcspn(hex, "/?");
    if (strncmp(hex, prefix, 2) != 0 || strncmp(hex + hex_bytes, "/data", 5) != 0 ||
        (hex[hex_bytes + 5] != '\0' && hex[hex_bytes + 5] != '?') ||
        name + 1 + hex_bytes >= sizeof text)
        return false;
    memcpy(text, algorithm, name);
    text[name] = ':';
    memcpy(text + name + 1, hex, hex_bytes);
    return digest_parse(text, name + 1 + hex_bytes, out) == 0;
}

bool registry_storage_digest(const struct registry_entry *entry, const char *url,
                             struct digest *out)
{
    size_t place = storage__place_bytes(entry, url);

    if (place == 0)
        return false;
    return digest_of_path(url + place, "sha256", out) || digest_of_path(url + place, "sha512", out);
}
