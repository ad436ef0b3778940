/* SPDX-License-Identifier: Apache-2.0 */
/* One question or order over the control socket, blocking and with a deadline; see
 * control_socket.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "blocking.h"
#include "control_internal.h"
#include "loop.h"

#define HEAD_BYTES_MAX 4096
#define READ_BYTES     (64U * 1024)

/* `body` NULL: a GET. */
static int send_request(int fd, const char *target, const char *body, uint64_t deadline_ms)
{
    char text[CONFIG_PATH_BYTES + 4096], length[96] = "";
    if (body != NULL)
        (void)snprintf(length, sizeof length,
                       "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    int bytes = snprintf(text, sizeof text,
                         "%s %s HTTP/1.1\r\nHost: shoal\r\nConnection: close\r\n%s\r\n%s",
                         body == NULL ? "GET" : "POST", target, length, body == NULL ? "" : body);
    if (bytes < 0 || (size_t)bytes >= sizeof text)
        return E_TOO_LARGE;
    int err = blocking_send(fd, text, (size_t)bytes, deadline_ms);
    return err == E_CLOSED ? E_DENIED : err; /* closed before a word was said */
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
        size_t got = 0;
        err = blocking_recv(fd, bytes + used, room - used - 1, deadline_ms, &got);
        used += got;
        if (err == E_CLOSED) {
            err = 0;
            break;
        }
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

static int ask(const char *path, const char *target, const char *body, uint32_t timeout_ms,
               struct control_answer *out)
{
    struct control_place place;
    uint64_t deadline_ms = blocking_now_ms() + timeout_ms;
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
    err = send_request(fd, target, body, deadline_ms);
    if (err == 0)
        err = read_all(fd, deadline_ms, &text, &bytes);
    (void)close(fd);
    if (err == 0)
        err = take_answer(text, bytes, out);
    if (err != 0)
        (void)loop_alloc(NULL, text, 0);
    return err;
}

int control_get(const char *path, const char *target, uint32_t timeout_ms,
                struct control_answer *out)
{
    return ask(path, target, NULL, timeout_ms, out);
}

int control_post(const char *path, const char *target, const char *body, uint32_t timeout_ms,
                 struct control_answer *out)
{
    return ask(path, target, body, timeout_ms, out);
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
