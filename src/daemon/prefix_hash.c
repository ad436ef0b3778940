/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of the pieces that are next in a blob, between three counters: what the loop was told,
 * what is in the hasher, what is in line. One worker at a time has the hasher; prefix_hash.h says
 * who, and for which piece.
 */
#include "prefix_hash.h"

#include <pthread.h>
#include <string.h>

#include "loop.h"

/* A piece of the line. Without buffer: its bytes were an arriving job's. */
struct lined_piece {
    struct buffer *buffer; /* one reference; the loop's to give back */
    struct piece_hash hash;
};

struct prefix_hash {
    pthread_mutex_t lock;      /* of all but the hasher */
    struct hasher *hasher;     /* whoever set `taken` owns it */
    pthread_cond_t given_back; /* `taken` fell */
    uint32_t waiters;          /* workers that wait for it */
    bool taken;                /* a worker is hashing ... */
    bool own;                  /* ... a piece that is not in line: `end` itself */
    /* collected <= hashed <= end <= collected + PREFIX_HASH_LINE_MAX, counted from the first piece
     */
    uint32_t collected; /* told to the loop */
    uint32_t hashed;    /* in the hasher */
    uint32_t end;       /* in line; piece i stands in line[i % PREFIX_HASH_LINE_MAX] */
    struct lined_piece line[PREFIX_HASH_LINE_MAX];
};

int prefix_hash_new(enum digest_algorithm algorithm, struct prefix_hash **out)
{
    struct prefix_hash *prefix = loop_alloc(NULL, NULL, sizeof *prefix);
    if (prefix == NULL)
        return E_NO_MEMORY;
    memset(prefix, 0, sizeof *prefix);
    int err = hasher_new(algorithm, &prefix->hasher);
    if (err != 0) {
        (void)loop_alloc(NULL, prefix, 0);
        return err;
    }
    (void)pthread_mutex_init(&prefix->lock, NULL); /* neither fails without attributes */
    (void)pthread_cond_init(&prefix->given_back, NULL);
    *out = prefix;
    return 0;
}

static struct lined_piece *place(struct prefix_hash *prefix, uint32_t piece)
{
    return &prefix->line[piece % PREFIX_HASH_LINE_MAX];
}

/* Gives back the buffers from piece `first` to the end. Under the lock. */
static void put_from(struct prefix_hash *prefix, uint32_t first)
{
    for (uint32_t piece = first; piece < prefix->end; piece++) {
        buffer_put(place(prefix, piece)->buffer);
        place(prefix, piece)->buffer = NULL;
    }
    prefix->end = first;
}

void prefix_hash_free(struct prefix_hash *prefix)
{
    if (prefix == NULL)
        return;
    put_from(prefix, prefix->collected);
    hasher_free(prefix->hasher);
    (void)pthread_cond_destroy(&prefix->given_back);
    (void)pthread_mutex_destroy(&prefix->lock);
    (void)loop_alloc(NULL, prefix, 0);
}

/* ---- on the loop ---- */

uint32_t prefix_hash_next(struct prefix_hash *prefix)
{
    pthread_mutex_lock(&prefix->lock);
    uint32_t next = prefix->end;
    pthread_mutex_unlock(&prefix->lock);
    return next;
}

uint32_t prefix_hash_waiting(struct prefix_hash *prefix)
{
    pthread_mutex_lock(&prefix->lock);
    uint32_t waiting = prefix->end - prefix->hashed;
    pthread_mutex_unlock(&prefix->lock);
    return waiting;
}

static bool has_room(const struct prefix_hash *prefix)
{
    return prefix->end - prefix->collected < PREFIX_HASH_LINE_MAX;
}

bool prefix_hash_push(struct prefix_hash *prefix, uint32_t piece, struct buffer *buffer,
                      const struct piece_hash *hash)
{
    pthread_mutex_lock(&prefix->lock);
    bool fits = piece == prefix->end && has_room(prefix) && !prefix->own;
    if (fits) {
        *place(prefix, prefix->end) = (struct lined_piece){buffer_ref(buffer), *hash};
        prefix->end++;
    }
    pthread_mutex_unlock(&prefix->lock);
    return fits;
}

uint32_t prefix_hash_collect(struct prefix_hash *prefix,
                             struct piece_hash out[PREFIX_HASH_LINE_MAX])
{
    uint32_t count = 0;
    pthread_mutex_lock(&prefix->lock);
    while (prefix->collected < prefix->hashed) {
        struct lined_piece *done = place(prefix, prefix->collected++);
        out[count++] = done->hash;
        buffer_put(done->buffer);
        done->buffer = NULL;
    }
    pthread_mutex_unlock(&prefix->lock);
    return count;
}

void prefix_hash_trim(struct prefix_hash *prefix)
{
    pthread_mutex_lock(&prefix->lock);
    bool in_line = prefix->taken && !prefix->own;
    put_from(prefix, prefix->hashed + (in_line ? 1 : 0));
    pthread_mutex_unlock(&prefix->lock);
}

