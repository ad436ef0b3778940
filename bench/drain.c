/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP client that costs as little as one can: one GET over IPv4, the body read in large pieces
 * and thrown away. Prints one JSON object. Used by the benchmarks, so that what is measured is the
 * server.
 *
 *   drain ADDRESS PORT PATH [times]
 *
 * The requests go one after the other over one connection. Exit 1 unless every answer was a 200
 * with a Content-Length and exactly so many bytes.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES     (512 * 1024)
#define HEAD_BYTES_MAX 16384

struct answer {
    uint64_t bytes;
    double first_byte_s, whole_s;
};

static uint8_t buffer[READ_BYTES];

static double now_s(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static int fail(const char *why)
{
    (void)fprintf(stderr, "drain: %s\n", why);
    return -1;
}

static int connect_to(const char *address, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
        return fail("bad address");
    if (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0)
        return fail("cannot connect");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* Value of Content-Length in a head that ends with a zero; 0 if there is none. */
static uint64_t content_length(const char *head)
{
    const char *at = strcasestr(head, "\r\ncontent-length:");
    return at == NULL ? 0 : strtoull(at + strlen("\r\ncontent-length:"), NULL, 10);
}

/* Reads the head; *body is how many bytes of the body came with it. 0 or -1. */
static int read_head(int fd, uint64_t *length, uint64_t *body)
{
    char head[HEAD_BYTES_MAX + 1];
    size_t used = 0;
    const char *end = NULL;
    while (end == NULL) {
        ssize_t got = used < HEAD_BYTES_MAX ? recv(fd, head + used, HEAD_BYTES_MAX - used, 0) : 0;
        if (got <= 0)
            return fail("no whole head");
        used += (size_t)got;
        head[used] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    *body = used - (size_t)(end + 4 - head);
    *length = content_length(head);
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0 || *length == 0)
        return fail("not a 200 with a length");
    return 0;
}

static int get(int fd, const char *address, const char *path, struct answer *out)
{
    char request[4096];
    uint64_t length, done;
    int bytes =
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, address);
    double start_s = now_s();
    if (bytes < 0 || (size_t)bytes >= sizeof request ||
        send(fd, request, (size_t)bytes, MSG_NOSIGNAL) != bytes)
        return fail("cannot send");
    if (read_head(fd, &length, &done) != 0)
        return -1;
    out->first_byte_s = now_s() - start_s;
    while (done < length) {
        uint64_t left = length - done;
        ssize_t got = recv(fd, buffer, left < READ_BYTES ? left : READ_BYTES, 0);
        if (got <= 0)
            return fail("the body ended early");
        done += (uint64_t)got;
    }
    if (done != length)
        return fail("more than the body");
    out->bytes += length;
    out->whole_s = now_s() - start_s;
    return 0;
}

int main(int argc, char **argv)
{
    struct answer answer = {0};
    struct rusage usage;
    unsigned long times = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
    if (argc < 4)
        return fail("usage: drain ADDRESS PORT PATH [times]") != 0;
    memset(buffer, 1, sizeof buffer); /* touched before the clock runs */
    int fd = connect_to(argv[1], argv[2]);
    if (fd < 0)
        return 1;
    double start_s = now_s();
    for (unsigned long i = 0; i < times; i++) {
        if (get(fd, argv[1], argv[3], &answer) != 0)
            return 1;
    }
    double seconds = now_s() - start_s;
    (void)getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    (void)printf("{\"bytes\": %llu, \"seconds\": %.6f, \"first_byte_s\": %.6f, \"cpu_s\": %.3f}\n",
                 (unsigned long long)answer.bytes, seconds, answer.first_byte_s, cpu_s);
    (void)close(fd);
    return 0;
}
