/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors of OCI and Docker v2s2 manifests and indexes (OCI image-spec "manifest", "image
 * index"). Only digests and sizes are read; `urls` are seen to be there, but never followed and
 * layers never opened (INT-10). A document that is both manifest and index, or repeats a key, means
 * different things to different readers and is refused.
 */
#include "registry.h"

#include <string.h>

#include "json_bounded.h"
#include "limits.h"

struct collector {
    struct manifest_descriptor *out;
    size_t out_max;
    size_t count;
};

enum descriptor_role {
    ROLE_OTHER,
    ROLE_MANIFEST,
    ROLE_LAYER,
};

static int descriptor_add(struct collector *to, const json_t *descriptor, enum descriptor_role role)
{
    const json_t *digest = json_object_get(descriptor, "digest");
    const json_t *size = json_object_get(descriptor, "size");
    struct manifest_descriptor parsed = {.is_manifest = role == ROLE_MANIFEST};
    int err;

    if (!json_is_string(digest) || !json_is_integer(size))
        return E_MALFORMED;
    err = digest_parse(json_string_value(digest), json_string_length(digest), &parsed.digest);
    if (err != 0)
        return err;
    if (json_integer_value(size) < 0)
        return E_MALFORMED;
    parsed.size_bytes = (uint64_t)json_integer_value(size);
    parsed.is_layer = role == ROLE_LAYER && json_object_get(descriptor, "urls") == NULL;
    if (parsed.size_bytes > BLOB_BYTES_MAX || to->count >= to->out_max)
        return E_TOO_LARGE;
    to->out[to->count++] = parsed;
    return 0;
}

static int array_add(struct collector *to, const json_t *array, enum descriptor_role role)
{
    size_t count = json_array_size(array);

    if (!json_is_array(array))
        return E_MALFORMED;
    for (size_t i = 0; i < count; i++) {
        int err = descriptor_add(to, json_array_get(array, i), role);

        if (err != 0)
            return err;
    }
    return 0;
}

static int document_read(const json_t *root, struct collector *to)
{
    const json_t *version = json_object_get(root, "schemaVersion");
    const json_t *manifests = json_object_get(root, "manifests");
    const json_t *config = json_object_get(root, "config");
    const json_t *layers = json_object_get(root, "layers");
    const json_t *blobs = json_object_get(root, "blobs"); /* OCI 1.1 candidates' artifact */
    int err = 0;

    if (!json_is_integer(version) || json_integer_value(version) != 2)
        return E_MALFORMED;
    if (manifests != NULL) {
        if (config != NULL || layers != NULL || blobs != NULL)
            return E_MALFORMED;
        return array_add(to, manifests, ROLE_MANIFEST);
    }
    if (config == NULL && blobs == NULL)
        return E_MALFORMED;
    if (config != NULL)
        err = descriptor_add(to, config, ROLE_OTHER);
    if (err == 0 && layers != NULL)
        err = array_add(to, layers, ROLE_LAYER);
    if (err == 0 && blobs != NULL)
        err = array_add(to, blobs, ROLE_OTHER);
    return err;
}

/* type "/" subtype of RFC 6838 §4.2, without parameters: what may stand in a header. */
static bool media_type_valid(const char *text)
{
    size_t slashes = 0, bytes = strlen(text);

    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        slashes += c == '/';
        if (!letter && strchr("/!#$&-^_.+", c) == NULL)
            return false;
    }
    return slashes == 1 && text[0] != '/' && text[bytes - 1] != '/';
}

/* NULL: there is no telling. */
static const char *type_of(const json_t *root)
{
    const json_t *type = json_object_get(root, "mediaType");

    if (type != NULL)
        return json_string_value(type);
    if (json_is_array(json_object_get(root, "manifests")))
        return "application/vnd.oci.image.index.v1+json";
    if (json_is_object(json_object_get(root, "config")))
        return "application/vnd.oci.image.manifest.v1+json";
    return NULL;
}

int manifest_media_type(const char *json, size_t json_bytes, char *out, size_t out_bytes)
{
    json_t *root;
    const char *type;
    int err = json__load(json, json_bytes, MANIFEST_BYTES_MAX, &root);

    if (err != 0)
        return err;
    type = type_of(root);
    err = type == NULL || !media_type_valid(type) ? E_MALFORMED : 0;
    if (err == 0 && strlen(type) >= out_bytes)
        err = E_TOO_LARGE;
    if (err == 0)
        memcpy(out, type, strlen(type) + 1);
    json_decref(root);
    return err;
}

int manifest_parse(const char *json, size_t json_bytes, struct manifest_descriptor *out,
                   size_t out_max, size_t *count)
{
    struct collector collector = {out, out_max, 0};
    json_t *root;
    int err;

    err = json__load(json, json_bytes, MANIFEST_BYTES_MAX, &root);
    if (err != 0)
        return err;
    err = document_read(root, &collector);
    json_decref(root);
    if (err == 0)
        *count = collector.count;
    return err;
}
