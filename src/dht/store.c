/* SPDX-License-Identifier: Apache-2.0 */
/* Provider records by key, and the index of who announced what. See store.h. */
#include "store.h"

#include <string.h>

#include "hash.h"
#include "log.h"
#include "topology.h"

struct dht_entry {
    struct blob_key key;
    struct dht_record *records;
    uint16_t count, capacity;
    uint32_t offered; /* announcers since the key last had room: the reservoir's denominator */
    UT_hash_handle hh;
};

struct dht_announcer {
    struct peer_addr addr;
    struct topology topology;
    struct dht_entry **entries; /* those in which it has a record */
    uint32_t count, capacity;
    UT_hash_handle hh;
};

static_assert(sizeof(struct peer_addr) == 18, "addresses are hashed as bytes");

unsigned dht__hash(uint64_t seed, const void *key, size_t key_bytes)
{
    const uint8_t *bytes = key;
    uint64_t x = seed ^ key_bytes;
    for (size_t at = 0; at < key_bytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + at, key_bytes - at < 8 ? key_bytes - at : 8);
        x = (x ^ word) * 0x9e3779b97f4a7c15u;
        x ^= x >> 32;
    }
    return (unsigned)(x ^ x >> 29);
}

/* Every byte of the store passes here, so the limit holds by construction. */
static void *resize(void *owner, void *old, size_t old_bytes, size_t new_bytes)
{
    struct dht_store *store = owner;
    ASSERT(store->bytes >= old_bytes);
    if (new_bytes > old_bytes && store->bytes - old_bytes + new_bytes > store->bytes_max)
        return NULL;
    void *moved = store->env->alloc(store->env->host, old, new_bytes);
    if (moved == NULL && new_bytes > 0)
        return NULL;
    store->bytes = store->bytes - old_bytes + new_bytes;
    return moved;
}

static struct dht_hash_context hash_of(struct dht_store *store)
{
    return (struct dht_hash_context){.owner = store, .resize = resize, .seed = store->hash_seed};
}

void dht__store_init(struct dht_store *store, const struct env *env, struct prng *prng)
{
    *store = (struct dht_store){.env = env, .prng = prng, .bytes_max = DHT_STORE_BYTES_MAX};
    store->hash_seed = prng_next(prng);
}

/* ---- finding and making ---- */

static struct dht_entry *find_entry(struct dht_store *store, const struct blob_key *key)
{
    struct dht_hash_context context = hash_of(store), *hash_context = &context;
    struct dht_entry *entry = NULL;
    HASH_FIND(hh, store->entries, key, sizeof *key, entry);
    return entry;
}

static struct dht_announcer *find_announcer(struct dht_store *store, const struct peer_addr *addr)
{
    struct dht_hash_context context = hash_of(store), *hash_context = &context;
    struct dht_announcer *announcer = NULL;
    HASH_FIND(hh, store->announcers, addr, sizeof *addr, announcer);
    return announcer;
}

static struct dht_entry *make_entry(struct dht_store *store, const struct blob_key *key)
{
    struct dht_hash_context context = hash_of(store), *hash_context = &context;
    struct dht_entry *entry = resize(store, NULL, 0, sizeof *entry);
    if (entry == NULL)
        return NULL;
    memset(entry, 0, sizeof *entry);
    entry->key = *key;
    HASH_ADD(hh, store->entries, key, sizeof entry->key, entry);
    if (entry->hh.tbl != NULL)
        return entry;
    (void)resize(store, entry, sizeof *entry, 0);
    return NULL;
}

static struct dht_announcer *make_announcer(struct dht_store *store, const struct peer_addr *addr)
{
    struct dht_hash_context context = hash_of(store), *hash_context = &context;
    struct dht_announcer *announcer = resize(store, NULL, 0, sizeof *announcer);
    if (announcer == NULL)
        return NULL;
    memset(announcer, 0, sizeof *announcer);
    announcer->addr = *addr;
    HASH_ADD(hh, store->announcers, addr, sizeof announcer->addr, announcer);
    if (announcer->hh.tbl != NULL)
        return announcer;
    (void)resize(store, announcer, sizeof *announcer, 0);
    return NULL;
}

