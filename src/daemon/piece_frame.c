/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding of frame headers; the layout is in piece_frame.h. */
#include "piece_frame.h"

#include <string.h>

#include "bytes.h"
#include "log.h"

enum {
    AT_KIND = 0,
    AT_FLAGS = 1,
    AT_HEADER_BYTES = 2,
    AT_BODY_BYTES = 4,
    AT_UPLOAD_ID = 8,
    AT_KEY = 16,
    AT_PIECE = 48,
    AT_SIGNER = 52,
    AT_SIGNER_KEY = 84,
    AT_HASH = 116,
    AT_SIGNATURE = 148,
};
static_assert(AT_SIGNATURE + VOUCHER_SIGNATURE_BYTES == PIECE_FRAME_BYTES, "layout is complete");

size_t frame_encode(const struct piece_frame *frame, uint8_t out[PIECE_FRAME_BYTES])
{
    ASSERT(frame->kind == FRAME_PIECE || frame->kind == FRAME_BYE);
    ASSERT(frame->body_bytes <= PIECE_BYTES_MAX);
    bool piece = frame->kind == FRAME_PIECE;
    size_t header_bytes = piece ? PIECE_FRAME_BYTES : FRAME_COMMON_BYTES;
    memset(out, 0, PIECE_FRAME_BYTES);
    out[AT_KIND] = frame->kind;
    out[AT_FLAGS] = piece && frame->vouched ? FRAME_FLAG_VOUCHED : 0;
    store_be16(out + AT_HEADER_BYTES, (uint16_t)header_bytes);
    if (!piece)
        return header_bytes;
    ASSERT(frame->body_bytes > 0);
    store_be32(out + AT_BODY_BYTES, frame->body_bytes);
    store_be64(out + AT_UPLOAD_ID, frame->upload_id);
    memcpy(out + AT_KEY, frame->key.bytes, BLOB_KEY_BYTES);
    store_be32(out + AT_PIECE, frame->piece);
    if (!frame->vouched)
        return header_bytes;
    memcpy(out + AT_SIGNER, frame->voucher.signer.bytes, NODE_ID_BYTES);
    memcpy(out + AT_SIGNER_KEY, frame->voucher.signer_key.bytes, IDENTITY_KEY_BYTES);
    memcpy(out + AT_HASH, frame->voucher.hash.bytes, PIECE_HASH_BYTES);
    memcpy(out + AT_SIGNATURE, frame->voucher.signature, VOUCHER_SIGNATURE_BYTES);
    return header_bytes;
}

static bool all_zero(const uint8_t *bytes, size_t byte_count)
{
    uint8_t any = 0;
    for (size_t i = 0; i < byte_count; i++)
        any |= bytes[i];
    return any == 0;
}

static int piece_decode(const uint8_t *bytes, size_t byte_count, struct piece_frame *out)
{
    if (byte_count < PIECE_FRAME_BYTES)
        return E_TRUNCATED;
    if (out->body_bytes == 0)
        return E_MALFORMED;
    out->vouched = (bytes[AT_FLAGS] & FRAME_FLAG_VOUCHED) != 0;
    if (!out->vouched && !all_zero(bytes + AT_SIGNER, PIECE_FRAME_BYTES - AT_SIGNER))
        return E_MALFORMED;
    out->upload_id = load_be64(bytes + AT_UPLOAD_ID);
    memcpy(out->key.bytes, bytes + AT_KEY, BLOB_KEY_BYTES);
    out->piece = load_be32(bytes + AT_PIECE);
    memcpy(out->voucher.signer.bytes, bytes + AT_SIGNER, NODE_ID_BYTES);
    memcpy(out->voucher.signer_key.bytes, bytes + AT_SIGNER_KEY, IDENTITY_KEY_BYTES);
    memcpy(out->voucher.hash.bytes, bytes + AT_HASH, PIECE_HASH_BYTES);
    memcpy(out->voucher.signature, bytes + AT_SIGNATURE, VOUCHER_SIGNATURE_BYTES);
    out->voucher.piece_index = out->piece;
    out->voucher.piece_bytes = out->body_bytes;
    return 0;
}

int frame_decode(const uint8_t *bytes, size_t byte_count, struct piece_frame *out)
{
    struct piece_frame frame;
    int err = 0;
    memset(&frame, 0, sizeof frame);
    if (byte_count < FRAME_COMMON_BYTES)
        return E_TRUNCATED;
    if (byte_count > FRAME_HEADER_BYTES_MAX)
        return E_TOO_LARGE;
    if (load_be16(bytes + AT_HEADER_BYTES) != byte_count)
        return E_MALFORMED;
    frame.kind = bytes[AT_KIND];
    frame.body_bytes = load_be32(bytes + AT_BODY_BYTES);
    if (frame.body_bytes > PIECE_BYTES_MAX)
        return E_TOO_LARGE;
    if (frame.kind == FRAME_PIECE)
        err = piece_decode(bytes, byte_count, &frame);
    else if (frame.kind == 0 || (frame.kind == FRAME_BYE && frame.body_bytes != 0))
        err = E_MALFORMED;
    if (err == 0)
        *out = frame;
    return err;
}
