/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A login for a registry out of a file's text: dockerconfigjson (what `kubectl create secret
 * docker-registry` and `docker login` make, with a password or a token), or user and password
 * alone. The text and what is read of it are secrets: no error repeats them.
 */
#include <sodium.h>
#include <string.h>

#include "bytes.h"
#include "json_bounded.h"
#include "registry.h"

#define LOGIN_FILE_BYTES_MAX (64 * 1024)

/* The host of a key of `auths`: "host", "https://host/v1/" and the like. */
static const char *host_of(const char *key, size_t *bytes)
{
    const char *scheme = strstr(key, "://");

    if (scheme != NULL)
        key = scheme + 3;
    *bytes = strcspn(key, "/");
    return key;
}

static bool host_is(const char *key, const char *host)
{
    size_t bytes;

    key = host_of(key, &bytes);
    return strlen(host) == bytes && memcmp(key, host, bytes) == 0;
}

/* "*.corp.test:5000" for "a.corp.test:5000": '*' is one label, and more than one is behind it. */
static bool host_fits(const char *key, const char *host)
{
    const char *rest = strchr(host, '.');
    size_t bytes;

    key = host_of(key, &bytes);
    return rest != NULL && strchr(rest + 1, '.') != NULL && bytes > 2 && key[0] == '*' &&
           strlen(rest) == bytes - 1 && memcmp(key + 1, rest, bytes - 1) == 0;
}

/* The entry for a registry; Docker Hub goes by several names. */
static const json_t *auth_find(json_t *auths, const char *registry)
{
    static const char *const hub[] = {"docker.io", "index.docker.io", "registry-1.docker.io"};
    const char *key;
    json_t *value;

    json_object_foreach(auths, key, value)
    {
        if (host_is(key, registry))
            return value;
    }
    json_object_foreach(auths, key, value)
    {
        if (host_fits(key, registry))
            return value;
    }
    if (strcmp(registry, hub[0]) != 0)
        return NULL;
    json_object_foreach(auths, key, value)
    {
        if (host_is(key, hub[1]) || host_is(key, hub[2]))
            return value;
    }
    return NULL;
}

/* User and password with nothing in them that could end a header's line. */
static int login_set(const char *user, size_t user_bytes, const char *password,
                     size_t password_bytes, struct registry_login *out)
{
    if (user_bytes == 0 || memchr(user, ':', user_bytes) != NULL)
        return E_MALFORMED;
    for (size_t i = 0; i < user_bytes; i++)
        if ((unsigned char)user[i] < 0x20 || user[i] == 0x7f)
            return E_MALFORMED;
    for (size_t i = 0; i < password_bytes; i++)
        if ((unsigned char)password[i] < 0x20 || password[i] == 0x7f)
            return E_MALFORMED;
    if (user_bytes >= sizeof out->user || password_bytes >= sizeof out->password)
        return E_TOO_LARGE;
    out->kind = REGISTRY_LOGIN_PASSWORD;
    out->token[0] = '\0';
    memcpy(out->user, user, user_bytes);
    out->user[user_bytes] = '\0';
    memcpy(out->password, password, password_bytes);
    out->password[password_bytes] = '\0';
    return 0;
}

/* "user:password" in base64, as Basic has it. */
static int auth_decode(const char *text, struct registry_login *out)
{
    char plain[sizeof out->user + sizeof out->password];
    const char *colon;
    size_t bytes = 0;
    int err = E_MALFORMED;

    if (sodium_base642bin((unsigned char *)plain, sizeof plain, text, strlen(text), "\n\r ", &bytes,
                          NULL, sodium_base64_VARIANT_ORIGINAL) == 0) {
        colon = memchr(plain, ':', bytes);
        if (colon != NULL)
            err = login_set(plain, (size_t)(colon - plain), colon + 1,
                            bytes - (size_t)(colon - plain) - 1, out);
    }
    sodium_memzero(plain, sizeof plain);
    return err;
}

/* Visible ASCII: it may become part of a header. */
static int token_set(const char *token, enum registry_login_kind kind, struct registry_login *out)
{
    for (const char *c = token; *c != '\0'; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f)
            return E_MALFORMED;
    out->kind = kind;
    out->user[0] = out->password[0] = '\0';
    return text_copy(out->token, sizeof out->token, token);
}

/* A text of the entry; NULL if it is absent or empty, which means the same. */
static const char *text_of(const json_t *auth, const char *name)
{
    const char *text = json_string_value(json_object_get(auth, name));

    return text == NULL || text[0] == '\0' ? NULL : text;
}

/* The credential helper that Docker would ask for this registry: `credHelpers` by host, else
 * `credsStore` for all of them. False: none. Its name is for an error's text: what is no plain name
 * of a program is not repeated. */
static bool helper_find(const json_t *root, const char *registry, bool by_pattern, char *out,
                        size_t out_bytes)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const json_t *found = auth_find(json_object_get(root, "credHelpers"), registry);
    const char *name;

    if (found == NULL && !by_pattern)
        found = json_object_get(root, "credsStore");
    name = json_string_value(found);
    if (name == NULL || name[0] == '\0')
        return false;
    if (name[strspn(name, plain)] != '\0' || text_copy(out, out_bytes, name) != 0)
        memcpy(out, "?", 2);
    return true;
}

/* Neither password nor token: is it that a program has them? */
static int config_without(const json_t *root, const char *registry, bool by_pattern, bool has_entry,
                          struct registry_login *out)
{
    if (helper_find(root, registry, by_pattern, out->helper, sizeof out->helper))
        return E_UNSUPPORTED;
    return has_entry ? E_UNSUPPORTED : E_NOT_FOUND;
}

static int config_read(const json_t *root, const char *registry, bool by_pattern,
                       struct registry_login *out)
{
    const json_t *auth = auth_find(json_object_get(root, "auths"), registry);
    const char *user = json_string_value(json_object_get(auth, "username"));
    const char *password = json_string_value(json_object_get(auth, "password"));
    const char *encoded = json_string_value(json_object_get(auth, "auth"));
    const char *bearer = text_of(auth, "registrytoken");
    const char *identity = text_of(auth, "identitytoken");

    if (auth == NULL)
        return config_without(root, registry, by_pattern, false, out);
    /* Beside an identity token `auth` is a user without password. */
    if (bearer != NULL)
        return token_set(bearer, REGISTRY_LOGIN_BEARER, out);
    if (identity != NULL)
        return token_set(identity, REGISTRY_LOGIN_IDENTITY, out);
    if (user != NULL && password != NULL)
        return login_set(user, strlen(user), password, strlen(password), out);
    if (encoded != NULL)
        return auth_decode(encoded, out);
    return config_without(root, registry, by_pattern, true, out);
}

/* "user:password", or a line each; an end of line at the end is not part of it. */
static int plain_read(const char *text, size_t text_bytes, struct registry_login *out)
{
    size_t user_bytes = 0;

    while (text_bytes > 0 && (text[text_bytes - 1] == '\n' || text[text_bytes - 1] == '\r'))
        text_bytes--;
    while (user_bytes < text_bytes && text[user_bytes] != ':' && text[user_bytes] != '\n')
        user_bytes++;
    if (user_bytes == text_bytes)
        return E_MALFORMED;
    return login_set(text, user_bytes, text + user_bytes + 1, text_bytes - user_bytes - 1, out);
}

int registry_login_parse(const char *text, size_t text_bytes, const char *registry, bool by_pattern,
                         struct registry_login *out)
{
    json_t *root = NULL;
    size_t blank = 0;
    int err;

    out->helper[0] = '\0';
    if (text_bytes > LOGIN_FILE_BYTES_MAX)
        return E_TOO_LARGE;
    while (blank < text_bytes && strchr(" \t\r\n", text[blank]) != NULL && text[blank] != '\0')
        blank++;
    if (blank == text_bytes || text[blank] != '{')
        return by_pattern ? E_REFUSED : plain_read(text, text_bytes, out);
    json__wipe_freed();
    err = json__load(text, text_bytes, LOGIN_FILE_BYTES_MAX, &root);
    if (err != 0)
        return err;
    err = config_read(root, registry, by_pattern, out);
    json_decref(root);
    return err;
}
