/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk tier, start-up (DSK-2, D-6, D-7): reads every record below the directory, believes what its
 * checksums cover, and removes what is damaged, of an unknown version, orphaned or not ours. Pieces
 * themselves are not read: each is verified when it is used (DSK-1). One open, one read of some
 * 50 KiB and two stats per blob, so 100,000 pieces take a fraction of a second.
 *
 * Runs before any other call of the store, but beside the janitor: changes to the table and to
 * blobs in it are made under the lock.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "store_disk.h"

/* Header and slots of a blob of 340 pieces in one read. */
#define SLOTS_AT_ONCE 340
#define CHUNK_BYTES   (RECORD_HEADER_BYTES + SLOTS_AT_ONCE * RECORD_SLOT_BYTES)
/* Blocks beyond the pieces that are had: what file systems round and preallocate on their own. */
#define SLACK_BYTES ((uint64_t)1024 * 1024)

static_assert(CHUNK_BYTES == 64 * 1024, "one read of a typical record");

/* Where the walk is. */
struct walk {
    struct disk_store *store;
    enum digest_algorithm algorithm;
    uint8_t byte; /* of the directory */
    int fan_fd;
    uint8_t *chunk; /* CHUNK_BYTES */
};

/* One record being looked at. */
struct finding {
    struct record_header header;
    struct piece_layout layout;
    enum disk_file file;
    int fd;
    uint64_t file_bytes;
    uint64_t data_blocks_bytes;
    uint64_t modified_ns;
};

/* ---- one record ---- */

