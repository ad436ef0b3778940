/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery of ACR instances over a scripted engine: what is asked, which host is chosen, each row
 * of ACR.md's table of errors, what people read, and that the last good answer stays.
 */
#include "registry_acr_world.h"

/* ---- what is asked and found ---- */

static void both_questions_are_asked_and_the_vpc_host_chosen(void **state)
{
    struct world *world = *state;
    struct fake_call *call;
    const struct registry_entry *entry;

    start(world);
    call = next_call(world, "ListInstanceEndpoint");
    assert_string_equal(call->method, "POST");
    assert_string_equal(call->url, "https://cr-vpc.cn-shanghai.aliyuncs.com/?InstanceId=cri-one&"
                                   "ModuleName=Registry&Summary=true");
    assert_string_equal(call->body, "");
    assert_string_equal(fake_sent(call, "x-acs-version", 0), "2018-12-01");
    assert_string_equal(fake_sent(call, "x-acs-date", 0), "2026-01-02T03:04:05Z");
    assert_string_equal(fake_sent(call, "accept", 0), "application/json");
    assert_int_equal(strlen(fake_sent(call, "x-acs-signature-nonce", 0)), 32);
    assert_null(fake_sent(call, "x-acs-security-token", 0));
    assert_non_null(strstr(fake_sent(call, "authorization", 0), "Credential=LTAI5tTest,"));
    assert_true(call->allow_private);
    assert_true(world->file_secret);
    assert_string_equal(world->file_path, "/keys");
    fake_answer(call, 200, DATE, LIST);
    assert_null(acr_find(world->acr, VPC_HOST)); /* only half is known */
    call = next_call(world, "GetInstanceVpcEndpoint");
    assert_string_equal(call->url, "https://cr-vpc.cn-shanghai.aliyuncs.com/?InstanceId=cri-one&"
                                   "ModuleName=Registry");
    fake_answer(call, 200, DATE, LINK);
    expect_endpoint(world, "https://" VPC_HOST);
    expect_why(world, "");
    assert_true(view_of(world, 0).through_vpc);
    assert_int_equal(view_of(world, 0).host_count, 3);
    assert_non_null(strstr(world->fake.log, "endpoint=https://" VPC_HOST " vpc=1 hosts=3\n"));

    entry = acr_find(world->acr, PUBLIC_HOST);
    assert_non_null(entry);
    assert_string_equal(entry->name, PUBLIC_HOST);
    assert_string_equal(entry->endpoint, "https://" VPC_HOST);
    assert_true(entry->allow_private.count > 0);
    assert_true(entry->p2p);
    assert_false(entry->is_default);
    assert_string_equal(acr_find(world->acr, "IMG.example.com")->endpoint, "https://" VPC_HOST);
}

/* Signed URLs that overlaybd hands over lie in the instance's own bucket (ACR.md §6, ORG-1). */
static void storage_of_an_instance_is_known(void **state)
{
    struct world *world = *state;
    static const char path[] = "/docker/registry/v2/blobs/sha256/aa/x/data?Signature=x";
    static const struct {
        const char *host;
        bool known;
    } rows[] = {
        {"https://cri-one-registry.oss-cn-shanghai-internal.aliyuncs.com", true},
        {"https://cri-one-registry.oss-cn-shanghai.aliyuncs.com", true},
        {"http://cri-one-registry.oss-cn-shanghai.aliyuncs.com", false},
        {"https://cri-two-registry.oss-cn-shanghai.aliyuncs.com", false},
        {"https://cri-one-registry.oss-cn-beijing.aliyuncs.com", false},
        {"https://cri-one-registry.oss-cn-shanghai.aliyuncs.com.evil.test", false},
    };

    start(world);
    assert_null(acr_find_storage(world->acr, rows[1].host, NULL));
    fake_answer(next_call(world, "ListInstanceEndpoint"), 200, DATE, LIST);
    fake_answer(next_call(world, "GetInstanceVpcEndpoint"), 200, DATE, LINK);
    expect_endpoint(world, "https://" VPC_HOST);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char url[256];
        (void)snprintf(url, sizeof url, "%s%s", rows[i].host, path);
        const struct registry_entry *entry = acr_find_storage(world->acr, url, NULL);
        if ((entry != NULL) != rows[i].known)
            fail_msg("%s: %d", url, entry != NULL);
        unsigned names = 0;
        for (; entry != NULL; entry = acr_find_storage(world->acr, url, entry)) {
            assert_string_equal(entry->endpoint, "https://" VPC_HOST);
            names++;
        }
        assert_int_equal(names, rows[i].known ? 3 : 0);
    }
    assert_null(acr_find_storage(
        world->acr, "https://cri-one-registry.oss-cn-shanghai.aliyuncs.com/other/sha256/x", NULL));
}

