/* SPDX-License-Identifier: Apache-2.0 */
/* The words of TOML (v1.0.0 "Comment" to "Inline Table"): blanks, comments, keys, strings, numbers,
 * dates, arrays, inline tables. No recursion: brackets are a small stack. */
#include "toml.h"

#include <string.h>

static bool wrong(struct toml_scan *scan, const char *what)
{
    if (scan->wrong == NULL)
        scan->wrong = what;
    return false;
}

static int peek(const struct toml_scan *scan, size_t ahead)
{
    return ahead < scan->bytes - scan->at ? (unsigned char)scan->text[scan->at + ahead] : -1;
}

static bool looking_at(const struct toml_scan *scan, const char *word)
{
    size_t bytes = strlen(word);
    return scan->bytes - scan->at >= bytes && memcmp(scan->text + scan->at, word, bytes) == 0;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_bare(int c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

bool toml__line_end(struct toml_scan *scan, bool *found)
{
    *found = false;
    if (peek(scan, 0) == '\r' && peek(scan, 1) != '\n')
        return wrong(scan, "a carriage return without a line feed");
    if (peek(scan, 0) == '\r')
        scan->at++;
    if (peek(scan, 0) != '\n')
        return true;
    scan->at++;
    scan->line++;
    *found = true;
    return true;
}

bool toml__comment(struct toml_scan *scan)
{
    if (peek(scan, 0) != '#')
        return true;
    for (; scan->at < scan->bytes; scan->at++) {
        int c = peek(scan, 0);
        if (c == '\n' || (c == '\r' && peek(scan, 1) == '\n'))
            return true;
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return wrong(scan, "a control byte in a comment");
    }
    return true;
}

bool toml__blank(struct toml_scan *scan, bool lines)
{
    bool found = true;
    while (found) {
        while (peek(scan, 0) == ' ' || peek(scan, 0) == '\t')
            scan->at++;
        if (!lines)
            return true;
        if (!toml__comment(scan) || !toml__line_end(scan, &found))
            return false;
    }
    return true;
}

/* ---- strings ---- */

static int hex_value(int c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void add_utf8(struct text *out, uint32_t code)
{
    char bytes[4];
    size_t count = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = count; i-- > 1; code >>= 6)
        bytes[i] = (char)(0x80 | (code & 0x3f));
    bytes[0] = (char)(lead[count] | code);
    text_add(out, bytes, count);
}

static bool unicode(struct toml_scan *scan, unsigned digits, struct text *out)
{
    uint32_t code = 0;
    for (unsigned i = 0; i < digits; i++) {
        int value = hex_value(peek(scan, 0));
        if (value < 0)
            return wrong(scan, "a \\u escape without its hex digits");
        code = (code << 4) | (uint32_t)value;
        scan->at++;
    }
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return wrong(scan, "a \\u escape that is no character");
    if (out != NULL)
        add_utf8(out, code);
    return true;
}

/* Behind the backslash. */
static bool escape(struct toml_scan *scan, struct text *out)
{
    static const char names[] = "btnfr\"\\";
    static const char values[] = "\b\t\n\f\r\"\\";
    int c = peek(scan, 0);
    const char *name = c > 0 ? strchr(names, c) : NULL;
    if (c == 'u' || c == 'U') {
        scan->at++;
        return unicode(scan, c == 'u' ? 4 : 8, out);
    }
    if (name == NULL)
        return wrong(scan, "an unknown escape in a string");
    scan->at++;
    if (out != NULL)
        text_add(out, &values[name - names], 1);
    return true;
}

/* A backslash at the end of a line: that and all white space up to the next word count for nothing.
 * False if here is none. */
static bool folded(struct toml_scan *scan)
{
    size_t ahead = 1;
    while (peek(scan, ahead) == ' ' || peek(scan, ahead) == '\t')
        ahead++;
    if (peek(scan, ahead) != '\n' && (peek(scan, ahead) != '\r' || peek(scan, ahead + 1) != '\n'))
        return false;
    scan->at += ahead;
    for (int c = peek(scan, 0);
         c == ' ' || c == '\t' || c == '\n' || (c == '\r' && peek(scan, 1) == '\n');
         c = peek(scan, 0)) {
        scan->line += c == '\n';
        scan->at++;
    }
    return true;
}

/* One byte of a string as it stands. */
static bool plain(struct toml_scan *scan, bool lines, struct text *out)
{
    int c = peek(scan, 0);
    bool end = false;
    size_t from = scan->at;
    if (lines && !toml__line_end(scan, &end))
        return false;
    if (!end) {
        if (c < 0 || c == '\n' || c == '\r')
            return wrong(scan, "a string without its end");
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return wrong(scan, "a control byte in a string");
        scan->at++;
    }
    if (out != NULL)
        text_add(out, scan->text + from, scan->at - from);
    return true;
}

static bool string_line(struct toml_scan *scan, int quote, struct text *out)
{
    scan->at++;
    while (peek(scan, 0) != quote) {
        if (quote == '"' && peek(scan, 0) == '\\') {
            scan->at++;
            if (!escape(scan, out))
                return false;
        } else if (!plain(scan, false, out)) {
            return false;
        }
    }
    scan->at++;
    return true;
}

/* How many of `quote` stand here. */
static size_t quotes(const struct toml_scan *scan, int quote)
{
    size_t count = 0;
    while (peek(scan, count) == quote)
        count++;
    return count;
}

/* Three quotes around lines; up to two more may stand before the closing three. */
static bool string_lines(struct toml_scan *scan, int quote, struct text *out)
{
    bool end;
    size_t count = 0;
    scan->at += 3;
    if (!toml__line_end(scan, &end)) /* the first one counts for nothing */
        return false;
    while ((count = quotes(scan, quote)) < 3) {
        if (quote == '"' && peek(scan, 0) == '\\') {
            if (folded(scan))
                continue;
            scan->at++;
            if (!escape(scan, out))
                return false;
        } else if (!plain(scan, true, out)) {
            return false;
        }
    }
    if (count > 5)
        return wrong(scan, "too many quotes at the end of a string");
    if (out != NULL)
        text_add(out, scan->text + scan->at, count - 3);
    scan->at += count;
    return true;
}

bool toml__string(struct toml_scan *scan, struct text *out)
{
    if (looking_at(scan, "\"\"\"") || looking_at(scan, "'''"))
        return string_lines(scan, peek(scan, 0), out);
    return string_line(scan, peek(scan, 0), out);
}

bool toml__key_part(struct toml_scan *scan, struct text *out)
{
    int c = peek(scan, 0);
    if (c == '"' || c == '\'') {
        if (looking_at(scan, "\"\"\"") || looking_at(scan, "'''"))
            return wrong(scan, "a key in three quotes");
        return string_line(scan, c, out);
    }
    size_t from = scan->at;
    while (is_bare(peek(scan, 0)))
        scan->at++;
    if (scan->at == from)
        return wrong(scan, "no key where one should be");
    if (out != NULL)
        text_add(out, scan->text + from, scan->at - from);
    return true;
}

/* ---- numbers, dates, booleans ---- */

static bool is_digit_of(int c, int base)
{
    int value = hex_value(c);
    return value >= 0 && value < base;
}

/* Digits of a base with single underscores between them; how many bytes, 0 if it is none. */
static size_t digits(const char *word, size_t bytes, int base)
{
    size_t at = 0;
    while (at < bytes) {
        bool joint = word[at] == '_' && at > 0 && word[at - 1] != '_' && at + 1 < bytes &&
                     is_digit_of((unsigned char)word[at + 1], base);
        if (!joint && !is_digit_of((unsigned char)word[at], base))
            break;
        at++;
    }
    return at;
}

static bool is_number(const char *word, size_t bytes)
{
    if (bytes > 2 && word[0] == '0' && strchr("xob", word[1]) != NULL) {
        int base = word[1] == 'x' ? 16 : word[1] == 'o' ? 8 : 2;
        return digits(word + 2, bytes - 2, base) == bytes - 2;
    }
    size_t at = word[0] == '+' || word[0] == '-' ? 1 : 0;
    if (bytes - at == 3 && (memcmp(word + at, "inf", 3) == 0 || memcmp(word + at, "nan", 3) == 0))
        return true;
    size_t whole = digits(word + at, bytes - at, 10);
    if (whole == 0 || (whole > 1 && word[at] == '0'))
        return false;
    at += whole;
    if (at < bytes && word[at] == '.') {
        size_t part = digits(word + at + 1, bytes - at - 1, 10);
        if (part == 0)
            return false;
        at += 1 + part;
    }
    if (at < bytes && (word[at] == 'e' || word[at] == 'E')) {
        at++;
        at += at < bytes && (word[at] == '+' || word[at] == '-');
        size_t part = digits(word + at, bytes - at, 10);
        if (part == 0)
            return false;
        at += part;
    }
    return at == bytes;
}

/* `form` with 0 for a digit. */
static bool has_form(const char *word, size_t bytes, const char *form)
{
    size_t length = strlen(form);
    if (bytes < length)
        return false;
    for (size_t i = 0; i < length; i++)
        if (form[i] == '0' ? !is_digit((unsigned char)word[i]) : form[i] != word[i])
            return false;
    return true;
}

static int two(const char *word)
{
    return (word[0] - '0') * 10 + word[1] - '0';
}

/* "hh:mm", which is there. */
static bool is_clock(const char *word)
{
    return two(word) < 24 && two(word + 3) < 60;
}

static bool is_time(const char *word, size_t bytes, bool offset)
{
    if (!has_form(word, bytes, "00:00:00") || !is_clock(word) || two(word + 6) > 59)
        return false;
    size_t at = 8;
    if (at < bytes && word[at] == '.') {
        size_t part = digits(word + at + 1, bytes - at - 1, 10);
        if (part == 0)
            return false;
        at += 1 + part;
    }
    if (!offset || at == bytes)
        return at == bytes;
    if (word[at] == 'Z' || word[at] == 'z')
        return at + 1 == bytes;
    return bytes - at == 6 && (word[at] == '+' || word[at] == '-') &&
           has_form(word + at + 1, 5, "00:00") && is_clock(word + at + 1);
}

/* "yyyy-mm-dd", which is there: is there such a day? */
static bool is_day(const char *word)
{
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = two(word) * 100 + two(word + 2);
    int month = two(word + 5);
    int day = two(word + 8);
    if (year < 1 || month < 1 || month > 12)
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day >= 1 && day <= days[month - 1] + (month == 2 && leap);
}

static bool is_date(const char *word, size_t bytes)
{
    if (!has_form(word, bytes, "0000-00-00"))
        return is_time(word, bytes, false);
    if (!is_day(word))
        return false;
    return bytes == 10 || ((word[10] == 'T' || word[10] == 't' || word[10] == ' ') &&
                           is_time(word + 11, bytes - 11, true));
}

static bool scalar(struct toml_scan *scan)
{
    size_t from = scan->at;
    int c = peek(scan, 0);
    if (c == '"' || c == '\'')
        return toml__string(scan, NULL);
    while (is_bare(peek(scan, 0)) || peek(scan, 0) == '+' || peek(scan, 0) == '.' ||
           peek(scan, 0) == ':' ||
           (peek(scan, 0) == ' ' && scan->at - from == 10 && is_digit(peek(scan, 1)) &&
            is_date(scan->text + from, 10)))
        scan->at++;
    const char *word = scan->text + from;
    size_t bytes = scan->at - from;
    if (bytes == 0)
        return wrong(scan, "no value where one should be");
    bool known = (bytes == 4 && memcmp(word, "true", 4) == 0) ||
                 (bytes == 5 && memcmp(word, "false", 5) == 0) || is_number(word, bytes) ||
                 is_date(word, bytes);
    return known || wrong(scan, "a value that is no string, number, date, true or false");
}

/* ---- arrays and inline tables ---- */

struct nest {
    char open[TOML_DEPTH_MAX]; /* '[' or '{' */
    unsigned depth;
};

static bool inside_array(const struct nest *nest)
{
    return nest->depth > 0 && nest->open[nest->depth - 1] == '[';
}

/* "key =" of an inline table, dotted or not. */
static bool inline_key(struct toml_scan *scan)
{
    for (;;) {
        if (!toml__blank(scan, false) || !toml__key_part(scan, NULL) || !toml__blank(scan, false))
            return false;
        if (peek(scan, 0) != '.')
            break;
        scan->at++;
    }
    if (peek(scan, 0) != '=')
        return wrong(scan, "a key without '=' in an inline table");
    scan->at++;
    return true;
}

/* At a value: into a bracket, or over a scalar. *more: another value must follow. */
static bool value_begin(struct toml_scan *scan, struct nest *nest, bool *more)
{
    int c = peek(scan, 0);
    *more = false;
    if (c != '[' && c != '{')
        return scalar(scan);
    if (nest->depth == TOML_DEPTH_MAX)
        return wrong(scan, "brackets nested too deep");
    nest->open[nest->depth++] = (char)c;
    scan->at++;
    if (!toml__blank(scan, c == '['))
        return false;
    if (peek(scan, 0) == (c == '[' ? ']' : '}'))
        return true; /* empty: value_end closes it */
    *more = true;
    return c == '[' || inline_key(scan);
}

/* Behind a value: over closing brackets and a comma. *more: another value must follow. */
static bool value_end(struct toml_scan *scan, struct nest *nest, bool *more)
{
    *more = false;
    while (nest->depth > 0) {
        bool array = inside_array(nest);
        if (!toml__blank(scan, array))
            return false;
        if (peek(scan, 0) == (array ? ']' : '}')) {
            scan->at++;
            nest->depth--;
            continue;
        }
        if (peek(scan, 0) != ',')
            return wrong(scan, array ? "an array without ',' or ']'"
                                     : "an inline table without ',' or '}'");
        scan->at++;
        if (array && !toml__blank(scan, true))
            return false;
        if (array && peek(scan, 0) == ']')
            continue; /* a comma may stand behind the last element */
        *more = true;
        return array || inline_key(scan);
    }
    return true;
}

bool toml__value(struct toml_scan *scan)
{
    struct nest nest = {.depth = 0};
    bool more = true;
    while (more) {
        if (!toml__blank(scan, inside_array(&nest)) || !value_begin(scan, &nest, &more))
            return false;
        if (!more && !value_end(scan, &nest, &more))
            return false;
    }
    return true;
}
