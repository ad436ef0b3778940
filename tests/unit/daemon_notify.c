/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager is told, and by which environments it is not. The test is its socket. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "../../src/daemon/notify.h"
#include "daemon_scratch.h"

#define TOLD_MAX 8

static struct loop loop;
static struct notify notify;
static struct config config;
static char told[TOLD_MAX][80];
static unsigned told_count;
static int manager = -1;
static char *environment[4];
static char variables[3][300];

static int make(void **state)
{
    (void)state;
    static const struct loop_options options = {
        .log_fd = -1, .log_level = LOG_ERROR, .stop_grace_us = 200000};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    told_count = 0;
    memset(environment, 0, sizeof environment);
    config.environment = environment;
    (void)snprintf(addr.sun_path, sizeof addr.sun_path, "%s", scratch_path("notify"));
    (void)unlink(addr.sun_path);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (manager < 0 || bind(manager, (const struct sockaddr *)&addr, sizeof addr) != 0)
        return -1;
    return loop_init(&loop, &options);
}

static int drop(void **state)
{
    (void)state;
    notify_close(&notify);
    loop_close(&loop);
    return close(manager);
}

/* One more variable of the agent's environment. */
static void set(const char *name, const char *value)
{
    unsigned i = 0;
    while (environment[i] != NULL)
        i++;
    assert_true(i < 3);
    (void)snprintf(variables[i], sizeof variables[i], "%s=%s", name, value);
    environment[i] = variables[i];
}

static void listen_to(void)
{
    ssize_t bytes = 0;
    while (told_count < TOLD_MAX &&
           (bytes = recv(manager, told[told_count], sizeof told[0] - 1, 0)) >= 0)
        told[told_count++][bytes] = '\0';
}

static uv_timer_t timer;
static unsigned wanted;

static void on_look(uv_timer_t *handle)
{
    listen_to();
    if (told_count < wanted)
        return;
    uv_close((uv_handle_t *)handle, NULL);
    loop_stop(&loop);
}

/* Runs the loop until so many messages came, stops it, and takes what was said last. */
static void run_until(unsigned count)
{
    wanted = count;
    assert_int_equal(uv_timer_init(&loop.uv, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, on_look, 1, 1), 0);
    assert_int_equal(loop_run(&loop), 0);
    listen_to();
}

static void nobody_is_told_without_a_socket(void **state)
{
    (void)state;
    set("WATCHDOG_USEC", "2000");
    assert_int_equal(notify_start(&notify, &loop, &config), 0);
    notify_ready(&notify);
    run_until(0);
    assert_int_equal(told_count, 0);
}

static void ready_and_stopping_are_said_once(void **state)
{
    (void)state;
    set("NOTIFY_SOCKET", scratch_path("notify"));
    assert_int_equal(notify_start(&notify, &loop, &config), 0);
    listen_to();
    assert_int_equal(told_count, 0);
    notify_ready(&notify);
    run_until(1);
    assert_int_equal(told_count, 2);
    assert_string_equal(told[0], "READY=1");
    assert_string_equal(told[1], "STOPPING=1\nEXTEND_TIMEOUT_USEC=10200000");
}

static void the_loop_says_that_it_turns(void **state)
{
    (void)state;
    char self[24];
    (void)snprintf(self, sizeof self, "%ld", (long)getpid());
    set("NOTIFY_SOCKET", scratch_path("notify"));
    set("WATCHDOG_USEC", "20000");
    set("WATCHDOG_PID", self);
    assert_int_equal(notify_start(&notify, &loop, &config), 0);
    uint64_t began_ns = uv_hrtime();
    run_until(3);
    assert_true(uv_hrtime() - began_ns >= 25 * 1000000ULL); /* half of it each; libuv counts ms */
    assert_true(told_count >= 4);                           /* a slow machine takes some more */
    for (int i = 0; i < 3; i++)
        assert_string_equal(told[i], "WATCHDOG=1");
}

/* Another process is watched, or the time makes no sense. */
static void no_watchdog_that_is_not_ours(void **state)
{
    (void)state;
    static const char *const times[] = {"",  "0",      "1999",        "-5",
                                        "x", "20000x", "86400000001", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof times / sizeof times[0] + 1; i++) {
        memset(environment, 0, sizeof environment);
        bool other = i == sizeof times / sizeof times[0];
        set("NOTIFY_SOCKET", scratch_path("notify"));
        set("WATCHDOG_USEC", other ? "20000" : times[i]);
        if (other)
            set("WATCHDOG_PID", "1");
        assert_int_equal(notify_start(&notify, &loop, &config), 0);
        assert_false(uv_is_active((const uv_handle_t *)&notify.timer));
        loop.parts = NULL; /* the next one registers anew */
        uv_close((uv_handle_t *)&notify.timer, NULL);
        assert_true(uv_run(&loop.uv, UV_RUN_NOWAIT) >= 0);
        notify_close(&notify);
    }
    run_until(0);
    assert_int_equal(told_count, 0);
}

/* HRD-3: no abstract sockets, not even to send to; and nothing that is cut to fit. */
static void odd_sockets_are_refused(void **state)
{
    (void)state;
    char lengthy[200] = "/";
    memset(lengthy + 1, 'x', sizeof lengthy - 2);
    const char *const refused[] = {"@shoal", "notify", "vsock:2:1234", lengthy};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        memset(environment, 0, sizeof environment);
        set("NOTIFY_SOCKET", refused[i]);
        assert_int_equal(notify_start(&notify, &loop, &config), 0);
        assert_null(notify.loop);
        notify_ready(&notify);
    }
    run_until(0);
    assert_int_equal(told_count, 0);
}

/* A manager that went away costs a warning, nothing else. */
static void a_lost_manager_is_borne(void **state)
{
    (void)state;
    set("NOTIFY_SOCKET", scratch_path("nobody"));
    set("WATCHDOG_USEC", "2000");
    assert_int_equal(notify_start(&notify, &loop, &config), 0);
    notify_ready(&notify);
    assert_true(notify.silent);
    run_until(0);
    assert_int_equal(told_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nobody_is_told_without_a_socket, make, drop),
        cmocka_unit_test_setup_teardown(ready_and_stopping_are_said_once, make, drop),
        cmocka_unit_test_setup_teardown(the_loop_says_that_it_turns, make, drop),
        cmocka_unit_test_setup_teardown(no_watchdog_that_is_not_ours, make, drop),
        cmocka_unit_test_setup_teardown(odd_sockets_are_refused, make, drop),
        cmocka_unit_test_setup_teardown(a_lost_manager_is_borne, make, drop),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