/* As one of the agent's registries: behind the configured ones, by exact name, and in the P2P form
 * of ACR.md §6. Nothing else leads anywhere (ORG-1). */
static void names_are_registries(void **state)
{
    struct world *world = *state;
    static const char *const good[] = {
        "demo-registry-vpc.distributed.cn-shanghai.cr.aliyuncs.com:65001",
        "demo-registry-vpc.distributed.cn-shanghai.cr.aliyuncs.com",
        "Demo-Registry-VPC.Distributed.cn-shanghai.cr.aliyuncs.com:65001", VPC_HOST};
    static const char *const bad[] = {
        "evil.example.com",
        "distributed.demo-registry-vpc.cn-shanghai.cr.aliyuncs.com",
        "demo-registry-vpc.distributed.distributed.cn-shanghai.cr.aliyuncs.com",
        "demo-registry-vpc.distributed.evil.example.com:65001",
        ".distributed.",
        ":65001"};
    struct registry_entry own = {.name = "img.example.com", .endpoint = "https://own.test"};
    struct registries all = {.entries = &own, .entry_count = 1, .more = acr_find};
    char name[HOST_BYTES_MAX + 1];

    start(world);
    all.more_arg = world->acr;
    assert_null(registries_find(&all, VPC_HOST));
    answer_instance(world);
    settle(world);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const struct registry_entry *found =
            registries_find(&all, registries_asked(&all, good[i], NULL, name));
        assert_non_null(found);
        assert_string_equal(found->name, VPC_HOST);
        found = registries_find(&all, registries_asked(&all, "", good[i], name));
        assert_string_equal(found->name, VPC_HOST);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_null(registries_find(&all, registries_asked(&all, bad[i], NULL, name)));
    assert_string_equal(registries_find(&all, "img.example.com")->endpoint, "https://own.test");
    assert_null(registries_find(&all, ""));
    assert_null(acr_find(world->acr, NULL));
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_null(acr_find(world->acr, name));
}

static void public_host_where_the_vpc_is_not_linked(void **state)
{
    struct world *world = *state;

    world->config.vpc = "vpc-other";
    start(world);
    answer_instance(world);
    expect_endpoint(world, "https://" PUBLIC_HOST);
    expect_why(world, "");
    assert_false(view_of(world, 0).through_vpc);
    assert_int_equal(acr_find(world->acr, VPC_HOST)->allow_private.count, 0);
    assert_non_null(
        strstr(world->fake.log, "because vpc-other is not linked to it (linked: " VPC ")"));
}

static void links_must_run(void **state)
{
    struct world *world = *state;
    static const struct {
        const char *link, *endpoint;
    } cases[] = {
        {LINK_OF("true", VPC, "CREATING"), "https://" PUBLIC_HOST},
        {LINK_OF("false", VPC, "RUNNING"), "https://" PUBLIC_HOST},
        {LINK_OF("true", "vpc-x", "RUNNING"), "https://" PUBLIC_HOST},
        {"{\"IsSuccess\":true}", "https://" PUBLIC_HOST},
        {"{\"Enable\":true,\"LinkedVpcs\":[{\"VpcId\":\"" VPC "\",\"Status\":\"RUNNING\"}]}",
         "https://" VPC_HOST},
    };

    start(world);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        answer(world, "ListInstanceEndpoint", 200, LIST);
        answer(world, "GetInstanceVpcEndpoint", 200, cases[i].link);
        expect_endpoint(world, cases[i].endpoint);
    }
}

