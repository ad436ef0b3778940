/* SPDX-License-Identifier: Apache-2.0 */
/* A wheel of microseconds over a four-ary heap; see events.h. */
#include "events.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"

#define CHILDREN    4
#define LINE_BYTES  64
#define BITS        64
#define WHEEL_WORDS (EVENT_WHEEL_US / BITS)
/* Words of the wheel that a look ahead goes over. */
#define AHEAD_WORDS 32

static_assert(sizeof(struct event_slot) == LINE_BYTES, "an event is one line of the cache");

/* ---- slots ---- */

static void *grown(void *old, size_t bytes)
{
    void *items = realloc(old, bytes);
    ASSERT(items != NULL);
    return items;
}

static void grow(struct event_queue *queue)
{
    size_t old = queue->capacity, capacity = old == 0 ? 1024 : 2 * old;
    ASSERT(capacity < UINT32_MAX);
    struct event_slot *slots = aligned_alloc(LINE_BYTES, capacity * sizeof *slots);
    ASSERT(slots != NULL);
    if (old > 0)
        memcpy(slots, queue->slots, old * sizeof *slots);
    free(queue->slots);
    queue->slots = slots;
    queue->heap = grown(queue->heap, capacity * sizeof *queue->heap);
    queue->capacity = capacity;
    if (queue->lists != NULL)
        return;
    queue->lists = calloc(EVENT_WHEEL_US, sizeof *queue->lists);
    queue->occupied = calloc(WHEEL_WORDS, sizeof *queue->occupied);
    ASSERT(queue->lists != NULL && queue->occupied != NULL);
}

/* There are as many slots in use as events that wait, so a free one is always within capacity. */
static uint32_t take_slot(struct event_queue *queue)
{
    if (queue->slot_count == queue->count)
        return queue->slot_count++;
    uint32_t slot = queue->free_slot;
    queue->free_slot = queue->slots[slot].next;
    return slot;
}

static void put_slot(struct event_queue *queue, uint32_t slot)
{
    queue->slots[slot].next = queue->free_slot;
    queue->free_slot = slot;
}

/* ---- the heap ---- */

static bool earlier(const struct event_key *a, const struct event_key *b)
{
    if (a->at_us != b->at_us)
        return a->at_us < b->at_us;
    return (int32_t)(a->sequence - b->sequence) < 0;
}

