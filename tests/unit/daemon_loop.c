/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: one time per turn, work for the pool, the order of stopping, error codes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>

#include "../../src/daemon/loop.h"

static struct loop loop;
static char journal[256];

static void note(const char *what)
{
    size_t used = strlen(journal);
    (void)snprintf(journal + used, sizeof journal - used, "%s ", what);
}

static int make(void **state)
{
    (void)state;
    static const struct loop_options options = {
        .log_fd = -1, .log_level = LOG_ERROR, .stop_grace_us = 200000, .signals = true};
    journal[0] = '\0';
    return loop_init(&loop, &options);
}

static int drop(void **state)
{
    (void)state;
    loop_close(&loop);
    return 0;
}

/* ---- time ---- */

static uint64_t first_us, second_us, next_us;
static uv_timer_t timer;

static void spin_ms(uint64_t ms)
{
    uint64_t until = uv_hrtime() + ms * 1000000;
    while (uv_hrtime() < until) {
    }
}

static void on_second_turn(uv_timer_t *handle)
{
    next_us = loop_now_us(&loop);
    uv_close((uv_handle_t *)handle, NULL);
    loop_stop(&loop);
}

static void on_first_turn(uv_timer_t *handle)
{
    first_us = loop_now_us(&loop);
    spin_ms(3);
    second_us = loop_now_us(&loop);
    (void)uv_timer_start(handle, on_second_turn, 1, 0);
}

static void a_turn_has_one_time(void **state)
{
    (void)state;
    assert_int_equal(uv_timer_init(&loop.uv, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, on_first_turn, 0, 0), 0);
    assert_int_equal(loop_run(&loop), 0);
    assert_int_equal(first_us, second_us);
    assert_true(next_us >= first_us + 3000);
}

/* ---- work ---- */

struct job {
    struct loop_work work;
    unsigned runs, dones;
    int status;
};
static struct job jobs[LOOP_WORK_MAX + 1];
static unsigned finished;

static void job_run(struct loop_work *work)
{
    ((struct job *)(void *)work)->runs++;
}

static void job_done(struct loop_work *work, int status)
{
    struct job *job = (struct job *)(void *)work;
    job->dones++;
    job->status = status;
    if (++finished == LOOP_WORK_MAX)
        loop_stop(&loop);
}

static void work_runs_once_and_is_bounded(void **state)
{
    (void)state;
    finished = 0;
    memset(jobs, 0, sizeof jobs);
    for (size_t i = 0; i <= LOOP_WORK_MAX; i++) {
        jobs[i].work.run = job_run;
        jobs[i].work.done = job_done;
        assert_int_equal(loop_submit(&loop, &jobs[i].work), i < LOOP_WORK_MAX ? 0 : E_FULL);
    }
    assert_int_equal(loop.works_refused, 1);
    assert_int_equal(loop_run(&loop), 0);
    for (size_t i = 0; i < LOOP_WORK_MAX; i++) {
        assert_int_equal(jobs[i].runs, 1);
        assert_int_equal(jobs[i].dones, 1);
        assert_int_equal(jobs[i].status, 0);
    }
    assert_int_equal(jobs[LOOP_WORK_MAX].dones, 0);
    assert_int_equal(loop.works, 0);
}

/* ---- stopping ---- */

static bool busy;

static void drain_a(void *arg)
{
    (void)arg;
    note("drain-a");
}
static void drain_b(void *arg)
{
    (void)arg;
    note("drain-b");
}
static void close_a(void *arg)
{
    (void)arg;
    note("close-a");
}
static void close_b(void *arg)
{
    (void)arg;
    note("close-b");
}
static bool is_busy(void *arg)
{
    (void)arg;
    bool was = busy;
    busy = false; /* busy once, then done */
    if (was)
        note("busy");
    return was;
}
static bool always_busy(void *arg)
{
    (void)arg;
    return true;
}

static void parts_drain_in_order_and_close_in_reverse(void **state)
{
    (void)state;
    struct loop_part a = {.name = "a", .drain = drain_a, .busy = is_busy, .close = close_a};
    struct loop_part b = {.name = "b", .drain = drain_b, .close = close_b};
    busy = true;
    loop_add_part(&loop, &a);
    loop_add_part(&loop, &b);
    loop_stop(&loop);
    assert_string_equal(journal, "drain-a drain-b ");
    assert_int_equal(loop_run(&loop), 0);
    assert_string_equal(journal, "drain-a drain-b busy close-b close-a ");
}

