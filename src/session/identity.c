/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a node is (PEER-1): an Ed25519 key, and an X25519 session key signed by it. This file makes
 * both from the host's randomness and knows their file form; reading and writing the file, its mode
 * 0400 included, is the daemon's.
 */
#include "session.h"

#include <string.h>

#include <sodium.h>

#include "bytes.h"
#include "identity_key.h"

/*
 * File form, IDENTITY_FILE_BYTES long:
 *   7 magic, 1 version, 32 Ed25519 seed, 32 X25519 secret, 32 Ed25519 public, 32 X25519 public,
 *   8 zero (reserved), 16 BLAKE2b-128 of everything before.
 * The public halves are redundant on purpose: a file put together from two is noticed.
 */
#define MAGIC         "shoalid"
#define MAGIC_BYTES   7
#define FILE_VERSION  1
#define AT_VERSION    7
#define AT_SEED       8
#define AT_STATIC     40
#define AT_PUBLIC     72
#define AT_STATIC_PUB 104
#define AT_RESERVED   136
#define RESERVED      8
#define AT_CHECKSUM   144
#define CHECKSUM      16

static_assert(AT_CHECKSUM + CHECKSUM == IDENTITY_FILE_BYTES, "file layout");
static_assert(sizeof(struct identity_key) == crypto_sign_ed25519_PUBLICKEYBYTES, "key length");

static const char STATIC_CONTEXT[] = "shoal static";
#define STATIC_CONTEXT_BYTES (sizeof STATIC_CONTEXT - 1)

static void static_statement(const uint8_t static_public[32],
                             uint8_t out[STATIC_CONTEXT_BYTES + 32])
{
    memcpy(out, STATIC_CONTEXT, STATIC_CONTEXT_BYTES);
    memcpy(out + STATIC_CONTEXT_BYTES, static_public, 32);
}

/* Fills everything that follows from the Ed25519 seed and the X25519 secret. */
static void derive(struct identity *identity, const uint8_t seed[32],
                   const uint8_t static_secret[32])
{
    uint8_t statement[STATIC_CONTEXT_BYTES + 32];
    memset(identity, 0, sizeof *identity);
    (void)crypto_sign_ed25519_seed_keypair(identity->public_key.bytes, identity->secret_key, seed);
    memcpy(identity->static_secret, static_secret, 32);
    (void)crypto_scalarmult_curve25519_base(identity->static_public, static_secret);
    static_statement(identity->static_public, statement);
    (void)crypto_sign_ed25519_detached(identity->static_signature, NULL, statement,
                                       sizeof statement, identity->secret_key);
}

void identity_generate(const struct env *env, struct identity *out)
{
    uint8_t seeds[64];
    env->random(env->host, seeds, sizeof seeds);
    derive(out, seeds, seeds + 32);
    sodium_memzero(seeds, sizeof seeds);
}

static void checksum_of(const uint8_t *bytes, uint8_t out[CHECKSUM])
{
    (void)crypto_generichash_blake2b(out, CHECKSUM, bytes, AT_CHECKSUM, NULL, 0);
}

void identity_encode(const struct identity *identity, uint8_t out[IDENTITY_FILE_BYTES])
{
    memset(out, 0, IDENTITY_FILE_BYTES);
    memcpy(out, MAGIC, MAGIC_BYTES);
    out[AT_VERSION] = FILE_VERSION;
    memcpy(out + AT_SEED, identity->secret_key, 32); /* libsodium's form is seed || public */
    memcpy(out + AT_STATIC, identity->static_secret, 32);
    memcpy(out + AT_PUBLIC, identity->public_key.bytes, 32);
    memcpy(out + AT_STATIC_PUB, identity->static_public, 32);
    checksum_of(out, out + AT_CHECKSUM);
}

int identity_decode(const uint8_t *bytes, size_t byte_count, struct identity *out)
{
    if (byte_count < MAGIC_BYTES + 1 || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
        return E_MALFORMED;
    if (bytes[AT_VERSION] != FILE_VERSION)
        return E_VERSION;
    if (byte_count != IDENTITY_FILE_BYTES)
        return E_MALFORMED;
    uint8_t checksum[CHECKSUM];
    checksum_of(bytes, checksum);
    if (sodium_memcmp(checksum, bytes + AT_CHECKSUM, CHECKSUM) != 0 ||
        sodium_is_zero(bytes + AT_RESERVED, RESERVED) != 1)
        return E_MALFORMED;
    struct identity identity;
    derive(&identity, bytes + AT_SEED, bytes + AT_STATIC);
    bool belong = sodium_memcmp(identity.public_key.bytes, bytes + AT_PUBLIC, 32) == 0 &&
                  sodium_memcmp(identity.static_public, bytes + AT_STATIC_PUB, 32) == 0;
    if (belong)
        *out = identity;
    sodium_memzero(&identity, sizeof identity);
    return belong ? 0 : E_MALFORMED;
}

void identity_close(struct identity *identity)
{
    sodium_memzero(identity, sizeof *identity);
}

int identity__verify_static(const struct identity_key *key, const uint8_t static_public[32],
                            const uint8_t signature[64])
{
    uint8_t statement[STATIC_CONTEXT_BYTES + 32];
    static_statement(static_public, statement);
    int failed =
        crypto_sign_ed25519_verify_detached(signature, statement, sizeof statement, key->bytes);
    return failed == 0 ? 0 : E_AUTH;
}
