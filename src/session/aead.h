/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of an AEAD cipher under a key that may change: what records are sealed with. Its
 * source is the only one of the session that sees the libraries' ciphers. What they give is the
 * same to the bit, so one may open what another sealed; which is quickest depends on the machine:
 * AES-256-GCM over records of 64 KiB took 0.30-0.46 s/GB with OpenSSL 3.0, which knows no VAES, and
 * 0.24-0.32 with libgcrypt 1.10, in turns on an EPYC with VAES but without AVX-512.
 *
 * A message is aead__begin, any number of aead__update, then aead__seal_end or aead__open_end.
 */
#ifndef SHOAL_SESSION_AEAD_H
#define SHOAL_SESSION_AEAD_H

#include "session.h"

#define AEAD_KEY_BYTES   32
#define AEAD_NONCE_BYTES 12
#define AEAD_TAG_BYTES   16

enum aead_kind {
    AEAD_CHACHA20_POLY1305 = 1, /* RFC 8439, by OpenSSL */
    AEAD_AES_256_GCM,           /* NIST SP 800-38D, by OpenSSL */
    AEAD_AES_256_GCM_LIBGCRYPT, /* the same, by libgcrypt */
};

struct aead {
    enum aead_kind kind;
    bool seal;     /* or open */
    void *context; /* the library's, made once and only re-keyed */
};

/* 0, E_NO_MEMORY, E_INTERNAL (the library refuses the cipher), with nothing to close. */
MUST_USE int aead__init(struct aead *aead, enum aead_kind kind, const uint8_t key[AEAD_KEY_BYTES],
                        bool seal);
/* Wipes the key; also right after a failed or missing init on a zeroed struct. */
void aead__close(struct aead *aead);
/* False when the library fails, as in all that follow: nothing of the message may be used then, and
 * only aead__close is left. */
MUST_USE bool aead__rekey(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES]);
MUST_USE bool aead__begin(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES],
                          const uint8_t *ad, size_t ad_bytes);
/* Seals or opens so many bytes to `out`, which is `in` or apart from it. */
MUST_USE bool aead__update(struct aead *aead, uint8_t *out, const uint8_t *in, size_t byte_count);
MUST_USE bool aead__seal_end(struct aead *aead, uint8_t tag[AEAD_TAG_BYTES]);
/* False when the tag is another, compared in constant time (PEER-9). */
MUST_USE bool aead__open_end(struct aead *aead, const uint8_t tag[AEAD_TAG_BYTES]);

#endif
