/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls under faults drawn from seeds (sim/faults.h, the same as `shoal-sim faults`), judged by
 * checkers that stand outside the code they judge (sim/checkers.h). SEED replays one seed, SEEDS
 * tries so many.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "../../sim/build_id.h"
#include "../../sim/faults.h"
#include "bytes.h"
#include "sim_support.h"

#define SEEDS 200
/* Processes that share the seeds: one takes nearly two minutes for them. */
#define PARTS 2

struct sum {
    uint32_t faults;
    double node_seconds, worst_copies, worst_control_bps;
    uint64_t pulls, lies;
    uint64_t trace_hash; /* of the last run */
};

/* True if all is well; else the reason is printed. */
static bool run_seed(uint64_t seed, struct sum *sum)
{
    struct faults faults;
    struct faults_outcome outcome;
    struct world *world = faults_prepare(seed, WORLD_PLANT_NONE, &faults);
    assert_non_null(world);
    faults_play(world, &faults, &outcome, stdout);
    world_free(world);
    if (outcome.bad != 0) {
        faults_print(&faults, stdout);
        checkers_explain(&outcome.facts, outcome.bad, "  ", stdout);
    }
    sum->faults += outcome.fault_count;
    sum->node_seconds += outcome.node_seconds;
    sum->pulls += outcome.pulls;
    sum->lies += outcome.lies;
    sum->trace_hash = outcome.trace_hash;
    if (outcome.facts.origin_copies > sum->worst_copies)
        sum->worst_copies = outcome.facts.origin_copies;
    if (outcome.facts.control_bps > sum->worst_control_bps)
        sum->worst_control_bps = outcome.facts.control_bps;
    return outcome.bad == 0;
}

/* What one process found. */
struct part {
    struct sum sum;
    uint32_t bad;
};

/* Every PARTS-th seed, in a process of its own, which writes what it found to the pipe returned. */
static int start_part(uint64_t first, uint32_t seeds, uint32_t number)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    (void)fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) {
        (void)close(ends[1]);
        return ends[0];
    }
    struct part part = {0};
    for (uint32_t i = number; i < seeds; i += PARTS)
        part.bad += !run_seed(first + i, &part.sum);
    (void)fflush(stdout);
    _exit(write(ends[1], &part, sizeof part) == (ssize_t)sizeof part ? 0 : 1);
}

static void add_part(int from, struct part *all)
{
    struct part part;
    int status;
    assert_int_equal(read(from, &part, sizeof part), sizeof part);
    (void)close(from);
    assert_true(wait(&status) > 0);
    assert_int_equal(status, 0);
    all->bad += part.bad;
    all->sum.faults += part.sum.faults;
    all->sum.pulls += part.sum.pulls;
    all->sum.lies += part.sum.lies;
    all->sum.node_seconds += part.sum.node_seconds;
    if (part.sum.worst_copies > all->sum.worst_copies)
        all->sum.worst_copies = part.sum.worst_copies;
    if (part.sum.worst_control_bps > all->sum.worst_control_bps)
        all->sum.worst_control_bps = part.sum.worst_control_bps;
}

static void pulls_end_under_faults(void **state)
{
    (void)state;
    uint64_t first = sim_seed(1000);
    const char *more = getenv("SEEDS");
    uint32_t seeds = getenv("SEED") != NULL ? 1 : SEEDS;
    if (more != NULL)
        seeds = (uint32_t)strtoul(more, NULL, 10);
    struct part all = {0};
    int parts[PARTS];
    printf("build: %s\n", build_id());
    for (uint32_t i = 0; i < PARTS; i++)
        parts[i] = start_part(first, seeds, i);
    for (uint32_t i = 0; i < PARTS; i++)
        add_part(parts[i], &all);
    const struct sum sum = all.sum;
    printf("figure: %u seeds, %llu pulls, %u faults beside loss, %.0f node-hours, %llu lies: all "
           "right in %u; at most %.2f origin copies, %.0f control bytes per node and second\n",
           seeds, (unsigned long long)sum.pulls, sum.faults, sum.node_seconds / 3600,
           (unsigned long long)sum.lies, seeds - all.bad, sum.worst_copies, sum.worst_control_bps);
    assert_int_equal(all.bad, 0);
    if (seeds >= SEEDS) { /* SECURITY-RELIABILITY §5: per CI run */
        assert_true(sum.faults >= 10000);
        assert_true(sum.node_seconds / 3600 >= 1000);
    }
}

