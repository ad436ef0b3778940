/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Authenticated, encrypted transport between nodes; bytes in, bytes out, no sockets or clocks.
 *
 *   identity   Ed25519 key of a node and its X25519 session key (PEER-1)
 *   admission  who may talk: cluster secrets, deny list (PEER-2, PEER-8)
 *   session    one TCP connection: Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b handshake (Noise rev. 34),
 *              then records of at most 64 KiB sealed through OpenSSL EVP (AES-256-GCM where both
 *              sides offer it, else ChaCha20-Poly1305)
 *   dgram      sealed datagrams with every peer: keyed MAC first, then AEAD, replay window
 *              (DHT-1..3)
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
/* Lookup key for blob_key_of, derived from the first secret and the cluster id. Changes with the
 * first secret: a rotation costs a republication. */
void admission_lookup_key(const struct admission *admission, uint8_t out[32]);
/* True when `key` is on the deny list. Sessions and datagrams ask by themselves, again every 10 s
 * of use; the host closes idle sessions of denied nodes when it re-reads the list (PEER-8). */
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

/* Whether AES-256-GCM is offered, and which library does it here: the same on the wire. */
enum session_aes {
    SESSION_AES_NONE = 0,
    SESSION_AES_OPENSSL,
    SESSION_AES_LIBGCRYPT,
};

