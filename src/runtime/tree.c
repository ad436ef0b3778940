/* SPDX-License-Identifier: Apache-2.0 */
/* Careful reading and atomic writing of small files that are not ours; see tree.h. */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "bytes.h"

#define NEW_FILE_MODE 0644
/* Names of all extended attributes of a file, and one value: ext4 and xfs allow 64 KiB. */
#define XATTR_BYTES_MAX 65536

static int from_errno(int code)
{
    switch (code) {
    case EACCES:
    case EPERM:
    case EROFS:
        return E_DENIED;
    case ENOSPC:
    case EDQUOT:
        return E_NO_SPACE;
    case ELOOP:
        return E_REFUSED;
    default:
        return E_IO;
    }
}

static int failed(struct runtime_error *error, const char *what, const char *path)
{
    int code = errno;
    return runtime_fail(error, from_errno(code), "cannot %s %.600s: %s", what, path,
                        code == ELOOP ? "it is a symbolic link" : strerror(code));
}

/* ---- looking ---- */

/* All bytes up to the end; more than `size` are E_AGAIN: somebody is writing. */
static int read_whole(int fd, char *out, size_t size)
{
    size_t got = 0;
    while (got <= size) {
        ssize_t n = read(fd, out + got, size + 1 - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? E_IO : got == size ? 0 : E_AGAIN;
        got += (size_t)n;
    }
    return E_AGAIN;
}

static int acceptable(const struct stat *info, const char *path, enum tree_use use,
                      struct runtime_error *error)
{
    if (!S_ISREG(info->st_mode))
        return runtime_fail(error, E_REFUSED, "%.600s is not a regular file", path);
    if (use == TREE_EDIT && info->st_nlink > 1)
        return runtime_fail(error, E_REFUSED,
                            "%.600s has %u names (hard links); writing would part them", path,
                            (unsigned)info->st_nlink);
    if (use == TREE_EDIT && (info->st_mode & (S_ISUID | S_ISGID | S_ISVTX)) != 0)
        return runtime_fail(error, E_REFUSED, "%.600s has special mode bits", path);
    if (info->st_size < 0 || info->st_size > RUNTIME_FILE_BYTES_MAX)
        return runtime_fail(error, E_TOO_LARGE, "%.600s is larger than %d bytes", path,
                            RUNTIME_FILE_BYTES_MAX);
    return 0;
}

static void take(const struct stat *info, struct image *out)
{
    out->exists = true;
    out->mode = info->st_mode & 0777;
    out->uid = info->st_uid;
    out->gid = info->st_gid;
    out->dev = info->st_dev;
    out->ino = info->st_ino;
    out->changed = info->st_ctim;
}

/* realpath of the longest part of `path` that exists; a link to nothing does not count as such. */
static int real_part(const char *path, char out[PATH_MAX], struct runtime_error *error)
{
    char part[RUNTIME_PATH_BYTES];
    struct stat info;
    if (text_copy(part, sizeof part, path) != 0)
        return runtime_fail(error, E_INVALID, "%.300s... is too long", path);
    while (realpath(part, out) == NULL) {
        char *slash = strrchr(part, '/');
        if (errno != ENOENT || slash == NULL || slash == part)
            return failed(error, "follow", part);
        if (lstat(part, &info) == 0)
            return runtime_fail(error, E_REFUSED, "%.600s is a link to nothing", part);
        *slash = '\0';
    }
    return 0;
}

int tree_inside(const char *root, const char *path, struct runtime_error *error)
{
    char real_root[PATH_MAX];
    char real[PATH_MAX];
    if (root[0] == '\0')
        return 0;
    if (realpath(root, real_root) == NULL)
        return failed(error, "follow", root);
    int err = real_part(path, real, error);
    if (err != 0)
        return err;
    size_t bytes = strcmp(real_root, "/") == 0 ? 0 : strlen(real_root);
    if (strncmp(real, real_root, bytes) != 0 || (real[bytes] != '/' && real[bytes] != '\0'))
        return runtime_fail(error, E_REFUSED,
                            "%.400s leads out of %.300s by a link; name the file it means", path,
                            root);
    return 0;
}

int tree_read(struct pool *pool, const char *path, enum tree_use use, struct image *out,
              struct runtime_error *error)
{
    struct stat info;
    *out = (struct image){.text = {"", 0}};
    int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = open(path, use == TREE_EDIT ? flags | O_NOFOLLOW : flags);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return failed(error, "open", path);
    int err =
        fstat(fd, &info) != 0 ? failed(error, "read", path) : acceptable(&info, path, use, error);
    size_t size = err == 0 ? (size_t)info.st_size : 0;
    char *text = err == 0 ? pool_alloc(pool, size + 1) : NULL;
    if (err == 0 && text == NULL)
        err = runtime_fail(error, E_NO_MEMORY, "%s", err_text(E_NO_MEMORY));
    if (err == 0 && (err = read_whole(fd, text, size)) != 0)
        (void)runtime_fail(error, err, "cannot read %.600s: %s", path,
                           err == E_AGAIN ? "it changes right now" : err_text(err));
    (void)close(fd);
    if (err != 0)
        return err;
    text[size] = '\0';
    take(&info, out);
    out->text = (struct span){text, size};
    return 0;
}

int tree_directory(const char *path, bool *exists, struct runtime_error *error)
{
    struct stat info;
    *exists = false;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ? 0 : failed(error, "look at", path);
    if (!S_ISDIR(info.st_mode))
        return runtime_fail(error, E_REFUSED, "%.600s is %s", path,
                            S_ISLNK(info.st_mode) ? "a symbolic link" : "not a directory");
    if ((info.st_mode & S_IWOTH) != 0)
        return runtime_fail(error, E_REFUSED, "%.600s can be written by everybody", path);
    *exists = true;
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

int tree_list(struct pool *pool, const char *path, const char **out, unsigned max, unsigned *count,
              struct runtime_error *error)
{
    *count = 0;
    DIR *directory = opendir(path);
    if (directory == NULL)
        return errno == ENOENT ? 0 : failed(error, "list", path);
    int err = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL && err == 0;
         entry = readdir(directory)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (*count == max)
            err = runtime_fail(error, E_TOO_LARGE, "%.600s has more than %u entries", path, max);
        else if ((out[*count] = pool_copy(pool, entry->d_name, strlen(entry->d_name))) == NULL)
            err = runtime_fail(error, E_NO_MEMORY, "%s", err_text(E_NO_MEMORY));
        else
            (*count)++;
    }
    (void)closedir(directory);
    qsort(out, *count, sizeof *out, by_bytes);
    return err;
}

/* ---- changing ---- */

/* The directory of `path` in `out`. */
static const char *parent(const char *path, char out[RUNTIME_PATH_BYTES])
{
    const char *slash = strrchr(path, '/');
    size_t bytes = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (bytes == 0 || bytes >= RUNTIME_PATH_BYTES)
        return ".";
    memcpy(out, path, bytes);
    out[bytes] = '\0';
    return out;
}

/* After a rename the directory is synced, or a power loss may bring the old name back (DSK-2). */
static int sync_parent(const char *path, struct runtime_error *error)
{
    char buffer[RUNTIME_PATH_BYTES];
    const char *directory = parent(path, buffer);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed(error, "open", directory);
    int err = fsync(fd) != 0 ? failed(error, "sync", directory) : 0;
    (void)close(fd);
    return err;
}

int tree_make_directory(const char *path, mode_t mode, struct runtime_error *error)
{
    if (mkdir(path, mode) != 0)
        return errno == EEXIST ? 0 : failed(error, "make", path);
    if (chmod(path, mode) != 0) /* whatever the umask is */
        return failed(error, "set the mode of", path);
    return sync_parent(path, error);
}

/* 0 if the path still holds what was read. */
static int still(const char *path, const struct image *old, struct runtime_error *error)
{
    struct stat info;
    bool exists = lstat(path, &info) == 0;
    if (!exists && errno != ENOENT)
        return failed(error, "look at", path);
    bool same = exists == old->exists;
    if (same && exists)
        same = info.st_dev == old->dev && info.st_ino == old->ino &&
               info.st_ctim.tv_sec == old->changed.tv_sec &&
               info.st_ctim.tv_nsec == old->changed.tv_nsec;
    if (!same)
        return runtime_fail(error, E_AGAIN,
                            "%.600s was changed by somebody else just now; run "
                            "again",
                            path);
    return 0;
}

static int write_whole(int fd, const struct span *text)
{
    size_t done = 0;
    while (done < text->bytes) {
        ssize_t n = write(fd, text->at + done, text->bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

/* Attributes that vouch for the bytes of the old file: on other bytes they would make the kernel
 * refuse the file (IMA), or give rights to what nobody meant. */
static bool is_of_bytes(const char *name)
{
    static const char *const names[] = {"security.ima", "security.evm", "security.capability"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* One extended attribute; what the new file has already, by its directory's rules, is fine. */
static int copy_xattr(int from, int to, const char *name, char *value)
{
    char there[256];
    ssize_t bytes = fgetxattr(from, name, value, XATTR_BYTES_MAX);
    if (bytes < 0)
        return errno == ENODATA ? 0 : -1;
    if (fgetxattr(to, name, there, sizeof there) == bytes &&
        memcmp(there, value, (size_t)bytes) == 0)
        return 0;
    return fsetxattr(to, name, value, (size_t)bytes, 0);
}

static int copy_xattrs(const char *path, int to)
{
    char names[XATTR_BYTES_MAX];
    char value[XATTR_BYTES_MAX];
    int from = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (from < 0)
        return -1;
    ssize_t bytes = flistxattr(from, names, sizeof names);
    int result = bytes < 0 && errno != ENOTSUP ? -1 : 0;
    for (ssize_t at = 0; result == 0 && at < bytes; at += (ssize_t)strlen(names + at) + 1)
        result = is_of_bytes(names + at) ? 0 : copy_xattr(from, to, names + at, value);
    int code = errno;
    (void)close(from);
    errno = code;
    return result;
}

/* Owner, mode and attributes of the file that is replaced, or of `fresh`. */
static int dress(int fd, const char *path, const struct image *old, const struct image *fresh)
{
    const struct image *like = fresh != NULL ? fresh : old;
    struct stat info;
    if (fstat(fd, &info) != 0)
        return -1;
    if (fresh == NULL && !old->exists)
        return fchmod(fd, NEW_FILE_MODE);
    if ((info.st_uid != like->uid || info.st_gid != like->gid) &&
        fchown(fd, like->uid, like->gid) != 0)
        return -1;
    if (fchmod(fd, like->mode) != 0)
        return -1;
    return old->exists ? copy_xattrs(path, fd) : 0;
}

/* Over what `old` says is there; over nothing only if there still is nothing. */
static int put_in_place(const char *temporary, const char *path, const struct image *old)
{
    if (!old->exists) {
        if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno != EINVAL && errno != ENOSYS)
            return -1;
    }
    return rename(temporary, path);
}

/* The name beside `path` under which a file grows; no runtime reads it: it ends neither in .toml
 * nor in .conf nor in .json. False if `path` is too long or not absolute. */
static bool temporary_name(const char *path, char out[RUNTIME_PATH_BYTES + 16])
{
    const char *name = strrchr(path, '/');
    if (path[0] != '/' || strlen(path) >= RUNTIME_PATH_BYTES)
        return false;
    (void)snprintf(out, RUNTIME_PATH_BYTES + 16, "%.*s/.%s.shoal", (int)(name - path), path,
                   name + 1);
    return true;
}

void tree_clean(const char *path)
{
    char temporary[RUNTIME_PATH_BYTES + 16];
    if (temporary_name(path, temporary))
        (void)unlink(temporary);
}

int tree_write(const char *path, const struct span *text, const struct image *old,
               const struct image *fresh, struct runtime_error *error)
{
    char temporary[RUNTIME_PATH_BYTES + 16];
    if (!temporary_name(path, temporary))
        return runtime_fail(error, E_INVALID, "%.600s is no absolute path of less than %d bytes",
                            path, RUNTIME_PATH_BYTES);
    if (unlink(temporary) != 0 && errno != ENOENT)
        return failed(error, "remove", temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return failed(error, "create", temporary);
    int err = write_whole(fd, text) != 0 ? failed(error, "write", temporary) : 0;
    if (err == 0 && dress(fd, path, old, fresh) != 0)
        err = failed(error, "keep owner, mode and attributes of", path);
    if (err == 0 && fsync(fd) != 0)
        err = failed(error, "sync", temporary);
    if (close(fd) != 0 && err == 0)
        err = failed(error, "write", temporary);
    if (err == 0)
        err = still(path, old, error);
    if (err == 0 && put_in_place(temporary, path, old) != 0)
        err = errno == EEXIST
                  ? runtime_fail(error, E_AGAIN, "%.600s has just appeared; run again", path)
                  : failed(error, "replace", path);
    if (err != 0) {
        (void)unlink(temporary);
        return err;
    }
    return sync_parent(path, error);
}

int tree_remove(const char *path, const struct image *old, struct runtime_error *error)
{
    int err = still(path, old, error);
    tree_clean(path);
    if (err == 0 && unlink(path) != 0)
        err = failed(error, "remove", path);
    return err != 0 ? err : sync_parent(path, error);
}

bool tree_remove_directory(const char *path)
{
    struct runtime_error ignored;
    if (rmdir(path) != 0)
        return errno == ENOENT;
    return sync_parent(path, &ignored) == 0;
}
