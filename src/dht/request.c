/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own requests: a pool of slots whose number is part of the request id, lists by deadline, one
 * repetition, and matching of answers by id, address and key (DHT-3).
 */
#include "core.h"

#include <string.h>

#include "log.h"

#define NONE      UINT16_MAX
#define SLOT_BITS 12
#define SENDS_MAX 2
/* A path stops waiting for a node after this part of the timeout: 62 ms by default, some thirty
 * round trips inside a region. Asking the next one costs a message, waiting costs a pull. */
#define LATE_PART 8
/* Nodes a one-hop lookup asks back for: a partial view still finds its way with a few. */
#define ONE_HOP_NODES 4

static_assert(1u << SLOT_BITS == DHT_REQUESTS_MAX, "an id names any slot");

/* ---- slots ---- */

void dht__requests_init(struct dht_requests *requests)
{
    *requests = (struct dht_requests){.first_free = NONE};
    for (unsigned i = 0; i < DHT_WAIT_COUNT; i++)
        requests->first[i] = requests->last[i] = NONE;
}

static int grow(struct dht *dht)
{
    struct dht_requests *requests = &dht->requests;
    if (requests->capacity == DHT_REQUESTS_MAX)
        return E_FULL;
    uint16_t capacity = requests->capacity == 0 ? 16 : (uint16_t)(2 * requests->capacity);
    struct dht_request *slots =
        dht->env.alloc(dht->env.host, requests->slots, capacity * sizeof *slots);
    if (slots == NULL)
        return E_NO_MEMORY;
    for (uint16_t i = capacity; i-- > requests->capacity;) {
        slots[i] = (struct dht_request){.next = requests->first_free};
        requests->first_free = i;
    }
    requests->slots = slots;
    requests->capacity = capacity;
    return 0;
}

static void unlink_slot(struct dht_requests *requests, uint16_t slot)
{
    struct dht_request *request = &requests->slots[slot];
    if (request->previous == NONE)
        requests->first[request->wait] = request->next;
    else
        requests->slots[request->previous].next = request->next;
    if (request->next == NONE)
        requests->last[request->wait] = request->previous;
    else
        requests->slots[request->next].previous = request->previous;
}

/* Puts a slot at the end of a list and sets the deadline that goes with it. */
static void enlist(struct dht *dht, uint64_t now_us, uint16_t slot, enum dht_wait wait)
{
    struct dht_requests *requests = &dht->requests;
    struct dht_request *request = &requests->slots[slot];
    uint64_t whole_us = dht->config.request_timeout_us, late_us = whole_us / LATE_PART;
    const uint64_t waits_us[DHT_WAIT_COUNT] = {late_us, whole_us - late_us, whole_us};
    request->wait = (uint8_t)wait;
    request->deadline_us = now_us + waits_us[wait];
    request->previous = requests->last[wait];
    request->next = NONE;
    if (requests->last[wait] == NONE)
        requests->first[wait] = slot;
    else
        requests->slots[requests->last[wait]].next = slot;
    requests->last[wait] = slot;
}

static void forget_ping(struct dht_requests *requests, uint16_t slot)
{
    unsigned at = 0;
    while (at < requests->ping_count && requests->pings[at] != slot)
        at++;
    ASSERT(at < requests->ping_count);
    requests->pings[at] = requests->pings[--requests->ping_count];
}

static bool is_ping(uint8_t kind)
{
    return kind == DHT_REQUEST_PING || kind == DHT_REQUEST_PING_BACK;
}

static bool is_orphan(const struct dht_request *request)
{
    return request->kind == DHT_REQUEST_FIND && request->lookup == NULL;
}

