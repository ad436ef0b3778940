/* SPDX-License-Identifier: Apache-2.0 */
/* /status: one JSON object with stable keys for programs and for `shoal status`. */
#include <jansson.h>
#include <stdlib.h>

#include "admin.h"
#include "bytes.h"
#include "cli.h"
#include "log.h"

#define LINKS_SHOWN_MAX   64
#define MEMBERS_SHOWN_MAX 2000
#define SWARMS_SHOWN_MAX  64

static json_int_t number(uint64_t value)
{
    return value > INT64_MAX ? INT64_MAX : (json_int_t)value;
}

const char *status_state_name(enum member_state state)
{
    switch (state) {
    case MEMBER_ALIVE:
        return "alive";
    case MEMBER_SUSPECT:
        return "suspect";
    case MEMBER_LEAVING:
        return "leaving";
    case MEMBER_DEAD:
        return "dead";
    case MEMBER_LEFT:
        return "left";
    default:
        return "unknown";
    }
}

static json_t *members(struct agent *agent)
{
    const struct gossip *gossip = node_gossip(agent->node);
    json_t *list = json_array();
    struct member member;
    for (size_t i = 0; i < MEMBERS_SHOWN_MAX && gossip_at(gossip, i, &member); i++) {
        char id[SHORT_HEX_BYTES], addr[PEER_ADDR_TEXT_BYTES];
        (void)json_array_append_new(
            list,
            json_pack("{s:s,s:s,s:s,s:s,s:s,s:i}", "id", short_hex(member.id.bytes, id), "addr",
                      peer_addr_text(&member.addr, addr), "state", status_state_name(member.state),
                      "zone", member.topology.zone.text, "vswitch", member.topology.vswitch.text,
                      "protocol_minor", (int)member.version_minor));
    }
    return list;
}

static json_t *links(struct agent *agent)
{
    struct node_link_view views[LINKS_SHOWN_MAX];
    size_t count = node_links(agent->node, views, LINKS_SHOWN_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        char addr[PEER_ADDR_TEXT_BYTES];
        (void)json_array_append_new(
            list,
            json_pack("{s:s,s:b,s:I,s:I,s:i}", "addr", peer_addr_text(&views[i].addr, addr),
                      "established", views[i].established, "bytes_in", number(views[i].bytes_in),
                      "bytes_out", number(views[i].bytes_out), "uploads", (int)views[i].uploads));
    }
    return list;
}

static json_t *bytes_by_source(struct agent *agent)
{
    struct transfer_stats transfer;
    struct blobs_counters blobs;
    transfer_stats(node_transfer(agent->node), &transfer);
    blobs_counters(agent->blobs, &blobs);
    const uint64_t *distance = transfer.bytes_by_distance;
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "origin", number(blobs.piece_bytes[BLOB_FROM_ORIGIN]),
        "peer", number(blobs.piece_bytes[BLOB_FROM_PEER]), "vswitch",
        number(distance[DISTANCE_VSWITCH]), "zone", number(distance[DISTANCE_ZONE]), "region",
        number(distance[DISTANCE_REGION]), "elsewhere", number(distance[DISTANCE_ELSEWHERE]),
        "uploaded", number(transfer.upload_bytes));
}

static json_t *swarm_figures(struct agent *agent)
{
    struct transfer_stats transfer;
    transfer_stats(node_transfer(agent->node), &transfer);
    json_t *fetches = json_object();
    for (int reason = 1; reason < FETCH_REASON_COUNT; reason++)
        (void)json_object_set_new(fetches, fetch_reason_name((enum fetch_reason)reason),
                                  json_integer(number(transfer.fetches_by_reason[reason])));
    return json_pack("{s:i,s:i,s:i,s:I,s:I,s:I,s:I,s:o}", "blobs", (int)transfer.blobs,
                     "neighbours", (int)transfer.neighbours, "inflight", (int)transfer.inflight,
                     "hedges", number(transfer.hedges), "duplicates", number(transfer.duplicates),
                     "messages_sent", number(transfer.messages_sent), "control_bytes",
                     number(transfer.bytes_sent), "fetches", fetches);
}

