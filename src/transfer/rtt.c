/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Round trips to other nodes: measured by what is answered at once, and what follows from them. How
 * long an answer may take (RFC 6298), and whether the nodes of a swarm are so far away that
 * requests in flight, uploads and leases must bridge round trips. In a near mesh nothing here has
 * an effect.
 */
#include "blob.h"
#include "topology.h"

/* Nodes this far away are far. Zones of one region are below 5 ms; at 24 ms it makes no difference
 * yet (16 nodes, 64 MiB: 1.18 s, 1.00 without), at 48 ms it does (1.17, then 1.50). */
#define FAR_US (30 * MS)
/* Round trips that a piece takes on a connection whose window has yet to grow: 2^4 segments of 10
 * packets are 230 KiB. Twice that, so that what is in flight doubles until the link is full. */
#define FAR_ROUNDS 8
/* RFC 6298 §2: K, and no answer is waited for longer than this at a time. */
#define RTO_SPREADS 4
#define RTO_MAX_US  (3 * S)
/* Where all answers come after the question was repeated, loss is not why. */
#define GUESSES_ENOUGH 4
/* Each longer sample moves what is usual by this part of the difference. */
#define USUAL_RISE 256

static void sample(struct rtt *rtt, uint64_t took_us, bool sure)
{
    uint32_t us = (uint32_t)(took_us > RTO_MAX_US ? RTO_MAX_US : took_us < 1 ? 1 : took_us);
    if (rtt->mean_us == 0 || (rtt->guesses > 0 && sure)) { /* RFC 6298 §2.2 */
        *rtt = (struct rtt){
            .mean_us = us, .spread_us = us / 2, .least_us = us, .guesses = sure ? 0 : 1};
        return;
    }
    if (!sure) {
        if (rtt->guesses > 0 && rtt->guesses < GUESSES_ENOUGH)
            rtt->guesses++;
        return;
    }
    uint32_t off_us = us > rtt->mean_us ? us - rtt->mean_us : rtt->mean_us - us;
    rtt->spread_us = (uint32_t)((3 * (uint64_t)rtt->spread_us + off_us) / 4);
    rtt->mean_us = transfer__mean(rtt->mean_us, us);
    rtt->least_us = us < rtt->least_us ? us : rtt->least_us;
}

static bool is_loaded(const struct transfer *transfer)
{
    return transfer->inflight > 0 || transfer->fetch_count > 0 || transfer->uploads_running > 0;
}

/* What is usual is meant without queues: it falls soon, and rises slowly, for others may be under
 * load, too, and near nodes are not far for that. */
static void usual_sample(struct rtt *usual, uint64_t took_us, bool sure)
{
    uint64_t least_us = usual->least_us;
    bool first = usual->mean_us == 0 || (usual->guesses > 0 && sure);
    sample(usual, took_us, sure);
    if (!first && sure && took_us < RTO_MAX_US)
        usual->least_us =
            (uint32_t)(took_us < least_us ? (3 * least_us + took_us) / 4
                                          : least_us + (took_us - least_us) / USUAL_RISE);
}

static void note(struct transfer *transfer, struct peer *peer, enum distance distance,
                 uint64_t took_us, bool sure)
{
    struct rtt *usual = &transfer->usual_rtt[distance > DISTANCE_ZONE];
    if (peer != NULL)
        sample(&peer->rtt, took_us, sure);
    if (!is_loaded(transfer))
        usual_sample(usual, took_us, sure);
}

void transfer__rtt_note(struct transfer *transfer, uint16_t node, uint64_t sent_us, bool sure)
{
    if (node != NODE_SELF && node != NODE_NONE)
        note(transfer, transfer->nodes.slots[node].peer, transfer__node_distance(transfer, node),
             transfer->now_us - sent_us, sure);
}

void transfer_rtt(struct transfer *transfer, const struct node_id *id, uint64_t took_us, bool sure)
{
    const struct directory *directory = transfer->nodes.directory;
    uint16_t place = directory_find_id(directory, id);
    uint16_t node = transfer__node_find(transfer, id);
    if (transfer__member_state(transfer, place) == MEMBER_UNKNOWN || node == NODE_SELF)
        return;
    const struct topology *own =
        directory_topology(directory, transfer->nodes.slots[NODE_SELF].topology);
    const struct topology *theirs =
        directory_topology(directory, transfer__member_topology(transfer, place));
    note(transfer, node == NODE_NONE ? NULL : transfer->nodes.slots[node].peer,
         topology_distance(own, theirs), took_us, sure);
}

/* Of the node itself if known, else what is usual for its distance. */
static const struct rtt *rtt_of(const struct transfer *transfer, uint16_t node)
{
    const struct peer *peer = transfer->nodes.slots[node].peer;
    if (peer != NULL && peer->rtt.mean_us != 0)
        return &peer->rtt;
    return &transfer->usual_rtt[transfer__node_distance(transfer, node) > DISTANCE_ZONE];
}

static uint64_t rto_us(const struct rtt *rtt, uint64_t least_us)
{
    uint64_t us = rtt->mean_us + RTO_SPREADS * (uint64_t)rtt->spread_us;
    us = us > RTO_MAX_US ? RTO_MAX_US : us;
    return us > least_us ? us : least_us;
}

uint64_t transfer__rto_us(const struct transfer *transfer, uint16_t node, uint64_t least_us)
{
    if (node == NODE_NONE || node == NODE_SELF)
        return least_us;
    return rto_us(rtt_of(transfer, node), least_us);
}

uint64_t transfer__mesh_rto_us(const struct transfer *transfer, uint64_t least_us)
{
    bool beyond = transfer->usual_rtt[0].mean_us == 0;
    return rto_us(&transfer->usual_rtt[beyond], least_us);
}

/* 0: unknown. */
static uint32_t least_of(const struct rtt *rtt)
{
    return rtt->guesses == 0 || rtt->guesses >= GUESSES_ENOUGH ? rtt->least_us : 0;
}

uint32_t transfer__usual_rtt_us(const struct transfer *transfer)
{
    uint32_t zone_us = least_of(&transfer->usual_rtt[0]);
    uint32_t beyond_us = least_of(&transfer->usual_rtt[1]);
    return zone_us != 0 ? zone_us : beyond_us;
}

void transfer__far_update(const struct transfer *transfer, struct swarm *swarm)
{
    uint64_t sum_us = 0, count = 0;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        uint32_t least_us = least_of(&neighbour->peer->rtt);
        uint32_t usual_us =
            least_of(&transfer->usual_rtt[neighbour->peer->distance > DISTANCE_ZONE]);
        if (neighbour->barred || least_us == 0)
            continue;
        sum_us += usual_us != 0 && usual_us < least_us ? usual_us : least_us;
        count++;
    }
    uint64_t mean_us = count > 0 ? sum_us / count : transfer__usual_rtt_us(transfer);
    swarm->far_us = mean_us < FAR_US ? 0 : (uint32_t)mean_us;
}

uint64_t transfer__far_rounds_us(const struct swarm *swarm)
{
    return swarm == NULL ? 0 : FAR_ROUNDS * (uint64_t)swarm->far_us;
}
