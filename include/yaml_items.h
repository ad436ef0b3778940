/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML text (libyaml) flattened into items "a.b.c" = scalar: all that a configuration file of the
 * agent or a scenario of the simulator needs. One document of mappings, sequences and scalars; no
 * recursion; depth, path and list lengths are bounded. The file is the operator's, but it is still
 * checked as input.
 */
#ifndef SHOAL_YAML_ITEMS_H
#define SHOAL_YAML_ITEMS_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

#define YAML_DEPTH_MAX    8
#define YAML_PATH_BYTES   256  /* of a dotted key, with its zero */
#define YAML_ELEMENTS_MAX 4096 /* of one list */

/* One value: a dotted path and a scalar, or one element of a list. */
struct yaml_item {
    const char *key;   /* dotted, borrowed for the call */
    const char *value; /* borrowed for the call; NULL: the list is empty */
    unsigned line;     /* from 1 */
    bool in_list;      /* element of a sequence */
    bool list_start;   /* the first element, or an empty list */
    bool in_element;   /* inside a map that is an element of a list */
    unsigned element;  /* in_element: index of the nearest such map, from 0 */
};
/* Takes one item. 0, or an error that ends the walk. */
typedef int (*yaml_item_fn)(void *arg, const struct yaml_item *item);

/*
 * Walks the text: mappings are flattened to dotted keys, sequences give one item per element, maps
 * inside a sequence give items with `element`. A key without a value gives nothing. Anchors, tags,
 * multiple documents and depth over YAML_DEPTH_MAX are refused. 0; E_CONFIG with `error` (at least
 * 64 bytes) saying "LINE: what"; E_NO_MEMORY; or what `item` returned, `error` untouched.
 */
MUST_USE int yaml_walk(const char *text, size_t text_bytes, yaml_item_fn item, void *arg,
                       char *error, size_t error_bytes);

#endif
