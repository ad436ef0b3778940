/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gossip core from inside: its state, and what its files do for each other.
 *
 *   gossip.c    life cycle, dispatch, view, counters     members.c   who is known, states, events
 *   merge.c     news about members, refutation           spread.c    queue of news, messages out
 *   probe.c     probes, acks, helpers, local health      suspect.c   suspicion timers, confirmation
 *   revive.c    probes of those that are gone        sync.c      push-pull: who asks
 *   serve.c     push-pull: who answers                   join.c      bootstrap addresses
 *   check.c     invariants
 *
 * Times are in us of local time: the host's clock less the spells in which the host did not run us
 * (gossip.c, clock_in), so that timers do not fire in a burst after a pause (D-13).
 */
#ifndef SHOAL_GOSSIP_CORE_H
#define SHOAL_GOSSIP_CORE_H

#include "bytes.h"
#include "directory.h"
#include "gossip.h"
#include "log.h"
#include "wire_gossip.h"

/* ---- constants ---- */

/* A node is named by the number of its place in the directory: below 65,535. */
#define NODE_NONE ((uint32_t)PLACE_NONE)

/* Nodes per block of memory: 6 KiB. */
#define SLAB_NODES 256
#define SLABS_MAX  ((PLACES_MAX + SLAB_NODES) / SLAB_NODES)

/* DHT-7: no honest node raises its incarnation this far between two messages. */
#define INCARNATION_JUMP_MAX (1ULL << 32)
/* First sight of a node: what 65,536 such jumps could have made of an honest number. */
#define INCARNATION_FIRST_MAX (1ULL << 48)

/* A new process starts at random up to here, so that a restart is told from what was there before
 * even by those who have not heard of the end; where it came out lower, the first answer says so.
 */
#define INCARNATION_START 65535

/* Times an item of news is sent: 3 * ceil(log10(N+1)) (SWIM §4.1: lambda log n). */
#define SENDS_FACTOR 3
#define SENDS_MAX    (SENDS_FACTOR * 5)
/* Targets per round of news, and rounds per period: news doubles about ten times a second. */
#define FANOUT          3
#define ROUNDS_A_PERIOD 5

/* Probes a period: one in random rounds (SWIM §4.3), one of the successor by id. The second makes
 * the wait for the first probe of a dead node at most a period, not just on average. */
#define PROBES_A_PERIOD 2
/* Lifeguard §IV.A: highest local health multiplier. */
#define HEALTH_MAX 8
/* Probes and helps under way. Two probes a period last two periods at most, others come from
 * gossip_unreachable and from helping; beyond that they are refused. */
#define OPS_MAX     64
#define HELPS_MAX   32
#define HELPERS_MAX 4
/* Probe targets that wait for room: reports of silent peers. */
#define DOUBTS_MAX 32

/* Accusations per minute that everybody may make whatever 5 % of the members are (DHT-6). */
#define ACCUSATIONS_MIN 8
#define MINUTE_US       60000000ULL

/* The dead are kept, and probed now and then, for longer than partitions last (N-1: 10 min).
 * Those that left are kept for old news to die out. In periods. */
#define DEAD_KEEP_PERIODS 3600
#define LEFT_KEEP_PERIODS 600

/* Pages of push-pull answered per second, and at once after a pause: 1 MB/s of answers at most. */
#define SERVE_PAGES 256

/* Bootstrap addresses (gossip.h). */
#define SEEDS_MAX 256

/* ---- what we know of one node ---- */

/* 24 bytes of our own for each member; what it says of itself is a record of the directory. All
 * numbers of nodes, and of suspicions, fit 16 bits. */
