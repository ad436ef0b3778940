/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How two nodes come to pairwise keys, and come to them again when one has lost them: our hello,
 * the ack to it, reset, retries, renewal. The answering side is dgram_answer.c.
 *
 * Both may say hello at once. Then the hello of the lower mesh address counts: its sender does not
 * answer the other's, and the other drops its own. Whoever is wrong about what the other does is
 * put right by the next retry.
 */
#include "dgram_internal.h"

#include <string.h>

#include <sodium.h>

#include "bytes.h"
#include "log.h"
#include "noise.h"

#define HELLO_TRIES_MAX 4
#define RENEW_US        3600000000ULL /* as PEER-6 for sessions */
#define RENEW_RETRY_US  30000000ULL

void dgram__trace_peer(const struct dgram *dgram, const char *event, const struct dgram_peer *peer)
{
    char addr[PEER_ADDR_TEXT_BYTES];
    log_to(&dgram->env, LOG_DEBUG, "dgram: %s peer=%s", event, peer_addr_text(&peer->addr, addr));
}

void dgram__candidate_free(struct dgram *dgram, struct dgram_peer *peer)
{
    dgram__part_free(&dgram->table, peer->candidate, sizeof *peer->candidate);
    peer->candidate = NULL;
}

static bool has_keys(const struct dgram_peer *peer)
{
    return peer->active != NULL || peer->previous != NULL || peer->candidate != NULL;
}

struct intro_judge dgram__judge(const struct dgram *dgram, const struct peer_addr *transport)
{
    return (struct intro_judge){
        .admission = dgram->config.admission,
        .self_addr = &dgram->config.self_addr,
        .transport = dgram->config.allow_any_ip ? NULL : transport,
    };
}

void dgram__draw_ephemeral(const struct dgram *dgram, uint8_t secret[32], uint8_t public_key[32])
{
    dgram->env.random(dgram->env.host, secret, 32);
    (void)crypto_scalarmult_curve25519_base(public_key, secret);
}

void dgram__own_hello(const struct dgram *dgram, struct dgram_hello *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->static_public, dgram->config.identity->static_public, 32);
    intro__own(dgram->config.identity, &dgram->config.self_addr, &out->intro);
}

/* ---- our hello ----------------------------------------------------------------------------- */

/* A new hello with a fresh ephemeral, under the first secret. */
static void make_hello(struct dgram *dgram, struct dgram_peer *peer)
{
    struct dgram_pending *pending = peer->pending;
    const struct dgram_secret *secret = &dgram->secrets.slots[0];
    struct dgram_hello hello;
    dgram__own_hello(dgram, &hello);
    dgram__draw_ephemeral(dgram, pending->ephemeral_secret, hello.ephemeral);
    pending->local_index = dgram__peer_index(&dgram->table, peer);
    pending->secret_tag = secret->tag;
    pending->is_void = false;
    hello.header.kind = DGRAM_HELLO;
    hello.header.sender_index = pending->local_index;
    dgram__hello_seal(secret, &hello, pending->hello);
    dgram__mac(secret, pending->hello, sizeof pending->hello);
}

void dgram__hello_send(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    struct dgram_pending *pending = peer->pending;
    struct dgram_output *output = dgram__output_add(dgram, &peer->addr);
    pending->sent_us = now_us;
    if (output == NULL)
        return;
    memcpy(output->bytes, pending->hello, sizeof pending->hello);
    output->byte_count = sizeof pending->hello;
    dgram->stats.hellos_sent++;
}

static void try_hello(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    struct dgram_pending *pending = peer->pending;
    if (pending->is_void)
        make_hello(dgram, peer);
    dgram__hello_send(dgram, peer, now_us);
    pending->due_us = now_us + (DGRAM_HELLO_RETRY_US << pending->tries);
    pending->tries++;
    dgram__peer_schedule(&dgram->table, peer);
}

int dgram__hello_start(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    ASSERT(peer->pending == NULL);
    struct dgram_pending *pending = dgram__part_new(&dgram->table, sizeof *pending);
    if (pending == NULL)
        return E_NO_MEMORY;
    pending->is_void = true;
    pending->due_us = now_us + DGRAM_HELLO_RETRY_US;
    peer->pending = pending;
    /* When we just answered theirs, its confirmation is nearer than a new exchange. */
    if (peer->candidate != NULL && !peer->candidate->superseded)
        dgram__peer_schedule(&dgram->table, peer);
    else
        try_hello(dgram, peer, now_us);
    return 0;
}

