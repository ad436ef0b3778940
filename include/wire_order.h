/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of orders between nodes (0x60..0x6f): a node that holds blobs asks another to bring them
 * in from the mesh. Unreliable datagrams, sealed for the one peer: an ASK is repeated while it is
 * meant and answered by a TELL with how each blob fares, so loss, repetition and order do no harm.
 *
 * The digest itself is in an ASK, for who brings a blob in must check it; nothing else tells what
 * it is of: no registry, repository, tag or credential (ACL-9).
 */
#ifndef SHOAL_WIRE_ORDER_H
#define SHOAL_WIRE_ORDER_H

#include "digest.h"
#include "limits.h"
#include "wire.h"

enum wire_order_type {
    WIRE_ORDER_ASK = WIRE_ORDER_FIRST, /* bring these in; forgotten when it is not repeated */
    WIRE_ORDER_TELL,                   /* answer, in the order of the ASK */
    WIRE_ORDER_DIAL,                   /* connect to who asks, by TCP, and tell; no blobs */
    WIRE_ORDER_DIALLED,                /* answer: one state, DONE or FAILED */
    WIRE_ORDER_END,                    /* one past the last */
};

/* How a blob fares at who was asked. */
enum wire_order_state {
    WIRE_ORDER_RUNNING = 1, /* it comes in */
    WIRE_ORDER_DONE,        /* it is here, and its digest matched */
    WIRE_ORDER_BUSY,        /* others first: ask again */
    WIRE_ORDER_REFUSED,     /* by configuration, or the node leaves */
    WIRE_ORDER_OVER_LIMIT, /* more than other nodes may bring in for now, or than the cache holds */
    WIRE_ORDER_FAILED,     /* nobody in the mesh gave it, or it does not stay */
    WIRE_ORDER_STATES,     /* one past the last */
};

/* A sha512 digest and a size are 78 bytes at most: eight fit a datagram. */
#define WIRE_ORDER_BLOBS_MAX 8
struct wire_order_blob {
    struct digest digest; /* ASK */
    uint64_t size_bytes;  /* ASK: 1 to BLOB_BYTES_MAX */
    uint8_t state;        /* TELL, DIALLED: enum wire_order_state */
};
struct wire_order {
    unsigned type;   /* enum wire_order_type */
    uint64_t serial; /* of the ASK, chosen by who asks */
    uint32_t count;
    struct wire_order_blob blobs[WIRE_ORDER_BLOBS_MAX];
};

/* Writes a message to out[capacity], *used bytes of it, at most MESSAGE_BYTES_MAX. 0; E_TOO_LARGE
 * (buffer), E_INVALID (type, count, size, state or digest that no message has: nothing is written).
 */
MUST_USE int wire_order_encode(const struct wire_order *message, uint8_t *out, size_t capacity,
                               size_t *used);
/* Reads one message. 0; E_NOT_FOUND (a type this version does not know), E_MALFORMED, E_TRUNCATED,
 * E_TOO_LARGE. Blobs beyond `count` are undefined; *out is undefined after an error. */
MUST_USE int wire_order_decode(const uint8_t *msg, size_t msg_bytes, struct wire_order *out);

#endif
