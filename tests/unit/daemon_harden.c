/* SPDX-License-Identifier: Apache-2.0 */
/* What the process gives up (HRD-3), tried in a child so that the test program keeps it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/daemon/harden.h"

enum {
    CHILD_OK = 0,
    CHILD_NO_FILTER = 10,
    CHILD_DUMPABLE,
    CHILD_EXECUTED,
    CHILD_TRACED,
    CHILD_BROKEN,
};

static int child_filter(void)
{
    if (!harden_process())
        return CHILD_NO_FILTER;
    char *argv[] = {"true", NULL};
    errno = 0;
    if (execv("/bin/true", argv) == 0 || errno != EPERM)
        return CHILD_EXECUTED;
    errno = 0;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 || errno != EPERM)
        return CHILD_TRACED;
    /* Ordinary work goes on. */
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) != 0)
        return CHILD_BROKEN;
    return CHILD_OK;
}

static int child_flags(void)
{
    (void)harden_process();
    bool off = prctl(PR_GET_DUMPABLE) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
    return off ? CHILD_OK : CHILD_DUMPABLE;
}

static int in_child(int (*run)(void))
{
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(run());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void memory_is_closed_to_others(void **state) /* HRD-3 */
{
    (void)state;
    assert_int_equal(in_child(child_flags), CHILD_OK);
}

static void the_process_runs_nothing_else(void **state) /* HRD-3 */
{
    (void)state;
    int code = in_child(child_filter);
    if (code == CHILD_NO_FILTER)
        skip(); /* sanitizer build, or a kernel without seccomp */
    assert_int_equal(code, CHILD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_closed_to_others),
        cmocka_unit_test(the_process_runs_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
