/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/wire/codec_*.c: the raw check (PEER-10), writer and reader, each against the other
 * and the writer also against msgpack-c's own unpacker. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bytes.h"
#include "topology.h"
#include "wire.h"

#define LITERAL(text) (const uint8_t *)(text), sizeof(text) - 1

struct check_row {
    const char *bytes;
    size_t byte_count;
    int expected;
};
#define ROW(text, err)                                                                             \
    {                                                                                              \
        text, sizeof(text) - 1, err                                                                \
    }

/* One row or more per format of the MessagePack specification. */
static const struct check_row check_rows[] = {
    ROW("\x00", 0),
    ROW("\x7f", 0),
    ROW("\xe0", 0),
    ROW("\xff", 0),
    ROW("\xc0", 0),
    ROW("\xc2", 0),
    ROW("\xc3", 0),
    ROW("\xc1", E_MALFORMED),
    ROW("", E_TRUNCATED),
    ROW("\x80", 0),
    ROW("\x81\x01\x02", 0),
    ROW("\x81\x01", E_TRUNCATED),
    ROW("\x90", 0),
    ROW("\x92\x01\x02", 0),
    ROW("\x92\x01", E_TRUNCATED),
    ROW("\xa0", 0),
    ROW("\xa2hi", 0),
    ROW("\xa2h", E_TRUNCATED),
    ROW("\xbf", E_TRUNCATED),
    ROW("\xc4\x00", 0),
    ROW("\xc4\x02hi", 0),
    ROW("\xc4\x02h", E_TRUNCATED),
    ROW("\xc4", E_TRUNCATED),
    ROW("\xc5\x00\x01x", 0),
    ROW("\xc5\x00", E_TRUNCATED),
    ROW("\xc6\x00\x00\x00\x01x", 0),
    ROW("\xc6\x00\x00\x00", E_TRUNCATED),
    ROW("\xc6\xff\xff\xff\xffx", E_TRUNCATED),
    ROW("\xc7\x00\x05", 0),
    ROW("\xc7\x01\x05x", 0),
    ROW("\xc7\x01\x05", E_TRUNCATED),
    ROW("\xc7\x00", E_TRUNCATED),
    ROW("\xc8\x00\x01\x05x", 0),
    ROW("\xc8\xff\xff\x05x", E_TRUNCATED),
    ROW("\xc9\x00\x00\x00\x01\x05x", 0),
    ROW("\xc9\xff\xff\xff\xff\x05x", E_TRUNCATED),
    ROW("\xca"
        "1234",
        0),
    ROW("\xca"
        "123",
        E_TRUNCATED),
    ROW("\xcb"
        "12345678",
        0),
    ROW("\xcb"
        "1234567",
        E_TRUNCATED),
    ROW("\xcc\x01", 0),
    ROW("\xcc", E_TRUNCATED),
    ROW("\xcd\x01\x02", 0),
    ROW("\xcd\x01", E_TRUNCATED),
    ROW("\xce"
        "1234",
        0),
    ROW("\xce"
        "123",
        E_TRUNCATED),
    ROW("\xcf"
        "12345678",
        0),
    ROW("\xcf"
        "1234567",
        E_TRUNCATED),
    ROW("\xd0\x01", 0),
    ROW("\xd0", E_TRUNCATED),
    ROW("\xd1\x01\x02", 0),
    ROW("\xd1\x01", E_TRUNCATED),
    ROW("\xd2"
        "1234",
        0),
    ROW("\xd2"
        "123",
        E_TRUNCATED),
    ROW("\xd3"
        "12345678",
        0),
    ROW("\xd3"
        "1234567",
        E_TRUNCATED),
    ROW("\xd4\x01x", 0),
    ROW("\xd4\x01", E_TRUNCATED),
    ROW("\xd5\x01xx", 0),
    ROW("\xd5\x01x", E_TRUNCATED),
    ROW("\xd6\x01"
        "1234",
        0),
    ROW("\xd6\x01"
        "123",
        E_TRUNCATED),
    ROW("\xd7\x01"
        "12345678",
        0),
    ROW("\xd7\x01"
        "1234567",
        E_TRUNCATED),
    ROW("\xd8\x01"
        "0123456789abcdef",
        0),
    ROW("\xd8\x01"
        "0123456789abcde",
        E_TRUNCATED),
    ROW("\xd9\x02hi", 0),
    ROW("\xd9\x03hi", E_TRUNCATED),
    ROW("\xda\x00\x02hi", 0),
    ROW("\xda\x00\x03hi", E_TRUNCATED),
    ROW("\xdb\x00\x00\x00\x02hi", 0),
    ROW("\xdb\xff\xff\xff\xffhi", E_TRUNCATED),
    ROW("\xdc\x00\x02\x01\x02", 0),
    ROW("\xdc\x00", E_TRUNCATED),
    ROW("\xdc\x00\x02\x01", E_TRUNCATED),
    ROW("\xdd\x00\x00\x00\x01\x01", 0),
    ROW("\xde\x00\x01\x01\x02", 0),
    ROW("\xde\x00\x01\x01", E_TRUNCATED),
    ROW("\xdf\x00\x00\x00\x01\x01\x02", 0),
    /* Five bytes that would make an unpacker reserve gigabytes. */
    ROW("\xdd\xff\xff\xff\xff", E_TOO_LARGE),
    ROW("\xdf\xff\xff\xff\xff", E_TOO_LARGE),
    ROW("\xdc\x04\x01", E_TOO_LARGE),
    ROW("\xde\x02\x01", E_TOO_LARGE),
    ROW("\xdc\x04\x00", E_TRUNCATED),
    /* Bytes behind the one value. */
    ROW("\x01\x02", E_MALFORMED),
    ROW("\x91\x01\xc0", E_MALFORMED),
    ROW("\x90\x90", E_MALFORMED),
    /* The error may be deep inside. */
    ROW("\x91\x92\x01\xc1", E_MALFORMED),
    ROW("\x92\x91\x91\x01\xa2h", E_TRUNCATED),
    ROW("\x91\xdd\x00\x00\x04\x01", E_TOO_LARGE),
    /* Depth: eight containers are allowed, nine are not. */
    ROW("\x91\x91\x91\x91\x91\x91\x91\x91\x01", 0),
    ROW("\x91\x91\x91\x91\x91\x91\x91\x90", 0),
    ROW("\x91\x91\x91\x91\x91\x91\x91\x91\x90", E_TOO_LARGE),
    ROW("\x91\x91\x91\x91\x91\x91\x91\x91\x91\x01", E_TOO_LARGE),
    ROW("\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x01",
        E_TOO_LARGE),
    ROW("\x93\x91\x01\x91\x02\x91\x91\x91\x91\x91\x91\x91\x03", 0),
};

