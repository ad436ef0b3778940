/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin client against a scripted server: what is asked of whom (ORG-3, ORG-5), what the
 * caller is shown, ranges (O-8), resuming (O-6, O-9), retries (RES-5, O-4, O-5), limits (ORG-7,
 * INT-8).
 */
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

static int set_up(void **state)
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

static int tear_down(void **state)
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

static struct fake_call *call(struct world *world, unsigned i)
{
    assert_true(i < world->fake.call_count);
    return &world->fake.calls[i];
}

static void start(struct world *world)
{
    assert_int_equal(caller_start(&world->caller, &world->request), 0);
}

static void expect_done(struct world *world, int err)
{
    assert_int_equal(world->caller.dones, 1);
    assert_int_equal(world->caller.err, err);
}

static void expect_body(struct world *world, const char *text)
{
    assert_int_equal(world->caller.body_bytes, strlen(text));
    assert_memory_equal(world->caller.body, text, strlen(text));
}

static void ranged(struct world *world, uint64_t first, uint64_t last)
{
    world->request.whole = false;
    world->request.first = first;
    world->request.last = last;
}

/* ---- the plain way ---- */

static void whole_blob_passes_through(void **state)
{
    struct world *world = *state;

    start(world);
    assert_string_equal(call(world, 0)->url, HERE);
    assert_string_equal(call(world, 0)->method, "GET");
    assert_string_equal(fake_sent(call(world, 0), "Authorization", 0), "Bearer TOPSECRET");
    assert_null(fake_sent(call(world, 0), "Range", 0));
    assert_int_equal(world->caller.heads, 0);
    fake_answer(call(world, 0), 200, "content-length: 10\netag: \"x\"\n", "0123456789");
    assert_int_equal(world->caller.status, 200);
    assert_non_null(strstr(world->caller.headers, "etag: \"x\""));
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

static void request_is_copied(void **state)
{
    struct world *world = *state;
    char path[] = BLOB_PATH, authorization[] = "Bearer TOPSECRET";

    world->request.path_and_query = path;
    world->request.authorization = authorization;
    start(world);
    memset(path, 'x', sizeof path - 1);
    memset(authorization, 'x', sizeof authorization - 1);
    memset(&world->entry, 0, sizeof world->entry);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 1)->url, HERE);
    assert_string_equal(fake_sent(call(world, 1), "Authorization", 0), "Bearer TOPSECRET");
    fake_answer(call(world, 1), 200, "", "0123456789");
    expect_done(world, 0);
}

static void empty_blob_ends_well(void **state)
{
    struct world *world = *state;

    world->request.size_bytes = 0;
    start(world);
    fake_answer(call(world, 0), 200, "content-length: 0\n", "");
    assert_int_equal(world->caller.heads, 1);
    expect_done(world, 0);
}

static void unknown_size_is_learnt(void **state)
{
    struct world *world = *state;

    world->request.size_bytes = UINT64_MAX;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    assert_int_equal(world->caller.content_length, 10);
    fake_body(call(world, 0), "01234", 5);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(fake_sent(call(world, 1), "Range", 0), "bytes=5-9");
    fake_answer(call(world, 1), 206, "content-range: bytes 5-9/10\n", "56789");
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

static void bad_requests_are_refused(void **state)
{
    struct world *world = *state;
    struct origin_request good = world->request;
    static const char *const bad_paths[] = {"v2/",          "",       "/v2/a b",
                                            "/v2/\r\nX: y", "/v2/#f", "/v2\\x"};
    const char *accept = "a\nb";

    for (size_t i = 0; i < sizeof bad_paths / sizeof bad_paths[0]; i++) {
        world->request.path_and_query = bad_paths[i];
        assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    }
    world->request = good;
    world->request.method = "POST";
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    world->request.authorization = "Bearer x\r\nHost: evil";
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    world->request.if_none_match = "\n";
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    world->request.accept = &accept;
    world->request.accept_count = 1;
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    ranged(world, 5, 4);
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    ranged(world, 0, 10);
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    world->request.size_bytes = BLOB_BYTES_MAX + 1;
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    world->request.kind = (enum origin_kind)0;
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    world->request = good;
    (void)snprintf(world->entry.endpoint, sizeof world->entry.endpoint, "ftp://registry.test");
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    (void)snprintf(world->entry.endpoint, sizeof world->entry.endpoint, "https://registry.test/p");
    assert_int_equal(caller_start(&world->caller, &world->request), E_INVALID);
    assert_int_equal(world->fake.call_count, 0);
}

static void engine_refusal_is_returned(void **state)
{
    struct world *world = *state;

    world->fake.start_fail_at = 1;
    world->fake.start_err = E_FULL;
    assert_int_equal(caller_start(&world->caller, &world->request), E_FULL);
    assert_int_equal(origin_counters(world->origin)->requests, 0);
}

static void fetches_are_bounded(void **state)
{
    struct world *world = *state;
    struct origin_fetch *fetch;
    unsigned started = 0;

    for (; started < ORIGIN_FETCHES_MAX + 5; started++) {
        world->fake.call_count = 0; /* the fake's table is smaller than the limit tested */
        if (origin_start(world->origin, 1, &world->request, &caller_callbacks, &world->caller,
                         &fetch) != 0)
            break;
    }
    assert_int_equal(started, ORIGIN_FETCHES_MAX);
    assert_int_equal(origin_counters(world->origin)->starts_refused, 1);
    world->fake.call_count = 0;
}

/* ---- who gets what: ORG-3, ORG-5 ---- */

static void accept_lines_stay_separate(void **state)
{
    struct world *world = *state;
    static const char *const accept[] = {"application/a", "application/b;q=0.5", "*/*"};

    world->request.kind = ORIGIN_MANIFEST;
    world->request.path_and_query = "/v2/lib/bb/manifests/1";
    world->request.accept = accept;
    world->request.accept_count = 3;
    world->request.if_none_match = "\"sha256:1\"";
    start(world);
    for (unsigned i = 0; i < 3; i++)
        assert_string_equal(fake_sent(call(world, 0), "Accept", i), accept[i]);
    assert_string_equal(fake_sent(call(world, 0), "If-None-Match", 0), "\"sha256:1\"");
    fake_answer(call(world, 0), 304, "", "");
    assert_int_equal(world->caller.status, 304);
    expect_done(world, 0);
}

static void surplus_accept_lines_share_the_last(void **state)
{
    struct world *world = *state;
    const char *accept[20];
    char text[20][8];

    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(text[i], sizeof text[i], "a/%u", i);
        accept[i] = text[i];
    }
    world->request.kind = ORIGIN_MANIFEST;
    world->request.accept = accept;
    world->request.accept_count = 20;
    start(world);
    assert_string_equal(fake_sent(call(world, 0), "Accept", 0), "a/0");
    assert_string_equal(fake_sent(call(world, 0), "Accept", 12),
                        "a/12, a/13, a/14, a/15, a/16, a/17, a/18, a/19");
    assert_null(fake_sent(call(world, 0), "Accept", 13));
    fake_answer(call(world, 0), 200, "", "{}");
    expect_done(world, 0);
}

