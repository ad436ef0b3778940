/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The on-disk record of one blob: bytes only, no files. A record is one header of
 * RECORD_HEADER_BYTES and then one slot of RECORD_SLOT_BYTES per piece, all integers big-endian.
 * Header and slots carry their own CRC-32C, so that a piece is recorded by one small write after
 * its data, and a torn write of a slot means "this piece is not there" and nothing worse (DSK-2,
 * D-6). A slot repeats the record's serial and its own index: a slot out of place, or left over
 * from another record, is not valid either.
 *
 *   header  0 magic "SHOALREC"   8 version     12 algorithm   16 digest, 64 bytes
 *          80 blob bytes, u64   88 serial, u64 96 piece bytes 100 piece count  104 slot bytes
 *         108 cut (piece_map.h) 112 zero     252 CRC of the 252 bytes before
 *   slot    0 state              4 piece index  8 piece length 12 zero        16 serial, u64
 *          24 signer            56 signer key  88 piece hash  120 signature  184 zero  188 CRC
 *
 * Decoders take nothing but what the encoders write: unknown versions, spare bytes that are not
 * zero and layouts other than today's are refused, and the caller starts clean. The cut was a spare
 * field once: a version that does not know it refuses all but the plain one, whose number is zero.
 */
#ifndef SHOAL_CACHE_RECORD_H
#define SHOAL_CACHE_RECORD_H

#include "err.h"
#include "piece_map.h"
#include "types.h"

#define RECORD_VERSION      1
#define RECORD_HEADER_BYTES 256
#define RECORD_SLOT_BYTES   192

struct record_header {
    struct digest digest;
    enum piece_cut cut;
    uint64_t size_bytes;
    uint64_t serial; /* of this record among all of the directory; also part of its file name */
};

enum record_state {
    RECORD_NONE = 0, /* never written, torn or damaged: the piece is not there */
    RECORD_HAVE,     /* the bytes are in the data file */
    RECORD_GONE,     /* evicted; the hash stays known, so that a sealed blob takes no other bytes */
};

struct record_slot {
    enum record_state state;
    struct voucher voucher; /* piece_index and piece_bytes are the slot's own */
};

/* Writes RECORD_HEADER_BYTES. The digest must be SHA-256 or SHA-512, the size within
 * BLOB_BYTES_MAX, and the cut one there is. */
void record_encode_header(const struct record_header *header, uint8_t out[RECORD_HEADER_BYTES]);

/*
 * Reads a header and the layout that its size and cut give. 0; E_TRUNCATED (fewer bytes than a
 * header), E_VERSION (another format), E_CORRUPT (checksum), E_MALFORMED (fields that no writer of
 * ours makes).
 */
MUST_USE int record_decode_header(const uint8_t *bytes, size_t byte_count,
                                  struct record_header *out, struct piece_layout *layout);

/* Bytes of a whole record file. */
uint64_t record_file_bytes(const struct piece_layout *layout);
/* Where the slot of a piece begins in the record file. */
uint64_t record_slot_offset(uint32_t piece_index);

/* Writes RECORD_SLOT_BYTES. The voucher's index and length become part of it as they are; state
 * must not be RECORD_NONE. */
void record_encode_slot(const struct record_slot *slot, uint64_t serial,
                        uint8_t out[RECORD_SLOT_BYTES]);

/*
 * Reads the slot of one piece. Anything that is not a whole slot of this record, this piece and
 * the length that the layout gives it comes back as RECORD_NONE with the rest zero.
 */
void record_decode_slot(const uint8_t bytes[RECORD_SLOT_BYTES], uint64_t serial,
                        const struct piece_layout *layout, uint32_t piece_index,
                        struct record_slot *out);

#endif
