/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the three files of the disk tier: store_disk.c (the table of calls, what is where, the
 * janitor), store_disk_files.c (every call that opens, reads or writes a file of a blob),
 * store_disk_recover.c (what start-up finds). No other file of the cache sees files.
 *
 * On disk, below a directory that is ours alone (DSK-5):
 *
 *   sha256/ab/<64 hex>-<16 hex serial>.data   bytes of the blob at their offsets, sparse
 *                                     .part   its record (record.h) until it is sealed
 *                                     .rec    its record afterwards
 *
 * The rename .part -> .rec is the one moment at which a blob begins to stand for its digest
 * (INT-5); its bytes are reached through the record only. A piece is its bytes, then its slot; what
 * a crash leaves of that is found out by checksum and hash. Names are built from decoded digest
 * bytes; every component is opened relative to its directory with O_NOFOLLOW. Nothing is kept open
 * between calls but the directory, so a hundred thousand pieces cost no descriptors, and files that
 * vanish while we run are misses (D-8).
 *
 * Threads: `lock` guards the table, the queue and all of disk_blob but `layout`, `digest`,
 * `serial`, which never change; it is held for memory work only. The loop's calls (create, drop,
 * remove, free_bytes) take this lock and make no system call but fstatvfs, so they do not wait for
 * a device (D-14); what they ask for is done by the janitor's thread, or by a worker that needs the
 * same piece. `make_lock` is taken by workers only, before `lock`, while files are made. One of
 * `write_locks` is a worker's while it writes a blob: the kernel lets one at a time write a file,
 * and whoever waits for that inside it spins (0.2 s/GB, two workers, ext4).
 */
#ifndef SHOAL_CACHE_STORE_DISK_H
#define SHOAL_CACHE_STORE_DISK_H

#include <pthread.h>

#include "record.h"
#include "store_internal.h"

struct disk_blob {
    uint64_t id;
    uint64_t serial;
    struct digest digest;
    struct piece_layout layout;
    struct bitfield have;
    struct bitfield verified;        /* read or written, so right, since the start */
    struct bitfield to_drop;         /* room to be given back */
    uint32_t trim_first, trim_count; /* room being given back right now */
    uint32_t drops;                  /* counts them, so that a reader notices one */
    uint32_t refs;                   /* calls under way */
    struct disk_blob *next_job;
    uint64_t modified_ns; /* for the order of recovery */
    bool queued;
    bool working; /* a thread is at its job */
    bool made;    /* files exist, or did when we last looked */
    bool sealing;
    bool sealed;
    bool lost; /* an fsync failed: nothing of it counts any more (DSK-3) */
    bool dead; /* removed; freed when nothing uses it */
};

#define DISK_WRITE_LOCKS 8

struct disk_store {
    struct env env;
    int root_fd;
    bool in_memory; /* the directory is on tmpfs */
    pthread_mutex_t lock;
    pthread_mutex_t make_lock;
    pthread_mutex_t
        write_locks[DISK_WRITE_LOCKS]; /* of the blobs with this id modulo their number */
    pthread_cond_t work;               /* a job was queued, or stopping */
    pthread_cond_t changed;            /* a job ended */
    pthread_t janitor;
    bool stopping;
    struct store_table table;
    struct disk_blob *first_job, *last_job;
    uint32_t jobs;           /* queued or being worked at */
    uint64_t promised_bytes; /* dropped, not given back yet */
    uint64_t next_serial;
};

/* What workers need of a blob, copied under the lock. */
struct disk_view {
    const struct disk_blob *blob; /* kept by its reference */
    bool sealed;
};

/* ---- store_disk.c ---- */

/* Makes a blob that is in the table; under the lock. 0, E_NO_MEMORY, E_FULL. */
MUST_USE int disk__add_blob(struct disk_store *store, const struct record_header *header,
                            const struct piece_layout *layout, struct disk_blob **out);
