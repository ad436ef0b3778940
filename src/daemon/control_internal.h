/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the control socket: control_socket.c (the agent's side) and
 * control_client.c (who asks). */
#ifndef SHOAL_DAEMON_CONTROL_INTERNAL_H
#define SHOAL_DAEMON_CONTROL_INTERNAL_H

#include <sys/un.h>

#include "control_socket.h"

/* A name in an open directory, and a short address for it. */
struct control_place {
    int directory;    /* O_PATH; closed by who opened it */
    const char *name; /* borrowed from the path */
    struct sockaddr_un addr;
};
/* Opens the directory of an absolute path. 0; E_NOT_FOUND, E_DENIED, E_TOO_LARGE, E_IO: nothing is
 * open. */
MUST_USE int control__place_open(const char *path, struct control_place *out);
/* A non-blocking connection. 0; E_NOT_FOUND, E_REFUSED (nobody listens), E_DENIED, E_TIMEOUT (the
 * backlog is full), E_IO. */
MUST_USE int control__connect(const struct control_place *place, int *out);
/* errno as E_*. */
int control__error_of(int code);

#endif
