/* SPDX-License-Identifier: Apache-2.0 */
/* The table of datagram peers; see dgram_peer.h. */
#include <stddef.h>
#include <stdint.h>

/* uthash is used in functions that have a `table`: with the host's allocator, and with a key, so
 * that nobody can choose addresses that fall into one bucket. */
#define HASH_FUNCTION(key, key_bytes, hash) ((hash) = addr_hash(table, (key), (key_bytes)))
#define uthash_malloc(byte_count)           table->env.alloc(table->env.host, NULL, (byte_count))
#define uthash_free(pointer, byte_count)                                                           \
    ((void)(byte_count), (void)table->env.alloc(table->env.host, (pointer), 0))
#define HASH_NONFATAL_OOM            1
#define uthash_nonfatal_oom(element) ((element)->hh.tbl = NULL)

#include "dgram_peer.h"

#include <string.h>

#include <sodium.h>
#include <utlist.h>

#include "bytes.h"
#include "log.h"

#define SLOTS_FIRST 64

static unsigned addr_hash(const struct dgram_table *table, const void *key, size_t key_bytes)
{
    uint8_t hash[crypto_shorthash_siphash24_BYTES];
    (void)crypto_shorthash_siphash24(hash, key, key_bytes, table->hash_key);
    return load_be32(hash);
}

/* ---- heap of due times --------------------------------------------------------------------- */

static bool due_before(const struct dgram_peer *a, const struct dgram_peer *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->due_sequence < b->due_sequence;
}

static void heap_put(struct dgram_table *table, uint32_t index, struct dgram_peer *peer)
{
    table->heap[index] = peer;
    peer->heap_index = index;
}

static void heap_up(struct dgram_table *table, struct dgram_peer *peer)
{
    uint32_t index = peer->heap_index;
    while (index > 0 && due_before(peer, table->heap[(index - 1) / 2])) {
        heap_put(table, index, table->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_put(table, index, peer);
}

static void heap_down(struct dgram_table *table, struct dgram_peer *peer)
{
    uint32_t index = peer->heap_index;
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= table->peer_count)
            break;
        if (child + 1 < table->peer_count && due_before(table->heap[child + 1], table->heap[child]))
            child++;
        if (!due_before(table->heap[child], peer))
            break;
        heap_put(table, index, table->heap[child]);
        index = child;
    }
    heap_put(table, index, peer);
}

