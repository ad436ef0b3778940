/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: the bulk transport of an established session. One record_key is one direction of one
 * session; nothing here knows of handshakes or states.
 *
 *   record = header (4 bytes, big-endian) || AEAD(plain) || tag (16)
 *   header = bit 31: sealed under the next key, bits 17..30: zero, bits 0..16: length of plain
 *
 * The AEAD is ChaCha20-Poly1305 or AES-256-GCM, as agreed in the handshake. The header is the AD.
 * The nonce is a counter that is never sent, in the byte order that Noise gives each cipher (§12.3,
 * §12.4). The next key is Noise's REKEY by ChaCha20-Poly1305, whatever the cipher. A rekey rides on
 * the header of the first record under the new key, so there is no notice that could be reordered
 * with records.
 */
#ifndef SHOAL_SESSION_RECORD_H
#define SHOAL_SESSION_RECORD_H

#include "aead.h"

#define RECORD_KEY_BYTES AEAD_KEY_BYTES
/* PEER-6: whichever of bytes, time and records comes first. */
#define RECORD_REKEY_RECORDS (1ULL << 32)

struct record_key {
    struct aead aead; /* kept for the session's life and only re-keyed */
    uint8_t key[RECORD_KEY_BYTES];
    uint64_t counter; /* nonce of the next record; runs on over rekeys */
    uint64_t bytes;   /* since the last rekey */
    uint64_t records;
    uint64_t since_us;
};

/* What is sealed: two spans that become one record, either may be empty. Borrowed. */
struct record_input {
    const uint8_t *head;
    size_t head_bytes;
    const uint8_t *body;
    size_t body_bytes;
};

/* Takes a key for sealing or opening. 0, E_NO_MEMORY, E_INTERNAL, with nothing to close. */
MUST_USE int record__init(struct record_key *record, enum aead_kind cipher,
                          const uint8_t key[RECORD_KEY_BYTES], bool seal, uint64_t now_us);
/* Wipes and frees; also right after a failed or missing init on a zeroed struct. */
void record__close(struct record_key *record);
/* True when a limit of PEER-6 is reached and the next record must be sealed under a new key. */
bool record__rekey_due(const struct record_key *record, uint64_t now_us, uint64_t rekey_bytes,
                       uint64_t rekey_us);
/* Moves to the next key; both sides do it at the same record. 0 or E_INTERNAL. */
MUST_USE int record__rekey(struct record_key *record, uint64_t now_us);
/* Seals one record; rekeyed tells the receiver that it is the first under a new key. The input is
 * at most RECORD_BYTES_MAX long. 0 with *out_bytes, E_INTERNAL. */
MUST_USE int record__seal(struct record_key *record, const struct record_input *input, bool rekeyed,
                          uint8_t *out, size_t *out_bytes);

/* Header of a received record. 0, or E_PROTOCOL when reserved bits are set or the length is over
 * RECORD_BYTES_MAX (PEER-10). */
struct record_header {
    bool rekeyed;
    size_t plain_bytes;
};
MUST_USE int record__header(const uint8_t bytes[RECORD_HEADER_BYTES], struct record_header *out);
/*
 * Opens a whole record into `out`, which is right behind its header (in place) or apart from it. 0;
 * E_AUTH, after which nothing of record and `out` may be used (both are wiped); E_INTERNAL.
 */
MUST_USE int record__open(struct record_key *record, uint64_t now_us, uint8_t *bytes,
                          const struct record_header *header, uint8_t *out);

#endif
