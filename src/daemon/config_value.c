/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of the configuration as text: parsing into struct config by the key's type and range, and
 * back. One parser serves YAML, environment, --set and the defaults.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "quantity.h"

#define SECOND_US UINT64_C(1000000)

static const struct quantity_unit time_units[] = {
    {"ms", 1000ULL}, {"s", SECOND_US}, {"m", 60 * SECOND_US}, {"h", 3600 * SECOND_US}, {NULL, 0},
};

static void *place(struct config *config, size_t offset)
{
    return (uint8_t *)config + offset;
}

static const void *place_of(const struct config *config, size_t offset)
{
    return (const uint8_t *)config + offset;
}

static int number_parse(const struct config_key *key, const char *text, uint64_t *out)
{
    static const struct quantity_unit none[] = {{NULL, 0}};
    const struct quantity_unit *units = none;
    uint64_t plain = key->unit != 0 ? key->unit : 1;
    if (key->type == CONFIG_SIZE)
        units = quantity_sizes;
    if (key->type == CONFIG_SECONDS) {
        units = time_units;
        plain = SECOND_US;
    }
    uint64_t value = 0;
    int err = quantity_parse(text, units, plain, &value);
    if (err != 0)
        return E_CONFIG;
    bool zero = value == 0 && (key->flags & CONFIG_KEY_ZERO_OK) != 0;
    if (!zero && (value < key->min || value > key->max))
        return E_CONFIG;
    *out = value;
    return 0;
}

static int choice_parse(const struct config_key *key, const char *text, uint64_t *out)
{
    for (uint64_t i = 0; key->choices[i] != NULL; i++) {
        if (strcmp(text, key->choices[i]) == 0) {
            *out = i + 1;
            return 0;
        }
    }
    return E_CONFIG;
}

/* Printable, no blanks: nothing of ours needs them, and they are typing errors more often. */
static bool text_clean(const char *text, bool blanks)
{
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++)
        if (*c < 0x20 || *c == 0x7f || (*c == ' ' && !blanks))
            return false;
    return true;
}

static int text_parse(const char *text, uint64_t min, uint64_t max, bool blanks, char *out,
                      size_t out_bytes)
{
    size_t length = strlen(text);
    if (length < min || length > max || length >= out_bytes || !text_clean(text, blanks))
        return E_CONFIG;
    memset(out, 0, out_bytes);
    memcpy(out, text, length);
    return 0;
}

static int address_parse(const struct config_key *key, const char *text, struct peer_addr *out)
{
    struct peer_addr addr;
    memset(&addr, 0, sizeof addr);
    if (*text != '\0' && peer_addr_parse(text, (uint16_t)key->unit, &addr) != 0)
        return E_CONFIG;
    *out = addr;
    return 0;
}

static int port_parse(const struct config_key *key, const char *text, struct peer_addr *out)
{
    uint64_t port = 0;
    int err = number_parse(key, text, &port);
    if (err == 0)
        out->port = (uint16_t)port;
    return err;
}

static int list_append(const struct config_key *key, const char *text, struct config *out)
{
    uint32_t *count = place(out, key->count_offset);
    int err;
    if (*count >= key->max || *text == '\0')
        return E_CONFIG;
    if (key->type == CONFIG_TEXTS) {
        struct config_text *slot = (struct config_text *)place(out, key->offset) + *count;
        err = text_parse(text, 1, sizeof slot->text - 1, false, slot->text, sizeof slot->text);
    } else {
        struct config_path *slot = (struct config_path *)place(out, key->offset) + *count;
        err = text_parse(text, 1, sizeof slot->text - 1, true, slot->text, sizeof slot->text);
    }
    if (err == 0)
        (*count)++;
    return err;
}

int config_value_parse(const struct config_key *key, const char *text, struct config *out)
{
    void *value = place(out, key->offset);
    switch (key->type) {
    case CONFIG_BOOL:
        return truth_parse(text, value) == 0 ? 0 : E_CONFIG;
    case CONFIG_UINT:
    case CONFIG_SIZE:
    case CONFIG_SECONDS:
        return number_parse(key, text, value);
    case CONFIG_ENUM:
        return choice_parse(key, text, value);
    case CONFIG_TEXT:
        return text_parse(text, key->min, key->max, false, value, sizeof(struct config_text));
    case CONFIG_PATH:
        return text_parse(text, 0, CONFIG_PATH_BYTES - 1, true, value, sizeof(struct config_path));
    case CONFIG_LABEL:
        return label_set(value, text, strlen(text)) == 0 ? 0 : E_CONFIG;
    case CONFIG_ADDRESS:
        return address_parse(key, text, value);
    case CONFIG_PORT:
        return port_parse(key, text, value);
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
        return list_append(key, text, out);
    }
    return E_CONFIG; /* a type without a parser: the unit test of all keys would see it */
}

