/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Platforms of an index (OCI image-spec "image index"): which child a node of this kind wants.
 * Runtimes weigh variants against each other; here the index's own order decides among those that
 * fit, which is how it is meant to be written.
 */
#include "registry.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "json_bounded.h"
#include "limits.h"

static bool part_valid(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && strchr("._-", c) == NULL)
            return false;
    }
    return bytes > 0 && bytes < PLATFORM_PART_BYTES;
}

int platform_parse(const char *text, struct platform *out)
{
    char *const parts[] = {out->os, out->architecture, out->variant};
    *out = (struct platform){.os = ""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t bytes = strcspn(text, "/");
        if (!part_valid(text, bytes) ||
            text_copy_n(parts[i], PLATFORM_PART_BYTES, text, bytes) != 0)
            return E_MALFORMED;
        text += bytes;
        if (*text == '\0')
            return i == 0 ? E_MALFORMED : 0;
        text++;
    }
    return E_MALFORMED;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

static bool fits(const json_t *child, const struct platform *wanted)
{
    const json_t *platform = json_object_get(child, "platform");
    const char *os = text_of(platform, "os");
    if (wanted == NULL) /* attestations stand there as unknown/unknown */
        return platform == NULL || strcmp(os, "unknown") != 0;
    return strcmp(os, wanted->os) == 0 &&
           strcmp(text_of(platform, "architecture"), wanted->architecture) == 0 &&
           (wanted->variant[0] == '\0' ||
            strcmp(text_of(platform, "variant"), wanted->variant) == 0);
}

static int child_read(const json_t *child, struct manifest_descriptor *out)
{
    const json_t *digest = json_object_get(child, "digest");
    const json_t *size = json_object_get(child, "size");
    if (!json_is_string(digest) || !json_is_integer(size) || json_integer_value(size) < 0)
        return E_MALFORMED;
    *out = (struct manifest_descriptor){.is_manifest = true,
                                        .size_bytes = (uint64_t)json_integer_value(size)};
    return digest_parse(json_string_value(digest), json_string_length(digest), &out->digest);
}

static int choose(const json_t *manifests, const struct platform *wanted,
                  struct manifest_descriptor *out, size_t out_max, size_t *count)
{
    size_t used = 0, most = wanted == NULL ? SIZE_MAX : 1;
    for (size_t i = 0; i < json_array_size(manifests) && used < most; i++) {
        const json_t *child = json_array_get(manifests, i);
        if (!fits(child, wanted))
            continue;
        if (used == out_max)
            return E_TOO_LARGE;
        int err = child_read(child, &out[used]);
        if (err != 0)
            return err;
        used++;
    }
    *count = used;
    return used == 0 ? E_NOT_FOUND : 0;
}

int index_choose(const char *json, size_t json_bytes, const struct platform *wanted,
                 struct manifest_descriptor *out, size_t out_max, size_t *count)
{
    json_t *root;
    int err = json__load(json, json_bytes, MANIFEST_BYTES_MAX, &root);
    if (err != 0)
        return err;
    const json_t *manifests = json_object_get(root, "manifests");
    err = json_is_array(manifests) ? choose(manifests, wanted, out, out_max, count) : E_UNSUPPORTED;
    json_decref(root);
    return err;
}

static size_t platform_put(const json_t *platform, bool first, char *out, size_t room)
{
    const char *variant = text_of(platform, "variant");
    int bytes =
        snprintf(out, room, "%s%.31s/%.31s%s%.31s", first ? "" : ", ", text_of(platform, "os"),
                 text_of(platform, "architecture"), variant[0] == '\0' ? "" : "/", variant);
    return bytes > 0 && (size_t)bytes < room ? (size_t)bytes : 0;
}

void index_platforms(const char *json, size_t json_bytes, char *out, size_t out_bytes)
{
    json_t *root;
    size_t used = 0;
    out[0] = '\0';
    if (json__load(json, json_bytes, MANIFEST_BYTES_MAX, &root) != 0)
        return;
    const json_t *manifests = json_object_get(root, "manifests");
    for (size_t i = 0; i < json_array_size(manifests); i++) {
        const json_t *child = json_array_get(manifests, i);
        const json_t *platform = json_object_get(child, "platform");
        if (platform == NULL || !fits(child, NULL))
            continue;
        size_t put = platform_put(platform, used == 0, out + used, out_bytes - used);
        if (put == 0)
            break;
        used += put;
    }
    out[used] = '\0'; /* without what did not fit */
    json_decref(root);
}
