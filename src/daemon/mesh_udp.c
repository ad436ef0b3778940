/* SPDX-License-Identifier: Apache-2.0 */
/* The UDP side of the mesh port (mesh_udp.h). */
#include "mesh_udp.h"

#include <string.h>

#include "bytes.h"
#include "log.h"
#include "net.h"
#include "node_internal.h"

/* One datagram that the kernel did not take at once. */
struct queued {
    uv_udp_send_t request;
    struct mesh_udp *udp;
    uint8_t bytes[DATAGRAM_BYTES_MAX];
};

static void on_sent(uv_udp_send_t *request, int status)
{
    struct queued *queued = request->data;
    struct mesh_udp *udp = queued->udp;
    ASSERT(udp->queued > 0);
    udp->queued--;
    if (status != 0)
        udp->node->counters.datagrams_send_dropped++;
    (void)loop_alloc(NULL, queued, 0);
}

/* The socket is full: keep the datagram until it is writable. 0 or E_AGAIN: lost. */
static int enqueue(struct mesh_udp *udp, const struct sockaddr *to,
                   const struct dgram_packet *packet)
{
    if (udp->queued >= UDP_QUEUE_MAX || packet->byte_count > DATAGRAM_BYTES_MAX)
        return E_AGAIN;
    struct queued *queued = loop_alloc(NULL, NULL, sizeof *queued);
    if (queued == NULL)
        return E_AGAIN;
    memcpy(queued->bytes, packet->bytes, packet->byte_count);
    queued->udp = udp;
    queued->request.data = queued;
    uv_buf_t span = uv_buf_init((char *)queued->bytes, (unsigned)packet->byte_count);
    if (uv_udp_send(&queued->request, udp->socket, &span, 1, to, on_sent) != 0) {
        (void)loop_alloc(NULL, queued, 0);
        return E_AGAIN;
    }
    udp->queued++;
    return 0;
}

static void put_on_wire(struct mesh_udp *udp, const struct dgram_packet *packet)
{
    struct node_counters *counters = &udp->node->counters;
    struct sockaddr_storage to;
    uv_buf_t span;
    if (net_to_sockaddr(&packet->to, udp->v6, &to) != 0) {
        counters->datagrams_send_dropped++;
        return;
    }
    span.base = (char *)(uintptr_t)packet->bytes;
    span.len = packet->byte_count;
    int sent = udp->queued > 0
                   ? UV_EAGAIN /* in order behind what waits */
                   : uv_udp_try_send(udp->socket, &span, 1, (const struct sockaddr *)&to);
    bool kept =
        sent >= 0 || (sent == UV_EAGAIN && enqueue(udp, (const struct sockaddr *)&to, packet) == 0);
    if (!kept) {
        counters->datagrams_send_dropped++;
        return;
    }
    counters->datagrams_out++;
    counters->datagram_bytes_out += packet->byte_count;
}

static void flush(struct mesh_udp *udp)
{
    struct dgram_packet packet;
    while (dgram_next_output(udp->dgram, &packet))
        put_on_wire(udp, &packet);
}

static int seal_and_send(struct mesh_udp *udp, const struct peer_addr *to, const uint8_t *msg,
                         size_t msg_bytes)
{
    int err = dgram_send(udp->dgram, node_now(udp->node), to, msg, msg_bytes);
    if (err != 0)
        udp->node->counters.datagrams_send_dropped++;
    flush(udp);
    return err == E_FULL || err == E_NO_MEMORY ? E_AGAIN : err;
}

static void send_bundle(struct mesh_udp *udp, const struct bundle *bundle)
{
    size_t byte_count = 0;
    if (bundle->message_count == 0)
        return;
    const uint8_t *bytes = bundle_bytes(bundle, &byte_count);
    /* Counted where it is refused; for the cores it is lost. */
    (void)seal_and_send(udp, &bundle->to, bytes, byte_count);
}

void mesh_udp_flush(struct mesh_udp *udp)
{
    uint32_t count = udp->bundle_count;
    udp->bundle_count = 0;
    for (uint32_t i = 0; udp->open && i < count; i++)
        send_bundle(udp, &udp->bundles[i]);
}

