/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listener, peers and their connections, uploads, idle closing (mesh_tcp.h). One list of peers,
 * each with its open connections and its uploads in order of arrival.
 */
#include "mesh_tcp.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "log.h"
#include "net.h"
#include "node_internal.h"
#include "peerlink.h"
#include "socket_addr.h"

#define TICK_MS 250
#define BACKLOG 512
/* Then others have their turn. A guess: a handshake's first step costs some 20 us. */
#define ACCEPTS_PER_TURN 64
/* A retired connection whose other side says no BYE. */
#define RETIRED_US 5000000ULL
/* Files kept for clients, cache and origin; a link costs one. */
#define FILES_RESERVED 128
#define LINKS_MIN      64
#define LINKS_MAX      2048

/* ---- peers ---- */

static struct tcp_peer *peer_find(struct mesh_tcp *tcp, const struct node_id *id)
{
    struct tcp_peer *peer = tcp->peers;
    while (peer != NULL && !node_id_equal(&peer->id, id))
        peer = peer->next;
    return peer;
}

/* Frees peers that nothing refers to any more. Only called where nobody holds one: from the tick,
 * and before a new one is made in a full table. */
static void peers_sweep(struct mesh_tcp *tcp)
{
    struct tcp_peer **at = &tcp->peers;
    while (*at != NULL) {
        struct tcp_peer *peer = *at;
        if (peer->links != NULL || peer->dial != NULL || peer->uploads != NULL || peer->wanted) {
            at = &peer->next;
            continue;
        }
        *at = peer->next;
        ASSERT(tcp->peer_count > 0);
        tcp->peer_count--;
        (void)loop_alloc(NULL, peer, 0);
    }
}

static struct tcp_peer *peer_get(struct mesh_tcp *tcp, const struct node_id *id,
                                 const struct peer_addr *addr)
{
    struct tcp_peer *peer = peer_find(tcp, id);
    if (peer != NULL)
        return peer;
    if (tcp->peer_count >= TCP_PEERS_MAX)
        peers_sweep(tcp);
    if (tcp->peer_count >= TCP_PEERS_MAX)
        return NULL;
    peer = loop_alloc(NULL, NULL, sizeof *peer);
    if (peer == NULL)
        return NULL;
    *peer = (struct tcp_peer){.id = *id, .addr = *addr, .next = tcp->peers};
    tcp->peers = peer;
    tcp->peer_count++;
    return peer;
}

/* The connection new uploads go over; NULL if none is open. */
static struct peerlink *peer_link(const struct tcp_peer *peer)
{
    for (struct peerlink *link = peer->links; link != NULL; link = link->next_of_peer)
        if (!link->retired)
            return link;
    return NULL;
}

static struct transfer *transfer_of(struct mesh_tcp *tcp)
{
    return mesh_transfer(tcp->node->mesh);
}

/* ---- uploads ---- */

static void upload_unlink(struct upload *upload)
{
    struct upload **at = &upload->peer->uploads;
    while (*at != upload)
        at = &(*at)->next;
    *at = upload->next;
    upload->peer->upload_count--;
}

void tcp_upload_end(struct mesh_tcp *tcp, struct upload *upload, int status)
{
    struct node_counters *counters = &tcp->node->counters;
    uint64_t bytes = status == 0 ? upload->bytes->used : 0;
    uint64_t id = upload->id;
    if (status == 0) {
        counters->pieces_out++;
        counters->piece_bytes_out += bytes;
    } else {
        counters->uploads_failed++;
    }
    upload_unlink(upload);
    buffer_put(upload->bytes);
    (void)loop_alloc(NULL, upload, 0);
    transfer_upload_end(transfer_of(tcp), node_now(tcp->node), id, bytes, status);
}

static struct upload *upload_ready(const struct tcp_peer *peer)
{
    struct upload *first = NULL;
    for (struct upload *upload = peer->uploads; upload != NULL; upload = upload->next) {
        if (upload->state != UPLOAD_READY)
            continue;
        if (upload->across_zones)
            return upload; /* others of its zone wait for it (ALGORITHMS §3.4) */
        if (first == NULL)
            first = upload;
    }
    return first;
}

