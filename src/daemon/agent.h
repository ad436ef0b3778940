/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: all parts of the daemon, made in order and joined. Nothing of a protocol is here.
 */
#ifndef SHOAL_DAEMON_AGENT_H
#define SHOAL_DAEMON_AGENT_H

#include "acr_part.h"
#include "blob.h"
#include "cache.h"
#include "config.h"
#include "config_watch.h"
#include "curl_loop.h"
#include "http_server.h"
#include "mirror.h"
#include "node.h"
#include "dial_back.h"
#include "order_serve.h"
#include "prefetch_port.h"
#include "pull.h"
#include "notify.h"
#include "registry_logins.h"
#include "topology_loop.h"
#include "turns.h"

struct agent {
    struct config *config; /* borrowed */
    struct notify notify;  /* the service manager */
    struct config_watch watch;
    struct loop loop;
    struct buffer_pool *pool;
    struct cache *cache;
    struct blobs *blobs;
    struct node *node;
    struct curl_loop *curl;
    struct topology_loop topology;
    struct grants *grants;
    struct acr_part *acr; /* NULL: no instances */
    struct registry_table *registries;
    struct registry_logins logins;
    struct mirror *mirror;
    struct pulls *pulls;       /* orders of the operator */
    struct order_serve *serve; /* of other nodes */
    struct dial_back *dial;
    struct turns *turns; /* of clients, plain and TLS */
    struct server *client;
    struct tls *tls; /* NULL: no TLS port */
    struct server *tls_client;
    struct server *admin;
    struct prefetch_port prefetch;
    struct server *prefetch_server; /* NULL: no orders by HTTP */
    struct server *control;         /* what `shoal status` asks */
    char control_path[CONFIG_PATH_BYTES + 16];
    uint64_t started_us;
    bool ready; /* everything listens and the cache is recovered */
};

/*
 * Runs the agent until SIGTERM or SIGINT. `config` is verified already. 0 after an orderly stop, or
 * E_* with one line for the operator in error->text. `agent` is the caller's storage and must not
 * move.
 */
MUST_USE int agent_run(struct agent *agent, struct config *config, struct config_error *error);

#endif
