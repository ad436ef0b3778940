/* SPDX-License-Identifier: Apache-2.0 */
/* The content tier: what containerd holds is found, hashed before it is believed and again at every
 * read; junk, links, changed and vanished files are refused; nothing is written. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "cache_support.h"

#define PIECE     ((uint32_t)PIECE_BYTES_MIN)
#define SIZE      (2 * PIECE + 100)
#define PLUGIN    "io.containerd.content.v1.content"
#define NAME_ROOM 1024

static uint8_t content[SIZE], got[PIECE_BYTES_MIN];

struct rig {
    struct test_env env;
    struct store store;
    char root[TEST_PATH_BYTES];
    char folder[NAME_ROOM]; /* of the blobs */
    struct digest digest;   /* of `content` */
};

static void text(char *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void text(char *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(out, NAME_ROOM, format, args);
    va_end(args);
    assert_true(length > 0 && length < NAME_ROOM);
}

static void make_file(const char *path, const void *bytes, size_t byte_count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, byte_count), byte_count);
    (void)close(fd);
}

static const char *path_of(const struct rig *rig, const struct digest *digest, char out[NAME_ROOM])
{
    char hex[2 * DIGEST_BYTES_MAX + 1];
    hex_encode(digest->bytes, 32, hex);
    text(out, "%s/%s", rig->folder, hex);
    return out;
}

static void put(const struct rig *rig, const struct digest *digest, const void *bytes,
                size_t byte_count)
{
    char path[NAME_ROOM], temporary[NAME_ROOM];
    text(temporary, "%s/ingest", rig->root);
    make_file(temporary, bytes, byte_count);
    assert_int_equal(rename(temporary, path_of(rig, digest, path)), 0);
}

static void rig_start(struct rig *rig)
{
    static const char *const parts[] = {"", "/blobs", "/blobs/sha256"};
    memset(rig, 0, sizeof *rig);
    test_env_init(&rig->env);
    test_use_memory_disk();
    test_make_directory(rig->root);
    for (size_t i = 0; i < 3; i++) {
        text(rig->folder, "%s/" PLUGIN "%s", rig->root, parts[i]);
        assert_int_equal(mkdir(rig->folder, 0700), 0);
    }
    struct digest seed = test_digest(7);
    test_fill(&seed, 0, 0, content, SIZE);
    digest_of(DIGEST_SHA256, content, SIZE, &rig->digest);
    put(rig, &rig->digest, content, SIZE);
    assert_int_equal(store_content__new(&rig->env.env, rig->root, &rig->store), 0);
}

static void rig_stop(struct rig *rig)
{
    rig->store.close(rig->store.self);
    assert_int_equal(rig->env.live, 0);
    test_remove_tree(rig->root);
}

static int create(struct rig *rig, const struct digest *digest, uint64_t size, uint64_t *out)
{
    return rig->store.create(rig->store.self, digest, PIECE_CUT_PLAIN, size, out);
}

static int seal(struct rig *rig, uint64_t blob)
{
    int err;
    do {
        err = rig->store.seal(rig->store.self, blob);
    } while (err == E_AGAIN);
    return err;
}

static int get(struct rig *rig, uint64_t blob, uint32_t piece, uint32_t byte_count)
{
    struct piece_record record, zero;
    memset(&zero, 0, sizeof zero);
    int err = rig->store.read(rig->store.self, blob, piece, got, byte_count, &record);
    if (err != 0)
        return err;
    assert_memory_equal(got, content + (size_t)piece * PIECE, byte_count);
    assert_memory_equal(record.voucher.signature, zero.voucher.signature, VOUCHER_SIGNATURE_BYTES);
    assert_int_equal(record.voucher.piece_index, piece);
    assert_int_equal(record.voucher.piece_bytes, byte_count);
    return 0;
}

static uint64_t sealed_blob(struct rig *rig)
{
    uint64_t blob;
    assert_int_equal(create(rig, &rig->digest, SIZE, &blob), 0);
    assert_int_equal(seal(rig, blob), 0);
    return blob;
}

/* ---- the table ---- */

