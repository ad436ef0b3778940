/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata service of ECS (acr.h): a session token first, as hardened instances demand; where
 * the service knows no tokens, or they cannot reach us, questions without one, unless that is
 * forbidden.
 */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "acr.h"
#include "acr_credentials.h"
#include "bytes.h"
#include "log.h"

#define TOKEN_BYTES_MAX 1024
#define TOKEN_TTL_TEXT  "21600"
/* Four fifths of the ttl. */
#define TOKEN_USE_US (UINT64_C(21600) * 4 / 5 * 1000000)
/* How long a service without tokens is believed to stay so. */
#define PLAIN_US   (UINT64_C(300) * 1000000)
#define STEP_MS    1000
#define PATH_BYTES 256
#define URL_BYTES  (HOST_BYTES_MAX + 64 + PATH_BYTES)

struct acr_metadata {
    struct env env;
    struct acr_call call;
    char url[HOST_BYTES_MAX + 16]; /* of the service */
    char path[PATH_BYTES];         /* of the running question */
    bool token_required;
    bool repeated; /* the question was asked again with a new token */
    char *token;   /* locked memory; "" none */
    uint64_t token_until_us;
    uint64_t plain_until_us; /* asked without token until then */
    uint64_t now_us;         /* of the running question */
    acr_metadata_done_fn done;
    void *arg;
};

static int token_ask(struct acr_metadata *metadata);

/* ---- the end of a question ---- */

