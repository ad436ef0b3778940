/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP exchange with the fetch engine on a loop of its own, for commands that run outside the
 * agent. Blocking; bounded by the request's own time limits.
 */
#ifndef SHOAL_DAEMON_FETCH_ONCE_H
#define SHOAL_DAEMON_FETCH_ONCE_H

#include "registry.h"

#define FETCH_ONCE_DATE_BYTES 64

struct fetch_once {
    char *body; /* given by the caller; NULL with body_max 0: bodies are dropped */
    size_t body_max;
    /* The answer: */
    size_t body_bytes;
    int status;                       /* 0: none came */
    char date[FETCH_ONCE_DATE_BYTES]; /* its Date; "" none */
    char reason[FETCH_REASON_BYTES];  /* why there is none, in libcurl's words; may be "" */
};

/* Asks, and fills in the answer. request->reason is set here. 0: an answer came, whatever its
 * status; E_TOO_LARGE: its body is longer than body_max (which is not 0), and is not read to its
 * end; E_INVALID, E_NO_MEMORY, and what fetch_callbacks.done says. */
MUST_USE int fetch_once(const struct fetch_request *request, struct fetch_once *once);

#endif
