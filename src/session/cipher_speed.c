/* SPDX-License-Identifier: Apache-2.0 */
/* Which bulk cipher this machine is quickest at, and by which library (session_choose_aes). */
#include <string.h>

#include "record.h"

/* The best of these rounds counts: whatever else the core does only makes a round longer. */
#define ROUNDS      24
#define ROUND_BYTES (16 * 1024)

/* Nanoseconds of the best round of sealing; UINT64_MAX without memory, or if the library will not,
 * as libgcrypt where FIPS 140 forbids nonces of one's own. */
static uint64_t best_ns(enum aead_kind kind, uint64_t (*clock_ns)(void))
{
    static const uint8_t key[RECORD_KEY_BYTES] = {1};
    uint8_t plain[ROUND_BYTES];
    uint8_t wire[RECORD_HEADER_BYTES + ROUND_BYTES + RECORD_TAG_BYTES];
    const struct record_input input = {.body = plain, .body_bytes = sizeof plain};
    struct record_key seal;
    uint64_t best = UINT64_MAX;
    memset(plain, 0, sizeof plain);
    int err = record__init(&seal, kind, key, true, 0);
    for (unsigned i = 0; err == 0 && i < ROUNDS; i++) {
        size_t wire_bytes = 0;
        uint64_t start_ns = clock_ns();
        err = record__seal(&seal, &input, false, wire, &wire_bytes);
        uint64_t took_ns = clock_ns() - start_ns;
        if (err == 0 && took_ns < best)
            best = took_ns;
    }
    record__close(&seal);
    return best;
}

enum session_aes session_choose_aes(uint64_t (*clock_ns)(void))
{
    uint64_t openssl_ns = best_ns(AEAD_AES_256_GCM, clock_ns);
    uint64_t libgcrypt_ns = best_ns(AEAD_AES_256_GCM_LIBGCRYPT, clock_ns);
    uint64_t chacha_ns = best_ns(AEAD_CHACHA20_POLY1305, clock_ns);
    bool libgcrypt = libgcrypt_ns < openssl_ns;
    uint64_t aes_ns = libgcrypt ? libgcrypt_ns : openssl_ns;
    if (aes_ns == UINT64_MAX || chacha_ns == UINT64_MAX || aes_ns > chacha_ns / 10 * 9)
        return SESSION_AES_NONE;
    return libgcrypt ? SESSION_AES_LIBGCRYPT : SESSION_AES_OPENSSL;
}

const char *session_aes_text(enum session_aes aes)
{
    static const char *const texts[] = {[SESSION_AES_NONE] = "chacha20-poly1305",
                                        [SESSION_AES_OPENSSL] = "aes-256-gcm",
                                        [SESSION_AES_LIBGCRYPT] = "aes-256-gcm/libgcrypt"};
    return texts[aes];
}
