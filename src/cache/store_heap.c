/* SPDX-License-Identifier: Apache-2.0 */
/* The C heap in the shape of an env, for the stores' public constructors, which are given none. */
#include <stdlib.h>

#include "store_internal.h"

static void *heap_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

void store__heap(struct env *out)
{
    *out = (struct env){.alloc = heap_alloc};
}