/* Ends a request without telling anybody. */
static void close_slot(struct dht_requests *requests, uint16_t slot)
{
    struct dht_request *request = &requests->slots[slot];
    ASSERT(request->kind != DHT_REQUEST_FREE);
    unlink_slot(requests, slot);
    if (is_ping(request->kind))
        forget_ping(requests, slot);
    if (request->kind == DHT_REQUEST_WITHDRAW)
        requests->withdraws--;
    if (is_orphan(request))
        requests->orphans--;
    *request = (struct dht_request){.next = requests->first_free};
    requests->first_free = slot;
    requests->used--;
}

/* A slot for a lookup or job must not be lost to requests whose lookup is over. */
static void give_up_an_orphan(struct dht_requests *requests)
{
    for (uint16_t slot = 0; slot < requests->capacity; slot++) {
        if (is_orphan(&requests->slots[slot])) {
            close_slot(requests, slot);
            return;
        }
    }
}

/* Takes a slot for a request that is about to be sent; the pointer holds until the next open. */
static int open_slot(struct dht *dht, uint64_t now_us, enum dht_request_kind kind,
                     const struct dht_place *to, struct dht_request **out)
{
    struct dht_requests *requests = &dht->requests;
    if (requests->first_free == NONE) {
        int err = grow(dht);
        if (err != 0 && requests->orphans > 0)
            give_up_an_orphan(requests);
        if (requests->first_free == NONE)
            return err;
    }
    uint16_t slot = requests->first_free;
    struct dht_request *request = &requests->slots[slot];
    requests->first_free = request->next;
    requests->used++;
    uint8_t id[8];
    dht->env.random(dht->env.host, id, sizeof id);
    *request = (struct dht_request){
        .id = (load_be64(id) & ~(uint64_t)(DHT_REQUESTS_MAX - 1)) | slot,
        .to = *to,
        .kind = (uint8_t)kind,
        .sent = 1,
    };
    enlist(dht, now_us, slot, kind == DHT_REQUEST_FIND ? DHT_WAIT_FRESH : DHT_WAIT_WHOLE);
    *out = request;
    return 0;
}

static uint16_t slot_of(const struct dht *dht, const struct dht_request *request)
{
    return (uint16_t)(request - dht->requests.slots);
}

/* ---- messages ---- */

static int encode_find(const struct dht *dht, const struct dht_request *request, uint8_t *out,
                       size_t *used)
{
    const struct dht_lookup *lookup = request->lookup;
    struct wire_dht_find find = {.request_id = request->id, .pad_to = DHT_FIND_BYTES};
    memcpy(find.key, request->key, sizeof find.key);
    bool few = lookup->one_hop && dht->config.k > ONE_HOP_NODES;
    find.nodes_max = (uint8_t)(few ? ONE_HOP_NODES : dht->config.k);
    bool providers = lookup->purpose == DHT_FOR_HOST;
    if (providers)
        find.topology = dht->config.topology;
    return wire_dht_encode_find(&find, providers, out, MESSAGE_BYTES_MAX, used);
}

static int encode_add(const struct dht *dht, const struct dht_request *request, uint8_t *out,
                      size_t *used)
{
    struct wire_dht_add add = {.request_id = request->id, .addr = dht->config.self.addr};
    memcpy(add.key, request->key, sizeof add.key);
    add.topology = dht->config.topology;
    if (request->kind == DHT_REQUEST_WITHDRAW) {
        add.sequence = request->sequence;
    } else {
        add.completeness = request->job->publication->completeness;
        add.sequence = request->job->publication->sequence;
        add.ttl_ms = (uint32_t)(dht->config.record_ttl_us / DHT_MS);
    }
    return wire_dht_encode_add(&add, out, MESSAGE_BYTES_MAX, used);
}

