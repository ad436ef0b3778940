/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses; see socket_addr.h. */
#include "socket_addr.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"

void socket_addr_from(const struct sockaddr_storage *from, struct peer_addr *out)
{
    *out = (struct peer_addr){0};
    if (from->ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, from, sizeof v4);
        out->ip[10] = out->ip[11] = 0xff;
        memcpy(&out->ip[12], &v4.sin_addr, 4);
        out->port = ntohs(v4.sin_port);
    } else if (from->ss_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, from, sizeof v6);
        memcpy(out->ip, &v6.sin6_addr, sizeof out->ip);
        out->port = ntohs(v6.sin6_port);
    }
}

socklen_t socket_addr_to(const struct peer_addr *addr, bool as_v6, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (peer_addr_is_v4(addr) && !as_v6) {
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(addr->port)};
        memcpy(&v4.sin_addr, &addr->ip[12], 4);
        memcpy(out, &v4, sizeof v4);
        return sizeof v4;
    }
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(addr->port)};
    memcpy(&v6.sin6_addr, addr->ip, sizeof addr->ip);
    memcpy(out, &v6, sizeof v6);
    return sizeof v6;
}

static int error_of(int code)
{
    if (code == EADDRINUSE)
        return E_IN_USE;
    if (code == EADDRNOTAVAIL)
        return E_NOT_FOUND;
    return code == EACCES || code == EPERM ? E_DENIED : E_IO;
}

static int bind_socket(const struct peer_addr *addr, int type, int *fd)
{
    struct sockaddr_storage storage;
    socklen_t bytes = socket_addr_to(addr, false, &storage);
    int on = 1, off = 0;
    int made = socket(storage.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0)
        return error_of(errno);
    if (type == SOCK_STREAM)
        (void)setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (storage.ss_family == AF_INET6)
        (void)setsockopt(made, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(made, (struct sockaddr *)&storage, bytes) != 0) {
        int err = error_of(errno);
        (void)close(made);
        return err;
    }
    *fd = made;
    return 0;
}

int socket_listen(const struct peer_addr *addr, int type, int *fd, struct peer_addr *bound)
{
    static const uint8_t any[16] = {0};
    *fd = -1;
    int err = bind_socket(addr, type, fd);
    if ((err == E_IO || err == E_NOT_FOUND) &&
        memcmp(addr->ip, any, sizeof any) == 0) { /* no IPv6 here */
        struct peer_addr v4 = {.port = addr->port};
        v4.ip[10] = v4.ip[11] = 0xff;
        err = bind_socket(&v4, type, fd);
    }
    if (err != 0)
        return err;
    struct sockaddr_storage storage;
    socklen_t bytes = sizeof storage;
    if (getsockname(*fd, (struct sockaddr *)&storage, &bytes) == 0)
        socket_addr_from(&storage, bound);
    return 0;
}
