/* SPDX-License-Identifier: Apache-2.0 */
/* JSON of others, bounded before jansson allocates for it (ORG-7), and memory that is wiped. */
#ifndef SHOAL_REGISTRY_JSON_BOUNDED_H
#define SHOAL_REGISTRY_JSON_BOUNDED_H

#include <jansson.h>

#include "err.h"

/* Parses a document of at most `bytes_max` bytes, 32 levels and 65,536 values, no key twice. 0 with
 * a reference in *root, E_MALFORMED, E_TOO_LARGE. */
MUST_USE int json__load(const char *json, size_t json_bytes, size_t bytes_max, json_t **root);
/* From now on jansson wipes what it frees, in the whole process: answers with keys in them leave
 * nothing behind (HRD-4). */
void json__wipe_freed(void);

#endif
