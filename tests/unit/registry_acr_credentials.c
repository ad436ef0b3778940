/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the cloud's keys come from (ACR.md §4): files, the machine's role, a pod's identity and a
 * second role; when they are refreshed, what happens when that fails, and what people read.
 */
#include "registry_acr_world.h"

static struct fake_call *expect_key(struct world *world, const char *id)
{
    struct fake_call *call = next_call(world, "ListInstanceEndpoint");
    char part[64];

    (void)snprintf(part, sizeof part, "Credential=%s,", id);
    assert_non_null(strstr(fake_sent(call, "authorization", 0), part));
    return call;
}

/* The round's two answers, the first with this key. */
static void round_with(struct world *world, const char *id)
{
    fake_answer(expect_key(world, id), 200, DATE, LIST);
    answer(world, "GetInstanceVpcEndpoint", 200, LINK);
    expect_why(world, "");
}

/* ---- files ---- */

static void files_have_two_lines(void **state)
{
    struct world *world = *state;
    static const char *const good[] = {KEYS_FILE, "  LTAI5tTest SECRETKEY",
                                       "LTAI5tTest\r\nSECRETKEY\r\n\r\n"};
    static const char *const bad[] = {"", "LTAI5tTest\n", "LTAI5tTest\nSECRETKEY\nSECRETMORE\n",
                                      "LTAI5tTest\nSECRET\x01\n"};
    char longest[700];

    start(world);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        world->file = good[i];
        round_with(world, "LTAI5tTest");
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        acr_free(world->acr);
        world->file = bad[i];
        start(world);
        expect_why(world, "accessKeyFile: it must have two lines");
    }
    (void)snprintf(longest, sizeof longest, "LTAI5tTest\nSECRET%0300d\n", 0);
    acr_free(world->acr);
    world->file = longest;
    start(world);
    expect_why(world, "accessKeyFile: it must have two lines");
    world->file = KEYS_FILE;
    assert_in_range(seconds_to_next(world), 28, 34);
    round_with(world, "LTAI5tTest");
}

static void unreadable_files_are_named(void **state)
{
    struct world *world = *state;

    world->file_err = E_DENIED;
    start(world);
    expect_why(world, "cannot open /keys");
}

/* ---- the machine's role ---- */

static void role_start(struct world *world)
{
    world->config.keys_from = ACR_KEYS_ROLE;
    start(world);
}

static void give_role(struct world *world, const char *keys)
{
    answer(world, "/latest/meta-data/ram/security-credentials/", 200, "worker-role\n");
    answer(world, "/latest/meta-data/ram/security-credentials/worker-role", 200, keys);
}

static void role_keys_are_fetched(void **state)
{
    struct world *world = *state;

    role_start(world);
    answer(world, "/latest/api/token", 200, "SECRETMETA");
    give_role(world, ROLE_KEYS("STS.one", "2026-01-02T09:04:05Z"));
    struct fake_call *call = expect_key(world, "STS.one");
    assert_string_equal(fake_sent(call, "x-acs-security-token", 0), "SECRETTOKENSTS.one");
    assert_string_equal(fake_sent(call, "x-acs-accesskey-id", 0), "STS.one");
    fake_answer(call, 200, DATE, LIST);
    answer(world, "GetInstanceVpcEndpoint", 200, LINK);
    expect_why(world, "");
    assert_int_equal(world->file_reads, 0);
}

/* Six hours: half an hour before the end. The role's name is asked for again, it may change. */
static void role_keys_are_refreshed(void **state)
{
    struct world *world = *state;
    uint64_t began_us;

    role_start(world);
    answer(world, "/latest/api/token", 200, "SECRETMETA");
    began_us = world->fake.now_us;
    give_role(world, ROLE_KEYS("STS.one", "2026-01-02T09:04:05Z"));
    for (unsigned i = 0; i < 60; i++) {
        struct fake_call *call;

        if (world->fake.call_count > 100)
            world->fake.call_count = world->seen = 0;
        assert_true(turn_until(world, UINT64_MAX - 1));
        call = &world->fake.calls[world->seen];
        if (strstr(call->url, "100.100.100.200") != NULL)
            break;
        round_with(world, "STS.one");
    }
    assert_in_range((world->fake.now_us - began_us) / SECOND_US, 6 * 3600 - 1800 - 61,
                    6 * 3600 - 1800);
    answer(world, "/latest/api/token", 200, "SECRETMETA2"); /* its time is over, too */
    answer(world, "/latest/meta-data/ram/security-credentials/", 200, "other-role");
    answer(world, "/ram/security-credentials/other-role", 200,
           ROLE_KEYS("STS.two", "2026-01-02T15:04:05Z"));
    round_with(world, "STS.two");
}