bool tcp_upload_waits(const struct mesh_tcp *tcp, const struct peerlink *link)
{
    (void)tcp;
    return link->peer != NULL && upload_ready(link->peer) != NULL;
}

struct upload *tcp_upload_next(struct mesh_tcp *tcp, struct peerlink *link)
{
    (void)tcp;
    struct upload *upload = upload_ready(link->peer);
    if (upload == NULL)
        return NULL;
    upload->state = UPLOAD_SENDING;
    upload->link = link;
    return upload;
}

/* Fails what no connection will carry any more. Uploads that wait for their bytes end when these
 * come. */
static void uploads_fail(struct mesh_tcp *tcp, struct tcp_peer *peer, int status)
{
    struct upload *upload = peer->uploads;
    while (upload != NULL) {
        struct upload *next = upload->next;
        if (upload->state == UPLOAD_READY)
            tcp_upload_end(tcp, upload, status);
        upload = next;
    }
}

static struct upload *upload_find(struct mesh_tcp *tcp, uint64_t id)
{
    for (struct tcp_peer *peer = tcp->peers; peer != NULL; peer = peer->next)
        for (struct upload *upload = peer->uploads; upload != NULL; upload = upload->next)
            if (upload->id == id)
                return upload;
    return NULL;
}

static struct upload *upload_new(struct tcp_peer *peer, const struct transfer_result *result)
{
    struct upload *upload = loop_alloc(NULL, NULL, sizeof *upload);
    if (upload == NULL)
        return NULL;
    *upload = (struct upload){
        .id = result->id,
        .state = UPLOAD_WAITING,
        .peer = peer,
        .key = result->key,
        .piece = result->piece,
        .across_zones = result->across_zones,
    };
    struct upload **at = &peer->uploads;
    while (*at != NULL)
        at = &(*at)->next;
    *at = upload;
    peer->upload_count++;
    return upload;
}

/* Sends what is ready, over a connection that is there or will be. */
static void peer_push(struct mesh_tcp *tcp, struct tcp_peer *peer)
{
    struct peerlink *link = peer_link(peer);
    if (link != NULL) {
        peerlink_pump(link);
        return;
    }
    if (peer->dial != NULL)
        return;
    int err = peerlink_dial(tcp, peer);
    if (err != 0)
        uploads_fail(tcp, peer, err);
}

void mesh_tcp_upload(struct mesh_tcp *tcp, const struct transfer_result *result)
{
    struct node *node = tcp->node;
    struct tcp_peer *peer = tcp->closing ? NULL : peer_get(tcp, &result->peer, &result->peer_addr);
    struct upload *upload = peer != NULL ? upload_new(peer, result) : NULL;
    if (upload == NULL) {
        transfer_upload_end(transfer_of(tcp), node_now(node), result->id, 0, E_FULL);
        return;
    }
    if (node->handlers.upload == NULL) {
        mesh_tcp_upload_ready(tcp, result->id, E_UNSUPPORTED, NULL, NULL);
        return;
    }
    /* The connection is made while the bytes are looked for. */
    if (peer_link(peer) == NULL && peer->dial == NULL && peerlink_dial(tcp, peer) != 0)
        log_to(&node->env, LOG_DEBUG, "tcp: no connection for an upload yet");
    node->handlers.upload(node->handlers.host, result);
}

void mesh_tcp_upload_ready(struct mesh_tcp *tcp, uint64_t upload_id, int status,
                           struct buffer *bytes, const struct voucher *voucher)
{
    struct upload *upload = upload_find(tcp, upload_id);
    if (upload == NULL || upload->state != UPLOAD_WAITING) {
        buffer_put(bytes);
        return;
    }
    struct tcp_peer *peer = upload->peer;
    if (status == 0 && (bytes == NULL || bytes->used == 0 || bytes->used > PIECE_BYTES_MAX))
        status = E_INVALID;
    upload->bytes = bytes;
    if (status != 0 || tcp->closing) {
        tcp_upload_end(tcp, upload, status != 0 ? status : E_CLOSED);
        return;
    }
    upload->state = UPLOAD_READY;
    upload->vouched = voucher != NULL;
    if (voucher != NULL)
        upload->voucher = *voucher;
    peer_push(tcp, peer);
}

