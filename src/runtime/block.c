/* SPDX-License-Identifier: Apache-2.0 */
/* Marked lines of ours in TOML files: in, out, and the proof that nothing else changed; block.h. */
#include "block.h"

#include <string.h>

static bool is_mark(const struct toml *toml, const struct toml_item *item, const char *mark)
{
    size_t bytes = strlen(mark);
    return item->kind == TOML_COMMENT && item->value_bytes == bytes &&
           memcmp(toml->text + item->value, mark, bytes) == 0;
}

/* ---- out ---- */

struct strip {
    const struct toml *toml;
    struct text out;
    size_t kept;                   /* of the text, so far */
    const struct toml_item *begin; /* of the block we are in; NULL: in none */
    bool joined;                   /* it says so */
    unsigned blocks;
};

static bool is_was(const struct toml *toml, const struct toml_item *item)
{
    size_t mark = strlen(BLOCK_WAS);
    return item->kind == TOML_COMMENT && item->value_bytes >= mark &&
           memcmp(toml->text + item->value, BLOCK_WAS, mark) == 0;
}

/* A line inside a block: what it keeps of theirs comes back. */
static void strip_line(struct strip *strip, const struct toml_item *item)
{
    size_t from = item->value + strlen(BLOCK_WAS);
    if (is_mark(strip->toml, item, BLOCK_JOINED))
        strip->joined = true;
    if (is_was(strip->toml, item))
        text_add(&strip->out, strip->toml->text + from, item->end - from);
}

static void strip_end(struct strip *strip, const struct toml_item *item)
{
    size_t line_end = strip->toml->crlf ? 2 : 1;
    struct text *out = &strip->out;
    if (strip->joined && item->end == strip->toml->bytes && out->bytes >= line_end)
        out->bytes -= line_end;
    strip->kept = item->end;
    strip->begin = NULL;
    strip->joined = false;
    strip->blocks++;
}

int block_strip(struct pool *pool, const struct toml *toml, struct span *out, unsigned *blocks,
                struct runtime_error *error)
{
    struct strip strip = {.toml = toml};
    const char *lost = "a mark of shoal without its partner; take our lines out by hand";
    text_init(&strip.out, pool);
    for (uint32_t i = 0; i < toml->count; i++) {
        const struct toml_item *item = &toml->items[i];
        bool begins = is_mark(toml, item, BLOCK_BEGIN);
        bool ends = is_mark(toml, item, BLOCK_END);
        if ((begins && strip.begin != NULL) || (ends && strip.begin == NULL))
            return runtime_fail(error, E_REFUSED, "%u: %s", (unsigned)item->line, lost);
        if (begins) {
            text_add(&strip.out, toml->text + strip.kept, item->start - strip.kept);
            strip.begin = item;
        } else if (ends) {
            strip_end(&strip, item);
        } else if (strip.begin != NULL) {
            strip_line(&strip, item);
        }
    }
    if (strip.begin != NULL)
        return runtime_fail(error, E_REFUSED, "%u: %s", (unsigned)strip.begin->line, lost);
    text_add(&strip.out, toml->text + strip.kept, toml->bytes - strip.kept);
    if (text_end(&strip.out) != 0)
        return runtime_fail(error, E_NO_MEMORY, "%s", err_text(E_NO_MEMORY));
    strip.out.at[strip.out.bytes] = '\0';
    *out = (struct span){strip.out.at, strip.out.bytes};
    *blocks = strip.blocks;
    return 0;
}

/* ---- the proof ---- */

/* True if the item, or the last mark before it, begins a block. */
static bool in_block(const struct toml *toml, uint32_t index)
{
    for (uint32_t i = index + 1; i-- > 0;) {
        if (is_mark(toml, &toml->items[i], BLOCK_END))
            return false;
        if (is_mark(toml, &toml->items[i], BLOCK_BEGIN))
            return true;
    }
    return false;
}

/* True if something of theirs is part of a table of ours: it would be another's without it. */
static bool entangled(const struct toml *toml)
{
    for (uint32_t i = 0; i < toml->count; i++) {
        const struct toml_item *item = &toml->items[i];
        if (item->kind == TOML_COMMENT || in_block(toml, i))
            continue;
        if ((item->table != TOML_ROOT && item->kind == TOML_KEY && in_block(toml, item->table)) ||
            (item->element != TOML_ROOT && in_block(toml, item->element)))
            return true;
    }
    return false;
}

/* The next statement that is no comment and stands in no block; NULL at the end. */
static const struct toml_item *next_theirs(const struct toml *toml, uint32_t *index)
{
    while (*index < toml->count) {
        uint32_t here = (*index)++;
        if (toml->items[here].kind != TOML_COMMENT && !in_block(toml, here))
            return &toml->items[here];
    }
    return NULL;
}

