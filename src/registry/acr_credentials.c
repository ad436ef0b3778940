/* SPDX-License-Identifier: Apache-2.0 */
/* Fetching and refreshing credentials; see acr_credentials.h. */
#include "acr_credentials.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"

#define SECOND_US     UINT64_C(1000000)
#define MINUTE_US     (60 * SECOND_US)
#define LIFE_MAX_S    (UINT64_C(7) * 24 * 3600)
#define STS_VERSION   "2015-04-01"
#define SESSION_NAME  "p2p-agent"
#define FIRST_ROLE_S  "3600"
#define ROLES_PATH    "ram/security-credentials/"
#define SECONDS_BYTES 12

int acr__credentials_open(struct acr_credentials *credentials, const struct env *env,
                          const struct acr_config *config, struct acr_api *api,
                          struct acr_metadata *metadata)
{
    *credentials = (struct acr_credentials){.env = *env,
                                            .config = config,
                                            .api = api,
                                            .metadata = metadata,
                                            .state = ACR_CREDENTIALS_IDLE};
    credentials->keys = sodium_malloc(sizeof *credentials->keys);
    credentials->fresh = sodium_malloc(sizeof *credentials->fresh);
    credentials->text = sodium_malloc(ACR_OIDC_BYTES_MAX + 1);
    if (credentials->keys == NULL || credentials->fresh == NULL || credentials->text == NULL)
        return E_NO_MEMORY;
    return 0;
}

void acr__credentials_close(struct acr_credentials *credentials)
{
    sodium_free(credentials->keys);
    sodium_free(credentials->fresh);
    sodium_free(credentials->text);
    credentials->keys = credentials->fresh = NULL;
    credentials->text = NULL;
}

bool acr__credentials_valid(const struct acr_credentials *credentials, uint64_t now_us)
{
    return credentials->have && now_us < credentials->expires_us;
}

bool acr__credentials_due(const struct acr_credentials *credentials, uint64_t now_us)
{
    return now_us >= credentials->refresh_us;
}

void acr__credentials_drop(struct acr_credentials *credentials)
{
    sodium_memzero(credentials->keys, sizeof *credentials->keys);
    credentials->have = false;
    credentials->refresh_us = 0;
}

void acr__credentials_place(struct acr_credentials *credentials, const char *region)
{
    const struct acr_config *config = credentials->config;
    struct acr_service *sts = &credentials->sts;
    char host[HOST_BYTES_MAX + 1];

    *sts = (struct acr_service){.count = 0};
    if (config->sts_url[0] != '\0') {
        acr__service_add(sts, "", config->sts_url);
        return;
    }
    if (config->sts_host[0] != '\0')
        acr__service_add(sts, "https://", config->sts_host);
    (void)snprintf(host, sizeof host, "sts-vpc.%.63s.aliyuncs.com", region);
    acr__service_add(sts, "https://", host);
    (void)snprintf(host, sizeof host, "sts.%.63s.aliyuncs.com", region);
    acr__service_add(sts, "https://", host);
}

/* ---- the end of a fetch ---- */

static void done(struct acr_credentials *credentials, int err)
{
    credentials->state = ACR_CREDENTIALS_DONE;
    credentials->err = err;
}

