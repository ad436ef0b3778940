/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Introduction: how a node presents itself, inside the encrypted payloads of the TCP handshake and
 * of the datagram hello alike. It begins with the offer (minor version, features, mesh address),
 * which the initiator of a TCP session already states in its first message; the proof (identity
 * key, signature over the session key) follows.
 *
 * Bytes after what we know are skipped: version N+1 of the same major may add fields at the end.
 */
#ifndef SHOAL_SESSION_INTRO_H
#define SHOAL_SESSION_INTRO_H

#include "session.h"

/* 2 minor version, 4 features, 16 ip, 2 port */
#define INTRO_OFFER_BYTES 24
/* the offer, 32 identity key, 64 signature */
#define INTRO_BYTES (INTRO_OFFER_BYTES + IDENTITY_KEY_BYTES + 64)

/* Features: what a side can use, bulk ciphers first. The agreed set is what both name (PEER-6). */
#define FEATURE_CHACHA20_POLY1305 0x1u
/* Its host takes several messages in one datagram. What they look like is the host's. */
#define FEATURE_BUNDLES 0x2u
/* Named by sides that are faster with it; datagrams never use it. */
#define FEATURE_AES_256_GCM 0x4u

struct intro {
    uint16_t version_minor;
    uint32_t features;
    struct peer_addr addr;
    struct identity_key key;
    uint8_t signature[64];
};

/* Ours: the identity's key and signature, our address, version and features. */
void intro__own(const struct identity *identity, const struct peer_addr *self_addr,
                struct intro *out);
/* Writes the whole introduction; its first INTRO_OFFER_BYTES are the offer. */
void intro__encode(const struct intro *intro, uint8_t out[INTRO_BYTES]);
/* Reads an offer; key and signature of `out` are zero. 0, E_MALFORMED (too short, port 0),
 * E_VERSION (no common cipher). */
MUST_USE int intro__decode_offer(const uint8_t *bytes, size_t byte_count, struct intro *out);
/* Reads a whole introduction. Errors as intro__decode_offer. */
MUST_USE int intro__decode(const uint8_t *bytes, size_t byte_count, struct intro *out);

/* What an introduction is judged against; all borrowed. */
struct intro_judge {
    const struct admission *admission;
    const struct peer_addr *self_addr;
    const struct peer_addr *transport; /* where it came from; NULL: any address will do */
};
/* Address part: the announced IP is the transport's, and it is not our own address (PEER-4).
 * 0 or E_AUTH. */
MUST_USE int intro__check_addr(const struct intro_judge *judge, const struct intro *intro);
/*
 * All of it: address, signature over static_public (PEER-1), deny list (PEER-8). 0 with *out
 * filled; E_AUTH, E_DENIED.
 */
MUST_USE int intro__admit(const struct intro_judge *judge, const struct intro *intro,
                          const uint8_t static_public[32], struct session_peer *out);

#endif
