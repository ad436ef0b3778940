/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the cloud's OpenAPIs: tries, waits and verdicts (acr_api.h, ACR.md §2). */
#include "acr_api.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"

#define FIRST_WAIT_US  UINT64_C(1000000)
#define QUERY_BYTES    2048
#define AUTHORIZATION  1024
#define FORM_BYTES_MAX (FETCH_BODY_BYTES_MAX - 1)
/* A token of 16 KiB is encoded twice for V1's string to sign: 5 bytes for each at most. */
#define WORK_BYTES (5 * ACR_TOKEN_BYTES_MAX + 8192)

/* Texts of one request; in locked memory, gone when it is sent. */
struct scratch {
    char url[ACR_HOST_URL_BYTES + QUERY_BYTES + 2];
    char query[QUERY_BYTES];
    char authorization[AUTHORIZATION];
    char form[FORM_BYTES_MAX];
    char work[WORK_BYTES];
    struct acr_v3 made;
};

void acr__service_add(struct acr_service *service, const char *scheme, const char *host)
{
    char *url = service->urls[service->count];
    int written;

    if (service->count == ACR_SERVICE_HOSTS)
        return;
    written = snprintf(url, ACR_HOST_URL_BYTES, "%s%s", scheme, host);
    if (written > 0 && written < (int)ACR_HOST_URL_BYTES)
        service->count++;
}

int acr__api_open(struct acr_api *api, const struct env *env, const struct fetch_engine *engine,
                  const struct acr_host *host)
{
    *api = (struct acr_api){.env = *env, .host = *host, .due_us = ACR_NEVER};
    return acr__call_open(&api->call, engine);
}

void acr__api_close(struct acr_api *api)
{
    acr__call_close(&api->call);
}

uint64_t acr__random_below(const struct env *env, uint64_t bound)
{
    uint64_t drawn = 0;

    env->random(env->host, (uint8_t *)&drawn, sizeof drawn);
    return drawn % bound;
}

uint64_t acr__api_wall_s(const struct acr_api *api)
{
    int64_t wall_s = (int64_t)api->host.wall_s(api->host.host) + api->clock_offset_s;

    return wall_s < 0 ? 0 : (uint64_t)wall_s;
}

/* ---- sending ---- */

static void on_done(void *arg)
{
    struct acr_api *api = arg;

    api->answered = true;
    api->host.timer(api->host.host, 0);
}

static const char *service_url(const struct acr_service *service)
{
    return service->urls[service->at];
}

static void request_fill(const struct acr_api *api, struct acr_request *out)
{
    const struct acr_question *question = api->question;
    uint8_t nonce[16];

    *out = (struct acr_request){.method = "POST",
                                .host = strstr(service_url(question->service), "://") + 3,
                                .action = question->action,
                                .version = question->version,
                                .format = "JSON",
                                .params = question->params,
                                .param_count = question->param_count};
    if (question->keys != NULL) {
        out->key_id = question->keys->id;
        out->key_secret = question->keys->secret;
        out->token = question->keys->token;
    }
    api->env.random(api->env.host, nonce, sizeof nonce);
    hex_encode(nonce, sizeof nonce, out->nonce);
    acr__date_put(acr__api_wall_s(api), out->date);
}

/* AssumeRoleWithOIDC proves itself by its token alone (ACR.md §4.2). */
static int write_unsigned(const struct acr_request *request, struct scratch *scratch,
                          struct fetch_request *out)
{
    struct acr_text query, form;

    acr__text_open(&query, scratch->query, sizeof scratch->query);
    acr__text_open(&form, scratch->form, sizeof scratch->form);
    acr__text_put(&query, "Action=");
    acr__text_encode(&query, request->action);
    acr__text_put(&query, "&Format=JSON&Version=");
    acr__text_encode(&query, request->version);
    acr__text_put(&query, "&Timestamp=");
    acr__text_encode(&query, request->date);
    acr__text_put(&query, "&SignatureNonce=");
    acr__text_encode(&query, request->nonce);
    for (unsigned i = 0; i < request->param_count; i++) {
        acr__text_put(&form, i == 0 ? "" : "&");
        acr__text_encode(&form, request->params[i].name);
        acr__text_put(&form, "=");
        acr__text_encode(&form, request->params[i].value);
    }
    out->headers[out->header_count++] = (struct fetch_header){"accept", "application/json"};
    out->headers[out->header_count++] =
        (struct fetch_header){"content-type", "application/x-www-form-urlencoded"};
    out->body = scratch->form;
    return acr__text_check(&query) != 0 ? E_TOO_LARGE : acr__text_check(&form);
}

