/* SPDX-License-Identifier: Apache-2.0 */
/* Making and joining the parts of the agent; see agent.h. */
#include "agent.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin.h"
#include "audit.h"
#include "bytes.h"
#include "control.h"
#include "control_socket.h"
#include "log.h"
#include "preheat.h"
#include "pull_order.h"

/* Of the buffers' cap, what the memory tier may take at most: the rest is for what is in motion. */
#define MEMORY_SHARE 2

static int fail(struct config_error *error, const char *what, int err)
{
    if (error->text[0] == '\0')
        (void)snprintf(error->text, sizeof error->text, "%s: %s", what, err_text(err));
    return err;
}

static int make_store(const struct config *config, struct store *store, struct config_error *error)
{
    const char *why = NULL;
    char directory[CONFIG_PATH_BYTES + 16];
    if (config->cache_mode == CONFIG_CACHE_MEMORY) {
        int err = store_memory_new(config->cache_memory_bytes, store);
        return err == 0 ? 0 : fail(error, "cache.memory", err);
    }
    (void)snprintf(directory, sizeof directory, "%s/cache", config->data_dir.text);
    int err = store_disk_new(directory, store, &why);
    if (err != 0 && why != NULL)
        (void)snprintf(error->text, sizeof error->text, "cache directory %.512s: %s", directory,
                       why);
    return err == 0 ? 0 : fail(error, "cache directory", err);
}

static int make_cache(struct agent *agent, struct config_error *error)
{
    const struct config *config = agent->config;
    bool memory = config->cache_mode == CONFIG_CACHE_MEMORY;
    struct cache_config part = {
        .capacity_bytes = config_cache_bytes(config),
        .reserve_bytes = memory ? 0 : config->cache_reserve_bytes,
    };
    struct store store;
    int err = make_store(config, &store, error);
    if (err != 0)
        return err;
    err = cache_new(&agent->loop.env, &part, &store, &agent->cache);
    return err == 0 ? 0 : fail(error, "cache", err);
}

/* The mesh: buffers, cache, live blobs, node, and what the cache held before. */
static int make_mesh(struct agent *agent, struct config_error *error)
{
    const struct config *config = agent->config;
    int err = buffer_pool_new(config->buffer_bytes, &agent->pool);
    if (err == 0)
        err = make_cache(agent, error);
    struct blobs_config part = {
        .loop = &agent->loop,
        .cache = agent->cache,
        .pool = agent->pool,
        .memory_bytes = config->buffer_bytes / MEMORY_SHARE < config->cache_memory_bytes
                            ? config->buffer_bytes / MEMORY_SHARE
                            : config->cache_memory_bytes,
        .verified_only = config->trust != CONFIG_TRUST_MEMBER,
        .block_bytes = config->block_bytes,
        .content_path = config->content_store.text,
        .data_dir = config->data_dir.text,
    };
    struct node_handlers handlers;
    if (err == 0)
        err = blobs_new(&part, &agent->blobs);
    if (err != 0)
        return fail(error, "start", err);
    blobs_handlers(agent->blobs, &handlers);
    err = node_new(&agent->loop, config, agent->pool, &handlers, &agent->node, error);
    if (err != 0)
        return fail(error, "mesh", err);
    blobs_bind(agent->blobs, agent->node);
    int found = blobs_recover(agent->blobs);
    if (found < 0)
        return fail(error, "cache recovery", found);
    log_to(&agent->loop.env, LOG_INFO, "agent: cache recovered blobs=%d", found);
    return 0;
}

/* The TLS port serves what the plain one does, under the same limits. */
static int make_tls(struct agent *agent, const struct server_config *client,
                    struct config_error *error)
{
    struct tls_files files[CONFIG_TLS_PAIRS_MAX];
    struct server_config part = *client;
    unsigned count = config_tls_files(agent->config, files);
    int err = count == 0 ? 0 : tls_new(&agent->loop, files, count, &agent->tls, error);
    if (err != 0 || agent->config->listen_tls.port == 0)
        return err;
    part.listen = agent->config->listen_tls;
    part.name = "tls";
    part.tls = agent->tls;
    return server_new(&part, &agent->tls_client, error);
}

/* A CI system and a registry or two: few connections. */
#define PREFETCH_CONNECTIONS_MAX 32

static int make_prefetch(struct agent *agent, struct config_error *error)
{
    static_assert(PREHEAT_BYTES_MAX >= PULL_ORDER_BYTES_MAX, "one limit for both");
    struct server_config part = {
        .loop = &agent->loop,
        .listen = agent->config->listen_prefetch,
        .name = "prefetch",
        .tls = agent->tls,
        .connections_max = PREFETCH_CONNECTIONS_MAX,
        .connections_per_address = PREFETCH_CONNECTIONS_MAX / 2,
        .body_max = PREHEAT_BYTES_MAX,
        .arg = &agent->prefetch,
        .handle = prefetch_port_handle,
    };
    if (agent->config->listen_prefetch.port == 0)
        return 0;
    agent->prefetch = (struct prefetch_port){
        .loop = &agent->loop, .config = agent->config, .pulls = agent->pulls};
    return server_new(&part, &agent->prefetch_server, error);
}

