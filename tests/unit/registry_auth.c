/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's own login (ACL-7) and the tokens it is used for (ORG-4): only where the entry shares
 * it, only for who comes without credentials, only to https realms that are the registry's or
 * listed; one question per token; renewed before the end; what is refused is relayed.
 */
#include "registry_world.h"

#define BASIC_NODE "Basic bm9kZTpIVU5URVJTRUNSRVQ=" /* node:HUNTERSECRET */
#define BEARER                                                                                     \
    "www-authenticate: Bearer realm=\"https://auth.test/token\",service=\"registry.test\","        \
    "scope=\"repository:lib/bb:pull\"\n"
#define REALM       "https://auth.test/token?service=registry.test&scope=repository%3Alib%2Fbb%3Apull"
#define TOKEN(text) "{\"token\":\"" text "\",\"expires_in\":300}"

static unsigned finds;
static int find_err;
static struct fake_caller more[3];

static enum registry_login_kind kind;

static int find(void *host, const struct registry_entry *registry, struct registry_login *out)
{
    (void)host;
    finds++;
    assert_string_equal(registry->name, "registry.test");
    assert_string_equal(registry->credentials_file, "/etc/login");
    memset(out, 0, sizeof *out);
    out->kind = kind;
    if (kind == REGISTRY_LOGIN_PASSWORD) {
        (void)snprintf(out->user, sizeof out->user, "node");
        (void)snprintf(out->password, sizeof out->password, "HUNTERSECRET");
    } else {
        (void)snprintf(out->token, sizeof out->token, "ID+SECRET/1=");
    }
    return find_err;
}

static int set_up_shared(void **state)
{
    static const struct origin_logins logins = {.find = find};
    struct world *world;

    (void)set_up(state);
    world = *state;
    finds = 0;
    find_err = 0;
    kind = REGISTRY_LOGIN_PASSWORD;
    origin_set_logins(world->origin, &logins);
    world->entry.shared = true;
    (void)snprintf(world->entry.credentials_file, sizeof world->entry.credentials_file,
                   "/etc/login");
    (void)snprintf(world->entry.realm_hosts[0], sizeof world->entry.realm_hosts[0], "auth.test");
    world->request.authorization = NULL;
    memset(world->request.credential_hash, 0, 32);
    return 0;
}

static void again(struct world *world)
{
    caller_init(&world->caller, &world->fake, world->origin);
    start(world);
}

static const char *sent(struct world *world, unsigned i)
{
    return fake_sent(call(world, i), "Authorization", 0);
}

/* The first request of a repository: asked without, challenged, a token got, asked with it. */
static void get_token(struct world *world)
{
    start(world);
    assert_null(sent(world, 0));
    fake_answer(call(world, 0), 401, BEARER, "{}");
    assert_string_equal(call(world, 1)->url, REALM);
    assert_string_equal(sent(world, 1), BASIC_NODE);
    fake_answer(call(world, 1), 200, "", TOKEN("SECRET1"));
    assert_true(fake_turn(&world->fake, world->origin));
    assert_string_equal(call(world, 2)->url, HERE);
    assert_string_equal(sent(world, 2), "Bearer SECRET1");
    fake_answer(call(world, 2), 200, "", "0123456789");
    expect_done(world, 0);
}

static void a_token_is_got_and_kept_acl_7(void **state)
{
    struct world *world = *state;

    get_token(world);
    again(world);
    assert_string_equal(sent(world, 3), "Bearer SECRET1");
    fake_answer(call(world, 3), 200, "", "0123456789");
    expect_done(world, 0);
    assert_int_equal(origin_counters(world->origin)->tokens_asked, 1);
}

static void own_credentials_are_used_instead_acl_7(void **state)
{
    struct world *world = *state;

    get_token(world);
    world->request.authorization = "Bearer OWNSECRET";
    world->request.credential_hash[0] = 9;
    again(world);
    assert_string_equal(sent(world, 3), "Bearer OWNSECRET");
    fake_answer(call(world, 3), 401, BEARER, "{}");
    assert_int_equal(world->caller.status, 401);
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->fake.call_count, 4);
}

static void without_shared_nothing_is_used_acl_7(void **state)
{
    struct world *world = *state;

    world->entry.shared = false;
    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    assert_int_equal(world->caller.status, 401);
    assert_non_null(strstr(world->caller.headers, "auth.test"));
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->fake.call_count, 1);
    assert_int_equal(finds, 0);
}

