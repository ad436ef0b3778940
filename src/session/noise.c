/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b, in the order of the specification (Noise revision 34):
 * crypto functions (§4), cipher state (§5.1), symmetric state (§5.2), handshake state (§5.3),
 * pattern XX (§7.5) with modifier psk0 (§9).
 */
#include "noise.h"

#include <string.h>

#include <sodium.h>

#include "log.h"

#define HASH_BLOCK_BYTES 128 /* BLOCKLEN of BLAKE2b, Noise §12.8 */

static const char PROTOCOL_NAME[] = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b";
static_assert(sizeof PROTOCOL_NAME - 1 <= NOISE_HASH_BYTES, "the name is padded, not hashed");
static_assert(NOISE_KEY_BYTES == crypto_scalarmult_curve25519_BYTES, "DHLEN");
static_assert(NOISE_TAG_BYTES == crypto_aead_chacha20poly1305_ietf_ABYTES, "tag");
static_assert(NOISE_NONCE_BYTES == crypto_aead_chacha20poly1305_ietf_NPUBBYTES, "nonce");

/* Tokens of Noise §7.1 and §9. */
enum token {
    TOKEN_END = 0,
    TOKEN_PSK,
    TOKEN_E,
    TOKEN_S,
    TOKEN_EE,
    TOKEN_ES,
    TOKEN_SE,
};

/* XX (Noise §7.5) with psk at the start (§9.4):  -> psk, e   <- e, ee, s, es   -> s, se */
#define TOKENS_MAX 5
static const enum token PATTERN[NOISE_MESSAGE_COUNT][TOKENS_MAX] = {
    {TOKEN_PSK, TOKEN_E, TOKEN_END},
    {TOKEN_E, TOKEN_EE, TOKEN_S, TOKEN_ES, TOKEN_END},
    {TOKEN_S, TOKEN_SE, TOKEN_END},
};

/* A span that is being written or read. */
struct cursor {
    uint8_t *out;
    const uint8_t *in;
    size_t bytes_left;
};

/* ---- §4 crypto functions ------------------------------------------------------------------- */

int noise__dh(const uint8_t secret[NOISE_KEY_BYTES], const uint8_t public_key[NOISE_KEY_BYTES],
              uint8_t out[NOISE_KEY_BYTES])
{
    int failed = crypto_scalarmult_curve25519(out, secret, public_key);
    if (failed != 0 || sodium_is_zero(out, NOISE_KEY_BYTES) == 1)
        return E_AUTH;
    return 0;
}

void noise__nonce(uint64_t counter, uint8_t out[NOISE_NONCE_BYTES])
{
    memset(out, 0, 4);
    for (unsigned i = 0; i < 8; i++)
        out[4 + i] = (uint8_t)(counter >> (8 * i));
}

void noise__rekey(uint8_t key[NOISE_KEY_BYTES])
{
    static const uint8_t zeros[NOISE_KEY_BYTES];
    uint8_t nonce[NOISE_NONCE_BYTES];
    uint8_t text[NOISE_KEY_BYTES + NOISE_TAG_BYTES];
    noise__nonce(UINT64_MAX, nonce);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(text, NULL, zeros, sizeof zeros, NULL, 0, NULL,
                                                    nonce, key);
    memcpy(key, text, NOISE_KEY_BYTES);
    sodium_memzero(text, sizeof text);
}

/* HASH(a || b) */
static void hash2(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes,
                  uint8_t out[NOISE_HASH_BYTES])
{
    crypto_generichash_blake2b_state state;
    (void)crypto_generichash_blake2b_init(&state, NULL, 0, NOISE_HASH_BYTES);
    (void)crypto_generichash_blake2b_update(&state, a, a_bytes);
    (void)crypto_generichash_blake2b_update(&state, b, b_bytes);
    (void)crypto_generichash_blake2b_final(&state, out, NOISE_HASH_BYTES);
    sodium_memzero(&state, sizeof state);
}

