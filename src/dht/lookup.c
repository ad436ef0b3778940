/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups (Kademlia §2.3) over disjoint paths (S/Kademlia §4.4): each path keeps its own list of
 * candidates and a node is asked by one path only, so a liar spoils at most the path it is on
 * (DHT-5). A one-hop lookup is the same machine with one path that starts from the k closest
 * members: with a full view nobody can name nearer ones and it ends after one hop, with a partial
 * view it still arrives.
 *
 * Differences from the papers: a path does not wait for a late node but asks the next, and takes
 * the late answer if it comes; a path ends when the few nearest nodes it can reach have
 * answered, and all of them end when enough providers are known.
 */
#include "core.h"

#include <string.h>

#include "digest.h"
#include "log.h"

/* ---- lists of lookups ---- */

static void list_append(struct dht_lookup_list *list, struct dht_lookup *lookup)
{
    lookup->previous = list->last;
    lookup->next = NULL;
    if (list->last == NULL)
        list->first = lookup;
    else
        list->last->next = lookup;
    list->last = lookup;
    list->count++;
}

static void list_remove(struct dht_lookup_list *list, struct dht_lookup *lookup)
{
    ASSERT(list->count > 0);
    if (lookup->previous == NULL)
        list->first = lookup->next;
    else
        lookup->previous->next = lookup->next;
    if (lookup->next == NULL)
        list->last = lookup->previous;
    else
        lookup->next->previous = lookup->previous;
    list->count--;
}

/* Frees a lookup that is in no list. */
static void release(struct dht *dht, struct dht_lookup *lookup)
{
    unsigned *count = lookup->purpose == DHT_FOR_HOST ? &dht->host_lookups : &dht->internal_lookups;
    ASSERT(*count > 0);
    --*count;
    dht__release(dht, lookup->providers);
    dht__release(dht, lookup);
}

/* ---- candidates ---- */

/* Index of an address in a path, or its count. */
static unsigned find_candidate(const struct dht_path *path, const struct peer_addr *addr)
{
    unsigned at = 0;
    while (at < path->count && !peer_addr_equal(&path->candidates[at].addr, addr))
        at++;
    return at;
}

/* A full path makes room by forgetting its farthest node that nobody asked yet, if it is farther
 * than `distance`. */
static bool make_room(struct dht_path *path, uint64_t distance)
{
    if (path->count < DHT_CANDIDATES_MAX)
        return true;
    unsigned at = path->count;
    while (at > 0 && path->candidates[at - 1].state != DHT_CANDIDATE_NEW)
        at--;
    if (at == 0 || path->candidates[at - 1].distance <= distance)
        return false;
    memmove(path->candidates + at - 1, path->candidates + at,
            (path->count - at) * sizeof *path->candidates);
    path->count--;
    return true;
}

static void add_candidate(struct dht_path *path, uint64_t distance, const struct peer_addr *addr,
                          unsigned depth)
{
    if (!make_room(path, distance))
        return;
    unsigned at = path->count;
    while (at > 0 && (path->candidates[at - 1].distance > distance ||
                      (path->candidates[at - 1].distance == distance &&
                       dht__addr_compare(&path->candidates[at - 1].addr, addr) > 0)))
        at--;
    memmove(path->candidates + at + 1, path->candidates + at,
            (path->count - at) * sizeof *path->candidates);
    path->candidates[at] = (struct dht_candidate){
        .distance = distance,
        .addr = *addr,
        .state = DHT_CANDIDATE_NEW,
        .depth = (uint8_t)(depth < UINT8_MAX ? depth : UINT8_MAX),
    };
    path->count++;
}

/* True if another path has asked this node. */
static bool taken(const struct dht_lookup *lookup, unsigned path_index,
                  const struct peer_addr *addr)
{
    for (unsigned i = 0; i < lookup->path_count; i++) {
        if (i == path_index)
            continue;
        unsigned at = find_candidate(&lookup->paths[i], addr);
        if (at == lookup->paths[i].count)
            continue;
        uint8_t state = lookup->paths[i].candidates[at].state;
        if (state != DHT_CANDIDATE_NEW && state != DHT_CANDIDATE_TAKEN)
            return true;
    }
    return false;
}

/* ---- progress ---- */

