/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags: what the registry last said each one stands for, and what may be made of that.
 *
 * A tag is the registry's to say (INT-9), so each request asks it; but it asks for news only (If-
 * None-Match), requests that come while one is under way wait for its answer, and within `tags.ttl`
 * the last answer counts. A registry's rules say otherwise for tags by pattern: always ask, another
 * time, a tag that never moves, or one that clients are to resolve themselves. While the registry
 * is down, who was accepted before (ACL-6) hears what it said then, marked as stale. In every case
 * the caller's own right is what it would be without us.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "history.h"
#include "mirror_internal.h"

static struct tag_name name_of(const struct mirror_request *request)
{
    return (struct tag_name){request->registry->name, request->route.repository,
                             request->route.reference};
}

static bool is_tag(const struct mirror_request *request)
{
    return request->route.kind == HTTP_ROUTE_MANIFEST && !request->route.by_digest &&
           request->mirror->config.config->mode != CONFIG_MODE_PASSTHROUGH;
}

/* Of the Accept lines, in whatever order: dockerd's is random (CLIENTS §6). */
static uint64_t accept_hash(const struct mirror_request *request)
{
    const struct http_request *http = exchange_request(request->exchange);
    uint64_t sum = 0;
    for (unsigned i = 0; i < http->header_count; i++) {
        if (strcmp(http->headers[i].name, "accept") != 0)
            continue;
        uint64_t hash = 14695981039346656037ull; /* FNV-1a */
        for (const char *c = http->headers[i].value; *c != '\0'; c++)
            hash = (hash ^ (unsigned char)*c) * 1099511628211ull;
        sum += hash;
    }
    return sum;
}

static bool fact_find(const struct mirror_request *request, struct tag_fact *out)
{
    struct tag_name name = name_of(request);
    return is_tag(request) && tag_memory_find(request->mirror->tags, &name, out);
}

static const struct registry_tag_rule *rule_of(const struct mirror_request *request)
{
    return registry_tag_rule(request->registry, request->route.repository,
                             request->route.reference);
}

static bool is_fixed(const struct mirror_request *request)
{
    const struct registry_tag_rule *rule = rule_of(request);
    return rule != NULL && rule->resolve == REGISTRY_RESOLVE_FIXED;
}

bool mirror_tags__answer_off(struct mirror_request *request)
{
    const struct registry_tag_rule *rule = is_tag(request) ? rule_of(request) : NULL;
    if (rule == NULL || rule->resolve != REGISTRY_RESOLVE_OFF)
        return false;
    request->mirror->counters.tags_off++;
    exchange_error(request->exchange, 404, "MANIFEST_UNKNOWN",
                   "this tag is not resolved here (registries.tags): ask the registry");
    mirror_request__free(request);
    return true;
}

/* The registry's word counts, whatever a rule says; but whoever wrote it should hear of it. */
static void note_move(const struct mirror_request *request, const struct tag_fact *now)
{
    struct tag_fact before;
    if (!fact_find(request, &before) || before.accept_hash != now->accept_hash ||
        digest_equal(&before.digest, &now->digest) || !is_fixed(request))
        return;
    if (request->mirror->counters.tags_moved++ == 0)
        log_to(&request->mirror->config.loop->env, LOG_WARN,
               "mirror: a tag moved that registries.tags says is fixed registry=%s; further ones "
               "are counted (shoal_tags_moved_total)",
               request->registry->name);
}

void mirror_tags__learn(const struct mirror_request *request, const struct digest *digest,
                        const char *etag)
{
    struct tag_fact fact = {.digest = *digest,
                            .confirmed_us = mirror__now_us(request->mirror),
                            .accept_hash = accept_hash(request)};
    struct tag_name name = name_of(request);
    if (!is_tag(request))
        return;
    if (etag == NULL || text_copy(fact.etag, sizeof fact.etag, etag) != 0)
        fact.etag[0] = '\0';
    note_move(request, &fact);
    history_tag(blobs_history(request->mirror->config.blobs), request->registry->name,
                request->route.repository, request->route.reference, digest);
    tag_memory_put(request->mirror->tags, &name, &fact);
}

void mirror_tags__forget(const struct mirror_request *request)
{
    struct tag_name name = name_of(request);
    if (is_tag(request))
        tag_memory_forget(request->mirror->tags, &name);
}

/* Answers from memory, of a registry that is `down` or not; false: the manifest is not there any
 * more, or the registry is down and it is nothing that this client takes: another one may have
 * asked for it. Frees the request. */
static bool answer(struct mirror_request *request, const struct tag_fact *fact, bool down)
{
    struct mirror *mirror = request->mirror;
    const struct manifest_key key = {request->registry->name, request->route.repository,
                                     &fact->digest};
    struct manifest manifest;
    uint64_t age_s = (mirror__now_us(mirror) - fact->confirmed_us) / 1000000;
    char digest[DIGEST_TEXT_BYTES], age[24];
    if (!manifest_store_get(mirror->manifests, &key, &manifest) ||
        (down && !http_accepts(exchange_request(request->exchange), manifest.media_type)))
        return false;
    bool stale = down && !is_fixed(request);
    struct response response = {.status = 200};
    (void)snprintf(age, sizeof age, "%" PRIu64, age_s);
    response_add(&response, "Content-Type", manifest.media_type);
    response_add(&response, "Docker-Content-Digest", digest_text(&fact->digest, digest));
    response_add(&response, "Docker-Distribution-Api-Version", "registry/2.0");
    response_add(&response, "ETag", fact->etag[0] == '\0' ? NULL : fact->etag);
    response_add(&response, "Shoal-Source", "memory");
    if (stale) { /* RFC 9111 §5.5 has no better word for it than the one it inherited */
        response_add(&response, "Warning", "110 - \"Response is Stale\"");
        response_add(&response, "Shoal-Stale", age);
        mirror->counters.tags_stale++;
        log_to(&mirror->config.loop->env, LOG_INFO,
               "mirror: registry down, tag of %" PRIu64 " s ago registry=%s", age_s,
               request->registry->name);
    }
    mirror->counters.manifests_cached++;
    mirror_prefetch__touch(request, &fact->digest);
    exchange_respond(request->exchange, &response, manifest.bytes, manifest.byte_count);
    mirror_request__free(request);
    return true;
}

