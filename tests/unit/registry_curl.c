/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The libcurl engine against a scripted server on loopback: order of callbacks, what is sent, what
 * is refused (ORG-2, ORG-7), pools (ORG-5), timeouts, pausing, cancelling, re-entrancy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "../../src/registry/fetch_curl.h"
#include "registry_server.h"

#define BIG_BYTES (8u << 20)

struct world {
    struct loop loop;
    struct server server;
    struct fetch_request request;
    char url[256];
    struct client client, other;
};

static uint8_t big[BIG_BYTES];

static bool has(const char *head, const char *line)
{
    return strstr(head, line) != NULL;
}

/* What the server does, by path. */
static bool serve(struct server *server, int fd, const char *head)
{
    (void)server;
    if (has(head, " /hello "))
        return send_answer(fd, "200 OK", "X-Case: MiXed\r\nX-Twice: 1\r\nX-Twice: 2\r\n", "hello");
    if (has(head, " /echo ")) {
        const char *length = strstr(head, "Content-Length: ");
        static char body[FETCH_BODY_BYTES_MAX + 1];
        size_t bytes = length == NULL ? 0 : strtoul(length + 16, NULL, 10);

        if (bytes > 0 && recv(fd, body, bytes, MSG_WAITALL) != (ssize_t)bytes)
            return false;
        body[bytes] = '\0';
        return send_answer(fd, "200 OK", "", body);
    }
    if (has(head, " /redirect "))
        return send_answer(fd, "307 Temporary Redirect", "Location: /hello\r\n", "");
    if (has(head, " /big ")) {
        char answer[100];

        (void)snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n",
                       BIG_BYTES);
        return send_text(fd, answer) && send_all(fd, big, BIG_BYTES);
    }
    if (has(head, " /cut ")) {
        (void)send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        return false;
    }
    if (has(head, " /silent ")) {
        char byte;

        (void)recv(fd, &byte, 1, 0); /* until the client or the test hangs up */
        return false;
    }
    if (has(head, " /stall ")) {
        char byte;

        (void)send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        (void)recv(fd, &byte, 1, 0);
        return false;
    }
    if (has(head, " /drip ")) {
        bool ok = send_text(fd, "HTTP/1.1 200 OK\r\n");

        for (int i = 0; i < 200 && ok; i++) {
            ok = send_text(fd, "X-Drip: 1\r\n");
            (void)usleep(20000);
        }
        return false;
    }
    if (has(head, " /interim ")) {
        bool ok = true;

        for (int i = 0; i < 10000 && ok; i++)
            ok = send_text(fd, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        return false;
    }
    if (has(head, " /headers ")) {
        static char value[1001];
        bool ok = send_text(fd, "HTTP/1.1 200 OK\r\n");

        memset(value, 'v', sizeof value - 1);
        for (int i = 0; i < 66 && ok; i++)
            ok = send_text(fd, "X-Big: ") && send_text(fd, value) && send_text(fd, "\r\n");
        return false;
    }
    if (has(head, " /chunked "))
        return send_text(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
                             "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
                             "5\r\nhello\r\n0\r\nX-T: late\r\n\r\n");
    if (has(head, " /gzip "))
        return send_answer(fd, "200 OK", "Content-Encoding: gzip\r\n", "not really gzip");
    if (has(head, " /garbage ")) {
        (void)send_text(fd, "SSH-2.0-OpenSSH_9\r\n");
        return false;
    }
    if (has(head, " /close "))
        return false;
    return send_answer(fd, "404 Not Found", "", "nothing here");
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    server_start(&world->server, serve, NULL);
    loop_init(&world->loop, 0);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;

    world->loop.engine.close(world->loop.engine.self);
    for (int fd = 0; fd < LOOP_FDS_MAX; fd++)
        assert_int_equal(world->loop.events[fd], 0); /* nothing stays watched */
    server_stop(&world->server);
    assert_false(world->client.disorder);
    assert_false(world->other.disorder);
    free(world);
    return 0;
}

static void start(struct world *world, struct client *client, const char *path)
{
    client_request(&world->request, world->url, &world->server, path);
    assert_int_equal(client_start(client, &world->loop, &world->request), 0);
}