void prefix_hash_reset(struct prefix_hash *prefix)
{
    pthread_mutex_lock(&prefix->lock);
    ASSERT(!prefix->taken);
    put_from(prefix, prefix->collected);
    prefix->collected = prefix->hashed = prefix->end = 0;
    hasher_reset(prefix->hasher);
    pthread_mutex_unlock(&prefix->lock);
}

void prefix_hash_final(struct prefix_hash *prefix, struct digest *out)
{
    pthread_mutex_lock(&prefix->lock);
    ASSERT(!prefix->taken && prefix->collected == prefix->end);
    hasher_final(prefix->hasher, out);
    pthread_mutex_unlock(&prefix->lock);
}

/* ---- on a worker ---- */

/* What a worker may do with the hasher. */
enum turn {
    TURN_NONE = 0, /* another worker has it, or there is nothing to hash */
    TURN_LINE,     /* carry it over the first of the line */
    TURN_OWN,      /* carry it over the worker's own piece */
};

/* Pieces of the line that nobody hashes or waits for. */
static uint32_t left_in_line(const struct prefix_hash *prefix)
{
    uint32_t spoken_for = prefix->waiters + (prefix->taken && !prefix->own ? 1 : 0);
    uint32_t waiting = prefix->end - prefix->hashed;
    return waiting > spoken_for ? waiting - spoken_for : 0;
}

/* Takes the hasher if there is a turn for a worker with piece `index`, also by waiting for the
 * worker who has it: hashing alone would cost more. */
static enum turn take_turn(struct prefix_hash *prefix, uint32_t index, struct hash_span *first)
{
    enum turn turn = TURN_NONE;
    pthread_mutex_lock(&prefix->lock);
    if (prefix->taken && left_in_line(prefix) > 0) {
        prefix->waiters++;
        while (prefix->taken)
            pthread_cond_wait(&prefix->given_back, &prefix->lock);
        prefix->waiters--;
    }
    bool line = prefix->hashed < prefix->end;
    bool own = index == prefix->end && has_room(prefix);
    if (!prefix->taken && (line || own)) {
        turn = line ? TURN_LINE : TURN_OWN;
        prefix->taken = true;
        prefix->own = turn == TURN_OWN;
    }
    if (turn == TURN_LINE) {
        const struct buffer *buffer = place(prefix, prefix->hashed)->buffer;
        *first = (struct hash_span){buffer->bytes, buffer->used};
    }
    pthread_mutex_unlock(&prefix->lock);
    return turn;
}

/* Gives the hasher back after the first of the line. */
static void end_line_turn(struct prefix_hash *prefix)
{
    pthread_mutex_lock(&prefix->lock);
    prefix->hashed++;
    prefix->taken = false;
    pthread_cond_broadcast(&prefix->given_back);
    pthread_mutex_unlock(&prefix->lock);
}

/* Gives the hasher back after a piece of `hash` that was not in line; NULL: it stayed out. */
static void end_own_turn(struct prefix_hash *prefix, const struct piece_hash *hash)
{
    pthread_mutex_lock(&prefix->lock);
    if (hash != NULL) {
        *place(prefix, prefix->end) = (struct lined_piece){.hash = *hash};
        prefix->hashed = ++prefix->end;
    }
    prefix->taken = prefix->own = false;
    pthread_cond_broadcast(&prefix->given_back);
    pthread_mutex_unlock(&prefix->lock);
}

static bool as_expected(const struct prefix_hash_piece *piece, const struct piece_hash *hash)
{
    return piece->expected == NULL ||
           memcmp(hash->bytes, piece->expected->bytes, sizeof hash->bytes) == 0;
}

bool prefix_hash_take(struct prefix_hash *prefix, const struct prefix_hash_piece *piece,
                      struct piece_hash *out)
{
    struct hash_span first;
    bool good;
    switch (take_turn(prefix, piece->index, &first)) {
    case TURN_LINE:
        hasher_update_beside(prefix->hasher, &first, &piece->span, out);
        end_line_turn(prefix);
        return as_expected(piece, out);
    case TURN_OWN:
        good = hasher_update_piece(prefix->hasher, piece->span.bytes, piece->span.byte_count,
                                   piece->expected, out);
        end_own_turn(prefix, good ? out : NULL);
        return good;
    case TURN_NONE:
        break;
    }
    piece_hash_of(piece->span.bytes, piece->span.byte_count, out);
    return as_expected(piece, out);
}

void prefix_hash_drain(struct prefix_hash *prefix, uint32_t leave)
{
    struct hash_span first;
    while (prefix_hash_waiting(prefix) > leave &&
           take_turn(prefix, UINT32_MAX, &first) == TURN_LINE) {
        hasher_update(prefix->hasher, first.bytes, first.byte_count);
        end_line_turn(prefix);
    }
}
