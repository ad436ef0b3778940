/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pull from a peer costs a node at least, in a program that does nothing else: sealed 64 KiB
 * records from a socket, opened, hashed once with SHA-256, written to a new file in pieces of 1
 * MiB, and on to a client's socket. No protocol, no discovery, no second hash, no signatures, one
 * thread: the straight implementation of LIMITS §6. Beside an agent's figure it says what the
 * machine allows.
 *
 *   straight FOLDER MIB
 *
 * Prints one JSON object: bytes, and the node's processor seconds, user and system. The sender and
 * the client are processes of their own. The file is unlinked at once.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "whole_io.h"

#define RECORD_BYTES (64 * 1024)
#define TAG_BYTES    16
#define WIRE_BYTES   (RECORD_BYTES + TAG_BYTES)
#define PIECE_BYTES  (1024 * 1024)
#define TRIALS       32
/* Pieces go through so many buffers in turn, as an agent keeps the last ones. */
#define PIECES_KEPT 32

static uint8_t wire[WIRE_BYTES], plain[WIRE_BYTES];
static const uint8_t key[32] = {1};

static void need(bool held, const char *what)
{
    if (held)
        return;
    perror(what);
    exit(1);
}

static double wall_s(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* ---- cipher: the quicker of the two here ---- */

static EVP_CIPHER_CTX *cipher_new(const EVP_CIPHER *type, bool seal)
{
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    need(cipher != NULL && EVP_CipherInit_ex(cipher, type, NULL, key, NULL, seal) == 1, "a cipher");
    return cipher;
}

static void nonce_set(EVP_CIPHER_CTX *cipher, uint64_t counter)
{
    uint8_t nonce[12] = {0};
    memcpy(nonce + 4, &counter, sizeof counter);
    need(EVP_CipherInit_ex(cipher, NULL, NULL, NULL, nonce, -1) == 1, "a nonce");
}

static void seal(EVP_CIPHER_CTX *cipher, uint64_t counter)
{
    int moved = 0;
    nonce_set(cipher, counter);
    need(EVP_CipherUpdate(cipher, wire, &moved, plain, RECORD_BYTES) == 1 &&
             EVP_CipherFinal_ex(cipher, wire + RECORD_BYTES, &moved) == 1 &&
             EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, wire + RECORD_BYTES) ==
                 1,
         "seal");
}

static void open_record(EVP_CIPHER_CTX *cipher, uint64_t counter, uint8_t *out)
{
    int moved = 0;
    nonce_set(cipher, counter);
    need(EVP_CipherUpdate(cipher, out, &moved, wire, RECORD_BYTES) == 1 &&
             EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, wire + RECORD_BYTES) ==
                 1 &&
             EVP_CipherFinal_ex(cipher, out + RECORD_BYTES, &moved) == 1,
         "open");
}

static double best_s(const EVP_CIPHER *type)
{
    double best = 1;
    EVP_CIPHER_CTX *cipher = cipher_new(type, true);
    for (unsigned i = 0; i < TRIALS; i++) {
        double start_s = wall_s();
        seal(cipher, i);
        double took_s = wall_s() - start_s;
        best = took_s < best ? took_s : best;
    }
    EVP_CIPHER_CTX_free(cipher);
    return best;
}

static const EVP_CIPHER *cipher_type(void)
{
    const EVP_CIPHER *chacha = EVP_chacha20_poly1305(), *aes = EVP_aes_256_gcm();
    return best_s(aes) < best_s(chacha) ? aes : chacha;
}

/* ---- sockets ---- */

