/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests in memory when memory ends, at each allocation in turn: no exit, no leak (D-9). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "../../src/daemon/loop.h"
#include "../../src/daemon/manifest_store.h"
#include "bytes.h"

static unsigned calls_left;
static int live;

/* In place of the loop's own. */
void *loop_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        live -= old != NULL;
        free(old);
        return NULL;
    }
    if (calls_left == 0)
        return NULL;
    calls_left--;
    live += old == NULL;
    return realloc(old, new_bytes);
}

/* Enough entries to make the table grow once. */
#define ENTRIES 80

static unsigned use_store(void)
{
    struct manifest_store *store;
    struct manifest manifest = {"{}", 2, "a/b"}, found;
    unsigned kept = 0;
    if (manifest_store_new(&store) != 0)
        return 0;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        struct digest digest = {.algorithm = DIGEST_SHA256};
        store_be32(digest.bytes, i);
        struct manifest_key key = {"registry.test", "lib/a", &digest};
        manifest_store_put(store, &key, &manifest);
        kept += manifest_store_get(store, &key, &found);
    }
    manifest_store_free(store);
    return kept;
}

static void memory_ends_anywhere(void **state)
{
    (void)state;
    unsigned kept = 0;
    for (unsigned limit = 0; kept < ENTRIES; limit++) {
        calls_left = limit;
        kept = use_store();
        assert_int_equal(live, 0);
        assert_true(limit < 100 * ENTRIES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_ends_anywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
