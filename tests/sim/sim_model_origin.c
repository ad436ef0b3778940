/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated origin and the world's time series, against figures computed by hand. */
#include "../../sim/host.h"
#include "sim_support.h"

#define MIB      (1ULL << 20)
#define PULL_AT  (10 * SECOND_US)
#define LIMIT_US (600 * SECOND_US)

static void alone(struct world_config *config)
{
    world_config_defaults(config);
    config->node_count = 1;
    config->zone_count = 1;
    config->nic_bps = 125000000;
    config->origin_bps = 1250000000;
    config->cpu.cores = 0;
    config->verify_bps = 0;
}

static struct world *started(const struct world_config *config, uint64_t bytes)
{
    struct world *world = world_new(config);
    assert_non_null(world);
    sim_start_all(world, config, SECOND_US);
    (void)world_add_blob(world, bytes);
    return world;
}

/* Runs all pulls of a world to their ends; us of the last one. */
static uint64_t finish_us(struct world *world)
{
    size_t count;
    assert_true(world_run(world, PULL_AT + LIMIT_US, true));
    const struct world_pull *pulls = world_pulls(world, &count);
    uint64_t most_us = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t took_us = pulls[i].done_us - pulls[i].started_us;
        assert_false(pulls[i].failed);
        most_us = took_us > most_us ? took_us : most_us;
    }
    return most_us;
}

static uint64_t one_pull_us(const struct world_config *config, uint64_t bytes)
{
    struct world *world = started(config, bytes);
    (void)world_pull(world, 0, 0, PULL_AT, TRANSFER_READ_STREAM);
    uint64_t took_us = finish_us(world);
    world_free(world);
    return took_us;
}

/* 100,000 bytes: TCP and TLS 4 x 3 ms and 770 us, first byte 20 ms, two round trips of 6 ms in slow
 * start less the 347 us that their bytes take anyway, 800 us of bytes. */
static void a_small_pull_adds_up(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.origin_first_byte_us = 20000;
    config.origin_latency_us = 3000;
    uint64_t expected_us = 12000 + 770 + 20000 + 12000 - 347 + 800;
    assert_in_range(one_pull_us(&config, 100000), expected_us - 5, expected_us + 5);
    config.tcp_initial_bytes = 0;
    config.cpu.tls_us = 0;
    assert_in_range(one_pull_us(&config, 100000), 12000 + 20000 + 800 - 5, 12000 + 20000 + 800 + 5);
}

/* One read after the other on one connection: only the first pays for it. */
static void connections_are_used_again(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.origin_latency_us = 50000;
    config.mesh.transfer.leases_max = 1;
    struct world *world = started(&config, 100000);
    struct tcp_window window;
    struct sim_node *node = &world->nodes[0];
    uint64_t first_us = origin_request_us(node, 14480, &window);
    assert_int_equal(first_us, 4 * 50000 + 770 + config.origin_first_byte_us);
    origin_keep(node, window);
    assert_int_equal(origin_request_us(node, 14480, &window), config.origin_first_byte_us);
    assert_int_equal(origin_request_us(node, 14480, &window), first_us); /* it is in use */
    origin_keep(node, window);
    (void)world_run(world, 61 * SECOND_US, false);
    assert_int_equal(origin_request_us(node, 14480, &window), first_us); /* closed by now */
    world_free(world);
}

static void limit_per_connection(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.origin_conn_bps = 10000000;
    struct world *world = started(&config, MIB);
    struct flow_plan plan;
    for (unsigned i = 0; i < 14; i++) {
        world__plan_flow(world, WORLD_ORIGIN, 0, &plan);
        plan.bytes = MIB;
        assert_int_equal(flows_add(&world->flows, &plan, 0), i);
        flows_pour(&world->flows, 0);
        assert_int_equal(flows_rate(&world->flows, 0), i < 12 ? 10000000 : 125000000 / (i + 1));
    }
    world_free(world);
}

/* 5 requests a second, 5 at once: in t seconds 5 + 5 t are let through, the others get 429. */
static void requests_are_limited(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.origin_requests_per_s = 5;
    struct world *world = started(&config, MIB);
    unsigned through = 0;
    for (unsigned i = 0; i < 20; i++)
        through += origin_admits(world);
    assert_int_equal(through, 5);
    (void)world_run(world, 2 * SECOND_US, false);
    for (unsigned i = 0; i < 20; i++)
        through += origin_admits(world);
    assert_int_equal(through, 10);
    world_free(world);
}

static void pulls_end_at_an_origin_that_throttles(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.node_count = 20;
    config.origin_requests_per_s = 10;
    config.origin_retry_after_s = 2;
    config.seed = sim_seed(61);
    struct world *world = started(&config, 64 * MIB);
    for (uint32_t node = 0; node < config.node_count; node++)
        (void)world_pull(world, node, 0, PULL_AT, TRANSFER_READ_STREAM);
    assert_true(world_run(world, PULL_AT + LIMIT_US, true)); /* well or not */
    printf("figure: 64 MiB, 20 nodes, 10 requests a second: %.1f s, %llu times 429\n",
           (double)(world_now_us(world) - PULL_AT) / 1e6,
           (unsigned long long)world_totals(world)->throttled);
    assert_true(world_totals(world)->throttled > 0);
    world_free(world);
}

/* 64 MiB at 100 MB/s, and from 0.3 s on at 10 MB/s: 30 MB, then 37.1 MB in 3.71 s. */
static void origin_slows_down(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.origin_bps = 100000000;
    struct world *world = started(&config, 64 * MIB);
    world_set_origin_rate(world, 10000000, 0, PULL_AT + 300000);
    (void)world_pull(world, 0, 0, PULL_AT, TRANSFER_READ_STREAM);
    assert_in_range(finish_us(world), 4010000, 4010000 * 108 / 100);
    world_free(world);
    assert_in_range(one_pull_us(&config, 64 * MIB), 671000, 671000 * 115 / 100);
}

