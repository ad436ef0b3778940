/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal config show`: the effective configuration as YAML that can be loaded again, as JSON, and
 * the table of keys for the README. Secrets cannot appear: no key has one as its value.
 */
#include "config.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "bytes.h"

#define VALUE_BYTES (64 * 1024)

static const char *source_text(const struct config *config, enum config_source source,
                               uint32_t line, const char *variable, char *out, size_t out_bytes)
{
    switch (source) {
    case CONFIG_FROM_FILE:
        (void)snprintf(out, out_bytes, "%.300s:%u", config->file.text, (unsigned)line);
        return out;
    case CONFIG_FROM_ENVIRONMENT:
        (void)snprintf(out, out_bytes, "environment %s", variable);
        return out;
    case CONFIG_FROM_SET:
        return "--set";
    case CONFIG_FROM_DEFAULT:
        break;
    }
    return "default";
}

/* A label that nobody set is found out while the agent runs. */
static bool is_open_label(const struct config_key *key, const struct config *config)
{
    const struct label *label = (const void *)((const uint8_t *)config + key->offset);
    bool none =
        config->topology_detect_count == 0 || strcmp(config->topology_detect[0].text, "none") == 0;
    return key->type == CONFIG_LABEL && label->text[0] == '\0' && !none;
}

/* Source of the value with this index; `where` is storage for it. */
static const char *source_of(const struct config *config, size_t index, char *where,
                             size_t where_bytes)
{
    char variable[CONFIG_VARIABLE_BYTES];
    size_t count = 0;
    const struct config_key *key = &config_keys(&count)[index];
    if (is_open_label(key, config))
        return "topology.detect: /status of the running agent says it";
    return source_text(config, config->sources[index], config->lines[index],
                       config_key_variable(key, variable), where, where_bytes);
}

static bool is_list(const struct config_key *key)
{
    return key->type == CONFIG_TEXTS || key->type == CONFIG_PATHS;
}

/* Numbers, names and paths need no quotes; everything else gets them. */
static bool plain(const char *text)
{
    if (*text == '\0' || *text == '-' || *text == '.')
        return false;
    for (; *text != '\0'; text++) {
        bool letter = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z');
        bool digit = *text >= '0' && *text <= '9';
        if (!letter && !digit && strchr("/._-", *text) == NULL)
            return false;
    }
    return true;
}

static void yaml_put(const char *text, FILE *out)
{
    if (plain(text)) {
        (void)fputs(text, out);
        return;
    }
    (void)fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            (void)fputc('\\', out);
        (void)fputc(*text, out);
    }
    (void)fputc('"', out);
}

static const char *list_element(const struct config_key *key, const struct config *config,
                                uint32_t index)
{
    const uint8_t *base = (const uint8_t *)config + key->offset;
    if (key->type == CONFIG_TEXTS)
        return ((const struct config_text *)(const void *)base)[index].text;
    return ((const struct config_path *)(const void *)base)[index].text;
}

static uint32_t list_count(const struct config_key *key, const struct config *config)
{
    uint32_t count = 0;
    memcpy(&count, (const uint8_t *)config + key->count_offset, sizeof count);
    return count;
}

static void value_put(const struct config_key *key, const struct config *config, FILE *out)
{
    char text[CONFIG_PATH_BYTES];
    if (!is_list(key)) {
        yaml_put(config_value_text(key, config, text, sizeof text), out);
        return;
    }
    (void)fputc('[', out);
    for (uint32_t i = 0; i < list_count(key, config); i++) {
        if (i > 0)
            (void)fputs(", ", out);
        yaml_put(list_element(key, config, i), out);
    }
    (void)fputc(']', out);
}

static void text_put(const char *key, const char *text, FILE *out)
{
    if (text[0] == '\0')
        return;
    (void)fprintf(out, "\n    %s: ", key);
    yaml_put(text, out);
}

static void number_put(const char *key, uint64_t number, FILE *out)
{
    if (number != 0)
        (void)fprintf(out, "\n    %s: %" PRIu64, key, number);
}

/* "": what `transfer.copies` says. */
static const char *copies_name(const struct registry_entry *entry)
{
    static const char *const names[] = {"", "mesh", "zone"};
    return names[entry->copies];
}

/* As it was written: `true` is one of two sets, by where the registry is. */
static void private_put(const struct address_ranges *ranges, FILE *out)
{
    struct address_ranges network, with_loopback;
    char text[PEER_ADDR_TEXT_BYTES];
    if (ranges->count == 0)
        return;
    address_ranges_private(&network, false);
    address_ranges_private(&with_loopback, true);
    if (address_ranges_equal(ranges, &network) || address_ranges_equal(ranges, &with_loopback)) {
        (void)fputs("\n    allowPrivate: true", out);
        return;
    }
    for (unsigned i = 0; i < ranges->count; i++)
        (void)fprintf(out, "%s\"%s\"", i == 0 ? "\n    allowPrivate: [" : ", ",
                      addr_block_text(&ranges->block[i], text));
    (void)fputc(']', out);
}

static void p2p_put(const struct registry_entry *entry, FILE *out)
{
    if (!entry->p2p)
        (void)fputs("\n    p2p: false", out);
    for (unsigned i = 0; i < entry->p2p_rule_count; i++)
        (void)fprintf(out, "%s\"%s %s\"", i == 0 ? "\n    p2p: [" : ", ",
                      entry->p2p_rules[i].pattern, entry->p2p_rules[i].on ? "on" : "off");
    if (entry->p2p_rule_count > 0)
        (void)fputc(']', out);
}

/* A rule as it was written. */
#define TAG_RULE_BYTES (2 * REGISTRY_PATTERN_BYTES + 32)
static void tag_rule_text(const struct registry_tag_rule *rule, char *out, size_t out_bytes)
{
    char ttl[16];
    const char *word = ttl;
    (void)snprintf(ttl, sizeof ttl, "%us", (unsigned)rule->ttl_s);
    if (rule->resolve == REGISTRY_RESOLVE_TTL && rule->ttl_s == 0)
        word = "origin";
    else if (rule->resolve == REGISTRY_RESOLVE_FIXED)
        word = "fixed";
    else if (rule->resolve == REGISTRY_RESOLVE_OFF)
        word = "off";
    (void)snprintf(out, out_bytes, "%s:%s %s", rule->repositories, rule->tags, word);
}

static void tags_put(const struct registry_entry *entry, FILE *out)
{
    char rule[TAG_RULE_BYTES];
    for (unsigned i = 0; i < entry->tag_rule_count; i++) {
        tag_rule_text(&entry->tag_rules[i], rule, sizeof rule);
        (void)fprintf(out, "%s\"%s\"", i == 0 ? "\n    tags: [" : ", ", rule);
    }
    if (entry->tag_rule_count > 0)
        (void)fputc(']', out);
}

static void registry_put(const struct registry_entry *entry, FILE *out)
{
    (void)fputs("  - name: ", out);
    yaml_put(entry->name, out);
    text_put("endpoint", entry->endpoint, out);
    if (strncmp(entry->endpoint, "http://", 7) == 0)
        (void)fputs("\n    plainHttp: true", out);
    text_put("ca", entry->ca_file, out);
    text_put("clientCertificate", entry->client_cert, out);
    text_put("clientKey", entry->client_key, out);
    text_put("credentials", entry->credentials_file, out);
    if (entry->shared)
        (void)fputs("\n    shared: true", out);
    text_put("proxy", entry->proxy, out);
    number_put("connections", entry->connections_max, out);
    number_put("rateMbit", entry->rate_bytes_s / 125000, out);
    private_put(&entry->allow_private, out);
    if (entry->is_default)
        (void)fputs("\n    default: true", out);
    p2p_put(entry, out);
    if (entry->copies != REGISTRY_COPIES_DEFAULT)
        text_put("copies", copies_name(entry), out);
    tags_put(entry, out);
    if (entry->storage[0][0] != '\0') {
        (void)fputs("\n    storage: [", out);
        for (size_t i = 0; i < REGISTRY_STORAGE_MAX && entry->storage[i][0] != '\0'; i++) {
            (void)fputs(i == 0 ? "" : ", ", out);
            yaml_put(entry->storage[i], out);
        }
        (void)fputc(']', out);
    }
    if (entry->realm_hosts[0][0] != '\0') {
        (void)fputs("\n    realmHosts: [", out);
        for (size_t i = 0; i < 4 && entry->realm_hosts[i][0] != '\0'; i++) {
            (void)fputs(i > 0 ? ", " : "", out);
            yaml_put(entry->realm_hosts[i], out);
        }
        (void)fputc(']', out);
    }
    (void)fputc('\n', out);
}

void config_show(const struct config *config, FILE *out)
{
    char where[512];
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        if ((keys[i].flags & (CONFIG_KEY_ALIAS | CONFIG_KEY_LATER)) != 0)
            continue;
        (void)fprintf(out, "%s: ", keys[i].name);
        value_put(&keys[i], config, out);
        (void)fprintf(out, "  # %s\n", source_of(config, i, where, sizeof where));
    }
    (void)fprintf(
        out, "registries:  # %s\n",
        source_text(config, config->registries_source, 0, "SHOAL_REGISTRIES", where, sizeof where));
    for (uint32_t i = 0; i < config->registry_count; i++)
        registry_put(&config->registry_entries[i], out);
}

static json_t *value_json(const struct config_key *key, const struct config *config)
{
    char text[CONFIG_PATH_BYTES];
    if (key->type == CONFIG_BOOL) {
        bool on = false;
        memcpy(&on, (const uint8_t *)config + key->offset, sizeof on);
        return json_boolean(on);
    }
    if (key->type == CONFIG_UINT) {
        uint64_t number = 0;
        memcpy(&number, (const uint8_t *)config + key->offset, sizeof number);
        return json_integer((json_int_t)number);
    }
    if (!is_list(key))
        return json_string(config_value_text(key, config, text, sizeof text));
    json_t *list = json_array();
    for (uint32_t i = 0; list != NULL && i < list_count(key, config); i++)
        if (json_array_append_new(list, json_string(list_element(key, config, i))) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *p2p_json(const struct registry_entry *entry)
{
    json_t *rules = entry->p2p_rule_count > 0 ? json_array() : json_boolean(entry->p2p);
    for (unsigned i = 0; rules != NULL && i < entry->p2p_rule_count; i++) {
        const struct registry_p2p_rule *rule = &entry->p2p_rules[i];
        json_t *one = json_sprintf("%s %s", rule->pattern, rule->on ? "on" : "off");
        if (one == NULL || json_array_append_new(rules, one) != 0) {
            json_decref(rules);
            return NULL;
        }
    }
    return rules;
}

static json_t *tags_json(const struct registry_entry *entry)
{
    char rule[TAG_RULE_BYTES];
    json_t *rules = json_array();
    for (unsigned i = 0; rules != NULL && i < entry->tag_rule_count; i++) {
        tag_rule_text(&entry->tag_rules[i], rule, sizeof rule);
        if (json_array_append_new(rules, json_string(rule)) != 0) {
            json_decref(rules);
            return NULL;
        }
    }
    return rules;
}

static json_t *private_json(const struct address_ranges *ranges)
{
    char text[PEER_ADDR_TEXT_BYTES];
    json_t *blocks = json_array();
    for (unsigned i = 0; blocks != NULL && i < ranges->count; i++) {
        const char *block = addr_block_text(&ranges->block[i], text);
        if (json_array_append_new(blocks, json_string(block)) != 0) {
            json_decref(blocks);
            return NULL;
        }
    }
    return blocks;
}

static json_t *registries_json(const struct config *config)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list != NULL && i < config->registry_count; i++) {
        const struct registry_entry *entry = &config->registry_entries[i];
        json_t *one =
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:o, s:b, s:o, s:s, s:o}",
                      "name", entry->name, "endpoint", entry->endpoint, "ca", entry->ca_file,
                      "clientCertificate", entry->client_cert, "clientKey", entry->client_key,
                      "credentials", entry->credentials_file, "shared", (int)entry->shared, "proxy",
                      entry->proxy, "connections", (json_int_t)entry->connections_max, "rateMbit",
                      (json_int_t)(entry->rate_bytes_s / 125000), "allowPrivate",
                      private_json(&entry->allow_private), "default", (int)entry->is_default, "p2p",
                      p2p_json(entry), "copies", copies_name(entry), "tags", tags_json(entry));
        if (one == NULL || json_array_append_new(list, one) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

int config_show_json(const struct config *config, FILE *out)
{
    char where[512];
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    json_t *root = json_object();
    int failed = root == NULL;
    for (size_t i = 0; i < count && !failed; i++) {
        if ((keys[i].flags & (CONFIG_KEY_ALIAS | CONFIG_KEY_LATER)) != 0)
            continue;
        const char *source = source_of(config, i, where, sizeof where);
        json_t *one =
            json_pack("{s:o, s:s}", "value", value_json(&keys[i], config), "source", source);
        failed = one == NULL || json_object_set_new(root, keys[i].name, one) != 0;
    }
    if (!failed)
        failed = json_object_set_new(root, "registries", registries_json(config)) != 0;
    if (!failed)
        failed = json_dumpf(root, out, JSON_INDENT(2)) != 0 || fputc('\n', out) == EOF;
    json_decref(root);
    return failed ? E_NO_MEMORY : 0;
}

/* A '|' would end the table's cell. */
static void cell_put(const char *text, FILE *out)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            (void)fputc('\\', out);
        (void)fputc(*text, out);
    }
}

static void row_put(const struct config_key *key, FILE *out)
{
    char range[CONFIG_RANGE_BYTES];
    if ((key->flags & CONFIG_KEY_LATER) != 0)
        return;
    (void)fprintf(out, "| `%s` | ", key->name);
    if ((key->flags & CONFIG_KEY_ALIAS) != 0)
        (void)fprintf(out, "| ");
    else if (*key->fallback == '\0')
        (void)fprintf(out, "none | ");
    else
        (void)fprintf(out, "`%s` | ", key->fallback);
    cell_put(config_key_range(key, range), out);
    (void)fputs(" | ", out);
    if (key->canonical != NULL)
        (void)fprintf(out, "Same as `%s`.%s", key->canonical, *key->help != '\0' ? " " : "");
    cell_put(key->help, out);
    (void)fputs(" |\n", out);
}

void config_show_markdown(FILE *out)
{
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    (void)fputs("| Key | Default | Allowed | Meaning |\n|---|---|---|---|\n", out);
    for (size_t i = 0; i < count; i++)
        row_put(&keys[i], out);
    (void)fputs("| `registries` | built-in | a list of maps | `name` (as in `?ns=`, or a pattern), "
                "`endpoint`, `ca`, `clientCertificate`, `clientKey` (PEM files), `plainHttp`, "
                "`allowPrivate` (true, or the blocks of addresses that are not public), "
                "`credentials` (file with a "
                "login), `shared` (that login serves everybody on the node), `proxy`, "
                "`connections`, `rateMbit` (limits; 0: none), `default` (answers requests without "
                "`?ns=`), `p2p` (false keeps it off the mesh, or rules by repository), `copies` "
                "(`transfer.copies` for its content), `tags` (what is made of its tags), "
                "`realmHosts` (further token hosts), `storage` (URLs of its object storage). An "
                "entry replaces the built-in one of its name. |\n",
                out);
}
