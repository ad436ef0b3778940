/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, interfaces and socket options (net.h). */
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Unacknowledged data for so long: the peer is gone (N-3: noticed within 3 s while in use). */
#define USER_TIMEOUT_MS 3000
/* 20 s + 3 probes of 3 s: noticed within 30 s while idle (N-3). */
#define KEEPALIVE_IDLE_S  20
#define KEEPALIVE_EVERY_S 3
#define KEEPALIVE_COUNT   3
/* Unsent bytes in the kernel at which the socket stops being writable: uploads that must go first
 * wait behind no more than this; enough to keep the wire busy between two turns of the loop. */
#define UNSENT_BYTES (512 * 1024)
/* Datagrams come in bursts (a member list, a thousand HAVEs); the kernel may give less. */
#define DATAGRAM_BUFFER_BYTES (1024 * 1024)

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_v4(const struct peer_addr *addr)
{
    return memcmp(addr->ip, v4_prefix, sizeof v4_prefix) == 0;
}

int net_to_sockaddr(const struct peer_addr *addr, bool v6, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (v6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(addr->port)};
        memcpy(&in6.sin6_addr, addr->ip, sizeof addr->ip);
        memcpy(out, &in6, sizeof in6);
        return 0;
    }
    if (!is_v4(addr))
        return E_UNREACHABLE;
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(addr->port)};
    memcpy(&in4.sin_addr, addr->ip + sizeof v4_prefix, sizeof in4.sin_addr);
    memcpy(out, &in4, sizeof in4);
    return 0;
}

int net_from_sockaddr(const struct sockaddr *addr, struct peer_addr *out)
{
    if (addr->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, addr, sizeof in6);
        memcpy(out->ip, &in6.sin6_addr, sizeof out->ip);
        out->port = ntohs(in6.sin6_port);
        return 0;
    }
    if (addr->sa_family == AF_INET) {
        struct sockaddr_in in4;
        memcpy(&in4, addr, sizeof in4);
        memcpy(out->ip, v4_prefix, sizeof v4_prefix);
        memcpy(out->ip + sizeof v4_prefix, &in4.sin_addr, sizeof in4.sin_addr);
        out->port = ntohs(in4.sin_port);
        return 0;
    }
    return E_INVALID;
}

bool net_loopback(const struct peer_addr *addr)
{
    static const uint8_t v6_loopback[16] = {[15] = 1};
    if (is_v4(addr))
        return addr->ip[12] == 127;
    return memcmp(addr->ip, v6_loopback, sizeof v6_loopback) == 0;
}

bool net_unspecified(const struct peer_addr *addr)
{
    static const uint8_t zero[16] = {0};
    if (is_v4(addr))
        return memcmp(addr->ip + sizeof v4_prefix, zero, 4) == 0;
    return memcmp(addr->ip, zero, sizeof zero) == 0;
}

