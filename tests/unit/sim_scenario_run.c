/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios played: who pulls when, in what order, and what faults do to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../sim/host.h"
#include "../../sim/scenario.h"

#define S 1000000ULL

static struct scenario scenario; /* large */

struct played {
    struct world *world;
    struct scenario_result result;
    const struct world_pull *pulls;
    size_t count;
};

static void play(const char *text, struct played *out)
{
    struct scenario_error error;
    if (scenario_load_text("t.yaml", text, &scenario, &error) != 0)
        fail_msg("%s", error.text);
    assert_int_equal(scenario_run(&scenario, &out->world, &out->result), 0);
    out->pulls = world_pulls(out->world, &out->count);
    scenario_close(&scenario);
}

/* The only pull of a blob by a node. */
static const struct world_pull *pull_of(const struct played *played, uint32_t node, uint32_t blob)
{
    for (size_t i = 0; i < played->count; i++)
        if (played->pulls[i].node == node && played->pulls[i].blob == blob)
            return &played->pulls[i];
    fail_msg("node %u never pulled blob %u", node, blob);
    return NULL;
}

static void all_good(const struct played *played, size_t pulls)
{
    assert_int_equal(played->result.pulls, pulls);
    assert_int_equal(played->result.unexplained + played->result.unfinished, 0);
    assert_int_equal(played->result.report.wrong_bytes, 0);
}

static void a_crowd_arrives_within_its_time(void **state)
{
    (void)state;
    struct played played;
    uint64_t latest = 0;
    play("nodes: 20\narrivals: {within: 4s}\nimage: {layers: [1MiB, 1MiB]}\n", &played);
    all_good(&played, 40);
    for (size_t i = 0; i < played.count; i++) {
        assert_in_range(played.pulls[i].started_us, 30 * S, 34 * S);
        latest = played.pulls[i].started_us > latest ? played.pulls[i].started_us : latest;
    }
    assert_true(latest > 32 * S);
    world_free(played.world);
}

static void layers_come_in_the_clients_order(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 4\nimage: {layers: [8MiB, 8MiB, 8MiB, 8MiB, 8MiB], order: 2}\n", &played);
    all_good(&played, 20);
    for (uint32_t node = 0; node < 4; node++) {
        assert_true(pull_of(&played, node, 0)->started_us == pull_of(&played, node, 1)->started_us);
        for (uint32_t blob = 2; blob < 5; blob++) {
            /* One of those before it has ended, at most one still runs. */
            uint64_t at_us = pull_of(&played, node, blob)->started_us;
            uint32_t running = 0;
            for (uint32_t before = 0; before < blob; before++)
                running += pull_of(&played, node, before)->done_us > at_us;
            assert_true(running < 2);
            assert_true(at_us > pull_of(&played, node, 0)->started_us);
        }
    }
    world_free(played.world);
}

/* Layers of one pull each, one after the other: the later ones begin while the earlier ones come.
 */
static void next_layers_are_brought_in_meanwhile(void **state)
{
    (void)state;
    struct played with, without;
    play("nodes: 8\nnic: {up: 100Mbit/s}\norigin: {rate: 100Mbit/s}\n"
         "image: {layers: [8MiB, 8MiB, 8MiB, 8MiB, 8MiB, 8MiB], order: 1}\n",
         &with);
    play("nodes: 8\nnic: {up: 100Mbit/s}\norigin: {rate: 100Mbit/s}\n"
         "image: {layers: [8MiB, 8MiB, 8MiB, 8MiB, 8MiB, 8MiB], order: 1, prefetch: false}\n",
         &without);
    all_good(&with, 48);
    all_good(&without, 48);
    const struct report *report = &with.result.report;
    assert_true(report->last_s < 0.9 * without.result.report.last_s);
    assert_true(report->origin_copies < 1.05);
    /* What the clients wait for is not held up by it. */
    double first_us[2] = {0, 0};
    for (uint32_t node = 0; node < 8; node++) {
        const struct world_pull *pull = pull_of(&with, node, 0);
        first_us[0] += (double)(pull->done_us - pull->started_us);
        pull = pull_of(&without, node, 0);
        first_us[1] += (double)(pull->done_us - pull->started_us);
    }
    assert_true(first_us[0] < 1.25 * first_us[1]);
    world_free(with.world);
    world_free(without.world);
}

static void batches_wait_for_each_other(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 10\nimage: {layers: [4MiB]}\n"
         "arrivals: {kind: rolling, batch: 30%, within: 0}\n",
         &played);
    all_good(&played, 10);
    /* Batches of 3, 3, 3, 1 in the order of their pulls. */
    for (size_t i = 3; i < 10; i++)
        for (size_t before = 0; before < i / 3 * 3; before++)
            assert_true(played.pulls[before].done_us <= played.pulls[i].started_us);
    world_free(played.world);
}