static void send_request(struct dht *dht, const struct dht_request *request)
{
    uint8_t msg[MESSAGE_BYTES_MAX];
    size_t used = 0;
    int err = E_INTERNAL;
    struct wire_dht_ping ping = {.request_id = request->id};
    switch ((enum dht_request_kind)request->kind) {
    case DHT_REQUEST_PING:
        ping.pad_to = DHT_PING_BYTES;
        err = wire_dht_encode_ping(&ping, false, msg, sizeof msg, &used);
        break;
    case DHT_REQUEST_PING_BACK:
        err = wire_dht_encode_ping(&ping, false, msg, sizeof msg, &used);
        break;
    case DHT_REQUEST_FIND:
        err = encode_find(dht, request, msg, &used);
        break;
    case DHT_REQUEST_ADD:
    case DHT_REQUEST_WITHDRAW:
        err = encode_add(dht, request, msg, &used);
        break;
    case DHT_REQUEST_FREE:
    default:
        break;
    }
    ASSERT(err == 0); /* our own labels and a datagram's room: always fits */
    dht__transmit(dht, &request->to.addr, msg, used);
}

int dht__request_find(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup, unsigned path,
                      const struct dht_place *to)
{
    struct dht_request *request;
    int err = open_slot(dht, now_us, DHT_REQUEST_FIND, to, &request);
    if (err != 0)
        return err;
    memcpy(request->key, lookup->key, sizeof request->key);
    request->lookup = lookup;
    request->path = (uint8_t)path;
    send_request(dht, request);
    return 0;
}

int dht__request_add(struct dht *dht, uint64_t now_us, struct dht_job *job,
                     const struct dht_place *to)
{
    struct dht_request *request;
    int err = open_slot(dht, now_us, DHT_REQUEST_ADD, to, &request);
    if (err != 0)
        return err;
    memcpy(request->key, job->publication->key.bytes, sizeof request->key);
    request->job = job;
    send_request(dht, request);
    return 0;
}

void dht__request_withdraw(struct dht *dht, uint64_t now_us, const struct dht_publication *of,
                           const struct dht_place *to)
{
    struct dht_request *request;
    if (dht->requests.withdraws >= DHT_WITHDRAWS_MAX ||
        open_slot(dht, now_us, DHT_REQUEST_WITHDRAW, to, &request) != 0)
        return; /* the record ends with its lifetime */
    dht->requests.withdraws++;
    memcpy(request->key, of->key.bytes, sizeof request->key);
    request->sequence = of->sequence;
    send_request(dht, request);
}

void dht__request_ping(struct dht *dht, uint64_t now_us, const struct dht_place *to, bool back)
{
    struct dht_requests *requests = &dht->requests;
    struct dht_request *request;
    for (unsigned i = 0; i < requests->ping_count; i++) {
        if (peer_addr_equal(&requests->slots[requests->pings[i]].to.addr, &to->addr))
            return;
    }
    enum dht_request_kind kind = back ? DHT_REQUEST_PING_BACK : DHT_REQUEST_PING;
    if (requests->ping_count == DHT_PINGS_MAX || open_slot(dht, now_us, kind, to, &request) != 0)
        return;
    requests->pings[requests->ping_count++] = slot_of(dht, request);
    send_request(dht, request);
}

/* ---- endings ---- */

void dht__requests_orphan(struct dht *dht, const struct dht_lookup *lookup)
{
    struct dht_requests *requests = &dht->requests;
    bool scarce = requests->used > DHT_REQUESTS_MAX / 2;
    for (unsigned i = 0; i < DHT_WAIT_COUNT; i++) {
        uint16_t next;
        for (uint16_t slot = requests->first[i]; slot != NONE; slot = next) {
            struct dht_request *request = &requests->slots[slot];
            next = request->next;
            if (request->lookup != lookup)
                continue;
            request->lookup = NULL;
            requests->orphans++;
            if (scarce)
                close_slot(requests, slot);
        }
    }
}

void dht__requests_drop_job(struct dht *dht, const struct dht_job *job)
{
    struct dht_requests *requests = &dht->requests;
    uint16_t next;
    for (uint16_t slot = requests->first[DHT_WAIT_WHOLE]; slot != NONE; slot = next) {
        next = requests->slots[slot].next;
        if (requests->slots[slot].job == job)
            close_slot(requests, slot);
    }
}

