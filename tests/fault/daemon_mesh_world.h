/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes with real sockets on loopback in one process, and a blob in memory that they move, for the
 * tests of the mesh port. Time is real but bounded by LIMIT_MS per wait.
 */
#ifndef SHOAL_TESTS_DAEMON_MESH_WORLD_H
#define SHOAL_TESTS_DAEMON_MESH_WORLD_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit/daemon_scratch.h"
#include "bytes.h"
#include "digest.h"
#include "../../src/daemon/net.h"
#include "../../src/daemon/node_internal.h"
#include "../../src/daemon/peerlink.h"
#include "../../src/daemon/secret_file.h"

#define LIMIT_MS   8000
#define SIDES      3
#define BLOB_BYTES (5U * 1024 * 1024 + 12345)
#define HELD_MAX   64

struct side {
    struct config config;
    struct buffer_pool *pool;
    struct node *node;
    struct blob_info blob;
    blob_handle handle;
    uint8_t *bytes;    /* what it has or has got */
    uint32_t received; /* pieces */
    uint32_t vouched;
    bool mute; /* answer no upload */
    bool hold; /* keep arrived buffers: a disk that stands still */
    struct buffer *held[HELD_MAX];
    struct node_piece held_piece[HELD_MAX];
    uint32_t held_count;
    bool complete;
};

static struct loop loop;
static struct side sides[SIDES];
static const char *secret_path;
static uint8_t content[BLOB_BYTES];

/* ---- running ---- */

static inline bool run_until(bool (*done)(void))
{
    uint64_t limit_ns = uv_hrtime() + LIMIT_MS * 1000000ULL;
    while (!done()) {
        if (uv_hrtime() > limit_ns)
            return false;
        (void)uv_run(&loop.uv, UV_RUN_ONCE); /* the loop's heart bounds the wait */
    }
    return true;
}

static inline void run_ms(uint64_t ms)
{
    uint64_t limit_ns = uv_hrtime() + ms * 1000000ULL;
    while (uv_hrtime() < limit_ns) {
        (void)uv_run(&loop.uv, UV_RUN_NOWAIT);
        struct timespec pause = {0, 1000000};
        (void)nanosleep(&pause, NULL);
    }
}

/* ---- handlers: a blob in memory ---- */

static inline void on_upload(void *host, const struct transfer_result *result)
{
    struct side *side = host;
    const struct piece_layout *layout =
        transfer_blob_layout(node_transfer(side->node), result->blob);
    assert_non_null(layout);
    if (side->mute)
        return;
    uint32_t bytes = piece_length(layout, result->piece);
    struct buffer *buffer = buffer_get(side->pool, bytes, BUFFER_FOR_LOCAL);
    assert_non_null(buffer);
    memcpy(buffer->bytes, side->bytes + piece_offset(layout, result->piece), bytes);
    buffer->used = bytes;
    struct voucher voucher = {
        .signer = *node_self_id(side->node), .piece_index = result->piece, .piece_bytes = bytes};
    piece_hash_of(buffer->bytes, bytes, &voucher.hash);
    voucher_sign(node_identity(side->node), &result->key, &voucher);
    node_upload_ready(side->node, result->id, 0, buffer, &voucher);
}

static inline void store(struct side *side, const struct node_piece *piece, struct buffer *buffer)
{
    struct transfer *transfer = node_transfer(side->node);
    const struct piece_source source = {.origin = PIECE_FROM_PEER, .peer = piece->peer};
    struct piece_hash hash;
    const struct piece_layout *layout = transfer_blob_layout(transfer, piece->blob);
    piece_hash_of(buffer->bytes, buffer->used, &hash);
    bool good = piece->vouched && voucher_verify(&piece->key, &piece->voucher) == 0 &&
                memcmp(&hash, &piece->voucher.hash, sizeof hash) == 0;
    if (good)
        side->vouched++;
    memcpy(side->bytes + piece_offset(layout, piece->piece), buffer->bytes, buffer->used);
    buffer_put(buffer);
    transfer_piece_done(transfer, loop_now_us(&loop), piece->blob, piece->piece, &source, 0);
}

static inline void on_piece(void *host, const struct node_piece *piece, struct buffer *buffer)
{
    struct side *side = host;
    side->received++;
    if (!side->hold) {
        store(side, piece, buffer);
        return;
    }
    assert_true(side->held_count < HELD_MAX);
    side->held_piece[side->held_count] = *piece;
    side->held[side->held_count++] = buffer;
}

static inline void on_complete(void *host, const struct transfer_result *result)
{
    struct side *side = host;
    (void)result;
    side->complete = true;
}

/* ---- making ---- */

