/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sessions over a byte stream that arrives in random chunks, both ways at once, with random
 * record sizes and rekeys. Model: the plain bytes that went in, in order. SEED= replays.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "../unit/session_world.h"

#define ROUNDS       150
#define STREAM_BYTES (2 * RECORD_WIRE_BYTES_MAX)
#define SENT_MAX     (8 * 1024 * 1024)

/* One direction: what is on the wire, what the receiver holds, and what was sent in all. */
struct direction {
    struct session *from;
    struct session *to;
    uint8_t wire[4 * STREAM_BYTES];
    size_t wire_bytes;
    uint8_t inbox[STREAM_BYTES];
    size_t inbox_bytes;
    uint8_t *sent;
    size_t sent_bytes;
    size_t checked_bytes;
    unsigned rekeys;
};

static struct direction directions[2];

static uint64_t below(struct world *world, uint64_t bound)
{
    return prng_below(&world->prng, bound);
}

/* Small, near a power of two, or anything. */
static size_t record_size(struct world *world)
{
    switch (below(world, 4)) {
    case 0:
        return (size_t)below(world, 100);
    case 1:
        return ((size_t)1 << below(world, 17)) - (size_t)below(world, 2);
    case 2:
        return RECORD_BYTES_MAX - (size_t)below(world, 3);
    default:
        return (size_t)below(world, RECORD_BYTES_MAX + 1);
    }
}

static void put_handshake(struct direction *direction)
{
    size_t out_bytes = 0;
    const uint8_t *out = session_output(direction->from, &out_bytes);
    if (out_bytes == 0)
        return;
    memcpy(direction->wire + direction->wire_bytes, out, out_bytes);
    direction->wire_bytes += out_bytes;
    session_output_sent(direction->from, out_bytes);
}

static void put_record(struct world *world, struct direction *direction, uint64_t now_us)
{
    size_t plain_bytes = record_size(world);
    size_t out_bytes = 0;
    uint8_t *at = direction->wire + direction->wire_bytes;
    uint8_t *plain = direction->sent + direction->sent_bytes;
    if (sizeof direction->wire - direction->wire_bytes < RECORD_WIRE_BYTES_MAX ||
        direction->sent_bytes + plain_bytes > SENT_MAX)
        return;
    size_t head_bytes = (size_t)below(world, plain_bytes + 1);
    if (plain_bytes > 0)
        memset(plain, (int)below(world, 256), plain_bytes);
    for (size_t i = 0; i < plain_bytes; i += 97)
        plain[i] = (uint8_t)prng_next(&world->prng);
    assert_int_equal(session_seal(direction->from, now_us, plain, head_bytes, plain + head_bytes,
                                  plain_bytes - head_bytes, at, &out_bytes),
                     0);
    direction->rekeys += at[0] >> 7;
    direction->wire_bytes += out_bytes;
    direction->sent_bytes += plain_bytes;
}

/* Moves a random part of the wire into the inbox and lets the receiver take what it can. */
static void deliver(struct world *world, struct direction *direction, uint64_t now_us)
{
    size_t room = sizeof direction->inbox - direction->inbox_bytes;
    size_t most = direction->wire_bytes < room ? direction->wire_bytes : room;
    size_t moved = below(world, 3) == 0 ? most : (size_t)below(world, most + 1);
    memcpy(direction->inbox + direction->inbox_bytes, direction->wire, moved);
    memmove(direction->wire, direction->wire + moved, direction->wire_bytes - moved);
    direction->wire_bytes -= moved;
    direction->inbox_bytes += moved;
    size_t taken = 0;
    size_t consumed = 0;
    do {
        static uint8_t out[RECORD_BYTES_MAX];
        struct session_received got;
        const struct session_room collected = {
            out, below(world, 2) == 0 ? 0 : (size_t)below(world, sizeof out + 1)};
        assert_int_equal(session_receive_into(direction->to, now_us, direction->inbox + taken,
                                              direction->inbox_bytes - taken, collected, &got),
                         0);
        const uint8_t *plain = got.plain;
        size_t plain_bytes = got.plain_bytes;
        assert_true(plain_bytes == 0 || (plain == out) == (plain_bytes <= collected.byte_count));
        consumed = got.consumed;
        if (plain_bytes > 0) {
            assert_true(direction->checked_bytes + plain_bytes <= direction->sent_bytes);
            assert_memory_equal(plain, direction->sent + direction->checked_bytes, plain_bytes);
            direction->checked_bytes += plain_bytes;
        }
        taken += consumed;
    } while (consumed > 0);
    memmove(direction->inbox, direction->inbox + taken, direction->inbox_bytes - taken);
    direction->inbox_bytes -= taken;
}

static void step(struct world *world, uint64_t now_us)
{
    for (unsigned i = 0; i < 2; i++) {
        struct direction *direction = &directions[i];
        put_handshake(direction);
        size_t output_left = 0;
        (void)session_output(direction->from, &output_left);
        assert_int_equal(output_left, 0);
        if (session_state(direction->from) == SESSION_ESTABLISHED && below(world, 2) == 0)
            put_record(world, direction, now_us);
        deliver(world, direction, now_us);
    }
}

static void run(uint64_t seed)
{
    struct world world;
    struct side sides[2];
    uint64_t now_us = 1;
    world_init(&world, seed);
    world_sides(&world, sides);
    sides[0].config.aes = (enum session_aes)below(&world, 3);
    sides[1].config.aes = (enum session_aes)below(&world, 3);
    sides[0].config.rekey_bytes = 1 + below(&world, 1 << 20);
    sides[1].config.rekey_us = 1 + below(&world, 2000);
    assert_int_equal(world_open(&world, sides, now_us), 0);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *sent = directions[i].sent;
        memset(&directions[i], 0, sizeof directions[i]);
        directions[i].sent = sent;
        directions[i].from = sides[i].session;
        directions[i].to = sides[1 - i].session;
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        now_us += below(&world, 100);
        step(&world, now_us);
    }
    for (unsigned i = 0; i < 2; i++) {
        while (directions[i].wire_bytes > 0)
            deliver(&world, &directions[i], now_us);
        assert_int_equal(directions[i].inbox_bytes, 0);
        assert_int_equal(directions[i].checked_bytes, directions[i].sent_bytes);
        assert_true(directions[i].sent_bytes > 0);
    }
    assert_true(directions[1].rekeys > 0);
    world_close(sides);
    assert_int_equal(world.live, 0);
}

static void test_any_chunking_gives_the_same_bytes(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    for (unsigned i = 0; i < 2; i++) {
        directions[i].sent = malloc(SENT_MAX + RECORD_BYTES_MAX);
        assert_non_null(directions[i].sent);
    }
    for (unsigned i = 0; i < (text != NULL ? 1 : 40); i++) {
        printf("seed: %llu\n", (unsigned long long)(seed + i));
        run(seed + i);
    }
    for (unsigned i = 0; i < 2; i++)
        free(directions[i].sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_chunking_gives_the_same_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
