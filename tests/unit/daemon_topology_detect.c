/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topology detection in virtual time: order of sources, who is asked what and how, what silence
 * and refusals lead to, and that nothing is asked for nothing. The test plays every server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/daemon/topology_detect.h"
#include "daemon_scratch.h"
#include "registry_fake.h"

#define S 1000000ull

struct world {
    struct fake fake;
    struct config config;
    struct config_options options;
    struct peer_addr self;
    struct topology_detect *detect;
    struct topology told;
    unsigned changes;
};

static uint64_t host_now(void *arg)
{
    return ((struct world *)arg)->fake.now_us;
}

static void host_timer(void *arg, uint64_t delay_us)
{
    fake_timer(&((struct world *)arg)->fake, delay_us);
}

static void host_changed(void *arg, const struct topology *labels)
{
    struct world *world = arg;
    world->told = *labels;
    world->changes++;
}

static int world_make(void **state)
{
    static struct world world;
    memset(&world, 0, sizeof world);
    fake_init(&world.fake, 1);
    assert_int_equal(peer_addr_parse("10.1.2.3:65002", 1, &world.self), 0);
    *state = &world;
    return 0;
}

static int world_free(void **state)
{
    struct world *world = *state;
    topology_detect_free(world->detect);
    config_close(&world->config);
    assert_int_equal(world->fake.allocations, 0);
    for (unsigned i = 0; i < world->fake.call_count; i++)
        assert_false(world->fake.calls[i].live || world->fake.calls[i].late_callback);
    return 0;
}

static void start_in(struct world *world, const char *yaml, char *const *environment)
{
    struct config_error error = {""};
    const struct topology_host host = {world, host_now, host_timer, host_changed};
    world->options = (struct config_options){.environment = environment};
    world->options.file = scratch_file("shoal.yaml", yaml, 0600);
    assert_int_equal(config_load(&world->options, &world->config, &error), 0);
    world->config.options = &world->options;
    assert_int_equal(topology_detect_verify(&world->config, &error), 0);
    assert_int_equal(topology_detect_new(&world->fake.env, &world->fake.engine, &host,
                                         &world->config, &world->self, &world->detect),
                     0);
    topology_detect_start(world->detect);
}

static void start(struct world *world, const char *yaml)
{
    start_in(world, yaml, NULL);
}

/* The pending timer fires. */
static void turn(struct world *world)
{
    assert_true(world->fake.timer_at_us != FAKE_NONE);
    world->fake.now_us = world->fake.timer_at_us;
    world->fake.timer_at_us = FAKE_NONE;
    topology_detect_due(world->detect);
}

static struct fake_call *last(struct world *world)
{
    assert_true(world->fake.call_count > 0);
    return &world->fake.calls[world->fake.call_count - 1];
}

/* The last request is this one and waits. */
static struct fake_call *asked(struct world *world, const char *method, const char *url)
{
    struct fake_call *call = last(world);
    assert_true(call->live);
    assert_string_equal(call->method, method);
    assert_string_equal(call->url, url);
    assert_int_equal(call->connect_timeout_ms, 1000);
    assert_int_equal(call->first_byte_timeout_ms, 1000);
    assert_string_equal(call->proxy, "");
    return call;
}

static void expect(struct world *world, const char *region, const char *zone, const char *vswitch)
{
    const struct topology_view *view = topology_detect_view(world->detect);
    assert_string_equal(view->labels.region.text, region);
    assert_string_equal(view->labels.zone.text, zone);
    assert_string_equal(view->labels.vswitch.text, vswitch);
    if (world->changes > 0)
        assert_memory_equal(&world->told, &view->labels, sizeof world->told);
}

/* Asks nothing any more, whatever time passes. */
static void expect_end(struct world *world)
{
    unsigned calls = world->fake.call_count;
    while (world->fake.timer_at_us != FAKE_NONE)
        turn(world);
    assert_int_equal(world->fake.call_count, calls);
}

#define ECS  "http://100.100.100.200"
#define IMDS "http://169.254.169.254"