static void same_seed_same_trace(void **state)
{
    (void)state;
    uint64_t first = sim_seed(5000), before = 0;
    for (uint32_t i = 0; i < 12; i++) {
        struct sum once = {0}, again = {0};
        (void)run_seed(first + i, &once);
        (void)run_seed(first + i, &again);
        assert_true(once.trace_hash == again.trace_hash);
        assert_true(once.trace_hash != before);
        before = once.trace_hash;
    }
}

/* ---- tests of the checkers: each planted violation is caught, and by its own name ---- */

static struct checkers_facts good_facts(void)
{
    return (struct checkers_facts){.live = 5,
                                   .agreeing = 5,
                                   .origin_copies = 1,
                                   .origin_allowed = 2,
                                   .uploads_allowed = CHECKERS_UPLOADS,
                                   .control_bps = 1000};
}

static void planted_violations_are_caught(void **state)
{
    (void)state;
    struct checkers_facts facts[CHECKER_COUNT];
    for (unsigned i = 0; i < CHECKER_COUNT; i++)
        facts[i] = good_facts();
    assert_int_equal(checkers_judge(&facts[0]), 0);
    facts[CHECKER_PULLS_END].stuck = 1;
    facts[CHECKER_RETRIES_END].failed_again = 1;
    facts[CHECKER_WRONG_BYTES].wrong_bytes = 1;
    facts[CHECKER_WHOLE_BLOBS].holed = 1;
    facts[CHECKER_VIEWS].agreeing = 4;
    facts[CHECKER_ORIGIN].origin_copies = 2.01;
    facts[CHECKER_CONTROL].control_bps = CHECKERS_CONTROL_BPS + 1;
    facts[CHECKER_LEAKS].leaks = 1;
    facts[CHECKER_BUDGETS].most_uploads = CHECKERS_UPLOADS + 1;
    facts[CHECKER_OWNERS].double_reads = 1;
    facts[CHECKER_BORDERS].crossed_bytes = 1;
    for (unsigned i = 0; i < CHECKER_COUNT; i++)
        assert_int_equal(checkers_judge(&facts[i]), 1U << i);
}

static void every_budget_is_judged(void **state)
{
    (void)state;
    struct checkers_facts reads = good_facts(), inflight = good_facts();
    reads.most_reads = CHECKERS_READS + 1;
    inflight.most_inflight = CHECKERS_INFLIGHT + 1;
    assert_int_equal(checkers_judge(&reads), 1U << CHECKER_BUDGETS);
    assert_int_equal(checkers_judge(&inflight), 1U << CHECKER_BUDGETS);
}

/* ---- tests of the tests: a bug is planted, and its checker catches it ---- */

#define PLANT_SEEDS 60

/* In a child, since a bug may break more than it is meant to: the checkers that caught it; 0 if it
 * died. */
static uint32_t caught_by(uint64_t seed, enum world_plant plant)
{
    int ends[2];
    uint32_t bad = 0;
    assert_int_equal(pipe(ends), 0);
    (void)fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct faults faults;
        struct faults_outcome outcome;
        FILE *nowhere = fopen("/dev/null", "w");
        faults_play(faults_prepare(seed, plant, &faults), &faults, &outcome, nowhere);
        _exit(write(ends[1], &outcome.bad, sizeof outcome.bad) == sizeof outcome.bad ? 0 : 1);
    }
    (void)close(ends[1]);
    if (read(ends[0], &bad, sizeof bad) != (ssize_t)sizeof bad)
        bad = 0;
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    return bad;
}

