/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted array of members and XOR-closest search on it. See members.h. */
#include "members.h"

#include <string.h>

#include "limits.h"
#include "log.h"

#define NO_WIDE UINT32_MAX
/* News that may wait unsorted: this many and an eighth of the rest. Merging costs one pass over
 * all, so each new member pays for some eight; the array needs room for the news twice. */
#define TAIL_MIN  64
#define TAIL_PART 8
/* XOR descent: each halving fixes at least one of 64 bits. */
#define DESCENT_DEPTH 65

static void addr_of(const struct dht_members *members, const struct dht_member *member,
                    struct peer_addr *out)
{
    *out = (struct peer_addr){.ip = {[10] = 0xff, [11] = 0xff}, .port = member->port};
    if (member->is_wide) {
        ASSERT(member->ip < members->wide_count);
        memcpy(out->ip, members->wide[member->ip], 16);
    } else {
        store_be32(out->ip + 12, member->ip);
    }
}

static void place_of(const struct dht_members *members, const struct dht_member *member,
                     struct dht_place *out)
{
    out->pos = member->pos;
    addr_of(members, member, &out->addr);
}

/* Keeps 16 bytes for an address that is not IPv4. 0 or E_NO_MEMORY. */
static int wide_new(struct dht_members *members, const uint8_t ip[16], uint32_t *index)
{
    if (members->wide_free == NO_WIDE && members->wide_count == members->wide_capacity) {
        uint32_t capacity = members->wide_capacity == 0 ? 64 : 2 * members->wide_capacity;
        void *grown = members->env->alloc(members->env->host, members->wide, (size_t)capacity * 16);
        if (grown == NULL)
            return E_NO_MEMORY;
        members->wide = grown;
        members->wide_capacity = capacity;
    }
    if (members->wide_free != NO_WIDE) {
        *index = members->wide_free;
        members->wide_free = load_be32(members->wide[*index]);
    } else {
        *index = members->wide_count++;
    }
    memcpy(members->wide[*index], ip, 16);
    return 0;
}

static void wide_release(struct dht_members *members, const struct dht_member *member)
{
    if (!member->is_wide)
        return;
    ASSERT(member->ip < members->wide_count);
    store_be32(members->wide[member->ip], members->wide_free);
    members->wide_free = member->ip;
}

static int member_compare(const struct dht_members *members, const struct dht_member *a,
                          const struct dht_member *b)
{
    if (a->pos != b->pos)
        return a->pos < b->pos ? -1 : 1;
    struct peer_addr addr_a, addr_b;
    addr_of(members, a, &addr_a);
    addr_of(members, b, &addr_b);
    return dht__addr_compare(&addr_a, &addr_b);
}

/* Heap sort of the tail: no memory, no comparison through statics, O(n log n) for any input. */
static void sift_down(const struct dht_members *members, struct dht_member *heap, size_t at,
                      size_t count)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && member_compare(members, &heap[child], &heap[child + 1]) < 0)
            child++;
        if (member_compare(members, &heap[at], &heap[child]) >= 0)
            return;
        struct dht_member swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

static void sort(const struct dht_members *members, struct dht_member *entries, size_t count)
{
    for (size_t i = count / 2; i-- > 0;)
        sift_down(members, entries, i, count);
    for (size_t end = count; end-- > 1;) {
        struct dht_member swap = entries[0];
        entries[0] = entries[end];
        entries[end] = swap;
        sift_down(members, entries, 0, end);
    }
}

/* Drops twins from the whole sorted array; the later one goes. */
static void drop_twins(struct dht_members *members)
{
    size_t kept = 0;
    for (size_t i = 0; i < members->count; i++) {
        struct dht_member *entry = &members->entries[i];
        if (kept > 0 && member_compare(members, &members->entries[kept - 1], entry) == 0)
            wide_release(members, entry);
        else
            members->entries[kept++] = *entry;
    }
    members->count = kept;
}

/* Brings the tail into the sorted part, from the back, in place: the array has room for the tail
 * twice (add sees to it), so the tail is parked behind and the merge never overwrites unread ones.
 */
static void settle(struct dht_members *members)
{
    size_t tail = members->count - members->sorted;
    if (tail == 0)
        return;
    ASSERT(members->count + tail <= members->capacity);
    struct dht_member *entries = members->entries;
    struct dht_member *parked = entries + members->count;
    sort(members, entries + members->sorted, tail);
    memcpy(parked, entries + members->sorted, tail * sizeof *entries);
    size_t left = members->sorted, right = tail, at = members->count;
    while (right > 0) {
        bool take_left =
            left > 0 && member_compare(members, &entries[left - 1], &parked[right - 1]) > 0;
        entries[--at] = take_left ? entries[--left] : parked[--right];
    }
    drop_twins(members);
    members->sorted = members->count;
}

void dht__members_init(struct dht_members *members, const struct env *env)
{
    *members = (struct dht_members){.env = env, .wide_free = NO_WIDE};
}

void dht__members_close(struct dht_members *members)
{
    if (members->entries != NULL)
        (void)members->env->alloc(members->env->host, members->entries, 0);
    if (members->wide != NULL)
        (void)members->env->alloc(members->env->host, members->wide, 0);
    dht__members_init(members, members->env);
}

