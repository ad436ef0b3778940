/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the HTTP server; see http_server.h. Sockets are polled, not wrapped in uv streams,
 * so that sendfile and partial sends need no copy and no queue.
 */
#include "http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "control_socket.h"
#include "http_pace.h"
#include "http_socket.h"
#include "log.h"
#include "socket_addr.h"

#define HEAD_DEADLINE_US (5ull * 1000000)  /* a request's head (HTTP-4) */
#define IDLE_US          (60ull * 1000000) /* between requests */
#define DRAIN_US         (2ull * 1000000)  /* after our end of the connection is closed */
/* Most bytes of one span, and of one connection before others get their turn. */
#define SPAN_BYTES_MAX (1024 * 1024)
#define TURN_BYTES_MAX (4 * 1024 * 1024)
#define BODY_COPY_MAX  (8 * 1024 * 1024)
#define LISTEN_BACKLOG 512
/* Handshakes under way in all, and older than what the newest may push out (RES-1): an honest one
 * takes milliseconds. One address may have half of its connections in them. */
#define HANDSHAKES_MAX   256
#define HANDSHAKE_OLD_US (1ull * 1000000)

enum conn_state {
    CONN_UNUSED = 0,
    CONN_HANDSHAKE, /* TLS: ends when it is done, fails, or by a deadline */
    CONN_READING,   /* waits for a request head; ends by one, a deadline or the client */
    CONN_BODY,      /* has the head; ends by the whole body, a deadline or the client */
    CONN_HANDLING,  /* the handler has the request; ends by its answer or the client */
    CONN_SENDING,   /* the answer goes out; ends when it is sent, the source fails or the client */
    CONN_DRAINING,  /* our side is shut; ends when the client closes or the deadline passes */
};

struct exchange {
    struct server *server;
    struct exchange *previous, *next;
    uv_poll_t poll;
    struct http_socket socket;
    struct peer_addr peer;
    enum conn_state state;
    int events;            /* polled for */
    uint64_t since_us;     /* entered this state, or last made progress */
    struct http_pace pace; /* while sending: whether the client takes it */
    size_t in_used;
    bool close_after; /* no further request on this connection */
    bool head_only;
    bool client_gone;
    struct http_request request;
    uint8_t in[HTTP_HEAD_BYTES_MAX];
    char *body; /* owned: of the request, with a zero behind it; NULL: it has none */
    size_t body_used;
    uint8_t *out; /* owned: head, and body from memory */
    size_t out_bytes, out_sent;
    struct body_source source;
    uint64_t body_left; /* of the source */
    struct blob_chunk chunk;
    uint32_t chunk_sent;
    bool has_chunk, sending, taking;
    void (*gone)(void *arg);
    void *gone_arg;
    void (*end)(void *arg);
    void *end_arg;
    struct exchange_outcome outcome; /* request NULL: it could not be read */
};

struct server {
    struct server_config config;
    struct loop_part part;
    struct peer_addr addr;
    int fd;
    uv_poll_t poll;
    uv_timer_t timer;
    struct exchange *connections;
    struct server_counters counters;
    uint8_t *scratch; /* TLS: HTTP_SOCKET_FILE_BYTES for what comes from files */
    bool draining, accept_paused;
};

static void conn_sending(struct exchange *conn);
static void conn_next(struct exchange *conn);

static uint64_t now_us(const struct exchange *conn)
{
    return loop_now_us(conn->server->config.loop);
}

/* ---- life of a connection ---- */

static void on_accept(uv_poll_t *handle, int status, int events);

/* After accept_failed: a descriptor was given back, or a second has passed. */
static void accept_again(struct server *server)
{
    if (!server->accept_paused || server->draining)
        return;
    server->accept_paused = false;
    (void)uv_poll_start(&server->poll, UV_READABLE, on_accept);
}

static void conn_closed(uv_handle_t *handle)
{
    struct exchange *conn = handle->data;
    http_socket_close(&conn->socket);
    accept_again(conn->server);
    (void)loop_alloc(NULL, conn->out, 0);
    (void)loop_alloc(NULL, conn->body, 0);
    explicit_bzero(&conn->request, sizeof conn->request); /* holds Authorization */
    explicit_bzero(conn->in, sizeof conn->in);
    (void)loop_alloc(NULL, conn, 0);
}

static void drop_body(struct exchange *conn)
{
    if (conn->has_chunk) {
        blob_chunk_done(&conn->chunk);
        conn->body_left += conn->chunk.byte_count - conn->chunk_sent;
    }
    conn->has_chunk = false;
    if (conn->source.close != NULL)
        conn->source.close(conn->source.arg);
    conn->source = (struct body_source){0};
}