static void the_grace_period_ends_waiting(void **state)
{
    (void)state;
    struct loop_part a = {.name = "a", .busy = always_busy, .close = close_a};
    loop_add_part(&loop, &a);
    loop_stop(&loop);
    uint64_t start_ns = uv_hrtime();
    assert_int_equal(loop_run(&loop), 0);
    uint64_t ms = (uv_hrtime() - start_ns) / 1000000;
    assert_true(ms >= 150 && ms < 1000); /* 200 ms of grace, asked every 50 */
    assert_string_equal(journal, "close-a ");
}

static void a_second_stop_does_not_wait(void **state)
{
    (void)state;
    struct loop_part a = {.name = "a", .drain = drain_a, .busy = always_busy, .close = close_a};
    loop_add_part(&loop, &a);
    loop_stop(&loop);
    loop_stop(&loop);
    assert_string_equal(journal, "drain-a close-a ");
    loop_stop(&loop);
    assert_int_equal(loop_run(&loop), 0);
    assert_string_equal(journal, "drain-a close-a ");
}

static void signals_stop_in_order(void **state)
{
    (void)state;
    struct loop_part a = {.name = "a", .drain = drain_a, .close = close_a};
    loop_add_part(&loop, &a);
    assert_int_equal(raise(SIGTERM), 0);
    assert_int_equal(raise(SIGPIPE), 0); /* ignored */
    assert_int_equal(loop_run(&loop), 0);
    assert_string_equal(journal, "drain-a close-a ");
}

static uv_timer_t left_open;

static void on_left_open(uv_timer_t *handle)
{
    (void)handle;
}

static void a_handle_left_open_is_reported(void **state)
{
    (void)state;
    assert_int_equal(uv_timer_init(&loop.uv, &left_open), 0);
    assert_int_equal(uv_timer_start(&left_open, on_left_open, 60000, 0), 0);
    loop_stop(&loop);
    loop_stop(&loop);
    assert_int_equal(loop_run(&loop), E_TIMEOUT);
    uv_close((uv_handle_t *)&left_open, NULL);
}

static void libuv_errors_become_ours(void **state)
{
    (void)state;
    assert_int_equal(loop_uv_error(0), 0);
    assert_int_equal(loop_uv_error(UV_ENOMEM), E_NO_MEMORY);
    assert_int_equal(loop_uv_error(UV_EADDRINUSE), E_IN_USE);
    assert_int_equal(loop_uv_error(UV_EACCES), E_DENIED);
    assert_int_equal(loop_uv_error(UV_ECANCELED), E_CANCELLED);
    assert_int_equal(loop_uv_error(UV_ETIMEDOUT), E_TIMEOUT);
    assert_int_equal(loop_uv_error(UV_ECONNREFUSED), E_UNREACHABLE);
    assert_int_equal(loop_uv_error(UV_EOF), E_CLOSED);
    assert_int_equal(loop_uv_error(UV_ECONNRESET), E_CLOSED);
    assert_int_equal(loop_uv_error(UV_EAGAIN), E_AGAIN);
    assert_int_equal(loop_uv_error(UV_EMFILE), E_FULL);
    assert_int_equal(loop_uv_error(UV_EINVAL), E_INVALID);
    assert_int_equal(loop_uv_error(UV_EIO), E_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_turn_has_one_time, make, drop),
        cmocka_unit_test_setup_teardown(work_runs_once_and_is_bounded, make, drop),
        cmocka_unit_test_setup_teardown(parts_drain_in_order_and_close_in_reverse, make, drop),
        cmocka_unit_test_setup_teardown(the_grace_period_ends_waiting, make, drop),
        cmocka_unit_test_setup_teardown(a_second_stop_does_not_wait, make, drop),
        cmocka_unit_test_setup_teardown(signals_stop_in_order, make, drop),
        cmocka_unit_test_setup_teardown(a_handle_left_open_is_reported, make, drop),
        cmocka_unit_test(libuv_errors_become_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