static void fetch(struct world *world, const char *path, int err)
{
    memset(&world->client, 0, sizeof world->client);
    start(world, &world->client, path);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, err);
}

static void get_is_answered(void **state)
{
    struct world *world = *state;

    fetch(world, "/hello", 0);
    assert_int_equal(world->client.status, 200);
    assert_int_equal(world->client.content_length, 5);
    assert_string_equal(world->client.headers,
                        "content-length: 5\nx-case: MiXed\nx-twice: 1\nx-twice: 2\n");
    assert_memory_equal(world->client.first_bytes, "hello", 5);
    assert_int_equal(world->client.body_bytes, 5);
}

static void version_6_is_spoken(void **state)
{
    struct world *world = *state;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct server server;

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0) {
        close(listener);
        skip(); /* this machine has no IPv6 */
    }
    server_start_on(&server, listener, serve, NULL);
    client_request(&world->request, world->url, &server, "/hello");
    (void)snprintf(world->url, sizeof world->url, "http://[::1]:%u/hello", (unsigned)server.port);
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, 0);
    assert_int_equal(world->client.body_bytes, 5);
    memset(&world->client, 0, sizeof world->client);
    world->request.allow_private = NULL;
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, E_REFUSED);
    assert_int_equal(server_connections(&server), 1);
    server_stop(&server);
}

static void errors_are_answers(void **state)
{
    struct world *world = *state;

    fetch(world, "/none", 0);
    assert_int_equal(world->client.status, 404);
    assert_int_equal(world->client.body_bytes, 12);
}

static void request_is_sent_as_given(void **state)
{
    struct world *world = *state;
    const char *head = world->server.heads[0];

    client_request(&world->request, world->url, &world->server, "/a/../hello?x=%2f");
    world->request.headers[0] = (struct fetch_header){"Accept", "a/b"};
    world->request.headers[1] = (struct fetch_header){"Accept", "c/d;q=0.5"};
    world->request.headers[2] = (struct fetch_header){"Authorization", "Bearer x"};
    world->request.header_count = 3;
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    memset(world->url, 'x', 10); /* copied */
    assert_true(client_wait(&world->client));
    assert_non_null(strstr(head, "GET /a/../hello?x=%2f HTTP/1.1\r\n"));
    assert_non_null(strstr(head, "\r\nAccept: a/b\r\nAccept: c/d;q=0.5\r\n"));
    assert_non_null(strstr(head, "\r\nAuthorization: Bearer x\r\n"));
    assert_non_null(strstr(head, "\r\nAccept-Encoding: identity\r\n"));
    assert_non_null(strstr(head, "\r\nUser-Agent: shoal\r\n"));
    memset(&world->client, 0, sizeof world->client);
    fetch(world, "/hello", 0);
    assert_null(strstr(world->server.heads[1], "\r\nAccept: "));
    assert_null(strstr(world->server.heads[1], "Authorization"));
}

static void head_has_no_body(void **state)
{
    struct world *world = *state;

    client_request(&world->request, world->url, &world->server, "/hello");
    world->request.method = "HEAD";
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, 0);
    assert_int_equal(world->client.content_length, 5);
    assert_int_equal(world->client.bodies, 0);
    assert_non_null(strstr(world->server.heads[0], "HEAD /hello"));
}

