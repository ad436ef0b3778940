/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peer addresses: one 16-byte form for both families (IPv4 as ::ffff:a.b.c.d, RFC 4291 §2.5.5.2),
 * and their text. inet_pton and inet_ntop are pure text functions: no socket, no resolver.
 */
#include "bytes.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool peer_addr_is_v4(const struct peer_addr *addr)
{
    return memcmp(addr->ip, v4_prefix, sizeof v4_prefix) == 0;
}

bool peer_addr_equal(const struct peer_addr *a, const struct peer_addr *b)
{
    return a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

const char *peer_addr_text(const struct peer_addr *addr, char out[PEER_ADDR_TEXT_BYTES])
{
    char ip[INET6_ADDRSTRLEN] = "?";
    bool v4 = peer_addr_is_v4(addr);
    /* Both calls can only fail for a short buffer or an unknown family: neither is possible. */
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? addr->ip + 12 : addr->ip, ip, sizeof ip);
    (void)snprintf(out, PEER_ADDR_TEXT_BYTES, v4 ? "%s:%u" : "[%s]:%u", ip, (unsigned)addr->port);
    return out;
}

/* Decimal 0..65535 without sign, space or leading zero, to the end of the text. */
static int parse_port(const char *text, uint16_t *out)
{
    unsigned value = 0;
    size_t digits = 0;
    for (; text[digits] != '\0'; digits++) {
        if (text[digits] < '0' || text[digits] > '9' || digits == 5)
            return E_MALFORMED;
        value = value * 10 + (unsigned)(text[digits] - '0');
    }
    if (digits == 0 || value > 65535 || (digits > 1 && text[0] == '0'))
        return E_MALFORMED;
    *out = (uint16_t)value;
    return 0;
}

static int parse_ip(const char *text, size_t text_bytes, int family, uint8_t out[16])
{
    char copy[INET6_ADDRSTRLEN];
    if (text_copy_n(copy, sizeof copy, text, text_bytes) != 0)
        return E_MALFORMED;
    if (family == AF_INET)
        memcpy(out, v4_prefix, sizeof v4_prefix);
    uint8_t *ip = family == AF_INET ? out + sizeof v4_prefix : out;
    return inet_pton(family, copy, ip) == 1 ? 0 : E_MALFORMED;
}

int peer_addr_parse(const char *text, uint16_t default_port, struct peer_addr *out)
{
    struct peer_addr addr = {.port = default_port};
    const char *colon = strchr(text, ':');
    const char *port = NULL;
    int err;
    if (text[0] == '[') {
        const char *bracket = strchr(text, ']');
        if (bracket == NULL || (bracket[1] != '\0' && bracket[1] != ':'))
            return E_MALFORMED;
        port = bracket[1] == ':' ? bracket + 2 : NULL;
        err = parse_ip(text + 1, (size_t)(bracket - text - 1), AF_INET6, addr.ip);
    } else if (colon != NULL && strchr(colon + 1, ':') != NULL) {
        err = parse_ip(text, strlen(text), AF_INET6, addr.ip);
    } else {
        port = colon != NULL ? colon + 1 : NULL;
        size_t ip_bytes = colon != NULL ? (size_t)(colon - text) : strlen(text);
        err = parse_ip(text, ip_bytes, AF_INET, addr.ip);
    }
    if (err == 0 && port != NULL)
        err = parse_port(port, &addr.port);
    if (err == 0)
        *out = addr;
    return err;
}

/* ---- blocks ---- */

/* Decimal of at most three digits; false if it is none or above `max`. */
static bool small_number(const char *text, size_t bytes, unsigned max, unsigned *out)
{
    unsigned value = 0;
    if (bytes == 0 || bytes > 3)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *out = value;
    return value <= max;
}

static bool bits_after_are_zero(const uint8_t ip[16], unsigned bits)
{
    for (unsigned bit = bits; bit < 128; bit++) {
        if ((ip[bit / 8] & (0x80u >> (bit % 8))) != 0)
            return false;
    }
    return true;
}

int addr_block_parse(const char *text, size_t text_bytes, struct addr_block *out)
{
    char address[64];
    struct peer_addr addr;
    unsigned bits = 0;
    const char *slash = memchr(text, '/', text_bytes);
    if (slash == NULL || text_copy_n(address, sizeof address, text, (size_t)(slash - text)) != 0 ||
        peer_addr_parse(address, 1, &addr) != 0 || addr.port != 1)
        return E_MALFORMED;
    unsigned first = peer_addr_is_v4(&addr) ? 96 : 0;
    if (!small_number(slash + 1, (size_t)(text + text_bytes - slash - 1), 128 - first, &bits) ||
        !bits_after_are_zero(addr.ip, first + bits))
        return E_MALFORMED;
    memcpy(out->ip, addr.ip, sizeof out->ip);
    out->bits = (uint8_t)(first + bits);
    return 0;
}

const char *addr_block_text(const struct addr_block *block, char out[PEER_ADDR_TEXT_BYTES])
{
    char ip[INET6_ADDRSTRLEN] = "?";
    bool v4 = block->bits >= 96 && memcmp(block->ip, v4_prefix, sizeof v4_prefix) == 0;
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? block->ip + 12 : block->ip, ip, sizeof ip);
    (void)snprintf(out, PEER_ADDR_TEXT_BYTES, "%s/%u", ip, block->bits - (v4 ? 96u : 0u));
    return out;
}

bool addr_block_holds(const struct addr_block *block, const uint8_t ip[16])
{
    size_t whole = block->bits / 8;
    unsigned rest = block->bits % 8;
    if (memcmp(block->ip, ip, whole) != 0)
        return false;
    return rest == 0 || ((block->ip[whole] ^ ip[whole]) & (0xffu << (8 - rest) & 0xffu)) == 0;
}
