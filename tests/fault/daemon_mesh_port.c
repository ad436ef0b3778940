/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mesh port with real sockets on loopback: nodes find each other, move a blob piece by piece,
 * and bear what outsiders do to the port, both opening at once, memory at its cap, names that do
 * not exist and ports in use.
 */
#include "daemon_mesh_world.h"

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
        WITH_LOOP(bootstrap_names_lead_to_the_mesh),
        WITH_LOOP(a_name_that_does_not_exist_is_tried_again),
        WITH_LOOP(a_port_in_use_is_one_clear_line),
        WITH_LOOP(the_identity_stays_and_a_damaged_one_is_replaced),
    };
    return cmocka_run_group_tests(tests, group_make, scratch_remove);
}
