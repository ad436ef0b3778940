/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata client: tokens, services without tokens, refusals, and what is not an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "acr.h"
#include "registry_fake.h"

#define TTL_US (UINT64_C(21600) * 1000000)

struct world {
    struct fake fake;
    struct acr_metadata *metadata;
    unsigned dones;
    int err;
    char text[512];
    bool ask_again;
};

static void on_done(void *arg, int err, const char *text)
{
    struct world *world = arg;

    world->dones++;
    world->err = err;
    assert_true((err == 0) == (text != NULL));
    (void)snprintf(world->text, sizeof world->text, "%s", text == NULL ? "" : text);
    if (world->ask_again) {
        world->ask_again = false;
        assert_int_equal(acr_metadata_get(world->metadata, 0, "zone-id", on_done, world), 0);
    }
}

static void open_with(struct world *world, const char *url, bool token_required)
{
    struct acr_metadata_config config = {.url = url, .token_required = token_required};

    fake_init(&world->fake, 1);
    assert_int_equal(
        acr_metadata_new(&world->fake.env, &world->fake.engine, &config, &world->metadata), 0);
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    open_with(world, NULL, false);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;

    acr_metadata_free(world->metadata);
    assert_int_equal(world->fake.allocations, 0);
    assert_null(strstr(world->fake.log, "SECRET"));
    free(world);
    return 0;
}

static struct fake_call *last(struct world *world)
{
    return &world->fake.calls[world->fake.call_count - 1];
}

static void ask(struct world *world, uint64_t now_us, const char *path)
{
    world->dones = 0;
    assert_int_equal(acr_metadata_get(world->metadata, now_us, path, on_done, world), 0);
    assert_int_equal(world->dones, 0); /* never inside */
}

static void answered(struct world *world, const char *text)
{
    assert_int_equal(world->dones, 1);
    assert_int_equal(world->err, 0);
    assert_string_equal(world->text, text);
}

static void failed(struct world *world, int err)
{
    assert_int_equal(world->dones, 1);
    assert_int_equal(world->err, err);
}

/* Asks and gives a token where one is wanted. */
static void ask_with_token(struct world *world, uint64_t now_us, const char *path)
{
    ask(world, now_us, path);
    if (strcmp(last(world)->method, "PUT") == 0)
        fake_answer(last(world), 200, "", "SECRETTOKEN\n");
}

static void a_token_is_fetched_and_kept(void **state)
{
    struct world *world = *state;

    ask(world, 0, "region-id");
    assert_string_equal(last(world)->method, "PUT");
    assert_string_equal(last(world)->url, "http://100.100.100.200/latest/api/token");
    assert_string_equal(fake_sent(last(world), "X-aliyun-ecs-metadata-token-ttl-seconds", 0),
                        "21600");
    assert_true(last(world)->allow_private && last(world)->allow_metadata);
    assert_int_equal(last(world)->connect_timeout_ms, 1000);
    assert_int_equal(last(world)->first_byte_timeout_ms, 1000);
    fake_answer(last(world), 200, "", " SECRETTOKEN\n");
    assert_string_equal(last(world)->method, "GET");
    assert_string_equal(last(world)->url, "http://100.100.100.200/latest/meta-data/region-id");
    assert_string_equal(fake_sent(last(world), "X-aliyun-ecs-metadata-token", 0), "SECRETTOKEN");
    fake_answer(last(world), 200, "", "\n cn-hangzhou \r\n");
    answered(world, "cn-hangzhou");
    /* Four fifths of its life. */
    ask(world, TTL_US / 5 * 4 - 1, "vpc-id");
    assert_string_equal(last(world)->method, "GET");
    fake_answer(last(world), 200, "", "vpc-1");
    answered(world, "vpc-1");
    ask(world, TTL_US / 5 * 4, "vpc-id");
    assert_string_equal(last(world)->method, "PUT");
}

static void a_bad_token_is_replaced_once(void **state)
{
    struct world *world = *state;

    ask_with_token(world, 0, "region-id");
    fake_answer(last(world), 401, "", "");
    assert_string_equal(last(world)->method, "PUT");
    fake_answer(last(world), 200, "", "SECRETOTHER");
    assert_string_equal(fake_sent(last(world), "X-aliyun-ecs-metadata-token", 0), "SECRETOTHER");
    fake_answer(last(world), 401, "", "");
    failed(world, E_DENIED);
    assert_int_equal(world->fake.call_count, 4);
}

static void old_services_are_asked_without_a_token(void **state)
{
    struct world *world = *state;
    static const int statuses[] = {403, 404};

    for (size_t i = 0; i < 2; i++) {
        uint64_t now_us = i * TTL_US;

        ask(world, now_us, "region-id");
        fake_answer(last(world), statuses[i], "", "no");
        assert_string_equal(last(world)->method, "GET");
        assert_null(fake_sent(last(world), "X-aliyun-ecs-metadata-token", 0));
        fake_answer(last(world), 200, "", "cn-x");
        answered(world, "cn-x");
        ask(world, now_us + 1, "region-id"); /* remembered */
        assert_string_equal(last(world)->method, "GET");
        fake_answer(last(world), 403, "", "");
        failed(world, E_DENIED);
    }
    ask(world, 2 * TTL_US, "region-id");
    fake_done(last(world), E_TIMEOUT);
    fake_answer(last(world), 200, "", "cn-y");
    answered(world, "cn-y");
}

static void a_token_may_be_required(void **state)
{
    struct world *world = *state;

    acr_metadata_free(world->metadata);
    open_with(world, "http://127.0.0.1:9", true);
    ask(world, 0, "region-id");
    assert_string_equal(last(world)->url, "http://127.0.0.1:9/latest/api/token");
    fake_answer(last(world), 404, "", "no");
    failed(world, E_DENIED);
    ask(world, 0, "region-id");
    fake_done(last(world), E_TIMEOUT);
    failed(world, E_DENIED);
    assert_int_equal(world->fake.call_count, 2);
}

