/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notifications of pushed images as registries send them (distribution "Notifications") and Harbor
 * sends them to a P2P provider of kind Kraken: {"events": [{"action": "push", "target":
 * {"mediaType", "repository", "url", "tag", "digest"}}]}. Each manifest that was pushed is an
 * order; its registry is the host of the target's URL, which must be a configured one (ORG-1).
 */
#ifndef SHOAL_DAEMON_PREHEAT_H
#define SHOAL_DAEMON_PREHEAT_H

#include "pull.h"

#define PREHEAT_BYTES_MAX  (64 * 1024)
#define PREHEAT_EVENTS_MAX 32

struct preheat {
    uint32_t count;
    struct pull_order orders[PREHEAT_EVENTS_MAX];
    uint32_t ignored; /* events that are no push of a manifest */
};

/* Reads a notification. 0; E_TOO_LARGE (bytes, depth, events), E_MALFORMED (no such document),
 * E_INVALID (a target that names no image), with one line in `error`. */
MUST_USE int preheat_parse(const char *json, size_t json_bytes, struct preheat *out,
                           char error[PULL_ERROR_BYTES]);

#endif
