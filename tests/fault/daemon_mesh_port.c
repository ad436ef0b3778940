/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mesh port with real sockets on loopback: two nodes in one process find each other, move a
 * blob piece by piece, and bear what others do to the port: outsiders, garbage, a vanishing peer,
 * both opening at once, memory at its cap. Time is real but bounded by LIMIT_MS per wait.
 */
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

static bool run_until(bool (*done)(void))
{
    uint64_t limit_ns = uv_hrtime() + LIMIT_MS * 1000000ULL;
    while (!done()) {
        if (uv_hrtime() > limit_ns)
            return false;
        (void)uv_run(&loop.uv, UV_RUN_ONCE); /* the loop's heart bounds the wait */
    }
    return true;
}

static void run_ms(uint64_t ms)
{
    uint64_t limit_ns = uv_hrtime() + ms * 1000000ULL;
    while (uv_hrtime() < limit_ns) {
        (void)uv_run(&loop.uv, UV_RUN_NOWAIT);
        struct timespec pause = {0, 1000000};
        (void)nanosleep(&pause, NULL);
    }
}

/* ---- handlers: a blob in memory ---- */

static void on_upload(void *host, const struct transfer_result *result)
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

static void store(struct side *side, const struct node_piece *piece, struct buffer *buffer)
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

static void on_piece(void *host, const struct node_piece *piece, struct buffer *buffer)
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

static void on_complete(void *host, const struct transfer_result *result)
{
    struct side *side = host;
    (void)result;
    side->complete = true;
}

/* ---- making ---- */

/* `extra` is one more key=value, or NULL. */
static struct node *node_with(unsigned index, const char *address, const char *secret,
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

static struct node *node_at(unsigned index, const char *address, const char *secret)
{
    return node_with(index, address, secret, NULL);
}

static void join(unsigned from, unsigned to)
{
    gossip_join(node_gossip(sides[from].node), loop_now_us(&loop), node_self_addr(sides[to].node),
                1);
}

static bool joined(void)
{
    return gossip_count(node_gossip(sides[0].node)) >= 2 &&
           gossip_count(node_gossip(sides[1].node)) >= 2;
}

static void open_blob(unsigned index, bool full)
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

static void read_all(unsigned index)
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

static uint32_t open_links(unsigned index)
{
    struct node_link_view views[16];
    uint32_t count = 0;
    size_t found = node_links(sides[index].node, views, 16);
    for (size_t i = 0; i < found; i++)
        count += views[i].established ? 1 : 0;
    return count;
}

static struct node_counters counters(unsigned index)
{
    struct node_counters out;
    node_counters(sides[index].node, &out);
    return out;
}

/* ---- set-up ---- */

static int make(void **state)
{
    (void)state;
    static const struct loop_options options = {.log_fd = 2, .log_level = LOG_ERROR};
    memset(sides, 0, sizeof sides);
    return loop_init(&loop, &options) == 0 ? 0 : -1;
}

static int drop(void **state)
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

static bool complete(void)
{
    return sides[1].complete;
}

/* ---- tests ---- */

static void move_a_blob(const char *address, const char *extra)
{
    (void)node_with(0, address, secret_path, extra);
    (void)node_with(1, address, secret_path, extra);
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, true);
    open_blob(1, false);
    read_all(1);
    assert_true(run_until(complete));
    assert_memory_equal(sides[1].bytes, content, BLOB_BYTES);
    assert_int_equal(sides[1].vouched, sides[1].received);
    assert_int_equal(counters(1).piece_bytes_in, counters(0).piece_bytes_out);
    assert_true(counters(1).piece_bytes_in >= BLOB_BYTES);
    assert_int_equal(counters(0).handshakes, counters(1).handshakes);
    assert_int_equal(counters(0).datagrams_auth, 0);
    run_ms(300); /* acknowledgements and BYEs of a connection too many */
    assert_int_equal(open_links(0), 1);
    assert_int_equal(open_links(1), 1);
    struct buffer_stats stats;
    buffer_pool_stats(sides[1].pool, &stats);
    assert_int_equal(stats.used_bytes, 0);
}