/* Takes a blob that nobody uses out of the table and frees it; its files stay. Under the lock. */
void disk__forget_blob(struct disk_store *store, struct disk_blob *blob);
/* Marks a blob as removed and queues that; under the lock. */
void disk__kill(struct disk_store *store, struct disk_blob *blob);
/* Drops a reference; under the lock. */
void disk__blob_put(struct disk_store *store, struct disk_blob *blob);
/* Queues what is marked in to_drop, or the removal; under the lock. */
void disk__queue(struct disk_store *store, struct disk_blob *blob);

/* ---- store_disk_files.c: no locks inside but make_lock ---- */

/*
 * Opens the directory, made if absent, and checks it (DSK-5). 0 with *fd; E_DENIED, E_IO, E_IN_USE
 * with *why.
 */
MUST_USE int disk__open_root(const char *directory, int *fd, const char **why);
/* Opens a directory inside another, no link. 0, E_NOT_FOUND, E_IO, E_AGAIN. */
MUST_USE int disk__open_directory(int parent_fd, const char *name, int *fd);
/* "sha256" or "sha512"; static. */
const char *disk__algorithm_name(enum digest_algorithm algorithm);

#define DISK_NAME_BYTES 168
enum disk_file {
    DISK_NO_FILE = 0, /* not a name of ours */
    DISK_DATA,
    DISK_PART,
    DISK_RECORD,
};
/* Name of a blob's file inside its directory; `out` is returned. */
const char *disk__name(const struct digest *digest, uint64_t serial, enum disk_file file,
                       char out[DISK_NAME_BYTES]);
/* Reads such a name back; DISK_NO_FILE if it is none. */
enum disk_file disk__parse_name(const char *name, enum digest_algorithm algorithm,
                                struct digest *digest, uint64_t *serial);

/* Makes data and record file. 0, or an error with neither left behind. */
MUST_USE int disk__make_files(const struct disk_store *store, const struct disk_blob *blob);
/* Writes bytes, then slot. 0; E_NOT_FOUND: the files are gone; E_DIGEST, E_NO_SPACE, E_IO,
 * E_AGAIN. */
MUST_USE int disk__write_piece(const struct disk_store *store, const struct disk_view *view,
                               const struct record_slot *slot, const uint8_t *bytes);
/* Reads and verifies. 0, E_CORRUPT, E_NOT_FOUND, E_IO, E_AGAIN. */
MUST_USE int disk__read_piece(const struct disk_store *store, const struct disk_view *view,
                              uint32_t piece, uint8_t *out, struct piece_record *record);
/* Opens the data file for reading. 0, E_NOT_FOUND, E_IO, E_AGAIN. */
MUST_USE int disk__open_data(const struct disk_store *store, const struct disk_blob *blob, int *fd);
/* Marks slots GONE, then punches the hole. What fails stays for the blob's removal. */
void disk__trim_pieces(const struct disk_store *store, const struct disk_view *view, uint32_t first,
                       uint32_t count);
/* Checks that each slot knows its hash, then fsync, rename, fsync. 0; E_NOT_FOUND, E_AGAIN: as it
 * was; E_IO, E_NO_SPACE: it must count as lost. */
MUST_USE int disk__seal_files(const struct disk_store *store, const struct disk_blob *blob);
/* Unlinks the files, record first. */
void disk__unlink_files(const struct disk_store *store, const struct disk_blob *blob);
/* Reads exactly byte_count bytes. 0, E_CORRUPT (the file ends before), E_IO. */
MUST_USE int disk__pread_all(int fd, void *out, size_t byte_count, uint64_t offset);
/* Free bytes of the device; UINT64_MAX if it will not say. */
uint64_t disk__device_free(const struct disk_store *store);
/* Whether files there are memory: tmpfs. */
bool disk__in_memory(int root_fd);

/* ---- store_disk_recover.c ---- */

/* The table's recover: loads all records below the root and tells them. 0, E_IO, E_NO_MEMORY. */
MUST_USE int disk__recover(struct disk_store *store, store_found_fn found, void *arg);

#endif
