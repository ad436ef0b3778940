/* SPDX-License-Identifier: Apache-2.0 */
/* A host for one DHT core in unit tests: keeps what was sent, draws from a seed, counts memory. */
#ifndef SHOAL_TESTS_DHT_HOST_H
#define SHOAL_TESTS_DHT_HOST_H

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "dht.h"
#include "digest.h"
#include "wire_dht.h"

#define MS 1000ULL
#define S  (1000 * MS)

#define HOST_SENT_MAX 4096
static const char host_cluster[] = "unit";

struct host_sent {
    struct peer_addr to;
    size_t msg_bytes;
    uint8_t msg[MESSAGE_BYTES_MAX];
};

struct host {
    struct host_sent *sent;
    size_t sent_count;
    size_t blocks;         /* allocated now */
    size_t calls, fail_at; /* the fail_at-th growing call fails; 0: none. fail_on: all after it */
    bool fail_on;
    struct prng prng;
};

static inline int host_send(void *context, const struct peer_addr *to, const uint8_t *msg,
                            size_t msg_bytes)
{
    struct host *host = context;
    assert_true(msg_bytes <= MESSAGE_BYTES_MAX && host->sent_count < HOST_SENT_MAX);
    struct host_sent *sent = &host->sent[host->sent_count++];
    sent->to = *to;
    sent->msg_bytes = msg_bytes;
    memcpy(sent->msg, msg, msg_bytes);
    return host->sent_count % 7 == 0 ? E_AGAIN : 0; /* a refusal must change nothing */
}

static inline void host_random(void *context, uint8_t *out, size_t out_bytes)
{
    struct host *host = context;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&host->prng);
}

static inline void *host_alloc(void *context, void *old, size_t new_bytes)
{
    struct host *host = context;
    host->calls += new_bytes > 0;
    bool fails = host->fail_on ? host->calls >= host->fail_at : host->calls == host->fail_at;
    if (new_bytes > 0 && host->fail_at > 0 && fails)
        return NULL;
    host->blocks += old == NULL && new_bytes > 0;
    host->blocks -= old != NULL && new_bytes == 0;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static inline void host_trace(void *context, enum log_level level, const char *line)
{
    (void)context, (void)level, (void)line;
}

static inline struct env host_env(struct host *host)
{
    return (struct env){host, host_send, host_random, host_alloc, host_trace};
}

static inline struct host *host_new(void)
{
    struct host *host = calloc(1, sizeof *host);
    const uint8_t seed[] = {1, 2, 3};
    assert_non_null(host);
    host->sent = calloc(HOST_SENT_MAX, sizeof *host->sent);
    assert_non_null(host->sent);
    prng_seed(&host->prng, seed, sizeof seed);
    return host;
}

/* Frees host and core; every block must have come back. */
static inline void host_close(struct host *host, struct dht *dht)
{
    dht__check_invariants(dht);
    dht_free(dht);
    assert_int_equal(host->blocks, 0);
    free(host->sent);
    free(host);
}

static inline struct dht_contact contact_of(unsigned number)
{
    struct dht_contact contact = {
        .addr = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10}, .port = 65002}};
    contact.addr.ip[14] = (uint8_t)(number >> 8);
    contact.addr.ip[15] = (uint8_t)number;
    node_id_of(host_cluster, &contact.addr, &contact.id);
    return contact;
}

static inline struct dht_config host_config(void)
{
    return (struct dht_config){.cluster_id = host_cluster, .self = contact_of(0), .one_hop = true};
}

static inline struct dht *host_dht(struct host *host, const struct dht_config *config)
{
    struct env env = host_env(host);
    struct dht *dht = NULL;
    assert_int_equal(dht_new(&env, config, 0, &dht), 0);
    return dht;
}

static inline unsigned type_of(const struct host_sent *sent)
{
    unsigned type = 0;
    assert_int_equal(wire_type(sent->msg, sent->msg_bytes, &type), 0);
    return type;
}

/* Number of sent messages of a type. */
static inline size_t sent_of(const struct host *host, unsigned type)
{
    size_t count = 0;
    for (size_t i = 0; i < host->sent_count; i++)
        count += type_of(&host->sent[i]) == type;
    return count;
}

static inline void host_find(const struct host_sent *sent, struct wire_dht_find *find)
{
    assert_int_equal(wire_dht_decode_find(sent->msg, sent->msg_bytes, find), 0);
}

/* Answers a FIND that the core sent, with these providers (complete) and nodes. */
static inline int answer_find(struct dht *dht, uint64_t now_us, const struct host_sent *sent,
                              const unsigned *providers, size_t provider_count)
{
    static struct wire_dht_found found;
    struct wire_dht_find find;
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used;
    host_find(sent, &find);
    memset(&found, 0, sizeof found);
    found.request_id = find.request_id;
    memcpy(found.key, find.key, sizeof found.key);
    found.topology_count = 1;
    found.provider_count = provider_count;
    for (size_t i = 0; i < provider_count; i++)
        found.providers[i] = (struct wire_dht_provider){contact_of(providers[i]).addr, 0, 255};
    assert_int_equal(wire_dht_encode_found(&found, msg, sizeof msg, &used), 0);
    return dht_receive(dht, now_us, &sent->to, msg, used);
}

static inline struct wire_dht_add host_add(const struct host_sent *sent)
{
    struct wire_dht_add add;
    assert_int_equal(wire_dht_decode_add(sent->msg, sent->msg_bytes, &add), 0);
    return add;
}

/* Answers an ADD_PROVIDER that the core sent. */
static inline int answer_add(struct dht *dht, uint64_t now_us, const struct host_sent *sent,
                             enum wire_dht_status status, uint64_t sequence)
{
    struct wire_dht_add add = host_add(sent);
    struct wire_dht_added added = {
        .request_id = add.request_id, .status = (uint8_t)status, .sequence = sequence};
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used;
    memcpy(added.key, add.key, sizeof added.key);
    assert_int_equal(wire_dht_encode_added(&added, msg, sizeof msg, &used), 0);
    return dht_receive(dht, now_us, &sent->to, msg, used);
}

/* Advances in the order of deadlines up to a time. */
static inline void run_until(struct dht *dht, uint64_t *now_us, uint64_t until_us)
{
    for (unsigned turns = 0; dht_deadline_us(dht) <= until_us; turns++) {
        assert_true(turns < 100000); /* a deadline that never moves is a busy loop */
        if (dht_deadline_us(dht) > *now_us)
            *now_us = dht_deadline_us(dht);
        dht_advance(dht, *now_us);
        dht__check_invariants(dht);
    }
    *now_us = until_us;
}

/* Numbers of the contacts 1..count, nearest to the key first. */
static inline void by_distance(const struct blob_key *key, unsigned *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned at = i;
        struct dht_contact mine = contact_of(i + 1);
        for (; at > 0; at--) {
            struct dht_contact other = contact_of(numbers[at - 1]);
            if (xor_compare(key->bytes, mine.id.bytes, other.id.bytes) > 0)
                break;
            numbers[at] = numbers[at - 1];
        }
        numbers[at] = i + 1;
    }
}

static inline struct blob_key key_of(unsigned number)
{
    struct blob_key key = {{0}};
    uint8_t bytes[4];
    store_be32(bytes, number);
    sha256_of(bytes, sizeof bytes, key.bytes);
    return key;
}

static inline void members_up(struct dht *dht, uint64_t now_us, unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct dht_contact contact = contact_of(first + i);
        assert_int_equal(dht_member_up(dht, now_us, &contact), 0);
    }
}

#endif
