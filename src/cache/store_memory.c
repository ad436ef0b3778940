/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory tier: pieces in pooled buffers. Fresh memory costs 0.48 s/GB (LIMITS §0), so buffers of
 * full pieces are kept when their piece goes and reused by the next of that size. What is used and
 * what lies idle is together never more than the capacity.
 *
 * A buffer does not change after its write. Its hash is checked at the first read, which proves
 * what was stored and not only what was received (INT-5); later reads trust memory as much as every
 * other buffer of the process is trusted, and save 0.65 s/GB.
 *
 * Threads: all state is under `lock`, held for table work and never while bytes are copied or
 * hashed. A reader holds a reference on the buffer meanwhile, so a drop leaves it its bytes.
 */
#include <pthread.h>
#include <string.h>

#include "digest.h"
#include "log.h"
#include "store_internal.h"

/* One pool for each size a full piece can have: 128 KiB .. 4 MiB. */
#define POOL_COUNT 6
static_assert((PIECE_BYTES_MIN << (POOL_COUNT - 1)) == PIECE_BYTES_MAX, "a pool for each size");

struct buffer {
    struct buffer *next; /* while idle */
    uint32_t byte_count;
    uint32_t refs;
    uint8_t bytes[];
};

struct memory_piece {
    struct buffer *buffer; /* NULL: not there */
    bool known;            /* the voucher tells the hash, also when the bytes are gone */
    bool verified;
    struct voucher voucher;
};

struct memory_blob {
    struct piece_layout layout;
    struct memory_piece **segments; /* made when their first piece is written */
    uint32_t known_count;
    bool sealed;
};

struct memory_store {
    struct env env;
    pthread_mutex_t lock;
    struct store_table table;
    uint64_t capacity_bytes;
    uint64_t used_bytes;
    uint64_t idle_bytes;
    struct buffer *idle[POOL_COUNT];
};

static void release(struct memory_store *store, void *memory)
{
    if (memory != NULL)
        (void)store->env.alloc(store->env.host, memory, 0);
}

static void *take(struct memory_store *store, size_t byte_count)
{
    return store->env.alloc(store->env.host, NULL, byte_count);
}

/* ---- buffers; all under the lock ---- */

/* The pool of a size, POOL_COUNT for sizes that are not pooled (last pieces). */
static unsigned pool_of(uint32_t byte_count)
{
    unsigned pool = 0;
    while (pool < POOL_COUNT && (uint32_t)PIECE_BYTES_MIN << pool != byte_count)
        pool++;
    return pool;
}

static struct buffer *pop_idle(struct memory_store *store, unsigned pool)
{
    struct buffer *buffer = pool < POOL_COUNT ? store->idle[pool] : NULL;
    if (buffer != NULL) {
        store->idle[pool] = buffer->next;
        store->idle_bytes -= buffer->byte_count;
    }
    return buffer;
}

/* Frees idle buffers until the store is within its capacity. */
static void shrink_idle(struct memory_store *store)
{
    for (unsigned pool = 0; pool < POOL_COUNT; pool++) {
        while (store->used_bytes + store->idle_bytes > store->capacity_bytes &&
               store->idle[pool] != NULL)
            release(store, pop_idle(store, pool));
    }
    ASSERT(store->used_bytes + store->idle_bytes <= store->capacity_bytes);
}

static int buffer_take(struct memory_store *store, uint32_t byte_count, struct buffer **out)
{
    if (byte_count > store->capacity_bytes - store->used_bytes)
        return E_NO_SPACE;
    struct buffer *buffer = pop_idle(store, pool_of(byte_count));
    store->used_bytes += byte_count;
    shrink_idle(store);
    if (buffer == NULL)
        buffer = take(store, sizeof *buffer + byte_count);
    if (buffer == NULL) {
        store->used_bytes -= byte_count;
        return E_NO_MEMORY;
    }
    buffer->next = NULL;
    buffer->byte_count = byte_count;
    buffer->refs = 1;
    *out = buffer;
    return 0;
}

static void buffer_put(struct memory_store *store, struct buffer *buffer)
{
    if (buffer == NULL)
        return;
    ASSERT(buffer->refs > 0);
    if (--buffer->refs > 0)
        return;
    store->used_bytes -= buffer->byte_count;
    unsigned pool = pool_of(buffer->byte_count);
    if (pool == POOL_COUNT) {
        release(store, buffer);
        return;
    }
    buffer->next = store->idle[pool];
    store->idle[pool] = buffer;
    store->idle_bytes += buffer->byte_count;
}

/* ---- pieces; all under the lock ---- */

static struct memory_piece *find_piece(const struct memory_blob *blob, uint32_t index)
{
    if (index >= blob->layout.piece_count)
        return NULL;
    struct memory_piece *segment = blob->segments[segment_of(&blob->layout, index)];
    return segment != NULL ? &segment[index % blob->layout.segment_pieces] : NULL;
}

