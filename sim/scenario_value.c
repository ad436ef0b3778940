/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a scenario as text: one parser for YAML and --set, one writer for example and reports.
 */
#include <inttypes.h>
#include <string.h>

#include "bytes.h"
#include "quantity.h"
#include "scenario.h"

#define PPM 1000000ULL

static const struct quantity_unit no_units[] = {{NULL, 0}};
/* In bits per second. */
static const struct quantity_unit rate_units[] = {
    {"kbit/s", 1000ULL},
    {"Mbit/s", 1000000ULL},
    {"Gbit/s", 1000000000ULL},
    {"Tbit/s", 1000000000000ULL},
    {"bit/s", 1ULL},
    {"B/s", 8ULL},
    {"kB/s", 8000ULL},
    {"MB/s", 8000000ULL},
    {"GB/s", 8000000000ULL},
    {"KiB/s", 8ULL << 10},
    {"MiB/s", 8ULL << 20},
    {"GiB/s", 8ULL << 30},
    {NULL, 0},
};
static const struct quantity_unit time_units[] = {
    {"us", 1ULL},         {"ms", 1000ULL},    {"s", 1000000ULL},   {"min", 60000000ULL},
    {"h", 3600000000ULL}, {"m", 60000000ULL}, {"sec", 1000000ULL}, {NULL, 0},
};
static const struct quantity_unit nano_units[] = {
    {"ns", 1ULL}, {"us", 1000ULL}, {"ms", 1000000ULL}, {"s", 1000000000ULL}, {NULL, 0}};
/* Milliseconds per GB are picoseconds per byte. */
static const struct quantity_unit per_gb_units[] = {{"ms", 1ULL}, {"s", 1000ULL}, {NULL, 0}};
static const struct quantity_unit fraction_units[] = {{"%", PPM / 100}, {"ppm", 1ULL}, {NULL, 0}};

/* ---- numbers in their places ---- */

static void *place(void *base, const struct scenario_key *key)
{
    return (uint8_t *)base + key->offset;
}

static const void *place_of(const void *base, const struct scenario_key *key)
{
    return (const uint8_t *)base + key->offset;
}

uint64_t scenario_value_number(const struct scenario_key *key, const void *base)
{
    const void *value = place_of(base, key);
    if (key->bytes == sizeof(uint64_t))
        return *(const uint64_t *)value;
    if (key->bytes == sizeof(uint32_t))
        return *(const uint32_t *)value;
    return *(const bool *)value;
}

static void store(const struct scenario_key *key, void *base, uint64_t number)
{
    void *value = place(base, key);
    if (key->bytes == sizeof(uint64_t))
        *(uint64_t *)value = number;
    else if (key->bytes == sizeof(uint32_t))
        *(uint32_t *)value = (uint32_t)number;
    else
        *(bool *)value = number != 0;
}

bool scenario_key_is_list(const struct scenario_key *key)
{
    return key->type == SCENARIO_SIZES || key->type == SCENARIO_SLOW;
}

bool scenario_key_is_number(const struct scenario_key *key)
{
    switch (key->type) {
    case SCENARIO_UINT:
    case SCENARIO_SIZE:
    case SCENARIO_RATE:
    case SCENARIO_TIME:
    case SCENARIO_NANOS:
    case SCENARIO_PER_GB:
    case SCENARIO_FRACTION:
    case SCENARIO_PERCENT:
    case SCENARIO_MILLI:
        return true;
    default:
        return false;
    }
}

/* ---- reading ---- */

/* A number that needs a unit, or is 0. */
static int with_unit(const char *text, const struct quantity_unit *units, uint64_t *out)
{
    if (strcmp(text, "0") == 0) {
        *out = 0;
        return 0;
    }
    return quantity_parse_decimal(text, units, 0, out);
}

static int number_read(enum scenario_type type, const char *text, uint64_t *out)
{
    int err;
    switch (type) {
    case SCENARIO_SIZE:
    case SCENARIO_SIZES:
        return with_unit(text, quantity_sizes, out);
    case SCENARIO_RATE:
        err = with_unit(text, rate_units, out);
        *out /= err == 0 ? 8 : 1;
        return err;
    case SCENARIO_TIME:
        return with_unit(text, time_units, out);
    case SCENARIO_NANOS:
        return with_unit(text, nano_units, out);
    case SCENARIO_PER_GB:
        return with_unit(text, per_gb_units, out);
    case SCENARIO_FRACTION:
        return quantity_parse_decimal(text, fraction_units, PPM, out);
    case SCENARIO_PERCENT:
        err = quantity_parse_decimal(text, fraction_units, PPM, out);
        *out /= err == 0 ? PPM / 100 : 1;
        return err;
    case SCENARIO_MILLI:
        return quantity_parse_decimal(text, no_units, 1000, out);
    default:
        return quantity_parse(text, no_units, 1, out);
    }
}

