/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools (ORG-5). libcurl keeps idle connections per multi handle, and nothing finer: what it
 * compares before reusing one does not include the Authorization header. So each pool key has a
 * multi handle of its own. At most POOLS_MAX; the longest idle one makes room, and when all are
 * busy a request runs in a spare multi with connections that are never reused. Pools without work
 * for a minute are closed with their connections.
 *
 * All multis share the host's loop: its descriptors are told apart by a table, its one timer is set
 * to the nearest of their deadlines.
 */
#include "fetch_curl.h"

#include <string.h>

static bool watched_room(struct fetch_curl *curl, size_t fd)
{
    size_t count = curl->watched_count == 0 ? 64 : curl->watched_count;
    struct pool **watched;

    if (fd < curl->watched_count)
        return true;
    while (count <= fd)
        count *= 2;
    watched = fetch_curl__heap(NULL, curl->watched, count * sizeof *watched);
    if (watched == NULL)
        return false;
    memset(watched + curl->watched_count, 0, (count - curl->watched_count) * sizeof *watched);
    curl->watched = watched;
    curl->watched_count = count;
    return true;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct pool *pool = arg;
    struct fetch_curl *curl = pool->curl;
    unsigned events = 0;

    (void)easy;
    (void)socket_arg;
    /* Without a place in the table the socket is not watched and its request times out. */
    if (fd < 0 || !watched_room(curl, (size_t)fd))
        return 0;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        events |= FETCH_POLL_READ;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        events |= FETCH_POLL_WRITE;
    curl->watched[fd] = what == CURL_POLL_REMOVE ? NULL : pool;
    curl->loop.watch(curl->loop.host, fd, events);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct pool *pool = arg;

    (void)multi;
    pool->deadline_ms = timeout_ms < 0 ? NEVER_MS : fetch_curl__clock_ms() + (uint64_t)timeout_ms;
    return 0;
}

/* 0, or E_NO_MEMORY with the place still free. */
static int pool_open(struct fetch_curl *curl, struct pool *pool)
{
    long connections = (long)curl->connections_max;
    CURLM *multi = curl_multi_init();
    CURLMcode code = CURLM_OK;

    if (multi == NULL)
        return E_NO_MEMORY;
    *pool = (struct pool){.curl = curl, .multi = multi, .deadline_ms = NEVER_MS};
    code = curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    if (code == CURLM_OK)
        code = curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, (void *)pool);
    if (code == CURLM_OK)
        code = curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
    if (code == CURLM_OK)
        code = curl_multi_setopt(multi, CURLMOPT_TIMERDATA, (void *)pool);
    if (code == CURLM_OK)
        code = curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, connections);
    if (code == CURLM_OK)
        code = curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, connections);
    if (code == CURLM_OK)
        return 0;
    (void)curl_multi_cleanup(multi);
    pool->multi = NULL;
    return E_NO_MEMORY;
}

void fetch_curl__pool_close(struct pool *pool)
{
    struct fetch_curl *curl = pool->curl;

    if (pool->multi == NULL)
        return;
    (void)curl_multi_cleanup(pool->multi);
    pool->multi = NULL;
    /* libcurl has reported the removal of every socket; a stale entry would be a wild pointer. */
    for (size_t fd = 0; fd < curl->watched_count; fd++) {
        if (curl->watched[fd] != pool)
            continue;
        curl->watched[fd] = NULL;
        curl->loop.watch(curl->loop.host, (int)fd, 0);
    }
}

struct pool *fetch_curl__pool_at(struct fetch_curl *curl, unsigned i)
{
    if (i < POOLS_MAX)
        return &curl->pools[i];
    return i == POOLS_MAX ? &curl->spare : NULL;
}

static bool pool_fits(const struct pool *pool, const struct fetch *fetch)
{
    return pool->multi != NULL &&
           address_ranges_equal(&pool->allow_private, &fetch->allow_private) &&
           memcmp(pool->key, fetch->pool_key, sizeof pool->key) == 0;
}

/* A free place, or the longest idle pool's. NULL: all are busy. */
static struct pool *place_find(struct fetch_curl *curl)
{
    struct pool *idle = NULL;

    for (unsigned i = 0; i < POOLS_MAX; i++) {
        struct pool *pool = &curl->pools[i];

        if (pool->multi == NULL)
            return pool;
        if (pool->fetch_count == 0 && (idle == NULL || pool->idle_since_ms < idle->idle_since_ms))
            idle = pool;
    }
    return idle;
}

struct pool *fetch_curl__pool_get(struct fetch_curl *curl, const struct fetch *fetch)
{
    struct pool *place;

    for (unsigned i = 0; i < POOLS_MAX; i++)
        if (pool_fits(&curl->pools[i], fetch))
            return &curl->pools[i];
    place = place_find(curl);
    if (place == NULL) {
        if (curl->spare.multi == NULL && pool_open(curl, &curl->spare) != 0)
            return NULL;
        curl->spare.spare = true;
        return &curl->spare;
    }
    if (place->multi != NULL)
        fetch_curl__pool_close(place);
    if (pool_open(curl, place) != 0)
        return NULL;
    memcpy(place->key, fetch->pool_key, sizeof place->key);
    place->allow_private = fetch->allow_private;
    return place;
}

void fetch_curl__pools_expire(struct fetch_curl *curl, uint64_t now_ms)
{
    struct pool *pool;

    for (unsigned i = 0; (pool = fetch_curl__pool_at(curl, i)) != NULL; i++)
        if (pool->multi != NULL && pool->fetch_count == 0 &&
            now_ms >= pool->idle_since_ms + POOL_IDLE_MS)
            fetch_curl__pool_close(pool);
}
