/* SPDX-License-Identifier: Apache-2.0 */
/* Turns of client requests: how many at once, in which order, who gives up, what comes after. The
 * server is stood in for by the functions below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "../../src/daemon/turns.h"

#define EXCHANGES_MAX 64

struct exchange {
    void (*gone)(void *arg);
    void *gone_arg;
    void (*end)(void *arg);
    void *end_arg;
    int begun;  /* place in the order of beginnings, from 1 */
    int status; /* 0: not answered */
    bool retry_after;
    bool at_once; /* the handler answers inside its call */
};

static struct exchange exchanges[EXCHANGES_MAX];
static struct loop loop;
static struct turns *turns;
static int begun, running, most_running;
static unsigned depth, deepest;

void exchange_on_gone(struct exchange *exchange, void (*gone)(void *arg), void *arg)
{
    exchange->gone = gone;
    exchange->gone_arg = arg;
}

void exchange_on_end(struct exchange *exchange, void (*end)(void *arg), void *arg)
{
    exchange->end = end;
    exchange->end_arg = arg;
}

static void over(struct exchange *exchange)
{
    void (*end)(void *arg) = exchange->end;
    exchange->end = NULL;
    if (exchange->begun > 0)
        running--;
    if (end != NULL)
        end(exchange->end_arg);
}

void response_add(struct response *response, const char *name, const char *value)
{
    response->headers[response->header_count++] = (struct fetch_header){name, value};
}

void exchange_respond(struct exchange *exchange, const struct response *response, const void *body,
                      size_t body_bytes)
{
    assert_true(body != NULL && body_bytes > 0);
    assert_int_equal(exchange->status, 0);
    exchange->status = response->status;
    exchange->gone = NULL;
    for (unsigned i = 0; i < response->header_count; i++)
        exchange->retry_after |= strcmp(response->headers[i].name, "Retry-After") == 0;
    over(exchange);
}

static void handle(void *arg, struct exchange *exchange)
{
    assert_ptr_equal(arg, &loop);
    exchange->begun = ++begun;
    running++;
    most_running = running > most_running ? running : most_running;
    depth++;
    deepest = depth > deepest ? depth : deepest;
    if (exchange->at_once) {
        exchange->status = 200;
        over(exchange);
    }
    depth--;
}

static void answer(unsigned i)
{
    exchanges[i].status = 200;
    exchanges[i].gone = NULL;
    over(&exchanges[i]);
}

/* The client goes away, as the server tells it: `gone` first, then the end. */
static void leave(unsigned i)
{
    void (*gone)(void *arg) = exchanges[i].gone;
    exchanges[i].gone = NULL;
    if (gone != NULL)
        gone(exchanges[i].gone_arg);
    over(&exchanges[i]);
}

static void open_turns(uint32_t parallel, uint64_t wait_us)
{
    struct loop_options options = {.log_level = LOG_ERROR, .log_fd = 2};
    memset(exchanges, 0, sizeof exchanges);
    begun = running = most_running = 0;
    depth = deepest = 0;
    assert_int_equal(loop_init(&loop, &options), 0);
    struct turns_config config = {.loop = &loop,
                                  .parallel_max = parallel,
                                  .wait_us = wait_us,
                                  .arg = &loop,
                                  .handle = handle};
    assert_int_equal(turns_new(&config, &turns), 0);
}

static void ask(unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++)
        turns_handle(turns, &exchanges[i]);
}

static void expect(uint32_t now_running, uint32_t waiting)
{
    assert_int_equal(turns_counters(turns)->running, now_running);
    assert_int_equal(turns_counters(turns)->waiting, waiting);
    assert_int_equal(running, now_running);
}

static void close_turns(void)
{
    loop_stop(&loop);
    assert_int_equal(loop_run(&loop), 0);
    turns_free(turns);
    loop_close(&loop);
}

static void so_many_at_once_in_order(void **state)
{
    (void)state;
    open_turns(3, 1000000);
    ask(0, 8);
    expect(3, 5);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(exchanges[i].begun, (int)i + 1);
        answer(i);
    }
    expect(0, 0);
    assert_int_equal(most_running, 3);
    assert_int_equal(turns_counters(turns)->waited, 5);
    assert_int_equal(turns_counters(turns)->late, 0);
    close_turns();
}

/* Who comes while others wait does not overtake them. */
static void late_comers_wait_behind(void **state)
{
    (void)state;
    open_turns(1, 1000000);
    ask(0, 2);
    exchanges[1].at_once = false;
    answer(0);
    assert_int_equal(exchanges[1].begun, 2);
    ask(2, 2);
    expect(1, 2);
    answer(1);
    assert_int_equal(exchanges[2].begun, 3);
    assert_int_equal(exchanges[3].begun, 0);
    answer(2);
    answer(3);
    expect(0, 0);
    close_turns();
}

static void clients_that_leave_make_room(void **state)
{
    (void)state;
    open_turns(1, 1000000);
    ask(0, 4);
    leave(2); /* it waited */
    expect(1, 2);
    leave(0); /* it had its turn */
    expect(1, 1);
    assert_int_equal(exchanges[1].begun, 2);
    assert_int_equal(exchanges[2].begun, 0);
    leave(3);
    leave(1);
    expect(0, 0);
    close_turns();
}

static void answers_inside_the_handler_cost_no_stack(void **state)
{
    (void)state;
    open_turns(1, 1000000);
    ask(0, 1);
    for (unsigned i = 1; i < EXCHANGES_MAX; i++)
        exchanges[i].at_once = true;
    ask(1, EXCHANGES_MAX - 1);
    expect(1, EXCHANGES_MAX - 1);
    answer(0);
    expect(0, 0);
    assert_int_equal(begun, EXCHANGES_MAX);
    assert_int_equal(deepest, 1);
    close_turns();
}

static void stop_soon(uv_timer_t *timer)
{
    uv_close((uv_handle_t *)timer, NULL);
    loop_stop(&loop);
}

/* HTTP-6: nobody hangs; and a turn that comes later goes to nobody who was told. */
static void who_waits_too_long_is_told(void **state)
{
    (void)state;
    open_turns(1, 20000);
    uv_timer_t timer;
    assert_int_equal(uv_timer_init(&loop.uv, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, stop_soon, 80, 0), 0);
    ask(0, 3);
    assert_int_equal(loop_run(&loop), 0);
    expect(1, 0);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(exchanges[i].status, 503);
        assert_true(exchanges[i].retry_after);
        assert_int_equal(exchanges[i].begun, 0);
    }
    assert_int_equal(turns_counters(turns)->late, 2);
    answer(0);
    expect(0, 0);
    turns_free(turns);
    loop_close(&loop);
}

/* Stopping: what waits is ended by its server, and nobody is let in any more. */
static void nobody_is_let_in_at_the_end(void **state)
{
    (void)state;
    open_turns(1, 1000000);
    ask(0, 2);
    loop_stop(&loop);
    assert_int_equal(loop_run(&loop), 0);
    leave(0);
    assert_int_equal(exchanges[1].begun, 0);
    leave(1);
    expect(0, 0);
    turns_free(turns);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_many_at_once_in_order),
        cmocka_unit_test(late_comers_wait_behind),
        cmocka_unit_test(clients_that_leave_make_room),
        cmocka_unit_test(answers_inside_the_handler_cost_no_stack),
        cmocka_unit_test(who_waits_too_long_is_told),
        cmocka_unit_test(nobody_is_let_in_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
