/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mesh of 300 nodes under faults: links that work one way only, nodes that stop for five seconds,
 * a long partition. Nobody healthy may be declared dead, suspicion must stay rare, and one view
 * must come back. Also: the same seed gives the same run, and random faults leave the invariants
 * and, once they end, one view.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gossip_net.h"

#define NODES 300

static struct net net;
static uint64_t downs, downs_of_healthy;
static bool unhealthy[NODES];

static void on_news(struct net *n, uint32_t node, const struct gossip_event *event)
{
    (void)node;
    if (event->kind != GOSSIP_MEMBER_DOWN)
        return;
    downs++;
    downs_of_healthy += unhealthy[net_index(n, &event->member.addr)] ? 0 : 1;
}

static struct gossip_stats sum_stats(const struct net *n)
{
    struct gossip_stats sum = {0}, one;
    for (uint32_t i = 0; i < n->node_count; i++) {
        if (n->nodes[i].gossip == NULL)
            continue;
        gossip_stats(n->nodes[i].gossip, &one);
        sum.suspicions += one.suspicions;
        sum.refutations += one.refutations;
        sum.probe_failures += one.probe_failures;
        sum.deaths += one.deaths;
        sum.rejected += one.rejected;
        sum.bytes_sent += one.bytes_sent;
        sum.health += one.health;
    }
    return sum;
}

/* All nodes at once, three seeds; runs until every view is complete. */
static void start_all(struct net *n, double limit_s)
{
    for (uint32_t i = 0; i < n->node_count; i++) {
        const uint32_t seeds[3] = {0, 1, 2};
        net_start(n, i);
        net_join(n, i, seeds, 3);
    }
    uint64_t limit_us = n->now_us + (uint64_t)(limit_s * 1e6);
    while (n->now_us < limit_us && net_complete(n) < n->node_count)
        net_run_until(n, n->now_us + 250000);
    assert_int_equal(net_complete(n), n->node_count);
}

/* One ordered pair in ten does not work; the other direction mostly does. */
static bool one_way_pairs(const struct net *n, uint32_t from, uint32_t to)
{
    (void)n;
    return (from * 2654435761u ^ to * 2246822519u) % 10 != 0;
}

static void test_one_way_pairs_n5(void **state)
{
    (void)state;
    net_open(&net, net_seed(3), NODES);
    net.news = on_news;
    start_all(&net, 30);
    net_run_until(&net, net.now_us + 30 * NET_SECOND);
    net.link = one_way_pairs;
    downs = 0;
    struct gossip_stats before = sum_stats(&net);
    net_run_until(&net, net.now_us + 120 * NET_SECOND);
    struct gossip_stats after = sum_stats(&net);
    printf("figure: 10 %% of links one way, 2 min: %llu declared dead, %llu failed probes, %llu "
           "refutations\n",
           (unsigned long long)downs,
           (unsigned long long)(after.probe_failures - before.probe_failures),
           (unsigned long long)(after.refutations - before.refutations));
    assert_int_equal(downs, 0);
    /* No storm: a node is accused less than once a minute, and says so once. */
    assert_true(after.refutations - before.refutations < 2 * NODES);
    net.link = NULL;
    net_run_until(&net, net.now_us + 10 * NET_SECOND);
    assert_int_equal(net_complete(&net), NODES);
}

/* Zone 2 is heard by nobody else, but hears all. */
static bool zone_is_mute(const struct net *n, uint32_t from, uint32_t to)
{
    (void)n;
    return from % 3 != 2 || to % 3 == 2;
}