static int make_piece(struct memory_store *store, struct memory_blob *blob, uint32_t index,
                      struct memory_piece **out)
{
    uint32_t segment = segment_of(&blob->layout, index);
    if (blob->segments[segment] == NULL) {
        size_t bytes = blob->layout.segment_pieces * sizeof(struct memory_piece);
        blob->segments[segment] = take(store, bytes);
        if (blob->segments[segment] == NULL)
            return E_NO_MEMORY;
        memset(blob->segments[segment], 0, bytes);
    }
    *out = find_piece(blob, index);
    return 0;
}

static void drop_piece(struct memory_store *store, const struct memory_blob *blob, uint32_t index)
{
    struct memory_piece *piece = find_piece(blob, index);
    if (piece == NULL)
        return;
    buffer_put(store, piece->buffer);
    piece->buffer = NULL;
    piece->verified = false;
}

static void free_blob(struct memory_store *store, struct memory_blob *blob)
{
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++)
        drop_piece(store, blob, piece);
    for (uint32_t i = 0; i < blob->layout.segment_count; i++)
        release(store, blob->segments[i]);
    release(store, blob->segments);
    release(store, blob);
}

/* ---- the table of the tier ---- */

static int make_blob(struct memory_store *store, const struct piece_layout *layout, uint64_t *out)
{
    struct memory_blob *blob = take(store, sizeof *blob);
    if (blob == NULL)
        return E_NO_MEMORY;
    *blob = (struct memory_blob){.layout = *layout};
    size_t bytes = layout->segment_count * sizeof blob->segments[0];
    int err = 0;
    if (bytes > 0) {
        blob->segments = take(store, bytes);
        if (blob->segments != NULL)
            memset(blob->segments, 0, bytes);
        else
            err = E_NO_MEMORY;
    }
    if (err == 0)
        err = store_table__add(&store->table, &store->env, blob, out);
    if (err != 0) {
        release(store, blob->segments);
        release(store, blob);
    }
    return err;
}

static int memory_create(void *self, const struct digest *digest, enum piece_cut cut,
                         uint64_t size_bytes, uint64_t *out)
{
    (void)digest;
    struct memory_store *store = self;
    struct piece_layout layout;
    int err = piece_layout_cut(size_bytes, cut, &layout);
    if (err != 0)
        return err;
    pthread_mutex_lock(&store->lock);
    err = make_blob(store, &layout, out);
    pthread_mutex_unlock(&store->lock);
    return err;
}

/* Checks what can be checked before the bytes are copied, and takes a buffer. Under the lock. */
static int prepare_write(struct memory_store *store, struct memory_blob *blob, uint32_t index,
                         const struct piece_record *record, struct buffer **buffer)
{
    struct memory_piece *piece;
    int err = make_piece(store, blob, index, &piece);
    if (err != 0)
        return err;
    const struct piece_hash *hash = &record->voucher.hash;
    if (blob->sealed && memcmp(&piece->voucher.hash, hash, sizeof *hash) != 0)
        return E_DIGEST;
    return buffer_take(store, piece_length(&blob->layout, index), buffer);
}

static void finish_write(struct memory_store *store, struct memory_blob *blob, uint32_t index,
                         struct buffer *buffer, const struct piece_record *record)
{
    struct memory_piece *piece = find_piece(blob, index);
    ASSERT(piece != NULL);
    buffer_put(store, piece->buffer);
    piece->buffer = buffer;
    piece->voucher = record->voucher;
    piece->verified = false;
    blob->known_count += !piece->known;
    piece->known = true;
}

static int memory_write(void *self, uint64_t id, uint32_t index, const uint8_t *bytes,
                        uint32_t byte_count, const struct piece_record *record)
{
    struct memory_store *store = self;
    struct buffer *buffer = NULL;
    pthread_mutex_lock(&store->lock);
    struct memory_blob *blob = store_table__get(&store->table, id);
    int err = blob == NULL || index >= blob->layout.piece_count ? E_NOT_FOUND : 0;
    if (err == 0 && byte_count != piece_length(&blob->layout, index))
        err = E_INVALID;
    if (err == 0)
        err = prepare_write(store, blob, index, record, &buffer);
    pthread_mutex_unlock(&store->lock);
    if (err != 0)
        return err;

    memcpy(buffer->bytes, bytes, byte_count);

    pthread_mutex_lock(&store->lock);
    blob = store_table__get(&store->table, id);
    if (blob != NULL)
        finish_write(store, blob, index, buffer, record);
    else
        buffer_put(store, buffer);
    pthread_mutex_unlock(&store->lock);
    return blob != NULL ? 0 : E_NOT_FOUND;
}

/* Takes a reference on a piece's buffer and copies its record. Under the lock. */
static int prepare_read(struct memory_store *store, uint64_t id, uint32_t index,
                        struct memory_piece *out)
{
    struct memory_blob *blob = store_table__get(&store->table, id);
    const struct memory_piece *piece = blob != NULL ? find_piece(blob, index) : NULL;
    if (piece == NULL || piece->buffer == NULL)
        return E_NOT_FOUND;
    *out = *piece;
    out->buffer->refs++;
    return 0;
}

