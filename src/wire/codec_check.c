/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MessagePack on its raw bytes (msgpack specification, "Formats"): value headers, and the check of
 * a whole message before anything is made of it (PEER-10). A declared length is compared with the
 * bytes that are there, never used to reserve memory.
 */
#include "codec_internal.h"

#include "bytes.h"
#include "log.h"

/* Headers 0xc0..0xdf: what they are, how many bytes of number or length follow the first byte. */
struct format {
    enum wire__kind kind;
    uint8_t number_bytes; /* value (UINT), count (ARRAY, MAP) or payload length (else) */
    uint8_t fixed_bytes;  /* payload beyond that length: fixed-size formats, type byte of ext */
};
static const struct format formats[32] = {
    [0x00] = {WIRE__OTHER, 0, 0}, /* nil */
    [0x02] = {WIRE__BOOL, 0, 0},   [0x03] = {WIRE__BOOL, 0, 0},
    [0x04] = {WIRE__BYTES, 1, 0},  [0x05] = {WIRE__BYTES, 2, 0},
    [0x06] = {WIRE__BYTES, 4, 0},  [0x07] = {WIRE__OTHER, 1, 1},
    [0x08] = {WIRE__OTHER, 2, 1}, /* ext 8, 16, 32 */
    [0x09] = {WIRE__OTHER, 4, 1},  [0x0a] = {WIRE__OTHER, 0, 4},
    [0x0b] = {WIRE__OTHER, 0, 8}, /* floats */
    [0x0c] = {WIRE__UINT, 1, 0},   [0x0d] = {WIRE__UINT, 2, 0},
    [0x0e] = {WIRE__UINT, 4, 0},   [0x0f] = {WIRE__UINT, 8, 0},
    [0x10] = {WIRE__OTHER, 0, 1},  [0x11] = {WIRE__OTHER, 0, 2}, /* signed integers */
    [0x12] = {WIRE__OTHER, 0, 4},  [0x13] = {WIRE__OTHER, 0, 8},
    [0x14] = {WIRE__OTHER, 0, 2},  [0x15] = {WIRE__OTHER, 0, 3}, /* fixext: type byte + 1..16 */
    [0x16] = {WIRE__OTHER, 0, 5},  [0x17] = {WIRE__OTHER, 0, 9},
    [0x18] = {WIRE__OTHER, 0, 17}, [0x19] = {WIRE__TEXT, 1, 0},
    [0x1a] = {WIRE__TEXT, 2, 0},   [0x1b] = {WIRE__TEXT, 4, 0},
    [0x1c] = {WIRE__ARRAY, 2, 0},  [0x1d] = {WIRE__ARRAY, 4, 0},
    [0x1e] = {WIRE__MAP, 2, 0},    [0x1f] = {WIRE__MAP, 4, 0},
};

/* Of 0, 1, 2, 4 or 8 bytes. */
static uint64_t load_be(const uint8_t *in, unsigned byte_count)
{
    switch (byte_count) {
    case 1:
        return in[0];
    case 2:
        return load_be16(in);
    case 4:
        return load_be32(in);
    case 8:
        return load_be64(in);
    default:
        return 0;
    }
}

/* The formats other than small numbers that carry everything in their first byte. */
static void read_fix(uint8_t first, struct wire__value *value)
{
    value->header_bytes = 1;
    if (first <= 0x8f) {
        value->kind = WIRE__MAP;
        value->number = 2u * (first & 0x0fu);
    } else if (first <= 0x9f) {
        value->kind = WIRE__ARRAY;
        value->number = first & 0x0fu;
    } else if (first <= 0xbf) {
        value->kind = WIRE__TEXT;
        value->body_bytes = first & 0x1fu;
    } else {
        value->kind = WIRE__OTHER; /* negative fixint */
    }
}

/* The formats of the table, whose number or length follows the first byte. */
static int read_long(const uint8_t *in, size_t in_bytes, struct wire__value *value)
{
    const struct format *format = &formats[in[0] - 0xc0];
    value->kind = format->kind;
    value->header_bytes = 1u + format->number_bytes;
    if (value->header_bytes > in_bytes)
        return E_TRUNCATED;
    uint64_t number = load_be(in + 1, format->number_bytes);
    switch (format->kind) {
    case WIRE__UINT:
    case WIRE__ARRAY:
        value->number = number;
        break;
    case WIRE__MAP:
        value->number = 2 * number;
        break;
    case WIRE__BOOL:
        value->number = in[0] == 0xc3;
        break;
    case WIRE__OTHER:
    case WIRE__TEXT:
    case WIRE__BYTES:
    default:
        value->body_bytes = (size_t)number + format->fixed_bytes;
        break;
    }
    return 0;
}

int wire__value_read_other(const uint8_t *in, size_t in_bytes, struct wire__value *out)
{
    struct wire__value value = {.kind = WIRE__OTHER};
    ASSERT(in_bytes > 0 && in[0] > 0x7f);
    if (in[0] == 0xc1)
        return E_MALFORMED;
    if (in[0] >= 0xc0 && in[0] < 0xe0) {
        int err = read_long(in, in_bytes, &value);
        if (err != 0)
            return err;
    } else {
        read_fix(in[0], &value);
    }
    if (value.body_bytes > in_bytes - value.header_bytes)
        return E_TRUNCATED;
    *out = value;
    return 0;
}

int wire_check(const uint8_t *msg, size_t msg_bytes)
{
    /* left[d]: values still to come of the container open at depth d; left[0] is the message. */
    uint64_t left[MESSAGE_DEPTH_MAX + 1] = {1};
    unsigned depth = 0;
    size_t offset = 0;
    if (msg_bytes == 0)
        return E_TRUNCATED;
    for (;;) {
        while (left[depth] == 0) {
            if (depth == 0)
                return offset == msg_bytes ? 0 : E_MALFORMED;
            depth--;
        }
        left[depth]--;
        struct wire__value value;
        int err = wire__value_read(msg + offset, msg_bytes - offset, &value);
        if (err != 0)
            return err;
        offset += value.header_bytes + value.body_bytes;
        ASSERT(offset <= msg_bytes);
        if (value.kind != WIRE__ARRAY && value.kind != WIRE__MAP)
            continue;
        if (depth == MESSAGE_DEPTH_MAX || value.number > MESSAGE_COUNT_MAX)
            return E_TOO_LARGE;
        left[++depth] = value.number;
    }
}

int wire_type(const uint8_t *msg, size_t msg_bytes, unsigned *out)
{
    struct wire__value array, type;
    int err = wire__value_read(msg, msg_bytes, &array);
    if (err != 0)
        return err;
    if (array.kind != WIRE__ARRAY || array.number == 0)
        return E_MALFORMED;
    err = wire__value_read(msg + array.header_bytes, msg_bytes - array.header_bytes, &type);
    if (err != 0)
        return err;
    if (type.kind != WIRE__UINT || type.number > WIRE_TYPE_MAX)
        return E_MALFORMED;
    *out = (unsigned)type.number;
    return 0;
}
