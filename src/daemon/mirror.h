/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry mirror that container runtimes talk to: routes of the OCI pull API, who may read
 * what (ACL-1..4), manifests and tags from the origin, blobs through live blobs. README's walk
 * begins here: mirror.c -> mirror_manifest.c -> mirror_blob.c -> blob_reader.c.
 */
#ifndef SHOAL_DAEMON_MIRROR_H
#define SHOAL_DAEMON_MIRROR_H

#include "blob.h"
#include "config.h"
#include "http_server.h"
#include "manifest_store.h"
#include "registry.h"

struct mirror_config {
    struct loop *loop;
    const struct config *config; /* mode is read from it at each request */
    struct registry_table *registries;
    struct registries configured; /* what the table was made with */
    struct node *node;
    struct blobs *blobs;
    struct origin *origin;
    struct grants *grants;
    struct buffer_pool *pool;
};

/* How long things took, by the first bound that they kept; the last bucket has none. */
#define MIRROR_TIME_BUCKETS 10
struct mirror_times {
    uint64_t count[MIRROR_TIME_BUCKETS + 1];
    uint64_t sum_us;
};
/* Upper bounds of the buckets, ms: to a first byte, and to the last one. */
extern const uint32_t mirror_first_byte_bounds_ms[MIRROR_TIME_BUCKETS];
extern const uint32_t mirror_pull_bounds_ms[MIRROR_TIME_BUCKETS];

struct mirror_counters {
    uint64_t manifests, manifests_cached, blobs, accelerated, passed, refused, unavailable,
        wrong_manifests;
    uint64_t blobs_done, blobs_cut, direct, direct_fallback; /* direct: around the mesh */
    uint64_t direct_bytes;                                   /* given to clients by those */
    uint64_t unasked;         /* on a stale grant, of a registry that was silent a moment ago */
    uint64_t direct_beside;   /* questions asked beside a mesh that gave nothing yet */
    uint64_t direct_repeated; /* questions asked once more beside a silent one */
    /* Layers that a client had not asked for: each begun one is used, unused or failed in the end.
     */
    uint64_t tags_stale, tags_unchanged, tags_joined, tags_moved, tags_off; /* mirror_tags.c */
    uint64_t ahead_begun, ahead_used, ahead_unused, ahead_failed;
    uint64_t rests_begun; /* layers read by ranges, of which all is brought in */
    struct mirror_times first_byte;
    struct mirror_times pull; /* of blobs_done */
};

struct mirror;
/* Everything in `config` is borrowed for the object's life. 0 or E_NO_MEMORY. */
MUST_USE int mirror_new(const struct mirror_config *config, struct mirror **out);
/* After the loop has run out; no exchange may be running. */
void mirror_free(struct mirror *mirror);
/* Handler for server_new; `arg` is the mirror. */
void mirror_handle(void *arg, struct exchange *exchange);
/*
 * A manifest of a repository that was read on the operator's order (pull.h), its digest checked:
 * kept, and what it references is known to belong to the repository (ACL-3). Who may read any of it
 * is asked for each request as ever (ACL-1).
 */
void mirror_keep_manifest(struct mirror *mirror, const struct manifest_key *key,
                          const struct manifest *manifest, const struct manifest_descriptor *found,
                          size_t count);
const struct mirror_counters *mirror_counters(const struct mirror *mirror); /* borrowed */

#endif
