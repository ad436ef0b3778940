/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mesh of 1,000 nodes on a network that loses packets for ten minutes (N-2): nobody healthy is
 * declared dead, every view stays whole.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gossip_net.h"

#define NODES 1000

static struct net net;
static uint64_t downs;

static void on_news(struct net *n, uint32_t node, const struct gossip_event *event)
{
    (void)n;
    (void)node;
    downs += event->kind == GOSSIP_MEMBER_DOWN ? 1 : 0;
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

static void run_loss(unsigned permille)
{
    net.loss_permille = permille;
    downs = 0;
    struct gossip_stats before = sum_stats(&net);
    net_run_until(&net, net.now_us + 600 * NET_SECOND);
    struct gossip_stats after = sum_stats(&net);
    printf("figure: %u.%u %% loss, %d nodes, 10 min: %llu declared dead, %llu failed probes, %llu "
           "refutations, %llu views of a suspect, %.0f B/s per node\n",
           permille / 10, permille % 10, NODES, (unsigned long long)(after.deaths - before.deaths),
           (unsigned long long)(after.probe_failures - before.probe_failures),
           (unsigned long long)(after.refutations - before.refutations),
           (unsigned long long)(after.suspicions - before.suspicions),
           (double)(after.bytes_sent - before.bytes_sent) / 600 / NODES);
    assert_int_equal(after.deaths - before.deaths, 0);
    assert_int_equal(downs, 0);
    assert_int_equal(net_complete(&net), NODES);
    net.loss_permille = 0;
}

static void test_no_deaths_by_loss_n2(void **state)
{
    (void)state;
    net_open(&net, net_seed(3), NODES);
    net.news = on_news;
    start_all(&net, 30);
    net_run_until(&net, net.now_us + 30 * NET_SECOND);
    run_loss(10);
    run_loss(50);
    net_close(&net);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_deaths_by_loss_n2)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
