/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TOML from any bytes: places lie in the text and in order, decoded strings come back from their
 * quoted form, and a block put in at any statement comes out again with every byte as it was, or is
 * refused with one line that names a line.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

#include "../../src/runtime/block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *allocate(void *host, void *old, size_t bytes)
{
    (void)host;
    if (bytes != 0)
        return realloc(old, bytes);
    free(old);
    return NULL;
}

static void check_error(const struct runtime_error *error)
{
    ASSERT(error->text[0] != '\0' && strchr(error->text, '\n') == NULL);
}

static void check_string(struct pool *pool, const struct toml *toml, const struct toml_item *item)
{
    struct toml again;
    struct text quoted;
    struct runtime_error error;
    const char *value;
    const char *back;
    if (toml_string(pool, toml, item, &value) != 0)
        return;
    text_init(&quoted, pool);
    text_add_string(&quoted, "k = ");
    toml_quote(&quoted, value);
    ASSERT(text_end(&quoted) == 0);
    ASSERT(toml_parse(pool, quoted.at, quoted.bytes, &again, &error) == 0);
    ASSERT(toml_string(pool, &again, &again.items[0], &back) == 0);
    ASSERT(strcmp(value, back) == 0);
}

static void check_items(struct pool *pool, const struct toml *toml)
{
    size_t end = 0;
    for (uint32_t i = 0; i < toml->count; i++) {
        const struct toml_item *item = &toml->items[i];
        const char *strings[4];
        unsigned count;
        ASSERT(item->start >= end && item->end > item->start && item->end <= toml->bytes);
        ASSERT(item->value + item->value_bytes <= item->end);
        ASSERT(item->parts <= TOML_PARTS_MAX);
        ASSERT(item->table == TOML_ROOT || item->table < i || item->kind != TOML_KEY);
        ASSERT(item->end == toml->bytes || toml->text[item->end - 1] == '\n');
        end = item->end;
        check_string(pool, toml, item);
        if (toml_strings(pool, toml, item, strings, 4, &count) == 0)
            ASSERT(count <= 4);
    }
}

/* In at the n-th statement, which gives way or not, and out again. */
static void check_block(struct pool *pool, const struct toml *toml, uint8_t choice)
{
    struct runtime_error error = {""};
    struct block_edit edit = {toml->bytes, toml->bytes, "[host.\"http://127.0.0.1:1\"]\nk = 1\n"};
    struct text with;
    struct span without;
    unsigned blocks;
    if (toml->count > 0 && choice % 4 != 0) {
        const struct toml_item *item = &toml->items[choice / 4 % toml->count];
        edit.at = edit.was_end = item->start;
        if (choice % 4 == 2 && item->kind == TOML_KEY)
            edit.was_end = item->end;
    }
    text_init(&with, pool);
    if (block_insert(pool, toml, &edit, 1, &with, &error) != 0) {
        check_error(&error);
        return;
    }
    const struct span span = {with.at, with.bytes};
    ASSERT(block_undo(pool, &span, &without, &blocks, &error) == 0);
    ASSERT(blocks == 1 && without.bytes == toml->bytes);
    ASSERT(memcmp(without.at, toml->text, toml->bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct env env = {.alloc = allocate};
    struct runtime_error error = {""};
    struct pool pool;
    struct toml toml;
    struct span out;
    unsigned blocks;
    if (size == 0)
        return 0;
    pool_init(&pool, &env);
    const char *text = pool_copy(&pool, (const char *)data + 1, size - 1);
    const struct span span = {text, size - 1};
    if (toml_parse(&pool, text, size - 1, &toml, &error) == 0) {
        check_items(&pool, &toml);
        check_block(&pool, &toml, data[0]);
    } else {
        check_error(&error);
    }
    if (block_undo(&pool, &span, &out, &blocks, &error) == 0)
        ASSERT(out.bytes <= span.bytes && (blocks > 0 || out.bytes == span.bytes));
    pool_close(&pool);
    return 0;
}
