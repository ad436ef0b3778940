/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collecting and copying response headers (RFC 9112 §5), and looking one up.
 */
#include "headers.h"

#include <string.h>

#include "bytes.h"
#include "log.h"

#define FIRST_CAPACITY 2048

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

void headers__init(struct headers *headers, void *(*alloc)(void *, void *, size_t), void *host)
{
    *headers = (struct headers){.alloc = alloc, .host = host, .content_length = UINT64_MAX};
}

void headers__reset(struct headers *headers)
{
    headers->used = 0;
    headers->count = 0;
    headers->status = 0;
    headers->complete = false;
    headers->last_kept = false;
    headers->chunked = false;
    headers->length_broken = false;
    headers->content_length = UINT64_MAX;
}

void headers__close(struct headers *headers)
{
    if (headers->bytes != NULL) {
        explicit_bzero(headers->bytes, headers->capacity);
        (void)headers->alloc(headers->host, headers->bytes, 0);
    }
    headers->bytes = NULL;
    headers->capacity = 0;
    headers->seen_bytes = 0;
    headers__reset(headers);
}

/* Moved by hand and not by realloc: the old copy must be wiped too. */
static int room_make(struct headers *headers, size_t more)
{
    size_t capacity = headers->capacity == 0 ? FIRST_CAPACITY : headers->capacity;
    char *bytes;

    if (headers->used + more <= headers->capacity)
        return 0;
    while (capacity < headers->used + more)
        capacity *= 2;
    /* Each line takes at most two bytes more than it had on the wire. */
    if (capacity > 2 * (HEADERS_BYTES_MAX + 2 * HEADERS_COUNT_MAX))
        return E_TOO_LARGE;
    bytes = headers->alloc(headers->host, NULL, capacity);
    if (bytes == NULL)
        return E_NO_MEMORY;
    if (headers->bytes != NULL) {
        memcpy(bytes, headers->bytes, headers->used);
        explicit_bzero(headers->bytes, headers->capacity);
        (void)headers->alloc(headers->host, headers->bytes, 0);
    }
    headers->bytes = bytes;
    headers->capacity = capacity;
    return 0;
}

/* RFC 9110 §5.6.2. */
static bool token_valid(const char *text, size_t text_bytes)
{
    for (size_t i = 0; i < text_bytes; i++) {
        char c = lower(text[i]);
        bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                  (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);

        if (!ok)
            return false;
    }
    return text_bytes > 0;
}

