/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder of gossip messages: never trips, and what it accepts survives encode and decode. */
#include <stdlib.h>
#include <string.h>

#include "wire_gossip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct wire_gossip first, second;
    static uint8_t canonical[MESSAGE_BYTES_MAX], again[MESSAGE_BYTES_MAX];
    size_t canonical_bytes, again_bytes;
    memset(&first, 0, sizeof first);
    if (wire_gossip_decode(data, bytes, &first) != 0)
        return 0;
    int err = wire_gossip_encode(&first, 0, canonical, sizeof canonical, &canonical_bytes);
    if (err != 0) {
        if (bytes <= MESSAGE_BYTES_MAX)
            abort(); /* our encoding is the shortest there is */
        return 0;
    }
    memset(&second, 0, sizeof second);
    if (wire_gossip_decode(canonical, canonical_bytes, &second) != 0)
        abort();
    if (wire_gossip_encode(&second, 0, again, sizeof again, &again_bytes) != 0)
        abort();
    if (again_bytes != canonical_bytes || memcmp(again, canonical, again_bytes) != 0)
        abort();
    return 0;
}
