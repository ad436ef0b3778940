/* SPDX-License-Identifier: Apache-2.0 */
/* The origin client with a URL that a client handed over: it is asked itself, without credentials,
 * and never for what the registry's redirects were asked for. */
#include "registry_world.h"

#define SIGNED "https://bucket.test:8443/blobs/x?Expires=1&Signature=SECRETSIGN"

static void hand_over(struct world *world)
{
    world->request.url = SIGNED;
    world->request.authorization = NULL;
}

static void the_url_itself_is_asked(void **state)
{
    struct world *world = *state;
    char url[] = SIGNED;

    hand_over(world);
    world->request.url = url;
    ranged(world, 2, 4);
    start(world);
    memset(url, 'x', sizeof url - 1); /* it was copied */
    assert_string_equal(call(world, 0)->url, SIGNED);
    assert_string_equal(fake_sent(call(world, 0), "Range", 0), "bytes=2-4");
    assert_null(fake_sent(call(world, 0), "Authorization", 0));
    fake_answer(call(world, 0), 206, "content-range: bytes 2-4/10\n", "234");
    expect_body(world, "234");
    expect_done(world, 0);
}

/* It may be signed for GET (ACR §7): the size comes from one byte. */
static void head_is_a_get_of_one_byte(void **state)
{
    struct world *world = *state;

    hand_over(world);
    world->request.method = "HEAD";
    world->request.size_bytes = UINT64_MAX;
    start(world);
    assert_string_equal(call(world, 0)->method, "GET");
    assert_string_equal(fake_sent(call(world, 0), "Range", 0), "bytes=0-0");
    fake_head(call(world, 0), 206, "content-range: bytes 0-0/10\n", 1);
    assert_int_equal(world->caller.status, 200);
    assert_int_equal(world->caller.content_length, 10);
    expect_done(world, 0);
}

/* Its signature ended: nobody but the client can get another. */
static void a_refusal_is_passed_on_at_once(void **state)
{
    struct world *world = *state;

    hand_over(world);
    ranged(world, 2, 4);
    start(world);
    fake_answer(call(world, 0), 403, "", "<Error/>");
    while (world->caller.dones == 0 && fake_turn(&world->fake, world->origin))
        ;
    assert_int_equal(world->caller.status, 403);
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->fake.call_count, 1);
}

static void a_cut_body_is_resumed_there(void **state)
{
    struct world *world = *state;

    hand_over(world);
    ranged(world, 2, 5);
    start(world);
    fake_head(call(world, 0), 206, "content-range: bytes 2-5/10\n", 4);
    fake_body(call(world, 0), "23", 2);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 1)->url, SIGNED);
    assert_string_equal(fake_sent(call(world, 1), "Range", 0), "bytes=4-5");
    fake_answer(call(world, 1), 206, "content-range: bytes 4-5/10\n", "45");
    expect_body(world, "2345");
    expect_done(world, 0);
}

/* A target remembered from a redirect of the same path is another caller's. */
static void targets_are_not_mixed(void **state)
{
    struct world *world = *state;
    struct origin_request plain = world->request;

    hand_over(world);
    ranged(world, 2, 4);
    start(world);
    fake_answer(call(world, 0), 206, "content-range: bytes 2-4/10\n", "234");
    expect_done(world, 0);
    world->request = plain;
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    assert_string_equal(call(world, 1)->url, HERE);
    origin_cancel(world->origin, world->caller.fetch);
}

static void bad_urls_and_credentials_are_refused(void **state)
{
    struct world *world = *state;
    struct origin_request good;
    static const char *const bad[] = {"",
                                      "ftp://a/b",
                                      "https://u:p@a/b",
                                      "/v2/",
                                      "https://a b/",
                                      "https://a/\r\nX: y",
                                      "https://a:0/"};

    hand_over(world);
    good = world->request;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        world->request.url = bad[i];
        assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    }
    world->request = good;
    world->request.authorization = "Bearer TOPSECRET";
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    world->request.kind = ORIGIN_PASS;
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_url_itself_is_asked),        TEST(head_is_a_get_of_one_byte),
        TEST(a_refusal_is_passed_on_at_once), TEST(a_cut_body_is_resumed_there),
        TEST(targets_are_not_mixed),          TEST(bad_urls_and_credentials_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
