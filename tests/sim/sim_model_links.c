/* SPDX-License-Identifier: Apache-2.0 */
/* Links and distances of the simulated world against figures computed by hand: who shares what with
 * whom, how long datagrams take, what slow start loses. */
#include "../../sim/host.h"
#include "sim_support.h"

/* 2 zones of 2 vSwitches: node n stands in zone n % 2 and there in vSwitch n / 2 % 2. */
static void small(struct world_config *config)
{
    world_config_defaults(config);
    config->node_count = 16;
    config->zone_count = 2;
    config->vswitch_count = 2;
    config->nic_bps = 100000000;
    config->origin_bps = 1000000000;
}

static uint32_t add(struct world *world, uint32_t from, uint32_t to)
{
    struct flow_plan plan;
    world__plan_flow(world, from, to, &plan);
    plan.bytes = 1000000;
    return flows_add(&world->flows, &plan, 0);
}

/* Rates of these flows after one pour of all. */
static void rates(const struct world_config *config, const uint32_t (*ends)[2], uint64_t *out,
                  size_t count)
{
    struct world *world = world_new(config);
    assert_non_null(world);
    for (size_t i = 0; i < count; i++)
        (void)add(world, ends[i][0], ends[i][1]);
    flows_pour(&world->flows, 0);
    for (size_t i = 0; i < count; i++)
        out[i] = flows_rate(&world->flows, (uint32_t)i);
    flows_check(&world->flows);
    world_free(world);
}

static void two_flows_share_a_vswitch_uplink(void **state)
{
    (void)state;
    struct world_config config;
    uint64_t rate[4];
    small(&config);
    config.vswitch_bps = 120000000;
    /* 0 and 4 send out of vSwitch 0, 8 to 12 stays inside, 2 sends inside vSwitch 1. */
    const uint32_t ends[][2] = {{0, 2}, {4, 6}, {8, 12}, {10, 14}};
    rates(&config, ends, rate, 4);
    assert_int_equal(rate[0], 60000000);
    assert_int_equal(rate[1], 60000000);
    assert_int_equal(rate[2], 100000000);
    assert_int_equal(rate[3], 100000000);
}

static void origin_comes_in_over_the_vswitch(void **state)
{
    (void)state;
    struct world_config config;
    uint64_t rate[3];
    small(&config);
    config.vswitch_bps = 90000000;
    const uint32_t ends[][2] = {{WORLD_ORIGIN, 0}, {WORLD_ORIGIN, 4}, {2, 8}};
    rates(&config, ends, rate, 3);
    assert_int_equal(rate[0], 30000000);
    assert_int_equal(rate[1], 30000000);
    assert_int_equal(rate[2], 30000000);
}

static void borders_and_their_total(void **state)
{
    (void)state;
    struct world_config config;
    uint64_t rate[4];
    small(&config);
    config.zone_bps = 150000000;
    /* Two out of zone 0, one back, one inside. */
    const uint32_t ends[][2] = {{0, 1}, {2, 3}, {5, 4}, {6, 8}};
    rates(&config, ends, rate, 4);
    assert_int_equal(rate[0], 75000000);
    assert_int_equal(rate[1], 75000000);
    assert_int_equal(rate[2], 100000000);
    assert_int_equal(rate[3], 100000000);
    config.cross_bps = 90000000; /* in both directions together */
    rates(&config, ends, rate, 4);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rate[i], 30000000);
    assert_int_equal(rate[3], 100000000);
}

static void origin_over_the_border_if_told(void **state)
{
    (void)state;
    struct world_config config;
    uint64_t rate[2];
    small(&config);
    config.zone_bps = 80000000;
    const uint32_t ends[][2] = {{WORLD_ORIGIN, 0}, {1, 2}};
    rates(&config, ends, rate, 2);
    assert_int_equal(rate[0], 100000000);
    assert_int_equal(rate[1], 80000000);
    config.origin_over_border = true;
    rates(&config, ends, rate, 2);
    assert_int_equal(rate[0], 40000000);
    assert_int_equal(rate[1], 40000000);
}

