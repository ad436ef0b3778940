/* SPDX-License-Identifier: Apache-2.0 */
/* The header of one MessagePack value, as the check and the reader both take it apart. */
#ifndef SHOAL_WIRE_CODEC_INTERNAL_H
#define SHOAL_WIRE_CODEC_INTERNAL_H

#include "wire.h"

enum wire__kind {
    WIRE__OTHER = 0, /* nil, negative integers, floats, ext: never used by our messages */
    WIRE__UINT,
    WIRE__BOOL,
    WIRE__TEXT,
    WIRE__BYTES,
    WIRE__ARRAY,
    WIRE__MAP, /* never used by our messages */
};

struct wire__value {
    enum wire__kind kind;
    size_t header_bytes; /* kind byte, length or number */
    size_t body_bytes;   /* payload after the header, inside the input; 0 for arrays and maps */
    uint64_t number;     /* UINT: value; BOOL: 0 or 1; ARRAY: elements; MAP: keys and values */
};

/* First byte of a byte string of less than 256 bytes (bin 8). */
#define WIRE__BYTES_SHORT 0xc4

/*
 * Takes the value header at in[0..in_bytes) apart and makes sure that its payload is inside the
 * input too; elements of an array or map follow and are not looked at. 0; E_TRUNCATED: header or
 * payload end outside the input; E_MALFORMED: the reserved byte 0xc1. `out` is written only on
 * success.
 */
MUST_USE static inline int wire__value_read(const uint8_t *in, size_t in_bytes,
                                            struct wire__value *out);
/* The same for all but small numbers and short byte strings, which most values are; in_bytes > 0.
 */
MUST_USE int wire__value_read_other(const uint8_t *in, size_t in_bytes, struct wire__value *out);

/* See above. Inline: each value of each message is read twice by it, checked and taken. */
MUST_USE static inline int wire__value_read(const uint8_t *in, size_t in_bytes,
                                            struct wire__value *out)
{
    if (in_bytes == 0)
        return E_TRUNCATED;
    if (in[0] <= 0x7f) {
        *out = (struct wire__value){.kind = WIRE__UINT, .header_bytes = 1, .number = in[0]};
        return 0;
    }
    if (in[0] != WIRE__BYTES_SHORT || in_bytes < 2 || in[1] > in_bytes - 2)
        return wire__value_read_other(in, in_bytes, out);
    *out = (struct wire__value){.kind = WIRE__BYTES, .header_bytes = 2, .body_bytes = in[1]};
    return 0;
}

#endif
