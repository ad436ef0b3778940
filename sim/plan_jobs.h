/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many runs in child processes, a few at a time: a run that crashes or is killed is a result like
 * any other, and memory of one run is gone before the next.
 */
#ifndef SHOAL_SIM_PLAN_JOBS_H
#define SHOAL_SIM_PLAN_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

#define JOBS_MAX        64
#define JOBS_OUTPUT_MAX (1024 * 1024) /* bytes of one job; more fails it */

struct job_result {
    const uint8_t *output; /* what the job wrote, borrowed for the call */
    size_t output_bytes;
    int code;       /* exit code; -1: it died */
    int signal;     /* that killed it; 0: none */
    bool too_large; /* it wrote more than JOBS_OUTPUT_MAX and was killed */
};

struct jobs {
    void *arg;
    /* In a child: does job `index`, writes its result to `out`, returns the exit code. */
    int (*work)(void *arg, size_t index, FILE *out);
    /* In the parent, once per job in order of ending. False: start no more. */
    bool (*done)(void *arg, size_t index, const struct job_result *result);
    /* In the parent, about once a second while children run; NULL: not. */
    void (*tick)(void *arg);
    size_t count;
    unsigned parallel; /* 1..JOBS_MAX */
};

/* Runs all jobs. Children end when the parent does. 0; E_NO_MEMORY; E_INTERNAL when no process
 * could be made (nothing runs any more then). */
MUST_USE int jobs_run(const struct jobs *jobs);
/* From the first jobs_run on SIGINT (ctrl-C) ends what runs and begins no more jobs: jobs_run
 * returns 0 and this says true. */
bool jobs_interrupted(void);
/* Processors of this machine, at most JOBS_MAX: what `parallel` may sensibly be. */
unsigned jobs_processors(void);

#endif
