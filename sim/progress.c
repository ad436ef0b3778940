/* SPDX-License-Identifier: Apache-2.0 */
/* See progress.h. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Fast enough to look alive, seldom enough to cost nothing. */
#define SHOW_EVERY_S 0.2

double progress_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void progress_clock(double seconds, char out[PROGRESS_CLOCK_BYTES])
{
    unsigned long long all = seconds > 0 ? (unsigned long long)seconds : 0;
    if (all >= 3600)
        (void)snprintf(out, PROGRESS_CLOCK_BYTES, "%llu:%02llu:%02llu", all / 3600, all / 60 % 60,
                       all % 60);
    else
        (void)snprintf(out, PROGRESS_CLOCK_BYTES, "%llu:%02llu", all / 60, all % 60);
}

void progress_bar(double share, char out[PROGRESS_BAR_CELLS + 1])
{
    double inside = share < 0 ? 0 : share > 1 ? 1 : share;
    memset(out, '.', PROGRESS_BAR_CELLS);
    memset(out, '#', (size_t)(inside * PROGRESS_BAR_CELLS));
    out[PROGRESS_BAR_CELLS] = '\0';
}

void progress_show(struct progress *progress, const struct world *world)
{
    char bar[PROGRESS_BAR_CELLS + 1], gone[PROGRESS_CLOCK_BYTES], left[PROGRESS_CLOCK_BYTES];
    struct world_progress state;
    double now_s = progress_now_s();
    if (progress->start_s <= 0)
        progress->start_s = now_s;
    if (now_s - progress->shown_s < SHOW_EVERY_S || !isatty(STDERR_FILENO))
        return;
    progress->shown_s = now_s;
    progress->shown = true;
    world_progress(world, &state);
    /* Bytes tell of the time that is left before the first node is done. */
    double share =
        state.wanted_bytes > 0 ? (double)state.got_bytes / (double)state.wanted_bytes : 0;
    double elapsed_s = now_s - progress->start_s;
    progress_bar(share, bar);
    progress_clock(elapsed_s, gone);
    progress_clock(share > 0 ? elapsed_s * (1 - share) / share : 0, left);
    fprintf(stderr, "\r\033[K[%s] %.0f %% of nodes done, %.1f s simulated, %s gone, %s%s", bar,
            state.nodes > 0 ? 100.0 * state.nodes_done / state.nodes : 0,
            (double)world_now_us(world) / 1e6, gone, share > 0.01 ? left : "?",
            share > 0.01 ? " left" : "");
    (void)fflush(stderr);
}

void progress_end(struct progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
    *progress = (struct progress){0};
}