/* The node did not answer: closes the slot and tells whoever waited. */
static void fail(struct dht *dht, uint64_t now_us, uint16_t slot)
{
    struct dht_request request = dht->requests.slots[slot];
    close_slot(&dht->requests, slot);
    if (request.kind != DHT_REQUEST_PING_BACK)
        dht__table_failed(&dht->table, &request.to);
    if (request.lookup != NULL)
        dht__lookup_silent(dht, now_us, request.lookup, &request, true);
    if (request.job != NULL)
        dht__job_answered(dht, now_us, request.job, &request.to, NULL);
}

void dht__requests_fail_node(struct dht *dht, uint64_t now_us, const struct dht_place *node)
{
    for (uint16_t slot = 0; slot < dht->requests.capacity; slot++) {
        const struct dht_request *request = &dht->requests.slots[slot];
        if (request->kind != DHT_REQUEST_FREE && peer_addr_equal(&request->to.addr, &node->addr))
            fail(dht, now_us, slot);
    }
}

/* A deadline passed that is not the last. */
static void move_on(struct dht *dht, uint64_t now_us, uint16_t slot)
{
    struct dht_request *request = &dht->requests.slots[slot];
    bool fresh = request->wait == DHT_WAIT_FRESH;
    unlink_slot(&dht->requests, slot);
    enlist(dht, now_us, slot, fresh ? DHT_WAIT_LATE : DHT_WAIT_WHOLE);
    if (!fresh) {
        request->sent++;
        send_request(dht, request);
    }
    struct dht_request copy = *request; /* the path may open slots and move them */
    if (fresh && copy.lookup != NULL)
        dht__lookup_silent(dht, now_us, copy.lookup, &copy, false);
}

static void expire(struct dht *dht, uint64_t now_us, uint16_t slot)
{
    const struct dht_request *request = &dht->requests.slots[slot];
    bool orphan = is_orphan(request);
    bool repeatable = request->kind != DHT_REQUEST_PING_BACK && !orphan;
    if (request->wait == DHT_WAIT_FRESH) {
        move_on(dht, now_us, slot);
        return;
    }
    dht->stats.timeouts++;
    if (request->sent < SENDS_MAX && repeatable)
        move_on(dht, now_us, slot);
    else if (request->sent < SENDS_MAX && orphan)
        close_slot(&dht->requests, slot); /* one lost packet proves nothing */
    else
        fail(dht, now_us, slot);
}

void dht__requests_advance(struct dht *dht, uint64_t now_us)
{
    struct dht_requests *requests = &dht->requests;
    /* A late call moves a request on by one list at a time; none comes back to an earlier one. */
    for (unsigned i = 0; i < DHT_WAIT_COUNT; i++) {
        while (requests->first[i] != NONE &&
               requests->slots[requests->first[i]].deadline_us <= now_us)
            expire(dht, now_us, requests->first[i]);
    }
}

uint64_t dht__requests_deadline_us(const struct dht *dht)
{
    const struct dht_requests *requests = &dht->requests;
    uint64_t deadline_us = UINT64_MAX;
    for (unsigned i = 0; i < DHT_WAIT_COUNT; i++) {
        if (requests->first[i] != NONE &&
            requests->slots[requests->first[i]].deadline_us < deadline_us)
            deadline_us = requests->slots[requests->first[i]].deadline_us;
    }
    return deadline_us;
}

/* ---- answers ---- */

/* The open request with this id that was sent to this address, or NULL. */
static struct dht_request *match(struct dht *dht, uint64_t id, const struct peer_addr *from)
{
    uint16_t slot = (uint16_t)(id & (DHT_REQUESTS_MAX - 1));
    if (slot >= dht->requests.capacity)
        return NULL;
    struct dht_request *request = &dht->requests.slots[slot];
    bool matches = request->kind != DHT_REQUEST_FREE && request->id == id &&
                   peer_addr_equal(&request->to.addr, from);
    return matches ? request : NULL;
}