static unsigned divide_up(unsigned a, unsigned b)
{
    return (a + b - 1) / b;
}

/*
 * Answers that named a provider, from nodes among the k/2 nearest known. Only there do records
 * belong, and honest nodes there have them all: a liar on the way cannot end a lookup, and liars
 * at the end must be `alpha` in a row (P-7: with a fifth of the nodes lying 97 to 99 % find an
 * honest provider, one-hop 99 %; with any answer as witness it was 87 %).
 */
static unsigned count_witnesses(const struct dht *dht, const struct dht_lookup *lookup)
{
    struct dht_place nearest[DHT_K_MAX];
    size_t count = 0, max = divide_up(dht->config.k, 2);
    unsigned witnesses = 0;
    for (unsigned i = 0; i < lookup->path_count; i++) {
        const struct dht_path *path = &lookup->paths[i];
        for (unsigned j = 0, rank = 0; j < path->count && rank < max; j++) {
            const struct dht_candidate *candidate = &path->candidates[j];
            if (candidate->state == DHT_CANDIDATE_FAILED)
                continue;
            struct dht_place place = {candidate->distance, candidate->addr};
            dht__place_insert(nearest, &count, max, 0, &place);
            rank++;
        }
    }
    for (unsigned i = 0; i < lookup->path_count && count > 0; i++) {
        const struct dht_path *path = &lookup->paths[i];
        for (unsigned j = 0; j < path->count; j++)
            witnesses += path->candidates[j].witness &&
                         path->candidates[j].distance <= nearest[count - 1].pos;
    }
    return witnesses;
}

/* How many of its nearest nodes each path must have heard, if so many witnesses can be had. */
static unsigned answers_needed(const struct dht *dht, const struct dht_lookup *lookup,
                               unsigned witnesses)
{
    unsigned needed = dht->config.k;
    if (lookup->purpose == DHT_FOR_REFRESH)
        needed = dht->config.alpha;
    else if (lookup->purpose == DHT_FOR_HOST && witnesses >= dht->config.alpha)
        needed = dht->config.alpha;
    else if (lookup->purpose == DHT_FOR_HOST && needed > DHT_MISSES_ENOUGH)
        needed = DHT_MISSES_ENOUGH;
    return divide_up(needed, lookup->path_count);
}

/* Nearest node of a path that is worth asking, or count if there is none. */
static unsigned pick(const struct dht_path *path, unsigned needed)
{
    unsigned heard = 0;
    for (unsigned i = 0; i < path->count && heard < needed; i++) {
        uint8_t state = path->candidates[i].state;
        if (state == DHT_CANDIDATE_NEW)
            return i;
        heard += state == DHT_CANDIDATE_ANSWERED || state == DHT_CANDIDATE_ASKED;
    }
    return path->count;
}

/* True if the nearest `needed` nodes of the path answered, or nothing is left to wait for. */
static bool settled(const struct dht_path *path, unsigned needed)
{
    unsigned heard = 0;
    for (unsigned i = 0; i < path->count; i++) {
        uint8_t state = path->candidates[i].state;
        if (state == DHT_CANDIDATE_NEW || state == DHT_CANDIDATE_ASKED)
            return false;
        heard += state == DHT_CANDIDATE_ANSWERED;
        if (heard >= needed)
            return true;
    }
    return path->slow == 0;
}

/* `hoped_for`: witnesses, once a provider is known with those counted in who are being asked. */
static void ask_next(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup, unsigned index,
                     unsigned *hoped_for)
{
    struct dht_path *path = &lookup->paths[index];
    while (path->asked < lookup->width && path->asked + path->slow < 3 * lookup->width &&
           lookup->messages < DHT_LOOKUP_MESSAGES_MAX) {
        unsigned at = pick(path, answers_needed(dht, lookup, *hoped_for));
        if (at == path->count)
            return;
        struct dht_candidate *candidate = &path->candidates[at];
        if (taken(lookup, index, &candidate->addr)) {
            candidate->state = DHT_CANDIDATE_TAKEN;
            continue;
        }
        struct dht_place to = {candidate->distance ^ lookup->target, candidate->addr};
        if (dht__request_find(dht, now_us, lookup, index, &to) != 0) {
            candidate->state = DHT_CANDIDATE_FAILED;
            continue;
        }
        candidate->state = DHT_CANDIDATE_ASKED;
        path->asked++;
        lookup->messages++;
        *hoped_for += lookup->provider_count > 0;
    }
}

