/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: where `shoal status`, `explain` and `doctor` ask the agent of their node. A
 * unix socket of mode 0600, so that file permissions decide who may ask; each side's kernel-proven
 * user (SO_PEERCRED) must be root or our own as well, since a descriptor may be handed on. What is
 * spoken there is HTTP/1.1 by the server of the client ports (http_server.h), with its deadlines;
 * `curl --unix-socket` works. Answers have at most CONTROL_ANSWER_BYTES_MAX.
 *
 * The file of an agent that died is replaced; one behind which somebody listens is refused; what is
 * no socket is left alone. Paths longer than a socket address holds work: they are opened by their
 * directory's descriptor.
 */
#ifndef SHOAL_DAEMON_CONTROL_SOCKET_H
#define SHOAL_DAEMON_CONTROL_SOCKET_H

#include "config.h"

/* Below what http_server copies for one answer; 2,000 members have some 300 KiB. */
#define CONTROL_ANSWER_BYTES_MAX (4U * 1024 * 1024)
#define CONTROL_CONNECTIONS_MAX  16
#define CONTROL_FILE             "control.sock"

/* Where the socket of this configuration is: listen.control, or in dataDir. `out` is returned. */
const char *control_path(const struct config *config, char out[CONFIG_PATH_BYTES + 16]);

/* Makes the socket, mode 0600 before anybody can connect, and listens; *fd is non-blocking. 0;
 * E_IN_USE (somebody listens there), E_EXISTS (no socket, or no directory), E_DENIED, E_TOO_LARGE,
 * E_IO with one line in `error`. */
MUST_USE int control_listen(const char *path, int *fd, struct config_error *error);
/* The other side is root or our own user. False as well if the kernel does not say. */
bool control_peer_allowed(int fd);
/* Ends the listening of `fd`, and removes the file unless another agent listens there by now. Does
 * not close it. */
void control_remove(const char *path, int fd);

/* ---- asking: blocking calls of the command line ---- */

struct control_answer {
    int status; /* of HTTP */
    char *body; /* with a zero behind it; give back with control_answer_free */
    size_t body_bytes;
};
/*
 * One GET. `target` begins with '/' and has no space. 0 with an answer of any status; E_NOT_FOUND
 * (no socket: no agent runs with this configuration), E_REFUSED (its agent is gone), E_DENIED (not
 * our user's), E_TIMEOUT (not done within timeout_ms), E_TOO_LARGE, E_PROTOCOL, E_NO_MEMORY, E_IO.
 */
MUST_USE int control_get(const char *path, const char *target, uint32_t timeout_ms,
                         struct control_answer *out);
/* One POST with `body` (JSON); the rest as control_get. E_TOO_LARGE: the body, too. */
MUST_USE int control_post(const char *path, const char *target, const char *body,
                          uint32_t timeout_ms, struct control_answer *out);
void control_answer_free(struct control_answer *answer);
/* What such an error means and what to do, for people; static storage. */
const char *control_error_text(int err);

#endif
