/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fixture of the ACR tests: an agent's cloud side over a scripted engine, in virtual time. At the
 * end of every test: nothing leaked, and no secret in the log (HRD-4): all secrets contain SECRET.
 */
#ifndef TEST_REGISTRY_ACR_WORLD_H
#define TEST_REGISTRY_ACR_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "acr.h"
#include "registry_fake.h"

#define WALL_S    UINT64_C(1767323045) /* 2026-01-02T03:04:05Z */
#define SECOND_US UINT64_C(1000000)
#define DATE      "date: Fri, 02 Jan 2026 03:04:05 GMT\n"
#define KEYS_FILE "LTAI5tTest\nSECRETKEY\n"
#define VPC       "vpc-uf6aa"
#define LIST_HEAD "{\"RequestId\":\"1\",\"Code\":\"success\",\"IsSuccess\":true,\"Endpoints\":["
#define PUBLIC(enable, status)                                                                     \
    "{\"EndpointType\":\"internet\",\"Enable\":" enable ",\"Status\":\"" status                    \
    "\",\"Domains\":[{\"Domain\":\"demo-registry.cn-shanghai.cr.aliyuncs.com\","                   \
    "\"Type\":\"SYSTEM\"}]}"
#define PRIVATE(enable, linked)                                                                    \
    "{\"EndpointType\":\"vpc\",\"Enable\":" enable ",\"Status\":\"RUNNING\",\"LinkedVpcs\":["      \
    "{\"VpcId\":\"" linked "\"}],\"Domains\":[{\"Domain\":\"img.example.com\",\"Type\":\"USER\"}," \
    "{\"Domain\":\"demo-registry-vpc.cn-shanghai.cr.aliyuncs.com\",\"Type\":\"SYSTEM\"}]}"
#define LIST LIST_HEAD PUBLIC("true", "RUNNING") "," PRIVATE("true", VPC) "]}"
#define LINK_OF(enable, linked, status)                                                            \
    "{\"Code\":\"success\",\"IsSuccess\":true,\"Enable\":" enable                                  \
    ",\"Domains\":[\"demo-registry-vpc.cn-shanghai.cr.aliyuncs.com\"],\"LinkedVpcs\":["            \
    "{\"VpcId\":\"" linked "\",\"Status\":\"" status "\",\"Issue\":\"\"}]}"
#define LINK          LINK_OF("true", VPC, "RUNNING")
#define VPC_HOST      "demo-registry-vpc.cn-shanghai.cr.aliyuncs.com"
#define PUBLIC_HOST   "demo-registry.cn-shanghai.cr.aliyuncs.com"
#define FAILURE(code) "{\"RequestId\":\"1\",\"Code\":\"" code "\",\"Message\":\"because\"}"
#define STS_KEYS(id, expires)                                                                      \
    "{\"Credentials\":{\"AccessKeyId\":\"" id "\",\"AccessKeySecret\":\"SECRET" id                 \
    "\",\"SecurityToken\":\"SECRETTOKEN" id "\",\"Expiration\":\"" expires "\"}}"
#define ROLE_KEYS(id, expires)                                                                     \
    "{\"AccessKeyId\":\"" id "\",\"AccessKeySecret\":\"SECRET" id                                  \
    "\",\"SecurityToken\":\"SECRETTOKEN" id "\",\"Expiration\":\"" expires                         \
    "\",\"Code\":\"Success\"}"

struct world {
    struct fake fake;
    struct acr *acr;
    struct acr_config config;
    struct acr_host host;
    uint64_t wall_s; /* at now_us 0 */
    const char *file;
    int file_err;
    unsigned file_reads;
    char file_path[256];
    bool file_secret;
    unsigned seen; /* calls that a test took */
    unsigned learnt;
};

static inline uint64_t world_wall(void *host)
{
    struct world *world = host;

    return world->wall_s + world->fake.now_us / SECOND_US;
}

static inline void world_timer(void *host, uint64_t delay_us)
{
    struct world *world = host;

    world->fake.timer_at_us = world->fake.now_us + delay_us;
}

static inline int world_read(void *host, const char *path, bool secret, struct acr_file *out)
{
    struct world *world = host;

    world->file_reads++;
    world->file_secret = secret;
    (void)snprintf(world->file_path, sizeof world->file_path, "%s", path);
    (void)snprintf(out->why, sizeof out->why, "cannot open %s", path);
    if (world->file_err == 0)
        (void)snprintf(out->bytes, out->room, "%s", world->file);
    return world->file_err;
}

