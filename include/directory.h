/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory: what is the same whoever looks at it. Places (a mesh address and the node id that
 * follows from it), records (what a member says of itself at one incarnation) and topologies, each
 * kept once, counted, and named by a small number. Cores hold numbers and what they themselves
 * think of a member; the three cores of a node share one directory, and all nodes of a simulation
 * may share one too, which is what lets 10,000 full views fit in one process. Contents are found by
 * what they are, so a lie about a member is another record and never changes a true one.
 *
 * Not a core: it has no time and sends nothing. Memory through env->alloc. One thread.
 */
#ifndef SHOAL_DIRECTORY_H
#define SHOAL_DIRECTORY_H

#include "env.h"
#include "err.h"
#include "member.h"
#include "types.h"

/* No place has this number; numbers are given out from 0 on and used again. */
#define PLACE_NONE UINT16_MAX
/* Places at most: every number but PLACE_NONE. Four times MEMBERS_MAX: simulated nodes that share a
 * directory know the same members, an agent's own holds its members alone. */
#define PLACES_MAX UINT16_MAX
/* No record has this number. */
#define RECORD_NONE 0

struct directory;

/* What a member says of itself, as it is kept; only the directory writes it. */
struct directory_record {
    struct identity_key key;
    uint64_t incarnation;
    uint32_t holds; /* 0: free */
    uint32_t next;  /* the directory's own chain */
    uint16_t place;
    uint16_t topology; /* number, for directory_topology */
    uint16_t version_minor;
    uint8_t capacity_class;
    uint8_t load;
};

/* Makes an empty directory for one cluster; `cluster_id` is copied, `env` too (its alloc is used
 * until the last put). `seed` keys the hashes, so that nobody can choose addresses that collide.
 * One reference. 0 or E_NO_MEMORY. */
MUST_USE int directory_new(const struct env *env, const char *cluster_id, uint64_t seed,
                           struct directory **out);
/* One more reference; returns its argument. */
struct directory *directory_get(struct directory *directory);
/* One reference less; the last frees everything. NULL is fine. */
void directory_put(struct directory *directory);

/* ---- places ---- */

/* Number of an address or id; PLACE_NONE if nobody holds it. */
uint16_t directory_find(const struct directory *directory, const struct peer_addr *addr);
uint16_t directory_find_id(const struct directory *directory, const struct node_id *id);
/* Holds the place of an address once more, making it if needed; the id is computed (PEER-4). 0 with
 * *place, E_FULL, E_NO_MEMORY. */
MUST_USE int directory_hold(struct directory *directory, const struct peer_addr *addr,
                            uint16_t *place);
/* The same for a member whose id is known and was proven: nothing is hashed. E_INVALID if that id
 * is held at another address. */
MUST_USE int directory_hold_as(struct directory *directory, const struct node_id *id,
                               const struct peer_addr *addr, uint16_t *place);
/* One hold less; the last frees the number. No record may be of this place then. */
void directory_drop(struct directory *directory, uint16_t place);
/* Borrowed until the next call that holds or drops. The place must be held. */
const struct node_id *directory_id(const struct directory *directory, uint16_t place);
const struct peer_addr *directory_addr(const struct directory *directory, uint16_t place);
/* First 8 bytes of the id as a number. */
uint64_t directory_prefix(const struct directory *directory, uint16_t place);
/* All places in order of id: how many, and the one at a position below that. */
uint32_t directory_count(const struct directory *directory);
uint16_t directory_at(const struct directory *directory, uint32_t position);
/* Every number given out so far is below this. */
uint32_t directory_bound(const struct directory *directory);

/* ---- records ---- */

/*
 * Lets *record (RECORD_NONE, or held) name what `member` says of itself; address, id and state are
 * not looked at. Records of equal contents are one; the only holder of a record has it changed in
 * place. 0; E_NO_MEMORY, E_FULL: *record is as it was. Cannot fail for the only holder of a record
 * whose topology stays.
 */
MUST_USE int directory_record_set(struct directory *directory, uint32_t *record, uint16_t place,
                                  const struct member *member);
/* One more holder of a record; returns its argument. */
uint32_t directory_record_hold(struct directory *directory, uint32_t record);
/* One holder less. RECORD_NONE is fine. */
void directory_record_drop(struct directory *directory, uint32_t record);
/* Borrowed until the next call that sets or drops a record. */
const struct directory_record *directory_record(const struct directory *directory, uint32_t record);
/* The whole member but for its state, which is `state`. */
void directory_member(const struct directory *directory, uint32_t record, enum member_state state,
                      struct member *out);

/* ---- topologies ---- */

/* Holds the number of these labels once more. 0 with *number, E_FULL, E_NO_MEMORY. */
MUST_USE int directory_topology_hold(struct directory *directory, const struct topology *labels,
                                     uint16_t *number);
void directory_topology_drop(struct directory *directory, uint16_t number);
/* Borrowed until the next call that holds or drops one. */
const struct topology *directory_topology(const struct directory *directory, uint16_t number);

/* Aborts if an invariant is broken. O(N log N). */
void directory__check_invariants(const struct directory *directory);

#endif
