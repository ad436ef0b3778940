/* SPDX-License-Identifier: Apache-2.0 */
/* SIGTERM and SIGINT, blocked and asked for; see hold.h. */
#include "hold.h"

#include <signal.h>
#include <time.h>

static sigset_t stop_signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    return set;
}

void hold_begin(void)
{
    const sigset_t set = stop_signals();
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

bool hold_stopped(uint64_t wait_ms)
{
    const sigset_t set = stop_signals();
    const struct timespec wait = {.tv_sec = (time_t)(wait_ms / 1000),
                                  .tv_nsec = (long)(wait_ms % 1000) * 1000000L};
    /* EINTR (a debugger, SIGCONT) ends the wait early: callers ask again. */
    return sigtimedwait(&set, NULL, &wait) > 0;
}

void hold_end(void)
{
    const sigset_t set = stop_signals();
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}
