/* SPDX-License-Identifier: Apache-2.0 */
/* Hex, big-endian integers, checked sizes, bounded strings, the order of ids. Pure functions. The
 * addresses are in addr.c, the generator in prng.c. */
#include "bytes.h"

#include <string.h>

static const char hex_digits[] = "0123456789abcdef";

void hex_encode(const uint8_t *bytes, size_t byte_count, char *out)
{
    for (size_t i = 0; i < byte_count; i++) {
        out[2 * i] = hex_digits[bytes[i] >> 4];
        out[2 * i + 1] = hex_digits[bytes[i] & 15];
    }
    out[2 * byte_count] = '\0';
}

/* 0..15, or 16 for anything that is not a lower-case hex digit. */
static unsigned hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    return 16;
}

int hex_decode(const char *text, size_t text_bytes, uint8_t *out, size_t out_bytes)
{
    if (text_bytes % 2 != 0 || text_bytes / 2 != out_bytes)
        return E_MALFORMED;
    for (size_t i = 0; i < out_bytes; i++) {
        unsigned high = hex_value(text[2 * i]);
        unsigned low = hex_value(text[2 * i + 1]);
        if (high > 15 || low > 15)
            return E_MALFORMED;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

const char *short_hex(const uint8_t *bytes, char out[SHORT_HEX_BYTES])
{
    hex_encode(bytes, (SHORT_HEX_BYTES - 1) / 2, out);
    return out;
}

uint16_t load_be16(const uint8_t *in)
{
    return (uint16_t)(in[0] << 8 | in[1]);
}

void store_be16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
}

void store_be32(uint8_t *out, uint32_t value)
{
    store_be16(out, (uint16_t)(value >> 16));
    store_be16(out + 2, (uint16_t)value);
}

void store_be64(uint8_t *out, uint64_t value)
{
    store_be32(out, (uint32_t)(value >> 32));
    store_be32(out + 4, (uint32_t)value);
}

int size_add(size_t a, size_t b, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return E_TOO_LARGE;
    *out = sum;
    return 0;
}

int size_mul(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return E_TOO_LARGE;
    *out = product;
    return 0;
}

int text_copy(char *out, size_t out_bytes, const char *text)
{
    return text_copy_n(out, out_bytes, text, strlen(text));
}

int text_copy_n(char *out, size_t out_bytes, const char *text, size_t text_bytes)
{
    if (out_bytes == 0)
        return E_TOO_LARGE;
    out[0] = '\0';
    if (text_bytes >= out_bytes)
        return E_TOO_LARGE;
    if (text_bytes > 0 && memchr(text, '\0', text_bytes) != NULL)
        return E_MALFORMED;
    if (text_bytes > 0)
        memcpy(out, text, text_bytes);
    out[text_bytes] = '\0';
    return 0;
}

int node_id_compare(const struct node_id *a, const struct node_id *b)
{
    return memcmp(a->bytes, b->bytes, NODE_ID_BYTES);
}

bool blob_key_equal(const struct blob_key *a, const struct blob_key *b)
{
    return memcmp(a->bytes, b->bytes, BLOB_KEY_BYTES) == 0;
}

int xor_compare(const uint8_t target[32], const uint8_t a[32], const uint8_t b[32])
{
    /* Keeper placement compares thousands of members per blob: words, not bytes. */
    for (size_t i = 0; i < 32; i += 8) {
        uint64_t t = load_be64(target + i);
        uint64_t to_a = load_be64(a + i) ^ t;
        uint64_t to_b = load_be64(b + i) ^ t;
        if (to_a != to_b)
            return to_a < to_b ? -1 : 1;
    }
    return 0;
}

unsigned xor_common_bits(const uint8_t a[32], const uint8_t b[32])
{
    for (unsigned i = 0; i < 32; i += 8) {
        uint64_t difference = load_be64(a + i) ^ load_be64(b + i);
        if (difference != 0)
            return 8 * i + (unsigned)__builtin_clzll(difference);
    }
    return 256;
}

uint64_t id_hash(const uint8_t bytes[32])
{
    /* Ids are hash outputs already; folding keeps one attacker-chosen word from fixing the bucket.
     */
    uint64_t x = load_be64(bytes) ^ load_be64(bytes + 8) * 0x9e3779b97f4a7c15u;
    x ^= load_be64(bytes + 16) * 0xbf58476d1ce4e5b9u ^ load_be64(bytes + 24);
    x ^= x >> 31;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 29;
}