/* Takes a matched request out and notes that its node lives. */
static struct dht_request take(struct dht *dht, uint64_t now_us, struct dht_request *request)
{
    struct dht_request taken = *request;
    close_slot(&dht->requests, slot_of(dht, request));
    dht__node_answered(dht, now_us, &taken.to);
    return taken;
}

static int take_pong(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                     const uint8_t *msg, size_t msg_bytes)
{
    struct wire_dht_ping pong;
    int err = wire_dht_decode_ping(msg, msg_bytes, &pong);
    if (err != 0)
        return err;
    struct dht_request *request = match(dht, pong.request_id, from);
    if (request == NULL || !is_ping(request->kind))
        return E_REFUSED;
    (void)take(dht, now_us, request);
    return 0;
}

static int take_found(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                      const uint8_t *msg, size_t msg_bytes)
{
    struct wire_dht_found found;
    int err = wire_dht_decode_found(msg, msg_bytes, &found);
    if (err != 0)
        return err;
    struct dht_request *request = match(dht, found.request_id, from);
    if (request == NULL || request->kind != DHT_REQUEST_FIND ||
        memcmp(request->key, found.key, sizeof found.key) != 0)
        return E_REFUSED;
    struct dht_request taken = take(dht, now_us, request);
    if (taken.lookup != NULL)
        dht__lookup_answered(dht, now_us, taken.lookup, &taken, &found);
    return 0;
}

static int take_added(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                      const uint8_t *msg, size_t msg_bytes)
{
    struct wire_dht_added added;
    int err = wire_dht_decode_added(msg, msg_bytes, &added);
    if (err != 0)
        return err;
    struct dht_request *request = match(dht, added.request_id, from);
    if (request == NULL ||
        (request->kind != DHT_REQUEST_ADD && request->kind != DHT_REQUEST_WITHDRAW) ||
        memcmp(request->key, added.key, sizeof added.key) != 0)
        return E_REFUSED;
    struct dht_request taken = take(dht, now_us, request);
    if (taken.job != NULL)
        dht__job_answered(dht, now_us, taken.job, &taken.to, &added);
    return 0;
}

int dht__requests_answer(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                         unsigned type, const uint8_t *msg, size_t msg_bytes)
{
    switch (type) {
    case WIRE_DHT_PONG:
        return take_pong(dht, now_us, from, msg, msg_bytes);
    case WIRE_DHT_FOUND:
        return take_found(dht, now_us, from, msg, msg_bytes);
    case WIRE_DHT_ADDED:
        return take_added(dht, now_us, from, msg, msg_bytes);
    default:
        return E_NOT_FOUND;
    }
}

/* Walks one list, adding up what it holds. */
static void check_list(const struct dht_requests *requests, enum dht_wait wait, unsigned sums[3])
{
    uint64_t deadline_us = 0;
    uint16_t previous = NONE;
    for (uint16_t slot = requests->first[wait]; slot != NONE; slot = requests->slots[slot].next) {
        const struct dht_request *request = &requests->slots[slot];
        ASSERT(request->kind != DHT_REQUEST_FREE && request->wait == wait);
        ASSERT(request->previous == previous && request->deadline_us >= deadline_us);
        ASSERT((request->job != NULL) == (request->kind == DHT_REQUEST_ADD));
        deadline_us = request->deadline_us;
        previous = slot;
        sums[0]++;
        sums[1] += is_orphan(request);
        sums[2] += request->kind == DHT_REQUEST_WITHDRAW;
    }
    ASSERT(previous == requests->last[wait]);
}

void dht__requests_check(const struct dht *dht)
{
    unsigned sums[3] = {0};
    for (unsigned i = 0; i < DHT_WAIT_COUNT; i++)
        check_list(&dht->requests, (enum dht_wait)i, sums);
    ASSERT(sums[0] == dht->requests.used && sums[1] == dht->requests.orphans);
    ASSERT(sums[2] == dht->requests.withdraws);
}
