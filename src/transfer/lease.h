/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases: who brings a segment into a zone and into the mesh (ALGORITHMS §3.3).
 *
 *   lease.c         our side: states, questions, and how leases end
 *   lease_answer.c  what keepers answer, and imports
 *   lease_time.c    repetition, patience, renewal
 *   ask.c           which segments to ask for, how many at a time
 *   missing.c       what of a segment is to be brought in
 *   run.c           reads from the origin and imports
 *   fallback.c      reads without a lease, when the mesh gives nothing
 *   desk.c          keeper of a zone: one lessee per segment, then who holds it
 *   home.c          keeper for the mesh: which zone reads the origin, which imports from which
 *
 * A pull asks its zone's keeper (WANT, level 0). If the segment is to be had in the zone, that one
 * refers to a holder or names who is at it; else it makes the asker the zone's importer and hands
 * the WANT on to the home keeper (level 1), which lets it read the origin, refers it to a holder in
 * another zone or to the node that is bringing it in there, whose pieces it gets as they come, or
 * lets it wait for one. Who has the segment tells both keepers (HOLD).
 */
#ifndef SHOAL_TRANSFER_LEASE_H
#define SHOAL_TRANSFER_LEASE_H

#include "blob.h"

#define LEASES_MAX 256
#define RETRY_US   (100 * MS) /* until a question is repeated; then 150 ms */
/* A segment another is at is not asked for again before the keeper said; at least: */
#define PENDING_MIN_MS 50

enum lease_state {
    LEASE_ASKING = 1, /* the zone keeper; ends by its answer or the silence of all */
    LEASE_HOME,       /* the zone's lease is ours; the home keeper decides */
    LEASE_WAITING,    /* another zone brings it in; ends by REFER, or asked again */
    LEASE_GRANTED,    /* the origin may be read; waits to be part of a run */
    LEASE_FETCHING,   /* being read; ends by fetch_end */
    LEASE_IMPORTING,  /* being had from a holder in another zone */
    LEASE_HELD,       /* here; keepers are told until they say so */
    LEASE_STATE_COUNT,
};

struct fetch {
    struct fetch *next, *prev;
    uint64_t id;
    struct blob *blob; /* NULL: closed meanwhile, only the end is awaited */
    uint32_t first, count;
    enum fetch_reason reason;
    bool cancelled;
    bool ended; /* well, but a piece is still being verified */
    uint64_t started_us, progress_us;
    uint64_t bytes;
};

struct lease {
    struct lease *next, *prev;
    struct blob *blob;
    uint32_t segment;
    enum lease_state state;
    enum fetch_reason reason;
    enum transfer_copies copies; /* of the blob when it was asked for */
    bool keeperless;             /* nobody granted it: no RENEW, HOLD, RETURN */
    bool failed;                 /* a piece of it came wrong */
    bool zone_told, home_told;
    uint8_t zone_rank, home_rank; /* whom we ask */
    uint8_t tries;                /* of what is being repeated now */
    uint16_t zone_keeper, home_keeper;
    uint16_t holder;  /* IMPORTING: from */
    uint8_t refusals; /* useless referrals so far */
    bool by_record;   /* IMPORTING: a provider record named the holder */
    bool whole;       /* IMPORTING: all of the segment, not only what ranges want */
    uint32_t zone_epoch, home_epoch;
    uint64_t asked_us;   /* first WANT */
    uint64_t rank_us;    /* asking this rank since */
    uint64_t due_us;     /* next repetition */
    uint64_t granted_us; /* may read or import since */
    uint64_t renewed_us;
    uint64_t moved_us;   /* IMPORTING: last piece */
    uint64_t give_up_us; /* asked no longer than this before reading without a lease */
    struct fetch *fetch;
};

/* ---- lease.c, lease_answer.c, lease_time.c ---- */

/* This node's lease of a segment, asked for or held; NULL if there is none. */
struct lease *transfer__lease_find(const struct transfer *transfer, const struct blob *blob,
                                   uint32_t segment);
/* Asks for a segment; what nobody need be asked for (alone, repair) is granted at once. False
 * without memory or room. */
bool transfer__lease_ask(struct transfer *transfer, struct blob *blob, uint32_t segment);
/* Makes a lease nobody granted, for `reason`, or turns one that is being asked for into one. */
bool transfer__lease_take(struct transfer *transfer, struct blob *blob, uint32_t segment,
                          enum fetch_reason reason);
/* The one place where a lease changes state; checks the move. */
void transfer__lease_move(struct lease *lease, enum lease_state state);
bool transfer__lease_move_allowed(enum lease_state from, enum lease_state to);
/* Gives a lease up; keepers are told, and that they should let pause_ms pass. */
void transfer__lease_drop(struct transfer *transfer, struct lease *lease, uint32_t pause_ms);
/* It did not come: `status` counts against the segment unless 0. */
void transfer__lease_fail(struct transfer *transfer, struct lease *lease, int status);
/* A piece came (0) or failed: a lease on it may be done. */
void transfer__lease_piece(struct transfer *transfer, struct blob *blob, uint32_t piece,
                           const struct piece_source *source, int status);
