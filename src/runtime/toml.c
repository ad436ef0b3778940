/* SPDX-License-Identifier: Apache-2.0 */
/* Statements of a TOML text with their paths and places, and what may not be there twice. The words
 * are toml_scan.c's. */
#include "toml.h"

#include <string.h>

static int utf8_bytes(const unsigned char *at, size_t left)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    int count = at[0] < 0x80 ? 1 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc0 ? 2 : 0;
    if (count < 2)
        return count;
    if ((size_t)count > left)
        return 0;
    uint32_t code = at[0] & (0x7fU >> count);
    for (int i = 1; i < count; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        code = (code << 6) | (at[i] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < least[count] || code > 0x10ffff || surrogate ? 0 : count;
}

static bool is_utf8(const char *text, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)text;
    for (size_t i = 0; i < bytes;) {
        int count = utf8_bytes(at + i, bytes - i);
        if (count == 0)
            return false;
        i += (size_t)count;
    }
    return true;
}

/* ---- one statement ---- */

struct parse {
    struct pool *pool;
    struct toml_scan scan;
    struct toml *toml;
    uint32_t room;  /* of toml->items */
    uint32_t table; /* header in force; TOML_ROOT */
};

static int at_here(const struct toml_scan *scan)
{
    return scan->at < scan->bytes ? (unsigned char)scan->text[scan->at] : -1;
}

static bool fail(struct parse *parse, const char *what)
{
    if (parse->scan.wrong == NULL)
        parse->scan.wrong = what;
    return false;
}

/* Dotted parts, added behind those that are in `path`. */
static bool key(struct parse *parse, struct text *path, uint32_t *parts)
{
    struct toml_scan *scan = &parse->scan;
    for (;;) {
        if (*parts == TOML_PARTS_MAX)
            return fail(parse, "a key of too many parts");
        if (!toml__blank(scan, false) || !toml__key_part(scan, path) || !toml__blank(scan, false))
            return false;
        text_add(path, "", 1);
        (*parts)++;
        if (at_here(scan) != '.')
            return true;
        scan->at++;
    }
}

/* [a.b] or [[a.b]]. */
static bool header(struct parse *parse, struct toml_item *item, struct text *path)
{
    struct toml_scan *scan = &parse->scan;
    scan->at++;
    item->kind = at_here(scan) == '[' ? TOML_ARRAY : TOML_TABLE;
    if (item->kind == TOML_ARRAY)
        scan->at++;
    item->table = TOML_ROOT;
    if (!key(parse, path, &item->parts))
        return false;
    for (int i = 0; i < (item->kind == TOML_ARRAY ? 2 : 1); i++) {
        if (at_here(scan) != ']')
            return fail(parse, "a table's name without its end");
        scan->at++;
    }
    return true;
}

static bool assignment(struct parse *parse, struct toml_item *item, struct text *path)
{
    struct toml_scan *scan = &parse->scan;
    item->kind = TOML_KEY;
    item->table = parse->table;
    if (item->table != TOML_ROOT) {
        const struct toml_item *table = &parse->toml->items[item->table];
        text_add(path, table->path, table->path_bytes);
        item->parts = table->parts;
    }
    if (!key(parse, path, &item->parts))
        return false;
    if (at_here(scan) != '=')
        return fail(parse, "a key without '='");
    scan->at++;
    if (!toml__blank(scan, false))
        return false;
    item->value = scan->at;
    if (!toml__value(scan))
        return false;
    item->value_bytes = scan->at - item->value;
    return true;
}

/* A line, or several if a value goes on; at its first byte that is no blank. */
static bool statement(struct parse *parse, struct toml_item *item, struct text *path)
{
    struct toml_scan *scan = &parse->scan;
    bool end = false;
    bool good = true;
    if (at_here(scan) == '#') {
        item->kind = TOML_COMMENT;
        item->value = scan->at;
        good = toml__comment(scan);
        item->value_bytes = scan->at - item->value;
    } else {
        good = at_here(scan) == '[' ? header(parse, item, path) : assignment(parse, item, path);
    }
    if (!good || !toml__blank(scan, false) || !toml__comment(scan) || !toml__line_end(scan, &end))
        return false;
    if (!end && scan->at < scan->bytes)
        return fail(parse, "something behind the end of a statement");
    item->end = scan->at;
    return true;
}

/* ---- what may not be there twice ---- */

static bool is_prefix(const struct toml_item *of, const struct toml_item *item)
{
    return of->path_bytes <= item->path_bytes && memcmp(of->path, item->path, of->path_bytes) == 0;
}

/* Element of an array of tables that a header stands in: the last [[x]] before it with x above its
 * path. What is in different elements does not meet. */
static uint32_t element_of(const struct toml *toml, uint32_t index)
{
    const struct toml_item *item = &toml->items[index];
    for (uint32_t i = index; i-- > 0;) {
        const struct toml_item *other = &toml->items[i];
        if (other->kind == TOML_ARRAY && other->path_bytes < item->path_bytes &&
            is_prefix(other, item))
            return i;
    }
    return TOML_ROOT;
}

