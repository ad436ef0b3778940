/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of the DHT (0x20..0x2f): plain structs with bounded arrays, encoded and decoded over
 * wire.h. Nodes travel as addresses only: a node id is the hash of its address (PEER-4), so an id
 * on the wire could only be redundant or a lie. Ids and distances are the receiver's own sums.
 *
 *   PING / PONG                    is this address a live node? The echoed id proves the address
 *   FIND_NODE, FIND_PROVIDERS      answered by FOUND: providers of the key and nodes nearer to it
 *   ADD_PROVIDER                   answered by ADDED: the sender holds (ttl 0: no longer holds) it
 *
 * Every message's second field is the request id, chosen by the asker and echoed in the answer.
 * Requests carry padding, so that an answer never needs to be larger than its request (DHT-2).
 */
#ifndef SHOAL_WIRE_DHT_H
#define SHOAL_WIRE_DHT_H

#include "wire.h"

enum wire_dht_type {
    WIRE_DHT_PING = WIRE_DHT_FIRST,
    WIRE_DHT_PONG,
    WIRE_DHT_FIND_NODE,
    WIRE_DHT_FIND_PROVIDERS,
    WIRE_DHT_FOUND,
    WIRE_DHT_ADD_PROVIDER,
    WIRE_DHT_ADDED,
};

/* Nodes in one FOUND: k is 20 and at most 32. */
#define WIRE_DHT_NODES_MAX 32
/* Providers in one FOUND: three times what ends a lookup; with labels they still fit a datagram. */
#define WIRE_DHT_PROVIDERS_MAX 24
/* Distinct topologies of these providers, sent once each. */
#define WIRE_DHT_TOPOLOGIES_MAX 12
/* Sequence numbers stay below this, so that adding to one cannot overflow (DHT-7). */
#define WIRE_DHT_SEQUENCE_MAX (1ULL << 62)

/* PING and PONG. */
struct wire_dht_ping {
    uint64_t request_id;
    size_t pad_to; /* the message is padded with zeros to this many bytes if it is shorter; after
                      decoding: its length */
};

/* FIND_NODE and FIND_PROVIDERS. */
struct wire_dht_find {
    uint64_t request_id;
    uint8_t key[BLOB_KEY_BYTES]; /* blob key, or any place in id space */
    uint8_t nodes_max;           /* how many nodes the asker wants back, 0..WIRE_DHT_NODES_MAX */
    struct topology topology;    /* of the asker: answers prefer what is near; empty is fine */
    size_t pad_to;               /* as in wire_dht_ping */
};

struct wire_dht_provider {
    struct peer_addr addr;
    uint8_t topology_index; /* into wire_dht_found.topologies */
    uint8_t completeness;   /* 255: all of it */
};

/* FOUND: answer to both FIND messages. */
struct wire_dht_found {
    uint64_t request_id;
    uint8_t key[BLOB_KEY_BYTES];
    size_t topology_count, provider_count, node_count;
    struct topology topologies[WIRE_DHT_TOPOLOGIES_MAX];
    struct wire_dht_provider providers[WIRE_DHT_PROVIDERS_MAX];
    struct peer_addr nodes[WIRE_DHT_NODES_MAX]; /* all have answered the sender (DHT-5) */
};

/* ADD_PROVIDER. */
struct wire_dht_add {
    uint64_t request_id;
    uint8_t key[BLOB_KEY_BYTES];
    struct peer_addr addr; /* must be the sender's own (DHT-4) */
    struct topology topology;
    uint8_t completeness;
    uint64_t sequence; /* grows with each announcement; below WIRE_DHT_SEQUENCE_MAX */
    uint32_t ttl_ms;   /* from arrival; 0 withdraws the record */
};

enum wire_dht_status {
    WIRE_DHT_STORED = 1, /* kept, or withdrawn as asked */
    WIRE_DHT_FULL,       /* enough others are kept for this key, or a limit was reached */
    WIRE_DHT_STALE,      /* a record with a higher sequence number is kept; that number is sent */
};

/* ADDED: answer to ADD_PROVIDER, always shorter than it. */
struct wire_dht_added {
    uint64_t request_id;
    uint8_t key[BLOB_KEY_BYTES];
    uint8_t status;    /* enum wire_dht_status; other values are a newer peer's */
    uint64_t sequence; /* of the record kept */
};

/*
 * Encoders write one message into out[capacity] and its length into *used. 0, or E_TOO_LARGE when
 * it does not fit; counts above the maxima are our bug (ASSERT). Decoders fill `out` from a whole
 * message of that type: 0, E_MALFORMED, E_TRUNCATED or E_TOO_LARGE, `out` then undefined. Nothing
 * is borrowed or allocated.
 */
MUST_USE int wire_dht_encode_ping(const struct wire_dht_ping *message, bool pong, uint8_t *out,
                                  size_t capacity, size_t *used);
MUST_USE int wire_dht_decode_ping(const uint8_t *msg, size_t msg_bytes, struct wire_dht_ping *out);
MUST_USE int wire_dht_encode_find(const struct wire_dht_find *message, bool providers, uint8_t *out,
                                  size_t capacity, size_t *used);
MUST_USE int wire_dht_decode_find(const uint8_t *msg, size_t msg_bytes, struct wire_dht_find *out);
MUST_USE int wire_dht_encode_found(const struct wire_dht_found *message, uint8_t *out,
                                   size_t capacity, size_t *used);
MUST_USE int wire_dht_decode_found(const uint8_t *msg, size_t msg_bytes,
                                   struct wire_dht_found *out);
MUST_USE int wire_dht_encode_add(const struct wire_dht_add *message, uint8_t *out, size_t capacity,
                                 size_t *used);
MUST_USE int wire_dht_decode_add(const uint8_t *msg, size_t msg_bytes, struct wire_dht_add *out);
MUST_USE int wire_dht_encode_added(const struct wire_dht_added *message, uint8_t *out,
                                   size_t capacity, size_t *used);
MUST_USE int wire_dht_decode_added(const uint8_t *msg, size_t msg_bytes,
                                   struct wire_dht_added *out);

/*
 * Upper bounds for filling a FOUND up to a budget without encoding it again and again: an empty
 * one, what one node adds, one topology, one provider. A test compares them with the encoder.
 */
#define WIRE_DHT_FOUND_BYTES 56
/* Encoded size of an address. */
size_t wire_dht_addr_bytes(const struct peer_addr *addr);
/* Upper bound of the encoded size of a topology. */
size_t wire_dht_topology_bytes(const struct topology *topology);
/* Upper bound of what a provider at this address adds, its topology apart. */
size_t wire_dht_provider_bytes(const struct peer_addr *addr);

#endif
