/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics in Prometheus' text format. Every name starts with shoal_; no label has values that grow
 * without bound, none names a repository (HTTP-7).
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "admin.h"
#include "log.h"
#include "zone_count.h"

struct page {
    char *text; /* owned */
    size_t used, capacity;
    const char *family; /* whose lines come: the text format wants them together */
    bool failed;
};

static void put(struct page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct page *page, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int bytes = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (page->failed || bytes < 0 || (size_t)bytes >= sizeof line) {
        page->failed = true;
        return;
    }
    size_t need = page->used + (size_t)bytes + 1;
    if (need > page->capacity) {
        size_t capacity = need * 2 < 16384 ? 16384 : need * 2;
        char *text = loop_alloc(NULL, page->text, capacity);
        if (text == NULL) {
            page->failed = true;
            return;
        }
        page->text = text;
        page->capacity = capacity;
    }
    memcpy(page->text + page->used, line, (size_t)bytes + 1);
    page->used += (size_t)bytes;
}

static void family(struct page *page, const char *name, const char *type, const char *help)
{
    put(page, "# HELP shoal_%s %s\n# TYPE shoal_%s %s\n", name, help, name, type);
    page->family = name;
}

static void one(struct page *page, const char *name, const char *type, const char *help,
                uint64_t value)
{
    family(page, name, type, help);
    put(page, "shoal_%s %" PRIu64 "\n", name, value);
}

/* One line of the family that was begun last. */
static void labelled(struct page *page, const char *label, const char *value, uint64_t count)
{
    put(page, "shoal_%s{%s=\"%s\"} %" PRIu64 "\n", page->family, label, value, count);
}

/* The lines of a histogram's family. */
static void times(struct page *page, const uint32_t *bounds_ms, const struct mirror_times *times)
{
    uint64_t sum = 0;
    for (int i = 0; i < MIRROR_TIME_BUCKETS; i++) {
        sum += times->count[i];
        put(page, "shoal_%s_bucket{le=\"%g\"} %" PRIu64 "\n", page->family, bounds_ms[i] / 1000.0,
            sum);
    }
    sum += times->count[MIRROR_TIME_BUCKETS];
    put(page, "shoal_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", page->family, sum);
    put(page, "shoal_%s_sum %.6f\n", page->family, (double)times->sum_us / 1e6);
    put(page, "shoal_%s_count %" PRIu64 "\n", page->family, sum);
}

static void bytes_page(struct page *page, struct agent *agent)
{
    struct blobs_counters blobs;
    struct transfer_stats transfer;
    blobs_counters(agent->blobs, &blobs);
    transfer_stats(node_transfer(agent->node), &transfer);
    family(page, "piece_bytes_total", "counter", "Verified piece bytes that arrived, by source.");
    for (int tier = BLOB_FROM_DISK; tier < BLOB_TIER_COUNT; tier++)
        labelled(page, "source", blob_tier_name((enum blob_tier)tier), blobs.piece_bytes[tier]);
    family(page, "client_bytes_total", "counter", "Bytes given to clients, by source.");
    for (int tier = BLOB_FROM_MEMORY; tier < BLOB_TIER_COUNT; tier++)
        labelled(page, "source", blob_tier_name((enum blob_tier)tier), blobs.client_bytes[tier]);
    one(page, "origin_saved_bytes_total", "counter",
        "Bytes given to clients that no registry had to send: above those that were read there.",
        blobs.saved_bytes);
    family(page, "peer_bytes_total", "counter", "Piece bytes from peers, by distance.");
    for (int distance = 0; distance < DISTANCE_COUNT; distance++)
        labelled(page, "distance", distance_name((enum distance)distance),
                 transfer.bytes_by_distance[distance]);
    one(page, "upload_bytes_total", "counter", "Piece bytes sent to peers.", transfer.upload_bytes);
    family(page, "origin_fetches_total", "counter", "Reads from the registry, by reason.");
    for (int reason = 1; reason < FETCH_REASON_COUNT; reason++)
        labelled(page, "reason", fetch_reason_name((enum fetch_reason)reason),
                 transfer.fetches_by_reason[reason]);
    family(page, "leases_total", "counter", "Answers given as a keeper.");
    labelled(page, "answer", "granted", transfer.leases_granted);
    labelled(page, "answer", "pending", transfer.leases_pending);
    labelled(page, "answer", "referred", transfer.leases_referred);
    one(page, "requests_hedged_total", "counter", "Late requests repeated elsewhere.",
        transfer.hedges);
    one(page, "requests_timed_out_total", "counter", "Requests to peers without an answer.",
        transfer.request_timeouts);
    family(page, "pieces_refused_total", "counter", "Pieces not taken, by reason.");
    labelled(page, "reason", "digest", blobs.bad_digest);
    labelled(page, "reason", "voucher", blobs.bad_voucher);
    labelled(page, "reason", "signer", blobs.unknown_signer);
    one(page, "blob_mismatches_total", "counter", "Blobs whose whole digest did not match.",
        blobs.mismatches);
    one(page, "blob_repairs_total", "counter", "Blobs repaired from the registry.", blobs.repairs);
    one(page, "blobs", "gauge", "Blobs open in the mesh.", blobs.blobs);
    one(page, "readers", "gauge", "Local readers of blobs.", blobs.readers);
    one(page, "readers_ahead", "gauge", "Layers being brought in before a client asks.",
        blobs.ahead);
    one(page, "content_blobs", "gauge", "Blobs served from containerd's content store.",
        blobs.content_blobs);
    one(page, "content_damaged_total", "counter",
        "Files of the content store whose bytes were not the digest's.", blobs.content_wrong);
    one(page, "content_gone_total", "counter",
        "Blobs that are not served from the content store any more.", blobs.content_gone);
    one(page, "content_given_up_bytes_total", "counter",
        "Bytes of the cache given up because containerd has them.", blobs.content_given_up_bytes);
    one(page, "memory_tier_bytes", "gauge", "Pieces kept in memory.", blobs.memory_bytes);
    one(page, "cache_scrubbed_total", "counter", "Stored pieces read back unasked, to find damage.",
        blobs.scrubbed);
}

