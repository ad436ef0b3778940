/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading the configuration: defaults, file, environment, --set, in this order, each value with its
 * source; then the checks that look at several values or at the files they name.
 */
#include "config.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "log.h"
#include "loop.h"
#include "nearest.h"
#include "prefetch_port.h"
#include "registry_logins.h"
#include "secret_file.h"
#include "tls_cert.h"
#include "topology_detect.h"
#include "yaml_items.h"

#define ITEM_TEXT_BYTES         8192
#define CACHE_MEMORY_MODE_BYTES (8ULL << 30) /* ACR.md §8: default of memory mode */

struct load {
    struct config *config;
    struct config_error *error;
    struct config_report *report; /* NULL: the first error ends it */
    enum config_source source;
    struct config_registry_draft *drafts; /* owned */
    unsigned draft_count;
};

int config_fail(struct config_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    /* Values are quoted in messages, and a message is one line. */
    for (char *c = error->text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return E_CONFIG;
}

const char *config_shown(const char *value)
{
    return strpbrk(value, "@?") == NULL ? value : "...";
}

/* Puts `place` in front of the error. */
static int fail_at(struct config_error *error, const char *place)
{
    struct config_error whole;
    (void)snprintf(whole.text, sizeof whole.text, "%.500s%.500s", place, error->text);
    *error = whole;
    return E_CONFIG;
}

/* What an error means for the rest: 0 where it is told and there is more to look at. */
static int go_on(struct config_report *report, int err, const struct config_error *error)
{
    if (err != E_CONFIG || report == NULL)
        return err;
    if (report->errors++ < CONFIG_ERRORS_TOLD)
        report->tell(report->arg, error->text);
    return 0;
}

/* ---- one value ---- */

static const char *key_name(const void *keys, size_t index)
{
    return ((const struct config_key *)keys)[index].name;
}

static int unknown_key(struct load *load, const char *name)
{
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    if (strcmp(name, "accessKey") == 0 || strcmp(name, "accessKeySecret") == 0)
        return config_fail(load->error,
                           "%s: secrets are read from files only: write the key's id and its "
                           "secret, a line each, to a file of mode 0400 and name it in "
                           "accessKeyFile",
                           name);
    const char *nearest = nearest_name(name, key_name, keys, count);
    if (nearest != NULL)
        return config_fail(load->error, "unknown key \"%.100s\"; did you mean \"%s\"?", name,
                           nearest);
    return config_fail(load->error, "unknown key \"%.100s\"; `shoal config show` lists all keys",
                       name);
}

/* Index under which source and line of a key are kept: an alias counts as its canonical key. */
static size_t canonical_index(const struct config_key *key)
{
    return config_key_find(key->canonical != NULL ? key->canonical : key->name);
}

static bool is_list(const struct config_key *key)
{
    return key->type == CONFIG_TEXTS || key->type == CONFIG_PATHS;
}

static int value_refuse(struct load *load, const struct config_key *key, const char *value)
{
    char range[CONFIG_RANGE_BYTES];
    return config_fail(load->error, "%s: \"%.200s\" is not allowed; allowed: %s", key->name,
                       config_shown(value), config_key_range(key, range));
}

static void list_reset(struct load *load, const struct config_key *key)
{
    *(uint32_t *)((uint8_t *)load->config + key->count_offset) = 0;
}

static int item_value(struct load *load, const struct config_key *key, const struct yaml_item *item)
{
    size_t index = canonical_index(key);
    bool first = !item->in_list || item->list_start;
    if (item->in_list && !is_list(key))
        return config_fail(load->error, "%s: a list is not allowed here", key->name);
    if (first && load->source == CONFIG_FROM_FILE &&
        load->config->sources[index] == CONFIG_FROM_FILE)
        return config_fail(load->error, "%s: set twice, first on line %u", key->name,
                           (unsigned)load->config->lines[index]);
    if (is_list(key) && first)
        list_reset(load, key);
    load->config->sources[index] = (uint8_t)load->source;
    load->config->sources[config_key_find(key->name)] = (uint8_t)load->source;
    if (first)
        load->config->lines[index] = item->line;
    if (item->value == NULL)
        return 0;
    if (config_value_parse(key, item->value, load->config) != 0)
        return value_refuse(load, key, item->value);
    return 0;
}

/* ---- registries ---- */

static int draft_at(struct load *load, const struct yaml_item *item,
                    struct config_registry_draft **out)
{
    if (item->element >= REGISTRIES_MAX)
        return config_fail(load->error, "registries: more than %d", REGISTRIES_MAX);
    while (load->draft_count <= item->element) {
        size_t bytes = (load->draft_count + 1) * sizeof *load->drafts;
        struct config_registry_draft *grown = loop_alloc(NULL, load->drafts, bytes);
        if (grown == NULL)
            return E_NO_MEMORY;
        load->drafts = grown;
        memset(&grown[load->draft_count], 0, sizeof grown[0]);
        grown[load->draft_count].entry.p2p = true;
        grown[load->draft_count].line = item->line;
        load->draft_count++;
    }
    *out = &load->drafts[item->element];
    return 0;
}

static int item_registry(struct load *load, const struct yaml_item *item, const char *name)
{
    struct config_registry_draft *draft = NULL;
    if (load->config->registries_source != (uint8_t)load->source) {
        load->config->registries_source = (uint8_t)load->source;
        load->draft_count = 0;
    }
    if (item->value == NULL)
        return 0;
    int err = draft_at(load, item, &draft);
    return err != 0 ? err : config_registry_set(draft, name, item->value, load->error);
}

static int item_apply(struct load *load, const struct yaml_item *item)
{
    static const char registries[] = "registries.";
    if (strncmp(item->key, registries, sizeof registries - 1) == 0)
        return item_registry(load, item, item->key + sizeof registries - 1);
    if (strcmp(item->key, "registries") == 0) {
        if (item->value != NULL)
            return config_fail(load->error, "registries: must be a list of maps");
        return item_registry(load, item, "");
    }
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    size_t index = config_key_find(item->key);
    if (index == count)
        return unknown_key(load, item->key);
    return item_value(load, &keys[index], item);
}

/* "a, b" for a list: its parts, blanks around them cut off. An empty text is an empty list. */
static int list_split(struct load *load, const struct yaml_item *whole)
{
    char text[ITEM_TEXT_BYTES];
    struct yaml_item item = *whole;
    if (text_copy(text, sizeof text, whole->value) != 0)
        return config_fail(load->error, "%.100s: value is too long", whole->key);
    char *rest = text;
    item.in_list = item.list_start = true;
    item.value = NULL;
    int err = 0;
    do {
        char *part = strsep(&rest, ",");
        if (part == NULL || (*part == '\0' && rest == NULL && item.list_start))
            break;
        part += strspn(part, " ");
        for (size_t end = strlen(part); end > 0 && part[end - 1] == ' '; end--)
            part[end - 1] = '\0';
        item.value = part;
        err = item_apply(load, &item);
        item.list_start = false;
    } while (err == 0 && rest != NULL);
    return item.list_start ? item_apply(load, &item) : err;
}

/* Names and ids may stand in one text, "" for none, as in the ACR component's parameters. */
static bool is_joined(const struct yaml_item *item)
{
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    size_t index = config_key_find(item->key);
    return index < count && keys[index].type == CONFIG_TEXTS && !item->in_list &&
           item->value != NULL && (*item->value == '\0' || strchr(item->value, ',') != NULL);
}

/* ---- sources ---- */

static int item_from_yaml(void *arg, const struct yaml_item *item)
{
    struct load *load = arg;
    char place[CONFIG_PATH_BYTES];
    int err = is_joined(item) ? list_split(load, item) : item_apply(load, item);
    if (err != E_CONFIG)
        return err;
    (void)snprintf(place, sizeof place, "%u: ", item->line);
    err = fail_at(load->error, place);
    if (load->report == NULL || load->source != CONFIG_FROM_FILE)
        return err;
    (void)snprintf(place, sizeof place, "%.500s:", load->config->file.text);
    return go_on(load->report, fail_at(load->error, place), load->error);
}

static int load_file(struct load *load, const char *path, bool must_exist)
{
    char *text = NULL;
    size_t text_bytes = 0;
    char place[CONFIG_PATH_BYTES];
    int err = file_read_whole(path, CONFIG_FILE_BYTES_MAX, &text, &text_bytes);
    if (err == E_NOT_FOUND && !must_exist)
        return 0;
    if (err == E_NO_MEMORY)
        return err;
    if (err != 0)
        return config_fail(load->error, "%.500s: cannot read: %s", path, err_text(err));
    load->source = CONFIG_FROM_FILE;
    err = text_copy(load->config->file.text, sizeof load->config->file.text, path) != 0
              ? config_fail(load->error, " path is too long")
              : yaml_walk(text, text_bytes, item_from_yaml, load, load->error->text,
                          sizeof load->error->text);
    (void)loop_alloc(NULL, text, 0);
    if (err != E_CONFIG)
        return err;
    (void)snprintf(place, sizeof place, "%.500s:", path);
    return fail_at(load->error, place);
}

/* A value from environment or --set: YAML if it opens a list or map, else one scalar; lists also as
 * "a,b". */
static int load_text(struct load *load, const char *name, const char *value)
{
    char text[ITEM_TEXT_BYTES];
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    size_t index = config_key_find(name);
    bool list = index < count && is_list(&keys[index]);
    if ((*value == '[' || *value == '{') && (list || strcmp(name, "registries") == 0)) {
        int written = snprintf(text, sizeof text, "%s: %s\n", name, value);
        if (written < 0 || (size_t)written >= sizeof text)
            return config_fail(load->error, "%.100s: value is too long", name);
        return yaml_walk(text, (size_t)written, item_from_yaml, load, load->error->text,
                         sizeof load->error->text);
    }
    struct yaml_item item = {.key = name, .value = value};
    return list ? list_split(load, &item) : item_apply(load, &item);
}

static const char *environment_find(char *const *environment, const char *variable)
{
    size_t variable_bytes = strlen(variable);
    for (; environment != NULL && *environment != NULL; environment++)
        if (strncmp(*environment, variable, variable_bytes) == 0 &&
            (*environment)[variable_bytes] == '=')
            return *environment + variable_bytes + 1;
    return NULL;
}

static int load_variable(struct load *load, const char *variable, const char *name,
                         char *const *environment)
{
    char place[CONFIG_VARIABLE_BYTES + 2];
    const char *value = environment_find(environment, variable);
    if (value == NULL)
        return 0;
    int err = load_text(load, name, value);
    if (err != E_CONFIG)
        return err;
    (void)snprintf(place, sizeof place, "%s: ", variable);
    return fail_at(load->error, place);
}

static int load_environment(struct load *load, char *const *environment)
{
    char variable[CONFIG_VARIABLE_BYTES];
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    load->source = CONFIG_FROM_ENVIRONMENT;
    for (size_t i = 0; i < count; i++) {
        /* Aliases end in _PORT and the like, as variables that Kubernetes sets for a service do. */
        if ((keys[i].flags & CONFIG_KEY_ALIAS) != 0)
            continue;
        int err =
            load_variable(load, config_key_variable(&keys[i], variable), keys[i].name, environment);
        err = go_on(load->report, err, load->error);
        if (err != 0)
            return err;
    }
    int err = load_variable(load, "SHOAL_REGISTRIES", "registries", environment);
    return go_on(load->report, err, load->error);
}

static int load_set(struct load *load, const char *set)
{
    char name[128];
    const char *equals = strchr(set, '=');
    if (equals == NULL || equals == set ||
        text_copy_n(name, sizeof name, set, (size_t)(equals - set)) != 0) {
        (void)config_fail(load->error, "must be key=value");
        return fail_at(load->error, "--set: ");
    }
    int err = load_text(load, name, equals + 1);
    return err == E_CONFIG ? fail_at(load->error, "--set: ") : err;
}

/* "a,b" as for --set. */
static void list_default(const struct config_key *key, struct config *config)
{
    char text[CONFIG_TEXT_BYTES];
    char *rest = text;
    int err = text_copy(text, sizeof text, key->fallback);
    while (err == 0 && rest != NULL && *rest != '\0')
        err = config_value_parse(key, strsep(&rest, ","), config);
    ASSERT(err == 0);
}

static void load_defaults(struct config *config)
{
    size_t count = 0;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        if ((keys[i].flags & CONFIG_KEY_ALIAS) != 0)
            continue;
        if (is_list(&keys[i])) {
            list_default(&keys[i], config);
            continue;
        }
        int err = config_value_parse(&keys[i], keys[i].fallback, config);
        ASSERT(err == 0);
    }
}