struct node {
    uint32_t record;   /* RECORD_NONE: we do not know it */
    uint32_t ping_seq; /* of the last PING that nothing answered yet; 0 none */
    union {
        uint32_t gone_at; /* since when DEAD or LEFT, in units of GONE_UNIT_US */
        struct {
            uint16_t minute; /* as accuser: accusations are counted by this one, its low bits */
            uint16_t count;
        } accusations; /* while live */
    } of;
    uint16_t list_pos; /* in live[] or among the gone; not of self */
    uint16_t queue_prev, queue_next;
    uint16_t event_next;
    uint16_t suspicion;     /* index, NODE_NONE if not SUSPECT */
    unsigned state : 3;     /* enum member_state */
    unsigned sends : 4;     /* of the queued news */
    unsigned queued : 1;    /* in the queue of news */
    unsigned dirty : 1;     /* in the event list */
    unsigned told_up : 1;   /* the host's last event was UP or CHANGED */
    unsigned to_revive : 1; /* in the revive list */
};
static_assert(sizeof(struct node) <= 24, "what a view of 10,000 costs is mostly this");

/* 65.536 ms: 32 bits hold nine years. */
#define GONE_UNIT_US 65536u

/* ---- suspicion (SWIM §4.2, Lifeguard §IV.B) ---- */

enum suspicion_stage {
    SUSPICION_WAIT = 0, /* for a refutation; ends at due */
    SUSPICION_FIRST,    /* first ping of the confirmation is out */
    SUSPICION_SECOND,   /* second ping is out; no answer: dead */
};

struct suspicion {
    uint32_t node; /* NODE_NONE: free, `next_free` valid */
    uint32_t next_free;
    uint32_t heap_pos;
    enum suspicion_stage stage;
    uint64_t since_us;
    uint64_t due_us;
    uint64_t order; /* equal times run in this order */
    uint8_t accuser_count;
    uint8_t confirmed_count; /* senders that hold it dead */
    struct peer_addr accusers[WIRE_GOSSIP_ACCUSERS_MAX];
    struct peer_addr confirmed_by;
};

/* ---- probes under way ---- */

enum op_kind {
    OP_PROBE = 1, /* ours: ends by an answer or in suspicion */
    OP_HELP,      /* for a requester: ends by RELAYED */
};

struct op {
    enum op_kind kind;
    uint32_t node;
    uint32_t seq;
    unsigned step; /* what has been done so far */
    uint64_t started_us;
    uint64_t due_us;
    uint64_t timeout_us; /* of the direct probe, widened by local health */
    uint8_t helper_count, nack_count;
    struct peer_addr helpers[HELPERS_MAX]; /* PROBE; helpers[0] is the requester of a HELP */
    bool nacked[HELPERS_MAX];
    uint32_t requester_seq;
};

/* ---- push-pull ---- */

enum sync_stage {
    SYNC_IDLE = 0,  /* until next_us */
    SYNC_CHECKING,  /* SYNC_CHECK sent: SYNC_STATE ends it */
    SYNC_DIGESTING, /* SYNC_DIGEST sent: SYNC_DIFF ends it */
    SYNC_PAGING,    /* SYNC_PAGE sent: the last SYNC_RECORDS ends it */
};

struct sync {
    enum sync_stage stage;
    struct peer_addr peer;
    uint32_t seq;
    unsigned tries;
    uint64_t due_us;  /* of the answer */
    uint64_t next_us; /* of the next one, while idle */
    uint64_t interval_us;
    uint32_t diffs; /* found by this one */
    uint32_t peer_count;
    unsigned next_leaf; /* not sent yet */
    unsigned page_leaf; /* first of the page that waits for its answer */
    bool counted;       /* counts[] is known */
    uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES];
    uint8_t counts[WIRE_GOSSIP_LEAVES];
    uint8_t page[WIRE_GOSSIP_LEAF_BYTES]; /* leaves of the page that waits */
    /* Views that came apart: what PING and ACK say of the others' (gossip__compare_view). */
    unsigned apart;       /* of them in a row that differ */
    unsigned agreed;      /* of them in a row that are the same */
    uint64_t changed_us;  /* our own view, last */
    uint64_t apart_us;    /* not before, another push-pull for that reason */
    uint64_t apart_pause; /* grows while they do not help */
    /* Pages answered lately, a bucket that refills: work that others may ask for is bounded. */
    uint32_t serve_tokens;
    uint64_t serve_refill_us;
};

struct seed {
    struct peer_addr addr;
    uint64_t due_us;
    uint32_t seq;
    uint8_t tries;
};

/* ---- giving records ---- */