static void nothing_usable_says_what_to_do(void **state)
{
    struct world *world = *state;

    world->config.vpc = "vpc-other";
    start(world);
    answer(world, "ListInstanceEndpoint", 200,
           LIST_HEAD PUBLIC("true", "DELETING") "," PRIVATE("true", VPC) "]}");
    answer(world, "GetInstanceVpcEndpoint", 200, LINK);
    expect_endpoint(world, "");
    expect_why(world, "vpc-other is not linked to it (linked: " VPC
                      "), and its public endpoint is off: link the VPC");
    assert_null(acr_find(world->acr, VPC_HOST));
}

static void rounds_are_ten_minutes_apart(void **state)
{
    struct world *world = *state;
    uint64_t seconds;

    start(world);
    answer_instance(world);
    settle(world);
    seconds = seconds_to_next(world);
    assert_in_range(seconds, 600, 661);
    world->seen = world->fake.call_count - 1;
    answer_instance(world);
    expect_endpoint(world, "https://" VPC_HOST);
    assert_int_equal(world->file_reads, 2); /* a changed key is seen */
}

static void endpoints_change_in_place(void **state)
{
    struct world *world = *state;
    const struct registry_entry *entry;

    start(world);
    answer_instance(world);
    settle(world);
    entry = acr_find(world->acr, VPC_HOST);
    answer(world, "ListInstanceEndpoint", 200, LIST_HEAD PUBLIC("true", "RUNNING") "]}");
    answer(world, "GetInstanceVpcEndpoint", 200, "{\"Enable\":false}");
    expect_endpoint(world, "https://" PUBLIC_HOST);
    assert_null(acr_find(world->acr, VPC_HOST)); /* the name is gone, its memory is not */
    assert_string_equal(entry->name, VPC_HOST);
    answer_instance(world);
    settle(world);
    assert_ptr_equal(acr_find(world->acr, VPC_HOST), entry);
    assert_string_equal(entry->endpoint, "https://" VPC_HOST);
}

static void region_and_vpc_come_from_metadata(void **state)
{
    struct world *world = *state;

    world->config.region = world->config.vpc = "";
    start(world);
    answer(world, "/latest/api/token", 200, "SECRETT");
    answer(world, "/latest/meta-data/region-id", 200, "cn-heyuan\n");
    answer(world, "/latest/meta-data/vpc-id", 200, VPC);
    assert_string_equal(next_call(world, "ListInstanceEndpoint")->url,
                        "https://cr.cn-heyuan.aliyuncs.com/?InstanceId=cri-one&ModuleName="
                        "Registry&Summary=true"); /* no VPC host there */
    fake_answer(&world->fake.calls[world->seen - 1], 200, "", LIST);
    answer(world, "GetInstanceVpcEndpoint", 200, LINK);
    expect_endpoint(world, "https://" VPC_HOST);
}

static void without_metadata_the_region_is_asked_for(void **state)
{
    struct world *world = *state;

    world->config.region = "";
    start(world);
    fake_done(next_call(world, "/latest/api/token"), E_UNREACHABLE);
    expect_why(world, "set region");
    assert_in_range(seconds_to_next(world), 28, 34);
    world->config.metadata_off = true;
    acr_free(world->acr);
    world->seen = world->fake.call_count;
    start(world);
    expect_why(world, "set region");
}

/* ---- ACR.md §2's table of errors ---- */

static void fail_list(struct world *world, int status, const char *body)
{
    answer(world, "ListInstanceEndpoint", status, body);
}