static void a_blob_travels_over_ipv4(void **state)
{
    (void)state;
    move_a_blob("127.0.0.1:0", NULL);
}

static void a_blob_travels_over_ipv6(void **state)
{
    (void)state;
    move_a_blob("[::1]:0", NULL);
}

static void a_blob_travels_between_default_addresses(void **state)
{
    (void)state;
    move_a_blob("[::]:0", NULL);
    assert_false(net_unspecified(node_self_addr(sides[0].node)));
}

static void a_blob_travels_over_dual_stack_sockets(void **state)
{
    (void)state;
    /* Addresses are not checked, so UDP is bound to [::] and carries IPv4. */
    move_a_blob("[::]:0", "strictAddress=false");
    assert_true(sides[0].node->udp.v6);
}

static void an_upload_limit_slows_but_completes(void **state)
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    (void)node_at(1, "127.0.0.1:0", secret_path);
    rate_budget_init(&sides[0].node->tcp.rate, 40, loop_now_us(&loop)); /* 5 MB/s */
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, true);
    open_blob(1, false);
    read_all(1);
    uint64_t start_ns = uv_hrtime();
    assert_true(run_until(complete));
    double seconds = (double)(uv_hrtime() - start_ns) / 1e9;
    assert_true(seconds > 0.7); /* 5.3 MB less one burst at 5 MB/s */
    assert_memory_equal(sides[1].bytes, content, BLOB_BYTES);
}

/* Queues an upload of one piece as transfer would. */
static void queue_upload(unsigned from, unsigned to, uint64_t id)
{
    struct transfer_result result = {
        .kind = TRANSFER_UPLOAD,
        .blob = sides[from].handle,
        .key = sides[from].blob.key,
        .piece = (uint32_t)(id % 20),
        .peer = *node_self_id(sides[to].node),
        .peer_addr = *node_self_addr(sides[to].node),
        .id = id,
    };
    mesh_tcp_upload(&sides[from].node->tcp, &result);
}

static void the_upload_limit_is_shared_fairly(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        (void)node_at(i, "127.0.0.1:0", secret_path);
    open_blob(0, true);
    rate_budget_init(&sides[0].node->tcp.rate, 40, loop_now_us(&loop)); /* 5 MB/s */
    for (uint64_t id = 1; id <= 20; id++) {
        queue_upload(0, 1, 1000000 + id);
        queue_upload(0, 2, 2000000 + id);
    }
    run_ms(1000);
    uint64_t one = counters(1).tcp_bytes_in;
    uint64_t two = counters(2).tcp_bytes_in;
    assert_true(one > 1000000 && two > 1000000);
    assert_true(one < two + 500000 && two < one + 500000);
    assert_true(counters(1).pieces_unexpected > 0); /* nobody had asked: drained */
}

/* ---- memory at its cap ---- */

static bool paused(void)
{
    return counters(1).read_pauses > 0;
}

static void release_held(struct side *side)
{
    side->hold = false;
    while (side->held_count > 0) {
        side->held_count--;
        store(side, &side->held_piece[side->held_count], side->held[side->held_count]);
    }
}

static void a_full_pool_pauses_reading_and_goes_on(void **state) /* RES-1 */
{
    (void)state;
    struct buffer *blocks[3];
    (void)node_at(0, "127.0.0.1:0", secret_path);
    assert_int_equal(buffer_pool_new(1, &sides[1].pool), 0); /* 16 MiB, 12 for peers */
    (void)node_at(1, "127.0.0.1:0", secret_path);
    for (size_t i = 0; i < 3; i++)
        blocks[i] = buffer_get(sides[1].pool, PIECE_BYTES_MAX, BUFFER_FOR_LOCAL);
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, true);
    open_blob(1, false);
    read_all(1);
    assert_true(run_until(paused));
    assert_int_equal(sides[1].received, 0);
    for (size_t i = 0; i < 3; i++)
        buffer_put(blocks[i]);
    assert_true(run_until(complete));
    assert_memory_equal(sides[1].bytes, content, BLOB_BYTES);
}

