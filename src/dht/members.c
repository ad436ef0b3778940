/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted array of members and XOR-closest search on it. See members.h. */
#include "members.h"

#include <string.h>

#include "dht.h"
#include "limits.h"
#include "log.h"

#define CAPACITY_FIRST 16
/* XOR descent: each halving fixes at least one of 64 bits. */
#define DESCENT_DEPTH 65

static uint64_t pos_at(const struct dht_members *members, size_t at)
{
    return directory_prefix(members->directory, members->entries[at]);
}

static void place_at(const struct dht_members *members, size_t at, struct dht_place *out)
{
    out->pos = pos_at(members, at);
    out->addr = *directory_addr(members->directory, members->entries[at]);
}

void dht__members_init(struct dht_members *members, const struct env *env,
                       struct directory *directory)
{
    *members = (struct dht_members){.env = env, .directory = directory_get(directory)};
}

void dht__members_close(struct dht_members *members)
{
    if (members->directory == NULL)
        return;
    for (size_t i = 0; i < members->count; i++)
        directory_drop(members->directory, members->entries[i]);
    directory_put(members->directory);
    if (members->entries != NULL)
        (void)members->env->alloc(members->env->host, members->entries, 0);
    *members = (struct dht_members){.env = members->env};
}

int dht__members_reserve(struct dht_members *members, size_t count)
{
    if (count <= members->capacity)
        return 0;
    uint16_t *grown =
        members->env->alloc(members->env->host, members->entries, count * sizeof *grown);
    if (grown == NULL)
        return E_NO_MEMORY;
    members->entries = grown;
    members->capacity = count;
    return 0;
}

/* First entry in [low, high) whose position is at least `pos`. */
static size_t lower_bound(const struct dht_members *members, size_t low, size_t high, uint64_t pos)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pos_at(members, middle) < pos)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Where this place stands, or belongs: by position, then address. */
static size_t index_of(const struct dht_members *members, uint64_t pos,
                       const struct peer_addr *addr)
{
    size_t at = lower_bound(members, 0, members->count, pos);
    while (at < members->count && pos_at(members, at) == pos &&
           dht__addr_compare(directory_addr(members->directory, members->entries[at]), addr) < 0)
        at++;
    return at;
}

static bool is_at(const struct dht_members *members, size_t at, const struct dht_place *place)
{
    return at < members->count && pos_at(members, at) == place->pos &&
           peer_addr_equal(directory_addr(members->directory, members->entries[at]), &place->addr);
}

bool dht__members_has(const struct dht_members *members, const struct dht_place *place)
{
    return is_at(members, index_of(members, place->pos, &place->addr), place);
}

int dht__members_add(struct dht_members *members, const struct dht_contact *contact)
{
    struct dht_place place = {dht__pos(contact->id.bytes), contact->addr};
    size_t at = index_of(members, place.pos, &place.addr);
    if (is_at(members, at, &place))
        return 0;
    if (members->count >= MEMBERS_MAX)
        return E_FULL;
    int err = 0;
    if (members->count == members->capacity)
        err = dht__members_reserve(members, CAPACITY_FIRST + members->count + members->count / 4);
    uint16_t number;
    if (err == 0)
        err = directory_hold_as(members->directory, &contact->id, &contact->addr, &number);
    if (err != 0)
        return err;
    memmove(members->entries + at + 1, members->entries + at,
            (members->count - at) * sizeof *members->entries);
    members->entries[at] = number;
    members->count++;
    return 0;
}

bool dht__members_remove(struct dht_members *members, const struct dht_place *place)
{
    size_t at = index_of(members, place->pos, &place->addr);
    if (!is_at(members, at, place))
        return false;
    directory_drop(members->directory, members->entries[at]);
    members->count--;
    memmove(members->entries + at, members->entries + at + 1,
            (members->count - at) * sizeof *members->entries);
    return true;
}

bool dht__members_at(const struct dht_members *members, uint64_t pos, struct dht_place *out)
{
    size_t at = lower_bound(members, 0, members->count, pos);
    if (at == members->count || pos_at(members, at) != pos)
        return false;
    place_at(members, at, out);
    return true;
}

size_t dht__members_count(const struct dht_members *members)
{
    return members->count;
}

struct range {
    size_t low, high; /* entries that share all bits above the one they are split by */
};

size_t dht__members_closest(const struct dht_members *members, uint64_t target,
                            struct dht_place *out, size_t max)
{
    struct range todo[DESCENT_DEPTH];
    size_t todo_count = 0, found = 0;
    if (members->count > 0)
        todo[todo_count++] = (struct range){0, members->count};
    while (todo_count > 0 && found < max) {
        struct range range = todo[--todo_count];
        uint64_t low_pos = pos_at(members, range.low);
        uint64_t difference = low_pos ^ pos_at(members, range.high - 1);
        if (difference == 0) { /* one member, or several that share 64 bits: in address order */
            for (; range.low < range.high && found < max; range.low++)
                place_at(members, range.low, &out[found++]);
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
    ASSERT(members->count <= members->capacity);
    size_t step = members->count / 64 + 1;
    for (size_t i = 1; i < members->count; i += step) {
        struct dht_place before, after;
        place_at(members, i - 1, &before);
        place_at(members, i, &after);
        ASSERT(before.pos <= after.pos);
        ASSERT(before.pos < after.pos || dht__addr_compare(&before.addr, &after.addr) < 0);
    }
}
