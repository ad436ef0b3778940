/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content tier: blobs that containerd holds, read where they lie and never written. Contract in
 * cache.h. containerd makes a file elsewhere and renames it to its place, so what has a proper name
 * is whole; what it holds is believed only once it was hashed, and again at every read, for the
 * file is not ours and may change or go at any time.
 *
 * Files are opened for each call, every component below the configured path relative to its parent
 * and without following links, and closed again: a deleted blob's room is not kept, and a thousand
 * blobs cost no descriptors.
 *
 * Threads: `lock` guards the table of ids and allocation. What is in a blob is read by several and
 * changed by the one seal under way, before `sealed` is set.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "store_internal.h"

#define NAME_HEX_BYTES 64
/* Entries looked at in one walk, junk included. */
#define ENTRIES_MAX (4 * STORE_CONTENT_FILES_MAX)

/* containerd's name for the folder below its root. */
static const char plugin[] = "io.containerd.content.v1.content";

/* What a file is known by: as long as these stay, it is the one that was hashed, unless its device
 * lies. */
struct stamp {
    uint64_t device, inode, size_bytes, modified_ns;
};

struct content_blob {
    struct digest digest;
    struct piece_layout layout;
    struct stamp stamp;
    struct hasher *hasher; /* until it is sealed */
    struct piece_hash *hashes;
    uint32_t hashed; /* pieces */
    _Atomic bool sealed;
    bool wrong; /* hashed to the end, and not the digest's bytes */
};

struct content_store {
    struct env env;
    pthread_mutex_t lock;
    struct store_table table;
    char path[PATH_MAX];
};

static void *take(struct content_store *store, size_t byte_count)
{
    pthread_mutex_lock(&store->lock);
    void *memory = store->env.alloc(store->env.host, NULL, byte_count);
    pthread_mutex_unlock(&store->lock);
    return memory;
}

static void release(struct content_store *store, void *memory)
{
    if (memory == NULL)
        return;
    pthread_mutex_lock(&store->lock);
    (void)store->env.alloc(store->env.host, memory, 0);
    pthread_mutex_unlock(&store->lock);
}

/* ---- files ---- */

static int system_error(void)
{
    switch (errno) {
    case ENOENT:
    case ENOTDIR:
    case ESTALE:
        return E_NOT_FOUND;
    case EACCES:
    case EPERM:
    case ELOOP: /* a link where there must be none */
        return E_DENIED;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return E_AGAIN;
    default:
        return E_IO;
    }
}