/* HMAC-HASH(key, a || b), Noise §4.3 after RFC 2104; `out` may be `key` or `a`. */
static void hmac2(const uint8_t key[NOISE_HASH_BYTES], const uint8_t *a, size_t a_bytes,
                  const uint8_t *b, size_t b_bytes, uint8_t out[NOISE_HASH_BYTES])
{
    crypto_generichash_blake2b_state state;
    uint8_t pad[HASH_BLOCK_BYTES];
    uint8_t inner[NOISE_HASH_BYTES];
    uint8_t outer_pad[HASH_BLOCK_BYTES];
    memset(pad, 0x36, sizeof pad);
    memset(outer_pad, 0x5c, sizeof outer_pad);
    for (size_t i = 0; i < NOISE_HASH_BYTES; i++) {
        pad[i] ^= key[i];
        outer_pad[i] ^= key[i];
    }
    (void)crypto_generichash_blake2b_init(&state, NULL, 0, NOISE_HASH_BYTES);
    (void)crypto_generichash_blake2b_update(&state, pad, sizeof pad);
    (void)crypto_generichash_blake2b_update(&state, a, a_bytes);
    (void)crypto_generichash_blake2b_update(&state, b, b_bytes);
    (void)crypto_generichash_blake2b_final(&state, inner, sizeof inner);
    hash2(outer_pad, sizeof outer_pad, inner, sizeof inner, out);
    sodium_memzero(&state, sizeof state);
    sodium_memzero(pad, sizeof pad);
    sodium_memzero(outer_pad, sizeof outer_pad);
    sodium_memzero(inner, sizeof inner);
}

/* HKDF(chaining_key, ikm, output_count) of Noise §4.3; output_count is 2 or 3. */
static void hkdf(const uint8_t chaining_key[NOISE_HASH_BYTES], const uint8_t *ikm, size_t ikm_bytes,
                 unsigned output_count, uint8_t out[3][NOISE_HASH_BYTES])
{
    uint8_t temp_key[NOISE_HASH_BYTES];
    hmac2(chaining_key, ikm, ikm_bytes, NULL, 0, temp_key);
    size_t previous_bytes = 0;
    for (uint8_t i = 0; i < output_count; i++) {
        uint8_t number = (uint8_t)(i + 1);
        const uint8_t *previous = i == 0 ? NULL : out[i - 1];
        hmac2(temp_key, previous, previous_bytes, &number, 1, out[i]);
        previous_bytes = NOISE_HASH_BYTES;
    }
    sodium_memzero(temp_key, sizeof temp_key);
}

/* ---- §5.1 the cipher state ----------------------------------------------------------------- */

static void initialize_key(struct noise_cipher *cipher, const uint8_t key[NOISE_KEY_BYTES])
{
    memcpy(cipher->key, key, NOISE_KEY_BYTES);
    cipher->nonce = 0;
    cipher->keyed = true;
}

void noise__cipher_encrypt(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                           const uint8_t *plain, size_t plain_bytes, uint8_t *out)
{
    if (!cipher->keyed) {
        if (plain_bytes > 0)
            memmove(out, plain, plain_bytes);
        return;
    }
    ASSERT(cipher->nonce < UINT64_MAX); /* §5.1: the last nonce is REKEY's */
    uint8_t nonce[NOISE_NONCE_BYTES];
    noise__nonce(cipher->nonce, nonce);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain, plain_bytes, ad, ad_bytes,
                                                    NULL, nonce, cipher->key);
    cipher->nonce++;
}

int noise__cipher_decrypt(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                          const uint8_t *text, size_t text_bytes, uint8_t *out)
{
    if (!cipher->keyed) {
        if (text_bytes > 0)
            memmove(out, text, text_bytes);
        return 0;
    }
    if (text_bytes < NOISE_TAG_BYTES || cipher->nonce == UINT64_MAX)
        return E_AUTH;
    uint8_t nonce[NOISE_NONCE_BYTES];
    noise__nonce(cipher->nonce, nonce);
    int failed = crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, text, text_bytes, ad,
                                                           ad_bytes, nonce, cipher->key);
    if (failed != 0)
        return E_AUTH;
    cipher->nonce++;
    return 0;
}

/* ---- §5.2 the symmetric state -------------------------------------------------------------- */

static void initialize_symmetric(struct noise_symmetric *symmetric)
{
    memset(symmetric, 0, sizeof *symmetric);
    memcpy(symmetric->hash, PROTOCOL_NAME, sizeof PROTOCOL_NAME - 1);
    memcpy(symmetric->chaining_key, symmetric->hash, NOISE_HASH_BYTES);
}

static void mix_key(struct noise_symmetric *symmetric, const uint8_t *ikm, size_t ikm_bytes)
{
    uint8_t out[3][NOISE_HASH_BYTES];
    hkdf(symmetric->chaining_key, ikm, ikm_bytes, 2, out);
    memcpy(symmetric->chaining_key, out[0], NOISE_HASH_BYTES);
    initialize_key(&symmetric->cipher, out[1]); /* truncated to 32 bytes, as the spec says */
    sodium_memzero(out, sizeof out);
}

static void mix_hash(struct noise_symmetric *symmetric, const uint8_t *data, size_t data_bytes)
{
    hash2(symmetric->hash, NOISE_HASH_BYTES, data, data_bytes, symmetric->hash);
}