/* True if the nearest live node known to any path has been asked. */
static bool nearest_asked(const struct dht_lookup *lookup)
{
    const struct dht_candidate *nearest = NULL;
    for (unsigned i = 0; i < lookup->path_count; i++) {
        const struct dht_path *path = &lookup->paths[i];
        unsigned at = 0;
        while (at < path->count && (path->candidates[at].state == DHT_CANDIDATE_FAILED ||
                                    path->candidates[at].state == DHT_CANDIDATE_TAKEN))
            at++;
        if (at < path->count &&
            (nearest == NULL || path->candidates[at].distance < nearest->distance))
            nearest = &path->candidates[at];
    }
    return nearest == NULL || nearest->state != DHT_CANDIDATE_NEW;
}

static bool is_over(const struct dht *dht, const struct dht_lookup *lookup, unsigned witnesses)
{
    /* Early, with paths unfinished, one more witness is asked for: number alone proves nothing. */
    if (lookup->provider_count >= DHT_PROVIDERS_ENOUGH && witnesses > dht->config.alpha &&
        nearest_asked(lookup))
        return true;
    unsigned needed = answers_needed(dht, lookup, witnesses);
    bool all_settled = true, in_flight = false;
    for (unsigned i = 0; i < lookup->path_count; i++) {
        all_settled = all_settled && settled(&lookup->paths[i], needed);
        in_flight = in_flight || lookup->paths[i].asked + lookup->paths[i].slow > 0;
    }
    return all_settled || !in_flight;
}

/* Ends a running lookup; the host's is queued, others tell their owner and are freed. */
static void finish(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup)
{
    list_remove(&dht->running, lookup);
    dht__requests_orphan(dht, lookup);
    bool asked = lookup->messages > 0;
    lookup->status = lookup->provider_count > 0      ? 0
                     : asked && lookup->answers == 0 ? E_TIMEOUT
                                                     : E_NOT_FOUND;
    if (lookup->purpose == DHT_FOR_HOST) {
        char key[SHORT_HEX_BYTES];
        dht->stats.lookups++;
        dht->stats.lookups_found += lookup->status == 0;
        dht->stats.hops_sum += lookup->hops;
        log_to(&dht->env, LOG_TRACE, "dht: lookup done key=%s hops=%u messages=%u providers=%zu",
               short_hex(lookup->key, key), lookup->hops, lookup->messages, lookup->provider_count);
        list_append(&dht->done, lookup);
        return;
    }
    if (lookup->purpose == DHT_FOR_JOB) {
        lookup->job->lookup = NULL;
        dht__job_located(dht, now_us, lookup->job, lookup);
    } else {
        dht__maintenance_done(dht, now_us, lookup);
    }
    release(dht, lookup);
}

static void step(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup)
{
    unsigned witnesses = lookup->provider_count > 0 ? count_witnesses(dht, lookup) : 0;
    unsigned hoped_for = witnesses; /* who is being asked may well be one: no need to ask more */
    for (unsigned i = 0; i < lookup->path_count; i++)
        hoped_for += lookup->provider_count > 0 ? lookup->paths[i].asked : 0;
    for (unsigned i = 0; i < lookup->path_count; i++)
        ask_next(dht, now_us, lookup, i, &hoped_for);
    if (is_over(dht, lookup, witnesses))
        finish(dht, now_us, lookup);
}

/* ---- providers ---- */

static bool grow_providers(struct dht *dht, struct dht_lookup *lookup)
{
    if (lookup->provider_count < lookup->provider_capacity)
        return true;
    size_t capacity = lookup->provider_capacity == 0 ? 8 : 2 * lookup->provider_capacity;
    if (capacity > DHT_RESULT_PROVIDERS_MAX)
        return false;
    void *grown =
        dht->env.alloc(dht->env.host, lookup->providers, capacity * sizeof *lookup->providers);
    if (grown == NULL)
        return false;
    lookup->providers = grown;
    lookup->provider_capacity = capacity;
    return true;
}