static bool same_meaning(const struct toml *a_toml, const struct toml_item *a,
                         const struct toml *b_toml, const struct toml_item *b)
{
    bool same = a->kind == b->kind && a->path_bytes == b->path_bytes &&
                memcmp(a->path, b->path, a->path_bytes) == 0;
    return same && a->value_bytes == b->value_bytes &&
           memcmp(a_toml->text + a->value, b_toml->text + b->value, a->value_bytes) == 0;
}

/* Are the statements of `with` outside its blocks those of `without`, in the same order? At most
 * `gone` of the latter may be missing: they gave way. */
static bool same_but_blocks(const struct toml *with, const struct toml *without, unsigned gone)
{
    uint32_t with_index = 0;
    uint32_t without_index = 0;
    for (;;) {
        const struct toml_item *a = next_theirs(with, &with_index);
        const struct toml_item *b = next_theirs(without, &without_index);
        while (b != NULL && gone > 0 && (a == NULL || !same_meaning(with, a, without, b))) {
            b = next_theirs(without, &without_index);
            gone--;
        }
        if (a == NULL || b == NULL)
            return a == b;
        if (!same_meaning(with, a, without, b))
            return false;
    }
}

static int prove(struct pool *pool, const struct toml *with, const struct span *without,
                 unsigned gone, struct runtime_error *error)
{
    struct toml base;
    int err = toml_parse(pool, without->at, without->bytes, &base, error);
    if (err != 0)
        return err == E_NO_MEMORY ? err : E_REFUSED;
    if (entangled(with) || !same_but_blocks(with, &base, gone))
        return runtime_fail(error, E_REFUSED,
                            "keys of others stand in a table of ours; move them out of it");
    return 0;
}

/* How many statements our blocks keep behind "#was:". */
static unsigned count_was(const struct toml *toml)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < toml->count; i++)
        if (is_was(toml, &toml->items[i]) && in_block(toml, i))
            count++;
    return count;
}

/* ---- in ---- */

static void add_lines(struct text *out, const char *lines, bool crlf)
{
    for (const char *end = strchr(lines, '\n'); end != NULL; end = strchr(lines, '\n')) {
        text_add(out, lines, (size_t)(end - lines));
        text_add_string(out, crlf ? "\r\n" : "\n");
        lines = end + 1;
    }
}

static void add_block(struct text *out, const struct toml *base, const struct block_edit *edit)
{
    bool was = edit->was_end > edit->at;
    bool no_end = edit->was_end > 0 && base->text[edit->was_end - 1] != '\n'; /* of the file */
    if (no_end && !was)
        add_lines(out, "\n", base->crlf);
    add_lines(out, BLOCK_BEGIN "\n", base->crlf);
    if (no_end)
        add_lines(out, BLOCK_JOINED "\n", base->crlf);
    if (was) {
        text_add_string(out, BLOCK_WAS);
        text_add(out, base->text + edit->at, edit->was_end - edit->at);
    }
    if (no_end && was)
        add_lines(out, "\n", base->crlf);
    add_lines(out, edit->lines, base->crlf);
    add_lines(out, BLOCK_END "\n", base->crlf);
}

int block_insert(struct pool *pool, const struct toml *base, const struct block_edit *edits,
                 unsigned count, struct text *out, struct runtime_error *error)
{
    struct toml after;
    struct span before;
    size_t kept = 0;
    unsigned gone = 0;
    unsigned blocks;
    for (unsigned i = 0; i < count; i++) {
        text_add(out, base->text + kept, edits[i].at - kept);
        add_block(out, base, &edits[i]);
        gone += edits[i].was_end > edits[i].at;
        kept = edits[i].was_end;
    }
    text_add(out, base->text + kept, base->bytes - kept);
    if (text_end(out) != 0)
        return runtime_fail(error, E_NO_MEMORY, "%s", err_text(E_NO_MEMORY));
    int err = toml_parse(pool, out->at, out->bytes, &after, error);
    if (err == 0)
        err = block_strip(pool, &after, &before, &blocks, error);
    if (err != 0)
        return err == E_NO_MEMORY ? err : E_REFUSED;
    if (blocks != count || before.bytes != base->bytes ||
        memcmp(before.at, base->text, base->bytes) != 0)
        return runtime_fail(error, E_REFUSED, "our lines would not come out again");
    return prove(pool, &after, &before, gone, error);
}

int block_undo(struct pool *pool, const struct span *text, struct span *out, unsigned *blocks,
               struct runtime_error *error)
{
    struct toml toml;
    struct span without = {NULL, 0};
    int err = toml_parse(pool, text->at, text->bytes, &toml, error);
    if (err == 0)
        err = block_strip(pool, &toml, &without, blocks, error);
    if (err == 0)
        err = prove(pool, &toml, &without, count_was(&toml), error);
    if (err != 0)
        return err == E_NO_MEMORY ? err : E_REFUSED;
    *out = without;
    return 0;
}
