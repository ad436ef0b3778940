/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict scan of a request head: RFC 9112 §2-5 as a state machine over bytes, without the leniences
 * that RFC and llhttp 8.1 know (bare LF, bare CR, obs-fold, blanks before the colon, an empty line
 * in front): each of them is a place where two parsers may see two requests (HTTP-1).
 */
#include "head_scan.h"

#include <string.h>

#include "http.h"

/* What the next byte belongs to. */
enum part {
    PART_METHOD = 1, /* first token, ends with one space */
    PART_TARGET,     /* ends with one space */
    PART_VERSION,    /* ends with CR */
    PART_REQUEST_LF, /* LF of the request line */
    PART_NAME_START, /* first byte of a header line or CR of the empty line */
    PART_NAME,       /* ends with the colon */
    PART_VALUE,      /* ends with CR */
    PART_VALUE_LF,   /* LF of a header line */
    PART_END_LF,     /* LF of the empty line */
    PART_DONE,
};

struct walk {
    enum part part;
    size_t at;         /* offset of the byte being looked at */
    size_t part_start; /* offset of the part's first byte */
    const char *bytes;
    struct http__scan *scan;
    int *status;
};

size_t http__url_prefix(const char *target, size_t target_bytes)
{
    static const char *const prefixes[] = {"/accelerator/", "/accelerate/"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t bytes = strlen(prefixes[i]);
        if (target_bytes >= bytes && memcmp(target, prefixes[i], bytes) == 0)
            return bytes;
    }
    return 0;
}

bool http__is_token_byte(uint8_t byte)
{
    uint8_t lower = byte | 0x20;
    if ((lower >= 'a' && lower <= 'z') || (byte >= '0' && byte <= '9'))
        return true;
    switch (byte) { /* one bit test; strchr took three quarters of the parse */
    case '!':
    case '#':
    case '$':
    case '%':
    case '&':
    case '\'':
    case '*':
    case '+':
    case '-':
    case '.':
    case '^':
    case '_':
    case '`':
    case '|':
    case '~':
        return true;
    default:
        return false;
    }
}

/*
 * Visible ASCII but for the bytes that URIs never have and that readers treat differently (RFC 3986
 * §2). The rest of the unwise ones (^ ` { | }) is let through: signed URLs behind /accelerator/
 * have been seen with them raw, and names under /v2/ have a grammar of their own.
 */
static bool is_target_byte(uint8_t byte)
{
    bool odd = byte == '"' || byte == '<' || byte == '>' || byte == '\\' || byte == '#';
    return byte > 0x20 && byte < 0x7f && !odd;
}

/* field-vchar, blank and tab (RFC 9110 §5.5), with obs-text. */
static bool is_value_byte(uint8_t byte)
{
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
}

static void enter(struct walk *walk, enum part part)
{
    walk->part = part;
    walk->part_start = walk->at + 1;
}

static struct http__span span_to_here(const struct walk *walk)
{
    return (struct http__span){walk->bytes + walk->part_start, walk->at - walk->part_start};
}

static int refuse(const struct walk *walk, int status, int err)
{
    *walk->status = status;
    return err;
}

static int malformed(const struct walk *walk)
{
    return refuse(walk, 400, E_MALFORMED);
}

static int step_method(struct walk *walk, uint8_t byte)
{
    struct http__span span = span_to_here(walk);
    if (byte == ' ' && span.text_bytes > 0) {
        walk->scan->method = span;
        enter(walk, PART_TARGET);
        return 0;
    }
    if (!http__is_token_byte(byte) || span.text_bytes == HTTP__METHOD_BYTES_MAX)
        return malformed(walk);
    return 0;
}

