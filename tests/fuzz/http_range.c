/* SPDX-License-Identifier: Apache-2.0 */
/* Range headers (HTTP-5): a part lies inside the body, and its plain spelling is the same part. The
 * first eight bytes are the body's size. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "http.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char range[512], plain[64];
    uint64_t first = 7, last = 3, again_first = 0, again_last = 0;
    if (size < 8 || text_copy_n(range, sizeof range, (const char *)data + 8, size - 8) != 0)
        return 0;
    uint64_t body = load_be64(data);
    enum http_range_kind kind = http_range_resolve(range, body, &first, &last);
    if (kind != HTTP_RANGE_PART) {
        ASSERT(kind == HTTP_RANGE_WHOLE || kind == HTTP_RANGE_UNSATISFIABLE);
        ASSERT(first == 7);
        ASSERT(last == 3);
        return 0;
    }
    ASSERT(first <= last);
    ASSERT(last < body);
    ASSERT(strchr(range, ',') == NULL);
    (void)snprintf(plain, sizeof plain, "bytes=%" PRIu64 "-%" PRIu64, first, last);
    kind = http_range_resolve(plain, body, &again_first, &again_last);
    ASSERT(kind == HTTP_RANGE_PART);
    ASSERT(again_first == first);
    ASSERT(again_last == last);
    return 0;
}
