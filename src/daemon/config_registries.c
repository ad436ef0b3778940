/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registries of the configuration: the entries known without being told, and those of the key
 * `registries`, merged by name. Plain http is possible only for an entry that asks for it by name
 * (ORG-6).
 */
#include "config.h"

#include <string.h>

#include "bytes.h"
#include "log.h"
#include "loop.h"
#include "quantity.h"

struct builtin {
    const char *name;
    const char *endpoint;
    const char *realm_host; /* token host that differs from the registry's (ORG-4); "" none */
};
static const struct builtin builtins[] = {
    {"docker.io", "https://registry-1.docker.io", "auth.docker.io"},
    {"ghcr.io", "https://ghcr.io", ""},
    {"quay.io", "https://quay.io", ""},
    {"registry.k8s.io", "https://registry.k8s.io", ""},
    {"gcr.io", "https://gcr.io", ""},
};
#define BUILTIN_COUNT (sizeof builtins / sizeof builtins[0])

#define MBIT_BYTES 125000 /* Mbit/s in bytes/s */
#define FLAG_RANGE "true | false"
#define HOST_RANGE "host[:port] in lower case"
#define STORAGE_RANGE                                                                              \
    "https://host[:port]/path/ with a slash at its end, at most 511 bytes, host in lower case"
#define NAME_RANGE HOST_RANGE ", *.host[:port], *"

static int refuse(struct config_error *error, const char *name, const char *value,
                  const char *range)
{
    return config_fail(error, "registries.%s: \"%.80s\" is not allowed; allowed: %s", name,
                       config_shown(value), range);
}

static int flag_set(bool *out, const char *name, const char *value, struct config_error *error)
{
    if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return refuse(error, name, value, FLAG_RANGE);
    *out = strcmp(value, "true") == 0;
    return 0;
}

static int host_set(char *out, size_t out_bytes, const char *name, const char *value,
                    struct config_error *error)
{
    if (!ref_host_valid(value, strlen(value)) || text_copy(out, out_bytes, value) != 0)
        return refuse(error, name, value, HOST_RANGE);
    return 0;
}

static int name_set(struct registry_entry *entry, const char *value, struct config_error *error)
{
    bool valid = registry_pattern_valid(value) || ref_host_valid(value, strlen(value));
    if (!valid || text_copy(entry->name, sizeof entry->name, value) != 0)
        return refuse(error, "name", value, NAME_RANGE);
    return 0;
}

static int realm_add(struct config_registry_draft *draft, const char *value,
                     struct config_error *error)
{
    size_t max = sizeof draft->entry.realm_hosts / sizeof draft->entry.realm_hosts[0];
    if (draft->realm_count >= max)
        return config_fail(error, "registries.realmHosts: more than %zu", max);
    char *slot = draft->entry.realm_hosts[draft->realm_count];
    int err = host_set(slot, sizeof draft->entry.realm_hosts[0], "realmHosts", value, error);
    if (err == 0)
        draft->realm_count++;
    return err;
}

/* "true", "false", or one block of a list. */
static int private_add(struct config_registry_draft *draft, const char *value,
                       struct config_error *error)
{
    struct address_ranges *ranges = &draft->entry.allow_private;
    bool flag = strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
    if (draft->private_set || (flag && ranges->count > 0))
        return config_fail(error, "registries.allowPrivate: true, false, or a list, not both");
    if (strcmp(value, "true") == 0)
        address_ranges_private(ranges, false);
    draft->private_set = flag;
    if (flag)
        return 0;
    if (ranges->count == ADDRESS_RANGES_MAX)
        return config_fail(error, "registries.allowPrivate: more than %d", ADDRESS_RANGES_MAX);
    if (address_ranges_add(ranges, value) != 0)
        return refuse(error, "allowPrivate", value,
                      "true | false | a list of blocks such as 10.0.0.0/8 or fd00::/8");
    return 0;
}

static bool is_this_machine(const char *host)
{
    struct address_ranges network, all;
    struct peer_addr addr;
    if (peer_addr_parse(host, 1, &addr) != 0)
        return strncmp(host, "localhost", 9) == 0 && (host[9] == ':' || host[9] == '\0');
    address_ranges_private(&network, false);
    address_ranges_private(&all, true);
    return address_ranges_hold(&all, addr.ip) && !address_ranges_hold(&network, addr.ip);
}

