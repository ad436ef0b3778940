/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For commands that stay in the foreground of a container (`apply --hold`): being told to stop is a
 * question that they ask when it suits them, so that no file is left half done. As process 1 a
 * SIGTERM without this would be dropped by the kernel.
 */
#ifndef SHOAL_DAEMON_HOLD_H
#define SHOAL_DAEMON_HOLD_H

#include <stdbool.h>
#include <stdint.h>

/* SIGTERM and SIGINT are kept for hold_stopped from now on. One thread only: the mask is its. */
void hold_begin(void);
/* Waits at most `wait_ms` for one of them; true if it came. One that came is used up. */
bool hold_stopped(uint64_t wait_ms);
/* Lets both do again what they did before hold_begin. */
void hold_end(void);

#endif