/* Cloud APIs: what is sent beyond the given headers would break a signature. */
static void bodies_are_sent_as_given(void **state)
{
    struct world *world = *state;
    static char big_body[FETCH_BODY_BYTES_MAX + 2];

    client_request(&world->request, world->url, &world->server, "/echo");
    world->request.method = "POST";
    world->request.body = "a=b&c=%2B";
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.body_bytes, 9);
    assert_memory_equal(world->client.first_bytes, "a=b&c=%2B", 9);
    assert_non_null(strstr(world->server.heads[0], "POST /echo HTTP/1.1\r\n"));
    assert_non_null(strstr(world->server.heads[0], "\r\nContent-Length: 9\r\n"));
    assert_null(strcasestr(world->server.heads[0], "content-type"));

    memset(&world->client, 0, sizeof world->client);
    world->request.method = "PUT";
    world->request.body = NULL;
    world->request.headers[0] = (struct fetch_header){"content-type", "text/x"};
    world->request.header_count = 1;
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, 0);
    assert_non_null(strstr(world->server.heads[1], "PUT /echo HTTP/1.1\r\n"));
    assert_non_null(strstr(world->server.heads[1], "\r\nContent-Length: 0\r\n"));
    assert_non_null(strstr(world->server.heads[1], "\r\ncontent-type: text/x\r\n"));

    memset(&world->client, 0, sizeof world->client);
    memset(big_body, 'x', FETCH_BODY_BYTES_MAX);
    world->request.body = big_body;
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.body_bytes, FETCH_BODY_BYTES_MAX);
    assert_null(strcasestr(world->server.heads[2], "expect"));
    big_body[FETCH_BODY_BYTES_MAX] = 'x';
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), E_INVALID);
    world->request.body = "x";
    world->request.method = "GET";
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), E_INVALID);
    world->request.body = NULL;
    world->request.method = "DELETE";
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), E_INVALID);
}

/* ORG-3: the engine never follows. */
static void redirects_are_not_followed(void **state)
{
    struct world *world = *state;

    fetch(world, "/redirect", 0);
    assert_int_equal(world->client.status, 307);
    assert_non_null(strstr(world->client.headers, "location: /hello\n"));
    assert_int_equal(server_requests(&world->server), 1);
}

static void chunked_interim_and_trailers(void **state)
{
    struct world *world = *state;

    fetch(world, "/chunked", 0);
    assert_int_equal(world->client.heads, 1);
    assert_int_equal(world->client.status, 200);
    assert_true(world->client.content_length == UINT64_MAX);
    assert_int_equal(world->client.body_bytes, 5);
    assert_null(strstr(world->client.headers, "x-t"));
}

static void codings_are_left_alone(void **state)
{
    struct world *world = *state;

    fetch(world, "/gzip", 0);
    assert_memory_equal(world->client.first_bytes, "not really gzip", 15);
}

static void broken_answers(void **state)
{
    struct world *world = *state;

    fetch(world, "/cut", E_CLOSED);
    assert_int_equal(world->client.heads, 1);
    assert_int_equal(world->client.body_bytes, 4);
    fetch(world, "/garbage", E_CLOSED);
    assert_int_equal(world->client.heads, 0);
    fetch(world, "/close", E_CLOSED);
}

/* ORG-7: 64 KiB of headers, interim ones counted. */
static void headers_are_bounded(void **state)
{
    struct world *world = *state;

    fetch(world, "/headers", E_TOO_LARGE);
    assert_int_equal(world->client.heads, 0);
    fetch(world, "/interim", E_TOO_LARGE);
}

static void timeouts(void **state)
{
    struct world *world = *state;
    static const char *const paths[] = {"/silent", "/stall", "/drip"};

    for (size_t i = 0; i < 3; i++) {
        uint64_t begun = loop_ms();

        memset(&world->client, 0, sizeof world->client);
        client_request(&world->request, world->url, &world->server, paths[i]);
        world->request.first_byte_timeout_ms = 200;
        world->request.idle_timeout_ms = 200;
        assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
        assert_true(client_wait(&world->client));
        assert_int_equal(world->client.err, E_TIMEOUT);
        assert_in_range(loop_ms() - begun, 190, 4500);
    }
    assert_int_equal(world->client.heads, 0); /* of the dripped headers */
}

static void nobody_listens(void **state)
{
    struct world *world = *state;
    struct server gone;

    server_start(&gone, serve, NULL);
    server_stop(&gone);
    client_request(&world->request, world->url, &gone, "/hello");
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, E_UNREACHABLE);
}

/* A name server may take its time; cancelling and closing do not wait for it. */
static void resolving_does_not_hold_the_loop(void **state)
{
    struct world *world = *state;
    uint64_t begun = loop_ms();

    client_request(&world->request, world->url, &world->server, "/hello");
    world->request.url = "http://name.invalid/";
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    loop_turn(&world->loop, 0);
    loop_turn(&world->loop, 0);
    if (world->client.dones == 0)
        world->loop.engine.cancel(world->loop.engine.self, world->client.fetch);
    loop_turn(&world->loop, 0);
    fetch(world, "/hello", 0);
    assert_true(loop_ms() - begun < 4000); /* resolvers give up after five seconds */
}

