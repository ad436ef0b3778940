/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TOML 1.0 as a list of statements with their places in the text: enough to find where a line may
 * be added, to read strings, and to prove that an edit changed nothing else. No library in Debian
 * does this for C: those in C++ write files anew, without comments and order.
 *
 * Whatever it does not understand is refused, and it is stricter than the readers of the runtimes
 * (duplicate keys and tables, control bytes, UTF-8, a key that is also a table). Values are checked
 * for their form and kept as text.
 */
#ifndef SHOAL_RUNTIME_TOML_H
#define SHOAL_RUNTIME_TOML_H

#include <stdint.h>

#include "pool.h"

/* Duplicates are looked for in pairs: so many take 0.1 s. A dump of containerd's defaults has 300.
 */
#define TOML_ITEMS_MAX 8192
#define TOML_PARTS_MAX 16 /* of a dotted key, its table's included */
#define TOML_DEPTH_MAX 16 /* of arrays and inline tables */
#define TOML_ROOT      UINT32_MAX

enum toml_kind {
    TOML_TABLE = 1, /* [a.b] */
    TOML_ARRAY,     /* [[a.b]] */
    TOML_KEY,       /* a.b = value */
    TOML_COMMENT,   /* a line that is nothing else */
};
struct toml_item {
    enum toml_kind kind;
    uint32_t line;     /* from 1 */
    uint32_t table;    /* index of the header a key stands under; TOML_ROOT */
    uint32_t element;  /* index of the innermost [[x]] that it is part of; TOML_ROOT */
    size_t start, end; /* whole lines: [start, end) with the line end, if there is one */
    const char *path;  /* full path of decoded parts, each with a zero behind it; "" comments */
    size_t path_bytes;
    uint32_t parts;     /* in the full path */
    size_t value;       /* TOML_KEY: where its value starts; TOML_COMMENT: its '#' */
    size_t value_bytes; /* without what follows in the line; comments: without the line end */
};
struct toml {
    const char *text; /* borrowed */
    size_t bytes;
    struct toml_item *items; /* in their order */
    uint32_t count;
    bool crlf; /* the first line ends in CR LF */
};

/*
 * Takes the text apart; `text` is borrowed for the life of *out, memory is the pool's. 0;
 * E_MALFORMED with `error` = "LINE: what is wrong", E_TOO_LARGE (items, parts, depth) the same;
 * E_NO_MEMORY.
 */
MUST_USE int toml_parse(struct pool *pool, const char *text, size_t bytes, struct toml *out,
                        struct runtime_error *error);

/* Part `index` of an item's full path; "" behind the last. */
const char *toml_part(const struct toml_item *item, uint32_t index);
/* True if the item's path is, or begins with, the NULL-terminated `parts`. Comments never. */
bool toml_is(const struct toml_item *item, const char *const *parts);
bool toml_below(const struct toml_item *item, const char *const *parts);

/* The value of a TOML_KEY as a decoded string from the pool. 0; E_INVALID if it is no string,
 * E_NO_MEMORY. */
MUST_USE int toml_string(struct pool *pool, const struct toml *toml, const struct toml_item *item,
                         const char **out);
/* The value as an array of at most `max` strings. 0 with *count; E_INVALID if it is none,
 * E_TOO_LARGE, E_NO_MEMORY. */
MUST_USE int toml_strings(struct pool *pool, const struct toml *toml, const struct toml_item *item,
                          const char **out, unsigned max, unsigned *count);
/* True if the value, without white space, is exactly `plain` ("true", "3", "{}"). */
bool toml_value_is(const struct toml *toml, const struct toml_item *item, const char *plain);

/* Appends `value` as a basic string, with \u escapes where they must be. */
void toml_quote(struct text *out, const char *value);

/* ---- shared inside toml*.c ---- */

/* A place in the text, and the first thing that is wrong. */
struct toml_scan {
    const char *text;
    size_t bytes, at;
    uint32_t line;
    const char *wrong; /* static text; NULL: nothing yet */
};
/* Over a value, from its first byte to behind its last; false with scan->wrong. */
bool toml__value(struct toml_scan *scan);
/* Over one part of a key; its decoded bytes are added to `out`. */
bool toml__key_part(struct toml_scan *scan, struct text *out);
/* Over a string; decoded bytes are added to `out` if that is not NULL. */
bool toml__string(struct toml_scan *scan, struct text *out);
/* Over spaces and tabs; with `lines` over line ends and comments, too. */
bool toml__blank(struct toml_scan *scan, bool lines);
/* Over a comment, if here is one, up to its line end. */
bool toml__comment(struct toml_scan *scan);
/* Over one line end, if here is one; *found tells. A bare CR is wrong. */
bool toml__line_end(struct toml_scan *scan, bool *found);

#endif