/* `allowPrivate: true` means a network, not this machine, unless the registry itself is on it. */
static void private_finish(struct config_registry_draft *draft)
{
    const char *scheme_end = strstr(draft->entry.endpoint, "://");
    ASSERT(scheme_end != NULL);
    if (draft->private_set && draft->entry.allow_private.count > 0)
        address_ranges_private(&draft->entry.allow_private, is_this_machine(scheme_end + 3));
}

/* "true", "false", or one rule of a list: "PATTERN on", "PATTERN off". */
static int p2p_set(struct registry_entry *entry, const char *value, struct config_error *error)
{
    static const char range[] =
        "true | false | a list of \"REPOSITORIES on\" or \"REPOSITORIES off\"";
    const char *blank = strchr(value, ' ');
    if (blank == NULL && entry->p2p_rule_count == 0 &&
        (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)) {
        entry->p2p = strcmp(value, "true") == 0;
        return 0;
    }
    if (entry->p2p_rule_count >= REGISTRY_P2P_RULES_MAX)
        return config_fail(error, "registries.p2p: more than %d", REGISTRY_P2P_RULES_MAX);
    struct registry_p2p_rule *rule = &entry->p2p_rules[entry->p2p_rule_count];
    size_t bytes = strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789._-/*");
    if (blank == NULL || value + bytes != blank ||
        (strcmp(blank, " on") != 0 && strcmp(blank, " off") != 0) ||
        text_copy_n(rule->pattern, sizeof rule->pattern, value, bytes) != 0 || bytes == 0)
        return refuse(error, "p2p", value, range);
    rule->on = strcmp(blank, " on") == 0;
    entry->p2p_rule_count++;
    return 0;
}

static const struct quantity_unit tag_times[] = {{"h", 3600}, {"m", 60}, {"s", 1}, {NULL, 0}};

/* What a rule for tags says: "origin", "fixed", "off", or for how long an answer counts. */
static int resolve_set(struct registry_tag_rule *rule, const char *word)
{
    uint64_t ttl_s = 0;
    rule->resolve = REGISTRY_RESOLVE_TTL;
    if (strcmp(word, "fixed") == 0)
        rule->resolve = REGISTRY_RESOLVE_FIXED;
    else if (strcmp(word, "off") == 0)
        rule->resolve = REGISTRY_RESOLVE_OFF;
    else if (strcmp(word, "origin") != 0 && (quantity_parse(word, tag_times, 0, &ttl_s) != 0 ||
                                             ttl_s == 0 || ttl_s > REGISTRY_TAG_TTL_MAX_S))
        return E_MALFORMED;
    rule->ttl_s = (uint32_t)ttl_s;
    return 0;
}

/* "REPOSITORIES[:TAGS] WORD", one of a list. */
static int tags_add(struct registry_entry *entry, const char *value, struct config_error *error)
{
    static const char name_bytes[] = "abcdefghijklmnopqrstuvwxyz0123456789._-/*";
    static const char tag_bytes[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-*";
    if (entry->tag_rule_count >= REGISTRY_TAG_RULES_MAX)
        return config_fail(error, "registries.tags: more than %d", REGISTRY_TAG_RULES_MAX);
    struct registry_tag_rule *rule = &entry->tag_rules[entry->tag_rule_count];
    const char *tags = "*", *at = value + strspn(value, name_bytes);
    size_t names = (size_t)(at - value), tags_count = 1;
    if (*at == ':') {
        tags = at + 1;
        tags_count = strspn(tags, tag_bytes);
        at = tags + tags_count;
    }
    if (names == 0 || tags_count == 0 || *at != ' ' || resolve_set(rule, at + 1) != 0 ||
        text_copy_n(rule->repositories, sizeof rule->repositories, value, names) != 0 ||
        text_copy_n(rule->tags, sizeof rule->tags, tags, tags_count) != 0)
        return refuse(error, "tags", value,
                      "a list of \"REPOSITORIES[:TAGS] origin | fixed | off | 1s..1h\"");
    entry->tag_rule_count++;
    return 0;
}

static int copies_set(struct registry_entry *entry, const char *value, struct config_error *error)
{
    if (strcmp(value, "mesh") == 0)
        entry->copies = REGISTRY_COPIES_MESH;
    else if (strcmp(value, "zone") == 0)
        entry->copies = REGISTRY_COPIES_ZONE;
    else
        return refuse(error, "copies", value, "mesh | zone");
    return 0;
}

/* "http://host[:port]"; user and password would be secrets in a configuration. */
static int proxy_set(struct registry_entry *entry, const char *value, struct config_error *error)
{
    static const char scheme[] = "http://";
    size_t bytes = strlen(value), skip = sizeof scheme - 1;
    if (bytes > skip && value[bytes - 1] == '/')
        bytes--;
    if (strncmp(value, scheme, skip) != 0 || !ref_host_valid(value + skip, bytes - skip) ||
        text_copy_n(entry->proxy, sizeof entry->proxy, value, bytes) != 0)
        return config_fail(error, "registries.proxy: not allowed; allowed: http://host[:port], "
                                  "without user and path");
    return 0;
}

/* A number up to `max`, without sign. */
static int number_set(uint64_t *out, uint64_t max, const char *name, const char *value,
                      struct config_error *error)
{
    size_t digits = strspn(value, "0123456789");
    uint64_t number = 0;
    for (size_t i = 0; i < digits && number <= max; i++)
        number = number * 10 + (uint64_t)(value[i] - '0');
    if (digits == 0 || value[digits] != '\0' || number > max)
        return config_fail(error, "registries.%s: \"%.80s\" is not allowed; allowed: 0..%llu", name,
                           config_shown(value), (unsigned long long)max);
    *out = number;
    return 0;
}

static int limit_set(struct registry_entry *entry, const char *name, const char *value,
                     struct config_error *error)
{
    bool rate = strcmp(name, "rateMbit") == 0;
    uint64_t number = 0;
    int err = number_set(&number, rate ? 1000000 : 1024, name, value, error);
    if (err != 0)
        return err;
    if (rate)
        entry->rate_bytes_s = number * MBIT_BYTES;
    else
        entry->connections_max = (unsigned)number;
    return 0;
}

struct file_key {
    const char *name;
    size_t offset, bytes; /* in struct registry_entry */
};
#define FILE_KEY(name, field)                                                                      \
    {                                                                                              \
        name, offsetof(struct registry_entry, field), sizeof((struct registry_entry *)0)->field    \
    }
static const struct file_key file_keys[] = {
    FILE_KEY("ca", ca_file),
    FILE_KEY("clientCertificate", client_cert),
    FILE_KEY("clientKey", client_key),
    FILE_KEY("credentials", credentials_file),
};

/* NULL: not the name of a file's key. */
static const struct file_key *file_key_find(const char *name)
{
    for (size_t i = 0; i < sizeof file_keys / sizeof file_keys[0]; i++)
        if (strcmp(file_keys[i].name, name) == 0)
            return &file_keys[i];
    return NULL;
}

/* Plain http is checked when the whole entry is known. */
static int storage_add(struct registry_entry *entry, const char *value, struct config_error *error)
{
    for (size_t i = 0; i < REGISTRY_STORAGE_MAX; i++) {
        if (entry->storage[i][0] != '\0')
            continue;
        if (!registry_storage_valid(value) ||
            text_copy(entry->storage[i], sizeof entry->storage[i], value) != 0)
            return refuse(error, "storage", value, STORAGE_RANGE);
        return 0;
    }
    return config_fail(error, "registries.storage: more than %d", REGISTRY_STORAGE_MAX);
}

int config_registry_set(struct config_registry_draft *draft, const char *name, const char *value,
                        struct config_error *error)
{
    struct registry_entry *entry = &draft->entry;
    const struct file_key *file = file_key_find(name);
    if (file != NULL && text_copy((char *)entry + file->offset, file->bytes, value) != 0)
        return refuse(error, name, value, "a path");
    if (file != NULL)
        return 0;
    if (strcmp(name, "name") == 0)
        return name_set(entry, value, error);
    if (strcmp(name, "realmHosts") == 0)
        return realm_add(draft, value, error);
    if (strcmp(name, "storage") == 0)
        return storage_add(entry, value, error);
    if (strcmp(name, "plainHttp") == 0)
        return flag_set(&draft->plain_http, name, value, error);
    if (strcmp(name, "allowPrivate") == 0)
        return private_add(draft, value, error);
    if (strcmp(name, "shared") == 0)
        return flag_set(&entry->shared, name, value, error);
    if (strcmp(name, "default") == 0)
        return flag_set(&entry->is_default, name, value, error);
    if (strcmp(name, "p2p") == 0)
        return p2p_set(entry, value, error);
    if (strcmp(name, "tags") == 0)
        return tags_add(entry, value, error);
    if (strcmp(name, "copies") == 0)
        return copies_set(entry, value, error);
    if (strcmp(name, "proxy") == 0)
        return proxy_set(entry, value, error);
    if (strcmp(name, "connections") == 0 || strcmp(name, "rateMbit") == 0)
        return limit_set(entry, name, value, error);
    if (strcmp(name, "endpoint") == 0) {
        if (text_copy(entry->endpoint, sizeof entry->endpoint, value) != 0)
            return refuse(error, name, value, "http[s]://host[:port]");
        return 0;
    }
    return config_fail(error,
                       "unknown key \"registries.%.80s\"; known: name, endpoint, ca, "
                       "clientCertificate, clientKey, credentials, shared, plainHttp, "
                       "allowPrivate, proxy, connections, rateMbit, default, p2p, copies, tags, "
                       "realmHosts, storage",
                       name);
}

/* Gives the endpoint its scheme and checks it against plainHttp. */
static int endpoint_finish(struct config_registry_draft *draft, struct config_error *error)
{
    struct registry_entry *entry = &draft->entry;
    const char *scheme = draft->plain_http ? "http://" : "https://";
    char host[HOST_BYTES_MAX + 1];
    if (strncmp(entry->endpoint, "http://", 7) == 0 && !draft->plain_http)
        return config_fail(error,
                           "%u: registries.endpoint: \"%s\" is plain http; allowed only with "
                           "plainHttp: true for this registry",
                           draft->line, config_shown(entry->endpoint));
    if (strncmp(entry->endpoint, "https://", 8) == 0 && draft->plain_http)
        return config_fail(error, "%u: registries.endpoint: \"%s\" contradicts plainHttp: true",
                           draft->line, config_shown(entry->endpoint));

    for (size_t i = 0; i < REGISTRY_STORAGE_MAX; i++)
        if (strncmp(entry->storage[i], "http://", 7) == 0 && !draft->plain_http)
            return config_fail(error,
                               "%u: registries.storage: \"%s\" is plain http; allowed only with "
                               "plainHttp: true for this registry",
                               draft->line, config_shown(entry->storage[i]));

    const char *rest = entry->endpoint[0] != '\0' ? entry->endpoint : entry->name;
    if (strncmp(rest, scheme, strlen(scheme)) == 0)
        rest += strlen(scheme);
    size_t host_bytes = strlen(rest);
    if (host_bytes > 0 && rest[host_bytes - 1] == '/')
        host_bytes--;
    if (!ref_host_valid(rest, host_bytes) || text_copy_n(host, sizeof host, rest, host_bytes) != 0)
        return config_fail(error,
                           "%u: registries.endpoint: \"%.80s\" is not allowed; allowed: "
                           "http[s]://host[:port] without path",
                           draft->line, config_shown(entry->endpoint));
    int written = snprintf(entry->endpoint, sizeof entry->endpoint, "%s%s", scheme, host);
    ASSERT(written > 0 && (size_t)written < sizeof entry->endpoint);
    private_finish(draft);
    return 0;
}

/* What would make a pattern lead elsewhere than to the registry whose name was asked for, or take
 * anybody who may choose that name into the operator's own network (ORG-2, ORG-6). */
static int pattern_check(const struct config_registry_draft *draft, struct config_error *error)
{
    const struct registry_entry *entry = &draft->entry;
    const char *key = NULL;
    if (draft->plain_http)
        key = "plainHttp";
    else if (entry->endpoint[0] != '\0')
        key = "endpoint";
    else if (entry->is_default)
        key = "default";
    else if (entry->allow_private.count > 0 && strcmp(entry->name, "*") == 0)
        key = "allowPrivate";
    else if (entry->storage[0][0] != '\0')
        key = "storage"; /* whose it is depends on the name */
    if (key == NULL)
        return 0;
    return config_fail(error,
                       "%u: registries.%s: not for the pattern \"%s\"; give the registry an entry "
                       "of its own name",
                       draft->line, key, entry->name);
}

/* ACL-7: without `shared` credentials serve the operator's own orders alone (pull.h); they go where
 * the entry says only. */
static int credentials_check(const struct config_registry_draft *draft, struct config_error *error)
{
    const struct registry_entry *entry = &draft->entry;
    const char *what = NULL;
    if (entry->credentials_file[0] == '\0')
        what = entry->shared ? "shared: true needs credentials" : NULL;
    else if (draft->plain_http)
        what = "credentials would be readable on the way: not with plainHttp";
    else if (strcmp(entry->name, "*") == 0)
        what = "credentials would go to whatever host a client names: not for this pattern";
    if (what == NULL)
        return 0;
    return config_fail(error, "%u: registries: %s: %s", draft->line, entry->name, what);
}

static int draft_finish(struct config_registry_draft *draft,
                        const struct config_registry_draft *drafts, unsigned index,
                        struct config_error *error)
{
    if (draft->entry.name[0] == '\0')
        return config_fail(error, "%u: registries: an entry without name", draft->line);
    if ((draft->entry.client_cert[0] == '\0') != (draft->entry.client_key[0] == '\0'))
        return config_fail(error,
                           "%u: registries: clientCertificate and clientKey of %s need each "
                           "other",
                           draft->line, draft->entry.name);
    for (unsigned i = 0; i < index; i++)
        if (strcmp(drafts[i].entry.name, draft->entry.name) == 0)
            return config_fail(error, "%u: registries.name: \"%s\" is there twice", draft->line,
                               draft->entry.name);
    int err = credentials_check(draft, error);
    if (err != 0)
        return err;
    return draft->entry.name[0] == '*' ? pattern_check(draft, error)
                                       : endpoint_finish(draft, error);
}

static bool drafted(const struct config_registry_draft *drafts, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(drafts[i].entry.name, name) == 0)
            return true;
    return false;
}

static void builtin_put(const struct builtin *builtin, struct registry_entry *out)
{
    int err = text_copy(out->name, sizeof out->name, builtin->name);
    ASSERT(err == 0);
    err = text_copy(out->endpoint, sizeof out->endpoint, builtin->endpoint);
    ASSERT(err == 0);
    err = text_copy(out->realm_hosts[0], sizeof out->realm_hosts[0], builtin->realm_host);
    ASSERT(err == 0);
    out->p2p = true;
}

/* One entry answers requests without ?ns=: the one that says so, else docker.io, as runtimes do. */
static int default_choose(struct config *out, const struct config_registry_draft *drafts,
                          unsigned count, struct config_error *error)
{
    unsigned chosen = 0;
    for (unsigned i = 0; i < count; i++)
        if (drafts[i].entry.is_default && ++chosen > 1)
            return config_fail(error,
                               "%u: registries.default: only one registry can be the default",
                               drafts[i].line);
    for (uint32_t i = 0; chosen == 0 && i < out->registry_count; i++)
        if (strcmp(out->registry_entries[i].name, builtins[0].name) == 0)
            out->registry_entries[i].is_default = true;
    return 0;
}

int config_registries_merge(const struct config_registry_draft *drafts, unsigned count,
                            struct config *out, struct config_error *error)
{
    size_t max = count + BUILTIN_COUNT;
    struct registry_entry *entries = loop_alloc(NULL, NULL, max * sizeof *entries);
    struct config_registry_draft *finished = loop_alloc(NULL, NULL, (count + 1) * sizeof *finished);
    int err = 0;
    if (entries == NULL || finished == NULL) {
        err = E_NO_MEMORY;
        goto out;
    }
    memset(entries, 0, max * sizeof *entries);
    uint32_t used = 0;
    for (size_t i = 0; i < BUILTIN_COUNT && out->builtin_registries; i++)
        if (!drafted(drafts, count, builtins[i].name))
            builtin_put(&builtins[i], &entries[used++]);
    for (unsigned i = 0; i < count && err == 0; i++) {
        finished[i] = drafts[i];
        err = draft_finish(&finished[i], finished, i, error);
        entries[used++] = finished[i].entry;
    }
    if (err != 0)
        goto out;
    out->registry_entries = entries;
    out->registry_count = used;
    entries = NULL;
    err = default_choose(out, drafts, count, error);
out:
    (void)loop_alloc(NULL, entries, 0);
    (void)loop_alloc(NULL, finished, 0);
    return err;
}

struct registries config_registries(const struct config *config)
{
    return (struct registries){.entries = config->registry_entries,
                               .entry_count = config->registry_count};
}
