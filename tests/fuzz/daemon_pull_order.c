/* SPDX-License-Identifier: Apache-2.0 */
/* Orders in bodies of requests: whatever comes, names are names, or nothing is taken. */
#include <string.h>

#include "../../src/daemon/pull_order.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pull_order order;
    char error[PULL_ERROR_BYTES];

    if (pull_order_parse((const char *)data, size, &order, error) != 0) {
        ASSERT(strlen(error) > 0);
        return 0;
    }
    ASSERT(ref_host_valid(order.image.registry, strlen(order.image.registry)));
    ASSERT(ref_repository_valid(order.image.repository, strlen(order.image.repository)));
    ASSERT(order.image.has_digest || ref_tag_valid(order.image.tag, strlen(order.image.tag)));
    return 0;
}