/* Fails with one line for people. */
static void fail(struct acr_credentials *credentials, int err, const char *what, const char *why)
{
    (void)snprintf(credentials->why, sizeof credentials->why, "%s%.350s", what, why);
    done(credentials, err);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How long before their end keys of such a life are replaced (ACR.md §4). */
static uint64_t margin_us(uint64_t life_us)
{
    uint64_t middle_us = least(10 * MINUTE_US, life_us / 2);
    uint64_t wanted_us = life_us / 4 > middle_us ? life_us / 4 : middle_us;

    return least(30 * MINUTE_US, wanted_us);
}

/* What is left of them by the clock that set their end; false if nothing is. */
static bool life_take(struct acr_credentials *credentials, uint64_t expires_s, uint64_t date_s)
{
    uint64_t wall_s = date_s != 0 ? date_s : acr__api_wall_s(credentials->api);

    if (expires_s <= wall_s) {
        fail(credentials, E_ORIGIN,
             "the credentials that were given have ended already: ", "check the node's clock");
        return false;
    }
    credentials->fresh_life_us = least(expires_s - wall_s, LIFE_MAX_S) * SECOND_US;
    return true;
}

static int accept_fresh(struct acr_credentials *credentials, uint64_t now_us)
{
    struct acr_keys *old = credentials->keys;
    uint64_t life_us = credentials->fresh_life_us;
    uint64_t early_us = acr__random_below(&credentials->env, least(MINUTE_US, life_us / 20) + 1);

    credentials->keys = credentials->fresh;
    credentials->fresh = old;
    credentials->have = true;
    credentials->refreshes++;
    if (life_us == ACR_NEVER) { /* a file: its owner may change it at any time */
        credentials->expires_us = ACR_NEVER;
        credentials->refresh_us = ACR_NEVER;
        return 0;
    }
    credentials->expires_us = now_us + life_us;
    credentials->refresh_us = credentials->expires_us - margin_us(life_us) - early_us;
    log_to(&credentials->env, LOG_DEBUG, "acr: credentials fetched life_s=%llu refresh_s=%llu",
           (unsigned long long)(life_us / SECOND_US),
           (unsigned long long)((credentials->refresh_us - now_us) / SECOND_US));
    return 0;
}

static int finish(struct acr_credentials *credentials, uint64_t now_us)
{
    int err = credentials->err;

    credentials->state = ACR_CREDENTIALS_IDLE;
    sodium_memzero(credentials->text, ACR_OIDC_BYTES_MAX + 1);
    if (err == 0)
        err = accept_fresh(credentials, now_us);
    sodium_memzero(credentials->fresh, sizeof *credentials->fresh);
    if (err == 0)
        return 0;
    credentials->failures++;
    credentials->refresh_us = now_us + ACR_RETRY_US;
    return err;
}

/* ---- the machine's role ---- */

static void wake(struct acr_credentials *credentials)
{
    const struct acr_host *host = &credentials->api->host;

    host->timer(host->host, 0);
}

static void metadata_fail(struct acr_credentials *credentials, int err)
{
    static const char what[] = "credentials of the RAM role: ";

    if (err == E_NOT_FOUND)
        fail(credentials, err, what,
             "no RAM role is attached to this machine: attach the worker role, or set "
             "accessKeyFile or rrsa.enable");
    else if (err == E_DENIED)
        fail(credentials, err, what,
             "the metadata service refuses this process: it needs session tokens and gives none");
    else if (err == E_UNREACHABLE || err == E_TIMEOUT)
        fail(credentials, err, what,
             "the metadata service does not answer: outside Alibaba Cloud set accessKeyFile or "
             "rrsa.enable");
    else
        fail(credentials, err, what, err_text(err));
}

static void on_role_keys(void *arg, int err, const char *text)
{
    struct acr_credentials *credentials = arg;
    uint64_t expires_s = 0;

    wake(credentials);
    if (err != 0) {
        metadata_fail(credentials, err);
        return;
    }
    err = acr__keys_parse(text, strlen(text), true, credentials->fresh, &expires_s);
    if (err != 0)
        fail(credentials, err,
             "credentials of the RAM role: the metadata service gave none: ", err_text(err));
    else if (life_take(credentials, expires_s, acr__metadata_date_s(credentials->metadata)))
        done(credentials, 0);
}

/* The first line; what a path may carry. */
static bool role_take(char out[ACR_ROLE_BYTES_MAX + 1], const char *text)
{
    size_t bytes = strcspn(text, "\r\n");

    if (bytes == 0 || text_copy_n(out, ACR_ROLE_BYTES_MAX + 1, text, bytes) != 0)
        return false;
    return strspn(out, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") ==
           bytes;
}

static void on_role(void *arg, int err, const char *text)
{
    struct acr_credentials *credentials = arg;

    wake(credentials);
    if (err != 0)
        metadata_fail(credentials, err);
    else if (!role_take(credentials->role, text))
        fail(credentials, E_MALFORMED,
             "credentials of the RAM role: ", "the metadata service named no role");
}

/* Asks for the keys when the role's name is known, else for the name. */
static void role_ask(struct acr_credentials *credentials, uint64_t now_us)
{
    char path[sizeof ROLES_PATH + ACR_ROLE_BYTES_MAX];
    bool named = credentials->role[0] != '\0';
    int err;

    if (credentials->metadata == NULL) {
        fail(credentials, E_UNSUPPORTED, "credentials of the RAM role: ",
             "the metadata service is switched off by ALIBABA_CLOUD_ECS_METADATA_DISABLED");
        return;
    }
    (void)snprintf(path, sizeof path, "%s%s", ROLES_PATH, credentials->role);
    credentials->state = named ? ACR_CREDENTIALS_ROLE_KEYS : ACR_CREDENTIALS_ROLE;
    err = acr_metadata_get(credentials->metadata, now_us, path, named ? on_role_keys : on_role,
                           credentials);
    if (err != 0)
        metadata_fail(credentials, err);
}

/* ---- a file ---- */

static int file_read(struct acr_credentials *credentials, const char *path, bool secret)
{
    struct acr_file file = {.bytes = credentials->text, .room = ACR_OIDC_BYTES_MAX + 1};
    const struct acr_host *host = &credentials->api->host;
    int err = host->read_file(host->host, path, secret, &file);

    if (err != 0)
        fail(credentials, err, "", file.why);
    return err;
}

static void file_take(struct acr_credentials *credentials)
{
    int err;

    if (file_read(credentials, credentials->config->access_key_file, true) != 0)
        return;
    err = acr__keys_parse_lines(credentials->text, credentials->fresh);
    if (err != 0) {
        fail(credentials, err,
             "accessKeyFile: ", "it must have two lines: the key's id and its secret");
        return;
    }
    credentials->fresh_life_us = ACR_NEVER;
    done(credentials, 0);
}

/* ---- a pod's identity ---- */

static void trim(char *text)
{
    size_t bytes = strlen(text), start = strspn(text, " \t\r\n");

    while (bytes > start && strchr(" \t\r\n", text[bytes - 1]) != NULL)
        bytes--;
    memmove(text, text + start, bytes - start);
    text[bytes - start] = '\0';
}

/* The kubelet rewrites the file: it is read for every exchange. */
static void oidc_ask(struct acr_credentials *credentials, uint64_t now_us)
{
    const struct acr_config *config = credentials->config;

    if (file_read(credentials, config->token_file, false) != 0)
        return;
    trim(credentials->text);
    if (strlen(credentials->text) < 4) {
        fail(credentials, E_MALFORMED, "RRSA: the token's file is empty: ", config->token_file);
        return;
    }
    credentials->question = (struct acr_question){
        .service = &credentials->sts,
        .action = "AssumeRoleWithOIDC",
        .version = STS_VERSION,
        .params = {{"RoleArn", config->role_arn},
                   {"OIDCProviderArn", config->provider_arn},
                   {"OIDCToken", credentials->text},
                   {"RoleSessionName", SESSION_NAME},
                   {"DurationSeconds", FIRST_ROLE_S}},
        .param_count = 5,
    };
    credentials->state = ACR_CREDENTIALS_OIDC;
    acr__api_ask(credentials->api, now_us, &credentials->question);
}

static bool token_ended(const struct acr_credentials *credentials)
{
    return strcmp(credentials->api->error.code, "AuthenticationFail.OIDCToken.Expired") == 0;
}

static void sts_fail(struct acr_credentials *credentials, int err)
{
    const char *hint = "";
    char what[96];
    bool second = credentials->state == ACR_CREDENTIALS_ASSUME;

    if (token_ended(credentials))
        hint = "the pod's token has ended and its file holds no newer one; ";
    if (err == E_DENIED)
        hint = second ? "check that rrsa.assumeRoleARN trusts the first role, and that the first "
                        "role has AliyunSTSAssumeRoleAccess; "
                      : "check the role's trust policy (provider, service account) ";
    if (err == E_NOT_FOUND)
        hint = second ? "check rrsa.assumeRoleARN; " : "check rrsa.rrsaRoleARN; ";
    if (second && strstr(credentials->api->error.code, "DurationSeconds") != NULL)
        (void)snprintf(what, sizeof what,
                       "RRSA: rrsa.expireDuration %u is more than the role's maximum; ",
                       (unsigned)credentials->config->assume_role_s);
    else
        (void)snprintf(what, sizeof what, "RRSA: ");
    (void)snprintf(credentials->why, sizeof credentials->why, "%s%s%.220s", what, hint,
                   credentials->api->why);
    done(credentials, err);
}

/* Role B is asked for with A's keys, which nobody needs afterwards. */
static void assume_ask(struct acr_credentials *credentials, uint64_t now_us)
{
    const struct acr_config *config = credentials->config;
    char *seconds = credentials->text; /* the OIDC token is done with */

    sodium_memzero(credentials->text, ACR_OIDC_BYTES_MAX + 1);
    (void)snprintf(seconds, SECONDS_BYTES, "%u", (unsigned)config->assume_role_s);
    credentials->question = (struct acr_question){
        .service = &credentials->sts,
        .action = "AssumeRole",
        .version = STS_VERSION,
        .params = {{"RoleArn", config->assume_role_arn},
                   {"RoleSessionName", SESSION_NAME},
                   {"DurationSeconds", seconds}},
        .param_count = 3,
        .keys = credentials->fresh,
    };
    credentials->state = ACR_CREDENTIALS_ASSUME;
    acr__api_ask(credentials->api, now_us, &credentials->question);
}

static void sts_answer(struct acr_credentials *credentials, uint64_t now_us)
{
    struct acr_call *call = &credentials->api->call;
    uint64_t expires_s = 0, date_s = call->date_s;
    bool more = credentials->state == ACR_CREDENTIALS_OIDC &&
                credentials->config->assume_role_arn[0] != '\0';
    int err = acr__keys_parse(call->body, call->body_bytes, false, credentials->fresh, &expires_s);

    acr__call_wipe(call);
    if (err != 0)
        fail(credentials, err, "RRSA: the answer of STS holds no credentials: ", err_text(err));
    else if (!life_take(credentials, expires_s, date_s))
        return;
    else if (more)
        assume_ask(credentials, now_us);
    else
        done(credentials, 0);
}

static void sts_poll(struct acr_credentials *credentials, uint64_t now_us)
{
    int err = acr__api_poll(credentials->api, now_us);

    if (err == E_AGAIN)
        return;
    if (err == 0) {
        sts_answer(credentials, now_us);
        return;
    }
    if (token_ended(credentials) && !credentials->oidc_repeated) {
        credentials->oidc_repeated = true;
        oidc_ask(credentials, now_us);
        return;
    }
    sts_fail(credentials, err);
}

/* ---- public ---- */

static void begin(struct acr_credentials *credentials, uint64_t now_us)
{
    credentials->why[0] = '\0';
    credentials->oidc_repeated = false;
    switch (credentials->config->keys_from) {
    case ACR_KEYS_ROLE: /* the name is asked for each time: the role may be replaced */
        (void)snprintf(credentials->role, sizeof credentials->role, "%s",
                       credentials->config->ram_role);
        role_ask(credentials, now_us);
        break;
    case ACR_KEYS_FILE:
        file_take(credentials);
        break;
    case ACR_KEYS_RRSA:
        oidc_ask(credentials, now_us);
        break;
    }
}

int acr__credentials_poll(struct acr_credentials *credentials, uint64_t now_us)
{
    enum acr_credentials_state before;

    do {
        before = credentials->state;
        switch (before) {
        case ACR_CREDENTIALS_IDLE:
            begin(credentials, now_us);
            break;
        case ACR_CREDENTIALS_ROLE:
            if (credentials->role[0] != '\0')
                role_ask(credentials, now_us);
            break;
        case ACR_CREDENTIALS_OIDC:
        case ACR_CREDENTIALS_ASSUME:
            sts_poll(credentials, now_us);
            break;
        case ACR_CREDENTIALS_ROLE_KEYS:
            break;
        case ACR_CREDENTIALS_DONE:
            return finish(credentials, now_us);
        }
    } while (credentials->state != before);
    return E_AGAIN;
}
