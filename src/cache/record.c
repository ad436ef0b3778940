/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding of record headers and slots (see record.h). Pure: what a hostile file can
 * do, tests/fuzz/cache_record.c can do without one. */
#include "record.h"

#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "digest.h"
#include "log.h"

#define HEADER_CRC_AT 252
#define SLOT_CRC_AT   188

static const uint8_t magic[8] = {'S', 'H', 'O', 'A', 'L', 'R', 'E', 'C'};

static_assert(HEADER_CRC_AT + 4 == RECORD_HEADER_BYTES, "the checksum ends the header");
static_assert(SLOT_CRC_AT + 4 == RECORD_SLOT_BYTES, "the checksum ends the slot");
static_assert(120 + VOUCHER_SIGNATURE_BYTES == 184, "the fields of a slot follow each other");

static bool all_zero(const uint8_t *bytes, size_t byte_count)
{
    uint8_t seen = 0;
    for (size_t i = 0; i < byte_count; i++)
        seen |= bytes[i];
    return seen == 0;
}

void record_encode_header(const struct record_header *header, uint8_t out[RECORD_HEADER_BYTES])
{
    struct piece_layout layout;
    int err = piece_layout_cut(header->size_bytes, header->cut, &layout);
    ASSERT(err == 0);
    ASSERT(digest_bytes(header->digest.algorithm) > 0);
    memset(out, 0, RECORD_HEADER_BYTES);
    memcpy(out, magic, sizeof magic);
    store_be32(out + 8, RECORD_VERSION);
    store_be32(out + 12, (uint32_t)header->digest.algorithm);
    memcpy(out + 16, header->digest.bytes, DIGEST_BYTES_MAX);
    store_be64(out + 80, header->size_bytes);
    store_be64(out + 88, header->serial);
    store_be32(out + 96, layout.piece_bytes);
    store_be32(out + 100, layout.piece_count);
    store_be32(out + 104, RECORD_SLOT_BYTES);
    store_be32(out + 108, (uint32_t)header->cut);
    store_be32(out + HEADER_CRC_AT, crc32c(out, HEADER_CRC_AT));
}

/* True if the digest field is one of ours: known algorithm, unused bytes zero. */
static bool decode_digest(const uint8_t *bytes, struct digest *out)
{
    uint32_t algorithm = load_be32(bytes + 12);
    if (algorithm != DIGEST_SHA256 && algorithm != DIGEST_SHA512)
        return false;
    *out = (struct digest){.algorithm = (enum digest_algorithm)algorithm};
    size_t used = digest_bytes(out->algorithm);
    memcpy(out->bytes, bytes + 16, used);
    return all_zero(bytes + 16 + used, DIGEST_BYTES_MAX - used);
}

int record_decode_header(const uint8_t *bytes, size_t byte_count, struct record_header *out,
                         struct piece_layout *layout)
{
    if (byte_count < RECORD_HEADER_BYTES)
        return E_TRUNCATED;
    if (memcmp(bytes, magic, sizeof magic) != 0 || load_be32(bytes + 8) != RECORD_VERSION)
        return E_VERSION;
    if (load_be32(bytes + HEADER_CRC_AT) != crc32c(bytes, HEADER_CRC_AT))
        return E_CORRUPT;

    uint32_t cut_number = load_be32(bytes + 108);
    if (cut_number >= PIECE_CUT_COUNT)
        return E_MALFORMED;
    struct record_header header = {.cut = (enum piece_cut)cut_number,
                                   .size_bytes = load_be64(bytes + 80),
                                   .serial = load_be64(bytes + 88)};
    struct piece_layout cut;
    if (!decode_digest(bytes, &header.digest) ||
        piece_layout_cut(header.size_bytes, header.cut, &cut) != 0)
        return E_MALFORMED;
    /* Stored although they follow from the size: a later version that cuts differently must not
     * read today's pieces as its own. */
    if (load_be32(bytes + 96) != cut.piece_bytes || load_be32(bytes + 100) != cut.piece_count ||
        load_be32(bytes + 104) != RECORD_SLOT_BYTES || !all_zero(bytes + 112, HEADER_CRC_AT - 112))
        return E_MALFORMED;
    *out = header;
    *layout = cut;
    return 0;
}

uint64_t record_file_bytes(const struct piece_layout *layout)
{
    return record_slot_offset(layout->piece_count);
}

uint64_t record_slot_offset(uint32_t piece_index)
{
    return RECORD_HEADER_BYTES + (uint64_t)piece_index * RECORD_SLOT_BYTES;
}

void record_encode_slot(const struct record_slot *slot, uint64_t serial,
                        uint8_t out[RECORD_SLOT_BYTES])
{
    ASSERT(slot->state == RECORD_HAVE || slot->state == RECORD_GONE);
    memset(out, 0, RECORD_SLOT_BYTES);
    store_be32(out, (uint32_t)slot->state);
    store_be32(out + 4, slot->voucher.piece_index);
    store_be32(out + 8, slot->voucher.piece_bytes);
    store_be64(out + 16, serial);
    memcpy(out + 24, slot->voucher.signer.bytes, NODE_ID_BYTES);
    memcpy(out + 56, slot->voucher.signer_key.bytes, IDENTITY_KEY_BYTES);
    memcpy(out + 88, slot->voucher.hash.bytes, PIECE_HASH_BYTES);
    memcpy(out + 120, slot->voucher.signature, VOUCHER_SIGNATURE_BYTES);
    store_be32(out + SLOT_CRC_AT, crc32c(out, SLOT_CRC_AT));
}

static bool slot_is_valid(const uint8_t *bytes, uint64_t serial, const struct piece_layout *layout,
                          uint32_t piece_index)
{
    uint32_t state = load_be32(bytes);
    if (state != RECORD_HAVE && state != RECORD_GONE) /* also what a hole reads as: cheap first */
        return false;
    if (load_be32(bytes + SLOT_CRC_AT) != crc32c(bytes, SLOT_CRC_AT))
        return false;
    return load_be32(bytes + 4) == piece_index &&
           load_be32(bytes + 8) == piece_length(layout, piece_index) &&
           load_be64(bytes + 16) == serial && load_be32(bytes + 12) == 0 &&
           load_be32(bytes + 184) == 0;
}

void record_decode_slot(const uint8_t bytes[RECORD_SLOT_BYTES], uint64_t serial,
                        const struct piece_layout *layout, uint32_t piece_index,
                        struct record_slot *out)
{
    *out = (struct record_slot){.state = RECORD_NONE};
    if (!slot_is_valid(bytes, serial, layout, piece_index))
        return;
    out->state = (enum record_state)load_be32(bytes);
    out->voucher.piece_index = piece_index;
    out->voucher.piece_bytes = load_be32(bytes + 8);
    memcpy(out->voucher.signer.bytes, bytes + 24, NODE_ID_BYTES);
    memcpy(out->voucher.signer_key.bytes, bytes + 56, IDENTITY_KEY_BYTES);
    memcpy(out->voucher.hash.bytes, bytes + 88, PIECE_HASH_BYTES);
    memcpy(out->voucher.signature, bytes + 120, VOUCHER_SIGNATURE_BYTES);
}
