/* SPDX-License-Identifier: Apache-2.0 */
/* The raw check and the reader on any bytes (PEER-10): what the check passes, msgpack-c's unpacker
 * takes whole, and any order of reads stays inside the message. */
#include <stddef.h>
#include <stdint.h>

#ifndef CHAR_MIN /* msgpack's headers find our limits.h instead of the system's */
#define CHAR_MIN (-128)
#endif
#include <msgpack.h>

#include "bytes.h"
#include "log.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One read, of the kind that `choice` names; a wrong guess must end in an error, not a crash. */
static void read_something(struct wire_reader *reader, unsigned choice)
{
    uint8_t fixed[6];
    char text[12];
    size_t count;
    struct peer_addr addr;
    struct topology topology;
    const uint8_t *bytes;
    switch (choice % 9) {
    case 0:
        ASSERT(wire_get_uint(reader, 1000) <= 1000);
        break;
    case 1:
        (void)wire_get_bool(reader);
        break;
    case 2:
        wire_get_fixed(reader, fixed, sizeof fixed);
        break;
    case 3:
        bytes = wire_get_bytes(reader, 32, &count);
        ASSERT(bytes == NULL || (bytes >= reader->msg && count <= 32));
        ASSERT(bytes == NULL || bytes + count <= reader->msg + reader->msg_bytes);
        break;
    case 4:
        wire_get_text(reader, text, sizeof text);
        break;
    case 5:
        ASSERT(wire_get_array(reader, 16) <= 16);
        break;
    case 6:
        wire_get_addr(reader, &addr);
        break;
    case 7:
        wire_get_topology(reader, &topology);
        break;
    default:
        wire_skip(reader);
        break;
    }
}

/* The kind that fits the next byte, so that reads get deep into a message. */
static unsigned fitting_choice(const struct wire_reader *reader)
{
    uint8_t first = reader->offset < reader->msg_bytes ? reader->msg[reader->offset] : 0xc0;
    if (first < 0x80 || (first >= 0xcc && first <= 0xcf))
        return 0;
    if (first == 0xc2 || first == 0xc3)
        return 1;
    if (first >= 0xc4 && first <= 0xc6)
        return reader->offset % 2 == 0 ? 3 : 6;
    if ((first >= 0xa0 && first < 0xc0) || first == 0xd9)
        return 4;
    if ((first >= 0x90 && first < 0xa0) || first == 0xdc)
        return reader->offset % 4 == 3 ? 7 : 5;
    return 8;
}

static void walk(const uint8_t *data, size_t size, uint64_t choices)
{
    struct wire_reader reader;
    unsigned type, again;
    if (wire_reader_begin(&reader, data, size, &type) != 0)
        return;
    int err = wire_type(data, size, &again);
    ASSERT(err == 0 && type == again);
    for (unsigned step = 0; step < 64 && wire_reader_end(&reader) == 0; step++) {
        size_t before = reader.offset;
        bool fit = (choices >> (step % 64) & 1) == 0;
        read_something(&reader, fit ? fitting_choice(&reader) : (unsigned)(choices >> (step % 59)));
        ASSERT(reader.offset >= before && reader.offset <= size);
        ASSERT(wire_reader_end(&reader) != 0 || reader.offset > before);
        ASSERT(wire_reader_end(&reader) != 0 || wire_fields_left(&reader) > 0 || reader.depth > 0 ||
               reader.offset == size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (wire_check(data, size) != 0)
        return 0;
    msgpack_unpacked unpacked;
    size_t offset = 0;
    msgpack_unpacked_init(&unpacked);
    msgpack_unpack_return result =
        msgpack_unpack_next(&unpacked, (const char *)data, size, &offset);
    ASSERT(result == MSGPACK_UNPACK_SUCCESS);
    ASSERT(offset == size);
    msgpack_unpacked_destroy(&unpacked);

    walk(data, size, 0);
    uint8_t padded[32] = {0};
    for (size_t i = 0; i < size; i++)
        padded[i % 32] = (uint8_t)(padded[i % 32] * 31 + data[i]);
    walk(data, size, id_hash(padded));
    return 0;
}