static void missing_second_permission_is_named_and_lived_with(void **state)
{
    struct world *world = *state;

    start(world);
    answer(world, "ListInstanceEndpoint", 200, LIST);
    answer(world, "GetInstanceVpcEndpoint", 403,
           "{\"Code\":\"NoPermission\",\"Message\":\"no\",\"AccessDeniedDetail\":{\"AuthAction\":"
           "\"cr:GetInstanceVpcEndpoint\"}}");
    expect_why(world, "the permission cr:GetInstanceVpcEndpoint is missing: allow "
                      "cr:ListInstanceEndpoint and cr:GetInstanceVpcEndpoint on *");
    expect_endpoint(world, "https://" VPC_HOST);
    assert_in_range(seconds_to_next(world), 598, 660);
    world->seen--;
    world->seen = world->fake.call_count - 1;
    answer_instance(world);
    expect_why(world, "");
}

static void permanent_errors_wait_ten_minutes(void **state)
{
    struct world *world = *state;
    static const struct {
        int status;
        const char *body, *why;
    } cases[] = {
        {403, FAILURE("Forbidden.RAM"), "the permission cr:ListInstanceEndpoint is missing"},
        {403, FAILURE("NoPermission"), "is missing"},
        {403, "{\"code\":\"Forbidden\",\"message\":\"lower case\"}", "lower case"},
        {200, "{\"IsSuccess\":false,\"Code\":\"INSTANCE_NOT_EXIST\"}",
         "does not exist in region cn-shanghai"},
        {404, FAILURE("INSTANCE_STATUS_NOT_SUPPORT"), "check acrInstances and region"},
    };

    start(world);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fail_list(world, cases[i].status, cases[i].body);
        expect_why(world, cases[i].why);
        assert_in_range(seconds_to_next(world), 598, 661);
    }
}

static void other_errors_wait_half_a_minute(void **state)
{
    struct world *world = *state;
    static const struct {
        int status;
        const char *body, *why;
    } cases[] = {
        {400, FAILURE("SomethingNew"), "400 SomethingNew: because"},
        {400, "<Error><Code>XmlCode</Code><Message>in XML</Message></Error>", "XmlCode: in XML"},
        {404, "not JSON", "404 without a code"},
        {200, "{\"IsSuccess\":false,\"Code\":\"Odd\"}", "200 Odd"},
        {200, "[]", "200 without a code"},
        {200, "{\"IsSuccess\":true}", "malformed"},
        {200, "not JSON", "200 without a code"},
    };

    start(world);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fail_list(world, cases[i].status, cases[i].body);
        expect_why(world, cases[i].why);
        assert_in_range(seconds_to_next(world), 28, 34);
    }
}

/* Three tries, 1 and 2 s and up to half more apart; a new nonce each time. */
static void busy_services_are_asked_three_times(void **state)
{
    struct world *world = *state;
    static const struct {
        int status;
        const char *body;
    } cases[] = {{503, FAILURE("ServiceUnavailable")},
                 {500, "oops"},
                 {400, FAILURE("Throttling.User")},
                 {429, ""}};

    start(world);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char nonce[64];

        fail_list(world, cases[i].status, cases[i].body);
        (void)snprintf(nonce, sizeof nonce, "%s",
                       fake_sent(&world->fake.calls[world->seen - 1], "x-acs-signature-nonce", 0));
        assert_int_equal(seconds_to_next(world), 1);
        assert_string_not_equal(
            nonce, fake_sent(&world->fake.calls[world->seen], "x-acs-signature-nonce", 0));
        fail_list(world, cases[i].status, cases[i].body);
        assert_in_range(seconds_to_next(world), 2, 3);
        fail_list(world, cases[i].status, cases[i].body);
        expect_why(world, "ListInstanceEndpoint");
        assert_in_range(seconds_to_next(world), 28, 34);
    }
    answer_instance(world);
    expect_why(world, "");
}

static void services_may_say_how_long_to_wait(void **state)
{
    struct world *world = *state;
    static const struct {
        const char *header;
        uint64_t least_s, most_s;
    } cases[] = {{"x-acs-retry-after: 7000\n", 7, 7},
                 {"x-acs-retry-after: 999999999999\n", 60, 60},
                 {"x-acs-retry-after: -5\n", 1, 1},
                 {"x-acs-retry-after: 9s\n", 1, 1},
                 {"x-acs-retry-after: 0\n", 1, 1}};

    start(world);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_answer(next_call(world, "ListInstanceEndpoint"), 400, cases[i].header,
                    FAILURE("Throttling.Api"));
        assert_in_range(seconds_to_next(world), cases[i].least_s, cases[i].most_s);
        answer_instance(world);
        settle(world);
    }
}

