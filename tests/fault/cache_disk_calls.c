/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk tier over a system that fails. This program defines the calls that store_disk_files.c
 * makes (openat, pwrite, fsync, ...), so that the n-th of them can
 *   - answer with an error, once or from then on, or come back short (D-1..D-4, D-10),
 *   - be the last thing the process does (kill -9, D-7),
 *   - be where the power goes: what was not synced is lost, torn at 512 bytes or kept at random,
 *     renames, new names and unlinks that no fsync of their directory covered likewise (D-6).
 * After each the cache must start by itself and give right bytes or none.
 */
/* This file defines pread itself; the fortified headers would make it an inline of theirs. */
#undef _FORTIFY_SOURCE

#include "../unit/cache_support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PIECE      ((uint64_t)PIECE_BYTES_MIN)
#define CAPACITY   (3 * PIECE)
#define EVENTS_MAX 600
#define OLD_BYTES  1024
#define KILLED     77

/* ---- the failing system ---- */

enum event_kind { EVENT_WRITE = 1, EVENT_NAME, EVENT_RENAME, EVENT_UNLINK };

struct event {
    enum event_kind kind;
    bool synced;
    char path[TEST_PATH_BYTES];
    char other[TEST_PATH_BYTES]; /* rename: the name before; unlink: where a link was kept */
    uint64_t offset;
    uint32_t length;
    uint32_t old_bytes; /* of `old`: what short writes replaced; long ones replaced a hole */
    uint8_t old[OLD_BYTES];
};

struct shim {
    bool armed;
    uint64_t device_blocks;           /* free ones; 0: it will not say */
    bool memory;                      /* the directory says that it is on tmpfs */
    bool full;                        /* after ... */
    uint32_t full_after;              /* ... so much of a long write; 0: never */
    unsigned preallocated;            /* calls of fallocate that make room */
    bool sync_fails;                  /* all fsyncs, nothing else */
    bool fail_from, kill, log, brief; /* brief: reads and writes come back short */
    unsigned calls, fail_at;
    int error;
    char graveyard[TEST_PATH_BYTES];
    unsigned event_count;
    struct event events[EVENTS_MAX];
    bool sealed[8]; /* told to the story that this blob is safe */
};

static struct shim *shim; /* shared with the child that dies */

/* True if this call is the one that goes wrong. */
static bool goes_wrong(void)
{
    if (shim == NULL || !shim->armed)
        return false;
    unsigned call = __atomic_add_fetch(&shim->calls, 1, __ATOMIC_SEQ_CST);
    bool hit =
        shim->fail_at != 0 && (call == shim->fail_at || (shim->fail_from && call > shim->fail_at));
    if (hit && shim->kill)
        _exit(KILLED);
    return hit;
}

static bool fails(void)
{
    if (!goes_wrong() || shim->brief)
        return false;
    errno = shim->error;
    return true;
}

static bool logging(void)
{
    return shim != NULL && shim->armed && shim->log;
}

static struct event *new_event(enum event_kind kind)
{
    if (shim->event_count == EVENTS_MAX)
        abort();
    struct event *event = &shim->events[shim->event_count++];
    memset(event, 0, sizeof *event);
    event->kind = kind;
    return event;
}

static void path_of_fd(int fd, char out[TEST_PATH_BYTES])
{
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, TEST_PATH_BYTES - 1);
    if (length < 0)
        abort();
    out[length] = '\0';
}

static void path_at(int directory_fd, const char *name, char out[TEST_PATH_BYTES])
{
    char directory[TEST_PATH_BYTES];
    path_of_fd(directory_fd, directory);
    (void)snprintf(out, TEST_PATH_BYTES, "%.250s/%.250s", directory, name);
}

int openat(int directory_fd, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    unsigned mode = (flags & O_CREAT) != 0 ? va_arg(args, unsigned) : 0;
    va_end(args);
    if (fails())
        return -1;
    int fd = (int)syscall(SYS_openat, directory_fd, name, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) != 0 && logging())
        path_at(directory_fd, name, new_event(EVENT_NAME)->path);
    return fd;
}

