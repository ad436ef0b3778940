/* SPDX-License-Identifier: Apache-2.0 */
/* Nearest known name by Levenshtein distance, see nearest.h. */
#include "nearest.h"

#include <string.h>

#define LENGTH_MAX 48
/* At most a third of the name may be wrong, and never more than this. */
#define EDITS_MAX 3

static unsigned edits(const char *a, const char *b)
{
    unsigned row[LENGTH_MAX + 1];
    size_t a_bytes = strlen(a);
    size_t b_bytes = strlen(b);
    if (a_bytes > LENGTH_MAX || b_bytes > LENGTH_MAX)
        return LENGTH_MAX;
    for (unsigned j = 0; j <= b_bytes; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a_bytes; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_bytes; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1] ? 1U : 0U);
            unsigned gap = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replace < gap ? replace : gap;
        }
    }
    return row[b_bytes];
}

const char *nearest_name(const char *name, nearest_name_fn known, const void *arg, size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(name) / 3 + 2 < EDITS_MAX + 1 ? strlen(name) / 3 + 2 : EDITS_MAX + 1;
    for (size_t i = 0; i < count; i++) {
        unsigned distance = edits(name, known(arg, i));
        if (distance < best) {
            best = distance;
            nearest = known(arg, i);
        }
    }
    return nearest;
}
