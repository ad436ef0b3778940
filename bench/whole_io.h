/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes on blocking descriptors, for the benchmarks' programs. */
#ifndef SHOAL_BENCH_WHOLE_IO_H
#define SHOAL_BENCH_WHOLE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

/* False on an error. */
static inline bool write_whole(int fd, const uint8_t *bytes, size_t byte_count)
{
    while (byte_count > 0) {
        ssize_t done = write(fd, bytes, byte_count);
        if (done <= 0)
            return false;
        bytes += done;
        byte_count -= (size_t)done;
    }
    return true;
}

/* False on an error and at an early end. */
static inline bool read_whole(int fd, uint8_t *bytes, size_t byte_count)
{
    while (byte_count > 0) {
        ssize_t done = read(fd, bytes, byte_count);
        if (done <= 0)
            return false;
        bytes += done;
        byte_count -= (size_t)done;
    }
    return true;
}

#endif
