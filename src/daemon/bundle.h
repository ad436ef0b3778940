/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several messages to one node in one datagram: what a turn of the loop has to say to it. A crowd
 * tells each neighbour of several blobs at a time, and a datagram costs a hundred times what a
 * message in it does. Owns the form; who may be sent bundles is known by session's features, when
 * they leave is mesh_udp.c's.
 *
 * The form: BUNDLE_MARK, then for each message its length (2 bytes, big-endian) and its bytes. One
 * message alone is sent as it is.
 */
#ifndef SHOAL_DAEMON_BUNDLE_H
#define SHOAL_DAEMON_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "limits.h"
#include "types.h"

/* The one byte with which no MessagePack value begins (msgpack specification, "Formats"). */
#define BUNDLE_MARK 0xc1

struct bundle {
    struct peer_addr to;
    uint32_t message_count;
    uint32_t used;
    uint8_t bytes[MESSAGE_BYTES_MAX]; /* mark, lengths, messages */
};

/* Makes an empty bundle for `to`. */
void bundle_begin(struct bundle *bundle, const struct peer_addr *to);
/* Adds a copy of a message of 1..MESSAGE_BYTES_MAX bytes. False: there is no room for it; nothing
 * happened. */
MUST_USE bool bundle_add(struct bundle *bundle, const uint8_t *msg, size_t msg_bytes);
/* What is to be sent, borrowed from the bundle: one message as it is, or all of them with the mark.
 * The bundle is not empty. */
const uint8_t *bundle_bytes(const struct bundle *bundle, size_t *byte_count);

/*
 * Walks what was received, a bundle or a message: *at is 0 before the first call, and counts on. 0
 * with the next message, borrowed; E_CLOSED: there are no more; E_MALFORMED: what is left is no
 * bundle's rest.
 */
MUST_USE int bundle_next(const uint8_t *bytes, size_t byte_count, size_t *at, const uint8_t **msg,
                         size_t *msg_bytes);

#endif