/* Nodes given in one answer, at most: more than three datagrams hold records of. */
#define GIVE_MAX 96
struct give {
    uint32_t nodes[GIVE_MAX];
    unsigned count;
};

/* ---- the core ---- */

struct gossip {
    struct env env;
    struct gossip_config config; /* defaults filled in */
    char *cluster_id;
    struct prng prng;
    uint32_t last_seq;
    uint64_t last_order;

    uint64_t host_us;      /* latest time seen from the host */
    uint64_t paused_us;    /* sum of the spells we were not run in */
    uint64_t now_us;       /* local time of this call */
    uint64_t deadline_us;  /* promised at the end of the last call; local, never before it */
    struct gossip_rtt rtt; /* took_us 0: none */
    uint64_t reply_left;   /* bytes that may answer the request at hand (DHT-2) */

    /* members */
    struct directory *directory;
    struct node *slabs[SLABS_MAX]; /* by number of place; NULL where nobody is known */
    uint32_t node_count;
    uint16_t *order; /* all nodes by id */
    /* From the front all but self that are not gone: the round of probes. From the back those DEAD
     * or LEFT. */
    uint16_t *live;
    uint32_t live_count, gone_count;
    uint32_t list_capacity; /* of order and live */
    uint32_t self;
    struct member self_view; /* own record, for gossip_self */
    uint32_t state_count[MEMBER_LEFT + 1];
    uint64_t leaf_hash[WIRE_GOSSIP_LEAVES]; /* over live members */
    uint16_t leaf_count[WIRE_GOSSIP_LEAVES];
    uint64_t view_hash;
    uint32_t event_head, event_tail;

    /* news, by times sent */
    uint32_t queue_head[SENDS_MAX + 1], queue_tail[SENDS_MAX + 1];
    uint32_t queue_count;
    uint64_t round_us; /* next round; UINT64_MAX while the queue is empty */

    /* suspicions: pool and heap by (due, order) */
    struct suspicion *suspicions;
    uint32_t *heap;
    uint32_t suspicion_count, suspicion_capacity, suspicion_free;

    /* probes */
    struct op ops[OPS_MAX];
    unsigned op_count, help_count;
    uint64_t probe_us;
    uint32_t probe_next; /* position in live[] */
    bool probe_successor;
    unsigned health;
    uint32_t doubts[DOUBTS_MAX];
    unsigned doubt_count;

    /* the dead */
    uint64_t dead_probe_us;
    uint32_t dead_sweep; /* position among the gone */
    uint16_t *revive;    /* nodes somebody holds alive that we hold dead */
    uint32_t revive_count, revive_capacity;
    uint64_t revive_us;

    struct sync sync;
    struct seed seeds[SEEDS_MAX];
    unsigned seed_count;

    /* self */
    uint64_t refute_us; /* not before, another refutation */
    uint8_t load_wanted;
    uint64_t load_us; /* not before, another spread of the load alone */
    bool left;

    uint64_t log_window_us;
    unsigned log_count;

    struct gossip_stats stats;
    struct give corrections;               /* what the sender of g->in is behind with */
    uint64_t wants[WIRE_GOSSIP_WANTS_MAX]; /* for gossip__give_send */
    unsigned want_count;
    struct wire_gossip in;  /* the message being handled */
    struct wire_gossip out; /* the message being made */
    size_t out_left;        /* bytes it may still grow by */
};

/* ---- gossip.c ---- */

/* Memory through env->alloc for `count` items of `item_bytes`; NULL on overflow or exhaustion (old
 * block kept then). */
void *gossip__alloc(struct gossip *g, void *old, size_t count, size_t item_bytes);
/* One log line about members at debug level, at most 10 a second (HRD-5). */
void gossip__log(struct gossip *g, const char *what, uint32_t index);
/* Next sequence number, never 0. */
uint32_t gossip__seq(struct gossip *g);
/* 1,000 * log10(n), within 3 %: integers only, so that all machines agree. n >= 1. */
uint32_t gossip__milli_log10(uint32_t n);
/* Uniform in [low, high]. */
uint64_t gossip__between(struct gossip *g, uint64_t low, uint64_t high);