static void empty_basic_is_no_credential(void **state)
{
    struct world *world = *state;

    world->request.authorization = "Basic Og==";
    start(world);
    assert_null(fake_sent(call(world, 0), "Authorization", 0));
}

/* ORG-3: to another host only the range travels. */
static void redirect_drops_credentials(void **state)
{
    struct world *world = *state;
    static const char *const accept[] = {"application/octet-stream"};

    world->request.accept = accept;
    world->request.accept_count = 1;
    ranged(world, 2, 5);
    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    assert_int_equal(world->caller.heads, 0);
    assert_string_equal(call(world, 1)->url, STORE);
    assert_int_equal(call(world, 1)->header_count, 1);
    assert_string_equal(fake_sent(call(world, 1), "Range", 0), "bytes=2-5");
    assert_memory_not_equal(call(world, 0)->pool_key, call(world, 1)->pool_key, 32);
    fake_answer(call(world, 1), 206, "content-range: bytes 2-5/10\n", "2345");
    assert_int_equal(world->caller.status, 206);
    expect_body(world, "2345");
    expect_done(world, 0);
}

static void redirect_to(struct world *world, const char *location, const char *expected_url,
                        bool with_credentials)
{
    char headers[600];
    unsigned before = world->fake.call_count;

    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    (void)snprintf(headers, sizeof headers, "location: %s\n", location);
    fake_answer(call(world, before), 302, headers, "moved");
    if (expected_url == NULL) {
        (void)fake_next_call(&world->fake, world->origin);
        assert_int_equal(world->fake.call_count, before + 1);
        assert_int_equal(world->caller.heads, 0);
        expect_done(world, E_REFUSED);
        return;
    }
    assert_string_equal(call(world, before + 1)->url, expected_url);
    assert_int_equal(fake_sent(call(world, before + 1), "Authorization", 0) != NULL,
                     with_credentials);
    fake_answer(call(world, before + 1), 404, "", "no");
    while (fake_turn(&world->fake, world->origin))
        ;
    expect_done(world, E_ORIGIN);
}

/* ORG-3: credentials stay only while scheme, host and port are equal. */
static void redirect_targets(void **state)
{
    struct world *world = *state;

    redirect_to(world, "/v2/other", "https://registry.test/v2/other", true);
    redirect_to(world, "./x/../bb", "https://registry.test/v2/lib/bb/blobs/bb", true);
    redirect_to(world, "https://REGISTRY.test:443/x", "https://registry.test/x", true);
    redirect_to(world, "https://registry.test:444/x", "https://registry.test:444/x", false);
    redirect_to(world, "//registry.test/y", "https://registry.test/y", true);
    redirect_to(world, "https://registry.test.evil/x", "https://registry.test.evil/x", false);
}

static void redirects_refused(void **state)
{
    struct world *world = *state;
    static const char *const bad[] = {"http://registry.test/x",
                                      "http://oss.test/x",
                                      "ftp://oss.test/x",
                                      "file:///etc/passwd",
                                      "https://user:pw@oss.test/x",
                                      "https://100.100.100.200/latest/meta-data/",
                                      "https://169.254.169.254/x",
                                      "https://[fe80::1]/x",
                                      "https://oss test/x",
                                      "https:///x",
                                      ""};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        redirect_to(world, bad[i], NULL, false);
    assert_int_equal(origin_counters(world->origin)->redirects_refused, sizeof bad / sizeof bad[0]);
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    fake_answer(call(world, world->fake.call_count - 1), 307, "", "");
    (void)fake_turn(&world->fake, world->origin);
    expect_done(world, E_REFUSED); /* no Location at all */
}

/* ORG-6: a registry that is http by name may redirect within http, and up to https. */
static void http_registry_may_redirect_to_http(void **state)
{
    struct world *world = *state;

    (void)snprintf(world->entry.endpoint, sizeof world->entry.endpoint,
                   "http://registry.test:5000");
    redirect_to(world, "http://blob.test:9000/x", "http://blob.test:9000/x", false);
    redirect_to(world, "https://registry.test:5000/x", "https://registry.test:5000/x", false);
}

/* Once away, credentials do not come back, not even at the registry itself. */
static void credentials_do_not_return(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    fake_answer(call(world, 1), 307, "location: " HERE "\n", "");
    assert_string_equal(call(world, 2)->url, HERE);
    assert_null(fake_sent(call(world, 2), "Authorization", 0));
    fake_answer(call(world, 2), 200, "", "0123456789");
    expect_done(world, 0);
}

