/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of struct acr: acr_discover.c asks about the instances round by round, acr_hosts.c keeps
 * what was found as registry entries, acr_memory.c brings it over a restart. */
#ifndef SHOAL_REGISTRY_ACR_DISCOVER_H
#define SHOAL_REGISTRY_ACR_DISCOVER_H

#include "acr_credentials.h"

#define ACR_REGION_BYTES 64

/* One name of an instance. Never freed while the agent runs: callers hold the entry. */
struct acr_name {
    struct registry_entry entry;
    unsigned instance;
    bool live; /* false: no instance has it now */
};

struct acr_instance {
    const char *id; /* borrowed */
    char endpoint[ACR_HOST_URL_BYTES];
    bool through_vpc;
    unsigned host_count;
    char why[ACR_REASON_BYTES]; /* "" : fine */
    uint64_t answered_us;
    uint64_t answered_s; /* the same by the wall clock, in a former life perhaps; 0: never */
    char region[ACR_REGION_BYTES], vpc[ACR_VPC_ID_BYTES]; /* that the answer is for */
};

enum acr_phase {
    ACR_REST = 1, /* until the next round, or refresh of credentials */
    ACR_REGION,   /* the metadata service is asked for the region */
    ACR_VPC,      /* and for the VPC */
    ACR_KEYS,     /* credentials are fetched */
    ACR_LIST,     /* ListInstanceEndpoint of the instance at `at` */
    ACR_LINK,     /* GetInstanceVpcEndpoint of the same */
};

struct acr {
    struct env env;
    struct acr_config config;
    struct acr_metadata *metadata; /* NULL: switched off */
    struct acr_api api;
    struct acr_credentials credentials;
    struct acr_service cr;
    char region[ACR_REGION_BYTES], vpc[ACR_VPC_ID_BYTES];
    enum acr_phase phase;
    bool asked;        /* the phase's question is on its way */
    bool told;         /* the metadata service answered */
    bool in_round;     /* false in ACR_KEYS: only the credentials are refreshed */
    bool reauthorised; /* this round has fetched credentials anew because they were refused */
    bool round_failed, round_hurry; /* something failed; and may work in half a minute */
    bool round_learnt;              /* an answer was good, or an instance is gone */
    unsigned first, at, settled;    /* instance the round began with; now; how many are through */
    uint64_t round_us;              /* next round */
    struct acr_question question;
    struct acr_endpoints found; /* of the instance at `at` */
    struct acr_instance instances[ACR_INSTANCES_MAX];
    struct acr_name *names[ACR_HOSTS_MAX];
    unsigned name_count;
    struct acr_counters counters;
};

/* Makes the names of instance `i` those that were found, all leading to `host`. Its region must be
 * set. */
void acr__hosts_put(struct acr *acr, unsigned i, const struct acr_endpoints *found,
                    const char *host);
/* The instance is gone: its names lead nowhere. */
void acr__hosts_drop(struct acr *acr, unsigned i);
/* Releases all names. */
void acr__hosts_close(struct acr *acr);

#endif