static int number_parse(const struct scenario_key *key, const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (key->word != NULL && strcmp(text, key->word) == 0) {
        *out = key->word_value;
        return 0;
    }
    if (number_read(key->type, text, &value) != 0)
        return E_CONFIG;
    if ((value != 0 || !key->zero_ok) && (value < key->min || value > key->max))
        return E_CONFIG;
    *out = value;
    return 0;
}

static int choice_parse(const struct scenario_key *key, const char *text, uint64_t *out)
{
    for (uint64_t i = 0; key->choices[i] != NULL; i++) {
        if (strcmp(text, key->choices[i]) == 0) {
            *out = key->min + i;
            return 0;
        }
    }
    return E_CONFIG;
}

/* "3" nodes or "5%" of them. */
static int nodes_parse(const struct scenario_key *key, const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (strchr(text, '%') != NULL || strchr(text, '.') != NULL) {
        int err = quantity_parse_decimal(text, fraction_units, PPM, &value);
        if (err != 0 || value == 0 || value > PPM)
            return E_CONFIG;
        *out = value | SCENARIO_SHARE_BIT;
        return 0;
    }
    return number_parse(key, text, out);
}

static int text_parse(const struct scenario_key *key, const char *text, void *base)
{
    struct scenario_text value = {{0}};
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return E_CONFIG;
    if (length > key->max || text_copy(value.text, sizeof value.text, text) != 0)
        return E_CONFIG;
    *(struct scenario_text *)place(base, key) = value;
    return 0;
}

/* One more layer. The count stands behind the sizes in every struct scenario_image. */
static struct scenario_image *image_of(const struct scenario_key *key, void *base)
{
    return (struct scenario_image *)(void *)((uint8_t *)place(base, key) -
                                             offsetof(struct scenario_image, layers));
}

static int size_append(const struct scenario_key *key, const char *text, void *base)
{
    struct scenario_image *image = image_of(key, base);
    uint64_t value = 0;
    if (image->layer_count == IMAGE_LAYERS_MAX || number_parse(key, text, &value) != 0)
        return E_CONFIG;
    image->layers[image->layer_count++] = value;
    return 0;
}

static int slow_append(const char *text, struct scenario *scenario)
{
    uint64_t value = 0;
    int err;
    if (scenario->slow_count == 0) {
        err = quantity_parse_decimal(text, fraction_units, PPM, &value);
        if (err != 0 || value > PPM)
            return E_CONFIG;
        scenario->slow_ppm = value;
    } else {
        err = quantity_parse_decimal(text, no_units, 1000, &value);
        if (err != 0 || scenario->slow_count > 1 || value < 1000 || value > 1000000000)
            return E_CONFIG;
        scenario->slow_divisor_milli = value;
    }
    scenario->slow_count++;
    return 0;
}

static int zones_parse(const struct scenario_key *key, const char *text, void *base)
{
    struct scenario *scenario = base;
    uint64_t value = 0;
    if (number_parse(key, text, &value) != 0)
        return E_CONFIG;
    scenario->zone_list_count = 0;
    scenario->world.zone_count = (uint32_t)value;
    return 0;
}

int scenario_zone_append(const char *text, struct scenario *scenario)
{
    static const struct scenario_key count = {
        .type = SCENARIO_NODES, .min = 1, .max = WORLD_NODES_MAX};
    uint64_t value = 0;
    if (scenario->zone_list_count == SCENARIO_ZONES_MAX || nodes_parse(&count, text, &value) != 0)
        return E_CONFIG;
    scenario->zone_nodes[scenario->zone_list_count++] = value;
    return 0;
}

int scenario_value_parse(const struct scenario_key *key, const char *text, void *base)
{
    uint64_t value = 0;
    bool truth = false;
    int err;
    switch (key->type) {
    case SCENARIO_BOOL:
        err = truth_parse(text, &truth) == 0 ? 0 : E_CONFIG;
        value = truth;
        break;
    case SCENARIO_ENUM:
        err = choice_parse(key, text, &value);
        break;
    case SCENARIO_NODES:
        err = nodes_parse(key, text, &value);
        break;
    case SCENARIO_TEXT:
    case SCENARIO_PATH:
        return text_parse(key, text, base);
    case SCENARIO_SIZES:
        return size_append(key, text, base);
    case SCENARIO_SLOW:
        return slow_append(text, base);
    case SCENARIO_ZONES:
        return zones_parse(key, text, base);
    default:
        err = number_parse(key, text, &value);
        break;
    }
    if (err == 0)
        store(key, base, value);
    return err;
}