/* A request for an import came to nothing. */
void transfer__import_failed(struct transfer *transfer, struct blob *blob, uint32_t piece,
                             uint16_t node);
/* The holder has too much to do: it is asked again in wait_us, but within a second: that is its
 * word alone. */
void transfer__import_later(struct transfer *transfer, struct blob *blob, uint32_t piece,
                            uint32_t wait_us);
/* Leases of a blob that is being closed (and their fetches), or whose readers are gone. */
void transfer__leases_end(struct transfer *transfer, struct blob *blob);
void transfer__leases_unwanted(struct transfer *transfer, struct blob *blob);
void transfer__leases_forget(struct transfer *transfer, uint16_t node);
/* This node leaves: keepers get all of them back. Reads that run go on for clients of this node, as
 * nobody's lease; without one they are cancelled. May send. */
void transfer__leases_hand_back(struct transfer *transfer);
/* A keeper died or leaves: who takes its place is asked, and told of what it granted. */
void transfer__leases_keeper_gone(struct transfer *transfer, uint16_t node);
/* It turned out not to answer: what it was asked for as keeper, the next one is asked at once. */
void transfer__leases_silent(struct transfer *transfer, uint16_t node);
void transfer__leases_tick(struct transfer *transfer);
uint64_t transfer__leases_deadline(const struct transfer *transfer);
/* Answers, and answers of ourselves as keeper. */
void transfer__on_grant(struct transfer *transfer, uint16_t from, const struct wire_lease *answer);
void transfer__on_pending(struct transfer *transfer, uint16_t from,
                          const struct wire_lease *answer);
void transfer__on_refer(struct transfer *transfer, uint16_t from, const struct wire_lease *answer);
void transfer__on_held(struct transfer *transfer, uint16_t from, const struct wire_lease *answer);

/* For lease_answer.c and lease_time.c. Waits for a keeper's answer. */
static inline bool lease_is_asked(const struct lease *lease)
{
    return lease->state <= LEASE_WAITING;
}

/* Its pieces are (not) asked of others. */
void transfer__lease_mark(struct lease *lease, bool leased);
/* Forgets it without a word to its keepers. */
void transfer__lease_remove(struct transfer *transfer, struct lease *lease);
/* The zone that it is for. */
uint64_t transfer__lease_zone_id(struct transfer *transfer, const struct lease *lease);
/* Keeper of `rank` for it at a level; NODE_NONE if there are none at all. */
uint16_t transfer__lease_keeper(struct transfer *transfer, const struct lease *lease, uint8_t level,
                                uint8_t rank);
/* Asks the keeper whose turn it is; tells both keepers that the segment is here. */
void transfer__lease_want(struct transfer *transfer, struct lease *lease);
void transfer__lease_hold(struct transfer *transfer, struct lease *lease);
/* A span from now, as the swarm notes when a segment may be asked for again. */
uint32_t transfer__lease_retry_ms(const struct transfer *transfer, const struct swarm *swarm,
                                  uint64_t ms);

/* ---- ask.c ---- */

/* Asks for new leases and begins to read what was granted. */
void transfer__leases_pump(struct transfer *transfer);
/* Neighbours of a blob changed: grants that waited for them may go on. */
void transfer__lease_neighbour(struct transfer *transfer, struct blob *blob);
/* Learns from how a lease went: budget, mean, whether this node is too slow to take any. */
void transfer__lease_done(struct transfer *transfer, struct lease *lease);
/* A question was answered by "another has it". */
void transfer__lease_contended(struct transfer *transfer, struct blob *blob);
/* Nobody else pulls it, as far as is known: leases may be taken in long runs. */
bool transfer__is_solo(struct transfer *transfer, const struct blob *blob);
/* Neighbours that pull; costs a look at each. */
uint32_t transfer__wanting(const struct swarm *swarm);
/* Our best rate is far from what others reach. */
bool transfer__is_slow_node(const struct swarm *swarm);
/* Asks for none for a while, longer each time. */
void transfer__leases_pause(struct transfer *transfer);

/* ---- missing.c ---- */

/* Nothing of it can be had here and now: first piece of a segment that is missing and not under way
 * except by a lease. */
bool transfer__segment_missing(const struct blob *blob, uint32_t segment, uint32_t *first,
                               uint32_t *last);
/* What this lease is still to bring in, between *first and *last: of a segment that somebody reads
 * on through all that is missing, else the first run of pieces that ranges want; of a read that
 * runs, what it has not brought yet. False: nothing. */
bool transfer__lease_missing(const struct transfer *transfer, const struct lease *lease,
                             uint32_t *first, uint32_t *last);
/* Somebody reads on through this segment, so all of it is brought in. Costs a look at each reader.
 */
bool transfer__is_read_whole(const struct transfer *transfer, const struct blob *blob,
                             uint32_t segment);
