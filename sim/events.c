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
    ASSERT(queue->heap != NULL && queue->slots != NULL);
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

void events_push(struct event_queue *queue, struct event event)
{
    if (queue->count == queue->capacity)
        grow(queue);
    event.sequence = queue->sequence++;
    struct event_key key = {event.at_us, (uint32_t)event.sequence, take_slot(queue)};
    queue->slots[key.slot] = event;
    size_t i = queue->count++;
    while (i > 0 && earlier(&key, &queue->heap[(i - 1) / CHILDREN])) {
        queue->heap[i] = queue->heap[(i - 1) / CHILDREN];
        i = (i - 1) / CHILDREN;
    }
    queue->heap[i] = key;
}

/* Puts a key into the hole at the root. */
static void sink(struct event_queue *queue, struct event_key key)
{
    struct event_key *heap = queue->heap;
    size_t i = 0;
    for (;;) {
        size_t first = CHILDREN * i + 1, end = first + CHILDREN;
        if (first >= queue->count)
            break;
        end = end < queue->count ? end : queue->count;
        size_t least = first;
        for (size_t child = first + 1; child < end; child++)
            least = earlier(&heap[child], &heap[least]) ? child : least;
        if (!earlier(&heap[least], &key))
            break;
        heap[i] = heap[least];
        i = least;
    }
    heap[i] = key;
}

bool events_pop(struct event_queue *queue, struct event *out)
{
    if (queue->count == 0)
        return false;
    uint32_t slot = queue->heap[0].slot;
    *out = queue->slots[slot];
    queue->slots[slot].node = queue->free_slot;
    queue->free_slot = slot;
    struct event_key last = queue->heap[--queue->count];
    if (queue->count > 0)
        sink(queue, last);
    return true;
}

void events_close(struct event_queue *queue)
{
    free(queue->heap);
    free(queue->slots);
    *queue = (struct event_queue){0};
}
