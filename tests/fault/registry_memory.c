/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation and every engine start of an origin fetch fails once, and every allocation of
 * the grants: no leak, no assert, done exactly once, and the next fetch works (D-9).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/registry/origin.h"
#include "../unit/registry_fake.h"

static struct fake fake;
static struct fake_caller caller;
static struct registry_entry entry = {.name = "registry.test", .endpoint = "https://registry.test"};

/* A blob through a redirect, cut and resumed; or a manifest after a 503. */
static void serve(struct fake_call *call, enum origin_kind kind, unsigned nth)
{
    if (kind == ORIGIN_MANIFEST) {
        if (nth == 0)
            fake_answer(call, 503, "x: y\n", "busy");
        else
            fake_answer(call, 200, "content-type: a/b\n", "{\"manifest\":\"text\"}");
        return;
    }
    if (strncmp(call->url, "https://registry.test/", 22) == 0) {
        fake_answer(call, 307, "location: https://oss.test/x\n", "moved");
        return;
    }
    if (fake_sent(call, "Range", 0) == NULL) {
        fake_head(call, 200, "", 10);
        (void)fake_body(call, "0123", 4);
        fake_done(call, E_CLOSED);
        return;
    }
    fake_answer(call, 206, "content-range: bytes 4-9/10\n", "456789");
}

/* Returns what origin_start or done said. */
static int run(struct origin *origin, enum origin_kind kind)
{
    static const char *const accept[] = {"a/b"};
    struct origin_request request = {.registry = &entry,
                                     .kind = kind,
                                     .method = "GET",
                                     .path_and_query = "/v2/x",
                                     .accept = accept,
                                     .accept_count = 1,
                                     .authorization = "Bearer x",
                                     .whole = true,
                                     .size_bytes = 10};
    unsigned served = 0;
    int err;

    fake.call_count = 0;
    caller_init(&caller, &fake, origin);
    err = caller_start(&caller, &request);
    if (err != 0)
        return err;
    while (caller.dones == 0) {
        if (served < fake.call_count) {
            serve(&fake.calls[served], kind, served);
            served++;
        } else if (!fake_turn(&fake, origin)) {
            break;
        }
    }
    assert_int_equal(caller.dones, 1);
    assert_false(caller.disorder);
    return caller.err;
}

static void sweep(enum origin_kind kind, bool starts)
{
    unsigned failures = 0;

    for (unsigned n = 1; n < 200; n++) {
        struct origin *origin = NULL;
        int err;

        fake_init(&fake, n);
        fake.alloc_fail_at = starts ? 0 : n;
        fake.start_fail_at = starts ? n : 0;
        fake.start_err = n % 2 == 0 ? E_NO_MEMORY : E_FULL;
        err = origin_new(&fake.env, &fake.engine, &fake.timer, &origin);
        if (err == 0)
            err = run(origin, kind);
        if (origin != NULL && err != 0) {
            failures++;
            assert_true(err == E_NO_MEMORY || err == E_FULL || err == E_UNREACHABLE);
            fake.alloc_fail_at = fake.start_fail_at = 0;
            assert_int_equal(run(origin, kind), 0);
        }
        origin_free(origin);
        assert_int_equal(fake.allocations, 0);
        if (err == 0 && (starts ? fake.starts < n : fake.alloc_count < n))
            break;
        assert_true(n < 199);
    }
    assert_true(failures >= (starts ? 1u : 3u));
}

static void blob_allocations(void **state)
{
    (void)state;
    sweep(ORIGIN_BLOB, false);
}

static void manifest_allocations(void **state)
{
    (void)state;
    sweep(ORIGIN_MANIFEST, false);
}

static void engine_starts(void **state)
{
    (void)state;
    sweep(ORIGIN_BLOB, true);
    sweep(ORIGIN_MANIFEST, true);
}

/* ---- with the node's own login ---- */

static bool with_identity; /* the login, instead of a password */

static int find(void *host, const struct registry_entry *registry, struct registry_login *out)
{
    (void)host;
    (void)registry;
    *out = (struct registry_login){.user = "node", .password = "pw"};
    if (with_identity)
        *out = (struct registry_login){.kind = REGISTRY_LOGIN_IDENTITY, .token = "id"};
    return 0;
}