static void bad_requests_are_refused(void **state)
{
    struct world *world = *state;
    static const char *const urls[] = {"ftp://127.0.0.1/",      "file:///etc/passwd",
                                       "http://u:p@127.0.0.1/", "http://127.0.0.1/a b",
                                       "gopher://127.0.0.1/",   "127.0.0.1",
                                       "http://127.0.0.1\\@x/", ""};
    static const struct fetch_header headers[] = {
        {"X", "a\r\nY: b"}, {"X: y\r\nZ", "a"}, {"", "a"}, {"X", ""}, {"X;", "a"}, {"X Y", "a"}};

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        client_request(&world->request, world->url, &world->server, "/hello");
        world->request.url = urls[i];
        assert_int_equal(client_start(&world->client, &world->loop, &world->request), E_INVALID);
    }
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        client_request(&world->request, world->url, &world->server, "/hello");
        world->request.headers[0] = headers[i];
        world->request.header_count = 1;
        assert_int_equal(client_start(&world->client, &world->loop, &world->request), E_INVALID);
    }
    client_request(&world->request, world->url, &world->server, "/hello");
    world->request.method = "DELETE";
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), E_INVALID);
}

/* ---- ORG-2 ---- */

static void refuse_as(struct world *world, const char *host, bool allow_private,
                      bool allow_metadata)
{
    char url[256];

    memset(&world->client, 0, sizeof world->client);
    client_request(&world->request, world->url, &world->server, "/hello");
    (void)snprintf(url, sizeof url, "http://%s:%u/hello", host, (unsigned)world->server.port);
    world->request.url = url;
    if (!allow_private)
        world->request.allow_private = NULL;
    world->request.allow_metadata = allow_metadata;
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, E_REFUSED);
    assert_int_equal(world->client.heads, 0);
}

static void refuse(struct world *world, const char *host, bool allow_private)
{
    refuse_as(world, host, allow_private, false);
}

static void addresses_are_refused(void **state)
{
    struct world *world = *state;
    static const char *const private[] = {
        "127.0.0.1", "localhost",          "127.1",       "2130706433", "0x7f000001",       "[::1]",
        "10.1.2.3",  "[::ffff:127.0.0.1]", "192.168.1.1", "[fd00::1]",  "[64:ff9b::7f00:1]"};
    static const char *const never[] = {
        "0.0.0.0",   "169.254.169.254", "224.0.0.1", "255.255.255.255",     "100.100.100.200",
        "[fe80::1]", "[ff02::1]",       "[::]",      "[::ffff:169.254.1.1]"};

    for (size_t i = 0; i < sizeof private / sizeof private[0]; i++)
        refuse(world, private[i], false);
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        refuse(world, never[i], true);
    fetch_curl_refuse_port(world->loop.curl, world->server.port);
    refuse(world, "127.0.0.1", true);
    assert_int_equal(server_connections(&world->server), 0);
    fetch_curl_refuse_port(world->loop.curl, 0);
    fetch(world, "/hello", 0);
}

/* Only by number, and nothing else that is link-local. */
static void metadata_is_for_who_means_it(void **state)
{
    struct world *world = *state;

    refuse_as(world, "169.254.169.253", true, true);
    refuse_as(world, "[::ffff:169.254.169.254]", true, true);
    refuse_as(world, "[fe80::1]", true, true);
    refuse_as(world, "127.0.0.1", false, true);
}

/* An idle connection made when private addresses were allowed serves nobody else. */
static void allowed_connection_is_not_lent(void **state)
{
    struct world *world = *state;

    fetch(world, "/hello", 0);
    refuse(world, "127.0.0.1", false);
    fetch(world, "/hello", 0);
    assert_int_equal(server_connections(&world->server), 1);
}

/* ---- ORG-5 ---- */

static void fetch_as(struct world *world, uint8_t key)
{
    memset(&world->client, 0, sizeof world->client);
    client_request(&world->request, world->url, &world->server, "/hello");
    world->request.pool_key[31] = key;
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, 0);
}

