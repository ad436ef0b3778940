/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin client against a scripted server: what is asked of whom (ORG-3, ORG-5), what the
 * caller is shown, ranges (O-8), limits (ORG-7, INT-8).
 */
#include "registry_world.h"

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
    (void)snprintf(world->entry.proxy, sizeof world->entry.proxy, "http://proxy.test:3128");
    address_ranges_private(&world->entry.allow_private, true);
    start(world);
    fake_answer(call(world, 0), 307, TO_STORE, "");
    for (unsigned i = 0; i < 2; i++) {
        assert_true(call(world, i)->allow_private);
        assert_string_equal(call(world, i)->ca_file, "/etc/ca.pem");
        assert_string_equal(call(world, i)->proxy, "http://proxy.test:3128");
    }
    fake_answer(call(world, 1), 200, "", "0123456789");
    expect_done(world, 0);
}

/* ORG-3: who we are is shown to the registry, and not to where it sends us; not even when the store
 * is remembered from an earlier answer. */
static void client_certificate_stays_with_the_registry(void **state)
{
    struct world *world = *state;

    (void)snprintf(world->entry.client_cert, sizeof world->entry.client_cert, "/etc/me.pem");
    (void)snprintf(world->entry.client_key, sizeof world->entry.client_key, "/etc/me.key");
    start(world);
    assert_string_equal(call(world, 0)->client_cert, "/etc/me.pem");
    assert_string_equal(call(world, 0)->client_key, "/etc/me.key");
    fake_answer(call(world, 0), 307, TO_STORE, "");
    assert_string_equal(call(world, 1)->client_cert, "");
    assert_string_equal(call(world, 1)->client_key, "");
    fake_answer(call(world, 1), 200, "", "0123456789");
    expect_done(world, 0);
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    assert_string_equal(call(world, 2)->url, STORE);
    assert_string_equal(call(world, 2)->client_cert, "");
    fake_answer(call(world, 2), 200, "", "0123456789");
    expect_done(world, 0);
}

/* ORG-2: behind a proxy no address is seen but one that a redirect names. */
static void a_proxy_is_not_sent_to_private_addresses(void **state)
{
    static const char *const locations[] = {
        "location: https://10.0.0.1/x\n",   "location: https://127.0.0.1:8443/x\n",
        "location: https://[fd00::1]/x\n",  "location: https://2852039166/x\n",
        "location: https://0xa9fea9fe/x\n", "location: https://169.254.43518./x\n",
        "location: https://0177.0.0.1/x\n"};
    struct world *world = *state;

    (void)snprintf(world->entry.proxy, sizeof world->entry.proxy, "http://proxy.test:3128");
    for (unsigned i = 0; i < 7; i++) {
        unsigned first = world->fake.call_count;

        caller_init(&world->caller, &world->fake, world->origin);
        start(world);
        fake_answer(call(world, first), 307, locations[i], "");
        while (world->caller.dones == 0 && fake_turn(&world->fake, world->origin))
            ;
        expect_done(world, E_REFUSED);
        assert_int_equal(world->fake.call_count, first + 1);
    }
    address_ranges_private(&world->entry.allow_private, true);
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
    fake_answer(call(world, 7), 307, locations[0], "");
    fake_answer(call(world, 8), 200, "", "0123456789");
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
    assert_false(fake_next_call(&world->fake, world->origin));
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
    while (fake_turn(&world->fake, world->origin))
        ;
    assert_int_equal(world->caller.bodies, 1); /* nothing while it pauses */
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
        TEST(client_certificate_stays_with_the_registry),
        TEST(a_proxy_is_not_sent_to_private_addresses),
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
