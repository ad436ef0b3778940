/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket's file, its owner and its peers; see control_socket.h. */
#include "control_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "bytes.h"
#include "control_internal.h"

const char *control_path(const struct config *config, char out[CONFIG_PATH_BYTES + 16])
{
    const char *set = config->listen_control.text;
    (void)snprintf(out, CONFIG_PATH_BYTES + 16, "%s%s",
                   set[0] != '\0' ? set : config->data_dir.text,
                   set[0] != '\0' ? "" : "/" CONTROL_FILE);
    return out;
}

int control__error_of(int code)
{
    switch (code) {
    case ENOENT:
    case ENOTDIR:
        return E_NOT_FOUND;
    case ECONNREFUSED:
        return E_REFUSED;
    case EACCES:
    case EPERM:
    case EROFS:
        return E_DENIED;
    case EADDRINUSE:
        return E_IN_USE;
    case ENOSPC:
        return E_NO_SPACE;
    default:
        return E_IO;
    }
}

int control__place_open(const char *path, struct control_place *out)
{
    char directory[CONFIG_PATH_BYTES + 16];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash[1] == '\0' ||
        text_copy_n(directory, sizeof directory, path, (size_t)(slash - path)) != 0)
        return E_TOO_LARGE;
    out->name = slash + 1;
    out->directory = open(directory[0] == '\0' ? "/" : directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (out->directory < 0)
        return control__error_of(errno);
    out->addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    int bytes = snprintf(out->addr.sun_path, sizeof out->addr.sun_path, "/proc/self/fd/%d/%s",
                         out->directory, out->name);
    if (bytes > 0 && (size_t)bytes < sizeof out->addr.sun_path)
        return 0;
    (void)close(out->directory);
    return E_TOO_LARGE;
}

int control__connect(const struct control_place *place, int *out)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return E_IO;
    if (connect(fd, (const struct sockaddr *)&place->addr, sizeof place->addr) == 0) {
        *out = fd;
        return 0;
    }
    int err = errno == EAGAIN ? E_TIMEOUT : control__error_of(errno);
    (void)close(fd);
    return err;
}

/* Makes sure that nothing is at the name: what a dead agent left is removed. */
static int make_way(const struct control_place *place)
{
    struct stat info;
    int fd = -1;
    if (fstatat(place->directory, place->name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : control__error_of(errno);
    if (!S_ISSOCK(info.st_mode))
        return E_EXISTS;
    int err = control__connect(place, &fd);
    if (err == 0)
        (void)close(fd);
    if (err == 0 || err == E_TIMEOUT) /* a full backlog is somebody's, too */
        return E_IN_USE;
    if (err != E_REFUSED)
        return err;
    return unlinkat(place->directory, place->name, 0) == 0 ? 0 : control__error_of(errno);
}

/* Nobody gets in between: a socket takes connections from listen() on, and then has its mode. */
static int bind_and_listen(const struct control_place *place, int *out)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return E_IO;
    int err = 0;
    if (bind(fd, (const struct sockaddr *)&place->addr, sizeof place->addr) != 0) {
        err = control__error_of(errno);
    } else if (fchmodat(place->directory, place->name, 0600, 0) != 0 ||
               listen(fd, CONTROL_CONNECTIONS_MAX) != 0) {
        err = control__error_of(errno);
        (void)unlinkat(place->directory, place->name, 0);
    }
    if (err != 0)
        (void)close(fd);
    else
        *out = fd;
    return err;
}

static const char *listen_trouble(int err)
{
    switch (err) {
    case E_IN_USE:
        return "another agent answers there: stop it, or set listen.control to another place";
    case E_EXISTS:
        return "there is something that is no socket: move it away, or set listen.control";
    case E_NOT_FOUND:
        return "its directory does not exist: make it, or set listen.control";
    case E_DENIED:
        return "its directory may not be written to by this user: change that, or set "
               "listen.control";
    case E_TOO_LARGE:
        return "the path or its last part is too long: set listen.control to a shorter one";
    default:
        return "a unix socket cannot be made there: set listen.control to a place on a local file "
               "system";
    }
}

int control_listen(const char *path, int *fd, struct config_error *error)
{
    struct control_place place;
    int err = control__place_open(path, &place);
    if (err == 0) {
        err = make_way(&place);
        if (err == 0)
            err = bind_and_listen(&place, fd);
        (void)close(place.directory);
    }
    if (err != 0)
        (void)config_fail(error, "listen.control: %.500s: %s", path, listen_trouble(err));
    return err;
}

bool control_peer_allowed(int fd)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || bytes != sizeof peer)
        return false;
    return peer.uid == 0 || peer.uid == geteuid();
}

/* Whose a file is cannot be seen from its descriptor: who listens there is asked. */
void control_remove(const char *path, int fd)
{
    struct control_place place;
    int other = -1;
    if (control__place_open(path, &place) != 0)
        return;
    /* Closed to newcomers first; if somebody still answers, the name is another agent's by now. */
    (void)shutdown(fd, SHUT_RDWR);
    int err = control__connect(&place, &other);
    if (err == 0)
        (void)close(other);
    else if (err == E_REFUSED)
        (void)unlinkat(place.directory, place.name, 0);
    (void)close(place.directory);
}
