/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers with units, see quantity.h. Integer arithmetic only: what is written is what is meant. */
#include "quantity.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Digits behind the point; with a factor below 2^34 the product of both stays within 64 bits. */
#define FRACTION_DIGITS_MAX 9

const struct quantity_unit quantity_sizes[] = {
    {"KiB", 1ULL << 10}, {"MiB", 1ULL << 20}, {"GiB", 1ULL << 30},   {"TiB", 1ULL << 40},
    {"Ki", 1ULL << 10},  {"Mi", 1ULL << 20},  {"Gi", 1ULL << 30},    {"Ti", 1ULL << 40},
    {"kB", 1000ULL},     {"MB", 1000000ULL},  {"GB", 1000000000ULL}, {"TB", 1000000000000ULL},
    {"B", 1ULL},         {NULL, 0},
};

/* Decimal digits at the start of *text; moves *text behind them. */
static int digits_parse(const char **text, uint64_t *out)
{
    const char *c = *text;
    uint64_t value = 0;
    if (*c < '0' || *c > '9')
        return E_MALFORMED;
    for (; *c >= '0' && *c <= '9'; c++) {
        uint64_t digit = (uint64_t)(*c - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return E_MALFORMED;
        value = value * 10 + digit;
    }
    *text = c;
    *out = value;
    return 0;
}

/* Factor of the unit that is all of `text`; 0 if there is none. */
static uint64_t factor_of(const char *text, const struct quantity_unit *units,
                          uint64_t plain_factor)
{
    if (*text == '\0')
        return plain_factor;
    for (const struct quantity_unit *unit = units; unit->name != NULL; unit++)
        if (strcmp(text, unit->name) == 0)
            return unit->factor;
    return 0;
}

/* value * factor / 10^digits without overflow on the way, for value < 10^digits <= 10^9. */
static uint64_t fraction_of(uint64_t value, uint64_t scale, uint64_t factor)
{
    return factor / scale * value + factor % scale * value / scale;
}

int quantity_parse(const char *text, const struct quantity_unit *units, uint64_t plain_factor,
                   uint64_t *out)
{
    uint64_t value = 0;
    int err = digits_parse(&text, &value);
    if (err != 0)
        return err;
    uint64_t factor = factor_of(text, units, plain_factor);
    if (factor == 0 || value > UINT64_MAX / factor)
        return E_MALFORMED;
    *out = value * factor;
    return 0;
}

int quantity_parse_decimal(const char *text, const struct quantity_unit *units,
                           uint64_t plain_factor, uint64_t *out)
{
    uint64_t value = 0, fraction = 0, scale = 1;
    int err = digits_parse(&text, &value);
    if (err == 0 && *text == '.') {
        const char *start = ++text;
        err = digits_parse(&text, &fraction);
        if (err == 0 && text - start > FRACTION_DIGITS_MAX)
            err = E_MALFORMED;
        for (; err == 0 && start < text; start++)
            scale *= 10;
    }
    if (err != 0)
        return err;
    if (*text == ' ' && text[1] != '\0')
        text++;
    uint64_t factor = factor_of(text, units, plain_factor);
    if (factor == 0 || value > UINT64_MAX / factor)
        return E_MALFORMED;
    uint64_t part = fraction_of(fraction, scale, factor);
    if (value * factor > UINT64_MAX - part)
        return E_MALFORMED;
    *out = value * factor + part;
    return 0;
}

const char *quantity_text(uint64_t value, const struct quantity_unit *units, char *out,
                          size_t out_bytes)
{
    const struct quantity_unit *best = NULL;
    for (const struct quantity_unit *unit = units; unit->name != NULL; unit++)
        if (value != 0 && value % unit->factor == 0 && unit->factor > 1 &&
            (best == NULL || value / unit->factor < value / best->factor))
            best = unit;
    if (best == NULL)
        (void)snprintf(out, out_bytes, "%" PRIu64, value);
    else
        (void)snprintf(out, out_bytes, "%" PRIu64 "%s", value / best->factor, best->name);
    return out;
}

int truth_parse(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return E_MALFORMED;
}
