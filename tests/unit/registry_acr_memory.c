/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACR instances over a restart: what was found is in force again before the cloud's APIs answer,
 * and what a file says is believed only where it could have been found, lately, for this
 * configuration. No secret is in the text (HRD-4).
 */
#include "registry_acr_world.h"

#define HOUR_S UINT64_C(3600)
#define ENTRY(instance, region, vpc, at, endpoint, hosts)                                          \
    "{\"instance\":\"" instance "\",\"region\":\"" region "\",\"vpc\":\"" vpc                      \
    "\",\"answered\":" at ",\"endpoint\":\"" endpoint "\",\"throughVpc\":true,\"hosts\":[" hosts   \
    "]}"
#define MEMORY(entries) "{\"version\":1,\"instances\":[" entries "]}"
#define GOOD            ENTRY("cri-one", "cn-shanghai", VPC, "1767320000", "a.test", "\"a.test\",\"b.test\"")

static int recall(struct world *world, const char *text)
{
    return acr_recall(world->acr, text, strlen(text));
}

/* The text of a life in which everything was found; the caller frees it. */
static char *former_life(struct world *world)
{
    char *text = NULL, *copy;
    size_t bytes = 0;

    start(world);
    answer_instance(world);
    settle(world);
    assert_int_equal(world->learnt, 1);
    assert_int_equal(acr_remember(world->acr, &text, &bytes), 0);
    assert_null(memmem(text, bytes, "SECRET", 6));
    assert_null(memmem(text, bytes, "LTAI5t", 6));
    copy = strndup(text, bytes);
    (void)world->fake.env.alloc(world->fake.env.host, text, 0);
    acr_free(world->acr);
    world->acr = NULL;
    return copy;
}

static void an_instance_is_known_before_the_apis_answer(void **state)
{
    struct world *world = *state;
    char *text = former_life(world);
    const struct registry_entry *entry;
    struct acr_view view;

    world->wall_s += HOUR_S;
    start(world);
    assert_null(acr_find(world->acr, VPC_HOST));
    assert_int_equal(recall(world, text), 0);
    entry = acr_find(world->acr, "IMG.example.com");
    assert_non_null(entry);
    assert_string_equal(entry->endpoint, "https://" VPC_HOST);
    assert_true(entry->allow_private.count > 0);
    assert_string_equal(entry->storage[0],
                        "https://cri-one-registry.oss-cn-shanghai-internal.aliyuncs.com/docker/"
                        "registry/v2/blobs/");
    assert_non_null(acr_find(world->acr, PUBLIC_HOST));
    assert_true(acr_at(world->acr, 0, &view));
    assert_true(view.through_vpc && view.answered_us == 0 && view.host_count == 3);
    assert_non_null(strstr(view.why, "60 minutes ago"));
    free(text);
}

static void it_stays_in_force_while_they_are_away(void **state)
{
    struct world *world = *state;
    char *text = former_life(world);

    start(world);
    assert_int_equal(recall(world, text), 0);
    for (unsigned i = 0; i < 6; i++) /* both hosts of the API, three times */
        fake_done(next_call(world, "ListInstanceEndpoint"), E_UNREACHABLE);
    settle(world);
    assert_non_null(acr_find(world->acr, VPC_HOST));
    assert_int_equal(world->learnt, 1); /* nothing new is to be kept */
    free(text);
}

/* The APIs know better: another endpoint, other names. */
static void an_answer_replaces_it(void **state)
{
    struct world *world = *state;
    struct acr_view view;

    start(world);
    assert_int_equal(recall(world, MEMORY(GOOD)), 0);
    assert_non_null(acr_find(world->acr, "b.test"));
    answer_instance(world);
    view = view_of(world, 0);
    assert_string_equal(view.endpoint, "https://" VPC_HOST);
    assert_string_equal(view.why, "");
    assert_null(acr_find(world->acr, "b.test"));
    assert_int_equal(world->learnt, 1);
}

