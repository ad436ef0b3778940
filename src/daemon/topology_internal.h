/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of topology detection share: topology_detect.c (order, rounds, result),
 * topology_ask.c (one bounded answer), topology_kube.c and topology_cloud.c (the sources). */
#ifndef SHOAL_DAEMON_TOPOLOGY_INTERNAL_H
#define SHOAL_DAEMON_TOPOLOGY_INTERNAL_H

#include "acr.h"
#include "topology_detect.h"

#define TOPOLOGY_ANSWER_BYTES_MAX (256 * 1024)
#define TOPOLOGY_STEP_MS          1000 /* to connect, and to answer */

/* One whole answer of a source. */
struct topology_ask {
    struct fetch *fetch; /* NULL: none runs */
    void (*done)(struct topology_detect *detect);
    int err, status; /* status 0: none came */
    bool google;     /* Metadata-Flavor: Google was among the headers */
    char *body;      /* owned; TOPOLOGY_ANSWER_BYTES_MAX and a zero */
    size_t body_bytes;
};

struct topology_answer {
    bool settled;          /* not asked again */
    struct topology found; /* "" for what it does not know */
};

struct topology_detect {
    struct env env;
    struct fetch_engine engine;
    struct topology_host host;
    const struct config *config;
    struct peer_addr self;
    enum topology_source order[TOPOLOGY_SOURCE_COUNT];
    unsigned order_count, at;                  /* position of the source that is asked */
    bool running;                              /* it will answer, or its time will pass */
    bool finished;                             /* nothing will be asked any more */
    bool no_link_local;                        /* this round: nobody at 169.254.169.254 */
    bool said_denied, said_file, said_unknown; /* told to the operator once */
    unsigned round;
    struct topology_answer answers[TOPOLOGY_SOURCE_COUNT];
    struct topology_view view;
    struct topology_ask ask;
    /* Of the running source: */
    struct topology found;
    unsigned step;
    char token[1024];
    char mac[32];
    struct acr_metadata *ecs; /* NULL: not asked yet */
};

/* Sources. E_AGAIN: topology__done follows; else the answer: 0 with detect->found, or E_*. */
typedef int (*topology_source_fn)(struct topology_detect *detect);
int topology__kubernetes(struct topology_detect *detect);
int topology__ecs(struct topology_detect *detect);
int topology__aws(struct topology_detect *detect);
int topology__gcp(struct topology_detect *detect);
int topology__azure(struct topology_detect *detect);
/* The running source has answered; once each. Never inside a topology_source_fn. */
void topology__done(struct topology_detect *detect, int err);

/* Starts a request; time-outs, pool and buffer are filled in. E_AGAIN: `done` follows; else why it
 * could not start. */
int topology__ask(struct topology_detect *detect, struct fetch_request *request,
                  void (*done)(struct topology_detect *detect));
/* What an answer means for the source: 0 for 200; E_DENIED (401, 403); E_NOT_FOUND: it is not what
 * we took it for (other statuses up to 499); E_ORIGIN: ask again later; or the request's error. */
int topology__ask_result(const struct topology_ask *ask);
/* Cancels what runs and gives the buffer back. */
void topology__ask_stop(struct topology_detect *detect);

#endif
