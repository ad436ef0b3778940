/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens in memory: their life, renewal before its end, refusals, bounds (ORG-7, O-2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/registry/json_bounded.h"
#include "../../src/registry/tokens.h"
#include "registry_fake.h"

#define S 1000000ull

static struct fake fake;

static int set_up(void **state)
{
    struct tokens *tokens;

    fake_init(&fake, 3);
    assert_int_equal(tokens_new(&fake.env, &tokens), 0);
    *state = tokens;
    return 0;
}

static int tear_down(void **state)
{
    tokens_free(*state);
    assert_int_equal(fake.allocations, 0);
    return 0;
}

static const uint8_t *key(unsigned i)
{
    static uint8_t bytes[32];

    memcpy(bytes, &i, sizeof i);
    return bytes;
}

static enum token_state state_at(struct tokens *tokens, uint64_t now_us, unsigned i)
{
    const char *value = NULL;
    enum token_state state = tokens_get(tokens, now_us, key(i), &value);

    assert_int_equal(state == TOKEN_GOOD || state == TOKEN_AGING, value != NULL);
    return state;
}

/* HRD-4: what jansson copied of a reply is wiped, whether or not a login was read as JSON before.
 */
static void what_a_reply_left_is_wiped(void **state)
{
    json_free_t release = NULL;

    (void)state;
    json_get_alloc_funcs(NULL, &release);
    assert_true(release != free);
}

static void a_token_ages_and_ends_before_its_time(void **state)
{
    struct tokens *tokens = *state;
    const char *value;

    assert_int_equal(state_at(tokens, 1 * S, 1), TOKEN_NONE);
    tokens_put(tokens, 1 * S, key(1), "one", 300);
    assert_int_equal(tokens_get(tokens, 2 * S, key(1), &value), TOKEN_GOOD);
    assert_string_equal(value, "one");
    assert_int_equal(state_at(tokens, 225 * S, 1), TOKEN_GOOD);
    assert_int_equal(state_at(tokens, 226 * S, 1), TOKEN_AGING);
    assert_int_equal(state_at(tokens, 290 * S, 1), TOKEN_AGING);
    assert_int_equal(state_at(tokens, 291 * S, 1), TOKEN_NONE);
    assert_int_equal(state_at(tokens, 2 * S, 2), TOKEN_NONE);
}

static void lives_are_bounded(void **state)
{
    struct tokens *tokens = *state;

    tokens_put(tokens, 0, key(1), "x", 0); /* the service says nothing: a minute */
    assert_int_equal(state_at(tokens, 53 * S, 1), TOKEN_AGING);
    assert_int_equal(state_at(tokens, 54 * S, 1), TOKEN_NONE);
    tokens_put(tokens, 0, key(1), "x", 1);
    assert_int_equal(state_at(tokens, 8 * S, 1), TOKEN_AGING);
    assert_int_equal(state_at(tokens, 9 * S, 1), TOKEN_NONE);
    tokens_put(tokens, 0, key(1), "x", UINT64_MAX);
    assert_int_equal(state_at(tokens, (24ull * 3600 - 10) * S, 1), TOKEN_NONE);
}

static void refusals_are_short_o_2(void **state)
{
    struct tokens *tokens = *state;

    tokens_refuse(tokens, 1 * S, key(1));
    assert_int_equal(state_at(tokens, 1 * S, 1), TOKEN_REFUSED);
    assert_int_equal(state_at(tokens, 6 * S - 1, 1), TOKEN_REFUSED);
    assert_int_equal(state_at(tokens, 6 * S, 1), TOKEN_NONE);
    tokens_refuse(tokens, 1 * S, key(1));
    tokens_put(tokens, 2 * S, key(1), "x", 60);
    assert_int_equal(state_at(tokens, 2 * S, 1), TOKEN_GOOD);
    tokens_refuse(tokens, 50 * S, key(1)); /* a renewal failed: the old one still lives */
    assert_int_equal(state_at(tokens, 50 * S, 1), TOKEN_AGING);
    tokens_drop(tokens, key(1));
    tokens_drop(tokens, key(1));
    assert_int_equal(state_at(tokens, 50 * S, 1), TOKEN_NONE);
}

static void the_longest_unused_makes_room(void **state)
{
    struct tokens *tokens = *state;

    for (unsigned i = 0; i < TOKENS_MAX; i++)
        tokens_put(tokens, 0, key(i), "x", 60);
    assert_int_equal(state_at(tokens, 1, 0), TOKEN_GOOD);
    tokens_put(tokens, 0, key(TOKENS_MAX), "x", 60);
    assert_int_equal(state_at(tokens, 1, 0), TOKEN_GOOD);
    assert_int_equal(state_at(tokens, 1, 1), TOKEN_NONE);
    assert_int_equal(state_at(tokens, 1, TOKENS_MAX), TOKEN_GOOD);
}

static void without_memory_nothing_is_kept(void **state)
{
    struct tokens *tokens = *state;

    fake.alloc_fail_at = fake.alloc_count + 1;
    tokens_put(tokens, 0, key(1), "x", 60);
    assert_int_equal(state_at(tokens, 1, 1), TOKEN_NONE);
}

static int parse(const char *json, char *out, uint64_t *life_s)
{
    return token_reply_parse(json, strlen(json), out, life_s);
}

static void replies(void **state)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"token\":3}",
                                      "{\"token\":\"\"}",
                                      "{\"token\":\"a b\"}",
                                      "{\"token\":\"a\\r\\nb\"}",
                                      "{\"token\":\"\\u00e9\"}",
                                      "{\"token\":\"a\",\"token\":\"b\"}",
                                      "{\"token\":\"a\""};
    static char big[TOKEN_REPLY_BYTES_MAX + 2], out[TOKEN_BYTES_MAX + 1];
    uint64_t life_s = 7;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(token_reply_parse(bad[i], strlen(bad[i]), out, &life_s), E_MALFORMED);
    assert_int_equal(parse("{\"access_token\":\"b\",\"expires_in\":300}", out, &life_s), 0);
    assert_string_equal(out, "b");
    assert_int_equal(life_s, 300);
    assert_int_equal(parse("{\"token\":\"a\",\"access_token\":\"b\"}", out, &life_s), 0);
    assert_string_equal(out, "a");
    assert_int_equal(life_s, 0);
    assert_int_equal(parse("{\"token\":\"a\",\"expires_in\":-1}", out, &life_s), 0);
    assert_int_equal(life_s, 0);
    memset(big, ' ', sizeof big);
    assert_int_equal(token_reply_parse(big, sizeof big, out, &life_s), E_TOO_LARGE);
    memset(big, '[', 40);
    assert_int_equal(token_reply_parse(big, 40, out, &life_s), E_TOO_LARGE);
    (void)snprintf(big, sizeof big, "{\"token\":\"%0*d\"}", TOKEN_BYTES_MAX + 1, 0);
    assert_int_equal(token_reply_parse(big, strlen(big), out, &life_s), E_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_token_ages_and_ends_before_its_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lives_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refusals_are_short_o_2, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_longest_unused_makes_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_memory_nothing_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_a_reply_left_is_wiped, set_up, tear_down),
        cmocka_unit_test(replies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
