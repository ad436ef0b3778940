/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed datagrams with every peer: entry points, data, output. Each arrival is judged by its MAC
 * before anything else is looked at (DHT-1), then by kind; hellos are dgram_exchange.c's. Sockets
 * and sizes of their buffers are the host's.
 */
#include "session.h"

#include <string.h>

#include <sodium.h>

#include "admission_key.h"
#include "bytes.h"
#include "dgram_internal.h"
#include "log.h"

/* A denied node is found within this time of its next datagram; PEER-8 allows 60 s. */
#define DENY_CHECK_US 10000000ULL
/* Peers that one call of dgram_advance looks at. */
#define ADVANCE_PEERS_MAX 256

int dgram_new(const struct env *env, const struct dgram_config *config, uint64_t now_us,
              struct dgram **out)
{
    if (config->identity == NULL || config->admission == NULL ||
        !admission__valid(config->admission) || config->self_addr.port == 0 || sodium_init() < 0)
        return E_INVALID;
    struct dgram *dgram = env->alloc(env->host, NULL, sizeof *dgram);
    if (dgram == NULL)
        return E_NO_MEMORY;
    memset(dgram, 0, sizeof *dgram);
    dgram->env = *env;
    dgram->config = *config;
    dgram->hello_refill_us = now_us;
    dgram__table_init(&dgram->table, env, &dgram->stats);
    (void)dgram__secrets_refresh(&dgram->secrets, config->admission, now_us);
    *out = dgram;
    return 0;
}

void dgram_free(struct dgram *dgram)
{
    if (dgram == NULL)
        return;
    const struct env env = dgram->env;
    dgram__table_close(&dgram->table);
    dgram__secrets_close(&dgram->secrets);
    (void)env.alloc(env.host, dgram, 0);
}

void dgram_stats(const struct dgram *dgram, struct dgram_stats *out)
{
    *out = dgram->stats;
    out->peers = dgram->table.peer_count;
}

static void refresh_secrets(struct dgram *dgram, uint64_t now_us)
{
    if (dgram__secrets_refresh(&dgram->secrets, dgram->config.admission, now_us))
        dgram__secrets_changed(dgram);
}

/* ---- output -------------------------------------------------------------------------------- */

unsigned dgram__output_room(const struct dgram *dgram)
{
    return DGRAM_OUTPUT_MAX - dgram->output_count;
}

struct dgram_output *dgram__output_add(struct dgram *dgram, const struct peer_addr *to)
{
    if (dgram__output_room(dgram) == 0) {
        dgram->stats.output_full++;
        return NULL;
    }
    unsigned at = (dgram->output_first + dgram->output_count) % DGRAM_OUTPUT_MAX;
    dgram->output_count++;
    dgram->output[at].to = *to;
    return &dgram->output[at];
}

bool dgram_next_output(struct dgram *dgram, struct dgram_packet *out)
{
    if (dgram->output_count == 0)
        return false;
    const struct dgram_output *output = &dgram->output[dgram->output_first];
    out->to = output->to;
    out->bytes = output->bytes;
    out->byte_count = output->byte_count;
    dgram->output_first = (dgram->output_first + 1) % DGRAM_OUTPUT_MAX;
    dgram->output_count--;
    return true;
}

/* ---- sending ------------------------------------------------------------------------------- */

int dgram__send_active(struct dgram *dgram, struct dgram_peer *peer, const uint8_t *msg,
                       size_t msg_bytes)
{
    struct dgram_keys *keys = peer->active;
    ASSERT(keys != NULL);
    const struct dgram_secret *secret = dgram__secret_by_tag(&dgram->secrets, keys->secret_tag);
    ASSERT(secret != NULL); /* keys go when their secret goes */
    ASSERT(keys->send_counter < UINT64_MAX);
    struct dgram_output *output = dgram__output_add(dgram, &peer->addr);
    if (output == NULL)
        return E_FULL;
    const struct dgram_message message = {
        .header = {DGRAM_DATA, keys->remote_index, keys->local_index},
        .counter = keys->send_counter++,
        .bytes = msg,
        .byte_count = msg_bytes,
    };
    dgram__data_seal(secret, keys->send_key, &message, output->bytes);
    output->byte_count = msg_bytes + DGRAM_DATA_OVERHEAD;
    dgram->stats.sent++;
    return 0;
}

/* True, and the peer is gone, when its identity was put on the deny list meanwhile (PEER-8). */
static bool drop_if_denied(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    if (now_us < peer->checked_us + DENY_CHECK_US)
        return false;
    peer->checked_us = now_us;
    if (peer->active == NULL || !admission_denied(dgram->config.admission, &peer->active->identity))
        return false;
    dgram__peer_drop(&dgram->table, peer);
    return true;
}

