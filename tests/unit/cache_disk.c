/* SPDX-License-Identifier: Apache-2.0 */
/* The disk tier, through the cache as the host uses it: what survives a restart, what is verified,
 * what a hostile or decaying directory can do, what the directory must be. */
#include "cache_support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../../src/cache/crc32c.h"
#include "../../src/cache/record.h"
#include "bytes.h"

#define PIECE ((uint32_t)PIECE_BYTES_MIN)

struct rig {
    struct test_env env;
    char directory[TEST_PATH_BYTES];
    struct cache *cache;
    struct store store;
    uint64_t capacity_bytes;
    int recovered;
};

static void rig_open(struct rig *rig)
{
    const char *why = "unset";
    assert_int_equal(store_disk__new(&rig->env.env, rig->directory, &rig->store, &why), 0);
    assert_null(why);
    const struct cache_config config = {.capacity_bytes = rig->capacity_bytes};
    assert_int_equal(cache_new(&rig->env.env, &config, &rig->store, &rig->cache), 0);
    rig->recovered = cache_recover(rig->cache, NULL, NULL);
    cache__check_invariants(rig->cache);
}

static void rig_close(struct rig *rig)
{
    cache__check_invariants(rig->cache);
    cache_free(rig->cache);
    assert_int_equal(rig->env.live, 0);
}

static void rig_start(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    test_env_init(&rig->env);
    rig->capacity_bytes = 1000 * (uint64_t)PIECE;
    test_make_directory(rig->directory);
    rig_open(rig);
}

static void rig_restart(struct rig *rig)
{
    rig_close(rig);
    rig_open(rig);
}

static void rig_stop(struct rig *rig)
{
    rig_close(rig);
    test_remove_tree(rig->directory);
}

static struct cache_blob *get(struct rig *rig, uint32_t number, uint64_t size_bytes)
{
    struct digest digest = test_digest(number);
    struct cache_blob *blob = NULL;
    assert_int_equal(cache_get(rig->cache, &digest, size_bytes, &blob), 0);
    return blob;
}

static struct cache_blob *find(struct rig *rig, uint32_t number)
{
    struct digest digest = test_digest(number);
    return cache_find(rig->cache, &digest);
}

/* A blob of `pieces` pieces and 100 bytes, written whole. */
static struct cache_blob *whole(struct rig *rig, uint32_t number, uint32_t pieces)
{
    struct cache_blob *blob = get(rig, number, (uint64_t)pieces * PIECE + 100);
    for (uint32_t piece = 0; piece <= pieces; piece++)
        assert_int_equal(test_write(rig->cache, blob, piece, 1), 0);
    return blob;
}

static void seal(struct rig *rig, struct cache_blob *blob)
{
    assert_int_equal(cache_seal(rig->cache, blob), 0);
    cache_seal_done(rig->cache, blob, 0);
}

/* Path of a blob's file with this ending; false if there is none. Serials are small here. */
static bool path_of(const struct rig *rig, uint32_t number, const char *ending,
                    char out[TEST_PATH_BYTES])
{
    char hex[65];
    struct digest digest = test_digest(number);
    hex_encode(digest.bytes, 32, hex);
    for (unsigned serial = 0; serial < 256; serial++) {
        int length = snprintf(out, TEST_PATH_BYTES, "%s/sha256/%.2s/%s-%016x%s", rig->directory,
                              hex, hex, serial, ending);
        assert_true(length > 0 && length < TEST_PATH_BYTES);
        if (access(out, F_OK) == 0)
            return true;
    }
    return false;
}

static void change_byte(const char *path, off_t offset)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static uint64_t blocks_bytes(const char *path)
{
    struct stat figures;
    assert_int_equal(stat(path, &figures), 0);
    return (uint64_t)figures.st_blocks * 512;
}

/* ---- keeping ---- */

static void pieces_survive_a_restart(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 5), *b = get(&rig, 2, 9 * PIECE);
    assert_int_equal(test_write(rig.cache, b, 8, 1), 0);
    assert_int_equal(test_write(rig.cache, b, 3, 1), 0);
    assert_int_equal(test_read(rig.cache, a, 5, 2), 0);
    seal(&rig, a);
    for (uint32_t piece = 0; piece <= 5; piece++)
        assert_int_equal(test_read(rig.cache, a, piece, 2), 0);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_restart(&rig);
    assert_int_equal(rig.recovered, 2);
    a = find(&rig, 1);
    b = find(&rig, 2);
    assert_true(cache_blob_complete(a));
    assert_false(cache_blob_complete(b));
    assert_int_equal(cache_blob_size(a), 5 * PIECE + 100);
    for (uint32_t piece = 0; piece <= 5; piece++)
        assert_int_equal(test_read(rig.cache, a, piece, 2), 0);
    for (uint32_t piece = 0; piece < 9; piece++)
        assert_int_equal(test_read(rig.cache, b, piece, 2),
                         piece == 3 || piece == 8 ? 0 : E_NOT_FOUND);
    assert_int_equal(test_write(rig.cache, b, 4, 3), 0); /* and it goes on */
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

