/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario files: every key, every default, and one clear line for every bad input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../sim/scenario.h"
#include "../../sim/scenario_args.h"

#define PLACE "s.yaml"

static struct scenario scenario, defaults; /* large */

static int load(const char *text, struct scenario_error *error)
{
    return scenario_load_text(PLACE, text, &scenario, error);
}

static void load_good(const char *text)
{
    struct scenario_error error;
    if (load(text, &error) != 0)
        fail_msg("%s: %s", text, error.text);
}

static int load_sets(const char *const *sets, size_t count, struct scenario_error *error)
{
    struct scenario_options options = {.sets = sets, .set_count = count};
    return scenario_load(&options, &scenario, error);
}

/* ---- defaults and the example ---- */

static void the_example_is_the_defaults(void **state)
{
    (void)state;
    char *text = NULL, a[SCENARIO_SETTING_BYTES], b[SCENARIO_SETTING_BYTES];
    size_t bytes = 0, count = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    scenario_example(to);
    assert_int_equal(fclose(to), 0);
    load_good(text);
    scenario_defaults(&defaults);
    const struct scenario_key *keys = scenario_keys(&count);
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(keys[i].name, '.');
        assert_non_null(strstr(text, dot == NULL ? keys[i].name : dot + 1));
        if (keys[i].list != SCENARIO_LIST_NONE)
            continue;
        assert_int_not_equal(scenario.lines[i], 0); /* written out */
        assert_string_equal(scenario_value_text(&keys[i], &scenario, a, sizeof a),
                            scenario_value_text(&keys[i], &defaults, b, sizeof b));
    }
    assert_memory_equal(&scenario.world, &defaults.world, sizeof defaults.world);
    assert_int_equal(scenario.fault_count + scenario.outage_count, 0);
    assert_int_equal(scenario.image_count, 1);
    free(text);
}

static void an_empty_file_is_the_defaults(void **state)
{
    (void)state;
    load_good("");
    scenario_defaults(&defaults);
    assert_memory_equal(&scenario.world, &defaults.world, sizeof defaults.world);
    assert_int_equal(scenario.images[0].layers[0], 128 << 20);
}

/* Every number's text is read as the same number, at its default, minimum and maximum. */
static void numbers_and_texts_agree(void **state)
{
    (void)state;
    size_t count = 0;
    const struct scenario_key *keys = scenario_keys(&count);
    scenario_defaults(&defaults);
    for (size_t i = 0; i < count; i++) {
        if (!scenario_key_is_number(&keys[i]) || keys[i].list != SCENARIO_LIST_NONE)
            continue;
        const uint64_t values[] = {scenario_value_number(&keys[i], &defaults), keys[i].min,
                                   keys[i].max};
        for (size_t v = 0; v < 3; v++) {
            char text[64];
            (void)scenario_number_text(&keys[i], values[v], text, sizeof text);
            if (scenario_value_parse(&keys[i], text, &scenario) != 0 ||
                scenario_value_number(&keys[i], &scenario) != values[v])
                fail_msg("%s: %s", keys[i].name, text);
        }
    }
}

/* ---- values ---- */