static void batches_come_by_the_clock(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 10\nimage: {layers: [4MiB]}\n"
         "arrivals: {kind: rolling, batch: 50%, every: 20s, within: 0}\n",
         &played);
    all_good(&played, 10);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(played.pulls[i].started_us, i < 5 ? 30 * S : 50 * S);
    world_free(played.world);
}

static void poisson_arrivals_have_their_rate(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 200\nzones: 1\nimage: {layers: [16KiB]}\narrivals: {kind: poisson, rate: 50}\n",
         &played);
    all_good(&played, 200);
    /* 200 at 50 per second: 4 s on average, with a deviation of 0.28 s. */
    uint64_t last_us = played.pulls[199].started_us - 30 * S;
    assert_in_range(last_us, 2600000, 5400000);
    world_free(played.world);
}

static void shares_of_nodes_pull_an_image(void **state)
{
    (void)state;
    struct played played;
    uint32_t half = 0;
    play("nodes: 100\nzones: 1\nimages:\n- layers: [16KiB]\n"
         "- {layers: [16KiB], nodes: 50%, at: 3s}\n",
         &played);
    for (size_t i = 0; i < played.count; i++)
        half += played.pulls[i].blob == 1;
    all_good(&played, 100 + half);
    assert_in_range(half, 30, 70);
    for (size_t i = 0; i < played.count; i++)
        if (played.pulls[i].blob == 1)
            assert_true(played.pulls[i].started_us ==
                        pull_of(&played, played.pulls[i].node, 0)->started_us + 3 * S);
    world_free(played.world);
}

static void the_restarted_pull_again(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 6\nnic: {up: 100Mbit/s}\nimage: {layers: [64MiB]}\n"
         "faults: [{kind: restart, node: 2, at: 2s, down: 3s}]\n",
         &played);
    all_good(&played, 6);
    assert_int_equal(played.count, 7);
    const struct world_pull *again = &played.pulls[6];
    assert_int_equal(again->node, 2);
    assert_int_equal(again->started_us, 36 * S); /* 30 + 2 + 3 + RETRY_US */
    assert_false(again->failed);
    assert_true(pull_of(&played, 2, 0)->failed);
    world_free(played.world);
}

static void the_killed_are_nobodys_failure(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 8\nnic: {up: 100Mbit/s}\nimage: {layers: [32MiB, 32MiB], order: 1}\n"
         "faults: [{kind: kill, nodes: 25%, at: 1.5s}, {kind: leave, nodes: 1, at: 1.5s}]\n",
         &played);
    assert_int_equal(played.result.unexplained + played.result.unfinished, 0);
    uint32_t down = 0;
    for (uint32_t node = 0; node < 8; node++)
        down += !world_node_up(played.world, node);
    assert_in_range(down, 2, 3);
    world_free(played.world);
}

static void late_nodes_pull_when_they_are_there(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 6\nimage: {layers: [4MiB]}\nfaults: [{kind: join, node: 5, at: 10s}]\n", &played);
    all_good(&played, 6);
    assert_int_equal(pull_of(&played, 5, 0)->started_us, 42 * S);
    world_free(played.world);
}

static void an_outage_is_told_or_outlived(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 1\nzones: 1\nnic: {up: 100Mbit/s}\nimage: {layers: [16MiB]}\n"
         "arrivals: {within: 0}\norigin: {outages: [{at: 0, for: 3s, how: refuse}]}\n",
         &played);
    /* Nobody else has it: the pull fails, or takes longer than the outage. */
    assert_int_equal(played.result.pulls, 1);
    assert_true(played.result.unexplained == 1 ||
                played.pulls[0].done_us - played.pulls[0].started_us >= 3 * S);
    world_free(played.world);
}

static void what_has_no_time_left_is_unfinished(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 2\nnic: {up: 1Mbit/s}\nimage: {layers: [64MiB]}\nrun: {limit: 5s}\n", &played);
    assert_int_equal(played.result.unfinished, 2);
    world_free(played.world);
}

static void limits_on_results_are_held(void **state)
{
    (void)state;
    struct played played;
    char *text = NULL;
    size_t bytes = 0;
    play("nodes: 4\nimage: {layers: [4MiB]}\nchecks: {last: 1, originCopies: 0.5, uploadSkew: "
         "100, invariants: true}\n",
         &played);
    FILE *to = open_memstream(&text, &bytes);
    assert_int_equal(scenario_check_result(&scenario, &played.result, to), 2);
    assert_int_equal(fclose(to), 0);
    assert_non_null(strstr(text, "check: ratio.last is "));
    assert_non_null(strstr(text, "check: origin_copies is "));
    assert_null(strstr(text, "upload_skew"));
    free(text);
    world_free(played.world);
}