static void both_cuts_survive_a_restart(void **state)
{
    (void)state;
    struct rig rig;
    struct digest digest = test_digest(1);
    struct cache_blob *fine;
    rig_start(&rig);
    struct cache_blob *plain = whole(&rig, 1, 5);
    assert_int_equal(
        cache_get_cut(rig.cache, &digest, PIECE_CUT_FINE, cache_blob_size(plain), &fine), 0);
    assert_int_equal(test_write(rig.cache, fine, 7, 1), 0);
    assert_int_equal(test_write(rig.cache, fine, 40, 1), 0); /* of 41: 100 bytes */
    seal(&rig, plain);
    cache_put(rig.cache, plain);
    cache_put(rig.cache, fine);
    for (unsigned i = 0; i < 2; i++) {
        rig_restart(&rig);
        assert_int_equal(rig.recovered, 2);
        plain = find(&rig, 1);
        fine = cache_find_cut(rig.cache, &digest, PIECE_CUT_FINE);
        assert_non_null(fine);
        assert_true(cache_blob_complete(plain));
        assert_false(cache_blob_complete(fine));
        assert_int_equal(cache_blob_have(plain)->set_count, 6);
        assert_int_equal(cache_blob_have(fine)->set_count, 2);
        assert_int_equal(test_read(rig.cache, plain, 5, 2), 0);
        assert_int_equal(test_read(rig.cache, fine, 7, 2), 0);
        assert_int_equal(test_read(rig.cache, fine, 40, 2), 0);
        assert_int_equal(test_read(rig.cache, fine, 8, 2), E_NOT_FOUND);
        cache_put(rig.cache, plain);
        cache_put(rig.cache, fine);
    }
    fine = cache_find_cut(rig.cache, &digest, PIECE_CUT_FINE);
    cache_drop_blob(rig.cache, fine); /* the other stays */
    cache_put(rig.cache, fine);
    rig_restart(&rig);
    assert_int_equal(rig.recovered, 1);
    assert_null(cache_find_cut(rig.cache, &digest, PIECE_CUT_FINE));
    rig_stop(&rig);
}

static void note_found(void *arg, struct cache_blob *blob)
{
    unsigned *found = arg;
    assert_true(cache_blob_have(blob)->set_count > 0);
    (*found)++;
}

static void recovery_tells_each_blob(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    for (uint32_t i = 1; i <= 5; i++) {
        struct cache_blob *a = whole(&rig, i, 1);
        cache_put(rig.cache, a);
    }
    rig_close(&rig);
    const char *why;
    unsigned found = 0;
    const struct cache_config config = {.capacity_bytes = rig.capacity_bytes, .blobs_max = 4};
    assert_int_equal(store_disk__new(&rig.env.env, rig.directory, &rig.store, &why), 0);
    assert_int_equal(cache_new(&rig.env.env, &config, &rig.store, &rig.cache), 0);
    assert_int_equal(cache_recover(rig.cache, note_found, &found), 4);
    assert_int_equal(found, 4);
    rig_restart(&rig);
    assert_int_equal(rig.recovered, 4); /* what found no place was removed */
    rig_stop(&rig);
}

