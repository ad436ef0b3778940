/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many members of a mesh in one process, so that a real agent can be measured in a large one: each
 * has its own address, identity, sealed datagrams and a whole mesh object (gossip, DHT, transfer).
 *
 *   members SECRET_FILE CLUSTER_ID COUNT FIRST_IPV4 PORT
 *
 * Among themselves the members hand messages over in memory; with everybody else they speak real
 * sealed datagrams through one UDP socket, each from its own address (the addresses must be local:
 * `ip route add local 10.250.0.0/16 dev lo`). They first find each other in fast-forwarded time,
 * print "ready", and run until standard input ends. The line "greet IPV4 PORT" on standard input
 * makes every member ask the node at that address something, so that it holds keys for each of
 * them. Only the mesh port's datagrams exist: nobody accepts TCP.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "mesh.h"
#include "session.h"
#include "topology.h"

#define MEMBERS_LIMIT 4096
/* A turn of the loop: also the step of fast-forwarded time. */
#define TURN_MS 10
/* Fast-forwarded time after which a mesh that is not complete is a failure. */
#define WARM_S_MAX 300
/* Each member begins this much after the one before, so that their timers do not beat together. */
#define STAGGER_US   5000ULL
#define SOCKET_BYTES (8 * 1024 * 1024)
#define SEEDS        3

struct fake {
    struct env env; /* host is this member */
    struct identity identity;
    struct dgram *dgram;
    struct mesh *mesh;
    struct peer_addr addr;
    bool running;
};

/* A message between two of ours, not yet delivered. */
struct letter {
    struct letter *next;
    uint32_t from, to;
    size_t byte_count;
    uint8_t bytes[MESSAGE_BYTES_MAX];
};

static struct {
    struct fake *members;
    uint32_t count, running;
    uint32_t first_ip; /* host order */
    uint16_t port;
    struct admission admission;
    int fd;
    uint64_t skew_us; /* fast-forwarded so far */
    struct letter *first, **last;
    uint64_t refused; /* messages and questions that were not taken */
    uint32_t greeted; /* members that have asked `greet` */
    struct peer_addr greet;
} world;

static void die(const char *what)
{
    (void)fprintf(stderr, "members: %s\n", what);
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000 + (uint64_t)at.tv_nsec / 1000 + world.skew_us;
}

static struct peer_addr address_v4(uint32_t ip, uint16_t port)
{
    struct peer_addr addr = {{[10] = 0xff, [11] = 0xff}, port};
    store_be32(addr.ip + 12, ip);
    return addr;
}

/* Index of the member with this address; `count` if it is none of ours. */
static uint32_t index_of(const struct peer_addr *addr)
{
    uint32_t index = load_be32(addr->ip + 12) - world.first_ip;
    return addr->port == world.port && index < world.count ? index : world.count;
}

/* ---- the host of each member ---- */

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static void host_random(void *host, uint8_t *out, size_t out_bytes)
{
    (void)host;
    randombytes_buf(out, out_bytes);
}

static void host_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    if (level <= LOG_WARN)
        (void)fprintf(stderr, "members: %s\n", line);
}

/* One datagram from a member's own address. What the kernel refuses is lost, as on any network. */
static void put_on_wire(const struct fake *fake, const struct dgram_packet *packet)
{
    union {
        char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
        struct cmsghdr align;
    } control;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(packet->to.port)};
    struct in_pktinfo info = {0};
    struct iovec span = {(void *)(uintptr_t)packet->bytes, packet->byte_count};
    struct msghdr message = {.msg_name = &to,
                             .msg_namelen = sizeof to,
                             .msg_iov = &span,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    memset(&control, 0, sizeof control);
    memcpy(&to.sin_addr, packet->to.ip + 12, 4);
    memcpy(&info.ipi_spec_dst, fake->addr.ip + 12, 4);
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = IPPROTO_IP;
    part->cmsg_type = IP_PKTINFO;
    part->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(part), &info, sizeof info);
    (void)sendmsg(world.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void flush(struct fake *fake)
{
    struct dgram_packet packet;
    while (dgram_next_output(fake->dgram, &packet))
        put_on_wire(fake, &packet);
}

static int host_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct fake *fake = host;
    uint32_t index = index_of(to);
    if (index == world.count) {
        int err = dgram_send(fake->dgram, now_us(), to, msg, msg_bytes);
        flush(fake);
        return err == E_FULL || err == E_NO_MEMORY ? E_AGAIN : err;
    }
    struct letter *letter = malloc(sizeof *letter);
    if (letter == NULL)
        return E_AGAIN;
    letter->from = (uint32_t)(fake - world.members);
    letter->to = index;
    letter->byte_count = msg_bytes;
    letter->next = NULL;
    memcpy(letter->bytes, msg, msg_bytes);
    *world.last = letter;
    world.last = &letter->next;
    return 0;
}

/* ---- making them ---- */