/* Who had leases when it happened dies, comes back, and its clients pull again. */
static void faults_are_aimed(void **state)
{
    (void)state;
    static const char *const aims[] = {"keepers", "lessees"};
    for (unsigned i = 0; i < 2; i++) {
        struct played played;
        char text[256];
        (void)snprintf(text, sizeof text,
                       "nodes: 16\nimage: {layers: [64MiB]}\narrivals: {within: 100ms}\n"
                       "faults: [{kind: restart, aim: %s, nodes: 3, at: 300ms, down: 1s}]\n",
                       aims[i]);
        play(text, &played);
        assert_in_range(played.result.report.pulls_failed, 1, 3);
        assert_int_equal(played.result.unexplained + played.result.unfinished, 0);
        assert_int_equal(played.result.report.nodes_incomplete, 0);
        world_free(played.world);
    }
}

static void machines_fail_and_nodes_are_hostile(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 16\nimage: {layers: [64MiB]}\narrivals: {within: 100ms}\ndisk: {memory: 4MiB}\n"
         "faults:\n- {kind: disk, nodes: 3, error: write, for: 10s}\n"
         "- {kind: disk, nodes: 3, wait: 20ms}\n- {kind: cpu, nodes: 2, divisor: 5, for: 3s}\n"
         "- {kind: hostile, nodes: 2, acts: claimsFlip}\n- {kind: hostile, node: 1, acts: lies}\n"
         "- {kind: isolate, node: 7, for: 2s}\n- {kind: isolate, node: 8, for: 2s, oneWay: true}\n",
         &played);
    assert_int_equal(played.result.report.pulls_failed, 0);
    assert_int_equal(played.result.unfinished, 0);
    assert_int_equal(played.result.report.wrong_bytes, 0);
    assert_true(world_totals(played.world)->unwritten > 0);
    assert_true(world_totals(played.world)->lies > 0);
    world_free(played.world);
}

static void zones_have_their_sizes(void **state)
{
    (void)state;
    struct played played;
    uint32_t nodes[3] = {0};
    play("zones: [12, 1, 5]\nvswitches: 2\nimage: {layers: [16MiB]}\n"
         "faults: [{kind: partition, zone: 0, to: 2, at: 100ms, for: 500ms}]\n",
         &played);
    assert_int_equal(played.result.report.nodes, 18);
    assert_int_equal(played.result.report.zones, 3);
    assert_int_equal(played.result.report.nodes_incomplete, 0);
    for (uint32_t node = 0; node < 18; node++)
        nodes[world__zone(played.world, node)]++;
    assert_int_equal(nodes[0], 12);
    assert_int_equal(nodes[1], 1);
    assert_int_equal(nodes[2], 5);
    world_free(played.world);
}

/* Each client's time is its own: from when it began, and anew after its node came back. */
static void clients_and_images_have_their_figures(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 6\nimages: [{name: base, layers: [8MiB, 4MiB]}, {layers: [16MiB], nodes: 50%, "
         "at: 20s}]\nfaults: [{kind: restart, node: 2, at: 1ms, down: 5s, keepCache: false}]\n"
         "arrivals: {within: 0s}\n",
         &played);
    const struct report *report = &played.result.report;
    const struct report_clients *base = &report->images[0].clients,
                                *second = &report->images[1].clients;
    assert_int_equal(report->image_count, 2);
    assert_string_equal(report->images[0].name, "base");
    assert_string_equal(report->images[1].name, "1");
    assert_int_equal(base->count, 6);
    assert_int_equal(base->retries, 1);
    assert_int_equal(base->failed, 0);
    assert_int_equal(base->bytes, 12 << 20);
    assert_int_equal(second->bytes, 16 << 20);
    assert_in_range(second->count, 1, 6);
    assert_int_equal(report->clients.count, base->count + second->count);
    assert_true(report->clients.origin_bytes == report->origin_bytes);
    assert_true(base->origin_bytes >= 12 << 20);
    assert_true(second->origin_bytes >= 16 << 20);
    /* Nobody waited 5 s for its bytes, and 20 s are before the second image's start. */
    assert_true(base->last_s < 5 && second->last_s < 5 && base->p50_s > 0);
    /* The headline is of clients, too: a restarted one counts from its beginning. */
    assert_true(report->by_client);
    assert_true(report->last_s > 5 && report->last_s < 19);
    assert_int_equal(report->bytes, 16 << 20);
    world_free(played.world);
}

static void images_have_copies_of_their_own(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 24\nzones: 3\nnic: {up: 1Gbit/s}\norigin: {rate: 5Gbit/s}\n"
         "images: [{layers: [16MiB], copies: zone}, {layers: [16MiB], at: 20s}]\n",
         &played);
    all_good(&played, 48);
    const struct report *report = &played.result.report;
    assert_in_range(report->images[0].clients.origin_bytes, 48 << 20, 50 << 20);
    assert_in_range(report->images[1].clients.origin_bytes, 16 << 20, 17 << 20);
    /* What crossed is the second image, into two zones. */
    assert_in_range(report->cross_zone_bytes, 32 << 20, 35 << 20);
    world_free(played.world);
}

