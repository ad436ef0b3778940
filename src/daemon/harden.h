/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process gives up for good (HRD-3): core files and debuggers, new privileges, running
 * other programs, tracing, mounting, loading code into the kernel.
 */
#ifndef SHOAL_DAEMON_HARDEN_H
#define SHOAL_DAEMON_HARDEN_H

#include <stdbool.h>

/*
 * Applies to the calling thread and those it starts later, so call it before any other thread. True
 * if the system call filter is in force; false on kernels and architectures that refuse it (the
 * rest is applied all the same).
 */
bool harden_process(void);

#endif
