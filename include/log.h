/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formatting of log lines for cores (through env->trace) and the ASSERT of our own invariants.
 * The sink (stderr, text or JSON) belongs to the daemon; tests and simulator have their own.
 */
#ifndef SHOAL_LOG_H
#define SHOAL_LOG_H

#include "env.h"

/* Longest line; what is longer is cut (HRD-5). */
#define LOG_LINE_BYTES 1024

/*
 * Formats one event ("dht: lookup done key=ab12cd34 rounds=3") and hands it to env->trace. Control
 * bytes in the result are replaced by '?', so that no input can forge a line. Costs the formatting
 * even if the host drops the level: keep trace-level calls off hot paths.
 */
void log_to(const struct env *env, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Name of a level ("debug"); static, never NULL. */
const char *log_level_name(enum log_level level);

/* Parses "error".."trace" into `out`. Returns 0, or E_INVALID leaving `out` untouched. */
int log_level_parse(const char *text, enum log_level *out) __attribute__((warn_unused_result));

/* Prints expression and place to stderr and aborts. Never returns. */
_Noreturn void assert_failed(const char *expression, const char *file, int line);

/* Our own invariants only; nothing a peer, registry, client, disk or config sends may reach one.
 * Stays on in release. */
#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            assert_failed(#condition, __FILE__, __LINE__);                                         \
    } while (0)

#endif