struct session_config {
    const struct identity *identity;   /* borrowed for the session's life */
    const struct admission *admission; /* borrowed; may change between calls */
    struct peer_addr self_addr;        /* our mesh address, announced in the handshake */
    struct peer_addr remote;           /* transport address of the other side */
    bool initiator;
    bool allow_any_ip;    /* skip "announced IP = transport IP" (NAT, tests) */
    enum session_aes aes; /* session_choose_aes says which */
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

/*
 * The library that seals records with AES-256-GCM the fastest on this machine; none when that takes
 * over nine tenths of ChaCha20-Poly1305's time, as without AES instructions, or without memory.
 * Costs 24 records of 16 KiB for each of the three, of which the best counts. `clock_ns` never runs
 * backwards.
 */
enum session_aes session_choose_aes(uint64_t (*clock_ns)(void));
/* The cipher's name for logs, with the library if that is not OpenSSL; static. */
const char *session_aes_text(enum session_aes aes);

struct session;
/* 0, E_NO_MEMORY, E_INVALID. An initiator has output at once. */
MUST_USE int session_new(const struct env *env, const struct session_config *config,
                         uint64_t now_us, struct session **out);
/* Wipes and frees; NULL is fine. */
void session_free(struct session *session);
/* What the session waits for. */
enum session_state session_state(const struct session *session);
/* The proven peer, or NULL before SESSION_ESTABLISHED. */
const struct session_peer *session_peer(const struct session *session);
/* Established, and both sides offered AES-256-GCM: records are sealed with it (PEER-6). */
bool session_aes(const struct session *session);
/* Time at which a pending handshake must be given up (session_receive then says E_TIMEOUT, with 0
 * bytes too); UINT64_MAX once established. */
uint64_t session_deadline_us(const struct session *session);

/*
 * Handshake bytes waiting to be sent, borrowed until the next call; *out_bytes 0 if none. The
 * host sends or copies them and calls session_output_sent before the next session_receive, and puts
 * them before any record. Rekeys need no output: they ride on the header of the next record.
 */
const uint8_t *session_output(const struct session *session, size_t *out_bytes);
/* So many bytes of session_output are done with; never more than it gave. */
void session_output_sent(struct session *session, size_t sent_bytes);

/*
 * Takes received bytes. During the handshake consumes what it needs. Once established, opens at
 * most one record IN PLACE: *plain points into `bytes`, *plain_bytes long (0: no whole record yet
 * or a control record). *consumed says how many bytes are done with; the host keeps the rest, puts
 * more behind it and calls again, while *consumed > 0. A record needs RECORD_WIRE_BYTES_MAX room.
 * 0; E_AUTH (not a member, tampered, denied), E_PROTOCOL (bad length), E_MALFORMED, E_VERSION,
 * E_TIMEOUT, E_NO_MEMORY (ciphers, at the end of the handshake), E_INVALID (failed before): close
 * silently. After an error nothing of `bytes` may be used. Costs one AEAD open of the record; no
 * copy, no allocation. An empty record is legal: *consumed > 0 with *plain_bytes 0.
 */
#define RECORD_HEADER_BYTES   4
#define RECORD_TAG_BYTES      16
#define RECORD_WIRE_BYTES_MAX (RECORD_HEADER_BYTES + RECORD_BYTES_MAX + RECORD_TAG_BYTES)
MUST_USE int session_receive(struct session *session, uint64_t now_us, uint8_t *bytes,
                             size_t byte_count, size_t *consumed, const uint8_t **plain,
                             size_t *plain_bytes);
/*
 * The same, but a record that fits into `room`, which is apart from `bytes`, is opened there, and
 * out->plain is its start: whoever collects records needs no copy. A longer one is opened in place.
 * After an error nothing of the room may be used either.
 */
struct session_room {
    uint8_t *bytes; /* NULL: none */
    size_t byte_count;
};
struct session_received {
    size_t consumed;
    const uint8_t *plain; /* NULL: no record */
    size_t plain_bytes;
};
MUST_USE int session_receive_into(struct session *session, uint64_t now_us, uint8_t *bytes,
                                  size_t byte_count, struct session_room room,
                                  struct session_received *out);
/*
 * How many bytes more make a whole record of the kept ones, at which session_receive stopped: until
 * then calling it again is of no use. 0: not known (handshake, or fewer than RECORD_HEADER_BYTES)
 * or nothing is missing. At most RECORD_WIRE_BYTES_MAX.
 */
size_t session_missing(const struct session *session, const uint8_t *bytes, size_t byte_count);

/*
 * Seals one record from up to two spans (header and body), at most RECORD_BYTES_MAX together, into
 * out (capacity >= RECORD_HEADER_BYTES + bytes + RECORD_TAG_BYTES, not overlapping). 0 with
 * *out_bytes, E_INVALID when not established or too large, E_INTERNAL (session failed). Records go
 * out in the order they were sealed.
 */
MUST_USE int session_seal(struct session *session, uint64_t now_us, const uint8_t *head,
                          size_t head_bytes, const uint8_t *body, size_t body_bytes, uint8_t *out,
                          size_t *out_bytes);

/* ---- dgram: sealed datagrams with every peer ----------------------------------------------- */

/*
 * One object per node. The first datagram to an address starts a hello exchange (X25519 of both
 * nodes' signed session keys, mixed with the cluster secret); messages wait in a small queue (16
 * per peer, oldest dropped) until it is done. A hello is answered with no more bytes than it had
 * (DHT-2). Keys are cached per peer: about 600 B each, least recently used dropped at MEMBERS_MAX.
 * A peer that lost its keys (a restart) says so when it is written to, in fewer bytes than it got;
 * a hello follows at once, and only what was under way meanwhile is lost.
 */
struct dgram_config {
    const struct identity *identity;
    const struct admission *admission; /* borrowed; may change between calls */
    struct peer_addr self_addr;
    bool allow_any_ip;
};
struct dgram;
/* 0, E_NO_MEMORY, E_INVALID. About 100 KiB. */
MUST_USE int dgram_new(const struct env *env, const struct dgram_config *config, uint64_t now_us,
                       struct dgram **out);
/* Wipes and frees; NULL is fine. */
void dgram_free(struct dgram *dgram);

/* Seals `msg` (1..MESSAGE_BYTES_MAX bytes, copied) for `to` or queues it behind a hello. 0,
 * E_TOO_LARGE, E_FULL (output not drained, or too many wait), E_NO_MEMORY, E_INVALID (empty, port
 * 0, ourselves). */
MUST_USE int dgram_send(struct dgram *dgram, uint64_t now_us, const struct peer_addr *to,
                        const uint8_t *msg, size_t msg_bytes);

/*
 * Takes one datagram. 0 with *plain_bytes > 0: a message of at most MESSAGE_BYTES_MAX was written
 * to `plain` and its sender to *from. 0 with *plain_bytes 0: a hello, nothing for the caller.
 * E_AUTH, E_REPLAY, E_MALFORMED, E_DENIED, E_VERSION, E_NOT_FOUND (keys not known here: the sender
 * is told), E_FULL (too many hellos), E_NO_MEMORY: drop silently; dgram_stats counts. An outsider
 * costs one keyed hash for each valid secret.
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

/* Counters since dgram_new, but for `peers`, which is the number of peers now. */
struct dgram_stats {
    uint64_t sent;           /* messages, keep-alives included */
    uint64_t received;       /* the same */
    uint64_t exchanges;      /* hello exchanges completed */
    uint64_t hellos_sent;    /* retries included */
    uint64_t hellos_failed;  /* given up after four tries */
    uint64_t hellos_limited; /* received, over 1,000/s: dropped */
    uint64_t acks_sent;
    uint64_t resets_sent; /* "your keys are not known here" */
    uint64_t resets_received;
    uint64_t queue_dropped; /* messages behind a hello that did not come about */
    uint64_t output_full;   /* datagrams lost because the host did not drain */
    uint64_t peers_evicted; /* least recently used, at the maximum */
    uint64_t outsiders;     /* no MAC of ours */
    uint64_t refused;       /* a MAC of ours, but not authentic */
    uint64_t replayed;
    uint64_t unknown_index;
    uint64_t denied;
    uint64_t malformed;
    uint64_t peers;
};
/* True if a datagram sent to this mesh address now may hold a bundle of messages: keys are there,
 * and who proved to be there said so. What a bundle is, the host knows. */
bool dgram_takes_bundles(const struct dgram *dgram, const struct peer_addr *to);
/* Copies the counters. */
void dgram_stats(const struct dgram *dgram, struct dgram_stats *out);

/* Hello retries (250 ms, doubling, 4 tries, then the queue is dropped) and expiry. Bounded work:
 * the deadline may still be due afterwards. */
void dgram_advance(struct dgram *dgram, uint64_t now_us);
/* Earliest time at which dgram_advance has something to do; UINT64_MAX if none. */
uint64_t dgram_deadline_us(const struct dgram *dgram);

#endif