static bool some_held(void)
{
    return sides[1].held_count >= 2;
}

static void a_store_that_stands_still_holds_nobody_up_for_good(void **state)
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    (void)node_at(1, "127.0.0.1:0", secret_path);
    sides[1].hold = true;
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, true);
    open_blob(1, false);
    read_all(1);
    assert_true(run_until(some_held));
    release_held(&sides[1]);
    assert_true(run_until(complete));
    assert_memory_equal(sides[1].bytes, content, BLOB_BYTES);
}

/* ---- both open at once ---- */

static bool crossed(void)
{
    return counters(0).handshakes + counters(1).handshakes >= 4;
}

static void crossing_connections_settle_on_one(void **state)
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    (void)node_at(1, "127.0.0.1:0", secret_path);
    for (unsigned i = 0; i < 2; i++) {
        struct transfer_result result = {.kind = TRANSFER_CONNECT,
                                         .peer = *node_self_id(sides[1 - i].node),
                                         .peer_addr = *node_self_addr(sides[1 - i].node)};
        mesh_tcp_connect(&sides[i].node->tcp, &result);
    }
    assert_true(run_until(crossed));
    run_ms(300);
    assert_int_equal(open_links(0), 1);
    assert_int_equal(open_links(1), 1);
    assert_int_equal(counters(0).links_duplicate, 1);
    assert_int_equal(counters(1).links_duplicate, 1);
    struct node_link_view a, b;
    assert_int_equal(node_links(sides[0].node, &a, 1), 1);
    assert_int_equal(node_links(sides[1].node, &b, 1), 1);
    assert_true(a.outgoing != b.outgoing); /* the same connection */
    bool zero_smaller =
        node_id_compare(node_self_id(sides[0].node), node_self_id(sides[1].node)) < 0;
    assert_int_equal(a.outgoing, zero_smaller); /* the one the smaller id opened */
}

/* ---- outsiders ---- */

static int raw_connect(unsigned index)
{
    struct sockaddr_storage to;
    const struct peer_addr *addr = node_self_addr(sides[index].node);
    assert_int_equal(net_to_sockaddr(addr, false, &to), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
    return fd;
}

/* True when the other side has closed; fails if it ever sends a byte. */
static bool closed_silently(int fd)
{
    uint8_t byte = 0;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    if (poll(&wait, 1, 0) <= 0)
        return false;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    assert_true(got <= 0);
    return true;
}

static int outsider = -1;

static bool outsider_closed(void)
{
    return closed_silently(outsider);
}

static void outsiders_get_no_byte(void **state) /* PEER-7 */
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    static const size_t lengths[] = {1, 2, 3, 100, 150, 1000, 9000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t noise[9000];
        randombytes_buf(noise, sizeof noise);
        outsider = raw_connect(0);
        assert_true(send(outsider, noise, lengths[i], MSG_NOSIGNAL) > 0);
        if (lengths[i] < 3)
            (void)shutdown(outsider, SHUT_WR); /* too short to be judged: it goes away */
        assert_true(run_until(outsider_closed));
        (void)close(outsider);
    }
    assert_int_equal(open_links(0), 0);
    assert_int_equal(counters(0).handshakes, 0);
    assert_int_equal(sides[0].node->tcp.pending, 0);
}

static void a_silent_connection_is_closed_after_three_seconds(void **state) /* PEER-7 */
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    outsider = raw_connect(0);
    uint64_t start_ns = uv_hrtime();
    assert_true(run_until(outsider_closed));
    double seconds = (double)(uv_hrtime() - start_ns) / 1e9;
    assert_true(seconds > 2.5 && seconds < 4.5);
    assert_int_equal(counters(0).handshakes_timeout, 1);
    (void)close(outsider);
}

