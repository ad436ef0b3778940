/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold of a transfer object between any two calls, for tests and the simulator to ask
 * after any of them. Costs a pass over all that there is.
 */
#include "lease.h"

static void check_swarm(const struct transfer *transfer, const struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    uint32_t requests = 0, leases = 0;
    for (uint32_t i = 0; i < transfer->request_count; i++)
        requests += transfer->requests[i].blob == blob ? 1 : 0;
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next)
        leases += lease->blob == blob ? 1 : 0;
    ASSERT(requests == swarm->requests);
    ASSERT(leases == swarm->leases);
    ASSERT(swarm->neighbour_count <= NEIGHBOURS_MAX);
    ASSERT(swarm->candidate_count <= CANDIDATES_MAX && swarm->remote_count <= REMOTES_MAX);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        ASSERT(neighbour->node != NODE_SELF && transfer->nodes.slots[neighbour->node].used);
        ASSERT(neighbour->node == swarm->neighbour_nodes[i] && neighbour->peer != NULL);
        ASSERT(transfer->nodes.slots[neighbour->node].peer == neighbour->peer);
        ASSERT(!neighbour->useful || neighbour->state == NEIGHBOUR_UP);
    }
    uint32_t repairs = 0;
    for (uint32_t piece = 0; piece < blob->layout.piece_count; piece++) {
        uint32_t avail = 0;
        repairs += (swarm->flags[piece] & PIECE_REPAIR) != 0;
        for (uint32_t i = 0; i < swarm->neighbour_count; i++)
            avail += swarm->neighbours[i].useful && bitfield_get(&swarm->neighbours[i].known, piece)
                         ? 1
                         : 0;
        ASSERT(avail == swarm->avail[piece]);
        bool open = bitfield_get(&swarm->open, piece);
        ASSERT(!open || (!bitfield_get(&blob->have, piece) && swarm->asked[piece] == 0));
        ASSERT(!open || (swarm->flags[piece] & PIECE_WANTED) != 0);
        ASSERT(bitfield_get(&swarm->absent, piece) == (open && avail == 0));
    }
    ASSERT(repairs == swarm->repair_count);
}

static void check_leases(const struct transfer *transfer)
{
    uint32_t leases = 0, fetches = 0, fallbacks = 0;
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        leases++;
        ASSERT(lease->blob->swarm != NULL && lease->segment < lease->blob->layout.segment_count);
        ASSERT(transfer__lease_find(transfer, lease->blob, lease->segment) == lease);
        ASSERT(lease->state != LEASE_FETCHING || lease->fetch != NULL);
    }
    for (const struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next) {
        fetches++;
        bool fallback = fetch->reason == FETCH_NO_KEEPER || fetch->reason == FETCH_NO_PROGRESS;
        fallbacks += fallback && !fetch->ended ? 1 : 0;
    }
    ASSERT(leases == transfer->lease_count && leases <= LEASES_MAX);
    ASSERT(fetches == transfer->fetch_count && fallbacks == transfer->fallbacks);
    ASSERT(transfer->lease_budget >= 1 && transfer->lease_budget <= transfer->config.leases_max);
}

static void check_requests(const struct transfer *transfer)
{
    uint32_t inflight = 0, running = 0;
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        const struct request *request = &transfer->requests[i];
        ASSERT(request->blob->swarm != NULL && request->blob->swarm->asked[request->piece] > 0);
        ASSERT(transfer->nodes.slots[request->node].used);
        inflight += request->received ? 0 : 1;
    }
    for (uint32_t i = 0; i < transfer->upload_count; i++) {
        const struct upload *upload = &transfer->uploads[i];
        running += upload->running ? 1 : 0;
        ASSERT(upload->running || (upload->blob != NULL && upload->node != NODE_NONE));
        ASSERT((upload->node == NODE_NONE) == (upload->peer == NULL));
        ASSERT(upload->peer == NULL || transfer->nodes.slots[upload->node].peer == upload->peer);
    }
    ASSERT(inflight == transfer->inflight && transfer->request_count <= REQUESTS_MAX);
    ASSERT(running == transfer->uploads_running);
    ASSERT(running <= UPLOADS_RUNNING_MAX(transfer->config.upload_slots));
    ASSERT(transfer->upload_count <= transfer__uploads_max(transfer));
}

void transfer__check_invariants(const struct transfer *transfer)
{
    for (const struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        check_swarm(transfer, blob);
    check_leases(transfer);
    check_requests(transfer);
    transfer__desks_check(transfer);
    transfer__homes_check(transfer);
    transfer__nodes_check(transfer);
    uint32_t peers = 0;
    for (const struct peer *peer = transfer->peers; peer != NULL; peer = peer->next) {
        peers++;
        ASSERT(transfer->nodes.slots[peer->node].peer == peer);
        ASSERT(peer->distance == transfer__node_distance(transfer, peer->node));
        uint32_t running = 0;
        for (uint32_t i = 0; i < transfer->upload_count; i++)
            running += transfer->uploads[i].running && transfer->uploads[i].node == peer->node;
        ASSERT(running == peer->running);
    }
    ASSERT(peers == transfer->peer_count);
    ASSERT(transfer->results.count <= transfer->results.capacity);
}