static void test_one_way_zone_n5(void **state)
{
    (void)state;
    net.link = zone_is_mute;
    downs = downs_of_healthy = 0;
    for (uint32_t i = 0; i < NODES; i++)
        unhealthy[i] = true;
    struct gossip_stats before = sum_stats(&net);
    net_run_until(&net, net.now_us + 120 * NET_SECOND);
    struct gossip_stats middle = sum_stats(&net);
    for (uint32_t i = 0; i < NODES; i++)
        assert_int_equal(gossip_count(net.nodes[i].gossip),
                         i % 3 == 2 ? NODES / 3 : NODES - NODES / 3);
    uint64_t downs_by_then = downs;
    net_run_until(&net, net.now_us + 30 * NET_SECOND);
    struct gossip_stats after = sum_stats(&net);
    printf("figure: a zone of %d mute for 150 s: %llu refutations in 120 s, %llu in the last 30 s, "
           "%.0f B/s per node\n",
           NODES / 3, (unsigned long long)(middle.refutations - before.refutations),
           (unsigned long long)(after.refutations - middle.refutations),
           (double)(after.bytes_sent - before.bytes_sent) / 150 / NODES);
    /* Both sides have made up their minds, and stay with it. */
    assert_int_equal(downs, downs_by_then);
    assert_true(after.refutations - middle.refutations < NODES / 10);
    net.link = NULL;
    uint64_t from = net.now_us;
    while (net_complete(&net) < NODES && net.now_us - from < 60 * NET_SECOND)
        net_run_until(&net, net.now_us + 250000);
    printf("figure: one view again after %.1f s\n", (double)(net.now_us - from) / 1e6);
    assert_true(net.now_us - from <= 30 * NET_SECOND);
}

static void test_stalled_nodes(void **state)
{
    (void)state;
    memset(unhealthy, 0, sizeof unhealthy);
    net_run_until(&net, net.now_us + 10 * NET_SECOND);
    downs = downs_of_healthy = 0;
    /* In each of four rounds of 30 s a tenth of the nodes stops for 5 s at some moment. */
    unsigned stops = 0;
    for (unsigned round = 0; round < 4; round++) {
        uint64_t begin = net.now_us;
        memset(unhealthy, 0, sizeof unhealthy);
        for (uint64_t t = 0; t < 10 * NET_SECOND; t += 10 * NET_SECOND / (NODES / 10)) {
            net_run_until(&net, begin + t);
            uint32_t node = (uint32_t)prng_below(&net.prng, NODES);
            unhealthy[node] = true;
            stops++;
            net.nodes[node].frozen_us = net.now_us + 5 * NET_SECOND;
        }
        net_run_until(&net, begin + 30 * NET_SECOND);
    }
    printf("figure: %u stops of 5 s: %llu healthy nodes declared dead, %llu views of a stopped one "
           "as dead\n",
           stops, (unsigned long long)downs_of_healthy,
           (unsigned long long)(downs - downs_of_healthy));
    assert_int_equal(downs_of_healthy, 0);
    assert_int_equal(net_complete(&net), NODES);
}

/* Zone 2 on one side, 0 and 1 on the other. */
static bool within_side(const struct net *n, uint32_t from, uint32_t to)
{
    (void)n;
    return (from % 3 == 2) == (to % 3 == 2);
}

static void test_long_partition_n1(void **state)
{
    (void)state;
    struct gossip_stats before = sum_stats(&net);
    net.link = within_side;
    net_run_until(&net, net.now_us + 600 * NET_SECOND);
    struct gossip_stats after = sum_stats(&net);
    for (uint32_t i = 0; i < NODES; i++)
        assert_int_equal(gossip_count(net.nodes[i].gossip),
                         i % 3 == 2 ? NODES / 3 : NODES - NODES / 3);
    net.link = NULL;
    downs = 0;
    uint64_t from = net.now_us;
    while (net_complete(&net) < NODES && net.now_us - from < 60 * NET_SECOND)
        net_run_until(&net, net.now_us + 100000);
    printf("figure: %d nodes, a third cut off for 10 min: %.0f B/s per node, one view again after "
           "%.1f s\n",
           NODES, (double)(after.bytes_sent - before.bytes_sent) / 600 / NODES,
           (double)(net.now_us - from) / 1e6);
    assert_true(net.now_us - from <= 30 * NET_SECOND);
    net_run_until(&net, net.now_us + 30 * NET_SECOND);
    assert_int_equal(downs, 0); /* no flap storm */
    net_close(&net);
}

