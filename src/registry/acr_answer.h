/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cloud's APIs answer (ACR.md §2, §4), read into plain structs: errors, keys, endpoints.
 * Pure functions over bytes of others; fields may be missing, unknown ones are skipped.
 */
#ifndef SHOAL_REGISTRY_ACR_ANSWER_H
#define SHOAL_REGISTRY_ACR_ANSWER_H

#include "acr_sign.h"
#include "registry.h"

/* A security token has no fixed greatest length (ACR.md §4.2). */
#define ACR_TOKEN_BYTES_MAX  (16 * 1024)
#define ACR_KEY_ID_BYTES_MAX 127
/* Host names of one instance: a few of its own, and those its users added. */
#define ACR_DOMAINS_MAX    16
#define ACR_WHY_BYTES      256
#define ACR_REASON_BYTES   640 /* with what was tried and what to do */
#define ACR_VPC_ID_BYTES   64
#define ACR_ROLE_BYTES_MAX 63

/* A set of credentials; only in locked memory. */
struct acr_keys {
    char id[ACR_KEY_ID_BYTES_MAX + 1];
    char secret[ACR_SECRET_BYTES_MAX + 1];
    char token[ACR_TOKEN_BYTES_MAX + 1]; /* "": a permanent key */
};

struct acr_error {
    char code[96];     /* "" : none */
    char message[256]; /* cut; may quote what was sent: not for logs as it is */
    char action[96];   /* the permission that is missing, where the answer says so */
};
/* Code and message of a failure, JSON with keys in whatever case, or XML. Never fails. */
void acr__error_parse(const char *body, size_t body_bytes, struct acr_error *out);
/* False if a 200 is a failure all the same: IsSuccess false, or a Code other than success. */
bool acr__answer_succeeded(const char *body, size_t body_bytes);

/* Credentials as the metadata service gives them (flat, with Code) or STS (inside "Credentials").
 * After an error `out` is to be wiped. 0; E_MALFORMED; E_TOO_LARGE (a part is over its limit);
 * E_ORIGIN (Code is not Success). */
MUST_USE int acr__keys_parse(const char *body, size_t body_bytes, bool from_metadata,
                             struct acr_keys *out, uint64_t *expires_s);
/* The two lines of an access key file: id, secret. Zero-terminated, white space trimmed. 0,
 * E_MALFORMED, E_TOO_LARGE. */
MUST_USE int acr__keys_parse_lines(const char *text, struct acr_keys *out);

struct acr_endpoints {
    char domains[ACR_DOMAINS_MAX][HOST_BYTES_MAX + 1]; /* all, lower case */
    unsigned domain_count;
    unsigned domains_dropped;             /* no room, or no host name */
    char public_host[HOST_BYTES_MAX + 1]; /* "" none; usable if public_open */
    bool public_open;
    char vpc_host[HOST_BYTES_MAX + 1];
    bool vpc_open;               /* our VPC may use it */
    char vpc_why[ACR_WHY_BYTES]; /* if not: why, for people */
};
/* ListInstanceEndpoint: domains, public endpoint, and of the VPC endpoint what it tells. `vpc`: our
 * VPC's id, "" unknown. 0, E_MALFORMED, E_TOO_LARGE. */
MUST_USE int acr__endpoints_parse(const char *body, size_t body_bytes, const char *vpc,
                                  struct acr_endpoints *out);
/* GetInstanceVpcEndpoint: replaces what the list told of the VPC endpoint. Errors as above, then
 * `inout` is unchanged. */
MUST_USE int acr__vpc_link_parse(const char *body, size_t body_bytes, const char *vpc,
                                 struct acr_endpoints *inout);

#endif
