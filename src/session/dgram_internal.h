/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The object behind dgram.h's calls, shared by dgram.c (entry points, data, output) and
 * dgram_exchange.c (hello, ack, reset, retries).
 */
#ifndef SHOAL_SESSION_DGRAM_INTERNAL_H
#define SHOAL_SESSION_DGRAM_INTERNAL_H

#include "dgram_peer.h"

/* Datagrams waiting for the host, which drains after every call. One call makes at most a flushed
 * queue, an ack and a hello; advance stops while there is no room. */
#define DGRAM_OUTPUT_MAX 64
struct dgram_output {
    struct peer_addr to;
    size_t byte_count;
    uint8_t bytes[DATAGRAM_BYTES_MAX];
};

struct dgram {
    struct env env;
    struct dgram_config config;
    struct dgram_secrets secrets;
    struct dgram_table table;
    struct dgram_stats stats;
    uint64_t hello_owed_us; /* what answers to hellos cost, less the time since */
    uint64_t hello_refill_us;
    unsigned output_first;
    unsigned output_count;
    struct dgram_output output[DGRAM_OUTPUT_MAX];
};

/* One received datagram and the secret that its MAC fits. Borrowed. */
struct dgram_arrival {
    const struct dgram_secret *secret;
    const struct peer_addr *transport;
    struct dgram_span span;
    struct dgram_header header;
};

/* Room for one datagram, already counted as output; NULL (counted) when there is none. */
struct dgram_output *dgram__output_add(struct dgram *dgram, const struct peer_addr *to);
/* Free places in the output. */
unsigned dgram__output_room(const struct dgram *dgram);

/* Seals a message under the peer's active keys into the output; 0 bytes make a keep-alive. 0, or
 * E_FULL when the output has no room. */
MUST_USE int dgram__send_active(struct dgram *dgram, struct dgram_peer *peer, const uint8_t *msg,
                                size_t msg_bytes);

#define DGRAM_HELLO_RETRY_US 250000ULL /* doubling with each try */
/* Replaced keys stay for datagrams under way. */
#define DGRAM_PREVIOUS_KEEP_US 5000000ULL

/* What an introduction from this address is judged against; borrows both. */
struct intro_judge dgram__judge(const struct dgram *dgram, const struct peer_addr *transport);
/* Key pair from the host's randomness; the caller wipes the secret. */
void dgram__draw_ephemeral(const struct dgram *dgram, uint8_t secret[32], uint8_t public_key[32]);
/* A hello with our session key and introduction; header and ephemeral are zero. */
void dgram__own_hello(const struct dgram *dgram, struct dgram_hello *out);
/* Puts the pending hello on the wire; a full output is like a loss. */
void dgram__hello_send(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us);
/* Keys of one side from an agreement; local index and secret are the caller's to set. */
void dgram__keys_fill(struct dgram_keys *keys, const struct dgram_agreement *agreement,
                      bool we_said_hello, const struct dgram_hello *theirs, uint64_t now_us);
/* Ends the pending hello of a peer with active keys: sends what waited; what finds no room is
 * dropped and counted. */
void dgram__flush(struct dgram *dgram, struct dgram_peer *peer);
/* Forgets the candidate, if any. */
void dgram__candidate_free(struct dgram *dgram, struct dgram_peer *peer);
/* One debug line about a peer. */
void dgram__trace_peer(const struct dgram *dgram, const char *event, const struct dgram_peer *peer);

/* Makes a hello pending for a peer that has none. It goes out at once, or, when we have just
 * answered one of the peer's, only if that is not confirmed soon. 0 or E_NO_MEMORY. */
MUST_USE int dgram__hello_start(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us);
/* Starts a hello when working keys are old or under a secret that is no longer first. */
void dgram__renew_if_due(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us);
/* Received hello: answers with an ack of the same length. Errors as dgram_receive. */
MUST_USE int dgram__on_hello(struct dgram *dgram, uint64_t now_us,
                             const struct dgram_arrival *arrival);
/* Received ack: keys are agreed, the queue is sent. Errors as dgram_receive. */
MUST_USE int dgram__on_ack(struct dgram *dgram, uint64_t now_us,
                           const struct dgram_arrival *arrival);
/* Received reset: the peer lost our keys; says hello. Errors as dgram_receive. */
MUST_USE int dgram__on_reset(struct dgram *dgram, uint64_t now_us,
                             const struct dgram_arrival *arrival);
/* A datagram under the candidate's keys was opened: they become the active ones. */
void dgram__confirm(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us);
/* Runs what is due for one peer; may drop it. */
void dgram__peer_run(struct dgram *dgram, struct dgram_peer *peer, uint64_t now_us);
/* Drops keys under secrets that are gone; pending hellos start anew. */
void dgram__secrets_changed(struct dgram *dgram);

/* Asserts all invariants; for tests. */
void dgram__check_invariants(const struct dgram *dgram);

#endif
