/* SPDX-License-Identifier: Apache-2.0 */
/* Manifest and index JSON (ORG-7): bounded, and what is accepted has valid digests and sizes. */
#include <string.h>

#include "log.h"
#include "registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct platform platform = {.os = "linux", .architecture = "amd64"};
    static struct manifest_descriptor out[64];
    size_t count = 0;
    char text[80];

    index_platforms((const char *)data, size, text, sizeof text);
    ASSERT(strlen(text) < sizeof text);
    if (index_choose((const char *)data, size, &platform, out, 64, &count) == 0)
        ASSERT(count == 1);
    if (index_choose((const char *)data, size, NULL, out, 64, &count) == 0)
        ASSERT(count > 0 && count <= 64);
    if (manifest_parse((const char *)data, size, out, 64, &count) != 0)
        return 0;
    ASSERT(count <= 64);
    for (size_t i = 0; i < count; i++) {
        ASSERT(digest_bytes(out[i].digest.algorithm) != 0);
        ASSERT(out[i].size_bytes <= BLOB_BYTES_MAX);
    }
    return 0;
}
