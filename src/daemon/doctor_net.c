/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `shoal doctor` asks others: are peers there, do they have our secret, does UDP come through;
 * do registries answer, and what time do they have.
 *
 * A peer is asked by the first message of the handshake: who has our secret answers it, who does
 * not closes without a word (session.h). The third message is never sent, so nothing comes of it
 * at the peer but a handshake that ran out.
 */
#include <netdb.h>
#include <sodium.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "blocking.h"
#include "bootstrap.h"
#include "bytes.h"
#include "doctor.h"
#include "fetch_once.h"
#include "loop.h"
#include "net.h"
#include "secret_file.h"
#include "session.h"
#include "socket_addr.h"
#include "status_text.h"

#define PEERS_MAX 16
#define ASKED_MAX 16
#define ASK_MS    1500
/* For name, connection and TLS, and again for the answer. */
#define REGISTRY_MS   3000
#define REGISTRIES_MS 20000
/* Tokens and certificates are good for minutes at least; half a minute is no accident. */
#define SKEW_WARNING_S 30
#define SKEW_ERROR_S   300

/* ---- names ---- */

static bool resolve(const char *host, uint16_t port, struct peer_addr *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    if (peer_addr_parse(host, port, out) == 0)
        return true;
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return false;
    bool found = false;
    for (struct addrinfo *at = list; at != NULL && !found; at = at->ai_next)
        found = net_from_sockaddr(at->ai_addr, out) == 0;
    out->port = port;
    freeaddrinfo(list);
    return found;
}

/* ---- peers ---- */

static void draw(void *host, uint8_t *out, size_t out_bytes)
{
    (void)host;
    randombytes_buf(out, out_bytes);
}

static void keep_quiet(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

struct greeting {
    struct env env;
    struct identity identity;
    struct admission admission;
    uint16_t port; /* of our mesh address, as far as it is known */
};

/* The first message says where we are, which must be where it comes from (strictAddress). */
static void own_address(const struct greeting *greeting, int fd, struct peer_addr *out)
{
    struct sockaddr_storage name = {.ss_family = AF_UNSPEC};
    socklen_t bytes = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &bytes) == 0)
        socket_addr_from(&name, out);
    out->port = greeting->port;
}

/* Sends the first message and takes the first bytes of the answer. */
static int exchange_hello(struct greeting *greeting, const struct peer_addr *peer, int fd,
                          uint64_t deadline_ms)
{
    struct session_config config = {
        .identity = &greeting->identity,
        .admission = &greeting->admission,
        .remote = *peer,
        .initiator = true,
        .allow_any_ip = true,
    };
    struct session *session = NULL;
    uint8_t answer[RECORD_HEADER_BYTES];
    size_t bytes = 0, got = 0;
    own_address(greeting, fd, &config.self_addr);
    int err = session_new(&greeting->env, &config, blocking_now_ms() * 1000, &session);
    const uint8_t *hello = err == 0 ? session_output(session, &bytes) : NULL;
    if (err == 0)
        err = blocking_send(fd, hello, bytes, deadline_ms);
    if (err == 0)
        err = blocking_recv(fd, answer, sizeof answer, deadline_ms, &got);
    session_free(session);
    return err;
}

/* 0: it has our secret; E_AUTH: it has not; E_REFUSED, E_TIMEOUT, E_UNREACHABLE: nobody could be
 * asked; E_AGAIN: it took the connection and said nothing. */
static int greet(struct greeting *greeting, const struct peer_addr *peer)
{
    uint64_t deadline_ms = blocking_now_ms() + ASK_MS;
    int fd = -1;
    int err = blocking_connect(peer, deadline_ms, &fd);
    if (err != 0)
        return err;
    err = exchange_hello(greeting, peer, fd, deadline_ms);
    (void)close(fd);
    return err == E_CLOSED ? E_AUTH : err == E_TIMEOUT ? E_AGAIN : err;
}

static const char *peer_state(const json_t *status, const char *addr)
{
    const json_t *member;
    size_t i;
    json_array_foreach(json_object_get(status, "members"), i, member)
    {
        if (strcmp(json_text_at(member, "addr"), addr) == 0)
            return json_text_at(member, "state");
    }
    return "";
}

static void peer_trouble(const struct doctor *doctor, const char *addr, int err)
{
    struct doctor_report *report = doctor->report;
    switch (err) {
    case E_AUTH:
        doctor_add(
            report, FINDING_ERROR, addr,
            "compare clusterSecretFile (sha256sum) and clusterId on both nodes, and denyFile "
            "there",
            "it refuses us: its secret or clusterId differs from ours");
        return;
    case E_REFUSED:
        doctor_add(
            report, FINDING_ERROR, addr,
            "start the agent there, or correct bootstrap; is listen.mesh there another port?",
            "nobody listens on its mesh port");
        return;
    case E_AGAIN:
        doctor_add(report, FINDING_ERROR, addr, "see the agent's log there",
                   "it takes connections but does not answer");
        return;
    default:
        doctor_add(report, FINDING_ERROR, addr,
                   "open TCP and UDP of the mesh port between all nodes: firewall, security group, "
                   "NetworkPolicy",
                   "its mesh port is blocked or the node is down: %s", err_text(err));
    }
}