static void long_record_is_read_in_parts(void **state)
{
    (void)state;
    struct rig rig;
    static const uint32_t pieces[] = {0, 1, 339, 340, 341, 449, 450};
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    struct cache_blob *a = get(&rig, 1, 450 * (uint64_t)PIECE + 7);
    assert_int_equal(cache_blob_layout(a)->piece_count, 451);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        assert_int_equal(test_write(rig.cache, a, pieces[i], 1), 0);
    assert_int_equal(cache_seal(rig.cache, a), E_NOT_FOUND); /* looks at all of them */
    cache_put(rig.cache, a);
    rig_restart(&rig);
    a = find(&rig, 1);
    assert_int_equal(cache_blob_have(a)->set_count, sizeof pieces / sizeof pieces[0]);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        assert_int_equal(test_read(rig.cache, a, pieces[i], 1), 0);
    cache_put(rig.cache, a);
    rig_close(&rig);
    assert_true(path_of(&rig, 1, ".part", path));
    change_byte(path, RECORD_HEADER_BYTES + 450 * RECORD_SLOT_BYTES); /* in the second part */
    rig_open(&rig);
    a = find(&rig, 1);
    assert_false(bitfield_get(cache_blob_have(a), 450));
    assert_true(bitfield_get(cache_blob_have(a), 449));
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void long_runs_are_given_back_in_steps(void **state)
{
    (void)state;
    struct rig rig;
    uint64_t id;
    static uint8_t bytes[PIECE_BYTES_MIN];
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    struct store *store = &rig.store;
    struct digest digest = test_digest(1);
    assert_int_equal(
        store->create(store->self, &digest, PIECE_CUT_PLAIN, 200 * (uint64_t)PIECE, &id), 0);
    for (uint32_t piece = 0; piece < 200; piece += 40) {
        struct piece_record record = test_record(piece, bytes, PIECE);
        assert_int_equal(store->write(store->self, id, piece, bytes, PIECE, &record), 0);
    }
    assert_true(path_of(&rig, 1, ".data", path));
    assert_true(blocks_bytes(path) >= 5 * PIECE);
    assert_int_equal(store->drop(store->self, id, 0, 200), 0);
    store_disk__settle(store);
    assert_int_equal(blocks_bytes(path), 0);
    struct piece_record record;
    assert_int_equal(store->read(store->self, id, 40, bytes, PIECE, &record), E_NOT_FOUND);
    rig_stop(&rig);
}

static void name_says_complete_only_after_the_seal(void **state) /* INT-5 */
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 2);
    assert_true(path_of(&rig, 1, ".part", path));
    assert_false(path_of(&rig, 1, ".rec", path));
    cache_put(rig.cache, a);
    rig_restart(&rig);
    a = find(&rig, 1);
    assert_false(cache_blob_complete(a)); /* all pieces there, but nobody hashed the whole */
    seal(&rig, a);
    assert_int_equal(cache_seal(rig.cache, a), 0);
    assert_false(path_of(&rig, 1, ".part", path));
    assert_true(path_of(&rig, 1, ".rec", path));
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void sealed_blob_takes_only_the_bytes_it_had(void **state) /* INT-5 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    struct cache_blob *a = get(&rig, 1, 2 * PIECE);
    assert_int_equal(test_write(rig.cache, a, 0, 1), 0);
    assert_int_equal(cache_seal(rig.cache, a), E_NOT_FOUND); /* piece 1's hash is not known */
    cache_seal_done(rig.cache, a, E_NOT_FOUND);
    assert_int_equal(test_write(rig.cache, a, 1, 1), 0);
    cache_drop_piece(rig.cache, a, 1); /* evicted or so: the hash stays */
    seal(&rig, a);
    assert_int_equal(test_write_variant(rig.cache, a, 1, 7, 2), E_DIGEST);
    assert_int_equal(test_read(rig.cache, a, 1, 2), E_NOT_FOUND);
    cache_put(rig.cache, a);
    rig_restart(&rig);
    a = find(&rig, 1);
    assert_true(cache_blob_complete(a));
    assert_int_equal(test_write_variant(rig.cache, a, 1, 7, 2), E_DIGEST);
    assert_int_equal(test_write(rig.cache, a, 1, 2), 0);
    assert_int_equal(test_read(rig.cache, a, 1, 2), 0);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void sha512_blobs_have_a_place_too(void **state) /* ORG-8 */
{
    (void)state;
    struct rig rig;
    struct digest digest;
    struct cache_blob *blob;
    rig_start(&rig);
    digest_of(DIGEST_SHA512, "x", 1, &digest);
    assert_int_equal(cache_get(rig.cache, &digest, PIECE, &blob), 0);
    assert_int_equal(test_write(rig.cache, blob, 0, 1), 0);
    seal(&rig, blob);
    cache_put(rig.cache, blob);
    rig_restart(&rig);
    blob = cache_find(rig.cache, &digest);
    assert_non_null(blob);
    assert_int_equal(test_read(rig.cache, blob, 0, 1), 0);
    cache_put(rig.cache, blob);
    rig_stop(&rig);
}

static void fd_gives_the_verified_bytes(void **state) /* DSK-1 */
{
    (void)state;
    struct rig rig;
    int fd;
    uint64_t offset;
    static uint8_t got[PIECE_BYTES_MIN], wanted[PIECE_BYTES_MIN];
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 2);
    assert_int_equal(cache_open_fd(rig.cache, a, 1, &fd, &offset), 0);
    assert_int_equal(offset, PIECE);
    cache_drop_blob(rig.cache, a);
    cache_put(rig.cache, a);
    store_disk__settle(&rig.store);
    close(fd);

    a = whole(&rig, 2, 2);
    cache_put(rig.cache, a);
    rig_restart(&rig);
    a = find(&rig, 2);
    assert_int_equal(cache_open_fd(rig.cache, a, 1, &fd, &offset), E_AGAIN); /* not seen yet */
    assert_int_equal(test_read(rig.cache, a, 1, 1), 0);
    assert_int_equal(cache_open_fd(rig.cache, a, 1, &fd, &offset), 0);
    assert_int_equal(pread(fd, got, PIECE, (off_t)offset), PIECE);
    test_fill(cache_blob_digest(a), 1, 0, wanted, PIECE);
    assert_memory_equal(got, wanted, PIECE);
    close(fd);
    cache_drop_piece(rig.cache, a, 1);
    assert_int_equal(cache_open_fd(rig.cache, a, 1, &fd, &offset), E_NOT_FOUND);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

/* ---- giving back ---- */

static void evicted_pieces_give_their_room_back(void **state)
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    const uint32_t some = TEST_SEGMENT;
    struct cache_blob *a = whole(&rig, 1, 2 * some), *b;
    assert_true(path_of(&rig, 1, ".data", path));
    assert_true(blocks_bytes(path) >= 2 * some * PIECE);
    cache_drop_piece(rig.cache, a, 2);
    store_disk__settle(&rig.store);
    uint64_t rest = (2 * some - 1) * PIECE;
    assert_in_range(blocks_bytes(path), rest, rest + 64 * 1024);
    cache_put(rig.cache, a);
    rig_close(&rig);
    rig.capacity_bytes = some * PIECE + 100;
    rig_open(&rig); /* a smaller cache than before */
    struct cache_stats stats;
    cache_stats(rig.cache, &stats);
    assert_true(stats.bytes <= rig.capacity_bytes);
    assert_int_equal(test_drain(rig.cache), 0); /* nobody knew them yet */
    store_disk__settle(&rig.store);
    assert_in_range(blocks_bytes(path), some * PIECE, some * PIECE + 64 * 1024);
    b = whole(&rig, 2, some);
    assert_null(find(&rig, 1));
    store_disk__settle(&rig.store);
    assert_int_equal(access(path, F_OK), -1); /* the whole blob went */
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