/* No keys yet: the message waits behind a hello, ours or the answer to theirs. */
static int send_queued(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us,
                       const uint8_t *msg, size_t msg_bytes)
{
    int err = 0;
    if (peer->pending == NULL)
        err = dgram__hello_start(dgram, peer, now_us);
    if (err == 0)
        err = dgram__queue_push(&dgram->table, &peer->pending->queue, msg, msg_bytes);
    return err;
}

int dgram_send(struct dgram *dgram, uint64_t now_us, const struct peer_addr *to, const uint8_t *msg,
               size_t msg_bytes)
{
    if (msg_bytes > MESSAGE_BYTES_MAX)
        return E_TOO_LARGE;
    if (msg_bytes == 0 || to->port == 0 || peer_addr_equal(to, &dgram->config.self_addr))
        return E_INVALID;
    refresh_secrets(dgram, now_us);
    struct dgram_peer *peer = dgram__peer_find(&dgram->table, to);
    if (peer != NULL && drop_if_denied(dgram, peer, now_us))
        peer = NULL;
    if (peer == NULL) {
        int err = dgram__peer_add(&dgram->table, to, true, now_us, &peer);
        if (err != 0)
            return err;
    }
    if (peer->active == NULL) {
        dgram__peer_know(&dgram->table, peer, now_us);
        int err = send_queued(dgram, peer, now_us, msg, msg_bytes);
        if (err != 0 && peer->pending == NULL && peer->candidate == NULL && peer->previous == NULL)
            dgram__peer_drop(&dgram->table, peer);
        return err;
    }
    dgram__peer_use(&dgram->table, peer, now_us);
    dgram__renew_if_due(dgram, peer, now_us);
    return dgram__send_active(dgram, peer, msg, msg_bytes);
}

bool dgram_takes_bundles(const struct dgram *dgram, const struct peer_addr *to)
{
    const struct dgram_peer *peer = dgram__peer_find(&dgram->table, to);
    return peer != NULL && peer->active != NULL && peer->active->takes_bundles;
}

/* ---- receiving ----------------------------------------------------------------------------- */

/* The keys of this peer that go by the index, or NULL. */
static struct dgram_keys *keys_of(const struct dgram_peer *peer, uint32_t local_index)
{
    if (peer->active != NULL && peer->active->local_index == local_index)
        return peer->active;
    if (peer->candidate != NULL && peer->candidate->keys.local_index == local_index)
        return &peer->candidate->keys;
    if (peer->previous != NULL && peer->previous->local_index == local_index)
        return peer->previous;
    return NULL;
}

/* Tells a member that its keys are not known here; it gets fewer bytes than it sent (DHT-2). */
static void send_reset(struct dgram *dgram, const struct dgram_arrival *arrival, uint64_t counter)
{
    ASSERT(arrival->span.byte_count > DGRAM_RESET_BYTES);
    struct dgram_output *output = dgram__output_add(dgram, arrival->transport);
    if (output == NULL)
        return;
    const struct dgram_header header = {DGRAM_RESET, arrival->header.sender_index,
                                        arrival->header.receiver_index};
    dgram__reset(arrival->secret, &header, counter, output->bytes);
    output->byte_count = DGRAM_RESET_BYTES;
    dgram->stats.resets_sent++;
}

static void fill_from(const struct dgram_peer *peer, const struct dgram_keys *keys,
                      struct session_peer *from)
{
    from->id = peer->id;
    from->key = keys->identity;
    from->addr = peer->addr;
    from->version_minor = keys->version_minor;
}

/* Where a message goes that was received; out-parameters of dgram_receive. */
struct delivery {
    uint8_t *plain;
    size_t *plain_bytes;
    struct session_peer *from;
};

