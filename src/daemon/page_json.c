/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of the status page, put together; see page.h. Counters, not rates: the page makes
 * rates of two answers, so that nothing is kept here for who looks. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cli.h"
#include "digest.h"
#include "mirror.h"
#include "page.h"
#include "topology.h"

#define SHORT_DIGEST_DIGITS 12

json_t *page_number(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

json_t *page_text(const char *text)
{
    json_t *string = json_string(text);
    return string != NULL ? string : json_string("?");
}

json_t *page_digest(const struct digest *digest, bool names)
{
    char text[DIGEST_TEXT_BYTES];
    (void)digest_text(digest, text);
    char *digits = strchr(text, ':');
    if (!names && digits != NULL && strlen(digits + 1) > SHORT_DIGEST_DIGITS)
        digits[1 + SHORT_DIGEST_DIGITS] = '\0';
    return json_string(text);
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

/* Where bytes came from, where they went to, and why the registry was read. */
static void add_bytes(json_t *root, struct agent *agent)
{
    struct transfer_stats transfer;
    struct blobs_counters blobs;
    const struct mirror_counters *mirror = mirror_counters(agent->mirror);
    json_t *arrived = json_object(), *given = json_object(), *reads = json_object();
    transfer_stats(node_transfer(agent->node), &transfer);
    blobs_counters(agent->blobs, &blobs);
    set(arrived, "registry", page_number(blobs.piece_bytes[BLOB_FROM_ORIGIN]));
    for (int i = 0; i < DISTANCE_COUNT; i++)
        set(arrived, distance_name((enum distance)i), page_number(transfer.bytes_by_distance[i]));
    set(arrived, "around", page_number(mirror->direct_bytes));
    for (int i = 1; i < BLOB_TIER_COUNT; i++)
        set(given, blob_tier_name((enum blob_tier)i), page_number(blobs.client_bytes[i]));
    set(given, "around", page_number(mirror->direct_bytes));
    for (int i = 1; i < FETCH_REASON_COUNT; i++)
        set(reads, fetch_reason_name((enum fetch_reason)i),
            page_number(transfer.fetches_by_reason[i]));
    set(root, "arrived", arrived);
    set(root, "given", given);
    set(root, "sent", page_number(transfer.upload_bytes));
    set(root, "reads", reads);
    set(root, "around",
        json_pack("{s:o,s:o}", "configured", page_number(mirror->direct), "fallback",
                  page_number(mirror->direct_fallback)));
}

static json_t *swarms(struct agent *agent, bool names)
{
    struct blob_view views[PAGE_SWARMS_MAX];
    char map[BLOB_MAP_CELLS_MAX + 1];
    size_t found = blobs_active(agent->blobs, views, PAGE_SWARMS_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < found; i++) {
        const struct blob_view *view = &views[i];
        (void)blobs_map(agent->blobs, &view->digest, map);
        (void)json_array_append_new(
            list,
            json_pack("{s:o,s:o,s:o,s:o,s:o,s:i,s:i,s:s}", "digest",
                      page_digest(&view->digest, names), "size", page_number(view->size_bytes),
                      "have", page_number(view->have_bytes), "registry_bytes",
                      page_number(view->origin_bytes), "peer_bytes", page_number(view->peer_bytes),
                      "readers", (int)view->readers, "fetches", (int)view->fetches, "map", map));
    }
    return list;
}

static int more_bytes(const void *a, const void *b)
{
    const struct node_link_view *left = a, *right = b;
    uint64_t of_left = left->bytes_in + left->bytes_out;
    uint64_t of_right = right->bytes_in + right->bytes_out;
    return of_left < of_right ? 1 : of_left > of_right ? -1 : 0;
}

static json_t *sessions(struct agent *agent)
{
    struct node_link_view views[PAGE_SESSIONS_SEEN_MAX];
    size_t open = 0, found = node_links(agent->node, views, PAGE_SESSIONS_SEEN_MAX);
    json_t *list = json_array();
    while (open < found && views[open].established) /* they come first */
        open++;
    qsort(views, open, sizeof views[0], more_bytes);
    for (size_t i = 0; i < open && i < PAGE_SESSIONS_MAX; i++) {
        json_t *row = page_member_row(node_gossip(agent->node), &views[i].peer, &views[i].addr);
        set(row, "in", page_number(views[i].bytes_in));
        set(row, "out", page_number(views[i].bytes_out));
        (void)json_array_append_new(list, row);
    }
    return json_pack("{s:o,s:o}", "open", page_number(open), "rows", list);
}

static json_t *cache_figures(struct agent *agent)
{
    struct cache_stats cache;
    struct blobs_counters blobs;
    cache_stats(agent->cache, &cache);
    blobs_counters(agent->blobs, &blobs);
    return json_pack("{s:o,s:o,s:i,s:i,s:o,s:o,s:b,s:o,s:i}", "bytes", page_number(cache.bytes),
                     "capacity", page_number(cache.capacity_bytes), "blobs", (int)cache.blobs,
                     "pieces", (int)cache.pieces, "evicted", page_number(cache.evicted_bytes),
                     "corrupt", page_number(cache.corrupt), "degraded", (int)cache.degraded,
                     "memory", page_number(blobs.memory_bytes), "content_blobs",
                     (int)blobs.content_blobs);
}

static json_t *own_figures(struct agent *agent, bool names)
{
    char id[SHORT_HEX_BYTES], addr[PEER_ADDR_TEXT_BYTES];
    const struct topology *labels = &gossip_self(node_gossip(agent->node))->topology;
    uint64_t up_us = loop_now_us(&agent->loop) - agent->started_us;
    struct peer_addr stranger;
    char outsider[PEER_ADDR_TEXT_BYTES] = "";
    if (node_outsiders(agent->node, &stranger))
        (void)peer_addr_text(&stranger, outsider);
    return json_pack("{s:s,s:o,s:s,s:s,s:{s:o,s:o,s:o},s:o,s:o,s:b,s:s,s:b}", "version",
                     SHOAL_VERSION, "cluster", page_text(node_cluster_id(agent->node)), "id",
                     short_hex(node_self_id(agent->node)->bytes, id), "addr",
                     peer_addr_text(node_self_addr(agent->node), addr), "topology", "region",
                     page_text(labels->region.text), "zone", page_text(labels->zone.text),
                     "vswitch", page_text(labels->vswitch.text), "uptime_us", page_number(up_us),
                     "now", page_number(loop_wall_s()), "alone", (int)node_alone(agent->node),
                     "outsider", outsider, "names", (int)names);
}

char *page_json(struct agent *agent, bool names)
{
    json_t *root = own_figures(agent, names);
    if (root == NULL)
        return NULL;
    add_bytes(root, agent);
    set(root, "words", page_words());
    set(root, "members", page_members(node_gossip(agent->node), node_self_id(agent->node)));
    set(root, "sessions", sessions(agent));
    set(root, "swarms", swarms(agent, names));
    set(root, "pulls", page_pulls(agent, names));
    set(root, "cache", cache_figures(agent));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
