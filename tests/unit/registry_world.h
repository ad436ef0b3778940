/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fixture of the origin tests: a world of one registry, one caller and a scripted engine, with what
 * every test demands at its end: nothing leaked, no callback out of order, no secret logged.
 */
#ifndef TEST_REGISTRY_WORLD_H
#define TEST_REGISTRY_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/registry/origin.h"
#include "registry_fake.h"

#define BLOB_PATH "/v2/lib/bb/blobs/sha256:aa"
#define HERE      "https://registry.test" BLOB_PATH
#define STORE     "https://oss.test/data/1?Signature=SECRET"
#define TO_STORE  "location: " STORE "\n"

struct world {
    struct fake fake;
    struct origin *origin;
    struct registry_entry entry;
    struct origin_request request;
    struct fake_caller caller;
};

static inline int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    fake_init(&world->fake, 7);
    assert_int_equal(
        origin_new(&world->fake.env, &world->fake.engine, &world->fake.timer, &world->origin), 0);
    (void)snprintf(world->entry.name, sizeof world->entry.name, "registry.test");
    (void)snprintf(world->entry.endpoint, sizeof world->entry.endpoint, "https://registry.test");
    world->request = (struct origin_request){.registry = &world->entry,
                                             .kind = ORIGIN_BLOB,
                                             .method = "GET",
                                             .path_and_query = BLOB_PATH,
                                             .authorization = "Bearer TOPSECRET",
                                             .size_bytes = 10,
                                             .last = 9,
                                             .whole = true};
    world->request.credential_hash[0] = 9;
    caller_init(&world->caller, &world->fake, world->origin);
    *state = world;
    return 0;
}

static inline int tear_down(void **state)
{
    struct world *world = *state;

    origin_free(world->origin);
    assert_int_equal(world->fake.allocations, 0);
    assert_false(world->caller.disorder);
    for (unsigned i = 0; i < world->fake.call_count; i++) {
        assert_false(world->fake.calls[i].live);
        assert_false(world->fake.calls[i].late_callback);
    }
    /* HRD-4: neither credentials nor signed URLs in any log line. */
    assert_null(strstr(world->fake.log, "SECRET"));
    free(world);
    return 0;
}

static inline struct fake_call *call(struct world *world, unsigned i)
{
    assert_true(i < world->fake.call_count);
    return &world->fake.calls[i];
}

static inline void start(struct world *world)
{
    assert_int_equal(caller_start(&world->caller, &world->request), 0);
}

static inline void expect_done(struct world *world, int err)
{
    assert_int_equal(world->caller.dones, 1);
    assert_int_equal(world->caller.err, err);
}

static inline void expect_body(struct world *world, const char *text)
{
    assert_int_equal(world->caller.body_bytes, strlen(text));
    assert_memory_equal(world->caller.body, text, strlen(text));
}

static inline void ranged(struct world *world, uint64_t first, uint64_t last)
{
    world->request.whole = false;
    world->request.first = first;
    world->request.last = last;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
