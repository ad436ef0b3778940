/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache against a slow, obvious model: flat arrays, everything recounted at each step, the
 * victim found by looking at all segments. Random calls, also misuse that the contract allows;
 * results, contents, order of evictions and figures must agree. SEED= replays.
 */
#include "../unit/cache_support.h"

#define PIECE        ((uint64_t)PIECE_BYTES_MIN)
#define NUMBERS      12
#define BLOBS_MODEL  64
#define SEGMENT      TEST_SEGMENT
#define SEGMENTS     3
#define PIECES       (SEGMENTS * SEGMENT)
#define OPEN_MAX     40
#define BLOBS_MAX    8
#define RESERVE      (5 * PIECE)
#define STEPS        8000
#define EXPECTED_MAX 4096

/* ---- the model ---- */

struct model_segment {
    uint64_t used_us, turn; /* order: use, then when it began to be evictable */
    bool evictable;
    unsigned pins;
};

struct model_blob {
    bool exists, dead, complete;
    uint32_t number;
    uint64_t size_bytes;
    uint32_t pieces;
    unsigned refs, holds; /* refs: all reasons together */
    bool have[PIECES], writing[PIECES], doomed[PIECES];
    struct model_segment segments[SEGMENTS];
    struct cache_blob *real;
};

struct eviction {
    uint32_t number, piece;
};

struct model {
    struct model_blob blobs[BLOBS_MODEL];
    uint64_t capacity, free_bytes, turn;
    uint64_t clock_us; /* the host's time */
    uint64_t now_us;   /* what the cache has heard of it */
    struct eviction expected[EXPECTED_MAX];
    unsigned expected_count;
};

static uint64_t length_of(const struct model_blob *blob, uint32_t piece)
{
    return piece + 1 < blob->pieces ? PIECE : blob->size_bytes - piece * PIECE;
}

static uint64_t model_bytes(const struct model *model, bool writing_only)
{
    uint64_t bytes = 0;
    for (unsigned b = 0; b < BLOBS_MODEL; b++) {
        for (uint32_t p = 0; model->blobs[b].exists && p < model->blobs[b].pieces; p++) {
            const struct model_blob *blob = &model->blobs[b];
            if (blob->writing[p] || (blob->have[p] && !writing_only))
                bytes += length_of(blob, p);
        }
    }
    return bytes;
}

static bool segment_any(const bool *flags, unsigned segment)
{
    bool any = false;
    for (uint32_t p = SEGMENT * segment; p < SEGMENT * (segment + 1); p++)
        any = any || flags[p];
    return any;
}

static bool holds_anything(const struct model_blob *blob)
{
    bool any = false;
    for (unsigned s = 0; s < SEGMENTS; s++)
        any = any || segment_any(blob->have, s) || segment_any(blob->writing, s) ||
              blob->segments[s].pins > 0;
    return any;
}

/* After each change: who may be evicted now, and who is gone. */
static void settle(struct model *model)
{
    for (unsigned b = 0; b < BLOBS_MODEL; b++) {
        struct model_blob *blob = &model->blobs[b];
        for (unsigned s = 0; blob->exists && s < SEGMENTS; s++) {
            struct model_segment *segment = &blob->segments[s];
            bool may = segment_any(blob->have, s) && !segment_any(blob->writing, s) &&
                       segment->pins == 0 && blob->holds == 0;
            if (may && !segment->evictable)
                segment->turn = ++model->turn;
            segment->evictable = may;
        }
        if (blob->exists && blob->refs == 0 && !holds_anything(blob))
            blob->exists = false;
    }
}

static void touch(struct model *model, struct model_segment *segment)
{
    segment->used_us = model->now_us;
    segment->turn = ++model->turn;
}

static struct model_blob *oldest(struct model *model, bool unreferenced, struct model_segment **out)
{
    struct model_blob *found = NULL;
    for (unsigned b = 0; b < BLOBS_MODEL; b++) {
        for (unsigned s = 0; model->blobs[b].exists && s < SEGMENTS; s++) {
            struct model_segment *segment = &model->blobs[b].segments[s];
            if (!segment->evictable || (unreferenced && model->blobs[b].refs > 0))
                continue;
            if (found != NULL &&
                ((*out)->used_us < segment->used_us ||
                 ((*out)->used_us == segment->used_us && (*out)->turn < segment->turn)))
                continue;
            found = &model->blobs[b];
            *out = segment;
        }
    }
    return found;
}