static void one_address_begins_twenty_handshakes_a_second(void **state) /* PEER-7 */
{
    (void)state;
    int fds[60];
    (void)node_at(0, "127.0.0.1:0", secret_path);
    for (size_t i = 0; i < 60; i++)
        fds[i] = raw_connect(0);
    run_ms(100);
    assert_int_equal(counters(0).accepts + counters(0).accepts_refused, 60);
    assert_true(counters(0).accepts >= BUDGET_PER_SECOND);
    assert_true(counters(0).accepts <= 2 * BUDGET_PER_SECOND); /* a second may turn meanwhile */
    for (size_t i = 0; i < 60; i++)
        (void)close(fds[i]);
    run_ms(50);
    assert_int_equal(sides[0].node->tcp.pending, 0);
}

static bool one_refused(void)
{
    return counters(0).handshakes_auth + counters(0).datagrams_auth > 0;
}

static void another_secret_is_another_mesh(void **state) /* PEER-2 */
{
    (void)state;
    struct config_error error;
    const char *other = scratch_path("other-secret");
    (void)unlink(other);
    assert_int_equal(secret_file_create(other, &error), 0);
    (void)node_at(0, "127.0.0.1:0", secret_path);
    (void)node_at(1, "127.0.0.1:0", other);
    join(1, 0);
    assert_true(run_until(one_refused));
    run_ms(500);
    assert_int_equal(gossip_count(node_gossip(sides[0].node)), 1);
    assert_int_equal(gossip_count(node_gossip(sides[1].node)), 1);
    assert_int_equal(counters(0).datagrams_out, 0); /* 0 bytes to outsiders, DHT-2 */
    struct transfer_result result = {.kind = TRANSFER_CONNECT,
                                     .peer = *node_self_id(sides[0].node),
                                     .peer_addr = *node_self_addr(sides[0].node)};
    mesh_tcp_connect(&sides[1].node->tcp, &result);
    run_ms(300);
    assert_int_equal(counters(0).handshakes_auth, 1);
    assert_int_equal(open_links(0) + open_links(1), 0);
}

/* ---- peers that misbehave or vanish ---- */

static bool linked(void)
{
    return open_links(0) >= 1 && open_links(1) >= 1;
}

static void link_up(void)
{
    (void)node_at(0, "127.0.0.1:0", secret_path);
    (void)node_at(1, "127.0.0.1:0", secret_path);
    struct transfer_result result = {.kind = TRANSFER_CONNECT,
                                     .peer = *node_self_id(sides[0].node),
                                     .peer_addr = *node_self_addr(sides[0].node)};
    mesh_tcp_connect(&sides[1].node->tcp, &result);
    assert_true(run_until(linked));
}

/* Seals a record as side 1. Returns its length on the wire. */
static size_t seal_record(const uint8_t *bytes, size_t byte_count, uint8_t *out)
{
    size_t sealed_bytes = 0;
    assert_int_equal(session_seal(sides[1].node->tcp.links->session, loop_now_us(&loop), NULL, 0,
                                  bytes, byte_count, out, &sealed_bytes),
                     0);
    return sealed_bytes;
}

/* Puts bytes on the wire from side 1 to side 0. */
static void send_bytes(uint8_t *bytes, size_t byte_count)
{
    uv_buf_t span = uv_buf_init((char *)bytes, (unsigned)byte_count);
    assert_int_equal(uv_try_write((uv_stream_t *)&sides[1].node->tcp.links->tcp, &span, 1),
                     byte_count);
}

static void send_record(const uint8_t *bytes, size_t byte_count)
{
    static uint8_t sealed[RECORD_WIRE_BYTES_MAX];
    send_bytes(sealed, seal_record(bytes, byte_count, sealed));
}

static bool unlinked(void)
{
    return open_links(0) == 0;
}

static struct piece_frame piece_of(uint32_t bytes)
{
    struct piece_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.kind = FRAME_PIECE;
    frame.body_bytes = bytes;
    return frame;
}

