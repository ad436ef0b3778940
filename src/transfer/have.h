/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What neighbours have, as HELLO and HAVE tell it, and what they are told of us (have.c).
 *
 * Costs: a page of news is compared with what is known eight bytes at a time, and only what changed
 * is counted. Telling costs a message per neighbour and page that changed; how many may be sent is
 * earned by pieces that came.
 */
#ifndef SHOAL_TRANSFER_HAVE_H
#define SHOAL_TRANSFER_HAVE_H

#include "blob.h"

/* Between two HAVE on change to the same neighbour, at least. */
#define HAVE_MIN_US (5 * MS)

/* Whether what it has counts as available (swarm.avail). */
void transfer__neighbour_useful(struct swarm *swarm, struct neighbour *neighbour, bool useful);
/* A keeper or the node itself says that it has this piece. */
void transfer__neighbour_has(struct swarm *swarm, uint16_t node, uint32_t piece);
/* It says that it does not, whatever it announced. */
void transfer__neighbour_lacks(struct swarm *swarm, uint16_t node, uint32_t piece);
/* Takes a page of its bitfield and its hints, from a HELLO or HAVE that is news. */
void transfer__have_take(struct transfer *transfer, struct blob *blob, struct neighbour *neighbour,
                         const struct wire_have *have);

/* Pages of our own bitfield, at least one. */
uint32_t transfer__have_pages(const struct blob *blob);
/* Sends one page, in a HELLO to whom was greeted or as a reply (WIRE_HAVE_REPLY), else in a HAVE.
 * `flags`: WIRE_HAVE_*, those that follow from the state are added. */
void transfer__have_send(struct transfer *transfer, struct blob *blob, struct neighbour *neighbour,
                         uint8_t flags, uint32_t page);
/* All pages from `first_page` on; a HELLO carries the first. */
void transfer__have_send_pages(struct transfer *transfer, struct blob *blob,
                               struct neighbour *neighbour, uint32_t first_page);

/* A piece came: its news is due, and more messages may be spent on such. */
void transfer__have_earn(struct blob *blob);
/* Sends HAVE to those who lack it, if due. True if there was anything to send. */
bool transfer__have_flush(struct transfer *transfer, struct blob *blob);
/* Sends what is due before long, as another blob's HAVE leave now: the host puts messages of one
 * moment to one node into one datagram. */
void transfer__have_along(struct transfer *transfer, struct blob *blob);

#endif