static void a_whole_scenario_is_read(void **state)
{
    (void)state;
    load_good("name: big\nseed: 7\nnodes: 300\nzones: 3\nvswitches: 4\ncopies: zone\n"
              "nic: {up: 10Gbit/s, down: 25 Gbit/s, slow: [3%, 10]}\n"
              "links: {zone: 100Gbit/s, cross: 150Gbit/s, vswitch: 40Gbit/s}\n"
              "latency: {zone: 0.3ms, cross: 2ms, jitter: 50%}\nloss: 1%\n"
              "origin:\n  rate: 2.4Gbit/s\n  connection: 300MB/s\n  firstByte: 50ms\n"
              "  requests: 500\n  outages:\n  - {at: 1s, for: 5s, how: busy}\n"
              "  - {at: 10s, how: slow, rate: 1MB/s}\n"
              "disk: {read: 2GB/s, write: 1GB/s}\ncache: {capacity: 4GiB}\n"
              "image: {layers: [512MiB, 1.5GB], order: 3}\n"
              "arrivals: {kind: rolling, batch: 20%, every: 2min}\n"
              "faults:\n- {kind: kill, at: 2s, nodes: 5%}\n- kind: partition\n  zone: 0\n  to: 2\n"
              "  for: 1min\n- {kind: churn, perMinute: 5%, down: 30s, keepCache: no}\n"
              "checks: {p99: 1.15, originCopies: 1.02}\nrun: {quantum: 1ms, log: warn}\n");
    assert_string_equal(scenario.name.text, "big");
    assert_int_equal(scenario.world.node_count, 300);
    assert_int_equal(scenario.world.mesh.transfer.copies, TRANSFER_COPIES_ZONE);
    assert_true(scenario.world.nic_bps == 1250000000 && scenario.world.nic_down_bps == 3125000000);
    assert_int_equal(scenario.slow_ppm, 30000);
    assert_int_equal(scenario.slow_divisor_milli, 10000);
    assert_true(scenario.world.cross_bps == 18750000000);
    assert_int_equal(scenario.world.latency_zone_us, 300);
    assert_int_equal(scenario.world.jitter_percent, 50);
    assert_int_equal(scenario.world.loss_ppm, 10000);
    assert_int_equal(scenario.world.origin_bps, 300000000);
    assert_int_equal(scenario.world.origin_conn_bps, 300000000);
    assert_int_equal(scenario.world.origin_first_byte_us, 50000);
    assert_int_equal(scenario.outage_count, 2);
    assert_int_equal(scenario.outages[0].how, OUTAGE_BUSY);
    assert_int_equal(scenario.outages[1].rate_bps, 1000000);
    assert_true(scenario.world.cache_bytes == 4ULL << 30);
    assert_int_equal(scenario.images[0].layer_count, 2);
    assert_int_equal(scenario.images[0].layers[1], 1500000000);
    assert_int_equal(scenario.order, 3);
    assert_int_equal(scenario.every_us, 120000000);
    assert_int_equal(scenario.fault_count, 3);
    assert_true(scenario.faults[0].nodes == (50000 | SCENARIO_SHARE_BIT));
    assert_int_equal(scenario.faults[1].to_zone, 2);
    assert_false(scenario.faults[2].keep_cache);
    assert_int_equal(scenario.checks.p99, 1150);
    assert_int_equal(scenario.world.flow_quantum_us, 1000);
    assert_int_equal(scenario.world.trace_level, LOG_WARN);
}

static void zones_as_a_list_set_the_nodes(void **state)
{
    (void)state;
    load_good("zones: [4, 3, 3]\n");
    assert_int_equal(scenario.world.node_count, 10);
    assert_int_equal(scenario.world.zone_count, 3);
    assert_int_equal(scenario.world.zone_nodes[0], 0); /* dealt in turn */
    load_good("zones: [8, 1, 3]\n");
    assert_int_equal(scenario.world.node_count, 12);
    assert_int_equal(scenario.world.zone_nodes[0], 8);
    assert_int_equal(scenario.world.zone_nodes[2], 3);
    load_good("nodes: 20\nzones: [50%, 33.3%, 16.7%]\n");
    assert_int_equal(scenario.world.node_count, 20);
    assert_int_equal(scenario.world.zone_count, 3);
    assert_int_equal(scenario.world.zone_nodes[0], 10);
    assert_int_equal(scenario.world.zone_nodes[1], 7);
    assert_int_equal(scenario.world.zone_nodes[2], 3);
}

static void images_as_a_list(void **state)
{
    (void)state;
    load_good("images:\n- {name: base, layers: [1MiB, 2MiB]}\n- {layers: [3MiB], nodes: 50%, at: "
              "5s}\n");
    assert_int_equal(scenario.image_count, 2);
    assert_string_equal(scenario.images[0].name.text, "base");
    assert_int_equal(scenario.images[0].layer_count, 2);
    assert_int_equal(scenario.images[1].share_ppm, 500000);
    assert_int_equal(scenario.images[1].at_us, 5000000);
}