/* D-13: all others go on; one stops for 30 s and must not accuse anybody when it wakes. */
static void test_stopped_30s_d13(void **state)
{
    (void)state;
    struct net small;
    net_open(&small, net_seed(4), 50);
    start_all(&small, 30);
    net_run_until(&small, small.now_us + 10 * NET_SECOND);
    struct gossip_stats before, after;
    gossip_stats(small.nodes[9].gossip, &before);
    small.nodes[9].frozen_us = small.now_us + 30 * NET_SECOND;
    net_run_until(&small, small.now_us + 31 * NET_SECOND);
    gossip_stats(small.nodes[9].gossip, &after);
    assert_int_equal(after.suspicions, before.suspicions);
    uint64_t from = small.now_us;
    while (net_complete(&small) < 50 && small.now_us - from < 60 * NET_SECOND)
        net_run_until(&small, small.now_us + 100000);
    assert_true(small.now_us - from <= 10 * NET_SECOND);
    net_close(&small);
}

static uint64_t trace_of(uint64_t seed)
{
    struct net small;
    net_open(&small, seed, 60);
    small.loss_permille = 100;
    start_all(&small, 60);
    net_kill(&small, 5);
    net_run_until(&small, small.now_us + 30 * NET_SECOND);
    uint64_t hash = small.trace_hash;
    net_close(&small);
    return hash;
}

static void test_same_seed_same_trace(void **state)
{
    (void)state;
    uint64_t seed = net_seed(5);
    assert_true(trace_of(seed) == trace_of(seed));
    assert_true(trace_of(seed) != trace_of(seed + 1));
}

/* ---- a liar ---- */

/* Claims that random members are suspect or dead, with accusers made up, from a member's address.
 */
static void lie(struct net *n, uint32_t liar)
{
    static struct wire_gossip message;
    uint8_t buffer[MESSAGE_BYTES_MAX];
    size_t bytes;
    uint32_t to = (liar + 1 + (uint32_t)prng_below(&n->prng, n->node_count - 1)) % n->node_count;
    memset(&message, 0, sizeof message);
    message.type = WIRE_GOSSIP_NEWS;
    message.known_state = MEMBER_ALIVE;
    message.known_incarnation = gossip_self(n->nodes[to].gossip)->incarnation;
    message.news.claim_count = 8;
    for (unsigned i = 0; i < 8; i++) {
        struct wire_gossip_claim *claim = &message.news.claims[i];
        uint32_t about = (uint32_t)prng_below(&n->prng, n->node_count);
        claim->addr = net_addr(about);
        claim->incarnation = gossip_self(n->nodes[about].gossip)->incarnation;
        claim->state = i % 2 == 0 ? MEMBER_DEAD : MEMBER_SUSPECT;
        claim->accuser_count = WIRE_GOSSIP_ACCUSERS_MAX;
        for (unsigned k = 0; k < WIRE_GOSSIP_ACCUSERS_MAX; k++)
            claim->accusers[k] = net_addr((uint32_t)prng_below(&n->prng, n->node_count));
    }
    if (wire_gossip_encode(&message, 0, buffer, sizeof buffer, &bytes) != 0)
        abort();
    net_carry(n, liar, to, buffer, bytes);
}

static void test_a_liar_kills_nobody_dht6(void **state)
{
    (void)state;
    struct net small;
    net_open(&small, net_seed(6), 100);
    start_all(&small, 30);
    net_run_until(&small, small.now_us + 10 * NET_SECOND);
    small.news = on_news;
    downs = 0;
    struct gossip_stats before = sum_stats(&small);
    for (unsigned i = 0; i < 60 * 50; i++) {
        lie(&small, 13);
        net_run_until(&small, small.now_us + NET_SECOND / 50);
    }
    struct gossip_stats after = sum_stats(&small);
    printf(
        "figure: 24,000 lies in 60 s in a mesh of 100: %llu declared dead, %llu refutations, %.0f "
        "B/s per node\n",
        (unsigned long long)downs, (unsigned long long)(after.refutations - before.refutations),
        (double)(after.bytes_sent - before.bytes_sent) / 60 / 100);
    assert_int_equal(downs, 0);
    net_run_until(&small, small.now_us + 10 * NET_SECOND);
    assert_int_equal(net_complete(&small), 100);
    net_close(&small);
}

/* ---- random faults ---- */

static uint32_t split;
static unsigned kept;

static bool random_split(const struct net *n, uint32_t from, uint32_t to)
{
    (void)n;
    return (from < split) == (to < split) || (from + to) % 16 < kept;
}