void dgram__renew_if_due(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    const struct dgram_keys *keys = peer->active;
    if (keys == NULL || peer->pending != NULL || now_us < peer->renew_after_us)
        return;
    bool old = now_us >= keys->created_us + RENEW_US;
    /* Only keys from before our own switch: two nodes that prefer different secrets during a
     * rotation would otherwise renew for ever. */
    bool other_secret = keys->secret_tag != dgram->secrets.slots[0].tag &&
                        keys->created_us < dgram->secrets.changed_us;
    if (!old && !other_secret)
        return;
    if (dgram__hello_start(dgram, peer, now_us) != 0)
        peer->renew_after_us = now_us + RENEW_RETRY_US;
}

/* ---- agreeing ------------------------------------------------------------------------------ */

void dgram__flush(struct dgram *dgram, struct dgram_peer *peer)
{
    struct dgram_pending *pending = peer->pending;
    size_t msg_bytes = 0;
    const uint8_t *msg;
    while ((msg = dgram__queue_first(&pending->queue, &msg_bytes)) != NULL) {
        if (dgram__send_active(dgram, peer, msg, msg_bytes) != 0)
            break;
        dgram__queue_pop(&dgram->table, &pending->queue);
    }
    dgram__pending_free(&dgram->table, peer);
}

void dgram__keys_fill(struct dgram_keys *keys, const struct dgram_agreement *agreement,
                      bool we_said_hello, const struct dgram_hello *theirs, uint64_t now_us)
{
    memcpy(keys->send_key, we_said_hello ? agreement->hello_key : agreement->ack_key, 32);
    memcpy(keys->receive_key, we_said_hello ? agreement->ack_key : agreement->hello_key, 32);
    keys->remote_index = theirs->header.sender_index;
    keys->version_minor = theirs->intro.version_minor;
    keys->takes_bundles = (theirs->intro.features & FEATURE_BUNDLES) != 0;
    keys->identity = theirs->intro.key;
    keys->created_us = now_us;
}

/* ---- their ack ----------------------------------------------------------------------------- */

/* The peer whose hello this answers, or NULL: late, repeated or made up. */
static struct dgram_peer *find_pending(struct dgram *dgram, const struct dgram_arrival *arrival)
{
    struct dgram_peer *peer = dgram__peer_at(&dgram->table, arrival->header.receiver_index);
    if (peer == NULL || peer->pending == NULL || peer->pending->is_void ||
        peer->pending->local_index != arrival->header.receiver_index ||
        peer->pending->secret_tag != arrival->secret->tag)
        return NULL;
    return peer;
}

/* Derives keys from an ack and checks that its sender has them too. */
static int accept_ack(struct dgram *dgram, const struct dgram_arrival *arrival,
                      const struct dgram_pending *pending, const struct dgram_hello *ack,
                      struct dgram_agreement *out)
{
    uint8_t transcript[64];
    const struct dgram_span hello = {pending->hello, sizeof pending->hello};
    dgram__transcript(hello, arrival->span, transcript);
    int err = dgram__agree(arrival->secret, dgram->config.identity->static_secret,
                           pending->ephemeral_secret, ack, transcript, out);
    if (err != 0)
        return err;
    const uint8_t *confirm = arrival->span.bytes + arrival->span.byte_count - DGRAM_CONFIRM_BYTES;
    return sodium_memcmp(out->confirm, confirm, DGRAM_CONFIRM_BYTES) == 0 ? 0 : E_AUTH;
}

/* The exchange is complete on our side: what waited goes out and confirms it on the other. */
static int finish_hello(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us,
                        const struct dgram_hello *ack, const struct dgram_agreement *agreement)
{
    struct dgram_keys *keys = dgram__part_new(&dgram->table, sizeof *keys);
    if (keys == NULL)
        return E_NO_MEMORY; /* the hello stays pending and is said again */
    dgram__keys_fill(keys, agreement, true, ack, now_us);
    keys->local_index = peer->pending->local_index;
    keys->secret_tag = peer->pending->secret_tag;
    if (peer->candidate != NULL) /* the peer may already send under it */
        peer->candidate->superseded = true;
    dgram__keys_install(&dgram->table, peer, keys, now_us + DGRAM_PREVIOUS_KEEP_US);
    bool idle = peer->pending->queue.count == 0;
    dgram__flush(dgram, peer);
    /* A full output is like a loss: the next message confirms instead. */
    bool confirmed = !idle || dgram__send_active(dgram, peer, NULL, 0) == 0;
    dgram__peer_use(&dgram->table, peer, now_us);
    dgram__peer_schedule(&dgram->table, peer);
    dgram->stats.exchanges++;
    dgram__trace_peer(dgram, confirmed ? "keys agreed, ours" : "keys agreed, not yet confirmed",
                      peer);
    return 0;
}