static void one_peer(const struct doctor *doctor, struct greeting *greeting,
                     const struct peer_addr *peer)
{
    char addr[PEER_ADDR_TEXT_BYTES];
    int err = greet(greeting, peer);
    (void)peer_addr_text(peer, addr);
    const char *state = peer_state(doctor->status, addr);
    if (err != 0) {
        peer_trouble(doctor, addr, err);
        return;
    }
    bool member = strcmp(state, "alive") == 0 || strcmp(state, "leaving") == 0;
    bool own = strcmp(json_text_at(doctor->status, "addr"), addr) == 0;
    if (doctor->status != NULL && !member && !own)
        doctor_add(doctor->report, FINDING_ERROR, addr,
                   "open UDP of the mesh port between all nodes as well; a node that has just "
                   "started needs some seconds",
                   "it answers by TCP and has our secret, but is %s here: UDP is blocked",
                   state[0] == '\0' ? "no member" : state);
    else
        doctor_add(doctor->report, FINDING_OK, addr, "", "answers, has our secret%s%s",
                   member ? ", member: " : "", member ? state : "");
}

struct peer_list {
    struct peer_addr peers[PEERS_MAX];
    unsigned count;
};

static void list_peer(struct peer_list *list, const struct peer_addr *peer)
{
    for (unsigned i = 0; i < list->count; i++)
        if (peer_addr_equal(&list->peers[i], peer))
            return;
    if (list->count < PEERS_MAX)
        list->peers[list->count++] = *peer;
}

/* Those that bootstrap names, then members in trouble, then others. */
static void list_peers(const struct doctor *doctor, struct peer_list *list)
{
    const struct config *config = doctor->config;
    const json_t *members = json_object_get(doctor->status, "members"), *member;
    const char *own = json_text_at(doctor->status, "addr");
    for (uint32_t i = 0; i < config->bootstrap_count; i++) {
        char host[CONFIG_TEXT_BYTES];
        struct peer_addr peer;
        uint16_t port = CONFIG_MESH_PORT;
        const char *text = config->bootstrap[i].text;
        if (bootstrap_split(text, CONFIG_MESH_PORT, host, sizeof host, &port) != 0 ||
            !resolve(host, port, &peer))
            doctor_add(doctor->report, FINDING_ERROR, text,
                       "correct bootstrap, or the name's DNS record", "the name has no address");
        else
            list_peer(list, &peer);
    }
    for (int pass = 0; pass < 2; pass++) {
        size_t i;
        json_array_foreach(members, i, member)
        {
            struct peer_addr peer;
            const char *addr = json_text_at(member, "addr");
            bool alive = strcmp(json_text_at(member, "state"), "alive") == 0;
            if (alive == (pass == 1) && strcmp(addr, own) != 0 &&
                peer_addr_parse(addr, CONFIG_MESH_PORT, &peer) == 0)
                list_peer(list, &peer);
        }
    }
}

static bool greeting_init(const struct config *config, struct greeting *out)
{
    struct config_error error;
    *out = (struct greeting){.env = {.random = draw, .alloc = loop_alloc, .trace = keep_quiet}};
    if (config->secret_file_count == 0 || sodium_init() < 0 ||
        text_copy(out->admission.cluster_id, sizeof out->admission.cluster_id,
                  config->cluster_id.text) != 0 ||
        secret_file_read(config->secret_files[0].text, out->admission.secrets[0], &error) != 0)
        return false;
    out->admission.secret_count = 1;
    out->port = config->listen_mesh.port != 0 ? config->listen_mesh.port : CONFIG_MESH_PORT;
    identity_generate(&out->env, &out->identity);
    return true;
}

void doctor_peers(const struct doctor *doctor)
{
    doctor->report->check = "peers";
    struct peer_list list = {.count = 0};
    struct greeting *greeting = loop_alloc(NULL, NULL, sizeof *greeting);
    list_peers(doctor, &list);
    if (greeting == NULL || !greeting_init(doctor->config, greeting)) {
        doctor_add(doctor->report, FINDING_OK, "", "",
                   "not asked: there is no cluster secret to ask with");
        list.count = 0;
    } else if (list.count == 0) {
        doctor_add(doctor->report, doctor->config->bootstrap_count > 0 ? FINDING_ERROR : FINDING_OK,
                   "", "", "no other node is known");
    }
    for (unsigned i = 0; i < list.count; i++)
        one_peer(doctor, greeting, &list.peers[i]);
    if (greeting != NULL) {
        identity_close(&greeting->identity);
        sodium_memzero(greeting, sizeof *greeting);
    }
    (void)loop_alloc(NULL, greeting, 0);
}

