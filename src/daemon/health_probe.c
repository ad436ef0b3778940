/* SPDX-License-Identifier: Apache-2.0 */
/* One GET /healthz over a blocking socket with a deadline; see health_probe.h. */
#include "health_probe.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blocking.h"
#include "bytes.h"

/* Our answer has some 150 bytes. */
#define ANSWER_BYTES_MAX 2048
#define PROBE_TIMEOUT_MS 2000
#define PROBE_EVERY_MS   200

/* Up to the end of the head; it has a zero behind it. */
static int read_head(int fd, uint64_t deadline_ms, char out[ANSWER_BYTES_MAX])
{
    size_t got = 0;
    out[0] = '\0';
    while (strstr(out, "\r\n\r\n") == NULL) {
        if (got == ANSWER_BYTES_MAX - 1)
            return E_PROTOCOL;
        size_t n = 0;
        int err = blocking_recv(fd, out + got, ANSWER_BYTES_MAX - 1 - got, deadline_ms, &n);
        if (err != 0)
            return err == E_TIMEOUT ? err : E_PROTOCOL;
        got += n;
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
    uint64_t deadline_ms = blocking_now_ms() + timeout_ms;
    int err = blocking_connect(addr, deadline_ms, &fd);
    if (err != 0)
        return err == E_TIMEOUT ? err : E_UNREACHABLE;
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
    uint64_t end = blocking_now_ms() + wait_ms;
    for (;;) {
        int err = health_probe(addr, PROBE_TIMEOUT_MS);
        if (err == 0 || err == E_PROTOCOL || blocking_now_ms() >= end)
            return err;
        (void)poll(NULL, 0, PROBE_EVERY_MS);
    }
}
