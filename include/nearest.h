/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean ...?": the known name nearest to a mistyped one, for messages to operators. */
#ifndef SHOAL_NEAREST_H
#define SHOAL_NEAREST_H

#include <stddef.h>

/* The `index`-th known name. */
typedef const char *(*nearest_name_fn)(const void *arg, size_t index);

/* The known name with the fewest edits, if they are few for the name's length; else NULL: a
 * far-fetched proposal helps nobody. Names over 48 bytes are never near. */
const char *nearest_name(const char *name, nearest_name_fn known, const void *arg, size_t count);

#endif
