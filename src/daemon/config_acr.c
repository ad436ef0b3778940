/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of Alibaba Cloud Container Registry: what each may hold, which go together, and what its
 * component's names mean here (ACR.md §8). */
#include <string.h>

#include "bytes.h"
#include "config.h"
#include "quantity.h"
#include "secret_file.h"

static bool only(const char *text, const char *allowed)
{
    return text[0] != '\0' && strspn(text, allowed) == strlen(text);
}

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"

static int verify_names(const struct config *config, struct config_error *error)
{
    for (uint32_t i = 0; i < config->acr_instance_count; i++) {
        const char *id = config->acr_instances[i].text;
        if (strncmp(id, "cri-", 4) != 0 || !only(id + 4, LOWER DIGITS "-"))
            return config_fail(error,
                               "acrInstances: \"%.80s\" is not allowed; allowed: cri- and small "
                               "letters and digits",
                               id);
    }
    if (config->acr_region.text[0] != '\0' && !only(config->acr_region.text, LOWER DIGITS "-"))
        return config_fail(error, "region: \"%s\" is not allowed; allowed: a-z 0-9 -",
                           config->acr_region.text);
    if (config->acr_vpc.text[0] != '\0' && (strncmp(config->acr_vpc.text, "vpc-", 4) != 0 ||
                                            !only(config->acr_vpc.text + 4, LOWER DIGITS "-")))
        return config_fail(error, "vpcId: \"%s\" is not allowed; allowed: vpc- and what follows",
                           config->acr_vpc.text);
    return 0;
}

/* "" or "http[s]://host[:port]". */
static int verify_url(const char *key, const char *url, struct config_error *error)
{
    const char *host = strstr(url, "://");
    bool scheme = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
    if (url[0] == '\0')
        return 0;
    if (!scheme || !ref_host_valid(host + 3, strlen(host + 3)))
        return config_fail(error, "%s: \"%.80s\" is not allowed; allowed: http[s]://host[:port]",
                           key, url);
    return 0;
}

static bool addr_is_loopback(const struct peer_addr *addr)
{
    static const uint8_t v6[16] = {[15] = 1};
    return peer_addr_is_v4(addr) ? addr->ip[12] == 127 : memcmp(addr->ip, v6, sizeof v6) == 0;
}

static bool is_loopback(const char *host)
{
    struct peer_addr addr;
    /* a name may lead anywhere */
    return peer_addr_parse(host, 80, &addr) == 0 && addr_is_loopback(&addr);
}

/* Of the services that are asked with keys: a signed question, or a token that stands for a role,
 * must not be readable on the way, nor the temporary keys that answer it. */
static int verify_service(const struct config *config, const char *key, const char *url,
                          struct config_error *error)
{
    int err = verify_url(key, url, error);
    if (err != 0 || strncmp(url, "http://", 7) != 0 || config->acr_plain_http ||
        is_loopback(url + 7))
        return err;
    return config_fail(error,
                       "%s: \"%.80s\" would carry credentials in the clear: use https, or for a "
                       "test a loopback address or acr.plainHttp",
                       key, url);
}

static int verify_arn(const char *key, const char *arn, const char *variable,
                      struct config_error *error)
{
    if (arn[0] == '\0')
        return config_fail(error, "%s: not set, and %s is not in the environment either", key,
                           variable);
    if (strncmp(arn, "acs:ram::", 9) != 0)
        return config_fail(error, "%s: \"%.200s\" is not allowed; allowed: acs:ram::...", key, arn);
    return 0;
}

static const char *or_environment(const struct config *config, const char *value,
                                  const char *variable)
{
    return value[0] != '\0' ? value : config_environment(config, variable);
}

static int verify_rrsa(const struct config *config, struct config_error *error)
{
    static const char role[] = "ALIBABA_CLOUD_ROLE_ARN";
    static const char provider[] = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN";
    if (config->access_key_file.text[0] != '\0')
        return config_fail(error, "rrsa.enable and accessKeyFile are both set: choose one");
    int err = verify_arn("rrsa.rrsaRoleARN", or_environment(config, config->rrsa_role.text, role),
                         role, error);
    if (err == 0)
        err = verify_arn("rrsa.rrsaOIDCProviderRoleARN",
                         or_environment(config, config->rrsa_provider.text, provider), provider,
                         error);
    if (err == 0 && config->rrsa_assume_role.text[0] != '\0')
        err = verify_arn("rrsa.assumeRoleARN", config->rrsa_assume_role.text, "", error);
    return err;
}