static void log_write(int fd, size_t byte_count, off_t offset)
{
    struct event *event = new_event(EVENT_WRITE);
    path_of_fd(fd, event->path);
    event->offset = (uint64_t)offset;
    event->length = (uint32_t)byte_count;
    if (byte_count <= OLD_BYTES) {
        ssize_t got = syscall(SYS_pread64, fd, event->old, byte_count, offset);
        event->old_bytes = got > 0 ? (uint32_t)got : 0;
    }
}

ssize_t pwrite(int fd, const void *bytes, size_t byte_count, off_t offset)
{
    bool wrong = goes_wrong();
    if (wrong && !shim->brief) {
        errno = shim->error;
        return -1;
    }
    if (wrong && byte_count > 1)
        byte_count /= 2;
    if (shim != NULL && shim->full) {
        errno = ENOSPC;
        return -1;
    }
    if (shim != NULL && shim->full_after != 0 && byte_count > shim->full_after) {
        byte_count = shim->full_after;
        shim->full = true;
    }
    if (logging())
        log_write(fd, byte_count, offset);
    return syscall(SYS_pwrite64, fd, bytes, byte_count, offset);
}

ssize_t pread(int fd, void *bytes, size_t byte_count, off_t offset)
{
    bool wrong = goes_wrong();
    if (wrong && !shim->brief) {
        errno = shim->error;
        return -1;
    }
    if (wrong && byte_count > 1)
        byte_count /= 2;
    return syscall(SYS_pread64, fd, bytes, byte_count, offset);
}

/* What a fortified build calls instead of pread. */
ssize_t __pread_chk(int fd, void *bytes, size_t byte_count, off_t offset, size_t room);
ssize_t __pread_chk(int fd, void *bytes, size_t byte_count, off_t offset, size_t room)
{
    if (byte_count > room)
        abort();
    return pread(fd, bytes, byte_count, offset);
}

/* While the test holds this, no room is given back: a device that takes its time. */
static pthread_mutex_t slow_device = PTHREAD_MUTEX_INITIALIZER;

static void wait_for_device(void)
{
    pthread_mutex_lock(&slow_device);
    pthread_mutex_unlock(&slow_device);
}

int fstatvfs(int fd, struct statvfs *out)
{
    if (shim == NULL || shim->device_blocks == 0) {
        errno = EIO;
        return -1; /* the device will not say */
    }
    (void)fd;
    memset(out, 0, sizeof *out);
    out->f_bavail = shim->device_blocks;
    out->f_frsize = 4096;
    return 0;
}