bool net_same_ip(const struct peer_addr *a, const struct peer_addr *b)
{
    return memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

static bool link_local(const struct peer_addr *addr)
{
    if (is_v4(addr))
        return addr->ip[12] == 169 && addr->ip[13] == 254;
    return addr->ip[0] == 0xfe && (addr->ip[1] & 0xc0) == 0x80;
}

/* Calls `see` for every address of every interface until it returns false. */
static void each_address(bool (*see)(void *arg, const struct peer_addr *addr, const char *name),
                         void *arg)
{
    uv_interface_address_t *interfaces = NULL;
    int count = 0;
    if (uv_interface_addresses(&interfaces, &count) != 0)
        return;
    for (int i = 0; i < count; i++) {
        struct peer_addr addr;
        struct sockaddr_storage raw;
        memset(&raw, 0, sizeof raw);
        memcpy(&raw, &interfaces[i].address, sizeof interfaces[i].address);
        if (net_from_sockaddr((const struct sockaddr *)&raw, &addr) != 0)
            continue;
        addr.port = 0;
        if (!see(arg, &addr, interfaces[i].name))
            break;
    }
    uv_free_interface_addresses(interfaces, count);
}

struct search {
    const struct peer_addr *wanted;
    bool found;
    char name[64];
    struct peer_addr v4, v6;
    bool has_v4, has_v6;
};

static bool see_wanted(void *arg, const struct peer_addr *addr, const char *name)
{
    struct search *search = arg;
    if (!net_same_ip(addr, search->wanted))
        return true;
    search->found = true;
    (void)snprintf(search->name, sizeof search->name, "%s", name);
    return false;
}

bool net_is_local(const struct peer_addr *addr)
{
    struct search search = {.wanted = addr};
    each_address(see_wanted, &search);
    return search.found || net_loopback(addr);
}

static bool see_first(void *arg, const struct peer_addr *addr, const char *name)
{
    struct search *search = arg;
    (void)name;
    if (net_loopback(addr) || link_local(addr))
        return true;
    if (is_v4(addr) && !search->has_v4) {
        search->v4 = *addr;
        search->has_v4 = true;
    }
    if (!is_v4(addr) && !search->has_v6) {
        search->v6 = *addr;
        search->has_v6 = true;
    }
    return !search->has_v4;
}

void net_default_address(struct peer_addr *out)
{
    struct search search = {.wanted = NULL};
    each_address(see_first, &search);
    if (search.has_v4) {
        *out = search.v4;
    } else if (search.has_v6) {
        *out = search.v6;
    } else {
        memset(out, 0, sizeof *out);
        memcpy(out->ip, v4_prefix, sizeof v4_prefix);
        out->ip[12] = 127;
        out->ip[15] = 1;
    }
}

uint8_t net_rate_class_of(uint64_t mbit)
{
    uint8_t class_log2 = 0;
    for (; mbit > 1; mbit >>= 1)
        class_log2++;
    return class_log2;
}

uint8_t net_rate_class(const struct peer_addr *addr)
{
    char path[128];
    char text[32] = "";
    struct search search = {.wanted = addr};
    each_address(see_wanted, &search);
    if (!search.found || strchr(search.name, '/') != NULL)
        return 0;
    (void)snprintf(path, sizeof path, "/sys/class/net/%s/speed", search.name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (got <= 0)
        return 0;
    long mbit = strtol(text, NULL, 10); /* -1 when the driver does not know */
    return mbit > 0 ? net_rate_class_of((uint64_t)mbit) : 0;
}

static void option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

void net_tune_link(uv_tcp_t *tcp, const struct peer_addr *remote)
{
    uv_os_fd_t fd = -1;
    if (uv_fileno((const uv_handle_t *)tcp, &fd) != 0)
        return;
    option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
    option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
    option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES);
    if (net_loopback(remote) && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) != 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

void net_readable_at(uv_tcp_t *tcp, uint32_t bytes)
{
    uv_os_fd_t fd = -1;
    if (uv_fileno((const uv_handle_t *)tcp, &fd) == 0)
        option(fd, SOL_SOCKET, SO_RCVLOWAT, (int)bytes);
}

void net_tune_datagrams(uv_udp_t *udp)
{
    uv_os_fd_t fd = -1;
    if (uv_fileno((const uv_handle_t *)udp, &fd) != 0)
        return;
    option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
    option(fd, SOL_SOCKET, SO_RCVBUF, DATAGRAM_BUFFER_BYTES);
    option(fd, SOL_SOCKET, SO_SNDBUF, DATAGRAM_BUFFER_BYTES);
}

void net_dual_stack(uv_udp_t *udp)
{
    uv_os_fd_t fd = -1;
    if (uv_fileno((const uv_handle_t *)udp, &fd) == 0)
        option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
}

uint64_t net_raise_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit raised = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
            limit = raised;
    }
    return (uint64_t)limit.rlim_cur;
}