/* A range reader wants it, and it is not here. */
bool transfer__is_wanted(const struct blob *blob, uint32_t piece);
/* What is to be read of a granted segment, between *first and *last; false: nothing. Of what ranges
 * want, neighbours may have a part by now. */
bool transfer__segment_due(const struct transfer *transfer, const struct lease *lease,
                           uint32_t *first, uint32_t *last);

/* ---- run.c ---- */

static inline uint32_t segment_bytes(const struct blob *blob)
{
    return blob->layout.segment_pieces * blob->layout.piece_bytes;
}

/* Begins with all granted leases of the blob that need not wait. */
void transfer__runs_begin(struct transfer *transfer, struct blob *blob);
/* Asks a holder for the missing pieces of a segment without being its neighbour. True if anything
 * was asked for. */
bool transfer__import(struct transfer *transfer, struct blob *blob, uint32_t segment,
                      uint16_t holder, uint8_t flags);
void transfer__fetches_tick(struct transfer *transfer);
/* Tells the host to stop; fetch_end is awaited. */
void transfer__fetch_cancel(struct transfer *transfer, struct fetch *fetch);
/* A piece of it came from a peer: cancels it if nothing is awaited of it any more. */
void transfer__fetch_superfluous(struct transfer *transfer, struct fetch *fetch);
/* Forgets all reads without a word to the host. */
void transfer__fetches_close(struct transfer *transfer);
/* A provider of a whole copy outside the zone proved useless. */
void transfer__remote_remove(struct swarm *swarm, uint16_t node);
/* Next time a grant that is held back may go on. */
uint64_t transfer__runs_deadline(struct transfer *transfer);

/* ---- fallback.c ---- */

/* Origin reads for lack of progress or answers, where due. */
void transfer__fallback_tick(struct transfer *transfer, struct blob *blob);
/* The next time, after now, at which that is due although nothing else may be. Cost: all active
 * blobs. */
uint64_t transfer__fallback_deadline(const struct transfer *transfer);

/* ---- desk.c, home.c: messages to keepers ---- */

/* The zone's desk: `from` asks, holds; old desks are forgotten; all end; invariants. */
void transfer__desk_want(struct transfer *transfer, uint16_t from, const struct wire_lease *want);
void transfer__desk_hold(struct transfer *transfer, uint16_t from, const struct wire_lease *hold);
void transfer__desk_return(struct transfer *transfer, uint16_t from,
                           const struct wire_lease *lease);
void transfer__desk_renew(struct transfer *transfer, uint16_t from, const struct wire_renew *renew,
                          const struct wire_renewal *renewal);
void transfer__desk_replica(struct transfer *transfer, uint16_t from,
                            const struct wire_lease *replica);
void transfer__desks_forget(struct transfer *transfer, uint16_t node);
void transfer__desks_sweep(struct transfer *transfer);
void transfer__desks_close(struct transfer *transfer);
void transfer__desks_check(const struct transfer *transfer);

/* The same for the home zone's keepers, where zones ask. */
void transfer__home_want(struct transfer *transfer, uint16_t from, const struct wire_lease *want);
void transfer__home_hold(struct transfer *transfer, uint16_t from, const struct wire_lease *hold);
void transfer__home_return(struct transfer *transfer, uint16_t from,
                           const struct wire_lease *lease);
/* `renew` gives blob and zone. */
void transfer__home_renew(struct transfer *transfer, uint16_t from, const struct wire_renew *renew,
                          const struct wire_renewal *renewal);
void transfer__home_replica(struct transfer *transfer, uint16_t from,
                            const struct wire_lease *replica);
void transfer__homes_forget(struct transfer *transfer, uint16_t node);
void transfer__homes_sweep(struct transfer *transfer);
void transfer__homes_close(struct transfer *transfer);
void transfer__homes_check(const struct transfer *transfer);

/* A holder of a whole segment that this node knows of from its own swarm: itself or a neighbour,
 * never `asker` or `avoid`. NODE_NONE if none. It makes a keeper that lost its state, or never had
 * it, refuse a second copy. */
uint16_t transfer__known_holder(struct transfer *transfer, const struct blob_key *key,
                                uint32_t segment, uint16_t asker, uint16_t avoid);
/* How often a message says that the blob may leave the origin. */
enum transfer_copies transfer__lease_copies(const struct transfer *transfer,
                                            const struct wire_lease *lease);
/* It says ZONE where the mesh says otherwise: its `zone` has a desk of its own. */
bool transfer__lease_is_apart(const struct transfer *transfer, const struct wire_lease *lease);
/* Sends a lease message about a segment. */
void transfer__send_lease(struct transfer *transfer, uint16_t to, unsigned type,
                          const struct wire_lease *lease);
/* Keepers of rank 2 and 3 learn what one of rank 1 decided; `zone`: whose keepers. */
void transfer__replicate(struct transfer *transfer, uint32_t zone, struct wire_lease *replica);

#endif
