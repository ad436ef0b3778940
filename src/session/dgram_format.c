/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and cryptography of datagrams; see dgram_format.h. */
#include "dgram_format.h"

#include <string.h>

#include <sodium.h>

#include "bytes.h"
#include "log.h"
#include "noise.h"

#define AT_KIND      DGRAM_MAC_BYTES
#define AT_RECEIVER  (AT_KIND + 1)
#define AT_SENDER    (AT_RECEIVER + 4)
#define AT_EPHEMERAL DGRAM_HEADER_BYTES
#define AT_COUNTER   DGRAM_HEADER_BYTES
#define AT_DATA      (AT_COUNTER + 8)
#define PLAIN_BYTES  (32 + INTRO_BYTES)

static_assert(DGRAM_DATA_OVERHEAD <= DATAGRAM_OVERHEAD_MAX, "limits.h promises it");
static_assert(DGRAM_HELLO_BYTES <= DATAGRAM_BYTES_MAX, "a hello is one datagram");
static_assert(DGRAM_RESET_BYTES < DGRAM_DATA_OVERHEAD, "a reset is shorter than its cause (DHT-2)");

int dgram__header_decode(const uint8_t *bytes, size_t byte_count, struct dgram_header *out)
{
    if (byte_count < DGRAM_HEADER_BYTES)
        return E_MALFORMED;
    out->kind = bytes[AT_KIND];
    out->receiver_index = load_be32(bytes + AT_RECEIVER);
    out->sender_index = load_be32(bytes + AT_SENDER);
    return 0;
}

static void header_encode(const struct dgram_header *header, uint8_t *out)
{
    out[AT_KIND] = header->kind;
    store_be32(out + AT_RECEIVER, header->receiver_index);
    store_be32(out + AT_SENDER, header->sender_index);
}

/* Key of one introduction: cluster secret and fresh ephemeral, so each seals once and the nonce is
 * zero. The kind keeps a hello from being taken for an ack. */
static void intro_key(const struct dgram_secret *secret, const uint8_t ephemeral[32], uint8_t kind,
                      uint8_t out[32])
{
    uint8_t input[33];
    input[0] = kind;
    memcpy(input + 1, ephemeral, 32);
    (void)crypto_generichash_blake2b(out, 32, input, sizeof input, secret->hello_key,
                                     sizeof secret->hello_key);
}

void dgram__hello_seal(const struct dgram_secret *secret, const struct dgram_hello *hello,
                       uint8_t out[DGRAM_HELLO_BYTES])
{
    static const uint8_t nonce[NOISE_NONCE_BYTES];
    uint8_t plain[PLAIN_BYTES];
    uint8_t key[32];
    memset(out, 0, DGRAM_HELLO_BYTES);
    header_encode(&hello->header, out);
    memcpy(out + AT_EPHEMERAL, hello->ephemeral, 32);
    memcpy(plain, hello->static_public, 32);
    intro__encode(&hello->intro, plain + 32);
    intro_key(secret, hello->ephemeral, hello->header.kind, key);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(
        out + DGRAM_HELLO_AT_SEALED, NULL, plain, sizeof plain, out + AT_KIND,
        DGRAM_HELLO_AT_SEALED - AT_KIND, NULL, nonce, key);
    sodium_memzero(key, sizeof key);
}

int dgram__hello_open(const struct dgram_secret *secret, const uint8_t *bytes, size_t byte_count,
                      struct dgram_hello *out)
{
    static const uint8_t nonce[NOISE_NONCE_BYTES];
    uint8_t plain[DATAGRAM_BYTES_MAX];
    uint8_t key[32];
    struct dgram_hello hello;
    if (byte_count < DGRAM_HELLO_BYTES || byte_count > DATAGRAM_BYTES_MAX)
        return E_MALFORMED;
    int err = dgram__header_decode(bytes, byte_count, &hello.header);
    if (err != 0)
        return err;
    size_t sealed_bytes = byte_count - DGRAM_HELLO_AT_SEALED - DGRAM_CONFIRM_BYTES;
    memcpy(hello.ephemeral, bytes + AT_EPHEMERAL, 32);
    intro_key(secret, hello.ephemeral, hello.header.kind, key);
    int failed = crypto_aead_chacha20poly1305_ietf_decrypt(
        plain, NULL, NULL, bytes + DGRAM_HELLO_AT_SEALED, sealed_bytes, bytes + AT_KIND,
        DGRAM_HELLO_AT_SEALED - AT_KIND, nonce, key);
    sodium_memzero(key, sizeof key);
    if (failed != 0)
        return E_AUTH;
    memcpy(hello.static_public, plain, 32);
    err = intro__decode(plain + 32, sealed_bytes - DGRAM_TAG_BYTES - 32, &hello.intro);
    if (err == 0)
        *out = hello;
    return err;
}