static void five_hops_and_no_more(void **state)
{
    struct world *world = *state;

    start(world);
    for (unsigned i = 0; i < ORIGIN_HOPS_MAX; i++)
        fake_answer(call(world, i), 308, "location: /next\n", "");
    assert_int_equal(world->fake.call_count, ORIGIN_HOPS_MAX + 1);
    fake_answer(call(world, ORIGIN_HOPS_MAX), 308, "location: /next\n", "");
    (void)fake_turn(&world->fake, world->origin);
    assert_int_equal(world->fake.call_count, ORIGIN_HOPS_MAX + 1);
    expect_done(world, E_REFUSED);
}

static void endless_redirect_body_is_cut(void **state)
{
    struct world *world = *state;
    static const uint8_t chunk[8192];

    start(world);
    fake_head(call(world, 0), 307, TO_STORE, UINT64_MAX);
    for (unsigned i = 0; i < 100 && fake_body(call(world, 0), chunk, sizeof chunk); i++)
        ;
    assert_true(call(world, 0)->cancelled);
    assert_int_equal(world->fake.call_count, 2);
    fake_answer(call(world, 1), 200, "", "0123456789");
    expect_done(world, 0);
}

/* ORG-5: one pool per registry and credentials. */
static void pool_keys_differ(void **state)
{
    struct world *world = *state;
    struct fake_call *first;

    start(world);
    first = call(world, 0);
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    assert_memory_equal(first->pool_key, call(world, 1)->pool_key, 32);
    world->request.credential_hash[0] = 8;
    start(world);
    assert_memory_not_equal(first->pool_key, call(world, 2)->pool_key, 32);
    world->request.credential_hash[0] = 9;
    world->request.authorization = "Bearer other";
    start(world);
    assert_memory_not_equal(first->pool_key, call(world, 3)->pool_key, 32);
    world->request.authorization = "Bearer TOPSECRET";
    (void)snprintf(world->entry.name, sizeof world->entry.name, "other.test");
    start(world);
    assert_memory_not_equal(first->pool_key, call(world, 4)->pool_key, 32);
    origin_free(world->origin);
    assert_int_equal(
        origin_new(&world->fake.env, &world->fake.engine, &world->fake.timer, &world->origin), 0);
}

static void entry_settings_reach_every_hop(void **state)
{
    struct world *world = *state;

    (void)snprintf(world->entry.ca_file, sizeof world->entry.ca_file, "/etc/ca.pem");
    world->entry.allow_private = true;
    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    for (unsigned i = 0; i < 2; i++) {
        assert_true(call(world, i)->allow_private);
        assert_string_equal(call(world, i)->ca_file, "/etc/ca.pem");
    }
    fake_answer(call(world, 1), 200, "", "0123456789");
    expect_done(world, 0);
}

/* ---- errors relayed ---- */

static void challenge_is_relayed(void **state)
{
    struct world *world = *state;
    static const char headers[] =
        "www-authenticate: Bearer realm=\"https://auth.test/t\",scope=\"repository:a/b:pull\"\n"
        "content-type: application/json\n";

    start(world);
    fake_answer(call(world, 0), 401, headers, "{\"errors\":[]}");
    assert_int_equal(world->caller.status, 401);
    assert_string_equal(world->caller.headers, headers);
    expect_body(world, "{\"errors\":[]}");
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->caller.last_status, 401);
    assert_int_equal(world->fake.call_count, 1);
}

static void not_found_is_final(void **state)
{
    struct world *world = *state;

    world->request.kind = ORIGIN_PASS;
    world->request.path_and_query = "/v2/lib/bb/tags/list?n=1";
    start(world);
    fake_answer(call(world, 0), 404, "", "gone");
    assert_false(fake_turn(&world->fake, world->origin));
    assert_int_equal(world->caller.status, 404);
    expect_done(world, E_ORIGIN);
}

/* CLIENTS §4: distribution's 416 announces the blob's size, sends a short text and closes. */
static void short_error_body_is_complete(void **state)
{
    struct world *world = *state;

    ranged(world, 0, 9);
    world->request.size_bytes = UINT64_MAX;
    start(world);
    fake_head(call(world, 0), 416, "content-length: 1000\nx: y\n", 1000);
    fake_body(call(world, 0), "short", 5);
    fake_done(call(world, 0), E_CLOSED);
    assert_int_equal(world->caller.status, 416);
    assert_true(world->caller.content_length == UINT64_MAX);
    assert_string_equal(world->caller.headers, "x: y\n");
    expect_body(world, "short");
    expect_done(world, E_ORIGIN);
}

static void long_error_body_is_cut(void **state)
{
    struct world *world = *state;
    static uint8_t chunk[10000];

    start(world);
    fake_head(call(world, 0), 403, "", UINT64_MAX);
    for (unsigned i = 0; i < 100 && fake_body(call(world, 0), chunk, sizeof chunk); i++)
        ;
    assert_true(call(world, 0)->cancelled);
    assert_int_equal(world->caller.status, 403);
    assert_int_equal(world->caller.body_bytes, ORIGIN_ERROR_BYTES_MAX);
    expect_done(world, E_ORIGIN);
}

/* ---- documents ---- */

static void manifest_is_shown_complete_only(void **state)
{
    struct world *world = *state;

    world->request.kind = ORIGIN_MANIFEST;
    world->request.path_and_query = "/v2/lib/bb/manifests/1";
    start(world);
    fake_head(call(world, 0), 200, "content-type: application/x\ncontent-length: 6\n", 6);
    fake_body(call(world, 0), "{\"a", 3);
    assert_int_equal(world->caller.heads, 0);
    fake_done(call(world, 0), E_CLOSED); /* cut: asked for again, unseen */
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_null(fake_sent(call(world, 1), "Range", 0));
    fake_answer(call(world, 1), 200, "content-type: application/x\ncontent-length: 6\n",
                "{\"b\":1");
    expect_body(world, "{\"b\":1");
    assert_int_equal(world->caller.content_length, 6);
    expect_done(world, 0);
}