static void add_provider(struct dht *dht, struct dht_lookup *lookup, const struct peer_addr *addr,
                         const struct topology *topology, uint8_t completeness)
{
    if (dht__is_self(dht, addr) || addr->port == 0)
        return;
    for (size_t i = 0; i < lookup->provider_count; i++) {
        struct dht_found_provider *known = &lookup->providers[i];
        if (!peer_addr_equal(&known->addr, addr))
            continue;
        if (completeness > known->completeness)
            known->completeness = completeness;
        return;
    }
    if (!grow_providers(dht, lookup))
        return;
    lookup->providers[lookup->provider_count++] =
        (struct dht_found_provider){*addr, *topology, completeness};
}

/* Records that others left with us answer without a message. */
static void look_at_home(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup)
{
    struct dht_record_view views[DHT_RESULT_PROVIDERS_MAX];
    struct blob_key key;
    memcpy(key.bytes, lookup->key, sizeof key.bytes);
    struct dht_sample sample = {&key, &dht->config.topology, &dht->config.self.addr};
    size_t count = dht__store_sample(&dht->store, now_us, &sample, views, DHT_RESULT_PROVIDERS_MAX);
    for (size_t i = 0; i < count; i++)
        add_provider(dht, lookup, &views[i].addr, views[i].topology, views[i].completeness);
}

/* ---- start ---- */

/* Deals the nodes of our own tables to the paths in turn, nearest first. */
static void seed(struct dht *dht, struct dht_lookup *lookup, const struct dht_lookup_plan *plan)
{
    struct dht_place places[DHT_CANDIDATES_MAX];
    size_t count = 0;
    if (lookup->one_hop) {
        count = dht__members_closest(&dht->members, lookup->target, places, dht->config.k);
    } else {
        count = dht__table_closest(&dht->table, lookup->target, places, DHT_CANDIDATES_MAX);
        struct dht_place members[DHT_K_MAX];
        size_t member_count = 0;
        if (count < dht->config.k) /* a young table: what gossip knows is better than nothing */
            member_count =
                dht__members_closest(&dht->members, lookup->target, members, dht->config.k);
        for (size_t i = 0; i < member_count; i++)
            dht__place_insert(places, &count, DHT_CANDIDATES_MAX, lookup->target, &members[i]);
    }
    for (size_t i = 0; i < plan->seed_count; i++) {
        struct dht_place place;
        dht__place_of(dht, &plan->seeds[i], &place);
        dht__place_insert(places, &count, DHT_CANDIDATES_MAX, lookup->target, &place);
    }
    for (size_t i = 0; i < count; i++)
        add_candidate(&lookup->paths[i % lookup->path_count], places[i].pos ^ lookup->target,
                      &places[i].addr, 1);
}

static struct dht_lookup *make(struct dht *dht, uint64_t now_us, const struct dht_lookup_plan *plan)
{
    struct dht_lookup *lookup = dht__alloc_zero(dht, sizeof *lookup);
    if (lookup == NULL)
        return NULL;
    memcpy(lookup->key, plan->key, sizeof lookup->key);
    lookup->id = ++dht->next_lookup_id;
    lookup->purpose = plan->purpose;
    lookup->target = dht__pos(plan->key);
    lookup->deadline_us = now_us + DHT_LOOKUP_US;
    lookup->one_hop = plan->one_hop && dht__one_hop(dht);
    lookup->path_count = lookup->one_hop ? 1 : dht->config.paths;
    lookup->width = divide_up(dht->config.alpha, lookup->path_count);
    lookup->job = plan->job;
    return lookup;
}

int dht__lookup_start(struct dht *dht, uint64_t now_us, const struct dht_lookup_plan *plan,
                      uint64_t *lookup_id)
{
    bool for_host = plan->purpose == DHT_FOR_HOST;
    unsigned *count = for_host ? &dht->host_lookups : &dht->internal_lookups;
    if (*count >= (for_host ? DHT_LOOKUPS_MAX : DHT_INTERNAL_LOOKUPS_MAX))
        return E_FULL;
    struct dht_lookup *lookup = make(dht, now_us, plan);
    if (lookup == NULL)
        return E_NO_MEMORY;
    ++*count;
    *lookup_id = lookup->id;
    list_append(&dht->running, lookup);
    if (plan->job != NULL)
        plan->job->lookup = lookup;
    if (for_host)
        look_at_home(dht, now_us, lookup);
    if (lookup->provider_count > 0) {
        finish(dht, now_us, lookup);
        return 0;
    }
    seed(dht, lookup, plan);
    if (!lookup->one_hop)
        dht->table.buckets[dht__table_index(&dht->table, lookup->target)].touched_us = now_us;
    step(dht, now_us, lookup);
    return 0;
}