static int make_control(struct agent *agent, struct config_error *error)
{
    struct server_config part = {
        .loop = &agent->loop,
        .name = "control",
        .control = control_path(agent->config, agent->control_path),
        .connections_max = CONTROL_CONNECTIONS_MAX,
        .connections_per_address = CONTROL_CONNECTIONS_MAX,
        .body_max = PULL_ORDER_BYTES_MAX,
        .arg = agent,
        .handle = control_handle,
    };
    return server_new(&part, &agent->control, error);
}

static int make_servers(struct agent *agent, struct config_error *error)
{
    const struct config *config = agent->config;
    struct turns_config turns = {
        .loop = &agent->loop,
        .parallel_max = (uint32_t)config->parallel_requests,
        .wait_us = config->transfer_timeout_us,
        .arg = agent->mirror,
        .handle = mirror_handle,
    };
    int err = turns_new(&turns, &agent->turns);
    if (err != 0)
        return fail(error, "turns", err);
    struct server_config client = {
        .loop = &agent->loop,
        .listen = config->listen_client,
        .name = "client",
        .connections_max = (uint32_t)config->connections_max,
        .connections_per_address = (uint32_t)config->connections_per_address,
        .arg = agent->turns,
        .handle = turns_handle,
        .ended = config->log_audit ? audit_write : NULL,
    };
    struct server_config admin = client;
    admin.ended = NULL;
    admin.listen = config->listen_admin;
    admin.name = "admin";
    admin.arg = agent;
    admin.handle = admin_handle;
    err = server_new(&client, &agent->client, error);
    if (err == 0)
        err = make_tls(agent, &client, error);
    if (err == 0)
        err = server_new(&admin, &agent->admin, error);
    if (err == 0)
        err = make_prefetch(agent, error);
    if (err == 0)
        err = make_control(agent, error);
    return err == 0 ? 0 : fail(error, "listen", err);
}

/* Values of the configuration have a maximum of an hour. */
static uint32_t timeout_ms(uint64_t timeout_us)
{
    return (uint32_t)(timeout_us / 1000);
}

/* Other nodes ask us, or answer. */
static void on_order(void *arg, const struct mesh_order *order)
{
    struct agent *agent = arg;
    if (order->order.type == WIRE_ORDER_ASK)
        order_serve_ask(agent->serve, order);
    else if (order->order.type == WIRE_ORDER_DIAL || order->order.type == WIRE_ORDER_DIALLED)
        dial_back_told(agent->dial, order);
    else
        pulls_told(agent->pulls, order);
}

static int make_pulls(struct agent *agent)
{
    const struct pulls_config part = {
        .loop = &agent->loop,
        .config = agent->config,
        .registries = agent->registries,
        .cache = agent->cache,
        .blobs = agent->blobs,
        .node = agent->node,
        .origin = curl_loop_origin(agent->curl),
        .grants = agent->grants,
        .mirror = agent->mirror,
    };
    const struct order_serve_config serve = {
        .loop = &agent->loop,
        .config = agent->config,
        .cache = agent->cache,
        .blobs = agent->blobs,
        .node = agent->node,
    };
    int err = pulls_new(&part, &agent->pulls);
    if (err == 0)
        err = order_serve_new(&serve, &agent->serve);
    if (err == 0)
        err = dial_back_new(&agent->loop, agent->node, &agent->dial);
    if (err == 0)
        node_on_order(agent->node, on_order, agent);
    return err;
}

/* The origin side and what clients see. */
static int make_mirror(struct agent *agent, struct config_error *error)
{
    const struct config *config = agent->config;
    int err = curl_loop_new(&agent->loop, &agent->loop.env, node_self_addr(agent->node)->port,
                            &agent->curl);
    if (err == 0)
        err = grants_new(&agent->loop.env, agent->config->grant_life_us, &agent->grants);
    if (err == 0)
        err = acr_part_new(&agent->loop, config, curl_loop_engine(agent->curl), &agent->acr);
    struct registries configured = config_registries(config);
    if (agent->acr != NULL) {
        configured.more = acr_find;
        configured.more_storage = acr_find_storage;
        configured.more_arg = acr_part_acr(agent->acr);
    }
    if (err == 0)
        err = registry_table_new(&agent->loop.env, &configured, &agent->registries);
    if (err != 0)
        return fail(error, "origin", err);
    origin_set_timeouts(curl_loop_origin(agent->curl), timeout_ms(config->connect_timeout_us), 0,
                        timeout_ms(config->transfer_timeout_us));
    struct origin_logins logins;
    registry_logins_bind(&agent->logins, &agent->loop, &logins);
    origin_set_logins(curl_loop_origin(agent->curl), &logins);
    origin_set_rate(curl_loop_origin(agent->curl), config->origin_mbit * 125000);
    blobs_bind_origin(agent->blobs, curl_loop_origin(agent->curl));
    struct mirror_config part = {
        .loop = &agent->loop,
        .config = agent->config,
        .registries = agent->registries,
        .configured = configured,
        .node = agent->node,
        .blobs = agent->blobs,
        .origin = curl_loop_origin(agent->curl),
        .grants = agent->grants,
        .pool = agent->pool,
    };
    err = mirror_new(&part, &agent->mirror);
    if (err == 0)
        err = make_pulls(agent);
    return err == 0 ? make_servers(agent, error) : fail(error, "mirror", err);
}