/* ---- removing ---- */

static void free_entry_if_empty(struct dht_store *store, struct dht_entry *entry)
{
    if (entry->count > 0)
        return;
    struct dht_hash_context context = hash_of(store), *hash_context = &context;
    if (store->sweep_next == entry)
        store->sweep_next = entry->hh.next;
    HASH_DELETE(hh, store->entries, entry);
    if (entry->records != NULL)
        (void)resize(store, entry->records, entry->capacity * sizeof *entry->records, 0);
    (void)resize(store, entry, sizeof *entry, 0);
}

static void free_announcer_if_empty(struct dht_store *store, struct dht_announcer *announcer)
{
    if (announcer->count > 0)
        return;
    struct dht_hash_context context = hash_of(store), *hash_context = &context;
    HASH_DELETE(hh, store->announcers, announcer);
    if (announcer->entries != NULL)
        (void)resize(store, announcer->entries, announcer->capacity * sizeof *announcer->entries,
                     0);
    (void)resize(store, announcer, sizeof *announcer, 0);
}

/* Removes records[at]; the announcer goes with its last record, the entry stays. */
static void remove_record(struct dht_store *store, struct dht_entry *entry, unsigned at)
{
    ASSERT(at < entry->count);
    struct dht_announcer *announcer = entry->records[at].by;
    uint32_t i = 0;
    while (i < announcer->count && announcer->entries[i] != entry)
        i++;
    ASSERT(i < announcer->count);
    announcer->entries[i] = announcer->entries[--announcer->count];
    entry->records[at] = entry->records[--entry->count];
    store->record_count--;
    free_announcer_if_empty(store, announcer);
}

static void remove_expired(struct dht_store *store, uint64_t now_us, struct dht_entry *entry)
{
    for (unsigned i = entry->count; i-- > 0;) {
        if (entry->records[i].expires_us <= now_us)
            remove_record(store, entry, i);
    }
}

void dht__store_drop(struct dht_store *store, const struct peer_addr *announcer_addr)
{
    struct dht_announcer *announcer = find_announcer(store, announcer_addr);
    for (uint32_t left = announcer == NULL ? 0 : announcer->count; left > 0; left--) {
        struct dht_entry *entry = announcer->entries[left - 1];
        unsigned at = 0;
        while (at < entry->count && entry->records[at].by != announcer)
            at++;
        ASSERT(at < entry->count);
        remove_record(store, entry, at); /* with its last record the announcer is gone */
        free_entry_if_empty(store, entry);
    }
}

void dht__store_close(struct dht_store *store)
{
    struct dht_entry *entry = store->entries;
    while (entry != NULL) {
        struct dht_entry *next = entry->hh.next;
        while (entry->count > 0)
            remove_record(store, entry, entry->count - 1u);
        free_entry_if_empty(store, entry);
        entry = next;
    }
    ASSERT(store->bytes == 0 && store->record_count == 0);
}

/* ---- putting ---- */

/* Room for one more in both arrays. 0 or E_FULL (memory; the caller cannot tell which limit). */
static int reserve(struct dht_store *store, struct dht_entry *entry,
                   struct dht_announcer *announcer)
{
    if (entry->count == entry->capacity) {
        uint16_t capacity = entry->capacity == 0 ? 4 : (uint16_t)(entry->capacity * 2);
        struct dht_record *grown = resize(store, entry->records, entry->capacity * sizeof *grown,
                                          capacity * sizeof *grown);
        if (grown == NULL)
            return E_FULL;
        entry->records = grown;
        entry->capacity = capacity;
    }
    if (announcer->count == announcer->capacity) {
        uint32_t capacity = announcer->capacity == 0 ? 4 : announcer->capacity * 2;
        struct dht_entry **grown =
            resize(store, announcer->entries, announcer->capacity * sizeof *grown,
                   capacity * sizeof *grown);
        if (grown == NULL)
            return E_FULL;
        announcer->entries = grown;
        announcer->capacity = capacity;
    }
    return 0;
}