static void answer_ecs(struct world *world, const char *region, const char *zone,
                       const char *vswitch)
{
    fake_answer(asked(world, "PUT", ECS "/latest/api/token"), 200, "", "SECRETTOKEN");
    assert_true(last(world)->allow_metadata);
    fake_answer(asked(world, "GET", ECS "/latest/meta-data/zone-id"), 200, "", zone);
    fake_answer(asked(world, "GET", ECS "/latest/meta-data/region-id"), 200, "", region);
    fake_answer(asked(world, "GET", ECS "/latest/meta-data/vswitch-id"), 200, "", vswitch);
}

/* ---- order ---- */

static void configured_labels_need_nobody(void **state)
{
    struct world *world = *state;
    start(world, "topology: {region: r, zone: z, vswitch: v}\n");
    assert_int_equal(world->fake.call_count, 0);
    assert_int_equal(world->changes, 0); /* the node began with them */
    expect(world, "r", "z", "v");
    assert_int_equal(topology_detect_view(world->detect)->zone, TOPOLOGY_CONFIGURED);
    expect_end(world);
}

static void none_asks_nobody(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: none, prefixes: [10.0.0.0/8=r/z/v]}\n");
    assert_int_equal(world->fake.call_count, 0);
    expect(world, "", "", "");
    expect_end(world);
}

static void each_label_comes_from_the_first_who_says_it(void **state)
{
    struct world *world = *state;
    const char *file = scratch_file("labels", "topology.kubernetes.io/zone=\"kube-z\"\n", 0644);
    char yaml[512];
    (void)snprintf(yaml, sizeof yaml,
                   "topology: {region: mine, labelsFile: %s, prefixes: [10.0.0.0/8=p/p/p]}\n",
                   file);
    start(world, yaml);
    answer_ecs(world, "ecs-r", "ecs-z", "ecs-v");
    expect(world, "mine", "kube-z", "ecs-v");
    const struct topology_view *view = topology_detect_view(world->detect);
    assert_int_equal(view->region, TOPOLOGY_CONFIGURED);
    assert_int_equal(view->zone, TOPOLOGY_KUBERNETES);
    assert_int_equal(view->vswitch, TOPOLOGY_ECS);
    assert_int_equal(world->changes, 2);
    expect_end(world);
}

static void prefixes_come_last_and_the_longest_counts(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [prefixes], prefixes: [10.0.0.0/8=r8/z8/v8, "
                 "10.1.2.0/24=r24/z24, 10.1.0.0/16=r16/z16/v16, 10.9.0.0/16=no/no/no]}\n");
    expect(world, "r24", "z24", "");
    assert_int_equal(world->changes, 1);
    assert_int_equal(world->fake.call_count, 0);
    expect_end(world);
}

static void the_order_is_the_configurations(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [prefixes, ecs], prefixes: [10.0.0.0/8=p/p]}\n");
    expect(world, "p", "p", ""); /* at once */
    answer_ecs(world, "e", "e", "e");
    expect(world, "p", "p", "e");
    expect_end(world);
}

/* ---- clouds ---- */

static void aws_tells_zone_region_and_subnet(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [aws, gcp, azure]}\n");
    struct fake_call *call = asked(world, "PUT", IMDS "/latest/api/token");
    assert_string_equal(fake_sent(call, "X-aws-ec2-metadata-token-ttl-seconds", 0), "60");
    assert_true(call->allow_metadata && call->allow_private);
    fake_answer(call, 200, "", "SECRETTOKEN==");
    call = asked(world, "GET", IMDS "/latest/meta-data/placement/availability-zone");
    assert_string_equal(fake_sent(call, "X-aws-ec2-metadata-token", 0), "SECRETTOKEN==");
    fake_answer(call, 200, "", "us-east-1a");
    fake_answer(asked(world, "GET", IMDS "/latest/meta-data/placement/region"), 200, "",
                "us-east-1");
    fake_answer(asked(world, "GET", IMDS "/latest/meta-data/mac"), 200, "", "0e:49:61:0f:c3:11\n");
    fake_answer(asked(world, "GET",
                      IMDS "/latest/meta-data/network/interfaces/macs/0e:49:61:0f:c3:11/subnet-id"),
                200, "", "subnet-1");
    expect(world, "us-east-1", "us-east-1a", "subnet-1");
    expect_end(world);
    assert_null(strstr(world->fake.log, "SECRET"));
}