static void broken_frames_close_the_connection(void **state) /* P-4 */
{
    (void)state;
    uint8_t noise[300];
    link_up();
    randombytes_buf(noise, sizeof noise);
    noise[2] = 0xff;
    send_record(noise, sizeof noise);
    assert_true(run_until(unlinked));
    assert_int_equal(counters(0).links_closed_protocol, 1);
}

static void a_body_longer_than_announced_closes_it(void **state) /* INT-8 */
{
    (void)state;
    static uint8_t body[2000];
    uint8_t header[PIECE_FRAME_BYTES];
    const struct piece_frame frame = piece_of(1000);
    link_up();
    send_record(header, frame_encode(&frame, header));
    send_record(body, 1001);
    assert_true(run_until(unlinked));
    assert_int_equal(counters(0).links_closed_protocol, 1);
}

static bool two_unexpected(void)
{
    return counters(0).pieces_unexpected == 2 && counters(0).frames_skipped == 1;
}

static void unasked_pieces_and_unknown_frames_are_skipped(void **state) /* P-6, PEER-10 */
{
    (void)state;
    static uint8_t body[40000];
    uint8_t header[PIECE_FRAME_BYTES];
    uint8_t unknown[16] = {99, 0, 0, 16, 0, 0, 0x9c, 0x40};
    const struct piece_frame frame = piece_of(70000);
    link_up();
    send_record(header, frame_encode(&frame, header));
    send_record(body, 40000);
    send_record(body, 30000);
    send_record(unknown, sizeof unknown);
    send_record(body, 40000);
    send_record(header, frame_encode(&frame, header));
    assert_true(run_until(two_unexpected));
    assert_int_equal(open_links(0), 1);
    assert_int_equal(sides[0].received, 0);
    struct buffer_stats stats;
    buffer_pool_stats(sides[0].pool, &stats);
    assert_int_equal(stats.used_bytes, 0);
}

static void a_frame_after_bye_closes_it(void **state)
{
    (void)state;
    uint8_t header[PIECE_FRAME_BYTES];
    const struct piece_frame bye = {.kind = FRAME_BYE};
    link_up();
    send_record(header, frame_encode(&bye, header));
    send_record(header, frame_encode(&bye, header));
    assert_true(run_until(unlinked));
}

/* The first piece that side 0 expects from side 1; PIECE_COUNT_MAX if none. */
static uint32_t expected_piece(void)
{
    for (uint32_t piece = 0; piece * PIECE_BYTES_MIN < BLOB_BYTES; piece++)
        if (transfer_expects(node_transfer(sides[0].node), &sides[0].blob.key, piece,
                             node_self_id(sides[1].node)))
            return piece;
    return PIECE_COUNT_MAX;
}

static bool expects_one(void)
{
    return expected_piece() != PIECE_COUNT_MAX;
}

static void a_wrong_piece_length_closes_it(void **state) /* INT-8 */
{
    (void)state;
    uint8_t header[PIECE_FRAME_BYTES];
    sides[1].mute = true;
    link_up();
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, false);
    open_blob(1, true);
    read_all(0);
    assert_true(run_until(expects_one));
    struct piece_frame frame = piece_of(PIECE_BYTES_MIN - 1);
    frame.key = sides[0].blob.key;
    frame.piece = expected_piece();
    send_record(header, frame_encode(&frame, header));
    assert_true(run_until(unlinked));
    assert_int_equal(counters(0).pieces_wrong_length, 1);
    assert_int_equal(counters(0).links_closed_protocol, 1);
    assert_int_equal(sides[0].received, 0);
}

static bool asleep(void)
{
    return sides[0].node->tcp.links->readable_at > 0;
}

static bool held_up(void)
{
    return counters(0).read_pauses > 0;
}

static bool part_taken(void)
{
    const struct buffer *buffer = sides[0].node->tcp.links->buffer;
    return buffer != NULL && buffer->used == 20000;
}

/* The kernel was asked for a record's rest, and reading paused right behind that record: what comes
 * then is less than was asked for, and must be read all the same (P-2). */