static void serve_private(struct fake_call *call)
{
    static const char challenge[] =
        "www-authenticate: Bearer realm=\"https://registry.test/token\",service=\"s\"\n";

    if (strncmp(call->url, "https://registry.test/token", 27) == 0)
        fake_answer(call, 200, "", "{\"token\":\"T\"}");
    else if (fake_sent(call, "Authorization", 0) == NULL)
        fake_answer(call, 401, challenge, "{}");
    else
        fake_answer(call, 200, "", "0123456789");
}

static int run_private(struct origin *origin)
{
    struct registry_entry shared = entry;
    struct origin_request request = {.registry = &shared,
                                     .kind = ORIGIN_MANIFEST,
                                     .method = "GET",
                                     .path_and_query = "/v2/a/manifests/x",
                                     .size_bytes = UINT64_MAX};
    unsigned served = 0;
    int err;

    shared.shared = true;
    (void)snprintf(shared.credentials_file, sizeof shared.credentials_file, "/f");
    fake.call_count = 0;
    caller_init(&caller, &fake, origin);
    err = caller_start(&caller, &request);
    while (err == 0 && caller.dones == 0) {
        if (served < fake.call_count)
            serve_private(&fake.calls[served++]);
        else
            assert_true(fake_turn(&fake, origin));
    }
    assert_false(caller.disorder);
    return err != 0 ? err : caller.err;
}

/* Any failure ends in an error, or in the registry's own challenge; the next request is served. */
static void login_sweep(bool starts)
{
    static const struct origin_logins logins = {.find = find};
    unsigned failures = 0;

    for (unsigned n = 1; n < 200; n++) {
        struct origin *origin = NULL;
        int err;

        fake_init(&fake, n);
        fake.alloc_fail_at = starts ? 0 : n;
        fake.start_fail_at = starts ? n : 0;
        fake.start_err = n % 2 == 0 ? E_NO_MEMORY : E_FULL;
        if (origin_new(&fake.env, &fake.engine, &fake.timer, &origin) != 0)
            continue;
        origin_set_logins(origin, &logins);
        err = run_private(origin);
        failures += err != 0;
        assert_true(err == 0 || err == E_NO_MEMORY || err == E_FULL || err == E_UNREACHABLE ||
                    (err == E_ORIGIN && caller.status == 401));
        fake.alloc_fail_at = fake.start_fail_at = 0;
        fake.now_us += 6000000; /* a refusal is remembered for five seconds */
        origin_advance(origin, fake.now_us);
        assert_int_equal(run_private(origin), 0);
        origin_free(origin);
        assert_int_equal(fake.allocations, 0);
        if (n > 40)
            break;
    }
    assert_true(failures >= (starts ? 2u : 5u));
}

static void login_allocations_and_starts(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        with_identity = kind == 1;
        login_sweep(false);
        login_sweep(true);
    }
}

/* Enough entries that uthash grows its buckets, with each allocation failing once. */
static void grants_allocations(void **state)
{
    (void)state;
    for (unsigned n = 1; n < 10000; n++) {
        struct grants *grants = NULL;
        uint8_t who[32] = {1};
        uint64_t size;
        unsigned failed = 0;
        char repository[16];

        fake_init(&fake, n);
        fake.alloc_fail_at = n;
        if (grants_new(&fake.env, GRANT_LIFE_US, &grants) != 0)
            continue;
        for (unsigned i = 0; i < 500; i++) {
            struct digest blob = {.algorithm = DIGEST_SHA256, .bytes = {(uint8_t)i}};

            (void)snprintf(repository, sizeof repository, "r%u", i);
            if (grants_put(grants, 0, "x", repository, who) != 0)
                failed++;
            else
                assert_true(grants_check(grants, 0, "x", repository, who));
            if (grants_link(grants, "x", repository, &blob, i) != 0)
                failed++;
            else
                assert_true(grants_linked(grants, "x", repository, &blob, &size));
        }
        assert_int_equal(failed, fake.alloc_count >= n);
        grants_free(grants);
        assert_int_equal(fake.allocations, 0);
        if (failed == 0)
            return;
        if (n > 20 && n < fake.alloc_count - 20)
            n += 6; /* the middle is all alike */
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blob_allocations),   cmocka_unit_test(manifest_allocations),
        cmocka_unit_test(engine_starts),      cmocka_unit_test(login_allocations_and_starts),
        cmocka_unit_test(grants_allocations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
