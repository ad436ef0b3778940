/* SPDX-License-Identifier: Apache-2.0 */
/* One GET /healthz over a blocking socket with a deadline; see health_probe.h. */
#include "health_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "net.h"

/* Our answer has some 150 bytes. */
#define ANSWER_BYTES_MAX 2048
#define PROBE_TIMEOUT_MS 2000
#define PROBE_EVERY_MS   200

static uint64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* 0 when the socket is ready, E_TIMEOUT at the deadline. */
static int await(int fd, short events, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = now_ms();
        if (now >= deadline_ms)
            return E_TIMEOUT;
        struct pollfd one = {.fd = fd, .events = events};
        int ready = poll(&one, 1, (int)(deadline_ms - now));
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return E_UNREACHABLE;
    }
}

static int open_socket(const struct peer_addr *addr, uint64_t deadline_ms, int *out)
{
    struct sockaddr_storage name;
    bool v6 = !peer_addr_is_v4(addr);
    if (net_to_sockaddr(addr, v6, &name) != 0)
        return E_UNREACHABLE;
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return E_UNREACHABLE;
    socklen_t bytes = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int err = 0;
    int code = 0;
    socklen_t code_bytes = sizeof code;
    if (connect(fd, (const struct sockaddr *)&name, bytes) != 0)
        err = errno == EINPROGRESS ? await(fd, POLLOUT, deadline_ms) : E_UNREACHABLE;
    if (err == 0 && (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &code_bytes) != 0 || code != 0))
        err = E_UNREACHABLE;
    if (err != 0)
        (void)close(fd);
    else
        *out = fd;
    return err;
}

/* Up to the end of the head; it has a zero behind it. */
static int read_head(int fd, uint64_t deadline_ms, char out[ANSWER_BYTES_MAX])
{
    size_t got = 0;
    out[0] = '\0';
    while (strstr(out, "\r\n\r\n") == NULL) {
        if (got == ANSWER_BYTES_MAX - 1)
            return E_PROTOCOL;
        int err = await(fd, POLLIN, deadline_ms);
        if (err != 0)
            return err;
        ssize_t n = recv(fd, out + got, ANSWER_BYTES_MAX - 1 - got, 0);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return E_PROTOCOL;
        got += (size_t)n;
        out[got] = '\0';
    }
    return 0;
}

static bool is_ours(const char *head)
{
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0)
        return false;
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, HEALTH_HEADER ":", sizeof HEALTH_HEADER) == 0)
            return true;
    return false;
}

int health_probe(const struct peer_addr *addr, uint32_t timeout_ms)
{
    char host[PEER_ADDR_TEXT_BYTES];
    char request[128 + PEER_ADDR_TEXT_BYTES];
    char head[ANSWER_BYTES_MAX];
    int fd = -1;
    uint64_t deadline_ms = now_ms() + timeout_ms;
    int err = open_socket(addr, deadline_ms, &fd);
    if (err != 0)
        return err;
    int bytes = snprintf(request, sizeof request,
                         "GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
                         peer_addr_text(addr, host));
    if (send(fd, request, (size_t)bytes, MSG_NOSIGNAL) != bytes) /* far below any send buffer */
        err = E_PROTOCOL;
    if (err == 0)
        err = read_head(fd, deadline_ms, head);
    if (err == 0 && !is_ours(head))
        err = E_PROTOCOL;
    (void)close(fd);
    return err;
}

int health_await(const struct peer_addr *addr, uint64_t wait_ms)
{
    uint64_t end = now_ms() + wait_ms;
    for (;;) {
        int err = health_probe(addr, PROBE_TIMEOUT_MS);
        if (err == 0 || err == E_PROTOCOL || now_ms() >= end)
            return err;
        (void)poll(NULL, 0, PROBE_EVERY_MS);
    }
}
