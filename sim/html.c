/* SPDX-License-Identifier: Apache-2.0 */
/* Escaped text, figures as people write them, and the frame of a page; see html.h. */
#include "html.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "html_assets.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
#define ELLIPSIS    "\xE2\x80\xA6" /* U+2026 */

/* Bytes of the UTF-8 character at `text` (RFC 3629 §4), 0 if there is none. */
static size_t utf8_bytes(const unsigned char *text)
{
    unsigned char lead = text[0];
    if (lead < 0x80)
        return 1;
    size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    for (size_t i = 1; i < bytes; i++) {
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    }
    bool overlong = (lead == 0xE0 && text[1] < 0xA0) || (lead == 0xF0 && text[1] < 0x90);
    bool outside = (lead == 0xED && text[1] > 0x9F) || (lead == 0xF4 && text[1] > 0x8F);
    return overlong || outside ? 0 : bytes;
}

/* The entity a character must be written as, NULL if it may stand for itself. */
static const char *entity(char character)
{
    switch (character) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void html_text(FILE *to, const char *text)
{
    html_text_cut(to, text, SIZE_MAX);
}

void html_text_cut(FILE *to, const char *text, size_t characters_max)
{
    size_t characters = 0;
    for (size_t i = 0; text != NULL && text[i] != '\0';) {
        if (characters++ == characters_max) {
            fputs(ELLIPSIS, to);
            return;
        }
        size_t bytes = utf8_bytes((const unsigned char *)text + i);
        const char *escaped = entity(text[i]);
        unsigned char first = (unsigned char)text[i];
        bool control = (first < 0x20 && first != '\n' && first != '\t') || first == 0x7F;
        if (escaped != NULL)
            fputs(escaped, to);
        else if (bytes == 0 || control)
            fputs(REPLACEMENT, to);
        else
            fwrite(text + i, 1, bytes, to);
        i += bytes == 0 ? 1 : bytes;
    }
}

int html_json(FILE *to, const char *text)
{
    const char *from = text == NULL ? "" : text;
    size_t room = 3 * strlen(from) + 1, used = 0;
    char *clean = malloc(room);
    if (clean == NULL)
        return E_NO_MEMORY;
    for (size_t i = 0; from[i] != '\0';) {
        size_t bytes = utf8_bytes((const unsigned char *)from + i);
        const char *part = bytes == 0 ? REPLACEMENT : from + i;
        size_t part_bytes = bytes == 0 ? sizeof REPLACEMENT - 1 : bytes;
        memcpy(clean + used, part, part_bytes);
        used += part_bytes;
        i += bytes == 0 ? 1 : bytes;
    }
    json_t *string = json_stringn(clean, used);
    free(clean);
    if (string == NULL)
        return E_NO_MEMORY;
    /* Slashes escaped as well: "</script>" then cannot end a script that holds the string. */
    int err = json_dumpf(string, to, JSON_ENCODE_ANY | JSON_ESCAPE_SLASH);
    json_decref(string);
    return err == 0 ? 0 : E_IO;
}

void html_csv(FILE *to, const char *text)
{
    const char *from = text == NULL ? "" : text;
    bool quoted = strpbrk(from, ",\"\r\n") != NULL;
    if (!quoted) {
        fputs(from, to);
        return;
    }
    fputc('"', to);
    for (; *from != '\0'; from++) {
        if (*from == '"')
            fputc('"', to);
        fputc(*from, to);
    }
    fputc('"', to);
}

int html_done(FILE *to)
{
    return fflush(to) != 0 || ferror(to) != 0 ? E_IO : 0;
}

const char *html_number(char out[HTML_NUMBER_BYTES], double value)
{
    double size = fabs(value);
    int decimals = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
    if (size > 0 && size < 0.01)
        decimals = size < 0.001 ? 5 : 4;
    snprintf(out, HTML_NUMBER_BYTES, "%.*f", size == 0 ? 0 : decimals, value);
    return out;
}

const char *html_bytes(char out[HTML_NUMBER_BYTES], double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    while (bytes >= 1023.5 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024;
        unit++;
    }
    char number[HTML_NUMBER_BYTES];
    bool whole = unit == 0 || fabs(bytes - round(bytes)) < 1e-9;
    if (whole)
        snprintf(out, HTML_NUMBER_BYTES, "%.0f %s", bytes, units[unit]);
    else
        snprintf(out, HTML_NUMBER_BYTES, "%.30s %s", html_number(number, bytes), units[unit]);
    return out;
}

const char *html_rate(char out[HTML_NUMBER_BYTES], double bytes_per_s)
{
    static const char *const units[] = {"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"};
    double bits = bytes_per_s * 8;
    size_t unit = 0;
    while (bits >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        bits /= 1000;
        unit++;
    }
    char number[HTML_NUMBER_BYTES];
    snprintf(out, HTML_NUMBER_BYTES, "%.30s %s", html_number(number, bits), units[unit]);
    return out;
}

const char *html_time(char out[HTML_NUMBER_BYTES], double seconds)
{
    if (seconds >= 3600) {
        uint64_t minutes = (uint64_t)(seconds / 60 + 0.5);
        snprintf(out, HTML_NUMBER_BYTES, "%" PRIu64 " h %02u min", minutes / 60,
                 (unsigned)(minutes % 60));
    } else if (seconds >= 600) {
        unsigned whole = (unsigned)(seconds + 0.5);
        snprintf(out, HTML_NUMBER_BYTES, "%u min %02u s", whole / 60, whole % 60);
    } else if (seconds > 0 && seconds < 0.0995) {
        snprintf(out, HTML_NUMBER_BYTES, "%.*f ms", seconds < 0.00995 ? 1 : 0, seconds * 1000);
    } else {
        int decimals = seconds >= 99.95 ? 0 : seconds >= 9.995 ? 1 : 2;
        snprintf(out, HTML_NUMBER_BYTES, "%.*f s", decimals, seconds);
    }
    return out;
}

const char *html_count(char out[HTML_NUMBER_BYTES], uint64_t count)
{
    char digits[HTML_NUMBER_BYTES];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, count);
    size_t used = 0;
    for (int i = 0; i < length && used + 2 < HTML_NUMBER_BYTES; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

/* A file of the page, as it is. */
static void asset(FILE *to, const struct html_asset *from)
{
    fwrite(from->bytes, 1, from->byte_count, to);
}

void html_begin(FILE *to, const char *title, const char *description)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          /* Nothing may be loaded, whatever a string smuggles in. */
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n"
          "<link rel=\"icon\" href=\"data:,\">\n<title>",
          to);
    html_text(to, title);
    fputs("</title>\n<style>\n", to);
    asset(to, &html_style);
    fputs("</style>\n</head>\n<body>\n<main>\n<header>\n<h1>", to);
    html_text(to, title);
    fputs("</h1>\n", to);
    if (description != NULL && description[0] != '\0') {
        fputs("<p class=\"about\">", to);
        html_text(to, description);
        fputs("</p>\n", to);
    }
    fputs("</header>\n", to);
}