static void connections_are_reused_within_a_key(void **state)
{
    struct world *world = *state;

    for (unsigned i = 0; i < 5; i++)
        fetch_as(world, 1);
    assert_int_equal(server_connections(&world->server), 1);
    fetch_as(world, 2);
    assert_int_equal(server_connections(&world->server), 2);
    fetch_as(world, 1);
    fetch_as(world, 2);
    assert_int_equal(server_connections(&world->server), 2);
}

static void pools_are_bounded_and_the_oldest_goes(void **state)
{
    struct world *world = *state;

    for (unsigned i = 0; i < 80; i++)
        fetch_as(world, (uint8_t)i);
    assert_int_equal(server_connections(&world->server), 80);
    fetch_as(world, 79); /* still there */
    assert_int_equal(server_connections(&world->server), 80);
    fetch_as(world, 0); /* made room long ago */
    assert_int_equal(server_connections(&world->server), 81);
}

static void busy_pools_leave_the_spare_one(void **state)
{
    struct world *world = *state;
    struct client *clients = calloc(70, sizeof *clients);
    unsigned before;

    for (unsigned i = 0; i < 70; i++) {
        client_request(&world->request, world->url, &world->server, "/silent");
        world->request.pool_key[0] = (uint8_t)(i + 1);
        world->request.first_byte_timeout_ms = 8000;
        assert_int_equal(client_start(&clients[i], &world->loop, &world->request), 0);
    }
    for (uint64_t end = loop_ms() + 3000; server_requests(&world->server) < 70 && loop_ms() < end;)
        loop_turn(&world->loop, 20);
    before = server_connections(&world->server);
    assert_int_equal(before, 70);
    fetch_as(world, 200);
    fetch_as(world, 200); /* not reused: the spare pool is everybody's */
    fetch_as(world, 201);
    assert_int_equal(server_connections(&world->server), before + 3);
    for (unsigned i = 0; i < 70; i++) {
        assert_int_equal(clients[i].dones, 0);
        world->loop.engine.cancel(world->loop.engine.self, clients[i].fetch);
    }
    fetch_as(world, 200);
    fetch_as(world, 200);
    assert_int_equal(server_connections(&world->server), before + 4);
    free(clients);
}

/* Tokens live minutes; the connections of old ones do not. */
static void idle_pools_are_closed(void **state)
{
    struct world *world = *state;
    uint64_t now_ms;

    fetch_as(world, 1);
    fetch_as(world, 1);
    assert_int_equal(server_connections(&world->server), 1);
    now_ms = fetch_curl__clock_ms();
    fetch_curl__pools_expire(world->loop.curl, now_ms + POOL_IDLE_MS - 1000);
    fetch_as(world, 1);
    assert_int_equal(server_connections(&world->server), 1);
    fetch_curl__pools_expire(world->loop.curl, now_ms + POOL_IDLE_MS + 1000);
    assert_null(fetch_curl__pool_at(world->loop.curl, 0)->multi);
    fetch_as(world, 1);
    assert_int_equal(server_connections(&world->server), 2);
}

static void requests_queue_for_a_connection(void **state)
{
    struct world *world = *state;
    struct client *clients = calloc(20, sizeof *clients);
    struct loop narrow;

    loop_init(&narrow, 2);
    for (unsigned i = 0; i < 20; i++) {
        client_request(&world->request, world->url, &world->server, "/hello");
        assert_int_equal(client_start(&clients[i], &narrow, &world->request), 0);
    }
    for (unsigned i = 0; i < 20; i++) {
        assert_true(client_wait(&clients[i]));
        assert_int_equal(clients[i].err, 0);
    }
    assert_true(server_connections(&world->server) <= 2);
    narrow.engine.close(narrow.engine.self);
    free(clients);
}

