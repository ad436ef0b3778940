/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys that questions are signed with (ACR.md §4): from the machine's RAM role, a file, or a
 * pod's identity; when they are fetched anew; and what stays valid meanwhile. Polled like
 * acr_api.h.
 */
#ifndef SHOAL_REGISTRY_ACR_CREDENTIALS_H
#define SHOAL_REGISTRY_ACR_CREDENTIALS_H

#include "acr_api.h"

/* A JWT has 4 to 20,000 characters (ACR.md §4.2). */
#define ACR_OIDC_BYTES_MAX 20000
#define ACR_RETRY_US       (UINT64_C(30) * 1000000)

enum acr_credentials_state {
    ACR_CREDENTIALS_IDLE = 1,  /* nothing runs */
    ACR_CREDENTIALS_ROLE,      /* the metadata service is asked for the role's name */
    ACR_CREDENTIALS_ROLE_KEYS, /* and for its keys */
    ACR_CREDENTIALS_OIDC,      /* STS is asked for role A */
    ACR_CREDENTIALS_ASSUME,    /* and for role B, with A's keys */
    ACR_CREDENTIALS_DONE,      /* `err` is to be told */
};

struct acr_credentials {
    struct env env;
    const struct acr_config *config;
    struct acr_api *api;           /* borrowed; ours while a poll says E_AGAIN */
    struct acr_metadata *metadata; /* borrowed; NULL: never asked */
    struct acr_service sts;
    enum acr_credentials_state state;
    struct acr_question question;
    bool oidc_repeated;     /* the token's file was read again for this exchange */
    struct acr_keys *keys;  /* in use; locked memory, as the following */
    struct acr_keys *fresh; /* being fetched */
    char *text;             /* token or key file */
    char role[ACR_ROLE_BYTES_MAX + 1];
    bool have;
    uint64_t expires_us; /* ACR_NEVER: a permanent key */
    uint64_t refresh_us; /* fetch new ones from then on */
    uint64_t fresh_life_us;
    int err; /* DONE */
    char why[ACR_REASON_BYTES];
    uint64_t refreshes, failures;
};

/* `config`, `api`, `metadata` are borrowed. 0, E_NO_MEMORY. On error acr__credentials_close is
 * fine. */
MUST_USE int acr__credentials_open(struct acr_credentials *credentials, const struct env *env,
                                   const struct acr_config *config, struct acr_api *api,
                                   struct acr_metadata *metadata);
/* Wipes. A zeroed struct is fine. */
void acr__credentials_close(struct acr_credentials *credentials);
/* True if new ones are to be fetched now. */
bool acr__credentials_due(const struct acr_credentials *credentials, uint64_t now_us);
/* True if there are some that can be used. */
bool acr__credentials_valid(const struct acr_credentials *credentials, uint64_t now_us);
/* The service refused them: they are due, and not valid. */
void acr__credentials_drop(struct acr_credentials *credentials);
/* The region is known: where STS is. */
void acr__credentials_place(struct acr_credentials *credentials, const char *region);
/*
 * Fetches them. E_AGAIN: not before the host's timer, or api->due_us. 0: valid. Otherwise `why`
 * says why; old ones stay valid to their end, and the next try is due in ACR_RETRY_US.
 */
MUST_USE int acr__credentials_poll(struct acr_credentials *credentials, uint64_t now_us);

/* Of acr_metadata.c: the Date of the last answer, seconds; 0: none. */
uint64_t acr__metadata_date_s(const struct acr_metadata *metadata);
/* And: cancels what runs; nothing may be asked afterwards. NULL is fine. */
void acr__metadata_stop(struct acr_metadata *metadata);

#endif
