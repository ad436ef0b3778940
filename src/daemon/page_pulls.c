/* SPDX-License-Identifier: Apache-2.0 */
/* The status page's last pulls: who sent what, why the registry was read, and what went around the
 * mesh. The reasons' meanings are `explain`'s (history.h), told once for all pulls. See page.h. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "history.h"
#include "page.h"

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

static json_t *event_json(const char *reason, const struct history_event *event)
{
    return json_pack("{s:s,s:o,s:o}", "reason", reason, "count", page_number(event->count), "last",
                     page_number(event->last_wall_s));
}

static json_t *reads(const struct history_pull *pull)
{
    json_t *list = json_array();
    for (int i = 1; i < FETCH_REASON_COUNT; i++)
        if (pull->fetches[i].count > 0)
            (void)json_array_append_new(
                list, event_json(fetch_reason_name((enum fetch_reason)i), &pull->fetches[i]));
    return list;
}

static json_t *arounds(const struct history_pull *pull)
{
    json_t *list = json_array();
    for (int i = 1; i < AROUND_COUNT; i++)
        if (pull->around[i].count > 0)
            (void)json_array_append_new(
                list, event_json(history_around_name((enum history_around)i), &pull->around[i]));
    return list;
}

static int more_bytes(const void *a, const void *b)
{
    const struct history_peer *left = a, *right = b;
    return left->bytes < right->bytes ? 1 : left->bytes > right->bytes ? -1 : 0;
}

static json_t *peers(const struct gossip *gossip, const struct history_pull *pull)
{
    struct history_peer sorted[HISTORY_PEERS_MAX];
    json_t *list = json_array();
    memcpy(sorted, pull->peers, pull->peer_count * sizeof sorted[0]);
    qsort(sorted, pull->peer_count, sizeof sorted[0], more_bytes);
    for (uint32_t i = 0; i < pull->peer_count; i++) {
        json_t *row = page_member_row(gossip, &sorted[i].id, &sorted[i].addr);
        set(row, "bytes", page_number(sorted[i].bytes));
        set(row, "pieces", page_number(sorted[i].pieces));
        (void)json_array_append_new(list, row);
    }
    return list;
}

static json_t *given(const struct history_pull *pull)
{
    json_t *object = json_object();
    for (int i = 1; i < BLOB_TIER_COUNT; i++)
        set(object, blob_tier_name((enum blob_tier)i), page_number(pull->given_bytes[i]));
    return object;
}

static void add_troubles(json_t *object, const struct history_pull *pull)
{
    if (pull->failures.count > 0)
        set(object, "failed",
            json_pack("{s:o,s:s}", "count", page_number(pull->failures.count), "error",
                      err_text(pull->last_error)));
    if (pull->around_error != 0)
        set(object, "around_error", json_string(err_text(pull->around_error)));
}

static json_t *pull_json(struct agent *agent, const struct history_pull *pull, bool names)
{
    uint64_t end_us = pull->readers > 0 ? loop_now_us(&agent->loop) : pull->ended_us;
    json_t *object = json_pack(
        "{s:o,s:o,s:b,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "digest",
        page_digest(&pull->digest, names), "size", page_number(pull->size_bytes), "running",
        (int)(pull->readers > 0), "ahead", (int)pull->ahead, "began",
        page_number(pull->began_wall_s), "took_ms", page_number((end_us - pull->began_us) / 1000),
        "registry_bytes", page_number(pull->origin_bytes), "around_bytes",
        page_number(pull->around_bytes), "peers", peers(node_gossip(agent->node), pull),
        "other_peer_bytes", page_number(pull->other_peer_bytes), "given", given(pull), "reads",
        reads(pull), "around", arounds(pull));
    add_troubles(object, pull);
    if (names) {
        set(object, "registry", page_text(pull->registry));
        set(object, "repository", page_text(pull->repository));
    }
    return object;
}

json_t *page_pulls(struct agent *agent, bool names)
{
    const struct history *history = blobs_history(agent->blobs);
    const struct history_pull *pull;
    json_t *list = json_array();
    for (unsigned i = 0; i < PAGE_PULLS_MAX && (pull = history_find(history, NULL, i)) != NULL; i++)
        (void)json_array_append_new(list, pull_json(agent, pull, names));
    return list;
}

json_t *page_words(void)
{
    json_t *of_reads = json_object(), *of_around = json_object();
    for (int i = 1; i < FETCH_REASON_COUNT; i++)
        set(of_reads, fetch_reason_name((enum fetch_reason)i),
            json_string(history_fetch_text((enum fetch_reason)i)));
    for (int i = 1; i < AROUND_COUNT; i++)
        set(of_around, history_around_name((enum history_around)i),
            json_string(history_around_text((enum history_around)i)));
    return json_pack("{s:o,s:o}", "reads", of_reads, "around", of_around);
}
