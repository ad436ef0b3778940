/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk tier, files: names, the directory's check, and one function for each thing that is done to
 * the files of a blob. Each opens what it needs and closes it again. Errors of the system become
 * E_* here. Holds no lock, and touches nothing of a blob that can change: see store_disk.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "store_disk.h"

#define SERIAL_HEX_BYTES 16
/* Slots read or rewritten at a time; on the stack. */
#define SLOTS_AT_ONCE 32

static int system_error(void)
{
    switch (errno) {
    case ENOSPC:
    case EDQUOT:
        return E_NO_SPACE;
    case ENOENT:
        return E_NOT_FOUND;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return E_AGAIN; /* ours for the moment, no fault of the tier */
    default:
        return E_IO;
    }
}

/* ---- names ---- */

static const char *const suffixes[] = {
    [DISK_NO_FILE] = "", [DISK_DATA] = ".data", [DISK_PART] = ".part", [DISK_RECORD] = ".rec"};

const char *disk__name(const struct digest *digest, uint64_t serial, enum disk_file file,
                       char out[DISK_NAME_BYTES])
{
    char hex[2 * DIGEST_BYTES_MAX + 1];
    size_t bytes = digest_bytes(digest->algorithm);
    ASSERT(bytes > 0 && file != DISK_NO_FILE);
    hex_encode(digest->bytes, bytes, hex);
    int length = snprintf(out, DISK_NAME_BYTES, "%s-%016llx%s", hex, (unsigned long long)serial,
                          suffixes[file]);
    ASSERT(length > 0 && length < DISK_NAME_BYTES);
    return out;
}

enum disk_file disk__parse_name(const char *name, enum digest_algorithm algorithm,
                                struct digest *digest, uint64_t *serial)
{
    size_t bytes = digest_bytes(algorithm);
    size_t length = strlen(name);
    uint8_t raw[8];
    if (length < 2 * bytes + 1 + SERIAL_HEX_BYTES || name[2 * bytes] != '-')
        return DISK_NO_FILE;
    struct digest decoded = {.algorithm = algorithm};
    if (hex_decode(name, 2 * bytes, decoded.bytes, bytes) != 0 ||
        hex_decode(name + 2 * bytes + 1, SERIAL_HEX_BYTES, raw, sizeof raw) != 0)
        return DISK_NO_FILE;
    const char *suffix = name + 2 * bytes + 1 + SERIAL_HEX_BYTES;
    for (enum disk_file file = DISK_DATA; file <= DISK_RECORD; file++) {
        if (strcmp(suffix, suffixes[file]) != 0)
            continue;
        *digest = decoded;
        *serial = load_be64(raw);
        return file;
    }
    return DISK_NO_FILE;
}

/* ---- opening ---- */

