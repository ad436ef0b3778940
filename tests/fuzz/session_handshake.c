/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handshake of two sessions with a mutating middle, and of one session with a member that says what
 * it likes inside the encryption. Whoever reads anything but what the other wrote is never
 * established, and whoever is established knows the right peer.
 */
#include <stddef.h>
#include <stdint.h>

#include "../../src/session/intro.h"
#include "../../src/session/noise.h"
#include "../unit/session_world.h"
#include "log.h"
#include "session_script.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INBOX_MAX 8192

/* One side with what has reached it but is not taken yet. */
struct end {
    struct side *side;
    uint8_t inbox[INBOX_MAX];
    size_t inbox_bytes;
    bool tampered; /* something else reached it than the other sent, or in another order */
};

static struct world world;
static struct side sides[2];
static struct end ends[2];
static uint64_t now_us;

/* Lets a side take what it can. */
static void take(struct end *end, const struct end *other)
{
    struct session *session = end->side->session;
    size_t done = 0;
    size_t consumed = 1;
    while (consumed > 0 && session_state(session) != SESSION_FAILED) {
        const uint8_t *plain = NULL;
        size_t plain_bytes = 0;
        bool was_established = session_state(session) == SESSION_ESTABLISHED;
        int err = session_receive(session, now_us, end->inbox + done, end->inbox_bytes - done,
                                  &consumed, &plain, &plain_bytes);
        ASSERT(done + consumed <= end->inbox_bytes);
        ASSERT((err != 0) == (session_state(session) == SESSION_FAILED));
        ASSERT(!end->tampered || plain == NULL);
        if (!was_established && session_state(session) == SESSION_ESTABLISHED) {
            ASSERT(!end->tampered);
            ASSERT(memcmp(&session_peer(session)->key, &other->side->identity.public_key,
                          IDENTITY_KEY_BYTES) == 0);
        }
        done += consumed;
    }
    memmove(end->inbox, end->inbox + done, end->inbox_bytes - done);
    end->inbox_bytes -= done;
}

static void put(struct end *end, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count > INBOX_MAX - end->inbox_bytes) {
        byte_count = INBOX_MAX - end->inbox_bytes;
        end->tampered = true;
    }
    memcpy(end->inbox + end->inbox_bytes, bytes, byte_count);
    end->inbox_bytes += byte_count;
}

enum operation {
    PASS,
    CHANGE, /* one byte */
    DROP,
    CUT, /* only a part */
    ADD, /* bytes of the middle's own before it */
    WAIT,
    RECORD, /* the other side seals a record */
    OPERATIONS,
};

static size_t next_bytes(struct script *script, struct end *from, enum operation operation,
                         uint8_t out[INBOX_MAX])
{
    if (operation != RECORD)
        return world_take(from->side->session, out);
    size_t out_bytes = 0;
    uint8_t text[64] = {0};
    size_t output_left = 0;
    (void)session_output(from->side->session, &output_left);
    if (output_left > 0) /* handshake first */
        return world_take(from->side->session, out);
    size_t text_bytes = script_byte(script) % sizeof text;
    if (session_seal(from->side->session, now_us, text, text_bytes, NULL, 0, out, &out_bytes) != 0)
        return 0;
    return out_bytes;
}

static void step(struct script *script)
{
    uint8_t code = script_byte(script);
    struct end *from = &ends[code >> 7];
    struct end *to = &ends[1 - (code >> 7)];
    enum operation operation = (enum operation)((code & 0x7f) % OPERATIONS);
    uint8_t bytes[INBOX_MAX];
    uint8_t own[64];
    size_t byte_count = next_bytes(script, from, operation, bytes);
    size_t cut = script_number(script);
    if (operation == WAIT)
        now_us += (uint64_t)script_byte(script) * 20000;
    if (operation == CHANGE && byte_count > 0) {
        uint8_t change = script_byte(script);
        bytes[cut % byte_count] ^= change;
        to->tampered = to->tampered || change != 0;
    } else if ((operation == DROP || operation == CUT) && byte_count > 0) {
        byte_count = operation == DROP ? 0 : cut % byte_count;
        to->tampered = true;
    } else if (operation == ADD) {
        size_t own_bytes = script_bytes(script, own, sizeof own);
        to->tampered = to->tampered || own_bytes > 0;
        put(to, own, own_bytes);
    }
    put(to, bytes, byte_count);
    take(to, from);
}

static void run_middle(struct script *script)
{
    int err = world_open(&world, sides, now_us);
    ASSERT(err == 0);
    for (unsigned i = 0; i < 2; i++)
        ends[i] = (struct end){.side = &sides[i]};
    for (unsigned i = 0; i < 40 && script_more(script); i++)
        step(script);
    world_close(sides);
}

/* ---- a member that says what it likes ------------------------------------------------------ */

/* Payload: ours, with some bytes from the script laid over it, of any length. */
static size_t make_payload(struct script *script, uint8_t out[1100])
{
    struct intro intro;
    memset(out, 0, 1100);
    intro__own(&sides[0].identity, &sides[0].config.self_addr, &intro);
    intro__encode(&intro, out);
    size_t at = script_number(script) % 200;
    (void)script_bytes(script, out + at, 200);
    unsigned length = script_number(script);
    return length == 0 ? INTRO_BYTES : length % 1100;
}

static int say(struct noise *noise, struct script *script)
{
    uint8_t payload[1100];
    uint8_t message[WORLD_MESSAGE_MAX];
    size_t message_bytes = 0;
    size_t payload_bytes = make_payload(script, payload);
    int err = noise__write(noise, payload, payload_bytes, message + 2, sizeof message - 2,
                           &message_bytes);
    ASSERT(err == 0);
    store_be16(message, (uint16_t)message_bytes);
    return world_hand(sides[1].session, now_us, message, message_bytes + 2);
}

static void run_member(struct script *script)
{
    uint8_t prologue[] = {'s', 'h', 'o', 'a', 'l', WIRE_VERSION_MAJOR, 4, 't', 'e', 's', 't'};
    uint8_t ephemeral[32] = {7};
    uint8_t message[WORLD_MESSAGE_MAX];
    uint8_t payload[WORLD_MESSAGE_MAX];
    size_t payload_bytes = 0;
    struct noise noise;
    const struct noise_config config = {.initiator = true,
                                        .prologue = prologue,
                                        .prologue_bytes = sizeof prologue,
                                        .static_secret = sides[0].identity.static_secret,
                                        .static_public = sides[0].identity.static_public,
                                        .psk = sides[0].admission.secrets[0]};
    int err = world_open(&world, sides, now_us);
    ASSERT(err == 0);
    noise__init(&noise, &config);
    noise__set_ephemeral(&noise, ephemeral);
    if (say(&noise, script) == 0) {
        size_t message_bytes = world_take(sides[1].session, message);
        err = noise__read(&noise, message + 2, message_bytes - 2, payload, sizeof payload,
                          &payload_bytes);
        ASSERT(err == 0);
        if (say(&noise, script) == 0) {
            const struct session_peer *peer = session_peer(sides[1].session);
            ASSERT(memcmp(&peer->key, &sides[0].identity.public_key, sizeof peer->key) == 0);
            ASSERT(memcmp(peer->addr.ip, sides[0].config.self_addr.ip, 16) == 0);
        }
    }
    world_close(sides);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {data, size};
    world_init(&world, 1);
    if (sides[0].config.identity == NULL)
        world_sides(&world, sides);
    now_us = 1;
    if (script_byte(&script) % 2 == 0)
        run_middle(&script);
    else
        run_member(&script);
    ASSERT(world.live == 0);
    return 0;
}
