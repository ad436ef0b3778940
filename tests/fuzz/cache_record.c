/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hostile file in the cache directory can do. The input is a record file. The decoders see
 * it first: what they accept must encode to the same bytes. Then it is put, as it is and with its
 * checksums mended, where a record lies, beside a data file of the right size, and the disk tier
 * starts: it must not crash, claim a piece whose slot is not valid, or leave what it refused
 * (DSK-2, D-5). Every piece it claims is read, and must be refused, for the data file is a hole.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/cache/crc32c.h"
#include "../../src/cache/record.h"
#include "bytes.h"
#include "cache.h"
#include "digest.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

#define PATH_BYTES 512
/* Larger data files are not made: sparse or not, reading their claims would take long. */
#define DATA_BYTES_MAX ((uint64_t)8 * 1024 * 1024)

static void demand(int condition)
{
    if (!condition)
        abort();
}

/* ---- decoders ---- */

static void check_slots(const uint8_t *input, size_t input_bytes,
                        const struct record_header *header, const struct piece_layout *layout)
{
    for (uint32_t piece = 0; piece < layout->piece_count; piece++) {
        uint64_t at = record_slot_offset(piece);
        if (at + RECORD_SLOT_BYTES > input_bytes)
            return;
        struct record_slot slot;
        record_decode_slot(input + at, header->serial, layout, piece, &slot);
        if (slot.state == RECORD_NONE)
            continue;
        uint8_t again[RECORD_SLOT_BYTES];
        demand(slot.voucher.piece_bytes == piece_length(layout, piece));
        record_encode_slot(&slot, header->serial, again);
        demand(memcmp(again, input + at, sizeof again) == 0);
    }
}

static int check_header(const uint8_t *input, size_t input_bytes, struct record_header *header,
                        struct piece_layout *layout)
{
    int err = record_decode_header(input, input_bytes, header, layout);
    if (err != 0)
        return err;
    uint8_t again[RECORD_HEADER_BYTES];
    record_encode_header(header, again);
    demand(memcmp(again, input, sizeof again) == 0);
    check_slots(input, input_bytes, header, layout);
    return 0;
}

/* ---- start-up ---- */

static char directory[PATH_BYTES];

static void remove_directory(void)
{
    char command[PATH_BYTES];
    static const char *const parts[] = {"/sha256", "/sha512", ""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        (void)snprintf(command, sizeof command, "%.400s%s", directory, parts[i]);
        (void)rmdir(command);
    }
}

static void make_directory(void)
{
    if (directory[0] != '\0')
        return;
    const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(directory, sizeof directory, "%s/shoal-fuzz-XXXXXX", parent);
    demand(mkdtemp(directory) != NULL);
    (void)atexit(remove_directory);
}

static void put_file(const char *path, const uint8_t *bytes, size_t byte_count, uint64_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    demand(fd >= 0);
    demand(byte_count == 0 || write(fd, bytes, byte_count) == (ssize_t)byte_count);
    demand(ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

static void read_claims(struct cache *cache, const struct digest *digest, enum piece_cut cut)
{
    struct cache_blob *blob = cache_find_cut(cache, digest, cut);
    if (blob == NULL)
        return;
    static uint8_t bytes[PIECE_BYTES_MAX];
    struct piece_record record;
    const struct piece_layout *layout = cache_blob_layout(blob);
    for (uint32_t piece = 0; piece < layout->piece_count; piece++) {
        if (cache_pin(cache, blob, piece, 1) != 0)
            continue;
        int err = cache_read(cache, blob, piece, bytes, piece_length(layout, piece), &record);
        cache_unpin(cache, blob, piece);
        /* Refused, or true: a claim of the hash of zeros is right about our sparse data. */
        uint8_t hash[32];
        sha256_of(bytes, piece_length(layout, piece), hash);
        demand(err == E_CORRUPT || (err == 0 && memcmp(hash, record.voucher.hash.bytes, 32) == 0));
        cache_drop_piece(cache, blob, piece);
    }
    cache_put(cache, blob);
}

static void *plain_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static void start_over(const struct digest *digest)
{
    const struct env env = {.alloc = plain_alloc};
    const struct cache_config config = {.capacity_bytes = UINT64_MAX};
    struct store store;
    struct cache *cache;
    const char *why;
    demand(store_disk_new(directory, &store, &why) == 0);
    demand(cache_new(&env, &config, &store, &cache) == 0);
    demand(cache_recover(cache, NULL, NULL) >= 0);
    cache__check_invariants(cache);
    for (int cut = 0; cut < PIECE_CUT_COUNT; cut++)
        read_claims(cache, digest, (enum piece_cut)cut);
    cache__check_invariants(cache);
    cache_free(cache);
}

/* Lays the record and its data down under the name that the header claims, or some name. */
static void recover_from(const uint8_t *record, size_t record_bytes)
{
    struct record_header header = {.digest = {.algorithm = DIGEST_SHA256}, .serial = 1};
    struct piece_layout layout = {.blob_bytes = 1000};
    int known = record_decode_header(record, record_bytes, &header, &layout) == 0;
    if (known && (layout.blob_bytes > DATA_BYTES_MAX || header.serial > 1000000))
        return;
    char hex[2 * DIGEST_BYTES_MAX + 1], fan[PATH_BYTES], paths[3][PATH_BYTES];
    const char *name = header.digest.algorithm == DIGEST_SHA512 ? "sha512" : "sha256";
    static const char *const endings[] = {"data", "part", "rec"};
    make_directory();
    hex_encode(header.digest.bytes, digest_bytes(header.digest.algorithm), hex);
    (void)snprintf(fan, sizeof fan, "%.300s/%s", directory, name);
    (void)mkdir(fan, 0700);
    (void)snprintf(fan, sizeof fan, "%.300s/%s/%.2s", directory, name, hex);
    (void)mkdir(fan, 0700);
    for (unsigned i = 0; i < 3; i++)
        (void)snprintf(paths[i], PATH_BYTES, "%.300s/%s-%016llx.%s", fan, hex,
                       (unsigned long long)header.serial, endings[i]);
    put_file(paths[0], NULL, 0, layout.blob_bytes);
    put_file(paths[record_bytes > 20 ? record[20] % 2 + 1 : 1], record, record_bytes, record_bytes);

    start_over(&header.digest);
    for (unsigned i = 0; i < 3; i++)
        demand(access(paths[i], F_OK) != 0); /* all of it was refused, so all of it is gone */
    demand(rmdir(fan) == 0);
}

/* Rights the checksums, so that the checks behind them are reached. */
static void mend(uint8_t *bytes, size_t byte_count)
{
    if (byte_count < RECORD_HEADER_BYTES)
        return;
    store_be32(bytes + 252, crc32c(bytes, 252));
    for (size_t at = RECORD_HEADER_BYTES; at + RECORD_SLOT_BYTES <= byte_count;
         at += RECORD_SLOT_BYTES)
        store_be32(bytes + at + 188, crc32c(bytes + at, 188));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
    struct record_header header;
    struct piece_layout layout;
    if (input_bytes > 64 * 1024)
        return 0;
    (void)check_header(input, input_bytes, &header, &layout);
    uint8_t *mended = malloc(input_bytes + 1);
    demand(mended != NULL);
    memcpy(mended, input, input_bytes);
    mend(mended, input_bytes);
    if (check_header(mended, input_bytes, &header, &layout) == 0)
        recover_from(mended, input_bytes);
    else if (input_bytes % 64 == 0) /* a file that is no record at all; seldom, it costs a start */
        recover_from(input, input_bytes);
    free(mended);
    return 0;
}