int fstatfs(int fd, struct statfs *out)
{
    int failed = (int)syscall(SYS_fstatfs, fd, out);
    out->f_type = shim != NULL && shim->memory ? TMPFS_MAGIC : EXT4_SUPER_MAGIC;
    return failed;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if ((mode & FALLOC_FL_PUNCH_HOLE) != 0)
        wait_for_device();
    else if (shim != NULL)
        shim->preallocated++;
    return fails() ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int ftruncate(int fd, off_t length)
{
    return fails() ? -1 : (int)syscall(SYS_ftruncate, fd, length);
}

static void mark_synced(int fd)
{
    char path[TEST_PATH_BYTES];
    path_of_fd(fd, path);
    size_t length = strlen(path);
    for (unsigned i = 0; i < shim->event_count; i++) {
        struct event *event = &shim->events[i];
        bool is_file = event->kind == EVENT_WRITE && strcmp(event->path, path) == 0;
        bool is_name = event->kind != EVENT_WRITE && strncmp(event->path, path, length) == 0 &&
                       event->path[length] == '/' && strchr(event->path + length + 1, '/') == NULL;
        event->synced = event->synced || is_file || is_name;
    }
}

static bool sync_fails(void)
{
    if (fails())
        return true;
    if (shim == NULL || !shim->sync_fails)
        return false;
    errno = EIO;
    return true;
}

int fsync(int fd)
{
    if (sync_fails())
        return -1;
    if (logging())
        mark_synced(fd);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    if (sync_fails())
        return -1;
    if (logging())
        mark_synced(fd);
    return (int)syscall(SYS_fdatasync, fd);
}

static void log_rename(int directory_fd, const char *from, const char *to)
{
    struct event *event = new_event(EVENT_RENAME);
    path_at(directory_fd, to, event->path);
    path_at(directory_fd, from, event->other);
    for (unsigned i = 0; i < shim->event_count; i++) {
        if (shim->events[i].kind != EVENT_RENAME && strcmp(shim->events[i].path, event->other) == 0)
            memcpy(shim->events[i].path, event->path, sizeof event->path);
    }
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    if (fails())
        return -1;
    int failed = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
    if (failed == 0 && logging())
        log_rename(from_fd, from, to);
    return failed;
}

int unlinkat(int directory_fd, const char *name, int flags)
{
    wait_for_device();
    if (fails())
        return -1;
    if (logging() && faccessat(directory_fd, name, F_OK, 0) == 0) {
        struct event *event = new_event(EVENT_UNLINK);
        path_at(directory_fd, name, event->path);
        (void)snprintf(event->other, sizeof event->other, "%.200s/%u", shim->graveyard,
                       shim->event_count);
        (void)!linkat(directory_fd, name, AT_FDCWD, event->other, 0);
    }
    return (int)syscall(SYS_unlinkat, directory_fd, name, flags);
}

int mkdirat(int directory_fd, const char *name, mode_t mode)
{
    return fails() ? -1 : (int)syscall(SYS_mkdirat, directory_fd, name, mode);
}

/* ---- the story ---- */

struct tale {
    char base[TEST_PATH_BYTES], directory[TEST_PATH_BYTES];
    struct test_env env;
    struct cache *cache;
    struct store store;
};

static int open_tale(struct tale *tale, uint64_t capacity_bytes)
{
    const char *why;
    const struct cache_config config = {.capacity_bytes = capacity_bytes};
    test_env_init(&tale->env);
    int err = store_disk__new(&tale->env.env, tale->directory, &tale->store, &why);
    if (err != 0) {
        assert_non_null(why);
        return err;
    }
    assert_int_equal(cache_new(&tale->env.env, &config, &tale->store, &tale->cache), 0);
    return cache_recover(tale->cache, NULL, NULL) < 0 ? E_IO : 0;
}

static void close_tale(struct tale *tale)
{
    if (tale->cache != NULL) {
        cache__check_invariants(tale->cache);
        cache_free(tale->cache);
    }
    tale->cache = NULL;
    assert_int_equal(tale->env.live, 0);
}

static uint64_t now_us;

/* Each step ends with the janitor idle, so that the order of calls is the same each time. */
static void settled(struct tale *tale)
{
    store_disk__settle(&tale->store);
    cache__check_invariants(tale->cache);
    (void)test_drain(tale->cache);
}

static void put_piece(struct tale *tale, struct cache_blob *blob, uint32_t piece)
{
    int err = test_write(tale->cache, blob, piece, now_us += 60000000);
    if (err != E_EXISTS)
        assert_int_equal(bitfield_get(cache_blob_have(blob), piece), err == 0);
    settled(tale);
}

static void use_piece(struct tale *tale, struct cache_blob *blob, uint32_t piece)
{
    int err = test_read(tale->cache, blob, piece, now_us);
    if (err == E_CORRUPT || err == E_IO || err == E_NOT_FOUND)
        cache_drop_piece(tale->cache, blob, piece);
    settled(tale);
}

static struct cache_blob *get(struct tale *tale, uint32_t number, uint32_t pieces)
{
    struct digest digest = test_digest(number);
    struct cache_blob *blob;
    assert_int_equal(cache_get(tale->cache, &digest, (pieces - 1) * PIECE + 100 + number, &blob),
                     0);
    return blob;
}

static void seal(struct tale *tale, struct cache_blob *blob, uint32_t number)
{
    int err = cache_seal(tale->cache, blob);
    cache_seal_done(tale->cache, blob, err);
    shim->sealed[number] = err == 0;
    settled(tale);
}

/* Writes, seals, drops, evicts, repairs, removes. */
static void tell(struct tale *tale)
{
    struct cache_blob *a = get(tale, 1, 2);
    put_piece(tale, a, 1);
    put_piece(tale, a, 0);
    use_piece(tale, a, 0);
    seal(tale, a, 1);
    shim->sealed[1] = false; /* what is rewritten or evicted is not safe any more */
    cache_drop_piece(tale->cache, a, 1);
    settled(tale);
    put_piece(tale, a, 1);
    use_piece(tale, a, 1);
    cache_put(tale->cache, a);

    struct cache_blob *b = get(tale, 2, 3); /* does not fit beside the first */
    for (uint32_t piece = 0; piece < 3; piece++) {
        put_piece(tale, b, piece);
    }
    int fd;
    uint64_t offset;
    if (cache_open_fd(tale->cache, b, 1, &fd, &offset) == 0)
        close(fd);
    struct cache_blob *c = get(tale, 3, 1);
    put_piece(tale, c, 0);
    seal(tale, c, 3);
    cache_put(tale->cache, c);
    cache_drop_blob(tale->cache, b);
    cache_put(tale->cache, b);
    settled(tale);
}

/* ---- afterwards ---- */

/* Starts over with a well system. Right bytes or none; what was promised to be safe is there. */
static void check_restart(struct tale *tale)
{
    shim->armed = false;
    /* Room for all, so that what is missing was lost and not evicted. */
    assert_int_equal(open_tale(tale, 100 * PIECE), 0);
    for (uint32_t number = 1; number <= 3; number++) {
        struct digest digest = test_digest(number);
        struct cache_blob *blob = cache_find(tale->cache, &digest);
        assert_true(blob != NULL || !shim->sealed[number]);
        if (blob == NULL)
            continue;
        bool complete = cache_blob_complete(blob);
        assert_true(complete || !shim->sealed[number]);
        uint32_t pieces = cache_blob_layout(blob)->piece_count;
        for (uint32_t piece = 0; piece < pieces; piece++) {
            int err = test_read(tale->cache, blob, piece, 1);
            assert_true(err == 0 || err == E_NOT_FOUND || err == E_CORRUPT);
            if (err == E_CORRUPT)
                cache_drop_piece(tale->cache, blob, piece);
            if (err != 0) {
                assert_false(complete && shim->sealed[number] && number == 3);
                err = test_write(tale->cache, blob, piece, 1);
                assert_true(err == 0 || err == E_FULL);
            }
        }
        cache_put(tale->cache, blob);
    }
    struct cache_blob *blob = get(tale, 4, 1); /* and everything works again */
    assert_int_equal(test_write(tale->cache, blob, 0, 1), 0);
    assert_int_equal(cache_seal(tale->cache, blob), 0);
    cache_put(tale->cache, blob);
    close_tale(tale);
}

static void make_tale(struct tale *tale)
{
    memset(tale, 0, sizeof *tale);
    shim->armed = false;
    test_make_directory(tale->base);
    (void)snprintf(tale->directory, sizeof tale->directory, "%.400s/cache", tale->base);
    struct shim fresh_head = {.error = EIO};
    memcpy(shim, &fresh_head, offsetof(struct shim, events));
    memset(shim->sealed, 0, sizeof shim->sealed);
    (void)snprintf(shim->graveyard, sizeof shim->graveyard, "%.400s/graves", tale->base);
    assert_int_equal(mkdir(shim->graveyard, 0700), 0);
    now_us = 0;
}

/* ---- errors ---- */

/* True if the story met no failure. */
static bool run_failing(unsigned fail_at, bool fail_from, int error)
{
    struct tale tale;
    make_tale(&tale);
    shim->fail_at = fail_at;
    shim->fail_from = fail_from;
    shim->brief = error == 0;
    shim->error = error;
    shim->armed = true;
    if (open_tale(&tale, CAPACITY) == 0)
        tell(&tale);
    bool met = shim->calls >= fail_at;
    if (error == 0)
        assert_true(shim->sealed[3]); /* short counts go unnoticed */
    shim->armed = !fail_from;         /* it may be the closing that fails */
    close_tale(&tale);
    check_restart(&tale);
    test_remove_tree(tale.base);
    return !met;
}

/* With a stride the sweep begins anywhere in it, so that runs add up. */
static void sweep(int error, bool fail_from, unsigned stride)
{
    unsigned n = 1 + (unsigned)(test_seed() % stride);
    while (!run_failing(n, fail_from, error)) {
        n += stride;
        assert_true(n < 2000);
    }
    assert_true(n > 100);
}

static void any_call_may_fail_once(void **state) /* D-1, D-2, D-3, D-10 */
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC, EMFILE};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        sweep(errors[i], false, i == 0 ? 1 : 3);
}

