/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 server on the loop: listeners, connections, deadlines and limits of HTTP-4, responses
 * from memory or from a source that is asked for spans as the client takes them. Used by the client
 * ports, plain and TLS, and by the admin port. Bytes go out with send() or sendfile(), inside TLS
 * through the cipher alone (http_socket.h). A TLS connection has 5 s for its handshake.
 * A connection is never reset while it has unsent or unread bytes: its write side is shut down and
 * the rest drained (CLIENTS §1.2).
 */
#ifndef SHOAL_DAEMON_HTTP_SERVER_H
#define SHOAL_DAEMON_HTTP_SERVER_H

#include "blob.h"
#include "http.h"
#include "loop.h"
#include "tls_server.h"

struct server;
struct exchange; /* one request and its response */

/* Where a response's body comes from. */
struct body_source {
    void *arg;
    /* The next span of at most max_bytes; given back with blob_chunk_done when sent. 0; E_AGAIN:
       exchange_wake will be called; E_CLOSED: all was given; E_*: the body ends here, cut. */
    int (*next)(void *arg, uint32_t max_bytes, struct blob_chunk *out);
    /* The exchange is over, whole or not; exactly once. */
    void (*close)(void *arg);
    /* About once a second while the body is under way, however it moves; must not touch the
       exchange. NULL: not wanted. */
    void (*tick)(void *arg);
};

/* How a request went. */
struct exchange_outcome {
    const struct peer_addr *peer;
    const struct http_request *request;
    int status;                  /* 0: there was no answer, its client had gone */
    uint64_t length, body_bytes; /* of the answer's body, and what of it was sent */
    uint64_t arrived_us;         /* the request was whole, in time of the loop */
};

struct server_config {
    struct loop *loop;
    struct peer_addr listen;
    const char *name; /* for log lines: "client", "tls", "admin" */
    struct tls *tls;  /* borrowed; NULL: plain */
    /* A control socket (control_socket.h) instead of `listen`: root and our own user only, all of
       them one address. Borrowed; NULL: TCP. */
    const char *control;
    uint32_t connections_max;
    uint32_t connections_per_address;
    /* POST with a body of at most so many bytes is taken (exchange_body); 0: it is refused, as on
       every port for clients (HTTP-2). */
    size_t body_max;
    void *arg;
    /* A request is complete. The handler answers now or later with exchange_respond or
       exchange_stream, exactly once. */
    void (*handle)(void *arg, struct exchange *exchange);
    /* Told of each request that is over; NULL: nobody. Everything is borrowed for the call, and no
       exchange may be used in it. */
    void (*ended)(struct loop *loop, const struct exchange_outcome *outcome);
};

struct server_counters {
    uint64_t accepted, refused, requests, malformed, timeouts, cut, bytes_out;
    uint64_t accepts_failed;  /* no descriptor or kernel memory: a pause (RES-3) */
    uint64_t handshakes_late; /* TLS: silent too long, or gave way to others */
    uint32_t connections, requests_running, handshakes_running;
};

/* Binds and listens. 0; E_IN_USE, E_DENIED, E_IO with one line in error->text. */
MUST_USE int server_new(const struct server_config *config, struct server **out,
                        struct config_error *error);
void server_free(struct server *server); /* after the loop has run out */
/* The address really bound (port 0 in the configuration). */
const struct peer_addr *server_addr(const struct server *server);
void server_counters(const struct server *server, struct server_counters *out);

/* The request's head; valid until the exchange is answered or its client is gone. */
const struct http_request *exchange_request(const struct exchange *exchange);
/* The body of a POST, with a zero behind it; "" if there is none. Valid as long as the request. */
const char *exchange_body(const struct exchange *exchange, size_t *bytes);
/* When its request was whole, in time of the loop; only until it is answered. */
uint64_t exchange_arrived_us(const struct exchange *exchange);
/* Address of the client. */
const struct peer_addr *exchange_peer(const struct exchange *exchange);

#define RESPONSE_HEADERS_MAX 16
struct response {
    int status;
    struct fetch_header headers[RESPONSE_HEADERS_MAX]; /* borrowed for the call */
    unsigned header_count;
};
/* Adds a header; a NULL value or a full table adds nothing. */
void response_add(struct response *response, const char *name, const char *value);

/* Of an answer to HEAD: no Content-Length is sent, since nobody knows the body's. */
#define RESPONSE_LENGTH_UNKNOWN SIZE_MAX
/* Answers with a body from memory, copied; for HEAD the length is told and the body left out. */
void exchange_respond(struct exchange *exchange, const struct response *response, const void *body,
                      size_t body_bytes);
/* An OCI error body (http_oci_error) with its status. */
void exchange_error(struct exchange *exchange, int status, const char *code, const char *message);
/* Answers with `length` bytes from a source, which is TAKEN. For HEAD the source is closed at once.
 */
void exchange_stream(struct exchange *exchange, const struct response *response, uint64_t length,
                     const struct body_source *source);
/* The source has more, or has failed. */
void exchange_wake(struct exchange *exchange);
/* Called when the client goes away before the answer; at most one. The handler must then not answer
 * any more. */
void exchange_on_gone(struct exchange *exchange, void (*gone)(void *arg), void *arg);
/* Called once when the exchange is over: its answer is out or cut, or its client is gone (after
 * `gone` then); at most one. The exchange must not be used in it. */
void exchange_on_end(struct exchange *exchange, void (*end)(void *arg), void *arg);

#endif
