/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Public face of the DHT core: configuration, members, dispatch of messages, the one deadline,
 * results. What happens behind it is told in core.h.
 */
#include "core.h"

#include <string.h>

#include "digest.h"
#include "log.h"

#define K_DEFAULT          20
#define ALPHA_DEFAULT      3
#define PATHS_DEFAULT      3
#define TIMEOUT_DEFAULT_US (500 * DHT_MS)
#define TIMEOUT_MAX_US     (60 * DHT_S)
#define TTL_DEFAULT_US     (15 * 60 * DHT_S)
#define TTL_MIN_US         (1 * DHT_S)

/* ---- shared inside the module ---- */

void dht__place_of(const struct dht *dht, const struct peer_addr *addr, struct dht_place *out)
{
    struct node_id id;
    node_id_of(dht->cluster_id, addr, &id);
    *out = (struct dht_place){dht__pos(id.bytes), *addr};
}

bool dht__is_self(const struct dht *dht, const struct peer_addr *addr)
{
    return peer_addr_equal(addr, &dht->config.self.addr);
}

void dht__transmit(struct dht *dht, const struct peer_addr *to, const uint8_t *msg,
                   size_t msg_bytes)
{
    ASSERT(msg_bytes > 0 && msg_bytes <= MESSAGE_BYTES_MAX);
    dht->stats.messages_sent++;
    dht->stats.bytes_sent += msg_bytes;
    (void)dht->env.send(dht->env.host, to, msg, msg_bytes); /* a refusal is a lost packet */
}