/* Raises the own incarnation, with own labels and load as they are now, and queues the record. */
void gossip__announce(struct gossip *g, enum member_state state);

/* ---- members.c ---- */

/* A node by its index; we know it, or have known it. Stays where it is. */
struct node *gossip__node(const struct gossip *g, uint32_t index);
/* Its address, id and record in the directory: borrowed until somebody becomes known, is forgotten
 * or changes. */
const struct peer_addr *gossip__addr(const struct gossip *g, uint32_t index);
const struct node_id *gossip__id(const struct gossip *g, uint32_t index);
const struct directory_record *gossip__record(const struct gossip *g, uint32_t index);
/* All that is known of it, copied. */
void gossip__member(const struct gossip *g, uint32_t index, struct member *out);
/* The i-th of the gone. */
uint32_t gossip__gone(const struct gossip *g, uint32_t i);
/* First 8 bytes of the id at this position of order[]. */
uint64_t gossip__order_prefix(const struct gossip *g, uint32_t at);
/* Own record. */
const struct member *gossip__self(const struct gossip *g);
/* NODE_NONE if nobody with that address is known. */
uint32_t gossip__by_addr(const struct gossip *g, const struct peer_addr *addr);
/* NODE_NONE if unknown. */
uint32_t gossip__by_id(const struct gossip *g, const struct node_id *id);
/* NODE_NONE if no id or more than one begins with these bytes. */
uint32_t gossip__by_prefix(const struct gossip *g, uint64_t prefix);
/* First position in order[] whose prefix is >= `prefix`. */
uint32_t gossip__order_from(const struct gossip *g, uint64_t prefix);
/* First 8 bytes of an id. */
uint64_t gossip__prefix(const struct node_id *id);
/* ALIVE, SUSPECT or LEAVING. */
bool gossip__is_live(enum member_state state);
/* The same of a node we know. */
bool gossip__live(const struct gossip *g, uint32_t index);
/* What a live member adds to the hashes of the view. The incarnation stands for all that a record
 * says; SUSPECT is not part of it, being news and not a fact. */
uint64_t gossip__member_hash(const struct gossip *g, uint32_t index);
/* STYLE §7: the table of moves, for the test that tries the others. */
bool gossip__move_allowed(enum member_state from, enum member_state to);
/*
 * Takes in a new node whose address is not known; the id is computed from it. Copies `member`; the
 * state must be a live one. Evicts the longest gone if there are MEMBERS_MAX. Queues the event.
 * 0 with *out; E_FULL, E_NO_MEMORY: nothing has changed.
 */
MUST_USE int gossip__insert(struct gossip *g, const struct member *member, uint32_t *out);
/* Takes in new nodes in bulk, without events: those that are alive and not known. 0, or the first
 * error; then some are missing. */
MUST_USE int gossip__insert_all(struct gossip *g, const struct member *members, size_t count);
/*
 * Replaces what is known of a node (id and address stay) by `member`, state included: the only
 * way a state or incarnation changes. Checks the move, keeps lists, hashes and suspicion, queues
 * the event. Without memory for new labels, nothing changes: as if the news had been lost.
 */
void gossip__update(struct gossip *g, uint32_t index, const struct member *member);
/* The same, changing nothing but the state. */
void gossip__set_state(struct gossip *g, uint32_t index, enum member_state state);
/* Drops a DEAD or LEFT node. Its events must have been drained, or have been UP never. */
void gossip__forget(struct gossip *g, uint32_t index);
/* A random live member other than self; NODE_NONE if there is none. */
uint32_t gossip__random_live(struct gossip *g);
/* First allocation, and self. 0 or E_NO_MEMORY; gossip__members_close frees what there is. */
MUST_USE int gossip__members_init(struct gossip *g);
void gossip__members_close(struct gossip *g);

/* ---- spread.c ---- */

/* Queues the present state of a node as news, from the start if it is queued already. */
void gossip__enqueue(struct gossip *g, uint32_t index);
/* Takes a node's news out of the queue, if there. */
void gossip__unqueue(struct gossip *g, uint32_t index);
/* Somebody told us what we have queued: in a long queue that counts as one of our own sends. */
void gossip__heard(struct gossip *g, uint32_t index);
/* Others have the view we have: their telling us so takes the records out of a long queue. */
void gossip__settled(struct gossip *g);
/* How often an item is sent at the present size of the mesh. */
unsigned gossip__sends_limit(const struct gossip *g);