static void piece_written_again_at_once_is_not_punched(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 3);
    for (unsigned round = 0; round < 200; round++) {
        uint32_t piece = round % 4;
        cache_drop_piece(rig.cache, a, piece);
        cache_drop_piece(rig.cache, a, (piece + 2) % 4);
        assert_int_equal(test_write(rig.cache, a, piece, round), 0);
        assert_int_equal(test_read(rig.cache, a, piece, round), 0);
        assert_int_equal(test_write(rig.cache, a, (piece + 2) % 4, round), 0);
    }
    store_disk__settle(&rig.store);
    for (uint32_t piece = 0; piece <= 3; piece++)
        assert_int_equal(test_read(rig.cache, a, piece, 1), 0);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

/* ---- decay and mischief ---- */

static void any_changed_byte_is_found(void **state) /* DSK-1, D-5 */
{
    (void)state;
    struct rig rig;
    char data[TEST_PATH_BYTES], record[TEST_PATH_BYTES];
    uint64_t random = test_seed();
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 2);
    seal(&rig, a);
    assert_true(path_of(&rig, 1, ".data", data));
    assert_true(path_of(&rig, 1, ".rec", record));
    for (unsigned round = 0; round < 60; round++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        off_t at = (off_t)((random >> 20) % (2 * PIECE + 100));
        change_byte(data, at);
        assert_int_equal(test_read(rig.cache, a, (uint32_t)(at / PIECE), 1), E_CORRUPT);
        change_byte(data, at); /* and back */
        assert_int_equal(test_read(rig.cache, a, (uint32_t)(at / PIECE), 1), 0);
    }
    for (off_t at = 0; at < RECORD_SLOT_BYTES; at++) {
        off_t where = RECORD_HEADER_BYTES + RECORD_SLOT_BYTES + at;
        change_byte(record, where);
        assert_int_equal(test_read(rig.cache, a, 1, 1), E_CORRUPT);
        change_byte(record, where);
    }
    assert_int_equal(test_read(rig.cache, a, 1, 1), 0);
    change_byte(data, 5);
    assert_int_equal(test_read(rig.cache, a, 0, 1), E_CORRUPT);
    cache_drop_piece(rig.cache, a, 0);
    assert_int_equal(test_write(rig.cache, a, 0, 2), 0); /* refetched */
    assert_int_equal(test_read(rig.cache, a, 0, 2), 0);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void damaged_record_is_discarded_at_start(void **state) /* DSK-2, D-5, D-6 */
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    for (off_t at = 0; at < RECORD_HEADER_BYTES; at += 5) {
        struct cache_blob *a = whole(&rig, 1, 2), *b = whole(&rig, 2, 2);
        seal(&rig, a);
        cache_put(rig.cache, a);
        cache_put(rig.cache, b);
        rig_close(&rig);
        assert_true(path_of(&rig, 1, ".rec", path));
        change_byte(path, at);
        rig_open(&rig);
        assert_int_equal(rig.recovered, 1);
        assert_null(find(&rig, 1));
        assert_false(path_of(&rig, 1, ".rec", path));
        assert_false(path_of(&rig, 1, ".data", path));
        b = find(&rig, 2);
        cache_drop_blob(rig.cache, b);
        cache_put(rig.cache, b);
    }
    rig_stop(&rig);
}

/* Blobs that were cut in longer pieces: as many of them as today, or fewer. */
static const uint32_t sizes_cut_anew[] = {1, PIECE, PIECE + 1, 2 * PIECE, 21 * PIECE + 100};

/* The record of a whole blob as a build writes it that cuts in pieces twice as long. */
static void write_coarse_record(const char *path, uint64_t size_bytes)
{
    static uint8_t bytes[PIECE_BYTES_MIN], old[RECORD_HEADER_BYTES + 256 * RECORD_SLOT_BYTES];
    uint32_t length = 2 * PIECE, count = (uint32_t)((size_bytes + length - 1) / length);
    struct record_header header;
    struct piece_layout layout;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && count <= 256);
    assert_int_equal(pread(fd, old, RECORD_HEADER_BYTES, 0), RECORD_HEADER_BYTES);
    assert_int_equal(record_decode_header(old, RECORD_HEADER_BYTES, &header, &layout), 0);
    store_be32(old + 96, length);
    store_be32(old + 100, count);
    store_be32(old + RECORD_HEADER_BYTES - 4, crc32c(old, RECORD_HEADER_BYTES - 4));
    for (uint32_t piece = 0; piece < count; piece++) {
        struct record_slot slot = {.state = RECORD_HAVE};
        slot.voucher = test_record(piece, bytes, PIECE).voucher;
        slot.voucher.piece_bytes =
            piece + 1 < count ? length : (uint32_t)(size_bytes - (uint64_t)piece * length);
        record_encode_slot(&slot, header.serial, old + record_slot_offset(piece));
    }
    size_t old_bytes = record_slot_offset(count);
    assert_int_equal(pwrite(fd, old, old_bytes, 0), (ssize_t)old_bytes);
    assert_int_equal(ftruncate(fd, (off_t)old_bytes), 0);
    close(fd);
}