static void mix_key_and_hash(struct noise_symmetric *symmetric, const uint8_t *ikm,
                             size_t ikm_bytes)
{
    uint8_t out[3][NOISE_HASH_BYTES];
    hkdf(symmetric->chaining_key, ikm, ikm_bytes, 3, out);
    memcpy(symmetric->chaining_key, out[0], NOISE_HASH_BYTES);
    mix_hash(symmetric, out[1], NOISE_HASH_BYTES);
    initialize_key(&symmetric->cipher, out[2]);
    sodium_memzero(out, sizeof out);
}

static size_t tag_bytes(const struct noise_symmetric *symmetric)
{
    return symmetric->cipher.keyed ? NOISE_TAG_BYTES : 0;
}

/* EncryptAndHash(): advances the cursor. E_TOO_LARGE when there is no room. */
static int encrypt_and_hash(struct noise_symmetric *symmetric, const uint8_t *plain,
                            size_t plain_bytes, struct cursor *at)
{
    size_t tag = tag_bytes(symmetric);
    if (at->bytes_left < tag || at->bytes_left - tag < plain_bytes)
        return E_TOO_LARGE;
    size_t text_bytes = plain_bytes + tag;
    noise__cipher_encrypt(&symmetric->cipher, symmetric->hash, NOISE_HASH_BYTES, plain, plain_bytes,
                          at->out);
    mix_hash(symmetric, at->out, text_bytes);
    at->out += text_bytes;
    at->bytes_left -= text_bytes;
    return 0;
}

/* DecryptAndHash() of the next text_bytes of the cursor; `plain` gets them less the tag. */
static int decrypt_and_hash(struct noise_symmetric *symmetric, struct cursor *at, size_t text_bytes,
                            uint8_t *plain)
{
    if (at->bytes_left < text_bytes)
        return E_MALFORMED;
    int err = noise__cipher_decrypt(&symmetric->cipher, symmetric->hash, NOISE_HASH_BYTES, at->in,
                                    text_bytes, plain);
    if (err != 0)
        return err;
    mix_hash(symmetric, at->in, text_bytes);
    at->in += text_bytes;
    at->bytes_left -= text_bytes;
    return 0;
}

/* ---- §5.3 the handshake state -------------------------------------------------------------- */

void noise__init(struct noise *noise, const struct noise_config *config)
{
    memset(noise, 0, sizeof *noise);
    initialize_symmetric(&noise->symmetric);
    mix_hash(&noise->symmetric, config->prologue, config->prologue_bytes);
    noise->initiator = config->initiator;
    memcpy(noise->static_secret, config->static_secret, NOISE_KEY_BYTES);
    memcpy(noise->static_public, config->static_public, NOISE_KEY_BYTES);
    memcpy(noise->psk, config->psk, NOISE_KEY_BYTES);
    /* XX has no pre-messages. */
}

void noise__set_ephemeral(struct noise *noise, const uint8_t secret[NOISE_KEY_BYTES])
{
    memcpy(noise->ephemeral_secret, secret, NOISE_KEY_BYTES);
    (void)crypto_scalarmult_curve25519_base(noise->ephemeral_public, secret);
}

size_t noise__overhead(unsigned message_index)
{
    ASSERT(message_index < NOISE_MESSAGE_COUNT);
    static const size_t overhead[NOISE_MESSAGE_COUNT] = {
        NOISE_KEY_BYTES + NOISE_TAG_BYTES,
        NOISE_KEY_BYTES + NOISE_KEY_BYTES + 2 * NOISE_TAG_BYTES,
        NOISE_KEY_BYTES + 2 * NOISE_TAG_BYTES,
    };
    return overhead[message_index];
}

bool noise__done(const struct noise *noise)
{
    return noise->message_index >= NOISE_MESSAGE_COUNT;
}

bool noise__may_write(const struct noise *noise)
{
    return !noise__done(noise) && (noise->message_index % 2 == 0) == noise->initiator;
}

/* MixKey(DH()) for the tokens ee, es, se. */
static int mix_dh(struct noise *noise, enum token token)
{
    /* "es" is the initiator's e with the responder's s; "se" the other way round. */
    bool own_static =
        (token == TOKEN_ES && !noise->initiator) || (token == TOKEN_SE && noise->initiator);
    bool their_static = token != TOKEN_EE && !own_static;
    uint8_t shared[NOISE_KEY_BYTES];
    int err = noise__dh(own_static ? noise->static_secret : noise->ephemeral_secret,
                        their_static ? noise->remote_static : noise->remote_ephemeral, shared);
    if (err == 0)
        mix_key(&noise->symmetric, shared, sizeof shared);
    sodium_memzero(shared, sizeof shared);
    return err;
}