static bool is_above(const struct toml_item *of, const struct toml_item *item)
{
    return of->path_bytes < item->path_bytes && is_prefix(of, item);
}

/* Parts of the table that a key stands in, by its header. */
static uint32_t table_parts(const struct toml *toml, const struct toml_item *key)
{
    return key->table == TOML_ROOT ? 0 : toml->items[key->table].parts;
}

/* A table that a dotted key makes on its way, as a and a.b by "a.b.c = 1", cannot be a header's,
 * too (v1.0.0 "Table"). */
static bool makes(const struct toml *toml, const struct toml_item *key,
                  const struct toml_item *header)
{
    return is_above(header, key) && header->parts > table_parts(toml, key);
}

/* Nor can a dotted key go into a table that a header has made or passed through before. */
static bool enters(const struct toml *toml, const struct toml_item *key,
                   const struct toml_item *header)
{
    uint32_t parts = table_parts(toml, key) + 1;
    if (parts >= key->parts)
        return false;
    size_t bytes = (size_t)(toml_part(key, parts) - key->path);
    return header->path_bytes >= bytes && memcmp(key->path, header->path, bytes) == 0;
}

/* Can `b` not stand behind `a`? */
static bool clash(const struct toml *toml, const struct toml_item *a, const struct toml_item *b)
{
    if (a->kind == TOML_KEY && b->kind == TOML_KEY)
        return is_prefix(a, b) || is_prefix(b, a);
    if (a->kind == TOML_KEY)
        return is_prefix(a, b) || makes(toml, a, b);
    if (b->kind == TOML_KEY)
        return is_prefix(b, a) || makes(toml, b, a) || enters(toml, b, a);
    if (b->kind == TOML_ARRAY && is_above(b, a))
        return true;
    bool same = a->path_bytes == b->path_bytes && is_prefix(a, b);
    return same && (a->kind == TOML_TABLE || b->kind == TOML_TABLE);
}

static void set_element(struct toml *toml, uint32_t index)
{
    struct toml_item *item = &toml->items[index];
    item->element = TOML_ROOT;
    if (item->kind == TOML_TABLE || item->kind == TOML_ARRAY)
        item->element = element_of(toml, index);
    if (item->kind == TOML_KEY && item->table != TOML_ROOT) {
        const struct toml_item *table = &toml->items[item->table];
        item->element = table->kind == TOML_ARRAY ? item->table : table->element;
    }
}

/* Sets every item's element. Returns the first item that cannot stand beside an earlier one; count
 * if all can. */
static uint32_t first_clash(struct toml *toml)
{
    for (uint32_t i = 0; i < toml->count; i++) {
        const struct toml_item *item = &toml->items[i];
        set_element(toml, i);
        for (uint32_t j = 0; j < i && item->kind != TOML_COMMENT; j++) {
            const struct toml_item *other = &toml->items[j];
            if (other->element == item->element && other->kind != TOML_COMMENT &&
                clash(toml, other, item))
                return i;
        }
    }
    return toml->count;
}

/* ---- the whole ---- */

static bool room_for_one(struct parse *parse)
{
    struct toml *toml = parse->toml;
    if (toml->count < parse->room)
        return true;
    uint32_t room = parse->room == 0 ? 64 : parse->room * 2;
    struct toml_item *items = pool_alloc(parse->pool, room * sizeof *items);
    if (items == NULL)
        return false;
    if (toml->count > 0)
        memcpy(items, toml->items, toml->count * sizeof *items);
    toml->items = items;
    parse->room = room;
    return true;
}

/* The next statement, or nothing at the end. E_MALFORMED with scan.wrong. */
static int next(struct parse *parse)
{
    struct toml_scan *scan = &parse->scan;
    struct toml *toml = parse->toml;
    bool empty = true;
    size_t start = scan->at;
    while (empty) {
        start = scan->at;
        if (!toml__blank(scan, false) || !toml__line_end(scan, &empty))
            return E_MALFORMED;
    }
    if (scan->at == scan->bytes)
        return 0;
    if (toml->count == TOML_ITEMS_MAX) {
        (void)fail(parse, "more lines than are read");
        return E_TOO_LARGE;
    }
    if (!room_for_one(parse))
        return E_NO_MEMORY;
    struct text path;
    text_init(&path, parse->pool);
    struct toml_item *item = &toml->items[toml->count];
    *item = (struct toml_item){.line = scan->line, .table = parse->table, .start = start};
    if (!statement(parse, item, &path))
        return E_MALFORMED;
    if (text_end(&path) != 0)
        return E_NO_MEMORY;
    item->path = path.at;
    item->path_bytes = path.bytes;
    if (item->kind == TOML_TABLE || item->kind == TOML_ARRAY)
        parse->table = toml->count;
    toml->count++;
    return 0;
}

