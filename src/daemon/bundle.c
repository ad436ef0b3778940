/* SPDX-License-Identifier: Apache-2.0 */
/* Writing and reading of bundles; see bundle.h. */
#include "bundle.h"

#include <string.h>

#include "bytes.h"
#include "log.h"

#define MARK_BYTES   1
#define LENGTH_BYTES 2

static_assert(MESSAGE_BYTES_MAX <= UINT16_MAX, "a length fits its bytes");

void bundle_begin(struct bundle *bundle, const struct peer_addr *to)
{
    bundle->to = *to;
    bundle->message_count = 0;
    bundle->used = MARK_BYTES;
    bundle->bytes[0] = BUNDLE_MARK;
}

bool bundle_add(struct bundle *bundle, const uint8_t *msg, size_t msg_bytes)
{
    ASSERT(msg_bytes > 0);
    if (LENGTH_BYTES + msg_bytes > sizeof bundle->bytes - bundle->used)
        return false;
    store_be16(bundle->bytes + bundle->used, (uint16_t)msg_bytes);
    memcpy(bundle->bytes + bundle->used + LENGTH_BYTES, msg, msg_bytes);
    bundle->used += (uint32_t)(LENGTH_BYTES + msg_bytes);
    bundle->message_count++;
    return true;
}

const uint8_t *bundle_bytes(const struct bundle *bundle, size_t *byte_count)
{
    size_t skipped = bundle->message_count == 1 ? MARK_BYTES + LENGTH_BYTES : 0;
    ASSERT(bundle->message_count > 0);
    *byte_count = bundle->used - skipped;
    return bundle->bytes + skipped;
}

int bundle_next(const uint8_t *bytes, size_t byte_count, size_t *at, const uint8_t **msg,
                size_t *msg_bytes)
{
    if (*at == byte_count)
        return E_CLOSED;
    if (*at == 0 && bytes[0] != BUNDLE_MARK) {
        *msg = bytes;
        *msg_bytes = *at = byte_count;
        return 0;
    }
    size_t from = *at == 0 ? MARK_BYTES : *at;
    if (byte_count - from <= LENGTH_BYTES)
        return E_MALFORMED;
    size_t length = load_be16(bytes + from);
    from += LENGTH_BYTES;
    if (length == 0 || length > byte_count - from)
        return E_MALFORMED;
    *msg = bytes + from;
    *msg_bytes = length;
    *at = from + length;
    return 0;
}
