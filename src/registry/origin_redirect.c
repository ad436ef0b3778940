/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redirects, followed by us and not by libcurl (ORG-3): at most five hops, never from https to
 * http, credentials only while scheme, host and port are the registry's and never again once they
 * were not. The target of a blob's redirect is remembered for a minute, so that the segments of one
 * blob do not ask the registry once each (a node alone would cost it more than no mesh at all).
 */
#include "origin.h"

#include <string.h>

#include "address.h"
#include "digest.h"
#include "log.h"

bool origin__is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* A redirect may not name a cloud's credential service, whatever addresses are allowed (ORG-2). Of
 * what lies behind a proxy we see no address but one that is named, in a spelling that we read. */
static bool host_forbidden(const struct origin_fetch *fetch, const struct url_parts *url)
{
    struct peer_addr addr;
    enum address_class class;

    if (peer_addr_parse(url->host, 1, &addr) != 0)
        return url__is_number(url->host, strlen(url->host));
    class = address__class(addr.ip);
    if (class == ADDRESS_PRIVATE && fetch->proxy[0] != '\0')
        return !address_ranges_hold(&fetch->allow_private, addr.ip);
    return class == ADDRESS_METADATA || class == ADDRESS_REFUSED;
}

int origin__redirect_note(struct origin_fetch *fetch, const struct fetch_response *response)
{
    const struct env *env = &fetch->origin->env;
    const char *location = fetch_response_header(response, "location");
    struct url_parts next;

    if (location == NULL || fetch->hops >= ORIGIN_HOPS_MAX)
        return E_REFUSED;
    if (fetch->location == NULL)
        fetch->location = env->alloc(env->host, NULL, URL_BYTES_MAX + 1);
    if (fetch->location == NULL)
        return E_NO_MEMORY;
    if (url__resolve(&fetch->hop_url, location, fetch->location, URL_BYTES_MAX + 1) != 0 ||
        url__parse(fetch->location, strlen(fetch->location), &next) != 0)
        return E_REFUSED;
    if ((fetch->hop_url.https && !next.https) || host_forbidden(fetch, &next))
        return E_REFUSED;
    return 0;
}

int origin__redirect_follow(struct origin_fetch *fetch)
{
    char *next = fetch->location;

    fetch->location = fetch->url;
    fetch->url = next;
    /* It parsed when it was noted. */
    if (url__parse(fetch->url, strlen(fetch->url), &fetch->hop_url) != 0)
        return E_INVALID;
    if (!url__same_origin(&fetch->hop_url, &fetch->registry_url))
        fetch->away = true;
    fetch->hops++;
    fetch->origin->counters.redirects++;
    return origin__send(fetch);
}

static void target_key(const struct origin_fetch *fetch, uint8_t out[32])
{
    const char *path = fetch->request.path_and_query;
    const char *secret = fetch->request.authorization != NULL ? fetch->request.authorization : "";
    uint8_t scope[32], who[32];

    hmac_sha256(fetch->origin->key, fetch->registry_name, strlen(fetch->registry_name) + 1, path,
                strlen(path), scope);
    hmac_sha256(fetch->origin->key, fetch->request.credential_hash, 32, secret, strlen(secret),
                who);
    hmac_sha256(fetch->origin->key, scope, sizeof scope, who, sizeof who, out);
}

static void target_clear(struct origin *origin, struct origin_target *target)
{
    if (target->url != NULL) {
        explicit_bzero(target->url, strlen(target->url));
        (void)origin->env.alloc(origin->env.host, target->url, 0);
    }
    *target = (struct origin_target){0};
}

static struct origin_target *target_find(struct origin *origin, const uint8_t key[32])
{
    for (size_t i = 0; i < ORIGIN_TARGETS_MAX; i++) {
        struct origin_target *target = &origin->targets[i];

        if (target->url != NULL && memcmp(target->key, key, 32) == 0)
            return target;
    }
    return NULL;
}

