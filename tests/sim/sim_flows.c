/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow network against a slow, obvious model: progressive filling of the whole network (all
 * rates grow together; a flow stops at its own limit or when a link of its way is full), and bytes
 * moved in small steps of the model's rates.
 */
#include "../../sim/flows.h"

#include "bytes.h"
#include "sim_support.h"

#define LINKS_MAX 16
#define FLOWS_MAX 48

struct model_flow {
    bool used;
    uint32_t index;
    struct flow_plan plan;
    double rate, left, start_us, done_us;
};

struct model {
    uint32_t link_count;
    double link_bps[LINKS_MAX];
    struct model_flow flows[FLOWS_MAX];
};

static bool crosses(const struct model_flow *flow, uint32_t link)
{
    for (uint32_t i = 0; i < flow->plan.link_count; i++) {
        if (flow->plan.links[i] == link)
            return true;
    }
    return false;
}

/* The level all growing flows can still rise by at a link. */
static double headroom(const struct model *model, const bool *growing, uint32_t link)
{
    double used = 0, count = 0;
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        if (!model->flows[i].used || !crosses(&model->flows[i], link))
            continue;
        used += model->flows[i].rate;
        count += growing[i];
    }
    return count == 0 ? 1e30 : (model->link_bps[link] - used) / count;
}

static void stop_growing(const struct model *model, bool *growing)
{
    for (uint32_t link = 0; link < model->link_count; link++) {
        if (headroom(model, growing, link) > 1e-6 * model->link_bps[link])
            continue;
        for (uint32_t i = 0; i < FLOWS_MAX; i++)
            growing[i] = growing[i] && !crosses(&model->flows[i], link);
    }
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        double limit = (double)model->flows[i].plan.limit_bps;
        if (growing[i] && limit > 0 && model->flows[i].rate >= limit * (1 - 1e-9))
            growing[i] = false;
    }
}

static void fill(struct model *model)
{
    bool growing[FLOWS_MAX];
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        growing[i] = model->flows[i].used;
        model->flows[i].rate = 0;
    }
    for (;;) {
        double step = 1e30;
        bool any = false;
        for (uint32_t link = 0; link < model->link_count; link++)
            step = headroom(model, growing, link) < step ? headroom(model, growing, link) : step;
        for (uint32_t i = 0; i < FLOWS_MAX; i++) {
            double limit = (double)model->flows[i].plan.limit_bps;
            any = any || growing[i];
            if (growing[i] && limit > 0 && limit - model->flows[i].rate < step)
                step = limit - model->flows[i].rate;
        }
        if (!any)
            return;
        for (uint32_t i = 0; i < FLOWS_MAX; i++)
            model->flows[i].rate += growing[i] ? step : 0;
        stop_growing(model, growing);
    }
}

/* ---- the two side by side ---- */

struct pair {
    struct prng prng;
    struct event_queue events;
    struct flows flows;
    struct model model;
    uint64_t now_us;
};

static void pair_open(struct pair *pair, uint64_t seed)
{
    *pair = (struct pair){0};
    prng_seed(&pair->prng, (const uint8_t *)&seed, sizeof seed);
    pair->model.link_count = 2 + (uint32_t)prng_below(&pair->prng, LINKS_MAX - 1);
    flows_init(&pair->flows, &pair->events, pair->model.link_count);
}

static void pair_close(struct pair *pair)
{
    flows_close(&pair->flows);
    events_close(&pair->events);
}

static void set_link(struct pair *pair, uint32_t link)
{
    /* Few different rates, so that ties are common. */
    uint64_t rate = 1000000 * (1 + prng_below(&pair->prng, 4)) << prng_below(&pair->prng, 8);
    pair->model.link_bps[link] = (double)rate;
    flows_set_link(&pair->flows, link, rate, pair->now_us);
}

static void plan_flow(struct pair *pair, struct flow_plan *plan)
{
    *plan = (struct flow_plan){.bytes = 1 + prng_below(&pair->prng, 4000000)};
    uint32_t wanted = 1 + (uint32_t)prng_below(&pair->prng, FLOW_LINKS_MAX);
    while (plan->link_count < wanted && plan->link_count < pair->model.link_count) {
        uint32_t link = (uint32_t)prng_below(&pair->prng, pair->model.link_count);
        bool twice = false;
        for (uint32_t i = 0; i < plan->link_count; i++)
            twice = twice || plan->links[i] == link;
        if (!twice)
            plan->links[plan->link_count++] = link;
    }
    if (prng_below(&pair->prng, 4) == 0)
        plan->limit_bps = 500000 + prng_below(&pair->prng, 20000000);
}

static void add_flow(struct pair *pair, struct model_flow *flow)
{
    *flow = (struct model_flow){.used = true, .start_us = (double)pair->now_us};
    plan_flow(pair, &flow->plan);
    flow->plan.user = (uint32_t)(flow - pair->model.flows);
    flow->left = (double)flow->plan.bytes;
    flow->index = flows_add(&pair->flows, &flow->plan, pair->now_us);
}

