/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second look at a request head: llhttp in its strict mode, which knows from years of attacks
 * what Content-Length, Transfer-Encoding and Connection may say together. The only file that sees
 * llhttp.h. It collects spans; what they mean is decided in request.c.
 */
#include "head_scan.h"

#include <llhttp.h>
#include <string.h>

struct run {
    llhttp_t parser;
    struct http__fields *fields;
    bool complete;
};

static struct run *run_of(llhttp_t *parser)
{
    return parser->data;
}

/* llhttp may give one value in several spans; in one buffer they follow each other. */
static void extend(struct http__span *span, const char *at, size_t byte_count)
{
    if (span->text == NULL)
        span->text = at;
    span->text_bytes += byte_count;
}

static int on_url(llhttp_t *parser, const char *at, size_t byte_count)
{
    extend(&run_of(parser)->fields->target, at, byte_count);
    return 0;
}

/* Index of the header being read; -1 ends the parse if there is no room for it. The scan has
 * counted the headers already: memory safety should not hang on two files agreeing. */
static int slot_of(const struct http__fields *fields)
{
    return fields->header_count < HTTP__HEADERS_MAX ? (int)fields->header_count : -1;
}

static int on_name(llhttp_t *parser, const char *at, size_t byte_count)
{
    struct http__fields *fields = run_of(parser)->fields;
    int slot = slot_of(fields);
    if (slot >= 0)
        extend(&fields->names[slot], at, byte_count);
    return slot < 0 ? -1 : 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t byte_count)
{
    struct http__fields *fields = run_of(parser)->fields;
    int slot = slot_of(fields);
    if (slot >= 0)
        extend(&fields->values[slot], at, byte_count);
    return slot < 0 ? -1 : 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* llhttp skips the blanks before a value, not those behind it. */
static int on_value_complete(llhttp_t *parser)
{
    struct http__fields *fields = run_of(parser)->fields;
    int slot = slot_of(fields);
    if (slot < 0)
        return -1;
    struct http__span *value = &fields->values[slot];
    while (value->text_bytes > 0 && is_blank(value->text[value->text_bytes - 1]))
        value->text_bytes--;
    fields->header_count++;
    return 0;
}

/* Stops behind the head: bodies are refused, so there is nothing more to parse. */
static int on_headers_complete(llhttp_t *parser)
{
    struct run *run = run_of(parser);
    run->complete = true;
    run->fields->keep_alive = llhttp_should_keep_alive(parser) == 1;
    return HPE_PAUSED;
}

int http__llhttp_run(const uint8_t *bytes, size_t byte_count, struct http__fields *out)
{
    llhttp_settings_t settings;
    struct run run = {.fields = out};
    memset(out, 0, sizeof *out);
    llhttp_settings_init(&settings);
    settings.on_url = on_url;
    settings.on_header_field = on_name;
    settings.on_header_value = on_value;
    settings.on_header_value_complete = on_value_complete;
    settings.on_headers_complete = on_headers_complete;
    llhttp_init(&run.parser, HTTP_REQUEST, &settings);
    run.parser.data = &run;
    llhttp_errno_t result = llhttp_execute(&run.parser, (const char *)bytes, byte_count);
    return result == HPE_PAUSED && run.complete ? 0 : E_MALFORMED;
}
