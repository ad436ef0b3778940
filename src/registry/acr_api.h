/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to an OpenAPI of the cloud, asked until it is answered or given up: signed anew for
 * each try, repeated as ACR.md §2's table says, over the hosts that a service has. The one place
 * for retries of the cloud's APIs.
 */
#ifndef SHOAL_REGISTRY_ACR_API_H
#define SHOAL_REGISTRY_ACR_API_H

#include "acr.h"
#include "acr_answer.h"
#include "acr_call.h"

#define ACR_TRIES_MAX      3
#define ACR_SERVICE_HOSTS  3
#define ACR_HOST_URL_BYTES (HOST_BYTES_MAX + 16)
#define ACR_NEVER          UINT64_MAX

/* Where a service answers, best host first. The one that answered last is asked first. */
struct acr_service {
    char urls[ACR_SERVICE_HOSTS][ACR_HOST_URL_BYTES]; /* "https://host[:port]" */
    unsigned count;
    unsigned at;
};
/* Adds "scheme://host[:port]"; one that does not fit is left out. */
void acr__service_add(struct acr_service *service, const char *scheme, const char *host);

struct acr_question {
    struct acr_service *service;
    const char *action, *version;
    struct acr_param params[ACR_PARAMS_MAX];
    unsigned param_count;
    const struct acr_keys *keys; /* NULL: not signed, parameters in the body */
};

struct acr_api {
    struct env env;
    struct acr_host host;
    struct acr_call call;
    bool sign_v1;
    int64_t clock_offset_s; /* the cloud's clock minus ours, where they differ too much */
    /* The running question. */
    const struct acr_question *question; /* borrowed; NULL: none */
    unsigned tries;
    bool clock_corrected, answered;
    uint64_t due_us;              /* next try; ACR_NEVER: a call runs */
    char request_hash[65];        /* of the last V3 signature: for SignatureDoesNotMatch */
    struct acr_error error;       /* of the last answer */
    char why[ACR_WHY_BYTES + 64]; /* the failure, one line without secrets */
    uint64_t retries;             /* only ever grows */
};

/* `env`, `engine`, `host` are copied. Errors as acr__call_open. */
MUST_USE int acr__api_open(struct acr_api *api, const struct env *env,
                           const struct fetch_engine *engine, const struct acr_host *host);
/* Cancels and wipes. A zeroed struct is fine. */
void acr__api_close(struct acr_api *api);
/* Takes a question; none may run. It and all it points to are borrowed until acr__api_poll says
 * something else than E_AGAIN. */
void acr__api_ask(struct acr_api *api, uint64_t now_us, const struct acr_question *question);
/*
 * E_AGAIN: not before the host's timer, or api->due_us. 0: the answer is in api->call until
 * acr__call_wipe. Otherwise given up, api->why says why:
 *   E_DENIED      the permission is missing
 *   E_AUTH        keys, token or signature are not accepted
 *   E_NOT_FOUND   no such instance or role, or not in a state to be asked
 *   E_ORIGIN      another error of the service
 *   E_FULL        throttled, or the service answered 5xx, to the last try
 *   E_UNREACHABLE, E_TIMEOUT, E_TLS, E_CLOSED, E_REFUSED   no answer from any host
 *   E_MALFORMED, E_TOO_LARGE, E_NO_MEMORY, E_INTERNAL
 */
MUST_USE int acr__api_poll(struct acr_api *api, uint64_t now_us);
/* The cloud's time in seconds: our clock, corrected if it was found wrong. */
uint64_t acr__api_wall_s(const struct acr_api *api);
/* A uniform random number below `bound` > 0. */
uint64_t acr__random_below(const struct env *env, uint64_t bound);

#endif
