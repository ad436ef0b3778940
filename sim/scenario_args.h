/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `run` and `plan` have in common on the command line: the scenario, --set, and short flags
 * that stand for keys (--nodes 100 for --set nodes=100).
 */
#ifndef SHOAL_SIM_SCENARIO_ARGS_H
#define SHOAL_SIM_SCENARIO_ARGS_H

#include "scenario.h"

#define SCENARIO_SETS_MAX   128
#define SCENARIO_SHORTS_MAX 32
#define SCENARIO_SHORT_TEXT 96

struct scenario_args {
    struct scenario_options options; /* file and sets, as found so far */
    const char *sets[SCENARIO_SETS_MAX + SCENARIO_SHORTS_MAX];
    char short_text[SCENARIO_SHORTS_MAX][SCENARIO_SHORT_TEXT];
    size_t short_count;
    uint64_t mib, layers; /* --mib, --layers; 0: not given */
    char *layers_text;    /* owned */
};

/* Nothing given yet. */
void scenario_args_init(struct scenario_args *args);
/*
 * Looks at argv[*i]. 1: taken, *i is its last word; 0: not one of these; -1: wrong, said on stderr.
 */
int scenario_args_take(struct scenario_args *args, int argc, char **argv, int *i);
/* After the last word. 0, or E_NO_MEMORY. */
MUST_USE int scenario_args_finish(struct scenario_args *args);
/* Frees what finish took. */
void scenario_args_close(struct scenario_args *args);
/* Prints the flags. */
void scenario_args_help(FILE *to);
/* A whole number argument from min to max. 0, or E_INVALID with a line on stderr. `text` may be
 * NULL (missing). */
MUST_USE int scenario_args_number(const char *flag, const char *text, uint64_t min, uint64_t max,
                                  uint64_t *out);
/* The words joined by blanks, quoted for a shell where needed, cut if too long; `out` is returned.
 */
const char *scenario_args_command(int argc, char **argv, char *out, size_t out_bytes);

#endif