/* An ephemeral is mixed into hash and, because this is a psk handshake, key (§9.2). */
static void mix_ephemeral(struct noise_symmetric *symmetric,
                          const uint8_t public_key[NOISE_KEY_BYTES])
{
    mix_hash(symmetric, public_key, NOISE_KEY_BYTES);
    mix_key(symmetric, public_key, NOISE_KEY_BYTES);
}

static int write_token(struct noise *noise, enum token token, struct cursor *at)
{
    switch (token) {
    case TOKEN_PSK:
        mix_key_and_hash(&noise->symmetric, noise->psk, NOISE_KEY_BYTES);
        return 0;
    case TOKEN_E:
        if (at->bytes_left < NOISE_KEY_BYTES)
            return E_TOO_LARGE;
        memcpy(at->out, noise->ephemeral_public, NOISE_KEY_BYTES);
        at->out += NOISE_KEY_BYTES;
        at->bytes_left -= NOISE_KEY_BYTES;
        mix_ephemeral(&noise->symmetric, noise->ephemeral_public);
        return 0;
    case TOKEN_S:
        return encrypt_and_hash(&noise->symmetric, noise->static_public, NOISE_KEY_BYTES, at);
    case TOKEN_EE:
    case TOKEN_ES:
    case TOKEN_SE:
        return mix_dh(noise, token);
    case TOKEN_END:
        break;
    }
    return E_INTERNAL;
}

static int read_token(struct noise *noise, enum token token, struct cursor *at)
{
    switch (token) {
    case TOKEN_PSK:
        mix_key_and_hash(&noise->symmetric, noise->psk, NOISE_KEY_BYTES);
        return 0;
    case TOKEN_E:
        if (at->bytes_left < NOISE_KEY_BYTES)
            return E_MALFORMED;
        memcpy(noise->remote_ephemeral, at->in, NOISE_KEY_BYTES);
        at->in += NOISE_KEY_BYTES;
        at->bytes_left -= NOISE_KEY_BYTES;
        mix_ephemeral(&noise->symmetric, noise->remote_ephemeral);
        return 0;
    case TOKEN_S:
        return decrypt_and_hash(&noise->symmetric, at,
                                NOISE_KEY_BYTES + tag_bytes(&noise->symmetric),
                                noise->remote_static);
    case TOKEN_EE:
    case TOKEN_ES:
    case TOKEN_SE:
        return mix_dh(noise, token);
    case TOKEN_END:
        break;
    }
    return E_INTERNAL;
}

int noise__write(struct noise *noise, const uint8_t *payload, size_t payload_bytes, uint8_t *out,
                 size_t capacity, size_t *out_bytes)
{
    if (!noise__may_write(noise))
        return E_INVALID;
    struct noise work = *noise;
    struct cursor at = {.out = out, .bytes_left = capacity};
    const enum token *tokens = PATTERN[noise->message_index];
    int err = 0;
    for (unsigned i = 0; err == 0 && tokens[i] != TOKEN_END; i++)
        err = write_token(&work, tokens[i], &at);
    if (err == 0)
        err = encrypt_and_hash(&work.symmetric, payload, payload_bytes, &at);
    if (err == 0) {
        work.message_index++;
        *noise = work;
        *out_bytes = capacity - at.bytes_left;
    }
    noise__wipe(&work);
    return err;
}

int noise__read(struct noise *noise, const uint8_t *message, size_t message_bytes, uint8_t *payload,
                size_t capacity, size_t *payload_bytes)
{
    if (noise__done(noise) || noise__may_write(noise))
        return E_INVALID;
    size_t overhead = noise__overhead(noise->message_index);
    if (message_bytes < overhead || message_bytes - overhead > capacity)
        return E_MALFORMED;
    struct noise work = *noise;
    struct cursor at = {.in = message, .bytes_left = message_bytes};
    const enum token *tokens = PATTERN[noise->message_index];
    int err = 0;
    for (unsigned i = 0; err == 0 && tokens[i] != TOKEN_END; i++)
        err = read_token(&work, tokens[i], &at);
    if (err == 0)
        err = decrypt_and_hash(&work.symmetric, &at, at.bytes_left, payload);
    if (err == 0) {
        work.message_index++;
        *noise = work;
        *payload_bytes = message_bytes - overhead;
    }
    noise__wipe(&work);
    return err;
}

void noise__split(const struct noise *noise, struct noise_cipher *send,
                  struct noise_cipher *receive)
{
    ASSERT(noise__done(noise));
    uint8_t out[3][NOISE_HASH_BYTES];
    hkdf(noise->symmetric.chaining_key, NULL, 0, 2, out);
    initialize_key(noise->initiator ? send : receive, out[0]);
    initialize_key(noise->initiator ? receive : send, out[1]);
    sodium_memzero(out, sizeof out);
}

void noise__wipe(struct noise *noise)
{
    sodium_memzero(noise, sizeof *noise);
}