/* ---- places that depend on who runs us ---- */

/* "$variable/rest", or "$HOME/home_rest"; false if neither is set. */
static bool xdg_path(char *const *environment, const char *variable, const char *home_rest,
                     const char *rest, struct config_path *out)
{
    const char *base = environment_find(environment, variable);
    const char *home = environment_find(environment, "HOME");
    int written = -1;
    if (base != NULL && *base == '/')
        written = snprintf(out->text, sizeof out->text, "%s/%s", base, rest);
    else if (home != NULL && *home == '/')
        written = snprintf(out->text, sizeof out->text, "%s/%s/%s", home, home_rest, rest);
    if (written > 0 && (size_t)written < sizeof out->text)
        return true;
    out->text[0] = '\0';
    return false;
}

static int load_default_file(struct load *load, char *const *environment)
{
    struct config_path path;
    if (geteuid() != 0 &&
        xdg_path(environment, "XDG_CONFIG_HOME", ".config", "shoal/shoal.yaml", &path) &&
        file_stamp(path.text) != 0)
        return load_file(load, path.text, true);
    return load_file(load, CONFIG_FILE_ROOT, false);
}

static void defaults_late(struct config *config, char *const *environment)
{
    struct config_path path;
    if (config->sources[config_key_find("dataDir")] == CONFIG_FROM_DEFAULT && geteuid() != 0 &&
        xdg_path(environment, "XDG_DATA_HOME", ".local/share", "shoal", &path))
        config->data_dir = path;
    if (config->sources[config_key_find("cache.memory")] == CONFIG_FROM_DEFAULT &&
        config->cache_mode == CONFIG_CACHE_MEMORY)
        config->cache_memory_bytes = CACHE_MEMORY_MODE_BYTES;
}

