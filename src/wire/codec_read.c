/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of messages: a cursor over value headers of a message that wire_check has passed.
 *
 * Why not msgpack-c's unpacker: msgpack_unpack_next builds a tree of objects in a zone, one heap
 * block of 8 KiB or more per message and array memory reserved from the sender's declared count
 * (PEER-10). A cursor needs no memory, costs some nanoseconds per value, and a decoder wants the
 * values in order anyway. msgpack-c still writes every message (codec_write.c) and reads them back
 * in the tests, so the two stand against each other.
 */
#include "codec_internal.h"

#include <string.h>

#include "bytes.h"
#include "log.h"
#include "topology.h"

static void fail(struct wire_reader *reader, int err)
{
    if (reader->err == 0)
        reader->err = err;
}

/* Counts one value as read in the innermost open array; false if there is none left. */
static bool count_value(struct wire_reader *reader)
{
    uint32_t *left = reader->depth > 0 ? &reader->left[reader->depth - 1] : &reader->fields_left;
    if (*left == 0) {
        fail(reader, E_TRUNCATED);
        return false;
    }
    --*left;
    return true;
}

/* Closes the arrays whose values have all been read. */
static void close_arrays(struct wire_reader *reader)
{
    while (reader->depth > 0 && reader->left[reader->depth - 1] == 0)
        reader->depth--;
}

/*
 * Takes the next value, which must be of `kind`, and moves behind it (for an array: to its first
 * element). False after a failure, now or earlier. *body is the payload inside the message.
 */
static bool take(struct wire_reader *reader, enum wire__kind kind, struct wire__value *value,
                 const uint8_t **body)
{
    if (reader->err != 0 || !count_value(reader))
        return false;
    size_t rest = reader->msg_bytes - reader->offset;
    int err = wire__value_read(reader->msg + reader->offset, rest, value);
    ASSERT(err == 0); /* wire_check has been here */
    if (value->kind != kind) {
        fail(reader, E_MALFORMED);
        return false;
    }
    *body = reader->msg + reader->offset + value->header_bytes;
    reader->offset += value->header_bytes + value->body_bytes;
    ASSERT(reader->offset <= reader->msg_bytes);
    if (kind != WIRE__ARRAY)
        close_arrays(reader);
    return true;
}

int wire_reader_begin(struct wire_reader *reader, const uint8_t *msg, size_t msg_bytes,
                      unsigned *type)
{
    *reader = (struct wire_reader){.msg = msg, .msg_bytes = msg_bytes};
    unsigned found = 0;
    int err = wire_check(msg, msg_bytes);
    if (err == 0)
        err = wire_type(msg, msg_bytes, &found);
    reader->err = err; /* so that a caller who reads on gets zeros, not bytes */
    if (err != 0)
        return err;
    struct wire__value array;
    err = wire__value_read(msg, msg_bytes, &array);
    ASSERT(err == 0);
    ASSERT(array.number <= MESSAGE_COUNT_MAX);
    reader->offset = array.header_bytes;
    reader->fields_left = (uint32_t)array.number;
    *type = (unsigned)wire_get_uint(reader, WIRE_TYPE_MAX);
    ASSERT(reader->err == 0);
    ASSERT(*type == found);
    return 0;
}

uint64_t wire_get_uint(struct wire_reader *reader, uint64_t max)
{
    struct wire__value value;
    const uint8_t *body;
    if (!take(reader, WIRE__UINT, &value, &body))
        return 0;
    if (value.number > max) {
        fail(reader, E_TOO_LARGE);
        return 0;
    }
    return value.number;
}

bool wire_get_bool(struct wire_reader *reader)
{
    struct wire__value value;
    const uint8_t *body;
    return take(reader, WIRE__BOOL, &value, &body) && value.number == 1;
}

const uint8_t *wire_get_bytes(struct wire_reader *reader, size_t bytes_max, size_t *byte_count)
{
    struct wire__value value;
    const uint8_t *body = NULL;
    *byte_count = 0;
    if (!take(reader, WIRE__BYTES, &value, &body))
        return NULL;
    if (value.body_bytes > bytes_max) {
        fail(reader, E_TOO_LARGE);
        return NULL;
    }
    *byte_count = value.body_bytes;
    return body;
}

void wire_get_fixed(struct wire_reader *reader, void *out, size_t byte_count)
{
    size_t found;
    const uint8_t *bytes = wire_get_bytes(reader, SIZE_MAX, &found);
    if (bytes != NULL && found == byte_count) {
        memcpy(out, bytes, byte_count);
        return;
    }
    fail(reader, E_MALFORMED);
    memset(out, 0, byte_count);
}

