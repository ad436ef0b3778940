/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to token services: one at a time for each token, whoever waits for it. With a password
 * a GET (distribution's token specification, "Requesting a Token"), with an identity token a POST
 * (its OAuth2 specification, "Getting a token"). Either goes to the realm and nowhere else (ORG-4);
 * a redirect is not followed, for who answers it is not who was listed. A new refresh token in an
 * answer is not kept: the file is the operator's.
 *
 * Callbacks of the engine have no time, so an answer is read in the next turn.
 */
#include <sodium.h>
#include <string.h>

#include "acr_text.h"
#include "digest.h"
#include "log.h"
#include "origin.h"

/* However many answers drip in: then it is over. */
#define TOKEN_REQUEST_US (20ull * 1000 * 1000)
#define TOKEN_CONNECT_MS 5000
#define TOKEN_ANSWER_MS  7000

struct origin_token {
    struct origin *origin;
    struct origin_token *next;
    uint8_t key[32];
    struct fetch *running; /* NULL: over */
    uint64_t began_us;
    int status, err;
    size_t bytes;
    char reply[TOKEN_REPLY_BYTES_MAX];
};

void origin__token_key(const struct origin *origin, const struct auth_challenge *challenge,
                       const struct registry_login *login, uint8_t out[32])
{
    uint8_t who[32], what[32];

    hmac_sha256(origin->key, login->user, strlen(login->user) + 1, login->password,
                strlen(login->password), who);
    hmac_sha256(origin->key, who, sizeof who, login->token, strlen(login->token), who);
    hmac_sha256(origin->key, challenge->service, strlen(challenge->service) + 1, challenge->scope,
                strlen(challenge->scope), what);
    hmac_sha256(origin->key, what, sizeof what, challenge->realm, strlen(challenge->realm), what);
    hmac_sha256(origin->key, who, sizeof who, what, sizeof what, out);
}

/* ---- the request ---- */

static int url_make(const struct auth_challenge *challenge, char *out, size_t out_bytes)
{
    const char *mark = strchr(challenge->realm, '?') == NULL ? "?" : "&";
    struct acr_text text;

    if (strchr(challenge->realm, '#') != NULL)
        return E_MALFORMED;
    acr__text_open(&text, out, out_bytes);
    acr__text_put(&text, challenge->realm);
    if (challenge->service[0] != '\0') {
        acr__text_put(&text, mark);
        acr__text_put(&text, "service=");
        acr__text_encode(&text, challenge->service);
        mark = "&";
    }
    if (challenge->scope[0] != '\0') {
        acr__text_put(&text, mark);
        acr__text_put(&text, "scope=");
        acr__text_encode(&text, challenge->scope);
    }
    return acr__text_check(&text);
}

static void form_put(struct acr_text *form, const char *name, const char *value)
{
    if (value[0] == '\0')
        return;
    acr__text_put(form, form->used == 0 ? "" : "&");
    acr__text_put(form, name);
    acr__text_put(form, "=");
    acr__text_encode(form, value);
}

/* The body of a question with an identity token. */
static int form_make(const struct auth_challenge *challenge, const struct registry_login *login,
                     char *out, size_t out_bytes)
{
    struct acr_text form;

    static_assert(3 * (REGISTRY_LOGIN_TOKEN_MAX + 2 * AUTH_CHALLENGE_BYTES_MAX) + 128 <
                          TOKEN_REPLY_BYTES_MAX &&
                      TOKEN_REPLY_BYTES_MAX <= FETCH_BODY_BYTES_MAX,
                  "the longest form fits");
    acr__text_open(&form, out, out_bytes);
    form_put(&form, "grant_type", "refresh_token");
    form_put(&form, "client_id", "shoal");
    form_put(&form, "service", challenge->service);
    form_put(&form, "scope", challenge->scope);
    form_put(&form, "refresh_token", login->token);
    return acr__text_check(&form);
}

int origin__basic_make(const struct registry_login *login, char out[ORIGIN_BASIC_BYTES])
{
    static const char scheme[] = "Basic ";
    char plain[sizeof login->user + sizeof login->password + 1];
    size_t user_bytes = strlen(login->user), password_bytes = strlen(login->password);

    static_assert(sizeof scheme + (sizeof plain + 2) / 3 * 4 <= ORIGIN_BASIC_BYTES,
                  "the longest login fits");
    memcpy(plain, login->user, user_bytes);
    plain[user_bytes] = ':';
    memcpy(plain + user_bytes + 1, login->password, password_bytes);
    memcpy(out, scheme, sizeof scheme - 1);
    (void)sodium_bin2base64(out + sizeof scheme - 1, ORIGIN_BASIC_BYTES - sizeof scheme + 1,
                            (const unsigned char *)plain, user_bytes + 1 + password_bytes,
                            sodium_base64_VARIANT_ORIGINAL);
    sodium_memzero(plain, sizeof plain);
    return strlen(out) <= ORIGIN_FIELD_BYTES_MAX ? 0 : E_TOO_LARGE;
}

static void on_head(void *arg, const struct fetch_response *response)
{
    struct origin_token *token = arg;

    token->status = response->status;
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct origin_token *token = arg;

    if (byte_count > sizeof token->reply - token->bytes) {
        token->err = E_TOO_LARGE; /* the rest is read and dropped until the time is up */
        return true;
    }
    memcpy(token->reply + token->bytes, bytes, byte_count);
    token->bytes += byte_count;
    return true;
}

static void on_done(void *arg, int err)
{
    struct origin_token *token = arg;

    token->running = NULL;
    if (token->err == 0)
        token->err = err;
    origin__ask_turn(token->origin);
}

/* The login's part of a request: its header and URL, or its body in the buffer of the reply. */
static int login_put(struct origin_token *token, const struct auth_challenge *challenge,
                     const struct registry_login *login, char basic[ORIGIN_BASIC_BYTES],
                     struct fetch_request *request)
{
    struct fetch_header *header = &request->headers[request->header_count++];

    if (login->kind == REGISTRY_LOGIN_IDENTITY) {
        request->method = "POST";
        request->url = challenge->realm;
        request->body = token->reply;
        *header = (struct fetch_header){"Content-Type", "application/x-www-form-urlencoded"};
        return form_make(challenge, login, token->reply, sizeof token->reply);
    }
    *header = (struct fetch_header){"Authorization", basic};
    return origin__basic_make(login, basic);
}

static int token_send(struct origin_token *token, const struct origin_fetch *fetch,
                      const struct auth_challenge *challenge, const struct registry_login *login)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    const struct fetch_engine *engine = &token->origin->engine;
    char url[URL_BYTES_MAX + 1], basic[ORIGIN_BASIC_BYTES];
    struct fetch_request request = {
        .method = "GET",
        .url = url,
        .headers = {{"Accept", "application/json"}},
        .header_count = 1,
        .ca_file = fetch->ca_file,
        .proxy = fetch->proxy,
        .allow_private = &fetch->allow_private,
        .connect_timeout_ms = TOKEN_CONNECT_MS,
        .first_byte_timeout_ms = TOKEN_ANSWER_MS,
        .idle_timeout_ms = TOKEN_ANSWER_MS,
    };
    int err = url_make(challenge, url, sizeof url);

    if (err == 0)
        err = login_put(token, challenge, login, basic, &request);
    hmac_sha256(token->origin->key, "token", 6, token->key, sizeof token->key, request.pool_key);
    if (err == 0)
        err = engine->start(engine->self, &request, &callbacks, token, &token->running);
    sodium_memzero(basic, sizeof basic);
    sodium_memzero(token->reply, sizeof token->reply);
    return err;
}