/* A full key: who leaves for a newcomer of this completeness. Index, or count if nobody does. */
static unsigned choose_victim(struct dht_store *store, struct dht_entry *entry,
                              uint8_t completeness)
{
    unsigned incomplete = 0, victim = entry->count;
    if (entry->offered < UINT32_MAX)
        entry->offered++;
    if (completeness == UINT8_MAX) {
        for (unsigned i = 0; i < entry->count; i++) {
            if (entry->records[i].completeness == UINT8_MAX)
                continue;
            incomplete++;
            if (prng_below(store->prng, incomplete) == 0)
                victim = i;
        }
    }
    if (incomplete > 0)
        return victim;
    /* Reservoir: the n-th offered stays with probability max/n; complete ones stay put. */
    uint64_t lot = prng_below(store->prng, entry->offered);
    if (lot >= entry->count)
        return entry->count;
    bool trade_down = completeness < UINT8_MAX && entry->records[lot].completeness == UINT8_MAX;
    return trade_down ? entry->count : (unsigned)lot;
}

static int make_room(struct dht_store *store, uint64_t now_us, struct dht_entry *entry,
                     uint8_t completeness)
{
    if (entry->count >= DHT_PROVIDERS_MAX)
        remove_expired(store, now_us, entry);
    if (entry->count < DHT_PROVIDERS_MAX) {
        entry->offered = entry->count + 1u;
        return 0;
    }
    unsigned victim = choose_victim(store, entry, completeness);
    if (victim == entry->count)
        return E_FULL;
    remove_record(store, entry, victim);
    return 0;
}

static int add_record(struct dht_store *store, uint64_t now_us, struct dht_entry *entry,
                      const struct dht_announcement *announcement)
{
    struct dht_announcer *announcer = find_announcer(store, &announcement->addr);
    if (announcer == NULL)
        announcer = make_announcer(store, &announcement->addr);
    if (announcer == NULL)
        return E_FULL;
    int err = E_FULL;
    if (announcer->count < DHT_RECORDS_PER_ANNOUNCER_MAX)
        err = make_room(store, now_us, entry, announcement->completeness);
    if (err == 0)
        err = reserve(store, entry, announcer);
    if (err != 0) {
        free_announcer_if_empty(store, announcer);
        return err;
    }
    announcer->topology = *announcement->topology;
    announcer->entries[announcer->count++] = entry;
    entry->records[entry->count++] = (struct dht_record){
        .by = announcer,
        .sequence = announcement->sequence,
        .expires_us = now_us + announcement->ttl_us,
        .completeness = announcement->completeness,
    };
    store->record_count++;
    return 0;
}

/* Applies an announcement to the announcer's record in this entry, which stands at records[at]. */
static int renew(struct dht_store *store, uint64_t now_us, struct dht_entry *entry, unsigned at,
                 const struct dht_announcement *announcement)
{
    struct dht_record *record = &entry->records[at];
    if (announcement->sequence < record->sequence)
        return E_REPLAY;
    if (announcement->ttl_us == 0) {
        remove_record(store, entry, at);
        return 0;
    }
    record->sequence = announcement->sequence;
    record->expires_us = now_us + announcement->ttl_us;
    record->completeness = announcement->completeness;
    record->by->topology = *announcement->topology;
    return 0;
}

