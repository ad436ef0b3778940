/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill_cache DIRECTORY PIECES: makes blobs of 200 pieces in a disk cache, with true records over
 * sparse data, so that a start with a full cache can be timed without writing 12 GB.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/cache/record.h"
#include "bytes.h"
#include "digest.h"

#define PIECES_EACH 200

static int write_file(const char *path, const uint8_t *bytes, size_t byte_count, uint64_t size)
{
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int bad = ftruncate(fd, (off_t)size);
    if (bad == 0 && byte_count > 0 && pwrite(fd, bytes, byte_count, 0) != (ssize_t)byte_count)
        bad = -1;
    return close(fd) == 0 ? bad : -1;
}

static int make_blob(const char *directory, uint32_t number, uint8_t *record)
{
    struct record_header header = {.size_bytes = (uint64_t)PIECES_EACH * PIECE_BYTES_MIN,
                                   .serial = number + 1};
    char hex[65], path[4096];
    digest_of(DIGEST_SHA256, &number, sizeof number, &header.digest);
    record_encode_header(&header, record);
    for (uint32_t piece = 0; piece < PIECES_EACH; piece++) {
        struct record_slot slot = {.state = RECORD_HAVE};
        slot.voucher.piece_index = piece;
        slot.voucher.piece_bytes = PIECE_BYTES_MIN;
        record_encode_slot(&slot, header.serial, record + record_slot_offset(piece));
    }
    hex_encode(header.digest.bytes, 32, hex);
    (void)snprintf(path, sizeof path, "%.3000s/sha256/%.2s", directory, hex);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return -1;
    size_t record_bytes = record_slot_offset(PIECES_EACH);
    (void)snprintf(path, sizeof path, "%.3000s/sha256/%.2s/%s-%016x.data", directory, hex, hex,
                   number + 1);
    int bad = write_file(path, NULL, 0, header.size_bytes);
    (void)snprintf(path, sizeof path, "%.3000s/sha256/%.2s/%s-%016x.part", directory, hex, hex,
                   number + 1);
    return bad != 0 ? bad : write_file(path, record, record_bytes, record_bytes);
}

int main(int argc, char **argv)
{
    char path[4096];
    uint8_t *record = malloc(record_slot_offset(PIECES_EACH));
    unsigned long pieces = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (record == NULL || pieces == 0 || pieces % PIECES_EACH != 0) {
        (void)fprintf(stderr, "usage: fill_cache DIRECTORY PIECES (a multiple of %d)\n",
                      PIECES_EACH);
        return 2;
    }
    (void)snprintf(path, sizeof path, "%.3000s/sha256", argv[1]);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        perror(path);
        return 1;
    }
    for (uint32_t number = 0; number < pieces / PIECES_EACH; number++) {
        if (make_blob(argv[1], number, record) != 0) {
            perror(argv[1]);
            return 1;
        }
    }
    free(record);
    return 0;
}