void mesh_tcp_upload_cancel(struct mesh_tcp *tcp, const struct transfer_result *result)
{
    struct node *node = tcp->node;
    struct upload *upload = upload_find(tcp, result->id);
    if (upload == NULL || upload->state == UPLOAD_SENDING || upload->state == UPLOAD_FLUSHING)
        return; /* ended already, or it ends by being sent */
    bool asked = upload->state == UPLOAD_WAITING;
    tcp_upload_end(tcp, upload, E_CANCELLED);
    if (asked && node->handlers.upload_cancel != NULL)
        node->handlers.upload_cancel(node->handlers.host, result);
}

bool mesh_tcp_busy(const struct mesh_tcp *tcp)
{
    for (const struct tcp_peer *peer = tcp->peers; peer != NULL; peer = peer->next)
        if (peer->upload_count > 0)
            return true;
    return false;
}

/* ---- connections ---- */

void mesh_tcp_connect(struct mesh_tcp *tcp, const struct transfer_result *result)
{
    struct node *node = tcp->node;
    struct tcp_peer *peer = tcp->closing ? NULL : peer_get(tcp, &result->peer, &result->peer_addr);
    if (peer == NULL) {
        transfer_session_down(transfer_of(tcp), node_now(node), &result->peer, E_FULL);
        return;
    }
    peer->wanted = true;
    if (peer_link(peer) != NULL) {
        transfer_session_up(transfer_of(tcp), node_now(node), &result->peer);
        return;
    }
    if (peer->dial != NULL)
        return;
    int err = peerlink_dial(tcp, peer);
    if (err == 0)
        return;
    peer->wanted = false;
    transfer_session_down(transfer_of(tcp), node_now(node), &result->peer, err);
}

void mesh_tcp_release(struct mesh_tcp *tcp, const struct transfer_result *result)
{
    struct tcp_peer *peer = peer_find(tcp, &result->peer);
    if (peer != NULL)
        peer->wanted = false;
}

/* True if `a` is to be kept of two open connections with one node: the one the smaller id opened,
 * of two such the newer. Both sides come to the same answer. */
static bool prefer(const struct mesh_tcp *tcp, const struct peerlink *a, const struct peerlink *b)
{
    if (a->outgoing == b->outgoing)
        return true; /* `a` is the newer one */
    bool self_smaller = node_id_compare(mesh_self(tcp->node->mesh), &a->peer->id) < 0;
    return a->outgoing == self_smaller;
}

static void settle_duplicates(struct mesh_tcp *tcp, struct peerlink *fresh)
{
    struct peerlink *link = fresh->next_of_peer;
    while (link != NULL && !fresh->retired) {
        struct peerlink *next = link->next_of_peer; /* retiring may close */
        if (!link->retired) {
            tcp->node->counters.links_duplicate++;
            peerlink_retire(prefer(tcp, fresh, link) ? link : fresh);
        }
        link = next;
    }
}

void tcp_link_open(struct mesh_tcp *tcp, struct peerlink *link)
{
    struct node *node = tcp->node;
    const struct session_peer *proven = session_peer(link->session);
    struct tcp_peer *peer = link->peer;
    if (node_id_equal(&proven->id, mesh_self(node->mesh)) ||
        (peer != NULL && !node_id_equal(&proven->id, &peer->id))) {
        peerlink_close(link, E_AUTH); /* ourselves, or not the node we called */
        return;
    }
    if (peer != NULL) {
        peer->dial = NULL;
        tcp->dials--;
    } else {
        peer = peer_get(tcp, &proven->id, &proven->addr);
    }
    if (peer == NULL) {
        peerlink_close(link, E_FULL);
        return;
    }
    link->peer = peer;
    link->next_of_peer = peer->links;
    peer->links = link;
    settle_duplicates(tcp, link);
    if (!peer->up) {
        peer->up = true;
        transfer_session_up(transfer_of(tcp), node_now(node), &peer->id);
    }
    struct peerlink *best = peer_link(peer);
    if (best != NULL)
        peerlink_pump(best);
}

