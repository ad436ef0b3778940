/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places, records and topologies, each kept once and named by a number; see directory.h. Places are
 * found by address and by id through two open tables of numbers, and stand in an array sorted by
 * id; records and topologies are chained by hash. No order depends on memory addresses.
 */
#include "directory.h"

#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "topology.h"

#define TABLE_FIRST  64
#define PLACES_FIRST 16
/* Distinct topologies at most: each is held by some record or core. */
#define TOPOLOGIES_MAX UINT16_MAX

struct place {
    struct node_id id;
    struct peer_addr addr;
    uint16_t next_free;
    uint32_t holds; /* 0: free */
};

/* Open addressing with linear probing over numbers of places; at most three quarters full. */
struct table {
    uint16_t *slots; /* PLACE_NONE: empty */
    uint32_t size;   /* a power of two, or 0 */
};

struct shared_topology {
    struct topology labels;
    uint32_t holds;
    uint16_t next; /* in its chain, or of the free ones */
};

struct directory {
    struct env env;
    uint32_t references;
    uint64_t seed;
    char *cluster_id;

    struct place *places;
    uint16_t *order; /* by id */
    uint32_t place_count, place_bound, place_capacity;
    uint16_t place_free;
    struct table by_addr, by_id;

    struct directory_record *records; /* [0] is not used */
    uint32_t record_bound, record_capacity, record_free;
    uint32_t *record_heads; /* as many as record_capacity was when they were made */
    uint32_t record_head_count;

    struct shared_topology *topologies;
    uint32_t topology_bound, topology_capacity;
    uint16_t topology_free;
    uint16_t *topology_heads;
    uint32_t topology_head_count;
};

/* ---- memory and hashes ---- */

static void *grow(struct directory *directory, void *old, size_t count, size_t each)
{
    size_t bytes;
    if (size_mul(count, each, &bytes) != 0 || bytes == 0)
        return NULL;
    return directory->env.alloc(directory->env.host, old, bytes);
}

static void release(struct directory *directory, void *old)
{
    if (old != NULL)
        (void)directory->env.alloc(directory->env.host, old, 0);
}

/* A quarter more each time: most of an agent's idle memory is here. */
static uint32_t next_capacity(uint32_t capacity)
{
    return capacity == 0 ? PLACES_FIRST : capacity + capacity / 4 + 1;
}

/* splitmix64's finaliser: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static uint32_t hash_addr(const struct directory *directory, const struct peer_addr *addr)
{
    uint64_t hash = mix(load_be64(addr->ip) ^ directory->seed);
    return (uint32_t)mix(hash ^ load_be64(addr->ip + 8) ^ (uint64_t)addr->port << 48);
}

static uint32_t hash_id(const struct directory *directory, const struct node_id *id)
{
    return (uint32_t)mix(load_be64(id->bytes) ^ directory->seed);
}

static uint32_t hash_record(const struct directory *directory, uint16_t place, uint64_t incarnation)
{
    return (uint32_t)mix(mix(incarnation ^ directory->seed) ^ place);
}

static uint32_t hash_topology(const struct directory *directory, const struct topology *labels)
{
    const char *texts[] = {labels->region.text, labels->zone.text, labels->vswitch.text};
    uint64_t hash = directory->seed;
    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        uint8_t word[8];
        size_t left = strlen(texts[i]);
        for (const char *at = texts[i]; left > 0;) {
            size_t part = left < sizeof word ? left : sizeof word;
            memset(word, 0, sizeof word);
            memcpy(word, at, part);
            hash = mix(hash ^ load_be64(word));
            at += part;
            left -= part;
        }
        hash = mix(hash + i); /* the end of a label is part of it */
    }
    return (uint32_t)hash;
}

static bool topology_same(const struct topology *a, const struct topology *b)
{
    return label_equal(&a->region, &b->region) && label_equal(&a->zone, &b->zone) &&
           label_equal(&a->vswitch, &b->vswitch);
}

/* ---- life ---- */

