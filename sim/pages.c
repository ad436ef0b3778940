/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages for the simulator's memory; see pages.h. */
#include "pages.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#define STEP_BYTES (32 << 20)
#define PAGE_BYTES 4096

static uintptr_t heap_end(void)
{
    return (uintptr_t)sbrk(0);
}

void pages_prepare(uintptr_t *end)
{
    (void)mallopt(M_TOP_PAD, STEP_BYTES);
    (void)mallopt(M_MMAP_THRESHOLD, STEP_BYTES); /* the most there is */
    (void)mallopt(M_TRIM_THRESHOLD, STEP_BYTES * 8);
    *end = heap_end();
}

void pages_follow(uintptr_t *end)
{
    uintptr_t now = heap_end(), from = (*end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (now > from)
        (void)madvise((void *)from, now - from, MADV_HUGEPAGE);
    *end = now;
}