static void peer_unlink(struct tcp_peer *peer, struct peerlink *link)
{
    struct peerlink **at = &peer->links;
    while (*at != NULL && *at != link)
        at = &(*at)->next_of_peer;
    if (*at == link)
        *at = link->next_of_peer;
}

void tcp_link_closed(struct mesh_tcp *tcp, struct peerlink *link, int status)
{
    struct tcp_peer *peer = link->peer;
    if (peer == NULL)
        return;
    link->peer = NULL;
    if (peer->dial == link)
        peer->dial = NULL;
    peer_unlink(peer, link);
    struct peerlink *other = peer_link(peer);
    if (other != NULL) {
        peerlink_pump(other);
        return;
    }
    if (peer->links != NULL || peer->dial != NULL)
        return; /* one that is being retired, or one under way */
    if (peer->up || peer->wanted) {
        peer->up = peer->wanted = false;
        transfer_session_down(transfer_of(tcp), node_now(tcp->node), &peer->id, status);
    }
    uploads_fail(tcp, peer, status);
}

/* RES-3: the open connection that has been idle longest makes room. */
static bool shed(struct mesh_tcp *tcp)
{
    struct peerlink *idlest = NULL;
    for (struct peerlink *link = tcp->links; link != NULL; link = link->next) {
        if (link->state != LINK_OPEN || link->peer->wanted || link->peer->upload_count > 0)
            continue;
        if (idlest == NULL || link->used_us < idlest->used_us)
            idlest = link;
    }
    if (idlest == NULL)
        return false;
    tcp->node->counters.links_shed++;
    peerlink_close(idlest, E_FULL);
    return true;
}

void mesh_tcp_drop_denied(struct mesh_tcp *tcp)
{
    struct peerlink *link = tcp->links;
    while (link != NULL) {
        struct peerlink *next = link->next; /* closing frees later, in uv's callback */
        if (link->state == LINK_OPEN && admission_denied(&tcp->node->admission, &link->peer_key))
            peerlink_close(link, E_AUTH);
        link = next;
    }
}

/* ---- time ---- */

static void link_tick(struct peerlink *link, uint64_t now_us)
{
    if (link->state == LINK_CONNECTING || link->state == LINK_HANDSHAKE) {
        if (now_us >= link->deadline_us)
            peerlink_close(link, E_TIMEOUT);
        return;
    }
    if (link->state != LINK_OPEN)
        return;
    struct tcp_peer *peer = link->peer;
    /* A piece that stands still holds a buffer of ours; transfer has asked elsewhere long ago. */
    bool stalled = link->receive != LINK_AT_FRAME && !link->paused &&
                   now_us - link->used_us >= link->owner->node->config->transfer_timeout_us;
    bool idle = now_us - link->used_us >= TCP_IDLE_US && peer->upload_count == 0 && !peer->wanted;
    if (link->retired && now_us - link->retired_us >= RETIRED_US && link->sending == NULL &&
        link->receive == LINK_AT_FRAME)
        peerlink_close(link, E_CLOSED);
    else if (stalled)
        peerlink_close(link, E_TIMEOUT);
    else if (idle && !link->retired)
        peerlink_retire(link);
    else
        link_trim(link, now_us);
}

static void on_accept(uv_poll_t *poll, int status, int events);

static void on_tick(uv_timer_t *timer)
{
    struct mesh_tcp *tcp = timer->data;
    uint64_t now_us = node_now(tcp->node);
    struct peerlink *link = tcp->links;
    while (link != NULL) {
        struct peerlink *next = link->next;
        link_tick(link, now_us);
        link = next;
    }
    peers_sweep(tcp);
    if (tcp->accept_waits)
        (void)uv_poll_start(&tcp->accept_poll, UV_READABLE, on_accept);
    tcp->accept_waits = false;
}

static void rate_arm(struct mesh_tcp *tcp, uint64_t wait_us);

/* The throttled link that has waited longest; NULL if none. */
static struct peerlink *throttled_first(struct mesh_tcp *tcp)
{
    struct peerlink *first = NULL;
    for (struct peerlink *link = tcp->links; link != NULL; link = link->next)
        if (link->throttled && (first == NULL || link->throttle_turn < first->throttle_turn))
            first = link;
    return first;
}