/* The bundle for a node, begun if need be; NULL: it takes none. */
static struct bundle *bundle_for(struct mesh_udp *udp, const struct peer_addr *to)
{
    for (uint32_t i = 0; i < udp->bundle_count; i++) {
        if (peer_addr_equal(&udp->bundles[i].to, to))
            return &udp->bundles[i];
    }
    if (!dgram_takes_bundles(udp->dgram, to))
        return NULL;
    if (udp->bundle_count == UDP_BUNDLES_MAX)
        mesh_udp_flush(udp);
    struct bundle *bundle = &udp->bundles[udp->bundle_count++];
    bundle_begin(bundle, to);
    return bundle;
}

int mesh_udp_send(struct mesh_udp *udp, const struct peer_addr *to, const uint8_t *msg,
                  size_t msg_bytes)
{
    if (!udp->open)
        return E_UNREACHABLE;
    if (msg_bytes == 0 || msg_bytes > MESSAGE_BYTES_MAX)
        return msg_bytes == 0 ? E_INVALID : E_TOO_LARGE;
    struct bundle *bundle = bundle_for(udp, to);
    if (bundle == NULL)
        return seal_and_send(udp, to, msg, msg_bytes);
    if (bundle_add(bundle, msg, msg_bytes))
        return 0;
    /* It is full. The longest messages find no room in an empty one, either. */
    send_bundle(udp, bundle);
    bundle_begin(bundle, to);
    return bundle_add(bundle, msg, msg_bytes) ? 0 : seal_and_send(udp, to, msg, msg_bytes);
}

static void count_refused(struct node_counters *counters, int err)
{
    switch (err) {
    case E_AUTH:
        counters->datagrams_auth++;
        break;
    case E_REPLAY:
        counters->datagrams_replay++;
        break;
    case E_DENIED:
        counters->datagrams_denied++;
        break;
    case E_NOT_FOUND:
        counters->datagrams_keys++;
        break;
    default:
        counters->datagrams_malformed++;
        break;
    }
}

/* No MAC of ours: not what is told as well of keys that a restart has lost. */
static void say_outsider(struct mesh_udp *udp, const struct peer_addr *from)
{
    struct dgram_stats stats;
    dgram_stats(udp->dgram, &stats);
    if (stats.outsiders != udp->outsiders)
        node_outsider(udp->node, from, "a datagram");
    udp->outsiders = stats.outsiders;
}

/* Hands on what was in a datagram. One message that cannot be read does not speak against others.
 */
static void deliver(struct mesh_udp *udp, const struct session_peer *peer, const uint8_t *plain,
                    size_t plain_bytes)
{
    struct node *node = udp->node;
    const uint8_t *msg = NULL;
    size_t at = 0, msg_bytes = 0;
    int err;
    while ((err = bundle_next(plain, plain_bytes, &at, &msg, &msg_bytes)) == 0) {
        err = mesh_receive(node->mesh, node_now(node), &peer->id, &peer->addr, msg, msg_bytes);
        if (err == E_NOT_FOUND)
            node->counters.messages_skipped++;
        else if (err != 0)
            node->counters.messages_rejected++;
    }
    if (err != E_CLOSED)
        node->counters.messages_rejected++;
}

static void receive(struct mesh_udp *udp, const struct peer_addr *from, const uint8_t *bytes,
                    size_t byte_count)
{
    struct node *node = udp->node;
    uint8_t plain[MESSAGE_BYTES_MAX];
    size_t plain_bytes = 0;
    struct session_peer peer;
    int err = dgram_receive(udp->dgram, node_now(node), from, bytes, byte_count, plain,
                            &plain_bytes, &peer);
    if (err != 0)
        count_refused(&node->counters, err);
    else if (plain_bytes > 0)
        deliver(udp, &peer, plain, plain_bytes);
    if (err == E_AUTH)
        say_outsider(udp, from);
    flush(udp);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct mesh_udp *udp = handle->data;
    (void)suggested;
    *out = uv_buf_init((char *)udp->receive, sizeof udp->receive);
}

