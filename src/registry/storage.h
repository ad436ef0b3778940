/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by registry_table.c and storage.c: where a registry's object storage lies. */
#ifndef SHOAL_REGISTRY_STORAGE_H
#define SHOAL_REGISTRY_STORAGE_H

#include "registry.h"

/* Bytes of the entry's place that the URL begins with, byte for byte; 0: it lies in none of them,
 * or a dot segment would lead out of it. */
size_t storage__place_bytes(const struct registry_entry *entry, const char *url);

#endif
