/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the configuration file again when it changes and applies its live keys (HRD-7: the kill
 * switch works within 30 s; here within 5 s). A file with an error changes nothing.
 */
#ifndef SHOAL_DAEMON_CONFIG_WATCH_H
#define SHOAL_DAEMON_CONFIG_WATCH_H

#include "config.h"
#include "loop.h"

struct config_watch {
    struct loop *loop;
    struct config *config;
    uint64_t stamp;
    uv_timer_t timer;
    struct loop_part part;
};

/* Watches config->file with the options it was loaded by (config->options; NULL: does nothing).
 * `config` is borrowed; its live keys change from the loop. Registers itself for the stop. 0 or
 * E_*. */
MUST_USE int config_watch_start(struct config_watch *watch, struct loop *loop,
                                struct config *config);

#endif
