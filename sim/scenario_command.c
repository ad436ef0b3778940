/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal-sim run`: one scenario, its figures for people or as JSON, and the reports asked for. */
#include "scenario_command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "progress.h"
#include "scenario_args.h"

#define COMMAND_BYTES 2048

struct run {
    struct scenario_args args;
    bool json, text, check;
    const char *html, *csv, *series; /* files to write; NULL: none */
    char command[COMMAND_BYTES];
    struct scenario scenario;
    struct scenario_settings settings;
};

static void usage(FILE *to)
{
    fprintf(to, "usage: shoal-sim run [SCENARIO] [OPTIONS]\n\n"
                "Simulates one scenario: a YAML file, or the name of a shipped one (`shoal-sim "
                "list`); none: the defaults.\n"
                "Prints its figures, as JSON where stdout is no terminal.\n\n"
                "  --json            JSON on a terminal, too\n"
                "  --text            figures for people elsewhere, too\n"
                "  --html FILE       a page with plots\n"
                "  --csv FILE        a line per node\n"
                "  --series FILE     CSV over time\n"
                "  --check           exit with 1 if a limit of the scenario's checks is broken\n");
    scenario_args_help(to);
}

/* 0; 1: --help was printed; -1: wrong. */
static int parse(struct run *run, int argc, char **argv)
{
    scenario_args_init(&run->args);
    for (int i = 2; i < argc; i++) {
        const char **file = NULL;
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return 1;
        }
        if (strcmp(argv[i], "--html") == 0)
            file = &run->html;
        else if (strcmp(argv[i], "--csv") == 0)
            file = &run->csv;
        else if (strcmp(argv[i], "--series") == 0)
            file = &run->series;
        if (file != NULL) {
            if (++i == argc) {
                fprintf(stderr, "shoal-sim: %s takes a file name\n", argv[i - 1]);
                return -1;
            }
            *file = argv[i];
        } else if (strcmp(argv[i], "--json") == 0) {
            run->json = true;
        } else if (strcmp(argv[i], "--text") == 0) {
            run->text = true;
        } else if (strcmp(argv[i], "--check") == 0) {
            run->check = true;
        } else {
            int taken = scenario_args_take(&run->args, argc, argv, &i);
            if (taken == 0)
                fprintf(stderr, "shoal-sim: unknown option %s; see shoal-sim run --help\n",
                        argv[i]);
            if (taken <= 0)
                return -1;
        }
    }
    return scenario_args_finish(&run->args);
}

static void print_people(const struct scenario *scenario, const struct scenario_result *result)
{
    const struct report *r = &result->report;
    double bound_s = r->bound_s > 0 ? r->bound_s : 1;
    printf("%s: %u nodes, %u zones, %.1f MiB each, seed %" PRIu64 "\n", scenario->name.text,
           scenario->world.node_count, scenario->world.zone_count, (double)r->bytes / (1 << 20),
           scenario->world.seed);
    if (r->by_client)
        printf(
            "  %u pulls of images, each from its own start; %.1f %% of their bytes were on their "
            "node\n",
            r->clients.count, r->hit_ratio * 100);
    printf("  completion    p50 %.2f s  p90 %.2f s  p99 %.2f s  p99.9 %.2f s  last %.2f s\n",
           r->p50_s, r->p90_s, r->p99_s, r->p999_s, r->last_s);
    printf("  bound %.2f s   p50 %.3f x  p99 %.3f x  p99.9 %.3f x  last %.3f x\n", r->bound_s,
           r->p50_s / bound_s, r->p99_s / bound_s, r->p999_s / bound_s, r->last_s / bound_s);
    printf("  without mesh  p50 %.2f s  last %.2f s at best: %.1f times as long\n",
           r->no_mesh_p50_s, r->no_mesh_last_s, r->last_s > 0 ? r->no_mesh_last_s / r->last_s : 0);
    printf("  origin        %.3f copies   across zones %.3f copies   control %.3f %%   upload skew "
           "%.2f\n",
           r->origin_copies, r->cross_zone_copies, r->control_fraction * 100, r->upload_skew);
    if (r->faultless.compared)
        printf("  no faults     p99 %.2f s, with them %.2f s levelled: %.3f x   origin %.3f x\n",
               r->faultless.p99_s, r->faultless.levelled_p99_s, r->faultless.p99,
               r->faultless.origin);
    printf("  pulls         %" PRIu64 ", %u failed (%" PRIu64 " without a death), %" PRIu64
           " unfinished; wrong bytes %" PRIu64 "\n",
           result->pulls, r->pulls_failed, result->unexplained, result->unfinished, r->wrong_bytes);
    printf("  simulator     %" PRIu64 " events in %.1f s (%.0f per s), %.0f MiB, trace %016" PRIx64
           "\n",
           r->events, r->wall_s, (double)r->events / (r->wall_s + 1e-9), r->rss_mib, r->trace_hash);
}