static void parts_of_aws_may_be_missing(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [aws]}\n");
    fake_answer(last(world), 200, "", "T");
    fake_answer(last(world), 200, "", "us-east-1a");
    fake_answer(last(world), 404, "", "<html>none</html>");
    /* A MAC that would lead elsewhere is not sent. */
    fake_answer(asked(world, "GET", IMDS "/latest/meta-data/mac"), 200, "", "../../iam");
    expect(world, "", "us-east-1a", "");
    expect_end(world);
}

static void tokens_are_text_of_a_header(void **state)
{
    struct world *world = *state;
    static const char *const bad[] = {"", "a b", "a\tb", "caf\xc3\xa9"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        start(world, "topology: {detect: [aws]}\n");
        fake_answer(last(world), 200, "", bad[i]);
        expect(world, "", "", "");
        expect_end(world);
        topology_detect_free(world->detect);
        config_close(&world->config);
    }
    start(world, "topology: {detect: [aws]}\n");
    char token[2000];
    memset(token, 't', sizeof token);
    token[sizeof token - 1] = '\0';
    fake_answer(last(world), 200, "", token);
    expect_end(world);
}

static void gcp_must_say_that_it_is(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [gcp, prefixes], prefixes: [10.0.0.0/8=r/z/v]}\n");
    struct fake_call *call = asked(world, "GET", IMDS "/computeMetadata/v1/instance/zone");
    assert_string_equal(fake_sent(call, "Metadata-Flavor", 0), "Google");
    fake_answer(call, 200, "", "projects/1/zones/us-central1-a");
    expect(world, "r", "z", "v");
    expect_end(world);
    topology_detect_free(world->detect);
    config_close(&world->config);
    start(world, "topology: {detect: [gcp]}\n");
    fake_answer(last(world), 200, "metadata-flavor: Google\n", "projects/1/zones/us-central1-a");
    expect(world, "us-central1", "us-central1-a", "");
    expect_end(world);
}

static void azure_is_asked_for_json(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [azure]}\n");
    struct fake_call *call =
        asked(world, "GET", IMDS "/metadata/instance/compute?api-version=2021-02-01&format=json");
    assert_string_equal(fake_sent(call, "Metadata", 0), "true");
    fake_answer(call, 200, "", "{\"location\":\"westeurope\",\"zone\":\"3\"}");
    expect(world, "westeurope", "westeurope-3", "");
    expect_end(world);
}

static void one_cloud_ends_the_search_for_others(void **state)
{
    struct world *world = *state;
    start(world, "topology: {}\n");
    fake_answer(last(world), 200, "", "TOKEN");
    fake_answer(last(world), 200, "", "cn-hangzhou-i");
    fake_answer(last(world), 200, "", "cn-hangzhou");
    fake_answer(last(world), 404, "", ""); /* no vSwitch: stays open, and nobody else is asked */
    expect(world, "cn-hangzhou", "cn-hangzhou-i", "");
    expect_end(world);
}

static void answers_of_another_cloud_are_not_asked_again(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [aws, gcp, azure]}\n");
    fake_answer(last(world), 405, "", "");
    fake_answer(asked(world, "GET", IMDS "/computeMetadata/v1/instance/zone"), 403, "", "");
    fake_answer(last(world), 400, "", "{\"error\":\"Bad request\"}");
    assert_int_equal(world->fake.call_count, 3);
    expect(world, "", "", "");
    expect_end(world);
}

/* ---- silence ---- */

