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

static void say_error(void *arg, const char *line)
{
    (void)cli_failed(arg, "config", "%s", line);
}

static int check_all(const struct cli_context *context, const struct config_options *options,
                     struct config *config)
{
    struct cli_context *said = &(struct cli_context){.err = context->err};
    struct config_report report = {.tell = say_error, .arg = said};
    int err = config_check(options, &report, config);
    if (report.errors > CONFIG_ERRORS_TOLD)
        (void)cli_failed(context, "config", "and %u more", report.errors - CONFIG_ERRORS_TOLD);
    if (err == E_CONFIG)
        return CLI_FAILED;
    if (err != 0)
        return cli_failed(context, "config", "%s", err_text(err));
    config_notes(config, say_note, said);
    config_close(config);
    return CLI_OK;
}

static int show_all(const struct cli_context *context, const struct config_options *options,
                    enum form form, struct config *config)
{
    struct config_error error = {""};
    if (config_load(options, config, &error) != 0)
        return cli_failed(context, "config", "%s", error.text);
    int code = show(context, config, form);
    config_close(config);
    return code;
}

static int run(const struct cli_context *context, const struct config_options *options, bool check,
               enum form form)
{
    struct config *config = loop_alloc(NULL, NULL, sizeof *config);
    if (config == NULL)
        return cli_failed(context, "config", "%s", err_text(E_NO_MEMORY));
    int code =
        check ? check_all(context, options, config) : show_all(context, options, form, config);
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
