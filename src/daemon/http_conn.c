/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one connection of the HTTP server: states, polling, and its end.
 */
#include "http_conn.h"

#include <string.h>

uint64_t http_conn_now_us(const struct exchange *conn)
{
    return loop_now_us(conn->server->config.loop);
}

static void conn_closed(uv_handle_t *handle)
{
    struct exchange *conn = handle->data;
    http_socket_close(&conn->socket);
    http_server_accept_again(conn->server);
    (void)loop_alloc(NULL, conn->out, 0);
    (void)loop_alloc(NULL, conn->body, 0);
    explicit_bzero(&conn->request, sizeof conn->request); /* holds Authorization */
    explicit_bzero(conn->in, sizeof conn->in);
    (void)loop_alloc(NULL, conn, 0);
}

void http_conn_drop_body(struct exchange *conn)
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

void http_conn_request_over(struct exchange *conn)
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

void http_conn_close(struct exchange *conn)
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
    http_conn_drop_body(conn);
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
        http_conn_request_over(conn);
}

void http_conn_poll(struct exchange *conn, int events)
{
    if (conn->events == events || uv_is_closing((uv_handle_t *)&conn->poll))
        return;
    conn->events = events;
    if (events == 0)
        (void)uv_poll_stop(&conn->poll);
    else
        (void)uv_poll_start(&conn->poll, events, http_conn_on_poll);
}

void http_conn_enter(struct exchange *conn, enum conn_state state)
{
    conn->state = state;
    conn->since_us = http_conn_now_us(conn);
}

void http_conn_drain(struct exchange *conn)
{
    http_socket_end(&conn->socket);
    http_conn_enter(conn, CONN_DRAINING);
    http_conn_poll(conn, UV_READABLE);
}