/* Nobody at the clouds' address: one try stands for all three, rounds grow rarer and end. */
static void silence_costs_little_and_ends(void **state)
{
    struct world *world = *state;
    uint64_t began_us = world->fake.now_us, before_us = 0, pause_us = 0;
    start(world, "topology: {prefixes: [10.0.0.0/8=r/z]}\n");
    unsigned rounds = 0;
    for (;;) {
        unsigned calls = world->fake.call_count;
        asked(world, "PUT", ECS "/latest/api/token");
        fake_done(last(world), E_UNREACHABLE);
        asked(world, "PUT", IMDS "/latest/api/token");
        fake_done(last(world), rounds % 2 == 0 ? E_UNREACHABLE : E_TIMEOUT);
        assert_int_equal(world->fake.call_count, calls + 1);
        expect(world, "r", "z", "");
        rounds++;
        before_us = world->fake.now_us;
        turn(world);
        if (!last(world)->live)
            break;
        assert_true(world->fake.now_us - before_us > pause_us);
        pause_us = world->fake.now_us - before_us;
    }
    assert_int_equal(rounds, 8);
    assert_int_equal(world->changes, 1);
    assert_true(world->fake.now_us - began_us < 1000 * S);
    expect_end(world);
}

static void a_source_has_two_seconds(void **state)
{
    struct world *world = *state;
    uint64_t began_us = world->fake.now_us;
    start(world, "topology: {detect: [ecs, aws, gcp, azure, prefixes], "
                 "prefixes: [10.0.0.0/8=r/z/v]}\n");
    const struct fake_call *ecs = asked(world, "PUT", ECS "/latest/api/token");
    turn(world); /* it neither connects nor fails */
    assert_true(ecs->cancelled);
    const struct fake_call *aws = asked(world, "PUT", IMDS "/latest/api/token");
    turn(world);
    assert_true(aws->cancelled);
    assert_int_equal(world->fake.now_us - began_us, 4 * S);
    expect(world, "r", "z", "v"); /* everybody had their turn */
}

static void what_was_said_before_silence_counts(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [aws]}\n");
    fake_answer(last(world), 200, "", "T");
    fake_answer(last(world), 200, "", "us-east-1a");
    turn(world);
    expect(world, "", "us-east-1a", "");
    expect_end(world);
}

static void who_comes_late_is_heard(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [ecs, prefixes], prefixes: [10.0.0.0/8=p/p/p]}\n");
    fake_done(last(world), E_UNREACHABLE);
    expect(world, "p", "p", "p");
    turn(world);
    answer_ecs(world, "e-r", "e-z", "e-v"); /* before prefixes in the order */
    expect(world, "e-r", "e-z", "e-v");
    assert_int_equal(world->changes, 2);
    expect_end(world);
}

static void endless_answers_are_none(void **state)
{
    struct world *world = *state;
    static char big[300 * 1024];
    memset(big, 'a', sizeof big);
    start(world, "topology: {detect: [azure, prefixes], prefixes: [10.0.0.0/8=r/z/v]}\n");
    struct fake_call *call = last(world);
    fake_head(call, 200, "", UINT64_MAX);
    assert_true(fake_body(call, big, sizeof big));
    assert_true(fake_body(call, "b", 1));
    fake_done(call, 0);
    expect(world, "r", "z", "v");
}

/* ---- Kubernetes ---- */

static char *const in_cluster[] = {"KUBERNETES_SERVICE_HOST=10.96.0.1",
                                   "KUBERNETES_SERVICE_PORT=6443", "NODE_NAME=node-7.example",
                                   NULL};

static void account_make(char *yaml, size_t yaml_bytes, const char *token)
{
    (void)mkdir(scratch_path("account"), 0700);
    if (token != NULL)
        (void)scratch_file("account/token", token, 0600);
    else
        (void)unlink(scratch_path("account/token"));
    (void)snprintf(yaml, yaml_bytes,
                   "topology: {detect: [kubernetes], vswitchLabel: vsw, serviceAccount: %s}\n",
                   scratch_path("account"));
}

