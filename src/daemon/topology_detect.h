/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds out where this node stands, in the background (ACR.md §5): each label that the
 * configuration leaves open is taken from the first source of topology.detect that says it. One
 * source is asked at a time and has SOURCE_S seconds; those that did not answer are asked again
 * with growing pauses, while any label they could give is open or came from a later source. Who
 * answers for another cloud, or knows nothing, is asked no more.
 *
 * Knows no loop: the host gives it the time, one timer and an engine for requests. Metadata is
 * asked of link-local addresses by number, without proxy, with a second to connect.
 */
#ifndef SHOAL_DAEMON_TOPOLOGY_DETECT_H
#define SHOAL_DAEMON_TOPOLOGY_DETECT_H

#include "config.h"
#include "topology_parse.h"

struct topology_host {
    void *arg;
    uint64_t (*now_us)(void *arg);
    /* Call topology_detect_due after so long, never inside; replaces what was asked before. */
    void (*timer)(void *arg, uint64_t delay_us);
    /* The labels are others than before; borrowed for the call. */
    void (*changed)(void *arg, const struct topology *labels);
};

/* Labels as far as they are known, and who said each. */
struct topology_view {
    struct topology labels;
    enum topology_source region, zone, vswitch;
};

struct topology_detect;
/* `env`, `engine` and `host` are copied; `config` is borrowed for the object's life. `self` is the
 * announced address, for prefixes. Nothing is asked yet. 0, E_NO_MEMORY. */
MUST_USE int topology_detect_new(const struct env *env, const struct fetch_engine *engine,
                                 const struct topology_host *host, const struct config *config,
                                 const struct peer_addr *self, struct topology_detect **out);
/* Cancels what runs, without callback. NULL is fine. */
void topology_detect_free(struct topology_detect *detect);
/* Begins with the first source; `changed` may be called inside, and later. Once. */
void topology_detect_start(struct topology_detect *detect);
/* The timer's time has come. */
void topology_detect_due(struct topology_detect *detect);
/* Borrowed for the object's life. */
const struct topology_view *topology_detect_view(const struct topology_detect *detect);
/* Checks topology.detect and topology.prefixes; used by config_verify. 0, or E_CONFIG with one line
 * in `error`. */
MUST_USE int topology_detect_verify(const struct config *config, struct config_error *error);

#endif
