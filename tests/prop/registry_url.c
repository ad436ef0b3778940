/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs against random bytes and random mutations of good ones: what is accepted rebuilds to a text
 * that parses to the same parts (so libcurl sees what we judged, ORG-2), and a resolved Location is
 * always such a text. Addresses: every v4 address has one class in all its forms.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/registry/address.h"
#include "../../src/registry/url.h"
#include "bytes.h"

static uint64_t seed;
static struct prng prng;

static const char *const good[] = {
    "https://registry.test/v2/a/blobs/sha256:aa?x=y",
    "http://127.0.0.1:5000/",
    "https://[fd00::1]:443/a/../b",
    "//host/path",
    "../../x?y#z",
};

static size_t draw(char *text, size_t text_max)
{
    static const char alphabet[] = "htps:/?#[]@.%abcAZ019-_\\ \t\n\x7f\xff";
    const char *from = good[prng_below(&prng, sizeof good / sizeof good[0])];
    size_t bytes = strlen(from);
    unsigned edits = (unsigned)prng_below(&prng, 5);

    memcpy(text, from, bytes);
    for (unsigned i = 0; i < edits && bytes > 1 && bytes + 1 < text_max; i++) {
        size_t at = prng_below(&prng, bytes);

        if (prng_below(&prng, 3) == 0) {
            memmove(text + at, text + at + 1, bytes - at - 1);
            bytes--;
        } else {
            if (prng_below(&prng, 2) == 0)
                memmove(text + at + 1, text + at, bytes++ - at);
            text[at] = alphabet[prng_below(&prng, sizeof alphabet - 1)];
        }
    }
    text[bytes] = '\0';
    return bytes;
}

static void check_stable(const char *text, size_t bytes)
{
    char built[URL_BYTES_MAX + 8], again[URL_BYTES_MAX + 8];
    struct url_parts first, second;

    assert_int_equal(url__parse(text, bytes, &first), 0);
    assert_int_equal(url__build(&first, built, sizeof built), 0);
    assert_int_equal(url__parse(built, strlen(built), &second), 0);
    assert_true(url__same_origin(&first, &second));
    assert_int_equal(url__build(&second, again, sizeof again), 0);
    assert_string_equal(built, again);
    assert_null(strpbrk(built, " \t\r\n\\#"));
}

static void urls_are_stable(void **state)
{
    unsigned accepted = 0, resolved = 0;

    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        char text[256], out[URL_BYTES_MAX + 1];
        struct url_parts parts, base;
        size_t bytes = draw(text, sizeof text);

        if (url__parse(text, bytes, &parts) == 0) {
            accepted++;
            check_stable(text, bytes);
            assert_null(memchr(parts.host, '@', strlen(parts.host)));
        }
        assert_int_equal(url__parse(good[i % 3], strlen(good[i % 3]), &base), 0);
        if (url__resolve(&base, text, out, sizeof out) == 0) {
            resolved++;
            check_stable(out, strlen(out));
        }
    }
    assert_true(accepted > 10000 && resolved > 20000);
}

static void v4_forms_agree(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t v4 = (uint32_t)prng_next(&prng);
        uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff};
        uint8_t nat64[16] = {0x00, 0x64, 0xff, 0x9b};
        uint8_t sixtofour[16] = {0x20, 0x02};

        if (prng_below(&prng, 2) == 0) /* near the interesting blocks */
            v4 = (v4 & 0x00ffffff) |
                 (uint32_t)((uint8_t[]){0, 10, 100, 127, 169, 172, 192, 224})[prng_below(&prng, 8)]
                     << 24;
        store_be32(mapped + 12, v4);
        store_be32(nat64 + 12, v4);
        store_be32(sixtofour + 2, v4);
        assert_int_equal(address__class(mapped), address__class(nat64));
        assert_int_equal(address__class(mapped), address__class(sixtofour));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_stable),
        cmocka_unit_test(v4_forms_agree),
    };
    const char *text = getenv("SEED");

    seed = text != NULL ? strtoull(text, NULL, 10) : 7;
    printf("seed: %llu\n", (unsigned long long)seed);
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