static void the_nodes_own_object_is_asked_for(void **state)
{
    struct world *world = *state;
    char yaml[512], ca[300];
    account_make(yaml, sizeof yaml, "SECRETTOKEN\n");
    start_in(world, yaml, in_cluster);
    struct fake_call *call =
        asked(world, "GET", "https://10.96.0.1:6443/api/v1/nodes/node-7.example");
    assert_string_equal(fake_sent(call, "Authorization", 0), "Bearer SECRETTOKEN");
    assert_non_null(strstr(fake_sent(call, "Accept", 0), "PartialObjectMetadata"));
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", scratch_path("account"));
    assert_int_equal(strncmp(call->ca_file, ca, sizeof call->ca_file - 1), 0);
    assert_false(call->allow_metadata);
    fake_answer(call, 200, "",
                "{\"metadata\":{\"labels\":{\"topology.kubernetes.io/zone\":\"z\","
                "\"topology.kubernetes.io/region\":\"r\",\"vsw\":\"v\"}}}");
    expect(world, "r", "z", "v");
    expect_end(world);
    assert_null(strstr(world->fake.log, "SECRET"));
}

static void a_refusal_is_told_once_and_asked_again(void **state)
{
    struct world *world = *state;
    char yaml[512];
    account_make(yaml, sizeof yaml, "SECRETTOKEN");
    start_in(world, yaml, in_cluster);
    for (unsigned i = 0; i < 12; i++) { /* longer than clouds are asked */
        fake_answer(last(world), 403, "", "{\"kind\":\"Status\"}");
        char *said = strstr(world->fake.log, "grant `get` on nodes");
        assert_non_null(said);
        assert_null(strstr(said + 1, "grant `get` on nodes"));
        turn(world);
    }
    fake_answer(last(world), 200, "",
                "{\"metadata\":{\"labels\":{\"topology.kubernetes.io/zone\":\"z\"}}}");
    expect(world, "", "z", "");
    expect_end(world);
    assert_null(strstr(world->fake.log, "SECRET"));
}

static void outside_a_cluster_nobody_is_asked(void **state)
{
    struct world *world = *state;
    char yaml[512];
    char *const no_name[] = {"KUBERNETES_SERVICE_HOST=10.96.0.1", NULL};
    char *const bad_name[] = {"KUBERNETES_SERVICE_HOST=10.96.0.1", "NODE_NAME=../secrets", NULL};
    char *const no_host[] = {"NODE_NAME=node-7", NULL};
    char *const *environments[] = {NULL, no_name, bad_name, no_host, in_cluster};
    for (unsigned i = 0; i < 5; i++) {
        account_make(yaml, sizeof yaml, i == 4 ? NULL : "T");
        start_in(world, yaml, environments[i]);
        assert_int_equal(world->fake.call_count, 0);
        expect_end(world);
        topology_detect_free(world->detect);
        config_close(&world->config);
    }
    /* IPv6, and an address of its own. */
    char *const v6[] = {"KUBERNETES_SERVICE_HOST=fd00::1", "NODE_NAME=n", NULL};
    account_make(yaml, sizeof yaml, "T");
    start_in(world, yaml, v6);
    asked(world, "GET", "https://[fd00::1]:443/api/v1/nodes/n");
    fake_answer(last(world), 404, "", "");
    expect_end(world);
}

static void a_label_file_needs_no_server(void **state)
{
    struct world *world = *state;
    char yaml[512];
    const char *file = scratch_file("labels", "topology.kubernetes.io/zone=\"z\"\n", 0644);
    (void)snprintf(yaml, sizeof yaml, "topology: {detect: [kubernetes], labelsFile: %s}\n", file);
    start_in(world, yaml, in_cluster);
    assert_int_equal(world->fake.call_count, 0);
    expect(world, "", "z", "");
    expect_end(world);
    topology_detect_free(world->detect);
    config_close(&world->config);
    (void)snprintf(yaml, sizeof yaml, "topology: {detect: [kubernetes], labelsFile: %s/none}\n",
                   scratch_directory);
    start(world, yaml);
    assert_non_null(strstr(world->fake.log, "no topology label in topology.labelsFile"));
}

/* ---- memory, engine, configuration ---- */

