/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What travels in the records of a session (bulk data between two nodes). A frame is one record
 * that holds a header, followed by `body_bytes` raw bytes in the next records, each at most
 * RECORD_BYTES_MAX and none reaching into the next frame. All integers are big-endian.
 *
 *   offset  bytes
 *        0      1  kind
 *        1      1  flags
 *        2      2  header_bytes: length of the whole header = of its record; newer versions may add
 *                  fields at the end, which older ones ignore
 *        4      4  body_bytes, at most PIECE_BYTES_MAX
 *   PIECE only, from here (PIECE_FRAME_BYTES in all):
 *        8      8  upload id of the sender, for its log lines
 *       16     32  blob key
 *       48      4  piece index
 *       52     32  voucher: signer's node id
 *       84     32  voucher: signer's identity key
 *      116     32  voucher: piece hash
 *      148     64  voucher: signature
 *
 * Without flag VOUCHED the voucher's fields are zero. The voucher's index and length are the
 * piece's own. An unknown kind is skipped together with its body (PEER-10).
 */
#ifndef SHOAL_DAEMON_PIECE_FRAME_H
#define SHOAL_DAEMON_PIECE_FRAME_H

#include "err.h"
#include "limits.h"
#include "types.h"

#define FRAME_COMMON_BYTES     8
#define PIECE_FRAME_BYTES      212
#define FRAME_HEADER_BYTES_MAX 1024

enum frame_kind {
    FRAME_PIECE = 1, /* a piece follows */
    FRAME_BYE,       /* the sender starts no further frame on this connection */
};
#define FRAME_FLAG_VOUCHED 1u

struct piece_frame {
    uint8_t kind; /* enum frame_kind, or a newer one */
    bool vouched;
    uint32_t body_bytes;
    uint64_t upload_id;
    struct blob_key key;
    uint32_t piece;
    struct voucher
        voucher; /* piece_index and piece_bytes filled in; all else zero unless vouched */
};

/* Writes the header of a PIECE or BYE. Returns its length. BYE has no body. */
size_t frame_encode(const struct piece_frame *frame, uint8_t out[PIECE_FRAME_BYTES]);
/*
 * Reads the header that one record holds. 0 with *out (unknown kinds: only kind and body_bytes);
 * E_TRUNCATED (shorter than its kind needs), E_MALFORMED (header_bytes is not the record's length,
 * voucher fields without the flag, empty piece, BYE with a body), E_TOO_LARGE (body or header).
 */
MUST_USE int frame_decode(const uint8_t *bytes, size_t byte_count, struct piece_frame *out);

#endif
