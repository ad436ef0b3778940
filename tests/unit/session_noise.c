/* SPDX-License-Identifier: Apache-2.0 */
/* Noise handshake and ciphers against the published vectors, and against tampering (PEER-5). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include <sodium.h>

#include "../../src/session/noise.h"
#include "bytes.h"
#include "session_noise_vectors.h"

#define TEXT_MAX 512

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t byte_count = strlen(hex) / 2;
    assert_true(byte_count <= TEXT_MAX);
    assert_int_equal(hex_decode(hex, byte_count * 2, out, byte_count), 0);
    return byte_count;
}

/* Both ends of a vector; noise[0] is the initiator. */
static void open_pair(const struct noise_vector *vector, struct noise noise[2])
{
    static const char *const statics[2] = {VECTOR_INIT_STATIC, VECTOR_RESP_STATIC};
    static const char *const ephemerals[2] = {VECTOR_INIT_EPHEMERAL, VECTOR_RESP_EPHEMERAL};
    uint8_t prologue[TEXT_MAX];
    uint8_t psk[TEXT_MAX];
    size_t prologue_bytes = unhex(vector->prologue, prologue);
    assert_int_equal(unhex(VECTOR_PSK, psk), NOISE_KEY_BYTES);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t secret[TEXT_MAX];
        uint8_t public_key[NOISE_KEY_BYTES];
        assert_int_equal(unhex(statics[i], secret), NOISE_KEY_BYTES);
        assert_int_equal(crypto_scalarmult_curve25519_base(public_key, secret), 0);
        const struct noise_config config = {.initiator = i == 0,
                                            .prologue = prologue,
                                            .prologue_bytes = prologue_bytes,
                                            .static_secret = secret,
                                            .static_public = public_key,
                                            .psk = psk};
        noise__init(&noise[i], &config);
        assert_int_equal(unhex(ephemerals[i], secret), NOISE_KEY_BYTES);
        noise__set_ephemeral(&noise[i], secret);
    }
}

static void check_handshake_message(const struct noise_vector *vector, unsigned index,
                                    struct noise noise[2])
{
    uint8_t payload[TEXT_MAX];
    uint8_t expected[TEXT_MAX];
    uint8_t message[TEXT_MAX];
    uint8_t read_back[TEXT_MAX];
    size_t message_bytes = 0;
    size_t read_bytes = 0;
    size_t payload_bytes = unhex(vector->messages[index].payload, payload);
    size_t expected_bytes = unhex(vector->messages[index].ciphertext, expected);
    struct noise *writer = &noise[index % 2];
    struct noise *reader = &noise[1 - index % 2];
    assert_true(noise__may_write(writer));
    assert_int_equal(noise__overhead(index) + payload_bytes, expected_bytes);
    assert_int_equal(
        noise__write(writer, payload, payload_bytes, message, sizeof message, &message_bytes), 0);
    assert_int_equal(message_bytes, expected_bytes);
    assert_memory_equal(message, expected, expected_bytes);
    assert_int_equal(
        noise__read(reader, expected, expected_bytes, read_back, sizeof read_back, &read_bytes), 0);
    assert_int_equal(read_bytes, payload_bytes);
    assert_memory_equal(read_back, payload, payload_bytes);
}

static void check_transport_message(const struct noise_vector *vector, unsigned index,
                                    struct noise_cipher *send, struct noise_cipher *receive)
{
    uint8_t payload[TEXT_MAX];
    uint8_t expected[TEXT_MAX];
    uint8_t text[TEXT_MAX];
    size_t payload_bytes = unhex(vector->messages[index].payload, payload);
    size_t expected_bytes = unhex(vector->messages[index].ciphertext, expected);
    assert_int_equal(expected_bytes, payload_bytes + NOISE_TAG_BYTES);
    noise__cipher_encrypt(send, NULL, 0, payload, payload_bytes, text);
    assert_memory_equal(text, expected, expected_bytes);
    assert_int_equal(noise__cipher_decrypt(receive, NULL, 0, expected, expected_bytes, text), 0);
    assert_memory_equal(text, payload, payload_bytes);
}