static void say_ready(struct agent *agent)
{
    char client[PEER_ADDR_TEXT_BYTES], mesh[PEER_ADDR_TEXT_BYTES], admin[PEER_ADDR_TEXT_BYTES];
    char tls[PEER_ADDR_TEXT_BYTES];
    agent->ready = true;
    if (agent->tls_client != NULL)
        log_to(&agent->loop.env, LOG_INFO, "agent: clients by TLS at %s",
               peer_addr_text(server_addr(agent->tls_client), tls));
    log_to(&agent->loop.env, LOG_INFO, "agent: ready client=%s mesh=%s admin=%s cluster=%s",
           peer_addr_text(server_addr(agent->client), client),
           peer_addr_text(node_self_addr(agent->node), mesh),
           peer_addr_text(server_addr(agent->admin), admin), node_cluster_id(agent->node));
    notify_ready(&agent->notify);
}

/* In reverse order; the loop has run out, so nothing is in flight. */
static void release(struct agent *agent)
{
    server_free(agent->control);
    server_free(agent->prefetch_server);
    server_free(agent->admin);
    server_free(agent->tls_client);
    tls_free(agent->tls);
    server_free(agent->client);
    turns_free(agent->turns);
    dial_back_free(agent->dial);
    order_serve_free(agent->serve);
    pulls_free(agent->pulls);
    mirror_free(agent->mirror);
    grants_free(agent->grants);
    curl_loop_free(agent->curl);
    blobs_free(agent->blobs);
    registry_table_free(agent->registries); /* nobody holds an entry any more */
    acr_part_free(agent->acr);
    node_free(agent->node);
    if (agent->cache != NULL)
        cache_free(agent->cache);
    if (agent->pool != NULL)
        buffer_pool_free(agent->pool);
    notify_close(&agent->notify);
    loop_close(&agent->loop);
}

static void say_note(void *arg, bool warning, const char *line)
{
    log_to(arg, warning ? LOG_WARN : LOG_INFO, "config: %s", line);
}

int agent_run(struct agent *agent, struct config *config, struct config_error *error)
{
    memset(agent, 0, sizeof *agent);
    agent->config = config;
    struct loop_options options = {
        .log_json = config->log_format == CONFIG_LOG_JSON,
        .log_level = (enum log_level)config->log_level,
        .log_fd = 2,
        .stop_grace_us = config->stop_grace_us,
        .watchdog = true,
        .signals = true,
    };
    error->text[0] = '\0';
    int err = loop_init(&agent->loop, &options);
    if (err != 0)
        return fail(error, "event loop", err);
    agent->started_us = loop_now_us(&agent->loop);
    config_notes(config, say_note, &agent->loop.env);
    err = notify_start(&agent->notify, &agent->loop, config);
    if (err == 0)
        err = config_watch_start(&agent->watch, &agent->loop, config);
    if (err == 0)
        err = node_data_dir(config, error);
    if (err == 0)
        err = make_mesh(agent, error);
    if (err == 0)
        err = make_mirror(agent, error);
    if (err == 0)
        say_ready(agent);
    if (err == 0 &&
        topology_loop_start(&agent->topology, &agent->loop, config, agent->curl, agent->node) != 0)
        log_to(&agent->loop.env, LOG_WARN, "topology: labels that are not set stay unknown: %s",
               err_text(E_NO_MEMORY));
    if (err != 0) { /* close at once whatever was made */
        loop_stop(&agent->loop);
        loop_stop(&agent->loop);
    }
    int end = loop_run(&agent->loop);
    if (end == E_TIMEOUT) {
        /* A worker still runs on our memory (a dead disk, a slow resolver): free nothing. */
        log_to(&agent->loop.env, LOG_WARN, "agent: leaving work behind");
        _exit(err == 0 ? 0 : 1);
    }
    release(agent);
    return err != 0 ? err : end;
}
