/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who lied about a blob whose bytes did not match its digest (INT-7), decided on what is proven.
 *
 * While the blob is read again from the registry, vouchers for other bytes than the registry now
 * gives make their signers suspects. Only the whole digest shows who was right: if it matches, the
 * suspects' hashes were false; if not, it is the registry that gives wrong bytes, and the vouchers
 * may have been true. If our own reading of before was false too, the registry is known to give
 * different bytes at different times, and others may have signed honestly what it gave them.
 */
#ifndef SHOAL_DAEMON_BLOB_BLAME_H
#define SHOAL_DAEMON_BLOB_BLAME_H

#include "types.h"

/* Different signers of one blob's false pieces. With more liars than this at once, each further
 * mismatch finds the next ones. */
#define BLOB_SUSPECTS_MAX 16

struct blob_blame {
    struct node_id suspects[BLOB_SUSPECTS_MAX];
    uint32_t suspect_count;
    bool registry_lied; /* to us, about this blob: nobody is blamed for its bytes any more */
};

/* `signer` vouched for other bytes than the registry gave just now. `self`: it was this node. */
void blob_blame_note(struct blob_blame *blame, const struct node_id *signer, bool self);
/* Everything was read again. Writes the proven liars (at most BLOB_SUSPECTS_MAX) and returns how
 * many there are; none if the digest did not match or the registry lied. No suspect is left. */
uint32_t blob_blame_settle(struct blob_blame *blame, bool digest_matched,
                           struct node_id liars[BLOB_SUSPECTS_MAX]);
/* The reading broke off: nothing is proven. */
void blob_blame_clear(struct blob_blame *blame);

#endif