static void requests_are_bounded(void **state)
{
    struct world *world = *state;
    struct client *clients = calloc(1030, sizeof *clients);
    unsigned started = 0;

    client_request(&world->request, world->url, &world->server, "/hello");
    while (started < 1030 && client_start(&clients[started], &world->loop, &world->request) == 0)
        started++;
    assert_int_equal(started, 1024);
    assert_int_equal(client_start(&clients[started], &world->loop, &world->request), E_FULL);
    for (unsigned i = 0; i < started; i++)
        world->loop.engine.cancel(world->loop.engine.self, clients[i].fetch);
    loop_turn(&world->loop, 0);
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    assert_true(client_wait(&world->client));
    for (unsigned i = 0; i < started; i++)
        assert_int_equal(clients[i].dones + clients[i].heads, 0);
    free(clients);
}

/* ---- pausing ---- */

static uint64_t checksum(const uint8_t *bytes, size_t byte_count)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < byte_count; i++)
        sum = sum * 31 + bytes[i];
    return sum;
}

static void pause_holds_bytes_back(void **state)
{
    struct world *world = *state;
    uint64_t had;

    world->client.pause_once = true;
    start(world, &world->client, "/big");
    while (!world->client.paused)
        loop_turn(&world->loop, 100);
    had = world->client.body_bytes;
    loop_run_for(&world->loop, 300);
    assert_int_equal(world->client.body_bytes, had);
    client_resume(&world->client);
    assert_int_equal(world->client.body_bytes, had); /* not inside resume */
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, 0);
    assert_int_equal(world->client.body_bytes, BIG_BYTES);
    assert_true(world->client.checksum == checksum(big, BIG_BYTES));
}

static void pause_after_every_piece(void **state)
{
    struct world *world = *state;
    uint64_t end = loop_ms() + 5000;

    world->client.pause_always = true;
    start(world, &world->client, "/big");
    while (world->client.dones == 0 && loop_ms() < end) {
        loop_turn(&world->loop, 100);
        if (world->client.paused)
            client_resume(&world->client);
    }
    assert_int_equal(world->client.dones, 1);
    assert_true(world->client.checksum == checksum(big, BIG_BYTES));
}

/* A paused reader is slow, not the server: no idle timeout, and done waits. */
static void pause_outlasts_the_idle_timeout(void **state)
{
    struct world *world = *state;

    client_request(&world->request, world->url, &world->server, "/hello");
    world->request.idle_timeout_ms = 100;
    world->client.pause_once = true;
    assert_int_equal(client_start(&world->client, &world->loop, &world->request), 0);
    for (uint64_t end = loop_ms() + 3000; !world->client.paused && loop_ms() < end;)
        loop_turn(&world->loop, 20);
    loop_run_for(&world->loop, 400);
    assert_true(world->client.paused);
    assert_int_equal(world->client.dones, 0);
    client_resume(&world->client);
    assert_true(client_wait(&world->client));
    assert_int_equal(world->client.err, 0);
}

/* ---- cancelling, re-entrancy ---- */

static void cancel_at_every_point(void **state)
{
    struct world *world = *state;
    struct client *clients = calloc(5, sizeof *clients);
    void *self = world->loop.engine.self;

    clients[1].cancel_in_head = true;
    clients[2].cancel_in_body = true;
    clients[3].pause_once = true;
    for (unsigned i = 0; i < 5; i++)
        start(world, &clients[i], i == 4 ? "/silent" : "/big");
    world->loop.engine.cancel(self, clients[0].fetch);
    for (uint64_t end = loop_ms() + 3000; loop_ms() < end;) {
        loop_turn(&world->loop, 20);
        if (clients[1].heads == 1 && clients[2].bodies == 1 && clients[3].paused)
            break;
    }
    assert_true(clients[3].paused);
    world->loop.engine.cancel(self, clients[3].fetch);
    world->loop.engine.cancel(self, clients[4].fetch);
    loop_run_for(&world->loop, 100);
    assert_int_equal(clients[0].heads + clients[0].dones, 0);
    assert_int_equal(clients[1].bodies, 0);
    assert_int_equal(clients[2].bodies, 1);
    assert_int_equal(clients[3].dones, 0);
    assert_int_equal(clients[4].dones, 0);
    for (unsigned i = 0; i < 5; i++)
        assert_false(clients[i].disorder);
    fetch(world, "/hello", 0);
    free(clients);
}

static struct world *shared;

static void start_other(struct client *client)
{
    (void)client;
    start(shared, &shared->other, "/hello");
}