static void orders_page(struct page *page, struct agent *agent)
{
    struct pulls_counters orders;
    struct order_serve_counters served;
    struct dial_back_counters dials;
    pulls_counters(agent->pulls, &orders);
    family(page, "orders_total", "counter",
           "Images to be pulled on the operator's order, by what became of them.");
    labelled(page, "outcome", "begun", orders.begun);
    labelled(page, "outcome", "done", orders.done);
    labelled(page, "outcome", "failed", orders.failed);
    labelled(page, "outcome", "cancelled", orders.cancelled);
    labelled(page, "outcome", "refused", orders.refused);
    order_serve_counters(agent->serve, &served);
    family(page, "orders_of_peers_total", "counter",
           "Blobs that other nodes asked for, by what became of them; refused: answers.");
    labelled(page, "outcome", "begun", served.begun);
    labelled(page, "outcome", "done", served.done);
    labelled(page, "outcome", "failed", served.failed);
    labelled(page, "outcome", "forgotten", served.forgotten);
    labelled(page, "outcome", "refused", served.refused);
    one(page, "orders_unauthorized_total", "counter",
        "Requests on the port for orders without its token.", agent->prefetch.unauthorized);
    family(page, "orders_bytes_total", "counter",
           "Bytes that came for orders now over, by where from.");
    labelled(page, "source", "origin", orders.origin_bytes);
    labelled(page, "source", "peer", orders.peer_bytes);
    dial_back_counters(agent->dial, &dials);
    family(page, "dials_back_total", "counter",
           "Connections tried for other nodes that ask whether they can be reached.");
    labelled(page, "outcome", "reached", dials.reached);
    labelled(page, "outcome", "failed", dials.failed);
    labelled(page, "outcome", "refused", dials.refused);
}