/* A request is over, however it ended. */
static void request_over(struct exchange *conn)
{
    void (*end)(void *arg) = conn->end;
    struct server *server = conn->server;
    server->counters.requests_running--;
    conn->outcome.body_bytes = conn->outcome.length - conn->body_left;
    if (server->config.ended != NULL && conn->outcome.request != NULL)
        server->config.ended(server->config.loop, &conn->outcome);
    conn->end = NULL;
    if (end != NULL)
        end(conn->end_arg);
}

static void conn_close(struct exchange *conn)
{
    struct server *server = conn->server;
    if (uv_is_closing((uv_handle_t *)&conn->poll))
        return;
    bool requested = conn->state == CONN_HANDLING || conn->state == CONN_SENDING;
    server->counters.handshakes_running -= conn->state == CONN_HANDSHAKE;
    if (conn->state == CONN_READING)
        http_socket_end(&conn->socket); /* TLS: an idle client learns that this is no attack */
    conn->client_gone = true;
    void (*gone)(void *arg) = conn->state == CONN_HANDLING ? conn->gone : NULL;
    conn->state = CONN_DRAINING;
    drop_body(conn);
    if (gone != NULL)
        gone(conn->gone_arg);
    if (conn->previous != NULL)
        conn->previous->next = conn->next;
    else
        server->connections = conn->next;
    if (conn->next != NULL)
        conn->next->previous = conn->previous;
    server->counters.connections--;
    (void)uv_poll_stop(&conn->poll);
    uv_close((uv_handle_t *)&conn->poll, conn_closed);
    if (requested)
        request_over(conn);
}

static void on_poll(uv_poll_t *handle, int status, int events);

static void poll_for(struct exchange *conn, int events)
{
    if (conn->events == events || uv_is_closing((uv_handle_t *)&conn->poll))
        return;
    conn->events = events;
    if (events == 0)
        (void)uv_poll_stop(&conn->poll);
    else
        (void)uv_poll_start(&conn->poll, events, on_poll);
}

static void enter(struct exchange *conn, enum conn_state state)
{
    conn->state = state;
    conn->since_us = now_us(conn);
}

/* Our side is done: the client reads what is on its way, then closes (CLIENTS §1.2). */
static void conn_drain(struct exchange *conn)
{
    http_socket_end(&conn->socket);
    enter(conn, CONN_DRAINING);
    poll_for(conn, UV_READABLE);
}

/* ---- answers ---- */

void response_add(struct response *response, const char *name, const char *value)
{
    if (value == NULL || response->header_count == RESPONSE_HEADERS_MAX)
        return;
    response->headers[response->header_count++] = (struct fetch_header){name, value};
}

const struct http_request *exchange_request(const struct exchange *exchange)
{
    return &exchange->request;
}

const char *exchange_body(const struct exchange *exchange, size_t *bytes)
{
    *bytes = exchange->body_used;
    return exchange->body == NULL ? "" : exchange->body;
}

uint64_t exchange_arrived_us(const struct exchange *exchange)
{
    ASSERT(exchange->state == CONN_HANDLING);
    return exchange->since_us;
}

const struct peer_addr *exchange_peer(const struct exchange *exchange)
{
    return &exchange->peer;
}

void exchange_on_gone(struct exchange *exchange, void (*gone)(void *arg), void *arg)
{
    exchange->gone = gone;
    exchange->gone_arg = arg;
}

void exchange_on_end(struct exchange *exchange, void (*end)(void *arg), void *arg)
{
    exchange->end = end;
    exchange->end_arg = arg;
}

/* Builds the head with room for `extra` body bytes behind it. */
static bool make_head(struct exchange *conn, const struct response *response, uint64_t length,
                      size_t extra)
{
    size_t room = HTTP_HEAD_BYTES_MAX;
    conn->out = loop_alloc(NULL, NULL, room + extra);
    if (conn->out == NULL)
        return false;
    struct http_head head;
    http_head_begin(&head, (char *)conn->out, room, response->status);
    for (unsigned i = 0; i < response->header_count; i++)
        http_head_add(&head, response->headers[i].name, response->headers[i].value);
    conn->outcome.status = response->status;
    conn->outcome.length = conn->head_only ? 0 : length;
    if (response->status != 304 && length != RESPONSE_LENGTH_UNKNOWN)
        http_head_add_uint(&head, "Content-Length", length);
    if (conn->close_after)
        http_head_add(&head, "Connection", "close");
    return http_head_end(&head, &conn->out_bytes) == 0;
}

