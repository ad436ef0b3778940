/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processor time that this machine takes for what the simulator counts (keys `cpu.*` of a
 * scenario), with the agent's own sessions, datagrams and hashes over loopback sockets.
 *
 *   costs FOLDER     a file of 64 MiB is written to FOLDER and removed
 *
 * Prints each key with the simulator's default beside it, and the words for `shoal-sim run`. Of
 * each figure the least of several rounds counts: others use the machine, too. cpu.origin and
 * cpu.tls are libcurl's and a TLS server's, and are not measured here.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"
#include "log.h"
#include "session.h"
#include "whole_io.h"

#define RECORD    (64 * 1024)
#define ROUNDS    5
#define RECORDS   1024 /* of one round: 64 MiB */
#define DATAGRAMS 5000
#define SHAKES    50
#define NOW       1000000ULL
#define MESSAGE   200 /* bytes: a message of the mesh, about */

static struct {
    struct env env;
    struct admission admission;
    struct identity identities[2];
    struct peer_addr addrs[2];
    enum session_aes aes; /* as agents of this machine would agree */
    uint8_t plain[RECORD], wire[2 * RECORD_WIRE_BYTES_MAX];
    int near, far; /* a TCP connection over loopback */
} bench;

static void need(bool held, const char *what)
{
    if (held)
        return;
    (void)fprintf(stderr, "costs: %s failed\n", what);
    exit(1);
}

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes > 0)
        return realloc(old, new_bytes);
    free(old);
    return NULL;
}

static void host_random(void *host, uint8_t *out, size_t out_bytes)
{
    (void)host;
    randombytes_buf(out, out_bytes);
}

static void host_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

static uint64_t clock_ns(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000ULL + (uint64_t)at.tv_nsec;
}