static void pulls_page(struct page *page, struct agent *agent)
{
    const struct mirror_counters *mirror = mirror_counters(agent->mirror);
    family(page, "requests_total", "counter", "Client requests, by kind.");
    labelled(page, "kind", "manifest", mirror->manifests);
    labelled(page, "kind", "manifest_cached", mirror->manifests_cached);
    labelled(page, "kind", "blob", mirror->blobs);
    labelled(page, "kind", "passed", mirror->passed);
    labelled(page, "kind", "refused", mirror->refused);
    family(page, "blob_pulls_total", "counter", "Blob answers, by outcome.");
    labelled(page, "outcome", "done", mirror->blobs_done);
    labelled(page, "outcome", "cut", mirror->blobs_cut);
    family(page, "fallbacks_total", "counter", "Answers around the mesh, by reason.");
    labelled(page, "reason", "configured", mirror->direct);
    labelled(page, "reason", "no_first_byte", mirror->direct_fallback);
    one(page, "around_bytes_total", "counter", "Bytes given to clients around the mesh.",
        mirror->direct_bytes);
    one(page, "tags_unchanged_total", "counter",
        "Tags that the registry confirmed without sending.", mirror->tags_unchanged);
    one(page, "tags_joined_total", "counter", "Requests that waited for another one's tag.",
        mirror->tags_joined);
    one(page, "registry_unasked_total", "counter",
        "Requests answered on a registry's word of before, since it was silent moments ago.",
        mirror->unasked);
    one(page, "tags_stale_total", "counter", "Tags answered while their registry was down.",
        mirror->tags_stale);
    one(page, "tags_off_total", "counter", "Tags left to clients, as a rule says.",
        mirror->tags_off);
    one(page, "tags_moved_total", "counter", "Tags that moved though a rule says `fixed`.",
        mirror->tags_moved);
    one(page, "direct_beside_total", "counter",
        "Questions for a blob asked beside a mesh that gave nothing of it yet.",
        mirror->direct_beside);
    one(page, "direct_repeated_total", "counter",
        "Questions for a blob asked once more beside one without an answer.",
        mirror->direct_repeated);
    family(page, "prefetched_layers_total", "counter",
           "Layers brought in before a client asked, by what became of them.");
    labelled(page, "outcome", "begun", mirror->ahead_begun);
    labelled(page, "outcome", "used", mirror->ahead_used);
    labelled(page, "outcome", "unused", mirror->ahead_unused);
    labelled(page, "outcome", "failed", mirror->ahead_failed);
    one(page, "range_prefetches_total", "counter",
        "Layers read by ranges of which the rest was brought in, too.", mirror->rests_begun);
    one(page, "registry_unavailable_total", "counter", "Requests the registry did not answer.",
        mirror->unavailable);
    family(page, "first_byte_seconds", "histogram", "Time to a blob's first byte.");
    times(page, mirror_first_byte_bounds_ms, &mirror->first_byte);
    family(page, "blob_pull_seconds", "histogram",
           "Time to a blob's last byte, of answers by the mesh that were given whole.");
    times(page, mirror_pull_bounds_ms, &mirror->pull);
}

static uint64_t accepts_failed(const struct server *server)
{
    struct server_counters counters;
    server_counters(server, &counters);
    return counters.accepts_failed;
}

/* A label has no byte that would need an escape (label_set). */
static void zones_page(struct page *page, const struct gossip *gossip)
{
    struct zone_counts zones;
    zone_counts_of(gossip, &zones);
    family(page, "zone_members", "gauge",
           "Members of the mesh, by zone and state; beyond 64 zones `other`.");
    for (uint32_t i = 0; i < zones.count; i++) {
        const struct zone_row *row = &zones.rows[i];
        put(page, "shoal_zone_members{zone=\"%s\",state=\"alive\"} %u\n", row->zone.text,
            row->alive);
        put(page, "shoal_zone_members{zone=\"%s\",state=\"suspect\"} %u\n", row->zone.text,
            row->suspect);
        put(page, "shoal_zone_members{zone=\"%s\",state=\"leaving\"} %u\n", row->zone.text,
            row->leaving);
    }
}

