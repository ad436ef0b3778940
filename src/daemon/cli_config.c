/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal config show|check`. */
#include "cli.h"

#include <string.h>

#include "loop.h"

enum form {
    FORM_YAML,
    FORM_JSON,
    FORM_MARKDOWN,
};

static int show(const struct cli_context *context, const struct config *config, enum form form)
{
    if (form == FORM_JSON) {
        int err = config_show_json(config, context->out);
        return err == 0 ? CLI_OK : cli_failed(context, "config", "%s", err_text(err));
    }
    config_show(config, context->out);
    return CLI_OK;
}

static void say_note(void *arg, bool warning, const char *line)
{
    const struct cli_context *context = arg;
    (void)fprintf(context->err, "shoal config: %s: %s\n", warning ? "warning" : "note", line);
}

static int run(const struct cli_context *context, const struct config_options *options, bool check,
               enum form form)
{
    struct config_error error = {""};
    struct config *config = loop_alloc(NULL, NULL, sizeof *config);
    if (config == NULL)
        return cli_failed(context, "config", "%s", err_text(E_NO_MEMORY));
    int code = CLI_OK;
    int err = config_load(options, config, &error);
    if (err == 0) {
        if (check)
            err = config_verify(config, &error);
        else
            code = show(context, config, form);
        if (check && err == 0)
            config_notes(config, say_note, &(struct cli_context){.err = context->err});
        config_close(config);
    }
    if (err != 0)
        code = cli_failed(context, "config", "%s", error.text);
    (void)loop_alloc(NULL, config, 0);
    return code;
}

int cli_config(const struct cli_context *context, int argc, char **argv)
{
    struct config_options options = {.environment = context->environment};
    enum form form = FORM_YAML;
    if (argc < 2 || (strcmp(argv[1], "show") != 0 && strcmp(argv[1], "check") != 0))
        return cli_usage(context, "config", "say show or check");
    bool check = strcmp(argv[1], "check") == 0;
    for (int i = 2; i < argc; i++) {
        int taken = cli_config_option(context, "config", argc, argv, &i, &options);
        if (taken < 0)
            return -taken;
        if (taken > 0)
            continue;
        if (!check && strcmp(argv[i], "--json") == 0)
            form = FORM_JSON;
        else if (!check && strcmp(argv[i], "--markdown") == 0)
            form = FORM_MARKDOWN;
        else
            return cli_usage(context, "config", "unknown argument \"%s\"", argv[i]);
    }
    if (form == FORM_MARKDOWN) { /* of the program, not of any configuration */
        config_show_markdown(context->out);
        return CLI_OK;
    }
    return run(context, &options, check, form);
}