static void all_calls_may_fail_from_some_on(void **state) /* D-1, D-4 */
{
    (void)state;
    static const int errors[] = {ENOSPC, EROFS};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        sweep(errors[i], true, 3);
}

static void short_counts_and_signals_change_nothing(void **state)
{
    (void)state;
    sweep(0, false, 2);
    sweep(EINTR, false, 2);
    struct tale tale; /* every read and write short */
    make_tale(&tale);
    shim->fail_at = 1;
    shim->fail_from = shim->brief = shim->armed = true;
    assert_int_equal(open_tale(&tale, CAPACITY), 0);
    tell(&tale);
    assert_true(shim->sealed[3]);
    close_tale(&tale);
    check_restart(&tale);
    test_remove_tree(tale.base);
}

static void failed_fsync_is_not_tried_again(void **state) /* DSK-3 */
{
    (void)state;
    struct tale tale;
    make_tale(&tale);
    assert_int_equal(open_tale(&tale, CAPACITY), 0);
    uint64_t id;
    struct digest digest = test_digest(1);
    struct piece_record record, got;
    uint8_t bytes[100], back[100];
    test_fill(&digest, 0, 0, bytes, sizeof bytes);
    record = test_record(0, bytes, sizeof bytes);
    struct store *store = &tale.store;
    assert_int_equal(store->create(store->self, &digest, PIECE_CUT_PLAIN, sizeof bytes, &id), 0);
    assert_int_equal(store->write(store->self, id, 0, bytes, sizeof bytes, &record), 0);
    shim->sync_fails = true;
    assert_int_equal(store->seal(store->self, id), E_IO);
    shim->sync_fails = false; /* the second one would succeed, and mean nothing */
    assert_int_equal(store->seal(store->self, id), E_IO);
    assert_int_equal(store->read(store->self, id, 0, back, sizeof back, &got), E_NOT_FOUND);
    assert_int_equal(store->write(store->self, id, 0, bytes, sizeof bytes, &record), E_NOT_FOUND);
    int fd;
    uint64_t offset;
    assert_int_equal(store->open_fd(store->self, id, 0, &fd, &offset), E_NOT_FOUND);
    assert_int_equal(store->remove(store->self, id), 0);
    close_tale(&tale);
    test_remove_tree(tale.base);
}