static void mesh_page(struct page *page, struct agent *agent)
{
    struct gossip_stats gossip;
    struct dht_stats dht;
    struct node_counters node;
    gossip_stats(node_gossip(agent->node), &gossip);
    dht_stats(node_dht(agent->node), &dht);
    node_counters(agent->node, &node);
    family(page, "members", "gauge", "Members of the mesh, by state.");
    labelled(page, "state", "alive", gossip.alive);
    labelled(page, "state", "suspect", gossip.suspect);
    labelled(page, "state", "leaving", gossip.leaving);
    zones_page(page, node_gossip(agent->node));
    one(page, "member_deaths_total", "counter", "Members declared dead.", gossip.deaths);
    one(page, "suspicions_total", "counter", "Members suspected.", gossip.suspicions);
    one(page, "lookups_total", "counter", "DHT lookups.", dht.lookups);
    one(page, "lookup_hops_total", "counter", "Sum of hops over lookups.", dht.hops_sum);
    one(page, "provider_records", "gauge", "Provider records kept for others.", dht.records);
    one(page, "sessions", "gauge", "Sessions with other nodes now.", node.sessions);
    one(page, "handshakes_total", "counter", "Sessions established.", node.handshakes);
    family(page, "rejected_total", "counter", "What outsiders and broken peers sent, by reason.");
    labelled(page, "reason", "datagram_auth", node.datagrams_auth);
    labelled(page, "reason", "datagram_replay", node.datagrams_replay);
    labelled(page, "reason", "datagram_keys", node.datagrams_keys);
    labelled(page, "reason", "datagram_malformed", node.datagrams_malformed);
    labelled(page, "reason", "message", node.messages_rejected);
    labelled(page, "reason", "handshake_auth", node.handshakes_auth);
    labelled(page, "reason", "session_protocol", node.links_closed_protocol);
    family(page, "skipped_total", "counter",
           "What a newer version sent and this one does not know, and answers too late, by kind.");
    labelled(page, "kind", "message", node.messages_skipped);
    labelled(page, "kind", "frame", node.frames_skipped);
    family(page, "secret_reloads_total", "counter",
           "Cluster secrets read again because list or files changed, by outcome.");
    labelled(page, "outcome", "ok", node.secret_reloads);
    labelled(page, "outcome", "failed", node.secret_reload_failures);
    family(page, "accepts_failed_total", "counter",
           "Pauses in taking connections, for want of file descriptors or memory, by port.");
    labelled(page, "port", "mesh", node.accepts_failed);
    labelled(page, "port", "client", accepts_failed(agent->client));
    labelled(page, "port", "admin", accepts_failed(agent->admin));
    if (agent->tls_client != NULL)
        labelled(page, "port", "tls", accepts_failed(agent->tls_client));
    family(page, "mesh_bytes_total", "counter", "Bytes on the mesh sockets.");
    put(page, "shoal_mesh_bytes_total{transport=\"tcp\",direction=\"in\"} %" PRIu64 "\n",
        node.tcp_bytes_in);
    put(page, "shoal_mesh_bytes_total{transport=\"tcp\",direction=\"out\"} %" PRIu64 "\n",
        node.tcp_bytes_out);
    put(page, "shoal_mesh_bytes_total{transport=\"udp\",direction=\"in\"} %" PRIu64 "\n",
        node.datagram_bytes_in);
    put(page, "shoal_mesh_bytes_total{transport=\"udp\",direction=\"out\"} %" PRIu64 "\n",
        node.datagram_bytes_out);
}

static void tls_page(struct page *page, struct agent *agent)
{
    struct server_counters server;
    struct tls_counters tls;
    if (agent->tls_client == NULL)
        return;
    server_counters(agent->tls_client, &server);
    tls_counters(agent->tls, &tls);
    one(page, "tls_connections", "gauge", "Connections of clients by TLS.", server.connections);
    one(page, "tls_malformed_total", "counter", "Requests by TLS refused as malformed.",
        server.malformed);
    family(page, "tls_handshakes_total", "counter", "TLS handshakes of clients, by outcome.");
    labelled(page, "outcome", "done", tls.handshakes);
    labelled(page, "outcome", "failed", tls.handshakes_failed);
    labelled(page, "outcome", "plain_http", tls.plain);
    labelled(page, "outcome", "timeout", server.handshakes_late);
    labelled(page, "outcome", "refused", server.refused);
    family(page, "tls_reloads_total", "counter", "Certificates read again, by outcome.");
    labelled(page, "outcome", "done", tls.reloads);
    labelled(page, "outcome", "failed", tls.reload_failures);
    one(page, "tls_certificate_expiry_seconds", "gauge",
        "When the first certificate in use ends, seconds since 1970.", tls_expires_s(agent->tls));
}