static int open_at(int directory_fd, const char *name, int flags, int *fd)
{
    do {
        /* O_NONBLOCK: should a FIFO lie there, it must not hold us up. Files do not mind. */
        *fd = openat(directory_fd, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    } while (*fd < 0 && errno == EINTR);
    return *fd >= 0 ? 0 : system_error();
}

static int open_directory(int parent_fd, const char *name, bool make, int *fd)
{
    int err = open_at(parent_fd, name, O_RDONLY | O_DIRECTORY, fd);
    if (err != E_NOT_FOUND || !make)
        return err;
    if (mkdirat(parent_fd, name, 0700) != 0 && errno != EEXIST)
        return system_error();
    /* So that what will be fsynced below is found after a power loss; without it, it is lost. */
    (void)fsync(parent_fd);
    return open_at(parent_fd, name, O_RDONLY | O_DIRECTORY, fd);
}

int disk__open_directory(int parent_fd, const char *name, int *fd)
{
    return open_directory(parent_fd, name, false, fd);
}

const char *disk__algorithm_name(enum digest_algorithm algorithm)
{
    return algorithm == DIGEST_SHA512 ? "sha512" : "sha256";
}

/* Opens the directory that a blob's files are in, component by component. */
static int open_blob_fan(const struct disk_store *store, const struct disk_blob *blob, bool make,
                         int *fd)
{
    char hex[3];
    int top_fd;
    int err =
        open_directory(store->root_fd, disk__algorithm_name(blob->digest.algorithm), make, &top_fd);
    if (err != 0)
        return err;
    hex_encode(blob->digest.bytes, 1, hex);
    err = open_directory(top_fd, hex, make, fd);
    (void)close(top_fd);
    return err;
}

static int open_file(int fan_fd, const struct disk_blob *blob, enum disk_file file, int flags,
                     int *fd)
{
    char name[DISK_NAME_BYTES];
    return open_at(fan_fd, disk__name(&blob->digest, blob->serial, file, name), flags, fd);
}

/* Opens the record under the name it should have or, if a seal comes in between, the other. */
static int open_record(int fan_fd, const struct disk_view *view, int flags, int *fd)
{
    int err = open_file(fan_fd, view->blob, view->sealed ? DISK_RECORD : DISK_PART, flags, fd);
    if (err == E_NOT_FOUND)
        err = open_file(fan_fd, view->blob, view->sealed ? DISK_PART : DISK_RECORD, flags, fd);
    return err;
}

struct files {
    int data_fd, record_fd;
};

static int open_both(const struct disk_store *store, const struct disk_view *view, int flags,
                     struct files *out)
{
    int fan_fd;
    int err = open_blob_fan(store, view->blob, false, &fan_fd);
    if (err != 0)
        return err;
    err = open_file(fan_fd, view->blob, DISK_DATA, flags, &out->data_fd);
    if (err == 0) {
        err = open_record(fan_fd, view, flags, &out->record_fd);
        if (err != 0)
            (void)close(out->data_fd);
    }
    (void)close(fan_fd);
    return err;
}

static void close_both(const struct files *files)
{
    (void)close(files->data_fd);
    (void)close(files->record_fd);
}

/* ---- reading and writing ---- */

int disk__pread_all(int fd, void *out, size_t byte_count, uint64_t offset)
{
    uint8_t *at = out;
    while (byte_count > 0) {
        ssize_t got = pread(fd, at, byte_count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return E_IO;
        if (got == 0)
            return E_CORRUPT;
        at += got;
        offset += (uint64_t)got;
        byte_count -= (size_t)got;
    }
    return 0;
}

static int pwrite_all(int fd, const void *bytes, size_t byte_count, uint64_t offset)
{
    const uint8_t *at = bytes;
    while (byte_count > 0) {
        ssize_t put = pwrite(fd, at, byte_count, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return system_error();
        if (put == 0)
            return E_IO;
        at += put;
        offset += (uint64_t)put;
        byte_count -= (size_t)put;
    }
    return 0;
}

/* Room for a piece before its bytes: a third cheaper than letting the write find it (LIMITS §4).
 * File systems that cannot are written to without. In memory there is nothing to keep together, and
 * every page would be looked for twice: 0.49-0.55 s/GB instead of 0.43. */
static int preallocate(const struct disk_store *store, int fd, uint64_t offset, uint32_t byte_count)
{
    int failed;
    if (store->in_memory)
        return 0;
    do {
        failed = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)byte_count);
    } while (failed != 0 && errno == EINTR);
    if (failed == 0 || errno == EOPNOTSUPP || errno == ENOSYS)
        return 0;
    return system_error();
}

static void punch(int data_fd, const struct disk_blob *blob, uint32_t first, uint32_t count)
{
    uint64_t start = piece_offset(&blob->layout, first);
    uint64_t end = piece_offset(&blob->layout, first + count - 1) +
                   piece_length(&blob->layout, first + count - 1);
    int failed;
    /* Without hole punching the room comes back with the blob's removal. */
    do {
        failed = fallocate(data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                           (off_t)(end - start));
    } while (failed != 0 && errno == EINTR);
}

static int read_slot(int record_fd, const struct disk_blob *blob, uint32_t piece,
                     struct record_slot *out)
{
    uint8_t bytes[RECORD_SLOT_BYTES];
    int err = disk__pread_all(record_fd, bytes, sizeof bytes, record_slot_offset(piece));
    if (err == 0)
        record_decode_slot(bytes, blob->serial, &blob->layout, piece, out);
    return err;
}

static int write_slot(int record_fd, const struct disk_blob *blob, const struct record_slot *slot)
{
    uint8_t bytes[RECORD_SLOT_BYTES];
    record_encode_slot(slot, blob->serial, bytes);
    return pwrite_all(record_fd, bytes, sizeof bytes,
                      record_slot_offset(slot->voucher.piece_index));
}

/* A sealed blob takes back only the pieces it was sealed with (INT-5). */
static int check_sealed(const struct disk_view *view, int record_fd, const struct record_slot *slot)
{
    struct record_slot old;
    if (!view->sealed)
        return 0;
    int err = read_slot(record_fd, view->blob, slot->voucher.piece_index, &old);
    if (err != 0)
        return err;
    bool same = old.state != RECORD_NONE &&
                memcmp(&old.voucher.hash, &slot->voucher.hash, sizeof old.voucher.hash) == 0;
    return same ? 0 : E_DIGEST;
}

int disk__write_piece(const struct disk_store *store, const struct disk_view *view,
                      const struct record_slot *slot, const uint8_t *bytes)
{
    uint32_t byte_count = slot->voucher.piece_bytes;
    uint64_t offset = piece_offset(&view->blob->layout, slot->voucher.piece_index);
    struct files files;
    int err = open_both(store, view, O_RDWR, &files);
    if (err != 0)
        return err;
    err = check_sealed(view, files.record_fd, slot);
    if (err == 0)
        err = preallocate(store, files.data_fd, offset, byte_count);
    if (err == 0)
        err = pwrite_all(files.data_fd, bytes, byte_count, offset);
    /* Full in the middle: what is there already would stay, and nobody counts it. */
    if (err == E_NO_SPACE && store->in_memory)
        punch(files.data_fd, view->blob, slot->voucher.piece_index, 1);
    if (err == 0)
        err = write_slot(files.record_fd, view->blob, slot);
    close_both(&files);
    return err;
}

int disk__read_piece(const struct disk_store *store, const struct disk_view *view, uint32_t piece,
                     uint8_t *out, struct piece_record *record)
{
    const struct disk_blob *blob = view->blob;
    uint32_t byte_count = piece_length(&blob->layout, piece);
    struct record_slot slot;
    struct files files;
    int err = open_both(store, view, O_RDONLY, &files);
    if (err != 0)
        return err;
    err = read_slot(files.record_fd, blob, piece, &slot);
    if (err == 0 && slot.state != RECORD_HAVE)
        err = E_CORRUPT;
    if (err == 0)
        err = disk__pread_all(files.data_fd, out, byte_count, piece_offset(&blob->layout, piece));
    close_both(&files);
    if (err != 0)
        return err;
    struct piece_hash hash;
    piece_hash_of(out, byte_count, &hash);
    if (memcmp(&hash, &slot.voucher.hash, sizeof hash) != 0)
        return E_CORRUPT;
    record->voucher = slot.voucher;
    return 0;
}

int disk__open_data(const struct disk_store *store, const struct disk_blob *blob, int *fd)
{
    int fan_fd;
    int err = open_blob_fan(store, blob, false, &fan_fd);
    if (err != 0)
        return err;
    err = open_file(fan_fd, blob, DISK_DATA, O_RDONLY, fd);
    (void)close(fan_fd);
    return err;
}

/* ---- making and unmaking ---- */

static int make_data(int fan_fd, const struct disk_blob *blob)
{
    int fd;
    int err = open_file(fan_fd, blob, DISK_DATA, O_RDWR | O_CREAT | O_EXCL, &fd);
    if (err != 0)
        return err;
    if (ftruncate(fd, (off_t)blob->layout.blob_bytes) != 0)
        err = system_error();
    (void)close(fd);
    return err;
}

static int make_record(int fan_fd, const struct disk_blob *blob)
{
    uint8_t bytes[RECORD_HEADER_BYTES];
    const struct record_header header = {.digest = blob->digest,
                                         .cut = blob->layout.cut,
                                         .size_bytes = blob->layout.blob_bytes,
                                         .serial = blob->serial};
    record_encode_header(&header, bytes);
    int fd;
    int err = open_file(fan_fd, blob, DISK_PART, O_RDWR | O_CREAT | O_EXCL, &fd);
    if (err != 0)
        return err;
    if (ftruncate(fd, (off_t)record_file_bytes(&blob->layout)) != 0)
        err = system_error();
    else
        err = pwrite_all(fd, bytes, sizeof bytes, 0);
    (void)close(fd);
    return err;
}

static void unlink_file(int fan_fd, const struct disk_blob *blob, enum disk_file file)
{
    char name[DISK_NAME_BYTES];
    (void)unlinkat(fan_fd, disk__name(&blob->digest, blob->serial, file, name), 0);
}

static void unlink_all(int fan_fd, const struct disk_blob *blob)
{
    unlink_file(fan_fd, blob, DISK_PART);
    unlink_file(fan_fd, blob, DISK_RECORD);
    unlink_file(fan_fd, blob, DISK_DATA);
}

int disk__make_files(const struct disk_store *store, const struct disk_blob *blob)
{
    int fan_fd;
    int err = open_blob_fan(store, blob, true, &fan_fd);
    if (err != 0)
        return err == E_NOT_FOUND ? E_IO : err; /* the root itself was taken away */
    unlink_all(fan_fd, blob); /* a half that is left when the other half vanished */
    err = make_data(fan_fd, blob);
    if (err == 0)
        err = make_record(fan_fd, blob);
    if (err != 0)
        unlink_all(fan_fd, blob);
    (void)close(fan_fd);
    return err == E_NOT_FOUND ? E_IO : err;
}

void disk__unlink_files(const struct disk_store *store, const struct disk_blob *blob)
{
    int fan_fd;
    if (open_blob_fan(store, blob, false, &fan_fd) != 0)
        return;
    unlink_all(fan_fd, blob);
    (void)close(fan_fd);
}

/* Rewrites up to SLOTS_AT_ONCE slots as GONE; those that hold nothing stay as they are. */
static int mark_gone(int record_fd, const struct disk_blob *blob, uint32_t first, uint32_t count)
{
    uint8_t bytes[SLOTS_AT_ONCE * RECORD_SLOT_BYTES];
    ASSERT(count <= SLOTS_AT_ONCE);
    size_t byte_count = (size_t)count * RECORD_SLOT_BYTES;
    int err = disk__pread_all(record_fd, bytes, byte_count, record_slot_offset(first));
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < count; i++) {
        struct record_slot slot;
        uint8_t *at = bytes + (size_t)i * RECORD_SLOT_BYTES;
        record_decode_slot(at, blob->serial, &blob->layout, first + i, &slot);
        if (slot.state != RECORD_HAVE)
            continue;
        slot.state = RECORD_GONE;
        record_encode_slot(&slot, blob->serial, at);
    }
    return pwrite_all(record_fd, bytes, byte_count, record_slot_offset(first));
}

