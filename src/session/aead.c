/* SPDX-License-Identifier: Apache-2.0 */
/* Ciphers by OpenSSL's EVP and by libgcrypt: see aead.h. */
#include "aead.h"

#include <string.h>

#include <gcrypt.h>
#include <openssl/evp.h>

/* ---- OpenSSL ---- */

static int evp_open(struct aead *aead, const uint8_t *key)
{
    const EVP_CIPHER *type =
        aead->kind == AEAD_AES_256_GCM ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context == NULL)
        return E_NO_MEMORY;
    if (EVP_CipherInit_ex(context, type, NULL, key, NULL, aead->seal ? 1 : 0) != 1) {
        EVP_CIPHER_CTX_free(context);
        return E_NO_MEMORY; /* both are built in, so only memory can be missing */
    }
    aead->context = context;
    return 0;
}

/* -1: direction as it was. */
static bool evp_set(struct aead *aead, const uint8_t *key, const uint8_t *nonce)
{
    return EVP_CipherInit_ex(aead->context, NULL, NULL, key, nonce, -1) == 1;
}

static bool evp_update(struct aead *aead, uint8_t *out, const uint8_t *in, size_t byte_count)
{
    int moved = 0;
    return EVP_CipherUpdate(aead->context, out, &moved, in, (int)byte_count) == 1 &&
           (size_t)moved == byte_count;
}

static bool evp_end(struct aead *aead)
{
    uint8_t rest[AEAD_TAG_BYTES]; /* a stream has none */
    int moved = 0;
    return EVP_CipherFinal_ex(aead->context, rest, &moved) == 1;
}

/* ---- libgcrypt ---- */

/* Once per process, before the first cipher, unless another library of the process did. */
static bool gcrypt_ready(void)
{
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P) != 0)
        return true;
    if (gcry_check_version(NULL) == NULL)
        return false;
    /* No page of locked memory: keys are in the heap with either library. */
    (void)gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
    (void)gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    return true;
}

static int gcrypt_open(struct aead *aead, const uint8_t *key)
{
    gcry_cipher_hd_t context;
    if (!gcrypt_ready() ||
        gcry_cipher_open(&context, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, 0) != 0)
        return E_INTERNAL;
    if (gcry_cipher_setkey(context, key, AEAD_KEY_BYTES) != 0) {
        gcry_cipher_close(context);
        return E_INTERNAL;
    }
    aead->context = context;
    return 0;
}

/* ---- either ---- */

static bool by_gcrypt(const struct aead *aead)
{
    return aead->kind == AEAD_AES_256_GCM_LIBGCRYPT;
}

int aead__init(struct aead *aead, enum aead_kind kind, const uint8_t key[AEAD_KEY_BYTES], bool seal)
{
    *aead = (struct aead){.kind = kind, .seal = seal};
    return by_gcrypt(aead) ? gcrypt_open(aead, key) : evp_open(aead, key);
}

void aead__close(struct aead *aead)
{
    if (by_gcrypt(aead))
        gcry_cipher_close(aead->context); /* either wipes its key and takes NULL */
    else
        EVP_CIPHER_CTX_free(aead->context);
    *aead = (struct aead){0};
}

bool aead__rekey(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES])
{
    if (by_gcrypt(aead))
        return gcry_cipher_setkey(aead->context, key, AEAD_KEY_BYTES) == 0;
    return evp_set(aead, key, NULL);
}

bool aead__begin(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                 size_t ad_bytes)
{
    if (by_gcrypt(aead))
        return gcry_cipher_setiv(aead->context, nonce, AEAD_NONCE_BYTES) == 0 &&
               gcry_cipher_authenticate(aead->context, ad, ad_bytes) == 0;
    return evp_set(aead, NULL, nonce) && evp_update(aead, NULL, ad, ad_bytes);
}

bool aead__update(struct aead *aead, uint8_t *out, const uint8_t *in, size_t byte_count)
{
    if (byte_count == 0)
        return true; /* EVP takes a zero length for the end */
    if (!by_gcrypt(aead))
        return evp_update(aead, out, in, byte_count);
    gcry_error_t failed = aead->seal
                              ? gcry_cipher_encrypt(aead->context, out, byte_count, in, byte_count)
                              : gcry_cipher_decrypt(aead->context, out, byte_count, in, byte_count);
    return failed == 0;
}

bool aead__seal_end(struct aead *aead, uint8_t tag[AEAD_TAG_BYTES])
{
    if (by_gcrypt(aead))
        return gcry_cipher_gettag(aead->context, tag, AEAD_TAG_BYTES) == 0;
    return evp_end(aead) &&
           EVP_CIPHER_CTX_ctrl(aead->context, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, tag) == 1;
}

bool aead__open_end(struct aead *aead, const uint8_t tag[AEAD_TAG_BYTES])
{
    uint8_t given[AEAD_TAG_BYTES]; /* EVP does not promise to leave it alone */
    if (by_gcrypt(aead))
        return gcry_cipher_checktag(aead->context, tag, AEAD_TAG_BYTES) == 0;
    memcpy(given, tag, sizeof given);
    return EVP_CIPHER_CTX_ctrl(aead->context, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_BYTES, given) == 1 &&
           evp_end(aead);
}
