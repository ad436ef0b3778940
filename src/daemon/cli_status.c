/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal status`: asks the agent of this node over its control socket. */
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "cli_control.h"
#include "hold.h"
#include "status_text.h"

#define WATCH_MS 1000

struct wishes {
    struct control_options control;
    bool json, watch;
};

static int take_arguments(const struct cli_context *context, int argc, char **argv,
                          struct wishes *out)
{
    for (int i = 1; i < argc; i++) {
        int taken = cli_config_option(context, "status", argc, argv, &i, &out->control.config);
        if (taken < 0)
            return -taken;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--json") == 0)
            out->json = true;
        else if (strcmp(argv[i], "--watch") == 0)
            out->watch = true;
        else
            return cli_usage(context, "status", "unknown argument \"%s\"", argv[i]);
    }
    return CLI_OK;
}

/* One line for logs and pipes, where there is nothing to redraw. */
static void line_put(const json_t *status, FILE *out)
{
    char origin[BYTES_TEXT_BYTES], peer[BYTES_TEXT_BYTES], given[BYTES_TEXT_BYTES];
    const json_t *bytes = json_object_get(status, "bytes");
    (void)fprintf(out, "members %zu  swarms %zu  registries %s  peers %s  given %s\n",
                  json_array_size(json_object_get(status, "members")),
                  json_array_size(json_object_get(status, "swarms")),
                  bytes_text(json_number_at(bytes, "origin"), origin),
                  bytes_text(json_number_at(bytes, "peer"), peer),
                  bytes_text(json_number_at(bytes, "uploaded"), given));
}

static int once(const struct cli_context *context, const struct wishes *wishes, bool terminal)
{
    json_t *status = NULL;
    int code = cli_control_ask(context, "status", &wishes->control, "/status", &status);
    if (code != CLI_OK)
        return code;
    if (wishes->watch && terminal && !wishes->json)
        (void)fputs("\033[H\033[J", context->out); /* home, and clear what is below */
    if (wishes->json)
        code = cli_control_print(context, "status", status,
                                 wishes->watch ? JSON_COMPACT : JSON_INDENT(2));
    else if (wishes->watch && !terminal)
        line_put(status, context->out);
    else
        status_text(status, context->out);
    (void)fflush(context->out);
    json_decref(status);
    return code;
}

int cli_status(const struct cli_context *context, int argc, char **argv)
{
    struct wishes wishes = {.control = {.config = {.environment = context->environment}}};
    int code = take_arguments(context, argc, argv, &wishes);
    if (code == CLI_OK)
        code = cli_control_find(context, "status", &wishes.control);
    if (code != CLI_OK)
        return code;
    int fd = fileno(context->out);
    bool terminal = fd >= 0 && isatty(fd) != 0;
    if (wishes.watch)
        hold_begin();
    code = once(context, &wishes, terminal);
    while (wishes.watch && code == CLI_OK && !hold_stopped(WATCH_MS))
        code = once(context, &wishes, terminal);
    if (wishes.watch)
        hold_end();
    return code;
}