/* ---- registries and clock ---- */

static void compare_clock(const struct doctor *doctor, const char *name, const char *date)
{
    uint64_t theirs, ours = loop_wall_s();
    if (doctor_http_date(date, &theirs) != 0)
        return;
    uint64_t skew = theirs > ours ? theirs - ours : ours - theirs;
    enum finding_level level = skew > SKEW_ERROR_S     ? FINDING_ERROR
                               : skew > SKEW_WARNING_S ? FINDING_WARNING
                                                       : FINDING_OK;
    doctor_add(doctor->report, level, name,
               level == FINDING_OK ? "" : "set this node's clock, and keep it set (chrony, ntpd)",
               "this node's clock is %u s %s the registry's",
               (unsigned)(skew < UINT32_MAX ? skew : UINT32_MAX),
               skew == 0       ? "off"
               : theirs > ours ? "behind"
                               : "ahead of");
}

/* As the agent itself would ask: the entry's CA, certificate, proxy and permitted addresses. */
static int ask_registry(const struct registry_entry *entry, struct fetch_once *once)
{
    char url[sizeof entry->endpoint + 8];
    (void)snprintf(url, sizeof url, "%s/v2/", entry->endpoint);
    const struct fetch_request request = {
        .method = "HEAD",
        .url = url,
        .ca_file = entry->ca_file,
        .client_cert = entry->client_cert,
        .client_key = entry->client_key,
        .proxy = entry->proxy,
        .allow_private = &entry->allow_private,
        .connect_timeout_ms = REGISTRY_MS,
        .first_byte_timeout_ms = REGISTRY_MS,
        .idle_timeout_ms = REGISTRY_MS,
    };
    return fetch_once(&request, once);
}

static const char *registry_todo(int err, const struct registry_entry *entry)
{
    if (err == E_TLS)
        return "set registries[].ca to the CA that signs its certificate, and clientCertificate if "
               "it asks for one; is TLS intercepted on the way, or this node's clock off?";
    if (err == E_REFUSED)
        return "its name leads to an address that is not public: set registries[].allowPrivate if "
               "that is meant";
    if (entry->proxy[0] != '\0')
        return "check registries[].proxy, what it lets through, and registries[].endpoint";
    return "check network, DNS and firewall of this node, and registries[].endpoint";
}

static void registry_answers(const struct doctor *doctor, const struct registry_entry *entry,
                             const struct fetch_once *once)
{
    bool odd = once->status >= 500 || once->status == 404 || once->status == 407;
    doctor_add(doctor->report, odd ? FINDING_WARNING : FINDING_OK, entry->name,
               odd ? "is that a registry, and the right one? check registries[].endpoint and proxy"
                   : "",
               "%.300s answers%s%.300s with %d", entry->endpoint,
               entry->proxy[0] == '\0' ? "" : " through ", entry->proxy, once->status);
    if (once->date[0] == '\0')
        return;
    doctor->report->check = "clock";
    compare_clock(doctor, entry->name, once->date);
    doctor->report->check = "registry";
}

static void one_registry(const struct doctor *doctor, const struct registry_entry *entry)
{
    struct fetch_once once = {.body = NULL};
    int err = ask_registry(entry, &once);
    if (err == 0) {
        registry_answers(doctor, entry, &once);
        return;
    }
    doctor_add(doctor->report, FINDING_ERROR, entry->name, registry_todo(err, entry),
               "%.200s%s%.200s gives no answer: %s%s%s", entry->endpoint,
               entry->proxy[0] == '\0' ? "" : " through ", entry->proxy, err_text(err),
               once.reason[0] == '\0' ? "" : ": ", once.reason);
}

/* Built-in ones are not asked unless nothing else is configured: many nodes never use them. */
void doctor_registries(const struct doctor *doctor)
{
    doctor->report->check = "registry";
    const struct config *config = doctor->config;
    uint64_t end_ms = blocking_now_ms() + REGISTRIES_MS;
    unsigned asked = 0;
    for (uint32_t i = 0; i < config->registry_count && asked < ASKED_MAX; i++) {
        const struct registry_entry *entry = &config->registry_entries[i];
        if (config->registries_source == CONFIG_FROM_DEFAULT && !entry->is_default)
            continue;
        asked++;
        if (entry->name[0] == '*')
            continue; /* a pattern names no host */
        if (blocking_now_ms() >= end_ms)
            doctor_add(doctor->report, FINDING_WARNING, entry->name,
                       "mend those above, and ask again", "not asked: others took too long");
        else
            one_registry(doctor, entry);
    }
    if (asked == 0)
        doctor_add(doctor->report, FINDING_WARNING, "registries",
                   "name at least one, or leave builtinRegistries on", "no registry is configured");
}
