/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server's port: who is let in, what outstays its time, its start and end; see
 * http_server.h. Sockets are polled, not wrapped in uv streams, so that http_exchange.c can use
 * sendfile.
 */
#include "http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "control_socket.h"
#include "http_conn.h"
#include "log.h"
#include "socket_addr.h"

#define HEAD_DEADLINE_US (5ull * 1000000)  /* a request's head (HTTP-4) */
#define IDLE_US          (60ull * 1000000) /* between requests */
#define DRAIN_US         (2ull * 1000000)  /* after our end of the connection is closed */
#define LISTEN_BACKLOG   512
/* Handshakes under way in all, and older than what the newest may push out (RES-1): an honest one
 * takes milliseconds. One address may have half of its connections in them. */
#define HANDSHAKES_MAX   256
#define HANDSHAKE_OLD_US (1ull * 1000000)

static void on_accept(uv_poll_t *handle, int status, int events);

void http_server_accept_again(struct server *server)
{
    if (!server->accept_paused || server->draining)
        return;
    server->accept_paused = false;
    (void)uv_poll_start(&server->poll, UV_READABLE, on_accept);
}

static uint32_t connections_of(const struct server *server, const struct peer_addr *peer)
{
    uint32_t count = 0;
    for (const struct exchange *conn = server->connections; conn != NULL; conn = conn->next)
        count += memcmp(conn->peer.ip, peer->ip, sizeof peer->ip) == 0;
    return count;
}

/* BBR, a common default, is 2.5 times slower than loss-based control on loopback (LIMITS §0.3). */
static void tune(int fd, const struct peer_addr *peer)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bool loopback = peer_addr_is_v4(peer) ? peer->ip[12] == 127 : peer->ip[15] == 1;
    if (loopback && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) != 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

/* Where a new connection begins: at its TLS handshake, if there is one. */
static bool conn_begin(struct exchange *conn)
{
    struct tls *tls = conn->server->config.tls;
    if (tls == NULL) {
        http_conn_enter(conn, CONN_READING);
        return true;
    }
    conn->socket.tls = tls_session_new(tls, conn->socket.fd);
    if (conn->socket.tls == NULL)
        return false;
    conn->server->counters.handshakes_running++;
    http_conn_enter(conn, CONN_HANDSHAKE);
    return true;
}

static bool conn_new(struct server *server, int fd, const struct peer_addr *peer)
{
    struct exchange *conn = loop_alloc(NULL, NULL, sizeof *conn);
    if (conn == NULL)
        return false;
    memset(conn, 0, offsetof(struct exchange, request));
    memset((uint8_t *)conn + offsetof(struct exchange, body), 0,
           sizeof *conn - offsetof(struct exchange, body));
    conn->server = server;
    conn->socket.fd = fd;
    conn->peer = *peer;
    conn->chunk.fd = -1;
    if (!conn_begin(conn)) {
        (void)loop_alloc(NULL, conn, 0);
        return false;
    }
    if (uv_poll_init(&server->config.loop->uv, &conn->poll, fd) != 0) {
        server->counters.handshakes_running -= conn->state == CONN_HANDSHAKE;
        tls_session_free(conn->socket.tls);
        (void)loop_alloc(NULL, conn, 0);
        return false;
    }
    conn->poll.data = conn;
    conn->next = server->connections;
    if (conn->next != NULL)
        conn->next->previous = conn;
    server->connections = conn;
    server->counters.connections++;
    server->counters.accepted++;
    http_conn_poll(conn, UV_READABLE);
    return true;
}

/* One connection too many. It is told so at once and may come again: clients that cannot go
 * elsewhere in mid-pull honour Retry-After (CLIENTS §8), a bare close ends their pull. Inside TLS
 * there is no telling before a handshake, which is what we have no room for. */
