/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes in on a connection of the HTTP server: TLS handshakes, requests and their bodies.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "bytes.h"
#include "http_conn.h"
#include "log.h"

void http_conn_refuse(struct exchange *conn, int status)
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
        .peer = &conn->peer, .request = &conn->request, .arrived_us = http_conn_now_us(conn)};
    http_conn_enter(conn, CONN_HANDLING);
    http_conn_poll(conn, UV_DISCONNECT);
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
        http_conn_refuse(conn, status);
        return true;
    }
    memmove(conn->in, conn->in + used, conn->in_used - used);
    conn->in_used -= used;
    if (conn->body == NULL)
        hand_over(conn);
    else
        http_conn_enter(conn, CONN_BODY);
    return true;
}

/* Reads on behind what was read of the next request. True if there is more than before. */
static bool conn_fill(struct exchange *conn)
{
    size_t got = 0;
    if (conn->in_used == sizeof conn->in) {
        http_conn_refuse(conn, 431);
        return false;
    }
    int err = http_socket_recv(&conn->socket, conn->in + conn->in_used,
                               sizeof conn->in - conn->in_used, &got);
    if (err != 0 && err != E_AGAIN)
        http_conn_close(conn);
    conn->in_used += got;
    return err == 0;
}

/* Takes what requests there are. One answered at once comes back here before its handler has
 * returned: the loop goes on then, so that a packet full of requests costs no stack. */
void http_conn_next(struct exchange *conn)
{
    if (conn->taking)
        return;
    conn->taking = true;
    while (http_conn_receiving(conn) && ((conn->in_used > 0 && take_request(conn)) ||
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
        http_conn_close(conn);
}

static void conn_readable(struct exchange *conn)
{
    if (!http_conn_receiving(conn))
        conn_discard(conn);
    else if (conn_fill(conn))
        http_conn_next(conn);
}

/* ---- TLS ---- */

void http_conn_say_plainly(int fd, int status, const char *code, const char *message)
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
        http_conn_poll(conn, wants_write ? UV_WRITABLE : UV_READABLE);
        return;
    }
    conn->server->counters.handshakes_running--;
    if (err == 0) {
        http_conn_enter(conn, CONN_READING);
        http_conn_poll(conn, UV_READABLE);
        http_conn_next(conn);
        return;
    }
    if (err == E_MALFORMED)
        http_conn_say_plainly(conn->socket.fd, 400, "UNSUPPORTED",
                              "this port speaks TLS: use https");
    http_conn_drain(conn); /* not closed at once: the alert would be lost */
}

void http_conn_on_poll(uv_poll_t *handle, int status, int events)
{
    struct exchange *conn = handle->data;
    if (status < 0) {
        http_conn_close(conn);
        return;
    }
    if (conn->state == CONN_HANDSHAKE) {
        handshake_step(conn);
        return;
    }
    /* No client of a mirror closes only its half: a FIN in an exchange means it gave up. */
    if ((events & UV_DISCONNECT) != 0 && !http_conn_receiving(conn) &&
        conn->state != CONN_DRAINING) {
        http_conn_close(conn);
        return;
    }
    if ((events & UV_WRITABLE) != 0 && conn->state == CONN_SENDING) {
        http_conn_send(conn);
        return;
    }
    if ((events & UV_READABLE) != 0)
        conn_readable(conn);
}
