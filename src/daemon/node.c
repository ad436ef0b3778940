/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node: makes mesh, sockets and bootstrap, turns the mesh's results into calls of the handlers
 * once per loop turn, keeps its deadline, and leaves in order.
 */
#include "node.h"

#include <string.h>

#include "bytes.h"
#include "cache.h"
#include "log.h"
#include "net.h"
#include "node_internal.h"

/* Results taken per turn; more wait for the next one, so that sockets are not starved. */
#define RESULTS_PER_TURN 1024
#define TICK_MS          5000
/* Free buffers an idle node keeps for the next pull. */
#define IDLE_KEEP_BYTES (4ULL * 1024 * 1024)
/* Buffers taken within one tick by an idle node: the cache is read back all the time. */
#define IDLE_GETS 3
/* The heap is given back 10 s after the last piece, and then once a minute. */
#define HEAP_TICKS 12

uint64_t node_now(struct node *node)
{
    return loop_now_us(node->loop);
}

/* ---- the host side of struct env ---- */

static int env_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct node *node = host;
    ASSERT(node->magic == NODE_MAGIC);
    return mesh_udp_send(&node->udp, to, msg, msg_bytes);
}

static void env_random(void *host, uint8_t *out, size_t out_bytes)
{
    const struct node *node = host;
    node->loop->env.random(node->loop, out, out_bytes);
}

static void env_trace(void *host, enum log_level level, const char *line)
{
    const struct node *node = host;
    log_sink_write(&node->loop->log, level, line);
}

/* ---- results ---- */

static void fetch(struct node *node, const struct transfer_result *result)
{
    if (node->handlers.fetch != NULL)
        node->handlers.fetch(node->handlers.host, result);
    else
        transfer_fetch_end(mesh_transfer(node->mesh), node_now(node), result->id, E_UNSUPPORTED, 0);
}

static void call(struct node *node,
                 void (*handler)(void *host, const struct transfer_result *result),
                 const struct transfer_result *result)
{
    if (handler != NULL)
        handler(node->handlers.host, result);
}

static void on_transfer(struct node *node, const struct transfer_result *result)
{
    switch (result->kind) {
    case TRANSFER_CONNECT:
        mesh_tcp_connect(&node->tcp, result);
        break;
    case TRANSFER_RELEASE:
        mesh_tcp_release(&node->tcp, result);
        break;
    case TRANSFER_UPLOAD:
        mesh_tcp_upload(&node->tcp, result);
        break;
    case TRANSFER_UPLOAD_CANCEL:
        mesh_tcp_upload_cancel(&node->tcp, result);
        break;
    case TRANSFER_FETCH:
        fetch(node, result);
        break;
    case TRANSFER_FETCH_CANCEL:
        call(node, node->handlers.fetch_cancel, result);
        break;
    case TRANSFER_PIECE_READY:
        call(node, node->handlers.piece_ready, result);
        break;
    case TRANSFER_BLOB_COMPLETE:
        call(node, node->handlers.blob_complete, result);
        break;
    case TRANSFER_PIECE_FAILED:
        call(node, node->handlers.piece_failed, result);
        break;
    case TRANSFER_LOCATE:
    case TRANSFER_PUBLISH:
    case TRANSFER_PEER_SILENT:
        break; /* the mesh's own */
    }
}

static void on_member(struct node *node, const struct gossip_event *event)
{
    char addr[PEER_ADDR_TEXT_BYTES];
    char id[SHORT_HEX_BYTES];
    static const char *const names[] = {"?", "up", "changed", "down"};
    enum log_level level = event->kind == GOSSIP_MEMBER_CHANGED ? LOG_DEBUG : LOG_INFO;
    if (level <= node->loop->log.level)
        log_to(&node->env, level, "member: %s id=%s addr=%s zone=%s", names[event->kind],
               short_hex(event->member.id.bytes, id), peer_addr_text(&event->member.addr, addr),
               event->member.topology.zone.text);
    if (node->handlers.member != NULL)
        node->handlers.member(node->handlers.host, event);
}