static int refuse(struct runtime_error *error, int err, uint32_t line, const char *what)
{
    return runtime_fail(error, err, "%u: %s", (unsigned)line, what);
}

int toml_parse(struct pool *pool, const char *text, size_t bytes, struct toml *out,
               struct runtime_error *error)
{
    struct toml toml = {.text = text, .bytes = bytes};
    struct parse parse = {.pool = pool, .toml = &toml, .table = TOML_ROOT};
    parse.scan = (struct toml_scan){.text = text, .bytes = bytes, .line = 1};
    if (!is_utf8(text, bytes))
        return refuse(error, E_MALFORMED, 1, "the file is not UTF-8");
    if (memchr(text, '\0', bytes) != NULL)
        return refuse(error, E_MALFORMED, 1, "a zero byte in the file");
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return refuse(error, E_MALFORMED, 1, "a byte order mark; save the file without it");
    const char *line_end = memchr(text, '\n', bytes);
    toml.crlf = line_end != NULL && line_end > text && line_end[-1] == '\r';
    while (parse.scan.at < bytes) {
        int err = next(&parse);
        if (err == E_NO_MEMORY)
            return refuse(error, err, parse.scan.line, err_text(err));
        if (err != 0)
            return refuse(error, err, parse.scan.line, parse.scan.wrong);
    }
    uint32_t twice = first_clash(&toml);
    if (twice < toml.count)
        return refuse(error, E_MALFORMED, toml.items[twice].line,
                      "a key or table that is there already");
    *out = toml;
    return 0;
}

/* ---- questions ---- */

const char *toml_part(const struct toml_item *item, uint32_t index)
{
    if (index >= item->parts)
        return "";
    const char *part = item->path;
    while (index-- > 0)
        part += strlen(part) + 1;
    return part;
}

bool toml_below(const struct toml_item *item, const char *const *parts)
{
    uint32_t index = 0;
    if (item->kind == TOML_COMMENT)
        return false;
    for (; parts[index] != NULL; index++)
        if (index >= item->parts || strcmp(toml_part(item, index), parts[index]) != 0)
            return false;
    return true;
}

bool toml_is(const struct toml_item *item, const char *const *parts)
{
    uint32_t count = 0;
    while (parts[count] != NULL)
        count++;
    return item->parts == count && toml_below(item, parts);
}

static struct toml_scan scan_value(const struct toml *toml, const struct toml_item *item)
{
    return (struct toml_scan){.text = toml->text + item->value, .bytes = item->value_bytes};
}

static int one_string(struct pool *pool, struct toml_scan *scan, const char **out)
{
    struct text text;
    text_init(&text, pool);
    if (!toml__string(scan, &text))
        return E_INVALID;
    if (text_end(&text) != 0)
        return E_NO_MEMORY;
    *out = text.at;
    return 0;
}

static bool is_quote(int c)
{
    return c == '"' || c == '\'';
}

int toml_string(struct pool *pool, const struct toml *toml, const struct toml_item *item,
                const char **out)
{
    struct toml_scan scan = scan_value(toml, item);
    if (item->kind != TOML_KEY || !is_quote(at_here(&scan)))
        return E_INVALID;
    return one_string(pool, &scan, out);
}

int toml_strings(struct pool *pool, const struct toml *toml, const struct toml_item *item,
                 const char **out, unsigned max, unsigned *count)
{
    struct toml_scan scan = scan_value(toml, item);
    unsigned found = 0;
    if (item->kind != TOML_KEY || at_here(&scan) != '[')
        return E_INVALID;
    scan.at++;
    for (;;) {
        if (!toml__blank(&scan, true))
            return E_INVALID;
        if (at_here(&scan) == ']')
            break;
        if (!is_quote(at_here(&scan)))
            return E_INVALID;
        if (found == max)
            return E_TOO_LARGE;
        int err = one_string(pool, &scan, &out[found]);
        if (err != 0)
            return err;
        found++;
        if (!toml__blank(&scan, true))
            return E_INVALID;
        if (at_here(&scan) == ',')
            scan.at++;
    }
    *count = found;
    return 0;
}

bool toml_value_is(const struct toml *toml, const struct toml_item *item, const char *plain)
{
    const char *value = toml->text + item->value;
    if (item->kind != TOML_KEY)
        return false;
    for (size_t i = 0; i < item->value_bytes; i++) {
        if (strchr(" \t\r\n", value[i]) != NULL)
            continue;
        if (*plain == '\0' || value[i] != *plain)
            return false;
        plain++;
    }
    return *plain == '\0';
}

void toml_quote(struct text *out, const char *value)
{
    static const char hex[] = "0123456789ABCDEF";
    text_add(out, "\"", 1);
    for (const char *at = value; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        const char coded[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            text_add(out, coded, sizeof coded);
        else
            text_add(out, at, 1);
    }
    text_add(out, "\"", 1);
}
