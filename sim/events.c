/* SPDX-License-Identifier: Apache-2.0 */
/* Binary heap of events; see events.h. */
#include "events.h"

#include <stdlib.h>

#include "log.h"

static bool earlier(const struct event *a, const struct event *b)
{
    if (a->at_us != b->at_us)
        return a->at_us < b->at_us;
    return a->sequence < b->sequence;
}

void events_push(struct event_queue *queue, struct event event)
{
    if (queue->count == queue->capacity) {
        queue->capacity = queue->capacity == 0 ? 1024 : queue->capacity * 2;
        queue->heap = realloc(queue->heap, queue->capacity * sizeof *queue->heap);
        ASSERT(queue->heap != NULL);
    }
    event.sequence = queue->sequence++;
    size_t i = queue->count++;
    while (i > 0 && earlier(&event, &queue->heap[(i - 1) / 2])) {
        queue->heap[i] = queue->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    queue->heap[i] = event;
}

bool events_pop(struct event_queue *queue, struct event *out)
{
    if (queue->count == 0)
        return false;
    *out = queue->heap[0];
    struct event last = queue->heap[--queue->count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= queue->count)
            break;
        if (child + 1 < queue->count && earlier(&queue->heap[child + 1], &queue->heap[child]))
            child++;
        if (!earlier(&queue->heap[child], &last))
            break;
        queue->heap[i] = queue->heap[child];
        i = child;
    }
    if (queue->count > 0)
        queue->heap[i] = last;
    return true;
}

uint64_t events_next_us(const struct event_queue *queue)
{
    return queue->count == 0 ? UINT64_MAX : queue->heap[0].at_us;
}

void events_close(struct event_queue *queue)
{
    free(queue->heap);
    *queue = (struct event_queue){0};
}
