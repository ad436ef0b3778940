/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address classes (ORG-2) after the IANA special-purpose registries (RFC 6890 and successors).
 */
#include "address.h"

#include <string.h>

#include "bytes.h"
#include "log.h"

struct v4_block {
    uint32_t prefix;
    unsigned bits;
    enum address_class class;
};

/* First match wins. */
static const struct v4_block v4_blocks[] = {
    /* Alibaba Cloud's metadata service stands inside the shared range that ACR's internal endpoints
       use too, and hands out the node's role credentials (ACR §4.1). The other clouds' one is
       link-local. */
    {0x646464C8, 32, ADDRESS_METADATA}, /* 100.100.100.200 */
    {0xA9FEA9FE, 32, ADDRESS_METADATA}, /* 169.254.169.254 */
    {0x00000000, 8, ADDRESS_REFUSED},   /* "this network", unspecified */
    {0xA9FE0000, 16, ADDRESS_REFUSED},  /* 169.254.0.0/16 link-local */
    {0xE0000000, 4, ADDRESS_REFUSED},   /* 224.0.0.0/4 multicast */
    {0xF0000000, 4, ADDRESS_REFUSED},   /* 240.0.0.0/4 reserved, broadcast */
    {0x7F000000, 8, ADDRESS_PRIVATE},   /* 127.0.0.0/8 loopback */
    {0x0A000000, 8, ADDRESS_PRIVATE},   /* 10.0.0.0/8 */
    {0xAC100000, 12, ADDRESS_PRIVATE},  /* 172.16.0.0/12 */
    {0xC0A80000, 16, ADDRESS_PRIVATE},  /* 192.168.0.0/16 */
    {0x64400000, 10, ADDRESS_PRIVATE},  /* 100.64.0.0/10 shared address space */
    {0xC0000000, 24, ADDRESS_PRIVATE},  /* 192.0.0.0/24 protocol assignments */
    {0xC6120000, 15, ADDRESS_PRIVATE},  /* 198.18.0.0/15 benchmarking */
};

static enum address_class v4_class(uint32_t address)
{
    for (size_t i = 0; i < sizeof v4_blocks / sizeof v4_blocks[0]; i++) {
        const struct v4_block *block = &v4_blocks[i];
        uint32_t mask = ~(uint32_t)0 << (32 - block->bits);

        if ((address & mask) == block->prefix)
            return block->class;
    }
    return ADDRESS_PUBLIC;
}

static bool all_zero(const uint8_t *bytes, size_t byte_count)
{
    for (size_t i = 0; i < byte_count; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/* The IPv4 address that one of these forms carries, v4-mapped: mapped, NAT64 (RFC 6052), 6to4, and
 * the long deprecated compatible one. False: it carries none. */
static bool carried_v4(const uint8_t ip[16], uint8_t out[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    static const uint8_t loopback[16] = {[15] = 1};
    const uint8_t *v4 = ip + 12;

    if (ip[0] == 0x20 && ip[1] == 0x02)
        v4 = ip + 2;
    else if (memcmp(ip, mapped, sizeof mapped) != 0 && memcmp(ip, nat64, sizeof nat64) != 0 &&
             (!all_zero(ip, 12) || memcmp(ip, loopback, sizeof loopback) == 0))
        return false;
    memset(out, 0, 16);
    memcpy(out, mapped, sizeof mapped);
    memcpy(out + 12, v4, 4);
    return true;
}

enum address_class address__class(const uint8_t ip[16])
{
    static const uint8_t loopback[16] = {[15] = 1};
    static const uint8_t nat64_local[6] = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01};
    static const uint8_t aws_metadata[16] = {0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54};
    uint8_t v4[16];

    if (carried_v4(ip, v4))
        return v4_class(load_be32(v4 + 12));
    if (memcmp(ip, loopback, sizeof loopback) == 0)
        return ADDRESS_PRIVATE;
    if (ip[0] == 0x20 && ip[1] == 0x01 && ip[2] == 0 && ip[3] == 0)
        return ADDRESS_REFUSED; /* Teredo: the address inside is obfuscated */
    if (ip[0] == 0xff || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80))
        return ADDRESS_REFUSED; /* multicast, link-local */
    if (memcmp(ip, aws_metadata, sizeof aws_metadata) == 0)
        return ADDRESS_METADATA;
    if ((ip[0] & 0xfe) == 0xfc || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0xc0) ||
        memcmp(ip, nat64_local, sizeof nat64_local) == 0)
        return ADDRESS_PRIVATE; /* unique local, site-local, local NAT64 */
    return ADDRESS_PUBLIC;
}

/* ---- ranges ---- */

int address_ranges_add(struct address_ranges *ranges, const char *text)
{
    struct addr_block block;

    if (addr_block_parse(text, strlen(text), &block) != 0)
        return E_MALFORMED;
    if (ranges->count == ADDRESS_RANGES_MAX)
        return E_FULL;
    ranges->block[ranges->count++] = block;
    return 0;
}

void address_ranges_private(struct address_ranges *ranges, bool loopback)
{
    /* As in v4_blocks and address__class; loopback last. */
    static const char *const blocks[] = {"10.0.0.0/8",    "172.16.0.0/12", "192.168.0.0/16",
                                         "100.64.0.0/10", "192.0.0.0/24",  "198.18.0.0/15",
                                         "fc00::/7",      "fec0::/10",     "64:ff9b:1::/48",
                                         "127.0.0.0/8",   "::1/128"};
    size_t count = sizeof blocks / sizeof blocks[0] - (loopback ? 0 : 2);

    *ranges = (struct address_ranges){.count = 0};
    for (size_t i = 0; i < count; i++) {
        int err = address_ranges_add(ranges, blocks[i]);

        ASSERT(err == 0);
    }
}

bool address_ranges_hold(const struct address_ranges *ranges, const uint8_t ip[16])
{
    uint8_t v4[16];
    const uint8_t *judged = carried_v4(ip, v4) ? v4 : ip;

    for (unsigned i = 0; i < ranges->count; i++)
        if (addr_block_holds(&ranges->block[i], judged))
            return true;
    return false;
}

bool address_ranges_equal(const struct address_ranges *a, const struct address_ranges *b)
{
    return a->count == b->count && memcmp(a->block, b->block, a->count * sizeof a->block[0]) == 0;
}
