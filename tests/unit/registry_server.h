/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of the libcurl engine: a tiny HTTP server on 127.0.0.1 (ephemeral port, a thread per
 * connection, answers by a function of the test), a loop on poll() as the engine's host, and a
 * client that records what it is told. Loopback only; everything is bounded by alarm().
 */
#ifndef TEST_REGISTRY_SERVER_H
#define TEST_REGISTRY_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "registry.h"

#define SERVER_CONNECTIONS_MAX 1024
#define SERVER_HEADS_MAX       64
#define LOOP_FDS_MAX           1024

struct server;
/* Answers one request; false ends the connection. `head` is the whole request head. */
typedef bool (*serve_fn)(struct server *server, int fd, const char *head);

struct server {
    serve_fn serve;
    void *arg;
    int listener;
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock;
    unsigned connection_count, request_count;
    int fds[SERVER_CONNECTIONS_MAX];
    pthread_t threads[SERVER_CONNECTIONS_MAX];
    char heads[SERVER_HEADS_MAX][4096];
    bool stopping;
};

struct connection {
    struct server *server;
    int fd;
};

static inline bool send_all(int fd, const void *bytes, size_t byte_count)
{
    const char *at = bytes;

    while (byte_count > 0) {
        ssize_t n = send(fd, at, byte_count, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += n;
        byte_count -= (size_t)n;
    }
    return true;
}

static inline bool send_text(int fd, const char *text)
{
    return send_all(fd, text, strlen(text));
}

/* "HTTP/1.1 <status>" with a body and its length. */
static inline bool send_answer(int fd, const char *status, const char *headers, const char *body)
{
    char head[2048];

    (void)snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status,
                   strlen(body), headers);
    return send_text(fd, head) && send_text(fd, body);
}

/* Reads to the end of a request head. False at the end of the connection. */
static inline bool read_head(int fd, char *head, size_t head_bytes)
{
    size_t used = 0;

    while (used + 1 < head_bytes) {
        ssize_t n = recv(fd, head + used, 1, 0);

        if (n <= 0)
            return false;
        head[++used] = '\0';
        if (used >= 4 && memcmp(head + used - 4, "\r\n\r\n", 4) == 0)
            return true;
    }
    return false;
}

static inline void *connection_run(void *arg)
{
    struct connection *connection = arg;
    struct server *server = connection->server;
    int fd = connection->fd;
    char head[4096];
    bool go_on = true;

    free(connection);
    while (go_on && read_head(fd, head, sizeof head)) {
        pthread_mutex_lock(&server->lock);
        if (server->request_count < SERVER_HEADS_MAX)
            memcpy(server->heads[server->request_count], head, sizeof head);
        server->request_count++;
        pthread_mutex_unlock(&server->lock);
        go_on = server->serve(server, fd, head);
    }
    shutdown(fd, SHUT_RDWR);
    return NULL;
}

static inline void *server_run(void *arg)
{
    struct server *server = arg;

    while (true) {
        int fd = accept(server->listener, NULL, NULL);
        struct connection *connection;
        unsigned i;

        if (fd < 0)
            return NULL;
        pthread_mutex_lock(&server->lock);
        i = server->connection_count;
        if (server->stopping || i == SERVER_CONNECTIONS_MAX) {
            pthread_mutex_unlock(&server->lock);
            close(fd);
            continue;
        }
        connection = malloc(sizeof *connection);
        *connection = (struct connection){server, fd};
        server->fds[i] = fd;
        if (pthread_create(&server->threads[i], NULL, connection_run, connection) != 0)
            abort();
        server->connection_count++;
        pthread_mutex_unlock(&server->lock);
    }
}

/* Listens on a bound socket of the test's own. */
static inline void server_start_on(struct server *server, int listener, serve_fn serve, void *arg)
{
    struct sockaddr_in6 address; /* the port stands at the same place in v4 */
    socklen_t bytes = sizeof address;

    memset(server, 0, sizeof *server);
    server->serve = serve;
    server->arg = arg;
    server->listener = listener;
    pthread_mutex_init(&server->lock, NULL);
    if (listen(listener, 256) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &bytes) != 0 ||
        pthread_create(&server->thread, NULL, server_run, server) != 0)
        abort();
    server->port = ntohs(address.sin6_port);
}

