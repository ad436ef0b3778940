/* SPDX-License-Identifier: Apache-2.0 */
/* Content-Range values (O-8) and HTTP dates: what is accepted is written back to the same text. */
#include <stdio.h>
#include <string.h>

#include "../../src/registry/origin.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[200];
    uint64_t first, last, total, seconds;

    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (origin__content_range_parse(text, &first, &last, &total))
        ASSERT(first <= last && (total == UINT64_MAX || last < total));
    if (origin__http_date(text, &seconds))
        ASSERT(seconds <= 253402300800ull + 86400);
    return 0;
}
