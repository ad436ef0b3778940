/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of a real image, from its manifest as `skopeo inspect --raw` prints it. */
#ifndef SHOAL_SIM_IMAGE_H
#define SHOAL_SIM_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Config and layers: overlay file systems take no more than 128 layers. */
#define IMAGE_LAYERS_MAX     128
#define IMAGE_MANIFEST_BYTES (4 * 1024 * 1024) /* ORG-7 */

/*
 * Sizes of the blobs a runtime pulls: config first, then the layers, each digest once. OCI and
 * Docker schema 2 manifests. 0; E_CONFIG with `why` (at least 256 bytes) saying what is wrong and
 * what to do: no JSON, an index of platforms, schema 1, a size that is missing or absurd, more than
 * IMAGE_LAYERS_MAX blobs.
 */
MUST_USE int image_of_manifest(const char *json, size_t json_bytes,
                               uint64_t layers[IMAGE_LAYERS_MAX], uint32_t *layer_count, char *why,
                               size_t why_bytes);

#endif