/* True if results may be left. */
static bool drain(struct node *node)
{
    struct mesh_event event;
    for (unsigned i = 0; i < RESULTS_PER_TURN; i++) {
        if (!mesh_next_result(node->mesh, node_now(node), &event))
            return false;
        switch (event.kind) {
        case MESH_TRANSFER:
            on_transfer(node, &event.of.transfer);
            break;
        case MESH_MEMBER:
            on_member(node, &event.of.member);
            break;
        case MESH_LOOKUP:
            if (node->handlers.lookup != NULL)
                node->handlers.lookup(node->handlers.host, event.of.lookup);
            break;
        case MESH_ORDER:
            if (node->order != NULL)
                node->order(node->order_arg, event.of.order);
            break;
        }
    }
    return true;
}

/* ---- time ---- */

static void on_deadline(uv_timer_t *timer)
{
    struct node *node = timer->data;
    ASSERT(node->magic == NODE_MAGIC);
    mesh_advance(node->mesh, node_now(node));
    mesh_udp_advance(&node->udp);
}

static void arm(struct node *node, bool at_once)
{
    uint64_t now_us = node_now(node);
    uint64_t deadline_us = mesh_deadline_us(node->mesh);
    uint64_t udp_us = mesh_udp_deadline_us(&node->udp);
    if (udp_us < deadline_us)
        deadline_us = udp_us;
    if (at_once)
        deadline_us = now_us;
    if (deadline_us == UINT64_MAX) {
        (void)uv_timer_stop(&node->deadline);
        return;
    }
    /* Rounded up: a timer that fires early would only spin. */
    uint64_t wait_ms = deadline_us > now_us ? (deadline_us - now_us + 999) / 1000 : 0;
    (void)uv_timer_start(&node->deadline, on_deadline, wait_ms, 0);
}

/* After the callbacks of a turn, before the loop waits: what they caused is handed on. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct node *node = prepare->data;
    ASSERT(node->magic == NODE_MAGIC);
    buffer_pool_wake(node->pool);
    bool more = drain(node);
    mesh_udp_flush(&node->udp);
    arm(node, more);
}

static void names_give(struct node *node)
{
    node->names_due = node->handlers.names != NULL && !node->handlers.names(node->handlers.host);
    if (!node->names_due)
        log_to(&node->env, LOG_INFO, "node: blobs renamed after a change of the first secret");
}

static void on_tick(uv_timer_t *timer)
{
    struct node *node = timer->data;
    struct buffer_stats stats;
    node_admission_refresh(node);
    if (node->names_due)
        names_give(node);
    buffer_pool_stats(node->pool, &stats);
    bool idle = stats.gets - node->gets_seen <= IDLE_GETS;
    node->idle_ticks = idle ? node->idle_ticks + 1 : 0;
    node->gets_seen = stats.gets;
    if (node->idle_ticks == 0)
        return;
    buffer_pool_trim(node->pool, IDLE_KEEP_BYTES);
    if (node->idle_ticks % HEAP_TICKS == 2)
        loop_trim_heap();
}

/* ---- stopping ---- */

static void part_drain(void *arg)
{
    struct node *node = arg;
    mesh_leave(node->mesh, node_now(node), false);
}

static bool part_busy(void *arg)
{
    const struct node *node = arg;
    return mesh_tcp_busy(&node->tcp);
}