void dgram__transcript(struct dgram_span hello, struct dgram_span ack, uint8_t out[64])
{
    ASSERT(hello.byte_count >= DGRAM_HELLO_BYTES);
    ASSERT(ack.byte_count >= DGRAM_HELLO_BYTES);
    crypto_generichash_blake2b_state state;
    uint8_t length[4]; /* the hello may have any length, so it is said where it ends */
    store_be32(length, (uint32_t)hello.byte_count);
    (void)crypto_generichash_blake2b_init(&state, NULL, 0, 64);
    (void)crypto_generichash_blake2b_update(&state, length, sizeof length);
    (void)crypto_generichash_blake2b_update(&state, hello.bytes + DGRAM_MAC_BYTES,
                                            hello.byte_count - DGRAM_MAC_BYTES);
    (void)crypto_generichash_blake2b_update(&state, ack.bytes + DGRAM_MAC_BYTES,
                                            ack.byte_count - DGRAM_MAC_BYTES - DGRAM_CONFIRM_BYTES);
    (void)crypto_generichash_blake2b_final(&state, out, 64);
}

static void expand(const uint8_t root[64], uint8_t number, uint8_t *out, size_t out_bytes)
{
    (void)crypto_generichash_blake2b(out, out_bytes, &number, 1, root, 64);
}

int dgram__agree(const struct dgram_secret *secret, const uint8_t static_secret[32],
                 const uint8_t ephemeral_secret[32], const struct dgram_hello *theirs,
                 const uint8_t transcript[64], struct dgram_agreement *out)
{
    uint8_t input[32 + 32 + 64];
    uint8_t root[64];
    int err = noise__dh(static_secret, theirs->static_public, input);
    if (err == 0)
        err = noise__dh(ephemeral_secret, theirs->ephemeral, input + 32);
    if (err == 0) {
        memcpy(input + 64, transcript, 64);
        (void)crypto_generichash_blake2b(root, sizeof root, input, sizeof input, secret->pair_key,
                                         sizeof secret->pair_key);
        expand(root, 1, out->hello_key, sizeof out->hello_key);
        expand(root, 2, out->ack_key, sizeof out->ack_key);
        expand(root, 3, out->confirm, sizeof out->confirm);
    }
    sodium_memzero(input, sizeof input);
    sodium_memzero(root, sizeof root);
    return err;
}

void dgram__data_seal(const struct dgram_secret *secret, const uint8_t key[32],
                      const struct dgram_message *message, uint8_t *out)
{
    ASSERT(message->byte_count <= MESSAGE_BYTES_MAX);
    uint8_t nonce[NOISE_NONCE_BYTES];
    header_encode(&message->header, out);
    store_be64(out + AT_COUNTER, message->counter);
    noise__nonce(message->counter, nonce);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(out + AT_DATA, NULL, message->bytes,
                                                    message->byte_count, out + AT_KIND,
                                                    AT_DATA - AT_KIND, NULL, nonce, key);
    dgram__mac(secret, out, message->byte_count + DGRAM_DATA_OVERHEAD);
}

int dgram__counter(const uint8_t *bytes, size_t byte_count, uint64_t *out)
{
    if (byte_count < AT_DATA)
        return E_MALFORMED;
    *out = load_be64(bytes + AT_COUNTER);
    return 0;
}

int dgram__data_open(const uint8_t key[32], const uint8_t *bytes, size_t byte_count,
                     uint8_t plain[MESSAGE_BYTES_MAX], size_t *plain_bytes)
{
    if (byte_count < DGRAM_DATA_OVERHEAD || byte_count - DGRAM_DATA_OVERHEAD > MESSAGE_BYTES_MAX)
        return E_MALFORMED;
    uint8_t nonce[NOISE_NONCE_BYTES];
    noise__nonce(load_be64(bytes + AT_COUNTER), nonce);
    int failed = crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, bytes + AT_DATA,
                                                           byte_count - AT_DATA, bytes + AT_KIND,
                                                           AT_DATA - AT_KIND, nonce, key);
    if (failed != 0)
        return E_AUTH;
    *plain_bytes = byte_count - DGRAM_DATA_OVERHEAD;
    return 0;
}

void dgram__reset(const struct dgram_secret *secret, const struct dgram_header *header,
                  uint64_t counter, uint8_t out[DGRAM_RESET_BYTES])
{
    header_encode(header, out);
    store_be64(out + AT_COUNTER, counter);
    dgram__mac(secret, out, DGRAM_RESET_BYTES);
}
