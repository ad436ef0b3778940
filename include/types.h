/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identifiers that every module shares: nodes, addresses, digests, blob keys, topology labels.
 * Plain values: copied freely, compared with the functions named beside them, never allocated.
 */
#ifndef SHOAL_TYPES_H
#define SHOAL_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

/* Place of a node in the mesh: hash of (cluster id, mesh address), so one address is one place
 * (PEER-4). */
#define NODE_ID_BYTES 32
struct node_id {
    uint8_t bytes[NODE_ID_BYTES];
};

/* Ed25519 public key: who a node is, independent of where it is (PEER-1). */
#define IDENTITY_KEY_BYTES 32
struct identity_key {
    uint8_t bytes[IDENTITY_KEY_BYTES];
};

/* Transport address. IPv4 is kept v4-mapped (::ffff:a.b.c.d), so there is one form to compare. */
struct peer_addr {
    uint8_t ip[16];
    uint16_t port; /* host byte order */
};

/* Addresses that agree in their first bits: "10.0.0.0/8", "fd00::/8". */
struct addr_block {
    uint8_t ip[16]; /* as in struct peer_addr; bits behind the prefix are zero */
    uint8_t bits;   /* of 128; an IPv4 block has 96 more than its text says */
};

/* Content digest as OCI names it: "sha256:<64 hex>" or "sha512:<128 hex>" (ORG-8). */
enum digest_algorithm {
    DIGEST_NONE = 0,
    DIGEST_SHA256,
    DIGEST_SHA512,
};
#define DIGEST_BYTES_MAX 64
struct digest {
    enum digest_algorithm algorithm;
    uint8_t bytes[DIGEST_BYTES_MAX]; /* 32 or 64 used, the rest zero */
};

/* What the mesh knows a blob by: keyed hash of its digest under the cluster's lookup key (ACL-9).
 */
#define BLOB_KEY_BYTES 32
struct blob_key {
    uint8_t bytes[BLOB_KEY_BYTES];
};

/* Hash of one piece: SHA-256 (INT-4). */
#define PIECE_HASH_BYTES 32
struct piece_hash {
    uint8_t bytes[PIECE_HASH_BYTES];
};

/*
 * Signed statement of the node that read a piece from the origin: this piece of this blob has this
 * hash (INT-6). The signature covers a context string, blob key, signer, piece index, length and
 * hash.
 */
#define VOUCHER_SIGNATURE_BYTES 64
struct voucher {
    struct node_id signer;
    struct identity_key signer_key;
    uint32_t piece_index;
    uint32_t piece_bytes; /* length of this very piece */
    struct piece_hash hash;
    uint8_t signature[VOUCHER_SIGNATURE_BYTES];
};

/* A topology label, zero-terminated; empty means unknown. */
struct label {
    char text[LABEL_BYTES_MAX + 1];
};

/* Where a node stands. Two nodes with equal non-empty vSwitch labels are one switch apart, and so
 * on. */
struct topology {
    struct label region;
    struct label zone;
    struct label vswitch;
};

/* Distance between two nodes, nearest first (DESIGN §2). */
enum distance {
    DISTANCE_VSWITCH = 0,
    DISTANCE_ZONE,
    DISTANCE_REGION,
    DISTANCE_ELSEWHERE,
    DISTANCE_COUNT,
};

#endif