static void expect_segment(struct model *model, struct model_blob *blob, unsigned segment)
{
    for (uint32_t p = SEGMENT * segment; p < SEGMENT * (segment + 1); p++) {
        if (!blob->have[p])
            continue;
        blob->have[p] = false;
        assert_true(model->expected_count < EXPECTED_MAX);
        model->expected[model->expected_count++] = (struct eviction){blob->number, p};
    }
}

static uint64_t evictable_bytes(const struct model *model)
{
    uint64_t bytes = 0;
    for (unsigned b = 0; b < BLOBS_MODEL; b++) {
        const struct model_blob *blob = &model->blobs[b];
        for (uint32_t p = 0; blob->exists && p < blob->pieces; p++) {
            if (blob->have[p] && blob->segments[p / SEGMENT].evictable)
                bytes += length_of(blob, p);
        }
    }
    return bytes;
}

/* Evicts at least so many bytes, or nothing. */
static bool model_evict(struct model *model, uint64_t bytes)
{
    if (bytes > evictable_bytes(model))
        return false;
    uint64_t before = model_bytes(model, false);
    while (before - model_bytes(model, false) < bytes) {
        struct model_segment *segment = NULL;
        struct model_blob *blob = oldest(model, false, &segment);
        expect_segment(model, blob, (unsigned)(segment - blob->segments));
        settle(model);
    }
    return true;
}

static void model_trim(struct model *model)
{
    uint64_t bytes = model_bytes(model, false);
    if (bytes <= model->capacity)
        return;
    uint64_t most = evictable_bytes(model);
    (void)model_evict(model, bytes - model->capacity < most ? bytes - model->capacity : most);
}

static struct model_blob *model_find(struct model *model, uint32_t number)
{
    for (unsigned b = 0; b < BLOBS_MODEL; b++) {
        if (model->blobs[b].exists && !model->blobs[b].dead && model->blobs[b].number == number)
            return &model->blobs[b];
    }
    return NULL;
}

static void evict_all(struct model *model, struct model_blob *blob)
{
    for (unsigned s = 0; s < SEGMENTS; s++)
        expect_segment(model, blob, s);
    settle(model);
}

static int model_get(struct model *model, uint32_t number, uint64_t size, struct model_blob **out)
{
    struct model_blob *blob = model_find(model, number);
    if (blob != NULL && blob->size_bytes != size) {
        if (blob->complete || blob->refs > 0)
            return E_INVALID;
        evict_all(model, blob);
        blob = NULL;
    }
    unsigned alive = 0;
    for (unsigned b = 0; b < BLOBS_MODEL; b++)
        alive += model->blobs[b].exists && !model->blobs[b].dead;
    if (blob == NULL && alive >= BLOBS_MAX) {
        struct model_segment *segment = NULL;
        struct model_blob *victim = oldest(model, true, &segment);
        if (victim == NULL)
            return E_FULL;
        evict_all(model, victim);
    }
    for (unsigned b = 0; blob == NULL && b < BLOBS_MODEL; b++) {
        if (model->blobs[b].exists)
            continue;
        blob = &model->blobs[b];
        memset(blob, 0, sizeof *blob);
        blob->exists = true;
        blob->number = number;
        blob->size_bytes = size;
        blob->pieces = (uint32_t)((size + PIECE - 1) / PIECE);
    }
    assert_non_null(blob);
    blob->refs++;
    *out = blob;
    return 0;
}

static int model_reserve(struct model *model, struct model_blob *blob, uint32_t piece)
{
    if (piece >= blob->pieces)
        return E_INVALID;
    if (blob->dead)
        return E_CLOSED;
    if (blob->have[piece] || blob->writing[piece])
        return E_EXISTS;
    struct model_segment *segment = &blob->segments[piece / SEGMENT];
    uint64_t length = length_of(blob, piece), bytes = model_bytes(model, false);
    segment->pins++; /* its own segment is no victim */
    blob->refs++;
    settle(model);
    int err = 0;
    if (model->capacity == 0)
        err = blob->holds > 0 ? 0 : E_FULL;
    else if (bytes + length > model->capacity &&
             !model_evict(model, bytes + length - model->capacity))
        err = E_FULL;
    uint64_t wanted = RESERVE + model_bytes(model, true) + length;
    if (err == 0 && model->free_bytes < wanted && !model_evict(model, wanted - model->free_bytes))
        err = E_NO_SPACE;
    segment->pins--;
    if (err == 0) {
        blob->writing[piece] = true;
        touch(model, segment);
    } else {
        blob->refs--;
    }
    settle(model);
    return err;
}

