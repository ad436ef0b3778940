/* SPDX-License-Identifier: Apache-2.0 */
/* MessagePack form of orders between nodes; see wire_order.h. ASK: [type, serial, [[algorithm,
 * digest, size]...]]; TELL: [type, serial, [state...]]; DIAL: [type, serial, []]; DIALLED: [type,
 * serial, [state]]. */
#include "wire_order.h"

#include <string.h>

static bool has_states(unsigned type)
{
    return type == WIRE_ORDER_TELL || type == WIRE_ORDER_DIALLED;
}

static bool count_valid(const struct wire_order *message)
{
    if (message->type == WIRE_ORDER_DIAL)
        return message->count == 0;
    if (message->type == WIRE_ORDER_DIALLED)
        return message->count == 1;
    return message->count > 0 && message->count <= WIRE_ORDER_BLOBS_MAX;
}

static bool blob_valid(const struct wire_order *message, const struct wire_order_blob *blob)
{
    if (has_states(message->type))
        return blob->state > 0 && blob->state < WIRE_ORDER_STATES;
    return digest_bytes(blob->digest.algorithm) > 0 && blob->size_bytes > 0 &&
           blob->size_bytes <= BLOB_BYTES_MAX;
}

static bool valid(const struct wire_order *message)
{
    if (message->type < WIRE_ORDER_FIRST || message->type >= WIRE_ORDER_END ||
        !count_valid(message))
        return false;
    for (uint32_t i = 0; i < message->count; i++)
        if (!blob_valid(message, &message->blobs[i]))
            return false;
    return true;
}

static void put_blob(struct wire_writer *writer, const struct wire_order_blob *blob)
{
    wire_put_array(writer, 3);
    wire_put_uint(writer, blob->digest.algorithm);
    wire_put_bytes(writer, blob->digest.bytes, digest_bytes(blob->digest.algorithm));
    wire_put_uint(writer, blob->size_bytes);
}

int wire_order_encode(const struct wire_order *message, uint8_t *out, size_t capacity, size_t *used)
{
    struct wire_writer writer;
    if (!valid(message))
        return E_INVALID;
    wire_writer_begin(&writer, out, capacity, message->type, 2);
    wire_put_uint(&writer, message->serial);
    wire_put_array(&writer, message->count);
    for (uint32_t i = 0; i < message->count; i++) {
        if (message->type == WIRE_ORDER_ASK)
            put_blob(&writer, &message->blobs[i]);
        else
            wire_put_uint(&writer, message->blobs[i].state);
    }
    return wire_writer_end(&writer, used);
}

/* False: no digest of ours; the reader's own errors stick. */
static bool get_blob(struct wire_reader *reader, struct wire_order_blob *out)
{
    if (wire_get_array(reader, 3) != 3)
        return false;
    out->digest.algorithm = (enum digest_algorithm)wire_get_uint(reader, UINT8_MAX);
    size_t bytes = digest_bytes(out->digest.algorithm);
    if (bytes == 0)
        return false;
    wire_get_fixed(reader, out->digest.bytes, bytes);
    out->size_bytes = wire_get_uint(reader, BLOB_BYTES_MAX);
    return true;
}

static bool get_blobs(struct wire_reader *reader, struct wire_order *out)
{
    for (uint32_t i = 0; i < out->count; i++) {
        memset(&out->blobs[i], 0, sizeof out->blobs[i]);
        if (has_states(out->type))
            out->blobs[i].state = (uint8_t)wire_get_uint(reader, WIRE_ORDER_STATES - 1);
        else if (!get_blob(reader, &out->blobs[i]))
            return false;
    }
    return true;
}

int wire_order_decode(const uint8_t *msg, size_t msg_bytes, struct wire_order *out)
{
    struct wire_reader reader;
    int err = msg_bytes > MESSAGE_BYTES_MAX
                  ? E_TOO_LARGE
                  : wire_reader_begin(&reader, msg, msg_bytes, &out->type);
    if (err != 0)
        return err;
    if (out->type < WIRE_ORDER_FIRST || out->type >= WIRE_ORDER_END)
        return E_NOT_FOUND;
    out->serial = wire_get_uint(&reader, UINT64_MAX);
    out->count = wire_get_array(&reader, WIRE_ORDER_BLOBS_MAX);
    bool whole = get_blobs(&reader, out);
    err = wire_reader_end(&reader);
    if (err != 0)
        return err;
    return whole && valid(out) ? 0 : E_MALFORMED;
}
