/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Origin and libcurl engine together against two servers on loopback, a registry and a store: the
 * two-server leak test (ORG-3), bodies cut at random offsets (O-6), ignored ranges (O-8), expired
 * URLs (O-9), and a registry that answers 503 for a while (O-5).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "bytes.h"
#include "registry_server.h"

#define BLOB_BYTES 300000u
#define BLOB_PATH  "/v2/lib/bb/blobs/sha256:aa"

struct net {
    struct loop loop;
    struct server registry, store;
    struct env env;
    struct origin *origin;
    struct registry_entry entry;
    struct origin_request request;
    struct prng prng;
    char url_store[128];
    /* behaviour */
    unsigned cut_every; /* bytes after which the store cuts a body; 0: never */
    unsigned failures;  /* 503s the registry still owes */
    unsigned expired;   /* 403s the store still owes */
    bool ignore_ranges; /* of the store */
    /* what the caller saw */
    struct origin_fetch *fetch;
    unsigned heads, dones;
    int status, err;
    bool disorder;
    uint8_t *body;
    uint64_t body_bytes;
};

static uint8_t blob[BLOB_BYTES];

static void *test_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static void test_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct net *net = host;

    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&net->prng);
}

static void test_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

static bool serve_registry(struct server *server, int fd, const char *head)
{
    struct net *net = server->arg;
    char location[256];

    if (strstr(head, "Authorization: Bearer good\r\n") == NULL)
        return send_answer(fd, "401 Unauthorized",
                           "WWW-Authenticate: Bearer realm=\"https://auth.test/t\"\r\n", "{}");
    if (net->failures > 0) {
        net->failures--;
        return send_answer(fd, "503 Service Unavailable", "", "busy");
    }
    (void)snprintf(location, sizeof location, "Location: %s/data?Signature=x\r\n", net->url_store);
    return send_answer(fd, "307 Temporary Redirect", location, "");
}

/* As S3: credentials are an error. Ranges as asked, or ignored. */
static bool serve_store(struct server *server, int fd, const char *head)
{
    struct net *net = server->arg;
    const char *range = strstr(head, "Range: bytes=");
    unsigned long first = 0, last = BLOB_BYTES - 1;
    size_t bytes;
    char answer[256];

    if (strstr(head, "Authorization") != NULL || strstr(head, "Cookie") != NULL)
        return send_answer(fd, "400 Bad Request", "", "credentials leaked");
    if (net->expired > 0) {
        net->expired--;
        return send_answer(fd, "403 Forbidden", "", "expired");
    }
    if (range != NULL && !net->ignore_ranges) {
        char *end;

        first = strtoul(range + 13, &end, 10);
        last = strtoul(end + 1, NULL, 10);
        (void)snprintf(answer, sizeof answer,
                       "HTTP/1.1 206 Partial\r\nContent-Length: %lu\r\n"
                       "Content-Range: bytes %lu-%lu/%u\r\n\r\n",
                       last - first + 1, first, last, BLOB_BYTES);
    } else {
        (void)snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n",
                       BLOB_BYTES);
    }
    bytes = last - first + 1;
    if (net->cut_every != 0 && bytes > net->cut_every)
        bytes = net->cut_every;
    return send_text(fd, answer) && send_all(fd, blob + first, bytes) && bytes == last - first + 1;
}

static void on_head(void *arg, const struct fetch_response *response)
{
    struct net *net = arg;

    net->disorder |= net->heads > 0 || net->dones > 0;
    net->heads++;
    net->status = response->status;
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct net *net = arg;

    net->disorder |= net->heads != 1 || net->dones > 0;
    if (net->body_bytes + byte_count <= BLOB_BYTES)
        memcpy(net->body + net->body_bytes, bytes, byte_count);
    net->body_bytes += byte_count;
    return true;
}

static void on_done(void *arg, int err)
{
    struct net *net = arg;

    net->disorder |= net->dones > 0;
    net->dones++;
    net->err = err;
}

static int set_up(void **state)
{
    struct net *net = calloc(1, sizeof *net);
    static const uint8_t seed[] = "net";

    prng_seed(&net->prng, seed, sizeof seed);
    net->body = calloc(1, BLOB_BYTES);
    server_start(&net->registry, serve_registry, net);
    server_start(&net->store, serve_store, net);
    loop_init(&net->loop, 0);
    net->env =
        (struct env){.host = net, .alloc = test_alloc, .random = test_random, .trace = test_trace};
    assert_int_equal(origin_new(&net->env, &net->loop.engine,
                                &(struct origin_timer){&net->loop, loop_origin_timer},
                                &net->origin),
                     0);
    net->loop.origin = net->origin;
    (void)snprintf(net->entry.name, sizeof net->entry.name, "registry.test");
    (void)snprintf(net->entry.endpoint, sizeof net->entry.endpoint, "http://127.0.0.1:%u",
                   (unsigned)net->registry.port);
    (void)snprintf(net->url_store, sizeof net->url_store, "http://127.0.0.1:%u",
                   (unsigned)net->store.port);
    address_ranges_private(&net->entry.allow_private, true);
    net->request = (struct origin_request){.registry = &net->entry,
                                           .kind = ORIGIN_BLOB,
                                           .method = "GET",
                                           .path_and_query = BLOB_PATH,
                                           .authorization = "Bearer good",
                                           .size_bytes = BLOB_BYTES,
                                           .whole = true};
    *state = net;
    return 0;
}

