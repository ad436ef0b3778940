/* SPDX-License-Identifier: Apache-2.0 */
/* What counts as a client that reads (HTTP-4): real sockets on loopback, time as the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/daemon/http_pace.h"

#define SECOND 1000000ull

struct pair {
    int server, client;
    struct http_pace pace;
    uint64_t now_us;
};

static char bytes[65536];

/* As much as both kernels hold. */
static void fill(struct pair *pair)
{
    for (unsigned idle = 0; idle < 60;) {
        ssize_t n = send(pair->server, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            pair->pace.given += (uint64_t)n;
            idle = 0;
            continue;
        }
        assert_int_equal(errno, EAGAIN);
        idle++;
        (void)usleep(1000); /* what was sent is confirmed after 40 ms at the latest */
    }
}

static void pair_open(struct pair *pair)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t at_bytes = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &at_bytes), 0);
    *pair = (struct pair){.client = socket(AF_INET, SOCK_STREAM, 0), .now_us = 1000 * SECOND};
    assert_int_equal(connect(pair->client, (struct sockaddr *)&at, sizeof at), 0);
    pair->server = accept(listener, NULL, NULL);
    assert_true(pair->server >= 0);
    (void)close(listener);
    http_pace_begin(&pair->pace, pair->server, pair->now_us);
    fill(pair);
}

static void pair_close(struct pair *pair)
{
    (void)close(pair->server);
    (void)close(pair->client);
}

static bool slow_after(struct pair *pair, uint64_t seconds, bool waits)
{
    pair->now_us += seconds * SECOND;
    return http_pace_slow(&pair->pace, pair->server, waits, pair->now_us);
}

static void take(struct pair *pair, size_t want)
{
    while (want > 0) {
        ssize_t n = recv(pair->client, bytes, want < sizeof bytes ? want : sizeof bytes, 0);
        assert_true(n > 0);
        want -= (size_t)n;
    }
}

static void who_reads_nothing_is_slow(void **state)
{
    struct pair pair;
    (void)state;
    pair_open(&pair);
    for (unsigned i = 0; i < 30; i++) /* whatever its kernel took */
        assert_false(slow_after(&pair, 1, true));
    assert_true(slow_after(&pair, 1, true));
    pair_close(&pair);
}

/* No byte leaves our socket for it: the client's window stays shut. */
static void who_reads_on_is_not_however_little_shows(void **state)
{
    struct pair pair;
    (void)state;
    pair_open(&pair);
    assert_false(slow_after(&pair, 30, true));
    for (unsigned i = 0; i < 5; i++) {
        take(&pair, HTTP_PACE_BYTES);
        assert_false(slow_after(&pair, 29, true));
        assert_false(slow_after(&pair, 1, true));
    }
    take(&pair, HTTP_PACE_BYTES - 1);
    assert_true(slow_after(&pair, 30, true));
    pair_close(&pair);
}

/* As curl --limit-rate: a gulp, and nothing for as long as it takes to be right on average. */
static void gulps_are_credit_for_an_hour_at_most(void **state)
{
    struct pair pair;
    (void)state;
    pair_open(&pair);
    take(&pair, 10 * HTTP_PACE_BYTES);
    for (unsigned i = 0; i < 11; i++)
        assert_false(slow_after(&pair, 30, true));
    assert_true(slow_after(&pair, 1, true));
    pair_close(&pair);

    pair_open(&pair);
    for (unsigned i = 0; i < 200; i++) { /* it would be 5,000 hours */
        take(&pair, 64 * HTTP_PACE_BYTES);
        fill(&pair);
    }
    assert_false(slow_after(&pair, 3600, true));
    assert_true(slow_after(&pair, 1, true));
    pair_close(&pair);
}

/* It asked on before it had read: that is in its buffer, too, and is progress when it reads it. */
static void what_is_left_of_before_counts_when_it_is_read(void **state)
{
    struct pair pair;
    (void)state;
    pair_open(&pair);
    http_pace_begin(&pair.pace, pair.server, pair.now_us);
    assert_false(slow_after(&pair, 30, true));
    take(&pair, HTTP_PACE_BYTES);
    assert_false(slow_after(&pair, 30, true));
    assert_true(slow_after(&pair, 1, true));
    pair_close(&pair);
}

static void our_own_waiting_is_not_the_clients(void **state)
{
    struct pair pair;
    (void)state;
    pair_open(&pair);
    for (unsigned i = 0; i < 5; i++) {
        assert_false(slow_after(&pair, 6, true));
        assert_false(slow_after(&pair, 3600, false));
    }
    assert_true(slow_after(&pair, 1, true));
    pair_close(&pair);
}

/* What is no TCP has no such window: a control socket's queue is what its client did not read. */
static void other_sockets_are_judged_by_their_queue(void **state)
{
    struct pair pair = {.now_us = 1000 * SECOND};
    int fds[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    pair.server = fds[0];
    pair.client = fds[1];
    http_pace_begin(&pair.pace, pair.server, pair.now_us);
    fill(&pair);
    assert_false(slow_after(&pair, 30, true));
    assert_true(slow_after(&pair, 1, true));
    pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_reads_nothing_is_slow),
        cmocka_unit_test(who_reads_on_is_not_however_little_shows),
        cmocka_unit_test(gulps_are_credit_for_an_hour_at_most),
        cmocka_unit_test(what_is_left_of_before_counts_when_it_is_read),
        cmocka_unit_test(our_own_waiting_is_not_the_clients),
        cmocka_unit_test(other_sockets_are_judged_by_their_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
