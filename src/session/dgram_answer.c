/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answering side of an exchange: a received hello, our ack, and its confirmation by the first
 * datagram under the new keys. dgram_exchange.c has the other side and says who gives way when both
 * say hello at once.
 */
#include "dgram_internal.h"

#include <string.h>

#include <sodium.h>

#include "log.h"

#define CANDIDATE_KEEP_US 5000000ULL /* a candidate waits so long for its confirmation */
/* A hello that meets the other's is said again, but not while the first can still be on its way (a
 * guess: above any round trip in a region). */
#define HELLO_AGAIN_US 100000ULL
/* Hellos that are worked on (140 us each): 1,000/s, in bursts of as many. The rest is dropped and
 * comes again. */
#define HELLO_COST_US   1000ULL
#define HELLO_BUDGET_US 1000000ULL

/* Writes our ack to `theirs` into the candidate and derives its keys. */
static int make_ack(struct dgram *dgram, const struct dgram_arrival *arrival,
                    const struct dgram_hello *theirs, struct dgram_candidate *candidate,
                    uint64_t now_us)
{
    uint8_t ephemeral_secret[32];
    uint8_t transcript[64];
    struct dgram_agreement agreement;
    struct dgram_hello ack;
    dgram__own_hello(dgram, &ack);
    dgram__draw_ephemeral(dgram, ephemeral_secret, ack.ephemeral);
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
        dgram__keys_fill(&candidate->keys, &agreement, false, theirs, now_us);
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
        dgram__hello_send(dgram, peer, now_us);
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
    dgram__candidate_free(dgram, peer);
    peer->candidate = candidate;
    if (peer->pending != NULL && !peer->pending->is_void) {
        peer->pending->is_void = true;
        sodium_memzero(peer->pending->ephemeral_secret, sizeof peer->pending->ephemeral_secret);
        peer->pending->due_us = now_us + DGRAM_HELLO_RETRY_US;
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
    const struct intro_judge judge = dgram__judge(dgram, arrival->transport);
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
    dgram__candidate_free(dgram, peer);
    dgram__keys_install(&dgram->table, peer, keys, now_us + DGRAM_PREVIOUS_KEEP_US);
    dgram__peer_know(&dgram->table, peer, now_us);
    if (peer->pending != NULL)
        dgram__flush(dgram, peer);
    dgram__peer_schedule(&dgram->table, peer);
    dgram->stats.exchanges++;
    dgram__trace_peer(dgram, "keys agreed, theirs", peer);
}
