/* SPDX-License-Identifier: Apache-2.0 */
/* Topology labels: validation and distance (DESIGN §2). */
#ifndef SHOAL_TOPOLOGY_H
#define SHOAL_TOPOLOGY_H

#include "err.h"
#include "types.h"

/* Copies a label: at most LABEL_BYTES_MAX of [A-Za-z0-9._:/-]; empty is allowed. 0, E_TOO_LARGE or
 * E_MALFORMED; `out` unchanged on error. */
MUST_USE int label_set(struct label *out, const char *text, size_t text_bytes);
bool label_equal(const struct label *a, const struct label *b);
/* True if both are in the same zone; two nodes without a zone label are in one zone. */
bool topology_same_zone(const struct topology *a, const struct topology *b);
/* vSwitch (equal and non-empty) < zone < region < elsewhere. Equal empty zones count as one zone,
 * equal empty regions as one region. */
enum distance topology_distance(const struct topology *a, const struct topology *b);
/* "vswitch", "zone", "region", "elsewhere": label values of metrics and reports. */
const char *distance_name(enum distance distance);

#endif
