/* SPDX-License-Identifier: Apache-2.0 */
/* shoal-sim: the command line. Each command does its own arguments; exit codes 0, 1 failed, 2
 * usage. */
#include <stdio.h>
#include <string.h>

#include "faults.h"
#include "plan.h"
#include "scenario.h"
#include "scenario_command.h"

static int example(int argc, char **argv)
{
    if (argc > 2) {
        bool help = strcmp(argv[2], "--help") == 0;
        fprintf(help ? stdout : stderr,
                "usage: shoal-sim example > my.yaml\n\nPrints a scenario with every key, its "
                "default, its range and what it means.\n");
        return help ? 0 : 2;
    }
    scenario_example(stdout);
    return ferror(stdout) ? 1 : 0;
}

static int list(int argc, char **argv)
{
    if (argc > 2) {
        bool help = strcmp(argv[2], "--help") == 0;
        fprintf(help ? stdout : stderr,
                "usage: shoal-sim list\n\nShows the shipped scenarios; `shoal-sim run NAME` runs "
                "one of them.\n");
        return help ? 0 : 2;
    }
    if (scenario_list(stdout) == 0)
        return 0;
    fprintf(stderr, "shoal-sim: no folder of shipped scenarios; set SHOAL_SCENARIOS\n");
    return 1;
}

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"run", scenario_command, "one run of a scenario (a file, or a shipped one's name)"},
    {"plan", plan_command, "many runs: sweeps over keys, searches for the value that suffices"},
    {"faults", faults_command, "runs under faults drawn from seeds, judged by checkers"},
    {"example", example, "a scenario with every key and default"},
    {"list", list, "the shipped scenarios"},
};

static void usage(FILE *to)
{
    fprintf(to, "usage: shoal-sim COMMAND [ARGUMENTS]\n\nSimulates a cluster that pulls images, "
                "with the agent's own protocol code in virtual time.\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\nshoal-sim COMMAND --help tells more. Exit codes: 0 done, 1 failed, 2 usage.\n");
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc, argv);
    bool asked = strcmp(name, "help") == 0 || strcmp(name, "--help") == 0;
    if (!asked && *name != '\0')
        fprintf(stderr, "shoal-sim: unknown command '%.60s'\n\n", name);
    usage(asked ? stdout : stderr);
    return asked ? 0 : 2;
}