static struct origin_token *token_find(const struct origin *origin, const uint8_t key[32],
                                       unsigned *count)
{
    struct origin_token *token = origin->token_requests;

    *count = 0;
    while (token != NULL && memcmp(token->key, key, sizeof token->key) != 0) {
        token = token->next;
        ++*count;
    }
    return token;
}

static void token_free(struct origin_token *token)
{
    struct origin *origin = token->origin;

    explicit_bzero(token, sizeof *token);
    (void)origin->env.alloc(origin->env.host, token, 0);
}

int origin__token_ask(const struct origin_fetch *fetch, const struct auth_challenge *challenge,
                      const struct registry_login *login, const uint8_t key[32],
                      struct origin_token **out)
{
    struct origin *origin = fetch->origin;
    unsigned count;
    struct origin_token *token = token_find(origin, key, &count);
    int err;

    if (token != NULL) {
        *out = token;
        return 0;
    }
    if (count >= ORIGIN_TOKEN_REQUESTS_MAX)
        return E_FULL;
    token = origin->env.alloc(origin->env.host, NULL, sizeof *token);
    if (token == NULL)
        return E_NO_MEMORY;
    memset(token, 0, offsetof(struct origin_token, reply));
    token->origin = origin;
    token->began_us = origin->now_us;
    memcpy(token->key, key, sizeof token->key);
    err = token_send(token, fetch, challenge, login);
    if (err != 0) {
        token_free(token);
        return err;
    }
    token->next = origin->token_requests;
    origin->token_requests = token;
    origin->counters.tokens_asked++;
    *out = token;
    return 0;
}