/* `extra` is one more key=value, or NULL. */
static inline struct node *node_with(unsigned index, const char *address, const char *secret,
                                     const char *extra)
{
    char set[4][300];
    struct config_error error = {""};
    struct side *side = &sides[index];
    struct config_options options = {.set_count = 4};
    (void)snprintf(set[0], sizeof set[0], "listen.mesh=%s", address);
    (void)snprintf(set[1], sizeof set[1], "dataDir=%s/%u", scratch_directory, index);
    (void)snprintf(set[2], sizeof set[2], "clusterSecretFile=%s", secret);
    (void)snprintf(set[3], sizeof set[3], "log.level=error");
    for (unsigned i = 0; i < 4; i++)
        options.sets[i] = set[i];
    if (extra != NULL)
        options.sets[options.set_count++] = extra;
    options.file = scratch_file("none.yaml", "", 0600);
    assert_int_equal(config_load(&options, &side->config, &error), 0);
    (void)mkdir(side->config.data_dir.text, 0700);
    if (side->pool == NULL)
        assert_int_equal(buffer_pool_new(64U << 20, &side->pool), 0);
    const struct node_handlers handlers = {
        .host = side, .upload = on_upload, .piece = on_piece, .blob_complete = on_complete};
    int err = node_new(&loop, &side->config, side->pool, &handlers, &side->node, &error);
    if (err != 0)
        print_error("%s\n", error.text);
    assert_int_equal(err, 0);
    return side->node;
}

static inline struct node *node_at(unsigned index, const char *address, const char *secret)
{
    return node_with(index, address, secret, NULL);
}

static inline void join(unsigned from, unsigned to)
{
    gossip_join(node_gossip(sides[from].node), loop_now_us(&loop), node_self_addr(sides[to].node),
                1);
}

static inline bool joined(void)
{
    return gossip_count(node_gossip(sides[0].node)) >= 2 &&
           gossip_count(node_gossip(sides[1].node)) >= 2;
}

static inline void open_blob(unsigned index, bool full)
{
    struct side *side = &sides[index];
    struct piece_layout layout;
    struct bitfield have;
    side->blob.size_bytes = BLOB_BYTES;
    digest_of(DIGEST_SHA256, content, sizeof content, &side->blob.digest);
    blob_key_of(node_lookup_key(side->node), &side->blob.digest, &side->blob.key);
    side->bytes = loop_alloc(NULL, NULL, BLOB_BYTES);
    assert_non_null(side->bytes);
    memset(side->bytes, 0, BLOB_BYTES);
    assert_int_equal(piece_layout_of(BLOB_BYTES, &layout), 0);
    assert_int_equal(bitfield_init(&have, &loop.env, layout.piece_count), 0);
    for (uint32_t i = 0; full && i < layout.piece_count; i++)
        (void)bitfield_set(&have, i);
    if (full)
        memcpy(side->bytes, content, BLOB_BYTES);
    assert_int_equal(transfer_blob_open(node_transfer(side->node), loop_now_us(&loop), &side->blob,
                                        &have, &side->handle),
                     0);
    bitfield_close(&have, &loop.env);
}

static inline void read_all(unsigned index)
{
    uint64_t reader = 0;
    struct side *side = &sides[index];
    const struct piece_layout *layout =
        transfer_blob_layout(node_transfer(side->node), side->handle);
    assert_int_equal(transfer_read_start(node_transfer(side->node), loop_now_us(&loop),
                                         side->handle, 0, layout->piece_count, TRANSFER_READ_STREAM,
                                         false, &reader),
                     0);
}

static inline uint32_t open_links(unsigned index)
{
    struct node_link_view views[16];
    uint32_t count = 0;
    size_t found = node_links(sides[index].node, views, 16);
    for (size_t i = 0; i < found; i++)
        count += views[i].established ? 1 : 0;
    return count;
}

static inline struct node_counters counters(unsigned index)
{
    struct node_counters out;
    node_counters(sides[index].node, &out);
    return out;
}

/* ---- set-up ---- */

static inline int make(void **state)
{
    (void)state;
    static const struct loop_options options = {.log_fd = 2, .log_level = LOG_ERROR};
    memset(sides, 0, sizeof sides);
    return loop_init(&loop, &options) == 0 ? 0 : -1;
}

static inline int drop(void **state)
{
    (void)state;
    loop_stop(&loop);
    loop_stop(&loop);
    int err = loop_run(&loop);
    for (unsigned i = 0; i < SIDES; i++) {
        struct side *side = &sides[i];
        node_free(side->node);
        while (side->held_count > 0)
            buffer_put(side->held[--side->held_count]);
        buffer_pool_free(side->pool);
        (void)loop_alloc(NULL, side->bytes, 0);
        config_close(&side->config);
    }
    loop_close(&loop);
    return err;
}

static inline bool complete(void)
{
    return sides[1].complete;
}

static inline int group_make(void **state)
{
    struct config_error error;
    if (scratch_make(state) != 0 || sodium_init() < 0)
        return -1;
    static char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch_path("cluster"));
    secret_path = path;
    randombytes_buf(content, sizeof content);
    return secret_file_create(path, &error);
}

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, make, drop)

#endif