/* ORG-7: 4 MiB, announced or not. */
static void large_documents_are_refused(void **state)
{
    struct world *world = *state;
    static uint8_t chunk[1 << 19];

    world->request.kind = ORIGIN_MANIFEST;
    start(world);
    fake_head(call(world, 0), 200, "", MANIFEST_BYTES_MAX + 1);
    assert_true(call(world, 0)->cancelled);
    (void)fake_turn(&world->fake, world->origin);
    expect_done(world, E_TOO_LARGE);
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    fake_head(call(world, 1), 200, "", UINT64_MAX);
    for (unsigned i = 0; i < 9; i++)
        (void)fake_body(call(world, 1), chunk, sizeof chunk);
    assert_true(call(world, 1)->cancelled);
    (void)fake_turn(&world->fake, world->origin);
    expect_done(world, E_TOO_LARGE);
    assert_int_equal(world->caller.heads, 0);
}

static void held_back_bytes_are_bounded_in_sum(void **state)
{
    struct world *world = *state;
    static uint8_t chunk[1 << 20];
    static struct fake_caller callers[20];
    unsigned refused = 0;

    world->request.kind = ORIGIN_MANIFEST;
    for (unsigned i = 0; i < 20; i++) {
        caller_init(&callers[i], &world->fake, world->origin);
        assert_int_equal(caller_start(&callers[i], &world->request), 0);
        fake_head(call(world, i), 200, "", UINT64_MAX);
        for (unsigned n = 0; n < 4; n++)
            (void)fake_body(call(world, i), chunk, sizeof chunk);
    }
    while (fake_turn(&world->fake, world->origin))
        ;
    for (unsigned i = 0; i < 20; i++)
        refused += callers[i].dones == 1 && callers[i].err == E_TOO_LARGE;
    assert_int_equal(refused, 4);
    assert_true(origin_counters(world->origin)->buffers_refused == 4);
}

static void document_is_delivered_with_pauses(void **state)
{
    struct world *world = *state;
    static char text[200001];

    memset(text, 'm', sizeof text - 1);
    world->request.kind = ORIGIN_MANIFEST;
    world->caller.pause = true;
    start(world);
    fake_answer(call(world, 0), 200, "", text);
    assert_true(world->caller.paused);
    assert_true(world->caller.body_bytes < sizeof text - 1);
    assert_false(fake_turn(&world->fake, world->origin));
    world->caller.pause = true;
    caller_resume(&world->caller);
    assert_int_equal(world->caller.bodies, 1); /* not inside resume */
    assert_true(fake_turn(&world->fake, world->origin));
    assert_true(world->caller.paused);
    caller_resume(&world->caller);
    assert_true(fake_turn(&world->fake, world->origin));
    expect_body(world, text);
    expect_done(world, 0);
}

static void head_requests(void **state)
{
    struct world *world = *state;

    world->request.method = "HEAD";
    start(world);
    assert_string_equal(call(world, 0)->method, "HEAD");
    fake_head(call(world, 0), 200, "content-length: 10\n", 10);
    fake_done(call(world, 0), 0);
    assert_int_equal(world->caller.content_length, 10);
    expect_done(world, 0);
}

static void head_of_another_size_is_wrong(void **state)
{
    struct world *world = *state;

    world->request.method = "HEAD";
    start(world);
    for (unsigned i = 0; i < 2; i++) {
        fake_head(call(world, i), 200, "content-length: 11\n", 11);
        (void)fake_next_call(&world->fake, world->origin);
    }
    assert_int_equal(world->fake.call_count, 2);
    expect_done(world, E_RANGE);
}

/* ACR §7: HEAD on a URL signed for GET is 403 at OSS. */
static void head_is_probed_where_only_get_works(void **state)
{
    struct world *world = *state;

    world->request.method = "HEAD";
    world->request.size_bytes = UINT64_MAX;
    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    assert_string_equal(call(world, 1)->method, "HEAD");
    fake_head(call(world, 1), 403, "", UINT64_MAX);
    assert_true(call(world, 1)->cancelled);
    assert_string_equal(call(world, 2)->url, HERE);
    assert_string_equal(call(world, 2)->method, "GET");
    assert_string_equal(fake_sent(call(world, 2), "Range", 0), "bytes=0-0");
    fake_answer(call(world, 2), 307, TO_STORE, "");
    fake_head(call(world, 3), 206,
              "content-range: bytes 0-0/4711\ncontent-length: 1\netag: \"e\"\n", 1);
    assert_int_equal(world->caller.status, 200);
    assert_int_equal(world->caller.content_length, 4711);
    assert_string_equal(world->caller.headers, "etag: \"e\"\n");
    assert_int_equal(world->caller.body_bytes, 0);
    expect_done(world, 0);
}

/* ---- O-8 ---- */

struct range_case {
    int status;
    const char *headers;
    uint64_t content_length;
    bool usable;
};

static void range_answers(void **state)
{
    struct world *world = *state;
    static const struct range_case cases[] = {
        {206, "content-range: bytes 2-5/10\n", 4, true},
        {206, "content-range: bytes 2-5/*\n", 4, true},
        {206, "content-range: bytes 2-5/10\n", UINT64_MAX, true},
        {206, "", 4, false},
        {206, "content-range: bytes 3-5/10\n", 3, false},
        {206, "content-range: bytes 0-3/10\n", 4, false},
        {206, "content-range: bytes 2-9/10\n", 8, false},
        {206, "content-range: bytes 2-4/10\n", 3, false},
        {206, "content-range: bytes 2-5/11\n", 4, false},
        {206, "content-range: bytes 2-5/10\n", 5, false},
        {206, "content-range: bytes 2-5\n", 4, false},
        {206, "content-range: items 2-5/10\n", 4, false},
        {206, "content-range: bytes 2-5/4\n", 4, false},
        {206, "content-range: bytes 5-2/10\n", 4, false},
        {206, "content-range: bytes 2-5/10, 7\n", 4, false},
        {206, "content-range: bytes 2-18446744073709551621/10\n", 4, false},
        {200, "", 10, false},
        {200, "", 4, false},
        {200, "", UINT64_MAX, false},
    };

    ranged(world, 2, 5);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned at = world->fake.call_count;

        /* A fresh origin each time: its retry bucket is not what is tested here. */
        origin_free(world->origin);
        assert_int_equal(
            origin_new(&world->fake.env, &world->fake.engine, &world->fake.timer, &world->origin),
            0);
        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_head(call(world, at), cases[i].status, cases[i].headers, cases[i].content_length);
        assert_int_equal(world->caller.heads, cases[i].usable);
        if (cases[i].usable) {
            fake_body(call(world, at), "2345", 4);
            fake_done(call(world, at), 0);
            expect_body(world, "2345");
            expect_done(world, 0);
            continue;
        }
        assert_true(call(world, at)->cancelled);
        assert_true(fake_next_call(&world->fake, world->origin)); /* once again */
        fake_head(call(world, at + 1), cases[i].status, cases[i].headers, cases[i].content_length);
        assert_false(fake_next_call(&world->fake, world->origin));
        assert_int_equal(world->caller.body_bytes, 0);
        expect_done(world, E_RANGE);
    }
}