/* Whole bytes per second, of which up to 48 flows each leave part of one. */
#define ROUNDING_BPS 100.0

/* Largest relative difference between the two; the model has been filled. */
static double worst_difference(const struct pair *pair)
{
    double worst = 0;
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        const struct model_flow *flow = &pair->model.flows[i];
        if (!flow->used)
            continue;
        double rate = (double)flows_rate(&pair->flows, flow->index);
        double gap = rate > flow->rate ? rate - flow->rate : flow->rate - rate;
        gap = gap > ROUNDING_BPS ? gap - ROUNDING_BPS : 0;
        worst = gap / flow->rate > worst ? gap / flow->rate : worst;
    }
    return worst;
}

static double worst_overuse(const struct pair *pair)
{
    double worst = 0;
    for (uint32_t link = 0; link < pair->model.link_count; link++) {
        double used = (double)pair->flows.links[link].used_bps / pair->model.link_bps[link];
        worst = used > worst ? used : worst;
    }
    return worst;
}

/* Random comings, goings and changes of links; rates compared after each. */
static double compare_rates(uint64_t seed, uint64_t slack, double *overuse)
{
    struct pair pair;
    double worst = 0;
    pair_open(&pair, seed);
    pair.flows.slack = slack;
    for (uint32_t link = 0; link < pair.model.link_count; link++)
        set_link(&pair, link);
    for (unsigned step = 0; step < 300; step++) {
        struct model_flow *flow = &pair.model.flows[prng_below(&pair.prng, FLOWS_MAX)];
        if (prng_below(&pair.prng, 10) == 0) {
            set_link(&pair, (uint32_t)prng_below(&pair.prng, pair.model.link_count));
        } else if (flow->used) {
            flows_remove(&pair.flows, flow->index, pair.now_us);
            flow->used = false;
        } else {
            add_flow(&pair, flow);
        }
        flows_pour(&pair.flows, pair.now_us);
        flows_check(&pair.flows);
        fill(&pair.model);
        double difference = worst_difference(&pair), used = worst_overuse(&pair);
        worst = difference > worst ? difference : worst;
        *overuse = used > *overuse ? used : *overuse;
    }
    pair_close(&pair);
    return worst;
}

static void rates_are_max_min_fair(void **state)
{
    (void)state;
    uint64_t seed = sim_seed(51);
    double overuse = 0;
    for (unsigned i = 0; i < 150; i++) {
        double worst = compare_rates(seed + i, 0, &overuse);
        if (worst > 1e-4)
            printf("seed: %llu: a rate is %.3g off\n", (unsigned long long)(seed + i), worst);
        assert_true(worst <= 1e-4);
    }
    assert_true(overuse <= 1 + 1e-6);
}

static void slack_costs_little(void **state)
{
    (void)state;
    uint64_t seed = sim_seed(52);
    double worst = 0, overuse = 0;
    for (unsigned i = 0; i < 150; i++) {
        double one = compare_rates(seed + i, 128, &overuse);
        worst = one > worst ? one : worst;
    }
    printf("figure: slack 1/128: rates at most %.1f %% off, links at most %.1f %% full\n",
           worst * 100, overuse * 100);
    assert_true(worst <= 0.15);
    assert_true(overuse <= 1.05);
}

/* ---- bytes and time ---- */

/* The model's bytes up to `to_us`, from one completion to the next. */
static void move_model(struct model *model, double from_us, double to_us)
{
    while (from_us < to_us) {
        double step_us = to_us - from_us;
        fill(model);
        for (uint32_t i = 0; i < FLOWS_MAX; i++) {
            const struct model_flow *flow = &model->flows[i];
            double rest_us = flow->left / flow->rate * 1e6;
            step_us = flow->used && rest_us < step_us ? rest_us : step_us;
        }
        from_us += step_us;
        for (uint32_t i = 0; i < FLOWS_MAX; i++) {
            struct model_flow *flow = &model->flows[i];
            if (!flow->used)
                continue;
            flow->left -= flow->rate * step_us / 1e6;
            if (flow->left > 1e-3)
                continue;
            flow->used = false;
            flow->done_us = from_us;
        }
    }
}

struct ending {
    double done_us[FLOWS_MAX];
};

static void run_events(struct pair *pair, uint64_t until_us, struct ending *ending)
{
    struct event event;
    while (events_next_us(&pair->events) <= until_us) {
        assert_true(events_pop(&pair->events, &event));
        pair->now_us = event.at_us;
        if (event.kind == EVENT_POUR) {
            flows_pour(&pair->flows, event.at_us);
        } else if (flows_fired(&pair->flows, event.other, event.at_us)) {
            ending->done_us[pair->flows.items[event.other].user] = (double)event.at_us;
            flows_remove(&pair->flows, event.other, event.at_us);
        }
    }
    pair->now_us = until_us;
}