static int on_data(struct dgram *dgram, uint64_t now_us, const struct dgram_arrival *arrival,
                   const struct delivery *delivery)
{
    const struct dgram_span *span = &arrival->span;
    size_t plain_bytes = 0;
    uint64_t counter = 0;
    if (span->byte_count < DGRAM_DATA_OVERHEAD)
        return E_MALFORMED;
    int err = dgram__counter(span->bytes, span->byte_count, &counter);
    if (err != 0)
        return err;
    struct dgram_peer *peer = dgram__peer_at(&dgram->table, arrival->header.receiver_index);
    struct dgram_keys *keys = peer != NULL ? keys_of(peer, arrival->header.receiver_index) : NULL;
    if (keys == NULL) {
        send_reset(dgram, arrival, counter);
        return E_NOT_FOUND;
    }
    if (!replay__fresh(&keys->window, counter))
        return E_REPLAY;
    err = dgram__data_open(keys->receive_key, span->bytes, span->byte_count, delivery->plain,
                           &plain_bytes);
    if (err == E_AUTH) /* an index we gave out before a restart can come up again */
        send_reset(dgram, arrival, counter);
    if (err != 0)
        return err;
    replay__mark(&keys->window, counter);
    if (drop_if_denied(dgram, peer, now_us))
        return E_DENIED;
    fill_from(peer, keys, delivery->from);
    dgram__peer_use(&dgram->table, peer, now_us);
    if (peer->candidate != NULL && keys == &peer->candidate->keys)
        dgram__confirm(dgram, peer, now_us);
    *delivery->plain_bytes = plain_bytes;
    dgram->stats.received++;
    return 0;
}

static int dispatch(struct dgram *dgram, uint64_t now_us, const struct dgram_arrival *arrival,
                    const struct delivery *delivery)
{
    switch (arrival->header.kind) {
    case DGRAM_HELLO:
        return dgram__on_hello(dgram, now_us, arrival);
    case DGRAM_ACK:
        return dgram__on_ack(dgram, now_us, arrival);
    case DGRAM_DATA:
        return on_data(dgram, now_us, arrival, delivery);
    case DGRAM_RESET:
        return dgram__on_reset(dgram, now_us, arrival);
    default:
        return E_MALFORMED;
    }
}

static void count_error(struct dgram_stats *stats, int err)
{
    switch (err) {
    case 0:
        break;
    case E_AUTH:
        stats->refused++;
        break;
    case E_REPLAY:
        stats->replayed++;
        break;
    case E_DENIED:
        stats->denied++;
        break;
    case E_NOT_FOUND:
        stats->unknown_index++;
        break;
    case E_FULL:
    case E_NO_MEMORY:
        break; /* counted where it happened, or the host's own trouble */
    default:
        stats->malformed++;
        break;
    }
}

int dgram_receive(struct dgram *dgram, uint64_t now_us, const struct peer_addr *transport,
                  const uint8_t *bytes, size_t byte_count, uint8_t plain[MESSAGE_BYTES_MAX],
                  size_t *plain_bytes, struct session_peer *from)
{
    *plain_bytes = 0;
    refresh_secrets(dgram, now_us);
    const struct dgram_secret *secret = byte_count <= DATAGRAM_BYTES_MAX
                                            ? dgram__secret_of(&dgram->secrets, bytes, byte_count)
                                            : NULL;
    if (secret == NULL) {
        dgram->stats.outsiders++;
        return E_AUTH;
    }
    struct dgram_arrival arrival = {
        .secret = secret, .transport = transport, .span = {bytes, byte_count}};
    const struct delivery delivery = {plain, plain_bytes, from};
    int err = dgram__header_decode(bytes, byte_count, &arrival.header);
    if (err == 0)
        err = dispatch(dgram, now_us, &arrival, &delivery);
    count_error(&dgram->stats, err);
    return err;
}

/* ---- time ---------------------------------------------------------------------------------- */

void dgram_advance(struct dgram *dgram, uint64_t now_us)
{
    refresh_secrets(dgram, now_us);
    for (unsigned i = 0; i < ADVANCE_PEERS_MAX && dgram__output_room(dgram) > 0; i++) {
        struct dgram_peer *peer = dgram__peer_due(&dgram->table);
        if (peer == NULL || peer->due_us > now_us)
            return;
        dgram__peer_run(dgram, peer, now_us);
    }
}

uint64_t dgram_deadline_us(const struct dgram *dgram)
{
    const struct dgram_peer *peer = dgram__peer_due(&dgram->table);
    return peer == NULL ? UINT64_MAX : peer->due_us;
}

void dgram__check_invariants(const struct dgram *dgram)
{
    ASSERT(dgram->output_count <= DGRAM_OUTPUT_MAX);
    ASSERT(dgram->secrets.count >= 1);
    dgram__table_check(&dgram->table);
    for (uint32_t i = 0; i < dgram->table.slot_capacity; i++) {
        const struct dgram_peer *peer = dgram->table.slots[i];
        if (peer == NULL)
            continue;
        ASSERT(peer->pending != NULL || peer->active != NULL || peer->previous != NULL ||
               peer->candidate != NULL);
        ASSERT(peer->active == NULL || peer->known);
        ASSERT(peer->pending == NULL || peer->pending->tries <= 4);
    }
}
