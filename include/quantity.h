/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers with a unit behind them ("64MiB", "2.4 Gbit/s", "500ms") as people write them in
 * configuration files, and back. The agent's configuration and the simulator's scenarios share it.
 */
#ifndef SHOAL_QUANTITY_H
#define SHOAL_QUANTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct quantity_unit {
    const char *name; /* NULL ends a table */
    uint64_t factor;
};

/* KiB..TiB, Ki..Ti, B and kB..TB, in bytes, the powers of two first. Powers of ten and of two by
 * their proper names only: a bare "M" means different things to different people. */
extern const struct quantity_unit quantity_sizes[];

/* A whole number and one unit of the table directly behind it; without a unit it counts
 * `plain_factor` (0: a unit is required). 0, or E_MALFORMED (no digits, unknown unit, over 64 bits)
 * with *out untouched. */
MUST_USE int quantity_parse(const char *text, const struct quantity_unit *units,
                            uint64_t plain_factor, uint64_t *out);
/* The same, with up to nine digits behind a decimal point and one blank before the unit allowed.
 * What is finer than one is cut off. */
MUST_USE int quantity_parse_decimal(const char *text, const struct quantity_unit *units,
                                    uint64_t plain_factor, uint64_t *out);
/* true, yes, on, 1 and their opposites. 0, or E_MALFORMED with *out untouched. */
MUST_USE int truth_parse(const char *text, bool *out);
/* The value in the largest unit that divides it without a rest, in the table's order of preference
 * for equal factors; a plain number if none does. `out` is returned. */
const char *quantity_text(uint64_t value, const struct quantity_unit *units, char *out,
                          size_t out_bytes);

#endif