/* After an upgrade: what was cut otherwise is dropped whole, with its room; no byte of it is read
 * as a piece of today's; the rest of the cache stays. */
static void records_of_an_older_layout_are_dropped_at_start(void **state) /* DSK-1, DSK-2 */
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    for (unsigned i = 0; i < 2 * sizeof sizes_cut_anew / sizeof sizes_cut_anew[0]; i++) {
        uint64_t size_bytes = sizes_cut_anew[i / 2];
        bool sealed = i % 2 == 1;
        struct cache_blob *old = get(&rig, 1, size_bytes), *kept = whole(&rig, 2, 2);
        uint32_t pieces = cache_blob_layout(old)->piece_count;
        for (uint32_t piece = 0; piece < pieces; piece++)
            assert_int_equal(test_write(rig.cache, old, piece, 1), 0);
        if (sealed)
            seal(&rig, old);
        cache_put(rig.cache, old);
        cache_put(rig.cache, kept);
        rig_close(&rig);
        assert_true(path_of(&rig, 1, sealed ? ".rec" : ".part", path));
        write_coarse_record(path, size_bytes);
        rig_open(&rig);
        assert_int_equal(rig.recovered, 1);
        assert_null(find(&rig, 1));
        assert_int_equal(access(path, F_OK), -1);
        assert_false(path_of(&rig, 1, ".data", path));
        old = get(&rig, 1, size_bytes); /* anew, as if it had never been there */
        assert_int_equal(cache_blob_have(old)->set_count, 0);
        assert_int_equal(test_read(rig.cache, old, 0, 1), E_NOT_FOUND);
        assert_int_equal(test_write(rig.cache, old, pieces - 1, 1), 0);
        assert_int_equal(test_read(rig.cache, old, pieces - 1, 1), 0);
        kept = find(&rig, 2);
        assert_int_equal(cache_blob_have(kept)->set_count, 3);
        cache_drop_blob(rig.cache, old);
        cache_drop_blob(rig.cache, kept);
        cache_put(rig.cache, old);
        cache_put(rig.cache, kept);
    }
    rig_stop(&rig);
}

static void damaged_slot_unseals_the_blob_at_start(void **state) /* INT-5, D-6 */
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 2);
    seal(&rig, a);
    cache_put(rig.cache, a);
    rig_close(&rig);
    assert_true(path_of(&rig, 1, ".rec", path));
    change_byte(path, RECORD_HEADER_BYTES + RECORD_SLOT_BYTES + 100);
    rig_open(&rig);
    a = find(&rig, 1);
    assert_false(cache_blob_complete(a));
    assert_int_equal(test_read(rig.cache, a, 0, 1), 0);
    assert_int_equal(test_read(rig.cache, a, 1, 1), E_NOT_FOUND);
    assert_int_equal(test_read(rig.cache, a, 2, 1), 0);
    assert_false(path_of(&rig, 1, ".rec", path));
    assert_int_equal(test_write(rig.cache, a, 1, 2), 0);
    seal(&rig, a);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void sizes_that_do_not_fit_are_discarded_at_start(void **state) /* INT-8 */
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    for (unsigned i = 0; i < 4; i++) {
        struct cache_blob *a = whole(&rig, 1, 2);
        cache_put(rig.cache, a);
        rig_close(&rig);
        assert_true(path_of(&rig, 1, i < 2 ? ".part" : ".data", path));
        off_t right = i < 2 ? RECORD_HEADER_BYTES + 3 * RECORD_SLOT_BYTES : 2 * PIECE + 100;
        assert_int_equal(truncate(path, i % 2 == 0 ? right - 1 : right + 1), 0);
        rig_open(&rig);
        assert_int_equal(rig.recovered, 0);
        assert_false(path_of(&rig, 1, ".data", path));
        assert_false(path_of(&rig, 1, ".part", path));
    }
    rig_stop(&rig);
}

static void record_of_another_blob_is_discarded_at_start(void **state)
{
    (void)state;
    struct rig rig;
    char from[TEST_PATH_BYTES], to[TEST_PATH_BYTES], path[TEST_PATH_BYTES];
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 2), *b = whole(&rig, 2, 2);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_close(&rig);
    assert_true(path_of(&rig, 1, ".part", from));
    assert_true(path_of(&rig, 2, ".part", to));
    assert_int_equal(rename(from, to), 0); /* 1's data is an orphan now */
    rig_open(&rig);
    assert_int_equal(rig.recovered, 0);
    assert_false(path_of(&rig, 1, ".data", path));
    assert_false(path_of(&rig, 2, ".data", path));
    rig_stop(&rig);
}