static void role_failures_are_explained(void **state)
{
    struct world *world = *state;

    role_start(world);
    answer(world, "/latest/api/token", 200, "SECRETMETA");
    answer(world, "/ram/security-credentials/", 404, "");
    expect_why(world, "no RAM role is attached to this machine");
    answer(world, "/ram/security-credentials/", 500, "");
    expect_why(world, "the registry answered with an error");
    answer(world, "/ram/security-credentials/", 200, "a/../b");
    expect_why(world, "named no role");
    give_role(world, "{\"Code\":\"Failed\"}");
    expect_why(world, "the metadata service gave none");
    give_role(world, "{\"Code\":\"Success\",\"AccessKeyId\":\"x\"}");
    expect_why(world, "gave none: malformed");
    give_role(world, ROLE_KEYS("STS.old", "2026-01-02T03:04:05Z"));
    expect_why(world, "have ended already");
    fake_done(next_call(world, "/ram/security-credentials/"), E_TIMEOUT);
    expect_why(world, "outside Alibaba Cloud set accessKeyFile or rrsa.enable");
    answer(world, "/ram/security-credentials/", 401, "");
    answer(world, "/latest/api/token", 403, "");
    expect_why(world, "refuses this process");
    acr_free(world->acr);
    world->config.metadata_off = true;
    start(world);
    expect_why(world, "ALIBABA_CLOUD_ECS_METADATA_DISABLED");
}

/* The end of keys counts by the clock of who gave them. */
static void role_keys_and_wrong_clocks(void **state)
{
    struct world *world = *state;

    world->wall_s = WALL_S + 24 * 3600;
    world->config.ram_role = "given-role";
    role_start(world);
    answer(world, "/latest/api/token", 200, "SECRETMETA");
    answer(world, "/ram/security-credentials/given-role", 200,
           ROLE_KEYS("STS.one", "2026-01-02T09:04:05Z"));
    round_with(world, "STS.one");
}

/* ---- refreshing ---- */

/* Keys of 20 s (ACR.md §9): refreshed after 10 s at the latest; when that fails the old ones are
 * used to their end, tries are 30 s apart, and then nothing is asked with them. */
static void failed_refreshes_keep_the_old_keys(void **state)
{
    struct world *world = *state;
    struct acr_counters counters;

    role_start(world);
    answer(world, "/latest/api/token", 200, "SECRETMETA");
    give_role(world, ROLE_KEYS("STS.one", "2026-01-02T03:09:05Z")); /* 300 s: margin 150 s */
    round_with(world, "STS.one");
    assert_in_range(seconds_to_next(world), 130, 151);
    answer(world, "/ram/security-credentials/", 500, "");
    settle(world);
    assert_non_null(strstr(world->fake.log, "; the old ones are still valid"));
    for (unsigned i = 0; i < 10; i++) {
        assert_in_range(seconds_to_next(world), 28, 30);
        answer(world, "/ram/security-credentials/", 500, "");
        settle(world);
    }
    assert_non_null(acr_find(world->acr, VPC_HOST));
    assert_in_range(seconds_to_next(world), 28, 30);
    give_role(world, ROLE_KEYS("STS.two", "2026-01-02T09:04:05Z"));
    acr_counters(world->acr, &counters);
    assert_int_equal(counters.refreshes, 1);
    assert_int_equal(counters.refreshes_failed, 11);
    settle(world);
    assert_true(seconds_to_next(world) > 60); /* the next round */
    round_with(world, "STS.two");
}

static void refused_tokens_are_replaced(void **state)
{
    struct world *world = *state;
    static const char *const codes[] = {
        FAILURE("InvalidSecurityToken.Expired"), FAILURE("InvalidSecurityToken.Malformed"),
        FAILURE("InvalidSecurityToken.MismatchWithAccessKey"), FAILURE("MissingSecurityToken")};

    role_start(world);
    answer(world, "/latest/api/token", 200, "SECRETMETA");
    give_role(world, ROLE_KEYS("STS.one", "2026-01-03T03:04:05Z"));
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        fake_answer(expect_key(world, "STS.one"), 200, DATE, LIST);
        answer(world, "GetInstanceVpcEndpoint", 400, codes[i]);
        give_role(world, ROLE_KEYS("STS.one", "2026-01-03T03:04:05Z"));
        round_with(world, "STS.one");
    }
}

/* ---- a pod's identity ---- */

static void rrsa_start(struct world *world)
{
    world->config.keys_from = ACR_KEYS_RRSA;
    world->file = " eyJSECRETJWT\n";
    start(world);
}