static int load_all(struct load *load, const struct config_options *options)
{
    load_defaults(load->config);
    int err = options->file != NULL ? load_file(load, options->file, true)
                                    : load_default_file(load, options->environment);
    err = go_on(load->report, err, load->error);
    if (err == 0)
        err = load_environment(load, options->environment);
    load->source = CONFIG_FROM_SET;
    for (unsigned i = 0; err == 0 && i < options->set_count; i++)
        err = go_on(load->report, load_set(load, options->sets[i]), load->error);
    if (err == 0 && load->report != NULL && load->report->errors > 0)
        return E_CONFIG; /* what follows builds on all values */
    if (err != 0)
        return err;
    defaults_late(load->config, options->environment);
    err = config_acr_settle(load->config, load->error);
    if (err != 0)
        return err;
    err = config_registries_merge(load->drafts, load->draft_count, load->config, load->error);
    if (err == E_CONFIG && load->config->registries_source == CONFIG_FROM_FILE) {
        char place[CONFIG_PATH_BYTES + 2];
        (void)snprintf(place, sizeof place, "%.500s:", load->config->file.text);
        return fail_at(load->error, place);
    }
    return err;
}

static int load_from(const struct config_options *options, struct config_report *report,
                     struct config *out, struct config_error *error)
{
    memset(out, 0, sizeof *out);
    error->text[0] = '\0';
    struct load load = {.config = out, .error = error, .report = report};
    out->environment = options->environment;
    int err = load_all(&load, options);
    (void)loop_alloc(NULL, load.drafts, 0);
    if (err != 0) {
        if (error->text[0] == '\0')
            (void)config_fail(error, "%s", err_text(err));
        config_close(out);
    }
    return err;
}