void disk__trim_pieces(const struct disk_store *store, const struct disk_view *view, uint32_t first,
                       uint32_t count)
{
    struct files files;
    if (open_both(store, view, O_RDWR, &files) != 0)
        return;
    /* Slots first: a crash in between leaves room taken, not pieces that are not there. */
    for (uint32_t done = 0; done < count; done += SLOTS_AT_ONCE) {
        uint32_t some = count - done < SLOTS_AT_ONCE ? count - done : SLOTS_AT_ONCE;
        if (mark_gone(files.record_fd, view->blob, first + done, some) != 0)
            break; /* reads will find zeros and say so */
    }
    punch(files.data_fd, view->blob, first, count);
    close_both(&files);
}

/* ---- sealing ---- */

static int check_slots(int record_fd, const struct disk_blob *blob)
{
    uint8_t bytes[SLOTS_AT_ONCE * RECORD_SLOT_BYTES];
    uint32_t pieces = blob->layout.piece_count;
    for (uint32_t first = 0; first < pieces; first += SLOTS_AT_ONCE) {
        uint32_t some = pieces - first < SLOTS_AT_ONCE ? pieces - first : SLOTS_AT_ONCE;
        int err = disk__pread_all(record_fd, bytes, (size_t)some * RECORD_SLOT_BYTES,
                                  record_slot_offset(first));
        if (err != 0)
            return err == E_CORRUPT ? E_NOT_FOUND : err;
        for (uint32_t i = 0; i < some; i++) {
            struct record_slot slot;
            record_decode_slot(bytes + (size_t)i * RECORD_SLOT_BYTES, blob->serial, &blob->layout,
                               first + i, &slot);
            if (slot.state == RECORD_NONE)
                return E_NOT_FOUND;
        }
    }
    return 0;
}