static void handle_close(uv_handle_t *handle)
{
    if (uv_handle_get_type(handle) != UV_UNKNOWN_HANDLE && !uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void handles_close(struct node *node)
{
    handle_close((uv_handle_t *)&node->prepare);
    handle_close((uv_handle_t *)&node->deadline);
    handle_close((uv_handle_t *)&node->tick);
    bootstrap_close(&node->bootstrap);
    mesh_tcp_close(&node->tcp);
    mesh_udp_close(&node->udp);
    node->closed = true;
}

static void part_close(void *arg)
{
    struct node *node = arg;
    mesh_leave(node->mesh, node_now(node), true);
    handles_close(node);
}

/* ---- life ---- */

static uint8_t rate_class(const struct node *node)
{
    if (node->config->nic_mbit != 0)
        return net_rate_class_of(node->config->nic_mbit);
    return net_rate_class(&node->self_addr);
}

static int mesh_start(struct node *node, struct config_error *error)
{
    const struct config *config = node->config;
    struct mesh_config mesh = {
        .cluster_id = config->cluster_id.text,
        .self_addr = node->self_addr,
        .self_key = node->identity.public_key,
        .topology = config->topology,
        .capacity_class = rate_class(node),
        .dht = {.one_hop = true},
        .transfer = {.copies = (enum transfer_copies)config->copies,
                     .ahead_bytes = cache_ahead_bytes(config_cache_bytes(config))},
    };
    int err = mesh_new(&node->env, &mesh, node_now(node), &node->mesh);
    if (err != 0)
        (void)config_fail(error, "cannot start the mesh: %s", err_text(err));
    return err;
}

static int timers_start(struct node *node, struct config_error *error)
{
    uv_loop_t *uv = &node->loop->uv;
    int uv_error = uv_prepare_init(uv, &node->prepare);
    if (uv_error == 0)
        uv_error = uv_timer_init(uv, &node->deadline);
    if (uv_error == 0)
        uv_error = uv_timer_init(uv, &node->tick);
    node->prepare.data = node->deadline.data = node->tick.data = node;
    if (uv_error == 0)
        uv_error = uv_prepare_start(&node->prepare, on_prepare);
    if (uv_error == 0)
        uv_error = uv_timer_start(&node->tick, on_tick, TICK_MS, TICK_MS);
    if (uv_error != 0)
        (void)config_fail(error, "cannot start timers: %s", uv_strerror(uv_error));
    return loop_uv_error(uv_error);
}

static int node_start(struct node *node, struct config_error *error)
{
    uint16_t port = 0;
    int err = node_identity_load(node, error);
    if (err == 0)
        err = node_admission_load(node, error);
    if (err == 0)
        err = mesh_tcp_open(&node->tcp, node, &node->config->listen_mesh, &port, error);
    if (err != 0)
        return err;
    node_choose_address(node, port);
    node->aes = session_choose_aes(uv_hrtime);
    err = mesh_udp_open(&node->udp, node, &node->config->listen_mesh, error);
    if (err == 0)
        err = mesh_start(node, error);
    if (err == 0)
        err = mesh_tcp_start(&node->tcp, error);
    if (err == 0)
        err = mesh_udp_start(&node->udp);
    if (err == 0)
        err = bootstrap_start(&node->bootstrap, node);
    if (err == 0)
        err = timers_start(node, error);
    if (err != 0 && error->text[0] == '\0')
        (void)config_fail(error, "cannot start the node: %s", err_text(err));
    return err;
}

int node_new(struct loop *loop, const struct config *config, struct buffer_pool *pool,
             const struct node_handlers *handlers, struct node **out, struct config_error *error)
{
    char addr[PEER_ADDR_TEXT_BYTES];
    char id[SHORT_HEX_BYTES];
    error->text[0] = '\0';
    struct node *node = loop_alloc(NULL, NULL, sizeof *node);
    if (node == NULL) {
        (void)config_fail(error, "%s", err_text(E_NO_MEMORY));
        return E_NO_MEMORY;
    }
    memset(node, 0, sizeof *node);
    node->magic = NODE_MAGIC;
    node->loop = loop;
    node->config = config;
    node->pool = pool;
    node->handlers = *handlers;
    node->env = (struct env){.host = node,
                             .send = env_send,
                             .random = env_random,
                             .alloc = loop_alloc,
                             .trace = env_trace};
    int err = node_start(node, error);
    if (err != 0) {
        handles_close(node);
        /* The handles live in the node: let uv forget them before it goes. */
        (void)uv_run(&loop->uv, UV_RUN_NOWAIT);
        node_free(node);
        return err;
    }
    node->part = (struct loop_part){
        .name = "node", .arg = node, .drain = part_drain, .busy = part_busy, .close = part_close};
    loop_add_part(loop, &node->part);
    log_to(&node->env, LOG_INFO, "node: listening mesh=%s id=%s cluster=%s cipher=%s",
           peer_addr_text(&node->self_addr, addr), short_hex(mesh_self(node->mesh)->bytes, id),
           node->admission.cluster_id, session_aes_text(node->aes));
    *out = node;
    return 0;
}

void node_free(struct node *node)
{
    if (node == NULL)
        return;
    ASSERT(node->closed);
    mesh_tcp_free(&node->tcp);
    mesh_udp_free(&node->udp);
    mesh_free(node->mesh);
    identity_close(&node->identity);
    node->magic = 0;
    (void)loop_alloc(NULL, node, 0);
}

/* ---- what the upper half asks ---- */

void node_on_order(struct node *node, node_order_fn order, void *arg)
{
    node->order = order;
    node->order_arg = arg;
}

struct mesh *node_mesh(struct node *node)
{
    return node->mesh;
}

struct transfer *node_transfer(struct node *node)
{
    return mesh_transfer(node->mesh);
}

struct gossip *node_gossip(struct node *node)
{
    return mesh_gossip(node->mesh);
}

struct dht *node_dht(struct node *node)
{
    return mesh_dht(node->mesh);
}

const struct env *node_env(const struct node *node)
{
    return &node->env;
}

struct buffer_pool *node_buffers(struct node *node)
{
    return node->pool;
}

const struct identity *node_identity(const struct node *node)
{
    return &node->identity;
}

const struct node_id *node_self_id(const struct node *node)
{
    return mesh_self(node->mesh);
}

const struct peer_addr *node_self_addr(const struct node *node)
{
    return &node->self_addr;
}

const char *node_cluster_id(const struct node *node)
{
    return node->admission.cluster_id;
}

const uint8_t *node_lookup_key(const struct node *node)
{
    return node->lookup_key;
}

void node_upload_ready(struct node *node, uint64_t upload_id, int status, struct buffer *bytes,
                       const struct voucher *voucher)
{
    mesh_tcp_upload_ready(&node->tcp, upload_id, status, bytes, voucher);
}

int node_update_topology(struct node *node, const struct topology *topology)
{
    return mesh_update_self(node->mesh, node_now(node), topology);
}

void node_counters(const struct node *node, struct node_counters *out)
{
    *out = node->counters;
    out->sessions = mesh_tcp_sessions(&node->tcp);
}

size_t node_links(const struct node *node, struct node_link_view *out, size_t max)
{
    return mesh_tcp_links(&node->tcp, out, max);
}

void node_outsider(struct node *node, const struct peer_addr *from, const char *what)
{
    char text[PEER_ADDR_TEXT_BYTES];
    uint64_t unsaid = 0;
    if (!outsiders_note(&node->outsiders, node_now(node), from, &unsaid))
        return;
    log_to(&node->env, LOG_WARN,
           "node: refused %s: something on %s speaks with another secret: compare "
           "clusterSecretFile and clusterId there and here (and denyFile), see `shoal doctor` "
           "there more=%llu",
           what, peer_addr_text(from, text), (unsigned long long)unsaid);
}

bool node_outsiders(const struct node *node, struct peer_addr *from)
{
    *from = node->outsiders.addr;
    return outsiders_go_on(&node->outsiders, loop_now_us(node->loop));
}

bool node_alone(const struct node *node)
{
    return node->config->bootstrap_count > 0 && gossip_count(mesh_gossip(node->mesh)) <= 1;
}