static void planted_bugs_are_caught(void **state)
{
    (void)state;
    static const struct {
        enum world_plant plant;
        enum checker checker;
        const char *name;
    } plants[] = {
        {WORLD_PLANT_NO_END, CHECKER_PULLS_END, "clients are not told of the end"},
        {WORLD_PLANT_NO_RETRY, CHECKER_RETRIES_END, "nor on nodes that came back"},
        {WORLD_PLANT_BELIEVE, CHECKER_WRONG_BYTES, "nothing is hashed (INT-1)"},
        {WORLD_PLANT_HOLE, CHECKER_WHOLE_BLOBS, "a pull ends a piece early"},
        {WORLD_PLANT_DEAF, CHECKER_VIEWS, "a node hears no gossip"},
        {WORLD_PLANT_ALONE, CHECKER_ORIGIN, "no session comes up"},
        {WORLD_PLANT_TALK, CHECKER_CONTROL, "each datagram a hundred times"},
        {WORLD_PLANT_NAME, CHECKER_LEAKS, "a private name in a message (ACL-9)"},
        {WORLD_PLANT_DIGEST, CHECKER_LEAKS, "a digest in a message (ACL-9)"},
        {WORLD_PLANT_GREEDY, CHECKER_BUDGETS, "uploads without a limit"},
        {WORLD_PLANT_TWICE, CHECKER_OWNERS, "running reads are begun again"},
        {WORLD_PLANT_ABROAD, CHECKER_BORDERS, "no heed of a registry's copies"},
    };
    assert_int_equal(sizeof plants / sizeof plants[0], WORLD_PLANT_COUNT - 1);
    uint32_t seen = 0, missed = 0;
    for (size_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        uint64_t seed = 1000, end = seed + PLANT_SEEDS;
        uint32_t bit = 1U << plants[i].checker;
        while (seed < end && (caught_by(seed, plants[i].plant) & bit) == 0)
            seed++;
        if (seed < end)
            printf("figure: %s: caught by seed %llu\n", plants[i].name, (unsigned long long)seed);
        else
            printf("figure: %s: NOT caught\n", plants[i].name);
        missed += seed == end;
        seen |= bit;
    }
    assert_int_equal(missed, 0);
    assert_int_equal(seen, (1U << CHECKER_COUNT) - 1);
}

/* In worlds that are wrong on purpose: a pull that cannot end, and a view that is not right yet. */
static void facts_of_bad_worlds(void **state)
{
    (void)state;
    struct world_config config;
    struct checkers_facts facts = good_facts();
    world_config_defaults(&config);
    config.node_count = 4;
    struct world *world = world_new(&config);
    assert_non_null(world);
    uint32_t blob = world_add_blob(world, 8 << 20);
    sim_start_all(world, &config, 1000);
    world_set_origin(world, WORLD_ORIGIN_SILENT, 0);
    (void)world_pull(world, 0, blob, 10 * SECOND_US, TRANSFER_READ_STREAM);
    (void)world_run(world, 11 * SECOND_US, false);
    assert_int_equal(checkers_bad_pulls(world, 0), 1);
    assert_int_equal(checkers_bad_pulls(world, 1), 0);
    world_kill_node(world, 3, 12 * SECOND_US);
    (void)world_run(world, 12 * SECOND_US + 1000, false);
    checkers_gather(world, 4, NULL, &facts);
    assert_int_equal(facts.live, 3);
    assert_int_equal(facts.agreeing, 0);
    assert_true(facts.control_bps > 0);
    assert_true((checkers_judge(&facts) & 1U << CHECKER_VIEWS) != 0);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pulls_end_under_faults),        cmocka_unit_test(same_seed_same_trace),
        cmocka_unit_test(planted_violations_are_caught), cmocka_unit_test(every_budget_is_judged),
        cmocka_unit_test(planted_bugs_are_caught),       cmocka_unit_test(facts_of_bad_worlds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
