/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C: detects torn and rotten records early. Never part of an integrity decision (INT-4). */
#ifndef SHOAL_CACHE_CRC32C_H
#define SHOAL_CACHE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C of a span; `bytes` is borrowed. Any thread. */
uint32_t crc32c(const void *bytes, size_t byte_count);

#endif