/* Takes a peer out; peer_count is already one less. */
static void heap_remove(struct dgram_table *table, const struct dgram_peer *peer)
{
    struct dgram_peer *last = table->heap[table->peer_count];
    if (last == peer)
        return;
    heap_put(table, peer->heap_index, last);
    heap_up(table, last);
    heap_down(table, last);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void dgram__peer_schedule(struct dgram_table *table, struct dgram_peer *peer)
{
    uint64_t due_us = peer->used_us + DGRAM_IDLE_US;
    if (peer->previous != NULL)
        due_us = earlier(due_us, peer->previous_due_us);
    if (peer->candidate != NULL)
        due_us = earlier(due_us, peer->candidate->due_us);
    if (peer->pending != NULL)
        due_us = earlier(due_us, peer->pending->due_us);
    peer->due_us = due_us;
    peer->due_sequence = ++table->sequence;
    heap_up(table, peer);
    heap_down(table, peer);
}

struct dgram_peer *dgram__peer_due(const struct dgram_table *table)
{
    return table->peer_count == 0 ? NULL : table->heap[0];
}

/* ---- parts --------------------------------------------------------------------------------- */

void *dgram__part_new(const struct dgram_table *table, size_t part_bytes)
{
    void *part = table->env.alloc(table->env.host, NULL, part_bytes);
    if (part != NULL)
        memset(part, 0, part_bytes);
    return part;
}

void dgram__part_free(const struct dgram_table *table, void *part, size_t part_bytes)
{
    if (part == NULL)
        return;
    sodium_memzero(part, part_bytes);
    (void)table->env.alloc(table->env.host, part, 0);
}

void dgram__pending_free(struct dgram_table *table, struct dgram_peer *peer)
{
    struct dgram_pending *pending = peer->pending;
    if (pending == NULL)
        return;
    while (pending->queue.count > 0) {
        dgram__queue_pop(table, &pending->queue);
        table->stats->queue_dropped++;
    }
    dgram__part_free(table, pending, sizeof *pending);
    peer->pending = NULL;
}

void dgram__keys_install(struct dgram_table *table, struct dgram_peer *peer,
                         struct dgram_keys *keys, uint64_t previous_due_us)
{
    if (peer->active != NULL) {
        dgram__part_free(table, peer->previous, sizeof *peer->previous);
        peer->previous = peer->active;
        peer->previous_due_us = previous_due_us;
    }
    peer->active = keys;
}

/* ---- queue --------------------------------------------------------------------------------- */

int dgram__queue_push(struct dgram_table *table, struct dgram_queue *queue, const uint8_t *msg,
                      size_t msg_bytes)
{
    if (queue->count == DGRAM_QUEUE_MAX) {
        dgram__queue_pop(table, queue);
        table->stats->queue_dropped++;
    }
    if (table->queued_count >= DGRAM_QUEUED_MAX)
        return E_FULL;
    uint8_t *copy = table->env.alloc(table->env.host, NULL, msg_bytes);
    if (copy == NULL)
        return E_NO_MEMORY;
    memcpy(copy, msg, msg_bytes);
    unsigned at = (queue->first + queue->count) % DGRAM_QUEUE_MAX;
    queue->items[at].bytes = copy;
    queue->items[at].byte_count = msg_bytes;
    queue->count++;
    table->queued_count++;
    return 0;
}

const uint8_t *dgram__queue_first(const struct dgram_queue *queue, size_t *msg_bytes)
{
    if (queue->count == 0)
        return NULL;
    *msg_bytes = queue->items[queue->first].byte_count;
    return queue->items[queue->first].bytes;
}

void dgram__queue_pop(struct dgram_table *table, struct dgram_queue *queue)
{
    ASSERT(queue->count > 0);
    ASSERT(table->queued_count > 0);
    (void)table->env.alloc(table->env.host, queue->items[queue->first].bytes, 0);
    queue->items[queue->first].bytes = NULL;
    queue->first = (queue->first + 1) % DGRAM_QUEUE_MAX;
    queue->count--;
    table->queued_count--;
}

/* ---- table --------------------------------------------------------------------------------- */

void dgram__table_init(struct dgram_table *table, const struct env *env, struct dgram_stats *stats)
{
    uint8_t start[4];
    static_assert(sizeof table->hash_key == crypto_shorthash_siphash24_KEYBYTES, "SipHash key");
    memset(table, 0, sizeof *table);
    table->env = *env;
    table->stats = stats;
    env->random(env->host, start, sizeof start);
    table->generation = load_be32(start);
    env->random(env->host, table->hash_key, sizeof table->hash_key);
}

void dgram__table_close(struct dgram_table *table)
{
    while (table->known != NULL)
        dgram__peer_drop(table, table->known);
    while (table->unknown != NULL)
        dgram__peer_drop(table, table->unknown);
    ASSERT(table->peer_count == 0);
    ASSERT(table->queued_count == 0);
    (void)table->env.alloc(table->env.host, table->slots, 0);
    (void)table->env.alloc(table->env.host, table->free_slots, 0);
    (void)table->env.alloc(table->env.host, table->heap, 0);
    table->slots = NULL;
    table->free_slots = NULL;
    table->heap = NULL;
}

struct dgram_peer *dgram__peer_find(const struct dgram_table *table, const struct peer_addr *addr)
{
    struct dgram_peer *peer = NULL;
    HASH_FIND(hh, table->by_addr, addr, sizeof *addr, peer);
    return peer;
}

struct dgram_peer *dgram__peer_at(const struct dgram_table *table, uint32_t local_index)
{
    uint32_t slot = local_index & DGRAM_SLOT_MASK;
    return slot < table->slot_capacity ? table->slots[slot] : NULL;
}

uint32_t dgram__peer_index(struct dgram_table *table, const struct dgram_peer *peer)
{
    table->generation++;
    return table->generation << DGRAM_SLOT_BITS | peer->slot;
}

/* Doubles the arrays. On failure some may be larger than slot_capacity says, which is harmless. */
static int grow(struct dgram_table *table)
{
    void *host = table->env.host;
    uint32_t capacity = table->slot_capacity == 0 ? SLOTS_FIRST : table->slot_capacity * 2;
    ASSERT(capacity <= MEMBERS_MAX);
    void *slots = table->env.alloc(host, table->slots, capacity * sizeof *table->slots);
    if (slots == NULL)
        return E_NO_MEMORY;
    table->slots = slots;
    void *free_slots =
        table->env.alloc(host, table->free_slots, capacity * sizeof *table->free_slots);
    if (free_slots == NULL)
        return E_NO_MEMORY;
    table->free_slots = free_slots;
    void *heap = table->env.alloc(host, table->heap, capacity * sizeof *table->heap);
    if (heap == NULL)
        return E_NO_MEMORY;
    table->heap = heap;
    /* Highest first, so that the lowest slot is taken first. */
    for (uint32_t slot = capacity; slot > table->slot_capacity; slot--) {
        table->slots[slot - 1] = NULL;
        table->free_slots[table->free_count++] = slot - 1;
    }
    table->slot_capacity = capacity;
    return 0;
}

/* The head's prev is the tail in utlist's lists. */
static void make_room(struct dgram_table *table, bool known)
{
    struct dgram_peer *head = known ? table->known : table->unknown;
    uint32_t count = known ? table->known_count : table->unknown_count;
    if (count < (known ? DGRAM_KNOWN_MAX : DGRAM_UNKNOWN_MAX))
        return;
    dgram__peer_drop(table, head->prev);
    table->stats->peers_evicted++;
}

static void list_add(struct dgram_table *table, struct dgram_peer *peer)
{
    if (peer->known) {
        DL_PREPEND(table->known, peer);
        table->known_count++;
    } else {
        DL_PREPEND(table->unknown, peer);
        table->unknown_count++;
    }
}

static void list_remove(struct dgram_table *table, struct dgram_peer *peer)
{
    if (peer->known) {
        DL_DELETE(table->known, peer);
        table->known_count--;
    } else {
        DL_DELETE(table->unknown, peer);
        table->unknown_count--;
    }
}

static bool hash_add(struct dgram_table *table, struct dgram_peer *peer)
{
    HASH_ADD(hh, table->by_addr, addr, sizeof peer->addr, peer);
    return peer->hh.tbl != NULL;
}

int dgram__peer_add(struct dgram_table *table, const struct peer_addr *addr, bool known,
                    uint64_t now_us, struct dgram_peer **out)
{
    ASSERT(dgram__peer_find(table, addr) == NULL);
    make_room(table, known);
    if (table->free_count == 0 && grow(table) != 0)
        return E_NO_MEMORY;
    struct dgram_peer *peer = dgram__part_new(table, sizeof *peer);
    if (peer == NULL)
        return E_NO_MEMORY;
    peer->addr = *addr;
    peer->known = known;
    peer->used_us = now_us;
    peer->checked_us = now_us;
    if (!hash_add(table, peer)) {
        dgram__part_free(table, peer, sizeof *peer);
        return E_NO_MEMORY;
    }
    peer->slot = table->free_slots[--table->free_count];
    table->slots[peer->slot] = peer;
    list_add(table, peer);
    heap_put(table, table->peer_count, peer);
    table->peer_count++;
    dgram__peer_schedule(table, peer);
    *out = peer;
    return 0;
}

void dgram__peer_drop(struct dgram_table *table, struct dgram_peer *peer)
{
    ASSERT(table->slots[peer->slot] == peer);
    dgram__pending_free(table, peer);
    dgram__part_free(table, peer->active, sizeof *peer->active);
    dgram__part_free(table, peer->previous, sizeof *peer->previous);
    dgram__part_free(table, peer->candidate, sizeof *peer->candidate);
    HASH_DELETE(hh, table->by_addr, peer);
    list_remove(table, peer);
    table->slots[peer->slot] = NULL;
    table->free_slots[table->free_count++] = peer->slot;
    table->peer_count--;
    heap_remove(table, peer);
    dgram__part_free(table, peer, sizeof *peer);
}

void dgram__peer_use(struct dgram_table *table, struct dgram_peer *peer, uint64_t now_us)
{
    peer->used_us = now_us;
    if (!peer->known || table->known == peer)
        return;
    DL_DELETE(table->known, peer);
    DL_PREPEND(table->known, peer);
}

void dgram__peer_know(struct dgram_table *table, struct dgram_peer *peer, uint64_t now_us)
{
    if (peer->known)
        return;
    make_room(table, true);
    list_remove(table, peer);
    peer->known = true;
    peer->used_us = now_us;
    list_add(table, peer);
}

static void check_peer(const struct dgram_table *table, const struct dgram_peer *peer)
{
    ASSERT(table->slots[peer->slot] == peer);
    ASSERT(table->heap[peer->heap_index] == peer);
    ASSERT(peer->heap_index == 0 || !due_before(peer, table->heap[(peer->heap_index - 1) / 2]));
    ASSERT(dgram__peer_find(table, &peer->addr) == peer);
    ASSERT(peer->pending == NULL || peer->pending->queue.count <= DGRAM_QUEUE_MAX);
    ASSERT(peer->previous == NULL || peer->due_us <= peer->previous_due_us);
    ASSERT(peer->pending == NULL || peer->due_us <= peer->pending->due_us);
    ASSERT(peer->candidate == NULL || peer->due_us <= peer->candidate->due_us);
}

void dgram__table_check(const struct dgram_table *table)
{
    uint32_t known = 0;
    uint32_t unknown = 0;
    uint32_t queued = 0;
    for (uint32_t i = 0; i < table->slot_capacity; i++) {
        const struct dgram_peer *peer = table->slots[i];
        if (peer == NULL)
            continue;
        check_peer(table, peer);
        known += peer->known ? 1 : 0;
        unknown += peer->known ? 0 : 1;
        queued += peer->pending != NULL ? peer->pending->queue.count : 0;
    }
    ASSERT(known == table->known_count);
    ASSERT(unknown == table->unknown_count);
    ASSERT(queued == table->queued_count);
    ASSERT(known + unknown == table->peer_count);
    ASSERT(table->free_count + table->peer_count == table->slot_capacity);
    ASSERT(HASH_COUNT(table->by_addr) == table->peer_count);
}
