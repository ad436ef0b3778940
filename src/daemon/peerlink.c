/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a connection: accept or dial, handshake, open, closed. Reading and writing are in
 * peerlink_read.c and peerlink_write.c.
 */
#include "peerlink.h"

#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "log.h"
#include "net.h"
#include "node_internal.h"

/* A dial that takes longer is one to a dead address (N-7); the configuration may ask for less. */
#define DIAL_US_MAX 5000000ULL

void link_set_state(struct peerlink *link, enum link_state to)
{
    static const bool allowed[5][5] = {
        [LINK_UNUSED] = {[LINK_CONNECTING] = true, [LINK_HANDSHAKE] = true, [LINK_CLOSING] = true},
        [LINK_CONNECTING] = {[LINK_HANDSHAKE] = true, [LINK_CLOSING] = true},
        [LINK_HANDSHAKE] = {[LINK_OPEN] = true, [LINK_CLOSING] = true},
        [LINK_OPEN] = {[LINK_CLOSING] = true},
    };
    ASSERT(allowed[link->state][to]);
    link->state = to;
}

/* ---- the list of all ---- */

static void list_add(struct mesh_tcp *tcp, struct peerlink *link)
{
    link->next = tcp->links;
    if (link->next != NULL)
        link->next->previous = link;
    tcp->links = link;
    tcp->link_count++;
}

static void list_remove(struct mesh_tcp *tcp, struct peerlink *link)
{
    if (link->previous != NULL)
        link->previous->next = link->next;
    else
        tcp->links = link->next;
    if (link->next != NULL)
        link->next->previous = link->previous;
    ASSERT(tcp->link_count > 0);
    tcp->link_count--;
}

static void on_closed(uv_handle_t *handle)
{
    struct peerlink *link = handle->data;
    ASSERT(link->magic == LINK_MAGIC);
    ASSERT(link->state == LINK_CLOSING);
    ASSERT(link->batch == NULL);
    list_remove(link->owner, link);
    link->magic = 0;
    (void)loop_alloc(NULL, link, 0);
}

/* A link with its uv handle; freed by on_closed. NULL when memory is short. */
static struct peerlink *link_new(struct mesh_tcp *tcp, bool outgoing)
{
    struct peerlink *link = loop_alloc(NULL, NULL, sizeof *link);
    if (link == NULL)
        return NULL;
    memset(link, 0, sizeof *link);
    if (uv_tcp_init(&tcp->node->loop->uv, &link->tcp) != 0) {
        (void)loop_alloc(NULL, link, 0);
        return NULL;
    }
    link->magic = LINK_MAGIC;
    link->tcp.data = link;
    link->owner = tcp;
    link->outgoing = outgoing;
    link->used_us = node_now(tcp->node);
    list_add(tcp, link);
    return link;
}

/* ---- closing ---- */

/* One that called us and has not our secret; that who we called has not is known by its silence. */
static void handshake_refused(struct peerlink *link)
{
    struct node *node = link->owner->node;
    node->counters.handshakes_auth++;
    if (!link->outgoing)
        node_outsider(node, &link->remote, "a connection");
}

static void count_close(struct peerlink *link, int status)
{
    struct node_counters *counters = &link->owner->node->counters;
    if (link->state == LINK_CONNECTING)
        counters->connects_failed++;
    if (link->state == LINK_HANDSHAKE) {
        if (status == E_AUTH)
            handshake_refused(link);
        else if (status == E_TIMEOUT)
            counters->handshakes_timeout++;
        else
            counters->handshakes_other++;
    }
    if (link->state != LINK_OPEN)
        return;
    if (status == E_AUTH)
        counters->links_closed_auth++;
    else if (status == E_CLOSED && link->retired)
        counters->links_closed_idle++;
    else if (status == E_PROTOCOL || status == E_MALFORMED || status == E_TRUNCATED ||
             status == E_TOO_LARGE)
        counters->links_closed_protocol++;
    else
        counters->links_closed_io++;
}

void peerlink_close(struct peerlink *link, int status)
{
    struct mesh_tcp *tcp = link->owner;
    char remote[PEER_ADDR_TEXT_BYTES];
    if (link->state == LINK_CLOSING)
        return;
    count_close(link, status);
    log_to(&tcp->node->env, LOG_DEBUG, "link: closed remote=%s outgoing=%d open=%d reason=%s",
           peer_addr_text(&link->remote, remote), (int)link->outgoing,
           (int)(link->state == LINK_OPEN), err_name(status));
    if (!link->outgoing && link->state == LINK_HANDSHAKE)
        tcp->pending--;
    bool counted = link->peer != NULL && link->peer->dial == link;
    if (counted)
        tcp->dials--;
    link_read_close(link);
    link_write_close(link, status);
    link_set_state(link, LINK_CLOSING);
    session_free(link->session);
    link->session = NULL;
    uv_close((uv_handle_t *)&link->tcp, on_closed);
    tcp_link_closed(tcp, link, status);
}

/* ---- handshake ---- */

int link_flush_handshake(struct peerlink *link)
{
    size_t bytes = 0;
    const uint8_t *out = session_output(link->session, &bytes);
    if (bytes == 0)
        return 0;
    /* A few hundred bytes into an empty socket buffer: less than all of it is a broken socket. */
    uv_buf_t span;
    span.base = (char *)(uintptr_t)out;
    span.len = bytes;
    int written = uv_try_write((uv_stream_t *)&link->tcp, &span, 1);
    if (written < 0 || (size_t)written != bytes)
        return E_IO;
    session_output_sent(link->session, bytes);
    link->bytes_out += bytes;
    link->owner->node->counters.tcp_bytes_out += bytes;
    return 0;
}

