/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WWW-Authenticate challenges (RFC 9110 §11, RFC 6750 §3, distribution token specification) and the
 * rule which realm may be given credentials (ORG-4). The agent relays challenges unchanged; this
 * reads them where it acts with credentials of its own.
 */
#include "registry.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "url.h"

struct cursor {
    const char *at;
    const char *end;
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool token_char(char c)
{
    char l = lower(c);

    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static void skip_space(struct cursor *in)
{
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t'))
        in->at++;
}

/* Lower-cased token into out. 0, E_MALFORMED (none), E_TOO_LARGE. */
static int token_read(struct cursor *in, char *out, size_t out_bytes)
{
    size_t used = 0;

    while (in->at < in->end && token_char(*in->at)) {
        if (used + 1 >= out_bytes)
            return E_TOO_LARGE;
        out[used++] = lower(*in->at++);
    }
    out[used] = '\0';
    return used > 0 ? 0 : E_MALFORMED;
}

/* Quoted string with its escapes undone, or a bare token. 0, E_MALFORMED, E_TOO_LARGE. */
static int value_read(struct cursor *in, char *out, size_t out_bytes)
{
    bool quoted = in->at < in->end && *in->at == '"';
    size_t used = 0;

    in->at += quoted ? 1 : 0;
    while (in->at < in->end && (quoted ? *in->at != '"' : token_char(*in->at))) {
        if (quoted && *in->at == '\\' && in->at + 1 < in->end)
            in->at++;
        if ((unsigned char)*in->at < 0x20 || *in->at == 0x7f)
            return E_MALFORMED;
        if (used + 1 >= out_bytes)
            return E_TOO_LARGE;
        out[used++] = *in->at++;
    }
    out[used] = '\0';
    if (!quoted)
        return used > 0 ? 0 : E_MALFORMED;
    if (in->at == in->end)
        return E_MALFORMED;
    in->at++;
    return 0;
}

/* Where a parameter's value goes; unknown ones go to `other`. A repeated one is E_MALFORMED. */
static int param_read(struct cursor *in, const char *name, struct auth_challenge *out)
{
    char other[AUTH_CHALLENGE_BYTES_MAX + 1];
    char *target = other;

    if (strcmp(name, "realm") == 0)
        target = out->realm;
    else if (strcmp(name, "service") == 0)
        target = out->service;
    else if (strcmp(name, "scope") == 0)
        target = out->scope;
    else if (strcmp(name, "error") == 0)
        target = out->error;
    if (target != other && target[0] != '\0')
        return E_MALFORMED;
    return value_read(in, target, AUTH_CHALLENGE_BYTES_MAX + 1);
}

static int params_read(struct cursor *in, struct auth_challenge *out)
{
    while (true) {
        struct cursor start;
        char name[64];
        int err;

        skip_space(in);
        while (in->at < in->end && *in->at == ',') {
            in->at++;
            skip_space(in);
        }
        if (in->at == in->end)
            return 0;
        start = *in;
        err = token_read(in, name, sizeof name);
        if (err != 0)
            return err;
        skip_space(in);
        if (in->at == in->end || *in->at != '=') {
            *in = start; /* a further challenge begins here */
            return out->realm[0] != '\0' ? 0 : E_MALFORMED;
        }
        in->at++;
        skip_space(in);
        err = param_read(in, name, out);
        if (err != 0)
            return err;
    }
}

int auth_challenge_parse(const char *value, size_t value_bytes, struct auth_challenge *out)
{
    struct auth_challenge challenge = {0};
    struct cursor in = {value, value + value_bytes};
    char scheme[32];
    int err;

    if (value_bytes > AUTH_CHALLENGE_BYTES_MAX * 4)
        return E_TOO_LARGE;
    skip_space(&in);
    err = token_read(&in, scheme, sizeof scheme);
    if (err != 0)
        return err;
    if (strcmp(scheme, "bearer") == 0)
        challenge.scheme = AUTH_BEARER;
    else if (strcmp(scheme, "basic") == 0)
        challenge.scheme = AUTH_BASIC;
    else
        return E_UNSUPPORTED;
    if (in.at == in.end || (*in.at != ' ' && *in.at != '\t'))
        return E_MALFORMED;
    err = params_read(&in, &challenge);
    if (err != 0)
        return err;
    if (challenge.realm[0] == '\0')
        return E_MALFORMED;
    *out = challenge;
    return 0;
}

bool auth_realm_allowed(const struct registry_entry *registry, const char *realm)
{
    struct url_parts asked, own;
    char with_port[HOST_BYTES_MAX + 8];

    if (url__parse(realm, strlen(realm), &asked) != 0 || !asked.https)
        return false;
    if (url__parse(registry->endpoint, strlen(registry->endpoint), &own) == 0 &&
        strcmp(own.host, asked.host) == 0)
        return true;
    (void)snprintf(with_port, sizeof with_port, "%s:%u", asked.host, (unsigned)asked.port);
    for (size_t i = 0; i < sizeof registry->realm_hosts / sizeof registry->realm_hosts[0]; i++) {
        const char *host = registry->realm_hosts[i];

        if (host[0] != '\0' && (strcmp(host, asked.host) == 0 || strcmp(host, with_port) == 0))
            return true;
    }
    return false;
}