int dgram__on_ack(struct dgram *dgram, uint64_t now_us, const struct dgram_arrival *arrival)
{
    struct dgram_hello ack;
    struct session_peer who;
    struct dgram_agreement agreement;
    struct dgram_peer *peer = find_pending(dgram, arrival);
    if (peer == NULL)
        return E_REPLAY;
    int err =
        dgram__hello_open(arrival->secret, arrival->span.bytes, arrival->span.byte_count, &ack);
    if (err != 0)
        return err;
    /* The place we called must be the place that answers (PEER-4). */
    if (!dgram->config.allow_any_ip && !peer_addr_equal(&ack.intro.addr, &peer->addr))
        return E_AUTH;
    const struct intro_judge judge = dgram__judge(dgram, arrival->transport);
    err = intro__admit(&judge, &ack.intro, ack.static_public, &who);
    if (err != 0)
        return err;
    err = accept_ack(dgram, arrival, peer->pending, &ack, &agreement);
    if (err == 0) {
        peer->id = who.id;
        err = finish_hello(dgram, peer, now_us, &ack, &agreement);
    }
    sodium_memzero(&agreement, sizeof agreement);
    return err;
}

/* ---- reset, time, secrets ------------------------------------------------------------------ */

int dgram__on_reset(struct dgram *dgram, uint64_t now_us, const struct dgram_arrival *arrival)
{
    uint64_t counter = 0;
    int err = dgram__counter(arrival->span.bytes, arrival->span.byte_count, &counter);
    if (err != 0)
        return err;
    struct dgram_peer *peer = dgram__peer_at(&dgram->table, arrival->header.receiver_index);
    const struct dgram_keys *keys = peer != NULL ? peer->active : NULL;
    if (keys == NULL || keys->local_index != arrival->header.receiver_index)
        return E_NOT_FOUND;
    /* It must quote a datagram we sent, and come from where we sent it. A quote works once: the
     * keys it speaks of are then no longer the active ones. */
    bool quotes =
        keys->remote_index == arrival->header.sender_index && counter < keys->send_counter;
    bool from_there = dgram->config.allow_any_ip ||
                      memcmp(peer->addr.ip, arrival->transport->ip, sizeof peer->addr.ip) == 0;
    if (!quotes || !from_there)
        return E_AUTH;
    dgram->stats.resets_received++;
    dgram__trace_peer(dgram, "keys lost by", peer);
    dgram__keys_install(&dgram->table, peer, NULL, now_us + DGRAM_PREVIOUS_KEEP_US);
    if (peer->pending == NULL)
        err = dgram__hello_start(dgram, peer, now_us);
    dgram__peer_schedule(&dgram->table, peer);
    return err;
}

/* A hello that is due: the next try, or the end of trying. */
static void run_pending(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    if (peer->pending->tries < HELLO_TRIES_MAX) {
        try_hello(dgram, peer, now_us);
        return;
    }
    dgram->stats.hellos_failed++;
    dgram__trace_peer(dgram, "no answer from", peer);
    dgram__pending_free(&dgram->table, peer);
    peer->renew_after_us = now_us + RENEW_RETRY_US;
}

void dgram__peer_run(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    if (peer->previous != NULL && now_us >= peer->previous_due_us) {
        dgram__part_free(&dgram->table, peer->previous, sizeof *peer->previous);
        peer->previous = NULL;
    }
    if (peer->candidate != NULL && now_us >= peer->candidate->due_us)
        dgram__candidate_free(dgram, peer);
    if (peer->pending != NULL && now_us >= peer->pending->due_us)
        run_pending(dgram, peer, now_us);
    bool empty = peer->pending == NULL && !has_keys(peer);
    if (empty || now_us >= peer->used_us + DGRAM_IDLE_US)
        dgram__peer_drop(&dgram->table, peer);
    else
        dgram__peer_schedule(&dgram->table, peer);
}

static void drop_stale(struct dgram *dgram, struct dgram_keys **keys)
{
    if (*keys == NULL || dgram__secret_by_tag(&dgram->secrets, (*keys)->secret_tag) != NULL)
        return;
    dgram__part_free(&dgram->table, *keys, sizeof **keys);
    *keys = NULL;
}

void dgram__secrets_changed(struct dgram *dgram)
{
    struct dgram_table *table = &dgram->table;
    for (uint32_t i = 0; i < table->slot_capacity; i++) {
        struct dgram_peer *peer = table->slots[i];
        if (peer == NULL)
            continue;
        drop_stale(dgram, &peer->active);
        drop_stale(dgram, &peer->previous);
        if (peer->candidate != NULL &&
            dgram__secret_by_tag(&dgram->secrets, peer->candidate->keys.secret_tag) == NULL)
            dgram__candidate_free(dgram, peer);
        if (peer->pending != NULL && peer->pending->secret_tag != dgram->secrets.slots[0].tag)
            peer->pending->is_void = true;
        if (peer->pending == NULL && !has_keys(peer))
            dgram__peer_drop(table, peer);
        else
            dgram__peer_schedule(table, peer);
    }
}
