/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of piece buffers. Memory comes from mmap with MAP_POPULATE: the kernel touches all pages
 * in one call, and munmap really gives them back, so that an idle agent is small again.
 */
#include "buffer.h"

#include <string.h>
#include <sys/mman.h>

#include "log.h"
#include "loop.h"

struct buffer_pool {
    uint64_t cap_bytes;
    uint64_t bytes;      /* mapped: used and free */
    uint64_t used_bytes; /* referenced */
    uint64_t used_peak_bytes;
    uint64_t gets, fresh, refused;
    uint32_t waiting;
    struct buffer *free[BUFFER_CLASSES];
    struct buffer_waiter *first, *last;
};

static uint32_t class_bytes(unsigned class_index)
{
    return (uint32_t)BUFFER_CLASS_MIN_BYTES << class_index;
}

static unsigned class_of(uint32_t bytes)
{
    unsigned class_index = 0;
    while (class_bytes(class_index) < bytes)
        class_index++;
    ASSERT(class_index < BUFFER_CLASSES);
    return class_index;
}

/* Peers may fill three quarters; the rest keeps storing and serving possible (no deadlock when
 * every buffer waits to be written). */
static uint64_t cap_for(const struct buffer_pool *pool, enum buffer_use use)
{
    return use == BUFFER_FOR_PEER ? pool->cap_bytes / 4 * 3 : pool->cap_bytes;
}

static bool room(const struct buffer_pool *pool, uint32_t bytes, enum buffer_use use)
{
    return pool->used_bytes + class_bytes(class_of(bytes)) <= cap_for(pool, use);
}

int buffer_pool_new(uint64_t cap_bytes, struct buffer_pool **out)
{
    struct buffer_pool *pool = loop_alloc(NULL, NULL, sizeof *pool);
    if (pool == NULL)
        return E_NO_MEMORY;
    memset(pool, 0, sizeof *pool);
    uint64_t least = 4ULL * PIECE_BYTES_MAX;
    pool->cap_bytes = cap_bytes < least ? least : cap_bytes;
    *out = pool;
    return 0;
}

static void buffer_unmap(struct buffer_pool *pool, struct buffer *buffer)
{
    ASSERT(pool->bytes >= buffer->capacity);
    pool->bytes -= buffer->capacity;
    (void)munmap(buffer->bytes, buffer->capacity);
    (void)loop_alloc(NULL, buffer, 0);
}

void buffer_pool_trim(struct buffer_pool *pool, uint64_t keep_bytes)
{
    /* Large ones first: they are the rarest to be wanted again. */
    for (unsigned i = BUFFER_CLASSES; i-- > 0;) {
        while (pool->free[i] != NULL && pool->bytes - pool->used_bytes > keep_bytes) {
            struct buffer *buffer = pool->free[i];
            pool->free[i] = buffer->next;
            buffer_unmap(pool, buffer);
        }
    }
}

void buffer_pool_free(struct buffer_pool *pool)
{
    if (pool == NULL)
        return;
    ASSERT(pool->used_bytes == 0);
    ASSERT(pool->first == NULL);
    buffer_pool_trim(pool, 0);
    ASSERT(pool->bytes == 0);
    (void)loop_alloc(NULL, pool, 0);
}

static struct buffer *buffer_map(struct buffer_pool *pool, unsigned class_index)
{
    uint32_t bytes = class_bytes(class_index);
    /* Free buffers of other classes count against the cap as well: it bounds the process. */
    if (pool->bytes + bytes > pool->cap_bytes)
        buffer_pool_trim(pool, pool->cap_bytes - pool->used_bytes - bytes);
    struct buffer *buffer = loop_alloc(NULL, NULL, sizeof *buffer);
    if (buffer == NULL)
        return NULL;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
        (void)loop_alloc(NULL, buffer, 0);
        return NULL;
    }
    memset(buffer, 0, sizeof *buffer);
    buffer->bytes = memory;
    buffer->capacity = bytes;
    buffer->class_index = (uint8_t)class_index;
    buffer->pool = pool;
    pool->bytes += bytes;
    pool->fresh++;
    return buffer;
}

