/* SPDX-License-Identifier: Apache-2.0 */
/* Orders between nodes on any bytes: what is accepted can be encoded, and decodes to the same. */
#include <string.h>

#include "log.h"
#include "wire_order.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wire_order order, back;
    uint8_t out[MESSAGE_BYTES_MAX];
    size_t used = 0;

    if (wire_order_decode(data, size, &order) != 0)
        return 0;
    ASSERT((order.count > 0) == (order.type != WIRE_ORDER_DIAL));
    ASSERT(order.count <= (order.type == WIRE_ORDER_DIALLED ? 1 : WIRE_ORDER_BLOBS_MAX));
    int err = wire_order_encode(&order, out, sizeof out, &used);
    ASSERT(err == 0);
    err = wire_order_decode(out, used, &back);
    ASSERT(err == 0);
    ASSERT(back.type == order.type && back.serial == order.serial && back.count == order.count);
    for (uint32_t i = 0; i < order.count; i++) {
        ASSERT(order.blobs[i].size_bytes <= BLOB_BYTES_MAX);
        ASSERT(memcmp(&order.blobs[i], &back.blobs[i], sizeof order.blobs[i]) == 0);
    }
    return 0;
}