static int sync_and_rename(int fan_fd, const struct disk_blob *blob, const struct files *files)
{
    char part[DISK_NAME_BYTES], record[DISK_NAME_BYTES];
    (void)disk__name(&blob->digest, blob->serial, DISK_PART, part);
    (void)disk__name(&blob->digest, blob->serial, DISK_RECORD, record);
    if (fdatasync(files->data_fd) != 0 || fsync(files->record_fd) != 0)
        return E_IO;
    if (renameat(fan_fd, part, fan_fd, record) != 0)
        return E_IO;
    return fsync(fan_fd) == 0 ? 0 : E_IO;
}

int disk__seal_files(const struct disk_store *store, const struct disk_blob *blob)
{
    const struct disk_view view = {.blob = blob, .sealed = false};
    struct files files;
    int err = open_both(store, &view, O_RDWR, &files);
    if (err != 0)
        return err;
    int fan_fd;
    err = check_slots(files.record_fd, blob);
    if (err == 0)
        err = open_blob_fan(store, blob, false, &fan_fd);
    if (err == 0) {
        err = sync_and_rename(fan_fd, blob, &files);
        (void)close(fan_fd);
    }
    close_both(&files);
    return err;
}

/* ---- the directory ---- */

uint64_t disk__device_free(const struct disk_store *store)
{
    struct statvfs figures;
    if (fstatvfs(store->root_fd, &figures) != 0)
        return UINT64_MAX;
    return (uint64_t)figures.f_bavail * (uint64_t)figures.f_frsize;
}