static void seconds_text(uint64_t us, char *out, size_t out_bytes)
{
    if (us == 0)
        (void)snprintf(out, out_bytes, "0");
    else if (us % (3600 * SECOND_US) == 0)
        (void)snprintf(out, out_bytes, "%" PRIu64 "h", us / (3600 * SECOND_US));
    else if (us % SECOND_US == 0)
        (void)snprintf(out, out_bytes, "%" PRIu64 "s", us / SECOND_US);
    else
        (void)snprintf(out, out_bytes, "%" PRIu64 "ms", us / 1000);
}

static void number_text(const struct config_key *key, uint64_t value, char *out, size_t out_bytes)
{
    if (key->type == CONFIG_SIZE)
        (void)quantity_text(value, quantity_sizes, out, out_bytes);
    else if (key->type == CONFIG_SECONDS)
        seconds_text(value, out, out_bytes);
    else
        (void)snprintf(out, out_bytes, "%" PRIu64, value);
}

/* Numbers without a unit of their own are shown as they are written. */
static uint64_t range_unit(const struct config_key *key)
{
    return key->type == CONFIG_UINT && key->unit != 0 ? key->unit : 1;
}

const char *config_key_range(const struct config_key *key, char out[CONFIG_RANGE_BYTES])
{
    char min[32];
    char max[32];
    size_t used = 0;
    out[0] = '\0';
    switch (key->type) {
    case CONFIG_BOOL:
        (void)snprintf(out, CONFIG_RANGE_BYTES, "true | false");
        break;
    case CONFIG_UINT:
    case CONFIG_SIZE:
    case CONFIG_SECONDS:
    case CONFIG_PORT:
        number_text(key, key->min / range_unit(key), min, sizeof min);
        number_text(key, key->max / range_unit(key), max, sizeof max);
        (void)snprintf(out, CONFIG_RANGE_BYTES, "%s%s..%s",
                       (key->flags & CONFIG_KEY_ZERO_OK) != 0 ? "0 or " : "", min, max);
        break;
    case CONFIG_ENUM:
        for (size_t i = 0; key->choices[i] != NULL; i++)
            used += (size_t)snprintf(out + used, CONFIG_RANGE_BYTES - used, "%s%s",
                                     i > 0 ? " | " : "", key->choices[i]);
        break;
    case CONFIG_TEXT:
        (void)snprintf(out, CONFIG_RANGE_BYTES,
                       "%" PRIu64 "..%" PRIu64 " characters without blanks", key->min, key->max);
        break;
    case CONFIG_PATH:
        (void)snprintf(out, CONFIG_RANGE_BYTES, "a path of at most %d bytes",
                       CONFIG_PATH_BYTES - 1);
        break;
    case CONFIG_LABEL:
        (void)snprintf(out, CONFIG_RANGE_BYTES, "at most %d of A-Z a-z 0-9 . _ : / -",
                       LABEL_BYTES_MAX);
        break;
    case CONFIG_ADDRESS:
        (void)snprintf(out, CONFIG_RANGE_BYTES, "IP address[:port]");
        break;
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
        (void)snprintf(out, CONFIG_RANGE_BYTES, "a list of at most %" PRIu64 ", none empty",
                       key->max);
        break;
    }
    return out;
}

static void list_text(const struct config_key *key, const struct config *config, char *out,
                      size_t out_bytes)
{
    uint32_t count = *(const uint32_t *)place_of(config, key->count_offset);
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        const char *text =
            key->type == CONFIG_TEXTS
                ? ((const struct config_text *)place_of(config, key->offset))[i].text
                : ((const struct config_path *)place_of(config, key->offset))[i].text;
        int written = snprintf(out + used, out_bytes - used, "%s%s", i > 0 ? ", " : "", text);
        if (written < 0 || (size_t)written >= out_bytes - used)
            return;
        used += (size_t)written;
    }
}

const char *config_value_text(const struct config_key *key, const struct config *config, char *out,
                              size_t out_bytes)
{
    const void *value = place_of(config, key->offset);
    char addr[PEER_ADDR_TEXT_BYTES];
    const struct peer_addr unset = {{0}, 0};
    out[0] = '\0';
    switch (key->type) {
    case CONFIG_BOOL:
        (void)snprintf(out, out_bytes, "%s", *(const bool *)value ? "true" : "false");
        break;
    case CONFIG_UINT:
    case CONFIG_SIZE:
    case CONFIG_SECONDS:
        number_text(key, *(const uint64_t *)value, out, out_bytes);
        break;
    case CONFIG_ENUM:
        (void)snprintf(out, out_bytes, "%s", key->choices[*(const uint64_t *)value - 1]);
        break;
    case CONFIG_TEXT:
        (void)snprintf(out, out_bytes, "%s", ((const struct config_text *)value)->text);
        break;
    case CONFIG_PATH:
        (void)snprintf(out, out_bytes, "%s", ((const struct config_path *)value)->text);
        break;
    case CONFIG_LABEL:
        (void)snprintf(out, out_bytes, "%s", ((const struct label *)value)->text);
        break;
    case CONFIG_ADDRESS:
    case CONFIG_PORT:
        if (!peer_addr_equal(value, &unset))
            (void)snprintf(out, out_bytes, "%s", peer_addr_text(value, addr));
        break;
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
        list_text(key, config, out, out_bytes);
        break;
    }
    return out;
}
