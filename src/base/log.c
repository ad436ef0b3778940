/* SPDX-License-Identifier: Apache-2.0 */
/* Formats log lines for env->trace and ends the process on a broken invariant. Where lines go is
 * the host's business; the only output made here is the last words of assert_failed. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

/* An array of arrays needs no relocation: nothing of this file lands in a data section. */
static const char level_names[][8] = {"none", "error", "warn", "info", "debug", "trace"};

/*
 * Replaces what a terminal or a line-based reader could take for control: C0, DEL, and C1 in its
 * UTF-8 form (HRD-5). Other UTF-8 stays readable.
 */
static void clean_line(char *line)
{
    unsigned char previous = 0;
    for (char *at = line; *at != '\0'; at++) {
        unsigned char byte = (unsigned char)*at;
        bool c1 = previous == 0xc2 && byte >= 0x80 && byte <= 0x9f;
        if (byte < 0x20 || byte == 0x7f || c1)
            *at = '?';
        previous = byte;
    }
}

void log_to(const struct env *env, enum log_level level, const char *format, ...)
{
    char line[LOG_LINE_BYTES];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0)
        (void)snprintf(line, sizeof line, "log: line could not be formatted");
    clean_line(line);
    env->trace(env->host, level, line);
}

const char *log_level_name(enum log_level level)
{
    size_t index = (size_t)level;
    return index < sizeof level_names / sizeof level_names[0] ? level_names[index] : "none";
}

int log_level_parse(const char *text, enum log_level *out)
{
    for (enum log_level level = LOG_ERROR; level <= LOG_TRACE; level++) {
        if (strcmp(text, level_names[level]) == 0) {
            *out = level;
            return 0;
        }
    }
    return E_INVALID;
}

_Noreturn void assert_failed(const char *expression, const char *file, int line)
{
    (void)fprintf(stderr, "shoal: assertion failed: %s at %s:%d\n", expression, file, line);
    abort();
}
