/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What if pieces were of another size? Agents cut a blob by its size alone (src/base/piece_map.c).
 * Where a scenario asks for a size of its own, shoal-sim is linked so that this stands before that
 * rule, for all of its cores alike: piece_layout_of is wrapped by the linker. Programs that are not
 * linked so keep the rule.
 */
#include "piece_size.h"

#include <stddef.h>

#include "limits.h"

/* The linker's names for the function and for what stands in its place. */
int real_layout_of(uint64_t blob_bytes, struct piece_layout *out) __asm__("__real_piece_layout_of")
    __attribute__((weak));
int wrapped_layout_of(uint64_t blob_bytes,
                      struct piece_layout *out) __asm__("__wrap_piece_layout_of");

/* Of this process: a simulation has one scenario. */
static uint32_t wanted_bytes;

void piece_size_set(uint32_t piece_bytes)
{
    wanted_bytes = piece_bytes;
}

int wrapped_layout_of(uint64_t blob_bytes, struct piece_layout *out)
{
    struct piece_layout layout;
    int err = real_layout_of == NULL ? E_INTERNAL : real_layout_of(blob_bytes, &layout);
    if (err != 0)
        return err;
    uint32_t piece_bytes = wanted_bytes > 0 ? wanted_bytes : layout.piece_bytes;
    uint32_t segment_bytes = layout.segment_pieces * layout.piece_bytes;
    while (blob_bytes / piece_bytes >= PIECE_COUNT_MAX && piece_bytes < PIECE_BYTES_MAX)
        piece_bytes *= 2;
    segment_bytes = segment_bytes > piece_bytes ? segment_bytes : piece_bytes;
    layout.piece_bytes = piece_bytes;
    layout.piece_count = (uint32_t)((blob_bytes + piece_bytes - 1) / piece_bytes);
    layout.segment_pieces = segment_bytes / piece_bytes;
    layout.segment_count = (layout.piece_count + layout.segment_pieces - 1) / layout.segment_pieces;
    *out = layout;
    return 0;
}