static void what_containerd_holds_is_read(void **state)
{
    (void)state;
    struct rig rig;
    uint64_t blob;
    int fd;
    rig_start(&rig);
    struct store *store = &rig.store;
    assert_int_equal(create(&rig, &rig.digest, SIZE, &blob), 0);
    struct piece_hash hash, wanted;
    for (uint32_t step = 0; step < 2; step++) {
        assert_int_equal(get(&rig, blob, 0, PIECE), E_AGAIN); /* nobody knows what it is */
        assert_int_equal(store_content_hash(store, blob, 0, &hash), E_AGAIN);
        assert_int_equal(store->seal(store->self, blob), E_AGAIN);
    }
    assert_int_equal(store->seal(store->self, blob), 0);
    assert_int_equal(store->seal(store->self, blob), 0); /* still there */
    assert_int_equal(get(&rig, blob, 0, PIECE), 0);
    assert_int_equal(get(&rig, blob, 2, 100), 0);
    assert_int_equal(get(&rig, blob, 1, PIECE), 0);
    assert_int_equal(get(&rig, blob, 1, 100), E_INVALID);
    assert_int_equal(get(&rig, blob, 3, PIECE), E_NOT_FOUND);
    piece_hash_of(content + PIECE, PIECE, &wanted);
    assert_int_equal(store_content_hash(store, blob, 1, &hash), 0);
    assert_memory_equal(&hash, &wanted, sizeof hash);
    assert_int_equal(store_content_hash(store, blob, 3, &hash), E_NOT_FOUND);
    uint64_t offset;
    struct piece_record record = test_record(0, content, PIECE);
    assert_int_equal(store->open_fd(store->self, blob, 0, &fd, &offset), E_UNSUPPORTED);
    assert_int_equal(store->write(store->self, blob, 0, content, PIECE, &record), E_UNSUPPORTED);
    assert_int_equal(store->drop(store->self, blob, 0, 3), 0);
    assert_int_equal(store->drop(store->self, blob, 2, 2), E_INVALID);
    assert_int_equal(get(&rig, blob, 0, PIECE), 0); /* not ours to give back */
    assert_true(store->free_bytes(store->self) == UINT64_MAX);
    assert_int_equal(store->remove(store->self, blob), 0);
    assert_int_equal(store->remove(store->self, blob), E_NOT_FOUND);
    assert_int_equal(store->drop(store->self, blob, 0, 1), E_NOT_FOUND);
    assert_int_equal(store->seal(store->self, blob), E_NOT_FOUND);
    assert_int_equal(get(&rig, blob, 0, PIECE), E_NOT_FOUND);
    char path[NAME_ROOM];
    assert_int_equal(access(path_of(&rig, &rig.digest, path), R_OK), 0);
    rig_stop(&rig);
}

static void root_and_folder_are_the_same(void **state)
{
    (void)state;
    struct rig rig;
    struct store other;
    char path[NAME_ROOM], folder[NAME_ROOM];
    uint64_t size = 0;
    rig_start(&rig);
    text(path, "%s/" PLUGIN, rig.root);
    assert_int_equal(store_content_new(path, &other), 0);
    assert_int_equal(store_content_find(&other, &rig.digest, &size), 0);
    assert_true(size == SIZE);
    assert_int_equal(store_content_find(&rig.store, &rig.digest, &size), 0);
    assert_int_equal(store_content_folder(&other, folder, sizeof folder), 0);
    assert_string_equal(folder, rig.folder);
    assert_int_equal(store_content_folder(&rig.store, folder, sizeof folder), 0);
    assert_string_equal(folder, rig.folder);
    assert_int_equal(store_content_folder(&rig.store, folder, 10), E_TOO_LARGE);
    other.close(other.self);
    char large[8192];
    memset(large, 'a', sizeof large);
    large[sizeof large - 1] = '\0';
    assert_int_equal(store_content__new(&rig.env.env, large, &other), E_TOO_LARGE);
    rig_stop(&rig);
}

static void empty_blob(void **state)
{
    (void)state;
    struct rig rig;
    struct digest digest;
    uint64_t blob;
    rig_start(&rig);
    digest_of(DIGEST_SHA256, "", 0, &digest);
    put(&rig, &digest, "", 0);
    assert_int_equal(create(&rig, &digest, 0, &blob), 0);
    assert_int_equal(rig.store.seal(rig.store.self, blob), 0);
    assert_int_equal(get(&rig, blob, 0, 0), E_NOT_FOUND);
    rig_stop(&rig);
}