static void rrsa_in_one_account(void **state)
{
    struct world *world = *state;
    struct fake_call *call;

    rrsa_start(world);
    call = next_call(world, "Action=AssumeRoleWithOIDC");
    assert_string_equal(call->method, "POST");
    assert_non_null(strstr(call->url, "https://sts-vpc.cn-shanghai.aliyuncs.com/"
                                      "?Action=AssumeRoleWithOIDC&Format=JSON&Version=2015-04-01&"
                                      "Timestamp=2026-01-02T03%3A04%3A05Z&SignatureNonce="));
    assert_string_equal(call->body,
                        "RoleArn=acs%3Aram%3A%3A1%3Arole%2Fa&OIDCProviderArn=acs%3Aram%3A%3A1%"
                        "3Aoidc-provider%2Fp&OIDCToken=eyJSECRETJWT&RoleSessionName=p2p-agent&"
                        "DurationSeconds=3600");
    assert_null(fake_sent(call, "authorization", 0));
    assert_null(strstr(call->url, "AccessKeyId"));
    assert_string_equal(world->file_path, "/token");
    assert_false(world->file_secret); /* the kubelet's own modes */
    fake_answer(call, 200, DATE, STS_KEYS("STS.a", "2026-01-02T04:04:05Z"));
    round_with(world, "STS.a");
    /* An hour: a quarter of it before the end. */
    for (unsigned i = 0; i < 10; i++) {
        assert_true(turn_until(world, UINT64_MAX - 1));
        if (strstr(world->fake.calls[world->seen].url, "OIDC") != NULL)
            break;
        round_with(world, "STS.a");
    }
    assert_in_range(world->fake.now_us / SECOND_US, 2700 - 61, 2700);
    fake_done(next_call(world, "https://sts-vpc."), E_TIMEOUT);
    answer(world, "https://sts.cn-shanghai.aliyuncs.com/", 200,
           STS_KEYS("STS.b", "2026-01-02T05:04:05Z"));
    round_with(world, "STS.b");
}

static void rrsa_in_another_account(void **state)
{
    struct world *world = *state;
    struct fake_call *call;

    world->config.assume_role_arn = "acs:ram::2:role/b";
    world->config.assume_role_s = 43200;
    world->config.sts_host = "sts-vpc.cn-x.aliyuncs.com";
    rrsa_start(world);
    answer(world, "https://sts-vpc.cn-x.aliyuncs.com/?Action=AssumeRoleWithOIDC", 200,
           STS_KEYS("STS.a", "2026-01-02T04:04:05Z"));
    call = next_call(world, "AssumeRole");
    assert_string_equal(call->url, "https://sts-vpc.cn-x.aliyuncs.com/?DurationSeconds=43200&"
                                   "RoleArn=acs%3Aram%3A%3A2%3Arole%2Fb&RoleSessionName=p2p-agent");
    assert_string_equal(fake_sent(call, "x-acs-security-token", 0), "SECRETTOKENSTS.a");
    assert_string_equal(fake_sent(call, "x-acs-version", 0), "2015-04-01");
    fake_answer(call, 200, DATE, STS_KEYS("STS.b", "2026-01-02T15:04:05Z"));
    round_with(world, "STS.b");
}

/* With V1 both steps and the questions are forms. */
static void rrsa_with_older_signatures(void **state)
{
    struct world *world = *state;
    struct fake_call *call;

    world->config.assume_role_arn = "acs:ram::2:role/b";
    world->config.sts_url = "http://127.0.0.1:1";
    world->config.sign_v1 = true;
    rrsa_start(world);
    answer(world, "http://127.0.0.1:1/?Action=AssumeRoleWithOIDC", 200,
           STS_KEYS("STS.a", "2026-01-02T04:04:05Z"));
    call = next_call(world, "Action=AssumeRole&");
    assert_string_equal(call->url, "http://127.0.0.1:1/");
    assert_non_null(strstr(call->body, "&SecurityToken=SECRETTOKENSTS.a&"));
    fake_answer(call, 200, DATE, STS_KEYS("STS.b", "2026-01-02T15:04:05Z"));
    assert_non_null(strstr(next_call(world, "Action=ListInstanceEndpoint")->body,
                           "&SecurityToken=SECRETTOKENSTS.b&"));
}