static void test_check_of_every_format_peer10(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof check_rows / sizeof check_rows[0]; i++) {
        const struct check_row *row = &check_rows[i];
        int err = wire_check((const uint8_t *)row->bytes, row->byte_count);
        if (err != row->expected)
            fail_msg("row %zu (first byte %02x): %d, not %d", i, (unsigned)row->bytes[0] & 0xff,
                     err, row->expected);
    }
    assert_int_equal(wire_check(NULL, 0), E_TRUNCATED);
}

static void test_count_limit_is_exact_peer10(void **state)
{
    (void)state;
    uint8_t msg[3 + MESSAGE_COUNT_MAX + 1] = {0xdc};
    store_be16(msg + 1, MESSAGE_COUNT_MAX);
    assert_int_equal(wire_check(msg, 3 + MESSAGE_COUNT_MAX), 0);
    store_be16(msg + 1, MESSAGE_COUNT_MAX + 1);
    assert_int_equal(wire_check(msg, 3 + MESSAGE_COUNT_MAX + 1), E_TOO_LARGE);
}

static void test_type_is_read_without_the_rest(void **state)
{
    (void)state;
    unsigned type = 77;
    assert_int_equal(wire_type(LITERAL("\x92\x20"), &type), 0);
    assert_int_equal(type, 0x20);
    assert_int_equal(wire_type(LITERAL("\x91\xcc\xff"), &type), 0);
    assert_int_equal(type, 0xff);
    assert_int_equal(wire_type(LITERAL(""), &type), E_TRUNCATED);
    assert_int_equal(wire_type(LITERAL("\x91"), &type), E_TRUNCATED);
    assert_int_equal(wire_type(LITERAL("\x91\xcc"), &type), E_TRUNCATED);
    assert_int_equal(wire_type(LITERAL("\x90"), &type), E_MALFORMED);
    assert_int_equal(wire_type(LITERAL("\x01"), &type), E_MALFORMED);
    assert_int_equal(wire_type(LITERAL("\x91\xa1x"), &type), E_MALFORMED);
    assert_int_equal(wire_type(LITERAL("\x91\xff"), &type), E_MALFORMED);
    assert_int_equal(wire_type(LITERAL("\x91\xcd\x01\x00"), &type), E_MALFORMED);
    assert_int_equal(wire_type(LITERAL("\xc1"), &type), E_MALFORMED);
    assert_int_equal(type, 0xff);
}