static void cache_page(struct page *page, struct agent *agent)
{
    struct cache_stats cache;
    struct server_counters client;
    const struct origin_counters *origin = origin_counters(curl_loop_origin(agent->curl));
    cache_stats(agent->cache, &cache);
    server_counters(agent->client, &client);
    one(page, "cache_bytes", "gauge", "Bytes in the cache.", cache.bytes);
    one(page, "cache_capacity_bytes", "gauge", "Room of the cache.", cache.capacity_bytes);
    one(page, "cache_hits_total", "counter", "Pieces found in the cache.", cache.hits);
    one(page, "cache_misses_total", "counter", "Pieces not found in the cache.", cache.misses);
    one(page, "cache_evictions_total", "counter", "Segments evicted.", cache.evictions);
    one(page, "cache_corrupt_total", "counter", "Stored pieces that failed their hash.",
        cache.corrupt);
    one(page, "cache_degraded", "gauge", "1 while the cache refuses writes.", cache.degraded);
    one(page, "origin_requests_total", "counter", "Requests to registries.", origin->requests);
    one(page, "origin_retries_total", "counter", "Requests repeated.", origin->retries);
    one(page, "origin_resumes_total", "counter", "Cut bodies resumed.", origin->resumes);
    one(page, "origin_queued_total", "counter",
        "Requests that waited for a registry's connections.", origin->queued);
    one(page, "origin_rests_total", "counter", "Registries and stores found silent.",
        origin->rests);
    one(page, "origin_rested_total", "counter", "Requests not made to one that rests.",
        origin->rested);
    one(page, "origin_insisted_total", "counter",
        "Requests made to one that rests, for a pull under way.", origin->insisted);
    one(page, "origin_throttled_total", "counter", "Pauses of bodies over a rate limit.",
        origin->throttled);
    one(page, "client_connections", "gauge", "Connections of clients.", client.connections);
    const struct turns_counters *turns = turns_counters(agent->turns);
    family(page, "client_requests", "gauge", "Requests of clients now, by state.");
    labelled(page, "state", "running", turns->running);
    labelled(page, "state", "waiting", turns->waiting);
    one(page, "client_requests_waited_total", "counter", "Requests that had to wait for a turn.",
        turns->waited);
    one(page, "client_requests_late_total", "counter", "Requests that waited in vain: 503.",
        turns->late);
    one(page, "client_malformed_total", "counter", "Requests refused as malformed.",
        client.malformed);
}

static void acr_page(struct page *page, struct agent *agent)
{
    const struct acr *acr = acr_part_acr(agent->acr);
    struct acr_counters counters;
    struct acr_view view;
    uint64_t vpc = 0, internet = 0, unknown = 0, troubled = 0;
    if (acr == NULL)
        return;
    for (unsigned i = 0; acr_at(acr, i, &view); i++) {
        vpc += view.endpoint[0] != '\0' && view.through_vpc;
        internet += view.endpoint[0] != '\0' && !view.through_vpc;
        unknown += view.endpoint[0] == '\0';
        troubled += view.why[0] != '\0';
    }
    acr_counters(acr, &counters);
    family(page, "acr_instances", "gauge", "ACR instances, by how they are reached.");
    labelled(page, "through", "vpc", vpc);
    labelled(page, "through", "internet", internet);
    labelled(page, "through", "nothing", unknown);
    one(page, "acr_instances_troubled", "gauge",
        "ACR instances of which the last answer was not good: /status says why.", troubled);
    one(page, "acr_rounds_total", "counter", "Rounds of questions about ACR instances.",
        counters.rounds);
    one(page, "acr_rounds_failed_total", "counter", "Rounds with an answer that was not good.",
        counters.rounds_failed);
    one(page, "acr_retries_total", "counter", "Questions to the cloud's APIs repeated.",
        counters.retries);
    family(page, "acr_refreshes_total", "counter", "Credentials for the cloud's APIs fetched.");
    labelled(page, "outcome", "done", counters.refreshes);
    labelled(page, "outcome", "failed", counters.refreshes_failed);
    one(page, "acr_hosts_dropped_total", "counter",
        "Names of ACR instances left out: no host name, another instance's, or over a limit.",
        counters.hosts_dropped);
}

char *metrics_text(struct agent *agent, size_t *bytes)
{
    struct page page = {0};
    bytes_page(&page, agent);
    pulls_page(&page, agent);
    orders_page(&page, agent);
    mesh_page(&page, agent);
    cache_page(&page, agent);
    acr_page(&page, agent);
    tls_page(&page, agent);
    if (page.failed) {
        (void)loop_alloc(NULL, page.text, 0);
        return NULL;
    }
    *bytes = page.used;
    return page.text;
}
