/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles: the layout byte by byte, both ways, what finds no room, every refusal (PEER-10). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "../../src/daemon/bundle.h"

static const struct peer_addr somewhere = {.port = 65002};

static void one_message_is_sent_as_it_is(void **state)
{
    (void)state;
    struct bundle bundle;
    size_t bytes = 0;
    bundle_begin(&bundle, &somewhere);
    assert_int_equal(bundle.to.port, 65002);
    assert_true(bundle_add(&bundle, (const uint8_t *)"\x91\x10", 2));
    const uint8_t *out = bundle_bytes(&bundle, &bytes);
    assert_int_equal(bytes, 2);
    assert_memory_equal(out, "\x91\x10", 2);
}

static void the_layout_is_as_documented(void **state)
{
    (void)state;
    struct bundle bundle;
    size_t bytes = 0;
    bundle_begin(&bundle, &somewhere);
    assert_true(bundle_add(&bundle, (const uint8_t *)"\x91\x10", 2));
    assert_true(bundle_add(&bundle, (const uint8_t *)"\x91\x11\x05", 3));
    const uint8_t *out = bundle_bytes(&bundle, &bytes);
    assert_int_equal(bytes, 10);
    assert_memory_equal(out, "\xc1\x00\x02\x91\x10\x00\x03\x91\x11\x05", 10);
}

static void what_is_bundled_comes_out_in_order(void **state)
{
    (void)state;
    struct bundle bundle;
    uint8_t msg[97];
    const uint8_t *got = NULL;
    size_t bytes = 0, at = 0, got_bytes = 0;
    unsigned in = 0, out = 0;
    bundle_begin(&bundle, &somewhere);
    for (;; in++) {
        memset(msg, 0x80 + (int)in, sizeof msg);
        if (!bundle_add(&bundle, msg, 1 + in * 7 % sizeof msg))
            break;
    }
    assert_true(in > 10);
    const uint8_t *all = bundle_bytes(&bundle, &bytes);
    assert_true(bytes <= MESSAGE_BYTES_MAX);
    for (; bundle_next(all, bytes, &at, &got, &got_bytes) == 0; out++) {
        assert_int_equal(got_bytes, 1 + out * 7 % sizeof msg);
        assert_int_equal(got[0], 0x80 + out);
        assert_int_equal(got[got_bytes - 1], 0x80 + out);
    }
    assert_int_equal(out, in);
    assert_int_equal(bundle_next(all, bytes, &at, &got, &got_bytes), E_CLOSED);
}

static void what_finds_no_room_changes_nothing(void **state)
{
    (void)state;
    struct bundle bundle;
    static uint8_t longest[MESSAGE_BYTES_MAX];
    size_t bytes = 0;
    bundle_begin(&bundle, &somewhere);
    assert_false(bundle_add(&bundle, longest, sizeof longest));
    assert_int_equal(bundle.message_count, 0);
    assert_true(bundle_add(&bundle, longest, sizeof longest - 3));
    assert_false(bundle_add(&bundle, longest, 1));
    (void)bundle_bytes(&bundle, &bytes);
    assert_int_equal(bytes, sizeof longest - 3);
}

static void a_message_alone_is_read_as_one(void **state)
{
    (void)state;
    const uint8_t *got = NULL;
    size_t at = 0, got_bytes = 0;
    assert_int_equal(bundle_next((const uint8_t *)"\x91\x10\xc1", 3, &at, &got, &got_bytes), 0);
    assert_int_equal(got_bytes, 3);
    assert_int_equal(bundle_next((const uint8_t *)"\x91\x10\xc1", 3, &at, &got, &got_bytes),
                     E_CLOSED);
    at = 0;
    assert_int_equal(bundle_next(NULL, 0, &at, &got, &got_bytes), E_CLOSED);
}

static void every_broken_rest_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t byte_count;
        unsigned good;
    } cases[] = {
        {"\xc1", 1, 0},                             /* nothing in it */
        {"\xc1\x00", 2, 0},                         /* half a length */
        {"\xc1\x00\x01", 3, 0},                     /* no message */
        {"\xc1\x00\x00\x90", 4, 0},                 /* a message of nothing */
        {"\xc1\x00\x02\x90", 4, 0},                 /* longer than what is there */
        {"\xc1\xff\xff\x90\x90", 5, 0},             /* much longer */
        {"\xc1\x00\x01\x90\x00", 5, 1},             /* broken behind a good one */
        {"\xc1\x00\x01\x90\x00\x01\x91\x07", 8, 2}, /* a byte too many */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint8_t *got = NULL;
        size_t at = 0, got_bytes = 0;
        unsigned good = 0;
        int err;
        while ((err = bundle_next((const uint8_t *)cases[i].bytes, cases[i].byte_count, &at, &got,
                                  &got_bytes)) == 0)
            good++;
        assert_int_equal(err, E_MALFORMED);
        assert_int_equal(good, cases[i].good);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_message_is_sent_as_it_is),
        cmocka_unit_test(the_layout_is_as_documented),
        cmocka_unit_test(what_is_bundled_comes_out_in_order),
        cmocka_unit_test(what_finds_no_room_changes_nothing),
        cmocka_unit_test(a_message_alone_is_read_as_one),
        cmocka_unit_test(every_broken_rest_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
