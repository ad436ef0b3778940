/* SPDX-License-Identifier: Apache-2.0 */
/* Sending and receiving on a client's connection; see http_socket.h. */
#include "http_socket.h"

#include <errno.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

static int failed(void)
{
    return errno == EAGAIN || errno == EINTR ? E_AGAIN : E_CLOSED;
}

int http_socket_recv(struct http_socket *socket, void *out, size_t out_bytes, size_t *got)
{
    if (socket->tls != NULL)
        return tls_session_recv(socket->tls, out, out_bytes, got);
    ssize_t n = recv(socket->fd, out, out_bytes, MSG_DONTWAIT);
    if (n < 0)
        return failed();
    *got = (size_t)n;
    return n == 0 ? E_CLOSED : 0;
}

bool http_socket_pending(const struct http_socket *socket)
{
    return socket->tls != NULL && tls_session_pending(socket->tls);
}

int http_socket_send(struct http_socket *socket, const uint8_t *bytes, size_t byte_count, bool more,
                     size_t *sent)
{
    if (socket->tls != NULL)
        return tls_session_send(socket->tls, bytes, byte_count, sent);
    ssize_t n =
        send(socket->fd, bytes, byte_count, MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0));
    if (n < 0)
        return failed();
    *sent = (size_t)n;
    return 0;
}

/* As many records as the socket takes of what one read gave. A record that was begun is finished by
 * the next call: it reads the same bytes again, since pieces on disk never change. */
static int send_encrypted(struct http_socket *socket, int fd, uint64_t offset, size_t byte_count,
                          uint8_t *scratch, size_t *sent)
{
    size_t want = byte_count < HTTP_SOCKET_FILE_BYTES ? byte_count : HTTP_SOCKET_FILE_BYTES;
    ssize_t n = pread(fd, scratch, want, (off_t)offset);
    if (n < 0 && errno == EINTR)
        return E_AGAIN;
    if (n <= 0 || (size_t)n < want)
        return E_CLOSED; /* cut short on disk: the client must not get a hole */
    size_t done = 0, one = 0;
    int err = 0;
    while (err == 0 && done < want) {
        err = tls_session_send(socket->tls, scratch + done, want - done, &one);
        done += err == 0 ? one : 0;
    }
    *sent = done;
    return done > 0 && err == E_AGAIN ? 0 : err;
}

int http_socket_send_file(struct http_socket *socket, int fd, uint64_t offset, size_t byte_count,
                          uint8_t *scratch, size_t *sent)
{
    if (socket->tls != NULL)
        return send_encrypted(socket, fd, offset, byte_count, scratch, sent);
    off_t at = (off_t)offset;
    ssize_t n = sendfile(socket->fd, fd, &at, byte_count);
    if (n < 0)
        return failed();
    *sent = (size_t)n;
    return n == 0 ? E_CLOSED : 0;
}

void http_socket_end(struct http_socket *socket)
{
    if (socket->tls != NULL)
        tls_session_end(socket->tls);
    (void)shutdown(socket->fd, SHUT_WR);
}

void http_socket_close(struct http_socket *socket)
{
    tls_session_free(socket->tls);
    (void)close(socket->fd);
}
