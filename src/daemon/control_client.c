/* SPDX-License-Identifier: Apache-2.0 */
/* One question over the control socket, blocking and with a deadline; see control_socket.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "control_internal.h"
#include "loop.h"

#define HEAD_BYTES_MAX 4096
#define READ_BYTES     (64U * 1024)

static uint64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

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
            return E_IO;
    }
}

static int send_request(int fd, const char *target, uint64_t deadline_ms)
{
    char text[CONFIG_PATH_BYTES + 2048];
    int bytes = snprintf(text, sizeof text,
                         "GET %s HTTP/1.1\r\nHost: shoal\r\nConnection: close\r\n\r\n", target);
    if (bytes < 0 || (size_t)bytes >= sizeof text)
        return E_TOO_LARGE;
    for (size_t sent = 0; sent < (size_t)bytes;) {
        ssize_t n = send(fd, text + sent, (size_t)bytes - sent, MSG_NOSIGNAL);
        if (n > 0) {
            sent += (size_t)n;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return errno == EPIPE || errno == ECONNRESET ? E_DENIED : E_IO;
        int err = await(fd, POLLOUT, deadline_ms);
        if (err != 0)
            return err;
    }
    return 0;
}

/* Reads until the agent closes. */
static int read_all(int fd, uint64_t deadline_ms, char **out, size_t *out_bytes)
{
    size_t used = 0, room = 0;
    char *bytes = NULL;
    int err = 0;
    while (err == 0) {
        if (room - used < 2) { /* a zero goes behind it */
            char *more = loop_alloc(NULL, bytes, room + READ_BYTES);
            if (more == NULL) {
                err = E_NO_MEMORY;
                break;
            }
            bytes = more;
            room += READ_BYTES;
        }
        ssize_t n = recv(fd, bytes + used, room - used - 1, 0);
        if (n == 0)
            break;
        if (n < 0)
            err = errno == EAGAIN || errno == EINTR ? await(fd, POLLIN, deadline_ms) : E_IO;
        else
            used += (size_t)n;
        if (used > CONTROL_ANSWER_BYTES_MAX + HEAD_BYTES_MAX)
            err = E_TOO_LARGE;
    }
    if (err != 0) {
        (void)loop_alloc(NULL, bytes, 0);
        return err;
    }
    bytes[used] = '\0';
    *out = bytes;
    *out_bytes = used;
    return 0;
}

/* The body goes to the front of the memory that holds all of it. */
static int take_answer(char *text, size_t bytes, struct control_answer *out)
{
    if (bytes == 0)
        return E_DENIED; /* closed without a word: not our user's */
    const char *end = strstr(text, "\r\n\r\n");
    if (end == NULL || strncmp(text, "HTTP/1.1 ", 9) != 0)
        return E_PROTOCOL;
    long status = strtol(text + 9, NULL, 10);
    size_t length = SIZE_MAX;
    for (const char *line = strstr(text, "\r\n"); line != NULL && line < end;
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "Content-Length:", 15) == 0)
            length = (size_t)strtoull(line + 17, NULL, 10);
    }
    size_t head = (size_t)(end - text) + 4;
    if (status < 100 || status > 599 || length != bytes - head)
        return E_PROTOCOL; /* cut short, or not ours */
    memmove(text, text + head, length + 1);
    *out = (struct control_answer){.status = (int)status, .body = text, .body_bytes = length};
    return 0;
}

int control_get(const char *path, const char *target, uint32_t timeout_ms,
                struct control_answer *out)
{
    struct control_place place;
    uint64_t deadline_ms = now_ms() + timeout_ms;
    char *text = NULL;
    size_t bytes = 0;
    int fd = -1;
    int err = control__place_open(path, &place);
    if (err != 0)
        return err;
    err = control__connect(&place, &fd);
    (void)close(place.directory);
    if (err != 0)
        return err;
    err = send_request(fd, target, deadline_ms);
    if (err == 0)
        err = read_all(fd, deadline_ms, &text, &bytes);
    (void)close(fd);
    if (err == 0)
        err = take_answer(text, bytes, out);
    if (err != 0)
        (void)loop_alloc(NULL, text, 0);
    return err;
}

void control_answer_free(struct control_answer *answer)
{
    answer->body = loop_alloc(NULL, answer->body, 0);
}

const char *control_error_text(int err)
{
    switch (err) {
    case E_NOT_FOUND:
        return "no agent runs with this configuration: start it, or say --config as it was started";
    case E_REFUSED:
        return "the agent that made this socket is gone: start it again";
    case E_DENIED:
        return "only root and the agent's own user may ask: run this as one of them";
    case E_TIMEOUT:
        return "the agent does not answer in time: it is stopped or hangs, see its log";
    case E_PROTOCOL:
        return "something that is not our agent answers there";
    default:
        return err_text(err);
    }
}
