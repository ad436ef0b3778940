/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of a size that agents would not choose; see piece_size.c. */
#ifndef SHOAL_SIM_PIECE_SIZE_H
#define SHOAL_SIM_PIECE_SIZE_H

#include "piece_map.h"

/* From now on all blobs of this process are cut so: a power of two, PIECE_BYTES_MIN to
 * PIECE_BYTES_MAX, or more where a blob would have too many pieces; 0: as agents do. Before the
 * first world is made. No effect in programs that are not linked for it (shoal-sim is). */
void piece_size_set(uint32_t piece_bytes);

#endif