static inline void world_learnt(void *host)
{
    struct world *world = host;

    world->learnt++;
}

static inline int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    fake_init(&world->fake, 3);
    world->fake.now_us = 0;
    world->wall_s = WALL_S;
    world->file = KEYS_FILE;
    world->host = (struct acr_host){world, world_timer, world_wall, world_read, world_learnt};
    world->config = (struct acr_config){.instances = {"cri-one"},
                                        .instance_count = 1,
                                        .region = "cn-shanghai",
                                        .vpc = VPC,
                                        .keys_from = ACR_KEYS_FILE,
                                        .access_key_file = "/keys",
                                        .ram_role = "",
                                        .role_arn = "acs:ram::1:role/a",
                                        .provider_arn = "acs:ram::1:oidc-provider/p",
                                        .token_file = "/token",
                                        .assume_role_arn = "",
                                        .assume_role_s = 3600,
                                        .sts_host = "",
                                        .cr_url = "",
                                        .sts_url = "",
                                        .metadata_url = ""};
    *state = world;
    return 0;
}

static inline int tear_down(void **state)
{
    struct world *world = *state;

    acr_free(world->acr);
    assert_int_equal(world->fake.allocations, 0);
    assert_null(strstr(world->fake.log, "SECRET"));
    assert_null(strstr(world->fake.log, "Signature="));
    free(world);
    return 0;
}

static inline void start(struct world *world)
{
    assert_int_equal(
        acr_new(&world->fake.env, &world->fake.engine, &world->host, &world->config, &world->acr),
        0);
}

/* Lets the timer fire, time moving on to it, until a call is made or it is `until_us` away. */
static inline bool turn_until(struct world *world, uint64_t until_us)
{
    struct fake *fake = &world->fake;

    for (unsigned i = 0; i < 1000 && fake->call_count == world->seen; i++) {
        if (fake->timer_at_us == FAKE_NONE || fake->timer_at_us > until_us)
            break;
        if (fake->now_us < fake->timer_at_us)
            fake->now_us = fake->timer_at_us;
        fake->timer_at_us = FAKE_NONE;
        acr_advance(world->acr, fake->now_us);
    }
    return fake->call_count > world->seen;
}

/* The next call; `what` is the action, or part of the URL. */
static inline struct fake_call *next_call(struct world *world, const char *what)
{
    struct fake_call *call;
    const char *action;

    assert_true(turn_until(world, UINT64_MAX - 1));
    call = &world->fake.calls[world->seen++];
    action = fake_sent(call, "x-acs-action", 0);
    if (action == NULL || strcmp(action, what) != 0)
        if (strstr(call->url, what) == NULL && strstr(call->body, what) == NULL)
            fail_msg("asked %s %s instead of %s", action == NULL ? "" : action, call->url, what);
    assert_true(call->live);
    return call;
}

static inline void answer(struct world *world, const char *what, int status, const char *body)
{
    fake_answer(next_call(world, what), status, DATE, body);
}

static inline void answer_instance(struct world *world)
{
    answer(world, "ListInstanceEndpoint", 200, LIST);
    answer(world, "GetInstanceVpcEndpoint", 200, LINK);
}

/* Runs until nothing is due within a minute's twentieth: a round has ended. */
static inline void settle(struct world *world)
{
    assert_false(turn_until(world, world->fake.now_us + SECOND_US));
}

static inline struct acr_view view_of(struct world *world, unsigned i)
{
    struct acr_view view = {.instance = ""};

    settle(world);
    assert_true(acr_at(world->acr, i, &view));
    return view;
}

static inline void expect_endpoint(struct world *world, const char *endpoint)
{
    assert_string_equal(view_of(world, 0).endpoint, endpoint);
}

static inline void expect_why(struct world *world, const char *part)
{
    struct acr_view view = view_of(world, 0);

    if (part[0] == '\0')
        assert_string_equal(view.why, "");
    else if (strstr(view.why, part) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", view.why, part);
}

/* Seconds until the next call is made. */
static inline uint64_t seconds_to_next(struct world *world)
{
    uint64_t before_us = world->fake.now_us;

    assert_true(turn_until(world, UINT64_MAX - 1));
    return (world->fake.now_us - before_us) / SECOND_US;
}

#endif