/* Serves the links in the order in which they began to wait: the budget is shared fairly. */
static void on_rate(uv_timer_t *timer)
{
    struct mesh_tcp *tcp = timer->data;
    uint64_t last_turn = tcp->throttle_turn;
    struct peerlink *link = throttled_first(tcp);
    while (link != NULL && link->throttle_turn <= last_turn) {
        uint64_t wait_us = rate_budget_wait_us(&tcp->rate, node_now(tcp->node));
        if (wait_us > 0) {
            rate_arm(tcp, wait_us);
            return;
        }
        link->throttled = false;
        peerlink_pump(link);
        link = throttled_first(tcp);
    }
}

static void rate_arm(struct mesh_tcp *tcp, uint64_t wait_us)
{
    if (!uv_is_active((const uv_handle_t *)&tcp->rate_timer) && !tcp->closing)
        (void)uv_timer_start(&tcp->rate_timer, on_rate, wait_us / 1000 + 1, 0);
}

void tcp_throttle(struct mesh_tcp *tcp, struct peerlink *link, uint64_t wait_us)
{
    link->throttled = true;
    link->throttle_turn = ++tcp->throttle_turn;
    rate_arm(tcp, wait_us);
}

/* ---- life ---- */

/* Out of descriptors or memory, the backlog stays readable: polled on, it would spin. An idle
 * connection gives way, and the tick goes on (RES-3). */
static void accept_failed(struct mesh_tcp *tcp, int code)
{
    if (code != EMFILE && code != ENFILE && code != ENOBUFS && code != ENOMEM)
        return;
    tcp->node->counters.accepts_failed++;
    tcp->accept_waits = true;
    (void)uv_poll_stop(&tcp->accept_poll);
    (void)shed(tcp);
}

/* Not by libuv's listener: where it cannot accept it calls back and tries again at once, for ever.
 */
static void on_accept(uv_poll_t *poll, int status, int events)
{
    struct mesh_tcp *tcp = poll->data;
    (void)events;
    for (unsigned i = 0; status == 0 && i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(tcp->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            accept_failed(tcp, errno);
            return;
        }
        if (tcp->link_count >= tcp->links_max)
            (void)shed(tcp);
        peerlink_accept(tcp, fd);
    }
}

static int listen_on(struct mesh_tcp *tcp, const struct peer_addr *addr, uint16_t *port)
{
    struct peer_addr bound = {.port = 0};
    int err = socket_listen(addr, SOCK_STREAM, &tcp->listen_fd, &bound);
    if (err == 0 && listen(tcp->listen_fd, BACKLOG) != 0)
        err = errno == EADDRINUSE ? E_IN_USE : E_IO;
    if (err != 0)
        return err;
    int uv_error = uv_poll_init(&tcp->node->loop->uv, &tcp->accept_poll, tcp->listen_fd);
    tcp->accept_poll.data = tcp;
    if (uv_error == 0)
        uv_error = uv_poll_start(&tcp->accept_poll, UV_READABLE, on_accept);
    *port = bound.port;
    return loop_uv_error(uv_error);
}

int mesh_tcp_open(struct mesh_tcp *tcp, struct node *node, const struct peer_addr *addr,
                  uint16_t *port, struct config_error *error)
{
    char text[PEER_ADDR_TEXT_BYTES];
    memset(tcp, 0, sizeof *tcp);
    tcp->node = node;
    tcp->listen_fd = -1;
    int err = listen_on(tcp, addr, port);
    if (err != 0)
        (void)config_fail(error, "listen.mesh: cannot listen on %s (TCP): %s%s",
                          peer_addr_text(addr, text), err == E_IN_USE ? "address " : "",
                          err == E_NOT_FOUND ? "this host has no such address" : err_text(err));
    return err;
}