static void silence_leads_to_the_other_host(void **state)
{
    struct world *world = *state;

    start(world);
    fake_done(next_call(world, "https://cr-vpc.cn-shanghai.aliyuncs.com/"), E_TIMEOUT);
    fake_answer(next_call(world, "https://cr.cn-shanghai.aliyuncs.com/"), 200, DATE, LIST);
    /* It stays with the one that answered. */
    fake_answer(next_call(world, "https://cr.cn-shanghai.aliyuncs.com/"), 200, DATE, LINK);
    expect_endpoint(world, "https://" VPC_HOST);
}

static void wrong_clocks_are_corrected_once(void **state)
{
    struct world *world = *state;
    struct fake_call *call;

    world->wall_s = WALL_S - 7200;
    start(world);
    fail_list(world, 400, FAILURE("InvalidTimeStamp.Expired"));
    assert_int_equal(seconds_to_next(world), 0);
    call = next_call(world, "ListInstanceEndpoint");
    assert_string_equal(fake_sent(call, "x-acs-date", 0), "2026-01-02T03:04:05Z");
    assert_non_null(strstr(world->fake.log, "clock is off by -7200 s"));
    fake_answer(call, 400, DATE, FAILURE("InvalidTimeStamp.Expired"));
    expect_why(world, "clock is wrong");
    assert_in_range(seconds_to_next(world), 28, 34);
    fake_answer(next_call(world, "ListInstanceEndpoint"), 400, "",
                FAILURE("InvalidTimeStamp.Format")); /* without a Date there is nothing to learn */
    expect_why(world, "clock is wrong");
}

static void used_nonces_are_replaced(void **state)
{
    struct world *world = *state;

    start(world);
    fail_list(world, 400, FAILURE("SignatureNonceUsed"));
    assert_int_equal(seconds_to_next(world), 0);
    answer_instance(world);
    expect_why(world, "");
}

static void refused_keys_are_read_again_once(void **state)
{
    struct world *world = *state;

    start(world);
    fail_list(world, 404, FAILURE("InvalidAccessKeyId.NotFound"));
    world->file = "LTAIother\nSECRETOTHER\n";
    assert_non_null(strstr(fake_sent(next_call(world, "ListInstanceEndpoint"), "authorization", 0),
                           "Credential=LTAIother,"));
    fake_answer(&world->fake.calls[world->seen - 1], 403, DATE,
                FAILURE("InvalidAccessKeyId.Inactive"));
    expect_why(world, "credentials are not accepted: check key or role");
    assert_in_range(seconds_to_next(world), 598, 661);
    /* A mismatch says what we signed, and never what the server quotes of our secret. */
    fail_list(world, 400,
              "{\"Code\":\"SignatureDoesNotMatch\",\"Message\":\"SECRETOTHER is in here\"}");
    fail_list(world, 400, FAILURE("SignatureDoesNotMatch"));
    expect_why(world, "because; our string to sign ends ");
}

/* ---- losing the cloud, several instances ---- */

static void the_last_good_answer_stays(void **state)
{
    struct world *world = *state;

    start(world);
    answer_instance(world);
    settle(world);
    for (unsigned i = 0; i < 3; i++)
        fake_done(next_call(world, "ListInstanceEndpoint"), E_UNREACHABLE);
    expect_why(world, "unreachable");
    expect_endpoint(world, "https://" VPC_HOST);
    assert_non_null(acr_find(world->acr, VPC_HOST));
    assert_non_null(strstr(world->fake.log, "the last good answer stays in force"));
    world->file_err = E_DENIED; /* even without a key */
    world->file = "";
    for (unsigned i = 0; i < 3; i++)
        fake_done(next_call(world, "ListInstanceEndpoint"), E_UNREACHABLE);
    assert_non_null(strstr(world->fake.log, "cannot open /keys; the old ones are still valid"));
    assert_non_null(acr_find(world->acr, VPC_HOST));
    world->file_err = 0;
    world->file = KEYS_FILE;
    answer_instance(world);
    expect_why(world, "");
}

