/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of other nodes. Each gets one answer. What leaves for an address that has not answered
 * a request of ours yet is never more than what came from it, its proof, a ping back, included;
 * for a proven one at most three times as much (DHT-2). Asking us puts nobody into our table
 * (DHT-5): an unknown asker is pinged if its bucket has room, and enters when it answers.
 */
#include "core.h"

#include <string.h>

#include "log.h"
#include "topology.h"

#define PROVEN_RATIO 3
/* Nodes that an answer keeps room for behind its providers, so that a lookup can go on. */
#define NODES_BESIDE_PROVIDERS 4

struct asker {
    struct dht_place place;
    bool proven;
    bool wanted;      /* unknown, and its bucket has room */
    size_t allowance; /* bytes that may leave for it in all */
    size_t budget;    /* of these, for an answer that can be cut to size */
    size_t sent;
};

static size_t at_most(size_t value, size_t max)
{
    return value < max ? value : max;
}

static void know_asker(const struct dht *dht, const struct peer_addr *from, size_t msg_bytes,
                       struct asker *out)
{
    dht__place_of(dht, from, &out->place);
    out->proven = dht__table_find(&dht->table, &out->place) != NULL;
    out->wanted = !out->proven && dht__table_wants(&dht->table, out->place.pos);
    out->allowance = out->proven ? PROVEN_RATIO * msg_bytes : msg_bytes;
    size_t kept = out->wanted ? DHT_PING_BACK_BYTES : 0;
    out->budget = out->allowance > kept ? out->allowance - kept : 0;
    out->budget = at_most(out->budget, MESSAGE_BYTES_MAX);
    out->sent = 0;
}

static void send_answer(struct dht *dht, struct asker *asker, const uint8_t *msg, size_t msg_bytes)
{
    ASSERT(msg_bytes <= asker->allowance);
    asker->sent += msg_bytes;
    dht__transmit(dht, &asker->place.addr, msg, msg_bytes);
}

static int answer_ping(struct dht *dht, struct asker *asker, const uint8_t *msg, size_t msg_bytes)
{
    struct wire_dht_ping ping;
    int err = wire_dht_decode_ping(msg, msg_bytes, &ping);
    if (err != 0)
        return err;
    uint8_t out[MESSAGE_BYTES_MAX];
    size_t used;
    ping.pad_to = 0;
    err = wire_dht_encode_ping(&ping, true, out, at_most(asker->allowance, sizeof out), &used);
    if (err != 0)
        return E_REFUSED;
    send_answer(dht, asker, out, used);
    return 0;
}

/* ---- FOUND ---- */

/* Index of a topology in the answer, added if there is room; -1 if there is none. */
static int topology_index(struct wire_dht_found *found, const struct topology *topology,
                          size_t *room)
{
    for (size_t i = 0; i < found->topology_count; i++) {
        const struct topology *known = &found->topologies[i];
        if (label_equal(&known->region, &topology->region) &&
            label_equal(&known->zone, &topology->zone) &&
            label_equal(&known->vswitch, &topology->vswitch))
            return (int)i;
    }
    size_t bytes = wire_dht_topology_bytes(topology);
    if (found->topology_count == WIRE_DHT_TOPOLOGIES_MAX || bytes > *room)
        return -1;
    *room -= bytes;
    found->topologies[found->topology_count] = *topology;
    return (int)found->topology_count++;
}

static void add_provider(struct wire_dht_found *found, const struct dht_record_view *view,
                         size_t *room)
{
    size_t bytes = wire_dht_provider_bytes(&view->addr);
    if (bytes > *room)
        return;
    size_t room_left = *room - bytes;
    int index = topology_index(found, view->topology, &room_left);
    if (index < 0)
        return;
    *room = room_left;
    found->providers[found->provider_count++] = (struct wire_dht_provider){
        .addr = view->addr,
        .topology_index = (uint8_t)index,
        .completeness = view->completeness,
    };
}

static void add_providers(struct dht *dht, uint64_t now_us, const struct asker *asker,
                          const struct wire_dht_find *find, struct wire_dht_found *found,
                          size_t *room)
{
    struct dht_record_view views[WIRE_DHT_PROVIDERS_MAX];
    struct blob_key key;
    memcpy(key.bytes, find->key, sizeof key.bytes);
    struct dht_sample sample = {&key, &find->topology, &asker->place.addr};
    size_t count = dht__store_sample(&dht->store, now_us, &sample, views, WIRE_DHT_PROVIDERS_MAX);
    for (size_t i = 0; i < count; i++)
        add_provider(found, &views[i], room);
}

/* Who lives on gossip's view asks the members at once and so has few nodes in its table, and not
 * its neighbours among them: an answer from the table alone would lead an iterative lookup astray
 * (2 % of them missed the record among 1,000 nodes). */
