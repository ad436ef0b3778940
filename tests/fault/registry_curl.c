/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation that libcurl makes for a request fails, alone and with all after it: start
 * refuses or done comes exactly once, nothing stays watched, nothing leaks, and the next request
 * works (D-9).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <signal.h>
#include <stdatomic.h>

#include "../unit/registry_server.h"

/* libcurl resolves names in a thread, so these are shared. */
static atomic_bool armed, for_good; /* once, or from then on */
static atomic_uint count, fail_at;
static atomic_long live; /* libcurl's memory now held */

static bool fails(void)
{
    unsigned nth;

    if (!armed)
        return false;
    nth = ++count;
    return for_good ? nth >= fail_at : nth == fail_at;
}

static void *mem_malloc(size_t bytes)
{
    void *made = fails() ? NULL : malloc(bytes);

    live += made != NULL;
    return made;
}

static void mem_free(void *old)
{
    live -= old != NULL;
    free(old);
}

static void *mem_realloc(void *old, size_t bytes)
{
    void *made;

    if (fails())
        return NULL;
    made = realloc(old, bytes);
    live += made != NULL && old == NULL;
    return made;
}

static char *mem_strdup(const char *text)
{
    char *made = fails() ? NULL : strdup(text);

    live += made != NULL;
    return made;
}

static void *mem_calloc(size_t items, size_t bytes)
{
    void *made = fails() ? NULL : calloc(items, bytes);

    live += made != NULL;
    return made;
}

static bool serve(struct server *server, int fd, const char *head)
{
    (void)server;
    (void)head;
    return send_answer(fd, "200 OK", "X: y\r\n", "hello");
}

/* What start or done said. */
static int fetch(struct loop *loop, struct server *server)
{
    struct client client = {0};
    struct fetch_request request;
    char url[256];
    int err;

    client_request(&request, url, server, "/hello");
    request.headers[0] = (struct fetch_header){"Authorization", "Bearer x"};
    request.header_count = 1;
    request.connect_timeout_ms = request.first_byte_timeout_ms = 2000;
    request.idle_timeout_ms = 2000;
    err = client_start(&client, loop, &request);
    if (err != 0)
        return err;
    assert_true(client_wait(&client));
    assert_int_equal(client.dones, 1);
    assert_false(client.disorder);
    if (client.err == 0)
        assert_int_equal(client.body_bytes, 5);
    return client.err;
}

static void sweep(void)
{
    static struct loop loop;
    struct server server;
    unsigned failed = 0;
    long before = live;

    server_start(&server, serve, NULL);
    for (fail_at = 1; fail_at < 2000; fail_at++) {
        int err;

        loop_init(&loop, 0);
        count = 0;
        armed = true;
        err = fetch(&loop, &server);
        armed = false;
        failed += err != 0;
        if (err != 0)
            assert_true(err == E_NO_MEMORY || err == E_UNREACHABLE || err == E_CLOSED ||
                        err == E_INVALID || err == E_TIMEOUT);
        assert_int_equal(fetch(&loop, &server), 0);
        loop.engine.close(loop.engine.self);
        for (int fd = 0; fd < LOOP_FDS_MAX; fd++)
            assert_int_equal(loop.events[fd], 0);
        /* A resolver that was given up frees its share when it is through. */
        for (unsigned i = 0; i < 1000 && live != before; i++)
            (void)usleep(1000);
        assert_int_equal(live, before);
        if (count < fail_at)
            break;
    }
    server_stop(&server);
    assert_in_range(fail_at, 20, 1999);
    assert_true(failed > 10);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    for_good = false;
    sweep();
}

static void every_allocation_fails_from_then_on(void **state)
{
    (void)state;
    for_good = true;
    sweep();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_fails_once),
        cmocka_unit_test(every_allocation_fails_from_then_on),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(100);
    if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, mem_malloc, mem_free, mem_realloc, mem_strdup,
                             mem_calloc) != CURLE_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
