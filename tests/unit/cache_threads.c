/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop and four workers at once, as the daemon runs them: the loop reserves, pins, evicts,
 * drops, scrubs and seals, the workers write, read and seal. Over both tiers, with a cache far
 * smaller than what passes through it. Run it under SAN=thread: the assertion is that there is
 * nothing to report, and that no read that succeeds gives a wrong byte (DSK-1, D-9).
 */
#include "cache_support.h"

#include <pthread.h>

#define PIECE       ((uint32_t)PIECE_BYTES_MIN)
#define WORKERS     4
#define QUEUE       64
#define RUNNING_MAX 12
#define BLOBS       6
#define PIECES      6
#define ROUNDS      3000
#define CAPACITY    (24 * (uint64_t)PIECE)

enum job_kind { JOB_NONE = 0, JOB_WRITE, JOB_READ, JOB_SEAL, JOB_FD, JOB_SCRUB, JOB_STOP };

struct job {
    enum job_kind kind;
    struct cache_blob *blob;
    uint32_t piece;
    int status;
};

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job jobs[QUEUE];
    unsigned first, count;
};

static struct queue to_workers, to_loop;
static struct cache *the_cache;

static void push(struct queue *queue, struct job job)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->count == QUEUE)
        pthread_cond_wait(&queue->changed, &queue->lock);
    queue->jobs[(queue->first + queue->count++) % QUEUE] = job;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

static struct job pop(struct queue *queue, bool wait)
{
    pthread_mutex_lock(&queue->lock);
    while (wait && queue->count == 0)
        pthread_cond_wait(&queue->changed, &queue->lock);
    struct job job = {.kind = JOB_NONE};
    if (queue->count > 0) {
        job = queue->jobs[queue->first];
        queue->first = (queue->first + 1) % QUEUE;
        queue->count--;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->lock);
    return job;
}

/* ---- workers ---- */

static int do_write(const struct job *job, uint8_t *bytes)
{
    uint32_t length = piece_length(cache_blob_layout(job->blob), job->piece);
    test_fill(cache_blob_digest(job->blob), job->piece, 0, bytes, length);
    struct piece_record record = test_record(job->piece, bytes, length);
    return cache_write(the_cache, job->blob, job->piece, bytes, length, &record);
}

static int do_read(const struct job *job, uint8_t *bytes, uint8_t *wanted)
{
    uint32_t length = piece_length(cache_blob_layout(job->blob), job->piece);
    struct piece_record record;
    int err = cache_read(the_cache, job->blob, job->piece, bytes, length, &record);
    test_fill(cache_blob_digest(job->blob), job->piece, 0, wanted, length);
    if (err == 0 && memcmp(bytes, wanted, length) != 0)
        return E_INTERNAL;
    return err;
}

static int do_fd(const struct job *job)
{
    int fd;
    uint64_t offset;
    int err = cache_open_fd(the_cache, job->blob, job->piece, &fd, &offset);
    if (err == 0)
        close(fd);
    return err;
}

static void *worker_main(void *arg)
{
    uint8_t *bytes = malloc(PIECE), *wanted = malloc(PIECE);
    (void)arg;
    for (;;) {
        struct job job = pop(&to_workers, true);
        if (job.kind == JOB_STOP)
            break;
        if (job.kind == JOB_WRITE)
            job.status = do_write(&job, bytes);
        else if (job.kind == JOB_SEAL)
            job.status = cache_seal(the_cache, job.blob);
        else if (job.kind == JOB_FD)
            job.status = do_fd(&job);
        else
            job.status = do_read(&job, bytes, wanted);
        push(&to_loop, job);
    }
    free(bytes);
    free(wanted);
    return NULL;
}

/* ---- the loop ---- */

struct loop {
    struct prng prng;
    unsigned running;
    unsigned written, read, sealed;
    uint64_t now_us;
};

static void finish(struct loop *loop, const struct job *job)
{
    loop->running--;
    assert_int_not_equal(job->status, E_INTERNAL);
    assert_int_not_equal(job->status, E_IO);
    if (job->kind == JOB_WRITE) {
        loop->written += job->status == 0;
        cache_write_done(the_cache, job->blob, job->piece, loop->now_us, job->status);
    } else if (job->kind == JOB_SEAL) {
        loop->sealed += job->status == 0;
        cache_seal_done(the_cache, job->blob, job->status);
    } else if (job->kind == JOB_SCRUB) {
        cache_scrub_done(the_cache, job->blob, job->piece);
    } else {
        loop->read += job->status == 0;
        cache_unpin(the_cache, job->blob, job->piece);
    }
    cache_put(the_cache, job->blob);
}

