/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What session and dgram ask of another node's identity: that it signed the session key it uses.
 */
#ifndef SHOAL_SESSION_IDENTITY_KEY_H
#define SHOAL_SESSION_IDENTITY_KEY_H

#include <stdint.h>

#include "err.h"
#include "types.h"

/* Checks the Ed25519 signature of `key` over "shoal static" || static_public (PEER-1). 0 or E_AUTH.
 * 41 us. */
MUST_USE int identity__verify_static(const struct identity_key *key,
                                     const uint8_t static_public[32], const uint8_t signature[64]);

#endif