static void memory_caches_use_no_disk(void **state)
{
    (void)state;
    load_good("disk: {read: 1GB/s, write: 1GB/s}\ncache: {mode: memory}\n");
    assert_true(scenario.world.disk_read_bps == 0 && scenario.world.disk_write_bps == 0);
}

/* ---- bad input ---- */

static void every_mistake_has_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"nodes: 0\n", "s.yaml:1: nodes: \"0\" is not allowed; allowed: 1..16384"},
        {"seed: 1\nnodes: 99999\n", "s.yaml:2: nodes: \"99999\" is not allowed"},
        {"image: {pieceSize: 300KiB}\n", "s.yaml:1: image.pieceSize: must be a power of two"},
        {"image: {pieceSize: 64KiB}\n", "s.yaml:1: image.pieceSize: \"64KiB\" is not allowed"},
        {"arrivals: {for: 10s}\n", "s.yaml:1: arrivals.for: does nothing without kind: poisson"},
        {"arrivals: {kind: poisson, for: 2h}\n",
         "s.yaml:1: arrivals.for: must be less than run.limit"},
        {"arrivals: {kind: poisson, for: 30min, rate: 10000}\n",
         "s.yaml:1: arrivals.for: more than 1000000 arrivals"},
        {"arrivals: {trace: t.txt}\n",
         "s.yaml:1: arrivals.trace: does nothing without kind: trace"},
        {"nodes: 1.5\n", "s.yaml:1: nodes: \"1.5\" is not allowed"},
        {"nodes: -3\n", "s.yaml:1: nodes: \"-3\" is not allowed"},
        {"nodes: [3]\n", "s.yaml:1: nodes: a list is not allowed here"},
        {"node: 3\n", "s.yaml:1: node: unknown key; did you mean \"nodes\"?"},
        {"bandwidth: 3\n", "s.yaml:1: bandwidth: unknown key; `shoal-sim example`"},
        {"nic: 10Gbit/s\n", "s.yaml:1: nic: is no value of its own; write nic.up"},
        {"image: 512MiB\n", "s.yaml:1: image: is no value of its own"},
        {"nodes: 3\nnodes: 4\n", "s.yaml:2: nodes: set twice, first on line 1"},
        {"nic: {up: 1000}\n",
         "s.yaml:1: nic.up: \"1000\" is not allowed; allowed: 8kbit/s..4000Gbit/s; write a unit"},
        {"nic: {up: 1Gbps}\n", "s.yaml:1: nic.up: \"1Gbps\" is not allowed; allowed: "
                               "8kbit/s..4000Gbit/s; write a unit, as "
                               "Gbit/s"},
        {"nic: {up: 0}\n", "s.yaml:1: nic.up: \"0\" is not allowed"},
        {"nic: {slow: [3%]}\n", "s.yaml:1: nic.slow: needs two values"},
        {"nic: {slow: [3%, 10, 5]}\n", "s.yaml:1: nic.slow: \"5\" is not allowed"},
        {"nic: {slow: 3%}\n", "s.yaml:1: nic.slow: must be a list"},
        {"nic: {slow: [2, 10]}\n", "s.yaml:1: nic.slow: \"2\" is not allowed"},
        {"latency: {zone: 5}\n", "s.yaml:1: latency.zone: \"5\" is not allowed"},
        {"loss: 60%\n", "s.yaml:1: loss: \"60%\" is not allowed; allowed: 0..0.5"},
        {"copies: both\n", "s.yaml:1: copies: \"both\" is not allowed; allowed: mesh | zone"},
        {"silentDeath: maybe\n", "s.yaml:1: silentDeath: \"maybe\" is not allowed"},
        {"zones: 17\n", "s.yaml:1: zones: 17 zones for 16 nodes"},
        {"zones: [50%, 40%]\n", "s.yaml:1: zones: the shares are 90.00 % in all; must be 100 %"},
        {"zones: [99%, 1%]\n", "s.yaml:1: zones: zone 1 would have no node of 16"},
        {"zones: [8, 50%]\n", "s.yaml:1: zones: node counts and shares in one list"},
        {"zones: [50%, 8]\n", "s.yaml:1: zones: "},
        {"zones: [0, 4]\n", "s.yaml:1: zones: \"0\" is not allowed"},
        {"nodes: 9\nzones: [4, 4]\n", "s.yaml:2: zones: the list has 8 nodes, but nodes is 9"},
        {"zones: 2\nregions: 3\n", "s.yaml:2: regions: 3 regions for 2 zones"},
        {"image: {layers: 512MiB}\n", "s.yaml:1: image.layers: must be a list"},
        {"image: {layers: [0]}\n", "s.yaml:1: image.layers: \"0\" is not allowed"},
        {"image: {layers: [5]}\n", "write a unit, as MiB"},
        {"image: {layers: []}\n", "s.yaml:1: image: has no layers"},
        {"image: {order: 0}\n", "s.yaml:1: image.order: \"0\" is not allowed; allowed: all or"},
        {"image: {manifest: /nonexistent/m.json}\n",
         "s.yaml:1: image.manifest: /nonexistent/m.json: cannot be read: not found"},
        {"image:\n  manifest: m\n  layers: [1MiB]\n",
         "s.yaml:2: image.manifest: image.layers is given, too"},
        {"image: {layers: [1MiB]}\nimages: [{layers: [1MiB]}]\n",
         "s.yaml:1: image.layers: images is given, too"},
        {"images:\n- {name: x}\n", "s.yaml:2: image: has no layers"},
        {"images: [{layers: 1MiB}]\n", "s.yaml:1: images.layers: must be a list"},
        {"images: [{layers: [1MiB], nodes: 0}]\n", "s.yaml:1: images.nodes: \"0\" is not allowed"},
        {"arrivals: {kind: trace}\n", "s.yaml:1: arrivals.kind: trace needs a file"},
        {"arrivals: {kind: trace, trace: /nonexistent/t}\n", "s.yaml:1: arrivals.trace: "},
        {"arrivals: {kind: flood}\n", "allowed: crowd | rolling | poisson | trace"},
        {"faults:\n- {at: 2s}\n", "s.yaml:2: faults.kind: is missing"},
        {"faults:\n- {kind: kill}\n- {kind: explode}\n",
         "s.yaml:3: faults.kind: \"explode\" is not allowed"},
        {"faults:\n- {kind: kill, divisor: 4}\n",
         "s.yaml:2: faults.divisor: does nothing with kind: kill"},
        {"faults:\n- {kind: kill, node: 1, aim: keepers}\n",
         "s.yaml:2: faults.node: aim says who is meant"},
        {"faults:\n- {kind: freeze, aim: keepers}\n",
         "s.yaml:2: faults.aim: does nothing with kind: freeze"},
        {"faults:\n- {kind: disk}\n", "s.yaml:2: faults.error: a disk fault needs one"},
        {"faults:\n- {kind: hostile, acts: nicely}\n", "s.yaml:2: faults.acts: \"nicely\""},
        {"faults:\n- {kind: kill, node: 16}\n",
         "s.yaml:2: faults.node: there is no node 16; 0..15"},
        {"faults:\n- {kind: kill, nodes: 17}\n", "s.yaml:2: faults.nodes: 17 of 16 nodes"},
        {"faults:\n- {kind: kill, nodes: 101%}\n", "s.yaml:2: faults.nodes: \"101%\""},
        {"faults:\n- {kind: partition}\n", "s.yaml:2: faults.zone: a partition needs two"},
        {"faults:\n- {kind: partition, zone: 0, to: 2}\n", "s.yaml:2: faults.zone: a partition"},
        {"faults:\n- kind: kill\n  kind: leave\n", "s.yaml:3: faults.kind: set twice"},
        {"faults: {kind: kill}\n", "is no list; write a dash before each element"},
        {"nic:\n- up: 1Gbit/s\n", "s.yaml:2: nic.up: a list is not allowed here; leave out"},
        {"faults: kill\n", "s.yaml:1: faults: is no value of its own; a list of maps"},
        {"origin: {outages: [{how: gone}]}\n", "s.yaml:1: origin.outages.how: \"gone\""},
        {"nodes: 3\n\tzones: 2\n", "s.yaml:2: not valid YAML"},
        {"[1, 2]\n", "s.yaml:1: the file must be a mapping"},
        {"name: \"a\\nb\"\n", "s.yaml:1: name: \"a?b\" is not allowed"},
    };
    struct scenario_error error;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(load(cases[i].text, &error), E_CONFIG);
        if (strstr(error.text, cases[i].error) == NULL)
            fail_msg("%s: got \"%s\", wanted \"%s\"", cases[i].text, error.text, cases[i].error);
    }
}