int config_load(const struct config_options *options, struct config *out,
                struct config_error *error)
{
    return load_from(options, NULL, out, error);
}

void config_close(struct config *config)
{
    (void)loop_alloc(NULL, config->registry_entries, 0);
    config->registry_entries = NULL;
    config->registry_count = 0;
}

const char *config_environment(const struct config *config, const char *variable)
{
    const char *value = environment_find(config->environment, variable);
    return value == NULL ? "" : value;
}

uint64_t config_cache_bytes(const struct config *config)
{
    bool memory = config->cache_mode == CONFIG_CACHE_MEMORY;
    return memory ? config->cache_memory_bytes : config->cache_capacity_bytes;
}

/* ---- checks over several values ---- */

static bool id_clean(const char *text)
{
    for (; *text != '\0'; text++) {
        bool letter = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z');
        bool digit = *text >= '0' && *text <= '9';
        if (!letter && !digit && *text != '-' && *text != '.' && *text != '_')
            return false;
    }
    return true;
}

static bool addr_unspecified(const struct peer_addr *addr)
{
    static const uint8_t v4_any[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0};
    static const uint8_t v6_any[16] = {0};
    return memcmp(addr->ip, v4_any, 16) == 0 || memcmp(addr->ip, v6_any, 16) == 0;
}