static void ended_oidc_tokens_are_read_again_once(void **state)
{
    struct world *world = *state;

    rrsa_start(world);
    answer(world, "OIDCToken=eyJSECRETJWT&", 400, FAILURE("AuthenticationFail.OIDCToken.Expired"));
    world->file = "eyJSECRETNEW";
    answer(world, "OIDCToken=eyJSECRETNEW&", 400, FAILURE("AuthenticationFail.OIDCToken.Expired"));
    expect_why(world, "RRSA: the pod's token has ended and its file holds no newer one; "
                      "AssumeRoleWithOIDC: 400 AuthenticationFail.OIDCToken.Expired");
    assert_in_range(seconds_to_next(world), 28, 34);
    answer(world, "OIDCToken=eyJSECRETNEW&", 200, STS_KEYS("STS.a", "2026-01-02T04:04:05Z"));
    round_with(world, "STS.a");
}

static void rrsa_failures_are_explained(void **state)
{
    struct world *world = *state;

    rrsa_start(world);
    answer(world, "OIDC", 403, FAILURE("NoPermission"));
    expect_why(world, "RRSA: check the role's trust policy (provider, service account)");
    answer(world, "OIDC", 404, FAILURE("EntityNotExist.Role"));
    expect_why(world, "check rrsa.rrsaRoleARN");
    answer(world, "OIDC", 400,
           "{\"Code\":\"InvalidParameter.OIDCToken\",\"Message\":\"eyJSECRETJWT is bad\"}");
    expect_why(world, "InvalidParameter.OIDCToken");
    answer(world, "OIDC", 200, "{\"Credentials\":{}}");
    expect_why(world, "holds no credentials");
    answer(world, "OIDC", 200, STS_KEYS("STS.a", "2026-01-02T03:00:00Z"));
    expect_why(world, "have ended already");
    world->file = "\n";
    assert_false(turn_until(world, world->fake.now_us + 60 * SECOND_US));
    expect_why(world, "the token's file is empty: /token");
    world->file_err = E_NOT_FOUND;
    assert_false(turn_until(world, world->fake.now_us + 60 * SECOND_US));
    expect_why(world, "cannot open /token");
}

static void second_role_failures_are_explained(void **state)
{
    struct world *world = *state;
    static const struct {
        const char *body, *why;
        int status;
    } cases[] = {
        {FAILURE("NoPermission"), "check that rrsa.assumeRoleARN trusts the first role", 403},
        {FAILURE("EntityNotExist.Role"), "check rrsa.assumeRoleARN", 404},
        {FAILURE("InvalidParameter.DurationSeconds"),
         "rrsa.expireDuration 7200 is more than the role's maximum", 400},
    };

    world->config.assume_role_arn = "acs:ram::2:role/b";
    world->config.assume_role_s = 7200;
    rrsa_start(world);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        answer(world, "OIDC", 200, STS_KEYS("STS.a", "2026-01-02T04:04:05Z"));
        answer(world, "AssumeRole", cases[i].status, cases[i].body);
        expect_why(world, cases[i].why);
    }
}

/* Tokens have no fixed length: 16 KiB are taken, more is refused whole. */
static void long_tokens(void **state)
{
    struct world *world = *state;
    static char token[16 * 1024 + 2], body[20000];

    memset(token, 't', sizeof token - 1);
    memcpy(token, "SECRET", 6);
    for (unsigned i = 0; i < 2; i++) {
        token[16 * 1024 + i] = '\0';
        (void)snprintf(
            body, sizeof body,
            "{\"Credentials\":{\"AccessKeyId\":\"STS.a\",\"AccessKeySecret\":\"SECRETa\","
            "\"SecurityToken\":\"%s\",\"Expiration\":\"2026-01-02T04:04:05Z\"}}",
            token);
        token[16 * 1024 + i] = 't';
        if (world->acr == NULL)
            rrsa_start(world);
        answer(world, "OIDC", 200, body);
        if (i == 0) {
            fake_answer(expect_key(world, "STS.a"), 400, DATE,
                        FAILURE("InvalidSecurityToken.Expired"));
            continue;
        }
        expect_why(world, "holds no credentials: over the limit");
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(files_have_two_lines),
        TEST(unreadable_files_are_named),
        TEST(role_keys_are_fetched),
        TEST(role_keys_are_refreshed),
        TEST(role_failures_are_explained),
        TEST(role_keys_and_wrong_clocks),
        TEST(failed_refreshes_keep_the_old_keys),
        TEST(refused_tokens_are_replaced),
        TEST(rrsa_in_one_account),
        TEST(rrsa_in_another_account),
        TEST(rrsa_with_older_signatures),
        TEST(ended_oidc_tokens_are_read_again_once),
        TEST(rrsa_failures_are_explained),
        TEST(second_role_failures_are_explained),
        TEST(long_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