static uint64_t store_one(struct store *store, uint32_t number)
{
    uint64_t id;
    static uint8_t bytes[PIECE_BYTES_MIN];
    struct digest digest = test_digest(number);
    test_fill(&digest, 0, 0, bytes, sizeof bytes);
    struct piece_record record = test_record(0, bytes, sizeof bytes);
    assert_int_equal(store->create(store->self, &digest, PIECE_CUT_PLAIN, 2 * PIECE, &id), 0);
    assert_int_equal(store->write(store->self, id, 0, bytes, sizeof bytes, &record), 0);
    return id;
}

/* Room is made beforehand on a disk alone; where a write finds none half-way, none is left taken.
 */
static void memory_is_not_preallocated_and_keeps_no_part(void **state) /* D-1 */
{
    (void)state;
    for (unsigned memory = 0; memory < 2; memory++) {
        struct tale tale;
        make_tale(&tale);
        shim->memory = memory != 0;
        shim->preallocated = 0;
        assert_int_equal(open_tale(&tale, CAPACITY), 0);
        struct store *store = &tale.store;
        uint64_t id = store_one(store, 1), offset;
        assert_int_equal(shim->preallocated, memory != 0 ? 0 : 1);
        if (memory != 0) {
            static const uint8_t bytes[PIECE_BYTES_MIN];
            struct piece_record record = test_record(1, bytes, sizeof bytes), got;
            static uint8_t back[PIECE_BYTES_MIN];
            int fd;
            shim->full_after = PIECE / 2;
            assert_int_equal(store->write(store->self, id, 1, bytes, sizeof bytes, &record),
                             E_NO_SPACE);
            shim->full_after = 0;
            shim->full = false;
            assert_int_not_equal(store->read(store->self, id, 1, back, sizeof back, &got), 0);
            assert_int_equal(store->read(store->self, id, 0, back, sizeof back, &got), 0);
            assert_int_equal(store->open_fd(store->self, id, 0, &fd, &offset), 0);
            assert_int_equal(lseek(fd, (off_t)(offset + PIECE), SEEK_DATA), -1);
            assert_int_equal(errno, ENXIO);
            (void)close(fd);
            assert_int_equal(store->write(store->self, id, 1, bytes, sizeof bytes, &record), 0);
        }
        close_tale(&tale);
        test_remove_tree(tale.base);
    }
}

