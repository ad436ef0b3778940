/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and directories of the runtime's configuration, and of our state: read within limits,
 * written atomically, never through a link, never over something else than was read.
 */
#ifndef SHOAL_RUNTIME_TREE_H
#define SHOAL_RUNTIME_TREE_H

#include <sys/types.h>

#include "pool.h"

/* What a path holds, or that there is nothing. */
struct image {
    bool exists;
    struct span text; /* from the pool, with a zero behind it; "" if there is nothing */
    mode_t mode;      /* permission bits */
    uid_t uid;
    gid_t gid;
    /* To see whether it is still the same file. */
    dev_t dev;
    ino_t ino;
    struct timespec changed;
};

/* How a file may be when it is only looked at, or when it is to be replaced. */
enum tree_use {
    TREE_LOOK = 1, /* links are followed */
    TREE_EDIT, /* a link, or a file of several names, is refused: it is somebody's arrangement */
};

/* 0 if `path`, as far as it exists, lies below `root` ("" is everywhere): a link of the host, read
 * from a container, would lead to the container's own files. E_REFUSED, E_IO. */
MUST_USE int tree_inside(const char *root, const char *path, struct runtime_error *error);
/* Reads a file of at most RUNTIME_FILE_BYTES_MAX; nothing there is no error. 0; E_REFUSED (a link,
 * a device, several names), E_TOO_LARGE, E_DENIED, E_IO, E_NO_MEMORY with `error`. */
MUST_USE int tree_read(struct pool *pool, const char *path, enum tree_use use, struct image *out,
                       struct runtime_error *error);

/* True in *exists if `path` is a directory itself, false if there is nothing. 0; E_REFUSED (a link,
 * not a directory, writable for everybody), E_DENIED, E_IO. */
MUST_USE int tree_directory(const char *path, bool *exists, struct runtime_error *error);
/* Makes one directory with this mode, synced into its parent. 0; also if it is there; E_DENIED,
 * E_NO_SPACE, E_IO. */
MUST_USE int tree_make_directory(const char *path, mode_t mode, struct runtime_error *error);
/* Names of the entries of a directory that are not "." or "..", sorted by bytes; at most `max`. 0
 * with *count, also 0 if there is no such directory; E_TOO_LARGE, E_DENIED, E_IO, E_NO_MEMORY. */
MUST_USE int tree_list(struct pool *pool, const char *path, const char **out, unsigned max,
                       unsigned *count, struct runtime_error *error);

/*
 * Puts `text` in place of `old`, which must still be what `path` holds: beside it, with its mode,
 * owner and extended attributes (SELinux, ACLs; none that vouch for bytes), synced, renamed,
 * directory synced. `fresh` gives mode and owner for a file that was not there; NULL: 0644, ours.
 * What was left by a kill is removed first. 0; E_AGAIN (something else is there now), E_DENIED
 * (also if owner or attributes cannot be kept), E_NO_SPACE, E_IO; the old file is untouched then.
 */
MUST_USE int tree_write(const char *path, const struct span *text, const struct image *old,
                        const struct image *fresh, struct runtime_error *error);
/* Removes what a kill in tree_write may have left beside `path`. */
void tree_clean(const char *path);
/* Removes the file that `old` is. 0; E_AGAIN, E_DENIED, E_IO. */
MUST_USE int tree_remove(const char *path, const struct image *old, struct runtime_error *error);
/* Removes a directory if it is empty; says whether it is gone. */
bool tree_remove_directory(const char *path);

#endif
