/* SPDX-License-Identifier: Apache-2.0 */
/* YAML text through libyaml's events, see yaml_items.h. The one file that sees libyaml. */
#include "yaml_items.h"

#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum level_kind {
    LEVEL_MAPPING_KEY = 1, /* waits for a key; ends by the mapping's end */
    LEVEL_MAPPING_VALUE,   /* waits for the value of the key just read */
    LEVEL_SEQUENCE,        /* waits for elements; ends by the sequence's end */
};

struct level {
    enum level_kind kind;
    size_t path_bytes; /* path in force outside this level's own keys */
    unsigned elements;
};

struct walk {
    struct level levels[YAML_DEPTH_MAX];
    unsigned depth;
    char path[YAML_PATH_BYTES];
    bool seen_root;
    yaml_item_fn item;
    void *arg;
    char *error;
    size_t error_bytes;
};

/* Sets the error's text and returns E_CONFIG. */
static int fail(struct walk *walk, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct walk *walk, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(walk->error, walk->error_bytes, format, args);
    va_end(args);
    return E_CONFIG;
}

static unsigned line_of(const yaml_event_t *event)
{
    return (unsigned)event->start_mark.line + 1;
}

/* Index of the nearest map's place in a sequence of maps; UINT_MAX: there is none. */
static unsigned element_of(const struct walk *walk)
{
    for (unsigned i = walk->depth; i-- > 0;)
        if (walk->levels[i].kind == LEVEL_SEQUENCE && i + 1 < walk->depth)
            return walk->levels[i].elements - 1;
    return UINT_MAX;
}

static int give(struct walk *walk, const yaml_event_t *event, const char *value, bool in_list,
                bool list_start)
{
    unsigned element = element_of(walk);
    struct yaml_item item = {
        .key = walk->path,
        .value = value,
        .line = line_of(event),
        .in_list = in_list,
        .list_start = list_start,
        .in_element = element != UINT_MAX,
        .element = element != UINT_MAX ? element : 0,
    };
    return walk->item(walk->arg, &item);
}

static int path_append(struct walk *walk, const yaml_event_t *event, const char *key)
{
    size_t used = strlen(walk->path);
    size_t key_bytes = strlen(key);
    if (key_bytes == 0 || used + 1 + key_bytes >= sizeof walk->path)
        return fail(walk, "%u: key is empty or too long", line_of(event));
    if (used > 0)
        walk->path[used++] = '.';
    memcpy(walk->path + used, key, key_bytes + 1);
    return 0;
}

/* A value of the innermost mapping is done: back to the mapping's own path. */
static void value_done(struct walk *walk)
{
    if (walk->depth == 0)
        return;
    struct level *level = &walk->levels[walk->depth - 1];
    if (level->kind != LEVEL_MAPPING_VALUE)
        return;
    level->kind = LEVEL_MAPPING_KEY;
    walk->path[level->path_bytes] = '\0';
}

/* A collection or scalar begins where a sequence waits: one element more. */
static int element_begin(struct walk *walk, const yaml_event_t *event)
{
    if (walk->depth == 0 || walk->levels[walk->depth - 1].kind != LEVEL_SEQUENCE)
        return 0;
    if (++walk->levels[walk->depth - 1].elements > YAML_ELEMENTS_MAX)
        return fail(walk, "%u: %s: list is too long", line_of(event), walk->path);
    return 0;
}

static int level_push(struct walk *walk, const yaml_event_t *event, enum level_kind kind)
{
    int err = element_begin(walk, event);
    if (err != 0)
        return err;
    if (walk->depth == YAML_DEPTH_MAX)
        return fail(walk, "%u: nested too deeply", line_of(event));
    if (walk->depth > 0 && walk->levels[walk->depth - 1].kind == LEVEL_MAPPING_KEY)
        return fail(walk, "%u: a key must be plain text", line_of(event));
    if (walk->depth == 0 && kind != LEVEL_MAPPING_KEY)
        return fail(walk, "%u: the file must be a mapping of keys", line_of(event));
    if (kind == LEVEL_SEQUENCE && walk->levels[walk->depth - 1].kind == LEVEL_SEQUENCE)
        return fail(walk, "%u: %s: a list inside a list", line_of(event), walk->path);
    walk->seen_root = true;
    walk->levels[walk->depth++] = (struct level){kind, strlen(walk->path), 0};
    return 0;
}

static int level_pop(struct walk *walk, const yaml_event_t *event)
{
    struct level *level = &walk->levels[walk->depth - 1];
    int err = 0;
    if (level->kind == LEVEL_SEQUENCE && level->elements == 0)
        err = give(walk, event, NULL, true, true);
    walk->depth--;
    value_done(walk);
    return err;
}

/* Nothing after the colon, "~" or "null": the key keeps its default. */
static bool scalar_null(const yaml_event_t *event, const char *value)
{
    if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    return *value == '\0' || strcmp(value, "~") == 0 || strcmp(value, "null") == 0;
}

static int scalar(struct walk *walk, const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    if (strlen(value) != event->data.scalar.length)
        return fail(walk, "%u: a zero byte inside a value", line_of(event));
    if (walk->depth == 0) {
        if (scalar_null(event, value))
            return 0;
        return fail(walk, "%u: the file must be a mapping of keys", line_of(event));
    }
    struct level *level = &walk->levels[walk->depth - 1];
    int err = 0;
    switch (level->kind) {
    case LEVEL_MAPPING_KEY:
        level->kind = LEVEL_MAPPING_VALUE;
        return path_append(walk, event, value);
    case LEVEL_MAPPING_VALUE:
        if (!scalar_null(event, value))
            err = give(walk, event, value, false, false);
        value_done(walk);
        return err;
    case LEVEL_SEQUENCE:
        err = element_begin(walk, event);
        return err != 0 ? err : give(walk, event, value, true, level->elements == 1);
    }
    return 0;
}

static bool decorated(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor != NULL || event->data.sequence_start.tag != NULL;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL;
    case YAML_ALIAS_EVENT:
        return true;
    default:
        return false;
    }
}

static int step(struct walk *walk, const yaml_event_t *event)
{
    if (decorated(event))
        return fail(walk, "%u: anchors, aliases and tags are not supported", line_of(event));
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (walk->seen_root)
            return fail(walk, "%u: more than one document", line_of(event));
        return 0;
    case YAML_MAPPING_START_EVENT:
        return level_push(walk, event, LEVEL_MAPPING_KEY);
    case YAML_SEQUENCE_START_EVENT:
        return level_push(walk, event, LEVEL_SEQUENCE);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        return level_pop(walk, event);
    case YAML_SCALAR_EVENT:
        return scalar(walk, event);
    default:
        return 0;
    }
}

int yaml_walk(const char *text, size_t text_bytes, yaml_item_fn item, void *arg, char *error,
              size_t error_bytes)
{
    yaml_parser_t parser;
    struct walk walk = {.item = item, .arg = arg, .error = error, .error_bytes = error_bytes};
    if (yaml_parser_initialize(&parser) == 0)
        return E_NO_MEMORY;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, text_bytes);

    int err = 0;
    bool more = true;
    while (err == 0 && more) {
        yaml_event_t event;
        if (yaml_parser_parse(&parser, &event) == 0) {
            err = fail(&walk, "%u: not valid YAML: %s", (unsigned)parser.problem_mark.line + 1,
                       parser.problem != NULL ? parser.problem : "unreadable");
            break;
        }
        more = event.type != YAML_STREAM_END_EVENT;
        err = step(&walk, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return err;
}