static void a_link_wakes_for_less_after_a_pause(void **state)
{
    (void)state;
    static uint8_t body[RECORD_BYTES_MAX], wire[RECORD_WIRE_BYTES_MAX + 1024];
    uint8_t header[PIECE_FRAME_BYTES];
    uint8_t unknown[16] = {99, 0, 0, 16, 0, 1, 0, 0}; /* 64 KiB follow */
    struct buffer *blocks[3];
    assert_int_equal(buffer_pool_new(1, &sides[0].pool), 0); /* 16 MiB, 12 for peers */
    sides[1].mute = true;
    link_up();
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, false);
    open_blob(1, true);
    read_all(0);
    assert_true(run_until(expects_one));
    send_record(unknown, sizeof unknown);
    size_t wire_bytes = seal_record(body, sizeof body, wire);
    send_bytes(wire, 20000);
    assert_true(run_until(asleep));
    for (size_t i = 0; i < 3; i++)
        blocks[i] = buffer_get(sides[0].pool, PIECE_BYTES_MAX, BUFFER_FOR_LOCAL);
    struct piece_frame frame = piece_of(PIECE_BYTES_MIN);
    frame.key = sides[0].blob.key;
    frame.piece = expected_piece();
    wire_bytes += seal_record(header, frame_encode(&frame, header), wire + wire_bytes);
    send_bytes(wire + 20000, wire_bytes - 20000);
    assert_true(run_until(held_up));
    assert_int_equal(sides[0].node->tcp.links->stash_bytes, 0);
    for (size_t i = 0; i < 3; i++)
        buffer_put(blocks[i]);
    send_record(body, 20000);
    assert_true(run_until(part_taken));
}

static bool some_received(void)
{
    return sides[1].received >= 3;
}

static bool lost(void)
{
    return open_links(1) == 0;
}

static void a_vanishing_peer_leaves_nothing_behind(void **state) /* P-1 */
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    (void)node_at(1, "127.0.0.1:0", secret_path);
    rate_budget_init(&sides[0].node->tcp.rate, 100, loop_now_us(&loop));
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, true);
    open_blob(1, false);
    read_all(1);
    assert_true(run_until(some_received));
    for (struct peerlink *link = sides[0].node->tcp.links; link != NULL; link = link->next)
        peerlink_close(link, E_IO); /* as if the process were gone: uploads fail, sockets close */
    assert_true(run_until(lost));
    struct buffer_stats stats;
    buffer_pool_stats(sides[1].pool, &stats);
    assert_int_equal(stats.used_bytes, 0);
    rate_budget_init(&sides[0].node->tcp.rate, 0, loop_now_us(&loop));
    assert_true(run_until(complete)); /* it connects again and goes on */
    assert_memory_equal(sides[1].bytes, content, BLOB_BYTES);
}

static void a_dead_address_fails_the_dial(void **state) /* N-7 */
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    struct transfer_result result = {.kind = TRANSFER_CONNECT};
    assert_int_equal(peer_addr_parse("127.0.0.1:1", 1, &result.peer_addr), 0);
    node_id_of("shoal", &result.peer_addr, &result.peer);
    mesh_tcp_connect(&sides[0].node->tcp, &result);
    run_ms(600); /* the refusal, then the sweep of peers */
    assert_int_equal(counters(0).connects_failed, 1);
    assert_int_equal(sides[0].node->tcp.link_count, 0);
    assert_int_equal(sides[0].node->tcp.peer_count, 0);
    assert_int_equal(sides[0].node->tcp.dials, 0);
}

static void a_node_that_calls_itself_hangs_up(void **state)
{
    (void)state;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    struct transfer_result result = {.kind = TRANSFER_CONNECT,
                                     .peer_addr = *node_self_addr(sides[0].node)};
    node_id_of("shoal", &result.peer_addr, &result.peer);
    mesh_tcp_connect(&sides[0].node->tcp, &result);
    run_ms(300);
    assert_int_equal(open_links(0), 0);
}