static const uint64_t numbers[] = {
    0, 1, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1, UINT64_MAX};
#define NUMBER_COUNT (sizeof numbers / sizeof numbers[0])

static void test_scalars_round_trip(void **state)
{
    (void)state;
    struct wire_writer writer;
    struct wire_reader reader;
    uint8_t msg[256];
    size_t used = 0;
    unsigned type = 0;
    wire_writer_begin(&writer, msg, sizeof msg, 0x31, NUMBER_COUNT + 2);
    for (size_t i = 0; i < NUMBER_COUNT; i++)
        wire_put_uint(&writer, numbers[i]);
    wire_put_bool(&writer, true);
    wire_put_bool(&writer, false);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_reader_begin(&reader, msg, used, &type), 0);
    assert_int_equal(type, 0x31);
    assert_int_equal(wire_fields_left(&reader), NUMBER_COUNT + 2);
    for (size_t i = 0; i < NUMBER_COUNT; i++)
        assert_true(wire_get_uint(&reader, UINT64_MAX) == numbers[i]);
    assert_true(wire_get_bool(&reader));
    assert_false(wire_get_bool(&reader));
    assert_int_equal(wire_fields_left(&reader), 0);
    assert_int_equal(wire_reader_end(&reader), 0);
}

static void test_bytes_text_and_fixed_round_trip(void **state)
{
    (void)state;
    struct wire_writer writer;
    struct wire_reader reader;
    uint8_t msg[1024], fixed[4] = {0}, big[300];
    char text[64];
    size_t used = 0, count = 9;
    unsigned type;
    memset(big, 0x5a, sizeof big);
    wire_writer_begin(&writer, msg, sizeof msg, 1, 6);
    wire_put_bytes(&writer, "\x00\x01\x02\x03", 4);
    wire_put_bytes(&writer, NULL, 0);
    wire_put_bytes(&writer, big, sizeof big);
    wire_put_text(&writer, "");
    wire_put_text(&writer, "cn-hangzhou-b");
    wire_put_text(&writer, "a text of more than thirty-one bytes, \xc3\xa9");
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_reader_begin(&reader, msg, used, &type), 0);
    wire_get_fixed(&reader, fixed, sizeof fixed);
    assert_memory_equal(fixed, "\x00\x01\x02\x03", 4);
    assert_non_null(wire_get_bytes(&reader, 0, &count));
    assert_int_equal(count, 0);
    const uint8_t *bytes = wire_get_bytes(&reader, sizeof big, &count);
    assert_int_equal(count, sizeof big);
    assert_memory_equal(bytes, big, sizeof big);
    assert_true(bytes > msg && bytes < msg + used); /* borrowed */
    wire_get_text(&reader, text, sizeof text);
    assert_string_equal(text, "");
    wire_get_text(&reader, text, sizeof "cn-hangzhou-b");
    assert_string_equal(text, "cn-hangzhou-b");
    wire_get_text(&reader, text, sizeof text);
    assert_string_equal(text, "a text of more than thirty-one bytes, \xc3\xa9");
    assert_int_equal(wire_reader_end(&reader), 0);
}