static void cancel_other(struct client *client)
{
    client->loop->engine.cancel(client->loop->engine.self, shared->other.fetch);
}

static void start_inside_callbacks(void **state)
{
    struct world *world = *state;

    shared = world;
    world->client.on_head = start_other;
    start(world, &world->client, "/hello");
    assert_true(client_wait(&world->client));
    assert_true(client_wait(&world->other));
    memset(&world->client, 0, sizeof world->client);
    memset(&world->other, 0, sizeof world->other);
    world->client.on_done = start_other;
    start(world, &world->client, "/hello");
    world->other.loop = &world->loop;
    assert_true(client_wait(&world->other));
    assert_int_equal(world->other.err, 0);
}

static void cancel_another_inside_a_callback(void **state)
{
    struct world *world = *state;

    shared = world;
    world->client.on_head = cancel_other;
    start(world, &world->other, "/silent");
    start(world, &world->client, "/hello");
    assert_true(client_wait(&world->client));
    loop_run_for(&world->loop, 50);
    assert_int_equal(world->other.dones, 0);
}

static void close_with_running_requests(void **state)
{
    struct world *world = *state;
    struct loop loop;

    loop_init(&loop, 0);
    client_request(&world->request, world->url, &world->server, "/big");
    world->client.pause_once = true;
    assert_int_equal(client_start(&world->client, &loop, &world->request), 0);
    assert_int_equal(client_start(&world->other, &loop, &world->request), 0);
    while (!world->client.paused)
        loop_turn(&loop, 100);
    loop.engine.close(loop.engine.self);
    assert_int_equal(world->client.dones, 0);
    for (int fd = 0; fd < LOOP_FDS_MAX; fd++)
        assert_int_equal(loop.events[fd], 0);
}

/* ---- the environment has no say ---- */

static void proxies_and_netrc_are_ignored(void **state)
{
    struct world *world = *state;
    char home[] = "/tmp/shoal-netrc-XXXXXX";
    char path[64];
    static const char line[] = "machine 127.0.0.1 login u password p\n";
    int fd;

    assert_non_null(mkdtemp(home));
    (void)snprintf(path, sizeof path, "%s/.netrc", home);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, line, sizeof line - 1), sizeof line - 1);
    close(fd);
    assert_int_equal(setenv("HOME", home, 1), 0);
    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
    assert_int_equal(setenv("ALL_PROXY", "http://127.0.0.1:1", 1), 0);
    fetch(world, "/hello", 0);
    assert_null(strstr(world->server.heads[0], "Authorization"));
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    unlink(path);
    rmdir(home);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(get_is_answered),
        TEST(version_6_is_spoken),
        TEST(errors_are_answers),
        TEST(request_is_sent_as_given),
        TEST(head_has_no_body),
        TEST(bodies_are_sent_as_given),
        TEST(redirects_are_not_followed),
        TEST(chunked_interim_and_trailers),
        TEST(codings_are_left_alone),
        TEST(broken_answers),
        TEST(headers_are_bounded),
        TEST(timeouts),
        TEST(nobody_listens),
        TEST(resolving_does_not_hold_the_loop),
        TEST(bad_requests_are_refused),
        TEST(addresses_are_refused),
        TEST(metadata_is_for_who_means_it),
        TEST(allowed_connection_is_not_lent),
        TEST(connections_are_reused_within_a_key),
        TEST(pools_are_bounded_and_the_oldest_goes),
        TEST(busy_pools_leave_the_spare_one),
        TEST(idle_pools_are_closed),
        TEST(requests_queue_for_a_connection),
        TEST(requests_are_bounded),
        TEST(pause_holds_bytes_back),
        TEST(pause_after_every_piece),
        TEST(pause_outlasts_the_idle_timeout),
        TEST(cancel_at_every_point),
        TEST(start_inside_callbacks),
        TEST(cancel_another_inside_a_callback),
        TEST(close_with_running_requests),
        TEST(proxies_and_netrc_are_ignored),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(60);
    for (size_t i = 0; i < BIG_BYTES; i++)
        big[i] = (uint8_t)(i * 2654435761u >> 13);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
