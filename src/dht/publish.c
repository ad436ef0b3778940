/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own provider records. Each publication waits in a heap for its next job; a job finds the k
 * nearest nodes (from the members without a message, else by a lookup) and tells them, going on to
 * the next nearest when one fails. Every holder hears of it again at half the lifetime; when the
 * members change, holders are reviewed and only missing ones are told, after a short random wait,
 * so that the death of one node does not make everybody send at once.
 */
#include "core.h"

#include <string.h>

#include "log.h"

/* Review of holders after a change of members: starts within a second, this many keys at a time. */
#define REVIEW_WAIT_US  (1 * DHT_S)
#define REVIEW_KEYS     256
#define REVIEW_SLICE_US (10 * DHT_MS)
/* A missing holder is told within this time after its review. */
#define REPLACE_WAIT_US (1 * DHT_S)
/* All records told anew: spread over this time. A node's labels change once in its life, at start.
 */
#define RENEW_SPREAD_US (5 * DHT_S)
/* A job that reached nobody, or found no memory, is tried again after a second, doubling. */
#define RETRY_US        (1 * DHT_S)
#define RETRY_DOUBLINGS 6
/* How often holders of one job may raise our sequence number by claiming a newer record. */
#define STALE_RETRIES_MAX 3

/* ---- memory and hash ---- */

static void *resize(void *owner, void *old, size_t old_bytes, size_t new_bytes)
{
    struct dht *dht = owner;
    (void)old_bytes; /* bounded by DHT_KEYS_MAX, not by bytes */
    return dht->env.alloc(dht->env.host, old, new_bytes);
}

static struct dht_hash_context hash_of(struct dht *dht)
{
    return (struct dht_hash_context){
        .owner = dht, .resize = resize, .seed = dht->publisher.hash_seed};
}

static struct dht_publication *find(struct dht *dht, const struct blob_key *key)
{
    struct dht_hash_context context = hash_of(dht), *hash_context = &context;
    struct dht_publication *publication = NULL;
    HASH_FIND(hh, dht->publisher.by_key, key, sizeof *key, publication);
    return publication;
}

/* ---- heap by due time ---- */