static void a_denied_node_is_let_go(void **state) /* PEER-8 */
{
    (void)state;
    link_up();
    sides[0].node->admission.denied[0] = node_identity(sides[1].node)->public_key;
    sides[0].node->admission.denied_count = 1;
    mesh_tcp_drop_denied(&sides[0].node->tcp);
    assert_true(run_until(unlinked));
    assert_int_equal(counters(0).links_closed_auth, 1);
}

static void a_rotated_secret_lets_both_in(void **state) /* PEER-8, C-5 */
{
    (void)state;
    struct config_error error;
    char both[600];
    const char *next = scratch_path("next-secret");
    (void)unlink(next);
    assert_int_equal(secret_file_create(next, &error), 0);
    (void)snprintf(both, sizeof both, "clusterSecretFile=%s,%s", secret_path, next);
    (void)node_with(0, "127.0.0.1:0", secret_path, both);
    (void)node_at(1, "127.0.0.1:0", next); /* a node that has the new one alone */
    join(1, 0);
    assert_true(run_until(joined));
    struct transfer_result result = {.kind = TRANSFER_CONNECT,
                                     .peer = *node_self_id(sides[0].node),
                                     .peer_addr = *node_self_addr(sides[0].node)};
    mesh_tcp_connect(&sides[1].node->tcp, &result);
    assert_true(run_until(linked));
}

static void secrets_are_read_again_when_they_change(void **state) /* PEER-8 */
{
    (void)state;
    struct config_error error;
    const char *path = scratch_path("changing-secret");
    (void)unlink(path);
    assert_int_equal(secret_file_create(path, &error), 0);
    (void)node_at(0, "127.0.0.1:0", path);
    struct node *node = sides[0].node;
    uint8_t before[CLUSTER_SECRET_BYTES];
    memcpy(before, node->admission.secrets[0], sizeof before);
    node_admission_refresh(node);
    assert_int_equal(counters(0).secret_reloads, 0);
    (void)scratch_file("changing-secret", "not a secret", 0400);
    node_admission_refresh(node);
    assert_int_equal(counters(0).secret_reload_failures, 1);
    assert_memory_equal(node->admission.secrets[0], before, sizeof before);
    (void)unlink(path);
    assert_int_equal(secret_file_create(path, &error), 0);
    node_admission_refresh(node);
    assert_int_equal(counters(0).secret_reloads, 1);
    assert_memory_not_equal(node->admission.secrets[0], before, sizeof before);
}

/* ---- bootstrap ---- */

static void bootstrap_names_lead_to_the_mesh(void **state)
{
    (void)state;
    char extra[64];
    (void)node_at(0, "127.0.0.1:0", secret_path);
    (void)snprintf(extra, sizeof extra, "bootstrap=localhost:%u",
                   (unsigned)node_self_addr(sides[0].node)->port);
    (void)node_with(1, "127.0.0.1:0", secret_path, extra);
    assert_true(node_alone(sides[1].node));
    assert_true(run_until(joined));
    assert_false(node_alone(sides[1].node));
    assert_true(counters(1).bootstrap_addresses >= 1);
}

static bool failed_twice(void)
{
    return counters(0).bootstrap_failures >= 2;
}

static void a_name_that_does_not_exist_is_tried_again(void **state) /* N-6 */
{
    (void)state;
    (void)node_with(0, "127.0.0.1:0", secret_path, "bootstrap=host:0");
    /* Not even a name: refused without a lookup, round after round. */
    assert_true(run_until(failed_twice));
    assert_true(node_alone(sides[0].node));
    assert_int_equal(open_links(0), 0);
}

/* ---- ports and files ---- */

