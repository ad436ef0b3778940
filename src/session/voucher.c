/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vouchers: what a node that read a piece from the origin signs (INT-6). When they are asked for,
 * passed on and believed is transfer's; this file signs and verifies one.
 */
#include "session.h"

#include <string.h>

#include <sodium.h>

#include "bytes.h"

/*
 * The signed statement. It names the signer's node id too, so that whoever passes a voucher on
 * cannot turn the blame for a false hash to another node.
 */
static const char VOUCHER_CONTEXT[] = "shoal voucher";
#define CONTEXT_BYTES   (sizeof VOUCHER_CONTEXT - 1)
#define STATEMENT_BYTES (CONTEXT_BYTES + BLOB_KEY_BYTES + NODE_ID_BYTES + 4 + 4 + PIECE_HASH_BYTES)
static_assert(VOUCHER_SIGNATURE_BYTES == crypto_sign_ed25519_BYTES, "signature length");

static void statement_of(const struct blob_key *blob, const struct voucher *voucher,
                         uint8_t out[STATEMENT_BYTES])
{
    uint8_t *at = out;
    memcpy(at, VOUCHER_CONTEXT, CONTEXT_BYTES);
    at += CONTEXT_BYTES;
    memcpy(at, blob->bytes, BLOB_KEY_BYTES);
    at += BLOB_KEY_BYTES;
    memcpy(at, voucher->signer.bytes, NODE_ID_BYTES);
    at += NODE_ID_BYTES;
    store_be32(at, voucher->piece_index);
    store_be32(at + 4, voucher->piece_bytes);
    memcpy(at + 8, voucher->hash.bytes, PIECE_HASH_BYTES);
}

void voucher_sign(const struct identity *identity, const struct blob_key *blob,
                  struct voucher *voucher)
{
    uint8_t statement[STATEMENT_BYTES];
    voucher->signer_key = identity->public_key;
    statement_of(blob, voucher, statement);
    (void)crypto_sign_ed25519_detached(voucher->signature, NULL, statement, sizeof statement,
                                       identity->secret_key);
}

int voucher_verify(const struct blob_key *blob, const struct voucher *voucher)
{
    uint8_t statement[STATEMENT_BYTES];
    statement_of(blob, voucher, statement);
    int failed = crypto_sign_ed25519_verify_detached(voucher->signature, statement,
                                                     sizeof statement, voucher->signer_key.bytes);
    return failed == 0 ? 0 : E_VOUCHER;
}