void scenario_list_reset(const struct scenario_key *key, void *base)
{
    if (key->type == SCENARIO_SIZES)
        image_of(key, base)->layer_count = 0;
    else if (key->type == SCENARIO_SLOW)
        ((struct scenario *)base)->slow_count = 0;
}

/* ---- writing ---- */

/* `value` / `scale` without needless zeros: 1.15, 3. */
static void decimal_text(uint64_t value, uint64_t scale, char *out, size_t out_bytes)
{
    uint64_t whole = value / scale, rest = value % scale;
    if (rest == 0) {
        (void)snprintf(out, out_bytes, "%" PRIu64, whole);
        return;
    }
    int digits = 0;
    for (uint64_t i = scale; i > 1; i /= 10)
        digits++;
    for (; rest % 10 == 0; rest /= 10)
        digits--;
    (void)snprintf(out, out_bytes, "%" PRIu64 ".%0*" PRIu64, whole, digits, rest);
}

/* A plain number gets the unit that counts one. */
static void unit_text(uint64_t value, const struct quantity_unit *units, char *out,
                      size_t out_bytes)
{
    const char *text = quantity_text(value, units, out, out_bytes);
    const char last = text[strlen(text) - 1];
    if (value == 0 || last < '0' || last > '9')
        return;
    for (const struct quantity_unit *unit = units; unit->name != NULL; unit++)
        if (unit->factor == 1)
            (void)snprintf(out, out_bytes, "%" PRIu64 "%s", value, unit->name);
}

/* Powers of ten: the largest unit below the value if three digits behind the point are enough:
 * 2.4Gbit/s, 1.5s. */
static void scaled_text(uint64_t value, const struct quantity_unit *units, char *out,
                        size_t out_bytes)
{
    const struct quantity_unit *best = &units[0];
    for (const struct quantity_unit *unit = units; unit->name != NULL; unit++)
        if (unit->factor <= value && unit->factor > best->factor)
            best = unit;
    if (value == 0 || best->factor < 1000 || value % (best->factor / 1000) != 0) {
        unit_text(value, units, out, out_bytes);
        return;
    }
    decimal_text(value / (best->factor / 1000), 1000, out, out_bytes);
    (void)snprintf(out + strlen(out), out_bytes - strlen(out), "%s", best->name);
}

const char *scenario_number_text(const struct scenario_key *key, uint64_t value, char *out,
                                 size_t out_bytes)
{
    /* Bits by powers of ten, minutes and hours where they fit: what people write. */
    static const struct quantity_unit bits[] = {{"kbit/s", 1000ULL},
                                                {"Mbit/s", 1000000ULL},
                                                {"Gbit/s", 1000000000ULL},
                                                {"bit/s", 1ULL},
                                                {NULL, 0}};
    static const struct quantity_unit times[] = {
        {"us", 1ULL}, {"ms", 1000ULL}, {"s", 1000000ULL}, {NULL, 0}};
    static const struct quantity_unit minutes[] = {
        {"s", 1000000ULL}, {"min", 60000000ULL}, {"h", 3600000000ULL}, {NULL, 0}};
    if (key->word != NULL && value == key->word_value)
        (void)snprintf(out, out_bytes, "%s", key->word);
    else if (key->type == SCENARIO_SIZE || key->type == SCENARIO_SIZES)
        unit_text(value, quantity_sizes, out, out_bytes);
    else if (key->type == SCENARIO_RATE)
        scaled_text(value * 8, bits, out, out_bytes);
    else if (key->type == SCENARIO_TIME && value != 0 && value % 60000000 == 0)
        (void)quantity_text(value, minutes, out, out_bytes);
    else if (key->type == SCENARIO_TIME)
        scaled_text(value, times, out, out_bytes);
    else if (key->type == SCENARIO_NANOS)
        scaled_text(value, nano_units, out, out_bytes);
    else if (key->type == SCENARIO_PER_GB)
        (void)snprintf(out, out_bytes, "%" PRIu64 "%s", value, value == 0 ? "" : "ms");
    else if (key->type == SCENARIO_FRACTION)
        decimal_text(value, PPM, out, out_bytes);
    else if (key->type == SCENARIO_PERCENT)
        (void)snprintf(out, out_bytes, "%" PRIu64 "%%", value);
    else if (key->type == SCENARIO_MILLI)
        decimal_text(value, 1000, out, out_bytes);
    else
        (void)snprintf(out, out_bytes, "%" PRIu64, value);
    return out;
}

static void sizes_text(const struct scenario_key *key, const struct scenario_image *image,
                       char *out, size_t out_bytes)
{
    size_t used = (size_t)snprintf(out, out_bytes, "[");
    for (uint32_t i = 0; i < image->layer_count; i++) {
        char size[40];
        int written = snprintf(out + used, out_bytes - used, "%s%s", i > 0 ? ", " : "",
                               scenario_number_text(key, image->layers[i], size, sizeof size));
        if (written < 0 || (size_t)written + 8 >= out_bytes - used) {
            (void)snprintf(out + used, out_bytes - used, "...]");
            return;
        }
        used += (size_t)written;
    }
    (void)snprintf(out + used, out_bytes - used, "]");
}

