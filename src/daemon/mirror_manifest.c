/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests: asked of the origin with the caller's own Authorization, checked against their digest
 * before a byte leaves (INT-2, INT-9), remembered by repository and digest. What an authorised
 * manifest references becomes readable through its repository (ACL-3).
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "history.h"
#include "log.h"
#include "mirror_internal.h"

static bool is_cached(const struct mirror_request *request)
{
    const struct manifest_key key = {request->registry->name, request->route.repository,
                                     &request->route.digest};
    return request->route.by_digest && manifest_store_has(request->mirror->manifests, &key);
}

/* Answers from memory, for callers whom the registry accepted for this repository. */
static bool answer_cached(struct mirror_request *request)
{
    struct mirror *mirror = request->mirror;
    const struct manifest_key key = {request->registry->name, request->route.repository,
                                     &request->route.digest};
    struct manifest manifest;
    uint64_t size;
    if (!request->route.by_digest ||
        !grants_linked(mirror->config.grants, request->registry->name, request->route.repository,
                       &request->route.digest, &size) ||
        !manifest_store_get(mirror->manifests, &key, &manifest))
        return false;
    struct response response = {.status = 200};
    response_add(&response, "Content-Type", manifest.media_type);
    response_add(&response, "Docker-Content-Digest", request->route.reference);
    response_add(&response, "Docker-Distribution-Api-Version", "registry/2.0");
    response_add(&response, "Shoal-Source", "memory");
    mirror->counters.manifests_cached++;
    mirror_prefetch__touch(request, &request->route.digest);
    exchange_respond(request->exchange, &response, manifest.bytes, manifest.byte_count);
    mirror_request__free(request);
    return true;
}

static void link_references(struct mirror_request *request, const struct digest *manifest,
                            const char *body, size_t bytes)
{
    size_t count = 0, room = MANIFEST_DESCRIPTORS_MAX * sizeof(struct manifest_descriptor);
    struct manifest_descriptor *found = loop_alloc(NULL, NULL, room);
    if (found == NULL)
        return;
    if (manifest_parse(body, bytes, found, MANIFEST_DESCRIPTORS_MAX, &count) == 0) {
        bool p2p = registry_p2p(request->registry, request->route.repository);
        for (size_t i = 0; i < count; i++) {
            mirror__link(request, &found[i].digest, found[i].size_bytes);
            if (p2p && !found[i].is_manifest)
                blobs_content_seen(request->mirror->config.blobs, &found[i].digest);
        }
        mirror_prefetch__manifest(request, manifest, found, count);
        history_manifest(blobs_history(request->mirror->config.blobs), manifest, found, count);
    }
    (void)loop_alloc(NULL, found, 0);
}

void mirror_keep_manifest(struct mirror *mirror, const struct manifest_key *key,
                          const struct manifest *manifest, const struct manifest_descriptor *found,
                          size_t count)
{
    struct grants *grants = mirror->config.grants;
    int err =
        grants_link(grants, key->registry, key->repository, key->digest, manifest->byte_count);
    for (size_t i = 0; i < count; i++) {
        if (grants_link(grants, key->registry, key->repository, &found[i].digest,
                        found[i].size_bytes) != 0)
            err = E_NO_MEMORY; /* the next request asks the registry */
        if (!found[i].is_manifest)
            blobs_content_seen(mirror->config.blobs, &found[i].digest);
    }
    history_manifest(blobs_history(mirror->config.blobs), key->digest, found, count);
    if (err == 0 && manifest->media_type[0] != '\0')
        manifest_store_put(mirror->manifests, key, manifest);
}

/* The digest the answer must have: the one asked for, else the one the registry names. */
static bool digest_fits(const struct mirror_request *request, const char *body, size_t bytes,
                        struct digest *digest)
{
    const char *named = relay_header(request->relay, "docker-content-digest");
    *digest = (struct digest){.algorithm = DIGEST_SHA256};
    if (request->route.by_digest)
        *digest = request->route.digest;
    else if (named != NULL && digest_parse(named, strlen(named), digest) != 0)
        return false;
    struct digest made;
    digest_of(digest->algorithm, body, bytes, &made);
    bool known = request->route.by_digest || named != NULL;
    bool fits = !known || digest_equal(&made, digest);
    *digest = made;
    return fits;
}

