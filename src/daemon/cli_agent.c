/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal agent`: configuration, loop, buffers, node, and what hangs on them, in the order of their
 * making; the reverse when it ends. Live keys of the configuration file are read again when it
 * changes (HRD-7).
 */
#include "cli.h"

#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "buffer.h"
#include "loop.h"
#include "node.h"
#include "secret_file.h"

#define RELOAD_MS 5000

struct agent {
    const struct cli_context *context;
    struct config_options options;
    struct config config;
    struct config_error error;
    uint64_t config_stamp;
    struct loop loop;
    struct buffer_pool *pool;
    struct node *node;
    uv_timer_t reload;
    struct loop_part part;
};

/* ---- live keys ---- */

static void reload_now(struct agent *agent)
{
    struct config_error error = {""};
    struct config *fresh = loop_alloc(NULL, NULL, sizeof *fresh);
    if (fresh == NULL)
        return;
    int err = config_load(&agent->options, fresh, &error);
    if (err != 0) {
        log_to(&agent->loop.env, LOG_WARN, "agent: configuration not read again: %s", error.text);
    } else {
        if (config_apply_live(&agent->config, fresh))
            log_to(&agent->loop.env, LOG_INFO, "agent: configuration read again mode=%u",
                   (unsigned)agent->config.mode);
        agent->loop.log.level = (enum log_level)agent->config.log_level;
        config_close(fresh);
    }
    (void)loop_alloc(NULL, fresh, 0);
}

static void on_reload(uv_timer_t *timer)
{
    struct agent *agent = timer->data;
    uint64_t stamp = file_stamp(agent->config.file.text);
    if (stamp == agent->config_stamp)
        return;
    agent->config_stamp = stamp;
    if (stamp != 0) /* a file that is being replaced may be away for a moment */
        reload_now(agent);
}

static void part_close(void *arg)
{
    struct agent *agent = arg;
    uv_close((uv_handle_t *)&agent->reload, NULL);
}

static int reload_start(struct agent *agent)
{
    agent->config_stamp = file_stamp(agent->config.file.text);
    int uv_error = uv_timer_init(&agent->loop.uv, &agent->reload);
    agent->reload.data = agent;
    if (uv_error == 0)
        uv_error = uv_timer_start(&agent->reload, on_reload, RELOAD_MS, RELOAD_MS);
    if (uv_error != 0)
        return loop_uv_error(uv_error);
    agent->part = (struct loop_part){.name = "reload", .arg = agent, .close = part_close};
    loop_add_part(&agent->loop, &agent->part);
    return 0;
}

/* ---- life ---- */

static int agent_start(struct agent *agent)
{
    const struct node_handlers handlers = {.host = agent};
    int err = buffer_pool_new(agent->config.buffer_bytes, &agent->pool);
    if (err == 0)
        err = node_new(&agent->loop, &agent->config, agent->pool, &handlers, &agent->node,
                       &agent->error);
    if (err == 0)
        err = reload_start(agent);
    return err;
}

static void agent_end(struct agent *agent)
{
    node_free(agent->node);
    buffer_pool_free(agent->pool);
}

static int agent_run(struct agent *agent)
{
    const struct config *config = &agent->config;
    const struct loop_options options = {
        .log_json = config->log_format == CONFIG_LOG_JSON,
        .log_level = (enum log_level)config->log_level,
        .log_fd = STDERR_FILENO,
        .stop_grace_us = config->stop_grace_us,
        .watchdog = true,
        .signals = true,
    };
    int err = node_data_dir(config, &agent->error);
    if (err == 0)
        err = loop_init(&agent->loop, &options);
    if (err != 0)
        return err;
    err = agent_start(agent);
    if (err != 0)
        loop_stop(&agent->loop);
    int run = loop_run(&agent->loop);
    if (run == E_TIMEOUT) {
        /* A worker still runs on our memory: nothing may be freed under it. */
        log_to(&agent->loop.env, LOG_WARN, "agent: leaving work behind");
        _exit(err == 0 ? CLI_OK : CLI_FAILED);
    }
    agent_end(agent);
    loop_close(&agent->loop);
    return err;
}

static int agent_main(struct agent *agent)
{
    int err = config_load(&agent->options, &agent->config, &agent->error);
    if (err != 0)
        return cli_failed(agent->context, "agent", "%s", agent->error.text);
    err = config_verify(&agent->config, &agent->error);
    if (err == 0)
        err = agent_run(agent);
    config_close(&agent->config);
    if (err == 0)
        return CLI_OK;
    return cli_failed(agent->context, "agent", "%s",
                      agent->error.text[0] != '\0' ? agent->error.text : err_text(err));
}

int cli_agent(const struct cli_context *context, int argc, char **argv)
{
    struct agent *agent = loop_alloc(NULL, NULL, sizeof *agent);
    if (agent == NULL)
        return cli_failed(context, "agent", "%s", err_text(E_NO_MEMORY));
    memset(agent, 0, sizeof *agent);
    agent->context = context;
    agent->options.environment = context->environment;
    int code = CLI_OK;
    for (int i = 1; i < argc && code == CLI_OK; i++) {
        int taken = cli_config_option(context, "agent", argc, argv, &i, &agent->options);
        if (taken < 0)
            code = -taken;
        else if (taken == 0)
            code = cli_usage(context, "agent", "unknown argument \"%s\"", argv[i]);
    }
    /* Secrets in memory stay out of core files and away from debuggers (HRD-3, HRD-4). */
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (code == CLI_OK)
        code = agent_main(agent);
    (void)loop_alloc(NULL, agent, 0);
    return code;
}
