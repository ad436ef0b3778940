/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal datadir DIR --owner UID[:GID]`: gives the agent's user its data directory where only root
 * can make one, as on a node whose kubelet makes hostPath directories for root. It touches nothing
 * but the directory itself, and no directory with somebody's files in it.
 */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID_MAX 2147483647UL /* what Kubernetes takes as runAsUser */

/* A number of digits alone, at most ID_MAX, ended by `end`; returns what follows, NULL if none. */
static const char *take_id(const char *text, char end, uid_t *out)
{
    char *after;
    if (*text < '0' || *text > '9')
        return NULL;
    unsigned long value = strtoul(text, &after, 10);
    if (value > ID_MAX || (*after != end && *after != '\0'))
        return NULL;
    *out = (uid_t)value;
    return *after == '\0' ? after : after + 1;
}

static bool take_owner(const char *text, uid_t *uid, gid_t *gid)
{
    const char *rest = take_id(text, ':', uid);
    if (rest == NULL)
        return false;
    *gid = *uid;
    return *rest == '\0' ? rest[-1] != ':' : take_id(rest, '\0', gid) != NULL;
}

/* 1 nothing in it, 0 something, -1 with errno. Takes fd. */
static int is_empty(int fd)
{
    DIR *directory = fdopendir(fd);
    if (directory == NULL) {
        (void)close(fd);
        return -1;
    }
    int found = 0;
    errno = 0;
    for (const struct dirent *entry = readdir(directory); entry != NULL && found == 0;
         entry = readdir(directory))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            found = 1;
    int code = errno;
    (void)closedir(directory);
    errno = code;
    return code != 0 ? -1 : found == 0;
}

/* The directory of this user behind fd becomes the other one's. */
static int give(const struct cli_context *context, const char *path, int fd, uid_t uid, gid_t gid)
{
    int copy = dup(fd);
    int empty = copy < 0 ? -1 : is_empty(copy);
    if (empty == 0)
        return cli_failed(context, "datadir",
                          "%.500s has files of another user in it: remove them (a cache, and the "
                          "node's identity), or run chown -R %u:%u on it",
                          path, (unsigned)uid, (unsigned)gid);
    if (empty < 0 || fchmod(fd, 0700) != 0 || fchown(fd, uid, gid) != 0)
        return cli_failed(context, "datadir", "cannot give %.500s to user %u: %s", path,
                          (unsigned)uid, strerror(errno));
    return CLI_OK;
}

static int prepare(const struct cli_context *context, const char *path, uid_t uid, gid_t gid)
{
    struct stat info;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return cli_failed(context, "datadir", "cannot make %.500s: %s", path, strerror(errno));
    /* Looked at without opening: a directory that is right already need not be ours to read. */
    if (lstat(path, &info) != 0)
        return cli_failed(context, "datadir", "cannot look at %.500s: %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return cli_failed(context, "datadir", "%.500s is not a directory", path);
    if (info.st_uid == uid && (info.st_mode & 0077) == 0)
        return CLI_OK;
    if (info.st_uid == uid)
        return cli_failed(context, "datadir", "%.500s is open to others; run chmod 0700 on it",
                          path);
    if (info.st_uid != geteuid())
        return cli_failed(context, "datadir",
                          "%.500s belongs to user %u: remove it, or let the agent run as that user",
                          path, (unsigned)info.st_uid);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return cli_failed(context, "datadir", "cannot open %.500s: %s", path, strerror(errno));
    int code = give(context, path, fd, uid, gid);
    (void)close(fd);
    return code;
}

int cli_datadir(const struct cli_context *context, int argc, char **argv)
{
    const char *path = NULL;
    const char *owner = NULL;
    uid_t uid = 0;
    gid_t gid = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--owner") == 0 && i + 1 < argc)
            owner = argv[++i];
        else if (strncmp(argv[i], "--owner=", 8) == 0)
            owner = argv[i] + 8;
        else if (argv[i][0] == '/' && path == NULL)
            path = argv[i];
        else
            return cli_usage(context, "datadir", "unknown argument \"%s\"", argv[i]);
    }
    if (path == NULL || owner == NULL)
        return cli_usage(context, "datadir", "say a directory, by an absolute path, and --owner");
    if (!take_owner(owner, &uid, &gid))
        return cli_usage(context, "datadir", "--owner takes numbers, UID or UID:GID");
    return prepare(context, path, uid, gid);
}
