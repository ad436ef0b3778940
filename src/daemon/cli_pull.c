/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal pull`: orders an image from the agent over its control socket and looks on until it is
 * here. The order is attached to this process: it ends with it.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "cli_control.h"
#include "control_socket.h"
#include "hold.h"
#include "image_name.h"
#include "pull_http.h"
#include "pull_order.h"
#include "pull_text.h"
#include "status_text.h"

#define LOOK_MS 250
#define ASK_MS  5000

struct wishes {
    struct control_options control;
    const char *image, *platform, *on;
    bool json;
};

static bool platform_known(const char *text)
{
    struct platform platform;
    return strcmp(text, "all") == 0 || platform_parse(text, &platform) == 0;
}

/* The value of an option `name` at argv[*index], as the next word or behind '='; NULL: not this
 * option. "": it has none. */
static const char *value_of(const char *name, int argc, char **argv, int *index)
{
    const char *word = argv[*index];
    size_t bytes = strlen(name);
    if (strncmp(word, name, bytes) != 0 || (word[bytes] != '=' && word[bytes] != '\0'))
        return NULL;
    if (word[bytes] == '=')
        return word + bytes + 1;
    return *index + 1 == argc ? "" : argv[++*index];
}

/* 1 taken, 0 another argument, -1 a usage error after a message. */
static int take_value(const struct cli_context *context, int argc, char **argv, int *index,
                      struct wishes *out)
{
    struct pull_order order;
    const char *value = value_of("--platform", argc, argv, index);
    if (value != NULL) {
        out->platform = value;
        if (platform_known(value))
            return 1;
        (void)cli_usage(context, "pull", "--platform \"%.100s\": os/arch, os/arch/variant or all",
                        value);
        return -1;
    }
    value = value_of("--on", argc, argv, index);
    if (value == NULL)
        return 0;
    out->on = value;
    if (pull_on_parse(value, &order))
        return 1;
    (void)cli_usage(context, "pull", "--on \"%.100s\": local, zone, all or a number of nodes",
                    value);
    return -1;
}

/* One argument that is no common option. */
static int take_argument(const struct cli_context *context, int argc, char **argv, int *index,
                         struct wishes *out)
{
    const char *word = argv[*index];
    struct image_name image;
    if (strcmp(word, "--json") == 0) {
        out->json = true;
        return CLI_OK;
    }
    int taken = take_value(context, argc, argv, index, out);
    if (taken != 0)
        return taken > 0 ? CLI_OK : CLI_USAGE;
    if (word[0] == '-' || out->image != NULL)
        return cli_usage(context, "pull", "unknown argument \"%.200s\"", word);
    if (image_name_parse(word, &image) != 0)
        return cli_usage(context, "pull", "\"%.200s\" is no image's name (registry/name:tag)",
                         word);
    out->image = word;
    return CLI_OK;
}

static int take_arguments(const struct cli_context *context, int argc, char **argv,
                          struct wishes *out)
{
    for (int i = 1; i < argc; i++) {
        int taken = cli_config_option(context, "pull", argc, argv, &i, &out->control.config);
        if (taken < 0)
            return -taken;
        int code = taken > 0 ? CLI_OK : take_argument(context, argc, argv, &i, out);
        if (code != CLI_OK)
            return code;
    }
    return out->image != NULL ? CLI_OK : cli_usage(context, "pull", "which image?");
}

/* The agent's no, in its own words. */
static int refused(const struct cli_context *context, const struct control_answer *answer,
                   const json_t *body)
{
    const char *text = json_text_at(body, "error");
    return cli_failed(context, "pull", "%.500s",
                      text[0] != '\0'         ? text
                      : answer->status == 404 ? "the agent is of a version without pull"
                                              : answer->body);
}

/* One question or, with `body`, order. CLI_OK with an object. */
static int ask(const struct cli_context *context, const struct wishes *wishes, const char *target,
               const char *body, json_t **out)
{
    struct control_answer answer;
    const char *path = wishes->control.path;
    int err = body == NULL ? control_get(path, target, ASK_MS, &answer)
                           : control_post(path, target, body, ASK_MS, &answer);
    if (err != 0)
        return cli_failed(context, "pull", "%.500s: %s", path, control_error_text(err));
    json_t *value = json_loadb(answer.body, answer.body_bytes, 0, NULL);
    bool fine = (answer.status == 200 || answer.status == 202) && json_is_object(value);
    int code = fine ? CLI_OK : refused(context, &answer, value);
    control_answer_free(&answer);
    if (fine)
        *out = value;
    else
        json_decref(value);
    return code;
}

/* CLI_OK with the order's place. */
static int order(const struct cli_context *context, const struct wishes *wishes, char *target,
                 size_t target_bytes)
{
    json_t *answer = NULL;
    json_t *body = json_pack("{s:s,s:s,s:s,s:b}", "image", wishes->image, "platform",
                             wishes->platform == NULL ? "" : wishes->platform, "on",
                             wishes->on == NULL ? "local" : wishes->on, "attached", 1);
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (text == NULL)
        return cli_failed(context, "pull", "%s", err_text(E_NO_MEMORY));
    int code = ask(context, wishes, PULL_HTTP_PATH, text, &answer);
    free(text);
    if (code != CLI_OK)
        return code;
    (void)snprintf(target, target_bytes, PULL_HTTP_PATH "/%.64s", json_text_at(answer, "id"));
    json_decref(answer);
    return CLI_OK;
}

static bool over(const json_t *pull)
{
    static const char *const ends[] = {"done", "failed", "cancelled"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (strcmp(json_text_at(pull, "state"), ends[i]) == 0)
            return true;
    return false;
}

static int show(const struct cli_context *context, const struct wishes *wishes,
                struct pull_text *text, const json_t *pull)
{
    if (wishes->json) {
        int code = cli_control_print(context, "pull", pull, JSON_COMPACT);
        (void)fflush(context->out);
        return code;
    }
    if (over(pull))
        pull_text_end(text, pull);
    else
        pull_text_show(text, pull);
    return CLI_OK;
}

static int look_on(const struct cli_context *context, const struct wishes *wishes,
                   const char *target)
{
    int fd = fileno(context->out);
    struct pull_text text = {.out = context->out, .terminal = fd >= 0 && isatty(fd) != 0};
    char cancel[128];
    bool stopped = false;
    (void)snprintf(cancel, sizeof cancel, "%s/cancel", target);
    for (;;) {
        json_t *pull = NULL;
        int code = ask(context, wishes, stopped ? cancel : target, stopped ? "{}" : NULL, &pull);
        if (code == CLI_OK)
            code = show(context, wishes, &text, pull);
        if (code != CLI_OK || over(pull)) {
            bool done = strcmp(json_text_at(pull, "state"), "done") == 0;
            if (code == CLI_OK && !done)
                code = cli_failed(context, "pull", "%.500s", json_text_at(pull, "error"));
            json_decref(pull);
            return code;
        }
        json_decref(pull);
        stopped = hold_stopped(LOOK_MS);
    }
}

int cli_pull(const struct cli_context *context, int argc, char **argv)
{
    struct wishes wishes = {.control = {.config = {.environment = context->environment}}};
    char target[96];
    int code = take_arguments(context, argc, argv, &wishes);
    if (code == CLI_OK)
        code = cli_control_find(context, "pull", &wishes.control);
    if (code != CLI_OK)
        return code;
    hold_begin();
    code = order(context, &wishes, target, sizeof target);
    if (code == CLI_OK)
        code = look_on(context, &wishes, target);
    hold_end();
    return code;
}