/* Begins g->out: type, seq, and the receiver as we know it. The budget is the whole message. */
void gossip__begin(struct gossip *g, enum wire_gossip_type type, uint32_t seq,
                   const struct peer_addr *to);
/* Lowers the budget of g->out to what may still answer the request at hand. */
void gossip__limit_to_reply(struct gossip *g);
/* Adds a node's record to g->out.news; false if it does not fit. */
bool gossip__add_record(struct gossip *g, uint32_t index);
/* Adds a claim (SUSPECT with its accusers, DEAD) about a node to g->out.news; false likewise. */
bool gossip__add_claim(struct gossip *g, uint32_t index);
/* Fills the rest of g->out with queued news and counts their sends. */
void gossip__add_queued(struct gossip *g);
/* Encodes g->out, padded to pad_to bytes, and sends it. A refusal counts as a lost packet. */
void gossip__send(struct gossip *g, const struct peer_addr *to, size_t pad_to);
/* Sends own record and queued news to one address, not as an answer. */
void gossip__send_self(struct gossip *g, const struct peer_addr *to);
/* The round of news, if due. */
void gossip__spread_advance(struct gossip *g);
/* One round at once to `count` random members: for what cannot wait. */
void gossip__spread_now(struct gossip *g, unsigned count);

/* ---- merge.c ---- */

/*
 * Looks at how the sender knows us; refutes, if it holds something wrong. True if our own record
 * should go into the answer.
 */
bool gossip__check_known(struct gossip *g, const struct wire_gossip *message);
/* Raises the own incarnation above `above` and queues the own record. False if too soon after the
 * last time, or not to be believed (DHT-7). */
bool gossip__refute(struct gossip *g, uint64_t above);
/* Takes in the news of g->in. `sync`: they are part of a push-pull, where states may be old.
 * Returns how many records were new to us. */
unsigned gossip__take_news(struct gossip *g, const struct peer_addr *from, bool sync);
/* Tells the sender of g->in what its claims were behind with, within the answer it is due. */
void gossip__send_corrections(struct gossip *g, const struct peer_addr *from);
/* An address a node can have: no zero port, not unspecified, not multicast. */
bool gossip__addr_usable(const struct peer_addr *addr);
/* Order of two versions of one node: <0 if the first is older, 0 equal, >0 newer. */
int gossip__compare_versions(uint64_t incarnation_a, enum member_state a, uint64_t incarnation_b,
                             enum member_state b);

/* ---- probe.c ---- */

/* Starts a probe of a live member, unless one is under way. False if there is no room. */
bool gossip__probe(struct gossip *g, uint32_t index);
/* Makes a node a probe target at once, or as soon as there is room. */
void gossip__doubt(struct gossip *g, uint32_t index);
/* Sends a PING that tells the node how we hold it, padded if it should answer with its record. A
 * new one gets a new seq; one that repeats the last, or shares its answer, does not. Queued news
 * ride along if asked for. */
void gossip__ping(struct gossip *g, uint32_t index, bool again, bool with_news);
/* Is a PING out whose answer somebody waits for? */
bool gossip__ping_awaited(const struct gossip *g, uint32_t index);
/* Handlers of PING, ACK, PING_REQ, RELAYED in g->in. */
void gossip__on_ping(struct gossip *g, const struct peer_addr *from);
void gossip__on_ack(struct gossip *g, const struct peer_addr *from);
void gossip__on_ping_req(struct gossip *g, const struct peer_addr *from);
void gossip__on_relayed(struct gossip *g, const struct peer_addr *from);
void gossip__probe_advance(struct gossip *g);
/* Next time probe_advance has something to do. */
uint64_t gossip__probe_deadline(const struct gossip *g);
/* Lifeguard §IV.A: worse (> 0) or better (< 0) local health. */
void gossip__health_change(struct gossip *g, int change);
/* Forgets probes of a node that goes away, is dead or has proven alive. */
void gossip__probe_cancel(struct gossip *g, uint32_t index);

