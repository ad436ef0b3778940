/* SPDX-License-Identifier: Apache-2.0 */
/* Resolving the bootstrap names and giving their addresses to gossip (bootstrap.h). */
#include "bootstrap.h"

#include <netdb.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "net.h"
#include "node_internal.h"

/* Pauses while alone: doubling from half a second to 30 s (N-6), with jitter of a quarter so that
 * nodes started together do not ask together (C-1). */
#define ALONE_FIRST_MS 500
#define ALONE_LAST_MS  30000
#define SETTLED_MS     60000

int bootstrap_split(const char *text, uint16_t default_port, char *host, size_t host_bytes,
                    uint16_t *port)
{
    const char *end = text + strlen(text);
    const char *colon = strrchr(text, ':');
    uint16_t found = default_port;
    if (*text == '[') {
        const char *close = strchr(text, ']');
        if (close == NULL || (close[1] != '\0' && close + 1 != colon))
            return E_MALFORMED;
        colon = close[1] == ':' ? close + 1 : NULL;
        text++;
        end = close;
    } else if (colon != NULL && strchr(text, ':') != colon) {
        colon = NULL; /* a bare IPv6 address */
    } else if (colon != NULL) {
        end = colon;
    }
    if (colon != NULL) {
        unsigned value = 0;
        const char *digit = colon + 1;
        for (; *digit >= '0' && *digit <= '9' && value <= UINT16_MAX; digit++)
            value = value * 10 + (unsigned)(*digit - '0');
        if (*digit != '\0' || digit == colon + 1 || value == 0 || value > UINT16_MAX)
            return E_MALFORMED;
        found = (uint16_t)value;
    }
    if (end == text || text_copy_n(host, host_bytes, text, (size_t)(end - text)) != 0)
        return E_MALFORMED;
    *port = found;
    return 0;
}

/* Reservoir sampling: each address found has the same chance to be among those kept. */
static void keep(struct bootstrap *bootstrap, const struct peer_addr *addr)
{
    if (peer_addr_equal(addr, &bootstrap->node->self_addr))
        return;
    for (unsigned i = 0; i < bootstrap->found_count; i++)
        if (peer_addr_equal(&bootstrap->found[i], addr))
            return;
    bootstrap->node->counters.bootstrap_addresses++;
    bootstrap->seen++;
    if (bootstrap->found_count < BOOTSTRAP_ADDRESSES_MAX) {
        bootstrap->found[bootstrap->found_count++] = *addr;
        return;
    }
    uint64_t drawn = 0;
    const struct env *env = &bootstrap->node->env;
    env->random(env->host, (uint8_t *)&drawn, sizeof drawn);
    uint64_t at = drawn % bootstrap->seen;
    if (at < BOOTSTRAP_ADDRESSES_MAX)
        bootstrap->found[at] = *addr;
}

static void on_timer(uv_timer_t *timer);

static uint64_t jittered(struct bootstrap *bootstrap, uint64_t ms)
{
    uint32_t drawn = 0;
    const struct env *env = &bootstrap->node->env;
    env->random(env->host, (uint8_t *)&drawn, sizeof drawn);
    return ms - ms / 8 + drawn % (ms / 4 + 1);
}

static void round_end(struct bootstrap *bootstrap)
{
    struct node *node = bootstrap->node;
    struct gossip *gossip = mesh_gossip(node->mesh);
    bool alone = gossip_count(gossip) <= 1;
    if (bootstrap->closing)
        return;
    if (bootstrap->found_count > 0)
        gossip_join(gossip, node_now(node), bootstrap->found, bootstrap->found_count);
    uint64_t wait_ms = alone ? bootstrap->wait_ms : SETTLED_MS;
    bootstrap->wait_ms = alone ? bootstrap->wait_ms * 2 : ALONE_FIRST_MS;
    if (bootstrap->wait_ms > ALONE_LAST_MS)
        bootstrap->wait_ms = ALONE_LAST_MS;
    log_to(&node->env, LOG_DEBUG, "bootstrap: round done addresses=%u members=%zu",
           bootstrap->found_count, gossip_count(gossip));
    (void)uv_timer_start(&bootstrap->timer, on_timer, jittered(bootstrap, wait_ms), 0);
}

