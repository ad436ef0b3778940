/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kubernetes as a source of topology labels: a file of labels that the downward API writes, which
 * needs no right and no token; else the node's own object from the API server (kube_api.h), which
 * needs `get` on nodes.
 */
#include <stdio.h>
#include <string.h>

#include "kube_api.h"
#include "log.h"
#include "loop.h"
#include "secret_file.h"
#include "topology_internal.h"

#define LABEL_FILE_BYTES (256 * 1024)
/* Names and labels alone, where the server can; the whole object else. */
#define ACCEPT "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"

/* ---- the file ---- */

/* True if the zone is in it. What else is in it stands in `out`, too. */
static bool from_file(struct topology_detect *detect, struct topology *out)
{
    const char *path = detect->config->topology_labels_file.text;
    char *text = NULL;
    size_t bytes = 0;
    memset(out, 0, sizeof *out);
    if (path[0] == '\0')
        return false;
    int err = file_read_whole(path, LABEL_FILE_BYTES, &text, &bytes);
    bool any = err == 0 && topology_parse_label_file(
                               text, bytes, detect->config->topology_vswitch_label.text, out);
    (void)loop_alloc(NULL, text, 0);
    if (!any && !detect->said_file)
        log_to(&detect->env, LOG_WARN, "topology: no topology label in topology.labelsFile %s: %s",
               path, err != 0 ? err_text(err) : "read, but none is there");
    detect->said_file = !any;
    return out->zone.text[0] != '\0';
}

/* ---- the API server ---- */

static void on_node(struct topology_detect *detect)
{
    const struct topology_ask *answer = &detect->ask;
    const char *name = config_environment(detect->config, "NODE_NAME");
    int err = topology__ask_result(answer);
    if (err == 0)
        err = topology_parse_node(answer->body, answer->body_bytes,
                                  detect->config->topology_vswitch_label.text, &detect->found);
    if ((err == E_DENIED || err == E_NOT_FOUND) && !detect->said_denied) {
        detect->said_denied = true;
        log_to(&detect->env, LOG_WARN,
               "topology: kubernetes does not show node %s (status %d): grant `get` on nodes to "
               "the service account, or set topology.labelsFile",
               name, answer->status);
    }
    /* A right may be granted later. */
    topology__done(detect, err == E_DENIED ? E_ORIGIN : err);
}

static int ask_node(struct topology_detect *detect)
{
    struct kube_api api;
    int err = kube_api_open(detect->config, &api);
    if (err != 0)
        return err;
    struct fetch_request request = {
        .method = "GET",
        .url = api.node_url,
        .ca_file = api.ca_file,
        .header_count = 2,
        .headers = {{"Authorization", api.bearer}, {"Accept", ACCEPT}},
    };
    err = topology__ask(detect, &request, on_node);
    kube_api_close(&api);
    return err;
}

int topology__kubernetes(struct topology_detect *detect)
{
    struct topology found;
    if (from_file(detect, &found)) {
        detect->found = found;
        return 0;
    }
    return ask_node(detect);
}
