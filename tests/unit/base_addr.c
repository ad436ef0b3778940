/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base/addr.c: text and parsing of peer addresses. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "bytes.h"

struct good_row {
    const char *text;
    const char *canonical;
    bool v4;
};

static const struct good_row good[] = {
    {"10.0.0.1", "10.0.0.1:65002", true},
    {"10.0.0.1:80", "10.0.0.1:80", true},
    {"255.255.255.255:65535", "255.255.255.255:65535", true},
    {"0.0.0.0:0", "0.0.0.0:0", true},
    {"::ffff:10.0.0.1", "10.0.0.1:65002", true},
    {"[::ffff:a00:1]:9", "10.0.0.1:9", true},
    {"::1", "[::1]:65002", false},
    {"[::1]", "[::1]:65002", false},
    {"[fd00::1]:65002", "[fd00::1]:65002", false},
    {"FD00:0:0::1", "[fd00::1]:65002", false},
    {"[fd00:1111:2222:3333:4444:5555:6666:7777]:65535",
     "[fd00:1111:2222:3333:4444:5555:6666:7777]:65535", false},
    {"::", "[::]:65002", false},
};

static const char *const bad[] = {
    "",
    "10.0.0",
    "10.0.0.1.2",
    "10.0.0.256",
    "10.0.0.01",
    "10.0.0.1:",
    "10.0.0.1:65536",
    "10.0.0.1:123456",
    "10.0.0.1:+80",
    "10.0.0.1:080",
    "10.0.0.1 ",
    "10.0.0.1:8 ",
    "host",
    "host:80",
    ":80",
    "[10.0.0.1]",
    "[::1",
    "[::1]80",
    "[::1]:",
    "[::1]x",
    "[]",
    "[::1]:80:90",
    "::1::2",
    "fe80::1%eth0",
    "[fe80::1%2]:80",
    "10.0.0.1:0x50",
    "1.2.3.4:5:",
    "[::1]:65536",
    ":",
    "[",
    "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc",
};

static void test_parses_and_writes_one_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct peer_addr addr, again;
        char text[PEER_ADDR_TEXT_BYTES];
        assert_int_equal(peer_addr_parse(good[i].text, 65002, &addr), 0);
        assert_string_equal(peer_addr_text(&addr, text), good[i].canonical);
        assert_int_equal(peer_addr_is_v4(&addr), good[i].v4);
        assert_int_equal(peer_addr_parse(text, 1, &again), 0);
        assert_true(peer_addr_equal(&addr, &again));
    }
}

static void test_refuses_everything_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct peer_addr addr, before;
        memset(&addr, 0x5a, sizeof addr);
        before = addr;
        if (peer_addr_parse(bad[i], 65002, &addr) != E_MALFORMED)
            fail_msg("accepted \"%s\"", bad[i]);
        assert_memory_equal(&addr, &before, sizeof addr);
    }
}

static void test_equality_takes_ip_and_port(void **state)
{
    (void)state;
    struct peer_addr a, b;
    assert_int_equal(peer_addr_parse("10.0.0.1:80", 1, &a), 0);
    assert_int_equal(peer_addr_parse("10.0.0.1:81", 1, &b), 0);
    assert_false(peer_addr_equal(&a, &b));
    assert_int_equal(peer_addr_parse("10.0.0.2:80", 1, &b), 0);
    assert_false(peer_addr_equal(&a, &b));
    assert_int_equal(peer_addr_parse("[::ffff:10.0.0.1]:80", 1, &b), 0);
    assert_true(peer_addr_equal(&a, &b));
}

static void test_blocks(void **state)
{
    (void)state;
    static const struct {
        const char *text, *in, *out;
    } rows[] = {
        {"10.0.0.0/8", "10.255.0.1", "11.0.0.0"},
        {"10.1.2.3/32", "10.1.2.3", "10.1.2.2"},
        {"172.16.0.0/12", "172.31.9.9", "172.32.0.0"},
        {"0.0.0.0/0", "9.9.9.9", "::1"},
        {"fc00::/7", "fd00::1", "fe00::1"},
        {"::/0", "10.0.0.1", NULL},
        {"2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct addr_block block;
        struct peer_addr addr;
        char text[PEER_ADDR_TEXT_BYTES];
        assert_int_equal(addr_block_parse(rows[i].text, strlen(rows[i].text), &block), 0);
        assert_string_equal(addr_block_text(&block, text), rows[i].text);
        assert_int_equal(peer_addr_parse(rows[i].in, 1, &addr), 0);
        assert_true(addr_block_holds(&block, addr.ip));
        if (rows[i].out == NULL)
            continue;
        assert_int_equal(peer_addr_parse(rows[i].out, 1, &addr), 0);
        assert_false(addr_block_holds(&block, addr.ip));
    }
}

static void test_blocks_refuse_everything_else(void **state)
{
    (void)state;
    static const char *const none[] = {"",
                                       "/",
                                       "10.0.0.0",
                                       "10.0.0.0/",
                                       "10.0.0.0/x",
                                       "10.0.0.0/33",
                                       "10.0.0.1/8",
                                       "10.0.0.0/-1",
                                       "fd00::/129",
                                       "fd00::1/64",
                                       "10.0.0.0:7/8",
                                       "host/8",
                                       "10.0.0.0/08x",
                                       "10.0.0.0/0008"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        struct addr_block kept, block;
        memset(&kept, 0x5a, sizeof kept);
        block = kept;
        if (addr_block_parse(none[i], strlen(none[i]), &block) != E_MALFORMED)
            fail_msg("accepted \"%s\"", none[i]);
        assert_memory_equal(&block, &kept, sizeof kept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parses_and_writes_one_form),
        cmocka_unit_test(test_refuses_everything_else),
        cmocka_unit_test(test_equality_takes_ip_and_port),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_blocks_refuse_everything_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