static int reserve(struct dht_members *members)
{
    if (members->count - members->sorted >= TAIL_MIN + members->sorted / TAIL_PART)
        settle(members);
    size_t tail = members->count - members->sorted + 1;
    size_t needed = members->count + 1 + tail;
    if (needed <= members->capacity)
        return 0;
    size_t capacity = needed + needed / 8 + 16; /* the largest part of a core: grow it tightly */
    struct dht_member *grown =
        members->env->alloc(members->env->host, members->entries, capacity * sizeof *grown);
    if (grown == NULL)
        return E_NO_MEMORY;
    members->entries = grown;
    members->capacity = capacity;
    return 0;
}

static bool is_at(const struct dht_members *members, size_t at, const struct dht_place *place)
{
    struct peer_addr addr;
    if (members->entries[at].pos != place->pos)
        return false;
    addr_of(members, &members->entries[at], &addr);
    return peer_addr_equal(&addr, &place->addr);
}

/* First of the sorted entries in [low, high) whose position is at least `pos`. */
static size_t lower_bound(const struct dht_members *members, size_t low, size_t high, uint64_t pos)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (members->entries[middle].pos < pos)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool dht__members_has(const struct dht_members *members, const struct dht_place *place)
{
    size_t at = lower_bound(members, 0, members->sorted, place->pos);
    for (; at < members->sorted && members->entries[at].pos == place->pos; at++) {
        if (is_at(members, at, place))
            return true;
    }
    for (at = members->sorted; at < members->count; at++) {
        if (is_at(members, at, place))
            return true;
    }
    return false;
}

int dht__members_add(struct dht_members *members, const struct dht_place *place)
{
    if (members->count >= MEMBERS_MAX) {
        settle(members); /* twins may have been counted */
        if (members->count >= MEMBERS_MAX)
            return dht__members_has(members, place) ? 0 : E_FULL;
    }
    int err = reserve(members);
    if (err != 0)
        return err;
    struct dht_member member = {.pos = place->pos, .port = place->addr.port};
    if (peer_addr_is_v4(&place->addr)) {
        member.ip = load_be32(place->addr.ip + 12);
    } else {
        member.is_wide = 1;
        err = wide_new(members, place->addr.ip, &member.ip);
        if (err != 0)
            return err;
    }
    members->entries[members->count++] = member;
    return 0;
}

/* Index of this very member in the sorted array, or count. */
static size_t index_of(struct dht_members *members, const struct dht_place *place)
{
    settle(members);
    size_t at = lower_bound(members, 0, members->count, place->pos);
    for (; at < members->count && members->entries[at].pos == place->pos; at++) {
        if (is_at(members, at, place))
            return at;
    }
    return members->count;
}

bool dht__members_remove(struct dht_members *members, const struct dht_place *place)
{
    size_t at = index_of(members, place);
    if (at == members->count)
        return false;
    wide_release(members, &members->entries[at]);
    memmove(members->entries + at, members->entries + at + 1,
            (members->count - at - 1) * sizeof *members->entries);
    members->count--;
    members->sorted--;
    return true;
}

bool dht__members_at(struct dht_members *members, uint64_t pos, struct dht_place *out)
{
    settle(members);
    size_t at = lower_bound(members, 0, members->count, pos);
    if (at == members->count || members->entries[at].pos != pos)
        return false;
    place_of(members, &members->entries[at], out);
    return true;
}

size_t dht__members_count(struct dht_members *members)
{
    settle(members);
    return members->count;
}

struct range {
    size_t low, high; /* entries that share all bits above the one they are split by */
};

size_t dht__members_closest(struct dht_members *members, uint64_t target, struct dht_place *out,
                            size_t max)
{
    settle(members);
    struct range todo[DESCENT_DEPTH];
    size_t todo_count = 0, found = 0;
    if (members->count > 0)
        todo[todo_count++] = (struct range){0, members->count};
    while (todo_count > 0 && found < max) {
        struct range range = todo[--todo_count];
        uint64_t low_pos = members->entries[range.low].pos;
        uint64_t difference = low_pos ^ members->entries[range.high - 1].pos;
        if (difference == 0) { /* one member, or several that share 64 bits: in address order */
            for (; range.low < range.high && found < max; range.low++)
                place_of(members, &members->entries[range.low], &out[found++]);
            continue;
        }
        /* The highest bit in which they differ splits the sorted range in two halves. */
        uint64_t bit = 1ULL << (63 - __builtin_clzll(difference));
        uint64_t upper_pos = (low_pos | bit) & ~(bit - 1);
        size_t split = lower_bound(members, range.low, range.high, upper_pos);
        ASSERT(split > range.low && split < range.high);
        ASSERT(todo_count + 2 <= DESCENT_DEPTH);
        struct range zero = {range.low, split}, one = {split, range.high};
        bool one_first = (target & bit) != 0;
        todo[todo_count++] = one_first ? zero : one;
        todo[todo_count++] = one_first ? one : zero;
    }
    return found;
}

void dht__members_check(const struct dht_members *members)
{
    ASSERT(members->sorted <= members->count);
    ASSERT(members->count <= members->capacity);
    size_t step = members->sorted / 64 + 1;
    for (size_t i = 1; i < members->sorted; i += step)
        ASSERT(member_compare(members, &members->entries[i - 1], &members->entries[i]) < 0);
}