static bool earlier(const struct dht_publication *a, const struct dht_publication *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void heap_set(struct dht_publisher *publisher, size_t at, struct dht_publication *value)
{
    publisher->heap[at] = value;
    value->heap_index = at;
}

static void heap_fix(struct dht_publisher *publisher, struct dht_publication *moved)
{
    size_t at = moved->heap_index;
    while (at > 0 && earlier(moved, publisher->heap[(at - 1) / 2])) {
        heap_set(publisher, at, publisher->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < publisher->heap_count &&
            earlier(publisher->heap[child + 1], publisher->heap[child]))
            child++;
        if (child >= publisher->heap_count || !earlier(publisher->heap[child], moved))
            break;
        heap_set(publisher, at, publisher->heap[child]);
        at = child;
    }
    heap_set(publisher, at, moved);
}

static void heap_put(struct dht_publisher *publisher, struct dht_publication *publication)
{
    ASSERT(publisher->heap_count < publisher->heap_capacity);
    publication->heap_index = publisher->heap_count++;
    publisher->heap[publication->heap_index] = publication;
    heap_fix(publisher, publication);
}

static void heap_remove(struct dht_publisher *publisher, struct dht_publication *publication)
{
    size_t at = publication->heap_index;
    ASSERT(at < publisher->heap_count && publisher->heap[at] == publication);
    struct dht_publication *last = publisher->heap[--publisher->heap_count];
    publication->heap_index = SIZE_MAX;
    if (last == publication)
        return;
    heap_set(publisher, at, last);
    heap_fix(publisher, last);
}

/* Room for every publication, so that putting one back can never fail. */
static int heap_reserve(struct dht *dht)
{
    struct dht_publisher *publisher = &dht->publisher;
    if (publisher->count < publisher->heap_capacity)
        return 0;
    size_t capacity = publisher->heap_capacity == 0 ? 16 : 2 * publisher->heap_capacity;
    struct dht_publication **grown =
        dht->env.alloc(dht->env.host, publisher->heap, capacity * sizeof(*grown));
    if (grown == NULL)
        return E_NO_MEMORY;
    publisher->heap = grown;
    publisher->heap_capacity = capacity;
    return 0;
}

/* Moves a publication's next job to an earlier time, unless one is running. */
static void hasten(struct dht *dht, struct dht_publication *publication, uint64_t due_us)
{
    if (publication->job != NULL || publication->due_us <= due_us)
        return;
    publication->due_us = due_us;
    heap_fix(&dht->publisher, publication);
}

/* ---- jobs ---- */

static bool holds(const struct dht_publication *publication, uint64_t pos)
{
    for (unsigned i = 0; i < publication->holder_count; i++) {
        if (publication->holders[i] == pos)
            return true;
    }
    return false;
}

/* Takes a job off the list and frees it; its requests must be over or dropped. */
static void free_job(struct dht *dht, struct dht_job *job)
{
    struct dht_job **link = &dht->publisher.jobs;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    dht->publisher.job_count--;
    job->publication->job = NULL;
    dht__release(dht, job);
}

/* Everybody was told who could be: notes the holders and when to come again. */
static void end_job(struct dht *dht, uint64_t now_us, struct dht_job *job)
{
    struct dht_publication *publication = job->publication;
    publication->holder_count = job->settled;
    memcpy(publication->holders, job->holders, job->settled * sizeof job->holders[0]);
    if (job->settled == 0) { /* nobody there yet, or nobody answers */
        unsigned doublings =
            publication->failures < RETRY_DOUBLINGS ? publication->failures : RETRY_DOUBLINGS;
        publication->failures++;
        publication->refresh_us = now_us + dht__jitter(dht, RETRY_US << doublings);
    } else {
        publication->failures = 0;
        if (job->resend)
            publication->refresh_us = now_us + dht__jitter(dht, dht->config.record_ttl_us / 2);
    }
    publication->due_us = publication->refresh_us;
    if (publication->again) {
        publication->again = false;
        publication->refresh_us = publication->due_us = now_us;
    }
    free_job(dht, job);
    heap_put(&dht->publisher, publication);
}

/* Tells the next targets as far as the job's width allows; ends the job when all is done. */
static void run_job(struct dht *dht, uint64_t now_us, struct dht_job *job)
{
    while (job->target_next < job->target_count && job->in_flight < DHT_JOB_WIDTH &&
           job->settled + job->in_flight < job->wanted) {
        const struct dht_place *target = &job->targets[job->target_next++];
        if (!job->resend && holds(job->publication, target->pos))
            job->holders[job->settled++] = target->pos;
        else if (dht__request_add(dht, now_us, job, target) == 0)
            job->in_flight++;
    }
    ASSERT(job->settled <= job->wanted);
    if (job->in_flight == 0)
        end_job(dht, now_us, job);
}

/* Keeps, or with a lifetime of 0 removes, our own record among those that others left with us. */
static void tell_home(struct dht *dht, uint64_t now_us, const struct dht_publication *publication,
                      uint64_t ttl_us)
{
    struct dht_announcement announcement = {
        .key = publication->key,
        .addr = dht->config.self.addr,
        .topology = &dht->config.topology,
        .completeness = publication->completeness,
        .sequence = publication->sequence,
        .ttl_us = ttl_us,
    };
    uint64_t kept_sequence;
    int err = dht__store_put(&dht->store, now_us, &announcement, &kept_sequence);
    if (err != 0) /* the other holders answer for this key */
        log_to(&dht->env, LOG_DEBUG, "dht: own record not kept at home: %s", err_name(err));
}

/* One of the k nearest may be ourselves: then the record is kept at home. */
static void place_at_home(struct dht *dht, uint64_t now_us, struct dht_job *job)
{
    struct dht_publication *publication = job->publication;
    uint64_t target = dht__pos(publication->key.bytes);
    unsigned nearer = 0;
    while (nearer < job->target_count &&
           (job->targets[nearer].pos ^ target) < (dht->self_pos ^ target))
        nearer++;
    job->wanted = (uint8_t)dht->config.k;
    if (nearer >= dht->config.k)
        return;
    job->wanted--;
    tell_home(dht, now_us, publication, dht->config.record_ttl_us);
}

/* Fills the targets from the members, or starts the lookup that will. */
static void locate(struct dht *dht, uint64_t now_us, struct dht_job *job)
{
    uint64_t target = dht__pos(job->publication->key.bytes);
    struct dht_lookup_plan plan = {
        .key = job->publication->key.bytes, .purpose = DHT_FOR_JOB, .job = job};
    uint64_t lookup_id;
    if (dht__one_hop(dht)) {
        size_t max = dht->config.k + dht->config.k / 2; /* spares for those that fail */
        job->target_count = (uint8_t)dht__members_closest(&dht->members, target, job->targets, max);
        place_at_home(dht, now_us, job);
        run_job(dht, now_us, job);
        return;
    }
    if (dht__lookup_start(dht, now_us, &plan, &lookup_id) != 0)
        end_job(dht, now_us, job);
}

static void start_job(struct dht *dht, uint64_t now_us, struct dht_publication *publication)
{
    struct dht_job *job = dht__alloc_zero(dht, sizeof *job);
    if (job == NULL) {
        publication->due_us = now_us + RETRY_US;
        heap_fix(&dht->publisher, publication);
        return;
    }
    heap_remove(&dht->publisher, publication);
    job->publication = publication;
    job->resend = now_us >= publication->refresh_us;
    job->next = dht->publisher.jobs;
    dht->publisher.jobs = job;
    dht->publisher.job_count++;
    publication->job = job;
    if (job->resend) {
        publication->sequence++;
        publication->sent_completeness = publication->completeness;
    }
    locate(dht, now_us, job);
}

void dht__job_located(struct dht *dht, uint64_t now_us, struct dht_job *job,
                      const struct dht_lookup *lookup)
{
    size_t max = dht->config.k + dht->config.k / 2;
    job->target_count = (uint8_t)dht__lookup_closest(lookup, job->targets, max);
    place_at_home(dht, now_us, job);
    run_job(dht, now_us, job);
}

/* Another life of ours, or a liar, left a newer record: go above it, within reason (DHT-7). */
static bool outdo(struct dht *dht, uint64_t now_us, struct dht_job *job,
                  const struct dht_place *holder, uint64_t kept_sequence)
{
    struct dht_publication *publication = job->publication;
    if (job->stale_retries >= STALE_RETRIES_MAX || kept_sequence < publication->sequence ||
        kept_sequence >= WIRE_DHT_SEQUENCE_MAX / 2)
        return false;
    job->stale_retries++;
    publication->sequence = kept_sequence + 1;
    if (dht__request_add(dht, now_us, job, holder) != 0)
        return false;
    job->in_flight++;
    return true;
}

void dht__job_answered(struct dht *dht, uint64_t now_us, struct dht_job *job,
                       const struct dht_place *from, const struct wire_dht_added *added)
{
    ASSERT(job->in_flight > 0);
    job->in_flight--;
    /* A node that is full counts as told: there is enough about this key where it stands. */
    bool told = added != NULL;
    if (told && added->status == WIRE_DHT_STALE && outdo(dht, now_us, job, from, added->sequence))
        told = false;
    if (told)
        job->holders[job->settled++] = from->pos;
    run_job(dht, now_us, job);
}

/* ---- publications ---- */

void dht__publisher_init(struct dht *dht)
{
    dht->publisher = (struct dht_publisher){.review_us = UINT64_MAX};
    dht->publisher.hash_seed = prng_next(&dht->prng);
}

static void free_publication(struct dht *dht, struct dht_publication *publication)
{
    struct dht_publisher *publisher = &dht->publisher;
    struct dht_hash_context context = hash_of(dht), *hash_context = &context;
    if (publication->heap_index != SIZE_MAX)
        heap_remove(publisher, publication);
    if (publisher->review == publication)
        publisher->review = publication->hh.next;
    HASH_DELETE(hh, publisher->by_key, publication);
    publisher->count--;
    dht__release(dht, publication);
}

void dht__publisher_close(struct dht *dht)
{
    while (dht->publisher.jobs != NULL) {
        struct dht_job *job = dht->publisher.jobs;
        dht__requests_drop_job(dht, job);
        if (job->lookup != NULL)
            dht__lookup_cancel(dht, job->lookup);
        free_job(dht, job);
    }
    while (dht->publisher.by_key != NULL)
        free_publication(dht, dht->publisher.by_key);
    dht__release(dht, dht->publisher.heap);
    dht->publisher.heap = NULL;
}

static int add_publication(struct dht *dht, uint64_t now_us, const struct blob_key *key,
                           uint8_t completeness)
{
    struct dht_publisher *publisher = &dht->publisher;
    struct dht_hash_context context = hash_of(dht), *hash_context = &context;
    if (publisher->count >= DHT_KEYS_MAX)
        return E_FULL;
    int err = heap_reserve(dht);
    if (err != 0)
        return err;
    struct dht_publication *publication =
        dht__alloc_zero(dht, sizeof *publication + dht->config.k * sizeof publication->holders[0]);
    if (publication == NULL)
        return E_NO_MEMORY;
    publication->key = *key;
    publication->completeness = completeness;
    /* Monotonic time makes a restarted agent's records newer than those of its last life. */
    publication->sequence = now_us < WIRE_DHT_SEQUENCE_MAX / 2 ? now_us : 0;
    publication->order = publisher->order++;
    publication->due_us = publication->refresh_us = now_us;
    HASH_ADD(hh, publisher->by_key, key, sizeof publication->key, publication);
    if (publication->hh.tbl == NULL) {
        dht__release(dht, publication);
        return E_NO_MEMORY;
    }
    publisher->count++;
    heap_put(publisher, publication);
    return 0;
}

/* Starts jobs that are due, as many as may run. */
static void start_due(struct dht *dht, uint64_t now_us)
{
    struct dht_publisher *publisher = &dht->publisher;
    /* A job that ends at once puts its publication back: each gets one turn per call. */
    for (unsigned turns = 0; turns < DHT_JOBS_MAX && publisher->job_count < DHT_JOBS_MAX; turns++) {
        if (publisher->heap_count == 0 || publisher->heap[0]->due_us > now_us)
            return;
        start_job(dht, now_us, publisher->heap[0]);
    }
}

int dht__publisher_put(struct dht *dht, uint64_t now_us, const struct blob_key *key,
                       uint8_t completeness)
{
    struct dht_publication *publication = find(dht, key);
    int err = 0;
    if (publication == NULL) {
        err = add_publication(dht, now_us, key, completeness);
    } else {
        publication->completeness = completeness;
        if (completeness == UINT8_MAX && publication->sent_completeness != UINT8_MAX) {
            publication->again = publication->job != NULL;
            if (publication->job == NULL)
                publication->refresh_us = now_us;
            hasten(dht, publication, now_us);
        }
    }
    if (err == 0)
        start_due(dht, now_us);
    return err;
}

void dht__publisher_renew(struct dht *dht, uint64_t now_us)
{
    for (struct dht_publication *publication = dht->publisher.by_key; publication != NULL;
         publication = publication->hh.next) {
        if (publication->job != NULL) {
            publication->again = true;
            continue;
        }
        uint64_t due_us = now_us + prng_below(&dht->prng, RENEW_SPREAD_US);
        if (publication->refresh_us > due_us)
            publication->refresh_us = due_us;
        hasten(dht, publication, publication->refresh_us);
    }
}

/* Withdraws the record from those who have it, as far as their addresses are known. */
static void withdraw(struct dht *dht, uint64_t now_us, struct dht_publication *publication)
{
    publication->sequence++;
    const struct dht_job *job = publication->job;
    if (job != NULL && job->lookup == NULL) {
        for (unsigned i = 0; i < job->target_next; i++)
            dht__request_withdraw(dht, now_us, publication, &job->targets[i]);
    } else {
        for (unsigned i = 0; i < publication->holder_count; i++) {
            struct dht_place holder;
            if (dht__members_at(&dht->members, publication->holders[i], &holder) ||
                dht__table_at(&dht->table, publication->holders[i], &holder))
                dht__request_withdraw(dht, now_us, publication, &holder);
        }
    }
    tell_home(dht, now_us, publication, 0);
}

void dht__publisher_remove(struct dht *dht, uint64_t now_us, const struct blob_key *key)
{
    struct dht_publication *publication = find(dht, key);
    if (publication == NULL)
        return;
    struct dht_job *job = publication->job;
    if (job != NULL) {
        dht__requests_drop_job(dht, job);
        withdraw(dht, now_us, publication);
        if (job->lookup != NULL)
            dht__lookup_cancel(dht, job->lookup);
        free_job(dht, job);
    } else {
        withdraw(dht, now_us, publication);
    }
    free_publication(dht, publication);
}

/* ---- review after a change of members ---- */

void dht__publisher_forget_holder(struct dht *dht, uint64_t pos)
{
    for (struct dht_publication *publication = dht->publisher.by_key; publication != NULL;
         publication = publication->hh.next) {
        for (unsigned i = publication->holder_count; i-- > 0;) {
            if (publication->holders[i] == pos)
                publication->holders[i] = publication->holders[--publication->holder_count];
        }
    }
}

void dht__publisher_members_changed(struct dht *dht, uint64_t now_us)
{
    struct dht_publisher *publisher = &dht->publisher;
    if (publisher->review != NULL)
        publisher->review_again = true;
    else if (publisher->count > 0 && publisher->review_us == UINT64_MAX)
        publisher->review_us = now_us + prng_below(&dht->prng, REVIEW_WAIT_US);
}

/* Hastens the next job if one of the k nearest, ourselves apart, does not hold the record. */
static void review_one(struct dht *dht, uint64_t now_us, struct dht_publication *publication)
{
    struct dht_place nearest[DHT_K_MAX];
    uint64_t target = dht__pos(publication->key.bytes);
    size_t count = dht__members_closest(&dht->members, target, nearest, dht->config.k);
    for (size_t i = 0; i < count; i++) {
        bool we_are_in = (dht->self_pos ^ target) < (nearest[i].pos ^ target);
        if (i + we_are_in >= dht->config.k || holds(publication, nearest[i].pos))
            continue;
        if (publication->job != NULL)
            publication->again = true;
        else
            hasten(dht, publication, now_us + prng_below(&dht->prng, REPLACE_WAIT_US));
        return;
    }
}

static void review(struct dht *dht, uint64_t now_us)
{
    struct dht_publisher *publisher = &dht->publisher;
    if (publisher->review == NULL)
        publisher->review = publisher->by_key;
    for (unsigned i = 0; i < REVIEW_KEYS && publisher->review != NULL; i++) {
        struct dht_publication *next = publisher->review->hh.next;
        if (dht__one_hop(dht))
            review_one(dht, now_us, publisher->review);
        publisher->review = next;
    }
    publisher->review_us = UINT64_MAX;
    if (publisher->review != NULL) {
        publisher->review_us = now_us + REVIEW_SLICE_US;
    } else if (publisher->review_again) {
        publisher->review_again = false;
        dht__publisher_members_changed(dht, now_us);
    }
}

void dht__publisher_advance(struct dht *dht, uint64_t now_us)
{
    if (dht->publisher.review_us <= now_us)
        review(dht, now_us);
    start_due(dht, now_us);
}

uint64_t dht__publisher_deadline_us(const struct dht *dht)
{
    const struct dht_publisher *publisher = &dht->publisher;
    uint64_t deadline_us = publisher->review_us;
    /* With all jobs busy the end of one wakes us: it is an answer or a timeout. */
    if (publisher->heap_count > 0 && publisher->job_count < DHT_JOBS_MAX &&
        publisher->heap[0]->due_us < deadline_us)
        deadline_us = publisher->heap[0]->due_us;
    return deadline_us;
}

void dht__publisher_check(const struct dht *dht)
{
    const struct dht_publisher *publisher = &dht->publisher;
    unsigned jobs = 0;
    for (const struct dht_job *job = publisher->jobs; job != NULL; job = job->next) {
        ASSERT(job->publication->job == job && job->publication->heap_index == SIZE_MAX);
        ASSERT(job->target_next <= job->target_count);
        ASSERT(job->lookup != NULL ? job->in_flight == 0 : job->in_flight > 0);
        jobs++;
    }
    ASSERT(jobs == publisher->job_count && jobs <= DHT_JOBS_MAX);
    ASSERT(publisher->heap_count + jobs == publisher->count);
    ASSERT(publisher->count <= DHT_KEYS_MAX);
    size_t step = publisher->heap_count / 64 + 1;
    for (size_t i = 1; i < publisher->heap_count; i += step)
        ASSERT(!earlier(publisher->heap[i], publisher->heap[(i - 1) / 2]));
}
