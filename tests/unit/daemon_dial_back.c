/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting back: who is asked connects to the asking member's address alone, tells how it went,
 * and stays within its limits; who asks believes those that it asked, of this round.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/daemon/dial_back.h"
#include "../../src/daemon/node_internal.h"
#include "../../src/daemon/socket_addr.h"

#define SENT_MAX 64

static struct {
    struct loop loop;
    struct node node;
    struct dial_back *dial;
    struct wire_order sent[SENT_MAX];
    struct peer_addr to[SENT_MAX];
    unsigned sent_count;
    struct peer_addr open, shut; /* one listens, the other does not */
    int fd;
} world;

static int env_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct wire_order order;
    (void)host;
    if (wire_order_decode(msg, msg_bytes, &order) != 0)
        return 0; /* gossip's */
    assert_true(world.sent_count < SENT_MAX);
    world.sent[world.sent_count] = order;
    world.to[world.sent_count++] = *to;
    return 0;
}

static void env_random(void *host, uint8_t *out, size_t out_bytes)
{
    (void)host;
    memset(out, 7, out_bytes);
}

static void *env_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    return loop_alloc(NULL, old, new_bytes);
}

static void env_trace(void *host, enum log_level level, const char *line)
{
    (void)host, (void)level, (void)line;
}

static struct peer_addr local(uint16_t port)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}, .port = port};
    return addr;
}

static int begin(void **state)
{
    static const struct env env = {NULL, env_send, env_random, env_alloc, env_trace};
    struct loop_options options = {.log_level = LOG_ERROR, .log_fd = 2};
    struct mesh_config mesh = {.cluster_id = "unit", .self_addr = local(1)};
    struct peer_addr any = local(0);
    int fd = -1;
    (void)state;
    memset(&world, 0, sizeof world);
    assert_int_equal(loop_init(&world.loop, &options), 0);
    assert_int_equal(mesh_new(&env, &mesh, loop_now_us(&world.loop), &world.node.mesh), 0);
    world.node.loop = &world.loop;
    assert_int_equal(dial_back_new(&world.loop, &world.node, &world.dial), 0);
    assert_int_equal(socket_listen(&any, SOCK_STREAM, &world.fd, &world.open), 0);
    assert_int_equal(listen(world.fd, 64), 0);
    assert_int_equal(socket_listen(&any, SOCK_STREAM, &fd, &world.shut), 0);
    (void)close(fd);
    return 0;
}

static int end(void **state)
{
    (void)state;
    loop_stop(&world.loop);
    assert_int_equal(loop_run(&world.loop), 0);
    dial_back_free(world.dial);
    mesh_free(world.node.mesh);
    loop_close(&world.loop);
    (void)close(world.fd);
    return 0;
}

static void tell(unsigned type, uint8_t from, uint64_t serial, const struct peer_addr *addr,
                 enum wire_order_state state)
{
    struct mesh_order order = {.from = {{from}}, .addr = *addr};
    order.order = (struct wire_order){.type = type, .serial = serial};
    order.order.count = type == WIRE_ORDER_DIALLED;
    order.order.blobs[0].state = (uint8_t)state;
    dial_back_told(world.dial, &order);
}

/* Until so many were sent, or nothing more comes of it. */
static void run(unsigned wanted)
{
    for (unsigned i = 0; i < 1000 && world.sent_count < wanted; i++)
        (void)uv_run(&world.loop.uv, UV_RUN_NOWAIT);
    for (unsigned i = 0; i < 10; i++)
        (void)uv_run(&world.loop.uv, UV_RUN_NOWAIT);
}

static void who_is_asked_connects_and_tells(void **state)
{
    (void)state;
    tell(WIRE_ORDER_DIAL, 1, 70, &world.open, 0);
    run(1);
    tell(WIRE_ORDER_DIAL, 2, 80, &world.shut, 0);
    run(2);
    assert_int_equal(world.sent_count, 2);
    assert_int_equal(world.sent[0].type, WIRE_ORDER_DIALLED);
    assert_int_equal(world.sent[0].serial, 70);
    assert_int_equal(world.sent[0].blobs[0].state, WIRE_ORDER_DONE);
    assert_memory_equal(world.to[0].ip, world.open.ip, 16);
    assert_int_equal(world.to[0].port, world.open.port);
    assert_int_equal(world.sent[1].serial, 80);
    assert_int_equal(world.sent[1].blobs[0].state, WIRE_ORDER_FAILED);
    int fd = accept(world.fd, NULL, NULL);
    assert_true(fd >= 0);
    char byte;
    assert_int_equal(read(fd, &byte, 1), 0); /* it says nothing */
    (void)close(fd);
}