static int step_target(struct walk *walk, uint8_t byte)
{
    struct http__span span = span_to_here(walk);
    if (byte == ' ' && span.text_bytes > 0) {
        walk->scan->target = span;
        enter(walk, PART_VERSION);
        return 0;
    }
    if (!is_target_byte(byte))
        return malformed(walk);
    /* Every name of /v2/ fits the smaller limit (HTTP-1); signed URLs do not. */
    bool full = span.text_bytes == HTTP_URL_TARGET_BYTES_MAX ||
                (span.text_bytes == HTTP_TARGET_BYTES_MAX &&
                 http__url_prefix(span.text, span.text_bytes) == 0);
    return full ? refuse(walk, 414, E_TOO_LARGE) : 0;
}

/* "HTTP/" DIGIT "." DIGIT, each byte in its place (RFC 9112 §2.3). */
static int step_version(struct walk *walk, uint8_t byte)
{
    static const char shape[] = "HTTP/0.0";
    struct http__span span = span_to_here(walk);
    if (byte == '\r' && span.text_bytes == sizeof shape - 1) {
        bool v1_0 = memcmp(span.text, "HTTP/1.0", span.text_bytes) == 0;
        if (!v1_0 && memcmp(span.text, "HTTP/1.1", span.text_bytes) != 0)
            return refuse(walk, 505, E_UNSUPPORTED);
        walk->scan->http_1_0 = v1_0;
        enter(walk, PART_REQUEST_LF);
        return 0;
    }
    if (span.text_bytes >= sizeof shape - 1)
        return malformed(walk);
    char wanted = shape[span.text_bytes];
    bool fits = wanted == '0' ? byte >= '0' && byte <= '9' : byte == (uint8_t)wanted;
    return fits ? 0 : malformed(walk);
}

static int step_name_start(struct walk *walk, uint8_t byte)
{
    if (byte == '\r') {
        enter(walk, PART_END_LF);
        return 0;
    }
    if (!http__is_token_byte(byte)) /* also obs-fold: a blank at the start of a line */
        return malformed(walk);
    if (walk->scan->header_count == HTTP_HEADERS_MAX)
        return refuse(walk, 431, E_TOO_LARGE);
    walk->scan->header_count++;
    walk->part = PART_NAME;
    return 0;
}

static int step_line_feed(struct walk *walk, uint8_t byte, enum part next)
{
    if (byte != '\n')
        return malformed(walk);
    enter(walk, next);
    return 0;
}

static int step(struct walk *walk, uint8_t byte)
{
    switch (walk->part) {
    case PART_METHOD:
        return step_method(walk, byte);
    case PART_TARGET:
        return step_target(walk, byte);
    case PART_VERSION:
        return step_version(walk, byte);
    case PART_REQUEST_LF:
    case PART_VALUE_LF:
        return step_line_feed(walk, byte, PART_NAME_START);
    case PART_NAME_START:
        return step_name_start(walk, byte);
    case PART_NAME:
        if (byte == ':')
            enter(walk, PART_VALUE);
        else if (!http__is_token_byte(byte))
            return malformed(walk);
        return 0;
    case PART_VALUE:
        if (byte == '\r')
            enter(walk, PART_VALUE_LF);
        else if (!is_value_byte(byte))
            return malformed(walk);
        return 0;
    case PART_END_LF:
        return step_line_feed(walk, byte, PART_DONE);
    case PART_DONE:
    default:
        return E_INTERNAL;
    }
}

int http__head_scan(const uint8_t *bytes, size_t byte_count, struct http__scan *out, int *status)
{
    *out = (struct http__scan){.head_bytes = 0};
    struct walk walk = {
        .part = PART_METHOD, .bytes = (const char *)bytes, .scan = out, .status = status};
    for (; walk.at < byte_count && walk.part != PART_DONE; walk.at++) {
        if (walk.at == HTTP_HEAD_BYTES_MAX)
            return refuse(&walk, 431, E_TOO_LARGE);
        int err = step(&walk, bytes[walk.at]);
        if (err != 0)
            return err;
    }
    if (walk.part != PART_DONE)
        return walk.at < HTTP_HEAD_BYTES_MAX ? E_AGAIN : refuse(&walk, 431, E_TOO_LARGE);
    out->head_bytes = walk.at;
    return 0;
}