bool disk__in_memory(int root_fd)
{
    struct statfs figures;
    return fstatfs(root_fd, &figures) == 0 && figures.f_type == TMPFS_MAGIC;
}

static int check_root(int fd, const char **why)
{
    struct stat figures;
    if (fstat(fd, &figures) != 0) {
        *why = "the cache directory cannot be examined: check the disk it is on";
        return E_IO;
    }
    if (figures.st_uid != geteuid()) {
        *why = "the cache directory belongs to another user: chown it to the agent's";
        return E_DENIED;
    }
    if ((figures.st_mode & 0777) != 0700) {
        *why = "the cache directory is open to others: chmod 0700 it";
        return E_DENIED;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        *why = "the cache directory is in use by another process: give each its own";
        return E_IN_USE;
    }
    return 0;
}

/* The two top directories must be there or be made: proves that we may write. */
static int check_writable(int root_fd, const char **why)
{
    static const char *const names[] = {"sha256", "sha512"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int fd;
        int err = open_directory(root_fd, names[i], true, &fd);
        if (err == 0) {
            (void)close(fd);
            err = faccessat(root_fd, names[i], W_OK | X_OK, AT_EACCESS) == 0 ? 0 : E_IO;
        }
        if (err != 0) {
            *why = "the cache directory cannot be written: check mount options, space and what "
                   "lies at sha256 and sha512 in it";
            return E_IO;
        }
    }
    return 0;
}

static int open_root_error(const char **why)
{
    if (errno == ELOOP || errno == ENOTDIR) {
        *why = "the cache directory is a symbolic link or a file: name a real directory";
        return E_DENIED;
    }
    if (errno == EACCES || errno == EPERM) {
        *why = "the cache directory belongs to another user: chown it to the agent's";
        return E_DENIED;
    }
    *why = "the cache directory cannot be opened or made: make it, mode 0700, owned by the agent";
    return E_IO;
}

/* A slash at the end would make the kernel follow a symbolic link before it. */
static int plain_path(const char *directory, char out[PATH_MAX])
{
    if (text_copy(out, PATH_MAX, directory) != 0)
        return E_IO;
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/')
        out[--length] = '\0';
    return 0;
}

int disk__open_root(const char *given, int *fd, const char **why)
{
    char directory[PATH_MAX];
    *why = NULL;
    if (plain_path(given, directory) != 0) {
        *why = "the path of the cache directory is too long";
        return E_IO;
    }
    if (mkdir(directory, 0700) != 0 && errno != EEXIST) {
        *why = "the cache directory cannot be made: make its parent, writable for the agent";
        return E_IO;
    }
    int root_fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (root_fd < 0)
        return open_root_error(why);
    int err = check_root(root_fd, why);
    if (err == 0)
        err = check_writable(root_fd, why);
    if (err != 0) {
        (void)close(root_fd);
        return err;
    }
    *fd = root_fd;
    return 0;
}