static void random_fault(struct net *n)
{
    uint32_t node = (uint32_t)prng_below(&n->prng, n->node_count);
    struct net_node *host = &n->nodes[node];
    switch (prng_below(&n->prng, 9)) {
    case 0:
        if (host->gossip != NULL)
            net_kill(n, node);
        break;
    case 1:
    case 2:
        if (host->gossip == NULL) {
            const uint32_t seeds[2] = {(node + 1) % n->node_count, 0};
            net_start(n, node);
            net_join(n, node, seeds, 2);
        }
        break;
    case 3:
        split = (uint32_t)prng_below(&n->prng, n->node_count);
        kept = (unsigned)prng_below(&n->prng, 16);
        n->link = random_split;
        break;
    case 4:
        n->link = NULL;
        break;
    case 5:
        n->loss_permille = (unsigned)prng_below(&n->prng, 300);
        break;
    case 6:
        host->frozen_us = n->now_us + prng_below(&n->prng, 8 * NET_SECOND);
        break;
    case 7:
        if (host->gossip != NULL) {
            gossip_leave(host->gossip, n->now_us, true);
            net_settle(n, node);
            net_run_until(n, n->now_us + 2000);
            net_kill(n, node);
        }
        break;
    default:
        if (host->gossip != NULL) {
            struct topology topology = gossip_self(host->gossip)->topology;
            gossip_update_self(host->gossip, n->now_us, &topology, 10,
                               (uint8_t)prng_below(&n->prng, 256));
            net_settle(n, node);
        }
        break;
    }
}

/* Views agree: the same live members, incarnations and loads everywhere. */
static bool views_agree(const struct net *n)
{
    if (net_complete(n) != net_running(n))
        return false;
    for (uint32_t i = 0; i < n->node_count; i++) {
        if (n->nodes[i].gossip == NULL)
            continue;
        const struct member *self = gossip_self(n->nodes[i].gossip);
        for (uint32_t j = 0; j < n->node_count; j++) {
            if (n->nodes[j].gossip == NULL)
                continue;
            struct member seen;
            if (!gossip_find(n->nodes[j].gossip, &self->id, &seen) ||
                seen.incarnation != self->incarnation || seen.load != self->load ||
                seen.state != self->state)
                return false;
        }
    }
    return true;
}

static void test_random_faults_then_one_view(void **state)
{
    (void)state;
    uint64_t seed = net_seed(100);
    double worst = 0;
    for (unsigned run = 0; run < 12; run++) {
        struct net small;
        net_open(&small, seed + run, 8 + run * 5);
        start_all(&small, 60);
        for (unsigned i = 0; i < 150; i++) {
            random_fault(&small);
            net_run_until(&small, small.now_us + prng_below(&small.prng, 2 * NET_SECOND));
            for (uint32_t k = 0; k < small.node_count; k++) {
                if (small.nodes[k].gossip != NULL)
                    gossip__check_invariants(small.nodes[k].gossip);
            }
        }
        small.link = NULL;
        small.loss_permille = 0;
        for (uint32_t k = 0; k < small.node_count; k++) {
            const uint32_t seeds[2] = {0, 1};
            small.nodes[k].frozen_us = 0;
            if (small.nodes[k].gossip == NULL) {
                net_start(&small, k);
                net_join(&small, k, seeds, 2);
            }
        }
        uint64_t from = small.now_us;
        while (!views_agree(&small) && small.now_us - from < 120 * NET_SECOND)
            net_run_until(&small, small.now_us + 250000);
        double took = (double)(small.now_us - from) / 1e6;
        worst = took > worst ? took : worst;
        if (took > 60)
            fail_msg("seed %llu: views differ after %.0f s", (unsigned long long)(seed + run),
                     took);
        net_close(&small);
    }
    printf("figure: 12 runs of 150 random faults, 8-63 nodes: one view at most %.1f s after they "
           "end\n",
           worst);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_trace),
        cmocka_unit_test(test_stopped_30s_d13),
        cmocka_unit_test(test_random_faults_then_one_view),
        cmocka_unit_test(test_a_liar_kills_nobody_dht6),
        cmocka_unit_test(test_one_way_pairs_n5),
        cmocka_unit_test(test_one_way_zone_n5),
        cmocka_unit_test(test_stalled_nodes),
        cmocka_unit_test(test_long_partition_n1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
