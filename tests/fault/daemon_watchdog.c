/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog (RES-4) in child processes: a hung loop is aborted, a stopped process is not (D-13).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../src/daemon/loop.h"

static void on_hang(uv_timer_t *timer)
{
    (void)timer;
    struct timespec long_time = {60, 0};
    (void)nanosleep(&long_time, NULL);
}

static void on_end(uv_timer_t *timer)
{
    uv_close((uv_handle_t *)timer, NULL);
    loop_stop(timer->data);
}

/* Runs a loop with a watchdog; `callback` after `ms`. Returns an exit code. */
static int child(uv_timer_cb callback, uint64_t ms)
{
    static struct loop loop;
    static uv_timer_t timer;
    static const struct loop_options options = {
        .log_fd = -1, .log_level = LOG_ERROR, .watchdog = true};
    int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void)dup2(quiet, 2); /* the assertion's text is expected */
    if (loop_init(&loop, &options) != 0 || uv_timer_init(&loop.uv, &timer) != 0)
        return 2;
    timer.data = &loop;
    (void)uv_timer_start(&timer, callback, ms, 0);
    int err = loop_run(&loop);
    loop_close(&loop);
    return err == 0 ? 0 : 3;
}

static pid_t start(uv_timer_cb callback, uint64_t ms)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child(callback, ms));
    return pid;
}

static void a_hung_loop_is_aborted_after_five_seconds(void **state) /* RES-4 */
{
    (void)state;
    int status = 0;
    uint64_t start_ns = uv_hrtime();
    pid_t pid = start(on_hang, 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    double seconds = (double)(uv_hrtime() - start_ns) / 1e9;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_true(seconds > 4.5 && seconds < 9);
}

static void a_stopped_process_goes_on(void **state) /* D-13 */
{
    (void)state;
    int status = 0;
    struct timespec before = {0, 300000000};
    struct timespec stopped = {6, 0};
    pid_t pid = start(on_end, 7500);
    (void)nanosleep(&before, NULL);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    (void)nanosleep(&stopped, NULL);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hung_loop_is_aborted_after_five_seconds),
        cmocka_unit_test(a_stopped_process_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