/* PEER-5: published vectors, byte for byte. */
static void test_peer5_published_vectors(void **state)
{
    (void)state;
    size_t vector_count = sizeof VECTORS / sizeof VECTORS[0];
    assert_int_equal(vector_count, 4);
    for (size_t i = 0; i < vector_count; i++) {
        struct noise noise[2];
        struct noise_cipher send[2];
        struct noise_cipher receive[2];
        open_pair(&VECTORS[i], noise);
        for (unsigned message = 0; message < NOISE_MESSAGE_COUNT; message++)
            check_handshake_message(&VECTORS[i], message, noise);
        for (unsigned side = 0; side < 2; side++) {
            assert_true(noise__done(&noise[side]));
            noise__split(&noise[side], &send[side], &receive[side]);
        }
        check_transport_message(&VECTORS[i], 3, &send[0], &receive[1]);
        check_transport_message(&VECTORS[i], 4, &send[1], &receive[0]);
        assert_memory_equal(noise[0].remote_static, noise[1].static_public, NOISE_KEY_BYTES);
        assert_memory_equal(noise[1].remote_static, noise[0].static_public, NOISE_KEY_BYTES);
    }
}

/* Every single changed bit of every message is noticed, and the state stays usable. */
static void test_peer5_tampered_messages_are_refused(void **state)
{
    (void)state;
    struct noise noise[2];
    open_pair(&VECTORS[1], noise);
    for (unsigned index = 0; index < NOISE_MESSAGE_COUNT; index++) {
        uint8_t message[TEXT_MAX];
        uint8_t payload[TEXT_MAX];
        size_t payload_bytes = 0;
        size_t message_bytes = unhex(VECTORS[1].messages[index].ciphertext, message);
        for (size_t bit = 0; bit < message_bytes * 8; bit++) {
            message[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            assert_int_equal(noise__read(&noise[1 - index % 2], message, message_bytes, payload,
                                         sizeof payload, &payload_bytes),
                             E_AUTH);
            message[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        check_handshake_message(&VECTORS[1], index, noise);
    }
}

static void test_length_and_turn(void **state)
{
    (void)state;
    struct noise noise[2];
    uint8_t message[TEXT_MAX];
    uint8_t payload[TEXT_MAX];
    size_t message_bytes = 0;
    size_t payload_bytes = 77;
    open_pair(&VECTORS[1], noise);
    /* Not its turn. */
    assert_int_equal(noise__write(&noise[1], NULL, 0, message, sizeof message, &message_bytes),
                     E_INVALID);
    assert_int_equal(noise__read(&noise[0], message, 100, payload, sizeof payload, &payload_bytes),
                     E_INVALID);
    /* No room. */
    for (size_t room = 0; room < noise__overhead(0) + 10; room++)
        assert_int_equal(noise__write(&noise[0], (const uint8_t *)"0123456789", 10, message, room,
                                      &message_bytes),
                         E_TOO_LARGE);
    /* Too short to be a message, or too long for the payload's room. */
    message_bytes = unhex(VECTORS[1].messages[0].ciphertext, message);
    for (size_t length = 0; length < noise__overhead(0); length++)
        assert_int_equal(
            noise__read(&noise[1], message, length, payload, sizeof payload, &payload_bytes),
            E_MALFORMED);
    assert_int_equal(noise__read(&noise[1], message, message_bytes, payload, 9, &payload_bytes),
                     E_MALFORMED);
    assert_int_equal(payload_bytes, 77);
    check_handshake_message(&VECTORS[1], 0, noise);
}

/* An outsider's first message fails before any DH or answer. */
static void test_peer7_wrong_secret(void **state)
{
    (void)state;
    struct noise noise[2];
    uint8_t message[TEXT_MAX];
    uint8_t payload[TEXT_MAX];
    size_t payload_bytes = 0;
    open_pair(&VECTORS[0], noise);
    noise[1].psk[31] ^= 1;
    size_t message_bytes = unhex(VECTORS[0].messages[0].ciphertext, message);
    assert_int_equal(
        noise__read(&noise[1], message, message_bytes, payload, sizeof payload, &payload_bytes),
        E_AUTH);
    assert_int_equal(noise[1].message_index, 0);
    assert_false(noise__may_write(&noise[1]));
}

/* PEER-9: low-order points give an all-zero result and end the handshake. */
static void test_peer9_zero_dh_is_refused(void **state)
{
    (void)state;
    static const uint8_t low_order[2][NOISE_KEY_BYTES] = {{0}, {1}};
    uint8_t secret[NOISE_KEY_BYTES] = {5};
    uint8_t shared[NOISE_KEY_BYTES];
    for (unsigned i = 0; i < 2; i++) {
        struct noise noise[2];
        uint8_t message[TEXT_MAX];
        uint8_t payload[TEXT_MAX];
        size_t message_bytes = 0;
        size_t payload_bytes = 0;
        assert_int_equal(noise__dh(secret, low_order[i], shared), E_AUTH);
        /* A member that sends such a point as its ephemeral gets no answer. */
        open_pair(&VECTORS[0], noise);
        memcpy(noise[0].ephemeral_public, low_order[i], NOISE_KEY_BYTES);
        assert_int_equal(noise__write(&noise[0], NULL, 0, message, sizeof message, &message_bytes),
                         0);
        assert_int_equal(
            noise__read(&noise[1], message, message_bytes, payload, sizeof payload, &payload_bytes),
            0);
        assert_int_equal(noise__write(&noise[1], NULL, 0, message, sizeof message, &message_bytes),
                         E_AUTH);
        assert_int_equal(noise[1].message_index, 1);
    }
}

static void test_cipher_limits(void **state)
{
    (void)state;
    struct noise_cipher cipher = {.keyed = true};
    uint8_t text[NOISE_TAG_BYTES + 4];
    uint8_t plain[4] = "abc";
    struct noise_cipher copy = cipher;
    noise__cipher_encrypt(&cipher, NULL, 0, plain, sizeof plain, text);
    assert_int_equal(cipher.nonce, 1);
    /* A bad tag, or less than a tag, moves no nonce. */
    assert_int_equal(noise__cipher_decrypt(&copy, plain, 1, text, sizeof text, plain), E_AUTH);
    assert_int_equal(noise__cipher_decrypt(&copy, NULL, 0, text, NOISE_TAG_BYTES - 1, plain),
                     E_AUTH);
    assert_int_equal(copy.nonce, 0);
    assert_int_equal(noise__cipher_decrypt(&copy, NULL, 0, text, sizeof text, plain), 0);
    assert_memory_equal(plain, "abc", 4);
    /* The last nonce is reserved. */
    copy.nonce = UINT64_MAX;
    assert_int_equal(noise__cipher_decrypt(&copy, NULL, 0, text, sizeof text, plain), E_AUTH);
}

/* REKEY() is the first 32 bytes of the AEAD of zeros at the last nonce, computed here apart. */
static void test_rekey(void **state)
{
    (void)state;
    uint8_t key[NOISE_KEY_BYTES];
    uint8_t zeros[NOISE_KEY_BYTES] = {0};
    uint8_t nonce[12] = {0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255};
    uint8_t expected[NOISE_KEY_BYTES + NOISE_TAG_BYTES];
    memset(key, 9, sizeof key);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(expected, NULL, zeros, sizeof zeros, NULL, 0,
                                                    NULL, nonce, key);
    noise__rekey(key);
    assert_memory_equal(key, expected, NOISE_KEY_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer5_published_vectors),
        cmocka_unit_test(test_peer5_tampered_messages_are_refused),
        cmocka_unit_test(test_length_and_turn),
        cmocka_unit_test(test_peer7_wrong_secret),
        cmocka_unit_test(test_peer9_zero_dh_is_refused),
        cmocka_unit_test(test_cipher_limits),
        cmocka_unit_test(test_rekey),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