static void without_memory_it_is_tried_later(void **state)
{
    struct world *world = *state;
    world->fake.alloc_fail_at = 2; /* the first is the detection itself */
    start(world, "topology: {detect: [gcp]}\n");
    assert_int_equal(world->fake.call_count, 0);
    turn(world);
    fake_answer(last(world), 200, "metadata-flavor: Google\n", "projects/1/zones/us-central1-a");
    expect(world, "us-central1", "us-central1-a", "");
    expect_end(world);
}

static void a_full_engine_is_tried_later(void **state)
{
    struct world *world = *state;
    world->fake.start_fail_at = 1;
    world->fake.start_err = E_FULL;
    start(world, "topology: {detect: [azure]}\n");
    assert_int_equal(world->fake.call_count, 0);
    turn(world);
    fake_answer(last(world), 200, "", "{\"location\":\"l\",\"zone\":\"1\"}");
    expect(world, "l", "l-1", "");
    expect_end(world);
}

static void free_cancels_what_runs(void **state)
{
    struct world *world = *state;
    start(world, "topology: {detect: [ecs]}\n");
    assert_true(last(world)->live); /* world_free sees to the rest */
    topology_detect_free(world->detect);
    world->detect = NULL;
    assert_true(last(world)->cancelled);
    config_close(&world->config);
    start(world, "topology: {detect: [aws]}\n");
}

static void bad_configuration_is_named(void **state)
{
    struct world *world = *state;
    static const struct {
        const char *yaml, *wanted;
    } cases[] = {
        {"topology: {detect: [ecs, moon]}\n", "topology.detect: \"moon\" is not allowed"},
        {"topology: {detect: [none, ecs]}\n", "topology.detect: \"none\" is not allowed"},
        {"topology: {detect: [configuration]}\n", "\"configuration\" is not allowed"},
        {"topology: {detect: [ecs, aws, ecs]}\n", "\"ecs\" stands there twice"},
        {"topology: {prefixes: [10.0.0.0/8=a, 10.0.0.1/8=b]}\n",
         "topology.prefixes: \"10.0.0.1/8=b\" is not allowed"},
        {"topology: {ecsUrl: 10.0.0.1}\n", "topology.ecsUrl: \"10.0.0.1\" is not allowed"},
        {"topology: {cloudUrl: \"http://10.0.0.1/\"}\n", "topology.cloudUrl: "},
    };
    struct config_error error = {""};
    (void)world;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config_options options = {.file = scratch_file("bad.yaml", cases[i].yaml, 0600)};
        static struct config config;
        assert_int_equal(config_load(&options, &config, &error), 0);
        assert_int_equal(config_verify(&config, &error), E_CONFIG);
        if (strstr(error.text, cases[i].wanted) == NULL)
            fail_msg("said: %s\nwanted: %s", error.text, cases[i].wanted);
        config_close(&config);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_make, world_free)
    const struct CMUnitTest tests[] = {
        TEST(configured_labels_need_nobody),
        TEST(none_asks_nobody),
        TEST(each_label_comes_from_the_first_who_says_it),
        TEST(prefixes_come_last_and_the_longest_counts),
        TEST(the_order_is_the_configurations),
        TEST(aws_tells_zone_region_and_subnet),
        TEST(parts_of_aws_may_be_missing),
        TEST(tokens_are_text_of_a_header),
        TEST(gcp_must_say_that_it_is),
        TEST(azure_is_asked_for_json),
        TEST(one_cloud_ends_the_search_for_others),
        TEST(answers_of_another_cloud_are_not_asked_again),
        TEST(silence_costs_little_and_ends),
        TEST(a_source_has_two_seconds),
        TEST(what_was_said_before_silence_counts),
        TEST(who_comes_late_is_heard),
        TEST(endless_answers_are_none),
        TEST(the_nodes_own_object_is_asked_for),
        TEST(a_refusal_is_told_once_and_asked_again),
        TEST(outside_a_cluster_nobody_is_asked),
        TEST(a_label_file_needs_no_server),
        TEST(without_memory_it_is_tried_later),
        TEST(a_full_engine_is_tried_later),
        TEST(free_cancels_what_runs),
        TEST(bad_configuration_is_named),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