int directory_new(const struct env *env, const char *cluster_id, uint64_t seed,
                  struct directory **out)
{
    struct directory *directory = env->alloc(env->host, NULL, sizeof *directory);
    if (directory == NULL)
        return E_NO_MEMORY;
    *directory = (struct directory){.env = *env,
                                    .references = 1,
                                    .seed = seed,
                                    .place_free = PLACE_NONE,
                                    .record_bound = 1,
                                    .topology_free = UINT16_MAX};
    size_t bytes = strlen(cluster_id) + 1;
    directory->cluster_id = grow(directory, NULL, bytes, 1);
    if (directory->cluster_id == NULL) {
        release(directory, directory);
        return E_NO_MEMORY;
    }
    memcpy(directory->cluster_id, cluster_id, bytes);
    *out = directory;
    return 0;
}

struct directory *directory_get(struct directory *directory)
{
    ASSERT(directory->references > 0);
    directory->references++;
    return directory;
}

void directory_put(struct directory *directory)
{
    if (directory == NULL || --directory->references > 0)
        return;
    void *blocks[] = {directory->cluster_id,    directory->places,      directory->order,
                      directory->by_addr.slots, directory->by_id.slots, directory->records,
                      directory->record_heads,  directory->topologies,  directory->topology_heads};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        release(directory, blocks[i]);
    struct env env = directory->env;
    (void)env.alloc(env.host, directory, 0);
}

/* ---- tables of places ---- */

static uint32_t hash_place(const struct directory *directory, const struct table *table,
                           uint16_t place)
{
    const struct place *at = &directory->places[place];
    return table == &directory->by_id ? hash_id(directory, &at->id)
                                      : hash_addr(directory, &at->addr);
}

static void table_add(const struct directory *directory, const struct table *table, uint16_t place)
{
    uint32_t mask = table->size - 1;
    uint32_t at = hash_place(directory, table, place) & mask;
    while (table->slots[at] != PLACE_NONE)
        at = (at + 1) & mask;
    table->slots[at] = place;
}

/* Linear probing without tombstones: what follows moves up, unless it stands where it belongs. */
static void table_remove(const struct directory *directory, const struct table *table,
                         uint16_t place)
{
    uint32_t mask = table->size - 1;
    uint32_t hole = hash_place(directory, table, place) & mask;
    while (table->slots[hole] != place) {
        ASSERT(table->slots[hole] != PLACE_NONE);
        hole = (hole + 1) & mask;
    }
    for (uint32_t at = (hole + 1) & mask; table->slots[at] != PLACE_NONE; at = (at + 1) & mask) {
        uint32_t home = hash_place(directory, table, table->slots[at]) & mask;
        if (((at - home) & mask) < ((at - hole) & mask))
            continue; /* between its home and here there is no hole */
        table->slots[hole] = table->slots[at];
        hole = at;
    }
    table->slots[hole] = PLACE_NONE;
}

static int table_grow(struct directory *directory, struct table *table)
{
    if (directory->place_count < table->size / 4 * 3)
        return 0;
    uint32_t size = table->size == 0 ? TABLE_FIRST : 2 * table->size;
    uint16_t *slots = grow(directory, table->slots, size, sizeof *slots);
    if (slots == NULL)
        return E_NO_MEMORY;
    *table = (struct table){slots, size};
    for (uint32_t i = 0; i < size; i++)
        slots[i] = PLACE_NONE;
    for (uint32_t i = 0; i < directory->place_count; i++)
        table_add(directory, table, directory->order[i]);
    return 0;
}

uint16_t directory_find(const struct directory *directory, const struct peer_addr *addr)
{
    const struct table *table = &directory->by_addr;
    if (table->size == 0)
        return PLACE_NONE;
    uint32_t mask = table->size - 1;
    for (uint32_t at = hash_addr(directory, addr) & mask;; at = (at + 1) & mask) {
        uint16_t place = table->slots[at];
        if (place == PLACE_NONE || peer_addr_equal(&directory->places[place].addr, addr))
            return place;
    }
}