/* ---- the answer ---- */

static void token_keep(struct origin_token *token)
{
    struct origin *origin = token->origin;
    char value[TOKEN_BYTES_MAX + 1];
    uint64_t life_s = 0;
    int err = token->err;

    if (err == 0 && token->status != 200)
        err = E_DENIED;
    if (err == 0)
        err = token_reply_parse(token->reply, token->bytes, value, &life_s);
    if (err == 0) {
        tokens_put(origin->tokens, origin->now_us, token->key, value, life_s);
    } else {
        origin->counters.tokens_refused++;
        tokens_refuse(origin->tokens, origin->now_us, token->key);
        log_to(&origin->env, LOG_WARN, "origin: no token for the node's login status=%d err=%s",
               token->status, err_name(err));
    }
    sodium_memzero(value, sizeof value);
}

/* True: it is over, and off the list. */
static bool token_end(struct origin_token **link)
{
    struct origin_token *token = *link;
    struct origin *origin = token->origin;

    if (token->running != NULL && origin->now_us - token->began_us < TOKEN_REQUEST_US)
        return false;
    if (token->running != NULL) {
        origin->engine.cancel(origin->engine.self, token->running);
        token->err = E_TIMEOUT;
    }
    *link = token->next;
    token_keep(token);
    for (struct origin_fetch *fetch = origin->head; fetch != NULL; fetch = fetch->next)
        if (fetch->token == token)
            origin__auth_go_on(fetch);
    token_free(token);
    return true;
}

void origin__tokens_turn(struct origin *origin)
{
    struct origin_token **link = &origin->token_requests;

    while (*link != NULL)
        if (!token_end(link))
            link = &(*link)->next;
}

uint64_t origin__tokens_due_us(const struct origin *origin)
{
    uint64_t due_us = UINT64_MAX;

    for (const struct origin_token *token = origin->token_requests; token != NULL;
         token = token->next) {
        uint64_t at_us = token->running == NULL ? 0 : token->began_us + TOKEN_REQUEST_US;

        due_us = at_us < due_us ? at_us : due_us;
    }
    return due_us;
}

void origin__tokens_close(struct origin *origin)
{
    while (origin->token_requests != NULL) {
        struct origin_token *token = origin->token_requests;

        origin->token_requests = token->next;
        if (token->running != NULL)
            origin->engine.cancel(origin->engine.self, token->running);
        token_free(token);
    }
    tokens_free(origin->tokens);
}
