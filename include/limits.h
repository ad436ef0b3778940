/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of the protocol and of memory that more than one module relies on, with the reason for
 * each. A limit that one module alone needs lives in that module. Relations are asserted below.
 */
#ifdef _GCC_NEXT_LIMITS_H
/* GCC's own <limits.h>, on its way to the C library's, looks along the quote path too and comes
 * here because the names are equal. Pass it on. */
#pragma GCC system_header
#include_next <limits.h>
#elif !defined SHOAL_LIMITS_H
#define SHOAL_LIMITS_H

#include <assert.h>

/* One datagram never needs IP fragmentation: IPv6's minimum MTU 1,280 less IPv6 and UDP headers
 * (DHT-8). */
#define DATAGRAM_BYTES_MAX     1232
/* What sealing adds to a datagram: kind, index, counter, keyed MAC and AEAD tag
 * (src/session/dgram.c). */
#define DATAGRAM_OVERHEAD_MAX  64
/* Largest control message a core may hand to env->send. */
#define MESSAGE_BYTES_MAX      (DATAGRAM_BYTES_MAX - DATAGRAM_OVERHEAD_MAX)
/* MessagePack nesting and element counts, checked on the raw bytes before unpacking (PEER-10). */
#define MESSAGE_DEPTH_MAX      8
#define MESSAGE_COUNT_MAX      1024

/* Plaintext of one TCP record (PEER-10): 64 KiB amortises the AEAD call and bounds what waits
 * unverified. */
#define RECORD_BYTES_MAX       (64 * 1024)

/* Piece sizes: a power of two that follows from the blob's size (src/base/piece_map.c), kept in
 * this interval (ALGORITHMS §3.4). */
#define PIECE_BYTES_MIN        (128 * 1024)
#define PIECE_BYTES_MAX        (4 * 1024 * 1024)
/* Smallest piece of the fine cut, in which scattered small reads are brought in (piece_map.h). */
#define PIECE_BYTES_FINE       (16 * 1024)
/* Pieces whose state fits one message. */
#define PIECES_TOLD_AT_ONCE    3584
/* Largest blob: 1 TiB keeps a 4 MiB piece index within 18 bits and every bitfield within 32 KiB. */
#define BLOB_BYTES_MAX         (1ULL << 40)
#define PIECE_COUNT_MAX        ((unsigned)(BLOB_BYTES_MAX / PIECE_BYTES_MAX))

/* Members a node keeps: 10,000 is the largest cluster planned for, with room for those that just
 * left. */
#define MEMBERS_MAX            16384
/* Labels (region, zone, vSwitch) as clouds and Kubernetes spell them: label values have at most 63
 * bytes. */
#define LABEL_BYTES_MAX        63

/* Manifests, configs and other small documents held whole in memory (ORG-7). */
#define MANIFEST_BYTES_MAX     (4 * 1024 * 1024)
/* Blobs up to this size are verified whole before the first byte leaves (INT-2). */
#define VERIFY_WHOLE_BYTES_MAX (8 * 1024 * 1024)
/* Bytes of a larger body held back until the whole digest matched (INT-1). */
#define HELD_BACK_BYTES        (64 * 1024)

/* OCI distribution-spec: repository names and tags. */
#define REPOSITORY_BYTES_MAX   255
#define TAG_BYTES_MAX          128
#define HOST_BYTES_MAX         260 /* RFC 1035 name 253 + ":65535" */

static_assert(MESSAGE_BYTES_MAX > 1024, "a message must hold a useful bitfield page");
static_assert(PIECE_BYTES_MIN % RECORD_BYTES_MAX == 0, "full pieces are whole records");
static_assert(PIECE_BYTES_MAX <= VERIFY_WHOLE_BYTES_MAX,
              "one piece always fits the small-blob path");

#endif
