/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing of small files that matter: secrets, deny list, identity, configuration. The
 * only file of the daemon's lower half, besides the data directory's set-up, that opens files.
 */
#include "secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "loop.h"

#define SECRET_FILE_BYTES_MAX 4096
#define DENY_FILE_BYTES_MAX   (1024 * 1024)

static int errno_error(int code)
{
    switch (code) {
    case ENOENT:
    case ENOTDIR:
        return E_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return E_DENIED;
    case ENOSPC:
    case EDQUOT:
        return E_NO_SPACE;
    case EEXIST:
        return E_EXISTS;
    default:
        return E_IO;
    }
}

/* Fills out[0..bytes) from fd; *got may be less at the end of the file. */
static int read_all(int fd, char *out, size_t bytes, size_t *got)
{
    *got = 0;
    while (*got < bytes) {
        ssize_t n = read(fd, out + *got, bytes - *got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno_error(errno);
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return 0;
}

static int write_all(int fd, const char *bytes, size_t byte_count)
{
    while (byte_count > 0) {
        ssize_t n = write(fd, bytes, byte_count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno_error(errno);
        bytes += n;
        byte_count -= (size_t)n;
    }
    return 0;
}

int file_read_whole(const char *path, size_t max, char **out, size_t *out_bytes)
{
    struct stat info;
    char *text = NULL;
    size_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno_error(errno);
    int err = 0;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        err = E_IO;
        goto out;
    }
    if (info.st_size < 0 || (uint64_t)info.st_size > max) {
        err = E_TOO_LARGE;
        goto out;
    }
    text = loop_alloc(NULL, NULL, (size_t)info.st_size + 1);
    if (text == NULL) {
        err = E_NO_MEMORY;
        goto out;
    }
    err = read_all(fd, text, (size_t)info.st_size, &got);
    if (err != 0)
        goto out;
    text[got] = '\0';
    *out = text;
    *out_bytes = got;
    text = NULL;
out:
    (void)loop_alloc(NULL, text, 0);
    (void)close(fd);
    return err;
}

/* After a rename the directory must be synced, or power loss may bring the old name back. */
static int directory_sync(const char *path)
{
    char copy[CONFIG_PATH_BYTES + 8];
    if (text_copy(copy, sizeof copy, path) != 0)
        return E_TOO_LARGE;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno_error(errno);
    int err = fsync(fd) != 0 ? E_IO : 0;
    (void)close(fd);
    return err;
}

int file_write_atomic(const char *path, unsigned mode, const void *bytes, size_t byte_count)
{
    char temporary[CONFIG_PATH_BYTES + 8];
    int written = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (written < 0 || (size_t)written >= sizeof temporary)
        return E_TOO_LARGE;
    (void)unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    if (fd < 0)
        return errno_error(errno);
    int err = write_all(fd, bytes, byte_count);
    if (err == 0 && fsync(fd) != 0)
        err = errno_error(errno);
    if (close(fd) != 0 && err == 0)
        err = errno_error(errno);
    if (err == 0 && rename(temporary, path) != 0)
        err = errno_error(errno);
    if (err != 0) {
        (void)unlink(temporary);
        return err;
    }
    return directory_sync(path);
}

uint64_t file_stamp(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return 0;
    uint64_t stamp = (uint64_t)info.st_mtim.tv_sec * 1000000007ULL;
    stamp ^= (uint64_t)info.st_mtim.tv_nsec * 998244353ULL;
    stamp ^= (uint64_t)info.st_ino * 2654435761ULL;
    stamp ^= (uint64_t)info.st_size;
    return stamp | 1; /* never the value for "absent" */
}

/* The rule of secret_file_check on an open file, so that check and read see the same one. */
static int mode_check(const struct stat *info, const char *path, struct config_error *error)
{
    unsigned mode = (unsigned)info->st_mode & 0777U;
    unsigned forbidden = info->st_uid == geteuid() ? 0077U : 0027U;
    if (!S_ISREG(info->st_mode))
        return config_fail(error, "%.300s is not a regular file", path);
    if ((mode & forbidden) != 0)
        return config_fail(error,
                           "%.300s has mode %04o: others can read it; run: chmod 0400 %.300s", path,
                           mode, path);
    return 0;
}

int secret_file_check(const char *path, struct config_error *error)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return config_fail(error, "cannot open %.300s: %s", path, strerror(errno));
    return mode_check(&info, path, error);
}

int secret_file_text(const char *path, size_t max, char **out, size_t *out_bytes,
                     struct config_error *error)
{
    struct stat info;
    size_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return config_fail(error, "cannot open %.300s: %s", path, strerror(errno));
    int err = fstat(fd, &info) != 0 ? config_fail(error, "cannot read %.300s", path)
                                    : mode_check(&info, path, error);
    if (err == 0 && (info.st_size < 0 || (uint64_t)info.st_size > max))
        err = config_fail(error, "%.300s is larger than %zu bytes", path, max);
    size_t bytes = err == 0 ? (size_t)info.st_size : 0;
    char *text = err == 0 ? loop_alloc(NULL, NULL, bytes + 1) : NULL;
    if (err == 0 && text == NULL)
        err = E_NO_MEMORY;
    if (err == 0 && read_all(fd, text, bytes, &got) != 0)
        err = config_fail(error, "cannot read %.300s", path);
    (void)close(fd);
    if (err != 0) {
        (void)loop_alloc(NULL, text, 0);
        return err;
    }
    text[got] = '\0';
    *out = text;
    *out_bytes = got;
    return 0;
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Trims white space; *text moves, the new length is returned. */
static size_t trim(const char **text, size_t bytes)
{
    while (bytes > 0 && blank((*text)[0])) {
        (*text)++;
        bytes--;
    }
    while (bytes > 0 && blank((*text)[bytes - 1]))
        bytes--;
    return bytes;
}

int secret_file_read(const char *path, uint8_t out[CLUSTER_SECRET_BYTES],
                     struct config_error *error)
{
    char text[SECRET_FILE_BYTES_MAX];
    uint8_t secret[CLUSTER_SECRET_BYTES];
    size_t got = 0;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return config_fail(error, "cannot open %.300s: %s", path, strerror(errno));
    int err = fstat(fd, &info) != 0 ? config_fail(error, "cannot read %.300s", path)
                                    : mode_check(&info, path, error);
    if (err == 0 && read_all(fd, text, sizeof text, &got) != 0)
        err = config_fail(error, "cannot read %.300s", path);
    (void)close(fd);
    if (err == 0) {
        const char *start = text;
        size_t bytes = trim(&start, got);
        if (bytes != 2 * sizeof secret || hex_decode(start, bytes, secret, sizeof secret) != 0)
            err = config_fail(error,
                              "%.300s does not hold a secret of 64 lower-case hex digits; make one "
                              "with `shoal keygen`",
                              path);
        else
            memcpy(out, secret, sizeof secret);
    }
    sodium_memzero(text, sizeof text);
    sodium_memzero(secret, sizeof secret);
    return err;
}

int text_file_read(const char *path, bool secret, char *out, size_t room,
                   struct config_error *error)
{
    size_t got = 0;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return config_fail(error, "cannot open %.200s: %s", path, strerror(errno));
    int err = fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)
                  ? config_fail(error, "%.200s is not a regular file", path)
                  : 0;
    if (err == 0 && secret)
        err = mode_check(&info, path, error);
    if (err == 0 && read_all(fd, out, room, &got) != 0)
        err = config_fail(error, "cannot read %.200s", path);
    if (err == 0 && got == room)
        err = config_fail(error, "%.200s has more than %zu bytes", path, room - 1);
    (void)close(fd);
    if (err != 0)
        sodium_memzero(out, room);
    else
        out[got] = '\0';
    return err;
}

int secret_file_create(const char *path, struct config_error *error)
{
    uint8_t secret[CLUSTER_SECRET_BYTES];
    char text[2 * CLUSTER_SECRET_BYTES + 2];
    randombytes_buf(secret, sizeof secret);
    hex_encode(secret, sizeof secret, text);
    text[2 * CLUSTER_SECRET_BYTES] = '\n';
    text[2 * CLUSTER_SECRET_BYTES + 1] = '\0';

    int err = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (fd < 0) {
        err = errno_error(errno);
        (void)config_fail(error, "cannot create %.300s: %s", path, strerror(errno));
        goto out;
    }
    err = write_all(fd, text, sizeof text - 1);
    if (err == 0 && fsync(fd) != 0)
        err = E_IO;
    if (close(fd) != 0 && err == 0)
        err = E_IO;
    if (err != 0) {
        (void)config_fail(error, "cannot write %.300s: %s", path, err_text(err));
        (void)unlink(path);
    }
out:
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(text, sizeof text);
    return err;
}

static int deny_line(const char *line, size_t bytes, struct identity_key *out, unsigned max,
                     unsigned *count)
{
    const char *hash = memchr(line, '#', bytes);
    if (hash != NULL)
        bytes = (size_t)(hash - line);
    bytes = trim(&line, bytes);
    if (bytes == 0)
        return 0;
    if (*count >= max)
        return E_FULL;
    if (bytes != 2 * IDENTITY_KEY_BYTES)
        return E_MALFORMED;
    int err = hex_decode(line, bytes, out[*count].bytes, IDENTITY_KEY_BYTES);
    if (err == 0)
        (*count)++;
    return err;
}

int deny_file_read(const char *path, struct identity_key *out, unsigned max, unsigned *count,
                   struct config_error *error)
{
    char *text = NULL;
    size_t text_bytes = 0;
    int err = file_read_whole(path, DENY_FILE_BYTES_MAX, &text, &text_bytes);
    if (err != 0)
        return config_fail(error, "cannot read %.300s: %s", path, err_text(err));
    const char *line = text;
    unsigned number = 0;
    unsigned found = 0;
    while (err == 0 && line < text + text_bytes) {
        size_t left = (size_t)(text + text_bytes - line);
        const char *end = memchr(line, '\n', left);
        size_t bytes = end != NULL ? (size_t)(end - line) : left;
        number++;
        err = deny_line(line, bytes, out, max, &found);
        line += bytes + 1;
    }
    (void)loop_alloc(NULL, text, 0);
    if (err == E_FULL)
        return config_fail(error, "%.300s:%u: more than %u keys", path, number, max);
    if (err != 0)
        return config_fail(error, "%.300s:%u: not an identity key of 64 lower-case hex digits",
                           path, number);
    *count = found;
    return 0;
}
