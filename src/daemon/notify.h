/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells the service manager how the agent is, as sd_notify(3) has it: READY=1, STOPPING=1, and from
 * the loop WATCHDOG=1, so that a loop that hangs, or a process that is stopped, is found by it, too
 * (RES-4). Without NOTIFY_SOCKET nothing is done. RELOADING=1 is not for us: files are read again
 * while the agent works.
 */
#ifndef SHOAL_DAEMON_NOTIFY_H
#define SHOAL_DAEMON_NOTIFY_H

#include <sys/un.h>

#include "config.h"
#include "loop.h"

struct notify {
    struct loop *loop; /* NULL: nobody is told */
    int fd;
    bool silent; /* the last message was not taken: said once */
    struct sockaddr_un to;
    uv_timer_t timer;
    struct loop_part part;
};

/*
 * Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from the configuration's environment, and
 * registers with the loop, first of all parts, to say when stopping begins. A socket whose path
 * does not begin with '/' is refused with a warning: an abstract name ('@') could be anybody's
 * (HRD-3). WATCHDOG_USEC that is no time from 2 ms to a day is warned of, and no watchdog. 0,
 * also where nobody is told; E_* of the event loop.
 */
MUST_USE int notify_start(struct notify *notify, struct loop *loop, const struct config *config);
/* The agent answers. */
void notify_ready(struct notify *notify);
/* Closes the socket; after loop_run. */
void notify_close(struct notify *notify);

#endif
