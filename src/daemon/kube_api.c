/* SPDX-License-Identifier: Apache-2.0 */
/* The API server from inside a pod; see kube_api.h. */
#include "kube_api.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "loop.h"
#include "secret_file.h"

#define TOKEN_BYTES_MAX (16 * 1024)

/* DNS-1123 subdomain, as names of nodes are: nothing that could change the path. */
static bool node_name_valid(const char *name)
{
    size_t bytes = strlen(name);
    return bytes > 0 && bytes <= KUBE_NODE_NAME_MAX && name[0] != '.' &&
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

/* "Bearer <token>" in memory from loop_alloc; NULL: there is none. */
static char *bearer_read(const struct config *config, size_t *bytes)
{
    static const char prefix[] = "Bearer ";
    char path[CONFIG_PATH_BYTES + 16];
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

int kube_api_open(const struct config *config, struct kube_api *out)
{
    char base[CONFIG_TEXT_BYTES + 32];
    const char *name = config_environment(config, "NODE_NAME");
    *out = (struct kube_api){.bearer = NULL};
    if (!node_name_valid(name) || !base_url(config, base, sizeof base))
        return E_NOT_FOUND;
    out->bearer = bearer_read(config, &out->bearer_bytes);
    if (out->bearer == NULL)
        return E_NOT_FOUND;
    (void)snprintf(out->node_url, sizeof out->node_url, "%s/api/v1/nodes/%s", base, name);
    (void)snprintf(out->ca_file, sizeof out->ca_file, "%s/ca.crt", config->topology_account.text);
    return 0;
}

void kube_api_close(struct kube_api *api)
{
    if (api->bearer != NULL)
        explicit_bzero(api->bearer, api->bearer_bytes);
    (void)loop_alloc(NULL, api->bearer, 0);
    api->bearer = NULL;
}