static void test_address_round_trips_in_one_form(void **state)
{
    (void)state;
    static const char *const texts[] = {"10.1.2.3:65002", "[fd00::7]:1", "0.0.0.0:0", "[::]:65535"};
    for (size_t i = 0; i < 4; i++) {
        struct wire_writer writer;
        struct wire_reader reader;
        struct peer_addr addr, back;
        uint8_t msg[64];
        size_t used = 0;
        unsigned type;
        assert_int_equal(peer_addr_parse(texts[i], 9, &addr), 0);
        wire_writer_begin(&writer, msg, sizeof msg, 1, 1);
        wire_put_addr(&writer, &addr);
        assert_int_equal(wire_writer_end(&writer, &used), 0);
        assert_int_equal(used, (peer_addr_is_v4(&addr) ? 6u : 18u) + 4);
        assert_int_equal(wire_reader_begin(&reader, msg, used, &type), 0);
        wire_get_addr(&reader, &back);
        assert_int_equal(wire_reader_end(&reader), 0);
        assert_true(peer_addr_equal(&addr, &back));
    }
}

static void test_topology_round_trips(void **state)
{
    (void)state;
    struct wire_writer writer;
    struct wire_reader reader;
    struct topology topology, back;
    uint8_t msg[256];
    size_t used = 0;
    unsigned type;
    assert_int_equal(label_set(&topology.region, "cn-hangzhou", 11), 0);
    assert_int_equal(label_set(&topology.zone, "cn-hangzhou-b", 13), 0);
    assert_int_equal(label_set(&topology.vswitch, "", 0), 0);
    wire_writer_begin(&writer, msg, sizeof msg, 1, 2);
    wire_put_topology(&writer, &topology);
    wire_put_uint(&writer, 5);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_reader_begin(&reader, msg, used, &type), 0);
    wire_get_topology(&reader, &back);
    assert_memory_equal(&topology, &back, sizeof topology);
    assert_int_equal(wire_get_uint(&reader, 9), 5);
    assert_int_equal(wire_reader_end(&reader), 0);
}

/* What a reader makes of a message of one field. */
static int read_one(const uint8_t *msg, size_t msg_bytes, void (*get)(struct wire_reader *))
{
    struct wire_reader reader;
    unsigned type;
    int err = wire_reader_begin(&reader, msg, msg_bytes, &type);
    assert_int_equal(err, 0);
    get(&reader);
    return wire_reader_end(&reader);
}

static void get_uint9(struct wire_reader *reader)
{
    assert_true(wire_get_uint(reader, 9) <= 9);
}

static void get_bool(struct wire_reader *reader)
{
    (void)wire_get_bool(reader);
}

static void get_bytes2(struct wire_reader *reader)
{
    size_t count = 7;
    const uint8_t *bytes = wire_get_bytes(reader, 2, &count);
    assert_true(count <= 2);
    assert_int_equal(bytes == NULL, wire_reader_end(reader) != 0);
}

static void get_fixed2(struct wire_reader *reader)
{
    uint8_t out[2] = {0xee, 0xee};
    wire_get_fixed(reader, out, sizeof out);
    if (wire_reader_end(reader) != 0)
        assert_memory_equal(out, "\0\0", 2);
}

