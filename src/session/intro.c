/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and judging of introductions; see intro.h. */
#include "intro.h"

#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "identity_key.h"
#include "wire.h"

#define AT_MINOR     0
#define AT_FEATURES  2
#define AT_IP        6
#define AT_PORT      22
#define AT_KEY       INTRO_OFFER_BYTES
#define AT_SIGNATURE (AT_KEY + IDENTITY_KEY_BYTES)
static_assert(AT_SIGNATURE + 64 == INTRO_BYTES, "introduction layout");

void intro__own(const struct identity *identity, const struct peer_addr *self_addr,
                struct intro *out)
{
    out->version_minor = WIRE_VERSION_MINOR;
    out->features = FEATURE_CHACHA20_POLY1305 | FEATURE_BUNDLES;
    out->addr = *self_addr;
    out->key = identity->public_key;
    memcpy(out->signature, identity->static_signature, sizeof out->signature);
}

void intro__encode(const struct intro *intro, uint8_t out[INTRO_BYTES])
{
    store_be16(out + AT_MINOR, intro->version_minor);
    store_be32(out + AT_FEATURES, intro->features);
    memcpy(out + AT_IP, intro->addr.ip, sizeof intro->addr.ip);
    store_be16(out + AT_PORT, intro->addr.port);
    memcpy(out + AT_KEY, intro->key.bytes, IDENTITY_KEY_BYTES);
    memcpy(out + AT_SIGNATURE, intro->signature, sizeof intro->signature);
}

int intro__decode_offer(const uint8_t *bytes, size_t byte_count, struct intro *out)
{
    if (byte_count < INTRO_OFFER_BYTES)
        return E_MALFORMED;
    struct intro intro = {
        .version_minor = load_be16(bytes + AT_MINOR),
        .features = load_be32(bytes + AT_FEATURES),
    };
    memcpy(intro.addr.ip, bytes + AT_IP, sizeof intro.addr.ip);
    intro.addr.port = load_be16(bytes + AT_PORT);
    if (intro.addr.port == 0)
        return E_MALFORMED;
    if ((intro.features & FEATURE_CHACHA20_POLY1305) == 0)
        return E_VERSION;
    *out = intro;
    return 0;
}

int intro__decode(const uint8_t *bytes, size_t byte_count, struct intro *out)
{
    if (byte_count < INTRO_BYTES)
        return E_MALFORMED;
    struct intro intro;
    int err = intro__decode_offer(bytes, byte_count, &intro);
    if (err != 0)
        return err;
    memcpy(intro.key.bytes, bytes + AT_KEY, IDENTITY_KEY_BYTES);
    memcpy(intro.signature, bytes + AT_SIGNATURE, sizeof intro.signature);
    *out = intro;
    return 0;
}

int intro__check_addr(const struct intro_judge *judge, const struct intro *intro)
{
    if (peer_addr_equal(&intro->addr, judge->self_addr))
        return E_AUTH; /* ourselves, or somebody who takes our place */
    if (judge->transport != NULL &&
        memcmp(intro->addr.ip, judge->transport->ip, sizeof intro->addr.ip) != 0)
        return E_AUTH;
    return 0;
}

int intro__admit(const struct intro_judge *judge, const struct intro *intro,
                 const uint8_t static_public[32], struct session_peer *out)
{
    int err = intro__check_addr(judge, intro);
    if (err != 0)
        return err;
    err = identity__verify_static(&intro->key, static_public, intro->signature);
    if (err != 0)
        return err;
    if (admission_denied(judge->admission, &intro->key))
        return E_DENIED;
    struct session_peer peer = {
        .key = intro->key,
        .addr = intro->addr,
        .version_minor = intro->version_minor,
    };
    node_id_of(judge->admission->cluster_id, &intro->addr, &peer.id);
    *out = peer;
    return 0;
}