void html_sentence(FILE *to, const char *key, bool bad, const char *lead, const char *rest)
{
    fprintf(to, "<li data-key=\"%s\"%s><b>", key, bad ? " class=\"bad\"" : "");
    html_text(to, lead);
    fputs("</b> <span>", to);
    html_text(to, rest);
    fputs("</span></li>\n", to);
}

void html_figure_begin(FILE *to, const char *id, const char *title)
{
    fprintf(to, "<figure id=\"%s\">\n<h2>", id);
    html_text(to, title);
    fputs("</h2>\n", to);
}

void html_figure_end(FILE *to, const char *caption)
{
    fputs("<figcaption>", to);
    html_text(to, caption);
    fputs("</figcaption>\n</figure>\n", to);
}

void html_settings(FILE *to, const struct report_setting *settings, size_t count,
                   const char *command)
{
    fputs("<section id=\"scenario\">\n<h2>Scenario</h2>\n", to);
    if (command != NULL && command[0] != '\0') {
        fputs("<p>This command repeats it, event for event:</p>\n"
              "<pre tabindex=\"0\"><code>",
              to);
        html_text(to, command);
        fputs("</code></pre>\n", to);
    }
    fputs("<div class=\"scroll\" tabindex=\"0\"><table class=\"settings\">\n<caption>Every key and "
          "its "
          "value</caption>\n<thead><tr><th scope=\"col\">key</th><th scope=\"col\">value</th></tr>"
          "</thead>\n<tbody>\n",
          to);
    for (size_t i = 0; i < count; i++) {
        fputs("<tr><th scope=\"row\">", to);
        html_text(to, settings[i].key);
        fputs("</th><td>", to);
        html_text(to, settings[i].value);
        fputs("</td></tr>\n", to);
    }
    fputs("</tbody></table></div>\n</section>\n", to);
}

void html_end(FILE *to)
{
    fputs("</main>\n<script>\n", to);
    asset(to, &html_script);
    fputs("</script>\n</body>\n</html>\n", to);
}