static void start_answer(struct exchange *conn)
{
    conn->out_sent = 0;
    conn->gone = NULL;
    enter(conn, CONN_SENDING);
    /* A client that asks on before it has read may still have the answer before to take. */
    http_pace_begin(&conn->pace, conn->socket.fd, conn->since_us);
    conn_sending(conn);
}

static void answer_failed(struct exchange *conn)
{
    conn->gone = NULL;
    conn->outcome.status = 0;
    conn->outcome.length = 0;
    drop_body(conn);
    conn->body_left = 0;
    conn_drain(conn);
    request_over(conn);
}

void exchange_respond(struct exchange *conn, const struct response *response, const void *body,
                      size_t body_bytes)
{
    ASSERT(conn->state == CONN_HANDLING);
    ASSERT(conn->head_only || body_bytes <= BODY_COPY_MAX);
    size_t copied = conn->head_only ? 0 : body_bytes;
    if (!make_head(conn, response, body_bytes, copied)) {
        answer_failed(conn);
        return;
    }
    if (copied > 0)
        memcpy(conn->out + conn->out_bytes, body, copied);
    conn->out_bytes += copied;
    conn->body_left = 0;
    start_answer(conn);
}

void exchange_error(struct exchange *conn, int status, const char *code, const char *message)
{
    char body[1024];
    size_t bytes = 0;
    struct response response = {.status = status};
    response_add(&response, "Content-Type", "application/json");
    response_add(&response, "Allow", status == 405 ? "GET, HEAD" : NULL); /* RFC 9110 §15.5.6 */
    if (http_oci_error(body, sizeof body, code, message, &bytes) != 0)
        bytes = 0;
    exchange_respond(conn, &response, body, bytes);
}

void exchange_stream(struct exchange *conn, const struct response *response, uint64_t length,
                     const struct body_source *source)
{
    ASSERT(conn->state == CONN_HANDLING);
    conn->source = *source;
    if (!make_head(conn, response, length, 0)) {
        answer_failed(conn);
        return;
    }
    conn->body_left = conn->head_only ? 0 : length;
    if (conn->head_only)
        drop_body(conn);
    start_answer(conn);
}

void exchange_wake(struct exchange *conn)
{
    if (conn->state == CONN_SENDING && !conn->sending)
        conn_sending(conn);
}

/* ---- sending ---- */

static int send_chunk(struct exchange *conn)
{
    struct blob_chunk *chunk = &conn->chunk;
    size_t left = chunk->byte_count - conn->chunk_sent, sent = 0;
    int err =
        chunk->fd >= 0
            ? http_socket_send_file(&conn->socket, chunk->fd, chunk->fd_offset + conn->chunk_sent,
                                    left, conn->server->scratch, &sent)
            : http_socket_send(&conn->socket, chunk->bytes + conn->chunk_sent, left, false, &sent);
    conn->chunk_sent += (uint32_t)sent;
    conn->pace.given += sent;
    conn->server->counters.bytes_out += sent;
    return err;
}

/* The answer is out: the next request, or the end. */
static void answer_done(struct exchange *conn)
{
    conn->out = loop_alloc(NULL, conn->out, 0);
    conn->body = loop_alloc(NULL, conn->body, 0);
    drop_body(conn);
    if (conn->close_after || conn->server->draining) {
        conn_drain(conn);
    } else {
        enter(conn, CONN_READING);
        poll_for(conn, UV_READABLE);
    }
    request_over(conn);
}

/* The source cannot go on: the client sees a clean, short end and asks for the rest. */
static void answer_cut(struct exchange *conn)
{
    conn->server->counters.cut++;
    drop_body(conn);
    conn_drain(conn);
    request_over(conn);
}

/* Gets the next span. 1 there is one, 0 wait, -1 the answer ended here. */
static int next_chunk(struct exchange *conn)
{
    if (conn->body_left == 0) {
        answer_done(conn);
        return -1;
    }
    uint32_t most = conn->body_left < SPAN_BYTES_MAX ? (uint32_t)conn->body_left : SPAN_BYTES_MAX;
    int err = conn->source.next(conn->source.arg, most, &conn->chunk);
    if (err == E_AGAIN) {
        poll_for(conn, UV_DISCONNECT);
        return 0;
    }
    if (err != 0) {
        answer_cut(conn);
        return -1;
    }
    ASSERT(conn->chunk.byte_count > 0 && conn->chunk.byte_count <= most);
    conn->has_chunk = true;
    conn->chunk_sent = 0;
    conn->body_left -= conn->chunk.byte_count;
    return 1;
}

