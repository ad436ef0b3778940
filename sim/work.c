/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node can do in a second: its processor and its disk. Both are queues in order of arrival
 * that are never asked to run, only told of work: a queue is the one moment at which all it was
 * given is done, so each piece of work costs a few additions and no event.
 *
 * The processor is one queue that drains `cores` times as fast as one core, and beside it one for
 * the threads that own the sockets. Work on bytes that were coming in may have been done while they
 * came, when the queue was empty then.
 */
#include "host.h"

#include <stdlib.h>

#include "log.h"

#define NS_PER_US 1000
/* Threads that wait for the disk (the agent's workers). */
#define DISK_THREADS 4
/* Grain of the memory's clock, so that 32 bits reach far. */
#define TOUCH_BYTES (64 * 1024)

/* Work that keeps a queue busy for busy_ns, from `from_ns` on at the earliest, is over then. */
static uint64_t queue_up(uint64_t *free_ns, uint64_t from_ns, uint64_t busy_ns)
{
    *free_ns = (*free_ns > from_ns ? *free_ns : from_ns) + busy_ns;
    return *free_ns;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* cost_ns of one thread's time on any core; when it is done. */
static uint64_t any_core(struct sim_node *node, uint64_t from_ns, uint64_t cost_ns)
{
    uint32_t cores = node->world->config.cpu.cores;
    cost_ns = cost_ns * node->cpu_milli / 1000;
    uint64_t start_ns = later(node->cores_free_ns, from_ns);
    (void)queue_up(&node->cores_free_ns, from_ns, cost_ns / cores);
    return start_ns + cost_ns;
}

/* The same for what a thread of the sockets has to do. */
static uint64_t loop(struct sim_node *node, uint64_t from_ns, uint64_t cost_ns)
{
    uint32_t threads = node->world->config.cpu.loop_threads;
    uint64_t done_ns = any_core(node, from_ns, cost_ns);
    if (threads == 0)
        return done_ns;
    cost_ns = cost_ns * node->cpu_milli / 1000;
    uint64_t start_ns = later(node->loop_free_ns, from_ns);
    (void)queue_up(&node->loop_free_ns, from_ns, cost_ns / threads);
    return later(done_ns, start_ns + cost_ns);
}

static uint64_t cost_ns(uint64_t bytes, uint64_t ps)
{
    return bytes * ps / 1000;
}

static uint64_t disk_us(uint64_t bytes, uint64_t rate_bps)
{
    return rate_bps == 0 ? 0 : bytes * 1000000 / rate_bps;
}

/* So many bytes are read or written from now on: when they are. A disk that takes long for each
 * piece has one under way per thread. */
static uint64_t disk_ns(struct sim_node *node, uint64_t bytes, uint64_t rate_bps)
{
    uint64_t now_ns = node->world->now_us * NS_PER_US;
    uint64_t moving_ns = disk_us(bytes, rate_bps) * NS_PER_US;
    uint64_t wait_ns = node->disk_wait_us * NS_PER_US;
    if (moving_ns + wait_ns == 0)
        return now_ns;
    uint64_t done_ns = queue_up(&node->disk_free_ns, now_ns, moving_ns + wait_ns / DISK_THREADS);
    return done_ns + wait_ns - wait_ns / DISK_THREADS;
}

/* ---- memory over the disk ---- */

static bool memory_counts(const struct world_config *config)
{
    return config->cpu.cores > 0 || config->disk_read_bps > 0;
}

/* Pieces are kept by the bytes that were used since their last use: least recently used, but that
 * one used again counts twice. */
static void touch(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    const struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[blob];
    if (!memory_counts(&world->config))
        return;
    uint32_t count = world->layouts[blob].piece_count;
    if (mine->touched == NULL) {
        mine->touched = calloc(count, sizeof *mine->touched);
        ASSERT(mine->touched != NULL);
    }
    node->touch_clock += piece_length(&world->layouts[blob], piece) / TOUCH_BYTES + 1;
    mine->touched[piece] = node->touch_clock;
}

bool work_in_memory(const struct sim_node *node, uint32_t blob, uint32_t piece)
{
    const struct sim_blob *mine = &node->blobs[blob];
    if (mine->touched == NULL || mine->touched[piece] == 0)
        return !memory_counts(&node->world->config);
    uint64_t since = node->touch_clock - mine->touched[piece];
    return since * TOUCH_BYTES < node->world->config.memory_bytes;
}

/* A piece is wanted: read and verified unless it is in memory. When it is there. */
static uint64_t load_ns(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    const struct world_config *config = &node->world->config;
    uint64_t now_ns = node->world->now_us * NS_PER_US, done_ns = now_ns;
    bool here = work_in_memory(node, blob, piece);
    touch(node, blob, piece);
    if (here)
        return now_ns;
    uint64_t bytes = piece_length(&node->world->layouts[blob], piece);
    done_ns = disk_ns(node, bytes, config->disk_read_bps);
    if (config->cpu.cores == 0)
        return done_ns;
    uint64_t cost = cost_ns(bytes, (uint64_t)config->cpu.verify_ps + config->cpu.store_ps);
    return later(done_ns + cost, any_core(node, now_ns, cost));
}

/* ---- what is asked ---- */

static uint64_t wait_us(const struct sim_node *node, uint64_t until_ns)
{
    uint64_t until_us = (until_ns + NS_PER_US - 1) / NS_PER_US;
    return until_us > node->world->now_us ? until_us - node->world->now_us : 0;
}

uint64_t work_serve_us(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    const struct world_config *config = &node->world->config;
    if (!memory_counts(config))
        return 0;
    uint64_t ready_ns = load_ns(node, blob, piece);
    if (config->cpu.cores == 0)
        return wait_us(node, ready_ns);
    uint64_t cost = cost_ns(piece_length(&node->world->layouts[blob], piece), config->cpu.serve_ps);
    uint64_t done_ns = loop(node, node->world->now_us * NS_PER_US, cost);
    return wait_us(node, later(ready_ns, done_ns - cost)); /* sealed as it is sent */
}

uint64_t work_arrived_us(struct sim_node *node, const struct bulk *bulk, uint32_t bytes)
{
    const struct world_config *config = &node->world->config;
    const struct world_cpu *cpu = &config->cpu;
    uint64_t now_us = node->world->now_us, now_ns = now_us * NS_PER_US, done_ns = now_ns;
    touch(node, bulk->blob, bulk->piece);
    if (cpu->cores == 0) {
        done_ns += disk_us(bytes, config->verify_bps) * NS_PER_US * node->cpu_milli / 1000;
    } else {
        uint32_t ps = bulk->from == WORLD_ORIGIN ? cpu->origin_ps : cpu->receive_ps;
        uint64_t opening = cost_ns(bytes, ps);
        uint64_t hashing = cost_ns(bytes, (uint64_t)cpu->verify_ps + cpu->store_ps);
        uint64_t coming_ns = (now_us - bulk->began_us) * NS_PER_US;
        uint64_t lead_ns = opening < coming_ns ? opening : coming_ns;
        done_ns = later(now_ns, loop(node, now_ns - lead_ns, opening));
        done_ns = later(done_ns + hashing, any_core(node, now_ns, hashing));
    }
    uint64_t writing_ns = (disk_us(bytes, config->disk_write_bps) + node->disk_wait_us) * NS_PER_US;
    if (writing_ns > 0)
        done_ns = later(done_ns + writing_ns, disk_ns(node, bytes, config->disk_write_bps));
    return wait_us(node, done_ns);
}

bool work_read_fails(const struct sim_node *node, uint32_t blob, uint32_t piece)
{
    return node->disk == WORLD_DISK_READ_ERRORS && !work_in_memory(node, blob, piece) &&
           !keep_is_loose(node, blob, piece);
}

uint64_t work_read_us(struct sim_node *node, uint32_t blob, uint32_t piece, bool late)
{
    const struct world_config *config = &node->world->config;
    const struct world_cpu *cpu = &config->cpu;
    if (!memory_counts(config))
        return 0;
    uint64_t now_ns = node->world->now_us * NS_PER_US;
    uint64_t bytes = piece_length(&node->world->layouts[blob], piece);
    bool here = work_in_memory(node, blob, piece);
    uint64_t ready_ns = late ? load_ns(node, blob, piece) : now_ns;
    if (cpu->cores == 0)
        return wait_us(node, ready_ns);
    if (late && here) /* the blob's digest goes on over what came out of order */
        ready_ns = any_core(node, now_ns, cost_ns(bytes, cpu->verify_ps));
    uint64_t giving = cost_ns(bytes, cpu->client_ps);
    return wait_us(node, later(ready_ns + giving, loop(node, now_ns, giving)));
}

void work_dropped(struct sim_node *node, uint32_t bytes)
{
    const struct world_cpu *cpu = &node->world->config.cpu;
    if (cpu->cores > 0)
        (void)loop(node, node->world->now_us * NS_PER_US, cost_ns(bytes, cpu->receive_ps));
}

void work_message(struct sim_node *node)
{
    const struct world_cpu *cpu = &node->world->config.cpu;
    if (cpu->cores > 0)
        (void)loop(node, node->world->now_us * NS_PER_US, cpu->message_ns);
}

uint64_t work_handshake_us(struct sim_node *node, uint32_t took_us)
{
    if (node->world->config.cpu.cores == 0)
        return took_us;
    uint64_t now_ns = node->world->now_us * NS_PER_US;
    return wait_us(node, loop(node, now_ns, (uint64_t)took_us * NS_PER_US));
}

void work_stop(struct sim_node *node)
{
    node->cores_free_ns = node->loop_free_ns = node->disk_free_ns = 0;
}
