/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may talk: cluster secrets and the deny list (PEER-2, PEER-8). Loading them from files and
 * noticing changes is the daemon's.
 */
#include "session.h"

#include <string.h>

#include <sodium.h>

#include "admission_key.h"
#include "log.h"

static_assert(CLUSTER_SECRET_BYTES >= crypto_generichash_blake2b_KEYBYTES_MIN &&
                  CLUSTER_SECRET_BYTES <= crypto_generichash_blake2b_KEYBYTES_MAX,
              "a secret is a BLAKE2b key");

bool admission__valid(const struct admission *admission)
{
    return admission->secret_count >= 1 && admission->secret_count <= CLUSTER_SECRETS_MAX &&
           admission->denied_count <= DENIED_MAX && admission->cluster_id[0] != '\0' &&
           memchr(admission->cluster_id, '\0', sizeof admission->cluster_id) != NULL;
}

void admission__derive(const struct admission *admission, const uint8_t *secret,
                       const char *purpose, uint8_t *out, size_t out_bytes)
{
    ASSERT(out_bytes >= crypto_generichash_blake2b_BYTES_MIN);
    ASSERT(out_bytes <= crypto_generichash_blake2b_BYTES_MAX);
    crypto_generichash_blake2b_state state;
    (void)crypto_generichash_blake2b_init(&state, secret, CLUSTER_SECRET_BYTES, out_bytes);
    /* The terminating zero stands between the two, so that no pair runs into another. */
    (void)crypto_generichash_blake2b_update(&state, (const uint8_t *)purpose, strlen(purpose) + 1);
    (void)crypto_generichash_blake2b_update(
        &state, (const uint8_t *)admission->cluster_id,
        strnlen(admission->cluster_id, sizeof admission->cluster_id));
    (void)crypto_generichash_blake2b_final(&state, out, out_bytes);
    sodium_memzero(&state, sizeof state);
}

void admission_lookup_key(const struct admission *admission, uint8_t out[32])
{
    admission__derive(admission, admission->secrets[0], "shoal lookup", out, 32);
}

bool admission_denied(const struct admission *admission, const struct identity_key *key)
{
    for (unsigned i = 0; i < admission->denied_count && i < DENIED_MAX; i++) {
        if (memcmp(admission->denied[i].bytes, key->bytes, IDENTITY_KEY_BYTES) == 0)
            return true;
    }
    return false;
}
