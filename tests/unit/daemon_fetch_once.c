/* SPDX-License-Identifier: Apache-2.0 */
/* One exchange on a loop of its own: answers, limits and errors, against a server on loopback. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/daemon/fetch_once.h"

/* Answers one connection with `answer`, then with `endless` bytes until the other side is gone. */
struct server {
    int listener;
    const char *answer;
    bool endless;
    pthread_t thread;
    char url[64];
};

static void *serve(void *arg)
{
    struct server *server = arg;
    char bytes[4096];
    int fd = accept(server->listener, NULL, NULL);
    if (fd < 0)
        return NULL;
    ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    size_t answer_bytes = strlen(server->answer);
    bool well = got > 0 && send(fd, server->answer, answer_bytes, MSG_NOSIGNAL) > 0;
    memset(bytes, 'x', sizeof bytes);
    while (well && server->endless)
        well = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) > 0;
    (void)close(fd);
    return NULL;
}

static void server_start(struct server *server)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof addr;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(server->listener, 1), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&addr, &bytes), 0);
    (void)snprintf(server->url, sizeof server->url, "http://127.0.0.1:%u/x",
                   (unsigned)ntohs(addr.sin_port));
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_stop(struct server *server)
{
    (void)shutdown(server->listener, SHUT_RDWR); /* who was asked by nobody waits in accept */
    assert_int_equal(pthread_join(server->thread, NULL), 0);
    (void)close(server->listener);
}

static int ask(struct server *server, bool private, struct fetch_once *once)
{
    struct address_ranges own;
    address_ranges_private(&own, true);
    const struct fetch_request request = {.method = "GET",
                                          .url = server->url,
                                          .allow_private = private ? &own : NULL,
                                          .connect_timeout_ms = 2000,
                                          .first_byte_timeout_ms = 2000,
                                          .idle_timeout_ms = 2000};
    server_start(server);
    int err = fetch_once(&request, once);
    server_stop(server);
    return err;
}

static void an_answer(void **state)
{
    (void)state;
    char body[16];
    struct fetch_once once = {.body = body, .body_max = 5};
    struct server server = {.answer = "HTTP/1.1 404 Not Found\r\nDate: Mon, 01 Jan 2024 00:00:00 "
                                      "GMT\r\nContent-Length: 5\r\n\r\nhello"};
    assert_int_equal(ask(&server, true, &once), 0);
    assert_int_equal(once.status, 404);
    assert_string_equal(once.date, "Mon, 01 Jan 2024 00:00:00 GMT");
    assert_int_equal(once.body_bytes, 5); /* as many as there is room for */
    assert_memory_equal(body, "hello", 5);
    /* The same once more: nothing of the answer before is left. Bodies may be dropped. */
    struct fetch_once dropped = {.status = 7, .date = "old"};
    server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_int_equal(ask(&server, true, &dropped), 0);
    assert_int_equal(dropped.status, 200);
    assert_string_equal(dropped.date, "");
    assert_int_equal(dropped.body_bytes, 0);
}

/* It is not waited for to its end, which may never come. */
static void a_body_over_the_limit(void **state)
{
    (void)state;
    char body[1024];
    struct fetch_once once = {.body = body, .body_max = sizeof body};
    struct server server = {.answer = "HTTP/1.1 200 OK\r\n\r\n", .endless = true};
    assert_int_equal(ask(&server, true, &once), E_TOO_LARGE);
    assert_true(once.body_bytes <= sizeof body);
}

static void no_answer(void **state)
{
    (void)state;
    struct fetch_once once = {.body_max = 0};
    struct server server = {.answer = "HTTP/1.1 200 OK\r\n\r\n"};
    assert_int_equal(ask(&server, false, &once), E_REFUSED);
    assert_int_equal(once.status, 0);
    const struct fetch_request bad = {.method = "GET", .url = "ftp://127.0.0.1/x"};
    assert_int_equal(fetch_once(&bad, &once), E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer),
        cmocka_unit_test(a_body_over_the_limit),
        cmocka_unit_test(no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