static void lists_have_limits(void **state)
{
    (void)state;
    struct scenario_error error;
    static char text[64 * 1024];
    size_t used = (size_t)snprintf(text, sizeof text, "faults:\n");
    for (unsigned i = 0; i <= SCENARIO_FAULTS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "- {kind: leave}\n");
    assert_int_equal(load(text, &error), E_CONFIG);
    assert_non_null(strstr(error.text, "s.yaml:258: faults.kind: the list has too many elements"));
    used = (size_t)snprintf(text, sizeof text, "image: {layers: [1MiB");
    for (unsigned i = 0; i < IMAGE_LAYERS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, ", 1MiB");
    (void)snprintf(text + used, sizeof text - used, "]}\n");
    assert_int_equal(load(text, &error), E_CONFIG);
    assert_non_null(strstr(error.text, "at most 128 of them"));
    used = (size_t)snprintf(text, sizeof text, "images:\n");
    for (unsigned i = 0; i < 3; i++) { /* 258 in all */
        used += (size_t)snprintf(text + used, sizeof text - used, "- layers: [1B");
        for (unsigned layer = 1; layer < 86; layer++)
            used += (size_t)snprintf(text + used, sizeof text - used, ",1B");
        used += (size_t)snprintf(text + used, sizeof text - used, "]\n");
    }
    assert_int_equal(load(text, &error), E_CONFIG);
    assert_non_null(strstr(error.text, "more than 256 layers in all"));
}