static int handshake_start(struct peerlink *link)
{
    struct node *node = link->owner->node;
    const struct session_config config = {
        .identity = &node->identity,
        .admission = &node->admission,
        .self_addr = node->self_addr,
        .remote = link->remote,
        .initiator = link->outgoing,
        .allow_any_ip = !node->config->strict_address,
        .aes = node->aes,
    };
    net_tune_link(&link->tcp, &link->remote);
    int err = session_new(&node->env, &config, node_now(node), &link->session);
    if (err != 0)
        return err;
    link_set_state(link, LINK_HANDSHAKE);
    link->deadline_us = session_deadline_us(link->session);
    if (!link->outgoing)
        link->owner->pending++;
    err = link_flush_handshake(link);
    return err != 0 ? err : link_read_start(link);
}

void link_opened(struct peerlink *link)
{
    struct mesh_tcp *tcp = link->owner;
    const struct session_peer *peer = session_peer(link->session);
    char remote[PEER_ADDR_TEXT_BYTES];
    ASSERT(peer != NULL);
    link_set_state(link, LINK_OPEN);
    log_to(&tcp->node->env, LOG_DEBUG, "link: open remote=%s outgoing=%d cipher=%s",
           peer_addr_text(&link->remote, remote), (int)link->outgoing,
           session_aes_text(session_aes(link->session) ? tcp->node->aes : SESSION_AES_NONE));
    link->deadline_us = UINT64_MAX;
    link->peer_key = peer->key;
    link->used_us = node_now(tcp->node);
    if (!link->outgoing)
        tcp->pending--;
    tcp->node->counters.handshakes++;
    tcp_link_open(tcp, link);
}

/* ---- accept ---- */

static bool remote_of(uv_tcp_t *handle, struct peer_addr *out)
{
    struct sockaddr_storage raw;
    int raw_bytes = sizeof raw;
    memset(&raw, 0, sizeof raw);
    return uv_tcp_getpeername(handle, (struct sockaddr *)&raw, &raw_bytes) == 0 &&
           net_from_sockaddr((const struct sockaddr *)&raw, out) == 0;
}

/* PEER-7 and RES-3: what an outsider may cost. */
static bool admit(struct mesh_tcp *tcp, const struct peer_addr *remote)
{
    return !tcp->closing && tcp->pending < TCP_PENDING_MAX && tcp->link_count <= tcp->links_max &&
           handshake_budget_take(&tcp->budget, node_now(tcp->node), remote);
}

void peerlink_accept(struct mesh_tcp *tcp, int fd)
{
    struct peerlink *link = link_new(tcp, false);
    int err = link == NULL ? E_NO_MEMORY : loop_uv_error(uv_tcp_open(&link->tcp, fd));
    if (err != 0) /* the handle has not got it */
        (void)close(fd);
    if (link == NULL) {
        tcp->node->counters.accepts_refused++;
        return;
    }
    if (err == 0 && !remote_of(&link->tcp, &link->remote))
        err = E_CLOSED;
    if (err == 0 && !admit(tcp, &link->remote))
        err = E_FULL;
    if (err == 0) {
        tcp->node->counters.accepts++;
        err = handshake_start(link);
    } else if (err == E_FULL) {
        tcp->node->counters.accepts_refused++;
    }
    if (err != 0)
        peerlink_close(link, err);
}

/* ---- dial ---- */

static void on_connect(uv_connect_t *request, int status)
{
    struct peerlink *link = request->data;
    ASSERT(link->magic == LINK_MAGIC);
    if (link->state != LINK_CONNECTING)
        return;
    int err = loop_uv_error(status);
    if (err == 0)
        err = handshake_start(link);
    if (err != 0)
        peerlink_close(link, err);
}

/* Binding the source makes a multi-homed host speak from the address that it announces. */
static int connect_start(struct peerlink *link, const struct peer_addr *to)
{
    struct mesh_tcp *tcp = link->owner;
    struct sockaddr_storage raw;
    int err = net_to_sockaddr(to, !peer_addr_is_v4(to), &raw);
    if (err != 0)
        return err;
    if (tcp->bind_source && peer_addr_is_v4(to) == peer_addr_is_v4(&tcp->node->self_addr)) {
        struct sockaddr_storage source;
        struct peer_addr self = tcp->node->self_addr;
        self.port = 0;
        err = net_to_sockaddr(&self, !peer_addr_is_v4(&self), &source);
        if (err == 0)
            (void)uv_tcp_bind(&link->tcp, (const struct sockaddr *)&source, 0);
    }
    link->connecting.data = link;
    return loop_uv_error(
        uv_tcp_connect(&link->connecting, &link->tcp, (const struct sockaddr *)&raw, on_connect));
}

int peerlink_dial(struct mesh_tcp *tcp, struct tcp_peer *peer)
{
    ASSERT(peer->dial == NULL);
    if (tcp->closing || tcp->dials >= TCP_DIALS_MAX || tcp->link_count >= tcp->links_max)
        return E_FULL;
    struct peerlink *link = link_new(tcp, true);
    if (link == NULL)
        return E_NO_MEMORY;
    uint64_t wait_us = tcp->node->config->connect_timeout_us;
    link->remote = peer->addr;
    link->deadline_us = node_now(tcp->node) + (wait_us < DIAL_US_MAX ? wait_us : DIAL_US_MAX);
    tcp->node->counters.connects++;
    int err = connect_start(link, &peer->addr);
    if (err != 0) {
        tcp->node->counters.connects_failed++;
        peerlink_close(link, err);
        return err;
    }
    link_set_state(link, LINK_CONNECTING);
    link->peer = peer;
    peer->dial = link;
    tcp->dials++;
    return 0;
}
