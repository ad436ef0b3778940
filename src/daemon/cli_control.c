/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the agent; see cli_control.h. */
#include "cli_control.h"

#include <string.h>

#include "control_socket.h"
#include "loop.h"

#define ASK_MS 5000

int cli_control_find(const struct cli_context *context, const char *command,
                     struct control_options *options)
{
    struct config_error error = {""};
    struct config *config = loop_alloc(NULL, NULL, sizeof *config);
    if (config == NULL)
        return cli_failed(context, command, "%s", err_text(E_NO_MEMORY));
    int code = CLI_OK;
    if (config_load(&options->config, config, &error) != 0) {
        code = cli_failed(context, command, "%s", error.text);
    } else {
        (void)control_path(config, options->path);
        config_close(config);
    }
    (void)loop_alloc(NULL, config, 0);
    return code;
}

int cli_control_ask(const struct cli_context *context, const char *command,
                    const struct control_options *options, const char *target, json_t **out)
{
    struct control_answer answer;
    json_error_t trouble;
    int err = control_get(options->path, target, ASK_MS, &answer);
    if (err != 0)
        return cli_failed(context, command, "%.500s: %s", options->path, control_error_text(err));
    int code = CLI_OK;
    json_t *value = json_loadb(answer.body, answer.body_bytes, 0, &trouble);
    if (answer.status != 200)
        code =
            cli_failed(context, command, "the agent says %d: %.300s", answer.status, answer.body);
    else if (!json_is_object(value))
        code = cli_failed(context, command,
                          "%.500s: the answer is no JSON object: is the agent of "
                          "another version?",
                          options->path);
    control_answer_free(&answer);
    if (code == CLI_OK)
        *out = value;
    else
        json_decref(value);
    return code;
}

int cli_control_print(const struct cli_context *context, const char *command, const json_t *value,
                      size_t flags)
{
    if (json_dumpf(value, context->out, flags) != 0 || fputc('\n', context->out) == EOF)
        return cli_failed(context, command, "cannot write");
    return CLI_OK;
}
