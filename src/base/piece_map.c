/* SPDX-License-Identifier: Apache-2.0 */
/* Bitfields (BEP 3 order) and the layout of blobs in pieces and segments (ALGORITHMS §3.4). */
#include "piece_map.h"

#include <string.h>

#include "bytes.h"
#include "log.h"

/* A piece is at most 1/256 of its blob: more than 1 % of the transfer time per hop of the pipeline
 * hurts, and half the size doubles the control bytes (ALGORITHMS §3.4). Small blobs are cut
 * down to 128 KiB: 16 nodes behind a registry as slow as they are pull 64 MiB in 1.18 times the
 * bound instead of 1.25 with 256 KiB; 64 KiB give no more, and control bytes above 1 %. */
#define PIECES_WANTED 256
/* Of a large blob they are 1 MiB, as long as one message tells what a node has of them: 16 to 32
 * share a node's link at a time, so each takes so many times as long as the link alone would, and
 * what has just begun gives nothing on until then (100 nodes at 10 Gbit/s, 2 GiB: p50 1.105, last
 * 1.35 with 4 MiB, 1.094 and 1.26 with 2 MiB, 1.091 and 1.24 with 1 MiB, 1.115 and 1.25 with 512
 * KiB). */
#define PIECE_BYTES_LARGE (1024 * 1024)

/* What one origin lease covers at least: a range request costs a round trip and some 10 ms to its
 * first byte, which 1 MiB (8 ms at 1 Gbit/s) is just worth; 256 KiB would not be. */
#define SEGMENT_BYTES_MIN (1024 * 1024)

static size_t bits_to_bytes(uint32_t bit_count)
{
    return ((size_t)bit_count + 7) / 8;
}

static uint8_t bit_mask(uint32_t index)
{
    return (uint8_t)(0x80u >> (index % 8));
}

int bitfield_init(struct bitfield *field, const struct env *env, uint32_t bit_count)
{
    uint8_t *bits = NULL;
    if (bit_count > 0) {
        size_t bytes = bits_to_bytes(bit_count);
        bits = env->alloc(env->host, NULL, bytes);
        if (bits == NULL)
            return E_NO_MEMORY;
        memset(bits, 0, bytes);
    }
    *field = (struct bitfield){.bits = bits, .bit_count = bit_count};
    return 0;
}

void bitfield_close(struct bitfield *field, const struct env *env)
{
    if (field->bits != NULL)
        (void)env->alloc(env->host, field->bits, 0);
    *field = (struct bitfield){.bits = NULL};
}

bool bitfield_set(struct bitfield *field, uint32_t index)
{
    if (bitfield_get(field, index))
        return false;
    field->bits[index / 8] |= bit_mask(index);
    field->set_count++;
    ASSERT(field->set_count <= field->bit_count);
    return true;
}

bool bitfield_clear(struct bitfield *field, uint32_t index)
{
    if (!bitfield_get(field, index))
        return false;
    ASSERT(field->set_count > 0);
    field->bits[index / 8] &= (uint8_t)~bit_mask(index);
    field->set_count--;
    return true;
}

bool bitfield_full(const struct bitfield *field)
{
    return field->set_count == field->bit_count;
}

/* Passes whole words of `skip` from byte `at` on; less than a word is left to the caller. */
static uint32_t pass_words(const struct bitfield *field, uint32_t at, uint8_t skip)
{
    uint64_t all = skip == 0 ? 0 : UINT64_MAX, word;
    uint32_t end = field->bit_count / 8;
    while (at + sizeof word <= end) {
        memcpy(&word, field->bits + at, sizeof word);
        if (word != all)
            break;
        at += (uint32_t)sizeof word;
    }
    return at;
}

/* First bit at or after `from` that differs from the bits of `skip` (0x00 or 0xff); whole words of
 * `skip` are passed in one step. */
static uint32_t next_unlike(const struct bitfield *field, uint32_t from, uint8_t skip)
{
    uint32_t index = from;
    while (index < field->bit_count) {
        uint8_t rest = (uint8_t)((field->bits[index / 8] ^ skip) & (0xffu >> (index % 8)));
        if (rest != 0) {
            uint32_t found = index / 8 * 8 + (uint32_t)__builtin_clz((unsigned)rest) - 24;
            return found < field->bit_count ? found : field->bit_count;
        }
        index = pass_words(field, index / 8 + 1, skip) * 8;
    }
    return field->bit_count;
}

uint32_t bitfield_next_set(const struct bitfield *field, uint32_t from)
{
    return next_unlike(field, from, 0x00);
}

uint32_t bitfield_next_clear(const struct bitfield *field, uint32_t from)
{
    return next_unlike(field, from, 0xff);
}