/* What a send means for the exchange. 1 go on, 0 wait for the socket, -1 the client is gone. */
static int after_send(struct exchange *conn, int err)
{
    if (err == 0)
        return 1;
    if (err != E_AGAIN) {
        conn_close(conn);
        return -1;
    }
    poll_for(conn, UV_WRITABLE | UV_DISCONNECT);
    return 0;
}

/* One step. 1 go on, 0 wait for the socket or the source, -1 the exchange left this state. */
static int send_step(struct exchange *conn)
{
    if (conn->out_sent < conn->out_bytes) {
        size_t sent = 0;
        int err = http_socket_send(&conn->socket, conn->out + conn->out_sent,
                                   conn->out_bytes - conn->out_sent, conn->body_left > 0, &sent);
        conn->out_sent += sent;
        conn->pace.given += sent;
        return after_send(conn, err);
    }
    if (!conn->has_chunk)
        return next_chunk(conn);
    int did = after_send(conn, send_chunk(conn));
    if (did >= 0 && conn->chunk_sent == conn->chunk.byte_count) {
        blob_chunk_done(&conn->chunk);
        conn->has_chunk = false;
    }
    return did;
}

static void conn_sending(struct exchange *conn)
{
    uint64_t start_bytes = conn->server->counters.bytes_out;
    conn->sending = true;
    int go = 1;
    while (go == 1 && conn->server->counters.bytes_out - start_bytes < TURN_BYTES_MAX)
        go = send_step(conn);
    conn->sending = false;
    if (go == 1)
        poll_for(conn, UV_WRITABLE | UV_DISCONNECT);
    else if (go == -1 && conn->state == CONN_READING)
        conn_next(conn);
}

/* ---- receiving ---- */

static void refuse_request(struct exchange *conn, int status)
{
    conn->server->counters.malformed++;
    conn->close_after = true;
    conn->head_only = false;
    conn->outcome.request = NULL;
    conn->state = CONN_HANDLING;
    conn->server->counters.requests_running++;
    const char *code = status == 405 ? "UNSUPPORTED" : "UNKNOWN";
    exchange_error(conn, status, code, http_status_text(status));
}

static void hand_over(struct exchange *conn)
{
    conn->server->counters.requests++;
    conn->server->counters.requests_running++;
    conn->close_after = !conn->request.keep_alive;
    conn->head_only = conn->request.method == HTTP_HEAD;
    conn->body_left = 0;
    conn->outcome = (struct exchange_outcome){
        .peer = &conn->peer, .request = &conn->request, .arrived_us = now_us(conn)};
    enter(conn, CONN_HANDLING);
    poll_for(conn, UV_DISCONNECT);
    conn->server->config.handle(conn->server->config.arg, conn);
}

/* Takes what was read of a request's body. */
static bool take_body(struct exchange *conn)
{
    size_t left = conn->request.body_bytes - conn->body_used;
    size_t take = conn->in_used < left ? conn->in_used : left;
    memcpy(conn->body + conn->body_used, conn->in, take);
    conn->body_used += take;
    memmove(conn->in, conn->in + take, conn->in_used - take);
    conn->in_used -= take;
    if (take < left)
        return false;
    conn->body[conn->body_used] = '\0';
    hand_over(conn);
    return true;
}

static int parse(struct exchange *conn, size_t *used, int *status)
{
    size_t body_max = conn->server->config.body_max;
    if (body_max == 0)
        return http_request_parse(conn->in, conn->in_used, &conn->request, used, status);
    return http_request_parse_order(conn->in, conn->in_used, body_max, &conn->request, used,
                                    status);
}

/* Takes a request from what was read, if a whole head is there. */
static bool take_request(struct exchange *conn)
{
    size_t used = 0;
    int status = 400;
    if (conn->state == CONN_BODY)
        return take_body(conn);
    int err = parse(conn, &used, &status);
    if (err == E_AGAIN)
        return false;
    conn->body_used = 0;
    if (err == 0 && conn->request.body_bytes > 0) {
        conn->body = loop_alloc(NULL, NULL, conn->request.body_bytes + 1);
        status = 503;
        err = conn->body == NULL ? E_NO_MEMORY : 0;
    }
    if (err != 0) {
        refuse_request(conn, status);
        return true;
    }
    memmove(conn->in, conn->in + used, conn->in_used - used);
    conn->in_used -= used;
    if (conn->body == NULL)
        hand_over(conn);
    else
        enter(conn, CONN_BODY);
    return true;
}