static int verify_ports(const struct config *config, struct config_error *error)
{
    const struct {
        const char *name;
        uint16_t port;
    } ports[] = {
        {"listen.client", config->listen_client.port},
        {"listen.mesh", config->listen_mesh.port},
        {"listen.admin", config->listen_admin.port},
        {"listen.tls", config->listen_tls.port},
        {"listen.prefetch", config->listen_prefetch.port},
    };
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++)
        for (size_t j = 0; j < i; j++)
            if (ports[i].port != 0 && ports[i].port == ports[j].port)
                return config_fail(error, "%s and %s both use port %u", ports[j].name,
                                   ports[i].name, (unsigned)ports[i].port);
    return 0;
}

static int verify_secrets(const struct config *config, struct config_error *error)
{
    uint8_t secret[CLUSTER_SECRET_BYTES];
    if (config->secret_file_count == 0 && config->bootstrap_count > 0)
        return config_fail(error, "bootstrap is set but clusterSecretFile is not: make a secret "
                                  "with `shoal keygen` and give every node the same file");
    for (uint32_t i = 0; i < config->secret_file_count; i++) {
        int err = secret_file_read(config->secret_files[i].text, secret, error);
        memset(secret, 0, sizeof secret);
        if (err != 0)
            return fail_at(error, "clusterSecretFile: ");
    }
    return 0;
}

static int verify_client_pair(const struct registry_entry *entry, struct config_error *error)
{
    if (entry->client_cert[0] == '\0')
        return 0;
    if (access(entry->client_cert, R_OK) != 0)
        return config_fail(error, "registries.clientCertificate: %.300s of %s is not readable",
                           entry->client_cert, entry->name);
    int err = secret_file_check(entry->client_key, error);
    return err == 0 ? 0 : fail_at(error, "registries.clientKey: ");
}

/* A pattern's file may have no entry for the name that comes: that is seen when it comes. */
static int verify_credentials(const struct registry_entry *entry, struct config_error *error)
{
    struct registry_login login;
    if (entry->credentials_file[0] == '\0')
        return 0;
    int err = registry_login_read(entry, &login, error);
    explicit_bzero(&login, sizeof login);
    if (err == 0 || (err == E_NOT_FOUND && entry->name[0] == '*'))
        return 0;
    return fail_at(error, "registries.credentials: ");
}

static int verify_files(const struct config *config, struct config_error *error)
{
    for (uint32_t i = 0; i < config->registry_count; i++) {
        const struct registry_entry *entry = &config->registry_entries[i];
        if (entry->ca_file[0] != '\0' && access(entry->ca_file, R_OK) != 0)
            return config_fail(error, "registries.ca: %.300s of %s is not readable", entry->ca_file,
                               entry->name);
        int err = verify_client_pair(entry, error);
        if (err == 0)
            err = verify_credentials(entry, error);
        if (err != 0)
            return err;
    }
    return 0;
}

unsigned config_tls_files(const struct config *config, struct tls_files *out)
{
    for (uint32_t i = 0; i < config->tls_certificate_count; i++)
        out[i] = (struct tls_files){config->tls_certificates[i].text, config->tls_keys[i].text};
    return config->tls_certificate_count;
}

