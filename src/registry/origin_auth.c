/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests with the node's own login, for registries whose entry says that whoever comes without
 * credentials is served with it (ACL-7). The registry's challenge says how: Basic, a token that is
 * the login, or one from the realm it names (ORG-4). A challenge is remembered, so that only a
 * repository's first request meets a 401; what the registry still refuses is relayed with its own
 * challenge, as to anybody without credentials.
 */
#include <sodium.h>
#include <string.h>

#include "log.h"
#include "origin.h"

void origin_set_logins(struct origin *origin, const struct origin_logins *logins)
{
    origin->logins = *logins;
}

int origin__auth_open(struct origin_fetch *fetch, const struct registry_entry *registry)
{
    const struct env *env = &fetch->origin->env;

    if (!(registry->shared || fetch->request.as_node) || registry->credentials_file[0] == '\0' ||
        fetch->request.authorization != NULL || fetch->handed_url != NULL ||
        fetch->origin->logins.find == NULL)
        return 0;
    fetch->node = env->alloc(env->host, NULL, sizeof *fetch->node);
    if (fetch->node == NULL)
        return E_NO_MEMORY;
    *fetch->node = (struct origin_node){.registry = *registry};
    fetch->node->registry.users = NULL;
    return 0;
}

void origin__auth_close(struct origin_fetch *fetch)
{
    const struct env *env = &fetch->origin->env;

    if (fetch->node == NULL)
        return;
    sodium_memzero(fetch->node->authorization, sizeof fetch->node->authorization);
    (void)env->alloc(env->host, fetch->node, 0);
    fetch->node = NULL;
}

const char *origin__auth_value(const struct origin_fetch *fetch)
{
    if (fetch->away)
        return NULL;
    if (fetch->node != NULL && fetch->node->authorization[0] != '\0')
        return fetch->node->authorization;
    return fetch->request.authorization;
}

/* "lib/app" of "/v2/lib/app/manifests/1"; "" for others: their challenge names no repository. */
static void repository_of(const struct origin_fetch *fetch, char out[REPOSITORY_BYTES_MAX + 1])
{
    static const char *const kinds[] = {"/manifests/", "/blobs/", "/tags/", "/referrers/"};
    const char *path = fetch->request.path_and_query + strlen("/v2/");
    size_t bytes = 0;

    out[0] = '\0';
    if (strncmp(fetch->request.path_and_query, "/v2/", 4) != 0)
        return;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *at = strstr(path, kinds[i]);

        if (at != NULL && (bytes == 0 || (size_t)(at - path) > bytes))
            bytes = (size_t)(at - path);
    }
    if (text_copy_n(out, REPOSITORY_BYTES_MAX + 1, path, bytes) != 0)
        out[0] = '\0';
}

/* What the registry last wanted of who came without credentials. False: not known, or not to be
 * answered. */
static bool challenge_find(struct origin_fetch *fetch, struct auth_challenge *out)
{
    struct origin *origin = fetch->origin;
    char repository[REPOSITORY_BYTES_MAX + 1];
    const char *value;

    repository_of(fetch, repository);
    value = challenges_find(origin->challenges, origin->now_us, fetch->registry_name, repository);
    if (value == NULL)
        return false;
    if (auth_challenge_parse(value, strlen(value), out) == 0 && fetch->registry_url.https)
        return true;
    fetch->node->off = true;
    return false;
}

/* May the login be used for what the registry wants? A token service sees it only if it is the
 * registry's or listed. */
static bool login_fits(const struct origin_fetch *fetch, const struct auth_challenge *challenge,
                       const struct registry_login *login)
{
    if (challenge->scheme == AUTH_BASIC)
        return login->kind == REGISTRY_LOGIN_PASSWORD;
    return login->kind == REGISTRY_LOGIN_BEARER ||
           auth_realm_allowed(&fetch->node->registry, challenge->realm);
}