static void get_text2(struct wire_reader *reader)
{
    char out[3] = "zz";
    wire_get_text(reader, out, sizeof out);
    if (wire_reader_end(reader) != 0)
        assert_string_equal(out, "");
}

static void get_array2(struct wire_reader *reader)
{
    assert_true(wire_get_array(reader, 2) <= 2);
}

static void get_addr(struct wire_reader *reader)
{
    struct peer_addr addr, zero = {.port = 0};
    memset(&addr, 0xee, sizeof addr);
    wire_get_addr(reader, &addr);
    if (wire_reader_end(reader) != 0)
        assert_memory_equal(&addr, &zero, sizeof addr);
}

static void get_topology(struct wire_reader *reader)
{
    struct topology topology;
    memset(&topology, 'x', sizeof topology);
    wire_get_topology(reader, &topology);
    if (wire_reader_end(reader) != 0)
        assert_string_equal(topology.vswitch.text, "");
}

struct read_row {
    void (*get)(struct wire_reader *reader);
    const char *bytes;
    size_t byte_count;
    int expected;
};
#define READ(get, text, err)                                                                       \
    {                                                                                              \
        get, text, sizeof(text) - 1, err                                                           \
    }
#define TEN "0123456789"

static const struct read_row read_rows[] = {
    READ(get_uint9, "\x92\x01\x09", 0),
    READ(get_uint9, "\x92\x01\xcc\x09", 0),
    READ(get_uint9, "\x92\x01\x0a", E_TOO_LARGE),
    READ(get_uint9, "\x92\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff", E_TOO_LARGE),
    READ(get_uint9, "\x92\x01\xff", E_MALFORMED),
    READ(get_uint9, "\x92\x01\xd0\x01", E_MALFORMED),
    READ(get_uint9, "\x92\x01\xc3", E_MALFORMED),
    READ(get_uint9, "\x92\x01\xc0", E_MALFORMED),
    READ(get_uint9,
         "\x92\x01\xca"
         "1234",
         E_MALFORMED),
    READ(get_uint9,
         "\x92\x01\xa1"
         "1",
         E_MALFORMED),
    READ(get_uint9, "\x91\x01", E_TRUNCATED),
    READ(get_uint9, "\x92\x01\x91\x01", E_MALFORMED),
    READ(get_bool, "\x92\x01\xc2", 0),
    READ(get_bool, "\x92\x01\x01", E_MALFORMED),
    READ(get_bool, "\x91\x01", E_TRUNCATED),
    READ(get_bytes2, "\x92\x01\xc4\x02hi", 0),
    READ(get_bytes2, "\x92\x01\xc4\x00", 0),
    READ(get_bytes2, "\x92\x01\xc4\x03hi!", E_TOO_LARGE),
    READ(get_bytes2, "\x92\x01\xa2hi", E_MALFORMED),
    READ(get_bytes2, "\x91\x01", E_TRUNCATED),
    READ(get_fixed2, "\x92\x01\xc4\x02hi", 0),
    READ(get_fixed2, "\x92\x01\xc4\x01h", E_MALFORMED),
    READ(get_fixed2, "\x92\x01\xc4\x03hi!", E_MALFORMED),
    READ(get_fixed2, "\x92\x01\xa2hi", E_MALFORMED),
    READ(get_fixed2, "\x91\x01", E_TRUNCATED),
    READ(get_text2, "\x92\x01\xa2hi", 0),
    READ(get_text2, "\x92\x01\xa0", 0),
    READ(get_text2, "\x92\x01\xa3hi!", E_TOO_LARGE),
    READ(get_text2, "\x92\x01\xc4\x02hi", E_MALFORMED),
    READ(get_text2, "\x92\x01\xa2h\0", E_MALFORMED),
    READ(get_text2, "\x92\x01\xa2\nh", E_MALFORMED),
    READ(get_text2, "\x92\x01\xa1\x7f", E_MALFORMED),
    READ(get_text2, "\x91\x01", E_TRUNCATED),
    READ(get_array2, "\x92\x01\x92\x01\x02", 0),
    READ(get_array2, "\x92\x01\x90", 0),
    READ(get_array2, "\x92\x01\x93\x01\x02\x03", E_TOO_LARGE),
    READ(get_array2, "\x92\x01\x81\x01\x02", E_MALFORMED),
    READ(get_array2, "\x92\x01\x02", E_MALFORMED),
    READ(get_array2, "\x91\x01", E_TRUNCATED),
    READ(get_addr,
         "\x92\x01\xc4\x06"
         "123456",
         0),
    READ(get_addr, "\x92\x01\xc4\x12" TEN "12345678", 0),
    READ(get_addr,
         "\x92\x01\xc4\x05"
         "12345",
         E_MALFORMED),
    READ(get_addr,
         "\x92\x01\xc4\x07"
         "1234567",
         E_MALFORMED),
    READ(get_addr, "\x92\x01\xc4\x13" TEN "123456789", E_TOO_LARGE),
    READ(get_addr,
         "\x92\x01\xc4\x12\0\0\0\0\0\0\0\0\0\0\xff\xff"
         "123456",
         E_MALFORMED),
    READ(get_addr, "\x92\x01\xc0", E_MALFORMED),
    READ(get_topology, "\x92\x01\x93\xa1r\xa1z\xa1v", 0),
    READ(get_topology, "\x92\x01\x93\xa0\xa0\xa0", 0),
    READ(get_topology, "\x92\x01\x95\xa1r\xa1z\xa1v\xa1n\x91\x01", 0), /* labels to come */
    READ(get_topology, "\x92\x01\x92\xa1r\xa1z", E_MALFORMED),
    READ(get_topology, "\x92\x01\x90", E_MALFORMED),
    READ(get_topology, "\x92\x01\x93\xa1r\xa1z\xa1 ", E_MALFORMED),
    READ(get_topology, "\x92\x01\x93\xa1r\xa1z\x01", E_MALFORMED),
    READ(get_topology, "\x92\x01\x93\xa1\n\xa1z\xa1v", E_MALFORMED),
    READ(get_topology, "\x92\x01\x93\xd9\x40" TEN TEN TEN TEN TEN TEN "1234\xa0\xa0", E_TOO_LARGE),
    READ(get_topology, "\x91\x01", E_TRUNCATED),
};

