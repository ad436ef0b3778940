/* SPDX-License-Identifier: Apache-2.0 */
/* Digest text: what parses is written back byte for byte, nothing else parses (ORG-8). */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct digest digest;
    if (digest_parse((const char *)data, size, &digest) == 0) {
        char text[DIGEST_TEXT_BYTES];
        (void)digest_text(&digest, text);
        ASSERT(strlen(text) == size);
        ASSERT(memcmp(text, data, size) == 0);
    }
    /* The address parser takes terminated text. */
    char text[128];
    struct peer_addr addr, again;
    if (text_copy_n(text, sizeof text, (const char *)data, size) == 0 &&
        peer_addr_parse(text, 1, &addr) == 0) {
        char out[PEER_ADDR_TEXT_BYTES];
        int err = peer_addr_parse(peer_addr_text(&addr, out), 2, &again);
        ASSERT(err == 0);
        ASSERT(peer_addr_equal(&addr, &again));
    }
    return 0;
}