/* The origin answers after 2 s from the start on. */
static void first_byte_late(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    struct world *world = started(&config, 100000);
    world_set_origin_rate(world, 0, 2 * SECOND_US, 0);
    (void)world_pull(world, 0, 0, PULL_AT, TRANSFER_READ_STREAM);
    assert_in_range(finish_us(world), 2000000, 2030000);
    world_free(world);
}

/* ---- series ---- */

static void add_samples(const struct series *series, struct series_sample *sum)
{
    *sum = (struct series_sample){0};
    for (uint32_t i = 0; i < series->sample_count; i++) {
        for (unsigned source = 0; source < SERIES_SOURCES; source++)
            sum->bytes[source] += series->samples[i].bytes[source];
        sum->control_bytes += series->samples[i].control_bytes;
    }
}

static void check_series(struct world *world, const struct world_config *config, uint64_t control)
{
    struct series_sample sum;
    const struct series *series = world_series(world);
    const struct world_totals *totals = world_totals(world);
    uint64_t received[SERIES_SOURCES] = {0}, sent = 0;
    add_samples(series, &sum);
    assert_int_equal(sum.bytes[SERIES_ORIGIN], totals->origin_bytes);
    assert_int_equal(sum.bytes[SERIES_VSWITCH], totals->peer_bytes[DISTANCE_VSWITCH]);
    assert_int_equal(sum.bytes[SERIES_ZONE], totals->peer_bytes[DISTANCE_ZONE]);
    assert_int_equal(sum.bytes[SERIES_CROSS], totals->peer_bytes[DISTANCE_REGION]);
    assert_true(sum.bytes[SERIES_VSWITCH] > 0 && sum.bytes[SERIES_ZONE] > 0 &&
                sum.bytes[SERIES_CROSS] > 0);
    assert_int_equal(sum.control_bytes + control, totals->datagram_bytes);
    for (uint32_t node = 0; node < config->node_count; node++) {
        struct node_bytes bytes;
        world_node_bytes(world, node, &bytes);
        assert_int_equal(bytes.wanted, 64 * MIB);
        assert_int_equal(bytes.stored, 64 * MIB);
        assert_int_equal(series_progress(series, series->sample_count - 1, node), 255);
        for (unsigned source = 0; source < SERIES_SOURCES; source++)
            received[source] += bytes.received[source];
        sent += bytes.sent;
    }
    assert_memory_equal(received, sum.bytes, sizeof received);
    assert_int_equal(sent,
                     received[SERIES_VSWITCH] + received[SERIES_ZONE] + received[SERIES_CROSS]);
    const struct series_sample *last = &series->samples[series->sample_count - 1];
    assert_int_equal(last->nodes_up, config->node_count);
    assert_int_equal(last->pulls_done, config->node_count);
    assert_int_equal(last->pulls_running + last->pulls_failed, 0);
}

static void series_adds_up_to_the_totals(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.node_count = 24;
    config.zone_count = 2;
    config.vswitch_count = 3;
    struct world *world = started(&config, 64 * MIB);
    for (uint32_t node = 0; node < config.node_count; node++)
        (void)world_pull(world, node, 0, PULL_AT, TRANSFER_READ_STREAM);
    (void)world_run(world, PULL_AT - 1, false);
    uint64_t control = world_totals(world)->datagram_bytes;
    assert_false(world_series(world)->began);
    (void)finish_us(world);
    check_series(world, &config, control);
    assert_int_equal(world_series(world)->start_us, PULL_AT);
    assert_int_equal(world_series(world)->period_us, SERIES_PERIOD_US);
    for (uint32_t i = 1; i < world_series(world)->sample_count; i++)
        assert_true(series_progress(world_series(world), i, 0) >=
                    series_progress(world_series(world), i - 1, 0));
    /* An hour more: samples are folded, sums stay. */
    (void)world_run(world, world_now_us(world) + 3600 * SECOND_US, false);
    check_series(world, &config, control);
    assert_true(world_series(world)->sample_count <= SERIES_SAMPLES_MAX);
    assert_true(series_end_us(world_series(world), world_series(world)->sample_count - 1) >=
                3600 * SECOND_US);
    assert_true(world_series(world)->sample_count > SERIES_SAMPLES_MAX / 2);
    world_free(world);
}

/* 12.5 MB/s from the origin: every full sample of 100 ms has about a tenth of that, less the waits
 * between two reads, and more where a piece that came faster and faster is spread evenly. */
static void bytes_are_spread_over_the_time_they_took(void **state)
{
    (void)state;
    struct world_config config;
    alone(&config);
    config.origin_bps = 12500000;
    struct world *world = started(&config, 64 * MIB);
    (void)world_pull(world, 0, 0, PULL_AT, TRANSFER_READ_STREAM);
    (void)finish_us(world);
    const struct series *series = world_series(world);
    assert_in_range(series->sample_count, 54, 56);
    for (uint32_t i = 1; i < 52; i++)
        assert_in_range(series->samples[i].bytes[SERIES_ORIGIN], 1100000, 1400000);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_pull_adds_up),
        cmocka_unit_test(connections_are_used_again),
        cmocka_unit_test(limit_per_connection),
        cmocka_unit_test(requests_are_limited),
        cmocka_unit_test(pulls_end_at_an_origin_that_throttles),
        cmocka_unit_test(origin_slows_down),
        cmocka_unit_test(first_byte_late),
        cmocka_unit_test(series_adds_up_to_the_totals),
        cmocka_unit_test(bytes_are_spread_over_the_time_they_took),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
