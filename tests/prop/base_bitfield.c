/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on a bitfield against an array of bool. SEED=n replays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "piece_map.h"

#define BITS_MAX 300
#define ROUNDS   400
#define STEPS    300

static struct prng prng;

static void *plain_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static uint32_t below(uint32_t bound)
{
    return (uint32_t)prng_below(&prng, bound);
}

static uint32_t model_next(const bool *model, uint32_t count, uint32_t from, bool wanted)
{
    while (from < count && model[from] != wanted)
        from++;
    return from < count ? from : count;
}

static void merge_step(struct bitfield *field, bool *model)
{
    uint8_t bytes[8];
    uint32_t field_bytes = (field->bit_count + 7) / 8;
    uint32_t first_byte = below(field_bytes);
    uint32_t room = field_bytes - first_byte < 8 ? field_bytes - first_byte : 8;
    uint32_t count = below(room + 1);
    for (uint32_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(prng_next(&prng) & prng_next(&prng));
    assert_int_equal(bitfield_merge(field, 8 * first_byte, bytes, count), 0);
    for (uint32_t bit = 0; bit < 8 * count; bit++) {
        if (8 * first_byte + bit < field->bit_count && (bytes[bit / 8] >> (7 - bit % 8) & 1))
            model[8 * first_byte + bit] = true;
    }
}

static void check(const struct bitfield *field, const bool *model)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < field->bit_count; i++) {
        set += model[i];
        assert_int_equal(bitfield_get(field, i), model[i]);
    }
    assert_int_equal(field->set_count, set);
    assert_int_equal(bitfield_full(field), set == field->bit_count);
    uint32_t from = below(field->bit_count + 2);
    assert_int_equal(bitfield_next_set(field, from),
                     model_next(model, field->bit_count, from, true));
    assert_int_equal(bitfield_next_clear(field, from),
                     model_next(model, field->bit_count, from, false));
}

static void test_bitfield_is_an_array_of_bool(void **state)
{
    (void)state;
    struct env env = {.alloc = plain_alloc};
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool model[BITS_MAX] = {false};
        struct bitfield field;
        assert_int_equal(bitfield_init(&field, &env, 1 + below(BITS_MAX)), 0);
        for (unsigned step = 0; step < STEPS; step++) {
            uint32_t index = below(field.bit_count);
            uint32_t kind = below(8);
            if (kind == 0) {
                merge_step(&field, model);
            } else if (kind < 5) {
                assert_int_equal(bitfield_set(&field, index), !model[index]);
                model[index] = true;
            } else {
                assert_int_equal(bitfield_clear(&field, index), model[index]);
                model[index] = false;
            }
            if (step % 16 == 0)
                check(&field, model);
        }
        check(&field, model);
        bitfield_close(&field, &env);
    }
}

int main(void)
{
    const char *text = getenv("SEED");
    uint64_t seed = (uint64_t)getpid();
    if (text != NULL)
        seed = (uint64_t)strtoull(text, NULL, 10);
    printf("seed: %llu\n", (unsigned long long)seed);
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bitfield_is_an_array_of_bool)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