/* Were one of the loop's calls to wait for the device, this would never end. */
static void loop_does_not_wait_for_a_slow_device(void **state) /* D-14, DSK-4 */
{
    (void)state;
    struct tale tale;
    make_tale(&tale);
    assert_int_equal(open_tale(&tale, CAPACITY), 0);
    struct store *store = &tale.store;
    assert_true(store->free_bytes(store->self) == UINT64_MAX);
    shim->device_blocks = 1000;
    uint64_t a = store_one(store, 1), b = store_one(store, 2), c;
    assert_int_equal(store->free_bytes(store->self), 1000 * 4096);
    pthread_mutex_lock(&slow_device);
    assert_int_equal(store->drop(store->self, a, 0, 2), 0);
    assert_int_equal(store->free_bytes(store->self), 1000 * 4096 + PIECE); /* promised */
    assert_int_equal(store->drop(store->self, a, 0, 1), 0);
    assert_int_equal(store->remove(store->self, a), 0);
    assert_int_equal(store->free_bytes(store->self), 1000 * 4096 + PIECE); /* once */
    assert_int_equal(store->drop(store->self, b, 0, 1), 0);
    assert_int_equal(store->remove(store->self, b), 0);
    struct digest digest = test_digest(3);
    assert_int_equal(store->create(store->self, &digest, PIECE_CUT_PLAIN, PIECE, &c), 0);
    assert_int_equal(store->free_bytes(store->self), 1000 * 4096 + 2 * PIECE);
    pthread_mutex_unlock(&slow_device);
    store_disk__settle(store);
    assert_int_equal(store->free_bytes(store->self), 1000 * 4096); /* and kept */
    close_tale(&tale);
    test_remove_tree(tale.base);
}

/* ---- death ---- */

/* ThreadSanitizer does not support threads in a forked child. */
static void skip_under_tsan(void)
{
#ifdef __SANITIZE_THREAD__
    skip();
#endif
}

