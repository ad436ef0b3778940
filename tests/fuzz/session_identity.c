/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity files and introductions: what decodes encodes to the same bytes again; nothing else
 * decodes. Vouchers made of arbitrary bytes never verify.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <sodium.h>

#include "../../src/session/intro.h"
#include "../unit/session_world.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_identity(const uint8_t *data, size_t size)
{
    struct identity identity;
    uint8_t file[IDENTITY_FILE_BYTES];
    if (identity_decode(data, size, &identity) != 0)
        return;
    identity_encode(&identity, file);
    ASSERT(size == sizeof file);
    ASSERT(memcmp(file, data, size) == 0);
}

/* The same with the checksum put right, so that the fuzzer gets behind it. */
static void try_identity_checked(const uint8_t *data, size_t size)
{
    uint8_t file[IDENTITY_FILE_BYTES];
    if (size < IDENTITY_FILE_BYTES)
        return;
    memcpy(file, data, sizeof file);
    (void)crypto_generichash_blake2b(file + 144, 16, file, 144, NULL, 0);
    try_identity(file, sizeof file);
}

static void try_intro(const uint8_t *data, size_t size)
{
    struct intro intro;
    uint8_t again[INTRO_BYTES];
    if (intro__decode(data, size, &intro) != 0)
        return;
    ASSERT(size >= INTRO_BYTES);
    ASSERT(intro.addr.port != 0);
    intro__encode(&intro, again);
    ASSERT(memcmp(again, data, sizeof again) == 0);
}

static void try_voucher(const uint8_t *data, size_t size)
{
    struct voucher voucher;
    struct blob_key blob = {.bytes = {1}};
    if (size < sizeof voucher)
        return;
    memcpy(&voucher, data, sizeof voucher);
    ASSERT(voucher_verify(&blob, &voucher) == E_VOUCHER);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_identity(data, size);
    try_identity_checked(data, size);
    try_intro(data, size);
    try_voucher(data, size);
    return 0;
}