bool origin__target_use(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    struct origin_target *target;
    uint8_t key[32];

    if (fetch->request.kind != ORIGIN_BLOB || fetch->head_only || fetch->handed_url != NULL)
        return false;
    target_key(fetch, key);
    target = target_find(origin, key);
    if (target == NULL)
        return false;
    if (origin->now_us >= target->expires_us ||
        text_copy(fetch->url, URL_BYTES_MAX + 1, target->url) != 0 ||
        url__parse(fetch->url, strlen(fetch->url), &fetch->hop_url) != 0) {
        target_clear(origin, target);
        return false;
    }
    fetch->hops = 1;
    fetch->away = true;
    fetch->remembered = true;
    origin->counters.redirects_reused++;
    return true;
}

bool origin__target_borrow(struct origin_fetch *fetch)
{
    const struct origin_target *target;
    uint8_t key[32];

    if (fetch->request.kind != ORIGIN_BLOB || fetch->borrowed >= ORIGIN_BORROWS_MAX)
        return false;
    target_key(fetch, key);
    target = target_find(fetch->origin, key);
    if (target == NULL || strcmp(target->url, fetch->url) == 0 || !origin__target_use(fetch))
        return false; /* its own was cut, and may be over */
    fetch->borrowed++;
    return true;
}

bool origin__target_coming(struct origin_fetch *fetch)
{
    uint8_t key[32], other[32];

    if (fetch->request.kind != ORIGIN_BLOB || fetch->head_only || fetch->handed_url != NULL ||
        !fetch->away || fetch->borrowed >= ORIGIN_BORROWS_MAX)
        return false;
    target_key(fetch, key);
    for (struct origin_fetch *asks = fetch->origin->head; asks != NULL; asks = asks->next) {
        bool resolves = !asks->remembered &&
                        (asks->state == ORIGIN_REQUESTING || asks->state == ORIGIN_REDIRECTING);

        if (asks == fetch || !resolves || asks->request.kind != ORIGIN_BLOB || asks->head_only ||
            strcmp(asks->request.path_and_query, fetch->request.path_and_query) != 0)
            continue;
        target_key(asks, other);
        if (memcmp(key, other, sizeof key) == 0) {
            fetch->borrowed++;
            return true;
        }
    }
    return false;
}

void origin__target_put(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    struct origin_target *place = &origin->targets[0], *known;
    size_t bytes = strlen(fetch->url) + 1;
    uint8_t key[32];

    if (!fetch->away || fetch->remembered || fetch->handed_url != NULL)
        return; /* a remembered target keeps its end of life: the registry is asked each minute */
    target_key(fetch, key);
    for (size_t i = 0; i < ORIGIN_TARGETS_MAX; i++)
        if (origin->targets[i].expires_us < place->expires_us)
            place = &origin->targets[i];
    known = target_find(origin, key);
    if (known != NULL && known->asked_us > fetch->attempt_us)
        return; /* a slow answer: another range has asked since */
    if (known != NULL)
        place = known;
    target_clear(origin, place);
    place->url = origin->env.alloc(origin->env.host, NULL, bytes);
    if (place->url == NULL)
        return;
    memcpy(place->url, fetch->url, bytes);
    memcpy(place->key, key, sizeof key);
    place->expires_us = origin->now_us + ORIGIN_TARGET_LIFE_US;
    place->asked_us = fetch->attempt_us;
}

void origin__target_drop(struct origin_fetch *fetch)
{
    struct origin_target *target;
    uint8_t key[32];

    target_key(fetch, key);
    target = target_find(fetch->origin, key);
    if (target != NULL && (fetch->hops != 1 || strcmp(target->url, fetch->url) == 0))
        target_clear(fetch->origin, target); /* and not what has replaced it meanwhile */
}

void origin__targets_close(struct origin *origin)
{
    for (size_t i = 0; i < ORIGIN_TARGETS_MAX; i++)
        target_clear(origin, &origin->targets[i]);
}
