/* SPDX-License-Identifier: Apache-2.0 */
/* The Makefile writes the text into build/gen/build-id.inc, anew only when it changes; see
 * build_id.h. */
#include "build_id.h"

static const char id[] =
#include <gen/build-id.inc>
    ;

const char *build_id(void)
{
    return id;
}