/* ---- --set and flags ---- */

static void sets_come_after_the_defaults_in_order(void **state)
{
    (void)state;
    struct scenario_error error;
    const char *const sets[] = {
        "nodes=5",        "nodes=6",   "image.layers=1MiB,2MiB",
        "nic.slow=0.5,4", "zones=3,3", "faults=[{kind: kill, at: 1s}, {kind: leave}]",
        "checks.p99=1.5", "name=a b",  "faults=[{kind: freeze, for: 2s}]",
    };
    assert_int_equal(load_sets(sets, sizeof sets / sizeof sets[0], &error), 0);
    assert_int_equal(scenario.world.node_count, 6);
    assert_int_equal(scenario.images[0].layer_count, 2);
    assert_int_equal(scenario.slow_divisor_milli, 4000);
    assert_int_equal(scenario.fault_count, 1);
    assert_int_equal(scenario.faults[0].kind, FAULT_FREEZE);
}

static void bad_sets_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *set, *error;
    } cases[] = {
        {"nodes", "--set nodes: must be key=value"},
        {"=3", "--set =3: must be key=value"},
        {"nodes=", "--set nodes=: nodes: \"\" is not allowed"},
        {"node=3", "--set node=3: node: unknown key; did you mean \"nodes\"?"},
        {"zones=99", "--set zones=99: zones: \"99\" is not allowed"},
        {"faults.kind=kill", "faults.kind: belongs to an element of a list; set the whole list"},
        {"faults=[{kind: kil}]", "--set faults=[{kind: kil}]: faults.kind: \"kil\""},
        {"faults=[{kind: kill", "not valid YAML"},
        {"image.layers=", "has no layers"},
        {"origin=5", "origin: is no value of its own"},
    };
    struct scenario_error error;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(load_sets(&cases[i].set, 1, &error), E_CONFIG);
        if (strstr(error.text, cases[i].error) == NULL)
            fail_msg("%s: got \"%s\", wanted \"%s\"", cases[i].set, error.text, cases[i].error);
    }
}

