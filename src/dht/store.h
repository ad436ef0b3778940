/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provider records that other nodes left with us (DHT-4): per key at most DHT_PROVIDERS_MAX, per
 * announcer at most 2,048, 64 MiB in all, each with a lifetime of at most 30 minutes. Labels are
 * kept once per announcer, so a liar cannot fill memory with them. Knows no messages.
 */
#ifndef SHOAL_DHT_STORE_H
#define SHOAL_DHT_STORE_H

#include "bytes.h"
#include "dht.h"
#include "env.h"

#define DHT_RECORDS_PER_ANNOUNCER_MAX 2048
#define DHT_STORE_BYTES_MAX           (64u << 20)
#define DHT_TTL_MAX_US                (30 * 60 * 1000000ULL)

struct dht_entry;
struct dht_announcer;

struct dht_record {
    struct dht_announcer *by;
    uint64_t sequence;
    uint64_t expires_us;
    uint8_t completeness;
};

struct dht_store {
    const struct env *env; /* borrowed for the store's life */
    struct prng *prng;     /* borrowed for the store's life */
    uint64_t hash_seed;
    struct dht_entry *entries;        /* by key */
    struct dht_announcer *announcers; /* by address */
    struct dht_entry *sweep_next;     /* where the next sweep goes on; NULL: from the start */
    uint32_t record_count;
    size_t bytes, bytes_max; /* everything allocated here, tables included */
};

/* What an announcer says. */
struct dht_announcement {
    struct blob_key key;
    struct peer_addr addr;
    const struct topology *topology; /* borrowed */
    uint8_t completeness;
    uint64_t sequence;
    uint64_t ttl_us; /* cut to DHT_TTL_MAX_US; 0 withdraws */
};

/* What a record says, for readers. */
struct dht_record_view {
    struct peer_addr addr;
    const struct topology *topology; /* borrowed until the store changes */
    uint8_t completeness;
};

/* Makes an empty store that draws samples with `prng`. Cannot fail. */
void dht__store_init(struct dht_store *store, const struct env *env, struct prng *prng);
/* Frees all records. */
void dht__store_close(struct dht_store *store);
/*
 * Keeps, renews or withdraws a record. A full key makes room by expiry, then takes a complete
 * provider for an incomplete one, else keeps a uniform sample of all that came (reservoir), so that
 * early ones cannot hold the key. 0 (an equal sequence number too: a repetition); E_REPLAY: a
 * higher sequence number is kept, copied to *kept_sequence; E_FULL: a limit, no memory, or
 * not sampled.
 */
MUST_USE int dht__store_put(struct dht_store *store, uint64_t now_us,
                            const struct dht_announcement *announcement, uint64_t *kept_sequence);
/* Forgets everything this announcer left. */
void dht__store_drop(struct dht_store *store, const struct peer_addr *announcer);
/*
 * Draws up to `max` live records of a key without replacement, weighted towards complete providers
 * and those near `asker` (vSwitch, zone, region), never the one at `skip`. Returns how many.
 */
struct dht_sample {
    const struct blob_key *key;
    const struct topology *asker;
    const struct peer_addr *skip;
};
size_t dht__store_sample(struct dht_store *store, uint64_t now_us, const struct dht_sample *sample,
                         struct dht_record_view *out, size_t max);
/* Removes expired records of the next `entries_max` keys. */
void dht__store_sweep(struct dht_store *store, uint64_t now_us, size_t entries_max);
/* Keys kept, expired ones included. */
size_t dht__store_keys(const struct dht_store *store);
/* Aborts if counts or sizes are wrong. Walks at most 64 keys. */
void dht__store_check(const struct dht_store *store);

#endif