static void test_reader_refuses_what_a_field_must_not_be(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof read_rows / sizeof read_rows[0]; i++) {
        const struct read_row *row = &read_rows[i];
        int err = read_one((const uint8_t *)row->bytes, row->byte_count, row->get);
        if (err != row->expected)
            fail_msg("row %zu: %d, not %d", i, err, row->expected);
    }
}

static void test_reader_begin_passes_on_the_check(void **state)
{
    (void)state;
    struct wire_reader reader;
    unsigned type = 5;
    assert_int_equal(wire_reader_begin(&reader, LITERAL(""), &type), E_TRUNCATED);
    assert_int_equal(wire_reader_begin(&reader, LITERAL("\x92\x01"), &type), E_TRUNCATED);
    assert_int_equal(wire_reader_begin(&reader, LITERAL("\x91\x01\x01"), &type), E_MALFORMED);
    assert_int_equal(wire_reader_begin(&reader, LITERAL("\x90"), &type), E_MALFORMED);
    assert_int_equal(wire_reader_begin(&reader, LITERAL("\xdd\xff\xff\xff\xff"), &type),
                     E_TOO_LARGE);
    assert_int_equal(type, 5);
    /* Reading on after a refusal gives nothing, and the first error stays. */
    assert_int_equal(wire_get_uint(&reader, 9), 0);
    assert_false(wire_get_bool(&reader));
    wire_skip(&reader);
    assert_int_equal(wire_fields_left(&reader), 0);
    assert_int_equal(wire_reader_end(&reader), E_TOO_LARGE);
}