static void lie_then_truth_about_the_size(void **state)
{
    struct world *world = *state;

    ranged(world, 2, 5);
    world->request.size_bytes = UINT64_MAX;
    start(world);
    fake_head(call(world, 0), 200, "", 7);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 206, "content-range: bytes 2-5/10\n", "2345");
    expect_body(world, "2345");
    expect_done(world, 0);
}

static void range_over_the_end_of_an_unknown_size(void **state)
{
    struct world *world = *state;

    ranged(world, 6, 100);
    world->request.size_bytes = UINT64_MAX;
    start(world);
    fake_answer(call(world, 0), 206, "content-range: bytes 6-9/10\n", "6789");
    expect_body(world, "6789");
    expect_done(world, 0);
}

static void ignored_range_that_was_the_whole(void **state)
{
    struct world *world = *state;

    ranged(world, 0, 9);
    start(world);
    fake_answer(call(world, 0), 200, "", "0123456789");
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

static void ignored_range_to_the_end_is_skipped_forward(void **state)
{
    struct world *world = *state;

    ranged(world, 7, 9);
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "01234", 5);
    fake_body(call(world, 0), "56789", 5);
    fake_done(call(world, 0), 0);
    expect_body(world, "789");
    expect_done(world, 0);
}

/* INT-8: the size must agree, and not a byte more. */
static void sizes_must_agree(void **state)
{
    struct world *world = *state;
    unsigned calls;

    start(world);
    for (unsigned i = 0; i < 2; i++) {
        fake_head(call(world, i), 200, "", 11);
        (void)fake_next_call(&world->fake, world->origin);
    }
    expect_done(world, E_RANGE);
    caller_init(&world->caller, &world->fake, world->origin);
    calls = world->fake.call_count;
    start(world);
    fake_head(call(world, calls), 200, "", UINT64_MAX);
    fake_body(call(world, calls), "0123456789extra", 15);
    assert_true(call(world, calls)->cancelled);
    expect_body(world, "0123456789");
    expect_done(world, E_TOO_LARGE);
}

static void blob_of_absurd_size_is_refused(void **state)
{
    struct world *world = *state;

    world->request.size_bytes = UINT64_MAX;
    start(world);
    fake_head(call(world, 0), 200, "", BLOB_BYTES_MAX + 1);
    (void)fake_turn(&world->fake, world->origin);
    expect_done(world, E_TOO_LARGE);
}

/* ---- O-6, O-9: resuming ---- */

static void cut_body_is_resumed_through_the_registry(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    fake_head(call(world, 1), 200, "", 10);
    fake_body(call(world, 1), "0123", 4);
    fake_done(call(world, 1), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 2)->url, HERE); /* the redirect is resolved anew */
    assert_string_equal(fake_sent(call(world, 2), "Authorization", 0), "Bearer TOPSECRET");
    assert_string_equal(fake_sent(call(world, 2), "Range", 0), "bytes=4-9");
    fake_answer(call(world, 2), 307, "location: https://oss.test/data/2\n", "");
    assert_string_equal(fake_sent(call(world, 3), "Range", 0), "bytes=4-9");
    fake_answer(call(world, 3), 206, "content-range: bytes 4-9/10\n", "456789");
    expect_body(world, "0123456789");
    assert_int_equal(world->caller.status, 200);
    expect_done(world, 0);
    assert_true(origin_counters(world->origin)->resumes == 1);
    assert_true(origin_counters(world->origin)->retries == 0);
}

static void short_body_without_error_is_a_cut(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", UINT64_MAX);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), 0);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(fake_sent(call(world, 1), "Range", 0), "bytes=4-9");
    fake_head(call(world, 1), 200, "", 10); /* a server without ranges: skipped forward */
    fake_body(call(world, 1), "012", 3);
    fake_body(call(world, 1), "3456789", 7);
    fake_done(call(world, 1), 0);
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

static void error_after_the_last_byte_is_no_error(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", UINT64_MAX);
    fake_body(call(world, 0), "0123456789", 10);
    fake_done(call(world, 0), E_CLOSED);
    expect_done(world, 0);
}

static void resumed_part_is_checked(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_TIMEOUT);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_head(call(world, 1), 206, "content-range: bytes 5-9/10\n", 5); /* off by one */
    assert_true(call(world, 1)->cancelled);
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(fake_sent(call(world, 2), "Range", 0), "bytes=4-9");
    fake_answer(call(world, 2), 206, "content-range: bytes 4-9/10\n", "456789");
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

/* A resumed body whose registry says 401 ends; no second head, and nothing of the error's text. */
static void refused_resume_ends_without_second_head(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 401, "", "denied");
    (void)fake_turn(&world->fake, world->origin);
    expect_body(world, "0123");
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->caller.last_status, 401);
}

static void resume_answered_without_bytes_ends(void **state)
{
    struct world *world = *state;

    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_CLOSED);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 304, "", "odd text");
    (void)fake_turn(&world->fake, world->origin);
    expect_body(world, "0123");
    expect_done(world, E_ORIGIN);
}

