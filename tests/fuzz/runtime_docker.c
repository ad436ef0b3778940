/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.json from any bytes: what is taken has the agent first and comes back byte for byte; what
 * is not is refused with one line; and taking our element out of any text never fails on one that
 * was taken.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

#include "../../src/runtime/plan.h"

#define MIRROR "http://127.0.0.1:65001"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *allocate(void *host, void *old, size_t bytes)
{
    (void)host;
    if (bytes != 0)
        return realloc(old, bytes);
    free(old);
    return NULL;
}

static void check_there_and_back(struct pool *pool, const struct span *text,
                                 const struct span *with)
{
    struct runtime_error error;
    struct span again;
    struct span without;
    bool behind;
    bool found;
    const struct undo undo = {
        .format = PLAN_JSON, .text = *with, .before = *text, .mirror = MIRROR};
    ASSERT(docker__add(pool, with, MIRROR, &again, &behind, &error) == 0);
    ASSERT(again.bytes == with->bytes && memcmp(again.at, with->at, with->bytes) == 0);
    ASSERT(docker__undo(pool, &undo, &without, &found, &error) == 0 && found);
    if (strspn(text->at, " \t\r\n") < text->bytes) /* one that was blank becomes an empty object */
        ASSERT(without.bytes == text->bytes && memcmp(without.at, text->at, text->bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct env env = {.alloc = allocate};
    struct runtime_error error = {""};
    struct pool pool;
    struct span with;
    bool behind;
    bool found;
    pool_init(&pool, &env);
    const struct span text = {pool_copy(&pool, (const char *)data, size), size};
    const struct undo undo = {
        .format = PLAN_JSON, .text = text, .before = {"", 0}, .mirror = MIRROR};
    if (docker__add(&pool, &text, MIRROR, &with, &behind, &error) != 0)
        ASSERT(error.text[0] != '\0' && strchr(error.text, '\n') == NULL);
    else if (with.at != text.at)
        check_there_and_back(&pool, &text, &with);
    error.text[0] = '\0';
    if (docker__undo(&pool, &undo, &with, &found, &error) != 0)
        ASSERT(error.text[0] != '\0');
    pool_close(&pool);
    return 0;
}
