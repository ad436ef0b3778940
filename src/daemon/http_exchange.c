/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of the HTTP server: heads, bodies from memory, files and sources; see http_server.h.
 * Sendfile and partial sends need no copy and no queue.
 */
#include <string.h>

#include "bytes.h"
#include "http_conn.h"
#include "log.h"

/* Most bytes of one span, and of one connection before others get their turn. */
#define SPAN_BYTES_MAX (1024 * 1024)
#define TURN_BYTES_MAX (4 * 1024 * 1024)
#define BODY_COPY_MAX  (8 * 1024 * 1024)

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
    http_conn_enter(conn, CONN_SENDING);
    /* A client that asks on before it has read may still have the answer before to take. */
    http_pace_begin(&conn->pace, conn->socket.fd, conn->since_us);
    http_conn_send(conn);
}

static void answer_failed(struct exchange *conn)
{
    conn->gone = NULL;
    conn->outcome.status = 0;
    conn->outcome.length = 0;
    http_conn_drop_body(conn);
    conn->body_left = 0;
    http_conn_drain(conn);
    http_conn_request_over(conn);
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
        http_conn_drop_body(conn);
    start_answer(conn);
}

void exchange_wake(struct exchange *conn)
{
    if (conn->state == CONN_SENDING && !conn->sending)
        http_conn_send(conn);
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
    http_conn_drop_body(conn);
    if (conn->close_after || conn->server->draining) {
        http_conn_drain(conn);
    } else {
        http_conn_enter(conn, CONN_READING);
        http_conn_poll(conn, UV_READABLE);
    }
    http_conn_request_over(conn);
}

/* The source cannot go on: the client sees a clean, short end and asks for the rest. */
static void answer_cut(struct exchange *conn)
{
    conn->server->counters.cut++;
    http_conn_drop_body(conn);
    http_conn_drain(conn);
    http_conn_request_over(conn);
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
        http_conn_poll(conn, UV_DISCONNECT);
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
        http_conn_close(conn);
        return -1;
    }
    http_conn_poll(conn, UV_WRITABLE | UV_DISCONNECT);
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

void http_conn_send(struct exchange *conn)
{
    uint64_t start_bytes = conn->server->counters.bytes_out;
    conn->sending = true;
    int go = 1;
    while (go == 1 && conn->server->counters.bytes_out - start_bytes < TURN_BYTES_MAX)
        go = send_step(conn);
    conn->sending = false;
    if (go == 1)
        http_conn_poll(conn, UV_WRITABLE | UV_DISCONNECT);
    else if (go == -1 && conn->state == CONN_READING)
        http_conn_next(conn);
}
