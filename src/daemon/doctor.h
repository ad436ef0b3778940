/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal doctor`: looks for what is wrong on this node, from outside the agent, so that it tells
 * something when the agent does not run as well. Where it runs, its word over the control socket
 * (/status) is used. Nothing is changed but for one file that is written to dataDir and removed.
 *
 * Each finding says what was looked at, where, what is wrong and what to do. An error is something
 * that keeps this node from doing its work; a warning is worth a look. Blocking; every question has
 * its own time limit, and so many are asked at most, that all of it takes less than a minute.
 */
#ifndef SHOAL_DAEMON_DOCTOR_H
#define SHOAL_DAEMON_DOCTOR_H

#include <jansson.h>
#include <stdio.h>

#include "cli.h"

enum finding_level {
    FINDING_OK = 1,
    FINDING_WARNING,
    FINDING_ERROR,
};

#define FINDINGS_MAX       96
#define FINDING_TEXT_BYTES 512

struct finding {
    enum finding_level level;
    const char *check; /* "config", "secret", ...: static storage */
    char where[FINDING_TEXT_BYTES / 2];
    char what[FINDING_TEXT_BYTES];
    const char *todo; /* static storage; "" nothing */
};

struct doctor_report {
    const char *check; /* what is looked at now; static storage */
    struct finding findings[FINDINGS_MAX];
    unsigned count;
    unsigned errors, warnings; /* those that found no room included */
};

/* Adds one to what report->check names; without room it is only counted. `where` is copied; `what`
 * is made by format. */
void doctor_add(struct doctor_report *report, enum finding_level level, const char *where,
                const char *todo, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* What the checks know. */
struct doctor {
    const struct cli_context *context;
    const struct config_options *options;
    const struct config *config; /* loaded; may fail config_verify */
    const char *root;            /* where the host's / is mounted; "" here */
    const json_t *status;        /* of the agent; NULL: it does not answer */
    struct doctor_report *report;
};

/* The checks; each adds at least one finding. doctor_local.c: */
void doctor_secret(const struct doctor *doctor);
void doctor_disk(const struct doctor *doctor);
void doctor_ports(const struct doctor *doctor);
void doctor_runtime(const struct doctor *doctor);
/* doctor_net.c: at most 16 peers, each for at most 1.5 s; at most 16 registries, by `HEAD /v2/` as
 * the agent would ask, each for at most 6 s, and none after 20 s. */
void doctor_peers(const struct doctor *doctor);
/* doctor_inbound.c: has three others connect here, for at most 3 s; nothing without an agent or
 * others. */
void doctor_inbound(const struct doctor *doctor);
void doctor_registries(const struct doctor *doctor);

/* For people, one or two lines each, errors last so that they stay on the screen. */
void doctor_text(const struct doctor_report *report, FILE *out);
/* {findings: [{level, check, where, what, do}], errors, warnings}; NULL without memory. */
json_t *doctor_json(const struct doctor_report *report);

/* Weak for 32 bytes from a random source: fewer than 12 different values (chance 1e-14 or so). */
bool doctor_secret_weak(const uint8_t *bytes, size_t byte_count);
/* A date as HTTP has it ("Sun, 06 Nov 1994 08:49:37 GMT", RFC 9110 §5.6.7) as seconds since 1970.
 * 0, E_MALFORMED. */
MUST_USE int doctor_http_date(const char *text, uint64_t *wall_s);

#endif