uint16_t directory_find_id(const struct directory *directory, const struct node_id *id)
{
    const struct table *table = &directory->by_id;
    if (table->size == 0)
        return PLACE_NONE;
    uint32_t mask = table->size - 1;
    for (uint32_t at = hash_id(directory, id) & mask;; at = (at + 1) & mask) {
        uint16_t place = table->slots[at];
        if (place == PLACE_NONE || node_id_equal(&directory->places[place].id, id))
            return place;
    }
}

/* ---- places ---- */

/* Position in order[] of an id, or where it belongs. */
static uint32_t order_position(const struct directory *directory, const struct node_id *id)
{
    uint32_t low = 0, high = directory->place_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (node_id_compare(&directory->places[directory->order[middle]].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int grow_places(struct directory *directory)
{
    if (directory->place_free != PLACE_NONE || directory->place_bound < directory->place_capacity)
        return 0;
    if (directory->place_bound == PLACES_MAX)
        return E_FULL;
    uint32_t capacity = next_capacity(directory->place_capacity);
    capacity = capacity > PLACES_MAX ? PLACES_MAX : capacity;
    struct place *places = grow(directory, directory->places, capacity, sizeof *places);
    if (places == NULL)
        return E_NO_MEMORY;
    directory->places = places;
    uint16_t *order = grow(directory, directory->order, capacity, sizeof *order);
    if (order == NULL)
        return E_NO_MEMORY;
    directory->order = order;
    directory->place_capacity = capacity;
    return 0;
}

static int place_new(struct directory *directory, const struct node_id *id,
                     const struct peer_addr *addr, uint16_t *out)
{
    int err = grow_places(directory);
    if (err == 0)
        err = table_grow(directory, &directory->by_addr);
    if (err == 0)
        err = table_grow(directory, &directory->by_id);
    if (err != 0)
        return err;
    uint16_t number = directory->place_free;
    if (number != PLACE_NONE)
        directory->place_free = directory->places[number].next_free;
    else
        number = (uint16_t)directory->place_bound++;
    directory->places[number] = (struct place){.id = *id, .addr = *addr, .holds = 1};
    table_add(directory, &directory->by_addr, number);
    table_add(directory, &directory->by_id, number);
    uint32_t at = order_position(directory, id);
    memmove(directory->order + at + 1, directory->order + at,
            (directory->place_count - at) * sizeof *directory->order);
    directory->order[at] = number;
    directory->place_count++;
    *out = number;
    return 0;
}

int directory_hold(struct directory *directory, const struct peer_addr *addr, uint16_t *place)
{
    uint16_t found = directory_find(directory, addr);
    if (found != PLACE_NONE) {
        directory->places[found].holds++;
        *place = found;
        return 0;
    }
    struct node_id id;
    node_id_of(directory->cluster_id, addr, &id);
    return place_new(directory, &id, addr, place);
}

int directory_hold_as(struct directory *directory, const struct node_id *id,
                      const struct peer_addr *addr, uint16_t *place)
{
    uint16_t found = directory_find_id(directory, id);
    if (found == PLACE_NONE)
        return place_new(directory, id, addr, place);
    if (!peer_addr_equal(&directory->places[found].addr, addr))
        return E_INVALID;
    directory->places[found].holds++;
    *place = found;
    return 0;
}

void directory_drop(struct directory *directory, uint16_t number)
{
    ASSERT(number < directory->place_bound);
    struct place *place = &directory->places[number];
    ASSERT(place->holds > 0);
    if (--place->holds > 0)
        return;
    table_remove(directory, &directory->by_addr, number);
    table_remove(directory, &directory->by_id, number);
    uint32_t at = order_position(directory, &place->id);
    ASSERT(at < directory->place_count && directory->order[at] == number);
    directory->place_count--;
    memmove(directory->order + at, directory->order + at + 1,
            (directory->place_count - at) * sizeof *directory->order);
    place->next_free = directory->place_free;
    directory->place_free = number;
}

static const struct place *place_at(const struct directory *directory, uint16_t number)
{
    ASSERT(number < directory->place_bound);
    return &directory->places[number];
}

const struct node_id *directory_id(const struct directory *directory, uint16_t place)
{
    return &place_at(directory, place)->id;
}

const struct peer_addr *directory_addr(const struct directory *directory, uint16_t place)
{
    return &place_at(directory, place)->addr;
}

uint64_t directory_prefix(const struct directory *directory, uint16_t place)
{
    return load_be64(place_at(directory, place)->id.bytes);
}

uint32_t directory_count(const struct directory *directory)
{
    return directory->place_count;
}

uint16_t directory_at(const struct directory *directory, uint32_t position)
{
    ASSERT(position < directory->place_count);
    return directory->order[position];
}

uint32_t directory_bound(const struct directory *directory)
{
    return directory->place_bound;
}

/* ---- topologies ---- */

static void topology_link(struct directory *directory, uint16_t number)
{
    struct shared_topology *topology = &directory->topologies[number];
    uint32_t head =
        hash_topology(directory, &topology->labels) & (directory->topology_head_count - 1);
    topology->next = directory->topology_heads[head];
    directory->topology_heads[head] = number;
}

static int grow_topologies(struct directory *directory)
{
    if (directory->topology_free != UINT16_MAX ||
        directory->topology_bound < directory->topology_capacity)
        return 0;
    if (directory->topology_bound == TOPOLOGIES_MAX)
        return E_FULL;
    uint32_t heads =
        directory->topology_head_count == 0 ? PLACES_FIRST : 2 * directory->topology_head_count;
    uint32_t capacity = heads > TOPOLOGIES_MAX ? TOPOLOGIES_MAX : heads;
    struct shared_topology *grown = grow(directory, directory->topologies, capacity, sizeof *grown);
    if (grown == NULL)
        return E_NO_MEMORY;
    directory->topologies = grown;
    uint16_t *table = grow(directory, directory->topology_heads, heads, sizeof *table);
    if (table == NULL)
        return E_NO_MEMORY;
    directory->topology_heads = table;
    directory->topology_head_count = heads;
    directory->topology_capacity = capacity;
    for (uint32_t i = 0; i < heads; i++)
        table[i] = UINT16_MAX;
    for (uint32_t i = 0; i < directory->topology_bound; i++)
        topology_link(directory, (uint16_t)i); /* none is free */
    return 0;
}

static uint16_t topology_find(const struct directory *directory, const struct topology *labels)
{
    if (directory->topology_head_count == 0)
        return UINT16_MAX;
    uint32_t head = hash_topology(directory, labels) & (directory->topology_head_count - 1);
    uint16_t at = directory->topology_heads[head];
    while (at != UINT16_MAX && !topology_same(&directory->topologies[at].labels, labels))
        at = directory->topologies[at].next;
    return at;
}

int directory_topology_hold(struct directory *directory, const struct topology *labels,
                            uint16_t *number)
{
    uint16_t at = topology_find(directory, labels);
    if (at != UINT16_MAX) {
        directory->topologies[at].holds++;
        *number = at;
        return 0;
    }
    int err = grow_topologies(directory);
    if (err != 0)
        return err;
    at = directory->topology_free;
    if (at != UINT16_MAX)
        directory->topology_free = directory->topologies[at].next;
    else
        at = (uint16_t)directory->topology_bound++;
    directory->topologies[at] = (struct shared_topology){.labels = *labels, .holds = 1};
    topology_link(directory, at);
    *number = at;
    return 0;
}

void directory_topology_drop(struct directory *directory, uint16_t number)
{
    ASSERT(number < directory->topology_bound && directory->topologies[number].holds > 0);
    struct shared_topology *topology = &directory->topologies[number];
    if (--topology->holds > 0)
        return;
    uint16_t *link = &directory->topology_heads[hash_topology(directory, &topology->labels) &
                                                (directory->topology_head_count - 1)];
    while (*link != number)
        link = &directory->topologies[*link].next;
    *link = topology->next;
    topology->next = directory->topology_free;
    directory->topology_free = number;
}

const struct topology *directory_topology(const struct directory *directory, uint16_t number)
{
    ASSERT(number < directory->topology_bound);
    return &directory->topologies[number].labels;
}

/* ---- records ---- */

static uint32_t *record_head(const struct directory *directory, uint16_t place,
                             uint64_t incarnation)
{
    return &directory->record_heads[hash_record(directory, place, incarnation) &
                                    (directory->record_head_count - 1)];
}

static void record_link(struct directory *directory, uint32_t number)
{
    struct directory_record *record = &directory->records[number];
    uint32_t *head = record_head(directory, record->place, record->incarnation);
    record->next = *head;
    *head = number;
}

static void record_unlink(struct directory *directory, uint32_t number)
{
    struct directory_record *record = &directory->records[number];
    uint32_t *link = record_head(directory, record->place, record->incarnation);
    while (*link != number)
        link = &directory->records[*link].next;
    *link = record->next;
}

/* More chains when there are more records than chains. */
static int grow_heads(struct directory *directory)
{
    if (directory->record_bound <= directory->record_head_count)
        return 0;
    uint32_t count =
        directory->record_head_count == 0 ? TABLE_FIRST : 2 * directory->record_head_count;
    uint32_t *heads = grow(directory, directory->record_heads, count, sizeof *heads);
    if (heads == NULL)
        return E_NO_MEMORY;
    directory->record_heads = heads;
    directory->record_head_count = count;
    memset(heads, 0, count * sizeof *heads); /* RECORD_NONE */
    for (uint32_t i = 1; i < directory->record_bound; i++) {
        if (directory->records[i].holds > 0)
            record_link(directory, i);
    }
    return 0;
}

static int grow_records(struct directory *directory)
{
    if (directory->record_free != RECORD_NONE ||
        directory->record_bound < directory->record_capacity)
        return grow_heads(directory);
    uint32_t capacity = next_capacity(directory->record_capacity);
    struct directory_record *grown = grow(directory, directory->records, capacity, sizeof *grown);
    if (grown == NULL)
        return E_NO_MEMORY;
    directory->records = grown;
    directory->record_capacity = capacity;
    return grow_heads(directory);
}

/* But for the topology. */
static bool same_contents(const struct directory_record *a, const struct directory_record *b)
{
    return a->place == b->place && a->incarnation == b->incarnation &&
           a->version_minor == b->version_minor && a->capacity_class == b->capacity_class &&
           a->load == b->load && memcmp(&a->key, &b->key, sizeof a->key) == 0;
}

/* The record of these contents and labels. Labels are compared last, and not hashed: that a member
 * says the same as before, or the same to all, is the common case. */
static uint32_t record_find(const struct directory *directory,
                            const struct directory_record *wanted, const struct topology *labels)
{
    if (directory->record_head_count == 0)
        return RECORD_NONE;
    uint32_t at = *record_head(directory, wanted->place, wanted->incarnation);
    for (; at != RECORD_NONE; at = directory->records[at].next) {
        const struct directory_record *record = &directory->records[at];
        if (same_contents(record, wanted) &&
            topology_same(&directory->topologies[record->topology].labels, labels))
            break;
    }
    return at;
}

/* A record of these contents that nobody else holds; its topology's hold passes to it. */
static int record_new(struct directory *directory, const struct directory_record *contents,
                      uint32_t *out)
{
    int err = grow_records(directory);
    if (err != 0)
        return err;
    uint32_t number = directory->record_free;
    if (number != RECORD_NONE)
        directory->record_free = directory->records[number].next;
    else
        number = directory->record_bound++;
    directory->records[number] = *contents;
    directory->records[number].holds = 1;
    record_link(directory, number);
    *out = number;
    return 0;
}

/* Rewrites a record in place; its topology's hold passes to it. */
static void record_rewrite(struct directory *directory, uint32_t number,
                           const struct directory_record *contents)
{
    record_unlink(directory, number);
    directory_topology_drop(directory, directory->records[number].topology);
    directory->records[number] = *contents;
    directory->records[number].holds = 1;
    record_link(directory, number);
}

int directory_record_set(struct directory *directory, uint32_t *record, uint16_t place,
                         const struct member *member)
{
    struct directory_record contents = {
        .key = member->key,
        .incarnation = member->incarnation,
        .place = place,
        .version_minor = member->version_minor,
        .capacity_class = member->capacity_class,
        .load = member->load,
    };
    uint32_t old = *record, found = record_find(directory, &contents, &member->topology);
    if (found != RECORD_NONE) {
        *record = directory_record_hold(directory, found);
        directory_record_drop(directory, old);
        return 0;
    }
    int err = directory_topology_hold(directory, &member->topology, &contents.topology);
    if (err != 0)
        return err;
    if (old != RECORD_NONE && directory->records[old].holds == 1) {
        record_rewrite(directory, old, &contents);
        return 0;
    }
    err = record_new(directory, &contents, record);
    if (err != 0)
        directory_topology_drop(directory, contents.topology);
    else
        directory_record_drop(directory, old);
    return err;
}

uint32_t directory_record_hold(struct directory *directory, uint32_t record)
{
    ASSERT(record < directory->record_bound && directory->records[record].holds > 0);
    directory->records[record].holds++;
    return record;
}

void directory_record_drop(struct directory *directory, uint32_t number)
{
    if (number == RECORD_NONE)
        return;
    ASSERT(number < directory->record_bound && directory->records[number].holds > 0);
    struct directory_record *record = &directory->records[number];
    if (--record->holds > 0)
        return;
    record_unlink(directory, number);
    directory_topology_drop(directory, record->topology);
    record->next = directory->record_free;
    directory->record_free = number;
}

const struct directory_record *directory_record(const struct directory *directory, uint32_t record)
{
    ASSERT(record != RECORD_NONE && record < directory->record_bound);
    return &directory->records[record];
}

void directory_member(const struct directory *directory, uint32_t record, enum member_state state,
                      struct member *out)
{
    const struct directory_record *from = directory_record(directory, record);
    *out = (struct member){
        .id = directory->places[from->place].id,
        .key = from->key,
        .addr = directory->places[from->place].addr,
        .topology = directory->topologies[from->topology].labels,
        .incarnation = from->incarnation,
        .state = state,
        .capacity_class = from->capacity_class,
        .load = from->load,
        .version_minor = from->version_minor,
    };
}

/* ---- invariants ---- */

static void check_places(const struct directory *directory)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < directory->place_bound; i++) {
        const struct place *place = &directory->places[i];
        if (place->holds == 0)
            continue;
        held++;
        ASSERT(directory_find_id(directory, &place->id) == i);
        ASSERT(directory_find(directory, &place->addr) != PLACE_NONE);
    }
    ASSERT(held == directory->place_count);
    for (uint32_t i = 1; i < directory->place_count; i++)
        ASSERT(node_id_compare(&directory->places[directory->order[i - 1]].id,
                               &directory->places[directory->order[i]].id) < 0);
}

void directory__check_invariants(const struct directory *directory)
{
    check_places(directory);
    for (uint32_t i = 1; i < directory->record_bound; i++) {
        const struct directory_record *record = &directory->records[i];
        if (record->holds == 0)
            continue;
        ASSERT(record_find(directory, record, &directory->topologies[record->topology].labels) ==
               i);
        ASSERT(directory->places[record->place].holds > 0);
        ASSERT(directory->topologies[record->topology].holds > 0);
    }
    for (uint32_t i = 0; i < directory->topology_bound; i++) {
        const struct shared_topology *topology = &directory->topologies[i];
        if (topology->holds > 0)
            ASSERT(topology_find(directory, &topology->labels) == i);
    }
}