static void what_is_not_ours_is_cleared_away_at_start(void **state) /* DSK-2, DSK-5 */
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES], fan[TEST_PATH_BYTES], kept[TEST_PATH_BYTES + 16];
    char name[TEST_PATH_BYTES + 128];
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 1);
    cache_put(rig.cache, a);
    assert_true(path_of(&rig, 1, ".part", path));
    rig_close(&rig);
    memcpy(fan, path, sizeof fan);
    *strrchr(fan, '/') = '\0';
    const char *hex = strrchr(fan, '/') + 1;
    assert_int_equal(snprintf(kept, sizeof kept, "%s/outside", rig.directory) > 0, 1);
    int fd = open(kept, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0 && write(fd, "keep", 4) == 4);
    close(fd);
    static const char *const names[] = {"junk", ".part", "x.rec"};
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", fan, names[i]);
        assert_int_equal(symlink(kept, name), 0);
    }
    /* A serial that nobody counted to, a blob in another's directory, a linked directory. */
    (void)snprintf(name, sizeof name, "%s/%s%062d-ffffffffffffffff.rec", fan, hex, 0);
    close(open(name, O_CREAT | O_RDWR, 0600));
    (void)snprintf(name, sizeof name, "%s/%s%062d-%016d.rec", fan, strcmp(hex, "00") ? "00" : "01",
                   0, 7);
    close(open(name, O_CREAT | O_RDWR, 0600));
    (void)snprintf(name, sizeof name, "%.300s/sha256/%s", rig.directory,
                   strcmp(hex, "ab") ? "ab" : "cd");
    assert_int_equal(symlink(fan, name), 0);
    /* A record that is a link, one that is a pipe, a directory in its place. */
    (void)snprintf(name, sizeof name, "%s/%s%062d-%016d.rec", fan, hex, 0, 7);
    assert_int_equal(symlink(kept, name), 0);
    (void)snprintf(name, sizeof name, "%s/%s%062d-%016d.part", fan, hex, 0, 8);
    assert_int_equal(mkfifo(name, 0600), 0);
    (void)snprintf(name, sizeof name, "%s/%s%062d-%016d.part", fan, hex, 0, 9);
    assert_int_equal(mkdir(name, 0700), 0);
    rig_open(&rig);
    assert_int_equal(rig.recovered, 1);
    assert_int_equal(access(kept, F_OK), 0); /* links are removed, not followed */
    (void)snprintf(name, sizeof name, "%s/junk", fan);
    assert_int_equal(access(name, F_OK), -1);
    (void)snprintf(name, sizeof name, "%s/%s%062d-ffffffffffffffff.rec", fan, hex, 0);
    assert_int_equal(access(name, F_OK), -1);
    (void)snprintf(name, sizeof name, "%s/%s%062d-%016d.part", fan, hex, 0, 8);
    assert_int_equal(access(name, F_OK), -1);
    rig_stop(&rig);
}

static void data_file_that_became_a_link_is_not_followed(void **state) /* DSK-5, ORG-8 */
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES], moved[TEST_PATH_BYTES + 16];
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 1);
    assert_true(path_of(&rig, 1, ".data", path));
    (void)snprintf(moved, sizeof moved, "%s/moved", rig.directory);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink(moved, path), 0);
    assert_int_equal(test_read(rig.cache, a, 0, 1), E_IO);
    cache_drop_piece(rig.cache, a, 0);
    assert_int_equal(test_write(rig.cache, a, 0, 1), E_IO);
    cache_put(rig.cache, a);
    rig_restart(&rig);
    assert_int_equal(rig.recovered, 0);
    assert_int_equal(access(moved, F_OK), 0);
    rig_stop(&rig);
}

static void files_that_vanish_are_misses(void **state) /* D-8 */
{
    (void)state;
    struct rig rig;
    char command[TEST_PATH_BYTES], path[TEST_PATH_BYTES];
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 4), *b = whole(&rig, 2, 4);
    seal(&rig, b);
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(command, sizeof command, "%.400s/%s", rig.directory,
                       i == 0 ? "sha256" : "sha512");
        test_remove_tree(command);
    }
    assert_int_equal(test_read(rig.cache, a, 0, 1), E_NOT_FOUND);
    assert_int_equal(test_read(rig.cache, b, 0, 1), E_NOT_FOUND);
    cache_drop_piece(rig.cache, a, 0);
    cache_drop_piece(rig.cache, b, 0);
    assert_int_equal(test_write(rig.cache, a, 0, 2), E_NOT_FOUND); /* noticed */
    assert_int_equal(test_write(rig.cache, a, 0, 2), 0);           /* made anew */
    assert_int_equal(test_read(rig.cache, a, 0, 2), 0);
    assert_int_equal(test_read(rig.cache, a, 3, 2), E_NOT_FOUND);
    assert_int_equal(test_write(rig.cache, b, 0, 2), E_NOT_FOUND);
    assert_int_equal(test_write(rig.cache, b, 0, 2), E_NOT_FOUND); /* sealed: hashes are gone */
    assert_int_equal(cache_seal(rig.cache, a), E_NOT_FOUND);
    struct cache_blob *c = whole(&rig, 3, 2);
    assert_int_equal(test_read(rig.cache, c, 2, 2), 0);
    assert_true(path_of(&rig, 3, ".data", path));
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    cache_put(rig.cache, c);
    rig_restart(&rig);
    assert_int_equal(rig.recovered, 2);
    rig_stop(&rig);
}