static void a_port_in_use_is_one_clear_line(void **state) /* D-12 */
{
    (void)state;
    char addr[PEER_ADDR_TEXT_BYTES];
    char set[2][300];
    char expected[200];
    struct config_error error = {""};
    struct node *second = NULL;
    (void)node_at(0, "127.0.0.1:0", secret_path);
    peer_addr_text(node_self_addr(sides[0].node), addr);
    struct config_options options = {.set_count = 2};
    options.file = scratch_file("none.yaml", "", 0600);
    (void)snprintf(set[0], sizeof set[0], "listen.mesh=%s", addr);
    (void)snprintf(set[1], sizeof set[1], "dataDir=%s/1", scratch_directory);
    options.sets[0] = set[0];
    options.sets[1] = set[1];
    assert_int_equal(config_load(&options, &sides[1].config, &error), 0);
    (void)mkdir(sides[1].config.data_dir.text, 0700);
    assert_int_equal(buffer_pool_new(64U << 20, &sides[1].pool), 0);
    const struct node_handlers handlers = {0};
    assert_int_equal(node_new(&loop, &sides[1].config, sides[1].pool, &handlers, &second, &error),
                     E_IN_USE);
    (void)snprintf(expected, sizeof expected,
                   "listen.mesh: cannot listen on %s (TCP): address already in use", addr);
    assert_string_equal(error.text, expected);
}

static void the_identity_stays_and_a_damaged_one_is_replaced(void **state) /* PEER-1 */
{
    (void)state;
    struct stat info;
    char path[300];
    (void)snprintf(path, sizeof path, "%s/2/identity", scratch_directory);
    (void)node_at(2, "127.0.0.1:0", secret_path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0400);
    const struct identity_key first = node_identity(sides[2].node)->public_key;
    assert_int_equal(drop(NULL), 0);
    assert_int_equal(make(NULL), 0);
    (void)node_at(2, "127.0.0.1:0", secret_path);
    assert_memory_equal(&first, &node_identity(sides[2].node)->public_key, sizeof first);
    assert_int_equal(drop(NULL), 0);
    assert_int_equal(make(NULL), 0);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 20), 0);
    (void)node_at(2, "127.0.0.1:0", secret_path);
    assert_memory_not_equal(&first, &node_identity(sides[2].node)->public_key, sizeof first);
}

static int group_make(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_LOOP(a_blob_travels_over_ipv4),
        WITH_LOOP(a_blob_travels_over_ipv6),
        WITH_LOOP(a_blob_travels_between_default_addresses),
        WITH_LOOP(a_blob_travels_over_dual_stack_sockets),
        WITH_LOOP(an_upload_limit_slows_but_completes),
        WITH_LOOP(the_upload_limit_is_shared_fairly),
        WITH_LOOP(a_full_pool_pauses_reading_and_goes_on),
        WITH_LOOP(a_store_that_stands_still_holds_nobody_up_for_good),
        WITH_LOOP(crossing_connections_settle_on_one),
        WITH_LOOP(outsiders_get_no_byte),
        WITH_LOOP(a_silent_connection_is_closed_after_three_seconds),
        WITH_LOOP(one_address_begins_twenty_handshakes_a_second),
        WITH_LOOP(another_secret_is_another_mesh),
        WITH_LOOP(broken_frames_close_the_connection),
        WITH_LOOP(a_body_longer_than_announced_closes_it),
        WITH_LOOP(unasked_pieces_and_unknown_frames_are_skipped),
        WITH_LOOP(a_frame_after_bye_closes_it),
        WITH_LOOP(a_wrong_piece_length_closes_it),
        WITH_LOOP(a_link_wakes_for_less_after_a_pause),
        WITH_LOOP(a_vanishing_peer_leaves_nothing_behind),
        WITH_LOOP(a_dead_address_fails_the_dial),
        WITH_LOOP(a_node_that_calls_itself_hangs_up),
        WITH_LOOP(a_denied_node_is_let_go),
        WITH_LOOP(a_rotated_secret_lets_both_in),
        WITH_LOOP(secrets_are_read_again_when_they_change),
        WITH_LOOP(bootstrap_names_lead_to_the_mesh),
        WITH_LOOP(a_name_that_does_not_exist_is_tried_again),
        WITH_LOOP(a_port_in_use_is_one_clear_line),
        WITH_LOOP(the_identity_stays_and_a_damaged_one_is_replaced),
    };
    return cmocka_run_group_tests(tests, group_make, scratch_remove);
}
