/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alibaba Cloud around the registry (ACR.md): the metadata service of ECS, and the endpoints of
 * Container Registry instances, found with the credentials that the node or its pod has.
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

/* ---- instances of Container Registry (ACR.md §1..§4) ---- */

/* A file to be read; the buffer is locked memory. */
struct acr_file {
    char *bytes;
    size_t room; /* of the buffer, the zero included */
    char why[256];
};

/* What the host gives. */
struct acr_host {
    void *host;
    /* Calls acr_advance after delay_us, never inside; a new start may replace the pending one. */
    void (*timer)(void *host, uint64_t delay_us);
    /* The wall clock, seconds since 1970. */
    uint64_t (*wall_s)(void *host);
    /* Reads a small file, zero-terminated. `secret`: refuse one that others can read. 0, or E_*
     * with one line for people in `why`. */
    int (*read_file)(void *host, const char *path, bool secret, struct acr_file *out);
    /* A round has found something: what acr_remember says is news. NULL: nobody wants to know. */
    void (*learnt)(void *host);
};

#define ACR_INSTANCES_MAX 64
/* Host names of all instances together that are ever known; further ones are left out. */
#define ACR_HOSTS_MAX 512

enum acr_keys_from {
    ACR_KEYS_ROLE = 1, /* the RAM role of this machine, by the metadata service */
    ACR_KEYS_FILE,     /* a key pair in a file */
    ACR_KEYS_RRSA,     /* a pod's identity: OIDC token to a role, perhaps to a second one */
};

/* All texts are zero-terminated, borrowed for the object's life, and "" where they are unset. */
struct acr_config {
    const char *instances[ACR_INSTANCES_MAX]; /* "cri-..." */
    unsigned instance_count;
    const char *region; /* of the instances; "": the metadata service's */
    const char *vpc;    /* linked to the instances; "": the metadata service's */

    enum acr_keys_from keys_from;
    const char *access_key_file; /* FILE: id and secret, a line each; read again each round */
    const char *ram_role;        /* ROLE: its name; "": the metadata service names it */
    const char *role_arn, *provider_arn, *token_file; /* RRSA */
    const char *assume_role_arn; /* RRSA: role in the instances' account; "": no second step */
    uint32_t assume_role_s;      /* life asked for the second role */

    bool metadata_off;    /* never ask the metadata service */
    bool token_required;  /* ask it in hardened mode only */
    const char *sts_host; /* "sts-vpc.<region>.aliyuncs.com"; "": by region */
    bool sign_v1;         /* HMAC-SHA1 instead of ACS3-HMAC-SHA256 */

    /* For tests: where the services are, "http[s]://host[:port]", and how registries are spoken to.
     */
    const char *cr_url, *sts_url, *metadata_url;
    bool registry_plain_http;
};

struct acr;
/*
 * Nothing is asked before the timer's first acr_advance, which is started here. 0, E_NO_MEMORY,
 * E_INTERNAL, E_TOO_LARGE (metadata_url). `env`, `engine`, `host`, `config` are copied. From now on
 * jansson wipes what it frees, in the whole process.
 */
MUST_USE int acr_new(const struct env *env, const struct fetch_engine *engine,
                     const struct acr_host *host, const struct acr_config *config,
                     struct acr **out);
/* Cancels what runs, while the engine is still there; entries stay. acr_advance must not follow. */
void acr_stop(struct acr *acr);
/* Stops and releases. NULL is fine. Entries that acr_find gave are gone. */
void acr_free(struct acr *acr);
/* Runs what is due: answers, waits, refreshed credentials, the next round of questions. */
void acr_advance(struct acr *acr, uint64_t now_us);
/*
 * What was found, for the next start of the agent: the cloud's APIs may be away then. JSON of
 * names, without credentials, in memory from env->alloc, at most ACR_MEMORY_BYTES_MAX. 0,
 * E_NO_MEMORY, E_TOO_LARGE.
 */
#define ACR_MEMORY_BYTES_MAX (256 * 1024)
/* Older answers are not believed: a week without the APIs is longer than any outage of theirs. */
#define ACR_MEMORY_S (UINT64_C(7) * 24 * 3600)
MUST_USE int acr_remember(const struct acr *acr, char **out, size_t *out_bytes);
/*
 * Takes in what acr_remember said in a former life; before the first acr_advance. It stays in force
 * until the APIs answer. Left out is what is older than ACR_MEMORY_S or from the future, for an
 * instance, region or VPC that is not configured now, and what is no answer that could have been
 * given. 0 (with nothing in it, too), E_MALFORMED, E_TOO_LARGE.
 */
MUST_USE int acr_recall(struct acr *acr, const char *text, size_t text_bytes);
/*
 * The registry behind a host name of an instance, in whatever case; NULL if no instance is known to
 * have it. Fits struct registries' `more` (`acr` is a struct acr). The entry stays where it is
 * until acr_free; its endpoint changes when the instance's does.
 */
const struct registry_entry *acr_find(const void *acr, const char *name);

/* The same for a URL in an instance's object storage: where ACR keeps blobs (ACR.md §6), public and
 * inside a VPC. Each name of the instance is an entry: the first one after `after`, NULL: the first
 * of all. Fits `more_storage`. */
const struct registry_entry *acr_find_storage(const void *acr, const char *url,
                                              const struct registry_entry *after);

/* One instance for people and programs. Borrowed until the next acr_advance. */
struct acr_view {
    const char *instance;
    const char *endpoint; /* "https://..." that requests go to; "" none known */
    unsigned host_count;  /* names by which it is known */
    bool through_vpc;
    const char *why;      /* what is wrong, one line; "" nothing. It may be served all the same */
    uint64_t answered_us; /* last good answer; 0: never */
};
/* False beyond the last one. */
bool acr_at(const struct acr *acr, unsigned i, struct acr_view *out);

struct acr_counters {       /* only ever grow */
    uint64_t rounds;        /* of questions about all instances */
    uint64_t rounds_failed; /* at least one instance gave no good answer */
    uint64_t retries;       /* questions repeated */
    uint64_t refreshes;     /* credentials fetched */
    uint64_t refreshes_failed;
    uint64_t hosts_dropped; /* no host name, or over a limit */
};
/* Copies them. */
void acr_counters(const struct acr *acr, struct acr_counters *out);

#endif