static void model_write_done(struct model *model, struct model_blob *blob, uint32_t piece, bool ok)
{
    blob->writing[piece] = false;
    blob->have[piece] = ok && !blob->doomed[piece] && !blob->dead;
    blob->doomed[piece] = false;
    blob->segments[piece / SEGMENT].used_us = model->now_us;
    blob->refs--;
    settle(model);
    model_trim(model);
}

static void model_kill(struct model *model, struct model_blob *blob, bool notify)
{
    if (blob->dead)
        return;
    unsigned before = model->expected_count;
    for (unsigned s = 0; s < SEGMENTS; s++)
        expect_segment(model, blob, s);
    if (!notify)
        model->expected_count = before;
    blob->dead = true;
    blob->complete = false;
    settle(model);
}

/* ---- both together ---- */

enum open_kind { OPEN_NONE = 0, OPEN_REF, OPEN_PIN, OPEN_HOLD, OPEN_WRITE };

struct open_thing {
    enum open_kind kind;
    struct model_blob *blob;
    uint32_t piece;
};

struct world {
    struct test_env env;
    struct model model;
    struct store store;
    struct cache *cache;
    struct prng prng;
    struct open_thing open[OPEN_MAX];
    uint8_t bytes[PIECE_BYTES_MIN];
    unsigned counts[16];
};

static struct world world;
static uint64_t free_bytes_now;

static uint64_t told_free_bytes(void *self)
{
    (void)self;
    return free_bytes_now;
}

static uint64_t draw(uint64_t bound)
{
    return prng_below(&world.prng, bound);
}

static void add_open(enum open_kind kind, struct model_blob *blob, uint32_t piece)
{
    for (unsigned i = 0; i < OPEN_MAX; i++) {
        if (world.open[i].kind != OPEN_NONE)
            continue;
        world.open[i] = (struct open_thing){kind, blob, piece};
        return;
    }
    fail();
}

static unsigned open_count(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < OPEN_MAX; i++)
        count += world.open[i].kind != OPEN_NONE;
    return count;
}

/* A blob we hold a reference of, or NULL. */
static struct model_blob *any_blob(void)
{
    unsigned start = (unsigned)draw(OPEN_MAX);
    for (unsigned i = 0; i < OPEN_MAX; i++) {
        const struct open_thing *thing = &world.open[(start + i) % OPEN_MAX];
        if (thing->kind == OPEN_REF)
            return thing->blob;
    }
    return NULL;
}

static uint64_t size_of(uint32_t number)
{
    return number % 4 == 0 ? 77 + number
                           : (1 + number) * PIECES / NUMBERS * PIECE - (number % 2) * 1000;
}

static void step_get(void)
{
    uint32_t number = (uint32_t)draw(NUMBERS);
    uint64_t size = size_of(number) + (draw(20) == 0 ? 1 : 0);
    struct digest digest = test_digest(number);
    struct cache_blob *real = NULL;
    struct model_blob *blob = NULL;
    int wanted = model_get(&world.model, number, size, &blob);
    assert_int_equal(cache_get(world.cache, &digest, size, &real), wanted);
    if (wanted != 0)
        return;
    assert_true(blob->real == NULL || blob->real == real);
    blob->real = real;
    add_open(OPEN_REF, blob, 0);
}

static uint64_t tell_time(void)
{
    world.model.now_us = world.model.clock_us;
    return world.model.now_us;
}