/* ---- what is not a blob ---- */

static void what_is_no_blob_is_refused(void **state)
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM], target[NAME_ROOM];
    uint64_t blob, size;
    rig_start(&rig);
    struct digest absent = test_digest(1), link = test_digest(2), directory = test_digest(3),
                  pipe = test_digest(4), other = {.algorithm = DIGEST_SHA512};
    assert_int_equal(symlink(path_of(&rig, &rig.digest, target), path_of(&rig, &link, path)), 0);
    assert_int_equal(mkdir(path_of(&rig, &directory, path), 0700), 0);
    assert_int_equal(mkfifo(path_of(&rig, &pipe, path), 0600), 0);
    assert_int_equal(create(&rig, &absent, SIZE, &blob), E_NOT_FOUND);
    assert_int_equal(create(&rig, &link, SIZE, &blob), E_DENIED);
    assert_int_equal(create(&rig, &directory, SIZE, &blob), E_DENIED);
    assert_int_equal(create(&rig, &pipe, SIZE, &blob), E_DENIED);
    assert_int_equal(create(&rig, &other, SIZE, &blob), E_INVALID);
    assert_int_equal(create(&rig, &rig.digest, SIZE - 1, &blob), E_INVALID); /* INT-8 */
    assert_int_equal(store_content_find(&rig.store, &link, &size), E_DENIED);
    assert_int_equal(store_content_find(&rig.store, &absent, &size), E_NOT_FOUND);
    /* A hole of two terabytes costs its owner nothing, and must cost us nothing. */
    struct digest vast = test_digest(5);
    put(&rig, &vast, "", 0);
    if (truncate(path_of(&rig, &vast, path), INT64_C(1) << 41) == 0) {
        assert_int_equal(store_content_find(&rig.store, &vast, &size), E_TOO_LARGE);
        assert_int_equal(truncate(path, STORE_CONTENT_BYTES_MAX + 1), 0);
        assert_int_equal(store_content_find(&rig.store, &vast, &size), E_TOO_LARGE);
        assert_int_equal(create(&rig, &vast, STORE_CONTENT_BYTES_MAX + 1, &blob), E_TOO_LARGE);
        assert_int_equal(truncate(path, STORE_CONTENT_BYTES_MAX), 0);
        assert_int_equal(store_content_find(&rig.store, &vast, &size), 0);
        assert_int_equal(size, STORE_CONTENT_BYTES_MAX);
    }
    rig_stop(&rig);
}

static void links_on_the_way_are_not_followed(void **state)
{
    (void)state;
    struct rig rig;
    char place[NAME_ROOM], aside[NAME_ROOM];
    uint64_t size;
    rig_start(&rig);
    static const char *const parts[] = {"/blobs/sha256", "/blobs", ""};
    for (size_t i = 0; i < 3; i++) {
        text(place, "%s/" PLUGIN "%s", rig.root, parts[i]);
        text(aside, "%s/aside", rig.root);
        assert_int_equal(rename(place, aside), 0);
        assert_int_equal(symlink(aside, place), 0);
        assert_int_equal(store_content_find(&rig.store, &rig.digest, &size), E_NOT_FOUND);
        assert_int_equal(rig.store.recover(rig.store.self, NULL, NULL), E_NOT_FOUND);
        assert_int_equal(unlink(place), 0);
        assert_int_equal(rename(aside, place), 0);
        assert_int_equal(store_content_find(&rig.store, &rig.digest, &size), 0);
    }
    rig_stop(&rig);
}

static void without_permission(void **state)
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM], folder[NAME_ROOM];
    uint64_t size, blob;
    rig_start(&rig);
    blob = sealed_blob(&rig);
    assert_int_equal(chmod(path_of(&rig, &rig.digest, path), 0), 0);
    if (geteuid() == 0) {
        assert_int_equal(chmod(rig.root, 0711), 0);
        assert_int_equal(seteuid(65534), 0);
        assert_int_equal(store_content_find(&rig.store, &rig.digest, &size), E_DENIED);
        assert_int_equal(store_content_folder(&rig.store, folder, sizeof folder), E_DENIED);
        assert_int_equal(rig.store.recover(rig.store.self, NULL, NULL), E_DENIED);
        assert_int_equal(get(&rig, blob, 0, PIECE), E_DENIED);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(get(&rig, blob, 0, PIECE), 0);
    } else {
        assert_int_equal(store_content_find(&rig.store, &rig.digest, &size), E_DENIED);
        assert_int_equal(get(&rig, blob, 0, PIECE), E_DENIED);
    }
    rig_stop(&rig);
}

