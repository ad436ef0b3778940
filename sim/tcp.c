/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a connection costs beyond its share of the links: slow start (RFC 5681 §3.1 with the initial
 * window of RFC 6928, doubled each round trip), the window's decay while idle (RFC 2861), new
 * connections to the origin, and the origin's limit of requests.
 *
 * Slow start is not simulated round by round: the time that it loses against the full rate has a
 * closed form, and delays the bytes.
 */
#include "host.h"
#include "log.h"

/* Idle connections to the origin that a node keeps, and how long (registry: fetch_curl_pool.c). */
#define ORIGIN_IDLE_US 60000000
/* TCP and TLS 1.3 (RFC 8446 §2), each one round trip. */
#define ORIGIN_HANDSHAKE_LATENCIES 4

/* RFC 2861 halves the window for each retransmission time-out without a byte: Linux' is the round
 * trip and at least 200 ms. */
static void decay(const struct world_config *config, struct tcp_window *window,
                  const struct tcp_burst *burst)
{
    uint64_t timeout_us = config->tcp_idle_us + burst->round_us;
    if (window->bytes < config->tcp_initial_bytes)
        window->bytes = config->tcp_initial_bytes;
    if (config->tcp_idle_us == 0)
        return;
    for (uint64_t idle_us = burst->now_us - window->used_us;
         idle_us >= timeout_us && window->bytes > config->tcp_initial_bytes; idle_us -= timeout_us)
        window->bytes /= 2;
    if (window->bytes < config->tcp_initial_bytes)
        window->bytes = config->tcp_initial_bytes;
}

uint64_t tcp_delay_us(const struct world_config *config, struct tcp_window *window,
                      const struct tcp_burst *burst)
{
    if (config->tcp_initial_bytes == 0)
        return 0;
    decay(config, window, burst);
    window->used_us = burst->now_us;
    uint64_t full_bytes = burst->rate_bps * burst->round_us / 1000000;
    uint64_t left = burst->bytes, delay_us = 0;
    while (window->bytes < full_bytes && window->bytes < left) {
        delay_us += burst->round_us - window->bytes * 1000000 / burst->rate_bps;
        left -= window->bytes;
        window->bytes *= 2;
    }
    if (window->bytes < full_bytes) /* what was acknowledged of the last round */
        window->bytes += left;
    return delay_us;
}

/* ---- the origin's connections and requests ---- */

static bool take_idle(struct sim_node *node, struct tcp_window *out)
{
    uint64_t now_us = node->world->now_us;
    while (node->origin_idle_count > 0) {
        *out = node->origin_idle[--node->origin_idle_count]; /* the one used last */
        if (now_us - out->used_us < ORIGIN_IDLE_US)
            return true;
        node->origin_idle_count = 0; /* the others are older */
    }
    return false;
}

void origin_keep(struct sim_node *node, struct tcp_window window)
{
    window.used_us = node->world->now_us;
    if (node->origin_idle_count == ORIGIN_IDLE_MAX)
        return;
    node->origin_idle[node->origin_idle_count++] = window;
}

static uint64_t first_byte_us(struct world *world)
{
    const struct world_config *config = &world->config;
    uint64_t spread_us = config->origin_first_byte_spread_us;
    return config->origin_first_byte_us + (spread_us > 0 ? prng_below(&world->prng, spread_us) : 0);
}

uint64_t origin_request_us(struct sim_node *node, uint64_t bytes, struct tcp_window *window)
{
    struct world *world = node->world;
    const struct world_config *config = &world->config;
    uint64_t round_us = world__queue_us(world, node->index, WORLD_ORIGIN) +
                        world__queue_us(world, WORLD_ORIGIN, node->index);
    uint64_t wait_us = first_byte_us(world) + round_us;
    *window = (struct tcp_window){.used_us = world->now_us};
    if (!take_idle(node, window))
        wait_us += ORIGIN_HANDSHAKE_LATENCIES * config->origin_latency_us +
                   ORIGIN_HANDSHAKE_LATENCIES / 2 * round_us +
                   work_handshake_us(node, config->cpu.tls_us);
    uint64_t rate_bps = config->origin_bps < node->down_bps ? config->origin_bps : node->down_bps;
    if (config->origin_conn_bps > 0 && config->origin_conn_bps < rate_bps)
        rate_bps = config->origin_conn_bps;
    struct tcp_burst burst = {.rate_bps = rate_bps,
                              .round_us = 2 * config->origin_latency_us,
                              .bytes = bytes,
                              .now_us = world->now_us};
    return wait_us + tcp_delay_us(config, window, &burst);
}

bool origin_admits(struct world *world)
{
    uint64_t rate = world->config.origin_requests_per_s;
    if (rate == 0)
        return true;
    uint64_t burst = world->config.origin_requests_burst;
    uint64_t full_us = (burst == 0 ? rate : burst) * 1000000 / rate;
    /* A bucket as the time at which it would be full: each request moves it by its share. */
    if (world->origin_full_us < world->now_us)
        world->origin_full_us = world->now_us;
    uint64_t each_us = 1000000 / rate;
    if (world->origin_full_us + each_us > world->now_us + full_us)
        return false;
    world->origin_full_us += each_us;
    return true;
}
