/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of one plan, growing text, and lines for the operator; see pool.h. */
#include "pool.h"

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "bytes.h"

struct pool_chunk {
    struct pool_chunk *next;
    max_align_t start[];
};

void pool_init(struct pool *pool, const struct env *env)
{
    *pool = (struct pool){.env = env};
}

void pool_close(struct pool *pool)
{
    while (pool->chunks != NULL) {
        struct pool_chunk *chunk = pool->chunks;
        pool->chunks = chunk->next;
        (void)pool->env->alloc(pool->env->host, chunk, 0);
    }
    pool->bytes = 0;
}

void *pool_alloc(struct pool *pool, size_t bytes)
{
    size_t whole;
    size_t sum;
    if (size_add(sizeof(struct pool_chunk), bytes, &whole) != 0 ||
        size_add(pool->bytes, whole, &sum) != 0 || sum > RUNTIME_MEMORY_MAX)
        return NULL;
    struct pool_chunk *chunk = pool->env->alloc(pool->env->host, NULL, whole);
    if (chunk == NULL)
        return NULL;
    memset(chunk, 0, whole);
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    pool->bytes = sum;
    return chunk->start;
}

char *pool_copy(struct pool *pool, const char *bytes, size_t byte_count)
{
    size_t room;
    char *copy = size_add(byte_count, 1, &room) == 0 ? pool_alloc(pool, room) : NULL;
    if (copy != NULL && byte_count > 0)
        memcpy(copy, bytes, byte_count);
    return copy;
}

char *pool_print(struct pool *pool, const char *format, ...)
{
    char buffer[2 * RUNTIME_PATH_BYTES];
    va_list args;
    va_start(args, format);
    int written = vsnprintf(buffer, sizeof buffer, format, args);
    va_end(args);
    if (written < 0 || (size_t)written >= sizeof buffer)
        return NULL;
    return pool_copy(pool, buffer, (size_t)written);
}

void text_init(struct text *text, struct pool *pool)
{
    *text = (struct text){.pool = pool};
}

/* Room for `more` bytes and a zero; the old memory stays with the pool. */
static void text_grow(struct text *text, size_t more)
{
    size_t wanted;
    if (text->failed || size_add(text->bytes, more, &wanted) != 0 ||
        size_add(wanted, 1, &wanted) != 0) {
        text->failed = true;
        return;
    }
    if (wanted <= text->room)
        return;
    size_t room = text->room < 512 ? 512 : text->room;
    while (room < wanted && room <= SIZE_MAX / 2)
        room *= 2;
    char *at = pool_alloc(text->pool, room);
    if (at == NULL) {
        text->failed = true;
        return;
    }
    if (text->bytes > 0)
        memcpy(at, text->at, text->bytes);
    text->at = at;
    text->room = room;
}

void text_add(struct text *text, const char *bytes, size_t byte_count)
{
    text_grow(text, byte_count);
    if (text->failed || byte_count == 0)
        return;
    memcpy(text->at + text->bytes, bytes, byte_count);
    text->bytes += byte_count;
    text->at[text->bytes] = '\0';
}

void text_add_string(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

int text_end(struct text *text)
{
    text_grow(text, 0);
    return text->failed ? E_NO_MEMORY : 0;
}

int runtime_fail(struct runtime_error *error, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int written = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    if (written < 0)
        error->text[0] = '\0';
    for (char *at = error->text; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    return err;
}