static void own_caches_give_what_was_pulled_before(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 2\nimages: [{layers: [4MiB]}, {layers: [4MiB], at: 5s}]\n", &played);
    assert_true(scenario_hit_ratio(&played.result) == 0);
    assert_true(played.result.pulled_bytes == 16 << 20);
    world_free(played.world);
    played.result.arrived_bytes = 4 << 20;
    assert_true(scenario_hit_ratio(&played.result) == 0.75);
}

/* Some images on any node, again and again: who has one needs nothing, with and without a mesh. */
static void jobs_come_back_to_their_nodes(void **state)
{
    (void)state;
    struct played played;
    play("nodes: 4\nimages: [{layers: [4MiB], nodes: 90%}, {layers: [6MiB], nodes: 10%}]\n"
         "arrivals: {kind: poisson, rate: 2, for: 60s}\n",
         &played);
    const struct report *report = &played.result.report;
    assert_in_range(report->clients.count, 80, 160);
    assert_int_equal(report->clients.failed, 0);
    assert_true(report->images[0].clients.count > 4 * report->images[1].clients.count);
    assert_true(report->images[1].clients.count > 0);
    /* At most eight pulls of them all are the first of their node. */
    assert_true(report->hit_ratio > 0.85 && report->hit_ratio < 1);
    assert_true(report->hit_ratio == scenario_hit_ratio(&played.result));
    assert_true(report->by_client && report->no_mesh_p50_s <= 0 && report->no_mesh_last_s > 0);
    assert_true(report->p50_s <= report->last_s && report->last_s < 1);
    world_free(played.world);
    play("nodes: 4\narrivals: {kind: poisson, rate: 2}\n", &played);
    assert_int_equal(played.result.report.clients.count, 4);
    assert_false(played.result.report.by_client);
    world_free(played.world);
}

static void the_same_seed_is_the_same_run(void **state)
{
    (void)state;
    static const char text[] =
        "nodes: 20\nzones: 3\nloss: 1%\nnic: {slow: [10%, 4]}\nimage: {layers: [8MiB, 4MiB], "
        "order: 1}\nfaults: [{kind: churn, perMinute: 200%, down: 1s}, {kind: loss, at: 1s, for: "
        "1s, loss: 10%}, {kind: slow, nodes: 2, for: 1s}]\n";
    struct played a, b;
    play(text, &a);
    play(text, &b);
    assert_true(a.result.report.trace_hash == b.result.report.trace_hash);
    world_free(a.world);
    world_free(b.world);
    scenario.world.seed = 2;
    assert_int_equal(scenario_run(&scenario, &b.world, &b.result), 0);
    assert_true(a.result.report.trace_hash != b.result.report.trace_hash);
    world_free(b.world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crowd_arrives_within_its_time),
        cmocka_unit_test(layers_come_in_the_clients_order),
        cmocka_unit_test(next_layers_are_brought_in_meanwhile),
        cmocka_unit_test(batches_wait_for_each_other),
        cmocka_unit_test(batches_come_by_the_clock),
        cmocka_unit_test(poisson_arrivals_have_their_rate),
        cmocka_unit_test(shares_of_nodes_pull_an_image),
        cmocka_unit_test(the_restarted_pull_again),
        cmocka_unit_test(the_killed_are_nobodys_failure),
        cmocka_unit_test(late_nodes_pull_when_they_are_there),
        cmocka_unit_test(an_outage_is_told_or_outlived),
        cmocka_unit_test(what_has_no_time_left_is_unfinished),
        cmocka_unit_test(limits_on_results_are_held),
        cmocka_unit_test(faults_are_aimed),
        cmocka_unit_test(machines_fail_and_nodes_are_hostile),
        cmocka_unit_test(zones_have_their_sizes),
        cmocka_unit_test(clients_and_images_have_their_figures),
        cmocka_unit_test(images_have_copies_of_their_own),
        cmocka_unit_test(own_caches_give_what_was_pulled_before),
        cmocka_unit_test(jobs_come_back_to_their_nodes),
        cmocka_unit_test(the_same_seed_is_the_same_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
