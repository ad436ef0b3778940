/* SPDX-License-Identifier: Apache-2.0 */
/* ORG-2: the class of each special address, at both ends of its block, in every form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/registry/address.h"
#include "bytes.h"

static void ip_of(const char *text, uint8_t ip[16])
{
    struct peer_addr addr;

    assert_int_equal(peer_addr_parse(text, 1, &addr), 0);
    memcpy(ip, addr.ip, 16);
}

static enum address_class class_of(const char *text)
{
    uint8_t ip[16];

    ip_of(text, ip);
    return address__class(ip);
}

static void expect(enum address_class class, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (class_of(texts[i]) != class)
            fail_msg("%s", texts[i]);
}

#define EXPECT(class, list) expect((class), (list), sizeof(list) / sizeof(list)[0])

static void public_addresses(void **state)
{
    static const char *const list[] = {
        "1.0.0.0",          "9.255.255.255",        "11.0.0.0",
        "100.63.255.255",   "100.128.0.0",          "126.255.255.255",
        "128.0.0.0",        "169.253.255.255",      "169.255.0.0",
        "172.15.255.255",   "172.32.0.0",           "192.167.255.255",
        "192.169.0.0",      "223.255.255.255",      "198.17.255.255",
        "8.8.8.8",          "2001:4860:4860::8888", "2606:4700::1",
        "64:ff9b::808:808", "2002:808:808::1",      "2001:1::1"};

    (void)state;
    EXPECT(ADDRESS_PUBLIC, list);
}

static void private_addresses(void **state)
{
    static const char *const list[] = {"127.0.0.0",        "127.255.255.255", "10.0.0.0",
                                       "10.255.255.255",   "172.16.0.0",      "172.31.255.255",
                                       "192.168.0.0",      "192.168.255.255", "100.64.0.0",
                                       "100.127.255.255",  "100.100.100.199", "100.100.100.201",
                                       "198.18.0.1",       "192.0.0.1",       "::1",
                                       "fc00::",           "fdff:ffff::1",    "fec0::1",
                                       "::ffff:127.0.0.1", "::127.0.0.1",     "64:ff9b::7f00:1",
                                       "64:ff9b::a00:1",   "2002:7f00:1::",   "2002:a00:1::1",
                                       "64:ff9b:1::1"};

    (void)state;
    EXPECT(ADDRESS_PRIVATE, list);
}

static void metadata_addresses(void **state)
{
    static const char *const list[] = {
        "100.100.100.200", "::ffff:100.100.100.200", "64:ff9b::6464:64c8", "fd00:ec2::254",
        "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"};

    (void)state;
    EXPECT(ADDRESS_METADATA, list);
}

static void refused_addresses(void **state)
{
    static const char *const list[] = {"0.0.0.0",
                                       "0.255.255.255",
                                       "169.254.0.0",
                                       "169.254.169.253",
                                       "169.254.255.255",
                                       "224.0.0.0",
                                       "239.255.255.255",
                                       "240.0.0.0",
                                       "255.255.255.255",
                                       "::",
                                       "fe80::",
                                       "febf::1",
                                       "ff00::",
                                       "ff02::1",
                                       "::ffff:169.254.169.255",
                                       "::ffff:0.0.0.0",
                                       "::169.254.1.1",
                                       "64:ff9b::a9fe:a9ff",
                                       "2002:a9fe:a901::",
                                       "2002:e000:1::",
                                       "2001::1"};

    (void)state;
    EXPECT(ADDRESS_REFUSED, list);
}

/* What an entry may list, and `true` of it: every private block is a network, loopback is not. */
static void ranges_hold_what_is_listed_org_2(void **state)
{
    static const char *const networks[] = {"10.1.2.3",   "172.31.0.1", "192.168.1.1",
                                           "100.64.0.1", "192.0.0.1",  "198.19.0.1",
                                           "fd12::1",    "fec0::1",    "64:ff9b:1::1"};
    static const char *const loopback[] = {"127.0.0.1",        "127.255.255.255", "::1",
                                           "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"};
    static const char *const carried[] = {"10.9.0.1", "::ffff:10.9.0.1", "64:ff9b::a09:1",
                                          "2002:a09:1::", "::10.9.0.1"};
    struct address_ranges network, all, listed = {.count = 0};
    uint8_t ip[16];

    (void)state;
    address_ranges_private(&network, false);
    address_ranges_private(&all, true);
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
        ip_of(networks[i], ip);
        assert_true(address_ranges_hold(&network, ip));
        assert_false(address_ranges_hold(&listed, ip));
    }
    for (size_t i = 0; i < sizeof loopback / sizeof loopback[0]; i++) {
        ip_of(loopback[i], ip);
        assert_false(address_ranges_hold(&network, ip));
        assert_true(address_ranges_hold(&all, ip));
    }
    assert_int_equal(address_ranges_add(&listed, "10.9.0.0/24"), 0);
    for (size_t i = 0; i < sizeof carried / sizeof carried[0]; i++) {
        ip_of(carried[i], ip);
        assert_true(address_ranges_hold(&listed, ip));
    }
    ip_of("10.9.1.1", ip);
    assert_false(address_ranges_hold(&listed, ip));
    assert_false(address_ranges_equal(&network, &all));
    assert_true(address_ranges_equal(&all, &all));
}

static void ranges_are_bounded(void **state)
{
    struct address_ranges ranges = {.count = 0};

    (void)state;
    assert_int_equal(address_ranges_add(&ranges, "10.0.0.0"), E_MALFORMED);
    for (unsigned i = 0; i < ADDRESS_RANGES_MAX; i++)
        assert_int_equal(address_ranges_add(&ranges, "10.0.0.0/8"), 0);
    assert_int_equal(address_ranges_add(&ranges, "10.0.0.0/8"), E_FULL);
    assert_int_equal(ranges.count, ADDRESS_RANGES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_addresses),
        cmocka_unit_test(private_addresses),
        cmocka_unit_test(metadata_addresses),
        cmocka_unit_test(refused_addresses),
        cmocka_unit_test(ranges_hold_what_is_listed_org_2),
        cmocka_unit_test(ranges_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