static inline void server_start(struct server *server, serve_fn serve, void *arg)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
        abort();
    server_start_on(server, listener, serve, arg);
}

static inline void server_stop(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_mutex_unlock(&server->lock);
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    for (unsigned i = 0; i < server->connection_count; i++)
        shutdown(server->fds[i], SHUT_RDWR);
    for (unsigned i = 0; i < server->connection_count; i++) {
        pthread_join(server->threads[i], NULL);
        close(server->fds[i]);
    }
    close(server->listener);
    pthread_mutex_destroy(&server->lock);
}

static inline unsigned server_connections(struct server *server)
{
    unsigned count;

    pthread_mutex_lock(&server->lock);
    count = server->connection_count;
    pthread_mutex_unlock(&server->lock);
    return count;
}

static inline unsigned server_requests(struct server *server)
{
    unsigned count;

    pthread_mutex_lock(&server->lock);
    count = server->request_count;
    pthread_mutex_unlock(&server->lock);
    return count;
}

/* ---- the engine's host ---- */

struct loop {
    struct fetch_engine engine;
    struct fetch_curl *curl;
    struct origin *origin; /* NULL: none */
    unsigned events[LOOP_FDS_MAX];
    uint64_t timer_at_ms, origin_at_ms; /* UINT64_MAX: off */
    bool in_timeout;
};

static inline uint64_t loop_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline void loop_watch(void *host, int fd, unsigned events)
{
    struct loop *loop = host;

    if (fd < 0 || fd >= LOOP_FDS_MAX)
        abort();
    loop->events[fd] = events;
}

static inline void loop_timer(void *host, long timeout_ms)
{
    struct loop *loop = host;

    loop->timer_at_ms = timeout_ms < 0 ? UINT64_MAX : loop_ms() + (uint64_t)timeout_ms;
}

static inline void loop_origin_timer(void *host, uint64_t delay_us)
{
    struct loop *loop = host;

    loop->origin_at_ms = loop_ms() + (delay_us + 999) / 1000;
}

static inline void loop_init(struct loop *loop, unsigned connections_max)
{
    struct fetch_loop host = {loop, loop_watch, loop_timer};

    memset(loop, 0, sizeof *loop);
    loop->timer_at_ms = loop->origin_at_ms = UINT64_MAX;
    if (fetch_curl_new(&host, connections_max, &loop->engine, &loop->curl) != 0)
        abort();
}

