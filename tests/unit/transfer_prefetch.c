/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers are brought in before they are asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "prefetch.h"

#define MIB   (1024ull * 1024)
#define S     1000000ull
#define ROOM  PREFETCH_BYTES_MAX
#define COUNT 20

static struct prefetch image;
static struct prefetch_layer layers[PREFETCH_LAYERS_MAX];
static uint64_t now_us;
/* What the steps made of it, as a host sees it. */
static bool reading[PREFETCH_LAYERS_MAX];
static unsigned used, unused;

static void open_image(uint32_t count, uint64_t layer_bytes)
{
    memset(layers, 0xaa, sizeof layers); /* only sizes are the caller's */
    memset(reading, 0, sizeof reading);
    used = unused = 0;
    now_us = 100 * S;
    for (uint32_t i = 0; i < count; i++)
        layers[i].size_bytes = layer_bytes;
    prefetch_init(&image, layers, count);
}

/* Takes all steps; a START must be of a layer that is not read, a STOP of one that is. */
static void take_steps(uint64_t room_bytes)
{
    struct prefetch_step step;
    while (prefetch_next(&image, now_us, room_bytes, &step)) {
        assert_true(step.layer < image.layer_count);
        assert_int_equal(reading[step.layer], step.kind == PREFETCH_STOP);
        reading[step.layer] = step.kind == PREFETCH_START;
        if (step.kind == PREFETCH_START) {
            assert_true(step.bytes > 0 && step.bytes <= room_bytes);
            room_bytes -= step.bytes;
        } else {
            *(step.state == PREFETCH_ASKED ? &used : &unused) += 1;
        }
    }
}

static void asks(uint32_t layer)
{
    prefetch_began(&image, now_us, layer);
    take_steps(ROOM);
}

static void ends(void)
{
    prefetch_ended(&image, now_us);
    take_steps(0);
}

/* Exactly these layers are being read ahead, as a mask. */
static void ahead(uint32_t mask)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < image.layer_count; i++)
        found |= reading[i] ? 1u << i : 0;
    assert_int_equal(found, mask);
}

static void nothing_before_a_client_asks(void **state)
{
    (void)state;
    open_image(COUNT, 100 * MIB);
    take_steps(ROOM);
    ahead(0);
    assert_false(prefetch_active(&image, now_us));
    assert_true(prefetch_deadline_us(&image) == UINT64_MAX);
    assert_int_equal(prefetch_ahead_bytes(&image), 0);
}

static void two_large_layers_ahead(void **state)
{
    (void)state;
    open_image(COUNT, 100 * MIB);
    asks(0);
    ahead(0x6);
    assert_int_equal(prefetch_ahead_bytes(&image), 200 * MIB);
    asks(1); /* it takes two at a time */
    ahead(0xc);
    assert_int_equal(used, 1);
    ends();
    asks(2);
    ahead(0x18);
    assert_int_equal(used, 2);
    assert_int_equal(unused, 0);
}

static void many_small_layers_ahead(void **state)
{
    (void)state;
    open_image(COUNT, 10 * MIB);
    asks(0);
    ahead(0x7e); /* 60 of 64 MiB */
    open_image(COUNT, 1000);
    asks(0);
    ahead(0x1fe); /* PREFETCH_AHEAD_MAX */
    layers[9].size_bytes = 500 * MIB;
    asks(1);
    ahead(0x1fc); /* not near enough for its size */
}

static void the_last_layers_end_it(void **state)
{
    (void)state;
    open_image(3, 100 * MIB);
    asks(1);
    ahead(0x4);
    asks(2);
    ahead(0);
    asks(0); /* late, and nothing follows from it */
    ahead(0);
}

/* The runtime holds it: it never asks. */
static void what_a_client_passes_over_is_let_go_of(void **state)
{
    (void)state;
    open_image(COUNT, 100 * MIB);
    asks(0);
    ahead(0x6);
    asks(2); /* 1 was passed, unless its request comes late */
    ahead(0x1a);
    assert_int_equal(used, 1);
    assert_true(prefetch_deadline_us(&image) == now_us + PREFETCH_PASSED_US);
    asks(1); /* it does */
    ahead(0x18);
    assert_int_equal(used, 2);
    asks(4);
    ahead(0x68);
    now_us += PREFETCH_PASSED_US - 1;
    take_steps(ROOM);
    ahead(0x68);
    now_us += 1;
    take_steps(ROOM);
    ahead(0x60);
    assert_int_equal(unused, 1);
    assert_true(prefetch_deadline_us(&image) == UINT64_MAX);
    asks(3); /* too late: the client reads it by itself */
    ahead(0x60);
    assert_int_equal(used, 3);
}

