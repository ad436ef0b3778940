/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images brought in on the operator's order, before any client asks: the tag is resolved at the
 * registry, a platform of an index is chosen, and the manifests' blobs come in through the same
 * readers as clients' (leases, verification, cache), behind everything a client waits for.
 *
 * An order is the node's own: it reads with the node's credentials for that registry, `shared` or
 * not, else with none. It grants nothing: every client's request is authorised as ever (ACL-1),
 * and what the configuration keeps off the mesh (ACL-10) is not brought in.
 *
 * When all of it is here, other nodes may be asked to bring it in as well, from the mesh alone:
 * they get digests and sizes from us, and no credentials, names or tags (ACL-9).
 *
 * Bounded: PULLS_RUNNING_MAX at work, PULLS_MAX known in all, the rest waits or is refused; an
 * image larger than the cache is refused, for its first layers would be gone before its last are
 * there. Loop thread only.
 */
#ifndef SHOAL_DAEMON_PULL_H
#define SHOAL_DAEMON_PULL_H

#include <jansson.h>

#include "cache.h"
#include "image_name.h"
#include "mirror.h"

#define PULLS_RUNNING_MAX 3
#define PULLS_MAX         64 /* with those that are over: the oldest of these make room */
#define PULL_ID_BYTES     17 /* 16 hex digits */
#define PULL_ERROR_BYTES  512
/* Of one order: manifests of an index (one for each platform), and blobs of all of them. */
#define PULL_MANIFESTS_MAX 32
#define PULL_BLOBS_MAX     1024
/* Nobody asks how an attached order fares for so long: whoever gave it is gone, and it ends. */
#define PULL_ATTACHED_US (15ull * 1000000)

/* Which nodes are to have it. */
enum pull_on {
    PULL_ON_LOCAL = 0, /* this one */
    PULL_ON_ZONE,      /* all of its zone that are up */
    PULL_ON_ALL,       /* all that are up */
    PULL_ON_COUNT,     /* so many, this one and the nearest to it */
};

struct pulls_config {
    struct loop *loop;
    const struct config *config;
    struct registry_table *registries;
    struct cache *cache;
    struct blobs *blobs;
    struct node *node;
    struct origin *origin;
    struct grants *grants;
    struct mirror *mirror;
};

struct pull_order {
    struct image_name image;
    struct platform platform; /* os "": this node's own */
    bool all_platforms;
    bool attached; /* ends when nobody asks for it any more */
    enum pull_on on;
    uint32_t on_count; /* PULL_ON_COUNT: at least 1, else 0 */
};

struct pulls_counters {
    uint64_t begun, done, failed, cancelled; /* each begun one is one of the others in the end */
    uint64_t refused;                        /* orders that began nothing */
    uint64_t origin_bytes, peer_bytes;
};

struct pulls;
/* Everything in `config` is borrowed for the object's life. 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int pulls_new(const struct pulls_config *config, struct pulls **out);
void pulls_free(struct pulls *pulls); /* after the loop has run out; NULL is fine */
void pulls_counters(const struct pulls *pulls, struct pulls_counters *out);

/*
 * Takes an order. 0 with its id; the same order again while it is not over gives the same id. Else
 * one line for people in `error`: E_NOT_FOUND (no such registry is configured), E_DENIED (the
 * configuration keeps it off the mesh), E_UNSUPPORTED (mode passthrough, no cache), E_FULL (too
 * many wait), E_CLOSED (the agent stops), E_NO_MEMORY.
 */
MUST_USE int pulls_order(struct pulls *pulls, const struct pull_order *order,
                         char id[PULL_ID_BYTES], char error[PULL_ERROR_BYTES]);
/* How one fares, and that somebody asks: {id, image, platform, digest, state, error, bytes,
 * have_bytes, origin_bytes, peer_bytes, took_ms, blobs: [{digest, bytes, have_bytes, origin_bytes,
 * peer_bytes, state, error}], on, nodes: {all, waiting, running, done, refused, failed}, troubles:
 * [{addr, error}]}. The state is one of waiting, resolving, running, spreading (to other nodes),
 * done, failed, cancelled. NULL: there is no such order, or no memory. */
json_t *pulls_json(struct pulls *pulls, const char *id);
/* All of them without their blobs, the newest first; NULL without memory. */
json_t *pulls_list(const struct pulls *pulls);
/* What another node tells of blobs that it was asked for. */
void pulls_told(struct pulls *pulls, const struct mesh_order *order);
/* Ends one that is not over. False: there is no such order. */
bool pulls_cancel(struct pulls *pulls, const char *id);

#endif