static void test_first_error_sticks(void **state)
{
    (void)state;
    struct wire_reader reader;
    unsigned type;
    assert_int_equal(wire_reader_begin(&reader, LITERAL("\x94\x01\x0a\xa1x\x05"), &type), 0);
    (void)wire_get_uint(&reader, 9); /* too large */
    (void)wire_get_bool(&reader);    /* would be malformed */
    assert_int_equal(wire_get_uint(&reader, 9), 0);
    assert_int_equal(wire_reader_end(&reader), E_TOO_LARGE);
}

static void test_newer_fields_are_skipped_c3(void **state)
{
    (void)state;
    struct wire_reader reader;
    unsigned type;
    /* [1, 7, {1: [2, "x"]}, ext, -1, 8] read by a node that knows only the first field. */
    assert_int_equal(
        wire_reader_begin(&reader, LITERAL("\x96\x01\x07\x81\x01\x92\x02\xa1x\xd4\x09z\xff\x08"),
                          &type),
        0);
    assert_int_equal(wire_get_uint(&reader, 9), 7);
    assert_int_equal(wire_fields_left(&reader), 4);
    assert_int_equal(wire_reader_end(&reader), 0); /* left over is fine */
    wire_skip(&reader);
    wire_skip(&reader);
    wire_skip(&reader);
    assert_int_equal(wire_get_uint(&reader, 9), 8);
    assert_int_equal(wire_fields_left(&reader), 0);
    assert_int_equal(wire_reader_end(&reader), 0);
    wire_skip(&reader);
    assert_int_equal(wire_reader_end(&reader), E_TRUNCATED);
}

static void test_nested_arrays_keep_the_count_of_fields(void **state)
{
    (void)state;
    struct wire_writer writer;
    struct wire_reader reader;
    uint8_t msg[64];
    size_t used = 0;
    unsigned type;
    wire_writer_begin(&writer, msg, sizeof msg, 2, 3);
    wire_put_array(&writer, 2); /* [[1, []], [2, [3]]], 9, [] */
    wire_put_array(&writer, 2);
    wire_put_uint(&writer, 1);
    wire_put_array(&writer, 0);
    wire_put_array(&writer, 2);
    wire_put_uint(&writer, 2);
    wire_put_array(&writer, 1);
    wire_put_uint(&writer, 3);
    wire_put_uint(&writer, 9);
    wire_put_array(&writer, 0);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_reader_begin(&reader, msg, used, &type), 0);
    assert_int_equal(wire_get_array(&reader, 8), 2);
    assert_int_equal(wire_fields_left(&reader), 2);
    assert_int_equal(wire_get_array(&reader, 8), 2);
    assert_int_equal(wire_get_uint(&reader, 9), 1);
    assert_int_equal(wire_get_array(&reader, 8), 0);
    wire_skip(&reader); /* the whole second record */
    assert_int_equal(wire_fields_left(&reader), 2);
    assert_int_equal(wire_get_uint(&reader, 9), 9);
    assert_int_equal(wire_get_array(&reader, 8), 0);
    assert_int_equal(wire_fields_left(&reader), 0);
    assert_int_equal(wire_reader_end(&reader), 0);
}

static void test_deepest_allowed_message_is_read(void **state)
{
    (void)state;
    struct wire_reader reader;
    unsigned type;
    assert_int_equal(
        wire_reader_begin(&reader, LITERAL("\x92\x01\x91\x91\x91\x91\x91\x91\x91\x05"), &type), 0);
    for (unsigned depth = 1; depth < MESSAGE_DEPTH_MAX; depth++)
        assert_int_equal(wire_get_array(&reader, 1), 1);
    assert_int_equal(wire_get_uint(&reader, 9), 5);
    assert_int_equal(wire_reader_end(&reader), 0);
}