/* Blobs on their way. */
static json_t *swarms(struct agent *agent)
{
    struct blob_view views[SWARMS_SHOWN_MAX];
    size_t count = blobs_active(agent->blobs, views, SWARMS_SHOWN_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        char text[DIGEST_TEXT_BYTES];
        const struct blob_view *view = &views[i];
        (void)json_array_append_new(
            list,
            json_pack("{s:s,s:I,s:I,s:I,s:I,s:i,s:i}", "digest", digest_text(&view->digest, text),
                      "size_bytes", number(view->size_bytes), "have_bytes",
                      number(view->have_bytes), "origin_bytes", number(view->origin_bytes),
                      "peer_bytes", number(view->peer_bytes), "readers", (int)view->readers,
                      "fetches", (int)view->fetches));
    }
    return list;
}

/* What the mesh port meets: `shoal doctor` tells a blocked port from a secret that differs by it.
 */
static json_t *mesh_figures(struct agent *agent)
{
    struct node_counters now;
    node_counters(agent->node, &now);
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "datagrams_in", number(now.datagrams_in),
                     "datagrams_out", number(now.datagrams_out), "datagrams_auth",
                     number(now.datagrams_auth), "connects", number(now.connects),
                     "connects_failed", number(now.connects_failed), "handshakes",
                     number(now.handshakes), "handshakes_auth", number(now.handshakes_auth),
                     "bootstrap_failures", number(now.bootstrap_failures));
}

/* ACR instances: how they are reached, and what is wrong. */
static json_t *acr_instances(struct agent *agent)
{
    const struct acr *acr = acr_part_acr(agent->acr);
    json_t *list = json_array();
    struct acr_view view;
    for (unsigned i = 0; acr != NULL && acr_at(acr, i, &view); i++) {
        uint64_t age_us = loop_now_us(&agent->loop) - view.answered_us;
        (void)json_array_append_new(
            list, json_pack("{s:s,s:s,s:b,s:i,s:s,s:I}", "instance", view.instance, "endpoint",
                            view.endpoint, "vpc", (int)view.through_vpc, "hosts",
                            (int)view.host_count, "error", view.why, "answered_s_ago",
                            view.answered_us == 0 ? (json_int_t)-1 : number(age_us / 1000000)));
    }
    return list;
}

static json_t *label(const struct label *label, enum topology_source source)
{
    return json_pack("{s:s,s:s}", "value", label->text, "source", topology_source_name(source));
}

static json_t *own_labels(struct agent *agent)
{
    static const struct topology_view none;
    const struct topology_detect *detect = agent->topology.detect;
    const struct topology_view *view = detect == NULL ? &none : topology_detect_view(detect);
    const struct topology *labels = &view->labels;
    return json_pack("{s:o,s:o,s:o}", "region", label(&labels->region, view->region), "zone",
                     label(&labels->zone, view->zone), "vswitch",
                     label(&labels->vswitch, view->vswitch));
}

char *status_json(struct agent *agent)
{
    struct cache_stats cache;
    char id[SHORT_HEX_BYTES], addr[PEER_ADDR_TEXT_BYTES];
    cache_stats(agent->cache, &cache);
    uint64_t up_us = loop_now_us(&agent->loop) - agent->started_us;
    json_t *root =
        json_pack("{s:s,s:s,s:s,s:s,s:o,s:I,s:b,s:o,s:o,s:o,s:o,s:{s:I,s:I,s:i,s:i,s:b}}",
                  "version", SHOAL_VERSION, "cluster", node_cluster_id(agent->node), "id",
                  short_hex(node_self_id(agent->node)->bytes, id), "addr",
                  peer_addr_text(node_self_addr(agent->node), addr), "topology", own_labels(agent),
                  "uptime_s", number(up_us / 1000000), "alone", node_alone(agent->node), "members",
                  members(agent), "links", links(agent), "bytes", bytes_by_source(agent),
                  "transfer", swarm_figures(agent), "cache", "bytes", number(cache.bytes),
                  "capacity_bytes", number(cache.capacity_bytes), "blobs", (int)cache.blobs,
                  "pieces", (int)cache.pieces, "degraded", cache.degraded);
    if (root == NULL)
        return NULL;
    (void)json_object_set_new(root, "acr", acr_instances(agent));
    (void)json_object_set_new(root, "swarms", swarms(agent));
    (void)json_object_set_new(root, "mesh", mesh_figures(agent));
    char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return text;
}
