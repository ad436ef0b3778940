/* SPDX-License-Identifier: Apache-2.0 */
/* The host of topology detection; see topology_loop.h. */
#include "topology_loop.h"

#include <string.h>

#include "log.h"

static void on_timer(uv_timer_t *timer)
{
    struct topology_loop *topology = timer->data;
    topology_detect_due(topology->detect);
}

static uint64_t host_now(void *arg)
{
    struct topology_loop *topology = arg;
    return loop_now_us(topology->loop);
}

static void host_timer(void *arg, uint64_t delay_us)
{
    struct topology_loop *topology = arg;
    if (!topology->closed)
        (void)uv_timer_start(&topology->timer, on_timer, (delay_us + 999) / 1000, 0);
}

static void host_changed(void *arg, const struct topology *labels)
{
    struct topology_loop *topology = arg;
    int err = node_update_topology(topology->node, labels);
    if (err != 0)
        log_to(&topology->loop->env, LOG_WARN, "topology: labels not taken over: %s",
               err_text(err));
}

static void part_close(void *arg)
{
    struct topology_loop *topology = arg;
    topology->closed = true;
    topology_detect_free(topology->detect);
    topology->detect = NULL;
    uv_close((uv_handle_t *)&topology->timer, NULL);
}

int topology_loop_start(struct topology_loop *topology, struct loop *loop,
                        const struct config *config, const struct curl_loop *curl,
                        struct node *node)
{
    const struct topology_host host = {
        .arg = topology, .now_us = host_now, .timer = host_timer, .changed = host_changed};
    memset(topology, 0, sizeof *topology);
    topology->loop = loop;
    topology->node = node;
    int err = topology_detect_new(&loop->env, curl_loop_engine(curl), &host, config,
                                  node_self_addr(node), &topology->detect);
    if (err != 0)
        return err;
    if (uv_timer_init(&loop->uv, &topology->timer) != 0) {
        topology_detect_free(topology->detect);
        topology->detect = NULL;
        return E_INTERNAL;
    }
    topology->timer.data = topology;
    topology->part = (struct loop_part){.name = "topology", .arg = topology, .close = part_close};
    loop_add_part(loop, &topology->part);
    topology_detect_start(topology->detect);
    return 0;
}
