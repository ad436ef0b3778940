/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URL parsing and Location resolution; see url.h for what is refused and why.
 */
#include "url.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"

static const char https_scheme[] = "https://";
static const char http_scheme[] = "http://";
#define HTTPS_BYTES (sizeof https_scheme - 1)
#define HTTP_BYTES  (sizeof http_scheme - 1)

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Schemes compare without case (RFC 3986 §3.1). */
static bool starts_with_nocase(const char *text, size_t text_bytes, const char *prefix)
{
    size_t n = strlen(prefix);

    if (text_bytes < n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (lower(text[i]) != prefix[i])
            return false;
    return true;
}

static bool bytes_plain(const char *text, size_t text_bytes)
{
    for (size_t i = 0; i < text_bytes; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c <= 0x20 || c >= 0x7f || c == '\\')
            return false;
    }
    return true;
}

static bool name_valid(const char *host, size_t host_bytes)
{
    if (host_bytes == 0 || host_bytes > 253 || host[0] == '.')
        return false;
    for (size_t i = 0; i < host_bytes; i++) {
        char c = host[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                  (c == '.' && (i == 0 || host[i - 1] != '.'));

        if (!ok)
            return false;
    }
    return true;
}

/* "[...]" with an address that the base parser accepts; zone ids are refused by it. */
static bool literal_valid(const char *host)
{
    struct peer_addr addr;

    return peer_addr_parse(host, 1, &addr) == 0;
}

static int port_parse(const char *text, size_t text_bytes, bool https, uint16_t *out)
{
    unsigned long port = 0;

    if (text_bytes == 0) {
        *out = https ? 443 : 80;
        return 0;
    }
    if (text_bytes > 5)
        return E_MALFORMED;
    for (size_t i = 0; i < text_bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return E_MALFORMED;
        port = port * 10 + (unsigned long)(text[i] - '0');
    }
    if (port == 0 || port > 65535)
        return E_MALFORMED;
    *out = (uint16_t)port;
    return 0;
}

/* host [":" port], no userinfo: '@' is not a host character, so it is refused below. */
static int authority_parse(const char *text, size_t text_bytes, struct url_parts *out)
{
    size_t host_bytes = 0;

    if (text_bytes > 0 && text[0] == '[') {
        const char *close = memchr(text, ']', text_bytes);

        if (close == NULL)
            return E_MALFORMED;
        host_bytes = (size_t)(close - text) + 1;
    } else {
        while (host_bytes < text_bytes && text[host_bytes] != ':')
            host_bytes++;
    }
    if (host_bytes >= sizeof out->host)
        return E_MALFORMED;
    for (size_t i = 0; i < host_bytes; i++)
        out->host[i] = lower(text[i]);
    out->host[host_bytes] = '\0';
    if (text_bytes > 0 && text[0] == '[' ? !literal_valid(out->host)
                                         : !name_valid(out->host, host_bytes))
        return E_MALFORMED;
    if (host_bytes == text_bytes)
        return port_parse("", 0, out->https, &out->port);
    if (text[host_bytes] != ':')
        return E_MALFORMED;
    return port_parse(text + host_bytes + 1, text_bytes - host_bytes - 1, out->https, &out->port);
}

int url__parse(const char *text, size_t text_bytes, struct url_parts *out)
{
    struct url_parts parts = {0};
    size_t start, end;
    int err;

    if (text_bytes > URL_BYTES_MAX)
        return E_TOO_LARGE;
    if (!bytes_plain(text, text_bytes))
        return E_MALFORMED;
    if (starts_with_nocase(text, text_bytes, https_scheme)) {
        parts.https = true;
        start = HTTPS_BYTES;
    } else if (starts_with_nocase(text, text_bytes, http_scheme)) {
        start = HTTP_BYTES;
    } else {
        return E_MALFORMED;
    }
    end = start;
    while (end < text_bytes && strchr("/?#", text[end]) == NULL)
        end++;
    err = authority_parse(text + start, end - start, &parts);
    if (err != 0)
        return err;
    parts.target = text + end;
    while (end < text_bytes && text[end] != '#')
        end++;
    parts.target_bytes = (size_t)(text + end - parts.target);
    *out = parts;
    return 0;
}

int url__build(const struct url_parts *parts, char *out, size_t out_bytes)
{
    char port[8] = "";
    bool rooted = parts->target_bytes > 0 && parts->target[0] == '/';
    int n;

    if (parts->port != (parts->https ? 443 : 80))
        (void)snprintf(port, sizeof port, ":%u", (unsigned)parts->port);
    n = snprintf(out, out_bytes, "%s%s%s%s%.*s", parts->https ? https_scheme : http_scheme,
                 parts->host, port, rooted ? "" : "/", (int)parts->target_bytes,
                 parts->target_bytes > 0 ? parts->target : "");
    return n < 0 || (size_t)n >= out_bytes ? E_TOO_LARGE : 0;
}

/* Length of the path: up to the query. */
static size_t path_bytes(const char *target, size_t target_bytes)
{
    const char *query = target_bytes > 0 ? memchr(target, '?', target_bytes) : NULL;

    return query == NULL ? target_bytes : (size_t)(query - target);
}

/*
 * Removes "." and ".." segments in place (RFC 3986 §5.2.4) from a path that begins with '/'.
 * Returns the new length.
 */
static size_t dots_remove(char *path, size_t bytes)
{
    size_t in = 0, used = 0;

    while (in < bytes) {
        size_t next = in + 1; /* path[in] is '/' */
        size_t segment;

        while (next < bytes && path[next] != '/')
            next++;
        segment = next - in - 1;
        if (segment == 2 && path[in + 1] == '.' && path[in + 2] == '.') {
            while (used > 0 && path[--used] != '/')
                ;
            if (next == bytes)
                path[used++] = '/';
        } else if (segment == 1 && path[in + 1] == '.') {
            if (next == bytes)
                path[used++] = '/';
        } else {
            memmove(path + used, path + in, next - in);
            used += next - in;
        }
        in = next;
    }
    return used;
}

/* Base path up to its last '/', then the relative path, dot segments removed, then the rest. */
static int resolve_relative(const struct url_parts *base, const char *location,
                            struct url_parts *out, char target[URL_BYTES_MAX + 1])
{
    size_t location_bytes = strlen(location);
    size_t keep = path_bytes(base->target, base->target_bytes);
    size_t relative = path_bytes(location, location_bytes);
    size_t used = 0;

    if (relative > 0)
        while (keep > 0 && base->target[keep - 1] != '/')
            keep--;
    if (keep + location_bytes + 1 > URL_BYTES_MAX)
        return E_TOO_LARGE;
    if (keep > 0)
        memcpy(target, base->target, keep);
    used = keep;
    if (used == 0)
        target[used++] = '/';
    memcpy(target + used, location, relative);
    used = dots_remove(target, used + relative);
    memcpy(target + used, location + relative, location_bytes - relative);
    used += location_bytes - relative;
    *out = *base;
    out->target = target;
    out->target_bytes = used;
    return 0;
}

/* True if the text begins with "scheme:" (RFC 3986 §3.1), so it is not relative. */
static bool has_scheme(const char *text)
{
    size_t i = 0;

    while ((lower(text[i]) >= 'a' && lower(text[i]) <= 'z') ||
           (i > 0 && ((text[i] >= '0' && text[i] <= '9') || strchr("+-.", text[i]) != NULL) &&
            text[i] != '\0'))
        i++;
    return i > 0 && text[i] == ':';
}

static int resolve_parts(const struct url_parts *base, const char *location, struct url_parts *out,
                         char scratch[URL_BYTES_MAX + 1])
{
    size_t location_bytes = strlen(location);
    const char *scheme = base->https ? https_scheme : http_scheme;
    int n;

    if (has_scheme(location))
        return url__parse(location, location_bytes, out);
    if (location[0] == '/' && location[1] == '/') {
        n = snprintf(scratch, URL_BYTES_MAX + 1, "%s%s", scheme, location + 2);
        if (n < 0 || n > URL_BYTES_MAX)
            return E_TOO_LARGE;
        return url__parse(scratch, (size_t)n, out);
    }
    if (location[0] != '/')
        return resolve_relative(base, location, out, scratch);
    *out = *base;
    out->target = location;
    out->target_bytes = location_bytes;
    return 0;
}

int url__resolve(const struct url_parts *base, const char *location, char *out, size_t out_bytes)
{
    char plain[URL_BYTES_MAX + 1];
    char scratch[URL_BYTES_MAX + 1];
    struct url_parts parts;
    size_t bytes = strlen(location);
    const char *fragment = strchr(location, '#');
    int err;

    if (fragment != NULL)
        bytes = (size_t)(fragment - location);
    if (bytes == 0)
        return E_MALFORMED;
    if (bytes > URL_BYTES_MAX)
        return E_TOO_LARGE;
    if (!bytes_plain(location, bytes))
        return E_MALFORMED;
    memcpy(plain, location, bytes);
    plain[bytes] = '\0';
    err = resolve_parts(base, plain, &parts, scratch);
    if (err == 0)
        err = url__build(&parts, out, out_bytes);
    /* Signed URLs are secrets (HRD-4). */
    explicit_bzero(plain, sizeof plain);
    explicit_bzero(scratch, sizeof scratch);
    return err;
}

bool url__is_number(const char *host, size_t host_bytes)
{
    size_t label, bytes;

    if (host_bytes > 0 && host[host_bytes - 1] == '.')
        host_bytes--;
    for (label = host_bytes; label > 0 && host[label - 1] != '.';)
        label--;
    bytes = host_bytes - label;
    host += label;
    if (bytes >= 2 && host[0] == '0' && host[1] == 'x')
        return strspn(host + 2, "0123456789abcdef") >= bytes - 2;
    return strspn(host, "0123456789") >= bytes;
}

bool url__same_origin(const struct url_parts *a, const struct url_parts *b)
{
    return a->https == b->https && a->port == b->port && strcmp(a->host, b->host) == 0;
}
