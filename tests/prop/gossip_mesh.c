/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mesh of 1,000 nodes through its life: cold start, idle time, deaths, restarts, leaving, a node
 * cut off, a partition. Checks the floors of SECURITY-RELIABILITY §5 and prints the figures.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gossip_net.h"

#define NODES 1000

static struct net net;
static uint64_t down_us[NODES]; /* when each node heard of the victim's end; 0 not yet */
static uint64_t up_us[NODES];
static uint64_t downs_total, downs_of_others;
static uint32_t victim;

static void on_news(struct net *n, uint32_t node, const struct gossip_event *event)
{
    uint32_t about = net_index(n, &event->member.addr);
    if (event->kind == GOSSIP_MEMBER_DOWN) {
        downs_total++;
        downs_of_others += about != victim ? 1 : 0;
    }
    if (about != victim)
        return;
    if (event->kind == GOSSIP_MEMBER_DOWN && down_us[node] == 0)
        down_us[node] = n->now_us;
    if (event->kind == GOSSIP_MEMBER_UP && up_us[node] == 0)
        up_us[node] = n->now_us;
}

static void watch(uint32_t node)
{
    victim = node;
    memset(down_us, 0, sizeof down_us);
    memset(up_us, 0, sizeof up_us);
    downs_total = downs_of_others = 0;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Seconds from `since` to the q-th share of the others' times; 1e9 if not all of them came. */
static double after(const uint64_t *times, uint64_t since, double q)
{
    uint64_t sorted[NODES];
    size_t count = 0;
    for (uint32_t i = 0; i < NODES; i++) {
        if (i != victim)
            sorted[count++] = times[i] == 0 ? UINT64_MAX : times[i];
    }
    qsort(sorted, count, sizeof *sorted, compare_u64);
    uint64_t at = sorted[(size_t)(q * (double)(count - 1))];
    return at == UINT64_MAX ? 1e9 : (double)(at - since) / 1e6;
}

/* Runs until all views are complete, at most `limit_s`; seconds it took, or 1e9. */
static double until_complete(struct net *n, double limit_s)
{
    uint64_t from = n->now_us;
    while ((double)(n->now_us - from) < limit_s * 1e6) {
        if (net_complete(n) == net_running(n))
            return (double)(n->now_us - from) / 1e6;
        net_run_until(n, n->now_us + 100000);
    }
    return 1e9;
}

/* All nodes start at random within 2 s, each with three seeds. */
static void cold_start(struct net *n, bool same_seeds)
{
    uint64_t *start = calloc(n->node_count, sizeof *start);
    assert_non_null(start);
    for (uint32_t i = 0; i < n->node_count; i++)
        start[i] = prng_below(&n->prng, 2 * NET_SECOND);
    for (uint64_t t = 0; t < 2 * NET_SECOND; t += 1000) {
        net_run_until(n, t);
        for (uint32_t i = 0; i < n->node_count; i++) {
            if (start[i] / 1000 != t / 1000)
                continue;
            uint32_t seeds[3];
            for (uint32_t k = 0; k < 3; k++)
                seeds[k] = same_seeds ? k : (uint32_t)prng_below(&n->prng, n->node_count);
            net_start(n, i);
            net_join(n, i, seeds, 3);
        }
    }
    free(start);
    net_run_until(n, 2 * NET_SECOND);
}

static uint64_t bytes_sent(const struct net *n, uint64_t *messages)
{
    uint64_t bytes = 0;
    *messages = 0;
    for (uint32_t i = 0; i < n->node_count; i++) {
        bytes += n->nodes[i].bytes;
        *messages += n->nodes[i].messages;
    }
    return bytes;
}

static void test_cold_start_c1(void **state)
{
    (void)state;
    net_open(&net, net_seed(1), NODES);
    net.news = on_news;
    watch(NET_NONE);
    cold_start(&net, true);
    double took = 2 + until_complete(&net, 60);
    uint64_t messages, bytes = bytes_sent(&net, &messages);
    printf("figure: cold start of %d in 2 s, same 3 seeds: every view complete after %.1f s, "
           "%.0f KB sent per node\n",
           NODES, took, (double)bytes / NODES / 1e3);
    assert_true(took <= 30);
    assert_int_equal(downs_total, 0);
    for (uint32_t i = 0; i < NODES; i += 37)
        gossip__check_invariants(net.nodes[i].gossip);
}

static void test_cold_start_random_seeds(void **state)
{
    (void)state;
    struct net other;
    net_open(&other, net_seed(2), 300);
    other.loss_permille = 50;
    cold_start(&other, false);
    double took = 2 + until_complete(&other, 60);
    printf("figure: cold start of 300 in 2 s, random seeds, 5 %% loss: complete after %.1f s\n",
           took);
    assert_true(took <= 30);
    net_close(&other);
}

static void test_idle_traffic(void **state)
{
    (void)state;
    net_run_until(&net, net.now_us + 60 * NET_SECOND);
    uint64_t messages_before, bytes_before = bytes_sent(&net, &messages_before);
    net_run_until(&net, net.now_us + 60 * NET_SECOND);
    uint64_t messages, bytes = bytes_sent(&net, &messages);
    double bytes_s = (double)(bytes - bytes_before) / 60 / NODES;
    double messages_s = (double)(messages - messages_before) / 60 / NODES;
    /* On the wire: sealing, UDP and IP headers beside the message. */
    double wire_s = bytes_s + messages_s * (DATAGRAM_OVERHEAD_MAX + 28);
    printf("figure: idle in a mesh of %d: %.1f messages/s, %.0f B/s, %.0f B/s with sealing, UDP "
           "and IP, per node\n",
           NODES, messages_s, bytes_s, wire_s);
    assert_true(wire_s < 2000);
    assert_int_equal(downs_total, 0);
    uint64_t memory = net.nodes[7].allocated_bytes;
    printf("figure: memory of one core with %d members: %llu KiB\n", NODES,
           (unsigned long long)(memory / 1024));
}

/* The victim comes back at its address; seconds until every view has its new incarnation. */
static double restart(uint32_t node)
{
    uint64_t from = net.now_us;
    uint32_t seeds[3] = {(node + 1) % NODES, (node + 2) % NODES, (node + 3) % NODES};
    net_start(&net, node);
    net_join(&net, node, seeds, 3);
    while (net.now_us - from < 60 * NET_SECOND) {
        net_run_until(&net, net.now_us + 100000);
        const struct member *self = gossip_self(net.nodes[node].gossip);
        bool all = gossip_count(net.nodes[node].gossip) == NODES;
        for (uint32_t i = 0; i < NODES && all; i++) {
            struct member seen;
            all = gossip_find(net.nodes[i].gossip, &self->id, &seen) &&
                  seen.incarnation == self->incarnation && seen.state == MEMBER_ALIVE;
        }
        if (all)
            return (double)(net.now_us - from) / 1e6;
    }
    return 1e9;
}

static void test_death_and_restart(void **state)
{
    (void)state;
    double first = 0, most = 0, last = 0, back = 0, first_sum = 0;
    const unsigned rounds = 8;
    for (unsigned round = 0; round < rounds; round++) {
        watch((uint32_t)prng_below(&net.prng, NODES));
        uint64_t killed = net.now_us;
        net_kill(&net, victim);
        net_run_until(&net, killed + 20 * NET_SECOND);
        double f = after(down_us, killed, 0), m = after(down_us, killed, 0.99);
        double l = after(down_us, killed, 1);
        first = f > first ? f : first;
        most = m > most ? m : most;
        last = l > last ? l : last;
        first_sum += f;
        assert_int_equal(downs_of_others, 0);
        double b = restart(victim);
        back = b > back ? b : back;
    }
    printf("figure: dead node dropped, %u deaths: first %.1f s (mean %.1f), 99 %% of nodes %.1f "
           "s, all %.1f s\n",
           rounds, first, first_sum / rounds, most, last);
    printf("figure: restart after death at the same address: all have it after %.1f s\n", back);
    assert_true(first <= 5);
    assert_true(most <= 15);
    assert_true(back <= 30);
}

static void test_quick_restart(void **state)
{
    (void)state;
    double worst = 0;
    for (unsigned round = 0; round < 4; round++) {
        watch((uint32_t)prng_below(&net.prng, NODES));
        net_kill(&net, victim);
        net_run_until(&net, net.now_us + 700000);
        double took = restart(victim);
        worst = took > worst ? took : worst;
        net_run_until(&net, net.now_us + 10 * NET_SECOND);
        assert_int_equal(downs_of_others, 0);
    }
    printf("figure: restart within 0.7 s, old record alive: all have the new one after %.1f s\n",
           worst);
    assert_true(worst <= 30);
}

static void test_leaving(void **state)
{
    (void)state;
    watch(17);
    uint64_t from = net.now_us;
    gossip_leave(net.nodes[victim].gossip, net.now_us, false);
    net_settle(&net, victim);
    uint32_t leaving = 0;
    while (leaving < NODES && net.now_us - from < 30 * NET_SECOND) {
        net_run_until(&net, net.now_us + 100000);
        leaving = 0;
        const struct node_id id = gossip_self(net.nodes[victim].gossip)->id;
        for (uint32_t i = 0; i < NODES; i++) {
            struct member seen;
            assert_true(gossip_find(net.nodes[i].gossip, &id, &seen));
            leaving += seen.state == MEMBER_LEAVING ? 1 : 0;
        }
    }
    double drained = (double)(net.now_us - from) / 1e6;
    assert_int_equal(leaving, NODES);
    assert_int_equal(downs_total, 0);
    from = net.now_us;
    gossip_leave(net.nodes[victim].gossip, net.now_us, true);
    net_settle(&net, victim);
    net_run_until(&net, net.now_us + 5000);
    net_kill(&net, victim); /* the process ends 5 ms later */
    net_run_until(&net, net.now_us + 40 * NET_SECOND);
    printf("figure: LEAVING at all after %.1f s; LEFT at 99 %% after %.1f s, all %.1f s\n", drained,
           after(down_us, from, 0.99), after(down_us, from, 1));
    assert_true(drained <= 10);
    assert_true(after(down_us, from, 0.99) <= 5);
    assert_true(after(down_us, from, 1) <= 40);
    assert_true(restart(victim) <= 30);
}

static bool not_the_victim(const struct net *n, uint32_t from, uint32_t to)
{
    (void)n;
    return from != victim && to != victim;
}

static void test_falsely_accused_is_back(void **state)
{
    (void)state;
    watch(400);
    net.link = not_the_victim;
    uint64_t from = net.now_us;
    net_run_until(&net, net.now_us + 20 * NET_SECOND);
    printf("figure: node cut off is dropped: first %.1f s, 99 %% %.1f s\n", after(down_us, from, 0),
           after(down_us, from, 0.99));
    assert_true(after(down_us, from, 0.99) <= 15);
    memset(up_us, 0, sizeof up_us);
    net.link = NULL;
    from = net.now_us;
    double took = until_complete(&net, 60);
    printf("figure: falsely accused node back: 99 %% %.1f s, every view whole after %.1f s\n",
           after(up_us, from, 0.99), took);
    assert_true(took <= 10);
    downs_of_others = 0;
    net_run_until(&net, net.now_us + 10 * NET_SECOND);
    assert_int_equal(downs_of_others, 0);
}

/* Zone 2 on one side, 0 and 1 on the other. */
static bool within_side(const struct net *n, uint32_t from, uint32_t to)
{
    (void)n;
    return (from % 3 == 2) == (to % 3 == 2);
}

static void test_partition_heals_n1(void **state)
{
    (void)state;
    watch(NET_NONE);
    net.link = within_side;
    net_run_until(&net, net.now_us + 60 * NET_SECOND);
    for (uint32_t i = 0; i < NODES; i++) {
        if (i % 3 != 2)
            assert_int_equal(gossip_count(net.nodes[i].gossip), NODES - NODES / 3);
    }
    uint64_t messages, bytes_before = bytes_sent(&net, &messages);
    net.link = NULL;
    watch(NET_NONE);
    double took = until_complete(&net, 120);
    uint64_t bytes = bytes_sent(&net, &messages);
    printf("figure: partition of %d + %d healed after 1 min: full view at all after %.1f s, %.0f "
           "KB sent per node\n",
           NODES - NODES / 3, NODES / 3, took, (double)(bytes - bytes_before) / NODES / 1e3);
    assert_true(took <= 30);
    net_run_until(&net, net.now_us + 30 * NET_SECOND);
    assert_int_equal(downs_total, 0); /* no flap storm */
    assert_int_equal(net_complete(&net), NODES);
    for (uint32_t i = 0; i < NODES; i += 37)
        gossip__check_invariants(net.nodes[i].gossip);
    net_close(&net);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cold_start_random_seeds),
        cmocka_unit_test(test_cold_start_c1),
        cmocka_unit_test(test_idle_traffic),
        cmocka_unit_test(test_death_and_restart),
        cmocka_unit_test(test_quick_restart),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_falsely_accused_is_back),
        cmocka_unit_test(test_partition_heals_n1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
