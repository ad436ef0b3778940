/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys that follow from a cluster secret, and the check of an admission before it is used.
 */
#ifndef SHOAL_SESSION_ADMISSION_KEY_H
#define SHOAL_SESSION_ADMISSION_KEY_H

#include "session.h"

/* True when counts are in range and the cluster id is a terminated, non-empty string. */
bool admission__valid(const struct admission *admission);

/* out = BLAKE2b(key = secret, purpose || 0 || cluster id), 16..64 bytes long. `secret` has
 * CLUSTER_SECRET_BYTES; `purpose` is one of our own constant strings. */
void admission__derive(const struct admission *admission, const uint8_t *secret,
                       const char *purpose, uint8_t *out, size_t out_bytes);

#endif
