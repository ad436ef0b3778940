/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Envelope and primitives of every message. A message is one MessagePack array
 * [type, field, field, ...]; decoders take the fields they know, skip further ones and refuse
 * missing ones, so that versions N and N+1 can talk. The messages themselves are in wire_gossip.h,
 * wire_dht.h, wire_transfer.h and wire_order.h, each a plain struct with bounded arrays: decoding
 * never allocates on behalf of a sender. Depth and counts are checked on the raw bytes before the
 * MessagePack library sees them (PEER-10).
 */
#ifndef SHOAL_WIRE_H
#define SHOAL_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "types.h"

/* Major version: peers with different majors do not talk (it is in the handshake prologue). */
#define WIRE_VERSION_MAJOR 1
#define WIRE_VERSION_MINOR 0

/* Ranges of message types, so that a dispatcher needs no table. Unknown types inside a range are
 * skipped. */
#define WIRE_GOSSIP_FIRST   0x10
#define WIRE_GOSSIP_LAST    0x1f
#define WIRE_DHT_FIRST      0x20
#define WIRE_DHT_LAST       0x2f
#define WIRE_TRANSFER_FIRST 0x30
#define WIRE_TRANSFER_LAST  0x5f
#define WIRE_ORDER_FIRST    0x60
#define WIRE_ORDER_LAST     0x6f
#define WIRE_TYPE_MAX       0xff /* a message whose type is above is malformed */

/* Reads the type of a message without decoding the rest. 0, E_TRUNCATED or E_MALFORMED. */
MUST_USE int wire_type(const uint8_t *msg, size_t msg_bytes, unsigned *out);

/*
 * Checks one complete MessagePack value on its raw bytes: depth <= MESSAGE_DEPTH_MAX, element
 * counts <= MESSAGE_COUNT_MAX, every declared length inside the input, no trailing bytes.
 * 0, E_TRUNCATED, E_TOO_LARGE or E_MALFORMED. Costs one pass without allocation or recursion.
 */
MUST_USE int wire_check(const uint8_t *msg, size_t msg_bytes);

/*
 * Writer over msgpack_packer into a caller's buffer. The first failure sticks and is returned by
 * wire_writer_end, so that encoders need no check per field.
 */
struct wire_writer {
    uint8_t *out;
    size_t capacity;
    size_t used;
    int err;
};
/* Starts [type, <field_count fields>]. */
void wire_writer_begin(struct wire_writer *writer, uint8_t *out, size_t capacity, unsigned type,
                       uint32_t field_count);
void wire_put_uint(struct wire_writer *writer, uint64_t value);
void wire_put_bool(struct wire_writer *writer, bool value);
void wire_put_bytes(struct wire_writer *writer, const void *bytes, size_t byte_count);
void wire_put_text(struct wire_writer *writer, const char *text);
void wire_put_array(struct wire_writer *writer, uint32_t count); /* `count` values follow */
void wire_put_addr(struct wire_writer *writer, const struct peer_addr *addr); /* 6 or 18 bytes */
void wire_put_topology(struct wire_writer *writer, const struct topology *topology);
/* Bytes written into *used. 0, or E_TOO_LARGE when the buffer was too small. */
MUST_USE int wire_writer_end(struct wire_writer *writer, size_t *used);

/*
 * Reader: checks the whole message with wire_check, then walks its value headers in place, without
 * allocation (why not msgpack-c's unpacker: src/wire/codec_read.c). The first failure sticks. Byte
 * and text results are borrowed from `msg`.
 */
struct wire_reader {
    const uint8_t *msg;
    size_t msg_bytes;
    size_t offset;                    /* next value */
    uint32_t fields_left;             /* of the message's own array */
    unsigned depth;                   /* arrays open inside that one */
    uint32_t left[MESSAGE_DEPTH_MAX]; /* values not read yet of each of them */
    int err;
};
/* Opens a message and takes its type. 0, E_MALFORMED, E_TRUNCATED, E_TOO_LARGE. Reading more fields
 * than the message has is E_TRUNCATED. */
MUST_USE int wire_reader_begin(struct wire_reader *reader, const uint8_t *msg, size_t msg_bytes,
                               unsigned *type);
/* An integer of at most `max`; a larger one is E_TOO_LARGE. 0 is returned after a failure. */
uint64_t wire_get_uint(struct wire_reader *reader, uint64_t max);
bool wire_get_bool(struct wire_reader *reader);
/* Exactly byte_count bytes into out. */
void wire_get_fixed(struct wire_reader *reader, void *out, size_t byte_count);
/* Up to bytes_max bytes, borrowed. */
const uint8_t *wire_get_bytes(struct wire_reader *reader, size_t bytes_max, size_t *byte_count);
/* Text into out[out_bytes], zero-terminated; NUL or control bytes inside are E_MALFORMED. */
void wire_get_text(struct wire_reader *reader, char *out, size_t out_bytes);
/* Length of an array whose `count <= max` values follow. */
uint32_t wire_get_array(struct wire_reader *reader, uint32_t max);
void wire_get_addr(struct wire_reader *reader, struct peer_addr *out);
void wire_get_topology(struct wire_reader *reader, struct topology *out);
/* Number of fields of the message not read yet (newer senders add fields at the end). */
uint32_t wire_fields_left(const struct wire_reader *reader);
/* Skips one value of any kind. */
void wire_skip(struct wire_reader *reader);
/* 0 or the first error. Fields left over are fine. */
MUST_USE int wire_reader_end(const struct wire_reader *reader);

#endif