static void a_member_has_one_in_four_seconds(void **state)
{
    (void)state;
    tell(WIRE_ORDER_DIAL, 1, 70, &world.open, 0);
    tell(WIRE_ORDER_DIAL, 1, 70, &world.open, 0); /* under way */
    run(1);
    assert_int_equal(world.sent_count, 1);
    tell(WIRE_ORDER_DIAL, 1, 70, &world.open, 0); /* the answer was lost */
    assert_int_equal(world.sent_count, 2);
    tell(WIRE_ORDER_DIAL, 1, 71, &world.open, 0);
    run(3);
    assert_int_equal(world.sent_count, 2);
}

static void all_have_so_many(void **state)
{
    (void)state;
    for (uint8_t i = 1; i <= 9; i++)
        tell(WIRE_ORDER_DIAL, i, 70, &world.open, 0);
    run(9);
    assert_int_equal(world.sent_count, 4); /* at a time */
    for (uint8_t i = 101; i <= 140; i++) {
        tell(WIRE_ORDER_DIAL, i, 70, &world.open, 0);
        run(world.sent_count + 1);
    }
    assert_int_equal(world.sent_count, 16);
    struct dial_back_counters counters;
    dial_back_counters(world.dial, &counters);
    assert_int_equal(counters.reached, 16);
    assert_int_equal(counters.refused, 9 + 40 - 16);
}

static void who_asks_believes_those_it_asked(void **state)
{
    (void)state;
    static struct member members[5];
    struct dial_back_result result;
    dial_back_ask(world.dial, &result);
    assert_int_equal(result.asked, 0); /* nobody is there */
    assert_int_equal(world.sent_count, 0);
    for (unsigned i = 0; i < 5; i++) {
        members[i] = (struct member){
            .addr = local((uint16_t)(10 + i)), .incarnation = 1, .state = MEMBER_ALIVE};
        members[i].key.bytes[0] = (uint8_t)(i + 1);
        node_id_of("unit", &members[i].addr, &members[i].id);
    }
    assert_int_equal(mesh_seed_members(world.node.mesh, loop_now_us(&world.loop), members, 5), 0);
    dial_back_ask(world.dial, &result);
    assert_int_equal(result.asked, 0); /* the round lasts, in which nobody was there */
    world.loop.now_stale = false;
    world.loop.now_us += DIAL_BACK_ROUND_US;
    dial_back_ask(world.dial, &result);
    assert_int_equal(result.asked, DIAL_BACK_ASKED_MAX);
    assert_int_equal(world.sent_count, DIAL_BACK_ASKED_MAX);
    dial_back_ask(world.dial, &result); /* repeated only after a while */
    assert_int_equal(world.sent_count, DIAL_BACK_ASKED_MAX);
    uint64_t serial = world.sent[0].serial;
    struct mesh_order answer = {.addr = world.to[0]};
    node_id_of("unit", &world.to[0], &answer.from);
    answer.order =
        (struct wire_order){.type = WIRE_ORDER_DIALLED, .serial = serial + 1, .count = 1};
    answer.order.blobs[0].state = WIRE_ORDER_FAILED;
    dial_back_told(world.dial, &answer);                                /* of another round */
    tell(WIRE_ORDER_DIALLED, 99, serial, &world.open, WIRE_ORDER_DONE); /* of who was not asked */
    dial_back_ask(world.dial, &result);
    assert_int_equal(result.reached + result.failed, 0);
    answer.order.serial = serial;
    dial_back_told(world.dial, &answer);
    dial_back_ask(world.dial, &result);
    assert_int_equal(result.reached, 0);
    assert_int_equal(result.failed, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_is_asked_connects_and_tells, begin, end),
        cmocka_unit_test_setup_teardown(a_member_has_one_in_four_seconds, begin, end),
        cmocka_unit_test_setup_teardown(all_have_so_many, begin, end),
        cmocka_unit_test_setup_teardown(who_asks_believes_those_it_asked, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
