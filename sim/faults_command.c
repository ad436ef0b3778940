/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal-sim faults`: one child per seed, so that a broken invariant of a core, which aborts, is a
 * failing seed and the search goes on. The build is printed first, each seed before it runs, and a
 * failing one with the command that replays it.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "build_id.h"
#include "faults.h"
#include "plan_jobs.h"
#include "progress.h"
#include "scenario_args.h"

/* Failing seeds named at the end and in JSON. */
#define FAILED_MAX 1000

struct search {
    uint64_t first, seeds, jobs, fails_max;
    bool json, quiet;
    uint64_t failed[FAILED_MAX];
    uint64_t failed_count, done_count, pulls, faults, lies;
    uint64_t trace_hash; /* sum of all runs' */
    double node_seconds, worst_copies, worst_control_bps;
};

static void usage(FILE *to)
{
    fprintf(to, "usage: shoal-sim faults --seeds N [--seed S] [OPTIONS]\n\n"
                "Draws a cluster, pulls and faults from each seed, plays them, and judges: every "
                "pull ends, no wrong byte,\nviews converge, origin and control traffic within "
                "budget. The same seed gives the same run.\n"
                "Interrupted it sums up the seeds that are done.\n\n"
                "  --seeds N      how many (default 100)\n"
                "  --seed S       the first one (default 1000)\n"
                "  --jobs N       processes at once (default: the machine's processors)\n"
                "  --fails N      stop after so many failing seeds (default 10)\n"
                "  --quiet        only failing seeds\n"
                "  --json         the sums as JSON on stdout, everything else on stderr\n");
}

/* 0; 1: --help was printed; -1: wrong. */
static int parse(struct search *search, int argc, char **argv)
{
    const struct {
        const char *flag;
        uint64_t *value, min, max;
    } numbers[] = {{"--seeds", &search->seeds, 1, 100000000},
                   {"--seed", &search->first, 0, UINT64_MAX / 2},
                   {"--jobs", &search->jobs, 1, JOBS_MAX},
                   {"--fails", &search->fails_max, 1, FAILED_MAX}};
    for (int i = 2; i < argc; i++) {
        size_t n = 0;
        while (n < sizeof numbers / sizeof numbers[0] && strcmp(argv[i], numbers[n].flag) != 0)
            n++;
        if (n < sizeof numbers / sizeof numbers[0]) {
            const char *text = i + 1 < argc ? argv[i + 1] : NULL;
            if (scenario_args_number(argv[i], text, numbers[n].min, numbers[n].max,
                                     numbers[n].value) != 0)
                return -1;
            i++;
        } else if (strcmp(argv[i], "--json") == 0) {
            search->json = true;
        } else if (strcmp(argv[i], "--quiet") == 0) {
            search->quiet = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return 1;
        } else {
            fprintf(stderr, "shoal-sim: unknown option %s; see shoal-sim faults --help\n", argv[i]);
            return -1;
        }
    }
    return 0;
}

static FILE *talk(const struct search *search)
{
    return search->json ? stderr : stdout;
}

/* In the child. */
static int work(void *arg, size_t index, FILE *out)
{
    const struct search *search = arg;
    struct faults faults;
    struct faults_outcome outcome;
    FILE *to = talk(search);
    struct world *world = faults_prepare(search->first + index, WORLD_PLANT_NONE, &faults);
    if (world == NULL)
        return 1;
    if (!search->quiet)
        faults_print(&faults, to);
    (void)fflush(to);
    faults_play(world, &faults, &outcome, to);
    world_free(world);
    if (outcome.bad != 0 && search->quiet)
        faults_print(&faults, to);
    (void)fflush(to);
    return fwrite(&outcome, sizeof outcome, 1, out) == 1 ? 0 : 1;
}

static void say_failed(struct search *search, uint64_t seed, const struct faults_outcome *outcome,
                       const struct job_result *result)
{
    FILE *to = talk(search);
    fprintf(to, "seed: %" PRIu64 ": FAILED", seed);
    if (result->signal != 0)
        fprintf(to, ": killed by signal %d (%s)", result->signal, strsignal(result->signal));
    else if (outcome == NULL)
        fprintf(to, ": no result");
    fprintf(to, "; replay on %s: shoal-sim faults --seeds 1 --seed %" PRIu64 "\n", build_id(),
            seed);
    if (outcome != NULL)
        checkers_explain(&outcome->facts, outcome->bad, "  ", to);
    (void)fflush(to);
    if (search->failed_count < FAILED_MAX)
        search->failed[search->failed_count] = seed;
    search->failed_count++;
}

static bool done(void *arg, size_t index, const struct job_result *result)
{
    struct search *search = arg;
    struct faults_outcome outcome;
    bool whole = result->code == 0 && result->output_bytes == sizeof outcome;
    if (!whole && jobs_interrupted())
        return false; /* we ended it ourselves */
    search->done_count++;
    if (whole) {
        memcpy(&outcome, result->output, sizeof outcome);
        search->pulls += outcome.pulls;
        search->faults += outcome.fault_count;
        search->lies += outcome.lies;
        search->node_seconds += outcome.node_seconds;
        search->trace_hash += outcome.trace_hash;
        if (outcome.facts.origin_copies > search->worst_copies)
            search->worst_copies = outcome.facts.origin_copies;
        if (outcome.facts.control_bps > search->worst_control_bps)
            search->worst_control_bps = outcome.facts.control_bps;
    }
    if (!whole || outcome.bad != 0)
        say_failed(search, search->first + index, whole ? &outcome : NULL, result);
    return search->failed_count < search->fails_max;
}

static void sum_up(const struct search *search, double wall_s)
{
    if (!search->json) {
        printf("%" PRIu64 " seeds, %" PRIu64 " failed; %" PRIu64 " pulls, %" PRIu64
               " faults beside loss, %.1f node-hours, %" PRIu64
               " lies; at most %.2f origin copies; %.1f s\n",
               search->done_count, search->failed_count, search->pulls, search->faults,
               search->node_seconds / 3600, search->lies, search->worst_copies, wall_s);
        return;
    }
    printf("{\"build\": \"%s\", \"first_seed\": %" PRIu64 ", \"seeds\": %" PRIu64 ", \"failed\": [",
           build_id(), search->first, search->done_count);
    for (uint64_t i = 0; i < search->failed_count && i < FAILED_MAX; i++)
        printf("%s%" PRIu64, i > 0 ? ", " : "", search->failed[i]);
    printf("], \"pulls\": %" PRIu64 ", \"faults\": %" PRIu64
           ", \"node_hours\": %.2f, \"lies\": %" PRIu64
           ", \"worst_origin_copies\": %.3f, \"worst_control_bytes_per_s\": %.0f, "
           "\"trace_hash\": \"%016" PRIx64 "\", \"wall_s\": %.2f}\n",
           search->pulls, search->faults, search->node_seconds / 3600, search->lies,
           search->worst_copies, search->worst_control_bps, search->trace_hash, wall_s);
}

int faults_command(int argc, char **argv)
{
    struct search search = {
        .first = 1000, .seeds = 100, .jobs = jobs_processors(), .fails_max = 10};
    int code = parse(&search, argc, argv);
    if (code != 0)
        return code == 1 ? 0 : 2;
    fprintf(talk(&search), "shoal-sim %s: seeds %" PRIu64 "..%" PRIu64 ", %" PRIu64 " at a time\n",
            build_id(), search.first, search.first + search.seeds - 1, search.jobs);
    struct jobs jobs = {.arg = &search,
                        .work = work,
                        .done = done,
                        .count = (size_t)search.seeds,
                        .parallel = (unsigned)search.jobs};
    double start_s = progress_now_s();
    int err = jobs_run(&jobs);
    sum_up(&search, progress_now_s() - start_s);
    if (err != 0)
        fprintf(stderr, "shoal-sim: %s\n", err_text(err));
    if (jobs_interrupted())
        return 130;
    return err == 0 && search.failed_count == 0 ? 0 : 1;
}