static void nics_differ_by_node_and_direction(void **state)
{
    (void)state;
    struct world_config config;
    small(&config);
    config.nic_down_bps = 50000000;
    struct world *world = world_new(&config);
    assert_non_null(world);
    uint32_t plain = add(world, 0, 2), from_slow = add(world, 4, 6), to_fast = add(world, 8, 10);
    world_set_nic(world, 4, 10000000, 0, 5);
    world_set_nic(world, 10, 0, 900000000, 5);
    (void)world_run(world, 10, false);
    assert_int_equal(flows_rate(&world->flows, plain), 50000000);
    assert_int_equal(flows_rate(&world->flows, from_slow), 10000000);
    assert_int_equal(flows_rate(&world->flows, to_fast), 100000000);
    world_free(world);
}

/* ---- time on the way ---- */

static void latency_follows_distance(void **state)
{
    (void)state;
    struct world_config config;
    small(&config);
    config.zone_count = 4;
    config.region_count = 2;
    config.latency_vswitch_us = 50;
    config.latency_zone_us = 200;
    config.latency_cross_us = 1000;
    config.latency_region_us = 20000;
    config.jitter_percent = 20;
    struct world *world = world_new(&config);
    assert_non_null(world);
    /* zones 0 and 2 are in region 0; node 0, 4 and 8 in zone 0; 0 and 8 in one vSwitch */
    const struct {
        uint32_t to;
        uint64_t least_us;
    } expected[] = {{8, 50}, {4, 200}, {2, 1000}, {1, 20000}};
    for (unsigned i = 0; i < 4; i++) {
        uint64_t least = UINT64_MAX, most = 0;
        for (unsigned draw = 0; draw < 2000; draw++) {
            uint64_t took = world__latency_us(world, 0, expected[i].to);
            least = took < least ? took : least;
            most = took > most ? took : most;
        }
        assert_in_range(least, expected[i].least_us, expected[i].least_us * 101 / 100);
        assert_in_range(most, expected[i].least_us * 119 / 100 - 1, expected[i].least_us * 6 / 5);
    }
    world_free(world);
}

/* Times at which 10,000 datagrams arrive. */
static void reordered_datagrams_come_late(void **state)
{
    (void)state;
    struct world_config config;
    small(&config);
    config.jitter_percent = 0;
    config.reorder_ppm = 100000;
    config.reorder_us = 5000;
    struct world *world = world_new(&config);
    assert_non_null(world);
    struct peer_addr to;
    struct event event;
    const uint8_t message[8] = {0};
    world_node_addr(2, &to);
    for (unsigned i = 0; i < 10000; i++)
        assert_int_equal(world__send(&world->nodes[0], &to, message, sizeof message), 0);
    struct event arrived[10000];
    size_t count = 0;
    uint64_t overtaken = 0, sequence = 0, last_us = 0;
    while (events_pop(&world->events, &event)) {
        arrived[count++] = event;
        overtaken += event.sequence < sequence;
        sequence = event.sequence > sequence ? event.sequence : sequence;
        last_us = event.at_us;
    }
    for (size_t i = 0; i < count; i++)
        events_push(&world->events, arrived[i]); /* the world frees what is in them */
    assert_in_range(overtaken, 900, 1100);
    assert_in_range(last_us, 5150, 5200);
    world_free(world);
}

