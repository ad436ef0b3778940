/* SPDX-License-Identifier: Apache-2.0 */
/* Live keys of the configuration (config_watch.h). */
#include "config_watch.h"

#include <string.h>

#include "log.h"
#include "secret_file.h"

#define LOOK_MS 5000

static void reload(struct config_watch *watch)
{
    struct config_error error = {""};
    struct loop *loop = watch->loop;
    struct config *fresh = loop_alloc(NULL, NULL, sizeof *fresh);
    if (fresh == NULL)
        return;
    int err = config_load(watch->config->options, fresh, &error);
    if (err != 0) {
        log_to(&loop->env, LOG_WARN, "config: not read again: %s", error.text);
    } else {
        if (config_apply_live(watch->config, fresh))
            log_to(&loop->env, LOG_INFO, "config: read again passthrough=%d level=%s secrets=%u",
                   (int)(watch->config->mode == CONFIG_MODE_PASSTHROUGH),
                   log_level_name((enum log_level)watch->config->log_level),
                   watch->config->secret_file_count);
        loop->log.level = (enum log_level)watch->config->log_level;
        config_close(fresh);
    }
    (void)loop_alloc(NULL, fresh, 0);
}

static void on_look(uv_timer_t *timer)
{
    struct config_watch *watch = timer->data;
    uint64_t stamp = file_stamp(watch->config->file.text);
    if (stamp == watch->stamp)
        return;
    watch->stamp = stamp;
    if (stamp != 0) /* a file that is being replaced may be away for a moment */
        reload(watch);
}

static void part_close(void *arg)
{
    struct config_watch *watch = arg;
    uv_close((uv_handle_t *)&watch->timer, NULL);
}

int config_watch_start(struct config_watch *watch, struct loop *loop, struct config *config)
{
    memset(watch, 0, sizeof *watch);
    if (config->options == NULL || config->file.text[0] == '\0')
        return 0;
    watch->loop = loop;
    watch->config = config;
    watch->stamp = file_stamp(config->file.text);
    int uv_error = uv_timer_init(&loop->uv, &watch->timer);
    if (uv_error != 0)
        return loop_uv_error(uv_error);
    watch->timer.data = watch;
    watch->part = (struct loop_part){.name = "config", .arg = watch, .close = part_close};
    loop_add_part(loop, &watch->part);
    return loop_uv_error(uv_timer_start(&watch->timer, on_look, LOOK_MS, LOOK_MS));
}