static void short_flags_stand_for_keys(void **state)
{
    (void)state;
    static const char *const given[] = {
        "--nodes",       "100", "--mib",         "64",
        "--zones",       "3",   "--mbit",        "100",
        "--layers",      "4",   "--origin-mbit", "2000",
        "--conn-mbit",   "0",   "--zone-mbit",   "500",
        "--zone-copies", "1",   "--arrival-ms",  "250",
        "--loss-ppm",    "10",  "--quantum-us",  "100",
        "--one-hop",     "0",   "--trace",       "2",
        "--seed",        "9",   "--set",         "silentDeath=true"};
    enum { COUNT = sizeof given / sizeof given[0] };
    char words[COUNT][32], *argv[COUNT];
    struct scenario_args args;
    struct scenario_error error;
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(words[i], sizeof words[i], "%s", given[i]);
        argv[i] = words[i];
    }
    scenario_args_init(&args);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(scenario_args_take(&args, COUNT, argv, &i), 1);
    assert_int_equal(scenario_args_finish(&args), 0);
    assert_int_equal(scenario_load(&args.options, &scenario, &error), 0);
    assert_int_equal(scenario.world.node_count, 100);
    assert_int_equal(scenario.world.zone_count, 3);
    assert_int_equal(scenario.images[0].layer_count, 4);
    assert_int_equal(scenario.images[0].layers[3], 16 << 20);
    assert_int_equal(scenario.world.nic_bps, 12500000);
    assert_int_equal(scenario.world.origin_bps, 250000000);
    assert_int_equal(scenario.world.origin_conn_bps, 0);
    assert_int_equal(scenario.world.zone_bps, 62500000);
    assert_int_equal(scenario.world.mesh.transfer.copies, TRANSFER_COPIES_ZONE);
    assert_int_equal(scenario.within_us, 250000);
    assert_int_equal(scenario.world.loss_ppm, 10);
    assert_int_equal(scenario.world.flow_quantum_us, 100);
    assert_false(scenario.world.mesh.dht.one_hop);
    assert_int_equal(scenario.world.trace_level, LOG_WARN);
    assert_int_equal(scenario.world.seed, 9);
    assert_true(scenario.world.silent_death);
    scenario_args_close(&args);
}

/* ---- files ---- */