static void on_receive(uv_udp_t *handle, ssize_t got, const uv_buf_t *buffer,
                       const struct sockaddr *from, unsigned flags)
{
    struct mesh_udp *udp = handle->data;
    struct peer_addr addr;
    (void)buffer;
    if (got <= 0 || from == NULL)
        return;
    udp->node->counters.datagrams_in++;
    udp->node->counters.datagram_bytes_in += (uint64_t)got;
    if ((flags & UV_UDP_PARTIAL) != 0 || got > DATAGRAM_BYTES_MAX ||
        net_from_sockaddr(from, &addr) != 0) {
        udp->node->counters.datagrams_malformed++;
        return;
    }
    receive(udp, &addr, udp->receive, (size_t)got);
}

static int bind_on(struct mesh_udp *udp, uv_udp_t *socket, const struct peer_addr *addr)
{
    struct sockaddr_storage raw;
    bool v6 = !peer_addr_is_v4(addr);
    int uv_error = uv_udp_init_ex(&udp->node->loop->uv, socket, v6 ? AF_INET6 : AF_INET);
    if (uv_error != 0)
        return uv_error;
    udp->socket = socket;
    udp->v6 = v6;
    socket->data = udp;
    if (net_to_sockaddr(addr, v6, &raw) != 0)
        return UV_EINVAL;
    if (v6)
        net_dual_stack(socket);
    net_tune_datagrams(socket);
    return uv_udp_bind(socket, (const struct sockaddr *)&raw, 0);
}

int mesh_udp_open(struct mesh_udp *udp, struct node *node, const struct peer_addr *any,
                  struct config_error *error)
{
    char text[PEER_ADDR_TEXT_BYTES];
    memset(udp, 0, sizeof *udp);
    udp->node = node;
    struct peer_addr addr = *any;
    bool own =
        net_unspecified(any) && node->config->strict_address && net_is_local(&node->self_addr);
    if (own)
        addr = node->self_addr;
    addr.port = node->self_port;
    int uv_error = bind_on(udp, &udp->sockets[0], &addr);
    bool no_v6 = uv_error == UV_EAFNOSUPPORT || uv_error == UV_EADDRNOTAVAIL;
    if (no_v6 && net_unspecified(&addr) && !peer_addr_is_v4(&addr)) {
        const struct peer_addr v4 = {{[10] = 0xff, [11] = 0xff}, addr.port};
        uv_error = bind_on(udp, &udp->sockets[1], &v4);
    }
    if (uv_error != 0) {
        (void)config_fail(error, "listen.mesh: cannot listen on %s (UDP): %s",
                          peer_addr_text(&addr, text), uv_strerror(uv_error));
        return loop_uv_error(uv_error);
    }
    return 0;
}

int mesh_udp_start(struct mesh_udp *udp)
{
    struct node *node = udp->node;
    const struct dgram_config config = {
        .identity = &node->identity,
        .admission = &node->admission,
        .self_addr = node->self_addr,
        .allow_any_ip = !node->config->strict_address,
    };
    int err = dgram_new(&node->env, &config, node_now(node), &udp->dgram);
    if (err == 0)
        err = loop_uv_error(uv_udp_recv_start(udp->socket, on_alloc, on_receive));
    udp->open = err == 0;
    return err;
}

void mesh_udp_close(struct mesh_udp *udp)
{
    mesh_udp_flush(udp); /* goodbyes */
    udp->open = false;
    for (size_t i = 0; i < 2; i++) {
        uv_handle_t *handle = (uv_handle_t *)&udp->sockets[i];
        if (uv_handle_get_type(handle) != UV_UNKNOWN_HANDLE && !uv_is_closing(handle))
            uv_close(handle, NULL);
    }
}

void mesh_udp_free(struct mesh_udp *udp)
{
    if (udp->dgram != NULL)
        dgram_free(udp->dgram);
    udp->dgram = NULL;
}

void mesh_udp_advance(struct mesh_udp *udp)
{
    dgram_advance(udp->dgram, node_now(udp->node));
    flush(udp);
}

uint64_t mesh_udp_deadline_us(const struct mesh_udp *udp)
{
    return dgram_deadline_us(udp->dgram);
}