static int make(uint32_t index)
{
    struct fake *fake = &world.members[index];
    char zone[8] = {'z', 'o', 'n', 'e', '-', (char)('a' + index % 4), '\0'};
    fake->env = (struct env){.host = fake,
                             .send = host_send,
                             .random = host_random,
                             .alloc = host_alloc,
                             .trace = host_trace};
    fake->addr = address_v4(world.first_ip + index, world.port);
    identity_generate(&fake->env, &fake->identity);
    const struct dgram_config dgram = {
        .identity = &fake->identity, .admission = &world.admission, .self_addr = fake->addr};
    struct mesh_config mesh = {
        .cluster_id = world.admission.cluster_id,
        .self_addr = fake->addr,
        .self_key = fake->identity.public_key,
        .capacity_class = 10,
        .dht = {.one_hop = true},
    };
    int err = label_set(&mesh.topology.region, "lab", 3);
    if (err == 0)
        err = label_set(&mesh.topology.zone, zone, strlen(zone));
    if (err == 0)
        err = dgram_new(&fake->env, &dgram, now_us(), &fake->dgram);
    if (err == 0)
        err = mesh_new(&fake->env, &mesh, now_us(), &fake->mesh);
    return err;
}

static void start(uint32_t index)
{
    struct fake *fake = &world.members[index];
    struct peer_addr seeds[SEEDS];
    size_t count = 0;
    if (make(index) != 0)
        die("cannot make a member");
    fake->running = true;
    for (uint32_t step = 1; step <= SEEDS && step <= index; step++)
        seeds[count++] = world.members[index - step].addr;
    if (count > 0)
        gossip_join(mesh_gossip(fake->mesh), now_us(), seeds, count);
    world.running++;
}

/* ---- turning ---- */

/* Nobody here has a blob: what the mesh tells its host needs no answer. */
static void drain(struct fake *fake)
{
    struct mesh_event event;
    while (mesh_next_result(fake->mesh, now_us(), &event))
        ;
}

static void deliver(void)
{
    struct letter *letter = world.first;
    world.first = NULL;
    world.last = &world.first;
    while (letter != NULL) {
        struct letter *next = letter->next;
        struct fake *to = &world.members[letter->to];
        const struct fake *from = &world.members[letter->from];
        if (to->running) {
            world.refused += mesh_receive(to->mesh, now_us(), mesh_self(from->mesh), &from->addr,
                                          letter->bytes, letter->byte_count) != 0;
            drain(to);
        }
        free(letter);
        letter = next;
    }
}

/* One received datagram: for whom, and what it holds. */
static void receive(struct msghdr *message, const uint8_t *bytes, size_t byte_count)
{
    uint8_t plain[MESSAGE_BYTES_MAX];
    uint8_t copy[DATAGRAM_BYTES_MAX];
    size_t plain_bytes = 0;
    struct session_peer from;
    struct sockaddr_in source;
    struct in_pktinfo info = {0};
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO)
            memcpy(&info, CMSG_DATA(part), sizeof info);
    }
    const struct peer_addr to = address_v4(ntohl(info.ipi_addr.s_addr), world.port);
    uint32_t index = index_of(&to);
    if (index == world.count || !world.members[index].running || byte_count > sizeof copy)
        return;
    struct fake *fake = &world.members[index];
    memcpy(&source, message->msg_name, sizeof source);
    memcpy(copy, bytes, byte_count);
    const struct peer_addr transport =
        address_v4(ntohl(source.sin_addr.s_addr), ntohs(source.sin_port));
    int err = dgram_receive(fake->dgram, now_us(), &transport, copy, byte_count, plain,
                            &plain_bytes, &from);
    if (err == 0 && plain_bytes > 0)
        world.refused +=
            mesh_receive(fake->mesh, now_us(), &from.id, &from.addr, plain, plain_bytes) != 0;
    flush(fake);
    drain(fake);
}

static void receive_all(void)
{
    uint8_t bytes[2048];
    union {
        char bytes[256];
        struct cmsghdr align;
    } control;
    for (;;) {
        struct sockaddr_in source;
        struct iovec span = {bytes, sizeof bytes};
        struct msghdr message = {.msg_name = &source,
                                 .msg_namelen = sizeof source,
                                 .msg_iov = &span,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof control};
        ssize_t got = recvmsg(world.fd, &message, MSG_DONTWAIT);
        if (got < 0)
            return;
        receive(&message, bytes, (size_t)got);
    }
}

static void advance_all(void)
{
    for (uint32_t i = 0; i < world.count; i++) {
        struct fake *fake = &world.members[i];
        if (!fake->running)
            continue;
        uint64_t at_us = now_us();
        if (mesh_deadline_us(fake->mesh) <= at_us) {
            mesh_advance(fake->mesh, at_us);
            drain(fake);
        }
        if (dgram_deadline_us(fake->dgram) <= at_us) {
            dgram_advance(fake->dgram, at_us);
            flush(fake);
        }
    }
}

