/* SPDX-License-Identifier: Apache-2.0 */
/* Writer of messages: msgpack-c's packer over the caller's buffer. The packer's state is a pointer
 * and a function, made anew for each value; nothing is allocated. */
#include "wire.h"

/* msgpack's headers want CHAR_MIN from <limits.h>, but find include/limits.h under that name. */
#ifndef CHAR_MIN
#ifdef __CHAR_UNSIGNED__
#define CHAR_MIN 0
#else
#define CHAR_MIN (-128)
#endif
#endif
#include <msgpack.h>
#include <string.h>

#include "bytes.h"
#include "log.h"

static int append(void *arg, const char *bytes, size_t byte_count)
{
    struct wire_writer *writer = arg;
    if (writer->err != 0)
        return -1;
    ASSERT(writer->used <= writer->capacity);
    if (byte_count > writer->capacity - writer->used) {
        writer->err = E_TOO_LARGE;
        return -1;
    }
    memcpy(writer->out + writer->used, bytes, byte_count);
    writer->used += byte_count;
    return 0;
}

/* What the packer returns is append's doing, and append leaves the error in the writer. */
static msgpack_packer packer_of(struct wire_writer *writer)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, writer, append);
    return packer;
}

void wire_writer_begin(struct wire_writer *writer, uint8_t *out, size_t capacity, unsigned type,
                       uint32_t field_count)
{
    ASSERT(type <= WIRE_TYPE_MAX);
    ASSERT(field_count < MESSAGE_COUNT_MAX);
    *writer = (struct wire_writer){.out = out, .capacity = capacity};
    wire_put_array(writer, field_count + 1);
    wire_put_uint(writer, type);
}

void wire_put_uint(struct wire_writer *writer, uint64_t value)
{
    msgpack_packer packer = packer_of(writer);
    (void)msgpack_pack_uint64(&packer, value);
}

void wire_put_bool(struct wire_writer *writer, bool value)
{
    msgpack_packer packer = packer_of(writer);
    (void)(value ? msgpack_pack_true(&packer) : msgpack_pack_false(&packer));
}

void wire_put_bytes(struct wire_writer *writer, const void *bytes, size_t byte_count)
{
    msgpack_packer packer = packer_of(writer);
    (void)msgpack_pack_bin(&packer, byte_count);
    if (byte_count > 0)
        (void)msgpack_pack_bin_body(&packer, bytes, byte_count);
}

void wire_put_text(struct wire_writer *writer, const char *text)
{
    msgpack_packer packer = packer_of(writer);
    size_t text_bytes = strlen(text);
    (void)msgpack_pack_str(&packer, text_bytes);
    if (text_bytes > 0)
        (void)msgpack_pack_str_body(&packer, text, text_bytes);
}

void wire_put_array(struct wire_writer *writer, uint32_t count)
{
    /* The receiver would refuse the message (PEER-10): better known here. */
    ASSERT(count <= MESSAGE_COUNT_MAX);
    msgpack_packer packer = packer_of(writer);
    (void)msgpack_pack_array(&packer, count);
}

void wire_put_addr(struct wire_writer *writer, const struct peer_addr *addr)
{
    uint8_t form[18];
    bool v4 = peer_addr_is_v4(addr);
    size_t ip_bytes = v4 ? 4 : 16;
    memcpy(form, v4 ? addr->ip + 12 : addr->ip, ip_bytes);
    store_be16(form + ip_bytes, addr->port);
    wire_put_bytes(writer, form, ip_bytes + 2);
}

void wire_put_topology(struct wire_writer *writer, const struct topology *topology)
{
    wire_put_array(writer, 3);
    wire_put_text(writer, topology->region.text);
    wire_put_text(writer, topology->zone.text);
    wire_put_text(writer, topology->vswitch.text);
}

int wire_writer_end(struct wire_writer *writer, size_t *used)
{
    if (writer->err != 0)
        return writer->err;
    *used = writer->used;
    return 0;
}