/* Opens a directory to go on from, not to be read. 0 or an error. */
static int step_into(int parent_fd, const char *name, int *fd)
{
    *fd = openat(parent_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *fd >= 0 ? 0 : system_error();
}

/* Opens blobs/sha256 below a directory, which is closed. */
static int open_blobs(int content_fd, int *fd)
{
    int blobs_fd;
    int err = step_into(content_fd, "blobs", &blobs_fd);
    (void)close(content_fd);
    if (err != 0)
        return err;
    err = step_into(blobs_fd, "sha256", fd);
    (void)close(blobs_fd);
    return err;
}

/* Opens the folder of blobs. `below_root`: `path` is containerd's root. The path itself is the
 * operator's and may be a link. */
static int open_folder(const struct content_store *store, int *fd, bool *below_root)
{
    int root_fd = open(store->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return system_error();
    int content_fd;
    int err = step_into(root_fd, plugin, &content_fd);
    *below_root = err != E_NOT_FOUND;
    if (err == E_NOT_FOUND)
        return open_blobs(root_fd, fd);
    (void)close(root_fd);
    return err != 0 ? err : open_blobs(content_fd, fd);
}

static int stamp_of(const struct stat *figures, struct stamp *out)
{
    if (!S_ISREG(figures->st_mode))
        return E_DENIED;
    *out = (struct stamp){.device = figures->st_dev,
                          .inode = figures->st_ino,
                          .size_bytes = (uint64_t)figures->st_size,
                          .modified_ns = (uint64_t)figures->st_mtim.tv_sec * 1000000000u +
                                         (uint64_t)figures->st_mtim.tv_nsec};
    return out->size_bytes <= STORE_CONTENT_BYTES_MAX ? 0 : E_TOO_LARGE;
}

/* Opens a blob's file. 0 with *fd and *stamp. */
static int open_file(const struct content_store *store, const struct digest *digest, int *fd,
                     struct stamp *stamp)
{
    char name[2 * DIGEST_BYTES_MAX + 1];
    int folder_fd;
    bool below_root;
    if (digest->algorithm != DIGEST_SHA256)
        return E_INVALID;
    int err = open_folder(store, &folder_fd, &below_root);
    if (err != 0)
        return err;
    hex_encode(digest->bytes, digest_bytes(digest->algorithm), name);
    /* O_NONBLOCK: a pipe somebody put there must not hold us. */
    int file_fd = openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    err = file_fd >= 0 ? 0 : system_error();
    (void)close(folder_fd);
    if (err != 0)
        return err;
    struct stat figures;
    err = fstat(file_fd, &figures) == 0 ? stamp_of(&figures, stamp) : E_IO;
    if (err != 0) {
        (void)close(file_fd);
        return err;
    }
    *fd = file_fd;
    return 0;
}

/* Reads exactly byte_count bytes. A file that ends before was cut: what was there is gone. */
static int read_all(int fd, uint8_t *out, size_t byte_count, uint64_t offset)
{
    size_t done = 0;
    while (done < byte_count) {
        ssize_t got = pread(fd, out + done, byte_count - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return E_IO;
        if (got == 0)
            return E_NOT_FOUND;
        done += (size_t)got;
    }
    return 0;
}

static bool same_file(const struct stamp *a, const struct stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size_bytes == b->size_bytes &&
           a->modified_ns == b->modified_ns;
}

/* Reads one piece (none: only looks) of the file that was opened first. */
static int read_piece(const struct content_store *store, const struct content_blob *blob,
                      uint32_t piece, uint8_t *out, uint32_t byte_count)
{
    struct stamp stamp;
    int fd;
    int err = open_file(store, &blob->digest, &fd, &stamp);
    if (err != 0)
        return err;
    if (!same_file(&stamp, &blob->stamp))
        err = E_NOT_FOUND;
    else if (byte_count > 0)
        err = read_all(fd, out, byte_count, piece_offset(&blob->layout, piece));
    (void)close(fd);
    return err;
}

/* ---- blobs ---- */

static void free_blob(struct content_store *store, struct content_blob *blob)
{
    hasher_free(blob->hasher);
    release(store, blob->hashes);
    release(store, blob);
}

static struct content_blob *find_blob(struct content_store *store, uint64_t id)
{
    pthread_mutex_lock(&store->lock);
    struct content_blob *blob = store_table__get(&store->table, id);
    pthread_mutex_unlock(&store->lock);
    return blob;
}

static int make_blob(struct content_store *store, const struct digest *digest,
                     const struct stamp *stamp, uint64_t *out)
{
    struct piece_layout layout;
    int err = piece_layout_of(stamp->size_bytes, &layout);
    struct content_blob *blob = err == 0 ? take(store, sizeof *blob) : NULL;
    if (blob == NULL)
        return err != 0 ? err : E_NO_MEMORY;
    memset(blob, 0, sizeof *blob);
    blob->digest = *digest;
    blob->layout = layout;
    blob->stamp = *stamp;
    err = hasher_new(digest->algorithm, &blob->hasher);
    if (err == 0 && layout.piece_count > 0) {
        blob->hashes = take(store, layout.piece_count * sizeof blob->hashes[0]);
        err = blob->hashes != NULL ? 0 : E_NO_MEMORY;
    }
    if (err == 0) {
        pthread_mutex_lock(&store->lock);
        err = store_table__add(&store->table, &store->env, blob, out);
        pthread_mutex_unlock(&store->lock);
    }
    if (err != 0)
        free_blob(store, blob);
    return err;
}

/* ---- the table of the tier ---- */

static int content_create(void *self, const struct digest *digest, enum piece_cut cut,
                          uint64_t size_bytes, uint64_t *out)
{
    struct content_store *store = self;
    struct stamp stamp;
    int fd;
    if (cut != PIECE_CUT_PLAIN)
        return E_INVALID;
    int err = open_file(store, digest, &fd, &stamp);
    if (err != 0)
        return err;
    (void)close(fd);
    return stamp.size_bytes == size_bytes ? make_blob(store, digest, &stamp, out) : E_INVALID;
}

static int content_write(void *self, uint64_t id, uint32_t piece, const uint8_t *bytes,
                         uint32_t byte_count, const struct piece_record *record)
{
    (void)self, (void)id, (void)piece, (void)bytes, (void)byte_count, (void)record;
    return E_UNSUPPORTED;
}

static int content_read(void *self, uint64_t id, uint32_t piece, uint8_t *out, uint32_t byte_count,
                        struct piece_record *record)
{
    const struct content_blob *blob = find_blob(self, id);
    if (blob == NULL || piece >= blob->layout.piece_count)
        return E_NOT_FOUND;
    if (byte_count != piece_length(&blob->layout, piece))
        return E_INVALID;
    if (!atomic_load_explicit(&blob->sealed, memory_order_acquire))
        return E_AGAIN;
    int err = read_piece(self, blob, piece, out, byte_count);
    if (err != 0)
        return err;
    struct piece_hash hash;
    piece_hash_of(out, byte_count, &hash);
    if (memcmp(&hash, &blob->hashes[piece], sizeof hash) != 0)
        return E_CORRUPT;
    memset(record, 0, sizeof *record);
    record->voucher.piece_index = piece;
    record->voucher.piece_bytes = byte_count;
    record->voucher.hash = hash;
    return 0;
}

static int content_open_fd(void *self, uint64_t id, uint32_t piece, int *fd, uint64_t *offset)
{
    (void)self, (void)id, (void)piece, (void)fd, (void)offset;
    return E_UNSUPPORTED;
}

/* Hashes the next piece. 0 or an error: as if it had not been tried. */
static int hash_next(struct content_store *store, struct content_blob *blob)
{
    uint32_t bytes = piece_length(&blob->layout, blob->hashed);
    uint8_t *buffer = take(store, bytes);
    if (buffer == NULL)
        return E_NO_MEMORY;
    int err = read_piece(store, blob, blob->hashed, buffer, bytes);
    if (err == 0) {
        (void)hasher_update_piece(blob->hasher, buffer, bytes, NULL, &blob->hashes[blob->hashed]);
        blob->hashed++;
    }
    release(store, buffer);
    return err;
}

static int judge(struct content_blob *blob)
{
    struct digest digest;
    hasher_final(blob->hasher, &digest);
    blob->wrong = !digest_equal(&digest, &blob->digest);
    hasher_free(blob->hasher);
    blob->hasher = NULL;
    if (blob->wrong)
        return E_DIGEST;
    atomic_store_explicit(&blob->sealed, true, memory_order_release);
    return 0;
}

static int content_seal(void *self, uint64_t id)
{
    struct content_blob *blob = find_blob(self, id);
    if (blob == NULL)
        return E_NOT_FOUND;
    if (blob->wrong)
        return E_DIGEST;
    if (atomic_load_explicit(&blob->sealed, memory_order_acquire))
        return read_piece(self, blob, 0, NULL, 0);
    int err = blob->hashed < blob->layout.piece_count ? hash_next(self, blob) : 0;
    if (err != 0)
        return err;
    return blob->hashed < blob->layout.piece_count ? E_AGAIN : judge(blob);
}

static int content_drop(void *self, uint64_t id, uint32_t first, uint32_t count)
{
    const struct content_blob *blob = find_blob(self, id);
    if (blob == NULL)
        return E_NOT_FOUND;
    bool inside = first <= blob->layout.piece_count && count <= blob->layout.piece_count - first;
    return inside ? 0 : E_INVALID;
}

static int content_remove(void *self, uint64_t id)
{
    struct content_store *store = self;
    pthread_mutex_lock(&store->lock);
    struct content_blob *blob = store_table__get(&store->table, id);
    if (blob != NULL)
        store_table__remove(&store->table, id);
    pthread_mutex_unlock(&store->lock);
    if (blob != NULL)
        free_blob(store, blob);
    return blob != NULL ? 0 : E_NOT_FOUND;
}

/* Tells of one name if a blob is behind it. */
static bool tell(DIR *folder, const char *name, store_found_fn found, void *arg)
{
    struct store_blob blob = {0};
    const struct bitfield none = {0};
    struct stat figures;
    struct stamp stamp;
    if (!store_content_name(name, &blob.digest) ||
        fstatat(dirfd(folder), name, &figures, AT_SYMLINK_NOFOLLOW) != 0 ||
        stamp_of(&figures, &stamp) != 0)
        return false;
    blob.size_bytes = stamp.size_bytes;
    blob.have = &none;
    found(arg, &blob, 0);
    return true;
}

static int walk(DIR *folder, store_found_fn found, void *arg)
{
    uint32_t told = 0;
    for (uint32_t looked = 0;; looked++) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL)
            return errno == 0 ? 0 : E_IO;
        if (looked == ENTRIES_MAX || told == STORE_CONTENT_FILES_MAX)
            return E_TOO_LARGE;
        told += tell(folder, entry->d_name, found, arg);
    }
}

static int content_recover(void *self, store_found_fn found, void *arg)
{
    int folder_fd;
    bool below_root;
    int err = open_folder(self, &folder_fd, &below_root);
    if (err != 0)
        return err;
    int read_fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    err = read_fd >= 0 ? 0 : system_error();
    (void)close(folder_fd);
    if (err != 0)
        return err;
    DIR *folder = fdopendir(read_fd);
    if (folder == NULL) {
        (void)close(read_fd);
        return E_NO_MEMORY;
    }
    err = walk(folder, found, arg);
    (void)closedir(folder);
    return err;
}

static uint64_t content_free_bytes(void *self)
{
    (void)self;
    return UINT64_MAX; /* nothing is written */
}

static void content_close(void *self)
{
    struct content_store *store = self;
    struct content_blob *blob;
    uint32_t index = 0;
    while ((blob = store_table__next(&store->table, &index)) != NULL)
        free_blob(store, blob);
    struct env env = store->env;
    store_table__close(&store->table, &env);
    pthread_mutex_destroy(&store->lock);
    (void)env.alloc(env.host, store, 0);
}

/* ---- what the table has no word for ---- */

bool store_content_name(const char *name, struct digest *out)
{
    struct digest digest = {.algorithm = DIGEST_SHA256};
    if (strlen(name) != NAME_HEX_BYTES ||
        hex_decode(name, NAME_HEX_BYTES, digest.bytes, NAME_HEX_BYTES / 2) != 0)
        return false;
    *out = digest;
    return true;
}

int store_content_find(const struct store *table, const struct digest *digest, uint64_t *size_bytes)
{
    struct stamp stamp;
    int fd;
    int err = open_file(table->self, digest, &fd, &stamp);
    if (err != 0)
        return err;
    (void)close(fd);
    *size_bytes = stamp.size_bytes;
    return 0;
}

int store_content_hash(const struct store *table, uint64_t id, uint32_t piece,
                       struct piece_hash *out)
{
    const struct content_blob *blob = find_blob(table->self, id);
    if (blob == NULL || piece >= blob->layout.piece_count)
        return E_NOT_FOUND;
    if (!atomic_load_explicit(&blob->sealed, memory_order_acquire))
        return E_AGAIN;
    *out = blob->hashes[piece];
    return 0;
}

int store_content_folder(const struct store *table, char *out, size_t out_bytes)
{
    const struct content_store *store = table->self;
    int fd;
    bool below_root;
    int err = open_folder(store, &fd, &below_root);
    if (err != 0)
        return err;
    (void)close(fd);
    int length = snprintf(out, out_bytes, "%s/%s%sblobs/sha256", store->path,
                          below_root ? plugin : "", below_root ? "/" : "");
    return length > 0 && (size_t)length < out_bytes ? 0 : E_TOO_LARGE;
}

int store_content__new(const struct env *env, const char *path, struct store *out)
{
    struct content_store *store = env->alloc(env->host, NULL, sizeof *store);
    if (store == NULL)
        return E_NO_MEMORY;
    memset(store, 0, sizeof *store);
    store->env = *env;
    if (text_copy(store->path, sizeof store->path, path) != 0) {
        (void)env->alloc(env->host, store, 0);
        return E_TOO_LARGE;
    }
    (void)pthread_mutex_init(&store->lock, NULL); /* cannot fail on Linux */
    *out = (struct store){.self = store,
                          .create = content_create,
                          .write = content_write,
                          .read = content_read,
                          .open_fd = content_open_fd,
                          .seal = content_seal,
                          .drop = content_drop,
                          .remove = content_remove,
                          .recover = content_recover,
                          .free_bytes = content_free_bytes,
                          .close = content_close};
    return 0;
}

int store_content_new(const char *path, struct store *out)
{
    struct env env;
    store__heap(&env);
    return store_content__new(&env, path, out);
}
