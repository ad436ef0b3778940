/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting with poll(2); see blocking.h. */
#include "blocking.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "net.h"

uint64_t blocking_now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int blocking_await(int fd, short events, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = blocking_now_ms();
        if (now >= deadline_ms)
            return E_TIMEOUT;
        struct pollfd one = {.fd = fd, .events = events};
        int ready = poll(&one, 1, (int)(deadline_ms - now));
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return E_IO;
    }
}

static int connect_error(int code)
{
    if (code == 0)
        return 0;
    return code == ECONNREFUSED ? E_REFUSED : code == ETIMEDOUT ? E_TIMEOUT : E_UNREACHABLE;
}

int blocking_connect(const struct peer_addr *addr, uint64_t deadline_ms, int *out)
{
    struct sockaddr_storage name;
    bool v6 = !peer_addr_is_v4(addr);
    int code = 0;
    socklen_t code_bytes = sizeof code;
    if (net_to_sockaddr(addr, v6, &name) != 0)
        return E_UNREACHABLE;
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return E_UNREACHABLE;
    socklen_t bytes = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int err = 0;
    if (connect(fd, (const struct sockaddr *)&name, bytes) != 0)
        err =
            errno == EINPROGRESS ? blocking_await(fd, POLLOUT, deadline_ms) : connect_error(errno);
    if (err == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &code_bytes) != 0)
        err = E_UNREACHABLE;
    if (err == 0)
        err = connect_error(code);
    if (err != 0)
        (void)close(fd);
    else
        *out = fd;
    return err;
}

int blocking_send(int fd, const void *bytes, size_t byte_count, uint64_t deadline_ms)
{
    const char *at = bytes;
    while (byte_count > 0) {
        ssize_t n = send(fd, at, byte_count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            byte_count -= (size_t)n;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return E_CLOSED;
        int err = blocking_await(fd, POLLOUT, deadline_ms);
        if (err != 0)
            return err == E_TIMEOUT ? err : E_CLOSED;
    }
    return 0;
}

int blocking_recv(int fd, void *out, size_t out_bytes, uint64_t deadline_ms, size_t *got)
{
    for (;;) {
        ssize_t n = recv(fd, out, out_bytes, MSG_DONTWAIT);
        if (n > 0) {
            *got = (size_t)n;
            return 0;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return E_CLOSED;
        int err = blocking_await(fd, POLLIN, deadline_ms);
        if (err != 0)
            return err == E_TIMEOUT ? err : E_CLOSED;
    }
}
