/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets in use and the outer MAC of datagrams; see dgram_secret.h. */
#include "dgram_secret.h"

#include <string.h>

#include <sodium.h>

#include "admission_key.h"
#include "log.h"
#include "wire.h"

static_assert(DGRAM_MAC_BYTES == crypto_shorthash_siphash24_BYTES, "SipHash-2-4");
static_assert(sizeof((struct dgram_secret *)0)->mac_key == crypto_shorthash_siphash24_KEYBYTES,
              "SipHash key");
/* The purposes carry the major version: other majors are outsiders. */
static_assert(WIRE_VERSION_MAJOR == 1, "purposes below name it");
#define PURPOSE_MAC   "shoal 1 dgram mac"
#define PURPOSE_HELLO "shoal 1 dgram hello"
#define PURPOSE_PAIR  "shoal 1 dgram pair"

static bool unchanged(const struct dgram_secrets *secrets, const struct admission *admission)
{
    if (secrets->count != admission->secret_count)
        return false;
    for (unsigned i = 0; i < secrets->count; i++) {
        if (sodium_memcmp(secrets->slots[i].secret, admission->secrets[i], CLUSTER_SECRET_BYTES) !=
            0)
            return false;
    }
    return true;
}

/* The slot of the same secret before the change keeps its tag; a new secret gets a new one. */
static void fill_slot(struct dgram_secrets *secrets, const struct dgram_secrets *before,
                      const struct admission *admission, unsigned slot_index)
{
    struct dgram_secret *slot = &secrets->slots[slot_index];
    const uint8_t *secret = admission->secrets[slot_index];
    for (unsigned i = 0; i < before->count; i++) {
        if (sodium_memcmp(before->slots[i].secret, secret, CLUSTER_SECRET_BYTES) == 0) {
            *slot = before->slots[i];
            return;
        }
    }
    memcpy(slot->secret, secret, CLUSTER_SECRET_BYTES);
    admission__derive(admission, secret, PURPOSE_MAC, slot->mac_key, sizeof slot->mac_key);
    admission__derive(admission, secret, PURPOSE_HELLO, slot->hello_key, sizeof slot->hello_key);
    admission__derive(admission, secret, PURPOSE_PAIR, slot->pair_key, sizeof slot->pair_key);
    slot->tag = ++secrets->next_tag;
}

bool dgram__secrets_refresh(struct dgram_secrets *secrets, const struct admission *admission,
                            uint64_t now_us)
{
    if (unchanged(secrets, admission))
        return false;
    ASSERT(admission__valid(admission));
    struct dgram_secrets before = *secrets;
    sodium_memzero(secrets->slots, sizeof secrets->slots);
    for (unsigned i = 0; i < admission->secret_count; i++)
        fill_slot(secrets, &before, admission, i);
    secrets->count = admission->secret_count;
    secrets->changed_us = before.count == 0 ? 0 : now_us;
    sodium_memzero(&before, sizeof before);
    return true;
}

const struct dgram_secret *dgram__secret_by_tag(const struct dgram_secrets *secrets, uint32_t tag)
{
    for (unsigned i = 0; i < secrets->count; i++) {
        if (secrets->slots[i].tag == tag)
            return &secrets->slots[i];
    }
    return NULL;
}

static void mac_of(const struct dgram_secret *secret, const uint8_t *bytes, size_t byte_count,
                   uint8_t out[DGRAM_MAC_BYTES])
{
    ASSERT(byte_count >= DGRAM_MAC_BYTES);
    (void)crypto_shorthash_siphash24(out, bytes + DGRAM_MAC_BYTES, byte_count - DGRAM_MAC_BYTES,
                                     secret->mac_key);
}

const struct dgram_secret *dgram__secret_of(const struct dgram_secrets *secrets,
                                            const uint8_t *bytes, size_t byte_count)
{
    uint8_t mac[DGRAM_MAC_BYTES];
    if (byte_count < DGRAM_MAC_BYTES)
        return NULL;
    for (unsigned i = 0; i < secrets->count; i++) {
        mac_of(&secrets->slots[i], bytes, byte_count, mac);
        if (sodium_memcmp(mac, bytes, DGRAM_MAC_BYTES) == 0)
            return &secrets->slots[i];
    }
    return NULL;
}

void dgram__mac(const struct dgram_secret *secret, uint8_t *bytes, size_t byte_count)
{
    mac_of(secret, bytes, byte_count, bytes);
}

void dgram__secrets_close(struct dgram_secrets *secrets)
{
    sodium_memzero(secrets, sizeof *secrets);
}