static void take_manifest(struct mirror_request *request)
{
    struct mirror *mirror = request->mirror;
    size_t bytes;
    const char *body = relay_body(request->relay, &bytes);
    struct digest digest;
    if (bytes == 0 || !digest_fits(request, body, bytes, &digest)) {
        mirror->counters.wrong_manifests++;
        exchange_error(request->exchange, 502, "MANIFEST_INVALID",
                       "the registry's bytes do not match the digest");
        mirror_request__free(request);
        return;
    }
    char own[MANIFEST_TYPE_BYTES];
    const char *type = relay_header(request->relay, "content-type");
    if (type == NULL && manifest_media_type(body, bytes, own, sizeof own) == 0) {
        relay_set_type(request->relay, own);
        type = own;
    }
    const struct manifest_key key = {request->registry->name, request->route.repository, &digest};
    struct manifest manifest = {body, bytes, type};
    mirror__link(request, &digest, bytes);
    link_references(request, &digest, body, bytes);
    if (type != NULL)
        manifest_store_put(mirror->manifests, &key, &manifest);
    mirror_tags__learn(request, &digest, relay_header(request->relay, "etag"));
    relay_answer(request);
}

/* A HEAD names the digest, which is what a tag is for. */
static void take_head(const struct mirror_request *request)
{
    const char *named = relay_header(request->relay, "docker-content-digest");
    struct digest digest;
    if (named != NULL && digest_parse(named, strlen(named), &digest) == 0)
        mirror_tags__learn(request, &digest, relay_header(request->relay, "etag"));
}

static void ask(struct mirror_request *request);

/* Nothing new since we asked before: these credentials are good, and the answer is here. */
static void unchanged(struct mirror_request *request)
{
    mirror__grant(request, true);
    mirror__challenge(request, NULL);
    if (mirror_tags__answer_unchanged(request))
        return;
    relay_free(request->relay); /* it went from memory meanwhile */
    request->relay = NULL;
    request->etag[0] = '\0';
    ask(request);
}

static void answered(void *arg, int err)
{
    struct mirror_request *request = arg;
    int status = err == 0 ? relay_status(request->relay) : 0;
    bool get = exchange_request(request->exchange)->method == HTTP_GET;
    mirror_silence__heard(request, err, status);
    if (mirror__registry_down(err, status) &&
        ((mirror__granted_stale(request) && answer_cached(request)) ||
         mirror_tags__answer_stale(request)))
        return;
    if (err != 0) {
        mirror__unavailable(request, err);
        return;
    }
    if (status == 304 && request->etag[0] != '\0') {
        unchanged(request);
        return;
    }
    mirror__heed(request);
    if (status == 404)
        mirror_tags__forget(request);
    if (status == 200 && !get)
        take_head(request);
    if (status == 200 && get)
        take_manifest(request);
    else
        relay_answer(request);
}

static void ask(struct mirror_request *request)
{
    char path[REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 32];
    bool head = exchange_request(request->exchange)->method == HTTP_HEAD;
    (void)snprintf(path, sizeof path, "/v2/%s/manifests/%s", request->route.repository,
                   request->route.reference);
    int err = relay_start(request, ORIGIN_MANIFEST, head ? "HEAD" : "GET", path, answered, request);
    if (err != 0)
        mirror__unavailable(request, err);
}

void mirror_manifest(struct mirror_request *request)
{
    struct mirror *mirror = request->mirror;
    mirror->counters.manifests += request->waited ? 0 : 1;
    if (mirror_tags__answer_off(request))
        return;
    if (mirror__granted(request) && answer_cached(request))
        return;
    if (mirror_tags__answer_fresh(request) || mirror_tags__join(request))
        return;
    request->hurry = mirror__granted_stale(request) && is_cached(request);
    if (request->hurry && mirror_silence__known(request) && answer_cached(request)) {
        mirror->counters.unasked++;
        return;
    }
    (void)mirror_tags__condition(request);
    ask(request);
}