/* Seconds of this thread's processor time. */
static double spent_s(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void connect_loopback(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t addr_bytes = sizeof addr;
    int buffer = 8 * RECORD, listener = socket(AF_INET, SOCK_STREAM, 0);
    need(listener >= 0 && bind(listener, (struct sockaddr *)&addr, sizeof addr) == 0 &&
             listen(listener, 1) == 0 &&
             getsockname(listener, (struct sockaddr *)&addr, &addr_bytes) == 0,
         "a listening socket");
    bench.near = socket(AF_INET, SOCK_STREAM, 0);
    (void)setsockopt(bench.near, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    need(connect(bench.near, (struct sockaddr *)&addr, sizeof addr) == 0, "connect");
    bench.far = accept(listener, NULL, NULL);
    need(bench.far >= 0, "accept");
    (void)close(listener);
}

/* ---- sessions ---- */

static void hand_over(struct session *from, struct session *to)
{
    size_t byte_count = 0, consumed = 0, plain_bytes = 0;
    const uint8_t *plain = NULL, *bytes = session_output(from, &byte_count);
    uint8_t copy[4096];
    need(byte_count <= sizeof copy, "a handshake message");
    memcpy(copy, bytes, byte_count);
    session_output_sent(from, byte_count);
    for (size_t done = 0; done < byte_count; done += consumed)
        need(session_receive(to, NOW, copy + done, byte_count - done, &consumed, &plain,
                             &plain_bytes) == 0 &&
                 consumed > 0,
             "the handshake");
}

static void shake(struct session *sessions[2])
{
    for (unsigned i = 0; i < 2; i++) {
        struct session_config config = {.identity = &bench.identities[i],
                                        .admission = &bench.admission,
                                        .self_addr = bench.addrs[i],
                                        .remote = bench.addrs[1 - i],
                                        .initiator = i == 0,
                                        .aes = bench.aes,
                                        .allow_any_ip = true};
        need(session_new(&bench.env, &config, NOW, &sessions[i]) == 0, "session_new");
    }
    for (unsigned turn = 0; turn < 8 && (session_state(sessions[0]) == SESSION_HANDSHAKE ||
                                         session_state(sessions[1]) == SESSION_HANDSHAKE);
         turn++)
        hand_over(sessions[turn % 2], sessions[1 - turn % 2]);
    need(session_state(sessions[1]) == SESSION_ESTABLISHED, "the handshake");
}

/* Seconds a side. */
static double handshake_s(void)
{
    double start_s = spent_s();
    for (unsigned i = 0; i < SHAKES; i++) {
        struct session *sessions[2];
        shake(sessions);
        session_free(sessions[0]);
        session_free(sessions[1]);
    }
    return (spent_s() - start_s) / SHAKES / 2;
}

/* One round of records from one end to the other: seconds of each end per byte. */
static void carry(struct session *sessions[2], double *serve, double *receive)
{
    *serve = *receive = 0;
    for (unsigned i = 0; i < RECORDS; i++) {
        size_t wire_bytes = 0, consumed = 0, plain_bytes = 0;
        const uint8_t *plain = NULL;
        double start_s = spent_s();
        need(session_seal(sessions[0], NOW, NULL, 0, bench.plain, RECORD, bench.wire,
                          &wire_bytes) == 0,
             "session_seal");
        need(write_whole(bench.near, bench.wire, wire_bytes), "write");
        double half_s = spent_s();
        need(read_whole(bench.far, bench.wire, wire_bytes), "read");
        need(session_receive(sessions[1], NOW, bench.wire, wire_bytes, &consumed, &plain,
                             &plain_bytes) == 0 &&
                 plain_bytes == RECORD,
             "session_receive");
        *receive += spent_s() - half_s;
        *serve += half_s - start_s;
    }
    *serve /= (double)RECORDS * RECORD;
    *receive /= (double)RECORDS * RECORD;
}

static double client_s(void)
{
    double sum_s = 0;
    for (unsigned i = 0; i < RECORDS; i++) {
        double start_s = spent_s();
        need(write_whole(bench.near, bench.plain, RECORD), "write");
        sum_s += spent_s() - start_s;
        need(read_whole(bench.far, bench.wire, RECORD), "read");
    }
    return sum_s / ((double)RECORDS * RECORD);
}

/* ---- hashes and disk ---- */

static double verify_s(void)
{
    struct hasher *hasher = NULL;
    struct digest digest;
    need(hasher_new(DIGEST_SHA256, &hasher) == 0, "hasher_new");
    double start_s = spent_s();
    for (unsigned i = 0; i < RECORDS; i++)
        hasher_update(hasher, bench.plain, RECORD);
    hasher_final(hasher, &digest);
    double took_s = spent_s() - start_s;
    hasher_free(hasher);
    return took_s / ((double)RECORDS * RECORD);
}

static double store_s(const char *folder)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/shoal-costs.XXXXXX", folder);
    need(length > 0 && (size_t)length < sizeof path, "the folder's name");
    int fd = mkstemp(path);
    need(fd >= 0, "a file in the folder");
    (void)unlink(path);
    double start_s = spent_s();
    for (unsigned i = 0; i < RECORDS; i++)
        need(pwrite(fd, bench.plain, RECORD, (off_t)i * RECORD) == RECORD, "writing the file");
    double took_s = spent_s() - start_s;
    (void)close(fd);
    return took_s / ((double)RECORDS * RECORD);
}

/* ---- datagrams ---- */

/* Carries all that `from` has to say through the socket. Returns the messages that arrived. */
static unsigned deliver(struct dgram *from, struct dgram *to, const struct peer_addr *from_addr,
                        const int fds[2])
{
    struct dgram_packet packet;
    struct session_peer peer;
    uint8_t bytes[2048], plain[MESSAGE_BYTES_MAX];
    unsigned messages = 0;
    while (dgram_next_output(from, &packet)) {
        size_t plain_bytes = 0;
        need(send(fds[0], packet.bytes, packet.byte_count, 0) == (ssize_t)packet.byte_count,
             "send");
        ssize_t got = recv(fds[1], bytes, sizeof bytes, 0);
        need(got > 0, "recv");
        if (dgram_receive(to, NOW, from_addr, bytes, (size_t)got, plain, &plain_bytes, &peer) == 0)
            messages += plain_bytes > 0;
    }
    return messages;
}

static void udp_pair(int fds[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t addr_bytes = sizeof addr;
    fds[0] = socket(AF_INET, SOCK_DGRAM, 0);
    fds[1] = socket(AF_INET, SOCK_DGRAM, 0);
    need(bind(fds[1], (struct sockaddr *)&addr, sizeof addr) == 0 &&
             getsockname(fds[1], (struct sockaddr *)&addr, &addr_bytes) == 0 &&
             connect(fds[0], (struct sockaddr *)&addr, sizeof addr) == 0,
         "UDP sockets");
}

/* Seconds an end. */
static double message_s(void)
{
    struct dgram *ends[2];
    int fds[2];
    unsigned arrived = 0;
    udp_pair(fds);
    for (unsigned i = 0; i < 2; i++) {
        struct dgram_config config = {.identity = &bench.identities[i],
                                      .admission = &bench.admission,
                                      .self_addr = bench.addrs[i],
                                      .allow_any_ip = true};
        need(dgram_new(&bench.env, &config, NOW, &ends[i]) == 0, "dgram_new");
    }
    need(dgram_send(ends[0], NOW, &bench.addrs[1], bench.plain, MESSAGE) == 0, "dgram_send");
    for (unsigned turn = 0; turn < 8; turn++) /* the hello exchange */
        (void)deliver(ends[turn % 2], ends[1 - turn % 2], &bench.addrs[turn % 2], fds);
    double start_s = spent_s();
    for (unsigned i = 0; i < DATAGRAMS; i++) {
        need(dgram_send(ends[0], NOW, &bench.addrs[1], bench.plain, MESSAGE) == 0, "dgram_send");
        arrived += deliver(ends[0], ends[1], &bench.addrs[0], fds);
    }
    double took_s = spent_s() - start_s;
    need(arrived == DATAGRAMS, "delivering datagrams");
    for (unsigned i = 0; i < 2; i++) {
        dgram_free(ends[i]);
        (void)close(fds[i]);
    }
    return took_s / DATAGRAMS / 2;
}

/* ---- the figures ---- */

static void prepare(void)
{
    need(sodium_init() >= 0, "libsodium");
    bench.aes = session_choose_aes(clock_ns);
    bench.env = (struct env){.alloc = host_alloc, .random = host_random, .trace = host_trace};
    bench.admission.secret_count = 1;
    (void)snprintf(bench.admission.cluster_id, sizeof bench.admission.cluster_id, "costs");
    randombytes_buf(bench.admission.secrets[0], CLUSTER_SECRET_BYTES);
    randombytes_buf(bench.plain, sizeof bench.plain);
    for (unsigned i = 0; i < 2; i++) {
        identity_generate(&bench.env, &bench.identities[i]);
        bench.addrs[i] = (struct peer_addr){
            {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = (uint8_t)(i + 1)}, 65002};
    }
    connect_loopback();
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

int main(int argc, char **argv)
{
    enum { RECEIVE, SERVE, VERIFY, STORE, CLIENT, MESSAGES, HANDSHAKE, COUNT };
    static const struct {
        const char *key, *unit;
        double scale, usual;
    } rows[COUNT] = {{"receive", "ms", 1e12, 470}, {"serve", "ms", 1e12, 500},
                     {"verify", "ms", 1e12, 570},  {"store", "ms", 1e12, 310},
                     {"client", "ms", 1e12, 150},  {"message", "ns", 1e9, 3000},
                     {"handshake", "us", 1e6, 125}};
    double best[COUNT];
    if (argc != 2) {
        (void)fprintf(stderr, "usage: costs FOLDER\n");
        return 2;
    }
    prepare();
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct session *sessions[2];
        double now[COUNT];
        shake(sessions);
        carry(sessions, &now[SERVE], &now[RECEIVE]);
        session_free(sessions[0]);
        session_free(sessions[1]);
        now[VERIFY] = verify_s();
        now[STORE] = store_s(argv[1]);
        now[CLIENT] = client_s();
        now[MESSAGES] = message_s();
        now[HANDSHAKE] = handshake_s();
        for (unsigned i = 0; i < COUNT; i++)
            best[i] = round == 0 ? now[i] : least(best[i], now[i]);
    }
    printf("%-16s %12s %12s\n", "key", "measured", "default");
    for (unsigned i = 0; i < COUNT; i++)
        printf("cpu.%-12s %10.0f%s %10.0f%s\n", rows[i].key, best[i] * rows[i].scale, rows[i].unit,
               rows[i].usual, rows[i].unit);
    for (unsigned i = 0; i < COUNT; i++)
        printf("%s--set cpu.%s=%.0f%s", i == 0 ? "\n" : " ", rows[i].key, best[i] * rows[i].scale,
               rows[i].unit);
    printf("\n");
    return 0;
}
