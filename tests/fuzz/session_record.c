/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: a stream of sealed records with changes by a middle, in changing chunks. What opens is
 * what was sealed, in order, up to the first change; after it nothing opens.
 */
#include <stddef.h>
#include <stdint.h>

#include "../../src/session/record.h"
#include "../unit/session_world.h"
#include "log.h"
#include "session_script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STREAM_MAX  16384
#define RECORDS_MAX 64
#define NOW         1000000ULL

struct stream {
    uint8_t bytes[STREAM_MAX];
    size_t byte_count;
    size_t sealed_bytes; /* as long as it was before the middle */
    size_t clean_bytes;  /* as they were sealed */
    struct {
        uint8_t fill;
        size_t plain_bytes;
    } records[RECORDS_MAX];
    size_t record_count;
};

static struct stream stream;

/* Seals a record of one repeated byte behind the stream. */
static void add_record(struct record_key *seal, struct script *script)
{
    static uint8_t text[RECORD_BYTES_MAX];
    size_t room = STREAM_MAX - stream.byte_count;
    size_t plain_bytes = script_number(script) % 3000;
    uint8_t code = script_byte(script);
    size_t out_bytes = 0;
    if (stream.record_count == RECORDS_MAX ||
        room < plain_bytes + RECORD_HEADER_BYTES + RECORD_TAG_BYTES)
        return;
    memset(text, code, plain_bytes);
    size_t head_bytes = plain_bytes * (code & 3) / 4;
    const struct record_input input = {text, head_bytes, text, plain_bytes - head_bytes};
    bool rekey = code % 5 == 0;
    int err = rekey ? record__rekey(seal, NOW) : 0;
    ASSERT(err == 0);
    err = record__seal(seal, &input, rekey, stream.bytes + stream.byte_count, &out_bytes);
    ASSERT(err == 0);
    stream.records[stream.record_count].fill = code;
    stream.records[stream.record_count++].plain_bytes = plain_bytes;
    stream.byte_count += out_bytes;
}

static void change_stream(struct script *script)
{
    uint8_t own[256];
    stream.sealed_bytes = stream.byte_count;
    stream.clean_bytes = stream.byte_count;
    size_t at = script_number(script);
    switch (script_byte(script) % 4) {
    case 0: /* nothing */
        break;
    case 1: { /* one byte */
        uint8_t change = script_byte(script);
        if (at >= stream.byte_count || change == 0)
            break;
        stream.bytes[at] ^= change;
        stream.clean_bytes = at;
        break;
    }
    case 2: /* the end is missing */
        if (at < stream.byte_count)
            stream.byte_count = stream.clean_bytes = at;
        break;
    default: { /* other bytes from here on */
        size_t own_bytes = script_bytes(script, own, sizeof own);
        if (at + own_bytes > stream.byte_count)
            break;
        size_t same = 0;
        while (same < own_bytes && stream.bytes[at + same] == own[same])
            same++;
        if (same < own_bytes)
            stream.clean_bytes = at + same;
        memcpy(stream.bytes + at, own, own_bytes);
        break;
    }
    }
}

/* As session_receive does it, without the cost of a handshake for each input. */
static void open_stream(struct record_key *open, bool apart)
{
    static uint8_t text[RECORD_BYTES_MAX];
    size_t done = 0;
    size_t opened = 0;
    while (stream.byte_count - done >= RECORD_HEADER_BYTES) {
        struct record_header header;
        uint8_t *at = stream.bytes + done;
        if (record__header(at, &header) != 0)
            break;
        ASSERT(header.plain_bytes <= RECORD_BYTES_MAX);
        size_t record_bytes = RECORD_HEADER_BYTES + header.plain_bytes + RECORD_TAG_BYTES;
        if (stream.byte_count - done < record_bytes)
            break;
        if (record__open(open, NOW, at, &header, apart ? text : at + RECORD_HEADER_BYTES) != 0) {
            ASSERT(done + record_bytes > stream.clean_bytes);
            return;
        }
        ASSERT(opened < stream.record_count);
        ASSERT(header.plain_bytes == stream.records[opened].plain_bytes);
        for (size_t i = 0; i < header.plain_bytes; i++)
            ASSERT((apart ? text : at + RECORD_HEADER_BYTES)[i] == stream.records[opened].fill);
        done += record_bytes;
        opened++;
        ASSERT(done <= stream.clean_bytes);
    }
    ASSERT(stream.clean_bytes < stream.sealed_bytes || opened == stream.record_count);
}

/* Each side may have AES from another library. */
static enum aead_kind cipher_of(uint8_t how, int by_libgcrypt)
{
    if ((how & 1) == 0)
        return AEAD_CHACHA20_POLY1305;
    return by_libgcrypt != 0 ? AEAD_AES_256_GCM_LIBGCRYPT : AEAD_AES_256_GCM;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[RECORD_KEY_BYTES] = {1, 2, 3};
    struct script script = {data, size};
    struct record_key seal;
    struct record_key open;
    uint8_t how = script_byte(&script);
    int err = record__init(&seal, cipher_of(how, how & 4), key, true, NOW);
    ASSERT(err == 0);
    err = record__init(&open, cipher_of(how, how & 8), key, false, NOW);
    ASSERT(err == 0);
    memset(&stream, 0, sizeof stream);
    unsigned count = script_byte(&script) % 16;
    for (unsigned i = 0; i < count; i++)
        add_record(&seal, &script);
    change_stream(&script);
    open_stream(&open, (how & 2) != 0);
    record__close(&seal);
    record__close(&open);
    return 0;
}
