/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows P-2, P-3, P-4 and P-6 of the fault matrix: nodes that know the secret and mean harm, three
 * of sixteen, against the same pull without them. What must hold: every honest pull ends well, with
 * no wrong byte, in the time that the row gives, and the origin is not made to pay for it.
 */
#include "bytes.h"
#include "sim_support.h"

#define NODES   16
#define HOSTILE 3
#define BYTES   (64ULL << 20)
#define PULL_AT (15 * SECOND_US)
/* Added time: a holder that does not deliver is left after 3 s at most (P-2). */
#define ADDED_S 3.0
/* Holders that promise are met one after the other, in the own zone and behind referrals: 3 s for
 * each of the three at most. */
#define PROMISES_S (HOSTILE * ADDED_S)

struct outcome {
    double last_s; /* of the honest */
    double copies;
    uint32_t failed;
    uint64_t wrong, lies;
};

static void pull_with(uint32_t acts, uint64_t seed, struct outcome *out)
{
    struct world_config config;
    size_t count;
    *out = (struct outcome){0};
    world_config_defaults(&config);
    config.seed = seed;
    config.node_count = NODES;
    struct world *world = world_new(&config);
    assert_non_null(world);
    uint32_t blob = world_add_blob(world, BYTES);
    sim_start_all(world, &config, SECOND_US);
    for (uint32_t node = 0; node < HOSTILE && acts != 0; node++)
        world_set_trait(world, node, WORLD_TRAIT_HOSTILE, acts, PULL_AT);
    for (uint32_t node = 0; node < NODES; node++)
        (void)world_pull(world, node, blob, PULL_AT + node * 10000, TRANSFER_READ_STREAM);
    (void)world_run(world, PULL_AT + 120 * SECOND_US, true);
    world_check(world);
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++) {
        double took_s = (double)(pulls[i].done_us - pulls[i].started_us) / 1e6;
        out->failed += pulls[i].done_us == 0 || pulls[i].failed;
        if (pulls[i].node >= HOSTILE && took_s > out->last_s)
            out->last_s = took_s;
    }
    out->copies = (double)world_totals(world)->origin_bytes / (double)BYTES;
    out->wrong = world_totals(world)->wrong_bytes;
    out->lies = world_totals(world)->lies;
    world_free(world);
}

static void survive(const char *row, uint32_t acts, double added_s)
{
    struct outcome honest, hostile;
    uint64_t seed = sim_seed(11);
    pull_with(0, seed, &honest);
    pull_with(acts, seed, &hostile);
    printf("figure: %s: %.2f s, without %.2f s; %.2f copies, without %.2f\n", row, hostile.last_s,
           honest.last_s, hostile.copies, honest.copies);
    assert_int_equal(hostile.failed, 0);
    assert_int_equal(hostile.wrong, 0);
    assert_true(hostile.last_s <= honest.last_s + added_s);
    assert_true(hostile.copies <= honest.copies + HOSTILE);
}

static void p2_promises_are_not_waited_for(void **state)
{
    (void)state;
    survive("P-2 stalls", WORLD_STALLS, PROMISES_S);
}

static void p3_a_drip_is_replaced(void **state)
{
    (void)state;
    survive("P-3 drips", WORLD_DRIPS, PROMISES_S);
}

static void p4_damaged_messages_do_no_harm(void **state)
{
    (void)state;
    survive("P-4 garbles", WORLD_GARBLES, ADDED_S);
}

static void p6_who_claims_everything_is_passed_over(void **state)
{
    (void)state;
    survive("P-6 claims all", WORLD_CLAIMS_ALL, ADDED_S);
}

static void p6_who_claims_nothing_costs_nothing(void **state)
{
    (void)state;
    survive("P-6 claims nothing", WORLD_CLAIMS_NONE, ADDED_S);
}

static void p6_who_changes_its_word_is_passed_over(void **state)
{
    (void)state;
    survive("P-6 claims flip", WORLD_CLAIMS_FLIP, ADDED_S);
}

/* The switch works at all: what a liar sends is told by its hash (P-5). */
static void p5_lies_are_noticed(void **state)
{
    (void)state;
    struct outcome liars;
    pull_with(WORLD_LIES, sim_seed(11), &liars);
    assert_true(liars.lies > 0);
    assert_int_equal(liars.wrong, 0);
    assert_int_equal(liars.failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p2_promises_are_not_waited_for),
        cmocka_unit_test(p3_a_drip_is_replaced),
        cmocka_unit_test(p4_damaged_messages_do_no_harm),
        cmocka_unit_test(p5_lies_are_noticed),
        cmocka_unit_test(p6_who_claims_everything_is_passed_over),
        cmocka_unit_test(p6_who_claims_nothing_costs_nothing),
        cmocka_unit_test(p6_who_changes_its_word_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