static void newest_of_two_records_of_a_blob_is_kept(void **state)
{
    (void)state;
    struct rig rig;
    char path[2][TEST_PATH_BYTES], saved[2][2 * TEST_PATH_BYTES + 8];
    static const char *const endings[] = {".data", ".part"};
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 1);
    for (unsigned i = 0; i < 2; i++) {
        char *old = saved[i];
        assert_true(path_of(&rig, 1, endings[i], path[i]));
        (void)snprintf(old, sizeof saved[i], "%s.old", (const char *)path[i]);
        assert_int_equal(rename(path[i], old), 0);
    }
    cache_drop_blob(rig.cache, a);
    cache_put(rig.cache, a);
    a = get(&rig, 1, PIECE + 100);
    assert_int_equal(test_write(rig.cache, a, 1, 1), 0);
    cache_put(rig.cache, a);
    rig_close(&rig);
    for (unsigned i = 0; i < 2; i++) /* as if the crash came before the old one was unlinked */
        assert_int_equal(rename(saved[i], path[i]), 0);
    rig_open(&rig);
    assert_int_equal(rig.recovered, 1);
    a = find(&rig, 1);
    assert_int_equal(cache_blob_have(a)->set_count, 1);
    assert_int_equal(test_read(rig.cache, a, 1, 1), 0);
    store_disk__settle(&rig.store);
    assert_int_equal(access(path[0], F_OK), -1);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void room_that_a_crash_left_taken_is_given_back(void **state) /* D-6 */
{
    (void)state;
    struct rig rig;
    char data[TEST_PATH_BYTES], record[TEST_PATH_BYTES];
    const uint32_t some = TEST_SEGMENT;
    rig_start(&rig);
    struct cache_blob *a = whole(&rig, 1, 4 * some);
    cache_put(rig.cache, a);
    rig_close(&rig);
    assert_true(path_of(&rig, 1, ".data", data));
    assert_true(path_of(&rig, 1, ".part", record));
    for (uint32_t piece = some; piece < 3 * some; piece++)
        change_byte(record, RECORD_HEADER_BYTES + piece * RECORD_SLOT_BYTES + 20);
    rig_open(&rig);
    store_disk__settle(&rig.store);
    assert_in_range(blocks_bytes(data), 2 * some * PIECE, 2 * some * PIECE + 64 * 1024);
    a = find(&rig, 1);
    for (uint32_t piece = 0; piece <= 4 * some; piece++)
        assert_int_equal(test_read(rig.cache, a, piece, 1),
                         piece < some || piece >= 3 * some ? 0 : E_NOT_FOUND);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void blobs_written_last_are_evicted_last_after_a_restart(void **state)
{
    (void)state;
    struct rig rig;
    char path[TEST_PATH_BYTES];
    rig_start(&rig);
    for (uint32_t i = 1; i <= 4; i++) {
        struct cache_blob *a = whole(&rig, i, 1);
        cache_put(rig.cache, a);
        assert_true(path_of(&rig, i, ".part", path));
        const struct timespec times[2] = {{.tv_sec = 1000 - (time_t)i},
                                          {.tv_sec = 1000 - (time_t)i}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    rig_close(&rig);
    rig.capacity_bytes = 2 * (PIECE + 100);
    rig_open(&rig);
    assert_null(find(&rig, 4));
    assert_null(find(&rig, 3));
    struct cache_blob *a = find(&rig, 1), *b = find(&rig, 2);
    assert_true(a != NULL && b != NULL);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

/* ---- the directory ---- */

static int try_directory(const char *path, const char **why)
{
    struct store store;
    int err = store_disk_new(path, &store, why);
    if (err == 0)
        store.close(store.self);
    return err;
}

static void directory_must_be_ours_alone(void **state) /* DSK-5 */
{
    (void)state;
    char base[TEST_PATH_BYTES], path[TEST_PATH_BYTES + 16];
    const char *why = NULL;
    test_make_directory(base);
    assert_int_equal(try_directory(base, &why), 0);
    assert_null(why);
    static const mode_t modes[] = {0750, 0701, 0777, 0500};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(base, modes[i]), 0);
        assert_int_equal(try_directory(base, &why), E_DENIED);
        assert_non_null(strstr(why, "chmod"));
    }
    assert_int_equal(chmod(base, 0700), 0);

    (void)snprintf(path, sizeof path, "%s/new", base);
    assert_int_equal(try_directory(path, &why), 0); /* made */
    struct stat figures;
    assert_int_equal(stat(path, &figures), 0);
    assert_int_equal(figures.st_mode & 0777, 0700);

    char link[TEST_PATH_BYTES + 16];
    (void)snprintf(link, sizeof link, "%s/link", base);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(try_directory(link, &why), E_DENIED);
    assert_non_null(strstr(why, "symbolic link"));
    (void)snprintf(link, sizeof link, "%s/link//", base);
    assert_int_equal(try_directory(link, &why), E_DENIED);

    (void)snprintf(path, sizeof path, "%s/file", base);
    close(open(path, O_CREAT | O_RDWR, 0600));
    assert_int_equal(try_directory(path, &why), E_DENIED);
    (void)snprintf(path, sizeof path, "%s/no/where", base);
    assert_int_equal(try_directory(path, &why), E_IO);
    assert_non_null(strstr(why, "parent"));
    assert_int_equal(try_directory("/proc/self/fd", &why) == 0, 0);

    (void)snprintf(path, sizeof path, "%s/new/sha256", base);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/tmp", path), 0);
    (void)snprintf(path, sizeof path, "%s/new", base);
    assert_int_equal(try_directory(path, &why), E_IO); /* a link inside is not followed either */
    assert_non_null(why);
    if (geteuid() == 0) {
        assert_int_equal(chown(base, 12345, 12345), 0);
        assert_int_equal(try_directory(base, &why), E_DENIED);
        assert_non_null(strstr(why, "chown"));
    }
    static char longest[5000];
    memset(longest, 'a', sizeof longest - 1);
    assert_int_equal(try_directory(longest, &why), E_IO);
    test_remove_tree(base);
}

static void directory_has_one_user(void **state)
{
    (void)state;
    struct rig rig;
    const char *why = NULL;
    rig_start(&rig);
    assert_int_equal(try_directory(rig.directory, &why), E_IN_USE);
    assert_non_null(why);
    rig_close(&rig);
    assert_int_equal(try_directory(rig.directory, &why), 0);
    test_remove_tree(rig.directory);
}

static void bad_calls_are_answered(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig);
    struct store *store = &rig.store;
    uint64_t id;
    struct digest digest = test_digest(1);
    static uint8_t bytes[PIECE_BYTES_MIN];
    struct piece_record record = test_record(0, bytes, PIECE);
    int fd;
    uint64_t offset;
    assert_int_equal(store->create(store->self, &digest, PIECE_CUT_PLAIN, BLOB_BYTES_MAX + 1, &id),
                     E_TOO_LARGE);
    assert_int_equal(store->create(store->self, &digest, PIECE_CUT_PLAIN, 2 * PIECE, &id), 0);
    assert_int_equal(store->write(store->self, id + 1, 0, bytes, PIECE, &record), E_NOT_FOUND);
    assert_int_equal(store->write(store->self, id, 2, bytes, PIECE, &record), E_NOT_FOUND);
    assert_int_equal(store->write(store->self, id, 1, bytes, PIECE - 1, &record), E_INVALID);
    assert_int_equal(store->read(store->self, id, 0, bytes, PIECE - 1, &record), E_INVALID);
    assert_int_equal(store->read(store->self, id, 0, bytes, PIECE, &record), E_NOT_FOUND);
    assert_int_equal(store->read(store->self, id, 2, bytes, PIECE, &record), E_NOT_FOUND);
    assert_int_equal(store->open_fd(store->self, id, 0, &fd, &offset), E_NOT_FOUND);
    assert_int_equal(store->open_fd(store->self, id + 1, 0, &fd, &offset), E_NOT_FOUND);
    assert_int_equal(store->seal(store->self, id), E_NOT_FOUND);
    assert_int_equal(store->seal(store->self, id + 1), E_NOT_FOUND);
    assert_int_equal(store->drop(store->self, id, 1, 2), E_INVALID);
    assert_int_equal(store->drop(store->self, id, 3, 0), E_INVALID);
    assert_int_equal(store->drop(store->self, id + 1, 0, 1), E_NOT_FOUND);
    assert_int_equal(store->drop(store->self, id, 0, 2), 0); /* not there: fine */
    assert_int_equal(store->remove(store->self, id), 0);
    assert_int_equal(store->remove(store->self, id), E_NOT_FOUND);
    assert_int_equal(store->create(store->self, &digest, PIECE_CUT_PLAIN, 0, &id), 0);
    assert_int_equal(store->seal(store->self, id), 0); /* the empty blob */
    assert_int_equal(store->remove(store->self, id), 0);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_survive_a_restart),
        cmocka_unit_test(both_cuts_survive_a_restart),
        cmocka_unit_test(recovery_tells_each_blob),
        cmocka_unit_test(long_record_is_read_in_parts),
        cmocka_unit_test(long_runs_are_given_back_in_steps),
        cmocka_unit_test(name_says_complete_only_after_the_seal),
        cmocka_unit_test(sealed_blob_takes_only_the_bytes_it_had),
        cmocka_unit_test(sha512_blobs_have_a_place_too),
        cmocka_unit_test(fd_gives_the_verified_bytes),
        cmocka_unit_test(evicted_pieces_give_their_room_back),
        cmocka_unit_test(piece_written_again_at_once_is_not_punched),
        cmocka_unit_test(any_changed_byte_is_found),
        cmocka_unit_test(damaged_record_is_discarded_at_start),
        cmocka_unit_test(records_of_an_older_layout_are_dropped_at_start),
        cmocka_unit_test(damaged_slot_unseals_the_blob_at_start),
        cmocka_unit_test(sizes_that_do_not_fit_are_discarded_at_start),
        cmocka_unit_test(record_of_another_blob_is_discarded_at_start),
        cmocka_unit_test(what_is_not_ours_is_cleared_away_at_start),
        cmocka_unit_test(data_file_that_became_a_link_is_not_followed),
        cmocka_unit_test(files_that_vanish_are_misses),
        cmocka_unit_test(newest_of_two_records_of_a_blob_is_kept),
        cmocka_unit_test(room_that_a_crash_left_taken_is_given_back),
        cmocka_unit_test(blobs_written_last_are_evicted_last_after_a_restart),
        cmocka_unit_test(directory_must_be_ours_alone),
        cmocka_unit_test(directory_has_one_user),
        cmocka_unit_test(bad_calls_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