struct buffer *buffer_get(struct buffer_pool *pool, uint32_t bytes, enum buffer_use use)
{
    if (bytes == 0 || bytes > PIECE_BYTES_MAX)
        return NULL;
    if (!room(pool, bytes, use)) {
        pool->refused++;
        return NULL;
    }
    unsigned class_index = class_of(bytes);
    struct buffer *buffer = pool->free[class_index];
    if (buffer != NULL)
        pool->free[class_index] = buffer->next;
    else
        buffer = buffer_map(pool, class_index);
    if (buffer == NULL) {
        pool->refused++;
        return NULL;
    }
    ASSERT(buffer->refs == 0);
    buffer->refs = 1;
    buffer->used = 0;
    buffer->next = NULL;
    pool->gets++;
    pool->used_bytes += buffer->capacity;
    if (pool->used_bytes > pool->used_peak_bytes)
        pool->used_peak_bytes = pool->used_bytes;
    return buffer;
}

struct buffer *buffer_ref(struct buffer *buffer)
{
    ASSERT(buffer->refs > 0);
    buffer->refs++;
    return buffer;
}

void buffer_put(struct buffer *buffer)
{
    if (buffer == NULL)
        return;
    ASSERT(buffer->refs > 0);
    if (--buffer->refs > 0)
        return;
    struct buffer_pool *pool = buffer->pool;
    ASSERT(pool->used_bytes >= buffer->capacity);
    pool->used_bytes -= buffer->capacity;
    buffer->next = pool->free[buffer->class_index];
    pool->free[buffer->class_index] = buffer;
}

void buffer_wait(struct buffer_pool *pool, struct buffer_waiter *waiter)
{
    ASSERT(!waiter->waiting);
    ASSERT(waiter->bytes > 0 && waiter->bytes <= PIECE_BYTES_MAX);
    waiter->waiting = true;
    waiter->next = NULL;
    waiter->previous = pool->last;
    if (pool->last != NULL)
        pool->last->next = waiter;
    else
        pool->first = waiter;
    pool->last = waiter;
    pool->waiting++;
}

void buffer_unwait(struct buffer_pool *pool, struct buffer_waiter *waiter)
{
    if (!waiter->waiting)
        return;
    if (waiter->previous != NULL)
        waiter->previous->next = waiter->next;
    else
        pool->first = waiter->next;
    if (waiter->next != NULL)
        waiter->next->previous = waiter->previous;
    else
        pool->last = waiter->previous;
    waiter->next = waiter->previous = NULL;
    waiter->waiting = false;
    ASSERT(pool->waiting > 0);
    pool->waiting--;
}

/* A peer that waits must not hold up a local user behind it, who may use more of the cap. */
static struct buffer_waiter *first_with_room(const struct buffer_pool *pool)
{
    for (struct buffer_waiter *waiter = pool->first; waiter != NULL; waiter = waiter->next) {
        if (room(pool, waiter->bytes, waiter->use))
            return waiter;
        if (waiter->use == BUFFER_FOR_LOCAL)
            return NULL; /* it waits for what others would take */
    }
    return NULL;
}

void buffer_pool_wake(struct buffer_pool *pool)
{
    /* Those who wait again during the calls come next turn. */
    for (uint32_t left = pool->waiting; left > 0; left--) {
        struct buffer_waiter *waiter = first_with_room(pool);
        if (waiter == NULL)
            return;
        buffer_unwait(pool, waiter);
        waiter->ready(waiter->arg);
    }
}

void buffer_pool_stats(const struct buffer_pool *pool, struct buffer_stats *out)
{
    *out = (struct buffer_stats){
        .bytes = pool->bytes,
        .used_bytes = pool->used_bytes,
        .used_peak_bytes = pool->used_peak_bytes,
        .cap_bytes = pool->cap_bytes,
        .gets = pool->gets,
        .fresh = pool->fresh,
        .refused = pool->refused,
        .waiting = pool->waiting,
    };
}