static void finish_read(struct memory_store *store, uint64_t id, uint32_t index,
                        struct buffer *buffer, bool good)
{
    struct memory_blob *blob = store_table__get(&store->table, id);
    struct memory_piece *piece = blob != NULL ? find_piece(blob, index) : NULL;
    if (piece != NULL && piece->buffer == buffer && good)
        piece->verified = true;
    buffer_put(store, buffer);
}

static int memory_read(void *self, uint64_t id, uint32_t index, uint8_t *out, uint32_t byte_count,
                       struct piece_record *record)
{
    struct memory_store *store = self;
    struct memory_piece piece;
    pthread_mutex_lock(&store->lock);
    int err = prepare_read(store, id, index, &piece);
    pthread_mutex_unlock(&store->lock);
    if (err != 0)
        return err;

    if (byte_count != piece.buffer->byte_count)
        err = E_INVALID;
    else
        memcpy(out, piece.buffer->bytes, byte_count);
    if (err == 0 && !piece.verified) {
        struct piece_hash hash;
        piece_hash_of(out, byte_count, &hash);
        err = memcmp(&hash, &piece.voucher.hash, sizeof hash) == 0 ? 0 : E_CORRUPT;
    }

    pthread_mutex_lock(&store->lock);
    finish_read(store, id, index, piece.buffer, err == 0);
    pthread_mutex_unlock(&store->lock);
    if (err == 0)
        record->voucher = piece.voucher;
    return err;
}

static int memory_open_fd(void *self, uint64_t id, uint32_t index, int *fd, uint64_t *offset)
{
    (void)self, (void)id, (void)index, (void)fd, (void)offset;
    return E_UNSUPPORTED;
}

static int memory_seal(void *self, uint64_t id)
{
    struct memory_store *store = self;
    pthread_mutex_lock(&store->lock);
    struct memory_blob *blob = store_table__get(&store->table, id);
    bool whole = blob != NULL && blob->known_count == blob->layout.piece_count;
    if (whole)
        blob->sealed = true;
    pthread_mutex_unlock(&store->lock);
    return whole ? 0 : E_NOT_FOUND;
}

static int memory_drop(void *self, uint64_t id, uint32_t first, uint32_t count)
{
    struct memory_store *store = self;
    int err = 0;
    pthread_mutex_lock(&store->lock);
    const struct memory_blob *blob = store_table__get(&store->table, id);
    if (blob == NULL)
        err = E_NOT_FOUND;
    else if (first > blob->layout.piece_count || count > blob->layout.piece_count - first)
        err = E_INVALID;
    for (uint32_t i = 0; err == 0 && i < count; i++)
        drop_piece(store, blob, first + i);
    pthread_mutex_unlock(&store->lock);
    return err;
}

static int memory_remove(void *self, uint64_t id)
{
    struct memory_store *store = self;
    pthread_mutex_lock(&store->lock);
    struct memory_blob *blob = store_table__get(&store->table, id);
    if (blob != NULL) {
        store_table__remove(&store->table, id);
        free_blob(store, blob);
    }
    pthread_mutex_unlock(&store->lock);
    return blob != NULL ? 0 : E_NOT_FOUND;
}

static int memory_recover(void *self, store_found_fn found, void *arg)
{
    (void)self, (void)found, (void)arg;
    return 0; /* nothing survives a restart */
}

static uint64_t memory_free_bytes(void *self)
{
    (void)self;
    return UINT64_MAX; /* the capacity is the only limit */
}

static void memory_close(void *self)
{
    struct memory_store *store = self;
    struct memory_blob *blob;
    uint32_t index = 0;
    while ((blob = store_table__next(&store->table, &index)) != NULL)
        free_blob(store, blob);
    ASSERT(store->used_bytes == 0);
    store->capacity_bytes = 0;
    shrink_idle(store);
    struct env env = store->env;
    store_table__close(&store->table, &env);
    pthread_mutex_destroy(&store->lock);
    (void)env.alloc(env.host, store, 0);
}

int store_memory__new(const struct env *env, uint64_t capacity_bytes, struct store *out)
{
    struct memory_store *store = env->alloc(env->host, NULL, sizeof *store);
    if (store == NULL)
        return E_NO_MEMORY;
    memset(store, 0, sizeof *store);
    store->env = *env;
    store->capacity_bytes = capacity_bytes;
    if (pthread_mutex_init(&store->lock, NULL) != 0) {
        (void)env->alloc(env->host, store, 0);
        return E_NO_MEMORY;
    }
    *out = (struct store){.self = store,
                          .create = memory_create,
                          .write = memory_write,
                          .read = memory_read,
                          .open_fd = memory_open_fd,
                          .seal = memory_seal,
                          .drop = memory_drop,
                          .remove = memory_remove,
                          .recover = memory_recover,
                          .free_bytes = memory_free_bytes,
                          .close = memory_close};
    return 0;
}

int store_memory_new(uint64_t capacity_bytes, struct store *out)
{
    struct env env;
    store__heap(&env);
    return store_memory__new(&env, capacity_bytes, out);
}
