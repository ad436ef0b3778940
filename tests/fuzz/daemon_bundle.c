/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles from any bytes: never a crash, no message outside of them, and what comes out goes in
 * again. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../src/daemon/bundle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct peer_addr somewhere = {.port = 1};
    struct bundle bundle;
    const uint8_t *msg = NULL;
    size_t at = 0, msg_bytes = 0, again = 0;
    int err;
    if (size > MESSAGE_BYTES_MAX)
        return 0;
    bundle_begin(&bundle, &somewhere);
    while ((err = bundle_next(data, size, &at, &msg, &msg_bytes)) == 0) {
        if (msg < data || msg_bytes == 0 || msg_bytes > size - (size_t)(msg - data) || at > size)
            __builtin_trap();
        /* The longest alone find no room beside a mark and a length. */
        if (!bundle_add(&bundle, msg, msg_bytes) && bundle.message_count > 0)
            __builtin_trap();
    }
    if (err != E_CLOSED || bundle.message_count < 2)
        return 0;
    const uint8_t *back = bundle_bytes(&bundle, &again);
    if (again != size || memcmp(back, data, size) != 0)
        __builtin_trap();
    return 0;
}