typedef int (*write_fn)(const struct report *report, struct world *world,
                        const struct report_context *context, FILE *to);

static int write_file(const char *path, write_fn write, const struct report *report,
                      struct world *world, const struct report_context *context)
{
    if (path == NULL)
        return 0;
    FILE *file = fopen(path, "wb");
    int err = file == NULL ? E_IO : write(report, world, context, file);
    if (file != NULL && fclose(file) != 0 && err == 0)
        err = E_IO;
    if (err != 0)
        fprintf(stderr, "shoal-sim: %s: cannot be written: %s\n", path, err_text(err));
    return err;
}

static int write_series(const struct report *report, struct world *world,
                        const struct report_context *context, FILE *to)
{
    (void)report;
    (void)context;
    return report_write_series_csv(world, to);
}

static int report_all(struct run *run, struct world *world, struct scenario_result *result)
{
    scenario_settings_of(&run->scenario, &run->settings);
    struct report_context context = {.scenario = run->scenario.name.text,
                                     .description = run->scenario.description.text,
                                     .command = run->command,
                                     .settings = run->settings.rows,
                                     .setting_count = run->settings.count,
                                     .config = &run->scenario.world};
    int err = 0;
    if (run->json || (!run->text && !isatty(STDOUT_FILENO)))
        err = report_write_json(&result->report, &context, stdout);
    else
        print_people(&run->scenario, result);
    const struct {
        const char *path;
        write_fn write;
    } files[] = {
        {run->html, report_write_html}, {run->csv, report_write_csv}, {run->series, write_series}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        int file_err = write_file(files[i].path, files[i].write, &result->report, world, &context);
        err = err != 0 ? err : file_err;
    }
    return err;
}

static void show_progress(void *arg, const struct world *world)
{
    progress_show(arg, world);
}

static int run_all(struct run *run)
{
    struct world *world = NULL;
    struct scenario_result result;
    struct progress progress = {0};
    double start_s = progress_now_s();
    if (isatty(STDERR_FILENO)) {
        run->scenario.watcher = show_progress;
        run->scenario.watcher_arg = &progress;
    }
    int err = scenario_run(&run->scenario, &world, &result);
    progress_end(&progress);
    if (err != 0) {
        fprintf(stderr, "shoal-sim: %s for %u nodes\n", err_text(err),
                run->scenario.world.node_count);
        return 1;
    }
    result.report.wall_s = progress_now_s() - start_s;
    if (scenario_wants_faultless(&run->scenario))
        err = scenario_compare(&run->scenario, world, &result);
    progress_end(&progress);
    int report_err = report_all(run, world, &result);
    err = err != 0 ? err : report_err;
    unsigned broken = scenario_check_result(&run->scenario, &result, stderr);
    world_free(world);
    bool good = err == 0 && result.unexplained == 0 && result.unfinished == 0 &&
                result.report.wrong_bytes == 0 && (broken == 0 || !run->check);
    return good ? 0 : 1;
}

int scenario_command(int argc, char **argv)
{
    struct scenario_error error;
    struct run *run = calloc(1, sizeof *run);
    if (run == NULL)
        return 1;
    int code = parse(run, argc, argv);
    if (code == 0) {
        (void)scenario_args_command(argc, argv, run->command, sizeof run->command);
        int err = scenario_load(&run->args.options, &run->scenario, &error);
        if (err != 0) {
            fprintf(stderr, "shoal-sim: %s\n", err == E_CONFIG ? error.text : err_text(err));
            code = 2;
        } else {
            if (run->scenario.name.text[0] == '\0')
                (void)snprintf(run->scenario.name.text, sizeof run->scenario.name.text, "run");
            code = run_all(run);
            scenario_close(&run->scenario);
        }
    } else {
        code = code == 1 ? 0 : 2;
    }
    scenario_args_close(&run->args);
    free(run);
    return code;
}
