/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands share that ask the agent over its control socket (control_socket.h). */
#ifndef SHOAL_DAEMON_CLI_CONTROL_H
#define SHOAL_DAEMON_CLI_CONTROL_H

#include <jansson.h>

#include "cli.h"

struct control_options {
    struct config_options config;
    char path[CONFIG_PATH_BYTES + 16]; /* of the socket; cli_control_find */
};

/* Fills in the socket's path from the configuration. An exit code, after a message. */
int cli_control_find(const struct cli_context *context, const char *command,
                     struct control_options *options);
/* Asks once, for at most 5 s. CLI_OK with an object, to be given back with json_decref; else an
 * exit code, after a message that says what to do. */
int cli_control_ask(const struct cli_context *context, const char *command,
                    const struct control_options *options, const char *target, json_t **out);
/* Writes JSON and a newline to context->out. An exit code. */
int cli_control_print(const struct cli_context *context, const char *command, const json_t *value,
                      size_t flags);

#endif