/* Node 0 fills its card towards 2; the origin sends to 4 at no more than half of its card. */
static void full_links_have_queues(void **state)
{
    (void)state;
    struct world_config config;
    small(&config);
    config.jitter_percent = 0;
    config.latency_zone_us = 200;
    config.queue_us = 7000;
    config.origin_conn_bps = 50000000;
    struct world *world = world_new(&config);
    assert_non_null(world);
    assert_int_equal(world__latency_us(world, 0, 2), 200);
    uint32_t fills = add(world, 0, 2);
    (void)add(world, WORLD_ORIGIN, 4);
    flows_pour(&world->flows, 0);
    assert_int_equal(world__latency_us(world, 0, 2), 14200); /* one's way out, the other's in */
    assert_int_equal(world__latency_us(world, 0, 6), 7200);
    assert_int_equal(world__latency_us(world, 6, 2), 7200);
    assert_int_equal(world__latency_us(world, 2, 0), 200);
    assert_int_equal(world__latency_us(world, 6, 4), 200);
    assert_int_equal(world__queue_us(world, WORLD_ORIGIN, 2), 7000);
    assert_int_equal(world__queue_us(world, 0, WORLD_ORIGIN), 7000);
    struct tcp_window window;
    uint64_t waits_us = origin_request_us(&world->nodes[2], 1, &window);
    uint64_t free_us = origin_request_us(&world->nodes[4], 1, &window);
    assert_int_equal(waits_us - free_us, 3 * 7000); /* TCP, TLS, request: each answer waits once */
    flows_remove(&world->flows, fills, 0);
    assert_int_equal(world__latency_us(world, 0, 2), 200);
    world_free(world);
}

/* ---- slow start ---- */

/* 10 Gbit/s and 2 ms there and back: 2.5 MB fill the pipe. Windows 14,480 * 2^0..2^7 are smaller;
 * so 8 round trips carry 14,480 * 255 bytes, which at full rate take 2,954 us of their 16,000. */
static void slow_start_loses_what_it_should(void **state)
{
    (void)state;
    struct world_config config;
    struct tcp_window window = {0};
    struct tcp_burst burst = {
        .rate_bps = 1250000000, .round_us = 2000, .bytes = 64 << 20, .now_us = 1000000};
    world_config_defaults(&config);
    assert_in_range(tcp_delay_us(&config, &window, &burst), 13046, 13054);
    assert_int_equal(window.bytes, 14480 << 8);
    assert_int_equal(tcp_delay_us(&config, &window, &burst), 0);
    burst.now_us +=
        2 * (config.tcp_idle_us + burst.round_us); /* halved twice: 926,720 and 1,853,440 fit in */
    assert_in_range(tcp_delay_us(&config, &window, &burst), 4000 - 2225, 4000 - 2220);
    burst.now_us += 60000000;
    (void)tcp_delay_us(&config, &window, &burst);
    assert_int_equal(window.bytes, 14480 << 8); /* from the start again */
    config.tcp_initial_bytes = 0;
    window = (struct tcp_window){0};
    assert_int_equal(tcp_delay_us(&config, &window, &burst), 0);
}

/* 100,000 bytes: windows of 14,480, 28,960 and then the rest: two round trips. */
static void short_answers_end_in_slow_start(void **state)
{
    (void)state;
    struct world_config config;
    struct tcp_window window = {0};
    struct tcp_burst burst = {
        .rate_bps = 1250000000, .round_us = 2000, .bytes = 100000, .now_us = 1000000};
    world_config_defaults(&config);
    assert_in_range(tcp_delay_us(&config, &window, &burst), 4000 - 36, 4000 - 33);
    assert_int_equal(window.bytes, 14480 * 4 + (100000 - 14480 * 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_flows_share_a_vswitch_uplink),
        cmocka_unit_test(origin_comes_in_over_the_vswitch),
        cmocka_unit_test(borders_and_their_total),
        cmocka_unit_test(origin_over_the_border_if_told),
        cmocka_unit_test(nics_differ_by_node_and_direction),
        cmocka_unit_test(latency_follows_distance),
        cmocka_unit_test(reordered_datagrams_come_late),
        cmocka_unit_test(full_links_have_queues),
        cmocka_unit_test(slow_start_loses_what_it_should),
        cmocka_unit_test(short_answers_end_in_slow_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