static void put_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void files_name_files_beside_them(void **state)
{
    (void)state;
    char folder[] = "/tmp/sim_scenario.XXXXXX", yaml[64], trace[64], manifest[64];
    struct scenario_error error;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(yaml, sizeof yaml, "%s/mine.yaml", folder);
    (void)snprintf(trace, sizeof trace, "%s/t", folder);
    (void)snprintf(manifest, sizeof manifest, "%s/m.json", folder);
    put_file(yaml, "image: {manifest: m.json}\narrivals: {kind: trace, trace: t}\n");
    put_file(manifest, "{\"config\": {\"digest\": \"sha256:a\", \"size\": 10},\n\"layers\": "
                       "[{\"digest\": \"sha256:b\", \"size\": 2000}]}");
    put_file(trace, "# seconds node\n3 1\n\n0.5 15 0 # last\n 3,0\n");
    struct scenario_options options = {.file = yaml};
    if (scenario_load(&options, &scenario, &error) != 0)
        fail_msg("%s", error.text);
    assert_string_equal(scenario.name.text, "mine");
    assert_int_equal(scenario.images[0].layer_count, 2);
    assert_int_equal(scenario.images[0].layers[1], 2000);
    assert_int_equal(scenario.trace_count, 3);
    assert_int_equal(scenario.trace[0].at_us, 500000);
    assert_int_equal(scenario.trace[0].image, 0);
    assert_int_equal(scenario.trace[1].node, 0);
    assert_true(scenario.trace[1].image == SCENARIO_ALL_IMAGES);
    scenario_close(&scenario);

    static const char *const bad_traces[] = {"1\n", "x 1\n",   "1 16\n",    "-1 1\n",
                                             "",    "1 1 1\n", "1 1 0 9\n", "90000 1\n"};
    for (size_t i = 0; i < sizeof bad_traces / sizeof bad_traces[0]; i++) {
        put_file(trace, bad_traces[i]);
        assert_int_equal(scenario_load(&options, &scenario, &error), E_CONFIG);
        assert_non_null(strstr(error.text, "seconds node"));
        assert_non_null(strstr(error.text, "/t:"));
    }
    put_file(manifest, "{\"manifests\": []}");
    assert_int_equal(scenario_load(&options, &scenario, &error), E_CONFIG);
    assert_non_null(strstr(error.text, "mine.yaml:1: image.manifest: "));
    assert_non_null(strstr(error.text, "index of several platforms"));
    assert_int_equal(unlink(yaml) + unlink(trace) + unlink(manifest) + rmdir(folder), 0);
    options.file = "/nonexistent/x.yaml";
    assert_int_equal(scenario_load(&options, &scenario, &error), E_CONFIG);
    assert_non_null(strstr(error.text, "no such file"));
}

static void shipped_scenarios_are_what_they_say(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t nodes, zones;
        uint64_t bytes, nic_mbit, origin_mbit;
    } shipped[] = {
        {"acr-300", 300, 3, 4 * (512ULL << 20), 1000, 10000},
        {"kraken-2600", 2600, 3, 3000000000, 2400, 12000},
        {"rollout-1000", 1000, 3, 512ULL << 20, 10000, 10000},
        {"flash-5000", 5000, 3, 2ULL << 30, 10000, 40000},
        {"flash-10000", 10000, 3, 2ULL << 30, 10000, 40000},
        {"model-300", 300, 3, 20000000000, 10000, 40000},
        {"small-1000", 1000, 3, 64ULL << 20, 1000, 20000},
    };
    struct scenario_error error;
    assert_int_equal(setenv("SHOAL_SCENARIOS", "sim/scenarios", 1), 0);
    for (size_t i = 0; i < sizeof shipped / sizeof shipped[0]; i++) {
        struct scenario_options options = {.file = shipped[i].name};
        if (scenario_load(&options, &scenario, &error) != 0)
            fail_msg("%s", error.text);
        assert_string_equal(scenario.name.text, shipped[i].name);
        assert_int_equal(scenario.world.node_count, shipped[i].nodes);
        assert_int_equal(scenario.world.zone_count, shipped[i].zones);
        assert_true(scenario_image_bytes(&scenario.images[0]) == shipped[i].bytes);
        assert_true(scenario.world.nic_bps == shipped[i].nic_mbit * 125000);
        assert_true(scenario.world.origin_bps == shipped[i].origin_mbit * 125000);
        assert_true(scenario.description.text[0] != '\0');
        scenario_close(&scenario);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_the_defaults),
        cmocka_unit_test(an_empty_file_is_the_defaults),
        cmocka_unit_test(numbers_and_texts_agree),
        cmocka_unit_test(a_whole_scenario_is_read),
        cmocka_unit_test(zones_as_a_list_set_the_nodes),
        cmocka_unit_test(images_as_a_list),
        cmocka_unit_test(memory_caches_use_no_disk),
        cmocka_unit_test(every_mistake_has_its_line),
        cmocka_unit_test(lists_have_limits),
        cmocka_unit_test(sets_come_after_the_defaults_in_order),
        cmocka_unit_test(bad_sets_are_named),
        cmocka_unit_test(short_flags_stand_for_keys),
        cmocka_unit_test(files_name_files_beside_them),
        cmocka_unit_test(shipped_scenarios_are_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