/* ---- what changes ---- */

static void flip(const char *path, off_t offset, bool secretly)
{
    struct stat before;
    uint8_t byte;
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &before), 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    struct timespec times[2] = {before.st_atim, before.st_mtim};
    if (!secretly)
        times[1].tv_sec++;
    assert_int_equal(futimens(fd, times), 0);
    (void)close(fd);
}

static void wrong_bytes_are_never_sealed(void **state) /* INT-5 */
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM];
    uint64_t blob;
    rig_start(&rig);
    flip(path_of(&rig, &rig.digest, path), 2 * PIECE + 7, true);
    assert_int_equal(create(&rig, &rig.digest, SIZE, &blob), 0);
    assert_int_equal(seal(&rig, blob), E_DIGEST);
    assert_int_equal(seal(&rig, blob), E_DIGEST);
    assert_int_equal(get(&rig, blob, 0, PIECE), E_AGAIN); /* not even what may be right */
    rig_stop(&rig);
}

static void later_damage_is_found_at_the_read(void **state) /* DSK-1, D-5 */
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM];
    rig_start(&rig);
    uint64_t blob = sealed_blob(&rig);
    flip(path_of(&rig, &rig.digest, path), PIECE + 7, true); /* rot: no time stamp tells */
    assert_int_equal(get(&rig, blob, 0, PIECE), 0);
    assert_int_equal(get(&rig, blob, 1, PIECE), E_CORRUPT);
    assert_int_equal(seal(&rig, blob), 0); /* it cannot see that */
    flip(path, PIECE + 7, false);          /* somebody wrote to it, whatever */
    assert_int_equal(get(&rig, blob, 0, PIECE), E_NOT_FOUND);
    assert_int_equal(seal(&rig, blob), E_NOT_FOUND);
    rig_stop(&rig);
}

static void gone_cut_and_replaced_files(void **state) /* D-8 */
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM];
    rig_start(&rig);
    uint64_t blob = sealed_blob(&rig);
    assert_int_equal(unlink(path_of(&rig, &rig.digest, path)), 0);
    assert_int_equal(get(&rig, blob, 0, PIECE), E_NOT_FOUND);
    assert_int_equal(seal(&rig, blob), E_NOT_FOUND);
    put(&rig, &rig.digest, content, SIZE); /* the same bytes, but who knows that */
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = 12345}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(get(&rig, blob, 0, PIECE), E_NOT_FOUND);
    uint64_t again = sealed_blob(&rig);
    assert_int_equal(get(&rig, again, 0, PIECE), 0);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, PIECE), 0);
    assert_int_equal(get(&rig, again, 0, PIECE), E_NOT_FOUND);
    test_remove_tree(rig.folder);
    assert_int_equal(get(&rig, again, 0, PIECE), E_NOT_FOUND);
    rig_stop(&rig);
}

static void changed_while_it_is_hashed(void **state)
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM];
    uint64_t blob;
    rig_start(&rig);
    assert_int_equal(create(&rig, &rig.digest, SIZE, &blob), 0);
    assert_int_equal(rig.store.seal(rig.store.self, blob), E_AGAIN);
    flip(path_of(&rig, &rig.digest, path), 7, false);
    flip(path, 7, false);
    assert_int_equal(rig.store.seal(rig.store.self, blob), E_NOT_FOUND);
    rig_stop(&rig);
}

/* ---- the walk ---- */

struct seen {
    uint32_t count;
    struct store_blob last;
};

static void saw(void *arg, const struct store_blob *blob, uint64_t id)
{
    struct seen *seen = arg;
    assert_true(id == 0 && !blob->complete && blob->have->set_count == 0);
    seen->count++;
    seen->last = *blob;
}

