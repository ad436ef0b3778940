/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that misbehave, vanish, are denied or change their secret, at the mesh port of a node. */
#include "daemon_mesh_world.h"

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

/* Side 0 has asked side 1 for a piece, and gets no answer but what the test sends. */
static void await_a_piece(void)
{
    sides[1].mute = true;
    link_up();
    join(1, 0);
    assert_true(run_until(joined));
    open_blob(0, false);
    open_blob(1, true);
    read_all(0);
    assert_true(run_until(expects_one));
}

static void a_wrong_piece_length_closes_it(void **state) /* INT-8 */
{
    (void)state;
    uint8_t header[PIECE_FRAME_BYTES];
    await_a_piece();
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
    await_a_piece();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, group_make, scratch_remove);
}
