/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys that datagrams draw from the cluster secrets, and the MAC in front of every datagram that
 * keeps outsiders out at the price of one SipHash per valid secret (DHT-1). Follows changes of the
 * admission, which the host may make between any two calls (PEER-8).
 */
#ifndef SHOAL_SESSION_DGRAM_SECRET_H
#define SHOAL_SESSION_DGRAM_SECRET_H

#include "session.h"

#define DGRAM_MAC_BYTES 8

struct dgram_secret {
    uint8_t secret[CLUSTER_SECRET_BYTES]; /* as copied from the admission, to notice a change */
    uint8_t mac_key[16];
    uint8_t hello_key[32]; /* seals introductions */
    uint8_t pair_key[32];  /* mixed into pairwise keys */
    uint32_t tag;          /* names this secret in keys derived from it; never reused */
};

struct dgram_secrets {
    struct dgram_secret slots[CLUSTER_SECRETS_MAX]; /* slots[0] starts hellos */
    unsigned count;
    uint32_t next_tag;
    uint64_t changed_us; /* last change; 0: none since the start */
};

/* Derives anew what changed; a secret that stays keeps its tag. True when anything changed. */
bool dgram__secrets_refresh(struct dgram_secrets *secrets, const struct admission *admission,
                            uint64_t now_us);
/* The secret of this tag, or NULL when it was removed. */
const struct dgram_secret *dgram__secret_by_tag(const struct dgram_secrets *secrets, uint32_t tag);
/* The secret under which a received datagram's MAC is right, or NULL: an outsider's. */
const struct dgram_secret *dgram__secret_of(const struct dgram_secrets *secrets,
                                            const uint8_t *bytes, size_t byte_count);
/* Writes the MAC over bytes[DGRAM_MAC_BYTES..] to the front. */
void dgram__mac(const struct dgram_secret *secret, uint8_t *bytes, size_t byte_count);
/* Wipes all. */
void dgram__secrets_close(struct dgram_secrets *secrets);

#endif
