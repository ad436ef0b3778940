/* SPDX-License-Identifier: Apache-2.0 */
/* Four-ary heap of events; see events.h. */
#include "events.h"

#include <stdlib.h>

#include "log.h"

#define CHILDREN 4

static bool earlier(const struct event_key *a, const struct event_key *b)
{
    if (a->at_us != b->at_us)
        return a->at_us < b->at_us;
    return (int32_t)(a->sequence - b->sequence) < 0;
}

static void grow(struct event_queue *queue)
{
    queue->capacity = queue->capacity == 0 ? 1024 : queue->capacity * 2;
    ASSERT(queue->capacity < UINT32_MAX);
    queue->heap = realloc(queue->heap, queue->capacity * sizeof *queue->heap);
    queue->slots = realloc(queue->slots, queue->capacity * sizeof *queue->slots);
    queue->places = realloc(queue->places, queue->capacity * sizeof *queue->places);
    ASSERT(queue->heap != NULL && queue->slots != NULL && queue->places != NULL);
}

/* There are as many slots in use as keys in the heap, so a free one is always within capacity. */
static uint32_t take_slot(struct event_queue *queue)
{
    if (queue->slot_count == queue->count)
        return queue->slot_count++;
    uint32_t slot = queue->free_slot;
    queue->free_slot = queue->slots[slot].node;
    return slot;
}

static void put_slot(struct event_queue *queue, uint32_t slot)
{
    queue->slots[slot].node = queue->free_slot;
    queue->free_slot = slot;
}

static void place(struct event_queue *queue, size_t at, struct event_key key)
{
    queue->heap[at] = key;
    queue->places[key.slot] = (uint32_t)at;
}

/* Puts a key into the hole at `at`, or above it. */
static void rise(struct event_queue *queue, size_t at, struct event_key key)
{
    while (at > 0 && earlier(&key, &queue->heap[(at - 1) / CHILDREN])) {
        place(queue, at, queue->heap[(at - 1) / CHILDREN]);
        at = (at - 1) / CHILDREN;
    }
    place(queue, at, key);
}

/* Puts a key into the hole at `at`, or below it. */
static void sink(struct event_queue *queue, size_t at, struct event_key key)
{
    struct event_key *heap = queue->heap;
    for (;;) {
        size_t first = CHILDREN * at + 1, end = first + CHILDREN;
        if (first >= queue->count)
            break;
        end = end < queue->count ? end : queue->count;
        size_t least = first;
        for (size_t child = first + 1; child < end; child++)
            least = earlier(&heap[child], &heap[least]) ? child : least;
        if (!earlier(&heap[least], &key))
            break;
        place(queue, at, heap[least]);
        at = least;
    }
    place(queue, at, key);
}

static void fit(struct event_queue *queue, size_t at, struct event_key key)
{
    if (at > 0 && earlier(&key, &queue->heap[(at - 1) / CHILDREN]))
        rise(queue, at, key);
    else
        sink(queue, at, key);
}

/* Takes a key out; its slot stays. */
static void take_out(struct event_queue *queue, size_t at)
{
    struct event_key last = queue->heap[--queue->count];
    if (at < queue->count)
        fit(queue, at, last);
}

uint32_t events_push(struct event_queue *queue, struct event event)
{
    if (queue->count == queue->capacity)
        grow(queue);
    event.sequence = queue->sequence++;
    struct event_key key = {event.at_us, (uint32_t)event.sequence, take_slot(queue)};
    queue->slots[key.slot] = event;
    rise(queue, queue->count++, key);
    return key.slot;
}

void events_move(struct event_queue *queue, uint32_t slot, uint64_t at_us)
{
    struct event *event = &queue->slots[slot];
    uint32_t at = queue->places[slot];
    ASSERT(at < queue->count && queue->heap[at].slot == slot);
    event->at_us = at_us;
    event->sequence = queue->sequence++;
    fit(queue, at, (struct event_key){at_us, (uint32_t)event->sequence, slot});
}

void events_cancel(struct event_queue *queue, uint32_t slot)
{
    uint32_t at = queue->places[slot];
    ASSERT(at < queue->count && queue->heap[at].slot == slot);
    take_out(queue, at);
    put_slot(queue, slot);
}

bool events_pop(struct event_queue *queue, struct event *out)
{
    if (queue->count == 0)
        return false;
    uint32_t slot = queue->heap[0].slot;
    *out = queue->slots[slot];
    put_slot(queue, slot);
    take_out(queue, 0);
    return true;
}

void events_close(struct event_queue *queue)
{
    free(queue->heap);
    free(queue->slots);
    free(queue->places);
    *queue = (struct event_queue){0};
}
