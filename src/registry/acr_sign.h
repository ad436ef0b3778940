/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures of Alibaba Cloud's RPC-style APIs (ACR.md §3): V1, HMAC-SHA1 among the parameters, and
 * V3, ACS3-HMAC-SHA256 in the headers. Pure functions: time and nonce are given. Signatures, tokens
 * and what they are made of are secrets: the callers wipe the texts.
 */
#ifndef SHOAL_REGISTRY_ACR_SIGN_H
#define SHOAL_REGISTRY_ACR_SIGN_H

#include "acr_text.h"
#include "registry.h"

/* Ours are 32 hex digits; the vendor's have dashes. And a zero. */
#define ACR_NONCE_BYTES 37
/* Longest secret of a key pair; those seen have 30 characters, temporary ones 44. */
#define ACR_SECRET_BYTES_MAX 255
/* Parameters of an action; AssumeRoleWithOIDC has 5. */
#define ACR_PARAMS_MAX 8
/* What V3 sends at most: accept, authorization, content-type, seven x-acs-*. */
#define ACR_V3_HEADERS_MAX 10

struct acr_param {
    const char *name;
    const char *value; /* not encoded */
};

struct acr_request {
    const char *method;             /* "POST" or "GET"; the path is always "/" */
    const char *host;               /* as in the Host header, the port too if there is one */
    const char *action, *version;   /* "ListInstanceEndpoint", "2018-12-01" */
    const char *format;             /* V1: "JSON" */
    const struct acr_param *params; /* the action's own, each name once */
    unsigned param_count;           /* at most ACR_PARAMS_MAX */
    const char *content_type;       /* V3: as sent; NULL: none */
    const char *body;               /* V3; NULL: none */
    const char *key_id, *key_secret;
    const char *token; /* of temporary credentials; NULL or "": none */
    char date[ACR_DATE_BYTES];
    char nonce[ACR_NONCE_BYTES];
};

/*
 * V1. Writes all parameters, the signature last, as they stand in a query or a form body, to
 * `form`. `work` is scratch: afterwards the string to sign. 0, E_TOO_LARGE (a text did not fit, or
 * limits above), E_INTERNAL (OpenSSL).
 */
MUST_USE int acr__sign_v1(const struct acr_request *request, struct acr_text *form,
                          struct acr_text *work);

struct acr_v3 {
    char body_hash[65];    /* x-acs-content-sha256 */
    char request_hash[65]; /* SHA-256 of the canonical request: what the server's message shows */
    char signature[65];
};

/*
 * V3. Writes the query to `query` and the value of the Authorization header to `authorization`.
 * `work` is scratch: afterwards the canonical request, security token included. Errors as
 * acr__sign_v1.
 */
MUST_USE int acr__sign_v3(const struct acr_request *request, struct acr_text *query,
                          struct acr_text *authorization, struct acr_text *work,
                          struct acr_v3 *out);

/* The headers of a signed V3 request, Host apart, which the HTTP client makes from the URL. They
 * point into the arguments. Returns how many. */
unsigned acr__v3_headers(const struct acr_request *request, const struct acr_v3 *made,
                         const char *authorization, struct fetch_header out[ACR_V3_HEADERS_MAX]);

#endif
