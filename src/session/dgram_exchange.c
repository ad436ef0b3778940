/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How two nodes come to pairwise keys, and come to them again when one has lost them: hello, ack,
 * confirmation by the first datagram under the new keys, reset, retries, renewal.
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

#define HELLO_RETRY_US  250000ULL /* doubling */
#define HELLO_TRIES_MAX 4
/* A hello that meets the other's is said again, but not while the first can still be on its way (a
 * guess: above any round trip in a region). */
#define HELLO_AGAIN_US 100000ULL
/* Old keys stay for datagrams under way; a candidate waits for its confirmation. */
#define PREVIOUS_KEEP_US  5000000ULL
#define CANDIDATE_KEEP_US 5000000ULL
#define RENEW_US          3600000000ULL /* as PEER-6 for sessions */
#define RENEW_RETRY_US    30000000ULL
/* Hellos that are worked on (140 us each): 1,000/s, in bursts of as many. The rest is dropped and
 * comes again. */
#define HELLO_COST_US   1000ULL
#define HELLO_BUDGET_US 1000000ULL

static void trace_peer(const struct dgram *dgram, const char *event, const struct dgram_peer *peer)
{
    char addr[PEER_ADDR_TEXT_BYTES];
    log_to(&dgram->env, LOG_DEBUG, "dgram: %s peer=%s", event, peer_addr_text(&peer->addr, addr));
}

static void free_candidate(struct dgram *dgram, struct dgram_peer *peer)
{
    dgram__part_free(&dgram->table, peer->candidate, sizeof *peer->candidate);
    peer->candidate = NULL;
}

static bool has_keys(const struct dgram_peer *peer)
{
    return peer->active != NULL || peer->previous != NULL || peer->candidate != NULL;
}

static struct intro_judge judge_of(const struct dgram *dgram, const struct peer_addr *transport)
{
    return (struct intro_judge){
        .admission = dgram->config.admission,
        .self_addr = &dgram->config.self_addr,
        .transport = dgram->config.allow_any_ip ? NULL : transport,
    };
}

/* Key pair from the host's randomness. */
static void draw_ephemeral(const struct dgram *dgram, uint8_t secret[32], uint8_t public_key[32])
{
    dgram->env.random(dgram->env.host, secret, 32);
    (void)crypto_scalarmult_curve25519_base(public_key, secret);
}

static void own_hello(const struct dgram *dgram, struct dgram_hello *out)
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
    own_hello(dgram, &hello);
    draw_ephemeral(dgram, pending->ephemeral_secret, hello.ephemeral);
    pending->local_index = dgram__peer_index(&dgram->table, peer);
    pending->secret_tag = secret->tag;
    pending->is_void = false;
    hello.header.kind = DGRAM_HELLO;
    hello.header.sender_index = pending->local_index;
    dgram__hello_seal(secret, &hello, pending->hello);
    dgram__mac(secret, pending->hello, sizeof pending->hello);
}