/* Two ends of a TCP connection over loopback. */
static void connect_ends(int ends[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t addr_bytes = sizeof addr;
    int buffer = 4 * 1024 * 1024, listener = socket(AF_INET, SOCK_STREAM, 0);
    /* As the agent does on loopback: BBR, often the default, takes 2.5 times as long there. */
    (void)setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    (void)setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    need(listener >= 0 && bind(listener, (struct sockaddr *)&addr, sizeof addr) == 0 &&
             listen(listener, 1) == 0 &&
             getsockname(listener, (struct sockaddr *)&addr, &addr_bytes) == 0,
         "listen");
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    (void)setsockopt(ends[0], IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    (void)setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    need(connect(ends[0], (struct sockaddr *)&addr, sizeof addr) == 0, "connect");
    ends[1] = accept(listener, NULL, NULL);
    need(ends[1] >= 0, "accept");
    (void)close(listener);
}

/* ---- the three processes ---- */

static void send_records(int fd, const EVP_CIPHER *type, uint64_t records)
{
    EVP_CIPHER_CTX *cipher = cipher_new(type, true);
    for (uint64_t i = 0; i < records; i++) {
        seal(cipher, i);
        need(write_whole(fd, wire, sizeof wire), "write");
    }
}

static void drain(int fd)
{
    static uint8_t buffer[8 * RECORD_BYTES];
    while (read(fd, buffer, sizeof buffer) > 0)
        continue;
}

static pid_t child(void)
{
    pid_t pid = fork();
    need(pid >= 0, "fork");
    if (pid == 0)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

/* Receives, opens, hashes, keeps and passes on so many pieces. */
static void node(int from, int to, int file, const EVP_CIPHER *type, uint64_t pieces)
{
    static uint8_t buffers[PIECES_KEPT][PIECE_BYTES + TAG_BYTES];
    uint8_t digest[EVP_MAX_MD_SIZE];
    EVP_CIPHER_CTX *cipher = cipher_new(type, false);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    need(hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1, "a hash");
    uint64_t record = 0;
    for (uint64_t piece = 0; piece < pieces; piece++) {
        uint8_t *bytes = buffers[piece % PIECES_KEPT];
        for (size_t at = 0; at < PIECE_BYTES; at += RECORD_BYTES) {
            need(read_whole(from, wire, sizeof wire), "read");
            open_record(cipher, record++, bytes + at);
        }
        need(EVP_DigestUpdate(hash, bytes, PIECE_BYTES) == 1, "hash");
        need(pwrite(file, bytes, PIECE_BYTES, (off_t)(piece * PIECE_BYTES)) == PIECE_BYTES,
             "pwrite");
        need(write_whole(to, bytes, PIECE_BYTES), "write");
    }
    need(EVP_DigestFinal_ex(hash, digest, NULL) == 1, "hash");
    EVP_MD_CTX_free(hash);
    EVP_CIPHER_CTX_free(cipher);
}

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

int main(int argc, char **argv)
{
    int peer[2], client[2], status = 0;
    struct rusage usage;
    uint64_t pieces = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    if (pieces == 0) {
        (void)fprintf(stderr, "usage: straight FOLDER MIB\n");
        return 1;
    }
    int file = open(argv[1], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    need(file >= 0, argv[1]);
    const EVP_CIPHER *type = cipher_type();
    connect_ends(peer);
    connect_ends(client);
    pid_t sender = child();
    if (sender == 0) {
        send_records(peer[0], type, pieces * (PIECE_BYTES / RECORD_BYTES));
        _exit(0);
    }
    pid_t drainer = child();
    if (drainer == 0) {
        (void)close(client[0]);
        drain(client[1]);
        _exit(0);
    }
    node(peer[1], client[0], file, type, pieces);
    (void)close(client[0]);
    need(waitpid(sender, &status, 0) == sender && status == 0, "the sender");
    need(waitpid(drainer, &status, 0) == drainer && status == 0, "the client");
    (void)getrusage(RUSAGE_SELF, &usage);
    (void)printf("{\"bytes\": %llu, \"user_s\": %.3f, \"system_s\": %.3f, \"cipher\": \"%s\"}\n",
                 (unsigned long long)(pieces * PIECE_BYTES), seconds(&usage.ru_utime),
                 seconds(&usage.ru_stime), EVP_CIPHER_get0_name(type));
    return 0;
}