static void turn_away(const struct server *server, int fd)
{
    uint8_t unread[4096];
    /* Input left unread would make the close a reset, which throws the answer away. */
    ssize_t n = recv(fd, unread, sizeof unread, MSG_DONTWAIT);
    (void)n;
    if (server->config.tls == NULL)
        http_conn_say_plainly(fd, 429, "TOOMANYREQUESTS",
                              "too many connections: see limits.connections and "
                              "limits.connectionsPerAddress");
    (void)shutdown(fd, SHUT_WR);
    (void)close(fd);
}

/* Room for one more handshake: silent clients (a second without finishing) give way. */
static bool handshake_room(struct server *server, const struct peer_addr *peer)
{
    struct exchange *oldest = NULL, *oldest_same = NULL; /* new ones come first in the list */
    uint32_t same = 0;
    if (server->config.tls == NULL)
        return true;
    for (struct exchange *conn = server->connections; conn != NULL; conn = conn->next) {
        if (conn->state != CONN_HANDSHAKE)
            continue;
        oldest = conn;
        if (memcmp(conn->peer.ip, peer->ip, sizeof peer->ip) != 0)
            continue;
        oldest_same = conn;
        same++;
    }
    bool full_address = same > 0 && same >= server->config.connections_per_address / 2;
    if (!full_address && server->counters.handshakes_running < HANDSHAKES_MAX)
        return true;
    struct exchange *victim = full_address ? oldest_same : oldest;
    if (http_conn_now_us(victim) - victim->since_us < HANDSHAKE_OLD_US)
        return false;
    server->counters.timeouts++;
    server->counters.handshakes_late++;
    http_conn_close(victim);
    return true;
}

/* Out of descriptors or memory, the backlog stays readable: polled on, it would spin (RES-3). */
static void accept_failed(struct server *server, int code)
{
    if (code != EMFILE && code != ENFILE && code != ENOBUFS && code != ENOMEM)
        return;
    server->counters.accepts_failed++;
    server->accept_paused = true; /* until accept_again */
    (void)uv_poll_stop(&server->poll);
}

static void on_accept(uv_poll_t *handle, int status, int events)
{
    struct server *server = handle->data;
    (void)events;
    for (unsigned i = 0; status == 0 && i < 64; i++) {
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        int fd = accept4(server->fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            accept_failed(server, errno);
            return;
        }
        struct peer_addr peer;
        if (server->config.control != NULL && !control_peer_allowed(fd)) {
            server->counters.refused++;
            (void)close(fd);
            continue;
        }
        socket_addr_from(&from, &peer);
        tune(fd, &peer);
        bool room = handshake_room(server, &peer) &&
                    server->counters.connections < server->config.connections_max &&
                    connections_of(server, &peer) < server->config.connections_per_address;
        if (!room || !conn_new(server, fd, &peer)) {
            server->counters.refused++;
            turn_away(server, fd);
        }
    }
}