int mesh_tcp_start(struct mesh_tcp *tcp, struct config_error *error)
{
    uv_loop_t *uv = &tcp->node->loop->uv;
    uint64_t files = net_raise_files();
    uint64_t links = files > FILES_RESERVED ? (files - FILES_RESERVED) / 2 : LINKS_MIN;
    tcp->links_max = (uint32_t)(links > LINKS_MAX ? LINKS_MAX : links);
    tcp->bind_source = tcp->node->config->strict_address && net_is_local(&tcp->node->self_addr);
    rate_budget_init(&tcp->rate, tcp->node->config->upload_mbit, node_now(tcp->node));
    tcp->read_buffer = loop_alloc(NULL, NULL, RECORD_WIRE_BYTES_MAX + TCP_READ_BYTES);
    if (tcp->read_buffer == NULL) {
        (void)config_fail(error, "%s", err_text(E_NO_MEMORY));
        return E_NO_MEMORY;
    }
    int uv_error = uv_timer_init(uv, &tcp->tick);
    tcp->tick.data = tcp;
    if (uv_error == 0)
        uv_error = uv_timer_init(uv, &tcp->rate_timer);
    tcp->rate_timer.data = tcp;
    if (uv_error == 0)
        uv_error = uv_timer_start(&tcp->tick, on_tick, TICK_MS, TICK_MS);
    if (uv_error != 0)
        (void)config_fail(error, "cannot start timers: %s", uv_strerror(uv_error));
    return loop_uv_error(uv_error);
}

static void handle_close(uv_handle_t *handle)
{
    if (uv_handle_get_type(handle) != UV_UNKNOWN_HANDLE && !uv_is_closing(handle))
        uv_close(handle, NULL);
}

void mesh_tcp_close(struct mesh_tcp *tcp)
{
    tcp->closing = true;
    handle_close((uv_handle_t *)&tcp->accept_poll);
    if (tcp->listen_fd >= 0)
        (void)close(tcp->listen_fd);
    tcp->listen_fd = -1;
    handle_close((uv_handle_t *)&tcp->tick);
    handle_close((uv_handle_t *)&tcp->rate_timer);
    for (struct peerlink *link = tcp->links; link != NULL; link = link->next)
        peerlink_close(link, E_CLOSED);
}

void mesh_tcp_free(struct mesh_tcp *tcp)
{
    ASSERT(tcp->links == NULL);
    struct tcp_peer *peer = tcp->peers;
    while (peer != NULL) {
        struct tcp_peer *next = peer->next;
        /* Uploads whose bytes never came: nobody will ask any more. */
        while (peer->uploads != NULL) {
            struct upload *upload = peer->uploads;
            peer->uploads = upload->next;
            buffer_put(upload->bytes);
            (void)loop_alloc(NULL, upload, 0);
        }
        (void)loop_alloc(NULL, peer, 0);
        peer = next;
    }
    tcp->peers = NULL;
    tcp->read_buffer = loop_alloc(NULL, tcp->read_buffer, 0);
}

static void view_of(const struct peerlink *link, uint64_t now_us, struct node_link_view *out)
{
    *out = (struct node_link_view){
        .addr = link->peer != NULL ? link->peer->addr : link->remote,
        .established = link->state == LINK_OPEN,
        .outgoing = link->outgoing,
        .bytes_in = link->bytes_in,
        .bytes_out = link->bytes_out,
        .idle_us = now_us > link->used_us ? now_us - link->used_us : 0,
    };
    if (link->peer != NULL) {
        out->peer = link->peer->id;
        out->uploads = link->peer->upload_count;
    }
}

uint32_t mesh_tcp_sessions(const struct mesh_tcp *tcp)
{
    uint32_t count = 0;
    for (const struct peerlink *link = tcp->links; link != NULL; link = link->next)
        count += link->state == LINK_OPEN;
    return count;
}

size_t mesh_tcp_links(const struct mesh_tcp *tcp, struct node_link_view *out, size_t max)
{
    uint64_t now_us = node_now(tcp->node);
    size_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (const struct peerlink *link = tcp->links; link != NULL; link = link->next) {
            bool open = link->state == LINK_OPEN;
            if (count < max && link->state != LINK_CLOSING && open == (pass == 0))
                view_of(link, now_us, &out[count++]);
        }
    }
    return count;
}