/* The operator's own order reads with it all the same, and nobody else does. */
static void as_node_it_is_used_acl_7(void **state)
{
    struct world *world = *state;

    world->entry.shared = false;
    world->request.as_node = true;
    start(world);
    fake_answer(call(world, 0), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    assert_string_equal(sent(world, 1), BASIC_NODE);
    fake_answer(call(world, 1), 200, "", "0123456789");
    expect_done(world, 0);
    world->request.as_node = false;
    again(world);
    assert_null(sent(world, 2));
    assert_int_equal(finds, 1);
    fake_answer(call(world, 2), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    assert_int_equal(world->caller.status, 401);
    expect_done(world, E_ORIGIN);
}

/* Storage that a client names by its URL is not the registry (ORG-3). */
static void handed_urls_get_nothing_org_3(void **state)
{
    struct world *world = *state;

    world->request.url = "https://oss.test/data/1?Signature=SECRET";
    start(world);
    fake_answer(call(world, 0), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    while (world->caller.dones == 0)
        assert_true(fake_turn(&world->fake, world->origin));
    for (unsigned i = 0; i < world->fake.call_count; i++)
        assert_null(sent(world, i));
    assert_int_equal(finds, 0);
}

static void basic_goes_to_the_registry(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    assert_string_equal(sent(world, 1), BASIC_NODE);
    fake_answer(call(world, 1), 307, TO_STORE, "");
    assert_null(sent(world, 2)); /* ORG-3 */
    fake_answer(call(world, 2), 200, "", "0123456789");
    expect_done(world, 0);
    world->request.kind = ORIGIN_MANIFEST;
    world->request.path_and_query = "/v2/lib/bb/manifests/1";
    again(world);
    assert_string_equal(sent(world, 3), BASIC_NODE); /* known from the blob's challenge */
    fake_answer(call(world, 3), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    assert_int_equal(world->caller.status, 401); /* a wrong password is not tried twice */
    expect_done(world, E_ORIGIN);
}

/* Realms that get nothing: the client hears the registry's own challenge. */
static void other_realms_get_nothing_org_4(void **state)
{
    static const char *const realms[] = {
        "www-authenticate: Bearer realm=\"https://evil.test/token\",service=\"x\"\n",
        "www-authenticate: Bearer realm=\"http://auth.test/token\",service=\"x\"\n",
        "www-authenticate: Bearer realm=\"https://auth.test.evil.test/t\",service=\"x\"\n",
        "www-authenticate: Bearer realm=\"https://node@auth.test/t\",service=\"x\"\n",
        "www-authenticate: Digest realm=\"https://auth.test/t\"\n",
    };
    struct world *world = *state;

    for (unsigned i = 0; i < sizeof realms / sizeof realms[0]; i++) {
        unsigned first = world->fake.call_count;
        char path[32];

        (void)snprintf(path, sizeof path, "/v2/lib/r%u/blobs/x", i);
        world->request.path_and_query = path;
        again(world);
        fake_answer(call(world, first), 401, realms[i], "{}");
        fake_answer(call(world, first + 1), 401, realms[i], "{\"own\":1}");
        assert_null(sent(world, first + 1));
        assert_int_equal(world->caller.status, 401);
        expect_body(world, "{\"own\":1}");
        assert_int_equal(world->fake.call_count, first + 2);
    }
}

/* The same for an identity token; and it fits no Basic challenge. */
static void identity_tokens_go_nowhere_else_org_4(void **state)
{
    struct world *world = *state;

    kind = REGISTRY_LOGIN_IDENTITY;
    other_realms_get_nothing_org_4(state);
    unsigned first = world->fake.call_count;
    world->request.path_and_query = "/v2/lib/basic/blobs/x";
    again(world);
    fake_answer(call(world, first), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    assert_null(sent(world, first + 1));
    fake_answer(call(world, first + 1), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    expect_done(world, E_ORIGIN);
}

/* distribution's OAuth2 specification: a form, to the realm as it is. */
static void an_identity_token_is_exchanged(void **state)
{
    struct world *world = *state;

    kind = REGISTRY_LOGIN_IDENTITY;
    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    assert_string_equal(call(world, 1)->method, "POST");
    assert_string_equal(call(world, 1)->url, "https://auth.test/token");
    assert_null(sent(world, 1));
    assert_string_equal(fake_sent(call(world, 1), "Content-Type", 0),
                        "application/x-www-form-urlencoded");
    assert_string_equal(call(world, 1)->body,
                        "grant_type=refresh_token&client_id=shoal&service=registry.test&"
                        "scope=repository%3Alib%2Fbb%3Apull&refresh_token=ID%2BSECRET%2F1%3D");
    fake_answer(call(world, 1), 200, "",
                "{\"access_token\":\"SECRET1\",\"expires_in\":300,\"refresh_token\":\"NEW\"}");
    (void)fake_turn(&world->fake, world->origin);
    assert_string_equal(sent(world, 2), "Bearer SECRET1");
    fake_answer(call(world, 2), 200, "", "0123456789");
    expect_done(world, 0);
    again(world);
    assert_string_equal(sent(world, 3), "Bearer SECRET1");
    fake_answer(call(world, 3), 200, "", "0123456789");
    /* A file that has a password by now asks anew: tokens are kept per login. */
    kind = REGISTRY_LOGIN_PASSWORD;
    again(world);
    assert_string_equal(call(world, 4)->method, "GET");
    assert_string_equal(sent(world, 4), BASIC_NODE);
}

static void an_identity_token_may_be_refused(void **state)
{
    struct world *world = *state;

    kind = REGISTRY_LOGIN_IDENTITY;
    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    fake_answer(call(world, 1), 400, "", "{\"error\":\"invalid_grant\"}");
    (void)fake_turn(&world->fake, world->origin);
    assert_null(sent(world, 2));
    fake_answer(call(world, 2), 401, BEARER, "{\"own\":1}");
    expect_body(world, "{\"own\":1}");
    expect_done(world, E_ORIGIN);
    assert_int_equal(origin_counters(world->origin)->tokens_refused, 1);
    again(world); /* not tried with every request */
    assert_string_equal(call(world, 3)->url, HERE);
}

/* A registry token is shown to the registry alone: no realm is asked, listed or not. */
static void a_registry_token_is_sent_as_it_is(void **state)
{
    struct world *world = *state;

    kind = REGISTRY_LOGIN_BEARER;
    world->entry.realm_hosts[0][0] = '\0';
    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    assert_string_equal(call(world, 1)->url, HERE);
    assert_string_equal(sent(world, 1), "Bearer ID+SECRET/1=");
    fake_answer(call(world, 1), 307, TO_STORE, "");
    assert_null(sent(world, 2)); /* ORG-3 */
    fake_answer(call(world, 2), 200, "", "0123456789");
    expect_done(world, 0);
    world->request.kind = ORIGIN_MANIFEST;
    world->request.path_and_query = "/v2/lib/bb/manifests/1";
    again(world);
    assert_string_equal(sent(world, 3), "Bearer ID+SECRET/1=");
    fake_answer(call(world, 3), 401, BEARER, "{\"own\":1}"); /* its end came: once is enough */
    assert_int_equal(world->caller.status, 401);
    expect_done(world, E_ORIGIN);
    assert_int_equal(origin_counters(world->origin)->tokens_asked, 0);
}

static void plain_http_gets_no_password(void **state)
{
    struct world *world = *state;

    (void)snprintf(world->entry.endpoint, sizeof world->entry.endpoint, "http://registry.test");
    start(world);
    fake_answer(call(world, 0), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    assert_null(sent(world, 1));
    fake_answer(call(world, 1), 401, "www-authenticate: Basic realm=\"x\"\n", "{}");
    expect_done(world, E_ORIGIN);
    assert_int_equal(finds, 0);
}

/* Three requests of one repository wait for one token. */
static void one_question_for_all_who_wait(void **state)
{
    struct world *world = *state;

    start(world);
    for (unsigned i = 0; i < 3; i++) {
        caller_init(&more[i], &world->fake, world->origin);
        assert_int_equal(caller_start(&more[i], &world->request), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        fake_answer(call(world, i), 401, BEARER, "{}");
    assert_int_equal(world->fake.call_count, 5);
    origin_cancel(world->origin, more[2].fetch); /* whoever goes away leaves the others' token */
    fake_answer(call(world, 4), 200, "", TOKEN("SECRET1"));
    (void)fake_turn(&world->fake, world->origin);
    assert_int_equal(world->fake.call_count, 8);
    for (unsigned i = 5; i < 8; i++) {
        assert_string_equal(sent(world, i), "Bearer SECRET1");
        fake_answer(call(world, i), 200, "", "0123456789");
    }
    expect_done(world, 0);
    assert_true(more[0].dones == 1 && more[1].dones == 1 && more[2].dones == 0);
}

static void scopes_have_tokens_of_their_own(void **state)
{
    struct world *world = *state;

    get_token(world);
    world->request.path_and_query = "/v2/lib/cc/blobs/sha256:aa";
    again(world);
    assert_null(sent(world, 3));
    fake_answer(call(world, 3), 401,
                "www-authenticate: Bearer realm=\"https://auth.test/token\","
                "service=\"registry.test\",scope=\"repository:lib/cc:pull\"\n",
                "{}");
    assert_non_null(strstr(call(world, 4)->url, "lib%2Fcc"));
    fake_answer(call(world, 4), 200, "", TOKEN("SECRET2"));
    (void)fake_turn(&world->fake, world->origin);
    assert_string_equal(sent(world, 5), "Bearer SECRET2");
    fake_answer(call(world, 5), 200, "", "0123456789");
}

static void a_token_is_renewed_before_its_end(void **state)
{
    struct world *world = *state;

    get_token(world);
    world->fake.now_us += 230ull * 1000000;
    origin_advance(world->origin, world->fake.now_us);
    again(world);
    assert_string_equal(call(world, 3)->url, REALM); /* beside the request, which does not wait */
    assert_string_equal(sent(world, 4), "Bearer SECRET1");
    fake_answer(call(world, 4), 200, "", "0123456789");
    expect_done(world, 0);
    fake_answer(call(world, 3), 200, "", TOKEN("SECRET2"));
    (void)fake_turn(&world->fake, world->origin);
    again(world);
    assert_string_equal(sent(world, 5), "Bearer SECRET2");
    fake_answer(call(world, 5), 200, "", "0123456789");
}

static void a_token_at_its_end_is_waited_for(void **state)
{
    struct world *world = *state;

    get_token(world);
    world->fake.now_us += 295ull * 1000000;
    origin_advance(world->origin, world->fake.now_us);
    again(world);
    assert_int_equal(world->fake.call_count, 4); /* the realm's, and no 401 is needed for it */
    assert_string_equal(call(world, 3)->url, REALM);
    fake_answer(call(world, 3), 200, "", TOKEN("SECRET2"));
    (void)fake_turn(&world->fake, world->origin);
    assert_string_equal(sent(world, 4), "Bearer SECRET2");
    fake_answer(call(world, 4), 200, "", "0123456789");
}

/* Revoked before its time: dropped, and asked for anew, once. */
static void a_refused_token_is_replaced_once(void **state)
{
    struct world *world = *state;

    get_token(world);
    again(world);
    fake_answer(call(world, 3), 401, BEARER, "{}");
    assert_string_equal(call(world, 4)->url, REALM);
    fake_answer(call(world, 4), 200, "", TOKEN("SECRET2"));
    (void)fake_turn(&world->fake, world->origin);
    assert_string_equal(sent(world, 5), "Bearer SECRET2");
    fake_answer(call(world, 5), 401, BEARER, "{}");
    assert_int_equal(world->caller.status, 401);
    expect_done(world, E_ORIGIN);
    assert_int_equal(world->fake.call_count, 6);
}

/* A service that gives no token: the registry's challenge, and no second question for 5 s (O-2). */
static void a_refusal_is_relayed_and_remembered(void **state)
{
    static const struct {
        int status;
        const char *headers, *body;
    } answers[] = {{401, "", "{}"}, {200, "", "{\"token\":\"a b\"}"}, {307, TO_STORE, ""}};
    struct world *world = *state;

    for (unsigned i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        unsigned first = world->fake.call_count;

        again(world);
        if (i == 0)
            fake_answer(call(world, first++), 401, BEARER, "{}");
        assert_string_equal(call(world, first)->url, REALM);
        fake_answer(call(world, first), answers[i].status, answers[i].headers, answers[i].body);
        (void)fake_turn(&world->fake, world->origin);
        assert_null(sent(world, first + 1));
        fake_answer(call(world, first + 1), 401, BEARER, "{\"own\":1}");
        expect_body(world, "{\"own\":1}");
        expect_done(world, E_ORIGIN);
        again(world); /* at once: not asked again */
        assert_string_equal(call(world, first + 2)->url, HERE);
        fake_answer(call(world, first + 2), 401, BEARER, "{}");
        expect_done(world, E_ORIGIN);
        world->fake.now_us += 6000000;
        origin_advance(world->origin, world->fake.now_us);
    }
    assert_int_equal(origin_counters(world->origin)->tokens_refused, 3);
}

/* A silent service: the client has its answer in time, the service's host is not asked for ever. */
static void a_silent_service_costs_no_more_than_the_head(void **state)
{
    struct world *world = *state;
    uint64_t began_us = world->fake.now_us;

    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    while (world->caller.dones == 0)
        assert_true(fake_turn(&world->fake, world->origin));
    expect_done(world, E_TIMEOUT);
    assert_in_range(world->fake.now_us - began_us, 7900 * 1000, 8100 * 1000);
    while (call(world, 1)->live)
        assert_true(fake_turn(&world->fake, world->origin));
    assert_in_range(world->fake.now_us - began_us, 19900 * 1000, 20100 * 1000);
    assert_int_equal(origin_counters(world->origin)->tokens_refused, 1);
}

static void a_reply_over_its_limit_org_7(void **state)
{
    static const uint8_t block[32 * 1024];
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    fake_head(call(world, 1), 200, "", UINT64_MAX);
    for (unsigned i = 0; i < 4; i++)
        assert_true(fake_body(call(world, 1), block, sizeof block));
    fake_done(call(world, 1), 0);
    (void)fake_turn(&world->fake, world->origin);
    fake_answer(call(world, 2), 401, BEARER, "{}");
    expect_done(world, E_ORIGIN);
    assert_int_equal(origin_counters(world->origin)->tokens_refused, 1);
}

static void without_a_readable_file_it_goes_without(void **state)
{
    struct world *world = *state;

    find_err = E_CONFIG;
    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    assert_null(sent(world, 1));
    fake_answer(call(world, 1), 401, BEARER, "{}");
    expect_done(world, E_ORIGIN);
    find_err = 0; /* mended: counts at once */
    again(world);
    assert_string_equal(call(world, 2)->url, REALM);
    fake_done(call(world, 2), E_UNREACHABLE);
    (void)fake_turn(&world->fake, world->origin);
    fake_answer(call(world, 3), 200, "", "0123456789");
    expect_done(world, 0);
}

/* ORG-5: connections of the node's login are its own. */
static void pools_are_apart_org_5(void **state)
{
    struct world *world = *state;

    get_token(world);
    assert_memory_not_equal(call(world, 0)->pool_key, call(world, 1)->pool_key, 32);
    assert_memory_not_equal(call(world, 0)->pool_key, call(world, 2)->pool_key, 32);
    assert_memory_not_equal(call(world, 1)->pool_key, call(world, 2)->pool_key, 32);
}

static void running_questions_end_with_the_origin(void **state)
{
    struct world *world = *state;

    start(world);
    fake_answer(call(world, 0), 401, BEARER, "{}");
    origin_free(world->origin);
    assert_true(call(world, 1)->cancelled);
    assert_int_equal(
        origin_new(&world->fake.env, &world->fake.engine, &world->fake.timer, &world->origin), 0);
}

#define SHARED(name) cmocka_unit_test_setup_teardown(name, set_up_shared, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED(a_token_is_got_and_kept_acl_7),
        SHARED(own_credentials_are_used_instead_acl_7),
        SHARED(without_shared_nothing_is_used_acl_7),
        SHARED(as_node_it_is_used_acl_7),
        SHARED(handed_urls_get_nothing_org_3),
        SHARED(basic_goes_to_the_registry),
        SHARED(other_realms_get_nothing_org_4),
        SHARED(identity_tokens_go_nowhere_else_org_4),
        SHARED(an_identity_token_is_exchanged),
        SHARED(an_identity_token_may_be_refused),
        SHARED(a_registry_token_is_sent_as_it_is),
        SHARED(plain_http_gets_no_password),
        SHARED(one_question_for_all_who_wait),
        SHARED(scopes_have_tokens_of_their_own),
        SHARED(a_token_is_renewed_before_its_end),
        SHARED(a_token_at_its_end_is_waited_for),
        SHARED(a_refused_token_is_replaced_once),
        SHARED(a_refusal_is_relayed_and_remembered),
        SHARED(a_silent_service_costs_no_more_than_the_head),
        SHARED(a_reply_over_its_limit_org_7),
        SHARED(without_a_readable_file_it_goes_without),
        SHARED(pools_are_apart_org_5),
        SHARED(running_questions_end_with_the_origin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