static void a_deleted_instance_is_dropped(void **state)
{
    struct world *world = *state;

    start(world);
    answer_instance(world);
    settle(world);
    fail_list(world, 200, "{\"IsSuccess\":false,\"Code\":\"INSTANCE_NOT_EXIST\"}");
    expect_endpoint(world, "");
    assert_null(acr_find(world->acr, VPC_HOST));
}

static void one_instance_does_not_stop_the_others(void **state)
{
    struct world *world = *state;
    struct fake_call *call;

    world->config.instances[1] = "cri-two";
    world->config.instances[2] = "cri-three";
    world->config.instance_count = 3;
    start(world);
    fail_list(world, 403, FAILURE("NoPermission"));
    call = next_call(world, "InstanceId=cri-two");
    fake_answer(call, 200, DATE, LIST);
    answer(world, "GetInstanceVpcEndpoint", 200, LINK);
    /* Silence ends the round: the next one begins behind it. */
    for (unsigned i = 0; i < 3; i++)
        fake_done(next_call(world, "InstanceId=cri-three"), E_TIMEOUT);
    assert_string_equal(view_of(world, 1).endpoint, "https://" VPC_HOST);
    assert_string_equal(view_of(world, 2).endpoint, "");
    for (unsigned i = 0; i < 3; i++)
        fake_done(next_call(world, "InstanceId=cri-one"), E_TIMEOUT);
    fail_list(world, 403, FAILURE("NoPermission"));
    assert_string_equal(world->config.instances[1], "cri-two");
    /* The same names for another instance: the first one has them. */
    call = next_call(world, "InstanceId=cri-three");
    fake_answer(call, 200, DATE, LIST);
    answer(world, "GetInstanceVpcEndpoint", 200, LINK);
    for (unsigned i = 0; i < 3; i++)
        fake_done(next_call(world, "InstanceId=cri-one"), E_TIMEOUT);
    assert_int_equal(view_of(world, 2).host_count, 0);
    assert_string_equal(acr_find(world->acr, VPC_HOST)->endpoint, "https://" VPC_HOST);
}

static void odd_domains_are_left_out(void **state)
{
    struct world *world = *state;
    struct acr_counters counters;
    static char body[16384];
    size_t used;

    start(world);
    used = (size_t)snprintf(body, sizeof body,
                            "%s{\"EndpointType\":\"internet\",\"Enable\":true,\"Status\":"
                            "\"RUNNING\",\"Domains\":[{\"Domain\":\"a/b\"},{\"Domain\":7},{}",
                            LIST_HEAD);
    for (unsigned i = 0; i < 20; i++)
        used += (size_t)snprintf(body + used, sizeof body - used,
                                 ",{\"Domain\":\"H%u.example.com\"}", i);
    (void)snprintf(body + used, sizeof body - used, "]}]}");
    answer(world, "ListInstanceEndpoint", 200, body);
    answer(world, "GetInstanceVpcEndpoint", 200, "{\"Domains\":[\"\",3,\"x y\"]}");
    expect_endpoint(world, "https://h0.example.com");
    assert_int_equal(view_of(world, 0).host_count, 16);
    acr_counters(world->acr, &counters);
    assert_int_equal(counters.hosts_dropped, 3 + 4 + 3);
}