static size_t nearest_known(struct dht *dht, uint64_t target, struct dht_place *out, size_t max)
{
    struct dht_place members[DHT_K_MAX + 1];
    ASSERT(max <= DHT_K_MAX + 1);
    size_t count = dht__table_closest(&dht->table, target, out, max);
    if (!dht__one_hop(dht))
        return count;
    size_t member_count = dht__members_closest(&dht->members, target, members, max);
    for (size_t i = 0; i < member_count; i++)
        dht__place_insert(out, &count, max, target, &members[i]);
    return count;
}

static void add_nodes(struct dht *dht, const struct asker *asker, const struct wire_dht_find *find,
                      struct wire_dht_found *found, size_t *room)
{
    struct dht_place nearest[DHT_K_MAX + 1];
    size_t count = nearest_known(dht, dht__pos(find->key), nearest, dht->config.k + 1);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = wire_dht_addr_bytes(&nearest[i].addr);
        if (found->node_count >= find->nodes_max || bytes > *room)
            return;
        if (peer_addr_equal(&nearest[i].addr, &asker->place.addr))
            continue;
        *room -= bytes;
        found->nodes[found->node_count++] = nearest[i].addr;
    }
}

static int answer_find(struct dht *dht, uint64_t now_us, struct asker *asker, const uint8_t *msg,
                       size_t msg_bytes)
{
    struct wire_dht_find find;
    unsigned type = 0;
    int err = wire_dht_decode_find(msg, msg_bytes, &find);
    if (err == 0)
        err = wire_type(msg, msg_bytes, &type);
    if (err != 0)
        return err;
    if (asker->budget < WIRE_DHT_FOUND_BYTES)
        return E_REFUSED; /* nothing that fits would be of use */
    struct wire_dht_found found;
    found.request_id = find.request_id;
    memcpy(found.key, find.key, sizeof found.key);
    found.topology_count = found.provider_count = found.node_count = 0;
    size_t room = asker->budget - WIRE_DHT_FOUND_BYTES;
    unsigned nodes =
        find.nodes_max < NODES_BESIDE_PROVIDERS ? find.nodes_max : NODES_BESIDE_PROVIDERS;
    size_t kept = nodes * wire_dht_addr_bytes(&dht->config.self.addr);
    if (type == WIRE_DHT_FIND_PROVIDERS && room > kept) {
        room -= kept;
        add_providers(dht, now_us, asker, &find, &found, &room);
        room += kept;
    }
    add_nodes(dht, asker, &find, &found, &room);
    uint8_t out[MESSAGE_BYTES_MAX];
    size_t used = 0;
    err = wire_dht_encode_found(&found, out, asker->budget, &used);
    ASSERT(err == 0);
    send_answer(dht, asker, out, used);
    return 0;
}

/* ---- ADDED ---- */

static int answer_add(struct dht *dht, uint64_t now_us, struct asker *asker, const uint8_t *msg,
                      size_t msg_bytes)
{
    struct wire_dht_add add;
    int err = wire_dht_decode_add(msg, msg_bytes, &add);
    if (err != 0)
        return err;
    if (!peer_addr_equal(&add.addr, &asker->place.addr))
        return E_REFUSED; /* a node announces only itself (DHT-4) */
    struct dht_announcement announcement = {
        .addr = add.addr,
        .topology = &add.topology,
        .completeness = add.completeness,
        .sequence = add.sequence,
        .ttl_us = add.ttl_ms * DHT_MS,
    };
    memcpy(announcement.key.bytes, add.key, sizeof announcement.key.bytes);
    struct wire_dht_added added = {.request_id = add.request_id, .sequence = add.sequence};
    memcpy(added.key, add.key, sizeof added.key);
    err = dht__store_put(&dht->store, now_us, &announcement, &added.sequence);
    added.status = err == 0 ? WIRE_DHT_STORED : err == E_REPLAY ? WIRE_DHT_STALE : WIRE_DHT_FULL;
    uint8_t out[MESSAGE_BYTES_MAX];
    size_t used;
    err = wire_dht_encode_added(&added, out, at_most(asker->allowance, sizeof out), &used);
    if (err != 0)
        return E_REFUSED;
    send_answer(dht, asker, out, used);
    return 0;
}

int dht__answer(struct dht *dht, uint64_t now_us, const struct peer_addr *from, unsigned type,
                const uint8_t *msg, size_t msg_bytes)
{
    struct asker asker;
    int err;
    know_asker(dht, from, msg_bytes, &asker);
    switch (type) {
    case WIRE_DHT_PING:
        err = answer_ping(dht, &asker, msg, msg_bytes);
        break;
    case WIRE_DHT_FIND_NODE:
    case WIRE_DHT_FIND_PROVIDERS:
        err = answer_find(dht, now_us, &asker, msg, msg_bytes);
        break;
    case WIRE_DHT_ADD_PROVIDER:
        err = answer_add(dht, now_us, &asker, msg, msg_bytes);
        break;
    default:
        return E_NOT_FOUND;
    }
    if (err == 0 && asker.wanted && asker.sent + DHT_PING_BACK_BYTES <= asker.allowance)
        dht__request_ping(dht, now_us, &asker.place, true);
    return err;
}
