/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bitfields and the cutting of a blob into pieces and segments. The layout follows from the blob's
 * size alone, so all nodes agree without talking (ALGORITHMS §3.4). Used by transfer and cache.
 */
#ifndef SHOAL_PIECE_MAP_H
#define SHOAL_PIECE_MAP_H

#include "env.h"
#include "err.h"
#include "log.h"
#include "types.h"

/* Bits in big-endian order within a byte, as BitTorrent's BEP 3 has them; spare bits are zero. */
struct bitfield {
    uint8_t *bits; /* owned; NULL while bit_count is 0 */
    uint32_t bit_count;
    uint32_t set_count; /* kept up to date by the functions below */
};

/* All bits clear. 0 or E_NO_MEMORY. `env` supplies memory and must be the same for close. */
MUST_USE int bitfield_init(struct bitfield *field, const struct env *env, uint32_t bit_count);
void bitfield_close(struct bitfield *field, const struct env *env);
/* Inline: cores ask it for many bits per message. */
static inline bool bitfield_get(const struct bitfield *field, uint32_t index)
{
    ASSERT(index < field->bit_count);
    return (field->bits[index / 8] & 0x80u >> index % 8) != 0;
}
/* True if the bit changed. */
bool bitfield_set(struct bitfield *field, uint32_t index);
bool bitfield_clear(struct bitfield *field, uint32_t index);
bool bitfield_full(const struct bitfield *field);
/* First set (or clear) bit at or after `from`; bit_count if there is none. */
uint32_t bitfield_next_set(const struct bitfield *field, uint32_t from);
uint32_t bitfield_next_clear(const struct bitfield *field, uint32_t from);
/* First bit at or after `from` set in `field` and clear in `other`, which is as long; bit_count if
 * there is none. */
uint32_t bitfield_next_only(const struct bitfield *field, const struct bitfield *other,
                            uint32_t from);
/* ORs whole bytes received from a peer into [first_bit, first_bit + 8*byte_count); spare bits are
   ignored. first_bit must be a multiple of 8: E_INVALID; beyond the end: E_TOO_LARGE. `field`
   unchanged on error. */
MUST_USE int bitfield_merge(struct bitfield *field, uint32_t first_bit, const uint8_t *bytes,
                            size_t byte_count);

/*
 * How a blob is cut. Whole layers are pulled in plain pieces. Whoever reads a few KiB here and
 * there would bring in a plain piece for each: such readers know the same blob under another key
 * (blob_key_cut), cut into fine pieces. To all of the mesh these are two blobs. The numbers are
 * written to disk.
 */
enum piece_cut {
    PIECE_CUT_PLAIN = 0,
    PIECE_CUT_FINE = 1,
    PIECE_CUT_COUNT,
};

struct piece_layout {
    uint64_t blob_bytes;
    enum piece_cut cut;
    uint32_t piece_bytes;    /* power of two up to PIECE_BYTES_MAX, from PIECE_BYTES_MIN on if
                                plain, from PIECE_BYTES_FINE on if fine */
    uint32_t piece_count;    /* 0 for an empty blob */
    uint32_t segment_pieces; /* pieces leased to an origin fetcher as one */
    uint32_t segment_count;
};

/* The plain cut. 0, or E_TOO_LARGE over BLOB_BYTES_MAX. */
MUST_USE int piece_layout_of(uint64_t blob_bytes, struct piece_layout *out);
/* Either cut. 0, E_TOO_LARGE as above, or E_INVALID (no such cut). */
MUST_USE int piece_layout_cut(uint64_t blob_bytes, enum piece_cut cut, struct piece_layout *out);
/* Are plain pieces of such a blob so large that scattered small reads are worth a fine cut? Not
 * under 64 MiB, where plain pieces are as small as they get and soon all wanted, and not where both
 * cuts are the same. */
bool piece_layout_is_coarse(uint64_t blob_bytes);
/* Bytes of one piece: piece_bytes, less for the last. */
uint32_t piece_length(const struct piece_layout *layout, uint32_t piece_index);
uint64_t piece_offset(const struct piece_layout *layout, uint32_t piece_index);
uint32_t piece_at(const struct piece_layout *layout, uint64_t offset);
uint32_t segment_of(const struct piece_layout *layout, uint32_t piece_index);
/* First piece of a segment and how many it has. */
uint32_t segment_first(const struct piece_layout *layout, uint32_t segment_index);
uint32_t segment_length(const struct piece_layout *layout, uint32_t segment_index);

#endif
