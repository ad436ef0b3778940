/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alibaba Cloud around the registry: the metadata service of ECS.
 *
 * Single-threaded, callback-based like registry.h; callbacks never run inside the call that starts
 * work.
 */
#ifndef SHOAL_ACR_H
#define SHOAL_ACR_H

#include "env.h"
#include "err.h"
#include "registry.h"

/* ---- metadata service of ECS (ACR.md §4.1, §5) ---- */

#define ACR_METADATA_URL "http://100.100.100.200"
struct acr_metadata;
struct acr_metadata_config {
    const char *url;     /* "http://host[:port]" for tests; NULL or "": ACR_METADATA_URL */
    bool token_required; /* never ask without a session token (hardened mode only) */
};
/* 0, E_NO_MEMORY, E_TOO_LARGE (url), E_INTERNAL. `engine` and `config` are copied. */
MUST_USE int acr_metadata_new(const struct env *env, const struct fetch_engine *engine,
                              const struct acr_metadata_config *config, struct acr_metadata **out);
/* Cancels what runs, without callback. NULL is fine. */
void acr_metadata_free(struct acr_metadata *metadata);
/*
 * `text`: the answer without white space around it, never empty, borrowed for the call: the next
 * acr_metadata_get wipes it. NULL if err, which is one of
 *   E_NOT_FOUND   no such path (404)
 *   E_DENIED      the service wants a session token and gives none (401, 403)
 *   E_ORIGIN      another status
 *   E_MALFORMED   an empty answer, or one with control bytes
 *   E_UNREACHABLE, E_TIMEOUT and the like: not on ECS, or the service is cut off from here
 */
typedef void (*acr_metadata_done_fn)(void *arg, int err, const char *text);
/*
 * Asks for one path below /latest/meta-data/, such as "region-id". One question at a time; each
 * step (token, question, question again with a new token) has a second to connect and one to
 * answer. 0: `done` comes later, exactly once, and may ask the next question. E_IN_USE: one runs.
 * E_INVALID, E_FULL, E_NO_MEMORY. The service limits its callers: ask rarely.
 */
MUST_USE int acr_metadata_get(struct acr_metadata *metadata, uint64_t now_us, const char *path,
                              acr_metadata_done_fn done, void *arg);

#endif
