/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of datagram peers against a plain array: who is found, who is due first, who is dropped
 * at the maximum. SEED= replays.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "../../src/session/dgram_peer.h"
#include "../unit/session_world.h"

#define STEPS     20000
#define ADDRESSES 1500 /* more than the unknown ones may be */

struct entry {
    bool present;
    bool known;
    uint64_t used; /* step number of the last use, or of becoming what it is */
    uint64_t used_us;
    uint64_t candidate_due_us; /* 0: none */
    struct dgram_peer *peer;
};

struct model {
    struct entry entries[ADDRESSES];
    unsigned unknown_count;
};

static struct world world;
static struct dgram_table table;
static struct dgram_stats stats;
static struct model model;

static struct peer_addr addr_of(size_t index)
{
    struct peer_addr addr = world_addr((uint8_t)(1 + index % 5));
    addr.port = (uint16_t)(1 + index);
    return addr;
}

static uint64_t due_of(const struct entry *entry)
{
    uint64_t due_us = entry->used_us + DGRAM_IDLE_US;
    if (entry->candidate_due_us != 0 && entry->candidate_due_us < due_us)
        due_us = entry->candidate_due_us;
    return due_us;
}

/* The unknown peer that must go first. */
static struct entry *oldest_unknown(void)
{
    struct entry *oldest = NULL;
    for (size_t i = 0; i < ADDRESSES; i++) {
        struct entry *entry = &model.entries[i];
        if (entry->present && !entry->known && (oldest == NULL || entry->used < oldest->used))
            oldest = entry;
    }
    return oldest;
}

static void add(struct entry *entry, const struct peer_addr *addr, bool known, uint64_t step)
{
    if (!known && model.unknown_count == DGRAM_UNKNOWN_MAX) {
        struct entry *oldest = oldest_unknown();
        oldest->present = false;
        model.unknown_count--;
    }
    assert_int_equal(dgram__peer_add(&table, addr, known, step, &entry->peer), 0);
    entry->present = true;
    entry->known = known;
    entry->used = step;
    entry->used_us = step;
    entry->candidate_due_us = 0;
    model.unknown_count += known ? 0 : 1;
}

static void change(struct entry *entry, uint64_t step)
{
    struct dgram_peer *peer = entry->peer;
    switch (prng_below(&world.prng, 4)) {
    case 0:
        dgram__peer_drop(&table, peer);
        entry->present = false;
        model.unknown_count -= entry->known ? 0 : 1;
        return;
    case 1:
        if (peer->candidate == NULL)
            peer->candidate = dgram__part_new(&table, sizeof *peer->candidate);
        assert_non_null(peer->candidate);
        entry->candidate_due_us = 1 + prng_below(&world.prng, 2 * DGRAM_IDLE_US);
        peer->candidate->due_us = entry->candidate_due_us;
        break;
    case 2:
        model.unknown_count -= entry->known ? 0 : 1;
        if (!entry->known)
            entry->used = step;
        if (!entry->known)
            entry->used_us = step;
        entry->known = true;
        dgram__peer_know(&table, peer, step);
        break;
    default:
        dgram__part_free(&table, peer->candidate, sizeof *peer->candidate);
        peer->candidate = NULL;
        entry->candidate_due_us = 0;
        dgram__peer_use(&table, peer, step);
        entry->used_us = step;
        break;
    }
    dgram__peer_schedule(&table, peer);
}

static void check(void)
{
    uint64_t due_us = UINT64_MAX;
    unsigned present = 0;
    for (size_t i = 0; i < ADDRESSES; i++) {
        struct peer_addr addr = addr_of(i);
        const struct entry *entry = &model.entries[i];
        struct dgram_peer *found = dgram__peer_find(&table, &addr);
        assert_ptr_equal(found, entry->present ? entry->peer : NULL);
        if (!entry->present)
            continue;
        present++;
        assert_int_equal(found->known, entry->known);
        if (due_of(entry) < due_us)
            due_us = due_of(entry);
        assert_ptr_equal(dgram__peer_at(&table, dgram__peer_index(&table, found)), found);
    }
    assert_int_equal(table.peer_count, present);
    assert_int_equal(table.unknown_count, model.unknown_count);
    const struct dgram_peer *first = dgram__peer_due(&table);
    assert_int_equal(first == NULL ? UINT64_MAX : first->due_us, due_us);
}

static void run(uint64_t seed)
{
    memset(&model, 0, sizeof model);
    memset(&stats, 0, sizeof stats);
    world_init(&world, seed);
    dgram__table_init(&table, &world.env, &stats);
    /* Mostly additions at first, then all mixed. */
    for (uint64_t step = 1; step <= STEPS; step++) {
        size_t index = (size_t)prng_below(&world.prng, ADDRESSES);
        struct peer_addr addr = addr_of(index);
        struct entry *entry = &model.entries[index];
        if (!entry->present)
            add(entry, &addr, prng_below(&world.prng, 20) == 0, step);
        else if (step > STEPS / 4 || prng_below(&world.prng, 10) == 0)
            change(entry, step);
        if (step % 50 == 0)
            dgram__table_check(&table);
        if (step % 200 == 0)
            check();
    }
    assert_true(stats.peers_evicted > 0);
    dgram__table_close(&table);
    assert_int_equal(world.live, 0);
}

static void test_table_agrees_with_an_array(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    for (unsigned i = 0; i < (text != NULL ? 1 : 8); i++) {
        printf("seed: %llu\n", (unsigned long long)(seed + i));
        run(seed + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table_agrees_with_an_array)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