/* ---- events ---- */

/* A node named by another: only its address is believed, and that only once it answers. */
static void learn(struct dht *dht, struct dht_lookup *lookup, unsigned path_index,
                  const struct peer_addr *addr, unsigned depth)
{
    struct dht_path *path = &lookup->paths[path_index];
    if (addr->port == 0 || dht__is_self(dht, addr) || find_candidate(path, addr) < path->count)
        return;
    uint64_t distance = 0;
    bool known = false;
    for (unsigned i = 0; i < lookup->path_count && !known; i++) { /* saves a hash */
        unsigned at = find_candidate(&lookup->paths[i], addr);
        known = at < lookup->paths[i].count;
        if (known)
            distance = lookup->paths[i].candidates[at].distance;
    }
    if (!known) {
        struct dht_place place;
        dht__place_of(dht, addr, &place);
        distance = place.pos ^ lookup->target;
    }
    add_candidate(path, distance, addr, depth);
}

/* The request of a candidate ended: its state and the path's counts follow. */
static struct dht_candidate *end_request(struct dht_lookup *lookup,
                                         const struct dht_request *request,
                                         enum dht_candidate_state state)
{
    struct dht_path *path = &lookup->paths[request->path];
    unsigned at = find_candidate(path, &request->to.addr);
    ASSERT(at < path->count); /* asked ones are never forgotten */
    struct dht_candidate *candidate = &path->candidates[at];
    ASSERT(candidate->state == DHT_CANDIDATE_ASKED || candidate->state == DHT_CANDIDATE_SLOW);
    if (candidate->state == DHT_CANDIDATE_ASKED)
        path->asked--;
    else
        path->slow--;
    candidate->state = (uint8_t)state;
    return candidate;
}

void dht__lookup_answered(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup,
                          const struct dht_request *request, const struct wire_dht_found *found)
{
    ASSERT(request->path < lookup->path_count);
    struct dht_candidate *candidate = end_request(lookup, request, DHT_CANDIDATE_ANSWERED);
    unsigned depth = candidate->depth;
    candidate->witness = found->provider_count > 0;
    lookup->answers++;
    if (depth > lookup->hops)
        lookup->hops = depth;
    for (size_t i = 0; i < found->provider_count && lookup->purpose == DHT_FOR_HOST; i++) {
        const struct wire_dht_provider *provider = &found->providers[i];
        add_provider(dht, lookup, &provider->addr, &found->topologies[provider->topology_index],
                     provider->completeness);
    }
    for (size_t i = 0; i < found->node_count && i < dht->config.k; i++)
        learn(dht, lookup, request->path, &found->nodes[i], depth + 1);
    step(dht, now_us, lookup);
}

void dht__lookup_silent(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup,
                        const struct dht_request *request, bool gone)
{
    ASSERT(request->path < lookup->path_count);
    if (gone) {
        (void)end_request(lookup, request, DHT_CANDIDATE_FAILED);
    } else {
        (void)end_request(lookup, request, DHT_CANDIDATE_SLOW);
        lookup->paths[request->path].slow++;
    }
    step(dht, now_us, lookup);
}

void dht__lookups_advance(struct dht *dht, uint64_t now_us)
{
    while (dht->running.first != NULL && dht->running.first->deadline_us <= now_us)
        finish(dht, now_us, dht->running.first);
}

uint64_t dht__lookups_deadline_us(const struct dht *dht)
{
    return dht->running.first == NULL ? UINT64_MAX : dht->running.first->deadline_us;
}

