/* SPDX-License-Identifier: Apache-2.0 */
/* Start-up taints; see kube_taint.h. One request at a time. */
#include "kube_taint.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "fetch_once.h"
#include "kube_api.h"
#include "loop.h"

#define KEY_BYTES_MAX  316
#define NODE_BYTES_MAX (2u << 20) /* with 50 images of long names it has about 40 KiB */
#define STEP_MS        5000

/* ---- text ---- */

static bool name_valid(const char *text, size_t bytes, size_t most, const char *further)
{
    static const char alnum[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    if (bytes == 0 || bytes > most || strchr(alnum, text[0]) == NULL ||
        strchr(alnum, text[bytes - 1]) == NULL)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (strchr(alnum, text[i]) == NULL && strchr(further, text[i]) == NULL)
            return false;
    return true;
}

bool kube_taint_key_valid(const char *key)
{
    size_t bytes = strlen(key);
    const char *slash = strchr(key, '/');
    if (bytes == 0 || bytes > KEY_BYTES_MAX)
        return false;
    if (slash == NULL)
        return name_valid(key, bytes, 63, "-_.");
    return name_valid(key, (size_t)(slash - key), 253, "-.") &&
           name_valid(slash + 1, bytes - (size_t)(slash + 1 - key), 63, "-_.");
}

static const char *taint_key(const json_t *taint)
{
    const char *key = json_string_value(json_object_get(taint, "key"));
    return key == NULL ? "" : key;
}

int kube_taint_patch(const char *node, size_t node_bytes, const char *key, char **out)
{
    json_t *root = json_loadb(node, node_bytes, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return E_MALFORMED;
    }
    const json_t *taints = json_object_get(json_object_get(root, "spec"), "taints");
    size_t at = 0;
    while (at < json_array_size(taints) && strcmp(taint_key(json_array_get(taints, at)), key) != 0)
        at++;
    int err = at == json_array_size(taints) ? E_NOT_FOUND : 0;
    char where[48], test[64];
    (void)snprintf(where, sizeof where, "/spec/taints/%zu", at);
    (void)snprintf(test, sizeof test, "%s/key", where);
    json_t *patch = err != 0 ? NULL
                             : json_pack("[{s:s, s:s, s:s}, {s:s, s:s}]", "op", "test", "path",
                                         test, "value", key, "op", "remove", "path", where);
    char *text = patch == NULL ? NULL : json_dumps(patch, JSON_COMPACT);
    json_decref(patch);
    json_decref(root);
    if (err == 0 && text == NULL)
        err = E_NO_MEMORY;
    if (err == 0)
        *out = text;
    return err;
}

/* ---- one exchange ---- */

/* The node (`patch` NULL), or a change of it; its status in state->status. */
static int ask(const struct config *config, const char *patch, struct fetch_once *state)
{
    struct kube_api api;
    struct address_ranges own;
    int err = kube_api_open(config, &api);
    if (err != 0)
        return err;
    address_ranges_private(&own, true); /* the operator names it */
    struct fetch_request request = {
        .method = patch == NULL ? "GET" : "PATCH",
        .url = api.node_url,
        .ca_file = api.ca_file,
        .headers = {{"Authorization", api.bearer},
                    {"Accept", "application/json"},
                    {"Content-Type", "application/json-patch+json"}},
        .header_count = patch == NULL ? 2 : 3,
        .body = patch,
        .allow_private = &own,
        .connect_timeout_ms = STEP_MS,
        .first_byte_timeout_ms = STEP_MS,
        .idle_timeout_ms = STEP_MS,
    };
    err = fetch_once(&request, state);
    kube_api_close(&api);
    return err;
}

static int refused(const struct fetch_once *state, const char *what,
                   char error[KUBE_TAINT_ERROR_BYTES])
{
    bool denied = state->status == 401 || state->status == 403;
    (void)snprintf(error, KUBE_TAINT_ERROR_BYTES, "the API server answers %d to %s this node%s",
                   state->status, what,
                   denied ? ": grant `get` and `patch` on nodes to the service account" : "");
    return denied ? E_DENIED : E_ORIGIN;
}

/* One taint less. 0: there may be more; E_NOT_FOUND: there is none. */
static int remove_one(const struct config *config, const char *key, struct fetch_once *state,
                      char error[KUBE_TAINT_ERROR_BYTES])
{
    char *patch = NULL;
    int err = ask(config, NULL, state);
    if (err == E_NOT_FOUND)
        (void)snprintf(error, KUBE_TAINT_ERROR_BYTES,
                       "not in a pod: NODE_NAME, KUBERNETES_SERVICE_HOST or the service account's "
                       "token is missing");
    else if (err != 0)
        (void)snprintf(error, KUBE_TAINT_ERROR_BYTES, "the API server: %s", err_text(err));
    if (err != 0)
        return err == E_NOT_FOUND ? E_CONFIG : err;
    if (state->status != 200)
        return refused(state, "reading", error);
    err = kube_taint_patch(state->body, state->body_bytes, key, &patch);
    if (err == E_MALFORMED)
        (void)snprintf(error, KUBE_TAINT_ERROR_BYTES, "the API server's answer is no node");
    if (err == 0)
        err = ask(config, patch, state);
    (void)loop_alloc(NULL, patch, 0);
    /* 409 and 422: somebody changed the node meanwhile, and it is read again. */
    if (err == 0 && state->status != 200 && state->status != 409 && state->status != 422)
        return refused(state, "changing", error);
    return err;
}

int kube_taint_remove(const struct config *config, const char *key,
                      char error[KUBE_TAINT_ERROR_BYTES])
{
    struct fetch_once state = {.body = loop_alloc(NULL, NULL, NODE_BYTES_MAX),
                               .body_max = NODE_BYTES_MAX};
    int err = state.body == NULL ? E_NO_MEMORY : 0;
    error[0] = '\0';
    for (unsigned tries = 0; err == 0 && tries < KUBE_TAINT_TRIES_MAX; tries++)
        err = remove_one(config, key, &state, error);
    (void)loop_alloc(NULL, state.body, 0);
    if (err == E_NOT_FOUND)
        return 0;
    if (err == 0) {
        (void)snprintf(error, KUBE_TAINT_ERROR_BYTES, "it is put back again and again");
        return E_AGAIN;
    }
    if (error[0] == '\0')
        (void)snprintf(error, KUBE_TAINT_ERROR_BYTES, "%s", err_text(err));
    return err;
}