static void walk_passes_junk(void **state)
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM], hex[2 * DIGEST_BYTES_MAX + 1];
    static const char *const junk[] = {
        "a",
        "README",
        "0123",
        ".0000000000000000000000000000000000000000000000000000000000000000",
        "ABCDEF0000000000000000000000000000000000000000000000000000000000",
        "g000000000000000000000000000000000000000000000000000000000000000",
        "00000000000000000000000000000000000000000000000000000000000000000"};
    rig_start(&rig);
    for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
        text(path, "%s/%s", rig.folder, junk[i]);
        make_file(path, "x", 1);
    }
    struct digest link = test_digest(2), directory = test_digest(3), pipe = test_digest(4);
    assert_int_equal(symlink("/etc/passwd", path_of(&rig, &link, path)), 0);
    assert_int_equal(mkdir(path_of(&rig, &directory, path), 0700), 0);
    assert_int_equal(mkfifo(path_of(&rig, &pipe, path), 0600), 0);
    text(path, "%s/" PLUGIN "/ingest", rig.root);
    assert_int_equal(mkdir(path, 0700), 0);
    hex_encode(test_digest(9).bytes, 32, hex);
    text(path, "%s/" PLUGIN "/ingest/%s", rig.root, hex);
    make_file(path, "x", 1);
    struct seen seen = {0};
    assert_int_equal(rig.store.recover(rig.store.self, saw, &seen), 0);
    assert_int_equal(seen.count, 1);
    assert_true(digest_equal(&seen.last.digest, &rig.digest) && seen.last.size_bytes == SIZE);
    test_remove_tree(rig.folder);
    assert_int_equal(rig.store.recover(rig.store.self, saw, &seen), E_NOT_FOUND);
    assert_int_equal(seen.count, 1);
    rig_stop(&rig);
}

static void walk_has_an_end(void **state)
{
    (void)state;
    struct rig rig;
    char path[NAME_ROOM];
    rig_start(&rig);
    for (uint32_t i = 0; i < STORE_CONTENT_FILES_MAX; i++) {
        struct digest digest = {.algorithm = DIGEST_SHA256};
        store_be32(digest.bytes, i);
        make_file(path_of(&rig, &digest, path), "", 0);
    }
    struct seen seen = {0};
    assert_int_equal(rig.store.recover(rig.store.self, saw, &seen), E_TOO_LARGE);
    assert_int_equal(seen.count, STORE_CONTENT_FILES_MAX);
    rig_stop(&rig);
}

/* ---- memory ---- */

static void every_allocation_may_fail(void **state) /* D-9 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    int err = E_NO_MEMORY;
    unsigned fail = 0;
    for (unsigned nth = 1; err != 0; nth++) {
        uint64_t blob;
        assert_true(nth < 20);
        rig.env.calls = 0;
        rig.env.fail_at = nth;
        err = create(&rig, &rig.digest, SIZE, &blob);
        if (err != 0) {
            assert_int_equal(err, E_NO_MEMORY);
            fail++;
            continue;
        }
        err = seal(&rig, blob);
        if (err != 0) {
            assert_int_equal(err, E_NO_MEMORY);
            fail++;
            rig.env.fail_at = 0;
            assert_int_equal(seal(&rig, blob), 0); /* goes on where it was */
            assert_int_equal(get(&rig, blob, 2, 100), 0);
            err = E_NO_MEMORY;
        }
        assert_int_equal(rig.store.remove(rig.store.self, blob), 0);
    }
    assert_true(fail >= 5);
    rig.env.calls = 0;
    rig.env.fail_at = 1;
    struct store other;
    assert_int_equal(store_content__new(&rig.env.env, "/x", &other), E_NO_MEMORY);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_containerd_holds_is_read),
        cmocka_unit_test(root_and_folder_are_the_same),
        cmocka_unit_test(empty_blob),
        cmocka_unit_test(what_is_no_blob_is_refused),
        cmocka_unit_test(links_on_the_way_are_not_followed),
        cmocka_unit_test(without_permission),
        cmocka_unit_test(wrong_bytes_are_never_sealed),
        cmocka_unit_test(later_damage_is_found_at_the_read),
        cmocka_unit_test(gone_cut_and_replaced_files),
        cmocka_unit_test(changed_while_it_is_hashed),
        cmocka_unit_test(walk_passes_junk),
        cmocka_unit_test(walk_has_an_end),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
