/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests (OCI image-spec "Image Manifest", Docker schema 2) read for their blobs' sizes. */
#include "image.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "limits.h"

struct draft {
    uint64_t *layers;
    uint32_t count;
    const char *digests[IMAGE_LAYERS_MAX]; /* borrowed from the JSON */
    char *why;
    size_t why_bytes;
};

static int fail(struct draft *draft, const char *what)
{
    (void)snprintf(draft->why, draft->why_bytes, "%s", what);
    return E_CONFIG;
}

static bool known(const struct draft *draft, const char *digest)
{
    for (uint32_t i = 0; i < draft->count; i++)
        if (strcmp(draft->digests[i], digest) == 0)
            return true;
    return false;
}

static int add(struct draft *draft, json_t *descriptor)
{
    json_t *size = json_object_get(descriptor, "size");
    const char *digest = json_string_value(json_object_get(descriptor, "digest"));
    if (digest == NULL || !json_is_integer(size))
        return fail(draft, "a descriptor without digest or size; is this an image manifest?");
    json_int_t bytes = json_integer_value(size);
    if (bytes < 0 || (uint64_t)bytes > BLOB_BYTES_MAX)
        return fail(draft, "a layer's size is negative or over the limit of a blob");
    if (bytes == 0 || known(draft, digest))
        return 0; /* nothing to pull, or pulled once for all */
    if (draft->count == IMAGE_LAYERS_MAX)
        return fail(draft, "more than 128 blobs; give image.layers instead and merge small ones");
    draft->digests[draft->count] = digest;
    draft->layers[draft->count++] = (uint64_t)bytes;
    return 0;
}

static int read_manifest(struct draft *draft, json_t *root)
{
    json_t *layers = json_object_get(root, "layers");
    json_t *config = json_object_get(root, "config");
    size_t index;
    json_t *layer;
    int err = 0;
    if (json_object_get(root, "manifests") != NULL)
        return fail(draft, "this is an index of several platforms; ask for one of them: skopeo "
                           "inspect --raw docker://NAME@DIGEST with a digest listed in it");
    if (json_object_get(root, "fsLayers") != NULL)
        return fail(draft, "Docker schema 1 has no sizes; convert the image, or give image.layers");
    if (!json_is_array(layers))
        return fail(draft, "no layers; is this what `skopeo inspect --raw` prints?");
    if (config != NULL)
        err = add(draft, config);
    json_array_foreach(layers, index, layer)
    {
        if (err == 0)
            err = add(draft, layer);
    }
    if (err == 0 && draft->count == 0)
        err = fail(draft, "an image without a single byte");
    return err;
}

int image_of_manifest(const char *json, size_t json_bytes, uint64_t layers[IMAGE_LAYERS_MAX],
                      uint32_t *layer_count, char *why, size_t why_bytes)
{
    uint64_t found[IMAGE_LAYERS_MAX];
    struct draft draft = {.layers = found, .why = why, .why_bytes = why_bytes};
    json_error_t problem;
    json_t *root = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL) {
        (void)snprintf(why, why_bytes, "not valid JSON: line %d: %s", problem.line, problem.text);
        return E_CONFIG;
    }
    int err = read_manifest(&draft, root);
    if (err == 0) {
        memcpy(layers, found, draft.count * sizeof layers[0]);
        *layer_count = draft.count;
    }
    json_decref(root);
    return err;
}
