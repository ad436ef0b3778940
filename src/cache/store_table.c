/* SPDX-License-Identifier: Apache-2.0 */
/* The table of ids of a store. An id is (turn << 32 | index): the turn of a slot moves on whenever
 * its item goes, so that a stale id finds nothing instead of a stranger. Locked by its owner. */
#include "store_internal.h"

#include <string.h>

#include "log.h"

#define FIRST_CAPACITY 64u

static int grow(struct store_table *table, const struct env *env)
{
    if (table->capacity >= STORE_BLOBS_MAX)
        return E_FULL;
    uint32_t capacity = table->capacity == 0 ? FIRST_CAPACITY : 2 * table->capacity;
    struct store_slot *slots =
        env->alloc(env->host, table->slots, capacity * sizeof table->slots[0]);
    if (slots == NULL)
        return E_NO_MEMORY;
    table->slots = slots;
    table->capacity = capacity;
    return 0;
}

int store_table__add(struct store_table *table, const struct env *env, void *item, uint64_t *id)
{
    ASSERT(item != NULL);
    uint32_t index;
    if (table->first_free != 0) {
        index = table->first_free - 1;
        table->first_free = table->slots[index].next_free;
    } else {
        int err = table->used < table->capacity ? 0 : grow(table, env);
        if (err != 0)
            return err;
        index = table->used++;
        table->slots[index] = (struct store_slot){.turn = 1};
    }
    table->slots[index].item = item;
    table->count++;
    *id = (uint64_t)table->slots[index].turn << 32 | index;
    return 0;
}

static struct store_slot *find(const struct store_table *table, uint64_t id)
{
    uint32_t index = (uint32_t)id;
    if (index >= table->used)
        return NULL;
    struct store_slot *slot = &table->slots[index];
    return slot->item != NULL && slot->turn == (uint32_t)(id >> 32) ? slot : NULL;
}

void *store_table__get(const struct store_table *table, uint64_t id)
{
    const struct store_slot *slot = find(table, id);
    return slot != NULL ? slot->item : NULL;
}

void store_table__remove(struct store_table *table, uint64_t id)
{
    struct store_slot *slot = find(table, id);
    ASSERT(slot != NULL);
    slot->item = NULL;
    slot->turn++;
    slot->next_free = table->first_free;
    table->first_free = (uint32_t)id + 1;
    table->count--;
}

void *store_table__next(const struct store_table *table, uint32_t *index)
{
    while (*index < table->used) {
        void *item = table->slots[(*index)++].item;
        if (item != NULL)
            return item;
    }
    return NULL;
}

void store_table__close(struct store_table *table, const struct env *env)
{
    if (table->slots != NULL)
        (void)env->alloc(env->host, table->slots, 0);
    memset(table, 0, sizeof *table);
}
