/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows D-1 to D-3, D-11, D-13, D-14, N-5 and N-8 of the fault matrix: disks that are full, fail or
 * are slow, clocks that differ, processes that stop, links that carry one way; and deaths aimed at
 * who keeps or has leases.
 */
#include "bytes.h"
#include "sim_support.h"

#define NODES   16
#define BYTES   (64ULL << 20)
#define PULL_AT (15 * SECOND_US)

static struct world *small_world(struct world_config *config, uint32_t *blob)
{
    struct world *world = world_new(config);
    assert_non_null(world);
    *blob = world_add_blob(world, BYTES);
    sim_start_all(world, config, SECOND_US);
    return world;
}

static void defaults(struct world_config *config)
{
    world_config_defaults(config);
    config->seed = sim_seed(21);
    config->node_count = NODES;
    config->watch = true;
}

static void pull_all(struct world *world, uint32_t blob, uint64_t at_us)
{
    for (uint32_t node = 0; node < NODES; node++)
        (void)world_pull(world, node, blob, at_us + node * 10000, TRANSFER_READ_STREAM);
}

/* Longest of the pulls from `from` on; every one of them ended well. */
static double last_s(const struct world *world, size_t from)
{
    size_t count;
    double last = 0;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = from; i < count; i++) {
        double took_s = (double)(pulls[i].done_us - pulls[i].started_us) / 1e6;
        assert_true(pulls[i].done_us > 0);
        assert_false(pulls[i].failed);
        last = took_s > last ? took_s : last;
    }
    return last;
}

/* All nodes pull while a trait holds for four of them. Returns the time of the last. */
static double pull_with(enum world_trait trait, uint64_t value, struct world_totals *totals)
{
    struct world_config config;
    uint32_t blob;
    defaults(&config);
    config.cache_bytes = 1ULL << 40;
    config.memory_bytes = 16ULL << 20;
    struct world *world = small_world(&config, &blob);
    for (uint32_t node = 4; node < 8; node++)
        world_set_trait(world, node, trait, value, PULL_AT);
    pull_all(world, blob, PULL_AT);
    (void)world_run(world, PULL_AT + 120 * SECOND_US, true);
    world_check(world);
    double last = last_s(world, 0);
    *totals = *world_totals(world);
    assert_int_equal(totals->wrong_bytes, 0);
    world_free(world);
    return last;
}

static void d1_d3_who_cannot_write_still_serves_its_client(void **state)
{
    (void)state;
    struct world_totals well, full, failing;
    double without = pull_with(WORLD_TRAIT_DISK, WORLD_DISK_WELL, &well);
    double with_full = pull_with(WORLD_TRAIT_DISK, WORLD_DISK_FULL, &full);
    double with_errors = pull_with(WORLD_TRAIT_DISK, WORLD_DISK_WRITE_ERRORS, &failing);
    printf(
        "figure: D-1 full %.2f s, D-3 write errors %.2f s, without %.2f s; %.2f and %.2f copies\n",
        with_full, with_errors, without, (double)full.origin_bytes / (double)BYTES,
        (double)failing.origin_bytes / (double)BYTES);
    assert_int_equal(well.unwritten, 0);
    assert_true(full.unwritten > 0);
    assert_true(failing.unwritten > 0);
    assert_true(with_full <= 1.25 * without + 1);
    assert_true(with_errors <= 1.25 * without + 1);
    assert_true(full.origin_bytes <= well.origin_bytes + BYTES / 4);
}

/* Nodes that hold everything can read nothing back: who asks them is served by others, and they
 * themselves pull it again. */
static void d2_a_piece_that_cannot_be_read_comes_from_elsewhere(void **state)
{
    (void)state;
    struct world_config config;
    uint32_t blob;
    size_t first;
    defaults(&config);
    config.cache_bytes = 1ULL << 40;
    config.memory_bytes = 4ULL << 20;
    struct world *world = small_world(&config, &blob);
    for (uint32_t node = 0; node < 8; node++)
        (void)world_pull(world, node, blob, PULL_AT, TRANSFER_READ_STREAM);
    assert_true(world_run(world, PULL_AT + 60 * SECOND_US, true));
    uint64_t now_us = world_now_us(world), before = world_totals(world)->origin_bytes;
    (void)world_pulls(world, &first);
    for (uint32_t node = 0; node < 4; node++)
        world_set_trait(world, node, WORLD_TRAIT_DISK, WORLD_DISK_READ_ERRORS, now_us);
    pull_all(world, blob, now_us + SECOND_US);
    assert_true(world_run(world, now_us + 60 * SECOND_US, true));
    world_check(world);
    double took_s = last_s(world, first);
    const struct world_totals *totals = world_totals(world);
    printf("figure: D-2 %llu pieces unreadable, %.2f s, %.2f more copies from the origin\n",
           (unsigned long long)totals->spoiled, took_s,
           (double)(totals->origin_bytes - before) / (double)BYTES);
    assert_true(totals->spoiled > 0);
    assert_int_equal(totals->wrong_bytes, 0);
    assert_true(totals->origin_bytes - before <= BYTES / 4);
    world_free(world);
}

