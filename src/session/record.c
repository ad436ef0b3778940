/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing and opening of records. Keys and nonces are Noise's for either cipher. */
#include "record.h"

#include <string.h>

#include <sodium.h>

#include "bytes.h"
#include "log.h"
#include "noise.h"

#define HEADER_REKEYED     0x80000000u
#define HEADER_LENGTH_MASK 0x0001ffffu

static_assert(RECORD_BYTES_MAX <= HEADER_LENGTH_MASK, "the length fits its bits");
static_assert(RECORD_KEY_BYTES == NOISE_KEY_BYTES, "Split() gives record keys");
static_assert(RECORD_TAG_BYTES == AEAD_TAG_BYTES, "one AEAD");
static_assert(AEAD_NONCE_BYTES == NOISE_NONCE_BYTES, "one nonce");

int record__init(struct record_key *record, enum aead_kind cipher,
                 const uint8_t key[RECORD_KEY_BYTES], bool seal, uint64_t now_us)
{
    memset(record, 0, sizeof *record);
    int err = aead__init(&record->aead, cipher, key, seal);
    if (err != 0)
        return err;
    memcpy(record->key, key, RECORD_KEY_BYTES);
    record->since_us = now_us;
    return 0;
}

void record__close(struct record_key *record)
{
    aead__close(&record->aead);
    sodium_memzero(record, sizeof *record);
}

bool record__rekey_due(const struct record_key *record, uint64_t now_us, uint64_t rekey_bytes,
                       uint64_t rekey_us)
{
    return record->bytes >= rekey_bytes || record->records >= RECORD_REKEY_RECORDS ||
           (now_us > record->since_us && now_us - record->since_us >= rekey_us);
}

int record__rekey(struct record_key *record, uint64_t now_us)
{
    noise__rekey(record->key);
    record->bytes = 0;
    record->records = 0;
    record->since_us = now_us;
    return aead__rekey(&record->aead, record->key) ? 0 : E_INTERNAL;
}

static void nonce_of(const struct record_key *record, uint8_t out[NOISE_NONCE_BYTES])
{
    noise__nonce(record->counter, out);
    if (record->aead.kind != AEAD_CHACHA20_POLY1305)
        store_be64(out + NOISE_NONCE_BYTES - 8, record->counter);
}

/* Nonce and AD of the next record. */
static bool begin(struct record_key *record, const uint8_t header[RECORD_HEADER_BYTES])
{
    uint8_t nonce[NOISE_NONCE_BYTES];
    nonce_of(record, nonce);
    return aead__begin(&record->aead, nonce, header, RECORD_HEADER_BYTES);
}

static void count(struct record_key *record, size_t plain_bytes)
{
    record->counter++;
    record->records++;
    record->bytes += plain_bytes;
}

int record__seal(struct record_key *record, const struct record_input *input, bool rekeyed,
                 uint8_t *out, size_t *out_bytes)
{
    size_t plain_bytes = input->head_bytes + input->body_bytes;
    ASSERT(plain_bytes <= RECORD_BYTES_MAX);
    ASSERT(record->counter < UINT64_MAX);
    uint8_t *text = out + RECORD_HEADER_BYTES;
    store_be32(out, (uint32_t)plain_bytes | (rekeyed ? HEADER_REKEYED : 0));
    bool sealed =
        begin(record, out) && aead__update(&record->aead, text, input->head, input->head_bytes) &&
        aead__update(&record->aead, text + input->head_bytes, input->body, input->body_bytes) &&
        aead__seal_end(&record->aead, text + plain_bytes);
    if (!sealed)
        return E_INTERNAL;
    count(record, plain_bytes);
    *out_bytes = RECORD_HEADER_BYTES + plain_bytes + RECORD_TAG_BYTES;
    return 0;
}

int record__header(const uint8_t bytes[RECORD_HEADER_BYTES], struct record_header *out)
{
    uint32_t word = load_be32(bytes);
    size_t plain_bytes = word & HEADER_LENGTH_MASK;
    if ((word & ~(HEADER_REKEYED | HEADER_LENGTH_MASK)) != 0 || plain_bytes > RECORD_BYTES_MAX)
        return E_PROTOCOL;
    out->rekeyed = (word & HEADER_REKEYED) != 0;
    out->plain_bytes = plain_bytes;
    return 0;
}

int record__open(struct record_key *record, uint64_t now_us, uint8_t *bytes,
                 const struct record_header *header, uint8_t *out)
{
    uint8_t *text = bytes + RECORD_HEADER_BYTES;
    size_t plain_bytes = header->plain_bytes;
    if (record->counter == UINT64_MAX)
        return E_AUTH;
    if (header->rekeyed && record__rekey(record, now_us) != 0)
        return E_INTERNAL;
    bool fed = begin(record, bytes) && aead__update(&record->aead, out, text, plain_bytes);
    if (!fed || !aead__open_end(&record->aead, text + plain_bytes)) {
        sodium_memzero(out, plain_bytes);
        sodium_memzero(bytes, RECORD_HEADER_BYTES + plain_bytes + RECORD_TAG_BYTES);
        return fed ? E_AUTH : E_INTERNAL;
    }
    count(record, plain_bytes);
    return 0;
}