void *dht__alloc_zero(struct dht *dht, size_t bytes)
{
    void *memory = dht->env.alloc(dht->env.host, NULL, bytes);
    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

void dht__release(struct dht *dht, void *memory)
{
    if (memory != NULL)
        (void)dht->env.alloc(dht->env.host, memory, 0);
}

uint64_t dht__jitter(struct dht *dht, uint64_t base_us)
{
    uint64_t tenth = base_us / 10;
    return base_us - tenth + prng_below(&dht->prng, 2 * tenth + 1);
}

bool dht__one_hop(struct dht *dht)
{
    return dht->config.one_hop && dht__members_count(&dht->members) > 0;
}

/* ---- life ---- */

/* Copies the configuration with defaults filled in. 0 or E_INVALID. */
static int configure(struct dht *dht, const struct dht_config *config)
{
    struct node_id id;
    if (config->cluster_id == NULL ||
        text_copy(dht->cluster_id, sizeof dht->cluster_id, config->cluster_id) != 0)
        return E_INVALID;
    dht->config = *config;
    struct dht_config *own = &dht->config;
    own->cluster_id = dht->cluster_id;
    own->k = own->k == 0 ? K_DEFAULT : own->k;
    own->alpha = own->alpha == 0 ? ALPHA_DEFAULT : own->alpha;
    own->paths = own->paths == 0 ? PATHS_DEFAULT : own->paths;
    if (own->request_timeout_us == 0)
        own->request_timeout_us = TIMEOUT_DEFAULT_US;
    own->record_ttl_us = own->record_ttl_us == 0 ? TTL_DEFAULT_US : own->record_ttl_us;
    if (own->k > DHT_K_MAX || own->alpha > DHT_ALPHA_MAX || own->paths > DHT_PATHS_MAX ||
        own->request_timeout_us > TIMEOUT_MAX_US || own->record_ttl_us > DHT_TTL_MAX_US ||
        own->record_ttl_us < TTL_MIN_US)
        return E_INVALID;
    node_id_of(dht->cluster_id, &own->self.addr, &id);
    return own->self.addr.port != 0 && node_id_equal(&id, &own->self.id) ? 0 : E_INVALID;
}

static int open_members(struct dht *dht)
{
    struct directory *directory = NULL;
    int err = 0;
    if (dht->config.directory != NULL)
        directory = directory_get(dht->config.directory);
    else
        err = directory_new(&dht->env, dht->cluster_id, prng_next(&dht->prng), &directory);
    if (err != 0)
        return err;
    dht__members_init(&dht->members, &dht->env, directory);
    directory_put(directory); /* the table has its own reference */
    dht->config.directory = NULL;
    return 0;
}

int dht_new(const struct env *env, const struct dht_config *config, uint64_t now_us,
            struct dht **out)
{
    struct dht *dht = env->alloc(env->host, NULL, sizeof *dht);
    if (dht == NULL)
        return E_NO_MEMORY;
    memset(dht, 0, sizeof *dht);
    dht->env = *env;
    int err = configure(dht, config);
    if (err != 0) {
        (void)env->alloc(env->host, dht, 0);
        return err;
    }
    uint8_t seed[32];
    env->random(env->host, seed, sizeof seed);
    prng_seed(&dht->prng, seed, sizeof seed);
    dht->self_pos = dht__pos(dht->config.self.id.bytes);
    dht__table_init(&dht->table, &dht->env, dht->self_pos, dht->config.k);
    for (unsigned i = 0; i < DHT_BUCKETS; i++)
        dht->table.buckets[i].touched_us = now_us;
    dht__store_init(&dht->store, &dht->env, &dht->prng);
    dht__requests_init(&dht->requests);
    dht__publisher_init(dht);
    dht__maintenance_init(&dht->maintenance);
    err = open_members(dht);
    if (err != 0) {
        dht_free(dht);
        return err;
    }
    *out = dht;
    return 0;
}

void dht_free(struct dht *dht)
{
    if (dht == NULL)
        return;
    dht__publisher_close(dht);
    dht__lookups_close(dht);
    dht__store_close(&dht->store);
    dht__table_close(&dht->table);
    dht__members_close(&dht->members);
    dht__release(dht, dht->requests.slots);
    struct env env = dht->env;
    (void)env.alloc(env.host, dht, 0);
}

/* ---- members ---- */

/* PEER-4. What the directory holds at an address was computed from it. */
static bool id_is_of(const struct dht *dht, const struct dht_contact *contact)
{
    uint16_t number = directory_find(dht->members.directory, &contact->addr);
    struct node_id id;
    if (number != PLACE_NONE)
        id = *directory_id(dht->members.directory, number);
    else
        node_id_of(dht->cluster_id, &contact->addr, &id);
    return node_id_equal(&id, &contact->id);
}

int dht_member_up(struct dht *dht, uint64_t now_us, const struct dht_contact *contact)
{
    if (contact->addr.port == 0 || !id_is_of(dht, contact))
        return E_INVALID;
    if (dht__is_self(dht, &contact->addr))
        return 0;
    struct dht_place place = {dht__pos(contact->id.bytes), contact->addr};
    if (dht->publisher.count > 0 && dht__members_has(&dht->members, &place))
        dht__publisher_forget_holder(dht, place.pos); /* up again without a down: it restarted */
    int err = dht__members_add(&dht->members, contact);
    if (err == 0)
        dht__publisher_members_changed(dht, now_us);
    return err;
}

void dht_member_down(struct dht *dht, uint64_t now_us, const struct node_id *id)
{
    struct dht_place place;
    uint64_t pos = dht__pos(id->bytes);
    if (!dht__members_at(&dht->members, pos, &place) && !dht__table_at(&dht->table, pos, &place))
        return;
    struct node_id found;
    node_id_of(dht->cluster_id, &place.addr, &found);
    if (!node_id_equal(&found, id))
        return; /* another node of the same 64 bits */
    (void)dht__members_remove(&dht->members, &place);
    dht__table_remove(&dht->table, &place);
    dht__store_drop(&dht->store, &place.addr);
    dht__lookups_drop_node(dht, &place);
    dht__requests_fail_node(dht, now_us, &place);
    dht__publisher_members_changed(dht, now_us);
}

void dht_bootstrap(struct dht *dht, uint64_t now_us, const struct peer_addr *addrs,
                   size_t addr_count)
{
    dht__bootstrap(dht, now_us, addrs, addr_count);
}

/* ---- what the node has, and wants ---- */

void dht_update_self(struct dht *dht, uint64_t now_us, const struct topology *topology)
{
    dht->config.topology = *topology;
    dht__publisher_renew(dht, now_us);
}

int dht_publish(struct dht *dht, uint64_t now_us, const struct blob_key *key, uint8_t completeness)
{
    return dht__publisher_put(dht, now_us, key, completeness);
}

void dht_unpublish(struct dht *dht, uint64_t now_us, const struct blob_key *key)
{
    dht__publisher_remove(dht, now_us, key);
}

int dht_lookup(struct dht *dht, uint64_t now_us, const struct blob_key *key, uint64_t *lookup_id)
{
    struct dht_lookup_plan plan = {.key = key->bytes, .purpose = DHT_FOR_HOST, .one_hop = true};
    return dht__lookup_start(dht, now_us, &plan, lookup_id);
}

int dht_lookup_iterative(struct dht *dht, uint64_t now_us, const struct blob_key *key,
                         uint64_t *lookup_id)
{
    struct dht_lookup_plan plan = {.key = key->bytes, .purpose = DHT_FOR_HOST};
    return dht__lookup_start(dht, now_us, &plan, lookup_id);
}

bool dht_next_result(struct dht *dht, struct dht_result *out)
{
    if (dht->done.first == NULL)
        return false;
    dht__lookup_result(dht, dht->done.first, out);
    return true;
}

/* ---- messages and time ---- */

static int dispatch(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                    const uint8_t *msg, size_t msg_bytes)
{
    unsigned type;
    if (msg_bytes > MESSAGE_BYTES_MAX)
        return E_TOO_LARGE;
    int err = wire_type(msg, msg_bytes, &type);
    if (err != 0)
        return err;
    if (dht__is_self(dht, from) || from->port == 0)
        return E_REFUSED;
    switch (type) {
    case WIRE_DHT_PING:
    case WIRE_DHT_FIND_NODE:
    case WIRE_DHT_FIND_PROVIDERS:
    case WIRE_DHT_ADD_PROVIDER:
        return dht__answer(dht, now_us, from, type, msg, msg_bytes);
    case WIRE_DHT_PONG:
    case WIRE_DHT_FOUND:
    case WIRE_DHT_ADDED:
        return dht__requests_answer(dht, now_us, from, type, msg, msg_bytes);
    default:
        return E_NOT_FOUND; /* a newer peer's; skipped (PEER-10) */
    }
}

int dht_receive(struct dht *dht, uint64_t now_us, const struct peer_addr *from, const uint8_t *msg,
                size_t msg_bytes)
{
    int err = dispatch(dht, now_us, from, msg, msg_bytes);
    if (err != 0)
        dht->stats.rejected++;
    return err;
}

void dht_advance(struct dht *dht, uint64_t now_us)
{
    dht__requests_advance(dht, now_us);
    dht__lookups_advance(dht, now_us);
    dht__maintenance_advance(dht, now_us);
    dht__publisher_advance(dht, now_us);
}

uint64_t dht_deadline_us(const struct dht *dht)
{
    uint64_t deadlines_us[] = {
        dht__requests_deadline_us(dht),
        dht__lookups_deadline_us(dht),
        dht__maintenance_deadline_us(dht),
        dht__publisher_deadline_us(dht),
    };
    uint64_t earliest_us = UINT64_MAX;
    for (size_t i = 0; i < sizeof deadlines_us / sizeof deadlines_us[0]; i++) {
        if (deadlines_us[i] < earliest_us)
            earliest_us = deadlines_us[i];
    }
    return earliest_us;
}

void dht_stats(const struct dht *dht, struct dht_stats *out)
{
    *out = dht->stats;
    out->contacts = dht->table.count;
    out->records = dht->store.record_count;
    out->published = (uint32_t)dht->publisher.count;
}

void dht__check_invariants(const struct dht *dht)
{
    dht__members_check(&dht->members);
    dht__table_check(&dht->table);
    dht__store_check(&dht->store);
    dht__requests_check(dht);
    dht__lookups_check(dht);
    dht__publisher_check(dht);
}