/* A cloud that invents names without end: known ones stay, memory is bounded. */
static void names_are_bounded(void **state)
{
    struct world *world = *state;
    char body[4096];
    unsigned serial = 0;

    start(world);
    for (unsigned round = 0; round < 40; round++) {
        size_t used = (size_t)snprintf(
            body, sizeof body,
            "%s{\"EndpointType\":\"internet\",\"Enable\":true,\"Status\":\"RUNNING\",\"Domains\":[",
            LIST_HEAD);

        for (unsigned i = 0; i < 16; i++)
            used += (size_t)snprintf(body + used, sizeof body - used, "%s{\"Domain\":\"h%u.x\"}",
                                     i == 0 ? "" : ",", serial++);
        (void)snprintf(body + used, sizeof body - used, "]}]}");
        answer(world, "ListInstanceEndpoint", 200, body);
        answer(world, "GetInstanceVpcEndpoint", 200, "{}");
        assert_int_equal(view_of(world, 0).host_count, round < 32 ? 16 : 0);
        world->fake.call_count = world->seen = 0;
    }
}

static void engines_and_memory_may_fail(void **state)
{
    struct world *world = *state;

    for (unsigned n = 1; n < 4; n++) {
        world->fake.alloc_fail_at = world->fake.alloc_count + n;
        int err = acr_new(&world->fake.env, &world->fake.engine, &world->host, &world->config,
                          &world->acr);
        if (err == 0)
            acr_free(world->acr);
        else
            assert_int_equal(err, E_NO_MEMORY);
        world->acr = NULL;
        assert_int_equal(world->fake.allocations, 0);
    }
    world->fake.alloc_fail_at = 0;
    world->fake.start_fail_at = world->fake.starts + 1;
    world->fake.start_err = E_FULL;
    start(world);
    expect_why(world, "not sent: no room left");
    world->fake.alloc_fail_at = world->fake.alloc_count + 2; /* the second name */
    answer_instance(world);
    assert_int_equal(view_of(world, 0).host_count, 2);
    assert_int_equal(view_of(world, 0).endpoint[0], 'h');
}

static void older_signatures_are_possible(void **state)
{
    struct world *world = *state;
    struct fake_call *call;

    world->config.sign_v1 = true;
    world->config.cr_url = "http://127.0.0.1:18080";
    world->config.registry_plain_http = true;
    start(world);
    call = next_call(world, "Action=ListInstanceEndpoint");
    assert_string_equal(call->url, "http://127.0.0.1:18080/");
    assert_string_equal(fake_sent(call, "content-type", 0), "application/x-www-form-urlencoded");
    assert_null(fake_sent(call, "authorization", 0));
    assert_non_null(strstr(call->body, "&SignatureMethod=HMAC-SHA1&"));
    fake_answer(call, 200, DATE, LIST);
    answer(world, "Action=GetInstanceVpcEndpoint", 200, LINK);
    expect_endpoint(world, "http://" VPC_HOST);
}

static void freeing_cancels(void **state)
{
    struct world *world = *state;

    start(world);
    (void)next_call(world, "ListInstanceEndpoint");
    acr_free(world->acr);
    assert_true(world->fake.calls[0].cancelled);
    world->acr = NULL;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(both_questions_are_asked_and_the_vpc_host_chosen),
        TEST(storage_of_an_instance_is_known),
        TEST(names_are_registries),
        TEST(public_host_where_the_vpc_is_not_linked),
        TEST(links_must_run),
        TEST(nothing_usable_says_what_to_do),
        TEST(rounds_are_ten_minutes_apart),
        TEST(endpoints_change_in_place),
        TEST(region_and_vpc_come_from_metadata),
        TEST(without_metadata_the_region_is_asked_for),
        TEST(missing_second_permission_is_named_and_lived_with),
        TEST(permanent_errors_wait_ten_minutes),
        TEST(other_errors_wait_half_a_minute),
        TEST(busy_services_are_asked_three_times),
        TEST(services_may_say_how_long_to_wait),
        TEST(silence_leads_to_the_other_host),
        TEST(wrong_clocks_are_corrected_once),
        TEST(used_nonces_are_replaced),
        TEST(refused_keys_are_read_again_once),
        TEST(the_last_good_answer_stays),
        TEST(a_deleted_instance_is_dropped),
        TEST(one_instance_does_not_stop_the_others),
        TEST(odd_domains_are_left_out),
        TEST(names_are_bounded),
        TEST(engines_and_memory_may_fail),
        TEST(older_signatures_are_possible),
        TEST(freeing_cancels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
