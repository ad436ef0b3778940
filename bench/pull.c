/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One node's client in a race (race.py): an image's manifest, then its blobs several at a time,
 * like a runtime, every byte hashed; as cheap as that can be, because one machine plays all nodes.
 *
 *   pull ADDRESS PORT ACCEPT PARALLEL  PATH SIZE SHA256  [PATH SIZE SHA256 ...]
 *
 * The first path is the manifest's; size 0: any. Says "ready", waits for "go", says "note
 * manifest_s T" and "done T" (T: seconds of CLOCK_MONOTONIC), or "failed WHY", then ends.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES     (256 * 1024)
#define HEAD_BYTES_MAX 16384
#define PARALLEL_MAX   16
#define SILENT_S_MAX   120
#define SHA256_BYTES   32

/* What all threads share; written before they start, but for `next` and `failed`. */
static struct {
    const char *address, *port, *accept;
    char **objects; /* three words each */
    int object_count;
    atomic_int next;
    atomic_bool failed;
} job;

/* Where a thread reads into. */
struct reader {
    pthread_t thread;
    uint8_t bytes[READ_BYTES];
};
static struct reader readers[PARALLEL_MAX];

static double now_s(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* Says so, once. -1. */
static int fail(const char *path, const char *why)
{
    if (!atomic_exchange(&job.failed, true))
        (void)printf("failed %s: %s\n", path, why);
    return -1;
}

static int connect_to(const char *path)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(job.port, NULL, 10))};
    const struct timeval silent = {.tv_sec = SILENT_S_MAX};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || inet_pton(AF_INET, job.address, &to.sin_addr) != 1)
        return fail(path, "bad address");
    if (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        (void)close(fd);
        return fail(path, "cannot connect");
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silent, sizeof silent);
    return fd;
}

static int ask(int fd, const char *path)
{
    char request[4096];
    int bytes = snprintf(request, sizeof request,
                         "GET %s HTTP/1.1\r\nHost: %s:%s\r\nAccept: %s\r\nAccept-Encoding: "
                         "identity\r\nConnection: close\r\n\r\n",
                         path, job.address, job.port, job.accept);
    if (bytes < 0 || (size_t)bytes >= sizeof request ||
        send(fd, request, (size_t)bytes, MSG_NOSIGNAL) != bytes)
        return fail(path, "cannot ask");
    return 0;
}

/* Reads a 200's head; what of the body came with it is moved to the front of `bytes`. Its length,
 * or -1. */
static ssize_t read_head(int fd, const char *path, uint8_t *bytes)
{
    size_t used = 0;
    const char *end = NULL;
    char *head = (char *)bytes;
    while (end == NULL) {
        ssize_t got = used < HEAD_BYTES_MAX ? recv(fd, head + used, HEAD_BYTES_MAX - used, 0) : 0;
        if (got <= 0)
            return fail(path, "no whole head");
        used += (size_t)got;
        head[used] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0)
        return fail(path, "not a 200");
    size_t left = used - (size_t)(end + 4 - head);
    memmove(bytes, end + 4, left);
    return (ssize_t)left;
}

/* Reads an answer to its end; *size is set and `sha` fed. */
static int read_body(int fd, const char *path, uint8_t *bytes, EVP_MD_CTX *sha, uint64_t *size)
{
    ssize_t got = read_head(fd, path, bytes);
    if (got < 0)
        return -1;
    do {
        if (EVP_DigestUpdate(sha, bytes, (size_t)got) != 1)
            return fail(path, "cannot hash");
        *size += (uint64_t)got;
        got = recv(fd, bytes, READ_BYTES, 0);
    } while (got > 0);
    return got == 0 ? 0 : fail(path, "broke off");
}

static bool is_digest(const uint8_t hash[SHA256_BYTES], const char *hex)
{
    char text[2 * SHA256_BYTES + 1];
    for (size_t i = 0; i < SHA256_BYTES; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", hash[i]);
    return strcmp(text, hex) == 0;
}

/* Gets one object and checks it. 0 or -1. */
static int get(char **object, uint8_t *bytes)
{
    const char *path = object[0];
    uint64_t wanted = strtoull(object[1], NULL, 10), size = 0;
    uint8_t hash[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    int fd = connect_to(path), err = fd < 0 ? -1 : 0;
    if (err == 0 && (sha == NULL || EVP_DigestInit_ex(sha, EVP_sha256(), NULL) != 1))
        err = fail(path, "cannot hash");
    if (err == 0)
        err = ask(fd, path);
    if (err == 0)
        err = read_body(fd, path, bytes, sha, &size);
    if (err == 0 && wanted != 0 && size != wanted)
        err = fail(path, "wrong length");
    if (err == 0 && (EVP_DigestFinal_ex(sha, hash, NULL) != 1 || !is_digest(hash, object[2])))
        err = fail(path, "wrong bytes");
    if (fd >= 0)
        (void)close(fd);
    EVP_MD_CTX_free(sha);
    return err;
}

static void *pull_some(void *arg)
{
    struct reader *reader = arg;
    for (;;) {
        int object = atomic_fetch_add(&job.next, 1);
        if (object >= job.object_count || atomic_load(&job.failed))
            return NULL;
        (void)get(job.objects + (ptrdiff_t)object * 3, reader->bytes);
    }
}

static void pull_all(unsigned parallel)
{
    if (get(job.objects, readers[0].bytes) != 0)
        return;
    (void)printf("note manifest_s %.6f\n", now_s());
    atomic_store(&job.next, 1);
    unsigned started = 0;
    while (started < parallel &&
           pthread_create(&readers[started].thread, NULL, pull_some, &readers[started]) == 0)
        started++;
    if (started < parallel)
        (void)fail("threads", "cannot start");
    while (started-- > 0)
        (void)pthread_join(readers[started].thread, NULL);
}

int main(int argc, char **argv)
{
    char line[16] = "";
    unsigned long parallel = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
    if (argc < 8 || (argc - 5) % 3 != 0 || parallel < 1 || parallel > PARALLEL_MAX) {
        (void)fprintf(stderr, "usage: pull ADDRESS PORT ACCEPT PARALLEL PATH SIZE SHA256 ...\n");
        return 2;
    }
    job.address = argv[1];
    job.port = argv[2];
    job.accept = argv[3];
    job.objects = argv + 5;
    job.object_count = (argc - 5) / 3;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    memset(readers, 1, parallel * sizeof readers[0]); /* touched before the clock runs */
    (void)printf("ready\n");
    if (fgets(line, sizeof line, stdin) == NULL || strcmp(line, "go\n") != 0)
        return 1;
    pull_all((unsigned)parallel);
    if (atomic_load(&job.failed))
        return 1;
    (void)printf("done %.6f\n", now_s());
    /* Until its input is closed: who measures reads what this process spent. */
    while (fgets(line, sizeof line, stdin) != NULL) {
    }
    return 0;
}