static void settled_layers_do_not_count(void **state)
{
    (void)state;
    open_image(COUNT, 100 * MIB);
    struct prefetch_step step;
    prefetch_began(&image, now_us, 0);
    assert_true(prefetch_next(&image, now_us, ROOM, &step));
    assert_int_equal(step.kind, PREFETCH_START);
    assert_int_equal(step.layer, 1);
    prefetch_settle(&image, 1); /* here already, or refused */
    take_steps(ROOM);
    ahead(0xc);
    asks(1); /* no STOP for what does not run */
    ahead(0xc);
    prefetch_settle(&image, 2); /* failed in the middle */
    reading[2] = false;
    asks(3);
    ahead(0x30);
    assert_int_equal(used, 1);
}

static void room_bounds_it(void **state)
{
    (void)state;
    open_image(COUNT, 100 * MIB);
    prefetch_began(&image, now_us, 0);
    take_steps(0);
    ahead(0);
    take_steps(PREFETCH_LEAST_BYTES - 1);
    ahead(0);
    take_steps(130 * MIB); /* all of one, a part of the next */
    ahead(0x6);
    assert_int_equal(prefetch_ahead_bytes(&image), 130 * MIB);
    asks(1);
    assert_int_equal(prefetch_ahead_bytes(&image), 130 * MIB); /* 30 of layer 2, all of 3 */
    ahead(0xc);
    assert_int_equal(prefetch_room(64 * MIB), 8 * MIB);
    assert_int_equal(prefetch_room(UINT64_MAX), PREFETCH_BYTES_MAX);
    assert_int_equal(prefetch_room(0), 0);
}

static void a_client_that_is_gone_ends_it(void **state)
{
    (void)state;
    open_image(COUNT, 100 * MIB);
    asks(0);
    now_us += 600 * S; /* a large layer, a slow link: it still reads */
    take_steps(ROOM);
    ahead(0x6);
    assert_true(prefetch_deadline_us(&image) == UINT64_MAX);
    ends();
    assert_true(prefetch_deadline_us(&image) == now_us + PREFETCH_IDLE_US);
    now_us += PREFETCH_IDLE_US - 1;
    take_steps(ROOM);
    ahead(0x6);
    now_us += 1;
    assert_false(prefetch_active(&image, now_us));
    take_steps(ROOM);
    ahead(0);
    assert_int_equal(unused, 2);
    assert_true(prefetch_deadline_us(&image) == UINT64_MAX);
    asks(0); /* a second pull is like the first */
    ahead(0x6);
}

/* The host's timer was late: the next pull finds a rule at rest all the same. */
static void rest_needs_no_timer(void **state)
{
    (void)state;
    open_image(COUNT, 100 * MIB);
    asks(5);
    ahead(0xc0);
    ends();
    now_us += PREFETCH_IDLE_US;
    asks(0);
    ahead(0x6);
    assert_int_equal(unused, 2);
}

static void an_image_of_one_layer(void **state)
{
    (void)state;
    open_image(1, 100 * MIB);
    asks(0);
    ends();
    ahead(0);
    open_image(0, 0);
    take_steps(ROOM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_before_a_client_asks),
        cmocka_unit_test(two_large_layers_ahead),
        cmocka_unit_test(many_small_layers_ahead),
        cmocka_unit_test(the_last_layers_end_it),
        cmocka_unit_test(what_a_client_passes_over_is_let_go_of),
        cmocka_unit_test(settled_layers_do_not_count),
        cmocka_unit_test(room_bounds_it),
        cmocka_unit_test(a_client_that_is_gone_ends_it),
        cmocka_unit_test(rest_needs_no_timer),
        cmocka_unit_test(an_image_of_one_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