void dht__lookups_drop_node(struct dht *dht, const struct dht_place *node)
{
    for (struct dht_lookup *lookup = dht->running.first; lookup != NULL; lookup = lookup->next) {
        for (unsigned i = 0; i < lookup->path_count; i++) {
            struct dht_path *path = &lookup->paths[i];
            unsigned at = find_candidate(path, &node->addr);
            if (at < path->count && path->candidates[at].state == DHT_CANDIDATE_NEW)
                path->candidates[at].state = DHT_CANDIDATE_FAILED;
        }
    }
}

/* ---- results ---- */

size_t dht__lookup_closest(const struct dht_lookup *lookup, struct dht_place *out, size_t max)
{
    size_t count = 0;
    for (unsigned i = 0; i < lookup->path_count; i++) {
        const struct dht_path *path = &lookup->paths[i];
        for (unsigned j = 0; j < path->count; j++) {
            const struct dht_candidate *candidate = &path->candidates[j];
            struct dht_place place = {candidate->distance ^ lookup->target, candidate->addr};
            if (candidate->state == DHT_CANDIDATE_ANSWERED)
                dht__place_insert(out, &count, max, lookup->target, &place);
        }
    }
    return count;
}

void dht__lookup_cancel(struct dht *dht, struct dht_lookup *lookup)
{
    list_remove(&dht->running, lookup);
    dht__requests_orphan(dht, lookup);
    release(dht, lookup);
}

void dht__lookups_close(struct dht *dht)
{
    while (dht->running.first != NULL)
        dht__lookup_cancel(dht, dht->running.first);
    while (dht->done.first != NULL) {
        struct dht_lookup *lookup = dht->done.first;
        list_remove(&dht->done, lookup);
        release(dht, lookup);
    }
}

void dht__lookup_result(struct dht *dht, struct dht_lookup *lookup, struct dht_result *out)
{
    struct dht_place closest[sizeof out->closest / sizeof out->closest[0]];
    out->lookup_id = lookup->id;
    memcpy(out->key.bytes, lookup->key, sizeof out->key.bytes);
    out->status = lookup->status;
    out->hops = lookup->hops;
    out->messages = lookup->messages;
    out->provider_count = lookup->provider_count;
    for (size_t i = 0; i < lookup->provider_count; i++) {
        const struct dht_found_provider *found = &lookup->providers[i];
        struct dht_provider *provider = &out->providers[i];
        provider->contact.addr = found->addr;
        node_id_of(dht->cluster_id, &found->addr, &provider->contact.id);
        provider->topology = found->topology;
        provider->completeness = found->completeness;
    }
    out->closest_count = dht__lookup_closest(lookup, closest, sizeof closest / sizeof closest[0]);
    for (size_t i = 0; i < out->closest_count; i++) {
        out->closest[i].addr = closest[i].addr;
        node_id_of(dht->cluster_id, &closest[i].addr, &out->closest[i].id);
    }
    list_remove(&dht->done, lookup);
    release(dht, lookup);
}

static void check_path(const struct dht_path *path)
{
    unsigned asked = 0, slow = 0;
    ASSERT(path->count <= DHT_CANDIDATES_MAX);
    for (unsigned i = 0; i < path->count; i++) {
        asked += path->candidates[i].state == DHT_CANDIDATE_ASKED;
        slow += path->candidates[i].state == DHT_CANDIDATE_SLOW;
        ASSERT(i == 0 || path->candidates[i - 1].distance <= path->candidates[i].distance);
    }
    ASSERT(asked == path->asked && slow == path->slow);
}

void dht__lookups_check(const struct dht *dht)
{
    unsigned host_lookups = dht->done.count, running = 0;
    for (const struct dht_lookup *lookup = dht->running.first; lookup != NULL;
         lookup = lookup->next) {
        host_lookups += lookup->purpose == DHT_FOR_HOST;
        running++;
        unsigned in_flight = 0;
        for (unsigned i = 0; i < lookup->path_count; i++) {
            check_path(&lookup->paths[i]);
            in_flight += lookup->paths[i].asked + lookup->paths[i].slow;
        }
        ASSERT(in_flight > 0); /* else nothing would ever end it before its deadline */
    }
    ASSERT(running == dht->running.count);
    ASSERT(host_lookups == dht->host_lookups && host_lookups <= DHT_LOOKUPS_MAX);
    ASSERT(dht->internal_lookups == running - (host_lookups - dht->done.count));
}