static void step_reserve(struct model_blob *blob, uint32_t piece)
{
    uint64_t now_us = tell_time();
    int wanted = model_reserve(&world.model, blob, piece);
    assert_int_equal(cache_reserve(world.cache, blob->real, piece, now_us), wanted);
    if (wanted == 0)
        add_open(OPEN_WRITE, blob, piece);
    world.counts[wanted == 0 ? 0 : wanted == E_FULL ? 1 : wanted == E_NO_SPACE ? 2 : 3]++;
}

static void step_pin(struct model_blob *blob, uint32_t piece)
{
    bool had = piece < blob->pieces && blob->have[piece];
    int err = cache_pin(world.cache, blob->real, piece, tell_time());
    assert_int_equal(err, had ? 0 : E_NOT_FOUND);
    if (!had)
        return;
    blob->refs++;
    blob->segments[piece / SEGMENT].pins++;
    blob->segments[piece / SEGMENT].used_us = world.model.now_us;
    settle(&world.model);
    add_open(OPEN_PIN, blob, piece);
    struct piece_record record;
    uint32_t length = (uint32_t)length_of(blob, piece);
    static uint8_t got[PIECE_BYTES_MIN];
    assert_int_equal(cache_read(world.cache, blob->real, piece, got, length, &record), 0);
    test_fill(cache_blob_digest(blob->real), piece, 0, world.bytes, length);
    assert_memory_equal(got, world.bytes, length);
    world.counts[4]++;
}

static void step_drop(struct model_blob *blob, uint32_t piece)
{
    cache_drop_piece(world.cache, blob->real, piece);
    if (piece >= blob->pieces || blob->dead)
        return;
    blob->doomed[piece] = blob->writing[piece];
    blob->have[piece] = false;
    settle(&world.model);
}

static void step_seal(struct model_blob *blob)
{
    static const int results[] = {0, 0, E_NOT_FOUND, E_AGAIN, E_IO};
    int result = results[draw(40) == 0 ? 4 : draw(4)];
    cache_seal_done(world.cache, blob->real, result);
    if (result == 0)
        blob->complete = !blob->dead;
    if (result == E_IO)
        model_kill(&world.model, blob, true);
}

static void step_hold(struct model_blob *blob)
{
    cache_hold(world.cache, blob->real);
    blob->refs++;
    blob->holds++;
    settle(&world.model);
    add_open(OPEN_HOLD, blob, 0);
}

static void end_write(struct model_blob *blob, uint32_t piece)
{
    uint32_t length = (uint32_t)length_of(blob, piece);
    static const int others[] = {E_CANCELLED, E_DIGEST};
    int status = draw(10) == 0 ? others[draw(2)] : 0;
    if (status == 0) {
        test_fill(cache_blob_digest(blob->real), piece, 0, world.bytes, length);
        struct piece_record record = test_record(piece, world.bytes, length);
        assert_int_equal(cache_write(world.cache, blob->real, piece, world.bytes, length, &record),
                         0);
    }
    cache_write_done(world.cache, blob->real, piece, tell_time(), status);
    model_write_done(&world.model, blob, piece, status == 0);
}

static void step_end(struct open_thing *thing)
{
    struct model_blob *blob = thing->blob;
    if (thing->kind == OPEN_WRITE) {
        end_write(blob, thing->piece);
    } else if (thing->kind == OPEN_PIN) {
        cache_unpin(world.cache, blob->real, thing->piece);
        blob->segments[thing->piece / SEGMENT].pins--;
        blob->segments[thing->piece / SEGMENT].used_us = world.model.now_us;
        blob->refs--;
    } else if (thing->kind == OPEN_HOLD) {
        cache_unhold(world.cache, blob->real);
        for (unsigned s = 0; s < SEGMENTS && blob->holds == 1; s++)
            blob->segments[s].used_us = world.model.now_us;
        blob->holds--;
        blob->refs--;
    } else if (thing->kind == OPEN_REF) {
        cache_put(world.cache, blob->real);
        blob->refs--;
    }
    thing->kind = OPEN_NONE;
    settle(&world.model);
    model_trim(&world.model);
}

static void step_with_blob(struct model_blob *blob, uint64_t choice)
{
    uint32_t piece = (uint32_t)draw(blob->pieces + (draw(20) == 0));
    if (choice < 40)
        step_reserve(blob, piece);
    else if (choice < 60)
        step_pin(blob, piece);
    else if (choice < 64)
        step_drop(blob, piece);
    else if (choice < 67)
        step_seal(blob);
    else if (choice < 72)
        step_hold(blob);
    else if (choice == 72 && draw(6) == 0) {
        cache_drop_blob(world.cache, blob->real);
        model_kill(&world.model, blob, false);
    }
}

