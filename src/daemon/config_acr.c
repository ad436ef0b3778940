/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of Alibaba Cloud Container Registry: what each may hold and which go together (ACR.md
 * §8). */
#include <string.h>

#include "bytes.h"
#include "config.h"
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

static bool is_loopback(const char *host)
{
    static const uint8_t v6[16] = {[15] = 1};
    struct peer_addr addr;
    if (peer_addr_parse(host, 80, &addr) != 0)
        return false; /* a name may lead anywhere */
    return peer_addr_is_v4(&addr) ? addr.ip[12] == 127 : memcmp(addr.ip, v6, sizeof v6) == 0;
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