static void resumes_are_counted_and_end(void **state)
{
    struct world *world = *state;
    static const uint8_t zeros[100];
    char headers[64];
    unsigned i = 0;

    world->request.size_bytes = 1000;
    start(world);
    fake_head(call(world, 0), 200, "", 1000);
    do {
        (void)fake_body(call(world, i), zeros, 1);
        fake_done(call(world, i), E_CLOSED);
        if (!fake_next_call(&world->fake, world->origin))
            break;
        i++;
        (void)snprintf(headers, sizeof headers, "content-range: bytes %u-999/1000\n", i);
        fake_head(call(world, i), 206, headers, 1000 - i);
    } while (i < 100);
    assert_int_equal(i, ORIGIN_RESUMES_MAX);
    assert_int_equal(world->caller.heads, 1);
    expect_done(world, E_CLOSED);
}

/* ---- pausing and cancelling ---- */

static void pause_reaches_the_engine(void **state)
{
    struct world *world = *state;

    world->caller.pause = true;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    assert_false(fake_body(call(world, 0), "01234", 5));
    assert_true(call(world, 0)->paused);
    caller_resume(&world->caller);
    assert_false(call(world, 0)->paused);
    fake_body(call(world, 0), "56789", 5);
    fake_done(call(world, 0), 0);
    expect_done(world, 0);
}

static void end_waits_for_a_paused_caller(void **state)
{
    struct world *world = *state;

    world->caller.pause = true;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123456789", 10);
    fake_done(call(world, 0), 0);
    assert_int_equal(world->caller.dones, 0);
    caller_resume(&world->caller);
    assert_int_equal(world->caller.dones, 0);
    assert_true(fake_turn(&world->fake, world->origin));
    expect_done(world, 0);
}

static void cut_while_paused_waits_too(void **state)
{
    struct world *world = *state;

    world->caller.pause = true;
    start(world);
    fake_head(call(world, 0), 200, "", 10);
    fake_body(call(world, 0), "0123", 4);
    fake_done(call(world, 0), E_CLOSED);
    assert_false(fake_next_call(&world->fake, world->origin));
    caller_resume(&world->caller);
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 206, "content-range: bytes 4-9/10\n", "456789");
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

static void cancel_at_every_point(void **state)
{
    struct world *world = *state;

    for (unsigned point = 0; point < 6; point++) {
        unsigned at = world->fake.call_count;

        caller_init(&world->caller, &world->fake, world->origin);
        world->caller.cancel_in_head = point == 1;
        world->caller.cancel_in_body = point == 2;
        start(world);
        if (point == 0) {
            origin_cancel(world->origin, world->caller.fetch);
            assert_true(call(world, at)->cancelled);
            continue;
        }
        if (point == 3) { /* between failure and retry */
            fake_done(call(world, at), E_CLOSED);
            origin_cancel(world->origin, world->caller.fetch);
            assert_false(fake_next_call(&world->fake, world->origin));
            continue;
        }
        if (point == 4) /* while a held-back answer arrives */
            fake_head(call(world, at), 404, "", 10);
        else
            fake_head(call(world, at), 200, "", 10);
        fake_body(call(world, at), "01", 2);
        if (point >= 4)
            origin_cancel(world->origin, world->caller.fetch);
        assert_true(call(world, at)->cancelled);
    }
    (void)fake_turn(&world->fake, world->origin);
    assert_int_equal(world->fake.allocations, 1);
}

static void cancel_in_a_held_back_delivery(void **state)
{
    struct world *world = *state;

    world->caller.cancel_in_body = true;
    start(world);
    fake_answer(call(world, 0), 404, "", "text");
    assert_int_equal(world->caller.bodies, 1);
    assert_int_equal(world->fake.allocations, 1);
}

/* ---- RES-5, O-4, O-5 ---- */

static void passing_status_is_retried_then_passed_on(void **state)
{
    struct world *world = *state;
    uint64_t started = world->fake.now_us;

    world->request.kind = ORIGIN_MANIFEST;
    start(world);
    for (unsigned i = 0; i < ORIGIN_TRIES_MAX; i++) {
        assert_int_equal(world->caller.heads, 0);
        fake_answer(call(world, i), 503, "x-try: y\n", "busy");
        (void)fake_next_call(&world->fake, world->origin);
    }
    assert_int_equal(world->fake.call_count, ORIGIN_TRIES_MAX);
    assert_true(world->fake.now_us - started <= ORIGIN_WINDOW_US);
    assert_int_equal(world->caller.status, 503);
    assert_string_equal(world->caller.headers, "x-try: y\n");
    expect_body(world, "busy");
    expect_done(world, E_ORIGIN);
}

static void passing_status_then_success(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 502, "", "bad gateway");
    assert_true(fake_next_call(&world->fake, world->origin));
    fake_answer(call(world, 1), 200, "", "0123456789");
    assert_int_equal(world->caller.status, 200);
    expect_body(world, "0123456789");
    expect_done(world, 0);
}

static void lasting_errors_are_not_retried(void **state)
{
    struct world *world = *state;
    static const int errors[] = {E_TLS, E_REFUSED, E_TOO_LARGE, E_NO_MEMORY};
    static const int statuses[] = {400, 401, 403, 404, 405, 416, 501};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        unsigned at = world->fake.call_count;

        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_done(call(world, at), errors[i]);
        assert_false(fake_next_call(&world->fake, world->origin));
        expect_done(world, errors[i]);
    }
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        unsigned at = world->fake.call_count;

        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_answer(call(world, at), statuses[i], "", "");
        assert_false(fake_next_call(&world->fake, world->origin));
        assert_int_equal(world->caller.status, statuses[i]);
        expect_done(world, E_ORIGIN);
    }
}