uint32_t bitfield_next_only(const struct bitfield *field, const struct bitfield *other,
                            uint32_t from)
{
    ASSERT(field->bit_count == other->bit_count);
    uint32_t index = bitfield_next_set(field, from);
    while (index < field->bit_count) {
        uint32_t byte = index / 8;
        uint8_t rest = (uint8_t)(field->bits[byte] & ~other->bits[byte] & (0xffu >> (index % 8)));
        if (rest != 0)
            return byte * 8 + (uint32_t)__builtin_clz((unsigned)rest) - 24;
        index = bitfield_next_set(field, byte * 8 + 8);
    }
    return field->bit_count;
}

/* Sets the bits of one byte that are inside the field. */
static void merge_byte(struct bitfield *field, size_t at, uint8_t bits)
{
    uint8_t news = (uint8_t)(bits & ~field->bits[at]);
    bool last = at + 1 == bits_to_bytes(field->bit_count);
    if (last && field->bit_count % 8 != 0)
        news &= (uint8_t)(0xff00u >> (field->bit_count % 8));
    field->bits[at] |= news;
    field->set_count += (uint32_t)__builtin_popcount(news);
}

int bitfield_merge(struct bitfield *field, uint32_t first_bit, const uint8_t *bytes,
                   size_t byte_count)
{
    if (first_bit % 8 != 0)
        return E_INVALID;
    size_t field_bytes = bits_to_bytes(field->bit_count);
    size_t first_byte = first_bit / 8;
    if (first_byte > field_bytes || byte_count > field_bytes - first_byte)
        return E_TOO_LARGE;
    uint64_t mine, theirs;
    for (size_t i = 0; i < byte_count;) {
        if (byte_count - i >= sizeof mine) {
            memcpy(&mine, field->bits + first_byte + i, sizeof mine);
            memcpy(&theirs, bytes + i, sizeof theirs);
            if ((theirs & ~mine) == 0) { /* mostly nothing in eight bytes is new */
                i += sizeof mine;
                continue;
            }
        }
        merge_byte(field, first_byte + i, bytes[i]);
        i++;
    }
    ASSERT(field->set_count <= field->bit_count);
    return 0;
}

/* ---- layout ---- */

int piece_layout_of(uint64_t blob_bytes, struct piece_layout *out)
{
    if (blob_bytes > BLOB_BYTES_MAX)
        return E_TOO_LARGE;
    uint32_t share_bytes = PIECE_BYTES_MIN;
    while (share_bytes < PIECE_BYTES_MAX && 2 * (uint64_t)share_bytes <= blob_bytes / PIECES_WANTED)
        share_bytes *= 2;
    uint32_t piece_bytes = share_bytes;
    while (piece_bytes > PIECE_BYTES_LARGE &&
           blob_bytes <= (uint64_t)piece_bytes / 2 * PIECES_TOLD_AT_ONCE)
        piece_bytes /= 2;
    uint32_t segment_bytes = share_bytes > SEGMENT_BYTES_MIN ? share_bytes : SEGMENT_BYTES_MIN;
    uint32_t per_segment = segment_bytes / piece_bytes;
    uint32_t pieces = (uint32_t)((blob_bytes + piece_bytes - 1) / piece_bytes);
    ASSERT(pieces <= PIECE_COUNT_MAX);
    *out = (struct piece_layout){
        .blob_bytes = blob_bytes,
        .piece_bytes = piece_bytes,
        .piece_count = pieces,
        .segment_pieces = per_segment,
        .segment_count = (pieces + per_segment - 1) / per_segment,
    };
    return 0;
}

uint64_t piece_offset(const struct piece_layout *layout, uint32_t piece_index)
{
    ASSERT(piece_index < layout->piece_count);
    return (uint64_t)piece_index * layout->piece_bytes;
}

uint32_t piece_length(const struct piece_layout *layout, uint32_t piece_index)
{
    uint64_t rest = layout->blob_bytes - piece_offset(layout, piece_index);
    return rest < layout->piece_bytes ? (uint32_t)rest : layout->piece_bytes;
}

uint32_t piece_at(const struct piece_layout *layout, uint64_t offset)
{
    ASSERT(offset < layout->blob_bytes);
    return (uint32_t)(offset / layout->piece_bytes);
}

uint32_t segment_of(const struct piece_layout *layout, uint32_t piece_index)
{
    ASSERT(piece_index < layout->piece_count);
    return piece_index / layout->segment_pieces;
}

uint32_t segment_first(const struct piece_layout *layout, uint32_t segment_index)
{
    ASSERT(segment_index < layout->segment_count);
    return segment_index * layout->segment_pieces;
}

uint32_t segment_length(const struct piece_layout *layout, uint32_t segment_index)
{
    uint32_t rest = layout->piece_count - segment_first(layout, segment_index);
    return rest < layout->segment_pieces ? rest : layout->segment_pieces;
}