/* True if the connection outstayed its state's deadline. */
static bool overdue(struct exchange *conn, uint64_t at_us)
{
    uint64_t age_us = at_us - conn->since_us;
    switch (conn->state) {
    case CONN_HANDSHAKE:
        return age_us > HEAD_DEADLINE_US;
    case CONN_BODY:
        return age_us > HEAD_DEADLINE_US;
    case CONN_READING:
        return age_us > (conn->in_used > 0 ? HEAD_DEADLINE_US : IDLE_US);
    case CONN_SENDING:
        /* Waiting for the source is not the client's fault. */
        return http_pace_slow(&conn->pace, conn->socket.fd, (conn->events & UV_WRITABLE) != 0,
                              at_us);
    case CONN_DRAINING:
        return age_us > DRAIN_US;
    default:
        return false;
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct server *server = timer->data;
    uint64_t at_us = loop_now_us(server->config.loop);
    for (struct exchange *conn = server->connections, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (!overdue(conn, at_us)) {
            if (conn->state == CONN_SENDING && conn->source.tick != NULL)
                conn->source.tick(conn->source.arg);
            continue;
        }
        bool began = conn->state == CONN_BODY || (conn->state == CONN_READING && conn->in_used > 0);
        server->counters.handshakes_late += conn->state == CONN_HANDSHAKE;
        server->counters.timeouts += conn->state == CONN_HANDSHAKE || began ||
                                     (conn->state != CONN_DRAINING && conn->in_used > 0);
        if (began)
            http_conn_refuse(conn, 408);
        else
            http_conn_close(conn);
    }
    http_server_accept_again(server);
}

static void listener_close(struct server *server)
{
    if (server->fd < 0)
        return;
    uv_close((uv_handle_t *)&server->poll, NULL);
    if (server->config.control != NULL)
        control_remove(server->config.control, server->fd);
    (void)close(server->fd);
    server->fd = -1;
}

/* A closed port sends runtimes to the registry at once; one that is open and not accepted from
 * would hold them until the last answer is out. */
static void part_drain(void *arg)
{
    struct server *server = arg;
    server->draining = true;
    listener_close(server);
    for (struct exchange *conn = server->connections, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (http_conn_receiving(conn) || conn->state == CONN_HANDSHAKE)
            http_conn_close(conn);
    }
}

static bool part_busy(void *arg)
{
    const struct server *server = arg;
    return server->counters.connections > 0;
}

static void part_close(void *arg)
{
    struct server *server = arg;
    while (server->connections != NULL)
        http_conn_close(server->connections);
    listener_close(server);
    uv_close((uv_handle_t *)&server->timer, NULL);
}

static int listen_on(struct server *server, struct config_error *error)
{
    char text[PEER_ADDR_TEXT_BYTES];
    if (server->config.control != NULL)
        return control_listen(server->config.control, &server->fd, error);
    int err = socket_listen(&server->config.listen, SOCK_STREAM, &server->fd, &server->addr);
    if (err == 0 && listen(server->fd, LISTEN_BACKLOG) != 0)
        err = errno == EADDRINUSE ? E_IN_USE : E_IO;
    if (err == 0)
        return 0;
    (void)snprintf(error->text, sizeof error->text, "listen.%s %s: %s%s", server->config.name,
                   peer_addr_text(&server->config.listen, text),
                   err == E_NOT_FOUND ? "this host has no such address" : err_text(err),
                   err == E_IN_USE   ? " by another program: stop it, or choose another port"
                   : err == E_DENIED ? ": a port below 1024 needs CAP_NET_BIND_SERVICE or sysctl "
                                       "net.ipv4.ip_unprivileged_port_start"
                                     : "");
    if (server->fd >= 0)
        (void)close(server->fd);
    return err;
}

int server_new(const struct server_config *config, struct server **out, struct config_error *error)
{
    struct server *server = loop_alloc(NULL, NULL, sizeof *server);
    if (server == NULL)
        return E_NO_MEMORY;
    *server = (struct server){.config = *config, .fd = -1};
    if (config->tls != NULL)
        server->scratch = loop_alloc(NULL, NULL, HTTP_SOCKET_FILE_BYTES);
    int err =
        config->tls != NULL && server->scratch == NULL ? E_NO_MEMORY : listen_on(server, error);
    if (err != 0) {
        server_free(server);
        return err;
    }
    struct uv_loop_s *uv = &config->loop->uv;
    if (uv_poll_init(uv, &server->poll, server->fd) != 0 || uv_timer_init(uv, &server->timer) != 0)
        return E_INTERNAL;
    server->poll.data = server->timer.data = server;
    (void)uv_poll_start(&server->poll, UV_READABLE, on_accept);
    (void)uv_timer_start(&server->timer, on_timer, 1000, 1000);
    server->part = (struct loop_part){.name = config->name,
                                      .arg = server,
                                      .drain = part_drain,
                                      .busy = part_busy,
                                      .close = part_close};
    loop_add_part(config->loop, &server->part);
    *out = server;
    return 0;
}

void server_free(struct server *server)
{
    if (server != NULL)
        (void)loop_alloc(NULL, server->scratch, 0);
    (void)loop_alloc(NULL, server, 0);
}

const struct peer_addr *server_addr(const struct server *server)
{
    return &server->addr;
}

void server_counters(const struct server *server, struct server_counters *out)
{
    *out = server->counters;
}