static void bearer_put(struct origin_node *node, const char *value)
{
    static const char scheme[] = "Bearer ";

    static_assert(REGISTRY_LOGIN_TOKEN_MAX <= TOKEN_BYTES_MAX, "both fit");
    memcpy(node->authorization, scheme, sizeof scheme - 1);
    memcpy(node->authorization + sizeof scheme - 1, value, strlen(value) + 1);
}

/* Makes the value for a token, or waits for it. False: wait. */
static bool bearer_ready(struct origin_fetch *fetch, const struct auth_challenge *challenge,
                         const struct registry_login *login)
{
    struct origin *origin = fetch->origin;
    struct origin_node *node = fetch->node;
    struct origin_token *asked = NULL;
    const char *value = NULL;
    enum token_state state;
    int err = 0;

    origin__token_key(origin, challenge, login, node->token_key);
    state = tokens_get(origin->tokens, origin->now_us, node->token_key, &value);
    if (state == TOKEN_GOOD || state == TOKEN_AGING) {
        bearer_put(node, value);
        node->bearer = true;
    }
    if (state == TOKEN_NONE || state == TOKEN_AGING)
        err = origin__token_ask(fetch, challenge, login, node->token_key, &asked);
    node->off = state == TOKEN_REFUSED || (state == TOKEN_NONE && err != 0);
    if (state != TOKEN_NONE || err != 0)
        return true;
    fetch->token = asked;
    return false;
}

bool origin__auth_ready(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    struct origin_node *node = fetch->node;
    struct auth_challenge challenge;
    struct registry_login login;
    bool ready = true;

    if (node == NULL || fetch->away)
        return true;
    sodium_memzero(node->authorization, sizeof node->authorization);
    node->bearer = false;
    if (node->off || !challenge_find(fetch, &challenge))
        return true;
    if (origin->logins.find(origin->logins.host, &node->registry, &login) != 0) {
        node->off = true;
    } else if (!login_fits(fetch, &challenge, &login)) {
        node->off = true;
        origin__log(fetch, "the node's login is not for what the registry asks");
    } else if (login.kind == REGISTRY_LOGIN_BEARER) {
        bearer_put(node, login.token);
    } else if (challenge.scheme == AUTH_BEARER) {
        ready = bearer_ready(fetch, &challenge, &login);
    } else {
        node->off = origin__basic_make(&login, node->authorization) != 0;
    }
    sodium_memzero(&login, sizeof login);
    return ready;
}

bool origin__auth_challenged(struct origin_fetch *fetch, const struct fetch_response *response)
{
    const char *value = fetch_response_header(response, "www-authenticate");
    struct origin *origin = fetch->origin;
    struct origin_node *node = fetch->node;
    char repository[REPOSITORY_BYTES_MAX + 1];
    int err;

    if (node == NULL || fetch->away || node->off || node->challenged || value == NULL)
        return false;
    if (node->authorization[0] != '\0' && !node->bearer)
        return false; /* a login that is wrong now is wrong a moment later */
    node->challenged = true;
    if (node->bearer)
        tokens_drop(origin->tokens, node->token_key);
    repository_of(fetch, repository);
    challenges_put(origin->challenges, origin->now_us, fetch->registry_name, repository, value);
    origin__stop_attempt(fetch);
    err = origin__send(fetch);
    if (err != 0)
        origin__attempt_ended(fetch, err == E_NO_MEMORY ? err : E_UNREACHABLE);
    return true;
}

void origin__auth_go_on(struct origin_fetch *fetch)
{
    int err;

    fetch->token = NULL;
    if (fetch->state != ORIGIN_AUTHORISING)
        return;
    origin__state(fetch, ORIGIN_REQUESTING);
    origin__budget_set(fetch, fetch->origin->now_us, 0);
    err = origin__send(fetch);
    if (err != 0)
        origin__attempt_ended(fetch, err == E_NO_MEMORY ? err : E_UNREACHABLE);
}
