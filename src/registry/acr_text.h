/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that grows inside a fixed buffer, percent-encoding, and the two forms of time that the cloud
 * uses. A text that does not fit is marked and given up as a whole: half a signature base is worse
 * than none. The caller owns the buffer, and wipes it if secrets went in.
 */
#ifndef SHOAL_REGISTRY_ACR_TEXT_H
#define SHOAL_REGISTRY_ACR_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct acr_text {
    char *bytes; /* zero-terminated after each call */
    size_t room; /* of the buffer, the zero included */
    size_t used;
    bool cut; /* something did not fit: worthless */
};

/* An empty text in a buffer of at least one byte. */
void acr__text_open(struct acr_text *text, char *buffer, size_t buffer_bytes);
/* Appends as it is. */
void acr__text_put(struct acr_text *text, const char *part);
/* Appends percent-encoded as RFC 3986 §2.3 wants it: all but A-Za-z0-9-_.~ as %XX (ACR.md §3). */
void acr__text_encode(struct acr_text *text, const char *part);
/* 0, or E_TOO_LARGE for a text that was cut. */
MUST_USE int acr__text_check(const struct acr_text *text);

/* "2026-01-02T03:04:05Z" and a zero. */
#define ACR_DATE_BYTES 21
/* Seconds since 1970 as such a text. Years beyond 9999 do not fit and become 1970. */
void acr__date_put(uint64_t wall_s, char out[ACR_DATE_BYTES]);
/* The way back, strictly. 0, E_MALFORMED. */
MUST_USE int acr__date_parse(const char *text, uint64_t *out_s);

#endif