/* A regular file of ours, not through a link. */
static bool examine(int fan_fd, const char *name, struct stat *out)
{
    return fstatat(fan_fd, name, out, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(out->st_mode) &&
           out->st_uid == geteuid();
}

static bool examine_data(const struct walk *walk, struct finding *finding)
{
    char name[DISK_NAME_BYTES];
    struct stat figures;
    (void)disk__name(&finding->header.digest, finding->header.serial, DISK_DATA, name);
    if (!examine(walk->fan_fd, name, &figures) || figures.st_size < 0 ||
        (uint64_t)figures.st_size != finding->layout.blob_bytes)
        return false;
    finding->data_blocks_bytes = (uint64_t)figures.st_blocks * 512;
    return true;
}

/* Opens a record and reads its first chunk. 0 only if header, name, sizes and data file agree. */
static int read_header(const struct walk *walk, const char *name, struct finding *finding)
{
    struct record_header named = finding->header;
    struct stat figures;
    if (!examine(walk->fan_fd, name, &figures) || figures.st_size < RECORD_HEADER_BYTES)
        return E_CORRUPT;
    finding->file_bytes = (uint64_t)figures.st_size;
    finding->modified_ns =
        (uint64_t)figures.st_mtim.tv_sec * UINT64_C(1000000000) + (uint64_t)figures.st_mtim.tv_nsec;
    finding->fd = openat(walk->fan_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (finding->fd < 0)
        return errno == EMFILE || errno == ENFILE ? E_AGAIN : E_IO;
    size_t some = finding->file_bytes < CHUNK_BYTES ? (size_t)finding->file_bytes : CHUNK_BYTES;
    int err = disk__pread_all(finding->fd, walk->chunk, some, 0);
    if (err == 0)
        err = record_decode_header(walk->chunk, some, &finding->header, &finding->layout);
    if (err != 0)
        return err;
    if (!digest_equal(&named.digest, &finding->header.digest) ||
        named.serial != finding->header.serial ||
        finding->file_bytes != record_file_bytes(&finding->layout))
        return E_CORRUPT;
    return examine_data(walk, finding) ? 0 : E_CORRUPT;
}

/* Takes over the slots of a whole record; counts those that know their hash. The chunk holds the
 * file's beginning. */
static int read_slots(const struct walk *walk, const struct finding *finding,
                      struct disk_blob *blob, uint32_t *known)
{
    uint32_t pieces = blob->layout.piece_count;
    const uint8_t *at = walk->chunk + RECORD_HEADER_BYTES;
    *known = 0;
    for (uint32_t piece = 0; piece < pieces; piece++) {
        if (piece > 0 && piece % SLOTS_AT_ONCE == 0) {
            uint32_t some = pieces - piece < SLOTS_AT_ONCE ? pieces - piece : SLOTS_AT_ONCE;
            int err = disk__pread_all(finding->fd, walk->chunk, (size_t)some * RECORD_SLOT_BYTES,
                                      record_slot_offset(piece));
            if (err != 0)
                return err;
            at = walk->chunk;
        }
        struct record_slot slot;
        record_decode_slot(at, blob->serial, &blob->layout, piece, &slot);
        at += RECORD_SLOT_BYTES;
        *known += slot.state != RECORD_NONE;
        if (slot.state == RECORD_HAVE)
            (void)bitfield_set(&blob->have, piece);
    }
    return 0;
}

/* A sealed blob vouches for all of its pieces; one that has forgotten a hash is a part again. */
static int settle_seal(const struct walk *walk, const struct finding *finding,
                       struct disk_blob *blob, uint32_t known)
{
    blob->sealed = finding->file == DISK_RECORD;
    if (!blob->sealed || known == blob->layout.piece_count)
        return 0;
    char part[DISK_NAME_BYTES], record[DISK_NAME_BYTES];
    (void)disk__name(&blob->digest, blob->serial, DISK_PART, part);
    (void)disk__name(&blob->digest, blob->serial, DISK_RECORD, record);
    blob->sealed = false;
    return renameat(walk->fan_fd, record, walk->fan_fd, part) == 0 ? 0 : E_IO;
}

/* Room that a crash left taken: evicted but not given back, or written but not recorded. */
static void plan_trims(struct disk_blob *blob, uint64_t taken_bytes)
{
    uint64_t wanted = (uint64_t)blob->have.set_count * blob->layout.piece_bytes;
    if (taken_bytes <= wanted + SLACK_BYTES)
        return;
    uint32_t piece = bitfield_next_clear(&blob->have, 0);
    for (; piece < blob->layout.piece_count; piece = bitfield_next_clear(&blob->have, piece + 1))
        (void)bitfield_set(&blob->to_drop, piece);
}

static int load_slots(const struct walk *walk, const struct finding *finding)
{
    struct disk_store *store = walk->store;
    struct disk_blob *blob;
    uint32_t known;
    pthread_mutex_lock(&store->lock);
    int err = disk__add_blob(store, &finding->header, &finding->layout, &blob);
    pthread_mutex_unlock(&store->lock);
    if (err != 0)
        return err;
    /* Nobody else can know the blob yet: the janitor sees what is queued, no more. */
    blob->made = true;
    blob->modified_ns = finding->modified_ns;
    err = read_slots(walk, finding, blob, &known);
    if (err == 0 && blob->have.set_count > 0)
        err = settle_seal(walk, finding, blob, known);
    pthread_mutex_lock(&store->lock);
    if (err != 0 || blob->have.set_count == 0) {
        disk__forget_blob(store, blob);
        err = E_CORRUPT;
    } else {
        plan_trims(blob, finding->data_blocks_bytes);
        disk__queue(store, blob);
    }
    pthread_mutex_unlock(&store->lock);
    return err;
}

/* 0: loaded. E_NO_MEMORY, E_AGAIN: start-up cannot go on. Others: to be removed. */
static int load_record(const struct walk *walk, const char *name, struct finding *finding)
{
    finding->fd = -1;
    if (finding->header.digest.bytes[0] != walk->byte)
        return E_CORRUPT;
    int err = read_header(walk, name, finding);
    if (err == 0)
        err = load_slots(walk, finding);
    if (finding->fd >= 0)
        (void)close(finding->fd);
    return err;
}

/* ---- one directory ---- */

static bool has_record(const struct walk *walk, const struct record_header *header)
{
    char name[DISK_NAME_BYTES];
    for (enum disk_file file = DISK_PART; file <= DISK_RECORD; file++) {
        (void)disk__name(&header->digest, header->serial, file, name);
        if (faccessat(walk->fan_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return true;
    }
    return false;
}

/* Looks at one name: records in the first pass, the rest in the second. */
static int visit_name(const struct walk *walk, const char *name, bool records)
{
    struct finding finding = {.fd = -1};
    struct record_header *header = &finding.header;
    finding.file = disk__parse_name(name, walk->algorithm, &header->digest, &header->serial);
    bool is_record = finding.file == DISK_PART || finding.file == DISK_RECORD;
    if (is_record != records)
        return 0;
    /* Serials count from 1; one near the end of the range was not made by counting. */
    if (finding.file != DISK_NO_FILE && header->serial > INT64_MAX)
        finding.file = DISK_NO_FILE;
    if (finding.file != DISK_NO_FILE && header->serial >= walk->store->next_serial)
        walk->store->next_serial = header->serial + 1;

    int err = E_CORRUPT;
    if (finding.file == DISK_DATA && has_record(walk, header))
        return 0;
    if (is_record && finding.file != DISK_NO_FILE)
        err = load_record(walk, name, &finding);
    if (err == 0 || err == E_NO_MEMORY || err == E_AGAIN)
        return err;
    (void)unlinkat(walk->fan_fd, name, 0); /* directories are not ours and stay */
    return 0;
}

static int visit_names(const struct walk *walk, DIR *directory, bool records)
{
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int err = visit_name(walk, entry->d_name, records);
        if (err != 0)
            return err;
    }
    return 0;
}

/* Reads the directory of one first byte; `fan_fd` is taken. */
static int visit_fan(struct walk *walk, int fan_fd)
{
    walk->fan_fd = fan_fd;
    DIR *directory = fdopendir(fan_fd);
    if (directory == NULL) {
        (void)close(fan_fd);
        return E_NO_MEMORY;
    }
    int err = visit_names(walk, directory, true);
    rewinddir(directory);
    if (err == 0)
        err = visit_names(walk, directory, false);
    (void)closedir(directory);
    return err;
}

/* Visits those of the 256 directories that are there; `top_fd` is taken. */
static int visit_top(struct walk *walk, int top_fd)
{
    DIR *directory = fdopendir(top_fd);
    if (directory == NULL) {
        (void)close(top_fd);
        return E_NO_MEMORY;
    }
    int err = 0;
    struct dirent *entry;
    while (err == 0 && (entry = readdir(directory)) != NULL) {
        int fan_fd;
        if (strlen(entry->d_name) != 2 || hex_decode(entry->d_name, 2, &walk->byte, 1) != 0)
            continue;
        err = disk__open_directory(top_fd, entry->d_name, &fan_fd);
        if (err == 0)
            err = visit_fan(walk, fan_fd);
        else if (err != E_AGAIN)
            err = 0; /* what cannot be read holds nothing for us */
    }
    (void)closedir(directory);
    return err;
}

static int visit_all(struct disk_store *store)
{
    static const enum digest_algorithm algorithms[] = {DIGEST_SHA256, DIGEST_SHA512};
    struct walk walk = {.store = store,
                        .chunk = store->env.alloc(store->env.host, NULL, CHUNK_BYTES)};
    if (walk.chunk == NULL)
        return E_NO_MEMORY;
    int err = 0;
    for (unsigned i = 0; err == 0 && i < sizeof algorithms / sizeof algorithms[0]; i++) {
        int top_fd;
        walk.algorithm = algorithms[i];
        err = disk__open_directory(store->root_fd, disk__algorithm_name(walk.algorithm), &top_fd);
        if (err == 0)
            err = visit_top(&walk, top_fd);
        else if (err == E_NOT_FOUND)
            err = 0;
    }
    (void)store->env.alloc(store->env.host, walk.chunk, 0);
    return err == E_NO_MEMORY || err == 0 ? err : E_IO;
}

/* ---- order ---- */

static int compare_names(const void *a, const void *b)
{
    const struct disk_blob *const *left = a, *const *right = b;
    int order = memcmp(&(*left)->digest, &(*right)->digest, sizeof(*left)->digest);
    if (order == 0)
        order = (int)(*left)->layout.cut - (int)(*right)->layout.cut;
    if (order == 0)
        order = (*left)->serial < (*right)->serial ? 1 : -1; /* newest first */
    return order;
}

static int compare_ages(const void *a, const void *b)
{
    const struct disk_blob *const *left = a, *const *right = b;
    if ((*left)->modified_ns != (*right)->modified_ns)
        return (*left)->modified_ns < (*right)->modified_ns ? -1 : 1;
    return compare_names(a, b);
}

/* Keeps the newest of each digest and cut; the others are what a crash kept from being removed. */
static size_t remove_doubles(struct disk_store *store, struct disk_blob **blobs, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && blobs[kept - 1]->layout.cut == blobs[i]->layout.cut &&
            digest_equal(&blobs[kept - 1]->digest, &blobs[i]->digest)) {
            disk__kill(store, blobs[i]);
        } else {
            blobs[kept++] = blobs[i];
        }
    }
    return kept;
}

/* The blobs of the table, least recently written first, each with a reference. */
static int sorted_blobs(struct disk_store *store, struct disk_blob ***out, size_t *count)
{
    *count = 0;
    *out = NULL;
    if (store->table.count == 0)
        return 0;
    struct disk_blob **blobs =
        store->env.alloc(store->env.host, NULL, store->table.count * sizeof blobs[0]);
    if (blobs == NULL)
        return E_NO_MEMORY;
    struct disk_blob *blob;
    uint32_t index = 0;
    size_t filled = 0;
    while ((blob = store_table__next(&store->table, &index)) != NULL)
        blobs[filled++] = blob;
    qsort(blobs, filled, sizeof blobs[0], compare_names);
    filled = remove_doubles(store, blobs, filled);
    qsort(blobs, filled, sizeof blobs[0], compare_ages);
    for (size_t i = 0; i < filled; i++)
        blobs[i]->refs++;
    *out = blobs;
    *count = filled;
    return 0;
}

static void tell(struct disk_store *store, struct disk_blob *blob, store_found_fn found, void *arg)
{
    const struct store_blob what = {.digest = blob->digest,
                                    .cut = blob->layout.cut,
                                    .size_bytes = blob->layout.blob_bytes,
                                    .complete = blob->sealed,
                                    .have = &blob->have};
    found(arg, &what, blob->id);
    pthread_mutex_lock(&store->lock);
    disk__blob_put(store, blob);
    pthread_mutex_unlock(&store->lock);
}

int disk__recover(struct disk_store *store, store_found_fn found, void *arg)
{
    struct disk_blob **blobs;
    size_t count;
    int err = visit_all(store);
    if (err != 0)
        return err;
    pthread_mutex_lock(&store->lock);
    err = sorted_blobs(store, &blobs, &count);
    pthread_mutex_unlock(&store->lock);
    if (err != 0)
        return err;
    for (size_t i = 0; i < count; i++)
        tell(store, blobs[i], found, arg);
    if (blobs != NULL)
        (void)store->env.alloc(store->env.host, blobs, 0);
    return 0;
}
