/* SPDX-License-Identifier: Apache-2.0 */
/* Frame headers from any bytes: never a crash, and what is accepted encodes to the same bytes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../src/daemon/piece_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct piece_frame frame;
    uint8_t again[PIECE_FRAME_BYTES];
    if (frame_decode(data, size, &frame) != 0)
        return 0;
    if (frame.kind != FRAME_PIECE && frame.kind != FRAME_BYE)
        return 0;
    size_t bytes = frame_encode(&frame, again);
    if (bytes > size)
        __builtin_trap();
    /* Unknown flags and later fields are dropped; everything else must come back. */
    for (size_t i = 4; i < bytes; i++)
        if (again[i] != data[i])
            __builtin_trap();
    struct piece_frame back;
    if (frame_decode(again, bytes, &back) != 0 || memcmp(&back, &frame, sizeof back) != 0)
        __builtin_trap();
    return 0;
}
