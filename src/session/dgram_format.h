/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The four kinds of datagram and their cryptography; no state, no peers.
 *
 *   hello, ack  8 MAC, 1 kind, 4 receiver index, 4 sender index, 32 ephemeral X25519 key,
 *               sealed { 32 session key, introduction } + 16, 16 confirmation (hello: zero)
 *   data        8 MAC, 1 kind, 4 receiver index, 4 sender index, 8 counter, sealed message + 16
 *   reset       8 MAC, 1 kind, 4 receiver index, 4 unknown index, 8 counter
 *
 * Integers are big-endian. The MAC is under the cluster secret and covers all that follows. An
 * index is chosen by the side that looks it up. A hello and its ack agree on pairwise keys from
 * X25519 of both session keys (which the identities signed), X25519 of both ephemeral keys (so that
 * a recorded exchange gives nothing to who later gets the keys of a node), the cluster secret and a
 * hash of both messages. The ephemerals are also what makes an exchange fresh: they are the epochs
 * of DHT-3. The ack is as long as the hello (DHT-2). The reset tells the sender of a data datagram
 * that its keys are not known here (a restart, an eviction); it echoes that datagram's indices and
 * counter and is shorter than any.
 */
#ifndef SHOAL_SESSION_DGRAM_FORMAT_H
#define SHOAL_SESSION_DGRAM_FORMAT_H

#include "dgram_secret.h"
#include "intro.h"
#include "session.h"

enum dgram_kind {
    DGRAM_HELLO = 1,
    DGRAM_ACK,
    DGRAM_DATA,
    DGRAM_RESET,
};

#define DGRAM_TAG_BYTES       16
#define DGRAM_CONFIRM_BYTES   16
#define DGRAM_HEADER_BYTES    (DGRAM_MAC_BYTES + 1 + 4 + 4) /* up to the indices */
#define DGRAM_DATA_OVERHEAD   (DGRAM_HEADER_BYTES + 8 + DGRAM_TAG_BYTES)
#define DGRAM_RESET_BYTES     (DGRAM_HEADER_BYTES + 8)
#define DGRAM_HELLO_AT_SEALED (DGRAM_HEADER_BYTES + 32)
/* Hello as we send it; a later minor version may send a longer one. */
#define DGRAM_HELLO_BYTES                                                                          \
    (DGRAM_HELLO_AT_SEALED + 32 + INTRO_BYTES + DGRAM_TAG_BYTES + DGRAM_CONFIRM_BYTES)

/* Kind and indices, in every datagram. */
struct dgram_header {
    uint8_t kind;
    uint32_t receiver_index;
    uint32_t sender_index; /* reset: the unknown index */
};
/* 0 or E_MALFORMED (too short). */
MUST_USE int dgram__header_decode(const uint8_t *bytes, size_t byte_count,
                                  struct dgram_header *out);

/* A hello or an ack. */
struct dgram_hello {
    struct dgram_header header;
    uint8_t ephemeral[32];
    uint8_t static_public[32];
    struct intro intro;
};
/* Writes all but MAC and confirmation, which is zeroed: a hello then needs dgram__mac only. */
void dgram__hello_seal(const struct dgram_secret *secret, const struct dgram_hello *hello,
                       uint8_t out[DGRAM_HELLO_BYTES]);
/* Opens a hello or ack whose MAC is right under `secret`. 0, E_MALFORMED, E_AUTH, E_VERSION. */
MUST_USE int dgram__hello_open(const struct dgram_secret *secret, const uint8_t *bytes,
                               size_t byte_count, struct dgram_hello *out);

/* Hash of a hello and the ack that answers it, MACs and confirmation left out. Each is at least
 * DGRAM_HELLO_BYTES long. */
struct dgram_span {
    const uint8_t *bytes;
    size_t byte_count;
};
void dgram__transcript(struct dgram_span hello, struct dgram_span ack, uint8_t out[64]);

/* What a hello and an ack agree on. Wipe after use. */
struct dgram_agreement {
    uint8_t hello_key[32]; /* for what the sender of the hello sends */
    uint8_t ack_key[32];
    uint8_t confirm[DGRAM_CONFIRM_BYTES];
};
/* Two X25519. `theirs` is the other side's message. 0, or E_AUTH when a result is all zero
 * (PEER-9). */
MUST_USE int dgram__agree(const struct dgram_secret *secret, const uint8_t static_secret[32],
                          const uint8_t ephemeral_secret[32], const struct dgram_hello *theirs,
                          const uint8_t transcript[64], struct dgram_agreement *out);

/* One message to seal; borrowed. */
struct dgram_message {
    struct dgram_header header;
    uint64_t counter;
    const uint8_t *bytes;
    size_t byte_count; /* at most MESSAGE_BYTES_MAX */
};
/* Writes a whole data datagram, MAC included: message.byte_count + DGRAM_DATA_OVERHEAD bytes. */
void dgram__data_seal(const struct dgram_secret *secret, const uint8_t key[32],
                      const struct dgram_message *message, uint8_t *out);
/* Counter of a data or reset datagram. 0 or E_MALFORMED (too short). */
MUST_USE int dgram__counter(const uint8_t *bytes, size_t byte_count, uint64_t *out);
/* Opens a data datagram of at most DATAGRAM_BYTES_MAX bytes. 0, E_MALFORMED, E_AUTH. */
MUST_USE int dgram__data_open(const uint8_t key[32], const uint8_t *bytes, size_t byte_count,
                              uint8_t plain[MESSAGE_BYTES_MAX], size_t *plain_bytes);
/* Writes a reset, MAC included. */
void dgram__reset(const struct dgram_secret *secret, const struct dgram_header *header,
                  uint64_t counter, uint8_t out[DGRAM_RESET_BYTES]);

#endif
