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

static enum address_class class_of(const char *text)
{
    struct peer_addr addr;

    assert_int_equal(peer_addr_parse(text, 1, &addr), 0);
    return address__class(addr.ip);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_addresses),
        cmocka_unit_test(private_addresses),
        cmocka_unit_test(metadata_addresses),
        cmocka_unit_test(refused_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
