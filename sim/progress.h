/* SPDX-License-Identifier: Apache-2.0 */
/* A line on the terminal that says how far a long run is; nothing where stderr is no terminal. */
#ifndef SHOAL_SIM_PROGRESS_H
#define SHOAL_SIM_PROGRESS_H

#include <stdbool.h>

#include "world.h"

#define PROGRESS_BAR_CELLS   24
#define PROGRESS_CLOCK_BYTES 32

/* Monotonic seconds of this machine. */
double progress_now_s(void);
/* A duration as m:ss or h:mm:ss. */
void progress_clock(double seconds, char out[PROGRESS_CLOCK_BYTES]);
/* "####...." for a share of 0..1; what is beyond is cut off. */
void progress_bar(double share, char out[PROGRESS_BAR_CELLS + 1]);

/* One run under way. */
struct progress {
    double start_s, shown_s; /* 0: not yet */
    bool shown;              /* there is a line to wipe out */
};
/* Shows the run's state if it is time to, at most a few times a second. */
void progress_show(struct progress *progress, const struct world *world);
/* Wipes the line out. */
void progress_end(struct progress *progress);

#endif