/* How long the registry's word on this tag counts; UINT64_MAX: always. */
static uint64_t ttl_us_of(const struct mirror_request *request)
{
    const struct registry_tag_rule *rule = rule_of(request);
    if (rule == NULL)
        return request->mirror->config.config->tag_ttl_us;
    return rule->resolve == REGISTRY_RESOLVE_FIXED ? UINT64_MAX : (uint64_t)rule->ttl_s * 1000000;
}

bool mirror_tags__answer_fresh(struct mirror_request *request)
{
    struct tag_fact fact;
    if (!fact_find(request, &fact) || fact.accept_hash != accept_hash(request))
        return false;
    uint64_t ttl_us = ttl_us_of(request);
    bool fresh = ttl_us == UINT64_MAX || fact.confirmed_us + ttl_us > request->started_us;
    return fresh && mirror__granted(request) && answer(request, &fact, false);
}

bool mirror_tags__answer_stale(struct mirror_request *request)
{
    struct tag_fact fact;
    uint64_t age_max_us = request->mirror->config.config->grant_stale_us;
    return fact_find(request, &fact) && mirror__granted_stale(request) &&
           mirror__now_us(request->mirror) - fact.confirmed_us < age_max_us &&
           answer(request, &fact, true);
}

/* Not for other media types: registries compare the tag's digest before they look at Accept
 * (distribution 2.8), and their 304 would make ours of what this client never gets from them. */
const char *mirror_tags__condition(struct mirror_request *request)
{
    struct tag_fact fact;
    /* Another Accept may get another document, or none: registries compare the ETag first. */
    if (!fact_find(request, &fact) || fact.etag[0] == '\0' ||
        fact.accept_hash != accept_hash(request) ||
        http_request_header(exchange_request(request->exchange), "if-none-match") != NULL)
        return NULL;
    const struct manifest_key key = {request->registry->name, request->route.repository,
                                     &fact.digest};
    if (!manifest_store_has(request->mirror->manifests, &key))
        return NULL;
    memcpy(request->etag, fact.etag, sizeof request->etag);
    return request->etag;
}

bool mirror_tags__answer_unchanged(struct mirror_request *request)
{
    struct tag_fact fact;
    if (!fact_find(request, &fact) || strcmp(fact.etag, request->etag) != 0)
        return false;
    mirror_tags__learn(request, &fact.digest, fact.etag);
    request->mirror->counters.tags_unchanged++;
    return answer(request, &fact, false);
}

/* ---- one question for all who ask the same ---- */

static bool same_question(const struct mirror_request *a, const struct mirror_request *b)
{
    return a->registry == b->registry && strcmp(a->route.repository, b->route.repository) == 0 &&
           strcmp(a->route.reference, b->route.reference) == 0 &&
           memcmp(a->credential_hash, b->credential_hash, sizeof a->credential_hash) == 0 &&
           exchange_request(a->exchange)->method == exchange_request(b->exchange)->method &&
           accept_hash(a) == accept_hash(b);
}

bool mirror_tags__join(struct mirror_request *request)
{
    struct mirror *mirror = request->mirror;
    if (!is_tag(request) || request->waited ||
        http_request_header(exchange_request(request->exchange), "if-none-match") != NULL)
        return false;
    for (struct mirror_request *other = mirror->tag_asked; other != NULL; other = other->tag_next) {
        if (other->leader != NULL || other->exchange == NULL || !same_question(other, request))
            continue;
        request->leader = other;
        mirror->counters.tags_joined++;
        break;
    }
    request->tag_listed = true;
    request->tag_next = mirror->tag_asked;
    mirror->tag_asked = request;
    return request->leader != NULL;
}

static void unlist(struct mirror_request *request)
{
    struct mirror_request **link = &request->mirror->tag_asked;
    while (*link != request)
        link = &(*link)->tag_next;
    *link = request->tag_next;
    request->tag_listed = false;
}

/* Somebody who waits for this request; NULL: nobody. */
static struct mirror_request *follower_of(const struct mirror_request *request)
{
    struct mirror_request *other = request->mirror->tag_asked;
    while (other != NULL && other->leader != request)
        other = other->tag_next;
    return other;
}

void mirror_tags__leave(struct mirror_request *request)
{
    struct mirror_request *follower;
    if (!request->tag_listed)
        return;
    unlist(request);
    while ((follower = follower_of(request)) != NULL) {
        unlist(follower);
        follower->leader = NULL;
        follower->waited = true; /* whatever the answer was: once is enough */
        mirror_manifest(follower);
    }
}