static void nodes_text(uint64_t value, char *out, size_t out_bytes)
{
    if ((value & SCENARIO_SHARE_BIT) == 0) {
        (void)snprintf(out, out_bytes, "%" PRIu64, value);
        return;
    }
    decimal_text(value & ~SCENARIO_SHARE_BIT, PPM / 100, out, out_bytes);
    (void)snprintf(out + strlen(out), out_bytes - strlen(out), "%%");
}

static void zones_text(const struct scenario *scenario, char *out, size_t out_bytes)
{
    size_t used = 0;
    if (scenario->zone_list_count == 0)
        (void)snprintf(out, out_bytes, "%" PRIu32, scenario->world.zone_count);
    for (uint32_t i = 0; i < scenario->zone_list_count && used + 32 < out_bytes; i++) {
        char one[32];
        nodes_text(scenario->zone_nodes[i], one, sizeof one);
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s%s", i == 0 ? "[" : ", ", one,
                                 i + 1 == scenario->zone_list_count ? "]" : "");
    }
}

static void slow_text(const struct scenario *scenario, char *out, size_t out_bytes)
{
    char fraction[32], divisor[32];
    decimal_text(scenario->slow_ppm, PPM, fraction, sizeof fraction);
    decimal_text(scenario->slow_divisor_milli, 1000, divisor, sizeof divisor);
    (void)snprintf(out, out_bytes, "[%s, %s]", fraction, divisor);
}

const char *scenario_value_text(const struct scenario_key *key, const void *base, char *out,
                                size_t out_bytes)
{
    switch (key->type) {
    case SCENARIO_BOOL:
        (void)snprintf(out, out_bytes, "%s", scenario_value_number(key, base) ? "true" : "false");
        break;
    case SCENARIO_ENUM:
        (void)snprintf(out, out_bytes, "%s",
                       key->choices[scenario_value_number(key, base) - key->min]);
        break;
    case SCENARIO_NODES:
        nodes_text(scenario_value_number(key, base), out, out_bytes);
        break;
    case SCENARIO_TEXT:
    case SCENARIO_PATH:
        (void)snprintf(out, out_bytes, "%s",
                       ((const struct scenario_text *)place_of(base, key))->text);
        break;
    case SCENARIO_SIZES:
        sizes_text(
            key,
            (const struct scenario_image *)(const void *)((const uint8_t *)base + key->offset -
                                                          offsetof(struct scenario_image, layers)),
            out, out_bytes);
        break;
    case SCENARIO_ZONES:
        zones_text(base, out, out_bytes);
        break;
    case SCENARIO_SLOW:
        slow_text(base, out, out_bytes);
        break;
    default:
        (void)scenario_number_text(key, scenario_value_number(key, base), out, out_bytes);
        break;
    }
    return out;
}

const char *scenario_key_range(const struct scenario_key *key, char out[SCENARIO_RANGE_BYTES])
{
    char min[40], max[40];
    size_t used = 0;
    switch (key->type) {
    case SCENARIO_BOOL:
        (void)snprintf(out, SCENARIO_RANGE_BYTES, "true | false");
        break;
    case SCENARIO_ENUM:
        for (size_t i = 0; key->choices[i] != NULL; i++)
            used += (size_t)snprintf(out + used, SCENARIO_RANGE_BYTES - used, "%s%s",
                                     i > 0 ? " | " : "", key->choices[i]);
        break;
    case SCENARIO_TEXT:
    case SCENARIO_PATH:
        (void)snprintf(out, SCENARIO_RANGE_BYTES, "at most %" PRIu64 " characters on one line",
                       key->max);
        break;
    case SCENARIO_SLOW:
        (void)snprintf(out, SCENARIO_RANGE_BYTES,
                       "[fraction from 0 to 1, divisor from 1 to 1000000], as [0.03, 10]");
        break;
    default:
        (void)snprintf(out, SCENARIO_RANGE_BYTES, "%s%s%s%s..%s%s%s",
                       key->word != NULL ? key->word : "", key->word != NULL ? " or " : "",
                       key->zero_ok && key->min > 0 ? "0 or " : "",
                       scenario_number_text(key, key->min, min, sizeof min),
                       scenario_number_text(key, key->max, max, sizeof max),
                       key->type == SCENARIO_NODES ? ", or a share as 5%" : "",
                       key->type == SCENARIO_SIZES ? ", at most 128 of them" : "");
        break;
    }
    return out;
}
