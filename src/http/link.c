/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Link headers (RFC 8288) of a registry's lists, made good for clients of this port (OCI
 * distribution-spec "Listing Tags"): the next page is asked for here, too, and of the same
 * registry.
 */
#include "http.h"

#include <string.h>
#include <strings.h>

#include "bytes.h"

struct text_out {
    char *at;
    size_t used, capacity;
    bool full;
};

static void put(struct text_out *out, const char *text, size_t bytes)
{
    if (out->full || bytes >= out->capacity - out->used) {
        out->full = true;
        return;
    }
    memcpy(out->at + out->used, text, bytes);
    out->used += bytes;
}

/* Bytes of "scheme://host" or "//host" in front of a target's path; 0: none. */
static size_t authority_bytes(const char *target, size_t bytes, const char **host)
{
    static const char *const schemes[] = {"https://", "http://", "//"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t scheme = strlen(schemes[i]), end = scheme;
        if (bytes < scheme || strncasecmp(target, schemes[i], scheme) != 0)
            continue;
        while (end < bytes && target[end] != '/' && target[end] != '?')
            end++;
        *host = target + scheme;
        return end;
    }
    return 0;
}

static bool has_ns(const char *target, size_t bytes)
{
    for (size_t i = 0; i + 4 <= bytes; i++) {
        if ((target[i] == '?' || target[i] == '&') && memcmp(target + i + 1, "ns=", 3) == 0)
            return true;
    }
    return false;
}

/* Brackets have no place in a query (RFC 3986 §3.4). */
static void put_ns(struct text_out *out, const char *ns, char mark)
{
    put(out, &mark, 1);
    put(out, "ns=", 3);
    for (; *ns != '\0'; ns++) {
        if (*ns == ':')
            put(out, "%3A", 3);
        else if (*ns == '[')
            put(out, "%5B", 3);
        else if (*ns == ']')
            put(out, "%5D", 3);
        else
            put(out, ns, 1);
    }
}

static void put_target(struct text_out *out, const char *target, size_t bytes, const char *host,
                       const char *ns)
{
    const char *named = NULL;
    size_t authority = authority_bytes(target, bytes, &named);
    if (authority > 0) {
        size_t host_bytes = authority - (size_t)(named - target);
        if (host_bytes != strlen(host) || strncasecmp(named, host, host_bytes) != 0) {
            put(out, target, bytes); /* another server's: that one is asked */
            return;
        }
        target += authority;
        bytes -= authority;
    }
    put(out, target, bytes);
    if (*ns != '\0' && !has_ns(target, bytes))
        put_ns(out, ns, memchr(target, '?', bytes) != NULL ? '&' : '?');
}

int http_link_here(const char *link, const char *host, const char *ns, char *text,
                   size_t text_bytes)
{
    struct text_out out = {.at = text, .capacity = text_bytes};
    while (*link != '\0') {
        size_t before = strcspn(link, "<");
        put(&out, link, before);
        link += before;
        if (*link == '\0')
            break;
        size_t bytes = strcspn(link + 1, ">");
        if (link[1 + bytes] == '\0')
            return E_MALFORMED;
        put(&out, "<", 1);
        put_target(&out, link + 1, bytes, host, ns);
        put(&out, ">", 1);
        link += bytes + 2;
    }
    if (out.full || out.used >= text_bytes)
        return E_TOO_LARGE;
    text[out.used] = '\0';
    return 0;
}