static void failures_say_what_happened(void **state)
{
    struct world *world = *state;

    ask(world, 0, "x");
    fake_done(last(world), E_UNREACHABLE);
    failed(world, E_UNREACHABLE); /* no second wait outside the cloud */
    assert_int_equal(world->fake.call_count, 1);
    ask(world, 0, "x");
    fake_answer(last(world), 500, "", "");
    failed(world, E_ORIGIN);
    ask(world, 0, "x");
    fake_answer(last(world), 200, "", " ");
    failed(world, E_MALFORMED);
    ask_with_token(world, 0, "x");
    fake_answer(last(world), 404, "", "");
    failed(world, E_NOT_FOUND);
    ask_with_token(world, 0, "x");
    fake_answer(last(world), 500, "", "");
    failed(world, E_ORIGIN);
    ask_with_token(world, 0, "x");
    fake_answer(last(world), 200, "", "\n\n");
    failed(world, E_MALFORMED);
    ask_with_token(world, 0, "x");
    fake_head(last(world), 200, "", 3);
    (void)fake_body(last(world), "a\0b", 3);
    fake_done(last(world), 0);
    failed(world, E_MALFORMED);
    ask_with_token(world, 0, "x");
    fake_head(last(world), 200, "", 100);
    (void)fake_body(last(world), "part", 4);
    fake_done(last(world), E_CLOSED);
    failed(world, E_CLOSED);
}

static void answers_are_bounded(void **state)
{
    struct world *world = *state;
    static char kib[1024];

    memset(kib, 'x', sizeof kib);
    ask_with_token(world, 0, "x");
    fake_head(last(world), 200, "", FAKE_NONE);
    for (unsigned i = 0; i < 64; i++)
        (void)fake_body(last(world), kib, sizeof kib);
    fake_done(last(world), 0);
    answered(world, world->text);
    assert_int_equal(strlen(world->text), sizeof world->text - 1);
    ask(world, 0, "x");
    fake_head(last(world), 200, "", FAKE_NONE);
    for (unsigned i = 0; i < 65; i++)
        (void)fake_body(last(world), kib, sizeof kib);
    fake_done(last(world), 0);
    failed(world, E_TOO_LARGE);
    /* A token longer than any header of theirs. */
    ask(world, TTL_US, "x");
    fake_head(last(world), 200, "", FAKE_NONE);
    (void)fake_body(last(world), kib, sizeof kib);
    (void)fake_body(last(world), kib, 1);
    fake_done(last(world), 0);
    failed(world, E_MALFORMED);
}

static void one_question_at_a_time(void **state)
{
    struct world *world = *state;

    ask(world, 0, "region-id");
    assert_int_equal(acr_metadata_get(world->metadata, 0, "x", on_done, world), E_IN_USE);
    fake_answer(last(world), 200, "", "SECRETTOKEN");
    assert_int_equal(acr_metadata_get(world->metadata, 0, "x", on_done, world), E_IN_USE);
    world->ask_again = true;
    fake_answer(last(world), 200, "", "cn-x");
    answered(world, "cn-x");
    fake_answer(last(world), 200, "", "cn-x-i");
    assert_int_equal(world->dones, 2);
    assert_string_equal(world->text, "cn-x-i");
}

static void odd_paths_are_refused(void **state)
{
    struct world *world = *state;
    static char path[300];

    memset(path, 'a', sizeof path - 1);
    assert_int_equal(acr_metadata_get(world->metadata, 0, "", on_done, world), E_INVALID);
    assert_int_equal(acr_metadata_get(world->metadata, 0, "/x", on_done, world), E_INVALID);
    assert_int_equal(acr_metadata_get(world->metadata, 0, "a/../b", on_done, world), E_INVALID);
    assert_int_equal(acr_metadata_get(world->metadata, 0, path, on_done, world), E_INVALID);
}

static void an_engine_that_refuses_ends_the_question(void **state)
{
    struct world *world = *state;

    world->fake.start_err = E_FULL;
    world->fake.start_fail_at = 1;
    assert_int_equal(acr_metadata_get(world->metadata, 0, "x", on_done, world), E_FULL);
    world->fake.start_fail_at = 3;
    ask_with_token(world, 0, "x");
    failed(world, E_FULL);
    world->fake.start_fail_at = 0;
    ask(world, 0, "x");
    fake_answer(last(world), 200, "", "y");
    answered(world, "y");
}

static void freeing_cancels(void **state)
{
    struct world *world = *state;

    ask(world, 0, "x");
    acr_metadata_free(world->metadata);
    assert_true(world->fake.calls[0].cancelled);
    assert_int_equal(world->dones, 0);
    world->metadata = NULL;
    world->fake.alloc_fail_at = world->fake.alloc_count + 1;
    struct acr_metadata_config config = {.url = ""};
    assert_int_equal(
        acr_metadata_new(&world->fake.env, &world->fake.engine, &config, &world->metadata),
        E_NO_MEMORY);
    assert_null(world->metadata);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_token_is_fetched_and_kept),
        TEST(a_bad_token_is_replaced_once),
        TEST(old_services_are_asked_without_a_token),
        TEST(a_token_may_be_required),
        TEST(failures_say_what_happened),
        TEST(answers_are_bounded),
        TEST(one_question_at_a_time),
        TEST(odd_paths_are_refused),
        TEST(an_engine_that_refuses_ends_the_question),
        TEST(freeing_cancels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