static void start(struct loop *loop, enum job_kind kind, struct cache_blob *blob, uint32_t piece)
{
    for (;;) {
        struct job done = pop(&to_loop, loop->running >= RUNNING_MAX);
        if (done.kind == JOB_NONE)
            break;
        finish(loop, &done);
    }
    loop->running++;
    push(&to_workers, (struct job){.kind = kind, .blob = blob, .piece = piece});
}

/* One random thing; the job's own reference is taken here. */
static void act(struct loop *loop)
{
    struct digest digest = test_digest((uint32_t)prng_below(&loop->prng, BLOBS));
    struct cache_blob *blob;
    uint32_t piece = (uint32_t)prng_below(&loop->prng, PIECES);
    uint64_t choice = prng_below(&loop->prng, 100);
    loop->now_us += 1000;
    assert_int_equal(cache_get(the_cache, &digest, (uint64_t)(PIECES - 1) * PIECE + 33, &blob), 0);
    if (choice < 50 && cache_reserve(the_cache, blob, piece, loop->now_us) == 0) {
        start(loop, JOB_WRITE, blob, piece);
        return;
    }
    if (choice >= 50 && choice < 85 && cache_pin(the_cache, blob, piece, loop->now_us) == 0) {
        start(loop, choice < 80 ? JOB_READ : JOB_FD, blob, piece);
        return;
    }
    if (choice >= 85 && choice < 92) {
        start(loop, JOB_SEAL, blob, 0);
        return;
    }
    if (choice >= 92 && choice < 97)
        cache_drop_piece(the_cache, blob, piece);
    if (choice == 97)
        cache_drop_blob(the_cache, blob);
    cache_put(the_cache, blob);
    if (choice >= 98 && cache_next_scrub(the_cache, UINT64_MAX / 2, &blob, &piece)) {
        struct cache_blob *again = cache_find(the_cache, cache_blob_digest(blob));
        start(loop, JOB_SCRUB, again, piece);
    }
}

static void run(struct store *store)
{
    struct test_env env; /* the index allocates on the loop only */
    struct loop loop = {.now_us = 1};
    pthread_t workers[WORKERS];
    uint64_t seed = test_seed();
    const struct cache_config config = {.capacity_bytes = CAPACITY};
    test_env_init(&env);
    prng_seed(&loop.prng, (const uint8_t *)&seed, sizeof seed);
    assert_int_equal(cache_new(&env.env, &config, store, &the_cache), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&workers[i], NULL, worker_main, NULL), 0);

    for (unsigned round = 0; round < ROUNDS; round++) {
        act(&loop);
        (void)test_drain(the_cache);
        if (round % 50 == 0)
            cache__check_invariants(the_cache);
    }
    while (loop.running > 0) {
        struct job done = pop(&to_loop, true);
        finish(&loop, &done);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        push(&to_workers, (struct job){.kind = JOB_STOP});
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    cache__check_invariants(the_cache);
    struct cache_stats stats;
    cache_stats(the_cache, &stats);
    assert_true(stats.evictions > 10);
    assert_int_equal(stats.corrupt, 0);
    assert_true(loop.written > 100 && loop.read > 100 && loop.sealed > 0);
    (void)test_drain(the_cache);
    cache_free(the_cache);
    assert_int_equal(env.live, 0);
}

static void workers_over_memory(void **state)
{
    (void)state;
    struct store store;
    /* Pieces dropped under a reader live until it ends: room for those. */
    assert_int_equal(store_memory_new(CAPACITY + QUEUE * (uint64_t)PIECE, &store), 0);
    run(&store);
}

static void workers_over_disk(void **state)
{
    (void)state;
    struct store store;
    char directory[TEST_PATH_BYTES];
    const char *why;
    test_make_directory(directory);
    assert_int_equal(store_disk_new(directory, &store, &why), 0);
    run(&store);
    test_remove_tree(directory);
}

static int start_queues(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct queue *queue = i == 0 ? &to_workers : &to_loop;
        pthread_mutex_init(&queue->lock, NULL);
        pthread_cond_init(&queue->changed, NULL);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_over_memory),
        cmocka_unit_test(workers_over_disk),
    };
    return cmocka_run_group_tests(tests, start_queues, NULL);
}
