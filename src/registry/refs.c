/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grammar of repository names and tags (OCI distribution-spec "Pulling manifests") and of registry
 * hosts (ORG-8). Each check is one pass over the bytes: no regular expressions, no copies.
 */
#include "registry.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

/* ASCII only, whatever the locale. */
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || is_digit(c);
}

static bool is_word(char c)
{
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Bytes of the separator at text[0..]: '.', '_', '__' or a run of '-' (spec grammar), or the '/'
 * between components. 0: not a separator. */
static size_t separator_length(const char *text, size_t text_bytes)
{
    size_t length = 0;
    switch (text[0]) {
    case '.':
    case '/':
        return 1;
    case '_':
        return text_bytes > 1 && text[1] == '_' ? 2 : 1;
    case '-':
        while (length < text_bytes && text[length] == '-')
            length++;
        return length;
    default:
        return 0;
    }
}

bool ref_repository_valid(const char *text, size_t text_bytes)
{
    if (text_bytes == 0 || text_bytes > REPOSITORY_BYTES_MAX)
        return false;
    /* [a-z0-9]+ (separator [a-z0-9]+)*, where '/' is one more separator. */
    for (size_t at = 0; at < text_bytes;) {
        size_t start = at;
        while (at < text_bytes && is_lower_alnum(text[at]))
            at++;
        if (at == start)
            return false;
        if (at == text_bytes)
            return true;
        size_t length = separator_length(text + at, text_bytes - at);
        if (length == 0)
            return false;
        at += length;
    }
    return false; /* ends in a separator */
}

bool ref_tag_valid(const char *text, size_t text_bytes)
{
    if (text_bytes == 0 || text_bytes > TAG_BYTES_MAX || !is_word(text[0]))
        return false;
    for (size_t i = 1; i < text_bytes; i++) {
        if (!is_word(text[i]) && text[i] != '.' && text[i] != '-')
            return false;
    }
    return true;
}

/* 1..65535 in decimal, without leading zero. */
static bool port_valid(const char *text, size_t text_bytes)
{
    unsigned value = 0;
    if (text_bytes == 0 || text_bytes > 5 || text[0] == '0')
        return false;
    for (size_t i = 0; i < text_bytes; i++) {
        if (!is_digit(text[i]))
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return value <= 65535;
}

/* Labels of letters, digits and inner hyphens (RFC 1123 §2.1), in lower case; an IPv4 address is
 * such a name too. */
static bool name_valid(const char *text, size_t text_bytes)
{
    size_t label = 0; /* bytes of the label so far */
    if (text_bytes == 0 || text_bytes > 253)
        return false;
    for (size_t i = 0; i < text_bytes; i++) {
        bool ends = text[i] == '.';
        bool edge = label == 0 || i + 1 == text_bytes || text[i + 1] == '.';
        if (!ends && !is_lower_alnum(text[i]) && (text[i] != '-' || edge))
            return false;
        if (ends && (label == 0 || i + 1 == text_bytes))
            return false;
        label = ends ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return true;
}

/* IPv6 literal between brackets (RFC 3986 §3.2.2), lower case, without zone. */
static bool ip6_valid(const char *text, size_t text_bytes)
{
    char copy[INET6_ADDRSTRLEN];
    uint8_t ip[16];
    if (text_bytes == 0 || text_bytes >= sizeof copy)
        return false;
    for (size_t i = 0; i < text_bytes; i++) {
        bool hex = is_digit(text[i]) || (text[i] >= 'a' && text[i] <= 'f');
        if (!hex && text[i] != ':' && text[i] != '.')
            return false;
    }
    memcpy(copy, text, text_bytes);
    copy[text_bytes] = '\0';
    return inet_pton(AF_INET6, copy, ip) == 1;
}

bool ref_host_valid(const char *text, size_t text_bytes)
{
    size_t host_bytes;
    if (text_bytes == 0 || text_bytes > HOST_BYTES_MAX)
        return false;
    if (text[0] == '[') {
        const char *bracket = memchr(text, ']', text_bytes);
        if (bracket == NULL || !ip6_valid(text + 1, (size_t)(bracket - text - 1)))
            return false;
        host_bytes = (size_t)(bracket - text) + 1;
    } else {
        const char *colon = memchr(text, ':', text_bytes);
        host_bytes = colon != NULL ? (size_t)(colon - text) : text_bytes;
        if (!name_valid(text, host_bytes))
            return false;
    }
    if (host_bytes == text_bytes)
        return true;
    return text[host_bytes] == ':' &&
           port_valid(text + host_bytes + 1, text_bytes - host_bytes - 1);
}

/* Bytes of what stands between two segments here: '/', or an escaped slash or backslash; 0: none.
 */
static size_t border_bytes(const char *at)
{
    if (*at == '/')
        return 1;
    return strncasecmp(at, "%2f", 3) == 0 || strncasecmp(at, "%5c", 3) == 0 ? 3 : 0;
}

bool ref_has_dot_segment(const char *path)
{
    size_t border;
    while ((border = border_bytes(path)) > 0) {
        size_t dots = 0;
        for (path += border; *path == '.' || strncasecmp(path, "%2e", 3) == 0; dots++)
            path += *path == '.' ? 1 : 3;
        bool ends = *path == '\0' || *path == '?' || border_bytes(path) > 0;
        if (ends && (dots == 1 || dots == 2))
            return true;
        while (*path != '\0' && *path != '?' && border_bytes(path) == 0)
            path++;
    }
    return false;
}
