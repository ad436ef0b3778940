/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b (Noise protocol framework, revision 34) on libsodium
 * primitives: cipher, symmetric and handshake state, nothing else. No randomness (the caller hands
 * the ephemeral in), no framing, no meaning of payloads, so published vectors drive it as it is.
 * Framing and payloads are in session.c, the bulk transport in record.c.
 */
#ifndef SHOAL_SESSION_NOISE_H
#define SHOAL_SESSION_NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define NOISE_KEY_BYTES     32 /* DHLEN, key and psk length */
#define NOISE_HASH_BYTES    64 /* HASHLEN of BLAKE2b, Noise §12.8 */
#define NOISE_TAG_BYTES     16
#define NOISE_MESSAGE_COUNT 3

/* Noise §5.1. */
struct noise_cipher {
    uint8_t key[NOISE_KEY_BYTES];
    uint64_t nonce;
    bool keyed;
};

/* Noise §5.2. */
struct noise_symmetric {
    struct noise_cipher cipher;
    uint8_t chaining_key[NOISE_HASH_BYTES];
    uint8_t hash[NOISE_HASH_BYTES];
};

/* Noise §5.3, for the one pattern we speak. */
struct noise {
    struct noise_symmetric symmetric;
    uint8_t static_secret[NOISE_KEY_BYTES];
    uint8_t static_public[NOISE_KEY_BYTES];
    uint8_t ephemeral_secret[NOISE_KEY_BYTES];
    uint8_t ephemeral_public[NOISE_KEY_BYTES];
    uint8_t remote_static[NOISE_KEY_BYTES];
    uint8_t remote_ephemeral[NOISE_KEY_BYTES];
    uint8_t psk[NOISE_KEY_BYTES];
    bool initiator;
    unsigned message_index; /* next message, 0..NOISE_MESSAGE_COUNT */
};

/* All pointers borrowed for the call. */
struct noise_config {
    bool initiator;
    const uint8_t *prologue;
    size_t prologue_bytes;
    const uint8_t *static_secret; /* NOISE_KEY_BYTES each */
    const uint8_t *static_public;
    const uint8_t *psk;
};

/* Initialize() of Noise §5.3. Wipe with noise__wipe. */
void noise__init(struct noise *noise, const struct noise_config *config);
/* Takes the secret half of our ephemeral key pair; needed before our first message. Costs one
 * X25519. */
void noise__set_ephemeral(struct noise *noise, const uint8_t secret[NOISE_KEY_BYTES]);

/* Bytes that a message carries beyond its payload. message_index < NOISE_MESSAGE_COUNT. */
size_t noise__overhead(unsigned message_index);
/* True when the next message is ours to write. */
bool noise__may_write(const struct noise *noise);
/* True once all messages have passed; noise__split may be called. */
bool noise__done(const struct noise *noise);

/*
 * WriteMessage() of Noise §5.3. 0 with *out_bytes; E_INVALID when it is not our turn, E_TOO_LARGE
 * when `capacity` is short, E_AUTH when a DH result is all zero (PEER-9). The state moves on
 * success only.
 */
MUST_USE int noise__write(struct noise *noise, const uint8_t *payload, size_t payload_bytes,
                          uint8_t *out, size_t capacity, size_t *out_bytes);
/*
 * ReadMessage() of Noise §5.3. `payload` must hold message_bytes less the overhead. 0 with
 * *payload_bytes; E_INVALID when it is not the peer's turn, E_MALFORMED when it is too short or the
 * payload does not fit, E_AUTH when a tag or a DH result is bad. The state moves on success only.
 */
MUST_USE int noise__read(struct noise *noise, const uint8_t *message, size_t message_bytes,
                         uint8_t *payload, size_t capacity, size_t *payload_bytes);
/* Split() of Noise §5.2: ciphers for what we send and what we receive. Requires noise__done. */
void noise__split(const struct noise *noise, struct noise_cipher *send,
                  struct noise_cipher *receive);
/* Wipes every secret. */
void noise__wipe(struct noise *noise);

/* EncryptWithAd() of Noise §5.1: `out` gets plain_bytes + NOISE_TAG_BYTES (plain_bytes without a
 * key); it may be `plain` itself. */
void noise__cipher_encrypt(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                           const uint8_t *plain, size_t plain_bytes, uint8_t *out);
/* DecryptWithAd(): `out` gets text_bytes - NOISE_TAG_BYTES. 0, or E_AUTH with the nonce unmoved. */
MUST_USE int noise__cipher_decrypt(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                                   const uint8_t *text, size_t text_bytes, uint8_t *out);
/* REKEY() of Noise §4.2: replaces the key by one that does not lead back to it. */
void noise__rekey(uint8_t key[NOISE_KEY_BYTES]);
/* The 12-byte nonce of Noise §12.3: four zero bytes, then the counter, little-endian. */
#define NOISE_NONCE_BYTES 12
void noise__nonce(uint64_t counter, uint8_t out[NOISE_NONCE_BYTES]);

/* DH() of Noise §4.1. 0, or E_AUTH when the result is all zero, as small-order keys make it
 * (PEER-9). */
MUST_USE int noise__dh(const uint8_t secret[NOISE_KEY_BYTES],
                       const uint8_t public_key[NOISE_KEY_BYTES], uint8_t out[NOISE_KEY_BYTES]);

#endif
