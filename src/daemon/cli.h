/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line `shoal <command> [options]`: a table of commands, --help for each, exit codes 0
 * done, 1 failed, 2 usage (DESIGN §6). A new command is a function and one line in the table of
 * cli.c. Output for the user goes to ctx->out, messages to ctx->err, so that tests can read both.
 */
#ifndef SHOAL_DAEMON_CLI_H
#define SHOAL_DAEMON_CLI_H

#include <stdio.h>

#include "config.h"
#include "runtime.h"

#define CLI_OK     0
#define CLI_FAILED 1
#define CLI_USAGE  2

struct cli_context {
    FILE *out;
    FILE *err;
    char *const *environment; /* as environ */
};

struct cli_command {
    const char *name;
    const char *synopsis; /* "[--config F] [--set k=v]..." */
    const char *summary;  /* one line for the list */
    const char *help;     /* further lines for --help; may be NULL */
    /* argv[0] is the command's name. --help was answered already. Returns an exit code. */
    int (*run)(const struct cli_context *context, int argc, char **argv);
};

/* Runs a whole command line; argv[0] is the program. Returns the exit code. */
int cli_main(const struct cli_context *context, int argc, char **argv);

/* Prints "shoal <command>: <message>" and how to get help to context->err; returns CLI_USAGE. */
int cli_usage(const struct cli_context *context, const char *command, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Prints "shoal <command>: <message>" to context->err; returns CLI_FAILED. */
int cli_failed(const struct cli_context *context, const char *command, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Takes the options every command with a configuration shares (--config F, --config=F, --set k=v,
 * --set=k=v) at argv[*index]: 1 taken (*index is at the last word used), 0 not one of them, else
 * CLI_USAGE negated after a message. Start with a zeroed `options`; it borrows from argv.
 */
int cli_config_option(const struct cli_context *context, const char *command, int argc, char **argv,
                      int *index, struct config_options *options);

int cli_agent(const struct cli_context *context, int argc, char **argv);   /* cli_agent.c */
int cli_config(const struct cli_context *context, int argc, char **argv);  /* cli_config.c */
int cli_keygen(const struct cli_context *context, int argc, char **argv);  /* cli_keygen.c */
int cli_status(const struct cli_context *context, int argc, char **argv);  /* cli_status.c */
int cli_explain(const struct cli_context *context, int argc, char **argv); /* cli_explain.c */
int cli_pull(const struct cli_context *context, int argc, char **argv);    /* cli_pull.c */
int cli_doctor(const struct cli_context *context, int argc, char **argv);  /* cli_doctor.c */
int cli_datadir(const struct cli_context *context, int argc, char **argv); /* cli_datadir.c */
/* The runtimes' configuration: cli_runtime.c. */
int cli_containerd(const struct cli_context *context, int argc, char **argv);
int cli_podman(const struct cli_context *context, int argc, char **argv);
int cli_docker(const struct cli_context *context, int argc, char **argv);
/* How many files `apply` would write for this kind with this configuration, on the host whose / is
 * at `root` ("" here). CLI_OK with *changes, or CLI_FAILED after a message. */
int cli_runtime_changes(const struct cli_context *context, enum runtime_kind kind,
                        const struct config_options *options, const char *root, unsigned *changes);

#define SHOAL_VERSION "0.1.0"

#endif
