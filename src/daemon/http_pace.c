/* SPDX-License-Identifier: Apache-2.0 */
/* What a client has read; see http_pace.h. */
#include "http_pace.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "socket_addr.h"

static uint64_t queued_in(int fd)
{
    int queued = 0;
    return ioctl(fd, SIOCOUTQ, &queued) == 0 && queued > 0 ? (uint64_t)queued : 0;
}

void http_pace_begin(struct http_pace *pace, int fd, uint64_t now_us)
{
    *pace =
        (struct http_pace){.looked_us = now_us, .credit_us = HTTP_PACE_US, .queued = queued_in(fd)};
}

/* ---- a client on this host ---- */

struct diag_request {
    struct nlmsghdr head;
    struct inet_diag_req_v2 ask;
};

/* The two ends as the client's own socket has them. False: not of TCP. */
static bool ends_of(int fd, struct diag_request *out)
{
    struct sockaddr_storage here, there;
    struct peer_addr source, destination;
    socklen_t here_bytes = sizeof here, there_bytes = sizeof there;
    if (getsockname(fd, (struct sockaddr *)&here, &here_bytes) != 0 ||
        getpeername(fd, (struct sockaddr *)&there, &there_bytes) != 0 ||
        (here.ss_family != AF_INET && here.ss_family != AF_INET6))
        return false;
    socket_addr_from(&there, &source);
    socket_addr_from(&here, &destination);
    bool v4 = peer_addr_is_v4(&source);
    struct inet_diag_sockid *id = &out->ask.id;
    size_t bytes = v4 ? 4 : 16, at = 16 - bytes;
    out->ask.sdiag_family = v4 ? AF_INET : AF_INET6;
    out->ask.sdiag_protocol = IPPROTO_TCP;
    out->ask.idiag_states = UINT32_MAX;
    memcpy(id->idiag_src, source.ip + at, bytes);
    memcpy(id->idiag_dst, destination.ip + at, bytes);
    id->idiag_sport = htons(source.port);
    id->idiag_dport = htons(destination.port);
    id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    return true;
}

/* The kernel answers before sendto returns. */
static bool diag_ask(const struct diag_request *request, struct inet_diag_msg *out)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    union {
        struct nlmsghdr head;
        uint8_t bytes[1024];
    } answer;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return false;
    ssize_t got = -1;
    if (sendto(fd, request, sizeof *request, 0, (const struct sockaddr *)&kernel, sizeof kernel) ==
        (ssize_t)sizeof *request)
        got = recv(fd, &answer, sizeof answer, 0);
    (void)close(fd);
    if (got < (ssize_t)(NLMSG_HDRLEN + sizeof *out) ||
        answer.head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
        return false;
    memcpy(out, answer.bytes + NLMSG_HDRLEN, sizeof *out);
    return true;
}

/* Bytes that the client's kernel holds for it. False: it has another kernel, or none that tells. */
static bool unread_by(int fd, uint64_t *out)
{
    struct diag_request request;
    struct inet_diag_msg found;
    memset(&request, 0, sizeof request);
    request.head = (struct nlmsghdr){
        .nlmsg_len = sizeof request,
        .nlmsg_type = SOCK_DIAG_BY_FAMILY,
        .nlmsg_flags = NLM_F_REQUEST,
    };
    if (!ends_of(fd, &request) || !diag_ask(&request, &found))
        return false;
    /* For want of the pair itself a listener of that port is found. */
    if (found.id.idiag_sport != request.ask.id.idiag_sport ||
        found.id.idiag_dport != request.ask.id.idiag_dport)
        return false;
    *out = found.idiag_rqueue;
    return true;
}

/* ---- any other ---- */

/* What was sent within its window is not confirmed: its host is gone, whatever its program does. */
static bool is_gone(int fd)
{
    struct tcp_info info;
    socklen_t bytes = sizeof info;
    memset(&info, 0, sizeof info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && info.tcpi_unacked > 0 &&
           info.tcpi_last_ack_recv * 1000ull >= HTTP_PACE_US;
}

/* ---- credit ---- */

/* `read` bytes of the answer were read by now, as far as can be known. The first look has nothing
 * to compare with: the client may still have had the answer before in its buffer. */
static void earn(struct http_pace *pace, int64_t read)
{
    int64_t before = pace->looked ? pace->read : 0;
    uint64_t gain = read > before ? (uint64_t)(read - before) : 0;
    if (read > before || !pace->looked)
        pace->read = read;
    pace->looked = true;
    pace->credit_us += gain >= HTTP_PACE_MOST_US / HTTP_PACE_US * HTTP_PACE_BYTES
                           ? HTTP_PACE_MOST_US
                           : gain * HTTP_PACE_US / HTTP_PACE_BYTES;
    if (pace->credit_us > HTTP_PACE_MOST_US)
        pace->credit_us = HTTP_PACE_MOST_US;
}

bool http_pace_slow(struct http_pace *pace, int fd, bool waits, uint64_t now_us)
{
    uint64_t queued = queued_in(fd), had = pace->queued + pace->given, unread = 0;
    uint64_t taken = had > queued ? had - queued : 0;
    uint64_t age_us = now_us - pace->looked_us;
    pace->looked_us = now_us;
    if (!waits)
        return false;
    bool seen = unread_by(fd, &unread);
    earn(pace, (int64_t)taken - (int64_t)unread);
    if (!seen && is_gone(fd))
        return true;
    if (pace->credit_us < age_us)
        return true;
    pace->credit_us -= age_us;
    return false;
}