static void d14_slow_disks_and_processors_end_their_pulls(void **state)
{
    (void)state;
    struct world_totals totals;
    double without = pull_with(WORLD_TRAIT_DISK, WORLD_DISK_WELL, &totals);
    double disk = pull_with(WORLD_TRAIT_DISK_WAIT_US, SECOND_US / 10, &totals);
    double cpu = pull_with(WORLD_TRAIT_CPU_MILLI, 200000, &totals);
    printf(
        "figure: D-14 disks of 100 ms %.2f s, processors 200 times slower %.2f s, without %.2f s\n",
        disk, cpu, without);
    assert_true(disk > without && disk < without + 20);
    assert_true(cpu > without && cpu < without + 20);
}

/* 2 s for each piece: so slow that its own pull does not end within this run. */
static void d14_a_slow_disk_slows_its_own_node_alone(void **state)
{
    (void)state;
    struct world_config config;
    struct world_totals totals;
    size_t count;
    double others = 0;
    uint32_t blob;
    double without = pull_with(WORLD_TRAIT_DISK, WORLD_DISK_WELL, &totals);
    defaults(&config);
    struct world *world = small_world(&config, &blob);
    world_set_trait(world, 5, WORLD_TRAIT_DISK_WAIT_US, 2 * SECOND_US, PULL_AT);
    pull_all(world, blob, PULL_AT);
    (void)world_run(world, PULL_AT + 60 * SECOND_US, true);
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++) {
        double took_s = (double)(pulls[i].done_us - pulls[i].started_us) / 1e6;
        if (pulls[i].node == 5)
            continue;
        assert_true(pulls[i].done_us > 0 && !pulls[i].failed);
        others = took_s > others ? took_s : others;
    }
    printf("figure: D-14 the others %.2f s, without %.2f s\n", others, without);
    assert_true(others <= without + 1.5);
    world_free(world);
}

/* Nodes whose clocks began at other times, by up to ten years, do the very same things at the very
 * same times, and the wall clock is not even asked. (The messages differ in one number: provider
 * records are numbered by their owner's clock.) */
static void d11_clocks_have_no_effect_on_the_mesh(void **state)
{
    (void)state;
    uint64_t done_us[2][NODES], events[2];
    for (unsigned i = 0; i < 2; i++) {
        struct world_config config;
        uint32_t blob;
        size_t count;
        defaults(&config);
        config.clock_spread_us = i == 0 ? 3600 * SECOND_US : 10 * 365 * 86400 * SECOND_US;
        config.loss_ppm = 10000;
        config.nic_bps = 250000; /* so slow that a keeper wonders whether an import still moves */
        struct world *world = small_world(&config, &blob);
        world_kill_node(world, 3, PULL_AT + SECOND_US / 2);
        world_start_node(world, 3, PULL_AT + 3 * SECOND_US, true);
        pull_all(world, blob, PULL_AT);
        (void)world_run(world, PULL_AT + 600 * SECOND_US, false);
        events[i] = world_totals(world)->events;
        const struct world_pull *pulls = world_pulls(world, &count);
        assert_int_equal(count, NODES);
        for (size_t pull = 0; pull < count; pull++)
            done_us[i][pull] = pulls[pull].done_us;
        world_free(world);
    }
    assert_memory_equal(done_us[0], done_us[1], sizeof done_us[0]);
    assert_true(events[0] == events[1]);
}

static void d11_clocks_may_run_wrong(void **state)
{
    (void)state;
    struct world_config config;
    uint32_t blob;
    defaults(&config);
    config.clock_drift_ppm = 500;
    struct world *world = small_world(&config, &blob);
    pull_all(world, blob, PULL_AT);
    assert_true(world_run(world, PULL_AT + 60 * SECOND_US, true));
    (void)last_s(world, 0);
    (void)world_run(world, 600 * SECOND_US, false);
    assert_int_equal(sim_complete_views(world, &config, NODES), NODES);
    world_free(world);
}

static uint64_t sent_within(struct world *world, uint64_t for_us)
{
    uint64_t before = world_totals(world)->datagrams;
    (void)world_run(world, world_now_us(world) + for_us, false);
    return world_totals(world)->datagrams - before;
}

/* A process that was stopped for 30 s: its own timers do not all fire at once, the others take it
 * back, and a pull that it was in the middle of ends. */