static void test_full_buffer_is_too_large(void **state)
{
    (void)state;
    uint8_t msg[64];
    memset(msg, 0xee, sizeof msg);
    for (size_t capacity = 0; capacity < 40; capacity++) {
        struct wire_writer writer;
        size_t used = 999;
        wire_writer_begin(&writer, msg, capacity, 1, 3);
        wire_put_text(&writer, "twenty bytes of text");
        wire_put_bytes(&writer, "12345678", 8);
        wire_put_uint(&writer, 300);
        int err = wire_writer_end(&writer, &used);
        assert_int_equal(err, capacity < 36 ? E_TOO_LARGE : 0);
        assert_int_equal(used, capacity < 36 ? 999 : 36);
        assert_int_equal(msg[capacity < 36 ? capacity : 36], 0xee); /* nothing behind the end */
        memset(msg, 0xee, sizeof msg);
    }
}

/* Cost of a typical small message: two ids, an address, some numbers (a figure, and a bound loose
 * enough for sanitizers). */
static void test_small_message_is_cheap(void **state)
{
    (void)state;
    enum { ROUNDS = 20000 };
    uint8_t msg[256], id[32] = {1};
    struct peer_addr addr;
    size_t used = 0;
    struct timespec start, middle, end;
    assert_int_equal(peer_addr_parse("10.0.0.1:65002", 1, &addr), 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct wire_writer writer;
        wire_writer_begin(&writer, msg, sizeof msg, 0x21, 6);
        wire_put_bytes(&writer, id, sizeof id);
        wire_put_bytes(&writer, id, sizeof id);
        wire_put_addr(&writer, &addr);
        wire_put_uint(&writer, i);
        wire_put_uint(&writer, UINT64_MAX);
        wire_put_bool(&writer, true);
        assert_int_equal(wire_writer_end(&writer, &used), 0);
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &middle);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct wire_reader reader;
        struct peer_addr back;
        unsigned type;
        int err = wire_reader_begin(&reader, msg, used, &type);
        wire_get_fixed(&reader, id, sizeof id);
        wire_get_fixed(&reader, id, sizeof id);
        wire_get_addr(&reader, &back);
        (void)wire_get_uint(&reader, UINT64_MAX);
        (void)wire_get_uint(&reader, UINT64_MAX);
        (void)wire_get_bool(&reader);
        assert_int_equal(err | wire_reader_end(&reader), 0);
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    double write_ns =
        ((double)(middle.tv_sec - start.tv_sec) * 1e9 + (double)(middle.tv_nsec - start.tv_nsec)) /
        ROUNDS;
    double read_ns =
        ((double)(end.tv_sec - middle.tv_sec) * 1e9 + (double)(end.tv_nsec - middle.tv_nsec)) /
        ROUNDS;
    printf("figure: small message written in %.0f ns, checked and read in %.0f ns\n", write_ns,
           read_ns);
    assert_true(read_ns < 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_of_every_format_peer10),
        cmocka_unit_test(test_count_limit_is_exact_peer10),
        cmocka_unit_test(test_type_is_read_without_the_rest),
        cmocka_unit_test(test_scalars_round_trip),
        cmocka_unit_test(test_bytes_text_and_fixed_round_trip),
        cmocka_unit_test(test_address_round_trips_in_one_form),
        cmocka_unit_test(test_topology_round_trips),
        cmocka_unit_test(test_reader_refuses_what_a_field_must_not_be),
        cmocka_unit_test(test_reader_begin_passes_on_the_check),
        cmocka_unit_test(test_first_error_sticks),
        cmocka_unit_test(test_newer_fields_are_skipped_c3),
        cmocka_unit_test(test_nested_arrays_keep_the_count_of_fields),
        cmocka_unit_test(test_deepest_allowed_message_is_read),
        cmocka_unit_test(test_full_buffer_is_too_large),
        cmocka_unit_test(test_small_message_is_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
