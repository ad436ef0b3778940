/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded parsing and wiped memory for jansson; see json_bounded.h. */
#include "json_bounded.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define JSON_DEPTH_MAX 32 /* ORG-7 */
/* Values in one document. 1,024 descriptors of a manifest have about 10,000; jansson takes some 100
 * bytes for each, so 4 MiB of "[],[]," would cost over 100 MiB without this. */
#define JSON_VALUES_MAX 65536

/* Depth and number of values. 0, E_TOO_LARGE. */
static int shape_check(const char *json, size_t json_bytes)
{
    size_t values = 0;
    int depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < json_bytes; i++) {
        char c = json[i];

        if (in_string) {
            if (c == '\\')
                i++;
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        values += c == ',' || c == ':' || c == '[' || c == '{';
        depth += c == '[' || c == '{';
        depth -= (c == ']' || c == '}') && depth > 0;
        if (depth > JSON_DEPTH_MAX || values > JSON_VALUES_MAX)
            return E_TOO_LARGE;
    }
    return 0;
}

int json__load(const char *json, size_t json_bytes, size_t bytes_max, json_t **root)
{
    int err;

    if (json_bytes > bytes_max)
        return E_TOO_LARGE;
    err = shape_check(json, json_bytes);
    if (err != 0)
        return err;
    *root = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, NULL);
    return *root == NULL ? E_MALFORMED : 0;
}

static void free_wiped(void *memory)
{
    if (memory != NULL)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

void json__wipe_freed(void)
{
    json_set_alloc_funcs(malloc, free_wiped);
}
