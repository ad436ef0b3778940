/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's connection as the HTTP server uses it: plain, or inside TLS. One place decides which,
 * so that the server's states, deadlines and limits are the same for both ports.
 */
#ifndef SHOAL_DAEMON_HTTP_SOCKET_H
#define SHOAL_DAEMON_HTTP_SOCKET_H

#include "tls_server.h"

struct http_socket {
    int fd;                  /* non-blocking, owned */
    struct tls_session *tls; /* owned; NULL: plain */
};

/* Bytes of a file that one encrypted write reads at most: several records for one read. */
#define HTTP_SOCKET_FILE_BYTES (64 * 1024)

/* Reads what is there. 0 with *got > 0; E_AGAIN; E_CLOSED: the client is gone. */
MUST_USE int http_socket_recv(struct http_socket *socket, void *out, size_t out_bytes, size_t *got);
/* More was read from the socket than recv gave out: polling would not tell. */
bool http_socket_pending(const struct http_socket *socket);
/* Sends some of the bytes; `more` follows at once. 0 with *sent > 0; E_AGAIN: the socket is full,
 * come again with the same bytes; E_CLOSED. */
MUST_USE int http_socket_send(struct http_socket *socket, const uint8_t *bytes, size_t byte_count,
                              bool more, size_t *sent);
/* The same for a part of a file: without a copy when plain; else by way of `scratch`, which has
 * HTTP_SOCKET_FILE_BYTES. */
MUST_USE int http_socket_send_file(struct http_socket *socket, int fd, uint64_t offset,
                                   size_t byte_count, uint8_t *scratch, size_t *sent);
/* Our side is done: the client is told, the write side shut. */
void http_socket_end(struct http_socket *socket);
/* Closes descriptor and session. */
void http_socket_close(struct http_socket *socket);

#endif
