/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Authenticated, encrypted transport between nodes; bytes in, bytes out, no sockets or clocks.
 *
 *   identity   Ed25519 key of a node and its X25519 session key (PEER-1)
 *   admission  who may talk: cluster secrets, deny list (PEER-2, PEER-8)
 *   session    one TCP connection: Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b handshake (Noise rev. 34),
 *              then records of at most 64 KiB sealed with ChaCha20-Poly1305 through OpenSSL EVP
 *   dgram      sealed datagrams with every peer: keyed MAC first, then AEAD, replay window
 * (DHT-1..3)
 *
 * Handshake, identities and datagrams use libsodium; only the bulk cipher is OpenSSL's. Outsiders
 * get no byte back: an error from session_receive before the handshake is done means "close
 * without a word".
 */
#ifndef SHOAL_SESSION_H
#define SHOAL_SESSION_H

#include "env.h"
#include "err.h"
#include "types.h"

/* ---- identity ---------------------------------------------------------------------------- */

struct identity {
    struct identity_key public_key; /* Ed25519 */
    uint8_t secret_key[64];         /* Ed25519 secret, libsodium's form */
    uint8_t static_public[32];      /* X25519 */
    uint8_t static_secret[32];
    uint8_t static_signature[64]; /* Ed25519 over "shoal static" || static_public */
};

/* New identity from env->random (seeded calls only, so a simulation can be replayed). */
void identity_generate(const struct env *env, struct identity *out);
/* File form: versioned, checksummed, IDENTITY_FILE_BYTES long. */
#define IDENTITY_FILE_BYTES 160
void identity_encode(const struct identity *identity, uint8_t out[IDENTITY_FILE_BYTES]);
/* 0, E_MALFORMED (length, checksum, keys that do not belong together), E_VERSION. */
MUST_USE int identity_decode(const uint8_t *bytes, size_t byte_count, struct identity *out);
/* Wipes the secrets. */
void identity_close(struct identity *identity);

/* Signs what a node read from the origin (INT-6): fills signer_key and signature; the rest of
 * `voucher` is given. 19 us. */
void voucher_sign(const struct identity *identity, const struct blob_key *blob,
                  struct voucher *voucher);
/* 0, or E_VOUCHER when the signature does not belong to signer_key, blob and content. 41 us. */
MUST_USE int voucher_verify(const struct blob_key *blob, const struct voucher *voucher);

/* ---- admission --------------------------------------------------------------------------- */

#define CLUSTER_SECRET_BYTES 32
#define CLUSTER_ID_BYTES_MAX 63
#define CLUSTER_SECRETS_MAX  2
#define DENIED_MAX           1024

struct admission {
    char cluster_id[CLUSTER_ID_BYTES_MAX + 1];
    /* secrets[0] is used to start; all are accepted, so a rotation loses nobody (PEER-8). */
    uint8_t secrets[CLUSTER_SECRETS_MAX][CLUSTER_SECRET_BYTES];
    unsigned secret_count; /* 1..CLUSTER_SECRETS_MAX */
    struct identity_key denied[DENIED_MAX];
    unsigned denied_count;
};
/* Lookup key for blob_key_of, derived from the first secret and the cluster id. */
void admission_lookup_key(const struct admission *admission, uint8_t out[32]);
bool admission_denied(const struct admission *admission, const struct identity_key *key);

/* Who the other side proved to be. */
struct session_peer {
    struct node_id id; /* node_id_of(cluster id, addr) */
    struct identity_key key;
    struct peer_addr
        addr; /* mesh address it announced; its IP equals the transport's unless allow_any_ip */
    uint16_t version_minor;
};

/* ---- session: one TCP connection ---------------------------------------------------------- */

struct session_config {
    const struct identity *identity;   /* borrowed for the session's life */
    const struct admission *admission; /* borrowed; may change between calls */
    struct peer_addr self_addr;        /* our mesh address, announced in the handshake */
    struct peer_addr remote;           /* transport address of the other side */
    bool initiator;
    bool allow_any_ip;    /* skip "announced IP = transport IP" (NAT, tests) */
    uint64_t rekey_bytes; /* 0: 64 GiB (PEER-6) */
    uint64_t rekey_us;    /* 0: 1 h */
};

enum session_state {
    SESSION_UNUSED = 0,
    SESSION_HANDSHAKE,   /* waits for the peer's next message; ends by it, an error, or the deadline
                            (3 s) */
    SESSION_ESTABLISHED, /* records flow both ways; ends by session_free or an error */
    SESSION_FAILED,      /* an error was returned; only session_free is allowed */
};

struct session;
/* 0, E_NO_MEMORY, E_INVALID. An initiator has output at once. */
MUST_USE int session_new(const struct env *env, const struct session_config *config,
                         uint64_t now_us, struct session **out);