static int tear_down(void **state)
{
    struct net *net = *state;

    origin_free(net->origin);
    net->loop.engine.close(net->loop.engine.self);
    server_stop(&net->registry);
    server_stop(&net->store);
    assert_false(net->disorder);
    free(net->body);
    free(net);
    return 0;
}

static void run(struct net *net)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    uint64_t end = loop_ms() + 8000;

    net->heads = net->dones = 0;
    net->body_bytes = 0;
    memset(net->body, 0, BLOB_BYTES);
    assert_int_equal(
        origin_start(net->origin, loop_ms() * 1000, &net->request, &callbacks, net, &net->fetch),
        0);
    while (net->dones == 0 && loop_ms() < end)
        loop_turn(&net->loop, 100);
    assert_int_equal(net->dones, 1);
}

static void expect_blob(struct net *net)
{
    assert_int_equal(net->err, 0);
    assert_int_equal(net->body_bytes, BLOB_BYTES);
    assert_memory_equal(net->body, blob, BLOB_BYTES);
}

/* ORG-3. The store answers 400 to any credential; the heads it saw are searched as well. */
static void credentials_stay_at_the_registry(void **state)
{
    struct net *net = *state;

    run(net);
    expect_blob(net);
    assert_int_equal(net->status, 200);
    assert_non_null(strstr(net->registry.heads[0], "Authorization: Bearer good\r\n"));
    assert_null(strstr(net->store.heads[0], "good"));
    assert_null(strstr(net->store.heads[0], "Cookie"));
}

static void challenge_arrives(void **state)
{
    struct net *net = *state;

    net->request.authorization = NULL;
    run(net);
    assert_int_equal(net->status, 401);
    assert_int_equal(net->err, E_ORIGIN);
}

static void cut_bodies_are_resumed(void **state)
{
    struct net *net = *state;

    net->cut_every = 70001; /* five connections for one blob */
    run(net);
    expect_blob(net);
    assert_int_equal(net->heads, 1);
    assert_true(origin_counters(net->origin)->resumes == 4);
    /* Each time through the registry: the URL may have ended (O-9). */
    assert_int_equal(server_requests(&net->registry), 5);
}

static void cut_and_ranges_ignored(void **state)
{
    struct net *net = *state;

    net->cut_every = 200000;
    net->ignore_ranges = true;
    net->request.authorization = "Bearer good";
    run(net);
    /* The second answer starts over, is skipped forward, and cut at the same byte: no progress. The
       bytes that were delivered are right all the same (O-8). */
    assert_int_equal(net->err, E_CLOSED);
    assert_int_equal(net->body_bytes, 200000);
    assert_memory_equal(net->body, blob, 200000);
}

static void ignored_range_is_an_error(void **state)
{
    struct net *net = *state;

    net->ignore_ranges = true;
    net->request.whole = false;
    net->request.first = 1000;
    net->request.last = 1999;
    run(net);
    assert_int_equal(net->err, E_RANGE);
    assert_int_equal(net->heads, 0);
    assert_int_equal(net->body_bytes, 0);
}

static void ranges_are_exact(void **state)
{
    struct net *net = *state;

    net->request.whole = false;
    for (unsigned i = 0; i < 10; i++) {
        net->request.first = prng_below(&net->prng, BLOB_BYTES);
        net->request.last =
            net->request.first + prng_below(&net->prng, BLOB_BYTES - net->request.first);
        run(net);
        assert_int_equal(net->err, 0);
        assert_int_equal(net->body_bytes, net->request.last - net->request.first + 1);
        assert_memory_equal(net->body, blob + net->request.first, net->body_bytes);
    }
    assert_int_equal(server_requests(&net->registry), 1); /* one redirect serves them all */
}

static void expired_url_is_resolved_anew(void **state)
{
    struct net *net = *state;

    net->expired = 1;
    run(net);
    expect_blob(net);
    assert_int_equal(server_requests(&net->registry), 2);
}

static void passing_outage_is_survived(void **state)
{
    struct net *net = *state;

    net->failures = 2;
    run(net);
    expect_blob(net);
    assert_int_equal(server_requests(&net->registry), 3);
}

static void lasting_outage_is_passed_on(void **state)
{
    struct net *net = *state;

    net->failures = 100;
    run(net);
    assert_int_equal(net->status, 503);
    assert_int_equal(net->err, E_ORIGIN);
    assert_int_equal(server_requests(&net->registry), 3);
}

static void private_address_needs_permission(void **state)
{
    struct net *net = *state;

    /* The registry is on loopback: no private network is that. */
    address_ranges_private(&net->entry.allow_private, false);
    run(net);
    assert_int_equal(net->err, E_REFUSED);
    net->entry.allow_private.count = 0;
    run(net);
    assert_int_equal(net->err, E_REFUSED);
    assert_int_equal(server_connections(&net->registry), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(credentials_stay_at_the_registry), TEST(challenge_arrives),
        TEST(cut_bodies_are_resumed),           TEST(cut_and_ranges_ignored),
        TEST(ignored_range_is_an_error),        TEST(ranges_are_exact),
        TEST(expired_url_is_resolved_anew),     TEST(passing_outage_is_survived),
        TEST(lasting_outage_is_passed_on),      TEST(private_address_needs_permission),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(60);
    for (size_t i = 0; i < BLOB_BYTES; i++)
        blob[i] = (uint8_t)(i * 2654435761u >> 11);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