/* Loads the pairs once, so that `config check` finds what would stop the agent. */
static int verify_tls(const struct config *config, struct config_error *error)
{
    struct tls_files files[CONFIG_TLS_PAIRS_MAX];
    struct tls_set *set = NULL;
    bool given = config->tls_certificate_count + config->tls_key_count > 0;
    if (config->listen_tls.port == 0 && config->listen_prefetch.port == 0 && given)
        return config_fail(error, "listen.%s is set but listen.tls, the port, is not",
                           config->tls_certificate_count > 0 ? "tlsCertificate" : "tlsKey");
    if (config->listen_tls.port == 0 && !given)
        return 0;
    if (config->listen_tls.port != 0 && config->tls_certificate_count == 0)
        return config_fail(error,
                           "listen.tls needs listen.tlsCertificate and listen.tlsKey as well");
    if (config->tls_certificate_count != config->tls_key_count)
        return config_fail(error,
                           "listen.tlsCertificate has %u files, listen.tlsKey %u: give each "
                           "certificate its key, in the same order",
                           (unsigned)config->tls_certificate_count,
                           (unsigned)config->tls_key_count);
    int err = tls_set_load(files, config_tls_files(config, files), &set, error);
    if (err == 0)
        tls_set_put(set);
    return err;
}

static int verify_prefetch(const struct config *config, struct config_error *error)
{
    char token[PREFETCH_TOKEN_BYTES_MAX + 1];
    const char *file = config->prefetch_token_file.text;
    if (config->listen_prefetch.port == 0)
        return file[0] == '\0' ? 0
                               : config_fail(error, "prefetch.tokenFile is set but "
                                                    "listen.prefetch, the port, is not");
    if (file[0] == '\0')
        return config_fail(error, "listen.prefetch needs prefetch.tokenFile: `openssl rand -hex "
                                  "32` makes a token");
    int err = prefetch_token_read(file, token, error);
    explicit_bzero(token, sizeof token);
    return err == 0 ? 0 : fail_at(error, "prefetch.tokenFile: ");
}

/* A value that nothing acts on would mislead its author. */
static int verify_supported(const struct config *config, struct config_error *error)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        if ((keys[i].flags & CONFIG_KEY_LATER) != 0 && config->sources[i] != CONFIG_FROM_DEFAULT)
            return config_fail(error, "%s: not supported by this version", keys[i].name);
    }
    return 0;
}

static int verify_values(const struct config *config, struct config_error *error)
{
    if (!id_clean(config->cluster_id.text))
        return config_fail(error, "clusterId: \"%s\" is not allowed; allowed: A-Z a-z 0-9 . _ -",
                           config->cluster_id.text);
    if (config->data_dir.text[0] == '\0')
        return config_fail(error, "dataDir: must not be empty");
    const struct peer_addr unset = {{0}, 0};
    if (!peer_addr_equal(&config->advertise, &unset) && addr_unspecified(&config->advertise))
        return config_fail(error,
                           "advertise: must be an address that others can reach, not \"any\"");
    if ((config->block_bytes & (config->block_bytes - 1)) != 0)
        return config_fail(error, "blocksize: must be a power of two");
    return 0;
}

static int verify_all(const struct config *config, struct config_report *report,
                      struct config_error *error)
{
    static int (*const checks[])(const struct config *config, struct config_error *error) = {
        verify_values, verify_supported, verify_ports,      verify_secrets,         verify_files,
        verify_tls,    verify_prefetch,  config_acr_verify, topology_detect_verify,
    };
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        int err = go_on(report, checks[i](config, error), error);
        if (err != 0)
            return err;
    }
    return report != NULL && report->errors > 0 ? E_CONFIG : 0;
}

int config_verify(const struct config *config, struct config_error *error)
{
    return verify_all(config, NULL, error);
}

int config_check(const struct config_options *options, struct config_report *report,
                 struct config *out)
{
    struct config_error error;
    int err = load_from(options, report, out, &error);
    if (err == E_CONFIG && report->errors == 0)
        (void)go_on(report, err, &error);
    if (err != 0)
        return err;
    err = verify_all(out, report, &error);
    if (err != 0)
        config_close(out);
    return err;
}

bool config_apply_live(struct config *config, const struct config *fresh)
{
    bool changed = config->mode != fresh->mode || config->log_level != fresh->log_level;
    config->mode = fresh->mode;
    config->log_level = fresh->log_level;
    /* A node without a configured secret has one of its own, and stays so. */
    if (config->secret_file_count == 0 || fresh->secret_file_count == 0)
        return changed;
    changed = changed || config->secret_file_count != fresh->secret_file_count ||
              memcmp(config->secret_files, fresh->secret_files, sizeof fresh->secret_files) != 0;
    config->secret_file_count = fresh->secret_file_count;
    memcpy(config->secret_files, fresh->secret_files, sizeof fresh->secret_files);
    return changed;
}