void session_free(struct session *session);
enum session_state session_state(const struct session *session);
/* The proven peer, or NULL before SESSION_ESTABLISHED. */
const struct session_peer *session_peer(const struct session *session);
/* Time at which a pending handshake must be given up, or a rekey is due; UINT64_MAX if none. */
uint64_t session_deadline_us(const struct session *session);

/*
 * Handshake bytes waiting to be sent, borrowed until the next call; *out_bytes 0 if none. The
 * host sends them and calls session_output_sent. Also carries rekey notices.
 */
const uint8_t *session_output(const struct session *session, size_t *out_bytes);
void session_output_sent(struct session *session, size_t sent_bytes);

/*
 * Takes received bytes. During the handshake consumes what it needs. Once established, opens at
 * most one record IN PLACE: *plain points into `bytes`, *plain_bytes long (0: no whole record yet
 * or a control record). *consumed says how many bytes are done with; the host keeps the rest, puts
 * more behind it and calls again, while *consumed > 0. A record needs RECORD_WIRE_BYTES_MAX room.
 * 0; E_AUTH (not a member, tampered, denied), E_PROTOCOL (bad length), E_VERSION, E_TIMEOUT: close
 * silently. Costs one AEAD open of the record; no copy, no allocation.
 */
#define RECORD_HEADER_BYTES   4
#define RECORD_TAG_BYTES      16
#define RECORD_WIRE_BYTES_MAX (RECORD_HEADER_BYTES + RECORD_BYTES_MAX + RECORD_TAG_BYTES)
MUST_USE int session_receive(struct session *session, uint64_t now_us, uint8_t *bytes,
                             size_t byte_count, size_t *consumed, const uint8_t **plain,
                             size_t *plain_bytes);

/*
 * Seals one record from up to two spans (header and body), at most RECORD_BYTES_MAX together, into
 * out (capacity >= RECORD_HEADER_BYTES + bytes + RECORD_TAG_BYTES, not overlapping). 0 with
 * *out_bytes, E_INVALID when not established or too large.
 */
MUST_USE int session_seal(struct session *session, uint64_t now_us, const uint8_t *head,
                          size_t head_bytes, const uint8_t *body, size_t body_bytes, uint8_t *out,
                          size_t *out_bytes);

/* ---- dgram: sealed datagrams with every peer ----------------------------------------------- */

/*
 * One object per node. The first datagram to an address starts a hello exchange (X25519 of both
 * nodes' signed session keys, mixed with the cluster secret); messages wait in a small queue (16
 * per peer, oldest dropped) until it is done. A hello is answered with no more bytes than it had
 * (DHT-2). Keys are cached per peer: 256 B each, least recently used dropped at MEMBERS_MAX.
 */
struct dgram_config {
    const struct identity *identity;
    const struct admission *admission; /* borrowed; may change between calls */
    struct peer_addr self_addr;
    bool allow_any_ip;
};
struct dgram;
MUST_USE int dgram_new(const struct env *env, const struct dgram_config *config, uint64_t now_us,
                       struct dgram **out);
void dgram_free(struct dgram *dgram);

/* Seals `msg` (<= MESSAGE_BYTES_MAX) for `to` or queues it behind a hello. 0, E_TOO_LARGE, E_FULL,
 * E_NO_MEMORY. */
MUST_USE int dgram_send(struct dgram *dgram, uint64_t now_us, const struct peer_addr *to,
                        const uint8_t *msg, size_t msg_bytes);

/*
 * Takes one datagram. 0 with *plain_bytes > 0: a message of at most MESSAGE_BYTES_MAX was written
 * to `plain` and its sender to *from. 0 with *plain_bytes 0: a hello, nothing for the caller.
 * E_AUTH, E_REPLAY, E_MALFORMED, E_DENIED: drop silently and count. An outsider costs one keyed
 * hash.
 */
MUST_USE int dgram_receive(struct dgram *dgram, uint64_t now_us, const struct peer_addr *transport,
                           const uint8_t *bytes, size_t byte_count,
                           uint8_t plain[MESSAGE_BYTES_MAX], size_t *plain_bytes,
                           struct session_peer *from);

/* Next datagram to put on the socket, borrowed until the next call on this object; false if none.
 * Drain after every call. */
struct dgram_packet {
    struct peer_addr to;
    const uint8_t *bytes;
    size_t byte_count;
};
bool dgram_next_output(struct dgram *dgram, struct dgram_packet *out);
/* Hello retries (250 ms, doubling, 4 tries, then the queue is dropped) and expiry. */
void dgram_advance(struct dgram *dgram, uint64_t now_us);
uint64_t dgram_deadline_us(const struct dgram *dgram);

#endif
