/* SPDX-License-Identifier: Apache-2.0 */
/* Response heads (RFC 9112 §4-5) and OCI error bodies (distribution-spec "Error Codes"). Values
 * that could end a line early are refused here, whoever made them. */
#include "http.h"

#include <stdio.h>
#include <string.h>

#include "head_scan.h"

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } rows[] = {
        {200, "OK"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {416, "Range Not Satisfiable"},
        {421, "Misdirected Request"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].status == status)
            return rows[i].text;
    }
    return "Unknown";
}

static void append(struct http_head *head, const char *text)
{
    size_t text_bytes = strlen(text);
    if (head->err != 0)
        return;
    if (text_bytes > head->capacity - head->used) {
        head->err = E_TOO_LARGE;
        return;
    }
    memcpy(head->out + head->used, text, text_bytes);
    head->used += text_bytes;
}

static bool name_valid(const char *name)
{
    const char *at = name;
    while (http__is_token_byte((uint8_t)*at))
        at++;
    return at != name && *at == '\0';
}

static bool value_valid(const char *value)
{
    for (const char *at = value; *at != '\0'; at++) {
        uint8_t byte = (uint8_t)*at;
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f)
            return false;
    }
    return true;
}

void http_head_begin(struct http_head *head, char *out, size_t capacity, int status)
{
    char number[16];
    *head = (struct http_head){.out = out, .capacity = capacity};
    if (status < 100 || status > 599)
        head->err = E_MALFORMED; /* a status line has three digits */
    (void)snprintf(number, sizeof number, "%03d ", status);
    append(head, "HTTP/1.1 ");
    append(head, number);
    append(head, http_status_text(status));
    append(head, "\r\n");
}

void http_head_add(struct http_head *head, const char *name, const char *value)
{
    if (head->err == 0 && (!name_valid(name) || !value_valid(value)))
        head->err = E_MALFORMED;
    append(head, name);
    append(head, ": ");
    append(head, value);
    append(head, "\r\n");
}

void http_head_add_uint(struct http_head *head, const char *name, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    http_head_add(head, name, text);
}

int http_head_end(struct http_head *head, size_t *used)
{
    append(head, "\r\n");
    if (head->err != 0)
        return head->err;
    *used = head->used;
    return 0;
}

/* JSON string body (RFC 8259 §7). What is not ASCII becomes '?': messages are ours and in English,
 * and a byte that came from elsewhere must not break the document. */
static void append_json(struct http_head *body, const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        char piece[8] = {*at};
        uint8_t byte = (uint8_t)*at;
        if (byte == '"' || byte == '\\')
            (void)snprintf(piece, sizeof piece, "\\%c", *at);
        else if (byte < 0x20)
            (void)snprintf(piece, sizeof piece, "\\u%04x", byte);
        else if (byte > 0x7e)
            piece[0] = '?';
        append(body, piece);
    }
}

int http_oci_error(char *out, size_t out_bytes, const char *code, const char *message, size_t *used)
{
    struct http_head body = {.out = out, .capacity = out_bytes};
    append(&body, "{\"errors\":[{\"code\":\"");
    append_json(&body, code);
    append(&body, "\",\"message\":\"");
    append_json(&body, message);
    append(&body, "\"}]}\n");
    if (body.err != 0)
        return body.err;
    *used = body.used;
    return 0;
}
