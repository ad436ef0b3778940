/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the HTTP server, inside: what http_server.c (listening, deadlines),
 * http_conn.c (its life), http_receive.c (requests and handshakes in) and http_exchange.c (answers
 * out) share. Everything runs on the server's loop.
 */
#ifndef SHOAL_HTTP_CONN_H
#define SHOAL_HTTP_CONN_H

#include "http_pace.h"
#include "http_server.h"
#include "http_socket.h"

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

/* ---- http_conn.c ---- */
uint64_t http_conn_now_us(const struct exchange *conn);
/* Changes the state and starts its clock. */
void http_conn_enter(struct exchange *conn, enum conn_state state);
/* Polls for UV_* events; 0: for none. Nothing on a connection that is closing. */
void http_conn_poll(struct exchange *conn, int events);
/* Our side is done: the client reads what is on its way, then closes (CLIENTS §1.2). */
void http_conn_drain(struct exchange *conn);
/* Ends it now, in any state: a handler is told, the request ends; freed when its handle is closed.
 */
void http_conn_close(struct exchange *conn);
/* Gives back what is left of the answer's source. */
void http_conn_drop_body(struct exchange *conn);
/* A request is over, however it ended: counted, told to who asked for it. */
void http_conn_request_over(struct exchange *conn);
/* It waits for a request's head or body. */
static inline bool http_conn_receiving(const struct exchange *conn)
{
    return conn->state == CONN_READING || conn->state == CONN_BODY;
}

/* ---- http_receive.c ---- */
/* What poll reports of a connection. */
void http_conn_on_poll(uv_poll_t *handle, int status, int events);
/* Takes what requests there are, and hands each over. */
void http_conn_next(struct exchange *conn);
/* Answers a request that cannot be read, and ends the connection behind the answer. */
void http_conn_refuse(struct exchange *conn, int status);
/* Sends an error in plain text; a courtesy: whether it arrives or not, the connection ends. */
void http_conn_say_plainly(int fd, int status, const char *code, const char *message);

/* ---- http_exchange.c ---- */
/* Sends on, until the socket or the source has had enough or another's turn has come. */
void http_conn_send(struct exchange *conn);

/* ---- http_server.c ---- */
/* A descriptor was given back, or a second has passed: accepts on if that was stopped for lack. */
void http_server_accept_again(struct server *server);

#endif
