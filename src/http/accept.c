/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a client take a media type? Accept lines of RFC 9110 §12.5.1: the most specific range that
 * fits decides, and a weight of zero is a no. Other weights do not matter here: there is one
 * answer, and the question is whether it may be given.
 */
#include <string.h>
#include <strings.h>

#include "http.h"

/* A part of a header's value: borrowed, not terminated. */
struct part {
    const char *at;
    size_t bytes;
};

static struct part trim(struct part part)
{
    while (part.bytes > 0 && (part.at[0] == ' ' || part.at[0] == '\t')) {
        part.at++;
        part.bytes--;
    }
    while (part.bytes > 0 && (part.at[part.bytes - 1] == ' ' || part.at[part.bytes - 1] == '\t'))
        part.bytes--;
    return part;
}

/* What is in front of the next `mark` outside of quotes; *rest moves behind it. */
static struct part take_until(const char **rest, const char *end, char mark)
{
    const char *at = *rest;
    bool quoted = false;
    for (; at < end && (quoted || *at != mark); at++) {
        if (quoted && *at == '\\' && at + 1 < end)
            at++;
        else if (*at == '"')
            quoted = !quoted;
    }
    struct part part = {*rest, (size_t)(at - *rest)};
    *rest = at < end ? at + 1 : end;
    return trim(part);
}

/* "q=0", "q=0.", "q=0.000". */
static bool is_zero_weight(struct part parameter)
{
    if (parameter.bytes < 3 || strncasecmp(parameter.at, "q=", 2) != 0)
        return false;
    for (size_t i = 2; i < parameter.bytes; i++) {
        if (parameter.at[i] != '0' && (parameter.at[i] != '.' || i != 3))
            return false;
    }
    return true;
}

/* How closely a range fits a type without parameters: 3 the type itself, 2 its kind, 1 everything,
 * 0 not at all. */
static unsigned closeness(struct part range, struct part type)
{
    const char *slash = memchr(type.at, '/', type.bytes);
    size_t kind = slash == NULL ? 0 : (size_t)(slash - type.at) + 1;
    if (range.bytes == type.bytes && strncasecmp(range.at, type.at, type.bytes) == 0)
        return 3;
    if (kind > 0 && range.bytes == kind + 1 && range.at[kind] == '*' &&
        strncasecmp(range.at, type.at, kind) == 0)
        return 2;
    return range.bytes == 3 && memcmp(range.at, "*/*", 3) == 0 ? 1 : 0;
}

/* Looks at one element of a list; the closest so far is in *best, and whether it says yes. */
static void judge(struct part element, struct part type, unsigned *best, bool *yes)
{
    const char *rest = element.at, *end = element.at + element.bytes;
    unsigned close = closeness(take_until(&rest, end, ';'), type);
    bool refused = false;
    if (close == 0 || close < *best)
        return;
    while (rest < end)
        refused = is_zero_weight(take_until(&rest, end, ';')) || refused;
    *yes = !refused || (close == *best && *yes);
    *best = close;
}

bool http_accepts(const struct http_request *request, const char *media_type)
{
    const char *rest = media_type, *end = media_type + strlen(media_type);
    struct part type = take_until(&rest, end, ';');
    unsigned best = 0;
    bool yes = false, said = false;
    for (unsigned i = 0; i < request->header_count; i++) {
        const char *at = request->headers[i].value;
        if (strcmp(request->headers[i].name, "accept") != 0)
            continue;
        said = true;
        for (end = at + strlen(at); at < end;)
            judge(take_until(&at, end, ','), type, &best, &yes);
    }
    return yes || !said;
}