/* Text of at most `bytes_max`, borrowed, without control bytes; NULL after a failure. */
static const char *take_text(struct wire_reader *reader, size_t bytes_max, size_t *byte_count)
{
    struct wire__value value;
    const uint8_t *body;
    if (!take(reader, WIRE__TEXT, &value, &body))
        return NULL;
    if (value.body_bytes > bytes_max) {
        fail(reader, E_TOO_LARGE);
        return NULL;
    }
    for (size_t i = 0; i < value.body_bytes; i++) {
        if (body[i] < 0x20 || body[i] == 0x7f) {
            fail(reader, E_MALFORMED);
            return NULL;
        }
    }
    *byte_count = value.body_bytes;
    return (const char *)body;
}

void wire_get_text(struct wire_reader *reader, char *out, size_t out_bytes)
{
    ASSERT(out_bytes > 0);
    size_t text_bytes = 0;
    const char *text = take_text(reader, out_bytes - 1, &text_bytes);
    if (text != NULL)
        memcpy(out, text, text_bytes);
    out[text_bytes] = '\0';
}

uint32_t wire_get_array(struct wire_reader *reader, uint32_t max)
{
    struct wire__value value;
    const uint8_t *body;
    if (!take(reader, WIRE__ARRAY, &value, &body))
        return 0;
    if (value.number > max) {
        fail(reader, E_TOO_LARGE);
        return 0;
    }
    /* wire_check allows MESSAGE_DEPTH_MAX arrays in all; the message's own is not in left[]. */
    ASSERT(reader->depth < MESSAGE_DEPTH_MAX);
    reader->left[reader->depth++] = (uint32_t)value.number;
    close_arrays(reader);
    return (uint32_t)value.number;
}

void wire_get_addr(struct wire_reader *reader, struct peer_addr *out)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff}};
    size_t byte_count;
    const uint8_t *bytes = wire_get_bytes(reader, 18, &byte_count);
    memset(out, 0, sizeof *out);
    if (bytes == NULL)
        return;
    if (byte_count == 6) {
        memcpy(addr.ip + 12, bytes, 4);
    } else if (byte_count == 18) {
        memcpy(addr.ip, bytes, 16);
        /* One address, one form: else the same peer could be listed twice. */
        if (peer_addr_is_v4(&addr)) {
            fail(reader, E_MALFORMED);
            return;
        }
    } else {
        fail(reader, E_MALFORMED);
        return;
    }
    addr.port = load_be16(bytes + byte_count - 2);
    *out = addr;
}

static void get_label(struct wire_reader *reader, struct label *out)
{
    size_t text_bytes = 0;
    const char *text = take_text(reader, LABEL_BYTES_MAX, &text_bytes);
    memset(out, 0, sizeof *out);
    if (text == NULL)
        return;
    int err = label_set(out, text, text_bytes);
    if (err != 0)
        fail(reader, err);
}

void wire_get_topology(struct wire_reader *reader, struct topology *out)
{
    uint32_t count = wire_get_array(reader, MESSAGE_COUNT_MAX);
    if (count < 3)
        fail(reader, E_MALFORMED);
    get_label(reader, &out->region);
    get_label(reader, &out->zone);
    get_label(reader, &out->vswitch);
    for (uint32_t i = 3; i < count; i++)
        wire_skip(reader); /* labels of a newer sender */
}

uint32_t wire_fields_left(const struct wire_reader *reader)
{
    return reader->err == 0 ? reader->fields_left : 0;
}

void wire_skip(struct wire_reader *reader)
{
    if (reader->err != 0 || !count_value(reader))
        return;
    /* At most as many rounds as the message has bytes: every value has at least one. */
    for (uint64_t values = 1; values > 0; values--) {
        struct wire__value value;
        size_t rest = reader->msg_bytes - reader->offset;
        int err = wire__value_read(reader->msg + reader->offset, rest, &value);
        ASSERT(err == 0);
        reader->offset += value.header_bytes + value.body_bytes;
        if (value.kind == WIRE__ARRAY || value.kind == WIRE__MAP)
            values += value.number;
    }
    ASSERT(reader->offset <= reader->msg_bytes);
    close_arrays(reader);
}

int wire_reader_end(const struct wire_reader *reader)
{
    return reader->err;
}