static void lookup_end(struct bootstrap_lookup *lookup)
{
    struct bootstrap *bootstrap = lookup->owner;
    lookup->busy = false;
    ASSERT(bootstrap->pending > 0);
    if (--bootstrap->pending == 0)
        round_end(bootstrap);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct bootstrap_lookup *lookup = request->data;
    struct bootstrap *bootstrap = lookup->owner;
    if (status != 0) {
        bootstrap->node->counters.bootstrap_failures++;
        log_to(&bootstrap->node->env, LOG_DEBUG, "bootstrap: name not resolved error=%s",
               uv_strerror(status));
    }
    for (struct addrinfo *at = list; at != NULL; at = at->ai_next) {
        struct peer_addr addr;
        if (net_from_sockaddr(at->ai_addr, &addr) != 0)
            continue;
        addr.port = lookup->port;
        keep(bootstrap, &addr);
    }
    uv_freeaddrinfo(list);
    lookup_end(lookup);
}

static void lookup_start(struct bootstrap *bootstrap, struct bootstrap_lookup *lookup,
                         const char *text)
{
    char host[CONFIG_TEXT_BYTES];
    struct peer_addr addr;
    struct node *node = bootstrap->node;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    if (bootstrap_split(text, CONFIG_MESH_PORT, host, sizeof host, &lookup->port) != 0) {
        node->counters.bootstrap_failures++;
        return;
    }
    if (peer_addr_parse(host, lookup->port, &addr) == 0) {
        keep(bootstrap, &addr);
        return;
    }
    node->counters.bootstrap_lookups++;
    lookup->owner = bootstrap;
    lookup->request.data = lookup;
    if (uv_getaddrinfo(&node->loop->uv, &lookup->request, on_resolved, host, NULL, &hints) != 0) {
        node->counters.bootstrap_failures++;
        return;
    }
    lookup->busy = true;
    bootstrap->pending++;
}

static void on_timer(uv_timer_t *timer)
{
    struct bootstrap *bootstrap = timer->data;
    const struct config *config = bootstrap->node->config;
    ASSERT(bootstrap->pending == 0);
    bootstrap->found_count = 0;
    bootstrap->seen = 0;
    bootstrap->pending = 1; /* ourselves, so that the round ends after the last name was started */
    for (unsigned i = 0; i < config->bootstrap_count; i++)
        lookup_start(bootstrap, &bootstrap->lookups[i], config->bootstrap[i].text);
    if (--bootstrap->pending == 0)
        round_end(bootstrap);
}

int bootstrap_start(struct bootstrap *bootstrap, struct node *node)
{
    memset(bootstrap, 0, sizeof *bootstrap);
    bootstrap->node = node;
    bootstrap->wait_ms = ALONE_FIRST_MS;
    int uv_error = uv_timer_init(&node->loop->uv, &bootstrap->timer);
    if (uv_error != 0)
        return loop_uv_error(uv_error);
    bootstrap->started = true;
    bootstrap->timer.data = bootstrap;
    if (node->config->bootstrap_count == 0)
        return 0;
    return loop_uv_error(uv_timer_start(&bootstrap->timer, on_timer, 0, 0));
}

void bootstrap_close(struct bootstrap *bootstrap)
{
    if (!bootstrap->started || bootstrap->closing)
        return;
    bootstrap->closing = true;
    uv_close((uv_handle_t *)&bootstrap->timer, NULL);
    for (unsigned i = 0; i < CONFIG_BOOTSTRAP_MAX; i++)
        if (bootstrap->lookups[i].busy)
            (void)uv_cancel((uv_req_t *)&bootstrap->lookups[i].request);
}