static void finish(struct acr_metadata *metadata, int err, const char *text)
{
    acr_metadata_done_fn done = metadata->done;

    metadata->done = NULL;
    if (err != 0)
        log_to(&metadata->env, LOG_DEBUG, "metadata: no answer path=%s error=%s status=%d",
               metadata->path, err_name(err), metadata->call.status);
    done(metadata->arg, err, err == 0 ? text : NULL);
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* The body without white space around it; NULL if nothing is left, or a zero byte is inside. */
static char *body_trim(struct acr_call *call)
{
    char *text = call->body, *end = call->body + call->body_bytes;

    while (text < end && blank(*text))
        text++;
    while (end > text && blank(end[-1]))
        end--;
    *end = '\0';
    return text < end && strlen(text) == (size_t)(end - text) ? text : NULL;
}

static int status_error(int status)
{
    switch (status) {
    case 401:
    case 403:
        return E_DENIED;
    case 404:
        return E_NOT_FOUND;
    default:
        return E_ORIGIN;
    }
}

/* ---- the question ---- */

static void on_value(void *arg)
{
    struct acr_metadata *metadata = arg;
    struct acr_call *call = &metadata->call;
    const char *text;

    if (call->err == 0 && call->status == 401 && !metadata->repeated) {
        metadata->repeated = true;
        sodium_memzero(metadata->token, TOKEN_BYTES_MAX + 1);
        metadata->plain_until_us = 0;
        int err = token_ask(metadata);
        if (err != 0)
            finish(metadata, err, NULL);
        return;
    }
    if (call->err != 0 || call->status != 200) {
        finish(metadata, call->err != 0 ? call->err : status_error(call->status), NULL);
        return;
    }
    text = body_trim(call);
    finish(metadata, text == NULL ? E_MALFORMED : 0, text);
}

static int value_ask(struct acr_metadata *metadata)
{
    char url[URL_BYTES];
    struct fetch_request request = {.method = "GET",
                                    .url = url,
                                    .allow_metadata = true,
                                    .connect_timeout_ms = STEP_MS,
                                    .first_byte_timeout_ms = STEP_MS,
                                    .idle_timeout_ms = STEP_MS};

    (void)snprintf(url, sizeof url, "%s/latest/meta-data/%s", metadata->url, metadata->path);
    if (metadata->token[0] != '\0')
        request.headers[request.header_count++] =
            (struct fetch_header){"X-aliyun-ecs-metadata-token", metadata->token};
    return acr__call_start(&metadata->call, &request, on_value, metadata);
}

/* ---- the token ---- */

/* 0: go on, with or without one. */
static int token_take(struct acr_metadata *metadata)
{
    const struct acr_call *call = &metadata->call;
    const char *text;

    if (call->err == 0 && call->status == 200) {
        text = body_trim(&metadata->call);
        if (text == NULL || text_copy(metadata->token, TOKEN_BYTES_MAX + 1, text) != 0)
            return E_MALFORMED;
        metadata->token_until_us = metadata->now_us + TOKEN_USE_US;
        return 0;
    }
    if (call->err != 0 && call->err != E_TIMEOUT)
        return call->err;
    if (call->err == 0 && call->status != 403 && call->status != 404)
        return status_error(call->status);
    if (metadata->token_required || metadata->repeated)
        return E_DENIED;
    metadata->plain_until_us = metadata->now_us + PLAIN_US;
    return 0;
}

static void on_token(void *arg)
{
    struct acr_metadata *metadata = arg;
    int err = token_take(metadata);

    if (err == 0)
        err = value_ask(metadata);
    if (err != 0)
        finish(metadata, err, NULL);
}

static int token_ask(struct acr_metadata *metadata)
{
    char url[URL_BYTES];
    struct fetch_request request = {
        .method = "PUT",
        .url = url,
        .allow_metadata = true,
        .headers = {{"X-aliyun-ecs-metadata-token-ttl-seconds", TOKEN_TTL_TEXT}},
        .header_count = 1,
        .connect_timeout_ms = STEP_MS,
        .first_byte_timeout_ms = STEP_MS,
        .idle_timeout_ms = STEP_MS};

    (void)snprintf(url, sizeof url, "%s/latest/api/token", metadata->url);
    return acr__call_start(&metadata->call, &request, on_token, metadata);
}

/* ---- public ---- */

int acr_metadata_new(const struct env *env, const struct fetch_engine *engine,
                     const struct acr_metadata_config *config, struct acr_metadata **out)
{
    const char *url =
        config->url == NULL || config->url[0] == '\0' ? ACR_METADATA_URL : config->url;
    struct acr_metadata *metadata = env->alloc(env->host, NULL, sizeof *metadata);
    int err;

    if (metadata == NULL)
        return E_NO_MEMORY;
    *metadata = (struct acr_metadata){.env = *env, .token_required = config->token_required};
    err = acr__call_open(&metadata->call, engine);
    if (err == 0)
        err = text_copy(metadata->url, sizeof metadata->url, url);
    if (err == 0) {
        metadata->token = sodium_malloc(TOKEN_BYTES_MAX + 1);
        err = metadata->token == NULL ? E_NO_MEMORY : 0;
    }
    if (err != 0) {
        acr_metadata_free(metadata);
        return err;
    }
    metadata->token[0] = '\0';
    *out = metadata;
    return 0;
}

void acr_metadata_free(struct acr_metadata *metadata)
{
    struct env env;

    if (metadata == NULL)
        return;
    env = metadata->env;
    acr__call_close(&metadata->call);
    sodium_free(metadata->token);
    (void)env.alloc(env.host, metadata, 0);
}

int acr_metadata_get(struct acr_metadata *metadata, uint64_t now_us, const char *path,
                     acr_metadata_done_fn done, void *arg)
{
    bool fresh = metadata->token[0] != '\0' && now_us < metadata->token_until_us;
    int err;

    if (metadata->done != NULL)
        return E_IN_USE;
    if (path[0] == '\0' || path[0] == '/' || strstr(path, "..") != NULL ||
        text_copy(metadata->path, sizeof metadata->path, path) != 0)
        return E_INVALID;
    metadata->now_us = now_us;
    metadata->repeated = false;
    if (!fresh)
        sodium_memzero(metadata->token, TOKEN_BYTES_MAX + 1);
    err = fresh || now_us < metadata->plain_until_us ? value_ask(metadata) : token_ask(metadata);
    if (err != 0)
        return err;
    metadata->done = done;
    metadata->arg = arg;
    return 0;
}

uint64_t acr__metadata_date_s(const struct acr_metadata *metadata)
{
    return metadata->call.date_s;
}

void acr__metadata_stop(struct acr_metadata *metadata)
{
    if (metadata != NULL)
        acr__call_cancel(&metadata->call);
}
