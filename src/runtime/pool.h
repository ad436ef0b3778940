/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of one plan or revert: taken piece by piece from env->alloc, given back all at once, at
 * most RUNTIME_MEMORY_MAX in sum. And text that grows in it, with an error that sticks, so that
 * what builds a file checks once, at the end.
 */
#ifndef SHOAL_RUNTIME_POOL_H
#define SHOAL_RUNTIME_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime.h"

struct pool_chunk;
struct pool {
    const struct env *env;
    struct pool_chunk *chunks;
    size_t bytes;
};

/* `env` is borrowed. */
void pool_init(struct pool *pool, const struct env *env);
/* Frees everything. */
void pool_close(struct pool *pool);
/* Zeroed, aligned for any type, until pool_close; NULL when there is no more. */
void *pool_alloc(struct pool *pool, size_t bytes);
/* A copy with a zero behind it, or NULL. */
char *pool_copy(struct pool *pool, const char *bytes, size_t byte_count);
/* A formatted string, or NULL. */
char *pool_print(struct pool *pool, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Borrowed bytes. */
struct span {
    const char *at;
    size_t bytes;
};
struct text {
    struct pool *pool;
    char *at; /* with a zero behind it; NULL while nothing was added */
    size_t bytes, room;
    bool failed; /* out of memory: further additions do nothing */
};
void text_init(struct text *text, struct pool *pool);
void text_add(struct text *text, const char *bytes, size_t byte_count);
void text_add_string(struct text *text, const char *string);
/* 0, or E_NO_MEMORY if any addition failed; an empty text has at = "". */
MUST_USE int text_end(struct text *text);

/* Sets error->text by format, control bytes as '?', and returns `err`. */
int runtime_fail(struct runtime_error *error, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