/* Runs the story in a child that dies at the n-th call. True if it lived. */
static bool run_dying(struct tale *tale, unsigned die_at, bool log)
{
    make_tale(tale);
    shim->fail_at = die_at;
    shim->kill = true;
    shim->log = log;
    shim->armed = true;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (open_tale(tale, CAPACITY) == 0)
            tell(tale);
        _exit(0); /* not closed either */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == KILLED);
    shim->armed = false;
    return WEXITSTATUS(status) == 0;
}

static void killed_at_any_call(void **state) /* D-7 */
{
    (void)state;
    skip_under_tsan();
    struct tale tale;
    bool lived = false;
    unsigned n = 1;
    for (; !lived; n++) {
        lived = run_dying(&tale, n, false);
        check_restart(&tale);
        test_remove_tree(tale.base);
        assert_true(n < 2000);
    }
    assert_true(n > 100);
}

/* ---- power loss ---- */

static struct prng prng;

static void lose_write(const struct event *event)
{
    int fd = open(event->path, O_WRONLY);
    if (fd < 0)
        return;
    uint64_t fate = prng_below(&prng, 3);
    static uint8_t zeros[512];
    for (uint32_t at = 0; at < event->length; at += 512) {
        uint32_t some = event->length - at < 512 ? event->length - at : 512;
        const uint8_t *old = at < event->old_bytes ? event->old + at : zeros;
        if (fate == 0 || (fate == 1 && prng_below(&prng, 2) == 0))
            (void)!pwrite(fd, old, some, (off_t)(event->offset + at));
    }
    close(fd);
}

static void lose_name(const struct event *event)
{
    uint64_t fate = prng_below(&prng, 4);
    if (fate == 0)
        (void)unlink(event->path);
    if (fate == 1)
        (void)!truncate(event->path, 0);
}

/* Takes back what no fsync covered, the latest first. */
static void lose_power(void)
{
    for (unsigned i = shim->event_count; i-- > 0;) {
        const struct event *event = &shim->events[i];
        if (event->synced)
            continue;
        if (event->kind == EVENT_WRITE)
            lose_write(event);
        else if (event->kind == EVENT_NAME)
            lose_name(event);
        else if (event->kind == EVENT_UNLINK && prng_below(&prng, 2) == 0)
            (void)!link(event->other, event->path);
        else if (event->kind == EVENT_RENAME && prng_below(&prng, 2) == 0)
            (void)!rename(event->path, event->other);
    }
}

static void power_lost_at_any_call(void **state) /* D-6 */
{
    (void)state;
    skip_under_tsan();
    struct tale tale;
    uint64_t seed = test_seed();
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    const char *rounds = getenv("ROUNDS"); /* more of them by hand: 75 make 10,000 points */
    unsigned points = 0;
    for (unsigned long left = rounds != NULL ? strtoul(rounds, NULL, 10) : 1; left > 0; left--) {
        bool lived = false;
        for (unsigned n = 20; !lived; n++, points++) {
            lived = run_dying(&tale, n, true);
            lose_power();
            check_restart(&tale);
            test_remove_tree(tale.base);
            assert_true(n < 2000);
        }
    }
    printf("figure: %u crash points with lost writes\n", points);
}

int main(void)
{
    test_use_memory_disk();
    shim = mmap(NULL, sizeof *shim, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shim == MAP_FAILED)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_may_fail_once),
        cmocka_unit_test(all_calls_may_fail_from_some_on),
        cmocka_unit_test(short_counts_and_signals_change_nothing),
        cmocka_unit_test(failed_fsync_is_not_tried_again),
        cmocka_unit_test(memory_is_not_preallocated_and_keeps_no_part),
        cmocka_unit_test(loop_does_not_wait_for_a_slow_device),
        cmocka_unit_test(killed_at_any_call),
        cmocka_unit_test(power_lost_at_any_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