/* Puts the hello on the wire; a full output is like a loss. */
static void send_hello(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
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
    send_hello(dgram, peer, now_us);
    pending->due_us = now_us + (HELLO_RETRY_US << pending->tries);
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
    pending->due_us = now_us + HELLO_RETRY_US;
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

/* Sends what waited; what finds no room is dropped and counted. */
static void flush(struct dgram *dgram, struct dgram_peer *peer)
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

/* Keys of one side from an agreement. */
static void fill_keys(struct dgram_keys *keys, const struct dgram_agreement *agreement,
                      bool we_said_hello, const struct dgram_hello *theirs, uint64_t now_us)
{
    memcpy(keys->send_key, we_said_hello ? agreement->hello_key : agreement->ack_key, 32);
    memcpy(keys->receive_key, we_said_hello ? agreement->ack_key : agreement->hello_key, 32);
    keys->remote_index = theirs->header.sender_index;
    keys->version_minor = theirs->intro.version_minor;
    keys->identity = theirs->intro.key;
    keys->created_us = now_us;
}

/* Writes our ack to `theirs` into the candidate and derives its keys. */
static int make_ack(struct dgram *dgram, const struct dgram_arrival *arrival,
                    const struct dgram_hello *theirs, struct dgram_candidate *candidate,
                    uint64_t now_us)
{
    uint8_t ephemeral_secret[32];
    uint8_t transcript[64];
    struct dgram_agreement agreement;
    struct dgram_hello ack;
    own_hello(dgram, &ack);
    draw_ephemeral(dgram, ephemeral_secret, ack.ephemeral);
    ack.header.kind = DGRAM_ACK;
    ack.header.receiver_index = theirs->header.sender_index;
    ack.header.sender_index = candidate->keys.local_index;
    dgram__hello_seal(arrival->secret, &ack, candidate->ack);
    const struct dgram_span ack_span = {candidate->ack, sizeof candidate->ack};
    dgram__transcript(arrival->span, ack_span, transcript);
    int err = dgram__agree(arrival->secret, dgram->config.identity->static_secret, ephemeral_secret,
                           theirs, transcript, &agreement);
    if (err == 0) {
        memcpy(candidate->ack + sizeof candidate->ack - DGRAM_CONFIRM_BYTES, agreement.confirm,
               DGRAM_CONFIRM_BYTES);
        dgram__mac(arrival->secret, candidate->ack, sizeof candidate->ack);
        fill_keys(&candidate->keys, &agreement, false, theirs, now_us);
        candidate->keys.secret_tag = arrival->secret->tag;
        memcpy(candidate->keys.hello_ephemeral, theirs->ephemeral, 32);
    }
    sodium_memzero(ephemeral_secret, sizeof ephemeral_secret);
    sodium_memzero(&agreement, sizeof agreement);
    return err;
}

static void send_ack(struct dgram *dgram, const struct dgram_peer *peer,
                     const struct peer_addr *transport)
{
    struct dgram_output *output = dgram__output_add(dgram, transport);
    if (output == NULL)
        return;
    memcpy(output->bytes, peer->candidate->ack, sizeof peer->candidate->ack);
    output->byte_count = sizeof peer->candidate->ack;
    dgram->stats.acks_sent++;
}

/* ---- their hello --------------------------------------------------------------------------- */

/* Leaky bucket in time: an answer costs HELLO_COST_US, the bucket holds HELLO_BUDGET_US. */
static bool take_hello_token(struct dgram *dgram, uint64_t now_us)
{
    uint64_t passed_us = now_us - dgram->hello_refill_us;
    dgram->hello_refill_us = now_us;
    dgram->hello_owed_us = dgram->hello_owed_us > passed_us ? dgram->hello_owed_us - passed_us : 0;
    if (dgram->hello_owed_us + HELLO_COST_US > HELLO_BUDGET_US)
        return false;
    dgram->hello_owed_us += HELLO_COST_US;
    return true;
}

static bool answered(const struct dgram_keys *keys, const struct dgram_hello *hello)
{
    return keys != NULL && sodium_memcmp(keys->hello_ephemeral, hello->ephemeral, 32) == 0;
}

static int compare_addr(const struct peer_addr *a, const struct peer_addr *b)
{
    int order = memcmp(a->ip, b->ip, sizeof a->ip);
    if (order != 0)
        return order;
    return a->port < b->port ? -1 : a->port > b->port;
}

/*
 * Cases that need no new keys. True when the hello is dealt with: a repetition of one we answered,
 * or one that crossed ours while ours counts.
 */
static bool hello_settled(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us,
                          const struct dgram_arrival *arrival, const struct dgram_hello *hello)
{
    if (peer->candidate != NULL && answered(&peer->candidate->keys, hello)) {
        send_ack(dgram, peer, arrival->transport);
        return true;
    }
    if (answered(peer->active, hello) || answered(peer->previous, hello)) {
        dgram->stats.replayed++;
        return true;
    }
    struct dgram_pending *pending = peer->pending;
    if (pending == NULL || pending->is_void ||
        compare_addr(&dgram->config.self_addr, &hello->intro.addr) > 0)
        return false;
    /* The other is alive, so if ours was lost it should not wait for the next retry. */
    if (now_us >= pending->sent_us + HELLO_AGAIN_US)
        send_hello(dgram, peer, now_us);
    return true;
}

static int answer_hello(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us,
                        const struct dgram_arrival *arrival, const struct dgram_hello *hello)
{
    struct dgram_candidate *candidate = dgram__part_new(&dgram->table, sizeof *candidate);
    if (candidate == NULL)
        return E_NO_MEMORY;
    candidate->keys.local_index = dgram__peer_index(&dgram->table, peer);
    candidate->due_us = now_us + CANDIDATE_KEEP_US;
    int err = make_ack(dgram, arrival, hello, candidate, now_us);
    if (err != 0) {
        dgram__part_free(&dgram->table, candidate, sizeof *candidate);
        return err;
    }
    free_candidate(dgram, peer);
    peer->candidate = candidate;
    if (peer->pending != NULL && !peer->pending->is_void) {
        peer->pending->is_void = true;
        peer->pending->due_us = now_us + HELLO_RETRY_US;
    }
    dgram__peer_schedule(&dgram->table, peer);
    send_ack(dgram, peer, arrival->transport);
    return 0;
}

int dgram__on_hello(struct dgram *dgram, uint64_t now_us, const struct dgram_arrival *arrival)
{
    struct dgram_hello hello;
    struct session_peer who;
    int err =
        dgram__hello_open(arrival->secret, arrival->span.bytes, arrival->span.byte_count, &hello);
    if (err != 0)
        return err;
    const struct intro_judge judge = judge_of(dgram, arrival->transport);
    err = intro__check_addr(&judge, &hello.intro);
    if (err != 0)
        return err;
    struct dgram_peer *peer = dgram__peer_find(&dgram->table, &hello.intro.addr);
    if (peer != NULL && hello_settled(dgram, peer, now_us, arrival, &hello))
        return 0;
    if (!take_hello_token(dgram, now_us)) {
        dgram->stats.hellos_limited++;
        return E_FULL;
    }
    err = intro__admit(&judge, &hello.intro, hello.static_public, &who);
    if (err != 0)
        return err;
    bool is_new = peer == NULL;
    if (is_new)
        err = dgram__peer_add(&dgram->table, &hello.intro.addr, false, now_us, &peer);
    if (err != 0)
        return err;
    peer->id = who.id;
    err = answer_hello(dgram, peer, now_us, arrival, &hello);
    if (err != 0 && is_new)
        dgram__peer_drop(&dgram->table, peer);
    return err;
}

void dgram__confirm(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us)
{
    if (peer->candidate->superseded)
        return;
    struct dgram_keys *keys = dgram__part_new(&dgram->table, sizeof *keys);
    if (keys == NULL)
        return; /* stays a candidate, under which we receive; the next datagram tries again */
    *keys = peer->candidate->keys;
    free_candidate(dgram, peer);
    dgram__keys_install(&dgram->table, peer, keys, now_us + PREVIOUS_KEEP_US);
    dgram__peer_know(&dgram->table, peer, now_us);
    if (peer->pending != NULL)
        flush(dgram, peer);
    dgram__peer_schedule(&dgram->table, peer);
    dgram->stats.exchanges++;
    trace_peer(dgram, "keys agreed, theirs", peer);
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
    fill_keys(keys, agreement, true, ack, now_us);
    keys->local_index = peer->pending->local_index;
    keys->secret_tag = peer->pending->secret_tag;
    if (peer->candidate != NULL) /* the peer may already send under it */
        peer->candidate->superseded = true;
    dgram__keys_install(&dgram->table, peer, keys, now_us + PREVIOUS_KEEP_US);
    bool idle = peer->pending->queue.count == 0;
    flush(dgram, peer);
    /* A full output is like a loss: the next message confirms instead. */
    bool confirmed = !idle || dgram__send_active(dgram, peer, NULL, 0) == 0;
    dgram__peer_use(&dgram->table, peer, now_us);
    dgram__peer_schedule(&dgram->table, peer);
    dgram->stats.exchanges++;
    trace_peer(dgram, confirmed ? "keys agreed, ours" : "keys agreed, not yet confirmed", peer);
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
    const struct intro_judge judge = judge_of(dgram, arrival->transport);
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
    trace_peer(dgram, "keys lost by", peer);
    dgram__keys_install(&dgram->table, peer, NULL, now_us + PREVIOUS_KEEP_US);
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
    trace_peer(dgram, "no answer from", peer);
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
        free_candidate(dgram, peer);
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
            free_candidate(dgram, peer);
        if (peer->pending != NULL && peer->pending->secret_tag != dgram->secrets.slots[0].tag)
            peer->pending->is_void = true;
        if (peer->pending == NULL && !has_keys(peer))
            dgram__peer_drop(table, peer);
        else
            dgram__peer_schedule(table, peer);
    }
}
