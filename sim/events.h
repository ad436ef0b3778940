/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event queue: by (time, sequence), so that equal times keep their order. Events of the next
 * 131 ms, which is nearly all, stand on a wheel with a list for each microsecond: put in, taken out
 * and moved without regard to how many others wait. Those after that, or before the last one taken,
 * are in a heap of small keys with four children each. The events themselves lie still in slots,
 * one line of the processor's cache each. One that waits can be moved or taken back by its slot:
 * the last byte of a flow moves whenever its rate does.
 */
#ifndef SHOAL_SIM_EVENTS_H
#define SHOAL_SIM_EVENTS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum event_kind {
    EVENT_DATAGRAM = 1,
    EVENT_TIMER,    /* a node's mesh deadline */
    EVENT_FLOW,     /* a flow's last byte may be here (flows_fired) */
    EVENT_POUR,     /* rates of flows become right (flows_pour) */
    EVENT_START,    /* the first byte of a bulk arrives */
    EVENT_PROGRESS, /* some bytes of a bulk are here */
    EVENT_VERIFIED, /* a piece has been opened, hashed and stored */
    EVENT_SESSION_UP,
    EVENT_SESSION_DOWN,
    EVENT_NODE_START,
    EVENT_NODE_KILL,
    EVENT_NODE_LEAVE,
    EVENT_NODE_FREEZE,
    EVENT_PULL,
    EVENT_REST,   /* layers of image `other` may have been brought in in vain */
    EVENT_CUT,    /* zone `node` no longer reaches zone `other`, or does again (version 0) */
    EVENT_ORIGIN, /* its state is `version` now */
    EVENT_NIC,    /* the node's rates are those numbered `version` now */
    EVENT_ORIGIN_RATE,
    EVENT_CUT_LINK, /* the same as CUT for nodes */
    EVENT_TRAIT,    /* what enum world_trait `other` names is `version` for the node now */
};

struct event {
    uint64_t at_us;
    uint64_t sequence;
    enum event_kind kind;
    uint32_t node;  /* who it happens to */
    uint32_t other; /* the other side, flow, bulk or pull */
    uint32_t byte_count;
    uint64_t version; /* to recognise outdated ones */
    uint8_t *bytes;   /* DATAGRAM: a buffer of the world's */
};

#define EVENT_NONE UINT32_MAX

/* An event and where it waits. */
struct event_slot {
    struct event event;
    uint32_t next;     /* on the wheel, of the same microsecond; of a free one: the next free one */
    uint32_t previous; /* on the wheel; EVENT_NONE: the first */
    uint32_t place;    /* in the heap; EVENT_NONE: on the wheel */
};

struct event_key {
    uint64_t at_us;
    uint32_t sequence; /* compared by difference: it may wrap */
    uint32_t slot;
};

/* Microseconds of the wheel; a power of two. */
#define EVENT_WHEEL_US (1u << 17)

/* The events of one microsecond, in order of their sequence. */
struct event_list {
    uint32_t first, last; /* slots; nothing while the wheel's bit is clear */
};

struct event_queue {
    struct event_slot *slots; /* owned */
    size_t capacity;
    uint32_t free_slot, slot_count; /* slots ever used */
    size_t count;                   /* events that wait, wheel and heap */
    struct event_list *lists;       /* owned; by time modulo EVENT_WHEEL_US */
    uint64_t *occupied;             /* owned; a bit per list */
    size_t wheel_count;
    uint64_t wheel_us;      /* time of the earliest on the wheel, if there is any */
    uint64_t base_us;       /* of the last one taken: the wheel holds [base, base + its length) */
    struct event_key *heap; /* owned */
    size_t heap_count;
    uint64_t sequence;
};

/* Adds an event; its sequence is set here. Returns its slot, valid until it is taken. Aborts on
 * exhaustion: a simulation has no use for half a world. */
uint32_t events_push(struct event_queue *queue, struct event event);
/* One that waits happens then instead, as if it were pushed now. */
void events_move(struct event_queue *queue, uint32_t slot, uint64_t at_us);
/* One that waits does not happen. Frees nothing that it points at. */
void events_cancel(struct event_queue *queue, uint32_t slot);
/* Takes the earliest; false if empty. */
bool events_pop(struct event_queue *queue, struct event *out);
/* Time of the earliest, UINT64_MAX if empty. */
static inline uint64_t events_next_us(const struct event_queue *queue)
{
    uint64_t next_us = queue->wheel_count > 0 ? queue->wheel_us : UINT64_MAX;
    return queue->heap_count > 0 && queue->heap[0].at_us < next_us ? queue->heap[0].at_us : next_us;
}
/* For a look ahead at what comes, without the events of the heap: the next time after at_us that
 * has any on the wheel, UINT64_MAX if there is none in the next two milliseconds. */
uint64_t events_after_us(const struct event_queue *queue, uint64_t at_us);
/* Slot of the first event on the wheel at this time, EVENT_NONE if there is none; the others follow
 * by their `next`. */
uint32_t events_at(const struct event_queue *queue, uint64_t at_us);
/* Aborts if lists, heap and counts disagree. */
void events_check(const struct event_queue *queue);
/* Frees the queue, not what events point at. */
void events_close(struct event_queue *queue);

#endif
