/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sources of topology labels answer, turned into labels (ACR.md §5): Kubernetes node
 * objects and label files, metadata of the clouds, address prefixes. Pure functions on text from
 * outside: all of it may be malformed or hostile, and a label that is not one (topology.h) is left
 * out like one that is missing.
 */
#ifndef SHOAL_DAEMON_TOPOLOGY_PARSE_H
#define SHOAL_DAEMON_TOPOLOGY_PARSE_H

#include "topology.h"

/* Labels and where each came from; in the order in which they are tried. */
enum topology_source {
    TOPOLOGY_UNKNOWN = 0, /* no source has said it */
    TOPOLOGY_CONFIGURED,
    TOPOLOGY_KUBERNETES,
    TOPOLOGY_ECS,
    TOPOLOGY_AWS,
    TOPOLOGY_GCP,
    TOPOLOGY_AZURE,
    TOPOLOGY_PREFIXES,
    TOPOLOGY_SOURCE_COUNT,
};
/* "kubernetes", "ecs"...: as in topology.detect; "configuration" and "unknown" for the others. */
const char *topology_source_name(enum topology_source source);
/* The source of that name in topology.detect; TOPOLOGY_UNKNOWN if there is none. */
enum topology_source topology_source_find(const char *name);

/* One label from text with white space around it. 0; E_MALFORMED: empty, too long, not a label;
 * `out` unchanged then. */
MUST_USE int topology_label(struct label *out, const char *text);

/*
 * Labels of a Kubernetes object as the downward API writes them, a line each: key="value" with
 * Go's quoting. Read are topology.kubernetes.io/zone and /region (or the older
 * failure-domain.beta.kubernetes.io/...), and `vswitch_key` if it is not "". Returns whether any
 * was found; `out` has "" for the others.
 */
bool topology_parse_label_file(const char *text, size_t text_bytes, const char *vswitch_key,
                               struct topology *out);
/* The same from a Node object in JSON (metadata.labels). 0; E_MALFORMED: not such an object. */
MUST_USE int topology_parse_node(const char *json, size_t json_bytes, const char *vswitch_key,
                                 struct topology *out);
/* Azure's instance metadata (compute): region from `location`; zone "<location>-<zone>", without
 * zones the fault domain's number, as Kubernetes labels nodes there. 0; E_MALFORMED. */
MUST_USE int topology_parse_azure(const char *json, size_t json_bytes, struct topology *out);
/* GCP's "projects/<number>/zones/us-central1-a": zone behind the last '/', region without its last
 * part. 0; E_MALFORMED. */
MUST_USE int topology_parse_gcp(const char *text, struct topology *out);

/* One entry of topology.prefixes: "10.0.0.0/16=region/zone/vswitch". */
struct topology_prefix {
    struct addr_block block;
    struct topology topology;
};
/* Later parts may be missing or empty ("10.0.0.0/16=/zone-a"), but one must be there; such labels
 * have no '/' in them. 0; E_MALFORMED, also for bits behind the prefix; `out` unchanged then. */
MUST_USE int topology_prefix_parse(const char *text, struct topology_prefix *out);
/* True if the address is below the prefix. */
bool topology_prefix_fits(const struct topology_prefix *prefix, const struct peer_addr *addr);

#endif
