/* SPDX-License-Identifier: Apache-2.0 */
/* The fine cut of blobs, and which cut is meant. The plain one is piece_map.c's: apart, as the
 * simulator puts another rule in its place. */
#include "log.h"
#include "piece_map.h"

/* Fine pieces are small beside the 4 KiB to 1 MiB that lazy readers ask for: reads of 188 KiB in
 * the mean touch 1.09 times their bytes in pieces of 16 KiB. More than so many pieces cost memory
 * (32 bytes each where the blob is open) and HAVE pages, so from 2 GiB on they are larger. */
#define FINE_PIECES_MAX (128u * 1024)
/* Leased as one: a read of 1 MiB takes four or five, and the cache's notices tell 32 pieces. */
#define FINE_SEGMENT_BYTES (256u * 1024)

static uint32_t fine_bytes(uint64_t blob_bytes)
{
    uint32_t piece_bytes = PIECE_BYTES_FINE;
    while (piece_bytes < PIECE_BYTES_MAX && blob_bytes > (uint64_t)piece_bytes * FINE_PIECES_MAX)
        piece_bytes *= 2;
    return piece_bytes;
}

int piece_layout_cut(uint64_t blob_bytes, enum piece_cut cut, struct piece_layout *out)
{
    if (cut == PIECE_CUT_PLAIN)
        return piece_layout_of(blob_bytes, out);
    if (cut != PIECE_CUT_FINE)
        return E_INVALID;
    if (blob_bytes > BLOB_BYTES_MAX)
        return E_TOO_LARGE;
    uint32_t piece_bytes = fine_bytes(blob_bytes);
    uint32_t per_segment = piece_bytes < FINE_SEGMENT_BYTES ? FINE_SEGMENT_BYTES / piece_bytes : 1;
    uint32_t pieces = (uint32_t)((blob_bytes + piece_bytes - 1) / piece_bytes);
    ASSERT(pieces <= PIECE_COUNT_MAX);
    *out = (struct piece_layout){
        .blob_bytes = blob_bytes,
        .cut = PIECE_CUT_FINE,
        .piece_bytes = piece_bytes,
        .piece_count = pieces,
        .segment_pieces = per_segment,
        .segment_count = (pieces + per_segment - 1) / per_segment,
    };
    return 0;
}

bool piece_layout_is_coarse(uint64_t blob_bytes)
{
    struct piece_layout plain;
    return piece_layout_of(blob_bytes, &plain) == 0 && plain.piece_bytes > PIECE_BYTES_MIN &&
           plain.piece_bytes > fine_bytes(blob_bytes);
}
