/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent says of itself in JSON, written for people: short, aligned, the same words as the
 * keys. The JSON is parsed anew and read key by key, so that an agent of another version than the
 * command's leaves gaps, never an error.
 */
#ifndef SHOAL_DAEMON_STATUS_TEXT_H
#define SHOAL_DAEMON_STATUS_TEXT_H

#include <jansson.h>
#include <stdio.h>

#include "types.h"

#define BYTES_TEXT_BYTES 24
/* "12.3 MiB", "0 B"; three digits that count. `out` is returned. */
const char *bytes_text(uint64_t bytes, char out[BYTES_TEXT_BYTES]);
/* "3d4h", "5m12s", "8s". `out` is returned. */
const char *span_text(uint64_t seconds, char out[BYTES_TEXT_BYTES]);
/* A value of an object as a number or text; 0 or "" if it is not there or of another type. Borrowed
 * from the object. */
uint64_t json_number_at(const json_t *object, const char *key);
const char *json_text_at(const json_t *object, const char *key);

/* The page of `shoal status` from the object of /status (borrowed). Writes each zone once, at most
 * 40, with members that are not alive by address; at most 20 swarms. */
void status_text(const json_t *status, FILE *out);
/* The page of `shoal explain` from the object of /explain (borrowed), which is bounded (control.h).
 */
void explain_text(const json_t *answer, FILE *out);

#endif
