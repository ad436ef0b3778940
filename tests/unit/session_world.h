/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What session tests share: a host with seeded randomness and counted, failing allocations, nodes
 * with identities, and a pair of sessions that hand each other their bytes.
 */
#ifndef SHOAL_TESTS_SESSION_WORLD_H
#define SHOAL_TESTS_SESSION_WORLD_H

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "session.h"

struct world {
    struct prng prng;
    struct env env;
    uint64_t allocs;      /* calls that ask for memory */
    uint64_t live;        /* blocks not freed */
    uint64_t fail_at;     /* number of the allocation that fails; 0: none */
    bool fail_ever_after; /* and all later ones */
};

static inline void world_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct world *world = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&world->prng);
}

static inline void *world_alloc(void *host, void *old, size_t new_bytes)
{
    struct world *world = host;
    if (new_bytes == 0) {
        if (old != NULL)
            world->live--;
        free(old);
        return NULL;
    }
    world->allocs++;
    bool fail = world->fail_at != 0 && (world->allocs == world->fail_at ||
                                        (world->fail_ever_after && world->allocs > world->fail_at));
    void *block = fail ? NULL : realloc(old, new_bytes);
    if (block != NULL && old == NULL)
        world->live++;
    return block;
}

static inline void world_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

static inline void world_init(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    prng_seed(&world->prng, (const uint8_t *)&seed, sizeof seed);
    world->env = (struct env){
        .host = world, .random = world_random, .alloc = world_alloc, .trace = world_trace};
}

/* 10.0.0.`last`:65002 */
static inline struct peer_addr world_addr(uint8_t last)
{
    return (struct peer_addr){.ip = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = last},
                              .port = 65002};
}

static inline void world_admission(struct admission *admission, uint8_t secret)
{
    memset(admission, 0, sizeof *admission);
    memcpy(admission->cluster_id, "test", 5);
    memset(admission->secrets[0], secret, CLUSTER_SECRET_BYTES);
    admission->secret_count = 1;
}

/* One side of a TCP connection. */
struct side {
    struct identity identity;
    struct admission admission;
    struct session_config config;
    struct session *session;
};

/* Two nodes 10.0.0.1 (dials) and 10.0.0.2 of one cluster; sessions are not made yet. */
static inline void world_sides(struct world *world, struct side sides[2])
{
    for (unsigned i = 0; i < 2; i++) {
        identity_generate(&world->env, &sides[i].identity);
        world_admission(&sides[i].admission, 7);
        sides[i].session = NULL;
        sides[i].config = (struct session_config){
            .identity = &sides[i].identity,
            .admission = &sides[i].admission,
            .self_addr = world_addr((uint8_t)(i + 1)),
            .remote = world_addr((uint8_t)(2 - i)),
            .initiator = i == 0,
        };
    }
    sides[1].config.remote.port = 40000; /* the port that a dialling socket happens to have */
}

static inline int world_open(struct world *world, struct side sides[2], uint64_t now_us)
{
    for (unsigned i = 0; i < 2; i++) {
        int err = session_new(&world->env, &sides[i].config, now_us, &sides[i].session);
        if (err != 0)
            return err;
    }
    return 0;
}

static inline void world_close(struct side sides[2])
{
    for (unsigned i = 0; i < 2; i++) {
        session_free(sides[i].session);
        sides[i].session = NULL;
    }
}

#define WORLD_MESSAGE_MAX 4096
/* Takes all of a session's output; returns its length. */
static inline size_t world_take(struct session *session, uint8_t out[WORLD_MESSAGE_MAX])
{
    size_t out_bytes = 0;
    const uint8_t *bytes = session_output(session, &out_bytes);
    if (out_bytes > 0)
        memcpy(out, bytes, out_bytes);
    session_output_sent(session, out_bytes);
    return out_bytes;
}

/* Hands bytes to a session that must take them whole as handshake. Its error. */
static inline int world_hand(struct session *session, uint64_t now_us, uint8_t *bytes,
                             size_t byte_count)
{
    size_t consumed = 0;
    const uint8_t *plain = NULL;
    size_t plain_bytes = 0;
    return session_receive(session, now_us, bytes, byte_count, &consumed, &plain, &plain_bytes);
}

/* Carries output from one side to the other. 0 also when there is none. */
static inline int world_carry(struct side *from, struct side *to, uint64_t now_us)
{
    uint8_t message[WORLD_MESSAGE_MAX];
    size_t message_bytes = world_take(from->session, message);
    return message_bytes == 0 ? 0 : world_hand(to->session, now_us, message, message_bytes);
}

/* The three messages. 0 or the first error. */
static inline int world_shake(struct side sides[2], uint64_t now_us)
{
    int err = 0;
    for (unsigned i = 0; err == 0 && i < 3; i++)
        err = world_carry(&sides[i % 2], &sides[1 - i % 2], now_us);
    return err;
}

#endif