static int write_v1(const struct acr_request *request, struct scratch *scratch,
                    struct fetch_request *out)
{
    struct acr_text form, work;

    acr__text_open(&form, scratch->form, sizeof scratch->form);
    acr__text_open(&work, scratch->work, sizeof scratch->work);
    out->headers[out->header_count++] = (struct fetch_header){"accept", "application/json"};
    out->headers[out->header_count++] =
        (struct fetch_header){"content-type", "application/x-www-form-urlencoded"};
    out->body = scratch->form;
    return acr__sign_v1(request, &form, &work);
}

static int write_v3(struct acr_api *api, const struct acr_request *request, struct scratch *scratch,
                    struct fetch_request *out)
{
    struct acr_text query, authorization, work;
    static_assert(ACR_V3_HEADERS_MAX <= FETCH_HEADERS_MAX, "a fetch takes all signed headers");
    int err;

    acr__text_open(&query, scratch->query, sizeof scratch->query);
    acr__text_open(&authorization, scratch->authorization, sizeof scratch->authorization);
    acr__text_open(&work, scratch->work, sizeof scratch->work);
    err = acr__sign_v3(request, &query, &authorization, &work, &scratch->made);
    if (err != 0)
        return err;
    memcpy(api->request_hash, scratch->made.request_hash, sizeof api->request_hash);
    out->header_count =
        acr__v3_headers(request, &scratch->made, scratch->authorization, out->headers);
    return 0;
}

static int try_send(struct acr_api *api)
{
    struct acr_request request;
    struct fetch_request out = {.method = "POST",
                                .connect_timeout_ms = 5000,
                                .first_byte_timeout_ms = 10000,
                                .idle_timeout_ms = 10000};
    struct scratch *scratch = sodium_malloc(sizeof *scratch);
    int err;

    if (scratch == NULL)
        return E_NO_MEMORY;
    scratch->query[0] = '\0';
    request_fill(api, &request);
    if (api->question->keys == NULL)
        err = write_unsigned(&request, scratch, &out);
    else
        err = api->sign_v1 ? write_v1(&request, scratch, &out)
                           : write_v3(api, &request, scratch, &out);
    (void)snprintf(scratch->url, sizeof scratch->url, "%s/%s%s",
                   service_url(api->question->service), scratch->query[0] == '\0' ? "" : "?",
                   scratch->query);
    out.url = scratch->url;
    api->answered = false;
    if (err == 0)
        err = acr__call_start(&api->call, &out, on_done, api);
    sodium_free(scratch);
    return err;
}

/* ---- judging ---- */