static void place(struct event_queue *queue, size_t at, struct event_key key)
{
    queue->heap[at] = key;
    queue->slots[key.slot].place = (uint32_t)at;
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
        if (first >= queue->heap_count)
            break;
        end = end < queue->heap_count ? end : queue->heap_count;
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

static void heap_add(struct event_queue *queue, uint32_t slot)
{
    const struct event *event = &queue->slots[slot].event;
    rise(queue, queue->heap_count++,
         (struct event_key){event->at_us, (uint32_t)event->sequence, slot});
}

static void heap_remove(struct event_queue *queue, size_t at)
{
    ASSERT(at < queue->heap_count);
    struct event_key last = queue->heap[--queue->heap_count];
    if (at == queue->heap_count)
        return;
    if (at > 0 && earlier(&last, &queue->heap[(at - 1) / CHILDREN]))
        rise(queue, at, last);
    else
        sink(queue, at, last);
}

/* ---- the wheel ---- */

static uint32_t list_of(uint64_t at_us)
{
    return (uint32_t)at_us % EVENT_WHEEL_US;
}

static bool is_occupied(const struct event_queue *queue, uint32_t list)
{
    return (queue->occupied[list / BITS] >> list % BITS & 1) != 0;
}

/* Behind those of the same microsecond, which were all pushed before. */
static void wheel_add(struct event_queue *queue, uint32_t slot)
{
    struct event_slot *item = &queue->slots[slot];
    uint64_t at_us = item->event.at_us;
    uint32_t at = list_of(at_us);
    struct event_list *list = &queue->lists[at];
    bool first = !is_occupied(queue, at);
    item->previous = first ? EVENT_NONE : list->last;
    item->next = EVENT_NONE;
    item->place = EVENT_NONE;
    *(first ? &list->first : &queue->slots[list->last].next) = slot;
    list->last = slot;
    queue->occupied[at / BITS] |= 1ULL << at % BITS;
    if (queue->wheel_count++ == 0 || at_us < queue->wheel_us)
        queue->wheel_us = at_us;
}

/* Time of the first on the wheel, none of which is earlier than `from_us`. */
static uint64_t wheel_next_us(const struct event_queue *queue, uint64_t from_us)
{
    uint32_t from = list_of(from_us), word = from / BITS;
    uint64_t bits = queue->occupied[word] & UINT64_MAX << from % BITS;
    for (uint32_t i = 0; bits == 0; i++) {
        ASSERT(i < WHEEL_WORDS); /* once round, to the lists before `from` in its own word */
        word = (word + 1) % WHEEL_WORDS;
        bits = queue->occupied[word];
    }
    uint32_t found = word * BITS + (uint32_t)__builtin_ctzll(bits);
    return from_us + (found - from) % EVENT_WHEEL_US;
}

static void wheel_remove(struct event_queue *queue, uint32_t slot)
{
    const struct event_slot *item = &queue->slots[slot];
    uint64_t at_us = item->event.at_us;
    uint32_t at = list_of(at_us);
    struct event_list *list = &queue->lists[at];
    *(item->previous == EVENT_NONE ? &list->first : &queue->slots[item->previous].next) =
        item->next;
    *(item->next == EVENT_NONE ? &list->last : &queue->slots[item->next].previous) = item->previous;
    queue->wheel_count--;
    if (item->previous != EVENT_NONE || item->next != EVENT_NONE)
        return;
    queue->occupied[at / BITS] &= ~(1ULL << at % BITS);
    if (at_us == queue->wheel_us && queue->wheel_count > 0)
        queue->wheel_us = wheel_next_us(queue, at_us);
}

/* ---- both ---- */

static void put_in(struct event_queue *queue, uint32_t slot, uint64_t at_us)
{
    struct event *event = &queue->slots[slot].event;
    event->at_us = at_us;
    event->sequence = queue->sequence++;
    if (at_us >= queue->base_us && at_us - queue->base_us < EVENT_WHEEL_US)
        wheel_add(queue, slot);
    else
        heap_add(queue, slot);
}

static void take_out(struct event_queue *queue, uint32_t slot)
{
    uint32_t at = queue->slots[slot].place;
    ASSERT(at == EVENT_NONE || (at < queue->heap_count && queue->heap[at].slot == slot));
    if (at == EVENT_NONE)
        wheel_remove(queue, slot);
    else
        heap_remove(queue, at);
}

uint32_t events_push(struct event_queue *queue, struct event event)
{
    if (queue->count == queue->capacity)
        grow(queue);
    uint32_t slot = take_slot(queue);
    queue->count++;
    queue->slots[slot].event = event;
    put_in(queue, slot, event.at_us);
    return slot;
}

void events_move(struct event_queue *queue, uint32_t slot, uint64_t at_us)
{
    take_out(queue, slot);
    put_in(queue, slot, at_us);
}

void events_cancel(struct event_queue *queue, uint32_t slot)
{
    take_out(queue, slot);
    put_slot(queue, slot);
    queue->count--;
}

/* Slot of the earliest of all. */
static uint32_t earliest(const struct event_queue *queue)
{
    if (queue->wheel_count == 0)
        return queue->heap[0].slot;
    uint32_t slot = queue->lists[list_of(queue->wheel_us)].first;
    if (queue->heap_count == 0)
        return slot;
    struct event_key key = {queue->wheel_us, (uint32_t)queue->slots[slot].event.sequence, slot};
    return earlier(&queue->heap[0], &key) ? queue->heap[0].slot : slot;
}

bool events_pop(struct event_queue *queue, struct event *out)
{
    if (queue->count == 0)
        return false;
    uint32_t slot = earliest(queue);
    *out = queue->slots[slot].event;
    events_cancel(queue, slot);
    if (out->at_us > queue->base_us)
        queue->base_us = out->at_us;
    return true;
}

uint64_t events_after_us(const struct event_queue *queue, uint64_t at_us)
{
    uint64_t from_us = at_us + 1 > queue->base_us ? at_us + 1 : queue->base_us;
    if (queue->wheel_count == 0)
        return UINT64_MAX;
    uint32_t from = list_of(from_us), word = from / BITS;
    uint64_t bits = queue->occupied[word] & UINT64_MAX << from % BITS;
    for (uint32_t i = 0; bits == 0 && i < AHEAD_WORDS; i++) {
        word = (word + 1) % WHEEL_WORDS;
        bits = queue->occupied[word];
    }
    if (bits == 0)
        return UINT64_MAX;
    uint32_t found = word * BITS + (uint32_t)__builtin_ctzll(bits);
    uint64_t found_us = from_us + (found - from) % EVENT_WHEEL_US;
    return found_us - queue->base_us < EVENT_WHEEL_US ? found_us : UINT64_MAX;
}

uint32_t events_at(const struct event_queue *queue, uint64_t at_us)
{
    bool on_wheel = queue->wheel_count > 0 && at_us >= queue->base_us &&
                    at_us - queue->base_us < EVENT_WHEEL_US;
    return on_wheel && is_occupied(queue, list_of(at_us)) ? queue->lists[list_of(at_us)].first
                                                          : EVENT_NONE;
}

/* The events of one list are linked both ways, of one time, and in order. Returns how many. */
static size_t check_list(const struct event_queue *queue, uint32_t list)
{
    size_t count = 0;
    uint32_t previous = EVENT_NONE, slot = queue->lists[list].first;
    for (; slot != EVENT_NONE; slot = queue->slots[slot].next) {
        const struct event_slot *item = &queue->slots[slot];
        ASSERT(item->place == EVENT_NONE && item->previous == previous);
        ASSERT(list_of(item->event.at_us) == list);
        ASSERT(item->event.at_us >= queue->wheel_us && item->event.at_us >= queue->base_us);
        ASSERT(item->event.at_us - queue->base_us < EVENT_WHEEL_US);
        ASSERT(previous == EVENT_NONE ||
               queue->slots[previous].event.sequence < item->event.sequence);
        previous = slot;
        count++;
    }
    ASSERT(count > 0 && queue->lists[list].last == previous);
    return count;
}

void events_check(const struct event_queue *queue)
{
    size_t count = 0;
    for (uint32_t list = 0; queue->lists != NULL && list < EVENT_WHEEL_US; list++)
        count += is_occupied(queue, list) ? check_list(queue, list) : 0;
    ASSERT(count == queue->wheel_count && count + queue->heap_count == queue->count);
    ASSERT(count == 0 || is_occupied(queue, list_of(queue->wheel_us)));
    for (size_t i = 0; i < queue->heap_count; i++) {
        ASSERT(queue->slots[queue->heap[i].slot].place == i);
        ASSERT(i == 0 || !earlier(&queue->heap[i], &queue->heap[(i - 1) / CHILDREN]));
    }
}

void events_close(struct event_queue *queue)
{
    free(queue->slots);
    free(queue->lists);
    free(queue->occupied);
    free(queue->heap);
    *queue = (struct event_queue){0};
}
