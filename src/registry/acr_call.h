/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP exchange with a service of the cloud at a time: the whole answer, bounded (ORG-7), in
 * memory that is locked and wiped, since most answers hold keys.
 */
#ifndef SHOAL_REGISTRY_ACR_CALL_H
#define SHOAL_REGISTRY_ACR_CALL_H

#include "registry.h"

#define ACR_ANSWER_BYTES_MAX (64 * 1024)
/* What a server's x-acs-retry-after may ask for (ACR.md §2). */
#define ACR_RETRY_AFTER_MAX_MS 60000

struct acr_call {
    struct fetch_engine engine;
    struct fetch *fetch; /* NULL: none runs */
    void (*done)(void *arg);
    void *arg;
    /* The last answer. */
    int err;           /* 0, or as a fetch's done; E_TOO_LARGE also for the body */
    int status;        /* 0: none came */
    uint64_t date_s;   /* of the Date header; 0: none */
    uint32_t retry_ms; /* x-acs-retry-after; 0: none */
    char *body;        /* zero-terminated */
    size_t body_bytes;
    bool too_large;
};

/* 0, E_NO_MEMORY, E_INTERNAL (libsodium). `engine` is copied. On error acr__call_close is fine. */
MUST_USE int acr__call_open(struct acr_call *call, const struct fetch_engine *engine);
/* Cancels what runs, without callback. A zeroed struct is fine. */
void acr__call_cancel(struct acr_call *call);
/* The same, and wipes. A zeroed struct is fine. */
void acr__call_close(struct acr_call *call);
/* Starts an exchange; none may run. Private addresses are allowed: the cloud's services have such
 * ones inside a VPC. `done` comes later, exactly once; in it the next may be started. Errors as the
 * engine's start. */
MUST_USE int acr__call_start(struct acr_call *call, const struct fetch_request *request,
                             void (*done)(void *arg), void *arg);
/* Forgets the last answer. */
void acr__call_wipe(struct acr_call *call);

#endif