/* Tab and everything from space on, DEL apart; obs-text bytes are let through (RFC 9110 §5.5). */
static bool value_valid(const char *text, size_t text_bytes)
{
    for (size_t i = 0; i < text_bytes; i++) {
        unsigned char c = (unsigned char)text[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static void trim(const char **text, size_t *text_bytes)
{
    while (*text_bytes > 0 && ((*text)[0] == ' ' || (*text)[0] == '\t')) {
        (*text)++;
        (*text_bytes)--;
    }
    while (*text_bytes > 0 && ((*text)[*text_bytes - 1] == ' ' || (*text)[*text_bytes - 1] == '\t'))
        (*text_bytes)--;
}

/* Strict decimal (RFC 9110 §8.6); repeats must agree, as smuggling lives in the difference. */
static void length_note(struct headers *headers, const char *value, size_t value_bytes)
{
    uint64_t length = 0;
    bool broken = value_bytes == 0 || value_bytes > 18;

    for (size_t i = 0; i < value_bytes && !broken; i++) {
        broken = value[i] < '0' || value[i] > '9';
        length = length * 10 + (uint64_t)(value[i] - '0');
    }
    if (headers->content_length != UINT64_MAX && headers->content_length != length)
        broken = true;
    headers->length_broken = headers->length_broken || broken;
    headers->content_length = length;
}

static int header_add(struct headers *headers, const char *name, size_t name_bytes,
                      const char *value, size_t value_bytes)
{
    int err;

    if (headers->count == HEADERS_COUNT_MAX)
        return E_TOO_LARGE;
    err = room_make(headers, name_bytes + value_bytes + 2);
    if (err != 0)
        return err;
    headers->name_at[headers->count] = (uint32_t)headers->used;
    for (size_t i = 0; i < name_bytes; i++)
        headers->bytes[headers->used++] = lower(name[i]);
    headers->bytes[headers->used++] = '\0';
    headers->value_at[headers->count] = (uint32_t)headers->used;
    if (value_bytes > 0)
        memcpy(headers->bytes + headers->used, value, value_bytes);
    headers->used += value_bytes;
    headers->bytes[headers->used++] = '\0';
    name = headers->bytes + headers->name_at[headers->count++];
    if (strcmp(name, "content-length") == 0)
        length_note(headers, value, value_bytes);
    if (strcmp(name, "transfer-encoding") == 0)
        headers->chunked = true;
    return 0;
}

/* obs-fold: the value goes on after one space (RFC 9112 §5.2). */
static int header_fold(struct headers *headers, const char *text, size_t text_bytes)
{
    int err;

    trim(&text, &text_bytes);
    if (!headers->last_kept || text_bytes == 0 || !value_valid(text, text_bytes))
        return 0;
    err = room_make(headers, text_bytes + 1);
    if (err != 0)
        return err;
    headers->bytes[headers->used - 1] = ' ';
    memcpy(headers->bytes + headers->used, text, text_bytes);
    headers->used += text_bytes;
    headers->bytes[headers->used++] = '\0';
    if (strcmp(headers->bytes + headers->name_at[headers->count - 1], "content-length") == 0)
        headers->length_broken = true;
    return 0;
}

/* "HTTP/1.1 200 OK": the three digits after the first space; 0 if there are none. */
static int status_parse(const char *line, size_t line_bytes)
{
    const char *space = memchr(line, ' ', line_bytes);
    int status = 0;

    if (space == NULL || (size_t)(line + line_bytes - space) < 4)
        return 0;
    for (int i = 1; i <= 3; i++) {
        if (space[i] < '0' || space[i] > '9')
            return 0;
        status = status * 10 + (space[i] - '0');
    }
    return status;
}

static int header_parse(struct headers *headers, const char *line, size_t line_bytes)
{
    const char *colon = memchr(line, ':', line_bytes);
    const char *value;
    size_t value_bytes;
    int err;

    headers->last_kept = false;
    if (colon == NULL || !token_valid(line, (size_t)(colon - line)))
        return 0;
    value = colon + 1;
    value_bytes = line_bytes - (size_t)(value - line);
    trim(&value, &value_bytes);
    if (!value_valid(value, value_bytes))
        return 0;
    err = header_add(headers, line, (size_t)(colon - line), value, value_bytes);
    headers->last_kept = err == 0;
    return err;
}

int headers__line(struct headers *headers, const char *line, size_t line_bytes)
{
    if (line_bytes > HEADERS_BYTES_MAX - headers->seen_bytes)
        return E_TOO_LARGE;
    headers->seen_bytes += line_bytes;
    if (headers->complete)
        return 0;
    while (line_bytes > 0 && (line[line_bytes - 1] == '\n' || line[line_bytes - 1] == '\r'))
        line_bytes--;
    if (line_bytes == 0) {
        headers->complete = headers->status >= 200;
        return 0;
    }
    if (line_bytes >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        headers__reset(headers);
        headers->status = status_parse(line, line_bytes);
        return 0;
    }
    if (line[0] == ' ' || line[0] == '\t')
        return header_fold(headers, line, line_bytes);
    return header_parse(headers, line, line_bytes);
}

int headers__copy(struct headers *headers, const struct fetch_response *response)
{
    size_t total = 0;
    int err = 0;

    headers__reset(headers);
    for (unsigned i = 0; i < response->header_count && err == 0; i++) {
        const struct fetch_header *header = &response->headers[i];
        size_t name_bytes = strlen(header->name);
        size_t value_bytes = strlen(header->value);

        total += name_bytes + value_bytes;
        err = total > HEADERS_BYTES_MAX
                  ? E_TOO_LARGE
                  : header_add(headers, header->name, name_bytes, header->value, value_bytes);
    }
    if (err != 0) {
        headers__reset(headers);
        return err;
    }
    headers->status = response->status;
    headers->content_length = response->content_length;
    headers->chunked = false;
    headers->length_broken = false;
    headers->complete = true;
    return 0;
}

void headers__drop(struct headers *headers, const char *name)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < headers->count; i++) {
        if (strcmp(headers->bytes + headers->name_at[i], name) == 0)
            continue;
        headers->name_at[kept] = headers->name_at[i];
        headers->value_at[kept++] = headers->value_at[i];
    }
    headers->count = kept;
    headers->last_kept = false;
}

void headers__view(struct headers *headers, struct fetch_response *out)
{
    bool known = !headers->chunked && !headers->length_broken;

    for (unsigned i = 0; i < headers->count; i++) {
        headers->view[i].name = headers->bytes + headers->name_at[i];
        headers->view[i].value = headers->bytes + headers->value_at[i];
    }
    out->status = headers->status;
    out->headers = headers->view;
    out->header_count = headers->count;
    out->content_length = known ? headers->content_length : UINT64_MAX;
}

const char *fetch_response_header(const struct fetch_response *response, const char *name)
{
    for (unsigned i = 0; i < response->header_count; i++)
        if (strcmp(response->headers[i].name, name) == 0)
            return response->headers[i].value;
    return NULL;
}
