/* SPDX-License-Identifier: Apache-2.0 */
/* A registry's Link header: what comes out stays in its room, and a second pass changes nothing
 * more. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bytes.h"
#include "http.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char link[1024], here[4096], again[8192];
    if (text_copy_n(link, sizeof link, (const char *)data, size) != 0)
        return 0;
    if (http_link_here(link, "a.test:5", "a.test:5", here, sizeof here) != 0)
        return 0;
    if (strstr(here, "//") != NULL)
        return 0; /* what was below our host may look like another one's */
    ASSERT(http_link_here(here, "a.test:5", "a.test:5", again, sizeof again) == 0);
    ASSERT(strcmp(here, again) == 0);
    return 0;
}