static void d13_a_stopped_process_goes_on(void **state)
{
    (void)state;
    struct world_config config;
    uint32_t blob;
    defaults(&config);
    struct world *world = small_world(&config, &blob);
    (void)world_run(world, PULL_AT, false);
    uint64_t calm = sent_within(world, 5 * SECOND_US) / 5;
    uint64_t stop_us = world_now_us(world);
    pull_all(world, blob, stop_us);
    world_freeze_node(world, 7, stop_us + SECOND_US / 4, 30 * SECOND_US);
    (void)world_run(world, stop_us + 29 * SECOND_US, false);
    assert_int_equal(sim_complete_views(world, &config, NODES), 1); /* its own alone */
    (void)world_run(world, stop_us + SECOND_US / 4 + 30 * SECOND_US - 1, false);
    uint64_t after = sent_within(world, SECOND_US);
    double back_s =
        sim_until_views(world, &config, NODES, NODES, stop_us + 31 * SECOND_US, 30 * SECOND_US);
    printf("figure: D-13 %llu datagrams in the first second, %llu in a calm one; all views after "
           "%.1f s\n",
           (unsigned long long)after, (unsigned long long)calm, back_s);
    assert_true(back_s <= 10); /* §5: a falsely accused node is back */
    assert_true(world_run(world, world_now_us(world) + 60 * SECOND_US, true));
    (void)last_s(world, 0);
    assert_true(after <= 20 * calm);
    world_free(world);
}

/* N-5: node 2 reaches nobody's ears for a while but hears all; links come back one by one. */
static void n5_one_way_links_then_healed_one_by_one(void **state)
{
    (void)state;
    struct world_config config;
    uint32_t blob;
    defaults(&config);
    struct world *world = small_world(&config, &blob);
    for (uint32_t to = 0; to < NODES; to++) {
        if (to == 2)
            continue;
        world_cut_link(world, 2, to, true, PULL_AT);
        world_cut_link(world, 2, to, false, PULL_AT + (20 + to) * SECOND_US);
    }
    pull_all(world, blob, PULL_AT + SECOND_US);
    assert_true(world_run(world, PULL_AT + 120 * SECOND_US, true));
    world_check(world);
    printf("figure: N-5 last pull %.2f s\n", last_s(world, 0));
    double back_s = sim_until_views(world, &config, NODES, NODES,
                                    PULL_AT + (20 + NODES) * SECOND_US, 60 * SECOND_US);
    printf("figure: N-5 views after %.1f s\n", back_s);
    assert_true(back_s <= 30);
    world_free(world);
}

static void n8_duplicates_reordering_and_latency(void **state)
{
    (void)state;
    struct world_config config;
    uint32_t blob;
    defaults(&config);
    config.duplicate_ppm = 200000;
    config.reorder_ppm = 300000;
    config.reorder_us = 400000;
    config.latency_zone_us = config.latency_cross_us = 150000;
    struct world *world = small_world(&config, &blob);
    pull_all(world, blob, PULL_AT);
    assert_true(world_run(world, PULL_AT + 300 * SECOND_US, true));
    printf("figure: N-8 last pull %.2f s\n", last_s(world, 0));
    world_free(world);
}

/* Who is aimed at does have what it is aimed at for, and its death stops nobody. */
static void aimed_deaths(enum world_aim aim, const char *name)
{
    struct world_config config;
    uint32_t blob, nodes[3];
    size_t count;
    uint32_t failed = 0, dead = 0;
    defaults(&config);
    struct world *world = small_world(&config, &blob);
    (void)world_run(world, PULL_AT, false);
    assert_int_equal(world_aim(world, aim, nodes, 3), 0);
    pull_all(world, blob, PULL_AT);
    (void)world_run(world, PULL_AT + 200000, false);
    dead = world_aim(world, aim, nodes, 3);
    assert_in_range(dead, 1, 3);
    for (uint32_t i = 0; i < dead; i++)
        world_kill_node(world, nodes[i], world_now_us(world));
    assert_true(world_run(world, PULL_AT + 120 * SECOND_US, true));
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++)
        failed += pulls[i].failed;
    printf("figure: %u %s killed: %.2f copies\n", dead, name,
           (double)world_totals(world)->origin_bytes / (double)BYTES);
    assert_int_equal(failed, dead);
    assert_true(world_totals(world)->origin_bytes <= BYTES * 3 / 2);
    world_free(world);
}

static void keepers_are_killed(void **state)
{
    (void)state;
    aimed_deaths(WORLD_AIM_KEEPERS, "keepers");
}

static void lessees_are_killed(void **state)
{
    (void)state;
    aimed_deaths(WORLD_AIM_LESSEES, "lessees");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(d1_d3_who_cannot_write_still_serves_its_client),
        cmocka_unit_test(d2_a_piece_that_cannot_be_read_comes_from_elsewhere),
        cmocka_unit_test(d11_clocks_have_no_effect_on_the_mesh),
        cmocka_unit_test(d11_clocks_may_run_wrong),
        cmocka_unit_test(d13_a_stopped_process_goes_on),
        cmocka_unit_test(d14_slow_disks_and_processors_end_their_pulls),
        cmocka_unit_test(d14_a_slow_disk_slows_its_own_node_alone),
        cmocka_unit_test(n5_one_way_links_then_healed_one_by_one),
        cmocka_unit_test(n8_duplicates_reordering_and_latency),
        cmocka_unit_test(keepers_are_killed),
        cmocka_unit_test(lessees_are_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