enum verdict {
    GIVE_UP = 1, /* or done */
    AGAIN_NOW,
    AGAIN_LATER,
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int code_error(const char *code, int status)
{
    static const struct {
        const char *prefix;
        int err;
    } known[] = {{"INSTANCE_NOT_EXIST", E_NOT_FOUND},
                 {"INSTANCE_STATUS_NOT_SUPPORT", E_NOT_FOUND},
                 {"EntityNotExist", E_NOT_FOUND},
                 {"Forbidden", E_DENIED},
                 {"NoPermission", E_DENIED},
                 {"InvalidAccessKeyId", E_AUTH},
                 {"SignatureDoesNotMatch", E_AUTH},
                 {"IncompleteSignature", E_AUTH},
                 {"InvalidSecurityToken", E_AUTH},
                 {"MissingSecurityToken", E_AUTH},
                 {"AuthenticationFail.OIDCToken", E_AUTH}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (starts_with(code, known[i].prefix))
            return known[i].err;
    if (code[0] == '\0' && (status == 401 || status == 403))
        return status == 401 ? E_AUTH : E_DENIED;
    return E_ORIGIN;
}

/* The server's text may quote what we sent: it is shown only if no key of ours is in it. */
static const char *message_shown(const struct acr_api *api)
{
    const struct acr_keys *keys = api->question->keys;
    const char *message = api->error.message;
    char start[25];

    if (keys == NULL)
        return strstr(message, "eyJ") == NULL ? message : ""; /* a JWT begins so */
    (void)snprintf(start, sizeof start, "%.24s", keys->token);
    if (strstr(message, keys->secret) != NULL || (start[0] != '\0' && strstr(message, start)))
        return "";
    return message;
}

static void why_put(struct acr_api *api, int status)
{
    const struct acr_error *error = &api->error;
    bool mismatch = starts_with(error->code, "SignatureDoesNotMatch");

    (void)snprintf(api->why, sizeof api->why, "%s: %d %s: %.160s%s%s", api->question->action,
                   status, error->code[0] == '\0' ? "without a code" : error->code,
                   message_shown(api),
                   mismatch && !api->sign_v1 ? "; our string to sign ends " : "",
                   mismatch && !api->sign_v1 ? api->request_hash : "");
}

/* Our clock is wrong by more than the service allows: its own time counts from now on. */
static bool clock_correct(struct acr_api *api)
{
    uint64_t ours_s = api->host.wall_s(api->host.host);

    if (api->clock_corrected || api->call.date_s == 0)
        return false;
    api->clock_corrected = true;
    api->clock_offset_s = (int64_t)api->call.date_s - (int64_t)ours_s;
    log_to(&api->env, LOG_WARN,
           "acr: this node's clock is off by %lld s, found by %s: corrected for the cloud's APIs "
           "only; check the node's time service",
           (long long)-api->clock_offset_s, api->question->action);
    return true;
}

static enum verdict judge_failure(struct acr_api *api, int *err)
{
    const char *code = api->error.code;
    int status = api->call.status;

    if (status >= 500 || status == 429 || starts_with(code, "Throttling") ||
        starts_with(code, "ServiceUnavailable")) {
        *err = E_FULL;
        return AGAIN_LATER;
    }
    *err = code_error(code, status);
    if (starts_with(code, "InvalidTimeStamp"))
        return clock_correct(api) ? AGAIN_NOW : GIVE_UP;
    return starts_with(code, "SignatureNonceUsed") ? AGAIN_NOW : GIVE_UP;
}

static enum verdict judge(struct acr_api *api, int *err)
{
    struct acr_call *call = &api->call;
    struct acr_service *service = api->question->service;

    api->error = (struct acr_error){.code = ""};
    *err = call->err;
    if (call->err != 0) {
        (void)snprintf(api->why, sizeof api->why, "%s: %.150s: %s", api->question->action,
                       service_url(service), err_text(call->err));
        service->at = (service->at + 1) % service->count;
        return call->err == E_TOO_LARGE ? GIVE_UP : AGAIN_LATER;
    }
    if (call->status == 200 && acr__answer_succeeded(call->body, call->body_bytes))
        return GIVE_UP;
    acr__error_parse(call->body, call->body_bytes, &api->error);
    why_put(api, call->status);
    if (call->status == 200 && api->error.code[0] == '\0') {
        *err = E_MALFORMED;
        return GIVE_UP;
    }
    return judge_failure(api, err);
}

/* 1, 2, 4 s and up to half more, or what the service asked for. */
static uint64_t wait_us(const struct acr_api *api)
{
    uint64_t us = FIRST_WAIT_US << (api->tries - 1);

    if (api->call.retry_ms != 0)
        return (uint64_t)api->call.retry_ms * 1000;
    return us + acr__random_below(&api->env, us / 2);
}

/* ---- public ---- */

void acr__api_ask(struct acr_api *api, uint64_t now_us, const struct acr_question *question)
{
    ASSERT(api->question == NULL && question->service->count > 0);
    api->question = question;
    api->tries = 0;
    api->clock_corrected = false;
    api->answered = false;
    api->due_us = now_us;
    api->why[0] = '\0';
    api->error = (struct acr_error){.code = ""};
}

/* Ends the question. */
static int settle(struct acr_api *api, int err)
{
    api->question = NULL;
    api->due_us = ACR_NEVER;
    if (err != 0)
        acr__call_wipe(&api->call);
    return err;
}

/* 0: a call runs. */
static int try_next(struct acr_api *api, uint64_t now_us)
{
    int err;

    if (now_us < api->due_us)
        return E_AGAIN;
    api->retries += api->tries++ > 0;
    api->due_us = ACR_NEVER;
    err = try_send(api);
    if (err == 0)
        return E_AGAIN;
    (void)snprintf(api->why, sizeof api->why, "%s: not sent: %s", api->question->action,
                   err_text(err));
    return settle(api, err);
}

int acr__api_poll(struct acr_api *api, uint64_t now_us)
{
    enum verdict verdict;
    int err;

    ASSERT(api->question != NULL);
    if (api->due_us != ACR_NEVER)
        return try_next(api, now_us);
    if (!api->answered)
        return E_AGAIN;
    api->answered = false;
    verdict = judge(api, &err);
    log_to(&api->env, LOG_DEBUG, "acr: asked action=%s status=%d try=%u code=%s error=%s",
           api->question->action, api->call.status, api->tries, api->error.code,
           err == 0 ? "none" : err_name(err));
    if (verdict == GIVE_UP || api->tries >= ACR_TRIES_MAX)
        return settle(api, err);
    api->due_us = now_us + (verdict == AGAIN_LATER ? wait_us(api) : 0);
    return try_next(api, now_us);
}