/* Reads on behind what was read of the next request. True if there is more than before. */
static bool conn_fill(struct exchange *conn)
{
    size_t got = 0;
    if (conn->in_used == sizeof conn->in) {
        refuse_request(conn, 431);
        return false;
    }
    int err = http_socket_recv(&conn->socket, conn->in + conn->in_used,
                               sizeof conn->in - conn->in_used, &got);
    if (err != 0 && err != E_AGAIN)
        conn_close(conn);
    conn->in_used += got;
    return err == 0;
}

static bool is_receiving(const struct exchange *conn)
{
    return conn->state == CONN_READING || conn->state == CONN_BODY;
}

/* Takes what requests there are. One answered at once comes back here before its handler has
 * returned: the loop goes on then, so that a packet full of requests costs no stack. */
static void conn_next(struct exchange *conn)
{
    if (conn->taking)
        return;
    conn->taking = true;
    while (is_receiving(conn) && ((conn->in_used > 0 && take_request(conn)) ||
                                  (http_socket_pending(&conn->socket) && conn_fill(conn))))
        ;
    conn->taking = false;
}

/* What a client still sends after our end is thrown away; inside TLS it is not even decrypted. */
static void conn_discard(struct exchange *conn)
{
    uint8_t scratch[4096];
    ssize_t n = recv(conn->socket.fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        conn_close(conn);
}

static void conn_readable(struct exchange *conn)
{
    if (!is_receiving(conn))
        conn_discard(conn);
    else if (conn_fill(conn))
        conn_next(conn);
}

/* ---- TLS ---- */

/* Sends an error in plain text; a courtesy: whether it arrives or not, the connection ends. */
static void say_plainly(int fd, int status, const char *code, const char *message)
{
    char body[256], text[sizeof body + 256];
    size_t body_bytes = 0, head_bytes = 0;
    struct http_head head;
    int err = http_oci_error(body, sizeof body, code, message, &body_bytes);
    http_head_begin(&head, text, sizeof text, status);
    http_head_add(&head, "Content-Type", "application/json");
    if (status == 429)
        http_head_add(&head, "Retry-After", "1");
    http_head_add_uint(&head, "Content-Length", body_bytes);
    http_head_add(&head, "Connection", "close");
    if (err == 0)
        err = http_head_end(&head, &head_bytes);
    ASSERT(err == 0 && head_bytes + body_bytes <= sizeof text);
    memcpy(text + head_bytes, body, body_bytes);
    ssize_t n = send(fd, text, head_bytes + body_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n;
}

static void handshake_step(struct exchange *conn)
{
    bool wants_write = false;
    int err = tls_session_handshake(conn->socket.tls, &wants_write);
    if (err == E_AGAIN) {
        poll_for(conn, wants_write ? UV_WRITABLE : UV_READABLE);
        return;
    }
    conn->server->counters.handshakes_running--;
    if (err == 0) {
        enter(conn, CONN_READING);
        poll_for(conn, UV_READABLE);
        conn_next(conn);
        return;
    }
    if (err == E_MALFORMED)
        say_plainly(conn->socket.fd, 400, "UNSUPPORTED", "this port speaks TLS: use https");
    conn_drain(conn); /* not closed at once: the alert would be lost */
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct exchange *conn = handle->data;
    if (status < 0) {
        conn_close(conn);
        return;
    }
    if (conn->state == CONN_HANDSHAKE) {
        handshake_step(conn);
        return;
    }
    /* No client of a mirror closes only its half: a FIN in an exchange means it gave up. */
    if ((events & UV_DISCONNECT) != 0 && !is_receiving(conn) && conn->state != CONN_DRAINING) {
        conn_close(conn);
        return;
    }
    if ((events & UV_WRITABLE) != 0 && conn->state == CONN_SENDING) {
        conn_sending(conn);
        return;
    }
    if ((events & UV_READABLE) != 0)
        conn_readable(conn);
}

/* ---- listening ---- */

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
        enter(conn, CONN_READING);
        return true;
    }
    conn->socket.tls = tls_session_new(tls, conn->socket.fd);
    if (conn->socket.tls == NULL)
        return false;
    conn->server->counters.handshakes_running++;
    enter(conn, CONN_HANDSHAKE);
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
    poll_for(conn, UV_READABLE);
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
        say_plainly(fd, 429, "TOOMANYREQUESTS",
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
    if (now_us(victim) - victim->since_us < HANDSHAKE_OLD_US)
        return false;
    server->counters.timeouts++;
    server->counters.handshakes_late++;
    conn_close(victim);
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
            refuse_request(conn, 408);
        else
            conn_close(conn);
    }
    accept_again(server);
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
        if (is_receiving(conn) || conn->state == CONN_HANDSHAKE)
            conn_close(conn);
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
        conn_close(server->connections);
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