int config_acr_verify(const struct config *config, struct config_error *error)
{
    int err = verify_names(config, error);
    if (err == 0)
        err = verify_service(config, "acr.crEndpoint", config->acr_cr_url.text, error);
    if (err == 0)
        err = verify_service(config, "acr.stsEndpoint", config->acr_sts_url.text, error);
    if (err == 0)
        err = verify_url("acr.metadataEndpoint", config->acr_metadata_url.text, error);
    if (err == 0 && config->rrsa_enable)
        err = verify_rrsa(config, error);
    if (err != 0 || config->access_key_file.text[0] == '\0')
        return err;
    struct config_error why = {""};
    if (secret_file_check(config->access_key_file.text, &why) != 0)
        return config_fail(error, "accessKeyFile: %.500s", why.text);
    return 0;
}

/* ---- the component's names that have no key of ours alone ---- */

/* The value of `from` is that of `to` now, and came from where it did. */
static void source_copy(struct config *config, size_t from, size_t to)
{
    config->sources[to] = config->sources[from];
    config->lines[to] = config->lines[from];
}

/* The size of memory mode in GiB, beside or instead of optionBlockSize; of no meaning on disk. */
static int settle_memory(struct config *config, struct config_error *error)
{
    char ours[32], other[32];
    size_t gib = config_key_find("memoryCacheCapacityGB"), bytes = config_key_find("cache.memory");
    uint64_t wanted = config->memory_mode_bytes;
    if (config->sources[gib] == CONFIG_FROM_DEFAULT || wanted == 0 ||
        config->cache_mode != CONFIG_CACHE_MEMORY)
        return 0;
    if (config->sources[gib] == config->sources[bytes] && config->cache_memory_bytes != wanted)
        return config_fail(
            error,
            "memoryCacheCapacityGB says %s, optionBlockSize (cache.memory) %s: in memory mode both "
            "are the size of the cache, so set one of them",
            quantity_text(wanted, quantity_sizes, other, sizeof other),
            quantity_text(config->cache_memory_bytes, quantity_sizes, ours, sizeof ours));
    if (config->sources[gib] > config->sources[bytes]) {
        config->cache_memory_bytes = wanted;
        source_copy(config, gib, bytes);
    }
    return 0;
}

/* No more requests at once than layers: a layer that a client reads has one at least. */
static void settle_layers(struct config *config)
{
    size_t layers = config_key_find("p2p.v2.proxyConcurrencyLimit");
    if (config->layers_max == 0 || config->layers_max >= config->parallel_requests)
        return;
    config->parallel_requests = config->layers_max;
    source_copy(config, layers, config_key_find("limits.parallelRequests"));
}

static int settle_exporter(struct config *config, struct config_error *error)
{
    static const uint8_t any[16] = {[10] = 0xff, [11] = 0xff};
    size_t enable = config_key_find("exporter.enable"), admin = config_key_find("listen.admin");
    enum config_source port = config->sources[config_key_find("exporter.port")];
    bool loopback = addr_is_loopback(&config->listen_admin);
    if (config->sources[enable] == CONFIG_FROM_DEFAULT || config->exporter_enable != loopback)
        return 0;
    if (!config->exporter_enable)
        return config_fail(error, "exporter.enable is false, but listen.admin is at an address "
                                  "that others reach: set one of them");
    /* Set, and not by exporter.port, which says nothing of the address. */
    if (config->sources[admin] != CONFIG_FROM_DEFAULT && config->sources[admin] != port)
        return config_fail(error, "exporter.enable is true, but listen.admin is at loopback: set "
                                  "one of them");
    memcpy(config->listen_admin.ip, any, sizeof any);
    source_copy(config, enable, admin);
    return 0;
}

int config_acr_settle(struct config *config, struct config_error *error)
{
    int err = settle_memory(config, error);
    settle_layers(config);
    return err == 0 ? settle_exporter(config, error) : err;
}

static bool is_set(const struct config *config, const char *name)
{
    return config->sources[config_key_find(name)] != CONFIG_FROM_DEFAULT;
}

void config_notes(const struct config *config, config_note_fn note, void *arg)
{
    bool memory = config->cache_mode == CONFIG_CACHE_MEMORY;
    if (memory && is_set(config, "cache.capacity") && config->cache_capacity_bytes != 0)
        note(arg, true, "cache.capacity is ignored: cache.mode is memory, nothing is on disk");
    if (!memory && is_set(config, "memoryCacheCapacityGB"))
        note(arg, false, "memoryCacheCapacityGB is ignored: cache.mode is disk");
    if (config->aio)
        note(arg, false, "aio changes nothing here: disk writes never hold up an answer");
    if (is_set(config, "logDir") || is_set(config, "logAuditMode"))
        note(arg, false, "logDir and logAuditMode change nothing here: all lines go to stderr");
}
