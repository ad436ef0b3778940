/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the cache's tests: an env that counts and fails allocations, contents that follow from
 * (blob, piece), one-line writes and reads, scratch directories. */
#ifndef SHOAL_TESTS_CACHE_SUPPORT_H
#define SHOAL_TESTS_CACHE_SUPPORT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../src/cache/store_internal.h"
#include "bytes.h"
#include "cache.h"
#include "digest.h"
#include "log.h"

/* Pieces in a segment of a small blob, which is 1 MiB (ALGORITHMS §3.4). */
#define TEST_SEGMENT ((uint32_t)(1024 * 1024 / PIECE_BYTES_MIN))

/* ---- env ---- */

struct test_env {
    struct env env;
    atomic_uint calls; /* allocations asked for so far */
    unsigned fail_at;  /* the call that fails, counted from 1; 0: none */
    bool fail_from;    /* and all after it */
    atomic_int live;   /* blocks not freed */
    unsigned lines;    /* log lines */
    char last_line[256];
};

static inline void *test_alloc(void *host, void *old, size_t new_bytes)
{
    struct test_env *env = host;
    if (new_bytes == 0) {
        if (old != NULL)
            atomic_fetch_sub(&env->live, 1);
        free(old);
        return NULL;
    }
    unsigned call = atomic_fetch_add(&env->calls, 1) + 1;
    if (env->fail_at != 0 && (call == env->fail_at || (env->fail_from && call > env->fail_at)))
        return NULL;
    void *memory = realloc(old, new_bytes);
    if (old == NULL && memory != NULL)
        atomic_fetch_add(&env->live, 1);
    return memory;
}

static inline void test_trace(void *host, enum log_level level, const char *line)
{
    struct test_env *env = host;
    (void)level;
    env->lines++;
    (void)snprintf(env->last_line, sizeof env->last_line, "%s", line);
}

static inline void test_env_init(struct test_env *env)
{
    memset(env, 0, sizeof *env);
    env->env = (struct env){.host = env, .alloc = test_alloc, .trace = test_trace};
}

/* ---- contents ---- */

static inline struct digest test_digest(uint32_t number)
{
    struct digest digest;
    digest_of(DIGEST_SHA256, &number, sizeof number, &digest);
    return digest;
}

/* Bytes that follow from blob, piece and `variant`; cheap, and different in every 8 of them. */
static inline void test_fill(const struct digest *digest, uint32_t piece, uint32_t variant,
                             uint8_t *out, uint32_t byte_count)
{
    uint64_t word = load_be64(digest->bytes) ^ ((uint64_t)piece << 32) ^ variant;
    for (uint32_t i = 0; i < byte_count; i += 8) {
        word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(out + i, &word, byte_count - i < 8 ? byte_count - i : 8);
    }
}

static inline struct piece_record test_record(uint32_t piece, const uint8_t *bytes,
                                              uint32_t byte_count)
{
    struct piece_record record;
    memset(&record, 0, sizeof record);
    record.voucher.piece_index = piece;
    record.voucher.piece_bytes = byte_count;
    piece_hash_of(bytes, byte_count, &record.voucher.hash);
    memset(record.voucher.signer.bytes, 0x11, sizeof record.voucher.signer.bytes);
    memset(record.voucher.signature, 0x22, sizeof record.voucher.signature);
    return record;
}

/* Reserve, write, done. The first error, 0 if the piece is had. */
static inline int test_write_variant(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                                     uint32_t variant, uint64_t now_us)
{
    uint32_t bytes = piece_length(cache_blob_layout(blob), piece);
    uint8_t *content = malloc(bytes);
    assert_non_null(content);
    test_fill(cache_blob_digest(blob), piece, variant, content, bytes);
    struct piece_record record = test_record(piece, content, bytes);
    int err = cache_reserve(cache, blob, piece, now_us);
    if (err == 0) {
        err = cache_write(cache, blob, piece, content, bytes, &record);
        cache_write_done(cache, blob, piece, now_us, err);
    }
    free(content);
    return err;
}

static inline int test_write(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                             uint64_t now_us)
{
    return test_write_variant(cache, blob, piece, 0, now_us);
}

/* Pins, reads, unpins; a read that succeeds must give the right bytes and record. */
static inline int test_read(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                            uint64_t now_us)
{
    uint32_t bytes = piece_length(cache_blob_layout(blob), piece);
    uint8_t *got = malloc(bytes), *wanted = malloc(bytes);
    assert_true(got != NULL && wanted != NULL);
    struct piece_record record;
    int err = cache_pin(cache, blob, piece, now_us);
    if (err == 0) {
        err = cache_read(cache, blob, piece, got, bytes, &record);
        cache_unpin(cache, blob, piece);
    }
    if (err == 0) {
        test_fill(cache_blob_digest(blob), piece, 0, wanted, bytes);
        struct piece_record right = test_record(piece, wanted, bytes);
        assert_memory_equal(got, wanted, bytes);
        assert_memory_equal(&record, &right, sizeof right);
    }
    free(got);
    free(wanted);
    return err;
}

static inline unsigned test_drain(struct cache *cache)
{
    struct cache_eviction eviction;
    unsigned pieces = 0;
    while (cache_next_eviction(cache, &eviction))
        pieces += eviction.piece_count;
    return pieces;
}

/* ---- scratch directories ---- */

static inline int test_unlink_one(const char *path, const struct stat *figures, int kind,
                                  struct FTW *where)
{
    (void)figures, (void)kind, (void)where;
    return remove(path);
}

static inline void test_remove_tree(const char *path)
{
    (void)nftw(path, test_unlink_one, 16, FTW_DEPTH | FTW_PHYS);
}

#define TEST_PATH_BYTES 512

/* Sweeps make thousands of fsyncs: scratch directories go to memory where that exists. */
static inline void test_use_memory_disk(void)
{
    if (getenv("TMPDIR") == NULL && access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1);
}

/* A new directory, mode 0700, below TMPDIR or /tmp. */
static inline void test_make_directory(char out[TEST_PATH_BYTES])
{
    const char *parent = getenv("TMPDIR");
    int length = snprintf(out, TEST_PATH_BYTES, "%s/shoal-cache-XXXXXX",
                          parent != NULL && parent[0] != '\0' ? parent : "/tmp");
    assert_true(length > 0 && length < TEST_PATH_BYTES);
    assert_non_null(mkdtemp(out));
}

static inline uint64_t test_seed(void)
{
    const char *text = getenv("SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)getpid() * 2654435761u;
    printf("seed: %llu\n", (unsigned long long)seed);
    return seed;
}

#endif