/* One turn: waits at most `wait_ms`. */
static inline void loop_turn(struct loop *loop, uint64_t wait_ms)
{
    struct pollfd fds[LOOP_FDS_MAX];
    uint64_t now = loop_ms();
    uint64_t next = loop->timer_at_ms < loop->origin_at_ms ? loop->timer_at_ms : loop->origin_at_ms;
    nfds_t count = 0;

    if (next != UINT64_MAX && next < now + wait_ms)
        wait_ms = next > now ? next - now : 0;
    for (int fd = 0; fd < LOOP_FDS_MAX; fd++) {
        unsigned events = loop->events[fd];

        if (events != 0)
            fds[count++] = (struct pollfd){
                .fd = fd,
                .events = (short)(((events & FETCH_POLL_READ) != 0 ? POLLIN : 0) |
                                  ((events & FETCH_POLL_WRITE) != 0 ? POLLOUT : 0))};
    }
    if (poll(fds, count, (int)wait_ms) < 0)
        abort();
    for (nfds_t i = 0; i < count; i++) {
        unsigned events = ((fds[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0 ? 1u : 0) |
                          ((fds[i].revents & (POLLOUT | POLLERR)) != 0 ? 2u : 0);

        if (events != 0 && loop->events[fds[i].fd] != 0)
            fetch_curl_ready(loop->curl, fds[i].fd, events);
    }
    now = loop_ms();
    if (loop->timer_at_ms <= now) {
        loop->timer_at_ms = UINT64_MAX;
        fetch_curl_timeout(loop->curl);
    }
    if (loop->origin != NULL && loop->origin_at_ms <= now) {
        loop->origin_at_ms = UINT64_MAX;
        origin_advance(loop->origin, now * 1000);
    }
}

static inline void loop_run_for(struct loop *loop, uint64_t ms)
{
    uint64_t end = loop_ms() + ms;

    while (loop_ms() < end)
        loop_turn(loop, end > loop_ms() ? end - loop_ms() : 0);
}

/* ---- a client of the engine ---- */

struct client {
    struct loop *loop;
    struct fetch *fetch;
    unsigned heads, bodies, dones;
    int status, err;
    uint64_t content_length, body_bytes;
    char headers[70000];
    uint8_t first_bytes[256]; /* of the body */
    bool disorder, paused, inside_start;
    bool pause_once, pause_always;
    bool cancel_in_head, cancel_in_body;
    uint64_t checksum; /* of the body, position-dependent */
    void (*on_head)(struct client *client);
    void (*on_done)(struct client *client);
};

static inline void client_head(void *arg, const struct fetch_response *response)
{
    struct client *client = arg;
    size_t used = 0;

    client->disorder |= client->heads > 0 || client->dones > 0 || client->inside_start;
    client->heads++;
    client->status = response->status;
    client->content_length = response->content_length;
    client->headers[0] = '\0';
    for (unsigned i = 0; i < response->header_count && used + 1 < sizeof client->headers; i++)
        used += (size_t)snprintf(client->headers + used, sizeof client->headers - used, "%s: %s\n",
                                 response->headers[i].name, response->headers[i].value);
    if (client->on_head != NULL)
        client->on_head(client);
    if (client->cancel_in_head) {
        client->loop->engine.cancel(client->loop->engine.self, client->fetch);
        client->dones = 1000;
    }
}

static inline bool client_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct client *client = arg;

    client->disorder |= client->heads != 1 || client->dones > 0 || client->paused ||
                        client->inside_start || byte_count == 0;
    client->bodies++;
    for (size_t i = 0; i < byte_count; i++) {
        if (client->body_bytes + i < sizeof client->first_bytes)
            client->first_bytes[client->body_bytes + i] = bytes[i];
        client->checksum = client->checksum * 31 + bytes[i];
    }
    client->body_bytes += byte_count;
    if (client->cancel_in_body) {
        client->loop->engine.cancel(client->loop->engine.self, client->fetch);
        client->dones = 1000;
        return true;
    }
    client->paused = client->pause_once || client->pause_always;
    client->pause_once = false;
    return !client->paused;
}

static inline void client_done(void *arg, int err)
{
    struct client *client = arg;

    client->disorder |= client->dones > 0 || client->paused || client->inside_start;
    client->dones++;
    client->err = err;
    if (client->on_done != NULL)
        client->on_done(client);
}

static const struct fetch_callbacks client_callbacks = {client_head, client_body, client_done};

/* GET of a path of the server, loopback allowed, short timeouts. */
static inline void client_request(struct fetch_request *request, char url[256],
                                  const struct server *server, const char *path)
{
    static struct address_ranges own;
    address_ranges_private(&own, true);
    (void)snprintf(url, 256, "http://127.0.0.1:%u%s", (unsigned)server->port, path);
    *request = (struct fetch_request){.method = "GET",
                                      .url = url,
                                      .allow_private = &own,
                                      .connect_timeout_ms = 2000,
                                      .first_byte_timeout_ms = 2000,
                                      .idle_timeout_ms = 2000};
}

static inline int client_start(struct client *client, struct loop *loop,
                               const struct fetch_request *request)
{
    int err;

    client->loop = loop;
    client->inside_start = true;
    err = loop->engine.start(loop->engine.self, request, &client_callbacks, client, &client->fetch);
    client->inside_start = false;
    return err;
}

static inline void client_resume(struct client *client)
{
    client->paused = false;
    client->loop->engine.resume(client->loop->engine.self, client->fetch);
}

/* Turns until done was called, or five seconds have passed. True if done. */
static inline bool client_wait(struct client *client)
{
    uint64_t end = loop_ms() + 5000;

    while (client->dones == 0 && loop_ms() < end)
        loop_turn(client->loop, 100);
    return client->dones > 0;
}

#endif