static void turn(void)
{
    receive_all();
    advance_all();
    for (unsigned i = 0; i < 8 && world.first != NULL; i++)
        deliver();
}

static bool complete(void)
{
    if (world.running < world.count)
        return false;
    for (uint32_t i = 0; i < world.count; i++) {
        if (gossip_count(mesh_gossip(world.members[i].mesh)) < world.count)
            return false;
    }
    return true;
}

/* Lets them find each other, without waiting for the clock. */
static void warm_up(void)
{
    uint64_t start_us = now_us();
    uint64_t limit_us = start_us + (uint64_t)WARM_S_MAX * 1000000 + world.count * STAGGER_US;
    for (uint64_t turns = 0;; turns++) {
        while (world.running < world.count && now_us() - start_us >= world.running * STAGGER_US)
            start(world.running);
        turn();
        if (turns % 64 == 0 && complete())
            return;
        if (now_us() > limit_us)
            die("they do not find each other");
        world.skew_us += TURN_MS * 1000;
    }
}

/* ---- asking the agent ---- */

/* A search for the agent's own place ends at the agent: it must exchange keys with each member. */
static void greet_some(void)
{
    struct node_id id;
    struct blob_key key;
    uint64_t lookup_id;
    if (world.greet.port == 0)
        return;
    node_id_of(world.admission.cluster_id, &world.greet, &id);
    memcpy(key.bytes, id.bytes, sizeof key.bytes);
    for (unsigned i = 0; i < 2 && world.greeted < world.count; i++) {
        struct fake *fake = &world.members[world.greeted++];
        world.refused += mesh_lookup_iterative(fake->mesh, now_us(), &key, &lookup_id) != 0;
        drain(fake);
    }
}

/* False at the end of standard input. */
static bool obey(void)
{
    char line[128], ip[64];
    unsigned port;
    ssize_t got = read(0, line, sizeof line - 1);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0)
        return false;
    line[got] = '\0';
    const char *space = strchr(line, ' ');
    struct peer_addr to;
    if (strncmp(line, "greet ", 6) != 0 || space == NULL)
        die("unknown command");
    (void)snprintf(ip, sizeof ip, "%.*s", (int)strcspn(space + 1, " \n"), space + 1);
    port = (unsigned)strtoul(space + 1 + strlen(ip), NULL, 10);
    if (peer_addr_parse(ip, (uint16_t)port, &to) != 0)
        die("bad address");
    world.greet = to;
    return true;
}

/* ---- start ---- */

static void read_secret(const char *path)
{
    char text[2 * CLUSTER_SECRET_BYTES + 1] = "";
    FILE *file = fopen(path, "r");
    if (file == NULL || fread(text, 1, sizeof text - 1, file) != sizeof text - 1 ||
        hex_decode(text, sizeof text - 1, world.admission.secrets[0], CLUSTER_SECRET_BYTES) != 0)
        die("cannot read the secret");
    (void)fclose(file);
    world.admission.secret_count = 1;
}

static void open_socket(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(world.port)};
    int on = 1, bytes = SOCKET_BYTES;
    world.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (world.fd < 0 || setsockopt(world.fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) != 0 ||
        bind(world.fd, (const struct sockaddr *)&any, sizeof any) != 0)
        die("cannot open the socket");
    (void)setsockopt(world.fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    (void)setsockopt(world.fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
}

int main(int argc, char **argv)
{
    struct in_addr first;
    if (argc != 6 || sodium_init() < 0)
        die("usage: members SECRET_FILE CLUSTER_ID COUNT FIRST_IPV4 PORT");
    read_secret(argv[1]);
    if (text_copy(world.admission.cluster_id, sizeof world.admission.cluster_id, argv[2]) != 0 ||
        inet_pton(AF_INET, argv[4], &first) != 1)
        die("bad cluster id or address");
    world.count = (uint32_t)strtoul(argv[3], NULL, 10);
    world.first_ip = ntohl(first.s_addr);
    world.port = (uint16_t)strtoul(argv[5], NULL, 10);
    world.last = &world.first;
    world.members = calloc(world.count, sizeof *world.members);
    if (world.members == NULL || world.count == 0 || world.count > MEMBERS_LIMIT)
        die("bad count");
    open_socket();
    uint64_t start_us = now_us();
    warm_up();
    (void)printf("ready %u members, %.1f s of their time\n", world.count,
                 (double)(now_us() - start_us) / 1e6);
    (void)fflush(stdout);
    (void)fcntl(0, F_SETFL, O_NONBLOCK);
    while (obey()) {
        struct pollfd wait = {.fd = world.fd, .events = POLLIN};
        (void)poll(&wait, 1, TURN_MS);
        turn();
        greet_some();
    }
    (void)printf("refused %llu\n", (unsigned long long)world.refused);
    return 0;
}