static void step(void)
{
    world.model.clock_us += draw(3); /* often the same time again */
    uint64_t choice = draw(100);
    struct model_blob *blob = any_blob();
    if (open_count() > OPEN_MAX - 4 || choice >= 84) {
        step_end(&world.open[draw(OPEN_MAX)]);
    } else if (blob == NULL || choice >= 78) {
        step_get();
    } else if (choice == 73) {
        world.model.free_bytes = draw(4) == 0 ? RESERVE + draw(4 * PIECE) : UINT64_MAX;
        free_bytes_now = world.model.free_bytes;
    } else {
        step_with_blob(blob, choice);
    }
}

static void compare_evictions(void)
{
    struct cache_eviction eviction;
    unsigned at = 0;
    while (cache_next_eviction(world.cache, &eviction)) {
        for (uint32_t i = 0; i < eviction.piece_count; i++, at++) {
            assert_true(at < world.model.expected_count);
            struct digest digest = test_digest(world.model.expected[at].number);
            assert_true(digest_equal(&digest, &eviction.digest));
            assert_int_equal(eviction.first_piece + i, world.model.expected[at].piece);
        }
    }
    assert_int_equal(at, world.model.expected_count);
    world.counts[5] += at;
    world.model.expected_count = 0;
}

static void compare(void)
{
    struct cache_stats stats;
    unsigned alive = 0, pieces = 0;
    compare_evictions();
    cache__check_invariants(world.cache);
    for (unsigned b = 0; b < BLOBS_MODEL; b++) {
        const struct model_blob *blob = &world.model.blobs[b];
        if (!blob->exists)
            continue;
        alive += !blob->dead;
        assert_int_equal(cache_blob_complete(blob->real), blob->complete);
        for (uint32_t p = 0; p < blob->pieces; p++) {
            assert_int_equal(bitfield_get(cache_blob_have(blob->real), p), blob->have[p]);
            pieces += blob->have[p];
        }
    }
    cache_stats(world.cache, &stats);
    assert_int_equal(stats.blobs, alive);
    assert_int_equal(stats.pieces, pieces);
    assert_int_equal(stats.bytes, model_bytes(&world.model, false));
}

static void run(uint64_t seed, uint64_t capacity)
{
    memset(&world, 0, sizeof world);
    test_env_init(&world.env);
    prng_seed(&world.prng, (const uint8_t *)&seed, sizeof seed);
    world.model.capacity = capacity;
    world.model.free_bytes = free_bytes_now = UINT64_MAX;
    const struct cache_config config = {
        .capacity_bytes = capacity, .reserve_bytes = RESERVE, .blobs_max = BLOBS_MAX};
    assert_int_equal(store_memory__new(&world.env.env, 200 * PIECE, &world.store), 0);
    world.store.free_bytes = told_free_bytes;
    assert_int_equal(cache_new(&world.env.env, &config, &world.store, &world.cache), 0);
    for (unsigned i = 0; i < STEPS; i++) {
        step();
        compare();
    }
    for (unsigned i = 0; i < OPEN_MAX; i++)
        step_end(&world.open[i]);
    compare();
    cache_free(world.cache);
    assert_int_equal(world.env.live, 0);
}

static void cache_agrees_with_the_list_model(void **state) /* DSK-4 */
{
    (void)state;
    uint64_t seed = test_seed();
    static const uint64_t capacities[] = {0, 3 * SEGMENT * PIECE / 4, 9 * SEGMENT * PIECE / 4 + 5,
                                          4 * SEGMENT * PIECE, 500 * PIECE};
    unsigned counts[6] = {0};
    for (unsigned i = 0; i < 5; i++) {
        run(seed + i, capacities[i]);
        for (unsigned c = 0; c < 6; c++)
            counts[c] += world.counts[c];
    }
    for (unsigned c = 0; c < 6; c++)
        assert_true(counts[c] > 100); /* each answer of reserve, reads, evictions were met */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cache_agrees_with_the_list_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