/* ... or that it is gone. That is kept, too. */
static void one_that_is_gone_is_forgotten(void **state)
{
    struct world *world = *state;
    char *text = NULL;
    size_t bytes = 0;

    start(world);
    assert_int_equal(recall(world, MEMORY(GOOD)), 0);
    answer(world, "ListInstanceEndpoint", 404, FAILURE("INSTANCE_NOT_EXIST"));
    settle(world);
    assert_null(acr_find(world->acr, "a.test"));
    assert_int_equal(world->learnt, 1);
    assert_int_equal(acr_remember(world->acr, &text, &bytes), 0);
    assert_null(memmem(text, bytes, "a.test", 6));
    (void)world->fake.env.alloc(world->fake.env.host, text, 0);
}

/* Each is well-formed, and not believed. */
static void what_does_not_fit_is_left_out(void **state)
{
    struct world *world = *state;
    static const char *const texts[] = {
        MEMORY(""),
        "{}",
        "{\"version\":2,\"instances\":[" GOOD "]}",
        MEMORY(ENTRY("cri-two", "cn-shanghai", VPC, "1767320000", "a.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-beijing", VPC, "1767320000", "a.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", "vpc-other", "1767320000", "a.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "1767323046", "a.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "1766718244", "a.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "-1", "a.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "\"x\"", "a.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "1767320000", "c.test", "\"a.test\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "1767320000", "a.test", "")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "1767320000", "a/b", "\"a/b\"")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "1767320000", "a.test", "\"a.test\",7")),
        MEMORY(ENTRY("cri-one", "cn-shanghai", VPC, "1767320000", "a.test",
                     "\"a.test\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\","
                     "\"11\",\"12\",\"13\",\"14\",\"15\",\"16\"")),
        MEMORY("7,[],null"),
    };

    start(world);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(recall(world, texts[i]), 0);
        assert_null(acr_find(world->acr, "a.test"));
        assert_null(acr_find(world->acr, "c.test"));
    }
    assert_int_equal(recall(world, MEMORY(GOOD)), 0); /* so it was not for another reason */
    assert_non_null(acr_find(world->acr, "a.test"));
    assert_int_equal(recall(world, MEMORY(GOOD "," GOOD)), 0); /* twice is once */
}

/* Two that name the same host: the first one has it, and the other is not kept without its own. */
static void a_name_is_of_one_instance(void **state)
{
    struct world *world = *state;
    char *text = NULL;
    size_t bytes = 0;

    world->config.instances[1] = "cri-two";
    world->config.instance_count = 2;
    start(world);
    assert_int_equal(
        recall(world, MEMORY(GOOD "," ENTRY("cri-two", "cn-shanghai", VPC, "1767320000", "a.test",
                                            "\"a.test\",\"c.test\""))),
        0);
    assert_non_null(acr_find(world->acr, "c.test"));
    assert_int_equal(acr_remember(world->acr, &text, &bytes), 0);
    assert_non_null(memmem(text, bytes, "cri-one", 7));
    assert_null(memmem(text, bytes, "cri-two", 7));
    (void)world->fake.env.alloc(world->fake.env.host, text, 0);
}

static void a_week_is_the_limit(void **state)
{
    struct world *world = *state;

    world->wall_s = 1767320000 + ACR_MEMORY_S;
    start(world);
    assert_int_equal(recall(world, MEMORY(GOOD)), 0);
    assert_non_null(acr_find(world->acr, "a.test"));
}

static void what_is_no_text_of_ours_is_an_error(void **state)
{
    struct world *world = *state;
    char *large = malloc(ACR_MEMORY_BYTES_MAX + 1);

    start(world);
    assert_int_equal(recall(world, ""), E_MALFORMED);
    assert_int_equal(recall(world, "[]"), E_MALFORMED);
    assert_int_equal(recall(world, "{\"version\":1}"), E_MALFORMED);
    assert_int_equal(recall(world, MEMORY(GOOD) "x"), E_MALFORMED);
    memset(large, ' ', ACR_MEMORY_BYTES_MAX + 1);
    assert_int_equal(acr_recall(world->acr, large, ACR_MEMORY_BYTES_MAX + 1), E_TOO_LARGE);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_instance_is_known_before_the_apis_answer, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(it_stays_in_force_while_they_are_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_answer_replaces_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_is_gone_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_is_of_one_instance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_week_is_the_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_text_of_ours_is_an_error, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