/* All flows come at random times; returns the worst difference of an end in us. */
static double compare_ends(uint64_t seed, uint64_t quantum_us, double *mean_us)
{
    struct pair pair;
    struct ending ending = {0};
    pair_open(&pair, seed);
    pair.flows.quantum_us = quantum_us;
    for (uint32_t link = 0; link < pair.model.link_count; link++)
        set_link(&pair, link);
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        uint64_t next_us = pair.now_us + prng_below(&pair.prng, 100000);
        move_model(&pair.model, (double)pair.now_us, (double)next_us);
        run_events(&pair, next_us, &ending);
        add_flow(&pair, &pair.model.flows[i]);
    }
    move_model(&pair.model, (double)pair.now_us, 1e9);
    run_events(&pair, 1000000000, &ending);
    double worst = 0;
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        const struct model_flow *flow = &pair.model.flows[i];
        double gap = ending.done_us[i] - flow->done_us;
        gap = gap < 0 ? -gap : gap;
        assert_true(ending.done_us[i] > 0);
        *mean_us += (ending.done_us[i] - flow->start_us) / FLOWS_MAX;
        gap -= (flow->done_us - flow->start_us) * ROUNDING_BPS / 1e6;
        worst = gap > worst ? gap : worst;
    }
    pair_close(&pair);
    return worst;
}

static void flows_end_when_they_should(void **state)
{
    (void)state;
    uint64_t seed = sim_seed(53);
    double exact_us = 0, coarse_us = 0;
    for (unsigned i = 0; i < 60; i++) {
        double worst_us = compare_ends(seed + i, 0, &exact_us);
        if (worst_us > 200)
            printf("seed: %llu: an end is %.1f us off\n", (unsigned long long)(seed + i), worst_us);
        assert_true(worst_us <= 200); /* each event falls on a whole microsecond */
        (void)compare_ends(seed + i, 1000, &coarse_us);
    }
    printf("figure: pours once a millisecond: flows take %.2f %% longer in the mean\n",
           (coarse_us / exact_us - 1) * 100);
    assert_true(coarse_us <= exact_us * 1.05 && coarse_us >= exact_us * 0.95);
}

/* Two flows leave a slow node for a fast one, which a third, fast one uses too. */
static void unused_share_goes_to_the_rest(void **state)
{
    (void)state;
    struct event_queue events = {0};
    struct flows flows;
    flows_init(&flows, &events, 3);
    flows_set_link(&flows, 0, 1000000, 0);  /* slow up */
    flows_set_link(&flows, 1, 10000000, 0); /* down */
    flows_set_link(&flows, 2, 90000000, 0); /* fast up */
    uint32_t slow = 0, fast = 0;
    for (unsigned i = 0; i < 3; i++) {
        struct flow_plan plan = {.links = {i < 2 ? 0 : 2, 1}, .link_count = 2, .bytes = 1000};
        *(i < 2 ? &slow : &fast) = flows_add(&flows, &plan, 0);
    }
    flows_pour(&flows, 0);
    assert_int_equal(flows_rate(&flows, slow), 500000);
    assert_int_equal(flows_rate(&flows, fast), 9000000);
    flows_remove(&flows, slow, 0);
    flows_pour(&flows, 0);
    assert_int_equal(flows_rate(&flows, fast), 9000000);
    flows_set_link(&flows, 0, 100000000, 0);
    flows_pour(&flows, 0);
    assert_int_equal(flows_rate(&flows, fast), 5000000);
    flows_check(&flows);
    flows_close(&flows);
    events_close(&events);
}

/* What the origin sees without a mesh: thousands of flows, each change of one. */
static void thousands_at_one_link(void **state)
{
    (void)state;
    enum { NODES = 5000 };
    struct event_queue events = {0};
    struct flows flows;
    flows_init(&flows, &events, NODES + 1);
    flows.slack = 128;
    flows_set_link(&flows, NODES, 2500000000, 0);
    for (uint32_t i = 0; i < NODES; i++)
        flows_set_link(&flows, i, 125000000, 0);
    for (uint32_t i = 0; i < NODES; i++) {
        struct flow_plan plan = {.links = {i, NODES}, .link_count = 2, .bytes = 1 << 20};
        (void)flows_add(&flows, &plan, i);
        flows_pour(&flows, i);
    }
    assert_in_range(flows_rate(&flows, 0), 2500000000 / NODES * 98 / 100,
                    2500000000 / NODES * 102 / 100);
    flows_check(&flows);
    printf("figure: %d flows come one by one: %llu links poured\n", NODES,
           (unsigned long long)flows.poured_links);
    assert_true(flows.poured_links < 4ULL * NODES);
    flows_close(&flows);
    events_close(&events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unused_share_goes_to_the_rest),
        cmocka_unit_test(rates_are_max_min_fair),
        cmocka_unit_test(slack_costs_little),
        cmocka_unit_test(flows_end_when_they_should),
        cmocka_unit_test(thousands_at_one_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
