/* SPDX-License-Identifier: Apache-2.0 */
/* How orders fare, as JSON; see pull.h. */
#include "pull_internal.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"

static const char *const states[] = {"",          "waiting", "resolving", "running",
                                     "spreading", "done",    "failed",    "cancelled"};
static const char *const blob_states[] = {"waiting", "running", "done", "failed"};

static json_int_t number(uint64_t value)
{
    return value > INT64_MAX ? INT64_MAX : (json_int_t)value;
}

const char *pull__platform_text(const struct pull_order *order, char *out, size_t out_bytes)
{
    const struct platform *platform = &order->platform;
    (void)snprintf(out, out_bytes, "%s/%s%s%s", platform->os, platform->architecture,
                   platform->variant[0] == '\0' ? "" : "/", platform->variant);
    return order->all_platforms ? "all" : out;
}

static const char *image_text(const struct image_name *image, char *out, size_t out_bytes)
{
    char digest[DIGEST_TEXT_BYTES] = "";
    if (image->has_digest)
        (void)digest_text(&image->digest, digest);
    (void)snprintf(out, out_bytes, "%s/%s%s%s%s%s", image->registry, image->repository,
                   image->tag[0] == '\0' ? "" : ":", image->tag, image->has_digest ? "@" : "",
                   digest);
    return out;
}

static const char *on_text(const struct pull_order *order, char out[16])
{
    static const char *const names[] = {"local", "zone", "all"};
    if (order->on != PULL_ON_COUNT)
        return names[order->on];
    (void)snprintf(out, 16, "%u", (unsigned)order->on_count);
    return out;
}

/* The first so many nodes that do not have it are named. */
#define TROUBLES_MAX 16

static void add_nodes(const struct pull *pull, json_t *object)
{
    uint32_t counts[PULL_NODE_FAILED + 1] = {0};
    json_t *troubles = json_array();
    char on[16];
    for (uint32_t i = 0; i < pull->node_count; i++) {
        const struct pull_node *node = &pull->nodes[i];
        char addr[PEER_ADDR_TEXT_BYTES];
        counts[node->state]++;
        if (node->state < PULL_NODE_REFUSED || json_array_size(troubles) == TROUBLES_MAX)
            continue;
        (void)json_array_append_new(troubles, json_pack("{s:s,s:s}", "addr",
                                                        peer_addr_text(&node->addr, addr), "error",
                                                        pull__node_reason(node)));
    }
    (void)json_object_set_new(object, "on", json_string(on_text(&pull->order, on)));
    (void)json_object_set_new(
        object, "nodes",
        json_pack("{s:i,s:i,s:i,s:i,s:i,s:i}", "all", (int)pull->node_count, "waiting",
                  (int)counts[PULL_NODE_WAITING], "running", (int)counts[PULL_NODE_ACTIVE], "done",
                  (int)counts[PULL_NODE_DONE], "refused", (int)counts[PULL_NODE_REFUSED], "failed",
                  (int)counts[PULL_NODE_FAILED]));
    (void)json_object_set_new(object, "troubles", troubles);
}

static json_t *summary(const struct pull *pull)
{
    char image[HOST_BYTES_MAX + REPOSITORY_BYTES_MAX + TAG_BYTES_MAX + DIGEST_TEXT_BYTES + 8];
    char platform[3 * PLATFORM_PART_BYTES], digest[DIGEST_TEXT_BYTES] = "";
    uint64_t bytes = 0, have = 0, origin = 0, peer = 0;
    uint64_t end_us = pull__over(pull) ? pull->ended_us : pull__now_us(pull);
    for (uint32_t i = 0; i < pull->blob_count; i++) {
        bytes += pull->blobs[i].size_bytes;
        have += pull->blobs[i].have_bytes;
        origin += pull->blobs[i].origin_bytes;
        peer += pull->blobs[i].peer_bytes;
    }
    if (pull->has_digest)
        (void)digest_text(&pull->digest, digest);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "id", pull->id, "image",
                     image_text(&pull->order.image, image, sizeof image), "platform",
                     pull__platform_text(&pull->order, platform, sizeof platform), "digest", digest,
                     "state", states[pull->state], "error", pull->error, "bytes", number(bytes),
                     "have_bytes", number(have), "origin_bytes", number(origin), "peer_bytes",
                     number(peer), "took_ms", number((end_us - pull->began_us) / 1000));
}

json_t *pulls_json(struct pulls *pulls, const char *id)
{
    struct pull *pull = pulls->newest;
    while (pull != NULL && strcmp(pull->id, id) != 0)
        pull = pull->next;
    if (pull == NULL)
        return NULL;
    pull->asked_us = pull__now_us(pull);
    json_t *object = summary(pull), *list = json_array();
    for (uint32_t i = 0; i < pull->blob_count; i++) {
        const struct pull_blob *one = &pull->blobs[i];
        char digest[DIGEST_TEXT_BYTES];
        (void)json_array_append_new(
            list,
            json_pack("{s:s,s:I,s:I,s:I,s:I,s:s,s:s}", "digest", digest_text(&one->digest, digest),
                      "bytes", number(one->size_bytes), "have_bytes", number(one->have_bytes),
                      "origin_bytes", number(one->origin_bytes), "peer_bytes",
                      number(one->peer_bytes), "state", blob_states[one->state], "error",
                      one->err == 0 ? "" : err_text(one->err)));
    }
    (void)json_object_set_new(object, "blobs", list);
    add_nodes(pull, object);
    return object;
}

json_t *pulls_list(const struct pulls *pulls)
{
    json_t *list = json_array();
    for (const struct pull *pull = pulls->newest; pull != NULL; pull = pull->next)
        (void)json_array_append_new(list, summary(pull));
    return json_pack("{s:o}", "pulls", list);
}