static void unreachable_is_retried_within_the_window(void **state)
{
    struct world *world = *state;

    start(world);
    assert_int_equal(call(world, 0)->connect_timeout_ms, ORIGIN_CONNECT_MS);
    world->fake.now_us += 5000000;
    fake_done(call(world, 0), E_TIMEOUT);
    assert_true(fake_next_call(&world->fake, world->origin));
    /* What is left of the ten seconds bounds the second try. */
    assert_true(call(world, 1)->first_byte_timeout_ms <= 5000);
    world->fake.now_us += 4999000;
    fake_done(call(world, 1), E_TIMEOUT);
    assert_false(fake_next_call(&world->fake, world->origin));
    assert_int_equal(world->caller.heads, 0);
    expect_done(world, E_TIMEOUT);
}

/* O-4: a blob waits as told if that fits; else, and for what a runtime asks, 429 goes up. */
static void retry_after_is_honoured(void **state)
{
    struct world *world = *state;
    uint64_t asked;

    start(world);
    asked = world->fake.now_us;
    fake_answer(call(world, 0), 429, "retry-after: 3\n", "");
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_in_range(world->fake.now_us - asked, 3000000, 3500000);
    fake_answer(call(world, 1), 429, "retry-after: 30\n", "slow");
    assert_false(fake_next_call(&world->fake, world->origin));
    assert_int_equal(world->caller.status, 429);
    assert_non_null(strstr(world->caller.headers, "retry-after: 30"));
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->caller.retry_after_ms, 30000);

    caller_init(&world->caller, &world->fake, world->origin);
    world->request.kind = ORIGIN_MANIFEST;
    start(world);
    fake_answer(call(world, 2), 429, "retry-after: 1\n", "");
    assert_false(fake_next_call(&world->fake, world->origin));
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->caller.retry_after_ms, 1000);
}

static void retries_stay_under_a_tenth(void **state)
{
    struct world *world = *state;
    const struct origin_counters *counters = origin_counters(world->origin);
    unsigned requests = 2000;

    for (unsigned i = 0; i < requests; i++) {
        world->fake.call_count = 0;
        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_answer(call(world, 0), 500, "", "");
        while (fake_next_call(&world->fake, world->origin))
            fake_answer(call(world, world->fake.call_count - 1), 500, "", "");
        expect_done(world, E_ORIGIN);
    }
    assert_int_equal(counters->requests, requests);
    assert_in_range(counters->retries, requests / 20, requests / 10 + 3);
    assert_true(counters->retries_refused > 0);
}

static void buckets_are_per_registry(void **state)
{
    struct world *world = *state;

    for (unsigned i = 0; i < 50; i++) {
        world->fake.call_count = 0;
        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_answer(call(world, 0), 500, "", "");
        while (fake_next_call(&world->fake, world->origin))
            fake_answer(call(world, world->fake.call_count - 1), 500, "", "");
    }
    (void)snprintf(world->entry.name, sizeof world->entry.name, "other.test");
    world->fake.call_count = 0;
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    fake_answer(call(world, 0), 500, "", "");
    assert_true(fake_next_call(&world->fake, world->origin));
}

/* ---- redirect targets: O-9, ACR §7 ---- */

static void expired_target_is_resolved_once_more(void **state)
{
    struct world *world = *state;

    start(world);
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(call(world, 2 * i)->url, HERE);
        fake_answer(call(world, 2 * i), 307, TO_STORE, "");
        fake_answer(call(world, 2 * i + 1), 403, "", "<Error>Request has expired.</Error>");
        (void)fake_next_call(&world->fake, world->origin);
    }
    assert_int_equal(world->fake.call_count, 4);
    assert_int_equal(world->caller.status, 403);
    expect_done(world, E_ORIGIN);
}

static void fetch_range(struct world *world, uint64_t first, const char *headers)
{
    caller_init(&world->caller, &world->fake, world->origin);
    ranged(world, first, first + 1);
    start(world);
    if (strcmp(call(world, world->fake.call_count - 1)->url, HERE) == 0)
        fake_answer(call(world, world->fake.call_count - 1), 307, TO_STORE, "");
    assert_string_equal(call(world, world->fake.call_count - 1)->url, STORE);
    fake_answer(call(world, world->fake.call_count - 1), 206, headers, "ab");
}

static void target_is_remembered_for_a_minute(void **state)
{
    struct world *world = *state;

    fetch_range(world, 0, "content-range: bytes 0-1/10\n");
    expect_done(world, 0);
    assert_int_equal(world->fake.call_count, 2);
    fetch_range(world, 2, "content-range: bytes 2-3/10\n");
    expect_done(world, 0);
    assert_int_equal(world->fake.call_count, 3); /* straight to the store */
    assert_null(fake_sent(call(world, 2), "Authorization", 0));
    assert_true(origin_counters(world->origin)->redirects_reused == 1);
    world->fake.now_us += ORIGIN_TARGET_LIFE_US;
    fetch_range(world, 4, "content-range: bytes 4-5/10\n");
    assert_int_equal(world->fake.call_count, 5); /* the registry is asked again */
    /* Other credentials never profit (ACL-1). */
    world->request.authorization = "Bearer other";
    fetch_range(world, 4, "content-range: bytes 4-5/10\n");
    assert_int_equal(world->fake.call_count, 7);
}

static void dead_target_is_dropped_and_resolved_anew(void **state)
{
    struct world *world = *state;

    fetch_range(world, 0, "content-range: bytes 0-1/10\n");
    caller_init(&world->caller, &world->fake, world->origin);
    ranged(world, 2, 3);
    start(world);
    assert_string_equal(call(world, 2)->url, STORE);
    fake_answer(call(world, 2), 403, "", "expired");
    assert_true(fake_next_call(&world->fake, world->origin));
    assert_string_equal(call(world, 3)->url, HERE);
    fake_answer(call(world, 3), 401, "www-authenticate: Bearer realm=\"x\"\n", "");
    assert_int_equal(world->caller.status, 401);
    expect_done(world, E_ORIGIN);
    assert_true(origin_counters(world->origin)->retries == 0);
}

/* ---- time and dates ---- */