int dht__store_put(struct dht_store *store, uint64_t now_us,
                   const struct dht_announcement *announcement, uint64_t *kept_sequence)
{
    struct dht_announcement clamped = *announcement;
    if (clamped.ttl_us > DHT_TTL_MAX_US)
        clamped.ttl_us = DHT_TTL_MAX_US;
    struct dht_entry *entry = find_entry(store, &clamped.key);
    unsigned at = 0;
    while (entry != NULL && at < entry->count &&
           !peer_addr_equal(&entry->records[at].by->addr, &clamped.addr))
        at++;
    int err = 0;
    if (entry != NULL && at < entry->count) {
        err = renew(store, now_us, entry, at, &clamped);
        if (err == E_REPLAY)
            *kept_sequence = entry->records[at].sequence;
    } else if (clamped.ttl_us > 0) {
        if (entry == NULL)
            entry = make_entry(store, &clamped.key);
        err = entry == NULL ? E_FULL : add_record(store, now_us, entry, &clamped);
    }
    if (entry != NULL)
        free_entry_if_empty(store, entry);
    return err;
}

/* ---- reading ---- */

/* Complete providers count four to eight times as much as others; each step of distance quarters.
 * The factors are guesses; what matters is that nobody's weight is zero. */
static uint64_t weight_of(const struct dht_record *record, const struct topology *asker)
{
    uint64_t share = record->completeness == UINT8_MAX ? 8 : 1 + record->completeness / 128u;
    enum distance distance = topology_distance(asker, &record->by->topology);
    return share << (2 * (DISTANCE_ELSEWHERE - distance));
}

/* Draws one index by weight and sets its weight to 0. */
static unsigned draw(struct prng *prng, uint64_t *weights, unsigned count, uint64_t *total)
{
    uint64_t lot = prng_below(prng, *total);
    unsigned at = 0;
    while (at < count && lot >= weights[at])
        lot -= weights[at++];
    ASSERT(at < count);
    *total -= weights[at];
    weights[at] = 0;
    return at;
}

size_t dht__store_sample(struct dht_store *store, uint64_t now_us, const struct dht_sample *sample,
                         struct dht_record_view *out, size_t max)
{
    uint64_t weights[DHT_PROVIDERS_MAX] = {0};
    uint64_t total = 0;
    struct dht_entry *entry = find_entry(store, sample->key);
    if (entry == NULL)
        return 0;
    ASSERT(entry->count <= DHT_PROVIDERS_MAX);
    for (unsigned i = 0; i < entry->count; i++) {
        const struct dht_record *record = &entry->records[i];
        if (record->expires_us <= now_us || peer_addr_equal(&record->by->addr, sample->skip))
            continue;
        weights[i] = weight_of(record, sample->asker);
        total += weights[i];
    }
    size_t count = 0;
    while (count < max && total > 0) {
        const struct dht_record *record =
            &entry->records[draw(store->prng, weights, entry->count, &total)];
        out[count++] = (struct dht_record_view){.addr = record->by->addr,
                                                .topology = &record->by->topology,
                                                .completeness = record->completeness};
    }
    return count;
}

void dht__store_sweep(struct dht_store *store, uint64_t now_us, size_t entries_max)
{
    struct dht_entry *entry = store->sweep_next != NULL ? store->sweep_next : store->entries;
    for (size_t i = 0; i < entries_max && entry != NULL; i++) {
        struct dht_entry *next = entry->hh.next;
        remove_expired(store, now_us, entry);
        free_entry_if_empty(store, entry);
        entry = next;
    }
    store->sweep_next = entry;
}

size_t dht__store_keys(const struct dht_store *store)
{
    return HASH_COUNT(store->entries);
}

void dht__store_check(const struct dht_store *store)
{
    ASSERT(store->bytes <= store->bytes_max);
    ASSERT((store->record_count == 0) == (store->entries == NULL));
    ASSERT((store->record_count == 0) == (store->announcers == NULL));
    const struct dht_entry *entry = store->entries;
    for (unsigned i = 0; i < 64 && entry != NULL; i++, entry = entry->hh.next) {
        ASSERT(entry->count > 0 && entry->count <= DHT_PROVIDERS_MAX);
        ASSERT(entry->count <= entry->capacity);
        for (unsigned j = 0; j < entry->count; j++) {
            ASSERT(entry->records[j].by->count <= DHT_RECORDS_PER_ANNOUNCER_MAX);
            ASSERT(entry->records[j].by->count > 0);
        }
    }
}
