/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kubernetes as a source of topology labels: a file of labels that the downward API writes, which
 * needs no right and no token; else the node's own object from the API server, with the service
 * account's token, which needs `get` on nodes. The token is read anew each time, since it rotates,
 * and wiped (HRD-4).
 */
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "loop.h"
#include "secret_file.h"
#include "topology_internal.h"

#define TOKEN_BYTES_MAX  (16 * 1024)
#define LABEL_FILE_BYTES (256 * 1024)
#define NODE_NAME_MAX    253
#define URL_BYTES        (2 * CONFIG_TEXT_BYTES + NODE_NAME_MAX)
#define PATH_BYTES       (CONFIG_PATH_BYTES + 16)
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

/* DNS-1123 subdomain, as names of nodes are: nothing that could change the path. */
static bool node_name_valid(const char *name)
{
    size_t bytes = strlen(name);
    return bytes > 0 && bytes <= NODE_NAME_MAX && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") == bytes &&
           strstr(name, "..") == NULL;
}

/* "https://host:port" of the API server; false outside a cluster. */
static bool base_url(const struct config *config, char *out, size_t out_bytes)
{
    const char *host = config_environment(config, "KUBERNETES_SERVICE_HOST");
    const char *port = config_environment(config, "KUBERNETES_SERVICE_PORT");
    int written;
    if (config->topology_kubernetes_url.text[0] != '\0') {
        written = snprintf(out, out_bytes, "%s", config->topology_kubernetes_url.text);
    } else {
        if (host[0] == '\0')
            return false;
        bool v6 = strchr(host, ':') != NULL;
        written = snprintf(out, out_bytes, "https://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "",
                           port[0] == '\0' ? "443" : port);
    }
    return written > 0 && (size_t)written < out_bytes;
}

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

/* "Bearer <token>" in memory from loop_alloc; NULL: there is none. */
static char *bearer_read(const struct config *config, size_t *bytes)
{
    static const char prefix[] = "Bearer ";
    char path[PATH_BYTES];
    char *token = NULL;
    size_t token_bytes = 0;
    (void)snprintf(path, sizeof path, "%s/token", config->topology_account.text);
    if (file_read_whole(path, TOKEN_BYTES_MAX, &token, &token_bytes) != 0)
        return NULL;
    while (token_bytes > 0 && (unsigned char)token[token_bytes - 1] <= ' ')
        token_bytes--;
    *bytes = sizeof prefix + token_bytes;
    char *whole = token_bytes == 0 ? NULL : loop_alloc(NULL, NULL, *bytes);
    if (whole != NULL) {
        memcpy(whole, prefix, sizeof prefix - 1);
        memcpy(whole + sizeof prefix - 1, token, token_bytes);
        whole[*bytes - 1] = '\0';
    }
    explicit_bzero(token, token_bytes);
    (void)loop_alloc(NULL, token, 0);
    return whole;
}

static int ask_node(struct topology_detect *detect)
{
    char base[CONFIG_TEXT_BYTES + 32], url[URL_BYTES], ca[PATH_BYTES];
    const char *name = config_environment(detect->config, "NODE_NAME");
    size_t bearer_bytes = 0;
    if (!node_name_valid(name) || !base_url(detect->config, base, sizeof base))
        return E_NOT_FOUND;
    char *bearer = bearer_read(detect->config, &bearer_bytes);
    if (bearer == NULL)
        return E_NOT_FOUND;
    (void)snprintf(url, sizeof url, "%s/api/v1/nodes/%s", base, name);
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", detect->config->topology_account.text);
    struct fetch_request request = {
        .method = "GET",
        .url = url,
        .ca_file = ca,
        .header_count = 2,
        .headers = {{"Authorization", bearer}, {"Accept", ACCEPT}},
    };
    int err = topology__ask(detect, &request, on_node);
    explicit_bzero(bearer, bearer_bytes);
    (void)loop_alloc(NULL, bearer, 0);
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
