/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal agent`: loads and checks the configuration, then runs the agent (agent.h). */
#include "cli.h"

#include <string.h>

#include "agent.h"
#include "harden.h"
#include "loop.h"

/* Large: on the heap, in one piece. */
struct whole {
    struct config_options options;
    struct config config;
    struct config_error error;
    struct agent agent;
};

static int run(const struct cli_context *context, struct whole *whole)
{
    int err = config_load(&whole->options, &whole->config, &whole->error);
    if (err != 0)
        return cli_failed(context, "agent", "%s", whole->error.text);
    whole->config.options = &whole->options;
    err = config_verify(&whole->config, &whole->error);
    (void)harden_process(); /* before the first thread; what the kernel refuses we do without */
    if (err == 0)
        err = agent_run(&whole->agent, &whole->config, &whole->error);
    config_close(&whole->config);
    if (err == 0)
        return CLI_OK;
    return cli_failed(context, "agent", "%s",
                      whole->error.text[0] != '\0' ? whole->error.text : err_text(err));
}

int cli_agent(const struct cli_context *context, int argc, char **argv)
{
    struct whole *whole = loop_alloc(NULL, NULL, sizeof *whole);
    if (whole == NULL)
        return cli_failed(context, "agent", "%s", err_text(E_NO_MEMORY));
    memset(whole, 0, sizeof *whole);
    whole->options.environment = context->environment;
    int code = CLI_OK;
    for (int i = 1; i < argc && code == CLI_OK; i++) {
        int taken = cli_config_option(context, "agent", argc, argv, &i, &whole->options);
        if (taken < 0)
            code = -taken;
        else if (taken == 0)
            code = cli_usage(context, "agent", "unknown argument \"%s\"", argv[i]);
    }
    if (code == CLI_OK)
        code = run(context, whole);
    (void)loop_alloc(NULL, whole, 0);
    return code;
}
