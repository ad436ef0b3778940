/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal explain`: where the bytes of a blob or image came from on this node. */
#include <string.h>

#include "cli.h"
#include "cli_control.h"
#include "digest.h"
#include "image_name.h"
#include "status_text.h"

struct wishes {
    struct control_options control;
    const char *what; /* NULL: all */
    bool json;
};

static bool is_name(const char *text)
{
    struct digest digest;
    struct image_name image;
    return digest_parse(text, strlen(text), &digest) == 0 || image_name_parse(text, &image) == 0;
}

static int take_arguments(const struct cli_context *context, int argc, char **argv,
                          struct wishes *out)
{
    for (int i = 1; i < argc; i++) {
        int taken = cli_config_option(context, "explain", argc, argv, &i, &out->control.config);
        if (taken < 0)
            return -taken;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--json") == 0)
            out->json = true;
        else if (argv[i][0] == '-' || out->what != NULL)
            return cli_usage(context, "explain", "unknown argument \"%s\"", argv[i]);
        else if (!is_name(argv[i]))
            return cli_usage(context, "explain",
                             "\"%.200s\" is neither a digest (sha256:...) nor an image's name",
                             argv[i]);
        else
            out->what = argv[i];
    }
    return CLI_OK;
}

int cli_explain(const struct cli_context *context, int argc, char **argv)
{
    struct wishes wishes = {.control = {.config = {.environment = context->environment}}};
    char target[1024];
    json_t *answer = NULL;
    int code = take_arguments(context, argc, argv, &wishes);
    if (code == CLI_OK)
        code = cli_control_find(context, "explain", &wishes.control);
    if (code != CLI_OK)
        return code;
    /* A name that passed is_name fits and has no character that a target may not have. */
    (void)snprintf(target, sizeof target, "/explain%s%s", wishes.what == NULL ? "" : "/",
                   wishes.what == NULL ? "" : wishes.what);
    code = cli_control_ask(context, "explain", &wishes.control, target, &answer);
    if (code != CLI_OK)
        return code;
    if (wishes.json)
        code = cli_control_print(context, "explain", answer, JSON_INDENT(2));
    else
        explain_text(answer, context->out);
    json_decref(answer);
    return code;
}