/* ---- suspect.c ---- */

/*
 * `accuser` says that a live node does not answer: makes it SUSPECT, or shortens the time it has
 * left. `confirmed`: the accuser holds it dead. Ignores accusers that accuse too many (DHT-6),
 * unknown or dead ones and the accused itself. True if this was new.
 */
bool gossip__accuse(struct gossip *g, uint32_t index, const struct peer_addr *accuser,
                    bool confirmed);
/* Ends the suspicion of a node, if there is one; called when its state moves on. */
void gossip__suspicion_end(struct gossip *g, uint32_t index);
/* The suspicion of a SUSPECT node. */
const struct suspicion *gossip__suspicion(const struct gossip *g, const struct node *node);
void gossip__suspect_advance(struct gossip *g);
uint64_t gossip__suspect_deadline(const struct gossip *g);

/* ---- revive.c ---- */

/* Somebody holds alive what we hold dead: probe it soon. */
void gossip__revive_later(struct gossip *g, uint32_t index);
/* Takes a node that is forgotten out of the list of those to revive. */
void gossip__revive_cancel(struct gossip *g, uint32_t index);
void gossip__revive_advance(struct gossip *g);
uint64_t gossip__revive_deadline(const struct gossip *g);
/* Time between two probes of the dead by this node. */
uint64_t gossip__dead_probe_interval(const struct gossip *g);

/* ---- sync.c ---- */

/* Begins a push-pull with an address at once, unless one is under way. */
void gossip__sync_with(struct gossip *g, const struct peer_addr *peer);
/* The view is changing a lot: exchange again within a period. */
void gossip__sync_soon(struct gossip *g);
/* A live member's PING or ACK said which view it has: when several in a row differ from ours after
 * news have settled, we have missed something, and ask. */
void gossip__compare_view(struct gossip *g, const struct peer_addr *from, uint32_t view_check);
/* What PING and ACK say of the own view. */
uint32_t gossip__view_check(const struct gossip *g);
/* More differences than news under way would explain. */
bool gossip__sync_many(const struct gossip *g, uint32_t diffs);
/* Handlers of SYNC_STATE, SYNC_DIFF, SYNC_RECORDS in g->in. */
void gossip__on_state(struct gossip *g, const struct peer_addr *from);
void gossip__on_diff(struct gossip *g, const struct peer_addr *from);
void gossip__on_records(struct gossip *g, const struct peer_addr *from);
void gossip__sync_advance(struct gossip *g);
uint64_t gossip__sync_deadline(const struct gossip *g);
/* Hash of the live members of a leaf, as SYNC_DIGEST sends it. */
uint32_t gossip__range_hash(const struct gossip *g, unsigned leaf);

/* ---- serve.c ---- */

/* Notes a node to give; beyond GIVE_MAX the next push-pull brings it. */
void gossip__give_add(struct give *give, uint32_t index);
/*
 * Sends records (or claims of death) of the nodes in `give`, in as many SYNC_RECORDS as the answer
 * to the request at hand may have (DHT-2), and g->wants in the first. At least one is sent.
 */
void gossip__give_send(struct gossip *g, const struct peer_addr *to, uint32_t seq,
                       const struct give *give);

/* Handlers of SYNC_CHECK, SYNC_DIGEST, SYNC_PAGE in g->in. */
void gossip__on_check(struct gossip *g, const struct peer_addr *from);
void gossip__on_digest(struct gossip *g, const struct peer_addr *from);
void gossip__on_page(struct gossip *g, const struct peer_addr *from);

/* ---- join.c ---- */

/* Takes in bootstrap addresses that are new; beyond SEEDS_MAX they are dropped. */
void gossip__join_add(struct gossip *g, const struct peer_addr *addrs, size_t addr_count);
/* An answer to the join request `seq` came from `from`: true if it was one. */
bool gossip__seed_answered(struct gossip *g, const struct peer_addr *from, uint32_t seq);
void gossip__join_advance(struct gossip *g);
uint64_t gossip__join_deadline(const struct gossip *g);

#endif