static void http_dates(void **state)
{
    uint64_t seconds;

    (void)state;
    assert_true(origin__http_date("Sun, 06 Nov 1994 08:49:37 GMT", &seconds));
    assert_true(seconds == 784111777);
    assert_true(origin__http_date("Thu, 29 Feb 2024 23:59:59 GMT", &seconds));
    assert_true(seconds == 1709251199);
    assert_true(origin__http_date("Fri, 01 Mar 2024 00:00:00 GMT", &seconds));
    assert_true(seconds == 1709251200);
    assert_true(origin__http_date("Thu, 01 Jan 1970 00:00:00 GMT", &seconds));
    assert_true(seconds == 0);
    assert_true(origin__http_date("Mon, 01 Mar 2100 00:00:00 GMT", &seconds));
    assert_true(seconds == 4107542400);
    assert_false(origin__http_date("Sunday, 06-Nov-94 08:49:37 GMT", &seconds));
    assert_false(origin__http_date("Sun Nov  6 08:49:37 1994", &seconds));
    assert_false(origin__http_date("Sun, 06 Nox 1994 08:49:37 GMT", &seconds));
    assert_false(origin__http_date("Sun, 06 Nov 1994 28:49:37 GMT", &seconds));
    assert_false(origin__http_date("Sun, 00 Nov 1994 08:49:37 GMT", &seconds));
    assert_false(origin__http_date("", &seconds));
}

static uint32_t retry_after(const char *value, const char *date)
{
    struct fetch_header headers[] = {{"retry-after", value}, {"date", date}};
    struct fetch_response response = {429, headers, date == NULL ? 1 : 2, 0};

    return origin__retry_after_ms(&response);
}

static void retry_after_values(void **state)
{
    static const char now[] = "Sun, 06 Nov 1994 08:49:37 GMT";

    (void)state;
    assert_int_equal(retry_after("0", NULL), 0);
    assert_int_equal(retry_after("7", NULL), 7000);
    assert_int_equal(retry_after("61", NULL), 60000);
    assert_int_equal(retry_after("99999999999999999999", NULL), 60000);
    assert_int_equal(retry_after("-3", NULL), 0);
    assert_int_equal(retry_after("soon", NULL), 0);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), 10000);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 09:49:47 GMT", now), 60000);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:30 GMT", now), 0);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", NULL), 0);
}

static void forbidden_moves(void **state)
{
    unsigned allowed = 0;

    (void)state;
    for (int from = ORIGIN_REQUESTING; from <= ORIGIN_ENDED; from++)
        for (int to = ORIGIN_REQUESTING; to <= ORIGIN_ENDED; to++)
            allowed += origin__move_allowed((enum origin_state)from, (enum origin_state)to);
    assert_int_equal(allowed, 13 + 7); /* the table, and ENDED from each other state */
    assert_false(origin__move_allowed(ORIGIN_STREAMING, ORIGIN_COLLECTING));
    assert_false(origin__move_allowed(ORIGIN_DELIVERING, ORIGIN_STREAMING));
    assert_false(origin__move_allowed(ORIGIN_ENDED, ORIGIN_ENDED));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(whole_blob_passes_through),
        TEST(request_is_copied),
        TEST(empty_blob_ends_well),
        TEST(unknown_size_is_learnt),
        TEST(bad_requests_are_refused),
        TEST(engine_refusal_is_returned),
        TEST(fetches_are_bounded),
        TEST(accept_lines_stay_separate),
        TEST(surplus_accept_lines_share_the_last),
        TEST(empty_basic_is_no_credential),
        TEST(redirect_drops_credentials),
        TEST(redirect_targets),
        TEST(redirects_refused),
        TEST(http_registry_may_redirect_to_http),
        TEST(credentials_do_not_return),
        TEST(five_hops_and_no_more),
        TEST(endless_redirect_body_is_cut),
        TEST(pool_keys_differ),
        TEST(entry_settings_reach_every_hop),
        TEST(challenge_is_relayed),
        TEST(not_found_is_final),
        TEST(short_error_body_is_complete),
        TEST(long_error_body_is_cut),
        TEST(manifest_is_shown_complete_only),
        TEST(large_documents_are_refused),
        TEST(held_back_bytes_are_bounded_in_sum),
        TEST(document_is_delivered_with_pauses),
        TEST(head_requests),
        TEST(head_of_another_size_is_wrong),
        TEST(head_is_probed_where_only_get_works),
        TEST(range_answers),
        TEST(lie_then_truth_about_the_size),
        TEST(range_over_the_end_of_an_unknown_size),
        TEST(ignored_range_that_was_the_whole),
        TEST(ignored_range_to_the_end_is_skipped_forward),
        TEST(sizes_must_agree),
        TEST(blob_of_absurd_size_is_refused),
        TEST(cut_body_is_resumed_through_the_registry),
        TEST(short_body_without_error_is_a_cut),
        TEST(error_after_the_last_byte_is_no_error),
        TEST(resumed_part_is_checked),
        TEST(refused_resume_ends_without_second_head),
        TEST(resume_answered_without_bytes_ends),
        TEST(resumes_are_counted_and_end),
        TEST(pause_reaches_the_engine),
        TEST(end_waits_for_a_paused_caller),
        TEST(cut_while_paused_waits_too),
        TEST(cancel_at_every_point),
        TEST(cancel_in_a_held_back_delivery),
        TEST(passing_status_is_retried_then_passed_on),
        TEST(passing_status_then_success),
        TEST(lasting_errors_are_not_retried),
        TEST(unreachable_is_retried_within_the_window),
        TEST(retry_after_is_honoured),
        TEST(retries_stay_under_a_tenth),
        TEST(buckets_are_per_registry),
        TEST(expired_target_is_resolved_once_more),
        TEST(target_is_remembered_for_a_minute),
        TEST(dead_target_is_dropped_and_resolved_anew),
        TEST(http_dates),
        TEST(retry_after_values),
        TEST(forbidden_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
